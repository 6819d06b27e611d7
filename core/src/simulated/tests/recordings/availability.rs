//! A node is drained and made active; another is paused while `shop` grows, and made active.

use super::history::History;
use super::scene::{Scene, USUAL};
use super::story::{Story, reproduces};
use super::*;

#[test]
fn a_drained_and_a_paused_node_go_as_in_their_recording() {
    let limits = [
        ("told", 100),
        ("new is listed", 25),
        ("ready", 200),
        ("SIGTERM", 200),
        ("over", 550),
        ("wanted", 50),
        ("runs", 500),
        ("agent is back", 100),
        ("agent runs", 900),
        ("created", 100),
        ("grown", 500),
    ];
    let act = |scene: &mut Scene, mark: usize| {
        let drained = scene.victim();
        let paused = scene.other_worker(&drained);
        let shop = scene.id("shop");
        scene.command(|swarm, now| match mark {
            0 => swarm.drain_node(&drained, now),
            1 => swarm.activate_node(&drained, now),
            2 => swarm.pause_node(&paused, now),
            3 => swarm.scale(&shop, 5, now),
            _ => swarm.activate_node(&paused, now),
        });
    };
    reproduces(recording!("node-drain"), &limits, USUAL, act, |history| {
        let mut story = Story::default();
        drained(&mut story, history);
        paused(&mut story, history);
        story
    });
}

fn drained(story: &mut Story, history: &History) {
    let when = history.after(0);
    let old = history.of("shop", when.clone(), |life| life.told);
    let new = history.of("shop", when.clone(), |life| Some(life.listed));
    let agents = history.of("agent", when.clone(), |life| life.told);
    story.fact(format!(
        "{} told, {} come, {} agents told",
        old.len(),
        new.len(),
        agents.len()
    ));
    for old in old.iter().chain(&agents) {
        story.fact(format!("{:?} and {:?}", old.last.state, old.last.desired));
    }
    let drained = &old[0].last.node;
    story.fact(format!(
        "somewhere else: {}",
        new.iter().all(|new| &new.last.node != drained)
    ));
    story.each("told", &old, |_| Some(0), |life| life.told);
    story.each("told", &agents, |_| Some(0), |life| life.told);
    story.each("new is listed", &new, |_| old[0].told, |life| Some(life.listed));
    story.each("ready", &new, |life| Some(life.listed), |life| life.ready);
    story.each("SIGTERM", &old, |life| life.told, |life| life.signalled);
    story.each("over", &old, |life| life.exited, |life| life.over);
    // Each successor waits for its own.
    let over = |place: &str| old.iter().find(|old| old.last.place == place).unwrap().over;
    story.each("wanted", &new, |life| over(&life.last.place), |life| life.wanted);
    story.each("runs", &new, |life| life.wanted, |life| life.runs);

    let back = history.of("agent", history.after(1), |life| Some(life.listed));
    story.fact(format!("agents back: {}", back.len()));
    story.each(
        "agent is back",
        &back,
        |_| Some(history.marks[1]),
        |life| Some(life.listed),
    );
    story.each("agent runs", &back, |life| life.assigned, |life| life.runs);
    let moved = history.of("shop", history.after(1), |life| Some(life.listed));
    story.fact(format!("{} tasks of shop move back", moved.len()));
}

fn paused(story: &mut Story, history: &History) {
    let paused = history
        .availability
        .iter()
        .find(|(.., new)| new == "pause")
        .unwrap()
        .1
        .clone();
    let told = history
        .lives
        .iter()
        .filter(|life| life.told.is_some_and(|told| history.after(2).contains(&told)));
    story.fact(format!("{} tasks of the paused node are told", told.count()));
    let new = history.of("shop", history.after(3), |life| Some(life.listed));
    story.fact(format!("{} come", new.len()));
    story.fact(format!(
        "on the paused node: {}",
        new.iter().any(|new| new.last.node == paused)
    ));
    story.each("created", &new, |_| Some(history.marks[3]), |life| Some(life.listed));
    story.each("grown", &new, |life| life.assigned, |life| life.runs);
    let moved = history.of("shop", history.after(4), |life| Some(life.listed));
    story.fact(format!("{} tasks move back", moved.len()));
}
