//! The operator's settings: text to values, with a clear word about each key that cannot be honoured.
//!
//! Three layers say the same things, the later wins: the file (TOML), environment variables
//! (`TIDEGATE_CLUSTERS__DEFAULT__HTTP_PORT=8080`, two underscores between levels) and flags
//! (`--set clusters.default.http_port=8080`). A key that is unknown or has a wrong value becomes a [`Finding`]; all
//! findings are collected, so an operator mends a file in one go.

pub mod ciphers;
pub mod cluster;
mod file;
pub mod log_format;
pub mod proxy;

pub use cluster::{CertificateSource, ClusterSettings, NetworkPolicy};
pub use file::{Finding, Layer, load};

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use crate::id::ClusterName;

/// Everything an operator can set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The controller itself.
    pub controller: ControllerSettings,
    /// One proxy service per entry. Without any there is one, named `default`.
    pub clusters: BTreeMap<ClusterName, ClusterSettings>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            controller: ControllerSettings::default(),
            clusters: BTreeMap::from([(ClusterName::default_cluster(), ClusterSettings::default())]),
        }
    }
}

/// Settings of the controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ControllerSettings {
    /// Where Docker answers: `unix:///path` or `tcp://host:port`. Default `unix:///var/run/docker.sock`.
    pub docker: String,
    /// Milliseconds for one call to Docker. Default 2000: a call that spans an election hangs 20 s (facts §4).
    pub docker_timeout_ms: u32,
    /// Overlay network between controllers and proxies, by name. Made where it does not exist. Default
    /// `tidegate-control`.
    pub control_network: String,
    /// Address that proxies connect to, on the control network. Default `0.0.0.0:7171`.
    pub listen: String,
    /// Placement constraints of the courier, which holds the secrets that labels name; none = `node.role==manager`: managers
    /// hold them anyway.
    #[serde(deserialize_with = "cluster::list")]
    pub courier_constraints: Vec<String>,
    /// Change nothing in Docker: log what would have been changed. Default false.
    pub read_only: bool,
    /// Milliseconds between full looks at all tasks, the safety net under events; 0 = none, events alone. Default 5000.
    pub poll_tasks_ms: u32,
    /// Milliseconds between looks at the tasks of services that change. Default 50.
    pub poll_changing_ms: u32,
    /// SwarmKit's control socket, to be told of task changes instead of polling for them; empty = poll. Default empty.
    pub swarm_watch: String,
}

impl Default for ControllerSettings {
    fn default() -> Self {
        ControllerSettings {
            docker: String::from("unix:///var/run/docker.sock"),
            docker_timeout_ms: 2_000,
            control_network: String::from("tidegate-control"),
            listen: String::from("0.0.0.0:7171"),
            courier_constraints: Vec::new(),
            read_only: false,
            poll_tasks_ms: 5_000,
            poll_changing_ms: 50,
            swarm_watch: String::new(),
        }
    }
}
