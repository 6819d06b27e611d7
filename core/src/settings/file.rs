//! Layers of text to [`Settings`]: every key is looked at by itself, so one mistake hides no other.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{ClusterSettings, ControllerSettings, Settings};
use super::{ciphers, log_format};
use crate::id::ClusterName;
use crate::settings::proxy::ProxyProtocol;
use crate::text::nearest;

/// One source of settings. Later layers win over earlier ones, key by key.
#[derive(Clone, Debug)]
pub enum Layer<'a> {
    /// A TOML file: its name for messages, and its text.
    File(&'a str, &'a str),
    /// One key with its value as text, from a flag or an environment variable: where it was said, the dotted key, the
    /// value.
    Key(&'a str, &'a str, &'a str),
}

/// What is wrong with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where: a file and a dotted key, a flag, a variable.
    pub place: String,
    /// Whether the value is lost (the process should not start), or only a word of advice.
    pub is_error: bool,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: {}",
            if self.is_error { "error" } else { "warning" },
            self.place,
            self.message
        )
    }
}

/// Reads all layers. The settings hold every key that is right; a key that is wrong has its default.
pub fn load(layers: &[Layer<'_>]) -> (Settings, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut merged = Table::new();
    for layer in layers {
        match layer {
            Layer::File(name, text) => match text.parse::<Table>() {
                Ok(table) => merge(&mut merged, table),
                Err(error) => findings.push(Finding {
                    place: name.to_string(),
                    is_error: true,
                    message: format!("not TOML: {}", error.to_string().trim_end()),
                }),
            },
            Layer::Key(place, key, value) => match as_table(key, value) {
                Some(table) => merge(&mut merged, table),
                None => findings.push(Finding {
                    place: place.to_string(),
                    is_error: true,
                    message: format!("{key:?} is no key; write one as in clusters.default.http_port"),
                }),
            },
        }
    }
    let mut settings = Settings::default();
    for (key, value) in merged {
        match (key.as_str(), value) {
            ("controller", Value::Table(table)) => {
                settings.controller = fields::<ControllerSettings>("controller", table, &mut findings);
            }
            ("clusters", Value::Table(table)) => settings.clusters = clusters(table, &mut findings),
            ("controller" | "clusters", other) => findings.push(Finding {
                place: key,
                is_error: true,
                message: format!("is {} and must be a table of keys", other.type_str()),
            }),
            (unknown, _) => findings.push(unknown_key("", unknown, ["clusters", "controller"].into_iter())),
        }
    }
    share_https_ports(&mut settings, &mut findings);
    check(&settings, &mut findings);
    advise(&settings, &mut findings);
    (settings, findings)
}

fn clusters(table: Table, findings: &mut Vec<Finding>) -> BTreeMap<ClusterName, ClusterSettings> {
    let mut clusters = BTreeMap::new();
    for (name, value) in table {
        let place = format!("clusters.{name}");
        let valid = (1..=40).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if let (Value::Table(table), true) = (value, valid) {
            clusters.insert(
                ClusterName::from(name),
                fields::<ClusterSettings>(&place, table, findings),
            );
        } else {
            findings.push(Finding {
                place,
                is_error: true,
                message: String::from(
                    "a service cluster is a table named by lower-case letters, digits and '-' (40 at most), because \
                     its name becomes part of service names",
                ),
            });
        }
    }
    if clusters.is_empty() {
        Settings::default().clusters
    } else {
        clusters
    }
}

/// Deserialises a struct key by key. Its known keys are those of its serialised default.
fn fields<T: Default + Serialize + DeserializeOwned>(place: &str, table: Table, findings: &mut Vec<Finding>) -> T {
    let known = Table::try_from(T::default()).unwrap_or_default();
    let mut good = Table::new();
    for (key, value) in table {
        match (known.get(&key), value) {
            (None, _) => findings.push(unknown_key(place, &key, known.keys().map(String::as_str))),
            // A nested struct is read key by key too; maps of free keys (labels) are empty in the default.
            (Some(Value::Table(inner)), Value::Table(table)) if !inner.is_empty() => {
                let mut kept = Table::new();
                for (inner_key, inner_value) in table {
                    if !inner.contains_key(&inner_key) {
                        let place = format!("{place}.{key}");
                        findings.push(unknown_key(&place, &inner_key, inner.keys().map(String::as_str)));
                        continue;
                    }
                    let alone = Table::from_iter([(inner_key.clone(), inner_value.clone())]);
                    let probe = Table::from_iter([(key.clone(), Value::Table(alone))]);
                    if accepts::<T>(&format!("{place}.{key}.{inner_key}"), probe, findings) {
                        kept.insert(inner_key, inner_value);
                    }
                }
                good.insert(key, Value::Table(kept));
            }
            (Some(_), value) => {
                let probe = Table::from_iter([(key.clone(), value.clone())]);
                if accepts::<T>(&format!("{place}.{key}"), probe, findings) {
                    good.insert(key, value);
                }
            }
        }
    }
    T::deserialize(Value::Table(good)).unwrap_or_default()
}

fn accepts<T: DeserializeOwned>(place: &str, probe: Table, findings: &mut Vec<Finding>) -> bool {
    match T::deserialize(Value::Table(probe)) {
        Ok(_) => true,
        Err(error) => {
            findings.push(Finding {
                place: place.to_string(),
                is_error: true,
                message: error.to_string().trim_end().replace('\n', " "),
            });
            false
        }
    }
}

/// A port of the routing mesh is for one service alone, and so is a host-mode port on one node. Of clusters that would
/// publish the same port for HTTPS in the same place, `default` has it, else the first by name, and the others go without.
fn share_https_ports(settings: &mut Settings, findings: &mut Vec<Finding>) {
    let mut order: Vec<ClusterName> = settings.clusters.keys().cloned().collect();
    order.sort_by_key(|name| name.as_str() != ClusterName::DEFAULT);
    for (at, name) in order.iter().enumerate() {
        let Some(cluster) = settings.clusters.get(name) else {
            continue;
        };
        let taken_by = order[..at]
            .iter()
            .find(|other| settings.clusters.get(*other).is_some_and(|o| collide(o, cluster)));
        if let Some(other) = taken_by {
            findings.push(Finding {
                place: format!("clusters.{name}.https_port"),
                is_error: false,
                message: format!(
                    "port {} is for one service alone where these proxies run, and cluster {other} has it, so this one has no \
                     HTTPS; write another port, constraints that keep the two apart, or 0",
                    cluster.https_port
                ),
            });
            if let Some(cluster) = settings.clusters.get_mut(name) {
                cluster.https_port = 0;
            }
        }
    }
}

/// Whether two proxy services would publish the same port for HTTPS in the same place.
fn collide(a: &ClusterSettings, b: &ClusterSettings) -> bool {
    let host = crate::swarm::model::PublishMode::Host;
    let apart = a.publish_mode == host && b.publish_mode == host && a.constraints != b.constraints;
    a.https_port != 0 && a.https_port == b.https_port && !apart
}

/// What no type can say.
fn check(settings: &Settings, findings: &mut Vec<Finding>) {
    let mut error = |place: String, message: &str| {
        findings.push(Finding {
            place,
            is_error: true,
            message: message.into(),
        })
    };
    let controller = &settings.controller;
    if controller.listen.parse::<core::net::SocketAddr>().is_err() {
        error(
            "controller.listen".into(),
            "is no address with a port; write one as in 0.0.0.0:7171",
        );
    }
    if !(controller.docker.starts_with("unix://") || controller.docker.starts_with("tcp://")) {
        error(
            "controller.docker".into(),
            "write unix:///path/to/docker.sock or tcp://host:port",
        );
    }
    if !(controller.swarm_watch.is_empty() || controller.swarm_watch.starts_with('/')) {
        error(
            "controller.swarm_watch".into(),
            "write the path of the control socket, as /var/run/docker/swarm/control.sock, or nothing",
        );
    }
    if controller.poll_changing_ms < 10 || (1..200).contains(&controller.poll_tasks_ms) {
        error(
            "controller".into(),
            "poll_changing_ms below 10 or poll_tasks_ms below 200 would flood Docker; poll_tasks_ms = 0 is none",
        );
    }
    for (name, cluster) in &settings.clusters {
        let place = |key: &str| format!("clusters.{name}.{key}");
        if !matches!(
            cluster.update_failure_action.as_str(),
            "rollback" | "pause" | "continue"
        ) {
            error(place("update_failure_action"), "write rollback, pause or continue");
        }
        if !matches!(cluster.access_log.as_str(), "off" | "common" | "json") {
            error(place("access_log"), "write off, common or json");
        }
        if let Err(problem) = log_format::parse(&cluster.access_log_format) {
            error(place("access_log_format"), &problem);
        }
        if !matches!(cluster.proxy.tls_min_version.as_str(), "1.2" | "1.3") {
            error(place("proxy.tls_min_version"), "write 1.2 or 1.3");
        }
        for name in cluster
            .proxy
            .tls_ciphers
            .iter()
            .filter(|name| ciphers::find(name).is_none())
        {
            error(
                place("proxy.tls_ciphers"),
                &format!("{name:?} is not spoken; write some of {}", ciphers::names()),
            );
        }
        if cluster.update_start_first && cluster.publish_mode == crate::swarm::model::PublishMode::Host {
            error(
                place("update_start_first"),
                "a host-mode port is taken while the old proxy runs, so the update would hang for ever; \
                 leave it false or use publish_mode = \"ingress\"",
            );
        }
        if cluster.http_port == 0 {
            error(place("http_port"), "0 is no port; write 1 to 65535");
        }
        if cluster.https_port == cluster.http_port {
            error(
                place("https_port"),
                "is the port of HTTP already; write another, or 0 for no HTTPS",
            );
        }
        if cluster.stop_grace_ms <= u64::from(cluster.proxy.drain_ms) {
            error(
                place("stop_grace_ms"),
                "must be longer than proxy.drain_ms, or Swarm kills a proxy that still drains",
            );
        }
        let proxy = &cluster.proxy;
        if proxy.proxy_protocol != ProxyProtocol::Off && proxy.trusted_proxies.is_empty() {
            error(
                place("proxy.proxy_protocol"),
                "nobody is trusted, so no PROXY header would be believed; write the addresses of the balancers in \
                 proxy.trusted_proxies",
            );
        }
        if !(200..=599).contains(&cluster.proxy.unknown_host_status) {
            error(
                place("proxy.unknown_host_status"),
                "is no HTTP status for an answer; write 404, 421 or 503",
            );
        }
    }
}

/// What works, and may not be what is meant.
fn advise(settings: &Settings, findings: &mut Vec<Finding>) {
    for (name, cluster) in &settings.clusters {
        if let Some(range) = cluster.proxy.trusted_proxies.iter().find(|range| range.is_all()) {
            findings.push(Finding {
                place: format!("clusters.{name}.proxy.trusted_proxies"),
                is_error: false,
                message: format!(
                    "{range} trusts everybody, so every client can claim any address; write the addresses of the balancers"
                ),
            });
        }
    }
}

fn unknown_key<'a>(place: &str, key: &str, known: impl Iterator<Item = &'a str>) -> Finding {
    let hint = nearest(key, known).map_or(String::from("it is ignored"), |near| format!("did you mean {near}?"));
    let place = if place.is_empty() {
        key.to_string()
    } else {
        format!("{place}.{key}")
    };
    Finding {
        place,
        is_error: false,
        message: format!("unknown key; {hint}"),
    }
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// `a.b.c` and a value as text, as nested tables. The text is read as TOML where it is TOML, else as it stands.
fn as_table(key: &str, text: &str) -> Option<Table> {
    let parts: Vec<&str> = key.split('.').collect();
    if parts.iter().any(|part| part.is_empty()) || parts.len() < 2 {
        return None;
    }
    let parsed = format!("v = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("v"));
    let mut value = parsed.unwrap_or_else(|| Value::from(text));
    for part in parts.iter().rev() {
        value = Value::Table(Table::from_iter([(part.to_string(), value)]));
    }
    if let Value::Table(table) = value {
        Some(table)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::NetworkPolicy;
    use crate::swarm::model::PublishMode;

    fn file(text: &str) -> (Settings, Vec<String>) {
        let (settings, findings) = load(&[Layer::File("tidegate.toml", text)]);
        (settings, findings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn of_several_clusters_on_the_mesh_one_has_the_port_of_https() {
        let (settings, findings) =
            file("[clusters.a]\nhttp_port = 81\n[clusters.default]\n[clusters.b]\nhttp_port = 82\nhttps_port = 8443\n");
        let port = |name: &str| settings.clusters[&ClusterName::from(name)].https_port;
        assert_eq!((port("default"), port("a"), port("b")), (443, 0, 8443));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(
            findings[0].starts_with("warning: clusters.a.https_port: "),
            "{findings:?}"
        );
    }

    #[test]
    fn nothing_said_is_one_cluster_named_default() {
        let (settings, findings) = load(&[]);
        assert_eq!(settings, Settings::default());
        assert_eq!(findings, []);
        assert!(settings.clusters.contains_key(&ClusterName::default_cluster()));
    }

    #[test]
    fn later_layers_win_key_by_key() {
        let (settings, findings) = load(&[
            Layer::File("f", "[clusters.default]\nhttp_port = 81\npublish_mode = \"host\"\n"),
            Layer::Key(
                "TIDEGATE_CLUSTERS__DEFAULT__HTTP_PORT",
                "clusters.default.http_port",
                "82",
            ),
            Layer::Key("--set", "clusters.default.networks", "edge,back"),
            Layer::Key("--set", "clusters.default.stop_signal", "SIGQUIT"),
        ]);
        assert_eq!(findings, []);
        let cluster = &settings.clusters[&ClusterName::default_cluster()];
        assert_eq!((cluster.http_port, cluster.publish_mode), (82, PublishMode::Host));
        assert_eq!(
            cluster.networks,
            NetworkPolicy::Shared(["edge", "back"].map(String::from).to_vec())
        );
        assert_eq!(cluster.stop_signal, "SIGQUIT");
    }

    #[test]
    fn one_wrong_key_hides_no_other_and_keeps_its_neighbours() {
        let (settings, findings) = file(
            "[clusters.east]\nhttp_prot = 1\nreplicas = \"many\"\nglobal = true\n\
             [clusters.east.proxy]\nconnect_timeout_ms = -1\nretries_max = 7\nretry_max = 1\n",
        );
        let east = &settings.clusters[&ClusterName::from("east")];
        assert!(east.global);
        assert_eq!(
            (east.replicas, east.proxy.retries_max, east.proxy.connect_timeout_ms),
            (2, 7, 400)
        );
        assert_eq!(findings.len(), 4, "{findings:#?}");
        assert!(
            findings
                .iter()
                .any(|f| f.contains("clusters.east.http_prot: unknown key; did you mean http_port?"))
        );
        assert!(
            findings
                .iter()
                .any(|f| f.starts_with("error: clusters.east.replicas: ")),
            "{findings:#?}"
        );
        assert!(
            findings
                .iter()
                .any(|f| f.starts_with("error: clusters.east.proxy.connect_timeout_ms: "))
        );
    }

    #[test]
    fn text_that_is_not_toml_names_file_and_line() {
        let (settings, findings) = file("[clusters.default\nhttp_port = 1");
        assert_eq!(settings, Settings::default());
        assert!(
            findings[0].starts_with("error: tidegate.toml: not TOML: TOML parse error at line 1"),
            "{findings:?}"
        );
    }

    #[test]
    fn what_would_hang_or_cut_connections_is_refused() {
        let (_, findings) = file(
            "[clusters.default]\npublish_mode = \"host\"\nupdate_start_first = true\nstop_grace_ms = 1000\n\
             update_failure_action = \"retry\"\n",
        );
        assert_eq!(
            findings.iter().filter(|f| f.starts_with("error")).count(),
            3,
            "{findings:#?}"
        );
    }

    #[test]
    fn trusted_proxies_are_addresses_and_ranges() {
        let (settings, findings) = load(&[Layer::Key(
            "--set",
            "clusters.default.proxy.trusted_proxies",
            "192.0.2.7, 10.0.0.0/8",
        )]);
        assert_eq!(findings, []);
        let proxy = &settings.clusters[&ClusterName::default_cluster()].proxy;
        assert!(proxy.trusts("10.1.2.3".parse().unwrap()) && proxy.trusts("::ffff:192.0.2.7".parse().unwrap()));
        assert!(!proxy.trusts("192.0.2.8".parse().unwrap()));
        let (_, findings) = file("[clusters.default.proxy]\ntrusted_proxies = [\"10.0.0.1/8\", \"lb\"]\n");
        assert!(
            findings[0].contains("\"10.0.0.1/8\": the range is written 10.0.0.0/8"),
            "{findings:?}"
        );
        let (_, findings) = file("[clusters.default.proxy]\ntrusted_proxies = \"::/0\"\n");
        assert!(
            findings[0].starts_with("warning: ") && findings[0].contains("everybody"),
            "{findings:?}"
        );
    }

    #[test]
    fn a_proxy_header_is_believed_from_somebody_or_not_switched_on() {
        let on = "[clusters.default.proxy]\nproxy_protocol = \"on\"\n";
        let (_, findings) = file(on);
        assert!(
            findings[0].starts_with("error: clusters.default.proxy.proxy_protocol: nobody is trusted"),
            "{findings:?}"
        );
        let (settings, findings) = file(&format!("{on}trusted_proxies = \"10.0.0.7\"\n"));
        assert_eq!(findings, Vec::<String>::new());
        let cluster = &settings.clusters[&ClusterName::default_cluster()];
        assert_eq!(cluster.proxy.proxy_protocol, ProxyProtocol::On);
        assert!(cluster.serving().behind_mesh);
        let (_, findings) = file("[clusters.default.proxy]\nproxy_protocol = \"yes\"\n");
        assert!(
            findings[0].contains("expected one of `off`, `on`, `optional`"),
            "{findings:?}"
        );
    }

    #[test]
    fn a_key_without_dots_is_refused() {
        let (_, findings) = load(&[Layer::Key("--set", "http_port", "1")]);
        assert!(findings[0].is_error);
    }

    #[test]
    fn every_key_of_the_defaults_can_be_written_and_read_back() {
        let text = toml::to_string(&Settings::default()).expect("defaults are TOML");
        let (settings, findings) = file(&text);
        assert_eq!(settings, Settings::default());
        assert_eq!(findings, Vec::<String>::new());
    }

    #[test]
    fn host_mode_clusters_on_the_same_nodes_do_not_wait_for_one_port() {
        let host = "publish_mode = \"host\"\n";
        let (settings, findings) = file(&format!(
            "[clusters.default]\n{host}[clusters.inner]\nhttp_port = 81\n{host}\
             [clusters.east]\n{host}constraints = [\"node.labels.zone==east\"]\n"
        ));
        let port = |name: &str| settings.clusters[&ClusterName::from(name)].https_port;
        assert_eq!((port("default"), port("inner"), port("east")), (443, 0, 443));
        assert_eq!(findings.len(), 1, "{findings:?}");
    }

    /// docs/settings.md has a row for every key, with its default.
    #[test]
    fn every_key_is_in_the_docs_with_its_default() {
        let docs = include_str!("../../../docs/settings.md");
        let shown = |value: &Value| match value {
            Value::String(text) if text.is_empty() => "empty".to_string(),
            Value::String(text) => format!("`{text}`"),
            Value::Array(_) | Value::Table(_) => "empty".to_string(),
            Value::Boolean(_) | Value::Datetime(_) | Value::Float(_) | Value::Integer(_) => value.to_string(),
        };
        let mut rows = 0;
        let tables = [
            Table::try_from(ControllerSettings::default()).unwrap(),
            Table::try_from(ClusterSettings::default()).unwrap(),
            Table::try_from(crate::settings::proxy::ProxySettings::default()).unwrap(),
        ];
        for (key, value) in tables.iter().flatten().filter(|(key, _)| *key != "proxy") {
            let row = format!("| `{key}` | {} |", shown(value));
            assert!(docs.contains(&row), "docs/settings.md lacks {row}");
            rows += 1;
        }
        assert_eq!(
            docs.matches("\n| `").count(),
            rows,
            "docs/settings.md has a row for a key that is none"
        );
    }
}
