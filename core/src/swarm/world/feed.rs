//! The feed: changes of tasks as they happen, from SwarmKit's watch (facts §9), where the operator asked for it.
//!
//! As an event, what it tells is a reason to look and changes nothing by itself, so it can make the model fresher and never
//! wrong. What it buys is that nobody has to poll: while it is open, tasks of changing services are looked at when it tells of
//! a change that bears on requests, and else rarely.
//!
//! It is never believed to be alive because it is open: without a leader or with a frozen manager it is silent. A list that
//! shows a task newer than all that the feed told is a debt; if the feed does not tell of it in time it is closed, tasks are
//! polled as without it, and it is opened again after a pause that grows. A feed that can be resumed tells what it missed;
//! else all tasks are listed once.

#[cfg(test)]
mod tests;

use alloc::string::{String, ToString};

use serde::{Deserialize, Serialize};

use super::stream::{Pauses, Stream, Whys};
use super::{Lane, StreamId, World, WorldAction};
use crate::id::Version;
use crate::swarm::model::{ApiError, EventAction, FeedEnd, Task, TaskEvent};
use crate::time::{Deadline, Duration, Instant};

/// A feed that is not there comes with a changed mount or a promotion: both are rare.
const ABSENT: Pauses = Pauses {
    min: Duration::from_secs(5),
    max: Duration::from_secs(60),
};
/// One that was silent is no use, however often it opens.
const SILENT: Pauses = Pauses {
    min: Duration::from_secs(1),
    max: Duration::from_secs(60),
};
/// A feed that fails so often in a row is not there, whatever it says.
const FAILURES_TOLD: u32 = 5;
const WHYS: Whys = Whys {
    opens: "the feed is opened",
    is_lost: "opening the feed counts as lost",
};

/// What the world knows of the feed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Feed {
    pub(super) stream: Stream,
    /// The newest version that was told: where to resume.
    told: Option<Version>,
    /// Whether the present stream was asked to resume.
    resumes: bool,
    /// Since when nothing was missed, but for the time from a close to the next opening.
    unbroken: Option<Instant>,
    /// The newest version in the first whole list after the opening: what is newer must be told.
    listed: Option<Version>,
    /// A list showed this version then, and the feed has not told of it.
    owed: Option<(Version, Instant)>,
    /// Why it is not there, if it is not.
    absent: Option<String>,
}

impl Feed {
    /// Whether it is open, and nothing speaks against its being alive.
    fn is_trusted(&self) -> bool {
        self.stream.is_open() && self.owed.is_none()
    }
}

impl World {
    /// Whether task changes are pushed.
    pub fn is_fed(&self) -> bool {
        self.settings.feed && self.feed.stream.is_open()
    }

    /// Why the feed that is wanted is not there; none while it is, or before that is known.
    pub fn feed_absence(&self) -> Option<&str> {
        self.feed.absent.as_deref()
    }

    /// The feed that is open or being opened.
    pub fn feed(&self) -> Option<StreamId> {
        self.feed.stream.id()
    }

    /// Whether the next look at a changing service may wait for the feed.
    pub(super) fn may_wait_for_feed(&self) -> bool {
        self.settings.feed && self.feed.is_trusted()
    }

    /// Whether every change of tasks since the list that was asked for at `fresh_at` is known or looked for.
    pub(super) fn feeds_since(&self, fresh_at: Instant) -> bool {
        self.may_wait_for_feed()
            && self.feed.unbroken.is_some_and(|unbroken| unbroken <= fresh_at)
            && !self.watch.is_wanted()
    }

    pub(super) fn open_feed(&mut self, now: Instant) {
        if !self.settings.feed {
            return;
        }
        if let Some(id) = self.feed.stream.begin(&mut self.next_stream, now) {
            self.feed.resumes = self.feed.told.is_some();
            self.actions.push_back(WorldAction::OpenFeed {
                id,
                resume_from: self.feed.told,
            });
        }
    }

    pub(super) fn handle_feed_opened(&mut self, id: StreamId, now: Instant) {
        if !self.feed.stream.opened(id, now) {
            return;
        }
        self.counters.feeds += 1;
        self.feed.absent = None;
        self.feed.listed = None;
        self.feed.owed = None;
        if !self.feed.resumes {
            self.feed.unbroken = Some(now);
            self.want(Lane::Tasks, now);
        }
    }

    pub(super) fn handle_feed_closed(&mut self, id: StreamId, end: &FeedEnd, now: Instant) {
        let usual = Pauses {
            min: self.settings.retry_min,
            max: self.settings.retry_max,
        };
        let pauses = match end {
            FeedEnd::Broken(_) | FeedEnd::Gap(_) => usual,
            FeedEnd::NotThere(_) => ABSENT,
        };
        if !self.feed.stream.closed(id, pauses, self.settings.retry_max, now) {
            return;
        }
        match end {
            FeedEnd::Broken(_) if self.feed.stream.failures() < FAILURES_TOLD => {}
            FeedEnd::Broken(_) => self.feed.absent = Some(end.to_string()),
            FeedEnd::Gap(_) => {
                self.feed.told = None;
                self.feed.unbroken = None;
            }
            FeedEnd::NotThere(why) => self.feed.absent = Some(why.to_string()),
        }
        self.poll_instead(now);
    }

    /// What the feed was to push is looked for again.
    fn poll_instead(&mut self, now: Instant) {
        self.feed.owed = None;
        self.watch.hurry(now);
    }

    /// The manager answers anew, so the feed may be there too.
    pub(super) fn retry_feed(&mut self, now: Instant) {
        if self.feed.absent.is_some() {
            self.feed.stream.retry(now);
        }
    }

    pub(super) fn handle_feed_events(&mut self, events: &[TaskEvent], now: Instant) {
        self.feed.stream.prove(self.settings.retry_max, now);
        for event in events {
            self.counters.feed_events += 1;
            self.feed.told = self.feed.told.max(Some(event.version));
            self.handle_task_event(event, now);
        }
        if self.feed.owed.is_some_and(|(owed, _)| self.feed.told >= Some(owed)) {
            self.feed.owed = None;
        }
    }

    fn handle_task_event(&mut self, event: &TaskEvent, now: Instant) {
        // Tasks of a service that is not listed yet are looked at with it; those of one that is gone do not matter.
        if !self.services.contains_key(&event.service) {
            return;
        }
        let known = self.tasks.get(&event.service).and_then(|tasks| tasks.get(&event.task));
        let bears = if event.action == EventAction::Remove {
            if known.is_some() {
                self.absent.tasks.explain(event.task.clone());
            }
            known.is_some_and(|task| !task.is_over())
        } else {
            known.is_none_or(|task| task.version < event.version) && bears_on_requests(known, event)
        };
        if bears {
            let at = now + self.settings.coalesce;
            self.watch.nudge(&event.service, now, at, &self.settings);
        }
    }

    /// Takes note of the newest version in a list of tasks, which the feed must know too.
    pub(super) fn compare_with_feed(&mut self, newest: Option<Version>, whole: bool, sent: Instant, now: Instant) {
        let Some(since) = self.feed.stream.open_since().filter(|_| self.settings.feed) else {
            return;
        };
        match self.feed.listed {
            None if whole && sent >= since => self.feed.listed = newest.or(Some(Version(0))),
            None => {}
            Some(listed) => {
                let told = self.feed.told.max(Some(listed));
                if newest > told && self.feed.owed.is_none() {
                    self.feed.owed = newest.map(|newest| (newest, now));
                }
            }
        }
    }

    /// Closes a feed that owes an answer, or never gave one to being opened.
    pub(super) fn handle_feed_timeout(&mut self, now: Instant) {
        if let Some(id) = self.feed.stream.lost(self.settings.answer_limit, now) {
            let late = ApiError::Unreachable("no answer in time".to_string());
            self.handle_feed_closed(id, &FeedEnd::Broken(late), now);
        }
        let silent = self
            .feed
            .owed
            .filter(|(_, since)| *since + self.settings.feed_grace <= now);
        if silent.is_some()
            && let Some(id) = self.feed.stream.id()
        {
            self.counters.feed_silences += 1;
            // However long it was open: it told nothing.
            self.feed.stream.closed(id, SILENT, Duration::MAX, now);
            self.poll_instead(now);
        }
    }

    pub(super) fn feed_deadline(&self) -> Option<Deadline> {
        if !self.settings.feed {
            return None;
        }
        let owed = self.feed.owed.map(|(_, since)| Deadline {
            at: since + self.settings.feed_grace,
            why: "a silent feed is closed",
        });
        Deadline::earliest(self.feed.stream.deadline(self.settings.answer_limit, WHYS), owed)
    }
}

/// Whether requests may notice: on its way to running a task changes six times, of which only the last matters.
fn bears_on_requests(known: Option<&Task>, event: &TaskEvent) -> bool {
    let [serves, leaves, is_over] = [event.is_serving(), event.is_leaving(), event.is_over()];
    match known {
        // A task that serves has its ports only then.
        Some(known) => serves || leaves != known.is_leaving() || is_over != known.is_over() || known.is_serving(),
        None => serves || leaves,
    }
}
