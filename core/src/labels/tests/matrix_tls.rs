//! Pairs of labels of the interaction matrix (§2.3) that concern TLS: what holds together, and what is said where it does not.

use alloc::format;
use alloc::vec::Vec;

use super::{labelled, route, the_one};
use crate::labels::{BackendMode, Severity, read};
use crate::route::spec::{Affinity, ProxyProtocol};

const PASSTHROUGH: (&str, &str) = ("com.docker.lb.ssl_passthrough", "true");
const CERTIFICATE: (&str, &str) = ("com.docker.lb.ssl_cert", "shop.pem");
const WEBSOCKETS: (&str, &str) = ("com.docker.lb.websocket_endpoints", "/ws,/foo");
const BACKEND: (&str, &str) = ("com.docker.lb.ssl_backend", "true");

/// Both labels hold, and nothing is to be said.
fn go_together(labels: &[(&str, &str)]) {
    assert_eq!(read(&labelled(labels)).diagnostics, [], "{labels:?}");
}

/// The second is ignored with a warning, the route is served.
fn the_first_wins(first: (&str, &str), second: (&str, &str)) {
    let reading = read(&labelled(&[first, second]));
    let finding = the_one(&reading, Severity::Warning);
    assert!(
        finding.label.ends_with(second.0) || finding.label == second.0,
        "{finding}"
    );
    assert!(!finding.remedy.is_empty());
}

#[test]
fn matrix_sticky_passthrough_goes_by_the_address_alone() {
    the_first_wins(PASSTHROUGH, ("com.docker.lb.sticky_session_cookie", "session"));
    the_first_wins(PASSTHROUGH, ("tidegate.sticky_cookie", "lb"));
    let both = [PASSTHROUGH, ("com.docker.lb.ip_hash", "true")];
    go_together(&both);
    assert_eq!(route(&labelled(&both)).affinity, Affinity::Address);
}

#[test]
fn matrix_sticky_cert_go_together() {
    go_together(&[CERTIFICATE, ("com.docker.lb.sticky_session_cookie", "session")]);
    go_together(&[CERTIFICATE, ("com.docker.lb.ip_hash", "true")]);
}

#[test]
fn matrix_websockets_passthrough_go_together() {
    go_together(&[PASSTHROUGH, WEBSOCKETS]);
}

#[test]
fn matrix_websockets_cert_go_together() {
    go_together(&[CERTIFICATE, WEBSOCKETS]);
    go_together(&[CERTIFICATE, BACKEND, WEBSOCKETS]);
}

#[test]
fn matrix_context_root_passthrough_the_path_cannot_be_seen() {
    the_first_wins(PASSTHROUGH, ("com.docker.lb.context_root", "/app"));
    the_first_wins(PASSTHROUGH, ("com.docker.lb.context_root_rewrite", "true"));
}

#[test]
fn matrix_context_root_cert_go_together() {
    go_together(&[CERTIFICATE, ("com.docker.lb.context_root", "/app")]);
}

#[test]
fn matrix_cert_passthrough_exclude_each_other() {
    the_first_wins(PASSTHROUGH, CERTIFICATE);
    let route = route(&labelled(&[PASSTHROUGH, CERTIFICATE]));
    assert!(route.tls.passthrough && route.tls.certificates.is_empty());
}

#[test]
fn matrix_passthrough_redirect_over_plain_http_alone() {
    // Row 18.
    let redirect = |source: &str| {
        [PASSTHROUGH, ("com.docker.lb.redirects", source)].map(|(key, value)| (key, alloc::string::String::from(value)))
    };
    let labels = redirect("http://shop.example.org,https://new.example.org");
    let labels: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
    go_together(&labels);
    assert_eq!(route(&labelled(&labels)).redirects.len(), 1);
    the_first_wins(
        PASSTHROUGH,
        (
            "com.docker.lb.redirects",
            "https://shop.example.org,https://new.example.org",
        ),
    );
}

#[test]
fn matrix_cert_redirect_over_both_schemes() {
    for source in ["http", "https"] {
        let redirects = format!("{source}://shop.example.org,https://new.example.org");
        go_together(&[CERTIFICATE, ("com.docker.lb.redirects", &redirects)]);
    }
}

fn counts_failures(other: (&str, &str)) {
    let both = [
        other,
        ("com.docker.lb.max_fails", "3"),
        ("com.docker.lb.fail_timeout", "30s"),
    ];
    go_together(&both);
    assert_eq!(route(&labelled(&both)).checks.max_fails, Some(3));
}

#[test]
fn matrix_max_fails_passthrough_go_together() {
    counts_failures(PASSTHROUGH);
}

#[test]
fn matrix_max_fails_cert_go_together() {
    counts_failures(CERTIFICATE);
    counts_failures(BACKEND);
}

fn goes_to_the_virtual_ip(other: (&str, &str)) {
    let both = [other, ("com.docker.lb.backend_mode", "vip")];
    go_together(&both);
    assert_eq!(route(&labelled(&both)).backend_mode, BackendMode::Vip);
}

#[test]
fn matrix_passthrough_vip_go_together() {
    goes_to_the_virtual_ip(PASSTHROUGH);
}

#[test]
fn matrix_cert_vip_go_together() {
    goes_to_the_virtual_ip(CERTIFICATE);
    goes_to_the_virtual_ip(BACKEND);
}

#[test]
fn matrix_canary_cert_have_weights() {
    go_together(&[CERTIFICATE, ("tidegate.weight", "5")]);
    go_together(&[BACKEND, ("tidegate.weight", "5")]);
}

#[test]
fn matrix_ssl_backend_passthrough_the_app_gets_the_clients_tls() {
    the_first_wins(PASSTHROUGH, BACKEND);
    let reading = read(&labelled(&[
        PASSTHROUGH,
        BACKEND,
        ("tidegate.ssl_backend_tls_verify", "required"),
        ("tidegate.ssl_backend_ca", "ca"),
        ("tidegate.ssl_backend_server_name", "shop"),
    ]));
    assert_eq!(reading.diagnostics.len(), 4);
    assert!(
        reading
            .diagnostics
            .iter()
            .all(|finding| finding.severity == Severity::Warning)
    );
    let route = reading.route.expect("routed");
    assert!(route.tls.passthrough && route.backend_tls.is_none());
    let off = [
        ("tidegate.ssl_backend", "no"),
        ("com.docker.lb.ssl_backend_tls_verify", "none"),
    ];
    for label in off {
        go_together(&[PASSTHROUGH, label]);
    }
}

#[test]
fn matrix_ssl_backend_cert_encrypts_anew() {
    let both = [CERTIFICATE, BACKEND];
    go_together(&both);
    let route = route(&labelled(&both));
    assert!(route.backend_tls.is_some() && route.tls.certificates.len() == 1);
}

#[test]
fn matrix_ssl_backend_sticky_context_root_and_redirect() {
    for other in [
        ("com.docker.lb.sticky_session_cookie", "session"),
        ("com.docker.lb.ip_hash", "true"),
        ("com.docker.lb.context_root", "/app"),
        (
            "com.docker.lb.redirects",
            "http://shop.example.org,https://new.example.org",
        ),
        ("tidegate.backend_protocol", "h2c"),
    ] {
        go_together(&[BACKEND, other]);
    }
}

#[test]
fn label_proxy_protocol_needs_passthrough() {
    for (word, version) in [("v1", ProxyProtocol::V1), ("V2", ProxyProtocol::V2)] {
        let both = [PASSTHROUGH, ("tidegate.proxy_protocol", word)];
        go_together(&both);
        let service = labelled(&both);
        let spec = route(&service).to_spec(&service, Vec::new());
        assert_eq!(spec.tls.proxy_protocol, Some(version));
        assert!(spec.requires.contains(crate::route::spec::FEATURE_PROXY_PROTOCOL));
    }
    // Many clients' requests share a connection to the app.
    for other in [CERTIFICATE, BACKEND] {
        let reading = read(&labelled(&[other, ("tidegate.proxy_protocol", "v1")]));
        assert_eq!(the_one(&reading, Severity::Warning).label, "tidegate.proxy_protocol");
        assert_eq!(reading.route.expect("routed").tls.proxy_protocol, None);
    }
    let reading = read(&labelled(&[PASSTHROUGH, ("tidegate.proxy_protocol", "v3")]));
    assert_eq!(the_one(&reading, Severity::Error).label, "tidegate.proxy_protocol");
}
