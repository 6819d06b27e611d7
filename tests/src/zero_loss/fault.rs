//! What nobody announces: each round does it to one node that has a task and no proxy, and undoes it.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::scenario::{SERVICE, Stage};
use crate::clock::pause;
use crate::scene::CONTROLLER;
use crate::swarm::Node;

/// For one change to have its effect.
pub(super) const LIMIT: Duration = Duration::from_secs(180);
/// That an application is frozen: longer than anybody waits who can ask elsewhere.
const FROZEN: Duration = Duration::from_secs(8);
/// That an application answers wrongly.
const SICK: Duration = Duration::from_secs(20);
/// That too few managers run.
const WITHOUT_QUORUM: Duration = Duration::from_secs(60);

/// The container is killed.
pub fn crash(stage: &Stage<'_>) -> Result<()> {
    let node = victim(stage)?;
    let lost = stage.running_on(&node.name())?;
    stage.strikes();
    node.kill_containers_of(SERVICE)?;
    stage.until_replaced(&lost)
}

/// The application answers, and nothing right: Swarm's health check ends its task after two failures.
pub fn unhealthy(stage: &Stage<'_>) -> Result<()> {
    let node = victim(stage)?;
    let lost = stage.running_on(&node.name())?;
    let containers = node.containers_of(SERVICE)?;
    stage.strikes();
    for container in &containers {
        node.docker(&["exec", container, "/app", "sick"])?;
    }
    stage.until_replaced(&lost)
}

/// The application answers, and nothing right, for longer than Tidegate takes to see it; Docker has no check.
pub fn sick(stage: &Stage<'_>) -> Result<()> {
    let node = victim(stage)?;
    let containers = node.containers_of(SERVICE)?;
    let container = containers.first().context("the node has a task")?;
    stage.strikes();
    node.docker(&["exec", container, "/app", "sick"])?;
    pause(SICK);
    stage.update(&["update", "--force"])
}

/// The application stops in the middle of everything, and goes on later: its kernel takes connections all the time.
pub fn frozen(stage: &Stage<'_>) -> Result<()> {
    let node = victim(stage)?;
    let containers = node.containers_of(SERVICE)?;
    let container = containers.first().context("the node has a task")?;
    stage.strikes();
    node.docker(&["pause", container])?;
    pause(FROZEN);
    node.docker(&["unpause", container])?;
    stage.until_replaced(&[])
}

/// A worker's dockerd is stopped, as by a reboot without a drain.
pub fn dockerd_stopped(stage: &Stage<'_>) -> Result<()> {
    lose(stage, Node::stop_dockerd, |_| Ok(()))
}

/// A worker's dockerd is killed: the application lives on, and Docker drops its address after seconds.
pub fn dockerd_killed(stage: &Stage<'_>) -> Result<()> {
    lose(stage, Node::kill_dockerd, |_| Ok(()))
}

/// Nothing of the node answers any more, nor does its kernel.
pub fn power_off(stage: &Stage<'_>) -> Result<()> {
    let off = |node: &Node| {
        node.cut(true)?;
        node.pause()
    };
    let on = |node: &Node| {
        node.resume()?;
        node.cut(false)
    };
    lose(stage, off, on)
}

/// The node runs on, and is not reached.
pub fn link_cut(stage: &Stage<'_>) -> Result<()> {
    lose(stage, |node| node.cut(true), |node| node.cut(false))
}

/// The managers' leader is killed: nobody leads for 10 to 20 s, and its own task vanishes.
pub fn leader_killed(stage: &Stage<'_>) -> Result<()> {
    let swarm = stage.scene().swarm();
    lose_node(stage, swarm.node(swarm.leader()?), Node::kill_dockerd, |_| Ok(()))
}

/// Of three managers two are killed: for a minute nobody can change anything, and nobody replaces what is lost.
pub fn quorum_lost(stage: &Stage<'_>) -> Result<()> {
    let (_, lost) = stage.scene().managers().split_first().context("there are managers")?;
    stage.strikes();
    lost.iter().try_for_each(Node::kill_dockerd)?;
    pause(WITHOUT_QUORUM);
    lost.iter().try_for_each(Node::start_dockerd)?;
    for node in lost {
        node.wait_for_swarm()?;
    }
    // What happened meanwhile is caught up with, and so is what happens next.
    stage.until_replaced(&[])?;
    stage.until_at_rest()?;
    stage.update(&["update", "--force"])
}

/// All controllers go, and the application is updated in both orders.
pub fn controllers_gone(stage: &Stage<'_>) -> Result<()> {
    controllers(stage, 0)?;
    stage.strikes();
    for order in ["stop-first", "start-first"] {
        stage.update(&["update", "--update-order", order, "--force"])?;
    }
    controllers(stage, 2)
}

/// Waits until so many controllers run.
pub(super) fn controllers(stage: &Stage<'_>, count: usize) -> Result<()> {
    let scene = stage.scene();
    scene.docker(&["service", "scale", "--detach", &format!("{CONTROLLER}={count}")])?;
    scene.until_count(CONTROLLER, count)
}

/// The last manager: Docker's client talks to the first.
fn victim<'a>(stage: &Stage<'a>) -> Result<&'a Node> {
    stage.scene().managers().last().context("there are managers")
}

fn lose(
    stage: &Stage<'_>,
    strike: impl FnOnce(&Node) -> Result<()>,
    mend: impl FnOnce(&Node) -> Result<()>,
) -> Result<()> {
    lose_node(stage, victim(stage)?, strike, mend)
}

fn lose_node(
    stage: &Stage<'_>,
    node: &Node,
    strike: impl FnOnce(&Node) -> Result<()>,
    mend: impl FnOnce(&Node) -> Result<()>,
) -> Result<()> {
    let lost = stage.running_on(&node.name())?;
    stage.strikes();
    strike(node)?;
    stage.until_replaced(&lost)?;
    mend(node)?;
    node.start_dockerd()?;
    node.wait_for_swarm()?;
    stage.until_at_rest()?;
    // A node that is back gets nothing by itself: this spreads the tasks anew.
    stage.update(&["update", "--force"])
}
