//! What is wrong with a secret, said so that its owner can mend it.

use alloc::format;
use alloc::string::String;
use core::fmt;
use serde::{Deserialize, Serialize};

use super::SecretProblem;

/// One finding about one secret. Sorted by the secret's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// The secret's name.
    pub secret: String,
    /// What is wrong, without a full stop. Stays the same as long as its reason does.
    pub problem: String,
    /// What to do.
    pub remedy: String,
    /// Whether it passes by itself in the ordinary course: the secret is on its way.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub passing: bool,
}

impl Finding {
    /// A finding that somebody has to mend.
    pub fn new(secret: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding {
            secret: String::from(secret),
            problem: problem.into(),
            remedy: remedy.into(),
            passing: false,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

impl SecretProblem {
    /// What is wrong with the secret `name`, and what to do.
    pub fn finding(&self, name: &str) -> Finding {
        match self {
            SecretProblem::Missing => Finding::new(
                name,
                format!("there is no secret {name}"),
                "create it, or mend the label; what was there before is used on",
            ),
            SecretProblem::NotText => Finding::new(
                name,
                format!("the secret {name} is not text"),
                "put PEM or other plain text in",
            ),
            SecretProblem::Unreadable(why) => Finding::new(
                name,
                format!("the secret {name} cannot be read: {why}"),
                "make it anew, or mend the label",
            ),
            SecretProblem::Waiting => Finding {
                passing: true,
                ..Finding::new(
                    name,
                    format!("the secret {name} has not been brought yet"),
                    "wait for the courier, which brings it by way of a controller, or see why neither is heard",
                )
            },
        }
    }
}
