//! What a table is made of: rules, and the pools that they lead to.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::id::ServiceId;
use crate::route::spec::{Balance, EndpointSpec, HostPattern, PathPrefix, RouteLimits, UpstreamProtocol};

/// Where the requests of one host and path go, and why.
///
/// Holds the key of its pool, not the pool: a service with 10,000 hosts has one pool, and a change of its endpoints
/// changes none of its rules. [`RouteTable::pool`](super::RouteTable::pool) has the pool itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which hosts fall under it.
    pub host: RuleHost,
    /// Which paths fall under it.
    pub path: PathPrefix,
    /// Take the prefix away before forwarding, see [`strip`](super::strip).
    pub strip_path: bool,
    /// The pool of all its services.
    pub pool: PoolKey,
    /// The services that claim this host and path, oldest first; the settings of the first one hold.
    pub services: Arc<[ServiceRef]>,
}

impl fmt::Display for Rule {
    /// `shop.example.org/app`, `*.example.org/`, `default/`: unique within a table, fit for logs and metrics.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path)
    }
}

/// The host part of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleHost {
    /// Every host that no pattern covers, and requests without a host.
    Default,
    /// An exact name or a wildcard.
    Pattern(HostPattern),
}

impl fmt::Display for RuleHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuleHost::Default => f.write_str("default"),
            RuleHost::Pattern(pattern) => pattern.fmt(f),
        }
    }
}

/// A service as rules and pools name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceRef {
    /// The service.
    pub id: ServiceId,
    /// Its name, for people.
    pub name: Arc<str>,
}

/// The set of services behind a pool: their ids, sorted, joined by `+`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PoolKey(Arc<str>);

impl PoolKey {
    /// The key for `services`, in any order.
    pub fn of<'a>(services: impl Iterator<Item = &'a ServiceId>) -> Self {
        let mut ids: Vec<&str> = services.map(ServiceId::as_str).collect();
        ids.sort_unstable();
        ids.dedup();
        PoolKey(Arc::from(ids.join("+")))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The endpoints of one or more services that share their hosts and path, and how they are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// Its identity: survives every change but that of the set of services.
    pub key: PoolKey,
    /// The services, oldest first; the settings of the first one hold.
    pub services: Arc<[ServiceRef]>,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// What is spoken to the endpoints.
    pub protocol: UpstreamProtocol,
    /// Limits; what is unset is taken from the cluster's settings.
    pub limits: RouteLimits,
    /// All endpoints of all services, weight 1 each, sorted by id, each id once.
    pub endpoints: Vec<PoolEndpoint>,
}

impl PoolSpec {
    /// The names of the services, oldest first, joined by `+`: for logs and metrics.
    pub fn name(&self) -> String {
        let names: Vec<&str> = self.services.iter().map(|service| &*service.name).collect();
        names.join("+")
    }
}

/// An endpoint and the service that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolEndpoint {
    /// The service that owns it.
    pub service: ServiceRef,
    /// Where it is and whether it leaves.
    pub spec: EndpointSpec,
}
