//! How the proxy service of a cluster should look: settings and a few facts in, a shape out. Pure, and the same for
//! every controller, so that two of them never disagree.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::desired::{CLUSTER_LABEL, INSTALLATION_LABEL, ROLE_LABEL, ServiceShape, UpdatePolicy, published_tcp};
use crate::id::{ClusterName, NetworkId};
use crate::settings::{ClusterSettings, NetworkPolicy};
use crate::swarm::model::{PublishMode, STACK_LABEL};

/// Value of [`ROLE_LABEL`] on proxy services.
pub const PROXY_ROLE: &str = "proxy";
/// Port inside the proxy's container that HTTP arrives at. Above 1024: the proxy is nobody in particular.
pub const PROXY_HTTP_PORT: u16 = 8080;
/// Port inside the proxy's container that HTTPS and TLS passthrough arrive at.
pub const PROXY_HTTPS_PORT: u16 = 8443;
/// Where a proxy keeps its last good table: a named volume.
pub const PROXY_STATE_DIR: &str = "/var/lib/tidegate";
/// Where proxies and legs meet: a named volume.
pub const LEGS_DIR: &str = "/var/lib/tidegate-legs";
/// `uid:gid` of the proxy's process.
pub const PROXY_USER: &str = "65532:65532";

/// What a proxy service depends on besides its cluster's settings.
#[derive(Clone, Copy, Debug)]
pub struct ProxyFacts<'a> {
    /// The installation: name of the controller's stack.
    pub installation: &'a str,
    /// Image of the controller, for clusters that name none.
    pub own_image: &'a str,
    /// The control network.
    pub control_network: &'a NetworkId,
    /// Networks of routed services, or the shared ones.
    pub networks: &'a BTreeSet<NetworkId>,
    /// Whether the Swarm has a node that is no manager.
    pub has_workers: bool,
    /// Environment of the process, besides what the settings say; wins over that.
    pub env: &'a BTreeMap<String, String>,
    /// Secrets with the proxies' identity, and with certificates that labels name: name -> file below `/run/secrets`.
    pub secrets: &'a BTreeMap<String, String>,
}

/// Name of the proxy service of `cluster`.
pub fn proxy_service_name(cluster: &ClusterName, settings: &ClusterSettings, installation: &str) -> String {
    if !settings.service_name.is_empty() {
        settings.service_name.clone()
    } else if cluster.as_str() == ClusterName::DEFAULT {
        format!("{installation}_proxy")
    } else {
        format!("{installation}_proxy-{cluster}")
    }
}

/// Where proxies of a cluster run.
pub(super) fn constraints_of(settings: &ClusterSettings, has_workers: bool) -> BTreeSet<String> {
    let mut constraints: BTreeSet<String> = settings.constraints.iter().cloned().collect();
    if constraints.is_empty() && has_workers {
        constraints.insert(String::from("node.role==worker"));
    }
    constraints
}

/// Image of a cluster's services.
pub(super) fn image_of(settings: &ClusterSettings, own_image: &str) -> String {
    if settings.image.is_empty() {
        own_image.to_string()
    } else {
        settings.image.clone()
    }
}

/// Volume in which the legs of a proxy service have their sockets.
pub(super) fn legs_volume(proxy_service: &str) -> String {
    format!("{proxy_service}-legs")
}

/// The proxy service of `cluster` as its settings want it.
pub fn proxy_shape(cluster: &ClusterName, settings: &ClusterSettings, facts: &ProxyFacts<'_>) -> ServiceShape {
    let name = proxy_service_name(cluster, settings, facts.installation);
    let host_mode = settings.publish_mode == PublishMode::Host;
    let mut labels = settings.labels.clone();
    // With the stack's label `docker stack rm` takes the proxies along, and so sets the control network free.
    labels.extend(
        [
            (ROLE_LABEL, PROXY_ROLE),
            (CLUSTER_LABEL, cluster.as_str()),
            (INSTALLATION_LABEL, facts.installation),
            (STACK_LABEL, facts.installation),
        ]
        .map(|(key, value)| (String::from(key), String::from(value))),
    );
    let mut env: BTreeMap<String, String> = [
        ("TIDEGATE_CLUSTER", cluster.as_str()),
        ("TIDEGATE_LOG", &settings.log),
        ("TIDEGATE_ACCESS_LOG", &settings.access_log),
        ("TIDEGATE_STATE_DIR", PROXY_STATE_DIR),
    ]
    .map(|(key, value)| (String::from(key), String::from(value)))
    .into();
    for (key, number) in [
        ("TIDEGATE_WORKERS", settings.workers),
        ("TIDEGATE_OPEN_FILES", settings.open_files_max),
    ] {
        if number != 0 {
            env.insert(String::from(key), number.to_string());
        }
    }
    if !settings.access_log_format.is_empty() {
        env.insert(
            String::from("TIDEGATE_ACCESS_LOG_FORMAT"),
            settings.access_log_format.clone(),
        );
    }
    env.extend(facts.env.clone());
    let constraints = constraints_of(settings, facts.has_workers);
    let mut ports = BTreeSet::from([published_tcp(
        settings.http_port,
        PROXY_HTTP_PORT,
        settings.publish_mode,
    )]);
    if settings.https_port != 0 {
        ports.insert(published_tcp(
            settings.https_port,
            PROXY_HTTPS_PORT,
            settings.publish_mode,
        ));
        env.insert(String::from("TIDEGATE_HTTPS"), format!("0.0.0.0:{PROXY_HTTPS_PORT}"));
    }
    let mut volumes = BTreeMap::from([(format!("{name}-state"), String::from(PROXY_STATE_DIR))]);
    if settings.networks == NetworkPolicy::Legs {
        volumes.insert(legs_volume(&name), String::from(LEGS_DIR));
        env.insert(String::from("TIDEGATE_LEGS_DIR"), String::from(LEGS_DIR));
    }
    ServiceShape {
        volumes,
        name,
        labels,
        container_labels: settings.container_labels.clone(),
        image: image_of(settings, facts.own_image),
        args: vec![String::from("proxy")],
        env: env.into_iter().map(|(key, value)| format!("{key}={value}")).collect(),
        user: String::from(PROXY_USER),
        read_only: true,
        replicas: (!settings.global).then_some(settings.replicas),
        constraints,
        spread: settings.spread.clone(),
        ports,
        // Nobody asks for a virtual IP of the proxies but the routing mesh.
        dnsrr: host_mode,
        networks: core::iter::once(facts.control_network)
            .chain(facts.networks)
            .map(ToString::to_string)
            .collect(),
        secrets: facts.secrets.clone(),
        stop_signal: settings.stop_signal.clone(),
        stop_grace_ms: settings.stop_grace_ms,
        health_command: Vec::from(["CMD", "/tidegate", "healthcheck"].map(String::from)),
        update: UpdatePolicy {
            parallelism: settings.update_parallelism,
            delay_ms: settings.update_delay_ms,
            // A second task cannot have the port: the update would hang for ever (facts §6).
            start_first: settings.update_start_first && !host_mode,
            failure_action: settings.update_failure_action.clone(),
            monitor_ms: settings.update_monitor_ms,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::NetworkPolicy;

    fn shape(cluster: &str, edit: impl FnOnce(&mut ClusterSettings), has_workers: bool) -> ServiceShape {
        let mut settings = ClusterSettings::default();
        edit(&mut settings);
        let facts = ProxyFacts {
            installation: "tidegate",
            own_image: "tidegate:1",
            control_network: &NetworkId::from("net-control"),
            networks: &BTreeSet::from([NetworkId::from("net-shop")]),
            has_workers,
            env: &BTreeMap::from([(String::from("TIDEGATE_LOG"), String::from("debug"))]),
            secrets: &BTreeMap::from([(String::from("tidegate-proxy-1"), String::from("identity.pem"))]),
        };
        proxy_shape(&ClusterName::from(cluster), &settings, &facts)
    }

    #[test]
    fn the_default_cluster_as_written() {
        insta::assert_snapshot!(
            serde_json::to_string_pretty(&shape("default", |_| (), true)).expect("a shape is JSON")
        );
    }

    #[test]
    fn without_a_port_for_https_nothing_is_published_or_taken_there() {
        let none = shape("default", |settings| settings.https_port = 0, true);
        assert_eq!(none.ports.len(), 1);
        assert!(!none.env.iter().any(|line| line.starts_with("TIDEGATE_HTTPS=")));
    }

    #[test]
    fn row_44_proxies_run_on_workers_where_there_are_any() {
        let worker = BTreeSet::from([String::from("node.role==worker")]);
        assert_eq!(shape("default", |_| (), true).constraints, worker);
        assert!(shape("default", |_| (), false).constraints.is_empty());
        let own = shape(
            "default",
            |settings| settings.constraints = vec![String::from("node.labels.edge==1")],
            true,
        );
        assert_eq!(own.constraints, BTreeSet::from([String::from("node.labels.edge==1")]));
    }

    #[test]
    fn a_host_mode_port_is_never_combined_with_start_first() {
        let host = shape(
            "default",
            |settings| {
                settings.publish_mode = PublishMode::Host;
                settings.update_start_first = true;
            },
            true,
        );
        assert!(!host.update.start_first && host.dnsrr);
        let ingress = shape("default", |settings| settings.update_start_first = true, true);
        assert!(ingress.update.start_first && !ingress.dnsrr);
    }

    #[test]
    fn clusters_have_services_of_their_own_and_may_name_them() {
        assert_eq!(shape("default", |_| (), true).name, "tidegate_proxy");
        assert_eq!(shape("edge", |_| (), true).name, "tidegate_proxy-edge");
        assert_eq!(
            shape("edge", |settings| settings.service_name = String::from("gate"), true).name,
            "gate"
        );
    }

    /// What an operator of production sets, and which of it reaches a proxy without replacing it.
    #[test]
    fn every_setting_of_production_reaches_the_service() {
        let production = |settings: &mut ClusterSettings| {
            settings.constraints = vec![String::from("node.labels.nodetype==loadbalancer")];
            settings.spread = vec![String::from("node.labels.zone")];
            settings.replicas = 3;
            settings.publish_mode = PublishMode::Host;
            (settings.http_port, settings.https_port) = (8080, 8443);
            settings.stop_signal = String::from("SIGQUIT");
            settings.stop_grace_ms = 60_000;
            (settings.update_parallelism, settings.update_delay_ms) = (2, 30_000);
            settings.update_failure_action = String::from("pause");
            (settings.workers, settings.open_files_max) = (4, 65_535);
            settings.access_log_format = String::from("$remote_addr $status");
        };
        let shape = shape("default", production, true);
        assert_eq!(
            shape.constraints,
            BTreeSet::from([String::from("node.labels.nodetype==loadbalancer")])
        );
        assert_eq!(
            (shape.spread.as_slice(), shape.replicas),
            (&[String::from("node.labels.zone")][..], Some(3))
        );
        let published: BTreeSet<Option<u16>> = shape.ports.iter().map(|port| port.published).collect();
        assert_eq!(published, BTreeSet::from([Some(8080), Some(8443)]));
        assert_eq!((shape.stop_signal.as_str(), shape.stop_grace_ms), ("SIGQUIT", 60_000));
        assert_eq!((shape.update.parallelism, shape.update.delay_ms), (2, 30_000));
        assert_eq!(shape.update.failure_action, "pause");
        for line in [
            "TIDEGATE_WORKERS=4",
            "TIDEGATE_OPEN_FILES=65535",
            "TIDEGATE_ACCESS_LOG_FORMAT=$remote_addr $status",
        ] {
            assert!(shape.env.contains(line), "{line} is not in {:?}", shape.env);
        }
    }

    #[test]
    fn row_47_a_proxy_that_does_not_come_up_is_rolled_back() {
        assert_eq!(shape("default", |_| (), true).update.failure_action, "rollback");
        let paused = |settings: &mut ClusterSettings| settings.update_failure_action = String::from("pause");
        assert_eq!(shape("default", paused, true).update.failure_action, "pause");
    }

    #[test]
    fn an_operators_labels_cannot_take_the_place_of_ours() {
        let edit = |settings: &mut ClusterSettings| {
            settings
                .labels
                .insert(String::from(ROLE_LABEL), String::from("controller"));
            settings.labels.insert(String::from("team"), String::from("edge"));
            settings.networks = NetworkPolicy::Attach;
        };
        let labels = shape("default", edit, true).labels;
        assert_eq!(labels[ROLE_LABEL], PROXY_ROLE);
        assert_eq!(labels["team"], "edge");
    }
}
