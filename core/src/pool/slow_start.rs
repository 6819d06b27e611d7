//! Slow start: an endpoint that comes in gets few requests at first, so that caches fill and pools of connections grow
//! before it bears a full share.
//!
//! Its share counts like a weight that grows in a straight line with time, from a tenth on. Among others alone: where all
//! endpoints are new, or the others are gone, there is nobody to take what a newcomer is spared.

use alloc::vec::Vec;

use super::endpoint::Endpoint;
use super::pool::Pool;
use super::state::State;
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// The share to begin with is one in so many.
const FLOOR: u64 = 10;

impl Pool {
    /// Those of the ready endpoints that are new grow from now on, if they have others beside them.
    pub(super) fn start_slowly(&mut self, is_new: impl Fn(&Endpoint) -> bool, now: Instant) {
        let is_settled = |endpoint: &Endpoint| endpoint.state == State::Ready && !is_new(endpoint);
        if !(self.endpoints.iter()).any(|endpoint| is_settled(endpoint) && self.has_share(endpoint)) {
            return;
        }
        for at in self.ready.iter().copied() {
            let slow_start = self.slow_start(&self.endpoints[at]);
            let endpoint = &mut self.endpoints[at];
            if !slow_start.is_zero() && is_new(endpoint) {
                endpoint.growing_since = Some(now);
                self.growing_until = self.growing_until.max(now + slow_start);
            }
        }
    }

    /// What is left of `offered` where some are passed over this time because they still grow; `None`: all of it.
    ///
    /// Those that grow are last in it, so that others do not lose their turn where one is passed over.
    pub(super) fn thin_out(&self, offered: &[usize], rng: &mut Rng, now: Instant) -> Option<Vec<usize>> {
        if now >= self.growing_until {
            return None;
        }
        let is_growing = |at: &usize| self.growth(&self.endpoints[*at], now).is_some();
        let (growing, mut left): (Vec<usize>, Vec<usize>) = offered.iter().partition(|at| is_growing(at));
        // Who has no share takes nothing off a newcomer.
        if !left.iter().any(|at| self.has_share(&self.endpoints[*at])) {
            return None;
        }
        left.extend(growing.into_iter().filter(|at| {
            let growth = self.growth(&self.endpoints[*at], now);
            growth.is_none_or(|(part, whole)| rng.chance(part, whole))
        }));
        Some(left)
    }

    /// The part that an endpoint has of its full share; `None`: all of it.
    fn growth(&self, endpoint: &Endpoint, now: Instant) -> Option<(u64, u64)> {
        let age = millis(now.since(endpoint.growing_since?));
        let whole = millis(self.slow_start(endpoint));
        (age < whole).then(|| (age.max(whole / FLOOR).max(1), whole))
    }

    fn slow_start(&self, endpoint: &Endpoint) -> Duration {
        let service = self.policy.services.get(endpoint.service);
        service.map_or(Duration::ZERO, |service| service.slow_start)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
