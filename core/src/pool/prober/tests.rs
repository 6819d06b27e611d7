use alloc::format;
use alloc::string::ToString;
use core::net::SocketAddr;
use std::vec::Vec;

use super::*;
use crate::id::EndpointId;
use crate::machine::{Input, step};
use crate::route::spec::{EndpointSpec, HostPattern, Leaving, RouteSpec};
use crate::snapshot::model::Snapshot;

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn spec(endpoints: &[u16], interval_ms: Option<u32>) -> RouteSpec {
    let endpoints = endpoints.iter().map(|n| EndpointSpec {
        id: EndpointId::from(format!("task{n}")),
        addr: SocketAddr::from(([10, 0, 0, 1], *n)),
        via: None,
        node: None,
        leaving: None,
        unsure: false,
    });
    RouteSpec {
        hosts: std::vec![HostPattern::from_normalised("shop.example".to_string())],
        endpoints: endpoints.collect(),
        active: interval_ms.map(|interval_ms| ActiveChecks {
            path: "/health".to_string(),
            host: None,
            interval_ms,
            timeout_ms: 100,
            statuses: Vec::new(),
        }),
        ..RouteSpec::new("shop".into(), "shop", "2026-01-01T00:00:00Z")
    }
}

struct World {
    prober: Prober,
    actions: Vec<Action>,
}

impl World {
    fn new(spec: RouteSpec) -> World {
        let mut world = World {
            prober: Prober::new(0),
            actions: Vec::new(),
        };
        world.table(spec, 0);
        world
    }

    fn step(&mut self, input: Input<Fact>, now: u64) {
        let actions = &mut self.actions;
        step(&mut self.prober, input, at(now), |action| actions.push(action));
    }

    fn table(&mut self, spec: RouteSpec, now: u64) {
        let mut snapshot = Snapshot::default();
        snapshot.routes.insert(spec.service.clone(), Arc::new(spec));
        self.step(Input::Fact(Fact::Table(Arc::new(RouteTable::compile(&snapshot)))), now);
    }

    /// Everything that is asked until then, answered by this at once.
    fn run(&mut self, until: u64, passes: impl Fn(&EndpointKey) -> bool) -> Vec<(u64, u16)> {
        let mut asked = Vec::new();
        while let Some(due) = self.prober.poll_timeout().filter(|due| due.at <= at(until)) {
            let now = due.at.since_start().as_millis() as u64;
            self.step(Input::Timeout, now);
            let (probes, rest): (Vec<_>, Vec<_>) = core::mem::take(&mut self.actions)
                .into_iter()
                .partition(|action| matches!(action, Action::Probe(_)));
            self.actions = rest;
            for probe in probes {
                let Action::Probe(Probe { endpoint, .. }) = probe else {
                    continue;
                };
                asked.push((now, endpoint.1.port()));
                let passed = Some(passes(&endpoint));
                self.step(Input::Fact(Fact::Answer { endpoint, passed }), now);
            }
        }
        asked
    }

    /// The ports of those that are told to be unfit, each time that something is told.
    fn told(&mut self) -> Vec<Vec<u16>> {
        let told = core::mem::take(&mut self.actions)
            .into_iter()
            .filter_map(|action| match action {
                Action::Tell(unfit) => Some(unfit.iter().map(|(_, addr, _)| addr.port()).collect()),
                Action::Probe(_) => None,
            });
        told.collect()
    }
}

#[test]
fn each_endpoint_is_asked_once_an_interval_and_not_all_at_once() {
    let mut world = World::new(spec(&[1, 2, 3], Some(1_000)));
    let asked = world.run(9_999, |_| true);
    let of = |port: u16| -> Vec<u64> {
        asked
            .iter()
            .filter(|(_, one)| *one == port)
            .map(|(at, _)| *at)
            .collect()
    };
    for port in 1..=3 {
        let times = of(port);
        assert_eq!(times.len(), 10, "{asked:?}");
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 1_000));
    }
    assert!(of(1)[0] != of(2)[0] && of(2)[0] != of(3)[0]);
    assert!(world.told().is_empty());
}

#[test]
fn three_wrong_answers_in_a_row_make_it_unfit_and_two_right_ones_fit_again() {
    let mut world = World::new(spec(&[1, 2], Some(1_000)));
    world.run(1_999, |(_, addr, _)| addr.port() == 2);
    world.run(2_999, |_| true);
    assert!(world.told().is_empty(), "two wrong answers are not enough");
    world.run(5_999, |(_, addr, _)| addr.port() == 2);
    assert_eq!(world.told(), [[1]]);
    world.run(6_999, |_| true);
    world.run(7_999, |_| false);
    world.run(8_999, |_| true);
    assert!(world.told().is_empty(), "one right answer is not enough");
    world.run(9_999, |_| true);
    assert_eq!(world.told(), [Vec::<u16>::new()]);
}

#[test]
fn one_that_is_told_to_stop_or_gone_or_whose_label_is_gone_is_forgotten() {
    let mut world = World::new(spec(&[1, 2, 3], Some(1_000)));
    world.run(5_000, |_| false);
    assert_eq!(world.told().pop(), Some(std::vec![1, 2, 3]));
    let mut next = spec(&[1, 2], Some(1_000));
    next.endpoints[0].leaving = Some(Leaving { last_resort_ms: 100 });
    world.table(next, 5_001);
    assert_eq!(world.told(), [[2]]);
    assert!(world.run(7_000, |_| false).iter().all(|(_, port)| *port == 2));
    world.table(spec(&[1, 2], None), 7_001);
    assert_eq!(world.told(), [Vec::<u16>::new()]);
    assert_eq!(world.prober.poll_timeout(), None);
}

#[test]
fn a_late_answer_of_one_that_is_gone_changes_nothing() {
    let mut world = World::new(spec(&[1], Some(1_000)));
    let due = world.prober.poll_timeout().expect("it is probed").at;
    world.step(Input::Timeout, due.since_start().as_millis() as u64);
    let endpoint = (EndpointId::from("task1"), SocketAddr::from(([10, 0, 0, 1], 1)), None);
    world.table(spec(&[], Some(1_000)), 2_000);
    world.step(
        Input::Fact(Fact::Answer {
            endpoint,
            passed: Some(false),
        }),
        2_001,
    );
    assert_eq!(world.prober.poll_timeout(), None);
}

#[test]
fn a_shorter_interval_holds_at_once() {
    let mut world = World::new(spec(&[1], Some(3_600_000)));
    world.table(spec(&[1], Some(1_000)), 10);
    assert!(!world.run(1_010, |_| true).is_empty());
}
