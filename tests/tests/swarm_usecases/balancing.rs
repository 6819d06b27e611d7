//! Which of several services and tasks gets a request, in numbers.
//!
//! Shares are drawn at random, so the bounds are five standard deviations wide: a right proxy fails one run in a million.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::clock::{Look, now, wait_for};
use e2e::load::Load;
use e2e::report::say;
use e2e::scene::{CONTROLLER, Scene};
use e2e::web;

const LIMIT: Duration = Duration::from_secs(90);

pub(crate) fn a_canary_has_the_share_of_its_tasks(scene: &Scene) -> Result<()> {
    let host = "canary.example.org";
    until_tasks(scene, host, 5)?;
    expect_share(scene, host, 0.2, "1 of 5 tasks is v2")?;
    let load = Load::start(&scene.entrances(), host);
    scene.docker(&["service", "scale", "--detach", "canary_v2=4"])?;
    until_tasks(scene, host, 8)?;
    expect_share(scene, host, 0.5, "4 of 8 tasks are v2")?;
    let start = now();
    scene.docker(&["service", "scale", "--detach", "canary_v1=0"])?;
    scene.until("canary_v1=0, to answers of v2 alone", start, host, |answer| {
        answer.says("Name").is_some_and(|name| name.starts_with("v2"))
    })?;
    until_tasks(scene, host, 4)?;
    expect_share(scene, host, 1.0, "v1 is gone")?;
    let account = load.finish();
    say(format_args!("load    canary from 1 of 5 to all: {account}"));
    assert_eq!(account.failed(), 0, "{account}");
    Ok(())
}

pub(crate) fn a_weight_is_a_share_whatever_the_tasks(scene: &Scene) -> Result<()> {
    let host = "weight.example.org";
    until_tasks(scene, host, 4)?;
    expect_share(scene, host, 0.1, "v2 weighs 10 of 100")?;
    for (weight, share, what) in [("90", 0.5, "v2 weighs 90 of 180"), ("0", 0.0, "v2 weighs nothing")] {
        scene.set_label("weight_v2", "tidegate.weight", weight)?;
        until_share(scene, host, share, what)?;
    }
    Ok(())
}

/// This kernel forwards no virtual IP, so what proxies are told is what can be seen.
pub(crate) fn virtual_ips_stand_for_their_tasks(scene: &Scene) -> Result<()> {
    let endpoint = |service: &str| -> Result<String> {
        let format = "{{range .Endpoint.VirtualIPs}}{{.Addr}} {{end}}";
        let address = scene.docker(&["service", "inspect", "--format", format, service])?;
        let address = address.split('/').next().context("a service with a virtual IP")?;
        Ok(format!("{}:8080 of {service}", address.trim()))
    };
    let expected = |mut endpoints: Vec<String>| {
        endpoints.sort();
        endpoints
    };
    let both = expected(vec![endpoint("vip_v1")?, endpoint("vip_v2")?]);
    wait_for("each service is one endpoint", LIMIT, || {
        as_expected(scene, "vip_", &both)
    })?;
    scene.docker(&["service", "scale", "--detach", "vip_v2=0"])?;
    let one = vec![endpoint("vip_v1")?];
    wait_for("a service without tasks has none", LIMIT, || {
        as_expected(scene, "vip_", &one)
    })?;
    Ok(())
}

fn as_expected(scene: &Scene, services: &str, expected: &[String]) -> Look<()> {
    match endpoints_of(scene, services) {
        Ok(endpoints) if endpoints == expected => Look::Holds(()),
        other => Look::NotYet(format!("{other:?} instead of {expected:?}")),
    }
}

/// Endpoints of services whose names begin like this, as `ADDRESS:PORT of SERVICE`, sorted.
pub(crate) fn endpoints_of(scene: &Scene, services: &str) -> Result<Vec<String>> {
    let routes = scene.tidegate(CONTROLLER, &["routes"])?;
    let of = format!(" of {services}");
    let lines = routes
        .lines()
        .filter(|line| line.starts_with("  ") && line.contains(&of));
    let mut endpoints: Vec<String> = lines
        .filter(|line| !line.contains(" leaving"))
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            Some(words.get(1..4)?.join(" "))
        })
        .collect();
    endpoints.sort();
    Ok(endpoints)
}

/// Waits until so many tasks answer for a host by every proxy, and no other.
pub(crate) fn until_tasks(scene: &Scene, host: &str, count: usize) -> Result<()> {
    wait_for(&format!("{count} tasks answer for {host}"), LIMIT, || {
        for entrance in scene.entrances() {
            match names(entrance, host, count * 10) {
                Ok(names) if names.len() == count => {}
                other => return Look::NotYet(format!("{other:?}")),
            }
        }
        Look::Holds(())
    })?;
    Ok(())
}

/// How often each name answered, of so many requests to one proxy.
fn names(entrance: SocketAddr, host: &str, requests: usize) -> Result<BTreeMap<String, usize>> {
    let mut names = BTreeMap::new();
    for _ in 0..requests {
        let answer = web::get(entrance, host, "/", LIMIT)?;
        let name = answer.says("Name").with_context(|| answer.summary())?;
        *names.entry(name.to_string()).or_default() += 1;
    }
    Ok(names)
}

const REQUESTS: usize = 250;

/// The share of v2 at each proxy, and whether each is as it should be.
fn shares(scene: &Scene, host: &str, share: f64) -> Result<(Vec<f64>, bool)> {
    let count = REQUESTS as f64;
    let bound = 5.0 * (share * (1.0 - share) / count).sqrt();
    let mut found = Vec::new();
    for entrance in scene.entrances() {
        let names = names(entrance, host, REQUESTS)?;
        let of_v2: usize = names
            .iter()
            .filter(|(name, _)| name.starts_with("v2"))
            .map(|(_, count)| count)
            .sum();
        found.push(of_v2 as f64 / count);
    }
    let right = found.iter().all(|found| (found - share).abs() <= bound);
    Ok((found, right))
}

fn expect_share(scene: &Scene, host: &str, share: f64, what: &str) -> Result<()> {
    let (found, right) = shares(scene, host, share)?;
    say(format_args!(
        "share   {found:?} of {REQUESTS} requests each by v2 of {host}: {what}"
    ));
    assert!(right, "{what}: {found:?} is not about {share}");
    Ok(())
}

/// The same where the change may still be on its way.
fn until_share(scene: &Scene, host: &str, share: f64, what: &str) -> Result<()> {
    let (found, _) = wait_for(what, LIMIT, || match shares(scene, host, share) {
        Ok((found, true)) => Look::Holds(found),
        other => Look::NotYet(format!("{other:?}")),
    })?;
    say(format_args!(
        "share   {found:?} of {REQUESTS} requests each by v2 of {host}: {what}"
    ));
    Ok(())
}
