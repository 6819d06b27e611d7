//! Redirects and what the services of one pool say about serving it.

use crate::request::origin::Origin;
use crate::settings::proxy::ProxySettings;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::*;
use crate::route::edits::HeaderEdit;
use crate::route::redirect::{Redirect, Scheme};
use crate::route::spec::{Affinity, PassiveChecks};

fn redirect(url: &str, target: &str) -> Redirect {
    let (scheme, host) = url.split_once("://").unwrap();
    Redirect {
        host: HostPattern::from_normalised(host.to_string()),
        scheme: if scheme == "https" { Scheme::Https } else { Scheme::Http },
        target: target.to_string(),
    }
}

fn redirecting(name: &str, hosts: &[&str], redirects: &[(&str, &str)]) -> RouteSpec {
    RouteSpec {
        redirects: redirects.iter().map(|(url, target)| redirect(url, target)).collect(),
        ..spec(name, hosts, "/")
    }
}

/// As [`served`], over TLS.
fn served_over_tls(table: &RouteTable, host: &str, path: &str) -> String {
    match table.route_over(Scheme::Https, Some(host), path) {
        Decision::Forward(rule) => rule.pool.to_string(),
        Decision::Redirect(rule) => rule.location(path),
        Decision::Passthrough { redirect } => format!("passthrough, redirect {redirect}"),
        Decision::UnknownHost => "unknown host".to_string(),
        Decision::UnknownPath => "unknown path".to_string(),
    }
}

#[test]
fn row_17_a_source_that_is_no_host_is_redirected() {
    let table = table([redirecting(
        "shop",
        &["new.example"],
        &[("http://old.example", "http://new.example")],
    )]);
    assert_eq!(
        served(&table, "OLD.example:80", "/x"),
        "http://old.example -> http://new.example of shop"
    );
    assert_eq!(served(&table, "new.example", "/x"), "shop");
}

#[test]
fn row_20_a_redirect_concerns_its_scheme_alone() {
    let table = table([redirecting(
        "shop",
        &["both.example"],
        &[
            ("http://both.example", "https://both.example"),
            ("https://tls.example", "https://new.example"),
        ],
    )]);
    assert_eq!(
        served(&table, "both.example", "/"),
        "http://both.example -> https://both.example of shop"
    );
    assert_eq!(served_over_tls(&table, "both.example", "/"), "shop");
    // As long as nothing else claims it, the other scheme knows no such host.
    assert_eq!(served(&table, "tls.example", "/"), "unknown host");
    assert_eq!(
        served_over_tls(&table, "tls.example", "/a?b"),
        "https://new.example/a?b"
    );
}

#[test]
fn a_redirect_of_one_scheme_lets_a_wildcard_serve_the_other() {
    let table = table([
        redirecting(
            "shop",
            &["new.example"],
            &[("https://x.old.example", "https://new.example")],
        ),
        spec("wild", &["*.old.example"], "/"),
    ]);
    assert_eq!(served(&table, "x.old.example", "/"), "wild");
    assert_eq!(served_over_tls(&table, "x.old.example", "/"), "https://new.example/");
}

#[test]
fn a_redirect_comes_before_every_path_of_its_host() {
    let table = table([
        redirecting("a", &["shop.example"], &[("http://shop.example", "http://new.example")]),
        spec("b", &["shop.example"], "/app"),
        redirecting("c", &[], &[("http://*.wild.example", "http://new.example")]),
        spec("d", &["x.wild.example"], "/app"),
    ]);
    for path in ["/", "/app", "/app/x", "/other"] {
        assert!(served(&table, "shop.example", path).contains(" of a"), "{path}");
    }
    assert_eq!(
        served(&table, "x.wild.example", "/app"),
        "d",
        "an exact name beats a wildcard"
    );
    assert_eq!(served(&table, "x.wild.example", "/"), "unknown path");
    assert!(served(&table, "y.wild.example", "/").contains(" of c"));
}

#[test]
fn row_11_the_oldest_service_that_names_a_host_decides_whether_it_is_redirected() {
    let mut old = spec("old", &["shop.example"], "/app");
    old.created_at = "2025-01-01T00:00:00Z".to_string();
    let young = redirecting(
        "young",
        &["shop.example"],
        &[("http://shop.example", "http://evil.example")],
    );
    let both = snapshot([old.clone(), young.clone()]);
    let table = RouteTable::compile(&both);
    assert_eq!(served(&table, "shop.example", "/app"), "old");
    let said: Vec<String> = conflicts(&both.routes).iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(said.join("\n"));
    // Without it, the redirect holds; and gives way again when it is back.
    let alone = table.apply(&snapshot([young]), &[ServiceId::from("old")].into());
    assert!(served(&alone, "shop.example", "/app").contains("evil.example"));
    assert_eq!(alone.apply(&both, &[ServiceId::from("old")].into()), table);
}

#[test]
fn an_explanation_of_a_redirect_says_whose_it_is() {
    let table = table([redirecting(
        "shop",
        &["old.example"],
        &[("http://old.example", "https://new.example/x")],
    )]);
    let explained = explain(&table, "http://old.example/a?b", &Surroundings::NONE).to_string();
    insta::assert_snapshot!(explained);
}

#[test]
fn a_pool_is_for_clients_that_all_its_services_allow() {
    let ranges = |text: &str| Some(text.split(',').map(|range| range.parse().unwrap()).collect::<Vec<_>>());
    let open = spec("a", &["shop.example"], "/");
    let wide = RouteSpec {
        allow_ips: ranges("10.0.0.0/8"),
        ..spec("b", &["shop.example"], "/")
    };
    let narrow = RouteSpec {
        allow_ips: ranges("10.1.0.0/16,192.0.2.7"),
        ..spec("c", &["shop.example"], "/")
    };
    let pool_of = |specs: &[&RouteSpec]| {
        let table = table(specs.iter().map(|spec| (*spec).clone()));
        Arc::clone(table.pools().values().next().unwrap())
    };
    let allows = |specs: &[&RouteSpec], ip: &str| {
        let origin = Origin::of_peer(ip.parse().unwrap(), false, &ProxySettings::default());
        pool_of(specs).allows(origin)
    };
    assert!(allows(&[&open], "203.0.113.1"));
    assert!(!allows(&[&open, &wide], "203.0.113.1"));
    assert!(allows(&[&open, &wide], "::ffff:10.2.3.4"));
    assert!(!allows(&[&wide, &narrow], "10.2.3.4"));
    assert!(!allows(&[&wide, &narrow], "192.0.2.7"));
    assert!(allows(&[&open, &wide, &narrow], "10.1.2.3"));
    let nobody = RouteSpec {
        allow_ips: Some(Vec::new()),
        ..open
    };
    assert!(!allows(&[&nobody], "10.1.2.3"));
}

#[test]
fn row_11_services_of_one_pool_that_disagree_are_told() {
    let mut old = spec("v1", &["shop.example"], "/");
    old.affinity = Affinity::AppCookie("app_session".into());
    old.limits.idle_timeout_ms = Some(1_000);
    let mut young = spec("v2", &["shop.example"], "/");
    young.created_at = "2026-02-01T00:00:00Z".to_string();
    young.affinity = Affinity::OwnCookie("lb".into());
    young.limits.body_bytes_max = Some(8);
    young.edits.response.push(HeaderEdit::Remove { name: "server".into() });
    young.allow_ips = Some(alloc::vec!["10.0.0.0/8".parse().unwrap()]);
    // These are each service's own.
    young.weight = Some(5);
    young.checks = PassiveChecks {
        max_fails: Some(3),
        fail_timeout_ms: Some(1),
        slow_start_ms: None,
        ..PassiveChecks::default()
    };
    let both = snapshot([old, young]);
    let said: Vec<String> = conflicts(&both.routes).iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(said.join("\n"));
    let table = RouteTable::compile(&both);
    let pool = table.pools().values().next().unwrap();
    assert_eq!(pool.affinity, Affinity::AppCookie("app_session".into()));
    assert_eq!(
        (pool.limits.idle_timeout_ms, pool.limits.body_bytes_max),
        (Some(1_000), None)
    );
    assert_eq!((pool.shares[0].weight, pool.shares[1].weight), (None, Some(5)));
    assert_eq!(pool.shares[1].checks.max_fails, Some(3));
    assert!(
        pool.endpoints
            .iter()
            .all(|endpoint| pool.services[endpoint.owner] == endpoint.service)
    );
}
