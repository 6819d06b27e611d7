//! Many seeds, each on a fresh thread: a second simulation on one thread differs once anything keeps state there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Lines of the trace that a failure shows.
const TAIL_LINES: usize = 40;

/// One seed, and where its simulation leaves its last words.
#[derive(Clone, Debug)]
pub struct Seed {
    value: u64,
    left_out: Arc<BTreeSet<u32>>,
    report: Arc<Mutex<Report>>,
}

/// What is known of a simulation when it ends or fails.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What the seed drew, as one line.
    pub drawn: String,
    /// What may be left out of the story, by number, and what it is.
    pub acts: Vec<String>,
    /// The trace so far.
    pub lines: Vec<String>,
    /// Digest over all of it.
    pub digest: u64,
}

impl Seed {
    /// A seed with an empty report.
    pub fn new(value: u64) -> Self {
        Seed::without(value, BTreeSet::new())
    }

    /// A seed whose story leaves out these acts.
    pub fn without(value: u64, acts: BTreeSet<u32>) -> Self {
        Seed {
            value,
            left_out: Arc::new(acts),
            report: Arc::default(),
        }
    }

    /// Whether the story leaves out an act.
    pub fn leaves_out(&self, act: u32) -> bool {
        self.left_out.contains(&act)
    }

    /// The number.
    pub fn value(&self) -> u64 {
        self.value
    }

    /// The report so far.
    pub fn report(&self) -> Report {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the report.
    pub fn note(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A seed that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The first broken expectation.
    pub what: String,
    /// What the seed drew.
    pub drawn: String,
    /// What may be left out of its story.
    pub acts: Vec<String>,
    /// Its whole trace.
    pub lines: Vec<String>,
}

/// Runs `simulation` with one seed on a thread of its own.
///
/// # Errors
/// If it panics: with what it said.
pub fn run<F>(seed: u64, simulation: F) -> Result<Report, Failure>
where
    F: FnOnce(&Seed) + Send + 'static,
{
    run_without(seed, &BTreeSet::new(), simulation)
}

/// The same without some acts of the story.
///
/// # Errors
/// If it panics: with what it said.
pub fn run_without<F>(seed: u64, acts: &BTreeSet<u32>, simulation: F) -> Result<Report, Failure>
where
    F: FnOnce(&Seed) + Send + 'static,
{
    let given = Seed::without(seed, acts.clone());
    let theirs = given.clone();
    let thread = std::thread::Builder::new()
        .name(format!("seed {seed:#x}"))
        .stack_size(16 << 20)
        .spawn(move || simulation(&theirs))
        .expect("the system has room for one more thread");
    let ended = thread.join();
    let report = given.report();
    match ended {
        Ok(()) => Ok(report),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(Failure {
                seed,
                what: text.unwrap_or_else(|| "it panicked without a word".to_owned()),
                drawn: report.drawn,
                acts: report.acts,
                lines: report.lines,
            })
        }
    }
}

/// Runs `simulation` for `seeds` seeds, or for the one in `SIM_SEED`, or for as many as `SIM_SEEDS` says.
///
/// # Panics
/// At the first seed that fails, with the last lines of its trace and the command that replays it.
pub fn sweep<F>(seeds: u64, simulation: F)
where
    F: Fn(&Seed) + Clone + Send + 'static,
{
    let chosen: Vec<u64> = match variable("SIM_SEED") {
        Some(one) => vec![one],
        None => (1..=variable("SIM_SEEDS").unwrap_or(seeds)).collect(),
    };
    for seed in chosen {
        let simulation = simulation.clone();
        if let Err(failure) = run(seed, move |seed| simulation(seed)) {
            panic!("{}\n  replay: {}\n", describe(&failure), replay_command(&here(), seed));
        }
    }
}

/// A failure in words, without the command.
pub fn describe(failure: &Failure) -> String {
    let from = failure.lines.len().saturating_sub(TAIL_LINES);
    let tail = failure.lines[from..].join("\n  ");
    format!(
        "seed {:#x} failed\n  drawn: {}\n  trace, last lines:\n  {tail}\n  broken: {}",
        failure.seed, failure.drawn, failure.what
    )
}

/// The test that runs on this thread: its binary and its path.
fn here() -> (String, String) {
    let file = std::env::current_exe().ok();
    let stem = file
        .as_deref()
        .and_then(|file| file.file_stem())
        .and_then(|stem| stem.to_str());
    let stem = stem.unwrap_or("unknown");
    // Cargo adds a hash: `routing-0123456789abcdef`.
    let binary = stem.rsplit_once('-').map_or(stem, |(name, _)| name);
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    (binary.to_owned(), test)
}

fn replay_command((binary, test): &(String, String), seed: u64) -> String {
    let target = match binary.as_str() {
        "sim" => "--lib".to_owned(),
        binary => format!("--test {binary}"),
    };
    format!("SIM_SEED={seed:#x} cargo test -p sim {target} {test} -- --exact --nocapture")
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    Some(number.unwrap_or_else(|_| panic!("{name} is {text:?}; write a number such as 42 or 0x2a")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_seed_names_itself_its_last_words_and_its_replay() {
        let failure = run(42, |seed| {
            seed.note(|report| report.lines.push("1.000s something odd".to_owned()));
            panic!("a request was lost");
        })
        .expect_err("it panics");
        let text = describe(&failure);
        assert!(text.contains("seed 0x2a") && text.contains("something odd") && text.contains("a request was lost"));
        assert_eq!(
            replay_command(&("routing".to_owned(), "hosts_are_followed".to_owned()), 42),
            "SIM_SEED=0x2a cargo test -p sim --test routing hosts_are_followed -- --exact --nocapture"
        );
    }

    #[test]
    fn a_test_knows_its_own_name() {
        let (binary, test) = here();
        assert_eq!(binary, "sim");
        // With one test thread, tests run on the main one.
        assert!(
            test == "seed::tests::a_test_knows_its_own_name" || test == "main",
            "{test}"
        );
    }

    #[test]
    fn a_seed_that_holds_gives_its_report() {
        let report = run(7, |seed| seed.note(|report| report.digest = seed.value())).expect("it holds");
        assert_eq!(report.digest, 7);
    }
}
