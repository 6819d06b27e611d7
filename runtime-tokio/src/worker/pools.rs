//! The pools of a worker: core's machine of each, the connections to its endpoints, and those who wait.

use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;
use serde::{Deserialize, Serialize};
use tidegate_core::machine::{Input, Machine as _, step};
use tidegate_core::pool::{
    Action, EndpointView, Fact, Member, Outcome, Pick, Picked, Pool, PoolCounters, Ticket, Token,
};
use tidegate_core::request::fault::{Fault, UpstreamFault};
use tidegate_core::request::origin::Origin;
use tidegate_core::request::retry::Failure;
use tidegate_core::route::spec::{ProxyProtocol, UpstreamProtocol};
use tidegate_core::route::{PoolKey, PoolSpec};
use tidegate_core::settings::proxy::ProxySettings;
use tidegate_core::time::{Duration, Instant};
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::Shared;
use super::serving::Serving;
use crate::telemetry::metrics::StatusCounts;
use crate::upstream::connect::{Http1, Target};
use crate::upstream::reuse::Connections;
use crate::upstream::trust::EndpointTls;

/// One pool of one worker.
pub(crate) struct PoolHandle {
    shared: Rc<Shared>,
    spec: RefCell<Arc<PoolSpec>>,
    serving: RefCell<Rc<Serving>>,
    name: RefCell<Rc<str>>,
    machine: RefCell<Pool>,
    /// By ascending token.
    endpoints: RefCell<Vec<(Token, Rc<Endpoint>)>>,
    /// Those that wait, in the order in which they came.
    waiting: RefCell<BTreeMap<Ticket, Rc<Notify>>>,
    /// The deadline that the worker's timers have for this pool.
    armed: Cell<Option<Instant>>,
    idle_max: Cell<usize>,
    retired: Cell<bool>,
    /// Why the last TLS handshake with an endpoint failed, until one succeeds.
    handshake_fault: Cell<Option<UpstreamFault>>,
    statuses: StatusCounts,
}

/// What is kept for one endpoint, for as long as it is spoken to in one way.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) target: Target,
    addr_value: HeaderValue,
    /// `None`: without TLS.
    pub(crate) tls: Option<EndpointTls>,
    pub(crate) connections: Connections,
    /// Why the last TLS handshake failed, so that it is told once.
    told: Cell<Option<UpstreamFault>>,
    /// How often it was given up, and whoever waits for that.
    abandonments: Cell<u64>,
    abandoned: Notify,
}

impl Endpoint {
    pub(crate) fn new(target: Target, tls: Option<EndpointTls>) -> Rc<Self> {
        Rc::new(Endpoint {
            addr_value: addr_value(target.addr),
            target,
            tls,
            connections: Connections::default(),
            told: Cell::new(None),
            abandonments: Cell::new(0),
            abandoned: Notify::new(),
        })
    }

    /// Grows each time that requests are to go elsewhere.
    pub(crate) fn abandonments(&self) -> u64 {
        self.abandonments.get()
    }

    /// Returns when it has grown.
    pub(crate) async fn abandoned(&self) {
        self.abandoned.notified().await;
    }

    /// A TLS handshake failed: an operator is to know, once.
    pub(crate) fn handshake_failed(&self, fault: UpstreamFault, error: &dyn fmt::Display) {
        let addr = self.target.addr;
        if self.told.replace(Some(fault)) == Some(fault) {
            debug!(%addr, %error, "{fault}");
        } else {
            warn!(%addr, %error, "{fault}");
        }
    }

    pub(crate) fn handshake_succeeded(&self) {
        self.told.set(None);
    }
}

/// A pool as `explain` and the metrics show it: one worker's view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolView {
    /// Its key in the table.
    pub key: PoolKey,
    /// Its services' names, joined by `+`.
    pub name: String,
    /// The endpoints and their states.
    pub endpoints: Vec<EndpointView>,
    /// Requests that wait for an endpoint now.
    pub parked: u32,
    /// Connections that wait for a request now.
    pub idle_connections: usize,
    /// Counts.
    pub counters: PoolCounters,
    /// Responses by class of status: index 2 counts 2xx; 0 those whose client left before there was one.
    pub statuses: [u64; 6],
}

impl PoolHandle {
    pub(crate) fn new(shared: &Rc<Shared>, spec: &Arc<PoolSpec>, settings: &ProxySettings) -> Rc<Self> {
        let handle = Rc::new(PoolHandle {
            shared: Rc::clone(shared),
            spec: RefCell::new(Arc::clone(spec)),
            name: RefCell::new(Rc::from(spec.name())),
            serving: RefCell::new(Rc::new(Serving::new(spec, settings))),
            machine: RefCell::new(Pool::new(shared.policy(spec, settings))),
            endpoints: RefCell::new(Vec::new()),
            waiting: RefCell::default(),
            armed: Cell::new(None),
            idle_max: Cell::new(0),
            retired: Cell::new(false),
            handshake_fault: Cell::new(None),
            statuses: StatusCounts::default(),
        });
        handle.handle_unfit();
        handle.apply(spec, settings);
        handle
    }

    /// Takes the spec of a new table.
    pub(crate) fn apply(self: &Rc<Self>, spec: &Arc<PoolSpec>, settings: &ProxySettings) {
        self.idle_max.set(settings.idle_connections_max as usize);
        *self.name.borrow_mut() = Rc::from(spec.name());
        *self.spec.borrow_mut() = Arc::clone(spec);
        *self.serving.borrow_mut() = Rc::new(Serving::new(spec, settings));
        let members = spec.endpoints.iter().map(|endpoint| Member {
            spec: endpoint.spec.clone(),
            service: endpoint.owner,
        });
        let policy = self.shared.policy(spec, settings);
        self.step(Input::Fact(Fact::Spec(members.collect(), policy)));
    }

    /// The set of endpoints that fail their active checks has changed.
    pub(crate) fn handle_unfit(self: &Rc<Self>) {
        self.step(Input::Fact(Fact::Unfit(self.shared.unfit())));
    }

    /// Takes over from a pool that is about to retire what both have: states of endpoints, and connections to them.
    pub(crate) fn adopt(self: &Rc<Self>, old: &PoolHandle) {
        let now = self.shared.clock.now();
        let adopted = self.machine.borrow_mut().adopt(&old.machine.borrow(), now);
        let (mut mine, mut theirs) = (self.endpoints.borrow_mut(), old.endpoints.borrow_mut());
        for (before, after) in adopted {
            let from = theirs.binary_search_by_key(&before, |(token, _)| *token);
            let to = mine.binary_search_by_key(&after, |(token, _)| *token);
            if let (Ok(from), Ok(to)) = (from, to) {
                mine[to].1 = theirs.remove(from).1;
            }
        }
        drop((mine, theirs));
        self.learn_endpoints(&self.machine.borrow());
        self.step(Input::Timeout);
    }

    /// The table has no such pool any more: those who wait go where a new request would.
    pub(crate) fn retire(self: &Rc<Self>) {
        self.retired.set(true);
        let policy = self.machine.borrow().policy().clone();
        self.step(Input::Fact(Fact::Spec(Vec::new(), policy)));
        self.wake_all();
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.get()
    }

    /// Whether this is what the pool serves by already.
    pub(crate) fn is_same(&self, spec: &Arc<PoolSpec>) -> bool {
        Arc::ptr_eq(&self.spec.borrow(), spec)
    }

    pub(crate) fn shares_a_service(&self, spec: &PoolSpec) -> bool {
        let mine = self.spec.borrow();
        mine.services.iter().any(|service| spec.services.contains(service))
    }

    pub(crate) fn name(&self) -> Rc<str> {
        Rc::clone(&self.name.borrow())
    }

    pub(crate) fn protocol(&self) -> UpstreamProtocol {
        self.spec.borrow().protocol
    }

    /// What endpoints get before the first byte of a connection that is passed on.
    pub(crate) fn proxy_protocol(&self) -> Option<ProxyProtocol> {
        self.spec.borrow().proxy_protocol
    }

    /// What its requests are served by.
    pub(crate) fn serving(&self) -> Rc<Serving> {
        Rc::clone(&self.serving.borrow())
    }

    /// Whether this client is served.
    pub(crate) fn allows(&self, client: Origin) -> bool {
        self.spec.borrow().allows(client)
    }

    pub(crate) fn park_max(&self) -> Duration {
        self.machine.borrow().policy().park
    }

    pub(crate) fn handle_request(&self) {
        self.machine.borrow_mut().handle_request();
    }

    /// A request is sent for the first time.
    pub(crate) fn handle_sent(&self) {
        self.machine.borrow_mut().handle_sent(self.shared.clock.now());
    }

    /// `key` is what the client is known by again, `place` where the request waited.
    pub(crate) fn pick(&self, key: Option<u64>, tried: &[Token], place: Option<&Place>) -> Pick {
        let now = self.shared.clock.now();
        let ticket = place.map(|place| place.ticket);
        self.machine
            .borrow_mut()
            .pick(key, tried, ticket, &mut self.shared.rng.borrow_mut(), now)
    }

    /// The place of a request that is to wait.
    pub(crate) fn park(self: &Rc<Self>, ticket: Ticket) -> Place {
        let wake = Rc::new(Notify::new());
        self.waiting.borrow_mut().insert(ticket, Rc::clone(&wake));
        Place {
            pool: Rc::clone(self),
            ticket,
            wake,
        }
    }

    /// Why a request waited in vain.
    pub(crate) fn why_waited(&self, waited: Duration) -> Fault {
        if self.machine.borrow().is_busy(self.shared.clock.now()) {
            return Fault::BusyTimedOut { waited };
        }
        self.why_none(Fault::ParkTimedOut { waited })
    }

    /// Whoever waits picks anew, in the order in which they came.
    fn wake_all(&self) {
        for wake in self.waiting.borrow().values() {
            wake.notify_one();
        }
    }

    /// A place may have become free for those who wait longest.
    fn wake_next(&self) {
        let (machine, waiting) = (self.machine.borrow(), self.waiting.borrow());
        for ticket in machine.may_go(self.shared.clock.now()) {
            if let Some(wake) = waiting.get(&ticket) {
                wake.notify_one();
            }
        }
    }

    /// Where a second copy of a request goes that is under way at `first`.
    pub(crate) fn hedge(&self, key: Option<u64>, first: Token) -> Option<Picked> {
        let now = self.shared.clock.now();
        self.machine
            .borrow_mut()
            .hedge(key, first, &mut self.shared.rng.borrow_mut(), now)
    }

    pub(crate) fn handle_hedge_won(&self) {
        self.machine.borrow_mut().handle_hedge_won();
    }

    /// A request has waited long for a response.
    pub(crate) fn handle_doubt(self: &Rc<Self>, token: Token) {
        self.step(Input::Fact(Fact::Doubt(token)));
    }

    pub(crate) fn unpark(&self, ticket: Ticket) {
        self.waiting.borrow_mut().remove(&ticket);
        self.machine.borrow_mut().unpark(ticket);
        self.wake_next();
    }

    pub(crate) fn withdraw_retry(&self, failure: Failure) -> bool {
        self.machine
            .borrow_mut()
            .withdraw_retry(failure, self.shared.clock.now())
    }

    pub(crate) fn release(self: &Rc<Self>, token: Token) {
        let mut machine = self.machine.borrow_mut();
        machine.release(token);
        while let Some(action) = machine.poll_action() {
            self.perform(action);
        }
        drop(machine);
        self.wake_next();
    }

    pub(crate) fn handle_outcome(self: &Rc<Self>, token: Token, outcome: Outcome) {
        self.step(Input::Fact(Fact::Outcome(token, outcome)));
    }

    /// What came of connecting to an endpoint. A fault of our own says nothing about it.
    pub(crate) fn handle_connect(self: &Rc<Self>, token: Token, result: Result<(), UpstreamFault>) {
        let outcome = match result {
            Ok(()) => {
                self.handshake_fault.set(None);
                Outcome::Connected
            }
            Err(fault) => {
                if fault.is_handshake() {
                    self.handshake_fault.set(Some(fault));
                }
                Outcome::of_connect(fault)
            }
        };
        self.handle_outcome(token, outcome);
    }

    /// What to say instead of `fault` to who found no endpoint: why there is none, where that is known.
    pub(crate) fn why_none(&self, fault: Fault) -> Fault {
        self.handshake_fault.get().map_or(fault, Fault::from)
    }

    pub(crate) fn handle_timeout(self: &Rc<Self>) {
        self.armed.set(None);
        self.step(Input::Timeout);
    }

    pub(crate) fn endpoint(&self, token: Token) -> Option<Rc<Endpoint>> {
        let endpoints = self.endpoints.borrow();
        let at = endpoints.binary_search_by_key(&token, |(token, _)| *token).ok()?;
        Some(Rc::clone(&endpoints[at].1))
    }

    /// The address of an endpoint as a header value.
    pub(crate) fn addr_value(&self, token: Token, addr: SocketAddr) -> HeaderValue {
        self.endpoint(token)
            .map_or_else(|| addr_value(addr), |endpoint| endpoint.addr_value.clone())
    }

    /// Keeps a connection whose response ended for the next request. `endpoint` is what it was made for, which another may have
    /// taken the place of.
    pub(crate) fn keep(&self, token: Token, endpoint: &Endpoint, sender: Http1, now: Instant) {
        if self.machine.borrow().keeps_idle(token) {
            endpoint.connections.keep(sender, self.idle_max.get(), now);
            self.shared.sweep_soon(now);
        }
    }

    /// Closes connections that waited for too long; how many wait still.
    pub(crate) fn sweep(&self, max: Duration, now: Instant) -> usize {
        let endpoints = self.endpoints.borrow();
        endpoints
            .iter()
            .map(|(_, endpoint)| endpoint.connections.sweep(max, now))
            .sum()
    }

    pub(crate) fn count_response(&self, status: u16) {
        self.statuses.count(status);
    }

    pub(crate) fn view(&self) -> PoolView {
        let machine = self.machine.borrow();
        let endpoints = self.endpoints.borrow();
        PoolView {
            key: self.key().clone(),
            name: self.name().to_string(),
            endpoints: machine.views().collect(),
            parked: machine.parked(),
            idle_connections: endpoints.iter().map(|(_, endpoint)| endpoint.connections.idle()).sum(),
            counters: machine.counters(),
            statuses: self.statuses.counts(),
        }
    }

    pub(crate) fn key(&self) -> Ref<'_, PoolKey> {
        Ref::map(self.spec.borrow(), |spec| &spec.key)
    }

    /// One mutation of the machine, and everything that belongs to it.
    fn step(self: &Rc<Self>, input: Input<Fact>) {
        let now = self.shared.clock.now();
        let is_spec = matches!(input, Input::Fact(Fact::Spec(..)));
        let mut machine = self.machine.borrow_mut();
        let next = step(&mut *machine, input, now, |action| self.perform(action));
        if is_spec {
            self.learn_endpoints(&machine);
        }
        drop(machine);
        let next = next.map(|deadline| deadline.at);
        if self.armed.replace(next) != next {
            self.shared.arm(&self.key(), next);
        }
    }

    fn perform(self: &Rc<Self>, action: Action) {
        match action {
            Action::Abandon(token) => {
                if let Some(endpoint) = self.endpoint(token) {
                    endpoint.abandonments.set(endpoint.abandonments.get() + 1);
                    endpoint.abandoned.notify_waiters();
                }
            }
            Action::CloseIdle(token) => {
                if let Some(endpoint) = self.endpoint(token) {
                    endpoint.connections.close_idle();
                }
            }
            Action::Forget(token) => {
                let mut endpoints = self.endpoints.borrow_mut();
                if let Ok(at) = endpoints.binary_search_by_key(&token, |(token, _)| *token) {
                    endpoints.remove(at).1.connections.close();
                }
            }
            Action::Probe(picked) => self.shared.probe(self, picked),
            Action::Wake => self.wake_all(),
        }
    }

    /// Secrets have changed, and with them perhaps how endpoints are spoken to.
    pub(crate) fn handle_secrets(&self) {
        self.learn_endpoints(&self.machine.borrow());
    }

    fn learn_endpoints(&self, machine: &Pool) {
        let spec = self.spec.borrow();
        let mut endpoints = self.endpoints.borrow_mut();
        for (Picked { token, addr }, via) in machine.addresses() {
            let share = machine.service_of(token).and_then(|service| spec.shares.get(service));
            let labels = share.and_then(|share| share.tls.as_deref());
            let tls = labels.map(|labels| self.shared.trusts.endpoint(labels, addr));
            let made = |tls| {
                let via = via.cloned();
                Endpoint::new(Target { addr, via }, tls)
            };
            match endpoints.binary_search_by_key(&token, |(token, _)| *token) {
                // Connections that were made in another way are used no more, by nobody.
                Ok(at) if endpoints[at].1.tls != tls => {
                    endpoints[at].1.connections.close();
                    endpoints[at].1 = made(tls);
                }
                Ok(_) => {}
                Err(at) => endpoints.insert(at, (token, made(tls))),
            }
        }
    }
}

pub(crate) fn addr_value(addr: SocketAddr) -> HeaderValue {
    HeaderValue::from_str(&addr.to_string()).expect("addresses are visible ASCII")
}

/// A place among the parked, until dropped.
#[derive(Debug)]
pub(crate) struct Place {
    pool: Rc<PoolHandle>,
    ticket: Ticket,
    wake: Rc<Notify>,
}

impl Place {
    /// Returns when the request is to pick anew.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.unpark(self.ticket);
    }
}

impl fmt::Debug for PoolHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolHandle")
            .field("key", &*self.key())
            .finish_non_exhaustive()
    }
}
