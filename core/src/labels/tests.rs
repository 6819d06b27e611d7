//! Rules of the compatibility reference about labels, by row; every label with right and wrong values.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;
use proptest::prelude::*;

use super::keys::{LABELS, Support};
use super::read::{HOSTS_MAX, PARK_MS_MAX};
use super::{
    BackendMode, Diagnostic, LabelledRoute, Reach, Reading, Resolved, Severity, read, resolve, unknown_cluster,
};
use crate::id::{ClusterName, NetworkId, NodeId};
use crate::route::spec::{Balance, EndpointSpec, Leaving, UpstreamProtocol};
use crate::settings::cluster::NetworkPolicy;
use crate::swarm::model::{DesiredState, EndpointMode, PublishMode, Service, ServiceMode, Task, TaskState};
use crate::testing::sample::{host_port, networks, nodes, service, task};
use crate::testing::strategies;

const USUAL: [(&str, &str); 2] = [("tidegate.hosts", "shop.example.org"), ("tidegate.port", "80")];
const NETWORKS: &[&str] = &["a", "b", "ingress", "shop_backend"];

fn labelled(more: &[(&str, &str)]) -> Service {
    let labels: Vec<(&str, &str)> = USUAL.into_iter().chain(more.iter().copied()).collect();
    service("shop", &labels, &["a"])
}

fn route(service: &Service) -> LabelledRoute {
    let reading = read(service);
    reading
        .route
        .unwrap_or_else(|| panic!("refused: {:?}", reading.diagnostics))
}

/// The findings, as text without the service's name.
fn said(diagnostics: &[Diagnostic]) -> Vec<String> {
    diagnostics
        .iter()
        .map(|diagnostic| diagnostic.to_string().replace("service shop: ", ""))
        .collect()
}

/// The one finding about a reading that is refused, or not.
fn the_one(reading: &Reading, severity: Severity) -> &Diagnostic {
    assert_eq!(reading.diagnostics.len(), 1, "{:?}", reading.diagnostics);
    assert_eq!(reading.diagnostics[0].severity, severity);
    assert_eq!(reading.route.is_none(), severity == Severity::Error);
    &reading.diagnostics[0]
}

fn resolved_with(service: &Service, tasks: &[Task], attached: &[&str], policy: &NetworkPolicy) -> Resolved {
    let attached: BTreeSet<NetworkId> = attached
        .iter()
        .map(|name| NetworkId::from(format!("{name}-id")))
        .collect();
    let reach = Reach {
        attached: &attached,
        policy,
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

fn resolved(service: &Service, tasks: &[Task]) -> Resolved {
    resolved_with(service, tasks, &[], &NetworkPolicy::Attach)
}

fn endpoints(resolved: &Resolved) -> Vec<String> {
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

fn network_of(resolved: &Resolved) -> Option<&str> {
    resolved.network.as_ref().map(NetworkId::as_str)
}

#[test]
fn a_service_without_route_labels_is_nobody() {
    assert_eq!(
        read(&service("shop", &[("com.example.hosts", "x")], &[])),
        Reading::default()
    );
    assert_eq!(
        read(&service(
            "ca",
            &[("tidegate.identity", "ca"), ("tidegate.cluster", "x")],
            &[]
        )),
        Reading::default()
    );
}

#[test]
fn a_service_of_our_own_is_never_routed() {
    assert_eq!(read(&labelled(&[("tidegate.role", "proxy")])), Reading::default());
}

#[test]
fn both_prefixes_are_read_and_ours_wins() {
    let ours = route(&service("shop", &USUAL, &[]));
    let theirs = route(&service(
        "shop",
        &[
            ("com.docker.lb.hosts", "shop.example.org"),
            ("com.docker.lb.port", "80"),
        ],
        &[],
    ));
    assert_eq!(ours, theirs);
    let both = read(&labelled(&[
        ("com.docker.lb.port", "81"),
        ("com.docker.lb.hosts", "Shop.example.org "),
    ]));
    assert_eq!(both.route.as_ref().and_then(|route| route.port), Some(80));
    let finding = the_one(&both, Severity::Warning);
    assert_eq!(
        (finding.label.as_str(), finding.value.as_str()),
        ("com.docker.lb.port", "81")
    );
}

#[test]
fn a_key_that_is_no_label_is_answered_with_the_nearest() {
    let reading = read(&labelled(&[
        ("tidegate.prot", "80"),
        ("com.docker.lb.Hosts", "x"),
        ("com.docker.lb.balance", "round_robin"),
        ("tidegate.zzzzzzzz", "1"),
    ]));
    assert!(reading.route.is_some());
    let said = said(&reading.diagnostics).join("\n");
    insta::assert_snapshot!(said);
}

#[test]
fn row_01_a_boolean_that_is_neither_is_ignored() {
    let service = labelled(&[
        ("tidegate.default_backend", "enabled"),
        ("tidegate.context_root", "/app"),
        ("tidegate.context_root_rewrite", "Yes"),
    ]);
    let reading = read(&service);
    assert_eq!(the_one(&reading, Severity::Warning).label, "tidegate.default_backend");
    let route = reading.route.unwrap();
    assert!(!route.default_backend && route.strip_path);
}

#[test]
fn row_02_hosts_are_a_list_with_spaces_and_duplicates() {
    let service = service(
        "shop",
        &[
            ("com.docker.lb.hosts", " b.example, a.example,,B.EXAMPLE. ;"),
            ("com.docker.lb.port", "80"),
        ],
        &[],
    );
    let hosts: Vec<String> = route(&service).hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["a.example", "b.example"]);
    assert_eq!(read(&service).diagnostics, []);
}

#[test]
fn wrong_hosts_are_left_out_and_without_a_right_one_the_route_is_refused() {
    let some = read(&service(
        "shop",
        &[
            ("tidegate.hosts", "good.example, bücher.example"),
            ("tidegate.port", "80"),
        ],
        &[],
    ));
    assert!(the_one(&some, Severity::Warning).remedy.contains("punycode"));
    assert_eq!(some.hosts.len(), 1);
    let none = read(&service(
        "shop",
        &[("tidegate.hosts", "bücher.example"), ("tidegate.port", "80")],
        &[],
    ));
    assert!(the_one(&none, Severity::Error).problem.contains("bücher"));
    let empty = read(&service(
        "shop",
        &[("tidegate.hosts", " , "), ("tidegate.port", "80")],
        &[],
    ));
    the_one(&empty, Severity::Error);
    let missing = read(&service("shop", &[("tidegate.port", "80")], &[]));
    assert_eq!(the_one(&missing, Severity::Error).label, "tidegate.hosts");
}

#[test]
fn many_hosts_are_served_and_too_many_are_refused() {
    let list = |count: usize| {
        (0..count)
            .map(|number| format!("h{number}.example"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let many = list(10_000);
    assert_eq!(
        route(&service(
            "shop",
            &[("tidegate.hosts", &many), ("tidegate.port", "80")],
            &[]
        ))
        .hosts
        .len(),
        10_000
    );
    let too_many = list(HOSTS_MAX + 1);
    let reading = read(&service(
        "shop",
        &[("tidegate.hosts", &too_many), ("tidegate.port", "80")],
        &[],
    ));
    let finding = the_one(&reading, Severity::Error);
    assert!(finding.problem.contains("20000"));
    assert_eq!(finding.value.chars().count(), 200);
}

#[test]
fn a_thousand_wrong_hosts_are_reported_in_short() {
    let list: Vec<String> = (0..1_000).map(|number| format!("h_{number}$")).collect();
    let reading = read(&service(
        "shop",
        &[("tidegate.hosts", &list.join(",")), ("tidegate.port", "80")],
        &[],
    ));
    assert!(reading.route.is_none());
    assert_eq!(reading.diagnostics.len(), 21);
}

#[test]
fn row_04_wildcard_hosts_are_read() {
    let service = service(
        "shop",
        &[("tidegate.hosts", "*.Example.org"), ("tidegate.port", "80")],
        &[],
    );
    assert_eq!(route(&service).hosts[0].wildcard_suffix(), Some("example.org"));
}

#[test]
fn row_07_a_context_root_that_is_no_path_refuses_the_route() {
    for value in ["app", "/a/../b", "http://x/app", "/a//b", "/é"] {
        let reading = read(&labelled(&[("tidegate.context_root", value)]));
        assert_eq!(the_one(&reading, Severity::Error).label, "tidegate.context_root");
    }
    assert_eq!(
        route(&labelled(&[("tidegate.context_root", "/app/")])).path.as_str(),
        "/app"
    );
}

#[test]
fn row_08_a_rewrite_without_context_root_is_ignored() {
    let reading = read(&labelled(&[("tidegate.context_root_rewrite", "true")]));
    the_one(&reading, Severity::Warning);
    assert!(!reading.route.unwrap().strip_path);
}

#[test]
fn row_09_websocket_endpoints_are_a_hint() {
    let reading = read(&labelled(&[
        ("com.docker.lb.websocket_endpoints", "/ws,/foo"),
        ("com.docker.lb.context_root", "/app"),
    ]));
    assert_eq!(reading.diagnostics, []);
    assert!(reading.route.is_some());
}

#[test]
fn row_21_a_default_backend_needs_no_hosts_and_may_have_them() {
    let alone = route(&service(
        "shop",
        &[("tidegate.default_backend", "true"), ("tidegate.port", "80")],
        &[],
    ));
    assert!(alone.default_backend && alone.hosts.is_empty());
    let both = route(&labelled(&[("tidegate.default_backend", "1")]));
    assert!(both.default_backend && both.hosts.len() == 1);
}

#[test]
fn security_settings_that_cannot_be_honoured_refuse_the_route() {
    for label in LABELS.iter().filter(|label| label.support == Support::Refused) {
        let key = format!("com.docker.lb.{}", label.name);
        for value in ["true", "maybe"] {
            let reading = read(&labelled(&[(&key, value)]));
            assert_eq!(the_one(&reading, Severity::Error).label, key);
            assert_eq!(
                reading.hosts.len(),
                1,
                "an explanation still knows who claimed the host"
            );
        }
        assert_eq!(read(&labelled(&[(&key, "false")])).diagnostics, []);
    }
}

#[test]
fn labels_of_later_versions_are_ignored_with_a_warning() {
    for (name, value) in [
        ("ssl_cert", "shop.cert"),
        ("ssl_key", "shop.key"),
        ("ssl_backend_tls_verify", "required"),
        ("sticky_session_cookie", "session"),
        ("ip_hash", "true"),
        ("redirects", "http://a.example,http://b.example;"),
        ("max_fails", "3"),
        ("fail_timeout", "30s"),
    ] {
        let reading = read(&labelled(&[(&format!("com.docker.lb.{name}"), value)]));
        assert!(
            the_one(&reading, Severity::Warning)
                .problem
                .contains("does not support"),
            "{name}"
        );
    }
    assert_eq!(
        read(&labelled(&[
            ("tidegate.ip_hash", "off"),
            ("tidegate.ssl_backend_tls_verify", "none")
        ]))
        .diagnostics,
        []
    );
}

#[test]
fn choices_are_words_and_other_words_are_ignored() {
    let route = route(&labelled(&[
        ("tidegate.balance", "Round_Robin"),
        ("tidegate.backend_protocol", "h2c"),
        ("tidegate.backend_mode", "vip"),
    ]));
    assert_eq!(
        (route.balance, route.protocol, route.backend_mode),
        (Balance::RoundRobin, UpstreamProtocol::H2c, BackendMode::Vip)
    );
    for name in ["balance", "backend_protocol", "backend_mode"] {
        let reading = read(&labelled(&[(&format!("tidegate.{name}"), "fastest")]));
        let finding = the_one(&reading, Severity::Warning);
        assert!(
            finding.problem.contains("holds") && finding.remedy.starts_with("write "),
            "{finding}"
        );
    }
    assert_eq!(
        read(&labelled(&[("com.docker.lb.backend_mode", "default")])).diagnostics,
        []
    );
}

#[test]
fn park_timeout_is_a_time_of_at_most_ten_minutes() {
    let park = |value: &str| read(&labelled(&[("tidegate.park_timeout", value)]));
    assert_eq!(park("1m30s").route.unwrap().limits.park_ms, Some(90_000));
    assert_eq!(park("0").route.unwrap().limits.park_ms, Some(0));
    assert_eq!(park("10m").route.unwrap().limits.park_ms, Some(PARK_MS_MAX));
    for wrong in ["11m", "soon"] {
        let reading = park(wrong);
        the_one(&reading, Severity::Warning);
        assert_eq!(reading.route.unwrap().limits.park_ms, None);
    }
}

#[test]
fn a_port_that_is_no_number_refuses_the_route() {
    let reading = read(&service(
        "shop",
        &[("tidegate.hosts", "a.example"), ("com.docker.lb.port", "http")],
        &[],
    ));
    let text = the_one(&reading, Severity::Error).to_string();
    insta::assert_snapshot!(text);
}

#[test]
fn a_job_is_never_routed() {
    let mut job = labelled(&[]);
    job.mode = ServiceMode::Job;
    assert!(the_one(&read(&job), Severity::Error).problem.contains("job"));
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
            .contains("a task on node w2 has no address with port 80 in host mode")
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
    let found = resolved_with(&service, &[old.clone()], &["b", "ingress"], &NetworkPolicy::Attach);
    assert_eq!(endpoints(&found), ["shop.1 10.0.2.1:80"]);
    let unreachable = resolved(&service, &[old]);
    assert_eq!(endpoints(&unreachable), Vec::<String>::new());
    assert!(unreachable.diagnostics[0].problem.contains("has no address on a yet"));
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
fn row_32_sessions_cannot_be_pinned_behind_a_virtual_ip() {
    for (name, value) in [("ip_hash", "true"), ("sticky_session_cookie", "session")] {
        let reading = read(&labelled(&[
            ("tidegate.backend_mode", "vip"),
            (&format!("com.docker.lb.{name}"), value),
        ]));
        assert!(
            the_one(&reading, Severity::Warning)
                .remedy
                .contains("backend_mode=task")
        );
    }
}

#[test]
fn row_33_a_service_cluster_that_nobody_has_is_reported() {
    let service = labelled(&[("com.docker.lb.service_cluster", "us-esat")]);
    let known = [ClusterName::from("eu"), ClusterName::from("us-east")];
    let cluster = route(&service).cluster;
    insta::assert_snapshot!(unknown_cluster(&service, &cluster, known.iter()));
    let wrong = read(&labelled(&[("tidegate.service_cluster", "us east")]));
    the_one(&wrong, Severity::Error);
}

#[test]
fn row_34_a_service_without_cluster_label_belongs_to_the_default_cluster() {
    assert_eq!(route(&labelled(&[])).cluster, ClusterName::default_cluster());
    assert_eq!(
        route(&labelled(&[("tidegate.service_cluster", " ")])).cluster,
        ClusterName::default_cluster()
    );
    let finding = unknown_cluster(
        &labelled(&[]),
        &ClusterName::default_cluster(),
        [ClusterName::from("east")].iter(),
    );
    assert!(finding.problem.contains("without this label"), "{finding}");
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

proptest! {
    #[test]
    fn labels_never_panic_and_findings_are_bounded((service, tasks) in strategies::service_and_tasks(), is_shared in any::<bool>()) {
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
        let reach = Reach { attached: &BTreeSet::new(), policy: &policy };
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
