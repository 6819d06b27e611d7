//! Dockerd of a manager is stopped and started, and killed and started. Its own answers fail meanwhile (`sim/src/engine.rs`
//! has those); here is what becomes of the one task on it.

use super::history::{History, Ms};
use super::leader::managers;
use super::scene::{Scene, Stage, USUAL};
use super::story::{Story, reproduces};
use super::*;

/// `agent` has Docker's restart delay.
const STAGE: Stage = Stage {
    restart_ms: 5000,
    // A dockerd that restarts tells its history.
    events: false,
    ..USUAL
};

const LIMITS: [(&str, Ms); 6] = [
    ("SIGTERM at once", 50),
    ("SIGTERM at the start", 75),
    // A worker's took half as long as that manager's, see the recordings of losses.
    ("replaced after a stop", 2500),
    ("replaced after a kill", 500),
    ("restart delay", 100),
    ("runs", 400),
];

#[test]
fn a_manager_whose_dockerd_restarts_goes_as_in_its_recording() {
    let act = |scene: &mut Scene, mark: usize| {
        // One without a task of `api`, as there.
        let (_, node) = managers(scene);
        scene.shell.command(|swarm, now| match mark {
            0 => swarm.lose_node(&node, Loss::Dockerd, now),
            2 => swarm.lose_node(&node, Loss::Crash, now),
            _ => swarm.return_node(&node, now),
        });
    };
    reproduces(recording!("dockerd-restart"), &LIMITS, STAGE, act, |history| {
        let mut story = Story::default();
        restarted(&mut story, history, 0, ["SIGTERM at once", "replaced after a stop"], 0);
        restarted(
            &mut story,
            history,
            2,
            ["SIGTERM at the start", "replaced after a kill"],
            3,
        );
        story
    });
}

/// The task of a manager whose dockerd is gone from mark `down` on; SIGTERM comes soon after mark `cause`.
fn restarted(story: &mut Story, history: &History, down: usize, [signal, replaced]: [&'static str; 2], cause: usize) {
    story.meanwhile();
    let (lost, back) = (history.marks[down], history.marks[down + 1]);
    let until = history.marks.get(down + 2).copied().unwrap_or(Ms::MAX);
    let old = history.of("agent", lost..until, |life| life.exited);
    story.fact(format!("{} end: {:?}", old.len(), old[0].last.state));
    story.took(signal, Some(history.marks[cause]), old[0].signalled);
    // The manager that was asked was silent when that happened; its successor's delay began then.
    let next = history.of("agent", back..until, |life| Some(life.listed));
    let delay = Ms::from(STAGE.restart_ms);
    story.took(replaced, Some(back), next[0].wanted.map(|at| at - delay));
    // A dockerd that has just started may refuse the next one, which is not simulated: the one after it counts.
    let new = history.of("agent", back..until, |life| life.runs);
    story.fact(format!("{} run again", new.len()));
    story.took("restart delay", Some(new[0].listed), new[0].wanted);
    story.took("runs", new[0].wanted, new[0].runs);
    let others = history
        .lives
        .iter()
        .filter(|life| life.told.is_some() && life.last.service != "agent");
    story.fact(format!("{} others are told", others.count()));
}
