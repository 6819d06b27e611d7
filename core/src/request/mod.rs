//! One request, from its head to the words that say why it failed.
//!
//! Decides what a head must be to be served at all, which host it is for, which headers its copy upstream carries,
//! whether it may be tried again, and which status an error becomes. Works on borrowed text and knows no HTTP library;
//! never reads a body.
//!
//! # One parser's view decides
//!
//! What two parsers could read differently is refused, never mended (RFC 9112 §11.2). Part of it is done by hyper before
//! a head gets here, and tested end to end in `runtime-tokio/tests/proxy/smuggling.rs`: bare line ends within names, obs-fold,
//! space before a colon, several differing or malformed `Content-Length`, a `Transfer-Encoding` in HTTP/1.0 or one that does
//! not end in `chunked`, chunk sizes that overflow. This module adds: `Content-Length` beside `Transfer-Encoding`, codings
//! other than `chunked`, hosts that are missing, doubled, malformed, or differ from `:authority`, and `h2c` upgrades.

pub mod affinity;
pub mod authority;
pub mod basic;
pub mod compress;
pub mod fault;
pub mod forwarded;
pub mod framing;
pub mod hop;
pub mod origin;
pub mod retry;
