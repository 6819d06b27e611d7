//! A worker loses power, its link or its dockerd, and comes back.

use core::ops::Range;

use super::history::{History, Life, Ms};
use super::scene::{Scene, USUAL};
use super::story::{Story, reproduces};
use super::*;

/// From the loss to the replacements: which tasks are told and which come, and how long each takes.
fn lost(story: &mut Story, noticed: &'static str, history: &History, mark: usize) {
    let (when, begin) = (history.after(mark), history.marks[mark]);
    let (down, node) = down(history, when.clone());
    story.took(noticed, Some(begin), Some(down));
    for service in ["shop", "agent"] {
        let old = history.of(service, when.clone(), |life| life.told);
        let new = history.of(service, when.clone(), |life| Some(life.listed));
        story.fact(format!("{service}: {} told, {} come", old.len(), new.len()));
        story.fact(format!("elsewhere: {}", new.iter().all(|life| life.last.node != node)));
        let until = when.end;
        let over = |life: &&&Life| life.over.is_some_and(|over| over < until);
        story.fact(format!(
            "{} over before the node is back",
            old.iter().filter(over).count()
        ));
        story.each("told", &old, |_| Some(down), |life| life.told);
        story.each("created", &new, |_| Some(down), |life| Some(life.listed));
        story.each("ready", &new, |life| Some(life.listed), |life| life.ready);
        story.each("restart delay", &new, |life| Some(life.listed), |life| life.wanted);
        story.each("runs", &new, |life| life.wanted, |life| life.runs);
    }
}

/// From the return on: what the old tasks end as, and when the node's own task is back.
fn back(story: &mut Story, ready_after: &'static str, history: &History, mark: usize) -> Option<Ms> {
    let (when, begin) = (history.after(mark), history.marks[mark]);
    let (_, node) = down(history, history.after(mark - 1));
    let ready = History::change(&history.nodes, when.clone(), &node, "ready");
    story.took(ready_after, Some(begin), ready);
    for service in ["shop", "agent"] {
        let old = history.of(service, history.after(mark - 1), |life| life.told);
        for life in &old {
            story.fact(format!("{:?}: {}", life.last.state, life.last.error));
        }
        let ends_now = |life: &Life| life.exited.is_some_and(|at| when.contains(&at));
        let (now, before): (Vec<&Life>, Vec<&Life>) = old.into_iter().partition(|life| ends_now(life));
        story.each("over", &now, |life| life.exited, |life| life.over);
        story.each("reported", &before, |_| ready, |life| life.over);
    }
    let agents = history.of("agent", when.clone(), |life| Some(life.listed));
    let old = history.of("agent", history.after(mark - 1), |life| life.told);
    story.fact(format!("{} agents come", agents.len()));
    story.each("agent created", &agents, |_| ready, |life| Some(life.listed));
    // The port of the old one is taken until it is over.
    story.each("agent assigned", &agents, |_| old[0].over, |life| life.assigned);
    story.each("agent runs", &agents, |life| life.assigned, |life| life.runs);
    let moved = history.of("shop", when, |life| Some(life.listed));
    story.fact(format!("{} tasks of shop move back", moved.len()));
    ready
}

fn down(history: &History, when: Range<Ms>) -> (Ms, String) {
    let mut changes = history.nodes.iter();
    let down = changes.find(|(at, _, new)| when.contains(at) && new == "down");
    let (at, name, _) = down.expect("the node is noticed");
    (*at, name.clone())
}

/// What became of the processes of `service` that were told after a mark: SIGTERM that long after a moment.
fn signalled(story: &mut Story, what: &'static str, history: &History, mark: usize, from: Option<Ms>) {
    for service in ["shop", "agent"] {
        let old = history.of(service, history.after(mark), |life| life.told);
        story.each(what, &old, |_| from, |life| life.signalled);
    }
}

const LIMITS: [(&str, Ms); 18] = [
    ("noticed: power", 600),
    // From 9.9 to 13.5 s on other days.
    ("noticed: link", 3500),
    ("noticed: dockerd stopped", 3800),
    ("noticed: dockerd killed", 800),
    ("node is back", 600),
    ("link is back", 2000),
    ("told", 50),
    ("created", 50),
    ("ready", 600),
    ("restart delay", 50),
    ("runs", 850),
    ("over", 800),
    ("reported", 300),
    ("agent created", 50),
    ("agent assigned", 150),
    ("agent runs", 1100),
    ("SIGTERM", 100),
    ("SIGTERM at once", 50),
];

#[test]
fn a_worker_without_power_goes_and_comes_as_in_its_recording() {
    let act = |scene: &mut Scene, mark: usize| {
        let node = scene.victim();
        scene.shell.command(|swarm, now| match mark {
            0 => swarm.lose_node(&node, Loss::Power, now),
            _ => swarm.return_node(&node, now),
        });
    };
    reproduces(recording!("node-loss"), &LIMITS, USUAL, act, |history| {
        let mut story = Story::default();
        lost(&mut story, "noticed: power", history, 0);
        back(&mut story, "node is back", history, 1);
        story
    });
}

#[test]
fn a_worker_without_its_link_goes_and_comes_as_in_its_recording() {
    let act = |scene: &mut Scene, mark: usize| {
        let node = scene.victim();
        scene.shell.command(|swarm, now| match mark {
            0 => swarm.lose_node(&node, Loss::Link, now),
            _ => swarm.return_node(&node, now),
        });
    };
    reproduces(recording!("node-partition"), &LIMITS, USUAL, act, |history| {
        let mut story = Story::default();
        lost(&mut story, "noticed: link", history, 0);
        let ready = back(&mut story, "link is back", history, 1);
        signalled(&mut story, "SIGTERM", history, 0, ready);
        story
    });
}

#[test]
fn a_worker_without_its_dockerd_goes_and_comes_as_in_its_recording() {
    let act = |scene: &mut Scene, mark: usize| {
        let node = scene.victim();
        scene.shell.command(|swarm, now| match mark {
            0 => swarm.lose_node(&node, Loss::Dockerd, now),
            2 => swarm.lose_node(&node, Loss::Crash, now),
            _ => swarm.return_node(&node, now),
        });
    };
    reproduces(recording!("worker-dockerd-stop"), &LIMITS, USUAL, act, |history| {
        let mut story = Story::default();
        signalled(&mut story, "SIGTERM at once", history, 0, Some(0));
        lost(&mut story, "noticed: dockerd stopped", history, 0);
        back(&mut story, "node is back", history, 1);
        lost(&mut story, "noticed: dockerd killed", history, 2);
        back(&mut story, "node is back", history, 3);
        signalled(&mut story, "SIGTERM", history, 2, Some(history.marks[3]));
        story
    });
}
