//! What the model knows about each object beyond what the API shows of it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Due;
use super::address::Subnet;
use crate::id::{NodeId, ServiceId, TaskId, Version};
use crate::reconcile::desired::ServiceShape;
use crate::swarm::model::{Network, NetworkAddress, Node, PublishedPort, Secret, Task};
use crate::time::Instant;

/// Which of a service's places a task fills.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Of a global service: the node.
    Node(NodeId),
    /// Of a replicated service: the slot.
    Slot(u64),
}

#[derive(Clone, Debug)]
pub(super) struct ServiceRecord {
    pub(super) id: ServiceId,
    pub(super) version: Version,
    pub(super) created_at: String,
    pub(super) shape: Arc<ServiceShape>,
    /// Names of the configs that its tasks mount. No shape has them: Tidegate uses none.
    pub(super) configs: BTreeSet<String>,
    /// `PreviousSpec`: the shape and the configs before the last change.
    pub(super) previous: Option<(Arc<ServiceShape>, BTreeSet<String>)>,
    pub(super) virtual_ips: Vec<NetworkAddress>,
    pub(super) update: Option<Update>,
    /// `UpdateStatus.State`: no witness of what goes on, any change wipes it (facts §11.11).
    pub(super) update_state: Option<&'static str>,
}

impl ServiceRecord {
    /// Takes another spec and remembers the one before.
    pub(super) fn change(&mut self, (shape, configs): (Arc<ServiceShape>, BTreeSet<String>)) {
        let shape = core::mem::replace(&mut self.shape, shape);
        self.previous = Some((shape, core::mem::replace(&mut self.configs, configs)));
    }

    /// Begins an update that replaces the tasks that are not as the spec says. It knows nothing of the steps under way before.
    pub(super) fn begin_update(&mut self) -> &mut Update {
        self.update_state = None;
        self.update.insert(Update::default())
    }

    /// Whether a task is as the spec says. Docker compares by value: what comes back to an old spec keeps old tasks.
    pub(super) fn is_current(&self, task: &TaskRecord) -> bool {
        task.configs == self.configs
            && (Arc::ptr_eq(&task.shape, &self.shape) || !replaces_tasks(&task.shape, &self.shape))
    }

    /// Begins a rollback to the shape before; false, and nothing changed, where there is none.
    pub(super) fn roll_back(&mut self) -> bool {
        let Some(previous) = self.previous.take() else {
            return false;
        };
        self.change(previous);
        self.begin_update().rollback = true;
        self.update_state = Some("rollback_started");
        true
    }
}

/// A rolling update under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Update {
    /// Whether the updater has looked at the places, and has said so.
    pub(super) has_begun: bool,
    pub(super) steps: BTreeMap<Place, Step>,
    /// The tasks that it made, and since when each runs: their failures are its own as long as it watches them.
    pub(super) made: BTreeMap<TaskId, Option<Instant>>,
    /// Places whose step is done and whose delay runs.
    pub(super) resting: BTreeSet<Place>,
    pub(super) rollback: bool,
}

/// One place being updated.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) old: Vec<TaskId>,
    pub(super) new: TaskId,
}

/// The process of a task, as its node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    None,
    Running,
    Ended { code: i32 },
}

#[derive(Clone, Debug)]
pub(super) struct TaskRecord {
    pub(super) task: Task,
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) shape: Arc<ServiceShape>,
    pub(super) configs: BTreeSet<String>,
    pub(super) process: Process,
    pub(super) in_dns: bool,
    /// What its health check would find.
    pub(super) healthy: bool,
    /// It did not get healthy after its start and is being stopped for that.
    pub(super) given_up: bool,
    /// Its process ends before its node hears that it should.
    pub(super) ended_alone: bool,
    /// The task that must have ended before this one may start.
    pub(super) waits_for: Option<TaskId>,
    /// Addresses are held until the end is reported; the task's own list of them stays.
    pub(super) holds_addresses: bool,
    /// Ports as the shell really bound them.
    pub(super) bound: Vec<PublishedPort>,
    /// Order of creation; ids say nothing about it.
    pub(super) born: u64,
}

/// Why a node cannot be heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Its dockerd is killed: apps run on, are cut off after some seconds, and get SIGTERM when it starts again.
    Crash,
    /// Its dockerd stops as at a reboot: apps get SIGTERM at once and are soon cut off.
    Dockerd,
    /// Its network is cut; apps run on.
    Link,
    /// Power off.
    Power,
}

/// What an operator lets a node do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Availability {
    Active,
    /// Everything leaves it.
    Drain,
    /// It keeps what it has and gets nothing new.
    Pause,
}

#[derive(Clone, Debug)]
pub(super) struct NodeRecord {
    pub(super) node: Node,
    pub(super) availability: Availability,
    pub(super) version: Version,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) loss: Option<Loss>,
    /// After a loss: tells of the ends of its tasks from this moment on.
    pub(super) reports_from: Instant,
    /// What it has to tell, and cannot before a new leader has heard of it.
    pub(super) untold: BTreeSet<Due>,
    pub(super) next_port: u16,
}

#[derive(Clone, Debug)]
pub(super) struct NetworkRecord {
    pub(super) network: Network,
    pub(super) subnet: Subnet,
}

#[derive(Clone, Debug)]
pub(super) struct SecretRecord {
    pub(super) secret: Secret,
    pub(super) data: Vec<u8>,
}

/// Whether a change from `a` to `b` replaces tasks (facts §6): everything but labels, replicas, update policy and
/// placement.
pub(super) fn replaces_tasks(a: &ServiceShape, b: &ServiceShape) -> bool {
    template(a) != template(b)
}

/// What tasks are made of.
pub(super) fn template(shape: &ServiceShape) -> ServiceShape {
    ServiceShape {
        labels: BTreeMap::new(),
        replicas: None,
        constraints: BTreeSet::new(),
        spread: Vec::new(),
        update: crate::reconcile::desired::UpdatePolicy::default(),
        ..shape.clone()
    }
}
