//! What all requests of a worker share, whatever network they run over.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;
use tidegate_core::pool::prober::Unfit;
use tidegate_core::pool::{Picked, PoolPolicy};
use tidegate_core::rng::Rng;
use tidegate_core::route::{PoolKey, PoolSpec};
use tidegate_core::settings::proxy::ProxySettings;
use tidegate_core::time::{Duration, Instant, Timers};
use tokio::sync::Notify;

use super::WorkerConfig;
use super::pools::PoolHandle;
use crate::auth::Auth;
use crate::clock::Clock;
use crate::http::serve::DateCache;
use crate::telemetry::log::{AccessBuffer, AccessLog};
use crate::telemetry::metrics::Metrics;
use crate::upstream::trust::Trusts;

/// State of one worker.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) rng: RefCell<Rng>,
    pub(crate) auth: Auth,
    pub(crate) metrics: Metrics,
    pub(crate) access: AccessBuffer,
    pub(crate) proxy_id: HeaderValue,
    pub(crate) server_info: HeaderValue,
    /// TLS to endpoints.
    pub(crate) trusts: Trusts,
    serving: RefCell<Rc<ProxySettings>>,
    unfit: RefCell<Arc<Unfit>>,
    workers: u32,
    dates: DateCache,
    timers: RefCell<Timers<PoolKey>>,
    probes: RefCell<Vec<(Rc<PoolHandle>, Picked)>>,
    sweep_at: Cell<Option<Instant>>,
    /// The worker's loop is to look at timers and probes again.
    rearm: Notify,
    phase: Cell<Phase>,
    phase_changed: Notify,
    /// Connections and upgraded connections that are open.
    open: Cell<usize>,
    closed: Notify,
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// Finish what is under way.
    Draining,
    /// Time is up: close what is left.
    Leaving,
}

impl Shared {
    pub(crate) fn new(
        clock: Clock,
        rng: Rng,
        access: AccessLog,
        config: &WorkerConfig,
        settings: &ProxySettings,
    ) -> Self {
        let name = |text: &str| HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("tidegate"));
        Shared {
            clock,
            auth: Auth::new(config.secrets.clone(), &mut rng.fork("auth")),
            rng: RefCell::new(rng),
            metrics: Metrics::default(),
            access: AccessBuffer::new(access),
            proxy_id: name(&config.proxy_id),
            server_info: name(&config.server_info),
            trusts: Trusts::new(clock, config.secrets.clone()),
            serving: RefCell::new(Rc::new(settings.clone())),
            unfit: RefCell::new(Arc::clone(&config.unfit.borrow())),
            workers: config.workers,
            dates: DateCache::default(),
            timers: RefCell::new(Timers::new()),
            probes: RefCell::new(Vec::new()),
            sweep_at: Cell::new(None),
            rearm: Notify::new(),
            phase: Cell::new(Phase::Serving),
            phase_changed: Notify::new(),
            open: Cell::new(0),
            closed: Notify::new(),
        }
    }

    /// The settings that requests are served by now.
    pub(crate) fn serving(&self) -> Rc<ProxySettings> {
        Rc::clone(&self.serving.borrow())
    }

    pub(crate) fn set_serving(&self, settings: &ProxySettings) {
        *self.serving.borrow_mut() = Rc::new(settings.clone());
    }

    /// What a pool decides by on this worker.
    pub(crate) fn policy(&self, spec: &PoolSpec, settings: &ProxySettings) -> PoolPolicy {
        PoolPolicy::of(spec, settings).divided_among(self.workers)
    }

    /// The endpoints that fail their active checks.
    pub(crate) fn unfit(&self) -> Arc<Unfit> {
        Arc::clone(&self.unfit.borrow())
    }

    pub(crate) fn set_unfit(&self, unfit: Arc<Unfit>) {
        *self.unfit.borrow_mut() = unfit;
    }

    /// The `Date` of a response that begins now.
    pub(crate) fn date(&self) -> HeaderValue {
        self.dates.at(self.clock.wall())
    }

    /// A pool's deadline has moved.
    pub(crate) fn arm(&self, key: &PoolKey, at: Option<Instant>) {
        match at {
            Some(at) => self.timers.borrow_mut().set(key.clone(), at),
            None => self.timers.borrow_mut().clear(key),
        }
        self.rearm.notify_one();
    }

    /// A pool wants an endpoint probed.
    pub(crate) fn probe(&self, pool: &Rc<PoolHandle>, picked: Picked) {
        self.probes.borrow_mut().push((Rc::clone(pool), picked));
        self.rearm.notify_one();
    }

    /// A connection became idle: somebody must look at it later.
    pub(crate) fn sweep_soon(&self, now: Instant) {
        if self.sweep_at.get().is_none() {
            let idle = Duration::from_millis(self.serving.borrow().idle_connection_ms.into());
            self.sweep_at.set(Some(now + idle.max(Duration::from_millis(100)) / 2));
            self.rearm.notify_one();
        }
    }

    /// Whether idle connections are to be swept; the next sweep is set by the next connection that becomes idle.
    pub(crate) fn take_sweep(&self, now: Instant) -> bool {
        let due = self.sweep_at.get().is_some_and(|at| at <= now);
        if due {
            self.sweep_at.set(None);
        }
        due
    }

    pub(crate) fn take_due(&self, now: Instant) -> Option<PoolKey> {
        self.timers.borrow_mut().pop_due(now)
    }

    pub(crate) fn take_probes(&self) -> Vec<(Rc<PoolHandle>, Picked)> {
        self.probes.take()
    }

    /// The next moment at which the worker's loop has something to do.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let pools = self.timers.borrow().next().map(|(_, at)| at);
        [pools, self.sweep_at.get(), self.access.flush_at()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Returns when [`Shared::next_due`] may have changed.
    pub(crate) async fn rearmed(&self) {
        self.rearm.notified().await;
    }

    pub(crate) fn rearm(&self) {
        self.rearm.notify_one();
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.set(phase);
        self.phase_changed.notify_waiters();
    }

    /// Returns when the phase changes.
    pub(crate) async fn phase_change(&self) {
        self.phase_changed.notified().await;
    }

    /// Returns when what is left is to be closed.
    pub(crate) async fn leave_now(&self) {
        while self.phase.get() < Phase::Leaving {
            self.phase_change().await;
        }
    }

    pub(crate) fn open(&self) -> usize {
        self.open.get()
    }

    /// A connection opened; it counts until the guard is dropped.
    pub(crate) fn open_connection(self: &Rc<Self>) -> Open {
        self.open.set(self.open.get() + 1);
        self.metrics
            .connections_open
            .set(self.metrics.connections_open.get() + 1);
        self.metrics.connections.set(self.metrics.connections.get() + 1);
        Open {
            shared: Rc::clone(self),
            upgraded: false,
        }
    }

    /// A connection switched protocols; it counts until the guard is dropped.
    pub(crate) fn open_upgrade(self: &Rc<Self>) -> Open {
        self.open.set(self.open.get() + 1);
        self.metrics.upgrades_open.set(self.metrics.upgrades_open.get() + 1);
        self.metrics.upgrades.set(self.metrics.upgrades.get() + 1);
        Open {
            shared: Rc::clone(self),
            upgraded: true,
        }
    }

    /// Returns when a connection closes.
    pub(crate) async fn closed(&self) {
        self.closed.notified().await;
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Open {
    shared: Rc<Shared>,
    upgraded: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        let shared = &self.shared;
        let gauge = match self.upgraded {
            true => &shared.metrics.upgrades_open,
            false => &shared.metrics.connections_open,
        };
        gauge.set(gauge.get().saturating_sub(1));
        shared.open.set(shared.open.get().saturating_sub(1));
        shared.closed.notify_one();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("phase", &self.phase)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}
