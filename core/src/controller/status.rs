//! What a controller tells about itself.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use super::Controller;
use crate::id::ClusterName;
use crate::labels::Diagnostic;
use crate::secrets::CourierStatus;
use crate::snapshot::ProxyStatus;
use crate::time::Instant;

/// The state of a controller, for `tidegate status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerStatus {
    /// Whether the Swarm has been seen whole.
    pub synced: bool,
    /// Milliseconds since the oldest of the lists that matter was confirmed.
    pub staleness_ms: Option<u64>,
    /// By service cluster.
    pub clusters: BTreeMap<ClusterName, ClusterStatus>,
    /// The courier and the secrets that it brings, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub courier: Option<CourierStatus>,
    /// Findings about labels.
    pub diagnostics: Vec<Diagnostic>,
    /// What an operator should know about Docker and the proxy services.
    pub notices: Vec<String>,
}

/// The state of one service cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The present revision.
    pub revision: u64,
    /// Its digest.
    pub digest: String,
    /// What led to it.
    pub cause: String,
    /// Services that are routed.
    pub routes: usize,
    /// Connected proxies.
    pub proxies: Vec<ProxyStatus>,
}

impl Controller {
    /// The present state.
    pub fn status(&self, now: Instant) -> ControllerStatus {
        let clusters = self.publishers.iter().map(|(name, publisher)| {
            let status = ClusterStatus {
                revision: publisher.revision().0,
                digest: publisher.digest().to_string(),
                cause: publisher.cause().to_string(),
                routes: publisher.entries().get().len(),
                proxies: publisher.proxies(),
            };
            (name.clone(), status)
        });
        ControllerStatus {
            synced: self.world.is_synced(),
            staleness_ms: self.world.staleness(now).map(|age| age.as_millis() as u64),
            clusters: clusters.collect(),
            courier: self.ledger.status(),
            diagnostics: self.diagnostics().cloned().collect(),
            notices: self
                .trouble()
                .into_iter()
                .chain(self.fleet.iter().flat_map(|fleet| fleet.notices()))
                .collect(),
        }
    }
}
