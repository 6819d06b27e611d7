use std::format;
use std::net::SocketAddr;
use std::string::String;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::id::EndpointId;
use crate::machine::{Input, step};
use crate::pool::ServicePolicy;
use crate::pool::{Pick, Unavailable};
use crate::rng::Rng;
use crate::route::spec::Balance;
use crate::route::spec::RouteLimits;
use crate::route::spec::{EndpointSpec, Leaving};
use crate::settings::proxy::ProxySettings;

mod nobody;
mod outlier;
mod parking;
mod probing;
mod sharing;
mod slow_start;
mod vanishing;

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn policy() -> PoolPolicy {
    PoolPolicy::new(
        Balance::LeastRequests,
        &RouteLimits::default(),
        &ProxySettings::default(),
    )
}

fn spec(n: u16) -> EndpointSpec {
    EndpointSpec {
        id: EndpointId::from(format!("task{n}")),
        addr: SocketAddr::from(([10, 0, 0, 1], n)),
        via: None,
        node: None,
        leaving: None,
        unsure: false,
    }
}

fn leaving(n: u16, last_resort_ms: u32) -> EndpointSpec {
    EndpointSpec {
        leaving: Some(Leaving { last_resort_ms }),
        ..spec(n)
    }
}

fn specs(n: u16) -> Vec<EndpointSpec> {
    (1..=n).map(spec).collect()
}

/// A pool under test, with what it asked for.
struct World {
    pool: Pool,
    rng: Rng,
    actions: Vec<Action>,
}

impl World {
    fn new(endpoints: &[EndpointSpec]) -> Self {
        Self::with(policy(), endpoints)
    }

    fn with(policy: PoolPolicy, endpoints: &[EndpointSpec]) -> Self {
        let mut world = World {
            pool: Pool::new(policy),
            rng: Rng::new(1),
            actions: Vec::new(),
        };
        world.apply(endpoints, 0);
        world
    }

    fn apply(&mut self, endpoints: &[EndpointSpec], now: u64) {
        let policy = self.pool.policy().clone();
        let members = endpoints.iter().cloned().map(Member::from).collect();
        self.step(Input::Fact(Fact::Spec(members, policy)), now);
    }

    fn outcome(&mut self, picked: Picked, outcome: Outcome, now: u64) {
        self.step(Input::Fact(Fact::Outcome(picked.token, outcome)), now);
    }

    fn timeout(&mut self, now: u64) {
        self.step(Input::Timeout, now);
    }

    fn step(&mut self, input: Input<Fact>, now: u64) {
        let actions = &mut self.actions;
        step(&mut self.pool, input, at(now), |action| actions.push(action));
    }

    fn pick(&mut self, tried: &[Token], now: u64) -> Pick {
        self.pool.pick(None, tried, None, &mut self.rng, at(now))
    }

    /// Who waits longest gives up.
    fn unpark(&mut self) {
        let first = self.pool.parked.first().expect("somebody waits");
        self.pool.unpark(first);
    }

    fn endpoint(&mut self, tried: &[Token], now: u64) -> Picked {
        match self.pick(tried, now) {
            Pick::Endpoint(picked) => picked,
            other @ (Pick::Park(_) | Pick::Unavailable(_)) => panic!("expected an endpoint, got {other:?}"),
        }
    }

    fn states(&self) -> String {
        let states: Vec<_> = self.pool.views().map(|view| view.state.name()).collect();
        states.join(" ")
    }

    fn take(&mut self) -> Vec<Action> {
        core::mem::take(&mut self.actions)
    }
}

#[test]
fn a_refused_newcomer_goes_on_probation_at_once_and_returns_with_the_first_connection() {
    let mut world = World::new(&specs(2));
    let picked = world.endpoint(&[], 0);
    world.outcome(picked, Outcome::ConnectFailed, 0);
    assert_eq!(world.states().matches("probation").count(), 1);
    let other = world.endpoint(&[picked.token], 0);
    assert_ne!(other.token, picked.token);
    assert_eq!(
        world.pool.poll_timeout(),
        Some(Deadline {
            at: at(50),
            why: "probe due"
        })
    );
    world.timeout(50);
    assert!(world.take().contains(&Action::Probe(picked)));
    world.outcome(picked, Outcome::ConnectFailed, 60);
    assert_eq!(
        world.pool.poll_timeout(),
        Some(Deadline {
            at: at(160),
            why: "probe due"
        })
    );
    world.timeout(160);
    world.outcome(picked, Outcome::Connected, 161);
    assert_eq!(world.states(), "ready ready");
}

#[test]
fn probes_back_off_to_one_a_second() {
    let mut world = World::new(&specs(1));
    let picked = world.endpoint(&[], 0);
    world.outcome(picked, Outcome::ConnectFailed, 0);
    let mut now = 0;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let due = world
            .pool
            .poll_timeout()
            .expect("a probe is due")
            .at
            .since_start()
            .as_millis() as u64;
        pauses.push(due - now);
        now = due;
        world.timeout(now);
        world.outcome(picked, Outcome::ConnectFailed, now);
    }
    assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000, 1000]);
}

#[test]
fn requests_of_a_pool_whose_only_endpoint_refuses_park_and_are_woken_by_the_probe() {
    let mut world = World::new(&specs(1));
    let picked = world.endpoint(&[], 0);
    world.outcome(picked, Outcome::Connected, 0);
    world.outcome(picked, Outcome::ConnectFailed, 5);
    assert!(matches!(world.pick(&[picked.token], 5), Pick::Park(_)));
    world.timeout(55);
    world.take();
    world.outcome(picked, Outcome::Connected, 56);
    assert_eq!(world.take(), [Action::Wake]);
    world.unpark();
    assert_eq!(world.endpoint(&[picked.token], 56).token, picked.token);
}

#[test]
fn the_only_ready_endpoint_is_never_ejected_by_count() {
    let mut world = World::new(&specs(1));
    let picked = world.endpoint(&[], 0);
    for now in 0..20 {
        world.outcome(picked, Outcome::Failed, now);
    }
    assert_eq!(world.states(), "ready");
}

#[test]
fn a_failing_endpoint_rests_for_the_fail_timeout() {
    let mut world = World::new(&specs(2));
    let picked = world.endpoint(&[], 0);
    world.outcome(picked, Outcome::Failed, 100);
    assert_eq!(world.states().matches("ejected").count(), 1);
    assert!((0..50).all(|_| world.endpoint(&[], 100).token != picked.token));
    assert_eq!(
        world.pool.poll_timeout(),
        Some(Deadline {
            at: at(10_100),
            why: "ejection ends"
        })
    );
    world.timeout(10_100);
    assert_eq!(world.states(), "ready ready");
}

#[test]
fn max_fails_counts_failures_within_the_window_only() {
    let mut world = World::with(
        PoolPolicy {
            max_fails: 2,
            ..policy()
        },
        &specs(2),
    );
    let picked = world.endpoint(&[], 0);
    world.outcome(picked, Outcome::Failed, 0);
    world.outcome(picked, Outcome::Failed, 10_001);
    assert_eq!(world.states(), "ready ready");
    world.outcome(picked, Outcome::Failed, 10_002);
    assert_eq!(world.states().matches("ejected").count(), 1);
}

#[test]
fn max_fails_zero_never_takes_out_an_endpoint_that_worked_before() {
    let mut world = World::with(
        PoolPolicy {
            max_fails: 0,
            fail_rate_percent: 0,
            ..policy()
        },
        &specs(2),
    );
    let picked = world.endpoint(&[], 0);
    world.outcome(picked, Outcome::Connected, 0);
    for now in 0..20 {
        world.outcome(picked, Outcome::Failed, now);
        world.outcome(picked, Outcome::ConnectFailed, now);
    }
    assert_eq!(world.states(), "ready ready");
}

#[test]
fn a_leaving_endpoint_serves_only_while_its_pool_has_no_other() {
    let mut world = World::new(&specs(1));
    world.take();
    world.apply(&[leaving(1, 2500)], 100);
    assert!(matches!(world.take()[..], [Action::CloseIdle(_)]));
    let old = world.endpoint(&[], 100);
    assert!(!world.pool.keeps_idle(old.token));
    world.apply(&[leaving(1, 2500), spec(2)], 200);
    assert!((0..20).all(|_| world.endpoint(&[], 200).token != old.token));
    assert_eq!(
        world.pool.poll_timeout(),
        Some(Deadline {
            at: at(2600),
            why: "last resort ends"
        })
    );
    world.take();
    world.timeout(2600);
    assert_eq!(world.states(), "leaving ready");
    // HTTP/2 connections that it served by as last resort.
    assert!(world.take().contains(&Action::CloseIdle(old.token)));
}

#[test]
fn the_last_resort_ends_with_its_time_and_then_requests_park() {
    let mut world = World::new(&specs(1));
    world.apply(&[leaving(1, 800)], 0);
    world.endpoint(&[], 799);
    assert!(matches!(world.pick(&[], 800), Pick::Park(_)));
}

#[test]
fn the_last_resort_ends_with_the_first_refused_connection() {
    let mut world = World::new(&specs(1));
    world.apply(&[leaving(1, 2500)], 0);
    let picked = world.endpoint(&[], 10);
    world.outcome(picked, Outcome::ConnectFailed, 10);
    assert_eq!(world.states(), "leaving");
    assert!(matches!(world.pick(&[picked.token], 10), Pick::Park(_)));
}

#[test]
fn telling_it_again_does_not_prolong_the_last_resort() {
    let mut world = World::new(&specs(1));
    world.apply(&[leaving(1, 800)], 0);
    world.apply(&[leaving(1, 800)], 700);
    assert!(matches!(world.pick(&[], 900), Pick::Park(_)));
}

#[test]
fn a_new_endpoint_wakes_the_parked() {
    let mut world = World::new(&[]);
    assert!(matches!(world.pick(&[], 0), Pick::Park(_)));
    world.apply(&specs(1), 10);
    assert_eq!(world.take(), [Action::Wake]);
}

#[test]
fn no_more_requests_park_than_may() {
    let mut world = World::with(
        PoolPolicy {
            parked_max: 2,
            ..policy()
        },
        &[],
    );
    assert!(matches!(world.pick(&[], 0), Pick::Park(_)));
    assert!(matches!(world.pick(&[], 0), Pick::Park(_)));
    assert_eq!(world.pick(&[], 0), Pick::Unavailable(Unavailable::ParkingFull));
    world.unpark();
    assert!(matches!(world.pick(&[], 0), Pick::Park(_)));
}

#[test]
fn a_pool_whose_parking_is_off_says_so() {
    let mut world = World::with(
        PoolPolicy {
            park: Duration::ZERO,
            ..policy()
        },
        &[],
    );
    assert_eq!(world.pick(&[], 0), Pick::Unavailable(Unavailable::ParkingOff));
}

#[test]
fn a_surviving_endpoint_keeps_its_state_and_requests_and_one_that_went_is_forgotten() {
    let mut world = World::new(&specs(2));
    let first = world.endpoint(&[], 0);
    world.outcome(first, Outcome::Failed, 0);
    world.take();
    let survivor = spec(first.addr.port());
    world.apply(&[survivor.clone(), spec(9)], 10);
    assert!(matches!(world.take()[..], [Action::Forget(token)] if token != first.token));
    let view = world
        .pool
        .views()
        .find(|view| view.id == survivor.id)
        .expect("it survived");
    assert_eq!((view.state, view.in_flight), (State::Ejected, 1));
}

#[test]
fn an_address_that_changes_hands_is_a_new_endpoint() {
    let mut world = World::new(&specs(1));
    let old = world.endpoint(&[], 0);
    let heir = EndpointSpec {
        id: EndpointId::from("heir"),
        ..spec(1)
    };
    world.take();
    world.apply(&[heir], 1);
    assert_eq!(world.states(), "leaving ready", "its request is under way");
    world.outcome(old, Outcome::ConnectFailed, 2);
    assert_ne!(world.endpoint(&[], 2).token, old.token);
    world.pool.release(old.token);
    assert_eq!(world.pool.poll_action(), Some(Action::Forget(old.token)));
    assert_eq!(world.states(), "ready");
}

#[test]
fn an_endpoint_that_leaves_no_other_choice_is_used_although_it_rests() {
    let mut world = World::new(&specs(2));
    let picked = world.endpoint(&[], 0);
    world.outcome(picked, Outcome::Failed, 0);
    world.apply(&[spec(picked.addr.port())], 1);
    assert_eq!(world.endpoint(&[], 1).token, picked.token);
}

#[test]
fn a_stale_connection_says_nothing_about_its_endpoint() {
    let mut world = World::new(&specs(2));
    let picked = world.endpoint(&[], 0);
    for now in 0..10 {
        world.outcome(picked, Outcome::Stale, now);
    }
    assert_eq!(world.states(), "ready ready");
}

#[test]
fn a_pool_that_takes_anothers_place_knows_what_that_one_knew() {
    let mut old = World::new(&specs(4));
    let all: Vec<Picked> = old.pool.addresses().map(|(picked, _)| picked).collect();
    old.outcome(all[0], Outcome::Failed, 0);
    old.outcome(all[1], Outcome::ConnectFailed, 0);
    old.apply(&[spec(1), spec(2), leaving(3, 800), spec(4)], 100);
    old.timeout(100); // the probe of the second is running
    assert_eq!(old.states(), "ejected probation last_resort ready");
    let mut new = World::new(&[]);
    new.apply(&[leaving(1, 2500), spec(2), leaving(3, 800), spec(4), spec(5)], 500);
    let adopted = new.pool.adopt(&old.pool, at(500));
    new.pool.check_invariants();
    assert_eq!(adopted.len(), 4);
    // The first is leaving only since this table; the third has been for 400 ms already.
    assert_eq!(new.states(), "last_resort probation last_resort ready ready");
    assert_eq!(
        new.pool.poll_timeout(),
        Some(Deadline {
            at: at(500),
            why: "probe due"
        })
    );
    new.timeout(900);
    assert_eq!(new.states(), "last_resort probation leaving ready ready");
}

#[test]
fn retries_of_what_was_sent_need_budget_and_others_do_not() {
    let mut world = World::new(&specs(2));
    let retries = |world: &mut World, failure| (0..500).filter(|_| world.pool.withdraw_retry(failure, at(0))).count();
    assert_eq!(retries(&mut world, Failure::Died), 100);
    assert_eq!(retries(&mut world, Failure::Connect), 500);
    let counters = world.pool.counters();
    assert_eq!((counters.retries, counters.retries_refused), (600, 400));
}

#[test]
fn retries_are_a_share_of_the_requests_that_were_sent() {
    let mut world = World::new(&specs(2));
    let retries = |world: &mut World| {
        (0..500)
            .filter(|_| world.pool.withdraw_retry(Failure::Died, at(0)))
            .count()
    };
    (0..1000).for_each(|_| world.pool.handle_request());
    assert_eq!(retries(&mut world), 100, "the floor");
    (0..1000).for_each(|_| world.pool.handle_sent(at(0)));
    assert_eq!(retries(&mut world), 200);
}

#[derive(Clone, Debug)]
enum Move {
    Apply(Vec<(u16, Option<u32>)>),
    Fire,
    Outcome(usize, Outcome),
    Pick(Vec<usize>),
    Release(usize),
    Unfit(Vec<u16>),
    Unpark,
    Wait(u64),
}

fn moves() -> impl Strategy<Value = Move> {
    let outcome = prop_oneof![
        Just(Outcome::Connected),
        Just(Outcome::ConnectFailed),
        Just(Outcome::ConnectTimedOut),
        Just(Outcome::Failed),
        Just(Outcome::Responded(200)),
        Just(Outcome::Responded(503)),
        Just(Outcome::Stale),
        Just(Outcome::Untried),
    ];
    prop_oneof![
        2 => prop::collection::vec((1_u16..6, prop::option::of(0_u32..3000)), 0..6).prop_map(Move::Apply),
        3 => Just(Move::Fire),
        5 => (0_usize..8, outcome).prop_map(|(at, outcome)| Move::Outcome(at, outcome)),
        6 => prop::collection::vec(0_usize..8, 0..3).prop_map(Move::Pick),
        3 => (0_usize..8).prop_map(Move::Release),
        1 => prop::collection::vec(1_u16..6, 0..4).prop_map(Move::Unfit),
        1 => Just(Move::Unpark),
        3 => (0_u64..2000).prop_map(Move::Wait),
    ]
}

proptest! {
    /// Against a shadow that knows only what was asked: who is wanted, who was picked and how many wait.
    #[test]
    fn any_course_of_events_keeps_the_pool_sound(
        course in prop::collection::vec(moves(), 1..200),
        round_robin: bool,
        parked_max in 0_u32..4,
    ) {
        let balance = if round_robin { Balance::RoundRobin } else { Balance::LeastRequests };
        let mut world = World::with(PoolPolicy { balance, parked_max, ..policy() }, &[]);
        let (mut now, mut picked, mut parked) = (0, Vec::<Picked>::new(), 0);
        for next in course {
            match next {
                Move::Apply(wanted) => {
                    let wanted: Vec<_> = wanted
                        .into_iter()
                        .map(|(n, left)| left.map_or_else(|| spec(n), |ms| leaving(n, ms)))
                        .collect();
                    world.apply(&wanted, now);
                    for view in world.pool.views() {
                        let is_wanted = wanted.iter().any(|spec| spec.id == view.id && spec.addr == view.addr);
                        prop_assert!(is_wanted || (view.state == State::Leaving && view.in_flight > 0));
                    }
                }
                Move::Fire => {
                    if let Some(due) = world.pool.poll_timeout() {
                        now = now.max(due.at.since_start().as_millis() as u64);
                        world.timeout(now);
                    }
                }
                Move::Outcome(at, outcome) => if let Some(one) = picked.get(at).copied() {
                    world.outcome(one, outcome, now);
                },
                Move::Pick(tried) => {
                    let tried: Vec<_> = tried.iter().filter_map(|at| picked.get(*at)).map(|one| one.token).collect();
                    let before: Vec<_> = world.pool.endpoints.clone();
                    match world.pick(&tried, now) {
                        Pick::Endpoint(one) => {
                            let chosen = before.iter().find(|endpoint| endpoint.token == one.token).expect("known");
                            prop_assert!(chosen.state != State::Leaving);
                            prop_assert!(chosen.state != State::Probation || (chosen.unfit && !chosen.absent));
                            let has_untried = before
                                .iter()
                                .any(|other| other.state == State::Ready && !tried.contains(&other.token));
                            prop_assert!(!has_untried || !tried.contains(&one.token));
                            let is_panic = world.pool.is_in_panic() && chosen.state != State::LastResort;
                            prop_assert!(!has_untried || chosen.state == State::Ready || is_panic);
                            picked.push(one);
                        }
                        Pick::Park(_) => {
                            parked += 1;
                            prop_assert!(parked <= parked_max);
                            prop_assert!(before.iter().all(|one| one.state != State::Ready && !one.is_there_but_unfit()));
                        }
                        Pick::Unavailable(why) => {
                            prop_assert_eq!(why, Unavailable::ParkingFull);
                            prop_assert_eq!(parked, parked_max);
                        }
                    }
                }
                Move::Release(at) => if at < picked.len() {
                    world.pool.release(picked.remove(at).token);
                },
                Move::Unfit(ports) => {
                    let unfit = ports.iter().map(|n| (spec(*n).id, spec(*n).addr, None)).collect();
                    world.step(Input::Fact(Fact::Unfit(Arc::new(unfit))), now);
                }
                Move::Unpark => if parked > 0 {
                    parked -= 1;
                    world.unpark();
                },
                Move::Wait(ms) => {
                    now += ms;
                    world.timeout(now);
                }
            }
            for endpoint in &world.pool.endpoints {
                let mine = picked.iter().filter(|one| one.token == endpoint.token).count();
                prop_assert_eq!(endpoint.in_flight as usize, mine);
            }
        }
    }

    #[test]
    fn no_course_of_failures_leaves_a_pool_for_longer_than_its_longest_rest(
        course in prop::collection::vec((0_usize..4, any::<bool>()), 1..60),
    ) {
        let mut world = World::new(&specs(4));
        let all: Vec<Picked> = world
            .pool
            .endpoints
            .iter()
            .map(|endpoint| Picked { token: endpoint.token, addr: endpoint.addr })
            .collect();
        for (step, (at, refused)) in course.iter().enumerate() {
            let outcome = if *refused { Outcome::ConnectFailed } else { Outcome::Failed };
            world.outcome(all[*at], outcome, step as u64);
        }
        // From here on everything works: probes succeed, rests end.
        for _ in 0..100 {
            let Some(due) = world.pool.poll_timeout() else { break };
            let now = due.at.since_start().as_millis() as u64;
            prop_assert!(now <= 60 + 10_000);
            world.timeout(now);
            for action in world.take() {
                if let Action::Probe(picked) = action {
                    world.outcome(picked, Outcome::Connected, now);
                }
            }
        }
        prop_assert_eq!(world.states(), "ready ready ready ready");
    }
}
