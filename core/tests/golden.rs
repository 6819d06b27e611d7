//! Golden service files: labels → specs → table → explanations, as snapshots.
//!
//! Each `golden/*.toml` is a small Swarm; its snapshot is everything that Tidegate makes of it. After a change that is
//! meant, run `INSTA_UPDATE=always cargo test -p tidegate-core` and read the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use tidegate_core::id::{ClusterName, NetworkId, NodeId, ServiceId, TaskId, Version};
use tidegate_core::labels::{Diagnostic, Reach, Reading, read, resolve, unknown_cluster};
use tidegate_core::route::explain::{Claim, Surroundings};
use tidegate_core::route::{RouteTable, conflicts, explain};
use tidegate_core::settings::cluster::NetworkPolicy;
use tidegate_core::snapshot::model::Snapshot;
use tidegate_core::swarm::model::{
    DesiredState, EndpointMode, Network, NetworkAddress, Node, NodeState, PublishMode, PublishedPort, Service,
    ServiceMode, Task, TaskState,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    /// Names of the networks of the Swarm; `ingress` is the routing mesh's.
    networks: Vec<String>,
    /// Networks that the proxies are on.
    #[serde(default)]
    attached: Vec<String>,
    /// The networks of the policy `shared`; without it, the policy is `attach`.
    shared: Option<Vec<String>>,
    /// Nodes and their addresses.
    #[serde(default)]
    nodes: BTreeMap<String, std::net::IpAddr>,
    /// Service clusters of the settings.
    #[serde(default = "default_clusters")]
    clusters: Vec<String>,
    /// URLs to explain, asked of the cluster `default`.
    #[serde(default)]
    explain: Vec<String>,
    services: Vec<GoldenService>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GoldenService {
    name: String,
    /// A day of January 2026.
    #[serde(default = "first_day")]
    created: u8,
    #[serde(default)]
    networks: Vec<String>,
    #[serde(default)]
    dnsrr: bool,
    #[serde(default)]
    job: bool,
    /// `host:80`, `ingress:80`.
    #[serde(default)]
    ports: Vec<String>,
    labels: BTreeMap<String, String>,
    #[serde(default)]
    tasks: Vec<GoldenTask>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GoldenTask {
    node: String,
    #[serde(default = "running")]
    state: TaskState,
    #[serde(default = "should_run")]
    desired: DesiredState,
    /// Address by network.
    #[serde(default)]
    at: BTreeMap<String, std::net::IpAddr>,
    /// Published port by target port.
    #[serde(default)]
    bound: BTreeMap<String, u16>,
}

fn default_clusters() -> Vec<String> {
    vec![ClusterName::DEFAULT.to_string()]
}

fn first_day() -> u8 {
    1
}

fn running() -> TaskState {
    TaskState::Running
}

fn should_run() -> DesiredState {
    DesiredState::Running
}

impl GoldenService {
    fn service(&self) -> Service {
        let virtual_ips = (1..).zip(&self.networks).map(|(number, name)| NetworkAddress {
            network: NetworkId::from(name.as_str()),
            addr: [10, 255, self.created, number].into(),
        });
        Service {
            id: ServiceId::from(format!("{}-id", self.name)),
            name: self.name.clone(),
            version: Version(1),
            created_at: format!("2026-01-{:02}T00:00:00Z", self.created),
            updated_at: None,
            labels: self.labels.clone(),
            mode: if self.job {
                ServiceMode::Job
            } else {
                ServiceMode::Global
            },
            endpoint_mode: if self.dnsrr {
                EndpointMode::Dnsrr
            } else {
                EndpointMode::Vip
            },
            virtual_ips: if self.dnsrr { Vec::new() } else { virtual_ips.collect() },
            ports: self.ports.iter().map(|text| published(text)).collect(),
            networks: self.networks.clone(),
            has_health_check: false,
        }
    }

    fn tasks(&self) -> Vec<Task> {
        let all = (1..).zip(&self.tasks).map(|(number, task)| Task {
            id: TaskId::from(format!("{}.{number}", self.name)),
            service: ServiceId::from(format!("{}-id", self.name)),
            version: Version(1),
            updated_at: None,
            slot: None,
            node: Some(NodeId::from(task.node.as_str())),
            state: task.state,
            desired: task.desired,
            addresses: task
                .at
                .iter()
                .map(|(network, addr)| NetworkAddress {
                    network: NetworkId::from(network.as_str()),
                    addr: *addr,
                })
                .collect(),
            ports: task
                .bound
                .iter()
                .map(|(target, published)| PublishedPort {
                    tcp: true,
                    target: target.parse().expect("a port"),
                    published: Some(*published),
                    mode: PublishMode::Host,
                })
                .collect(),
            error: String::new(),
        });
        all.collect()
    }
}

fn published(text: &str) -> PublishedPort {
    let (mode, port) = text.split_once(':').expect("mode:port");
    PublishedPort {
        tcp: true,
        target: port.parse().expect("a port"),
        published: None,
        mode: match mode {
            "host" => PublishMode::Host,
            "ingress" => PublishMode::Ingress,
            other => panic!("{other} is no mode"),
        },
    }
}

/// Everything that Tidegate makes of a golden file.
fn made_of(golden: &Golden) -> String {
    let networks: BTreeMap<NetworkId, Network> = golden
        .networks
        .iter()
        .map(|name| {
            let network = Network {
                id: NetworkId::from(name.as_str()),
                name: name.clone(),
                swarm_scope: true,
                driver: "overlay".to_string(),
                attachable: false,
                ingress: name == "ingress",
                labels: BTreeMap::new(),
            };
            (network.id.clone(), network)
        })
        .collect();
    let nodes: BTreeMap<NodeId, Node> = golden
        .nodes
        .iter()
        .map(|(name, addr)| {
            let node = Node {
                id: NodeId::from(name.as_str()),
                hostname: name.clone(),
                addr: Some(*addr),
                manager: false,
                active: true,
                state: NodeState::Ready,
            };
            (node.id.clone(), node)
        })
        .collect();
    let attached: BTreeSet<NetworkId> = golden
        .attached
        .iter()
        .map(|name| NetworkId::from(name.as_str()))
        .collect();
    let policy = golden
        .shared
        .clone()
        .map_or(NetworkPolicy::Attach, NetworkPolicy::Shared);
    let reach = Reach {
        attached: &attached,
        policy: &policy,
        publish_mode: PublishMode::Ingress,
        on: None,
    };
    let clusters: BTreeSet<ClusterName> = golden
        .clusters
        .iter()
        .map(|name| ClusterName::from(name.as_str()))
        .collect();

    let mut tables: BTreeMap<ClusterName, Snapshot> = clusters
        .iter()
        .map(|name| (name.clone(), Snapshot::default()))
        .collect();
    let mut readings: Vec<(String, Reading)> = Vec::new();
    for golden in &golden.services {
        let service = golden.service();
        let mut reading = read(&service);
        if let Some(route) = &reading.route {
            match tables.get_mut(&route.cluster) {
                None => reading
                    .diagnostics
                    .push(unknown_cluster(&service, &route.cluster, clusters.iter())),
                Some(snapshot) => {
                    let tasks = golden.tasks();
                    let resolved = resolve(route, &service, tasks.iter(), &networks, &nodes, &reach);
                    reading.diagnostics.extend(resolved.diagnostics);
                    if let Some(spec) = resolved.spec {
                        snapshot.routes.insert(service.id.clone(), Arc::new(spec));
                    }
                }
            }
        }
        readings.push((golden.name.clone(), reading));
    }

    let mut out = String::new();
    let mut diagnostics: Vec<Diagnostic> = readings
        .iter()
        .flat_map(|(_, reading)| reading.diagnostics.clone())
        .collect();
    diagnostics.extend(tables.values().flat_map(|snapshot| conflicts(&snapshot.routes)));
    diagnostics.sort();
    for diagnostic in &diagnostics {
        writeln!(out, "{diagnostic}").expect("a String takes all");
    }
    for (cluster, snapshot) in &tables {
        let table = RouteTable::compile(snapshot);
        write!(out, "\ncluster {cluster}\n{}", table.canonical_text()).expect("a String takes all");
        if cluster.as_str() != ClusterName::DEFAULT {
            continue;
        }
        let claims: Vec<Claim<'_>> = readings
            .iter()
            .map(|(name, reading)| Claim {
                service: name,
                hosts: &reading.hosts,
                label: &reading.hosts_label,
                diagnostics: &reading.diagnostics,
            })
            .collect();
        let surroundings = Surroundings {
            claims: &claims,
            ..Surroundings::NONE
        };
        for url in &golden.explain {
            write!(out, "\n{}", explain(&table, url, &surroundings)).expect("a String takes all");
        }
    }
    out
}

fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.toml"));
    let text = std::fs::read_to_string(&path).expect("the golden file exists");
    let mut golden: Golden = toml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let made = made_of(&golden);
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(name, made) });
    // Same services in any order, same bytes.
    golden.services.reverse();
    assert_eq!(made_of(&golden), made, "{name}, services in reverse order");
    let half = golden.services.len() / 2;
    golden.services.rotate_left(half);
    assert_eq!(made_of(&golden), made, "{name}, services in another order");
}

macro_rules! golden {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[test]
        fn $name() {
            check(stringify!($name));
        }
    )*

        #[test]
        fn every_golden_file_is_checked() {
            let names: BTreeSet<&str> = [$(stringify!($name)),*].into();
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
            for entry in std::fs::read_dir(directory).expect("the directory exists") {
                let name = entry.expect("it can be read").file_name().into_string().expect("a name in UTF-8");
                assert!(names.contains(name.trim_end_matches(".toml")), "{name}");
            }
        }
    };
}

golden! {
    backend_mode
    canary
    context_root
    default_backend
    host_mode
    later_labels
    networks
    prefixes
    redirects
    service_cluster
    serving
    shared_network
    values
    wildcards
}
