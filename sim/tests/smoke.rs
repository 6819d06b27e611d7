//! The simulated world without the product: users that know the addresses of tasks. What they see is what a proxy sees.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::time::Duration;

use sim::backend::{APP_PORT, App, OnSigterm};
use sim::client::{Answer, Outcome, Wish};
use sim::faults::DockerFaults;
use sim::seed::{self, Seed, sweep};
use sim::world::World;
use tidegate_core::id::ServiceId;
use tidegate_core::reconcile::desired::ServiceShape;
use tidegate_core::swarm::model::Task;

const MINUTE: Duration = Duration::from_secs(60);

fn shop(world: &mut World, replicas: u64) -> ServiceId {
    let shape = ServiceShape {
        name: "shop".to_owned(),
        image: "shop:1".to_owned(),
        replicas: Some(replicas),
        networks: ["apps".to_owned()].into(),
        ..ServiceShape::default()
    };
    let id = world
        .command("creates shop", |swarm, now| swarm.create_service(shape, now))
        .unwrap();
    world.until("shop runs", MINUTE, |world| world.serving(&id) as u64 == replicas);
    id
}

fn address(task: &Task) -> SocketAddr {
    SocketAddr::new(task.addresses[0].addr, APP_PORT)
}

fn ask(world: &mut World, at: &Task) {
    world.enter_at(vec![address(at)]);
    let (host, path) = ("shop".to_owned(), "/".to_owned());
    world.load(vec![Wish::new(&host, &path)]);
}

fn broken(outcomes: &[Outcome]) -> Vec<String> {
    let broken = outcomes
        .iter()
        .filter(|outcome| matches!(outcome.answer, Answer::Broken(_)));
    broken.map(ToString::to_string).collect()
}

/// Users talk to one task; it is told to stop and exits at once.
fn a_stop(seed: &Seed) {
    let mut world = World::new(seed, DockerFaults::none());
    let shop = shop(&mut world, 1);
    for number in 1..=3 {
        world.user(&format!("user-{number}"));
    }
    let task = world.tasks(&shop)[0].clone();
    ask(&mut world, &task);
    world.run_for(Duration::from_secs(1));
    assert!(world.outcomes().len() > 20, "users are answered");
    assert_eq!(broken(&world.outcomes()), Vec::<String>::new());

    world
        .command("scales shop to 0", |swarm, now| swarm.scale(&shop, 0, now))
        .unwrap();
    world.run_for(Duration::from_millis(3000));
    assert_eq!(
        broken(&world.outcomes()),
        Vec::<String>::new(),
        "the app does not know yet"
    );
    world.run_for(Duration::from_millis(4000));
    let broken = broken(&world.outcomes());
    assert!(
        broken.iter().any(|line| line.contains("refused")),
        "first refused: {broken:#?}"
    );
    assert!(
        broken.iter().any(|line| line.contains("within 3s")),
        "then a black hole: {broken:#?}"
    );
}

#[test]
fn a_stopped_task_serves_for_three_seconds_then_refuses_then_swallows_packets() {
    sweep(6, a_stop);
}

#[test]
fn an_app_that_drains_finishes_what_it_has() {
    sweep(4, |seed| {
        let mut world = World::new(seed, DockerFaults::none());
        let app = App {
            think_ms: (0, 400),
            on_sigterm: OnSigterm::Drain(500),
            ..App::default()
        };
        world.app("shop", app);
        let shop = shop(&mut world, 1);
        world.user("user-1");
        let task = world.tasks(&shop)[0].clone();
        ask(&mut world, &task);
        world
            .command("scales shop to 0", |swarm, now| swarm.scale(&shop, 0, now))
            .unwrap();
        world.until("shop is told", MINUTE, |world| {
            world.tasks(&shop).iter().any(Task::is_leaving)
        });
        world.run_for(Duration::from_millis(3000));
        world.load(Vec::new());
        world.until("shop is gone", MINUTE, |world| world.tasks(&shop).is_empty());
        world.stop_load();
        assert_eq!(broken(&world.outcomes()), Vec::<String>::new());
    });
}

#[test]
fn an_address_that_is_reused_reaches_the_new_task() {
    sweep(3, |seed| {
        let mut world = World::new(seed, DockerFaults::none());
        let shop = shop(&mut world, 1);
        world.user("user-1");
        let old = world.tasks(&shop)[0].clone();
        world
            .command("scales shop to 0", |swarm, now| swarm.scale(&shop, 0, now))
            .unwrap();
        world.until("shop is gone", MINUTE, |world| world.tasks(&shop).is_empty());
        world.command("loses the leader", |swarm, now| swarm.lose_leader(now));
        let has_leader = |world: &World| world.shared().with_swarm(|swarm, _| swarm.leaderless_since().is_none());
        world.until("a leader is elected", MINUTE, has_leader);
        world
            .command("scales shop to 1", |swarm, now| swarm.scale(&shop, 1, now))
            .unwrap();
        world.until("shop runs", MINUTE, |world| world.serving(&shop) == 1);
        let new = world.tasks(&shop)[0].clone();
        assert_eq!(address(&new), address(&old));
        ask(&mut world, &new);
        world.run_for(Duration::from_secs(1));
        world.stop_load();
        assert_eq!(broken(&world.outcomes()), Vec::<String>::new());
        assert!(world.outcomes().iter().all(|outcome| {
            matches!(&outcome.answer, Answer::Status { task: Some(task), .. } if task == new.id.as_str())
        }));
    });
}

#[test]
fn the_same_seed_gives_the_same_trace_on_another_thread() {
    let first = seed::run(5, a_stop).unwrap();
    let second = seed::run(5, a_stop).unwrap();
    assert_eq!(first.lines, second.lines);
    assert_eq!(first.digest, second.digest);
    assert_ne!(first.digest, seed::run(6, a_stop).unwrap().digest);
}

/// A task that nobody waits for panics in the middle of a process.
fn a_panic(seed: &Seed) {
    let mut world = World::new(seed, DockerFaults::none());
    world.host("host", "alias", || async {
        let process = async {
            tokio::task::spawn_local(async { panic!("an invariant is broken") });
            std::future::pending::<()>().await;
        };
        tokio::task::LocalSet::new().run_until(process).await;
    });
    world.run_for(Duration::from_secs(1));
}

#[test]
fn a_panic_that_nobody_waits_for_fails_the_simulation() {
    let failure = seed::run(1, a_panic).unwrap_err();
    assert!(failure.what.contains("an invariant is broken"), "{}", failure.what);
}
