//! What is written while Docker replaces proxies, and after it rolled that back or gave it up.

use super::*;

/// Docker says this of the update of proxies, and it is seen.
fn says(bench: &mut Bench, store: &mut Store, state: &str) {
    store.edit("proxy", |service| service.update_state = Some(state.to_string()));
    bench.look(store);
}

/// Docker says this of the update of proxies, and for so long nothing is written of a wish.
fn waits(state: &str, wish: &ServiceShape, ms: u64) -> (Bench, Store) {
    let (mut bench, mut store) = made();
    says(&mut bench, &mut store, state);
    bench.wanted(std::slice::from_ref(wish));
    bench.run(&mut store, ms);
    assert!(store.writes.is_empty(), "written while it is {state}");
    (bench, store)
}

/// Another controller, which knows nothing yet, at the same Docker.
fn fresh() -> (Bench, Store) {
    let (other, store) = made();
    let mut bench = Bench::new(ReconcileSettings::default());
    bench.now = other.now;
    (bench, store)
}

#[test]
fn a_change_of_proxies_waits_until_docker_has_replaced_or_rolled_back_them() {
    let wishes = [
        shape("proxy", &["control", "shop"]),
        shape("proxy", &[]),
        image("mended"),
    ];
    for wish in wishes {
        for (busy, done) in [("updating", "completed"), ("rollback_started", "rollback_completed")] {
            let (mut bench, mut store) = waits(busy, &wish, 60_000);
            says(&mut bench, &mut store, done);
            bench.run(&mut store, 1);
            assert_eq!(store.writes, ["update proxy"], "{busy}, {wish:?}");
        }
    }
}

#[test]
fn services_of_other_roles_do_not_wait_for_updates() {
    let (mut bench, mut store) = made();
    let leg = |image: &str| {
        let mut leg = ServiceShape {
            image: image.to_string(),
            ..shape("leg", &["shop"])
        };
        leg.labels.insert(String::from(ROLE_LABEL), String::from(LEG_ROLE));
        leg
    };
    bench.wanted(&[shape("proxy", &["control"]), leg("tidegate:1")]);
    bench.run(&mut store, 5_000);
    store.edit("leg", |service| service.update_state = Some(String::from("updating")));
    bench.look(&store);
    store.writes.clear();
    bench.wanted(&[shape("proxy", &["control"]), leg("tidegate:2")]);
    bench.run(&mut store, 1);
    assert_eq!(store.writes, ["update leg"]);
}

#[test]
fn an_update_that_hangs_holds_what_may_mend_it_up_for_two_minutes() {
    let (mut bench, mut store) = waits("updating", &image("mended"), 119_000);
    bench.run(&mut store, 2_000);
    assert_eq!(store.writes, ["update proxy"]);
}

#[test]
fn an_update_that_hangs_holds_networks_up_longer_and_the_wait_is_counted_from_each_write() {
    let joined = shape("proxy", &["control", "shop"]);
    let (mut bench, mut store) = waits("updating", &joined, 599_000);
    bench.run(&mut store, 2_000);
    assert_eq!(store.writes, ["update proxy"]);
    bench.wanted(&[ServiceShape {
        image: String::from("mended"),
        ..joined
    }]);
    bench.run(&mut store, 110_000);
    assert_eq!(store.writes.len(), 1);
    bench.run(&mut store, 15_000);
    assert_eq!(store.services["proxy"].shape.image, "mended");
}

#[test]
fn a_list_that_shows_a_write_before_its_answer_counts() {
    let (mut bench, mut store) = made();
    bench.wanted(&[image("second")]);
    let (_, write) = bench.flight.clone().expect("it is written");
    store.apply(&write).expect("the version is the present one");
    bench.look(&store);
    bench.wanted(&[image("third")]);
    bench.written(Ok(()));
    assert_eq!(bench.flight, None, "Docker is replacing proxies");
}

#[test]
fn an_update_that_docker_rolled_back_is_told_and_not_fought() {
    let (mut bench, mut store) = made();
    let before = store.services["proxy"].shape.clone();
    bench.wanted(&[image("broken")]);
    bench.run(&mut store, 100);
    store.edit("proxy", |service| service.shape = before);
    says(&mut bench, &mut store, "rollback_started");
    says(&mut bench, &mut store, "rollback_completed");
    bench.run(&mut store, 3_600_000);
    assert_eq!(store.writes, ["update proxy"]);
    assert!(
        matches!(&bench.notices[..], [Notice::RolledBack { .. }]),
        "{:?}",
        bench.notices
    );
    // The next settings are written.
    bench.wanted(&[image("tidegate:3")]);
    bench.run(&mut store, 60_000);
    assert_eq!(store.services["proxy"].shape.image, "tidegate:3");
    assert_eq!(store.writes.len(), 2);
}

/// Another controller wrote what was rolled back, and this one had another wish by then, which waited.
#[test]
fn what_was_rolled_back_is_what_docker_had_and_not_what_was_wanted_then() {
    let (mut bench, mut store) = fresh();
    let before = store.services["proxy"].shape.clone();
    store.edit("proxy", |service| {
        service.shape = stamped(image("broken"), &image("broken"))
    });
    says(&mut bench, &mut store, "updating");
    bench.wanted(&[image("mended")]);
    store.edit("proxy", |service| service.shape = before);
    says(&mut bench, &mut store, "rollback_started");
    says(&mut bench, &mut store, "rollback_completed");
    bench.run(&mut store, 60_000);
    assert_eq!(store.services["proxy"].shape.image, "mended");
}

/// The same, and its wish is the one that was rolled back.
#[test]
fn what_another_controller_wrote_and_docker_rolled_back_is_not_written_again() {
    let (mut bench, mut store) = fresh();
    let before = store.services["proxy"].shape.clone();
    store.edit("proxy", |service| {
        service.shape = stamped(image("broken"), &image("broken"))
    });
    says(&mut bench, &mut store, "updating");
    bench.wanted(&[image("broken")]);
    store.edit("proxy", |service| service.shape = before);
    says(&mut bench, &mut store, "rollback_completed");
    bench.run(&mut store, 3_600_000);
    assert!(store.writes.is_empty());
}

/// Settings are mended by a deployment, which has new controllers: they come in the middle of the rollback.
#[test]
fn a_controller_that_starts_during_a_rollback_writes_what_it_wants() {
    let (mut bench, mut store) = fresh();
    says(&mut bench, &mut store, "rollback_started");
    bench.wanted(&[image("mended")]);
    bench.run(&mut store, 5_000);
    assert!(store.writes.is_empty());
    says(&mut bench, &mut store, "rollback_completed");
    bench.run(&mut store, 1_000);
    assert_eq!(store.services["proxy"].shape.image, "mended");
}

#[test]
fn a_write_without_an_answer_may_be_what_was_rolled_back() {
    let (mut bench, mut store) = made();
    let before = store.services["proxy"].shape.clone();
    bench.wanted(&[image("broken")]);
    bench.written(Err(ApiError::Unreachable(String::from("no answer"))));
    store.edit("proxy", |service| service.shape = before);
    says(&mut bench, &mut store, "rollback_completed");
    bench.run(&mut store, 3_600_000);
    assert!(store.writes.is_empty());
}

#[test]
fn a_paused_update_is_told_once() {
    let (mut bench, mut store) = made();
    says(&mut bench, &mut store, "paused");
    bench.look(&store);
    bench.run(&mut store, 60_000);
    assert!(
        matches!(&bench.notices[..], [Notice::Paused { .. }]),
        "{:?}",
        bench.notices
    );
    assert!(store.writes.is_empty());
}
