//! What a reader of a test's log has to see even if the test passes. The test runner hides what `println!` prints in
//! tests that pass, so this writes past it.

use std::io::Write as _;

/// Writes a line to standard error.
pub fn say(line: impl std::fmt::Display) {
    // Nobody listens: nothing to be done about it.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
