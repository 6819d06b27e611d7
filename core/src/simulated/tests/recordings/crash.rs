//! `shop` crashes 1.5 s after each start until it is repaired; a container is killed; an update names an image that
//! nobody has, and is rolled back.

use super::history::{History, Life, Ms};
use super::scene::{Scene, USUAL};
use super::story::{Story, reproduces};
use super::*;

const LIMITS: [(&str, Ms); 19] = [
    ("step begins", 100),
    ("SIGTERM", 200),
    ("old is over", 550),
    ("new runs", 400),
    ("completed", 100),
    ("reported", 325),
    ("created", 50),
    ("restart delay", 75),
    ("runs", 400),
    ("pruned", 250),
    ("repaired", 2500),
    ("killed", 300),
    ("told", 100),
    ("rejected", 100),
    ("paused", 50),
    ("old ends", 700),
    ("second try", 50),
    ("next try", 75),
    ("rolled back", 100),
];

#[test]
fn crashes_a_missing_image_and_a_rollback_go_as_in_their_recording() {
    let act = |scene: &mut Scene, mark: usize| {
        let shop = scene.id("shop");
        match mark {
            0 => scene.edit_shop(|shop| {
                shop.env.insert("CRASH_MS=1500".to_string());
                shop.update.failure_action = "continue".to_string();
            }),
            1 => scene.edit_shop(|shop| shop.env.clear()),
            2 => {
                let task = serving(&scene.shell.swarm, &shop)[0].id.clone();
                scene.shell.exits.insert((scene.shell.now, task), 137);
            }
            3 => {
                scene.shell.swarm.lose_image("app:none");
                scene.edit_shop(|shop| {
                    shop.image = "app:none".to_string();
                    shop.update.failure_action = "pause".to_string();
                });
            }
            _ => {
                // There the newest task had been rejected, and the next one was not due.
                let begins = |scene: &Scene| {
                    let tasks = tasks(&scene.shell.swarm, &shop);
                    tasks.iter().any(|task| task.state < TaskState::Running)
                };
                scene.run_until(begins);
                scene.run_until(|scene| !begins(scene));
                scene.command(|swarm, now| swarm.rollback_service(&shop, now));
            }
        }
    };
    reproduces(recording!("crash-loop"), &LIMITS, USUAL, act, |history| {
        let mut story = Story::default();
        crashing_update(&mut story, history);
        crashes(&mut story, history);
        pruning(&mut story, history);
        repair(&mut story, history);
        kill(&mut story, history);
        missing_image(&mut story, history);
        rollback(&mut story, history);
        story
    });
}

/// Told to go on, the update takes one step after the other, whatever becomes of the tasks that it made.
fn crashing_update(story: &mut Story, history: &History) {
    let old = history.of("shop", history.after(0), |life| life.told);
    let old: Vec<&Life> = old.into_iter().filter(|life| life.listed < 0).collect();
    story.fact(format!("{} steps", old.len()));
    let mut before = Some(0);
    for old in old {
        let new = successor(history, old);
        story.took("step begins", before, Some(new.listed));
        story.took("SIGTERM", old.told, old.signalled);
        story.took("old is over", old.exited, old.over);
        story.took("new runs", old.over, new.runs);
        before = new.runs;
    }
    let completed = History::change(&history.updates, history.after(0), "shop", "completed");
    story.took("completed", before, completed);
}

/// The first crashes, whichever tasks they happen to.
fn crashes(story: &mut Story, history: &History) {
    let failed = |life: &Life| life.over.filter(|_| life.last.state == TaskState::Failed);
    for old in history.of("shop", history.after(0), failed).into_iter().take(15) {
        story.meanwhile();
        story.fact(old.last.error.clone());
        let new = successor(history, old);
        story.took("reported", old.exited, old.over);
        story.took("created", old.over, Some(new.listed));
        story.took("restart delay", Some(new.listed), new.wanted);
        story.took("runs", new.wanted, new.runs);
    }
}

/// Of each place five tasks are listed, and six for the moment that the reaper needs.
fn pruning(story: &mut Story, history: &History) {
    let shop = || history.lives.iter().filter(|life| life.last.service == "shop");
    let is_listed = |life: &Life, at: Ms| life.listed <= at && life.gone.is_none_or(|gone| gone > at);
    let most = shop().filter(|life| life.listed < history.marks[1]).map(|new| {
        let listed = shop().filter(|life| life.last.place == new.last.place && is_listed(life, new.listed));
        listed.count()
    });
    story.fact(format!("at most {} tasks of a place", most.max().unwrap_or_default()));
    for gone in history
        .of("shop", history.after(0), |life| life.gone)
        .into_iter()
        .take(10)
    {
        story.meanwhile();
        let cause = shop().filter(|life| life.last.place == gone.last.place && Some(life.listed) <= gone.gone);
        story.took("pruned", cause.map(|life| life.listed).max(), gone.gone);
    }
}

fn repair(story: &mut Story, history: &History) {
    story.meanwhile();
    let when = history.after(1);
    let all = history.of("shop", when.clone(), |life| life.runs);
    story.took("repaired", Some(when.start), all.last().unwrap().runs);
    // The updater watches over what it replaced itself, not over what crashed before its turn.
    let told = history.of("shop", when.clone(), |life| {
        life.told.filter(|told| Some(*told) < life.over)
    });
    let last = told.iter().filter_map(|old| successor(history, old).runs).max();
    let completed = History::change(&history.updates, when, "shop", "completed");
    story.took("completed", last, completed);
}

fn kill(story: &mut Story, history: &History) {
    story.meanwhile();
    let over = history.of("shop", history.after(2), |life| life.over);
    let old = over[0];
    story.fact(format!("{} over: {}", over.len(), old.last.error));
    let new = successor(history, old);
    story.took("killed", Some(history.marks[2]), old.over);
    story.took("created", old.over, Some(new.listed));
    story.took("restart delay", Some(new.listed), new.wanted);
    story.took("runs", new.wanted, new.runs);
}

/// The update pauses with its first rejected task. Its place tries on, once per restart delay; the others stay.
fn missing_image(story: &mut Story, history: &History) {
    story.meanwhile();
    let when = history.after(3);
    let new = history.of("shop", when.clone(), |life| Some(life.listed));
    let old = history.of("shop", when.clone(), |life| life.signalled);
    story.fact(format!(
        "{} old tasks end, one place: {}",
        old.len(),
        new.iter().all(|new| new.last.place == old[0].last.place)
    ));
    let (first, old) = (new[0], old[0]);
    story.took("told", Some(when.start), old.told);
    story.took("told", Some(when.start), Some(first.listed));
    story.took("rejected", first.assigned, first.over);
    story.took(
        "paused",
        first.over,
        History::change(&history.updates, when, "shop", "paused"),
    );
    story.took("old ends", old.told, old.over);
    // The first one waits for its turn, rejected.
    story.took("second try", old.over, first.told);
    story.took("second try", old.over, Some(new[1].listed));
    for pair in new[1..10].windows(2) {
        story.fact(format!("{:?}: {}", pair[0].last.state, pair[0].last.error));
        story.took("rejected", pair[0].assigned, pair[0].over);
        story.took("next try", Some(pair[0].listed), Some(pair[1].listed));
        story.took("created", pair[0].told, Some(pair[1].listed));
    }
}

/// Nothing runs at that place that the new task would have to wait for.
fn rollback(story: &mut Story, history: &History) {
    story.meanwhile();
    let when = history.after(4);
    let new = history.of("shop", when.clone(), |life| Some(life.listed));
    story.fact(format!("{} tasks come", new.len()));
    story.took("rolled back", Some(when.start), Some(new[0].listed));
    story.took("rolled back", Some(new[0].listed), new[0].wanted);
    story.took("runs", new[0].assigned, new[0].runs);
}

/// The next task of the same place.
fn successor<'a>(history: &'a History, old: &Life) -> &'a Life {
    let (place, service) = (&old.last.place, &old.last.service);
    let mut later = history
        .lives
        .iter()
        .filter(|life| life.listed > old.listed && life.last.place == *place && life.last.service == *service);
    later.next().unwrap()
}
