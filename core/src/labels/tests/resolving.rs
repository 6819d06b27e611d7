//! What labels say together with networks, ports and tasks.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;
use proptest::prelude::*;

use super::{labelled, route, said, the_one};
use crate::id::{NetworkId, NodeId};
use crate::labels::{Reach, Resolved, Severity, read, resolve};
use crate::route::spec::{EndpointSpec, Leaving};
use crate::settings::cluster::NetworkPolicy;
use crate::swarm::model::{DesiredState, EndpointMode, PublishMode, Service, Task, TaskState};
use crate::testing::sample::{host_port, networks, nodes, service, task};
use crate::testing::strategies;

const NETWORKS: &[&str] = &["a", "b", "ingress", "shop_backend"];

fn resolved_with(service: &Service, tasks: &[Task], attached: &[&str], policy: &NetworkPolicy) -> Resolved {
    resolved_by(service, tasks, attached, policy, PublishMode::Ingress)
}

fn resolved_by(
    service: &Service,
    tasks: &[Task],
    attached: &[&str],
    policy: &NetworkPolicy,
    publish_mode: PublishMode,
) -> Resolved {
    let attached: BTreeSet<NetworkId> = attached
        .iter()
        .map(|name| NetworkId::from(format!("{name}-id")))
        .collect();
    let reach = Reach {
        attached: &attached,
        policy,
        publish_mode,
        on: None,
    };
    resolve(
        &route(service),
        service,
        tasks.iter(),
        &networks(NETWORKS),
        &nodes(9),
        &reach,
    )
}

pub(super) fn resolved(service: &Service, tasks: &[Task]) -> Resolved {
    resolved_with(service, tasks, &[], &NetworkPolicy::Attach)
}

pub(super) fn endpoints(resolved: &Resolved) -> Vec<String> {
    let spec = resolved
        .spec
        .as_ref()
        .unwrap_or_else(|| panic!("refused: {:?}", resolved.diagnostics));
    let text = |endpoint: &EndpointSpec| match endpoint.leaving {
        None => format!("{} {}", endpoint.id, endpoint.addr),
        Some(Leaving { last_resort_ms }) => format!("{} {} leaving {last_resort_ms}", endpoint.id, endpoint.addr),
    };
    spec.endpoints.iter().map(text).collect()
}

pub(super) fn network_of(resolved: &Resolved) -> Option<&str> {
    resolved.network.as_ref().map(NetworkId::as_str)
}

#[test]
fn row_23_the_network_label_is_a_name_an_id_or_a_name_within_the_stack() {
    for wanted in ["shop_backend", "shop_backend-id", "backend"] {
        let mut service = labelled(&[("tidegate.network", wanted), ("com.docker.stack.namespace", "shop")]);
        service.networks = ["a-id".to_string(), "shop_backend".to_string()].into();
        let resolved = resolved(&service, &[task(&service, 1, &["a", "shop_backend"])]);
        assert_eq!(resolved.diagnostics, [], "{wanted}");
        assert_eq!(
            (network_of(&resolved), endpoints(&resolved)),
            (Some("shop_backend-id"), ["shop.1 10.0.2.1:80".to_string()].into())
        );
    }
}

#[test]
fn row_23_a_wrong_network_label_falls_to_the_only_network_or_refuses() {
    let one = labelled(&[("tidegate.network", "zzz")]);
    let found = resolved(&one, &[]);
    assert_eq!(network_of(&found), Some("a-id"));
    assert_eq!(found.diagnostics[0].severity, Severity::Warning);
    let mut two = labelled(&[("tidegate.network", "shop_backened")]);
    two.networks = ["a-id".to_string(), "shop_backend-id".to_string()].into();
    let found = resolved(&two, &[]);
    assert_eq!((found.spec, found.diagnostics[0].severity), (None, Severity::Error));
    assert_eq!(found.diagnostics[0].remedy, "did you mean shop_backend?");
}

#[test]
fn row_24_of_several_networks_an_attached_one_is_taken_else_the_first_by_name() {
    let mut service = labelled(&[]);
    service.networks = ["b-id".to_string(), "a-id".to_string(), "ingress-id".to_string()].into();
    let first = resolved(&service, &[]);
    assert_eq!((network_of(&first), first.diagnostics.len()), (Some("a-id"), 1));
    let attached = resolved_with(&service, &[], &["b"], &NetworkPolicy::Attach);
    assert_eq!(network_of(&attached), Some("b-id"));
    insta::assert_snapshot!(said(&attached.diagnostics).join("\n"));
}

#[test]
fn row_25_the_ingress_network_is_refused() {
    let mut service = labelled(&[("tidegate.network", "ingress")]);
    service.networks = ["a-id".to_string(), "ingress-id".to_string()].into();
    let found = resolved(&service, &[]);
    assert_eq!((found.spec, found.diagnostics[0].severity), (None, Severity::Error));
}

#[test]
fn row_26_host_mode_is_used_where_no_network_is_shared() {
    let mut service = labelled(&[]);
    service.networks.clear();
    service.ports = [host_port(80, None), host_port(9000, Some(9000))].into();
    let mut first = task(&service, 1, &[]);
    first.ports = [host_port(80, Some(32_768)), host_port(9000, Some(9000))].into();
    let mut second = task(&service, 2, &[]);
    second.ports = [host_port(9000, Some(9000))].into();
    let mut third = task(&service, 3, &[]);
    third.ports = first.ports.clone();
    third.desired = DesiredState::Shutdown;
    let found = resolved(&service, &[third, second, first]);
    assert_eq!(found.network, None);
    assert_eq!(
        endpoints(&found),
        ["shop.1 192.168.0.1:32768", "shop.3 192.168.0.3:32768 leaving 800"]
    );
    assert!(
        found.diagnostics[0]
            .problem
            .contains("1 of 3 tasks (the first on node w2) without an address with port 80 in host mode")
    );
}

#[test]
fn row_26_an_overlay_is_preferred_to_host_mode() {
    let mut service = labelled(&[]);
    service.ports = [host_port(80, None)].into();
    let mut one = task(&service, 1, &["a"]);
    one.ports = [host_port(80, Some(32_768))].into();
    assert_eq!(
        endpoints(&resolved(&service, core::slice::from_ref(&one))),
        ["shop.1 10.0.1.1:80"]
    );
    let shared = NetworkPolicy::Shared(["b".to_string()].into());
    let found = resolved_with(&service, &[one], &["b"], &shared);
    assert_eq!(
        (network_of(&found), endpoints(&found)),
        (None, ["shop.1 192.168.0.1:32768".to_string()].into())
    );
}

#[test]
fn row_26_proxies_in_host_mode_prefer_a_port_in_host_mode() {
    let mut service = labelled(&[]);
    service.ports = [host_port(80, None)].into();
    let mut one = task(&service, 1, &["a"]);
    one.ports = [host_port(80, Some(32_768))].into();
    let resolve = |service: &Service| {
        let tasks = core::slice::from_ref(&one);
        resolved_by(service, tasks, &["a"], &NetworkPolicy::Attach, PublishMode::Host)
    };
    let found = resolve(&service);
    assert_eq!(
        (network_of(&found), endpoints(&found)),
        (None, ["shop.1 192.168.0.1:32768".to_string()].into())
    );
    assert!(found.diagnostics.is_empty());
    // The label that names a network, a virtual IP and a port of another target want the overlay all the same.
    for label in [
        ("tidegate.network", "a"),
        ("tidegate.backend_mode", "vip"),
        ("tidegate.port", "81"),
    ] {
        let mut asked = labelled(&[label]);
        asked.ports.clone_from(&service.ports);
        assert_eq!(network_of(&resolve(&asked)), Some("a-id"), "{label:?}");
    }
}

#[test]
fn row_45_proxies_without_networks_reach_ports_in_host_mode_alone() {
    let none = NetworkPolicy::Shared(Vec::new());
    let mut service = labelled(&[]);
    let refused = resolved_with(&service, &[], &[], &none);
    assert_eq!(
        said(&refused.diagnostics),
        [
            "error: tidegate.network: proxies cannot reach the service: they use no networks of services; publish port 80 in host mode"
        ]
    );
    service.ports = [host_port(80, None)].into();
    let mut one = task(&service, 1, &["a"]);
    one.ports = [host_port(80, Some(32_768))].into();
    assert_eq!(
        endpoints(&resolved_with(&service, &[one], &[], &none)),
        ["shop.1 192.168.0.1:32768"]
    );
}

#[test]
fn a_service_that_proxies_cannot_reach_is_refused_with_the_reason() {
    let shared = NetworkPolicy::Shared(["b".to_string()].into());
    let found = resolved_with(&labelled(&[]), &[], &["b"], &shared);
    assert_eq!(found.spec, None);
    let mut alone = labelled(&[]);
    alone.networks = ["ingress-id".to_string()].into();
    let also = resolved(&alone, &[]);
    assert_eq!(also.spec, None);
    let text = [said(&found.diagnostics), said(&also.diagnostics)].concat().join("\n");
    insta::assert_snapshot!(text);
}

#[test]
fn row_27_a_missing_port_is_the_only_published_one_or_refused() {
    let mut service = service("shop", &[("tidegate.hosts", "shop.example.org")], &["a"]);
    assert_eq!(resolved(&service, &[]).diagnostics[0].label, "tidegate.port");
    let mut udp = host_port(53, None);
    udp.tcp = false;
    let mut mesh = host_port(8080, Some(80));
    mesh.mode = PublishMode::Ingress;
    service.ports = [udp, mesh].into();
    assert_eq!(
        endpoints(&resolved(&service, &[task(&service, 1, &["a"])])),
        ["shop.1 10.0.1.1:8080"]
    );
    service.ports.push(host_port(9090, None));
    let found = resolved(&service, &[]);
    assert_eq!((found.spec, found.diagnostics.len()), (None, 1));
}

#[test]
fn row_28_tasks_serve_while_both_states_say_running() {
    let service = labelled(&[]);
    let tasks: Vec<Task> = (1..)
        .zip([
            (TaskState::Running, DesiredState::Running),
            (TaskState::Starting, DesiredState::Running),
            (TaskState::Running, DesiredState::Shutdown),
            (TaskState::Running, DesiredState::Remove),
            (TaskState::Shutdown, DesiredState::Shutdown),
            (TaskState::Running, DesiredState::Ready),
            (TaskState::Orphaned, DesiredState::Running),
            (TaskState::Other, DesiredState::Running),
            (TaskState::Running, DesiredState::Other),
        ])
        .map(|(slot, (state, desired))| {
            let mut task = task(&service, slot, &["a"]);
            (task.state, task.desired) = (state, desired);
            task
        })
        .collect();
    let found = resolved(&service, &tasks);
    assert_eq!(
        endpoints(&found),
        [
            "shop.1 10.0.1.1:80",
            "shop.3 10.0.1.3:80 leaving 2500",
            "shop.4 10.0.1.4:80 leaving 2500"
        ]
    );
    assert_eq!(found.diagnostics, []);
}

#[test]
fn a_task_from_before_a_network_change_is_reached_over_the_old_network() {
    let service = labelled(&[]);
    let old = task(&service, 1, &["ingress", "b"]);
    let found = resolved_with(
        &service,
        core::slice::from_ref(&old),
        &["b", "ingress"],
        &NetworkPolicy::Attach,
    );
    assert_eq!(endpoints(&found), ["shop.1 10.0.2.1:80"]);
    let unreachable = resolved(&service, &[old]);
    assert_eq!(endpoints(&unreachable), Vec::<String>::new());
    assert!(
        unreachable.diagnostics[0]
            .problem
            .contains("1 of 1 tasks (the first on node w1) without an address on a get no requests")
    );
}

#[test]
fn a_process_that_is_its_own_proxy_leaves_out_what_is_on_networks_that_it_is_not_on() {
    let service = labelled(&[]);
    let tasks = [task(&service, 1, &["a"]), task(&service, 2, &["a"])];
    let said_on = |on: &str, attachable: bool| {
        let on: Vec<_> = on.split_whitespace().map(|range| range.parse().unwrap()).collect();
        let mut networks = networks(NETWORKS);
        networks.get_mut(&NetworkId::from("a-id")).unwrap().attachable = attachable;
        let reach = Reach {
            attached: &BTreeSet::new(),
            policy: &NetworkPolicy::Attach,
            publish_mode: PublishMode::Host,
            on: Some(&on),
        };
        let found = resolve(&route(&service), &service, tasks.iter(), &networks, &nodes(9), &reach);
        (endpoints(&found).len(), said(&found.diagnostics).join("\n"))
    };
    assert_eq!(said_on("172.18.0.0/16 10.0.1.0/24", true), (2, String::new()));
    let (none, container) = said_on("", true);
    let (one, some) = said_on("10.0.1.1/32", true);
    let (neither, service) = said_on("10.0.2.0/24", false);
    assert_eq!(
        (none, one, neither),
        (0, 1, 0),
        "others may have the same addresses elsewhere"
    );
    insta::assert_snapshot!([container, some, service].join("\n"));
}

#[test]
fn a_network_that_the_list_lost_keeps_its_routes() {
    let mut service = labelled(&[]);
    service.networks = ["gone-id".to_string()].into();
    service.virtual_ips[0].network = NetworkId::from("gone-id");
    let found = resolved(&service, &[task(&service, 1, &["gone"])]);
    assert_eq!(
        (network_of(&found), endpoints(&found)),
        (Some("gone-id"), ["shop.1 10.0.1.1:80".to_string()].into())
    );
}

#[test]
fn tasks_of_another_service_are_none_of_its_endpoints() {
    let (shop, other) = (labelled(&[]), service("other", &[], &["a"]));
    assert_eq!(
        endpoints(&resolved(&shop, &[task(&other, 1, &["a"])])),
        Vec::<String>::new()
    );
}

#[test]
fn row_29_a_virtual_ip_is_an_endpoint_while_a_task_is_behind_it() {
    let service = labelled(&[("tidegate.backend_mode", "vip")]);
    assert_eq!(endpoints(&resolved(&service, &[])), Vec::<String>::new());
    let (one, mut two) = (task(&service, 1, &["a"]), task(&service, 2, &["a"]));
    two.desired = DesiredState::Shutdown;
    assert_eq!(
        endpoints(&resolved(&service, &[one, two.clone()])),
        ["vip:shop-id:a-id 10.0.9.1:80"]
    );
    assert_eq!(
        endpoints(&resolved(&service, &[two])),
        ["vip:shop-id:a-id 10.0.9.1:80 leaving 2500"]
    );
}

#[test]
fn row_30_vip_without_virtual_ip_falls_to_tasks() {
    let mut service = labelled(&[("tidegate.backend_mode", "vip")]);
    service.endpoint_mode = EndpointMode::Dnsrr;
    service.virtual_ips.clear();
    assert!(the_one(&read(&service), Severity::Warning).problem.contains("dnsrr"));
    assert_eq!(
        endpoints(&resolved(&service, &[task(&service, 1, &["a"])])),
        ["shop.1 10.0.1.1:80"]
    );
    service.endpoint_mode = EndpointMode::Vip;
    let found = resolved(&service, &[task(&service, 1, &["a"])]);
    assert_eq!(
        (endpoints(&found).len(), found.diagnostics[0].severity),
        (1, Severity::Warning)
    );
}

#[test]
fn row_31_a_label_change_counts_in_vip_mode_too() {
    let mut service = labelled(&[("tidegate.backend_mode", "vip")]);
    let before = resolved(&service, &[task(&service, 1, &["a"])]);
    service
        .labels
        .insert("tidegate.hosts".to_string(), "new.example.org".to_string());
    let after = resolved(&service, &[task(&service, 1, &["a"])]);
    assert_ne!(before.spec.unwrap().hosts, after.spec.unwrap().hosts);
}

#[test]
fn a_node_without_address_is_reported_in_host_mode() {
    let mut service = labelled(&[]);
    service.networks.clear();
    service.ports = [host_port(80, None)].into();
    let mut one = task(&service, 1, &[]);
    one.ports = [host_port(80, Some(32_768))].into();
    let mut nodes = nodes(1);
    nodes.get_mut(&NodeId::from("w1")).unwrap().addr = Some(IpAddr::from([0, 0, 0, 0]));
    let reach = Reach {
        attached: &BTreeSet::new(),
        policy: &NetworkPolicy::Attach,
        publish_mode: PublishMode::Ingress,
        on: None,
    };
    let found = resolve(
        &route(&service),
        &service,
        [one].iter(),
        &networks(NETWORKS),
        &nodes,
        &reach,
    );
    assert_eq!((endpoints(&found).len(), found.diagnostics.len()), (0, 1));
}

#[test]
fn endpoints_over_legs_name_the_network_of_their_address_and_where_dns_knows_them() {
    let mut service = labelled(&[("tidegate.network", "b")]);
    service.networks = ["a-id".to_string(), "b-id".to_string()].into();
    let tasks = [task(&service, 1, &["a"]), task(&service, 2, &["a", "b"])];
    let found = resolved_with(&service, &tasks, &[], &NetworkPolicy::Legs);
    let spec = found.spec.as_ref().unwrap();
    let vias: Vec<_> = spec
        .endpoints
        .iter()
        .map(|endpoint| endpoint.via.as_ref().unwrap().as_str())
        .collect();
    assert_eq!(
        vias,
        ["a-id", "b-id"],
        "a task from before the service joined b is reached over a"
    );
    let witness = spec.witness.as_ref().unwrap();
    assert_eq!(witness.name, format!("tasks.{}", service.name));
    assert_eq!(witness.via, Some(NetworkId::from("b-id")));
    let attached = resolved_with(&service, &tasks, &["a", "b"], &NetworkPolicy::Attach)
        .spec
        .unwrap();
    assert!(attached.endpoints.iter().all(|endpoint| endpoint.via.is_none()));
    assert!(attached.requires.is_empty() && attached.witness.unwrap().via.is_none());
}

proptest! {
    #[test]
    fn labels_never_panic_and_findings_are_bounded((service, tasks) in strategies::service_and_tasks(), is_shared in any::<bool>(), is_host in any::<bool>()) {
        let reading = read(&service);
        let refused = reading.diagnostics.iter().any(|finding| finding.severity == Severity::Error);
        prop_assert!(!(refused && reading.route.is_some()));
        for finding in &reading.diagnostics {
            prop_assert!(finding.value.chars().count() <= 200);
            prop_assert!(!finding.problem.is_empty() && !finding.remedy.is_empty());
            prop_assert!(!finding.problem.ends_with('.') && finding.problem.chars().count() < 1_200);
        }
        let Some(route) = reading.route else { return Ok(()) };
        let policy = if is_shared { NetworkPolicy::Shared(["shared".to_string()].into()) } else { NetworkPolicy::Attach };
        let publish_mode = if is_host { PublishMode::Host } else { PublishMode::Ingress };
        let reach = Reach { attached: &BTreeSet::new(), policy: &policy, publish_mode, on: None };
        let facts = (networks(strategies::NETWORKS), nodes(2));
        let resolve = |tasks: &mut dyn Iterator<Item = &Task>| resolve(&route, &service, tasks, &facts.0, &facts.1, &reach);
        let resolved = resolve(&mut tasks.iter());
        prop_assert_eq!(&resolved, &resolve(&mut tasks.iter().rev()), "the order of tasks does not matter");
        match &resolved.spec {
            None => prop_assert!(resolved.diagnostics.iter().any(|finding| finding.severity == Severity::Error)),
            Some(spec) => {
                prop_assert!(spec.endpoints.is_sorted_by(|a, b| a.id < b.id));
                prop_assert!(spec.hosts.is_sorted_by(|a, b| a < b));
                prop_assert!(spec.endpoints.iter().all(|endpoint| Some(endpoint.addr.port()) == route.port || resolved.network.is_none()));
            }
        }
    }
}
