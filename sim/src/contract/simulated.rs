//! The contract, and the simulated Swarm that is held to it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use tidegate_core::id::{NetworkId, NodeId};
use tidegate_core::swarm::model::Task;

use super::{Ground, MISSING_IMAGE, Operator, hold, hold_orchestration, hold_watch};
use crate::docker::FakeDocker;
use crate::faults::DockerFaults;
use crate::shared::Shared;
use crate::world::World;

struct FakeOperator(Rc<Shared>);

impl Operator for FakeOperator {
    fn set_active(&self, node: &NodeId, is_active: bool) -> Result<(), String> {
        let done = self.0.with_swarm(|swarm, now| match is_active {
            true => swarm.activate_node(node, now),
            false => swarm.drain_node(node, now),
        });
        done.map_err(|error| error.to_string())
    }

    fn remove_network(&self, network: &NetworkId) -> Result<(), String> {
        let done = self.0.with_swarm(|swarm, now| swarm.remove_network(network, now));
        done.map_err(|error| error.to_string())
    }

    fn resolve(&self, from: &Task, name: &str) -> Result<BTreeSet<IpAddr>, String> {
        let service = name.strip_prefix("tasks.").ok_or("only tasks have names here")?;
        let networks = from.addresses.iter().map(|address| &address.network);
        let found = self.0.with_swarm(|swarm, _| {
            let answers = networks.flat_map(|network| swarm.dns(service, Some(network)));
            answers.collect()
        });
        Ok(found)
    }
}

impl World {
    /// Holds the simulated Swarm to what Tidegate relies on Docker for.
    ///
    /// # Panics
    /// If it does not hold, with what was seen instead.
    pub fn hold_to_contract(&mut self) {
        let shared = self.shared.clone();
        let manager = self.nodes(true).into_iter().next().expect("a Swarm has a manager");
        shared.with_swarm(|swarm, _| swarm.lose_image(MISSING_IMAGE));
        let answer = Rc::new(RefCell::new(None));
        let given = answer.clone();
        self.sim.client("contract", async move {
            let api = FakeDocker::new(shared.clone(), DockerFaults::none(), "contract", manager.id.clone());
            let ground = Ground {
                api: &api,
                clock: shared.clock(&manager.id),
                images: ["app:1", "app:2"],
            };
            let held = async {
                hold(&ground).await?;
                hold_watch(&ground, &api).await?;
                hold_orchestration(&ground, &FakeOperator(shared)).await
            };
            let held = held.await;
            given.replace(Some(held));
            Ok(())
        });
        self.fixed.push(self.sim.lookup("contract"));
        self.until("the contract is held", Duration::from_secs(900), |_| {
            answer.borrow().is_some()
        });
        if let Some(Err(broken)) = answer.take() {
            panic!("{broken}");
        }
    }
}
