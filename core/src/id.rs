//! Newtypes for everything that has an identity, so that none is taken for another.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The identity as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                $name(Arc::from(text))
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                $name(Arc::from(text))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

text_id! {
    /// A Swarm service.
    ServiceId
    /// A Swarm task.
    TaskId
    /// A Swarm node.
    NodeId
    /// A Docker network.
    NetworkId
    /// A Docker secret.
    SecretId
    /// Where requests of a pool can go: a task's id, or `vip:<service>:<network>` for a virtual IP.
    EndpointId
    /// A service cluster: a group of proxies with one table. `default` where nothing else is said.
    ClusterName
    /// One running proxy, as it names itself to controllers.
    ProxyId
}

impl ClusterName {
    /// The cluster of services without a `service_cluster` label.
    pub const DEFAULT: &'static str = "default";

    /// The cluster of services without a `service_cluster` label.
    pub fn default_cluster() -> Self {
        ClusterName::from(Self::DEFAULT)
    }
}

/// Docker's `Version.Index` of an object: the Raft index of its last change. Grows with every change, and is the
/// key of compare-and-swap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

/// The number of a table that one controller published for one cluster; counts up from 1 within a controller's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}
