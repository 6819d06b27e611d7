//! Speaks Docker: answers of the Engine API to facts, reconcile actions to API calls. It decides nothing.
//!
//! bollard builds and reads the plain calls. What its models cannot do is done on the JSON itself, on the same
//! connection: one unknown enum value makes bollard refuse a whole list, and a service that is read into its models and
//! written back loses every field that they do not know. See [`wire`] and [`shape`].
//!
//! - [`client`]: connections, version negotiation, one method per call
//! - [`wire`], [`convert`], [`shape`]: JSON to facts and back; pure
//! - [`watch`]: the event stream
//! - [`feed`], [`swarmkit`], [`grpc`]: SwarmKit's watch of tasks, where it is wanted
//! - [`prove`]: what `tidegate prove` asks and does
//! - [`error`]: what went wrong, in the words of core

mod apply;
pub mod client;
pub mod convert;
pub mod error;
mod feed;
mod grpc;
pub mod prove;
pub mod shape;
mod swarmkit;
mod transport;
mod watch;
pub mod wire;

pub use client::Docker;
