//! Legs: how a proxy reaches tasks on a network that it is not on, without joining it.
//!
//! [`serve`] is the leg itself (`tidegate leg`), a process on one such network; [`net`] is the proxy's side. They meet at a
//! unix socket in a folder that both have. The leg connects and hands the socket over (`SCM_RIGHTS`): from then on it has no
//! part in the connection, which outlives it. What they say to each other is `core::leg`.

pub mod net;
mod pass;
pub mod serve;

use std::fmt;
use std::path::{Path, PathBuf};

use tidegate_core::id::NetworkId;
use tidegate_core::leg::subnet;
use tidegate_core::route::allow::IpRange;

/// Where the leg of a network listens.
fn socket_path(folder: &Path, network: &NetworkId) -> PathBuf {
    folder.join(format!("{network}.sock"))
}

/// The ranges of the networks that this process is on.
pub fn own_networks() -> Vec<IpRange> {
    // One of the two files is missing where the kernel lacks that protocol.
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    subnet::own_networks(&read("/proc/net/route"), &read("/proc/net/ipv6_route"))
}

/// No leg of this network answers: nothing was tried, and the endpoint is not to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoLeg {
    network: NetworkId,
    why: String,
}

impl fmt::Display for NoLeg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no leg of the network {} answers: {}", self.network, self.why)
    }
}

impl std::error::Error for NoLeg {}
