//! What goes wrong with nodes and leaders, and how late a Swarm notices (facts §2, §4).

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use super::record::{Availability, Loss, Place, Process, TaskRecord};
use super::{Action, Due, Leaderless, Span, Swarm};
use crate::id::{NodeId, TaskId};
use crate::swarm::model::{ApiError, DesiredState, EventAction, EventKind, NodeState, TaskState};
use crate::time::Instant;

/// From the stop of a dockerd to the SIGTERM of its apps (facts §2).
const DOCKERD_SIGNAL: Span = Span::ms(40, 55);
/// From the stop of a dockerd to the black hole in front of its apps.
const DOCKERD_BLACK_HOLE: Span = Span::ms(130, 240);
/// From the SIGKILL of a dockerd to the black hole in front of its apps: gossip drops the node's addresses.
const CRASH_BLACK_HOLE: Span = Span::ms(6000, 6600);
/// From the stop of a dockerd to its addresses leaving DNS.
const DOCKERD_LEAVE_DNS: Span = Span::ms(170, 1300);
/// From the SIGKILL of a dockerd to its addresses leaving DNS.
const CRASH_LEAVE_DNS: Span = Span::ms(6300, 7400);
/// From the start of a dockerd that was killed to the SIGTERM of the apps that lived on.
const CRASH_SIGNAL: Span = Span::ms(200, 260);
/// From `ready` after a cut to the SIGTERM of tasks that were replaced meanwhile.
const LINK_SIGNAL: Span = Span::ms(3000, 3050);

/// From an election to `down` of a node that the new leader never heard of.
const NOTICE_UNKNOWN: Span = Span::ms(27_000, 33_000);
/// From `ready` after an election to what the node had to tell.
const TELLS: Span = Span::ms(100, 150);

/// How long a lost node takes to be `ready` again, and from then on to report what ended meanwhile.
fn comes_back(loss: Loss) -> (Span, Span) {
    match loss {
        Loss::Crash => (Span::ms(1300, 1700), Span::ms(150, 250)),
        Loss::Dockerd => (Span::ms(600, 1000), Span::ms(1900, 2200)),
        Loss::Link => (Span::ms(1900, 3900), Span::ms(100, 150)),
        Loss::Power => (Span::ms(1900, 2500), Span::ms(100, 150)),
    }
}

impl Swarm {
    /// `docker node update --availability drain`: a planned stop of everything on the node.
    pub fn drain_node(&mut self, node: &NodeId, now: Instant) -> Result<(), ApiError> {
        self.set_availability(node, Availability::Drain, now)?;
        let leaving: Vec<_> = self
            .tasks
            .values()
            .filter(|record| belongs_to(record, node) && record.is_live())
            .map(|record| {
                (
                    record.task.id.clone(),
                    record.task.service.clone(),
                    record.place.clone(),
                )
            })
            .collect();
        for (task, service, place) in leaving {
            self.stop(&task, DesiredState::Shutdown, now);
            if matches!(place, Place::Slot(_)) {
                // No restart delay for drained nodes: the successor waits for the end of the old task alone, and one that was
                // refused before its turn has none to wait for.
                let is_over = self.tasks.get(&task).is_some_and(|old| old.task.is_over());
                self.replace(&service, place, &task, is_over.then_some(now), now);
            }
            self.wake_update(&service, now);
        }
        Ok(())
    }

    /// `docker node update --availability active`
    pub fn activate_node(&mut self, node: &NodeId, now: Instant) -> Result<(), ApiError> {
        self.set_availability(node, Availability::Active, now)?;
        self.fill_all(now);
        Ok(())
    }

    /// `docker node update --availability pause`: it keeps its tasks and gets no new one.
    pub fn pause_node(&mut self, node: &NodeId, now: Instant) -> Result<(), ApiError> {
        self.set_availability(node, Availability::Pause, now)
    }

    fn set_availability(&mut self, node: &NodeId, availability: Availability, now: Instant) -> Result<(), ApiError> {
        self.has_leader()?;
        let version = self.next_version();
        let Some(record) = self.nodes.get_mut(node) else {
            return Err(ApiError::NotFound(format!("node {node} not found")));
        };
        record.node.active = availability == Availability::Active;
        record.availability = availability;
        record.version = version;
        self.emit(EventKind::Node, EventAction::Update, node.as_str(), now);
        Ok(())
    }

    /// A node is lost without a word; the Swarm notices seconds later. Nothing happens to one that is lost already.
    pub fn lose_node(&mut self, node: &NodeId, loss: Loss, now: Instant) {
        let Some(record) = self.nodes.get_mut(node).filter(|record| record.loss.is_none()) else {
            return;
        };
        record.loss = Some(loss);
        let notice = match loss {
            Loss::Crash => self.delays.notice_crash,
            Loss::Dockerd => self.delays.notice_dockerd,
            Loss::Link => self.delays.notice_link,
            Loss::Power => self.delays.notice_power,
        };
        self.after(Due::NodeDown(node.clone()), notice, now);
        if loss == Loss::Link {
            self.actions.push_back(Action::Unlink(node.clone()));
        }
        let leave_dns = match loss {
            Loss::Crash => CRASH_LEAVE_DNS,
            Loss::Dockerd => DOCKERD_LEAVE_DNS,
            Loss::Link | Loss::Power => self.delays.lost_leave_dns,
        };
        for task in self.on_node(node) {
            self.after(Due::LeaveDns(task.clone()), leave_dns, now);
            let Some(record) = self.tasks.get_mut(&task) else {
                continue;
            };
            if record.process != Process::Running {
                continue;
            }
            match loss {
                Loss::Crash => {
                    // Who is dead stops nothing.
                    self.clear(&Due::Signal(task.clone()));
                    self.clear(&Due::Kill(task.clone()));
                    self.clear(&Due::GiveUp(task.clone()));
                    self.after(Due::BlackHole(task), CRASH_BLACK_HOLE, now);
                }
                Loss::Dockerd => {
                    self.after(Due::Signal(task.clone()), DOCKERD_SIGNAL, now);
                    self.after(Due::BlackHole(task), DOCKERD_BLACK_HOLE, now);
                }
                Loss::Link => {}
                Loss::Power => {
                    record.process = Process::Ended { code: 255 };
                    record.ended_alone = true;
                    self.clear(&Due::Signal(task.clone()));
                    self.clear(&Due::Kill(task.clone()));
                    // In this order: a host without power answers nothing, not even with a reset.
                    self.actions.push_back(Action::BlackHole(task.clone()));
                    self.actions.push_back(Action::Kill(task));
                }
            }
        }
    }

    /// A lost node comes back. Nothing happens to one that is not lost.
    pub fn return_node(&mut self, node: &NodeId, now: Instant) {
        let Some(record) = self.nodes.get_mut(node) else { return };
        let Some(loss) = record.loss.take() else { return };
        if loss == Loss::Link {
            self.actions.push_back(Action::Rejoin(node.clone()));
        }
        let (ready, report) = comes_back(loss);
        let ready = now + ready.draw(&mut self.rng);
        self.timers.set(Due::NodeReady(node.clone()), ready);
        let reports = ready + report.draw(&mut self.rng);
        if let Some(record) = self.nodes.get_mut(node) {
            record.reports_from = reports;
        }
        for task in self.on_node(node) {
            let starts = self.timers.get(&Due::Started(task.clone())).is_some();
            let Some(record) = self.tasks.get_mut(&task) else {
                continue;
            };
            match record.process {
                // A dockerd that starts keeps no container that another one started.
                Process::Running if loss == Loss::Crash => {
                    record.ended_alone = true;
                    // Gossip is back in time; the end of the process has a black hole of its own.
                    self.clear(&Due::BlackHole(task.clone()));
                    self.after(Due::Signal(task), CRASH_SIGNAL, now);
                }
                Process::Running if record.task.desired.is_past_running() => {
                    self.after(Due::Signal(task), LINK_SIGNAL, ready);
                }
                Process::Running => {
                    if record.task.state == TaskState::Starting {
                        self.timers.set_at_latest(Due::ReportRunning(task.clone()), reports);
                    }
                    self.rejoin_dns(&task);
                }
                // On its way still, or waiting for its turn or for a leader: only a start that fell into the loss is over.
                Process::None
                    if !record.task.desired.is_past_running()
                        && (starts || record.task.state != TaskState::Starting) => {}
                Process::Ended { .. } | Process::None => self.timers.set(Due::ReportEnd(task), reports),
            }
        }
    }

    /// Gossip reaches the node again: what still runs there is found by name.
    fn rejoin_dns(&mut self, id: &TaskId) {
        self.clear(&Due::LeaveDns(id.clone()));
        if let Some(record) = self.tasks.get_mut(id) {
            record.in_dns = record.task.is_serving();
        }
    }

    pub(super) fn node_down(&mut self, node: &NodeId, now: Instant) {
        self.set_node_state(node, NodeState::Down, now);
        let belonging = self.tasks.values().filter(|record| belongs_to(record, node));
        let belonging: Vec<TaskId> = belonging
            .filter(|record| !record.task.is_over())
            .map(|record| record.task.id.clone())
            .collect();
        for task in belonging {
            let Some(record) = self.tasks.get_mut(&task) else {
                continue;
            };
            if record.task.desired.is_past_running() {
                self.release_successors(&task, now);
                continue;
            }
            // The state stays `running`; only the desired state says otherwise.
            let (service, place) = (record.task.service.clone(), record.place.clone());
            self.stop(&task, DesiredState::Shutdown, now);
            if matches!(place, Place::Slot(_)) {
                let restart = self.delays.restart.draw(&mut self.rng);
                self.replace(&service, place, &task, Some(now + restart), now);
            }
            self.wake_update(&service, now);
        }
    }

    pub(super) fn node_ready(&mut self, node: &NodeId, now: Instant) {
        if self.nodes.get(node).is_some_and(|record| record.loss.is_none()) {
            self.clear(&Due::NodeDown(node.clone()));
            self.set_node_state(node, NodeState::Ready, now);
            let untold = self
                .nodes
                .get_mut(node)
                .map(|record| core::mem::take(&mut record.untold));
            for due in untold.unwrap_or_default() {
                self.after(due, TELLS, now);
            }
            self.fill_all(now);
        }
    }

    /// The leader is gone; until the next one is elected nothing is orchestrated and the API does not answer.
    pub fn lose_leader(&mut self, now: Instant) {
        let at = now + self.delays.election.draw(&mut self.rng);
        self.be_leaderless(now);
        self.timers.set(Due::Elected, at);
    }

    /// So many managers are gone that no leader can be elected, until [`Swarm::regain_quorum`].
    pub fn lose_quorum(&mut self, now: Instant) {
        self.be_leaderless(now);
        self.clear(&Due::Elected);
    }

    /// Enough managers are back: an election begins. Nothing happens where there was a leader all the time.
    pub fn regain_quorum(&mut self, now: Instant) {
        if self.leaderless.is_some() && self.timers.get(&Due::Elected).is_none() {
            let at = now + self.delays.election.draw(&mut self.rng);
            self.timers.set(Due::Elected, at);
        }
    }

    fn be_leaderless(&mut self, now: Instant) {
        self.leaderless.get_or_insert(Leaderless {
            since: now,
            waiting: BTreeSet::new(),
        });
    }

    /// Since when there is no leader; `None` while there is one.
    pub fn leaderless_since(&self) -> Option<Instant> {
        self.leaderless.as_ref().map(|leaderless| leaderless.since)
    }

    pub(super) fn elected(&mut self, now: Instant) {
        for due in self
            .leaderless
            .take()
            .into_iter()
            .flat_map(|leaderless| leaderless.waiting)
        {
            self.timers.set(due, now);
        }
        for network in self.networks.values_mut() {
            network.subnet.restart_from_lowest();
        }
        let nodes: Vec<NodeId> = self.nodes.keys().cloned().collect();
        for node in nodes {
            if self
                .nodes
                .get(&node)
                .is_some_and(|record| record.node.state != NodeState::Down)
            {
                self.set_node_state(&node, NodeState::Unknown, now);
                // The new leader gives every node its time anew.
                self.after(Due::NodeDown(node.clone()), NOTICE_UNKNOWN, now);
                if !self.is_lost(&node) {
                    self.after(Due::NodeReady(node), self.delays.node_ready, now);
                }
            }
        }
        let networks: Vec<_> = self.networks.keys().cloned().collect();
        for network in networks {
            self.emit(EventKind::Network, EventAction::Update, network.as_str(), now);
        }
        let services: Vec<_> = self.services.keys().cloned().collect();
        for service in services {
            self.emit(EventKind::Service, EventAction::Update, service.as_str(), now);
        }
    }

    pub(super) fn is_unknown(&self, node: &NodeId) -> bool {
        self.nodes
            .get(node)
            .is_some_and(|record| record.node.state == NodeState::Unknown)
    }

    fn set_node_state(&mut self, node: &NodeId, state: NodeState, now: Instant) {
        let version = self.next_version();
        if let Some(record) = self.nodes.get_mut(node) {
            record.node.state = state;
            record.version = version;
        }
        self.emit(EventKind::Node, EventAction::Update, node.as_str(), now);
    }

    fn on_node(&self, node: &NodeId) -> Vec<TaskId> {
        let here = self
            .tasks
            .values()
            .filter(|record| record.task.node.as_ref() == Some(node));
        here.filter(|record| !record.task.is_over())
            .map(|record| record.task.id.clone())
            .collect()
    }
}

/// Runs on the node, or is of a global service and meant for it before it is assigned.
fn belongs_to(record: &TaskRecord, node: &NodeId) -> bool {
    record.task.node.as_ref() == Some(node) || matches!(&record.place, Place::Node(own) if own == node)
}
