//! What is done to the application while requests come: each scenario is a service and a round that can be repeated.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::fault;
use crate::clock::{Look, now, wait_for};
use crate::image;
use crate::scene::{SHARED, Scene};

/// Its service.
pub(super) const SERVICE: &str = "zero";
const HOST: &str = "zero.example";
/// For one change to have its effect.
const LIMIT: Duration = Duration::from_secs(180);

/// One of [`SCENARIOS`].
#[derive(Debug)]
pub struct Scenario {
    /// As one writes it in a command.
    pub name: &'static str,
    /// What is promised to lose nothing.
    pub promise: &'static str,
    /// Whether requests that may not be sent twice may be lost: their task ends without a word.
    pub may_lose_posts: bool,
    replicas: usize,
    order: &'static str,
    /// Does it once, until Swarm shows it done.
    pub round: fn(&Stage<'_>) -> Result<()>,
}

/// Everything that Swarm does to a service on purpose, then what befalls it.
pub const SCENARIOS: [Scenario; 16] = [
    Scenario {
        name: "start-first",
        promise: "rolling updates, start-first, 3 replicas",
        may_lose_posts: false,
        replicas: 3,
        order: "start-first",
        round: |stage| stage.another_image(),
    },
    Scenario {
        name: "stop-first",
        promise: "rolling updates, stop-first, 3 replicas",
        may_lose_posts: false,
        replicas: 3,
        order: "stop-first",
        round: |stage| stage.another_image(),
    },
    Scenario {
        name: "one-replica",
        promise: "rolling updates, stop-first, of the only replica: requests wait, and none fails",
        may_lose_posts: false,
        replicas: 1,
        order: "stop-first",
        round: |stage| stage.another_image(),
    },
    Scenario {
        name: "scale",
        promise: "from 6 tasks to 2 and back to 6",
        may_lose_posts: false,
        replicas: 6,
        order: "start-first",
        round: |stage| {
            stage.scale(2)?;
            stage.scale(6)
        },
    },
    Scenario {
        name: "drain",
        promise: "a node is drained and comes back",
        may_lose_posts: false,
        replicas: 4,
        order: "start-first",
        round: |stage| stage.drain_and_return(),
    },
    Scenario {
        name: "force",
        promise: "docker service update --force",
        may_lose_posts: false,
        replicas: 3,
        order: "start-first",
        round: |stage| stage.update(&["update", "--force"]),
    },
    Scenario {
        name: "rollback",
        promise: "an update and docker service rollback",
        may_lose_posts: false,
        replicas: 3,
        order: "start-first",
        round: |stage| {
            stage.another_image()?;
            stage.update(&["rollback"])
        },
    },
    Scenario {
        name: "crash",
        promise: "a container is killed: GET fails nowhere",
        may_lose_posts: true,
        replicas: 3,
        order: "start-first",
        round: fault::crash,
    },
    Scenario {
        name: "frozen",
        promise: "an application freezes for 8 s: requests may wait, and none fails",
        may_lose_posts: false,
        replicas: 3,
        order: "start-first",
        round: fault::frozen,
    },
    Scenario {
        name: "dockerd-stopped",
        promise: "a node's dockerd stops without a drain: GET fails nowhere",
        may_lose_posts: true,
        replicas: 3,
        order: "start-first",
        round: fault::dockerd_stopped,
    },
    Scenario {
        name: "dockerd-killed",
        promise: "a node's dockerd is killed: GET fails nowhere",
        may_lose_posts: true,
        replicas: 3,
        order: "start-first",
        round: fault::dockerd_killed,
    },
    Scenario {
        name: "power-off",
        promise: "a node loses power: GET fails nowhere",
        may_lose_posts: true,
        replicas: 3,
        order: "start-first",
        round: fault::power_off,
    },
    Scenario {
        name: "link-cut",
        promise: "a node loses its link: GET fails nowhere",
        may_lose_posts: true,
        replicas: 3,
        order: "start-first",
        round: fault::link_cut,
    },
    Scenario {
        name: "leader-killed",
        promise: "the managers' leader is killed: GET fails nowhere",
        may_lose_posts: true,
        replicas: 3,
        order: "start-first",
        round: fault::leader_killed,
    },
    Scenario {
        name: "quorum-lost",
        promise: "two of three managers are killed, for 60 s: GET fails nowhere",
        may_lose_posts: true,
        replicas: 3,
        order: "start-first",
        round: fault::quorum_lost,
    },
    Scenario {
        name: "controllers-gone",
        promise: "no controller runs, and the application is updated stop-first and start-first",
        may_lose_posts: false,
        replicas: 3,
        order: "start-first",
        round: fault::controllers_gone,
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
    /// Creates the service and waits for its answer.
    pub(super) fn set(scene: &'a Scene, scenario: &Scenario) -> Result<Stage<'a>> {
        let replicas = scenario.replicas.to_string();
        let create = [
            "service",
            "create",
            "--detach",
            "--name",
            SERVICE,
            "--replicas",
            &replicas,
        ];
        let place = [
            "--network",
            SHARED,
            "--endpoint-mode",
            "dnsrr",
            "--constraint",
            "node.role==manager",
        ];
        let order = [
            "--update-order",
            scenario.order,
            "--rollback-order",
            scenario.order,
            "--env",
            "STOP=now",
        ];
        let host = format!("tidegate.hosts={HOST}");
        let labels = ["--label", &host, "--label", "tidegate.port=8080"];
        scene.docker(&[&create[..], &place, &order, &labels, &[image::APP]].concat())?;
        let stage = Stage {
            scene,
            replicas: scenario.replicas,
            struck: Cell::new(None),
        };
        stage.until_tasks(stage.replicas, &[])?;
        scene.until("the application is there", now(), HOST, |answer| answer.status == 200)?;
        Ok(stage)
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
        self.scene.docker(&["service", "rm", SERVICE])?;
        let gone = || self.containers(0);
        wait_for("the application is gone", LIMIT, gone).map(drop)
    }

    /// Waits until only those containers run that should.
    pub(super) fn until_at_rest(&self) -> Result<()> {
        wait_for("old tasks have ended", LIMIT, || self.containers(self.replicas)).map(drop)
    }

    fn containers(&self, count: usize) -> Look<()> {
        let lists = self.scene.managers().iter().map(|node| node.containers_of(SERVICE));
        match lists.collect::<Result<Vec<_>>>() {
            Ok(lists) if lists.concat().len() == count => Look::Holds(()),
            other => Look::NotYet(format!("{other:?}")),
        }
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

    fn scale(&self, replicas: usize) -> Result<()> {
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
