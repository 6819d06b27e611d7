//! What a service asks for, and what Docker says about it, to a spec: which network, which port, which endpoints.
//!
//! Never asks whether a task answers (that is `health`), and never removes an endpoint for what a node's state says.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use crate::id::{EndpointId, NetworkId, NodeId, TaskId};
use crate::labels::diagnostic::{Diagnostic, Severity};
use crate::labels::keys;
use crate::labels::read::{BackendMode, LabelledRoute};
use crate::labels::value::quote;
use crate::route::allow::IpRange;
use crate::route::spec::{DnsWitness, EndpointSpec, Leaving, RouteSpec};
use crate::settings::cluster::NetworkPolicy;
use crate::swarm::model::{Network, Node, PublishMode, Service, Task};

/// Milliseconds during which a leaving task with an overlay or ingress address may serve as last resort. Swarm tells the app 3.1 s
/// after the decision (facts §1), and the proxy learns of it within 0.5 s.
pub const LAST_RESORT_MS: u32 = 2_500;
/// The same for tasks without: Swarm tells the app 1.1 s after the decision.
pub const LAST_RESORT_NO_OVERLAY_MS: u32 = 800;

/// How the proxies of a cluster reach tasks.
#[derive(Clone, Copy, Debug)]
pub struct Reach<'a> {
    /// Networks that the proxy service is on now.
    pub attached: &'a BTreeSet<NetworkId>,
    /// Networks that it may be on.
    pub policy: &'a NetworkPolicy,
    /// How the proxies themselves are published. In host mode a service's own host-mode port comes before its networks.
    pub publish_mode: PublishMode,
    /// Ranges of the networks that the one proxy is on, where it is this very process (`tidegate run`).
    pub on: Option<&'a [IpRange]>,
}

/// What became of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// What the proxies serve; `None` where the route is refused.
    pub spec: Option<RouteSpec>,
    /// The network over which they reach the tasks; `None` in host mode and where the route is refused.
    pub network: Option<NetworkId>,
    /// Findings, sorted.
    pub diagnostics: Vec<Diagnostic>,
}

/// Resolves one route. `tasks` are the tasks of the service, in any order.
pub fn resolve<'t>(
    route: &LabelledRoute,
    service: &Service,
    tasks: impl Iterator<Item = &'t Task>,
    networks: &BTreeMap<NetworkId, Network>,
    nodes: &BTreeMap<NodeId, Node>,
    reach: &Reach<'_>,
) -> Resolved {
    let mut resolver = Resolver {
        service,
        networks,
        nodes,
        reach,
        diagnostics: Vec::new(),
    };
    let way = resolver
        .port(route)
        .and_then(|port| Some((port, resolver.way(route, port)?)));
    let spec = way.as_ref().map(|(port, way)| {
        let endpoints = resolver.endpoints(route, *port, way, tasks);
        let endpoints = resolver.on_own_networks(*port, way, endpoints);
        let witness = resolver.witness(route, *port, way);
        RouteSpec {
            witness,
            ..route.to_spec(service, endpoints)
        }
    });
    let network = way.and_then(|(_, way)| match way {
        Way::HostPort => None,
        Way::Overlay(network) => Some(network),
    });
    let mut diagnostics = resolver.diagnostics;
    diagnostics.sort();
    diagnostics.dedup();
    Resolved {
        spec,
        network,
        diagnostics,
    }
}

/// How the tasks of a service are reached.
enum Way {
    /// The node's address and the port that the task got there.
    HostPort,
    /// The task's own address on this network.
    Overlay(NetworkId),
}

struct Resolver<'a> {
    service: &'a Service,
    networks: &'a BTreeMap<NetworkId, Network>,
    nodes: &'a BTreeMap<NodeId, Node>,
    reach: &'a Reach<'a>,
    diagnostics: Vec<Diagnostic>,
}

/// A network that the service is on and proxies could use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Usable {
    name: String,
    id: NetworkId,
}

impl Resolver<'_> {
    fn say(&mut self, label: &str, severity: Severity, problem: impl Into<String>, remedy: impl Into<String>) {
        let found = keys::find_or_absent(self.service, label);
        let diagnostic = Diagnostic::new(self.service, &found.key, found.value, severity, problem, remedy);
        self.diagnostics.push(diagnostic);
    }

    fn port(&mut self, route: &LabelledRoute) -> Option<u16> {
        if route.port.is_none() {
            let problem = if self.service.ports.iter().any(|port| port.tcp) {
                "no port is named, and the service publishes several"
            } else {
                "no port is named, and the service publishes none"
            };
            self.say(
                "port",
                Severity::Error,
                problem,
                "write the port on which the app listens, e.g. 8080",
            );
        }
        route.port
    }

    /// Rows 23 to 26.
    fn way(&mut self, route: &LabelledRoute, port: u16) -> Option<Way> {
        let on = self.networks_of_service();
        let usable: Vec<Usable> = on.iter().filter(|network| self.may_use(network)).cloned().collect();
        let has_host_port = self
            .service
            .ports
            .iter()
            .any(|published| published.tcp && published.mode == PublishMode::Host && published.target == port);
        if let Some(wanted) = &route.network {
            return self.labelled_network(wanted, &on, &usable, has_host_port);
        }
        // Who publishes proxies and a service's port in host mode wants no overlay between them; a virtual IP is on one, though.
        if has_host_port && self.reach.publish_mode == PublishMode::Host && route.backend_mode == BackendMode::Task {
            return Some(Way::HostPort);
        }
        match usable.as_slice() {
            [only] => Some(Way::Overlay(only.id.clone())),
            [first, ..] => {
                let chosen = usable
                    .iter()
                    .find(|network| self.reach.attached.contains(&network.id))
                    .unwrap_or(first)
                    .clone();
                let names: Vec<&str> = usable.iter().map(|network| network.name.as_str()).collect();
                let problem = format!(
                    "the service is on {} networks ({}) and none is named, so {} is taken",
                    usable.len(),
                    names.join(", "),
                    quote(&chosen.name)
                );
                self.say(
                    "network",
                    Severity::Warning,
                    problem,
                    format!("write {}, or another of them", chosen.name),
                );
                Some(Way::Overlay(chosen.id))
            }
            [] if has_host_port => Some(Way::HostPort),
            [] => {
                let problem = format!("proxies cannot reach the service: {}", self.why_unreachable(&on));
                let remedy = match &self.reach.policy {
                    NetworkPolicy::Attach | NetworkPolicy::Legs => {
                        format!("attach it to an overlay network, or publish port {port} in host mode")
                    }
                    NetworkPolicy::Shared(names) if names.is_empty() => format!("publish port {port} in host mode"),
                    NetworkPolicy::Shared(names) => {
                        format!(
                            "attach it to {}, or publish port {port} in host mode",
                            names.join(" or ")
                        )
                    }
                };
                self.say("network", Severity::Error, problem, remedy);
                None
            }
        }
    }

    fn labelled_network(&mut self, wanted: &str, on: &[Usable], usable: &[Usable], has_host_port: bool) -> Option<Way> {
        let by_name = |candidates: &[Usable]| -> Option<Usable> {
            let in_stack = self.service.stack().map(|stack| format!("{stack}_{wanted}"));
            let exact = candidates
                .iter()
                .find(|network| network.name == wanted || network.id.as_str() == wanted);
            let stacked = || {
                candidates
                    .iter()
                    .find(|network| in_stack.as_deref() == Some(network.name.as_str()))
            };
            exact.or_else(stacked).cloned()
        };
        if let Some(network) = by_name(usable) {
            return Some(Way::Overlay(network.id));
        }
        // Row 25.
        let is_ingress = wanted == "ingress"
            || self
                .networks
                .values()
                .any(|network| network.ingress && (network.name == wanted || network.id.as_str() == wanted));
        if is_ingress {
            self.say(
                "network",
                Severity::Error,
                "the ingress network is the routing mesh's own, and tasks are not reached over it",
                "write an overlay network of the service",
            );
            return None;
        }
        let is_barred = by_name(on).is_some();
        let problem = if is_barred {
            format!("the proxies may not use the network {}", quote(wanted))
        } else {
            format!("the service is not on a network {}", quote(wanted))
        };
        match usable {
            [only] => {
                let problem = format!("{problem}, so its only usable one, {}, is taken", quote(&only.name));
                self.say("network", Severity::Warning, problem, format!("write {}", only.name));
                Some(Way::Overlay(only.id.clone()))
            }
            [] if has_host_port && is_barred => {
                let problem = format!("{problem}, so requests go to the port published in host mode");
                self.say("network", Severity::Warning, problem, "take this label away");
                Some(Way::HostPort)
            }
            _ => {
                let names: Vec<&str> = usable.iter().map(|network| network.name.as_str()).collect();
                let remedy = if names.is_empty() {
                    String::from("attach the service to an overlay network and write its name")
                } else {
                    match keys::nearest(wanted, names.iter().copied()) {
                        Some(near) => format!("did you mean {near}?"),
                        None => format!("write one of {}", names.join(", ")),
                    }
                };
                self.say("network", Severity::Error, problem, remedy);
                None
            }
        }
    }

    /// The overlay networks of the service, by name. Targets are ids or names; one that Docker's list does not have, which
    /// happens without quorum, counts if the service has an address on it.
    fn networks_of_service(&self) -> Vec<Usable> {
        let mut found: BTreeSet<Usable> = BTreeSet::new();
        for target in &self.service.networks {
            let id = NetworkId::from(target.as_str());
            let known = self.networks.get(&id).or_else(|| {
                let named = self.networks.values().filter(|network| network.name == *target);
                named.max_by_key(|network| network.swarm_scope)
            });
            match known {
                Some(network) if network.swarm_scope && !network.ingress => {
                    let (name, id) = (network.name.clone(), network.id.clone());
                    found.insert(Usable { name, id });
                }
                Some(_) => {}
                None if self.service.virtual_ips.iter().any(|address| address.network == id) => {
                    found.insert(Usable {
                        name: target.clone(),
                        id,
                    });
                }
                None => {}
            }
        }
        found.into_iter().collect()
    }

    fn may_use(&self, network: &Usable) -> bool {
        match self.reach.policy {
            NetworkPolicy::Attach | NetworkPolicy::Legs => true,
            NetworkPolicy::Shared(names) => names
                .iter()
                .any(|name| *name == network.name || name == network.id.as_str()),
        }
    }

    fn why_unreachable(&self, on: &[Usable]) -> String {
        let names: Vec<&str> = on.iter().map(|network| network.name.as_str()).collect();
        if names.is_empty() {
            String::from("it is on no overlay network")
        } else if matches!(self.reach.policy, NetworkPolicy::Shared(shared) if shared.is_empty()) {
            String::from("they use no networks of services")
        } else {
            format!("they do not use its networks ({})", names.join(", "))
        }
    }

    fn endpoints<'t>(
        &mut self,
        route: &LabelledRoute,
        port: u16,
        way: &Way,
        tasks: impl Iterator<Item = &'t Task>,
    ) -> Vec<EndpointSpec> {
        // Row 28: serving by both states; a leaving task stays, as last resort, until it is over.
        let alive: Vec<&Task> = tasks
            .filter(|task| task.service == self.service.id && (task.is_serving() || task.is_leaving()))
            .collect();
        if route.backend_mode == BackendMode::Vip {
            match self.virtual_ip(way) {
                Some((network, addr)) => return self.vip_endpoints(&network, SocketAddr::new(addr, port), &alive),
                None => self.say(
                    "backend_mode",
                    Severity::Warning,
                    "the service has no virtual IP on a network that proxies use, so requests go to its tasks",
                    "write task, or attach the service to an overlay network",
                ),
            }
        }
        let count = alive.len();
        let mut endpoints = Vec::with_capacity(count);
        let mut unreachable = BTreeSet::new();
        for task in alive {
            let place = match way {
                Way::HostPort => self.host_addr(task, port).map(|addr| (addr, None)),
                Way::Overlay(network) => self.overlay_addr(task, network).map(|(network, addr)| {
                    let addr = SocketAddr::new(addr, port);
                    (addr, self.via(network))
                }),
            };
            match place {
                Some((addr, via)) => endpoints.push(EndpointSpec {
                    id: EndpointId::from(task.id.as_str()),
                    addr,
                    via,
                    node: task.node.clone(),
                    leaving: task.is_leaving().then(|| leaving(task)),
                    unsure: false,
                }),
                None if task.is_serving() => {
                    unreachable.insert((&task.id, task.node.as_ref().map_or("", NodeId::as_str)));
                }
                None => {}
            }
        }
        if !unreachable.is_empty() {
            self.report_unreachable(&unreachable, count, port, way);
        }
        endpoints
    }

    fn virtual_ip(&self, way: &Way) -> Option<(NetworkId, IpAddr)> {
        let Way::Overlay(network) = way else { return None };
        let address = self
            .service
            .virtual_ips
            .iter()
            .find(|address| address.network == *network)?;
        Some((network.clone(), address.addr))
    }

    /// Row 29: the virtual IP is an endpoint while a task is behind it.
    fn vip_endpoints(&self, network: &NetworkId, addr: SocketAddr, alive: &[&Task]) -> Vec<EndpointSpec> {
        let is_serving = alive.iter().any(|task| task.is_serving());
        let last = alive
            .iter()
            .map(|task| leaving(task))
            .max_by_key(|leaving| leaving.last_resort_ms);
        let leaving = if is_serving { None } else { last };
        if !is_serving && leaving.is_none() {
            return Vec::new();
        }
        alloc::vec![EndpointSpec {
            id: EndpointId::from(format!("vip:{}:{network}", self.service.id)),
            addr,
            via: self.via(network),
            node: None,
            leaving,
            unsure: false,
        }]
    }

    /// The task's address on the network of the route; for tasks from before the service joined it, on any other that the
    /// proxies reach.
    fn overlay_addr<'t>(&self, task: &'t Task, network: &NetworkId) -> Option<(&'t NetworkId, IpAddr)> {
        let is_ingress = |id: &NetworkId| self.networks.get(id).is_some_and(|network| network.ingress);
        let is_reached = |id: &NetworkId| match self.reach.policy {
            NetworkPolicy::Attach | NetworkPolicy::Shared(_) => self.reach.attached.contains(id),
            NetworkPolicy::Legs => self.networks.get(id).is_some_and(|network| network.swarm_scope),
        };
        let on = task.addresses.iter().find(|address| address.network == *network);
        let elsewhere = || {
            let mut others = task.addresses.iter();
            others.find(|address| is_reached(&address.network) && !is_ingress(&address.network))
        };
        on.or_else(elsewhere).map(|address| (&address.network, address.addr))
    }

    /// The network whose leg connects to addresses on `network`, where legs do.
    fn via(&self, network: &NetworkId) -> Option<NetworkId> {
        (*self.reach.policy == NetworkPolicy::Legs).then(|| network.clone())
    }

    /// Tasks on an overlay network have a name in Docker's DNS.
    fn witness(&self, route: &LabelledRoute, port: u16, way: &Way) -> Option<DnsWitness> {
        match (route.backend_mode, way) {
            (BackendMode::Task, Way::Overlay(network)) => Some(DnsWitness {
                name: format!("tasks.{}", self.service.name),
                port,
                via: self.via(network),
            }),
            (BackendMode::Task | BackendMode::Vip, Way::HostPort) | (BackendMode::Vip, Way::Overlay(_)) => None,
        }
    }

    fn host_addr(&self, task: &Task, port: u16) -> Option<SocketAddr> {
        let bound = task
            .ports
            .iter()
            .find(|bound| bound.tcp && bound.mode == PublishMode::Host && bound.target == port)?;
        let node = self.nodes.get(task.node.as_ref()?)?;
        let addr = node.addr.filter(|addr| !addr.is_unspecified())?;
        Some(SocketAddr::new(addr, bound.published?))
    }

    /// Leaves out what a process that joins no network has no way to: beyond its own networks, whoever has the same address in
    /// another network would get the requests.
    fn on_own_networks(&mut self, port: u16, way: &Way, mut endpoints: Vec<EndpointSpec>) -> Vec<EndpointSpec> {
        let (Some(on), Way::Overlay(network)) = (self.reach.on, way) else {
            return endpoints;
        };
        let count = endpoints.len();
        endpoints.retain(|endpoint| on.iter().any(|range| range.contains(endpoint.addr.ip())));
        let far = count - endpoints.len();
        if far == 0 {
            return endpoints;
        }
        let known = self.networks.get(network);
        let name = known.map_or(network.as_str(), |network| &network.name);
        let place = if known.is_some_and(|network| network.attachable) {
            format!("in a container on it (docker run --network {name} …)")
        } else {
            format!("as a service on it (docker service create --network {name} …)")
        };
        let problem = format!(
            "this process is not on the network {name}, so {far} of {count} addresses of the service get no requests"
        );
        let remedy = format!("start `tidegate run` {place}, or publish port {port} of the service in host mode");
        self.say("network", Severity::Warning, problem, remedy);
        endpoints
    }

    /// `tasks` serve and have no address; not empty.
    fn report_unreachable(&mut self, tasks: &BTreeSet<(&TaskId, &str)>, alive: usize, port: u16, way: &Way) {
        let Some((_, node)) = tasks.first() else { return };
        let who = format!("{} of {alive} tasks", tasks.len());
        match way {
            Way::HostPort => self.say(
                "port",
                Severity::Warning,
                format!(
                    "{who} (the first on node {node}) without an address with port {port} in host mode get no requests"
                ),
                format!("check that the nodes have addresses and the service publishes port {port} in host mode"),
            ),
            Way::Overlay(network) => {
                let name = self
                    .networks
                    .get(network)
                    .map_or(network.as_str(), |network| &network.name);
                let problem = format!("{who} (the first on node {node}) without an address on {name} get no requests");
                self.say(
                    "network",
                    Severity::Warning,
                    problem,
                    "wait for the service's update to end",
                );
            }
        }
    }
}

/// Facts §1: a task with an overlay or ingress address runs on for 3.1 s, one without for 1.1 s.
fn leaving(task: &Task) -> Leaving {
    Leaving {
        last_resort_ms: if task.addresses.is_empty() {
            LAST_RESORT_NO_OVERLAY_MS
        } else {
            LAST_RESORT_MS
        },
    }
}
