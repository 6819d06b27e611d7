//! The labels that say which endpoints are sick, and what becomes of them.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Reader;
use super::serving::{CONNECT_MS_MAX, TIME_MS_MAX};
use crate::labels::backend::first_host;
use crate::labels::diagnostic::Severity;
use crate::labels::value::{self, Wrong};
use crate::route::active::{ActiveChecks, INTERVAL_MS, StatusRange, TIMEOUT_MS};
use crate::route::spec::PassiveChecks;
use crate::route::statuses::ServerErrors;

/// The most that `max_fails` may be.
const FAILS_MAX: u32 = 1_000_000;
/// The most that `requests_max` may be.
const REQUESTS_MAX: u32 = 1_000_000;
/// Milliseconds that `probe_interval` is at least.
const INTERVAL_MS_MIN: u32 = 100;
/// Characters of `probe_path`.
const PATH_MAX: usize = 1_024;
const CLUSTERS: &str = "the cluster's setting holds";

impl Reader<'_> {
    /// Row 36.
    pub(super) fn checks(&mut self) -> PassiveChecks {
        PassiveChecks {
            max_fails: self.number("max_fails", FAILS_MAX, CLUSTERS),
            fail_timeout_ms: self.time("fail_timeout", 0, TIME_MS_MAX),
            fail_rate_percent: self.percent("fail_rate"),
            requests_max: self.requests_max(),
            fail_on: self.fail_on(),
            slow_start_ms: self.time_or("slow_start", 1, TIME_MS_MAX, "new tasks get their full share at once"),
        }
    }

    pub(super) fn percent(&mut self, name: &str) -> Option<u32> {
        self.number(name, 100, CLUSTERS)
    }

    fn requests_max(&mut self) -> Option<u32> {
        let found = self.find("requests_max")?;
        if let Some(number) = found
            .value
            .parse()
            .ok()
            .filter(|number| (1..=REQUESTS_MAX).contains(number))
        {
            return Some(number);
        }
        let wrong = Wrong {
            problem: format!("this is no whole number from 1 to {REQUESTS_MAX}"),
            remedy: String::from("write digits alone, e.g. 100, or take the label away for no limit"),
        };
        self.report_ignored_value(&found, wrong, "there is no limit");
        None
    }

    fn fail_on(&mut self) -> ServerErrors {
        let mut statuses = ServerErrors::default();
        let Some(found) = self.find("fail_on") else {
            return statuses;
        };
        let mut wrong = Vec::new();
        for item in value::list(found.value) {
            if !item.parse().is_ok_and(|status| statuses.insert(status)) {
                wrong.push(Wrong {
                    problem: format!("{} is no status from 500 to 599", value::quote(item)),
                    remedy: String::from("write server errors such as 502, 503, 504; others are no fault of the app"),
                });
            }
        }
        self.report_items(&found, wrong, "status");
        statuses
    }

    pub(super) fn active(&mut self, passthrough: bool) -> Option<ActiveChecks> {
        let Some(found) = self.find("probe_path") else {
            for name in ["probe_interval", "probe_status", "probe_timeout"] {
                if let Some(found) = self.find(name) {
                    self.say(
                        &found,
                        Severity::Warning,
                        "there is no probe_path that this belongs to, so it is ignored",
                        "add probe_path, or take this label away",
                    );
                }
            }
            return None;
        };
        if passthrough {
            self.say(
                &found,
                Severity::Warning,
                "with ssl_passthrough the app ends TLS itself, so it cannot be asked by HTTP and this is ignored",
                "take this label away, or end TLS here with ssl_cert",
            );
            return None;
        }
        let is_path = found.value.starts_with('/')
            && found.value.len() <= PATH_MAX
            && found.value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !is_path {
            let wrong = Wrong {
                problem: format!("{} is no path", value::quote(found.value)),
                remedy: format!(
                    "write a path that begins with /, of visible ASCII characters without #, at most {PATH_MAX}"
                ),
            };
            self.report_ignored_value(&found, wrong, "tasks are not asked");
        }
        let checks = ActiveChecks {
            path: String::from(found.value),
            host: first_host(self).or_else(|| self.wildcard_suffix()),
            interval_ms: self.probe_interval(),
            timeout_ms: self
                .time_or("probe_timeout", 1, CONNECT_MS_MAX, "2s hold")
                .unwrap_or(TIMEOUT_MS),
            statuses: self.probe_statuses(),
        };
        is_path.then_some(checks)
    }

    /// A name below the first wildcard is unknown; what it covers is as good as any.
    fn wildcard_suffix(&self) -> Option<String> {
        let found = self.find("hosts")?;
        value::list(found.value).find_map(|item| {
            let host = value::host(item).ok()?.pattern;
            host.wildcard_suffix().map(String::from)
        })
    }

    fn probe_interval(&mut self) -> u32 {
        let Some(ms) = self.time_or("probe_interval", 1, TIME_MS_MAX, "5s hold") else {
            return INTERVAL_MS;
        };
        if ms < INTERVAL_MS_MIN
            && let Some(found) = self.find("probe_interval")
        {
            let wrong = Wrong {
                problem: String::from("this is shorter than probe_interval may be (100ms)"),
                remedy: String::from("write at least 100ms: every proxy asks every task so often"),
            };
            self.report_ignored_value(&found, wrong, "5s hold");
            return INTERVAL_MS;
        }
        ms
    }

    fn probe_statuses(&mut self) -> Vec<StatusRange> {
        let Some(found) = self.find("probe_status") else {
            return Vec::new();
        };
        let status = |text: &str| text.trim().parse().ok().filter(|status| (100..=599).contains(status));
        let (mut ranges, mut wrong) = (Vec::new(), Vec::new());
        for item in value::list(found.value) {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            match (status(first), status(last)) {
                (Some(first), Some(last)) if first <= last => ranges.push(StatusRange(first, last)),
                _ => wrong.push(Wrong {
                    problem: format!("{} is no status and no range of them", value::quote(item)),
                    remedy: String::from("write statuses such as 204 and ranges such as 200-299"),
                }),
            }
        }
        self.report_items(&found, wrong, "status");
        ranges.sort_unstable();
        ranges.dedup();
        ranges
    }
}
