//! Removes every trace of a Swarm, whatever becomes of the test: end, panic, Ctrl-C, SIGKILL.
//!
//! A second process (`e2e guard`) holds the reading end of a pipe whose other end the test holds. When the test is gone,
//! in whichever way, the pipe ends, and the guard cleans up. It is in a process group of its own, so Ctrl-C passes it
//! by, and it holds the slot's lock, so nobody takes the slot before it is clean.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::cgroup;
use super::slot::Slot;
use crate::clock::{Look, wait_for};
use crate::command::{command, run, shell};

/// The guard of one Swarm.
#[derive(Debug)]
pub(super) struct Guard {
    process: Child,
}

impl Guard {
    /// Starts it. From here on the Swarm is removed even if this process is killed.
    pub(super) fn start(slot: &Slot) -> Result<Guard> {
        let lock = slot.lock.try_clone().context("cannot share the slot's lock")?;
        let program = own_program()?;
        let process = Command::new(&program)
            .args(["guard", &slot.name])
            .arg(&slot.dir)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(lock) // nothing is printed there: it only has to be open
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Guard { process })
    }

    /// Has it clean up, and waits until that is done.
    pub(super) fn finish(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// The main function of `e2e guard`: waits for the end of standard input, then removes the Swarm.
///
/// # Errors
/// If something of it is left.
pub fn guard(name: &str, dir: &Path) -> Result<()> {
    // Errors of reading are an end as well.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    remove(name, dir)
}

/// Removes a Swarm of which nothing may be known but its name and folder. Does nothing where there is none.
pub(super) fn remove(name: &str, dir: &Path) -> Result<()> {
    for file in pid_files(dir) {
        if let Some(pid) = living(&file) {
            let node = file.file_stem().unwrap_or_default().to_string_lossy();
            let _ = cgroup::freeze(name, &node, false);
            let _ = run(command("kill").args(["-KILL", &pid]));
        }
    }
    for file in pid_files(dir) {
        wait_for("the end of a node", Duration::from_secs(20), || match living(&file) {
            None => Look::Holds(()),
            Some(pid) => Look::NotYet(format!("process {pid} of {} lives", file.display())),
        })?;
    }
    let _ = shell(
        "! ip link show \"$1\" >/dev/null 2>&1 || ip link del \"$1\"",
        &[&uplink(name)],
    );
    wait_for("the end of the cgroups", Duration::from_secs(20), || {
        if cgroup::remove(name) {
            Look::Holds(())
        } else {
            Look::NotYet("some are in use".into())
        }
    })?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => bail!("cannot remove {}: {error}", dir.display()),
        _ => Ok(()),
    }
}

/// Name of the link that joins the Swarm's switch to the machine.
pub(super) fn uplink(name: &str) -> String {
    format!("{name}-up")
}

fn pid_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    entries
        .filter(|path| path.extension().is_some_and(|end| end == "pid"))
        .collect()
}

/// The process recorded in the file, if that very one runs. What has to end with the Swarm writes its number and the
/// moment of its start there before it does anything else; numbers come again.
pub(super) fn living(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let (pid, started) = text.trim_end().split_once(' ')?;
    (start_time(pid)? == started).then(|| pid.to_string())
}

/// Field 22 of `/proc/PID/stat`, in clock ticks since boot; none for the dead. The name (field 2) may hold anything, so
/// counting begins behind its bracket.
fn start_time(pid: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (*fields.first()? != "Z").then(|| fields.get(19).map(|field| field.to_string()))?
}

/// The `e2e` program that belongs to this build: this one, or the one beside the folder of test programs.
pub(crate) fn own_program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("a running program has a path")?;
    if own.file_name().is_some_and(|name| name == "e2e") {
        return Ok(own);
    }
    let beside = own.parent().and_then(Path::parent).map(|folder| folder.join("e2e"));
    match beside {
        Some(path) if path.is_file() => Ok(path),
        _ => bail!("the program e2e is not built: run `cargo test -p e2e`, or `cargo build -p e2e` first"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_process_is_known_by_its_number_and_its_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("n1.pid");
        let own = std::process::id().to_string();
        fs::write(&file, format!("{own} {}\n", start_time(&own).unwrap())).unwrap();
        assert_eq!(living(&file), Some(own.clone()));
        fs::write(&file, format!("{own} 1")).unwrap();
        assert_eq!(
            living(&file),
            None,
            "the same number with another start is another process"
        );
    }

    #[test]
    fn removing_what_is_not_there_does_nothing() {
        let folder = tempfile::tempdir().unwrap();
        remove("tgnone", &folder.path().join("none")).unwrap();
    }
}
