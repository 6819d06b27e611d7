//! A Swarm that changes at random, events and a feed of which news is lost, repeated and invented, and answers that fail, are old or
//! empty, against what is really there.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::desk::{Desk, Kind, Truth};
use super::*;
use crate::id::Version;
use crate::rng::Rng;
use crate::swarm::model::{DesiredState, EventAction, EventKind, FeedEnd, NodeState, TaskState};

const STEPS: u32 = 3_000;

struct Story {
    rng: Rng,
    desk: Desk,
    truth: Truth,
    /// What an isolated leader still believes.
    old: Truth,
    /// What was there when a question was sent: the oldest that an honest answer may tell.
    asked_of: BTreeMap<FetchId, Truth>,
    /// A lane that was lied to hears the truth or an error next: what two answers say some time apart is believed.
    lied: BTreeSet<Lane>,
    serial: u32,
    versions: BTreeMap<ServiceId, Version>,
}

impl Story {
    fn new(seed: u64) -> Story {
        let truth = Truth::small();
        let rng = Rng::new(seed);
        let settings = WorldSettings {
            feed: rng.fork("feed").chance(2, 3),
            ..WorldSettings::default()
        };
        let mut desk = Desk::with(settings);
        desk.open();
        Story {
            rng,
            desk,
            old: truth.clone(),
            truth,
            asked_of: BTreeMap::new(),
            lied: BTreeSet::new(),
            serial: 0,
            versions: BTreeMap::new(),
        }
    }

    fn pick_service(&mut self) -> Option<String> {
        let ids: Vec<_> = self.truth.services.keys().map(ToString::to_string).collect();
        self.rng.pick(&ids).cloned()
    }

    fn pick_task(&mut self) -> Option<Task> {
        let tasks: Vec<_> = self.truth.tasks.values().cloned().collect();
        self.rng.pick(&tasks).cloned()
    }

    /// Something happens in the Swarm; returns the event that tells of it.
    fn mutate(&mut self) -> Option<(EventKind, EventAction, String)> {
        self.serial += 1;
        let serial = self.serial;
        match self.rng.below(10) {
            0 => {
                let id = format!("s{serial}");
                self.truth.service(&id, 1);
                Some((EventKind::Service, EventAction::Create, id))
            }
            1 if self.truth.services.len() > 1 => {
                let id = self.pick_service()?;
                self.truth.remove(&id);
                Some((EventKind::Service, EventAction::Remove, id))
            }
            2 | 3 => {
                let id = self.pick_service()?;
                self.truth.label(&id, &format!("{serial}"));
                Some((EventKind::Service, EventAction::Update, id))
            }
            4 | 5 => {
                let service = self.pick_service()?;
                let id = format!("{service}.{serial}");
                self.truth
                    .task(&id, &service, TaskState::Running, DesiredState::Running);
                None
            }
            6 => {
                let task = self.pick_task()?;
                let (id, service) = (task.id.to_string(), task.service.to_string());
                self.truth.task(&id, &service, task.state, DesiredState::Shutdown);
                None
            }
            7 => {
                let task = self.pick_task()?;
                let (id, service) = (task.id.to_string(), task.service.to_string());
                self.truth
                    .task(&id, &service, TaskState::Shutdown, DesiredState::Shutdown);
                None
            }
            8 => {
                // History is pruned.
                let task = self.pick_task()?;
                if task.is_over() {
                    self.truth.tasks.remove(&task.id);
                }
                None
            }
            _ => {
                let state = *self
                    .rng
                    .pick(&[NodeState::Ready, NodeState::Down, NodeState::Unknown])?;
                self.truth.node("worker", state);
                Some((EventKind::Node, EventAction::Update, String::from("worker")))
            }
        }
    }

    fn answer(&mut self, lane: Lane, kind: Kind) {
        let Some((id, fetch)) = self.desk.asked.get(&(lane, kind)).cloned() else {
            return;
        };
        let asked_of = self.asked_of.remove(&id);
        let honest = self.lied.remove(&lane);
        let result = match self.rng.below(12) {
            0 => Err(ApiError::Server(String::from("no leader"))),
            1 => Err(ApiError::Unreachable(String::from("timeout"))),
            2 if !honest => {
                self.lied.insert(lane);
                self.old.answer(&fetch)
            }
            3 if !honest => {
                self.lied.insert(lane);
                Truth::default().answer(&whole(fetch))
            }
            // Docker took its time.
            4..7 => asked_of.as_ref().unwrap_or(&self.truth).answer(&fetch),
            _ => self.truth.answer(&fetch),
        };
        self.checked(|desk| desk.answer(lane, kind, result));
    }

    /// Runs one mutation and compares what it says it changed with what it changed.
    fn checked(&mut self, mutation: impl FnOnce(&mut Desk)) {
        let before = contents(&self.desk.world);
        self.desk.changes = Changes::default();
        mutation(&mut self.desk);
        let asked: BTreeSet<FetchId> = self.desk.asked.values().map(|(id, _)| *id).collect();
        self.asked_of.retain(|id, _| asked.contains(id));
        for id in asked {
            self.asked_of.entry(id).or_insert_with(|| self.truth.clone());
        }
        let after = contents(&self.desk.world);
        let ids: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
        let differing: BTreeSet<_> = ids.into_iter().filter(|id| before.get(id) != after.get(id)).collect();
        assert_eq!(
            self.desk.changes.services, differing,
            "what changed is not what is said to have changed"
        );
        for (id, service) in self.desk.world.services() {
            let version = self.versions.entry(id.clone()).or_default();
            assert!(service.version >= *version, "{id} went back in time");
            *version = service.version;
        }
        // What is known and exists is never lost, whatever the answers say.
        for id in before.keys() {
            if self.truth.services.contains_key(id) {
                assert!(after.contains_key(id), "{id} exists and was dropped");
            }
        }
    }

    /// The feed opens, breaks, has a gap, tells what is, what was, and what never was.
    fn feed(&mut self) {
        let error = ApiError::Unreachable(String::from("gone"));
        let end = match self.rng.below(30) {
            0 => FeedEnd::Broken(error),
            1 => FeedEnd::Gap(String::from("versions are out of order")),
            2 => FeedEnd::NotThere(String::from("no such file")),
            3..10 => return self.checked(Desk::open_feed),
            _ => {
                let truth = if self.rng.chance(1, 4) { &self.old } else { &self.truth };
                let ids: Vec<_> = truth.tasks.keys().cloned().collect();
                let Some(id) = self.rng.pick(&ids) else { return };
                let mut event = truth.task_event(id.as_str());
                // No id comes back, so history may be replayed but no removal is invented.
                if !self.truth.tasks.contains_key(id) && self.rng.chance(1, 2) {
                    event.action = EventAction::Remove;
                }
                return self.checked(|desk| desk.fact(WorldFact::FeedEvents(alloc::vec![event])));
            }
        };
        self.checked(|desk| desk.close_feed(end));
    }

    fn step(&mut self) {
        match self.rng.below(10) {
            0 => {
                let event = self.mutate();
                if let Some((kind, action, id)) = event
                    && self.rng.chance(9, 10)
                {
                    self.checked(|desk| desk.event(kind, action, &id));
                }
            }
            1 if self.rng.chance(1, 4) => {
                // History is replayed.
                let id = format!("s{}", self.rng.below(u64::from(self.serial) + 1));
                let exists = self.truth.services.contains_key(&ServiceId::from(id.as_str()));
                let action = if exists {
                    EventAction::Update
                } else {
                    EventAction::Remove
                };
                self.checked(|desk| desk.event(EventKind::Service, action, &id));
            }
            2 if self.rng.chance(1, 10) => self.old = self.truth.clone(),
            3..=6 => {
                let lane = Lane::ALL[self.rng.index(Lane::ALL.len())];
                let kind = *self.rng.pick(&Kind::ALL).expect("two");
                self.answer(lane, kind);
            }
            7 if self.desk.world.feed().is_some() => self.feed(),
            _ => {
                let ms = self.rng.between(1, 40);
                let end = self.desk.now + Duration::from_millis(ms);
                self.checked(|desk| desk.tick(end));
            }
        }
    }
}

/// The question without its restriction to some services.
pub(super) fn whole(fetch: Fetch) -> Fetch {
    if fetch.lane() == Lane::Tasks {
        Fetch::Tasks(Vec::new())
    } else {
        fetch
    }
}

/// Services with their tasks, without versions: what a change is about.
fn contents(world: &World) -> BTreeMap<ServiceId, (Service, Vec<Task>)> {
    let strip = |(id, service): (&ServiceId, &Service)| {
        let mut service = service.clone();
        service.version = Version(0);
        let tasks = world.tasks_of(id).cloned().map(|mut task| {
            task.version = Version(0);
            task
        });
        (id.clone(), (service, tasks.collect()))
    };
    world.services().iter().map(strip).collect()
}

#[test]
fn the_world_follows_a_lying_docker_and_loses_nothing_that_exists() {
    for seed in 0..12 {
        let mut story = Story::new(seed);
        for _ in 0..STEPS {
            story.step();
        }
        // Docker is honest again: everything must become as it is.
        let truth = story.truth.clone();
        story.desk.run(&truth, 120_000);
        let world = &story.desk.world;
        assert_eq!(*world.services(), truth.services, "seed {seed}");
        let tasks: BTreeMap<_, _> = truth
            .services
            .keys()
            .flat_map(|id| world.tasks_of(id))
            .map(|task| (task.id.clone(), task.clone()))
            .collect();
        assert_eq!(tasks, truth.tasks, "seed {seed}");
    }
}
