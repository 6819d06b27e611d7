//! Everything that may go wrong, at random. Each seed draws which kinds of trouble exist at all.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_core::id::{NodeId, TaskId};
use tidegate_core::simulated::Loss;

use super::*;
use crate::backend::{App, OnSigterm};
use crate::client::{Channel, Wish};
use crate::faults::DockerFaults;
use crate::product::{CONTROLLERS, Deployment, PROXIES};
use crate::seed::Seed;
use crate::shared::Disk;
use crate::walls::Side;

const KINDS: [&str; 15] = [
    "update",
    "scale",
    "label",
    "drain",
    "crash",
    "freeze",
    "sicken",
    "lose a node",
    "cut",
    "deafen",
    "delay",
    "mistake",
    "disk",
    "clock",
    "reset",
];
const ACTS: usize = 10;

/// See the module.
pub fn chaos(seed: &Seed) {
    let mut dice = Rng::new(seed.value()).fork("kinds");
    let managers = *dice.pick(&[1, 3]).unwrap_or(&1);
    let kinds: Vec<&str> = KINDS.into_iter().filter(|_| dice.chance(1, 2)).collect();
    let kinds = if kinds.is_empty() { KINDS.to_vec() } else { kinds };
    let mut world = world_of(seed, managers, DockerFaults::draw);
    seed.note(|report| report.drawn += &format!(", trouble: {}", kinds.join(", ")));
    let deployment = Deployment {
        controllers: dice.between(1, 2),
        ..Deployment::default()
    };
    let cast = cast(&mut world, &mut dice);
    world.record();
    world.deploy(&deployment);
    let [shop, blog] = shop_and_blog(&mut world);
    let services = enter(&mut world, &cast, &mut dice, [shop, blog]);
    let mut state = State::default();
    for _ in 0..ACTS {
        let kind = *dice.pick(&kinds).unwrap_or(&"update");
        let Some(mut dice) = world.act(kind) else { continue };
        let service = dice.pick(&services).expect("there are some").clone();
        state.act(&mut world, kind, &service, &mut dice);
        let pause = dice.between(100, 8000);
        world.run_for(Duration::from_millis(pause));
        if dice.chance(1, 2) {
            state.heal(&mut world);
        }
    }
    state.heal(&mut world);
    if let Some(odd) = world.service("odd") {
        world.until("a leader is elected", SETTLED, World::has_leader);
        for (key, value) in [("hosts", "odd.example.org"), ("port", "80"), ("context_root", "/")] {
            relabel(&mut world, &odd, key, value);
        }
    }
    settle(&mut world);
    world.replay_recordings();
    judge(world);
}

/// The services of this seed beside the two that every story has.
fn cast(world: &mut World, dice: &mut Rng) -> Vec<&'static str> {
    let drain = OnSigterm::Drain(dice.between(500, 4000));
    let slow = App {
        think_ms: (200, 1500),
        on_sigterm: drain,
        ..App::default()
    };
    let flaky = App {
        flaky: dice.between(20, 300),
        leaky: dice.chance(1, 2),
        on_sigterm: OnSigterm::Ignore,
        ..App::default()
    };
    let vault = App {
        on_sigterm: drain,
        tls: Some(world.shared().pki().server("vault", "vault.example.org")),
        ..App::default()
    };
    let all = [("slow", slow), ("flaky", flaky), ("vault", vault)];
    let mut cast = Vec::new();
    for (name, app) in all.into_iter().filter(|_| dice.chance(1, 3)) {
        world.app(name, app);
        cast.push(name);
    }
    cast.extend(["everywhere", "odd"].into_iter().filter(|_| dice.chance(1, 3)));
    cast
}

/// They start, and users ask for all of them; those that may be scaled.
fn enter(world: &mut World, cast: &[&str], dice: &mut Rng, mut scaled: [ServiceId; 2]) -> Vec<ServiceId> {
    let mut wishes = vec![
        Wish::new("shop.example.org", "/"),
        Wish::new("blog.example.org", "/"),
        Wish::new("store.example.org", "/"),
    ];
    scaled.sort_unstable();
    let mut services = scaled.to_vec();
    for name in cast {
        let host = format!("{name}.example.org");
        let labels = match *name {
            "slow" => vec![("hosts", host.as_str()), ("backend_protocol", "h2c")],
            "vault" => vec![("hosts", host.as_str()), ("ssl_passthrough", "true")],
            _ => vec![("hosts", host.as_str())],
        };
        if *name == "everywhere" {
            serve_globally(world, name, &host);
        } else {
            services.push(serve(world, name, 2, &labels, |shape| shape.stop_grace_ms = 10_000));
        }
        let wish = Wish::new(&host, "/");
        match *name {
            "vault" => wishes.push(wish.over(Channel::Passthrough)),
            "odd" => {} // its operator errs, and it alone may suffer
            _ => wishes.push(wish),
        }
    }
    for number in 5..=dice.between(4, 8) {
        world.user(&format!("user-{number}"));
    }
    for number in 1..=dice.between(1, 3) {
        world.stream_user(&format!("viewer-{number}"), &Wish::new("blog.example.org", "/live"));
    }
    world.load(wishes);
    world.until_tables_match(SETTLED);
    services
}

/// What is broken now.
#[derive(Default)]
struct State {
    drained: Option<NodeId>,
    lost: Option<NodeId>,
    frozen: BTreeSet<TaskId>,
    cut: Option<(Side, Side)>,
    deaf: Option<(Side, Side)>,
    slow: Option<(Side, Side)>,
}

impl State {
    fn act(&mut self, world: &mut World, kind: &str, service: &ServiceId, dice: &mut Rng) {
        let sides = || (Side::Service(CONTROLLERS.to_owned()), Side::Service(PROXIES.to_owned()));
        match kind {
            "update" => _ = world.try_edit("updates an image", service, |shape| shape.image.push('1')),
            "scale" => {
                let replicas = dice.between(1, 4);
                world.try_edit("scales", service, |shape| shape.replicas = Some(replicas));
            }
            "label" => {
                let hosts = *dice
                    .pick(&["blog.example.org", "blog.example.org,store.example.org"])
                    .unwrap_or(&"");
                if let Some(blog) = world.service("blog") {
                    world.try_relabel(&blog, "hosts", hosts);
                }
            }
            "drain" if self.drained.is_none() => {
                let node = dice.pick(&world.nodes(false)).map(|node| node.id.clone());
                if let Some(node) = node {
                    world
                        .command("drains a node", |swarm, now| swarm.drain_node(&node, now))
                        .ok();
                    self.drained = Some(node);
                }
            }
            "crash" => {
                if let Some(task) = self.pick(world, dice) {
                    world.kill_process(&task);
                }
            }
            "freeze" => {
                if let Some(task) = self.pick(world, dice) {
                    world.freeze(&task);
                    self.frozen.insert(task);
                }
            }
            "sicken" => {
                if let Some(task) = self.pick(world, dice) {
                    world.sicken(&task);
                }
            }
            "lose a node" if self.lost.is_none() => {
                let managers = dice.chance(1, 3);
                let node = dice.pick(&world.nodes(managers)).map(|node| node.id.clone());
                let loss = *dice
                    .pick(&[Loss::Power, Loss::Link, Loss::Dockerd, Loss::Crash])
                    .unwrap_or(&Loss::Power);
                if let Some(node) = node {
                    world.lose_node(&node, loss);
                    self.lost = Some(node);
                }
            }
            "cut" if self.cut.is_none() && self.deaf.is_none() => {
                let (a, b) = sides();
                world.cut(a.clone(), b.clone());
                self.cut = Some((a, b));
            }
            "deafen" if self.cut.is_none() && self.lost.is_none() && self.deaf.is_none() => {
                let (controllers, proxies) = sides();
                let (from, to) = if dice.chance(1, 2) {
                    (controllers, proxies)
                } else {
                    (proxies, controllers)
                };
                world.deafen(&from, &to);
                self.deaf = Some((from, to));
            }
            "delay" if self.slow.is_none() => {
                let (controllers, proxies) = sides();
                let (other, most) = if dice.chance(1, 2) {
                    (controllers, dice.between(50, 2000))
                } else {
                    (Side::Service("shop".to_owned()), dice.between(20, 100))
                };
                world.delay(&proxies, &other, Duration::from_millis(most));
                self.slow = Some((proxies, other));
            }
            "mistake" => {
                let (key, value) = *dice
                    .pick(&[
                        ("hosts", "shop.example.org"),
                        ("hosts", "*.*.org, ,http://x/"),
                        ("hosts", "odd.example.org"),
                        ("port", "eighty"),
                        ("context_root", "no slash"),
                    ])
                    .unwrap_or(&("port", "80"));
                if let Some(odd) = world.service("odd") {
                    world.try_relabel(&odd, key, value);
                }
            }
            "reset" => {
                let (controllers, proxies) = sides();
                let apps = Side::Service((*dice.pick(&["shop", "blog"]).unwrap_or(&"shop")).to_owned());
                let other = if dice.chance(1, 2) { apps } else { controllers };
                world.reset(&proxies, &other);
            }
            "disk" => {
                let disk = *dice.pick(&[Disk::Well, Disk::Full, Disk::Torn]).unwrap_or(&Disk::Well);
                world.set_disk(disk);
            }
            "clock" => {
                let nodes: Vec<_> = world.nodes(true).into_iter().chain(world.nodes(false)).collect();
                if let Some(node) = dice.pick(&nodes) {
                    let by = i64::try_from(dice.between(0, 400)).unwrap_or_default() - 200;
                    world.jump_clock(&node.id, by);
                }
            }
            _ => {}
        }
    }

    /// A task of any service, Tidegate's own included.
    fn pick(&self, world: &World, dice: &mut Rng) -> Option<TaskId> {
        let all = world
            .shared()
            .with_swarm(|swarm, _| swarm.tasks(&[]))
            .unwrap_or_default();
        let serving: Vec<_> = all.into_iter().filter(|task| task.is_serving()).collect();
        dice.pick(&serving).map(|task| task.id.clone())
    }

    fn heal(&mut self, world: &mut World) {
        for task in std::mem::take(&mut self.frozen) {
            world.thaw(&task);
        }
        if let Some(node) = self.lost.take() {
            world.return_node(&node);
        }
        if let Some(node) = self.drained.take_if(|_| world.has_leader()) {
            world
                .command("activates a node", |swarm, now| swarm.activate_node(&node, now))
                .ok();
        }
        if let Some((a, b)) = self.cut.take() {
            world.mend(&a, &b);
        }
        if let Some((from, to)) = self.deaf.take() {
            world.undeafen(&from, &to);
        }
        if let Some((a, b)) = self.slow.take() {
            world.hasten(&a, &b);
        }
        world.set_disk(Disk::Well);
    }
}
