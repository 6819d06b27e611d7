//! Clients that come back to the task that they had, also while tasks come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::report::say;
use e2e::scene::Scene;
use e2e::web::{Answer, Ask};

use crate::balancing::until_tasks;

const LIMIT: Duration = Duration::from_secs(20);
/// Enough for each of five tasks to have some, but for one run in a million.
const SESSIONS: usize = 64;
const CLIENTS: u8 = 16;

/// One request to every proxy; they have to agree on the task, whose name it gives with the first answer.
fn task_of(scene: &Scene, host: &str, path: &str, cookie: &str, from: Option<IpAddr>) -> Result<(String, Answer)> {
    let mut answers = Vec::new();
    for server in scene.entrances() {
        let ask = Ask {
            server,
            from,
            host,
            path,
            cookie,
            limit: LIMIT,
        };
        answers.push(ask.send()?);
    }
    let names: BTreeSet<&str> = answers.iter().filter_map(|answer| answer.says("Name")).collect();
    let name = names.first().map(ToString::to_string);
    assert_eq!(
        names.len(),
        1,
        "{host}, cookie {cookie:?}, from {from:?}: proxies differ: {names:?}"
    );
    Ok((name.context("no name")?, answers.swap_remove(0)))
}

pub(crate) fn an_applications_cookie_leads_to_one_task(scene: &Scene) -> Result<()> {
    let host = "cookie.example.org";
    until_tasks(scene, host, 4)?; // without the cookie, requests are balanced as usual
    let login = Ask {
        server: scene.entrances()[0],
        from: None,
        host,
        path: "/login?app_session",
        cookie: "",
        limit: LIMIT,
    }
    .send()?;
    let cookie = login.headers.get("set-cookie").context("the app sets a cookie")?;
    let cookie = cookie.split(';').next().unwrap_or_default();
    assert!(
        cookie.starts_with("app_session="),
        "the app's cookie is not its own: {cookie}"
    );
    let (home, answer) = task_of(scene, host, "/", cookie, None)?;
    assert_eq!(answer.headers.get("set-cookie"), None, "the proxy sets no cookie here");
    for _ in 0..5 {
        assert_eq!(
            task_of(scene, host, "/again", &format!("a=b; {cookie}; c=d"), None)?.0,
            home
        );
    }

    let sessions = || -> Result<BTreeMap<usize, String>> {
        let task = |session| {
            Ok((
                session,
                task_of(scene, host, "/", &format!("app_session=user-{session}"), None)?.0,
            ))
        };
        (0..SESSIONS).map(task).collect()
    };
    let of_four = sessions()?;
    let used: BTreeSet<&String> = of_four.values().collect();
    assert_eq!(used.len(), 4, "{SESSIONS} sessions use {used:?} alone");
    scene.docker(&["service", "scale", "--detach", "sessions_cookie=5"])?;
    until_tasks(scene, host, 5)?;
    let of_five = sessions()?;
    let moved: Vec<&String> = of_five
        .iter()
        .filter(|(id, task)| of_four[id] != **task)
        .map(|(_, task)| task)
        .collect();
    say(format_args!(
        "moved   {} of {SESSIONS} sessions when tasks went from 4 to 5",
        moved.len()
    ));
    assert!(
        moved.iter().all(|task| !used.contains(task)),
        "sessions moved to another task than the new one: {moved:?}"
    );
    assert!(
        !moved.is_empty() && moved.len() < SESSIONS / 2,
        "{} sessions moved",
        moved.len()
    );

    scene.docker(&["service", "scale", "--detach", "sessions_cookie=2"])?;
    until_tasks(scene, host, 2)?;
    let of_two = sessions()?;
    let left: BTreeSet<&String> = of_two.values().collect();
    let stayed = of_five.iter().filter(|(_, task)| left.contains(task)).count();
    say(format_args!(
        "moved   {} of {SESSIONS} sessions when tasks went from 5 to 2",
        SESSIONS - stayed
    ));
    for (id, task) in of_five.iter().filter(|(_, task)| left.contains(task)) {
        assert_eq!(of_two[id], *task, "session {id} moved, though its task is there");
    }
    Ok(())
}

pub(crate) fn a_cookie_of_the_proxies_leads_to_one_task(scene: &Scene) -> Result<()> {
    let host = "lb.example.org";
    let mut used = BTreeSet::new();
    for _ in 0..SESSIONS / 2 {
        let first = Ask {
            server: scene.entrances()[0],
            from: None,
            host,
            path: "/",
            cookie: "",
            limit: LIMIT,
        }
        .send()?;
        let set = first.headers.get("set-cookie").context("the proxy sets a cookie")?;
        assert!(
            set.starts_with("lb=") && set.contains("HttpOnly") && set.contains("SameSite=Lax"),
            "{set}"
        );
        let cookie = set.split(';').next().unwrap_or_default();
        let (task, again) = task_of(scene, host, "/", cookie, None)?;
        assert_eq!(
            Some(task.as_str()),
            first.says("Name"),
            "the first answer came from another task"
        );
        assert_eq!(
            again.headers.get("set-cookie"),
            None,
            "a cookie that is known is not set again"
        );
        used.insert(task);
    }
    assert!(used.len() > 1, "every session leads to {used:?}");
    Ok(())
}

pub(crate) fn a_clients_address_leads_to_one_task(scene: &Scene) -> Result<()> {
    let host = "iphash.example.org";
    let mut used = BTreeSet::new();
    for client in scene.swarm().client_addresses(CLIENTS)? {
        let (task, _) = task_of(scene, host, "/", "", Some(client))?;
        for cookie in ["a=1", "a=2", "a=3"] {
            assert_eq!(
                task_of(scene, host, "/", cookie, Some(client))?.0,
                task,
                "{client} moved"
            );
        }
        used.insert(task);
    }
    assert!(used.len() > 1, "{CLIENTS} clients are one: {used:?}");
    Ok(())
}
