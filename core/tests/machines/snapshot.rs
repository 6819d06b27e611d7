//! Two publishers and three subscribers over connections that break, lose their last line and damage others; publishers that
//! restart and lag behind each other, subscribers that restart with what they stored, whole or torn.
//!
//! The model is the set of all tables that were ever published, by digest, and which one each subscriber was last told to
//! serve.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tidegate_core::id::{ProxyId, Revision, ServiceId};
use tidegate_core::machine::{Input, Machine as _, step};
use tidegate_core::rng::Rng;
use tidegate_core::route::spec::{HostPattern, RouteSpec};
use tidegate_core::settings::proxy::ProxySettings;
use tidegate_core::snapshot::entry::Digest;
use tidegate_core::snapshot::message::Ack;
use tidegate_core::snapshot::model::Snapshot;
use tidegate_core::snapshot::publisher::{Connection, Publisher};
use tidegate_core::snapshot::subscriber::{Action, Fact, RETRY_MAX, SILENCE_MAX, Subscriber};
use tidegate_core::time::{Duration, Instant};

use super::{Story, seeds};

const STEPS: u32 = 3000;
/// Without faults everybody serves the last table after the longest pause of each kind.
const SETTLES: Duration = Duration::from_secs(2 * (SILENCE_MAX.as_secs() + RETRY_MAX.as_secs()));

/// A table as the model knows it: service to priority.
type Table = BTreeMap<String, u64>;

/// What travels on one connection.
struct Wire {
    controller: usize,
    proxy: usize,
    lines: VecDeque<String>,
    acks: VecDeque<Ack>,
}

struct Proxy {
    machine: Subscriber,
    connection: Option<u64>,
    stored: Option<String>,
    /// What it was told to serve last.
    serves: Option<(Digest, Revision)>,
    /// Revisions of the present connection's controller.
    seen: Revision,
    connects: u32,
}

struct Controller {
    machine: Publisher,
    /// How much of the truth it has seen.
    published: usize,
    life: u32,
}

struct World<'a> {
    rng: Rng,
    story: &'a Story,
    now: Instant,
    /// Every state of the Swarm, in order.
    truth: Vec<Table>,
    controllers: Vec<Controller>,
    proxies: Vec<Proxy>,
    wires: BTreeMap<u64, Wire>,
    connections: u64,
    ever_published: BTreeMap<Digest, Table>,
    faults: bool,
}

fn proxy_id(at: usize) -> ProxyId {
    ProxyId::from(format!("p{at}").as_str())
}

fn spec(service: &str, value: u64) -> Arc<RouteSpec> {
    Arc::new(RouteSpec {
        hosts: vec![HostPattern::from_normalised(format!("v{value}.{service}.example.org"))],
        ..RouteSpec::new(ServiceId::from(service), service, "2026-01-01T00:00:00Z")
    })
}

/// What a table in use says, in the model's words.
fn read(snapshot: &Snapshot) -> Table {
    let routes = snapshot.routes.iter();
    routes
        .map(|(service, spec)| {
            let host = spec.hosts[0].to_string();
            let value = host
                .trim_start_matches('v')
                .split('.')
                .next()
                .and_then(|value| value.parse().ok());
            (
                service.to_string(),
                value.unwrap_or_else(|| panic!("nobody published {host}")),
            )
        })
        .collect()
}

impl<'a> World<'a> {
    fn new(mut rng: Rng, story: &'a Story) -> Self {
        let controllers = (0..2)
            .map(|at| Controller {
                machine: Publisher::new(&format!("c{at}"), "1"),
                published: 0,
                life: 0,
            })
            .collect();
        let proxies = (0..3)
            .map(|at| Proxy {
                machine: Subscriber::new(proxy_id(at), Rng::new(rng.next_u64()), Instant::START),
                connection: None,
                stored: None,
                serves: None,
                seen: Revision(0),
                connects: 0,
            })
            .collect();
        World {
            rng,
            story,
            now: Instant::START,
            truth: vec![Table::new()],
            controllers,
            proxies,
            wires: BTreeMap::new(),
            connections: 0,
            ever_published: BTreeMap::new(),
            faults: true,
        }
    }

    /// One of the services is deployed, changed or removed.
    fn change(&mut self) {
        let mut table = self.truth.last().cloned().unwrap_or_default();
        let service = format!("s{}", self.rng.below(6));
        if self.rng.chance(1, 3) {
            table.remove(&service);
        } else {
            table.insert(service, self.rng.below(1000));
        }
        self.story
            .tell(format!("{:?} truth {} is {table:?}", self.now, self.truth.len()));
        self.truth.push(table);
    }

    /// A controller sees the truth, or a part of its way there, and publishes it.
    fn publish(&mut self, at: usize, all: bool) {
        let last = self.truth.len() - 1;
        let to = match all {
            true => last,
            false => self.rng.between(self.controllers[at].published as u64, last as u64) as usize,
        };
        let controller = &mut self.controllers[at];
        let table = &self.truth[to];
        let before: Vec<ServiceId> = controller.machine.entries().get().keys().cloned().collect();
        let mut changes: BTreeMap<ServiceId, Option<Arc<RouteSpec>>> =
            before.into_iter().map(|service| (service, None)).collect();
        for (service, value) in table {
            changes.insert(ServiceId::from(service.as_str()), Some(spec(service, *value)));
        }
        let cause = format!("truth {to}");
        controller
            .machine
            .publish(changes, &ProxySettings::default(), &cause, self.now);
        controller.published = to;
        let digest = controller.machine.digest();
        self.story
            .tell(format!("{:?} c{at} publishes truth {to}: {digest}", self.now));
        let known = self.ever_published.entry(digest).or_insert_with(|| table.clone());
        assert_eq!(known, table, "two tables have one digest");
        self.send(at);
    }

    fn send(&mut self, at: usize) {
        while let Some(send) = self.controllers[at].machine.poll_action() {
            if let Some(wire) = self.wires.get_mut(&send.to.0) {
                wire.lines.push_back(send.line.to_string());
            }
        }
    }

    fn feed(&mut self, at: usize, input: Input<Fact>) {
        let mut actions = Vec::new();
        step(&mut self.proxies[at].machine, input, self.now, |action| {
            actions.push(action)
        });
        for action in actions {
            self.perform(at, action);
        }
    }

    fn perform(&mut self, at: usize, action: Action) {
        match action {
            Action::Ack(ack) => {
                let serves = self.proxies[at].serves.map(|(digest, _)| digest);
                assert_eq!(serves, Some(ack.digest), "p{at} acknowledges what it does not serve");
                if let Some(wire) = self.proxies[at].connection.and_then(|id| self.wires.get_mut(&id)) {
                    wire.acks.push_back(ack);
                }
            }
            Action::Connect { pick, digest } => self.connect(at, pick, digest),
            Action::Disconnect => self.close(at),
            Action::Install(install) => {
                let table = read(&install.snapshot);
                let published = self.ever_published.get(&install.digest);
                assert_eq!(published, Some(&table), "p{at} serves a table that nobody published");
                let proxy = &mut self.proxies[at];
                if install.stored.is_none() {
                    assert!(
                        install.revision >= proxy.seen,
                        "p{at} goes back to {:?}",
                        install.revision
                    );
                    proxy.seen = install.revision;
                }
                if let (Some((before, _)), Some(changed)) = (proxy.serves, &install.changed) {
                    let before = &self.ever_published[&before];
                    let names = before.keys().chain(table.keys());
                    for name in names.filter(|name| before.get(*name) != table.get(*name)) {
                        let told = changed.contains(&ServiceId::from(name.as_str()));
                        assert!(told, "p{at} is not told that {name} changed");
                    }
                }
                proxy.serves = Some((install.digest, install.revision));
                self.story
                    .tell(format!("{:?} p{at} serves {}", self.now, install.digest));
            }
            Action::Store(text) => self.proxies[at].stored = Some(text),
            Action::Notice(text) => self.story.tell(format!("{:?} p{at}: {text}", self.now)),
            Action::Confirmed | Action::Greeted { .. } => {}
        }
    }

    fn connect(&mut self, at: usize, pick: u64, digest: Option<Digest>) {
        self.proxies[at].connects += 1;
        let controller = (pick % 2) as usize;
        if self.faults && self.rng.chance(1, 6) {
            self.feed(at, Input::Fact(Fact::Disconnected("refused".to_owned())));
            return;
        }
        self.connections += 1;
        let id = self.connections;
        let wire = Wire {
            controller,
            proxy: at,
            lines: VecDeque::new(),
            acks: VecDeque::new(),
        };
        self.wires.insert(id, wire);
        self.proxies[at].connection = Some(id);
        self.proxies[at].seen = Revision(0);
        self.story
            .tell(format!("{:?} p{at} connects to c{controller}", self.now));
        self.feed(at, Input::Fact(Fact::Connected));
        let machine = &mut self.controllers[controller].machine;
        machine.handle_connected(Connection(id), proxy_id(at), digest, self.now);
        self.send(controller);
    }

    /// Ends a proxy's connection without telling the proxy.
    fn close(&mut self, at: usize) {
        let Some(id) = self.proxies[at].connection.take() else {
            return;
        };
        if let Some(wire) = self.wires.remove(&id) {
            let machine = &mut self.controllers[wire.controller].machine;
            machine.handle_disconnected(Connection(id));
        }
    }

    /// One line of one connection, or one acknowledgement, arrives.
    fn deliver(&mut self) {
        let ids: Vec<u64> = self.wires.keys().copied().collect();
        let Some(id) = self.rng.pick(&ids).copied() else { return };
        let Some(wire) = self.wires.get_mut(&id) else { return };
        if self.rng.chance(1, 2)
            && let Some(ack) = wire.acks.pop_front()
        {
            let controller = wire.controller;
            self.controllers[controller].machine.handle_ack(ack, self.now);
        } else if let Some(mut line) = wire.lines.pop_front() {
            let at = wire.proxy;
            if self.faults && self.rng.chance(1, 60) {
                line = self.damaged(line);
            }
            self.feed(at, Input::Fact(Fact::Line(line)));
        }
    }

    /// A line that was cut short, or has another digit somewhere.
    fn damaged(&mut self, mut line: String) -> String {
        let digits: Vec<usize> = line
            .match_indices(|c: char| c.is_ascii_digit())
            .map(|(at, _)| at)
            .collect();
        match self.rng.pick(&digits).copied().filter(|_| self.rng.chance(3, 4)) {
            Some(at) => {
                self.story.tell(format!("a line has another digit at {at}"));
                let other = (line.as_bytes()[at] - b'0' + 1) % 10;
                line.replace_range(at..=at, &other.to_string());
                line
            }
            None => {
                let at = self.rng.index(line.len().max(1));
                self.story.tell(format!("a line is cut short at {at}"));
                line.chars().take(at).collect()
            }
        }
    }

    fn fault(&mut self) {
        let at = self.rng.index(3);
        match self.rng.below(4) {
            0 => {
                self.story.tell(format!("{:?} p{at}'s connection breaks", self.now));
                self.close(at);
                self.feed(at, Input::Fact(Fact::Disconnected("reset".to_owned())));
            }
            1 => {
                // The controller is gone, and nobody says so.
                if let Some(wire) = self.proxies[at].connection.and_then(|id| self.wires.get_mut(&id)) {
                    self.story.tell(format!("{:?} p{at} hears nothing any more", self.now));
                    wire.lines.clear();
                    wire.proxy = at;
                    let controller = wire.controller;
                    let id = self.proxies[at].connection.unwrap_or_default();
                    self.wires.remove(&id);
                    self.controllers[controller].machine.handle_disconnected(Connection(id));
                }
            }
            2 => self.restart_proxy(at),
            _ => self.restart_controller(at % 2),
        }
    }

    fn restart_proxy(&mut self, at: usize) {
        self.close(at);
        let rng = Rng::new(self.rng.next_u64());
        let proxy = &mut self.proxies[at];
        proxy.machine = Subscriber::new(proxy_id(at), rng, self.now);
        proxy.serves = None;
        proxy.seen = Revision(0);
        let Some(mut text) = proxy.stored.clone() else { return };
        let torn = self.rng.chance(1, 4);
        if torn {
            text.truncate(self.rng.index(text.len()));
        }
        self.story
            .tell(format!("{:?} p{at} starts again, torn: {torn}", self.now));
        let age = Duration::from_secs(self.rng.below(1000));
        self.feed(at, Input::Fact(Fact::Stored { text, age }));
        let serves = self.proxies[at].serves.is_some();
        assert!(serves || torn, "p{at} does not serve what it stored");
    }

    fn restart_controller(&mut self, at: usize) {
        self.story.tell(format!("{:?} c{at} starts again", self.now));
        self.controllers[at].life += 1;
        let life = self.controllers[at].life;
        self.controllers[at].machine = Publisher::new(&format!("c{at}.{life}"), "1");
        self.controllers[at].published = 0;
        let lost: Vec<usize> = self
            .wires
            .values()
            .filter(|wire| wire.controller == at)
            .map(|wire| wire.proxy)
            .collect();
        self.wires.retain(|_, wire| wire.controller != at);
        for proxy in lost {
            self.proxies[proxy].connection = None;
            self.feed(proxy, Input::Fact(Fact::Disconnected("closed".to_owned())));
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
        for at in 0..self.controllers.len() {
            self.controllers[at].machine.handle_timeout(self.now);
            self.send(at);
        }
        for at in 0..self.proxies.len() {
            if self.proxies[at]
                .machine
                .poll_timeout()
                .is_some_and(|due| due.at <= self.now)
            {
                self.feed(at, Input::Timeout);
            }
        }
    }

    /// What holds after every step.
    fn check(&self) {
        for (at, proxy) in self.proxies.iter().enumerate() {
            assert_eq!(proxy.machine.has_table(), proxy.serves.is_some(), "p{at}");
            if let Some((digest, _)) = proxy.serves {
                assert_eq!(proxy.machine.revision().1, digest, "p{at} serves what it says");
            }
        }
        for (id, wire) in &self.wires {
            assert!(wire.lines.len() <= STEPS as usize, "connection {id} is flooded");
        }
    }

    fn heal(&mut self) {
        self.faults = false;
        for at in 0..self.controllers.len() {
            self.publish(at, true);
        }
        let connects: Vec<u32> = self.proxies.iter().map(|proxy| proxy.connects).collect();
        let end = self.now + SETTLES;
        while self.now < end {
            self.pass(100);
            for _ in 0..30 {
                self.deliver();
            }
            self.check();
        }
        let last = &self.truth[self.truth.len() - 1];
        for (at, proxy) in self.proxies.iter().enumerate() {
            let (digest, _) = proxy.serves.unwrap_or_else(|| panic!("p{at} serves nothing"));
            assert_eq!(&self.ever_published[&digest], last, "p{at} serves the last table");
            assert!(proxy.machine.is_current(), "p{at} is current");
            assert!(proxy.connects - connects[at] <= 8, "p{at} connects again and again");
        }
        let status: Vec<_> = self.controllers.iter().flat_map(|one| one.machine.proxies()).collect();
        assert_eq!(
            status.len(),
            self.proxies.len(),
            "each proxy is known to one controller"
        );
        assert!(status.iter().all(|proxy| proxy.current), "{status:?}");
    }
}

#[test]
fn tables_arrive_whole_in_order_and_at_last() {
    seeds("tables_arrive", 30, |rng, story| {
        let mut world = World::new(rng, story);
        let weights = [
            world.rng.between(1, 20),
            world.rng.between(1, 20),
            world.rng.between(0, 6),
        ];
        for _ in 0..STEPS {
            let [changes, publishes, faults] = weights;
            match world.rng.below(200) {
                dice if dice < changes => world.change(),
                dice if dice < changes + publishes => {
                    let at = world.rng.index(2);
                    world.publish(at, false);
                }
                dice if dice < changes + publishes + faults => world.fault(),
                dice if dice < 100 => {
                    let ms = world.rng.below(400);
                    world.pass(ms);
                }
                _ => world.deliver(),
            }
            world.check();
        }
        world.heal();
    });
}
