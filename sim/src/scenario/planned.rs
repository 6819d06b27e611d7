//! Stories of what operators do: routes, label changes, updates, scaling, drained nodes, a controller that is replaced.

use std::time::Duration;

use tidegate_core::id::NodeId;
use tidegate_core::reconcile::desired::ServiceShape;
use tidegate_core::swarm::model::Task;

use super::*;
use crate::backend::{Ailment, App, OnSigterm};
use crate::client::{Answer, Outcome, Wish};
use crate::faults::DockerFaults;
use crate::product::{CONTROLLERS, Deployment};
use crate::seed::Seed;

/// Hosts and paths.
pub fn routing(seed: &Seed) {
    let mut world = world(seed, DockerFaults::draw);
    world.deploy(&Deployment::default());
    let shop = serve(&mut world, "shop", 2, &[("hosts", "shop.example.org")], |_| {});
    let labels = [("hosts", "shop.example.org"), ("context_root", "/api")];
    serve(&mut world, "api", 1, &labels, |_| {});
    let blog = serve(
        &mut world,
        "blog",
        1,
        &[("hosts", "blog.example.org,log.example.org")],
        |_| {},
    );
    users(&mut world, 4);
    world.load(vec![
        Wish::new("shop.example.org", "/"),
        Wish::new("shop.example.org", "/api/v1"),
        Wish::new("shop.example.org", "/apiary"),
        Wish::new("log.example.org", "/"),
        Wish::new("store.example.org", "/"),
    ]);
    answered(&mut world, "shop.example.org", "shop");
    answered(&mut world, "shop.example.org", "api");
    answered(&mut world, "log.example.org", "blog");
    world.run_for(Duration::from_millis(500));

    relabel(&mut world, &shop, "hosts", "store.example.org");
    answered(&mut world, "store.example.org", "shop");
    world.run_for(Duration::from_secs(2));

    world
        .command("removes blog", |swarm, now| swarm.remove_service(&blog, now))
        .expect("the service exists");
    let mark = world.mark();
    let refused = |outcome: &Outcome| {
        matches!(
            outcome.answer,
            Answer::Status {
                code: 503,
                service: None,
                ..
            }
        )
    };
    world.until("blog is refused", FOLLOWED_WITH_FAULTS, |world| {
        world.got_since(mark, |outcome| {
            outcome.wish.host == "log.example.org" && refused(outcome)
        })
    });
    judge(world);
}

/// Planned changes of every kind, at random: updates, scaling, labels, drained nodes, a controller that dies.
pub fn random(seed: &Seed) {
    let mut world = world(seed, |rng| DockerFaults {
        hangs: 0,
        ..DockerFaults::draw(rng)
    });
    let controllers = world.deploy(&Deployment::default());
    let shop = serve(&mut world, "shop", 3, &[("hosts", "shop.example.org")], |_| {});
    let blog = serve(&mut world, "blog", 2, &[("hosts", "blog.example.org")], |shape| {
        shape.update.start_first = true;
    });
    users(&mut world, 4);
    world.load(vec![
        Wish::new("shop.example.org", "/"),
        Wish::new("blog.example.org", "/"),
        Wish::new("store.example.org", "/"),
    ]);
    answered(&mut world, "shop.example.org", "shop");
    answered(&mut world, "blog.example.org", "blog");
    let workers: Vec<_> = world.shared().with_swarm(|swarm, _| {
        let nodes = swarm.nodes().into_iter().filter(|node| !node.manager);
        nodes.map(|node| node.id).collect()
    });
    let mut drained: Option<NodeId> = None;
    for _ in 0..8 {
        let Some(mut dice) = world.act("a planned change") else {
            continue;
        };
        let service = dice
            .pick(&[shop.clone(), blog.clone()])
            .cloned()
            .unwrap_or(shop.clone());
        match dice.below(7) {
            0 | 1 => {
                let new_image = |shape: &mut ServiceShape| shape.image.push('1');
                edit(&mut world, "updates an image", &service, new_image);
            }
            2 | 3 => {
                let replicas = dice.between(2, 5);
                edit(&mut world, "scales", &service, |shape| shape.replicas = Some(replicas));
            }
            4 => {
                let hosts = *dice
                    .pick(&["shop.example.org", "shop.example.org,store.example.org"])
                    .unwrap_or(&"shop.example.org");
                relabel(&mut world, &shop, "hosts", hosts);
            }
            5 => match drained.take() {
                Some(node) => world
                    .command("activates a node", |swarm, now| swarm.activate_node(&node, now))
                    .expect("the node exists"),
                None => {
                    let node = dice.pick(&workers).cloned().expect("there are workers");
                    world
                        .command("drains a node", |swarm, now| swarm.drain_node(&node, now))
                        .expect("the node exists");
                    drained = Some(node);
                }
            },
            _ => {
                if let Some(task) = world.tasks(&controllers).into_iter().find(|task| task.is_serving()) {
                    world.kill_process(&task.id);
                    // Without a controller nobody says which tasks leave, so nothing else is changed meanwhile.
                    world.until("the controller is back", SETTLED, |world| {
                        let mut tasks = world.tasks(&controllers).into_iter();
                        tasks.any(|new| new.is_serving() && new.id != task.id)
                    });
                    world.run_for(FOLLOWED_WITH_FAULTS);
                }
            }
        }
        let pause = dice.between(100, 6000);
        world.run_for(Duration::from_millis(pause));
    }
    world.heal();
    world.until("all is at rest", Duration::from_secs(180), |world| {
        world.shared().with_swarm(|swarm, _| swarm.is_at_rest())
    });
    judge(world);
}

/// New before old.
pub fn rolling_update_start_first(seed: &Seed) {
    rolling_update(seed, true);
}

/// Old before new.
pub fn rolling_update_stop_first(seed: &Seed) {
    rolling_update(seed, false);
}

fn rolling_update(seed: &Seed, start_first: bool) {
    let mut world = world(seed, |rng| DockerFaults {
        hangs: 0,
        ..DockerFaults::draw(rng)
    });
    // Slow apps have more requests under way when they are told to stop; more users keep the load up.
    let (slowest, crowd) = *world.rng().pick(&[(5, 3), (50, 4), (300, 8)]).unwrap_or(&(5, 3));
    let app = App {
        think_ms: (0, slowest),
        on_sigterm: OnSigterm::Exit,
        ..App::default()
    };
    world.app("shop", app);
    world.deploy(&Deployment::default());
    let shop = serve(&mut world, "shop", 3, &[("hosts", "shop.example.org")], |shape| {
        shape.update.start_first = start_first;
    });
    users(&mut world, crowd);
    world.load(vec![Wish::new("shop.example.org", "/")]);
    answered(&mut world, "shop.example.org", "shop");
    roll(&mut world, &shop);
    world.run_for(Duration::from_secs(5));
    assert!(world.mark() > 300, "there was load: {} requests", world.mark());
    judge(world);
}

/// The controller dies.
pub fn controller_restart(seed: &Seed) {
    let mut world = world(seed, DockerFaults::draw);
    let controllers = world.deploy(&Deployment::default());
    let shop = serve(&mut world, "shop", 2, &[("hosts", "shop.example.org")], |_| {});
    users(&mut world, 3);
    world.load(vec![
        Wish::new("shop.example.org", "/"),
        Wish::new("store.example.org", "/"),
    ]);
    answered(&mut world, "shop.example.org", "shop");

    let task = world.tasks(&controllers).into_iter().find(|task| task.is_serving());
    let old = task.expect("a controller runs").id;
    world.kill_process(&old);
    let mark = world.mark();
    world.until("the controller is back", SETTLED, |world| {
        let mut tasks = world.tasks(&controllers).into_iter();
        tasks.any(|task| task.is_serving() && task.id != old)
    });
    let served = world.got_since(mark, |outcome| outcome.is_from("shop.example.org", "shop"));
    assert!(served, "traffic goes on without {CONTROLLERS}");

    relabel(&mut world, &shop, "hosts", "shop.example.org,store.example.org");
    // A proxy looks for a new controller with growing pauses.
    answered(&mut world, "store.example.org", "shop");
    world.run_for(Duration::from_secs(1));
    judge(world);
}

/// One task is replaced, old before new, under more users than may wait for it. Then there is none for a while, and all of
/// another service, whose requests were turned away before it had any, answer 500, which may be asked again.
pub fn crowded(seed: &Seed) {
    const WAIT_AT_MOST: u32 = 3;
    let mut world = world(seed, DockerFaults::draw);
    let mut deployment = Deployment::default();
    for cluster in deployment.settings.clusters.values_mut() {
        cluster.proxy.parked_max = WAIT_AT_MOST;
        cluster.proxy.retry_on_500 = true;
    }
    world.deploy(&deployment);
    let shop = serve(&mut world, "shop", 1, &[("hosts", "shop.example.org")], |_| {});
    users(&mut world, 16);
    world.load(vec![Wish::new("shop.example.org", "/")]);
    answered(&mut world, "shop.example.org", "shop");
    for _ in 0..2 {
        roll(&mut world, &shop);
        answered(&mut world, "shop.example.org", "shop");
    }
    let broken = serve(&mut world, "broken", 0, &[("hosts", "broken.example.org")], |_| {});
    world.shared().witness().moody("broken");
    world.load(vec![Wish::new("broken.example.org", "/")]);
    world.run_for(Duration::from_secs(3));
    edit(&mut world, "scales broken", &broken, |shape| shape.replicas = Some(2));
    world.until("broken has tasks", SETTLED, |world| world.tasks(&broken).len() == 2);
    for task in world.tasks(&broken) {
        world.ail(&task.id, Ailment::Errors);
    }
    edit(&mut world, "scales shop to nothing", &shop, |shape| {
        shape.replicas = Some(0)
    });
    let [broken, nobody] = ["broken", "shop"].map(|name| Wish::new(&format!("{name}.example.org"), "/"));
    world.load(vec![broken.clone()]);
    world.until("nobody is there", SETTLED, |world| {
        world.tasks(&shop).iter().all(Task::is_over)
    });
    world.load(vec![broken, nobody]);
    // As long as two wait in turn.
    world.run_for(Duration::from_secs(21));
    edit(&mut world, "scales shop", &shop, |shape| shape.replicas = Some(1));
    answered(&mut world, "shop.example.org", "shop");
    settle(&mut world);
    judge(world);
}
