//! The data plane of a process: its workers, the table they serve by, and what they can tell.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use tidegate_core::id::EndpointId;
use tidegate_core::pool::EndpointView;
use tidegate_core::route::explain::{Claim, Explanation, Surroundings, explain};
use tidegate_core::route::{PoolKey, RouteTable};
use tidegate_core::snapshot::subscriber::Install;
use tokio::sync::watch;

use crate::secrets::Secrets;
use crate::telemetry::metrics;
use crate::tls::certificates::Certificates;
use crate::worker::{PoolView, WorkerLink};

/// The workers of this process, as seen from its control thread. Clones are the same workers.
#[derive(Clone, Debug)]
pub struct Front {
    tables: watch::Sender<Arc<RouteTable>>,
    links: Rc<Vec<WorkerLink>>,
    secrets: Secrets,
    certificates: Option<Certificates>,
}

impl Front {
    /// Over workers that take their tables from `tables`.
    pub fn new(tables: watch::Sender<Arc<RouteTable>>, links: Vec<WorkerLink>) -> Self {
        Front {
            tables,
            links: Rc::new(links),
            secrets: Secrets::default(),
            certificates: None,
        }
    }

    /// Lets tables want of `secrets`, and ends TLS with `certificates`.
    #[must_use]
    pub fn with_secrets(mut self, secrets: Secrets, certificates: Certificates) -> Self {
        self.secrets = secrets;
        self.certificates = Some(certificates);
        self
    }

    /// Puts a table to work. The future ends when every worker serves by it.
    pub fn install(&self, install: &Install) -> impl Future<Output = ()> + 'static {
        let next = Arc::new(match &install.changed {
            Some(changed) => self.tables.borrow().apply(&install.snapshot, changed),
            None => RouteTable::compile(&install.snapshot),
        });
        // Secrets and certificates first: no worker meets a host without its own.
        self.secrets.want(next.secrets());
        if let Some(certificates) = &self.certificates {
            certificates.install(&next);
        }
        self.tables.send_replace(next);
        let links = self.links.clone();
        async move {
            for link in links.iter() {
                link.applied().await;
            }
        }
    }

    /// The present table.
    pub fn table(&self) -> Arc<RouteTable> {
        self.tables.borrow().clone()
    }

    /// All pools as each worker sees them, one worker after the other.
    pub async fn pools(&self) -> Vec<PoolView> {
        let mut all = Vec::new();
        for link in self.links.iter() {
            all.extend(link.pools().await.into_iter().flatten());
        }
        all
    }

    /// Prometheus text of all workers.
    pub async fn metrics(&self) -> String {
        let mut workers = Vec::new();
        for link in self.links.iter() {
            workers.extend(link.metrics().await);
        }
        let mut text = metrics::render(&workers, &self.pools().await);
        if let Some(certificates) = &self.certificates {
            text += &certificates.metrics();
        }
        text
    }

    /// Why `url` is answered as it is.
    pub async fn explain(&self, url: &str, claims: &[Claim<'_>]) -> Explanation {
        let table = self.table();
        let told = |endpoint_state: &dyn Fn(&PoolKey, &EndpointId) -> Option<String>| {
            explain(&table, url, &Surroundings { claims, endpoint_state })
        };
        // Which pool it is about shows when it is explained; there may be thousands.
        let wanted = RefCell::new(BTreeSet::new());
        let explanation = told(&|pool, _| {
            wanted.borrow_mut().insert(pool.clone());
            None
        });
        let wanted = wanted.into_inner();
        if wanted.is_empty() {
            return explanation;
        }
        let mut pools = Vec::new();
        for link in self.links.iter() {
            pools.extend(link.pools_of(wanted.clone()).await.into_iter().flatten());
        }
        let states = states(&pools);
        told(&|pool, endpoint| states.get(&(pool.clone(), endpoint.clone())).cloned())
    }
}

type EndpointKey = (PoolKey, EndpointId);

/// One word per endpoint: that of the workers where they agree, else each with its number of workers.
fn states(pools: &[PoolView]) -> BTreeMap<EndpointKey, String> {
    let mut seen: BTreeMap<EndpointKey, BTreeMap<&'static str, u32>> = BTreeMap::new();
    for pool in pools {
        for EndpointView { id, state, .. } in &pool.endpoints {
            *seen
                .entry((pool.key.clone(), id.clone()))
                .or_default()
                .entry(state.name())
                .or_default() += 1;
        }
    }
    let word = |states: BTreeMap<&'static str, u32>| match states.len() {
        1 => states.into_keys().collect(),
        _ => {
            let parts: Vec<String> = states
                .into_iter()
                .map(|(state, workers)| format!("{state} on {workers}"))
                .collect();
            parts.join(", ")
        }
    };
    seen.into_iter().map(|(key, states)| (key, word(states))).collect()
}
