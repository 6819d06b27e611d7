//! The immutable route table of one service cluster, compiled from its specs.
//!
//! Invariants: the table depends on the specs alone, not on their order or on the tables before it
//! (`apply` equals `compile`); every rule leads to a pool of the table, and every pool has a rule.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::id::ServiceId;
use crate::route::host;
use crate::route::path::{self, RequestPath};
use crate::route::redirect::{RedirectRule, Scheme};
use crate::route::rule::{PoolKey, PoolSpec, Rule, RuleHost, ServiceRef};
use crate::route::shards::Shards;
use crate::route::spec::{CertificateRef, HostPattern, PathPrefix, RouteSpec};
use crate::settings::proxy::ProxySettings;
use crate::snapshot::model::Snapshot;

mod canonical;
mod members;

use members::{Members, build_pool, claims_the_same};

/// Answers for every request which rule it falls under. Share it in an [`Arc`]; a change makes a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTable {
    settings: ProxySettings,
    specs: BTreeMap<ServiceId, Arc<RouteSpec>>,
    /// By host name.
    exact: Shards<Arc<HostRules>>,
    /// By what follows `*.`.
    wildcard: Shards<Arc<HostRules>>,
    default: Option<Arc<HostRules>>,
    pools: BTreeMap<PoolKey, Arc<PoolSpec>>,
    /// How many rules lead to each pool.
    uses: BTreeMap<PoolKey, usize>,
}

/// The rules of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct HostRules {
    /// Sorted by path, each path once.
    rules: Vec<Arc<Rule>>,
    /// Segments of the longest path.
    depth_max: usize,
    /// The redirects of this host, of all services, the oldest first; of one service, by scheme.
    redirects: Vec<Arc<RedirectRule>>,
    /// The oldest service that names the host, be it to serve or to redirect it: the only one whose redirects hold.
    oldest: Option<ServiceId>,
    passthrough: Option<Arc<Passthrough>>,
    /// Set where TLS ends here; never beside `passthrough`.
    certificates: Option<Arc<HostCertificates>>,
}

/// A host whose TLS connections are passed on as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Passthrough {
    /// Leads to the pool of the oldest service that claims the host so.
    rule: Arc<Rule>,
    /// All of them, so that the next one takes over.
    claimants: Vec<ServiceId>,
}

/// What the labels name for a host that TLS ends for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostCertificates {
    host: RuleHost,
    pairs: Arc<[CertificateRef]>,
}

/// What a request falls under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// Forward to the rule's pool. The rule says why: host, path and services.
    Forward(&'a Arc<Rule>),
    /// Send the client elsewhere, see [`RedirectRule::location`].
    Redirect(&'a Arc<RedirectRule>),
    /// The host is served over TLS alone, which is passed through: answer with a redirect to HTTPS, or with 503 (§2.2).
    Passthrough {
        /// Whether to redirect.
        redirect: bool,
    },
    /// Nobody claims the host and there is no default backend.
    UnknownHost,
    /// The host is claimed, this path of it is not.
    UnknownPath,
}

/// What a TLS connection falls under, by the name that its client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsDecision<'a> {
    /// Pass it on to the rule's pool as it is.
    Passthrough(&'a Arc<Rule>),
    /// End TLS here with one of these, then route by host and path.
    Terminate {
        /// The host that decides; never [`RuleHost::Default`] for a name that a pattern with TLS covers.
        host: &'a RuleHost,
        /// What its labels name.
        certificates: &'a [CertificateRef],
    },
    /// Nobody claims the name over TLS.
    UnknownName,
}

impl RouteTable {
    /// The table of a snapshot.
    pub fn compile(snapshot: &Snapshot) -> RouteTable {
        let all = snapshot.routes.keys().cloned().collect();
        RouteTable::default().apply(snapshot, &all)
    }

    /// The table of `snapshot`, which differs from this table's in the services `changed` (added, changed or gone) and
    /// perhaps in its settings. Equal to [`RouteTable::compile`] and costs what it changes.
    pub fn apply(&self, snapshot: &Snapshot, changed: &BTreeSet<ServiceId>) -> RouteTable {
        let mut next = self.clone();
        next.settings = snapshot.settings.clone();
        let mut touched: BTreeSet<&ServiceId> = BTreeSet::new();
        let mut moved: BTreeSet<&ServiceId> = BTreeSet::new();
        let mut claims: BTreeMap<&HostPattern, Vec<&ServiceId>> = BTreeMap::new();
        let mut default_moved = false;
        for id in changed {
            let (old, new) = (self.specs.get(id), snapshot.routes.get(id));
            if old == new {
                continue;
            }
            touched.insert(id);
            match new {
                Some(spec) => next.specs.insert(id.clone(), Arc::clone(spec)),
                None => next.specs.remove(id),
            };
            if claims_the_same(old, new) {
                continue;
            }
            moved.insert(id);
            default_moved |= [old, new].into_iter().flatten().any(|spec| spec.default_backend);
            for host in old.iter().flat_map(|spec| named_hosts(spec)) {
                claims.entry(host).or_default();
            }
            for host in new.iter().flat_map(|spec| named_hosts(spec)) {
                let services = claims.entry(host).or_default();
                if services.last() != Some(&id) {
                    services.push(id);
                }
            }
        }
        let mut members = Members::default();
        for (host, newcomers) in claims {
            next.rebuild_host(host, &newcomers, &moved, &mut members);
        }
        if default_moved {
            next.rebuild_default(&mut members);
        }
        next.rebuild_pools(&touched, &members);
        next
    }

    /// Which rule a request without TLS falls under: `host` as the client sent it (`Host` or `:authority`; `None` where
    /// there is none, which only the default backend serves), `path` as it sent it, with or without query.
    pub fn route(&self, host: Option<&str>, path: &str) -> Decision<'_> {
        self.route_over(Scheme::Http, host, path)
    }

    /// Which rule a request falls under that came over `scheme`.
    pub fn route_over(&self, scheme: Scheme, host: Option<&str>, path: &str) -> Decision<'_> {
        let Some(rules) = self.rules_of(scheme, host) else {
            return Decision::UnknownHost;
        };
        if let Some(redirect) = rules.redirect(scheme) {
            return Decision::Redirect(redirect);
        }
        match rules.find(&path::read(path), self.settings.raw_prefix) {
            Some(rule) => Decision::Forward(rule),
            None => match &rules.passthrough {
                Some(passthrough) if rules.rules.is_empty() => Decision::Passthrough {
                    redirect: passthrough.rule.tls_only,
                },
                Some(_) | None => Decision::UnknownPath,
            },
        }
    }

    /// What a TLS connection falls under: `name` is the server name of the client's first message, `None` without one. Only
    /// hosts with a certificate or passthrough count here, so a wildcard's certificate serves names below it that have none.
    pub fn tls(&self, name: Option<&str>) -> TlsDecision<'_> {
        let normal = name.and_then(host::normalise);
        let named = normal
            .as_ref()
            .and_then(|name| self.entry_for(name.as_str(), HostRules::has_tls));
        let Some(rules) = named.or(self.default.as_deref()) else {
            return TlsDecision::UnknownName;
        };
        match (&rules.passthrough, &rules.certificates) {
            (Some(passthrough), _) => TlsDecision::Passthrough(&passthrough.rule),
            (None, Some(certificates)) => TlsDecision::Terminate {
                host: &certificates.host,
                certificates: &certificates.pairs,
            },
            (None, None) => TlsDecision::UnknownName,
        }
    }

    /// Every host that TLS ends for at the proxy, with the certificates that its labels name.
    pub fn certificates(&self) -> BTreeMap<RuleHost, Arc<[CertificateRef]>> {
        let all = self.hosts().into_iter().filter_map(|rules| rules.certificates.as_ref());
        all.map(|certificates| (certificates.host.clone(), Arc::clone(&certificates.pairs)))
            .collect()
    }

    /// Every Docker secret that a spec of the table wants, by name.
    pub fn secrets(&self) -> BTreeSet<String> {
        let all = self.specs.values().flat_map(|spec| spec.secrets());
        all.map(String::from).collect()
    }

    /// All pools.
    pub fn pools(&self) -> &BTreeMap<PoolKey, Arc<PoolSpec>> {
        &self.pools
    }

    /// The pool of a rule of this table. A pool that an `apply` left alone is the same [`Arc`] as before.
    pub fn pool(&self, key: &PoolKey) -> Option<&Arc<PoolSpec>> {
        self.pools.get(key)
    }

    /// What the proxies serve by.
    pub fn settings(&self) -> &ProxySettings {
        &self.settings
    }

    /// The specs that the table was compiled from.
    pub fn specs(&self) -> &BTreeMap<ServiceId, Arc<RouteSpec>> {
        &self.specs
    }

    /// All rules: exact hosts, wildcards, the default, each by host and path.
    pub fn rules(&self) -> Vec<&Arc<Rule>> {
        self.hosts().into_iter().flat_map(|rules| &rules.rules).collect()
    }

    /// The rules of hosts whose TLS is passed through, in the same order.
    pub fn passthrough_rules(&self) -> Vec<&Arc<Rule>> {
        let hosts = self.hosts().into_iter();
        hosts
            .filter_map(|rules| rules.passthrough.as_ref().map(|passthrough| &passthrough.rule))
            .collect()
    }

    /// All redirects that hold, by host: exact ones, then wildcards.
    pub fn redirects(&self) -> Vec<&Arc<RedirectRule>> {
        let hosts = self.hosts().into_iter();
        hosts.flat_map(HostRules::redirects_that_hold).collect()
    }

    /// All entries: exact hosts, wildcards, the default.
    fn hosts(&self) -> Vec<&HostRules> {
        let mut hosts: Vec<_> = self.exact.iter().collect();
        hosts.sort_unstable_by_key(|(host, _)| *host);
        let mut suffixes: Vec<_> = self.wildcard.iter().collect();
        suffixes.sort_unstable_by_key(|(suffix, _)| *suffix);
        let named = hosts.into_iter().chain(suffixes).map(|(_, rules)| rules);
        named.chain(&self.default).map(|rules| &**rules).collect()
    }

    /// The rules of the one entry that decides for `host`.
    fn rules_of(&self, scheme: Scheme, host: Option<&str>) -> Option<&HostRules> {
        // A host that is only redirected, and only over the other scheme, is as good as not named.
        let serves = |rules: &HostRules| rules.all_rules().next().is_some() || rules.redirect(scheme).is_some();
        let normal = host.and_then(host::normalise);
        let named = normal.as_ref().and_then(|host| self.entry_for(host.as_str(), serves));
        named.or(self.default.as_deref())
    }

    /// The first of the entries that cover a normalised name and are wanted: the exact one, then wildcards from the longest on.
    fn entry_for(&self, host: &str, wanted: impl Fn(&HostRules) -> bool) -> Option<&HostRules> {
        if let Some(rules) = self.exact.get(host).filter(|rules| wanted(rules)) {
            return Some(rules);
        }
        if self.wildcard.is_empty() {
            return None;
        }
        // One label at least stands for the `*`; the longest suffix comes first.
        let mut rest = host;
        while let Some((label, suffix)) = rest.split_once('.') {
            if label.is_empty() {
                break;
            }
            if let Some(rules) = self.wildcard.get(suffix).filter(|rules| wanted(rules)) {
                return Some(rules);
            }
            rest = suffix;
        }
        None
    }

    fn rebuild_host(
        &mut self,
        pattern: &HostPattern,
        newcomers: &[&ServiceId],
        moved: &BTreeSet<&ServiceId>,
        members: &mut Members,
    ) {
        let (map, key) = match pattern.wildcard_suffix() {
            Some(suffix) => (&mut self.wildcard, suffix),
            None => (&mut self.exact, pattern.as_str()),
        };
        let old = map.get(key).map(Arc::clone).unwrap_or_default();
        let mut old_services: Vec<&ServiceId> = Vec::new();
        for service in old.rules.iter().flat_map(|rule| rule.services.iter()) {
            old_services.push(&service.id);
        }
        let passed = old.passthrough.iter().flat_map(|passthrough| &passthrough.claimants);
        for id in old.redirects.iter().map(|redirect| &redirect.service.id).chain(passed) {
            if !old_services.contains(&id) {
                old_services.push(id);
            }
        }
        let stay = old_services.into_iter().filter(|id| !moved.contains(id));
        let mut by_path: BTreeMap<PathPrefix, Vec<ServiceId>> = BTreeMap::new();
        let mut named_by: Vec<&RouteSpec> = Vec::new();
        let mut passing: Vec<&RouteSpec> = Vec::new();
        for id in stay.chain(newcomers.iter().copied()) {
            let Some(spec) = self.specs.get(id) else { continue };
            named_by.push(spec);
            let is_redirected = spec.redirects.iter().any(|redirect| redirect.host == *pattern);
            if is_redirected && !spec.hosts.contains(pattern) {
                continue;
            }
            if spec.tls.passthrough {
                passing.push(spec);
            } else {
                by_path.entry(spec.path.clone()).or_default().push(id.clone());
            }
        }
        let host = RuleHost::Pattern(pattern.clone());
        let mut new = HostRules::build(&host, &by_path, &self.specs, members);
        new.learn_tls(&host, passing, &named_by, &self.specs, members);
        new.learn_redirects(pattern, named_by);
        if new.is_empty() {
            map.remove(key);
        } else {
            map.insert(key, Arc::new(new.clone()));
        }
        self.count_uses(&old, &new);
    }

    /// Row 21: of several default backends, the oldest serves.
    fn rebuild_default(&mut self, members: &mut Members) {
        let oldest = self
            .specs
            .iter()
            .filter(|(_, spec)| spec.default_backend)
            .min_by_key(|(id, spec)| (&spec.created_at, *id));
        let mut by_path = BTreeMap::new();
        let mut passing: Vec<&RouteSpec> = Vec::new();
        let named_by: Vec<&RouteSpec> = oldest.iter().map(|(_, spec)| &***spec).collect();
        match oldest {
            Some((_, spec)) if spec.tls.passthrough => passing.push(spec),
            Some((id, spec)) => {
                by_path.insert(spec.path.clone(), alloc::vec![id.clone()]);
            }
            None => {}
        }
        let host = RuleHost::Default;
        let mut new = HostRules::build(&host, &by_path, &self.specs, members);
        new.learn_tls(&host, passing, &named_by, &self.specs, members);
        let old = self.default.take().unwrap_or_default();
        self.count_uses(&old, &new);
        if !new.is_empty() {
            self.default = Some(Arc::new(new));
        }
    }

    fn count_uses(&mut self, old: &HostRules, new: &HostRules) {
        for rule in new.all_rules() {
            *self.uses.entry(rule.pool.clone()).or_default() += 1;
        }
        for rule in old.all_rules() {
            if let Some(count) = self.uses.get_mut(&rule.pool) {
                *count -= 1;
                if *count == 0 {
                    self.uses.remove(&rule.pool);
                    self.pools.remove(&rule.pool);
                }
            }
        }
    }

    /// Makes the pools that are new, and those of which a service changed.
    fn rebuild_pools(&mut self, touched: &BTreeSet<&ServiceId>, members: &Members) {
        let mut stale: BTreeMap<PoolKey, Arc<[ServiceRef]>> = members
            .by_key
            .iter()
            .filter(|(key, _)| self.uses.contains_key(*key))
            .map(|(key, services)| (key.clone(), Arc::clone(services)))
            .collect();
        for pool in self.pools.values() {
            if pool.services.iter().any(|service| touched.contains(&service.id)) {
                stale
                    .entry(pool.key.clone())
                    .or_insert_with(|| Arc::clone(&pool.services));
            }
        }
        for (key, services) in stale {
            let pool = build_pool(&key, services, &self.specs);
            if self.pools.get(&key).is_none_or(|old| **old != pool) {
                self.pools.insert(key, Arc::new(pool));
            }
        }
    }

    /// The paths of the host entry that would decide for `host`, for explanations.
    pub(super) fn rules_for_host(&self, scheme: Scheme, host: Option<&str>) -> Option<&[Arc<Rule>]> {
        self.rules_of(scheme, host).map(|rules| &*rules.rules)
    }

    /// All host patterns, sorted by the text that follows a `*.`, for suggestions.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &HostPattern> {
        let entries = self.exact.iter().chain(self.wildcard.iter());
        entries.filter_map(|(_, rules)| {
            let redirected = rules.redirects.first().map(|rule| &rule.redirect.host);
            match rules.all_rules().next().map(|rule| &rule.host) {
                Some(RuleHost::Pattern(pattern)) => Some(pattern),
                Some(RuleHost::Default) => None,
                None => redirected,
            }
        })
    }
}

impl HostRules {
    fn build(
        host: &RuleHost,
        by_path: &BTreeMap<PathPrefix, Vec<ServiceId>>,
        specs: &BTreeMap<ServiceId, Arc<RouteSpec>>,
        members: &mut Members,
    ) -> HostRules {
        let mut rules = Vec::with_capacity(by_path.len());
        let mut depth_max = 0;
        for (path, ids) in by_path {
            let (pool, services) = members.of(ids, specs);
            let oldest = services.first().and_then(|service| specs.get(&service.id));
            if !path.is_root() {
                depth_max = depth_max.max(path.as_str().split('/').count() - 1);
            }
            rules.push(Arc::new(Rule {
                host: host.clone(),
                path: path.clone(),
                strip_path: oldest.is_some_and(|spec| spec.strip_path),
                tls_only: oldest.is_some_and(|spec| spec.tls.only),
                pool,
                services,
            }));
        }
        HostRules {
            rules,
            depth_max,
            ..HostRules::default()
        }
    }

    /// Takes the redirects of `host` out of the specs that name it.
    fn learn_redirects(&mut self, host: &HostPattern, mut named_by: Vec<&RouteSpec>) {
        if named_by.iter().all(|spec| spec.redirects.is_empty()) {
            return;
        }
        named_by.sort_unstable_by_key(|spec| (&spec.created_at, &spec.service));
        self.oldest = named_by.first().map(|spec| spec.service.clone());
        for spec in named_by {
            let redirects = spec.redirects.iter().filter(|redirect| redirect.host == *host);
            self.redirects.extend(redirects.map(|redirect| {
                Arc::new(RedirectRule {
                    redirect: redirect.clone(),
                    service: ServiceRef {
                        id: spec.service.clone(),
                        name: Arc::from(spec.name.as_str()),
                    },
                })
            }));
        }
        if self.redirects.is_empty() {
            self.oldest = None;
        }
    }

    fn is_empty(&self) -> bool {
        self.all_rules().next().is_none() && self.redirects.is_empty()
    }

    /// Takes what ends or passes TLS out of the specs that name `host`; `passing` are those that pass it through.
    fn learn_tls(
        &mut self,
        host: &RuleHost,
        mut passing: Vec<&RouteSpec>,
        named_by: &[&RouteSpec],
        specs: &BTreeMap<ServiceId, Arc<RouteSpec>>,
        members: &mut Members,
    ) {
        passing.sort_unstable_by_key(|spec| (&spec.created_at, &spec.service));
        passing.dedup_by_key(|spec| &spec.service);
        if let Some(oldest) = passing.first() {
            // §2.2: the pool of one service. Row 12: its certificates, and those of others, count for nothing.
            let (pool, services) = members.of(core::slice::from_ref(&oldest.service), specs);
            self.passthrough = Some(Arc::new(Passthrough {
                rule: Arc::new(Rule {
                    host: host.clone(),
                    path: PathPrefix::default(),
                    strip_path: false,
                    tls_only: oldest.tls.only,
                    pool,
                    services,
                }),
                claimants: passing.iter().map(|spec| spec.service.clone()).collect(),
            }));
            return;
        }
        // Row 11: those of the oldest service that names any.
        let with = named_by
            .iter()
            .filter(|spec| !spec.tls.passthrough && !spec.tls.certificates.is_empty());
        let oldest = with.min_by_key(|spec| (&spec.created_at, &spec.service));
        self.certificates = oldest.map(|spec| {
            Arc::new(HostCertificates {
                host: host.clone(),
                pairs: Arc::from(&*spec.tls.certificates),
            })
        });
    }

    fn has_tls(&self) -> bool {
        self.passthrough.is_some() || self.certificates.is_some()
    }

    /// Those for HTTP and the one for passthrough.
    fn all_rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules
            .iter()
            .chain(self.passthrough.as_ref().map(|passthrough| &passthrough.rule))
    }

    /// Row 11: the oldest service that names the host decides whether it is redirected.
    fn redirects_that_hold(&self) -> impl Iterator<Item = &Arc<RedirectRule>> {
        let oldest = self.oldest.as_ref();
        self.redirects
            .iter()
            .filter(move |rule| Some(&rule.service.id) == oldest)
    }

    fn redirect(&self, scheme: Scheme) -> Option<&Arc<RedirectRule>> {
        self.redirects_that_hold().find(|rule| rule.redirect.scheme == scheme)
    }

    /// The rule with the longest prefix, of whole segments or, where it is `raw`, of letters (row 7).
    fn find(&self, path: &RequestPath<'_>, raw: bool) -> Option<&Arc<Rule>> {
        let path = match path {
            RequestPath::Normalised { text, .. } => text.as_str(),
            RequestPath::Plain(text) => text,
            RequestPath::RootOnly => return self.with_path("/"),
        };
        if raw {
            let mut longest_last = self.rules.iter().filter(|rule| path.starts_with(rule.path.as_str()));
            return longest_last.next_back();
        }
        let mut prefix = &path[..path::end_of_segments(path, self.depth_max)];
        while !prefix.is_empty() {
            if let Some(rule) = self.with_path(prefix) {
                return Some(rule);
            }
            prefix = prefix.rfind('/').map_or("", |at| &prefix[..at]);
        }
        self.with_path("/")
    }

    fn with_path(&self, path: &str) -> Option<&Arc<Rule>> {
        let at = self.rules.binary_search_by(|rule| rule.path.as_str().cmp(path)).ok()?;
        self.rules.get(at)
    }
}

/// The hosts that a spec names, to serve or to redirect them; some perhaps twice.
fn named_hosts(spec: &RouteSpec) -> impl Iterator<Item = &HostPattern> {
    spec.hosts
        .iter()
        .chain(spec.redirects.iter().map(|redirect| &redirect.host))
}
