//! The roles: each joins machines of core with the seams (`Net`, `Clock`, `SwarmApi`, `Store`) and runs until it is told to stop.

pub mod admin;
pub mod controller;
pub mod file;
pub mod proxy;
