//! What Interlock's settings do beside each other (reference §2.3), where HTTP is seen: the pairs with TLS are elsewhere.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::resolving::resolved;
use super::{labelled, route, the_one};
use crate::labels::{Severity, read};
use crate::pool::PoolPolicy;
use crate::route::spec::Affinity;
use crate::route::{Decision, PoolSpec, RouteTable};
use crate::settings::proxy::ProxySettings;
use crate::snapshot::model::Snapshot;
use crate::swarm::model::Service;
use crate::testing::sample::{service, task};

const COOKIE: (&str, &str) = ("com.docker.lb.sticky_session_cookie", "session");
const HASH: (&str, &str) = ("com.docker.lb.ip_hash", "true");
const VIP: (&str, &str) = ("com.docker.lb.backend_mode", "vip");
const ROOT: (&str, &str) = ("com.docker.lb.context_root", "/app");
const WEBSOCKETS: (&str, &str) = ("com.docker.lb.websocket_endpoints", "/ws,/foo");

/// The table of these services, each with a number of tasks.
fn table(services: &[(Service, u8)]) -> RouteTable {
    let mut snapshot = Snapshot::default();
    for (service, count) in services {
        let tasks: Vec<_> = (1..=*count).map(|slot| task(service, slot, &["a"])).collect();
        let spec = resolved(service, &tasks).spec;
        let spec = spec.unwrap_or_else(|| panic!("{} is refused: {:?}", service.name, read(service).diagnostics));
        snapshot.routes.insert(service.id.clone(), Arc::new(spec));
    }
    RouteTable::compile(&snapshot)
}

/// The pool of a path, or where it is redirected to.
fn asked<'a>(table: &'a RouteTable, path: &str) -> Result<&'a PoolSpec, String> {
    match table.route(Some("shop.example.org"), path) {
        Decision::Forward(rule) => Ok(&**table.pool(&rule.pool).expect("each rule has its pool")),
        Decision::Redirect(rule) => Err(rule.location(path)),
        other @ (Decision::Passthrough { .. } | Decision::UnknownHost | Decision::UnknownPath) => {
            Err(alloc::format!("{other:?}"))
        }
    }
}

fn named(name: &str, more: &[(&str, &str)]) -> Service {
    let usual = [("tidegate.hosts", "shop.example.org"), ("tidegate.port", "80")];
    let labels: Vec<(&str, &str)> = usual.into_iter().chain(more.iter().copied()).collect();
    service(name, &labels, &["a"])
}

fn app_cookie() -> Affinity {
    Affinity::AppCookie("session".to_string())
}

#[test]
fn matrix_sticky_task_pins_clients_to_tasks() {
    for (label, expected) in [(COOKIE, app_cookie()), (HASH, Affinity::Address)] {
        let table = table(&[(labelled(&[label]), 2)]);
        let pool = asked(&table, "/").unwrap();
        assert_eq!((&pool.affinity, pool.endpoints.len()), (&expected, 2), "{label:?}");
    }
}

#[test]
fn matrix_sticky_vip_is_ignored_with_a_warning() {
    for label in [COOKIE, HASH, ("tidegate.sticky_cookie", "lb")] {
        let reading = read(&labelled(&[label, VIP]));
        assert_eq!(the_one(&reading, Severity::Warning).label, label.0);
        assert_eq!(reading.route.unwrap().affinity, Affinity::None);
    }
}

#[test]
fn matrix_sticky_redirect_the_redirect_answers_before_anybody_is_pinned() {
    let redirect = (
        "com.docker.lb.redirects",
        "http://shop.example.org,http://new.example.org",
    );
    let table = table(&[(labelled(&[COOKIE, redirect]), 1)]);
    assert_eq!(asked(&table, "/x").unwrap_err(), "http://new.example.org/x");
}

#[test]
fn matrix_sticky_context_root_has_each_its_own() {
    let table = table(&[
        (named("app", &[ROOT, COOKIE]), 2),
        (named("site", &[HASH]), 2),
        (named("api", &[("tidegate.context_root", "/api")]), 2),
    ]);
    for (path, expected) in [
        ("/app/x", app_cookie()),
        ("/", Affinity::Address),
        ("/api", Affinity::None),
    ] {
        assert_eq!(asked(&table, path).unwrap().affinity, expected, "{path}");
    }
}

/// The label is a hint: it changes nothing, since upgrades work everywhere.
fn websockets_change_nothing(beside: &[(&str, &str)]) {
    let with: Vec<(&str, &str)> = beside.iter().copied().chain([WEBSOCKETS]).collect();
    let (with, without) = (read(&labelled(&with)), read(&labelled(beside)));
    assert_eq!(with, without);
    assert!(
        with.route.is_some() && with.diagnostics.is_empty(),
        "{:?}",
        with.diagnostics
    );
}

#[test]
fn matrix_websockets_task_work_without_being_listed() {
    websockets_change_nothing(&[]);
}

#[test]
fn matrix_websockets_vip_work_too() {
    websockets_change_nothing(&[VIP]);
}

#[test]
fn matrix_websockets_context_root_work_too() {
    websockets_change_nothing(&[ROOT]);
    websockets_change_nothing(&[ROOT, ("com.docker.lb.context_root_rewrite", "true")]);
}

#[test]
fn matrix_canary_task_goes_by_the_number_of_tasks() {
    let table = table(&[(named("blue", &[]), 3), (named("green", &[]), 1)]);
    let pool = asked(&table, "/").unwrap();
    let of = |name: &str| {
        pool.endpoints
            .iter()
            .filter(|endpoint| &*endpoint.service.name == name)
            .count()
    };
    assert_eq!((of("blue"), of("green")), (3, 1));
    assert!(pool.shares.iter().all(|share| share.weight.is_none()), "one share each");
}

#[test]
fn matrix_canary_vip_goes_by_the_number_of_services() {
    let table = table(&[(named("blue", &[VIP]), 3), (named("green", &[VIP]), 1)]);
    let ids: Vec<&str> = asked(&table, "/")
        .unwrap()
        .endpoints
        .iter()
        .map(|at| at.spec.id.as_str())
        .collect();
    assert_eq!(ids, ["vip:blue-id:a-id", "vip:green-id:a-id"]);
}

#[test]
fn matrix_canary_context_root_shares_a_pool_per_root() {
    let table = table(&[
        (named("blue", &[ROOT]), 1),
        (named("green", &[ROOT]), 1),
        (named("site", &[]), 1),
    ]);
    assert_eq!(asked(&table, "/app/x").unwrap().name(), "blue+green");
    assert_eq!(asked(&table, "/x").unwrap().name(), "site");
}

#[test]
fn matrix_context_root_task_and_vip_lead_to_their_endpoints() {
    for (more, expected) in [(&[ROOT][..], "shop.1"), (&[ROOT, VIP], "vip:shop-id:a-id")] {
        let table = table(&[(labelled(more), 1)]);
        assert_eq!(asked(&table, "/app").unwrap().endpoints[0].spec.id.as_str(), expected);
        assert_eq!(asked(&table, "/x").unwrap_err(), "UnknownPath");
    }
}

#[test]
fn matrix_context_root_vip_is_stripped_as_with_tasks() {
    let spec = |mode: &[(&str, &str)]| {
        let labels = [&[ROOT, ("tidegate.context_root_rewrite", "true")], mode].concat();
        route(&labelled(&labels)).strip_path
    };
    assert!(spec(&[]) && spec(&[VIP]));
}

#[test]
fn matrix_context_root_redirect_comes_first_for_every_path() {
    let redirect = (
        "com.docker.lb.redirects",
        "http://shop.example.org,https://new.example.org",
    );
    let table = table(&[(labelled(&[ROOT, redirect]), 1), (named("younger", &[]), 1)]);
    for path in ["/app/x", "/x", "/"] {
        let location = alloc::format!("https://new.example.org{path}");
        assert_eq!(asked(&table, path).unwrap_err(), location);
    }
}

/// `max_fails` and `fail_timeout` that hold for a path, by the settings of the cluster where nothing is said.
fn checks(table: &RouteTable, path: &str) -> Vec<(u32, u64)> {
    let policy = PoolPolicy::of(asked(table, path).unwrap(), &ProxySettings::default());
    let of = |service: &crate::pool::ServicePolicy| (service.max_fails, service.fail_timeout.as_secs());
    policy.services.iter().map(of).collect()
}

const FAILS: (&str, &str) = ("com.docker.lb.max_fails", "3");
const TIMEOUT: (&str, &str) = ("com.docker.lb.fail_timeout", "30s");

#[test]
fn matrix_max_fails_task_holds_for_each_task_of_its_service() {
    let table = table(&[(named("blue", &[FAILS, TIMEOUT]), 2), (named("green", &[]), 2)]);
    assert_eq!(checks(&table, "/"), [(3, 30), (1, 10)]);
}

#[test]
fn matrix_max_fails_vip_is_of_one_endpoint() {
    let table = table(&[(labelled(&[FAILS, TIMEOUT, VIP]), 3)]);
    assert_eq!(checks(&table, "/"), [(3, 30)]);
    assert_eq!(asked(&table, "/").unwrap().endpoints.len(), 1);
}

#[test]
fn matrix_max_fails_context_root_is_each_roots_own() {
    let table = table(&[(named("app", &[ROOT, FAILS, TIMEOUT]), 2), (named("site", &[]), 2)]);
    assert_eq!(checks(&table, "/app"), [(3, 30)]);
    assert_eq!(checks(&table, "/"), [(1, 10)]);
}
