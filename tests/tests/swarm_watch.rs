//! SwarmKit's watch on a real Swarm: it tells what the API lists, resumes on any manager, and never has a secret in it.

use std::pin::pin;
use std::time::Duration;

use e2e::{gate, image, swarm};
use futures_util::StreamExt as _;
use sim::contract::{self, Ground};
use tidegate::clock::Clock;
use tidegate_core::id::Version;
use tidegate_core::swarm::model::{ApiError, FeedEnd};
use tidegate_docker::Docker;

/// Content of a secret that must not be seen.
const MARKER: &[u8] = b"swordfish-4711";
const SERVICE: &str = "mounts-it";
/// For what is to happen.
const LIMIT: Duration = Duration::from_secs(60);

fn api(node: &swarm::Node) -> Docker {
    let url = format!("unix://{}", node.socket().display());
    Docker::connect(&url)
        .unwrap()
        .with_control_socket(node.control_socket())
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
    let [first, second] = [1, 2].map(|number| api(swarm.node(number)));
    for [here, there] in [[&first, &second], [&second, &first]] {
        let ground = Ground {
            api: here,
            clock: Clock::system(),
            images: [image::APP, image::APP_2],
        };
        let held = runtime.block_on(contract::hold_watch(&ground, there));
        assert_eq!(held, Ok(()), "the simulated watch does what this one does not");
    }
    runtime.block_on(no_secret_is_told(&swarm, &first, &second));
    runtime.block_on(a_watch_opens_under_another_authority(&swarm, &first));
}

/// Whatever a manager sends, while it makes a secret and a task that mounts it, and when it tells of that again.
async fn no_secret_is_told(swarm: &swarm::Swarm, api: &Docker, other: &Docker) {
    let messages = api.watch_messages(None).await.unwrap();
    let mut messages = pin!(messages);
    let from = api
        .services(&[])
        .await
        .unwrap()
        .iter()
        .map(|service| service.version)
        .max();
    api.create_secret("marked", &[], MARKER).await.unwrap();
    let create = [
        "service",
        "create",
        "--detach",
        "--name",
        SERVICE,
        "--secret",
        "marked",
        image::APP,
    ];
    swarm.docker(&create).unwrap();
    let (mut bytes, mut running) = (Vec::new(), false);
    let told = async {
        while !running {
            bytes.extend(messages.next().await.expect("it is open").unwrap());
            let tasks = api.tasks(&[]).await.unwrap();
            running = tasks.iter().any(tidegate_core::swarm::model::Task::is_serving);
        }
    };
    tokio::time::timeout(LIMIT, told).await.expect("the task runs");
    assert!(
        has(&bytes, SERVICE.as_bytes()),
        "tasks are told of, with their secrets' names"
    );
    assert!(has(&bytes, b"marked"));
    assert!(!has(&bytes, MARKER), "a secret's content was sent");

    let again = other.watch_messages(Some(from.unwrap_or(Version(1)))).await.unwrap();
    let (mut again, mut bytes) = (pin!(again), Vec::new());
    let told = async {
        while !has(&bytes, SERVICE.as_bytes()) {
            bytes.extend(again.next().await.expect("it is open").unwrap());
        }
    };
    tokio::time::timeout(LIMIT, told).await.expect("what happened is told");
    assert!(!has(&bytes, MARKER), "a secret's content was sent");
    swarm.docker(&["service", "rm", SERVICE]).unwrap();
}

/// A manager whose certificate was renewed names no protocol in its handshakes any more (facts §9).
async fn a_watch_opens_under_another_authority(swarm: &swarm::Swarm, api: &Docker) {
    swarm.docker(&["swarm", "ca", "--rotate", "--quiet"]).unwrap();
    let clock = Clock::system();
    let end = clock.now() + LIMIT;
    loop {
        match api.task_changes(None).await.map(drop) {
            Ok(()) => return,
            // The authority that the API tells and the manager's certificate change one after the other.
            Err(FeedEnd::Broken(ApiError::Unreachable(_))) if clock.now() < end => {
                clock.pause(Duration::from_millis(200)).await;
            }
            Err(end) => panic!("{end}"),
        }
    }
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
