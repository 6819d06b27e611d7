//! Requests without a pause while something changes, and an account of every one of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clock::{now, pause};
use crate::web::{self, Answer};

/// Between two requests of one client.
const PACE: Duration = Duration::from_millis(10);
/// For one request, parking included.
const LIMIT: Duration = Duration::from_secs(20);

/// Clients that ask each address in turn until they are stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
    account: Arc<Mutex<Account>>,
    started: Instant,
}

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// All that were sent.
    pub requests: u64,
    /// Those that failed or were not answered with 200, by reason.
    pub failures: BTreeMap<String, u64>,
    /// When the first and the last of those were, in seconds since the load began.
    pub failed_between: Option<(f64, f64)>,
    /// Tasks that answered, and versions of the application: seconds of the first and the last answer.
    pub seen: BTreeMap<String, (f64, f64)>,
    /// The slowest answer.
    pub slowest: Duration,
}

impl Account {
    /// Second of the last answer of a task or version. None if it never answered.
    pub fn last_seen(&self, name: &str) -> Option<f64> {
        self.seen.get(name).map(|(_, last)| *last)
    }

    /// All failures.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    fn enter(&mut self, at: Instant, started: Instant, result: anyhow::Result<Answer>) {
        self.requests += 1;
        self.slowest = self.slowest.max(at.elapsed());
        let answered = started.elapsed().as_secs_f64();
        let failure = match result {
            Ok(answer) if answer.status == 200 => {
                for name in ["task", "version"].iter().filter_map(|name| answer.says(name)) {
                    self.seen.entry(name.to_string()).or_insert((answered, answered)).1 = answered;
                }
                return;
            }
            Ok(answer) => answer.summary(),
            Err(error) => format!("{error:#}"),
        };
        *self.failures.entry(failure).or_default() += 1;
        let second = (at - started).as_secs_f64();
        let first = self.failed_between.map_or(second, |(first, _)| first);
        self.failed_between = Some((first, second));
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slowest = self.slowest.as_secs_f64();
        write!(
            f,
            "{} requests, {} failed, slowest {slowest:.3} s",
            self.requests,
            self.failed()
        )?;
        if let Some((first, last)) = self.failed_between {
            write!(f, ", failures between {first:.2} and {last:.2} s: {:?}", self.failures)?;
        }
        Ok(())
    }
}

impl Load {
    /// Starts one client for each address.
    pub fn start(addresses: &[SocketAddr], host: &str) -> Load {
        let alone = addresses.iter().map(|address| vec![*address]);
        Load::of(alone.collect(), host)
    }

    /// Starts one client that goes to the next address where one refuses, as clients do behind a balancer.
    pub fn balanced(addresses: &[SocketAddr], host: &str) -> Load {
        Load::of(vec![addresses.to_vec()], host)
    }

    fn of(addresses: Vec<Vec<SocketAddr>>, host: &str) -> Load {
        let (stop, account) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(Mutex::new(Account::default())),
        );
        let started = now();
        let clients = addresses.into_iter().map(|addresses| {
            let (stop, account, host) = (stop.clone(), account.clone(), host.to_string());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let at = now();
                    let mut results = addresses
                        .iter()
                        .map(|address| web::get(*address, &host, "/load", LIMIT));
                    let first = results.next().expect("a client has an address");
                    let result = first.or_else(|error| results.find_map(Result::ok).ok_or(error));
                    account
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .enter(at, started, result);
                    pause(PACE);
                }
            })
        });
        Load {
            clients: clients.collect(),
            stop,
            account,
            started,
        }
    }

    /// Seconds since it began.
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// The account so far.
    pub fn account(&self) -> Account {
        self.account.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops the clients and gives the whole account.
    pub fn finish(self) -> Account {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client does not panic");
        }
        self.account.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
