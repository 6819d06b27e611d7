//! What the feed is relied on for: it tells the last state of every task that the API lists, and all that was missed, on
//! another manager too.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use tidegate::clock::Clock;
use tidegate::swarm_api::SwarmApi;
use tidegate_core::id::{ServiceId, TaskId, Version};
use tidegate_core::swarm::model::{EventAction, FeedEnd, Task, TaskEvent};

use super::{Ground, LIMIT, ensure, serving};

/// For what the API shows to be told as well.
const LATE: Duration = Duration::from_secs(5);

type Changes<'a> = Pin<Box<dyn Stream<Item = Result<Vec<TaskEvent>, FeedEnd>> + 'a>>;

/// What a watch told of one service's tasks.
struct Heard<'a> {
    changes: Changes<'a>,
    clock: Clock,
    service: ServiceId,
    told: Vec<TaskEvent>,
}

impl Heard<'_> {
    /// The last that was told of each task.
    fn last(&self) -> BTreeMap<&TaskId, &TaskEvent> {
        self.told.iter().map(|event| (&event.task, event)).collect()
    }

    /// Listens until `done` says so.
    async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        let end = self.clock.now() + LATE;
        while !done(self) {
            let next = tokio::select! { biased;
                next = self.changes.next() => next,
                () = self.clock.sleep_until(Some(end)) => {
                    return Err(format!("within {LATE:?} {what}, but it told: {:?}", self.told));
                }
            };
            let events = next.ok_or("the watch ends with a reason")?.map_err(text)?;
            self.told
                .extend(events.into_iter().filter(|event| event.service == self.service));
        }
        Ok(())
    }

    /// Listens until every task that is listed was told as it is listed.
    async fn agrees_with(&mut self, tasks: &[Task]) -> Result<(), String> {
        let what = format!("the watch tells of each task what is listed: {tasks:?}");
        self.until(&what, |heard| {
            let last = heard.last();
            tasks.iter().all(|task| {
                last.get(&task.id).is_some_and(|told| {
                    told.action != EventAction::Remove
                        && (told.version, told.state, told.desired) == (task.version, task.state, task.desired)
                })
            })
        })
        .await
    }
}

fn text(end: FeedEnd) -> String {
    end.to_string()
}

/// Holds a Swarm's watch to all of it; `other` is the API of another manager, or of the same one. It must have no service
/// called `contract`, and has none afterwards.
///
/// # Errors
/// The assertion that does not hold, and what was seen instead.
pub async fn hold_watch<A: SwarmApi>(ground: &Ground<'_, A>, other: &A) -> Result<(), String> {
    let changes = ground.api.task_changes(None).await.map_err(text)?;
    let service = ground.create().await?;
    let mut heard = Heard {
        changes: Box::pin(changes),
        clock: ground.clock,
        service: service.clone(),
        told: Vec::new(),
    };
    heard.agrees_with(&ground.at_rest(&service, 2).await?).await?;
    let (seen, resume_from) = (heard.told.len(), newest(&heard.told));

    let image = ground.images[1];
    ground
        .change(&service, |shape| {
            shape.image = image.to_owned();
            shape.update.monitor_ms = 100;
        })
        .await?;
    ground
        .until("both tasks are replaced", &service, |tasks| {
            let news = serving(tasks).into_iter().filter(|task| task.version > resume_from);
            news.count() == 2 && tasks.iter().all(|task| !task.is_leaving())
        })
        .await?;
    heard.agrees_with(&ground.at_rest(&service, 2).await?).await?;
    for replicas in [3, 1] {
        ground.change(&service, |shape| shape.replicas = Some(replicas)).await?;
        heard.agrees_with(&ground.at_rest(&service, replicas).await?).await?;
    }
    ground
        .api
        .remove_service(&service)
        .await
        .map_err(|error| error.to_string())?;
    heard
        .until("the watch tells that every task is gone", |heard| {
            heard.last().values().all(|told| told.action == EventAction::Remove)
        })
        .await?;

    for api in [ground.api, other] {
        let changes = api.task_changes(Some(resume_from)).await.map_err(text)?;
        let mut again = Heard {
            changes: Box::pin(changes),
            clock: ground.clock,
            service: service.clone(),
            told: Vec::new(),
        };
        let missed = &heard.told[seen..];
        again
            .until("a watch that is resumed tells all that was told since", |again| {
                let mut rest = again.told.iter().map(told_of);
                missed.iter().map(told_of).all(|one| rest.any(|other| other == one))
            })
            .await?;
        let future = Version(newest(&heard.told).0 + (1 << 40));
        let refused = api.task_changes(Some(future)).await.err();
        ensure(
            matches!(refused, Some(FeedEnd::Gap(_))),
            "a version of the future is refused as a gap",
            refused,
        )?;
    }
    Ok(())
}

fn newest(told: &[TaskEvent]) -> Version {
    told.iter().map(|event| event.version).max().unwrap_or_default()
}

/// What two watches tell alike of one change.
fn told_of(event: &TaskEvent) -> impl PartialEq + use<> {
    let (state, desired) = (event.state, event.desired);
    // A removal that is told from history has the object as it was removed, or nothing but its id.
    match event.action {
        EventAction::Remove => (event.task.clone(), None),
        EventAction::Create | EventAction::Update | EventAction::Other => {
            (event.task.clone(), Some((event.version, state, desired)))
        }
    }
}

impl<A: SwarmApi> Ground<'_, A> {
    /// The service's tasks once so many serve and nothing about them changes any more.
    pub(super) async fn at_rest(&self, service: &ServiceId, replicas: u64) -> Result<Vec<Task>, String> {
        let begin = self.clock.now();
        let mut before = Vec::new();
        loop {
            let mut tasks = self.tasks(service).await?;
            tasks.sort_by(|a, b| a.id.cmp(&b.id));
            let between = |task: &Task| task.is_leaving() || !(task.is_serving() || task.is_over());
            let rests = serving(&tasks).len() as u64 == replicas && !tasks.iter().any(between);
            if rests && tasks == before {
                return Ok(tasks);
            }
            if self.clock.now().since(begin) > LIMIT {
                return Err(format!("within {LIMIT:?} {replicas} tasks are at rest, but: {tasks:?}"));
            }
            before = tasks;
            self.clock.pause(Duration::from_millis(500)).await;
        }
    }
}
