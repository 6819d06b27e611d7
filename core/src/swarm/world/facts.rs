//! Vocabulary of the [`World`](super::World): its settings, facts, actions, changes and counters.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use super::Lane;
use crate::id::{NetworkId, NodeId, SecretId, ServiceId, Version};
use crate::reconcile::desired::ManagedService;
use crate::settings::ControllerSettings;
use crate::swarm::model::{ApiError, Event, FeedEnd, Network, Node, Secret, Service, Task, TaskEvent};
use crate::time::Duration;

/// How often and how patiently the world looks. Every field has a default that suits 500 services and 5,000 tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorldSettings {
    /// Between looks at all tasks, the safety net under events. Default 5 s.
    pub tasks_every: Duration,
    /// Between looks at each other list. Default 30 s.
    pub lists_every: Duration,
    /// Between looks at services and nodes while the event stream is closed. Default 1 s.
    pub blind_every: Duration,
    /// First interval of the looks at tasks of services that change; grows to its double. Default 50 ms.
    pub poll_changing: Duration,
    /// Interval for a service that does not come to rest for `slow_after`. Default 1 s.
    pub poll_slow: Duration,
    /// Default 60 s without a task that is newly told to stop.
    pub slow_after: Duration,
    /// A service that never rests is left to the regular look then. Default 10 min.
    pub give_up_after: Duration,
    /// How long a service is watched after it came to rest, at four times `poll_changing`. Default 12 s, which spans
    /// the usual delay between two steps of a rolling update.
    pub linger: Duration,
    /// From an event to the look that it causes, so that a burst of events is one reason. Default 5 ms.
    pub coalesce: Duration,
    /// Least pause between two lists of one kind. Default 50 ms.
    pub pause: Duration,
    /// More services than this are looked at through the list of all services, more changing ones through that of all tasks.
    /// Default 20.
    pub some_max: usize,
    /// An object that vanishes unexplained is gone when a second list lacks it this much later. Default 1 s.
    pub confirm: Duration,
    /// The same for a list that is empty all at once. Default 10 s.
    pub confirm_empty: Duration,
    /// The same for a network that nothing refers to. Default 10 s.
    pub confirm_network: Duration,
    /// First pause after an error; doubles. Default 100 ms.
    pub retry_min: Duration,
    /// Longest pause after an error. Default 2 s.
    pub retry_max: Duration,
    /// A call without an answer counts as lost then; the shell's own limit is shorter. Default 10 s.
    pub answer_limit: Duration,
    /// Whether task changes are to be had from SwarmKit's watch. Default false.
    pub feed: bool,
    /// Between looks at a changing service while the feed is open and tells of nothing; four times as long once it came to
    /// rest. Default 500 ms: a task that is told to
    /// stop serves on for 1.1 s at least (facts §1.1), so also a feed that is silent makes nobody late.
    pub poll_fed: Duration,
    /// What a list shows the feed must tell within this, or it counts as silent. Default 2 s.
    pub feed_grace: Duration,
}

impl Default for WorldSettings {
    fn default() -> Self {
        WorldSettings {
            tasks_every: Duration::from_secs(5),
            lists_every: Duration::from_secs(30),
            blind_every: Duration::from_secs(1),
            poll_changing: Duration::from_millis(50),
            poll_slow: Duration::from_secs(1),
            slow_after: Duration::from_secs(60),
            give_up_after: Duration::from_secs(600),
            linger: Duration::from_secs(12),
            coalesce: Duration::from_millis(5),
            pause: Duration::from_millis(50),
            some_max: 20,
            confirm: Duration::from_secs(1),
            confirm_empty: Duration::from_secs(10),
            confirm_network: Duration::from_secs(10),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(2),
            answer_limit: Duration::from_secs(10),
            feed: false,
            poll_fed: Duration::from_millis(500),
            feed_grace: Duration::from_secs(2),
        }
    }
}

impl From<&ControllerSettings> for WorldSettings {
    fn from(settings: &ControllerSettings) -> Self {
        // Zero would be a tight loop.
        let millis = |ms: u32| Duration::from_millis(u64::from(ms).max(10));
        WorldSettings {
            tasks_every: match settings.poll_tasks_ms {
                0 => Duration::from_secs(365 * 86_400),
                ms => millis(ms),
            },
            poll_changing: millis(settings.poll_changing_ms),
            answer_limit: millis(settings.docker_timeout_ms) * 2 + Duration::from_secs(1),
            feed: !settings.swarm_watch.is_empty(),
            ..WorldSettings::default()
        }
    }
}

/// Names one fetch; an answer to one that is not under way any more is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FetchId(pub u64);

/// Names one event stream or feed; opening a new one replaces the older of its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamId(pub u64);

/// A list to ask Docker for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fetch {
    /// `GET /services` with label `tidegate.role`, whole shapes.
    Managed,
    /// `GET /networks`
    Networks,
    /// `GET /nodes`
    Nodes,
    /// `GET /secrets`
    Secrets,
    /// `GET /services`, these alone unless the list is empty. One that is gone is missing from the answer.
    Services(Vec<ServiceId>),
    /// `GET /tasks`, of these services alone unless the list is empty. Docker answers 404 if one of them is unknown.
    Tasks(Vec<ServiceId>),
}

impl Fetch {
    /// The services that it asks for; none if for all of its kind.
    pub fn of(&self) -> &[ServiceId] {
        match self {
            Fetch::Services(of) | Fetch::Tasks(of) => of,
            Fetch::Managed | Fetch::Networks | Fetch::Nodes | Fetch::Secrets => &[],
        }
    }

    /// Whether it asks for some objects of its kind and not for all: a look, and no list.
    pub fn is_partial(&self) -> bool {
        !self.of().is_empty()
    }

    /// The lane that this belongs to.
    pub fn lane(&self) -> Lane {
        match self {
            Fetch::Managed => Lane::Managed,
            Fetch::Networks => Lane::Networks,
            Fetch::Nodes => Lane::Nodes,
            Fetch::Secrets => Lane::Secrets,
            Fetch::Services(_) => Lane::Services,
            Fetch::Tasks(_) => Lane::Tasks,
        }
    }
}

/// A list as Docker gave it, in any order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Fetch::Managed`].
    Managed(Vec<ManagedService>),
    /// To [`Fetch::Networks`].
    Networks(Vec<Network>),
    /// To [`Fetch::Nodes`].
    Nodes(Vec<Node>),
    /// To [`Fetch::Secrets`].
    Secrets(Vec<Secret>),
    /// To [`Fetch::Services`].
    Services(Vec<Service>),
    /// To [`Fetch::Tasks`].
    Tasks(Vec<Task>),
}

/// What the world is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorldFact {
    /// The answer to a fetch, or why there is none.
    Answer {
        /// The fetch.
        id: FetchId,
        /// Its answer.
        result: Result<Answer, ApiError>,
    },
    /// Docker sent an event.
    Event(Event),
    /// The stream ended, or could not be opened; no error where the engine closed it in order.
    EventStreamClosed {
        /// The stream.
        stream: StreamId,
        /// Why.
        error: Option<ApiError>,
    },
    /// The stream is open: what happens from now on is in it.
    EventStreamOpened(StreamId),
    /// The feed ended, or could not be opened.
    FeedClosed {
        /// The feed.
        stream: StreamId,
        /// Why.
        end: FeedEnd,
    },
    /// The feed tells of changes of tasks, in the order in which they were made.
    FeedEvents(Vec<TaskEvent>),
    /// The feed is open: what happens from now on is in it, and all since the version from which it resumes.
    FeedOpened(StreamId),
    /// Somebody needs a fresh look, e.g. after a write.
    Look(Lane),
}

/// What the world wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorldAction {
    /// The model differs from before this mutation; at most once per mutation.
    Changed(Changes),
    /// Ask Docker, with a limit on the call. The answer comes back as [`WorldFact::Answer`].
    Fetch {
        /// Goes back with the answer.
        id: FetchId,
        /// What to ask.
        fetch: Fetch,
    },
    /// Open `GET /events`; drop an earlier stream. What becomes of it comes back with `stream`.
    OpenEvents(StreamId),
    /// Open SwarmKit's watch of tasks; drop an earlier one. What becomes of it comes back with `id`.
    OpenFeed {
        /// Goes back with the news.
        id: StreamId,
        /// Tell all changes since this version; none = from now on.
        resume_from: Option<Version>,
    },
    /// Services, tasks, networks and nodes have all been listed once: the model can be acted on. Said once, after
    /// the last `Changed` that completes it.
    Synced,
}

/// Exactly what differs after a mutation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Services that appeared, changed or went, and those with a task that did.
    pub services: BTreeSet<ServiceId>,
    /// Networks.
    pub networks: BTreeSet<NetworkId>,
    /// Nodes.
    pub nodes: BTreeSet<NodeId>,
    /// Secrets.
    pub secrets: BTreeSet<SecretId>,
    /// Services that Tidegate manages, as shapes.
    pub managed: BTreeSet<ServiceId>,
}

impl Changes {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }

    /// Adds what `other` has.
    pub fn merge(&mut self, other: Changes) {
        self.services.extend(other.services);
        self.networks.extend(other.networks);
        self.nodes.extend(other.nodes);
        self.secrets.extend(other.secrets);
        self.managed.extend(other.managed);
    }
}

/// Counts since the start, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorldCounters {
    /// Fetches sent, by lane.
    pub fetches: BTreeMap<Lane, u64>,
    /// Fetches without a usable answer, by lane.
    pub failures: BTreeMap<Lane, u64>,
    /// Events received.
    pub events: u64,
    /// Event streams opened.
    pub streams: u64,
    /// Changes of tasks that the feed told.
    pub feed_events: u64,
    /// Times that the feed was closed because a list showed what it had not told.
    pub feed_silences: u64,
    /// Feeds opened.
    pub feeds: u64,
    /// Objects in answers that were older than what is known, and so were not believed.
    pub outdated: u64,
    /// Times that a known object was missing from an answer and was kept for now.
    pub kept: u64,
}
