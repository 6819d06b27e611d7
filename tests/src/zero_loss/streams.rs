//! Connections that stay open while everything else changes.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};

use super::scenario::Stage;
use crate::clock::now;
use crate::report::say;
use crate::scene::{CONTROLLER, PROXY, effect};
use crate::web::{Streaming, Upgraded};

const SOCKETS: usize = 1000;
const STREAMS: usize = 200;
const ROUTE_CHANGES: usize = 100;
const UPDATES: usize = 20;
/// A service that has nothing to do with them.
const OTHER: &str = "other";
const OTHER_HOST: &str = "other.example";

/// Opens them, changes routes, updates another service, restarts the controllers, and lets each say a word again.
pub(super) fn outlive_everything_else(stage: &Stage<'_>) -> Result<()> {
    let scene = stage.scene();
    let entrances = scene.entrances();
    let entrance = |number: usize| -> SocketAddr { entrances[number % entrances.len()] };
    let start = now();
    let mut sockets = (0..SOCKETS)
        .map(|number| Upgraded::open(entrance(number), stage.host()).with_context(|| format!("WebSocket {number}")))
        .collect::<Result<Vec<_>>>()?;
    let mut streams = (0..STREAMS)
        .map(|number| Streaming::open(entrance(number), stage.host()).with_context(|| format!("stream {number}")))
        .collect::<Result<Vec<_>>>()?;
    let mut closed = say_a_word(&mut sockets, &mut streams);
    ensure!(closed == 0, "{closed} were closed before anything was done");
    effect(
        &format!("{SOCKETS} WebSockets and {STREAMS} streams, to a word from each"),
        start,
    );
    let proxies = scene.tasks_of(PROXY)?;

    let start = now();
    scene.create_app(OTHER, 1, &[("tidegate.hosts", OTHER_HOST), ("tidegate.port", "8080")])?;
    scene.until("another service, to its answer", start, OTHER_HOST, |answer| {
        answer.status == 200
    })?;
    let start = now();
    for number in 1..=ROUTE_CHANGES {
        let hosts = format!("{OTHER_HOST},other-{number}.example");
        scene.set_label(OTHER, "tidegate.hosts", &hosts)?;
    }
    let last = format!("other-{ROUTE_CHANGES}.example");
    scene.until(&format!("{ROUTE_CHANGES} route changes"), start, &last, |answer| {
        answer.status == 200
    })?;
    let start = now();
    for _ in 0..UPDATES {
        stage.replace(OTHER)?;
    }
    effect(&format!("{UPDATES} updates of the other service"), start);
    let start = now();
    stage.replace(CONTROLLER)?;
    effect("a restart of the controllers", start);
    let start = now();
    scene.set_label(OTHER, "tidegate.hosts", "after.example")?;
    scene.until("a route change after it", start, "after.example", |answer| {
        answer.status == 200
    })?;

    closed = say_a_word(&mut sockets, &mut streams);
    let now_there = scene.tasks_of(PROXY)?;
    let replaced = proxies.iter().filter(|task| !now_there.contains(task)).count();
    say(format_args!(
        "streams {closed} of {} closed, {replaced} proxy tasks replaced",
        SOCKETS + STREAMS
    ));
    scene.docker(&["service", "rm", OTHER])?;
    ensure!(closed == 0 && replaced == 0, "open connections were closed");
    Ok(())
}

/// How many do not answer.
fn say_a_word(sockets: &mut [Upgraded], streams: &mut [Streaming]) -> usize {
    let sockets = sockets.iter_mut().map(|socket| socket.echo("a word"));
    let streams = streams.iter_mut().map(|stream| stream.echo("a word"));
    let mut closed = 0;
    for (number, said) in sockets.chain(streams).enumerate() {
        if let Err(error) = said {
            closed += 1;
            say(format_args!("streams number {number}: {error:#}"));
        }
    }
    closed
}
