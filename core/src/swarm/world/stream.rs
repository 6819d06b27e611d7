//! One stream of news from Docker: when it is opened, and when it is opened again.
//!
//! The event stream and the feed are such streams. What they tell is the business of others.

use serde::{Deserialize, Serialize};

use super::StreamId;
use super::lane::backoff;
use crate::time::{Deadline, Duration, Instant};

/// See the module. `failures` are those in a row.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stream {
    Closed {
        retry_at: Instant,
        failures: u32,
    },
    Open {
        id: StreamId,
        since: Instant,
        failures: u32,
    },
    Opening {
        id: StreamId,
        since: Instant,
        failures: u32,
    },
}

/// Pauses before a stream is opened again: the first one, and the longest that it doubles to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    pub(super) min: Duration,
    pub(super) max: Duration,
}

/// What a stream waits for, in the words of traces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whys {
    pub(super) opens: &'static str,
    pub(super) is_lost: &'static str,
}

impl Default for Stream {
    fn default() -> Self {
        Stream::Closed {
            retry_at: Instant::START,
            failures: 0,
        }
    }
}

impl Stream {
    /// The stream that is open or being opened.
    pub(super) fn id(&self) -> Option<StreamId> {
        match self {
            Stream::Closed { .. } => None,
            Stream::Open { id, .. } | Stream::Opening { id, .. } => Some(*id),
        }
    }

    /// Since when it is open, if it is.
    pub(super) fn open_since(&self) -> Option<Instant> {
        match self {
            Stream::Open { since, .. } => Some(*since),
            Stream::Closed { .. } | Stream::Opening { .. } => None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open_since().is_some()
    }

    /// Failures in a row.
    pub(super) fn failures(&self) -> u32 {
        let (Stream::Closed { failures, .. } | Stream::Open { failures, .. } | Stream::Opening { failures, .. }) = self;
        *failures
    }

    /// Begins to open it if that is due, under the number `next`, which grows.
    pub(super) fn begin(&mut self, next: &mut u64, now: Instant) -> Option<StreamId> {
        let Stream::Closed { retry_at, failures } = *self else {
            return None;
        };
        if retry_at > now {
            return None;
        }
        let id = StreamId(*next);
        *next += 1;
        *self = Stream::Opening {
            id,
            since: now,
            failures,
        };
        Some(id)
    }

    /// It opened; whether this is news of the present one.
    pub(super) fn opened(&mut self, id: StreamId, now: Instant) -> bool {
        let Stream::Opening { id: ours, failures, .. } = *self else {
            return false;
        };
        if ours != id {
            return false;
        }
        *self = Stream::Open {
            id,
            since: now,
            failures,
        };
        true
    }

    /// It ended, or could not be opened; whether this is news of the present one.
    pub(super) fn closed(&mut self, id: StreamId, pauses: Pauses, lived: Duration, now: Instant) -> bool {
        if self.id() != Some(id) {
            return false;
        }
        self.prove(lived, now);
        let failures = self.failures();
        *self = Stream::Closed {
            retry_at: now + backoff(failures, pauses.min, pauses.max),
            failures: failures.saturating_add(1),
        };
        true
    }

    /// A stream that lived for this long is no failure; one that opens and ends at once is.
    pub(super) fn prove(&mut self, lived: Duration, now: Instant) {
        if let Stream::Open { since, failures, .. } = self
            && now.since(*since) >= lived
        {
            *failures = 0;
        }
    }

    /// An open one is opened anew, at once: it may be dead without having said so.
    pub(super) fn renew(&mut self, now: Instant) {
        if let Stream::Open { failures, .. } = *self {
            *self = Stream::Closed {
                retry_at: now,
                failures,
            };
        }
    }

    /// A closed one is opened at once: what it failed for may be over.
    pub(super) fn retry(&mut self, now: Instant) {
        if let Stream::Closed { retry_at, .. } = self {
            *retry_at = (*retry_at).min(now);
        }
    }

    /// One that has been opening for longer than `limit`.
    pub(super) fn lost(&self, limit: Duration, now: Instant) -> Option<StreamId> {
        match self {
            Stream::Opening { id, since, .. } if *since + limit <= now => Some(*id),
            Stream::Closed { .. } | Stream::Open { .. } | Stream::Opening { .. } => None,
        }
    }

    /// When something is due, and what.
    pub(super) fn deadline(&self, limit: Duration, whys: Whys) -> Option<Deadline> {
        match self {
            Stream::Closed { retry_at, .. } => Some(Deadline {
                at: *retry_at,
                why: whys.opens,
            }),
            Stream::Open { .. } => None,
            Stream::Opening { since, .. } => Some(Deadline {
                at: *since + limit,
                why: whys.is_lost,
            }),
        }
    }
}
