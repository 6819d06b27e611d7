//! Services whose tasks are looked at often, because something about them changes.
//!
//! Docker says nothing about tasks (facts §3), so a changing service is polled until its tasks are at rest: none is
//! between two states and the desired count runs. `UpdateStatus` is no witness of that (facts §11). A service at rest
//! is watched a little longer, since the next step of a rolling update comes without any event after the update's
//! delay. One that never rests (no node fits, a crash loop) is watched less often, and at last left to the regular
//! look at all tasks. Where the feed tells of tasks, it is the feed that causes looks, and these become rare.

use alloc::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::WorldSettings;
use crate::id::{NodeId, ServiceId};
use crate::swarm::model::{DesiredState, Node, NodeState, Service, ServiceMode, Task, TaskState};
use crate::time::{Duration, Instant};

/// One watched service.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Watched {
    /// The last reason: a change of the service, or a task that was told to stop.
    since: Instant,
    /// At rest since; none while something moves.
    rests: Option<Instant>,
    /// When to look next; none = left to the regular look.
    next: Option<Instant>,
    interval: Duration,
    /// The feed told of a change then: a look that was asked for earlier may not show it.
    #[serde(default)]
    wanted: Option<Instant>,
}

impl Watched {
    /// Not looked at yet.
    fn new(since: Instant, settings: &WorldSettings) -> Watched {
        Watched {
            since,
            rests: None,
            next: None,
            interval: settings.poll_changing,
            wanted: None,
        }
    }
}

/// All watched services.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Watch {
    services: BTreeMap<ServiceId, Watched>,
}

/// What one look at a service's tasks showed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    /// Nothing moves any more.
    pub(super) at_rest: bool,
    /// Some task differs from the last look.
    pub(super) changed: bool,
    /// Some task is newly told to stop: a planned change goes on.
    pub(super) told_to_stop: bool,
    /// When it was asked for.
    pub(super) sent: Instant,
    /// The feed would tell of the next change.
    pub(super) may_wait: bool,
}

impl Watch {
    /// Starts or restarts watching, with the first look at `at`.
    pub(super) fn start(&mut self, service: &ServiceId, at: Instant, settings: &WorldSettings) {
        let watched = self.services.entry(service.clone());
        let watched = watched.or_insert_with(|| Watched::new(at, settings));
        watched.since = at;
        watched.rests = None;
        watched.interval = settings.poll_changing;
        watched.next = Some(watched.next.map_or(at, |next| next.min(at)));
    }

    /// The feed told at `now` of a change: a look at `at`, which does not prolong the watching.
    pub(super) fn nudge(&mut self, service: &ServiceId, now: Instant, at: Instant, settings: &WorldSettings) {
        let watched = self.services.entry(service.clone());
        let watched = watched.or_insert_with(|| Watched::new(now, settings));
        watched.next = Some(watched.next.map_or(at, |next| next.min(at)));
        watched.wanted = Some(now);
    }

    /// Nobody tells of changes any more: the next looks come as if nobody had.
    pub(super) fn hurry(&mut self, now: Instant) {
        for watched in self.services.values_mut() {
            watched.next = watched.next.map(|next| next.min(now + watched.interval));
        }
    }

    /// Whether the feed told of a change that no look has shown yet.
    pub(super) fn is_wanted(&self) -> bool {
        self.services.values().any(|watched| watched.wanted.is_some())
    }

    /// Takes one look.
    pub(super) fn looked(&mut self, service: &ServiceId, look: Look, settings: &WorldSettings, now: Instant) {
        if look.at_rest && !look.changed && !self.services.contains_key(service) {
            return;
        }
        let watched = self.services.entry(service.clone());
        let watched = watched.or_insert_with(|| Watched::new(now, settings));
        watched.wanted = watched.wanted.filter(|wanted| *wanted > look.sent);
        if look.told_to_stop {
            watched.since = now;
        }
        if look.at_rest {
            let rests = *watched.rests.get_or_insert(now);
            if now.since(rests) >= settings.linger && watched.wanted.is_none() {
                self.services.remove(service);
                return;
            }
            watched.interval = settings.poll_changing * 4;
        } else {
            watched.rests = None;
            let patient = now.since(watched.since) < settings.slow_after;
            watched.interval = if !patient {
                settings.poll_slow
            } else if look.changed {
                settings.poll_changing
            } else {
                (watched.interval * 3 / 2).clamp(settings.poll_changing, settings.poll_changing * 2)
            };
            if now.since(watched.since) >= settings.give_up_after {
                watched.next = watched.wanted.map(|_| now);
                return;
            }
        }
        let pause = match (look.may_wait, look.at_rest) {
            (true, true) => watched.interval.max(settings.poll_fed * 4),
            (true, false) => watched.interval.max(settings.poll_fed),
            (false, _) => watched.interval,
        };
        watched.next = Some(if watched.wanted.is_some() { now } else { now + pause });
    }

    /// Looks at `service` not before `at`.
    pub(super) fn postpone(&mut self, service: &ServiceId, at: Instant) {
        if let Some(watched) = self.services.get_mut(service) {
            watched.next = watched.next.map(|next| next.max(at));
        }
    }

    /// No longer known.
    pub(super) fn forget(&mut self, service: &ServiceId) {
        self.services.remove(service);
    }

    /// The earliest look.
    pub(super) fn next(&self) -> Option<Instant> {
        self.services.values().filter_map(|watched| watched.next).min()
    }

    /// Services to look at by `until`, so that looks that are due soon go along.
    pub(super) fn due(&self, until: Instant) -> impl Iterator<Item = &ServiceId> {
        let due = move |watched: &Watched| watched.next.is_some_and(|next| next <= until);
        let services = self.services.iter().filter(move |(_, watched)| due(watched));
        services.map(|(service, _)| service)
    }

    /// Services that are watched, at rest or not.
    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceId> {
        self.services.keys()
    }
}

/// Whether nothing about the tasks of `service` is under way.
pub(super) fn at_rest<'a>(
    service: &Service,
    tasks: impl Iterator<Item = &'a Task>,
    nodes: &BTreeMap<NodeId, Node>,
) -> bool {
    let mut serving = 0;
    for task in tasks {
        let lost = || {
            let node = task.node.as_ref().and_then(|node| nodes.get(node));
            node.is_some_and(|node| node.state == NodeState::Down)
        };
        // A task of a dead node stays `running` for ever (facts §2), one that never got a node `pending`: that is rest.
        let between = match task.desired {
            DesiredState::New | DesiredState::Ready | DesiredState::Running | DesiredState::Other => {
                task.state < TaskState::Running || (task.is_over() && task.desired == DesiredState::Running)
            }
            DesiredState::Complete | DesiredState::Shutdown | DesiredState::Remove => {
                !task.is_over() && task.node.is_some() && !lost()
            }
        };
        if between && service.mode != ServiceMode::Job {
            return false;
        }
        serving += u64::from(task.is_serving());
    }
    match service.mode {
        ServiceMode::Global | ServiceMode::Job => true,
        ServiceMode::Replicated { replicas } => serving == replicas,
    }
}
