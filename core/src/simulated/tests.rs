//! The timelines of facts §1 and §2 within their ranges, and random commands against the invariants.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::machine::{Input, step};
use crate::reconcile::desired::UpdatePolicy;
use crate::swarm::model::{ApiError, NodeState, PublishMode, PublishedPort, Task};
use crate::time::Duration;

mod outages;
mod recordings;
mod updates;

/// A shell whose apps exit `drain_ms` after SIGTERM.
struct Shell {
    swarm: Swarm,
    now: Instant,
    drain_ms: u64,
    exits: BTreeMap<(Instant, TaskId), i32>,
    running: BTreeSet<TaskId>,
    log: Vec<(u64, String)>,
}

impl Shell {
    fn new(seed: u64) -> Self {
        let mut shell = Shell::empty(seed, Delays::default());
        for (name, manager) in [("m1", true), ("w1", false), ("w2", false)] {
            shell.swarm.add_node(name, None, manager, shell.now);
        }
        shell.swarm.create_network("apps", false, shell.now).unwrap();
        shell
    }

    /// Without a node.
    fn empty(seed: u64, delays: Delays) -> Self {
        Shell {
            swarm: Swarm::new(delays, Rng::new(seed)),
            now: Instant::START,
            drain_ms: 1500,
            exits: BTreeMap::new(),
            running: BTreeSet::new(),
            log: Vec::new(),
        }
    }

    fn perform(&mut self, action: Action) {
        let ms = u64::try_from(self.now.since_start().as_millis()).unwrap();
        let line = match action {
            Action::Start(start) => {
                self.running.insert(start.task.clone());
                let crash = start.shape.env.iter().find_map(|text| text.strip_prefix("CRASH_MS="));
                if let Some(ms) = crash {
                    let at = self.now + Duration::from_millis(ms.parse().unwrap());
                    self.exits.insert((at, start.task.clone()), 1);
                }
                format!("start {}", start.task)
            }
            Action::Signal(task) => {
                let at = self.now + Duration::from_millis(self.drain_ms);
                self.exits.insert((at, task.clone()), 0);
                format!("signal {task}")
            }
            Action::Kill(task) => {
                self.exits.insert((self.now, task.clone()), 137);
                format!("kill {task}")
            }
            Action::BlackHole(task) => format!("black hole {task}"),
            Action::Emit(event, attributes) => {
                format!("event {:?} {:?} {} {attributes}", event.kind, event.action, event.id)
            }
            Action::Unlink(node) => format!("unlink {node}"),
            Action::Rejoin(node) => format!("rejoin {node}"),
        };
        self.log.push((ms, line));
    }

    fn input(&mut self, input: Input<Fact>) {
        let mut actions = Vec::new();
        step(&mut self.swarm, input, self.now, |action| actions.push(action));
        for action in actions {
            self.perform(action);
        }
    }

    /// A command, and everything that follows from it at once.
    fn command<T>(&mut self, run: impl FnOnce(&mut Swarm, Instant) -> T) -> T {
        let answer = run(&mut self.swarm, self.now);
        while let Some(action) = self.swarm.poll_action() {
            self.perform(action);
        }
        self.swarm.check_invariants();
        answer
    }

    fn run_for(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        loop {
            let timer = self.swarm.poll_timeout().map(|deadline| deadline.at);
            let exit = self.exits.keys().next().map(|(at, _)| *at);
            let next = [timer, exit].into_iter().flatten().min().filter(|at| *at <= end);
            let Some(next) = next else { break };
            self.now = next.max(self.now);
            if exit.is_some_and(|exit| exit <= self.now) {
                let ((_, task), code) = self.exits.pop_first().unwrap();
                if self.running.remove(&task) {
                    self.log.push((self.ms(), format!("exit {task}")));
                    self.input(Input::Fact(Fact::Exited { task, code }));
                }
            } else {
                self.input(Input::Timeout);
            }
        }
        self.now = end;
    }

    /// Runs until `done`, a millisecond at a time; the milliseconds it took.
    fn until(&mut self, mut done: impl FnMut(&Swarm) -> bool) -> u64 {
        for ms in 0..60_000 {
            if done(&self.swarm) {
                return ms;
            }
            self.run_for(1);
        }
        panic!("does not happen within a minute; log: {:?}", self.log);
    }

    fn service(&mut self, name: &str, replicas: u64, start_first: bool) -> ServiceId {
        let shape = shape(name, replicas, start_first);
        let id = self.command(|swarm, now| swarm.create_service(shape, now)).unwrap();
        self.until(|swarm| serving(swarm, &id).len() as u64 == replicas);
        self.run_for(2000);
        id
    }

    /// When the log has `line` first, in milliseconds.
    fn when(&self, line: &str) -> u64 {
        let found = self.log.iter().find(|(_, text)| text == line);
        found.unwrap_or_else(|| panic!("no {line:?} in {:?}", self.log)).0
    }

    fn ms(&self) -> u64 {
        u64::try_from(self.now.since_start().as_millis()).unwrap()
    }
}

fn shape(name: &str, replicas: u64, start_first: bool) -> ServiceShape {
    ServiceShape {
        name: name.to_string(),
        image: format!("{name}:1"),
        replicas: Some(replicas),
        networks: ["apps".to_string()].into(),
        update: UpdatePolicy {
            start_first,
            failure_action: "pause".to_string(),
            ..UpdatePolicy::default()
        },
        ..ServiceShape::default()
    }
}

fn tasks(swarm: &Swarm, service: &ServiceId) -> Vec<Task> {
    swarm.tasks(core::slice::from_ref(service)).unwrap_or_default()
}

fn serving(swarm: &Swarm, service: &ServiceId) -> Vec<Task> {
    tasks(swarm, service).into_iter().filter(Task::is_serving).collect()
}

fn leaving(swarm: &Swarm, service: &ServiceId) -> Option<Task> {
    tasks(swarm, service).into_iter().find(Task::is_leaving)
}

fn new_image(shell: &mut Shell, service: &ServiceId) {
    let edit = |shape: &mut ServiceShape| shape.image.push('0');
    shell
        .command(|swarm, now| swarm.edit_service(service, now, edit))
        .unwrap();
}

#[test]
fn a_new_task_listens_after_half_a_second_and_is_then_said_to_run() {
    for seed in 0..20 {
        let mut shell = Shell::new(seed);
        let first = shell.service("shop", 1, false);
        // The second task on the same node: no first-of-network delay.
        shell.command(|swarm, now| swarm.scale(&first, 6, now)).unwrap();
        let begin = shell.ms();
        shell.until(|swarm| serving(swarm, &first).len() == 6);
        let starts: Vec<u64> = shell
            .log
            .iter()
            .filter(|(at, line)| *at > begin && line.starts_with("start"))
            .map(|(at, _)| at - begin)
            .collect();
        assert!(starts.iter().min().unwrap() >= &500, "{starts:?}");
        assert!(starts.iter().min().unwrap() <= &850, "{starts:?}");
        assert!(starts.iter().max().unwrap() <= &1850, "{starts:?}");
    }
}

#[test]
fn without_an_overlay_sigterm_comes_after_one_second() {
    let mut shell = Shell::new(1);
    let mut shape = shape("bare", 1, false);
    shape.networks.clear();
    let bare = shell.command(|swarm, now| swarm.create_service(shape, now)).unwrap();
    shell.until(|swarm| serving(swarm, &bare).len() == 1);
    let task = serving(&shell.swarm, &bare)[0].id.clone();
    let begin = shell.ms();
    shell.command(|swarm, now| swarm.remove_service(&bare, now)).unwrap();
    shell.run_for(4000);
    let signal = shell.when(&format!("signal {task}")) - begin;
    assert!((1103..=1185).contains(&signal), "SIGTERM after {signal} ms");
    assert_eq!(shell.swarm.task(&task), None, "tasks of a removed service vanish");
}

#[test]
fn an_app_that_ignores_sigterm_is_killed_after_its_grace_period() {
    let mut shell = Shell::new(1);
    shell.drain_ms = 1_000_000;
    let shop = shell.service("shop", 1, false);
    let task = serving(&shell.swarm, &shop)[0].id.clone();
    shell.command(|swarm, now| swarm.scale(&shop, 0, now)).unwrap();
    shell.run_for(20_000);
    let grace = shell.when(&format!("kill {task}")) - shell.when(&format!("signal {task}"));
    assert_eq!(grace, 10_000);
    assert_eq!(tasks(&shell.swarm, &shop), [], "scaled down tasks are removed");
}

#[test]
fn with_a_health_check_a_task_runs_and_is_in_dns_once_it_is_healthy() {
    let mut shell = Shell::new(1);
    let mut shape = shape("shop", 1, false);
    shape.health_command = vec!["CMD".to_string(), "true".to_string()];
    let shop = shell.command(|swarm, now| swarm.create_service(shape, now)).unwrap();
    shell.until(|swarm| tasks(swarm, &shop).iter().any(|task| task.state == TaskState::Starting));
    let task = tasks(&shell.swarm, &shop)[0].id.clone();
    shell.until(|swarm| !swarm.dns("shop", None).is_empty());
    assert_eq!(serving(&shell.swarm, &shop).len(), 1);
    let healthy = shell.ms() - shell.when(&format!("start {task}"));
    assert!((1086..=1991).contains(&healthy), "healthy after {healthy} ms");

    shell.command(|swarm, now| swarm.scale(&shop, 2, now)).unwrap();
    let is_new = |new: &Task| new.id != task && new.state == TaskState::Starting;
    shell.until(|swarm| tasks(swarm, &shop).iter().any(is_new));
    let second = tasks(&shell.swarm, &shop).into_iter().find(is_new).unwrap().id;
    let health = |healthy| {
        Input::Fact(Fact::Health {
            task: second.clone(),
            healthy,
        })
    };
    shell.input(health(false));
    shell.run_for(10_000);
    assert_eq!(serving(&shell.swarm, &shop).len(), 1, "not before it is healthy");
    shell.input(health(true));
    shell.run_for(1_000);
    assert_eq!(serving(&shell.swarm, &shop).len(), 2);
}

#[test]
fn a_scale_down_desires_removal() {
    let mut shell = Shell::new(1);
    let shop = shell.service("shop", 3, false);
    shell.command(|swarm, now| swarm.scale(&shop, 2, now)).unwrap();
    shell.until(|swarm| leaving(swarm, &shop).is_some());
    let old = leaving(&shell.swarm, &shop).unwrap();
    assert_eq!((old.desired, old.slot), (DesiredState::Remove, Some(3)));
}

#[test]
fn a_crash_is_reported_late_and_replaced_after_the_restart_delay() {
    let mut shell = Shell::new(3);
    let shop = shell.service("shop", 2, false);
    let old = serving(&shell.swarm, &shop)[0].clone();
    shell.running.remove(&old.id);
    let begin = shell.ms();
    shell.input(Input::Fact(Fact::Exited {
        task: old.id.clone(),
        code: 139,
    }));
    let reported = shell.until(|swarm| serving(swarm, &shop).len() == 1);
    assert!((180..=430).contains(&reported), "reported after {reported} ms");
    let dead = shell.swarm.task(&old.id).unwrap();
    assert_eq!(
        (dead.state, dead.error.as_str()),
        (TaskState::Failed, "task: non-zero exit (139)")
    );
    shell.until(|swarm| serving(swarm, &shop).len() == 2);
    let back = shell.ms() - begin;
    assert!((5500..7500).contains(&back), "back after {back} ms");
}

#[test]
fn a_node_without_power_is_noticed_after_fifteen_seconds_and_its_tasks_stay_running_in_name() {
    let mut shell = Shell::new(4);
    let shop = shell.service("shop", 3, false);
    let lost = serving(&shell.swarm, &shop)[0].clone();
    let node = lost.node.clone().unwrap();
    shell.command(|swarm, now| swarm.lose_node(&node, Loss::Power, now));
    shell.run_for(14_000);
    assert_eq!(serving(&shell.swarm, &shop).len(), 3, "nobody tells");
    shell.run_for(1600);
    let lost = shell.swarm.task(&lost.id).unwrap().clone();
    assert_eq!((lost.state, lost.desired), (TaskState::Running, DesiredState::Shutdown));
    shell.run_for(7000);
    assert_eq!(serving(&shell.swarm, &shop).len(), 3, "replaced elsewhere");
    shell.command(|swarm, now| swarm.return_node(&node, now));
    shell.run_for(3000);
    assert!(shell.swarm.task(&lost.id).unwrap().is_over());
}

#[test]
fn a_drained_node_is_left_by_all() {
    let mut shell = Shell::new(5);
    let shop = shell.service("shop", 3, false);
    let node = serving(&shell.swarm, &shop)[0].node.clone().unwrap();
    shell.command(|swarm, now| swarm.drain_node(&node, now)).unwrap();
    shell.run_for(10_000);
    let serving = serving(&shell.swarm, &shop);
    assert_eq!(serving.len(), 3);
    assert!(serving.iter().all(|task| task.node.as_ref() != Some(&node)));
}

#[test]
fn after_an_election_nodes_are_unknown_and_addresses_start_from_the_lowest() {
    let mut shell = Shell::new(6);
    let shop = shell.service("shop", 1, false);
    let old = serving(&shell.swarm, &shop)[0].addresses.clone();
    shell.command(|swarm, now| swarm.remove_service(&shop, now)).unwrap();
    shell.run_for(6000);
    shell.command(|swarm, now| swarm.lose_leader(now));
    let refused = shell.command(|swarm, now| swarm.create_service(shape("blog", 1, false), now));
    assert!(matches!(refused, Err(ApiError::Server(_))));
    shell.until(|swarm| swarm.leaderless_since().is_none());
    assert!(shell.swarm.nodes().iter().all(|node| node.state == NodeState::Unknown));
    let mut blog = shape("blog", 1, false);
    blog.dnsrr = true;
    let blog = shell.command(|swarm, now| swarm.create_service(blog, now)).unwrap();
    shell.until(|swarm| serving(swarm, &blog).len() == 1);
    let reused: Vec<_> = serving(&shell.swarm, &blog)[0].addresses.clone();
    assert!(
        reused[0].addr <= old[0].addr,
        "an address of another service comes back at once"
    );
}

#[test]
fn a_write_with_a_stale_version_is_a_conflict_and_changes_nothing() {
    let mut shell = Shell::new(7);
    let shop = shell.service("shop", 1, false);
    let stale = shell.swarm.version(&shop).unwrap();
    shell.command(|swarm, now| swarm.scale(&shop, 2, now)).unwrap();
    let refused = shell.command(|swarm, now| swarm.update_service(&shop, stale, shape("shop", 9, false), now));
    assert!(matches!(refused, Err(ApiError::Conflict(text)) if text.contains("update out of sequence")));
    assert_eq!(shell.swarm.shape(&shop).unwrap().replicas, Some(2));
}

#[test]
fn a_random_host_port_is_shown_as_the_shell_bound_it() {
    let mut shell = Shell::new(10);
    let mut bare = shape("bare", 1, false);
    bare.networks.clear();
    let (published, mode) = (None, PublishMode::Host);
    bare.ports.insert(PublishedPort {
        tcp: true,
        target: 80,
        published,
        mode,
    });
    let bare = shell.command(|swarm, now| swarm.create_service(bare, now)).unwrap();
    shell.until(|swarm| tasks(swarm, &bare).iter().any(|task| task.state == TaskState::Starting));
    let task = tasks(&shell.swarm, &bare)[0].id.clone();
    shell.input(Input::Fact(Fact::Bound {
        task,
        target: 80,
        published: 40_123,
    }));
    shell.until(|swarm| serving(swarm, &bare).len() == 1);
    assert_eq!(serving(&shell.swarm, &bare)[0].ports[0].published, Some(40_123));
}

#[test]
fn bad_requests_are_answered_as_docker_does() {
    let mut shell = Shell::new(12);
    let shop = shell.service("shop", 1, false);
    let twice = shell.command(|swarm, now| swarm.create_service(shape("shop", 1, false), now));
    assert!(matches!(twice, Err(ApiError::Exists(_))));
    let mut lost = shape("lost", 1, false);
    lost.networks = ["nowhere".to_string()].into();
    let lost = shell.command(|swarm, now| swarm.create_service(lost, now));
    assert_eq!(lost, Err(ApiError::Server("network nowhere not found".to_string())));
    let unknown = ServiceId::from("unknown");
    assert!(matches!(
        shell.swarm.tasks(core::slice::from_ref(&unknown)),
        Err(ApiError::NotFound(_))
    ));
    let apps = shell.swarm.network_named("apps").unwrap();
    let used = shell.command(|swarm, now| swarm.remove_network(&apps, now));
    assert!(matches!(used, Err(ApiError::Refused(_))));
    let renamed = shell.command(|swarm, now| swarm.edit_service(&shop, now, |shape| shape.name.push('x')));
    assert!(matches!(renamed, Err(ApiError::Server(_))));
}

#[test]
fn a_network_goes_under_tasks_that_leave_and_the_next_one_has_other_addresses() {
    let mut shell = Shell::new(18);
    let join = |shell: &mut Shell, network: &str| {
        let id = shell.command(|swarm, now| swarm.create_network(network, false, now));
        let mut shape = shape(network, 1, false);
        shape.networks = [network.to_string()].into();
        let service = shell.command(|swarm, now| swarm.create_service(shape, now)).unwrap();
        shell.until(|swarm| !serving(swarm, &service).is_empty());
        (id.unwrap(), service)
    };
    let (extra, service) = join(&mut shell, "extra");
    let (_, kept) = join(&mut shell, "kept");
    let kept = serving(&shell.swarm, &kept)[0].addresses[0].addr;
    shell.command(|swarm, now| swarm.remove_service(&service, now)).unwrap();
    shell.command(|swarm, now| swarm.remove_network(&extra, now)).unwrap();
    let (_, another) = join(&mut shell, "another");
    assert_ne!(serving(&shell.swarm, &another)[0].addresses[0].addr, kept);
    shell.run_for(10_000);
}

/// Random commands and faults; the invariants are checked after every step.
fn random_life(seed: u64) -> Vec<(u64, String)> {
    let mut shell = Shell::new(seed);
    let mut dice = Rng::new(seed).fork("life");
    shell.drain_ms = dice.between(0, 3000);
    let mut services = vec![shell.service("a", 2, false), shell.service("b", 3, true)];
    let nodes: Vec<NodeId> = shell.swarm.nodes().into_iter().map(|node| node.id).collect();
    for round in 0..60 {
        let service = dice.pick(&services).unwrap().clone();
        let node = dice.pick(&nodes).unwrap().clone();
        let size = dice.below(6);
        match dice.below(18) {
            0..=3 if shell.swarm.leaderless_since().is_none() => new_image(&mut shell, &service),
            0..=3 => {}
            4..=6 => drop(shell.command(|swarm, now| swarm.scale(&service, size, now))),
            7 => drop(shell.command(|swarm, now| swarm.drain_node(&node, now))),
            8 => drop(shell.command(|swarm, now| swarm.activate_node(&node, now))),
            9 => shell.command(|swarm, now| swarm.lose_node(&node, Loss::Power, now)),
            10 => shell.command(|swarm, now| swarm.return_node(&node, now)),
            11 => {
                let name = format!("s{round}");
                let shape = shape(&name, size, dice.chance(1, 2));
                let made = shell.command(|swarm, now| swarm.create_service(shape, now));
                services.extend(made);
            }
            12 => {
                let victim = serving(&shell.swarm, &service).into_iter().next().map(|task| task.id);
                if let Some(task) = victim.filter(|task| shell.running.remove(task)) {
                    shell.input(Input::Fact(Fact::Exited { task, code: 1 }));
                }
            }
            13 => drop(shell.command(|swarm, now| swarm.rollback_service(&service, now))),
            14 => shell.command(|swarm, now| swarm.lose_quorum(now)),
            15 => shell.command(|swarm, now| swarm.regain_quorum(now)),
            16 => shell.command(|swarm, now| swarm.lose_leader(now)),
            _ => shell.command(|swarm, now| swarm.lose_node(&node, Loss::Link, now)),
        }
        shell.run_for(dice.between(0, 4000));
    }
    // Liveness: once the faults stop, every service has what it wants.
    shell.command(|swarm, now| swarm.regain_quorum(now));
    shell.until(|swarm| swarm.leaderless_since().is_none());
    for node in &nodes {
        shell.command(|swarm, now| swarm.return_node(node, now));
        shell.command(|swarm, now| swarm.activate_node(node, now)).unwrap();
    }
    shell.run_for(240_000);
    for service in &services {
        let wanted = shell.swarm.shape(service).unwrap().replicas.unwrap();
        assert_eq!(
            serving(&shell.swarm, service).len() as u64,
            wanted,
            "seed {seed}: {:#?}",
            tasks(&shell.swarm, service)
        );
    }
    shell.log
}

#[test]
fn random_commands_break_no_invariant_and_settle() {
    for seed in 0..60 {
        random_life(seed);
    }
}

#[test]
fn the_same_seed_lives_the_same_life() {
    assert_eq!(random_life(3), random_life(3));
    assert_ne!(random_life(3), random_life(4));
}
