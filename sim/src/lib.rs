//! Lies about the world: the real controller and the real proxies over a simulated network, beside a simulated Swarm
//! and simulated time, all of it drawn from one seed.
//!
//! - [`seed`]: many seeds, each on a thread of its own, and the command that replays one
//! - [`world`]: one simulation: its hosts, its Swarm, its clock, and the plain verbs a test is written in
//! - [`shared`]: what its hosts share
//! - [`net`]: turmoil's sockets behind Tidegate's own seam
//! - [`docker`]: the API of a manager, with delays, errors and gaps
//! - [`backend`], [`client`]: apps that answer and users that ask
//! - [`product`]: hosts that run Tidegate's controllers and proxies
//! - [`oracle`]: a naive model of who should answer what, fed by the same facts
//! - [`faults`]: what may go wrong, drawn from the seed
//! - [`scenario`]: whole stories with a name, for `cargo sim` and for the tests
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
pub mod client;
pub mod docker;
pub mod faults;
pub mod net;
pub mod oracle;
pub mod product;
pub mod scenario;
pub mod seed;
pub mod shared;
pub mod trace;
pub mod world;
