//! What proxies serve by. Travels in every snapshot, so a change reaches live proxies without a restart.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

use crate::route::allow::IpRange;
use crate::settings::cluster::list;
use crate::time::Duration;

/// Timeouts and limits of the data plane. Every field has a default; units are in the names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxySettings {
    /// Milliseconds for a TCP connection to an endpoint. A dead address swallows packets (facts §1.1), so this is
    /// short and the request goes elsewhere. Default 400.
    pub connect_timeout_ms: u32,
    /// Milliseconds from the request's last byte to the response's first. Default 600 000, as Interlock's ReadTimeout.
    pub first_byte_timeout_ms: u32,
    /// Milliseconds without a byte in either direction on a running response or upgraded connection.
    /// Default 600 000.
    pub idle_timeout_ms: u32,
    /// Milliseconds that a client's connection stays open between requests. Default 75 000 (Interlock KeepaliveTimeout).
    pub keepalive_timeout_ms: u32,
    /// Milliseconds for a client to send a whole request head. Default 60 000.
    pub header_timeout_ms: u32,
    /// Bytes of a request head, all headers together. Default 32 768 (Interlock "4 8k"); 431 beyond it.
    pub header_bytes_max: u32,
    /// Headers of a request. Default 128; 431 beyond it.
    pub headers_max: u32,
    /// Bytes of a request body; 0 = no limit. Default 33 554 432 (Interlock's 32m); 413 beyond it.
    pub body_bytes_max: u64,
    /// Milliseconds without a byte of a request body that nothing has been answered to yet; 0 = as `idle_timeout_ms`.
    /// Default 0 (Interlock ClientBodyTimeout).
    pub body_timeout_ms: u32,
    /// Whether header fields with `_` in their names reach the app: to some apps `X_Forwarded_For` is `X-Forwarded-For`.
    /// Default false: they are dropped (Interlock UnderscoresInHeaders).
    pub underscores_in_headers: bool,
    /// Client connections of one worker; beyond it clients wait. 0 = as many as open files allow. Default 0 (Interlock
    /// MaxConnections).
    pub connections_max: u32,
    /// The oldest version of TLS that is spoken with clients: `1.2` or `1.3`. Default `1.2` (Interlock SSLProtocols).
    pub tls_min_version: String,
    /// Ciphers that are spoken with clients, by IANA's or OpenSSL's names; of a version of which none is named all are
    /// (Interlock SSLCiphers).
    #[serde(deserialize_with = "list")]
    pub tls_ciphers: Vec<String>,
    /// Times that one request may be tried again elsewhere. Default 3.
    pub retries_max: u32,
    /// Retries in percent of a pool's requests, with a floor of 10 a second. Default 20.
    pub retry_budget_percent: u32,
    /// Also try an idempotent request elsewhere that the app answered with 500, as Interlock does; 502, 503 and 504 always are.
    /// Default false.
    pub retry_on_500: bool,
    /// Milliseconds that a request may wait for a pool without ready endpoint. Default 10 000.
    pub park_ms: u32,
    /// Requests that may wait so per pool and worker. Default 1024.
    pub parked_max: u32,
    /// Idle connections kept per endpoint and worker. Default 64.
    pub idle_connections_max: u32,
    /// Milliseconds after which an idle upstream connection is closed. Default 60 000.
    pub idle_connection_ms: u32,
    /// Failures within `fail_timeout_ms` after which an endpoint is ejected; 0 = never. Default 1 (Interlock max_fails).
    pub max_fails: u32,
    /// Milliseconds of that window, and of the ejection. Default 10 000 (Interlock fail_timeout).
    pub fail_timeout_ms: u32,
    /// Points in percent by which the share of an endpoint's failures in 10 s must be above that of its pool's others to eject
    /// it; 0 = never. Default 50.
    pub fail_rate_percent: u32,
    /// Percent of a pool that may be ejected at once; one endpoint may always, unless this is 0. Default 50.
    pub eject_max_percent: u32,
    /// Percent of a pool that must be ready; where fewer are, ejected endpoints are used too. 0 = they are not. Default 50.
    pub panic_threshold_percent: u32,
    /// Milliseconds that a response may take to begin before its endpoint is asked, by a connection, whether it is still
    /// there; 0 = never. Default 200.
    pub doubt_ms: u32,
    /// Status for a host that nobody claims. Default 503.
    pub unknown_host_status: u16,
    /// Match context roots letter by letter, as Interlock does: `/app` covers `/application` too. Default false.
    pub raw_prefix: bool,
    /// Redirect (301) a path without dot and trailing slash to itself with one before `context_root_rewrite` takes the root
    /// away, as Interlock does. Default false.
    pub redirect_to_slash: bool,
    /// Leave out `x-request-id`, `x-proxy-id` and the like on responses (Interlock HideInfoHeaders). Default false.
    pub hide_info_headers: bool,
    /// Addresses and ranges of balancers and proxies in front, whose word on the client's address is believed. Default none.
    #[serde(deserialize_with = "list")]
    pub trusted_proxies: Vec<IpRange>,
    /// Whether connections of [`trusted_proxies`](Self::trusted_proxies) begin with a PROXY header. Default `off`.
    pub proxy_protocol: ProxyProtocol,
    /// Also tell the app about its client in `Forwarded` (RFC 7239). Default false.
    pub forwarded: bool,
    /// Milliseconds since a controller confirmed the stored table after which a proxy that starts without controllers has
    /// Docker's DNS confirm its endpoints before it uses them; 0 = never. Default 600 000.
    pub confirm_table_after_ms: u32,
    /// Milliseconds for requests under way to end when a proxy stops. Default 25 000.
    pub drain_ms: u32,
    /// Port that users reach for HTTPS; 0 = none. Not set here: it is the cluster's, see
    /// [`ClusterSettings::serving`](super::ClusterSettings::serving).
    #[serde(skip_serializing_if = "is_https")]
    pub https_port: u16,
    /// Whether the routing mesh stands before the proxies, so that the address of a connection says nothing about its
    /// client. Not set here: see [`ClusterSettings::serving`](super::ClusterSettings::serving).
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub behind_mesh: bool,
}

/// Whether connections begin with a PROXY header. Only one from a trusted address is ever read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// None does.
    #[default]
    Off,
    /// Those from trusted addresses do; one that does not is closed.
    On,
    /// Those from trusted addresses may.
    Optional,
}

fn is_https(port: &u16) -> bool {
    *port == HTTPS_PORT
}

/// The port of URLs that name none (RFC 9110 §4.2.2).
pub const HTTPS_PORT: u16 = 443;

impl Default for ProxySettings {
    fn default() -> Self {
        ProxySettings {
            connect_timeout_ms: 400,
            first_byte_timeout_ms: 600_000,
            idle_timeout_ms: 600_000,
            keepalive_timeout_ms: 75_000,
            header_timeout_ms: 60_000,
            header_bytes_max: 32_768,
            headers_max: 128,
            body_bytes_max: 32 * 1024 * 1024,
            body_timeout_ms: 0,
            underscores_in_headers: false,
            connections_max: 0,
            tls_min_version: String::from("1.2"),
            tls_ciphers: Vec::new(),
            retries_max: 3,
            retry_budget_percent: 20,
            retry_on_500: false,
            park_ms: 10_000,
            parked_max: 1024,
            idle_connections_max: 64,
            idle_connection_ms: 60_000,
            max_fails: 1,
            fail_timeout_ms: 10_000,
            fail_rate_percent: 50,
            eject_max_percent: 50,
            panic_threshold_percent: 50,
            doubt_ms: 200,
            unknown_host_status: 503,
            raw_prefix: false,
            redirect_to_slash: false,
            hide_info_headers: false,
            trusted_proxies: Vec::new(),
            proxy_protocol: ProxyProtocol::Off,
            forwarded: false,
            confirm_table_after_ms: 600_000,
            drain_ms: 25_000,
            https_port: HTTPS_PORT,
            behind_mesh: false,
        }
    }
}

impl ProxySettings {
    /// [`ProxySettings::connect_timeout_ms`] as a duration.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms.into())
    }

    /// Whether what `peer` says about its clients is believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|range| range.contains(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_42_without_a_number_there_are_two_proxies() {
        assert_eq!(crate::settings::ClusterSettings::default().replicas, 2);
    }

    #[test]
    fn row_46_events_come_first_and_polling_may_be_turned_off() {
        use crate::settings::{Layer, load};
        use crate::swarm::world::WorldSettings;
        let every = |ms: &str| {
            let (settings, findings) = load(&[Layer::Key("--set", "controller.poll_tasks_ms", ms)]);
            assert!(findings.is_empty(), "{findings:?}");
            WorldSettings::from(&settings.controller).tasks_every
        };
        assert_eq!(every("3000"), Duration::from_secs(3));
        assert!(every("0") > Duration::from_secs(86_400), "events alone");
    }

    #[test]
    fn row_51_a_request_body_may_have_32_mebibytes() {
        assert_eq!(ProxySettings::default().body_bytes_max, 32 << 20);
    }
}
