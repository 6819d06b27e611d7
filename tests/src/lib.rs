//! End-to-end harness: real processes, real sockets, a real multi-node Swarm. It sees the product from outside, as a user
//! does: by its command line, its image, its ports and Docker.

pub mod bench;
pub mod clock;
pub mod command;
pub mod example;
pub mod freshness;
pub mod gate;
pub mod https;
pub mod image;
pub mod legs;
pub mod load;
pub mod product;
pub mod python;
pub mod report;
pub mod scene;
pub mod swarm;
pub mod tidy;
pub mod web;
pub mod zero_loss;
