//! Waits and never decides: the only crate with tokio, hyper and rustls. What it waits for becomes a fact for
//! `tidegate-core`, and what core answers becomes a socket call here.

pub mod admin;
pub mod app;
pub mod ask;
pub(crate) mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod copy;
#[cfg(feature = "docker")]
pub mod docker;
pub(crate) mod http;
pub mod identity;
pub mod leg;
pub(crate) mod listen;
pub mod net;
pub(crate) mod proxy_protocol;
#[cfg(feature = "docker")]
pub mod roles;
pub mod secrets;
pub(crate) mod stack;
pub mod swarm_api;
pub mod table;
pub mod telemetry;
pub mod tls;
pub(crate) mod upstream;
pub mod worker;
