//! `shop` is scaled from 3 to 6, 2, 0 and 3, and removed.

use super::history::{History, Life};
use super::scene::{Scene, USUAL};
use super::story::{Story, reproduces};
use super::*;

#[test]
fn scaling_and_removal_go_as_in_their_recording() {
    let text = recording!("scale");
    let limits = [
        ("created", 100),
        ("assigned", 75),
        ("runs", 400),
        // Three containers from nothing took the recorded machine 2 s longer than it ever did again.
        ("runs from nothing", 2500),
        ("told", 100),
        ("SIGTERM", 200),
        ("over", 550),
        ("first gone", 50),
        ("gone", 275),
    ];
    let sizes = [6, 2, 0, 3];
    let act = |scene: &mut Scene, mark: usize| {
        let shop = scene.id("shop");
        match sizes.get(mark) {
            Some(size) => scene.command(|swarm, now| swarm.scale(&shop, *size, now)),
            None => scene.command(|swarm, now| swarm.remove_service(&shop, now)),
        }
    };
    reproduces(text, &limits, USUAL, act, |history| {
        let mut story = Story::default();
        grows(&mut story, history, 0, "runs");
        shrinks(&mut story, history, 1);
        shrinks(&mut story, history, 2);
        grows(&mut story, history, 3, "runs from nothing");
        shrinks(&mut story, history, 4);
        story
    });
}

/// Which places come, and how long each task takes.
fn grows(story: &mut Story, history: &History, mark: usize, runs: &'static str) {
    let new = history.of("shop", history.after(mark), |life| Some(life.listed));
    story.fact(places("come", &new));
    story.each("created", &new, |_| Some(history.marks[mark]), |life| Some(life.listed));
    story.each("assigned", &new, |life| Some(life.listed), |life| life.assigned);
    story.each(runs, &new, |life| life.assigned, |life| life.runs);
}

/// Which places go, and how long each task takes.
fn shrinks(story: &mut Story, history: &History, mark: usize) {
    let old = history.of("shop", history.after(mark), |life| life.told);
    story.fact(places("go", &old));
    story.fact(format!(
        "{:?}",
        old.iter().map(|life| life.last.desired).collect::<Vec<_>>()
    ));
    story.each("told", &old, |_| Some(history.marks[mark]), |life| life.told);
    story.each("SIGTERM", &old, |life| life.told, |life| life.signalled);
    story.each("over", &old, |life| life.exited, |life| life.over);
    // The lists lose the first of them after its time, and others that are over by then with it.
    let first = old.iter().min_by_key(|life| life.over).unwrap();
    story.took("first gone", first.over, first.gone);
    story.each("gone", &old, |life| life.over, |life| life.gone);
}

fn places(what: &str, lives: &[&Life]) -> String {
    let mut places: Vec<&str> = lives.iter().map(|life| life.last.place.as_str()).collect();
    places.sort_unstable();
    format!("{what}: {places:?}")
}
