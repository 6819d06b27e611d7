//! How the courier's service should look: one task off the edge, on the control network alone, with the secrets that labels
//! name. Pure, and the same for every controller.
//!
//! Another set of secrets makes another task, which Swarm starts before it stops the one before.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::desired::{INSTALLATION_LABEL, ROLE_LABEL, ServiceShape, UpdatePolicy};
use super::proxy::PROXY_USER;
use crate::id::NetworkId;
use crate::settings::ControllerSettings;
use crate::swarm::model::STACK_LABEL;

/// Value of [`ROLE_LABEL`] on the courier's service.
pub const COURIER_ROLE: &str = "courier";

/// What the courier's service depends on besides settings.
#[derive(Clone, Copy, Debug)]
pub struct CourierFacts<'a> {
    /// The installation: name of the controller's stack.
    pub installation: &'a str,
    /// Image of the controller.
    pub own_image: &'a str,
    /// The control network.
    pub control_network: &'a NetworkId,
    /// Environment of the process.
    pub env: &'a BTreeMap<String, String>,
    /// Secrets with its identity, and those that labels name: name -> file below `/run/secrets`.
    pub secrets: &'a BTreeMap<String, String>,
}

/// The courier's service.
pub fn courier_shape(settings: &ControllerSettings, facts: &CourierFacts<'_>) -> ServiceShape {
    // With the stack's label `docker stack rm` takes the courier along, and so sets secrets and control network free.
    let labels = [
        (ROLE_LABEL, COURIER_ROLE),
        (INSTALLATION_LABEL, facts.installation),
        (STACK_LABEL, facts.installation),
    ];
    let mut constraints: BTreeSet<String> = settings.courier_constraints.iter().cloned().collect();
    if constraints.is_empty() {
        constraints.insert(String::from("node.role==manager"));
    }
    ServiceShape {
        name: format!("{}_courier", facts.installation),
        labels: labels
            .map(|(key, value)| (String::from(key), String::from(value)))
            .into(),
        image: facts.own_image.to_string(),
        args: vec![String::from("courier")],
        env: facts.env.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        user: String::from(PROXY_USER),
        read_only: true,
        replicas: Some(1),
        constraints,
        // Nobody connects to it.
        dnsrr: true,
        networks: [facts.control_network.to_string()].into(),
        secrets: facts.secrets.clone(),
        stop_signal: String::from("SIGTERM"),
        stop_grace_ms: 5_000,
        health_command: Vec::from(["CMD", "/tidegate", "healthcheck"].map(String::from)),
        update: UpdatePolicy {
            start_first: true,
            // A secret that vanished meanwhile is no reason to go back to the set before: the next set mends it.
            failure_action: String::from("continue"),
            ..UpdatePolicy::default()
        },
        ..ServiceShape::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_courier_as_written() {
        let shape = courier_shape(
            &ControllerSettings::default(),
            &CourierFacts {
                installation: "tidegate",
                own_image: "tidegate:1",
                control_network: &NetworkId::from("net-control"),
                env: &BTreeMap::from([(
                    String::from("TIDEGATE_CONTROLLER"),
                    String::from("tasks.tidegate_controller:7171"),
                )]),
                secrets: &BTreeMap::from([(String::from("shop.cert"), String::from("shop.cert"))]),
            },
        );
        insta::assert_snapshot!(serde_json::to_string_pretty(&shape).expect("a shape is JSON"));
    }
}
