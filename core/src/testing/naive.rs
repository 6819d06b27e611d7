//! The linear matcher: what a table answers, said as simply as possible and without a thought for speed. Shares no code
//! with the table.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::id::{EndpointId, ServiceId};
use crate::route::redirect::Scheme;
use crate::route::spec::RouteSpec;
use crate::route::table::{Decision, RouteTable};

/// What a request falls under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NaiveDecision {
    /// To these services, under this host and path, to these endpoints.
    Forward {
        /// Host pattern, or `default`.
        host: String,
        /// Path prefix.
        path: String,
        /// Whether the prefix is taken away.
        strip_path: bool,
        /// The services.
        services: BTreeSet<ServiceId>,
        /// Their endpoints.
        endpoints: BTreeSet<EndpointId>,
    },
    /// To this place.
    Redirect {
        /// Host pattern.
        host: String,
        /// Where the request for the root goes.
        target: String,
        /// Who wants it.
        service: ServiceId,
    },
    /// See [`Decision::Passthrough`].
    Passthrough {
        /// Whether to redirect.
        redirect: bool,
    },
    /// See [`Decision::UnknownHost`].
    UnknownHost,
    /// See [`Decision::UnknownPath`].
    UnknownPath,
}

/// Goes through all specs.
pub fn route(
    routes: &BTreeMap<ServiceId, Arc<RouteSpec>>,
    scheme: Scheme,
    host: Option<&str>,
    path: &str,
) -> NaiveDecision {
    let name = host.map(plain_name).unwrap_or_default();
    // By age, the services that name a pattern; the first of them says whether it is redirected.
    let mut by_age: Vec<&RouteSpec> = routes.values().map(|spec| &**spec).collect();
    by_age.sort_by_key(|spec| age(spec));
    let redirect_of = |pattern: &str| {
        let names = |spec: &&&RouteSpec| {
            spec.hosts.iter().any(|host| host.as_str() == pattern)
                || spec.redirects.iter().any(|redirect| redirect.host.as_str() == pattern)
        };
        let oldest = by_age.iter().find(names)?;
        let mut redirects = oldest.redirects.iter();
        let redirect = redirects.find(|redirect| redirect.host.as_str() == pattern && redirect.scheme == scheme)?;
        Some((redirect, oldest.service.clone()))
    };
    let served = routes.values().flat_map(|spec| &spec.hosts).map(|host| host.as_str());
    let redirected = routes
        .values()
        .flat_map(|spec| &spec.redirects)
        .map(|redirect| redirect.host.as_str())
        .filter(|pattern| redirect_of(pattern).is_some());
    let patterns: BTreeSet<&str> = served
        .chain(redirected)
        .filter(|pattern| match pattern.strip_prefix('*') {
            Some(end) => name.ends_with(end) && name.len() > end.len() && !name.starts_with('.'),
            None => *pattern == name,
        })
        .collect();
    let exact = patterns.iter().find(|pattern| !pattern.starts_with('*'));
    let best = exact.or_else(|| patterns.iter().max_by_key(|pattern| pattern.len()));
    if let Some((redirect, service)) = best.and_then(|best| redirect_of(best)) {
        return NaiveDecision::Redirect {
            host: redirect.host.to_string(),
            target: format!("{}/", redirect.target),
            service,
        };
    }
    let all = routes.values().map(|spec| &**spec);
    let claimants: Vec<&RouteSpec> = match best {
        Some(best) => all
            .filter(|spec| spec.hosts.iter().any(|host| host.as_str() == *best))
            .collect(),
        None => all
            .filter(|spec| spec.default_backend)
            .min_by_key(|spec| age(spec))
            .into_iter()
            .collect(),
    };
    if claimants.is_empty() {
        return NaiveDecision::UnknownHost;
    }
    let (passed, claimants): (Vec<&RouteSpec>, Vec<&RouteSpec>) =
        claimants.into_iter().partition(|spec| spec.tls.passthrough);
    if claimants.is_empty() {
        let oldest = passed.iter().min_by_key(|spec| age(spec));
        return NaiveDecision::Passthrough {
            redirect: oldest.is_some_and(|spec| spec.tls.only),
        };
    }
    let segments = plain_segments(path);
    let covers = |prefix: &str| {
        let wanted: Vec<&str> = prefix.split('/').filter(|segment| !segment.is_empty()).collect();
        match &segments {
            Some(segments) if wanted.len() <= segments.len() => wanted.iter().zip(segments).all(|(a, b)| a == b),
            Some(_) => false,
            None => wanted.is_empty(),
        }
    };
    let prefixes = claimants.iter().map(|spec| spec.path.as_str());
    let Some(prefix) = prefixes
        .filter(|prefix| covers(prefix))
        .max_by_key(|prefix| prefix.len())
    else {
        return NaiveDecision::UnknownPath;
    };
    let chosen: Vec<&RouteSpec> = claimants
        .into_iter()
        .filter(|spec| spec.path.as_str() == prefix)
        .collect();
    let oldest = chosen.iter().min_by_key(|spec| age(spec));
    let endpoints = chosen.iter().flat_map(|spec| &spec.endpoints);
    NaiveDecision::Forward {
        host: best.map_or("default", |best| best).to_string(),
        path: prefix.to_string(),
        strip_path: oldest.is_some_and(|spec| spec.strip_path),
        services: chosen.iter().map(|spec| spec.service.clone()).collect(),
        endpoints: endpoints.map(|endpoint| endpoint.id.clone()).collect(),
    }
}

/// The same answer of a table.
pub fn of_table(table: &RouteTable, scheme: Scheme, host: Option<&str>, path: &str) -> NaiveDecision {
    match table.route_over(scheme, host, path) {
        Decision::Redirect(rule) => NaiveDecision::Redirect {
            host: rule.redirect.host.to_string(),
            target: rule.location("/"),
            service: rule.service.id.clone(),
        },
        Decision::Passthrough { redirect } => NaiveDecision::Passthrough { redirect },
        Decision::UnknownHost => NaiveDecision::UnknownHost,
        Decision::UnknownPath => NaiveDecision::UnknownPath,
        Decision::Forward(rule) => {
            let endpoints = table.pool(&rule.pool).into_iter().flat_map(|pool| &pool.endpoints);
            NaiveDecision::Forward {
                host: rule.host.to_string(),
                path: rule.path.to_string(),
                strip_path: rule.strip_path,
                services: rule.services.iter().map(|service| service.id.clone()).collect(),
                endpoints: endpoints.map(|endpoint| endpoint.spec.id.clone()).collect(),
            }
        }
    }
}

fn age(spec: &RouteSpec) -> (&str, &ServiceId) {
    (&spec.created_at, &spec.service)
}

/// Lower case, without port and trailing dot. Knows names only, no IPv6 addresses.
fn plain_name(host: &str) -> String {
    let lower = host.to_lowercase();
    let name = lower.split(':').next().unwrap_or("");
    name.strip_suffix('.').unwrap_or(name).to_string()
}

/// The segments of a path, decoded and with dots resolved; `None` where applications disagree about them.
fn plain_segments(target: &str) -> Option<Vec<String>> {
    let path = target.split('?').next().unwrap_or("");
    let mut resolved: Vec<String> = Vec::new();
    let mut is_odd = !(path.is_empty() || path.starts_with('/'));
    for segment in path.split('/').skip(1) {
        let segment = decode(segment);
        match segment.as_str() {
            "." => {}
            ".." => {
                resolved.pop();
            }
            _ => {
                let read = segment
                    .replace("%2F", "/")
                    .replace("%5C", "/")
                    .replace('\\', "/")
                    .replace("%3B", ";");
                let mut parts = read.split('/').map(|part| part.split(';').next().unwrap_or(""));
                is_odd |= parts.any(|part| part == "." || part == "..");
                resolved.push(segment);
            }
        }
    }
    (!is_odd).then_some(resolved)
}

fn decode(segment: &str) -> String {
    let chars: Vec<char> = segment.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    while at < chars.len() {
        let digit = |offset: usize| chars.get(at + offset).and_then(|c| c.to_digit(16));
        match (chars[at], digit(1), digit(2)) {
            ('%', Some(high), Some(low)) => {
                let decoded = char::from_u32(high * 16 + low);
                match decoded.filter(|c| c.is_ascii_alphanumeric() || "-._~".contains(*c)) {
                    Some(decoded) => out.push(decoded),
                    None => out.push_str(&format!("%{high:X}{low:X}")),
                }
                at += 3;
            }
            (other, _, _) => {
                out.push(other);
                at += 1;
            }
        }
    }
    out
}
