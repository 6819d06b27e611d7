//! A world at work in a test: the Swarm as it is, the questions that wait, and time.

use std::string::String;
use std::vec::Vec;
use std::{format, vec};

use super::*;
use crate::id::Version;
use crate::machine::{Input, step};
use crate::swarm::model::{
    DesiredState, EndpointMode, Event, EventAction, EventKind, FeedEnd, NetworkAddress, NodeState, ServiceMode,
    TaskEvent, TaskState,
};

/// A Swarm as it really is, to answer from.
#[derive(Clone, Debug, Default)]
pub(super) struct Truth {
    pub(super) services: BTreeMap<ServiceId, Service>,
    pub(super) tasks: BTreeMap<TaskId, Task>,
    pub(super) networks: BTreeMap<NetworkId, Network>,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) version: u64,
}

impl Truth {
    /// `shop` with two serving tasks on network `edge`, `api` with one, node `worker`.
    pub(super) fn small() -> Truth {
        let mut truth = Truth::default();
        truth.node("worker", NodeState::Ready);
        truth.network("edge");
        truth.network("back");
        truth.service("shop", 2);
        truth.service("api", 1);
        for (task, service) in [("shop.1", "shop"), ("shop.2", "shop"), ("api.1", "api")] {
            truth.task(task, service, TaskState::Running, DesiredState::Running);
        }
        truth
    }

    pub(super) fn next(&mut self) -> Version {
        self.version += 1;
        Version(self.version)
    }

    pub(super) fn service(&mut self, id: &str, replicas: u64) {
        let version = self.next();
        let service = Service {
            id: ServiceId::from(id),
            name: String::from(id),
            version,
            created_at: String::new(),
            updated_at: None,
            labels: BTreeMap::new(),
            mode: ServiceMode::Replicated { replicas },
            endpoint_mode: EndpointMode::Dnsrr,
            virtual_ips: Vec::new(),
            ports: Vec::new(),
            networks: vec![String::from("edge")],
            has_health_check: false,
        };
        self.services.insert(service.id.clone(), service);
    }

    pub(super) fn task(&mut self, id: &str, service: &str, state: TaskState, desired: DesiredState) {
        let version = self.next();
        let task = Task {
            id: TaskId::from(id),
            service: ServiceId::from(service),
            version,
            updated_at: None,
            slot: Some(1),
            node: Some(NodeId::from("worker")),
            state,
            desired,
            addresses: vec![NetworkAddress {
                network: NetworkId::from("edge"),
                addr: [10, 0, 0, 1].into(),
            }],
            ports: Vec::new(),
            error: String::new(),
        };
        self.tasks.insert(task.id.clone(), task);
    }

    pub(super) fn task_event(&self, id: &str) -> TaskEvent {
        TaskEvent::of(&self.tasks[&TaskId::from(id)], EventAction::Update)
    }

    pub(super) fn network(&mut self, id: &str) {
        let network = Network {
            id: NetworkId::from(id),
            name: String::from(id),
            swarm_scope: true,
            driver: String::from("overlay"),
            attachable: false,
            ingress: false,
            labels: BTreeMap::new(),
        };
        self.networks.insert(network.id.clone(), network);
    }

    pub(super) fn node(&mut self, id: &str, state: NodeState) {
        let node = Node {
            id: NodeId::from(id),
            hostname: String::from(id),
            addr: None,
            manager: false,
            active: true,
            state,
        };
        self.nodes.insert(node.id.clone(), node);
    }

    pub(super) fn label(&mut self, service: &str, value: &str) {
        let version = self.next();
        let service = self
            .services
            .get_mut(&ServiceId::from(service))
            .expect("a known service");
        service.version = version;
        service.labels.insert(String::from("label"), String::from(value));
    }

    pub(super) fn remove(&mut self, service: &str) {
        let id = ServiceId::from(service);
        self.services.remove(&id);
        self.tasks.retain(|_, task| task.service != id);
    }

    pub(super) fn answer(&self, fetch: &Fetch) -> Result<Answer, ApiError> {
        Ok(match fetch {
            Fetch::Managed => Answer::Managed(Vec::new()),
            Fetch::Secrets => Answer::Secrets(Vec::new()),
            Fetch::Networks => Answer::Networks(self.networks.values().cloned().collect()),
            Fetch::Nodes => Answer::Nodes(self.nodes.values().cloned().collect()),
            Fetch::Services(of) => {
                let asked = |service: &&Service| of.is_empty() || of.contains(&service.id);
                Answer::Services(self.services.values().filter(asked).cloned().collect())
            }
            Fetch::Tasks(of) => {
                if let Some(unknown) = of.iter().find(|id| !self.services.contains_key(*id)) {
                    return Err(ApiError::NotFound(format!("service {unknown} not found")));
                }
                let asked = |task: &&Task| of.is_empty() || of.contains(&task.service);
                Answer::Tasks(self.tasks.values().filter(asked).cloned().collect())
            }
        })
    }
}

/// Whether a question is about some objects or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Look,
    List,
}

impl Kind {
    pub(super) const ALL: [Kind; 2] = [Kind::Look, Kind::List];

    pub(super) fn of(fetch: &Fetch) -> Kind {
        if fetch.is_partial() { Kind::Look } else { Kind::List }
    }
}

/// A world at work, with the questions that it waits for.
pub(super) struct Desk {
    pub(super) world: World,
    pub(super) now: Instant,
    /// Lists, and looks at some objects of them.
    pub(super) asked: BTreeMap<(Lane, Kind), (FetchId, Fetch)>,
    sent: BTreeMap<(Lane, Kind), Instant>,
    stream: Option<StreamId>,
    feed: Option<StreamId>,
    /// Every feed that was asked for, and from where.
    pub(super) feeds: Vec<(Instant, Option<Version>)>,
    pub(super) changes: Changes,
    /// Every fetch so far.
    pub(super) fetched: Vec<(Instant, Fetch)>,
    pub(super) opened: u32,
    pub(super) synced: u32,
}

impl Desk {
    pub(super) fn new() -> Desk {
        Desk::with(WorldSettings::default())
    }

    pub(super) fn with(settings: WorldSettings) -> Desk {
        let mut desk = Desk {
            world: World::new(settings),
            now: Instant::START,
            asked: BTreeMap::new(),
            sent: BTreeMap::new(),
            stream: None,
            feed: None,
            feeds: Vec::new(),
            changes: Changes::default(),
            fetched: Vec::new(),
            opened: 0,
            synced: 0,
        };
        desk.input(Input::Timeout);
        desk
    }

    /// Has seen all of `truth`, and is at rest.
    pub(super) fn synced(truth: &Truth) -> Desk {
        let mut desk = Desk::new();
        desk.open();
        desk.run(truth, 40_000);
        assert!(desk.world.is_synced());
        desk.changes = Changes::default();
        desk.fetched.clear();
        desk
    }

    fn input(&mut self, input: Input<WorldFact>) {
        let mut told = 0;
        let limit = WorldSettings::default().answer_limit;
        step(&mut self.world, input, self.now, |action| match action {
            WorldAction::Changed(changes) => {
                told += 1;
                assert!(!changes.is_empty(), "an empty change is no change");
                self.changes.merge(changes);
            }
            WorldAction::Fetch { id, fetch } => {
                self.fetched.push((self.now, fetch.clone()));
                let place = (fetch.lane(), Kind::of(&fetch));
                let before = self.asked.insert(place, (id, fetch));
                let lost = self.sent.insert(place, self.now).unwrap_or_default() + limit <= self.now;
                assert!(before.is_none() || lost, "two of a kind in flight: {before:?}");
            }
            WorldAction::OpenEvents(stream) => {
                self.opened += 1;
                self.stream = Some(stream);
            }
            WorldAction::OpenFeed { id, resume_from } => {
                self.feeds.push((self.now, resume_from));
                self.feed = Some(id);
            }
            WorldAction::Synced => self.synced += 1,
        });
        assert!(told <= 1, "changes are told once per mutation");
    }

    pub(super) fn fact(&mut self, fact: WorldFact) {
        self.input(Input::Fact(fact));
    }

    pub(super) fn open(&mut self) {
        let stream = self.stream.expect("the stream is asked for");
        self.fact(WorldFact::EventStreamOpened(stream));
    }

    pub(super) fn close(&mut self) {
        let stream = self.stream.expect("the stream was asked for");
        self.fact(WorldFact::EventStreamClosed { stream, error: None });
    }

    pub(super) fn event(&mut self, kind: EventKind, action: EventAction, id: &str) {
        let id = String::from(id);
        self.fact(WorldFact::Event(Event { kind, action, id }));
    }

    /// Has seen all of `truth`, is at rest, and follows the feed.
    pub(super) fn fed(truth: &Truth) -> Desk {
        let settings = WorldSettings {
            feed: true,
            ..WorldSettings::default()
        };
        let mut desk = Desk::with(settings);
        desk.open();
        desk.open_feed();
        desk.run(truth, 40_000);
        assert!(desk.world.is_synced() && desk.world.is_fed());
        desk.changes = Changes::default();
        desk.fetched.clear();
        desk
    }

    pub(super) fn open_feed(&mut self) {
        let stream = self.feed.expect("the feed is asked for");
        self.fact(WorldFact::FeedOpened(stream));
    }

    pub(super) fn close_feed(&mut self, end: FeedEnd) {
        let stream = self.feed.expect("the feed was asked for");
        self.fact(WorldFact::FeedClosed { stream, end });
    }

    /// The feed tells of a task as it is in `truth`.
    pub(super) fn tell(&mut self, truth: &Truth, task: &str) {
        let event = truth.task_event(task);
        self.fact(WorldFact::FeedEvents(vec![event]));
    }

    /// When something was asked last.
    pub(super) fn sent_at(&self, lane: Lane, kind: Kind) -> Option<Instant> {
        self.sent.get(&(lane, kind)).copied()
    }

    /// What is asked in `lane`.
    pub(super) fn question(&self, lane: Lane, kind: Kind) -> Option<&Fetch> {
        self.asked.get(&(lane, kind)).map(|(_, fetch)| fetch)
    }

    /// Answers that.
    pub(super) fn answer(&mut self, lane: Lane, kind: Kind, result: Result<Answer, ApiError>) {
        let (id, _) = self.asked.remove(&(lane, kind)).expect("something is asked");
        self.fact(WorldFact::Answer { id, result });
    }

    /// Lets `ms` pass, each question being answered from `truth` after one millisecond.
    pub(super) fn run(&mut self, truth: &Truth, ms: u64) {
        self.run_with(ms, |fetch| truth.answer(fetch));
    }

    pub(super) fn run_with(&mut self, ms: u64, mut answer: impl FnMut(&Fetch) -> Result<Answer, ApiError>) {
        let end = self.now + Duration::from_millis(ms);
        while self.now < end {
            if let Some((_, (id, fetch))) = self.asked.pop_first() {
                self.now = self.now + Duration::from_millis(1);
                let result = answer(&fetch);
                self.fact(WorldFact::Answer { id, result });
                continue;
            }
            self.tick(end);
        }
    }

    /// Lets time pass to the next deadline or `end`.
    pub(super) fn tick(&mut self, end: Instant) {
        let due = self
            .world
            .poll_timeout()
            .map_or(end, |deadline| deadline.at.max(self.now));
        self.now = due.min(end);
        if due <= end {
            self.input(Input::Timeout);
        }
    }

    /// Lets `ms` pass without any answer.
    pub(super) fn wait(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while self.now < end {
            self.tick(end);
        }
    }

    pub(super) fn services(&self) -> Vec<&str> {
        self.world.services().keys().map(ServiceId::as_str).collect()
    }

    pub(super) fn serving(&self, service: &str) -> usize {
        self.world
            .tasks_of(&ServiceId::from(service))
            .filter(|task| task.is_serving())
            .count()
    }

    pub(super) fn count(&self, lane: Lane) -> usize {
        self.fetched.iter().filter(|(_, fetch)| fetch.lane() == lane).count()
    }
}
