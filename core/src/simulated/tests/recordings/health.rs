//! The health checks of `shop` fail and pass, twice, and an update waits for healthy tasks.

use super::history::{History, Life, Ms};
use super::scene::{Scene, Stage, USUAL};
use super::story::{Story, reproduces};
use super::updates::{Order, steps};
use super::*;

const LIMITS: [(&str, Ms); 13] = [
    // Two probes a second apart, and 2 s.
    ("unhealthy", 1100),
    ("over", 450),
    ("created", 50),
    ("restart delay", 100),
    ("starts", 750),
    ("given up", 300),
    ("healthy", 900),
    ("step begins", 100),
    ("SIGTERM", 350),
    ("old is over", 550),
    ("new runs", 1100),
    ("old is told", 25),
    ("completed", 600),
];

#[test]
fn unhealthy_tasks_and_an_update_that_waits_for_healthy_ones_go_as_in_their_recording() {
    let stage = Stage {
        start_first: true,
        health: true,
        ..USUAL
    };
    let act = |scene: &mut Scene, mark: usize| match mark {
        0 | 2 => scene.set_health(false),
        1 | 3 => scene.set_health(true),
        _ => scene.edit_shop(|shop| _ = shop.env.insert("FORCED=1".to_string())),
    };
    reproduces(recording!("health-flapping"), &LIMITS, stage, act, |history| {
        let mut story = Story::default();
        turned(&mut story, history, 0);
        given_up(&mut story, history);
        turned(&mut story, history, 2);
        story.meanwhile();
        let last = steps(&mut story, history, "shop", 4, Order::StartFirst);
        let completed = History::change(&history.updates, history.after(4), "shop", "completed");
        story.took("completed", last, completed);
        story
    });
}

/// Tasks that ran are stopped, and no list says so before they are over.
fn turned(story: &mut Story, history: &History, mark: usize) {
    story.meanwhile();
    let begin = history.marks[mark];
    let old = history.of("shop", history.after(mark), |life| life.signalled);
    let old: Vec<&Life> = old
        .into_iter()
        .filter(|life| life.runs.is_some_and(|at| at < begin) || life.listed < 0)
        .collect();
    story.fact(format!("{} turn unhealthy", old.len()));
    for old in &old {
        story.fact(format!("{:?}, told before: {}", old.last.state, old.told < old.over));
    }
    story.each("unhealthy", &old, |_| Some(begin), |life| life.signalled);
    story.each("over", &old, |life| life.exited, |life| life.over);
}

/// Their successors start and are given up; those that start later get healthy.
fn given_up(story: &mut Story, history: &History) {
    story.meanwhile();
    let until = history.marks[2];
    let started = history.of("shop", 0..until, |life| life.started);
    let (bad, good): (Vec<&Life>, Vec<&Life>) = started
        .into_iter()
        .partition(|life| life.signalled.is_some_and(|at| at < until));
    story.fact(format!("{} given up, {} get healthy", bad.len(), good.len()));
    for life in &bad {
        story.fact(format!("{:?}, ever ran: {}", life.last.state, life.runs.is_some()));
        story.fact(life.last.error.split(" shop").next().unwrap_or_default().to_string());
    }
    for lives in [&bad, &good] {
        // The next ones may be on their way before the last one is over.
        story.meanwhile();
        story.each("restart delay", lives, |life| Some(life.listed), |life| life.wanted);
        story.each("starts", lives, |life| life.wanted, |life| life.started);
    }
    story.meanwhile();
    story.each("given up", &bad, |life| life.started, |life| life.signalled);
    story.each("over", &bad, |life| life.exited, |life| life.over);
    let over = |place: &str| bad.iter().find(|life| life.last.place == place).unwrap().over;
    story.each(
        "created",
        &good,
        |life| over(&life.last.place),
        |life| Some(life.listed),
    );
    story.meanwhile();
    story.each("healthy", &good, |life| life.started, |life| life.runs);
}
