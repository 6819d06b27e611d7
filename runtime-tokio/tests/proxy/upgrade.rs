//! Connections that switch protocols, on every route.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::*;

const SWITCH: &[u8] = b"GET /chat HTTP/1.1\r\nHost: shop.example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";

/// Switches and then says everything back.
async fn echo() -> App {
    App::scripted(|mut stream| async move {
        let head = read_head(&mut stream).await.to_lowercase();
        assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: y\r\n\r\n")
            .await
            .expect("the proxy reads");
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await; // it may hang up
    })
    .await
}

async fn switched(proxy: &Proxy) -> tokio::net::TcpStream {
    let mut stream = proxy.connect().await;
    stream.write_all(SWITCH).await.expect("the proxy reads");
    let head = read_head(&mut stream).await;
    assert_eq!(status(&head), 101, "{head}");
    let head = head.to_lowercase();
    assert!(
        head.contains("upgrade: websocket")
            && head.contains("connection: upgrade")
            && head.contains("sec-websocket-accept: y")
    );
    stream
}

async fn says_back(stream: &mut tokio::net::TcpStream, words: &[u8]) {
    stream.write_all(words).await.expect("the proxy reads");
    assert_eq!(read_exact(stream, words.len()).await, words);
}

#[test]
fn bytes_go_both_ways_and_count_towards_the_endpoint() {
    run(async {
        let app = echo().await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let mut stream = switched(&proxy).await;
        says_back(&mut stream, b"hello").await;
        assert_eq!(proxy.pool("shop").await.endpoints[0].in_flight, 1);
        assert_eq!(proxy.link.metrics().await.expect("metrics").upgrades_open, 1);
        stream.shutdown().await.expect("a half close");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("the end");
        until("it no longer counts", async || {
            proxy.pool("shop").await.endpoints[0].in_flight == 0
        })
        .await;
        assert_eq!(proxy.link.metrics().await.expect("metrics").upgrades_open, 0);
    });
}

#[test]
fn a_new_table_closes_no_upgraded_connection_even_when_its_route_goes() {
    run(async {
        let app = echo().await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let mut stream = switched(&proxy).await;
        says_back(&mut stream, b"before").await;
        proxy.publish(&snapshot([]));
        until("the route is gone", async || {
            proxy.link.pools().await.expect("pools").is_empty()
        })
        .await;
        says_back(&mut stream, b"after").await;
    });
}

#[test]
fn an_upgrade_that_the_app_refuses_is_an_ordinary_response() {
    run(async {
        let app = App::named("no").await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let mut stream = proxy.connect().await;
        for _ in 0..2 {
            stream.write_all(SWITCH).await.expect("the proxy reads");
            assert_eq!(status(&read_head(&mut stream).await), 200);
            assert_eq!(read_exact(&mut stream, 2).await, b"no");
        }
    });
}

#[test]
fn silence_in_both_directions_ends_an_upgraded_connection() {
    run(async {
        let app = echo().await;
        let mut snapshot = snapshot([route("shop", "shop.example", &[app.addr])]);
        snapshot.settings.idle_timeout_ms = 30;
        let proxy = Proxy::start(snapshot).await;
        let mut stream = switched(&proxy).await;
        assert_eq!(read_head(&mut stream).await, "");
    });
}

#[test]
fn a_drain_waits_for_upgraded_connections_until_its_time_is_over() {
    run(async {
        let app = echo().await;
        let mut snapshot = snapshot([route("shop", "shop.example", &[app.addr])]);
        snapshot.settings.drain_ms = 100;
        let proxy = Proxy::start(snapshot).await;
        let mut stream = switched(&proxy).await;
        proxy.drain.cancel();
        says_back(&mut stream, b"still here").await;
        assert_eq!(read_head(&mut stream).await, "");
        proxy.done.await.expect("no panic").expect("no error");
    });
}

#[test]
fn a_switch_that_nobody_asked_for_is_no_answer() {
    run(async {
        let app = App::scripted(|mut stream| async move {
            read_head(&mut stream).await;
            let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nGET";
            stream.write_all(switch).await.expect("the proxy reads");
        })
        .await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        for _ in 0..2 {
            let answer = proxy.get("shop.example", "/").await;
            assert_eq!(status(&answer), 502, "{answer}");
        }
        assert_eq!(proxy.pool("shop").await.idle_connections, 0);
        assert_eq!(proxy.pool("shop").await.endpoints[0].in_flight, 0);
    });
}

#[test]
fn row_10_the_origin_of_a_websocket_reaches_the_app_unchanged() {
    run(async {
        let app = App::scripted(|mut stream| async move {
            let head = read_head(&mut stream).await;
            let origins: Vec<&str> = head
                .lines()
                .filter(|line| line.to_lowercase().starts_with("origin:"))
                .collect();
            let said = origins.join("|");
            let answer =
                format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n{said}");
            stream.write_all(answer.as_bytes()).await.expect("the proxy reads");
            let _ = read_head(&mut stream).await; // it stays until the client is gone
        })
        .await;
        let labels = [
            ("tidegate.hosts", "shop.example"),
            ("tidegate.port", "80"),
            ("tidegate.websocket_endpoints", "/chat"),
        ];
        for route in [
            route("shop", "shop.example", &[app.addr]),
            labelled("shop", &labels, &[app.addr]),
        ] {
            let proxy = Proxy::start(snapshot([route])).await;
            let mut stream = proxy.connect().await;
            let origin = "Origin: https://Pages.Elsewhere.example:8443";
            let head = text(SWITCH).replace("Upgrade: websocket", &format!("{origin}\r\nUpgrade: websocket"));
            stream.write_all(head.as_bytes()).await.expect("the proxy reads");
            assert_eq!(status(&read_head(&mut stream).await), 101);
            let expected = origin.len();
            let said = text(&read_exact(&mut stream, expected).await);
            assert_eq!(
                said.split_once(": ").expect("a field").1,
                origin.split_once(": ").expect("a field").1
            );
        }
    });
}
