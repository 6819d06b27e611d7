//! Stories of what fails: nodes, managers, links, disks, apps, and people.

use std::time::Duration;

use tidegate_core::id::{ClusterName, TaskId};
use tidegate_core::simulated::Loss;
use tidegate_core::swarm::model::STACK_LABEL;
use tidegate_core::time::Instant;

use super::*;
use crate::backend::{App, OnSigterm};
use crate::client::Wish;
use crate::faults::DockerFaults;
use crate::product::{CONTROLLERS, Deployment, PROXIES, Protocol};
use crate::seed::Seed;
use crate::shared::Disk;
use crate::walls::Side;

fn side(name: &str) -> Side {
    Side::Service(name.to_owned())
}

/// A worker is lost, and comes back.
pub fn node_loss(seed: &Seed) {
    let mut world = world(seed, DockerFaults::draw);
    world.deploy(&Deployment::default());
    let [shop, _] = shop_and_blog(&mut world);
    let workers = world.nodes(false);
    let node = world.rng().pick(&workers).expect("there are workers").id.clone();
    let loss = *world
        .rng()
        .pick(&[Loss::Power, Loss::Link, Loss::Dockerd, Loss::Crash])
        .unwrap_or(&Loss::Power);
    world.lose_node(&node, loss);
    world.run_for(Duration::from_millis(1500));
    if world.can_serve(&shop) {
        answered_within(&mut world, SETTLED, "shop.example.org", "shop");
    }
    let apart = world.rng().between(2, 30);
    world.run_for(Duration::from_secs(apart));
    world.return_node(&node);
    settle(&mut world);
    answered(&mut world, "shop.example.org", "shop");
    judge(world);
}

/// Addresses change hands.
pub fn leader_change(seed: &Seed) {
    let mut world = world(seed, DockerFaults::draw);
    world.deploy(&Deployment::default());
    let [shop, _] = shop_and_blog(&mut world);
    edit(&mut world, "scales shop to 1", &shop, |shape| shape.replicas = Some(1));
    let pause = world.rng().between(0, 9000);
    world.run_for(Duration::from_millis(pause));
    world.command("loses the leader", |swarm, now| swarm.lose_leader(now));
    world.until("a leader is elected", SETTLED, |world| {
        world.shared().with_swarm(|swarm, _| swarm.leaderless_since().is_none())
    });
    let labels = [("hosts", "news.example.org")];
    serve(&mut world, "news", 3, &labels, |shape| shape.dnsrr = true);
    world.load(vec![
        Wish::new("shop.example.org", "/"),
        Wish::new("blog.example.org", "/"),
        Wish::new("news.example.org", "/"),
    ]);
    answered(&mut world, "news.example.org", "news");
    edit(&mut world, "scales shop to 3", &shop, |shape| shape.replicas = Some(3));
    world.run_for(Duration::from_secs(3));
    settle(&mut world);
    judge(world);
}

/// The control network is cut, or a proxy stands still.
pub fn controller_partition(seed: &Seed) {
    let mut world = world(seed, DockerFaults::draw);
    world.deploy(&Deployment::default());
    let [shop, _] = shop_and_blog(&mut world);
    let (controllers, proxies) = (side(CONTROLLERS), side(PROXIES));
    let way = world.rng().below(4);
    let own = world
        .service(PROXIES)
        .map(|service| world.tasks(&service))
        .unwrap_or_default();
    let still = world.rng().pick(&own).map(|task| task.id.clone()).filter(|_| way == 0);
    match (&still, way) {
        (Some(proxy), _) => world.freeze(proxy),
        (None, 1) => world.deafen(&proxies, &controllers),
        (None, 2) => world.deafen(&controllers, &proxies),
        (None, _) => world.cut(controllers.clone(), proxies.clone()),
    }
    let apart = world.rng().between(1, 25);
    world.run_for(Duration::from_secs(apart) / 2);
    relabel(&mut world, &shop, "hosts", "shop.example.org,store.example.org");
    world.run_for(Duration::from_secs(apart) / 2);
    match (&still, way) {
        (Some(proxy), _) => world.thaw(proxy),
        (None, 1) => world.undeafen(&proxies, &controllers),
        (None, 2) => world.undeafen(&controllers, &proxies),
        (None, _) => world.mend(&controllers, &proxies),
    }
    // Silence is noticed after 12 s, and then a proxy looks for a controller with growing pauses.
    let limit = Duration::from_secs(40);
    let mark = world.mark();
    world.until("the change is followed", limit, |world| {
        world.got_since(mark, |outcome| outcome.is_from("store.example.org", "shop"))
    });
    settle(&mut world);
    judge(world);
}

/// No quorum.
pub fn quorum_loss(seed: &Seed) {
    let mut world = world_of(seed, 3, DockerFaults::draw);
    let deployment = Deployment {
        controllers: world.rng().between(1, 2),
        ..Deployment::default()
    };
    world.deploy(&deployment);
    let [shop, _] = shop_and_blog(&mut world);
    let mut managers: Vec<_> = world.nodes(true).into_iter().map(|node| node.id).collect();
    world.rng().shuffle(&mut managers);
    let loss = *world.rng().pick(&[Loss::Power, Loss::Link]).unwrap_or(&Loss::Power);
    for node in managers.iter().take(2) {
        world.lose_node(node, loss);
        let pause = world.rng().between(0, 4000);
        world.run_for(Duration::from_millis(pause));
    }
    let pause = world.rng().between(5, 50);
    world.run_for(Duration::from_secs(pause));
    if world.can_serve(&shop) {
        answered_within(&mut world, SETTLED, "shop.example.org", "shop");
    }
    for node in managers.iter().take(2) {
        world.return_node(node);
    }
    world.until("a leader is elected", SETTLED, |world| {
        world.shared().with_swarm(|swarm, _| swarm.leaderless_since().is_none())
    });
    relabel(&mut world, &shop, "hosts", "shop.example.org,store.example.org");
    let mark = world.mark();
    world.until("the change is followed", SETTLED, |world| {
        world.got_since(mark, |outcome| outcome.is_from("store.example.org", "shop"))
    });
    settle(&mut world);
    judge(world);
}

/// Proxies restart by themselves.
pub fn stored_table(seed: &Seed) {
    let mut world = world(seed, |_| DockerFaults::none());
    let mut deployment = Deployment::default();
    for cluster in deployment.settings.clusters.values_mut() {
        cluster.global = true; // whoever dies comes back where its table is stored
    }
    let controllers = world.deploy(&deployment);
    let [shop, _] = shop_and_blog(&mut world);
    let disk = *world
        .rng()
        .pick(&[Disk::Well, Disk::Full, Disk::Torn])
        .unwrap_or(&Disk::Well);
    world.set_disk(disk);
    // A table that meets the disk as it is now.
    relabel(&mut world, &shop, "hosts", "shop.example.org,store.example.org");
    answered(&mut world, "store.example.org", "shop");
    world.run_for(Duration::from_secs(2));
    edit(&mut world, "scales the controllers to 0", &controllers, |shape| {
        shape.replicas = Some(0);
    });
    world.until("no controller runs", SETTLED, |world| {
        world.tasks(&controllers).iter().all(|task| task.is_over())
    });
    let proxies = world.service(PROXIES).expect("it was made");
    let all = world.ready(&proxies);
    let one = world.tasks(&proxies).into_iter().find(|task| task.is_serving());
    world.kill_process(&one.expect("a proxy runs").id);
    world.run_for(Duration::from_secs(20));
    // A full disk keeps the table that it had; half of one is none, and whoever has none lets users go elsewhere.
    let back = if disk == Disk::Torn { all - 1 } else { all };
    assert_eq!(
        world.ready(&proxies),
        back,
        "proxies that serve without a controller, disk {disk:?}"
    );
    // The others never stopped.
    answered(&mut world, "shop.example.org", "shop");
    world.set_disk(Disk::Well);
    edit(&mut world, "scales the controllers to 1", &controllers, |shape| {
        shape.replicas = Some(1);
    });
    settle(&mut world);
    judge(world);
}

/// Upgraded connections.
pub fn streams(seed: &Seed) {
    let mut world = world(seed, |rng| DockerFaults {
        hangs: 0,
        ..DockerFaults::draw(rng)
    });
    let controllers = world.deploy(&Deployment::default());
    let [shop, blog] = shop_and_blog(&mut world);
    for number in 1..=4 {
        world.stream_user(&format!("viewer-{number}"), &Wish::new("blog.example.org", "/live"));
    }
    world.run_for(Duration::from_secs(1));
    let mut killed: Option<Instant> = None;
    for _ in 0..6 {
        let Some(mut dice) = world.act("a change that concerns no stream") else {
            continue;
        };
        match dice.below(6) {
            0 => edit(&mut world, "updates shop", &shop, |shape| shape.image.push('1')),
            1 => {
                let hosts = *dice
                    .pick(&["shop.example.org", "shop.example.org,store.example.org"])
                    .unwrap_or(&"shop.example.org");
                relabel(&mut world, &shop, "hosts", hosts);
            }
            2 => {
                let path = *dice.pick(&["/", "/live"]).unwrap_or(&"/");
                relabel(&mut world, &shop, "context_root", path);
            }
            3 => {
                // What changed since one died is followed before its successor dies too.
                let may_die = killed.is_none_or(|at| world.now().since(at) >= FOLLOWED_WITH_FAULTS);
                let task = world.tasks(&controllers).into_iter().find(|task| task.is_serving());
                if let Some(task) = task.filter(|_| may_die) {
                    killed = Some(world.now());
                    world.kill_process(&task.id);
                }
            }
            4 => relabel(&mut world, &blog, "hosts", "blog.example.org,log.example.org"),
            _ => {
                let replicas = dice.between(2, 4);
                let more = world.tasks(&blog).len() as u64 <= replicas;
                if more {
                    edit(&mut world, "scales blog up", &blog, |shape| {
                        shape.replicas = Some(replicas)
                    });
                }
            }
        }
        let pause = dice.between(200, 4000);
        world.run_for(Duration::from_millis(pause));
    }
    settle(&mut world);
    judge(world);
}

/// A later version of the protocol, also side by side with the present one, while controllers come and go.
pub fn newer_controller(seed: &Seed) {
    let mut world = world(seed, DockerFaults::draw);
    let mixed = world.rng().chance(1, 2);
    let (controllers, protocol) = if mixed {
        (2, Protocol::Mixed)
    } else {
        (1, Protocol::Newer)
    };
    let deployment = Deployment {
        controllers,
        protocol,
        ..Deployment::default()
    };
    let controllers = world.deploy(&deployment);
    let [shop, blog] = shop_and_blog(&mut world);
    relabel(&mut world, &shop, "hosts", "shop.example.org,store.example.org");
    answered(&mut world, "store.example.org", "shop");
    for _ in 0..3 {
        let Some(mut dice) = world.act("a controller dies") else {
            continue;
        };
        let tasks = world.tasks(&controllers);
        let running: Vec<_> = tasks.into_iter().filter(|task| task.is_serving()).collect();
        if let Some(task) = dice.pick(&running).filter(|_| mixed) {
            world.kill_process(&task.id);
            let pause = dice.between(500, 15_000);
            world.run_for(Duration::from_millis(pause));
        }
    }
    edit(&mut world, "updates blog", &blog, |shape| shape.image.push('1'));
    world.run_for(Duration::from_secs(6));
    settle(&mut world);
    judge(world);
}

/// Two controllers that do not see the same.
pub fn two_controllers(seed: &Seed) {
    let mut world = world_of(seed, 3, DockerFaults::draw);
    let deployment = Deployment {
        controllers: 2,
        ..Deployment::default()
    };
    let controllers = world.deploy(&deployment);
    let [shop, _] = shop_and_blog(&mut world);
    let homes: Vec<_> = world
        .tasks(&controllers)
        .into_iter()
        .filter_map(|task| task.node)
        .collect();
    for _ in 0..3 {
        let Some(mut dice) = world.act("a manager fails") else {
            continue;
        };
        let node = dice.pick(&homes).expect("controllers run somewhere").clone();
        let loss = *dice
            .pick(&[Loss::Dockerd, Loss::Link, Loss::Crash])
            .unwrap_or(&Loss::Link);
        world.lose_node(&node, loss);
        let pause = dice.between(500, 12_000);
        world.run_for(Duration::from_millis(pause));
        let hosts = *dice
            .pick(&["shop.example.org", "shop.example.org,store.example.org"])
            .unwrap_or(&"shop.example.org");
        let told = world.try_relabel(&shop, "hosts", hosts);
        let proxies = world.service(PROXIES).filter(|_| told);
        if let Some(proxies) = proxies.filter(|_| dice.chance(1, 2)) {
            world.try_edit("an operator edits the proxies", &proxies, |shape| {
                shape.labels.insert("team".to_owned(), "edge".to_owned());
            });
        }
        world.run_for(Duration::from_millis(pause));
        world.return_node(&node);
        let pause = dice.between(1000, 20_000);
        world.run_for(Duration::from_millis(pause));
    }
    settle(&mut world);
    judge(world);
}

/// What people do.
pub fn operator_mistakes(seed: &Seed) {
    let mut world = world(seed, DockerFaults::draw);
    world.deploy(&Deployment::default());
    let [shop, blog] = shop_and_blog(&mut world);
    let mut names = ["odd", "even"];
    serve(&mut world, names[0], 1, &[("hosts", "odd.example.org")], |_| {});
    let (mut edited, mut undone) = (false, 0);
    for _ in 0..7 {
        let Some(mut dice) = world.act("a mistake") else {
            continue;
        };
        let odd = world.service(names[0]).expect("it is there under one of its names");
        match dice.below(9) {
            0 => _ = world.try_relabel(&odd, "hosts", "shop.example.org"),
            1 => _ = world.try_relabel(&odd, "hosts", "*.*.org, ,http://x/"),
            2 => _ = world.try_relabel(&odd, "port", "eighty"),
            3 => _ = world.try_relabel(&odd, "context_root", "no slash"),
            4 => {
                // Docker renames no service: it is removed and made anew, with the same labels.
                world
                    .command("removes odd", |swarm, now| swarm.remove_service(&odd, now))
                    .expect("it is there");
                names.swap(0, 1);
                serve(&mut world, names[0], 1, &[("hosts", "odd.example.org")], |_| {});
            }
            5 => {
                if let Some(proxies) = world.service(PROXIES) {
                    edited |= world.try_edit("an operator edits the proxies", &proxies, |shape| {
                        shape.env.insert("DEBUG=1".to_owned());
                        shape.labels.insert("team".to_owned(), "edge".to_owned());
                    });
                }
            }
            6 => {
                undone += 1;
                take_away_a_label_and_go_on(&mut world, &mut dice, undone);
            }
            7 => {
                relabel(&mut world, &shop, "hosts", "shop.example.org,store.example.org");
                relabel(&mut world, &blog, "hosts", "blog.example.org,store.example.org");
            }
            _ => {
                if let Some(proxies) = world.service(PROXIES) {
                    let tasks: Vec<TaskId> = world.tasks(&proxies).into_iter().map(|task| task.id).collect();
                    world.strike(&tasks, "the proxies are removed");
                    world
                        .command("removes the proxies", |swarm, now| swarm.remove_service(&proxies, now))
                        .ok();
                    undone += 1;
                    let back = Duration::from_secs(60) + pause_of_the_overruled(undone);
                    world.until("the proxies are made anew", back, |world| world.proxies() > 0);
                    edited = false;
                }
            }
        }
        let pause = dice.between(200, 5000);
        world.run_for(Duration::from_millis(pause));
    }
    world.heal();
    world.run_for(FOLLOWED_WITH_FAULTS);
    let proxies = world.service(PROXIES).expect("they were made anew");
    let shape = world.shared().with_swarm(|swarm, _| swarm.shape(&proxies).cloned());
    let shape = shape.expect("it is there");
    assert!(shape.labels.contains_key(STACK_LABEL), "its stack's label is put back");
    let kept = shape.env.contains("DEBUG=1") && shape.labels.contains_key("team");
    assert!(
        kept || !edited,
        "what an operator added to the proxies is gone: {shape:?}"
    );
    judge(world);
}

/// Somebody takes a label of the proxies away that controllers put back, and goes on editing other things while they do:
/// whoever loses that race looks again, and the label is there soon after the last edit, the pause of the overruled apart.
fn take_away_a_label_and_go_on(world: &mut World, dice: &mut Rng, undone: u32) {
    for round in 0..12 {
        let Some(proxies) = world.service(PROXIES) else { return };
        world.try_edit("an operator edits the proxies", &proxies, |shape| {
            if round == 0 {
                shape.labels.remove(STACK_LABEL);
            }
            shape.labels.insert("round".to_owned(), round.to_string());
        });
        let pause = dice.between(1, 60);
        world.run_for(Duration::from_millis(pause));
    }
    let limit = FOLLOWED_WITH_FAULTS + pause_of_the_overruled(undone);
    world.until("the label is put back", limit, |world| {
        let proxies = world.service(PROXIES);
        let shape = world
            .shared()
            .with_swarm(|swarm, _| proxies.and_then(|id| swarm.shape(&id).cloned()));
        shape.is_none_or(|shape| shape.labels.contains_key(STACK_LABEL))
    });
}

/// Controllers whose writes for the same wish are undone again and again, be it that a label or that the whole service is taken
/// away, wait longer each time: a second after the first write, then twice as long.
fn pause_of_the_overruled(undone: u32) -> Duration {
    Duration::from_secs(1 << undone)
}

/// Two service clusters.
pub fn two_clusters(seed: &Seed) {
    let mut world = world(seed, DockerFaults::draw);
    let mut deployment = Deployment::default();
    let mut inner = deployment.settings.clusters[&ClusterName::default_cluster()].clone();
    (inner.service_name, inner.http_port, inner.https_port) = ("tidegate_inner".to_owned(), 8080, 8443);
    deployment.settings.clusters.insert(ClusterName::from("inner"), inner);
    world.deploy(&deployment);
    let [shop, _] = shop_and_blog(&mut world);
    let labels = [("hosts", "inner.example.org"), ("service_cluster", "inner")];
    let inner = serve(&mut world, "inner", 2, &labels, |_| {});
    relabel(&mut world, &shop, "hosts", "shop.example.org,store.example.org");
    answered(&mut world, "store.example.org", "shop");
    edit(&mut world, "updates inner", &inner, |shape| shape.image.push('1'));
    world.run_for(Duration::from_secs(5));
    settle(&mut world);
    judge(world);
}

/// Apps of every kind.
pub fn apps(seed: &Seed) {
    let mut world = world(seed, |rng| DockerFaults {
        hangs: 0,
        ..DockerFaults::draw(rng)
    });
    let drain = world.rng().between(0, 4000);
    let slow = App {
        think_ms: (200, 1500),
        on_sigterm: OnSigterm::Drain(drain),
        ..App::default()
    };
    world.app("slow", slow);
    let flaky = App {
        flaky: world.rng().between(20, 300),
        leaky: world.rng().chance(1, 2),
        on_sigterm: OnSigterm::Ignore,
        ..App::default()
    };
    world.app("flaky", flaky);
    world.deploy(&Deployment::default());
    let [shop, blog] = shop_and_blog(&mut world);
    let h2c = [("hosts", "slow.example.org"), ("backend_protocol", "h2c")];
    let slow = serve(&mut world, "slow", 2, &h2c, |shape| {
        shape.health_command = vec!["CMD".to_owned(), "true".to_owned()]
    });
    serve(&mut world, "flaky", 2, &[("hosts", "flaky.example.org")], |_| {});
    let everywhere = serve_globally(&mut world, "everywhere", "everywhere.example.org");
    world.load(
        ["shop", "blog", "slow", "flaky", "everywhere"]
            .map(|name| Wish::new(&format!("{name}.example.org"), "/"))
            .to_vec(),
    );
    answered(&mut world, "slow.example.org", "slow");
    answered(&mut world, "everywhere.example.org", "everywhere");
    let mut frozen: Option<TaskId> = None;
    for _ in 0..6 {
        let Some(mut dice) = world.act("an app fails") else {
            continue;
        };
        let services = [
            ("shop", &shop),
            ("blog", &blog),
            ("everywhere", &everywhere),
            ("slow", &slow),
        ];
        let (name, service) = *dice.pick(&services).expect("there are some");
        let tasks: Vec<_> = world
            .tasks(service)
            .into_iter()
            .filter(|task| task.is_serving())
            .collect();
        // One at a time: what is judged is how its siblings take over.
        if let (Some(task), true) = (dice.pick(&tasks), tasks.len() > 1) {
            match dice.below(5) {
                0 => world.kill_process(&task.id),
                1 if frozen.is_none() => {
                    world.freeze(&task.id);
                    frozen = Some(task.id.clone());
                }
                2 => world.sicken(&task.id),
                3 => world.reset(&side(PROXIES), &side(name)),
                _ => edit(&mut world, "updates an image", service, |shape| shape.image.push('1')),
            }
        }
        let pause = dice.between(300, 6000);
        world.run_for(Duration::from_millis(pause));
        if let Some(task) = frozen.take_if(|_| dice.chance(1, 2)) {
            world.thaw(&task);
        }
    }
    if let Some(task) = frozen {
        world.thaw(&task);
    }
    settle(&mut world);
    judge(world);
}
