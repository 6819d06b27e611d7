//! The API of a manager of the simulated Swarm: right answers, late, in an order that means nothing, and at times none.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use tidegate::swarm_api::SwarmApi;
use tidegate_core::id::{NodeId, SecretId, ServiceId, Version};
use tidegate_core::reconcile::desired::{ManagedService, ServiceShape};
use tidegate_core::rng::Rng;
use tidegate_core::simulated::Swarm;
use tidegate_core::swarm::model::{ApiError, Event, FeedEnd, Network, Node, Secret, Service, Task, TaskEvent};
use tidegate_core::time::Instant;
use tokio::sync::mpsc;

use crate::engine::Reach;
use crate::faults::DockerFaults;
use crate::shared::Shared;

/// How long a call hangs that hangs (facts §4).
pub(crate) const HANG: Duration = Duration::from_secs(20);

/// One client's connection to the simulated engine.
pub struct FakeDocker {
    shared: Rc<Shared>,
    faults: DockerFaults,
    rng: RefCell<Rng>,
    /// Its own: a watch changes nothing that others draw.
    watch_rng: RefCell<Rng>,
    name: String,
    node: NodeId,
}

/// What a call does to the Swarm: a manager that is cut off still answers reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
}

impl fmt::Debug for FakeDocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeDocker")
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl FakeDocker {
    /// The engine of manager `node` as the host called `name` reaches it.
    pub fn new(shared: Rc<Shared>, faults: DockerFaults, name: &str, node: NodeId) -> Self {
        let rng = RefCell::new(shared.fork(&format!("docker of {name}")));
        let watch_rng = RefCell::new(shared.fork(&format!("watch of {name}")));
        FakeDocker {
            shared,
            faults,
            rng,
            watch_rng,
            name: name.to_owned(),
            node,
        }
    }

    /// A call: waits, may fail before anything happened, then runs, waits again and answers.
    async fn call<T>(
        &self,
        what: &str,
        kind: Kind,
        run: impl FnOnce(&mut Swarm, Instant) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let (there, back, error, hang, garbled) = {
            let mut rng = self.rng.borrow_mut();
            let mut half = || self.faults.latency.draw(&mut rng) / 2;
            let (there, back) = (half(), half());
            let quiet = self.shared.is_healed();
            let error = !quiet && rng.chance(self.faults.errors, 1000);
            let hang = !quiet && rng.chance(self.faults.hangs, 1000);
            let garbled = !quiet && kind == Kind::Read && rng.chance(self.faults.garbled, 1000);
            (there, back, error, hang, garbled)
        };
        self.shared.wait(there).await;
        let reach = self.started().await;
        if hang || reach == Reach::Hangs || (reach == Reach::Believes && kind == Kind::Write) {
            self.note(&format!("{what} hangs"));
            self.shared.wait(HANG).await;
            return Err(ApiError::Server(
                "rpc error: code = DeadlineExceeded desc = context deadline exceeded".to_owned(),
            ));
        }
        match reach {
            Reach::Stopping => {
                self.note(&format!("{what} is refused by a manager that stops"));
                return Err(ApiError::NotManager("This node is not a swarm manager.".to_owned()));
            }
            Reach::Stopped => {
                let refused = "connect: connection refused";
                return Err(ApiError::Unreachable(refused.to_owned()));
            }
            Reach::Leaderless => {
                return Err(ApiError::Server(
                    "rpc error: code = Unknown desc = The swarm does not have a leader.".to_owned(),
                ));
            }
            Reach::Believes => {
                self.note(&format!("{what} is answered with what was true before the cut"));
                let now = self.shared.now();
                let answer = self.shared.with_believed(&self.node, |swarm| run(swarm, now));
                self.shared.wait(back).await;
                return answer.unwrap_or_else(|| Err(ApiError::Unreachable("the manager came back".to_owned())));
            }
            Reach::Answers | Reach::Hangs | Reach::Starts(_) => {}
        }
        if error {
            self.note(&format!("{what} fails"));
            return Err(ApiError::Server("a fault of the simulation".to_owned()));
        }
        let answer = self.shared.with_swarm(run);
        self.shared.wait(back).await;
        if garbled {
            self.note(&format!("the answer to {what} is cut short"));
            return Err(ApiError::Garbled("unexpected end of file".to_owned()));
        }
        answer
    }

    /// What becomes of a call, once an engine that starts has started.
    async fn started(&self) -> Reach {
        loop {
            let reach = self.shared.reach(&self.node);
            let Reach::Starts(at) = reach else { return reach };
            self.shared.wait(at.since(self.shared.now())).await;
        }
    }

    /// A list, in an order that means nothing.
    async fn list<T>(
        &self,
        what: &str,
        run: impl FnOnce(&Swarm) -> Result<Vec<T>, ApiError>,
    ) -> Result<Vec<T>, ApiError> {
        let mut items = self.call(what, Kind::Read, |swarm, _| run(swarm)).await?;
        self.rng.borrow_mut().shuffle(&mut items);
        Ok(items)
    }

    fn note(&self, what: &str) {
        self.shared.trace(&self.name, what);
    }
}

impl SwarmApi for FakeDocker {
    async fn services(&self, of: &[ServiceId]) -> Result<Vec<Service>, ApiError> {
        self.list("GET /services", |swarm| Ok(swarm.services(of))).await
    }

    async fn tasks(&self, of: &[ServiceId]) -> Result<Vec<Task>, ApiError> {
        self.list("GET /tasks", |swarm| swarm.tasks(of)).await
    }

    async fn networks(&self) -> Result<Vec<Network>, ApiError> {
        // Answered by the node alone: without quorum, or while it stops, it lists what it knows itself, and says nothing of an error.
        let leaderless = self.shared.with_swarm(|swarm, _| swarm.leaderless_since().is_some());
        let is_alone = match self.shared.reach(&self.node) {
            Reach::Hangs | Reach::Leaderless => leaderless,
            Reach::Stopping => true,
            Reach::Answers | Reach::Believes | Reach::Starts(_) | Reach::Stopped => false,
        };
        if is_alone {
            self.note("GET /networks lists what this node knows by itself");
            return Ok(self
                .shared
                .with_swarm(|swarm, _| swarm.networks_without_quorum(&self.node)));
        }
        self.list("GET /networks", |swarm| Ok(swarm.networks())).await
    }

    async fn nodes(&self) -> Result<Vec<Node>, ApiError> {
        self.list("GET /nodes", |swarm| Ok(swarm.nodes())).await
    }

    async fn secrets(&self) -> Result<Vec<Secret>, ApiError> {
        self.list("GET /secrets", |swarm| Ok(swarm.secrets())).await
    }

    async fn events(&self) -> Result<impl Stream<Item = Result<Event, ApiError>> + 'static, ApiError> {
        self.started().await;
        let latency = self.faults.latency.draw(&mut self.rng.borrow_mut());
        self.shared.wait(latency).await;
        // The stream is the manager's own: it opens without a leader too.
        if self.shared.reach(&self.node) == Reach::Stopped {
            return Err(ApiError::Unreachable("connect: connection refused".to_owned()));
        }
        let (events, replayed) = self.shared.subscribe(&self.node);
        self.note("event stream opens");
        if replayed > 0 {
            self.note(&format!("{replayed} events of its history are replayed"));
        }
        let gaps = self.faults.gaps;
        let rng = self.rng.borrow().fork("gaps");
        let state = (self.shared.clone(), events, rng, false);
        Ok(unfold(
            state,
            move |(shared, mut events, mut rng, ended): State| async move {
                if ended {
                    return None;
                }
                let event = events.recv().await?;
                if !shared.is_healed() && rng.chance(gaps, 1000) {
                    shared.trace("docker", "the event stream broke");
                    let lost = Err(ApiError::Unreachable("the event stream broke".to_owned()));
                    return Some((lost, (shared, events, rng, true)));
                }
                Some((Ok(event), (shared, events, rng, false)))
            },
        ))
    }

    async fn task_changes(
        &self,
        resume_from: Option<Version>,
    ) -> Result<impl Stream<Item = Result<Vec<TaskEvent>, FeedEnd>> + 'static, FeedEnd> {
        self.started().await;
        let latency = self.faults.latency.draw(&mut self.watch_rng.borrow_mut());
        self.shared.wait(latency).await;
        let broken = |why: &str| FeedEnd::Broken(ApiError::Unreachable(why.to_owned()));
        match self.shared.reach(&self.node) {
            Reach::Stopped | Reach::Stopping => return Err(FeedEnd::NotThere("control.sock: no such file".to_owned())),
            // Whom to trust is asked for first, and there is nobody to say so.
            Reach::Hangs => {
                self.shared.wait(HANG).await;
                return Err(broken("no answer"));
            }
            Reach::Leaderless => return Err(broken("the swarm does not have a leader")),
            Reach::Answers | Reach::Believes | Reach::Starts(_) => {}
        }
        let opened = self.shared.watch(&self.node, resume_from);
        self.note(match (&opened, resume_from) {
            (Err(_), _) => "the SwarmKit watch cannot be resumed",
            (Ok(_), Some(_)) => "the SwarmKit watch is resumed",
            (Ok(_), None) => "the SwarmKit watch opens",
        });
        let (changes, missed) = opened?;
        let watch = Watch {
            shared: self.shared.clone(),
            missed: Some(missed),
            changes,
            rng: self.watch_rng.borrow().fork("gaps"),
            gaps: self.faults.gaps,
            is_silent: false,
        };
        Ok(unfold(Some(watch), |watch| async move {
            let mut watch = watch?;
            let item = watch.next().await;
            let rest = item.is_ok().then_some(watch);
            Some((item, rest))
        }))
    }

    async fn managed_services(&self) -> Result<Vec<ManagedService>, ApiError> {
        self.list("GET /services managed", |swarm| Ok(swarm.managed())).await
    }

    async fn create_service(&self, shape: &ServiceShape) -> Result<ServiceId, ApiError> {
        let answer = self
            .call("POST /services/create", Kind::Write, |swarm, now| {
                swarm.create_service(shape.clone(), now)
            })
            .await;
        self.note(&format!("creates service {}: {}", shape.name, outcome(&answer)));
        answer
    }

    async fn update_service(&self, id: &ServiceId, version: Version, shape: &ServiceShape) -> Result<(), ApiError> {
        let answer = self
            .call("POST /services/ID/update", Kind::Write, |swarm, now| {
                swarm.update_service(id, version, shape.clone(), now)
            })
            .await;
        self.note(&format!("updates service {}: {}", shape.name, outcome(&answer)));
        answer
    }

    async fn remove_service(&self, id: &ServiceId) -> Result<(), ApiError> {
        let answer = self
            .call("DELETE /services/ID", Kind::Write, |swarm, now| {
                swarm.remove_service(id, now)
            })
            .await;
        self.note(&format!("removes service {id}: {}", outcome(&answer)));
        answer
    }

    async fn create_secret(&self, name: &str, labels: &[(String, String)], data: &[u8]) -> Result<SecretId, ApiError> {
        let answer = self
            .call("POST /secrets/create", Kind::Write, |swarm, now| {
                swarm.create_secret(name, labels, data, now)
            })
            .await;
        self.note(&format!("creates secret {name}: {}", outcome(&answer)));
        answer
    }

    async fn remove_secret(&self, id: &SecretId) -> Result<(), ApiError> {
        let remove = |swarm: &mut Swarm, now| swarm.remove_secret(id, now);
        self.call("DELETE /secrets/ID", Kind::Write, remove).await
    }

    async fn create_network(&self, name: &str, internal: bool) -> Result<(), ApiError> {
        let answer = self
            .call("POST /networks/create", Kind::Write, |swarm, now| {
                swarm.create_network(name, internal, now)
            })
            .await;
        self.note(&format!("creates network {name}: {}", outcome(&answer)));
        answer.map(drop)
    }
}

/// An open watch of tasks.
struct Watch {
    shared: Rc<Shared>,
    missed: Option<Vec<TaskEvent>>,
    changes: mpsc::UnboundedReceiver<Vec<TaskEvent>>,
    rng: Rng,
    gaps: u64,
    /// Open, and telling nothing any more.
    is_silent: bool,
}

impl Watch {
    async fn next(&mut self) -> Result<Vec<TaskEvent>, FeedEnd> {
        if let Some(missed) = self.missed.take().filter(|missed| !missed.is_empty()) {
            return Ok(missed);
        }
        let broken = || FeedEnd::Broken(ApiError::Unreachable("the SwarmKit watch broke".to_owned()));
        loop {
            let changes = self.changes.recv().await.ok_or_else(broken)?;
            if !self.shared.is_healed() && !self.is_silent && self.rng.chance(self.gaps, 1000) {
                self.is_silent = self.rng.chance(1, 3);
                if !self.is_silent {
                    self.shared.trace("docker", "the SwarmKit watch broke");
                    if self.rng.chance(1, 3) {
                        // What it did not tell is in a snapshot now.
                        self.shared.engines.borrow_mut().compact();
                    }
                    return Err(broken());
                }
                self.shared.trace("docker", "the SwarmKit watch falls silent");
            }
            if !self.is_silent {
                return Ok(changes);
            }
        }
    }
}

type State = (Rc<Shared>, mpsc::UnboundedReceiver<Event>, Rng, bool);

fn outcome<T>(answer: &Result<T, ApiError>) -> String {
    match answer {
        Ok(_) => "done".to_owned(),
        Err(error) => error.to_string(),
    }
}
