//! The demo's own users, and what they got.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::clock::Clock;

/// A user's patience.
const PATIENCE: Duration = Duration::from_secs(20);

/// Something to ask for, and who should answer.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) host: &'static str,
    pub(super) path: &'static str,
    pub(super) service: &'static str,
}

/// Users that ask all the time. Clones are the same users.
#[derive(Clone, Debug)]
pub(super) struct Load {
    state: Rc<State>,
}

#[derive(Debug)]
struct State {
    clock: Clock,
    proxy: SocketAddr,
    wishes: RefCell<Vec<Wish>>,
    requests: Cell<u64>,
    under_way: Cell<u64>,
    failures: RefCell<BTreeMap<String, u64>>,
    latency: RefCell<Histogram>,
}

impl Load {
    /// Nobody yet; requests will go to `proxy`.
    pub(super) fn new(clock: Clock, proxy: SocketAddr) -> Self {
        Load {
            state: Rc::new(State {
                clock,
                proxy,
                wishes: RefCell::default(),
                requests: Cell::new(0),
                under_way: Cell::new(0),
                failures: RefCell::default(),
                latency: RefCell::default(),
            }),
        }
    }

    /// Starts `users` that together send `rate` requests a second while there are wishes.
    pub(super) fn start(&self, users: u32, rate: u32) {
        let pause = Duration::from_secs(1) * users / rate.max(1);
        for number in 0..users {
            let state = self.state.clone();
            let offset = pause * number / users;
            tokio::task::spawn_local(user(state, offset, pause, number));
        }
    }

    /// What users ask for from now on.
    pub(super) fn ask_for(&self, wishes: Vec<Wish>) {
        *self.state.wishes.borrow_mut() = wishes;
    }

    /// Waits until everything that was asked for has its answer; nothing new is asked for.
    pub(super) async fn finish(&self) {
        self.ask_for(Vec::new());
        while self.state.under_way.get() > 0 {
            self.state.pause(Duration::from_millis(10)).await;
        }
    }

    /// Asks once, outside the counts: whether the right service answered.
    pub(super) async fn is_answered(&self, wish: &Wish) -> bool {
        let asked = ask(self.state.proxy, None, wish);
        matches!(tokio::time::timeout(Duration::from_secs(2), asked).await, Ok(Ok(_)))
    }

    /// Requests that ended.
    pub(super) fn requests(&self) -> u64 {
        self.state.requests.get()
    }

    /// Requests that failed, by cause.
    pub(super) fn failures(&self) -> BTreeMap<String, u64> {
        self.state.failures.borrow().clone()
    }

    /// Requests that failed.
    pub(super) fn failed(&self) -> u64 {
        self.state.failures.borrow().values().sum()
    }

    /// The time within which `part` of `whole` requests ended; zero where there were none.
    pub(super) fn within(&self, part: u64, whole: u64) -> Duration {
        self.state.latency.borrow().quantile(part, whole)
    }

    /// The longest.
    pub(super) fn longest(&self) -> Duration {
        self.state.latency.borrow().longest
    }

    /// Forgets latencies so far.
    pub(super) fn forget_latency(&self) {
        *self.state.latency.borrow_mut() = Histogram::default();
    }
}

impl State {
    async fn pause(&self, time: Duration) {
        self.clock.sleep_until(Some(self.clock.now() + time)).await;
    }
}

async fn user(state: Rc<State>, offset: Duration, pause: Duration, number: u32) {
    let mut next = state.clock.now() + offset;
    let mut kept = None;
    let mut turn = usize::try_from(number).unwrap_or_default();
    loop {
        state.clock.sleep_until(Some(next)).await;
        // A user who waited long for an answer does not catch up.
        next = (next + pause).max(state.clock.now());
        turn += 1;
        let wish = {
            let wishes = state.wishes.borrow();
            let Some(wish) = wishes.get(turn % wishes.len().max(1)).cloned() else {
                continue;
            };
            wish
        };
        state.under_way.set(state.under_way.get() + 1);
        let begin = state.clock.now();
        let answer = tokio::time::timeout(PATIENCE, ask(state.proxy, kept.take(), &wish)).await;
        let took = state.clock.now().since(begin);
        state.under_way.set(state.under_way.get() - 1);
        state.requests.set(state.requests.get() + 1);
        state.latency.borrow_mut().add(took);
        let cause = match answer {
            Ok(Ok(connection)) => {
                kept = connection;
                continue;
            }
            Ok(Err(cause)) => cause,
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        *state.failures.borrow_mut().entry(cause).or_default() += 1;
    }
}

type Connection = SendRequest<Empty<Bytes>>;

/// Asks on a connection that is kept, or on a new one; the error is the cause.
async fn ask(proxy: SocketAddr, kept: Option<Connection>, wish: &Wish) -> Result<Option<Connection>, String> {
    let open = match kept {
        Some(mut connection) => connection.ready().await.is_ok().then_some(connection),
        None => None,
    };
    let mut connection = match open {
        Some(connection) => connection,
        None => connect(proxy).await?,
    };
    let request = Request::builder()
        .uri(wish.path)
        .header(http::header::HOST, wish.host)
        .body(Empty::new());
    let request = request.expect("hosts and paths of the demo are well formed");
    let response = connection.send_request(request).await;
    let response = response.map_err(|error| format!("no response: {error}"))?;
    let status = response.status();
    let by = response
        .headers()
        .get("x-service")
        .map(|by| String::from_utf8_lossy(by.as_bytes()).into_owned());
    let body = response.into_body().collect().await;
    body.map_err(|error| format!("half a response: {error}"))?;
    match by {
        _ if !status.is_success() => Err(format!("status {}", status.as_u16())),
        Some(by) if by == wish.service => Ok(connection.ready().await.is_ok().then_some(connection)),
        Some(by) => Err(format!("{by} answered for {}", wish.service)),
        None => Err("an answer without a service".to_owned()),
    }
}

async fn connect(proxy: SocketAddr) -> Result<Connection, String> {
    let stream = TcpStream::connect(proxy)
        .await
        .map_err(|error| format!("cannot connect: {error}"))?;
    stream.set_nodelay(true).ok(); // only slower without
    let (connection, driver) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::task::spawn_local(driver);
    Ok(connection)
}

/// Latencies in buckets that are at most an eighth wide, so memory does not grow with requests.
#[derive(Debug, Default)]
struct Histogram {
    buckets: BTreeMap<u32, u64>,
    count: u64,
    longest: Duration,
}

impl Histogram {
    fn add(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(8);
        let exponent = micros.ilog2();
        // The three bits below the highest.
        let bucket = exponent * 8 + u32::try_from((micros >> (exponent - 3)) & 7).unwrap_or_default();
        *self.buckets.entry(bucket).or_default() += 1;
        self.count += 1;
        self.longest = self.longest.max(took);
    }

    fn quantile(&self, part: u64, whole: u64) -> Duration {
        let mut left = (self.count * part).div_ceil(whole.max(1));
        for (bucket, count) in &self.buckets {
            left = left.saturating_sub(*count);
            if left == 0 && self.count > 0 {
                let (exponent, step) = (bucket / 8, u64::from(bucket % 8));
                let upper = (8 + step + 1) << (exponent - 3);
                return Duration::from_micros(upper).min(self.longest);
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_an_eighth() {
        let mut histogram = Histogram::default();
        for micros in 1..=10_000 {
            histogram.add(Duration::from_micros(micros));
        }
        for part in [1, 50, 99, 100] {
            let exact = Duration::from_micros(part * 100);
            let found = histogram.quantile(part, 100);
            assert!(found >= exact && found <= exact + exact / 7, "{part} %: {found:?}");
        }
        assert_eq!(histogram.longest, Duration::from_micros(10_000));
    }

    #[test]
    fn without_requests_there_is_no_latency() {
        assert_eq!(Histogram::default().quantile(99, 100), Duration::ZERO);
    }
}
