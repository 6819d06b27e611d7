//! `tidegate prove`: a rolling update of a service under load, and what its stack should say so that none of it fails.
//!
//! Decides by what was seen, and sends nothing: [`Account`] counts requests by cause, [`judge`] reads the service's settings,
//! the account and the end of the update, and says which lines of a stack file to write.

mod account;
mod judge;

pub use account::{Account, Cause};
pub use judge::{Advice, Ending, HealthCheck, Seen, Subject, judge};
