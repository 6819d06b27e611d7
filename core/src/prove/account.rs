//! What became of requests.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::pool::Unavailable;
use crate::request::fault::{Fault, UpstreamFault};
use crate::time::Duration;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The entrance took no connection.
    Refused,
    /// The connection ended before the whole answer was there.
    Reset,
    /// No answer within the limit.
    TimedOut,
    /// The app answered with an error of its own.
    App {
        /// Its status.
        status: u16,
    },
    /// Tidegate answered in its place.
    Tidegate {
        /// The status.
        status: u16,
        /// The reason as logs and metrics have it; empty for one that this version does not know.
        fault: &'static str,
        /// The reason as the client read it.
        text: String,
    },
}

/// Begins what Tidegate says when a request waited in vain.
const PARKED: &str = "no endpoint of the service became ready within ";

/// The same, where all endpoints had as many requests as they may have.
const BUSY: &str = "all endpoints of the service had as many requests as they may have for ";

impl Cause {
    /// What an answer says about its request: none where it was served. Errors of the server count, and whatever Tidegate
    /// answers in the app's place.
    pub fn of_answer(status: u16, body: &str) -> Option<Cause> {
        let mut lines = body.lines();
        let is_own_page = lines.next().is_some_and(|line| {
            line.split_once(' ')
                .is_some_and(|(number, _)| number == status.to_string())
        }) && lines.next() == Some("");
        let text = lines.next().unwrap_or_default().trim_end_matches('.');
        match known_fault(text) {
            Some(fault) if is_own_page => Some(Cause::Tidegate {
                status,
                fault,
                text: text.to_string(),
            }),
            _ if status >= 500 => Some(Cause::App { status }),
            _ => None,
        }
    }

    /// Whether the pool had nobody that takes a connection.
    pub fn lacks_endpoints(&self) -> bool {
        matches!(
            self,
            Cause::Tidegate {
                fault: "park_timed_out" | "no_endpoint" | "parking_full" | "connect_failed" | "connect_timed_out",
                ..
            }
        )
    }

    /// Whether a task ended under its request.
    pub fn is_cut(&self) -> bool {
        matches!(
            self,
            Cause::Reset
                | Cause::Tidegate {
                    fault: "upstream_died",
                    ..
                }
        )
    }

    /// Whether no route leads to the service.
    pub fn is_unrouted(&self) -> bool {
        matches!(
            self,
            Cause::Tidegate {
                fault: "unknown_host" | "unknown_path",
                ..
            }
        )
    }
}

/// The name of the fault whose sentence this is.
fn known_fault(text: &str) -> Option<&'static str> {
    let upstream = [
        UpstreamFault::BadResponse,
        UpstreamFault::ConnectFailed,
        UpstreamFault::ConnectTimedOut,
        UpstreamFault::Died,
        UpstreamFault::FirstByteTimedOut,
        UpstreamFault::NoCommonProtocol,
        UpstreamFault::NoLeg,
        UpstreamFault::NoSocket,
        UpstreamFault::NoTrust,
        UpstreamFault::TlsFailed,
    ];
    let plain = [
        Fault::NotAllowed,
        Fault::UsersUnknown,
        Fault::Unavailable(Unavailable::Busy),
        Fault::Unavailable(Unavailable::ParkingFull),
        Fault::Unavailable(Unavailable::ParkingOff),
    ];
    let parked = Fault::ParkTimedOut { waited: Duration::ZERO };
    let fixed = upstream.map(Fault::Upstream).into_iter().chain(plain);
    match fixed.into_iter().find(|fault| fault.to_string() == text) {
        Some(fault) => Some(fault.name()),
        None if text.starts_with(PARKED) => Some(parked.name()),
        None if text.starts_with(BUSY) => Some(Fault::BusyTimedOut { waited: Duration::ZERO }.name()),
        None if text.starts_with("no service has the host ") => Some("unknown_host"),
        None if text.starts_with("no service of the host ") => Some("unknown_path"),
        None if text.starts_with("the certificate of the service ") => Some("certificate"),
        None => None,
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Refused => f.write_str("refused: the entrance takes no connections"),
            Cause::Reset => f.write_str("reset: the connection ended before the whole answer was there"),
            Cause::TimedOut => f.write_str("timeout: no answer within the limit"),
            Cause::App { status } => write!(f, "{status} by the app itself"),
            Cause::Tidegate { status, fault, text } => write!(f, "{status} {fault}: {text}"),
        }
    }
}

/// An account of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Milliseconds that each served request took.
    millis: Vec<u32>,
    /// Those that failed, by cause.
    pub failures: BTreeMap<Cause, u64>,
    /// The longest wait of any request.
    pub longest: Duration,
}

impl Account {
    /// Enters one request.
    pub fn enter(&mut self, took: Duration, failure: Option<Cause>) {
        self.longest = self.longest.max(took);
        match failure {
            None => self.millis.push(u32::try_from(took.as_millis()).unwrap_or(u32::MAX)),
            Some(cause) => *self.failures.entry(cause).or_default() += 1,
        }
    }

    /// All that were sent.
    pub fn requests(&self) -> u64 {
        self.millis.len() as u64 + self.failed()
    }

    /// All that failed.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Milliseconds within which `hundredths` of the served requests were answered.
    pub fn quantile(&self, hundredths: usize) -> u32 {
        let mut millis = self.millis.clone();
        millis.sort_unstable();
        let index = (millis.len() * hundredths / 100).min(millis.len().saturating_sub(1));
        millis.get(index).copied().unwrap_or_default()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests, {} failed, p50 {} ms, p99 {} ms, longest wait {} ms",
            self.requests(),
            self.failed(),
            self.quantile(50),
            self.quantile(99),
            self.longest.as_millis()
        )
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    fn page(status: &str, fault: &Fault) -> Option<Cause> {
        Cause::of_answer(fault.status(), &format!("{status}\n\n{fault}.\nRequest 7\n"))
    }

    #[test]
    fn tidegates_own_pages_are_told_from_the_apps() {
        let parked = Fault::ParkTimedOut {
            waited: Duration::from_secs(10),
        };
        let cause = page("503 Service Unavailable", &parked).unwrap();
        assert!(cause.lacks_endpoints() && !cause.is_cut(), "{cause}");
        assert_eq!(
            format!("{cause}"),
            "503 park_timed_out: no endpoint of the service became ready within 10000 ms"
        );
        let died = page("502 Bad Gateway", &UpstreamFault::Died.into()).unwrap();
        assert!(died.is_cut() && !died.lacks_endpoints(), "{died}");
        let host = Fault::UnknownHost {
            host: "a.example".into(),
            status: 404,
        };
        assert!(page("404 Not Found", &host).unwrap().is_unrouted());
        assert_eq!(
            Cause::of_answer(503, "503 Service Unavailable\n\nmaintenance\n"),
            Some(Cause::App { status: 503 })
        );
        assert_eq!(Cause::of_answer(404, "not here"), None);
        assert_eq!(Cause::of_answer(200, ""), None);
    }

    #[test]
    fn an_account_has_quantiles_the_longest_wait_and_failures_by_cause() {
        let mut account = Account::default();
        for ms in (1..=200).rev() {
            account.enter(Duration::from_millis(ms), None);
        }
        account.enter(Duration::from_secs(10), Some(Cause::TimedOut));
        assert_eq!(
            format!("{account}"),
            "201 requests, 1 failed, p50 101 ms, p99 199 ms, longest wait 10000 ms"
        );
        assert_eq!(
            format!("{}", Account::default()),
            "0 requests, 0 failed, p50 0 ms, p99 0 ms, longest wait 0 ms"
        );
    }
}
