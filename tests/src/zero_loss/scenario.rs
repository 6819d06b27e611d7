//! What is done to the application while requests come: each scenario is a service and a round that can be repeated.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::traffic::Target;
use super::{fault, ourselves, streams};
use crate::clock::{Look, now, wait_for};
use crate::freshness::admin::page;
use crate::freshness::metrics::add_samples;
use crate::image;
use crate::scene::{PROXY, Scene};

/// Its service.
pub(super) const SERVICE: &str = "zero_app";
const HOST: &str = "zero.example";
const LABELS: &str = r#"tidegate.hosts: zero.example, tidegate.port: "8080""#;
const STACK: &str = r#"version: "3.8"
services:
  app:
    image: app:1
    environment: {STOP: now, TASK: "{{.Task.Name}}"}
    networks: [apps]
    healthcheck: CHECK
    deploy:
      replicas: REPLICAS
      endpoint_mode: dnsrr
      labels: {LABELS}
      placement: {constraints: ["node.role==manager"]}
      update_config: {order: ORDER}
      rollback_config: {order: ORDER}
networks:
  apps: {external: true}
"#;
/// For one change to have its effect.
const LIMIT: Duration = Duration::from_secs(180);
/// For Tidegate to see what ails a task, by labels: three answers, or three probes in a row, on a busy machine.
const SEEN_WITHIN: Duration = Duration::from_secs(3);

/// One of [`SCENARIOS`].
#[derive(Debug)]
pub struct Scenario {
    /// As one writes it in a command.
    pub name: &'static str,
    /// What is promised to lose nothing.
    pub promise: &'static str,
    /// Whether requests that may not be sent twice may be lost: their task ends without a word.
    pub may_lose_posts: bool,
    /// Whether clients go to another proxy where a request was never sent, as they do behind a balancer.
    pub is_balanced: bool,
    has_health_check: bool,
    /// Labels beside those of every scenario, as YAML has them in braces.
    labels: &'static str,
    replicas: usize,
    order: &'static str,
    /// No request fails that begins later than this after a fault.
    pub seen_within: Option<Duration>,
    /// Does it once, until Swarm shows it done.
    pub round: fn(&Stage<'_>) -> Result<()>,
}

/// What most of them are.
const PLAIN: Scenario = Scenario {
    name: "",
    promise: "",
    may_lose_posts: false,
    is_balanced: false,
    has_health_check: false,
    labels: "",
    replicas: 3,
    order: "start-first",
    seen_within: None,
    round: |_| Ok(()),
};

/// Everything that Swarm does to a service on purpose, then what befalls it, then what we do to ourselves.
pub const SCENARIOS: [Scenario; 23] = [
    Scenario {
        name: "start-first",
        promise: "rolling updates, start-first, 3 replicas",
        round: |stage| stage.another_image(),
        ..PLAIN
    },
    Scenario {
        name: "stop-first",
        promise: "rolling updates, stop-first, 3 replicas",
        order: "stop-first",
        round: |stage| stage.another_image(),
        ..PLAIN
    },
    Scenario {
        name: "one-replica",
        promise: "rolling updates, stop-first, of the only replica: requests wait, and none fails",
        replicas: 1,
        order: "stop-first",
        round: |stage| stage.another_image(),
        ..PLAIN
    },
    Scenario {
        name: "scale",
        promise: "from 6 tasks to 2 and back to 6",
        replicas: 6,
        round: |stage| {
            stage.scale(2)?;
            stage.scale(6)
        },
        ..PLAIN
    },
    Scenario {
        name: "drain",
        promise: "a node is drained and comes back",
        replicas: 4,
        round: |stage| stage.drain_and_return(),
        ..PLAIN
    },
    Scenario {
        name: "force",
        promise: "docker service update --force",
        round: |stage| stage.update(&["update", "--force"]),
        ..PLAIN
    },
    Scenario {
        name: "rollback",
        promise: "an update and docker service rollback",
        round: |stage| {
            stage.another_image()?;
            stage.update(&["rollback"])
        },
        ..PLAIN
    },
    Scenario {
        name: "crash",
        promise: "a container is killed: GET fails nowhere",
        may_lose_posts: true,
        round: fault::crash,
        ..PLAIN
    },
    Scenario {
        name: "unhealthy",
        promise: "a task answers 503 to everything until its health check fails: GET fails nowhere",
        may_lose_posts: true,
        has_health_check: true,
        round: fault::unhealthy,
        ..PLAIN
    },
    Scenario {
        name: "probed",
        promise: "a task answers 503 to everything and only probes look, by label: GET fails nowhere",
        may_lose_posts: true,
        labels: "tidegate.probe_path: /, tidegate.probe_interval: 200ms",
        seen_within: Some(SEEN_WITHIN),
        round: fault::sick,
        ..PLAIN
    },
    Scenario {
        name: "outlier",
        promise: "a task answers 503 to everything and only its answers tell, by label: GET fails nowhere",
        may_lose_posts: true,
        labels: "tidegate.fail_on: \"503\", tidegate.max_fails: \"3\", tidegate.fail_timeout: 1m",
        seen_within: Some(SEEN_WITHIN),
        round: fault::sick,
        ..PLAIN
    },
    Scenario {
        name: "queued",
        promise: "rolling updates of an application whose tasks get few requests at once: the others wait, and none fails",
        // More clients than may be answered at once.
        replicas: 1,
        labels: "tidegate.requests_max: \"1\"",
        round: |stage| {
            let before = stage.parked()?;
            stage.another_image()?;
            let parked = stage.parked()? - before;
            ensure!(parked > 0.0, "no request waited, so nothing was limited");
            Ok(())
        },
        ..PLAIN
    },
    Scenario {
        name: "frozen",
        promise: "an application freezes for 8 s: requests may wait, and none fails",
        round: fault::frozen,
        ..PLAIN
    },
    Scenario {
        name: "dockerd-stopped",
        promise: "a node's dockerd stops without a drain: GET fails nowhere",
        may_lose_posts: true,
        round: fault::dockerd_stopped,
        ..PLAIN
    },
    Scenario {
        name: "dockerd-killed",
        promise: "a node's dockerd is killed: GET fails nowhere",
        may_lose_posts: true,
        round: fault::dockerd_killed,
        ..PLAIN
    },
    Scenario {
        name: "power-off",
        promise: "a node loses power: GET fails nowhere",
        may_lose_posts: true,
        round: fault::power_off,
        ..PLAIN
    },
    Scenario {
        name: "link-cut",
        promise: "a node loses its link: GET fails nowhere",
        may_lose_posts: true,
        round: fault::link_cut,
        ..PLAIN
    },
    Scenario {
        name: "leader-killed",
        promise: "the managers' leader is killed: GET fails nowhere",
        may_lose_posts: true,
        round: fault::leader_killed,
        ..PLAIN
    },
    Scenario {
        name: "quorum-lost",
        promise: "two of three managers are killed, for 60 s: GET fails nowhere",
        may_lose_posts: true,
        round: fault::quorum_lost,
        ..PLAIN
    },
    Scenario {
        name: "controllers-gone",
        promise: "no controller runs, and the application is updated stop-first and start-first",
        round: fault::controllers_gone,
        ..PLAIN
    },
    Scenario {
        name: "reused-addresses",
        promise: "no controller runs, the leader changes, and another service gets the tasks' addresses: nobody else answers",
        may_lose_posts: true,
        round: ourselves::addresses_are_reused,
        ..PLAIN
    },
    Scenario {
        name: "streams",
        promise: "1000 WebSockets and 200 streams through 100 route changes, 20 updates of another service and a controller restart",
        round: streams::outlive_everything_else,
        ..PLAIN
    },
    Scenario {
        name: "proxies-updated",
        promise: "the proxies are updated one by one, and clients go to another one where a request was never sent",
        is_balanced: true,
        round: ourselves::proxies_are_updated,
        ..PLAIN
    },
];

/// The application of a scenario, which exits at once on SIGTERM.
#[derive(Debug)]
pub struct Stage<'a> {
    scene: &'a Scene,
    replicas: usize,
    struck: Cell<Option<Instant>>,
}

impl<'a> Stage<'a> {
    /// Deploys the stack and waits for its answer.
    pub(super) fn set(scene: &'a Scene, scenario: &Scenario) -> Result<Stage<'a>> {
        let file = scene.swarm().folder().join("zero.yml");
        let check = match scenario.has_health_check {
            true => r#"{test: [CMD, /app, check], interval: 1s, timeout: 1s, retries: 2}"#,
            false => "{disable: true}",
        };
        let labels = format!("{LABELS}, {}", scenario.labels);
        let stack = STACK
            .replace("LABELS", &labels)
            .replace("REPLICAS", &scenario.replicas.to_string())
            .replace("ORDER", scenario.order)
            .replace("CHECK", check);
        fs::write(&file, stack)?;
        scene.deploy("zero", &[file], &[])?;
        let stage = Stage {
            scene,
            replicas: scenario.replicas,
            struck: Cell::new(None),
        };
        stage.until_tasks(stage.replicas, &[])?;
        scene.until("the application is there", now(), HOST, |answer| answer.status == 200)?;
        Ok(stage)
    }

    /// What is asked, and who is to answer.
    pub(super) fn target(&self, scenario: &Scenario) -> Target {
        Target {
            host: HOST,
            tasks: "zero_app.",
            is_balanced: scenario.is_balanced,
        }
    }

    /// The host that it is asked for.
    pub(super) fn host(&self) -> &'static str {
        HOST
    }

    pub(super) fn scene(&self) -> &'a Scene {
        self.scene
    }

    /// A fault begins now.
    pub(super) fn strikes(&self) {
        self.struck.set(Some(now()));
    }

    /// When the last fault began.
    pub(super) fn struck(&self) -> Option<Instant> {
        self.struck.get()
    }

    /// Waits until as many tasks run as should, none of these among them.
    pub(super) fn until_replaced(&self, lost: &[String]) -> Result<()> {
        self.until_tasks(self.replicas, lost)
    }

    pub(super) fn clear(&self) -> Result<()> {
        self.scene.docker(&["stack", "rm", "zero"])?;
        self.scene.until_count(SERVICE, 0)
    }

    /// Waits until only those containers run that should.
    pub(super) fn until_at_rest(&self) -> Result<()> {
        self.scene.until_count(SERVICE, self.replicas)
    }

    /// Requests that had to wait in the proxies so far.
    fn parked(&self) -> Result<f64> {
        let mut samples = BTreeMap::new();
        for node in self.scene.proxies() {
            for container in node.containers_of(PROXY)? {
                add_samples(&page(node, &container, "/metrics")?, &mut samples);
            }
        }
        let parked = samples
            .iter()
            .filter(|(name, _)| name.starts_with("tidegate_parked_total"));
        Ok(parked.map(|(_, value)| value).sum())
    }

    /// Replaces every task of a service, and waits until only new ones run.
    pub(super) fn replace(&self, service: &str) -> Result<()> {
        let scene = self.scene;
        let old = scene.tasks_of(service)?;
        scene.docker(&["service", "update", "--detach", "--force", service])?;
        wait_for(&format!("every task of {service} is new"), LIMIT, || {
            let is_new = |tasks: &[String]| tasks.len() == old.len() && !tasks.iter().any(|task| old.contains(task));
            match (scene.tasks_of(service), scene.count(service)) {
                (Ok(tasks), Ok(count)) if is_new(&tasks) && count == old.len() => Look::Holds(()),
                other => Look::NotYet(format!("{other:?}")),
            }
        })?;
        Ok(())
    }

    /// To the image that it does not have.
    fn another_image(&self) -> Result<()> {
        let present = self.scene.docker(&[
            "service",
            "inspect",
            "--format",
            "{{.Spec.TaskTemplate.ContainerSpec.Image}}",
            SERVICE,
        ])?;
        let other = if present == image::APP {
            image::APP_2
        } else {
            image::APP
        };
        self.update(&["update", "--no-resolve-image", "--image", other])
    }

    /// A command of `docker service` that replaces every task, until all are new.
    pub(super) fn update(&self, arguments: &[&str]) -> Result<()> {
        let old = self.running()?;
        self.scene
            .docker(&[&["service"], arguments, &["--detach", SERVICE]].concat())?;
        self.until_tasks(self.replicas, &old)
    }

    pub(super) fn scale(&self, replicas: usize) -> Result<()> {
        self.scene
            .docker(&["service", "scale", "--detach", &format!("{SERVICE}={replicas}")])?;
        self.until_tasks(replicas, &[])
    }

    /// The last manager: the client talks to the first.
    fn drain_and_return(&self) -> Result<()> {
        let name = self.scene.managers().last().map(|node| node.name()).unwrap_or_default();
        let set = |availability| {
            self.scene
                .docker(&["node", "update", "--availability", availability, &name])
        };
        set("drain")?;
        let elsewhere = || match self.scene.managers().last().map(|node| node.containers_of(SERVICE)) {
            Some(Ok(containers)) if containers.is_empty() => Look::Holds(()),
            other => Look::NotYet(format!("{other:?}")),
        };
        wait_for("the node is empty", LIMIT, elsewhere)?;
        self.until_tasks(self.replicas, &[])?;
        set("active")?;
        // A node that is back gets nothing by itself: this spreads the tasks anew.
        self.update(&["update", "--force"])
    }

    /// Tasks that run and are to run.
    fn running(&self) -> Result<Vec<String>> {
        self.list(&[])
    }

    /// Those of one node.
    pub(super) fn running_on(&self, node: &str) -> Result<Vec<String>> {
        self.list(&["--filter", &format!("node={node}")])
    }

    fn list(&self, more: &[&str]) -> Result<Vec<String>> {
        let format = "{{.ID}} {{.CurrentState}}";
        let filter = ["--filter", "desired-state=running", "--format", format];
        let list = self
            .scene
            .docker(&[&["service", "ps", "--no-trunc"][..], &filter, more, &[SERVICE]].concat())?;
        let running = list.lines().filter_map(|line| line.split_once(" Running"));
        Ok(running.map(|(id, _)| id.to_string()).collect())
    }

    fn until_tasks(&self, count: usize, none_of: &[String]) -> Result<()> {
        wait_for(&format!("{count} tasks run"), LIMIT, || match self.running() {
            Ok(tasks) if tasks.len() == count && !tasks.iter().any(|task| none_of.contains(task)) => Look::Holds(()),
            other => Look::NotYet(format!("{other:?}")),
        })?;
        Ok(())
    }
}
