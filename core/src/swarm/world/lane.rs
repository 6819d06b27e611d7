//! One kind of question to Docker: when it is asked next. At most one is in flight; failures back off; what is asked
//! for during a flight is asked again after it, because the answer may be older than the reason.

use serde::{Deserialize, Serialize};

use super::{Fetch, FetchId};
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
}

/// Schedule of one lane.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Schedule {
    pub(super) flight: Option<Flight>,
    /// When a whole list is wanted; none before the first reason.
    pub(super) wanted: Option<Instant>,
    /// No question before this: pause after an answer, back-off after an error.
    pub(super) not_before: Instant,
    /// Failures in a row.
    pub(super) failures: u32,
    /// When the question was sent that was answered last: facts are at least this new.
    pub(super) fresh_at: Option<Instant>,
}

impl Schedule {
    /// Wants the list at `at` or earlier.
    pub(super) fn want(&mut self, at: Instant) {
        self.wanted = Some(self.wanted.map_or(at, |wanted| wanted.min(at)));
    }

    /// When the list is asked next, unless one is in flight.
    pub(super) fn starts(&self) -> Option<Instant> {
        if self.flight.is_some() {
            return None;
        }
        self.wanted.map(|wanted| wanted.max(self.not_before))
    }

    /// When a flight counts as lost.
    pub(super) fn lost(&self, limit: Duration) -> Option<Deadline> {
        self.flight.as_ref().map(|flight| Deadline {
            at: flight.sent + limit,
            why: "a call to Docker counts as lost",
        })
    }

    /// A good answer: the next one comes after `every`, or earlier if something asked meanwhile, but after `pause`.
    pub(super) fn succeed(&mut self, sent: Instant, every: Duration, pause: Duration, now: Instant) {
        self.failures = 0;
        self.not_before = now + pause;
        self.fresh_at = Some(sent);
        self.want(now + every);
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
