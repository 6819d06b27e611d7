//! The shell of the simulated Swarm: real time, real processes (servers on loopback), and the API that the controller
//! speaks. It decides nothing; the model does.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::{Empty, unfold};
use tidegate_core::id::{SecretId, ServiceId, TaskId, Version};
use tidegate_core::machine::{Input, Machine, step};
use tidegate_core::reconcile::desired::{ManagedService, ServiceShape};
use tidegate_core::simulated::{Action, Fact, Start, Swarm};
use tidegate_core::swarm::model::{
    ApiError, Event, FeedEnd, Network, Node, PublishMode, Secret, Service, Task, TaskEvent,
};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::service::{self, Behaviour};
use crate::clock::Clock;
use crate::swarm_api::SwarmApi;

/// The simulated Swarm, as commands and the controller see it. Clones are the same one.
#[derive(Clone)]
pub(super) struct Engine {
    inner: Rc<Inner>,
}

struct Inner {
    swarm: RefCell<Swarm>,
    clock: Clock,
    behaviours: BTreeMap<String, Behaviour>,
    processes: RefCell<BTreeMap<TaskId, Process>>,
    listeners: RefCell<Vec<mpsc::UnboundedSender<Event>>>,
    facts: mpsc::UnboundedSender<Fact>,
    rearm: Notify,
}

/// A server that runs for a task.
#[derive(Clone, Debug, Default)]
pub(super) struct Process {
    /// SIGTERM
    pub(super) term: CancellationToken,
    /// SIGKILL, or a crash.
    pub(super) kill: CancellationToken,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Engine")
    }
}

impl Engine {
    /// Starts the Swarm on this thread; `behaviours` are those of the services' apps, by name of the service.
    pub(super) fn start(swarm: Swarm, clock: Clock, behaviours: BTreeMap<String, Behaviour>) -> Self {
        let (facts, mut incoming) = mpsc::unbounded_channel();
        let engine = Engine {
            inner: Rc::new(Inner {
                swarm: RefCell::new(swarm),
                clock,
                behaviours,
                processes: RefCell::default(),
                listeners: RefCell::default(),
                facts,
                rearm: Notify::new(),
            }),
        };
        let own = engine.clone();
        tokio::task::spawn_local(async move {
            loop {
                let due = own.inner.swarm.borrow().poll_timeout().map(|deadline| deadline.at);
                let input = tokio::select! { biased;
                    () = clock.sleep_until(due) => Input::Timeout,
                    Some(fact) = incoming.recv() => Input::Fact(fact),
                    () = own.inner.rearm.notified() => continue,
                };
                own.step(input);
            }
        });
        engine
    }

    /// The clock that everything here goes by.
    pub(super) fn clock(&self) -> Clock {
        self.inner.clock
    }

    /// Waits.
    pub(super) async fn wait(&self, time: Duration) {
        self.inner.clock.sleep_until(Some(self.inner.clock.now() + time)).await;
    }

    /// A command to the Swarm, and what follows from it at once.
    pub(super) fn command<T>(&self, run: impl FnOnce(&mut Swarm, tidegate_core::time::Instant) -> T) -> T {
        let answer = run(&mut self.inner.swarm.borrow_mut(), self.inner.clock.now());
        loop {
            let action = self.inner.swarm.borrow_mut().poll_action();
            let Some(action) = action else { break };
            self.perform(action);
        }
        self.inner.rearm.notify_one();
        answer
    }

    /// A question to the Swarm.
    pub(super) fn ask<T>(&self, run: impl FnOnce(&Swarm) -> T) -> T {
        run(&self.inner.swarm.borrow())
    }

    /// Tells the Swarm something about a process.
    pub(super) fn tell(&self, fact: Fact) {
        // The Swarm ends with the thread that both run on.
        self.inner.facts.send(fact).ok();
    }

    /// The process of a task dies, with whatever it does at the moment.
    pub(super) fn crash(&self, task: &TaskId) {
        if let Some(process) = self.inner.processes.borrow().get(task) {
            process.kill.cancel();
        }
    }

    fn step(&self, input: Input<Fact>) {
        let mut actions = Vec::new();
        let now = self.inner.clock.now();
        step(&mut *self.inner.swarm.borrow_mut(), input, now, |action| {
            actions.push(action)
        });
        for action in actions {
            self.perform(action);
        }
    }

    fn perform(&self, action: Action) {
        match action {
            Action::Start(start) => self.start_process(start),
            Action::Signal(task) => {
                if let Some(process) = self.inner.processes.borrow().get(&task) {
                    process.term.cancel();
                }
            }
            Action::Kill(task) => self.crash(&task),
            Action::Emit(event, _) => {
                let mut listeners = self.inner.listeners.borrow_mut();
                listeners.retain(|listener| listener.send(event.clone()).is_ok());
            }
            // A closed port on loopback refuses for ever; nothing there swallows packets, and no node is ever cut off.
            Action::BlackHole(task) => drop(self.inner.processes.borrow_mut().remove(&task)),
            Action::Rejoin(_) | Action::Unlink(_) => {}
        }
    }

    fn start_process(&self, start: Start) {
        let task = start.task.clone();
        let listener = match service::bind() {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "a service of the demo cannot listen on 127.0.0.1");
                self.tell(Fact::Exited { task, code: 1 });
                return;
            }
        };
        let ports = start.shape.ports.iter().filter(|port| port.mode == PublishMode::Host);
        for (port, bound) in ports.zip(listener.local_addr()) {
            let (target, published) = (port.target, bound.port());
            let task = task.clone();
            self.tell(Fact::Bound {
                task,
                target,
                published,
            });
        }
        let behaviour = self.inner.behaviours.get(&start.name).copied().unwrap_or_default();
        let process = Process::default();
        self.inner.processes.borrow_mut().insert(task, process.clone());
        tokio::task::spawn_local(service::run(self.clone(), listener, start, behaviour, process));
    }
}

impl SwarmApi for Engine {
    async fn services(&self, of: &[ServiceId]) -> Result<Vec<Service>, ApiError> {
        Ok(self.ask(|swarm| swarm.services(of)))
    }

    async fn tasks(&self, of: &[ServiceId]) -> Result<Vec<Task>, ApiError> {
        self.ask(|swarm| swarm.tasks(of))
    }

    async fn networks(&self) -> Result<Vec<Network>, ApiError> {
        Ok(self.ask(Swarm::networks))
    }

    async fn nodes(&self) -> Result<Vec<Node>, ApiError> {
        Ok(self.ask(Swarm::nodes))
    }

    async fn secrets(&self) -> Result<Vec<Secret>, ApiError> {
        Ok(self.ask(Swarm::secrets))
    }

    async fn events(&self) -> Result<impl Stream<Item = Result<Event, ApiError>> + 'static, ApiError> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.inner.listeners.borrow_mut().push(sender);
        Ok(unfold(
            receiver,
            |mut receiver: mpsc::UnboundedReceiver<Event>| async move {
                let event = receiver.recv().await?;
                Some((Ok(event), receiver))
            },
        ))
    }

    async fn task_changes(
        &self,
        _: Option<Version>,
    ) -> Result<impl Stream<Item = Result<Vec<TaskEvent>, FeedEnd>> + 'static, FeedEnd> {
        let none = "the demo has no control socket".to_owned();
        Err::<Empty<_>, _>(FeedEnd::NotThere(none))
    }

    async fn managed_services(&self) -> Result<Vec<ManagedService>, ApiError> {
        Ok(self.ask(Swarm::managed))
    }

    async fn create_service(&self, shape: &ServiceShape) -> Result<ServiceId, ApiError> {
        self.command(|swarm, now| swarm.create_service(shape.clone(), now))
    }

    async fn update_service(&self, id: &ServiceId, version: Version, shape: &ServiceShape) -> Result<(), ApiError> {
        self.command(|swarm, now| swarm.update_service(id, version, shape.clone(), now))
    }

    async fn remove_service(&self, id: &ServiceId) -> Result<(), ApiError> {
        self.command(|swarm, now| swarm.remove_service(id, now))
    }

    async fn create_secret(&self, name: &str, labels: &[(String, String)], data: &[u8]) -> Result<SecretId, ApiError> {
        self.command(|swarm, now| swarm.create_secret(name, labels, data, now))
    }

    async fn remove_secret(&self, id: &SecretId) -> Result<(), ApiError> {
        self.command(|swarm, now| swarm.remove_secret(id, now))
    }

    async fn create_network(&self, name: &str, internal: bool) -> Result<(), ApiError> {
        self.command(|swarm, now| swarm.create_network(name, internal, now).map(|_| ()))
    }
}
