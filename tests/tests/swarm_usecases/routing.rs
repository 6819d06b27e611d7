//! What hosts and paths lead to, beyond what the headers of the examples try.

use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::clock::{Look, now, wait_for};
use e2e::scene::Scene;
use e2e::web::{self, Upgraded};

use crate::stacks::Stacks;

const LIMIT: Duration = Duration::from_secs(20);

/// Name and request that the application of a path tells, at every proxy.
fn served(scene: &Scene, host: &str, path: &str, name: &str, request: &str) -> Result<()> {
    for answer in scene.ask_all(host, path)? {
        let told = (answer.status, answer.says("Name"), answer.says("request"));
        assert_eq!(
            told,
            (200, Some(name), Some(request)),
            "{host}{path}: {}",
            answer.summary()
        );
    }
    Ok(())
}

pub(crate) fn paths_count_by_segments(scene: &Scene) -> Result<()> {
    let host = "paths.example.org";
    for (path, name, request) in [
        ("/", "site", "GET / HTTP/1.1"),
        ("/shop", "shop", "GET /shop HTTP/1.1"),
        ("/shopper/x", "site", "GET /shopper/x HTTP/1.1"),
        ("/shop/api", "api", "GET / HTTP/1.1"),
        ("/shop/api/", "api", "GET / HTTP/1.1"),
        ("/shop/api/a%20b?c=%2F", "api", "GET /a%20b?c=%2F HTTP/1.1"),
        ("/shop/apiary", "shop", "GET /shop/apiary HTTP/1.1"),
        ("/shop/api/../cart", "shop", "GET /shop/cart HTTP/1.1"),
        ("/%73hop/cart", "shop", "GET /%73hop/cart HTTP/1.1"),
    ] {
        served(scene, host, path, name, request)?;
    }
    for path in ["/", "/v10", "/v1/../x"] {
        for answer in scene.ask_all("apionly.example.org", path)? {
            assert_eq!(answer.status, 404, "{path}: {}", answer.summary());
        }
    }
    Ok(())
}

pub(crate) fn redirects_concern_their_host_alone(scene: &Scene) -> Result<()> {
    served(scene, "new.example.org", "/a?b=1", "new", "GET /a?b=1 HTTP/1.1")?;
    for (host, path, target) in [
        ("old.example.org", "/", "http://new.example.org/"),
        ("old.example.org", "/a/b?c=d&e", "http://new.example.org/a/b?c=d&e"),
        ("OLD.example.org.", "/a", "http://new.example.org/a"),
        ("older.example.org", "/a?b", "https://new.example.org/archive/a?b"),
    ] {
        for answer in scene.ask_all(host, path)? {
            let told = (answer.status, answer.headers.get("location").map(String::as_str));
            assert_eq!(told, (302, Some(target)), "{host}{path}");
        }
    }
    Ok(())
}

/// On the path that the label names and on another, at every proxy.
pub(crate) fn websockets_are_opened_on_any_path(scene: &Scene) -> Result<Vec<Upgraded>> {
    let mut sockets = Vec::new();
    for entrance in scene.entrances() {
        for path in ["/echo", "/anywhere/else"] {
            let mut socket = Upgraded::open_at(entrance, "ws.example.org", path)?;
            socket.echo("at once").with_context(|| path.to_string())?;
            sockets.push(socket);
        }
    }
    Ok(sockets)
}

/// Stacks, labels, settings and controllers have changed meanwhile.
pub(crate) fn websockets_outlived_all_of_that(mut sockets: Vec<Upgraded>) -> Result<()> {
    for socket in &mut sockets {
        socket
            .echo("much later")
            .context("a change elsewhere closed a connection")?;
    }
    Ok(())
}

pub(crate) fn a_default_backend_has_what_nobody_claims(stacks: &mut Stacks<'_>) -> Result<()> {
    let scene = stacks.scene;
    let unknown = ["nobody.example.org", "10.1.2.3", ""];
    for host in unknown {
        for answer in scene.ask_all(host, "/")? {
            // RFC 9112 §3.2: a Host header without a value is right where the target has no authority.
            assert_eq!(answer.status, 503, "{host:?}: {}", answer.summary());
        }
    }
    let start = now();
    stacks.deploy("fallback", "default-backend", &[])?;
    scene.until(
        "a default backend deployed, to its answer",
        start,
        "nobody.example.org",
        |answer| answer.says("Name") == Some("fallback"),
    )?;
    for host in unknown {
        served(scene, host, "/x", "fallback", "GET /x HTTP/1.1")?;
    }
    // Hosts that are claimed stay as they are, also where no service of theirs has the path.
    served(scene, "paths.example.org", "/x", "site", "GET /x HTTP/1.1")?;
    for answer in scene.ask_all("apionly.example.org", "/x")? {
        assert_eq!(answer.status, 404, "{}", answer.summary());
    }
    let start = now();
    scene.docker(&["stack", "rm", "fallback"])?;
    scene.until(
        "the default backend removed, to 503",
        start,
        "nobody.example.org",
        |answer| answer.status == 503,
    )?;
    let again = || match web::get(scene.entrances()[0], "", "/", LIMIT) {
        Ok(answer) if answer.status == 503 => Look::Holds(()),
        other => Look::NotYet(format!("{other:?}")),
    };
    wait_for("the same without a host", LIMIT, again)?;
    stacks.forget("fallback");
    Ok(())
}
