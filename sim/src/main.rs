//! `cargo sim`: replays one seed of a scenario, looks for one that fails, makes it smaller, and plants faults to see
//! whether anybody would notice.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use sim::mutants;
use sim::scenario::{ALL, Scenario};
use sim::seed::{self, Failure};
use sim::shrink::{list, shrink};
use sim::sweep::sweep;

/// A sweep of as many runs that never takes some rare path fails.
const MARKS_FROM_RUNS: u64 = 500;

/// Simulations of Tidegate: the real controller and proxies beside a simulated Swarm, drawn from one seed.
#[derive(Debug, Parser)]
#[command(name = "cargo sim")]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says which scenarios there are.
    List,
    /// Plants one fault after another and says who notices.
    Mutants(mutants::Options),
    /// Runs one seed of a scenario; with SIM_TRACE=1 every line of its trace is shown.
    #[command(alias = "replay")]
    Run {
        /// A name of `cargo sim list`.
        #[arg(long)]
        scenario: String,
        /// The seed, as 42 or 0x2a.
        #[arg(long, value_parser = number)]
        seed: u64,
        /// Acts to leave out, as `shrink` prints them.
        #[arg(long, value_delimiter = ',')]
        without: Vec<u32>,
        /// Prints the story: what was done to the world and what the product said to it, without the traffic.
        #[arg(long)]
        story: bool,
    },
    /// Leaves out of a failing story what need not be.
    Shrink {
        /// A name of `cargo sim list`.
        #[arg(long)]
        scenario: String,
        /// The seed that fails.
        #[arg(long, value_parser = number)]
        seed: u64,
    },
    /// Runs seeds on all processors and stops at the first that fails.
    Sweep {
        /// How many seeds of each scenario: 100, or with `--minutes` as many as there is time for.
        #[arg(long)]
        seeds: Option<u64>,
        /// Begins no run after so many minutes.
        #[arg(long)]
        minutes: Option<u64>,
        /// The first seed.
        #[arg(long, default_value = "1", value_parser = number)]
        from: u64,
        /// Only this scenario.
        #[arg(long)]
        scenario: Option<String>,
    },
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is no seed; write a number such as 42 or 0x2a"))
}

fn main() -> ExitCode {
    let done = match Options::parse().command.unwrap_or(Command::List) {
        Command::List => {
            println!(
                "cargo sim run --scenario NAME --seed N, cargo sim sweep --seeds N, cargo sim shrink, cargo sim mutants;"
            );
            println!("scenarios:\n");
            for Scenario { name, about, .. } in ALL {
                println!("{name:<28} {about}");
            }
            Ok(true)
        }
        Command::Mutants(options) => mutants::run(&options),
        Command::Run {
            scenario,
            seed,
            without,
            story,
        } => named(&scenario).map(|scenario| run(scenario, seed, &without.into_iter().collect(), story)),
        Command::Shrink { scenario, seed } => named(&scenario).map(|scenario| smaller(scenario, seed)),
        Command::Sweep {
            seeds,
            minutes,
            from,
            scenario,
        } => match scenario.as_deref().map(named).transpose() {
            Ok(one) => Ok(many(&one.map_or(ALL.to_vec(), |one| vec![one]), from, seeds, minutes)),
            Err(error) => Err(error),
        },
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn named(name: &str) -> Result<Scenario, String> {
    ALL.iter()
        .find(|scenario| scenario.name == name)
        .copied()
        .ok_or_else(|| {
            let names = ALL.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
            format!("there is no scenario {name:?}; there are {names}")
        })
}

fn run(scenario: Scenario, seed: u64, without: &BTreeSet<u32>, story: bool) -> bool {
    let name = scenario.name;
    match seed::run_without(seed, without, scenario.run) {
        Ok(report) => {
            if story {
                tell(&report.lines);
            }
            let (digest, drawn) = (report.digest, report.drawn);
            println!("{name} {seed:#x}: holds, digest {digest:016x}, {drawn}");
            true
        }
        Err(failure) => {
            if story {
                tell(&failure.lines);
            }
            explain(name, &failure, without);
            false
        }
    }
}

fn explain(name: &str, failure: &Failure, without: &BTreeSet<u32>) {
    let seed = failure.seed;
    eprintln!("{name}: {}", seed::describe(failure));
    let without = match without.is_empty() {
        true => String::new(),
        false => format!(" --without {}", list(without)),
    };
    eprintln!("  replay: cargo sim run --scenario {name} --seed {seed:#x}{without}");
    if without.is_empty() && !failure.acts.is_empty() {
        eprintln!("  fewer acts: cargo sim shrink --scenario {name} --seed {seed:#x}");
    }
}

/// The lines that a person wants first: no traffic, no looks at Docker.
fn tell(lines: &[String]) {
    let traffic = |line: &&String| {
        let noise = ["answers ", "GET /", ": GET ", ": POST ", "events: "];
        !noise.iter().any(|noise| line.contains(noise))
    };
    for line in lines.iter().filter(traffic) {
        println!("{line}");
    }
}

fn smaller(scenario: Scenario, seed: u64) -> bool {
    let name = scenario.name;
    let Some(shrunk) = shrink(seed, scenario.run, |what| eprintln!("  {what}")) else {
        println!("{name} {seed:#x} holds: there is nothing to shrink");
        return true;
    };
    println!("after {} runs, what is left of the story:", shrunk.runs);
    for act in &shrunk.failure.acts {
        let number = act.split(' ').next().and_then(|number| number.parse().ok());
        if number.is_none_or(|number| !shrunk.left_out.contains(&number)) {
            println!("  act {act}");
        }
    }
    explain(name, &shrunk.failure, &shrunk.left_out);
    false
}

#[expect(clippy::disallowed_methods, reason = "a person waits for this sweep")]
fn many(scenarios: &[Scenario], from: u64, seeds: Option<u64>, minutes: Option<u64>) -> bool {
    let begin = std::time::Instant::now();
    let limit = minutes.map(|minutes| Duration::from_secs(minutes.saturating_mul(60)));
    let seeds = seeds.unwrap_or(if limit.is_some() { u64::MAX } else { 100 });
    let all = seeds.saturating_mul(scenarios.len() as u64);
    let step = (all / 50).clamp(1, 200);
    let tally = sweep(scenarios, from, seeds, |done| {
        if done % step == 0 || done == all {
            let took = begin.elapsed().as_secs();
            match limit {
                Some(limit) => eprintln!("{done} runs, {took} of {} s", limit.as_secs()),
                None => eprintln!("{done} of {all} runs, {took} s"),
            }
        }
        limit.is_none_or(|limit| begin.elapsed() < limit)
    });
    let took = begin.elapsed().as_secs_f64();
    let each = took / (tally.runs.max(1) as f64);
    if let Some((scenario, failure)) = &tally.failed {
        explain(scenario.name, failure, &BTreeSet::new());
        return false;
    }
    for (mark, runs) in tally.reached.counts() {
        println!("{runs:>8} runs: {mark}");
    }
    println!("{} runs hold, {took:.0} s, {each:.2} s each", tally.runs);
    let missed = tally.reached.missed();
    if tally.runs >= MARKS_FROM_RUNS && scenarios.len() == ALL.len() && !missed.is_empty() {
        eprintln!("never reached: {}", missed.join("; "));
        return false;
    }
    true
}
