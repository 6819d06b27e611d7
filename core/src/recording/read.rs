//! A recording, read again. What is wrong with a file is said with its line.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{FORMAT, Header, Line};
use crate::controller::Checkpoint;

/// A recording whose every line is understood.
#[derive(Debug)]
pub struct Recording {
    /// Whose it is.
    pub header: Header,
    /// The state that it begins with; none where it begins with the process.
    pub checkpoint: Option<Box<Checkpoint>>,
    /// What happened, in order of time.
    pub lines: Vec<Line>,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ReadError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, and what to do.
    pub problem: String,
}

#[derive(Deserialize)]
struct HasCheckpoint {
    checkpoint: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct CheckpointLine {
    checkpoint: Box<Checkpoint>,
}

impl Recording {
    /// Reads a whole file.
    ///
    /// # Errors
    /// The first line that is wrong, and why.
    pub fn read(text: &str) -> Result<Recording, ReadError> {
        let ends_whole = text.ends_with('\n');
        let mut lines = text.lines().zip(1..).peekable();
        let fail = |line: usize, problem: String| Err(ReadError { line, problem });
        let Some((first, _)) = lines.next() else {
            return fail(
                1,
                "the file is empty: was the controller started with --record?".to_string(),
            );
        };
        let header = header(first).map_err(|problem| ReadError { line: 1, problem })?;
        let mut checkpoint = None;
        let has_checkpoint =
            |text: &str| serde_json::from_str(text).is_ok_and(|has: HasCheckpoint| has.checkpoint.is_some());
        if let Some((text, line)) = lines.next_if(|(text, _)| has_checkpoint(text)) {
            match serde_json::from_str::<CheckpointLine>(text) {
                Ok(read) => checkpoint = Some(read.checkpoint),
                Err(error) => {
                    return fail(
                        line,
                        format!("the state that the recording begins with cannot be read: {error}"),
                    );
                }
            }
        }
        if header.with_state && checkpoint.is_none() {
            return fail(
                2,
                "the state that the recording begins with is missing: keep the file's first lines".to_string(),
            );
        }
        let mut read: Vec<Line> = Vec::new();
        while let Some((text, line)) = lines.next() {
            match serde_json::from_str::<Line>(text) {
                Ok(next) if read.last().is_some_and(|last| last.at > next.at) => {
                    return fail(
                        line,
                        "this is earlier than the line before: lines must be in order of time".to_string(),
                    );
                }
                Ok(next) => read.push(next),
                Err(error) if error.is_eof() || (lines.peek().is_none() && !ends_whole) => {
                    return fail(
                        line,
                        "the file was cut off in the middle of this line: take it again, or delete this line"
                            .to_string(),
                    );
                }
                Err(error) => return fail(line, format!("this is no line of a recording: {error}")),
            }
        }
        Ok(Recording {
            header,
            checkpoint,
            lines: read,
        })
    }
}

fn header(text: &str) -> Result<Header, String> {
    #[derive(Deserialize)]
    struct Format {
        tidegate_recording: u32,
    }
    let what = "this is no recording: its first line is {\"tidegate_recording\":1,…}, as GET /recording of a controller gives it";
    let Ok(Format { tidegate_recording }) = serde_json::from_str(text) else {
        return Err(what.to_string());
    };
    if tidegate_recording != FORMAT {
        return Err(format!(
            "the recording has format {tidegate_recording}, and this program reads format {FORMAT}: replay it with the \
             version that made it"
        ));
    }
    serde_json::from_str(text).map_err(|error| format!("the header cannot be read: {error}"))
}
