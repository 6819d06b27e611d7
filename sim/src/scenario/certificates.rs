//! Secrets on their way to the proxies, by courier.

use tidegate_core::id::{ClusterName, TaskId};

use super::*;
use crate::client::Wish;
use crate::faults::DockerFaults;
use crate::product::{Deployment, INNER_PROXIES, PROXIES};
use crate::seed::Seed;

/// Secrets reach the proxies of the service cluster whose routes name them, also when controllers and couriers die.
pub fn certificates(seed: &Seed) {
    let mut world = world(seed, DockerFaults::draw);
    let mut deployment = Deployment {
        controllers: 2,
        ..Deployment::default()
    };
    let mut inner = deployment.settings.clusters[&ClusterName::default_cluster()].clone();
    (inner.http_port, inner.https_port) = (81, 8444);
    deployment.settings.clusters.insert(ClusterName::from("inner"), inner);
    let controllers = world.deploy(&deployment);
    secret(&mut world, "shop.1");
    secret(&mut world, "vault.1");
    let labels = [("hosts", "shop.example.org"), ("ssl_cert", "shop.1")];
    let shop = serve(&mut world, "shop", 2, &labels, |_| {});
    let labels = [
        ("hosts", "vault.example.org"),
        ("ssl_cert", "vault.1"),
        ("service_cluster", "inner"),
    ];
    serve(&mut world, "vault", 1, &labels, |_| {});
    users(&mut world, 3);
    world.load(vec![Wish::new("shop.example.org", "/")]);
    answered(&mut world, "shop.example.org", "shop");
    held(&mut world, PROXIES, "shop.1");
    held(&mut world, INNER_PROXIES, "vault.1");
    let before = proxy_tasks(&world);
    for round in 2..=4 {
        let name = format!("shop.{round}");
        secret(&mut world, &name);
        relabel(&mut world, &shop, "ssl_cert", &name);
        // In the middle of it, who brings it dies.
        let victim = match round {
            3 => world
                .shared()
                .with_swarm(|swarm, _| swarm.service_named("tidegate_courier")),
            4 => Some(controllers.clone()),
            _ => None,
        };
        let task = victim.and_then(|service| world.tasks(&service).into_iter().find(|task| task.is_serving()));
        if let Some(task) = task {
            world.kill_process(&task.id);
        }
        held(&mut world, PROXIES, &name);
        let earlier = world.shared().contents(PROXIES, &format!("shop.{}", round - 1));
        assert!(earlier.iter().all(Option::is_none), "what no route names is forgotten");
    }
    let foreign = ["shop.1", "shop.2", "shop.3", "shop.4"].map(|name| world.shared().contents(INNER_PROXIES, name));
    assert!(
        foreign.iter().flatten().all(Option::is_none),
        "keys of another service cluster"
    );
    let foreign = world.shared().contents(PROXIES, "vault.1");
    assert!(foreign.iter().all(Option::is_none), "keys of another service cluster");
    assert_eq!(proxy_tasks(&world), before, "a secret replaced a proxy");
    judge(world);
}

/// Makes a secret whose content is its name.
fn secret(world: &mut World, name: &str) {
    world
        .command(&format!("makes the secret {name}"), |swarm, now| {
            swarm.create_secret(name, &[], name.as_bytes(), now)
        })
        .expect("no secret of this name yet");
}

/// Waits until every proxy of a service has a secret.
fn held(world: &mut World, service: &str, secret: &str) {
    world.until(&format!("{service} has {secret}"), SETTLED, |world| {
        let contents = world.shared().contents(service, secret);
        !contents.is_empty() && contents.iter().all(|content| content.as_deref() == Some(secret))
    });
}

fn proxy_tasks(world: &World) -> Vec<TaskId> {
    let services = [PROXIES, INNER_PROXIES].map(|name| world.shared().with_swarm(|swarm, _| swarm.service_named(name)));
    let tasks = services.iter().flatten().flat_map(|service| world.tasks(service));
    tasks.map(|task| task.id).collect()
}
