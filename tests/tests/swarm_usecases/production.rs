//! A production set-up: proxies on nodes of their own, by the settings, which live proxies follow.

use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::clock::{Look, now, wait_for};
use e2e::load::Load;
use e2e::report::say;
use e2e::scene::{CONTROLLER, PROXY, Scene, effect};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);
const SECOND: u64 = 1_000_000_000;

/// The proxies' service as Docker has it.
fn spec(scene: &Scene) -> Result<Value> {
    let json = scene.docker(&["service", "inspect", "--format", "{{json .Spec}}", PROXY])?;
    serde_json::from_str(&json).context("no JSON")
}

/// The fields that the settings are about.
fn settings(spec: &Value) -> Vec<String> {
    [
        "/Mode/Replicated/Replicas",
        "/TaskTemplate/Placement/Constraints",
        "/TaskTemplate/Placement/Preferences",
        "/TaskTemplate/ContainerSpec/StopGracePeriod",
        "/UpdateConfig/Parallelism",
        "/UpdateConfig/Delay",
        "/UpdateConfig/FailureAction",
    ]
    .map(|path| format!("{path} {}", spec.pointer(path).unwrap_or(&Value::Null)))
    .into()
}

fn expected(constraints: &str, spread: &str, grace_s: u64, parallelism: u64, delay_s: u64) -> Vec<String> {
    vec![
        "/Mode/Replicated/Replicas 2".into(),
        format!("/TaskTemplate/Placement/Constraints {constraints}"),
        format!("/TaskTemplate/Placement/Preferences [{{\"Spread\":{{\"SpreadDescriptor\":\"{spread}\"}}}}]"),
        format!("/TaskTemplate/ContainerSpec/StopGracePeriod {}", grace_s * SECOND),
        format!("/UpdateConfig/Parallelism {parallelism}"),
        format!("/UpdateConfig/Delay {}", delay_s * SECOND),
        "/UpdateConfig/FailureAction \"rollback\"".into(),
    ]
}

pub(crate) fn proxies_are_where_and_as_the_settings_say(scene: &Scene) -> Result<()> {
    let on_edge = r#"["node.labels.nodetype==loadbalancer"]"#;
    assert_eq!(settings(&spec(scene)?), expected(on_edge, "node.labels.zone", 60, 1, 1));
    for node in scene.proxies() {
        assert_eq!(node.containers_of(PROXY)?.len(), 1, "{}", node.name());
    }
    Ok(())
}

/// Interlock's proxies have to be changed by hand beside its settings, and each change replaces them.
pub(crate) fn live_proxies_follow_the_settings(scene: &Scene) -> Result<()> {
    let tasks = scene.tasks_of(PROXY)?;
    let controllers = scene.tasks_of(CONTROLLER)?;
    let load = Load::start(&scene.entrances(), "new.example.org");
    let start = now();
    scene.deploy_for_use_cases(&[
        (
            "PROXY_CONSTRAINTS",
            "node.labels.nodetype==loadbalancer,node.platform.os==linux",
        ),
        ("PROXY_SPREAD", "node.labels.rack"),
        ("PROXY_UPDATE_PARALLELISM", "2"),
        ("PROXY_UPDATE_DELAY_MS", "7000"),
        ("PROXY_DRAIN_MS", "40000"),
    ])?;
    let constraints = r#"["node.labels.nodetype==loadbalancer","node.platform.os==linux"]"#;
    let wanted = expected(constraints, "node.labels.rack", 60, 2, 7);
    wait_for(
        "the proxies' service is as the new settings say",
        LIMIT,
        || match spec(scene).map(|spec| settings(&spec)) {
            Ok(settings) if settings == wanted => Look::Holds(()),
            other => Look::NotYet(format!("{other:?}")),
        },
    )?;
    effect(
        "docker stack deploy of changed settings, to the proxies' service changed",
        start,
    );
    wait_for("every controller is a new one", LIMIT, || {
        match scene.tasks_of(CONTROLLER) {
            Ok(tasks) if tasks.len() == 2 && tasks.iter().all(|task| !controllers.contains(task)) => {
                match scene.tidegate(CONTROLLER, &["healthcheck"]) {
                    Ok(_) => Look::Holds(()),
                    Err(error) => Look::NotYet(error.to_string()),
                }
            }
            other => Look::NotYet(format!("{other:?}")),
        }
    })?;
    effect("the same, to the last controller replaced", start);
    let account = load.finish();
    say(format_args!(
        "load    controllers replaced, settings of proxies changed: {account}"
    ));
    assert_eq!(
        settings(&spec(scene)?),
        wanted,
        "an old controller wrote its own settings again"
    );
    assert_eq!(
        scene.tasks_of(PROXY)?,
        tasks,
        "a proxy was replaced for where it may run and how it is updated"
    );
    assert_eq!(account.failed(), 0, "{account}");
    Ok(())
}

/// Every task that the proxies' service has had, those that are over included.
fn history(scene: &Scene) -> Result<usize> {
    let list = scene.docker(&["service", "ps", "--quiet", PROXY])?;
    Ok(list.lines().count())
}

/// What tasks are made of cannot change in one that runs.
pub(crate) fn a_shorter_grace_replaces_proxies_one_by_one(scene: &Scene) -> Result<()> {
    let (old, before) = (scene.tasks_of(PROXY)?, history(scene)?);
    let load = Load::balanced(&scene.entrances(), "new.example.org");
    let start = now();
    scene.deploy_for_use_cases(&[("PROXY_STOP_GRACE_MS", "20000"), ("PROXY_DRAIN_MS", "10000")])?;
    let wanted = expected(
        r#"["node.labels.nodetype==loadbalancer"]"#,
        "node.labels.zone",
        20,
        1,
        1,
    );
    wait_for("both proxies are new", LIMIT, || {
        let seen = (spec(scene).map(|spec| settings(&spec)), scene.tasks_of(PROXY));
        match &seen {
            (Ok(settings), Ok(tasks))
                if *settings == wanted && tasks.len() == 2 && !tasks.iter().any(|task| old.contains(task)) =>
            {
                Look::Holds(())
            }
            _ => Look::NotYet(format!("{seen:?}")),
        }
    })?;
    scene.until(
        "a shorter grace period, to answers of two new proxies",
        start,
        "new.example.org",
        |answer| answer.status == 200,
    )?;
    let account = load.finish();
    say(format_args!(
        "load    proxies replaced, as behind a balancer: {account}"
    ));
    assert_eq!(account.failed(), 0, "{account}");
    assert_eq!(history(scene)?, before + 2, "a proxy was replaced more than once");
    Ok(())
}
