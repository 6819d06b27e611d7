//! What the labels about TLS to the app say (row 16).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{labelled, route, said, the_one};
use crate::labels::{Severity, read};
use crate::route::spec::{BackendTls, FEATURE_TLS_BACKEND, Trust};
use crate::testing::sample::service;

const ON: (&str, &str) = ("tidegate.ssl_backend", "true");

fn tls(labels: &[(&str, &str)]) -> BackendTls {
    let labels: Vec<(&str, &str)> = [ON].into_iter().chain(labels.iter().copied()).collect();
    let reading = read(&labelled(&labels));
    assert_eq!(reading.diagnostics, [], "{labels:?}");
    reading.route.and_then(|route| route.backend_tls).expect("TLS")
}

fn by(trust: Trust, name: &str) -> BackendTls {
    let server_name = Some(String::from(name));
    BackendTls { trust, server_name }
}

#[test]
fn label_ssl_backend_speaks_tls_to_the_app_under_both_prefixes() {
    for prefix in ["tidegate.", "com.docker.lb."] {
        let on = labelled(&[(&format!("{prefix}ssl_backend"), "Yes")]);
        let route = route(&on);
        assert_eq!(route.backend_tls, Some(by(Trust::Any, "shop.example.org")));
        let spec = route.to_spec(&on, Vec::new());
        assert_eq!(spec.requires.iter().collect::<Vec<_>>(), [FEATURE_TLS_BACKEND]);
        assert_eq!(spec.backend_tls, route.backend_tls);
        let off = read(&labelled(&[(&format!("{prefix}ssl_backend"), "false")]));
        assert_eq!(
            (off.route.expect("routed").backend_tls, off.diagnostics),
            (None, Vec::new())
        );
    }
    assert_eq!(route(&labelled(&[])).backend_tls, None);
}

#[test]
fn label_ssl_backend_that_cannot_be_read_refuses_the_route() {
    for prefix in ["tidegate.", "com.docker.lb."] {
        let key = format!("{prefix}ssl_backend");
        let reading = read(&labelled(&[(&key, "perhaps")]));
        assert_eq!(the_one(&reading, Severity::Error).label, key);
        assert_eq!(
            reading.hosts.len(),
            1,
            "an explanation still knows who claimed the host"
        );
    }
    let long = "x".repeat(64 * 1024);
    let reading = read(&labelled(&[("tidegate.ssl_backend", &long)]));
    assert!(the_one(&reading, Severity::Error).to_string().len() < 1_000);
}

#[test]
fn row_16_verification_is_none_by_default_or_required() {
    assert_eq!(tls(&[]), by(Trust::Any, "shop.example.org"));
    for prefix in ["tidegate.", "com.docker.lb."] {
        let key = format!("{prefix}ssl_backend_tls_verify");
        assert_eq!(tls(&[(&key, "none")]), by(Trust::Any, "shop.example.org"));
        assert_eq!(tls(&[(&key, "Required")]), by(Trust::Web, "shop.example.org"));
    }
}

#[test]
fn label_ssl_backend_tls_verify_refuses_what_it_cannot_honour() {
    for value in ["", "optional", "true", "full"] {
        let reading = read(&labelled(&[ON, ("tidegate.ssl_backend_tls_verify", value)]));
        let finding = the_one(&reading, Severity::Error);
        assert!(
            finding.label.ends_with("tls_verify") && finding.remedy.contains("required"),
            "{finding}"
        );
    }
    // Misspelled, it would otherwise leave the app unverified.
    let reading = read(&labelled(&[ON, ("tidegate.ssl_backend_tls_verfy", "required")]));
    assert!(
        the_one(&reading, Severity::Error)
            .remedy
            .contains("ssl_backend_tls_verify")
    );
}

#[test]
fn label_ssl_backend_ca_names_the_secret_with_the_authorities_and_asks_for_verification() {
    let ca = ("tidegate.ssl_backend_ca", "shop_ca.2026");
    let expected = by(Trust::Secret("shop_ca.2026".to_string()), "shop.example.org");
    assert_eq!(tls(&[ca]), expected);
    assert_eq!(expected.secret(), Some("shop_ca.2026"));
    let required = ("com.docker.lb.ssl_backend_tls_verify", "required");
    assert_eq!(tls(&[ca, required]), expected);
    // What is said in so many words holds, and is reported.
    let reading = read(&labelled(&[ON, ca, ("tidegate.ssl_backend_tls_verify", "none")]));
    assert_eq!(the_one(&reading, Severity::Warning).label, "tidegate.ssl_backend_ca");
    let trust = reading.route.and_then(|route| route.backend_tls).map(|tls| tls.trust);
    assert_eq!(trust, Some(Trust::Any));
}

#[test]
fn label_ssl_backend_ca_that_names_no_secret_refuses_the_route() {
    for value in ["", "a,b", "../ca", "tidegate-identity", "-----BEGIN CERTIFICATE-----"] {
        let reading = read(&labelled(&[ON, ("tidegate.ssl_backend_ca", value)]));
        assert_eq!(the_one(&reading, Severity::Error).label, "tidegate.ssl_backend_ca");
    }
    let interlocks = read(&labelled(&[ON, ("com.docker.lb.ssl_backend_ca", "ca")]));
    assert!(
        the_one(&interlocks, Severity::Error)
            .remedy
            .contains("tidegate.ssl_backend_ca")
    );
}

#[test]
fn label_ssl_backend_server_name_is_a_name_or_an_address() {
    let name = |value| tls(&[("tidegate.ssl_backend_server_name", value)]).server_name;
    assert_eq!(name("Shop.Internal."), Some("shop.internal".to_string()));
    assert_eq!(name("shop"), Some("shop".to_string()));
    assert_eq!(name("10.0.0.7"), Some("10.0.0.7".to_string()));
    assert_eq!(name("2001:DB8::1"), Some("2001:db8::1".to_string()));
    for value in ["", "*.internal", "shop:443", "https://shop", "a b", "café"] {
        let reading = read(&labelled(&[ON, ("tidegate.ssl_backend_server_name", value)]));
        assert_eq!(
            the_one(&reading, Severity::Error).label,
            "tidegate.ssl_backend_server_name",
            "{value}"
        );
    }
}

#[test]
fn the_first_host_that_is_a_name_is_verified_as_it_was_written() {
    let hosts = |hosts: &str| {
        service(
            "shop",
            &[ON, ("tidegate.hosts", hosts), ("tidegate.port", "443")],
            &["a"],
        )
    };
    let name = |text: &str| route(&hosts(text)).backend_tls.and_then(|tls| tls.server_name);
    assert_eq!(
        name("*.example.org, Z.example.org, a.example.org").as_deref(),
        Some("z.example.org")
    );
    assert_eq!(name("*.example.org"), None);
}

#[test]
fn row_16_without_a_name_nothing_can_be_verified() {
    for more in [
        ("tidegate.ssl_backend_tls_verify", "required"),
        ("tidegate.ssl_backend_ca", "ca"),
    ] {
        let labels = [ON, ("tidegate.hosts", "*.example.org"), ("tidegate.port", "443"), more];
        let reading = read(&service("shop", &labels, &["a"]));
        let finding = the_one(&reading, Severity::Error);
        assert!(finding.remedy.contains("ssl_backend_server_name"), "{finding}");
        let named = ("tidegate.ssl_backend_server_name", "shop");
        let labels: Vec<(&str, &str)> = labels.into_iter().chain([named]).collect();
        assert_eq!(read(&service("shop", &labels, &["a"])).diagnostics, []);
    }
}

#[test]
fn verification_without_tls_refuses_the_route_unless_tls_is_off_in_so_many_words() {
    for (label, value) in [
        ("tidegate.ssl_backend_tls_verify", "required"),
        ("tidegate.ssl_backend_ca", "ca"),
        ("tidegate.ssl_backend_server_name", "shop"),
    ] {
        let reading = read(&labelled(&[(label, value)]));
        assert_eq!(the_one(&reading, Severity::Error).label, label);
        let off = read(&labelled(&[("tidegate.ssl_backend", "off"), (label, value)]));
        assert_eq!(the_one(&off, Severity::Warning).label, label);
    }
    let none = read(&labelled(&[("com.docker.lb.ssl_backend_tls_verify", "none")]));
    assert_eq!(none.diagnostics, []);
}

#[test]
fn tls_to_the_app_goes_with_every_protocol() {
    for (word, expected) in [("h2c", "H2c"), ("h2", "H2c"), ("http1", "Http1"), ("auto", "Auto")] {
        let service = labelled(&[ON, ("tidegate.backend_protocol", word)]);
        assert_eq!(said(&read(&service).diagnostics), [""; 0]);
        assert_eq!(format!("{:?}", route(&service).protocol), expected);
    }
}
