//! The world meets recordings of a real Swarm: leader loss, no quorum, restarts, scaling, rolling updates, a drain.
//! What it is told goes the way of the real answers: JSON, conversion, facts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tidegate_core::id::{ServiceId, TaskId};
use tidegate_core::machine::{Input, Machine, step};
use tidegate_core::swarm::model::{ApiError, Task};
use tidegate_core::swarm::world::{
    Answer, Fetch, FetchId, Lane, StreamId, World, WorldAction, WorldFact, WorldSettings,
};
use tidegate_core::time::Instant;
use tidegate_docker::convert;

/// Docker answers after this long.
const ANSWER_MS: f64 = 2.0;
/// The recordings begin 2 s before their first action.
const BEGIN_MS: f64 = -2_500.0;

struct Line {
    at: f64,
    kind: String,
    body: Value,
}

/// A recording with every list in full.
fn read(name: &str) -> Vec<Line> {
    let path: PathBuf = [
        env!("CARGO_MANIFEST_DIR"),
        "tests/fixtures/recordings",
        &format!("{name}.jsonl"),
    ]
    .iter()
    .collect();
    let text = std::fs::read_to_string(&path).expect("the recording is part of the repository");
    let mut objects: BTreeMap<(String, String), Value> = BTreeMap::new();
    let lines = text.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).expect("a line is JSON");
        let kind = String::from(line["kind"].as_str().expect("a kind"));
        let mut body = line["body"].take();
        for item in body.as_array_mut().into_iter().flatten() {
            if let Some(id) = item.as_str() {
                *item = objects[&(kind.clone(), String::from(id))].clone();
            } else {
                let id = item["ID"].as_str().or(item["Id"].as_str()).expect("an ID");
                objects.insert((kind.clone(), String::from(id)), item.clone());
            }
        }
        let mut at = line["t_ms"].as_f64().expect("a time");
        // Lists were recorded every 25 ms: an event may be written before the list that it tells of.
        if kind == "event" {
            at += 30.0;
        }
        Line { at, kind, body }
    });
    let mut lines: Vec<Line> = lines.collect();
    lines.sort_by(|a, b| a.at.total_cmp(&b.at));
    lines
}

/// Plays a recording to a world.
struct Player {
    world: World,
    lines: Vec<Line>,
    next: usize,
    now: f64,
    /// What each list answers now.
    lists: BTreeMap<String, Result<Value, ApiError>>,
    /// Questions under way, with the moment of their answer.
    asked: BTreeMap<FetchId, (f64, Fetch)>,
    stream: Option<StreamId>,
    events_open: bool,
    /// From and until when every call hangs, to its limit of two seconds.
    hanging: Option<(f64, f64)>,
    /// When each task began and ceased to serve, first by Docker's answers, then in the world.
    recorded: BTreeMap<TaskId, Served>,
    seen: BTreeMap<TaskId, Served>,
}

#[derive(Clone, Debug, Default)]
struct Served {
    from: Option<f64>,
    until: Option<f64>,
}

fn note(served: &mut BTreeMap<TaskId, Served>, serving: &BTreeSet<TaskId>, now: f64) {
    for id in serving {
        let entry = served.entry(id.clone()).or_default();
        entry.from.get_or_insert(now);
        entry.until = None;
    }
    for (id, entry) in served.iter_mut() {
        if !serving.contains(id) {
            entry.until.get_or_insert(now);
        }
    }
}

impl Player {
    fn new(name: &str) -> Player {
        let mut player = Player {
            world: World::new(WorldSettings::default()),
            lines: read(name),
            next: 0,
            now: BEGIN_MS,
            lists: BTreeMap::new(),
            asked: BTreeMap::new(),
            stream: None,
            events_open: false,
            hanging: None,
            recorded: BTreeMap::new(),
            seen: BTreeMap::new(),
        };
        player.input(Input::Timeout);
        player
    }

    fn instant(&self) -> Instant {
        Instant::at(Duration::from_secs_f64((self.now - BEGIN_MS) / 1e3))
    }

    fn input(&mut self, input: Input<WorldFact>) {
        let now = self.instant();
        let mut opened = None;
        step(&mut self.world, input, now, |action| match action {
            WorldAction::Fetch { id, fetch } => {
                let hangs = self
                    .hanging
                    .is_some_and(|(from, until)| (from..until).contains(&self.now));
                let after = if hangs { 2_000.0 } else { ANSWER_MS };
                self.asked.insert(id, (self.now + after, fetch));
            }
            WorldAction::OpenEvents(stream) => opened = Some(stream),
            WorldAction::Changed(_) | WorldAction::OpenFeed { .. } | WorldAction::Synced => {}
        });
        let tasks = self.world.services().keys().flat_map(|id| self.world.tasks_of(id));
        note(&mut self.seen, &serving(tasks), self.now);
        if let Some(stream) = opened {
            self.stream = Some(stream);
            self.tell_stream();
        }
    }

    fn tell_stream(&mut self) {
        let Some(stream) = self.stream else { return };
        self.input(Input::Fact(if self.events_open {
            WorldFact::EventStreamOpened(stream)
        } else {
            let error = Some(ApiError::Unreachable(String::from("the recording's engine is down")));
            WorldFact::EventStreamClosed { stream, error }
        }));
    }

    fn line(&mut self) {
        let line = &self.lines[self.next];
        self.next += 1;
        match line.kind.as_str() {
            "mark" => {
                if line.body == "GET /events opened" {
                    self.events_open = true;
                }
            }
            "event" => {
                let event = convert::event(line.body.to_string().as_bytes()).expect("a readable event");
                self.input(Input::Fact(WorldFact::Event(event)));
            }
            "error" => {
                let what = line.body["what"].as_str().expect("what failed");
                let kind = String::from(what.strip_prefix("GET /").expect("a GET"));
                if kind == "events" {
                    self.events_open = false;
                    self.tell_stream();
                    return;
                }
                let text = line.body.to_string();
                let error = match line.body["status"].as_u64() {
                    Some(503) => ApiError::NotManager(text),
                    Some(_) => ApiError::Server(text),
                    None => ApiError::Unreachable(text),
                };
                self.lists.insert(kind, Err(error));
            }
            list => {
                let (kind, body) = (String::from(list), line.body.clone());
                if kind == "tasks" {
                    let tasks = convert::tasks(body.to_string().as_bytes()).expect("readable tasks");
                    note(&mut self.recorded, &serving(tasks.iter()), self.now);
                }
                self.lists.insert(kind, Ok(body));
            }
        }
    }

    fn answer(&self, fetch: &Fetch) -> Result<Answer, ApiError> {
        let list = |kind: &str| -> Result<Value, ApiError> {
            self.lists
                .get(kind)
                .cloned()
                .unwrap_or(Err(ApiError::Unreachable(String::from("not yet"))))
        };
        Ok(match fetch {
            Fetch::Managed => Answer::Managed(Vec::new()),
            Fetch::Networks => Answer::Networks(convert::networks(list("networks")?.to_string().as_bytes())?),
            Fetch::Nodes => Answer::Nodes(convert::nodes(list("nodes")?.to_string().as_bytes())?),
            Fetch::Secrets => Answer::Secrets(convert::secrets(list("secrets")?.to_string().as_bytes())?),
            Fetch::Services(of) => {
                let mut services = convert::services(list("services")?.to_string().as_bytes())?;
                services.retain(|service| of.is_empty() || of.contains(&service.id));
                Answer::Services(services)
            }
            Fetch::Tasks(of) => {
                let known = convert::services(list("services")?.to_string().as_bytes())?;
                if let Some(unknown) = of.iter().find(|id| !known.iter().any(|service| service.id == **id)) {
                    return Err(ApiError::NotFound(format!("service {unknown} not found")));
                }
                let mut tasks = convert::tasks(list("tasks")?.to_string().as_bytes())?;
                tasks.retain(|task| of.is_empty() || of.contains(&task.service));
                Answer::Tasks(tasks)
            }
        })
    }

    /// Plays to the end and 20 s more; `watch` sees the world after every step.
    fn play(mut self, mut watch: impl FnMut(&World, f64)) -> Player {
        let end = self.lines.last().expect("a recording has lines").at + 20_000.0;
        while self.now < end {
            let line = self.lines.get(self.next).map_or(f64::MAX, |line| line.at);
            let answer = self
                .asked
                .iter()
                .map(|(id, (at, _))| (*at, *id))
                .min_by(|a, b| a.0.total_cmp(&b.0));
            let answered = answer.map_or(f64::MAX, |(at, _)| at);
            let due = self.world.poll_timeout().map_or(f64::MAX, |deadline| {
                BEGIN_MS + deadline.at.since_start().as_secs_f64() * 1e3
            });
            let next = line.min(answered).min(due).min(end);
            self.now = self.now.max(next);
            if next == line {
                self.line();
            } else if next == answered {
                let (_, id) = answer.expect("an answer is due");
                let (_, fetch) = self.asked.remove(&id).expect("it is asked");
                let hung = self
                    .hanging
                    .is_some_and(|(from, until)| (from..until).contains(&(self.now - 2_000.0)));
                let result = if hung {
                    Err(ApiError::Unreachable(String::from("no answer within 2 s")))
                } else {
                    self.answer(&fetch)
                };
                self.input(Input::Fact(WorldFact::Answer { id, result }));
            } else if next == due {
                self.input(Input::Timeout);
            }
            watch(&self.world, self.now);
        }
        self
    }

    /// The longest time from Docker's answer to the world, for (tasks that begin, tasks that cease to serve).
    fn lags(&self) -> (f64, f64) {
        let longest = |pick: fn(&Served) -> Option<f64>| {
            let lags = self.recorded.iter().filter_map(|(id, recorded)| {
                let recorded = pick(recorded)?;
                let seen = self.seen.get(id).and_then(pick);
                Some(seen.unwrap_or_else(|| panic!("what became of task {id} was never seen")) - recorded)
            });
            lags.fold(0.0, f64::max)
        };
        (longest(|served| served.from), longest(|served| served.until))
    }

    fn assert_as_recorded(&self) {
        let services = convert::services(
            self.lists["services"]
                .as_ref()
                .expect("services")
                .to_string()
                .as_bytes(),
        );
        let services = services.expect("readable services");
        assert_eq!(self.world.services().len(), services.len());
        for service in &services {
            let known = self.world.services().get(&service.id);
            assert_eq!(known, Some(service));
        }
        let tasks = convert::tasks(self.lists["tasks"].as_ref().expect("tasks").to_string().as_bytes());
        let mut tasks = tasks.expect("readable tasks");
        tasks.retain(|task| services.iter().any(|service| service.id == task.service));
        let mut known: Vec<_> = services
            .iter()
            .flat_map(|service| self.world.tasks_of(&service.id))
            .cloned()
            .collect();
        tasks.sort_by(|a, b| a.id.cmp(&b.id));
        known.sort_by(|a, b| a.id.cmp(&b.id));
        assert_eq!(known, tasks);
    }
}

fn serving<'a>(tasks: impl Iterator<Item = &'a Task>) -> BTreeSet<TaskId> {
    tasks
        .filter(|task| task.is_serving())
        .map(|task| task.id.clone())
        .collect()
}

fn by_name(world: &World, name: &str) -> Option<ServiceId> {
    let service = world.services().values().find(|service| service.name == name)?;
    Some(service.id.clone())
}

/// Nothing that a route needs may ever go: the services and their networks, and before `until` their serving tasks.
/// Afterwards the managers are back and really replace tasks.
fn nothing_is_lost(name: &str, hanging: Option<(f64, f64)>, until: f64, least: &[(&str, usize)]) -> Player {
    let mut player = Player::new(name);
    player.hanging = hanging;
    let mut synced = false;
    let player = player.play(|world, now| {
        synced |= world.is_synced();
        if !synced {
            return;
        }
        for (service, least) in least {
            let id = by_name(world, service).unwrap_or_else(|| panic!("{service} is lost at {now} ms"));
            let serving = world.tasks_of(&id).filter(|task| task.is_serving()).count();
            assert!(
                now > until || serving >= *least,
                "{service} has {serving} serving tasks at {now} ms"
            );
            for network in &world.services()[&id].networks {
                let known = world.networks().keys().any(|known| known.as_str() == network);
                assert!(known, "network {network} of {service} is lost at {now} ms");
            }
        }
    });
    assert!(synced);
    player.assert_as_recorded();
    assert!(player.world.is_following());
    player
}

#[test]
fn a_leader_change_loses_nothing() {
    nothing_is_lost(
        "leader-change",
        None,
        45_000.0,
        &[("shop", 3), ("api", 2), ("agent", 2)],
    );
}

#[test]
fn a_leader_change_with_hanging_calls_loses_nothing() {
    nothing_is_lost(
        "leader-change",
        Some((0.0, 12_000.0)),
        45_000.0,
        &[("shop", 3), ("api", 2), ("agent", 2)],
    );
}

#[test]
fn no_quorum_loses_nothing_while_nothing_happens_to_the_tasks() {
    let player = nothing_is_lost("no-quorum", None, 72_900.0, &[("shop", 3), ("api", 2), ("agent", 2)]);
    assert!(player.world.counters().failures[&Lane::Services] > 10);
}

#[test]
fn restarts_of_the_polled_engine_lose_nothing_and_replayed_history_changes_nothing() {
    let player = nothing_is_lost("dockerd-restart", None, f64::MAX, &[("shop", 3), ("api", 2)]);
    let counters = player.world.counters();
    assert!(counters.events > 300, "{} events are replayed", counters.events);
    assert!(counters.fetches[&Lane::Services] < 200, "{:?}", counters.fetches);
    assert!(counters.streams >= 3, "the stream is opened again after each restart");
}

#[track_caller]
fn is_followed(name: &str) {
    let player = Player::new(name).play(|_, _| ());
    player.assert_as_recorded();
    let (began, ended) = player.lags();
    // Recordings have a resolution of 25 ms, looks one of 50 … 100 ms, at rest 200 ms.
    assert!(began <= 250.0, "a task that began to serve was seen after {began} ms");
    assert!(ended <= 250.0, "a task that was told to stop was seen after {ended} ms");
}

#[test]
fn scaling_is_followed() {
    is_followed("scale");
}

#[test]
fn a_stop_first_update_and_its_rollback_are_followed() {
    is_followed("rolling-stop-first");
}

#[test]
fn a_start_first_update_and_its_rollback_are_followed() {
    is_followed("rolling-start-first");
}

#[test]
fn a_drain_is_followed() {
    is_followed("node-drain");
}

#[test]
fn the_recorded_lists_as_facts() {
    let lines = read("scale");
    let body = |kind: &str| {
        lines
            .iter()
            .find(|line| line.kind == kind)
            .expect(kind)
            .body
            .to_string()
    };
    insta::assert_debug_snapshot!("services", convert::services(body("services").as_bytes()));
    insta::assert_debug_snapshot!("tasks", convert::tasks(body("tasks").as_bytes()));
    insta::assert_debug_snapshot!("networks", convert::networks(body("networks").as_bytes()));
    insta::assert_debug_snapshot!("nodes", convert::nodes(body("nodes").as_bytes()));
    insta::assert_debug_snapshot!("secrets", convert::secrets(body("secrets").as_bytes()));
}
