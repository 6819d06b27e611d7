//! Endpoints with a limit of requests under way, and the order of those that wait.

use std::vec;

use super::sharing::service;
use super::*;
use crate::pool::Ticket;

fn limited(requests_max: u32) -> PoolPolicy {
    PoolPolicy {
        services: vec![ServicePolicy {
            requests_max,
            ..service(0, None)
        }],
        ..policy()
    }
}

impl World {
    fn parks(&mut self, now: u64) -> Ticket {
        match self.pick(&[], now) {
            Pick::Park(ticket) => ticket,
            other @ (Pick::Endpoint(_) | Pick::Unavailable(_)) => panic!("expected to wait, got {other:?}"),
        }
    }

    fn again(&mut self, ticket: Ticket, now: u64) -> Pick {
        self.pool.pick(None, &[], Some(ticket), &mut self.rng, at(now))
    }

    fn may_go(&self, now: u64) -> Vec<Ticket> {
        self.pool.may_go(at(now)).collect()
    }
}

#[test]
fn requests_wait_while_all_are_full_and_go_in_the_order_in_which_they_came() {
    let mut world = World::with(limited(2), &specs(2));
    let held: Vec<Picked> = (0..4).map(|_| world.endpoint(&[], 0)).collect();
    assert!(world.pool.views().all(|view| view.in_flight == 2));
    let (first, second) = (world.parks(1), world.parks(2));
    assert!(world.may_go(3).is_empty());
    assert!(world.pool.is_busy(at(3)));
    world.pool.release(held[0].token);
    assert_eq!(world.may_go(4), [first]);
    // Who comes now, or woke too early, does not overtake.
    let third = world.parks(4);
    assert_eq!(world.again(second, 4), Pick::Park(second));
    assert!(matches!(world.again(first, 5), Pick::Endpoint(picked) if picked.token == held[0].token));
    world.pool.unpark(first);
    assert!(world.may_go(5).is_empty());
    // One that gives up makes room for the next.
    world.pool.release(held[1].token);
    world.pool.unpark(second);
    assert_eq!(world.may_go(6), [third]);
    assert_eq!(world.pool.counters().busy, 3);
}

#[test]
fn a_client_that_is_known_again_goes_to_another_one_while_its_own_is_full() {
    let mut world = World::with(limited(1), &specs(3));
    let pick = |world: &mut World| world.pool.pick(Some(7), &[], None, &mut world.rng, at(0));
    let Pick::Endpoint(home) = pick(&mut world) else {
        panic!("one is free")
    };
    let Pick::Endpoint(next) = pick(&mut world) else {
        panic!("one is free")
    };
    assert_ne!(home.token, next.token);
    world.pool.release(home.token);
    assert!(matches!(pick(&mut world), Pick::Endpoint(again) if again.token == home.token));
}

#[test]
fn requests_wait_for_one_that_is_full_rather_than_go_to_one_that_is_no_good() {
    let mut world = World::with(limited(1), &specs(2));
    let one = world.endpoint(&[], 0);
    world.outcome(one, Outcome::Failed, 0);
    world.pool.release(one.token);
    assert_eq!(world.states().matches("ejected").count(), 1);
    let other = world.endpoint(&[], 1);
    assert_ne!(other.token, one.token);
    let waits = world.parks(2);
    world.timeout(10_000);
    assert_eq!(world.take().last(), Some(&Action::Wake), "the other one is ready again");
    assert!(matches!(world.again(waits, 10_001), Pick::Endpoint(picked) if picked.token == one.token));
}

#[test]
fn where_nobody_may_wait_or_too_many_do_the_reason_is_named() {
    for (park, parked_max, ready) in [(0, 10, true), (1_000, 0, true), (1_000, 0, false)] {
        let policy = PoolPolicy {
            park: Duration::from_millis(park),
            parked_max,
            ..limited(1)
        };
        let mut world = World::with(policy, &specs(u16::from(ready)));
        if ready {
            world.endpoint(&[], 0);
        }
        let expected = if ready {
            Unavailable::Busy
        } else {
            Unavailable::ParkingFull
        };
        assert_eq!(world.pick(&[], 1), Pick::Unavailable(expected));
        assert_eq!(world.pool.is_busy(at(1)), ready);
    }
}

#[test]
fn a_limit_that_is_raised_wakes_who_waits_and_one_that_is_lowered_ends_nothing() {
    let mut world = World::with(limited(1), &specs(1));
    let held = world.endpoint(&[], 0);
    let waits = world.parks(0);
    let members = || specs(1).into_iter().map(Member::from).collect();
    world.step(Input::Fact(Fact::Spec(members(), limited(2))), 1);
    assert_eq!(world.take(), [Action::Wake]);
    assert!(matches!(world.again(waits, 2), Pick::Endpoint(_)));
    world.pool.unpark(waits);
    world.step(Input::Fact(Fact::Spec(members(), limited(1))), 3);
    let waits = world.parks(4);
    world.pool.release(held.token);
    assert!(world.may_go(5).is_empty(), "one is under way still");
    world.pool.release(held.token);
    assert_eq!(world.may_go(6), [waits]);
}

#[test]
fn a_second_copy_takes_no_place_that_others_wait_for() {
    let mut world = World::with(limited(1), &specs(2));
    let (first, second) = (world.endpoint(&[], 0), world.endpoint(&[], 0));
    let waits = world.parks(1);
    world.pool.release(second.token);
    assert_eq!(world.pool.hedge(None, first.token, &mut world.rng, at(2)), None);
    assert!(matches!(world.again(waits, 3), Pick::Endpoint(_)));
}

#[test]
fn workers_divide_a_limit_and_each_has_one_at_least() {
    let of = |workers| limited(10).divided_among(workers).services[0].requests_max;
    assert_eq!((of(1), of(4), of(100), of(0)), (10, 3, 1, 10));
    assert_eq!(limited(0).divided_among(4).services[0].requests_max, 0);
}

proptest! {
    /// Against a shadow that knows who came when: no limit is exceeded, nobody overtakes, and no place stays free while
    /// somebody waits and knows of it.
    #[test]
    fn nobody_overtakes_and_no_limit_is_exceeded(
        (endpoints, requests_max) in (1_u16..4, 1_u32..4),
        course in prop::collection::vec((0_u8..6, 0_usize..12), 1..200),
    ) {
        let mut world = World::with(limited(requests_max), &specs(endpoints));
        let (mut held, mut waiting) = (Vec::<Picked>::new(), Vec::<Ticket>::new());
        for (what, at) in course {
            match what {
                0 | 1 => match world.pick(&[], 0) {
                    Pick::Endpoint(picked) => {
                        prop_assert!(waiting.len() <= world.may_go(0).len(), "it overtook");
                        held.push(picked);
                    }
                    Pick::Park(ticket) => {
                        prop_assert!(waiting.last().is_none_or(|last| *last < ticket));
                        waiting.push(ticket);
                    }
                    Pick::Unavailable(why) => prop_assert!(false, "{why:?}"),
                },
                2 | 3 => if at < held.len() {
                    world.pool.release(held.swap_remove(at).token);
                },
                4 => if at < waiting.len() {
                    world.pool.unpark(waiting.remove(at));
                },
                // One that was woken, rightly or not, picks anew.
                _ => if let Some(ticket) = waiting.get(at).copied() {
                    let may_go = world.may_go(0).contains(&ticket);
                    match world.again(ticket, 0) {
                        Pick::Endpoint(picked) => {
                            prop_assert!(may_go);
                            held.push(picked);
                            world.pool.unpark(waiting.remove(at));
                        }
                        Pick::Park(same) => prop_assert!(!may_go && same == ticket),
                        Pick::Unavailable(why) => prop_assert!(false, "{why:?}"),
                    }
                },
            }
            prop_assert!(world.pool.views().all(|view| view.in_flight <= requests_max));
            let free = usize::from(endpoints) * requests_max as usize - held.len();
            prop_assert_eq!(world.may_go(0), waiting.iter().copied().take(free).collect::<Vec<_>>());
            prop_assert_eq!(world.pool.parked() as usize, waiting.len());
        }
    }
}
