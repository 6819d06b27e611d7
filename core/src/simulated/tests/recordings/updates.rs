//! `shop` gets another image, stop-first or start-first, and is rolled back.

use super::history::{History, Life, Ms};
use super::scene::{Scene, Stage, USUAL};
use super::story::{Limits, Story, reproduces};
use super::*;

/// A stop-first step waits for the end of its old task, a start-first step for its new one.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Order {
    StartFirst,
    StopFirst,
}

/// The steps of an update, one after another; the moment at which the last was done.
pub(super) fn steps(story: &mut Story, history: &History, service: &str, mark: usize, order: Order) -> Option<Ms> {
    let when = history.after(mark);
    let new = history.of(service, when.clone(), |life| Some(life.listed));
    let old = history.of(service, when, |life| life.told);
    let old: Vec<&Life> = new
        .iter()
        .map(|new| old.iter().find(|old| old.last.place == new.last.place).unwrap())
        .copied()
        .collect();
    if order == Order::StartFirst {
        // The old ones end while the next steps are taken.
        for old in &old {
            story.meanwhile();
            ends(story, old);
        }
    }
    story.meanwhile();
    let mut before = Some(history.marks[mark]);
    for (new, old) in new.iter().zip(old) {
        story.took("step begins", before, Some(new.listed));
        if order == Order::StopFirst {
            ends(story, old);
            story.took("new runs", old.over, new.runs);
        } else {
            story.took("new runs", Some(new.listed), new.runs);
            story.took("old is told", new.runs, old.told);
        }
        before = new.runs;
    }
    story.fact(format!("{} steps", new.len()));
    before
}

fn ends(story: &mut Story, old: &Life) {
    story.took("SIGTERM", old.told, old.signalled);
    story.took("old is over", old.exited, old.over);
}

fn update(text: &str, order: Order, limits: Limits) {
    let stage = Stage {
        start_first: order == Order::StartFirst,
        ..USUAL
    };
    let act = |scene: &mut Scene, mark: usize| match mark {
        0 => scene.edit_shop(|shop| shop.image.push('2')),
        _ => {
            let shop = scene.id("shop");
            scene.command(|swarm, now| swarm.rollback_service(&shop, now));
        }
    };
    reproduces(text, limits, stage, act, |history| {
        let mut story = Story::default();
        let last = steps(&mut story, history, "shop", 0, order);
        let completed = History::change(&history.updates, history.after(0), "shop", "completed");
        story.took("completed", last, completed);
        // Without a `RollbackConfig`.
        steps(&mut story, history, "shop", 1, Order::StopFirst);
        story
    });
}

#[test]
fn a_stop_first_update_and_its_rollback_go_as_in_their_recording() {
    let text = recording!("rolling-stop-first");
    let limits = [
        ("step begins", 100),
        ("SIGTERM", 200),
        ("old is over", 550),
        ("new runs", 300),
        ("completed", 100),
    ];
    update(text, Order::StopFirst, &limits);
}

#[test]
fn a_start_first_update_and_its_rollback_go_as_in_their_recording() {
    let text = recording!("rolling-start-first");
    let limits = [
        ("step begins", 100),
        ("SIGTERM", 200),
        ("old is over", 550),
        ("new runs", 400),
        ("old is told", 25),
        ("completed", 100),
    ];
    update(text, Order::StartFirst, &limits);
}
