//! SwarmKit's watch of a Swarm's tasks: what changed between two looks, and all that changed since a version (facts §9).

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::Swarm;
use crate::id::{TaskId, Version};
use crate::swarm::model::{EventAction, FeedEnd, TaskEvent};

/// The log of a Swarm's changes, as far as it is about tasks. Take a look after each step of the Swarm.
#[derive(Clone, Debug, Default)]
pub struct TaskLog {
    known: BTreeMap<TaskId, TaskEvent>,
    /// Changes with the index at which they were logged, oldest first.
    log: Vec<(Version, TaskEvent)>,
    compacted: Version,
    index: Version,
}

impl TaskLog {
    /// What changed since the last look, oldest first.
    pub fn look(&mut self, swarm: &Swarm) -> Vec<TaskEvent> {
        if swarm.index() == self.index {
            return Vec::new();
        }
        self.index = swarm.index();
        let mut before = core::mem::take(&mut self.known);
        let mut news = Vec::new();
        for record in swarm.tasks.values() {
            let task = &record.task;
            let old = before.remove(&task.id);
            let action = match old {
                Some(_) => EventAction::Update,
                None => EventAction::Create,
            };
            let event = TaskEvent::of(task, action);
            if old.is_none_or(|old| old.version != event.version) {
                news.push(event.clone());
            }
            self.known.insert(event.task.clone(), event);
        }
        news.extend(before.into_values().map(|gone| TaskEvent {
            action: EventAction::Remove,
            ..gone
        }));
        news.sort_by_key(|event| event.version);
        self.log.extend(news.iter().map(|event| (self.index, event.clone())));
        news
    }

    /// All that changed since `from`, oldest first.
    ///
    /// # Errors
    /// [`FeedEnd::Gap`] where the log does not go back that far, or not that far yet.
    pub fn since(&self, from: Version) -> Result<Vec<TaskEvent>, FeedEnd> {
        self.between(from, self.index)
    }

    /// The same as a manager knows it that heard of nothing after `to`.
    ///
    /// # Errors
    /// As there.
    pub fn between(&self, from: Version, to: Version) -> Result<Vec<TaskEvent>, FeedEnd> {
        if from < self.compacted || from > to {
            return Err(FeedEnd::Gap(String::from("versions are out of order")));
        }
        let told = self.log.iter().filter(|(index, _)| *index > from && *index <= to);
        Ok(told.map(|(_, event)| event.clone()).collect())
    }

    /// Forgets all that was logged so far.
    pub fn compact(&mut self) {
        self.compacted = self.index;
        self.log.clear();
    }
}
