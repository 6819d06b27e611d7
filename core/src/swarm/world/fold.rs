//! Folds one list into what is known: never back to an older object, and nothing is dropped that may only be missing.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::absence::Absence;
use crate::id::{NetworkId, NodeId, SecretId, ServiceId, TaskId, Version};
use crate::reconcile::desired::ManagedService;
use crate::swarm::model::{Network, Node, NodeState, Secret, Service, Task};
use crate::time::{Duration, Instant};

/// An object of a list.
pub(super) trait Listed: Clone + PartialEq {
    type Id: Ord + Clone;

    fn id(&self) -> &Self::Id;

    /// Docker's version; the same for all where the model has none.
    fn version(&self) -> Version {
        Version(0)
    }

    /// Takes what tells nothing but that the object was written: its version, and the time of it.
    fn take_stamp(&mut self, _: &Self) {}

    /// Keeps what `known` says better.
    fn remember(&mut self, _known: &Self) {}
}

macro_rules! versioned {
    ($($kind:ty: $id:ty, [$($stamp:ident),*];)*) => {$(
        impl Listed for $kind {
            type Id = $id;
            fn id(&self) -> &$id {
                &self.id
            }
            fn version(&self) -> Version {
                self.version
            }
            fn take_stamp(&mut self, other: &Self) {
                $(self.$stamp = other.$stamp;)*
            }
        }
    )*};
}

versioned! {
    Service: ServiceId, [version, updated_at];
    ManagedService: ServiceId, [version];
    Task: TaskId, [version, updated_at];
}

impl Listed for Network {
    type Id = NetworkId;
    fn id(&self) -> &NetworkId {
        &self.id
    }
}

impl Listed for Secret {
    type Id = SecretId;
    fn id(&self) -> &SecretId {
        &self.id
    }
}

impl Listed for Node {
    type Id = NodeId;
    fn id(&self) -> &NodeId {
        &self.id
    }
    /// Every node is `unknown` for some seconds after each election (facts §4): the state before that stands.
    fn remember(&mut self, known: &Node) {
        if self.state == NodeState::Unknown {
            self.state = known.state;
        }
    }
}

/// How one list is to be taken.
pub(super) struct Rules<'a, V> {
    /// When the list was asked for.
    pub(super) sent: Instant,
    /// An answer came lately from a manager that is behind, so what a list lacks says nothing.
    pub(super) behind: bool,
    /// An object that this says of stays, however long it is missing.
    pub(super) keep: &'a dyn Fn(&V) -> bool,
    /// How long an object must be missing; zero = it goes at once.
    pub(super) confirm: &'a dyn Fn(&V) -> Duration,
}

/// What a fold found.
#[derive(Debug)]
pub(super) struct Folded<K> {
    /// Objects that appeared, changed or went.
    pub(super) changed: BTreeSet<K>,
    /// Objects that appeared or have a new version, whether that changes anything here or not.
    pub(super) touched: BTreeSet<K>,
    /// Objects that went.
    pub(super) gone: BTreeSet<K>,
    /// Objects that the list had in an older version: it comes from a manager that is behind.
    pub(super) outdated: u64,
    /// Objects that the list lacks and that stay for now.
    pub(super) kept: u64,
}

/// Folds `list` into `known`; `seen` is told of every change as (before, after).
pub(super) fn fold<V: Listed>(
    known: &mut BTreeMap<V::Id, V>,
    absence: &mut Absence<V::Id>,
    list: impl IntoIterator<Item = V>,
    rules: &Rules<'_, V>,
    now: Instant,
    mut seen: impl FnMut(Option<&V>, &V),
) -> Folded<V::Id> {
    let mut folded = Folded {
        changed: BTreeSet::new(),
        touched: BTreeSet::new(),
        gone: BTreeSet::new(),
        outdated: 0,
        kept: 0,
    };
    let mut listed = BTreeSet::new();
    for mut item in list {
        let id = item.id().clone();
        listed.insert(id.clone());
        let old = known.get(&id);
        if !absence.present(&id) || old.is_some_and(|old| old.version() > item.version()) {
            folded.outdated += 1;
            continue;
        }
        if let Some(old) = old {
            item.remember(old);
            if *old == item {
                continue;
            }
        }
        let same = old.is_some_and(|old| same_but_for_stamp(old, &item));
        if old.is_none_or(|old| old.version() != item.version()) {
            folded.touched.insert(id.clone());
        }
        if !same {
            seen(old, &item);
            folded.changed.insert(id.clone());
        }
        known.insert(id, item);
    }
    let missing: Vec<V::Id> = known.keys().filter(|id| !listed.contains(*id)).cloned().collect();
    for id in missing {
        let Some(item) = known.get(&id) else { continue };
        // A list with one old object may lack others for the same reason.
        let doubtful = rules.behind || folded.outdated > 0 || (rules.keep)(item);
        let stays =
            (doubtful && !absence.is_explained(&id)) || !absence.missing(&id, (rules.confirm)(item), rules.sent, now);
        if stays {
            folded.kept += 1;
        } else {
            known.remove(&id);
            folded.changed.insert(id.clone());
            folded.gone.insert(id);
        }
    }
    folded
}

/// Folds a list whose objects are all gone alike: when missing for `confirm`.
pub(super) fn fold_alike<V: Listed>(
    known: &mut BTreeMap<V::Id, V>,
    absence: &mut Absence<V::Id>,
    list: Vec<V>,
    sent: Instant,
    behind: bool,
    confirm: Duration,
    now: Instant,
) -> Folded<V::Id> {
    let rules = Rules {
        sent,
        behind,
        keep: &|_| false,
        confirm: &|_| confirm,
    };
    fold(known, absence, list, &rules, now, |_, _| ())
}

fn same_but_for_stamp<V: Listed>(old: &V, new: &V) -> bool {
    let mut old = old.clone();
    old.take_stamp(new);
    old == *new
}
