//! Labels from their text to what a client sees: redirects, header edits, limits, allow lists.

use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::harness::*;

#[test]
fn row_19_a_source_host_is_redirected_with_path_and_query() {
    run(async {
        let app = App::named("shop").await;
        let shop = labelled(
            "shop",
            &[
                ("com.docker.lb.hosts", "new.example, old.example"),
                ("com.docker.lb.redirects", "http://old.example,https://new.example/app;"),
            ],
            &[app.addr],
        );
        let proxy = Proxy::start(snapshot([shop])).await;
        for (target, location) in [
            ("/", "https://new.example/app/"),
            ("/a/b?c=1&d=%2F", "https://new.example/app/a/b?c=1&d=%2F"),
            ("//evil.example/", "https://new.example/app//evil.example/"),
            ("/\\evil.example", "https://new.example/app/%5Cevil.example"),
            ("/../../admin", "https://new.example/app/admin"),
            ("http://old.example?x", "https://new.example/app/?x"),
        ] {
            let answer = proxy.get("old.example", target).await;
            assert_eq!(status(&answer), 302, "{target}: {answer}");
            assert!(
                answer.contains(&format!("location: {location}\r\n")),
                "{target}: {answer}"
            );
            assert!(
                answer.contains("x-request-id: ") && answer.contains("x-proxy-id: ") && !answer.contains("x-upstream"),
                "{answer}"
            );
        }
        assert!(proxy.get("new.example", "/").await.ends_with("shop"));
        assert_eq!(app.accepted.get(), 1, "a redirect asks nobody");
        let metrics = proxy.link.metrics().await.expect("metrics");
        assert_eq!(metrics.faults.values().sum::<u64>(), 0, "a redirect is no fault");
    });
}

#[test]
fn row_20_a_redirect_of_https_leaves_plain_http_alone() {
    run(async {
        let app = App::named("shop").await;
        let shop = labelled(
            "shop",
            &[
                ("tidegate.hosts", "old.example"),
                ("tidegate.redirects", "https://old.example,https://new.example"),
            ],
            &[app.addr],
        );
        let proxy = Proxy::start(snapshot([shop])).await;
        assert_eq!(status(&proxy.get("old.example", "/").await), 200);
    });
}

#[test]
fn headers_are_edited_on_the_way_in_and_out() {
    run(async {
        let app = App::start(|_| async {
            http::Response::builder()
                .header("server", "secret/1.0")
                .header("x-frame-options", "ALLOWALL")
                .header("vary", "accept")
                .body(full("ok"))
                .expect("a response")
        })
        .await;
        let shop = labelled(
            "shop",
            &[
                ("tidegate.hosts", "shop.example"),
                (
                    "tidegate.request_headers",
                    "set X-Tenant blue; add X-Forwarded-For 192.0.2.9; remove X-Debug; set Host evil.example",
                ),
                (
                    "tidegate.response_headers",
                    r#"remove Server; set X-Frame-Options DENY; add Vary origin; set Strict-Transport-Security "max-age=1; includeSubDomains""#,
                ),
            ],
            &[app.addr],
        );
        let proxy = Proxy::start(snapshot([shop])).await;
        let answer = proxy
            .raw(b"GET / HTTP/1.1\r\nHost: shop.example\r\nX-Tenant: red\r\nX-Debug: 1\r\nX-Debug: 2\r\nConnection: close\r\n\r\n")
            .await;
        let head = app.head();
        assert_eq!(head.headers()["x-tenant"], "blue");
        assert_eq!(head.headers()["host"], "shop.example");
        assert!(!head.headers().contains_key("x-debug"));
        let forwarded: Vec<_> = head.headers().get_all("x-forwarded-for").iter().collect();
        assert_eq!(forwarded, ["127.0.0.1", "192.0.2.9"]);
        for line in [
            "x-frame-options: DENY\r\n",
            "vary: accept\r\n",
            "vary: origin\r\n",
            "strict-transport-security: max-age=1; includeSubDomains\r\n",
        ] {
            assert!(answer.contains(line), "{line:?} is not in {answer}");
        }
        assert!(
            !answer.contains("secret/1.0") && !answer.contains("ALLOWALL"),
            "{answer}"
        );
    });
}

#[test]
fn a_request_that_waited_while_its_pool_changed_is_edited_once() {
    run(async {
        let app = App::named("shop").await;
        let labels = [
            ("tidegate.hosts", "shop.example"),
            ("tidegate.request_headers", "add X-Once 1"),
        ];
        let alone = labelled("shop", &labels, &[]);
        let proxy = Proxy::start(snapshot([alone.clone()])).await;
        let mut stream = proxy.connect().await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
            .await
            .expect("the proxy reads");
        until("the request waits", async || proxy.pool("shop").await.parked == 1).await;
        let canary = labelled("canary", &labels, &[app.addr]);
        proxy.publish(&snapshot([alone, canary]));
        assert_eq!(status(&read_head(&mut stream).await), 200);
        let head = app.head();
        assert_eq!(head.headers().get_all("x-once").iter().count(), 1, "{head:?}");
    });
}

#[test]
fn label_allow_ips_serves_only_clients_of_the_list() {
    run(async {
        let app = App::named("shop").await;
        let open = labelled("open", &[("tidegate.hosts", "open.example")], &[app.addr]);
        let inside = [
            ("tidegate.hosts", "inside.example"),
            ("tidegate.allow_ips", "192.0.2.0/24, 127.0.0.0/8"),
        ];
        let outside = [
            ("tidegate.hosts", "outside.example"),
            ("tidegate.allow_ips", "192.0.2.0/24"),
        ];
        // Its twin has no list; the pool is for those alone whom both allow.
        let twin = labelled("a-twin", &[("tidegate.hosts", "outside.example")], &[app.addr]);
        let routes = [
            open,
            labelled("inside", &inside, &[app.addr]),
            twin,
            labelled("outside", &outside, &[app.addr]),
        ];
        let proxy = Proxy::start(snapshot(routes)).await;
        for (host, expected) in [("open.example", 200), ("inside.example", 200), ("outside.example", 403)] {
            let answer = proxy.get(host, "/").await;
            assert_eq!(status(&answer), expected, "{host}: {answer}");
        }
        assert_eq!(proxy.link.metrics().await.expect("metrics").faults["not_allowed"], 1);
        assert_eq!(app.accepted.get(), 2);
    });
}

#[test]
fn a_request_that_waits_must_be_allowed_by_the_pool_that_it_ends_up_with() {
    run(async {
        let app = App::named("shop").await;
        let alone = labelled("shop", &[("tidegate.hosts", "shop.example")], &[]);
        let proxy = Proxy::start(snapshot([alone.clone()])).await;
        let mut stream = proxy.connect().await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
            .await
            .expect("the proxy reads");
        until("the request waits", async || proxy.pool("shop").await.parked == 1).await;
        let guarded = [("tidegate.hosts", "shop.example"), ("tidegate.allow_ips", "192.0.2.1")];
        proxy.publish(&snapshot([alone, labelled("guarded", &guarded, &[app.addr])]));
        assert_eq!(status(&read_head(&mut stream).await), 403);
        assert_eq!(app.accepted.get(), 0);
    });
}

#[test]
fn label_body_limit_goes_beyond_the_clusters_or_below() {
    run(async {
        let app = App::start(|request| async move {
            let body = http_body_util::BodyExt::collect(request.into_body()).await;
            http::Response::new(full(body.map_or(0, |body| body.to_bytes().len()).to_string()))
        })
        .await;
        let limited = |name: &str, host: &str, limit: &str| {
            labelled(
                name,
                &[("tidegate.hosts", host), ("tidegate.body_limit", limit)],
                &[app.addr],
            )
        };
        let mut snapshot = snapshot([
            limited("small", "small.example", "1k"),
            limited("large", "large.example", "8k"),
            limited("any", "any.example", "0"),
            labelled("usual", &[("tidegate.hosts", "usual.example")], &[app.addr]),
        ]);
        snapshot.settings.body_bytes_max = 4096;
        let proxy = Proxy::start(snapshot).await;
        for (host, bytes, expected) in [
            ("small.example", 1024, 200),
            ("small.example", 1025, 413),
            ("large.example", 8192, 200),
            ("large.example", 8193, 413),
            ("any.example", 100_000, 200),
            ("usual.example", 4096, 200),
            ("usual.example", 4097, 413),
        ] {
            let head =
                format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n");
            let answer = proxy.raw((head + &"x".repeat(bytes)).as_bytes()).await;
            assert_eq!(status(&answer), expected, "{host} {bytes}: {answer}");
        }
    });
}

#[test]
fn label_first_byte_timeout_beats_the_clusters() {
    run(async {
        let silent = App::scripted(|mut stream| async move {
            read_head(&mut stream).await;
            read_head(&mut stream).await;
        })
        .await;
        let labels = [
            ("tidegate.hosts", "shop.example"),
            ("tidegate.first_byte_timeout", "30ms"),
        ];
        let proxy = Proxy::start(snapshot([labelled("shop", &labels, &[silent.addr])])).await;
        assert_eq!(status(&proxy.get("shop.example", "/").await), 504);
    });
}

#[test]
fn label_idle_timeout_beats_the_clusters_whichever_is_longer() {
    run(async {
        // Sends the head and one byte of two.
        let app = App::scripted(|mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na").await; // it may hang up
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        })
        .await;
        let labels = |timeout| [("tidegate.hosts", "shop.example"), ("tidegate.idle_timeout", timeout)];
        let mut short = snapshot([labelled("shop", &labels("30ms"), &[app.addr])]);
        short.settings.idle_timeout_ms = 600_000;
        let proxy = Proxy::start(short).await;
        let answer = proxy.get("shop.example", "/").await;
        assert!(answer.ends_with("\r\n\r\na"), "{answer}");
        assert_eq!(proxy.link.metrics().await.expect("metrics").faults["response_idle"], 1);

        // The app of the long route sends its last byte when it is told to.
        let told = Rc::new(Notify::new());
        let tell = Rc::clone(&told);
        let waits = App::scripted(move |mut stream| {
            let told = Rc::clone(&told);
            async move {
                read_head(&mut stream).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na").await; // it may hang up
                told.notified().await;
                let _ = stream.write_all(b"b").await;
            }
        })
        .await;
        let mut long = snapshot([
            labelled("shop", &labels("1h"), &[waits.addr]),
            labelled("usual", &[("tidegate.hosts", "usual.example")], &[app.addr]),
        ]);
        long.settings.idle_timeout_ms = 20;
        let proxy = Proxy::start(long).await;
        let mut stream = proxy.connect().await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
            .await
            .expect("the proxy reads");
        assert_eq!(status(&read_head(&mut stream).await), 200);
        assert_eq!(read_exact(&mut stream, 1).await, b"a");
        // Whatever is bound to the cluster's limit is cut off, several times over.
        for _ in 0..5 {
            assert!(proxy.get("usual.example", "/").await.ends_with("\r\n\r\na"));
        }
        tell.notify_one();
        assert_eq!(read_exact(&mut stream, 1).await, b"b");
    });
}
