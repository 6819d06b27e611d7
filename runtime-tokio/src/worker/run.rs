//! The loop of a worker.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http::uri::PathAndQuery;
use rustls::ServerConfig;
use tidegate_core::pool::Picked;
use tidegate_core::request::fault::{ClientFault, Fault};
use tidegate_core::request::origin::Origin;
use tidegate_core::route::{Decision, PoolKey, RouteTable, Scheme, TlsDecision, slash_redirect, strip};
use tidegate_core::time::Duration;
use tidegate_core::tls::redirect::to_https;
use tokio::sync::watch;
use tokio::task::{spawn_local, yield_now};
use tracing::{debug, info, warn};

use super::pools::PoolHandle;
use super::shared::Phase;
use super::{Query, Shared, WorkerConfig, WorkerDeps};
use crate::http::exchange::Exchange;
use crate::listen::{self, Acceptor};
use crate::net::Net;
use crate::tls;
use crate::tls::certificates::Served;
use crate::upstream::connect::{self, Wants};

/// Between two warnings that connections cannot be accepted: this happens many times a second where it happens.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// From the drain's begin to the listeners' end, which come once nothing waits in them: what a client's kernel began before
/// arrives meanwhile, one round trip later. Who comes later is told at its second SYN, 1 s after the first one.
const LINGER: Duration = Duration::from_millis(250);

/// A worker as its connections see it.
pub(crate) struct Worker<N: Net> {
    pub(crate) shared: Rc<Shared>,
    pub(crate) net: N,
    pub(crate) acceptor: Acceptor,
    certificates: Option<watch::Receiver<Arc<Served>>>,
    table: RefCell<Arc<RouteTable>>,
    pools: RefCell<BTreeMap<PoolKey, Rc<PoolHandle>>>,
}

/// What becomes of a TLS connection.
pub(crate) enum TlsRoute {
    /// The service does not serve this client.
    NotAllowed,
    /// It goes to this pool as it is.
    Passthrough(Rc<PoolHandle>),
    /// TLS ends here.
    Terminate(Arc<ServerConfig>),
    /// Nobody serves the name over TLS, or there is no certificate for it yet.
    Unknown,
}

/// Serves until `drain` is cancelled and everything under way has ended, or the drain limit is over.
///
/// # Errors
///
/// Where the address cannot be bound; `bound` says so too.
pub async fn run_worker<N: Net>(deps: WorkerDeps<N>, config: WorkerConfig) -> io::Result<()> {
    let WorkerDeps {
        net,
        clock,
        rng,
        mut tables,
        drain,
        access,
        mut queries,
        bound,
        bound_tls,
    } = deps;
    let bound_both = bind(&net, &config).await;
    let (listener, mut tls_listener) = match bound_both {
        Ok(listeners) => listeners,
        Err(error) => {
            let copy = io::Error::new(error.kind(), error.to_string());
            let _ = bound.send(Err(copy)); // nobody may care
            return Err(error);
        }
    };
    let local = net.local_addr(&listener)?;
    match &tls_listener {
        Some(listener) => {
            let _ = bound_tls.send(net.local_addr(listener)?); // nobody may care
        }
        None => drop(bound_tls),
    }
    let table = Arc::clone(&tables.borrow_and_update());
    let shared = Rc::new(Shared::new(clock, rng, access, &config, table.settings()));
    let worker = Rc::new(Worker {
        acceptor: Acceptor::new(local, table.settings()),
        certificates: config.tls.as_ref().map(|tls| tls.certificates.clone()),
        net,
        table: RefCell::new(Arc::new(RouteTable::default())),
        pools: RefCell::new(BTreeMap::new()),
        shared: Rc::clone(&shared),
    });
    worker.apply(table);
    info!(addr = %local, "listening");
    let _ = bound.send(Ok(local)); // nobody may care
    let mut listener = Some(listener);
    let mut secrets = config.secrets.changes();
    let mut unfit = config.unfit.clone();
    let (mut deaf_at, mut give_up_at) = (None, None);
    let mut complained_at = None;
    let mut tls_first = false;
    loop {
        let lingered = deaf_at.is_some_and(|at| clock.now() >= at);
        let closes_at = deaf_at.filter(|_| !lingered);
        let due = [shared.next_due(), closes_at, give_up_at].into_iter().flatten().min();
        let connections_max = match shared.serving().connections_max {
            0 => config.connections_max,
            max => config.connections_max.min(max as usize),
        };
        let has_room = shared.open() < connections_max;
        let accept = async {
            match &listener {
                Some(listener) if has_room => worker.net.accept(listener).await,
                Some(_) | None => std::future::pending().await,
            }
        };
        let accept_tls = async {
            match &tls_listener {
                Some(listener) if has_room => worker.net.accept(listener).await,
                Some(_) | None => std::future::pending().await,
            }
        };
        // The ports take turns at being asked first, so that a flood on one starves no client of the other.
        let accept = async {
            let mut accept = pin!(accept);
            let mut accept_tls = pin!(accept_tls);
            if tls_first {
                tokio::select! { biased;
                    accepted = &mut accept_tls => (accepted, true),
                    accepted = &mut accept => (accepted, false),
                }
            } else {
                tokio::select! { biased;
                    accepted = &mut accept => (accepted, false),
                    accepted = &mut accept_tls => (accepted, true),
                }
            }
        };
        tokio::select! { biased;
            () = drain.cancelled(), if give_up_at.is_none() => {
                for listener in [&listener, &tls_listener].into_iter().flatten() {
                    if let Err(error) = worker.net.turn_away(listener) {
                        debug!(%error, "the kernel goes on beginning connections until the port is closed");
                    }
                }
                shared.set_phase(Phase::Draining);
                let limit = Duration::from_millis(shared.serving().drain_ms.into());
                deaf_at = Some(clock.now() + LINGER.min(limit));
                give_up_at = Some(clock.now() + limit);
                info!(open = shared.open(), ?limit, "draining");
            }
            () = clock.sleep_until(due) => {}
            Ok(()) = tables.changed() => {
                let table = Arc::clone(&tables.borrow_and_update());
                worker.apply(table);
            }
            Ok(()) = secrets.changed() => {
                for pool in worker.pools.borrow().values() {
                    pool.handle_secrets();
                }
            }
            Ok(()) = unfit.changed() => {
                shared.set_unfit(Arc::clone(&unfit.borrow_and_update()));
                for pool in worker.pools.borrow().values() {
                    pool.handle_unfit();
                }
            }
            Some(query) = queries.recv() => {
                // Whoever asks after sending a table must find it served.
                if tables.has_changed().unwrap_or(false) {
                    let table = Arc::clone(&tables.borrow_and_update());
                    worker.apply(table);
                }
                worker.answer(query);
            }
            () = shared.rearmed() => {}
            () = shared.closed() => {}
            accepted = accept => match accepted {
                (Ok((stream, peer)), false) => {
                    tls_first = true;
                    listen::serve(&worker, stream, peer);
                }
                (Ok((stream, peer)), true) => {
                    tls_first = false;
                    tls::serve(&worker, stream, peer);
                }
                (Err(error), _) => {
                    // Out of files, or the client is gone already: neither ends a worker.
                    shared.metrics.accept_errors.set(shared.metrics.accept_errors.get() + 1);
                    if complained_at.is_none_or(|at| clock.now().since(at) >= COMPLAIN_EVERY) {
                        complained_at = Some(clock.now());
                        warn!(%error, open = shared.open(), "accepting connections fails");
                    }
                    let pause = clock.now() + Duration::from_millis(20);
                    clock.sleep_until(Some(pause)).await;
                }
            },
            // Ready once the kernel was asked again: what came while this thread stood still is not known before. At a limit of
            // connections, what waits is taken as others end.
            () = yield_now(), if lingered && has_room => (listener, tls_listener, deaf_at) = (None, None, None),
        }
        worker.handle_due();
        if give_up_at.is_some_and(|at| clock.now() >= at) || (listener.is_none() && shared.open() == 0) {
            break;
        }
    }
    drop((listener, tls_listener));
    let left = shared.open();
    shared.set_phase(Phase::Leaving);
    for pool in worker.pools.take().into_values() {
        pool.retire();
    }
    if left > 0 {
        warn!(left, "closing what did not end in time");
        while shared.open() > 0 {
            shared.closed().await;
        }
    }
    shared.access.flush();
    info!("drained");
    Ok(())
}

async fn bind<N: Net>(net: &N, config: &WorkerConfig) -> io::Result<(N::Listener, Option<N::Listener>)> {
    let listener = net.listen(config.listen).await?;
    let tls_listener = match &config.tls {
        Some(tls) => Some(net.listen(tls.addr).await?),
        None => None,
    };
    Ok((listener, tls_listener))
}

impl<N: Net> Worker<N> {
    /// The pool for a host and target, and the target to forward where it differs.
    pub(crate) fn route(
        &self,
        host: Option<&str>,
        target: &str,
        exchange: &Exchange,
    ) -> Result<(Rc<PoolHandle>, Option<PathAndQuery>), Fault> {
        let table = self.table.borrow();
        // RFC 9112 §3.2.4: `*` asks about the server as a whole.
        let target = if target == "*" { "/" } else { target };
        let to_https = || Fault::Redirect {
            location: to_https(host.unwrap_or_default(), target, table.settings().https_port),
        };
        let (is_https, is_tls) = (exchange.is_https(), exchange.client().tls);
        let scheme = if is_https { Scheme::Https } else { Scheme::Http };
        match table.route_over(scheme, host, target) {
            Decision::Forward(rule) if rule.tls_only && !is_https => Err(to_https()),
            Decision::Passthrough { redirect: true } if !is_https => Err(to_https()),
            Decision::Passthrough { .. } => Err(Fault::TlsAlone {
                host: host.unwrap_or_default().to_owned(),
                misdirected: is_tls,
            }),
            Decision::Forward(rule) => {
                let pools = self.pools.borrow();
                let pool = pools.get(&rule.pool).expect("each rule leads to a pool of its table");
                if !pool.allows(exchange.origin()) {
                    return Err(Fault::NotAllowed);
                }
                if table.settings().redirect_to_slash
                    && let Some(location) = slash_redirect(rule, target)
                {
                    return Err(Fault::ToSlash { location });
                }
                let forwarded = strip(rule, target);
                let rewritten = match &forwarded {
                    Cow::Borrowed(same) if same.len() == target.len() => None,
                    Cow::Borrowed(_) | Cow::Owned(_) => Some(
                        PathAndQuery::try_from(forwarded.as_ref()).map_err(|_| Fault::from(ClientFault::BadTarget))?,
                    ),
                };
                Ok((Rc::clone(pool), rewritten))
            }
            Decision::Redirect(rule) => Err(Fault::Redirect {
                location: rule.location(target),
            }),
            Decision::UnknownHost => Err(Fault::UnknownHost {
                host: host.unwrap_or_default().to_owned(),
                status: table.settings().unknown_host_status,
            }),
            Decision::UnknownPath => Err(Fault::UnknownPath {
                host: host.unwrap_or_default().to_owned(),
                path: target.split('?').next().unwrap_or_default().to_owned(),
            }),
        }
    }

    /// Where a TLS connection goes, by the name that its client asks for.
    pub(crate) fn route_tls(&self, name: Option<&str>, client: Origin) -> TlsRoute {
        let table = self.table.borrow();
        match table.tls(name) {
            TlsDecision::Passthrough(rule) => {
                let pools = self.pools.borrow();
                let pool = pools.get(&rule.pool).expect("each rule leads to a pool of its table");
                if pool.allows(client) {
                    TlsRoute::Passthrough(Rc::clone(pool))
                } else {
                    TlsRoute::NotAllowed
                }
            }
            TlsDecision::Terminate { host, .. } => {
                let certificates = self.certificates.as_ref();
                let config = certificates.and_then(|served| served.borrow().get(host));
                config.map_or(TlsRoute::Unknown, TlsRoute::Terminate)
            }
            TlsDecision::UnknownName => TlsRoute::Unknown,
        }
    }

    /// Takes a new table. Pools that it has too keep their endpoints' states and connections; requests under way go on.
    fn apply(&self, table: Arc<RouteTable>) {
        let settings_changed = *self.shared.serving() != *table.settings();
        if settings_changed {
            self.shared.set_serving(table.settings());
            self.acceptor.apply(table.settings());
        }
        let mut gone = Vec::new();
        let mut changed = Vec::new();
        {
            let mut pools = self.pools.borrow_mut();
            pools.retain(|key, pool| {
                let stays = table.pools().contains_key(key);
                if !stays {
                    gone.push(Rc::clone(pool));
                }
                stays
            });
            for (key, spec) in table.pools() {
                match pools.get(key) {
                    Some(pool) if pool.is_same(spec) && !settings_changed => {}
                    Some(pool) => changed.push((Rc::clone(pool), Arc::clone(spec))),
                    None => {
                        let pool = PoolHandle::new(&self.shared, spec, table.settings());
                        for old in gone.iter().filter(|old| old.shares_a_service(spec)) {
                            pool.adopt(old);
                        }
                        pools.insert(key.clone(), pool);
                    }
                }
            }
        }
        *self.table.borrow_mut() = Arc::clone(&table);
        for (pool, spec) in changed {
            pool.apply(&spec, table.settings());
        }
        for pool in gone {
            pool.retire();
        }
        self.shared.metrics.tables.set(self.shared.metrics.tables.get() + 1);
    }

    /// Does what is due now.
    fn handle_due(self: &Rc<Self>) {
        let now = self.shared.clock.now();
        while let Some(key) = self.shared.take_due(now) {
            let pool = self.pools.borrow().get(&key).cloned();
            if let Some(pool) = pool {
                pool.handle_timeout();
            }
        }
        let settings = self.shared.serving();
        for (pool, picked) in self.shared.take_probes() {
            self.probe(pool, picked);
        }
        if self.shared.take_sweep(now) {
            let max = Duration::from_millis(settings.idle_connection_ms.into());
            let left: usize = self.pools.borrow().values().map(|pool| pool.sweep(max, now)).sum();
            if left > 0 {
                self.shared.sweep_soon(now);
            }
        }
        self.shared.access.flush_if_due(now);
    }

    fn probe(self: &Rc<Self>, pool: Rc<PoolHandle>, picked: Picked) {
        let (worker, limit) = (Rc::clone(self), pool.serving().connect_timeout);
        let Some(endpoint) = pool.endpoint(picked.token) else {
            return; // gone meanwhile
        };
        spawn_local(async move {
            let metrics = &worker.shared.metrics;
            metrics.probes.set(metrics.probes.get() + 1);
            let wants = Wants::of(pool.protocol(), true);
            let result = connect::probe(&worker.net, &endpoint, wants, limit).await;
            debug!(addr = %picked.addr, ?result, "probed");
            pool.handle_connect(picked.token, result);
        });
    }

    fn answer(&self, query: Query) {
        // Whoever asked may have left.
        match query {
            Query::Applied(answer) => {
                let _ = answer.send(());
            }
            Query::Metrics(answer) => {
                let mut metrics = self.shared.metrics.read();
                metrics.access_lines_dropped = self.shared.access.dropped();
                let _ = answer.send(metrics);
            }
            Query::Pools(of, answer) => {
                let pools = self.pools.borrow();
                let _ = answer.send(match of {
                    Some(of) => of.iter().filter_map(|key| Some(pools.get(key)?.view())).collect(),
                    None => pools.values().map(|pool| pool.view()).collect(),
                });
            }
        }
    }
}

impl<N: Net> fmt::Debug for Worker<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
