//! Machines on their own, without sockets or a runtime: random facts for thousands of steps per seed, invariants after each
//! step, against models that are too simple to be wrong.
//!
//! `SIM_SEED=0x2a` runs one seed, `SIM_SEEDS=5000` as many of each test. A failure prints the last steps before it and the
//! command that repeats it.

mod pool;
mod prober;
mod reconcile;
mod snapshot;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tidegate_core::rng::Rng;

/// Steps that a failure shows.
const SHOWN: usize = 40;

/// The last steps of one seed.
#[derive(Default)]
struct Story(RefCell<VecDeque<String>>);

impl Story {
    fn tell(&self, what: impl Display) {
        let mut lines = self.0.borrow_mut();
        if lines.len() == SHOWN {
            lines.pop_front();
        }
        lines.push_back(what.to_string());
    }
}

/// Runs a simulation for each seed that is asked for.
fn seeds(test: &str, usually: u64, simulate: impl Fn(Rng, &Story)) {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        let parsed = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        Some(parsed.unwrap_or_else(|_| panic!("{name}={text}: write a number, or 0x and digits")))
    };
    let seeds = match (number("SIM_SEED"), number("SIM_SEEDS")) {
        (Some(seed), _) => seed..=seed,
        (None, count) => 1..=count.unwrap_or(usually),
    };
    for seed in seeds {
        let story = Story::default();
        let run = AssertUnwindSafe(|| simulate(Rng::new(seed), &story));
        if let Err(panic) = catch_unwind(run) {
            story.0.borrow().iter().for_each(|line| eprintln!("  {line}"));
            eprintln!(
                "seed {seed:#x} fails; again: SIM_SEED={seed:#x} cargo test -p tidegate-core --test machines {test}"
            );
            resume_unwind(panic);
        }
    }
}
