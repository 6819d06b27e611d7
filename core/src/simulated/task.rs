//! The life of one task, from `new` to its place in the history, in the paces of facts §1.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::record::{Place, Process, ServiceRecord, TaskRecord};
use super::{Action, Due, GRACE_MS, Start, Swarm};
use crate::id::{NodeId, ServiceId, TaskId};
use crate::reconcile::desired::ServiceShape;
use crate::swarm::model::{DesiredState, NodeState, PublishMode, PublishedPort, Task, TaskState};
use crate::time::{Duration, Instant};

impl Swarm {
    /// Creates a task of `service` at `place`, after its present template.
    pub(super) fn create_task(
        &mut self,
        service: &ServiceId,
        place: Place,
        desired: DesiredState,
        waits_for: Option<TaskId>,
        now: Instant,
    ) -> Option<TaskId> {
        let ServiceRecord { shape, configs, .. } = self.services.get(service)?.clone();
        let id = TaskId::from(self.new_id());
        self.born += 1;
        let slot = match &place {
            Place::Node(_) => None,
            Place::Slot(slot) => Some(*slot),
        };
        let task = Task {
            id: id.clone(),
            service: service.clone(),
            version: self.next_version(),
            updated_at: None,
            slot,
            node: None,
            state: TaskState::New,
            desired,
            addresses: Vec::new(),
            ports: Vec::new(),
            error: String::new(),
        };
        let record = TaskRecord {
            task,
            name: shape.name.clone(),
            place,
            shape,
            configs,
            process: Process::None,
            in_dns: false,
            healthy: true,
            given_up: false,
            ended_alone: false,
            waits_for,
            holds_addresses: false,
            bound: Vec::new(),
            born: self.born,
        };
        self.tasks.insert(id.clone(), record);
        self.after(Due::Allocate(id.clone()), self.delays.allocate, now);
        self.reap_soon(now);
        Some(id)
    }

    pub(super) fn allocate(&mut self, id: &TaskId, now: Instant) {
        let Some(shape) = self.tasks.get(id).map(|record| record.shape.clone()) else {
            return;
        };
        let networks = self.networks_of(&shape);
        let mut addresses = Vec::new();
        for network in &networks {
            match self.take_address(network) {
                Some(address) => addresses.push(address),
                None => {
                    // A full subnet: the allocator tries again when addresses come back.
                    for address in &addresses {
                        self.release(address);
                    }
                    self.set_error(id, format!("could not find an available IP in network {network}"));
                    self.timers.set(Due::Allocate(id.clone()), now + Duration::from_secs(1));
                    return;
                }
            }
        }
        let version = self.next_version();
        if let Some(record) = self.tasks.get_mut(id) {
            record.task.addresses = addresses;
            record.holds_addresses = true;
            record.task.state = TaskState::Pending;
            record.task.error.clear();
            record.task.version = version;
        }
        self.after(Due::Assign(id.clone()), self.delays.assign, now);
    }

    /// The scheduler: the eligible node with the fewest tasks of the service, then of all, then the smallest id.
    pub(super) fn assign(&mut self, id: &TaskId, now: Instant) {
        let Some(record) = self.tasks.get(id) else { return };
        if record.task.desired.is_past_running() || record.task.state != TaskState::Pending {
            return;
        }
        let (shape, place, service) = (record.shape.clone(), record.place.clone(), record.task.service.clone());
        let mut crowded = 0;
        let mut candidates: BTreeMap<(usize, usize, NodeId), ()> = BTreeMap::new();
        for node in self.nodes.keys() {
            if matches!(&place, Place::Node(own) if own != node) || !self.is_eligible(node, &shape) {
                continue;
            }
            let here = || self.tasks.values().filter(|other| other.occupies(node));
            let clash =
                here().any(|other| fixed_ports(&other.shape).any(|port| fixed_ports(&shape).any(|p| p == port)));
            if clash {
                crowded += 1;
                continue;
            }
            let own = here().filter(|other| other.task.service == service).count();
            candidates.insert((own, here().count(), node.clone()), ());
        }
        let version = self.next_version();
        let chosen = candidates.into_keys().next().map(|(_, _, node)| node);
        let Some(record) = self.tasks.get_mut(id) else { return };
        record.task.version = version;
        match chosen {
            Some(node) => {
                record.task.node = Some(node);
                record.task.state = TaskState::Assigned;
                record.task.error.clear();
                let mut delay = self.delays.prepare.draw(&mut self.rng);
                if self.is_first_of_network(id) {
                    delay += self.delays.first_of_network.draw(&mut self.rng);
                }
                self.timers.set(Due::Prepared(id.clone()), now + delay);
            }
            None if crowded > 0 => {
                let nodes = if crowded == 1 { "node" } else { "nodes" };
                record.task.error = format!("host-mode port already in use on {crowded} {nodes}");
            }
            None => record.task.error = "no suitable node".to_string(),
        }
    }

    /// Whether a network of the task has to be made on its node: no other task there is in it.
    fn is_first_of_network(&self, id: &TaskId) -> bool {
        let Some(TaskRecord { task, .. }) = self.tasks.get(id) else {
            return false;
        };
        let is_known = |network| {
            self.tasks.values().any(|other| {
                other.task.id != *id
                    && other.task.node == task.node
                    && other.process == Process::Running
                    && other.task.addresses.iter().any(|held| &held.network == network)
            })
        };
        task.addresses.iter().any(|held| !is_known(&held.network))
    }

    /// Tries to place what found no node; called when a node or a port comes free.
    pub(super) fn assign_waiting(&mut self, now: Instant) {
        let waiting: Vec<TaskId> = self
            .tasks
            .values()
            .filter(|record| record.task.state == TaskState::Pending && !record.task.error.is_empty())
            .map(|record| record.task.id.clone())
            .collect();
        for task in waiting {
            self.after(Due::Assign(task), self.delays.assign, now);
        }
    }

    pub(super) fn is_eligible(&self, node: &NodeId, shape: &ServiceShape) -> bool {
        let Some(record) = self.nodes.get(node) else {
            return false;
        };
        let node = &record.node;
        node.active
            && node.state == NodeState::Ready
            && shape.constraints.iter().all(|constraint| {
                let (key, wanted, equal) = match (constraint.split_once("!="), constraint.split_once("==")) {
                    (Some((key, wanted)), _) => (key.trim(), wanted.trim(), false),
                    (None, Some((key, wanted))) => (key.trim(), wanted.trim(), true),
                    (None, None) => return false,
                };
                let actual = match key {
                    "node.hostname" => Some(node.hostname.as_str()),
                    "node.id" => Some(node.id.as_str()),
                    "node.role" => Some(if node.manager { "manager" } else { "worker" }),
                    other => {
                        let label = other.strip_prefix("node.labels.");
                        label.and_then(|label| record.labels.get(label)).map(String::as_str)
                    }
                };
                (actual == Some(wanted)) == equal
            })
    }

    pub(super) fn prepared(&mut self, id: &TaskId, now: Instant) {
        let version = self.next_version();
        let Some(record) = self.tasks.get_mut(id) else { return };
        if record.task.desired.is_past_running() || record.task.state != TaskState::Assigned {
            return;
        }
        if self.missing_images.contains(&record.shape.image) {
            let error = format!("No such image: {}", record.shape.image);
            return self.reject(id, error, now);
        }
        record.task.version = version;
        record.task.state = TaskState::Ready;
        if record.task.desired == DesiredState::Running {
            self.start(id, now);
        }
    }

    /// A waiting task may run.
    pub(super) fn promote(&mut self, id: &TaskId, now: Instant) {
        let version = self.next_version();
        let Some(record) = self.tasks.get_mut(id) else { return };
        if record.task.desired != DesiredState::Ready {
            return;
        }
        record.task.desired = DesiredState::Running;
        record.task.version = version;
        record.waits_for = None;
        let state = record.task.state;
        if state == TaskState::Ready {
            self.start(id, now);
        } else if state == TaskState::Rejected {
            self.replace_failed(id, now);
        }
    }

    fn start(&mut self, id: &TaskId, now: Instant) {
        let Some(record) = self.tasks.get_mut(id) else { return };
        record.task.state = TaskState::Starting;
        self.after(Due::Started(id.clone()), self.delays.start, now);
    }

    pub(super) fn started(&mut self, id: &TaskId, now: Instant) {
        let Some(record) = self.tasks.get_mut(id) else { return };
        let Some(node) = record.task.node.clone() else { return };
        let Some(home) = self.nodes.get(&node) else { return };
        if record.task.desired.is_past_running() || home.loss.is_some() || record.process != Process::None {
            return;
        }
        record.process = Process::Running;
        // With a health check, DNS has a task only when it is healthy (facts §1.2).
        record.in_dns = record.shape.health_command.is_empty();
        let start = Start {
            task: id.clone(),
            service: record.task.service.clone(),
            name: record.name.clone(),
            slot: record.task.slot,
            node,
            node_addr: home.node.addr,
            shape: record.shape.clone(),
            addresses: record.task.addresses.clone(),
        };
        let checked = !record.shape.health_command.is_empty();
        self.actions.push_back(Action::Start(start));
        let delay = if checked {
            self.after(Due::GiveUp(id.clone()), self.delays.unhealthy_start, now);
            self.delays.report_healthy
        } else {
            self.delays.report_running
        };
        self.after(Due::ReportRunning(id.clone()), delay, now);
    }

    pub(super) fn bound(&mut self, id: &TaskId, target: u16, published: u16) {
        let Some(record) = self.tasks.get_mut(id) else { return };
        let wanted = record
            .shape
            .ports
            .iter()
            .find(|port| port.target == target && port.mode == PublishMode::Host && port.published.is_none());
        if let Some(port) = wanted.cloned() {
            record.bound.retain(|other| other.target != target);
            record.bound.push(PublishedPort {
                published: Some(published),
                ..port
            });
        }
    }

    pub(super) fn report_running(&mut self, id: &TaskId, now: Instant) {
        let version = self.next_version();
        let Some(record) = self.tasks.get_mut(id) else { return };
        let Some(home) = record.task.node.as_ref().and_then(|node| self.nodes.get_mut(node)) else {
            return;
        };
        if record.process != Process::Running || home.loss.is_some() {
            return;
        }
        let checked = !record.shape.health_command.is_empty();
        if checked && (!record.healthy || record.given_up) {
            return;
        }
        let mut ports = Vec::new();
        for port in record.shape.ports.iter().filter(|port| port.mode == PublishMode::Host) {
            let bound = record.bound.iter().find(|bound| bound.target == port.target);
            let published = bound.or(Some(port)).and_then(|port| port.published).unwrap_or_else(|| {
                home.next_port += 1;
                home.next_port
            });
            ports.push(PublishedPort {
                published: Some(published),
                ..port.clone()
            });
        }
        record.task.ports = ports;
        record.task.state = TaskState::Running;
        record.in_dns |= !record.task.desired.is_past_running();
        record.task.version = version;
        if record.task.desired == DesiredState::Running {
            self.step_done(id, now);
        }
    }

    /// Sets a desired state beyond running: the moment `T` of facts §1.1.
    pub(super) fn stop(&mut self, id: &TaskId, desired: DesiredState, now: Instant) {
        let version = self.next_version();
        let Some(record) = self.tasks.get_mut(id) else { return };
        if record.task.desired.is_past_running() {
            // A task that shuts down may still be told to go; never the other way round.
            if desired == DesiredState::Remove {
                record.task.desired = desired;
                record.task.version = version;
                if record.task.is_over() {
                    self.reap_soon(now);
                }
            }
            return;
        }
        record.task.desired = desired;
        record.task.version = version;
        if record.task.is_over() {
            if desired == DesiredState::Remove {
                self.reap_soon(now);
            }
            return;
        }
        let lost = |node: &NodeId| self.nodes.get(node).is_none_or(|node| node.loss.is_some());
        if record.task.node.as_ref().is_some_and(lost) {
            return;
        }
        if record.process == Process::Running {
            let signal = if record.task.addresses.is_empty() {
                self.delays.signal_bare
            } else {
                self.delays.signal_overlay
            };
            self.after(Due::LeaveDns(id.clone()), self.delays.leave_dns, now);
            self.after(Due::Signal(id.clone()), signal, now);
        } else {
            for due in [
                Due::Allocate(id.clone()),
                Due::Assign(id.clone()),
                Due::Prepared(id.clone()),
            ] {
                self.clear(&due);
            }
            self.clear(&Due::Started(id.clone()));
            self.after(Due::ReportEnd(id.clone()), self.delays.report_end, now);
        }
    }

    pub(super) fn signal(&mut self, id: &TaskId, now: Instant) {
        let Some(record) = self.tasks.get(id) else { return };
        if record.process != Process::Running {
            return;
        }
        let grace = match record.shape.stop_grace_ms {
            0 => GRACE_MS,
            set => set,
        };
        self.actions.push_back(Action::Signal(id.clone()));
        self.timers
            .set(Due::Kill(id.clone()), now + Duration::from_millis(grace));
    }

    pub(super) fn kill(&mut self, id: &TaskId) {
        if self
            .tasks
            .get(id)
            .is_some_and(|record| record.process == Process::Running)
        {
            self.actions.push_back(Action::Kill(id.clone()));
        }
    }

    pub(super) fn exited(&mut self, id: &TaskId, code: i32, now: Instant) {
        let Some(record) = self.tasks.get_mut(id) else { return };
        if record.process != Process::Running {
            return;
        }
        record.process = Process::Ended { code };
        let told = record.task.desired.is_past_running();
        let home = record.task.node.as_ref().and_then(|node| self.nodes.get(node));
        let lost = home.is_none_or(|node| node.loss.is_some());
        // A node that is about to stop a task looks at its process only then.
        let stops = self.timers.get(&Due::Signal(id.clone())).filter(|_| told);
        let reports = home.map(|home| home.reports_from).max(stops);
        self.clear(&Due::Signal(id.clone()));
        self.clear(&Due::Kill(id.clone()));
        self.after(Due::BlackHole(id.clone()), self.delays.black_hole, now);
        if lost {
            return;
        }
        let delay = if told {
            self.delays.report_end
        } else {
            self.delays.report_failed
        };
        let at = (now + delay.draw(&mut self.rng)).max(reports.unwrap_or(now));
        self.timers.set(Due::ReportEnd(id.clone()), at);
        self.timers.set_at_latest(Due::LeaveDns(id.clone()), at);
    }

    pub(super) fn report_end(&mut self, id: &TaskId, now: Instant) {
        let version = self.next_version();
        let Some(record) = self.tasks.get_mut(id) else { return };
        if record.task.is_over() {
            return;
        }
        let told = record.task.desired.is_past_running();
        let alone = !told || record.ended_alone;
        record.task.state = match record.process {
            Process::Ended { .. } if record.given_up && alone => {
                let container = format!("{}.{}.{id}", record.name, record.task.slot.unwrap_or_default());
                record.task.error = format!("network sandbox does not exist for container {container}");
                TaskState::Failed
            }
            Process::Ended { code: 0 } if alone => TaskState::Complete,
            Process::Ended { code } if alone => {
                record.task.error = format!("task: non-zero exit ({code})");
                TaskState::Failed
            }
            Process::Ended { .. } | Process::None | Process::Running => TaskState::Shutdown,
        };
        record.task.version = version;
        record.in_dns = false;
        self.clear(&Due::ReportRunning(id.clone()));
        self.give_back(id);
        if !told {
            self.replace_failed(id, now);
        }
        self.release_successors(id, now);
        if self
            .tasks
            .get(id)
            .is_some_and(|record| record.task.desired == DesiredState::Remove)
        {
            self.reap_soon(now);
        }
        self.assign_waiting(now);
    }

    /// The addresses of a task that ended are free again; its own list of them stays.
    pub(super) fn give_back(&mut self, id: &TaskId) {
        let Some(record) = self.tasks.get_mut(id) else { return };
        if core::mem::take(&mut record.holds_addresses) {
            let held = record.task.addresses.clone();
            for address in &held {
                self.release(address);
            }
        }
    }

    /// Whoever waits for `id` to end may run.
    pub(super) fn release_successors(&mut self, id: &TaskId, now: Instant) {
        let waiting: Vec<TaskId> = self
            .tasks
            .values()
            .filter(|record| record.waits_for.as_ref() == Some(id))
            .map(|record| record.task.id.clone())
            .collect();
        for task in waiting {
            self.promote(&task, now);
        }
    }

    fn set_error(&mut self, id: &TaskId, error: String) {
        let version = self.next_version();
        if let Some(record) = self.tasks.get_mut(id) {
            record.task.error = error;
            record.task.version = version;
            record.task.state = TaskState::New;
        }
    }

    pub(super) fn ids_of(&self, service: &ServiceId) -> Vec<TaskId> {
        let mut own: Vec<(u64, TaskId)> = self
            .tasks
            .values()
            .filter(|record| &record.task.service == service)
            .map(|record| (record.born, record.task.id.clone()))
            .collect();
        own.sort();
        own.into_iter().map(|(_, id)| id).collect()
    }
}

impl TaskRecord {
    /// Takes part in a service: should run, now or soon, or ran and has not been replaced.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.task.desired, DesiredState::Ready | DesiredState::Running)
    }

    /// Counts against a node's room.
    fn occupies(&self, node: &NodeId) -> bool {
        self.task.node.as_ref() == Some(node) && !self.task.is_over()
    }
}

fn fixed_ports(shape: &Arc<ServiceShape>) -> impl Iterator<Item = u16> {
    let ports = shape.ports.iter().filter(|port| port.mode == PublishMode::Host);
    ports.filter_map(|port| port.published)
}
