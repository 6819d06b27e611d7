//! The endpoints behind a route, as one worker sees them.
//!
//! Decides which endpoint takes a request, whether a request without endpoint waits or fails, whether it may be tried
//! again, and which endpoints are out of rotation and for how long. Never connects: it says what to probe and learns
//! what came of it.
//!
//! # Policy
//!
//! An endpoint is in one of five states, and [`state::next`] is the one table of their transitions:
//!
//! - **ready**: takes requests.
//! - **ejected**: answered wrongly or too late [`PoolPolicy::max_fails`] times within [`PoolPolicy::fail_timeout`], and rests
//!   for that long; or far more often than the others ([`outlier`]), and rests for a time that grows. Never the last ready
//!   endpoint of its pool, and never more than [`PoolPolicy::eject_max_percent`] of it: an endpoint that answers badly is
//!   better than none.
//! - **probation**: nobody is home (its connection was refused or timed out). It is probed in the background, 50 ms later
//!   and then with pauses that double up to 1 s, and is ready again with the first connection. This holds for an endpoint that never
//!   accepted a connection at its first failure, for the only endpoint of a pool likewise (its requests park for the
//!   moment rather than fail), and for others after `max_fails` failures.
//!   So is one that fails its active checks ([`prober`]), until it passes them; connections say nothing about it then.
//! - **last resort**: was told to stop and its app does not know yet. Serves only while its pool has nothing better.
//! - **leaving**: takes nothing, finishes what it has. So does one that no table has any more, until nothing is under way there:
//!   requests that wait for it may doubt it still, as its node may be lost.
//!
//! Connect failures and bad answers are kept apart because the first says that retrying is harmless and probing tells
//! the truth, while for the second only time does.
//!
//! **Panic**: where fewer endpoints than [`PoolPolicy::panic_threshold_percent`] of the pool are ready, those that rest are
//! used as if they were ready, and so are those that take connections and fail their active checks, since the few that are
//! left would break under the load of all. Endpoints that take no connections are not: a connection to nobody serves no
//! request, and the probe says within a second who is back.
//!
//! Where services of a pool have weights, the service is drawn first, by weight, and then one of its endpoints: so a
//! service has its share whatever the number and speed of its tasks. A request with a key (a cookie's value, a client's
//! address) goes to the endpoint that its key finds among those that are ready, so a client whose endpoint is out for a
//! while is served by the next one and comes back.
//!
//! An endpoint that comes in beside others that are ready grows to its full share over [`ServicePolicy::slow_start`]; see
//! [`slow_start`].
//!
//! # Invariants
//!
//! Tokens are never used twice, and an outcome for a token that is gone is ignored. Ejected endpoints that are alone
//! after all (the others left) are used. Whoever is ejected leaves another one ready and keeps to the share. The number of parked requests never exceeds its bound, nor the
//! number of requests under way at an endpoint the limit of its service; of requests that wait for a place, none overtakes.

pub mod budget;
pub mod endpoint;
pub mod outlier;
pub mod parking;
pub mod pick;
pub mod policy;
#[expect(clippy::module_inception, reason = "the machine this module is about")]
pub mod pool;
pub mod prober;
pub mod slow_start;
pub mod state;
mod window;

pub use endpoint::{EndpointKey, EndpointView, Member, Token};
pub use parking::Ticket;
pub use pick::{Pick, Picked, Unavailable};
pub use policy::{PoolPolicy, ServicePolicy};
pub use pool::{Action, Fact, Outcome, Pool, PoolCounters};
pub use state::State;
