//! Shares of services, clients that are known again, and the checks of each service.

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::balance::rendezvous;
use crate::rng::Rng;

pub(super) fn service(number: u64, weight: Option<u32>) -> ServicePolicy {
    ServicePolicy {
        hash: rendezvous::hash(&number.to_le_bytes()),
        weight,
        max_fails: 1,
        fail_timeout: Duration::from_secs(10),
        fail_rate_percent: 50,
        fail_on: ServerErrors::default(),
        requests_max: 0,
        slow_start: Duration::ZERO,
    }
}

/// A pool of services with these weights and numbers of endpoints; endpoint `n` of service `s` has the port `s * 100 + n`.
fn shared(balance: Balance, services: &[(Option<u32>, u16)]) -> World {
    let policy = PoolPolicy {
        balance,
        services: (0..)
            .zip(services)
            .map(|(number, (weight, _))| service(number, *weight))
            .collect(),
        eject_max_percent: 100,
        panic_threshold_percent: 0,
        ..policy()
    };
    let mut world = World::with(policy.clone(), &[]);
    let members = (0_u16..).zip(services).flat_map(|(owner, (_, count))| {
        (0..*count).map(move |n| Member {
            spec: spec(owner * 100 + n + 1),
            service: owner.into(),
        })
    });
    world.step(Input::Fact(Fact::Spec(members.collect(), policy)), 0);
    world
}

fn owner(picked: Picked) -> usize {
    usize::from(picked.addr.port() - 1) / 100
}

impl World {
    fn known(&mut self, key: u64, tried: &[Token], now: u64) -> Picked {
        match self.pool.pick(Some(key), tried, None, &mut self.rng, at(now)) {
            Pick::Endpoint(picked) => {
                self.pool.release(picked.token);
                picked
            }
            other @ (Pick::Park(_) | Pick::Unavailable(_)) => panic!("expected an endpoint, got {other:?}"),
        }
    }
}

#[test]
fn without_weights_each_endpoint_counts_as_one() {
    let mut world = shared(Balance::RoundRobin, &[(None, 4), (None, 1)]);
    let mut counts = [0; 2];
    for _ in 0..50 {
        counts[owner(world.endpoint(&[], 0))] += 1;
    }
    assert_eq!(counts, [40, 10]);
}

#[test]
fn a_service_without_weight_counts_its_ready_endpoints_beside_one_with() {
    let mut world = shared(Balance::RoundRobin, &[(None, 3), (Some(1), 5)]);
    let mut counts = [0; 2];
    for _ in 0..40 {
        counts[owner(world.endpoint(&[], 0))] += 1;
    }
    assert_eq!(counts, [30, 10]);
}

#[test]
fn a_share_stays_with_the_endpoints_that_are_left_and_goes_to_others_with_the_last() {
    let mut world = shared(Balance::RoundRobin, &[(Some(1), 1), (Some(1), 2)]);
    let first = world.known(0, &[], 0);
    let victim = (0..100)
        .map(|key| world.known(key, &[], 0))
        .find(|picked| owner(*picked) == 1)
        .unwrap_or(first);
    world.outcome(victim, Outcome::Failed, 0);
    let mut counts = [0; 2];
    for _ in 0..20 {
        counts[owner(world.endpoint(&[], 0))] += 1;
    }
    assert_eq!(counts, [10, 10]);
    let heir = (0..100)
        .map(|key| world.known(key, &[], 0))
        .find(|picked| owner(*picked) == 1)
        .expect("one is left");
    assert_ne!(heir.token, victim.token);
    world.outcome(heir, Outcome::Failed, 0);
    assert!((0..20).all(|_| owner(world.endpoint(&[], 0)) == 0));
}

#[test]
fn a_weight_of_zero_gets_nothing_not_even_as_the_last() {
    for balance in [Balance::LeastRequests, Balance::RoundRobin] {
        let mut world = shared(balance, &[(Some(0), 2), (Some(3), 1)]);
        for key in 0..50 {
            assert_eq!(owner(world.endpoint(&[], 0)), 1);
            assert_eq!(owner(world.known(key, &[], 0)), 1);
        }
        let only = world.endpoint(&[], 0);
        world.outcome(only, Outcome::ConnectFailed, 0);
        assert!(matches!(world.pick(&[], 0), Pick::Park(_)), "{balance:?}");
        // The one endpoint with a share has no other beside it that could stand in.
        let mut world = shared(balance, &[(Some(0), 2), (Some(3), 1)]);
        let only = world.endpoint(&[], 0);
        world.outcome(only, Outcome::Failed, 0);
        assert_eq!(world.endpoint(&[], 0).token, only.token);
    }
}

#[test]
fn a_client_whose_endpoint_is_ejected_goes_to_one_other_and_comes_back() {
    let mut world = World::new(&specs(5));
    let home = world.known(7, &[], 0);
    world.outcome(home, Outcome::Failed, 0);
    let next = world.known(7, &[], 1);
    assert_ne!(next.token, home.token);
    assert!((0..20).all(|now| world.known(7, &[], now).token == next.token));
    assert_eq!(
        world.known(7, &[next.token], 1).token,
        world.known(7, &[next.token], 2).token
    );
    world.timeout(10_000);
    assert_eq!(world.known(7, &[], 10_000).token, home.token);
}

#[test]
fn row_36_an_endpoint_keeps_the_checks_of_its_own_service() {
    let mut policy = PoolPolicy {
        services: vec![service(0, None), service(1, None), service(2, None)],
        eject_max_percent: 100,
        ..policy()
    };
    policy.services[1].max_fails = 3;
    policy.services[1].fail_timeout = Duration::from_secs(60);
    policy.services[2].max_fails = 0;
    let members: Vec<Member> = (0..3)
        .map(|at| Member {
            spec: spec(at + 1),
            service: at.into(),
        })
        .collect();
    let mut world = World::with(policy.clone(), &[]);
    world.step(Input::Fact(Fact::Spec(members, policy)), 0);
    let tokens: Vec<Picked> = world.pool.addresses().map(|(picked, _)| picked).collect();
    for fails in 1..=3_u64 {
        for picked in &tokens {
            world.outcome(*picked, Outcome::Failed, fails);
        }
        let expected = if fails < 3 {
            "ejected ready ready"
        } else {
            "ejected ejected ready"
        };
        assert_eq!(world.states(), expected);
    }
    world.timeout(10_001);
    assert_eq!(world.states(), "ready ejected ready");
    world.timeout(60_003);
    assert_eq!(world.states(), "ready ready ready");
}

proptest! {
    // Each case draws thousands of times.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn least_requests_respects_weights_whatever_is_under_way(
        services in prop::collection::vec((0_u32..=20, 1_u16..5), 2..5),
        release in 1_usize..30,
        seed: u64,
    ) {
        let total: u32 = services.iter().map(|(weight, _)| *weight).sum();
        prop_assume!(total > 0);
        let services: Vec<_> = services.into_iter().map(|(weight, count)| (Some(weight), count)).collect();
        let mut world = shared(Balance::LeastRequests, &services);
        world.rng = Rng::new(seed);
        let draws = 4_000_u32;
        let mut counts = vec![0_u32; services.len()];
        let mut by_endpoint: BTreeMap<u16, u32> = BTreeMap::new();
        let mut open = Vec::new();
        for _ in 0..draws {
            let picked = world.endpoint(&[], 0);
            counts[owner(picked)] += 1;
            *by_endpoint.entry(picked.addr.port()).or_default() += 1;
            open.push(picked);
            // The first service's tasks are slow: its requests stay under way.
            if open.len() >= release
                && let Some(at) = open.iter().position(|picked| owner(*picked) != 0)
            {
                world.pool.release(open.swap_remove(at).token);
            }
        }
        for ((weight, _), count) in services.iter().zip(&counts) {
            let share = f64::from(weight.unwrap_or(0)) / f64::from(total);
            let deviation = (f64::from(draws) * share * (1.0 - share)).sqrt();
            prop_assert!((f64::from(*count) - f64::from(draws) * share).abs() <= 6.0 * deviation, "{counts:?}");
        }
        // Within the slow service requests are spread by how many are under way.
        let first: Vec<u32> = (1..=services[0].1).map(|port| by_endpoint.get(&port).copied().unwrap_or(0)).collect();
        let (least, most) = (first.iter().min().unwrap_or(&0), first.iter().max().unwrap_or(&0));
        prop_assert!(most - least <= 16, "{first:?}");
    }

    #[test]
    fn clients_that_are_known_again_are_shared_by_weight_and_stay(
        weights in prop::collection::vec(1_u32..=20, 2..4), seed: u64,
    ) {
        let services: Vec<_> = weights.iter().map(|weight| (Some(*weight), 3)).collect();
        let mut world = shared(Balance::LeastRequests, &services);
        let total: u32 = weights.iter().sum();
        let mut counts = vec![0_u32; weights.len()];
        let clients = 3_000_u64;
        for client in 0..clients {
            let key = rendezvous::hash(&(seed ^ client).to_le_bytes());
            let picked = world.known(key, &[], 0);
            prop_assert_eq!(world.known(key, &[], 1), picked);
            counts[owner(picked)] += 1;
        }
        for (weight, count) in weights.iter().zip(&counts) {
            let share = f64::from(*weight) / f64::from(total);
            let deviation = (clients as f64 * share * (1.0 - share)).sqrt();
            prop_assert!((f64::from(*count) - clients as f64 * share).abs() <= 6.0 * deviation, "{counts:?}");
        }
    }
}
