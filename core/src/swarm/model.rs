//! Docker facts as plain data: what `/services`, `/tasks`, `/networks`, `/nodes`, `/secrets` and `/events` say, cut to
//! what Tidegate decides by. Unknown states become `Other`, never an error: engines newer than us exist.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

use crate::id::{NetworkId, NodeId, SecretId, ServiceId, TaskId, Version};
use crate::time::Duration;

/// Label that every task's service of a stack carries: the stack's name.
pub const STACK_LABEL: &str = "com.docker.stack.namespace";

/// A Swarm service, from `GET /services`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `ID`
    pub id: ServiceId,
    /// `Spec.Name`
    pub name: String,
    /// `Version.Index`
    pub version: Version,
    /// `CreatedAt`, as the RFC 3339 text that Docker sends (UTC, so text order is time order).
    pub created_at: String,
    /// `UpdatedAt`: when the managers' leader last wrote the object, since 1970 by its clock. None where nobody says.
    pub updated_at: Option<Duration>,
    /// `Spec.Labels`: service labels, not container labels.
    pub labels: BTreeMap<String, String>,
    /// `Spec.Mode`
    pub mode: ServiceMode,
    /// `Spec.EndpointSpec.Mode`
    pub endpoint_mode: EndpointMode,
    /// `Endpoint.VirtualIPs`; none with [`EndpointMode::Dnsrr`]. Sorted by network.
    pub virtual_ips: Vec<NetworkAddress>,
    /// `Spec.EndpointSpec.Ports`, in Docker's order.
    pub ports: Vec<PublishedPort>,
    /// `Spec.TaskTemplate.Networks[].Target` (an id or a name, as it was written), in the order of the spec.
    pub networks: Vec<String>,
    /// Whether `Spec.TaskTemplate.ContainerSpec.Healthcheck` or the image's own is known to exist.
    pub has_health_check: bool,
}

impl Service {
    /// The stack that the service belongs to, if any.
    pub fn stack(&self) -> Option<&str> {
        self.labels.get(STACK_LABEL).map(String::as_str)
    }
}

/// `Spec.Mode` of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceMode {
    /// One task on every node that fits.
    Global,
    /// Runs to completion; never routed.
    Job,
    /// A number of tasks.
    Replicated {
        /// How many.
        replicas: u64,
    },
}

/// `Spec.EndpointSpec.Mode` of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndpointMode {
    /// DNS round robin: no virtual IP.
    Dnsrr,
    /// A virtual IP per network.
    Vip,
}

/// An address on a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetworkAddress {
    /// The network.
    pub network: NetworkId,
    /// The address, without its prefix length.
    pub addr: IpAddr,
}

/// A published port, of a service's spec or as really bound by a task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Whether the port is TCP; UDP and SCTP are not routed.
    pub tcp: bool,
    /// The port inside the container.
    pub target: u16,
    /// The port on the node; `None` where Docker has yet to choose one.
    pub published: Option<u16>,
    /// How it is published.
    pub mode: PublishMode,
}

/// How a port is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PublishMode {
    /// On the nodes that run a task.
    Host,
    /// On every node, through the routing mesh.
    Ingress,
}

/// A Swarm task, from `GET /tasks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// `ID`
    pub id: TaskId,
    /// `ServiceID`
    pub service: ServiceId,
    /// `Version.Index`
    pub version: Version,
    /// `UpdatedAt`, as for a service. Several writes between two looks show as the last one.
    pub updated_at: Option<Duration>,
    /// `Slot`; none for global services.
    pub slot: Option<u64>,
    /// `NodeID`; none until assigned.
    pub node: Option<NodeId>,
    /// `Status.State`
    pub state: TaskState,
    /// `DesiredState`
    pub desired: DesiredState,
    /// `NetworksAttachments[]`, first address each, sorted by network.
    pub addresses: Vec<NetworkAddress>,
    /// `Status.PortStatus.Ports`, without the duplicates that Docker lists for IPv6.
    pub ports: Vec<PublishedPort>,
    /// `Status.Err`, empty if none.
    pub error: String,
}

impl Task {
    /// See [`TaskState::serves`].
    pub fn is_serving(&self) -> bool {
        self.state.serves(self.desired)
    }

    /// See [`TaskState::leaves`].
    pub fn is_leaving(&self) -> bool {
        self.state.leaves(self.desired)
    }

    /// See [`TaskState::is_over`].
    pub fn is_over(&self) -> bool {
        self.state.is_over()
    }
}

/// `Status.State` of a task. Ordered as a task lives: everything above `Running` has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Created.
    New,
    /// Addresses are allocated.
    Pending,
    /// On a node.
    Assigned,
    /// Seen by the node.
    Accepted,
    /// Pulling its image.
    Preparing,
    /// Container made.
    Ready,
    /// Process starting, or its health check has yet to pass.
    Starting,
    /// Process started and, with a health check, healthy.
    Running,
    /// Ended with success.
    Complete,
    /// Ended as told.
    Shutdown,
    /// Ended with an error.
    Failed,
    /// The node refused it.
    Rejected,
    /// To be removed.
    Remove,
    /// Its node has been lost for 24 hours.
    Orphaned,
    /// A state this version does not know; counts as ended.
    Other,
}

impl TaskState {
    /// Serving rule: both states say running. `Status.State` alone stays `running` for seconds after the decision to
    /// stop, and for ever on dead nodes.
    pub fn serves(self, desired: DesiredState) -> bool {
        self == TaskState::Running && desired == DesiredState::Running
    }

    /// Told to stop, and its process may still run.
    pub fn leaves(self, desired: DesiredState) -> bool {
        self == TaskState::Running && desired.is_past_running()
    }

    /// Nothing of the task runs or will run any more.
    pub fn is_over(self) -> bool {
        self > TaskState::Running
    }
}

/// `DesiredState` of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DesiredState {
    /// Any state before `ready` that Docker may name.
    New,
    /// A stop-first successor waits.
    Ready,
    /// Should run.
    Running,
    /// A job that may end.
    Complete,
    /// Told to stop: update, drain, node loss, crash.
    Shutdown,
    /// Told to stop and to go: scale-down, service removal.
    Remove,
    /// A state this version does not know; not past running, so it removes nothing.
    Other,
}

impl DesiredState {
    /// The only early signal that a task will stop (facts: 3.1 s before SIGTERM with an overlay, 1.1 s without).
    pub fn is_past_running(self) -> bool {
        matches!(
            self,
            DesiredState::Complete | DesiredState::Shutdown | DesiredState::Remove
        )
    }
}

/// A Docker network, from `GET /networks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// `Id`
    pub id: NetworkId,
    /// `Name`
    pub name: String,
    /// `Scope == "swarm"`
    pub swarm_scope: bool,
    /// `Driver`
    pub driver: String,
    /// `Attachable`
    pub attachable: bool,
    /// The routing mesh's own network.
    pub ingress: bool,
    /// `Labels`
    pub labels: BTreeMap<String, String>,
}

/// A Swarm node, from `GET /nodes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// `ID`
    pub id: NodeId,
    /// `Description.Hostname`
    pub hostname: String,
    /// `Status.Addr`; none where Docker does not say.
    pub addr: Option<IpAddr>,
    /// `Spec.Role == "manager"`
    pub manager: bool,
    /// `Spec.Availability == "active"`
    pub active: bool,
    /// `Status.State`
    pub state: NodeState,
}

/// `Status.State` of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// Heartbeats stopped.
    Down,
    /// Heartbeats arrive.
    Ready,
    /// Said of every node for 0.3 … 10 s after each election. Not down.
    Unknown,
}

/// A Docker secret, from `GET /secrets`. Its content is never in the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// `ID`
    pub id: SecretId,
    /// `Spec.Name`
    pub name: String,
    /// `Spec.Labels`
    pub labels: BTreeMap<String, String>,
}

/// One message of `GET /events`. Only ever a reason to look: its content lies at times (a restarted manager replays
/// history with old timestamps).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// `Type`
    pub kind: EventKind,
    /// `Action`
    pub action: EventAction,
    /// `Actor.ID`
    pub id: String,
}

/// `Type` of an event, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EventKind {
    /// A service.
    Service,
    /// A node.
    Node,
    /// A network.
    Network,
    /// A secret.
    Secret,
    /// Anything else.
    Other,
}

/// `Action` of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EventAction {
    /// Made.
    Create,
    /// Changed.
    Update,
    /// Gone.
    Remove,
    /// Anything else.
    Other,
}

/// One change of a task, from SwarmKit's watch. As an event, only ever a reason to look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskEvent {
    /// What happened to the record of the task.
    pub action: EventAction,
    /// `id`
    pub task: TaskId,
    /// `service_id`; empty for tasks that attach plain containers to networks.
    pub service: ServiceId,
    /// `meta.version.index`, the same as in the API.
    pub version: Version,
    /// `status.state`
    pub state: TaskState,
    /// `desired_state`
    pub desired: DesiredState,
}

impl TaskEvent {
    /// What is told of a task as it is.
    pub fn of(task: &Task, action: EventAction) -> TaskEvent {
        TaskEvent {
            action,
            task: task.id.clone(),
            service: task.service.clone(),
            version: task.version,
            state: task.state,
            desired: task.desired,
        }
    }

    /// See [`TaskState::serves`].
    pub fn is_serving(&self) -> bool {
        self.state.serves(self.desired)
    }

    /// See [`TaskState::leaves`].
    pub fn is_leaving(&self) -> bool {
        self.state.leaves(self.desired)
    }

    /// See [`TaskState::is_over`].
    pub fn is_over(&self) -> bool {
        self.state.is_over()
    }
}

/// Why SwarmKit's watch ended, or could not be had. Tasks are polled then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedEnd {
    /// It broke off, or the manager could not be reached; it may be resumed.
    #[error("the SwarmKit watch broke: {0}")]
    Broken(ApiError),
    /// What came next cannot be had: the version to resume from is compacted or of the future, or a message is too long or
    /// unreadable. All must be listed again.
    #[error("the SwarmKit watch cannot go on without a gap: {0}")]
    Gap(String),
    /// There is none: no socket, not a manager, no permission, another API.
    #[error("there is no SwarmKit watch: {0}")]
    NotThere(String),
}

/// Why the Docker API gave no usable answer. None of these ever removes a route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ApiError {
    /// A stale version at a write; look again (HTTP 500 `update out of sequence`).
    #[error("the object changed meanwhile: {0}")]
    Conflict(String),
    /// A name is taken (HTTP 409).
    #[error("the name is taken: {0}")]
    Exists(String),
    /// The engine gave no answer within the limit, or the connection failed.
    #[error("cannot reach Docker: {0}")]
    Unreachable(String),
    /// The object is unknown (HTTP 404).
    #[error("not found: {0}")]
    NotFound(String),
    /// Not a manager, or one that is stopping (HTTP 503). Not a demotion.
    #[error("this node is not a swarm manager now: {0}")]
    NotManager(String),
    /// The answer is not what the API promises: cut short, not JSON, fields missing.
    #[error("an answer of Docker cannot be read: {0}")]
    Garbled(String),
    /// Docker refused the request for good (HTTP 4xx).
    #[error("Docker refused: {0}")]
    Refused(String),
    /// Any other failure of the engine (HTTP 5xx).
    #[error("Docker failed: {0}")]
    Server(String),
}
