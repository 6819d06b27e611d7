//! The courier's side: which controllers it is connected to. Every controller is to have everything that it holds, so it
//! keeps a connection to each address that their name stands for, and looks again and again for new ones.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::machine::Machine;
use crate::swarm::world::backoff;
use crate::time::{Deadline, Duration, Instant, Timers};

/// Between two looks for controllers.
pub const RESOLVE_EVERY: Duration = Duration::from_millis(500);
/// First and longest pause before one of them is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// What happens to a courier.
#[derive(Debug)]
pub enum Fact {
    /// A controller has everything.
    Delivered(SocketAddr),
    /// A connection could not be made, or has ended.
    Ended(SocketAddr, String),
    /// The answer to [`Action::Resolve`]; none where the name is unknown.
    Resolved(Vec<SocketAddr>),
}

/// What it wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect there and hand over everything.
    Connect(SocketAddr),
    /// Tell the operator.
    Notice(String),
    /// Ask for the addresses of all controllers.
    Resolve,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Connect(SocketAddr),
    Resolve,
}

#[derive(Clone, Debug, Default)]
struct Controller {
    /// Whether a connection is open or being made.
    is_tried: bool,
    is_delivered: bool,
    failures: u32,
    /// Whether the name stands for it now.
    is_named: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Courier {
    controllers: BTreeMap<SocketAddr, Controller>,
    timers: Timers<Timer>,
    actions: VecDeque<Action>,
    said_alone: bool,
}

impl Courier {
    /// Knows nobody; looks at the first timeout.
    pub fn new(now: Instant) -> Self {
        let mut timers = Timers::new();
        timers.set(Timer::Resolve, now);
        Courier {
            controllers: BTreeMap::new(),
            timers,
            actions: VecDeque::new(),
            said_alone: false,
        }
    }

    /// The controllers that have everything.
    pub fn delivered(&self) -> impl Iterator<Item = SocketAddr> {
        let delivered = self.controllers.iter().filter(|(_, known)| known.is_delivered);
        delivered.map(|(address, _)| *address)
    }

    fn resolved(&mut self, addresses: Vec<SocketAddr>, now: Instant) {
        for known in self.controllers.values_mut() {
            known.is_named = false;
        }
        for address in &addresses {
            let known = self.controllers.entry(*address).or_default();
            known.is_named = true;
            if !known.is_tried && self.timers.get(&Timer::Connect(*address)).is_none() {
                self.timers.set(Timer::Connect(*address), now);
            }
        }
        // A connection ends by itself; the name alone is no proof that its controller is gone.
        let gone: Vec<SocketAddr> = self
            .controllers
            .iter()
            .filter(|(_, known)| !known.is_named && !known.is_tried)
            .map(|(address, _)| *address)
            .collect();
        for address in gone {
            self.controllers.remove(&address);
            self.timers.clear(&Timer::Connect(address));
        }
        if self.controllers.is_empty() && !self.said_alone {
            self.said_alone = true;
            let text = String::from("no controller is found; looked for again and again");
            self.actions.push_back(Action::Notice(text));
        }
        self.said_alone &= self.controllers.is_empty();
    }
}

impl Machine for Courier {
    type Fact = Fact;
    type Action = Action;

    fn handle(&mut self, fact: Fact, now: Instant) {
        match fact {
            Fact::Delivered(address) => {
                if let Some(known) = self.controllers.get_mut(&address) {
                    known.is_delivered = true;
                    known.failures = 0;
                }
            }
            Fact::Ended(address, reason) => {
                let Some(known) = self.controllers.get_mut(&address) else {
                    return;
                };
                let pause = backoff(known.failures, RETRY.0, RETRY.1);
                // Said once per trouble, not once per try.
                if known.failures == 0 {
                    let text = alloc::format!("controller {address}: {reason}; tried again");
                    self.actions.push_back(Action::Notice(text));
                }
                known.is_tried = false;
                known.is_delivered = false;
                known.failures = known.failures.saturating_add(1);
                self.timers.set(Timer::Connect(address), now + pause);
            }
            Fact::Resolved(addresses) => self.resolved(addresses, now),
        }
        self.handle_timeout(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Resolve => {
                    self.timers.set(Timer::Resolve, now + RESOLVE_EVERY);
                    self.actions.push_back(Action::Resolve);
                }
                Timer::Connect(address) => {
                    if let Some(known) = self.controllers.get_mut(&address).filter(|known| known.is_named) {
                        known.is_tried = true;
                        self.actions.push_back(Action::Connect(address));
                    }
                }
            }
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.timers.next().map(|(timer, at)| Deadline {
            at,
            why: match timer {
                Timer::Connect(_) => "a controller is tried again",
                Timer::Resolve => "a look for controllers",
            },
        })
    }

    fn check_invariants(&self) {
        for (address, known) in &self.controllers {
            assert!(
                known.is_tried || !known.is_delivered,
                "{address} has everything over no connection"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Input, step};

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 7171))
    }

    fn at(ms: u64) -> Instant {
        Instant::START + Duration::from_millis(ms)
    }

    struct Scene {
        courier: Courier,
    }

    impl Scene {
        fn new() -> Scene {
            Scene {
                courier: Courier::new(at(0)),
            }
        }

        fn turn(&mut self, input: Input<Fact>, ms: u64) -> Vec<Action> {
            let mut actions = Vec::new();
            step(&mut self.courier, input, at(ms), |action| actions.push(action));
            actions
        }

        fn fact(&mut self, fact: Fact, ms: u64) -> Vec<Action> {
            self.turn(Input::Fact(fact), ms)
        }
    }

    #[test]
    fn every_controller_is_connected_to_once() {
        let mut scene = Scene::new();
        assert_eq!(scene.turn(Input::Timeout, 0), [Action::Resolve]);
        let both = Vec::from([address(1), address(2)]);
        let connects = [Action::Connect(address(1)), Action::Connect(address(2))];
        assert_eq!(scene.fact(Fact::Resolved(both.clone()), 5), connects);
        scene.fact(Fact::Delivered(address(1)), 6);
        assert_eq!(scene.courier.delivered().collect::<Vec<_>>(), [address(1)]);
        assert_eq!(scene.turn(Input::Timeout, 600), [Action::Resolve]);
        assert_eq!(scene.fact(Fact::Resolved(both), 605), []);
    }

    #[test]
    fn a_connection_that_ends_is_made_anew_with_growing_pauses_and_one_word() {
        let mut scene = Scene::new();
        scene.turn(Input::Timeout, 0);
        scene.fact(Fact::Resolved(Vec::from([address(1)])), 0);
        scene.fact(Fact::Delivered(address(1)), 1);
        let said = scene.fact(Fact::Ended(address(1), "gone".into()), 10);
        assert!(
            matches!(&said[..], [Action::Notice(text)] if text.contains("gone")),
            "{said:?}"
        );
        assert_eq!(scene.courier.delivered().count(), 0);
        assert_eq!(scene.turn(Input::Timeout, 110), [Action::Connect(address(1))]);
        assert_eq!(scene.fact(Fact::Ended(address(1), "gone".into()), 120), []);
        assert_eq!(scene.turn(Input::Timeout, 220), []);
        assert_eq!(scene.turn(Input::Timeout, 320), [Action::Connect(address(1))]);
    }

    #[test]
    fn a_controller_that_the_name_no_longer_stands_for_is_not_tried_again() {
        let mut scene = Scene::new();
        scene.turn(Input::Timeout, 0);
        scene.fact(Fact::Resolved(Vec::from([address(1)])), 0);
        scene.fact(Fact::Delivered(address(1)), 1);
        // Still connected, whatever the name says.
        scene.fact(Fact::Resolved(Vec::from([address(2)])), 10);
        assert_eq!(scene.courier.delivered().collect::<Vec<_>>(), [address(1)]);
        scene.fact(Fact::Ended(address(1), "gone".into()), 20);
        assert_eq!(scene.turn(Input::Timeout, 400), []);
        scene.fact(Fact::Resolved(Vec::new()), 500);
        assert_eq!(scene.fact(Fact::Delivered(address(1)), 510), []);
        assert_eq!(scene.courier.delivered().count(), 0);
    }

    #[test]
    fn being_alone_is_said_once() {
        let mut scene = Scene::new();
        scene.turn(Input::Timeout, 0);
        assert_eq!(scene.fact(Fact::Resolved(Vec::new()), 0).len(), 1);
        assert_eq!(scene.fact(Fact::Resolved(Vec::new()), 1).len(), 0);
    }
}
