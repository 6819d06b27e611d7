//! TLS: certificates on their way to the proxies by courier, renewed, forgotten until they end; and apps that end TLS
//! themselves.

use std::time::Duration;

use tidegate_core::id::{ClusterName, TaskId};

use super::*;
use crate::backend::{App, OnSigterm};
use crate::client::{Answer, Channel, Wish};
use crate::faults::DockerFaults;
use crate::product::{Deployment, INNER_PROXIES, PROXIES};
use crate::seed::Seed;

/// Longer than a story.
const LONG: Duration = Duration::from_secs(3600);
/// How far the clock of a node may be from the true time, and a look at the certificates.
const SEEN_BY_ALL: Duration = Duration::from_secs(135);

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
    secret(&mut world, "shop.1", "shop.example.org", LONG);
    secret(&mut world, "vault.1", "vault.example.org", LONG);
    world.shared().belongs("vault.1", INNER_PROXIES);
    for round in 1..=4 {
        world.shared().belongs(&format!("shop.{round}"), PROXIES);
    }
    let labels = [("hosts", "shop.example.org"), ("ssl_cert", "shop.1")];
    let shop = serve(&mut world, "shop", 2, &labels, |_| {});
    let labels = [
        ("hosts", "vault.example.org"),
        ("ssl_cert", "vault.1"),
        ("service_cluster", "inner"),
    ];
    serve(&mut world, "vault", 1, &labels, |_| {});
    users(&mut world, 3);
    held(&mut world, PROXIES, "shop.1");
    held(&mut world, INNER_PROXIES, "vault.1");
    let clear = Wish::new("shop.example.org", "/");
    world.load(vec![clear.clone().over(Channel::Tls), clear]);
    answered(&mut world, "shop.example.org", "shop");
    let before = proxy_tasks(&world);
    for round in 2..=4 {
        let name = format!("shop.{round}");
        secret(&mut world, &name, "shop.example.org", LONG);
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
    assert_eq!(proxy_tasks(&world), before, "a secret replaced a proxy");
    judge(world);
}

/// Somebody forgets to renew a certificate: the proxies say so, and serve what they have; a new one is served at once.
pub fn forgotten_certificate(seed: &Seed) {
    let mut world = world(seed, DockerFaults::draw);
    world.deploy(&Deployment::default());
    let life = Duration::from_secs(world.rng().between(40, 70));
    secret(&mut world, "shop.1", "shop.example.org", life);
    let labels = [("hosts", "shop.example.org"), ("ssl_cert", "shop.1")];
    let shop = serve(&mut world, "shop", 2, &labels, |_| {});
    users(&mut world, 3);
    held(&mut world, PROXIES, "shop.1");
    let ends = world.now() + life;
    let wish = Wish::new("shop.example.org", "/");
    world.load(vec![wish.clone().over(Channel::Tls)]);
    answered(&mut world, "shop.example.org", "shop");
    // What is asked for over TLS is over before the certificate is.
    let pause = ends.since(world.now() + Duration::from_secs(31));
    world.run_for(pause);
    world.load(vec![wish.clone()]);
    world.until(
        "every proxy says that it has expired",
        Duration::from_secs(31) + SEEN_BY_ALL,
        |world| {
            let findings = world.shared().findings(PROXIES);
            let says = |said: &Vec<String>| {
                said.iter()
                    .any(|said| said.contains("the certificate shop.1 has expired"))
            };
            !findings.is_empty() && findings.iter().all(says)
        },
    );
    world.until("it is over", SEEN_BY_ALL, |world| world.now() > ends);
    // It is shown all the same: whoever does not mind is served. Users mind, which is no loss.
    let (mark, shops) = (world.mark(), ["shop".to_owned()].into());
    world
        .shared()
        .witness()
        .blow(world.now(), shops, &[], "the certificate is over");
    world.load(vec![wish.clone().over(Channel::Tls)]);
    world.until("users see that it is over", FOLLOWED, |world| {
        world.got_since(
            mark,
            |outcome| matches!(&outcome.answer, Answer::Broken(why) if why.contains("expired")),
        )
    });
    world.load(vec![wish.clone()]);
    secret(&mut world, "shop.2", "shop.example.org", LONG);
    relabel(&mut world, &shop, "ssl_cert", "shop.2");
    held(&mut world, PROXIES, "shop.2");
    world.load(vec![wish.over(Channel::Tls)]);
    let mark = world.mark();
    world.until("users trust the new one", FOLLOWED, |world| {
        world.got_since(mark, |outcome| {
            outcome.wish.channel == Channel::Tls && outcome.is_from("shop.example.org", "shop")
        })
    });
    world.run_for(Duration::from_secs(3));
    judge(world);
}

/// An app ends TLS itself, and is updated, scaled and moved while it and others are used.
pub fn passthrough(seed: &Seed) {
    let mut world = world(seed, DockerFaults::draw);
    let app = App {
        // Nobody can take over what is under way inside of TLS: such an app has to finish it.
        on_sigterm: OnSigterm::Drain(3000),
        tls: Some(world.shared().pki().server("vault", "vault.example.org")),
        ..App::default()
    };
    world.app("vault", app);
    let controllers = world.deploy(&Deployment::default());
    secret(&mut world, "shop.1", "shop.example.org", LONG);
    let labels = [("hosts", "vault.example.org"), ("ssl_passthrough", "true")];
    let vault = serve(&mut world, "vault", 3, &labels, |shape| shape.stop_grace_ms = 10_000);
    let labels = [("hosts", "shop.example.org"), ("ssl_cert", "shop.1")];
    let shop = serve(&mut world, "shop", 2, &labels, |_| {});
    users(&mut world, 4);
    held(&mut world, PROXIES, "shop.1");
    world.until_tables_match(SETTLED);
    world.load(vec![
        Wish::new("vault.example.org", "/").over(Channel::Passthrough),
        Wish::new("shop.example.org", "/").over(Channel::Tls),
    ]);
    answered(&mut world, "vault.example.org", "vault");
    answered(&mut world, "shop.example.org", "shop");
    for _ in 0..4 {
        let Some(mut dice) = world.act("a change") else {
            continue;
        };
        match dice.below(4) {
            0 => edit(&mut world, "updates vault", &vault, |shape| shape.image.push('1')),
            1 => {
                let replicas = dice.between(2, 4);
                edit(&mut world, "scales vault", &vault, |shape| {
                    shape.replicas = Some(replicas)
                });
            }
            2 => edit(&mut world, "updates shop", &shop, |shape| shape.image.push('1')),
            _ => {
                let task = world.tasks(&controllers).into_iter().find(|task| task.is_serving());
                if let Some(task) = task {
                    world.kill_process(&task.id);
                    world.run_for(FOLLOWED_WITH_FAULTS);
                }
            }
        }
        let pause = dice.between(200, 6000);
        world.run_for(Duration::from_millis(pause));
    }
    settle(&mut world);
    judge(world);
}

/// Makes a secret with a certificate for `host` that ends so long from now.
pub(super) fn secret(world: &mut World, name: &str, host: &str, life: Duration) {
    let pem = world.shared().pki().issue(name, host, world.now() + life);
    world
        .command(&format!("makes the secret {name}"), |swarm, now| {
            swarm.create_secret(name, &[], pem.as_bytes(), now)
        })
        .expect("no secret of this name yet");
}

/// Waits until every proxy of a service has a secret.
pub(super) fn held(world: &mut World, service: &str, secret: &str) {
    world.until(&format!("{service} has {secret}"), SETTLED, |world| {
        let (contents, issued) = (
            world.shared().contents(service, secret),
            world.shared().pki().pem(secret),
        );
        !contents.is_empty() && contents.iter().all(|content| *content == issued)
    });
}

fn proxy_tasks(world: &World) -> Vec<TaskId> {
    let services = [PROXIES, INNER_PROXIES].map(|name| world.shared().with_swarm(|swarm, _| swarm.service_named(name)));
    let tasks = services.iter().flatten().flat_map(|service| world.tasks(service));
    tasks.map(|task| task.id).collect()
}
