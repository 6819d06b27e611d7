//! Controllers die, Docker stops, proxies restart alone: traffic goes on and no route is lost.

use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::clock::{Look, now, wait_for};
use e2e::load::Load;
use e2e::report::say;
use e2e::scene::{CONTROLLER, PROXY, SHARED, Scene, effect};
use e2e::swarm::Node;
use e2e::{gate, swarm};

const HOST: &str = "demo.example";
const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn traffic_goes_on_whatever_becomes_of_the_controllers() {
    if !gate::may_run("swarm_faults", swarm::obstacle()) {
        return;
    }
    let scene = Scene::set_up(SHARED).unwrap();
    let told = |result: Result<()>| scene.explained(result).unwrap();
    told(deploy(&scene));
    told(one_controller_dies(&scene));
    told(all_controllers_go_and_a_proxy_restarts_alone(&scene));
    told(controllers_come_back(&scene));
    told(dockerd_of_a_controller_stops(&scene));
}

fn deploy(scene: &Scene) -> Result<()> {
    let start = now();
    scene.deploy_app("demo", "deploy/demo-shared.yml", HOST)?;
    scene.until(
        "docker stack deploy of an app, to its answer by every proxy",
        start,
        HOST,
        |answer| answer.status == 200,
    )?;
    Ok(())
}

fn one_controller_dies(scene: &Scene) -> Result<()> {
    // They restart one after the other at the beginning, and both are to be there.
    scene.until_updated(CONTROLLER)?;
    scene.until_count(CONTROLLER, 2)?;
    let load = Load::start(&scene.entrances(), HOST);
    let start = now();
    controller_node(scene)?.kill_containers_of(CONTROLLER)?;
    scene.until_count(CONTROLLER, 2)?;
    effect("one of two controllers killed, to two running again", start);
    let account = load.finish();
    say(format_args!("load    one controller killed: {account}"));
    assert_eq!(account.failed(), 0, "{account}");
    Ok(())
}

fn all_controllers_go_and_a_proxy_restarts_alone(scene: &Scene) -> Result<()> {
    let [restarted, staying] = scene.entrances()[..] else {
        anyhow::bail!("two proxies were expected")
    };
    let node = &scene.proxies()[0];
    let load = Load::start(&[staying], HOST);
    scene.docker(&["service", "scale", "--detach", &format!("{CONTROLLER}=0")])?;
    scene.until_count(CONTROLLER, 0)?;
    let start = now();
    let old = node.containers_of(PROXY)?;
    node.kill_containers_of(PROXY)?;
    let fresh = || match node.containers_of(PROXY) {
        Ok(containers) if !containers.is_empty() && containers != old => Look::Holds(()),
        other => Look::NotYet(format!("{other:?}")),
    };
    wait_for("Swarm starts another proxy", LIMIT, fresh)?;
    let started = now();
    let answers = || match e2e::web::get(restarted, HOST, "/", Duration::from_secs(5)) {
        Ok(answer) if answer.status == 200 => Look::Holds(()),
        Ok(answer) => Look::NotYet(answer.summary()),
        Err(error) => Look::NotYet(format!("{error:#}")),
    };
    wait_for("it serves its last good table", LIMIT, answers)?;
    effect(
        "a proxy killed while no controller runs, to its answer (Swarm waits 5 s first)",
        start,
    );
    effect("the same, from the start of its container", started);
    let account = load.finish();
    say(format_args!("load    the other proxy, without controllers: {account}"));
    assert_eq!(account.failed(), 0, "{account}");
    Ok(())
}

fn controllers_come_back(scene: &Scene) -> Result<()> {
    let load = Load::start(&scene.entrances(), HOST);
    let start = now();
    scene.docker(&["service", "scale", "--detach", &format!("{CONTROLLER}=2")])?;
    scene.set_label("demo_web", "com.docker.lb.hosts", &both_hosts("back.example"))?;
    scene.until(
        "controllers 0 to 2 and a changed label, to its answer",
        start,
        "back.example",
        |answer| answer.status == 200,
    )?;
    scene.until_count(CONTROLLER, 2)?;
    let account = load.finish();
    say(format_args!("load    controllers come back: {account}"));
    assert_eq!(account.failed(), 0, "{account}");
    Ok(())
}

fn dockerd_of_a_controller_stops(scene: &Scene) -> Result<()> {
    // The leader, if a controller is there: then Swarm is without one for 10 to 18 s too.
    let leader = scene.swarm().node(scene.swarm().leader()?);
    let has_controller = !leader.containers_of(CONTROLLER)?.is_empty();
    let node = if has_controller {
        leader
    } else {
        controller_node(scene)?
    };
    say(format_args!(
        "dockerd of {} stops{}",
        node.name(),
        if has_controller {
            ", which leads the managers"
        } else {
            ""
        }
    ));
    let load = Load::start(&scene.entrances(), HOST);
    let start = now();
    node.stop_dockerd()?;
    effect(
        "SIGTERM to the dockerd of a manager with a controller, to its end",
        start,
    );
    let survivor = scene
        .managers()
        .iter()
        .find(|manager| manager.is_running())
        .context("a manager runs")?;
    wait_for("Swarm has a leader", LIMIT, || match survivor.docker(&["node", "ls"]) {
        Ok(list) if list.contains("Leader") => Look::Holds(()),
        other => Look::NotYet(format!("{other:?}")),
    })?;
    effect("the same, to a Swarm with a leader", start);
    scene.set_label("demo_web", "com.docker.lb.hosts", &both_hosts("leader.example"))?;
    let changed = now();
    scene.until(
        "a label changed after that, to its answer",
        changed,
        "leader.example",
        |answer| answer.status == 200,
    )?;
    node.start_dockerd()?;
    node.wait_for_api()?;
    node.wait_for_swarm()?;
    let account = load.finish();
    say(format_args!("load    dockerd of a manager stopped: {account}"));
    assert_eq!(account.failed(), 0, "{account}");
    Ok(())
}

fn both_hosts(other: &str) -> String {
    format!("{HOST},{other}")
}

/// A manager on which a controller runs.
fn controller_node(scene: &Scene) -> Result<&Node> {
    for node in scene.managers() {
        if !node.containers_of(CONTROLLER)?.is_empty() {
            return Ok(node);
        }
    }
    anyhow::bail!("no controller runs")
}
