//! One worker's pool: endpoints that come, leave, change hands, refuse, hang, answer badly and are doubted; requests that are
//! sent, tried again, copied, wait, give up or are cancelled; policies that change and pools that take the place of others.
//!
//! The model is the same pool once more, without a list that is kept up to date: see `shadow` for the endpoints and `choice`
//! for the requests.

mod choice;
mod shadow;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use tidegate_core::machine::{Input, Machine as _, step};
use tidegate_core::pool::prober::Unfit;
use tidegate_core::pool::{Action, Fact, Member, Outcome, Pick, Picked, Pool, PoolPolicy, State, Ticket, Token};
use tidegate_core::request::retry::Failure;
use tidegate_core::rng::Rng;
use tidegate_core::time::{Duration, Instant};

use self::shadow::{Cause, Shadow};
use self::tables::{member, policy};
use super::{Story, seeds};

const STEPS: u32 = 2500;
/// Longer than any rest, any pause between probes and any wait for one.
const SETTLES: u64 = 90_000;

/// How an app behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Fails,
    Flickers,
    Hangs,
    Lost,
    Refuses,
    Well,
}

struct Request {
    key: Option<u64>,
    tried: Vec<Token>,
    arrived: Instant,
    /// Somebody took its connection.
    is_sent: bool,
}

/// A request at an endpoint.
struct Flight {
    token: Token,
    addr: SocketAddr,
    request: Request,
    is_copy: bool,
}

struct Waiting {
    ticket: Ticket,
    request: Request,
    /// It was told to pick anew.
    is_woken: bool,
}

struct World<'a> {
    rng: Rng,
    story: &'a Story,
    now: Instant,
    pool: Pool,
    shadow: Shadow,
    table: BTreeMap<u16, Member>,
    policy: PoolPolicy,
    unfit: Arc<Unfit>,
    moods: BTreeMap<u16, Mood>,
    flights: Vec<Flight>,
    waiting: Vec<Waiting>,
    /// Probes that were not answered yet.
    probes: Vec<Picked>,
    /// Endpoints that were there once.
    known: BTreeSet<Token>,
    lives: u32,
    /// Of those that had to wait: served, given up after their time, and cancelled.
    came_out: [u64; 3],
}

impl<'a> World<'a> {
    fn new(mut rng: Rng, story: &'a Story) -> Self {
        let services = rng.index(4);
        let policy = policy(&mut rng, services);
        World {
            rng,
            story,
            now: Instant::from_millis(1_000),
            pool: Pool::new(policy.clone()),
            shadow: Shadow::new(policy.clone()),
            table: BTreeMap::new(),
            policy,
            unfit: Arc::default(),
            moods: BTreeMap::new(),
            flights: Vec::new(),
            waiting: Vec::new(),
            probes: Vec::new(),
            known: BTreeSet::new(),
            lives: 0,
            came_out: [0; 3],
        }
    }

    fn tell(&self, what: String) {
        self.story.tell(format!("{:?} {what}", self.now));
    }

    fn step(&mut self, input: Input<Fact>, cause: Cause) {
        let mut actions = Vec::new();
        step(&mut self.pool, input, self.now, |action| actions.push(action));
        self.tell(format!("{cause:?}: {actions:?}"));
        self.shadow.follow(&self.pool, cause, &actions, self.now);
        for action in &actions {
            match action {
                Action::Probe(picked) => self.probes.push(*picked),
                Action::Wake => self.waiting.iter_mut().for_each(|one| one.is_woken = true),
                Action::Abandon(_) | Action::CloseIdle(_) | Action::Forget(_) => {}
            }
        }
        self.check();
    }

    fn learn(&mut self, token: Token, outcome: Outcome) {
        self.step(
            Input::Fact(Fact::Outcome(token, outcome)),
            Cause::Outcome(token, outcome),
        );
    }

    /// What holds after every step.
    fn check(&self) {
        self.shadow.compare(&self.pool);
        assert_eq!(self.pool.is_busy(self.now), self.shadow.is_busy(self.now), "busy");
        let may_go: Vec<Ticket> = self.pool.may_go(self.now).collect();
        assert_eq!(may_go, self.shadow.may_go(self.now), "who may go");
    }

    /// Whoever waits was told since there is something for it.
    fn check_waiting(&self) {
        if self.is_due() {
            return; // what is due may be just that
        }
        let is_full = self.shadow.has_limits() && self.shadow.free(self.now) == Some(0);
        for one in self.waiting.iter().filter(|one| !one.is_woken && !is_full) {
            let finds = self.shadow.finds(&one.request.tried, Some(one.ticket), self.now);
            assert!(!finds, "{:?} waits and nobody wakes it", one.ticket);
        }
    }

    /// A request picks, for the first time or once more.
    fn pick(&mut self, mut request: Request, ticket: Option<Ticket>) {
        let (key, tried, now) = (request.key, &request.tried, self.now);
        let finds = self.shadow.finds(tried, ticket, now);
        let pick = self.pool.pick(key, tried, ticket, &mut self.rng, now);
        self.tell(format!("picks, tried {tried:?}, {ticket:?}: {pick:?}"));
        assert_eq!(
            matches!(pick, Pick::Endpoint(_)),
            finds,
            "there is an endpoint: {finds}"
        );
        match pick {
            Pick::Endpoint(picked) => {
                self.shadow.send(picked, tried, ticket, now);
                if let Some(ticket) = ticket {
                    self.came_out[0] += 1;
                    self.leave(ticket);
                }
                self.find_again(&request, picked);
                // Else nobody takes its connection.
                if !request.is_sent && self.rng.chance(9, 10) {
                    request.is_sent = true;
                    self.pool.handle_sent(now);
                    self.shadow.sent.push(shadow::second(now));
                }
                self.flights.push(Flight {
                    token: picked.token,
                    addr: picked.addr,
                    request,
                    is_copy: false,
                });
            }
            Pick::Park(place) => {
                self.shadow.park(ticket, place, now);
                if ticket.is_none() {
                    self.waiting.push(Waiting {
                        ticket: place,
                        request,
                        is_woken: false,
                    });
                }
            }
            Pick::Unavailable(why) => self.shadow.turn_away(why, now),
        }
        self.check();
    }

    /// The same client is sent to the same endpoint while nothing changes.
    fn find_again(&mut self, request: &Request, picked: Picked) {
        let is_ready = self.shadow.seats[&picked.token].state == State::Ready;
        if request.key.is_none() || self.shadow.has_limits() || !is_ready {
            return;
        }
        let again = self
            .pool
            .pick(request.key, &request.tried, None, &mut self.rng, self.now);
        assert_eq!(again, Pick::Endpoint(picked), "a client is known again");
        self.pool.release(picked.token);
    }

    /// A request gives up its place, and those behind it may have it.
    fn leave(&mut self, ticket: Ticket) {
        self.waiting.retain(|one| one.ticket != ticket);
        self.pool.unpark(ticket);
        self.shadow.unpark(ticket);
        self.wake_next();
    }

    fn release(&mut self, token: Token) {
        self.pool.release(token);
        let forgotten = self.shadow.end(token).then_some(Action::Forget(token));
        assert_eq!(self.pool.poll_action(), forgotten, "whether {token} is forgotten");
        self.wake_next();
    }

    fn wake_next(&mut self) {
        let may_go: Vec<Ticket> = self.pool.may_go(self.now).collect();
        for one in self.waiting.iter_mut().filter(|one| may_go.contains(&one.ticket)) {
            one.is_woken = true;
        }
    }

    fn arrive(&mut self) {
        self.pool.handle_request();
        self.shadow.counters.requests += 1;
        let request = Request {
            key: self.rng.chance(1, 4).then(|| self.rng.below(20)),
            tried: Vec::new(),
            arrived: self.now,
            is_sent: false,
        };
        self.pick(request, None);
    }

    fn mood(&self, addr: SocketAddr) -> Mood {
        self.moods.get(&addr.port()).copied().unwrap_or(Mood::Well)
    }

    /// What comes of a request, and why it may be sent again.
    fn outcome(&mut self, addr: SocketAddr) -> (Outcome, Option<Failure>) {
        let dice = self.rng.below(20);
        match (self.mood(addr), dice) {
            (_, 0) => (Outcome::Stale, Some(Failure::NotSent)),
            (_, 1) => (Outcome::Stale, Some(Failure::Died)),
            (_, 2) => (Outcome::Untried, Some(Failure::Connect)),
            (Mood::Lost, _) => (Outcome::NoWay, Some(Failure::Connect)),
            (Mood::Refuses, _) => (Outcome::ConnectFailed, Some(Failure::Connect)),
            (Mood::Hangs, 3..12) => (Outcome::ConnectTimedOut, Some(Failure::Connect)),
            (Mood::Hangs, _) => (Outcome::Failed, Some(Failure::Vanished)),
            (Mood::Fails, 3..8) => (Outcome::Failed, Some(Failure::BadResponse)),
            (Mood::Fails, 8..10) => (Outcome::Failed, Some(Failure::TimedOut)),
            (Mood::Fails, _) | (Mood::Flickers, 3..10) => (Outcome::Responded(503), Some(Failure::Unable)),
            (Mood::Flickers | Mood::Well, 10..12) => (Outcome::Responded(404), None),
            (Mood::Flickers | Mood::Well, _) => (Outcome::Responded(200), None),
        }
    }

    /// A request that is under way ends, or is tried once more.
    fn finish(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let at = self.rng.index(self.flights.len());
        let flight = self.flights.swap_remove(at);
        let (outcome, failure) = self.outcome(flight.addr);
        let is_new = matches!(outcome, Outcome::Responded(_) | Outcome::Failed) && self.rng.chance(1, 3);
        if is_new {
            self.learn(flight.token, Outcome::Connected);
        }
        self.learn(flight.token, outcome);
        if flight.is_copy && failure.is_none() {
            self.pool.handle_hedge_won();
            self.shadow.counters.hedges_won += 1;
        }
        let Some(failure) = failure.filter(|_| !flight.is_copy && self.rng.chance(4, 5)) else {
            self.release(flight.token);
            self.check();
            return;
        };
        let is_granted = self.withdraw(failure);
        self.release(flight.token);
        self.check();
        if is_granted {
            let mut request = flight.request;
            request.tried.push(flight.token);
            self.pick(request, None);
        }
    }

    /// What was not sent anywhere may be sent for nothing.
    fn withdraw(&mut self, failure: Failure) -> bool {
        let is_free = matches!(failure, Failure::Connect | Failure::NotSent);
        let expected = is_free || self.shadow.charge(self.now);
        let is_granted = self.pool.withdraw_retry(failure, self.now);
        assert_eq!(is_granted, expected, "a retry after {failure:?}");
        if !is_granted {
            self.tell(format!("no retry after {failure:?}"));
        }
        self.shadow.counters.retries += u64::from(is_granted);
        self.shadow.counters.abandoned += u64::from(is_granted && failure == Failure::Vanished);
        is_granted
    }

    /// Retries as fast as they are granted.
    fn storm(&mut self) {
        for _ in 0..self.rng.between(1, 150) {
            let failures = [Failure::Died, Failure::TimedOut, Failure::Refused, Failure::Connect];
            let failure = failures[self.rng.index(failures.len())];
            self.withdraw(failure);
        }
        self.check();
    }

    fn copy(&mut self) {
        let Some(flight) = self.flights.get(self.rng.index(self.flights.len())) else {
            return;
        };
        let (first, key, arrived) = (flight.token, flight.request.key, flight.request.arrived);
        let second = self.pool.hedge(key, first, &mut self.rng, self.now);
        self.tell(format!("a second copy of one at {first}: {second:?}"));
        self.shadow.hedge(first, second, self.now);
        if let Some(picked) = second {
            self.flights.push(Flight {
                token: picked.token,
                addr: picked.addr,
                request: Request {
                    key,
                    tried: vec![first],
                    arrived,
                    is_sent: true,
                },
                is_copy: true,
            });
        }
        self.check();
    }

    /// One that was woken picks anew, or one gives up.
    fn wait(&mut self, may_give_up: bool) {
        let woken = self.waiting.iter().position(|one| one.is_woken);
        if let Some(at) = woken {
            let one = &mut self.waiting[at];
            one.is_woken = false;
            let (ticket, key, arrived) = (one.ticket, one.request.key, one.request.arrived);
            let (tried, is_sent) = (one.request.tried.clone(), one.request.is_sent);
            let request = Request {
                key,
                tried,
                arrived,
                is_sent,
            };
            self.pick(request, Some(ticket));
        }
        let park = self.policy.park;
        let is_late = |one: &Waiting| self.now.since(one.request.arrived) >= park;
        let late = self.waiting.iter().find(|one| is_late(one)).map(|one| one.ticket);
        let cancelled = self
            .waiting
            .get(self.rng.index(self.waiting.len()))
            .map(|one| one.ticket);
        let cancelled = cancelled.filter(|_| self.rng.chance(1, 20));
        let Some(ticket) = late.or(cancelled).filter(|_| may_give_up) else {
            return;
        };
        self.tell(format!("{ticket:?} gives up"));
        self.came_out[if late.is_some() { 1 } else { 2 }] += 1;
        self.leave(ticket);
        self.check();
    }

    fn answer_probe(&mut self) {
        if self.probes.is_empty() {
            return;
        }
        let at = self.rng.index(self.probes.len());
        let probe = self.probes.swap_remove(at);
        let outcome = match self.mood(probe.addr) {
            _ if self.rng.chance(1, 20) => Outcome::Untried,
            Mood::Fails | Mood::Flickers | Mood::Well => Outcome::Connected,
            Mood::Hangs => Outcome::ConnectTimedOut,
            Mood::Lost => Outcome::NoWay,
            Mood::Refuses => Outcome::ConnectFailed,
        };
        self.learn(probe.token, outcome);
    }

    /// Somebody waits for a first byte, or news comes late.
    fn doubt(&mut self) {
        let known: Vec<Token> = self.known.iter().copied().collect();
        let under_way: Vec<Token> = self.flights.iter().map(|flight| flight.token).collect();
        if let Some(token) = self.rng.pick(&under_way).copied() {
            self.step(Input::Fact(Fact::Doubt(token)), Cause::Doubt(token));
        }
        let late = self.rng.pick(&known).copied();
        if let Some(token) = late.filter(|token| !self.shadow.seats.contains_key(token)) {
            let outcomes = [Outcome::Connected, Outcome::ConnectTimedOut, Outcome::Failed];
            let outcome = outcomes[self.rng.index(outcomes.len())];
            self.learn(token, outcome);
        }
    }

    /// Another pool takes the place of this one, and those that are under way or wait go.
    fn succeed(&mut self) {
        self.tell(String::from("another pool"));
        let (flights, waiting) = (std::mem::take(&mut self.flights), std::mem::take(&mut self.waiting));
        flights.iter().for_each(|flight| self.release(flight.token));
        waiting.iter().for_each(|one| self.leave(one.ticket));
        self.came_out[2] += waiting.len() as u64;
        self.check();
        self.check_counts();
        let old_pool = std::mem::replace(&mut self.pool, Pool::new(self.policy.clone()));
        let old = std::mem::replace(&mut self.shadow, Shadow::new(self.policy.clone()));
        (self.probes, self.known, self.came_out) = (Vec::new(), BTreeSet::new(), [0; 3]);
        self.distrust(Unfit::clone(&self.unfit));
        self.adopt_table();
        let adopted = self.pool.adopt(&old_pool, self.now);
        self.shadow.adopt(&old, &adopted, self.now);
        self.check();
        self.step(Input::Timeout, Cause::Timeout);
    }

    /// Time passes; a shell that has much to do wakes the pool later.
    fn pass(&mut self, ms: u64, is_late: bool) {
        self.now = self.now + Duration::from_millis(ms);
        if self.is_due() && !is_late {
            self.step(Input::Timeout, Cause::Timeout);
        }
    }

    fn is_due(&self) -> bool {
        self.pool.poll_timeout().is_some_and(|due| due.at <= self.now)
    }

    /// Who had to wait was served, gave up or was cancelled: once.
    fn check_counts(&self) {
        let out: u64 = self.came_out.iter().sum();
        let waiting = self.waiting.len() as u64;
        assert_eq!(self.pool.counters().parked, out + waiting, "{:?}", self.came_out);
    }

    /// All endpoints are well, all requests end, and nobody gives up.
    fn heal(&mut self) {
        self.moods.clear();
        self.policy.parked_max = 100;
        for service in &mut self.policy.services {
            service.weight = None;
        }
        self.table.entry(1).or_insert_with(|| member(&mut self.rng, 1, 0, 1));
        for member in self.table.values_mut() {
            (member.spec.leaving, member.spec.unsure) = (None, false);
        }
        self.adopt_table();
        self.distrust(Unfit::new());
        let end = self.now + Duration::from_millis(SETTLES);
        while self.now < end {
            for _ in 0..4 {
                self.answer_probe();
                self.wait(false);
                self.finish();
            }
            self.pass(100, false);
            self.check_waiting();
        }
        assert!(self.flights.is_empty(), "requests never end");
        assert!(self.waiting.is_empty(), "somebody waits though all are well");
        self.shadow.check_healed(&self.pool);
        self.check_counts();
    }
}

#[test]
fn a_pool_does_what_a_plain_list_would() {
    seeds("a_pool_does", 80, |rng, story| {
        let mut world = World::new(rng, story);
        let rare = [
            world.rng.below(6),
            world.rng.below(6),
            world.rng.below(4),
            world.rng.between(1, 8),
        ];
        let jump = [10, 100, 2_000][world.rng.index(3)];
        world.change_table();
        for _ in 0..STEPS {
            let [tables, unfit, policies, moods] = rare;
            match world.rng.below(200) {
                dice if dice < tables => world.change_table(),
                dice if dice < tables + unfit => world.change_unfit(),
                dice if dice < tables + unfit + policies => world.change_policy(),
                dice if dice < tables + unfit + policies + moods => world.change_mood(),
                30..32 if world.rng.chance(1, 8) => world.succeed(),
                32..34 if world.rng.chance(1, 4) => world.storm(),
                34..40 => world.copy(),
                40..50 => world.doubt(),
                50..90 => world.arrive(),
                90..130 => world.finish(),
                130..150 => world.answer_probe(),
                150..170 => world.wait(true),
                _ => {
                    let (ms, is_late) = (world.rng.below(jump), world.rng.chance(1, 3));
                    world.pass(ms, is_late);
                }
            }
            world.check_waiting();
        }
        world.heal();
    });
}
