//! Requests of every kind at a steady pace: GET and POST, on connections that are kept and on fresh ones, over HTTP/1.1 and
//! HTTP/2. An answer counts if it has the status 200 and every byte of its body, and comes from a task of the right service.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::clock::now;

/// Between two requests of one client.
const PACE: Duration = Duration::from_millis(10);
/// For one request, parking included.
const LIMIT: Duration = Duration::from_secs(30);
/// An answer that takes longer was waited for.
const TROUBLE: Duration = Duration::from_millis(500);
/// What a POST sends and gets back.
const BODY: &[u8] = &[b'z'; 4096];

/// How a client connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// HTTP/1.1, a connection for each request.
    Fresh,
    /// HTTP/1.1 on one connection.
    Kept,
    /// HTTP/2 with prior knowledge on one connection.
    Two,
}

/// Clients of each kind for each address; more of those whose connections tell the most.
const CLIENTS: [Kind; 8] = [
    Kind::Fresh,
    Kind::Fresh,
    Kind::Kept,
    Kind::Kept,
    Kind::Kept,
    Kind::Two,
    Kind::Two,
    Kind::Two,
];

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    requests: AtomicU64,
    failed: AtomicU64,
    tally: Mutex<Tally>,
}

/// Requests that go on until they are stopped.
#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// What is asked, and who is to answer.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The host of every request.
    pub host: &'static str,
    /// What the names of its tasks begin with.
    pub tasks: &'static str,
    /// Whether a request that nobody took goes to the next address, as from a balancer.
    pub is_balanced: bool,
}

impl Traffic {
    /// Starts eight clients for each address.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn start(addresses: &[SocketAddr], target: Target) -> Result<Traffic> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared::default());
        let (of_thread, addresses) = (shared.clone(), addresses.to_vec());
        let thread = std::thread::Builder::new().name("traffic".into()).spawn(move || {
            runtime.block_on(async {
                let mut clients = JoinSet::new();
                for turn in 0..addresses.len() {
                    let mut addresses = addresses.clone();
                    addresses.rotate_left(turn);
                    if !target.is_balanced {
                        addresses.truncate(1);
                    }
                    for kind in CLIENTS {
                        clients.spawn(client(of_thread.clone(), kind, addresses.clone(), target));
                    }
                }
                while clients.join_next().await.is_some() {}
            });
        })?;
        Ok(Traffic { shared, thread })
    }

    /// Answered or failed so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Failed so far.
    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Lets requests under way end, and gives the whole tally.
    pub fn finish(self) -> Tally {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no client panics");
        std::mem::take(&mut self.shared.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What became of requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Of answers that count.
    millis: Vec<u32>,
    /// Those that failed, by cause.
    pub failures: BTreeMap<String, u64>,
    /// Those of them that may not be sent twice.
    pub failed_posts: u64,
    /// The request that began last of those that failed or took longer than [`TROUBLE`].
    pub last_trouble: Option<Trouble>,
    /// The one of them that took longest.
    pub worst_trouble: Option<Trouble>,
    /// When the last one began that failed.
    pub last_failure: Option<Instant>,
}

/// A request that failed, or that was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// When it began.
    pub began: Instant,
    took: Duration,
    kind: Kind,
    is_post: bool,
    has_failed: bool,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = if self.is_post { "POST" } else { "GET" };
        let ending = if self.has_failed { "failed after" } else { "took" };
        write!(f, "{:?} {method} {ending} {} ms", self.kind, self.took.as_millis())
    }
}

impl Tally {
    /// Names of the columns.
    pub const HEAD: &'static str = "requests   failed   p50 ms   p99 ms   max ms  scenario";

    /// All that failed.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// All that were sent.
    pub fn requests(&self) -> u64 {
        self.millis.len() as u64 + self.failed()
    }

    fn enter(&mut self, trouble: Trouble) {
        if trouble.has_failed {
            self.last_failure = self.last_failure.max(Some(trouble.began));
        }
        let last = self.last_trouble.get_or_insert(trouble);
        if trouble.began > last.began {
            *last = trouble;
        }
        let worst = self.worst_trouble.get_or_insert(trouble);
        if trouble.took > worst.took {
            *worst = trouble;
        }
    }

    fn merge(&mut self, other: Tally) {
        self.millis.extend(other.millis);
        self.failed_posts += other.failed_posts;
        for trouble in [other.last_trouble, other.worst_trouble].into_iter().flatten() {
            self.enter(trouble);
        }
        self.last_failure = self.last_failure.max(other.last_failure);
        for (cause, count) in other.failures {
            *self.failures.entry(cause).or_default() += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.millis.clone();
        millis.sort_unstable();
        let at = |hundredths: usize| {
            let index = (millis.len() * hundredths / 100).min(millis.len().saturating_sub(1));
            millis.get(index).copied().unwrap_or_default()
        };
        let (requests, failed) = (self.requests(), self.failed());
        write!(f, "{requests:8} {failed:8} {:8} {:8} {:8}", at(50), at(99), at(100))?;
        for (cause, count) in &self.failures {
            write!(f, "  [{count} × {cause}]")?;
        }
        Ok(())
    }
}

/// A connection that takes requests.
enum Connection {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// The request was never sent, or nobody looked at it, so it may be sent again.
#[derive(Debug)]
struct NotTaken;

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not taken")
    }
}

impl std::error::Error for NotTaken {}

async fn client(shared: Arc<Shared>, kind: Kind, mut addresses: Vec<SocketAddr>, target: Target) {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut connection = None;
    let mut tally = Tally::default();
    let mut number = 0_u64;
    while !shared.stop.load(Ordering::Relaxed) {
        pace.tick().await;
        number += 1;
        let (start, is_post) = (now(), number.is_multiple_of(4));
        let asked = async {
            for _ in 1..addresses.len() {
                match ask(&mut connection, kind, addresses[0], target, is_post).await {
                    Err(error) if error.is::<NotTaken>() => addresses.rotate_left(1),
                    result => return result,
                }
            }
            ask(&mut connection, kind, addresses[0], target, is_post).await
        };
        let result = match tokio::time::timeout(LIMIT, asked).await {
            Ok(result) => result,
            Err(_) => Err(anyhow::anyhow!("no answer within {} s", LIMIT.as_secs())),
        };
        let took = start.elapsed();
        if result.is_err() || took > TROUBLE {
            tally.enter(Trouble {
                began: start,
                took,
                kind,
                is_post,
                has_failed: result.is_err(),
            });
        }
        match result {
            Ok(()) => tally.millis.push(u32::try_from(took.as_millis()).unwrap_or(u32::MAX)),
            Err(error) => {
                connection = None;
                let method = if is_post { Method::POST } else { Method::GET };
                tally.failed_posts += u64::from(is_post);
                *tally
                    .failures
                    .entry(format!("{kind:?} {method}: {error:#}"))
                    .or_default() += 1;
                shared.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        if kind == Kind::Fresh {
            connection = None;
        }
        shared.requests.fetch_add(1, Ordering::Relaxed);
    }
    shared.tally.lock().unwrap_or_else(PoisonError::into_inner).merge(tally);
}

/// One request; connects first where there is no connection, or where the other side said that it is over.
async fn ask(
    connection: &mut Option<Connection>,
    kind: Kind,
    address: SocketAddr,
    target: Target,
    is_post: bool,
) -> Result<()> {
    let mut open = match connection.take() {
        Some(open) if is_open(&open) => open,
        Some(_) | None => connect(kind, address).await.map_err(|error| error.context(NotTaken))?,
    };
    let host = target.host;
    let (method, path, body) = match is_post {
        true => (Method::POST, "/echo", Bytes::from_static(BODY)),
        false => (Method::GET, "/", Bytes::new()),
    };
    let builder = Request::builder().method(method);
    let request = match open {
        Connection::One(_) => builder.uri(path).header("host", host),
        Connection::Two(_) => builder.uri(format!("http://{host}{path}")),
    };
    let request = request
        .body(Full::new(body.clone()))
        .context("a request is right as it stands here")?;
    let answer = match &mut open {
        Connection::One(sender) => {
            sender
                .ready()
                .await
                .context("the connection was closed")
                .context(NotTaken)?;
            sender.send_request(request).await
        }
        Connection::Two(sender) => {
            sender
                .ready()
                .await
                .context("the connection was closed")
                .context(NotTaken)?;
            sender.send_request(request).await
        }
    };
    let answer = match answer {
        Err(error) if error.is_canceled() || was_refused(&error) => {
            return Err(anyhow::Error::from(error).context(NotTaken));
        }
        answer => answer.context("no answer")?,
    };
    let status = answer.status();
    let text = answer
        .into_body()
        .collect()
        .await
        .context("the answer is cut off")?
        .to_bytes();
    if status != 200 {
        let first = String::from_utf8_lossy(&text)
            .lines()
            .next()
            .unwrap_or_default()
            .to_string();
        anyhow::bail!("{status} {first}");
    }
    if !is_post {
        let text = String::from_utf8_lossy(&text);
        let task = text.lines().find_map(|line| line.strip_prefix("task: "));
        if !task.is_some_and(|task| task.starts_with(target.tasks)) {
            anyhow::bail!("somebody else answers: {task:?}");
        }
    }
    if is_post && text != body {
        anyhow::bail!("{} bytes come back instead of {}", text.len(), body.len());
    }
    *connection = Some(open);
    Ok(())
}

/// RFC 9113 §8.7: a refused stream, or one above the last that a GOAWAY names, was not looked at, so it may be sent again.
fn was_refused(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        cause.reason() == Some(h2::Reason::REFUSED_STREAM)
            || (cause.is_go_away() && cause.is_remote() && cause.reason() == Some(h2::Reason::NO_ERROR))
    })
}

fn is_open(connection: &Connection) -> bool {
    match connection {
        Connection::One(sender) => !sender.is_closed(),
        Connection::Two(sender) => !sender.is_closed(),
    }
}

async fn connect(kind: Kind, address: SocketAddr) -> Result<Connection> {
    let stream = TcpStream::connect(address).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    let io = TokioIo::new(stream);
    Ok(match kind {
        Kind::Fresh | Kind::Kept => {
            let (sender, driver) = http1::handshake(io).await.context("no handshake")?;
            // Its end shows in the sender.
            tokio::spawn(async move { _ = driver.await });
            Connection::One(sender)
        }
        Kind::Two => {
            let (sender, driver) = http2::handshake(TokioExecutor::new(), io)
                .await
                .context("no handshake")?;
            tokio::spawn(async move { _ = driver.await });
            Connection::Two(sender)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_quantiles_and_failures_by_cause() {
        let mut tally = Tally {
            millis: (1..=200).rev().collect(),
            ..Tally::default()
        };
        assert_eq!(tally.to_string(), "     200        0      101      199      200");
        let cause = "Kept: 503 nobody".to_string();
        let more = Tally {
            failures: [(cause, 3)].into(),
            failed_posts: 2,
            ..Tally::default()
        };
        tally.merge(more.clone());
        tally.merge(more);
        assert_eq!((tally.requests(), tally.failed(), tally.failed_posts), (206, 6, 4));
        assert!(tally.to_string().ends_with("  [6 × Kept: 503 nobody]"), "{tally}");
        assert_eq!(
            Tally::default().to_string(),
            "       0        0        0        0        0"
        );
    }

    #[test]
    fn the_last_trouble_and_the_worst_are_kept() {
        let start = now();
        let trouble = |began, took, is_post| Trouble {
            began: start + Duration::from_secs(began),
            took: Duration::from_millis(took),
            kind: Kind::Kept,
            is_post,
            has_failed: is_post,
        };
        let mut tally = Tally::default();
        for one in [trouble(1, 700, false), trouble(3, 26_000, true)] {
            let mut other = Tally::default();
            other.enter(one);
            other.enter(trouble(2, 600, false));
            tally.merge(other);
        }
        tally.enter(trouble(4, 900, false));
        assert_eq!(tally.last_failure, Some(start + Duration::from_secs(3)));
        assert_eq!(tally.last_trouble, Some(trouble(4, 900, false)));
        assert_eq!(tally.last_trouble.unwrap().to_string(), "Kept GET took 900 ms");
        assert_eq!(
            tally.worst_trouble.unwrap().to_string(),
            "Kept POST failed after 26000 ms"
        );
    }

    #[test]
    fn every_failure_is_counted_and_none_ends_a_client() {
        // A port that nobody has.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let target = Target {
            host: "x.example",
            tasks: "x.",
            is_balanced: false,
        };
        let traffic = Traffic::start(&[address], target).unwrap();
        let enough = || match traffic.requests() {
            0..40 => crate::clock::Look::NotYet(traffic.requests().to_string()),
            _ => crate::clock::Look::Holds(()),
        };
        crate::clock::wait_for("forty requests", Duration::from_secs(20), enough).unwrap();
        assert_eq!(traffic.failed(), traffic.requests());
        let tally = traffic.finish();
        assert!(tally.failed() >= 40 && tally.failed() == tally.requests(), "{tally}");
        assert!(
            tally.failures.keys().all(|cause| cause.contains("cannot connect")),
            "{tally}"
        );
    }
}
