//! The leader loses power, alone or with another manager: nothing is orchestrated until there is a new one, which knows
//! no node at first.

use super::history::{History, Life, Ms};
use super::scene::{Scene, Stage, USUAL};
use super::story::{Story, reproduces};
use super::*;

/// `api` and `agent` have Docker's restart delay.
const STAGE: Stage = Stage {
    restart_ms: 5000,
    ..USUAL
};

const LIMITS: [(&str, Ms); 12] = [
    // From 10.4 to 18.4 s on other days.
    ("elected", 8200),
    // From 0.3 to 10 s.
    ("node is known", 9700),
    ("lost leader is down", 6000),
    ("node is back", 600),
    ("told", 50),
    ("created", 50),
    ("ready", 700),
    ("restart delay", 100),
    ("runs", 350),
    ("agent created", 50),
    ("reported", 100),
    ("failed", 100),
];

/// The election: every node is unknown at once. The moment.
fn elected(story: &mut Story, history: &History, from: Ms) -> Ms {
    let unknown: Vec<_> = history
        .nodes
        .iter()
        .filter(|(at, _, new)| *at > 0 && new == "unknown")
        .collect();
    let at = unknown[0].0;
    story.fact(format!("{} nodes unknown", unknown.len()));
    story.took("elected", Some(from), Some(at));
    let meanwhile = |moment: Option<Ms>| moment.is_some_and(|moment| (1..at).contains(&moment));
    let changes = |life: &&Life| {
        [Some(life.listed), life.told, life.over, life.gone]
            .into_iter()
            .any(meanwhile)
    };
    story.fact(format!(
        "{} tasks change without a leader",
        history.lives.iter().filter(changes).count()
    ));
    at
}

/// The moments at which nodes are ready after an election, in their order.
fn known(story: &mut Story, history: &History, elected: Ms, until: Ms) {
    let mut known = Vec::new();
    for (at, name, new) in &history.nodes {
        if (elected..until).contains(at) && new == "ready" && !known.contains(&name) {
            known.push(name);
            story.meanwhile();
            story.took("node is known", Some(elected), Some(*at));
        }
    }
    story.fact(format!("{} nodes known", known.len()));
}

/// A manager with a task of `api`, and the one without.
pub(super) fn managers(scene: &Scene) -> (NodeId, NodeId) {
    let api = serving(&scene.shell.swarm, &scene.id("api"));
    let has = |node: &NodeId| api.iter().any(|task| task.node.as_ref() == Some(node));
    let nodes = ["node1", "node2", "node3"].map(|name| scene.node(name));
    let with = nodes.iter().find(|node| has(node)).unwrap().clone();
    let without = nodes.iter().find(|node| !has(node)).unwrap().clone();
    (with, without)
}

#[test]
fn a_lost_leader_is_followed_by_another_as_in_the_recording() {
    let act = |scene: &mut Scene, mark: usize| {
        let leader = match mark {
            0 => managers(scene).0,
            _ => scene.victim(),
        };
        scene.victim = Some(leader.clone());
        if mark == 0 {
            scene.shell.command(|swarm, now| {
                swarm.lose_node(&leader, Loss::Power, now);
                swarm.lose_leader(now);
            });
        } else {
            // There power came back half a second before the node was given up.
            scene.run_until_down(&leader);
            scene.shell.command(|swarm, now| swarm.return_node(&leader, now));
        }
    };
    reproduces(recording!("leader-change"), &LIMITS, STAGE, act, |history| {
        let mut story = Story::default();
        let elected = elected(&mut story, history, 0);
        let down = history.nodes.iter().find(|(.., new)| new == "down").unwrap();
        known(&mut story, history, elected, down.0);
        story.meanwhile();
        story.took("lost leader is down", Some(elected), Some(down.0));

        let from = down.0..Ms::MAX;
        let ready = History::change(&history.nodes, from.clone(), &down.1, "ready");
        story.meanwhile();
        story.took("node is back", Some(history.marks[1]), ready);
        for service in ["api", "agent"] {
            let old = history.of(service, from.clone(), |life| life.told);
            let old = &old[..1];
            story.fact(format!("{:?}: {}", old[0].last.state, old[0].last.error));
            story.each("told", old, |_| Some(down.0), |life| life.told);
            story.each("reported", old, |_| ready, |life| life.over);
        }
        story.meanwhile();
        let new = history.of("api", from.clone(), |life| Some(life.listed));
        story.fact(format!("{} tasks of api come", new.len()));
        story.each("created", &new, |_| Some(down.0), |life| Some(life.listed));
        story.each("ready", &new, |life| Some(life.listed), |life| life.ready);
        story.each("restart delay", &new, |life| Some(life.listed), |life| life.wanted);
        story.each("runs", &new, |life| life.wanted, |life| life.runs);
        // Later ones follow a refusal of the dockerd that has just started, which is not simulated.
        story.meanwhile();
        let agent = history.of("agent", from, |life| Some(life.listed));
        story.each("agent created", &agent[..1], |_| ready, |life| Some(life.listed));
        story
    });
}

#[test]
fn a_lost_quorum_is_followed_by_an_election_as_in_the_recording() {
    let act = |scene: &mut Scene, mark: usize| {
        let (with, without) = managers(scene);
        if mark == 0 {
            scene.shell.command(|swarm, now| {
                swarm.lose_node(&with, Loss::Power, now);
                swarm.lose_node(&without, Loss::Power, now);
                swarm.lose_quorum(now);
            });
            return;
        }
        let refused = scene
            .shell
            .command(|swarm, now| swarm.create_network("late", false, now));
        let Err(ApiError::Server(text)) = refused else {
            panic!("answered without quorum: {refused:?}");
        };
        assert!(recording!("no-quorum").contains(&text), "no real answer: {text}");
        scene.shell.command(|swarm, now| {
            swarm.return_node(&with, now);
            swarm.return_node(&without, now);
            swarm.regain_quorum(now);
        });
    };
    reproduces(recording!("no-quorum"), &LIMITS, STAGE, act, |history| {
        let mut story = Story::default();
        let elected = elected(&mut story, history, history.marks[1]);
        known(&mut story, history, elected, Ms::MAX);
        let ready = |life: &Life| History::change(&history.nodes, elected..Ms::MAX, &life.last.node, "ready");
        for service in ["api", "agent"] {
            let old = history.of(service, elected..Ms::MAX, |life| life.over);
            let is_old = |life: &&Life| life.listed < 0;
            let old: Vec<&Life> = old.into_iter().filter(is_old).collect();
            story.fact(format!("{service}: {} over", old.len()));
            for life in &old {
                story.fact(format!("{:?}: {}", life.last.state, life.last.error));
            }
            story.meanwhile();
            story.each("failed", &old, ready, |life| life.over);
            // The next one may follow a refusal of the dockerd that has just started, which is not simulated.
            story.meanwhile();
            let new = history.of(service, elected..Ms::MAX, |life| Some(life.listed));
            let new = &new[..1];
            let first = old.iter().find(|old| old.last.place == new[0].last.place).unwrap();
            story.each("created", new, |_| first.over, |life| Some(life.listed));
            story.each("ready", new, |life| Some(life.listed), |life| life.ready);
            story.each("restart delay", new, |life| Some(life.listed), |life| life.wanted);
            story.each("runs", new, |life| life.wanted, |life| life.runs);
        }
        story
    });
}
