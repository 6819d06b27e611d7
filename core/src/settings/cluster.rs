//! Settings of one service cluster: its proxy service, and what its proxies serve by.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::settings::proxy::{HTTPS_PORT, ProxySettings};
use crate::swarm::model::PublishMode;

/// How one proxy service is made and kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterSettings {
    /// Image of the proxies; empty = the controller's own.
    pub image: String,
    /// Name of the proxy service; empty = `<stack>_proxy`, or `<stack>_proxy-<cluster>` for others than `default`.
    pub service_name: String,
    /// Whether there is one proxy on every node that fits, instead of a number of replicas. Default false.
    pub global: bool,
    /// Number of proxies, unless `global`. Default 2 (Interlock ProxyReplicas).
    pub replicas: u64,
    /// Placement constraints; none = `node.role==worker` where the Swarm has workers, else none.
    #[serde(deserialize_with = "list")]
    pub constraints: Vec<String>,
    /// Placement preferences: spread over these, e.g. `node.labels.zone`.
    #[serde(deserialize_with = "list")]
    pub spread: Vec<String>,
    /// `ingress` (the routing mesh, every node) or `host` (the nodes that run a proxy; the client's address is seen).
    /// Default `ingress`, as Interlock.
    pub publish_mode: PublishMode,
    /// Port that users reach for HTTP. Default 80.
    pub http_port: u16,
    /// Port that users reach for HTTPS and TLS passthrough; 0 = none. Default 443.
    pub https_port: u16,
    /// How proxies get the secrets that labels name: by `courier`, or `direct`, mounted into them. Default `courier`.
    pub certificates: CertificateSource,
    /// How proxies reach tasks: `"attach"`, `"legs"`, or the names of networks that routed services share.
    pub networks: NetworkPolicy,
    /// Labels of the proxy service.
    pub labels: BTreeMap<String, String>,
    /// Labels of its containers.
    pub container_labels: BTreeMap<String, String>,
    /// Signal that tells a proxy to drain. Default `SIGTERM`.
    pub stop_signal: String,
    /// Milliseconds from that signal to SIGKILL; longer than `proxy.drain_ms`. Default 30 000.
    pub stop_grace_ms: u64,
    /// Proxies that are replaced at a time. Default 1.
    pub update_parallelism: u64,
    /// Milliseconds between two replacements. Default 0.
    pub update_delay_ms: u64,
    /// Start the new proxy before the old one stops. Not possible with `publish_mode = "host"`. Default false.
    pub update_start_first: bool,
    /// `rollback`, `pause` or `continue` when a replaced proxy does not come up. Default `rollback`.
    pub update_failure_action: String,
    /// Milliseconds that a replaced proxy is watched for failure. Default 5000.
    pub update_monitor_ms: u64,
    /// Log filter of the proxies, e.g. `info` or `tidegate=debug`. Default `info`.
    pub log: String,
    /// Access log of the proxies: `off`, `common` or `json`. Default `common`.
    pub access_log: String,
    /// Form of access lines in place of `common`, with NGINX's variables (see [`log_format`](super::log_format)); empty = `common`.
    pub access_log_format: String,
    /// Whether services without stickiness of their own are served as with the label `ip_hash`. Default false (Interlock IPHash).
    pub ip_hash: bool,
    /// Files that a proxy may have open; 0 = as many as its container may. Default 0 (Interlock RLimitNoFile).
    pub open_files_max: u64,
    /// Threads of a proxy that serve; 0 = one per core. Default 0 (Interlock WorkerProcesses).
    pub workers: u64,
    /// What the proxies serve by; reaches live proxies without a restart.
    pub proxy: ProxySettings,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        ClusterSettings {
            image: String::new(),
            service_name: String::new(),
            global: false,
            replicas: 2,
            constraints: Vec::new(),
            spread: Vec::new(),
            publish_mode: PublishMode::Ingress,
            http_port: 80,
            https_port: HTTPS_PORT,
            certificates: CertificateSource::Courier,
            networks: NetworkPolicy::Legs,
            labels: BTreeMap::new(),
            container_labels: BTreeMap::new(),
            stop_signal: String::from("SIGTERM"),
            stop_grace_ms: 30_000,
            update_parallelism: 1,
            update_delay_ms: 0,
            update_start_first: false,
            update_failure_action: String::from("rollback"),
            update_monitor_ms: 5_000,
            log: String::from("info"),
            access_log: String::from("common"),
            access_log_format: String::new(),
            ip_hash: false,
            open_files_max: 0,
            workers: 0,
            proxy: ProxySettings::default(),
        }
    }
}

impl ClusterSettings {
    /// What the proxies serve by, with what the rest of the cluster's settings says about it.
    pub fn serving(&self) -> ProxySettings {
        ProxySettings {
            https_port: self.https_port,
            // Without trusted proxies, routes that go by addresses are refused there already.
            behind_mesh: self.publish_mode == PublishMode::Ingress && !self.proxy.trusted_proxies.is_empty(),
            ..self.proxy.clone()
        }
    }
}

/// How certificates, and whatever else labels name secrets for, reach the proxies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateSource {
    /// The courier reads the secrets and hands them to the controllers, which give each proxy what its service cluster uses: no
    /// proxy is ever replaced for one.
    #[default]
    Courier,
    /// The secrets that labels name are mounted into the proxies: keys travel by Swarm alone, and a secret that is new or goes
    /// replaces the proxies one by one.
    Direct,
}

/// How proxies reach the tasks of routed services (DESIGN: networks).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "toml::Value")]
pub enum NetworkPolicy {
    /// The proxy service joins the network of every routed service, and leaves it with the last one.
    Attach,
    /// A tiny service per network opens connections there and hands their sockets to the proxies, which join nothing.
    Legs,
    /// Routed services join one of these networks (names or ids); nothing ever changes.
    Shared(Vec<String>),
}

impl From<NetworkPolicy> for toml::Value {
    fn from(policy: NetworkPolicy) -> toml::Value {
        match policy {
            NetworkPolicy::Attach => toml::Value::from("attach"),
            NetworkPolicy::Legs => toml::Value::from("legs"),
            NetworkPolicy::Shared(names) => toml::Value::from(names),
        }
    }
}

impl<'de> Deserialize<'de> for NetworkPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names: Vec<String> = list(deserializer)?;
        Ok(match names.as_slice() {
            [word] if word == "attach" => NetworkPolicy::Attach,
            [word] if word == "legs" => NetworkPolicy::Legs,
            _ => NetworkPolicy::Shared(names),
        })
    }
}

/// A list, or one text with commas as environment variables have it.
pub(super) fn list<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: TryFrom<String>,
    T::Error: core::fmt::Display,
{
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a list of texts, or one text with commas")]
    enum ListOrText {
        List(Vec<String>),
        Text(String),
    }
    let items = match ListOrText::deserialize(deserializer)? {
        ListOrText::List(items) => items,
        ListOrText::Text(text) => text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(String::from)
            .collect(),
    };
    let read = |item: String| {
        let shown = item.clone();
        T::try_from(item).map_err(|error| D::Error::custom(format_args!("{shown:?}: {error}")))
    };
    items.into_iter().map(read).collect()
}
