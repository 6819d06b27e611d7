//! What active checks say of endpoints, see [`prober`](crate::pool::prober).

use alloc::sync::Arc;

use super::{Action, Pool};
use crate::pool::pick::Picked;
use crate::pool::prober::Unfit;
use crate::pool::state::{Event, State};
use crate::time::Instant;

impl Pool {
    /// Takes out those that fail their probes, and brings back those that do no more.
    ///
    /// It is on probation like one that refuses connections, with one difference: connections say nothing about it.
    pub(super) fn handle_unfit(&mut self, unfit: Arc<Unfit>, now: Instant) {
        self.unfit = unfit;
        let concerns_us = !self.unfit.is_empty() || self.endpoints.iter().any(|endpoint| endpoint.unfit);
        for at in (0..self.endpoints.len()).filter(|_| concerns_us) {
            let is_unfit = self.unfit.contains(&self.endpoints[at].key());
            if core::mem::replace(&mut self.endpoints[at].unfit, is_unfit) == is_unfit {
                continue;
            }
            let endpoint = &self.endpoints[at];
            if is_unfit {
                self.counters.unfit += 1;
                self.transition(at, Event::Distrust, now);
            } else if endpoint.state == State::Probation && !endpoint.unsure {
                self.transition(at, Event::Admit, now);
            }
        }
        self.index();
        self.wake(now);
    }

    /// An endpoint answered something.
    pub(super) fn hear(&mut self, at: usize, now: Instant) {
        let was_absent = self.endpoints[at].absent;
        self.endpoints[at].hear(now);
        self.endpoints[at].proven = true;
        // One that fails its active checks stays out, and is better than none from now on.
        if was_absent && self.endpoints[at].is_there_but_unfit() {
            self.endpoints[at].probe_running = false;
            self.timers.clear(&self.endpoints[at].token);
            self.index();
            self.wake(now);
        }
    }

    /// It is time to see whether an endpoint on probation takes connections.
    pub(super) fn probe_if_useful(&mut self, at: usize) {
        let endpoint = &mut self.endpoints[at];
        // Who answers there may be somebody else by now; and one that takes connections and fails its probes is known to be there.
        if endpoint.unsure || (endpoint.unfit && !endpoint.absent) {
            return;
        }
        endpoint.probe_running = true;
        let (token, addr) = (endpoint.token, endpoint.addr);
        self.actions.push_back(Action::Probe(Picked { token, addr }));
    }
}
