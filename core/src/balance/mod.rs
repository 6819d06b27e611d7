//! Which of several equally good places a request goes to.
//!
//! Works on positions: candidates come first (the pool knows who may be picked), policy second. Never looks at
//! health, never picks a position that was not offered.

pub mod least_requests;
pub mod rendezvous;
pub mod round_robin;
pub mod shares;
