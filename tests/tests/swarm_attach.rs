//! Applications with networks of their own, which the proxies join and leave (`attach`). Swarm replaces tasks whose
//! networks change, so this way has a price; the test prints it.

use std::time::Duration;

use anyhow::Result;
use e2e::clock::{Look, now, wait_for};
use e2e::load::Load;
use e2e::report::say;
use e2e::scene::{Scene, effect};
use e2e::{gate, swarm};

const LIMIT: Duration = Duration::from_secs(120);
const ROUNDS: usize = 1;

#[test]
fn proxies_join_the_networks_of_routed_services_and_leave_them_again() {
    if !gate::may_run("swarm_attach", swarm::obstacle()) {
        return;
    }
    let scene = Scene::set_up("attach").unwrap();
    let told = |result: Result<usize>| scene.explained(result).unwrap();
    let start = now();
    scene
        .deploy_app("first", "deploy/demo-app.yml", "first.example")
        .unwrap();
    scene
        .until(
            "an app with its own network deployed, to its answer by every proxy",
            start,
            "first.example",
            |answer| answer.status == 200,
        )
        .unwrap();
    let first_times: usize = (0..ROUNDS).map(|_| told(another_app_comes_and_goes(&scene))).sum();
    say(format_args!(
        "attach  docker stack rm removed the network the first time in {first_times} of {ROUNDS} rounds"
    ));
}

/// Gives 1 if `docker stack rm` removed everything at once.
fn another_app_comes_and_goes(scene: &Scene) -> Result<usize> {
    let load = Load::start(&scene.entrances(), "first.example");
    let balanced = Load::balanced(&scene.entrances(), "first.example");
    let start = now();
    scene.deploy_app("second", "deploy/demo-app.yml", "second.example")?;
    scene.until(
        "a second network joined, to the app's answer by every proxy",
        start,
        "second.example",
        |answer| answer.status == 200,
    )?;
    let start = now();
    let removed = scene.docker(&["stack", "rm", "second"]);
    if let Err(error) = &removed {
        say(format_args!("attach  docker stack rm: {error:#}"));
    }
    wait_for("the network goes", LIMIT, || {
        let list = scene.docker(&["network", "ls", "--quiet", "--filter", "name=second_frontend"]);
        match list {
            Ok(list) if list.is_empty() => Look::Holds(()),
            Ok(_) => Look::NotYet(
                scene
                    .docker(&["network", "rm", "second_frontend"])
                    .map_or_else(|e| e.to_string(), |_| "removed".into()),
            ),
            Err(error) => Look::NotYet(error.to_string()),
        }
    })?;
    effect("docker stack rm, to the end of its network", start);
    scene.until(
        "the same, to the first app's answer by every proxy",
        start,
        "first.example",
        |answer| answer.status == 200,
    )?;
    let (account, balanced) = (load.finish(), balanced.finish());
    say(format_args!(
        "load    first app by each proxy, while they are replaced one by one: {account}"
    ));
    say(format_args!(
        "load    first app by either proxy, as behind a balancer: {balanced}"
    ));
    assert_eq!(balanced.failed(), 0, "both proxies were gone at once: {balanced}");
    Ok(usize::from(removed.is_ok()))
}
