//! Docker's API on a node's socket, spoken plainly: its client takes longer to start than what is measured here, and does
//! not show when an object was written.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::command::run;
use crate::scene::Scene;
use crate::swarm::Node;

const LIMIT: Duration = Duration::from_secs(60);

/// An answer to GET.
///
/// # Errors
/// What Docker says.
pub(super) fn get(node: &Node, path: &str) -> Result<Value> {
    call(node, &format!("GET {path} HTTP/1.0\r\nhost: docker\r\n\r\n"))
}

/// An answer to POST.
///
/// # Errors
/// What Docker says.
pub(super) fn post(node: &Node, path: &str, body: &Value) -> Result<Value> {
    let body = body.to_string();
    let head = format!("POST {path} HTTP/1.0\r\nhost: docker\r\ncontent-type: application/json\r\n");
    call(node, &format!("{head}content-length: {}\r\n\r\n{body}", body.len()))
}

/// HTTP/1.0: the answer ends with the connection, and is never cut into chunks.
fn call(node: &Node, request: &str) -> Result<Value> {
    let mut socket = UnixStream::connect(node.socket()).context("dockerd does not answer")?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("no whole answer")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if !status.starts_with('2') {
        bail!("{}: {status} {body}", request.lines().next().unwrap_or_default());
    }
    serde_json::from_str(body).context("an answer that is no JSON")
}

/// Docker's moments as nanoseconds since 1970.
///
/// # Errors
/// If `date` cannot read one.
pub(super) fn nanos(scene: &Scene, moments: &[&str]) -> Result<Vec<u128>> {
    let file = scene.swarm().folder().join("moments");
    std::fs::write(&file, moments.join("\n"))?;
    let mut date = crate::command::command("date");
    let printed = run(date.arg("-u").arg("-f").arg(&file).arg("+%s%N"))?;
    let all: Vec<u128> = printed.lines().map(str::parse).collect::<Result<_, _>>()?;
    if all.len() != moments.len() {
        bail!("date read {} of {} moments", all.len(), moments.len());
    }
    Ok(all)
}
