//! Everything that may go wrong, at random. Each seed draws which kinds of trouble exist at all.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_core::id::{NodeId, TaskId};
use tidegate_core::simulated::Loss;

use super::*;
use crate::client::Wish;
use crate::faults::DockerFaults;
use crate::product::{CONTROLLERS, Deployment, PROXIES};
use crate::seed::Seed;
use crate::shared::Disk;
use crate::walls::Side;

const KINDS: [&str; 13] = [
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
    world.deploy(&deployment);
    let [shop, blog] = shop_and_blog(&mut world);
    world.stream_user("viewer-1", &Wish::new("blog.example.org", "/live"));
    let mut state = State::default();
    for _ in 0..ACTS {
        let kind = *dice.pick(&kinds).unwrap_or(&"update");
        let Some(mut dice) = world.act(kind) else { continue };
        let service = if dice.chance(1, 2) { shop.clone() } else { blog.clone() };
        state.act(&mut world, kind, &service, &mut dice);
        let pause = dice.between(100, 8000);
        world.run_for(Duration::from_millis(pause));
        if dice.chance(1, 2) {
            state.heal(&mut world);
        }
    }
    state.heal(&mut world);
    settle(&mut world);
    judge(world);
}

/// What is broken now.
#[derive(Default)]
struct State {
    drained: Option<NodeId>,
    lost: Option<NodeId>,
    frozen: BTreeSet<TaskId>,
    cut: Option<(Side, Side)>,
    deaf: bool,
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
            "cut" if self.cut.is_none() && !self.deaf => {
                let (a, b) = sides();
                world.cut(a.clone(), b.clone());
                self.cut = Some((a, b));
            }
            "deafen" if self.cut.is_none() && self.lost.is_none() && !self.deaf => {
                let (a, b) = sides();
                world.deafen(&b, &a);
                self.deaf = true;
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
        if std::mem::take(&mut self.deaf) {
            world.undeafen(
                &Side::Service(PROXIES.to_owned()),
                &Side::Service(CONTROLLERS.to_owned()),
            );
        }
        world.set_disk(Disk::Well);
    }
}
