//! What Tidegate relies on Docker for, as assertions that hold for the simulated Swarm (`sim/tests/contract.rs`) and for a
//! real one (`tests/tests/swarm_harness.rs`) alike. Where a real one breaks them, the simulation is what has to change.

mod orchestrated;
mod simulated;
mod watch;

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use tidegate::clock::Clock;
use tidegate::swarm_api::SwarmApi;
use tidegate_core::id::{ServiceId, TaskId};
use tidegate_core::reconcile::desired::{ManagedService, ROLE_LABEL, ServiceShape};
use tidegate_core::swarm::model::{ApiError, Event, EventAction, EventKind, Task};

pub use self::orchestrated::{MISSING_IMAGE, Operator, hold_orchestration};
pub use self::watch::hold_watch;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// For anything that is to happen.
const LIMIT: Duration = Duration::from_secs(90);
const NAME: &str = "contract";

/// A Swarm that the contract is held against.
#[derive(Debug)]
pub struct Ground<'a, A> {
    /// A manager's API that answers well.
    pub api: &'a A,
    /// Time, as the Swarm has it.
    pub clock: Clock,
    /// Two images that every node can run.
    pub images: [&'a str; 2],
}

/// Holds the Swarm to all of it. It must have no service called `contract`, and has none afterwards.
///
/// # Errors
/// The assertion that does not hold, and what was seen instead.
pub async fn hold<A: SwarmApi>(ground: &Ground<'_, A>) -> Result<(), String> {
    let events = ground.api.events().await.map_err(text)?;
    let mut events = pin!(events);
    let service = ground.create().await?;
    ground.names_are_taken_once().await?;
    ground.old_versions_are_refused(&service).await?;
    ground.labels_replace_no_task(&service).await?;
    ground.tasks_are_told_before_they_end(&service, false).await?;
    ground.tasks_are_told_before_they_end(&service, true).await?;
    ground.scaling_down_tells_tasks_too(&service).await?;
    ground.what_is_gone_is_not_found(&service).await?;
    ground.secrets_have_one_name().await?;
    services_are_told_of(&mut events, &service, ground.clock).await
}

fn text(error: ApiError) -> String {
    error.to_string()
}

fn ensure(holds: bool, what: &str, seen: impl std::fmt::Debug) -> Result<(), String> {
    match holds {
        true => Ok(()),
        false => Err(format!("{what}, but: {seen:?}")),
    }
}

impl<A: SwarmApi> Ground<'_, A> {
    fn shape(&self) -> ServiceShape {
        ServiceShape {
            name: NAME.to_owned(),
            image: self.images[0].to_owned(),
            labels: [(ROLE_LABEL.to_owned(), NAME.to_owned())].into(),
            env: ["STOP=now".to_owned()].into(),
            replicas: Some(2),
            ..ServiceShape::default()
        }
    }

    async fn create(&self) -> Result<ServiceId, String> {
        let service = self.api.create_service(&self.shape()).await.map_err(text)?;
        self.until("two tasks run", &service, |tasks| serving(tasks).len() == 2)
            .await?;
        Ok(service)
    }

    async fn names_are_taken_once(&self) -> Result<(), String> {
        let again = self.api.create_service(&self.shape()).await;
        ensure(matches!(again, Err(ApiError::Exists(_))), "a name is taken once", again)
    }

    async fn managed(&self, service: &ServiceId) -> Result<ManagedService, String> {
        let all = self.api.managed_services().await.map_err(text)?;
        let own = all.into_iter().find(|managed| managed.id == *service);
        own.ok_or_else(|| format!("service {service} is not listed among those with the label {ROLE_LABEL}"))
    }

    /// Writes a change, over versions that move meanwhile.
    async fn change(&self, service: &ServiceId, change: impl Fn(&mut ServiceShape)) -> Result<(), String> {
        loop {
            let present = self.managed(service).await?;
            let mut shape = present.shape.clone();
            change(&mut shape);
            match self.api.update_service(service, present.version, &shape).await {
                Err(ApiError::Conflict(_)) => self.clock.pause(LOOK_EVERY).await,
                written => return written.map_err(text),
            }
        }
    }

    async fn old_versions_are_refused(&self, service: &ServiceId) -> Result<(), String> {
        let before = self.managed(service).await?;
        self.change(service, |shape| {
            shape.labels.insert("first".to_owned(), "1".to_owned());
        })
        .await?;
        let mut shape = before.shape.clone();
        shape.labels.insert("second".to_owned(), "2".to_owned());
        let late = self.api.update_service(service, before.version, &shape).await;
        ensure(
            matches!(late, Err(ApiError::Conflict(_))),
            "a write to a version that has passed is a conflict",
            late,
        )?;
        let after = self.managed(service).await?;
        let is_only_first = after.shape.labels.contains_key("first") && !after.shape.labels.contains_key("second");
        ensure(
            is_only_first,
            "the write that was refused changed nothing",
            &after.shape.labels,
        )?;
        let named = self.api.services(std::slice::from_ref(service)).await.map_err(text)?;
        ensure(
            named.iter().map(|named| &named.id).eq([service]),
            "a service that is asked for by id is answered alone",
            &named,
        )?;
        ensure(
            after.version > before.version,
            "versions rise with each write",
            (before.version, after.version),
        )
    }

    async fn labels_replace_no_task(&self, service: &ServiceId) -> Result<(), String> {
        let before = ids(&self.tasks(service).await?);
        self.change(service, |shape| {
            shape.labels.insert("third".to_owned(), "3".to_owned());
        })
        .await?;
        // As long as a change of the image would take to show.
        self.clock.pause(Duration::from_secs(2)).await;
        let after = ids(&self.tasks(service).await?);
        ensure(before == after, "a label replaces no task", (before, after))
    }

    /// A new image replaces every task. Each old one is told to stop before it ends, and with start-first as many as there
    /// should be serve all the time.
    async fn tasks_are_told_before_they_end(&self, service: &ServiceId, start_first: bool) -> Result<(), String> {
        let old = ids(&serving(&self.tasks(service).await?));
        let image = usize::from(!start_first);
        self.change(service, |shape| {
            shape.image = self.images[image].to_owned();
            shape.update.start_first = start_first;
            shape.update.monitor_ms = 100;
        })
        .await?;
        let mut fewest = usize::MAX;
        self.until_told("both tasks are replaced", service, &old, |tasks| {
            fewest = fewest.min(serving(tasks).len());
            let new = serving(tasks).iter().filter(|task| !old.contains(&task.id)).count();
            new == 2 && tasks.iter().all(|task| !task.is_leaving())
        })
        .await?;
        let expected = if start_first { 2 } else { 1 };
        ensure(
            fewest == expected,
            &format!("{expected} tasks serve at least, start_first = {start_first}"),
            fewest,
        )
    }

    /// Waits until every one of these tasks has been told to stop and `done` says so. None may have ended before it was told.
    async fn until_told(
        &self,
        what: &str,
        service: &ServiceId,
        leaving: &BTreeSet<TaskId>,
        mut done: impl FnMut(&[Task]) -> bool,
    ) -> Result<(), String> {
        let (mut told, mut untold) = (BTreeSet::new(), BTreeSet::new());
        self.until(what, service, |tasks| {
            for task in tasks.iter().filter(|task| leaving.contains(&task.id)) {
                if task.desired.is_past_running() {
                    told.insert(task.id.clone());
                }
                if task.is_over() && !told.contains(&task.id) {
                    untold.insert(task.id.clone());
                }
            }
            done(tasks) && told.len() == leaving.len()
        })
        .await?;
        ensure(untold.is_empty(), "no task ends before it is told to", &untold)
    }

    async fn scaling_down_tells_tasks_too(&self, service: &ServiceId) -> Result<(), String> {
        self.change(service, |shape| shape.replicas = Some(1)).await?;
        self.until("one task serves, and nobody leaves any more", service, |tasks| {
            serving(tasks).len() == 1 && tasks.iter().all(|task| !task.is_leaving())
        })
        .await
    }

    async fn what_is_gone_is_not_found(&self, service: &ServiceId) -> Result<(), String> {
        self.api.remove_service(service).await.map_err(text)?;
        let again = self.api.remove_service(service).await;
        ensure(
            matches!(again, Err(ApiError::NotFound(_))),
            "a service that was removed is not found",
            again,
        )?;
        let listed = self.api.services(&[]).await.map_err(text)?;
        ensure(
            listed.iter().all(|listed| listed.id != *service),
            "a service that was removed is not listed",
            (),
        )?;
        let by_id = self.api.services(std::slice::from_ref(service)).await;
        ensure(
            by_id == Ok(Vec::new()),
            "a service that was removed is missing where it is asked for by id",
            by_id,
        )
    }

    async fn secrets_have_one_name(&self) -> Result<(), String> {
        let labels = [("about".to_owned(), NAME.to_owned())];
        let id = self.api.create_secret(NAME, &labels, b"x").await.map_err(text)?;
        let again = self.api.create_secret(NAME, &labels, b"y").await;
        ensure(
            matches!(again, Err(ApiError::Exists(_))),
            "a secret's name is taken once",
            again,
        )?;
        let listed = self.api.secrets().await.map_err(text)?;
        ensure(
            listed.iter().any(|secret| secret.name == NAME && secret.id == id),
            "a secret is listed",
            listed.len(),
        )?;
        self.api.remove_secret(&id).await.map_err(text)
    }

    /// All tasks of the service, where Docker knows it.
    async fn tasks(&self, service: &ServiceId) -> Result<Vec<Task>, String> {
        self.api.tasks(std::slice::from_ref(service)).await.map_err(text)
    }

    async fn until(
        &self,
        what: &str,
        service: &ServiceId,
        mut done: impl FnMut(&[Task]) -> bool,
    ) -> Result<(), String> {
        let begin = self.clock.now();
        loop {
            let tasks = self.tasks(service).await?;
            if done(&tasks) {
                return Ok(());
            }
            if self.clock.now().since(begin) > LIMIT {
                return Err(format!("within {LIMIT:?} {what}, but: {tasks:?}"));
            }
            self.clock.pause(LOOK_EVERY).await;
        }
    }
}

fn serving(tasks: &[Task]) -> Vec<Task> {
    tasks.iter().filter(|task| task.is_serving()).cloned().collect()
}

fn ids(tasks: &[Task]) -> BTreeSet<TaskId> {
    tasks.iter().map(|task| task.id.clone()).collect()
}

/// What events tell, up to the removal of a service.
async fn told_until_removed(
    events: &mut (impl Stream<Item = Result<Event, ApiError>> + Unpin),
    service: &ServiceId,
    clock: Clock,
) -> Result<Vec<Event>, String> {
    let is_end = |event: &Event| event.action == EventAction::Remove && event.id == service.as_str();
    let mut told = Vec::new();
    while !told.last().is_some_and(is_end) {
        let next = tokio::select! { biased;
            next = events.next() => next,
            () = clock.pause(LIMIT) => return Err(format!("events tell of a service's removal, but: {told:?}")),
        };
        told.push(next.ok_or("the stream of events stays open")?.map_err(text)?);
    }
    Ok(told)
}

/// Events tell of a service's creation, of its changes, and of its removal, in this order, and of no task.
async fn services_are_told_of(
    events: &mut (impl Stream<Item = Result<Event, ApiError>> + Unpin),
    service: &ServiceId,
    clock: Clock,
) -> Result<(), String> {
    let all = told_until_removed(events, service, clock).await?;
    let own = all
        .iter()
        .filter(|event| event.kind == EventKind::Service && event.id == service.as_str());
    let told: Vec<EventAction> = own.map(|event| event.action).collect();
    let rest = told.get(1..told.len().saturating_sub(1)).unwrap_or_default();
    let first = told.first();
    ensure(
        first == Some(&EventAction::Create) && rest.iter().all(|action| *action == EventAction::Update),
        "events tell of creation, updates and removal in this order",
        &told,
    )?;
    // Two labels, two images, one scaling: Docker tells of more, as updates have states.
    ensure(rest.len() >= 5, "every change is told of", &told)
}
