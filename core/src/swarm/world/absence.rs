//! What is missing from a list is not gone yet: a manager that was cut off answers with an old list, one without
//! quorum with a short one (facts §4). Gone is what a `remove` event explains, or what two lists miss some time apart.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::time::{Duration, Instant};

/// Remembered ids of removed objects: ids never come back in a Swarm, so an old list cannot bring them back either.
const TOMBSTONES: usize = 1024;

/// The doubts about one kind of object.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(serialize = "K: Serialize + Ord", deserialize = "K: Deserialize<'de> + Ord"))]
pub(super) struct Absence<K> {
    /// Missing since the first list without them.
    since: BTreeMap<K, Instant>,
    /// A `remove` event names these.
    explained: BTreeSet<K>,
    tombs: BTreeSet<K>,
    order: VecDeque<K>,
}

impl<K> Default for Absence<K> {
    fn default() -> Self {
        Absence {
            since: BTreeMap::new(),
            explained: BTreeSet::new(),
            tombs: BTreeSet::new(),
            order: VecDeque::new(),
        }
    }
}

impl<K: Ord + Clone> Absence<K> {
    /// A `remove` event names `id`, which is known.
    pub(super) fn explain(&mut self, id: K) {
        self.explained.insert(id);
    }

    /// A list has `id`: whether it may be believed (not a removed one from an old list).
    pub(super) fn present(&mut self, id: &K) -> bool {
        self.since.remove(id);
        !self.tombs.contains(id)
    }

    /// Whether a `remove` event names `id`.
    pub(super) fn is_explained(&self, id: &K) -> bool {
        self.explained.contains(id)
    }

    /// A list that was asked for at `sent` lacks `id`: whether it is gone for good now.
    pub(super) fn missing(&mut self, id: &K, confirm: Duration, sent: Instant, now: Instant) -> bool {
        let since = *self.since.entry(id.clone()).or_insert(now);
        if self.explained.contains(id) {
            self.forget(id);
            self.bury(id.clone());
            return true;
        }
        if confirm == Duration::ZERO || (since < now && sent >= since + confirm) {
            self.forget(id);
            return true;
        }
        false
    }

    /// Whether `id` is gone as a `remove` event explained.
    pub(super) fn is_buried(&self, id: &K) -> bool {
        self.tombs.contains(id)
    }

    /// Since when something is missing without an explanation, the longest.
    pub(super) fn doubts(&self) -> Option<Instant> {
        self.since.values().min().copied()
    }

    /// Forgets `id`, which is no longer known.
    pub(super) fn forget(&mut self, id: &K) {
        self.since.remove(id);
        self.explained.remove(id);
    }

    fn bury(&mut self, id: K) {
        if self.tombs.insert(id.clone()) {
            self.order.push_back(id);
        }
        if self.order.len() > TOMBSTONES
            && let Some(oldest) = self.order.pop_front()
        {
            self.tombs.remove(&oldest);
        }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.since.len() + self.explained.len() + self.tombs.len()
    }
}
