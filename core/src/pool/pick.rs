//! Where a request goes: candidates first, then the policy among them.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::endpoint::{Endpoint, Token};
use super::parking::Ticket;
use super::policy::weights;
use super::pool::Pool;
use super::state::State;
use crate::balance::{least_requests, rendezvous, round_robin, shares};
use crate::rng::Rng;
use crate::route::spec::Balance;
use crate::time::Instant;

/// The answer to "where does this request go?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// There. It counts as one more request under way until [`Pool::release`].
    Endpoint(Picked),
    /// Nowhere for the moment: wait for [`Action::Wake`](super::Action::Wake), or to be named by [`Pool::may_go`], at most
    /// [`PoolPolicy::park`](super::PoolPolicy::park) in all, and pick with the ticket then. The request has a place among the parked until
    /// [`Pool::unpark`].
    Park(Ticket),
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
    /// All endpoints have as many requests as they may, and as many wait already as may, or none may.
    Busy,
    /// As many wait already as may.
    ParkingFull,
    /// Waiting is switched off for this pool.
    ParkingOff,
}

impl Pool {
    /// Where a request goes; `tried` are the endpoints that failed it already, `key` is what its client is known by again
    /// (see [`balance::rendezvous`](crate::balance::rendezvous)), if it is to be.
    ///
    /// In this order: a ready endpoint, in panic one that rests as well; one that is the last resort, a ready one that was tried,
    /// one that rests; none that has as many requests as it may. `ticket`: of a request that waited. Where none is ready, the last resort comes first: it served well until it was told to stop.
    pub fn pick(
        &mut self,
        key: Option<u64>,
        tried: &[Token],
        ticket: Option<Ticket>,
        rng: &mut Rng,
        now: Instant,
    ) -> Pick {
        let chosen = match self.is_its_turn(ticket, now) {
            true => self.choose(key, tried, rng, now),
            false => None,
        };
        if let Some(at) = chosen {
            let endpoint = &mut self.endpoints[at];
            endpoint.in_flight += 1;
            self.counters.panics += u64::from(matches!(endpoint.state, State::Ejected | State::Probation));
            return Pick::Endpoint(Picked {
                token: endpoint.token,
                addr: endpoint.addr,
            });
        }
        if let Some(ticket) = ticket {
            return Pick::Park(ticket);
        }
        let is_busy = self.is_busy(now);
        self.counters.busy += u64::from(is_busy);
        let is_full = self.parked.len() >= self.policy.parked_max;
        let is_off = self.policy.park.is_zero();
        self.counters.parking_full += u64::from(is_full && !is_off);
        match (is_off, is_full) {
            (false, false) => {
                self.counters.parked += 1;
                Pick::Park(self.parked.enter())
            }
            _ if is_busy => Pick::Unavailable(Unavailable::Busy),
            (true, _) => Pick::Unavailable(Unavailable::ParkingOff),
            (false, true) => Pick::Unavailable(Unavailable::ParkingFull),
        }
    }

    fn choose(&mut self, key: Option<u64>, tried: &[Token], rng: &mut Rng, now: Instant) -> Option<usize> {
        let resort = match self.ready.is_empty() {
            true => self.pick_last_resort(tried, now),
            false => None,
        };
        let chosen = resort.or_else(|| self.pick_ready(key, tried, rng, now));
        let is_untried = |at: &usize| {
            let endpoint = &self.endpoints[*at];
            self.has_share(endpoint) && !tried.contains(&endpoint.token)
        };
        // It waits for one of these rather than go to one that is no good.
        if chosen.is_some() || (self.has_limits() && self.offered.iter().any(is_untried)) {
            return chosen;
        }
        self.pick_last_resort(tried, now)
            .or_else(|| self.pick_ready(key, &[], rng, now))
            .or_else(|| self.pick_ejected(tried))
    }

    /// Where a second copy of a request goes that is under way at `first`: another ready endpoint, if the budget has one more.
    pub fn hedge(&mut self, key: Option<u64>, first: Token, rng: &mut Rng, now: Instant) -> Option<Picked> {
        if !self.is_its_turn(None, now) {
            return None;
        }
        let at = self.pick_ready(key, &[first], rng, now)?;
        if !self.budget.withdraw(self.policy.retry_budget_percent, now) {
            self.counters.retries_refused += 1;
            return None;
        }
        self.counters.hedges += 1;
        let endpoint = &mut self.endpoints[at];
        endpoint.in_flight += 1;
        Some(Picked {
            token: endpoint.token,
            addr: endpoint.addr,
        })
    }

    fn pick_ready(&mut self, key: Option<u64>, tried: &[Token], rng: &mut Rng, now: Instant) -> Option<usize> {
        let is_untried = |at: &usize| !tried.contains(&self.endpoints[*at].token);
        let mut some: Vec<usize>;
        let mut offered = &self.offered;
        if !tried.is_empty() {
            some = self.offered.iter().copied().filter(is_untried).collect();
            offered = &some;
        }
        if self.has_limits() {
            let has_room = |at: &usize| self.has_room(&self.endpoints[*at]);
            some = offered.iter().copied().filter(has_room).collect();
            offered = &some;
        }
        // Clients that are known again keep their endpoint, however new it is.
        if key.is_none()
            && let Some(grown) = self.thin_out(offered, rng, now)
        {
            some = grown;
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
        self.least_loaded(|endpoint| {
            (endpoint.state == State::Ejected || endpoint.is_there_but_unfit()) && !tried.contains(&endpoint.token)
        })
    }

    fn least_loaded(&self, suits: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        (0..self.endpoints.len())
            .filter(|at| {
                let endpoint = &self.endpoints[*at];
                suits(endpoint) && self.has_share(endpoint) && self.has_room(endpoint)
            })
            .min_by_key(|at| self.endpoints[*at].in_flight)
    }
}
