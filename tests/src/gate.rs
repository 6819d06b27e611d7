//! Whether a test that needs more than cargo can run here. What cannot run is said aloud, and is a failure where
//! `TIDEGATE_E2E=require` is set, as CI does: a test that is skipped silently proves nothing.

use crate::report::say;

/// Goes on if `obstacle` is none. Otherwise prints what was skipped and why, and the test has to return.
///
/// # Panics
/// If there is an obstacle and `TIDEGATE_E2E=require`.
#[must_use]
pub fn may_run(test: &str, obstacle: Option<String>) -> bool {
    let required = std::env::var("TIDEGATE_E2E").is_ok_and(|value| value == "require");
    decide(test, obstacle, required)
}

fn decide(test: &str, obstacle: Option<String>, required: bool) -> bool {
    let Some(obstacle) = obstacle else { return true };
    assert!(!required, "TIDEGATE_E2E=require, but {test} cannot run: {obstacle}");
    say(format_args!("\n*** SKIPPED {test}: {obstacle} ***\n"));
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_run_runs_and_what_cannot_is_skipped() {
        assert!(decide("x", None, true));
        assert!(!decide("x", Some("no root".into()), false));
    }

    #[test]
    #[should_panic(expected = "x cannot run: no root")]
    fn a_skip_is_a_failure_where_everything_is_required() {
        decide("x", Some("no root".into()), true);
    }
}
