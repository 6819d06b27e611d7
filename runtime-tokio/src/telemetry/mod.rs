//! What workers tell about themselves: access lines, counts.

pub mod log;
pub mod metrics;
