//! Whole stories with a name. Each draws its world from the seed, deploys Tidegate, puts it under load, changes
//! something, and judges every answer.

use std::time::Duration;

use tidegate_core::id::{ClusterName, NodeId, ServiceId, TaskId};
use tidegate_core::reconcile::desired::{ServiceShape, UpdatePolicy};
use tidegate_core::rng::Rng;

use crate::backend::{App, OnSigterm};
use crate::client::{Answer, Outcome, Wish};
use crate::faults::DockerFaults;
use crate::oracle::{no_request_lost, only_owners_answer, unknown_is_refused};
use crate::product::{CONTROLLERS, Deployment, INNER_PROXIES, PROXIES};
use crate::seed::Seed;
use crate::world::World;

/// One story.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// Runs it; panics where an expectation is broken.
    pub run: fn(&Seed),
}

/// All stories.
pub const ALL: [Scenario; 6] = [
    Scenario {
        name: "certificates",
        about: "a courier brings certificates: renewed again and again, to their own service cluster and to no other",
        run: certificates,
    },
    Scenario {
        name: "controller-restart",
        about: "the controller dies under load: traffic goes on, and its successor follows changes",
        run: controller_restart,
    },
    Scenario {
        name: "random",
        about: "planned changes of every kind in any order, one upon the other: no request is lost",
        run: random,
    },
    Scenario {
        name: "rolling-update-start-first",
        about: "three tasks are replaced, new before old, apps exit at once on SIGTERM: no request is lost",
        run: rolling_update_start_first,
    },
    Scenario {
        name: "rolling-update-stop-first",
        about: "three tasks are replaced, old before new, apps exit at once on SIGTERM: no request is lost",
        run: rolling_update_stop_first,
    },
    Scenario {
        name: "routing",
        about: "hosts and paths reach their services, unknown ones are refused, label changes are followed",
        run: routing,
    },
];

/// The time within which a change must be followed, where the Docker API behaves.
const FOLLOWED: Duration = Duration::from_millis(1500);
/// The same where it errs, hangs or loses events: limits on calls and the safety net's interval come on top.
const FOLLOWED_WITH_FAULTS: Duration = Duration::from_secs(12);
const SETTLED: Duration = Duration::from_secs(60);

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
        let service = world
            .rng()
            .pick(&[shop.clone(), blog.clone()])
            .cloned()
            .unwrap_or(shop.clone());
        match world.rng().below(7) {
            0 | 1 => {
                let new_image = |shape: &mut ServiceShape| shape.image.push('1');
                edit(&mut world, "updates an image", &service, new_image);
            }
            2 | 3 => {
                let replicas = world.rng().between(2, 5);
                edit(&mut world, "scales", &service, |shape| shape.replicas = Some(replicas));
            }
            4 => {
                let hosts = *world
                    .rng()
                    .pick(&["shop.example.org", "shop.example.org,store.example.org"])
                    .unwrap_or(&"shop.example.org");
                relabel(&mut world, &shop, "hosts", hosts);
            }
            5 => match drained.take() {
                Some(node) => world
                    .command("activates a node", |swarm, now| swarm.activate_node(&node, now))
                    .expect("the node exists"),
                None => {
                    let node = world.rng().pick(&workers).cloned().expect("there are workers");
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
        let pause = world.rng().between(100, 6000);
        world.run_for(Duration::from_millis(pause));
    }
    world.heal();
    world.until("all is at rest", Duration::from_secs(180), |world| {
        world.shared().with_swarm(|swarm, _| swarm.is_at_rest())
    });
    world.set_grace(FOLLOWED_WITH_FAULTS);
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
    let think_ms = (0, slowest);
    let on_sigterm = OnSigterm::Exit;
    world.app("shop", App { think_ms, on_sigterm });
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
    world.set_grace(FOLLOWED_WITH_FAULTS);
    world.run_for(Duration::from_secs(1));
    judge(world);
}

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

fn world(seed: &Seed, faults: impl Fn(&mut Rng) -> DockerFaults) -> World {
    let faults = faults(&mut Rng::new(seed.value()).fork("faults"));
    let is_well = faults.errors + faults.hangs + faults.gaps == 0;
    let mut world = World::new(seed, faults);
    world.set_grace(if is_well { FOLLOWED } else { FOLLOWED_WITH_FAULTS });
    world
}

/// Creates a service with labels of the old prefix and waits until its tasks run.
fn serve(
    world: &mut World,
    name: &str,
    replicas: u64,
    labels: &[(&str, &str)],
    edit: impl FnOnce(&mut ServiceShape),
) -> ServiceId {
    let labels = labels.iter().chain(&[("port", "80")]);
    let mut shape = ServiceShape {
        name: name.to_owned(),
        image: format!("{name}:1"),
        labels: labels
            .map(|(key, value)| (format!("com.docker.lb.{key}"), (*value).to_owned()))
            .collect(),
        replicas: Some(replicas),
        networks: ["apps".to_owned()].into(),
        update: UpdatePolicy {
            failure_action: "pause".to_owned(),
            monitor_ms: 500,
            ..UpdatePolicy::default()
        },
        ..ServiceShape::default()
    };
    edit(&mut shape);
    let id = world
        .command(&format!("creates {name}"), |swarm, now| {
            swarm.create_service(shape, now)
        })
        .expect("the service is new and its network exists");
    world.until(&format!("{name} runs"), SETTLED, |world| {
        world.serving(&id) as u64 == replicas
    });
    id
}

fn users(world: &mut World, count: usize) {
    for number in 1..=count {
        world.user(&format!("user-{number}"));
    }
}

fn relabel(world: &mut World, service: &ServiceId, key: &str, value: &str) {
    let label = format!("com.docker.lb.{key}");
    world
        .command(&format!("sets {label}={value}"), |swarm, now| {
            swarm.edit_service(service, now, |shape| {
                shape.labels.insert(label.clone(), value.to_owned());
            })
        })
        .expect("the service exists");
}

fn edit(world: &mut World, what: &str, service: &ServiceId, change: impl FnOnce(&mut ServiceShape)) {
    world
        .command(what, |swarm, now| swarm.edit_service(service, now, change))
        .expect("the service exists");
}

/// A new image for every task, and the wait until all of it is over.
fn roll(world: &mut World, service: &ServiceId) {
    let old: Vec<_> = world.tasks(service).into_iter().map(|task| task.id).collect();
    world
        .command("updates the image", |swarm, now| {
            swarm.edit_service(service, now, |shape| shape.image.push('1'))
        })
        .expect("the service exists");
    world.until("the update is over", Duration::from_secs(120), |world| {
        let tasks = world.tasks(service);
        let new = tasks.iter().filter(|task| task.is_serving() && !old.contains(&task.id));
        new.count() == old.len() && !tasks.iter().any(|task| task.is_leaving())
    });
}

/// Waits until users get an answer for `host` from `service`.
fn answered(world: &mut World, host: &str, service: &str) {
    let mark = world.mark();
    world.until(
        &format!("{host} is answered by {service}"),
        FOLLOWED_WITH_FAULTS,
        |world| world.got_since(mark, |outcome| outcome.is_from(host, service)),
    );
}

/// Faults stop, requests under way end, and every answer is judged.
fn judge(mut world: World) {
    world.heal();
    world.stop_load();
    world.expect(only_owners_answer);
    world.expect(no_request_lost);
    world.expect(unknown_is_refused);
}
