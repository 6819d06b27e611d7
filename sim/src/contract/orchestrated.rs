//! What the orchestrator, the allocator and Docker's DNS are relied on for: networks and the addresses on them, global services,
//! drained nodes, names, and what updates say of themselves.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use tidegate::swarm_api::SwarmApi;
use tidegate_core::id::{NetworkId, NodeId, ServiceId, TaskId};
use tidegate_core::reconcile::desired::ServiceShape;
use tidegate_core::swarm::model::{ApiError, EventAction, EventKind, Network, NetworkAddress, Node, NodeState, Task};

use super::{Ground, LIMIT, LOOK_EVERY, NAME, ensure, ids, serving, text, told_until_removed};

/// An image that no node has and no registry gives.
pub const MISSING_IMAGE: &str = "app:missing";

/// What an operator does to a Swarm, and Tidegate never does.
pub trait Operator {
    /// `docker node update --availability`: `active` or `drain`.
    ///
    /// # Errors
    /// What Docker says.
    fn set_active(&self, node: &NodeId, is_active: bool) -> Result<(), String>;

    /// `docker network rm`
    ///
    /// # Errors
    /// What Docker says.
    fn remove_network(&self, network: &NetworkId) -> Result<(), String>;

    /// What Docker's DNS tells a task that runs, by the networks that it is in.
    ///
    /// # Errors
    /// Why there is no answer.
    fn resolve(&self, from: &Task, name: &str) -> Result<BTreeSet<IpAddr>, String>;
}

/// Holds the Swarm to all of it. It must have two nodes or more, and nothing called `contract`, and has nothing of the name
/// afterwards.
///
/// # Errors
/// The assertion that does not hold, and what was seen instead.
pub async fn hold_orchestration<A: SwarmApi>(ground: &Ground<'_, A>, operator: &impl Operator) -> Result<(), String> {
    let mut events = pin!(ground.api.events().await.map_err(text)?);
    let network = ground.networks_have_one_name().await?;
    let joined = ServiceShape {
        networks: [network.id.to_string()].into(),
        ..ground.shape()
    };
    let everywhere = ServiceShape {
        replicas: None,
        ..joined.clone()
    };
    let service = ground.api.create_service(&everywhere).await.map_err(text)?;
    ground.global_services_are_everywhere(&service).await?;
    ground.addresses_are_of_one_each(&service, &network.id, 1).await?;
    ground.names_follow_tasks(&service, &network.id, operator).await?;
    let used = operator.remove_network(&network.id);
    ensure(used.is_err(), "a network that a service is in is not removed", used)?;
    let drained = ground
        .a_drained_node_is_left_by_global_services(&service, operator)
        .await?;
    ground.names_follow_tasks(&service, &network.id, operator).await?;
    ground.api.remove_service(&service).await.map_err(text)?;

    let without_vip = ServiceShape { dnsrr: true, ..joined };
    let service = ground.api.create_service(&without_vip).await.map_err(text)?;
    ground
        .tasks_of_a_drained_node_go_elsewhere(&service, &network.id, operator)
        .await?;
    ground.addresses_are_of_one_each(&service, &network.id, 0).await?;
    ground.names_follow_tasks(&service, &network.id, operator).await?;
    ground.api.remove_service(&service).await.map_err(text)?;
    let removed = || operator.remove_network(&network.id);
    ground
        .until_ok("a network that nobody uses any more is removed", removed)
        .await?;

    let service = ground.create().await?;
    ground.updates_say_how_they_go(&service).await?;
    for start_first in [false, true] {
        ground.a_label_has_an_update_begin_anew(&service, start_first).await?;
    }
    ground.a_label_in_the_last_step_ends_what_is_said(&service).await?;
    ground.an_update_that_fails_is_rolled_back(&service).await?;
    ground.an_update_that_fails_pauses_until_any_change(&service).await?;
    ground.api.remove_service(&service).await.map_err(text)?;

    let told = told_until_removed(&mut events, &service, ground.clock).await?;
    let told: Vec<_> = told
        .into_iter()
        .map(|event| (event.kind, event.action, event.id))
        .collect();
    let network = network.id.to_string();
    for expected in [
        (EventKind::Network, EventAction::Create, network.clone()),
        (EventKind::Node, EventAction::Update, drained.to_string()),
        (EventKind::Network, EventAction::Remove, network),
    ] {
        ensure(told.contains(&expected), &format!("events tell of {expected:?}"), &told)?;
    }
    Ok(())
}

impl<A: SwarmApi> Ground<'_, A> {
    async fn networks_have_one_name(&self) -> Result<Network, String> {
        self.api.create_network(NAME, false).await.map_err(text)?;
        let again = self.api.create_network(NAME, false).await;
        ensure(
            matches!(again, Err(ApiError::Exists(_))),
            "a network's name is taken once",
            again,
        )?;
        let begin = self.clock.now();
        loop {
            let listed = self.api.networks().await.map_err(text)?;
            let own: Vec<_> = listed.into_iter().filter(|network| network.name == NAME).collect();
            let is_overlay = |network: &Network| network.swarm_scope && network.driver == "overlay" && !network.ingress;
            match <[Network; 1]>::try_from(own) {
                Ok([network]) if is_overlay(&network) => return Ok(network),
                // Before the allocator has seen it.
                Ok([network]) if network.driver.is_empty() && self.clock.now().since(begin) < LIMIT => {}
                Ok(listed) => return Err(format!("the network is an overlay of the Swarm, but: {listed:?}")),
                Err(listed) => return Err(format!("a network is listed once, but: {listed:?}")),
            }
            self.clock.pause(LOOK_EVERY).await;
        }
    }

    async fn global_services_are_everywhere(&self, service: &ServiceId) -> Result<(), String> {
        let nodes = self.api.nodes().await.map_err(text)?;
        let fit = |node: &&Node| node.active && node.state == NodeState::Ready;
        let fit: BTreeSet<_> = nodes.iter().filter(fit).map(|node| node.id.clone()).collect();
        ensure(fit.len() >= 2, "there are two nodes that take tasks", &nodes)?;
        self.until("a task of a global service serves on every node", service, |tasks| {
            let serving = serving(tasks);
            serving.len() == fit.len() && homes(&serving) == fit
        })
        .await?;
        let tasks = self.tasks(service).await?;
        ensure(
            tasks.iter().all(|task| task.slot.is_none()),
            "tasks of global services have no slot",
            &tasks,
        )
    }

    /// Each task has one address on the network, so many virtual ones the service has, and no two are alike.
    async fn addresses_are_of_one_each(
        &self,
        service: &ServiceId,
        network: &NetworkId,
        vips: usize,
    ) -> Result<(), String> {
        let tasks = serving(&self.tasks(service).await?);
        let listed = self.api.services(std::slice::from_ref(service)).await.map_err(text)?;
        let of_service: Vec<IpAddr> = listed
            .iter()
            .flat_map(|listed| on(&listed.virtual_ips, network))
            .collect();
        ensure(
            of_service.len() == vips,
            &format!("the service has {vips} virtual IPs"),
            &listed,
        )?;
        let of_tasks: Vec<IpAddr> = tasks.iter().flat_map(|task| on(&task.addresses, network)).collect();
        ensure(
            tasks.iter().all(|task| task.addresses.len() == 1) && of_tasks.len() == tasks.len(),
            "each task has an address on its network",
            &tasks,
        )?;
        let all: BTreeSet<_> = of_tasks.iter().chain(&of_service).collect();
        ensure(
            all.len() == tasks.len() + vips,
            "an address is of one alone",
            (of_tasks, of_service),
        )
    }

    /// Docker's DNS answers with the tasks that serve, wherever it is asked.
    async fn names_follow_tasks(
        &self,
        service: &ServiceId,
        network: &NetworkId,
        operator: &impl Operator,
    ) -> Result<(), String> {
        let tasks = serving(&self.tasks(service).await?);
        let addresses: BTreeSet<_> = tasks.iter().flat_map(|task| on(&task.addresses, network)).collect();
        for task in &tasks {
            self.until_ok("DNS names the tasks that serve", || {
                let answer = operator.resolve(task, &format!("tasks.{NAME}"))?;
                ensure(
                    answer == addresses,
                    &format!("{addresses:?} is what {} is told", task.id),
                    answer,
                )
            })
            .await?;
        }
        Ok(())
    }

    /// Nobody takes the place of a task that has to leave with its node; when the node is back, a new one does. Gives the node.
    async fn a_drained_node_is_left_by_global_services(
        &self,
        service: &ServiceId,
        operator: &impl Operator,
    ) -> Result<NodeId, String> {
        let nodes = self.api.nodes().await.map_err(text)?;
        let drained = nodes
            .iter()
            .find(|node| !node.manager)
            .ok_or("there is a worker")?
            .id
            .clone();
        let before = serving(&self.tasks(service).await?);
        let (leave, stay): (Vec<_>, Vec<_>) = before
            .into_iter()
            .partition(|task| task.node.as_ref() == Some(&drained));
        let (leave, stay) = (ids(&leave), ids(&stay));
        operator.set_active(&drained, false)?;
        let gone = |tasks: &[Task]| {
            let mut left = tasks.iter().filter(|task| leave.contains(&task.id));
            left.all(Task::is_over)
        };
        self.until_told("the drained node is left", service, &leave, gone)
            .await?;
        let after = self.tasks(service).await?;
        ensure(ids(&serving(&after)) == stay, "nobody else leaves or comes", &after)?;
        let nodes = self.api.nodes().await.map_err(text)?;
        let is_drained = |node: &Node| node.id == drained && !node.active && node.state == NodeState::Ready;
        ensure(
            nodes.iter().any(is_drained),
            "the node is ready, and not active",
            &nodes,
        )?;
        operator.set_active(&drained, true)?;
        self.until("a new task serves on the node that is active again", service, |tasks| {
            let new = serving(tasks)
                .into_iter()
                .filter(|task| !leave.contains(&task.id) && !stay.contains(&task.id));
            homes(&new.collect::<Vec<_>>()) == [drained.clone()].into()
        })
        .await?;
        Ok(drained)
    }

    /// Tasks of a replicated service go elsewhere, get addresses that nobody had a moment before, and do not come back.
    async fn tasks_of_a_drained_node_go_elsewhere(
        &self,
        service: &ServiceId,
        network: &NetworkId,
        operator: &impl Operator,
    ) -> Result<(), String> {
        self.until("two tasks serve", service, |tasks| serving(tasks).len() == 2)
            .await?;
        let before = serving(&self.tasks(service).await?);
        ensure(homes(&before).len() == 2, "two tasks are on two nodes", &before)?;
        let drained = before[0].node.clone().ok_or("a task that serves has a node")?;
        let leaves: BTreeSet<TaskId> = [before[0].id.clone()].into();
        operator.set_active(&drained, false)?;
        let elsewhere = |tasks: &[Task]| {
            let serving = serving(tasks);
            serving.len() == 2 && !homes(&serving).contains(&drained) && !tasks.iter().any(Task::is_leaving)
        };
        self.until_told("two tasks serve elsewhere", service, &leaves, elsewhere)
            .await?;
        operator.set_active(&drained, true)?;
        // As long as a task would take to move.
        self.clock.pause(Duration::from_secs(2)).await;
        let after = serving(&self.tasks(service).await?);
        ensure(
            after.len() == 2 && !homes(&after).contains(&drained),
            "nobody moves to a node that is active again",
            &after,
        )?;
        let new = after.iter().filter(|task| !ids(&before).contains(&task.id));
        let given: BTreeSet<_> = new.flat_map(|task| on(&task.addresses, network)).collect();
        let had: BTreeSet<_> = before.iter().flat_map(|task| on(&task.addresses, network)).collect();
        ensure(
            given.is_disjoint(&had),
            "an address is not given again at once",
            (given, had),
        )
    }

    async fn updates_say_how_they_go(&self, service: &ServiceId) -> Result<(), String> {
        let state = self.managed(service).await?.update_state;
        ensure(state.is_none(), "a new service says nothing of updates", state)?;
        self.update(service, self.images[1], "pause").await?;
        self.until_update(service, &["updating"]).await?;
        self.until_update(service, &["completed"]).await
    }

    /// A change that replaces no task, in the middle of an update, has the updater begin anew, knowing nothing of the step under
    /// way: the next task is told beside the one that leaves, and one whose successor does not run yet is told at once.
    async fn a_label_has_an_update_begin_anew(&self, service: &ServiceId, start_first: bool) -> Result<(), String> {
        // A step may be over before it is seen.
        for _ in 0..6 {
            let replicas = if start_first { 1 } else { 2 };
            self.change(service, |shape| {
                shape.replicas = Some(replicas);
                shape.update.start_first = start_first;
            })
            .await?;
            let old = ids(&serving(&self.at_rest(service, replicas).await?));
            let image = self.other_image(service).await?;
            self.update(service, image, "pause").await?;
            self.until("a step is under way", service, |tasks| {
                let has_successor = tasks.iter().any(|task| !old.contains(&task.id) && !task.is_over());
                has_successor && (start_first || tasks.iter().any(Task::is_leaving))
            })
            .await?;
            self.label(service).await?;
            let mut in_time = false;
            self.until_told("every task is replaced", service, &old, |tasks| {
                let new = serving(tasks).into_iter().filter(|task| !old.contains(&task.id));
                let new = new.count() as u64;
                let mut of_old = tasks.iter().filter(|task| old.contains(&task.id));
                in_time |= new == 0 && of_old.all(|task| task.desired.is_past_running());
                new == replicas && !tasks.iter().any(Task::is_leaving)
            })
            .await?;
            if in_time {
                return self.until_update(service, &["completed"]).await;
            }
        }
        Err(format!(
            "a label has an update begin anew, but in 6 of them all old tasks were never told before a new one served, start_first = {start_first}"
        ))
    }

    /// The updater that begins anew finds nothing to do, and says nothing, however long the update would have been watched.
    async fn a_label_in_the_last_step_ends_what_is_said(&self, service: &ServiceId) -> Result<(), String> {
        // A step may be over before the label is written.
        for _ in 0..6 {
            self.change(service, |shape| {
                shape.replicas = Some(1);
                shape.update.start_first = false;
            })
            .await?;
            let old = ids(&serving(&self.at_rest(service, 1).await?));
            let image = self.other_image(service).await?;
            self.update(service, image, "pause").await?;
            self.until("the only step is under way", service, |tasks| {
                tasks.iter().any(Task::is_leaving)
            })
            .await?;
            self.label(service).await?;
            let in_time = serving(&self.tasks(service).await?).is_empty();
            self.until_told("the task is replaced all the same", service, &old, |tasks| {
                let new = ids(&serving(tasks));
                new.len() == 1 && new.is_disjoint(&old)
            })
            .await?;
            if in_time {
                // Longer than the update is watched.
                self.clock.pause(Duration::from_secs(2)).await;
                let state = self.managed(service).await?.update_state;
                return ensure(state.is_none(), "nothing is said of the update any more", state);
            }
        }
        Err("a label is written within the last step, but in 6 updates it never was".to_owned())
    }

    async fn an_update_that_fails_is_rolled_back(&self, service: &ServiceId) -> Result<(), String> {
        self.change(service, |shape| shape.replicas = Some(2)).await?;
        self.at_rest(service, 2).await?;
        let before = self.managed(service).await?.shape.image;
        self.update(service, MISSING_IMAGE, "rollback").await?;
        self.until_update(service, &["rollback_started", "rollback_completed"])
            .await?;
        self.until_update(service, &["rollback_completed"]).await?;
        let image = self.managed(service).await?.shape.image;
        ensure(image == before, "a rollback brings the spec before the update", image)?;
        self.until("two tasks serve after a rollback", service, |tasks| {
            serving(tasks).len() == 2
        })
        .await
    }

    async fn an_update_that_fails_pauses_until_any_change(&self, service: &ServiceId) -> Result<(), String> {
        self.update(service, MISSING_IMAGE, "pause").await?;
        self.until_update(service, &["paused"]).await?;
        let serves_on = |tasks: &[Task]| serving(tasks).len() == 1;
        let tasks = self.tasks(service).await?;
        ensure(
            serves_on(&tasks),
            "whom a paused update has not reached serves on",
            tasks,
        )?;
        self.change(service, |_| ()).await?;
        // As long as a step would take to begin.
        self.clock.pause(Duration::from_secs(2)).await;
        let tasks = self.tasks(service).await?;
        ensure(serves_on(&tasks), "the same spec again is no change", tasks)?;
        let state = self.managed(service).await?.update_state;
        ensure(state.is_none(), "but it wipes what is said of the update", state)?;
        self.label(service).await?;
        self.until("a paused update goes on after any change", service, |tasks| {
            serving(tasks).is_empty()
        })
        .await
    }

    /// The one of the two images that the service does not have.
    async fn other_image(&self, service: &ServiceId) -> Result<&str, String> {
        let present = self.managed(service).await?.shape.image;
        Ok(self.images[usize::from(present == self.images[0])])
    }

    /// A change that replaces no task, another one each time.
    async fn label(&self, service: &ServiceId) -> Result<(), String> {
        let value = self.managed(service).await?.version.0.to_string();
        self.change(service, |shape| {
            shape.labels.insert("in the middle".to_owned(), value.clone());
        })
        .await
    }

    /// Has every task replaced, one after the other.
    async fn update(&self, service: &ServiceId, image: &str, failure_action: &str) -> Result<(), String> {
        self.change(service, |shape| {
            shape.image = image.to_owned();
            shape.update.monitor_ms = 500;
            shape.update.failure_action = failure_action.to_owned();
        })
        .await
    }

    async fn until_update(&self, service: &ServiceId, wanted: &[&str]) -> Result<(), String> {
        let begin = self.clock.now();
        loop {
            let state = self.managed(service).await?.update_state;
            if state.as_deref().is_some_and(|state| wanted.contains(&state)) {
                return Ok(());
            }
            if self.clock.now().since(begin) > LIMIT {
                return Err(format!(
                    "within {LIMIT:?} the update is said to be one of {wanted:?}, but: {state:?}"
                ));
            }
            self.clock.pause(LOOK_EVERY).await;
        }
    }

    async fn until_ok(&self, what: &str, mut done: impl FnMut() -> Result<(), String>) -> Result<(), String> {
        let begin = self.clock.now();
        while let Err(why) = done() {
            if self.clock.now().since(begin) > LIMIT {
                return Err(format!("within {LIMIT:?} {what}, but: {why}"));
            }
            self.clock.pause(LOOK_EVERY).await;
        }
        Ok(())
    }
}

/// The nodes of tasks.
fn homes(tasks: &[Task]) -> BTreeSet<NodeId> {
    tasks.iter().filter_map(|task| task.node.clone()).collect()
}

/// The addresses on one network.
fn on(addresses: &[NetworkAddress], network: &NetworkId) -> Vec<IpAddr> {
    let own = addresses.iter().filter(|address| address.network == *network);
    own.map(|address| address.addr).collect()
}
