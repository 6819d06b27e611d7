//! What is done to Tidegate itself, or while it is alone.

use anyhow::{Result, ensure};

use super::fault::{LIMIT, controllers};
use super::scenario::{SERVICE, Stage};
use crate::clock::{Look, wait_for};
use crate::report::say;
use crate::scene::{PROXY, SHARED};

/// A service of nobody's route, which answers like the application.
const THIEF: &str = "thief";

/// The proxies' tasks are replaced, one by one, as an update of their image does it.
pub(super) fn proxies_are_updated(stage: &Stage<'_>) -> Result<()> {
    let scene = stage.scene();
    let old = scene.tasks_of(PROXY)?;
    stage.strikes();
    scene.docker(&["service", "update", "--detach", "--force", PROXY])?;
    wait_for("every proxy is replaced", LIMIT, || {
        let is_done = |tasks: &[String]| tasks.len() == old.len() && !tasks.iter().any(|task| old.contains(task));
        let format = "{{.UpdateStatus.State}}";
        let state = scene.docker(&["service", "inspect", "--format", format, PROXY]);
        match (scene.tasks_of(PROXY), state) {
            (Ok(tasks), Ok(state)) if is_done(&tasks) && state == "completed" => Look::Holds(()),
            other => Look::NotYet(format!("{other:?}")),
        }
    })?;
    Ok(())
}

/// While no controller runs and after the leader changed, tasks go and another service's tasks get their addresses. The
/// network is small for that (see `Scene::set_up_small`): Swarm gives an address anew when it has given all others.
pub(super) fn addresses_are_reused(stage: &Stage<'_>) -> Result<()> {
    let scene = stage.scene();
    controllers(stage, 0)?;
    stage.strikes();
    let swarm = scene.swarm();
    let leader = swarm.node(swarm.leader()?);
    leader.stop_dockerd()?;
    wait_for("another manager leads", LIMIT, || match swarm.leader() {
        Ok(number) if number != leader.number() => Look::Holds(()),
        other => Look::NotYet(format!("{other:?}")),
    })?;
    leader.start_dockerd()?;
    leader.wait_for_swarm()?;
    let of_app = addresses(stage, SERVICE)?;
    stage.scale(1)?;
    scene.create_app(THIEF, 2, &[])?;
    scene.until_count(THIEF, 2)?;
    // Each time its tasks get the next addresses, until those that the application had come round.
    let mut reused = Vec::new();
    for _ in 0..ADDRESSES {
        reused = addresses(stage, THIEF)?;
        reused.retain(|address| of_app.contains(address));
        if !reused.is_empty() {
            break;
        }
        stage.replace(THIEF)?;
    }
    say(format_args!("reused  {reused:?} of {of_app:?}"));
    ensure!(
        !reused.is_empty(),
        "no address came round: there is nothing to be shown"
    );
    stage.scale(3)?;
    scene.docker(&["service", "rm", THIEF])?;
    controllers(stage, 2)
}

/// More than the small network has.
const ADDRESSES: usize = 32;

/// Addresses of a service's running containers on the shared network.
fn addresses(stage: &Stage<'_>, service: &str) -> Result<Vec<String>> {
    let mut all = Vec::new();
    let format = format!("{{{{(index .NetworkSettings.Networks {SHARED:?}).IPAddress}}}}");
    for node in stage.scene().managers() {
        for container in node.containers_of(service)? {
            all.push(node.docker(&["inspect", "--format", &format, &container])?);
        }
    }
    Ok(all)
}
