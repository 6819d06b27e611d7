//! One endpoint of a pool and what the worker remembers of it.

use core::fmt;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

use super::outlier::{Counts, Streak};
use super::state::State;
use super::window::Window;
use crate::balance::rendezvous;
use crate::id::{EndpointId, NetworkId, NodeId};
use crate::route::spec::EndpointSpec;
use crate::time::{Duration, Instant};

/// Names an endpoint within its pool for as long as the pool knows it. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub(super) u64);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// An endpoint that a pool is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it is and whether it leaves.
    pub spec: EndpointSpec,
    /// Position of its service in [`PoolPolicy::services`](super::PoolPolicy::services).
    pub service: usize,
}

impl From<EndpointSpec> for Member {
    /// A member of the first service.
    fn from(spec: EndpointSpec) -> Self {
        Member { spec, service: 0 }
    }
}

/// An endpoint as `explain` and the metrics show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointView {
    /// Which.
    pub id: EndpointId,
    /// Where.
    pub addr: SocketAddr,
    /// On which node, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Its state on this worker.
    pub state: State,
    /// Requests and upgraded connections under way from this worker.
    pub in_flight: u32,
}

/// What makes an endpoint the same one in the next table.
pub type EndpointKey = (EndpointId, SocketAddr, Option<NetworkId>);

#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) token: Token,
    pub(super) id: EndpointId,
    pub(super) addr: SocketAddr,
    /// The network whose leg connects.
    pub(super) via: Option<NetworkId>,
    pub(super) node: Option<NodeId>,
    /// Position of its service in the policy.
    pub(super) service: usize,
    /// Of its id, for clients that are known again.
    pub(super) hash: u64,
    pub(super) state: State,
    /// Whether a connection to it ever succeeded.
    pub(super) proven: bool,
    pub(super) in_flight: u32,
    /// End of the time as last resort.
    pub(super) last_resort_until: Instant,
    /// Probes since it went on probation.
    pub(super) probes: u32,
    pub(super) probe_running: bool,
    /// On probation it is not probed.
    pub(super) unsure: bool,
    /// It fails its active checks.
    pub(super) unfit: bool,
    /// The last connection to it failed.
    pub(super) absent: bool,
    /// When a byte of it or a connection to it was last seen.
    pub(super) heard: Instant,
    /// When it was last asked, in doubt, whether it is still there.
    pub(super) doubted: Option<Instant>,
    /// It does not answer at all: what waits there waits in vain.
    pub(super) vanished: bool,
    /// No table has it any more: it is kept for what is under way there.
    pub(super) gone: bool,
    /// Since when its share grows, where it ever came in beside others.
    pub(super) growing_since: Option<Instant>,
    /// What it answered while it was ready.
    pub(super) answers: Window<Counts>,
    pub(super) streak: Streak,
    /// How long it is to rest when it is ejected.
    pub(super) rest: Duration,
    fails: u32,
    fails_since: Instant,
}

/// Pause before the first probe; doubles with each.
const PROBE_PAUSE: Duration = Duration::from_millis(50);
const PROBE_PAUSE_MAX: Duration = Duration::from_millis(1000);

impl Endpoint {
    pub(super) fn new(token: Token, member: &Member) -> Self {
        let EndpointSpec {
            id,
            addr,
            via,
            node,
            unsure,
            ..
        } = &member.spec;
        Endpoint {
            token,
            hash: rendezvous::hash(id.as_str().as_bytes()),
            id: id.clone(),
            addr: *addr,
            via: via.clone(),
            node: node.clone(),
            service: member.service,
            state: State::Ready,
            proven: false,
            in_flight: 0,
            last_resort_until: Instant::START,
            probes: 0,
            probe_running: false,
            unsure: *unsure,
            unfit: false,
            absent: false,
            heard: Instant::START,
            doubted: None,
            vanished: false,
            gone: false,
            growing_since: None,
            answers: Window::default(),
            streak: Streak::default(),
            rest: Duration::ZERO,
            fails: 0,
            fails_since: Instant::START,
        }
    }

    pub(super) fn key(&self) -> EndpointKey {
        (self.id.clone(), self.addr, self.via.clone())
    }

    /// Counts a failure; the failures within `window`, this one included.
    pub(super) fn count_failure(&mut self, window: Duration, now: Instant) -> u32 {
        if self.fails == 0 || now.since(self.fails_since) > window {
            self.fails = 0;
            self.fails_since = now;
        }
        self.fails += 1;
        self.fails
    }

    pub(super) fn forget_failures(&mut self) {
        self.fails = 0;
    }

    /// It answered something.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.vanished = false;
        self.absent = false;
    }

    /// It takes connections, and is out because it fails its active checks.
    pub(super) fn is_there_but_unfit(&self) -> bool {
        self.state == State::Probation && self.unfit && !self.absent
    }

    /// How long to wait before the next probe.
    pub(super) fn probe_pause(&self) -> Duration {
        PROBE_PAUSE
            .saturating_mul(1 << self.probes.min(10))
            .min(PROBE_PAUSE_MAX)
    }

    pub(super) fn view(&self) -> EndpointView {
        EndpointView {
            id: self.id.clone(),
            addr: self.addr,
            node: self.node.clone(),
            state: self.state,
            in_flight: self.in_flight,
        }
    }
}
