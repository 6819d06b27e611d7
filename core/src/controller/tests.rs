//! Controllers over the simulated Swarm, in virtual time: no runtime, no socket.

use super::*;
use crate::machine::{Input, step};
use crate::reconcile::desired::{CLUSTER_LABEL, ManagedService, ROLE_LABEL};
use crate::recording::{Recorder, step_recorded};
use crate::rng::Rng;
use crate::settings::{ClusterSettings, NetworkPolicy};
use crate::simulated::{self, Delays, Swarm};
use crate::swarm::{model::STACK_LABEL, world::Answer};

mod courier;
mod feed;
mod freshness;
mod identities;
mod legs;
mod memory;
mod recording;
mod successors;
mod tls;

/// What travels to a controller, and when it arrives.
struct Mail {
    at: Instant,
    to: usize,
    fact: ControllerFact,
}

struct Harness {
    swarm: Swarm,
    controllers: Vec<Controller>,
    streams: Vec<Option<StreamId>>,
    mail: Vec<Mail>,
    notices: Vec<String>,
    diagnosed: Vec<String>,
    delivered: Vec<Deliver>,
    writes: usize,
    /// Milliseconds until the list of secrets arrives.
    secrets_take_ms: u64,
    feeds: feed::Feeds,
    /// Records the first controller.
    recorder: Option<Recorder>,
    /// Decides which answers of Docker fail.
    faults: Option<Rng>,
    now: Instant,
}

fn me(task: &str, authorities: &[u64]) -> Me {
    Me {
        task: task.to_string(),
        version: "test".to_string(),
        service: Some("tidegate_controller".to_string()),
        control_port: 7171,
        authorities: authorities.iter().copied().collect(),
        wall_at_start: Duration::from_secs(1_800_000_000),
    }
}

/// Proxies join the networks of routed services.
fn attached_proxies() -> Settings {
    let mut settings = Settings::default();
    for cluster in settings.clusters.values_mut() {
        cluster.networks = NetworkPolicy::Attach;
    }
    settings
}

fn two_clusters() -> Settings {
    let edge = NetworkPolicy::Shared(alloc::vec!["edge".to_string()]);
    let east = ClusterSettings {
        http_port: 8081,
        https_port: 8444,
        networks: edge,
        ..ClusterSettings::default()
    };
    let mut settings = attached_proxies();
    settings.clusters.insert(ClusterName::from("east"), east);
    settings
}

impl Harness {
    /// A Swarm of three nodes with the controllers' own service and two overlay networks.
    fn new() -> Harness {
        let mut swarm = Swarm::new(Delays::default(), Rng::new(7));
        let now = Instant::START;
        swarm.add_node("node1", "192.0.2.1".parse().ok(), true, now);
        swarm.add_node("node2", "192.0.2.2".parse().ok(), false, now);
        swarm.add_node("node3", "192.0.2.3".parse().ok(), false, now);
        for network in ["edge", "back"] {
            swarm.create_network(network, false, now).unwrap();
        }
        let labels = [(ROLE_LABEL, "controller"), (STACK_LABEL, "tidegate")];
        let shape = ServiceShape {
            name: "tidegate_controller".to_string(),
            image: "tidegate:1".to_string(),
            labels: labels.map(|(key, value)| (key.to_string(), value.to_string())).into(),
            replicas: Some(1),
            ..ServiceShape::default()
        };
        swarm.create_service(shape, now).unwrap();
        Harness {
            swarm,
            controllers: Vec::new(),
            streams: Vec::new(),
            mail: Vec::new(),
            notices: Vec::new(),
            diagnosed: Vec::new(),
            delivered: Vec::new(),
            writes: 0,
            secrets_take_ms: 4,
            feeds: feed::Feeds::default(),
            recorder: None,
            faults: None,
            now,
        }
    }

    fn start(&mut self, settings: Settings, me: Me) -> usize {
        self.controllers.push(Controller::new(settings, me));
        self.streams.push(None);
        let index = self.controllers.len() - 1;
        self.turn(index, Input::Timeout);
        index
    }

    fn app(&mut self, name: &str, network: &str, labels: &[(&str, &str)]) -> ServiceId {
        let network = self.swarm.network_named(network).unwrap().to_string();
        let shape = ServiceShape {
            name: name.to_string(),
            image: "app:1".to_string(),
            labels: labels
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            replicas: Some(2),
            networks: [network].into(),
            ..ServiceShape::default()
        };
        self.swarm.create_service(shape, self.now).unwrap()
    }

    /// One mutation of a controller; answers of Docker arrive a few milliseconds later.
    fn turn(&mut self, index: usize, input: Input<ControllerFact>) {
        let mut actions = Vec::new();
        let machine = &mut self.controllers[index];
        let perform = |action| actions.push(action);
        match &mut self.recorder {
            Some(recorder) if index == 0 => step_recorded(machine, recorder, input, self.now, perform),
            Some(_) | None => step(machine, input, self.now, perform),
        };
        for action in actions {
            let is_secrets = matches!(&action, ControllerAction::Fetch { fetch, .. } if *fetch == Fetch::Secrets);
            let takes_ms = if is_secrets { self.secrets_take_ms } else { 4 };
            if let Some(mut fact) = self.perform(index, action) {
                if let Some(rng) = self.faults.as_mut() {
                    recording::spoil(&mut fact, rng);
                }
                self.mail.push(Mail {
                    at: self.now + Duration::from_millis(takes_ms),
                    to: index,
                    fact,
                });
            }
        }
    }

    fn perform(&mut self, index: usize, action: ControllerAction) -> Option<ControllerFact> {
        let now = self.now;
        let swarm = &mut self.swarm;
        match action {
            ControllerAction::Fetch { id, fetch } => {
                let result = match fetch {
                    Fetch::Managed => Ok(Answer::Managed(swarm.managed())),
                    Fetch::Networks => Ok(Answer::Networks(swarm.networks())),
                    Fetch::Nodes => Ok(Answer::Nodes(swarm.nodes())),
                    Fetch::Secrets => Ok(Answer::Secrets(swarm.secrets())),
                    Fetch::Services(of) => Ok(Answer::Services(swarm.services(&of))),
                    Fetch::Tasks(of) => swarm.tasks(&of).map(Answer::Tasks),
                };
                Some(ControllerFact::World(WorldFact::Answer { id, result }))
            }
            ControllerAction::OpenEvents(stream) => {
                self.streams[index] = Some(stream);
                Some(ControllerFact::World(WorldFact::EventStreamOpened(stream)))
            }
            ControllerAction::OpenFeed { id, resume_from } => Some(self.open_feed(index, id, resume_from)),
            ControllerAction::CreateNetwork(name) => {
                let result = swarm.create_network(&name, false, now).map(|_| ());
                Some(ControllerFact::Done {
                    what: Chore::Network,
                    result,
                })
            }
            ControllerAction::CreateSecret(new) => {
                let result = swarm.create_secret(&new.name, &new.labels, b"pem", now).map(|_| ());
                Some(ControllerFact::Done {
                    what: Chore::Secret(new.name),
                    result,
                })
            }
            ControllerAction::Write { id, write } => {
                self.writes += 1;
                let result = match write {
                    Write::Create(shape) => swarm.create_service(*shape, now).map(|_| ()),
                    Write::Remove { id, .. } => swarm.remove_service(&id, now),
                    Write::Update { id, version, shape } => swarm.update_service(&id, version, *shape, now),
                };
                Some(ControllerFact::Written { id, result })
            }
            ControllerAction::WriteOwnService { id, version, shape } => {
                self.writes += 1;
                let result = swarm.update_service(&id, version, *shape, now);
                Some(ControllerFact::Done {
                    what: Chore::OwnService,
                    result,
                })
            }
            ControllerAction::Diagnosed(diagnostic) => {
                self.diagnosed.push(diagnostic.to_string());
                None
            }
            ControllerAction::Deliver(deliver) => {
                self.delivered.push(deliver);
                None
            }
            ControllerAction::Notice(text) => {
                self.notices.push(text);
                None
            }
            ControllerAction::RemoveSecret { id, name } => {
                let result = swarm.remove_secret(&id, now);
                Some(ControllerFact::Done {
                    what: Chore::OldSecret(name),
                    result,
                })
            }
            ControllerAction::Acked { .. } | ControllerAction::Published { .. } | ControllerAction::Send(_) => None,
        }
    }

    /// Lets everything happen until `until` holds or so many seconds passed.
    fn run(&mut self, seconds: u64, until: impl Fn(&Harness) -> bool) {
        let end = self.now + Duration::from_secs(seconds);
        while !until(self) {
            let controllers = self
                .controllers
                .iter()
                .filter_map(|c| c.poll_timeout())
                .map(|deadline| deadline.at);
            let swarm = self.swarm.poll_timeout().map(|deadline| deadline.at);
            let next = controllers
                .chain(swarm)
                .chain(self.mail.iter().map(|mail| mail.at))
                .min();
            let next = next.unwrap_or(end).max(self.now);
            assert!(
                next < end,
                "not within {seconds} s; notices: {:#?}; {:#?}",
                self.notices,
                self.diagnosed
            );
            self.now = next;
            self.advance_swarm();
            let (due, later): (Vec<Mail>, Vec<Mail>) = self.mail.drain(..).partition(|mail| mail.at <= next);
            self.mail = later;
            for mail in due {
                self.turn(mail.to, Input::Fact(mail.fact));
            }
            for index in 0..self.controllers.len() {
                if self.controllers[index]
                    .poll_timeout()
                    .is_some_and(|deadline| deadline.at <= self.now)
                {
                    self.turn(index, Input::Timeout);
                }
            }
        }
    }

    fn advance_swarm(&mut self) {
        let mut actions = Vec::new();
        if self
            .swarm
            .poll_timeout()
            .is_some_and(|deadline| deadline.at <= self.now)
        {
            step(&mut self.swarm, Input::Timeout, self.now, |action| actions.push(action));
        }
        while let Some(action) = self.swarm.poll_action() {
            actions.push(action);
        }
        let mut exits = Vec::new();
        for action in actions {
            match action {
                simulated::Action::Emit(event, _) => {
                    for (to, stream) in self.streams.iter().enumerate() {
                        if stream.is_some() {
                            let fact = ControllerFact::World(WorldFact::Event(event.clone()));
                            self.mail.push(Mail { at: self.now, to, fact });
                        }
                    }
                }
                simulated::Action::Signal(task) | simulated::Action::Kill(task) => exits.push(task),
                simulated::Action::BlackHole(_)
                | simulated::Action::Rejoin(_)
                | simulated::Action::Start(_)
                | simulated::Action::Unlink(_) => {}
            }
        }
        for task in exits {
            let fact = simulated::Fact::Exited { task, code: 0 };
            step(&mut self.swarm, Input::Fact(fact), self.now, |_| {});
        }
        self.tell_tasks();
    }

    fn endpoints(&self, controller: usize, cluster: &str, service: &ServiceId) -> Option<usize> {
        let snapshot = self.controllers[controller].snapshot(&ClusterName::from(cluster));
        let spec = snapshot.routes.get(service)?;
        Some(
            spec.endpoints
                .iter()
                .filter(|endpoint| endpoint.leaving.is_none())
                .count(),
        )
    }

    fn proxies(&self) -> Vec<ManagedService> {
        let all = self.swarm.managed();
        all.into_iter()
            .filter(|service| service.shape.labels.contains_key(CLUSTER_LABEL))
            .collect()
    }
}

const SHOP: &[(&str, &str)] = &[("tidegate.hosts", "shop.example.org"), ("tidegate.port", "8080")];

#[test]
fn a_labelled_service_is_published_followed_and_forgotten() {
    let mut harness = Harness::new();
    let first = harness.start(Settings::default(), me("c1", &[]));
    let shop = harness.app("shop", "edge", SHOP);
    harness.run(20, |h| h.endpoints(first, "default", &shop) == Some(2));
    harness.swarm.scale(&shop, 5, harness.now).unwrap();
    harness.run(20, |h| h.endpoints(first, "default", &shop) == Some(5));
    harness.swarm.scale(&shop, 1, harness.now).unwrap();
    harness.run(20, |h| h.endpoints(first, "default", &shop) == Some(1));
    let now = harness.now;
    let other = ("tidegate.service_cluster".to_string(), "nowhere".to_string());
    harness
        .swarm
        .edit_service(&shop, now, |shape| shape.labels.extend([other.clone()]))
        .unwrap();
    harness.run(20, |h| h.endpoints(first, "default", &shop).is_none());
    assert!(
        harness.diagnosed.iter().any(|text| text.contains("nowhere")),
        "{:?}",
        harness.diagnosed
    );
    harness
        .swarm
        .edit_service(&shop, now, |shape| shape.labels.retain(|key, _| *key != other.0))
        .unwrap();
    harness.run(20, |h| h.endpoints(first, "default", &shop) == Some(1));
    harness.swarm.remove_service(&shop, harness.now).unwrap();
    harness.run(20, |h| h.endpoints(first, "default", &shop).is_none());
}

#[test]
fn a_wrong_label_on_one_service_changes_nothing_for_another() {
    let mut harness = Harness::new();
    let first = harness.start(Settings::default(), me("c1", &[]));
    let shop = harness.app("shop", "edge", SHOP);
    harness.run(20, |h| h.endpoints(first, "default", &shop) == Some(2));
    let before = harness.controllers[first].snapshot(&ClusterName::from("default"));
    let wrong = harness.app(
        "wrong",
        "edge",
        &[("tidegate.hosts", "x.example.org"), ("tidegate.port", "http")],
    );
    harness.run(20, |h| h.diagnosed.iter().any(|text| text.contains("service wrong")));
    assert_eq!(harness.endpoints(first, "default", &wrong), None);
    assert_eq!(
        harness.controllers[first].snapshot(&ClusterName::from("default")),
        before
    );
}

#[test]
fn row_49_routes_that_go_by_client_addresses_want_proxies_in_host_mode() {
    use crate::swarm::model::PublishMode;
    let apps: [(&str, &[(&str, &str)]); 2] = [
        (
            "hashed",
            &[
                ("com.docker.lb.hosts", "hashed.example.org"),
                ("com.docker.lb.port", "80"),
                ("com.docker.lb.ip_hash", "true"),
            ],
        ),
        (
            "guarded",
            &[
                ("tidegate.hosts", "guarded.example.org"),
                ("tidegate.port", "80"),
                ("tidegate.allow_ips", "10.0.0.0/8"),
            ],
        ),
    ];
    for (publish_mode, trusted) in [
        (PublishMode::Ingress, ""),
        (PublishMode::Ingress, "10.0.0.0/24"),
        (PublishMode::Host, ""),
    ] {
        let mut settings = Settings::default();
        let cluster = settings.clusters.get_mut(&ClusterName::default_cluster()).unwrap();
        cluster.publish_mode = publish_mode;
        cluster.proxy.trusted_proxies = trusted.parse().into_iter().collect();
        let mut harness = Harness::new();
        let first = harness.start(settings, me("c1", &[]));
        let [hashed, guarded] = apps.map(|(name, labels)| harness.app(name, "edge", labels));
        harness.run(20, |h| h.endpoints(first, "default", &hashed) == Some(2));
        let said = |word: &str| harness.diagnosed.iter().any(|text| text.contains(word));
        let is_hidden = publish_mode == PublishMode::Ingress && trusted.is_empty();
        assert_eq!((said("ip_hash"), said("allow_ips")), (is_hidden, is_hidden));
        if is_hidden {
            // Everybody seems to come from the mesh, so the list would let everybody in.
            assert_eq!(harness.endpoints(first, "default", &guarded), None);
        } else {
            harness.run(20, |h| h.endpoints(first, "default", &guarded) == Some(2));
        }
    }
}

#[test]
fn a_network_is_joined_with_its_first_route_and_left_with_its_last() {
    let mut harness = Harness::new();
    harness.start(attached_proxies(), me("c1", &[]));
    harness.run(30, |h| !h.swarm.secrets().is_empty());
    harness.start(attached_proxies(), me("c2", &[1]));
    harness.run(30, |h| h.proxies().len() == 1);
    let shop = harness.app("shop", "back", SHOP);
    let back = harness.swarm.network_named("back").unwrap().to_string();
    let joined = |h: &Harness| h.proxies()[0].shape.networks.contains(&back);
    harness.run(30, joined);
    harness.swarm.remove_service(&shop, harness.now).unwrap();
    harness.run(30, |h| !joined(h));
}

#[test]
fn two_controllers_agree_and_come_to_rest() {
    let mut harness = Harness::new();
    harness.app("shop", "back", SHOP);
    for task in ["c1", "c2"] {
        harness.start(two_clusters(), me(task, &[1]));
    }
    harness.run(60, |h| h.proxies().len() == 2);
    let end = harness.now + Duration::from_secs(30);
    harness.run(60, |h| h.now >= end);
    let writes = harness.writes;
    let end = harness.now + Duration::from_secs(600);
    harness.run(1000, |h| h.now >= end);
    assert_eq!(harness.writes, writes, "no write in ten minutes of rest");
    assert_eq!(harness.proxies().len(), 2);
}

#[test]
fn a_controller_that_is_no_service_keeps_no_proxies() {
    let mut harness = Harness::new();
    let first = harness.start(
        Settings::default(),
        Me {
            service: None,
            ..me("c1", &[])
        },
    );
    let shop = harness.app("shop", "edge", SHOP);
    harness.run(20, |h| h.endpoints(first, "default", &shop) == Some(2));
    assert_eq!(harness.writes, 0);
    assert!(harness.swarm.secrets().is_empty());
}

#[test]
fn a_shared_network_that_is_missing_is_named_until_it_is_there() {
    let mut settings = Settings::default();
    let cluster = settings.clusters.get_mut(&ClusterName::default_cluster()).unwrap();
    cluster.networks = NetworkPolicy::Shared(alloc::vec!["apps".to_string()]);
    let mut harness = Harness::new();
    harness.start(settings.clone(), me("c1", &[]));
    harness.run(30, |h| !h.swarm.secrets().is_empty());
    let second = harness.start(settings, me("c2", &[1]));
    let missing = |h: &Harness| {
        h.controllers[second]
            .status(h.now)
            .notices
            .iter()
            .any(|text| text.contains("apps"))
    };
    harness.run(30, missing);
    harness.swarm.create_network("apps", false, harness.now).unwrap();
    let apps = harness.swarm.network_named("apps").unwrap().to_string();
    harness.run(60, |h| !missing(h) && h.proxies()[0].shape.networks.contains(&apps));
}

#[test]
fn trouble_with_docker_is_told_once_and_so_is_its_end() {
    let alone = Me {
        service: None,
        ..me("c1", &[])
    };
    let mut controller = Controller::new(Settings::default(), alone);
    let mut now = Instant::START;
    let mut told = Vec::new();
    let mut turns = |controller: &mut Controller, told: &mut Vec<String>, fails: bool| {
        for _ in 0..40 {
            now = controller.poll_timeout().map_or(now, |deadline| deadline.at.max(now));
            let mut inputs = alloc::vec![Input::Timeout];
            while let Some(input) = inputs.pop() {
                step(controller, input, now, |action| {
                    if let ControllerAction::Notice(text) = action {
                        told.push(text);
                    } else if let ControllerAction::Fetch { id, fetch } = action {
                        let result = match fetch {
                            _ if fails => Err(ApiError::Unreachable("connection refused".to_string())),
                            Fetch::Managed => Ok(Answer::Managed(Vec::new())),
                            Fetch::Networks => Ok(Answer::Networks(Vec::new())),
                            Fetch::Nodes => Ok(Answer::Nodes(Vec::new())),
                            Fetch::Secrets => Ok(Answer::Secrets(Vec::new())),
                            Fetch::Services(_) => Ok(Answer::Services(Vec::new())),
                            Fetch::Tasks(_) => Ok(Answer::Tasks(Vec::new())),
                        };
                        inputs.push(Input::Fact(ControllerFact::World(WorldFact::Answer { id, result })));
                    }
                });
            }
        }
    };
    turns(&mut controller, &mut told, true);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("connection refused"), "{told:?}");
    let status = controller.status(Instant::START);
    assert!(
        status.notices[0].contains("connection refused"),
        "as long as it lasts: {status:?}"
    );
    turns(&mut controller, &mut told, false);
    assert_eq!(told[1..], ["Docker answers again"]);
    assert_eq!(controller.status(Instant::START).notices, [] as [&str; 0]);
}
