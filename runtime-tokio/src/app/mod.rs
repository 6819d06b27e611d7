//! The roles: each joins machines of core with the seams (`Net`, `Clock`, `SwarmApi`, `Store`) and runs until it is told to stop.

pub mod controller;
