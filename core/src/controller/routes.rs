//! The route book: for every service what its labels ask for and what became of it. One service at a time, so a change
//! of one costs one.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use super::decision::decided_at;
use crate::id::{ClusterName, NetworkId, ServiceId, Version};
use crate::identity::PROXY_FILE;
use crate::labels::resolve::{Reach, resolve};
use crate::labels::{Diagnostic, LabelledRoute, Reading, Severity, hidden_clients, keys, read, unknown_cluster};
use crate::reconcile::desired::{CLUSTER_LABEL, ROLE_LABEL};
use crate::reconcile::proxy::PROXY_ROLE;
use crate::route::allow::IpRange;
use crate::route::conflict::conflicts;
use crate::route::explain::Claim;
use crate::route::spec::{HostPattern, RouteSpec};
use crate::secrets::Finding;
use crate::settings::{ClusterSettings, Settings};
use crate::snapshot::Publisher;
use crate::swarm::model::{PublishMode, Secret, Service};
use crate::swarm::world::{Lane, World};
use crate::time::Duration;

/// Changes for one service cluster: new or changed specs, and services that are routed there no more.
pub type SpecChanges = BTreeMap<ServiceId, Option<Arc<RouteSpec>>>;

/// What one service claims, for explanations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedClaim {
    /// The service's name.
    pub service: String,
    /// The hosts that its labels name.
    pub hosts: Vec<HostPattern>,
    /// The whole key of the label that names them.
    pub label: String,
    /// What was found wrong with the service.
    pub diagnostics: Vec<Diagnostic>,
}

impl OwnedClaim {
    /// As an explanation takes it.
    pub fn as_claim(&self) -> Claim<'_> {
        Claim {
            service: &self.service,
            hosts: &self.hosts,
            label: &self.label,
            diagnostics: &self.diagnostics,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct RouteBook {
    pages: BTreeMap<ServiceId, Page>,
    attached: BTreeMap<ClusterName, BTreeSet<NetworkId>>,
    on: Option<Vec<IpRange>>,
    changes: BTreeMap<ClusterName, SpecChanges>,
    decisions: BTreeMap<ServiceId, Duration>,
    /// Names of services that went, for the cause of a revision.
    gone: BTreeMap<ServiceId, String>,
    diagnostics: BTreeSet<Diagnostic>,
}

/// One service that has labels of ours.
#[derive(Debug)]
struct Page {
    name: String,
    version: Version,
    reading: Reading,
    cluster: Option<ClusterName>,
    spec: Option<Arc<RouteSpec>>,
    network: Option<NetworkId>,
    diagnostics: Vec<Diagnostic>,
}

/// A route book in a checkpoint. What labels say is read again, since the services are there too.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BookState {
    pages: BTreeMap<ServiceId, PageState>,
    attached: BTreeMap<ClusterName, BTreeSet<NetworkId>>,
    on: Option<Vec<IpRange>>,
    changes: BTreeMap<ClusterName, SpecChanges>,
    gone: BTreeMap<ServiceId, String>,
    diagnostics: BTreeSet<Diagnostic>,
    decisions: BTreeMap<ServiceId, Duration>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct PageState {
    cluster: Option<ClusterName>,
    spec: Option<Arc<RouteSpec>>,
    network: Option<NetworkId>,
    diagnostics: Vec<Diagnostic>,
}

impl RouteBook {
    /// For a checkpoint.
    pub(super) fn state(&self) -> BookState {
        let page = |page: &Page| PageState {
            cluster: page.cluster.clone(),
            spec: page.spec.clone(),
            network: page.network.clone(),
            diagnostics: page.diagnostics.clone(),
        };
        BookState {
            pages: self.pages.iter().map(|(id, of)| (id.clone(), page(of))).collect(),
            attached: self.attached.clone(),
            on: self.on.clone(),
            changes: self.changes.clone(),
            gone: self.gone.clone(),
            diagnostics: self.diagnostics.clone(),
            decisions: self.decisions.clone(),
        }
    }

    /// The book of a checkpoint; between two facts its pages are about the services of `world` as they are there.
    pub(super) fn from_state(state: BookState, world: &World) -> RouteBook {
        let page = |(id, page): (ServiceId, PageState)| {
            let service = world.services().get(&id)?;
            let page = Page {
                name: service.name.clone(),
                version: service.version,
                reading: read(service),
                cluster: page.cluster,
                spec: page.spec,
                network: page.network,
                diagnostics: page.diagnostics,
            };
            Some((id, page))
        };
        RouteBook {
            pages: state.pages.into_iter().filter_map(page).collect(),
            attached: state.attached,
            on: state.on,
            changes: state.changes,
            gone: state.gone,
            diagnostics: state.diagnostics,
            decisions: state.decisions,
        }
    }

    /// The networks that each cluster's proxies are on now; matters for services with several.
    pub fn set_attached(&mut self, attached: BTreeMap<ClusterName, BTreeSet<NetworkId>>) {
        self.attached = attached;
    }

    /// The networks that this process is on, where it is the proxy as well.
    pub fn set_own_networks(&mut self, on: Vec<IpRange>) {
        self.on = Some(on);
    }

    /// The services with labels of ours.
    pub fn services(&self) -> impl Iterator<Item = &ServiceId> {
        self.pages.keys()
    }

    /// The networks over which the services of `cluster` are reached, those of their older tasks included.
    pub fn networks_of(&self, cluster: &ClusterName) -> BTreeSet<NetworkId> {
        let pages = self
            .pages
            .values()
            .filter(|page| page.cluster.as_ref() == Some(cluster));
        let of_page = |page: &Page| {
            let endpoints = page.spec.iter().flat_map(|spec| &spec.endpoints);
            let legs = endpoints.filter_map(|endpoint| endpoint.via.clone());
            page.network.clone().into_iter().chain(legs).collect::<Vec<_>>()
        };
        pages.flat_map(of_page).collect()
    }

    /// The secrets that the services of `cluster` want, by name, whether or not they exist.
    pub fn secrets_of(&self, cluster: &ClusterName) -> BTreeSet<String> {
        let specs = self.pages_of(cluster).filter_map(|(_, page)| page.spec.as_ref());
        specs.flat_map(|spec| spec.secrets()).map(String::from).collect()
    }

    /// The services of `cluster` that want the secret `name`.
    pub fn users_of<'a>(&'a self, cluster: &'a ClusterName, name: &'a str) -> impl Iterator<Item = &'a ServiceId> {
        let uses = move |page: &Page| page.spec.as_ref().is_some_and(|spec| spec.secrets().contains(name));
        self.pages_of(cluster)
            .filter(move |(_, page)| uses(page))
            .map(|(id, _)| id)
    }

    fn pages_of<'a>(&'a self, cluster: &'a ClusterName) -> impl Iterator<Item = (&'a ServiceId, &'a Page)> {
        self.pages
            .iter()
            .filter(move |(_, page)| page.cluster.as_ref() == Some(cluster))
    }

    /// What each service with labels of ours claims.
    pub fn claims(&self) -> Vec<OwnedClaim> {
        let claim = |page: &Page| OwnedClaim {
            service: page.name.clone(),
            hosts: page.reading.hosts.clone(),
            label: page.reading.hosts_label.clone(),
            diagnostics: page.diagnostics.clone(),
        };
        self.pages.values().map(claim).collect()
    }

    /// All findings that are known, sorted.
    pub fn diagnostics(&self) -> &BTreeSet<Diagnostic> {
        &self.diagnostics
    }

    /// Looks at `which` services again.
    pub fn refresh(&mut self, world: &World, settings: &Settings, which: &BTreeSet<ServiceId>) {
        for id in which {
            let Some(service) = world.services().get(id) else {
                if let Some(page) = self.pages.remove(id) {
                    self.gone.insert(id.clone(), page.name);
                    self.change(id, page.cluster, None, None);
                }
                continue;
            };
            let old = self.pages.remove(id);
            let is_new_version = old.as_ref().is_none_or(|page| page.version != service.version);
            let (reading, before, cluster_before) = match old {
                Some(page) if page.version == service.version => (page.reading, page.spec, page.cluster),
                Some(page) => (read(service), page.spec, page.cluster),
                None => (read(service), None, None),
            };
            if reading.route.is_none() && reading.diagnostics.is_empty() && before.is_none() {
                continue; // none of ours
            }
            let mut page = Page {
                name: service.name.clone(),
                version: service.version,
                diagnostics: reading.diagnostics.clone(),
                cluster: None,
                spec: None,
                network: None,
                reading,
            };
            if let Some(route) = &page.reading.route {
                match settings.clusters.get(&route.cluster) {
                    None => {
                        page.diagnostics
                            .push(unknown_cluster(service, &route.cluster, settings.clusters.keys()));
                    }
                    Some(cluster) => {
                        let none = BTreeSet::new();
                        let reach = Reach {
                            attached: self.attached.get(&route.cluster).unwrap_or(&none),
                            policy: &cluster.networks,
                            publish_mode: cluster.publish_mode,
                            on: self.on.as_deref(),
                        };
                        let (networks, nodes) = (world.networks(), world.nodes());
                        let defaulted = route.with_defaults(cluster);
                        let route = defaulted.as_ref().unwrap_or(route);
                        let resolved = resolve(route, service, world.tasks_of(id), networks, nodes, &reach);
                        page.diagnostics.extend(resolved.diagnostics);
                        page.diagnostics.extend(about_tls(route, service, cluster, world));
                        page.spec = resolved.spec.map(Arc::new);
                        page.network = resolved.network;
                        page.cluster = Some(route.cluster.clone());
                        if cluster.publish_mode == PublishMode::Ingress && cluster.proxy.trusted_proxies.is_empty() {
                            let found = hidden_clients(route, service);
                            if found.iter().any(|finding| finding.severity == Severity::Error) {
                                (page.spec, page.network) = (None, None);
                            }
                            page.diagnostics.extend(found);
                        }
                    }
                }
            }
            let after = page.spec.clone();
            let tasks = world.tasks_of(id);
            let decided = decided_at(before.as_deref(), after.as_deref(), service, is_new_version, tasks);
            self.decisions.extend(decided.map(|at| (id.clone(), at)));
            if cluster_before != page.cluster {
                self.change(id, cluster_before, None, None);
                self.change(id, page.cluster.clone(), None, after);
            } else {
                self.change(id, page.cluster.clone(), before, after);
            }
            if page.reading.route.is_some() || !page.diagnostics.is_empty() {
                self.pages.insert(id.clone(), page);
            }
        }
    }

    /// What has changed since this was asked last, by service cluster.
    pub fn take_changes(&mut self) -> BTreeMap<ClusterName, SpecChanges> {
        core::mem::take(&mut self.changes)
    }

    /// When Docker decided these changes, as far as it says (see `decision`).
    pub fn take_decisions(&mut self) -> BTreeMap<ServiceId, Duration> {
        core::mem::take(&mut self.decisions)
    }

    /// A few words on which services changed.
    pub fn cause<'a>(&self, services: impl Iterator<Item = &'a ServiceId>) -> String {
        let names: Vec<&str> = services
            .map(|id| {
                let page = self.pages.get(id).map(|page| page.name.as_str());
                page.or(self.gone.get(id).map(String::as_str)).unwrap_or(id.as_str())
            })
            .collect();
        match names[..] {
            [] => "settings".to_string(),
            [one] => format!("service {one}"),
            [one, two] => format!("services {one}, {two}"),
            [one, two, ref more @ ..] => format!("services {one}, {two} and {} more", more.len()),
        }
    }

    /// Gathers all findings, those across services included, and returns the ones that were not known before.
    pub fn take_new_diagnostics(&mut self, publishers: &BTreeMap<ClusterName, Publisher>) -> Vec<Diagnostic> {
        self.gone.clear();
        let mut all: BTreeSet<Diagnostic> = self
            .pages
            .values()
            .flat_map(|page| page.diagnostics.iter().cloned())
            .collect();
        for cluster in publishers.keys() {
            let pages = self
                .pages
                .iter()
                .filter(|(_, page)| page.cluster.as_ref() == Some(cluster));
            let specs = pages
                .filter_map(|(id, page)| Some((id.clone(), page.spec.clone()?)))
                .collect();
            all.extend(conflicts(&specs));
        }
        let new = all.difference(&self.diagnostics).cloned().collect();
        self.diagnostics = all;
        new
    }

    fn change(
        &mut self,
        id: &ServiceId,
        cluster: Option<ClusterName>,
        before: Option<Arc<RouteSpec>>,
        after: Option<Arc<RouteSpec>>,
    ) {
        let Some(cluster) = cluster else { return };
        if before.is_none() || before != after {
            self.changes.entry(cluster).or_default().insert(id.clone(), after);
        }
    }
}

/// The networks that each cluster's proxy service is on now.
pub(super) fn attached(world: &World) -> BTreeMap<ClusterName, BTreeSet<NetworkId>> {
    let mut attached: BTreeMap<ClusterName, BTreeSet<NetworkId>> = BTreeMap::new();
    let labels = world.managed().values().map(|service| &service.shape.labels);
    let proxies = world
        .managed()
        .values()
        .zip(labels)
        .filter(|(_, labels)| labels.get(ROLE_LABEL).is_some_and(|role| role == PROXY_ROLE));
    for (service, labels) in proxies {
        if let Some(cluster) = labels.get(CLUSTER_LABEL) {
            let networks = service.shape.networks.iter().map(|id| NetworkId::from(id.as_str()));
            attached
                .entry(ClusterName::from(cluster.as_str()))
                .or_default()
                .extend(networks);
        }
    }
    attached
}

/// The secrets that Docker has and that a label may name.
pub fn usable_secrets(world: &World) -> BTreeSet<String> {
    let secrets = world.secrets().values().filter(|secret| may_be_used(secret));
    secrets.map(|secret| secret.name.clone()).collect()
}

/// Secrets of Tidegate itself hold the keys of the control network: no label may have them brought where users come in.
fn may_be_used(secret: &Secret) -> bool {
    secret.name != PROXY_FILE && !secret.labels.keys().any(|key| key.starts_with(keys::PREFIX))
}

/// What a proxy found wrong with a secret that `service` names.
pub fn about_secret(service: &Service, finding: &Finding) -> Diagnostic {
    // Labels of others may have the same text for reasons of their own.
    let labels = service.labels.iter().filter(|(key, _)| keys::split(key).is_some());
    let named = labels.filter(|(_, value)| value.split(',').any(|part| part.trim() == finding.secret));
    // A label that names it in a way of its own is told without it.
    let (key, value) = named
        .min()
        .map_or(("", ""), |(key, value)| (key.as_str(), value.as_str()));
    let (problem, remedy) = (finding.problem.as_str(), finding.remedy.as_str());
    Diagnostic::new(service, key, value, Severity::Warning, problem, remedy)
}

/// What the Swarm and the cluster's settings say about a route's TLS.
fn about_tls(route: &LabelledRoute, service: &Service, cluster: &ClusterSettings, world: &World) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut say = |label: &str, problem: String, remedy: &str| {
        let (key, value) = keys::as_written(service, label);
        found.push(Diagnostic::new(
            service,
            &key,
            value,
            Severity::Warning,
            problem,
            remedy,
        ));
    };
    if cluster.https_port == 0 {
        let label = match () {
            () if route.tls.passthrough => "ssl_passthrough",
            () if route.tls.only => "ssl_only",
            () if !route.tls.certificates.is_empty() => "ssl_cert",
            () => return found,
        };
        say(
            label,
            format!("the service cluster {} has no port for HTTPS", route.cluster),
            "set https_port of the cluster, or take this label away",
        );
    }
    if !world.has_listed(Lane::Secrets) {
        return found;
    }
    if let Some(auth) = &route.basic_auth {
        let name = &auth.secret;
        let why = match world.secrets().values().find(|secret| secret.name == *name) {
            Some(secret) if may_be_used(secret) => None,
            Some(_) => Some(format!("the secret {name} is Tidegate's own and is never used here")),
            None => Some(format!("there is no secret {name}")),
        };
        if let Some(why) = why {
            say(
                "basic_auth",
                format!("{why}: clients are answered 503, unless proxies have its last good users"),
                "create the secret, or name another; in a stack its name is <stack>_<secret>",
            );
        }
    }
    for certificate in &route.tls.certificates {
        let labels = ["ssl_cert", "ssl_key"];
        for (label, name) in labels.into_iter().zip(certificate.secrets()) {
            let problem = match world.secrets().values().find(|secret| secret.name == name) {
                Some(secret) if may_be_used(secret) => continue,
                Some(_) => format!("the secret {name} is Tidegate's own and is never used here"),
                None => format!(
                    "there is no secret {name}: the hosts keep their last good certificate, if they have one, and plain HTTP"
                ),
            };
            say(
                label,
                problem,
                "create the secret, or name another; in a stack its name is <stack>_<secret>",
            );
        }
    }
    found
}
