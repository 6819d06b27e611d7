//! What is wrong with a service's labels, said so that its owner can mend it.

use alloc::string::String;
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::swarm::model::Service;

/// One finding about one label of one service.
///
/// Sorted by service, then label, so that lists of findings are the same in any order of services.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Name of the service.
    pub service: String,
    /// The label's whole key, e.g. `com.docker.lb.port`; empty where no single label is at fault.
    pub label: String,
    /// Its value, cut to 200 characters; empty where it is absent.
    pub value: String,
    /// What follows for the service.
    pub severity: Severity,
    /// What is wrong, in one sentence without a full stop.
    pub problem: String,
    /// What to write instead, as an imperative.
    pub remedy: String,
}

/// What a finding means for the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The service's routes are refused.
    Error,
    /// The service is routed; the label or a part of it is ignored or read otherwise than its author may think.
    Warning,
}

impl fmt::Display for Diagnostic {
    /// `error: service shop: com.docker.lb.port = "http": … ; write …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: service {}: ", self.service.escape_debug())?;
        match (self.label.is_empty(), self.value.is_empty()) {
            (true, _) => {}
            (false, true) => write!(f, "{}: ", self.label.escape_debug())?,
            (false, false) => write!(f, "{} = {:?}: ", self.label.escape_debug(), self.value)?,
        }
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

/// Characters of a label's key, and of its value, that a finding repeats.
const TEXT_CHARS_MAX: usize = 200;

impl Diagnostic {
    /// A finding about one label of `service`; key and value are cut to 200 characters.
    pub fn new(
        service: &Service,
        label: &str,
        value: &str,
        severity: Severity,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Diagnostic {
            service: service.name.clone(),
            label: label.chars().take(TEXT_CHARS_MAX).collect(),
            value: value.chars().take(TEXT_CHARS_MAX).collect(),
            severity,
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}
