//! Many seeds of many scenarios on all processors. It stops at the first failure.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::marks::Reached;
use crate::scenario::Scenario;
use crate::seed::{self, Failure};

/// What a sweep saw.
#[derive(Debug, Default)]
pub struct Tally {
    /// Runs that held.
    pub runs: u64,
    /// Rare paths.
    pub reached: Reached,
    /// The first failure, and of what.
    pub failed: Option<(Scenario, Failure)>,
}

/// Runs seeds `from` and up, `seeds` of them, of each scenario. `goes_on` is told the number of runs so far after each, and
/// decides whether another one begins.
pub fn sweep(scenarios: &[Scenario], from: u64, seeds: u64, goes_on: impl Fn(u64) -> bool + Sync) -> Tally {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    // Counting goes on a little beyond.
    let all = seeds.saturating_mul(scenarios.len() as u64).min(u64::MAX / 2);
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let tally = Mutex::new(Tally::default());
    thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= all {
                        return;
                    }
                    // Every scenario of a seed before the next seed.
                    let scenario = scenarios[usize::try_from(number).unwrap_or_default() % scenarios.len()];
                    let seed = from + number / scenarios.len() as u64;
                    let ended = seed::run(seed, scenario.run);
                    let mut reached = Reached::default();
                    match &ended {
                        Ok(report) => reached.look(&report.lines),
                        Err(failure) => reached.look(&failure.lines),
                    }
                    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                    tally.reached.merge(reached);
                    match ended {
                        Ok(_) => tally.runs += 1,
                        Err(failure) => {
                            tally.failed.get_or_insert((scenario, failure));
                            next.store(all, Ordering::Relaxed);
                        }
                    }
                    drop(tally);
                    if !goes_on(done.fetch_add(1, Ordering::Relaxed) + 1) {
                        next.store(all, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    tally.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;
    use std::time::Duration;

    use super::*;

    /// Open once the failure of seed 7 is known.
    static KNOWN: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_sweep_stops_at_the_first_seed_that_fails() {
        let scenario = |run| Scenario {
            name: "s",
            about: "",
            run,
        };
        let holds = sweep(&[scenario(|_| {})], 1, 40, |_| true);
        assert_eq!((holds.runs, holds.failed.is_none()), (40, true));
        let processors = thread::available_parallelism().map_or(1, usize::from) as u64;
        let enough = sweep(&[scenario(|_| {})], 1, u64::MAX, |runs| runs < 10);
        assert!((10..10 + processors).contains(&enough.runs), "{}", enough.runs);

        // Seeds after the seventh wait for its failure: how long a panic takes to be told decides nothing here.
        let breaks = sweep(
            &[scenario(|seed| {
                assert_ne!(seed.value(), 7, "seven");
                if seed.value() > 7 {
                    let known = KNOWN.0.lock().unwrap();
                    let (known, _) = KNOWN.1.wait_timeout_while(known, LONG, |known| !*known).unwrap();
                    assert!(*known, "seed 7 fails within a minute");
                }
            })],
            1,
            1000,
            |runs| {
                if runs == 7 {
                    *KNOWN.0.lock().unwrap() = true;
                    KNOWN.1.notify_all();
                }
                true
            },
        );
        let (_, failure) = breaks.failed.expect("seed 7 fails");
        assert_eq!(failure.seed, 7);
        // Those that had begun beside it, one on each other processor, were the last.
        assert!(
            breaks.runs < 6 + processors,
            "{} runs on {processors} processors",
            breaks.runs
        );
    }
}
