//! One kind of question to Docker: when it is asked next. At most one whole list and one look at some objects of it are
//! in flight; failures back off; what is asked for during a flight is asked again after it, because the answer may be
//! older than the reason.
//!
//! A look does not wait for the list: that of all tasks takes a quarter of a second where there are thousands. So answers
//! may come in another order than their questions went, and the older one then says nothing of what the newer one told.

use alloc::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Fetch, FetchId};
use crate::id::ServiceId;
use crate::time::{Deadline, Duration, Instant};

/// What is asked for, one lane each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// `/services` with the label of managed ones, whole shapes.
    Managed,
    /// `/networks`
    Networks,
    /// `/nodes`
    Nodes,
    /// `/secrets`
    Secrets,
    /// `/services`
    Services,
    /// `/tasks`, of some services or of all.
    Tasks,
}

impl Lane {
    /// Every lane, in the order in which they are asked.
    pub const ALL: [Lane; 6] = [
        Lane::Services,
        Lane::Tasks,
        Lane::Networks,
        Lane::Nodes,
        Lane::Managed,
        Lane::Secrets,
    ];

    /// The lane's name, for metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Lane::Managed => "managed",
            Lane::Networks => "networks",
            Lane::Nodes => "nodes",
            Lane::Secrets => "secrets",
            Lane::Services => "services",
            Lane::Tasks => "tasks",
        }
    }
}

/// A question that is under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Flight {
    pub(super) id: FetchId,
    pub(super) fetch: Fetch,
    pub(super) sent: Instant,
    /// Services of which a question that was sent later, or at the same moment, was answered first.
    #[serde(default)]
    pub(super) overtaken: BTreeSet<ServiceId>,
}

impl Flight {
    pub(super) fn new(id: FetchId, fetch: Fetch, sent: Instant) -> Flight {
        Flight {
            id,
            fetch,
            sent,
            overtaken: BTreeSet::new(),
        }
    }

    fn lost_at(&self, limit: Duration) -> Instant {
        self.sent + limit
    }

    /// `answered` has its answer before this one.
    fn yield_to(&mut self, answered: &Flight) {
        if answered.sent < self.sent {
            return;
        }
        let whole = !answered.fetch.is_partial();
        let of = if whole { &self.fetch } else { &answered.fetch }.of();
        self.overtaken.extend(of.iter().cloned());
    }
}

/// Schedule of one lane.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Schedule {
    /// The whole list that is under way.
    pub(super) flight: Option<Flight>,
    /// The look at some objects that is under way.
    pub(super) look: Option<Flight>,
    /// When a whole list is wanted; none before the first reason.
    pub(super) wanted: Option<Instant>,
    /// No whole list before this: pause after an answer, back-off after an error.
    pub(super) not_before: Instant,
    /// The same for looks.
    pub(super) look_not_before: Instant,
    /// Failures in a row: of lists, and a look that failed since the last list counts once.
    pub(super) failures: u32,
    /// The same of looks alone.
    pub(super) look_failures: u32,
    /// When the question was sent that was answered last: facts are at least this new.
    pub(super) fresh_at: Option<Instant>,
}

impl Schedule {
    /// Wants the list at `at` or earlier.
    pub(super) fn want(&mut self, at: Instant) {
        self.wanted = Some(self.wanted.map_or(at, |wanted| wanted.min(at)));
    }

    /// When the whole list is asked for, if something wants it at `at`; none while one is in flight.
    pub(super) fn list_starts(&self, at: Instant) -> Option<Instant> {
        self.flight.is_none().then(|| at.max(self.not_before))
    }

    /// The same for a look.
    pub(super) fn look_starts(&self, at: Instant) -> Option<Instant> {
        self.look.is_none().then(|| at.max(self.look_not_before))
    }

    /// The questions that are under way.
    pub(super) fn flights(&self) -> impl Iterator<Item = &Flight> {
        self.flight.iter().chain(&self.look)
    }

    /// The question `id`, which is answered or failed.
    pub(super) fn land(&mut self, id: FetchId) -> Option<Flight> {
        let is_it = |flight: &mut Flight| flight.id == id;
        self.flight.take_if(is_it).or_else(|| self.look.take_if(is_it))
    }

    /// `answered` has its answer before the other question of its lane.
    pub(super) fn overtake(&mut self, answered: &Flight) {
        for flight in self.flight.iter_mut().chain(&mut self.look) {
            flight.yield_to(answered);
        }
    }

    /// When a flight counts as lost.
    pub(super) fn lost(&self, limit: Duration) -> Option<Deadline> {
        let at = self.flights().map(|flight| flight.lost_at(limit)).min()?;
        Some(Deadline {
            at,
            why: "a call to Docker counts as lost",
        })
    }

    /// Gives up the questions that have waited for `limit`.
    pub(super) fn give_up(&mut self, limit: Duration, now: Instant) -> [Option<Flight>; 2] {
        let is_lost = |flight: &mut Flight| flight.lost_at(limit) <= now;
        [&mut self.flight, &mut self.look].map(|flight| flight.take_if(is_lost))
    }

    /// A good answer: the next one comes after `every`, or earlier if something asked meanwhile, but after `pause`.
    pub(super) fn succeed(&mut self, sent: Instant, every: Duration, pause: Duration, now: Instant) {
        self.failures = 0;
        self.not_before = now + pause;
        self.fresh_at = Some(sent);
        self.want(now + every);
    }

    /// A good answer to a look: no other one for `pause`. Of the list, if that fails, it says nothing.
    pub(super) fn succeed_look(&mut self, pause: Duration, now: Instant) {
        self.look_failures = 0;
        self.look_not_before = now + pause;
    }

    /// No good answer to a look: a whole list, and no look before a pause that doubles up to `max`.
    pub(super) fn fail_look(&mut self, min: Duration, max: Duration, now: Instant) {
        self.failures = self.failures.max(1);
        self.refuse_look(min, max, now);
    }

    /// The same where it is what was asked that is to blame, and not Docker.
    pub(super) fn refuse_look(&mut self, min: Duration, max: Duration, now: Instant) {
        self.look_not_before = now + backoff(self.look_failures, min, max);
        self.look_failures = self.look_failures.saturating_add(1);
        self.want(now);
    }

    /// No good answer: again after a pause that doubles up to `max`.
    pub(super) fn fail(&mut self, min: Duration, max: Duration, now: Instant) {
        self.not_before = now + backoff(self.failures, min, max);
        self.failures = self.failures.saturating_add(1);
        self.want(now);
    }
}

/// `min` doubled `failures` times, at most `max`.
pub(crate) fn backoff(failures: u32, min: Duration, max: Duration) -> Duration {
    min.saturating_mul(1_u32.checked_shl(failures.min(20)).unwrap_or(u32::MAX))
        .min(max)
}
