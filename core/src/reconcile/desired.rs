//! The shape of a service that Tidegate owns: every field that Tidegate sets, and no other. What a shape does not name
//! stays as the operator left it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use crate::id::{ServiceId, Version};
use crate::swarm::model::{PublishMode, PublishedPort};

/// Service label that marks what Tidegate manages: `controller`, `proxy` or `leg`.
pub const ROLE_LABEL: &str = "tidegate.role";
/// Service label of a proxy service: its service cluster.
pub const CLUSTER_LABEL: &str = "tidegate.cluster";
/// Service label of everything Tidegate made: the installation (stack) whose controllers look after it.
pub const INSTALLATION_LABEL: &str = "tidegate.installation";
/// Service label with the shape that Tidegate wrote last, as JSON: a field that an operator changed since is theirs.
pub const APPLIED_LABEL: &str = "tidegate.applied";

/// A managed service as Docker has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedService {
    /// `ID`
    pub id: ServiceId,
    /// `Version.Index`: the key of the next write.
    pub version: Version,
    /// Its present shape.
    pub shape: ServiceShape,
    /// What its tasks are made of, as text, but for placement and secrets: who runs by another one has other settings.
    #[serde(default)]
    pub template: String,
    /// `UpdateStatus.State`, where Docker gives one.
    pub update_state: Option<String>,
}

/// What Tidegate sets on a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceShape {
    /// `Name`
    pub name: String,
    /// `Labels`
    pub labels: BTreeMap<String, String>,
    /// `ContainerSpec.Labels`
    pub container_labels: BTreeMap<String, String>,
    /// `ContainerSpec.Image`
    pub image: String,
    /// `ContainerSpec.Args`
    pub args: Vec<String>,
    /// `ContainerSpec.Env`, `KEY=value`
    pub env: BTreeSet<String>,
    /// `ContainerSpec.User`; empty = the image's.
    pub user: String,
    /// `ContainerSpec.ReadOnly`
    pub read_only: bool,
    /// `Mode.Replicated.Replicas`; none = global.
    pub replicas: Option<u64>,
    /// `Placement.Constraints`
    pub constraints: BTreeSet<String>,
    /// `Placement.Preferences`: spread descriptors, in order.
    pub spread: Vec<String>,
    /// `EndpointSpec.Ports`
    pub ports: BTreeSet<PublishedPort>,
    /// Whether the endpoint mode is `dnsrr`.
    pub dnsrr: bool,
    /// `TaskTemplate.Networks[].Target`: ids.
    pub networks: BTreeSet<String>,
    /// Named volumes: name -> path in the container.
    pub volumes: BTreeMap<String, String>,
    /// Secrets: name -> file name below `/run/secrets`.
    pub secrets: BTreeMap<String, String>,
    /// `ContainerSpec.StopSignal`
    pub stop_signal: String,
    /// `ContainerSpec.StopGracePeriod` in milliseconds.
    pub stop_grace_ms: u64,
    /// `ContainerSpec.Healthcheck`: command and interval; empty = none. First item is `CMD`.
    pub health_command: Vec<String>,
    /// `UpdateConfig`
    pub update: UpdatePolicy,
}

/// `UpdateConfig` of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdatePolicy {
    /// `Parallelism`; 0 = all at once.
    pub parallelism: u64,
    /// `Delay` in milliseconds.
    pub delay_ms: u64,
    /// `Order == "start-first"`. With a host-mode port this hangs for ever (facts §6), so it is never combined.
    pub start_first: bool,
    /// `FailureAction`: `rollback`, `pause` or `continue`.
    pub failure_action: String,
    /// `Monitor` in milliseconds.
    pub monitor_ms: u64,
}

impl Default for UpdatePolicy {
    fn default() -> Self {
        UpdatePolicy {
            parallelism: 1,
            delay_ms: 0,
            start_first: false,
            failure_action: String::from("rollback"),
            monitor_ms: 5_000,
        }
    }
}

/// A TCP port as a proxy service publishes it.
pub fn published_tcp(published: u16, target: u16, mode: PublishMode) -> PublishedPort {
    PublishedPort {
        tcp: true,
        target,
        published: Some(published),
        mode,
    }
}
