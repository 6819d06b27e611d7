//! Docker secrets that labels name: certificates, keys and whatever else a route needs that no label may hold.
//!
//! A route says by name what it wants ([`RouteSpec::secrets`](crate::route::spec::RouteSpec::secrets)); the content comes by
//! another way, a folder or the courier, and at another time. Contents are kept in memory alone: a [`SecretText`] has no
//! serialisation but that of [`message`] and shows nothing but its length, so that no log, table, page or recording can hold
//! one by accident.
//!
//! - [`courier`]: reads the mounted secrets, and hands them to every controller
//! - [`Ledger`]: the controller's side: what was brought, and which proxy gets what of it
//! - [`Shelf`]: the proxy's side: what it has of what its table names

pub mod courier;
mod finding;
mod ledger;
pub mod message;
mod shelf;

pub use finding::Finding;
pub use ledger::{CourierStatus, Deliver, Ledger, LedgerState, Wanted};
pub use shelf::Shelf;

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use serde::{Deserialize, Serialize};

/// The longest content, in bytes: Docker's limit of a secret is 500 KB.
pub const SECRET_BYTES_MAX: u64 = 512 * 1024;

/// The content of a secret. Cheap to clone; equal where the bytes are.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Arc<str>);

impl SecretText {
    /// Takes a content.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        SecretText(text.into())
    }

    /// The content itself: for what uses it, never for what shows it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretText({} bytes)", self.0.len())
    }
}

/// Why there is no content, or none that is up to date.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretProblem {
    /// There is no such secret.
    Missing,
    /// It is not UTF-8.
    NotText,
    /// It is there and cannot be read.
    Unreadable(String),
    /// Nobody has brought it yet.
    Waiting,
}

/// What a process has of one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// Another number whenever content or problem are others; never one that this name had before.
    pub version: u64,
    /// The last content that there was. Stays when the secret goes, as long as a route wants it.
    pub content: Option<SecretText>,
    /// Why `content` is missing or not the present one.
    pub problem: Option<SecretProblem>,
}

impl Secret {
    /// The last content that there was, or why there never was any.
    ///
    /// # Errors
    /// Where there never was a content.
    pub fn last_good(&self) -> Result<&SecretText, SecretProblem> {
        self.content
            .as_ref()
            .ok_or_else(|| self.problem.clone().unwrap_or(SecretProblem::Waiting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;

    #[test]
    fn a_content_is_shown_by_its_length_alone() {
        let secret = Secret {
            version: 1,
            content: Some(SecretText::new("-----BEGIN PRIVATE KEY-----")),
            problem: None,
        };
        let shown = format!("{secret:?}");
        assert!(shown.contains("27 bytes") && !shown.contains("PRIVATE"), "{shown}");
    }

    #[test]
    fn every_problem_names_the_secret() {
        let problems = [
            SecretProblem::Missing,
            SecretProblem::NotText,
            SecretProblem::Unreadable("why".to_string()),
            SecretProblem::Waiting,
        ];
        for problem in problems {
            let finding = problem.finding("shop.key").to_string();
            assert!(finding.contains("shop.key"), "{finding}");
        }
    }
}
