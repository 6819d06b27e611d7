//! Years go by: certificates of the control network are renewed, and so is the authority that signs them.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_core::id::ServiceId;
use tidegate_core::identity::{CERTIFICATE_LIFE, IDENTITY_LABEL, NOT_AFTER_LABEL};
use tidegate_core::swarm::model::Secret;

use super::certificates::{held, secret};
use super::*;
use crate::client::{Channel, Wish};
use crate::faults::DockerFaults;
use crate::product::{CONTROLLERS, Deployment, PROXIES};
use crate::seed::Seed;
use crate::shared::EPOCH;

const DAY: u64 = 24 * 3600;
/// Days that go by at first. An authority is renewed after 2,433 of its 3,650 days, and then both are trusted. After as many as
/// the last ones nothing is valid any more.
const BEGINNINGS: [u64; 4] = [0, 2350, 3450, 4000];
/// Two services of ours are updated one after the other.
const RENEWED: Duration = Duration::from_secs(300);

/// Nobody but the controllers does anything about it; they are started anew now and then, as when nodes are updated.
pub fn identities(seed: &Seed) {
    let mut world = world(seed, DockerFaults::draw);
    let deployment = Deployment {
        controllers: 2,
        ..Deployment::default()
    };
    let controllers = world.deploy(&deployment);
    secret(
        &mut world,
        "shop.1",
        "shop.example.org",
        Duration::from_secs(9000 * DAY),
    );
    let labels = [("hosts", "shop.example.org"), ("ssl_cert", "shop.1")];
    let shop = serve(&mut world, "shop", 2, &labels, |_| {});
    users(&mut world, 3);
    held(&mut world, PROXIES, "shop.1");
    let clear = Wish::new("shop.example.org", "/");
    world.load(vec![clear.clone().over(Channel::Tls), clear]);
    answered(&mut world, "shop.example.org", "shop");
    let mut passed = 0;
    for number in 0..4 {
        let Some(mut dice) = world.act("months go by") else {
            continue;
        };
        let mut days = dice.between(60, 120);
        if number == 0 {
            days += dice.pick(&BEGINNINGS).copied().unwrap_or_default();
        }
        passed += days;
        let nodes: Vec<_> = world.nodes(true).into_iter().chain(world.nodes(false)).collect();
        for node in nodes {
            world.jump_clock(&node.id, i64::try_from(days * DAY).unwrap_or_default());
        }
        restart(&mut world, &controllers);
        let wall = EPOCH + Duration::from_secs(passed * DAY);
        world.until("what is mounted is good for months", RENEWED, |world| {
            is_good(world, wall)
        });
        let replicas = dice.between(1, 3);
        edit(&mut world, "scales shop", &shop, |shape| {
            shape.replicas = Some(replicas)
        });
        world.until_tables_match(SETTLED);
        held(&mut world, PROXIES, "shop.1");
    }
    settle(&mut world);
    judge(world);
}

/// One controller after the other dies and is replaced.
fn restart(world: &mut World, controllers: &ServiceId) {
    let before: Vec<_> = world
        .tasks(controllers)
        .into_iter()
        .filter(|task| task.is_serving())
        .collect();
    for dead in before {
        world.kill_process(&dead.id);
        world.until("every controller runs", SETTLED, |world| {
            let tasks = world.tasks(controllers);
            let is_replaced = tasks.iter().all(|task| task.id != dead.id || task.is_over());
            is_replaced && world.ready(controllers) == 2
        });
    }
}

/// Whether nothing of ours is over, and what is mounted lasts: certificates until they are renewed in their turn.
fn is_good(world: &World, wall: Duration) -> bool {
    let (secrets, services) = world.shared().with_swarm(|swarm, _| (swarm.secrets(), swarm.managed()));
    let left = |secret: &Secret| {
        let ends = secret.labels.get(NOT_AFTER_LABEL)?.parse().ok()?;
        Some(Duration::from_secs(ends).saturating_sub(wall))
    };
    let ours: Vec<&Secret> = secrets
        .iter()
        .filter(|secret| secret.labels.contains_key(IDENTITY_LABEL))
        .collect();
    let mounted: BTreeSet<&String> = services
        .iter()
        .flat_map(|service| service.shape.secrets.keys())
        .collect();
    let is_authority = |secret: &Secret| secret.labels[IDENTITY_LABEL] == "authority";
    let lasts = |secret: &&Secret| left(secret).is_some_and(|left| left > CERTIFICATE_LIFE / 4);
    let runs = services.iter().all(|service| {
        let tasks = world.tasks(&service.id);
        tasks.iter().all(|task| task.is_over() || task.is_serving())
    });
    let authorities = ours.iter().filter(|secret| is_authority(secret));
    let [certificates, signing]: [Vec<_>; 2] = [
        ours.iter()
            .filter(|secret| !is_authority(secret) && mounted.contains(&secret.name))
            .collect(),
        authorities.filter(|secret| mounted.contains(&secret.name)).collect(),
    ];
    runs && ours.iter().all(|secret| left(secret).is_some_and(|left| !left.is_zero()))
        // Proxies' and the courier's.
        && certificates.len() == 2
        && certificates.into_iter().copied().all(|secret| lasts(&secret))
        && signing.into_iter().copied().any(|secret| lasts(&secret))
        && services.iter().any(|service| service.shape.name == CONTROLLERS)
}
