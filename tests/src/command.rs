//! Runs other programs and says clearly what went wrong with them.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// A command that sees no Docker setting of the machine, and finds what lies in the `sbin` folders.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));
    for variable in [
        "DOCKER_HOST",
        "DOCKER_CONTEXT",
        "DOCKER_TLS_VERIFY",
        "DOCKER_CERT_PATH",
        "DOCKER_API_VERSION",
    ] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs it to its end and gives what it printed, without the last line's end.
///
/// # Errors
/// If it cannot be started or fails; the message has its line and everything that it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", line(command)))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} ({}): {}{}",
            line(command),
            output.status,
            complaint.trim(),
            printed.trim()
        );
    }
    Ok(printed.trim_end().to_string())
}

/// Runs a script of `sh`; its arguments are `$1`, `$2` and so on.
pub fn shell(script: &str, arguments: &[&str]) -> Result<String> {
    run(command("sh").args(["-e", "-c", script, "sh"]).args(arguments))
}

/// Whether the program is in the path.
pub fn is_installed(program: &str) -> bool {
    shell("command -v \"$1\"", &[program]).is_ok()
}

/// The command as one would type it, cut off where a script in it gets long.
pub fn line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        let short: String = argument.chars().take(200).collect();
        let quote = if short.contains([' ', '\n']) || short.is_empty() {
            "'"
        } else {
            ""
        };
        write!(line, " {quote}{short}{quote}").expect("a String takes any text");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_what_it_printed() {
        let error = shell("echo out; echo why >&2; exit 3", &[]).unwrap_err().to_string();
        assert!(
            error.contains("exit status: 3") && error.contains("why") && error.contains("out"),
            "{error}"
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = run(&mut command("no-such-program-here")).unwrap_err().to_string();
        assert!(error.contains("no-such-program-here"), "{error}");
        assert!(!is_installed("no-such-program-here"));
    }
}
