//! Authorities and certificates whose life is over.

use super::*;
use crate::identity::AUTHORITY_LIFE;

/// Authorities that the controllers' service mounts.
fn mounted(harness: &Harness) -> Vec<String> {
    let own = harness.swarm.service_named("tidegate_controller").unwrap();
    let shape = harness.swarm.shape(&own).unwrap();
    shape.secrets.keys().cloned().collect()
}

/// Controllers restart, so long after the others, with these authorities.
fn restart(harness: &mut Harness, settings: Settings, authorities: &[u64], later: Duration) {
    harness.controllers.clear();
    harness.streams.clear();
    harness.mail.clear();
    let mut me = me("later", authorities);
    me.wall_at_start += later;
    harness.start(settings, me);
}

fn names(harness: &Harness) -> Vec<String> {
    let secrets = harness.swarm.secrets().into_iter();
    let mut names: Vec<String> = secrets.map(|secret| secret.name).collect();
    names.sort();
    names
}

/// A Swarm with an authority and proxies.
fn settled() -> Harness {
    let mut harness = Harness::new();
    harness.start(Settings::default(), me("c1", &[]));
    harness.run(30, |harness| !mounted(harness).is_empty());
    restart(&mut harness, Settings::default(), &[1], Duration::ZERO);
    harness.run(30, |harness| harness.proxies().len() == 1);
    harness
}

#[test]
fn where_all_is_over_controllers_and_proxies_mount_what_is_new_and_the_old_is_removed() {
    let mut harness = settled();
    let late = AUTHORITY_LIFE * 2;
    restart(&mut harness, Settings::default(), &[1], late);
    harness.run(30, |harness| mounted(harness) == ["tidegate-authority-2"]);
    restart(&mut harness, Settings::default(), &[2], late);
    let new = ["tidegate-authority-2", "tidegate-proxy-default-2"];
    harness.run(60, |harness| {
        names(harness).iter().filter(|name| !name.contains("courier")).eq(new)
    });
    assert!(harness.proxies()[0].shape.secrets.contains_key(new[1]));
    assert_eq!(harness.notices, Vec::<String>::new(), "Docker refused nothing");
}

#[test]
fn who_may_only_read_removes_nothing() {
    let mut harness = settled();
    let before = names(&harness);
    let mut settings = Settings::default();
    settings.controller.read_only = true;
    restart(&mut harness, settings, &[1], AUTHORITY_LIFE * 2);
    let end = harness.now + Duration::from_secs(30);
    harness.run(40, |harness| harness.now >= end);
    assert_eq!(names(&harness), before);
    let says = |said: &&str| harness.notices.iter().any(|notice| notice.contains(said));
    let said = "read-only: would do: making the secret tidegate-authority-2";
    assert!(says(&said), "{:?}", harness.notices);
}
