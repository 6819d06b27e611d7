//! Which services share a pool, and what that pool is made of.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::id::{EndpointId, ServiceId};
use crate::route::rule::{PoolEndpoint, PoolKey, PoolSpec, ServiceRef, ServiceShare};
use crate::route::spec::{BasicAuth, RouteSpec};

/// The sets of services that rules were made for, so that 10,000 hosts of one service share them.
#[derive(Default)]
pub(super) struct Members {
    pub(super) by_key: BTreeMap<PoolKey, Arc<[ServiceRef]>>,
    by_ids: BTreeMap<Vec<ServiceId>, PoolKey>,
}

impl Members {
    pub(super) fn of(
        &mut self,
        ids: &[ServiceId],
        specs: &BTreeMap<ServiceId, Arc<RouteSpec>>,
    ) -> (PoolKey, Arc<[ServiceRef]>) {
        let mut sorted = ids.to_owned();
        sorted.sort_unstable();
        sorted.dedup();
        let key = self
            .by_ids
            .entry(sorted)
            .or_insert_with_key(|ids| PoolKey::of(ids.iter()))
            .clone();
        let services = self.by_key.entry(key.clone()).or_insert_with(|| {
            let mut found: Vec<(&ServiceId, &RouteSpec)> =
                ids.iter().filter_map(|id| Some((id, &**specs.get(id)?))).collect();
            found.sort_unstable_by_key(|(id, spec)| (&spec.created_at, *id));
            found.dedup_by_key(|(id, _)| *id);
            let named = found.into_iter().map(|(id, spec)| ServiceRef {
                id: id.clone(),
                name: Arc::from(spec.name.as_str()),
            });
            named.collect()
        });
        (key, Arc::clone(services))
    }
}

/// Row 5: the union of the endpoints. Row 11: the settings of the oldest service, but for what each says for its own
/// endpoints, and for who may come in: that is for all services to allow.
pub(super) fn build_pool(
    key: &PoolKey,
    services: Arc<[ServiceRef]>,
    specs: &BTreeMap<ServiceId, Arc<RouteSpec>>,
) -> PoolSpec {
    let mut endpoints: BTreeMap<EndpointId, PoolEndpoint> = BTreeMap::new();
    let mut shares = Vec::with_capacity(services.len());
    let mut allow_ips = Vec::new();
    let mut basic_auth: Vec<BasicAuth> = Vec::new();
    for (owner, service) in services.iter().enumerate() {
        let spec = specs.get(&service.id);
        for endpoint in spec.iter().flat_map(|spec| &spec.endpoints) {
            endpoints.entry(endpoint.id.clone()).or_insert_with(|| PoolEndpoint {
                service: service.clone(),
                owner,
                spec: endpoint.clone(),
            });
        }
        shares.push(spec.map_or_else(ServiceShare::default, |spec| ServiceShare {
            weight: spec.weight,
            checks: spec.checks,
            active: spec.active.clone().map(Arc::new),
            tls: spec.backend_tls.clone().map(Arc::new),
        }));
        if let Some(ranges) = spec.and_then(|spec| spec.allow_ips.as_ref())
            && !allow_ips.contains(ranges)
        {
            allow_ips.push(ranges.clone());
        }
        if let Some(auth) = spec.and_then(|spec| spec.basic_auth.as_ref())
            && !basic_auth.iter().any(|other| other.secret == auth.secret)
        {
            basic_auth.push(auth.clone());
        }
    }
    let oldest = services.first().and_then(|service| specs.get(&service.id));
    PoolSpec {
        key: key.clone(),
        balance: oldest.map(|spec| spec.balance).unwrap_or_default(),
        protocol: oldest.map(|spec| spec.protocol).unwrap_or_default(),
        proxy_protocol: oldest.and_then(|spec| spec.tls.proxy_protocol),
        limits: oldest.map(|spec| spec.limits.clone()).unwrap_or_default(),
        affinity: oldest.map(|spec| spec.affinity.clone()).unwrap_or_default(),
        edits: oldest.map(|spec| spec.edits.clone()).unwrap_or_default(),
        allow_ips,
        basic_auth,
        compress: oldest.map(|spec| spec.compress.clone()).unwrap_or_default(),
        shares,
        services,
        endpoints: endpoints.into_values().collect(),
    }
}

/// Whether two specs of one service make the same rules.
pub(super) fn claims_the_same(old: Option<&Arc<RouteSpec>>, new: Option<&Arc<RouteSpec>>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => {
            old.hosts == new.hosts
                && old.default_backend == new.default_backend
                && old.path == new.path
                && old.strip_path == new.strip_path
                && old.redirects == new.redirects
                && old.tls == new.tls
                && old.name == new.name
                && old.created_at == new.created_at
        }
        (None, Some(_)) | (Some(_), None) => false,
        (None, None) => true,
    }
}
