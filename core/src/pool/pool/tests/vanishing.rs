//! Endpoints that vanish without a word, and second copies of requests.

use super::*;

/// A pool of `n` endpoints, all of which were heard at 0.
fn heard(n: u16) -> (World, Vec<Picked>) {
    let mut world = World::new(&specs(n));
    let all: Vec<Picked> = world.pool.addresses().map(|(picked, _)| picked).collect();
    for picked in &all {
        world.outcome(*picked, Outcome::Connected, 0);
    }
    world.take();
    (world, all)
}

impl World {
    fn doubt(&mut self, picked: Picked, now: u64) -> Vec<Action> {
        self.step(Input::Fact(Fact::Doubt(picked.token)), now);
        self.take()
    }
}

#[test]
fn an_endpoint_in_doubt_is_asked_once_a_second_however_many_doubt_it() {
    let (mut world, all) = heard(2);
    assert_eq!(world.doubt(all[0], 200), [Action::Probe(all[0])]);
    assert_eq!(world.doubt(all[0], 201), []);
    world.outcome(all[0], Outcome::Connected, 202);
    assert_eq!(world.doubt(all[0], 1_199), []);
    assert_eq!(world.doubt(all[0], 1_200), [Action::Probe(all[0])]);
    assert_eq!(world.states(), "ready ready");
}

#[test]
fn requests_leave_an_endpoint_that_does_not_answer_at_all() {
    let (mut world, all) = heard(2);
    world.doubt(all[0], 300);
    world.outcome(all[0], Outcome::ConnectTimedOut, 700);
    let actions = world.take();
    assert!(actions.contains(&Action::Abandon(all[0].token)), "{actions:?}");
    assert!(actions.contains(&Action::CloseIdle(all[0].token)), "{actions:?}");
    assert_eq!(world.states(), "probation ready");
    // Whoever begins to doubt it later is told at once, until it is heard again.
    assert_eq!(world.doubt(all[0], 701), [Action::Abandon(all[0].token)]);
    world.outcome(all[0], Outcome::Connected, 800);
    world.take();
    assert_eq!(world.doubt(all[0], 3_000), [Action::Probe(all[0])]);
}

#[test]
fn a_lost_packet_makes_nobody_leave_an_endpoint_that_answers_others() {
    let (mut world, all) = heard(2);
    world.outcome(all[0], Outcome::Responded(200), 600);
    world.outcome(all[0], Outcome::ConnectTimedOut, 700);
    assert!(!world.take().contains(&Action::Abandon(all[0].token)));
}

#[test]
fn a_refused_connection_makes_nobody_leave_for_the_app_may_be_finishing() {
    let (mut world, all) = heard(2);
    world.outcome(all[0], Outcome::ConnectFailed, 700);
    assert!(!world.take().contains(&Action::Abandon(all[0].token)));
    assert_eq!(world.states(), "probation ready");
}

#[test]
fn a_leaving_endpoint_that_vanishes_is_left_too() {
    let (mut world, all) = heard(2);
    world.apply(&[leaving(1, 0), spec(2)], 100);
    assert_eq!(world.states(), "leaving ready");
    world.take();
    assert_eq!(world.doubt(all[0], 400), [Action::Probe(all[0])]);
    world.outcome(all[0], Outcome::ConnectTimedOut, 800);
    assert_eq!(world.take(), [Action::Abandon(all[0].token)]);
}

#[test]
fn a_request_leaves_an_endpoint_that_vanished_also_when_no_table_has_it_any_more() {
    for (first, state) in [(Outcome::Connected, "ready"), (Outcome::Failed, "ejected")] {
        let (mut world, all) = heard(2);
        let mut others = Vec::new();
        let waits = loop {
            match world.endpoint(&[], 100) {
                picked if picked == all[0] => break picked,
                other => others.push(other),
            }
        };
        world.outcome(waits, first, 100);
        world.take();
        assert_eq!(world.states(), format!("{state} ready"));
        assert_eq!(world.doubt(waits, 300), [Action::Probe(waits)]);
        // The Swarm says that the task is over while the probe is on its way.
        world.apply(&[spec(2)], 400);
        assert_eq!(world.states(), "leaving ready");
        assert_eq!(
            world.pool.addresses().count(),
            1,
            "nobody connects to it for anything new"
        );
        world.take();
        world.outcome(waits, Outcome::ConnectTimedOut, 700);
        assert_eq!(world.take(), [Action::Abandon(waits.token)]);
        others.iter().for_each(|other| world.pool.release(other.token));
        world.pool.release(waits.token);
        assert_eq!(world.pool.poll_action(), Some(Action::Forget(waits.token)));
        assert_eq!(world.states(), "ready");
    }
}

#[test]
fn an_endpoint_that_a_later_table_has_again_is_the_same_one() {
    let (mut world, all) = heard(1);
    let picked = world.endpoint(&[], 0);
    assert_eq!(picked, all[0]);
    world.apply(&[spec(2)], 1);
    world.apply(&[spec(1), spec(2)], 2);
    assert_eq!(world.states(), "ready ready");
    world.pool.release(picked.token);
    assert_eq!(world.pool.poll_action(), None, "nothing is forgotten");
    let ports: Vec<u16> = (0..50).map(|_| world.endpoint(&[], 3).addr.port()).collect();
    assert!(ports.contains(&picked.addr.port()), "{ports:?}");
}

#[test]
fn a_proxy_without_sockets_blames_nobody_and_goes_on_probing() {
    let (mut world, all) = heard(2);
    for now in 0..10 {
        world.outcome(all[0], Outcome::Untried, now);
    }
    assert_eq!(world.states(), "ready ready");
    world.outcome(all[0], Outcome::ConnectFailed, 10);
    world.timeout(60);
    world.outcome(all[0], Outcome::Untried, 61);
    assert!(world.pool.poll_timeout().is_some(), "the next probe is due");
}

#[test]
fn a_second_copy_goes_to_another_endpoint_and_is_taken_from_the_budget() {
    let (mut world, all) = heard(3);
    let mut hedges = 0;
    while let Some(picked) = world.pool.hedge(None, all[0].token, &mut world.rng, at(0)) {
        assert_ne!(picked.token, all[0].token);
        world.pool.release(picked.token);
        hedges += 1;
    }
    let counters = world.pool.counters();
    assert_eq!((hedges, counters.hedges, counters.retries_refused), (100, 100, 1));
    assert!(
        !world.pool.withdraw_retry(Failure::Died, at(0)),
        "they share one budget"
    );
}

#[test]
fn there_is_no_second_copy_without_a_second_ready_endpoint() {
    let (mut world, all) = heard(2);
    world.outcome(all[1], Outcome::ConnectFailed, 0);
    assert_eq!(world.pool.hedge(None, all[0].token, &mut world.rng, at(0)), None);
    assert_eq!(world.pool.counters().retries_refused, 0);
}
