//! A rolling update, followed to its end.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_core::id::TaskId;
use tidegate_core::prove::{Account, Ending, Seen};
use tidegate_core::swarm::model::{ApiError, Service, Task};
use tidegate_core::time::Instant;
use tidegate_docker::Docker;
use tidegate_docker::prove::Inspected;

use super::{CALL, Failure, call};
use crate::clock::Clock;

/// Between two looks at the service and its tasks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// From the decision to stop a task to the end of one that ends on SIGTERM at once, as Docker tells it. Up to the signal Swarm takes
/// 3.28 s where it has an address on a network, 1.19 s without; its end is told up to 0.66 s later, and either is seen with the
/// next look.
const AT_ONCE: [Duration; 2] = [Duration::from_millis(2_400), Duration::from_millis(4_500)];
/// For old tasks to be gone, beyond their grace period.
const GONE_WITHIN: Duration = Duration::from_secs(15);
/// Compare-and-swap is tried so often.
const WRITES_MAX: usize = 5;
/// Exit code of a process that SIGKILL ended, and of one that SIGTERM did.
const KILLED: i64 = 137;
const TERMINATED: i64 = 143;

/// What is known of one task that was there before.
#[derive(Clone, Debug, Default)]
struct Old {
    on_network: bool,
    told_to_stop: Option<Instant>,
    ended: Option<(Instant, i64)>,
}

impl Old {
    /// Whether nothing but Swarm took time between the decision to stop it and its end.
    fn ended_at_once(&self) -> bool {
        let times = self.told_to_stop.zip(self.ended);
        times.is_some_and(|(told, (ended, _))| ended.since(told) < AT_ONCE[usize::from(self.on_network)])
    }
}

/// Replaces every task of the service, and waits until that is over.
pub(super) async fn roll(
    api: &Docker,
    clock: Clock,
    service: &Service,
    before: &Inspected,
    limit: Duration,
) -> Result<Seen, Failure> {
    let id = &service.id;
    let tasks = call(api.tasks_and_exits(id)).await?;
    let serving = tasks.into_iter().filter(|(task, _)| task.is_serving());
    let mut old: BTreeMap<TaskId, Old> = serving
        .map(|(task, _)| {
            let on_network = !task.addresses.is_empty();
            (
                task.id,
                Old {
                    on_network,
                    ..Old::default()
                },
            )
        })
        .collect();
    write(api, service).await?;
    let start = clock.now();
    let wanted = before.shape.replicas.unwrap_or(old.len() as u64);
    println!("update    started: every task is replaced, as by `docker service update --force`");
    let (mut ending, mut said) = (None, 0);
    let give_up = start + limit;
    let mut until = give_up;
    loop {
        clock.pause(LOOK_EVERY).await;
        let now = clock.now();
        // Docker may be busy or between two leaders: the next look tells.
        if let Ok(Ok(tasks)) = tokio::time::timeout(CALL, api.tasks_and_exits(id)).await {
            follow(&mut old, &tasks, now);
            let new = tasks
                .iter()
                .filter(|(task, _)| task.is_serving() && !old.contains_key(&task.id))
                .count() as u64;
            if new > said {
                said = new;
                println!(
                    "update    {new} of {wanted} tasks are new after {:.1} s",
                    seconds(now.since(start))
                );
            }
        }
        if ending.is_none()
            && let Ok(Ok(inspected)) = tokio::time::timeout(CALL, api.inspect_service(id)).await
        {
            ending = end(before, &inspected, said >= wanted);
            if let Some(ending) = &ending {
                println!("update    {} after {:.1} s", told(ending), seconds(now.since(start)));
                // What was told to stop ends seconds later, and until then its end may hurt somebody.
                let grace = Duration::from_millis(before.shape.stop_grace_ms.max(10_000));
                until = give_up.min(now + grace + GONE_WITHIN);
            }
        }
        let all_ended = old.values().all(|old| old.ended.is_some());
        match &ending {
            Some(Ending::Completed) if all_ended || now >= until => break,
            // Old tasks stay where an update was given up.
            Some(Ending::Paused(_) | Ending::RolledBack(_) | Ending::Unfinished(_)) => break,
            None if now >= give_up => {
                println!("update    not over after {:.1} s", seconds(limit));
                ending = Some(Ending::Unfinished(format!(
                    "{said} of {wanted} tasks are new after {} s",
                    limit.as_secs()
                )));
                break;
            }
            Some(Ending::Completed) | None => {}
        }
    }
    let quick = |old: &&Old| old.ended_at_once();
    let exit = |old: &&Old| old.ended.map_or(0, |(_, exit)| exit);
    Ok(Seen {
        ending: ending.unwrap_or(Ending::Completed),
        killed: count(old.values().filter(|old| exit(old) == KILLED && !quick(old))),
        exited_at_once: count(old.values().filter(quick)),
        unhandled: count(old.values().filter(|old| exit(old) == TERMINATED && quick(old))),
        account: Account::default(),
    })
}

fn count<'a>(old: impl Iterator<Item = &'a Old>) -> u64 {
    old.count() as u64
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// Looks again where somebody else wrote meanwhile.
async fn write(api: &Docker, service: &Service) -> Result<(), Failure> {
    for _ in 0..WRITES_MAX {
        let version = call(api.inspect_service(&service.id)).await?.version;
        match tokio::time::timeout(CALL, api.force_update(&service.id, version)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(ApiError::Conflict(_))) => {}
            Ok(Err(error)) => return Err(Failure::unreachable(format!("error: {}: {error}", service.name))),
            Err(_) => {
                return Err(Failure::unreachable(format!(
                    "error: {}: Docker gives no answer to the update, which may have begun: see `docker service ps`",
                    service.name
                )));
            }
        }
    }
    Err(Failure::fatal(format!(
        "error: {}: others change this service all the time, so no update of ours was written: try again when they have ended",
        service.name
    )))
}

fn follow(old: &mut BTreeMap<TaskId, Old>, tasks: &[(Task, i64)], now: Instant) {
    for (id, old) in old {
        match tasks.iter().find(|(task, _)| task.id == *id) {
            Some((task, exit)) => {
                if task.desired.is_past_running() {
                    old.told_to_stop.get_or_insert(now);
                }
                if task.is_over() {
                    old.ended.get_or_insert((now, *exit));
                }
            }
            // Docker keeps few tasks that are over.
            None => _ = old.ended.get_or_insert((now, 0)),
        }
    }
}

/// How the update ended; none while it goes on. `are_new`: all tasks that should be are.
fn end(before: &Inspected, now: &Inspected, are_new: bool) -> Option<Ending> {
    if now.update_started.is_empty() || now.update_state.is_empty() {
        // A change of labels in the middle of an update makes Docker forget the update: then the tasks tell.
        return are_new.then_some(Ending::Completed);
    }
    if now.update_started == before.update_started {
        return None; // the one before
    }
    let message = now.update_message.clone();
    match now.update_state.as_str() {
        "completed" => Some(Ending::Completed),
        "paused" | "rollback_paused" => Some(Ending::Paused(message)),
        "rollback_completed" => Some(Ending::RolledBack(message)),
        _ => None,
    }
}

fn told(ending: &Ending) -> &'static str {
    match ending {
        Ending::Completed => "completed",
        Ending::Paused(_) => "paused by Swarm",
        Ending::RolledBack(_) => "rolled back by Swarm",
        Ending::Unfinished(_) => "not over",
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::id::Version;
    use tidegate_core::reconcile::desired::ServiceShape;

    use super::*;

    fn at(started: &str, state: &str) -> Inspected {
        Inspected {
            version: Version(1),
            shape: ServiceShape::default(),
            update_state: state.into(),
            update_started: started.into(),
            update_message: "task failed".into(),
        }
    }

    /// Up to the signal 3.28 s or 1.19 s, up to its end 0.66 s, and a look every 0.1 s; an app that takes a second for itself takes
    /// longer.
    #[test]
    fn who_ends_as_soon_as_swarm_lets_it_ends_at_once() {
        for (on_network, at_most, with_a_second) in [(true, 4_040, 4_600), (false, 1_950, 2_500)] {
            let old = |ms: u64| Old {
                on_network,
                told_to_stop: Some(Instant::START),
                ended: Some((Instant::from_millis(ms), 143)),
            };
            assert!(old(at_most).ended_at_once() && !old(with_a_second).ended_at_once());
        }
    }

    #[test]
    fn the_end_of_the_update_before_is_not_the_end_of_this_one() {
        let before = at("t1", "completed");
        assert_eq!(end(&before, &before, false), None);
        assert_eq!(end(&before, &at("t2", "updating"), false), None);
        assert_eq!(end(&before, &at("t2", "completed"), false), Some(Ending::Completed));
        let paused = Some(Ending::Paused("task failed".into()));
        assert_eq!(end(&before, &at("t2", "paused"), false), paused);
        let back = Some(Ending::RolledBack("task failed".into()));
        assert_eq!(end(&before, &at("t2", "rollback_completed"), false), back);
        assert_eq!(end(&before, &at("t2", "rollback_started"), false), None);
    }

    #[test]
    fn tasks_tell_where_docker_forgot_the_update() {
        assert_eq!(end(&at("t1", "completed"), &at("", ""), false), None);
        assert_eq!(end(&at("t1", "completed"), &at("", ""), true), Some(Ending::Completed));
    }
}
