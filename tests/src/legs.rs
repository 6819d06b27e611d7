//! Networks that come and go without the proxies (`networks = "legs"`), under load and with open upgraded connections. A
//! short form runs in `swarm_legs`, a long one by `cargo e2e legs`.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::clock::{Look, now, wait_for};
use crate::load::Load;
use crate::report::say;
use crate::scene::{CONTROLLER, INTERNAL_PORT, PROXY, SHARED, Scene, effect};
use crate::web::{self, Upgraded};

/// Host of the application that is there all the time.
const STAYS: &str = "stays.example";
/// Host of the same application on a network that the proxies of another cluster are on.
const SHARES: &str = "shares.example";
const LIMIT: Duration = Duration::from_secs(120);
/// Requests that the cost of a connection is taken from.
const SAMPLES: usize = 400;

/// An application that does not wait for its requests when it is told to stop.
const ALONE: &str = r#"version: "3.8"
services:
  web:
    image: app:1
    environment: {TASK: "{{.Task.Name}}", NODE: "{{.Node.Hostname}}", STOP: exit}
    networks: [frontend]
    deploy:
      replicas: 3
      endpoint_mode: dnsrr
      labels: {com.docker.lb.hosts: "alone.example", com.docker.lb.port: "8080", com.docker.lb.network: frontend}
      placement: {constraints: ["node.role==manager"]}
      update_config: {order: stop-first, parallelism: 1}
networks:
  frontend: {driver: overlay}
"#;

/// How much.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Applications with a network each that come and go.
    pub networks: usize,
    /// Upgraded connections that stay open meanwhile.
    pub sockets: usize,
}

/// Sets up the Swarm, with proxies over legs and, for comparison, a second cluster on a shared network. They keep no idle
/// connection, so each request opens one.
///
/// # Errors
/// What Docker says.
pub fn set_up() -> Result<Scene> {
    let fresh = r#"version: "3.8"
services:
  controller:
    environment:
      TIDEGATE_CLUSTERS__DEFAULT__PROXY__IDLE_CONNECTIONS_MAX: "0"
      TIDEGATE_CLUSTERS__INTERNAL__PROXY__IDLE_CONNECTIONS_MAX: "0"
"#;
    let scene = Scene::set_up_legs(&[fresh])?;
    let start = now();
    scene.deploy_app("stays", "deploy/demo-app.yml", STAYS)?;
    scene.until(
        "an app with its own network deployed, to its answer by every proxy",
        start,
        STAYS,
        |answer| answer.status == 200,
    )?;
    Ok(scene)
}

/// Networks are joined and left through legs: no proxy task is replaced, no connection closed, no request lost.
///
/// # Errors
/// If a promise broke, with what was seen.
pub fn networks_come_and_go(scene: &Scene, options: Options) -> Result<()> {
    let proxies = scene.tasks_of(PROXY)?;
    let entrances = scene.entrances();
    let mut sockets = Vec::new();
    for number in 0..options.sockets {
        let entrance = entrances[number % entrances.len()];
        sockets.push(Upgraded::open(entrance, STAYS).with_context(|| format!("socket {number}"))?);
    }
    let load = Load::start(&entrances, STAYS);
    let name = |number: usize| format!("app{number}");
    let host = |number: usize| format!("app{number}.example");
    let start = now();
    for number in 0..options.networks {
        scene.deploy_app(&name(number), "deploy/demo-app.yml", &host(number))?;
    }
    for number in 0..options.networks {
        let change = format!(
            "{} networks joined, to the answer of the app on number {number}",
            options.networks
        );
        scene.until(&change, start, &host(number), |answer| answer.status == 200)?;
    }
    let legs = || scene.docker(&["service", "ls", "--quiet", "--filter", "label=tidegate.role=leg"]);
    ensure!(
        legs()?.lines().count() == options.networks + 1,
        "a leg per network: {}",
        legs()?
    );
    let mut first_time = 0;
    for number in 0..options.networks {
        let start = now();
        match scene.docker(&["stack", "rm", &name(number)]) {
            Ok(_) => first_time += 1,
            Err(error) => say(format_args!("legs    docker stack rm: {error:#}")),
        }
        network_goes(scene, &format!("{}_frontend", name(number)))?;
        effect(
            &format!("docker stack rm of {}, to the end of its network", name(number)),
            start,
        );
    }
    say(format_args!(
        "legs    docker stack rm removed the network the first time for {first_time} of {}",
        options.networks
    ));
    wait_for("the legs go", LIMIT, || match legs() {
        Ok(list) if list.lines().count() == 1 => Look::Holds(()),
        other => Look::NotYet(format!("{other:?}")),
    })?;
    let mut closed = 0;
    for (number, socket) in sockets.iter_mut().enumerate() {
        if let Err(error) = socket.echo(&format!("still here, number {number}")) {
            closed += 1;
            say(format_args!("legs    socket {number}: {error:#}"));
        }
    }
    let account = load.finish();
    let replaced = proxies
        .iter()
        .filter(|task| !scene.tasks_of(PROXY).unwrap_or_default().contains(task))
        .count();
    say(format_args!(
        "load    {} networks come and go: {account}",
        options.networks
    ));
    say(format_args!(
        "legs    {} networks: {closed} of {} upgraded connections closed, {} requests failed, {replaced} proxy tasks replaced",
        options.networks,
        sockets.len(),
        account.failed()
    ));
    ensure!(
        closed == 0 && account.failed() == 0 && replaced == 0,
        "legs cost somebody something"
    );
    ensure!(first_time == options.networks, "docker stack rm had to be said twice");
    Ok(())
}

/// Waits for a network's end; removes it by hand where Docker's client did not.
fn network_goes(scene: &Scene, network: &str) -> Result<()> {
    wait_for("the network goes", LIMIT, || {
        let list = scene.docker(&["network", "ls", "--quiet", "--filter", &format!("name={network}")]);
        match list {
            Ok(list) if list.is_empty() => Look::Holds(()),
            Ok(_) => Look::NotYet(match scene.docker(&["network", "rm", network]) {
                Ok(_) => "removed by hand".into(),
                Err(error) => error.to_string(),
            }),
            Err(error) => Look::NotYet(error.to_string()),
        }
    })?;
    Ok(())
}

/// An app that exits at once on SIGTERM, on a network of its own, is updated while no controller runs: Docker's DNS, asked
/// through legs, says which tasks there are.
///
/// # Errors
/// If a request fails.
pub fn updates_without_controllers(scene: &Scene) -> Result<()> {
    let file = scene.swarm().folder().join("alone.yml");
    fs::write(&file, ALONE)?;
    let start = now();
    scene.deploy_app_file("alone", &file, "alone.example")?;
    scene.until(
        "an app that exits at once, to its answer",
        start,
        "alone.example",
        |answer| answer.status == 200,
    )?;
    let controllers = |count: usize| {
        scene.docker(&["service", "scale", "--detach", &format!("{CONTROLLER}={count}")])?;
        scene.until_count(CONTROLLER, count)
    };
    controllers(0)?;
    for (order, image, version) in [
        ("stop-first", crate::image::APP_2, "v2"),
        ("start-first", crate::image::APP, "v1"),
    ] {
        let load = Load::start(&scene.entrances(), "alone.example");
        let start = now();
        let update = [
            "service",
            "update",
            "--detach",
            "--no-resolve-image",
            "--update-order",
            order,
            "--image",
            image,
            "alone_web",
        ];
        scene.docker(&update)?;
        let old = if version == "v2" { "v1" } else { "v2" };
        wait_for(&format!("the update, {order}, is over"), LIMIT, || {
            let state = scene.docker(&["service", "inspect", "--format", "{{.UpdateStatus.State}}", "alone_web"]);
            match (state, scene.count("alone_web")) {
                (Ok(state), Ok(3)) if state == "completed" => Look::Holds(()),
                other => Look::NotYet(format!("{other:?}")),
            }
        })?;
        let account = load.finish();
        effect(&format!("an update without controllers, {order}, to its end"), start);
        say(format_args!(
            "load    an app that exits at once is updated {order} while no controller runs: {account}"
        ));
        ensure!(account.failed() == 0, "{account}");
        ensure!(
            account.last_seen(version) > account.last_seen(old),
            "the new tasks serve: {account:?}"
        );
    }
    controllers(2)?;
    Ok(())
}

/// A network that no stack made: how soon it can be removed after its last service.
///
/// # Errors
/// If the network stays.
pub fn a_network_without_a_stack(scene: &Scene) -> Result<()> {
    scene.docker(&["network", "create", "--driver", "overlay", "loose"])?;
    let labels = ["com.docker.lb.hosts=loose.example", "com.docker.lb.port=8080"];
    let mut create = vec![
        "service",
        "create",
        "--detach",
        "--quiet",
        "--name",
        "loose",
        "--network",
        "loose",
    ];
    labels.iter().for_each(|label| create.extend(["--label", label]));
    create.extend([
        "--constraint",
        "node.role==manager",
        "--no-resolve-image",
        crate::image::APP,
    ]);
    let start = now();
    scene.docker(&create)?;
    scene.until(
        "a service on a network of nobody's stack, to its answer",
        start,
        "loose.example",
        |answer| answer.status == 200,
    )?;
    let start = now();
    scene.docker(&["service", "rm", "loose"])?;
    let mut tries = 0;
    wait_for("the network goes", LIMIT, || {
        tries += 1;
        match scene.docker(&["network", "rm", "loose"]) {
            Ok(_) => Look::Holds(()),
            Err(error) => Look::NotYet(error.to_string()),
        }
    })?;
    effect(
        &format!("docker service rm, to docker network rm at its {tries}. try"),
        start,
    );
    Ok(())
}

/// What a connection costs through a leg and without, seen from outside: the same requests, each on a new connection.
///
/// # Errors
/// If a request fails.
pub fn what_a_connection_costs(scene: &Scene) -> Result<()> {
    let file = scene.swarm().folder().join("shares.yml");
    let text = fs::read_to_string(crate::tidy::root().join("deploy/demo-shared.yml"))?;
    fs::write(
        &file,
        text.replace(
            "com.docker.lb.hosts:",
            "com.docker.lb.service_cluster: internal\n        com.docker.lb.hosts:",
        ),
    )?;
    scene.deploy_app_file("shares", &file, SHARES)?;
    let (over, shared) = (scene.entrances()[0], scene.entrances_at(INTERNAL_PORT)[0]);
    wait_for("the other cluster answers", LIMIT, || {
        match web::get(shared, SHARES, "/", LIMIT) {
            Ok(answer) if answer.status == 200 => Look::Holds(()),
            other => Look::NotYet(format!("{other:?}")),
        }
    })?;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..SAMPLES {
        for (times, (entrance, host)) in times.iter_mut().zip([(over, STAYS), (shared, SHARES)]) {
            let start = now();
            let answer = web::get(entrance, host, "/", LIMIT)?;
            ensure!(answer.status == 200, "{}", answer.summary());
            times.push(start.elapsed());
        }
    }
    let [legs, direct] = times.map(|mut times| {
        times.sort();
        times[SAMPLES / 2].as_secs_f64() * 1e3
    });
    say(format_args!(
        "legs    a request on a new connection, median of {SAMPLES}: {legs:.2} ms through a leg, {direct:.2} ms on a shared \
         network {SHARED}, so {:.2} ms for the leg",
        legs - direct
    ));
    Ok(())
}
