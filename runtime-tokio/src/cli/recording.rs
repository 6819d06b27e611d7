//! Options of the flight recorder.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tidegate_core::labels::time_ms;
use tidegate_core::recording::{RecorderSettings, When};

/// Megabytes that a recording may take where nothing else is said.
const RECORD_MB: u32 = (RecorderSettings::BYTES_MAX >> 20) as u32;

/// What is kept for `tidegate replay`.
#[derive(Args, Clone, Copy, Debug)]
pub struct RecordArgs {
    /// Keep what the controller is told and decides for this long, e.g. `10m`, for `tidegate recording`; 0 = not at all. Contents
    /// of secrets never get into it.
    #[arg(long, env = "TIDEGATE_RECORD", default_value = "0", value_name = "TIME", value_parser = span)]
    pub record: Duration,
    /// Megabytes of memory that a recording may take; what is older goes first.
    #[arg(long, env = "TIDEGATE_RECORD_MB", default_value_t = RECORD_MB, value_name = "MB", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub record_mb: u32,
}

/// `90s`, `10m` or `2h`; `0` and nothing at all mean none.
fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "write a time from 10s to 24h, as 90s, 10m or 2h; 0 = record nothing".to_owned();
    if matches!(text.trim(), "" | "0") {
        return Ok(Duration::ZERO);
    }
    // As in labels, but for a bare number: that might be meant as minutes.
    let ms = time_ms(text).filter(|_| !text.ends_with(|last: char| last.is_ascii_digit()));
    let ms = ms.filter(|ms| (10_000..=86_400_000).contains(ms));
    ms.map(Duration::from_millis).ok_or_else(wrong)
}

/// Options of `replay`.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// The recording.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print from here on: seconds since the controller started as `754.2s`, or UTC as `2026-11-25T12:03:20Z`.
    #[arg(long, value_name = "TIME")]
    pub since: Option<When>,
    /// Stop here.
    #[arg(long, value_name = "TIME")]
    pub until: Option<When>,
    /// Print also the steps in which nothing is decided but to ask Docker again.
    #[arg(long)]
    pub all: bool,
    /// Print one JSON object for each step.
    #[arg(long)]
    pub json: bool,
    /// Write PATH.jsonl and PATH.expected: a regression test, see docs/flight-recorder.md.
    #[arg(long, value_name = "PATH")]
    pub save_test: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_record_has_a_unit_and_an_end() {
        assert_eq!(span("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(span("10m"), Ok(Duration::from_secs(600)));
        assert_eq!((span("0"), span("")), (Ok(Duration::ZERO), Ok(Duration::ZERO)));
        for wrong in ["10", "m", "1d", "5s", "25h", "-1m", "1µ", "99999999999999999999h"] {
            assert!(span(wrong).unwrap_err().contains("10m"), "{wrong}");
        }
    }
}
