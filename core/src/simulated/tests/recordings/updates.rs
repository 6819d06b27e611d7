//! `shop` gets another image, stop-first or start-first, and is rolled back.

use super::history::{History, Ms};
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
    let mut before = Some(history.marks[mark]);
    for new in &new {
        let old = history.of(service, when.clone(), |life| life.told);
        let old = old.into_iter().find(|old| old.last.place == new.last.place).unwrap();
        let cause = match order {
            Order::StopFirst => old.over,
            Order::StartFirst => Some(new.listed),
        };
        story.took("step begins", before, Some(new.listed));
        story.took("SIGTERM", old.told, old.signalled);
        story.took("old is over", old.exited, old.over);
        story.took("new runs", cause, new.runs);
        before = new.runs;
    }
    story.fact(format!("{} steps", new.len()));
    before
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
        ("completed", 100),
    ];
    update(text, Order::StartFirst, &limits);
}
