//! Endpoints that fail more often than the others, the share that may rest, and panic.

use super::*;
use crate::route::statuses::ServerErrors;

/// Nothing is ejected for failures in a row, unless a test says so.
fn by_rate() -> PoolPolicy {
    PoolPolicy {
        max_fails: 0,
        fail_rate_percent: 50,
        ..policy()
    }
}

fn all(world: &World) -> Vec<Picked> {
    world.pool.addresses().map(|(picked, _)| picked).collect()
}

impl World {
    /// An endpoint answers so many requests, and fails so many.
    fn answers(&mut self, picked: Picked, good: u32, bad: u32, now: u64) {
        for _ in 0..good {
            self.outcome(picked, Outcome::Responded(200), now);
        }
        for _ in 0..bad {
            self.outcome(picked, Outcome::Failed, now);
        }
    }

    /// When the next rest ends.
    fn rest_ends(&self) -> u64 {
        let due = self.pool.poll_timeout().expect("somebody rests");
        assert_eq!(due.why, "ejection ends");
        due.at.since_start().as_millis() as u64
    }

    fn eject(&mut self, picked: Picked, now: u64) {
        self.answers(picked, 0, 10, now);
    }
}

#[test]
fn an_endpoint_that_fails_far_more_often_than_the_others_rests() {
    let mut world = World::with(by_rate(), &specs(3));
    let all = all(&world);
    world.answers(all[1], 20, 0, 0);
    world.answers(all[0], 5, 4, 0);
    assert_eq!(world.states(), "ready ready ready", "nine answers say nothing yet");
    world.answers(all[0], 0, 1, 0);
    assert_eq!(world.states(), "ejected ready ready");
    assert_eq!(
        (world.pool.counters().outliers, world.pool.counters().ejections),
        (1, 1)
    );
    assert_eq!(world.rest_ends(), 1_000);
    assert!((0..50).all(|_| world.endpoint(&[], 10).token != all[0].token));
    world.timeout(1_000);
    world.answers(all[0], 0, 1, 1_001);
    assert_eq!(
        world.states(),
        "ready ready ready",
        "what was before the rest is forgotten"
    );
}

#[test]
fn a_fault_that_all_share_takes_nobody_out() {
    let mut world = World::with(by_rate(), &specs(3));
    for _ in 0..30 {
        for picked in all(&world) {
            world.answers(picked, 0, 1, 0);
        }
    }
    assert_eq!(world.states(), "ready ready ready");
}

#[test]
fn failures_older_than_ten_seconds_do_not_count() {
    let mut world = World::with(by_rate(), &specs(2));
    let all = all(&world);
    world.answers(all[0], 0, 9, 0);
    world.answers(all[0], 0, 1, 10_000);
    assert_eq!(world.states(), "ready ready");
    world.answers(all[0], 0, 9, 11_000);
    assert_eq!(world.states(), "ejected ready");
}

#[test]
fn rests_double_in_a_row_to_a_minute_and_good_answers_shorten_them_again() {
    let mut world = World::with(by_rate(), &specs(2));
    let one = all(&world)[0];
    let mut now = 0;
    let mut rests = Vec::new();
    for _ in 0..8 {
        world.eject(one, now);
        rests.push(world.rest_ends() - now);
        now = world.rest_ends();
        world.timeout(now);
    }
    assert_eq!(rests, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
    world.answers(one, 100, 0, now + 9_999);
    for _ in 0..3 {
        now += 10_000;
        world.answers(one, 2, 0, now);
    }
    world.eject(one, now + 10_000);
    assert_eq!(world.rest_ends() - (now + 10_000), 8_000);
}

#[test]
fn never_more_than_the_set_share_of_a_pool_rests_and_one_always_may() {
    for (endpoints, share, rest) in [(10, 50, 5), (10, 29, 2), (3, 50, 1), (2, 10, 1), (4, 100, 3), (4, 0, 0)] {
        let policy = PoolPolicy {
            max_fails: 1,
            eject_max_percent: share,
            ..policy()
        };
        let mut world = World::with(policy, &specs(endpoints));
        for picked in all(&world) {
            world.eject(picked, 0);
        }
        let resting = world.states().matches("ejected").count();
        assert_eq!(resting, rest, "{share} % of {endpoints}");
    }
}

#[test]
fn where_too_few_are_ready_those_that_rest_are_used_and_those_that_refuse_are_not() {
    let mut world = World::with(
        PoolPolicy {
            max_fails: 1,
            ..policy()
        },
        &specs(4),
    );
    let all = all(&world);
    for picked in &all {
        world.outcome(*picked, Outcome::Connected, 0);
    }
    world.eject(all[0], 0);
    world.outcome(all[1], Outcome::ConnectFailed, 0);
    assert_eq!(world.states(), "ejected probation ready ready");
    assert!(
        (0..50).all(|_| world.endpoint(&[], 1).token != all[0].token),
        "half is ready"
    );
    world.outcome(all[2], Outcome::ConnectFailed, 2);
    let mut seen: Vec<Token> = (0..50).map(|_| world.endpoint(&[], 3).token).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [all[0].token, all[3].token]);
    assert!(world.pool.counters().panics > 0);
    world.outcome(all[2], Outcome::Connected, 4);
    assert!(
        (0..50).all(|_| world.endpoint(&[], 5).token != all[0].token),
        "half is ready again"
    );
}

#[test]
fn a_panic_threshold_of_zero_lets_them_rest_while_another_one_is_left() {
    let mut world = World::with(
        PoolPolicy {
            max_fails: 1,
            panic_threshold_percent: 0,
            ..policy()
        },
        &specs(3),
    );
    let all = all(&world);
    world.eject(all[0], 0);
    world.outcome(all[1], Outcome::ConnectFailed, 0);
    assert!((0..50).all(|_| world.endpoint(&[], 1).token == all[2].token));
}

#[test]
fn the_last_resort_comes_before_those_that_rest() {
    let mut world = World::new(&specs(2));
    let all = all(&world);
    world.outcome(all[0], Outcome::Failed, 0);
    assert_eq!(world.states(), "ejected ready");
    world.apply(&[spec(1), leaving(2, 1_000)], 1);
    assert_eq!(world.endpoint(&[], 2).token, all[1].token);
    world.timeout(1_001);
    assert_eq!(world.endpoint(&[], 1_002).token, all[0].token);
}

#[test]
fn statuses_count_as_failures_only_where_the_service_says_so() {
    let strict = ServicePolicy {
        fail_on: ServerErrors::from(std::vec![503]),
        ..super::sharing::service(1, None)
    };
    let lax = super::sharing::service(2, None);
    for (service, states) in [(lax, "ready ready"), (strict, "ejected ready")] {
        let policy = PoolPolicy {
            services: std::vec![service],
            ..policy()
        };
        let mut world = World::with(policy, &specs(2));
        let one = all(&world)[0];
        world.outcome(one, Outcome::Responded(502), 0);
        assert_eq!(world.states(), "ready ready");
        world.outcome(one, Outcome::Responded(503), 0);
        assert_eq!(world.states(), states);
    }
}

#[test]
fn an_endpoint_that_goes_takes_its_answers_along() {
    let mut world = World::with(by_rate(), &specs(3));
    let all = all(&world);
    // Were the first one's failures still counted, those of the second would be nothing special.
    world.answers(all[0], 0, 9, 0);
    world.answers(all[2], 10, 0, 0);
    world.apply(&[spec(2), spec(3)], 1);
    world.answers(all[1], 4, 6, 2);
    assert_eq!(world.states(), "ejected ready");
}

proptest! {
    /// Whoever is ejected keeps to the share and leaves another one ready, and nobody waits while somebody may be tried.
    #[test]
    fn ejections_keep_to_their_share_and_never_empty_a_pool(
        endpoints in 1_u16..9,
        (eject_max_percent, panic_threshold_percent, max_fails) in (0_u32..101, 0_u32..101, 0_u32..4),
        course in prop::collection::vec((0_usize..9, 0_u8..6, 0_u64..400), 1..300),
    ) {
        let policy = PoolPolicy { max_fails, fail_rate_percent: 30, eject_max_percent, panic_threshold_percent, ..policy() };
        let mut world = World::with(policy, &specs(endpoints));
        let all = all(&world);
        let mut now = 0;
        for (at, what, wait) in course {
            now += wait;
            world.timeout(now);
            let Some(picked) = all.get(at).copied() else { continue };
            let of = |world: &World, state: State| world.pool.views().filter(|view| view.state == state).count();
            let before = of(&world, State::Ejected);
            match what {
                0 => world.outcome(picked, Outcome::ConnectFailed, now),
                1 => world.outcome(picked, Outcome::Connected, now),
                2 => {
                    let wanted: Vec<_> = (1..=endpoints)
                        .map(|n| if usize::from(n) == at + 1 { leaving(n, 300) } else { spec(n) })
                        .collect();
                    world.apply(&wanted, now);
                    world.apply(&specs(endpoints), now);
                }
                3 => world.outcome(picked, Outcome::Responded(200), now),
                _ => world.outcome(picked, Outcome::Failed, now),
            }
            let after = of(&world, State::Ejected);
            if after > before {
                let allowed = usize::from(endpoints) * eject_max_percent as usize / 100;
                prop_assert!(after <= allowed.max(1) && eject_max_percent > 0, "{}", world.states());
                prop_assert!(of(&world, State::Ready) > 0, "{}", world.states());
            }
            let usable = of(&world, State::Ready) + after;
            match world.pick(&[], now) {
                Pick::Endpoint(picked) => world.pool.release(picked.token),
                Pick::Park(_) => {
                    prop_assert_eq!(usable, 0, "{}", world.states());
                    world.unpark();
                }
                Pick::Unavailable(why) => prop_assert!(false, "{why:?}"),
            }
            let few = of(&world, State::Ready) * 100 < usize::from(endpoints) * panic_threshold_percent as usize;
            prop_assert_eq!(world.pool.is_in_panic(), few);
        }
    }
}
