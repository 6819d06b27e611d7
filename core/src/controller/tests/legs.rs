//! Networks without replacement: legs come with the first routed service of a network and go with the last one, and the
//! proxy service stays as it is.

use super::*;
use crate::reconcile::leg::{LEG_ROLE, NETWORK_LABEL};

fn over_legs() -> Settings {
    let mut settings = Settings::default();
    for cluster in settings.clusters.values_mut() {
        cluster.networks = NetworkPolicy::Legs;
    }
    settings
}

fn with_role(harness: &Harness, role: &str) -> Vec<ManagedService> {
    let mut all = harness.swarm.managed();
    all.retain(|service| service.shape.labels.get(ROLE_LABEL).is_some_and(|is| is == role));
    all
}

/// Networks that have a leg.
fn legs(harness: &Harness) -> BTreeSet<String> {
    let legs = with_role(harness, LEG_ROLE).into_iter();
    legs.map(|leg| leg.shape.labels[NETWORK_LABEL].clone()).collect()
}

fn network(harness: &Harness, name: &str) -> String {
    harness.swarm.network_named(name).unwrap().to_string()
}

/// A controller with its authority, and its proxies.
fn started() -> Harness {
    let mut harness = Harness::new();
    harness.start(over_legs(), me("one", &[1]));
    harness.run(30, |harness| !with_role(harness, "proxy").is_empty());
    harness
}

#[test]
fn a_leg_per_network_in_use_and_the_proxies_are_never_written_for_it() {
    let mut harness = started();
    let proxies = with_role(&harness, "proxy");
    let shop = harness.app("shop", "edge", SHOP);
    let edge = network(&harness, "edge");
    harness.run(30, |harness| legs(harness) == BTreeSet::from([edge.clone()]));
    harness.run(30, |harness| harness.endpoints(0, "default", &shop) == Some(2));
    let snapshot = harness.controllers[0].snapshot(&ClusterName::default_cluster());
    let spec = &snapshot.routes[&shop];
    assert!(
        spec.endpoints
            .iter()
            .all(|e| e.via.as_ref().is_some_and(|via| via.as_str() == edge))
    );
    assert!(spec.requires.contains(crate::route::spec::FEATURE_LEGS));
    let leg = &with_role(&harness, LEG_ROLE)[0].shape;
    assert_eq!(leg.networks, BTreeSet::from([edge.clone()]));
    assert_eq!(leg.constraints, proxies[0].shape.constraints);

    let books = [("tidegate.hosts", "books.example.org"), ("tidegate.port", "8080")];
    let second = harness.app("books", "edge", &books);
    harness.run(30, |harness| harness.endpoints(0, "default", &second) == Some(2));
    harness.swarm.remove_service(&shop, harness.now).unwrap();
    harness.run(30, |harness| harness.endpoints(0, "default", &shop).is_none());
    assert_eq!(
        legs(&harness),
        BTreeSet::from([edge]),
        "another service uses the network"
    );
    harness.swarm.remove_service(&second, harness.now).unwrap();
    harness.run(30, |harness| legs(harness).is_empty());
    assert_eq!(
        with_role(&harness, "proxy"),
        proxies,
        "no version of the proxies' service but the first"
    );
}

#[test]
fn a_leg_goes_at_once_when_the_last_service_of_its_network_is_removed() {
    let mut harness = started();
    let shop = harness.app("shop", "edge", SHOP);
    harness.run(30, |harness| {
        !legs(harness).is_empty() && harness.endpoints(0, "default", &shop) == Some(2)
    });
    // Quiet: nothing is being looked at already.
    let quiet = harness.now + Duration::from_secs(60);
    harness.run(300, |harness| harness.now >= quiet);
    let removed = harness.now;
    harness.swarm.remove_service(&shop, removed).unwrap();
    harness.run(30, |harness| legs(harness).is_empty());
    let took = harness.now.since(removed);
    assert!(
        took <= Duration::from_millis(50),
        "the network is wanted back: {took:?}"
    );
}

#[test]
fn a_leg_that_somebody_removed_is_made_anew_a_little_later() {
    let mut harness = started();
    let shop = harness.app("shop", "edge", SHOP);
    harness.run(30, |harness| {
        !legs(harness).is_empty() && harness.endpoints(0, "default", &shop) == Some(2)
    });
    let leg = with_role(&harness, LEG_ROLE)[0].id.clone();
    let removed = harness.now;
    harness.swarm.remove_service(&leg, removed).unwrap();
    harness.run(30, |harness| {
        with_role(harness, LEG_ROLE).iter().any(|now| now.id != leg)
    });
    // `docker stack rm` takes the leg first and the app's services a little later: no leg comes in between.
    let took = harness.now.since(removed);
    assert!(
        took >= Duration::from_secs(2) && took < Duration::from_secs(4),
        "{took:?}"
    );
}

#[test]
fn legs_leave_with_the_service_of_the_controllers_and_with_nothing_less() {
    let mut harness = started();
    let shop = harness.app("shop", "edge", SHOP);
    harness.run(30, |harness| {
        !legs(harness).is_empty() && harness.endpoints(0, "default", &shop) == Some(2)
    });
    let own = harness.swarm.service_named("tidegate_controller").unwrap();
    let now = harness.now;
    let role = |value: Option<&str>| {
        let value = value.map(ToString::to_string);
        move |shape: &mut ServiceShape| match &value {
            Some(value) => _ = shape.labels.insert(ROLE_LABEL.to_string(), value.clone()),
            None => _ = shape.labels.remove(ROLE_LABEL),
        }
    };
    harness.swarm.edit_service(&own, now, role(None)).unwrap();
    harness.run(60, |harness| {
        let said = harness.controllers[0].status(harness.now).notices;
        said.iter()
            .any(|text| text.contains("there is no service tidegate_controller"))
    });
    assert_eq!(legs(&harness).len(), 1, "a label that is missing is no end of Tidegate");
    let now = harness.now;
    harness.swarm.edit_service(&own, now, role(Some("controller"))).unwrap();
    harness.run(60, |harness| {
        let said = harness.controllers[0].status(harness.now).notices;
        !said
            .iter()
            .any(|text| text.contains("there is no service tidegate_controller"))
    });
    let removed = harness.now;
    harness.swarm.remove_service(&own, removed).unwrap();
    harness.run(30, |harness| legs(harness).is_empty());
    let took = harness.now.since(removed);
    assert!(took < Duration::from_secs(3), "controllers live on for 3 s: {took:?}");
}

#[test]
fn two_controllers_make_one_leg() {
    let mut harness = started();
    harness.start(over_legs(), me("two", &[1]));
    let shop = harness.app("shop", "edge", SHOP);
    harness.run(30, |harness| {
        !legs(harness).is_empty() && harness.endpoints(1, "default", &shop) == Some(2)
    });
    let later = harness.now + Duration::from_secs(30);
    harness.run(300, |harness| harness.now >= later);
    assert_eq!(with_role(&harness, LEG_ROLE).len(), 1);
    assert_eq!(
        harness.notices.iter().filter(|text| text.contains("leg")).count(),
        0,
        "{:?}",
        harness.notices
    );
}

#[test]
fn proxies_that_were_attached_leave_once_and_are_left_alone_then() {
    let mut harness = Harness::new();
    let mut attached = over_legs();
    for cluster in attached.clusters.values_mut() {
        cluster.networks = NetworkPolicy::Attach;
    }
    harness.start(attached, me("one", &[1]));
    harness.app("shop", "edge", SHOP);
    let edge = network(&harness, "edge");
    harness.run(60, |harness| {
        with_role(harness, "proxy")
            .iter()
            .any(|p| p.shape.networks.contains(&edge))
    });
    harness.controllers.clear();
    harness.streams.clear();
    harness.mail.clear();
    harness.start(over_legs(), me("two", &[1]));
    harness.run(60, |harness| {
        !legs(harness).is_empty()
            && with_role(harness, "proxy")
                .iter()
                .all(|p| !p.shape.networks.contains(&edge))
    });
    let shapes = |harness: &Harness| -> Vec<ServiceShape> {
        with_role(harness, "proxy")
            .into_iter()
            .map(|service| service.shape)
            .collect()
    };
    let (left, writes) = (shapes(&harness), harness.writes);
    let later = harness.now + Duration::from_secs(120);
    harness.run(600, |harness| harness.now >= later);
    assert_eq!((shapes(&harness), harness.writes), (left, writes));
}

#[test]
fn a_process_that_keeps_no_services_reaches_endpoints_itself() {
    let mut harness = Harness::new();
    let alone = Me {
        service: None,
        ..me("run", &[])
    };
    harness.start(over_legs(), alone);
    let shop = harness.app("shop", "edge", SHOP);
    harness.run(20, |harness| harness.endpoints(0, "default", &shop) == Some(2));
    let snapshot = harness.controllers[0].snapshot(&ClusterName::default_cluster());
    assert!(
        snapshot.routes[&shop]
            .endpoints
            .iter()
            .all(|endpoint| endpoint.via.is_none())
    );
}

#[test]
fn a_process_that_is_its_own_proxy_says_so_where_it_is_on_no_network_of_a_service() {
    let mut harness = Harness::new();
    let alone = Me {
        service: None,
        ..me("run", &[])
    };
    harness.start(over_legs(), alone);
    let shop = harness.app("shop", "edge", SHOP);
    harness.run(20, |harness| harness.endpoints(0, "default", &shop) == Some(2));
    let tell = |harness: &mut Harness, ranges: &[&str]| {
        let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        let before = harness.diagnosed.len();
        harness.turn(0, Input::Fact(ControllerFact::OwnNetworks(ranges)));
        let labels = |finding: &Diagnostic| finding.label.clone();
        let known: Vec<String> = harness.controllers[0].diagnostics().map(labels).collect();
        (harness.diagnosed[before..].join(""), known)
    };
    assert_eq!(tell(&mut harness, &["0.0.0.0/0"]), (String::new(), Vec::new()));
    let (said, known) = tell(&mut harness, &["172.18.0.0/16"]);
    assert!(said.contains("not on the network edge"), "{said}");
    assert_eq!(known, ["tidegate.network"]);
    assert_eq!(harness.endpoints(0, "default", &shop), Some(0));
    assert_eq!(tell(&mut harness, &["0.0.0.0/0"]), (String::new(), Vec::new()));
    assert_eq!(harness.endpoints(0, "default", &shop), Some(2), "it has joined");
}
