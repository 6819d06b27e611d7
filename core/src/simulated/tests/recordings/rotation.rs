//! `shop` gets another secret and `api` another config; `shop` joins and leaves a network.

use super::history::{History, Ms};
use super::scene::{Scene, Stage, USUAL};
use super::story::{Story, reproduces};
use super::updates::{Order, steps};
use super::*;

const STAGE: Stage = Stage {
    start_first: true,
    ..USUAL
};

const LIMITS: [(&str, Ms); 6] = [
    ("step begins", 100),
    ("SIGTERM", 200),
    ("old is over", 550),
    ("old is told", 25),
    ("new runs", 900),
    ("completed", 150),
];

fn completed(story: &mut Story, history: &History, service: &str, mark: usize, last: Option<Ms>) {
    let completed = History::change(&history.updates, history.marks[mark]..Ms::MAX, service, "completed");
    story.took("completed", last, completed);
}

#[test]
fn other_secrets_and_configs_replace_tasks_as_in_the_recording() {
    let act = |scene: &mut Scene, mark: usize| {
        let api = scene.id("api");
        let secret = |scene: &Scene, name: &str| {
            let secrets = scene.shell.swarm.secrets();
            secrets.into_iter().find(|secret| secret.name == name).unwrap().id
        };
        match mark {
            0 => scene.command(|swarm, now| swarm.create_secret("shop-key-2", &[], b"2", now).map(drop)),
            1 => scene.edit_shop(|shop| shop.secrets = [("shop-key-2".to_string(), "key".to_string())].into()),
            2 => {
                let old = secret(scene, "shop-key-1");
                scene.command(|swarm, now| swarm.remove_secret(&old, now));
            }
            3 => scene.command(|swarm, now| swarm.create_config("api-conf-2", now)),
            4 => scene.command(|swarm, now| swarm.mount_configs(&api, &["api-conf-2"], now)),
            5 => scene.command(|swarm, now| swarm.remove_config("api-conf", now)),
            6 => {
                let used = secret(scene, "shop-key-2");
                let answer = scene.shell.command(|swarm, now| swarm.remove_secret(&used, now));
                let Err(ApiError::Refused(text)) = answer else {
                    panic!("a secret in use was removed: {answer:?}");
                };
                assert!(recording!("secret-rotation").contains(&text), "no real answer: {text}");
                let used = scene.shell.command(|swarm, now| swarm.remove_config("api-conf-2", now));
                assert!(matches!(used, Err(ApiError::Refused(_))), "a config in use was removed");
            }
            // What was answered.
            _ => {}
        }
    };
    reproduces(recording!("secret-rotation"), &LIMITS, STAGE, act, |history| {
        let mut story = Story::default();
        let last = steps(&mut story, history, "shop", 1, Order::StartFirst);
        completed(&mut story, history, "shop", 1, last);
        let last = steps(&mut story, history, "api", 4, Order::StopFirst);
        completed(&mut story, history, "api", 4, last);
        story
    });
}

#[test]
fn another_network_replaces_tasks_as_in_the_recording() {
    let act = |scene: &mut Scene, mark: usize| match mark {
        0 => scene.command(|swarm, now| swarm.create_network("extra", false, now).map(drop)),
        1 => scene.edit_shop(|shop| _ = shop.networks.insert("extra".to_string())),
        6 => scene.edit_shop(|shop| _ = shop.networks.remove("extra")),
        7 => {
            let extra = scene.shell.swarm.network_named("extra").unwrap();
            scene.command(|swarm, now| swarm.remove_network(&extra, now));
        }
        // A plain container, which this Swarm has none of, comes and goes, and no task changes.
        _ => {}
    };
    let limits = LIMITS.map(|(what, limit)| match what {
        // Each worker makes the network first.
        "new runs" => (what, 1300),
        _ => (what, limit),
    });
    reproduces(recording!("network-attach"), &limits, STAGE, act, |history| {
        let mut story = Story::default();
        for mark in [1, 6] {
            let last = steps(&mut story, history, "shop", mark, Order::StartFirst);
            completed(&mut story, history, "shop", mark, last);
            let new = history.of("shop", history.after(mark), |life| Some(life.listed));
            story.fact(format!(
                "{:?} networks",
                new.iter().map(|life| life.last.networks).collect::<Vec<_>>()
            ));
        }
        let quiet = history.marks[2]..history.marks[6];
        let came = history.of("shop", quiet, |life| Some(life.listed));
        story.fact(format!("{} come for a plain container", came.len()));
        story
    });
}
