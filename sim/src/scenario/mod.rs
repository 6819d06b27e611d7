//! Whole stories with a name. Each draws its world from the seed, deploys Tidegate, puts it under load, changes or breaks
//! something, and judges every answer.

mod ailing;
mod certificates;
mod chaos;
mod faults;
mod identities;
mod planned;

use std::time::Duration;

use tidegate_core::id::ServiceId;
use tidegate_core::reconcile::desired::{ServiceShape, UpdatePolicy};
use tidegate_core::rng::Rng;

pub use ailing::ailing;
pub use certificates::{certificates, forgotten_certificate, passthrough};
pub use chaos::chaos;
pub use faults::*;
pub use identities::identities;
pub use planned::*;

use crate::client::Wish;
use crate::faults::DockerFaults;
use crate::oracle::{
    no_request_lost, no_stream_lost, nobody_asks_who_leaves, nobody_waits, nobody_waits_in_vain, nothing_forbidden,
    only_owners_answer, only_owners_are_asked, unknown_is_refused,
};
use crate::seed::Seed;
use crate::world::World;

/// One story.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// Runs it; panics where an expectation is broken.
    pub run: fn(&Seed),
}

macro_rules! scenarios {
    ($($name:literal $run:path, $about:literal;)*) => {
        /// All stories.
        pub const ALL: &[Scenario] = &[$(Scenario { name: $name, about: $about, run: $run }),*];
    };
}

scenarios! {
    "ailing" ailing, "one task of a service drops requests, answers 500 or fails its checks: what may be sent again is not lost, and checks keep users away";
    "apps" apps, "apps crash, freeze, turn unhealthy, drop requests: others are not touched, and eyes see it in time";
    "certificates" certificates, "a courier brings certificates: renewed again and again, to their own service cluster and to no other";
    "chaos" chaos, "everything at random, one upon the other; then all heals and settles";
    "controller-partition" controller_partition, "controllers and proxies do not hear each other, or a proxy stands still: traffic goes on, and changes are followed afterwards";
    "controller-restart" controller_restart, "the controller dies under load: traffic goes on, and its successor follows changes";
    "crowded" crowded, "more requests than may wait for a service without tasks: the others are refused at once, and all places are given back";
    "forgotten-certificate" forgotten_certificate, "a certificate ends because nobody renewed it: the proxies say so, and users trust the next one at once";
    "identities" identities, "years go by: certificates of the control network and the authority that signs them are renewed under load";
    "leader-change" leader_change, "a leader change gives one service's addresses to another: nobody is answered by the wrong one";
    "newer-controller" newer_controller, "controllers of a later version, also side by side with present ones that come and go: what is unknown is passed over";
    "node-loss" node_loss, "a worker loses its power, link or dockerd: own eyes see it long before the Swarm does";
    "operator-mistakes" operator_mistakes, "conflicting hosts, broken labels, a proxy service that somebody edits or removes: only they suffer";
    "passthrough" passthrough, "an app ends TLS itself, and is updated and scaled while it is used";
    "quorum-loss" quorum_loss, "two of three managers go: nothing changes, and what changed meanwhile is followed when they are back";
    "random" random, "planned changes of every kind in any order, one upon the other: no request is lost";
    "rolling-update-start-first" rolling_update_start_first, "three tasks are replaced, new before old, apps exit at once on SIGTERM: no request is lost";
    "rolling-update-stop-first" rolling_update_stop_first, "three tasks are replaced, old before new, apps exit at once on SIGTERM: no request is lost";
    "routing" routing, "hosts and paths reach their services, unknown ones are refused, label changes are followed";
    "stored-table" stored_table, "proxies restart without controllers, on disks that were full or tore a write";
    "streams" streams, "upgraded connections live through every change that does not concern them";
    "two-clusters" two_clusters, "two service clusters: neither is given anything of the other";
    "two-controllers" two_controllers, "two controllers, one of them on a manager that is stopped or cut off: they agree in the end";
}

/// The time within which a change must be followed, where the Docker API behaves.
pub(super) const FOLLOWED: Duration = Duration::from_millis(1500);
/// The same where it errs, hangs or loses events: limits on calls and the safety net's interval come on top.
pub(crate) const FOLLOWED_WITH_FAULTS: Duration = Duration::from_secs(12);
pub(crate) const SETTLED: Duration = Duration::from_secs(60);

pub(super) fn world(seed: &Seed, faults: impl Fn(&mut Rng) -> DockerFaults) -> World {
    let faults = faults(&mut Rng::new(seed.value()).fork("faults"));
    let is_well = faults.is_well();
    let mut world = World::new(seed, faults);
    world.set_grace(if is_well { FOLLOWED } else { FOLLOWED_WITH_FAULTS });
    world
}

/// Creates a service with labels of the old prefix and waits until its tasks run.
pub(super) fn serve(
    world: &mut World,
    name: &str,
    replicas: u64,
    labels: &[(&str, &str)],
    edit: impl FnOnce(&mut ServiceShape),
) -> ServiceId {
    let labels = labels.iter().chain(&[("port", "80")]);
    let mut shape = ServiceShape {
        name: name.to_owned(),
        image: format!("{name}:1"),
        labels: labels
            .map(|(key, value)| (format!("com.docker.lb.{key}"), (*value).to_owned()))
            .collect(),
        replicas: Some(replicas),
        networks: ["apps".to_owned()].into(),
        update: UpdatePolicy {
            failure_action: "pause".to_owned(),
            monitor_ms: 500,
            ..UpdatePolicy::default()
        },
        ..ServiceShape::default()
    };
    edit(&mut shape);
    let id = world
        .command(&format!("creates {name}"), |swarm, now| {
            swarm.create_service(shape, now)
        })
        .expect("the service is new and its network exists");
    world.until(&format!("{name} runs"), SETTLED, |world| {
        world.serving(&id) as u64 >= replicas
    });
    id
}

pub(super) fn users(world: &mut World, count: usize) {
    for number in 1..=count {
        world.user(&format!("user-{number}"));
    }
}

pub(super) fn relabel(world: &mut World, service: &ServiceId, key: &str, value: &str) {
    let label = format!("com.docker.lb.{key}");
    world
        .command(&format!("sets {label}={value}"), |swarm, now| {
            swarm.edit_service(service, now, |shape| {
                shape.labels.insert(label.clone(), value.to_owned());
            })
        })
        .expect("the service exists");
}

pub(super) fn edit(world: &mut World, what: &str, service: &ServiceId, change: impl FnOnce(&mut ServiceShape)) {
    world
        .command(what, |swarm, now| swarm.edit_service(service, now, change))
        .expect("the service exists");
}

/// A new image for every task, and the wait until all of it is over.
pub(super) fn roll(world: &mut World, service: &ServiceId) {
    let running = world.tasks(service).into_iter().filter(|task| task.is_serving());
    let old: Vec<_> = running.map(|task| task.id).collect();
    world
        .command("updates the image", |swarm, now| {
            swarm.edit_service(service, now, |shape| shape.image.push('1'))
        })
        .expect("the service exists");
    world.until("the update is over", Duration::from_secs(120), |world| {
        let tasks = world.tasks(service);
        let new = tasks.iter().filter(|task| task.is_serving() && !old.contains(&task.id));
        new.count() == old.len() && !tasks.iter().any(|task| task.is_leaving())
    });
}

/// Waits until users get an answer for `host` from `service`.
pub(super) fn answered(world: &mut World, host: &str, service: &str) {
    answered_within(world, FOLLOWED_WITH_FAULTS, host, service);
}

/// The same with more patience: users may hang on a lost proxy for as long as theirs lasts.
pub(super) fn answered_within(world: &mut World, limit: Duration, host: &str, service: &str) {
    let mark = world.mark();
    world.until(&format!("{host} is answered by {service}"), limit, |world| {
        world.got_since(mark, |outcome| outcome.is_from(host, service))
    });
}

/// Faults stop, requests under way end, and every answer is judged.
pub(super) fn judge(mut world: World) {
    world.heal();
    world.stop_load();
    world.expect(only_owners_answer);
    world.expect(only_owners_are_asked);
    world.expect(nobody_asks_who_leaves);
    world.expect(no_request_lost);
    world.expect(unknown_is_refused);
    world.expect(nobody_waits_in_vain);
    world.expect(no_stream_lost);
    world.run_for(Duration::from_millis(500)); // every proxy is looked at once more
    world.expect(nothing_forbidden);
    world.expect(nobody_waits);
}

/// A world with so many managers.
pub(super) fn world_of(seed: &Seed, managers: u64, faults: impl Fn(&mut Rng) -> DockerFaults) -> World {
    let faults = faults(&mut Rng::new(seed.value()).fork("faults"));
    let is_well = faults.is_well();
    let mut world = World::with_managers(seed, faults, managers);
    world.set_grace(if is_well { FOLLOWED } else { FOLLOWED_WITH_FAULTS });
    world
}

/// Faults stop; the Swarm comes to rest and then every proxy serves by what Docker says, within a time that a person
/// would wait.
pub(super) fn settle(world: &mut World) {
    world.heal();
    world.until("the swarm is at rest", Duration::from_secs(300), |world| {
        world
            .shared()
            .with_swarm(|swarm, _| swarm.leaderless_since().is_none() && swarm.is_at_rest())
    });
    // Tasks without a node that may take them are at rest as well.
    world.until("nothing keeps facts from the product", SETTLED, |world| {
        world.what_blinds().is_none()
    });
    world.until_tables_match(SETTLED);
}

/// Wishes for the services that every story has.
pub(super) fn shop_and_blog(world: &mut World) -> [ServiceId; 2] {
    let shop = serve(world, "shop", 3, &[("hosts", "shop.example.org")], |_| {});
    let blog = serve(world, "blog", 2, &[("hosts", "blog.example.org")], |shape| {
        shape.update.start_first = true;
    });
    users(world, 4);
    world.load(vec![
        Wish::new("shop.example.org", "/"),
        Wish::new("blog.example.org", "/"),
        Wish::new("store.example.org", "/"),
    ]);
    answered(world, "shop.example.org", "shop");
    answered(world, "blog.example.org", "blog");
    [shop, blog]
}

/// One task on every node that may take it.
pub(super) fn serve_globally(world: &mut World, name: &str, host: &str) -> ServiceId {
    let id = serve(world, name, 0, &[("hosts", host)], |shape| {
        shape.replicas = None;
    });
    world.until(&format!("{name} runs everywhere"), SETTLED, |world| {
        world.serving(&id) == world.nodes(true).len() + world.nodes(false).len()
    });
    id
}
