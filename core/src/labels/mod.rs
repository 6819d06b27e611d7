//! Labels of services to route specs. Pure: same services in any order, same specs.
//!
//! A spec that cannot be right is refused with a [`Diagnostic`] and affects its own service alone.

pub mod diagnostic;

pub use diagnostic::{Diagnostic, Severity};
