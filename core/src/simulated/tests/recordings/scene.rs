//! The Swarm of the recordings, simulated: three managers, two workers, and the services `shop`, `api` and `agent`, whose
//! apps exit 300 ms after SIGTERM.

use super::history::{History, Look, Ms, note};
use super::*;

/// What differs from one recording to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stage {
    /// `RestartPolicy.Delay` in milliseconds. One for all services: each recording shows restarts of one kind.
    pub(super) restart_ms: u32,
    pub(super) start_first: bool,
    /// Whether `shop` has a health check.
    pub(super) health: bool,
    /// Whether events are of the same time as the lists.
    pub(super) events: bool,
}

/// `shop` is stop-first, has no health check and a restart delay of 1 s.
pub(super) const USUAL: Stage = Stage {
    restart_ms: 1000,
    start_first: false,
    health: false,
    events: true,
};

pub(super) struct Scene {
    pub(super) shell: Shell,
    pub(super) history: History,
    /// The moment of the first command.
    begin: u64,
    /// The node that something happens to.
    pub(super) victim: Option<NodeId>,
    /// Whether the health checks of processes that start fail.
    failing: bool,
    /// What health checks will have found.
    verdicts: BTreeMap<(Instant, TaskId), bool>,
    dice: Rng,
    /// Index of the newest change that was looked at.
    seen: Option<Version>,
}

impl Scene {
    pub(super) fn new(seed: u64, stage: Stage) -> Scene {
        let delays = Delays {
            restart: Span::ms(stage.restart_ms, stage.restart_ms),
            // Two probes a second apart.
            unhealthy_start: Span::ms(2150, 2400),
            ..Delays::default()
        };
        let mut shell = Shell::empty(seed, delays);
        shell.drain_ms = 300;
        for (number, manager) in [(1, true), (2, true), (3, true), (4, false), (5, false)] {
            let name = format!("node{number}");
            shell.command(|swarm, now| swarm.add_node(&name, None, manager, now));
        }
        for network in ["edge", "back"] {
            shell
                .command(|swarm, now| swarm.create_network(network, false, now))
                .unwrap();
        }
        shell
            .command(|swarm, now| swarm.create_secret("shop-key-1", &[], b"1", now))
            .unwrap();
        let networks = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        let mut shop = ServiceShape {
            networks: networks(&["edge"]),
            constraints: ["node.role==worker".to_string()].into(),
            secrets: [("shop-key-1".to_string(), "key".to_string())].into(),
            ..shape("shop", 3, stage.start_first)
        };
        shop.update.monitor_ms = 2000;
        if stage.health {
            shop.health_command = vec!["CMD".to_string(), "health".to_string()];
        }
        let api = ServiceShape {
            networks: networks(&["edge", "back"]),
            constraints: ["node.role==manager".to_string()].into(),
            dnsrr: true,
            ..shape("api", 2, false)
        };
        let agent = ServiceShape {
            networks: networks(&["edge"]),
            replicas: None,
            ports: [PublishedPort {
                tcp: true,
                target: 8080,
                published: Some(18_080),
                mode: PublishMode::Host,
            }]
            .into(),
            ..shape("agent", 0, false)
        };
        for shape in [agent, shop, api] {
            shell.command(|swarm, now| swarm.create_service(shape, now)).unwrap();
        }
        shell
            .command(|swarm, now| swarm.create_config("api-conf", now))
            .unwrap();
        let api = shell.swarm.service_named("api").unwrap();
        shell
            .command(|swarm, now| swarm.mount_configs(&api, &["api-conf"], now))
            .unwrap();
        shell.run_for(30_000);
        assert!(shell.swarm.is_at_rest());
        // The first look comes before the first command.
        let begin = shell.ms() + POLL_MS;
        let mut scene = Scene {
            shell,
            history: History::default(),
            begin,
            victim: None,
            failing: false,
            verdicts: BTreeMap::new(),
            dice: Rng::new(seed).fork("probes"),
            seen: None,
        };
        scene.shell.log.clear();
        scene.look();
        scene
    }

    pub(super) fn id(&self, service: &str) -> ServiceId {
        self.shell.swarm.service_named(service).unwrap()
    }

    pub(super) fn node(&self, name: &str) -> NodeId {
        let nodes = self.shell.swarm.nodes();
        nodes.iter().find(|node| node.hostname == name).unwrap().id.clone()
    }

    /// The worker that something happens to: it has two of the three tasks of `shop`, as in the recordings.
    pub(super) fn victim(&mut self) -> NodeId {
        let shop = serving(&self.shell.swarm, &self.id("shop"));
        let on = |node: &NodeId| shop.iter().filter(|task| task.node.as_ref() == Some(node)).count();
        let workers = ["node4", "node5"].map(|name| self.node(name));
        let crowded = workers.into_iter().max_by_key(on).unwrap();
        self.victim.get_or_insert(crowded).clone()
    }

    pub(super) fn other_worker(&self, victim: &NodeId) -> NodeId {
        let workers = ["node4", "node5"].map(|name| self.node(name));
        workers.into_iter().find(|node| node != victim).unwrap()
    }

    /// What the health checks of `shop` find from now on, each at its own next probes.
    pub(super) fn set_health(&mut self, healthy: bool) {
        self.failing = !healthy;
        let probes = if healthy { (0, 1000) } else { (1000, 2100) };
        for task in self.shell.running.clone() {
            let at = self.shell.now + Duration::from_millis(self.dice.between(probes.0, probes.1));
            self.verdicts.insert((at, task), healthy);
        }
    }

    /// Tells what health checks found meanwhile, also of processes that just started.
    fn check_health(&mut self) {
        while let Some(((at, task), healthy)) = self.verdicts.pop_first() {
            if at > self.shell.now {
                self.verdicts.insert((at, task), healthy);
                break;
            }
            self.shell.input(Input::Fact(Fact::Health { task, healthy }));
        }
    }

    pub(super) fn run_until_down(&mut self, node: &NodeId) {
        let is_down = |scene: &Scene| {
            let nodes = scene.shell.swarm.nodes();
            nodes
                .iter()
                .any(|other| other.id == *node && other.state == NodeState::Down)
        };
        self.run_until(is_down);
    }

    pub(super) fn run_until(&mut self, done: impl Fn(&Scene) -> bool) {
        let end = self.now() + 60_000;
        while !done(self) {
            assert!(self.now() < end, "does not happen within a minute");
            self.run_to(self.now() + Ms::try_from(POLL_MS).unwrap());
        }
    }

    pub(super) fn command(&mut self, run: impl FnOnce(&mut Swarm, Instant) -> Result<(), ApiError>) {
        self.shell.command(run).unwrap();
    }

    pub(super) fn edit_shop(&mut self, edit: impl FnOnce(&mut ServiceShape)) {
        let shop = self.id("shop");
        self.command(|swarm, now| swarm.edit_service(&shop, now, edit));
    }

    /// Runs to a moment, looking at the lists as often as the recorder did.
    pub(super) fn run_to(&mut self, at: Ms) {
        while self.now() < at {
            let ms = u64::try_from(at - self.now()).unwrap().min(POLL_MS);
            self.shell.run_for(ms);
            self.check_health();
            self.look();
        }
    }

    pub(super) fn now(&self) -> Ms {
        self.at(self.shell.ms())
    }

    fn at(&self, ms: u64) -> Ms {
        Ms::try_from(ms).unwrap() - Ms::try_from(self.begin).unwrap()
    }

    fn look(&mut self) {
        let (at, index) = (self.now(), self.shell.swarm.index());
        if self.seen.replace(index) != Some(index) {
            self.look_at_lists(at);
        }
        for (ms, line) in core::mem::take(&mut self.shell.log) {
            let at = self.at(ms);
            if let Some((word, task)) = line.split_once(' ') {
                match word {
                    "start" => {
                        self.history.said(at, task, word);
                        if self.failing {
                            let healthy = false;
                            let task = TaskId::from(task);
                            self.shell.input(Input::Fact(Fact::Health { task, healthy }));
                        }
                    }
                    "exit" => self.history.said(at, task, word),
                    "signal" => self.history.said(at, task, "sigterm"),
                    "event" => self.hear(at, task),
                    _ => {}
                }
            }
        }
    }

    /// An event as the shell wrote it down: kind, action, id, attributes.
    fn hear(&mut self, at: Ms, line: &str) {
        let line = line.to_lowercase();
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap();
        let (kind, action, _) = (next(), next(), next());
        let kind = if kind == "other" { "config" } else { kind };
        let pairs = words.map(|pair| pair.split_once('=').unwrap());
        let attributes = pairs.map(|(key, value)| (key.to_string(), value.to_string()));
        self.history.hears(at, [kind, action], &attributes.collect());
    }

    fn look_at_lists(&mut self, at: Ms) {
        let swarm = &self.shell.swarm;
        let services: BTreeMap<ServiceId, String> = swarm
            .services(&[])
            .into_iter()
            .map(|service| (service.id, service.name))
            .collect();
        let nodes = swarm.nodes();
        let host = |id: &NodeId| nodes.iter().find(|node| &node.id == id).unwrap().hostname.clone();
        let known = &self.history.lives;
        let looks: Vec<Look> = swarm
            .tasks(&[])
            .unwrap()
            .into_iter()
            .map(|task| {
                let id = task.id.to_string();
                // The tasks of a service that was removed are listed on.
                let before = || {
                    known
                        .iter()
                        .find(|life| life.last.id == id)
                        .unwrap()
                        .last
                        .service
                        .clone()
                };
                let service = services.get(&task.service).cloned().unwrap_or_else(before);
                let node = task.node.as_ref().map(host).unwrap_or_default();
                Look {
                    id,
                    service,
                    place: task.slot.map_or(node.clone(), |slot| slot.to_string()),
                    node,
                    state: task.state,
                    desired: task.desired,
                    error: task.error,
                    networks: task.addresses.len(),
                }
            })
            .collect();
        let states = nodes
            .iter()
            .map(|node| (node.hostname.clone(), format!("{:?}", node.state).to_lowercase()))
            .collect();
        let availability = swarm
            .nodes
            .values()
            .map(|node| {
                (
                    node.node.hostname.clone(),
                    format!("{:?}", node.availability).to_lowercase(),
                )
            })
            .collect();
        let updates: Vec<(String, String)> = swarm
            .services
            .values()
            .map(|service| {
                let state = service.update_state.unwrap_or_default();
                (service.shape.name.clone(), state.to_string())
            })
            .collect();
        self.history.list(at, looks);
        note(&mut self.history.nodes, at, states);
        note(&mut self.history.availability, at, availability);
        note(&mut self.history.updates, at, updates);
    }
}
