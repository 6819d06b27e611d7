//! Outliers: an endpoint whose answers fail far more often than those of the rest of its pool.
//!
//! Consecutive failures ([`PoolPolicy::max_fails`](super::PoolPolicy::max_fails)) catch an endpoint that is broken; this
//! catches one that fails every second request and answers the others. It is compared with the rest of the pool, so that
//! a fault which all of them share, such as a lost database, takes nobody out. Answers are counted in ten buckets of a
//! second each, for the endpoint and for the pool, so that a request costs two additions and no memory.
//!
//! An outlier rests for 1 s, and for twice as long each time that it is one again, up to a minute. Each ten seconds of
//! good answers take one doubling back.

use super::pool::Pool;
use super::state::{Event, State};
use super::window::{SECONDS, Window};
use crate::time::{Duration, Instant};

/// Answers within the window without which nothing is said about an endpoint.
pub const ANSWERS_MIN: u32 = 10;
/// The first rest; doubles with each in a row.
const REST: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(60);
/// Doublings that are remembered: the first that reaches [`REST_MAX`].
const DOUBLINGS_MAX: u32 = 6;

/// Answers, and how many of them were failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    answers: u32,
    failures: u32,
}

impl Counts {
    fn count(&mut self, is_failure: bool) {
        self.answers = self.answers.saturating_add(1);
        self.failures = self.failures.saturating_add(u32::from(is_failure));
    }

    fn of(window: &mut Window<Counts>, now: Instant) -> Counts {
        let sum = |sum: Counts, second: &Counts| Counts {
            answers: sum.answers.saturating_add(second.answers),
            failures: sum.failures.saturating_add(second.failures),
        };
        window.all(now).iter().fold(Counts::default(), sum)
    }

    /// Takes from `whole` what `part` counted, which was counted there too.
    pub(super) fn take_away(whole: &mut Window<Counts>, part: &Window<Counts>) {
        whole.merge(part, |whole, part| *whole = whole.without(part));
    }

    fn without(self, part: Counts) -> Counts {
        Counts {
            answers: self.answers.saturating_sub(part.answers),
            failures: self.failures.saturating_sub(part.failures),
        }
    }

    /// Failures in 10,000 answers; 0 where there were none.
    fn share(self) -> u32 {
        let share = u64::from(self.failures) * 10_000 / u64::from(self.answers.max(1));
        u32::try_from(share.min(10_000)).unwrap_or(10_000)
    }
}

/// Whether the share of failures is `percent` points above that of the others.
fn is_outlier(counts: Counts, others: Counts, percent: u32) -> bool {
    percent > 0
        && counts.answers >= ANSWERS_MIN
        && counts.share() >= others.share().saturating_add(percent.saturating_mul(100))
}

/// What an endpoint's rests grow by.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Streak {
    doublings: u32,
    /// When it last came back, or a doubling was taken back.
    eased: Instant,
}

impl Streak {
    /// The rest of an endpoint that is an outlier, once more.
    fn grow(&mut self) -> Duration {
        let rest = REST.saturating_mul(1 << self.doublings).min(REST_MAX);
        self.doublings = (self.doublings + 1).min(DOUBLINGS_MAX);
        rest
    }

    /// Each [`SECONDS`] without an ejection take one doubling back.
    fn handle_good_answer(&mut self, now: Instant) {
        if self.doublings > 0 && now.since(self.eased) >= Duration::from_secs(SECONDS) {
            self.doublings -= 1;
            self.eased = now;
        }
    }

    /// The rest is over.
    pub(super) fn handle_return(&mut self, now: Instant) {
        self.eased = now;
    }
}

impl Pool {
    /// Counts an answer of an endpoint; a failure that makes it an outlier lets it rest.
    ///
    /// Answers of endpoints that are not ready say nothing new: they are of requests that were under way, or of a pool
    /// in panic.
    pub(super) fn count_answer(&mut self, at: usize, is_failure: bool, now: Instant) {
        let percent = self.fail_rate(at);
        let endpoint = &mut self.endpoints[at];
        if endpoint.state != State::Ready {
            return;
        }
        endpoint.answers.present(now).count(is_failure);
        self.answers.present(now).count(is_failure);
        if !is_failure {
            endpoint.streak.handle_good_answer(now);
            return;
        }
        let counts = Counts::of(&mut endpoint.answers, now);
        let others = Counts::of(&mut self.answers, now).without(counts);
        if is_outlier(counts, others, percent) && self.may_eject(at) {
            self.counters.outliers += 1;
            self.endpoints[at].rest = self.endpoints[at].streak.grow();
            self.transition(at, Event::Eject, now);
        }
    }

    /// What an endpoint answered before it was out says nothing about it when it is back, nor about the others.
    pub(super) fn forget_answers(&mut self, at: usize) {
        let answers = core::mem::take(&mut self.endpoints[at].answers);
        Counts::take_away(&mut self.answers, &answers);
    }

    /// Whether one more endpoint may rest: another one is ready, and those that rest are not too many of the pool. One may
    /// always, however small the pool is, unless the share is 0.
    pub(super) fn may_eject(&self, at: usize) -> bool {
        if self.policy.eject_max_percent == 0 || !self.others_ready(at) {
            return false;
        }
        let resting = self.count_states(|state| state == State::Ejected);
        let allowed = u64::from(self.staying()) * u64::from(self.policy.eject_max_percent) / 100;
        u64::from(resting) < allowed.max(1)
    }

    /// Whether fewer endpoints are ready than the pool can do without, so that those that rest are better than none.
    pub(super) fn is_in_panic(&self) -> bool {
        let ready = self.count_states(|state| state == State::Ready);
        u64::from(ready) * 100 < u64::from(self.staying()) * u64::from(self.policy.panic_threshold_percent)
    }

    /// Endpoints that are not told to stop.
    fn staying(&self) -> u32 {
        self.count_states(|state| !matches!(state, State::LastResort | State::Leaving))
    }

    fn count_states(&self, is_one: impl Fn(State) -> bool) -> u32 {
        let counted = self
            .endpoints
            .iter()
            .filter(|one| is_one(one.state) && self.has_share(one));
        u32::try_from(counted.count()).unwrap_or(u32::MAX)
    }

    fn fail_rate(&self, at: usize) -> u32 {
        let service = self.policy.services.get(self.endpoints[at].service);
        service.map_or(self.policy.fail_rate_percent, |service| service.fail_rate_percent)
    }
}
