//! What several services say together and cannot all have. Each route stays served; findings go to the younger
//! service, which gives way.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::id::ServiceId;
use crate::labels::diagnostic::{Diagnostic, Severity};
use crate::labels::keys::PREFIX;
use crate::route::spec::{HostPattern, PathPrefix, RouteSpec};

/// Findings across services, sorted: one host and path claimed with different settings (row 11), several default
/// backends (row 21). Equal claims of one host and path are no conflict: they share a pool (row 5).
pub fn conflicts(routes: &BTreeMap<ServiceId, Arc<RouteSpec>>) -> Vec<Diagnostic> {
    let mut by_age: Vec<(&ServiceId, &RouteSpec)> = routes.iter().map(|(id, spec)| (id, &**spec)).collect();
    by_age.sort_unstable_by_key(|(id, spec)| (&spec.created_at, *id));
    let mut found = BTreeSet::new();
    let mut default: Option<&RouteSpec> = None;
    let mut oldest: BTreeMap<(&HostPattern, &PathPrefix), &RouteSpec> = BTreeMap::new();
    let mut compared: BTreeSet<(&ServiceId, &ServiceId)> = BTreeSet::new();
    for (id, spec) in by_age {
        for host in &spec.hosts {
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
    let park = |spec: &RouteSpec| spec.limits.park_ms.map(|ms| format!("{ms}ms")).unwrap_or_default();
    compare("park_timeout", park(first), park(spec));
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
