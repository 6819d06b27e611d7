//! What may go wrong in a world, as verbs a story is written in. Each tells the witness what it struck, so that answers
//! are judged by what was possible.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate_core::id::{NodeId, ServiceId, TaskId};
use tidegate_core::reconcile::desired::{CLUSTER_LABEL, ROLE_LABEL, ServiceShape};
use tidegate_core::rng::Rng;
use tidegate_core::simulated::{Fact, Loss};
use tidegate_core::swarm::model::{Node, Service, Task};

use crate::backend::Ailment;
use crate::processes::Process;
use crate::product::{CONTROLLERS, PROXIES};
use crate::scenario::{FOLLOWED_WITH_FAULTS, SETTLED};
use crate::shared::Disk;
use crate::walls::Side;
use crate::witness::Table;
use crate::world::{World, service_of};

/// What routes a service.
const HOSTS: &str = "com.docker.lb.hosts";
/// Who hears nothing takes its controller for dead after 12 s, and finds another one within 5 s more.
const SILENCE: Duration = Duration::from_secs(20);

/// Sides that a link is bad between, and the addresses that they had when it became so.
pub(crate) type BadLink = (Side, Side, Vec<(IpAddr, IpAddr)>);

/// Whether an operator wrote what routes a service as it is to be written; what becomes of it otherwise is judged elsewhere.
fn is_well_labelled(service: &Service) -> bool {
    let label = |key: &str| service.labels.get(&format!("com.docker.lb.{key}"));
    let is_plain = |host: &str| {
        let part =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        host.trim().split('.').all(part)
    };
    label("hosts").is_some_and(|hosts| hosts.split(',').all(is_plain))
        && label("port").is_none_or(|port| port.parse::<u16>().is_ok())
        && label("context_root").is_none_or(|path| path.starts_with('/'))
}

/// Those of two sides, which are no longer in the list.
fn taken(links: &mut Vec<BadLink>, a: &Side, b: &Side) -> Vec<(IpAddr, IpAddr)> {
    let of = links.extract_if(.., |(x, y, _)| (&*x, &*y) == (a, b));
    of.flat_map(|(_, _, pairs)| pairs).collect()
}

impl World {
    /// The next act of the story; `None` where this run leaves it out. Each has chance of its own, so leaving one out
    /// changes no other.
    pub fn act(&mut self, what: &str) -> Option<Rng> {
        self.acts += 1;
        let number = self.acts;
        self.seed.note(|report| report.acts.push(format!("{number} {what}")));
        if self.seed.leaves_out(number) {
            return None;
        }
        self.shared.trace("story", &format!("act {number}: {what}"));
        Some(Rng::new(self.seed.value()).fork(&format!("act {number}")))
    }

    /// Tells the witness that a fault struck tasks, and makes those that are proxies unreachable for users.
    pub(crate) fn strike(&self, tasks: &[TaskId], what: &str) {
        let services: BTreeSet<String> = tasks.iter().filter_map(|task| self.service_of(task)).collect();
        self.shared.witness.blow(self.now(), services, tasks, what);
        for ip in self.addresses_of(tasks) {
            self.shared.witness.unreachable(ip, self.now());
        }
    }

    /// Those that are theirs still.
    pub(crate) fn addresses_of(&self, tasks: &[TaskId]) -> Vec<IpAddr> {
        let is_at = |ip: &IpAddr, task: &TaskId| {
            let host = self.hosts.get(ip);
            host.is_some_and(|host| host.task.borrow().as_ref() == Some(task))
        };
        let mut all = Vec::new();
        for task in tasks {
            let addresses = self.processes.get(task).map(|process| process.addresses.iter());
            all.extend(addresses.into_iter().flatten().filter(|ip| is_at(ip, task)));
        }
        all
    }

    /// What keeps facts from the product now, and how long it may need to look around once that is over.
    pub(crate) fn what_blinds(&self) -> Option<(&'static str, Duration)> {
        let managed = self.shared.with_swarm(|swarm, _| swarm.managed());
        let own = managed
            .iter()
            .filter(|service| service.shape.labels.contains_key(ROLE_LABEL));
        let mut own = own.flat_map(|service| self.tasks(&service.id));
        let stands_still = |task: Task| {
            self.shared
                .gates
                .borrow()
                .get(&task.id)
                .is_some_and(|gate| gate.is_shut())
        };
        let controllers = managed.iter().find(|service| service.shape.name == CONTROLLERS);
        let are_there = controllers.is_some_and(|controllers| {
            let wanted = controllers.shape.replicas.unwrap_or_default().max(1);
            self.ready(&controllers.id) as u64 >= wanted
        });
        let control = Side::Service(CONTROLLERS.to_owned());
        if !self.walls.is_empty() || !self.deaf.is_empty() {
            Some(("a wall", SILENCE))
        } else if self.slow.iter().any(|(a, b, _)| *a == control || *b == control) {
            Some(("a slow link", FOLLOWED_WITH_FAULTS))
        } else if own.any(stands_still) {
            Some(("a process stands still", SILENCE))
        } else if !self.has_leader() || self.nodes(true).iter().any(|node| self.is_lost(&node.id)) {
            Some(("a manager is lost", SILENCE))
        } else if !are_there {
            Some(("a controller is missing", FOLLOWED_WITH_FAULTS))
        } else if self.shared.disk.get() != Disk::Well {
            Some(("a disk is bad", FOLLOWED_WITH_FAULTS))
        } else {
            None
        }
    }

    /// Tells the oracle when facts may not reach the product, and when it has them again: that is, when nothing has kept them
    /// from it for a while, and every proxy serves by what Docker says.
    ///
    /// # Panics
    /// If proxies do not do so within the time in which everything settles.
    pub(crate) fn look_for_what_blinds(&mut self) {
        if !self.deployed {
            return;
        }
        let now = self.now();
        if let Some((what, pause)) = self.what_blinds() {
            if !self.oracle.is_blind() {
                self.shared
                    .trace("oracle", &format!("the product may be blind: {what}"));
                self.oracle.blinds(now);
            }
            let pause = self.clear.map_or(pause, |(_, before)| before.max(pause));
            self.clear = Some((now, pause));
            return;
        }
        let Some((since, pause)) = self.clear else { return };
        if now.since(since) < pause {
            return;
        }
        match self.tables_match() {
            Ok(()) => {
                self.shared.trace("oracle", "the product sees again");
                self.oracle.sees(now);
                self.clear = None;
            }
            Err(why) => assert!(
                now.since(since) < pause + SETTLED,
                "{SETTLED:?} after it should see again, a proxy does not serve by what Docker says: {why}"
            ),
        }
    }

    /// Name of the service of a task.
    pub(crate) fn service_of(&self, task: &TaskId) -> Option<String> {
        self.shared.with_swarm(|swarm, _| service_of(swarm, task))
    }

    fn tasks_on(&self, node: &NodeId) -> Vec<TaskId> {
        let all = self.shared.with_swarm(|swarm, _| swarm.tasks(&[])).unwrap_or_default();
        let here = all.into_iter().filter(|task| task.node.as_ref() == Some(node));
        here.map(|task| task.id).collect()
    }

    /// Nodes, managers or not.
    pub fn nodes(&self, managers: bool) -> Vec<Node> {
        let all = self.shared.with_swarm(|swarm, _| swarm.nodes());
        all.into_iter().filter(|node| node.manager == managers).collect()
    }

    /// A node is lost; if it is a manager, its engine and perhaps the leader or the quorum go with it.
    pub fn lose_node(&mut self, node: &NodeId, loss: Loss) {
        self.strike(&self.tasks_on(node), &format!("{loss:?} of a node is lost"));
        let is_manager = self.nodes(true).iter().any(|manager| manager.id == *node);
        if is_manager {
            match loss {
                Loss::Link => {
                    let believed = self.shared.with_swarm(|swarm, _| swarm.clone());
                    self.shared.engines.borrow_mut().cut_off(node, believed, self.now());
                }
                Loss::Dockerd => self.shared.engines.borrow_mut().stops(node, self.now()),
                Loss::Crash | Loss::Power => self.shared.engines.borrow_mut().stop(node),
            }
        }
        self.command(&format!("loses {loss:?} of {node}"), |swarm, now| {
            swarm.lose_node(node, loss, now)
        });
        if is_manager {
            self.elect();
        }
        self.observe();
    }

    /// A lost node is back.
    pub fn return_node(&mut self, node: &NodeId) {
        let starts = self.now() + self.shared.draw("engine starts", 1000, 4000);
        let mut engines = self.shared.engines.borrow_mut();
        engines.rejoin(node);
        engines.start(node, starts);
        drop(engines);
        self.command(&format!("gets {node} back"), |swarm, now| swarm.return_node(node, now));
        for ip in self.addresses_on(node) {
            // Who was told to stop meanwhile leaves, whoever lists it still.
            let mut here = self
                .processes
                .values()
                .filter(|process| process.addresses.contains(&ip));
            if here.any(Process::serves) {
                self.shared.witness.reachable(ip, self.now());
            }
        }
        if self.has_quorum() {
            self.command("has a quorum", |swarm, now| swarm.regain_quorum(now));
        }
        self.observe();
    }

    fn is_lost(&self, node: &NodeId) -> bool {
        self.shared.with_swarm(|swarm, _| swarm.is_lost(node))
    }

    fn has_quorum(&self) -> bool {
        let managers = self.nodes(true);
        let alive = managers.iter().filter(|node| !self.is_lost(&node.id)).count();
        alive * 2 > managers.len()
    }

    /// What the loss of a manager does to the others.
    fn elect(&mut self) {
        let lost_leader = self.leader.as_ref().is_some_and(|leader| self.is_lost(leader));
        if !self.has_quorum() {
            self.command("has no quorum", |swarm, now| swarm.lose_quorum(now));
        } else if lost_leader {
            self.command("loses its leader", |swarm, now| swarm.lose_leader(now));
        }
        if lost_leader {
            let managers = self.nodes(true).into_iter().map(|node| node.id);
            self.leader = managers.into_iter().find(|node| !self.is_lost(node));
        }
    }

    /// A process stands still: it neither runs nor ends.
    pub fn freeze(&mut self, task: &TaskId) {
        self.shared.trace(&self.shared.task_name(task), "is frozen");
        self.strike(std::slice::from_ref(task), "a process is frozen");
        if let Some(gate) = self.shared.gates.borrow().get(task) {
            gate.freeze();
        }
        self.observe();
    }

    /// A frozen process goes on.
    pub fn thaw(&mut self, task: &TaskId) {
        let gate = self.shared.gates.borrow().get(task).cloned();
        let Some(gate) = gate.filter(|gate| gate.is_shut()) else {
            return;
        };
        self.shared.trace(&self.shared.task_name(task), "goes on");
        gate.thaw();
        // Who was told to stop before takes nobody new afterwards either.
        if self.processes.get(task).is_some_and(Process::serves) {
            for ip in self.addresses_of(std::slice::from_ref(task)) {
                self.shared.witness.reachable(ip, self.now());
            }
        }
        self.observe();
    }

    /// The health check of a task fails from now on.
    pub fn sicken(&mut self, task: &TaskId) {
        self.shared.trace(&self.shared.task_name(task), "is unhealthy");
        self.strike(std::slice::from_ref(task), "a task is unhealthy");
        let task = task.clone();
        self.shared.tell(Fact::Health { task, healthy: false });
    }

    /// Something ails a task of an app from now on; nobody is told.
    pub fn ail(&mut self, task: &TaskId, ailment: Ailment) {
        self.shared
            .trace(&self.shared.task_name(task), &format!("ails: {ailment:?}"));
        let service = self.service_of(task);
        // One that is unfit answers whoever reaches it.
        if ailment != Ailment::Unfit {
            self.shared.witness.ails(&service.unwrap_or_default());
        }
        self.shared.ailments.borrow_mut().insert(task.clone(), ailment);
    }

    /// Nothing ails it any more, and it may be used again.
    pub fn cure(&mut self, task: &TaskId) {
        self.shared.trace(&self.shared.task_name(task), "is cured");
        self.shared.ailments.borrow_mut().remove(task);
        self.shared.witness.allow(task);
    }

    /// What is sent from one side to the other is lost, not so the other way.
    pub fn deafen(&mut self, from: &Side, to: &Side) {
        self.shared.trace("world", &format!("what {from} say to {to} is lost"));
        let pairs = self.pairs(from, to);
        for (ip, other) in &pairs {
            self.sim.partition_oneway(*ip, *other);
        }
        self.deaf.push((from.clone(), to.clone(), pairs));
        self.look_for_what_blinds();
    }

    /// It is heard again.
    pub fn undeafen(&mut self, from: &Side, to: &Side) {
        self.shared.trace("world", &format!("{to} hear {from} again"));
        for (ip, other) in taken(&mut self.deaf, from, to) {
            if self.are_apart(ip, other) {
                self.sim.hold(ip, other);
            } else {
                self.sim.repair_oneway(ip, other);
            }
        }
    }

    /// What two sides say to each other takes up to so long on its way from now on, as on a link that others fill; each
    /// message a time of its own, in order on each connection.
    pub fn delay(&mut self, a: &Side, b: &Side, at_most: Duration) {
        self.shared
            .trace("world", &format!("between {a} and {b}, it takes up to {at_most:?}"));
        let pairs = self.pairs(a, b);
        for (ip, other) in &pairs {
            self.sim.set_link_max_message_latency(*ip, *other, at_most);
        }
        self.slow.push((a.clone(), b.clone(), pairs));
        self.look_for_what_blinds();
    }

    /// It takes as long as it did at first.
    pub fn hasten(&mut self, a: &Side, b: &Side) {
        self.shared
            .trace("world", &format!("{a} and {b} are as near as they were"));
        for (ip, other) in taken(&mut self.slow, a, b) {
            self.sim.set_link_max_message_latency(ip, other, self.farthest);
        }
    }

    /// The disks that proxies keep their tables on.
    pub fn set_disk(&mut self, disk: Disk) {
        self.shared.trace("world", &format!("disks are {disk:?}"));
        self.shared.disk.set(disk);
    }

    /// The wall clock of a node jumps, for all that runs there.
    pub fn jump_clock(&mut self, node: &NodeId, seconds: i64) {
        self.shared
            .trace("world", &format!("the clock of {node} jumps by {seconds} s"));
        self.shared.skew(node).fetch_add(seconds, Ordering::Relaxed);
    }

    /// Whether the Swarm has a leader.
    pub fn has_leader(&self) -> bool {
        self.shared.with_swarm(|swarm, _| swarm.leaderless_since().is_none())
    }

    /// The service of this name.
    pub fn service(&self, name: &str) -> Option<ServiceId> {
        self.shared.with_swarm(|swarm, _| swarm.service_named(name))
    }

    /// Whether some task of a service can really answer, through some proxy.
    pub fn can_serve(&self, service: &ServiceId) -> bool {
        let can = |task: &Task| self.shared.with_swarm(|swarm, _| swarm.can_answer(&task.id));
        let proxies = self.service(PROXIES);
        let proxies = proxies.iter().flat_map(|proxies| self.tasks(proxies));
        self.tasks(service).iter().any(can) && proxies.into_iter().any(|task| can(&task))
    }

    /// An operator's change, which the Swarm may refuse; whether it took it.
    pub fn try_edit(&mut self, what: &str, service: &ServiceId, change: impl FnOnce(&mut ServiceShape)) -> bool {
        self.command(what, |swarm, now| swarm.edit_service(service, now, change))
            .is_ok()
    }

    /// The same for a label of the old prefix.
    pub fn try_relabel(&mut self, service: &ServiceId, key: &str, value: &str) -> bool {
        let label = format!("com.docker.lb.{key}");
        self.try_edit(&format!("sets {label}={value}"), service, |shape| {
            shape.labels.insert(label.clone(), value.to_owned());
        })
    }

    /// Whether every proxy that runs serves each service by exactly the tasks that Docker says serve.
    ///
    /// # Errors
    /// With the first difference.
    pub fn tables_match(&self) -> Result<(), String> {
        let tables = self.shared.witness.tables();
        let services = self.shared.with_swarm(|swarm, _| swarm.services(&[]));
        for service in &services {
            let Some(cluster) = service
                .labels
                .get(CLUSTER_LABEL)
                .filter(|_| service.labels.contains_key(ROLE_LABEL))
            else {
                continue;
            };
            for proxy in self.tasks(&service.id).iter().filter(|task| task.is_serving()) {
                let ips = self.addresses_of(std::slice::from_ref(&proxy.id));
                let table = ips.first().and_then(|ip| tables.get(ip));
                let table = table.ok_or_else(|| format!("proxy {} has no table", proxy.id))?;
                self.table_matches(table, cluster, &services)
                    .map_err(|why| format!("proxy {}: {why}", proxy.id))?;
            }
        }
        Ok(())
    }

    fn table_matches(&self, table: &Table, cluster: &str, services: &[Service]) -> Result<(), String> {
        let is_routed = |id: &ServiceId| {
            let mut routed = services.iter().filter(|service| service.labels.contains_key(HOSTS));
            routed.any(|service| service.id == *id)
        };
        if let Some(spec) = table.snapshot.routes.values().find(|spec| !is_routed(&spec.service)) {
            return Err(format!("{} is served and should not be", spec.name));
        }
        let routed = services.iter().filter(|service| service.labels.contains_key(HOSTS));
        for service in routed.filter(|service| is_well_labelled(service)) {
            let own = service
                .labels
                .get("com.docker.lb.service_cluster")
                .map_or("default", String::as_str);
            if own != cluster {
                continue;
            }
            let tasks = self.tasks(&service.id);
            let wanted: BTreeSet<&str> = tasks
                .iter()
                .filter(|task| task.is_serving())
                .map(|task| task.id.as_str())
                .collect();
            let spec = table.snapshot.routes.get(&service.id);
            let endpoints = spec.iter().flat_map(|spec| &spec.endpoints);
            let served: BTreeSet<&str> = endpoints
                .filter(|endpoint| endpoint.leaving.is_none())
                .map(|endpoint| endpoint.id.as_str())
                .collect();
            if wanted != served {
                return Err(format!(
                    "{} is served by {served:?} and should be by {wanted:?}",
                    service.name
                ));
            }
        }
        Ok(())
    }
}
