//! Labels of one service to what it asks for. Decides by the service alone: no network, task or other service.
//!
//! A wrong value of a label that only tunes the route is ignored with a warning; a wrong value of one that says where
//! the route is (hosts, path, port, cluster) or how it is protected refuses the route, since a guess could publish
//! what was not meant to be.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use crate::id::ClusterName;
use crate::labels::diagnostic::{Diagnostic, Severity};
use crate::labels::keys::{self, Found, INTERLOCK_PREFIX, LABELS, PREFIX, ROLE_LABEL};
use crate::labels::value::{self, Wrong};
use crate::labels::{backend, hrm, tls};
use crate::route::active::ActiveChecks;
use crate::route::allow::IpRange;
use crate::route::edits::HeaderEdits;
use crate::route::redirect::Redirect;
use crate::route::spec::{
    Affinity, BackendTls, Balance, BasicAuth, ClientTls, Coding, EndpointSpec, FEATURE_ALLOW_IPS, FEATURE_BASIC_AUTH,
    FEATURE_LEGS, FEATURE_TLS_BACKEND, HostPattern, PassiveChecks, PathPrefix, RouteLimits, RouteSpec,
    UpstreamProtocol,
};
use crate::settings::ClusterSettings;
use crate::swarm::model::{EndpointMode, Service, ServiceMode};

mod health;
mod serving;

pub use serving::{PARK_MS_MAX, hidden_clients};

/// Hosts that one label may name.
pub const HOSTS_MAX: usize = 20_000;
/// Wrong hosts of one label that are reported one by one.
const WRONG_HOSTS_SHOWN: usize = 20;

/// What the labels of one service say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What it asks for; `None` where it is not labelled, is Tidegate's own, or is refused.
    pub route: Option<LabelledRoute>,
    /// The hosts that it would serve or redirect, also where it is refused: so that an explanation can say who would have claimed
    /// a host.
    pub hosts: Vec<HostPattern>,
    /// The whole key of the label that names the hosts; empty without one.
    pub hosts_label: String,
    /// Findings, sorted.
    pub diagnostics: Vec<Diagnostic>,
}

/// What the labels of a service ask for, as far as they alone say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelledRoute {
    /// The service cluster that serves it.
    pub cluster: ClusterName,
    /// Hosts, sorted, each once.
    pub hosts: Vec<HostPattern>,
    /// Also serves every host that nobody claims.
    pub default_backend: bool,
    /// Path prefix.
    pub path: PathPrefix,
    /// Take the prefix away before forwarding.
    pub strip_path: bool,
    /// The app's port; where the label is missing, the only published one.
    pub port: Option<u16>,
    /// The network label, as written.
    pub network: Option<String>,
    /// Tasks or the virtual IP.
    pub backend_mode: BackendMode,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// What is spoken to the app.
    pub protocol: UpstreamProtocol,
    /// Limits of this route.
    pub limits: RouteLimits,
    /// Hosts whose requests are sent elsewhere.
    #[serde(default)]
    pub redirects: Vec<Redirect>,
    /// How a client comes back to the endpoint that it had.
    #[serde(default)]
    pub affinity: Affinity,
    /// Share of a pool that the service has together with others.
    #[serde(default)]
    pub weight: Option<u32>,
    /// When endpoints are ejected.
    #[serde(default)]
    pub checks: PassiveChecks,
    /// How endpoints are probed.
    #[serde(default)]
    pub active: Option<ActiveChecks>,
    /// Header fields that are changed on the way.
    #[serde(default)]
    pub edits: HeaderEdits,
    /// Client addresses that are served.
    #[serde(default)]
    pub allow_ips: Option<Vec<IpRange>>,
    /// How responses may be compressed.
    #[serde(default)]
    pub compress: Vec<Coding>,
    /// Who clients must be.
    #[serde(default)]
    pub basic_auth: Option<BasicAuth>,
    /// TLS between clients and the hosts.
    #[serde(default)]
    pub tls: ClientTls,
    /// TLS to the app.
    #[serde(default)]
    pub backend_tls: Option<BackendTls>,
}

/// Which addresses requests go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendMode {
    /// Each task's own.
    #[default]
    Task,
    /// The service's virtual IP.
    Vip,
}

impl LabelledRoute {
    /// The route with what its cluster's settings say for services that say nothing; `None` where that is nothing.
    pub fn with_defaults(&self, cluster: &ClusterSettings) -> Option<LabelledRoute> {
        let by_address = cluster.ip_hash && self.affinity.is_none() && self.backend_mode == BackendMode::Task;
        by_address.then(|| LabelledRoute {
            affinity: Affinity::Address,
            ..self.clone()
        })
    }

    /// The spec of `service` with these endpoints, sorted by id.
    pub fn to_spec(&self, service: &Service, mut endpoints: Vec<EndpointSpec>) -> RouteSpec {
        endpoints.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        endpoints.dedup_by(|a, b| a.id == b.id);
        let mut requires = self.tls.requires();
        if self.allow_ips.is_some() {
            requires.insert(FEATURE_ALLOW_IPS.to_string());
        }
        if self.basic_auth.is_some() {
            requires.insert(FEATURE_BASIC_AUTH.to_string());
        }
        if endpoints.iter().any(|endpoint| endpoint.via.is_some()) {
            requires.insert(FEATURE_LEGS.to_string());
        }
        if self.backend_tls.is_some() {
            requires.insert(FEATURE_TLS_BACKEND.to_string());
        }
        RouteSpec {
            hosts: self.hosts.clone(),
            default_backend: self.default_backend,
            path: self.path.clone(),
            strip_path: self.strip_path,
            balance: self.balance,
            protocol: self.protocol,
            limits: self.limits.clone(),
            redirects: self.redirects.clone(),
            affinity: self.affinity.clone(),
            weight: self.weight,
            checks: self.checks,
            active: self.active.clone(),
            edits: self.edits.clone(),
            allow_ips: self.allow_ips.clone(),
            basic_auth: self.basic_auth.clone(),
            compress: self.compress.clone(),
            endpoints,
            requires,
            tls: self.tls.clone(),
            backend_tls: self.backend_tls.clone(),
            ..RouteSpec::new(service.id.clone(), service.name.as_str(), service.created_at.as_str())
        }
    }
}

/// Whether the service is one of Tidegate's own, which are never routed.
pub fn is_own_service(service: &Service) -> bool {
    service.labels.contains_key(ROLE_LABEL)
}

/// Reads the labels of one service.
pub fn read(service: &Service) -> Reading {
    if is_own_service(service) {
        return Reading::default();
    }
    // Row 48.
    let Some(mut translated) = hrm::translate(service) else {
        return read_labels(service);
    };
    let mut diagnostics = core::mem::take(&mut translated.diagnostics);
    let mut reading = Reading::default();
    if !translated.is_refused {
        reading = read_labels(&translated.service);
        let findings = reading.diagnostics.into_iter();
        diagnostics.extend(findings.map(|finding| translated.about_what_was_written(finding)));
        reading.hosts_label = translated.written_key(reading.hosts_label);
    }
    diagnostics.sort();
    diagnostics.dedup();
    Reading { diagnostics, ..reading }
}

fn read_labels(service: &Service) -> Reading {
    if !service.labels.keys().any(|key| keys::split(key).is_some()) {
        return Reading::default();
    }
    let mut reader = Reader {
        service,
        diagnostics: Vec::new(),
        is_refused: false,
    };
    reader.report_unknown_keys();
    reader.report_prefix_conflicts();
    let hosts_label = reader.find("hosts").map(|found| found.key).unwrap_or_default();
    let route = reader.read_route();
    let mut hosts = route.hosts.clone();
    hosts.extend(route.redirects.iter().map(|redirect| redirect.host.clone()));
    hosts.sort_unstable();
    hosts.dedup();
    let mut diagnostics = reader.diagnostics;
    diagnostics.sort();
    diagnostics.dedup();
    Reading {
        route: (!reader.is_refused).then_some(route),
        hosts,
        hosts_label,
        diagnostics,
    }
}

/// Rows 33 and 34: what to say of a service whose cluster the settings do not have. Such a service is not routed.
pub fn unknown_cluster<'a>(
    service: &Service,
    cluster: &ClusterName,
    known: impl Iterator<Item = &'a ClusterName> + Clone,
) -> Diagnostic {
    let found = keys::find_or_absent(service, "service_cluster");
    let names: Vec<&str> = known.clone().map(ClusterName::as_str).collect();
    let problem = if found.value.is_empty() {
        format!(
            "the settings have no service cluster {cluster}, which serves services without this label, so nobody serves this one"
        )
    } else {
        format!("the settings have no service cluster {cluster}, so nobody serves this service")
    };
    let remedy = match keys::nearest(cluster.as_str(), names.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("write one of {}, or add the cluster to the settings", names.join(", ")),
    };
    Diagnostic::new(service, &found.key, found.value, Severity::Error, problem, remedy)
}

pub(super) struct Reader<'a> {
    service: &'a Service,
    diagnostics: Vec<Diagnostic>,
    is_refused: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn service(&self) -> &'a Service {
        self.service
    }

    pub(super) fn find(&self, name: &str) -> Option<Found<'a>> {
        keys::find(self.service, keys::label(name)?).filter(|found| !found.value.is_empty())
    }

    pub(super) fn report(&mut self, found: &Found<'_>, severity: Severity, wrong: Wrong) {
        self.is_refused |= severity == Severity::Error;
        let Wrong { problem, remedy } = wrong;
        self.diagnostics.push(Diagnostic::new(
            self.service,
            &found.key,
            found.value,
            severity,
            problem,
            remedy,
        ));
    }

    pub(super) fn say(&mut self, found: &Found<'_>, severity: Severity, problem: &str, remedy: &str) {
        let (problem, remedy) = (problem.to_string(), remedy.to_string());
        self.report(found, severity, Wrong { problem, remedy });
    }

    fn report_unknown_keys(&mut self) {
        for (key, value) in &self.service.labels {
            let Some((prefix, name)) = keys::split(key) else {
                continue;
            };
            if !keys::label(name).is_some_and(|label| label.interlock || prefix == PREFIX) {
                let finding = keys::unknown(self.service, key, prefix, name, value);
                self.is_refused |= finding.severity == Severity::Error;
                self.diagnostics.push(finding);
            }
        }
    }

    /// Both prefixes may carry a label; ours wins, and it is said where that makes a difference.
    fn report_prefix_conflicts(&mut self) {
        for label in LABELS.iter().filter(|label| label.interlock) {
            let key = format!("{INTERLOCK_PREFIX}{}", label.name);
            let Some(theirs) = self.service.labels.get(&key) else {
                continue;
            };
            let Some(ours) = self.service.labels.get(&format!("{PREFIX}{}", label.name)) else {
                continue;
            };
            let bare =
                |text: &str| -> String { text.split_ascii_whitespace().collect::<String>().to_ascii_lowercase() };
            if bare(theirs) != bare(ours) {
                let found = Found { key, value: theirs };
                let problem = format!("{PREFIX}{} says something else, and it wins", label.name);
                self.say(
                    &found,
                    Severity::Warning,
                    &problem,
                    "take one of the two away, or make them equal",
                );
            }
        }
    }

    fn read_route(&mut self) -> LabelledRoute {
        if self.service.mode == ServiceMode::Job {
            let found = keys::find_or_absent(self.service, "hosts");
            self.say(
                &found,
                Severity::Error,
                "a job ends when its work is done, and is never routed",
                "publish a replicated or global service, or take the labels away",
            );
        }
        let default_backend = self.boolean("default_backend");
        let hosts = self.hosts(default_backend);
        let path = match self.find("context_root") {
            None => PathPrefix::default(),
            Some(found) => match value::path_prefix(found.value) {
                Ok(path) => path,
                Err(wrong) => {
                    self.report(&found, Severity::Error, wrong);
                    PathPrefix::default()
                }
            },
        };
        let strip_path = self.boolean("context_root_rewrite");
        let tls = tls::read(self);
        let backend_tls = backend::read(self, tls.passthrough);
        let (path, strip_path) = if tls.passthrough {
            (PathPrefix::default(), false)
        } else {
            (path, strip_path)
        };
        if strip_path && path.is_root() && !self.is_refused {
            let found = keys::find_or_absent(self.service, "context_root_rewrite");
            self.say(
                &found,
                Severity::Warning,
                "there is no context_root to take away",
                "add a context_root such as /app, or take this label away",
            );
        }
        let backend_mode = self.backend_mode();
        let redirects = self.redirects(&hosts);
        if tls.passthrough {
            tls::say_what_passthrough_cannot_redirect(self, &hosts, &redirects);
        }
        LabelledRoute {
            cluster: self.cluster(),
            redirects,
            hosts,
            default_backend,
            strip_path: strip_path && !path.is_root(),
            path,
            port: self.port(),
            network: self.find("network").map(|found| found.value.to_string()),
            backend_mode,
            balance: self.choice(
                "balance",
                &[
                    ("least_requests", Balance::LeastRequests),
                    ("round_robin", Balance::RoundRobin),
                ],
            ),
            protocol: self.choice(
                "backend_protocol",
                &[
                    ("auto", UpstreamProtocol::Auto),
                    ("h2c", UpstreamProtocol::H2c),
                    ("h2", UpstreamProtocol::H2c),
                    ("http1", UpstreamProtocol::Http1),
                ],
            ),
            limits: self.limits(),
            affinity: self.affinity(backend_mode),
            weight: self.weight(),
            checks: self.checks(),
            active: self.active(tls.passthrough),
            edits: self.edits(),
            allow_ips: self.allow_ips(),
            basic_auth: self.basic_auth(tls.passthrough),
            compress: self.compress(),
            tls,
            backend_tls,
        }
    }

    /// Row 1: what is neither true nor false is ignored.
    fn boolean(&mut self, name: &str) -> bool {
        let Some(found) = self.find(name) else { return false };
        value::boolean(found.value).unwrap_or_else(|wrong| {
            let problem = format!("{}, so the label is ignored", wrong.problem);
            self.report(&found, Severity::Warning, Wrong { problem, ..wrong });
            false
        })
    }

    fn hosts(&mut self, default_backend: bool) -> Vec<HostPattern> {
        let Some(found) = self.find("hosts") else {
            if !default_backend {
                let found = keys::find_or_absent(self.service, "hosts");
                self.say(
                    &found,
                    Severity::Error,
                    "no host is named, so there is nothing to serve",
                    "write the host names to serve, e.g. shop.example.org, or set default_backend=true",
                );
            }
            return Vec::new();
        };
        let mut hosts = BTreeSet::new();
        let mut wrong_hosts: Vec<Wrong> = Vec::new();
        let mut wrong_count = 0_usize;
        let mut had_port = false;
        for item in value::list(found.value) {
            match value::host(item) {
                Ok(host) => {
                    had_port |= host.had_port;
                    hosts.insert(host.pattern);
                }
                Err(wrong) => {
                    wrong_count += 1;
                    if wrong_hosts.len() < WRONG_HOSTS_SHOWN {
                        wrong_hosts.push(wrong);
                    }
                }
            }
            if hosts.len() > HOSTS_MAX {
                let problem = format!("these are more than {HOSTS_MAX} hosts, the limit of one service");
                self.say(
                    &found,
                    Severity::Error,
                    &problem,
                    "use wildcards such as *.example.org, or several services",
                );
                return Vec::new();
            }
        }
        if had_port {
            self.say(
                &found,
                Severity::Warning,
                "a port behind a host name is ignored: hosts are matched by name on every port of the proxies",
                "write the host name alone, and the app's port in the label port",
            );
        }
        let severity = if hosts.is_empty() && !default_backend {
            Severity::Error
        } else {
            Severity::Warning
        };
        let hidden = wrong_count - wrong_hosts.len();
        for wrong in wrong_hosts {
            let problem = match severity {
                Severity::Error => wrong.problem,
                Severity::Warning => format!("{}, so it is not served", wrong.problem),
            };
            self.report(&found, severity, Wrong { problem, ..wrong });
        }
        if hidden > 0 {
            let problem = format!("{hidden} more of these host names are wrong");
            self.say(
                &found,
                severity,
                &problem,
                "mend the ones that are reported, then look again",
            );
        }
        if hosts.is_empty() && wrong_count == 0 && !default_backend {
            self.say(
                &found,
                Severity::Error,
                "no host is named, so there is nothing to serve",
                "write the host names to serve, e.g. shop.example.org",
            );
        }
        hosts.into_iter().collect()
    }

    fn cluster(&mut self) -> ClusterName {
        let Some(found) = self.find("service_cluster") else {
            return ClusterName::default_cluster();
        };
        value::cluster(found.value).unwrap_or_else(|wrong| {
            self.report(&found, Severity::Error, wrong);
            ClusterName::default_cluster()
        })
    }

    /// Row 27: without the label, the only published TCP port is meant.
    fn port(&mut self) -> Option<u16> {
        if let Some(found) = self.find("port") {
            return value::port(found.value)
                .map_err(|wrong| self.report(&found, Severity::Error, wrong))
                .ok();
        }
        let published = self.service.ports.iter().filter(|port| port.tcp);
        let targets: BTreeSet<u16> = published.map(|port| port.target).collect();
        match targets.len() {
            1 => targets.first().copied(),
            _ => None,
        }
    }

    fn backend_mode(&mut self) -> BackendMode {
        let mode = self.choice(
            "backend_mode",
            // `default` is what a draft of Interlock's labels called `task`.
            &[
                ("task", BackendMode::Task),
                ("vip", BackendMode::Vip),
                ("default", BackendMode::Task),
            ],
        );
        // Row 30.
        if mode == BackendMode::Vip && self.service.endpoint_mode == EndpointMode::Dnsrr {
            let found = keys::find_or_absent(self.service, "backend_mode");
            self.say(
                &found,
                Severity::Warning,
                "a service with endpoint mode dnsrr has no virtual IP, so requests go to its tasks",
                "write task, or give the service endpoint mode vip",
            );
            return BackendMode::Task;
        }
        mode
    }

    /// One of a few words; another is ignored. The first and the second word are what a remedy names.
    fn choice<T: Copy + Default>(&mut self, name: &str, words: &[(&str, T)]) -> T {
        let Some(found) = self.find(name) else {
            return T::default();
        };
        let chosen = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(found.value));
        if let Some((_, chosen)) = chosen {
            return *chosen;
        }
        let syntax = keys::label(name).map_or("", |label| label.syntax).replace('`', "");
        let default = keys::label(name).map_or("", |label| label.default).replace('`', "");
        let problem = format!("this is no value of {name}, so {default} holds");
        self.say(&found, Severity::Warning, &problem, &format!("write {syntax}"));
        T::default()
    }
}
