//! A set of server errors (RFC 9110 §15.6): what an app may answer that counts as its failure.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

const FIRST: u16 = 500;
const LAST: u16 = 599;

/// Statuses from 500 to 599. Other statuses are the client's fault or nobody's, and cannot be in it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<u16>", into = "Vec<u16>")]
pub struct ServerErrors(u128);

impl ServerErrors {
    /// Adds a status; false, and nothing added, where it is none from 500 to 599.
    pub fn insert(&mut self, status: u16) -> bool {
        let Some(bit) = bit(status) else { return false };
        self.0 |= bit;
        true
    }

    /// Whether the status is in it.
    pub fn contains(self, status: u16) -> bool {
        bit(status).is_some_and(|bit| self.0 & bit != 0)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// The statuses, ascending.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        (FIRST..=LAST).filter(move |status| self.contains(*status))
    }
}

fn bit(status: u16) -> Option<u128> {
    (FIRST..=LAST).contains(&status).then(|| 1 << (status - FIRST))
}

impl From<Vec<u16>> for ServerErrors {
    /// Leaves out what is no server error: a newer controller may allow more.
    fn from(statuses: Vec<u16>) -> Self {
        let mut set = ServerErrors::default();
        for status in statuses {
            set.insert(status);
        }
        set
    }
}

impl From<ServerErrors> for Vec<u16> {
    fn from(set: ServerErrors) -> Self {
        set.iter().collect()
    }
}

impl fmt::Display for ServerErrors {
    /// `502, 503`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statuses: Vec<String> = self.iter().map(|status| alloc::format!("{status}")).collect();
        f.write_str(&statuses.join(", "))
    }
}

impl fmt::Debug for ServerErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec;

    use super::*;

    #[test]
    fn only_server_errors_are_in_it() {
        let set = ServerErrors::from(vec![599, 503, 404, 500, 600, 0]);
        assert_eq!(Vec::from(set), [500, 503, 599]);
        assert!(!set.contains(502) && !set.contains(404) && !set.contains(u16::MAX));
        assert_eq!(format!("{set}"), "500, 503, 599");
    }

    #[test]
    fn it_travels_as_a_list_of_numbers() {
        let set = ServerErrors::from(vec![504, 502]);
        let text = serde_json::to_string(&set).expect("it is JSON");
        assert_eq!(text, "[502,504]");
        assert_eq!(
            serde_json::from_str::<ServerErrors>(&text).expect("it was written so"),
            set
        );
    }
}
