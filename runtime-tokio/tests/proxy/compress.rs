//! `compress`: what clients get, decoded by the codings' own crates, and what is left alone.

use std::io::Read as _;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::harness::*;

/// Long enough, and not so uniform that a window would not matter.
fn page() -> String {
    (0..20_000)
        .map(|line| format!("line {line} of {}\n", line * 7919 % 1013))
        .collect()
}

fn decoded(coding: &str, bytes: &[u8]) -> String {
    let mut text = String::new();
    let read = match coding {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_string(&mut text),
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_string(&mut text),
        "zstd" => zstd::stream::read::Decoder::new(bytes)
            .expect("a decoder")
            .read_to_string(&mut text),
        other => panic!("{other} is no coding"),
    };
    read.expect("whole and right");
    text
}

/// Answers with the page, and with header fields as the path says them: `/name=value&name=value`.
async fn answer(request: Request<Incoming>) -> Response<Body> {
    let mut response = Response::builder();
    let path = request.uri().path()[1..].replace("%20", " ");
    let mut text = page();
    for pair in path.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').expect("name=value") {
            ("status", status) => response = response.status(status),
            ("short", _) => text = "short".to_owned(),
            (name, value) => response = response.header(name, value),
        }
    }
    let has_type = response
        .headers_ref()
        .is_some_and(|headers| headers.contains_key("content-type"));
    if !has_type {
        response = response.header("content-type", "text/html; charset=utf-8");
    }
    let is_head = request.method() == Method::HEAD;
    let length = text.len();
    let response = response.header("content-length", length);
    let body = if is_head { full("") } else { full(text) };
    response.body(body).expect("a response")
}

async fn proxy(value: &str, app: &App) -> Proxy {
    let labels = [("tidegate.hosts", "shop.example"), ("tidegate.compress", value)];
    Proxy::start(snapshot([labelled("shop", &labels, &[app.addr])])).await
}

/// The response over HTTP/1.1, and its body without the frames of it.
async fn get(proxy: &Proxy, method: &str, path: &str, fields: &[(&str, &str)]) -> (http::response::Parts, Bytes) {
    let stream = proxy.connect().await;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("a handshake");
    tokio::task::spawn_local(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "shop.example");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(full("")).expect("a request");
    let (head, body) = sender.send_request(request).await.expect("an answer").into_parts();
    (head, body.collect().await.expect("a whole body").to_bytes())
}

#[test]
fn label_compress_codes_what_clients_take() {
    run(async {
        let app = App::start(answer).await;
        let all = proxy("true", &app).await;
        for (accepted, coding) in [
            ("gzip, deflate, br, zstd", "zstd"),
            ("gzip;q=1, br;q=0.9", "gzip"),
            ("br", "br"),
            ("zstd;q=0.1", "zstd"),
        ] {
            let (head, body) = get(
                &all,
                "GET",
                "/etag=%22x%22&accept-ranges=bytes",
                &[("accept-encoding", accepted)],
            )
            .await;
            assert_eq!(head.headers["content-encoding"], coding, "{accepted}");
            assert_eq!(head.headers["vary"], "accept-encoding");
            assert!(!head.headers.contains_key("content-length") && !head.headers.contains_key("accept-ranges"));
            assert!(body.len() * 2 < page().len(), "{} bytes with {coding}", body.len());
            assert_eq!(decoded(coding, &body), page());
        }
        let (head, body) = get(&all, "GET", "/", &[("accept-encoding", "identity, gzip;q=0")]).await;
        assert!(!head.headers.contains_key("content-encoding"));
        assert_eq!(
            (&head.headers["vary"], body.len()),
            (&"accept-encoding".parse().expect("a value"), page().len())
        );
        let some = proxy("gzip, br", &app).await;
        let (head, _) = get(&some, "GET", "/", &[("accept-encoding", "zstd, br, gzip")]).await;
        assert_eq!(head.headers["content-encoding"], "gzip", "the order of the label");
        let off = proxy("false", &app).await;
        let (head, _) = get(&off, "GET", "/", &[("accept-encoding", "gzip")]).await;
        assert!(!head.headers.contains_key("content-encoding") && !head.headers.contains_key("vary"));
    });
}

#[test]
fn a_validator_becomes_weak_and_vary_is_said_once() {
    run(async {
        let app = App::start(|_| async {
            Response::builder()
                .header("content-type", "application/json")
                .header("etag", "\"x\"")
                .header("vary", "Cookie, Accept-Encoding")
                .body(full(page()))
                .expect("a response")
        })
        .await;
        let proxy = proxy("true", &app).await;
        let (head, body) = get(&proxy, "GET", "/", &[("accept-encoding", "br")]).await;
        assert_eq!(head.headers["etag"], "W/\"x\"");
        assert_eq!(head.headers.get_all("vary").iter().count(), 1);
        assert_eq!(decoded("br", &body), page());
    });
}

#[test]
fn what_is_fixed_short_or_no_text_is_left_as_it_is() {
    run(async {
        let app = App::start(answer).await;
        let proxy = proxy("true", &app).await;
        for path in [
            "/content-encoding=gzip",
            "/cache-control=no-transform",
            "/status=206&content-range=bytes%200-9/10",
            "/content-type=image/png",
            "/content-type=application/grpc",
            "/short=1",
        ] {
            let (head, body) = get(&proxy, "GET", path, &[("accept-encoding", "gzip, br, zstd")]).await;
            let coded = head
                .headers
                .get("content-encoding")
                .is_some_and(|coding| coding != "gzip");
            assert!(!coded && !head.headers.contains_key("vary"), "{path}: {head:?}");
            assert_eq!(
                body.len().to_string(),
                head.headers["content-length"].to_str().expect("text"),
                "{path}"
            );
        }
        let (head, _) = get(&proxy, "HEAD", "/", &[("accept-encoding", "gzip")]).await;
        assert!(!head.headers.contains_key("content-encoding") && head.headers.contains_key("content-length"));
    });
}

#[test]
fn each_event_of_a_stream_arrives_when_it_is_sent() {
    run(async {
        for coding in ["gzip", "br", "zstd"] {
            let (events, receiver) = mpsc::unbounded_channel::<&'static str>();
            let receiver = std::rc::Rc::new(std::cell::RefCell::new(Some(receiver)));
            let app = App::start(move |_| {
                let receiver = receiver.borrow_mut().take();
                async move {
                    let mut receiver = receiver.expect("one request");
                    let frames = futures_util::stream::poll_fn(move |cx| {
                        receiver.poll_recv(cx).map(|event| {
                            event.map(|text| Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(text))))
                        })
                    });
                    Response::builder()
                        .header("content-type", "text/event-stream")
                        .body(StreamBody::new(frames).boxed_unsync())
                        .expect("a response")
                }
            })
            .await;
            let proxy = proxy("true", &app).await;
            let mut stream = proxy.connect().await;
            let head = format!("GET / HTTP/1.0\r\nHost: shop.example\r\nAccept-Encoding: {coding}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.expect("the proxy reads");
            events.send("data: 1\n\n").expect("the app waits");
            let head = read_head(&mut stream).await;
            assert!(head.contains(&format!("content-encoding: {coding}\r\n")), "{head}");
            // HTTP/1.0 has no frames: what arrives is what the coding gives.
            let mut seen = Vec::new();
            for (count, event) in [(1, ""), (2, "data: 2\n\n"), (3, "data: 3\n\n")] {
                if !event.is_empty() {
                    events.send(event).expect("the app waits");
                }
                let whole: String = (1..=count).map(|number| format!("data: {number}\n\n")).collect();
                while so_far(coding, &seen) != whole {
                    seen.extend(read_exact(&mut stream, 1).await);
                }
            }
            drop(events);
            let mut rest = Vec::new();
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
            seen.extend(rest);
            assert_eq!(decoded(coding, &seen), "data: 1\n\ndata: 2\n\ndata: 3\n\n");
        }
    });
}

/// What can be read of a stream that has not ended.
fn so_far(coding: &str, bytes: &[u8]) -> String {
    let mut text = Vec::new();
    let mut read: Box<dyn std::io::Read + '_> = match coding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(bytes)),
        "br" => Box::new(brotli::Decompressor::new(bytes, 4096)),
        _ => Box::new(zstd::stream::read::Decoder::new(bytes).expect("a decoder")),
    };
    let mut buffer = [0; 64];
    while let Ok(count @ 1..) = read.read(&mut buffer) {
        text.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(text).expect("text")
}
