//! What the labels about TLS say (rows 12 to 15, §2.2).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{labelled, route, said, the_one};
use crate::labels::{Severity, read};
use crate::route::spec::{FEATURE_TLS_ONLY, FEATURE_TLS_PASSTHROUGH};
use crate::testing::sample::service;

/// `cert+key` of each certificate.
fn certificates(labels: &[(&str, &str)]) -> Vec<String> {
    let route = route(&labelled(labels));
    route.tls.certificates.iter().map(ToString::to_string).collect()
}

#[test]
fn label_ssl_key_names_the_secret_beside_ssl_cert_under_both_prefixes() {
    for prefix in ["tidegate.", "com.docker.lb."] {
        let (cert, key) = (format!("{prefix}ssl_cert"), format!("{prefix}ssl_key"));
        let labels = [
            (cert.as_str(), "demo_app.example.org.cert"),
            (key.as_str(), "demo_app.key"),
        ];
        assert_eq!(certificates(&labels), ["demo_app.example.org.cert+demo_app.key"]);
        assert_eq!(read(&labelled(&labels)).diagnostics, []);
    }
}

#[test]
fn row_13_a_certificate_without_key_is_a_combined_pem() {
    assert_eq!(certificates(&[("tidegate.ssl_cert", "shop.pem")]), ["shop.pem"]);
    assert_eq!(
        certificates(&[("tidegate.ssl_cert", "shop.pem"), ("tidegate.ssl_key", "shop.pem")]),
        ["shop.pem"]
    );
}

#[test]
fn one_host_may_have_certificates_with_several_kinds_of_keys() {
    let labels = [
        ("tidegate.ssl_cert", "rsa.cert, ec.cert"),
        ("tidegate.ssl_key", "rsa.key,ec.key,"),
    ];
    assert_eq!(certificates(&labels), ["rsa.cert+rsa.key", "ec.cert+ec.key"]);
    assert_eq!(
        certificates(&[("tidegate.ssl_cert", "rsa.pem,ec.pem,rsa.pem")]),
        ["rsa.pem", "ec.pem"]
    );
}

#[test]
fn row_14_a_certificate_that_cannot_be_named_leaves_plain_http_with_a_warning() {
    for labels in [
        &[("tidegate.ssl_cert", "-----BEGIN CERTIFICATE-----")][..],
        &[("tidegate.ssl_cert", "a/b")],
        &[("tidegate.ssl_cert", "../../etc/passwd")],
        &[("tidegate.ssl_cert", "..")],
        &[("tidegate.ssl_cert", "tidegate-identity")],
        &[("tidegate.ssl_cert", "a,b"), ("tidegate.ssl_key", "a.key")],
        &[("tidegate.ssl_cert", ",")],
        &[("tidegate.ssl_cert", "a,b,c,d,e,f,g,h,i")],
        &[("tidegate.ssl_key", "shop.key")],
    ] {
        let reading = read(&labelled(labels));
        the_one(&reading, Severity::Warning);
        let tls = reading.route.expect("served over HTTP").tls;
        assert!(tls.is_empty(), "{labels:?}: {tls:?}");
    }
    let long = "x".repeat(64 * 1024);
    let reading = read(&labelled(&[("tidegate.ssl_cert", &long)]));
    assert!(the_one(&reading, Severity::Warning).to_string().len() < 1_000);
}

#[test]
fn row_12_passthrough_wins_over_a_certificate_with_a_warning() {
    let reading = read(&labelled(&[
        ("com.docker.lb.ssl_passthrough", "true"),
        ("com.docker.lb.ssl_cert", "shop.cert"),
        ("com.docker.lb.ssl_key", "shop.key"),
    ]));
    assert_eq!(the_one(&reading, Severity::Warning).label, "com.docker.lb.ssl_cert");
    let tls = reading.route.expect("routed").tls;
    assert!(tls.passthrough && tls.certificates.is_empty());
}

#[test]
fn a_context_root_is_ignored_beside_passthrough_with_a_warning() {
    let service = labelled(&[
        ("tidegate.ssl_passthrough", "yes"),
        ("tidegate.context_root", "/app"),
        ("tidegate.context_root_rewrite", "true"),
    ]);
    let route = route(&service);
    assert!(route.path.is_root() && !route.strip_path);
    assert_eq!(said(&read(&service).diagnostics).len(), 2);
}

#[test]
fn what_only_http_shows_is_ignored_beside_passthrough_with_a_warning_each() {
    for (name, value) in [
        ("backend_protocol", "h2c"),
        ("body_limit", "1m"),
        ("first_byte_timeout", "5s"),
        ("request_headers", "set X-A b"),
        ("response_headers", "set X-A b"),
        ("sticky_cookie", "lb"),
        ("sticky_session_cookie", "session"),
    ] {
        let key = format!("tidegate.{name}");
        let reading = read(&labelled(&[("tidegate.ssl_passthrough", "true"), (&key, value)]));
        let finding = the_one(&reading, Severity::Warning);
        assert!(
            finding.label == key && finding.problem.contains("ssl_passthrough"),
            "{finding}"
        );
    }
    // What concerns connections holds.
    for (name, value) in [
        ("ip_hash", "true"),
        ("allow_ips", "10.0.0.0/8"),
        ("max_fails", "3"),
        ("balance", "round_robin"),
    ] {
        let key = format!("tidegate.{name}");
        assert_eq!(
            read(&labelled(&[("tidegate.ssl_passthrough", "true"), (&key, value)])).diagnostics,
            []
        );
    }
}

#[test]
fn what_an_older_proxy_must_not_serve_wrongly_is_a_feature_of_the_spec() {
    let labels = [("tidegate.ssl_passthrough", "true"), ("tidegate.ssl_only", "true")];
    let service = labelled(&labels);
    let spec = route(&service).to_spec(&service, Vec::new());
    assert_eq!(
        spec.requires.iter().collect::<Vec<_>>(),
        [FEATURE_TLS_ONLY, FEATURE_TLS_PASSTHROUGH]
    );
    let plain = labelled(&[("tidegate.ssl_cert", "shop.pem")]);
    assert!(route(&plain).to_spec(&plain, Vec::new()).requires.is_empty());
}

#[test]
fn row_15_ssl_only_needs_tls_for_its_hosts() {
    let alone = read(&labelled(&[("com.docker.lb.ssl_only", "true")]));
    assert_eq!(the_one(&alone, Severity::Warning).label, "com.docker.lb.ssl_only");
    assert!(alone.route.expect("routed").tls.only);
    for with in [("tidegate.ssl_cert", "shop.pem"), ("tidegate.ssl_passthrough", "true")] {
        assert_eq!(read(&labelled(&[("tidegate.ssl_only", "true"), with])).diagnostics, []);
    }
}

#[test]
fn a_switch_that_cannot_be_read_refuses_the_route() {
    for name in ["ssl_only", "ssl_passthrough"] {
        let key = format!("tidegate.{name}");
        let reading = read(&labelled(&[(&key, "perhaps")]));
        assert_eq!(the_one(&reading, Severity::Error).label, key);
        assert_eq!(read(&labelled(&[(&key, "no")])).diagnostics, []);
    }
}

#[test]
fn passthrough_may_be_the_default_backend() {
    let service = service(
        "shop",
        &[
            ("tidegate.default_backend", "true"),
            ("tidegate.ssl_passthrough", "true"),
            ("tidegate.port", "443"),
        ],
        &["a"],
    );
    let route = route(&service);
    assert!(route.default_backend && route.tls.passthrough && route.hosts.is_empty());
}
