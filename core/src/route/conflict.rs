//! What several services say together and cannot all have. Each route stays served; findings go to the younger
//! service, which gives way.

use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::id::ServiceId;
use crate::labels::diagnostic::{Diagnostic, Severity};
use crate::labels::keys::PREFIX;
use crate::route::edits::HeaderEdit;
use crate::route::redirect::Scheme;
use crate::route::spec::{Affinity, HostPattern, PathPrefix, RouteLimits, RouteSpec};

/// Findings across services, sorted: one host and path claimed with different settings, one host redirected by several
/// or served by an older service (row 11), several default backends (row 21). Equal claims of one host and path are no conflict: they share a pool (row 5).
pub fn conflicts(routes: &BTreeMap<ServiceId, Arc<RouteSpec>>) -> Vec<Diagnostic> {
    let mut by_age: Vec<(&ServiceId, &RouteSpec)> = routes.iter().map(|(id, spec)| (id, &**spec)).collect();
    by_age.sort_unstable_by_key(|(id, spec)| (&spec.created_at, *id));
    let mut found = BTreeSet::new();
    let mut default: Option<&RouteSpec> = None;
    let mut oldest: BTreeMap<(&HostPattern, &PathPrefix), &RouteSpec> = BTreeMap::new();
    // The oldest service of a host that says something about TLS.
    let mut tls: BTreeMap<&HostPattern, &RouteSpec> = BTreeMap::new();
    let mut compared: BTreeSet<(&ServiceId, &ServiceId)> = BTreeSet::new();
    let mut named: BTreeMap<&HostPattern, &RouteSpec> = BTreeMap::new();
    for (id, spec) in by_age {
        for host in spec
            .hosts
            .iter()
            .chain(spec.redirects.iter().map(|redirect| &redirect.host))
        {
            let first = *named.entry(host).or_insert(spec);
            if !core::ptr::eq(first, spec) {
                found.extend(redirect_differences(first, spec, host));
            }
        }
        for host in &spec.hosts {
            match tls.entry(host) {
                Entry::Vacant(vacant) => {
                    if !spec.tls.is_empty() {
                        vacant.insert(spec);
                    }
                }
                Entry::Occupied(first) => found.extend(tls_difference(first.get(), spec, host)),
            }
            if spec.tls.passthrough {
                continue; // no path, no pool in common
            }
            let first = *oldest.entry((host, &spec.path)).or_insert(spec);
            if !core::ptr::eq(first, spec) && compared.insert((&first.service, id)) {
                found.extend(differences(first, spec, host));
            }
        }
        if !spec.default_backend {
            continue;
        }
        match default {
            None => default = Some(spec),
            Some(first) => {
                found.insert(warning(
                    spec,
                    "default_backend",
                    "true",
                    format!(
                        "service {} is older and is the default backend already, so this one is not",
                        first.name
                    ),
                    String::from("leave default_backend on one service of the cluster"),
                ));
            }
        }
    }
    found.into_iter().collect()
}

/// TLS ends in one way for one host, whatever the path: passthrough wins (row 12), then the oldest service's certificates.
fn tls_difference(first: &RouteSpec, spec: &RouteSpec, host: &HostPattern) -> Option<Diagnostic> {
    let names = |spec: &RouteSpec| -> String {
        let names: Vec<String> = spec.tls.certificates.iter().map(ToString::to_string).collect();
        names.join(", ")
    };
    let remedy = || format!("claim {host} with one of the two services, or give both the same labels");
    match (first.tls.passthrough, spec.tls.passthrough) {
        (true, true) => Some(warning(
            spec,
            "ssl_passthrough",
            "true",
            format!(
                "service {} is older and gets the TLS connections for {host} already, so this one gets none",
                first.name
            ),
            remedy(),
        )),
        (true, false) if !spec.tls.certificates.is_empty() => Some(warning(
            spec,
            "ssl_cert",
            &names(spec),
            format!(
                "service {} passes TLS connections for {host} through, so this certificate is not used there",
                first.name
            ),
            remedy(),
        )),
        (false, true) if !first.tls.certificates.is_empty() => Some(warning(
            first,
            "ssl_cert",
            &names(first),
            format!(
                "service {} passes TLS connections for {host} through, so this certificate is not used there",
                spec.name
            ),
            remedy(),
        )),
        (false, false)
            if !first.tls.certificates.is_empty()
                && !spec.tls.certificates.is_empty()
                && first.tls.certificates != spec.tls.certificates =>
        {
            Some(warning(
                spec,
                "ssl_cert",
                &names(spec),
                format!(
                    "service {} is older, claims {host} too and has {}, so that holds",
                    first.name,
                    names(first)
                ),
                remedy(),
            ))
        }
        (true | false, true | false) => None,
    }
}

fn differences(first: &RouteSpec, spec: &RouteSpec, host: &HostPattern) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut compare = |label: &str, theirs: String, ours: String| {
        if theirs != ours {
            let problem = format!(
                "service {} is older, serves {host}{} too and has {}, so that holds",
                first.name,
                spec.path,
                if theirs.is_empty() { "none" } else { &theirs }
            );
            let remedy = format!("give both services the same {label}, or another host or context root");
            found.push(warning(spec, label, &ours, problem, remedy));
        }
    };
    let text = |value: serde_json::Result<serde_json::Value>| match value {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    };
    compare(
        "context_root_rewrite",
        first.strip_path.to_string(),
        spec.strip_path.to_string(),
    );
    compare(
        "balance",
        text(serde_json::to_value(first.balance)),
        text(serde_json::to_value(spec.balance)),
    );
    compare(
        "backend_protocol",
        text(serde_json::to_value(first.protocol)),
        text(serde_json::to_value(spec.protocol)),
    );
    compare("ssl_only", first.tls.only.to_string(), spec.tls.only.to_string());
    type Limit = fn(&RouteLimits) -> Option<u32>;
    let times: [(&str, Limit); 4] = [
        ("park_timeout", |limits| limits.park_ms),
        ("connect_timeout", |limits| limits.connect_timeout_ms),
        ("first_byte_timeout", |limits| limits.first_byte_timeout_ms),
        ("idle_timeout", |limits| limits.idle_timeout_ms),
    ];
    for (label, limit) in times {
        let written = |spec: &RouteSpec| limit(&spec.limits).map(|ms| format!("{ms}ms")).unwrap_or_default();
        compare(label, written(first), written(spec));
    }
    let shares: [(&str, Limit); 3] = [
        ("parked_max", |limits| limits.parked_max),
        ("eject_max", |limits| limits.eject_max_percent),
        ("panic_threshold", |limits| limits.panic_threshold_percent),
    ];
    for (label, limit) in shares {
        let written = |spec: &RouteSpec| limit(&spec.limits).map(|share| share.to_string()).unwrap_or_default();
        compare(label, written(first), written(spec));
    }
    let body = |spec: &RouteSpec| {
        spec.limits
            .body_bytes_max
            .map(|max| max.to_string())
            .unwrap_or_default()
    };
    compare("body_limit", body(first), body(spec));
    type Pinned = fn(&Affinity) -> Option<&str>;
    let pins: [(&str, Pinned); 3] = [
        ("ip_hash", |affinity| (*affinity == Affinity::Address).then_some("true")),
        ("sticky_session_cookie", |affinity| match affinity {
            Affinity::AppCookie(name) => Some(name),
            Affinity::None | Affinity::Address | Affinity::OwnCookie(_) => None,
        }),
        ("sticky_cookie", |affinity| match affinity {
            Affinity::OwnCookie(name) => Some(name),
            Affinity::None | Affinity::Address | Affinity::AppCookie(_) => None,
        }),
    ];
    for (label, pinned) in pins {
        let written = |spec: &RouteSpec| pinned(&spec.affinity).unwrap_or_default().to_string();
        compare(label, written(first), written(spec));
    }
    let edits = |edits: &[HeaderEdit]| edits.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    compare(
        "request_headers",
        edits(&first.edits.request),
        edits(&spec.edits.request),
    );
    compare(
        "response_headers",
        edits(&first.edits.response),
        edits(&spec.edits.response),
    );
    let codings = |spec: &RouteSpec| {
        spec.compress
            .iter()
            .map(|coding| coding.name())
            .collect::<Vec<_>>()
            .join(", ")
    };
    compare("compress", codings(first), codings(spec));
    if first.allow_ips != spec.allow_ips {
        let problem = format!(
            "service {} serves {host}{} too and allows other clients, so only those that both allow are served",
            first.name, spec.path
        );
        let remedy = String::from("give both services the same allow_ips, or another host or context root");
        found.push(warning(spec, "allow_ips", &ranges(spec), problem, remedy));
    }
    let users = |spec: &RouteSpec| {
        spec.basic_auth
            .as_ref()
            .map(|auth| auth.secret.clone())
            .unwrap_or_default()
    };
    if users(first) != users(spec) {
        let problem = format!(
            "service {} serves {host}{} too and asks for other users, so only those that are users of both are served",
            first.name, spec.path
        );
        let remedy = String::from("give both services the same basic_auth, or another host or context root");
        found.push(warning(spec, "basic_auth", &users(spec), problem, remedy));
    }
    found
}

fn ranges(spec: &RouteSpec) -> String {
    let ranges = spec.allow_ips.iter().flatten().map(ToString::to_string);
    ranges.collect::<Vec<_>>().join(", ")
}

/// The oldest service that names a host decides whether, and to where, it is redirected.
fn redirect_differences(first: &RouteSpec, spec: &RouteSpec, host: &HostPattern) -> Vec<Diagnostic> {
    let of = |spec: &RouteSpec, scheme: Scheme| -> Option<String> {
        let mut redirects = spec.redirects.iter();
        let redirect = redirects.find(|redirect| redirect.host == *host && redirect.scheme == scheme)?;
        Some(redirect.target.clone())
    };
    let mut found = Vec::new();
    for scheme in [Scheme::Http, Scheme::Https] {
        let (theirs, ours) = (of(first, scheme), of(spec, scheme));
        if theirs == ours {
            continue;
        }
        let problem = match theirs {
            Some(target) => format!(
                "service {} is older and redirects {scheme}://{host} to {target}, so that holds",
                first.name
            ),
            None => format!(
                "service {} is older and names {host} without redirecting {scheme}, so it is not redirected",
                first.name
            ),
        };
        let value = ours
            .map(|target| format!("{scheme}://{host},{target}"))
            .unwrap_or_default();
        let remedy = String::from("write the redirect on the older service, or name another host");
        found.push(warning(spec, "redirects", &value, problem, remedy));
    }
    found
}

fn warning(spec: &RouteSpec, label: &str, value: &str, problem: String, remedy: String) -> Diagnostic {
    Diagnostic {
        service: spec.name.clone(),
        label: format!("{PREFIX}{label}"),
        value: value.to_string(),
        severity: Severity::Warning,
        problem,
        remedy,
    }
}
