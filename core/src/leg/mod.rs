//! What a proxy and the leg of a network say to each other, and which addresses are a leg's to dial.
//!
//! A leg opens TCP connections inside its network, and resolves names there, for proxies that are not on it. One question
//! and one answer per connection of their unix socket; a connected socket travels beside the answer. A leg trusts nobody:
//! what is not inside its own network is refused, whoever asks.

pub mod message;
pub mod subnet;

pub use message::{Answer, Parsed, Question, Refused};
