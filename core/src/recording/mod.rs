//! The flight recorder: what a controller was told and decided, kept for the last minutes, and replayed later.
//!
//! - [`Recorder`]: a ring of segments, each of which begins with the controller's whole state
//! - [`Hide`]: what never gets into it
//! - [`Recording`]: read again, with a word about each line that is wrong
//! - [`Replay`]: the same inputs at the same moments for a controller of today, and where it decides otherwise
//!
//! One JSON object a line: a [`Header`], a [`Checkpoint`](crate::controller::Checkpoint) unless the recording begins with the
//! process, then a [`Line`] for each mutation of the machine. Nothing here reads a clock.

mod decision;
mod hide;
mod lists;
mod read;
mod recorder;
mod replay;
mod step;
mod when;

pub use hide::Hide;
pub(crate) use hide::parcels;
pub use lists::ListLine;
pub use read::{ReadError, Recording};
pub use recorder::{Recorder, RecorderSettings, step_recorded};
pub use replay::Replay;
pub use step::{Recorded, Step};
pub use when::When;

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use crate::controller::{ControllerFact, Me};
use crate::settings::Settings;
use crate::swarm::model::ApiError;
use crate::swarm::world::{Fetch, FetchId};
use crate::time::Instant;

/// The format that is written and read. Grows when an older program would misread what is written.
pub const FORMAT: u32 = 1;

/// First line of a recording: whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`] of who wrote it.
    pub tidegate_recording: u32,
    /// Version of the program that was recorded.
    pub version: String,
    /// When it begins, in nanoseconds since the process started.
    pub from: Instant,
    /// Whether the next line is the state that it begins with; else it begins with the process.
    pub with_state: bool,
    /// Who was recorded, and when the process started in wall time.
    pub me: Me,
    /// Its settings.
    pub settings: Settings,
}

/// One mutation: what the controller was told, and what came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// When, in nanoseconds since the process started.
    pub at: Instant,
    /// Lists are told whole from here on.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub fresh: bool,
    /// What it was told.
    pub told: Told,
    /// What it decided, as text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decided: Vec<String>,
    /// What it waited for after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<(Instant, String)>,
}

/// What the controller was told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// Anything but the answer to a fetch.
    Fact(ControllerFact),
    /// That a fetch failed.
    Failed {
        /// Which.
        id: FetchId,
        /// What was asked.
        fetch: Fetch,
        /// Why.
        error: ApiError,
    },
    /// The answer to a fetch.
    List(ListLine),
    /// That what it waited for is due.
    Timeout,
}
