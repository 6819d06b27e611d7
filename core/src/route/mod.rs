//! Specs to an immutable route table, and the answer for one request.
//!
//! Decides which rule a request falls under and why. Never chooses an endpoint (that is `balance`), never changes a
//! request other than its path. Host first: exact, then the longest wildcard, then the default backend; the first of
//! these that exists decides alone. Then a redirect of that host, then the longest path prefix by whole segments.

pub mod active;
pub mod allow;
pub mod conflict;
pub mod edits;
pub mod explain;
pub mod host;
pub mod path;
pub mod redirect;
pub mod rewrite;
pub mod rule;
pub(crate) mod shards;
pub mod spec;
pub mod statuses;
pub mod table;

pub use conflict::conflicts;
pub use explain::explain;
pub use redirect::{RedirectRule, Scheme};
pub use rewrite::{slash_redirect, strip};
pub use rule::{PoolEndpoint, PoolKey, PoolSpec, Rule, RuleHost, ServiceRef, ServiceShare};
pub use table::{Decision, RouteTable, TlsDecision};

#[cfg(test)]
mod tests;
