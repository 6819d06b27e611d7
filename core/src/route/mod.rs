//! Specs to an immutable route table, and the answer for one request.

pub mod spec;
