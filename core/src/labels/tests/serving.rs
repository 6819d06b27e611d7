//! The labels about how requests are served.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{labelled, route, said, the_one};
use crate::labels::{Severity, hidden_clients, read};
use crate::route::redirect::Scheme;
use crate::route::spec::{Affinity, FEATURE_ALLOW_IPS, FEATURE_BASIC_AUTH, PassiveChecks, RouteLimits};
use crate::settings::cluster::ClusterSettings;
use crate::snapshot::FEATURES;
use crate::snapshot::entry::Entry;
use crate::testing::sample::service;

fn redirects(value: &str) -> (Vec<String>, Vec<String>) {
    let service = service(
        "shop",
        &[
            (
                "com.docker.lb.hosts",
                "old.example.org, older.example.org, new.example.org",
            ),
            ("com.docker.lb.port", "80"),
            ("com.docker.lb.redirects", value),
        ],
        &["a"],
    );
    let reading = read(&service);
    let route = reading.route.expect("a wrong redirect refuses nothing but itself");
    let read = route.redirects.iter().map(ToString::to_string).collect();
    (read, said(&reading.diagnostics))
}

#[test]
fn label_redirects_are_read_as_interlock_writes_them() {
    let (read, said) = redirects(
        "http://old.example.org,http://new.example.org; https://OLDER.example.org/ , https://new.example.org/shop/;",
    );
    assert_eq!(
        read,
        [
            "http://old.example.org -> http://new.example.org",
            "https://older.example.org -> https://new.example.org/shop"
        ]
    );
    assert_eq!(said, [] as [&str; 0]);
}

#[test]
fn row_17_a_source_that_is_no_host_is_redirected_with_a_warning() {
    let labels = [
        ("tidegate.hosts", "new.example.org"),
        ("tidegate.port", "80"),
        ("tidegate.redirects", "http://old.example.org,http://new.example.org"),
    ];
    let reading = read(&service("shop", &labels, &["a"]));
    let finding = the_one(&reading, Severity::Warning);
    assert!(
        finding.problem.contains("old.example.org") && finding.remedy.contains("hosts"),
        "{finding}"
    );
    assert_eq!(reading.route.as_ref().map(|route| route.redirects.len()), Some(1));
    assert!(
        reading.hosts.iter().any(|host| host.as_str() == "old.example.org"),
        "an explanation knows who named the host"
    );
}

#[test]
fn row_20_the_scheme_of_a_source_is_kept() {
    let (read, _) = redirects("http://old.example.org,https://old.example.org");
    assert_eq!(read, ["http://old.example.org -> https://old.example.org"]);
    let service = labelled(&[("tidegate.redirects", "https://shop.example.org,http://x.example.org")]);
    assert_eq!(route(&service).redirects[0].scheme, Scheme::Https);
}

#[test]
fn a_wrong_redirect_is_left_out_and_the_others_hold() {
    let (read, said) = redirects(
        "http://old.example.org; http://old.example.org/x,http://new.example.org; http://older.example.org,http://new.example.org; \
         http://old.example.org,http://old.example.org/new; http://older.example.org,http://b.example.org",
    );
    assert_eq!(read, ["http://older.example.org -> http://new.example.org"]);
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn row_32_sessions_cannot_be_pinned_behind_a_virtual_ip() {
    for (name, value) in [
        ("com.docker.lb.ip_hash", "true"),
        ("com.docker.lb.sticky_session_cookie", "session"),
        ("tidegate.sticky_cookie", "lb"),
    ] {
        let reading = read(&labelled(&[("tidegate.backend_mode", "vip"), (name, value)]));
        assert!(
            the_one(&reading, Severity::Warning)
                .remedy
                .contains("backend_mode=task")
        );
        assert_eq!(reading.route.map(|route| route.affinity), Some(Affinity::None));
    }
}

#[test]
fn of_several_ways_to_know_a_client_again_the_most_exact_holds() {
    let ways = [
        ("tidegate.sticky_cookie", "lb", Affinity::OwnCookie("lb".into())),
        (
            "com.docker.lb.sticky_session_cookie",
            "app_session",
            Affinity::AppCookie("app_session".into()),
        ),
        ("com.docker.lb.ip_hash", "on", Affinity::Address),
    ];
    for from in 0..ways.len() {
        let labels: Vec<(&str, &str)> = ways[from..].iter().map(|(key, value, _)| (*key, *value)).collect();
        let reading = read(&labelled(&labels));
        assert_eq!(reading.diagnostics.len(), labels.len() - 1, "{:?}", reading.diagnostics);
        assert_eq!(reading.route.map(|route| route.affinity), Some(ways[from].2.clone()));
    }
    assert_eq!(
        route(&labelled(&[("tidegate.ip_hash", "off")])).affinity,
        Affinity::None
    );
    let wrong = read(&labelled(&[("tidegate.sticky_cookie", "a b")]));
    the_one(&wrong, Severity::Warning);
    assert_eq!(wrong.route.map(|route| route.affinity), Some(Affinity::None));
}

#[test]
fn option_ip_hash_is_for_services_that_say_nothing_of_sessions() {
    let everywhere = ClusterSettings {
        ip_hash: true,
        ..ClusterSettings::default()
    };
    let affinity = |labels: &[(&str, &str)], cluster: &ClusterSettings| {
        let own = route(&labelled(labels));
        own.with_defaults(cluster).unwrap_or(own).affinity
    };
    assert_eq!(affinity(&[], &ClusterSettings::default()), Affinity::None);
    assert_eq!(affinity(&[], &everywhere), Affinity::Address);
    let own = [("tidegate.sticky_cookie", "lb")];
    assert_eq!(affinity(&own, &everywhere), Affinity::OwnCookie("lb".into()));
    // Nothing can be pinned behind a virtual IP.
    assert_eq!(
        affinity(&[("tidegate.backend_mode", "vip")], &everywhere),
        Affinity::None
    );
}

#[test]
fn row_36_max_fails_and_fail_timeout_are_the_services_own() {
    let checks = |labels: &[(&str, &str)]| route(&labelled(labels)).checks;
    assert_eq!(checks(&[]), PassiveChecks::default());
    assert_eq!(
        checks(&[
            ("com.docker.lb.max_fails", "3"),
            ("com.docker.lb.fail_timeout", "1m30s")
        ]),
        PassiveChecks {
            max_fails: Some(3),
            fail_timeout_ms: Some(90_000),
            slow_start_ms: None,
            ..PassiveChecks::default()
        }
    );
    // As a user once patched it into the proxy: never set aside.
    assert_eq!(
        checks(&[("com.docker.lb.max_fails", "0"), ("com.docker.lb.fail_timeout", "0s")]),
        PassiveChecks {
            max_fails: Some(0),
            fail_timeout_ms: Some(0),
            slow_start_ms: None,
            ..PassiveChecks::default()
        }
    );
    for (name, value) in [
        ("max_fails", "-1"),
        ("max_fails", "many"),
        ("max_fails", "1000001"),
        ("fail_timeout", "25h"),
    ] {
        let reading = read(&labelled(&[(&alloc::format!("com.docker.lb.{name}"), value)]));
        let finding = the_one(&reading, Severity::Warning);
        assert!(finding.problem.contains("the cluster's setting holds"), "{finding}");
    }
}

#[test]
fn row_49_the_routing_mesh_hides_the_addresses_that_a_route_goes_by() {
    let found = |labels: &[(&str, &str)]| {
        let service = labelled(labels);
        hidden_clients(&route(&service), &service)
    };
    assert!(found(&[]).is_empty());
    let hash = found(&[("com.docker.lb.ip_hash", "true")]);
    assert_eq!((hash.len(), hash[0].severity), (1, Severity::Warning));
    assert!(hash[0].remedy.contains("publish_mode = \"host\""), "{}", hash[0]);
    let told = found(&[("tidegate.ssl_passthrough", "true"), ("tidegate.proxy_protocol", "v2")]);
    assert_eq!((told.len(), told[0].severity), (1, Severity::Warning));
    let list = found(&[("tidegate.allow_ips", "10.0.0.0/8")]);
    assert_eq!((list.len(), list[0].severity), (1, Severity::Error));
}

#[test]
fn a_weight_is_a_whole_number_up_to_a_thousand() {
    let weight = |value: &str| read(&labelled(&[("tidegate.weight", value)]));
    for (value, expected) in [("0", 0), ("5", 5), ("1000", 1000)] {
        assert_eq!(weight(value).route.unwrap().weight, Some(expected));
    }
    for value in ["1001", "5%", "-1", "0.5"] {
        let reading = weight(value);
        the_one(&reading, Severity::Warning);
        assert_eq!(reading.route.unwrap().weight, None);
    }
}

#[test]
fn limits_of_a_route_are_read_with_their_units() {
    let limits = route(&labelled(&[
        ("tidegate.body_limit", "100m"),
        ("tidegate.connect_timeout", "2"),
        ("tidegate.first_byte_timeout", "5m"),
        ("tidegate.idle_timeout", "1h"),
        ("tidegate.park_timeout", "500ms"),
    ]))
    .limits;
    assert_eq!(
        limits,
        RouteLimits {
            park_ms: Some(500),
            body_bytes_max: Some(100 << 20),
            connect_timeout_ms: Some(2_000),
            first_byte_timeout_ms: Some(300_000),
            idle_timeout_ms: Some(3_600_000),
            hedge_after_ms: None,
            ..RouteLimits::default()
        }
    );
    for (name, value) in [
        ("body_limit", "100mb"),
        ("connect_timeout", "0"),
        ("connect_timeout", "61s"),
        ("first_byte_timeout", "25h"),
        ("idle_timeout", "0s"),
        ("idle_timeout", "soon"),
    ] {
        let reading = read(&labelled(&[(&alloc::format!("tidegate.{name}"), value)]));
        let finding = the_one(&reading, Severity::Warning);
        assert!(finding.problem.ends_with("so the cluster's setting holds"), "{finding}");
        assert!(reading.route.unwrap().limits.is_empty());
    }
}

#[test]
fn label_slow_start_is_a_time_up_to_a_day() {
    let slow_start = |value: &str| read(&labelled(&[("tidegate.slow_start", value)]));
    assert_eq!(
        slow_start("30s").route.expect("served").checks.slow_start_ms,
        Some(30_000)
    );
    for wrong in ["0", "25h", "gently"] {
        let reading = slow_start(wrong);
        let finding = the_one(&reading, Severity::Warning);
        assert!(
            finding.problem.ends_with("so new tasks get their full share at once"),
            "{finding}"
        );
        assert_eq!(reading.route.expect("served").checks.slow_start_ms, None);
    }
}

#[test]
fn label_hedge_after_is_a_time_up_to_a_minute() {
    let hedge_after = |value: &str| read(&labelled(&[("tidegate.hedge_after", value)]));
    assert_eq!(
        hedge_after("300ms").route.expect("served").limits.hedge_after_ms,
        Some(300)
    );
    for wrong in ["0", "61s", "soon"] {
        let reading = hedge_after(wrong);
        let finding = the_one(&reading, Severity::Warning);
        assert!(finding.problem.ends_with("so requests are sent once"), "{finding}");
        assert_eq!(reading.route.expect("served").limits.hedge_after_ms, None);
    }
}

#[test]
fn header_edits_that_would_break_a_message_are_left_out() {
    let service = labelled(&[
        (
            "tidegate.request_headers",
            "set X-Tenant blue; set Host evil.example; remove Content-Length",
        ),
        (
            "tidegate.response_headers",
            "add Vary origin; set Transfer-Encoding chunked; put X y",
        ),
    ]);
    let reading = read(&service);
    insta::assert_snapshot!(said(&reading.diagnostics).join("\n"));
    let edits = reading.route.expect("served").edits;
    assert_eq!((edits.request.len(), edits.response.len()), (1, 1));
}

#[test]
fn an_allow_list_that_cannot_be_read_refuses_the_route() {
    let listed = |value: &str| read(&labelled(&[("tidegate.allow_ips", value)]));
    let ranges: Vec<String> = listed("10.0.0.0/8,, 2001:db8::/32 ,192.0.2.7, 10.0.0.0/8;")
        .route
        .and_then(|route| route.allow_ips)
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(ranges, ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]);
    for value in ["", " , ", "10.0.0.0/8, office", "10.0.0.1/8", "10.0.0.0/33", "true"] {
        the_one(&listed(value), Severity::Error);
    }
    assert!(listed(&"x,".repeat(30_000)).diagnostics.len() < 100);
    // What seems to mean it must not be served to everybody either.
    for key in ["tidegate.allow_ip", "tidegate.alow_ips", "com.docker.lb.allow_ips"] {
        the_one(&read(&labelled(&[(key, "10.0.0.0/8")])), Severity::Error);
    }
}

#[test]
fn a_proxy_that_does_not_know_allow_lists_refuses_the_route() {
    let service = labelled(&[("tidegate.allow_ips", "10.0.0.0/8")]);
    let spec = route(&service).to_spec(&service, Vec::new());
    assert!(spec.requires.contains(FEATURE_ALLOW_IPS) && FEATURES.contains(&FEATURE_ALLOW_IPS));
    let raw = || serde_json::value::to_raw_value(&spec).unwrap();
    assert!(Entry::from_raw(raw(), &[]).unwrap().spec.is_err());
    let known = Entry::from_raw(raw(), FEATURES).unwrap().spec.unwrap();
    assert_eq!(*known, spec);
    assert!(
        route(&labelled(&[]))
            .to_spec(&labelled(&[]), Vec::new())
            .requires
            .is_empty()
    );
}

#[test]
fn a_spec_of_an_older_controller_is_read_as_before() {
    let service = labelled(&[]);
    let spec = route(&service).to_spec(&service, Vec::new());
    let text = serde_json::to_string(&spec).unwrap();
    for new in [
        "redirects",
        "affinity",
        "weight",
        "checks",
        "edits",
        "allow_ips",
        "limits",
        "requires",
    ] {
        assert!(!text.contains(new), "what is not set is not sent: {text}");
    }
    assert_eq!(
        serde_json::from_str::<crate::route::spec::RouteSpec>(&text).unwrap(),
        spec
    );
}

#[test]
fn what_cannot_be_guarded_is_not_served() {
    for (labels, label) in [
        (&[("tidegate.basic_auth", "")][..], "tidegate.basic_auth"),
        (&[("tidegate.basic_auth", "bob:$2y$05$x")], "tidegate.basic_auth"),
        (&[("tidegate.basic_auth", "a/b")], "tidegate.basic_auth"),
        (&[("tidegate.basic_auth", "tidegate-identity")], "tidegate.basic_auth"),
        (&[("tidegate.basic_auht", "users")], "tidegate.basic_auht"),
        (&[("com.docker.lb.basic_auth", "users")], "com.docker.lb.basic_auth"),
        (
            &[("tidegate.basic_auth", "users"), ("tidegate.ssl_passthrough", "true")],
            "tidegate.basic_auth",
        ),
    ] {
        let reading = read(&labelled(labels));
        let errors = reading
            .diagnostics
            .iter()
            .filter(|found| found.severity == Severity::Error);
        let named: Vec<&str> = errors.map(|found| found.label.as_str()).collect();
        assert!(
            reading.route.is_none() && named.contains(&label),
            "{labels:?}: {:?}",
            reading.diagnostics
        );
    }
}

#[test]
fn users_are_a_secret_that_older_proxies_must_know_what_to_do_with() {
    let service = labelled(&[
        ("tidegate.basic_auth", "users"),
        ("tidegate.basic_auth_realm", "Shop of Example"),
        ("tidegate.basic_auth_forward", "true"),
    ]);
    let spec = route(&service).to_spec(&service, Vec::new());
    assert_eq!(spec.secrets().into_iter().collect::<Vec<_>>(), ["users"]);
    assert!(spec.requires.contains(FEATURE_BASIC_AUTH) && FEATURES.contains(&FEATURE_BASIC_AUTH));
    let auth = spec.basic_auth.unwrap();
    assert_eq!((auth.realm.as_deref(), auth.forward), (Some("Shop of Example"), true));
    let reading = read(&labelled(&[
        ("tidegate.basic_auth", "users"),
        ("tidegate.basic_auth_realm", "a\"b"),
    ]));
    the_one(&reading, Severity::Warning);
    assert_eq!(reading.route.unwrap().basic_auth.unwrap().realm, None);
    the_one(
        &read(&labelled(&[("tidegate.basic_auth_realm", "x")])),
        Severity::Warning,
    );
}

#[test]
fn codings_are_words_in_the_order_of_preference() {
    use crate::route::spec::Coding::{Br, Gzip, Zstd};
    let of = |value: &str| route(&labelled(&[("tidegate.compress", value)])).compress;
    assert_eq!(of("true"), [Zstd, Br, Gzip]);
    assert_eq!(of("gzip, BR, gzip"), [Gzip, Br]);
    assert_eq!(of("off"), []);
    let reading = read(&labelled(&[("tidegate.compress", "deflate, br")]));
    assert!(the_one(&reading, Severity::Warning).problem.contains("deflate"));
    assert_eq!(reading.route.unwrap().compress, [Br]);
}

#[test]
fn values_of_any_size_and_kind_are_answered_with_findings() {
    let big = "x".repeat(64 * 1024);
    for label in crate::labels::keys::LABELS {
        for value in [
            &*big,
            "\u{0}",
            "\u{202e}moc.elpmaxe",
            &",".repeat(10_000),
            "\u{ff0e}\u{ff0e}/",
            "\r\nX-Evil: 1",
        ] {
            let key = alloc::format!("tidegate.{}", label.name);
            let reading = read(&labelled(&[(&key, value)]));
            for found in &reading.diagnostics {
                assert!(
                    found.to_string().len() < 4096,
                    "{key}: {} bytes",
                    found.to_string().len()
                );
                assert!(!found.to_string().contains(['\r', '\n', '\u{0}']), "{key}: {found}");
            }
        }
    }
}

#[test]
fn ten_thousand_hosts_in_one_label_are_all_served_and_lookalikes_are_other_names() {
    let hosts: Vec<String> = (0..10_000)
        .map(|number| alloc::format!("H{number}.Example.ORG"))
        .collect();
    let reading = read(&labelled(&[
        ("com.docker.lb.hosts", &hosts.join(",")),
        ("tidegate.hosts", &hosts.join(", ")),
    ]));
    assert!(reading.diagnostics.is_empty(), "{:?}", reading.diagnostics);
    let served = reading.route.unwrap().hosts;
    assert_eq!((served.len(), served[0].as_str()), (10_000, "h0.example.org"));
    // A Cyrillic letter that looks like a Latin one: refused as it is, another name in punycode.
    let reading = read(&labelled(&[(
        "tidegate.hosts",
        "p\u{430}ypal.example, xn--pypal-4ve.example, paypal.example",
    )]));
    the_one(&reading, Severity::Warning);
    let served: Vec<String> = reading.route.unwrap().hosts.iter().map(ToString::to_string).collect();
    assert_eq!(served, ["paypal.example", "xn--pypal-4ve.example"]);
}
