//! The program as a person at a shell has it, for tests from outside.

use std::process::{Command, Output, Stdio};

/// Its command, without settings of this environment.
pub(crate) fn tidegate(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDEGATE_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Exit code, standard output and standard error.
pub(crate) fn output(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = tidegate(args).output().unwrap();
    (
        status.code().unwrap_or(-1),
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}
