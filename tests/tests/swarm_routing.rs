//! A service of a real Swarm is answered by its domain name, and every change of it is followed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::clock::{Look, now, wait_for};
use e2e::load::Load;
use e2e::report::say;
use e2e::scene::{CONTROLLER, INTERNAL, INTERNAL_PORT, SHARED, Scene, effect};
use e2e::web::{self, Answer, Upgraded};
use e2e::{gate, image, swarm};

const HOST: &str = "demo.example";
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_service_is_answered_by_its_name_and_its_changes_are_followed() {
    if !gate::may_run("swarm_routing", swarm::obstacle()) {
        return;
    }
    let scene = Scene::set_up_two_clusters().unwrap();
    let told = |result: Result<()>| scene.explained(result).unwrap();
    told(every_proxy_reaches_tasks_on_other_nodes(&scene));
    told(explain_names_the_route_and_the_nearest_host(&scene));
    told(scaling_is_followed_without_a_failure(&scene));
    told(a_wrong_label_elsewhere_changes_nothing(&scene));
    told(another_service_cluster_is_another_world(&scene));
    told(an_image_update_is_followed_without_a_failure(&scene));
    told(a_changed_host_label_moves_the_route(&scene));
    told(a_removed_stack_is_gone_at_once_and_the_first_time(&scene));
    told(tidegate_itself_is_gone_with_its_stack(&scene));
}

fn every_proxy_reaches_tasks_on_other_nodes(scene: &Scene) -> Result<()> {
    let start = now();
    scene.deploy_app("demo", "deploy/demo-shared.yml", HOST)?;
    scene.until(
        "docker stack deploy of an app, to its answer by every proxy",
        start,
        HOST,
        |answer| answer.status == 200,
    )?;
    let tasks = every_task_answers(scene, 3)?;
    effect("the same, to answers of all 3 tasks by every proxy", start);
    let proxies: BTreeSet<String> = scene.proxies().iter().map(|node| node.name()).collect();
    for answer in scene.ask_all(HOST, "/some/path?q=1")? {
        let node = answer.says("node").unwrap_or_default();
        assert!(
            !proxies.contains(node),
            "{node} runs a proxy: nothing would be shown about networks"
        );
        assert_eq!(
            answer.says("request"),
            Some("GET /some/path?q=1 HTTP/1.1"),
            "{}",
            answer.body
        );
        assert_eq!(answer.says("header host"), Some(HOST));
        assert!(answer.says("header x-forwarded-for").is_some(), "{}", answer.body);
        assert!(answer.says("header x-request-id").is_some(), "{}", answer.body);
    }
    assert_eq!(tasks.len(), 3);
    Ok(())
}

fn explain_names_the_route_and_the_nearest_host(scene: &Scene) -> Result<()> {
    let explained = scene.tidegate(CONTROLLER, &["explain", "http://demo.example/some/path"])?;
    for word in ["demo_web", "demo.example", "com.docker.lb.hosts"] {
        assert!(explained.contains(word), "explain does not name {word}:\n{explained}");
    }
    // A finding is an exit code, so the client fails, and its message has what was printed.
    let unknown = match scene.tidegate(CONTROLLER, &["explain", "http://demmo.example/"]) {
        Ok(text) => text,
        Err(error) => error.to_string(),
    };
    assert!(unknown.contains(HOST), "the nearest host is not named:\n{unknown}");
    Ok(())
}

fn scaling_is_followed_without_a_failure(scene: &Scene) -> Result<()> {
    let load = Load::start(&scene.entrances(), HOST);
    let start = now();
    scene.docker(&["service", "scale", "--detach", "demo_web=6"])?;
    every_task_answers(scene, 6)?;
    effect("scale 3 to 6, to answers of all 6 tasks by every proxy", start);

    let before: BTreeSet<String> = scene.tasks_of("demo_web")?.into_iter().collect();
    let (start, started) = (now(), load.seconds());
    scene.docker(&["service", "scale", "--detach", "demo_web=2"])?;
    let (after, _) = wait_for("two tasks are to run", LIMIT, || match scene.tasks_of("demo_web") {
        Ok(tasks) if tasks.len() == 2 => Look::Holds(tasks),
        other => Look::NotYet(format!("{other:?}")),
    })?;
    // The others end 3 s and more after that: the load goes on until they have.
    scene.until_count("demo_web", 2)?;
    let account = load.finish();
    let gone = before.iter().filter(|task| !after.contains(task));
    let last = gone.filter_map(|task| account.last_seen(task)).fold(0.0, f64::max);
    say(format_args!(
        "effect  {:7.2} s  scale 6 to 2, to the last answer of a task that goes",
        last - started
    ));
    effect("scale 6 to 2, to the end of the last of them", start);
    say(format_args!("load    scaling: {account}"));
    assert_eq!(account.failed(), 0, "{account}");
    Ok(())
}

fn a_wrong_label_elsewhere_changes_nothing(scene: &Scene) -> Result<()> {
    let before = rules(scene)?;
    let sockets = scene
        .entrances()
        .into_iter()
        .map(|entrance| Upgraded::open(entrance, HOST));
    let mut sockets = sockets.collect::<Result<Vec<_>>>()?;
    let load = Load::start(&scene.entrances(), HOST);
    let start = now();
    let labels = [
        "--label",
        "com.docker.lb.hosts=not a host",
        "--label",
        "com.docker.lb.port=eighty",
    ];
    let create = ["service", "create", "--detach", "--name", "wrong", "--network", SHARED];
    scene.docker(
        &[
            &create[..],
            &labels,
            &["--constraint", "node.role==manager", image::APP],
        ]
        .concat(),
    )?;
    let (status, _) = wait_for("the wrong label is reported", LIMIT, || {
        match scene
            .tidegate(CONTROLLER, &["status"])
            .unwrap_or_else(|error| error.to_string())
        {
            text if text.contains("wrong") && text.contains("eighty") => Look::Holds(text),
            text => Look::NotYet(text),
        }
    })?;
    effect("a service with wrong labels, to its report by `tidegate status`", start);
    assert!(
        status.contains("com.docker.lb.port"),
        "the label is not named:\n{status}"
    );
    assert_eq!(rules(scene)?, before, "another service's routes changed");
    scene.docker(&["service", "rm", "wrong"])?;
    for socket in &mut sockets {
        socket
            .echo("still here")
            .context("an upgraded connection was closed by an unrelated change")?;
    }
    let account = load.finish();
    say(format_args!("load    wrong label elsewhere: {account}"));
    assert_eq!(account.failed(), 0, "{account}");
    Ok(())
}

/// The rules that a controller knows; endpoints and findings come and go.
fn rules(scene: &Scene) -> Result<Vec<String>> {
    let routes = scene.tidegate(CONTROLLER, &["routes"])?;
    Ok(routes
        .lines()
        .filter(|line| line.starts_with("rule "))
        .map(String::from)
        .collect())
}

fn another_service_cluster_is_another_world(scene: &Scene) -> Result<()> {
    let start = now();
    let label = |key: &str, value: &str| ["--label".to_string(), format!("com.docker.lb.{key}={value}")];
    let labels = [
        label("hosts", "inside.example"),
        label("port", "8080"),
        label("service_cluster", INTERNAL),
    ]
    .concat();
    let create = [
        "service",
        "create",
        "--detach",
        "--name",
        "inside",
        "--network",
        SHARED,
        "--endpoint-mode",
        "dnsrr",
    ];
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    scene.docker(
        &[
            &create[..],
            &labels,
            &["--constraint", "node.role==manager", image::APP],
        ]
        .concat(),
    )?;
    for entrance in scene.entrances_at(INTERNAL_PORT) {
        wait_for("the other cluster's proxies answer", LIMIT, || {
            match get(entrance, "inside.example") {
                Ok(answer) if answer.status == 200 => Look::Holds(()),
                other => Look::NotYet(format!("{other:?}")),
            }
        })?;
        assert_eq!(
            get(entrance, HOST)?.status,
            503,
            "a route of the default cluster leaks into {INTERNAL}"
        );
    }
    effect(
        "a service of a second service cluster, to its answer by all its proxies",
        start,
    );
    for entrance in scene.entrances() {
        assert_eq!(
            get(entrance, "inside.example")?.status,
            503,
            "a route of {INTERNAL} leaks into the default cluster"
        );
    }
    scene.docker(&["service", "rm", "inside"])?;
    Ok(())
}

fn get(entrance: SocketAddr, host: &str) -> Result<Answer> {
    web::get(entrance, host, "/", Duration::from_secs(5))
}

fn an_image_update_is_followed_without_a_failure(scene: &Scene) -> Result<()> {
    let load = Load::start(&scene.entrances(), HOST);
    let (start, started) = (now(), load.seconds());
    scene.docker(&[
        "service",
        "update",
        "--detach",
        "--no-resolve-image",
        "--image",
        image::APP_2,
        "demo_web",
    ])?;
    let seen = |account: &e2e::load::Account| account.seen.get("v2").map(|(first, _)| *first);
    let (first, _) = wait_for("the new version answers", LIMIT, || match seen(&load.account()) {
        Some(second) => Look::Holds(second),
        None => Look::NotYet("the old one alone".into()),
    })?;
    say(format_args!(
        "effect  {:7.2} s  image update, to the first answer of the new version",
        first - started
    ));
    wait_for("all tasks are new", LIMIT, || {
        let list = scene
            .docker(&["service", "ps", "--format", "{{.Image}} {{.CurrentState}}", "demo_web"])
            .unwrap_or_default();
        let running: Vec<&str> = list.lines().filter(|line| line.contains("Running")).collect();
        if running.len() == 2 && running.iter().all(|line| line.starts_with(image::APP_2)) {
            Look::Holds(())
        } else {
            Look::NotYet(list)
        }
    })?;
    scene.until_count("demo_web", 2)?;
    effect("image update (start-first), to the end of the last old task", start);
    let account = load.finish();
    let last = account.last_seen("v1").unwrap_or(started) - started;
    say(format_args!(
        "effect  {last:7.2} s  image update, to the last answer of the old version"
    ));
    say(format_args!("load    image update: {account}"));
    assert_eq!(account.failed(), 0, "{account}");
    Ok(())
}

fn a_changed_host_label_moves_the_route(scene: &Scene) -> Result<()> {
    let start = now();
    scene.set_label("demo_web", "com.docker.lb.hosts", "moved.example")?;
    scene.until(
        "a changed host label, to its answer by every proxy",
        start,
        "moved.example",
        |answer| answer.status == 200,
    )?;
    scene.until("the same, to 503 for the old host", start, HOST, |answer| {
        answer.status == 503
    })?;
    let start = now();
    scene.set_label("demo_web", "com.docker.lb.hosts", HOST)?;
    scene.until(
        "the label changed back, to its answer by every proxy",
        start,
        HOST,
        |answer| answer.status == 200,
    )?;
    Ok(())
}

fn a_removed_stack_is_gone_at_once_and_the_first_time(scene: &Scene) -> Result<()> {
    let start = now();
    scene.docker(&["stack", "rm", "demo"])?;
    scene.until(
        "docker stack rm of an app, to 503 by every proxy",
        start,
        HOST,
        |answer| answer.status == 503,
    )?;
    let left = scene.docker(&[
        "service",
        "ls",
        "--quiet",
        "--filter",
        "label=com.docker.stack.namespace=demo",
    ])?;
    assert_eq!(left, "", "docker stack rm has left services");
    Ok(())
}

fn tidegate_itself_is_gone_with_its_stack(scene: &Scene) -> Result<()> {
    let start = now();
    scene.docker(&["stack", "rm", "tidegate"])?;
    for kind in ["service", "secret", "config"] {
        let left = scene.docker(&[kind, "ls", "--format", "{{.Name}}"])?;
        assert!(
            !left.contains("tidegate"),
            "docker stack rm tidegate has left {kind} {left}"
        );
    }
    let gone = || match scene.docker(&["network", "ls", "--format", "{{.Name}}"]) {
        Ok(list) if !list.contains("tidegate") => Look::Holds(()),
        other => Look::NotYet(format!("{other:?}")),
    };
    wait_for("its network goes", LIMIT, gone)?;
    effect("docker stack rm of Tidegate, to nothing of it left", start);
    Ok(())
}

/// Waits until every proxy has given answers of exactly so many tasks in a row of requests, and gives their names.
fn every_task_answers(scene: &Scene, count: usize) -> Result<BTreeSet<String>> {
    let (tasks, _) = wait_for(&format!("all {count} tasks answer by every proxy"), LIMIT, || {
        let mut by_proxy = vec![BTreeSet::new(); scene.entrances().len()];
        for _ in 0..count * 8 {
            let answers = match scene.ask_all(HOST, "/") {
                Ok(answers) => answers,
                Err(error) => return Look::NotYet(format!("{error:#}")),
            };
            for (tasks, answer) in by_proxy.iter_mut().zip(answers) {
                tasks.extend(answer.says("task").map(String::from));
            }
        }
        match by_proxy.iter().find(|tasks| tasks.len() != count) {
            None => Look::Holds(by_proxy.swap_remove(0)),
            Some(tasks) => Look::NotYet(format!("a proxy reaches {tasks:?}")),
        }
    })?;
    Ok(tasks)
}
