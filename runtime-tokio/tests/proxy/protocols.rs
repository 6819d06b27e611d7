//! HTTP/2 with prior knowledge on both sides, and HTTP/1.1 on either.

use bytes::Bytes;
use http::{HeaderMap, Request, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tidegate_core::pool::State;
use tidegate_core::route::spec::UpstreamProtocol;
use tokio::task::spawn_local;

use crate::harness::*;

async fn client(proxy: &Proxy) -> http2::SendRequest<Full<Bytes>> {
    let (sender, connection) = http2::handshake(LocalExec, TokioIo::new(proxy.connect().await))
        .await
        .expect("HTTP/2 with prior knowledge");
    spawn_local(async move {
        let _ = connection.await; // it ends with the test
    });
    sender
}

fn request(uri: &str) -> http::request::Builder {
    Request::builder().uri(uri)
}

fn body(text: &'static str) -> Full<Bytes> {
    Full::new(Bytes::from_static(text.as_bytes()))
}

#[test]
fn an_http_2_client_reaches_an_http_1_1_app() {
    run(async {
        let app = App::named("shop").await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let mut client = client(&proxy).await;
        let request = request("http://shop.example/x?y=1")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(body(""))
            .expect("a request");
        let response = client.send_request(request).await.expect("a response");
        assert_eq!(response.status(), 200);
        assert!(response.headers().contains_key("date"));
        assert_eq!(response.into_body().collect().await.expect("a body").to_bytes(), "shop");
        let head = app.head();
        assert_eq!(
            (head.version(), head.uri().to_string()),
            (Version::HTTP_11, "/x?y=1".to_owned())
        );
        assert_eq!(head.headers()["host"], "shop.example");
        assert_eq!(head.headers()["cookie"], "a=1; b=2");
    });
}

#[test]
fn many_requests_share_one_http_2_connection_to_client_and_app() {
    run(async {
        let app = App::named("shop").await;
        let mut spec = route("shop", "shop.example", &[app.addr]);
        spec.protocol = UpstreamProtocol::H2c;
        let proxy = Proxy::start(snapshot([spec])).await;
        let client = client(&proxy).await;
        client
            .clone()
            .send_request(request("http://shop.example/").body(body("")).expect("a request"))
            .await
            .expect("a response");
        let requests: Vec<_> = (0..50)
            .map(|_| {
                let mut client = client.clone();
                spawn_local(async move {
                    let request = request("http://shop.example/").body(body("")).expect("a request");
                    client.send_request(request).await.expect("a response").status()
                })
            })
            .collect();
        for answer in requests {
            assert_eq!(answer.await.expect("no panic"), 200);
        }
        assert_eq!(app.accepted.get(), 1);
        let seen = app.seen.borrow();
        assert!(seen.iter().all(|head| head.version() == Version::HTTP_2));
        let authority = seen[0].uri().authority().map(http::uri::Authority::as_str);
        assert_eq!(
            (authority, seen[0].headers().contains_key("host")),
            (Some("shop.example"), false)
        );
    });
}

#[test]
fn grpc_is_spoken_over_http_2_with_its_trailers_and_the_rest_is_not() {
    run(async {
        let app = App::start(|request| async move {
            let te = request.headers().get("te").cloned();
            let frames = [
                Ok(Frame::data(Bytes::from_static(b"message"))),
                Ok(Frame::trailers(HeaderMap::from_iter([(
                    http::HeaderName::from_static("grpc-status"),
                    te.unwrap_or(http::HeaderValue::from_static("missing")),
                )]))),
            ];
            http::Response::new(http_body_util::StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync())
        })
        .await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let mut client = client(&proxy).await;
        let grpc = request("http://shop.example/pkg.Service/Call")
            .method("POST")
            .header("content-type", "application/grpc+proto")
            .header("te", "trailers")
            .body(body("call"))
            .expect("a request");
        let response = client.send_request(grpc).await.expect("a response");
        let collected = response.into_body().collect().await.expect("a body");
        assert_eq!(collected.trailers().expect("trailers")["grpc-status"], "trailers");
        let plain = request("http://shop.example/").body(body("")).expect("a request");
        client.send_request(plain).await.expect("a response");
        let versions: Vec<_> = app.seen.borrow().iter().map(Request::version).collect();
        assert_eq!(versions, [Version::HTTP_2, Version::HTTP_11]);
    });
}

#[test]
fn label_backend_protocol_h2c_reaches_an_http_2_app() {
    run(async {
        let app = App::start(|request| async move {
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            http::Response::new(full(body))
        })
        .await;
        let mut spec = route("shop", "shop.example", &[app.addr]);
        spec.protocol = UpstreamProtocol::H2c;
        let proxy = Proxy::start(snapshot([spec])).await;
        let answer = proxy
            .raw(b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
            .await;
        assert!(status(&answer) == 200 && answer.ends_with("hello"), "{answer}");
        assert_eq!(app.head().version(), Version::HTTP_2);
    });
}

#[test]
fn an_http_2_app_that_goes_and_returns_is_connected_to_anew() {
    run(async {
        let address = nobody().await;
        let first = App::listen(address, |_| async { http::Response::new(full("first")) }).await;
        let mut spec = route("shop", "shop.example", &[address]);
        spec.protocol = UpstreamProtocol::H2c;
        let proxy = Proxy::start(snapshot([spec])).await;
        assert!(proxy.get("shop.example", "/").await.ends_with("first"));
        first.task.abort();
        let _ = first.task.await; // its listener is closed now; its connection lives on
        let _second = App::listen(address, |_| async { http::Response::new(full("second")) }).await;
        assert_eq!(status(&proxy.get("shop.example", "/").await), 200);
    });
}

#[test]
fn an_http_2_request_with_two_hosts_is_refused() {
    run(async {
        let app = App::named("shop").await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let mut client = client(&proxy).await;
        let request = request("http://shop.example/")
            .header("host", "other.example")
            .body(body(""))
            .expect("a request");
        let response = client.send_request(request).await.expect("a response");
        assert_eq!(response.status(), 400);
        assert!(app.seen.borrow().is_empty());
    });
}

#[test]
fn a_drain_says_goaway_and_ends_streams_under_way() {
    run(async {
        let gate = std::rc::Rc::new(tokio::sync::Notify::new());
        let opened = std::rc::Rc::clone(&gate);
        let app = App::start(move |_| {
            let gate = std::rc::Rc::clone(&opened);
            async move {
                gate.notified().await;
                http::Response::new(full("done"))
            }
        })
        .await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let mut client = client(&proxy).await;
        let answer =
            spawn_local(client.send_request(request("http://shop.example/").body(body("")).expect("a request")));
        until("it is under way", async || app.seen.borrow().len() == 1).await;
        proxy.drain.cancel();
        gate.notify_one();
        let response = answer.await.expect("no panic").expect("a response");
        assert_eq!(response.into_body().collect().await.expect("a body").to_bytes(), "done");
        until("the connection is closed", async || client.is_closed()).await;
        proxy.done.await.expect("no panic").expect("no error");
    });
}

#[test]
fn an_http_2_app_that_says_goaway_again_and_again_loses_no_request() {
    run(async {
        let app = App::scripted(|stream| async move {
            let goaway = std::rc::Rc::new(tokio::sync::Notify::new());
            let served = std::rc::Rc::new(std::cell::Cell::new(0));
            let enough = std::rc::Rc::clone(&goaway);
            let service = hyper::service::service_fn(move |_| {
                served.set(served.get() + 1);
                if served.get() == 5 {
                    enough.notify_one();
                }
                async { Ok::<_, std::convert::Infallible>(http::Response::new(full("ok"))) }
            });
            let connection =
                hyper::server::conn::http2::Builder::new(LocalExec).serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            tokio::select! { biased;
                _ = connection.as_mut() => return,
                () = goaway.notified() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await; // it may hang up
        })
        .await;
        let mut spec = route("shop", "shop.example", &[app.addr]);
        spec.protocol = UpstreamProtocol::H2c;
        let proxy = std::rc::Rc::new(Proxy::start(snapshot([spec])).await);
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let proxy = std::rc::Rc::clone(&proxy);
                spawn_local(async move {
                    let post =
                        b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    for _ in 0..20 {
                        let answer = proxy.raw(post).await;
                        assert_eq!(status(&answer), 200, "{answer}");
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.expect("no request is lost");
        }
        assert!(app.accepted.get() >= 2);
    });
}

#[test]
fn a_stream_of_an_endpoint_that_leaves_goes_on() {
    run(async {
        let gate = std::rc::Rc::new(tokio::sync::Notify::new());
        let opened = std::rc::Rc::clone(&gate);
        let old = App::start(move |_| {
            let gate = std::rc::Rc::clone(&opened);
            async move {
                gate.notified().await;
                http::Response::new(full("old"))
            }
        })
        .await;
        let new = App::named("new").await;
        let mut spec = route("shop", "shop.example", &[old.addr]);
        spec.protocol = UpstreamProtocol::H2c;
        let proxy = std::rc::Rc::new(Proxy::start(snapshot([spec.clone()])).await);
        let waiting = std::rc::Rc::clone(&proxy);
        let request = spawn_local(async move { waiting.get("shop.example", "/").await });
        until("it is under way", async || old.seen.borrow().len() == 1).await;
        spec.endpoints = vec![leaving(old.addr, 60_000), endpoint(new.addr)];
        proxy.publish(&snapshot([spec.clone()]));
        until("new requests go elsewhere", async || {
            proxy.pool("shop").await.endpoints.len() == 2
        })
        .await;
        assert!(proxy.get("shop.example", "/").await.ends_with("new"));
        spec.endpoints = vec![endpoint(new.addr)];
        proxy.publish(&snapshot([spec]));
        // No table has it any more; it is kept for what is under way there, and takes nothing new.
        until("the old one leaves", async || {
            let endpoints = proxy.pool("shop").await.endpoints;
            let old = endpoints.iter().find(|endpoint| endpoint.addr == old.addr);
            old.is_some_and(|old| (old.state, old.in_flight) == (State::Leaving, 1))
        })
        .await;
        gate.notify_one();
        assert!(request.await.expect("an answer").ends_with("old"));
        until("the old one is forgotten", async || {
            proxy.pool("shop").await.endpoints.len() == 1
        })
        .await;
    });
}
