//! Apps some tasks of which ail while Docker calls them well.

use std::time::Duration;

use tidegate_core::id::TaskId;

use super::*;
use crate::backend::{Ailment, App, PROBED};
use crate::client::{Answer, Wish};
use crate::faults::DockerFaults;
use crate::product::Deployment;
use crate::seed::Seed;

/// Three wrong answers in a row, half a second apart, and one that was under way.
const CHECKED: Duration = Duration::from_secs(4);
/// Two right answers in a row, and a share of the requests.
const BACK: Duration = Duration::from_secs(20);
/// Requests that one proxy may have under way at each task of `narrow`.
const NARROW: u32 = 1;

/// See the table of scenarios.
pub fn ailing(seed: &Seed) {
    let mut world = world(seed, DockerFaults::draw);
    let mut deployment = Deployment::default();
    for cluster in deployment.settings.clusters.values_mut() {
        cluster.proxy.retry_on_500 = true;
    }
    let busy = App {
        think_ms: (20, 150),
        ..App::default()
    };
    world.app("narrow", busy);
    world.deploy(&deployment);
    let shop = serve_with(&mut world, "shop", &[("fail_on", "500")]);
    let blog = serve_with(
        &mut world,
        "blog",
        &[("probe_path", PROBED), ("probe_interval", "500ms")],
    );
    let narrow = serve_with(&mut world, "narrow", &[("requests_max", &NARROW.to_string())]);
    for task in world.tasks(&narrow) {
        world.shared().witness().bound(&task.id, NARROW);
    }
    users(&mut world, 6);
    let names = ["shop", "blog", "narrow"];
    world.load(
        names
            .map(|name| Wish::new(&format!("{name}.example.org"), "/"))
            .to_vec(),
    );
    for name in names {
        answered(&mut world, &format!("{name}.example.org"), name);
    }
    let mut ill: Option<(TaskId, &str)> = None;
    for _ in 0..5 {
        let Some(mut dice) = world.act("a task ails") else {
            continue;
        };
        // One at a time: what is judged is how its siblings take over.
        if let Some((task, service)) = ill.take() {
            recover(&mut world, &task, service);
        }
        let ailments = [Ailment::Drops, Ailment::Errors, Ailment::Unfit];
        let ailment = *dice.pick(&ailments).unwrap_or(&Ailment::Drops);
        let (service, name) = if ailment == Ailment::Unfit {
            (&blog, "blog")
        } else {
            (&shop, "shop")
        };
        let tasks = world.tasks(service);
        let task = dice.pick(&tasks).expect("three tasks run").id.clone();
        world.ail(&task, ailment);
        if ailment == Ailment::Unfit {
            world.run_for(CHECKED);
            world.shared().witness().forbid(&task);
        }
        ill = Some((task, name));
        let pause = dice.between(1000, 6000);
        world.run_for(Duration::from_millis(pause));
    }
    if let Some((task, service)) = ill {
        recover(&mut world, &task, service);
    }
    settle(&mut world);
    judge(world);
}

/// Three tasks, with labels of our own prefix.
fn serve_with(world: &mut World, name: &str, labels: &[(&str, &str)]) -> ServiceId {
    serve(world, name, 3, &[("hosts", &format!("{name}.example.org"))], |shape| {
        for (key, value) in labels {
            shape.labels.insert(format!("tidegate.{key}"), (*value).to_owned());
        }
    })
}

/// It is well again, and takes its share.
fn recover(world: &mut World, task: &TaskId, service: &str) {
    world.cure(task);
    let mark = world.mark();
    let (host, id) = (format!("{service}.example.org"), task.to_string());
    world.until(&format!("{task} answers again"), BACK, |world| {
        world.got_since(mark, |outcome| {
            let by = match &outcome.answer {
                Answer::Status { code: 200, task, .. } => task.as_deref(),
                Answer::Status { .. } | Answer::Broken(_) => None,
            };
            outcome.wish.host == host && by == Some(id.as_str())
        })
    });
}
