//! Keeping the services that Tidegate owns as the settings want them: one update in flight, by compare-and-swap.
//!
//! [`proxy`], [`leg`] and [`courier`] say how their services should look, [`plan`] what of that is written (a field that an operator changed
//! since stays theirs), [`machine`] when: one write at a time, network changes in batches, never the same refused write
//! in a loop. There is no leader: every controller computes the same and a lost race is a reason to look again.

pub mod courier;
pub mod desired;
mod facts;
pub mod leg;
pub mod machine;
pub mod plan;
pub mod proxy;
