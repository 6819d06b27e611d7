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

#[test]
fn a_label_change_restarts_nothing_and_wipes_the_update_status() {
    let mut shell = Shell::new(8);
    let mut shape = shape("shop", 2, false);
    shape.labels.insert("tidegate.role".to_string(), "proxy".to_string());
    let shop = shell.command(|swarm, now| swarm.create_service(shape, now)).unwrap();
    shell.until(|swarm| serving(swarm, &shop).len() == 2);
    new_image(&mut shell, &shop);
    shell.run_for(100);
    assert_eq!(shell.swarm.managed()[0].update_state.as_deref(), Some("updating"));
    let label = |shape: &mut ServiceShape| {
        shape.labels.insert("a".to_string(), "b".to_string());
    };
    shell
        .command(|swarm, now| swarm.edit_service(&shop, now, label))
        .unwrap();
    assert_eq!(shell.swarm.managed()[0].update_state, None);
    shell.run_for(30_000);
    let images = |shell: &Shell| serving(&shell.swarm, &shop).len();
    assert_eq!(images(&shell), 2, "and the update goes on");
    assert_eq!(
        shell.swarm.managed()[0].update_state,
        None,
        "its completion is never reported"
    );
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
        .find(|task| !before.contains(&task.id))
        .unwrap();
    shell.running.remove(&new.id);
    shell.input(Input::Fact(Fact::Exited { task: new.id, code: 1 }));
    shell.run_for(1000);
    assert_eq!(shell.swarm.shape(&shop).unwrap().image, image);
    shell.run_for(30_000);
    assert_eq!(serving(&shell.swarm, &shop).len(), 2);
}

#[test]
fn a_rollback_is_stop_first_and_one_at_a_time_whatever_the_update_was() {
    let mut shell = Shell::new(17);
    let mut shop = shape("shop", 3, true);
    shop.update.parallelism = 0;
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
}
