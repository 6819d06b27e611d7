//! A certificate that is renewed again and again under users who stay connected, by courier, on a real Swarm.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use e2e::clock::{Look, now, wait_for};
use e2e::https::{Account, Authority, Crowd};
use e2e::report::say;
use e2e::scene::{CONTROLLER, PROXY, SHARED, Scene};
use e2e::{gate, swarm};

const HOST: &str = "shop.example";
const APP: &str = "shop_web";
const COURIER: &str = "tidegate_courier";
const LIMIT: Duration = Duration::from_secs(120);
/// Renewals.
const ROUNDS: usize = 20;
const SOCKETS: usize = 200;
const STREAMS: usize = 50;

#[test]
fn a_certificate_is_renewed_twenty_times_and_no_connection_is_closed() {
    if !gate::may_run("swarm_certificates", swarm::obstacle()) {
        return;
    }
    let scene = Scene::set_up(SHARED).unwrap();
    scene.explained(renewals(&scene)).unwrap();
}

fn renewals(scene: &Scene) -> Result<()> {
    let authority = Authority::new(HOST)?;
    let client = authority.client()?;
    scene.deploy_app("shop", "deploy/demo-shared.yml", HOST)?;
    let start = now();
    scene.until("an app deployed, to its answer by every proxy", start, HOST, |answer| {
        answer.status == 200
    })?;
    let proxies = scene.tasks_of(PROXY)?;
    let entrances = scene.entrances_at(443);
    // With nobody connected yet: also to be served the first one.
    let nobody = Crowd::start(&client, &[], 0, 0)?;
    let first = renew(scene, &authority, &nobody, 0)?;
    say(format_args!(
        "effect  {first:7.2} s  the first certificate, from `docker secret create` to served by every proxy"
    ));
    let crowd = Crowd::start(&client, &entrances, SOCKETS, STREAMS)?;
    wait_for("every client is connected", LIMIT, || {
        let begun = (crowd.sockets.begun(), crowd.streams.begun());
        if begun == (SOCKETS as u64, STREAMS as u64) {
            Look::Holds(())
        } else {
            Look::NotYet(format!(
                "{begun:?}; {:?} {:?}",
                crowd.sockets.failures(),
                crowd.streams.failures()
            ))
        }
    })?;
    let mut seconds = Vec::new();
    for round in 1..=ROUNDS {
        seconds.push(renew(scene, &authority, &crowd, round)?);
        // What is replaced can be removed, and nothing comes of it.
        wait_for("the secret before is set free", LIMIT, || {
            match scene.docker(&["secret", "rm", &secret(round - 1)]) {
                Ok(_) => Look::Holds(()),
                Err(error) => Look::NotYet(format!("{error:#}")),
            }
        })?;
    }
    seconds.sort_by(f64::total_cmp);
    say(format_args!(
        "renewal p50 {:.2} s, max {:.2} s of {ROUNDS}, from `docker secret create` and a label to served by every proxy",
        seconds[ROUNDS / 2],
        seconds[ROUNDS - 1]
    ));
    for (what, account) in [
        ("WebSockets", &crowd.sockets),
        ("HTTP/2 streams", &crowd.streams),
        ("HTTPS requests", &crowd.requests),
    ] {
        nothing_failed(what, account);
    }
    assert_eq!(scene.tasks_of(PROXY)?, proxies, "proxies were replaced");
    for service in [CONTROLLER, COURIER] {
        // The courier before lives on for a moment.
        let status = wait_for(&format!("{service} tells of the last secret"), LIMIT, || {
            match scene.tidegate(service, &["status"]) {
                Ok(status) if status.contains(&secret(ROUNDS)) => Look::Holds(status),
                Ok(status) => Look::NotYet(status),
                Err(error) => Look::NotYet(format!("{error:#}")),
            }
        })?;
        assert!(!status.0.contains("PRIVATE KEY"), "{service} shows a key");
    }
    a_broken_secret_changes_nothing(scene, &crowd)
}

fn secret(round: usize) -> String {
    format!("shop.{round}.pem")
}

fn nothing_failed(what: &str, account: &Account) {
    let (words, failures) = (account.words(), account.failures());
    say(format_args!("load    {what}: {words} answers, failures: {failures:?}"));
    assert!(words > 0, "{what} were not tried");
    assert!(failures.is_empty(), "{what}: {failures:?}");
}

/// Makes a secret, names it in the label, and waits until every proxy serves it; the seconds from the beginning.
fn renew(scene: &Scene, authority: &Authority, crowd: &Crowd, round: usize) -> Result<f64> {
    let issued = authority.issue()?;
    let name = secret(round);
    let file = scene.swarm().folder().join(&name);
    fs::write(&file, &issued.pem)?;
    let start = now();
    create_and_name(scene, &name, &file.to_string_lossy())?;
    crowd.until_served(&scene.entrances_at(443), &issued.certificate)?;
    Ok(start.elapsed().as_secs_f64())
}

fn create_and_name(scene: &Scene, name: &str, file: &str) -> Result<()> {
    scene.docker(&["secret", "create", name, file])?;
    let label = format!("tidegate.ssl_cert={name}");
    scene.docker(&["service", "update", "--detach", "--quiet", "--label-add", &label, APP])?;
    Ok(())
}

fn a_broken_secret_changes_nothing(scene: &Scene, crowd: &Crowd) -> Result<()> {
    let entrances = scene.entrances_at(443);
    let before = crowd.served(entrances[0])?;
    let file = scene.swarm().folder().join("broken");
    fs::write(&file, "no certificate at all")?;
    create_and_name(scene, "broken.pem", &file.to_string_lossy())?;
    wait_for("the controllers say what is wrong", LIMIT, || {
        // Each controller knows what the proxies say that are connected to it.
        let routes = scene.tidegate_each(CONTROLLER, &["routes"]);
        match routes {
            Ok(text) if text.contains("the secret broken.pem holds no certificate as PEM") => Look::Holds(()),
            Ok(text) => Look::NotYet(text),
            Err(error) => Look::NotYet(format!("{error:#}")),
        }
    })?;
    for entrance in entrances {
        assert_eq!(
            crowd.served(entrance)?,
            before,
            "the host keeps its last good certificate"
        );
    }
    nothing_failed("WebSockets", &crowd.sockets);
    Ok(())
}
