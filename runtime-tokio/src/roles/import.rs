//! `tidegate import`: files of others to ours.

use std::process::ExitCode;

use tidegate_core::interlock::{Verdict, import};

use super::Failure;
use crate::cli::{EXIT_FINDING, ImportArgs, ImportSource, InterlockArgs, ReportFormat};

pub(super) fn run(args: ImportArgs) -> Result<ExitCode, Failure> {
    let ImportSource::Interlock(args) = args.source;
    interlock(&args)
}

/// Exit code 1 where something is lost.
fn interlock(args: &InterlockArgs) -> Result<ExitCode, Failure> {
    let place = args.file.display();
    let text = std::fs::read_to_string(&args.file)
        .map_err(|error| Failure::usage(format!("error: {place}: cannot be read: {error}")))?;
    let imported = import(&text).map_err(|error| Failure::usage(format!("error: {place}: {error}")))?;
    match args.report {
        ReportFormat::Json => {
            let json = serde_json::to_string_pretty(&imported.report);
            eprintln!("{}", json.map_err(|error| Failure::usage(error.to_string()))?);
        }
        ReportFormat::Text => {
            for line in &imported.report {
                eprintln!("{place}:{line}");
            }
            let count = |verdict: Verdict| imported.report.iter().filter(|line| line.verdict == verdict).count();
            eprintln!(
                "{} kept, {} changed, {} not needed, {} lost",
                count(Verdict::Kept),
                count(Verdict::Changed),
                count(Verdict::Needless),
                count(Verdict::Lost)
            );
        }
    }
    match &args.output {
        None => print!("{}", imported.settings),
        Some(path) => std::fs::write(path, &imported.settings)
            .map_err(|error| Failure::usage(format!("error: --output {}: {error}", path.display())))?,
    }
    Ok(match imported.loses() {
        true => ExitCode::from(EXIT_FINDING),
        false => ExitCode::SUCCESS,
    })
}
