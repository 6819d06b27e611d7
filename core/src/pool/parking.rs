//! Requests that wait for an endpoint, in the order in which they came, and how many may go.
//!
//! Where endpoints have a limit of requests under way ([`ServicePolicy::requests_max`](super::ServicePolicy::requests_max)),
//! requests wait while all are at theirs. A request may go if fewer wait before it than there are free places, so that none
//! that comes later overtakes it; where there is no limit, whoever finds an endpoint goes.

use alloc::collections::VecDeque;

use super::endpoint::Endpoint;
use super::pool::Pool;
use super::state::State;
use crate::time::Instant;

/// A request's place among those that wait. Of two, the smaller came first. Never used twice by a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Those that wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Parked {
    /// Ascending.
    tickets: VecDeque<Ticket>,
    next: u64,
}

impl Parked {
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.tickets.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    #[cfg(test)]
    pub(super) fn first(&self) -> Option<Ticket> {
        self.tickets.front().copied()
    }

    pub(super) fn enter(&mut self) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.tickets.push_back(ticket);
        ticket
    }

    fn leave(&mut self, ticket: Ticket) {
        if let Ok(at) = self.tickets.binary_search(&ticket) {
            self.tickets.remove(at);
        }
    }

    /// How many wait before it; before one that does not wait yet all do.
    fn before(&self, ticket: Option<Ticket>) -> u32 {
        let at = ticket.map_or(self.tickets.len(), |ticket| {
            self.tickets.binary_search(&ticket).unwrap_or_else(|at| at)
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }
}

impl Pool {
    /// A parked request gives up its place: it has an endpoint, timed out or its client left. Those that it stood before may go
    /// now, see [`Pool::may_go`].
    pub fn unpark(&mut self, ticket: Ticket) {
        self.parked.leave(ticket);
    }

    /// The parked requests that a place is free for, which are to pick anew; none where endpoints have no limit, since then a
    /// place that becomes free changes nothing.
    pub fn may_go(&self, now: Instant) -> impl Iterator<Item = Ticket> + '_ {
        let free = match self.parked.is_empty() || !self.has_limits() {
            true => 0,
            false => self.free_places(now),
        };
        let count = usize::try_from(free).unwrap_or(usize::MAX);
        self.parked.tickets.iter().take(count).copied()
    }

    /// Whether there are endpoints to serve a request, and all have as many as they may.
    pub fn is_busy(&self, now: Instant) -> bool {
        self.has_limits() && self.usable(now).next().is_some() && self.free_places(now) <= self.parked.len()
    }

    /// Whether nobody that came before is owed what this request would take.
    pub(super) fn is_its_turn(&self, ticket: Option<Ticket>, now: Instant) -> bool {
        !self.has_limits() || self.parked.before(ticket) < self.free_places(now).max(1)
    }

    /// Whether an endpoint may take one more.
    pub(super) fn has_room(&self, endpoint: &Endpoint) -> bool {
        self.room(endpoint) > 0
    }

    pub(super) fn has_limits(&self) -> bool {
        self.policy.services.iter().any(|service| service.requests_max > 0)
    }

    fn room(&self, endpoint: &Endpoint) -> u32 {
        let service = self.policy.services.get(endpoint.service);
        match service.map_or(0, |service| service.requests_max) {
            0 => u32::MAX,
            max => max.saturating_sub(endpoint.in_flight),
        }
    }

    fn free_places(&self, now: Instant) -> u32 {
        let rooms = self.usable(now).map(|endpoint| self.room(endpoint));
        rooms.fold(0, u32::saturating_add)
    }

    /// The endpoints that a request without history is sent to: the best that there are.
    fn usable(&self, now: Instant) -> impl Iterator<Item = &Endpoint> + '_ {
        let rank = move |endpoint: &Endpoint| match endpoint.state {
            State::Ready => Some(0),
            State::LastResort => (endpoint.last_resort_until > now).then_some(1),
            State::Ejected => Some(2),
            State::Probation => endpoint.is_there_but_unfit().then_some(2),
            State::Leaving => None,
        };
        let shared = |at: &usize| self.has_share(&self.endpoints[*at]);
        let all = 0..self.endpoints.len();
        let best = all
            .clone()
            .filter(shared)
            .filter_map(|at| rank(&self.endpoints[at]))
            .min();
        // In panic more than the ready ones.
        let offered = self.offered.iter().copied().filter(move |_| best == Some(0));
        let others =
            all.filter(move |at| best.is_some_and(|best| best > 0 && rank(&self.endpoints[*at]) == Some(best)));
        offered.chain(others).filter(shared).map(|at| &self.endpoints[at])
    }
}
