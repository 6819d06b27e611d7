//! Why a URL is answered as it is, for the person who asks: a question to the table, never a decision.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::id::EndpointId;
use crate::labels::diagnostic::Diagnostic;
use crate::route::host;
use crate::route::path::{self, RequestPath};
use crate::route::redirect::{RedirectRule, Scheme};
use crate::route::rewrite::{slash_redirect, strip};
use crate::route::rule::{PoolKey, Rule, RuleHost};
use crate::route::spec::HostPattern;
use crate::route::table::{Decision, RouteTable, TlsDecision};
use crate::text;
use crate::tls::redirect::to_https;

/// Names that an explanation suggests for an unknown host.
const CANDIDATES_MAX: usize = 5;
/// Paths of a host that it lists.
const PATHS_MAX: usize = 50;
/// Bytes of a host that are compared with others.
const HOST_BYTES_MAX: usize = 253;

/// What the caller knows beside the table. A proxy knows the states of its endpoints, a controller the claims.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// What each labelled service claims, also where it was refused.
    pub claims: &'a [Claim<'a>],
    /// The state of an endpoint, as its pool sees it; `None` where it is not known.
    pub endpoint_state: &'a dyn Fn(&PoolKey, &EndpointId) -> Option<String>,
}

impl fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("claims", &self.claims)
            .finish_non_exhaustive()
    }
}

impl Surroundings<'static> {
    /// Nothing but the table is known.
    pub const NONE: Surroundings<'static> = Surroundings {
        claims: &[],
        endpoint_state: &|_, _| None,
    };
}

/// What one service claims, see [`Reading`](crate::labels::Reading).
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The service's name.
    pub service: &'a str,
    /// The hosts that its labels name.
    pub hosts: &'a [HostPattern],
    /// The whole key of the label that names them.
    pub label: &'a str,
    /// What was found wrong with the service.
    pub diagnostics: &'a [Diagnostic],
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The URL that was asked about.
    pub url: String,
    /// Its host, normalised; empty without one.
    pub host: String,
    /// Its path, as it is matched.
    pub path: String,
    /// What happens.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Findings about services that claim this host, served or not.
    pub diagnostics: Vec<Diagnostic>,
}

/// What happens to the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It goes to a pool.
    Forward(Forward),
    /// The TLS connection is ended by an alert (`unrecognized_name`), because nobody serves the host over TLS.
    NoTls {
        /// Hosts that are served and look alike, nearest first.
        nearest: Vec<String>,
    },
    /// The TLS connection goes to a pool as it is.
    Passthrough(Forward),
    /// It is answered with a redirect to HTTPS.
    ToHttps {
        /// The status.
        status: u16,
        /// The answer's `Location`.
        location: String,
    },
    /// It is redirected to its own path with a slash at the end.
    ToSlash {
        /// The status.
        status: u16,
        /// The answer's `Location`.
        location: String,
    },
    /// It is answered with this status, because the host is served over TLS alone, which is passed through.
    TlsAlone {
        /// The status.
        status: u16,
    },
    /// It is sent elsewhere.
    Redirect {
        /// The status.
        status: u16,
        /// The answer's `Location`.
        location: String,
        /// The redirect, as the label has it.
        redirect: String,
        /// The service whose label it is.
        service: String,
    },
    /// It is answered with this status, because nobody claims the host.
    UnknownHost {
        /// The status.
        status: u16,
        /// Hosts that are served and look alike, nearest first.
        nearest: Vec<String>,
    },
    /// It is answered with this status, because the host is served under other paths alone.
    UnknownPath {
        /// The status.
        status: u16,
        /// The host of the rules: the name itself, a wildcard, or `default`.
        matched: String,
        /// The paths that are served, at most 50.
        paths: Vec<String>,
        /// Why a path that looks right is not matched; empty if there is nothing to say.
        note: String,
    },
}

/// Where a request goes and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// The rule, as logs and metrics name it.
    pub rule: String,
    /// Why this rule.
    pub because: String,
    /// The services, oldest first.
    pub services: Vec<String>,
    /// The labels that name the host, where they are known.
    pub labels: Vec<String>,
    /// The secrets with the certificates that TLS ends with; empty for plain HTTP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<String>,
    /// The target that the app sees.
    pub forwarded: String,
    /// The pool.
    pub pool: String,
    /// What labels set for it beyond the usual.
    #[serde(default)]
    pub settings: Vec<String>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointExplanation>,
}

/// One endpoint of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointExplanation {
    /// Its id.
    pub id: String,
    /// Its address.
    pub addr: String,
    /// Its service.
    pub service: String,
    /// Its node; empty where it is not known.
    pub node: String,
    /// Its state: what the pool says, or else `ready` or `leaving`.
    pub state: String,
}

/// Explains what happens to a request for `url`: `http://host/path`, `host/path`, or `/path` for a request without
/// host.
pub fn explain(table: &RouteTable, url: &str, surroundings: &Surroundings<'_>) -> Explanation {
    let (scheme, host, target) = split_url(url);
    let normal = host.and_then(host::normalise);
    let name = normal.as_ref().map_or(host.unwrap_or(""), |host| host.as_str());
    let read = path::read(target);
    let path = match &read {
        RequestPath::Normalised { text, .. } => text.clone(),
        RequestPath::Plain(text) => text.to_string(),
        RequestPath::RootOnly => target.split(['?', '#']).next().unwrap_or("").to_string(),
    };
    let tls = (scheme == Scheme::Https).then(|| table.tls(host));
    let certificates = match tls {
        Some(TlsDecision::Terminate { certificates, .. }) => certificates,
        Some(TlsDecision::Passthrough(_) | TlsDecision::UnknownName) | None => &[],
    };
    let to_https = || Outcome::ToHttps {
        status: RedirectRule::STATUS,
        location: to_https(host.unwrap_or_default(), target, table.settings().https_port),
    };
    let to_slash = |rule: &Rule| {
        let wanted = table.settings().redirect_to_slash;
        wanted.then(|| slash_redirect(rule, target)).flatten()
    };
    let answered = || match table.route_over(scheme, host, target) {
        Decision::Redirect(rule) => Outcome::Redirect {
            status: RedirectRule::STATUS,
            location: rule.location(target),
            redirect: rule.redirect.to_string(),
            service: rule.service.name.to_string(),
        },
        Decision::Forward(rule) if rule.tls_only && tls.is_none() => to_https(),
        Decision::Forward(rule) if to_slash(rule).is_some() => Outcome::ToSlash {
            status: 301,
            location: to_slash(rule).unwrap_or_default(),
        },
        Decision::Forward(rule) => {
            let mut forward = forward(table, rule, name, target, surroundings);
            forward.certificates = certificates.iter().map(ToString::to_string).collect();
            Outcome::Forward(forward)
        }
        Decision::Passthrough { redirect: true } if tls.is_none() => to_https(),
        Decision::Passthrough { .. } => Outcome::TlsAlone { status: 503 },
        Decision::UnknownHost => Outcome::UnknownHost {
            status: table.settings().unknown_host_status,
            nearest: nearest_hosts(table, name),
        },
        Decision::UnknownPath => {
            let rules = table.rules_for_host(scheme, host).unwrap_or_default();
            let note = match read {
                RequestPath::RootOnly => {
                    "applications read this path in different ways, so only a rule for / may serve it"
                }
                RequestPath::Normalised { .. } | RequestPath::Plain(_) => "",
            };
            Outcome::UnknownPath {
                status: 404,
                matched: rules.first().map(|rule| rule.host.to_string()).unwrap_or_default(),
                paths: rules.iter().take(PATHS_MAX).map(|rule| rule.path.to_string()).collect(),
                note: note.to_string(),
            }
        }
    };
    let outcome = match tls {
        None | Some(TlsDecision::Terminate { .. }) => answered(),
        Some(TlsDecision::Passthrough(rule)) => Outcome::Passthrough(forward(table, rule, name, target, surroundings)),
        Some(TlsDecision::UnknownName) => Outcome::NoTls {
            nearest: nearest_hosts(table, name),
        },
    };
    let claimants = surroundings
        .claims
        .iter()
        .filter(|claim| claim.hosts.iter().any(|host| covers(host, name)));
    let served: &[String] = match &outcome {
        Outcome::Forward(forward) | Outcome::Passthrough(forward) => &forward.services,
        Outcome::Redirect { service, .. } => core::slice::from_ref(service),
        Outcome::NoTls { .. }
        | Outcome::TlsAlone { .. }
        | Outcome::ToHttps { .. }
        | Outcome::ToSlash { .. }
        | Outcome::UnknownHost { .. }
        | Outcome::UnknownPath { .. } => &[],
    };
    let concerned: BTreeSet<&str> = claimants
        .map(|claim| claim.service)
        .chain(served.iter().map(String::as_str))
        .collect();
    let all = surroundings
        .claims
        .iter()
        .filter(|claim| concerned.contains(claim.service));
    let diagnostics: BTreeSet<Diagnostic> = all.flat_map(|claim| claim.diagnostics).cloned().collect();
    Explanation {
        url: url.to_string(),
        host: name.to_string(),
        path,
        outcome,
        diagnostics: diagnostics.into_iter().collect(),
    }
}

/// Scheme, host and request target of a URL; without `https://` it is HTTP, user information and a fragment do not
/// matter.
fn split_url(url: &str) -> (Scheme, Option<&str>, &str) {
    let rest = url.trim();
    let (scheme, rest) = match rest.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
        Some((_, rest)) => (Scheme::Http, rest),
        None => (Scheme::Http, rest),
    };
    let rest = rest.split('#').next().unwrap_or("");
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(at);
    let host = authority.rsplit('@').next().unwrap_or("");
    (
        scheme,
        (!host.is_empty()).then_some(host),
        if target.is_empty() { "/" } else { target },
    )
}

fn forward(table: &RouteTable, rule: &Rule, name: &str, target: &str, surroundings: &Surroundings<'_>) -> Forward {
    let pool = table.pool(&rule.pool);
    let services: Vec<String> = rule.services.iter().map(|service| service.name.to_string()).collect();
    let labels: BTreeSet<String> = surroundings
        .claims
        .iter()
        .filter(|claim| services.iter().any(|service| service == claim.service))
        .map(|claim| match rule.host {
            RuleHost::Default => format!("default_backend of {}", claim.service),
            RuleHost::Pattern(_) => format!("{} of {}", claim.label, claim.service),
        })
        .collect();
    let endpoints = pool.iter().flat_map(|pool| &pool.endpoints).map(|endpoint| {
        let spec = &endpoint.spec;
        let by_spec = if spec.leaving.is_some() { "leaving" } else { "ready" };
        EndpointExplanation {
            id: spec.id.to_string(),
            addr: spec.addr.to_string(),
            service: endpoint.service.name.to_string(),
            node: spec.node.as_ref().map(ToString::to_string).unwrap_or_default(),
            state: (surroundings.endpoint_state)(&rule.pool, &spec.id).unwrap_or_else(|| by_spec.to_string()),
        }
    });
    Forward {
        rule: rule.to_string(),
        because: because(rule, name),
        services,
        labels: labels.into_iter().collect(),
        certificates: Vec::new(),
        forwarded: strip(rule, target).into_owned(),
        pool: rule.pool.to_string(),
        settings: pool.map(|pool| pool.settings_text()).unwrap_or_default(),
        endpoints: endpoints.collect(),
    }
}

fn because(rule: &Rule, name: &str) -> String {
    let host = match &rule.host {
        RuleHost::Default if name.is_empty() => "there is no host, so the default backend serves".to_string(),
        RuleHost::Default => format!("nobody claims {name}, so the default backend serves"),
        RuleHost::Pattern(pattern) if pattern.wildcard_suffix().is_some() => {
            format!("nobody claims {name} itself, and {pattern} is the longest wildcard that covers it")
        }
        RuleHost::Pattern(pattern) => format!("the host is {pattern}"),
    };
    if rule.path.is_root() {
        format!("{host}, and no context root fits the path better")
    } else {
        format!(
            "{host}, and {} is the longest context root that fits the path",
            rule.path
        )
    }
}

fn covers(pattern: &HostPattern, name: &str) -> bool {
    match pattern.wildcard_suffix() {
        None => pattern.as_str() == name,
        Some(suffix) => name
            .strip_suffix(suffix)
            .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
    }
}

/// Served hosts that look like `name`: by edits, or because one is the other with a domain more or less.
fn nearest_hosts(table: &RouteTable, name: &str) -> Vec<String> {
    if name.is_empty() || name.len() > HOST_BYTES_MAX {
        return Vec::new();
    }
    let mut found: Vec<(usize, bool, &str)> = table
        .patterns()
        // A host may be redirected over the other scheme alone; it is not its own neighbour.
        .filter(|pattern| pattern.as_str() != name)
        .filter_map(|pattern| {
            let suffix = pattern.wildcard_suffix();
            let bare = suffix.unwrap_or(pattern.as_str());
            let is_kin = below(name, bare) || below(bare, name);
            let limit = (name.len().max(bare.len()) / 4).max(2);
            if !is_kin && bare.len().abs_diff(name.len()) > limit {
                return None;
            }
            let distance = if is_kin { 1 } else { text::distance(name, bare, limit)? };
            Some((distance, suffix.is_some(), pattern.as_str()))
        })
        .collect();
    found.sort_unstable();
    found.truncate(CANDIDATES_MAX);
    found.into_iter().map(|(_, _, pattern)| pattern.to_string()).collect()
}

/// Whether `name` is below `domain`, or the first label of it.
fn below(name: &str, domain: &str) -> bool {
    let under = name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    under || domain.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.url)?;
        match &self.outcome {
            Outcome::Forward(forward) => write!(f, "{forward}")?,
            Outcome::Redirect {
                status,
                location,
                redirect,
                service,
            } => {
                writeln!(f, "  answer    {status}: {location}")?;
                writeln!(f, "  redirect  {redirect}")?;
                writeln!(f, "  service   {service}")?;
            }
            Outcome::NoTls { nearest } => {
                writeln!(
                    f,
                    "  answer    none: no service has a certificate or passthrough for {:?}, so TLS ends with an alert",
                    self.host
                )?;
                for host in nearest {
                    writeln!(f, "  near      {host}")?;
                }
            }
            Outcome::Passthrough(forward) => {
                writeln!(f, "  tls       passed through as it is")?;
                write!(f, "{forward}")?;
            }
            Outcome::ToHttps { status, location } | Outcome::ToSlash { status, location } => {
                writeln!(f, "  answer    {status}: to {location}")?
            }
            Outcome::TlsAlone { status } => writeln!(
                f,
                "  answer    {status}: {} is served over TLS alone, which is passed through",
                self.host
            )?,
            Outcome::UnknownHost { status, nearest } => {
                writeln!(f, "  answer    {status}: nobody claims the host {:?}", self.host)?;
                for host in nearest {
                    writeln!(f, "  near      {host}")?;
                }
            }
            Outcome::UnknownPath {
                status,
                matched,
                paths,
                note,
            } => {
                writeln!(f, "  answer    {status}: {matched} is not served under {}", self.path)?;
                if !note.is_empty() {
                    writeln!(f, "  because   {note}")?;
                }
                for path in paths {
                    writeln!(f, "  served    {matched}{path}")?;
                }
            }
        }
        for diagnostic in &self.diagnostics {
            writeln!(f, "  {diagnostic}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  rule      {}", self.rule)?;
        writeln!(f, "  because   {}", self.because)?;
        writeln!(f, "  service   {}", self.services.join(", "))?;
        for label in &self.labels {
            writeln!(f, "  label     {label}")?;
        }
        for certificate in &self.certificates {
            writeln!(f, "  tls       ends here, with {certificate}")?;
        }
        writeln!(f, "  forwards  {}", self.forwarded)?;
        for line in &self.settings {
            writeln!(f, "  setting   {line}")?;
        }
        if self.endpoints.is_empty() {
            writeln!(f, "  endpoint  none: requests wait for one, then are answered 503")?;
        }
        for endpoint in &self.endpoints {
            write!(
                f,
                "  endpoint  {} {} {} of {}",
                endpoint.state, endpoint.addr, endpoint.id, endpoint.service
            )?;
            if !endpoint.node.is_empty() {
                write!(f, " on {}", endpoint.node)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
