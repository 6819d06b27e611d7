//! What each role tells about itself on the admin listener.

use std::path::PathBuf;

use tidegate_core::id::ClusterName;
use tidegate_core::route::RouteTable;
use tidegate_core::route::explain::{Claim, Explanation, Surroundings, explain};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::controller::{ControllerQuery, ControllerState};
use super::file::FileStatus;
use super::proxy::Front;
use crate::admin::{Admin, Routes};
use crate::control::subscribe::SubscriptionStatus;
use crate::secrets::Secrets;
use crate::telemetry::{control, metrics};

const STARTING: &str = "the controller does not answer: it is starting or stopping";

/// What a controller tells.
#[derive(Clone, Debug)]
pub struct ControllerAdmin {
    /// Asks the controller's loop.
    pub queries: mpsc::Sender<ControllerQuery>,
}

impl ControllerAdmin {
    async fn state(&self) -> Option<ControllerState> {
        let (ask, answer) = oneshot::channel();
        self.queries.send(ControllerQuery::State(ask)).await.ok()?;
        answer.await.ok()
    }

    async fn recorded(&self) -> Option<Result<String, String>> {
        let (ask, answer) = oneshot::channel();
        self.queries.send(ControllerQuery::Recording(ask)).await.ok()?;
        answer.await.ok()
    }
}

impl Admin for ControllerAdmin {
    /// Ready once the Swarm was seen whole; not less ready when Docker fails later, since proxies serve on.
    async fn unready(&self) -> Option<String> {
        match self.state().await {
            None => Some(STARTING.to_owned()),
            Some(state) if !state.status.synced => {
                let mut why = "the Swarm has not been seen whole yet".to_owned();
                state
                    .status
                    .notices
                    .iter()
                    .for_each(|notice| why.extend(["; ", notice]));
                Some(why)
            }
            Some(_) => None,
        }
    }

    async fn metrics(&self) -> String {
        self.state()
            .await
            .map(|state| control::controller(&state))
            .unwrap_or_default()
    }

    async fn status(&self) -> serde_json::Value {
        match self.state().await {
            None => serde_json::json!({ "role": "controller", "error": STARTING }),
            Some(state) => serde_json::json!({
                "role": "controller",
                "version": env!("CARGO_PKG_VERSION"),
                "controller": state.status,
            }),
        }
    }

    async fn routes(&self) -> Routes {
        let Some(state) = self.state().await else {
            return Routes::default();
        };
        let table = |snapshot| RouteTable::compile(snapshot).canonical_text();
        let tables = state
            .snapshots
            .iter()
            .map(|(name, snapshot)| (name.to_string(), table(snapshot)));
        Routes {
            tables: tables.collect(),
            diagnostics: state.status.diagnostics,
        }
    }

    async fn recording(&self) -> Result<String, String> {
        self.recorded().await.unwrap_or_else(|| Err(STARTING.to_owned()))
    }

    async fn explain(&self, url: &str) -> Vec<(String, Explanation)> {
        let Some(state) = self.state().await else {
            return Vec::new();
        };
        let claims: Vec<Claim<'_>> = state.claims.iter().map(|claim| claim.as_claim()).collect();
        let surroundings = Surroundings {
            claims: &claims,
            ..Surroundings::NONE
        };
        let explained = state.snapshots.iter().map(|(name, snapshot)| {
            (
                name.to_string(),
                explain(&RouteTable::compile(snapshot), url, &surroundings),
            )
        });
        explained.collect()
    }
}

/// What a proxy tells.
#[derive(Clone, Debug)]
pub struct ProxyAdmin {
    /// Its service cluster.
    pub cluster: ClusterName,
    /// Its workers; none before the first table.
    pub front: watch::Receiver<Option<Front>>,
    /// Its subscription.
    pub subscription: watch::Receiver<SubscriptionStatus>,
    /// The secrets that its table names.
    pub secrets: Secrets,
    /// Cancelled when it drains.
    pub drain: CancellationToken,
}

impl Admin for ProxyAdmin {
    async fn unready(&self) -> Option<String> {
        if self.drain.is_cancelled() {
            return Some("draining".to_owned());
        }
        let none = self.front.borrow().is_none();
        none.then(|| "no table yet: no controller is heard and none was stored".to_owned())
    }

    async fn metrics(&self) -> String {
        let own = control::proxy(&self.subscription.borrow());
        own + &front_metrics(&self.front).await
    }

    async fn status(&self) -> serde_json::Value {
        serde_json::json!({
            "role": "proxy",
            "version": env!("CARGO_PKG_VERSION"),
            "cluster": self.cluster,
            "draining": self.drain.is_cancelled(),
            "subscription": *self.subscription.borrow(),
            "findings": self.secrets.findings().borrow().iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }

    async fn routes(&self) -> Routes {
        Routes {
            tables: vec![(self.cluster.to_string(), front_table(&self.front))],
            diagnostics: Vec::new(),
        }
    }

    async fn explain(&self, url: &str) -> Vec<(String, Explanation)> {
        vec![(self.cluster.to_string(), front_explain(&self.front, url, &[]).await)]
    }
}

/// What `tidegate run --source docker` tells: the controller's claims and the workers' states.
#[derive(Clone, Debug)]
pub struct RunAdmin {
    /// The controller.
    pub controller: ControllerAdmin,
    /// The workers.
    pub front: watch::Receiver<Option<Front>>,
    /// Cancelled when they drain.
    pub drain: CancellationToken,
}

impl Admin for RunAdmin {
    async fn unready(&self) -> Option<String> {
        if self.drain.is_cancelled() {
            return Some("draining".to_owned());
        }
        self.controller.unready().await
    }

    async fn metrics(&self) -> String {
        self.controller.metrics().await + &front_metrics(&self.front).await
    }

    async fn status(&self) -> serde_json::Value {
        self.controller.status().await
    }

    async fn routes(&self) -> Routes {
        self.controller.routes().await
    }

    async fn recording(&self) -> Result<String, String> {
        self.controller.recording().await
    }

    async fn explain(&self, url: &str) -> Vec<(String, Explanation)> {
        let claims = self
            .controller
            .state()
            .await
            .map(|state| state.claims)
            .unwrap_or_default();
        let claims: Vec<Claim<'_>> = claims.iter().map(|claim| claim.as_claim()).collect();
        vec![(
            ClusterName::DEFAULT.to_owned(),
            front_explain(&self.front, url, &claims).await,
        )]
    }
}

/// What `tidegate run --source file:…` tells.
#[derive(Clone, Debug)]
pub struct FileAdmin {
    /// The workers.
    pub front: watch::Receiver<Option<Front>>,
    /// The file.
    pub status: watch::Receiver<FileStatus>,
    /// Where it is.
    pub path: PathBuf,
}

impl Admin for FileAdmin {
    async fn unready(&self) -> Option<String> {
        self.front
            .borrow()
            .is_none()
            .then(|| "the file has not been read yet".to_owned())
    }

    async fn metrics(&self) -> String {
        front_metrics(&self.front).await
    }

    async fn status(&self) -> serde_json::Value {
        let status = self.status.borrow();
        serde_json::json!({
            "role": "run",
            "version": env!("CARGO_PKG_VERSION"),
            "source": format!("file:{}", self.path.display()),
            "error": status.error,
            "diagnostics": status.diagnostics,
        })
    }

    async fn routes(&self) -> Routes {
        let diagnostics = self.status.borrow().diagnostics.clone();
        Routes {
            tables: vec![(ClusterName::DEFAULT.to_owned(), front_table(&self.front))],
            diagnostics,
        }
    }

    async fn explain(&self, url: &str) -> Vec<(String, Explanation)> {
        let status = self.status.borrow().clone();
        let claims: Vec<Claim<'_>> = status.claims.iter().map(|claim| claim.as_claim()).collect();
        vec![(
            ClusterName::DEFAULT.to_owned(),
            front_explain(&self.front, url, &claims).await,
        )]
    }
}

fn front_table(front: &watch::Receiver<Option<Front>>) -> String {
    front
        .borrow()
        .as_ref()
        .map(|front| front.table().canonical_text())
        .unwrap_or_default()
}

async fn front_metrics(front: &watch::Receiver<Option<Front>>) -> String {
    let front = front.borrow().clone();
    match front {
        Some(front) => front.metrics().await,
        None => metrics::render(&[], &[]),
    }
}

async fn front_explain(front: &watch::Receiver<Option<Front>>, url: &str, claims: &[Claim<'_>]) -> Explanation {
    let front = front.borrow().clone();
    match front {
        Some(front) => front.explain(url, claims).await,
        None => explain(
            &RouteTable::default(),
            url,
            &Surroundings {
                claims,
                ..Surroundings::NONE
            },
        ),
    }
}
