//! A pool takes the place of one whose set of services changed.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Pool;
use crate::pool::endpoint::{Endpoint, EndpointKey, Token};
use crate::pool::state::State;
use crate::pool::window::Window;
use crate::time::Instant;

impl Pool {
    /// Takes over what `old` knows about endpoints that both have: which are out, until when, and whether they ever worked.
    /// For a pool that takes the place of one whose set of services changed. Returns the tokens of each such endpoint, the
    /// old one first; what is under way stays with `old`.
    pub fn adopt(&mut self, old: &Pool, now: Instant) -> Vec<(Token, Token)> {
        let known: BTreeMap<EndpointKey, &Endpoint> = old
            .endpoints
            .iter()
            .map(|endpoint| (endpoint.key(), endpoint))
            .collect();
        let is_told = |state| matches!(state, State::LastResort | State::Leaving);
        let mut adopted = Vec::new();
        for endpoint in &mut self.endpoints {
            let Some(before) = known.get(&endpoint.key()) else {
                continue;
            };
            adopted.push((before.token, endpoint.token));
            endpoint.proven |= before.proven;
            // Where the table says something new about its leaving, the table knows better.
            if is_told(endpoint.state) == is_told(before.state) {
                let (token, in_flight, service) = (endpoint.token, endpoint.in_flight, endpoint.service);
                let unsure = endpoint.unsure;
                *endpoint = (*before).clone();
                (endpoint.token, endpoint.in_flight, endpoint.service) = (token, in_flight, service);
                endpoint.unsure = unsure;
                endpoint.gone = false;
                endpoint.probe_running = false;
                endpoint.answers = Window::default();
                self.timers.clear(&token);
                match endpoint.state {
                    State::Ejected | State::LastResort | State::Probation => {
                        self.timers.set(token, old.timers.get(&before.token).unwrap_or(now));
                    }
                    State::Leaving | State::Ready => {}
                }
            }
        }
        self.index();
        self.growing_until = self.growing_until.max(old.growing_until);
        let is_new = |endpoint: &Endpoint| adopted.iter().all(|(_, known)| *known != endpoint.token);
        self.start_slowly(is_new, now);
        adopted
    }
}
