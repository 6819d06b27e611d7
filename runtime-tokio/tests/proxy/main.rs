//! The data plane over loopback sockets: real clients, a real worker, real apps. Nothing here sleeps: tests wait for what
//! they expect, with a limit.

mod affinity;
mod auth;
mod clients;
mod compress;
mod drain;
mod endpoints;
mod failing;
mod harness;
mod headers;
mod labels;
mod legs;
mod limits;
mod outliers;
mod probes;
mod protocols;
mod queueing;
mod retries;
mod smuggling;
mod streaming;
mod tls;
mod upgrade;
