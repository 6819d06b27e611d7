//! The contract of every state machine here, in one place.
//!
//! One mutation, drain the actions to `None`, arm the timer again, only then the next mutation: [`step`] does it, so
//! no shell has to remember it.

use crate::time::{Deadline, Instant};

/// A state machine without IO. Late or stale facts are normal input, never errors.
pub trait Machine {
    /// Something that happened outside.
    type Fact;
    /// Something for the shell to do. It starts the work and never waits for it; the answer comes back as a fact.
    type Action;

    /// Takes one fact.
    fn handle(&mut self, fact: Self::Fact, now: Instant);

    /// Does what is due at `now`. Early or repeated calls do nothing; afterwards the next deadline is later than `now`.
    fn handle_timeout(&mut self, now: Instant);

    /// The next effect, first in first out.
    fn poll_action(&mut self) -> Option<Self::Action>;

    /// The earliest deadline; stable until the next mutation.
    fn poll_timeout(&self) -> Option<Deadline>;

    /// Panics in debug builds if an invariant is broken.
    fn check_invariants(&self) {}
}

/// What wakes a machine.
#[derive(Debug)]
pub enum Input<F> {
    /// A fact arrived.
    Fact(F),
    /// The armed deadline passed.
    Timeout,
}

/// Runs one mutation and everything that belongs to it; returns the deadline to arm.
pub fn step<M: Machine>(
    machine: &mut M,
    input: Input<M::Fact>,
    now: Instant,
    mut perform: impl FnMut(M::Action),
) -> Option<Deadline> {
    let fired = matches!(input, Input::Timeout);
    match input {
        Input::Fact(fact) => machine.handle(fact, now),
        Input::Timeout => machine.handle_timeout(now),
    }
    while let Some(action) = machine.poll_action() {
        perform(action);
    }
    if cfg!(debug_assertions) {
        machine.check_invariants();
    }
    let next = machine.poll_timeout();
    debug_assert!(
        !fired || next.is_none_or(|deadline| deadline.at > now),
        "would spin: {next:?}"
    );
    next
}
