//! How a controller keeps up with Docker: its calls by kind and result, and how long changes took to each proxy.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_core::snapshot::Served;
use tidegate_core::swarm::model::ApiError;

/// Upper bounds of these histograms, in milliseconds.
pub(super) const BOUNDS_MS: [u64; 13] = [2, 5, 10, 20, 50, 100, 200, 400, 800, 1600, 5000, 15_000, 60_000];

/// A histogram of durations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Not cumulated; the last bucket is beyond all bounds.
    pub(super) buckets: [u64; BOUNDS_MS.len() + 1],
    pub(super) micros: u64,
}

impl Latencies {
    fn observe(&mut self, took: Duration) {
        let at = BOUNDS_MS.iter().position(|bound| took <= Duration::from_millis(*bound));
        self.buckets[at.unwrap_or(BOUNDS_MS.len())] += 1;
        self.micros = self.micros.saturating_add(u64::try_from(took.as_micros()).unwrap_or(0));
    }
}

/// Ways of a change to the proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// From the publication of a revision to each proxy's acknowledgement.
    pub(super) acks: Latencies,
    /// From Docker's decision to the same. Two clocks: where they disagree, so does this.
    pub(super) decided: Latencies,
}

impl Freshness {
    /// A proxy serves these since `wall`, a time since 1970.
    pub(crate) fn served(&mut self, served: &[Served], wall: Duration) {
        for served in served {
            self.acks.observe(served.took);
            for at in served.decided.iter() {
                self.decided.observe(wall.saturating_sub(*at));
            }
        }
    }
}

/// Calls to Docker that ended, by kind and result. Bounded by both.
#[derive(Debug, Default)]
pub(crate) struct Calls(RefCell<CallCounts>);

/// How often each kind of call had each result.
pub type CallCounts = BTreeMap<(&'static str, &'static str), u64>;

impl Calls {
    pub(crate) fn count<T>(&self, call: &'static str, result: &Result<T, ApiError>) {
        let result = match result {
            Ok(_) => "ok",
            Err(error) => kind(error),
        };
        *self.0.borrow_mut().entry((call, result)).or_default() += 1;
    }

    pub(crate) fn counts(&self) -> CallCounts {
        self.0.borrow().clone()
    }
}

fn kind(error: &ApiError) -> &'static str {
    match error {
        ApiError::Conflict(_) => "conflict",
        ApiError::Exists(_) => "exists",
        ApiError::Garbled(_) => "garbled",
        ApiError::NotFound(_) => "not_found",
        ApiError::NotManager(_) => "not_manager",
        ApiError::Refused(_) => "refused",
        ApiError::Server(_) => "server",
        ApiError::Unreachable(_) => "unreachable",
    }
}
