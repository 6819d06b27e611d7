use std::string::String;
use std::vec::Vec;
use std::{format, vec};

use super::*;
use crate::id::Version;
use crate::machine::{Input, step};
use crate::swarm::model::{DesiredState, EndpointMode, NetworkAddress, NodeState, ServiceMode, TaskState};

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
            Fetch::Services => Answer::Services(self.services.values().cloned().collect()),
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

/// A world at work, with the questions that it waits for.
pub(super) struct Desk {
    pub(super) world: World,
    pub(super) now: Instant,
    pub(super) asked: BTreeMap<Lane, (FetchId, Fetch)>,
    sent: BTreeMap<Lane, Instant>,
    stream: Option<StreamId>,
    pub(super) changes: Changes,
    /// Every fetch so far.
    pub(super) fetched: Vec<(Instant, Fetch)>,
    opened: u32,
    synced: u32,
}

impl Desk {
    pub(super) fn new() -> Desk {
        let mut desk = Desk {
            world: World::new(WorldSettings::default()),
            now: Instant::START,
            asked: BTreeMap::new(),
            sent: BTreeMap::new(),
            stream: None,
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
                let fetch_lane = fetch.lane();
                let before = self.asked.insert(fetch.lane(), (id, fetch));
                let lost = self.sent.insert(fetch_lane, self.now).unwrap_or_default() + limit <= self.now;
                assert!(
                    before.is_none() || lost,
                    "two fetches of one lane in flight: {before:?}"
                );
            }
            WorldAction::OpenEvents(stream) => {
                self.opened += 1;
                self.stream = Some(stream);
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

    fn close(&mut self) {
        let stream = self.stream.expect("the stream was asked for");
        self.fact(WorldFact::EventStreamClosed { stream, error: None });
    }

    pub(super) fn event(&mut self, kind: EventKind, action: EventAction, id: &str) {
        let id = String::from(id);
        self.fact(WorldFact::Event(Event { kind, action, id }));
    }

    /// Answers the question of `lane`; whether there was one.
    pub(super) fn answer(&mut self, lane: Lane, result: Result<Answer, ApiError>) -> bool {
        let Some((id, _)) = self.asked.remove(&lane) else {
            return false;
        };
        self.fact(WorldFact::Answer { id, result });
        true
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
    fn wait(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while self.now < end {
            self.tick(end);
        }
    }

    pub(super) fn services(&self) -> Vec<&str> {
        self.world.services().keys().map(ServiceId::as_str).collect()
    }

    fn serving(&self, service: &str) -> usize {
        self.world
            .tasks_of(&ServiceId::from(service))
            .filter(|task| task.is_serving())
            .count()
    }

    fn count(&self, lane: Lane) -> usize {
        self.fetched.iter().filter(|(_, fetch)| fetch.lane() == lane).count()
    }
}

fn unreachable() -> ApiError {
    ApiError::Unreachable(String::from("test"))
}

#[test]
fn the_event_stream_is_opened_before_anything_is_listed() {
    let mut desk = Desk::new();
    assert_eq!((desk.opened, desk.asked.len()), (1, 0));
    desk.open();
    let lanes: Vec<_> = desk.asked.keys().copied().collect();
    // Tasks follow when the services are known.
    assert_eq!(
        lanes,
        [
            Lane::Managed,
            Lane::Networks,
            Lane::Nodes,
            Lane::Secrets,
            Lane::Services
        ]
    );
    desk.run(&Truth::small(), 10);
    assert!(desk.world.is_synced());
    assert_eq!(desk.synced, 1);
    assert_eq!(desk.serving("shop"), 2);
}

#[test]
fn lists_are_read_even_if_events_cannot_be_had() {
    let mut desk = Desk::new();
    desk.close();
    desk.run(&Truth::small(), 50);
    assert!(desk.world.is_synced());
    assert!(!desk.world.is_following());
}

#[test]
fn a_changed_label_is_read_after_one_event_and_changes_that_service_alone() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.label("shop", "new");
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.run(&truth, 12);
    assert_eq!(desk.changes.services, BTreeSet::from([ServiceId::from("shop")]));
    assert_eq!(
        desk.changes,
        Changes {
            services: desk.changes.services.clone(),
            ..Changes::default()
        }
    );
}

#[test]
fn a_task_that_is_told_to_stop_is_seen_within_the_polling_interval() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.label("shop", "an update begins");
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.run(&truth, 700);
    assert_eq!(desk.serving("shop"), 2);
    // No event says this.
    truth.task("shop.1", "shop", TaskState::Running, DesiredState::Shutdown);
    desk.run(&truth, 210);
    assert_eq!(desk.serving("shop"), 1);
    let leaving = desk
        .world
        .tasks_of(&ServiceId::from("shop"))
        .find(|task| task.is_leaving());
    assert!(leaving.is_some(), "a leaving task stays known");
}

#[test]
fn desired_remove_counts_as_leaving_like_shutdown() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.service("shop", 1);
    truth.task("shop.2", "shop", TaskState::Running, DesiredState::Remove);
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.run(&truth, 20);
    assert_eq!(desk.serving("shop"), 1);
}

#[test]
fn a_service_at_rest_is_left_alone_after_a_while() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.label("shop", "new");
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.run(&truth, 20_000);
    desk.fetched.clear();
    desk.run(&truth, 60_000);
    let some = desk
        .fetched
        .iter()
        .filter(|(_, fetch)| matches!(fetch, Fetch::Tasks(of) if !of.is_empty()));
    assert_eq!(some.count(), 0);
    // All tasks every 5 s, five other lists every 30 s.
    assert!((20..=25).contains(&desk.fetched.len()), "{}", desk.fetched.len());
}

#[test]
fn rest_is_judged_by_tasks_alone() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.label("shop", "stop-first");
    truth.task("shop.1", "shop", TaskState::Running, DesiredState::Shutdown);
    truth.task("shop.3", "shop", TaskState::Ready, DesiredState::Ready);
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.run(&truth, 5_000);
    desk.fetched.clear();
    desk.run(&truth, 1_000);
    assert!(
        desk.count(Lane::Tasks) >= 9,
        "polled at 100 ms while a task is between states"
    );
    truth.task("shop.1", "shop", TaskState::Shutdown, DesiredState::Shutdown);
    truth.task("shop.3", "shop", TaskState::Running, DesiredState::Running);
    desk.run(&truth, 150);
    assert_eq!(desk.serving("shop"), 2);
}

#[test]
fn a_service_that_never_rests_is_polled_more_slowly_and_then_left_to_the_regular_look() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.service("shop", 3);
    truth.task("shop.3", "shop", TaskState::Pending, DesiredState::Running);
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.run(&truth, 61_000);
    desk.fetched.clear();
    desk.run(&truth, 60_000);
    assert!(
        (50..=75).contains(&desk.count(Lane::Tasks)),
        "{}",
        desk.count(Lane::Tasks)
    );
    desk.run(&truth, 600_000);
    desk.fetched.clear();
    desk.run(&truth, 60_000);
    assert_eq!(desk.count(Lane::Tasks), 12);
}

#[test]
fn tasks_of_a_dead_node_are_at_rest_though_they_say_running() {
    let mut truth = Truth::small();
    truth.node("worker", NodeState::Down);
    for task in ["shop.1", "shop.2"] {
        truth.task(task, "shop", TaskState::Running, DesiredState::Shutdown);
    }
    truth.service("shop", 0);
    let mut desk = Desk::synced(&truth);
    desk.run(&truth, 60_000);
    let some = desk
        .fetched
        .iter()
        .filter(|(_, fetch)| matches!(fetch, Fetch::Tasks(of) if !of.is_empty()));
    assert_eq!(some.count(), 0);
    assert_eq!(desk.serving("shop"), 0);
}

#[test]
fn a_node_event_leads_to_a_look_at_the_tasks_on_that_node() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.node("worker", NodeState::Down);
    desk.event(EventKind::Node, EventAction::Update, "worker");
    desk.run(&truth, 30);
    truth.task("api.1", "api", TaskState::Running, DesiredState::Shutdown);
    desk.run(&truth, 210);
    assert_eq!(desk.serving("api"), 0);
}

#[test]
fn a_node_that_is_unknown_stays_what_it_was() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.node("worker", NodeState::Unknown);
    desk.event(EventKind::Node, EventAction::Update, "worker");
    desk.run(&truth, 1_000);
    assert_eq!(desk.world.nodes()[&NodeId::from("worker")].state, NodeState::Ready);
    assert!(desk.changes.is_empty(), "{:?}", desk.changes);
}

#[test]
fn no_error_removes_anything() {
    let errors = [
        ApiError::NotManager(String::from("This node is not a swarm manager.")),
        ApiError::Server(String::from("The swarm does not have a leader.")),
        ApiError::Garbled(String::from("EOF while parsing")),
        unreachable(),
        ApiError::NotFound(String::new()),
        ApiError::Refused(String::new()),
    ];
    for error in errors {
        let truth = Truth::small();
        let mut desk = Desk::synced(&truth);
        desk.event(EventKind::Service, EventAction::Update, "shop");
        desk.run_with(120_000, |_| Err(error.clone()));
        assert_eq!(desk.services(), ["api", "shop"]);
        assert_eq!(desk.serving("shop"), 2);
        assert!(desk.changes.is_empty(), "{:?}", desk.changes);
        assert!(desk.world.staleness(desk.now).expect("was synced") > Duration::from_secs(100));
        // Back-off ends at two seconds: six lanes, half a question a second each.
        assert!(desk.fetched.len() < 500, "{error}: {}", desk.fetched.len());
    }
}

#[test]
fn an_error_on_one_list_lists_everything_again_afterwards() {
    let truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.wait(6);
    desk.answer(Lane::Services, Err(ApiError::Server(String::new())));
    desk.fetched.clear();
    desk.run(&truth, 200);
    for lane in Lane::ALL {
        assert!(desk.count(lane) >= 1, "{lane:?} is not listed again");
    }
}

#[test]
fn an_empty_list_that_nothing_explains_removes_nothing_for_a_while() {
    let truth = Truth::small();
    let nothing = Truth {
        services: BTreeMap::new(),
        tasks: BTreeMap::new(),
        ..truth.clone()
    };
    let mut desk = Desk::synced(&truth);
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.run(&nothing, 9_000);
    assert_eq!(desk.services(), ["api", "shop"]);
    assert_eq!(desk.serving("shop"), 2);
    desk.run(&truth, 2_000);
    assert!(desk.changes.is_empty(), "{:?}", desk.changes);
    // If it stays empty, it is.
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.run(&nothing, 15_000);
    assert_eq!(desk.services(), [""; 0]);
}

#[test]
fn a_removed_service_goes_with_the_next_list_and_its_event() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.remove("api");
    desk.event(EventKind::Service, EventAction::Remove, "api");
    assert_eq!(desk.services(), ["api", "shop"], "the event alone removes nothing");
    desk.run(&truth, 12);
    assert_eq!(desk.services(), ["shop"]);
    assert_eq!(desk.changes.services, BTreeSet::from([ServiceId::from("api")]));
}

#[test]
fn a_service_that_is_missing_without_an_event_goes_with_a_second_list() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.remove("api");
    desk.fact(WorldFact::Look(Lane::Services));
    desk.run(&truth, 900);
    assert_eq!(desk.services(), ["api", "shop"]);
    desk.run(&truth, 200);
    assert_eq!(desk.services(), ["shop"]);
}

#[test]
fn an_old_list_brings_no_removed_service_back() {
    let mut truth = Truth::small();
    let old = truth.clone();
    let mut desk = Desk::synced(&truth);
    truth.remove("api");
    desk.event(EventKind::Service, EventAction::Remove, "api");
    desk.run(&truth, 100);
    desk.fact(WorldFact::Look(Lane::Services));
    desk.run(&old, 60);
    assert_eq!(desk.services(), ["shop"]);
    // The name may return, with another id.
    truth.service("api-again", 1);
    desk.event(EventKind::Service, EventAction::Create, "api-again");
    desk.run(&truth, 500);
    assert_eq!(desk.services(), ["api-again", "shop"]);
}

#[test]
fn the_world_never_goes_back_to_an_older_object() {
    let mut truth = Truth::small();
    let old = truth.clone();
    truth.label("shop", "new");
    truth.task("shop.1", "shop", TaskState::Running, DesiredState::Shutdown);
    truth.service("late", 1);
    truth.task("late.1", "late", TaskState::Running, DesiredState::Running);
    let mut desk = Desk::synced(&truth);
    // A leader that was cut off answers with what it knew then: it lacks `late` as well.
    for lane in Lane::ALL {
        desk.fact(WorldFact::Look(lane));
    }
    desk.run_with(10_000, |fetch| old.answer(&super::simulation::whole(fetch.clone())));
    assert_eq!(desk.services(), ["api", "late", "shop"]);
    assert_eq!(desk.serving("late"), 1);
    assert_eq!(desk.serving("shop"), 1);
    assert!(desk.changes.is_empty(), "{:?}", desk.changes);
    assert!(desk.world.counters().outdated > 0);
}

#[test]
fn a_late_answer_to_an_older_question_is_dropped() {
    let truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    desk.fact(WorldFact::Look(Lane::Services));
    let (old, _) = desk.asked[&Lane::Services].clone();
    desk.asked.clear();
    // The shell never answered; the world asks again.
    desk.wait(11_000);
    assert_ne!(desk.asked[&Lane::Services].0, old);
    desk.fact(WorldFact::Answer {
        id: old,
        result: Ok(Answer::Services(Vec::new())),
    });
    assert_eq!(desk.services(), ["api", "shop"]);
    assert_eq!(desk.world.counters().kept, 0);
}

#[test]
fn replayed_history_causes_few_looks_and_no_change() {
    let truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    for round in 0..2_000 {
        let action = [EventAction::Create, EventAction::Update, EventAction::Remove][round % 3];
        desk.event(EventKind::Service, action, &format!("gone-{round}"));
        if round % 70 == 0 {
            desk.run(&truth, 1);
        }
    }
    desk.run(&truth, 1_000);
    assert!(desk.changes.is_empty(), "{:?}", desk.changes);
    assert!(desk.count(Lane::Services) <= 4, "{}", desk.count(Lane::Services));
    assert_eq!(
        desk.world.absent.services.size(),
        0,
        "nothing is remembered of strangers"
    );
}

#[test]
fn networks_that_are_in_use_survive_a_list_without_them() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    let full = truth.clone();
    truth.networks.clear();
    desk.fact(WorldFact::Look(Lane::Networks));
    desk.run(&truth, 60_000);
    let known: Vec<_> = desk.world.networks().keys().map(NetworkId::as_str).collect();
    assert_eq!(
        known,
        ["edge"],
        "the one that a service names stays, the other goes in time"
    );
    desk.run(&full, 60_000);
    assert_eq!(desk.world.networks().len(), 2);
}

#[test]
fn no_network_goes_while_services_cannot_be_listed() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.networks.clear();
    let no_leader = || ApiError::Server(String::from("The swarm does not have a leader."));
    desk.fact(WorldFact::Look(Lane::Networks));
    desk.fact(WorldFact::Look(Lane::Services));
    desk.answer(Lane::Services, Err(no_leader()));
    desk.run_with(60_000, |fetch| {
        if fetch.lane() == Lane::Networks {
            truth.answer(fetch)
        } else {
            Err(no_leader())
        }
    });
    assert_eq!(desk.world.networks().len(), 2);
    assert!(desk.changes.is_empty(), "{:?}", desk.changes);
}

#[test]
fn a_removed_network_goes_with_its_event() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.networks.remove(&NetworkId::from("back"));
    desk.event(EventKind::Network, EventAction::Remove, "back");
    desk.run(&truth, 20);
    assert_eq!(desk.changes.networks, BTreeSet::from([NetworkId::from("back")]));
}

#[test]
fn a_serving_task_does_not_vanish_at_once_but_an_ended_one_does() {
    let mut truth = Truth::small();
    truth.task("shop.0", "shop", TaskState::Shutdown, DesiredState::Shutdown);
    let mut desk = Desk::synced(&truth);
    for task in ["shop.0", "shop.1"] {
        truth.tasks.remove(&TaskId::from(task));
    }
    desk.fact(WorldFact::Look(Lane::Tasks));
    desk.run(&truth, 100);
    let known = |desk: &Desk| desk.world.tasks_of(&ServiceId::from("shop")).count();
    assert_eq!(known(&desk), 2);
    desk.run(&truth, 2_000);
    assert_eq!(known(&desk), 1);
}

#[test]
fn tasks_of_finished_jobs_cause_one_look_and_no_more() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.task("job.1", "gone-job", TaskState::Complete, DesiredState::Complete);
    desk.run(&truth, 6_000);
    assert_eq!(desk.count(Lane::Services), 1);
    desk.fetched.clear();
    desk.run(&truth, 20_000);
    assert!(desk.count(Lane::Services) <= 1, "{}", desk.count(Lane::Services));
    assert_eq!(desk.world.tasks_of(&ServiceId::from("gone-job")).count(), 0);
}

#[test]
fn a_service_that_docker_does_not_know_spoils_the_look_at_others_only_once() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.remove("api");
    desk.event(EventKind::Service, EventAction::Update, "api");
    desk.event(EventKind::Service, EventAction::Update, "shop");
    truth.task("shop.1", "shop", TaskState::Running, DesiredState::Shutdown);
    desk.run(&truth, 120);
    assert_eq!(desk.serving("shop"), 1);
    desk.run(&truth, 2_000);
    assert_eq!(desk.services(), ["shop"]);
}

#[test]
fn many_changing_services_are_looked_at_together() {
    let mut truth = Truth::small();
    for n in 0..100 {
        truth.service(&format!("s{n}"), 1);
    }
    let mut desk = Desk::synced(&truth);
    for n in 0..100 {
        desk.event(EventKind::Service, EventAction::Update, &format!("s{n}"));
    }
    desk.run(&truth, 30);
    assert!(desk.fetched.iter().any(|(_, fetch)| *fetch == Fetch::Tasks(Vec::new())));
    assert!(
        desk.fetched
            .iter()
            .all(|(_, fetch)| !matches!(fetch, Fetch::Tasks(of) if of.len() > 20))
    );
}

#[test]
fn a_stream_that_ends_is_opened_again_with_back_off_and_a_full_list() {
    let truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    let before = desk.opened;
    desk.close();
    assert_eq!(desk.opened, before);
    desk.run(&truth, 110);
    assert_eq!(desk.opened, before + 1);
    desk.fetched.clear();
    desk.open();
    desk.run(&truth, 100);
    for lane in Lane::ALL {
        assert!(desk.count(lane) >= 1, "{lane:?} is not listed again");
    }
}

#[test]
fn a_stream_that_ends_at_once_each_time_is_no_tight_loop() {
    let truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    let before = desk.opened;
    desk.close();
    for _ in 0..600 {
        desk.run(&truth, 100);
        if !desk.world.is_following() {
            desk.open();
            desk.close();
        }
    }
    assert!(desk.opened - before < 40, "{}", desk.opened - before);
}

#[test]
fn a_hanging_engine_puts_the_stream_in_doubt() {
    let truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    let before = desk.opened;
    desk.fact(WorldFact::Look(Lane::Nodes));
    desk.answer(Lane::Nodes, Err(unreachable()));
    desk.run(&truth, 150);
    assert_eq!(desk.opened, before + 1, "a stream may die without a word");
}

#[test]
fn an_event_during_a_list_lists_again() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    desk.fact(WorldFact::Look(Lane::Services));
    let old = truth.answer(&Fetch::Services);
    truth.label("shop", "new");
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.answer(Lane::Services, old);
    desk.run(&truth, 80);
    assert!(desk.changes.services.contains(&ServiceId::from("shop")));
}

#[test]
fn staleness_is_that_of_the_oldest_list_that_nothing_follows() {
    let truth = Truth::small();
    let mut desk = Desk::new();
    assert_eq!(desk.world.staleness(desk.now), None);
    desk.open();
    desk.run(&truth, 20_000);
    assert!(desk.world.staleness(desk.now).expect("synced") <= Duration::from_secs(5));
    desk.wait(30_000);
    assert!(desk.world.staleness(desk.now).expect("synced") >= Duration::from_secs(25));
}

#[test]
fn settings_of_the_controller_set_the_pace() {
    let settings = WorldSettings::from(&crate::settings::ControllerSettings {
        poll_tasks_ms: 0,
        poll_changing_ms: 20,
        ..Default::default()
    });
    assert_eq!(settings.poll_changing, Duration::from_millis(20));
    assert!(settings.tasks_every > Duration::ZERO, "zero would be a tight loop");
}
