//! What a process tells about itself: logs, access lines, counts.

pub mod control;
pub(crate) mod exposition;
pub mod freshness;
pub mod log;
pub mod metrics;
mod pool_sum;
