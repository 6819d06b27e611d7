//! New routes: a service gets another host by its label, and every proxy is asked for it until it answers 200. Begins with
//! `UpdatedAt` of the service, ends with the last proxy's answer.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::figures::Figures;
use super::{LIMIT, api};
use crate::clock::{now, pause, wall_nanos};
use crate::report::say;
use crate::scene::Scene;
use crate::web;

const SERVICE: &str = "live";
/// Between two requests of one client.
const EVERY: Duration = Duration::from_millis(2);
const PROGRESS_EVERY: usize = 25;

/// Makes so many routes, one after the other.
pub(super) fn measure(scene: &Scene, changes: usize) -> Result<Figures> {
    scene.create_app(
        SERVICE,
        1,
        &[("tidegate.hosts", "live.example"), ("tidegate.port", "8080")],
    )?;
    scene.until("the application is there", now(), "live.example", |answer| {
        answer.status == 200
    })?;
    let (mut written, mut answered) = (Vec::new(), Vec::new());
    for number in 1..=changes {
        let host = format!("live{number}.example");
        let entrances = scene.entrances();
        let last = std::thread::scope(|scope| -> Result<u128> {
            let clients: Vec<_> = entrances
                .iter()
                .map(|entrance| scope.spawn(|| first_answer(*entrance, &host)))
                .collect();
            scene.set_label(SERVICE, "tidegate.hosts", &host)?;
            let moments = clients
                .into_iter()
                .map(|client| client.join().expect("a client does not panic"));
            Ok(moments
                .collect::<Result<Vec<_>>>()?
                .into_iter()
                .max()
                .unwrap_or_default())
        })?;
        let service = api::get(&scene.managers()[0], &format!("/services/{SERVICE}"))?;
        written.push(
            service["UpdatedAt"]
                .as_str()
                .context("a service was written")?
                .to_string(),
        );
        answered.push(last);
        if number.is_multiple_of(PROGRESS_EVERY) {
            say(format_args!("        {number:5} of {changes} new routes"));
        }
    }
    scene.docker(&["service", "rm", SERVICE])?;
    let written: Vec<&str> = written.iter().map(String::as_str).collect();
    let begun = api::nanos(scene, &written)?;
    let millis = |(begun, answered): (u128, u128)| answered.saturating_sub(begun) as f64 / 1e6;
    Ok(Figures::of(begun.into_iter().zip(answered).map(millis).collect()))
}

/// When this proxy answered with 200 for the first time.
fn first_answer(entrance: SocketAddr, host: &str) -> Result<u128> {
    let start = now();
    let mut seen = String::new();
    while start.elapsed() < LIMIT {
        match web::get(entrance, host, "/", LIMIT) {
            Ok(answer) if answer.status == 200 => return Ok(wall_nanos()),
            Ok(answer) => seen = answer.summary(),
            Err(error) => seen = format!("{error:#}"),
        }
        pause(EVERY);
    }
    bail!("{host} at {entrance}: {seen}")
}
