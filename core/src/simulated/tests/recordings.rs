//! Recordings of a real Swarm beside the simulated one: the same commands at the same moments, on many seeds. What the
//! lists then show comes in the same order, each thing as long after its cause as there, within limits that each test
//! states in milliseconds.

/// The text of a recording.
macro_rules! recording {
    ($name:literal) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../docker-source/tests/fixtures/recordings/",
            $name,
            ".jsonl"
        ))
    };
}

mod availability;
mod crash;
mod health;
mod history;
mod leader;
mod losses;
mod restart;
mod rotation;
mod scale;
mod scene;
mod story;
mod updates;

use super::*;

/// Lists of the recordings were read this often.
const POLL_MS: u64 = 25;
/// Each recording is compared with as many lives of the simulated Swarm.
const SEEDS: u64 = 30;
