//! What all hosts of a world share: the Swarm, the trace, names, volumes, what users ask for and what they got.
//! Everything runs on one thread; no borrow lives across an await.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use tidegate::app::controller::ControllerQuery;
use tidegate::clock::Clock;
use tidegate::secrets::Secrets;
use tidegate_core::id::{NodeId, TaskId, Version};
use tidegate_core::reconcile::proxy::PROXY_HTTPS_PORT;
use tidegate_core::rng::Rng;
use tidegate_core::simulated::{Fact, Swarm};
use tidegate_core::swarm::model::{Event, FeedEnd, NetworkAddress, Task, TaskEvent};
use tidegate_core::time::Instant;
use tokio::sync::mpsc;

use crate::backend::Ailment;
use crate::client::{Channel, Outcome, Wish};
use crate::engine::{Engines, Reach};
use crate::gate::Gate;
use crate::pki::Pki;
use crate::product::CONTROL_NETWORK;
use crate::reset::Connections;
use crate::trace::Trace;
use crate::witness::Witness;

/// Wall time at the start of every simulation: 2026-01-01, as in the Swarm's own time stamps.
pub const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// See the module.
pub struct Shared {
    pub(crate) rng: Rng,
    pub(crate) streams: RefCell<BTreeMap<String, Rng>>,
    pub(crate) swarm: RefCell<Swarm>,
    pub(crate) trace: Rc<Trace>,
    pub(crate) now: Cell<Instant>,
    pub(crate) facts: RefCell<Vec<Fact>>,
    pub(crate) engines: RefCell<Engines>,
    pub(crate) gates: RefCell<BTreeMap<TaskId, Rc<Gate>>>,
    pub(crate) pki: Pki,
    /// Of the product's processes.
    pub(crate) connections: RefCell<Connections>,
    /// What ails single tasks of apps.
    pub(crate) ailments: RefCell<BTreeMap<TaskId, Ailment>>,
    pub(crate) disk: Cell<Disk>,
    /// How far the wall clocks of nodes are from the true time, in seconds. Clocks of the product are copied freely, so what
    /// they look at stays for good: eight bytes a node.
    skews: RefCell<BTreeMap<NodeId, &'static AtomicI64>>,
    pub(crate) witness: Witness,
    pub(crate) names: RefCell<BTreeMap<String, Vec<IpAddr>>>,
    pub(crate) wishes: RefCell<Vec<Wish>>,
    pub(crate) entries: RefCell<Entries>,
    pub(crate) volumes: RefCell<BTreeMap<String, (String, Instant)>>,
    /// Of proxies, by service and task.
    pub(crate) secrets: RefCell<BTreeMap<(String, String), Secrets>>,
    /// Whether controllers are recorded, and where each is asked for it.
    pub(crate) recorded: Cell<bool>,
    pub(crate) recordings: RefCell<BTreeMap<TaskId, mpsc::Sender<ControllerQuery>>>,
    /// The service of proxies that each secret is for.
    owners: RefCell<BTreeMap<String, String>>,
    pub(crate) healed: Cell<bool>,
    pub(crate) under_way: Cell<u64>,
    pub(crate) outcomes: RefCell<Vec<Outcome>>,
}

/// The disks that proxies keep their tables on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// Nothing can be written.
    Full,
    /// The power goes in the middle of a write: half of the text is there afterwards.
    Torn,
    /// All is well.
    Well,
}

/// Where users send their requests.
pub(crate) enum Entries {
    /// Fixed addresses.
    At(Vec<SocketAddr>),
    /// Whatever tasks of a service Docker's own balancer knows at the moment.
    Service { name: String, port: u16 },
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("now", &self.now.get())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Nobody there yet.
    pub(crate) fn new(rng: Rng, swarm: Swarm, trace: Rc<Trace>) -> Self {
        Shared {
            rng,
            streams: RefCell::default(),
            swarm: RefCell::new(swarm),
            trace,
            now: Cell::new(Instant::START),
            facts: RefCell::default(),
            engines: RefCell::default(),
            gates: RefCell::default(),
            pki: Pki::new(),
            connections: RefCell::default(),
            ailments: RefCell::default(),
            disk: Cell::new(Disk::Well),
            skews: RefCell::default(),
            witness: Witness::default(),
            names: RefCell::default(),
            wishes: RefCell::default(),
            entries: RefCell::new(Entries::At(Vec::new())),
            volumes: RefCell::default(),
            secrets: RefCell::default(),
            recorded: Cell::new(false),
            recordings: RefCell::default(),
            owners: RefCell::default(),
            healed: Cell::new(false),
            under_way: Cell::new(0),
            outcomes: RefCell::default(),
        }
    }

    /// Remembers what a proxy has in memory, for a look at it.
    pub(crate) fn keeps_secrets(&self, service: &str, task: &str, secrets: &Secrets) {
        let key = (service.to_owned(), task.to_owned());
        self.secrets.borrow_mut().insert(key, secrets.clone());
    }

    /// What each proxy of a service that runs, as the Swarm says, has as the content of a secret.
    pub fn contents(&self, service: &str, secret: &str) -> Vec<Option<String>> {
        let secrets = self.secrets.borrow();
        let runs = |task: &str| {
            let id = TaskId::from(task);
            self.with_swarm(|swarm, _| swarm.task(&id).is_some_and(Task::is_serving))
        };
        let proxies = secrets.iter().filter(|((of, task), _)| of == service && runs(task));
        let content = |known: &Secrets| known.get(secret).content.map(|text| text.expose().to_owned());
        proxies.map(|(_, known)| content(known)).collect()
    }

    /// Only proxies of this service may ever have the content of a secret.
    pub(crate) fn belongs(&self, secret: &str, service: &str) {
        let mut owners = self.owners.borrow_mut();
        owners.insert(secret.to_owned(), service.to_owned());
    }

    /// Tells the witness of every proxy that has the content of a secret which is not its own.
    pub(crate) fn judge_secrets(&self) {
        let secrets = self.secrets.borrow();
        for (secret, owner) in self.owners.borrow().iter() {
            let others = secrets.iter().filter(|((service, _), _)| service != owner);
            for ((service, task), _) in others.filter(|(_, known)| known.get(secret).content.is_some()) {
                let now = self.now();
                let what = format!("{now}: task {task} of {service} has the secret {secret}, which is {owner}'s");
                self.witness.breaks(what);
            }
        }
    }

    /// Virtual time since the simulation began, on every host alike.
    pub fn now(&self) -> Instant {
        turmoil::sim_elapsed().map_or(self.now.get(), Instant::at)
    }

    /// Waits on the host that asks.
    pub async fn wait(&self, time: Duration) {
        static RIGHT: AtomicI64 = AtomicI64::new(0);
        let clock = Clock::simulated(EPOCH, &RIGHT);
        clock.sleep_until(Some(clock.now() + time)).await;
    }

    /// The product's clock for a process that starts now on a node, with that node's idea of the wall time.
    pub fn clock(&self, node: &NodeId) -> Clock {
        Clock::simulated(EPOCH + self.now().since_start(), self.skew(node))
    }

    /// How far the wall clock of a node is off, in seconds.
    pub(crate) fn skew(&self, node: &NodeId) -> &'static AtomicI64 {
        let mut skews = self.skews.borrow_mut();
        skews.entry(node.clone()).or_insert_with(|| Box::leak(Box::default()))
    }

    /// What becomes of a call to the engine of `node` now.
    pub(crate) fn reach(&self, node: &NodeId) -> Reach {
        self.engines.borrow().reach(node, &self.swarm.borrow(), self.now())
    }

    /// Asks the Swarm that a manager which is cut off believes in; `None` where it is not.
    pub(crate) fn with_believed<T>(&self, node: &NodeId, run: impl FnOnce(&mut Swarm) -> T) -> Option<T> {
        self.engines.borrow_mut().believed(node).map(run)
    }

    /// Certificates of this world.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// What the proxies of a service say of secrets, each on its own.
    pub fn findings(&self, service: &str) -> Vec<Vec<String>> {
        let secrets = self.secrets.borrow();
        let proxies = secrets.iter().filter(|((of, _), _)| of == service);
        let said = |known: &Secrets| known.findings().borrow().iter().map(ToString::to_string).collect();
        proxies.map(|(_, known)| said(known)).collect()
    }

    /// What ails a task.
    pub(crate) fn ailment(&self, task: &TaskId) -> Option<Ailment> {
        self.ailments.borrow().get(task).copied()
    }

    /// What really happened.
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// A stream of chance named `name`.
    pub fn fork(&self, name: &str) -> Rng {
        self.rng.fork(name)
    }

    /// A time between two numbers of milliseconds, from the stream of `name`.
    pub fn draw(&self, name: &str, low_ms: u64, high_ms: u64) -> Duration {
        let mut streams = self.streams.borrow_mut();
        let stream = streams.entry(name.to_owned()).or_insert_with(|| self.rng.fork(name));
        Duration::from_millis(stream.between(low_ms, high_ms))
    }

    /// Adds a line to the trace.
    pub fn trace(&self, host: &str, what: &str) {
        self.trace.add(self.now(), host, what);
    }

    /// Tells the Swarm something about a process.
    pub fn tell(&self, fact: Fact) {
        self.facts.borrow_mut().push(fact);
    }

    /// Asks or commands the Swarm.
    pub fn with_swarm<T>(&self, run: impl FnOnce(&mut Swarm, Instant) -> T) -> T {
        run(&mut self.swarm.borrow_mut(), self.now())
    }

    /// The event stream of a manager, and how many events of its history it begins with.
    pub(crate) fn subscribe(&self, node: &NodeId) -> (mpsc::UnboundedReceiver<Event>, usize) {
        self.engines.borrow_mut().subscribe(node)
    }

    /// The watch of a manager, and what it tells of the past.
    pub(crate) fn watch(
        &self,
        node: &NodeId,
        from: Option<Version>,
    ) -> Result<(mpsc::UnboundedReceiver<Vec<TaskEvent>>, Vec<TaskEvent>), FeedEnd> {
        self.engines.borrow_mut().watch(node, from)
    }

    /// What names stand for: hosts of the world, and Docker's `tasks.NAME`.
    pub fn addresses_of(&self, name: &str) -> Vec<IpAddr> {
        if let Some(service) = name.strip_prefix("tasks.") {
            let found = self.with_swarm(|swarm, _| swarm.dns(service, None));
            if !found.is_empty() {
                return found;
            }
        }
        self.names.borrow().get(name).cloned().unwrap_or_default()
    }

    /// Whether faults have stopped.
    pub fn is_healed(&self) -> bool {
        self.healed.get()
    }

    /// What a user asks for next, and at which proxy; `None` while there is nothing to ask.
    pub fn next_wish(&self, rng: &mut Rng) -> Option<(Wish, SocketAddr)> {
        let wish = rng.pick(&self.wishes.borrow()).cloned()?;
        let mut entry = self.entry(rng)?;
        if wish.channel != Channel::Clear {
            entry.set_port(PROXY_HTTPS_PORT);
        }
        Some((wish, entry))
    }

    /// Whether users ask for anything now.
    pub(crate) fn is_loaded(&self) -> bool {
        !self.wishes.borrow().is_empty()
    }

    /// A proxy, as Docker's balancer or a user's list gives one.
    pub(crate) fn entry(&self, rng: &mut Rng) -> Option<SocketAddr> {
        match &*self.entries.borrow() {
            Entries::At(addresses) => rng.pick(addresses).copied(),
            Entries::Service { name, port } => {
                let known = self.with_swarm(|swarm, _| {
                    let control = swarm.network_named(CONTROL_NETWORK);
                    swarm.dns(name, control.as_ref())
                });
                rng.pick(&known).map(|ip| SocketAddr::new(*ip, *port))
            }
        }
    }

    /// What a volume holds, and since when.
    pub fn volume(&self, name: &str) -> Option<(String, Instant)> {
        self.volumes.borrow().get(name).cloned()
    }

    /// Tells the witness of a proxy that starts and may serve by what its volume holds.
    pub(crate) fn starts_from_table(&self, proxy: &[NetworkAddress], volume: &str) {
        if let Some((_, since)) = self.volume(volume) {
            for held in proxy {
                self.witness.starts_from_table(held.addr, since, self.now());
            }
        }
    }

    /// Keeps a text in a volume, as far as the disk lets it.
    ///
    /// # Errors
    /// If the disk is full.
    pub fn keep(&self, name: &str, text: &str) -> io::Result<()> {
        let kept = match self.disk.get() {
            Disk::Full => return Err(io::Error::new(io::ErrorKind::StorageFull, "No space left on device")),
            Disk::Torn => text.get(..text.len() / 2).unwrap_or_default(),
            Disk::Well => text,
        };
        let kept = (kept.to_owned(), self.now());
        self.volumes.borrow_mut().insert(name.to_owned(), kept);
        Ok(())
    }

    /// A request begins.
    pub fn begin(&self) {
        self.under_way.set(self.under_way.get() + 1);
    }

    /// A request ended.
    pub fn end(&self, outcome: Outcome) {
        self.under_way.set(self.under_way.get() - 1);
        self.outcomes.borrow_mut().push(outcome);
    }

    /// A task as people call it: `shop.1.x7f3`.
    pub fn task_name(&self, id: &TaskId) -> String {
        let Ok(swarm) = self.swarm.try_borrow() else {
            return id.to_string();
        };
        let short = &id.as_str()[..4.min(id.as_str().len())];
        let Some(task) = swarm.task(id) else {
            return format!("task {short}");
        };
        let service = swarm.shape(&task.service).map_or("gone", |shape| shape.name.as_str());
        match task.slot {
            Some(slot) => format!("{service}.{slot}.{short}"),
            None => format!("{service}.{short}"),
        }
    }
}
