mod bench;
mod updates;

use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, vec};

use super::*;
use crate::machine::{Input, step};
use crate::reconcile::desired::{APPLIED_LABEL, published_tcp};
use crate::rng::Rng;
use crate::swarm::model::PublishMode;

use self::bench::{Bench, Store, image, made, shape};

#[test]
fn nothing_is_written_before_both_wish_and_reality_are_known() {
    let mut bench = Bench::new(ReconcileSettings::default());
    bench.wanted(&[shape("proxy", &["control"])]);
    assert!(bench.flight.is_none());
    bench.look(&Store::default());
    assert!(bench.flight.is_some());
}

#[test]
fn a_lost_race_to_create_is_no_error() {
    let mut store = Store::default();
    let mut bench = Bench::new(ReconcileSettings::default());
    bench.look(&store);
    bench.wanted(&[shape("proxy", &["control"])]);
    let (_, write) = bench.flight.clone().expect("a create");
    store.apply(&write).expect("the other controller is first");
    bench.run(&mut store, 60_000);
    assert_eq!(store.writes, ["create proxy"]);
    assert!(bench.notices.is_empty(), "{:?}", bench.notices);
    assert!(bench.reconciler.is_settled());
}

#[test]
fn a_lost_race_to_update_looks_again_and_writes_what_is_left() {
    let (mut bench, mut store) = made();
    let mut next = shape("proxy", &["control"]);
    next.image = String::from("tidegate:2");
    bench.wanted(&[next]);
    store.edit("proxy", |service| service.shape.replicas = Some(9));
    bench.run(&mut store, 1);
    assert_eq!(store.writes, ["update proxy"]);
    let shape = &store.services["proxy"].shape;
    assert_eq!((shape.image.as_str(), shape.replicas), ("tidegate:2", Some(9)));
    assert!(bench.notices.is_empty(), "{:?}", bench.notices);
}

#[test]
fn nothing_is_decided_until_docker_shows_the_write() {
    let (mut bench, mut store) = made();
    let old = store.clone();
    let mut next = shape("proxy", &["control"]);
    next.image = String::from("tidegate:2");
    bench.wanted(&[next]);
    let (_, write) = bench.flight.clone().expect("an update");
    store.apply(&write).expect("the version is right");
    bench.written(Ok(()));
    // The list was asked for before the write was done, and so was one that came late.
    for _ in 0..4 {
        bench.look(&old);
        bench.now = bench.now + Duration::from_secs(1);
        bench.input(Input::Timeout);
        assert!(bench.flight.is_none(), "{:?}", bench.flight);
    }
    bench.look(&store);
    assert!(bench.flight.is_none() && bench.reconciler.is_settled());
}

#[test]
fn new_networks_are_written_in_one_batch() {
    let (mut bench, mut store) = made();
    for networks in [
        &["control", "a"][..],
        &["control", "a", "b"],
        &["control", "a", "b", "c"],
    ] {
        bench.wanted(&[shape("proxy", networks)]);
        bench.run(&mut store, 200);
    }
    assert!(store.writes.is_empty(), "{:?}", store.writes);
    bench.run(&mut store, 400);
    assert_eq!(store.writes, ["update proxy"]);
    assert_eq!(store.services["proxy"].shape.networks.len(), 4);
}

#[test]
fn a_stream_of_new_networks_is_written_at_the_latest_after_the_longest_wait() {
    let (mut bench, mut store) = made();
    let names: Vec<String> = (0..10).map(|n| format!("n{n}")).collect();
    let mut networks = vec!["control"];
    for name in &names {
        networks.push(name);
        bench.wanted(&[shape("proxy", &networks)]);
        bench.run(&mut store, 300);
    }
    assert_eq!(store.writes, ["update proxy"]);
}

#[test]
fn a_network_that_nobody_needs_is_left_at_once() {
    let (mut bench, mut store) = made();
    bench.wanted(&[shape("proxy", &["control", "shop"])]);
    bench.run(&mut store, 5_000);
    store.edit("proxy", |service| {
        service.update_state = Some(String::from("completed"))
    });
    bench.look(&store);
    store.writes.clear();
    bench.wanted(&[shape("proxy", &["control"])]);
    bench.run(&mut store, 1);
    assert_eq!(store.writes, ["update proxy"]);
    assert_eq!(store.services["proxy"].shape.networks.len(), 1);
}

#[test]
fn a_refused_write_is_repeated_ever_more_rarely_and_told_once() {
    let (mut bench, store) = made();
    let mut next = shape("proxy", &["control"]);
    next.ports = [published_tcp(81, 8080, PublishMode::Ingress)].into();
    bench.wanted(&[next]);
    let mut tries = 0;
    while bench.now < Instant::from_millis(3_600_000) {
        if bench.flight.is_some() {
            tries += 1;
            bench.written(Err(ApiError::Refused(String::from("port '81' is already in use"))));
            bench.look(&store);
        }
        let deadline = bench.reconciler.poll_timeout().expect("it is tried again");
        bench.now = bench.now.max(deadline.at);
        bench.input(Input::Timeout);
    }
    assert!((15..=25).contains(&tries), "{tries} in an hour");
    assert_eq!(bench.notices.len(), 1);
    assert!(bench.notices[0].to_string().contains("port '81' is already in use"));
    // Another wish is another matter.
    bench.written(Err(ApiError::Refused(String::from("port '81' is already in use"))));
    let mut other = shape("proxy", &["control"]);
    other.ports = [published_tcp(82, 8080, PublishMode::Ingress)].into();
    bench.wanted(&[other]);
    assert!(bench.flight.is_some());
}

#[test]
fn an_engine_without_a_leader_is_asked_again_soon() {
    let (mut bench, mut store) = made();
    let mut next = shape("proxy", &["control"]);
    next.image = String::from("tidegate:2");
    bench.wanted(&[next]);
    for _ in 0..20 {
        if bench.flight.is_none() {
            let deadline = bench.reconciler.poll_timeout().expect("it is tried again");
            assert!(deadline.at.since(bench.now) <= Duration::from_secs(10), "{deadline:?}");
            bench.now = deadline.at;
            bench.input(Input::Timeout);
            continue;
        }
        bench.written(Err(ApiError::Unreachable(String::from("no answer within 2 s"))));
        bench.look(&store);
    }
    bench.run(&mut store, 11_000);
    assert_eq!(store.writes, ["update proxy"]);
    assert_eq!(bench.reconciler.notices().count(), 0, "the matter is over");
}

#[test]
fn a_name_that_belongs_to_another_is_told_and_left_alone() {
    let mut store = Store::default();
    let mut foreign = shape("proxy", &[]);
    foreign.labels.clear();
    store
        .apply(&Write::Create(Box::new(foreign.clone())))
        .expect("the name is free");
    let mut bench = Bench::new(ReconcileSettings::default());
    bench.look(&store);
    bench.wanted(&[shape("proxy", &["control"])]);
    bench.run(&mut store, 60_000);
    assert_eq!(store.services["proxy"].shape, foreign);
    assert!(
        matches!(&bench.notices[..], [Notice::NameTaken { .. }]),
        "{:?}",
        bench.notices
    );
}

#[test]
fn a_service_of_another_installation_is_never_touched() {
    let (mut bench, mut store) = made();
    let mut other = shape("other_proxy", &["control"]);
    other
        .labels
        .insert(String::from(INSTALLATION_LABEL), String::from("other"));
    store.apply(&Write::Create(Box::new(other))).expect("the name is free");
    let mut controller = shape("tidegate_controller", &["control"]);
    controller
        .labels
        .insert(String::from(ROLE_LABEL), String::from("controller"));
    store
        .apply(&Write::Create(Box::new(controller)))
        .expect("the name is free");
    store.writes.clear();
    bench.look(&store);
    bench.run(&mut store, 60_000);
    assert!(store.writes.is_empty(), "{:?}", store.writes);
}

#[test]
fn the_service_of_a_cluster_that_is_gone_is_removed_before_others_are_made() {
    let (mut bench, mut store) = made();
    bench.wanted(&[shape("gate", &["control"])]);
    bench.run(&mut store, 20_000);
    assert_eq!(store.writes, ["remove proxy", "create gate"]);
}

#[test]
fn a_change_of_mode_removes_and_makes_anew_without_a_pause() {
    let (mut bench, mut store) = made();
    bench.wanted(&[ServiceShape {
        replicas: None,
        ..shape("proxy", &["control"])
    }]);
    bench.run(&mut store, 1_000);
    assert_eq!(store.writes, ["remove proxy", "create proxy"]);
    bench.run(&mut store, 60_000);
    assert_eq!(store.writes.len(), 2);
}

#[test]
fn a_service_that_vanished_is_made_anew_when_a_stopping_controller_would_be_gone() {
    let (mut bench, mut store) = made();
    store.services.clear();
    bench.look(&store);
    bench.run(&mut store, 5_000);
    assert!(store.writes.is_empty(), "docker stack rm takes proxies first at times");
    bench.run(&mut store, 2_000);
    assert_eq!(store.writes, ["create proxy"]);
}

#[test]
fn a_read_only_reconciler_says_what_it_would_do_once() {
    let store = Store::default();
    let settings = ReconcileSettings {
        read_only: true,
        ..ReconcileSettings::default()
    };
    let mut bench = Bench::new(settings);
    bench.look(&store);
    bench.wanted(&[shape("proxy", &["control"])]);
    bench.look(&store);
    assert!(bench.flight.is_none());
    let texts: Vec<_> = bench.notices.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["read-only: would write proxy: create"]);
    assert_eq!(bench.reconciler.poll_timeout(), None);
}

#[test]
fn two_controllers_with_other_settings_fight_ever_more_slowly_and_say_so() {
    let (mut a, mut store) = made();
    let mut b = Bench::new(ReconcileSettings::default());
    b.now = a.now;
    a.wanted(&[image("one")]);
    b.look(&store);
    b.wanted(&[image("two")]);
    for _ in 0..3_600 {
        for bench in [&mut a, &mut b] {
            store.completes("proxy");
            bench.look(&store);
            bench.run(&mut store, 1_000);
        }
    }
    assert!(store.writes.len() < 80, "{} writes in an hour", store.writes.len());
    assert!(
        a.notices
            .iter()
            .any(|notice| matches!(notice, Notice::Overruled { .. }))
    );
}

/// Random wishes, operators' edits and losses under two controllers that compute the same.
#[test]
fn two_controllers_with_the_same_settings_converge() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let mut store = Store::default();
        let mut pair = [
            Bench::new(ReconcileSettings::default()),
            Bench::new(ReconcileSettings::default()),
        ];
        let mut wishes = vec![shape("proxy", &["control"])];
        for bench in &mut pair {
            bench.look(&store);
            bench.wanted(&wishes);
        }
        for turn in 0..300 {
            match rng.below(12) {
                0 => {
                    let networks: Vec<String> = (0..rng.below(4)).map(|n| format!("n{n}")).collect();
                    let mut networks: Vec<&str> = networks.iter().map(String::as_str).collect();
                    networks.push("control");
                    wishes = vec![shape("proxy", &networks)];
                    if rng.chance(1, 3) {
                        wishes.push(shape("proxy-edge", &networks[..1]));
                    }
                    wishes[0].image = format!("tidegate:{}", rng.below(3));
                    for bench in &mut pair {
                        bench.wanted(&wishes);
                    }
                }
                1 if store.services.contains_key("proxy") => {
                    let replicas = rng.below(9);
                    store.edit("proxy", |service| service.shape.replicas = Some(replicas));
                }
                2 if turn % 7 == 0 => {
                    store.services.remove("proxy");
                }
                _ => {}
            }
            let bench = &mut pair[rng.index(2)];
            match (rng.below(4), &bench.flight) {
                (0, Some((_, write))) => {
                    let result = store.apply(write);
                    bench.written(result);
                }
                (1, Some((_, write))) => {
                    // Done, but the answer is lost.
                    let _ = store.apply(write);
                    bench.written(Err(ApiError::Unreachable(String::from("timeout"))));
                }
                (2, Some(_)) => bench.written(Err(ApiError::Server(String::from("no leader")))),
                _ => bench.look(&store),
            }
            let step = Duration::from_millis(rng.between(1, 400));
            let now = pair[0].now + step;
            for bench in &mut pair {
                bench.now = now;
                if bench
                    .reconciler
                    .poll_timeout()
                    .is_some_and(|deadline| deadline.at <= now)
                {
                    bench.input(Input::Timeout);
                }
            }
        }
        for _ in 0..60 {
            for bench in &mut pair {
                bench.look(&store);
                bench.run(&mut store, 10_000);
            }
        }
        let writes = store.writes.len();
        let names: Vec<_> = store.services.keys().cloned().collect();
        let mut expected: Vec<_> = wishes.iter().map(|wish| wish.name.clone()).collect();
        expected.sort();
        assert_eq!(names, expected, "seed {seed}");
        for wish in &wishes {
            let service = &store.services[&wish.name];
            assert_eq!(plan(wish, service, None), Plan::Nothing, "seed {seed}");
            assert_eq!(service.shape.networks, wish.networks, "seed {seed}");
            assert!(service.shape.labels.contains_key(APPLIED_LABEL));
        }
        for bench in &mut pair {
            assert!(bench.reconciler.is_settled(), "seed {seed}");
            bench.look(&store);
            bench.run(&mut store, 3_600_000);
        }
        assert_eq!(
            store.writes.len(),
            writes,
            "seed {seed}: writes though all is as wanted"
        );
    }
}

#[test]
fn a_leg_in_the_stack_of_an_application_is_left_to_docker_stack_rm_for_a_while() {
    use crate::reconcile::leg::LEG_ROLE;
    use crate::swarm::model::STACK_LABEL;
    let leg = |name: &str, stack: &str| {
        let mut shape = shape(name, &["net"]);
        let labels = [(ROLE_LABEL, LEG_ROLE), (STACK_LABEL, stack)];
        shape
            .labels
            .extend(labels.map(|(key, value)| (String::from(key), String::from(value))));
        shape
    };
    let (mut bench, mut store) = made();
    let all = [
        shape("proxy", &["control"]),
        leg("of-shop", "shop"),
        leg("of-us", "tidegate"),
    ];
    bench.wanted(&all);
    bench.run(&mut store, 20_000);
    store.writes.clear();
    bench.wanted(&all[..1]);
    bench.run(&mut store, 9_000);
    assert_eq!(
        store.writes,
        ["remove of-us"],
        "the client of Docker would fail to remove the other one"
    );
    bench.run(&mut store, 2_000);
    assert_eq!(store.writes, ["remove of-us", "remove of-shop"]);
    // With the controllers' own service everything goes at once.
    bench.wanted(&all);
    bench.run(&mut store, 20_000);
    store.writes.clear();
    bench.input(Input::Fact(ReconcileFact::Leave));
    bench.wanted(&all[..1]);
    bench.run(&mut store, 100);
    assert_eq!(store.writes.len(), 2, "{:?}", store.writes);
}
