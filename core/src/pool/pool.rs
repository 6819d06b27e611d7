//! The machine of one pool on one worker.

mod adopting;
mod failing;
mod probing;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use super::budget::RetryBudget;
use super::endpoint::{Endpoint, EndpointKey, EndpointView, Member, Token};
use super::outlier::Counts;
use super::parking::Parked;
use super::pick::Picked;
use super::policy::PoolPolicy;
use super::prober::Unfit;
use super::state::{self, Event, State};
use super::window::Window;
use crate::balance::shares;
use crate::id::NetworkId;
use crate::machine::Machine;
use crate::request::fault::UpstreamFault;
use crate::request::retry::Failure;
use crate::route::spec::EndpointSpec;
use crate::route::statuses::ServerErrors;
use crate::time::{Deadline, Duration, Instant, Timers};

/// Between two questions to an endpoint in doubt.
const DOUBT_PAUSE: Duration = Duration::from_secs(1);

/// What came of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A connection was established.
    Connected,
    /// A connection was refused or had no way to go.
    ConnectFailed,
    /// A connection timed out: nobody answered at all.
    ConnectTimedOut,
    /// No connection was tried: nothing leads to the endpoint's network at the moment, nor to others on it.
    NoWay,
    /// A response began, with this status.
    Responded(u16),
    /// The request was sent on a new connection, and no valid response came, or none in time.
    Failed,
    /// A connection that was used before died under the request: says nothing about the endpoint.
    Stale,
    /// The proxy had no socket to connect with: says nothing about the endpoint.
    Untried,
}

impl Outcome {
    /// What it means for the endpoint that no connection came about.
    pub fn of_connect(fault: UpstreamFault) -> Self {
        match fault {
            UpstreamFault::ConnectTimedOut => Outcome::ConnectTimedOut,
            UpstreamFault::NoLeg => Outcome::NoWay,
            UpstreamFault::NoSocket | UpstreamFault::NoTrust => Outcome::Untried,
            UpstreamFault::BadResponse
            | UpstreamFault::Certificate(_)
            | UpstreamFault::ConnectFailed
            | UpstreamFault::Died
            | UpstreamFault::FirstByteTimedOut
            | UpstreamFault::NoCommonProtocol
            | UpstreamFault::TlsFailed => Outcome::ConnectFailed,
        }
    }
}

/// Facts for the machine.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A request has waited [`PoolPolicy::doubt`], or longer, for the first byte of its response.
    Doubt(Token),
    /// What came of a try or a probe.
    Outcome(Token, Outcome),
    /// The endpoints that the route table wants now, and the policy.
    Spec(Vec<Member>, PoolPolicy),
    /// All endpoints that fail their active checks, of whatever pool.
    Unfit(Arc<Unfit>),
}

/// What the shell is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing comes from this endpoint any more: requests that doubt it and may be sent again, may go elsewhere.
    Abandon(Token),
    /// Close idle connections to this endpoint; requests under way go on.
    CloseIdle(Token),
    /// The endpoint is gone, and nothing is under way there: close idle connections and forget everything kept for it.
    Forget(Token),
    /// Try to connect, and hand in [`Outcome::Connected`], [`Outcome::ConnectFailed`] or [`Outcome::ConnectTimedOut`].
    Probe(Picked),
    /// An endpoint is there again: all parked requests pick anew.
    Wake,
}

/// Counts since the worker knows the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolCounters {
    /// Requests that came to the pool.
    pub requests: u64,
    /// Tries beyond the first.
    pub retries: u64,
    /// Retries that the budget refused.
    pub retries_refused: u64,
    /// Requests that had to wait.
    pub parked: u64,
    /// Requests that could not wait because too many did.
    pub parking_full: u64,
    /// Requests that found all endpoints with as many requests as they may have.
    #[serde(default)]
    pub busy: u64,
    /// Times an endpoint was ejected.
    pub ejections: u64,
    /// Those of them for a share of failures that was far above the pool's.
    #[serde(default)]
    pub outliers: u64,
    /// Requests that went to an ejected endpoint because too few were ready.
    #[serde(default)]
    pub panics: u64,
    /// Times an endpoint went on probation.
    pub probations: u64,
    /// Times an endpoint began to fail its active checks.
    #[serde(default)]
    pub unfit: u64,
    /// Second copies of requests that were sent elsewhere.
    pub hedges: u64,
    /// Second copies that were answered first.
    pub hedges_won: u64,
    /// Requests that left an endpoint that vanished under them.
    pub abandoned: u64,
}

/// The endpoints of one route on one worker.
#[derive(Clone, Debug)]
pub struct Pool {
    pub(super) policy: PoolPolicy,
    /// By ascending token.
    pub(super) endpoints: Vec<Endpoint>,
    /// Positions in `endpoints` of those that are ready.
    pub(super) ready: Vec<usize>,
    /// Those that take requests: the ready ones, in panic the ejected ones too.
    pub(super) offered: Vec<usize>,
    /// What the endpoints answered while they were ready.
    pub(super) answers: Window<Counts>,
    /// Who fails active checks, here and elsewhere.
    pub(super) unfit: Arc<Unfit>,
    pub(super) next_token: u64,
    /// For round robin: among all, and in each service where there are weights.
    pub(super) cursor: usize,
    pub(super) cursors: Vec<usize>,
    pub(super) turns: shares::Turns,
    /// When the last endpoint has its full share.
    pub(super) growing_until: Instant,
    pub(super) parked: Parked,
    pub(super) budget: RetryBudget,
    pub(super) timers: Timers<Token>,
    pub(super) actions: VecDeque<Action>,
    pub(super) counters: PoolCounters,
}

impl Pool {
    /// A pool without endpoints.
    pub fn new(policy: PoolPolicy) -> Self {
        Pool {
            policy,
            endpoints: Vec::new(),
            ready: Vec::new(),
            offered: Vec::new(),
            answers: Window::default(),
            unfit: Arc::default(),
            next_token: 0,
            cursor: 0,
            cursors: Vec::new(),
            turns: shares::Turns::default(),
            growing_until: Instant::START,
            parked: Parked::default(),
            budget: RetryBudget::default(),
            timers: Timers::new(),
            actions: VecDeque::new(),
            counters: PoolCounters::default(),
        }
    }

    /// Takes the endpoints that are wanted now. One that is known already (same id, address and network) keeps its state. One
    /// that no table has any more leaves, and is forgotten when nothing is under way there: until then requests that wait for it
    /// may doubt it, as one whose node was lost answers none.
    pub fn apply<'a>(&mut self, wanted: impl Iterator<Item = &'a Member>, policy: PoolPolicy, now: Instant) {
        self.policy = policy;
        self.cursors.resize(self.policy.services.len(), 0);
        let key = |spec: &EndpointSpec| (spec.id.clone(), spec.addr, spec.via.clone());
        let mut new: BTreeMap<EndpointKey, &Member> = wanted.map(|member| (key(&member.spec), member)).collect();
        let (mut told, mut gone) = (Vec::new(), Vec::new());
        let (timers, actions, answers) = (&mut self.timers, &mut self.actions, &mut self.answers);
        self.endpoints.retain_mut(|endpoint| {
            let member = new.remove(&endpoint.key());
            match member {
                Some(member) => {
                    endpoint.service = member.service;
                    endpoint.gone = false;
                    let confirmed = core::mem::replace(&mut endpoint.unsure, member.spec.unsure) && !endpoint.unsure;
                    if confirmed && endpoint.state == State::Probation && !endpoint.probe_running {
                        timers.set_at_latest(endpoint.token, now);
                    }
                    told.push((endpoint.token, member.spec.leaving));
                }
                None if endpoint.in_flight > 0 => {
                    // Positions of services are the new table's, and its own may not be among them.
                    (endpoint.gone, endpoint.service) = (true, usize::MAX);
                    gone.push(endpoint.token);
                }
                None => {
                    Counts::take_away(answers, &endpoint.answers);
                    timers.clear(&endpoint.token);
                    actions.push_back(Action::Forget(endpoint.token));
                    return false;
                }
            }
            true
        });
        for token in gone {
            let Some(at) = self.position(token) else { continue };
            self.endpoints[at].last_resort_until = now;
            self.transition(at, Event::Leave, now);
            self.transition(at, Event::Lapse, now);
        }
        let newest = Token(self.next_token);
        for member in new.into_values() {
            let token = Token(self.next_token);
            self.next_token += 1;
            self.endpoints.push(Endpoint::new(token, member));
            told.push((token, member.spec.leaving));
        }
        for (token, leaving) in told {
            let Some(at) = self.position(token) else { continue };
            let already = matches!(self.endpoints[at].state, State::LastResort | State::Leaving);
            match leaving {
                Some(leaving) if !already => {
                    let until = now + Duration::from_millis(leaving.last_resort_ms.into());
                    self.endpoints[at].last_resort_until = until;
                    self.transition(at, Event::Leave, now);
                }
                None if already => self.transition(at, Event::Stay, now),
                Some(_) | None => {}
            }
        }
        self.handle_unfit(Arc::clone(&self.unfit), now);
        self.start_slowly(|endpoint| endpoint.token >= newest, now);
    }

    /// Counts a request, once, before its first pick.
    pub fn handle_request(&mut self) {
        self.counters.requests += 1;
    }

    /// A request goes to an endpoint that was connected to, for the first time: retries are a share of these. Who waits in vain, or
    /// finds nobody who takes a connection, is no load that others could be added to.
    pub fn handle_sent(&mut self, now: Instant) {
        self.budget.handle_sent(now);
    }

    /// The second copy was answered first.
    pub fn handle_hedge_won(&mut self) {
        self.counters.hedges_won += 1;
    }

    /// A request waits for the first byte of its response: is anybody there? Asks the endpoint by a probe, once a second at
    /// most, so that an app that is slow as a rule is not flooded.
    pub fn handle_doubt(&mut self, token: Token, now: Instant) {
        let Some(at) = self.position(token) else { return };
        let endpoint = &mut self.endpoints[at];
        if endpoint.vanished {
            self.actions.push_back(Action::Abandon(token));
            return;
        }
        let is_fresh = |asked: Instant| now.since(asked) < DOUBT_PAUSE;
        // One on probation is being probed anyway.
        if endpoint.state == State::Probation || endpoint.doubted.is_some_and(is_fresh) {
            return;
        }
        endpoint.doubted = Some(now);
        self.actions.push_back(Action::Probe(Picked {
            token,
            addr: endpoint.addr,
        }));
    }

    /// A request, or the connection that it was upgraded to, ended; see [`Pool::may_go`]. The last one at an endpoint that no table
    /// has leaves an [`Action::Forget`] to be polled.
    pub fn release(&mut self, token: Token) {
        let Some(at) = self.position(token) else { return };
        let endpoint = &mut self.endpoints[at];
        endpoint.in_flight = endpoint.in_flight.saturating_sub(1);
        if endpoint.gone && endpoint.in_flight == 0 {
            self.endpoints.remove(at);
            self.index();
            self.actions.push_back(Action::Forget(token));
        }
    }

    /// What came of a try or a probe. Late outcomes, also of endpoints that are gone, are normal.
    pub fn handle_outcome(&mut self, token: Token, outcome: Outcome, now: Instant) {
        let Some(at) = self.position(token) else { return };
        match outcome {
            Outcome::Connected => {
                self.hear(at, now);
                self.endpoints[at].probe_running = false;
                let endpoint = &self.endpoints[at];
                if endpoint.state == State::Probation && !endpoint.unsure && !endpoint.unfit {
                    self.transition(at, Event::Admit, now);
                }
            }
            Outcome::Responded(status) => {
                self.hear(at, now);
                match self.fail_on(at).contains(status) {
                    true => self.handle_bad_answer(at, now),
                    false => self.count_answer(at, false, now),
                }
            }
            Outcome::ConnectFailed => self.handle_connect_failure(at, now),
            Outcome::ConnectTimedOut => {
                // A packet may get lost; an endpoint from which other things come is there.
                if now.since(self.endpoints[at].heard) >= self.policy.doubt {
                    self.endpoints[at].vanished = true;
                    self.actions.push_back(Action::Abandon(token));
                }
                self.handle_connect_failure(at, now);
            }
            Outcome::NoWay => self.handle_no_way(at, now),
            Outcome::Failed => self.handle_bad_answer(at, now),
            Outcome::Untried => self.probe_again(at, now),
            Outcome::Stale => {}
        }
    }

    /// Whether one more try may be made after `failure`; takes it from the budget.
    ///
    /// A request that was not sent cost no endpoint anything, so sending it elsewhere is no additional load: it is counted
    /// and needs no budget.
    pub fn withdraw_retry(&mut self, failure: Failure, now: Instant) -> bool {
        let granted = match failure {
            Failure::Connect | Failure::NotSent => true,
            Failure::BadResponse
            | Failure::Died
            | Failure::Refused
            | Failure::TimedOut
            | Failure::Unable
            | Failure::Vanished => self.budget.withdraw(self.policy.retry_budget_percent, now),
        };
        if granted {
            self.counters.retries += 1;
            self.counters.abandoned += u64::from(failure == Failure::Vanished);
        } else {
            self.counters.retries_refused += 1;
        }
        granted
    }

    /// Whether a connection to this endpoint that just became idle may be kept.
    pub fn keeps_idle(&self, token: Token) -> bool {
        self.position(token)
            .is_some_and(|at| self.endpoints[at].state == State::Ready)
    }

    /// What the pool decides by.
    pub fn policy(&self) -> &PoolPolicy {
        &self.policy
    }

    /// Requests that wait now.
    pub fn parked(&self) -> u32 {
        self.parked.len()
    }

    /// Counts since the pool is known.
    pub fn counters(&self) -> PoolCounters {
        self.counters
    }

    /// All endpoints of the table with their tokens and the networks whose legs connect, by ascending token.
    pub fn addresses(&self) -> impl Iterator<Item = (Picked, Option<&NetworkId>)> + '_ {
        let of_table = self.endpoints.iter().filter(|endpoint| !endpoint.gone);
        of_table.map(|endpoint| {
            let (token, addr) = (endpoint.token, endpoint.addr);
            (Picked { token, addr }, endpoint.via.as_ref())
        })
    }

    /// Position of an endpoint's service in [`PoolPolicy::services`].
    pub fn service_of(&self, token: Token) -> Option<usize> {
        let at = self
            .endpoints
            .binary_search_by_key(&token, |endpoint| endpoint.token)
            .ok()?;
        Some(self.endpoints[at].service)
    }

    /// All endpoints, for people, also those that no table has and something is under way at.
    pub fn views(&self) -> impl Iterator<Item = EndpointView> + '_ {
        self.endpoints.iter().map(Endpoint::view)
    }

    /// Moves an endpoint, and does everything that belongs to the move.
    pub(super) fn transition(&mut self, at: usize, event: Event, now: Instant) {
        if state::next(self.endpoints[at].state, event) != State::Ready {
            self.forget_answers(at);
        }
        let endpoint = &mut self.endpoints[at];
        let (from, to) = (endpoint.state, state::next(endpoint.state, event));
        if from == to {
            return;
        }
        endpoint.state = to;
        endpoint.probe_running = false;
        let token = endpoint.token;
        self.timers.clear(&token);
        match to {
            State::Ejected => {
                self.counters.ejections += 1;
                self.timers.set(token, now + endpoint.rest);
                self.actions.push_back(Action::CloseIdle(token));
            }
            State::LastResort => {
                let until = endpoint.last_resort_until;
                self.actions.push_back(Action::CloseIdle(token));
                if until > now {
                    self.timers.set(token, until);
                } else {
                    endpoint.state = state::next(to, Event::Lapse);
                }
            }
            State::Leaving => self.actions.push_back(Action::CloseIdle(token)),
            State::Probation => {
                self.counters.probations += 1;
                endpoint.probes = 0;
                let pause = endpoint.probe_pause();
                self.timers.set(token, now + pause);
                self.actions.push_back(Action::CloseIdle(token));
            }
            State::Ready => {
                endpoint.forget_failures();
                endpoint.absent = false;
                endpoint.streak.handle_return(now);
            }
        }
        self.index();
        if matches!((from, to), (State::Ejected | State::Probation, State::Ready)) {
            self.start_slowly(|endpoint| endpoint.token == token, now);
        }
        self.wake(now);
    }

    /// Waking without need costs a pick; forgetting to costs a user's wait.
    pub(super) fn wake(&mut self, now: Instant) {
        if !self.parked.is_empty() && self.can_serve(now) {
            self.actions.push_back(Action::Wake);
        }
    }

    pub(super) fn can_serve(&self, now: Instant) -> bool {
        let mut endpoints = self.endpoints.iter().filter(|endpoint| self.has_share(endpoint));
        endpoints.any(|endpoint| match endpoint.state {
            State::Ready | State::Ejected => true,
            State::LastResort => endpoint.last_resort_until > now,
            State::Probation => endpoint.is_there_but_unfit(),
            State::Leaving => false,
        })
    }

    pub(super) fn others_ready(&self, at: usize) -> bool {
        let mut ready = self.ready.iter().filter(|ready| **ready != at);
        ready.any(|ready| self.has_share(&self.endpoints[*ready]))
    }

    /// `max_fails` and `fail_timeout` of an endpoint: those of its own service.
    fn checks(&self, at: usize) -> (u32, Duration) {
        match self.policy.services.get(self.endpoints[at].service) {
            Some(service) => (service.max_fails, service.fail_timeout),
            None => (self.policy.max_fails, self.policy.fail_timeout),
        }
    }

    fn fail_on(&self, at: usize) -> ServerErrors {
        let service = self.policy.services.get(self.endpoints[at].service);
        service.map_or(ServerErrors::default(), |service| service.fail_on)
    }

    pub(super) fn has_share(&self, endpoint: &Endpoint) -> bool {
        let service = self.policy.services.get(endpoint.service);
        service.is_none_or(|service| service.weight != Some(0))
    }

    pub(super) fn position(&self, token: Token) -> Option<usize> {
        self.endpoints
            .binary_search_by_key(&token, |endpoint| endpoint.token)
            .ok()
    }

    fn index(&mut self) {
        self.ready.clear();
        let ready = |at: &usize| self.endpoints[*at].state == State::Ready;
        self.ready.extend((0..self.endpoints.len()).filter(ready));
        let is_in_panic = self.is_in_panic();
        let offered = |at: &usize| match self.endpoints[*at].state {
            State::Ready => true,
            State::Ejected => is_in_panic,
            State::Probation => is_in_panic && self.endpoints[*at].is_there_but_unfit(),
            State::LastResort | State::Leaving => false,
        };
        let mut all = core::mem::take(&mut self.offered);
        all.clear();
        all.extend((0..self.endpoints.len()).filter(offered));
        self.offered = all;
    }
}

fn is_too_many(fails: u32, max_fails: u32) -> bool {
    max_fails > 0 && fails >= max_fails
}

impl Machine for Pool {
    type Fact = Fact;
    type Action = Action;

    fn handle(&mut self, fact: Fact, now: Instant) {
        match fact {
            Fact::Doubt(token) => self.handle_doubt(token, now),
            Fact::Outcome(token, outcome) => self.handle_outcome(token, outcome, now),
            Fact::Spec(endpoints, policy) => self.apply(endpoints.iter(), policy, now),
            Fact::Unfit(unfit) => self.handle_unfit(unfit, now),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(token) = self.timers.pop_due(now) {
            let Some(at) = self.position(token) else { continue };
            match self.endpoints[at].state {
                State::Ejected => self.transition(at, Event::Admit, now),
                State::LastResort => self.transition(at, Event::Lapse, now),
                State::Probation => self.probe_if_useful(at),
                State::Leaving | State::Ready => {}
            }
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let (token, at) = self.timers.next()?;
        let why = match self.position(token).map(|at| self.endpoints[at].state) {
            Some(State::Ejected) => "ejection ends",
            Some(State::LastResort) => "last resort ends",
            Some(State::Probation) => "probe due",
            Some(State::Leaving | State::Ready) | None => "nothing",
        };
        Some(Deadline { at, why })
    }

    fn check_invariants(&self) {
        debug_assert!(self.endpoints.is_sorted_by_key(|endpoint| endpoint.token));
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            debug_assert_eq!(self.ready.contains(&at), endpoint.state == State::Ready);
            let timer = self.timers.get(&endpoint.token);
            debug_assert!(
                !endpoint.gone || (endpoint.in_flight > 0 && endpoint.state == State::Leaving),
                "{endpoint:?} is kept for nothing"
            );
            match endpoint.state {
                State::Ejected | State::LastResort => debug_assert!(timer.is_some(), "{endpoint:?} has no timer"),
                State::Probation => debug_assert!(
                    endpoint.unsure || endpoint.is_there_but_unfit() || timer.is_some() != endpoint.probe_running,
                    "{endpoint:?} is either probed or waits for it"
                ),
                State::Leaving | State::Ready => debug_assert!(timer.is_none(), "{endpoint:?} has a timer"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
