//! What one event does: it is a reason to look, and changes nothing by itself.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::{Lane, World};
use crate::id::{NetworkId, NodeId, SecretId, ServiceId, TaskId};
use crate::swarm::model::{Event, EventAction, EventKind, Task};
use crate::time::Instant;

impl World {
    /// The tasks of a service may change from `at` on: looks at them begin, or wait for the feed to tell of them.
    pub(super) fn watch_tasks_of(&mut self, service: &ServiceId, at: Instant) {
        // The feed's news of a service that was not listed yet came to nothing.
        let is_told = self.may_wait_for_feed() && self.tasks.contains_key(service);
        let at = if is_told { at + self.settings.poll_fed } else { at };
        self.watch.start(service, at, &self.settings);
    }

    pub(super) fn handle_event(&mut self, event: &Event, now: Instant) {
        self.counters.events += 1;
        let at = now + self.settings.coalesce;
        let removed = event.action == EventAction::Remove;
        match event.kind {
            EventKind::Service => {
                let id = ServiceId::from(event.id.as_str());
                if removed {
                    if self.services.contains_key(&id) {
                        self.absent.services.explain(id.clone());
                    }
                    if self.managed.contains_key(&id) {
                        self.absent.managed.explain(id.clone());
                    }
                } else if self.services.contains_key(&id) {
                    self.watch_tasks_of(&id, at);
                }
                // Managed services are few: events of all others need no look at them.
                if self.managed.contains_key(&id) || !self.services.contains_key(&id) {
                    self.want(Lane::Managed, at);
                }
                let (_, named) = self.named.get_or_insert((at, BTreeSet::new()));
                named.insert(id);
            }
            EventKind::Node => {
                let id = NodeId::from(event.id.as_str());
                if removed && self.nodes.contains_key(&id) {
                    self.absent.nodes.explain(id.clone());
                }
                // A node that drains, dies or returns moves the tasks on it, and no event says so.
                let there = |tasks: &BTreeMap<TaskId, Task>| {
                    let mut tasks = tasks.values();
                    tasks.any(|task| task.node.as_ref() == Some(&id) && !task.is_over())
                };
                let moved = self.tasks.iter().filter(|(_, tasks)| there(tasks));
                for service in moved.map(|(service, _)| service.clone()).collect::<Vec<_>>() {
                    self.watch_tasks_of(&service, at);
                }
                self.want(Lane::Nodes, at);
                self.want(Lane::Tasks, at);
            }
            EventKind::Network => {
                let id = NetworkId::from(event.id.as_str());
                if removed && self.networks.contains_key(&id) {
                    self.absent.networks.explain(id);
                }
                self.want(Lane::Networks, at);
            }
            EventKind::Secret => {
                let id = SecretId::from(event.id.as_str());
                if removed && self.secrets.contains_key(&id) {
                    self.absent.secrets.explain(id);
                }
                self.want(Lane::Secrets, at);
            }
            EventKind::Other => {}
        }
    }
}
