//! How long a change takes from Docker to every proxy, on a real Swarm, and what the controllers ask of Docker for it. Seen
//! from outside: Docker's API says when it wrote a change, the proxies' admin listeners and answers when they have it. All
//! nodes share the clock of this machine.

pub mod admin;
mod api;
pub mod figures;
pub(crate) mod metrics;
mod routes;
mod tasks;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use self::figures::{Figures, Goal};
use self::metrics::Counts;
use crate::clock::{Look, now, pause, wait_for};
use crate::image;
use crate::report::say;
use crate::scene::{SHARED, Scene, effect};

/// For one change to have its effect.
const LIMIT: Duration = Duration::from_secs(120);
/// For everything that changed to be left alone by the controllers, which watch for 12 s more.
const REST: Duration = Duration::from_secs(20);
/// For the calls at rest to be counted: the longest period between two of a kind.
const COUNT_FOR: Duration = Duration::from_secs(30);
/// Clients that create services at a time.
const CREATORS: usize = 8;
const PROGRESS_EVERY: usize = 250;

const TASKS: Goal = Goal {
    p99_ms: 200.0,
    max_ms: Some(800.0),
};
const ROUTES: Goal = Goal {
    p99_ms: 100.0,
    max_ms: None,
};

/// How much.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Changes of tasks, and as many new routes.
    pub changes: usize,
    /// Services that are there when all is measured a second time; 0 = no second time.
    pub services: usize,
    /// Whether the controllers follow SwarmKit's watch.
    pub feed: bool,
}

/// Measures on a Swarm of its own, prints the figures, and says whether they meet the goals.
///
/// # Errors
/// What Docker says, or a change that never has its effect.
pub fn freshness(options: &Options) -> Result<bool> {
    let scene = match options.feed {
        true => Scene::set_up_watching()?,
        false => Scene::set_up(SHARED)?,
    };
    scene.explained(freshness_on(&scene, options))
}

fn freshness_on(scene: &Scene, options: &Options) -> Result<bool> {
    let mut met = measure(scene, options.changes, "few services")?;
    if options.services > 0 {
        create_many(scene, options.services)?;
        met &= measure(scene, options.changes, &format!("{} services", options.services))?;
    }
    Ok(met)
}

fn measure(scene: &Scene, changes: usize, with: &str) -> Result<bool> {
    pause(REST);
    let start = Counts::take(scene)?;
    pause(COUNT_FOR);
    let rested = Counts::take(scene)?;
    let tasks = tasks::measure(scene, changes)?;
    let changed = Counts::take(scene)?;
    say(format_args!("the feed, tasks change: {}", changed.feed_since(&rested)));
    let routes = routes::measure(scene, changes)?;
    let routed = Counts::take(scene)?;
    say(format_args!("{with}\n count   p50 ms   p99 ms   max ms"));
    let mut met = true;
    let mut tell = |figures: &Figures, goal: &Goal, what: &str| {
        let meets = figures.meet(goal);
        met &= meets;
        let max = goal.max_ms.map(|max| format!(", max < {max}")).unwrap_or_default();
        let judged = if meets { "met" } else { "MISSED" };
        say(format_args!(
            "{figures}  {what} (goal p99 < {}{max}: {judged})",
            goal.p99_ms
        ));
    };
    tell(&tasks.leaving, &TASKS, "a task is told to stop, to the last proxy");
    tell(&tasks.arriving, &TASKS, "a task runs, to the last proxy");
    tell(&routes, &ROUTES, "a new route, to the last proxy's 200");
    say(format_args!("at rest, each controller: {}", rested.calls_since(&start)));
    say(format_args!(
        "tasks change, each controller: {}",
        changed.calls_since(&rested)
    ));
    say(format_args!(
        "routes change, each controller: {}",
        routed.calls_since(&changed)
    ));
    say(format_args!(
        "the controllers' own metric, tasks: {}",
        changed.freshness_since(&rested)
    ));
    say(format_args!(
        "the controllers' own metric, routes: {}",
        routed.freshness_since(&changed)
    ));
    Ok(met)
}

/// Routed services without tasks.
fn create_many(scene: &Scene, services: usize) -> Result<()> {
    let start = now();
    let before = Counts::take(scene)?.routes();
    let next = AtomicUsize::new(1);
    let create = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number > services {
                return Ok(());
            }
            let body = json!({
                "Name": format!("many{number}"),
                "Labels": {"tidegate.hosts": format!("many{number}.example"), "tidegate.port": "8080"},
                "TaskTemplate": {"ContainerSpec": {"Image": image::APP}, "Networks": [{"Target": SHARED}]},
                "Mode": {"Replicated": {"Replicas": 0}},
                "EndpointSpec": {"Mode": "dnsrr"},
            });
            api::post(&scene.managers()[0], "/services/create", &body)?;
            if number.is_multiple_of(PROGRESS_EVERY) {
                say(format_args!("        {number:5} of {services} services created"));
            }
        }
    };
    std::thread::scope(|scope| {
        let creators: Vec<_> = (0..CREATORS).map(|_| scope.spawn(create)).collect();
        let mut ends = creators.into_iter().map(|creator| creator.join().expect("no panic"));
        ends.try_for_each(|end| end)
    })?;
    wait_for("every service is routed", LIMIT, || match Counts::take(scene) {
        Ok(counts) if counts.routes() >= before + services as f64 => Look::Holds(()),
        Ok(counts) => Look::NotYet(format!("{} routes", counts.routes())),
        Err(error) => Look::NotYet(format!("{error:#}")),
    })?;
    effect(&format!("{services} services created, to their routes"), start);
    Ok(())
}
