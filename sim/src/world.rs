//! One simulation: a Swarm, a network, apps, users and the product, in one virtual time, all drawn from one seed.
//!
//! The world moves in steps of a millisecond. In each, turmoil runs every host; then the Swarm takes the facts of this
//! step and what is due, and its actions start, signal and cut off hosts. Nothing else moves anything, so the trace is
//! the same for the same seed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tidegate_core::id::{NodeId, ServiceId, TaskId, Version};
use tidegate_core::machine::{Input, Machine, step};
use tidegate_core::rng::Rng;
use tidegate_core::simulated::{Delays, Fact, Start, Swarm};
use tidegate_core::swarm::model::{DesiredState, Task};
use tidegate_core::time::Instant;
use tokio::sync::watch;

use crate::backend::{App, Signal};
use crate::bounds;
use crate::client::{self, Outcome, Wish};
use crate::faults::DockerFaults;
use crate::oracle::{Oracle, Seen};
use crate::panics;
use crate::processes::{Host, Process};
use crate::seed::Seed;
use crate::shared::{EPOCH, Entries, Shared};
use crate::streams;
use crate::trace::Trace;
use crate::trouble::BadLink;
use crate::walls::Side;

/// A process that runs on a simulated host.
pub type Running = Pin<Box<dyn Future<Output = ()>>>;

/// What the world runs for a task that is not an app: given the task and its signals.
pub type Launcher =
    Box<dyn Fn(Rc<Shared>, Start, watch::Receiver<Signal>) -> std::pin::Pin<Box<dyn Future<Output = ()>>>>;

/// One simulation.
pub struct World {
    pub(crate) seed: Seed,
    pub(crate) acts: u32,
    pub(crate) sim: turmoil::Sim<'static>,
    pub(crate) shared: Rc<Shared>,
    pub(crate) hosts: BTreeMap<IpAddr, Rc<Host>>,
    pub(crate) fixed: Vec<IpAddr>,
    pub(crate) processes: BTreeMap<TaskId, Process>,
    /// The manager that leads.
    pub(crate) leader: Option<NodeId>,
    /// Between which sides nothing passes.
    pub(crate) walls: Vec<(Side, Side)>,
    /// Who does not hear whom.
    pub(crate) deaf: Vec<BadLink>,
    /// Between which sides messages take long.
    pub(crate) slow: Vec<BadLink>,
    /// What a message takes at most elsewhere.
    pub(crate) farthest: Duration,
    /// Since when nothing keeps facts from the product, where something did.
    pub(crate) clear: Option<(Instant, Duration)>,
    /// Whether the product is deployed.
    pub(crate) deployed: bool,
    observed: Option<Version>,
    pub(crate) apps: BTreeMap<String, App>,
    pub(crate) launchers: Vec<(String, Rc<Launcher>)>,
    pub(crate) oracle: Oracle,
    rng: Rng,
    faults: DockerFaults,
    grace: Duration,
    _logs: tracing::subscriber::DefaultGuard,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl World {
    /// An empty world: a manager and two to four workers, a network for apps, nobody on it.
    pub fn new(seed: &Seed, faults: DockerFaults) -> Self {
        World::with_managers(seed, faults, 1)
    }

    /// The same with so many managers.
    pub fn with_managers(seed: &Seed, faults: DockerFaults, managers: u64) -> Self {
        panics::watch();
        let rng = Rng::new(seed.value());
        let mut topology = rng.fork("topology");
        let (low, high) = (topology.between(0, 2), topology.between(2, 6));
        let mut builder = turmoil::Builder::new();
        builder
            .rng_seed(rng.fork("turmoil").next_u64())
            .epoch(SystemTime::UNIX_EPOCH + EPOCH)
            .simulation_duration(Duration::from_secs(86_400))
            .tick_duration(Duration::from_millis(1))
            .min_message_latency(Duration::from_millis(low))
            .max_message_latency(Duration::from_millis(high))
            // A window of 64 segments would make every body wait; real sockets have more room.
            .tcp_capacity(1024);
        let mut swarm = Swarm::new(Delays::default(), rng.fork("swarm"));
        let workers = topology.between(2, 4);
        for number in 1..=managers {
            swarm.add_node(&format!("m{number}"), None, true, Instant::START);
        }
        for number in 1..=workers {
            swarm.add_node(&format!("w{number}"), None, false, Instant::START);
        }
        swarm
            .create_network("apps", false, Instant::START)
            .expect("a new Swarm has no network of this name");
        let mut clocks = rng.fork("clocks");
        let skews: Vec<(NodeId, i64)> = if clocks.chance(1, 4) {
            let nodes = swarm.nodes().into_iter();
            nodes
                .map(|node| (node.id, clocks.between(0, 240) as i64 - 120))
                .collect()
        } else {
            Vec::new()
        };
        let wrong = if skews.is_empty() { "right" } else { "wrong" };
        let drawn = format!("{managers} managers, {workers} workers, links {low}..{high} ms, {wrong} clocks, {faults}");
        seed.note(|report| report.drawn = drawn);
        let trace = Trace::new(seed.clone());
        let logs = trace.capture();
        let leader = swarm.nodes().into_iter().find(|node| node.manager).map(|node| node.id);
        let shared = Rc::new(Shared::new(rng.clone(), swarm, trace));
        for (node, off) in skews {
            shared.skew(&node).store(off, Ordering::Relaxed);
        }
        World {
            seed: seed.clone(),
            acts: 0,
            leader,
            walls: Vec::new(),
            deaf: Vec::new(),
            slow: Vec::new(),
            farthest: Duration::from_millis(high),
            clear: None,
            deployed: false,
            observed: None,
            sim: builder.build(),
            shared,
            hosts: BTreeMap::new(),
            fixed: Vec::new(),
            processes: BTreeMap::new(),
            apps: BTreeMap::new(),
            launchers: Vec::new(),
            oracle: Oracle::default(),
            rng: rng.fork("story"),
            faults,
            grace: Duration::from_millis(1500),
            _logs: logs,
        }
    }

    /// What hosts share.
    pub fn shared(&self) -> &Rc<Shared> {
        &self.shared
    }

    /// The stream of chance of the story itself.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// How the Docker API behaves here.
    pub fn faults(&self) -> &DockerFaults {
        &self.faults
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        self.shared.now.get()
    }

    /// How tasks of the service called `name` behave, instead of the default app.
    pub fn app(&mut self, name: &str, app: App) {
        if app.flaky > 0 || app.leaky {
            self.shared.witness.moody(name);
        }
        self.apps.insert(name.to_owned(), app);
    }

    /// What runs for tasks whose service has the label `role`=`value`, written `role=value`.
    pub fn launch(&mut self, label: &str, launcher: Launcher) {
        self.launchers.push((label.to_owned(), Rc::new(launcher)));
    }

    /// Adds a host outside the Swarm that `name` resolves to. It starts at once; [`World::bounce`] restarts it.
    pub fn host<F>(&mut self, name: &str, alias: &str, program: impl Fn() -> F + 'static) -> IpAddr
    where
        F: Future<Output = ()> + 'static,
    {
        self.sim.host(name, move || {
            let running = program();
            async move {
                running.await;
                Ok(())
            }
        });
        let ip = self.sim.lookup(name);
        self.fixed.push(ip);
        let mut names = self.shared.names.borrow_mut();
        names.entry(name.to_owned()).or_default().push(ip);
        names.entry(alias.to_owned()).or_default().push(ip);
        ip
    }

    /// Kills what runs on a host; its address swallows packets until [`World::bounce`].
    pub fn crash(&mut self, name: &str) {
        self.shared.trace(name, "crashes");
        self.sim.crash(name);
    }

    /// Starts a host anew.
    pub fn bounce(&mut self, name: &str) {
        self.shared.trace(name, "starts anew");
        self.sim.bounce(name);
    }

    /// Adds a user.
    pub fn user(&mut self, name: &str) {
        let (shared, own) = (self.shared.clone(), name.to_owned());
        self.sim.client(name, async move {
            client::run(shared, own).await;
            Ok(())
        });
        self.fixed.push(self.sim.lookup(name));
    }

    /// Where users send their requests.
    pub fn enter_at(&mut self, entries: Vec<SocketAddr>) {
        *self.shared.entries.borrow_mut() = Entries::At(entries);
    }

    /// Users send their requests to the tasks of a service, as Docker's routing mesh would.
    pub fn enter_at_service(&mut self, name: &str, port: u16) {
        let name = name.to_owned();
        *self.shared.entries.borrow_mut() = Entries::Service { name, port };
    }

    /// Adds a user that holds streams to what `wish` names.
    pub fn stream_user(&mut self, name: &str, wish: &Wish) {
        let (shared, own, wish) = (self.shared.clone(), name.to_owned(), wish.clone());
        self.sim.client(name, async move {
            streams::run(shared, own, wish).await;
            Ok(())
        });
        self.fixed.push(self.sim.lookup(name));
    }

    /// Users ask for these from now on.
    pub fn load(&mut self, wishes: Vec<Wish>) {
        *self.shared.wishes.borrow_mut() = wishes;
    }

    /// Users ask for nothing more, and what they asked for has been answered.
    pub fn stop_load(&mut self) {
        self.shared.wishes.borrow_mut().clear();
        self.until("every request under way ends", Duration::from_secs(60), |world| {
            world.shared.under_way.get() == 0
        });
    }

    /// A command to the Swarm, from an operator whose API never fails.
    pub fn command<T>(&mut self, what: &str, run: impl FnOnce(&mut Swarm, Instant) -> T) -> T {
        self.shared.trace("operator", what);
        let answer = self.shared.with_swarm(run);
        self.drain_swarm();
        answer
    }

    /// All tasks of a service.
    pub fn tasks(&self, service: &ServiceId) -> Vec<Task> {
        let asked = std::slice::from_ref(service);
        self.shared
            .with_swarm(|swarm, _| swarm.tasks(asked))
            .unwrap_or_default()
    }

    /// Tasks of a service that both states call running.
    pub fn serving(&self, service: &ServiceId) -> usize {
        self.tasks(service).iter().filter(|task| task.is_serving()).count()
    }

    /// The process of a task dies.
    pub fn kill_process(&mut self, task: &TaskId) {
        self.shared.trace(&self.shared.task_name(task), "is killed");
        self.strike(std::slice::from_ref(task), "a process is killed");
        self.thaw(task);
        if let Some(process) = self.processes.get(task) {
            process.signals.send_replace(Signal::Kill);
        }
    }

    /// What users got so far.
    pub fn outcomes(&self) -> Vec<Outcome> {
        self.shared.outcomes.borrow().clone()
    }

    /// How many answers users got so far: a mark for [`World::got_since`].
    pub fn mark(&self) -> usize {
        self.shared.outcomes.borrow().len()
    }

    /// Whether users got such an answer since the mark.
    pub fn got_since(&self, mark: usize, wanted: impl Fn(&Outcome) -> bool) -> bool {
        let outcomes = self.shared.outcomes.borrow();
        outcomes.get(mark..).unwrap_or_default().iter().any(wanted)
    }

    /// From now on nothing new goes wrong.
    pub fn heal(&mut self) {
        self.shared.healed.set(true);
        self.shared.trace("world", "heals");
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now() + time;
        while self.now() < end {
            self.tick();
        }
    }

    /// Lets time pass until `done`; the time that took.
    ///
    /// # Panics
    /// If it takes longer than `limit`.
    pub fn until(&mut self, what: &str, limit: Duration, mut done: impl FnMut(&World) -> bool) -> Duration {
        let begin = self.now();
        while !done(self) {
            let waited = self.now().since(begin);
            assert!(waited < limit, "waited {limit:?} in vain: {what}");
            self.tick();
        }
        let took = self.now().since(begin);
        self.shared.trace("world", &format!("after {took:?}: {what}"));
        took
    }

    /// Waits until every proxy serves by what Docker says.
    ///
    /// # Panics
    /// If it takes longer than `limit`, with the first difference.
    pub fn until_tables_match(&mut self, limit: Duration) {
        let begin = self.now();
        while let Err(why) = self.tables_match() {
            let waited = self.now().since(begin);
            assert!(
                waited < limit,
                "after {limit:?} not every proxy serves by what Docker says: {why}"
            );
            self.tick();
        }
        let took = self.now().since(begin);
        self.shared.trace(
            "world",
            &format!("after {took:?}: every proxy serves by what Docker says"),
        );
    }

    /// Judges everything so far.
    ///
    /// # Panics
    /// If the expectation is broken.
    pub fn expect(&self, expectation: impl FnOnce(Seen<'_>) -> Result<(), String>) {
        let outcomes = self.shared.outcomes.borrow();
        let seen = Seen {
            oracle: &self.oracle,
            outcomes: &outcomes,
            grace: self.grace,
            witness: &self.shared.witness,
        };
        if let Err(broken) = expectation(seen) {
            panic!("{broken}");
        }
    }

    /// How long the product may take to follow a change; 1.5 s unless set.
    pub fn set_grace(&mut self, grace: Duration) {
        self.grace = grace;
    }

    fn tick(&mut self) {
        if let Err(error) = self.sim.step() {
            panic!("a host stopped: {error}");
        }
        // What hosts did in this step, they did at its beginning, as they see it.
        let then = self.now();
        let now = Instant::at(self.sim.elapsed());
        self.shared.now.set(now);
        self.shared.trace.set_now(now);
        let facts: Vec<Fact> = self.shared.facts.borrow_mut().drain(..).collect();
        for fact in facts {
            if let Fact::Exited { task, .. } = &fact
                && let Some(process) = self.processes.get_mut(task)
            {
                process.exited = true;
                self.shared.witness.ends(task, then);
                // An unhealthy one, say, is ended by its node, and nobody is told before it has ended.
                let service = self.shared.with_swarm(|swarm, _| match self.oracle.is_blind() {
                    true => service_of(swarm, task),
                    false => wanted(swarm, task),
                });
                if let Some(service) = service {
                    let (witness, tasks) = (&self.shared.witness, std::slice::from_ref(task));
                    witness.blow_to_unsafe(then, &service, tasks, "a task ends unannounced");
                }
                for ip in &process.addresses {
                    self.shared.witness.exits(*ip, then);
                }
                self.observed = None;
            }
            self.step_swarm(Input::Fact(fact));
        }
        self.shared.engines.borrow_mut().end_stopped(now);
        self.drain_swarm();
        let due = self.shared.swarm.borrow().poll_timeout();
        if due.is_some_and(|due| due.at <= now) {
            self.step_swarm(Input::Timeout);
        }
        let index = self.shared.swarm.borrow().index();
        if self.observed != Some(index) {
            self.observed = Some(index);
            self.observe();
        }
        if now.since_start().as_millis().is_multiple_of(bounds::EVERY.as_millis()) {
            self.shared.witness.judge_idle(now);
            self.shared.judge_secrets();
            self.look_for_what_blinds();
        }
        if let Some(panic) = panics::taken() {
            panic!("a task panicked: {panic}");
        }
        if let Some(error) = self.shared.trace.errors().first() {
            panic!("the product logged an error: {error}");
        }
    }

    /// Looks at the facts again.
    pub(crate) fn observe(&mut self) {
        let frozen = |task: &TaskId| self.shared.gates.borrow().get(task).is_some_and(|gate| gate.is_shut());
        let (swarm, now) = (self.shared.swarm.borrow(), self.now());
        self.oracle.observe(&swarm, frozen, now);
        for task in swarm.tasks(&[]).unwrap_or_default() {
            if task.desired.is_past_running() {
                self.shared.witness.leaves(&task.id, now);
            }
            if task.is_serving() {
                let can_answer = swarm.can_answer(&task.id) && !frozen(&task.id);
                self.shared.witness.sees(&task.id, can_answer, now);
            }
        }
    }

    fn step_swarm(&mut self, input: Input<Fact>) {
        let mut actions = Vec::new();
        step(&mut *self.shared.swarm.borrow_mut(), input, self.now(), |action| {
            actions.push(action);
        });
        for action in actions {
            self.perform(action);
        }
    }

    /// Performs what follows from commands.
    fn drain_swarm(&mut self) {
        loop {
            let action = self.shared.swarm.borrow_mut().poll_action();
            let Some(action) = action else { break };
            self.perform(action);
        }
        let swarm = self.shared.swarm.borrow();
        self.shared.engines.borrow_mut().tell_tasks(&swarm);
    }
}

/// The name of the service of a task.
pub(crate) fn service_of(swarm: &Swarm, task: &TaskId) -> Option<String> {
    Some(swarm.shape(&swarm.task(task)?.service)?.name.clone())
}

/// The name of the service of a task that is wanted, as far as anybody was told.
fn wanted(swarm: &Swarm, task: &TaskId) -> Option<String> {
    let is_wanted = swarm.task(task)?.desired == DesiredState::Running;
    service_of(swarm, task).filter(|_| is_wanted)
}
