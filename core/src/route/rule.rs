//! What a table is made of: rules, and the pools that they lead to.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::id::ServiceId;
use crate::request::origin::Origin;
use crate::route::active::ActiveChecks;
use crate::route::allow::IpRange;
use crate::route::edits::HeaderEdits;
use crate::route::spec::{
    Affinity, BackendTls, Balance, BasicAuth, Coding, EndpointSpec, HostPattern, PassiveChecks, PathPrefix,
    ProxyProtocol, RouteLimits, UpstreamProtocol,
};

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
    /// Plain HTTP is answered with a redirect to HTTPS.
    pub tls_only: bool,
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
    /// What endpoints get before the first byte of a connection that is passed on.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Limits; what is unset is taken from the cluster's settings.
    pub limits: RouteLimits,
    /// How a client comes back to the endpoint that it had.
    pub affinity: Affinity,
    /// Header fields that are changed on the way.
    pub edits: HeaderEdits,
    /// Lists of client addresses, each of which must have the client: so that no service is served to more than its own
    /// label allows. None: everybody.
    pub allow_ips: Vec<Vec<IpRange>>,
    /// How responses may be compressed, the most wanted first.
    pub compress: Vec<Coding>,
    /// Who clients must be, for each file of users: all must have them, as with `allow_ips`. None: anybody.
    pub basic_auth: Vec<BasicAuth>,
    /// What each of `services` says for itself, in their order.
    pub shares: Vec<ServiceShare>,
    /// All endpoints of all services, sorted by id, each id once.
    pub endpoints: Vec<PoolEndpoint>,
}

/// What holds for the endpoints of one service in a pool, whoever is the oldest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceShare {
    /// Its share of the requests; `None`: one per endpoint.
    pub weight: Option<u32>,
    /// When its endpoints are ejected.
    pub checks: PassiveChecks,
    /// How its endpoints are probed; `None`: only by what requests meet.
    pub active: Option<Arc<ActiveChecks>>,
    /// TLS to its endpoints; `None`: there is none.
    pub tls: Option<Arc<BackendTls>>,
}

impl PoolSpec {
    /// The names of the services, oldest first, joined by `+`: for logs and metrics.
    pub fn name(&self) -> String {
        let names: Vec<&str> = self.services.iter().map(|service| &*service.name).collect();
        names.join("+")
    }

    /// What the labels set beyond balance and protocol, line by line, for people; without what is as usual.
    pub fn settings_text(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match &self.affinity {
            Affinity::None => {}
            Affinity::Address => lines.push(String::from("sticky by the client's address")),
            Affinity::AppCookie(name) => lines.push(format!("sticky by the app's cookie {name}")),
            Affinity::OwnCookie(name) => lines.push(format!("sticky by our cookie {name}")),
        }
        let limits = &self.limits;
        let times = [
            ("connect timeout", limits.connect_timeout_ms),
            ("first byte timeout", limits.first_byte_timeout_ms),
            ("idle timeout", limits.idle_timeout_ms),
            ("hedged after", limits.hedge_after_ms),
        ];
        for (name, ms) in times {
            lines.extend(ms.map(|ms| format!("{name} {ms} ms")));
        }
        let shares = [
            ("ejected at most", limits.eject_max_percent),
            ("panic below", limits.panic_threshold_percent),
        ];
        for (name, percent) in shares {
            lines.extend(percent.map(|percent| format!("{name} {percent} %")));
        }
        lines.extend(limits.parked_max.map(|max| format!("{max} requests may wait")));
        lines.extend(limits.body_bytes_max.map(|bytes| match bytes {
            0 => String::from("no body limit"),
            _ => format!("body limit {bytes} bytes"),
        }));
        for ranges in &self.allow_ips {
            let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            lines.push(format!("clients {} only", ranges.join(", ")));
        }
        if !self.compress.is_empty() {
            let names: Vec<&str> = self.compress.iter().map(|coding| coding.name()).collect();
            lines.push(format!("responses compressed with {}", names.join(", ")));
        }
        lines.extend(
            self.basic_auth
                .iter()
                .map(|auth| format!("users of the secret {} only", auth.secret)),
        );
        lines.extend(self.edits.request.iter().map(|edit| format!("request {edit}")));
        lines.extend(self.edits.response.iter().map(|edit| format!("response {edit}")));
        lines.extend(self.proxy_protocol.map(|version| format!("PROXY protocol {version}")));
        for (service, share) in self.services.iter().zip(&self.shares) {
            let name = &service.name;
            lines.extend(share.tls.as_ref().map(|tls| format!("TLS to {name} {tls}")));
            lines.extend(share.weight.map(|weight| format!("weight {weight} of {name}")));
            lines.extend(
                share
                    .checks
                    .max_fails
                    .map(|fails| format!("max fails {fails} of {name}")),
            );
            let timeout = share.checks.fail_timeout_ms;
            lines.extend(timeout.map(|ms| format!("fail timeout {ms} ms of {name}")));
            lines.extend(
                share
                    .active
                    .as_ref()
                    .map(|checks| format!("probed by {checks}, {name}")),
            );
            let requests = share.checks.requests_max;
            lines.extend(requests.map(|max| format!("{max} requests per task of {name}")));
            let rate = share.checks.fail_rate_percent;
            lines.extend(rate.map(|percent| format!("fail rate {percent} % of {name}")));
            let statuses = share.checks.fail_on;
            lines.extend((!statuses.is_empty()).then(|| format!("fails on {statuses} of {name}")));
            let slow_start = share.checks.slow_start_ms;
            lines.extend(slow_start.map(|ms| format!("slow start {ms} ms of {name}")));
        }
        lines
    }

    /// Whether this client is served. One whose address is not known is not, where there are lists.
    pub fn allows(&self, client: Origin) -> bool {
        let mut lists = self.allow_ips.iter();
        lists.all(|ranges| client.is_known && ranges.iter().any(|range| range.contains(client.ip)))
    }
}

/// An endpoint and the service that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolEndpoint {
    /// The service that owns it.
    pub service: ServiceRef,
    /// Its position in [`PoolSpec::services`].
    pub owner: usize,
    /// Where it is and whether it leaves.
    pub spec: EndpointSpec,
}
