//! Labels of services to route specs. Pure: same services in any order, same specs.
//!
//! Two steps, so that a change of one service re-reads that one alone: [`read`] parses the labels, [`resolve`] adds
//! what Docker says about networks, ports and tasks. A spec that cannot be right is refused with a [`Diagnostic`] and
//! affects its own service alone; so is one with a security setting that cannot be honoured. Every other fault is a
//! warning beside a route that works.

mod backend;
pub mod diagnostic;
mod hrm;
pub mod keys;
pub mod read;
pub mod reference;
pub mod resolve;
mod tls;
pub(crate) mod value;

/// Milliseconds of a time as labels have it, e.g. `500ms` or `1m30s`; a bare number is in seconds. `None` where it is none.
pub fn time_ms(text: &str) -> Option<u64> {
    value::duration_ms(text).ok()
}

pub use diagnostic::{Diagnostic, Severity};
pub use read::{BackendMode, LabelledRoute, Reading, hidden_clients, is_own_service, read, unknown_cluster};
pub use resolve::{Reach, Resolved, resolve};

#[cfg(test)]
mod tests;
