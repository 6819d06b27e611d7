//! What could be read in two ways is refused, and its connection closed. Rows marked `hyper` are refused by hyper itself
//! before the proxy sees a request; the others by `core::request`. Both are promises.

use tokio::io::AsyncWriteExt as _;

use crate::harness::*;

/// Whoever gets through is answered 200, so that a refusal cannot come from the app.
async fn proxy() -> (Proxy, App) {
    let app = App::named("reached").await;
    let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
    (proxy, app)
}

async fn is_refused(head: &str, body: &str, expected: u16) {
    let (proxy, app) = proxy().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: shop.example\r\n\r\n";
    let message = format!("{}\r\n\r\n{body}{smuggled}", head.replace('\n', "\r\n"));
    let answer = proxy.raw(message.as_bytes()).await;
    assert_eq!(status(&answer), expected, "{head:?} was answered {answer}");
    assert_eq!(
        answer.matches("\ndate: ").count() + usize::from(!answer.contains("date: ")),
        1,
        "one answer, then the end: {answer}"
    );
    assert_eq!(
        app.seen.borrow().len(),
        0,
        "{head:?} reached the app: {:?}",
        app.seen.borrow()
    );
}

macro_rules! refused {
    ($($name:ident: $expected:literal $head:literal $body:literal;)*) => {$(
        #[test]
        fn $name() {
            run(is_refused($head, $body, $expected));
        }
    )*};
}

refused! {
    a_length_before_a_coding: 400 "POST / HTTP/1.1\nHost: shop.example\nContent-Length: 5\nTransfer-Encoding: chunked" "0\r\n\r\n";
    a_coding_before_a_length: 400 "POST / HTTP/1.1\nHost: shop.example\nTransfer-Encoding: chunked\nContent-Length: 5" "0\r\n\r\n";
    a_coding_that_would_be_lost: 501 "POST / HTTP/1.1\nHost: shop.example\nTransfer-Encoding: gzip, chunked" "0\r\n\r\n";
    chunked_twice: 400 "POST / HTTP/1.1\nHost: shop.example\nTransfer-Encoding: chunked, chunked" "0\r\n\r\n";
    no_host: 400 "GET / HTTP/1.1\nAccept: */*" "";
    two_hosts: 400 "GET / HTTP/1.1\nHost: shop.example\nHost: other.example" "";
    the_same_host_twice: 400 "GET / HTTP/1.1\nHost: shop.example\nHost: shop.example" "";
    a_host_with_a_path: 400 "GET / HTTP/1.1\nHost: shop.example/x" "";
    a_host_with_user_information: 400 "GET / HTTP/1.1\nHost: me@shop.example" "";
    a_host_with_a_space: 400 "GET / HTTP/1.1\nHost: shop.example other" "";
    connect: 405 "CONNECT shop.example:80 HTTP/1.1\nHost: shop.example:80" "";
    hyper_two_different_lengths: 400 "POST / HTTP/1.1\nHost: shop.example\nContent-Length: 5\nContent-Length: 6" "hello";
    hyper_a_list_of_lengths: 400 "POST / HTTP/1.1\nHost: shop.example\nContent-Length: 5, 5" "hello";
    hyper_a_signed_length: 400 "POST / HTTP/1.1\nHost: shop.example\nContent-Length: +5" "hello";
    hyper_a_coding_in_http_1_0: 400 "POST / HTTP/1.0\nHost: shop.example\nTransfer-Encoding: chunked" "0\r\n\r\n";
    hyper_a_coding_other_than_chunked_last: 400 "POST / HTTP/1.1\nHost: shop.example\nTransfer-Encoding: chunked, gzip" "0\r\n\r\n";
    hyper_a_folded_line: 400 "GET / HTTP/1.1\nHost: shop.example\nX-A: 1\n folded" "";
    hyper_a_space_before_the_colon: 400 "POST / HTTP/1.1\nHost: shop.example\nTransfer-Encoding : chunked" "0\r\n\r\n";
    hyper_a_nul_in_a_value: 400 "GET / HTTP/1.1\nHost: shop.example\nX-A: \0" "";
    hyper_no_http: 400 "hello" "";
}

#[test]
fn both_fields_are_found_when_the_head_comes_in_pieces() {
    run(async {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (proxy, app) = proxy().await;
        let mut stream = proxy.connect().await;
        for piece in [
            "POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Enc",
            "oding: chunked\r\nConte",
            "nt-Length: 3\r\n\r\n0\r\n\r\n",
        ] {
            stream.write_all(piece.as_bytes()).await.expect("the proxy reads");
            // Only so that the pieces arrive as pieces; the answer is the same if they do not.
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
        }
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        assert_eq!(status(&text(&answer)), 400);
        assert!(app.seen.borrow().is_empty());
    });
}

#[test]
fn a_broken_chunk_ends_the_request_and_the_connection() {
    run(async {
        let app = App::start(|request| async move {
            use http_body_util::BodyExt as _;
            let _ = request.into_body().collect().await; // it breaks off
            http::Response::new(full("read"))
        })
        .await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let answer = proxy
            .raw(b"POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: shop.example\r\n\r\n")
            .await;
        assert_eq!(status(&answer), 400, "{answer}");
        assert!(app.seen.borrow().iter().all(|head| head.uri() == "/"));
    });
}

#[test]
fn an_upgrade_to_h2c_is_not_passed_on() {
    run(async {
        let (proxy, app) = proxy().await;
        let answer = proxy
            .raw(b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
            .await;
        assert_eq!(status(&answer), 200, "{answer}");
        let head = app.head();
        for gone in ["upgrade", "http2-settings", "connection"] {
            assert!(!head.headers().contains_key(gone), "{head:?}");
        }
    });
}

#[test]
fn a_length_beside_the_coding_of_a_response_is_not_passed_on() {
    run(async {
        let app = App::scripted(|mut stream| async move {
            read_head(&mut stream).await;
            let both =
                b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
            stream.write_all(both).await.expect("the proxy reads");
        })
        .await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let answer = proxy.get("shop.example", "/").await.to_lowercase();
        assert!(!answer.contains("content-length"), "{answer}");
        assert!(
            answer.contains("transfer-encoding: chunked") && answer.contains("hello"),
            "{answer}"
        );
    });
}
