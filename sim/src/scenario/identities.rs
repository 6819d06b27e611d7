//! Years go by: certificates of the control network are renewed, and so is the authority that signs them.

use std::time::Duration;

use tidegate_core::id::ServiceId;
use tidegate_core::identity::{CERTIFICATE_LIFE, IDENTITY_LABEL, NOT_AFTER_LABEL};
use tidegate_core::swarm::model::Secret;

use super::certificates::{held, secret};
use super::*;
use crate::client::{Channel, Wish};
use crate::faults::DockerFaults;
use crate::product::{Deployment, PROXIES};
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
    let is_mounted = |name: &String| services.iter().any(|service| service.shape.secrets.contains_key(name));
    // Of each secret of ours: whether it is an authority, whether it is mounted, what is left of its life.
    let read = |secret: &Secret| {
        let is_authority = secret.labels.get(IDENTITY_LABEL)? == "authority";
        let ends = Duration::from_secs(secret.labels.get(NOT_AFTER_LABEL)?.parse().ok()?);
        Some((is_authority, is_mounted(&secret.name), ends.saturating_sub(wall)))
    };
    let ours: Vec<(bool, bool, Duration)> = secrets.iter().filter_map(read).collect();
    let lasts = |left: Duration| left > CERTIFICATE_LIFE / 4;
    let mounted = |of_authorities: bool| {
        let all = ours.iter().filter(|(_, is_mounted, _)| *is_mounted);
        let lives = all.filter(move |(is_authority, ..)| *is_authority == of_authorities);
        lives.map(|(_, _, left)| lasts(*left)).collect::<Vec<bool>>()
    };
    let runs = services.iter().all(|service| {
        let tasks = world.tasks(&service.id);
        tasks.iter().all(|task| task.is_over() || task.is_serving())
    });
    // The proxies' certificate and the courier's.
    runs && ours.iter().all(|(_, _, left)| !left.is_zero())
        && mounted(false) == [true, true]
        && mounted(true).contains(&true)
}
