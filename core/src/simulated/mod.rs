//! A Docker Swarm as a model: services, tasks, nodes, networks, secrets and configs that behave and take their time as measured
//! on a real one (docker-swarm facts §1, §2, §5, §6), without a socket, a clock or a process.
//!
//! It decides what the orchestrator, the scheduler, the allocator and the agents of a Swarm would decide, and when. It
//! never runs an app: the shell starts a process for [`Action::Start`], passes SIGTERM on for [`Action::Signal`], and
//! says with [`Fact::Exited`] that it ended. `tidegate demo` does that with servers on loopback, the simulations with
//! hosts of a simulated network.
//!
//! Commands are plain verbs that answer as the API would ([`Swarm::create_service`], [`Swarm::update_service`], …);
//! questions answer in the types of [`crate::swarm::model`]. After a command the shell drains
//! [`poll_action`](crate::machine::Machine::poll_action) and arms the timer, as after a fact.
//!
//! Invariants: a version never falls; an address belongs to one task; of one place of a service at most one task should
//! run, and more only in the middle of an update; a task says `running` only if its process does, or if its node
//! cannot be heard.
//!
//! Left out: jobs, placement preferences, resources, plain containers, and the VIP and ingress mesh as ways for packets
//! (the addresses are given out).

mod address;
mod attributes;
mod command;
mod delays;
mod failure;
mod feed;
mod orchestrate;
mod reap;
mod record;
mod task;
#[cfg(test)]
mod tests;
mod verdict;
mod view;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

pub use attributes::Attributes;
use attributes::Traits;
pub use delays::{Delays, Span};
pub use feed::TaskLog;
pub use record::Loss;
use record::{NetworkRecord, NodeRecord, Place, Process, SecretRecord, ServiceRecord, TaskRecord};

use crate::id::{NetworkId, NodeId, SecretId, ServiceId, TaskId, Version};
use crate::machine::Machine;
use crate::reconcile::desired::ServiceShape;
use crate::rng::Rng;
use crate::swarm::model::{DesiredState, Event, EventAction, EventKind, NetworkAddress, NodeState, TaskState};
use crate::time::{Deadline, Instant, Timers};

/// `StopGracePeriod` where none is set, in milliseconds.
const GRACE_MS: u64 = 10_000;

/// Something that happened to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A started task bound a host-mode port whose number was left open. To be said before it is reported running.
    Bound {
        /// The task.
        task: TaskId,
        /// The port inside the container.
        target: u16,
        /// The port on the node.
        published: u16,
    },
    /// The process of a task ended, by itself or by a signal.
    Exited {
        /// The task.
        task: TaskId,
        /// Its exit code; 0 = success.
        code: i32,
    },
    /// What the health check of a task would find from now on; healthy unless this says otherwise. Counts only where the
    /// service has a check. A task that runs already and turns unhealthy is stopped, and nobody is told (facts §2); one
    /// that does not get healthy after its start is stopped too.
    Health {
        /// The task.
        task: TaskId,
        /// Whether it is healthy.
        healthy: bool,
    },
}

/// Something for the shell to do to a process or a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The network namespace of a task is gone: its addresses swallow packets from now on. Comes 40 … 100 ms after the
    /// end of its process. Where its node is lost: at once without power, soon after its dockerd stops, 6 s after that is
    /// killed; not for a cut link, which is [`Action::Unlink`].
    BlackHole(TaskId),
    /// Every manager's event stream says this, with these attributes.
    Emit(Event, Attributes),
    /// SIGKILL; the answer is [`Fact::Exited`] where the node can still be heard.
    Kill(TaskId),
    /// A node that was cut off can be reached again.
    Rejoin(NodeId),
    /// SIGTERM.
    Signal(TaskId),
    /// Start a process that listens at once.
    Start(Start),
    /// A node is cut off: nothing passes between it and the others.
    Unlink(NodeId),
}

/// A process to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The task.
    pub task: TaskId,
    /// Its service.
    pub service: ServiceId,
    /// Name of the service.
    pub name: String,
    /// Number among the service's tasks; none for global services.
    pub slot: Option<u64>,
    /// The node it runs on.
    pub node: NodeId,
    /// Address of the node.
    pub node_addr: Option<IpAddr>,
    /// What is to run.
    pub shape: Arc<ServiceShape>,
    /// Its addresses on overlay networks.
    pub addresses: Vec<NetworkAddress>,
}

/// What a timer is for. The order is that of timers that are due at one moment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Elected,
    Emit(u64),
    NodeDown(NodeId),
    NodeReady(NodeId),
    ReportEnd(TaskId),
    ReportRunning(TaskId),
    Fill(ServiceId),
    AdvanceUpdate(ServiceId),
    Rested(ServiceId, Place),
    Monitored(ServiceId),
    Promote(TaskId),
    AllocateNetwork(NetworkId),
    Allocate(TaskId),
    Assign(TaskId),
    Prepared(TaskId),
    LeaveDns(TaskId),
    Started(TaskId),
    GiveUp(TaskId),
    Signal(TaskId),
    Kill(TaskId),
    BlackHole(TaskId),
    Reap,
}

impl Due {
    fn why(&self) -> &'static str {
        match self {
            Due::Elected => "a leader is elected",
            Due::Emit(_) => "an event reaches managers",
            Due::NodeDown(_) => "a lost node is noticed",
            Due::NodeReady(_) => "a node reports to the new leader",
            Due::ReportEnd(_) => "the end of a task is reported",
            Due::ReportRunning(_) => "a task is reported running",
            Due::Fill(_) => "the orchestrator fills a service",
            Due::AdvanceUpdate(_) => "the updater takes its next step",
            Due::Rested(..) => "an update delay ends",
            Due::Monitored(_) => "an update has been watched long enough",
            Due::Promote(_) => "a waiting task may start",
            Due::AllocateNetwork(_) => "a network gets its driver",
            Due::Allocate(_) => "a task gets its addresses",
            Due::Assign(_) => "a task gets its node",
            Due::Prepared(_) => "a container is made",
            Due::LeaveDns(_) => "an address leaves DNS",
            Due::Started(_) => "a process listens",
            Due::GiveUp(_) => "a start has been unhealthy for too long",
            Due::Signal(_) => "SIGTERM",
            Due::Kill(_) => "a grace period ends",
            Due::BlackHole(_) => "a network namespace goes",
            Due::Reap => "dead tasks leave the lists",
        }
    }

    /// What a node does by itself goes on without a leader; everything else waits for one (facts §4).
    fn needs_leader(&self) -> bool {
        match self {
            Due::Elected
            | Due::Emit(_)
            | Due::LeaveDns(_)
            | Due::Started(_)
            | Due::GiveUp(_)
            | Due::Signal(_)
            | Due::Kill(_)
            | Due::BlackHole(_) => false,
            Due::NodeDown(_)
            | Due::NodeReady(_)
            | Due::ReportEnd(_)
            | Due::ReportRunning(_)
            | Due::Fill(_)
            | Due::AdvanceUpdate(_)
            | Due::Rested(..)
            | Due::Monitored(_)
            | Due::Promote(_)
            | Due::AllocateNetwork(_)
            | Due::Allocate(_)
            | Due::Assign(_)
            | Due::Prepared(_)
            | Due::Reap => true,
        }
    }
}

/// A time without a leader, and what waits for the next one.
#[derive(Clone, Debug)]
struct Leaderless {
    since: Instant,
    waiting: BTreeSet<Due>,
}

/// The model. A copy of it is what a manager that is cut off still believes.
#[derive(Clone, Debug)]
pub struct Swarm {
    delays: Delays,
    rng: Rng,
    raft: u64,
    born: u64,
    networks_made: u64,
    services: BTreeMap<ServiceId, ServiceRecord>,
    tasks: BTreeMap<TaskId, TaskRecord>,
    nodes: BTreeMap<NodeId, NodeRecord>,
    networks: BTreeMap<NetworkId, NetworkRecord>,
    secrets: BTreeMap<SecretId, SecretRecord>,
    /// Names of configs.
    configs: BTreeSet<String>,
    /// Images that no registry has.
    missing_images: BTreeSet<String>,
    /// Set while there is no leader.
    leaderless: Option<Leaderless>,
    timers: Timers<Due>,
    /// Events on their way, by number.
    events: BTreeMap<u64, (Event, Attributes)>,
    events_sent: u64,
    last_event_at: Instant,
    /// What was the case when an event last told of an object.
    told: BTreeMap<(EventKind, String), Traits>,
    actions: VecDeque<Action>,
}

impl Swarm {
    /// A Swarm with the ingress network and without nodes.
    pub fn new(delays: Delays, rng: Rng) -> Self {
        let mut swarm = Swarm {
            delays,
            rng,
            raft: 10,
            born: 0,
            networks_made: 0,
            services: BTreeMap::new(),
            tasks: BTreeMap::new(),
            nodes: BTreeMap::new(),
            networks: BTreeMap::new(),
            secrets: BTreeMap::new(),
            configs: BTreeSet::new(),
            missing_images: BTreeSet::new(),
            leaderless: None,
            timers: Timers::new(),
            events: BTreeMap::new(),
            events_sent: 0,
            last_event_at: Instant::START,
            told: BTreeMap::new(),
            actions: VecDeque::new(),
        };
        let ingress = swarm.add_network("ingress", true, false);
        swarm.allocate_network(&ingress, Instant::START);
        swarm
    }

    /// The next Raft index: every change of an object takes one.
    fn next_version(&mut self) -> Version {
        self.raft += 1;
        Version(self.raft)
    }

    /// An id as Docker makes them: 25 characters that say nothing.
    fn new_id(&mut self) -> String {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        (0..25)
            .map(|_| char::from(DIGITS[self.rng.index(DIGITS.len())]))
            .collect()
    }

    /// Lets `event` reach managers after its delay, never before an older one.
    fn emit(&mut self, kind: EventKind, action: EventAction, id: &str, now: Instant) {
        let at = (now + self.delays.event.draw(&mut self.rng)).max(self.last_event_at);
        self.last_event_at = at;
        self.events_sent += 1;
        let event = Event {
            kind,
            action,
            id: String::from(id),
        };
        let attributes = self.attributes(kind, id);
        self.events.insert(self.events_sent, (event, attributes));
        self.timers.set(Due::Emit(self.events_sent), at);
    }

    fn after(&mut self, due: Due, delay: Span, now: Instant) {
        let delay = delay.draw(&mut self.rng);
        self.timers.set(due, now + delay);
    }

    /// Forgets a timer, also one that waits for a leader.
    fn clear(&mut self, due: &Due) {
        self.timers.clear(due);
        if let Some(leaderless) = &mut self.leaderless {
            leaderless.waiting.remove(due);
        }
        for node in self.nodes.values_mut() {
            node.untold.remove(due);
        }
    }

    /// The node that has to tell of `due`, if the leader has yet to hear of that node.
    fn unheard_teller(&mut self, due: &Due) -> Option<&mut NodeRecord> {
        let (Due::Prepared(task) | Due::ReportEnd(task) | Due::ReportRunning(task)) = due else {
            return None;
        };
        let node = self.tasks.get(task)?.task.node.as_ref()?;
        self.nodes
            .get_mut(node)
            .filter(|record| record.node.state == NodeState::Unknown)
    }

    fn fire(&mut self, due: Due, now: Instant) {
        match due {
            Due::Elected => self.elected(now),
            Due::Emit(number) => {
                let told = self.events.remove(&number);
                self.actions
                    .extend(told.map(|(event, attributes)| Action::Emit(event, attributes)));
            }
            Due::NodeDown(node) => self.node_down(&node, now),
            Due::NodeReady(node) => self.node_ready(&node, now),
            Due::ReportEnd(task) => self.report_end(&task, now),
            Due::ReportRunning(task) => self.report_running(&task, now),
            Due::Fill(service) => self.fill(&service, now),
            Due::AdvanceUpdate(service) => self.advance_update(&service, now),
            Due::Rested(service, place) => self.rested(&service, &place, now),
            Due::Monitored(service) => self.monitored(&service, now),
            Due::Promote(task) => self.promote(&task, now),
            Due::AllocateNetwork(network) => self.allocate_network(&network, now),
            Due::Allocate(task) => self.allocate(&task, now),
            Due::Assign(task) => self.assign(&task, now),
            Due::Prepared(task) => self.prepared(&task, now),
            Due::LeaveDns(task) => {
                if let Some(record) = self.tasks.get_mut(&task) {
                    record.in_dns = false;
                }
            }
            Due::Started(task) => self.started(&task, now),
            Due::GiveUp(task) => self.give_up(&task, now),
            Due::Signal(task) => self.signal(&task, now),
            Due::Kill(task) => self.kill(&task),
            Due::BlackHole(task) => self.actions.push_back(Action::BlackHole(task)),
            Due::Reap => self.reap(),
        }
    }
}

impl Machine for Swarm {
    type Fact = Fact;
    type Action = Action;

    fn handle(&mut self, fact: Fact, now: Instant) {
        match fact {
            Fact::Bound {
                task,
                target,
                published,
            } => self.bound(&task, target, published),
            Fact::Exited { task, code } => self.exited(&task, code, now),
            Fact::Health { task, healthy } => self.health(&task, healthy, now),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.timers.pop_due(now) {
            match &mut self.leaderless {
                Some(leaderless) if due.needs_leader() => _ = leaderless.waiting.insert(due),
                Some(_) | None => match self.unheard_teller(&due) {
                    Some(node) => _ = node.untold.insert(due),
                    None => self.fire(due, now),
                },
            }
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.timers.next().map(|(due, at)| Deadline { at, why: due.why() })
    }

    fn check_invariants(&self) {
        for record in self.tasks.values() {
            let task = &record.task;
            assert!(task.version.0 <= self.raft, "{} is newer than the log", task.id);
            let unheard = task
                .node
                .as_ref()
                .and_then(|node| self.nodes.get(node))
                .is_some_and(|node| node.loss.is_some());
            let report = Due::ReportEnd(task.id.clone());
            let waits = self
                .leaderless
                .as_ref()
                .is_some_and(|leaderless| leaderless.waiting.contains(&report))
                || self.nodes.values().any(|node| node.untold.contains(&report));
            let reported = self.timers.get(&report).is_none() && !waits;
            assert!(
                task.state != TaskState::Running || record.process == Process::Running || unheard || !reported,
                "{} is said to run and does not",
                task.id
            );
            assert!(
                !task.is_over() || record.process != Process::Running,
                "{} is said to be over and runs",
                task.id
            );
            for held in task.addresses.iter().filter(|_| record.holds_addresses) {
                assert!(
                    self.networks
                        .get(&held.network)
                        .is_none_or(|network| network.subnet.holds(held.addr)),
                    "{} has an address that nobody gave it",
                    task.id
                );
            }
        }
        let mut taken: Vec<_> = self
            .tasks
            .values()
            .filter(|record| record.holds_addresses)
            .flat_map(|record| &record.task.addresses)
            .collect();
        taken.sort();
        assert!(
            taken.windows(2).all(|pair| pair[0] != pair[1]),
            "two tasks have one address"
        );
        for service in self.services.values() {
            assert!(service.version.0 <= self.raft, "{} is newer than the log", service.id);
            let mut wanted: BTreeMap<&Place, usize> = BTreeMap::new();
            for record in self.tasks.values() {
                if record.task.service == service.id && record.task.desired == DesiredState::Running {
                    *wanted.entry(&record.place).or_default() += 1;
                }
            }
            for (place, count) in wanted {
                // What a change interrupted is mended when the updater begins anew, place by place.
                let most = service
                    .update
                    .as_ref()
                    .map_or(1, |update| match update.steps.get(place) {
                        Some(step) => 1 + step.old.len(),
                        None => usize::MAX,
                    });
                assert!(
                    count <= most,
                    "{count} tasks of {} should run at {place:?}, {:?}: {:#?}",
                    service.shape.name,
                    service.update,
                    self.tasks
                        .values()
                        .filter(|record| record.task.service == service.id && record.place == *place)
                        .collect::<Vec<_>>()
                );
            }
        }
    }
}
