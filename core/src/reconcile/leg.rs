//! How the leg of a network should look: a tiny global service on the nodes of a cluster's proxies, on that network and no
//! other, which shares a volume with the proxies and nothing else. Pure, and the same for every controller.
//!
//! A leg belongs to the stack of its network, if that has one: `docker stack rm` of an application removes services before
//! networks, so it takes the leg along and the network goes the first time. With the last routed service of the network, or
//! with the controllers' own service, the controllers remove it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use sha2::{Digest as _, Sha256};

use super::desired::{CLUSTER_LABEL, INSTALLATION_LABEL, ROLE_LABEL, ServiceShape, UpdatePolicy};
use super::proxy::{LEGS_DIR, PROXY_USER, constraints_of, image_of, legs_volume, proxy_service_name};
use crate::id::{ClusterName, NetworkId};
use crate::settings::ClusterSettings;
use crate::swarm::model::{Network, STACK_LABEL};

/// Value of [`ROLE_LABEL`] on services of legs.
pub const LEG_ROLE: &str = "leg";
/// Service label of a leg: the network's id.
pub const NETWORK_LABEL: &str = "tidegate.network";
/// Longest name of a service that Docker takes.
const NAME_MAX: usize = 63;

/// What a leg depends on besides its cluster's settings.
#[derive(Clone, Copy, Debug)]
pub struct LegFacts<'a> {
    /// The installation: name of the controller's stack.
    pub installation: &'a str,
    /// Image of the controller, for clusters that name none.
    pub own_image: &'a str,
    /// Whether the Swarm has a node that is no manager.
    pub has_workers: bool,
    /// Constraints of the proxy service as it is; none before it is made.
    pub constraints: Option<&'a BTreeSet<String>>,
}

/// The leg of `network` for the proxies of `cluster`.
pub fn leg_shape(
    cluster: &ClusterName,
    settings: &ClusterSettings,
    network: &NetworkId,
    known: Option<&Network>,
    facts: &LegFacts<'_>,
) -> ServiceShape {
    let proxy = proxy_service_name(cluster, settings, facts.installation);
    let stack = known.and_then(|network| network.labels.get(STACK_LABEL));
    let labels = [
        (ROLE_LABEL, LEG_ROLE),
        (CLUSTER_LABEL, cluster.as_str()),
        (INSTALLATION_LABEL, facts.installation),
        (NETWORK_LABEL, network.as_str()),
        (STACK_LABEL, stack.map_or(facts.installation, String::as_str)),
    ];
    let env = [
        ("TIDEGATE_NETWORK", network.as_str()),
        ("TIDEGATE_LEGS_DIR", LEGS_DIR),
        ("TIDEGATE_LOG", &settings.log),
    ];
    ServiceShape {
        name: name(facts.installation, cluster, network, known),
        labels: labels
            .map(|(key, value)| (String::from(key), String::from(value)))
            .into(),
        image: image_of(settings, facts.own_image),
        args: vec![String::from("leg")],
        env: env.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        user: String::from(PROXY_USER),
        read_only: true,
        replicas: None,
        constraints: facts
            .constraints
            .cloned()
            .unwrap_or_else(|| constraints_of(settings, facts.has_workers)),
        // Nobody connects to a leg over its network.
        dnsrr: true,
        networks: BTreeSet::from([network.to_string()]),
        volumes: BTreeMap::from([(legs_volume(&proxy), String::from(LEGS_DIR))]),
        stop_signal: String::from("SIGTERM"),
        stop_grace_ms: 10_000,
        // The new leg takes the place of the old one's socket, so there is always one that answers.
        update: UpdatePolicy {
            parallelism: 0,
            start_first: true,
            ..UpdatePolicy::default()
        },
        ..ServiceShape::default()
    }
}

/// `<installation>_leg-<cluster>-<network>-<a bit of its id>`: networks of one name that come one after the other have legs
/// of their own. What is too long for Docker is cut, and a digest keeps it unique.
fn name(installation: &str, cluster: &ClusterName, network: &NetworkId, known: Option<&Network>) -> String {
    let title: String = known
        .map_or("", |network| &network.name)
        .chars()
        .map(|letter| match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' => letter,
            _ => '-',
        })
        .collect();
    let short: String = network
        .as_str()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(6)
        .collect();
    let name = format!("{installation}_leg-{cluster}-{title}");
    let whole = format!("{name}-{short}");
    if whole.len() <= NAME_MAX {
        return whole;
    }
    let hash = Sha256::digest(format!("{installation} {cluster} {network}").as_bytes());
    let digest: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let kept: String = name.chars().take(NAME_MAX - 1 - digest.len()).collect();
    format!("{kept}-{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network(name: &str, stack: Option<&str>) -> Network {
        let labels = stack.map(|stack| (String::from(STACK_LABEL), String::from(stack)));
        Network {
            id: NetworkId::from("k3v9x2m4p7q1"),
            name: String::from(name),
            swarm_scope: true,
            driver: String::from("overlay"),
            attachable: false,
            ingress: false,
            labels: labels.into_iter().collect(),
        }
    }

    fn shape(network: &Network, constraints: Option<&BTreeSet<String>>) -> ServiceShape {
        let facts = LegFacts {
            installation: "tidegate",
            own_image: "tidegate:1",
            has_workers: true,
            constraints,
        };
        let settings = ClusterSettings::default();
        leg_shape(
            &ClusterName::from("default"),
            &settings,
            &network.id,
            Some(network),
            &facts,
        )
    }

    #[test]
    fn a_leg_as_written() {
        let shape = shape(&network("shop_frontend", Some("shop")), None);
        insta::assert_snapshot!(serde_json::to_string_pretty(&shape).expect("a shape is JSON"));
    }

    #[test]
    fn it_holds_no_secret_publishes_no_port_and_is_on_its_network_alone() {
        let shape = shape(&network("shop_frontend", Some("shop")), None);
        assert!(shape.secrets.is_empty() && shape.ports.is_empty() && shape.read_only);
        assert_eq!(shape.networks, BTreeSet::from([String::from("k3v9x2m4p7q1")]));
        assert_eq!(shape.user, PROXY_USER);
    }

    #[test]
    fn a_network_without_a_stack_has_its_leg_in_the_stack_of_tidegate() {
        assert_eq!(shape(&network("apps", None), None).labels[STACK_LABEL], "tidegate");
        assert_eq!(
            shape(&network("shop_x", Some("shop")), None).labels[STACK_LABEL],
            "shop"
        );
    }

    #[test]
    fn it_follows_the_proxies_where_an_operator_put_them() {
        let edge = BTreeSet::from([String::from("node.labels.edge==1")]);
        assert_eq!(shape(&network("apps", None), Some(&edge)).constraints, edge);
        let workers = BTreeSet::from([String::from("node.role==worker")]);
        assert_eq!(shape(&network("apps", None), None).constraints, workers);
    }

    proptest! {
        #[test]
        fn names_are_such_as_docker_takes(installation in "[a-z][a-z0-9-]{0,30}", cluster in "[a-z][a-z0-9-]{0,39}", name_of in ".{0,80}", id in "[a-z0-9]{25}") {
            let (cluster, id) = (ClusterName::from(cluster), NetworkId::from(id));
            let known = Network { name: name_of, id: id.clone(), ..network("", None) };
            let made = name(&installation, &cluster, &id, Some(&known));
            prop_assert!(made.len() <= NAME_MAX, "{made}");
            prop_assert!(made.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{made}");
            prop_assert!(made.ends_with(|letter: char| letter.is_ascii_alphanumeric()));
            let other = NetworkId::from("zzzzzzzzzzzzzzzzzzzzzzzzz");
            prop_assert!(id == other || made != name(&installation, &cluster, &other, Some(&known)));
        }
    }
}
