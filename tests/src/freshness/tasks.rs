//! Changes of tasks: a service is scaled up and down and replaced over and over. A change begins when Docker wrote it
//! (`UpdatedAt` of the task that has it) and ends when the last proxy's worker shows it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::LIMIT;
use super::admin::{Endpoints, Follower, Sighting};
use super::api;
use super::figures::Figures;
use crate::clock::{Look, now, wait_for};
use crate::report::say;
use crate::scene::{PROXY, Scene};

const SERVICE: &str = "fresh";
const HOST: &str = "fresh.example";
const FEW: usize = 3;
const MANY: usize = 6;
/// Slower changes are told one by one.
const SLOW_MS: f64 = 800.0;
/// `/tasks?filters={"service":["fresh"]}`
const TASKS: &str = "/tasks?filters=%7B%22service%22%3A%5B%22fresh%22%5D%7D";

/// When a proxy showed what is looked for.
type Moment = fn(&[Sighting], &str) -> Option<u128>;

/// How long changes took.
pub(super) struct Measured {
    /// Tasks that were told to stop.
    pub(super) leaving: Figures,
    /// Tasks that began to run.
    pub(super) arriving: Figures,
}

/// What the API said of tasks, with `UpdatedAt` of the version that said it first.
#[derive(Default)]
struct Decisions {
    running: BTreeMap<String, String>,
    leaving: BTreeMap<String, String>,
}

impl Decisions {
    /// Tasks that run and are to run. A task that is told to stop is written again a second later at the earliest, one that
    /// runs not before it is told to stop, so looks every few milliseconds see each version.
    fn look(&mut self, scene: &Scene) -> Result<BTreeSet<String>> {
        let list = api::get(&scene.managers()[0], TASKS)?;
        let mut serving = BTreeSet::new();
        for task in list.as_array().into_iter().flatten() {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_string();
            let (id, written) = (text(&task["ID"]), text(&task["UpdatedAt"]));
            if task["Status"]["State"] != "running" {
                continue;
            }
            if task["DesiredState"] == "running" {
                self.running.entry(id.clone()).or_insert(written);
                serving.insert(id);
            } else {
                self.leaving.entry(id).or_insert(written);
            }
        }
        Ok(serving)
    }
}

/// Makes so many changes at least and measures each at every proxy.
pub(super) fn measure(scene: &Scene, changes: usize) -> Result<Measured> {
    scene.create_app(SERVICE, FEW, &[("tidegate.hosts", HOST), ("tidegate.port", "8080")])?;
    scene.until("the application is there", now(), HOST, |answer| answer.status == 200)?;
    let mut followers = Vec::new();
    for node in scene.proxies() {
        for container in node.containers_of(PROXY)? {
            followers.push(Follower::start(node, &container, HOST)?);
        }
    }
    let mut decisions = Decisions::default();
    let at_first = until_served(scene, &mut decisions, &mut followers, FEW, &BTreeSet::new())?;
    let made = |decisions: &Decisions| decisions.running.len() - at_first.len() + decisions.leaving.len();
    let mut serving = at_first.clone();
    while made(&decisions) < changes {
        for replicas in [MANY, FEW] {
            scene.docker(&["service", "scale", "--detach", &format!("{SERVICE}={replicas}")])?;
            serving = until_served(scene, &mut decisions, &mut followers, replicas, &BTreeSet::new())?;
        }
        scene.docker(&["service", "update", "--detach", "--force", SERVICE])?;
        serving = until_served(scene, &mut decisions, &mut followers, FEW, &serving)?;
        say(format_args!(
            "        {:5} of {changes} changes of tasks",
            made(&decisions)
        ));
    }
    let seen: Vec<_> = followers.iter().map(Follower::seen).collect();
    let leaving = figures(scene, &decisions.leaving, &seen, last_served)?;
    let new = decisions.running.iter().filter(|(id, _)| !at_first.contains(*id));
    let new = new.map(|(id, written)| (id.clone(), written.clone())).collect();
    let arriving = figures(scene, &new, &seen, first_served)?;
    drop(followers);
    scene.docker(&["service", "rm", SERVICE])?;
    Ok(Measured { leaving, arriving })
}

/// Waits until so many tasks run, none of `old` among them, and every proxy serves by exactly these.
fn until_served(
    scene: &Scene,
    decisions: &mut Decisions,
    followers: &mut [Follower],
    replicas: usize,
    old: &BTreeSet<String>,
) -> Result<BTreeSet<String>> {
    let (serving, _) = wait_for(&format!("{replicas} tasks serve at every proxy"), LIMIT, || {
        let mut look = || -> Result<_> {
            let tasks = decisions.look(scene)?;
            let at_proxies = followers.iter_mut().map(|follower| Ok(served(&follower.present()?)));
            Ok((tasks, at_proxies.collect::<Result<Vec<BTreeSet<String>>>>()?))
        };
        match look() {
            Ok((tasks, proxies))
                if tasks.len() == replicas && tasks.is_disjoint(old) && proxies.iter().all(|proxy| *proxy == tasks) =>
            {
                Look::Holds(tasks)
            }
            other => Look::NotYet(format!("{other:?}")),
        }
    })?;
    Ok(serving)
}

/// Whether an endpoint is one of those that some worker sends requests to, whatever its health. What was told to stop gets
/// none while others are there, as last resort or not at all. Workers that differ are told as `ready on 1, leaving on 1`.
fn serves(state: &str) -> bool {
    let stops = |part: &str| part.starts_with("leaving") || part.starts_with("last_resort");
    !state.split(", ").all(stops)
}

fn served(endpoints: &Endpoints) -> BTreeSet<String> {
    let serving = endpoints.iter().filter(|(_, state)| serves(state));
    serving.map(|(id, _)| id.clone()).collect()
}

fn figures(
    scene: &Scene,
    decided: &BTreeMap<String, String>,
    seen: &[Vec<Sighting>],
    moment: Moment,
) -> Result<Figures> {
    let moments: Vec<&str> = decided.values().map(String::as_str).collect();
    let mut millis = Vec::new();
    for (id, decided) in decided.keys().zip(api::nanos(scene, &moments)?) {
        let at_proxies: Option<Vec<u128>> = seen.iter().map(|seen| moment(seen, id)).collect();
        match at_proxies.and_then(|moments| moments.into_iter().max()) {
            Some(last) => {
                let took = last.saturating_sub(decided) as f64 / 1e6;
                if took > SLOW_MS {
                    say(format_args!(
                        "        task {id} took {took:.0} ms:{}",
                        story(seen, id, decided)
                    ));
                }
                millis.push(took);
            }
            None => say(format_args!("        task {id} was never seen at some proxy")),
        }
    }
    Ok(Figures::of(millis))
}

/// What each proxy showed of a task, in milliseconds since `decided`.
fn story(seen: &[Vec<Sighting>], id: &str, decided: u128) -> String {
    let mut text = String::new();
    for (number, seen) in (1..).zip(seen) {
        text.push_str(&format!(" proxy {number}:"));
        let mut last = None;
        for (at, endpoints) in seen {
            let state = endpoints.get(id).map(String::as_str);
            if state != last {
                let since = (*at as f64 - decided as f64) / 1e6;
                text.push_str(&format!(" {} {since:.0}", state.unwrap_or("gone")));
                last = state;
            }
        }
    }
    text
}

fn first_served(seen: &[Sighting], id: &str) -> Option<u128> {
    let serves = |endpoints: &Endpoints| endpoints.get(id).is_some_and(|state| serves(state));
    seen.iter().find(|(_, endpoints)| serves(endpoints)).map(|(at, _)| *at)
}

/// When it no longer served.
fn last_served(seen: &[Sighting], id: &str) -> Option<u128> {
    let serves = |endpoints: &Endpoints| endpoints.get(id).is_some_and(|state| serves(state));
    let last = seen.iter().rposition(|(_, endpoints)| serves(endpoints))?;
    seen.get(last + 1).map(|(at, _)| *at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_arrives_when_it_is_first_served_and_leaves_when_it_no_longer_is() {
        let at = |moment: u128, states: &[(&str, &str)]| {
            let states = states.iter().map(|(id, state)| (id.to_string(), state.to_string()));
            (moment, states.collect::<Endpoints>())
        };
        let seen = [
            at(1, &[]),
            at(2, &[("a", "probation")]),
            at(3, &[("a", "ready"), ("b", "ready")]),
            at(4, &[("a", "last_resort on 1, ready on 1"), ("b", "ready")]),
            at(5, &[("a", "last_resort"), ("b", "ready")]),
            at(6, &[("a", "last_resort on 1, leaving on 1"), ("b", "ready")]),
            at(7, &[("b", "ready")]),
        ];
        assert_eq!((first_served(&seen, "a"), last_served(&seen, "a")), (Some(2), Some(5)));
        assert_eq!((first_served(&seen, "b"), last_served(&seen, "b")), (Some(3), None));
        assert_eq!(first_served(&seen, "c"), None);
    }
}
