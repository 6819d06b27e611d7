//! What controller and proxy say to each other: one JSON object a line, readable with curl.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::id::{ProxyId, Revision, ServiceId};
use crate::snapshot::entry::Digest;

/// The longest line that is read, in bytes: 5000 routes with ten endpoints each are below 10 MB.
pub const LINE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// One line from a controller to a proxy. A kind that the proxy does not know is passed over.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// What changed since the revision before.
    Delta(Delta),
    /// Everything.
    Full(Full),
    /// First line of a connection.
    Hello(Hello),
    /// Nothing changed; the controller is alive. Sent every few seconds.
    Ping(Ping),
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The controller's task.
    pub controller: String,
    /// Its version.
    pub version: String,
}

/// A sign of life, with what the proxy should have by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// The present revision.
    pub revision: Revision,
    /// Its digest.
    pub digest: Digest,
}

/// A whole table. This is also what a proxy stores.
#[derive(Debug, Serialize, Deserialize)]
pub struct Full {
    /// Its number.
    pub revision: Revision,
    /// What led to it, for people.
    pub cause: String,
    /// Digest of settings and routes.
    pub digest: Digest,
    /// Timeouts and limits.
    pub settings: Box<RawValue>,
    /// One spec per service.
    pub routes: Vec<Box<RawValue>>,
}

/// A change of a table.
#[derive(Debug, Serialize, Deserialize)]
pub struct Delta {
    /// Its number: that of the revision before plus one.
    pub revision: Revision,
    /// What led to it, for people.
    pub cause: String,
    /// Digest of the whole table after the change.
    pub digest: Digest,
    /// New settings, if they changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Box<RawValue>>,
    /// Specs that are new or changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<Box<RawValue>>,
    /// Services that are routed no more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub removed: BTreeSet<ServiceId>,
}

/// A proxy's answer to a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Who answers.
    pub proxy: ProxyId,
    /// The revision that is now served.
    pub revision: Revision,
    /// The digest of what was received.
    pub digest: Digest,
    /// Specs of it that this proxy cannot serve: it goes on with what it had for these services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refusal>,
}

/// A spec that a proxy cannot serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The service, by name where it could be read.
    pub service: String,
    /// Why.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ack_of_a_later_version_is_read() {
        let digest: Digest = "07".repeat(32).parse().unwrap();
        let ack = alloc::format!(
            r#"{{"proxy":"p","revision":7,"digest":"{digest}","weather":[1],"refused":[{{"service":"s","reason":"r","code":3}}]}}"#
        );
        let read: Ack = serde_json::from_str(&ack).unwrap();
        let (service, reason) = (String::from("s"), String::from("r"));
        let expected = Ack {
            proxy: ProxyId::from("p"),
            revision: Revision(7),
            digest,
            refused: Vec::from([Refusal { service, reason }]),
        };
        assert_eq!(read, expected);
    }
}
