//! What one event does: it is a reason to look, and changes nothing by itself.

use alloc::collections::{BTreeMap, BTreeSet};

use super::{Lane, World};
use crate::id::{NetworkId, NodeId, SecretId, ServiceId, TaskId};
use crate::swarm::model::{Event, EventAction, EventKind, Task};
use crate::time::Instant;

impl World {
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
                    self.watch.start(&id, at, &self.settings);
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
                for (service, tasks) in &self.tasks {
                    if there(tasks) {
                        self.watch.start(service, at, &self.settings);
                    }
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
