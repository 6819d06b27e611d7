//! The API of a manager of the simulated Swarm: right answers, late, in an order that means nothing, and at times none.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use tidegate::swarm_api::SwarmApi;
use tidegate_core::id::{SecretId, ServiceId, Version};
use tidegate_core::reconcile::desired::{ManagedService, ServiceShape};
use tidegate_core::rng::Rng;
use tidegate_core::simulated::Swarm;
use tidegate_core::swarm::model::{ApiError, Event, Network, Node, Secret, Service, Task};
use tidegate_core::time::Instant;
use tokio::sync::mpsc;

use crate::faults::DockerFaults;
use crate::shared::Shared;

/// How long a call hangs that hangs (facts §4).
const HANG: Duration = Duration::from_secs(20);

/// One client's connection to the simulated engine.
pub struct FakeDocker {
    shared: Rc<Shared>,
    faults: DockerFaults,
    rng: RefCell<Rng>,
    name: String,
}

impl fmt::Debug for FakeDocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeDocker")
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl FakeDocker {
    /// The engine as the host called `name` reaches it.
    pub fn new(shared: Rc<Shared>, faults: DockerFaults, name: &str) -> Self {
        let rng = RefCell::new(shared.fork(&format!("docker of {name}")));
        FakeDocker {
            shared,
            faults,
            rng,
            name: name.to_owned(),
        }
    }

    /// A call: waits, may fail before anything happened, then runs, waits again and answers.
    async fn call<T>(
        &self,
        what: &str,
        run: impl FnOnce(&mut Swarm, Instant) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let (there, back, error, hang) = {
            let mut rng = self.rng.borrow_mut();
            let mut half = || self.faults.latency.draw(&mut rng) / 2;
            let (there, back) = (half(), half());
            let quiet = self.shared.is_healed();
            let error = !quiet && rng.chance(self.faults.errors, 1000);
            let hang = !quiet && rng.chance(self.faults.hangs, 1000);
            (there, back, error, hang)
        };
        self.shared.wait(there).await;
        if hang {
            self.note(&format!("{what} hangs"));
            self.shared.wait(HANG).await;
            return Err(ApiError::Server(
                "rpc error: code = DeadlineExceeded desc = context deadline exceeded".to_owned(),
            ));
        }
        if error {
            self.note(&format!("{what} fails"));
            return Err(ApiError::Server("a fault of the simulation".to_owned()));
        }
        let answer = self.shared.with_swarm(run);
        self.shared.wait(back).await;
        answer
    }

    /// A list, in an order that means nothing.
    async fn list<T>(
        &self,
        what: &str,
        run: impl FnOnce(&Swarm) -> Result<Vec<T>, ApiError>,
    ) -> Result<Vec<T>, ApiError> {
        let mut items = self
            .call(what, |swarm, _| match swarm.leaderless_until() {
                None => run(swarm),
                Some(_) => Err(ApiError::Server(
                    "rpc error: code = Unknown desc = The swarm does not have a leader.".to_owned(),
                )),
            })
            .await?;
        self.rng.borrow_mut().shuffle(&mut items);
        Ok(items)
    }

    fn note(&self, what: &str) {
        self.shared.trace(&self.name, what);
    }
}

impl SwarmApi for FakeDocker {
    async fn services(&self) -> Result<Vec<Service>, ApiError> {
        self.list("GET /services", |swarm| Ok(swarm.services())).await
    }

    async fn tasks(&self, of: &[ServiceId]) -> Result<Vec<Task>, ApiError> {
        self.list("GET /tasks", |swarm| swarm.tasks(of)).await
    }

    async fn networks(&self) -> Result<Vec<Network>, ApiError> {
        self.list("GET /networks", |swarm| Ok(swarm.networks())).await
    }

    async fn nodes(&self) -> Result<Vec<Node>, ApiError> {
        self.list("GET /nodes", |swarm| Ok(swarm.nodes())).await
    }

    async fn secrets(&self) -> Result<Vec<Secret>, ApiError> {
        self.list("GET /secrets", |swarm| Ok(swarm.secrets())).await
    }

    async fn events(&self) -> Result<impl Stream<Item = Result<Event, ApiError>> + 'static, ApiError> {
        let events = self.call("GET /events", |_, _| Ok(self.shared.subscribe())).await?;
        self.note("event stream opens");
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
                    let lost = Err(ApiError::Unreachable("the event stream broke".to_owned()));
                    return Some((lost, (shared, events, rng, true)));
                }
                Some((Ok(event), (shared, events, rng, false)))
            },
        ))
    }

    async fn managed_services(&self) -> Result<Vec<ManagedService>, ApiError> {
        self.list("GET /services managed", |swarm| Ok(swarm.managed())).await
    }

    async fn create_service(&self, shape: &ServiceShape) -> Result<ServiceId, ApiError> {
        let answer = self
            .call("POST /services/create", |swarm, now| {
                swarm.create_service(shape.clone(), now)
            })
            .await;
        self.note(&format!("creates service {}: {}", shape.name, outcome(&answer)));
        answer
    }

    async fn update_service(&self, id: &ServiceId, version: Version, shape: &ServiceShape) -> Result<(), ApiError> {
        let answer = self
            .call("POST /services/ID/update", |swarm, now| {
                swarm.update_service(id, version, shape.clone(), now)
            })
            .await;
        self.note(&format!("updates service {}: {}", shape.name, outcome(&answer)));
        answer
    }

    async fn remove_service(&self, id: &ServiceId) -> Result<(), ApiError> {
        let answer = self
            .call("DELETE /services/ID", |swarm, now| swarm.remove_service(id, now))
            .await;
        self.note(&format!("removes service {id}: {}", outcome(&answer)));
        answer
    }

    async fn create_secret(&self, name: &str, labels: &[(String, String)], data: &[u8]) -> Result<SecretId, ApiError> {
        let answer = self
            .call("POST /secrets/create", |swarm, now| {
                swarm.create_secret(name, labels, data, now)
            })
            .await;
        self.note(&format!("creates secret {name}: {}", outcome(&answer)));
        answer
    }

    async fn remove_secret(&self, id: &SecretId) -> Result<(), ApiError> {
        self.call("DELETE /secrets/ID", |swarm, now| swarm.remove_secret(id, now))
            .await
    }

    async fn create_network(&self, name: &str, internal: bool) -> Result<(), ApiError> {
        let answer = self
            .call("POST /networks/create", |swarm, now| {
                swarm.create_network(name, internal, now)
            })
            .await;
        self.note(&format!("creates network {name}: {}", outcome(&answer)));
        answer.map(drop)
    }
}

type State = (Rc<Shared>, mpsc::UnboundedReceiver<Event>, Rng, bool);

fn outcome<T>(answer: &Result<T, ApiError>) -> String {
    match answer {
        Ok(_) => "done".to_owned(),
        Err(error) => error.to_string(),
    }
}
