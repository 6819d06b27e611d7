//! The machine of one pool on one worker.

mod failing;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

use super::budget::RetryBudget;
use super::endpoint::{Endpoint, EndpointKey, EndpointView, Member, Token};
use super::policy::{PoolPolicy, weights};
use super::state::{self, Event, State};
use crate::balance::{least_requests, rendezvous, round_robin, shares};
use crate::id::NetworkId;
use crate::machine::Machine;
use crate::request::retry::Failure;
use crate::rng::Rng;
use crate::route::spec::{Balance, EndpointSpec};
use crate::time::{Deadline, Duration, Instant, Timers};

/// The answer to "where does this request go?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// There. It counts as one more request under way until [`Pool::release`].
    Endpoint(Picked),
    /// Nowhere for the moment: wait for [`Action::Wake`], at most [`PoolPolicy::park`] in all. The request has a place
    /// among the parked until [`Pool::unpark`].
    Park,
    /// Nowhere, and it may not wait.
    Unavailable(Unavailable),
}

/// An endpoint that was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picked {
    /// Names it in outcomes.
    pub token: Token,
    /// Where to connect.
    pub addr: SocketAddr,
}

/// Why a request may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// As many wait already as may.
    ParkingFull,
    /// Waiting is switched off for this pool.
    ParkingOff,
}

/// What came of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A connection was established.
    Connected,
    /// A connection was refused, timed out or had no way to go.
    ConnectFailed,
    /// No connection was tried: nothing leads to the endpoint's network at the moment, nor to others on it.
    NoWay,
    /// A response began, whatever its status.
    Responded,
    /// The request was sent on a new connection, and no valid response came, or none in time.
    Failed,
    /// A connection that was used before died under the request: says nothing about the endpoint.
    Stale,
}

/// Facts for the machine.
#[derive(Clone, Debug)]
pub enum Fact {
    /// What came of a try or a probe.
    Outcome(Token, Outcome),
    /// The endpoints that the route table wants now, and the policy.
    Spec(Vec<Member>, PoolPolicy),
}

/// What the shell is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Close idle connections to this endpoint; requests under way go on.
    CloseIdle(Token),
    /// The endpoint is gone: close idle connections and forget everything kept for it; requests under way go on.
    Forget(Token),
    /// Try to connect, and hand in [`Outcome::Connected`] or [`Outcome::ConnectFailed`].
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
    /// Times an endpoint was ejected.
    pub ejections: u64,
    /// Times an endpoint went on probation.
    pub probations: u64,
}

/// The endpoints of one route on one worker.
#[derive(Clone, Debug)]
pub struct Pool {
    policy: PoolPolicy,
    /// By ascending token.
    endpoints: Vec<Endpoint>,
    /// Positions in `endpoints` of those that are ready.
    ready: Vec<usize>,
    next_token: u64,
    /// For round robin: among all, and in each service where there are weights.
    cursor: usize,
    cursors: Vec<usize>,
    turns: shares::Turns,
    parked: u32,
    budget: RetryBudget,
    timers: Timers<Token>,
    actions: VecDeque<Action>,
    counters: PoolCounters,
}

impl Pool {
    /// A pool without endpoints.
    pub fn new(policy: PoolPolicy) -> Self {
        Pool {
            policy,
            endpoints: Vec::new(),
            ready: Vec::new(),
            next_token: 0,
            cursor: 0,
            cursors: Vec::new(),
            turns: shares::Turns::default(),
            parked: 0,
            budget: RetryBudget::default(),
            timers: Timers::new(),
            actions: VecDeque::new(),
            counters: PoolCounters::default(),
        }
    }

    /// Takes the endpoints that are wanted now. One that is known already (same id, address and network) keeps its state.
    pub fn apply<'a>(&mut self, wanted: impl Iterator<Item = &'a Member>, policy: PoolPolicy, now: Instant) {
        self.policy = policy;
        self.cursors.resize(self.policy.services.len(), 0);
        let key = |spec: &EndpointSpec| (spec.id.clone(), spec.addr, spec.via.clone());
        let mut new: BTreeMap<EndpointKey, &Member> = wanted.map(|member| (key(&member.spec), member)).collect();
        let mut told = Vec::new();
        let (timers, actions) = (&mut self.timers, &mut self.actions);
        self.endpoints.retain_mut(|endpoint| {
            let member = new.remove(&endpoint.key());
            match member {
                Some(member) => {
                    endpoint.service = member.service;
                    let confirmed = core::mem::replace(&mut endpoint.unsure, member.spec.unsure) && !endpoint.unsure;
                    if confirmed && endpoint.state == State::Probation && !endpoint.probe_running {
                        timers.set_at_latest(endpoint.token, now);
                    }
                    told.push((endpoint.token, member.spec.leaving));
                }
                None => {
                    timers.clear(&endpoint.token);
                    actions.push_back(Action::Forget(endpoint.token));
                }
            }
            member.is_some()
        });
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
        self.index();
        self.wake(now);
    }

    /// Takes over what `old` knows about endpoints that both have: which are out, until when, and whether they ever worked.
    /// For a pool that takes the place of one whose set of services changed. Returns the tokens of each such endpoint, the
    /// old one first; what is under way stays with `old`.
    pub fn adopt(&mut self, old: &Pool, now: Instant) -> Vec<(Token, Token)> {
        let known: BTreeMap<EndpointKey, &Endpoint> = old
            .endpoints
            .iter()
            .map(|endpoint| (endpoint.key(), endpoint))
            .collect();
        let is_told = |state| matches!(state, State::LastResort | State::Leaving);
        let mut adopted = Vec::new();
        for endpoint in &mut self.endpoints {
            let Some(before) = known.get(&endpoint.key()) else {
                continue;
            };
            adopted.push((before.token, endpoint.token));
            endpoint.proven |= before.proven;
            // Where the table says something new about its leaving, the table knows better.
            if is_told(endpoint.state) == is_told(before.state) {
                let (token, in_flight, service) = (endpoint.token, endpoint.in_flight, endpoint.service);
                let unsure = endpoint.unsure;
                *endpoint = (*before).clone();
                (endpoint.token, endpoint.in_flight, endpoint.service) = (token, in_flight, service);
                endpoint.unsure = unsure;
                endpoint.probe_running = false;
                self.timers.clear(&token);
                match endpoint.state {
                    State::Ejected | State::LastResort | State::Probation => {
                        self.timers.set(token, old.timers.get(&before.token).unwrap_or(now));
                    }
                    State::Leaving | State::Ready => {}
                }
            }
        }
        self.index();
        adopted
    }

    /// Counts a request, once, before its first pick.
    pub fn handle_request(&mut self, now: Instant) {
        self.budget.handle_request(now);
        self.counters.requests += 1;
    }

    /// Where a request goes; `tried` are the endpoints that failed it already, `key` is what its client is known by again
    /// (see [`balance::rendezvous`](crate::balance::rendezvous)), if it is to be.
    ///
    /// In this order: a ready endpoint, one that is the last resort, a ready one that was tried, one that rests.
    pub fn pick(&mut self, key: Option<u64>, tried: &[Token], rng: &mut Rng, now: Instant) -> Pick {
        let chosen = self
            .pick_ready(key, tried, rng)
            .or_else(|| self.pick_last_resort(tried, now))
            .or_else(|| self.pick_ready(key, &[], rng))
            .or_else(|| self.pick_ejected(tried));
        if let Some(at) = chosen {
            let endpoint = &mut self.endpoints[at];
            endpoint.in_flight += 1;
            return Pick::Endpoint(Picked {
                token: endpoint.token,
                addr: endpoint.addr,
            });
        }
        if self.policy.park.is_zero() {
            return Pick::Unavailable(Unavailable::ParkingOff);
        }
        if self.parked >= self.policy.parked_max {
            self.counters.parking_full += 1;
            return Pick::Unavailable(Unavailable::ParkingFull);
        }
        self.parked += 1;
        self.counters.parked += 1;
        Pick::Park
    }

    /// A parked request gives up its place: it picks anew, timed out or its client left.
    pub fn unpark(&mut self) {
        self.parked = self.parked.saturating_sub(1);
    }

    /// A request, or the connection that it was upgraded to, ended.
    pub fn release(&mut self, token: Token) {
        if let Some(at) = self.position(token) {
            let endpoint = &mut self.endpoints[at];
            endpoint.in_flight = endpoint.in_flight.saturating_sub(1);
        }
    }

    /// What came of a try or a probe. Late outcomes, also of endpoints that are gone, are normal.
    pub fn handle_outcome(&mut self, token: Token, outcome: Outcome, now: Instant) {
        let Some(at) = self.position(token) else { return };
        match outcome {
            Outcome::Connected => {
                self.endpoints[at].proven = true;
                self.endpoints[at].probe_running = false;
                if self.endpoints[at].state == State::Probation && !self.endpoints[at].unsure {
                    self.transition(at, Event::Admit, now);
                }
            }
            Outcome::Responded => self.endpoints[at].proven = true,
            Outcome::ConnectFailed => self.handle_connect_failure(at, now),
            Outcome::NoWay => self.handle_no_way(at, now),
            Outcome::Failed => {
                let (max_fails, fail_timeout) = self.checks(at);
                let fails = self.endpoints[at].count_failure(fail_timeout, now);
                if is_too_many(fails, max_fails) && self.others_ready(at) {
                    self.transition(at, Event::Eject, now);
                }
            }
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
            Failure::BadResponse | Failure::Died | Failure::Refused | Failure::TimedOut | Failure::Unable => {
                self.budget.withdraw(self.policy.retry_budget_percent, now)
            }
        };
        if granted {
            self.counters.retries += 1;
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
        self.parked
    }

    /// Counts since the pool is known.
    pub fn counters(&self) -> PoolCounters {
        self.counters
    }

    /// All endpoints with their tokens and the networks whose legs connect, by ascending token.
    pub fn addresses(&self) -> impl Iterator<Item = (Picked, Option<&NetworkId>)> + '_ {
        self.endpoints.iter().map(|endpoint| {
            let (token, addr) = (endpoint.token, endpoint.addr);
            (Picked { token, addr }, endpoint.via.as_ref())
        })
    }

    /// All endpoints, for people.
    pub fn views(&self) -> impl Iterator<Item = EndpointView> + '_ {
        self.endpoints.iter().map(Endpoint::view)
    }

    /// Moves an endpoint, and does everything that belongs to the move.
    fn transition(&mut self, at: usize, event: Event, now: Instant) {
        let (_, rest) = self.checks(at);
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
                self.timers.set(token, now + rest);
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
            State::Ready => endpoint.forget_failures(),
        }
        self.index();
        self.wake(now);
    }

    /// Waking without need costs a pick; forgetting to costs a user's wait.
    fn wake(&mut self, now: Instant) {
        if self.parked > 0 && self.can_serve(now) {
            self.actions.push_back(Action::Wake);
        }
    }

    fn can_serve(&self, now: Instant) -> bool {
        let mut endpoints = self.endpoints.iter().filter(|endpoint| self.has_share(endpoint));
        endpoints.any(|endpoint| match endpoint.state {
            State::Ready | State::Ejected => true,
            State::LastResort => endpoint.last_resort_until > now,
            State::Leaving | State::Probation => false,
        })
    }

    fn pick_ready(&mut self, key: Option<u64>, tried: &[Token], rng: &mut Rng) -> Option<usize> {
        let is_untried = |at: &usize| !tried.contains(&self.endpoints[*at].token);
        let mut some: Vec<usize>;
        let mut offered = &self.ready;
        if !tried.is_empty() {
            some = self.ready.iter().copied().filter(is_untried).collect();
            offered = &some;
        }
        let mut cursor = &mut self.cursor;
        if self.policy.services.iter().any(|service| service.weight.is_some()) {
            let service_of = |at: &usize| self.endpoints[*at].service;
            let weights = weights(&self.policy.services, offered.iter().map(service_of));
            let service = match (key, self.policy.balance) {
                (Some(key), _) => {
                    let candidate = |at: usize| (self.policy.services[at].hash, weights[at]);
                    rendezvous::choose_weighted(weights.len(), candidate, key)
                }
                (None, Balance::LeastRequests) => shares::draw(&weights, rng),
                (None, Balance::RoundRobin) => self.turns.next(&weights),
            }?;
            some = offered.iter().copied().filter(|at| service_of(at) == service).collect();
            offered = &some;
            cursor = &mut self.cursors[service];
        }
        let load = |at: usize| self.endpoints[offered[at]].in_flight;
        let chosen = match (key, self.policy.balance) {
            (Some(key), _) => rendezvous::choose(offered.len(), |at| self.endpoints[offered[at]].hash, key),
            (None, Balance::LeastRequests) => least_requests::choose(offered.len(), load, rng),
            (None, Balance::RoundRobin) => round_robin::choose(offered.len(), cursor),
        };
        chosen.map(|chosen| offered[chosen])
    }

    fn pick_last_resort(&self, tried: &[Token], now: Instant) -> Option<usize> {
        self.least_loaded(|endpoint| {
            endpoint.state == State::LastResort && endpoint.last_resort_until > now && !tried.contains(&endpoint.token)
        })
    }

    fn pick_ejected(&self, tried: &[Token]) -> Option<usize> {
        self.least_loaded(|endpoint| endpoint.state == State::Ejected && !tried.contains(&endpoint.token))
    }

    fn least_loaded(&self, suits: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        (0..self.endpoints.len())
            .filter(|at| suits(&self.endpoints[*at]) && self.has_share(&self.endpoints[*at]))
            .min_by_key(|at| self.endpoints[*at].in_flight)
    }

    fn others_ready(&self, at: usize) -> bool {
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

    fn has_share(&self, endpoint: &Endpoint) -> bool {
        let service = self.policy.services.get(endpoint.service);
        service.is_none_or(|service| service.weight != Some(0))
    }

    fn position(&self, token: Token) -> Option<usize> {
        self.endpoints
            .binary_search_by_key(&token, |endpoint| endpoint.token)
            .ok()
    }

    fn index(&mut self) {
        self.ready.clear();
        let ready = |at: &usize| self.endpoints[*at].state == State::Ready;
        self.ready.extend((0..self.endpoints.len()).filter(ready));
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
            Fact::Outcome(token, outcome) => self.handle_outcome(token, outcome, now),
            Fact::Spec(endpoints, policy) => self.apply(endpoints.iter(), policy, now),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(token) = self.timers.pop_due(now) {
            let Some(at) = self.position(token) else { continue };
            match self.endpoints[at].state {
                State::Ejected => self.transition(at, Event::Admit, now),
                State::LastResort => self.transition(at, Event::Lapse, now),
                // Who answers there may be somebody else by now.
                State::Probation if self.endpoints[at].unsure => {}
                State::Probation => {
                    self.endpoints[at].probe_running = true;
                    self.actions.push_back(Action::Probe(Picked {
                        token,
                        addr: self.endpoints[at].addr,
                    }));
                }
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
            match endpoint.state {
                State::Ejected | State::LastResort => debug_assert!(timer.is_some(), "{endpoint:?} has no timer"),
                State::Probation => debug_assert!(
                    endpoint.unsure || timer.is_some() != endpoint.probe_running,
                    "{endpoint:?} is either probed or waits for it"
                ),
                State::Leaving | State::Ready => debug_assert!(timer.is_none(), "{endpoint:?} has a timer"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
