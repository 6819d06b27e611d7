//! A test for each label that no other one is named after: from the label to what a request meets.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::resolving::{endpoints, network_of, resolved};
use super::{labelled, route, the_one};
use crate::labels::{Severity, read};
use crate::pool::PoolPolicy;
use crate::route::active::StatusRange;
use crate::route::edits::HeaderEdit;
use crate::route::redirect::Scheme;
use crate::route::{Decision, RouteTable, strip};
use crate::settings::proxy::ProxySettings;
use crate::snapshot::model::Snapshot;
use crate::swarm::model::Service;
use crate::testing::sample::{service, task};

/// The table of services with these labels, one task each.
fn table(services: &[Service]) -> RouteTable {
    let mut snapshot = Snapshot::default();
    for service in services {
        let spec = resolved(service, &[task(service, 1, &["a"])]).spec;
        let spec = spec.unwrap_or_else(|| panic!("{} is refused: {:?}", service.name, read(service).diagnostics));
        snapshot.routes.insert(service.id.clone(), Arc::new(spec));
    }
    RouteTable::compile(&snapshot)
}

/// The services and the path that a request goes to, or what else happens.
fn asked(table: &RouteTable, host: &str, path: &str) -> String {
    match table.route(Some(host), path) {
        Decision::Forward(rule) => {
            let names: Vec<&str> = rule.services.iter().map(|service| &*service.name).collect();
            alloc::format!("{} {}", names.join("+"), strip(rule, path))
        }
        Decision::Redirect(rule) => rule.location(path),
        Decision::Passthrough { redirect } => alloc::format!("passthrough, redirect {redirect}"),
        Decision::UnknownHost => "unknown host".to_string(),
        Decision::UnknownPath => "unknown path".to_string(),
    }
}

fn shop(labels: &[(&str, &str)]) -> Service {
    service("shop", labels, &["a"])
}

#[test]
fn label_hosts_name_who_is_served() {
    for prefix in ["tidegate.", "com.docker.lb."] {
        let (hosts, port) = (alloc::format!("{prefix}hosts"), alloc::format!("{prefix}port"));
        let table = table(&[shop(&[(&hosts, "example.com, test.com,*.Example.org"), (&port, "80")])]);
        for host in ["example.com", "TEST.com:8080", "a.b.example.org"] {
            assert_eq!(asked(&table, host, "/x"), "shop /x", "{host}");
        }
        assert_eq!(asked(&table, "other.com", "/x"), "unknown host");
    }
    let none = read(&shop(&[("tidegate.port", "80")]));
    assert_eq!(the_one(&none, Severity::Error).label, "tidegate.hosts");
}

#[test]
fn label_port_is_where_the_app_listens() {
    let at = |port: &str| {
        let service = shop(&[
            ("com.docker.lb.hosts", "shop.example.org"),
            ("com.docker.lb.port", port),
        ]);
        endpoints(&resolved(&service, &[task(&service, 1, &["a"])]))
    };
    assert_eq!(at("8080"), ["shop.1 10.0.1.1:8080"]);
    for wrong in ["0", "65536", "http", "80,81", "-1"] {
        let service = shop(&[
            ("com.docker.lb.hosts", "shop.example.org"),
            ("com.docker.lb.port", wrong),
        ]);
        the_one(&read(&service), Severity::Error);
    }
}

#[test]
fn label_network_says_over_which_one_tasks_are_reached() {
    let mut service = labelled(&[("com.docker.lb.network", "b")]);
    service.networks = ["a-id".to_string(), "b-id".to_string()].into();
    let found = resolved(&service, &[task(&service, 1, &["a", "b"])]);
    assert_eq!(found.diagnostics, []);
    assert_eq!(
        (network_of(&found), endpoints(&found)),
        (Some("b-id"), ["shop.1 10.0.2.1:80".to_string()].into())
    );
}

#[test]
fn label_context_root_serves_only_what_is_below_it() {
    let table = table(&[labelled(&[("com.docker.lb.context_root", "/app")])]);
    assert_eq!(asked(&table, "shop.example.org", "/app/x?y"), "shop /app/x?y");
    assert_eq!(asked(&table, "shop.example.org", "/app"), "shop /app");
    assert_eq!(asked(&table, "shop.example.org", "/application"), "unknown path");
    assert_eq!(asked(&table, "shop.example.org", "/"), "unknown path");
}

#[test]
fn label_context_root_rewrite_takes_the_prefix_away() {
    let labels = [
        ("com.docker.lb.context_root", "/app"),
        ("com.docker.lb.context_root_rewrite", "true"),
    ];
    let table = table(&[labelled(&labels)]);
    assert_eq!(asked(&table, "shop.example.org", "/app/x?y"), "shop /x?y");
    assert_eq!(asked(&table, "shop.example.org", "/app"), "shop /");
}

#[test]
fn label_default_backend_serves_what_nobody_claims() {
    let other = service(
        "other",
        &[("com.docker.lb.default_backend", "true"), ("com.docker.lb.port", "80")],
        &["a"],
    );
    let table = table(&[labelled(&[]), other]);
    assert_eq!(asked(&table, "shop.example.org", "/"), "shop /");
    assert_eq!(asked(&table, "nobody.example.org", "/x"), "other /x");
    assert_eq!(asked(&table, "", "/"), "other /");
}

#[test]
fn label_backend_mode_is_the_tasks_or_one_virtual_ip() {
    for (mode, expected) in [
        ("task", &["shop.1 10.0.1.1:80", "shop.2 10.0.1.2:80"][..]),
        ("vip", &["vip:shop-id:a-id 10.0.9.1:80"][..]),
    ] {
        let service = labelled(&[("com.docker.lb.backend_mode", mode)]);
        let tasks = [task(&service, 1, &["a"]), task(&service, 2, &["a"])];
        assert_eq!(endpoints(&resolved(&service, &tasks)), expected, "{mode}");
    }
}

#[test]
fn label_service_cluster_says_whose_proxies_serve() {
    let of = |labels: &[(&str, &str)]| route(&labelled(labels)).cluster.to_string();
    assert_eq!(of(&[("com.docker.lb.service_cluster", "us-east")]), "us-east");
    assert_eq!(of(&[]), "default");
    assert_eq!(of(&[("com.docker.lb.service_cluster", "")]), "default");
}

#[test]
fn label_max_fails_is_the_services_own() {
    let checks = |value: &str| route(&labelled(&[("com.docker.lb.max_fails", value)])).checks;
    assert_eq!(checks("3").max_fails, Some(3));
    assert_eq!(checks("0").max_fails, Some(0));
    assert_eq!(checks("often").max_fails, None);
}

#[test]
fn label_fail_timeout_is_the_services_own() {
    let checks = |value: &str| route(&labelled(&[("com.docker.lb.fail_timeout", value)])).checks;
    assert_eq!(checks("30s").fail_timeout_ms, Some(30_000));
    assert_eq!(checks("30").fail_timeout_ms, Some(30_000));
    assert_eq!(checks("a while").fail_timeout_ms, None);
}

#[test]
fn label_eject_max_is_a_share_of_the_pool() {
    let limits = |value: &str| route(&labelled(&[("tidegate.eject_max", value)])).limits;
    assert_eq!(limits("30").eject_max_percent, Some(30));
    for wrong in ["101", "-1", "half", "30%"] {
        let reading = read(&labelled(&[("tidegate.eject_max", wrong)]));
        let finding = the_one(&reading, Severity::Warning);
        assert_eq!(
            finding.problem,
            "this is no whole number from 0 to 100, so the cluster's setting holds"
        );
        assert!(reading.route.expect("served").limits.is_empty());
    }
}

#[test]
fn label_panic_threshold_is_a_share_of_the_pool() {
    let limits = |value: &str| route(&labelled(&[("tidegate.panic_threshold", value)])).limits;
    assert_eq!(limits("0").panic_threshold_percent, Some(0));
    the_one(
        &read(&labelled(&[("tidegate.panic_threshold", "1000")])),
        Severity::Warning,
    );
}

#[test]
fn label_fail_rate_beats_the_clusters_also_where_max_fails_is_off() {
    let rate = |labels: &[(&str, &str)], clusters: u32| {
        let table = table(&[shop(
            &[
                &[("tidegate.hosts", "shop.example.org"), ("tidegate.port", "80")],
                labels,
            ]
            .concat(),
        )]);
        let pool = table.pools().values().next().expect("one pool");
        let settings = ProxySettings {
            fail_rate_percent: clusters,
            ..ProxySettings::default()
        };
        PoolPolicy::of(pool, &settings).services[0].fail_rate_percent
    };
    assert_eq!(rate(&[], 70), 70);
    assert_eq!(rate(&[("tidegate.fail_rate", "30")], 70), 30);
    assert_eq!(rate(&[("tidegate.max_fails", "0")], 70), 0);
    assert_eq!(
        rate(&[("tidegate.max_fails", "0"), ("tidegate.fail_rate", "30")], 70),
        30
    );
    the_one(&read(&labelled(&[("tidegate.fail_rate", "often")])), Severity::Warning);
}

#[test]
fn label_probe_path_is_a_path_and_the_rest_belongs_to_it() {
    let active = |labels: &[(&str, &str)]| route(&labelled(labels)).active;
    assert_eq!(active(&[]), None);
    let path = ("tidegate.probe_path", "/health?deep=1");
    let plain = active(&[path]).expect("it is probed");
    assert_eq!(
        (
            plain.path.as_str(),
            plain.interval_ms,
            plain.timeout_ms,
            plain.statuses.len()
        ),
        ("/health?deep=1", 5_000, 2_000, 0)
    );
    let full = active(&[
        path,
        ("tidegate.probe_interval", "500ms"),
        ("tidegate.probe_timeout", "1s"),
        ("tidegate.probe_status", "401-403, 200"),
    ]);
    let full = full.expect("it is probed");
    assert_eq!((full.interval_ms, full.timeout_ms), (500, 1_000));
    assert_eq!(full.statuses, [StatusRange(200, 200), StatusRange(401, 403)]);
    for wrong in ["health", "/a b", "/#top", "http://shop.example/"] {
        let reading = read(&labelled(&[("tidegate.probe_path", wrong)]));
        let finding = the_one(&reading, Severity::Warning);
        assert!(
            finding.problem.ends_with("is no path, so tasks are not asked"),
            "{finding}"
        );
        assert_eq!(reading.route.expect("served").active, None);
    }
    let passthrough = read(&labelled(&[path, ("tidegate.ssl_passthrough", "true")]));
    assert!(
        the_one(&passthrough, Severity::Warning)
            .problem
            .contains("cannot be asked by HTTP")
    );
    for name in ["probe_interval", "probe_status", "probe_timeout"] {
        let reading = read(&labelled(&[(&alloc::format!("tidegate.{name}"), "1s")]));
        assert!(the_one(&reading, Severity::Warning).remedy.contains("add probe_path"));
    }
}

#[test]
fn label_probe_interval_is_a_time_of_a_tenth_of_a_second_or_more() {
    let read = |value: &str| {
        read(&labelled(&[
            ("tidegate.probe_path", "/"),
            ("tidegate.probe_interval", value),
        ]))
    };
    assert_eq!(
        read("100ms").route.expect("served").active.expect("probed").interval_ms,
        100
    );
    for wrong in ["99ms", "0", "25h", "often"] {
        let reading = read(wrong);
        assert!(the_one(&reading, Severity::Warning).problem.ends_with("so 5s hold"));
        assert_eq!(
            reading.route.expect("served").active.expect("probed").interval_ms,
            5_000
        );
    }
}

#[test]
fn label_probe_timeout_is_a_time_of_at_most_a_minute() {
    let read = |value: &str| {
        read(&labelled(&[
            ("tidegate.probe_path", "/"),
            ("tidegate.probe_timeout", value),
        ]))
    };
    assert_eq!(
        read("1m").route.expect("served").active.expect("probed").timeout_ms,
        60_000
    );
    for wrong in ["61s", "0"] {
        let reading = read(wrong);
        assert!(the_one(&reading, Severity::Warning).problem.ends_with("so 2s hold"));
        assert_eq!(reading.route.expect("served").active.expect("probed").timeout_ms, 2_000);
    }
}

#[test]
fn label_probe_status_lists_statuses_and_ranges() {
    let reading = read(&labelled(&[
        ("tidegate.probe_path", "/"),
        ("tidegate.probe_status", "200-299, 404, 300-200, 99, ok"),
    ]));
    assert_eq!(reading.diagnostics.len(), 3, "{:?}", reading.diagnostics);
    let statuses = reading.route.expect("served").active.expect("probed").statuses;
    assert_eq!(statuses, [StatusRange(200, 299), StatusRange(404, 404)]);
}

#[test]
fn probes_ask_for_the_first_host_or_what_a_wildcard_covers() {
    let host = |hosts: &str| {
        let labels = [
            ("tidegate.hosts", hosts),
            ("tidegate.port", "80"),
            ("tidegate.probe_path", "/"),
        ];
        route(&shop(&labels)).active.expect("probed").host
    };
    assert_eq!(
        host("*.example.org, Shop.example.org, a.example").as_deref(),
        Some("shop.example.org")
    );
    assert_eq!(host("*.example.org").as_deref(), Some("example.org"));
    let labels = [
        ("tidegate.default_backend", "true"),
        ("tidegate.port", "80"),
        ("tidegate.probe_path", "/"),
    ];
    assert_eq!(route(&shop(&labels)).active.expect("probed").host, None);
}

#[test]
fn label_requests_max_is_the_services_own_and_at_least_one() {
    let checks = |value: &str| read(&labelled(&[("tidegate.requests_max", value)]));
    assert_eq!(checks("100").route.expect("served").checks.requests_max, Some(100));
    for wrong in ["0", "1000001", "all"] {
        let reading = checks(wrong);
        let finding = the_one(&reading, Severity::Warning);
        assert!(
            finding.problem.ends_with("from 1 to 1000000, so there is no limit"),
            "{finding}"
        );
        assert_eq!(reading.route.expect("served").checks.requests_max, None);
    }
}

#[test]
fn label_parked_max_is_the_routes_own() {
    let read = |value: &str| read(&labelled(&[("tidegate.parked_max", value)]));
    assert_eq!(read("0").route.expect("served").limits.parked_max, Some(0));
    assert!(
        the_one(&read("100001"), Severity::Warning)
            .problem
            .ends_with("so the cluster's setting holds")
    );
}

#[test]
fn label_fail_on_lists_server_errors() {
    let fail_on = |value: &str| read(&labelled(&[("tidegate.fail_on", value)]));
    let statuses = |value: &str| Vec::from(fail_on(value).route.expect("served").checks.fail_on);
    assert_eq!(statuses("504, 502,503,"), [502, 503, 504]);
    let reading = fail_on("503, 404, 5xx");
    assert_eq!(reading.diagnostics.len(), 2);
    assert!(
        reading.diagnostics[0]
            .problem
            .contains("no status from 500 to 599, so this status is left out"),
        "{}",
        reading.diagnostics[0]
    );
    assert_eq!(statuses("503, 404, 5xx"), [503]);
    // Interlock has no such label.
    let theirs = read(&labelled(&[("com.docker.lb.fail_on", "503")]));
    assert!(the_one(&theirs, Severity::Warning).remedy.contains("tidegate.fail_on"));
}

#[test]
fn label_connect_timeout_is_the_routes_own() {
    let limits = |value: &str| route(&labelled(&[("tidegate.connect_timeout", value)])).limits;
    assert_eq!(limits("2s").connect_timeout_ms, Some(2_000));
    assert_eq!(limits("1h").connect_timeout_ms, None);
}

#[test]
fn label_request_headers_are_edited_on_the_way_in() {
    let edits = route(&labelled(&[(
        "tidegate.request_headers",
        "set X-Tenant blue; remove X-Debug",
    )]))
    .edits;
    let expected = [
        HeaderEdit::Set {
            name: "x-tenant".into(),
            value: "blue".into(),
        },
        HeaderEdit::Remove { name: "x-debug".into() },
    ];
    assert_eq!((edits.request.as_slice(), edits.response.len()), (&expected[..], 0));
}

#[test]
fn label_response_headers_are_edited_on_the_way_out() {
    let edits = route(&labelled(&[(
        "tidegate.response_headers",
        "add Vary \"Origin; Accept\"",
    )]))
    .edits;
    let expected = [HeaderEdit::Add {
        name: "vary".into(),
        value: "Origin; Accept".into(),
    }];
    assert_eq!((edits.response.as_slice(), edits.request.len()), (&expected[..], 0));
}

#[test]
fn label_ssl_only_redirects_plain_http() {
    let labels = [
        ("com.docker.lb.ssl_cert", "shop.pem"),
        ("com.docker.lb.ssl_only", "true"),
    ];
    let table = table(&[labelled(&labels)]);
    let tls_only = |scheme: Scheme| {
        let Decision::Forward(rule) = table.route_over(scheme, Some("shop.example.org"), "/") else {
            panic!("it is not forwarded");
        };
        rule.tls_only
    };
    // The rule is the same for both; whoever serves plain HTTP answers with the redirect.
    assert!(tls_only(Scheme::Http) && tls_only(Scheme::Https));
    let without = read(&labelled(&[("com.docker.lb.ssl_only", "true")]));
    the_one(&without, Severity::Warning);
}

#[test]
fn label_websocket_endpoints_is_a_hint_that_changes_nothing() {
    let plain = labelled(&[]);
    let hinted = labelled(&[("com.docker.lb.websocket_endpoints", "/ws,/foo")]);
    assert_eq!(read(&hinted).diagnostics, []);
    assert_eq!(route(&hinted), route(&plain));
}
