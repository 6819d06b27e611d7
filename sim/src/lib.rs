//! Lies about the world: the real controller and the real proxies over a simulated network, beside a simulated Swarm
//! and simulated time, all of it drawn from one seed.
//!
//! - [`seed`]: many seeds, each on a thread of its own, and the command that replays one
//! - [`world`]: one simulation: its hosts, its Swarm, its clock, and the plain verbs a test is written in
//! - [`shared`]: what its hosts share
//! - [`net`]: turmoil's sockets behind Tidegate's own seam
//! - [`docker`], `engine`: the API of a manager, with delays, errors and gaps; managers that are stopped or cut off
//! - [`backend`], [`client`], `streams`: apps that answer, users that ask, users that hold connections open
//! - [`contract`]: what Docker is relied on for, as assertions for a real Swarm too
//! - [`product`]: hosts that run Tidegate's controllers and proxies
//! - [`oracle`]: a naive model of who should answer what, fed by the same facts
//! - [`witness`]: what really happened, for the oracle
//! - `processes`: what the Swarm's actions do to hosts
//! - [`pki`]: certificates that users trust
//! - `bounds`, `lines`: what a proxy may hold at most, and what it keeps open to tasks, for the witness
//! - [`faults`], [`walls`], `trouble`, `gate`, `reset`: what may go wrong: the API's moods, drawn from the seed; verbs for stories;
//!   frozen processes, connections that are reset
//! - [`scenario`]: whole stories with a name, for `cargo sim` and for the tests
//! - [`sweep`], [`marks`], [`shrink`], [`mutants`]: many seeds, the rare paths they took, a failing story with fewer acts,
//!   planted faults
//! - [`trace`]: everything that happened, in order, with a digest
//!
//! The same seed gives the same trace, in another process too.

#[cfg(not(any(tokio_unstable, doc)))]
compile_error!(
    "simulations need `--cfg tokio_unstable`, which lets turmoil seed tokio's own choices. \
     .cargo/config.toml sets it, and a RUSTFLAGS in the environment silently replaces that: \
     unset RUSTFLAGS, or add `--cfg tokio_unstable` to it"
);

pub mod backend;
mod bounds;
pub mod client;
pub mod contract;
pub mod docker;
mod engine;
pub mod faults;
mod gate;
mod lines;
pub mod marks;
pub mod mutants;
pub mod net;
pub mod oracle;
mod panics;
pub mod pki;
mod processes;
pub mod product;
mod recordings;
mod repeats;
mod reset;
pub mod scenario;
pub mod seed;
pub mod shared;
pub mod shrink;
mod streams;
pub mod sweep;
pub mod trace;
mod trouble;
pub mod walls;
pub mod witness;
pub mod world;
