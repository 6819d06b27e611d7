//! Bodies pass through without being stored; the slower side sets the pace.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::spawn_local;

use crate::harness::*;

const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 1024;
const ALL: usize = CHUNK * CHUNKS;
/// What may be under way: kernel buffers of four sockets and hyper's own, generously, yet far below the 64 MB to be sent.
const UNDER_WAY_MAX: usize = 32 * 1024 * 1024;

/// Waits until a count stands still although everybody had many turns; returns it.
async fn standstill(count: &AtomicUsize) -> usize {
    let mut last = (usize::MAX, 0);
    until("it stands still", async || {
        last = match last {
            (seen, turns) if seen == count.load(Relaxed) => (seen, turns + 1),
            _ => (count.load(Relaxed), 0),
        };
        last.1 > 3000 && last.0 > 0
    })
    .await;
    last.0
}

#[test]
fn a_client_that_does_not_read_stops_the_app_from_sending() {
    run(async {
        let pulled = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&pulled);
        let app = App::start(move |_| {
            let count = Arc::clone(&count);
            async move {
                let chunk = Bytes::from(vec![b'x'; CHUNK]);
                let mut sent = 0;
                let frames = futures_util::stream::poll_fn(move |_| {
                    if sent == CHUNKS {
                        return std::task::Poll::Ready(None);
                    }
                    sent += 1;
                    count.fetch_add(CHUNK, Relaxed);
                    std::task::Poll::Ready(Some(Ok::<_, Infallible>(Frame::data(chunk.clone()))))
                });
                http::Response::new(StreamBody::new(frames).boxed_unsync())
            }
        })
        .await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let mut stream = proxy.connect().await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")
            .await
            .expect("the proxy reads");
        let under_way = standstill(&pulled).await;
        assert!(under_way < UNDER_WAY_MAX, "{under_way} bytes are under way");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("the rest");
        assert_eq!(pulled.load(Relaxed), ALL);
        assert!(answer.len() > ALL, "all of it arrives");
    });
}

#[test]
fn an_app_that_does_not_read_stops_the_client_from_sending() {
    run(async {
        let gate = Arc::new(tokio::sync::Notify::new());
        let opened = Arc::clone(&gate);
        let app = App::start(move |request| {
            let gate = Arc::clone(&opened);
            async move {
                gate.notified().await;
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                http::Response::new(full(body.len().to_string()))
            }
        })
        .await;
        let mut snapshot = snapshot([route("shop", "shop.example", &[app.addr])]);
        snapshot.settings.body_bytes_max = 0;
        let proxy = Proxy::start(snapshot).await;
        let written = Arc::new(AtomicUsize::new(0));
        let (mut read, mut write) = proxy.connect().await.into_split();
        let count = Arc::clone(&written);
        let sending = spawn_local(async move {
            let head =
                format!("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {ALL}\r\nConnection: close\r\n\r\n");
            write.write_all(head.as_bytes()).await.expect("the proxy reads");
            let chunk = vec![b'x'; CHUNK];
            for _ in 0..CHUNKS {
                write.write_all(&chunk).await.expect("the proxy reads");
                count.fetch_add(CHUNK, Relaxed);
            }
            write
        });
        let under_way = standstill(&written).await;
        assert!(under_way < UNDER_WAY_MAX, "{under_way} bytes are under way");
        gate.notify_one();
        let mut answer = String::new();
        read.read_to_string(&mut answer).await.expect("an answer");
        assert!(status(&answer) == 200 && answer.ends_with(&ALL.to_string()), "{answer}");
        drop(sending.await.expect("all of it was sent"));
    });
}

#[test]
fn a_response_reaches_the_client_piece_by_piece() {
    run(async {
        let gate = Arc::new(tokio::sync::Notify::new());
        let opened = Arc::clone(&gate);
        let app = App::scripted(move |mut stream| {
            let gate = Arc::clone(&opened);
            async move {
                read_head(&mut stream).await;
                let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
                stream.write_all(head).await.expect("the proxy reads");
                gate.notified().await;
                stream
                    .write_all(b"6\r\nsecond\r\n0\r\n\r\n")
                    .await
                    .expect("the proxy reads");
            }
        })
        .await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let mut stream = proxy.connect().await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
            .await
            .expect("the proxy reads");
        read_head(&mut stream).await;
        assert_eq!(read_exact(&mut stream, 10).await, b"5\r\nfirst\r\n");
        gate.notify_one();
        assert_eq!(read_exact(&mut stream, 16).await, b"6\r\nsecond\r\n0\r\n\r\n");
    });
}

#[test]
fn a_request_reaches_the_app_piece_by_piece() {
    run(async {
        let app = App::scripted(|mut stream| async move {
            read_head(&mut stream).await;
            assert_eq!(read_exact(&mut stream, 10).await, b"5\r\nfirst\r\n");
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await
                .expect("the proxy reads");
            read_exact(&mut stream, 16).await;
        })
        .await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let mut stream = proxy.connect().await;
        stream
            .write_all(b"POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            .await
            .expect("the proxy reads");
        assert_eq!(
            status(&read_head(&mut stream).await),
            200,
            "the answer comes before the request has ended"
        );
    });
}

#[test]
fn a_response_that_breaks_off_is_not_made_to_look_whole() {
    run(async {
        let app = App::scripted(|mut stream| async move {
            read_head(&mut stream).await;
            let part = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
            stream.write_all(part).await.expect("the proxy reads");
        })
        .await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let answer = proxy.get("shop.example", "/").await;
        assert!(answer.contains("first") && !answer.contains("0\r\n\r\n"), "{answer}");
        assert_eq!(
            proxy.link.metrics().await.expect("metrics").faults["response_broken"],
            1
        );
    });
}

#[test]
fn an_expectation_is_answered_by_the_app() {
    run(async {
        let app = App::scripted(|mut stream| async move {
            let head = read_head(&mut stream).await;
            assert!(head.contains("expect: 100-continue"), "{head}");
            stream
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await
                .expect("the proxy reads");
            assert_eq!(read_exact(&mut stream, 5).await, b"hello");
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await
                .expect("the proxy reads");
        })
        .await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let mut stream = proxy.connect().await;
        stream
            .write_all(b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
            .await
            .expect("the proxy reads");
        assert_eq!(status(&read_head(&mut stream).await), 100);
        stream.write_all(b"hello").await.expect("the proxy reads");
        assert_eq!(status(&read_head(&mut stream).await), 200);
    });
}

#[test]
fn a_body_that_the_app_does_not_want_is_never_asked_for() {
    run(async {
        let app = App::scripted(|mut stream| async move {
            read_head(&mut stream).await;
            let refusal = b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(refusal).await.expect("the proxy reads");
        })
        .await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let mut stream = proxy.connect().await;
        stream
            .write_all(b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
            .await
            .expect("the proxy reads");
        assert_eq!(status(&read_head(&mut stream).await), 417);
    });
}

#[test]
fn trailers_pass_in_both_directions() {
    run(async {
        let app = App::scripted(|mut stream| async move {
            let head = read_head(&mut stream).await;
            assert!(head.contains("trailer: x-sum") && head.contains("te: trailers"), "{head}");
            let body = read_exact(&mut stream, b"5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n".len()).await;
            assert_eq!(text(&body), "5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n");
            let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 2\r\n\r\n";
            stream.write_all(answer).await.expect("the proxy reads");
            read_head(&mut stream).await;
        })
        .await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let answer = proxy
            .raw(
                b"POST / HTTP/1.1\r\nHost: shop.example\r\nConnection: te, close\r\nTE: trailers\r\nTrailer: x-sum\r\n\
                  Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n",
            )
            .await;
        assert!(answer.ends_with("2\r\nok\r\n0\r\nx-sum: 2\r\n\r\n"), "{answer}");
    });
}
