//! What labels alone say.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{USUAL, labelled, route, said, the_one};
use crate::id::ClusterName;
use crate::labels::read::{HOSTS_MAX, PARK_MS_MAX};
use crate::labels::{BackendMode, Reading, Severity, read, unknown_cluster};
use crate::route::spec::{Balance, UpstreamProtocol};
use crate::swarm::model::ServiceMode;
use crate::testing::sample::service;

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
fn label_park_timeout_is_a_time_of_at_most_ten_minutes() {
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
fn findings_are_short_and_on_one_line_whatever_the_label() {
    let key = format!("tidegate.\n\u{1b}[31m{}", "x".repeat(70_000));
    let value = "y\n".repeat(40_000);
    let reading = read(&labelled(&[(&key, &value)]));
    let text = the_one(&reading, Severity::Warning).to_string();
    assert!(
        text.len() < 1_200 && !text.contains('\n') && !text.contains('\u{1b}'),
        "{text}"
    );
}
