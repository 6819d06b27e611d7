//! What a proxy needs to know about one service: the unit that labels are compiled to, that revisions carry, and that
//! tables are built from.
//!
//! Specs travel between versions: a field that is new must have a default, and a spec that an older proxy must not
//! serve without understanding names its feature in [`RouteSpec::requires`].

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, NodeId, ServiceId};

/// The routes of one service and the endpoints behind them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// The service.
    pub service: ServiceId,
    /// Its name, for people.
    pub name: String,
    /// `CreatedAt`: of two services that claim one thing, the older wins, then the smaller id.
    pub created_at: String,
    /// Hosts that are served, sorted, without duplicates.
    pub hosts: Vec<HostPattern>,
    /// Also serves every host that nobody claims.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub default_backend: bool,
    /// Path prefix under which the hosts are served; `/` where there is none.
    pub path: PathPrefix,
    /// Take the prefix away before forwarding.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub strip_path: bool,
    /// How an endpoint is chosen.
    #[serde(default)]
    pub balance: Balance,
    /// What is spoken to the endpoints.
    #[serde(default)]
    pub protocol: UpstreamProtocol,
    /// Limits of this route alone; what is unset is taken from the cluster's settings.
    #[serde(default, skip_serializing_if = "RouteLimits::is_empty")]
    pub limits: RouteLimits,
    /// Where requests can go, sorted by id.
    pub endpoints: Vec<EndpointSpec>,
    /// Features that a proxy must know to serve this spec.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub requires: BTreeSet<String>,
}

/// One place where requests can go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// A task's id, or `vip:<service>:<network>`.
    pub id: EndpointId,
    /// Where to connect.
    pub addr: SocketAddr,
    /// The node it runs on, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Whether it was told to stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<Leaving>,
}

/// An endpoint that was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// Milliseconds, from when the proxy learns of it, during which the endpoint may still serve as a pool's last
    /// resort, because its app does not know yet.
    pub last_resort_ms: u32,
}

/// A host name in a route: exact (`shop.example.org`) or every name below one (`*.example.org`, one or more labels).
/// Lower case, without trailing dot or port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostPattern(String);

impl HostPattern {
    /// Takes a pattern that was normalised and checked by `labels`; it is not checked again.
    pub fn from_normalised(text: String) -> Self {
        HostPattern(text)
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For `*.example.org`, the part `example.org`.
    pub fn wildcard_suffix(&self) -> Option<&str> {
        self.0.strip_prefix("*.")
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A path prefix, matched by whole segments: `/app` matches `/app` and `/app/x`, not `/application`.
/// Begins with `/`, has no trailing `/` unless it is `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PathPrefix(String);

impl Default for PathPrefix {
    fn default() -> Self {
        PathPrefix(String::from("/"))
    }
}

impl PathPrefix {
    /// Takes a prefix that was normalised and checked by `labels`; it is not checked again.
    pub fn from_normalised(text: String) -> Self {
        PathPrefix(text)
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether every path matches.
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How an endpoint is chosen among those that are ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Of two endpoints drawn at random, the one with fewer requests under way.
    #[default]
    LeastRequests,
    /// One after the other.
    RoundRobin,
}

/// What is spoken to the endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamProtocol {
    /// HTTP/1.1; HTTP/2 with prior knowledge for gRPC (`content-type: application/grpc…`).
    #[default]
    Auto,
    /// HTTP/2 with prior knowledge, without TLS.
    H2c,
    /// HTTP/1.1 always.
    Http1,
}

/// Limits of one route; `None` takes the cluster's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteLimits {
    /// Milliseconds that a request may wait for an endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub park_ms: Option<u32>,
}

impl RouteLimits {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
