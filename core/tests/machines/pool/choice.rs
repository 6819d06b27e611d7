//! Who may have a request, who waits, and what the budget allows.

use tidegate_core::machine::Machine as _;
use tidegate_core::pool::{Picked, Pool, State, Ticket, Token, Unavailable};
use tidegate_core::time::Instant;

use super::shadow::{Seat, Shadow, second};

impl Shadow {
    pub(super) fn has_limits(&self) -> bool {
        self.policy.services.iter().any(|service| service.requests_max > 0)
    }

    /// How many more requests it may have; `None`: any number.
    fn room(&self, seat: &Seat) -> Option<u32> {
        let most = self.service(seat).map_or(0, |service| service.requests_max);
        (most > 0).then(|| most.saturating_sub(seat.under_way))
    }

    fn has_room(&self, seat: &Seat) -> bool {
        self.room(seat) != Some(0)
    }

    /// Those of the seats with a share of which this is true.
    fn some(&self, is_one: impl Fn(&Seat) -> bool) -> Vec<(Token, &Seat)> {
        let seats = self.seats.iter().map(|(token, seat)| (*token, seat));
        seats.filter(|(_, seat)| self.has_share(seat) && is_one(seat)).collect()
    }

    /// The ready ones, and in panic those that rest.
    fn offered(&self) -> Vec<(Token, &Seat)> {
        let is_in_panic = self.is_in_panic();
        self.some(|seat| seat.state == State::Ready || (is_in_panic && seat.rests()))
    }

    fn last_resorts(&self, now: Instant) -> Vec<(Token, &Seat)> {
        self.some(|seat| seat.state == State::LastResort && seat.leaves.is_some_and(|until| now < until))
    }

    /// The best endpoints that there are.
    fn best(&self, now: Instant) -> Vec<(Token, &Seat)> {
        if !self.some(|seat| seat.state == State::Ready).is_empty() {
            return self.offered();
        }
        let resorts = self.last_resorts(now);
        if resorts.is_empty() {
            self.some(Seat::rests)
        } else {
            resorts
        }
    }

    /// Free places at the best endpoints; `None`: any number.
    pub(super) fn free(&self, now: Instant) -> Option<usize> {
        self.best(now)
            .iter()
            .map(|(_, seat)| self.room(seat).map(|room| room as usize))
            .sum()
    }

    pub(super) fn is_busy(&self, now: Instant) -> bool {
        let is_full = self.free(now).is_some_and(|free| free <= self.waiting.len());
        self.has_limits() && !self.best(now).is_empty() && is_full
    }

    /// Who of those that wait may go because places are free.
    pub(super) fn may_go(&self, now: Instant) -> &[Ticket] {
        let free = self.free(now).unwrap_or(usize::MAX).min(self.waiting.len());
        &self.waiting[..if self.has_limits() { free } else { 0 }]
    }

    /// Whether those that came before leave something to this request.
    fn is_its_turn(&self, ticket: Option<Ticket>, now: Instant) -> bool {
        let before = self.waiting.iter().take_while(|other| Some(**other) != ticket).count();
        !self.has_limits() || before == 0 || self.free(now).is_none_or(|free| before < free)
    }

    /// Whether there is an endpoint for a request that these have failed.
    pub(super) fn finds(&self, tried: &[Token], ticket: Option<Ticket>, now: Instant) -> bool {
        let is_untried = |(token, _): &&(Token, &Seat)| !tried.contains(token);
        let is_free = |(_, seat): &(Token, &Seat)| self.has_room(seat);
        let (offered, resorts, resting) = (self.offered(), self.last_resorts(now), self.some(Seat::rests));
        let untried = || offered.iter().filter(is_untried);
        let is_none_ready = self.seats.values().all(|seat| seat.state != State::Ready);
        let is_resort = resorts.iter().filter(is_untried).any(is_free);
        if !self.is_its_turn(ticket, now) {
            return false;
        }
        if untried().any(is_free) || (is_none_ready && is_resort) {
            return true;
        }
        // It waits for one that is full rather than go to one that is no good.
        if self.has_limits() && untried().next().is_some() {
            return false;
        }
        is_resort || offered.iter().any(is_free) || resting.iter().filter(is_untried).any(is_free)
    }

    /// A request was sent there.
    pub(super) fn send(&mut self, picked: Picked, tried: &[Token], ticket: Option<Ticket>, now: Instant) {
        let token = picked.token;
        let seat = self
            .seats
            .get(&token)
            .unwrap_or_else(|| panic!("{token} is not in the table"));
        assert_eq!(picked.addr, seat.key.1, "{token}");
        assert!(self.has_share(seat), "{token} is to have nothing");
        assert!(self.has_room(seat), "{token} has as many requests as it may: {seat:?}");
        assert!(self.is_its_turn(ticket, now), "it overtakes others");
        let is_none_ready = self.seats.values().all(|seat| seat.state != State::Ready);
        let is_untried = |(token, _): &&(Token, &Seat)| !tried.contains(token);
        let (offered, resorts) = (self.offered(), self.last_resorts(now));
        let is_offered = offered.iter().any(|(other, _)| *other == token);
        let is_resort = resorts.iter().any(|(other, _)| *other == token);
        assert!(
            is_offered || is_resort || seat.rests(),
            "{token} takes nothing: {seat:?}"
        );
        if offered.iter().any(|one| is_untried(&one) && self.has_room(one.1)) {
            let is_right = is_offered || (is_none_ready && is_resort);
            assert!(is_right, "others are better than {token}: {seat:?}");
        }
        if offered.iter().any(|one| is_untried(&one)) {
            assert!(!tried.contains(&token), "{token} failed it already, and others did not");
        }
        if is_none_ready && resorts.iter().any(|one| is_untried(&one) && self.has_room(one.1)) {
            assert!(is_resort, "the last resort comes before {token}: {seat:?}");
        }
        self.counters.panics += u64::from(seat.rests());
        self.begin(token);
    }

    fn begin(&mut self, token: Token) {
        if let Some(seat) = self.seats.get_mut(&token) {
            seat.under_way += 1;
        }
    }

    /// A request ended; whether that was the last thing at an endpoint that no table has any more.
    pub(super) fn end(&mut self, token: Token) -> bool {
        let Some(seat) = self.seats.get_mut(&token) else {
            return false;
        };
        seat.under_way -= 1;
        let is_over = seat.gone && seat.under_way == 0;
        if is_over {
            self.seats.remove(&token);
        }
        is_over
    }

    /// A request has nowhere to go, and takes a place among those that wait, or goes back to its own.
    pub(super) fn park(&mut self, before: Option<Ticket>, ticket: Ticket, now: Instant) {
        if before.is_some() {
            assert_eq!(before, Some(ticket), "it has another place now");
            return;
        }
        assert!(
            self.last_ticket.is_none_or(|last| last < ticket),
            "{ticket:?} was given before"
        );
        self.counters.busy += u64::from(self.is_busy(now));
        self.counters.parked += 1;
        self.last_ticket = Some(ticket);
        self.waiting.push(ticket);
        let most = self.policy.parked_max as usize;
        assert!(self.waiting.len() <= most, "more than {most} wait");
        assert!(!self.policy.park.is_zero(), "nobody may wait");
    }

    pub(super) fn unpark(&mut self, ticket: Ticket) {
        self.waiting.retain(|other| *other != ticket);
    }

    pub(super) fn turn_away(&mut self, why: Unavailable, now: Instant) {
        let (is_off, is_busy) = (self.policy.park.is_zero(), self.is_busy(now));
        let is_full = self.waiting.len() >= self.policy.parked_max as usize;
        assert!(is_off || is_full, "it may wait");
        let expected = match (is_busy, is_off) {
            (true, _) => Unavailable::Busy,
            (false, true) => Unavailable::ParkingOff,
            (false, false) => Unavailable::ParkingFull,
        };
        assert_eq!(why, expected);
        self.counters.busy += u64::from(is_busy);
        self.counters.parking_full += u64::from(!is_off);
    }

    /// Takes one more try from the budget: of the requests sent in ten seconds a share, and ten for each second.
    pub(super) fn charge(&mut self, now: Instant) -> bool {
        let lately = |all: &[u64]| all.iter().filter(|at| **at + 10 > second(now)).count() as u64;
        let allowed = lately(&self.sent) * u64::from(self.policy.retry_budget_percent) / 100 + 100;
        let granted = lately(&self.charged) < allowed;
        if granted {
            self.charged.push(second(now));
        } else {
            self.counters.retries_refused += 1;
        }
        granted
    }

    /// A second copy of a request at `first` was sent there, or nowhere.
    pub(super) fn hedge(&mut self, first: Token, second: Option<Picked>, now: Instant) {
        let offered = self.offered();
        let candidates: Vec<Token> = (offered.iter())
            .filter(|(token, seat)| *token != first && self.has_room(seat))
            .map(|(token, _)| *token)
            .collect();
        let may_go = self.is_its_turn(None, now) && !candidates.is_empty();
        let is_granted = may_go && self.charge(now);
        assert_eq!(second.is_some(), is_granted, "a second copy, {candidates:?}");
        if let Some(picked) = second {
            assert!(candidates.contains(&picked.token), "{} of {candidates:?}", picked.token);
            self.counters.hedges += 1;
            self.begin(picked.token);
        }
    }

    /// When everything is well again: all that may serve do.
    pub(super) fn check_healed(&self, pool: &Pool) {
        assert!(
            self.seats.values().all(|seat| seat.state == State::Ready),
            "{:?}",
            self.seats
        );
        assert!(self.seats.values().all(|seat| seat.under_way == 0), "{:?}", self.seats);
        assert_eq!(pool.parked(), 0, "somebody waits");
        assert_eq!(pool.poll_timeout(), None, "something is due");
    }
}
