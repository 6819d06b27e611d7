//! Keeps the last minutes of a controller, bounded in bytes.
//!
//! A ring loses its beginning, so it is made of segments: each begins with a checkpoint of the whole machine, and the oldest
//! is dropped as soon as the others reach back far enough, or when there is no room for it. What the recording holds is text
//! already, so that its size is what is counted, and every secret is hidden before it is kept.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::Serialize;

use super::decision::{Noted, note, text};
use super::lists::Lists;
use super::{FORMAT, Header, Hide, Line, Told};
use crate::controller::{Checkpoint, Controller, ControllerAction, ControllerFact, Me};
use crate::machine::{Input, step};
use crate::settings::Settings;
use crate::swarm::model::ApiError;
use crate::swarm::world::WorldFact;
use crate::time::{Deadline, Duration, Instant};

/// Segments that the wanted time is cut into.
const PARTS: u32 = 4;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecorderSettings {
    /// At least this much time, if it fits; at most a quarter more.
    pub span: Duration,
    /// Bytes of text, checkpoints included.
    pub bytes_max: usize,
}

impl RecorderSettings {
    /// Bytes that are kept where nothing else is said.
    pub const BYTES_MAX: usize = 32 * 1024 * 1024;

    /// Everything, for a recording that is made of another one.
    pub const UNBOUNDED: RecorderSettings = RecorderSettings {
        span: Duration::MAX,
        bytes_max: usize::MAX,
    };
}

#[derive(Debug)]
struct Segment {
    from: Instant,
    /// None for the very beginning of a process.
    checkpoint: Option<String>,
    lines: String,
}

impl Segment {
    fn bytes(&self) -> usize {
        self.checkpoint.as_ref().map_or(0, String::len) + self.lines.len()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Recorder {
    limits: RecorderSettings,
    header: Header,
    hide: Hide,
    segments: VecDeque<Segment>,
    lists: Lists,
    /// Whether the next line is the first of its segment.
    fresh: bool,
    /// Why nothing is kept any more.
    given_up: Option<String>,
}

#[derive(Serialize)]
struct CheckpointLine {
    checkpoint: Checkpoint,
}

impl Recorder {
    /// Records a controller of these settings from its next mutation on. `key` hides secrets: random, and told to nobody.
    pub fn new(limits: RecorderSettings, version: &str, me: Me, settings: Settings, key: [u8; 32]) -> Recorder {
        Recorder {
            limits,
            hide: Hide::new(key, &settings),
            header: Header {
                tidegate_recording: FORMAT,
                version: version.to_string(),
                from: Instant::START,
                with_state: false,
                me,
                settings,
            },
            segments: VecDeque::new(),
            lists: Lists::default(),
            fresh: true,
            given_up: None,
        }
    }

    /// Why nothing is kept any more, if that is so.
    pub fn given_up(&self) -> Option<&str> {
        self.given_up.as_deref()
    }

    /// Bytes that are kept now.
    pub fn bytes(&self) -> usize {
        self.segments.iter().map(Segment::bytes).sum()
    }

    /// All that is kept, as the lines of a file.
    ///
    /// # Errors
    /// Why there is nothing: the controller's state alone is too large for the limit.
    pub fn recording(&self) -> Result<String, String> {
        if let Some(why) = &self.given_up {
            return Err(why.clone());
        }
        let first = self.segments.front();
        let header = Header {
            from: first.map_or(Instant::START, |segment| segment.from),
            with_state: first.is_some_and(|segment| segment.checkpoint.is_some()),
            ..self.header.clone()
        };
        let mut out = String::with_capacity(self.bytes() + 4096);
        out.push_str(&json(&header));
        if let Some(checkpoint) = first.and_then(|segment| segment.checkpoint.as_ref()) {
            out.push_str(checkpoint);
        }
        for segment in &self.segments {
            out.push_str(&segment.lines);
        }
        Ok(out)
    }

    /// Begins a segment where it is time, from the state of `machine` before its next mutation.
    fn prepare(&mut self, machine: &Controller, now: Instant) {
        let part = self.limits.bytes_max / PARTS as usize;
        let is_due = self.segments.back().is_none_or(|last| {
            now.since(last.from) >= self.limits.span / PARTS
                // Else most of the room would go to checkpoints.
                || last.lines.len() >= part.max(last.checkpoint.as_ref().map_or(0, String::len))
        });
        if !is_due {
            return;
        }
        let checkpoint = (!machine.is_new()).then(|| {
            let checkpoint = machine.checkpoint(&self.hide);
            json(&CheckpointLine { checkpoint })
        });
        if checkpoint
            .as_ref()
            .is_some_and(|text| text.len() > self.limits.bytes_max / 2)
        {
            self.given_up = Some(format!(
                "the controller's state alone has {} bytes, more than half of the {} that a recording may have",
                checkpoint.map_or(0, |text| text.len()),
                self.limits.bytes_max
            ));
            self.segments.clear();
            return;
        }
        self.segments.push_back(Segment {
            from: now,
            checkpoint,
            lines: String::new(),
        });
        self.lists = Lists::default();
        self.fresh = true;
    }

    /// Drops what is too old or has no room.
    fn trim(&mut self, now: Instant) {
        let oldest = now - self.limits.span;
        while self.segments.len() > 1
            && (self.bytes() > self.limits.bytes_max
                || self.segments.get(1).is_some_and(|second| second.from <= oldest))
        {
            self.segments.pop_front();
        }
        if self.bytes() > self.limits.bytes_max
            && let Some(only) = self.segments.front()
        {
            self.given_up = Some(format!(
                "the last {} s alone are more than the {} bytes that a recording may have",
                now.since(only.from).as_secs(),
                self.limits.bytes_max
            ));
            self.segments.clear();
        }
    }

    fn told(&mut self, machine: &Controller, input: &Input<ControllerFact>) -> Told {
        match input {
            Input::Timeout => Told::Timeout,
            Input::Fact(ControllerFact::World(WorldFact::Answer { id, result })) => {
                let mut asked = machine.world().flights();
                match (asked.find(|(asked, _)| asked == id), result) {
                    (Some((_, fetch)), Ok(answer)) => Told::List(self.lists.shorten(*id, fetch, answer, &self.hide)),
                    (Some((_, fetch)), Err(error)) => Told::Failed {
                        id: *id,
                        fetch: fetch.clone(),
                        error: error.clone(),
                    },
                    // Nobody waits for it any more, so what it says changes nothing.
                    (None, _) => Told::Fact(ControllerFact::World(WorldFact::Answer {
                        id: *id,
                        result: Err(ApiError::Garbled("this answer came too late".to_string())),
                    })),
                }
            }
            Input::Fact(fact) => Told::Fact(self.hide.fact(fact)),
        }
    }

    fn keep(&mut self, line: &Line) {
        if let Some(segment) = self.segments.back_mut() {
            segment.lines.push_str(&json(line));
        }
    }
}

/// What one mutation came to.
pub(super) struct Observed {
    pub(super) decided: Vec<String>,
    pub(super) next: Option<Deadline>,
}

/// [`step`], and what was decided in it.
pub(super) fn observe(
    machine: &mut Controller,
    hide: &Hide,
    input: Input<ControllerFact>,
    now: Instant,
    mut perform: impl FnMut(ControllerAction),
) -> Observed {
    let mut noted: Vec<Noted> = Vec::new();
    let next = step(machine, input, now, |action| {
        noted.extend(note(&action));
        perform(action);
    });
    let decided = noted.into_iter().map(|noted| text(noted, machine, hide)).collect();
    Observed { decided, next }
}

/// [`step`] of a controller that is recorded. It is recorded from its first mutation on, or from any later one.
pub fn step_recorded(
    machine: &mut Controller,
    recorder: &mut Recorder,
    input: Input<ControllerFact>,
    now: Instant,
    perform: impl FnMut(ControllerAction),
) -> Option<Deadline> {
    if recorder.given_up.is_some() {
        return step(machine, input, now, perform);
    }
    observe_recorded(machine, recorder, input, now, perform).next
}

/// The same, and what was decided.
pub(super) fn observe_recorded(
    machine: &mut Controller,
    recorder: &mut Recorder,
    input: Input<ControllerFact>,
    now: Instant,
    perform: impl FnMut(ControllerAction),
) -> Observed {
    recorder.prepare(machine, now);
    let told = recorder.told(machine, &input);
    let observed = observe(machine, &recorder.hide, input, now, perform);
    let fresh = core::mem::take(&mut recorder.fresh);
    recorder.keep(&Line {
        at: now,
        fresh,
        told,
        decided: observed.decided.clone(),
        next: observed.next.map(|deadline| (deadline.at, deadline.why.to_string())),
    });
    recorder.trim(now);
    observed
}

/// One line of a recording.
fn json<T: Serialize>(value: &T) -> String {
    let mut text = serde_json::to_string(value).expect("facts and states are plain data with text keys");
    text.push('\n');
    text
}
