//! The labels that say which endpoints are sick, and what becomes of them.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Reader;
use super::serving::TIME_MS_MAX;
use crate::labels::value::{self, Wrong};
use crate::route::spec::PassiveChecks;
use crate::route::statuses::ServerErrors;

/// The most that `max_fails` may be.
const FAILS_MAX: u32 = 1_000_000;
const CLUSTERS: &str = "the cluster's setting holds";

impl Reader<'_> {
    /// Row 36.
    pub(super) fn checks(&mut self) -> PassiveChecks {
        PassiveChecks {
            max_fails: self.number("max_fails", FAILS_MAX, CLUSTERS),
            fail_timeout_ms: self.time("fail_timeout", 0, TIME_MS_MAX),
            fail_rate_percent: self.percent("fail_rate"),
            fail_on: self.fail_on(),
            slow_start_ms: self.time_or("slow_start", 1, TIME_MS_MAX, "new tasks get their full share at once"),
        }
    }

    pub(super) fn percent(&mut self, name: &str) -> Option<u32> {
        self.number(name, 100, CLUSTERS)
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
}
