//! Changes of header fields on the way, as the labels say. Names and values were checked there: no field that frames a
//! message, ends at this hop or names its host.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// The changes of one route, in the order in which they are made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeaderEdits {
    /// Of requests, before they are forwarded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request: Vec<HeaderEdit>,
    /// Of the app's responses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response: Vec<HeaderEdit>,
}

impl HeaderEdits {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.request.is_empty() && self.response.is_empty()
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeaderEdit {
    /// One more field, whatever there is.
    Add {
        /// Lower case.
        name: String,
        /// Visible ASCII, spaces and tabs.
        value: String,
    },
    /// All fields of this name go.
    Remove {
        /// Lower case.
        name: String,
    },
    /// This field instead of all of its name.
    Set {
        /// Lower case.
        name: String,
        /// Visible ASCII, spaces and tabs.
        value: String,
    },
}

impl fmt::Display for HeaderEdit {
    /// As the label has it: `set x-frame-options DENY`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = |value: &str| match value.contains([';', '"', '\\']) {
            true => format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
            false => value.into(),
        };
        match self {
            HeaderEdit::Add { name, value } => write!(f, "add {name} {}", written(value)),
            HeaderEdit::Remove { name } => write!(f, "remove {name}"),
            HeaderEdit::Set { name, value } => write!(f, "set {name} {}", written(value)),
        }
    }
}
