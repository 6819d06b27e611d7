//! Endpoints that come in beside others.

use std::vec;

use super::sharing::service;
use super::*;

const TEN_SECONDS: u64 = 10_000;

fn growing(balance: Balance, weights: &[Option<u32>]) -> PoolPolicy {
    let slow = |(number, weight): (u64, &Option<u32>)| ServicePolicy {
        slow_start: Duration::from_millis(TEN_SECONDS),
        ..service(number, *weight)
    };
    PoolPolicy {
        balance,
        services: (0..).zip(weights).map(slow).collect(),
        ..policy()
    }
}

impl World {
    /// How many of a thousand requests each endpoint takes.
    fn thousand(&mut self, key: impl Fn(u64) -> Option<u64>, now: u64) -> Vec<u32> {
        let mut counts = std::vec![0; self.pool.endpoints.len()];
        for request in 0..1_000 {
            match self.pool.pick(key(request), &[], None, &mut self.rng, at(now)) {
                Pick::Endpoint(picked) => {
                    let mut tokens = self.pool.endpoints.iter().map(|endpoint| endpoint.token);
                    counts[tokens.position(|token| token == picked.token).expect("it is known")] += 1;
                    self.pool.release(picked.token);
                }
                other @ (Pick::Park(_) | Pick::Unavailable(_)) => panic!("expected an endpoint, got {other:?}"),
            }
        }
        counts
    }
}

/// Of a thousand requests, those that the newcomer beside two others takes after these times.
fn newcomers_share(balance: Balance, times: &[u64]) -> Vec<u32> {
    let mut world = World::with(growing(balance, &[None]), &specs(2));
    world.apply(&specs(3), 1_000);
    let share = |after: &u64| world.thousand(|_| None, 1_000 + after)[2];
    times.iter().map(share).collect()
}

#[test]
fn a_newcomers_share_grows_with_time_to_the_full_one() {
    for balance in [Balance::RoundRobin, Balance::LeastRequests] {
        let shares = newcomers_share(balance, &[0, 1_000, 5_000, 9_000, 10_000]);
        let expected = [20..60, 20..60, 140..230, 260..350, 290..380];
        for (share, expected) in shares.iter().zip(&expected) {
            assert!(
                expected.contains(share),
                "{balance:?}: {shares:?}, expected {expected:?}"
            );
        }
    }
}

#[test]
fn others_keep_equal_shares_beside_a_newcomer_in_their_midst() {
    let mut world = World::with(growing(Balance::RoundRobin, &[None]), &specs(4));
    let second = world.pool.endpoints[1].token;
    let second = Picked {
        token: second,
        addr: spec(2).addr,
    };
    world.outcome(second, Outcome::Failed, 0);
    world.timeout(TEN_SECONDS);
    assert_eq!(world.states(), "ready ready ready ready");
    let counts = world.thousand(|_| None, TEN_SECONDS);
    assert!(
        (20..60).contains(&counts[1]),
        "who was set aside grows anew: {counts:?}"
    );
    let others = [counts[0], counts[2], counts[3]];
    assert!(others.iter().all(|count| count.abs_diff(others[0]) <= 1), "{counts:?}");
}

#[test]
fn where_all_are_new_or_no_other_is_left_nothing_changes() {
    let mut world = World::with(growing(Balance::RoundRobin, &[None]), &specs(4));
    assert_eq!(world.thousand(|_| None, 0), [250; 4]);
    world.apply(&specs(6), 1_000);
    let newest: Vec<EndpointSpec> = specs(6).split_off(4);
    world.apply(&newest, 1_001);
    assert_eq!(world.thousand(|_| None, 1_001), [500; 2]);
}

#[test]
fn endpoints_that_replace_leaving_ones_serve_at_once() {
    let mut world = World::with(growing(Balance::RoundRobin, &[None]), &specs(1));
    world.apply(&[leaving(1, 2_500), spec(2), spec(3)], 1_000);
    assert_eq!(world.thousand(|_| None, 1_000), [0, 500, 500]);
}

#[test]
fn a_service_whose_tasks_are_all_new_grows_to_its_weight() {
    let policy = growing(Balance::RoundRobin, &[Some(80), Some(20)]);
    let mut world = World::with(policy.clone(), &specs(2));
    let members = (1..=3).map(|n| Member {
        spec: spec(n),
        service: usize::from(n == 3),
    });
    world.step(Input::Fact(Fact::Spec(members.collect(), policy)), 1_000);
    let early = world.thousand(|_| None, 1_000)[2];
    assert!((5..50).contains(&early), "{early}");
    assert_eq!(world.thousand(|_| None, 1_000 + TEN_SECONDS)[2], 200);
}

#[test]
fn clients_that_are_known_again_go_where_they_belong_at_once() {
    let mut world = World::with(growing(Balance::RoundRobin, &[None]), &specs(2));
    world.apply(&specs(3), 1_000);
    let early = world.thousand(Some, 1_000);
    assert_eq!(early, world.thousand(Some, 1_000 + TEN_SECONDS));
    assert!(early[2] > 250, "{early:?}");
}

#[test]
fn a_pool_that_takes_anothers_place_grows_on() {
    let policy = growing(Balance::RoundRobin, &[None]);
    let mut old = World::with(policy.clone(), &specs(1));
    old.apply(&specs(2), 1_000);
    let mut new = World::with(policy, &specs(3));
    new.pool.adopt(&old.pool, at(6_000));
    let counts = new.thousand(|_| None, 6_000);
    assert!(counts[1] > 200 && counts[2] < 150, "{counts:?}");
}

proptest! {
    #[test]
    fn growing_endpoints_change_shares_and_never_whether_a_request_is_served(
        facts in prop::collection::vec((0_usize..4, 0_u8..4, 0_u64..6_000), 1..40),
    ) {
        let mut worlds = [growing(Balance::LeastRequests, &[None]), policy()].map(|policy| World::with(policy, &specs(2)));
        let mut now = 0;
        for (which, kind, wait) in facts {
            now += wait;
            let served = worlds.each_mut().map(|world| {
                world.timeout(now);
                let picked = world.pool.addresses().map(|(picked, _)| picked).nth(which);
                match (kind, picked) {
                    (0, Some(picked)) => world.outcome(picked, Outcome::ConnectFailed, now),
                    (1, Some(picked)) => world.outcome(picked, Outcome::Failed, now),
                    (2, Some(picked)) => world.outcome(picked, Outcome::Connected, now),
                    _ => world.apply(&specs(1 + which as u16), now),
                }
                match world.pick(&[], now) {
                    Pick::Endpoint(picked) => {
                        world.pool.release(picked.token);
                        true
                    }
                    Pick::Park(_) => {
                        world.unpark();
                        false
                    }
                    Pick::Unavailable(_) => false,
                }
            });
            prop_assert_eq!(served[0], served[1]);
            prop_assert_eq!(worlds[0].states(), worlds[1].states());
        }
    }
}

#[test]
fn a_newcomer_takes_all_where_the_others_have_no_share() {
    for balance in [Balance::RoundRobin, Balance::LeastRequests] {
        let member = |number, service| Member {
            spec: spec(number),
            service,
        };
        let policy = growing(balance, &[Some(100), Some(0)]);
        let mut world = World::with(policy.clone(), &[]);
        // An update of one replica, new before old, beside a service that is given nothing.
        let tables = [
            vec![member(1, 0), member(9, 1)],
            vec![member(1, 0), member(2, 0), member(9, 1)],
            vec![member(2, 0), member(9, 1)],
        ];
        for (number, table) in (0..).zip(tables) {
            world.step(Input::Fact(Fact::Spec(table, policy.clone())), number * 1_000);
        }
        assert_eq!(
            world.thousand(|_| None, 2_100).iter().sum::<u32>(),
            1_000,
            "{balance:?}"
        );
    }
}
