//! Endpoints that fail their active checks.

use super::*;
use crate::pool::prober::Unfit;

impl World {
    /// The endpoints with these numbers fail.
    fn unfit(&mut self, numbers: &[u16], now: u64) {
        let unfit: Unfit = numbers.iter().map(|n| (spec(*n).id, spec(*n).addr, None)).collect();
        self.step(Input::Fact(Fact::Unfit(Arc::new(unfit))), now);
    }

    fn ports(&mut self, now: u64) -> Vec<u16> {
        let mut ports: Vec<u16> = (0..50).map(|_| self.endpoint(&[], now).addr.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

#[test]
fn one_that_fails_is_out_until_it_does_no_more_whatever_connections_say() {
    let mut world = World::new(&specs(3));
    let all: Vec<Picked> = world.pool.addresses().map(|(picked, _)| picked).collect();
    world.unfit(&[1], 0);
    assert_eq!(world.states(), "probation ready ready");
    assert_eq!(world.ports(1), [2, 3]);
    assert!(world.take().contains(&Action::CloseIdle(all[0].token)));
    world.timeout(50);
    assert!(world.take().is_empty(), "a connection would say nothing");
    world.outcome(all[0], Outcome::Connected, 51);
    assert_eq!(world.states(), "probation ready ready");
    world.unfit(&[], 60);
    assert_eq!(world.ports(61), [1, 2, 3]);
    assert_eq!((world.pool.counters().unfit, world.pool.counters().probations), (1, 1));
}

#[test]
fn a_pool_is_never_emptied() {
    for panic_threshold_percent in [0, 50, 100] {
        let policy = PoolPolicy {
            panic_threshold_percent,
            ..policy()
        };
        let mut world = World::with(policy, &specs(3));
        world.unfit(&[1, 2, 3], 0);
        assert_eq!(world.states(), "probation probation probation");
        assert!(
            matches!(world.pick(&[], 1), Pick::Endpoint(_)),
            "{panic_threshold_percent} %"
        );
        world.unfit(&[1, 2], 2);
        let expected: &[u16] = if panic_threshold_percent == 0 { &[3] } else { &[1, 2, 3] };
        assert_eq!(world.ports(3), expected, "{panic_threshold_percent} %");
    }
}

#[test]
fn one_that_fails_and_refuses_is_used_no_more_and_probed_until_it_takes_connections() {
    let mut world = World::new(&specs(2));
    let all: Vec<Picked> = world.pool.addresses().map(|(picked, _)| picked).collect();
    world.unfit(&[1, 2], 0);
    world.timeout(60);
    assert_eq!(world.ports(61), [1, 2]);
    for picked in &all {
        world.outcome(*picked, Outcome::ConnectFailed, 100);
    }
    assert!(matches!(world.pick(&[], 101), Pick::Park(_)));
    world.take();
    world.timeout(150);
    assert_eq!(world.take(), [Action::Probe(all[0]), Action::Probe(all[1])]);
    world.outcome(all[0], Outcome::Connected, 151);
    assert_eq!(world.take(), [Action::Wake]);
    assert_eq!(world.ports(152), [1]);
    world.outcome(all[1], Outcome::ConnectFailed, 152);
    world.unfit(&[], 153);
    assert_eq!(world.states(), "ready ready");
}

#[test]
fn one_that_comes_or_changes_hands_while_it_fails_is_out_at_once() {
    let mut world = World::new(&specs(1));
    world.unfit(&[2], 0);
    world.apply(&specs(3), 1);
    assert_eq!(world.states(), "ready probation ready");
    let mut next = Pool::new(policy());
    step(
        &mut next,
        Input::Fact(Fact::Unfit(Arc::clone(&world.pool.unfit))),
        at(2),
        |_| {},
    );
    next.apply(
        specs(3).into_iter().map(Member::from).collect::<Vec<_>>().iter(),
        policy(),
        at(2),
    );
    next.adopt(&world.pool, at(2));
    let states: Vec<State> = next.views().map(|view| view.state).collect();
    assert_eq!(states, [State::Ready, State::Probation, State::Ready]);
}

#[test]
fn one_that_leaves_goes_as_any_other() {
    let mut world = World::new(&specs(2));
    world.unfit(&[1], 0);
    world.apply(&[leaving(1, 1_000), spec(2)], 1);
    assert_eq!(world.states(), "leaving ready");
    world.unfit(&[], 2);
    assert_eq!(world.states(), "leaving ready");
}

#[test]
fn an_answer_shows_that_one_that_refused_is_there_and_wakes_who_waits() {
    let mut world = World::new(&specs(1));
    let only = world.endpoint(&[], 0);
    world.unfit(&[1], 0);
    world.outcome(only, Outcome::ConnectFailed, 1);
    assert!(matches!(world.pick(&[], 2), Pick::Park(_)));
    world.take();
    world.outcome(only, Outcome::Responded(200), 3);
    assert_eq!(world.take(), [Action::Wake]);
    assert_eq!(world.ports(4), [1]);
}

#[test]
fn a_proxy_without_sockets_takes_nothing_from_one_that_fails_its_checks_and_is_all_there_is() {
    let mut world = World::new(&specs(1));
    let one = world
        .pool
        .addresses()
        .map(|(picked, _)| picked)
        .next()
        .expect("there is one");
    world.unfit(&[1], 0);
    world.outcome(one, Outcome::Untried, 1);
    assert_eq!(world.ports(2), [1], "it is used still");
}

#[test]
fn who_waits_for_one_that_turns_out_not_to_be_there_is_woken_and_goes_elsewhere() {
    let one_at_a_time = ServicePolicy {
        requests_max: 1,
        ..super::sharing::service(0, None)
    };
    let policy = PoolPolicy {
        services: [one_at_a_time].into(),
        panic_threshold_percent: 100,
        ..policy()
    };
    let mut world = World::with(policy, &specs(2));
    world.unfit(&[1, 2], 0);
    let busy = world.endpoint(&[], 1);
    let other = world
        .pool
        .addresses()
        .map(|(picked, _)| picked)
        .find(|picked| *picked != busy);
    let other = other.expect("there are two");
    // It failed at the other one, and waits for a place at this one.
    let Pick::Park(ticket) = world.pick(&[other.token], 2) else {
        panic!("it waits");
    };
    world.take();
    world.outcome(busy, Outcome::ConnectFailed, 3);
    assert_eq!(world.take(), [Action::Wake]);
    let pick = world
        .pool
        .pick(None, &[other.token], Some(ticket), &mut world.rng, at(4));
    assert_eq!(pick, Pick::Endpoint(other));
}
