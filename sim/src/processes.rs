//! What the Swarm's actions do to hosts: they start and signal processes, and cut addresses off.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use tidegate_core::id::{NodeId, TaskId};
use tidegate_core::simulated::{Action, Fact, Start};
use tokio::sync::watch;

use crate::backend::{self, Signal};
use crate::gate::{self, Gate};
use crate::product::CONTROL_NETWORK;
use crate::walls::Link;
use crate::world::{Running, World};

/// What runs on a host whose address the Swarm gave out.
type Program = Rc<dyn Fn() -> Running>;

pub(crate) struct Host {
    program: RefCell<Program>,
    pub(crate) task: RefCell<Option<TaskId>>,
    pub(crate) node: RefCell<Option<NodeId>>,
}

pub(crate) struct Process {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) signals: watch::Sender<Signal>,
    pub(crate) exited: bool,
}

impl Process {
    /// Whether it runs, and was not told to stop.
    pub(crate) fn serves(&self) -> bool {
        !self.exited && *self.signals.borrow() == Signal::None
    }
}

impl World {
    pub(crate) fn perform(&mut self, action: Action) {
        match action {
            Action::Start(start) => self.start(start),
            Action::Signal(task) => self.signal(&task, Signal::Term),
            Action::Kill(task) => self.signal(&task, Signal::Kill),
            Action::BlackHole(task) => self.black_hole(&task),
            Action::Emit(event, attributes) => {
                let line = format!("{:?} {:?} {} {attributes}", event.kind, event.action, event.id);
                self.shared.trace("events", &line);
                self.shared.engines.borrow_mut().emit(&event);
            }
            Action::Unlink(node) => self.link(&node, Link::Cut),
            Action::Rejoin(node) => self.link(&node, Link::Whole),
        }
    }

    fn start(&mut self, start: Start) {
        self.shared.trace(&self.shared.task_name(&start.task), "starts");
        let (signals, receiver) = watch::channel(Signal::None);
        let launcher = self.launchers.iter().find(|(label, _)| {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            start.shape.labels.get(key).is_some_and(|actual| actual == value)
        });
        let app = self.apps.get(&start.name).cloned().unwrap_or_default();
        // The product is one host, at its address on the control network; an app is one on each of its networks.
        let control = self.shared.with_swarm(|swarm, _| swarm.network_named(CONTROL_NETWORK));
        let held = start
            .addresses
            .iter()
            .filter(|held| launcher.is_none() || control.as_ref() == Some(&held.network));
        let addresses: Vec<IpAddr> = held.map(|held| held.addr).collect();
        let process = Process {
            addresses: addresses.clone(),
            signals,
            exited: false,
        };
        self.processes.insert(start.task.clone(), process);
        let (shared, launcher) = (self.shared.clone(), launcher.map(|(_, launcher)| launcher.clone()));
        let task = start.task.clone();
        let node = start.node.clone();
        let gate = Rc::new(Gate::default());
        self.shared.gates.borrow_mut().insert(task.clone(), gate.clone());
        let program: Program = Rc::new(move || {
            let process: Running = match &launcher {
                Some(launcher) => launcher(shared.clone(), start.clone(), receiver.clone()),
                None => Box::pin(backend::run(
                    shared.clone(),
                    start.clone(),
                    app.clone(),
                    receiver.clone(),
                )),
            };
            gate::behind(gate.clone(), process)
        });
        for ip in addresses {
            self.shared.witness.reachable(ip, self.now());
            self.occupy(ip, &task, &node, program.clone());
        }
    }

    /// Runs `program` at an address that may have been another task's.
    fn occupy(&mut self, ip: IpAddr, task: &TaskId, node: &NodeId, program: Program) {
        if let Some(host) = self.hosts.get(&ip) {
            let before = host.task.borrow().as_ref().and_then(|before| self.service_of(before));
            if let (Some(before), Some(own)) = (before, self.service_of(task))
                && before != own
            {
                let what = format!("an address of {before} is given to {own}");
                self.shared.trace("world", &what);
            }
            *host.program.borrow_mut() = program;
            *host.task.borrow_mut() = Some(task.clone());
            *host.node.borrow_mut() = Some(node.clone());
            for other in self.others(ip) {
                self.sim.release(ip, other);
            }
            self.sim.bounce(ip);
            self.raise_walls(ip);
            return;
        }
        let host = Rc::new(Host {
            program: RefCell::new(program),
            task: RefCell::new(Some(task.clone())),
            node: RefCell::new(Some(node.clone())),
        });
        self.hosts.insert(ip, host.clone());
        self.sim.host(ip, move || {
            let running = (host.program.borrow())();
            async move {
                running.await;
                Ok(())
            }
        });
        self.raise_walls(ip);
    }

    fn signal(&mut self, task: &TaskId, signal: Signal) {
        self.shared
            .trace(&self.shared.task_name(task), &format!("gets {signal:?}"));
        if !self.processes.contains_key(task) {
            return;
        }
        self.shared.witness.ends(task, self.now());
        let desired = self
            .shared
            .with_swarm(|swarm, _| swarm.task(task).map(|task| task.desired));
        if desired.is_some_and(|desired| !desired.is_past_running()) {
            // Its node ends it, and nobody is told that could send users elsewhere.
            for ip in self.addresses_of(std::slice::from_ref(task)) {
                match signal {
                    Signal::Kill => self.shared.witness.unreachable(ip, self.now()),
                    Signal::None | Signal::Term => self.shared.witness.refuses(ip, self.now()),
                }
            }
        }
        if signal == Signal::Kill {
            self.thaw(task);
        }
        let Some(process) = self.processes.get(task) else {
            return;
        };
        process.signals.send_replace(signal);
        if process.addresses.is_empty() {
            // Nobody can reach it, so nothing runs for it.
            let (task, code) = (task.clone(), 0);
            self.shared.tell(Fact::Exited { task, code });
        }
    }

    /// After its process the host goes, and what is sent to it waits for ever. Before, its words are held back as well.
    /// Not turmoil's partition: that refuses connections, and a black hole is silent.
    fn black_hole(&mut self, task: &TaskId) {
        let Some(process) = self.processes.get(task) else {
            return;
        };
        if process.serves()
            && let Some(service) = self.service_of(task)
        {
            // Nobody says so: it served on while its dockerd was dead, and falls silent with its network. What may be sent again is
            // asked elsewhere; the rest has its only copy there.
            let what = "a task that serves is cut off";
            let witness = &self.shared.witness;
            witness.blow_to_unsafe(self.now(), &service, std::slice::from_ref(task), what);
        }
        for ip in process.addresses.clone() {
            let Some(host) = self.hosts.get(&ip) else { continue };
            if host.task.borrow().as_ref() != Some(task) {
                continue;
            }
            if process.exited {
                self.sim.crash(ip);
                continue;
            }
            self.shared.witness.unreachable(ip, self.now());
            for other in self.others(ip) {
                self.sim.hold(ip, other);
            }
        }
    }
}
