//! The `tidegate` binary: flags in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use tidegate::cli::Cli;

fn main() -> ExitCode {
    tidegate::roles::run(Cli::parse())
}
