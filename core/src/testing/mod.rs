//! For tests: sample facts, proptest strategies and naive oracles. Shared with the simulation through the feature
//! `testing`; no part of the product.

pub mod naive;
pub mod sample;
pub mod strategies;
