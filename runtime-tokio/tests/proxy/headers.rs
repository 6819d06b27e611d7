//! Hosts, forwarded headers, hop-by-hop headers, information headers, error pages.

use crate::harness::*;

#[test]
fn a_request_is_answered_by_the_service_of_its_host() {
    run(async {
        let (shop, blog) = (App::named("shop").await, App::named("blog").await);
        let routes = [
            route("shop", "shop.example", &[shop.addr]),
            route("blog", "blog.example", &[blog.addr]),
        ];
        let proxy = Proxy::start(snapshot(routes)).await;
        for (host, name) in [("shop.example", "shop"), ("BLOG.example.:80", "blog")] {
            let answer = proxy.get(host, "/").await;
            assert_eq!(status(&answer), 200, "{answer}");
            assert!(answer.ends_with(name), "{answer}");
        }
    });
}

#[test]
fn an_unknown_host_is_answered_503_and_named() {
    run(async {
        let proxy = Proxy::start(snapshot([])).await;
        let answer = proxy.get("nobody.example", "/").await;
        assert_eq!(status(&answer), 503);
        assert!(answer.contains("no service has the host nobody.example"), "{answer}");
    });
}

#[test]
fn an_unknown_path_of_a_known_host_is_answered_404() {
    run(async {
        let mut spec = route("shop", "shop.example", &[nobody().await]);
        spec.path = tidegate_core::route::spec::PathPrefix::from_normalised("/app".into());
        let proxy = Proxy::start(snapshot([spec])).await;
        let answer = proxy.get("shop.example", "/other?q=1").await;
        assert_eq!(status(&answer), 404);
        assert!(
            answer.contains("has the path /other\r\n") || answer.contains("has the path /other."),
            "{answer}"
        );
    });
}

#[test]
fn a_stripped_prefix_does_not_reach_the_app() {
    run(async {
        let app = App::named("shop").await;
        let mut spec = route("shop", "shop.example", &[app.addr]);
        spec.path = tidegate_core::route::spec::PathPrefix::from_normalised("/app".into());
        spec.strip_path = true;
        let proxy = Proxy::start(snapshot([spec])).await;
        proxy.get("shop.example", "/app/x?y=1").await;
        assert_eq!(app.head().uri(), "/x?y=1");
    });
}

#[test]
fn the_app_learns_about_its_client() {
    run(async {
        let app = App::named("shop").await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        proxy
            .raw(b"GET / HTTP/1.1\r\nHost: shop.example:8080\r\nX-Forwarded-For: 1.2.3.4\r\nX-Real-IP: 6.6.6.6\r\nConnection: close\r\n\r\n")
            .await;
        let head = app.head();
        let port = proxy.addr.port().to_string();
        for (name, expected) in [
            ("host", "shop.example:8080"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-host", "shop.example:8080"),
            ("x-forwarded-port", &port),
            ("x-forwarded-proto", "http"),
            ("x-real-ip", "127.0.0.1"),
        ] {
            assert_eq!(head.headers()[name], expected, "{name}");
        }
        let id = head.headers()["x-request-id"].to_str().expect("text");
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    });
}

#[test]
fn option_underscores_in_headers_decides_whether_such_fields_reach_the_app() {
    run(async {
        for wanted in [false, true] {
            let app = App::named("shop").await;
            let mut snapshot = snapshot([route("shop", "shop.example", &[app.addr])]);
            snapshot.settings.underscores_in_headers = wanted;
            let proxy = Proxy::start(snapshot).await;
            proxy
                .raw(b"GET / HTTP/1.1\r\nHost: shop.example\r\nMy_Field: 1\r\nMy-Field: 2\r\nConnection: close\r\n\r\n")
                .await;
            let head = app.head();
            assert_eq!(head.headers().contains_key("my_field"), wanted);
            assert_eq!(head.headers()["my-field"], "2");
        }
    });
}

#[test]
fn a_sane_request_id_is_kept_for_app_and_client_and_an_evil_one_is_not() {
    run(async {
        let app = App::named("shop").await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let answer = proxy
            .raw(b"GET / HTTP/1.1\r\nHost: shop.example\r\nX-Request-Id: abc-1\r\nConnection: close\r\n\r\n")
            .await;
        assert_eq!(app.head().headers()["x-request-id"], "abc-1");
        assert!(answer.contains("x-request-id: abc-1\r\n"), "{answer}");
        app.seen.borrow_mut().clear();
        proxy
            .raw(b"GET / HTTP/1.1\r\nHost: shop.example\r\nX-Request-Id: a b\"c\r\nConnection: close\r\n\r\n")
            .await;
        assert_eq!(app.head().headers()["x-request-id"].len(), 32);
    });
}

#[test]
fn what_concerns_one_connection_ends_at_it() {
    run(async {
        let app = App::start(|_| async {
            http::Response::builder()
                .header("connection", "x-hop")
                .header("x-hop", "1")
                .header("keep-alive", "timeout=5")
                .header("x-end", "1")
                .body(full("ok"))
                .expect("a response")
        })
        .await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let answer = proxy
            .raw(
                b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close, X-Secret, Cookie\r\nX-Secret: 1\r\nKeep-Alive: 5\r\n\
                  Cookie: a=1\r\nProxy-Connection: x\r\nTE: gzip, trailers\r\nX-End: 1\r\n\r\n",
            )
            .await;
        let head = app.head();
        for gone in ["x-secret", "keep-alive", "proxy-connection", "upgrade"] {
            assert!(!head.headers().contains_key(gone), "{gone} in {head:?}");
        }
        assert_eq!(head.headers()["x-end"], "1");
        assert_eq!(head.headers()["cookie"], "a=1");
        assert_eq!(head.headers()["te"], "trailers");
        assert!(
            !answer.contains("x-hop") && !answer.contains("keep-alive") && answer.contains("x-end: 1"),
            "{answer}"
        );
    });
}

#[test]
fn responses_say_who_served_them_unless_that_is_hidden() {
    run(async {
        let app = App::named("shop").await;
        let mut snapshot = snapshot([route("shop", "shop.example", &[app.addr])]);
        let proxy = Proxy::start(snapshot.clone()).await;
        let upstream = format!("x-upstream-addr: {}\r\n", app.addr);
        let info = [
            "x-proxy-id: proxy-1\r\n",
            "x-server-info: tidegate/",
            "x-upstream-response-time: 0.",
            &upstream,
            "date: ",
        ];
        let answer = proxy.get("shop.example", "/").await;
        for line in info {
            assert!(answer.contains(line), "{line:?} is not in {answer}");
        }
        snapshot.settings.hide_info_headers = true;
        proxy.publish(&snapshot);
        until("headers are hidden", async || {
            !proxy.get("shop.example", "/").await.contains("x-proxy-id")
        })
        .await;
        let answer = proxy.get("shop.example", "/").await;
        assert!(
            !answer.contains("x-request-id") && !answer.contains("x-upstream") && answer.contains("date: "),
            "{answer}"
        );
    });
}

#[test]
fn a_default_backend_serves_requests_without_host() {
    run(async {
        let app = App::named("default").await;
        let mut spec = route("any", "any.example", &[app.addr]);
        spec.default_backend = true;
        let proxy = Proxy::start(snapshot([spec])).await;
        let answer = proxy.raw(b"GET / HTTP/1.0\r\n\r\n").await;
        assert_eq!(status(&answer), 200, "{answer}");
        assert!(answer.ends_with("default"), "{answer}");
    });
}

#[test]
fn an_absolute_target_decides_over_the_host_header() {
    run(async {
        let app = App::named("shop").await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let answer = proxy
            .raw(b"GET http://shop.example/x HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n")
            .await;
        assert_eq!(status(&answer), 200, "{answer}");
        let head = app.head();
        assert_eq!(head.headers()["host"], "shop.example");
        assert_eq!(head.uri(), "/x");
    });
}

#[test]
fn a_head_request_gets_a_head_and_no_body() {
    run(async {
        let app = App::named("shop").await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let answer = proxy
            .raw(b"HEAD / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")
            .await;
        assert!(
            answer.ends_with("\r\n\r\n") && answer.contains("content-length: 4"),
            "{answer}"
        );
        let answer = proxy
            .raw(b"HEAD / HTTP/1.1\r\nHost: no.example\r\nConnection: close\r\n\r\n")
            .await;
        assert!(status(&answer) == 503 && answer.ends_with("\r\n\r\n"), "{answer}");
    });
}

#[test]
fn a_response_without_content_keeps_the_connection_usable() {
    run(async {
        let app = App::start(|request| async move {
            let status = request.uri().path()[1..].parse::<u16>().expect("a status");
            http::Response::builder()
                .status(status)
                .body(full(""))
                .expect("a response")
        })
        .await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let answer = proxy
            .raw(
                b"GET /204 HTTP/1.1\r\nHost: shop.example\r\n\r\nGET /304 HTTP/1.1\r\nHost: shop.example\r\n\r\n\
                  GET /200 HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n",
            )
            .await;
        let codes: Vec<_> = answer
            .match_indices("HTTP/1.1 ")
            .map(|(at, _)| &answer[at + 9..at + 12])
            .collect();
        assert_eq!(codes, ["204", "304", "200"], "{answer}");
        assert_eq!(app.accepted.get(), 1);
    });
}

#[test]
fn each_request_leaves_one_access_line() {
    run(async {
        use tidegate::telemetry::log::{AccessFormat, AccessLog, Redaction};
        let app = App::named("shop").await;
        let (access, lines) = AccessLog::to_channel(AccessFormat::Json, Redaction::default());
        let routes = snapshot([route("shop", "shop.example", &[app.addr])]);
        let proxy = Proxy::start_with(routes, access, |_| {}).await;
        proxy.get("shop.example", "/a?b=1").await;
        proxy.get("no.example", "/").await;
        let mut text = String::new();
        until("both lines are written", async || {
            while let Ok(buffer) = lines.try_recv() {
                text += std::str::from_utf8(&buffer).expect("text");
            }
            text.lines().count() == 2
        })
        .await;
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let (served, refused) = (&lines[0], &lines[1]);
        assert_eq!(
            (&served["target"], &served["service"]),
            (&"/a?b=1".into(), &"shop".into())
        );
        assert_eq!((&served["status"], &served["bytes"]), (&200.into(), &4.into()));
        assert_eq!(served["upstream"], app.addr.to_string());
        assert_eq!(
            (&refused["status"], &refused["fault"]),
            (&503.into(), &"unknown_host".into())
        );
    });
}
