//! How the endpoints of a service are probed by HTTP requests.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// A `GET` now and then, and what is right as its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveChecks {
    /// Path and query.
    pub path: String,
    /// `Host`; `None`: the endpoint's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Milliseconds from one answer to the next request.
    #[serde(default = "interval_ms")]
    pub interval_ms: u32,
    /// Milliseconds that connection and answer may take together.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u32,
    /// Statuses that are right; none: those from 200 to 399.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<StatusRange>,
}

/// Statuses from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StatusRange(pub u16, pub u16);

/// [`ActiveChecks::interval_ms`] where nothing is said.
pub const INTERVAL_MS: u32 = 5_000;
/// [`ActiveChecks::timeout_ms`] where nothing is said.
pub const TIMEOUT_MS: u32 = 2_000;

fn interval_ms() -> u32 {
    INTERVAL_MS
}

fn timeout_ms() -> u32 {
    TIMEOUT_MS
}

impl ActiveChecks {
    /// Whether an answer with this status is right.
    pub fn accepts(&self, status: u16) -> bool {
        if self.statuses.is_empty() {
            return (200..400).contains(&status);
        }
        self.statuses
            .iter()
            .any(|StatusRange(first, last)| (*first..=*last).contains(&status))
    }
}

impl fmt::Display for ActiveChecks {
    /// `GET /health every 5000 ms`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GET {} every {} ms", self.path, self.interval_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_or_older_controller_leaves_out_has_a_default() {
        let checks: ActiveChecks = serde_json::from_str(r#"{"path":"/health","later":1}"#).expect("a path is enough");
        assert_eq!((checks.interval_ms, checks.timeout_ms), (INTERVAL_MS, TIMEOUT_MS));
        assert!(checks.accepts(204) && checks.accepts(302) && !checks.accepts(404) && !checks.accepts(199));
        let narrow = ActiveChecks {
            statuses: alloc::vec![StatusRange(200, 200), StatusRange(401, 403)],
            ..checks
        };
        assert!(narrow.accepts(200) && narrow.accepts(403) && !narrow.accepts(204) && !narrow.accepts(404));
    }
}
