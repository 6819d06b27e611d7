//! What a pool must be in, written down a second time: one list of endpoints, plain lists of what happened, everything counted
//! anew when it is asked for.

use std::collections::BTreeMap;

use tidegate_core::id::NetworkId;
use tidegate_core::machine::Machine as _;
use tidegate_core::pool::prober::Unfit;
use tidegate_core::pool::{
    Action, EndpointKey, Member, Outcome, Picked, Pool, PoolCounters, PoolPolicy, ServicePolicy, State, Ticket, Token,
};
use tidegate_core::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// One step of the machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cause {
    Doubt(Token),
    Outcome(Token, Outcome),
    Table,
    Timeout,
    Unfit,
}

/// An endpoint of the present table, or of an earlier one with requests that are under way still.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) key: EndpointKey,
    pub(super) service: usize,
    pub(super) state: State,
    pub(super) under_way: u32,
    /// It was told to stop, and may be the last resort until then.
    pub(super) leaves: Option<Instant>,
    /// The present table does not have it.
    pub(super) gone: bool,
    pub(super) unsure: bool,
    pub(super) unfit: bool,
    /// The last connection to it failed.
    absent: bool,
    /// Something came from it once.
    proven: bool,
    heard: Instant,
    /// It does not answer at all.
    vanished: bool,
    doubted: Option<Instant>,
    /// When its rest or its time as last resort ends, or it is probed.
    due: Option<Instant>,
    /// A probe is under way.
    asked: bool,
    probes: u32,
    fails: u32,
    fails_since: Instant,
    /// Rests as an outlier that are remembered, and since when they are forgotten.
    rests: u32,
    rests_since: Instant,
}

impl Seat {
    fn new(key: EndpointKey) -> Self {
        Seat {
            key,
            service: 0,
            state: State::Ready,
            under_way: 0,
            leaves: None,
            gone: false,
            unsure: false,
            unfit: false,
            absent: false,
            proven: false,
            heard: Instant::START,
            vanished: false,
            doubted: None,
            due: None,
            asked: false,
            probes: 0,
            fails: 0,
            fails_since: Instant::START,
            rests: 0,
            rests_since: Instant::START,
        }
    }

    /// It fails its active checks, and takes connections.
    fn is_there_but_unfit(&self) -> bool {
        self.state == State::Probation && self.unfit && !self.absent
    }

    /// It is out, and better than none.
    pub(super) fn rests(&self) -> bool {
        self.state == State::Ejected || self.is_there_but_unfit()
    }

    pub(super) fn is_told(&self) -> bool {
        matches!(self.state, State::LastResort | State::Leaving)
    }

    fn fail(&mut self, window: Duration, now: Instant) -> u32 {
        if self.fails == 0 || now.since(self.fails_since) > window {
            (self.fails, self.fails_since) = (0, now);
        }
        self.fails += 1;
        self.fails
    }

    fn pause(&self) -> Duration {
        (0..self.probes.min(5)).fold(FIRST_PAUSE, |pause, _| (pause * 2).min(LONGEST_PAUSE))
    }
}

/// What a step must ask the shell for.
#[derive(Debug, Default)]
struct Asked {
    abandoned: Vec<Token>,
    closed: Vec<Token>,
    forgotten: Vec<Token>,
    probed: Vec<Token>,
}

pub(super) struct Shadow {
    pub(super) policy: PoolPolicy,
    pub(super) seats: BTreeMap<Token, Seat>,
    wanted: BTreeMap<EndpointKey, Member>,
    unfit: Unfit,
    /// The first came first.
    pub(super) waiting: Vec<Ticket>,
    pub(super) last_ticket: Option<Ticket>,
    last_token: Option<Token>,
    pub(super) counters: PoolCounters,
    /// What endpoints answered since they are ready: when, who, and whether it was a failure.
    answers: Vec<(u64, Token, bool)>,
    /// The seconds of all requests that were sent, and of all tries that were taken from the budget.
    pub(super) sent: Vec<u64>,
    pub(super) charged: Vec<u64>,
    asked: Asked,
}

pub(super) fn second(now: Instant) -> u64 {
    now.since_start().as_secs()
}

impl Shadow {
    pub(super) fn new(policy: PoolPolicy) -> Self {
        Shadow {
            policy,
            seats: BTreeMap::new(),
            wanted: BTreeMap::new(),
            unfit: Unfit::new(),
            waiting: Vec::new(),
            last_ticket: None,
            last_token: None,
            counters: PoolCounters::default(),
            answers: Vec::new(),
            sent: Vec::new(),
            charged: Vec::new(),
            asked: Asked::default(),
        }
    }

    pub(super) fn want(&mut self, wanted: &[Member], policy: &PoolPolicy) {
        let key = |member: &Member| (member.spec.id.clone(), member.spec.addr, member.spec.via.clone());
        self.wanted = wanted.iter().map(|member| (key(member), member.clone())).collect();
        self.policy = policy.clone();
    }

    pub(super) fn distrust(&mut self, unfit: &Unfit) {
        self.unfit = unfit.clone();
    }

    /// What a pool that takes the place of another one knows, if both have one table: the same about everybody, by new tokens.
    pub(super) fn adopt(&mut self, old: &Shadow, adopted: &[(Token, Token)], now: Instant) {
        let (before, after): (Vec<_>, Vec<_>) = adopted.iter().copied().unzip();
        let mut of_table = old.seats.iter().filter(|(_, seat)| !seat.gone);
        assert!(of_table.all(|(token, _)| before.contains(token)), "{adopted:?}");
        assert!(self.seats.keys().all(|token| after.contains(token)), "{adopted:?}");
        for (old_token, token) in adopted {
            let mut seat = old.seats[old_token].clone();
            assert_eq!(seat.key, self.seats[token].key, "{adopted:?}");
            let waits = matches!(seat.state, State::Ejected | State::LastResort | State::Probation);
            seat.due = seat.due.or(waits.then_some(now));
            (seat.asked, seat.under_way) = (false, 0);
            self.seats.insert(*token, seat);
        }
    }

    pub(super) fn service(&self, seat: &Seat) -> Option<&ServicePolicy> {
        self.policy.services.get(seat.service)
    }

    pub(super) fn has_share(&self, seat: &Seat) -> bool {
        self.service(seat).is_none_or(|service| service.weight != Some(0))
    }

    fn checks(&self, token: Token) -> (u32, Duration) {
        let service = self.service(&self.seats[&token]);
        service.map_or((self.policy.max_fails, self.policy.fail_timeout), |service| {
            (service.max_fails, service.fail_timeout)
        })
    }

    /// Endpoints that are to have requests and are in one of these states.
    fn count(&self, is_one: impl Fn(&Seat) -> bool) -> u64 {
        let counted = self.seats.values().filter(|seat| self.has_share(seat) && is_one(seat));
        counted.count() as u64
    }

    fn others_ready(&self, token: Token) -> bool {
        let mut others = self.seats.iter().filter(|(other, _)| **other != token);
        others.any(|(_, seat)| seat.state == State::Ready && self.has_share(seat))
    }

    /// Another one is ready, and no more rest than the share that may; one may always, unless nobody may.
    fn may_rest(&self, token: Token) -> bool {
        let staying = self.count(|seat| !seat.is_told());
        let most = match self.policy.eject_max_percent {
            0 => 0,
            percent => (staying * u64::from(percent) / 100).max(1),
        };
        self.others_ready(token) && self.count(|seat| seat.state == State::Ejected) < most
    }

    pub(super) fn is_in_panic(&self) -> bool {
        let staying = self.count(|seat| !seat.is_told());
        let least = staying * u64::from(self.policy.panic_threshold_percent);
        self.count(|seat| seat.state == State::Ready) * 100 < least
    }

    fn seat(&mut self, token: Token) -> &mut Seat {
        self.seats.get_mut(&token).expect("it is in the table")
    }

    fn move_to(&mut self, token: Token, to: State, rest: Duration, now: Instant) {
        let seat = self.seat(token);
        if seat.state == to {
            return;
        }
        (seat.state, seat.asked, seat.due) = (to, false, None);
        match to {
            State::Ejected => seat.due = Some(now + rest),
            State::LastResort => seat.due = seat.leaves,
            State::Leaving => {}
            State::Probation => (seat.probes, seat.due) = (0, Some(now + FIRST_PAUSE)),
            State::Ready => (seat.fails, seat.absent, seat.rests_since) = (0, false, now),
        }
        self.counters.ejections += u64::from(to == State::Ejected);
        self.counters.probations += u64::from(to == State::Probation);
        if to != State::Ready {
            self.answers.retain(|(_, of, _)| *of != token);
            self.asked.closed.push(token);
        }
    }

    fn go(&mut self, token: Token, to: State, now: Instant) {
        self.move_to(token, to, Duration::ZERO, now);
    }

    /// Takes a step and compares what it made of the pool with what it makes of this.
    pub(super) fn follow(&mut self, pool: &Pool, cause: Cause, actions: &[Action], now: Instant) {
        self.asked = Asked::default();
        let ejections = self.counters.ejections;
        match cause {
            Cause::Doubt(token) => self.doubt(token, now),
            Cause::Outcome(token, outcome) if self.seats.contains_key(&token) => self.learn(token, outcome, now),
            Cause::Outcome(..) => {}
            Cause::Table => self.take_table(pool, now),
            Cause::Timeout => self.pass(now),
            Cause::Unfit => self.check_actively(now),
        }
        self.compare(pool);
        let sorted = |mut actions: Vec<Action>| {
            actions.sort_by_key(|action| format!("{action:?}"));
            actions
        };
        let is_asked = |action: &&Action| !matches!(action, Action::CloseIdle(_) | Action::Wake);
        let probe = |token: &Token| {
            let (token, addr) = (*token, self.seats[token].key.1);
            Action::Probe(Picked { token, addr })
        };
        let Asked {
            forgotten,
            probed,
            abandoned,
            ..
        } = &self.asked;
        let forgets = forgotten.iter().map(|token| Action::Forget(*token));
        let abandons = abandoned.iter().map(|token| Action::Abandon(*token));
        let asked = forgets.chain(abandons).chain(probed.iter().map(probe)).collect();
        assert_eq!(
            sorted(actions.iter().filter(is_asked).copied().collect()),
            sorted(asked),
            "{cause:?}: who is forgotten, abandoned and probed"
        );
        for token in &self.asked.closed {
            let is_closed = actions.contains(&Action::CloseIdle(*token));
            assert!(is_closed, "{cause:?}: idle connections to {token} stay open");
        }
        if self.counters.ejections > ejections {
            let resting = self.count(|seat| seat.state == State::Ejected);
            let staying = self.count(|seat| !seat.is_told());
            let most = staying * u64::from(self.policy.eject_max_percent) / 100;
            assert!(resting <= most.max(1), "{resting} of {staying} rest");
            let ready = self.count(|seat| seat.state == State::Ready);
            assert!(ready > 0, "the last ready endpoint was ejected");
        }
    }

    /// What holds after every step.
    pub(super) fn compare(&self, pool: &Pool) {
        pool.check_invariants();
        let of_table = self.seats.iter().filter(|(_, seat)| !seat.gone);
        let of_table = of_table.map(|(token, seat)| (*token, seat.key.1, seat.key.2.as_ref()));
        let known = pool.addresses().map(|(picked, via)| (picked.token, picked.addr, via));
        assert!(known.eq(of_table), "the pool has other endpoints");
        assert_eq!(
            pool.views().count(),
            self.seats.len(),
            "endpoints with those that are gone"
        );
        for (view, (token, seat)) in pool.views().zip(&self.seats) {
            let token = *token;
            assert_eq!((&view.id, view.addr), (&seat.key.0, seat.key.1), "{token}");
            assert_eq!(view.state, seat.state, "the state of {token}, {seat:?}");
            assert_eq!(view.in_flight, seat.under_way, "requests under way at {token}");
            assert_eq!(pool.keeps_idle(token), seat.state == State::Ready, "{token}");
            assert_eq!(pool.service_of(token), Some(seat.service), "{token}");
            assert_eq!(
                seat.is_told(),
                seat.leaves.is_some(),
                "{token} knows that it is to stop"
            );
        }
        assert_eq!(pool.parked() as usize, self.waiting.len(), "requests that wait");
        assert_eq!(pool.counters(), self.counters, "counts");
        let due = self.seats.values().filter_map(|seat| seat.due).min();
        assert_eq!(pool.poll_timeout().map(|due| due.at), due, "what is due next");
    }

    fn take_table(&mut self, pool: &Pool, now: Instant) {
        let gone = self
            .seats
            .iter()
            .filter(|(_, seat)| !self.wanted.contains_key(&seat.key));
        let gone: Vec<Token> = gone.map(|(token, _)| *token).collect();
        for token in gone {
            if self.seat(token).under_way == 0 {
                self.seats.remove(&token);
                self.asked.forgotten.push(token);
                continue;
            }
            let seat = self.seat(token);
            (seat.gone, seat.leaves, seat.service) = (true, Some(now), usize::MAX);
            self.go(token, State::Leaving, now);
        }
        self.answers.retain(|(_, of, _)| self.seats.contains_key(of));
        let ids: BTreeMap<_, _> = self.wanted.keys().map(|key| ((key.1, &key.2), &key.0)).collect();
        for (picked, via) in pool.addresses() {
            let token = picked.token;
            if self.last_token.is_none_or(|last| last < token) {
                self.last_token = Some(token);
                let via = via.cloned();
                let id = ids[&(picked.addr, &via)].clone();
                self.seats.insert(token, Seat::new((id, picked.addr, via)));
            }
        }
        let here = self.seats.values().filter(|seat| self.wanted.contains_key(&seat.key));
        let here: Vec<_> = here.map(|seat| &seat.key).collect();
        assert_eq!(here.len(), self.wanted.len(), "{here:?}");
        let tokens: Vec<Token> = self.seats.keys().copied().collect();
        for token in tokens {
            let seat = self.seat(token).clone();
            let Some(member) = self.wanted.get(&seat.key).cloned() else {
                continue; // it is gone
            };
            let (state, leaving) = (seat.state, member.spec.leaving);
            let seat = self.seat(token);
            seat.gone = false;
            seat.service = member.service;
            let is_sure_now = seat.unsure && !member.spec.unsure;
            seat.unsure = member.spec.unsure;
            if is_sure_now && state == State::Probation && !seat.asked {
                seat.due = Some(seat.due.unwrap_or(now).min(now));
            }
            match (leaving, seat.leaves) {
                (Some(leaving), None) => {
                    let until = now + Duration::from_millis(leaving.last_resort_ms.into());
                    seat.leaves = Some(until);
                    let serves_on = state == State::Ready && until > now;
                    self.go(token, if serves_on { State::LastResort } else { State::Leaving }, now);
                }
                (None, Some(_)) => {
                    seat.leaves = None;
                    self.go(token, State::Ready, now);
                }
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        self.check_actively(now);
    }

    fn check_actively(&mut self, now: Instant) {
        let tokens: Vec<Token> = self.seats.keys().copied().collect();
        for token in tokens {
            let is_unfit = self.unfit.contains(&self.seats[&token].key);
            let seat = self.seat(token);
            if std::mem::replace(&mut seat.unfit, is_unfit) == is_unfit {
                continue;
            }
            let (state, unsure) = (seat.state, seat.unsure);
            self.counters.unfit += u64::from(is_unfit);
            match (is_unfit, state) {
                (true, State::Ejected | State::Ready) => self.go(token, State::Probation, now),
                (true, State::LastResort) => self.go(token, State::Leaving, now),
                (false, State::Probation) if !unsure => self.go(token, State::Ready, now),
                _ => {}
            }
        }
    }

    fn pass(&mut self, now: Instant) {
        let due = self
            .seats
            .iter()
            .filter(|(_, seat)| seat.due.is_some_and(|due| due <= now));
        let due: Vec<Token> = due.map(|(token, _)| *token).collect();
        for token in due {
            let seat = self.seat(token);
            seat.due = None;
            let is_of_use = !seat.unsure && !seat.is_there_but_unfit();
            match seat.state {
                State::Ejected => self.go(token, State::Ready, now),
                State::LastResort => self.go(token, State::Leaving, now),
                State::Probation if is_of_use => {
                    seat.asked = true;
                    self.asked.probed.push(token);
                }
                State::Leaving | State::Probation | State::Ready => {}
            }
        }
    }

    fn doubt(&mut self, token: Token, now: Instant) {
        let Some(seat) = self.seats.get_mut(&token) else { return };
        let is_patient = seat
            .doubted
            .is_none_or(|asked| now.since(asked) >= Duration::from_secs(1));
        if seat.vanished {
            self.asked.abandoned.push(token);
        } else if seat.state != State::Probation && is_patient {
            seat.doubted = Some(now);
            self.asked.probed.push(token);
        }
    }

    fn learn(&mut self, token: Token, outcome: Outcome, now: Instant) {
        let doubt = self.policy.doubt;
        let seat = self.seat(token);
        let state = seat.state;
        match outcome {
            Outcome::Connected => {
                seat.hear(now);
                seat.asked = false;
                if state == State::Probation && !seat.unsure && !seat.unfit {
                    self.go(token, State::Ready, now);
                }
            }
            Outcome::Responded(status) => {
                seat.hear(now);
                let seat = self.seats[&token].clone();
                match self
                    .service(&seat)
                    .is_some_and(|service| service.fail_on.contains(status))
                {
                    true => self.answer_badly(token, now),
                    false => self.answer(token, false, now),
                }
            }
            Outcome::Failed => self.answer_badly(token, now),
            Outcome::ConnectFailed => self.refuse(token, now),
            Outcome::ConnectTimedOut => {
                if now.since(seat.heard) >= doubt {
                    seat.vanished = true;
                    self.asked.abandoned.push(token);
                }
                self.refuse(token, now);
            }
            Outcome::NoWay => {
                let via: Option<NetworkId> = seat.key.2.clone();
                if state == State::Probation {
                    self.refuse(token, now);
                }
                let is_there_too = |(other, seat): &(&Token, &Seat)| {
                    seat.state == State::Ready && (**other == token || (via.is_some() && seat.key.2 == via))
                };
                let there: Vec<Token> = self
                    .seats
                    .iter()
                    .filter(is_there_too)
                    .map(|(other, _)| *other)
                    .collect();
                there
                    .into_iter()
                    .for_each(|other| self.go(other, State::Probation, now));
            }
            Outcome::Untried => {
                let seat = self.seat(token);
                if seat.state == State::Probation && seat.asked {
                    seat.probes += 1;
                    (seat.asked, seat.due) = (false, Some(now + seat.pause()));
                }
            }
            Outcome::Stale => {}
        }
    }

    fn refuse(&mut self, token: Token, now: Instant) {
        let others = self.others_ready(token);
        let (max_fails, window) = self.checks(token);
        let seat = self.seat(token);
        let was_used = seat.is_there_but_unfit();
        seat.absent = true;
        match seat.state {
            State::Probation if was_used || seat.asked => {
                seat.probes = if was_used { 0 } else { seat.probes + 1 };
                (seat.asked, seat.due) = (false, Some(now + seat.pause()));
            }
            State::Probation | State::Leaving => {}
            State::Ready => {
                let fails = seat.fail(window, now);
                if !seat.proven || !others || (max_fails > 0 && fails >= max_fails) {
                    self.go(token, State::Probation, now);
                }
            }
            State::Ejected => self.go(token, State::Probation, now),
            State::LastResort => self.go(token, State::Leaving, now),
        }
    }

    fn answer_badly(&mut self, token: Token, now: Instant) {
        let (max_fails, window) = self.checks(token);
        let fails = self.seat(token).fail(window, now);
        if max_fails == 0 || fails < max_fails || !self.may_rest(token) {
            self.answer(token, true, now);
        } else if self.seats[&token].state == State::Ready {
            self.move_to(token, State::Ejected, window, now);
        }
    }

    fn answer(&mut self, token: Token, is_failure: bool, now: Instant) {
        let seat = self.seat(token);
        if seat.state != State::Ready {
            return;
        }
        if !is_failure && seat.rests > 0 && now.since(seat.rests_since) >= Duration::from_secs(10) {
            (seat.rests, seat.rests_since) = (seat.rests - 1, now);
        }
        self.answers.retain(|(at, _, _)| at + 10 > second(now));
        self.answers.push((second(now), token, is_failure));
        let percent = self.service(&self.seats[&token]);
        let percent = percent.map_or(self.policy.fail_rate_percent, |service| service.fail_rate_percent);
        let share = |mine: bool| {
            let all: Vec<bool> = (self.answers.iter())
                .filter(|(_, of, _)| (*of == token) == mine)
                .map(|(_, _, failed)| *failed)
                .collect();
            let failed = all.iter().filter(|failed| **failed).count();
            (all.len(), (failed * 10_000 / all.len().max(1)) as u32)
        };
        let ((answers, mine), (_, others)) = (share(true), share(false));
        let is_outlier = percent > 0 && answers >= 10 && mine >= others + percent * 100;
        if is_failure && is_outlier && self.may_rest(token) {
            let seat = self.seat(token);
            let rest = (0..seat.rests).fold(Duration::from_secs(1), |rest, _| (rest * 2).min(LONGEST_REST));
            seat.rests = (seat.rests + 1).min(6);
            self.counters.outliers += 1;
            self.move_to(token, State::Ejected, rest, now);
        }
    }
}

impl Seat {
    fn hear(&mut self, now: Instant) {
        let was_absent = std::mem::replace(&mut self.absent, false);
        (self.heard, self.vanished, self.proven) = (now, false, true);
        if was_absent && self.is_there_but_unfit() {
            (self.asked, self.due) = (false, None);
        }
    }
}
