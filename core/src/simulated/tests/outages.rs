//! What goes wrong beyond a crash: quorum, health, rollbacks, addresses that another service gets (facts §2, §4, §5).

use super::*;

#[test]
fn a_task_that_turns_unhealthy_serves_for_two_seconds_and_nobody_is_told() {
    let mut shell = Shell::new(21);
    let mut shape = shape("shop", 2, false);
    shape.health_command = vec!["CMD".to_string(), "true".to_string()];
    let shop = shell.command(|swarm, now| swarm.create_service(shape, now)).unwrap();
    shell.until(|swarm| serving(swarm, &shop).len() == 2);
    let task = serving(&shell.swarm, &shop)[0].id.clone();
    let begin = shell.ms();
    shell.input(Input::Fact(Fact::Health {
        task: task.clone(),
        healthy: false,
    }));
    shell.run_for(1900);
    assert_eq!(shell.swarm.dns("shop", None).len(), 1, "DNS drops it first");
    assert!(shell.swarm.task(&task).unwrap().is_serving(), "no list says a word");
    shell.run_for(1000);
    let told = shell.when(&format!("signal {task}")) - begin;
    assert!((1950..=2051).contains(&told), "SIGTERM after {told} ms");
    assert!(shell.swarm.can_answer(&task), "it drains");
    shell.run_for(1500);
    assert!(!shell.swarm.can_answer(&task));
    shell.run_for(10_000);
    assert_eq!(
        serving(&shell.swarm, &shop).len(),
        2,
        "it is replaced after the restart delay"
    );
}

#[test]
fn without_quorum_nothing_is_orchestrated_until_an_election_after_its_return() {
    let mut shell = Shell::new(22);
    let shop = shell.service("shop", 2, false);
    let victim = serving(&shell.swarm, &shop)[0].id.clone();
    shell.command(|swarm, now| swarm.lose_quorum(now));
    shell.running.remove(&victim);
    shell.input(Input::Fact(Fact::Exited {
        task: victim.clone(),
        code: 1,
    }));
    shell.run_for(120_000);
    assert!(shell.swarm.leaderless_since().is_some());
    assert!(
        shell.swarm.task(&victim).unwrap().is_serving(),
        "the last table stays as it was"
    );
    assert!(!shell.swarm.can_answer(&victim));
    assert!(shell.command(|swarm, now| swarm.scale(&shop, 3, now)).is_err());

    let manager = shell.swarm.nodes().into_iter().find(|node| node.manager).unwrap().id;
    let home = |shell: &Shell| {
        let tasks = tasks(&shell.swarm, &shop);
        tasks
            .iter()
            .any(|task| task.node.as_ref() == Some(&manager) && shell.running.contains(&task.id))
    };
    let known = shell.swarm.networks_without_quorum(&manager);
    assert_eq!(
        known.iter().any(|network| network.name == "apps"),
        home(&shell),
        "only the networks of tasks on the node are listed: {known:?}"
    );

    let begin = shell.ms();
    shell.command(|swarm, now| swarm.regain_quorum(now));
    shell.until(|swarm| swarm.leaderless_since().is_none());
    assert!((10_400..=18_401).contains(&(shell.ms() - begin)));
    shell.until(|swarm| !swarm.task(&victim).is_some_and(Task::is_serving));
    shell.run_for(20_000);
    assert_eq!(serving(&shell.swarm, &shop).len(), 2);
}

#[test]
fn after_a_short_cut_a_task_is_found_by_name_again() {
    let mut shell = Shell::new(26);
    shell.service("shop", 3, false);
    let names = shell.swarm.dns("shop", None);
    let nodes: Vec<NodeId> = shell.swarm.nodes().into_iter().map(|node| node.id).collect();
    for node in &nodes {
        shell.command(|swarm, now| swarm.lose_node(node, Loss::Link, now));
    }
    shell.run_for(7300);
    assert!(shell.swarm.dns("shop", None).is_empty());
    for node in &nodes {
        shell.command(|swarm, now| swarm.return_node(node, now));
    }
    assert_eq!(shell.swarm.dns("shop", None), names);
}

#[test]
fn regaining_a_quorum_that_was_never_lost_does_nothing() {
    let mut shell = Shell::new(23);
    shell.command(|swarm, now| swarm.regain_quorum(now));
    assert_eq!(shell.swarm.leaderless_since(), None);
    shell.command(|swarm, now| swarm.lose_leader(now));
    let due = shell.swarm.poll_timeout();
    shell.command(|swarm, now| swarm.regain_quorum(now));
    assert_eq!(shell.swarm.poll_timeout(), due, "the election that runs is not put off");
}

#[test]
fn a_task_that_starts_while_its_link_is_cut_for_a_moment_is_said_to_run_afterwards() {
    for ms in (0..1200).step_by(25) {
        let mut shell = Shell::new(3);
        let shop = shape("shop", 3, false);
        let shop = shell.command(|swarm, now| swarm.create_service(shop, now)).unwrap();
        shell.run_for(ms);
        let nodes: Vec<_> = tasks(&shell.swarm, &shop)
            .into_iter()
            .filter_map(|task| task.node)
            .collect();
        for node in &nodes {
            shell.command(|swarm, now| swarm.lose_node(node, Loss::Link, now));
        }
        shell.run_for(100);
        for node in &nodes {
            shell.command(|swarm, now| swarm.return_node(node, now));
        }
        shell.until(|swarm| serving(swarm, &shop).len() == 3);
        shell.run_for(10_000);
        let gone = tasks(&shell.swarm, &shop).into_iter().filter(Task::is_over);
        for task in gone {
            assert!(!shell.running.contains(&task.id), "{ms}: {task:?} runs");
        }
        assert_eq!(serving(&shell.swarm, &shop).len(), 3);
    }
}

#[test]
fn a_task_that_waits_for_its_turn_waits_on_while_its_node_is_away_for_a_moment() {
    for loss in [Loss::Crash, Loss::Dockerd, Loss::Link, Loss::Power] {
        for ms in (0..4500).step_by(250) {
            let mut shell = Shell::new(27);
            let shop = shell.service("shop", 1, false);
            let first = serving(&shell.swarm, &shop)[0].id.clone();
            shell.running.remove(&first);
            shell.input(Input::Fact(Fact::Exited { task: first, code: 1 }));
            let ready = |task: &Task| task.state == TaskState::Ready && task.desired == DesiredState::Ready;
            shell.until(|swarm| tasks(swarm, &shop).iter().any(ready));
            let next = tasks(&shell.swarm, &shop).into_iter().find(ready).unwrap();
            let node = next.node.clone().unwrap();
            shell.run_for(ms);
            shell.command(|swarm, now| swarm.lose_node(&node, loss, now));
            shell.run_for(100);
            shell.command(|swarm, now| swarm.return_node(&node, now));
            shell.until(|swarm| !serving(swarm, &shop).is_empty());
            shell.run_for(10_000);
            let serving = serving(&shell.swarm, &shop);
            assert_eq!(serving.len(), 1, "{loss:?} after {ms} ms");
            assert_eq!(serving[0].id, next.id, "{loss:?} after {ms} ms");
        }
    }
}

#[test]
fn a_task_that_is_prepared_while_there_is_no_leader_outlives_a_moment_without_its_node() {
    for ms in (0..1200).step_by(25) {
        let mut shell = Shell::new(28);
        let shop = shape("shop", 1, false);
        let shop = shell.command(|swarm, now| swarm.create_service(shop, now)).unwrap();
        shell.until(|swarm| tasks(swarm, &shop).iter().any(|task| task.node.is_some()));
        let first = tasks(&shell.swarm, &shop).remove(0);
        shell.command(|swarm, now| swarm.lose_leader(now));
        shell.run_for(ms);
        shell.command(|swarm, now| swarm.lose_node(first.node.as_ref().unwrap(), Loss::Crash, now));
        shell.run_for(100);
        shell.command(|swarm, now| swarm.return_node(first.node.as_ref().unwrap(), now));
        shell.until(|swarm| !serving(swarm, &shop).is_empty());
        shell.run_for(10_000);
        assert_eq!(serving(&shell.swarm, &shop).len(), 1, "{ms} ms");
        assert_eq!(serving(&shell.swarm, &shop)[0].id, first.id, "{ms} ms");
    }
}

#[test]
fn a_rollback_brings_the_shape_before_back_and_says_so() {
    let mut shell = Shell::new(24);
    let shop = shell.service("shop", 2, true);
    let refused = shell.command(|swarm, now| swarm.rollback_service(&shop, now));
    assert!(matches!(refused, Err(ApiError::Refused(_))), "nothing to go back to");
    let image = shell.swarm.shape(&shop).unwrap().image.clone();
    new_image(&mut shell, &shop);
    shell.run_for(900);
    shell.command(|swarm, now| swarm.rollback_service(&shop, now)).unwrap();
    shell.until(|swarm| !swarm.is_updating(&shop));
    shell.run_for(10_000);
    assert_eq!(shell.swarm.shape(&shop).unwrap().image, image);
    assert_eq!(serving(&shell.swarm, &shop).len(), 2);
    assert!(shell.swarm.is_at_rest());
}

#[test]
fn after_an_election_another_service_gets_the_address_of_a_task_that_ended() {
    let mut shell = Shell::new(25);
    let shop = shell.service("shop", 3, false);
    let before: BTreeSet<_> = serving(&shell.swarm, &shop)
        .iter()
        .map(|task| task.addresses[0].addr)
        .collect();
    shell.command(|swarm, now| swarm.scale(&shop, 1, now)).unwrap();
    shell.until(|swarm| tasks(swarm, &shop).len() == 1);
    shell.command(|swarm, now| swarm.lose_leader(now));
    shell.until(|swarm| swarm.leaderless_since().is_none());
    let mut blog = shape("blog", 2, false);
    blog.dnsrr = true;
    let blog = shell.command(|swarm, now| swarm.create_service(blog, now)).unwrap();
    shell.until(|swarm| serving(swarm, &blog).len() == 2);
    assert!(
        serving(&shell.swarm, &blog)
            .iter()
            .all(|task| before.contains(&task.addresses[0].addr))
    );
}

#[test]
fn a_paused_node_keeps_what_it_has_and_gets_nothing_new() {
    let mut shell = Shell::new(27);
    let everywhere = ServiceShape {
        replicas: None,
        ..shape("agent", 0, false)
    };
    let agent = shell
        .command(|swarm, now| swarm.create_service(everywhere, now))
        .unwrap();
    shell.until(|swarm| serving(swarm, &agent).len() == 3);
    let node = serving(&shell.swarm, &agent)[0].node.clone().unwrap();
    shell.command(|swarm, now| swarm.pause_node(&node, now)).unwrap();
    shell
        .command(|swarm, now| swarm.label_node(&node, "a", "b", now))
        .unwrap();
    let shop = shell.service("shop", 4, false);
    assert_eq!(serving(&shell.swarm, &agent).len(), 3, "it keeps its task");
    let elsewhere = |task: &Task| task.node.as_ref() != Some(&node);
    assert!(serving(&shell.swarm, &shop).iter().all(elsewhere));

    let task = serving(&shell.swarm, &agent)
        .into_iter()
        .find(|task| !elsewhere(task))
        .unwrap()
        .id;
    shell.running.remove(&task);
    shell.input(Input::Fact(Fact::Exited { task, code: 1 }));
    shell.run_for(20_000);
    assert_eq!(serving(&shell.swarm, &agent).len(), 2, "not even a successor");
    shell.command(|swarm, now| swarm.activate_node(&node, now)).unwrap();
    shell.until(|swarm| serving(swarm, &agent).len() == 3);
}
