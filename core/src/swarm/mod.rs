//! What Docker says about the Swarm, as plain data, and the model that is folded from it.

pub mod model;
pub mod world;
