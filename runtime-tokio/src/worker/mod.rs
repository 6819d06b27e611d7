//! One worker: a listener, the connections it accepted, the pools they lead to. It shares nothing with its siblings but
//! the route table, so a request meets no lock and no counter of another thread.
//!
//! Waits and never decides: rules are `core::route`, endpoints `core::pool`, what a request must be `core::request`.
//!
//! In production [`spawn_workers`] gives each worker an OS thread with a current-thread runtime; simulations call
//! [`run_worker`] inside their own.

pub(crate) mod pools;
mod prober;
mod run;
pub(crate) mod serving;
mod shared;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tidegate_core::pool::prober::Unfit;
use tidegate_core::rng::Rng;
use tidegate_core::route::{PoolKey, RouteTable};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use pools::PoolView;
pub use prober::{ProberDeps, start_prober};
pub use run::run_worker;
pub(crate) use run::{TlsRoute, Worker};
pub(crate) use shared::{Open, Phase, Shared};

use crate::clock::Clock;
use crate::net::Net;
use crate::secrets::Secrets;
use crate::telemetry::log::AccessLog;
use crate::telemetry::metrics::WorkerMetrics;
use crate::tls::TlsListen;

/// What a worker is made of.
#[derive(Debug)]
pub struct WorkerDeps<N: Net> {
    /// Sockets.
    pub net: N,
    /// Time.
    pub clock: Clock,
    /// Chance; give each worker its own fork.
    pub rng: Rng,
    /// The table, and every new one.
    pub tables: watch::Receiver<Arc<RouteTable>>,
    /// Cancelled when the worker is to stop accepting, finish and return.
    pub drain: CancellationToken,
    /// Where access lines go.
    pub access: AccessLog,
    /// Questions from the admin side.
    pub queries: mpsc::Receiver<Query>,
    /// Told which address was bound, or why none.
    pub bound: oneshot::Sender<io::Result<SocketAddr>>,
    /// Told which address was bound for TLS, if one is.
    pub bound_tls: oneshot::Sender<SocketAddr>,
}

/// The other ends of a worker's channels.
#[derive(Debug)]
pub struct WorkerLink {
    /// Asks the worker; it answers between two events, also while it drains.
    pub queries: mpsc::Sender<Query>,
    /// The address that was bound, or why none.
    pub bound: oneshot::Receiver<io::Result<SocketAddr>>,
    /// The address that was bound for TLS, if one is.
    pub bound_tls: oneshot::Receiver<SocketAddr>,
}

/// What a worker is told once, at its start. Everything that may change comes with the table's settings.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where to take TLS connections, if anywhere.
    pub tls: Option<TlsListen>,
    /// Names this proxy in `x-proxy-id`.
    pub proxy_id: String,
    /// Names this version in `x-server-info`.
    pub server_info: String,
    /// The secrets that the tables' routes want.
    pub secrets: Secrets,
    /// The endpoints that fail their active checks, see [`start_prober`]; none where there is no prober.
    pub unfit: watch::Receiver<Arc<Unfit>>,
    /// Workers of the process, this one included, among which limits of endpoints are divided.
    pub workers: u32,
    /// Client connections that this worker serves at once; beyond it, clients wait in the listener's backlog.
    pub connections_max: usize,
}

impl WorkerConfig {
    /// Defaults: one worker, 16,384 connections, this version's name.
    pub fn new(listen: SocketAddr, proxy_id: &str) -> Self {
        WorkerConfig {
            listen,
            tls: None,
            proxy_id: proxy_id.to_owned(),
            server_info: server_info(),
            secrets: Secrets::default(),
            unfit: watch::channel(Arc::default()).1,
            workers: 1,
            connections_max: 16_384,
        }
    }
}

/// `tidegate/v1.2.3 (27b903b2) linux/amd64`, in the words of Docker; the revision where the build was told it.
fn server_info() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let revision = option_env!("TIDEGATE_REVISION").filter(|revision| !revision.is_empty());
    let revision = revision.map_or(String::new(), |revision| format!(" ({revision})"));
    format!(
        "tidegate/v{}{revision} {}/{arch}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS
    )
}

/// Questions that a worker answers. Before each it takes the present table, if it has not yet.
#[derive(Debug)]
pub enum Query {
    /// Nothing but that.
    Applied(oneshot::Sender<()>),
    /// Counts of this worker, without its pools'.
    Metrics(oneshot::Sender<WorkerMetrics>),
    /// All pools, or those with one of these keys.
    Pools(Option<BTreeSet<PoolKey>>, oneshot::Sender<Vec<PoolView>>),
}

impl<N: Net> WorkerDeps<N> {
    /// Dependencies and their other ends.
    pub fn new(
        net: N,
        clock: Clock,
        rng: Rng,
        tables: watch::Receiver<Arc<RouteTable>>,
        drain: CancellationToken,
        access: AccessLog,
    ) -> (Self, WorkerLink) {
        let (ask, queries) = mpsc::channel(16);
        let (bound, tell) = oneshot::channel();
        let (bound_tls, tell_tls) = oneshot::channel();
        let deps = WorkerDeps {
            net,
            clock,
            rng,
            tables,
            drain,
            access,
            queries,
            bound,
            bound_tls,
        };
        let link = WorkerLink {
            queries: ask,
            bound: tell,
            bound_tls: tell_tls,
        };
        (deps, link)
    }
}

impl WorkerLink {
    /// Returns when the worker serves by the table that was sent last, or has ended.
    pub async fn applied(&self) {
        let (ask, answer) = oneshot::channel();
        if self.queries.send(Query::Applied(ask)).await.is_ok() {
            answer.await.ok(); // ended
        }
    }

    /// Counts of this worker; `None` when it has ended.
    pub async fn metrics(&self) -> Option<WorkerMetrics> {
        let (ask, answer) = oneshot::channel();
        self.queries.send(Query::Metrics(ask)).await.ok()?;
        answer.await.ok()
    }

    /// All pools as this worker sees them, by key; `None` when it has ended.
    pub async fn pools(&self) -> Option<Vec<PoolView>> {
        self.ask_for_pools(None).await
    }

    /// The same for the pools `of`, as far as they are there.
    pub async fn pools_of(&self, of: BTreeSet<PoolKey>) -> Option<Vec<PoolView>> {
        self.ask_for_pools(Some(of)).await
    }

    async fn ask_for_pools(&self, of: Option<BTreeSet<PoolKey>>) -> Option<Vec<PoolView>> {
        let (ask, answer) = oneshot::channel();
        self.queries.send(Query::Pools(of, ask)).await.ok()?;
        answer.await.ok()
    }
}

/// Runs each worker on a thread of its own, named `worker-0`, `worker-1`, …; the threads end when their workers do.
///
/// Give all the same port: the kernel deals connections out among listeners that share one (`SO_REUSEPORT`).
pub fn spawn_workers<N: Net + Send>(
    workers: Vec<(WorkerDeps<N>, WorkerConfig)>,
) -> io::Result<Vec<JoinHandle<io::Result<()>>>> {
    workers
        .into_iter()
        .enumerate()
        .map(|(index, (deps, config))| {
            std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                    tokio::task::LocalSet::new().block_on(&runtime, run_worker(deps, config))
                })
        })
        .collect()
}
