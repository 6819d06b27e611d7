//! `basic_auth`: users and hashes out of a Docker secret.

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine as _;
use tidegate::secrets::Secrets;
use tidegate::telemetry::log::AccessLog;
use tidegate_core::route::spec::RouteSpec;

use crate::harness::*;

/// The password is `secret`.
const BOB: &str = "bob:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";
const ANN: &str = "ann:$apr1$lZL6V/ci$PR6QJXkRFUzdUuaYcwrI//\n";

/// A proxy whose secrets are files of a folder.
struct Scene {
    folder: tempfile::TempDir,
    secrets: Secrets,
    proxy: Proxy,
}

impl Scene {
    async fn new(files: &[(&str, &str)], routes: &[RouteSpec]) -> Scene {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            put(folder.path(), name, text);
        }
        let secrets = Secrets::folder(folder.path().to_owned());
        secrets.want(wanted(routes));
        let for_worker = secrets.clone();
        let proxy = Proxy::start_with(snapshot(routes.to_vec()), AccessLog::off(), |config| {
            config.secrets = for_worker;
        })
        .await;
        Scene { folder, secrets, proxy }
    }

    fn put(&self, name: &str, text: &str) {
        put(self.folder.path(), name, text);
        self.secrets.refresh();
    }

    async fn ask(&self, host: &str, who: Option<(&str, &str)>) -> String {
        let field = who.map(|(user, password)| basic(user, password)).unwrap_or_default();
        self.proxy
            .raw(format!("GET / HTTP/1.1\r\nHost: {host}\r\n{field}Connection: close\r\n\r\n").as_bytes())
            .await
    }
}

fn put(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("a file");
}

fn wanted(routes: &[RouteSpec]) -> BTreeSet<String> {
    routes
        .iter()
        .flat_map(|spec| spec.secrets())
        .map(str::to_owned)
        .collect()
}

fn basic(user: &str, password: &str) -> String {
    let token = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Authorization: Basic {token}\r\n")
}

fn guarded(name: &str, app: &App, labels: &[(&str, &str)]) -> RouteSpec {
    let host = format!("{name}.example");
    let labels = [
        &[("tidegate.hosts", host.as_str()), ("tidegate.basic_auth", "users")][..],
        labels,
    ]
    .concat();
    labelled(name, &labels, &[app.addr])
}

#[test]
fn label_basic_auth_lets_users_of_the_secret_in_alone() {
    run(async {
        let app = App::named("shop").await;
        let users = format!("{BOB}{ANN}eve:plain\n");
        let scene = Scene::new(&[("users", &users)], &[guarded("shop", &app, &[])]).await;
        for who in [
            None,
            Some(("bob", "wrong")),
            Some(("bob", "")),
            Some(("nobody", "secret")),
            Some(("eve", "plain")),
            Some(("", "secret")),
        ] {
            let answer = scene.ask("shop.example", who).await;
            assert_eq!(status(&answer), 401, "{who:?}: {answer}");
            let challenge = "www-authenticate: Basic realm=\"shop.example\", charset=\"UTF-8\"\r\n";
            assert!(answer.contains(challenge), "{answer}");
        }
        assert_eq!(app.accepted.get(), 0, "the app saw none of it");
        for user in ["bob", "ann", "bob"] {
            assert!(
                scene
                    .ask("shop.example", Some((user, "secret")))
                    .await
                    .ends_with("shop")
            );
            assert!(
                !app.head().headers().contains_key("authorization"),
                "the app is not told"
            );
        }
        // Known as bob does not mean known as somebody else.
        assert_eq!(status(&scene.ask("shop.example", Some(("ann", "wrong"))).await), 401);
    });
}

#[test]
fn label_basic_auth_forward_shows_the_app_what_the_client_said() {
    run(async {
        let app = App::named("shop").await;
        let spec = guarded("shop", &app, &[("tidegate.basic_auth_forward", "true")]);
        let scene = Scene::new(&[("users", BOB)], &[spec]).await;
        assert!(
            scene
                .ask("shop.example", Some(("bob", "secret")))
                .await
                .ends_with("shop")
        );
        assert_eq!(app.head().headers()["authorization"], "Basic Ym9iOnNlY3JldA==");
    });
}

#[test]
fn label_basic_auth_realm_is_what_clients_are_shown() {
    run(async {
        let app = App::named("shop").await;
        let spec = guarded("shop", &app, &[("tidegate.basic_auth_realm", "Shop of Example")]);
        let scene = Scene::new(&[("users", BOB)], &[spec]).await;
        let answer = scene.ask("shop.example", None).await;
        assert!(
            answer.contains("www-authenticate: Basic realm=\"Shop of Example\","),
            "{answer}"
        );
    });
}

#[test]
fn without_usable_users_the_route_is_closed_and_the_last_good_ones_hold() {
    run(async {
        let app = App::named("shop").await;
        let scene = Scene::new(&[], &[guarded("shop", &app, &[])]).await;
        let bob = Some(("bob", "secret"));
        for text in ["", "bob:secret\n", "# nobody\n", "\u{0}\u{1}"] {
            let answer = scene.ask("shop.example", bob).await;
            assert!(
                status(&answer) == 503 && answer.contains("retry-after: 1\r\n"),
                "{text:?}: {answer}"
            );
            scene.put("users", text);
        }
        assert_eq!(status(&scene.ask("shop.example", bob).await), 503);
        let found = || scene.secrets.findings().borrow().clone();
        let problems: Vec<String> = found().iter().map(|finding| finding.problem.clone()).collect();
        assert!(
            problems.iter().any(|problem| problem.contains("no usable line")),
            "{problems:?}"
        );
        scene.put("users", BOB);
        assert!(scene.ask("shop.example", bob).await.ends_with("shop"));
        assert!(found().is_empty(), "{:?}", found());
        scene.put("users", "broken\n");
        assert!(
            scene.ask("shop.example", bob).await.ends_with("shop"),
            "the last good users hold"
        );
        std::fs::remove_file(scene.folder.path().join("users")).expect("the file is there");
        scene.secrets.refresh();
        assert!(scene.ask("shop.example", bob).await.ends_with("shop"));
        assert_eq!(status(&scene.ask("shop.example", None).await), 401);
        // Whoever is taken out is not known any more.
        scene.put("users", ANN);
        assert_eq!(status(&scene.ask("shop.example", bob).await), 401);
        assert!(
            scene
                .ask("shop.example", Some(("ann", "secret")))
                .await
                .ends_with("shop")
        );
        assert_eq!(
            scene.proxy.link.metrics().await.expect("metrics").faults["users_unknown"],
            5
        );
    });
}

#[test]
fn users_and_addresses_must_both_be_right_and_so_must_all_services_of_a_pool() {
    run(async {
        let app = App::named("shop").await;
        let far = guarded("far", &app, &[("tidegate.allow_ips", "203.0.113.9")]);
        let canary = |name: &str, secret: &str| {
            let labels = [("tidegate.hosts", "both.example"), ("tidegate.basic_auth", secret)];
            labelled(name, &labels, &[app.addr])
        };
        let files = [("users", BOB), ("staff", &format!("{BOB}{ANN}")[..])];
        let routes = [far, canary("one", "users"), canary("two", "staff")];
        let scene = Scene::new(&files, &routes).await;
        assert_eq!(status(&scene.ask("far.example", Some(("bob", "secret"))).await), 403);
        assert!(
            scene
                .ask("both.example", Some(("bob", "secret")))
                .await
                .ends_with("shop")
        );
        assert_eq!(status(&scene.ask("both.example", Some(("ann", "secret"))).await), 401);
    });
}

#[test]
fn no_way_to_write_a_path_leads_around_a_guarded_context_root() {
    run(async {
        let (open, guarded_app) = (App::named("open").await, App::named("guarded").await);
        let admin = guarded(
            "shop",
            &guarded_app,
            &[
                ("tidegate.context_root", "/admin"),
                ("tidegate.allow_ips", "203.0.113.9"),
            ],
        );
        let site = labelled("site", &[("tidegate.hosts", "shop.example")], &[open.addr]);
        let scene = Scene::new(&[("users", BOB)], &[admin, site]).await;
        for (target, expected) in [
            ("/admin", 403),
            ("/admin/", 403),
            ("/%61dmin/x", 403),
            ("/x/../admin/x", 403),
            ("/x/%2e%2e/admin/x", 403),
            ("/./admin", 403),
            ("/admin;v=1", 200),
            ("//admin", 200),
            ("/Admin", 200),
            ("/x/..%2fadmin", 200),
            ("/x/..;/admin", 200),
            ("/x/..%5cadmin", 200),
        ] {
            let answer = scene.proxy.get("shop.example", target).await;
            assert_eq!(status(&answer), expected, "{target}: {answer}");
        }
        assert_eq!(
            guarded_app.accepted.get(),
            0,
            "whatever was served was served by the other app"
        );
    });
}

#[test]
fn a_crowd_of_clients_is_served_while_passwords_are_compared() {
    run(async {
        let (app, open) = (App::named("shop").await, App::named("open").await);
        let routes = [guarded("shop", &app, &[]), route("open", "open.example", &[open.addr])];
        // Dear enough that some comparisons are still under way when the others are served.
        let dear = BOB.replace("$04$", "$06$");
        let scene = Scene::new(&[("users", &dear)], &routes).await;
        let guesses = (0..20).map(|guess| {
            let scene = &scene;
            async move { status(&scene.ask("shop.example", Some(("bob", &guess.to_string()))).await) }
        });
        let guessing = futures_util::future::join_all(guesses);
        let serving = async {
            for _ in 0..20 {
                assert!(scene.ask("open.example", None).await.ends_with("open"));
            }
        };
        let (answers, ()) = futures_util::future::join(guessing, serving).await;
        assert!(answers.iter().all(|answer| *answer == 401), "{answers:?}");
    });
}
