//! Active checks of three services whose endpoints come, leave, go and come back, whose labels change, and whose answers are
//! right, wrong, late or none.
//!
//! The model keeps every answer of an endpoint since it is probed, and reads its verdict off the last ones.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use tidegate_core::id::{EndpointId, NetworkId, ServiceId};
use tidegate_core::machine::{Input, Machine as _, step};
use tidegate_core::pool::EndpointKey;
use tidegate_core::pool::prober::{Action, Fact, Prober};
use tidegate_core::rng::Rng;
use tidegate_core::route::RouteTable;
use tidegate_core::route::active::ActiveChecks;
use tidegate_core::route::spec::{EndpointSpec, HostPattern, Leaving, RouteSpec};
use tidegate_core::snapshot::model::Snapshot;
use tidegate_core::time::{Duration, Instant};

use super::{Story, seeds};

const STEPS: u32 = 4000;
const SERVICES: u16 = 3;
/// What the documentation says: so many wrong answers in a row, and so many right ones.
const WRONG: usize = 3;
const RIGHT: usize = 2;
const INTERVALS: [u32; 4] = [1, 300, 1_000, 5_000];
/// Longer than it takes to be sure of everybody.
const SETTLES: Duration = Duration::from_secs(40);

/// An endpoint that is to be probed.
struct Target {
    checks: ActiveChecks,
    /// The next probe is due not before the first and not after the second; `None`: one is under way.
    due: Option<(Instant, Instant)>,
    /// Whether its answers were right, the last one last.
    answers: Vec<bool>,
    is_unfit: bool,
}

impl Target {
    fn interval(&self) -> Duration {
        Duration::from_millis(self.checks.interval_ms.into())
    }

    fn learn(&mut self, is_right: bool) {
        self.answers.push(is_right);
        let last = |count: usize| {
            self.answers
                .iter()
                .rev()
                .take(count)
                .filter(|one| **one == is_right)
                .count()
        };
        if is_right && last(RIGHT) == RIGHT {
            self.is_unfit = false;
        }
        if !is_right && last(WRONG) == WRONG {
            self.is_unfit = true;
        }
    }
}

struct World<'a> {
    rng: Rng,
    story: &'a Story,
    now: Instant,
    prober: Prober,
    specs: BTreeMap<u16, RouteSpec>,
    targets: BTreeMap<EndpointKey, Target>,
    told: BTreeSet<EndpointKey>,
    /// How many of ten answers of an endpoint are right.
    health: BTreeMap<EndpointKey, u64>,
    /// Endpoints that were there once.
    known: Vec<EndpointKey>,
}

impl<'a> World<'a> {
    fn new(rng: Rng, story: &'a Story) -> Self {
        let mut world = World {
            prober: Prober::new(rng.fork("spread").next_u64()),
            rng,
            story,
            now: Instant::from_millis(77),
            specs: BTreeMap::new(),
            targets: BTreeMap::new(),
            told: BTreeSet::new(),
            health: BTreeMap::new(),
            known: Vec::new(),
        };
        world.specs = (0..SERVICES).map(|n| (n, service(n))).collect();
        for _ in 0..10 {
            world.change();
        }
        world
    }

    fn tell(&self, what: String) {
        self.story.tell(format!("{:?} {what}", self.now));
    }

    /// Runs one step; the model knows already what the fact says.
    fn step(&mut self, input: Input<Fact>) {
        let is_timeout = matches!(input, Input::Timeout);
        let mut actions = Vec::new();
        step(&mut self.prober, input, self.now, |action| actions.push(action));
        let before = self.told.clone();
        let mut tells = 0;
        for action in actions {
            match action {
                Action::Probe(probe) => {
                    assert!(is_timeout, "a probe before its time");
                    self.tell(format!("probes {:?}", probe.endpoint));
                    let target = self.targets.get_mut(&probe.endpoint);
                    let target = target.unwrap_or_else(|| panic!("{:?} is not to be probed", probe.endpoint));
                    assert_eq!(*probe.checks, target.checks, "{:?}", probe.endpoint);
                    let due = target.due.take();
                    let (first, _) = due.unwrap_or_else(|| panic!("{:?} is being probed", probe.endpoint));
                    assert!(first <= self.now, "{:?} is probed too early", probe.endpoint);
                }
                Action::Tell(unfit) => {
                    self.tell(format!("unfit: {unfit:?}"));
                    self.told = BTreeSet::clone(&unfit);
                    tells += 1;
                }
            }
        }
        let unfit = self.targets.iter().filter(|(_, target)| target.is_unfit);
        let unfit: BTreeSet<EndpointKey> = unfit.map(|(key, _)| key.clone()).collect();
        assert_eq!(self.told, unfit, "who is told to be unfit");
        assert_eq!(
            tells,
            usize::from(before != self.told),
            "it is told when it changes, and once"
        );
        self.check(is_timeout);
    }

    /// Nobody waits for longer than an interval, and the prober wakes up for the first.
    fn check(&self, is_timeout: bool) {
        for (key, target) in &self.targets {
            let is_late = target.due.is_some_and(|(_, last)| last <= self.now);
            assert!(!is_late || !is_timeout, "{key:?} is not probed in its interval");
        }
        let due = || self.targets.values().filter_map(|target| target.due);
        let wakes = self.prober.poll_timeout().map(|due| due.at);
        assert!(
            wakes >= due().map(|(first, _)| first).min(),
            "it wakes at {wakes:?}, too early"
        );
        match (wakes, due().map(|(_, last)| last).min()) {
            (wakes, None) => assert_eq!(wakes, None, "it wakes for nobody"),
            (wakes, Some(last)) => assert!(wakes.is_some_and(|at| at <= last), "it wakes at {wakes:?}, too late"),
        }
    }

    fn publish(&mut self) {
        let mut snapshot = Snapshot::default();
        let mut wanted = BTreeMap::new();
        for spec in self.specs.values() {
            snapshot.routes.insert(spec.service.clone(), Arc::new(spec.clone()));
            let Some(checks) = spec.active.as_ref().filter(|_| !spec.hosts.is_empty()) else {
                continue;
            };
            for endpoint in spec.endpoints.iter().filter(|endpoint| endpoint.leaving.is_none()) {
                wanted.insert(key(endpoint), checks.clone());
            }
        }
        self.tell(format!("table: {:?}", wanted.keys()));
        self.targets.retain(|key, _| wanted.contains_key(key));
        for (key, checks) in wanted {
            let interval = Duration::from_millis(checks.interval_ms.into());
            let by_then = self.now + interval;
            let Some(target) = self.targets.get_mut(&key) else {
                let target = Target {
                    checks,
                    due: Some((self.now, by_then)),
                    answers: Vec::new(),
                    is_unfit: false,
                };
                self.known.push(key.clone());
                self.targets.insert(key, target);
                continue;
            };
            if let Some((first, last)) = target.due.filter(|_| target.checks != checks) {
                target.due = Some((first.min(by_then), last.min(by_then)));
            }
            target.checks = checks;
        }
        let table = Arc::new(RouteTable::compile(&snapshot));
        self.step(Input::Fact(Fact::Table(table)));
    }

    fn change(&mut self) {
        let service = self.rng.below(SERVICES.into()) as u16;
        let n = self.rng.below(4) as u16;
        let dice = self.rng.below(14);
        let interval_ms = INTERVALS[self.rng.index(INTERVALS.len())];
        let spec = self.specs.get_mut(&service).expect("it is there");
        let at = spec.endpoints.iter().position(|endpoint| endpoint.addr.port() == n);
        match (dice, at) {
            (0, _) => spec.active = None,
            (1 | 2, _) => spec.active = Some(checks(interval_ms)),
            (3, _) => spec.hosts.clear(),
            (4 | 5, _) => spec.hosts = hosts(service),
            (6, _) => spec.hosts = hosts(99), // together with others
            (7, Some(at)) => _ = spec.endpoints.remove(at),
            (8, Some(at)) => spec.endpoints[at].leaving = Some(Leaving { last_resort_ms: 100 }),
            (9, Some(at)) => spec.endpoints[at].leaving = None,
            (10, Some(at)) => spec.endpoints[at].via = Some(NetworkId::from("net")),
            (_, Some(_)) => {}
            (_, None) => spec.endpoints.push(endpoint(service, n)),
        }
        self.publish();
    }

    /// An answer of one that is being probed; `None`: it could not be asked.
    fn answer(&mut self, answer: impl Fn(&mut Rng, u64) -> Option<bool>) {
        let running = self.targets.iter().filter(|(_, target)| target.due.is_none());
        let running: Vec<EndpointKey> = running.map(|(key, _)| key.clone()).collect();
        let Some(endpoint) = self.rng.pick(&running).cloned() else {
            return;
        };
        let health = self.health.get(&endpoint).copied().unwrap_or(10);
        let passed = answer(&mut self.rng, health);
        self.tell(format!("{endpoint:?} answers {passed:?}"));
        let now = self.now;
        if let Some(target) = self.targets.get_mut(&endpoint) {
            let next = now + target.interval();
            target.due = Some((next, next));
            passed.into_iter().for_each(|passed| target.learn(passed));
        }
        self.step(Input::Fact(Fact::Answer { endpoint, passed }));
    }

    /// An answer that nobody waits for.
    fn stray(&mut self) {
        let waits = |key: &EndpointKey| self.targets.get(key).is_some_and(|target| target.due.is_none());
        let endpoint = self.rng.pick(&self.known).cloned();
        let Some(endpoint) = endpoint.filter(|key| !waits(key)) else {
            return;
        };
        let passed = Some(self.rng.chance(1, 4));
        self.step(Input::Fact(Fact::Answer { endpoint, passed }));
    }

    fn sicken(&mut self) {
        let Some(key) = self.rng.pick(&self.known).cloned() else {
            return;
        };
        let health = [0, 3, 5, 8, 10][self.rng.index(5)];
        self.tell(format!("{key:?} is right in {health} of 10"));
        self.health.insert(key, health);
    }

    /// Time passes up to the next deadline at most, or beyond it: a shell is late now and then.
    fn pass(&mut self, ms: u64, is_late: bool) {
        let then = self.now + Duration::from_millis(ms);
        let due = self.prober.poll_timeout().map(|due| due.at);
        self.now = due.filter(|_| !is_late).unwrap_or(then).clamp(self.now, then);
        if due.is_some_and(|due| due <= self.now) {
            self.step(Input::Timeout);
        }
    }

    /// From now on all answers are of this kind: so is what is told.
    fn settle(&mut self, is_right: bool) {
        let end = self.now + SETTLES;
        while self.now < end {
            self.pass(50, true);
            for _ in 0..self.targets.len() {
                self.answer(|_, _| Some(is_right));
            }
        }
        assert_eq!(self.told.len(), if is_right { 0 } else { self.targets.len() });
    }
}

fn hosts(n: u16) -> Vec<HostPattern> {
    vec![HostPattern::from_normalised(format!("s{n}.example.org"))]
}

fn checks(interval_ms: u32) -> ActiveChecks {
    ActiveChecks {
        path: "/health".to_owned(),
        host: None,
        interval_ms,
        timeout_ms: 100,
        statuses: Vec::new(),
    }
}

fn service(n: u16) -> RouteSpec {
    RouteSpec {
        hosts: hosts(n),
        active: Some(checks(1_000)),
        ..RouteSpec::new(
            ServiceId::from(format!("s{n}").as_str()),
            "shop",
            "2026-01-01T00:00:00Z",
        )
    }
}

fn endpoint(service: u16, n: u16) -> EndpointSpec {
    EndpointSpec {
        id: EndpointId::from(format!("task{service}.{n}")),
        addr: SocketAddr::from(([10, 0, service as u8, 1], n)),
        via: None,
        node: None,
        leaving: None,
        unsure: false,
    }
}

fn key(spec: &EndpointSpec) -> EndpointKey {
    (spec.id.clone(), spec.addr, spec.via.clone())
}

#[test]
fn each_endpoint_is_probed_in_its_interval_and_judged_by_its_last_answers() {
    seeds("each_endpoint_is_probed", 40, |rng, story| {
        let mut world = World::new(rng, story);
        let changes = world.rng.below(10);
        for _ in 0..STEPS {
            match world.rng.below(200) {
                dice if dice < changes => world.change(),
                10..14 => world.stray(),
                14..17 => world.sicken(),
                17..100 => world.answer(|rng, health| (!rng.chance(1, 10)).then(|| rng.chance(health, 10))),
                _ => {
                    let ms = world.rng.below(800);
                    let is_late = world.rng.chance(1, 3);
                    world.pass(ms, is_late);
                }
            }
        }
        world.settle(false);
        world.settle(true);
    });
}
