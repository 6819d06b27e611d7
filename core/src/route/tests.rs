//! Rules of the compatibility reference about routing, by row, and the properties of tables.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use proptest::collection::vec;
use proptest::prelude::*;

use super::explain::Surroundings;
use super::{Decision, RouteTable, Rule, conflicts, explain, strip};
use crate::id::ServiceId;
use crate::route::spec::{Balance, EndpointSpec, HostPattern, PathPrefix, RouteSpec, UpstreamProtocol};
use crate::snapshot::model::Snapshot;
use crate::testing::{naive, strategies};

mod serving;
mod tls;

fn spec(name: &str, hosts: &[&str], path: &str) -> RouteSpec {
    RouteSpec {
        hosts: hosts
            .iter()
            .map(|host| HostPattern::from_normalised(host.to_string()))
            .collect(),
        path: PathPrefix::from_normalised(path.to_string()),
        endpoints: alloc::vec![endpoint(&format!("{name}.1"), "10.0.0.1:80")],
        ..RouteSpec::new(ServiceId::from(name), name, "2026-01-01T00:00:00Z")
    }
}

fn endpoint(id: &str, addr: &str) -> EndpointSpec {
    EndpointSpec {
        id: id.into(),
        addr: addr.parse().unwrap(),
        via: None,
        node: None,
        leaving: None,
        unsure: false,
    }
}

fn snapshot(specs: impl IntoIterator<Item = RouteSpec>) -> Snapshot {
    Snapshot {
        routes: specs
            .into_iter()
            .map(|spec| (spec.service.clone(), Arc::new(spec)))
            .collect(),
        ..Snapshot::default()
    }
}

fn table(specs: impl IntoIterator<Item = RouteSpec>) -> RouteTable {
    RouteTable::compile(&snapshot(specs))
}

/// The services that serve a request, or what else happens.
fn served(table: &RouteTable, host: &str, path: &str) -> String {
    match table.route((!host.is_empty()).then_some(host), path) {
        Decision::Forward(rule) => {
            let names: Vec<&str> = rule.services.iter().map(|service| &*service.name).collect();
            names.join("+")
        }
        Decision::Redirect(rule) => rule.to_string(),
        Decision::Passthrough { redirect } => format!("passthrough, redirect {redirect}"),
        Decision::UnknownHost => "unknown host".to_string(),
        Decision::UnknownPath => "unknown path".to_string(),
    }
}

#[test]
fn row_03_requests_are_matched_without_case_port_and_dot() {
    let table = table([spec("shop", &["shop.example", "[2001:db8::1]"], "/")]);
    for host in ["shop.example", "SHOP.Example.:8080", "[2001:DB8:0::1]:80"] {
        assert_eq!(served(&table, host, "/"), "shop", "{host}");
    }
}

#[test]
fn row_04_exact_beats_wildcard_and_the_longest_wildcard_wins() {
    let table = table([
        spec("exact", &["a.b.example"], "/"),
        spec("long", &["*.b.example"], "/"),
        spec("short", &["*.example"], "/"),
    ]);
    assert_eq!(served(&table, "a.b.example", "/"), "exact");
    assert_eq!(served(&table, "x.b.example", "/"), "long");
    assert_eq!(served(&table, "y.x.b.example", "/"), "long");
    assert_eq!(served(&table, "b.example", "/"), "short");
    assert_eq!(served(&table, "example", "/"), "unknown host");
    assert_eq!(served(&table, ".example", "/"), "unknown host");
}

#[test]
fn row_05_services_with_one_host_and_path_share_a_pool_by_tasks() {
    let mut old = spec("v1", &["shop.example"], "/");
    old.endpoints = (1..=4)
        .map(|slot| endpoint(&format!("v1.{slot}"), "10.0.0.1:80"))
        .collect();
    let mut new = spec("v2", &["shop.example"], "/");
    new.created_at = "2026-02-01T00:00:00Z".to_string();
    let table = table([old, new]);
    let Decision::Forward(rule) = table.route(Some("shop.example"), "/") else {
        panic!("served")
    };
    let pool = table.pool(&rule.pool).unwrap();
    assert_eq!(
        (pool.name().as_str(), pool.key.as_str(), pool.endpoints.len()),
        ("v1+v2", "v1+v2", 5)
    );
    assert_eq!(
        pool.endpoints
            .iter()
            .filter(|endpoint| &*endpoint.service.name == "v2")
            .count(),
        1
    );
}

#[test]
fn row_06_the_longest_context_root_wins_and_the_rest_falls_to_root_or_404() {
    let app = spec("app", &["shop.example"], "/app");
    let deep = spec("deep", &["shop.example"], "/app/deep");
    let root = spec("root", &["shop.example"], "/");
    let without_root = table([app.clone(), deep.clone()]);
    assert_eq!(served(&without_root, "shop.example", "/app/deep/x"), "deep");
    assert_eq!(served(&without_root, "shop.example", "/app/deeper"), "app");
    assert_eq!(served(&without_root, "shop.example", "/"), "unknown path");
    let with_root = table([app, deep, root]);
    assert_eq!(served(&with_root, "shop.example", "/"), "root");
}

#[test]
fn row_06_a_host_that_is_claimed_does_not_fall_back_to_wildcard_or_default() {
    let mut default = spec("default", &["*.example"], "/");
    default.default_backend = true;
    let table = table([spec("app", &["shop.example"], "/app"), default]);
    assert_eq!(served(&table, "shop.example", "/x"), "unknown path");
    assert_eq!(served(&table, "x.example", "/x"), "default");
}

#[test]
fn row_07_raw_prefixes_are_matched_by_letters_behind_a_switch() {
    let specs = [
        spec("app", &["shop.example"], "/app"),
        spec("apply", &["shop.example"], "/apply"),
        spec("root", &["shop.example"], "/"),
    ];
    let mut snapshot = snapshot(specs);
    snapshot.settings.raw_prefix = true;
    let raw = RouteTable::compile(&snapshot);
    for (path, expected) in [
        ("/application/x", "app"),
        ("/app", "app"),
        ("/applying", "apply"),
        ("/ap", "root"),
        ("/app/..;/x", "root"),
        ("/%61pplication", "app"),
    ] {
        assert_eq!(served(&raw, "shop.example", path), expected, "{path}");
    }
}

#[test]
fn row_07_prefix_is_segment_aware() {
    let table = table([spec("app", &["shop.example"], "/app")]);
    for (path, expected) in [
        ("/app", "app"),
        ("/app/", "app"),
        ("/app/x", "app"),
        ("/app?x", "app"),
        ("/%61pp/x", "app"),
        ("/x/../app", "app"),
        ("/application", "unknown path"),
        ("/app.html", "unknown path"),
        ("/APP", "unknown path"),
        ("//app", "unknown path"),
        ("/app/../admin", "unknown path"),
        ("/app/%2e%2e/admin", "unknown path"),
        ("/app/..%2fadmin", "unknown path"),
        ("/app/..;/admin", "unknown path"),
        ("*", "unknown path"),
        ("", "unknown path"),
    ] {
        assert_eq!(served(&table, "shop.example", path), expected, "{path}");
    }
}

#[test]
fn row_11_the_oldest_service_settles_what_a_pool_can_have_once() {
    let mut old = spec("z-old", &["shop.example"], "/app");
    old.created_at = "2025-01-01T00:00:00Z".to_string();
    old.balance = Balance::RoundRobin;
    old.strip_path = true;
    let mut young = spec("a-young", &["shop.example"], "/app");
    young.protocol = UpstreamProtocol::H2c;
    young.limits.park_ms = Some(5);
    let snapshot = snapshot([old, young]);
    let table = RouteTable::compile(&snapshot);
    let Decision::Forward(rule) = table.route(Some("shop.example"), "/app") else {
        panic!("served")
    };
    let pool = table.pool(&rule.pool).unwrap();
    assert_eq!(
        (pool.balance, pool.protocol, rule.strip_path),
        (Balance::RoundRobin, UpstreamProtocol::Auto, true)
    );
    let found = conflicts(&snapshot.routes);
    let labels: Vec<&str> = found.iter().map(|diagnostic| diagnostic.label.as_str()).collect();
    assert_eq!(
        labels,
        [
            "tidegate.backend_protocol",
            "tidegate.balance",
            "tidegate.context_root_rewrite",
            "tidegate.park_timeout"
        ]
    );
    assert!(found.iter().all(|diagnostic| diagnostic.service == "a-young"));
    assert!(
        found[1]
            .problem
            .contains("service z-old is older, serves shop.example/app too and has round_robin")
    );
}

#[test]
fn row_11_equal_claims_are_no_conflict() {
    let snapshot = snapshot([spec("v1", &["shop.example"], "/"), spec("v2", &["shop.example"], "/")]);
    assert_eq!(conflicts(&snapshot.routes), []);
}

#[test]
fn row_21_the_oldest_default_backend_serves_beside_its_hosts() {
    let mut young = spec("a-young", &["young.example"], "/");
    young.default_backend = true;
    young.created_at = "2026-02-01T00:00:00Z".to_string();
    let mut old = spec("z-old", &["old.example"], "/");
    old.default_backend = true;
    let snapshot = snapshot([young, old]);
    let table = RouteTable::compile(&snapshot);
    assert_eq!(served(&table, "nobody.example", "/"), "z-old");
    assert_eq!(served(&table, "", "/"), "z-old");
    assert_eq!(served(&table, "young.example", "/"), "a-young");
    let found = conflicts(&snapshot.routes);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].service.as_str(), found[0].label.as_str()),
        ("a-young", "tidegate.default_backend")
    );
}

#[test]
fn row_22_a_host_that_nobody_claims_is_unknown() {
    let table = table([spec("shop", &["shop.example"], "/")]);
    assert_eq!(served(&table, "shop.example.evil", "/"), "unknown host");
    assert_eq!(served(&table, "", "/"), "unknown host");
    assert_eq!(table.settings().unknown_host_status, 503);
}

#[test]
fn ten_thousand_hosts_of_one_service_are_one_pool() {
    let hosts: Vec<String> = (0..10_000).map(|number| format!("h{number}.example")).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let before = snapshot([spec("shop", &hosts, "/"), spec("other", &["other.example"], "/")]);
    let table = RouteTable::compile(&before);
    assert_eq!(table.pools().len(), 2);
    let mut shop = spec("shop", &hosts, "/");
    shop.endpoints.clear();
    let after = snapshot([shop, spec("other", &["other.example"], "/")]);
    let next = table.apply(&after, &[ServiceId::from("shop")].into());
    let rule = |table: &RouteTable, host: &str| match table.route(Some(host), "/") {
        Decision::Forward(rule) => Arc::clone(rule),
        Decision::Passthrough { .. } | Decision::Redirect(_) | Decision::UnknownHost | Decision::UnknownPath => {
            panic!("served")
        }
    };
    // A change of endpoints changes no rule and no other pool.
    assert!(Arc::ptr_eq(&rule(&table, "h77.example"), &rule(&next, "h77.example")));
    let other = rule(&next, "other.example").pool.clone();
    assert!(Arc::ptr_eq(table.pool(&other).unwrap(), next.pool(&other).unwrap()));
    assert!(
        next.pool(&rule(&next, "h77.example").pool)
            .unwrap()
            .endpoints
            .is_empty()
    );
    assert_eq!(next, RouteTable::compile(&after));
}

#[test]
fn an_explanation_of_an_unknown_host_names_the_nearest() {
    let table = table([
        spec("shop", &["shop.example.org", "*.shop.example.org"], "/"),
        spec("blog", &["blog.example.net"], "/"),
    ]);
    let text = explain(&table, "http://shpo.example.org/x", &Surroundings::NONE).to_string();
    insta::assert_snapshot!(text);
    let text = explain(&table, "shop", &Surroundings::NONE).to_string();
    insta::assert_snapshot!(text);
}

#[test]
fn an_explanation_of_a_path_that_is_read_in_different_ways_says_so() {
    let table = table([spec("app", &["shop.example"], "/app")]);
    let text = explain(&table, "http://shop.example/app/..%2fadmin", &Surroundings::NONE).to_string();
    insta::assert_snapshot!(text);
}

#[test]
fn an_explanation_shows_what_the_pool_says_of_its_endpoints() {
    let table = table([spec("app", &["shop.example"], "/app")]);
    let surroundings = Surroundings {
        endpoint_state: &|_, id| Some(format!("ejected-{id}")),
        ..Surroundings::NONE
    };
    let explanation = explain(&table, "http://user@Shop.Example:80/app?x#y", &surroundings);
    insta::assert_snapshot!(explanation.to_string());
    let json = serde_json::to_string(&explanation).unwrap();
    assert_eq!(
        serde_json::from_str::<super::explain::Explanation>(&json).unwrap(),
        explanation
    );
}

/// What an application could make of a forwarded target at worst: everything decoded, `\` as `/`, parameters cut, slashes
/// merged, dots resolved. `None` if it leaves the root.
fn worst_reading(target: &str) -> Option<Vec<String>> {
    let path = target.split('?').next().unwrap_or("");
    let path = path
        .replace("%2e", ".")
        .replace("%2E", ".")
        .replace("%61", "a")
        .replace("%c3%a9", "%C3%A9");
    let path = path
        .replace("%2f", "/")
        .replace("%2F", "/")
        .replace("%5c", "/")
        .replace("%5C", "/")
        .replace('\\', "/");
    let mut kept = Vec::new();
    for segment in path.split('/') {
        match segment.split(';').next().unwrap_or("") {
            "" | "." => {}
            ".." => {
                kept.pop()?;
            }
            other => kept.push(other.to_string()),
        }
    }
    Some(kept)
}

fn assert_not_escaped(rule: &Rule, target: &str) {
    if rule.path.is_root() {
        return;
    }
    let kept = Rule {
        strip_path: false,
        ..rule.clone()
    };
    let forwarded = strip(&kept, target);
    let inside: Vec<String> = rule
        .path
        .as_str()
        .split('/')
        .skip(1)
        .map(|segment| segment.replace("%61", "a"))
        .collect();
    let read = worst_reading(&forwarded).unwrap_or_default();
    assert!(
        read.starts_with(&inside),
        "{target} is forwarded as {forwarded} under {rule}"
    );
    let stripped = Rule {
        strip_path: true,
        ..rule.clone()
    };
    let forwarded = strip(&stripped, target);
    assert!(
        worst_reading(&forwarded).is_some(),
        "{target} is forwarded as {forwarded} under {rule}, stripped"
    );
    assert!(
        forwarded.starts_with('/') && !forwarded.starts_with("//"),
        "{target} is forwarded as {forwarded}"
    );
}

proptest! {
    #[test]
    fn a_table_is_the_linear_matcher(
        routes in strategies::routes(),
        requests in vec((strategies::scheme(), strategies::request_host(), strategies::request_target()), 1..20),
    ) {
        let table = RouteTable::compile(&Snapshot { routes: routes.clone(), ..Snapshot::default() });
        for (scheme, host, target) in requests {
            prop_assert_eq!(
                naive::of_table(&table, scheme, host.as_deref(), &target),
                naive::route(&routes, scheme, host.as_deref(), &target),
                "host {:?} target {:?}", host, target
            );
        }
    }

    #[test]
    fn apply_is_compile(steps in vec(vec((strategies::route_change(), any::<bool>()), 1..4), 1..8)) {
        let mut routes: BTreeMap<ServiceId, Arc<RouteSpec>> = BTreeMap::new();
        let mut table = RouteTable::default();
        for (number, step) in (0..).zip(steps) {
            let mut changed = BTreeSet::new();
            for ((id, spec), moves) in step {
                // As often as not, only the endpoints and settings of a service change, as in every rolling update.
                let spec = match (routes.get(&id), spec) {
                    (Some(old), Some(new)) if !moves => Some(Arc::new(RouteSpec {
                        endpoints: new.endpoints.clone(),
                        balance: new.balance,
                        limits: new.limits.clone(),
                        weight: new.weight,
                        affinity: new.affinity.clone(),
                        allow_ips: new.allow_ips.clone(),
                        ..(**old).clone()
                    })),
                    (_, spec) => spec,
                };
                match spec {
                    Some(spec) => routes.insert(id.clone(), spec),
                    None => routes.remove(&id),
                };
                changed.insert(id);
            }
            let mut snapshot = Snapshot { routes: routes.clone(), ..Snapshot::default() };
            snapshot.settings.retries_max = number;
            let before = table.clone();
            table = table.apply(&snapshot, &changed);
            let compiled = RouteTable::compile(&snapshot);
            prop_assert_eq!(table.canonical_text(), compiled.canonical_text());
            prop_assert_eq!(&table, &compiled);
            for rule in table.rules() {
                prop_assert!(table.pool(&rule.pool).is_some());
            }
            let passed = table.passthrough_rules();
            let used: BTreeSet<_> = table.rules().into_iter().chain(passed).map(|rule| &rule.pool).collect();
            prop_assert_eq!(used.len(), table.pools().len());
            let same = before.apply(&Snapshot { routes: before.specs().clone(), settings: before.settings().clone() }, &changed);
            prop_assert_eq!(same, before);
        }
    }

    #[test]
    fn services_in_any_order_make_the_same_bytes(
        (routes, order) in strategies::routes().prop_flat_map(|routes| {
            let ids: Vec<ServiceId> = routes.keys().cloned().collect();
            (Just(routes), Just(ids).prop_shuffle())
        }),
    ) {
        let all = Snapshot { routes: routes.clone(), ..Snapshot::default() };
        let compiled = RouteTable::compile(&all);
        let mut table = RouteTable::default();
        let mut some = Snapshot::default();
        for id in order {
            some.routes.insert(id.clone(), Arc::clone(&routes[&id]));
            table = table.apply(&some, &[id].into());
        }
        prop_assert_eq!(table.canonical_text(), compiled.canonical_text());
        prop_assert_eq!(conflicts(&some.routes), conflicts(&all.routes));
    }

    #[test]
    fn a_matched_prefix_is_never_escaped(routes in strategies::routes(), target in strategies::request_target()) {
        let table = RouteTable::compile(&Snapshot { routes, ..Snapshot::default() });
        for rule in table.rules() {
            let host = rule.host.to_string().replace('*', "x");
            if let Decision::Forward(rule) = table.route(Some(&host), &target) {
                assert_not_escaped(rule, &target);
            }
        }
    }

    #[test]
    fn questions_to_a_table_never_panic(routes in strategies::routes(), host in any::<Option<String>>(), target in any::<String>()) {
        let table = RouteTable::compile(&Snapshot { routes, ..Snapshot::default() });
        if let Decision::Forward(rule) = table.route(host.as_deref(), &target) {
            prop_assert!(!strip(rule, &target).is_empty() || target.is_empty());
        }
        let url = format!("{}{target}", host.unwrap_or_default());
        prop_assert!(!explain(&table, &url, &Surroundings::NONE).to_string().is_empty());
    }
}
