//! Clients and servers that others wrote in Python, from their registry, in an environment of their own below `target/`.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::bench::peer::free_port;
use crate::clock::{once_ok, wait_for};
use crate::command::{command, run};
use crate::tidy;

/// Interpreters start slowly on machines that do much else.
const LIMIT: Duration = Duration::from_secs(30);
/// What stands in the environment when it is whole: the requirements that it was made for.
const MADE_FOR: &str = "made-for";

fn folder() -> PathBuf {
    tidy::root().join("tests/clients")
}

/// The interpreter of an environment with `tests/clients/requirements.txt`; made at the first call.
///
/// # Errors
/// If there is no Python with `venv`, or the registry does not answer.
pub fn interpreter() -> Result<PathBuf> {
    let wanted = fs::read_to_string(folder().join("requirements.txt"))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| tidy::root().join("target"), PathBuf::from);
    let environment = std::path::absolute(target.join("clients"))?;
    let interpreter = environment.join("bin/python");
    let made_for = environment.join(MADE_FOR);
    if fs::read_to_string(&made_for).is_ok_and(|made_for| made_for == wanted) {
        return Ok(interpreter);
    }
    run(command("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    let mut install = command(&interpreter);
    install.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--only-binary=:all:",
        "--requirement",
    ]);
    run(install.arg(folder().join("requirements.txt")))?;
    fs::write(&made_for, wanted)?;
    Ok(interpreter)
}

/// What keeps this from being used here.
pub fn obstacle() -> Option<String> {
    let error = interpreter().err()?;
    Some(format!(
        "there is no Python environment for its clients (apt-get install python3-venv): {error:#}"
    ))
}

/// A server of one of the scripts, on 127.0.0.1. Ends when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// `127.0.0.1:PORT`
    pub address: String,
}

impl Server {
    /// Starts it and waits until it can be connected to.
    ///
    /// # Errors
    /// If it cannot.
    pub fn start(script: &str) -> Result<Server> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let child = command(interpreter()?)
            .arg(folder().join(script))
            .args(["server", &address.port().to_string()])
            .spawn()?;
        let server = Server {
            child,
            address: address.to_string(),
        };
        wait_for(script, LIMIT, || once_ok(TcpStream::connect(address)))?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the client of one of the scripts to its end, and gives what it says of its success.
///
/// # Errors
/// If it does not succeed within a minute, with what it saw.
pub fn client(script: &str, arguments: &[&str]) -> Result<String> {
    let mut client = command("timeout");
    client.arg("60").arg(interpreter()?).arg(folder().join(script));
    run(client.arg("client").args(arguments)).with_context(|| format!("the client of {script}"))
}
