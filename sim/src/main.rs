//! `cargo sim`: replays one seed of a scenario, or looks for one that fails.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sim::scenario::{ALL, Scenario};
use sim::seed;

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
    /// Runs one seed of a scenario; with SIM_TRACE=1 every line of its trace is shown.
    Run {
        /// A name of `cargo sim list`.
        #[arg(long)]
        scenario: String,
        /// The seed, as 42 or 0x2a.
        #[arg(long, value_parser = number)]
        seed: u64,
    },
    /// Runs seeds one after another and stops at the first that fails.
    Sweep {
        /// How many seeds of each scenario.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
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
    match Options::parse().command.unwrap_or(Command::List) {
        Command::List => {
            println!("cargo sim run --scenario NAME --seed N, cargo sim sweep --seeds N; scenarios:\n");
            for Scenario { name, about, .. } in ALL {
                println!("{name:<28} {about}");
            }
            ExitCode::SUCCESS
        }
        Command::Run { scenario, seed } => match named(&scenario) {
            Ok(scenario) => run(&scenario, seed),
            Err(code) => code,
        },
        Command::Sweep { seeds, from, scenario } => {
            let chosen = match scenario.as_deref().map(named).transpose() {
                Ok(Some(one)) => vec![one],
                Ok(None) => ALL.to_vec(),
                Err(code) => return code,
            };
            for seed in from..from.saturating_add(seeds) {
                for scenario in &chosen {
                    if run(scenario, seed) != ExitCode::SUCCESS {
                        return ExitCode::FAILURE;
                    }
                }
            }
            ExitCode::SUCCESS
        }
    }
}

fn named(name: &str) -> Result<Scenario, ExitCode> {
    ALL.into_iter().find(|scenario| scenario.name == name).ok_or_else(|| {
        let names = ALL.map(|scenario| scenario.name).join(", ");
        eprintln!("there is no scenario {name:?}; there are {names}");
        ExitCode::from(2)
    })
}

fn run(scenario: &Scenario, seed: u64) -> ExitCode {
    let name = scenario.name;
    match seed::run(seed, scenario.run) {
        Ok(report) => {
            println!(
                "{name} {seed:#x}: holds, digest {:016x}, {}",
                report.digest, report.drawn
            );
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{name}: {}", seed::describe(&failure));
            eprintln!("  replay: cargo sim run --scenario {name} --seed {seed:#x}");
            ExitCode::FAILURE
        }
    }
}
