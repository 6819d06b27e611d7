//! Labels that are wrong, in every way that a Swarm takes them: each concerns its own service, while another one is under load.

use std::time::Duration;

use anyhow::Result;
use e2e::clock::{Look, now, wait_for};
use e2e::image;
use e2e::load::Load;
use e2e::report::say;
use e2e::scene::{CONTROLLER, SHARED, Scene, effect};

const LIMIT: Duration = Duration::from_secs(60);
const PORT: (&str, &str) = ("com.docker.lb.port", "8080");

pub(crate) fn concerns_itself_alone(scene: &Scene) -> Result<()> {
    let load = Load::start(&scene.entrances(), "new.example.org");
    let long = "x".repeat(64 * 1024);
    let many: Vec<String> = (0..3000).map(|number| format!("h{number}.long.example.org")).collect();
    let many = many.join(",");
    assert!(many.len() > 64 * 1024 - 4096, "{}", many.len());
    let long_host: &[(&str, &str)] = &[("com.docker.lb.hosts", &long), PORT];
    let services = [
        ("long-host", long_host),
        ("many-hosts", &[("com.docker.lb.hosts", &many), PORT]),
        ("no-port", &[("com.docker.lb.hosts", "no-port.example.org")]),
        (
            "both-tls",
            &[
                ("com.docker.lb.hosts", "both-tls.example.org"),
                PORT,
                ("com.docker.lb.ssl_cert", "no-such-secret"),
                ("com.docker.lb.ssl_passthrough", "true"),
                ("com.docker.lb.context_root", "/app"),
            ],
        ),
        (
            "thief",
            &[
                ("com.docker.lb.hosts", "new.example.org"),
                PORT,
                (
                    "com.docker.lb.redirects",
                    "http://new.example.org,http://evil.example.org",
                ),
                ("com.docker.lb.ssl_passthrough", "true"),
            ],
        ),
        (
            "nowhere",
            &[
                ("com.docker.lb.hosts", "nowhere.example.org"),
                PORT,
                ("com.docker.lb.service_cluster", "no-such-cluster"),
            ],
        ),
    ];
    let start = now();
    for (name, labels) in services {
        create(scene, name, labels)?;
    }
    effect("six calls of docker service create", start);
    scene.until(
        "a service with 3,000 hosts, to the answer of the last",
        start,
        "h2999.long.example.org",
        |answer| answer.status == 200,
    )?;
    let said = ["long-host", "no-port", "both-tls", "no-such-cluster", "thief"];
    let (status, _) = wait_for("every mistake is reported", LIMIT, || {
        let status = match scene.tidegate(CONTROLLER, &["routes"]) {
            Ok(text) => text,
            Err(error) => error.to_string(),
        };
        match said.iter().find(|word| !status.contains(**word)) {
            None => Look::Holds(status),
            Some(word) => Look::NotYet(format!("no word of {word}: {status:.2000}")),
        }
    })?;
    effect("six services with mistakes created, to their report", start);
    let longest = status.lines().map(str::len).max().unwrap_or_default();
    say(format_args!(
        "report  {longest} bytes in the longest line about labels of 64 KB"
    ));
    for host in ["no-port.example.org", "nowhere.example.org", &long[..60]] {
        for answer in scene.ask_all(host, "/")? {
            assert_eq!(answer.status, 503, "{host}: {}", answer.summary());
        }
    }
    for answer in scene.ask_all("new.example.org", "/mine")? {
        assert_eq!(
            (answer.status, answer.says("Name")),
            (200, Some("new")),
            "another service took the host"
        );
    }
    a_secret_in_use_cannot_be_removed(scene)?;
    let names: Vec<&str> = services.iter().map(|(name, _)| *name).collect();
    scene.docker(&[&["service", "rm"][..], &names].concat())?;
    scene.until(
        "the services with mistakes removed",
        now(),
        "h2999.long.example.org",
        |answer| answer.status == 503,
    )?;
    let account = load.finish();
    say(format_args!("load    another service, meanwhile: {account}"));
    assert_eq!(account.failed(), 0, "{account}");
    Ok(())
}

fn a_secret_in_use_cannot_be_removed(scene: &Scene) -> Result<()> {
    let refused = scene.docker(&["secret", "rm", "shop.example.org.cert"]);
    assert!(refused.is_err(), "Swarm removed a secret in use: {refused:?}");
    Ok(())
}

fn create(scene: &Scene, name: &str, labels: &[(&str, &str)]) -> Result<()> {
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut arguments = vec!["service", "create", "--detach", "--name", name, "--network", SHARED];
    arguments.extend(["--constraint", "node.role==manager"]);
    for label in &labels {
        arguments.extend(["--label", label]);
    }
    arguments.push(image::APP);
    scene.docker(&arguments).map(drop)
}
