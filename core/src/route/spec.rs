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

use crate::id::{EndpointId, NetworkId, NodeId, ServiceId};
use crate::route::active::ActiveChecks;
use crate::route::allow::IpRange;
use crate::route::edits::HeaderEdits;
use crate::route::redirect::Redirect;
use crate::route::statuses::ServerErrors;

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
    /// Hosts whose requests are sent elsewhere, sorted, each source once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redirects: Vec<Redirect>,
    /// How a client comes back to the endpoint that it had.
    #[serde(default, skip_serializing_if = "Affinity::is_none")]
    pub affinity: Affinity,
    /// The service's share of a pool that it has together with others; `None`: one per endpoint. 0: gets nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// When the service's endpoints are ejected; what is unset is taken from the cluster's settings.
    #[serde(default, skip_serializing_if = "PassiveChecks::is_empty")]
    pub checks: PassiveChecks,
    /// How its endpoints are probed; `None`: only by what requests meet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<ActiveChecks>,
    /// Header fields that are changed on the way.
    #[serde(default, skip_serializing_if = "HeaderEdits::is_empty")]
    pub edits: HeaderEdits,
    /// Client addresses that are served, sorted; `None`: all. Requires the feature [`FEATURE_ALLOW_IPS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_ips: Option<Vec<IpRange>>,
    /// Who must say who they are. Requires the feature [`FEATURE_BASIC_AUTH`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
    /// TLS between clients and the hosts.
    #[serde(default, skip_serializing_if = "ClientTls::is_empty")]
    pub tls: ClientTls,
    /// How responses may be compressed, the most wanted first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compress: Vec<Coding>,
    /// TLS between the proxies and the endpoints; `None`: there is none. Requires the feature [`FEATURE_TLS_BACKEND`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_tls: Option<BackendTls>,
    /// Where requests can go, sorted by id.
    pub endpoints: Vec<EndpointSpec>,
    /// Where Docker's DNS says which tasks there are, for when no controller is heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<DnsWitness>,
    /// Features that a proxy must know to serve this spec.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub requires: BTreeSet<String>,
}

/// The feature in [`RouteSpec::requires`] of a spec with [`RouteSpec::allow_ips`]: a proxy that does not know it would serve
/// everybody.
pub const FEATURE_ALLOW_IPS: &str = "allow_ips";

/// The feature in [`RouteSpec::requires`] of a spec with [`RouteSpec::basic_auth`]: a proxy that does not know it would serve
/// everybody.
pub const FEATURE_BASIC_AUTH: &str = "basic_auth";

/// Clients are asked for a user and a password.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BasicAuth {
    /// The Docker secret with users and hashes.
    pub secret: String,
    /// What clients are told that they log in to; `None`: the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
    /// The app sees `Authorization` too.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub forward: bool,
}

impl RouteSpec {
    /// A spec that claims nothing and has no endpoints, to be filled in: `RouteSpec { hosts, ..RouteSpec::new(..) }`.
    pub fn new(service: ServiceId, name: impl Into<String>, created_at: impl Into<String>) -> Self {
        RouteSpec {
            service,
            name: name.into(),
            created_at: created_at.into(),
            hosts: Vec::new(),
            default_backend: false,
            path: PathPrefix::default(),
            strip_path: false,
            balance: Balance::default(),
            protocol: UpstreamProtocol::default(),
            limits: RouteLimits::default(),
            redirects: Vec::new(),
            affinity: Affinity::default(),
            weight: None,
            checks: PassiveChecks::default(),
            active: None,
            edits: HeaderEdits::default(),
            allow_ips: None,
            basic_auth: None,
            tls: ClientTls::default(),
            compress: Vec::new(),
            backend_tls: None,
            endpoints: Vec::new(),
            witness: None,
            requires: BTreeSet::new(),
        }
    }

    /// Every Docker secret that the spec wants, by name. Proxies are given these and no others, so a field that names a
    /// secret belongs here.
    pub fn secrets(&self) -> BTreeSet<&str> {
        let certificates = self.tls.certificates.iter().flat_map(CertificateRef::secrets);
        let users = self.basic_auth.iter().map(|auth| auth.secret.as_str());
        let authorities = self.backend_tls.iter().filter_map(BackendTls::secret);
        certificates.chain(users).chain(authorities).collect()
    }
}

/// The feature in [`RouteSpec::requires`] of a spec with [`EndpointSpec::via`]: a proxy that does not know it would send
/// packets for the address wherever its default route leads.
pub const FEATURE_LEGS: &str = "legs";

/// How the addresses of a service's tasks are asked for in Docker's DNS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsWitness {
    /// `tasks.<service>`
    pub name: String,
    /// The port of each endpoint.
    pub port: u16,
    /// The network whose leg asks; `None`: the proxy asks itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<NetworkId>,
}

/// One place where requests can go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// A task's id, or `vip:<service>:<network>`.
    pub id: EndpointId,
    /// Where to connect.
    pub addr: SocketAddr,
    /// The network whose leg connects, unless the proxy is on it; `None`: the proxy connects. Requires the feature
    /// [`FEATURE_LEGS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<NetworkId>,
    /// The node it runs on, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Whether it was told to stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<Leaving>,
    /// Nobody can say at the moment whether this is still the service's: it serves on, but once a connection fails it is not
    /// tried again. Set by the proxy itself, see [`witness`](crate::witness); never sent.
    #[serde(skip)]
    pub unsure: bool,
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
    /// HTTP/1.1; HTTP/2 for gRPC (`content-type: application/grpc…`): with prior knowledge, or over TLS where the endpoint
    /// agrees to it (ALPN).
    #[default]
    Auto,
    /// HTTP/2 always: with prior knowledge, or over TLS.
    H2c,
    /// HTTP/1.1 always.
    Http1,
}

/// TLS between clients and the hosts of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientTls {
    /// Connections go to the endpoints as they are, by the name that the client asks for; plain HTTP is not served.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub passthrough: bool,
    /// How endpoints learn who is at the other end of a connection that is passed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Plain HTTP is answered with a redirect to HTTPS.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub only: bool,
    /// TLS ends at the proxy with one of these, whichever the client can use. Empty where `passthrough` is set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateRef>,
}

impl ClientTls {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What an older proxy must know not to serve the route wrongly.
    pub fn requires(&self) -> BTreeSet<String> {
        let features = [
            (self.passthrough, FEATURE_TLS_PASSTHROUGH),
            (self.only, FEATURE_TLS_ONLY),
            (self.proxy_protocol.is_some(), FEATURE_PROXY_PROTOCOL),
        ];
        let wanted = features.iter().filter(|(is_set, _)| *is_set);
        wanted.map(|(_, feature)| String::from(*feature)).collect()
    }
}

/// Feature of specs with [`ClientTls::passthrough`].
pub const FEATURE_TLS_PASSTHROUGH: &str = "tls-passthrough";
/// Feature of specs with [`ClientTls::only`].
pub const FEATURE_TLS_ONLY: &str = "tls-only";
/// Feature of specs with [`ClientTls::proxy_protocol`]: the app waits for a header that a proxy without it never sends.
pub const FEATURE_PROXY_PROTOCOL: &str = "proxy-protocol";
/// Feature of specs with [`RouteSpec::backend_tls`]: a proxy without it would send in the clear.
pub const FEATURE_TLS_BACKEND: &str = "tls-backend";

/// The header before the first byte of a connection (HAProxy's PROXY protocol).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl fmt::Display for ProxyProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProxyProtocol::V1 => "v1",
            ProxyProtocol::V2 => "v2",
        })
    }
}

/// TLS between the proxies and the endpoints of a service. What an endpoint cannot prove ends the connection; nothing is ever
/// sent in the clear instead.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BackendTls {
    /// Whose certificates are taken.
    pub trust: Trust,
    /// Sent as SNI where it is no address, and what a certificate must be for. Set wherever certificates are verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

/// Whose certificates are taken from endpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Anybody's: nobody can listen, and anybody could answer.
    Any,
    /// Those of the authorities that browsers trust.
    Web,
    /// Those of the authorities in this Docker secret, PEM.
    Secret(String),
}

impl BackendTls {
    /// The secret that it needs.
    pub fn secret(&self) -> Option<&str> {
        match &self.trust {
            Trust::Any | Trust::Web => None,
            Trust::Secret(name) => Some(name),
        }
    }
}

impl fmt::Display for BackendTls {
    /// `not verified, as shop.internal`, `verified by the authorities in shop.ca, as shop.internal`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.trust {
            Trust::Any => f.write_str("not verified")?,
            Trust::Web => f.write_str("verified by the authorities of the web")?,
            Trust::Secret(name) => write!(f, "verified by the authorities in {name}")?,
        }
        self.server_name
            .as_ref()
            .map_or(Ok(()), |name| write!(f, ", as {name}"))
    }
}

/// The Docker secrets with a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CertificateRef {
    /// The secret with the certificate chain, PEM.
    pub certificate: String,
    /// The secret with the key, PEM; `None` where it is in the same secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl CertificateRef {
    /// The names of the secrets.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        core::iter::once(self.certificate.as_str()).chain(self.key.as_deref())
    }
}

impl fmt::Display for CertificateRef {
    /// `shop.cert+shop.key`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.certificate)?;
        self.key.as_ref().map_or(Ok(()), |key| write!(f, "+{key}"))
    }
}

/// How a response is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coding {
    /// Brotli (RFC 7932).
    Br,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// All of them, the most wanted first: by what they save for the time that they take.
    pub const ALL: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

    /// The name in `Accept-Encoding` and `Content-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Br => "br",
            Coding::Gzip => "gzip",
            Coding::Zstd => "zstd",
        }
    }
}

/// How a client comes back to the endpoint that it had.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Affinity {
    /// Not at all: [`Balance`] decides each time.
    #[default]
    None,
    /// By its address.
    Address,
    /// By the value of this cookie, which the app sets.
    AppCookie(String),
    /// By the value of this cookie, which the proxy sets.
    OwnCookie(String),
}

impl Affinity {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Affinity::None
    }
}

/// Limits of one route; `None` takes the cluster's. All times in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteLimits {
    /// How long a request may wait for an endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub park_ms: Option<u32>,
    /// Bytes of a request body; 0: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes_max: Option<u64>,
    /// For a TCP connection to an endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout_ms: Option<u32>,
    /// From the request's last byte to the response's first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_timeout_ms: Option<u32>,
    /// Without a byte in either direction on a running response or upgraded connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<u32>,
    /// Requests that may wait for an endpoint, per worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parked_max: Option<u32>,
    /// Percent of the pool that may be ejected at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eject_max_percent: Option<u32>,
    /// Percent of the pool that must be ready; where fewer are, ejected endpoints are used too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic_threshold_percent: Option<u32>,
    /// Without the first byte of a response, after which a second copy of a safe request goes elsewhere; `None`: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge_after_ms: Option<u32>,
}

impl RouteLimits {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// When an endpoint of a service is ejected, how it comes in, and what it bears; `None` takes the cluster's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PassiveChecks {
    /// Failures within `fail_timeout_ms`; 0: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_fails: Option<u32>,
    /// Milliseconds of that window, and of the ejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_timeout_ms: Option<u32>,
    /// Points in percent by which the share of failures must be above that of the pool's others; 0: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_rate_percent: Option<u32>,
    /// Requests that one endpoint may have under way from one proxy; `None`: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_max: Option<u32>,
    /// Answers that count as failures.
    #[serde(skip_serializing_if = "ServerErrors::is_empty")]
    pub fail_on: ServerErrors,
    /// Milliseconds in which the share of one that is new grows to the full one; `None`: it has all of it at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start_ms: Option<u32>,
}

impl PassiveChecks {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
