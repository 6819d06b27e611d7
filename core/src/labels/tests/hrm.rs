//! Labels of UCP 2's HTTP routing mesh (row 48, §2.4).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{route, said, the_one};
use crate::labels::{Reading, Severity, read};
use crate::route::spec::Affinity;
use crate::swarm::model::Service;
use crate::testing::sample::service;

const KEY: &str = "com.docker.ucp.mesh.http";

/// A service with these as `KEY.1`, `KEY.2`, …
fn shop(values: &[&str]) -> Service {
    let keys: Vec<String> = (1..=values.len()).map(|number| format!("{KEY}.{number}")).collect();
    let labels: Vec<(&str, &str)> = keys.iter().map(String::as_str).zip(values.iter().copied()).collect();
    service("shop", &labels, &["a"])
}

fn hosts(service: &Service) -> Vec<String> {
    route(service).hosts.iter().map(ToString::to_string).collect()
}

#[test]
fn row_48_a_label_of_hrm_is_a_route() {
    let shop = service(
        "shop",
        &[(
            KEY,
            "external_route=http://Shop.example.org/, internal_port=8080,sticky_sessions=SID,include_forwarded_for=true",
        )],
        &["a"],
    );
    let reading = read(&shop);
    assert_eq!(reading.diagnostics, []);
    assert_eq!(reading.hosts_label, KEY);
    let route = route(&shop);
    assert_eq!(hosts(&shop), ["shop.example.org"]);
    assert_eq!(route.port, Some(8080));
    assert_eq!(route.affinity, Affinity::AppCookie("SID".into()));
    assert!(!route.tls.passthrough && !route.default_backend);
}

#[test]
fn row_48_sni_is_passed_through_and_an_empty_host_is_the_default_backend() {
    let passed = shop(&["external_route=sni://shop.example.org,internal_port=8443"]);
    assert_eq!(read(&passed).diagnostics, []);
    assert!(route(&passed).tls.passthrough);
    assert_eq!(hosts(&passed), ["shop.example.org"]);
    let fallback = shop(&["external_route=http://,internal_port=80"]);
    assert_eq!(read(&fallback).diagnostics, []);
    assert!(route(&fallback).default_backend);
    assert!(hosts(&fallback).is_empty());
}

#[test]
fn row_48_numbered_labels_are_hosts_of_one_route() {
    let shop = shop(&[
        "external_route=http://a.example.org,internal_port=80",
        "external_route=http://b.example.org,internal_port=80",
        "external_route=http://old.example.org,redirect=https://a.example.org",
        "external_route=http://,internal_port=80",
    ]);
    assert_eq!(read(&shop).diagnostics, []);
    assert_eq!(hosts(&shop), ["a.example.org", "b.example.org", "old.example.org"]);
    let route = route(&shop);
    assert!(route.default_backend);
    assert_eq!(route.port, Some(80));
    let redirects: Vec<String> = route.redirects.iter().map(ToString::to_string).collect();
    assert_eq!(redirects, ["http://old.example.org -> https://a.example.org"]);
}

#[test]
fn row_48_plain_http_may_be_redirected_to_what_is_passed_through() {
    let shop = shop(&[
        "external_route=http://shop.example.org,redirect=https://shop.example.org",
        "external_route=sni://shop.example.org,internal_port=443",
    ]);
    assert_eq!(read(&shop).diagnostics, []);
    let route = route(&shop);
    assert!(route.tls.passthrough);
    assert_eq!(route.redirects.len(), 1);
    assert_eq!(route.port, Some(443));
}

#[test]
fn row_48_what_one_route_cannot_say_refuses_the_service() {
    for (second, problem) in [
        ("external_route=http://b,internal_port=81", "leads to another port"),
        ("external_route=sni://b,internal_port=80", "is of another kind"),
    ] {
        let reading = read(&shop(&["external_route=http://a,internal_port=80", second]));
        let finding = the_one(&reading, Severity::Error);
        assert_eq!(
            (finding.label.as_str(), finding.value.as_str()),
            ("com.docker.ucp.mesh.http.2", second)
        );
        assert!(finding.problem.contains(problem), "{finding}");
        assert!(finding.remedy.contains("a service of its own"), "{finding}");
    }
}

#[test]
fn row_48_a_wrong_label_says_what_to_write_instead() {
    let all: Vec<String> = [
        "",
        "internal_port=80",
        "external_route=shop.example.org,internal_port=80",
        "external_route=https://shop.example.org,internal_port=80",
        "external_route=http://a_b/c,internal_port=80",
        "external_route=http://shop.example.org,internal_port=http",
        "external_route=http://a,external_route=http://b",
        "external_route=sni://,internal_port=443",
        "external_route=sni://a,redirect=https://b",
        "external_route=http://,redirect=https://b",
        "external_route=http://a,redirect=b",
    ]
    .iter()
    .map(|text| {
        let reading = read(&shop(&[text]));
        said(&[the_one(&reading, Severity::Error).clone()]).remove(0)
    })
    .collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn row_48_what_only_tunes_is_ignored_with_a_warning() {
    let all: Vec<String> = [
        "external_route=http://a,internal_port=80,include_forwarded_for=false",
        "external_route=http://a,internal_port=80,colour=red",
        "external_route=sni://a,internal_port=443,sticky_sessions=SID",
        "external_route=http://a:8080,internal_port=80",
    ]
    .iter()
    .map(|text| {
        let reading = read(&shop(&[text]));
        said(&[the_one(&reading, Severity::Warning).clone()]).remove(0)
    })
    .collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn row_48_a_wrong_route_leaves_the_others() {
    let shop = shop(&[
        "external_route=http://a,internal_port=80",
        "external_route=ftp://b,internal_port=80",
    ]);
    let reading = read(&shop);
    let finding = the_one(&reading, Severity::Warning);
    assert!(finding.problem.ends_with("so this route is not served"), "{finding}");
    assert_eq!(hosts(&shop), ["a"]);
}

#[test]
fn row_48_two_cookies_are_one() {
    let shop = shop(&[
        "external_route=http://a,internal_port=80,sticky_sessions=A",
        "external_route=http://b,internal_port=80,sticky_sessions=B",
    ]);
    assert!(
        the_one(&read(&shop), Severity::Warning)
            .problem
            .contains("\"A\" already")
    );
    assert_eq!(route(&shop).affinity, Affinity::AppCookie("A".into()));
}

#[test]
fn row_48_other_labels_win_with_a_warning() {
    let old = (KEY, "external_route=http://old.example.org,internal_port=80");
    for prefix in ["tidegate.", "com.docker.lb."] {
        let (host, port) = (format!("{prefix}hosts"), format!("{prefix}port"));
        let both = service("shop", &[old, (&host, "new.example.org"), (&port, "81")], &["a"]);
        assert!(the_one(&read(&both), Severity::Warning).problem.starts_with(&host));
        assert_eq!(hosts(&both), ["new.example.org"]);
        let port_alone = service("shop", &[old, (&port, "81")], &["a"]);
        assert!(
            the_one(&read(&port_alone), Severity::Warning)
                .problem
                .starts_with(&port)
        );
        assert_eq!(hosts(&port_alone), ["old.example.org"]);
        assert_eq!(route(&port_alone).port, Some(81));
    }
    let guarded = service("shop", &[old, ("tidegate.allow_ips", "10.0.0.0/8")], &["a"]);
    assert!(route(&guarded).allow_ips.is_some(), "what HRM has no word for is kept");
}

#[test]
fn row_48_our_own_services_and_like_sounding_labels_are_nobody() {
    let own = service(
        "shop",
        &[(KEY, "external_route=http://a"), ("tidegate.role", "proxy")],
        &[],
    );
    assert_eq!(read(&own), Reading::default());
    let other = service("shop", &[("com.docker.ucp.mesh.https", "external_route=http://a")], &[]);
    assert_eq!(read(&other), Reading::default());
}
