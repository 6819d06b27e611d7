//! Authorities and certificates: the first ones, and those whose life is over.

use super::*;
use crate::identity::AUTHORITY_LIFE;

/// Authorities that the controllers' service mounts.
fn mounted(harness: &Harness) -> Vec<String> {
    let own = harness.swarm.service_named("tidegate_controller").unwrap();
    let shape = harness.swarm.shape(&own).unwrap();
    shape.secrets.keys().cloned().collect()
}

/// Two controllers take over, so long after the others, with these authorities.
fn restart(harness: &mut Harness, settings: Settings, authorities: &[u64], later: Duration) {
    harness.controllers.clear();
    harness.streams.clear();
    harness.mail.clear();
    for task in ["later-1", "later-2"] {
        let mut me = me(task, authorities);
        me.wall_at_start += later;
        harness.start(settings.clone(), me);
    }
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
fn a_fresh_swarm_gets_identities_a_control_network_and_a_proxy_service_per_cluster() {
    let mut harness = Harness::new();
    let shop = harness.app("shop", "back", SHOP);
    harness.start(two_clusters(), me("c1", &[]));
    harness.run(30, |h| mounted(h) == ["tidegate-authority-1"]);
    assert!(harness.proxies().is_empty(), "nobody can sign yet");
    // The controllers restart with the authority's key.
    restart(&mut harness, two_clusters(), &[1], Duration::ZERO);
    harness.run(30, |h| h.proxies().len() == 2);
    let control = harness.swarm.network_named("tidegate-control").unwrap().to_string();
    for proxy in harness.proxies() {
        let shape = &proxy.shape;
        assert!(shape.networks.contains(&control), "{shape:?}");
        assert!(
            shape.secrets.values().any(|file| file == crate::identity::PROXY_FILE),
            "{shape:?}"
        );
        assert!(
            shape
                .env
                .iter()
                .any(|env| env == "TIDEGATE_CONTROLLER=tasks.tidegate_controller:7171"),
            "{shape:?}"
        );
        let routed = if shape.name == "tidegate_proxy" { "back" } else { "edge" };
        let routed = harness.swarm.network_named(routed).unwrap().to_string();
        assert_eq!(shape.networks, [control.clone(), routed].into(), "{}", shape.name);
    }
    assert!(harness.endpoints(0, "default", &shop).is_some());
    assert_eq!(harness.notices, Vec::<String>::new());
}

#[test]
fn an_empty_list_of_secrets_that_arrives_last_does_not_hold_up_the_first_identity() {
    let mut harness = Harness::new();
    harness.secrets_take_ms = 60;
    // Nothing else changes that could make it look again.
    harness.run(30, |harness| harness.swarm.poll_timeout().is_none());
    harness.start(Settings::default(), me("c1", &[]));
    harness.run(20, |harness| !harness.swarm.secrets().is_empty());
    assert!(!harness.swarm.secrets().is_empty(), "an authority is made");
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
    for would in [
        "making the secret tidegate-authority-2",
        "removing the secret tidegate-courier-1, whose life is over",
    ] {
        let said = alloc::format!("read-only: would do: {would}");
        assert!(harness.notices.contains(&said), "{:?}", harness.notices);
    }
}
