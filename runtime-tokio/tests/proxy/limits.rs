//! Every limit is hit once.

use tokio::io::AsyncWriteExt as _;

use crate::harness::*;

async fn with(change: impl FnOnce(&mut tidegate_core::settings::proxy::ProxySettings)) -> (Proxy, App) {
    let app = App::start(|request| async move {
        use http_body_util::BodyExt as _;
        let _ = request.into_body().collect().await; // it may break off
        http::Response::new(full("ok"))
    })
    .await;
    let mut snapshot = snapshot([route("shop", "shop.example", &[app.addr])]);
    change(&mut snapshot.settings);
    (Proxy::start(snapshot).await, app)
}

#[test]
fn a_head_beyond_its_bytes_is_answered_431() {
    run(async {
        let (proxy, app) = with(|settings| settings.header_bytes_max = 8192).await;
        let long = "x".repeat(9000);
        let answer = proxy
            .raw(format!("GET / HTTP/1.1\r\nHost: shop.example\r\nX-Long: {long}\r\n\r\n").as_bytes())
            .await;
        assert_eq!(status(&answer), 431, "{answer}");
        assert!(app.seen.borrow().is_empty());
        let metrics = proxy.link.metrics().await.expect("the worker lives");
        assert_eq!(metrics.refused_heads, 1);
    });
}

#[test]
fn a_head_with_too_many_fields_is_answered_431() {
    run(async {
        let (proxy, _app) = with(|settings| settings.headers_max = 10).await;
        let many = "X-A: 1\r\n".repeat(11);
        let answer = proxy
            .raw(format!("GET / HTTP/1.1\r\nHost: shop.example\r\n{many}\r\n").as_bytes())
            .await;
        assert_eq!(status(&answer), 431, "{answer}");
    });
}

#[test]
fn a_body_that_says_it_is_too_large_never_reaches_the_app() {
    run(async {
        let (proxy, app) = with(|settings| settings.body_bytes_max = 10).await;
        let answer = proxy
            .raw(b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 11\r\n\r\n")
            .await;
        assert_eq!(status(&answer), 413, "{answer}");
        assert!(
            answer.contains("10 bytes") && answer.contains("connection: close"),
            "{answer}"
        );
        assert!(app.seen.borrow().is_empty());
        let answer = proxy
            .raw(b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 10\r\nConnection: close\r\n\r\n0123456789")
            .await;
        assert_eq!(status(&answer), 200, "{answer}");
    });
}

#[test]
fn a_body_that_grows_too_large_is_answered_413() {
    run(async {
        let (proxy, _app) = with(|settings| settings.body_bytes_max = 10).await;
        let answer = proxy
            .raw(b"POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n")
            .await;
        assert_eq!(status(&answer), 413, "{answer}");
    });
}

#[test]
fn a_body_limit_of_zero_is_none() {
    run(async {
        let (proxy, _app) = with(|settings| settings.body_bytes_max = 0).await;
        let body = "x".repeat(100_000);
        let head = format!(
            "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        assert_eq!(status(&proxy.raw((head + &body).as_bytes()).await), 200);
    });
}

#[test]
fn option_client_body_timeout_ends_a_connection_whose_body_stops_coming() {
    run(async {
        let (proxy, _app) = with(|settings| settings.body_timeout_ms = 30).await;
        let mut stream = proxy.connect().await;
        let head = b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 10\r\n\r\nabc";
        stream.write_all(head).await.expect("the proxy reads");
        assert_eq!(read_head(&mut stream).await, "");
        assert_eq!(proxy.link.metrics().await.expect("metrics").slow_clients, 1);
    });
}

#[test]
fn a_head_that_takes_too_long_ends_its_connection() {
    run(async {
        let (proxy, _app) = with(|settings| settings.header_timeout_ms = 30).await;
        let mut stream = proxy.connect().await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: shop")
            .await
            .expect("the proxy reads");
        assert_eq!(read_head(&mut stream).await, "");
        assert_eq!(proxy.link.metrics().await.expect("metrics").slow_clients, 1);
    });
}

#[test]
fn a_connection_that_idles_between_requests_is_closed() {
    run(async {
        let (proxy, _app) = with(|settings| settings.keepalive_timeout_ms = 30).await;
        let mut stream = proxy.connect().await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
            .await
            .expect("the proxy reads");
        assert_eq!(status(&read_head(&mut stream).await), 200);
        assert_eq!(read_exact(&mut stream, 2).await, b"ok");
        assert_eq!(read_head(&mut stream).await, "");
        assert_eq!(proxy.link.metrics().await.expect("metrics").slow_clients, 0);
    });
}

#[test]
fn a_body_that_stops_coming_ends_its_connection() {
    run(async {
        let (proxy, _app) = with(|settings| settings.idle_timeout_ms = 30).await;
        let answer = proxy
            .raw(b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 10\r\n\r\n01234")
            .await;
        assert!(answer.is_empty() || status(&answer) == 400, "{answer}");
    });
}

#[test]
fn a_response_that_stops_coming_ends_its_connection() {
    run(async {
        let app = App::scripted(|mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")
                .await; // it may hang up
            read_head(&mut stream).await;
        })
        .await;
        let mut snapshot = snapshot([route("shop", "shop.example", &[app.addr])]);
        snapshot.settings.idle_timeout_ms = 30;
        let proxy = Proxy::start(snapshot).await;
        let answer = proxy.get("shop.example", "/").await;
        assert!(answer.ends_with("01234"), "{answer}");
    });
}

#[test]
fn idle_connections_to_apps_are_closed_in_time() {
    run(async {
        let (proxy, _app) = with(|settings| settings.idle_connection_ms = 30).await;
        proxy.get("shop.example", "/").await;
        until("it is closed", async || proxy.pool("shop").await.idle_connections == 0).await;
    });
}

#[test]
fn no_more_idle_connections_are_kept_than_may() {
    run(async {
        let (proxy, app) = with(|settings| settings.idle_connections_max = 0).await;
        for _ in 0..3 {
            assert_eq!(status(&proxy.get("shop.example", "/").await), 200);
        }
        assert_eq!(app.accepted.get(), 3);
    });
}

#[test]
fn connections_beyond_the_limit_wait_for_their_turn() {
    run(async {
        let app = App::named("shop").await;
        let snapshot = snapshot([route("shop", "shop.example", &[app.addr])]);
        let access = tidegate::telemetry::log::AccessLog::off();
        let proxy = Proxy::start_with(snapshot, access, |config| config.connections_max = 1).await;
        let request = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";
        let mut first = proxy.connect().await;
        first.write_all(request).await.expect("the proxy reads");
        assert_eq!(status(&read_head(&mut first).await), 200);
        let mut second = proxy.connect().await;
        second.write_all(request).await.expect("the kernel takes it");
        for _ in 0..100 {
            let metrics = proxy.link.metrics().await.expect("the worker lives");
            assert_eq!((metrics.connections, metrics.connections_open), (1, 1));
        }
        drop(first);
        assert_eq!(status(&read_head(&mut second).await), 200);
    });
}

#[test]
fn a_client_that_speaks_http_2_and_ignores_its_goodbye_is_left() {
    run(async {
        let (proxy, _app) = with(|settings| {
            settings.keepalive_timeout_ms = 20;
            settings.header_timeout_ms = 20;
        })
        .await;
        // Preface and empty SETTINGS; GOAWAY and PING are never answered.
        let answer = proxy.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
        assert!(!answer.is_empty(), "the proxy said its settings and goodbye");
        let metrics = proxy.link.metrics().await.expect("the worker lives");
        assert_eq!(metrics.slow_clients, 1);
    });
}

#[test]
fn option_max_connections_lets_clients_wait_for_each_other() {
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";
    run(async {
        let (proxy, _app) = with(|settings| settings.connections_max = 2).await;
        let mut served = Vec::new();
        for _ in 0..2 {
            let mut stream = proxy.connect().await;
            stream.write_all(GET).await.expect("the proxy reads");
            assert_eq!(status(&read_head(&mut stream).await), 200);
            served.push(stream);
        }
        let mut third = proxy.connect().await; // the system takes it
        third.write_all(GET).await.expect("there is room for it");
        for _ in 0..10 {
            let metrics = proxy.link.metrics().await.expect("metrics");
            assert_eq!((metrics.connections, metrics.connections_open), (2, 2));
        }
        served.clear();
        assert_eq!(status(&read_head(&mut third).await), 200);
        assert_eq!(proxy.link.metrics().await.expect("metrics").connections, 3);
    });
}
