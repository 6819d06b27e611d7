//! `tidegate table`: the table that files would give, printed, compared or written.

use std::path::Path;
use std::process::ExitCode;

use super::Failure;
use crate::cli::{EXIT_FINDING, TableArgs};
use crate::table::compile;

pub(super) fn run(args: &TableArgs) -> Result<ExitCode, Failure> {
    let mut files = Vec::new();
    for path in &args.files {
        files.push((path.display().to_string(), content(path)?));
    }
    let tables = compile(&files, &args.stack, &|name| std::env::var(name).ok())
        .map_err(|error| Failure::usage(format!("error: {error}")))?;
    let mut text = tables.to_text();
    for url in &args.explain {
        text.push_str(&tables.explain(url));
    }
    tables.notes.iter().for_each(|note| eprintln!("{note}"));
    let mut differs = false;
    match (&args.check, &args.write) {
        (Some(path), _) => {
            let before = if path.exists() { content(path)? } else { String::new() };
            differs = before != text || !path.exists();
            if differs {
                let place = path.display().to_string();
                let diff = similar::TextDiff::from_lines(&before, &text);
                print!("{}", diff.unified_diff().header(&place, "these files"));
                eprintln!(
                    "error: the table differs from {place}; if that is meant, run again with --write {place} in place of --check"
                );
            }
        }
        (None, Some(path)) => std::fs::write(path, &text)
            .map_err(|error| Failure::usage(format!("error: --write {}: {error}", path.display())))?,
        (None, None) => print!("{text}"),
    }
    if tables.refuses() && (args.write.is_some() || args.check.is_some()) {
        tables.diagnostics.iter().for_each(|finding| eprintln!("{finding}"));
    }
    Ok(if tables.refuses() || differs {
        ExitCode::from(EXIT_FINDING)
    } else {
        ExitCode::SUCCESS
    })
}

fn content(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("error: {}: cannot be read: {error}", path.display())))
}
