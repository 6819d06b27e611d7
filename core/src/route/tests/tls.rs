//! Where TLS connections go, and what plain HTTP to the same hosts gets.

use super::*;
use crate::route::spec::{CertificateRef, ClientTls};
use crate::route::table::TlsDecision;

fn certificate(name: &str) -> CertificateRef {
    CertificateRef {
        certificate: name.to_string(),
        key: None,
    }
}

fn with_certificate(name: &str, hosts: &[&str], path: &str, secret: &str) -> RouteSpec {
    let mut spec = spec(name, hosts, path);
    spec.tls.certificates = alloc::vec![certificate(secret)];
    spec
}

fn passthrough(name: &str, hosts: &[&str]) -> RouteSpec {
    let mut spec = spec(name, hosts, "/");
    spec.tls = ClientTls {
        passthrough: true,
        ..ClientTls::default()
    };
    spec
}

fn compiled(specs: impl IntoIterator<Item = RouteSpec>) -> RouteTable {
    let routes = specs.into_iter().map(|spec| (spec.service.clone(), Arc::new(spec)));
    RouteTable::compile(&Snapshot {
        routes: routes.collect(),
        ..Snapshot::default()
    })
}

/// `pool NAME`, the secrets, or `unknown`.
fn tls(table: &RouteTable, name: &str) -> String {
    match table.tls((!name.is_empty()).then_some(name)) {
        TlsDecision::Passthrough(rule) => format!("pool {}", rule.pool),
        TlsDecision::Terminate { certificates, .. } => {
            let names: Vec<String> = certificates.iter().map(ToString::to_string).collect();
            names.join(" ")
        }
        TlsDecision::UnknownName => "unknown".to_string(),
    }
}

#[test]
fn sni_is_exact_then_the_longest_wildcard_then_the_default_backend() {
    let mut fallback = passthrough("fallback", &[]);
    fallback.default_backend = true;
    let table = compiled([
        with_certificate("shop", &["shop.example.org"], "/", "shop"),
        passthrough("vault", &["vault.example.org"]),
        with_certificate("all", &["*.example.org"], "/", "wild"),
        passthrough("deep", &["*.deep.example.org"]),
        fallback,
    ]);
    assert_eq!(tls(&table, "shop.example.org"), "shop");
    assert_eq!(tls(&table, "VAULT.example.org."), "pool vault");
    assert_eq!(tls(&table, "other.example.org"), "wild");
    assert_eq!(tls(&table, "a.deep.example.org"), "pool deep");
    assert_eq!(tls(&table, "deep.example.org"), "wild");
    assert_eq!(tls(&table, "example.org"), "pool fallback");
    assert_eq!(tls(&table, ""), "pool fallback");
    insta::assert_snapshot!(table.canonical_text());
}

#[test]
fn a_host_without_certificate_is_served_with_that_of_a_wildcard() {
    let table = compiled([
        spec("plain", &["plain.example.org"], "/"),
        with_certificate("all", &["*.example.org"], "/", "wild"),
    ]);
    assert_eq!(tls(&table, "plain.example.org"), "wild");
    let Decision::Forward(rule) = table.route(Some("plain.example.org"), "/") else {
        panic!("served")
    };
    assert_eq!(rule.pool.as_str(), "plain");
}

#[test]
fn without_a_default_that_has_tls_an_unknown_name_is_unknown() {
    let mut fallback = spec("fallback", &[], "/");
    fallback.default_backend = true;
    let table = compiled([
        fallback.clone(),
        with_certificate("shop", &["shop.example.org"], "/", "shop"),
    ]);
    assert_eq!(tls(&table, "other.example.org"), "unknown");
    fallback.tls.certificates = alloc::vec![certificate("fallback")];
    assert_eq!(tls(&compiled([fallback]), "other.example.org"), "fallback");
}

#[test]
fn plain_http_to_a_passthrough_host_is_no_business_of_the_default_backend() {
    let mut fallback = spec("fallback", &[], "/");
    fallback.default_backend = true;
    let mut vault = passthrough("vault", &["vault.example.org"]);
    let table = compiled([fallback.clone(), vault.clone()]);
    assert_eq!(
        table.route(Some("vault.example.org"), "/"),
        Decision::Passthrough { redirect: false }
    );
    vault.tls.only = true;
    assert_eq!(
        compiled([fallback, vault]).route(Some("vault.example.org"), "/"),
        Decision::Passthrough { redirect: true }
    );
}

#[test]
fn row_12_a_passthrough_host_that_is_also_claimed_with_a_certificate_is_passed_through() {
    let mut vault = passthrough("vault", &["vault.example.org"]);
    vault.created_at = "2026-02-02T00:00:00Z".to_string();
    let shop = with_certificate("shop", &["vault.example.org"], "/", "shop");
    let table = compiled([shop, vault]);
    assert_eq!(tls(&table, "vault.example.org"), "pool vault");
    // HTTP is served by whom claims it.
    assert!(matches!(
        table.route(Some("vault.example.org"), "/"),
        Decision::Forward(rule) if rule.pool.as_str() == "shop"
    ));
    let found = conflicts(table.specs());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].service.as_str(), found[0].label.as_str()),
        ("shop", "tidegate.ssl_cert")
    );
}

#[test]
fn matrix_canary_passthrough_the_oldest_serves_and_the_next_takes_over() {
    let mut second = passthrough("a-second", &["vault.example.org"]);
    second.created_at = "2026-02-02T00:00:00Z".to_string();
    let first = passthrough("first", &["vault.example.org"]);
    let table = compiled([first.clone(), second.clone()]);
    assert_eq!(tls(&table, "vault.example.org"), "pool first");
    assert_eq!(conflicts(table.specs())[0].service, "a-second");
    let snapshot = Snapshot {
        routes: [(second.service.clone(), Arc::new(second))].into(),
        ..Snapshot::default()
    };
    let next = table.apply(&snapshot, &[first.service].into());
    assert_eq!(tls(&next, "vault.example.org"), "pool a-second");
    assert_eq!(next, RouteTable::compile(&snapshot));
}

#[test]
fn row_11_of_several_certificates_for_a_host_those_of_the_oldest_service_hold() {
    let mut young = with_certificate("api", &["shop.example.org"], "/api", "young");
    young.created_at = "2026-02-02T00:00:00Z".to_string();
    let old = with_certificate("shop", &["shop.example.org"], "/", "old");
    let table = compiled([young.clone(), old]);
    assert_eq!(tls(&table, "shop.example.org"), "old");
    assert_eq!(conflicts(table.specs())[0].service, "api");
    // One service may name the certificate for all of them.
    let table = compiled([young, spec("shop", &["shop.example.org"], "/")]);
    assert_eq!(tls(&table, "shop.example.org"), "young");
    assert_eq!(conflicts(table.specs()), []);
}

#[test]
fn explanations_say_where_tls_ends() {
    let mut shop = with_certificate("shop", &["shop.example.org"], "/", "shop.cert");
    shop.tls.only = true;
    let table = compiled([shop, passthrough("vault", &["vault.example.org"])]);
    let mut text = String::new();
    for url in [
        "http://shop.example.org/a?b",
        "https://shop.example.org/a?b",
        "http://vault.example.org/",
        "https://vault.example.org/",
        "https://shops.example.org/",
    ] {
        text += &explain(&table, url, &Surroundings::NONE).to_string();
    }
    insta::assert_snapshot!(text);
}
