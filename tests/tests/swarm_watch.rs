//! SwarmKit's watch on a real Swarm: it tells what the API lists, resumes on any manager, and never has a secret in it.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::{gate, image, swarm};
use futures_util::StreamExt as _;
use sim::contract::{self, Ground};
use tidegate::clock::Clock;
use tidegate_core::id::Version;
use tidegate_core::swarm::model::{ApiError, FeedEnd, Task};
use tidegate_docker::Docker;
use tokio::time::timeout;

/// Content of a secret that must not be seen.
const MARKER: &[u8] = b"swordfish-4711";
const SERVICE: &str = "mounts-it";
/// For what is to happen.
const LIMIT: Duration = Duration::from_secs(60);

fn api(node: &swarm::Node) -> Result<Docker> {
    let url = format!("unix://{}", node.socket().display());
    Ok(Docker::connect(&url)?.with_control_socket(node.control_socket()))
}

#[test]
fn the_watch_tells_what_the_api_lists_and_no_secret() {
    if !gate::may_run("swarm_watch", swarm::obstacle()) {
        return;
    }
    let swarm = swarm::Swarm::start(2, 0).unwrap();
    image::load_app(&swarm).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let [first, second] = [1, 2].map(|number| api(swarm.node(number)).unwrap());
    for [here, there] in [[&first, &second], [&second, &first]] {
        let ground = Ground {
            api: here,
            clock: Clock::system(),
            images: [image::APP, image::APP_2],
        };
        let held = runtime.block_on(contract::hold_watch(&ground, there));
        assert_eq!(held, Ok(()), "the simulated watch does what this one does not");
    }
    runtime.block_on(no_secret_is_told(&swarm, &first, &second)).unwrap();
    runtime
        .block_on(a_watch_opens_under_another_authority(&swarm, &first))
        .unwrap();
}

/// Whatever a manager sends, while it makes a secret and a task that mounts it, and when it tells of that again.
async fn no_secret_is_told(swarm: &swarm::Swarm, api: &Docker, other: &Docker) -> Result<()> {
    let mut messages = pin!(api.watch_messages(None).await?);
    let before = api.services(&[]).await?.iter().map(|service| service.version).max();
    api.create_secret("marked", &[], MARKER).await?;
    let create = ["service", "create", "--detach", "--name", SERVICE, "--secret", "marked"];
    swarm.docker(&[&create[..], &[image::APP]].concat())?;
    let live = async {
        let mut bytes = Vec::new();
        while !api.tasks(&[]).await?.iter().any(Task::is_serving) {
            bytes.extend(messages.next().await.context("it is open")??);
        }
        anyhow::Ok(bytes)
    };
    let live = timeout(LIMIT, live).await.context("the task does not run")??;
    let mut messages = pin!(other.watch_messages(Some(before.unwrap_or(Version(1)))).await?);
    let again = async {
        let mut bytes = Vec::new();
        while !has(&bytes, SERVICE.as_bytes()) {
            bytes.extend(messages.next().await.context("it is open")??);
        }
        anyhow::Ok(bytes)
    };
    let again = timeout(LIMIT, again)
        .await
        .context("what happened is not told again")??;
    for bytes in [live, again] {
        assert!(has(&bytes, b"marked"), "a task is told of with the name of its secret");
        assert!(!has(&bytes, MARKER), "the content of a secret was sent");
    }
    swarm.docker(&["service", "rm", SERVICE]).map(drop)
}

/// A manager whose certificate was renewed names no protocol in its handshakes any more (facts §9).
async fn a_watch_opens_under_another_authority(swarm: &swarm::Swarm, api: &Docker) -> Result<()> {
    swarm.docker(&["swarm", "ca", "--rotate", "--quiet"])?;
    let clock = Clock::system();
    let end = clock.now() + LIMIT;
    loop {
        match api.task_changes(None).await.map(drop) {
            // The authority that the API tells and the manager's certificate change one after the other.
            Err(FeedEnd::Broken(ApiError::Unreachable(_))) if clock.now() < end => {
                clock.pause(Duration::from_millis(200)).await;
            }
            opened => return Ok(opened?),
        }
    }
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
