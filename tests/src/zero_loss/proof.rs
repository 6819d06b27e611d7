//! `tidegate prove` on the two example stacks: one whose updates lose nothing, and one with faults that it names.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::clock::now;
use crate::command::command;
use crate::example::Example;
use crate::https::{Authority, Crowd};
use crate::report::say;
use crate::scene::{SHARED, Scene};
use crate::{image, product};

/// For both to be proved.
const LIMIT: Duration = Duration::from_secs(150);

/// Of the stack files.
const VARIABLES: [(&str, &str); 10] = [
    ("APP_IMAGE", image::APP),
    ("APP_NETWORK", SHARED),
    ("APP_CONSTRAINT", "node.role==manager"),
    ("APP_PORT", "8080"),
    ("APP_PROGRAM", "/app"),
    ("CHECK", "/app"),
    ("CHECK_OPTION", "check"),
    ("STOP_SIGNAL", "SIGTERM"),
    // However slow the update is: both new tasks are started, and both old ones gone, long before the first new one listens.
    ("START_MS", "16000"),
    ("PARK_TIMEOUT", "1s"),
];

/// Deploys both, proves both at once, and judges what is printed.
///
/// # Errors
/// If a fault is not named, or one is that is none.
pub fn prove_the_examples(scene: &Scene) -> Result<()> {
    deploy(scene, &["clean", "fault"])?;
    // Neither disturbs the other: what is judged is whose requests fail.
    let clean = prove(scene, "clean")?;
    let fault = prove(scene, "fault")?;
    let (clean, fault) = (clean.wait_with_output()?, fault.wait_with_output()?);
    for stack in ["clean", "fault"] {
        scene.docker(&["stack", "rm", stack])?;
    }
    judge(
        &clean,
        0,
        &["0 failed", "result    clean_web: clean: an update loses nothing"],
    )?;
    judge(
        &fault,
        1,
        &[
            "503 park_timed_out: no endpoint of the service became ready within 1000 ms",
            "fix: no health check",
            "          start_period:",
            "SIGTERM ended 2 old tasks at once",
            "failure_action: rollback",
            "result    fault_web: not clean",
        ],
    )
}

/// The clean one again, with a certificate and for HTTPS alone.
///
/// # Errors
/// If it is proved otherwise than over HTTPS, or is not clean.
pub fn prove_over_https(scene: &Scene) -> Result<()> {
    const HOST: &str = "clean.example.org";
    deploy(scene, &["clean"])?;
    let authority = Authority::new(HOST)?;
    let issued = authority.issue()?;
    let file = scene.swarm().folder().join("clean.pem");
    std::fs::write(&file, &issued.pem)?;
    scene.docker(&["secret", "create", "clean.pem", &file.to_string_lossy()])?;
    let labels = [
        "--label-add",
        "tidegate.ssl_cert=clean.pem",
        "--label-add",
        "tidegate.ssl_only=true",
    ];
    scene.docker(
        &[
            &["service", "update", "--detach", "--quiet"],
            &labels[..],
            &["clean_web"],
        ]
        .concat(),
    )?;
    let nobody = Crowd::start(&authority.client()?, &[], 0, 0)?;
    nobody.until_served(&scene.entrances_at(443), &issued.certificate)?;
    let proved = prove(scene, "clean")?.wait_with_output()?;
    scene.docker(&["stack", "rm", "clean"])?;
    judge(
        &proved,
        0,
        &[
            "GET https://clean.example.org/",
            "0 failed",
            "result    clean_web: clean: an update loses nothing",
        ],
    )
}

fn deploy(scene: &Scene, stacks: &[&str]) -> Result<()> {
    let start = now();
    for stack in stacks {
        let example = Example::read(&format!("prove-{stack}"))?;
        scene.deploy(stack, &[example.file], &VARIABLES)?;
    }
    for stack in stacks {
        let host = format!("{stack}.example.org");
        scene.until("an example answers", start, &host, |answer| answer.status == 200)?;
    }
    Ok(())
}

fn prove(scene: &Scene, stack: &str) -> Result<std::process::Child> {
    let manager = scene.managers().first().context("there is a manager")?;
    let docker = format!("controller.docker=unix://{}", manager.socket().display());
    command("timeout")
        .arg(LIMIT.as_secs().to_string())
        .arg(product::program()?)
        .args(["prove", stack, "--yes", "--after", "1", "--set", &docker])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run timeout")
}

fn judge(output: &Output, code: i32, parts: &[&str]) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines() {
        say(format_args!("prove   {line}"));
    }
    let said = || format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(code), "exit {}: {}", output.status, said());
    for part in parts {
        ensure!(text.contains(part), "{part:?} is missing in {}", said());
    }
    Ok(())
}
