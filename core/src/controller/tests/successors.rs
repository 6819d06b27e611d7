//! Controllers of old and new settings side by side, while Docker replaces the one by the other.

use super::*;

fn grace(h: &Harness) -> Option<u64> {
    Some(h.proxies().first()?.shape.stop_grace_ms)
}

#[test]
fn only_the_successors_of_a_changed_service_write() {
    let mut harness = Harness::new();
    harness.start(Settings::default(), me("c1", &[]));
    harness.run(30, |h| !h.swarm.secrets().is_empty());
    let old = harness.start(Settings::default(), me("c2", &[1]));
    harness.run(60, |h| grace(h) == Some(30_000));

    // What `docker stack deploy` does with another environment.
    let all = harness.swarm.managed();
    let own = all
        .iter()
        .find(|service| service.shape.name == "tidegate_controller")
        .unwrap();
    let setting = "TIDEGATE_CLUSTERS__DEFAULT__STOP_GRACE_MS=60000".to_string();
    let now = harness.now;
    harness
        .swarm
        .edit_service(&own.id, now, |shape| _ = shape.env.insert(setting.clone()))
        .unwrap();
    let mut settings = Settings::default();
    settings
        .clusters
        .get_mut(&ClusterName::default_cluster())
        .unwrap()
        .stop_grace_ms = 60_000;
    harness.start(settings, me("c3", &[1]));
    harness.run(60, |h| grace(h) == Some(60_000));
    let (writes, later) = (harness.writes, harness.now + Duration::from_secs(60));
    harness.run(120, |h| h.now >= later);
    assert_eq!(
        (harness.writes, grace(&harness)),
        (writes, Some(60_000)),
        "the old controller undoes what the new one wrote"
    );
    let status = harness.controllers[old].status(harness.now);
    assert!(
        status.notices.iter().any(|text| text.contains("keep the proxies")),
        "{:?}",
        status.notices
    );

    // Docker rolls the controllers' service back, as the new one does not get healthy.
    let now = harness.now;
    harness
        .swarm
        .edit_service(&own.id, now, |shape| _ = shape.env.remove(&setting))
        .unwrap();
    harness.run(60, |h| grace(h) == Some(30_000));
    assert!(harness.controllers[old].status(harness.now).notices.is_empty());
}
