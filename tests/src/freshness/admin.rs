//! What proxies and controllers say on their admin listeners, which answer inside their containers alone: this program is
//! started once more in the container's network (`e2e admin`) and prints what it sees.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::clock::{pause, wall_nanos};
use crate::command::run;
use crate::swarm::Node;
use crate::swarm::guard::own_program;

/// Where Tidegate's processes answer, in their containers.
const ADMIN: &str = "127.0.0.1:7172";
/// Between two questions of [`Follower`]: what is seen may be later by this and a question's own time.
const EVERY: Duration = Duration::from_millis(2);
const LIMIT: Duration = Duration::from_secs(20);

/// Endpoints by task, with their states.
pub type Endpoints = BTreeMap<String, String>;

/// What a proxy showed from this moment on, in nanoseconds since 1970.
pub type Sighting = (u128, Endpoints);

/// The main function of `e2e admin`.
///
/// # Errors
/// If nobody answers.
pub fn ask(address: SocketAddr, path: &str, follow: bool) -> Result<()> {
    let mut connection = Connection::open(address)?;
    if !follow {
        print!("{}", connection.get(path)?);
        return Ok(());
    }
    let mut last = None;
    loop {
        let endpoints = endpoints(&connection.get(path)?)?;
        let seen = wall_nanos();
        if last.as_ref() != Some(&endpoints) {
            println!("{seen} {}", serde_json::to_string(&endpoints)?);
            last = Some(endpoints);
        }
        pause(EVERY);
    }
}

/// The endpoints of an explanation in JSON; none where no pool is asked.
fn endpoints(text: &str) -> Result<Endpoints> {
    let all: serde_json::Value = serde_json::from_str(text).context("an explanation in JSON")?;
    let list = all[0][1]["endpoints"].as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_string();
    Ok(list
        .iter()
        .map(|item| (text(&item["id"]), text(&item["state"])))
        .collect())
}

/// A kept connection: asking every few milliseconds must cost little.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(address: SocketAddr) -> Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, LIMIT).context("nobody answers")?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Connection(BufReader::new(stream)))
    }

    fn get(&mut self, path: &str) -> Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes())?;
        let (mut status, mut length) = (String::new(), None);
        loop {
            let mut line = String::new();
            ensure!(self.0.read_line(&mut line)? > 0, "the listener closed the connection");
            let line = line.trim_end().to_ascii_lowercase();
            match line.strip_prefix("content-length:") {
                _ if line.is_empty() => break,
                Some(number) => length = Some(number.trim().parse()?),
                None if status.is_empty() => status = line,
                None => {}
            }
        }
        let mut body = vec![0; length.context("an answer without a length")?];
        self.0.read_exact(&mut body)?;
        ensure!(status.contains(" 200"), "{path}: {status}");
        Ok(String::from_utf8(body)?)
    }
}

/// A page of a container's admin listener.
///
/// # Errors
/// If it cannot be asked.
pub fn page(node: &Node, container: &str, path: &str) -> Result<String> {
    let program = own_program()?;
    run(node
        .beside(container, &program.to_string_lossy())?
        .args(["admin", ADMIN, path]))
}

/// Watches the endpoints of a host at one proxy: when it serves by which is seen a few milliseconds later.
#[derive(Debug)]
pub struct Follower {
    process: Child,
    seen: Arc<Mutex<Vec<Sighting>>>,
}

impl Follower {
    /// Starts to ask the proxy in this container.
    ///
    /// # Errors
    /// If the program cannot be started there.
    pub fn start(node: &Node, container: &str, host: &str) -> Result<Follower> {
        let program = own_program()?;
        let path = format!("/explain?format=json&url=http://{host}/");
        let mut command = node.beside(container, &program.to_string_lossy())?;
        command.args(["admin", ADMIN, &path, "--follow"]);
        let mut process = command.stdout(Stdio::piped()).spawn().context("cannot ask a proxy")?;
        let lines = BufReader::new(process.stdout.take().context("its output is piped")?).lines();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shelf = seen.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let Some((at, endpoints)) = line.split_once(' ') else {
                    continue;
                };
                if let (Ok(at), Ok(endpoints)) = (at.parse(), serde_json::from_str(endpoints)) {
                    shelf
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((at, endpoints));
                }
            }
        });
        Ok(Follower { process, seen })
    }

    /// What it serves by now; nothing before the first answer.
    ///
    /// # Errors
    /// If the proxy is no longer asked.
    pub fn present(&mut self) -> Result<Endpoints> {
        if let Some(status) = self.process.try_wait()? {
            bail!("a proxy is no longer asked: {status}");
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(seen.last().map(|(_, endpoints)| endpoints.clone()).unwrap_or_default())
    }

    /// Every change that was seen, with its moment in nanoseconds since 1970.
    pub fn seen(&self) -> Vec<Sighting> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_from_an_explanation() {
        let text =
            r#"[["default",{"url":"u","outcome":"forward","endpoints":[{"id":"t1","addr":"a","state":"ready"}]}]]"#;
        assert_eq!(
            endpoints(text).unwrap(),
            Endpoints::from([("t1".into(), "ready".into())])
        );
        assert_eq!(
            endpoints(r#"[["default",{"outcome":"unknown_host"}]]"#).unwrap(),
            Endpoints::new()
        );
        assert!(endpoints("no").is_err());
    }
}
