//! Connections that were not made, and answers that were none.

use super::{Pool, is_too_many};
use crate::pool::state::{Event, State};
use crate::time::Instant;

impl Pool {
    pub(super) fn handle_bad_answer(&mut self, at: usize, now: Instant) {
        let (max_fails, fail_timeout) = self.checks(at);
        let fails = self.endpoints[at].count_failure(fail_timeout, now);
        if is_too_many(fails, max_fails) && self.may_eject(at) {
            self.endpoints[at].rest = fail_timeout;
            self.transition(at, Event::Eject, now);
        } else {
            self.count_answer(at, true, now);
        }
    }

    pub(super) fn handle_connect_failure(&mut self, at: usize, now: Instant) {
        let others = self.others_ready(at);
        let (max_fails, fail_timeout) = self.checks(at);
        let endpoint = &mut self.endpoints[at];
        let was_offered = endpoint.is_there_but_unfit();
        endpoint.absent = true;
        match endpoint.state {
            State::Probation if was_offered => {
                // It was used in panic, and is not there: seen to like any other that is not.
                endpoint.probe_running = false;
                endpoint.probes = 0;
                let pause = endpoint.probe_pause();
                self.timers.set(endpoint.token, now + pause);
                self.index();
                self.wake(now); // who waits for it may go elsewhere
            }
            State::Probation => self.probe_again(at, now),
            State::Ready => {
                let fails = endpoint.count_failure(fail_timeout, now);
                let proven = endpoint.proven;
                if !proven || !others || is_too_many(fails, max_fails) {
                    self.transition(at, Event::Distrust, now);
                }
            }
            State::Ejected | State::LastResort => self.transition(at, Event::Distrust, now),
            State::Leaving => {}
        }
    }

    /// A probe came to nothing. Only its own answer asks for the next: late refusals of requests change nothing, and what this
    /// proxy had no means to try says nothing about the endpoint.
    pub(super) fn probe_again(&mut self, at: usize, now: Instant) {
        let endpoint = &mut self.endpoints[at];
        if endpoint.state == State::Probation && core::mem::take(&mut endpoint.probe_running) {
            endpoint.probes = endpoint.probes.saturating_add(1);
            let pause = endpoint.probe_pause();
            self.timers.set(endpoint.token, now + pause);
        }
    }

    /// All endpoints on that network go on probation at once, so that requests wait rather than try one after the other.
    pub(super) fn handle_no_way(&mut self, at: usize, now: Instant) {
        if self.endpoints[at].state == State::Probation {
            self.handle_connect_failure(at, now); // the answer to a probe
        }
        let via = self.endpoints[at].via.clone();
        for other in 0..self.endpoints.len() {
            let endpoint = &self.endpoints[other];
            if endpoint.state == State::Ready && (other == at || (via.is_some() && endpoint.via == via)) {
                self.transition(other, Event::Distrust, now);
            }
        }
    }
}
