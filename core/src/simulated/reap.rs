//! The task reaper: tasks that are over stay listed for a moment, and of each place a few of them for good.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::record::Place;
use super::{Due, Swarm};
use crate::id::{ServiceId, TaskId};
use crate::swarm::model::DesiredState;
use crate::time::{Duration, Instant};

/// Tasks kept per place, the live one among them (`task-history-limit`).
const HISTORY: usize = 5;
/// The reaper's batches: so long after the first task that it could take.
const BATCH: Duration = Duration::from_millis(250);

impl Swarm {
    /// There may be something to reap: a task was created, or one that should go is over.
    pub(super) fn reap_soon(&mut self, now: Instant) {
        self.timers.set_at_latest(Due::Reap, now + BATCH);
    }

    pub(super) fn reap(&mut self) {
        let mut places: BTreeMap<(&ServiceId, &Place), BTreeSet<(u64, &TaskId)>> = BTreeMap::new();
        let mut gone: Vec<TaskId> = Vec::new();
        for record in self.tasks.values() {
            let task = &record.task;
            if task.desired == DesiredState::Remove && task.is_over() {
                gone.push(task.id.clone());
            } else {
                let own = places.entry((&task.service, &record.place)).or_default();
                own.insert((record.born, &task.id));
            }
        }
        for own in places.into_values() {
            let surplus = own.len().saturating_sub(HISTORY);
            let dead = own
                .into_iter()
                .filter(|(_, id)| self.tasks.get(*id).is_some_and(|record| record.task.is_over()));
            gone.extend(dead.take(surplus).map(|(_, id)| id.clone()));
        }
        if !gone.is_empty() {
            // Who compares indexes sees that a list is another one.
            self.next_version();
        }
        for id in gone {
            self.give_back(&id);
            self.tasks.remove(&id);
        }
    }
}
