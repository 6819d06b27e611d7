//! What a controller keeps in memory is bounded by what there is now, however much there has been.

use super::recording::{Lived, live};
use super::*;
use crate::recording::Hide;

/// How many characters its whole state has, by part, after so many seconds in which services, proxies and couriers came and went,
/// when all of them are gone and nothing has happened for an hour.
fn kept_after(seed: u64, seconds: u64) -> BTreeMap<String, usize> {
    let mut rng = Rng::new(seed);
    let mut harness = Harness::new();
    let mut settings = two_clusters();
    if rng.chance(1, 2) {
        settings.controller.swarm_watch = "/run/control.sock".to_string();
    }
    harness.faults = Some(rng.fork("faults"));
    harness.start(settings.clone(), me("c1", &[1]));
    let Lived { apps, proxies, serial } = live(&mut harness, &mut rng, seconds);
    harness.faults = None;
    for app in apps {
        harness.swarm.remove_service(&app, harness.now).unwrap();
    }
    for (connection, cluster) in proxies {
        let fact = ControllerFact::Disconnected { cluster, connection };
        harness.turn(0, Input::Fact(fact));
    }
    for connection in (1..=serial).chain(1_000_001..=1_000_000 + serial) {
        harness.turn(0, Input::Fact(ControllerFact::SecretsEnded(Connection(connection))));
    }
    for service in harness.swarm.managed() {
        let is_theirs = |line: &String| line.starts_with("PASSWORD=");
        let edit = |shape: &mut ServiceShape| shape.env.retain(|line| !is_theirs(line));
        harness.swarm.edit_service(&service.id, harness.now, edit).unwrap();
    }
    let end = harness.now + Duration::from_secs(3600);
    harness.run(4000, |h| h.now >= end && h.mail.is_empty());
    let checkpoint = harness.controllers[0].checkpoint(&Hide::new([9; 32], &settings));
    let serde_json::Value::Object(mut parts) = serde_json::to_value(checkpoint).unwrap() else {
        panic!("a checkpoint has parts")
    };
    let Some(serde_json::Value::Object(mut world)) = parts.remove("world") else {
        panic!("a controller knows its world")
    };
    // As many as Docker lists, of services that are there (`swarm::world::simulation`).
    world.remove("tasks");
    for doubts in world["absent"].as_object_mut().unwrap().values_mut() {
        // A bounded number of ids is remembered, so that an old list brings nothing back.
        for remembered in ["order", "tombs"] {
            let ids = doubts[remembered].take();
            assert!(ids.as_array().is_some_and(|ids| ids.len() <= 1024), "{ids}");
        }
    }
    let sizes = parts
        .into_iter()
        .chain(world)
        .map(|(part, state)| (part, state.to_string().len()));
    sizes.collect()
}

#[test]
fn what_came_and_went_leaves_nothing_behind() {
    for seed in 1..=2 {
        let (short, long) = (kept_after(seed, 20), kept_after(seed, 240));
        for (part, size) in &long {
            // Numbers have more digits.
            let before = short.get(part).copied().unwrap_or_default();
            assert!(
                *size <= before + before / 20 + 80,
                "seed {seed}: {part} has {size} characters after four minutes, {before} after 20 s"
            );
        }
    }
}
