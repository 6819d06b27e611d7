//! Tidegate's decisions.
//!
//! This crate decides and never waits: it knows no socket, task, clock, environment or Docker client. The modules, in
//! the order a fact meets them on its way to a served request:
//!
//! - [`swarm`]: Docker facts as plain data, folded into one model
//! - [`labels`]: labels of services to specs and diagnostics
//! - [`route`]: specs to an immutable table, and the decision for one request
//! - [`request`]: what a request must be, what its copy upstream looks like, whether it may be tried again
//! - [`pool`], [`balance`]: which endpoint takes it, and which are out of rotation
//! - [`leg`]: how a proxy reaches tasks on networks that it is not on
//! - [`reconcile`]: the services that Tidegate owns, as the settings want them
//! - [`snapshot`]: tables on their way from controller to proxies
//! - [`witness`]: what Docker's DNS says while no controller is heard
//! - [`identity`]: certificates of the control network: what there should be and when it is renewed
//! - [`prove`]: what a rolling update under load says about a service's settings
//! - [`source_file`]: routes from a file instead of a Swarm
//! - [`interlock`]: what Interlock has beside what we have
//! - [`controller`]: all of these joined into one machine
//! - [`recording`]: what the controller was told and decided, to be replayed
//! - [`tls`]: the name that a TLS client asks for, and the certificates that routes want
//! - [`secrets`]: Docker secrets that labels name, and what a process has of them
//! - [`settings`]: what the operator sets
//! - [`simulated`]: a whole Swarm as a model, for `tidegate demo` and the simulations
//! - [`machine`], [`time`], [`rng`], [`id`], [`text`]: the vocabulary of all of them
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod balance;
pub mod calendar;
pub mod controller;
pub mod id;
pub mod identity;
pub mod interlock;
pub mod labels;
pub mod leg;
pub mod machine;
pub mod pool;
pub mod prove;
pub mod reconcile;
pub mod recording;
pub mod request;
pub mod rng;
pub mod route;
pub mod secrets;
pub mod settings;
pub mod simulated;
pub mod snapshot;
pub mod source_file;
mod state;
pub mod swarm;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;
pub mod time;
pub mod tls;
pub mod witness;
