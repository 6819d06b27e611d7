//! Rolling updates and what becomes of those that fail.

use super::*;

#[test]
fn a_stop_first_step_takes_its_measured_times() {
    for seed in 0..20 {
        let mut shell = Shell::new(seed);
        let shop = shell.service("shop", 2, false);
        let posted = shell.ms();
        new_image(&mut shell, &shop);
        let t = shell.until(|swarm| leaving(swarm, &shop).is_some());
        assert!((5..=15).contains(&t), "T is {t} ms after the POST");
        let (decided, old) = (shell.ms(), leaving(&shell.swarm, &shop).unwrap());
        assert_eq!(old.desired, DesiredState::Shutdown);
        let new = tasks(&shell.swarm, &shop)
            .into_iter()
            .find(|task| task.desired == DesiredState::Ready);
        assert!(new.is_some_and(|new| new.slot == old.slot), "its successor waits");

        let addr = old.addresses[0].addr;
        let dns = shell.until(|swarm| !swarm.dns("shop", None).contains(&addr));
        assert!((1070..=1671).contains(&dns), "left DNS after {dns} ms");
        shell.until(|swarm| swarm.task(&old.id).is_none_or(|task| task.state != TaskState::Running));
        let signal = shell.when(&format!("signal {}", old.id)) - decided;
        assert!((3090..=3276).contains(&signal), "SIGTERM after {signal} ms");
        let reported = shell.ms() - decided - signal - 1500;
        assert!(
            (105..=656).contains(&reported),
            "its end was reported after {reported} ms"
        );
        let black_hole = shell.when(&format!("black hole {}", old.id)) - decided - signal - 1500;
        assert!((40..=100).contains(&black_hole), "refused for {black_hole} ms");

        assert_eq!(serving(&shell.swarm, &shop).len(), 1, "nobody else stopped meanwhile");
        let gap = shell.until(|swarm| serving(swarm, &shop).iter().any(|task| task.slot == old.slot));
        assert!(
            (360..=1650).contains(&gap),
            "the new one runs {gap} ms after the end of the old one"
        );
        shell.until(|swarm| leaving(swarm, &shop).is_some());
        let step = shell.ms() - posted;
        assert!((3090 + 1500..8000).contains(&step), "a step took {step} ms");
        assert!(
            shell
                .log
                .iter()
                .any(|(at, line)| *at >= posted + 4 && *at <= posted + 8 && line.starts_with("event Service Update"))
        );
    }
}

#[test]
fn a_start_first_step_never_shows_a_gap() {
    for seed in 0..20 {
        let mut shell = Shell::new(seed);
        shell.drain_ms = 0;
        let shop = shell.service("shop", 1, true);
        new_image(&mut shell, &shop);
        let begin = shell.ms();
        let mut fewest = usize::MAX;
        let t = shell.until(|swarm| {
            fewest = fewest.min(serving(swarm, &shop).len());
            leaving(swarm, &shop).is_some()
        });
        assert_eq!(fewest, 1);
        assert_eq!(
            serving(&shell.swarm, &shop).len(),
            1,
            "in the commit that stops the old one the new one runs"
        );
        assert!((550..=1950).contains(&t), "the old one is told after {t} ms");
        let old = leaving(&shell.swarm, &shop).unwrap();
        shell.run_for(5000);
        let signal = shell.when(&format!("signal {}", old.id)) - begin - t;
        assert!((3090..=3277).contains(&signal), "SIGTERM after {signal} ms");
    }
}

/// A service whose update status is shown; without a number, on every node.
fn managed(shell: &mut Shell, replicas: Option<u64>, start_first: bool) -> ServiceId {
    let mut shape = shape("shop", 0, start_first);
    shape.replicas = replicas;
    shape.labels.insert("tidegate.role".to_string(), "proxy".to_string());
    shape.update.monitor_ms = 500;
    let shop = shell.command(|swarm, now| swarm.create_service(shape, now)).unwrap();
    shell.until(|swarm| serving(swarm, &shop).len() as u64 == replicas.unwrap_or(3));
    shell.run_for(2000);
    shop
}

/// The same, stop-first, with a new image whose first step is under way, and its tasks before.
fn in_a_step(seed: u64, replicas: Option<u64>) -> (Shell, ServiceId, BTreeSet<TaskId>) {
    let mut shell = Shell::new(seed);
    let shop = managed(&mut shell, replicas, false);
    let old = ids_of(&serving(&shell.swarm, &shop));
    new_image(&mut shell, &shop);
    shell.until(|swarm| leaving(swarm, &shop).is_some());
    (shell, shop, old)
}

fn edit(shell: &mut Shell, service: &ServiceId, edit: impl FnOnce(&mut ServiceShape)) {
    shell
        .command(|swarm, now| swarm.edit_service(service, now, edit))
        .unwrap();
}

/// Another label than any before.
fn label(shell: &mut Shell, service: &ServiceId) {
    let value = shell.ms().to_string();
    edit(shell, service, |shape| {
        shape.labels.insert("a".to_string(), value);
    });
}

fn until_says(shell: &mut Shell, state: &str) -> u64 {
    shell.until(|swarm| update_state(swarm).as_deref() == Some(state))
}

fn update_state(swarm: &Swarm) -> Option<String> {
    swarm.managed()[0].update_state.clone()
}

fn ids_of(tasks: &[Task]) -> BTreeSet<TaskId> {
    tasks.iter().map(|task| task.id.clone()).collect()
}

/// Runs until nobody leaves and nobody comes.
fn rest(shell: &mut Shell, service: &ServiceId) {
    shell.until(|swarm| {
        let tasks = tasks(swarm, service);
        tasks.iter().all(|task| task.is_serving() || task.is_over())
    });
}

#[test]
fn an_update_says_how_it_goes() {
    let mut shell = Shell::new(7);
    let shop = managed(&mut shell, Some(2), false);
    assert_eq!(update_state(&shell.swarm), None);
    new_image(&mut shell, &shop);
    assert_eq!(update_state(&shell.swarm), None, "nobody has looked yet");
    let begins = until_says(&mut shell, "updating");
    assert!(begins <= 15, "{begins} ms");
    until_says(&mut shell, "completed");
    assert_eq!(serving(&shell.swarm, &shop).len(), 2);
}

#[test]
fn a_label_in_the_middle_has_the_next_place_begin_beside_the_one_under_way() {
    let (mut shell, shop, old) = in_a_step(8, Some(2));
    label(&mut shell, &shop);
    assert_eq!(update_state(&shell.swarm), None);
    let both = shell.until(|swarm| tasks(swarm, &shop).iter().filter(|task| task.is_leaving()).count() == 2);
    assert!(both <= 15, "both leave after {both} ms");
    assert_eq!(update_state(&shell.swarm).as_deref(), Some("updating"));
    until_says(&mut shell, "completed");
    let new = ids_of(&serving(&shell.swarm, &shop));
    assert!(new.len() == 2 && new.is_disjoint(&old), "{new:?}");
}

#[test]
fn a_label_in_the_last_step_ends_what_is_said_of_the_update() {
    let (mut shell, shop, old) = in_a_step(8, Some(1));
    label(&mut shell, &shop);
    shell.run_for(30_000);
    assert_eq!(update_state(&shell.swarm), None, "its completion is never reported");
    let new = ids_of(&serving(&shell.swarm, &shop));
    assert!(new.len() == 1 && new.is_disjoint(&old), "and the step goes on");
}

#[test]
fn a_label_before_the_new_task_runs_stops_the_old_one_at_once() {
    let mut shell = Shell::new(8);
    let shop = managed(&mut shell, Some(1), true);
    new_image(&mut shell, &shop);
    shell.until(|swarm| tasks(swarm, &shop).len() == 2);
    label(&mut shell, &shop);
    let told = shell.until(|swarm| leaving(swarm, &shop).is_some());
    assert!(told <= 15, "told after {told} ms");
    assert_eq!(serving(&shell.swarm, &shop).len(), 0, "before its successor runs");
    until_says(&mut shell, "completed");
    rest(&mut shell, &shop);
    assert_eq!(serving(&shell.swarm, &shop).len(), 1);
}

#[test]
fn the_same_spec_again_wipes_what_is_said_and_keeps_the_update() {
    let (mut shell, shop, _) = in_a_step(8, Some(2));
    edit(&mut shell, &shop, |_| ());
    let mut most = 0;
    for _ in 0..15_000 {
        shell.run_for(1);
        most = most.max(
            tasks(&shell.swarm, &shop)
                .iter()
                .filter(|task| task.is_leaving())
                .count(),
        );
    }
    assert_eq!((most, update_state(&shell.swarm)), (1, None));
    assert_eq!(serving(&shell.swarm, &shop).len(), 2);
}

#[test]
fn another_image_in_the_middle_interrupts_the_steps_and_is_completed() {
    for (seed, start_first) in [(9, false), (9, true), (10, false), (10, true)] {
        let mut shell = Shell::new(seed);
        let shop = managed(&mut shell, Some(2), start_first);
        new_image(&mut shell, &shop);
        shell.until(|swarm| tasks(swarm, &shop).len() == 3);
        new_image(&mut shell, &shop);
        until_says(&mut shell, "completed");
        rest(&mut shell, &shop);
        let serving = serving(&shell.swarm, &shop);
        let slots: BTreeSet<_> = serving.iter().map(|task| task.slot).collect();
        assert_eq!((serving.len(), slots.len()), (2, 2), "start_first = {start_first}");
        let image = &shell.swarm.shape(&shop).unwrap().image;
        let is_new = |task: &Task| shell.swarm.tasks[&task.id].shape.image == *image;
        assert!(serving.iter().all(is_new));
    }
}

/// A start-first update whose new tasks crash soon after their start, interrupted before it is paused.
#[test]
fn a_paused_update_leaves_one_task_for_each_place() {
    let mut shell = Shell::new(12);
    let shop = managed(&mut shell, Some(2), true);
    let old = ids_of(&serving(&shell.swarm, &shop));
    new_image(&mut shell, &shop);
    shell.until(|swarm| tasks(swarm, &shop).len() == 3);
    edit(&mut shell, &shop, |shape| {
        shape.image.push('1');
        shape.env.insert("CRASH_MS=5".to_string());
    });
    until_says(&mut shell, "paused");
    shell.command(|swarm, _| swarm.check_invariants());
    assert_eq!(
        ids_of(&serving(&shell.swarm, &shop)),
        old,
        "whose successor never ran serves on"
    );
}

#[test]
fn a_paused_update_goes_on_after_any_change() {
    let mut shell = Shell::new(12);
    let shop = managed(&mut shell, Some(2), false);
    shell.swarm.lose_image("shop:10");
    new_image(&mut shell, &shop);
    until_says(&mut shell, "paused");
    shell.run_for(10_000);
    assert_eq!(
        serving(&shell.swarm, &shop).len(),
        1,
        "whom it has not reached serves on"
    );
    edit(&mut shell, &shop, |_| ());
    shell.run_for(10_000);
    assert_eq!(update_state(&shell.swarm), None);
    assert_eq!(serving(&shell.swarm, &shop).len(), 1, "the same spec is no change");
    label(&mut shell, &shop);
    shell.until(|swarm| serving(swarm, &shop).is_empty());
}

/// Two tasks, and an update that takes both; the first new one crashes after so long.
fn crash_of_the_first(ms: u64) -> (Shell, ServiceId) {
    let mut shell = Shell::new(14);
    let shop = managed(&mut shell, Some(2), false);
    let old = ids_of(&serving(&shell.swarm, &shop));
    new_image(&mut shell, &shop);
    let is_new = |task: &Task| !old.contains(&task.id);
    shell.until(|swarm| serving(swarm, &shop).iter().any(is_new));
    let new = serving(&shell.swarm, &shop).into_iter().find(is_new).unwrap();
    shell.run_for(ms);
    shell.running.remove(&new.id);
    shell.input(Input::Fact(Fact::Exited { task: new.id, code: 1 }));
    shell.run_for(1000);
    (shell, shop)
}

#[test]
fn a_task_that_crashes_when_it_is_watched_no_longer_stops_no_update() {
    let (shell, _) = crash_of_the_first(50);
    assert_eq!(update_state(&shell.swarm).as_deref(), Some("paused"));
    let (mut shell, shop) = crash_of_the_first(600);
    assert_eq!(update_state(&shell.swarm).as_deref(), Some("updating"));
    until_says(&mut shell, "completed");
    shell.until(|swarm| serving(swarm, &shop).len() == 2);
}

#[test]
fn an_update_whose_state_was_wiped_ends_without_a_word_when_a_task_fails() {
    let (mut shell, shop, _) = in_a_step(12, Some(2));
    shell.swarm.lose_image("shop:10");
    edit(&mut shell, &shop, |_| ());
    shell.run_for(30_000);
    assert_eq!(update_state(&shell.swarm), None);
    assert_eq!(serving(&shell.swarm, &shop).len(), 1, "it went no further");
}

#[test]
fn a_step_whose_new_task_leaves_with_its_node_holds_up_no_update() {
    let (mut shell, shop, _) = in_a_step(13, None);
    let node = leaving(&shell.swarm, &shop).and_then(|task| task.node).unwrap();
    shell.command(|swarm, now| swarm.drain_node(&node, now)).unwrap();
    until_says(&mut shell, "completed");
    assert_eq!(serving(&shell.swarm, &shop).len(), 2);
}

#[test]
fn a_start_first_update_with_a_fixed_host_port_hangs_for_ever() {
    let mut shell = Shell::new(9);
    let mut edge = shape("edge", 3, true);
    let mode = PublishMode::Host;
    edge.ports.insert(PublishedPort {
        tcp: true,
        target: 80,
        published: Some(80),
        mode,
    });
    let edge = shell.command(|swarm, now| swarm.create_service(edge, now)).unwrap();
    shell.until(|swarm| serving(swarm, &edge).len() == 3);
    let before: BTreeSet<TaskId> = serving(&shell.swarm, &edge).into_iter().map(|task| task.id).collect();
    new_image(&mut shell, &edge);
    shell.run_for(60_000);
    let after: BTreeSet<TaskId> = serving(&shell.swarm, &edge).into_iter().map(|task| task.id).collect();
    assert_eq!(before, after, "the old tasks serve on");
    assert!(
        tasks(&shell.swarm, &edge)
            .iter()
            .any(|task| task.error.contains("host-mode port already in use"))
    );
}

#[test]
fn an_update_whose_tasks_crash_is_rolled_back() {
    let mut shell = Shell::new(11);
    let mut shop = shape("shop", 2, false);
    shop.update.failure_action = "rollback".to_string();
    let shop = shell.command(|swarm, now| swarm.create_service(shop, now)).unwrap();
    shell.until(|swarm| serving(swarm, &shop).len() == 2);
    let image = shell.swarm.shape(&shop).unwrap().image.clone();
    let before: BTreeSet<TaskId> = serving(&shell.swarm, &shop).into_iter().map(|task| task.id).collect();
    new_image(&mut shell, &shop);
    shell.until(|swarm| serving(swarm, &shop).len() == 1);
    shell.until(|swarm| serving(swarm, &shop).len() == 2);
    let new = serving(&shell.swarm, &shop)
        .into_iter()
        .filter(|task| !before.contains(&task.id))
        .max_by_key(|task| task.version)
        .unwrap();
    shell.running.remove(&new.id);
    shell.input(Input::Fact(Fact::Exited { task: new.id, code: 1 }));
    shell.run_for(1000);
    assert_eq!(shell.swarm.shape(&shop).unwrap().image, image);
    shell.run_for(30_000);
    assert_eq!(serving(&shell.swarm, &shop).len(), 2);
}

#[test]
fn a_rollback_is_stop_first_one_at_a_time_and_without_a_delay_whatever_the_update_was() {
    let mut shell = Shell::new(17);
    let mut shop = shape("shop", 3, true);
    (shop.update.parallelism, shop.update.delay_ms) = (0, 60_000);
    let shop = shell.command(|swarm, now| swarm.create_service(shop, now)).unwrap();
    shell.until(|swarm| serving(swarm, &shop).len() == 3);
    new_image(&mut shell, &shop);
    shell.run_for(20_000);
    shell.command(|swarm, now| swarm.rollback_service(&shop, now)).unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..60_000 {
        shell.run_for(1);
        seen.insert(serving(&shell.swarm, &shop).len());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [2, 3]);
    let images = serving(&shell.swarm, &shop)
        .into_iter()
        .map(|task| shell.swarm.tasks[&task.id].shape.image.clone());
    assert_eq!(images.collect::<Vec<_>>(), ["shop:1"; 3]);
}

#[test]
fn a_rollback_that_fails_pauses_whatever_the_update_was_to_do() {
    let mut shell = Shell::new(18);
    let shop = managed(&mut shell, Some(2), false);
    edit(&mut shell, &shop, |shape| {
        shape.update.failure_action = "continue".to_string()
    });
    new_image(&mut shell, &shop);
    until_says(&mut shell, "completed");
    shell.swarm.lose_image("shop:1");
    shell.command(|swarm, now| swarm.rollback_service(&shop, now)).unwrap();
    until_says(&mut shell, "rollback_paused");
    shell.run_for(20_000);
    assert_eq!(serving(&shell.swarm, &shop).len(), 1, "it goes no further");
}
