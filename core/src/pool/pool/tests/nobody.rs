//! Nothing leads to an endpoint, or nobody vouches for it.

use super::*;

#[test]
fn without_a_way_to_a_network_all_its_endpoints_wait_at_once_and_come_back_one_by_one() {
    let on = |n: u16, network: &str| EndpointSpec {
        via: Some(crate::id::NetworkId::from(network)),
        ..spec(n)
    };
    let mut world = World::new(&[on(1, "far"), on(2, "far"), on(3, "near")]);
    let all: Vec<Picked> = world.pool.addresses().map(|(picked, _)| picked).collect();
    world.outcome(all[0], Outcome::NoWay, 0);
    assert_eq!(world.states(), "probation probation ready");
    world.timeout(50);
    world.outcome(all[0], Outcome::NoWay, 51);
    world.outcome(all[1], Outcome::Connected, 51);
    assert_eq!(world.states(), "probation ready ready");
    assert!(world.pool.poll_timeout().is_some(), "the other one is probed on");
}

#[test]
fn who_fails_while_nobody_vouches_for_it_stays_out_until_somebody_does() {
    let unsure = |n: u16| EndpointSpec {
        unsure: true,
        ..spec(n)
    };
    let mut world = World::new(&[unsure(1), unsure(2)]);
    assert_eq!(world.states(), "ready ready", "it serves on meanwhile");
    let all: Vec<Picked> = world.pool.addresses().map(|(picked, _)| picked).collect();
    world.outcome(all[0], Outcome::ConnectFailed, 0);
    world.timeout(60_000);
    assert!(!world.take().iter().any(|action| matches!(action, Action::Probe(_))));
    world.outcome(all[0], Outcome::Connected, 60_001);
    assert_eq!(
        world.states(),
        "probation ready",
        "who answers there may be somebody else"
    );
    world.apply(&[spec(1), unsure(2)], 60_002);
    world.timeout(60_002);
    assert!(world.take().iter().any(|action| matches!(action, Action::Probe(_))));
    world.outcome(all[0], Outcome::Connected, 60_003);
    assert_eq!(world.states(), "ready ready");
}
