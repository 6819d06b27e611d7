//! Leaving: what is under way ends as it should, nothing new begins.

use std::rc::Rc;
use std::time::Duration;

use tidegate::telemetry::log::AccessLog;
use tidegate::worker::WorkerConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::harness::*;

/// An app that answers when it is told to.
async fn gated() -> (App, Rc<Notify>) {
    let gate = Rc::new(Notify::new());
    let opened = Rc::clone(&gate);
    let app = App::start(move |_| {
        let gate = Rc::clone(&opened);
        async move {
            gate.notified().await;
            http::Response::new(full("done"))
        }
    })
    .await;
    (app, gate)
}

#[test]
fn a_drain_ends_requests_under_way_and_then_the_worker() {
    run(async {
        let (app, gate) = gated().await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let mut busy = proxy.connect().await;
        busy.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
            .await
            .expect("the proxy reads");
        let mut idle = proxy.connect().await;
        until("it is under way", async || app.seen.borrow().len() == 1).await;
        proxy.drain.cancel();
        assert_eq!(read_head(&mut idle).await, "", "a silent connection closes meanwhile");
        until("nobody listens", async || TcpStream::connect(proxy.addr).await.is_err()).await;
        assert!(!proxy.done.is_finished());
        gate.notify_one();
        let answer = read_head(&mut busy).await;
        assert!(
            status(&answer) == 200 && answer.contains("connection: close"),
            "{answer}"
        );
        assert_eq!(text(&read_exact(&mut busy, 4).await), "done");
        proxy.done.await.expect("no panic").expect("no error");
    });
}

#[test]
fn a_drain_gives_up_when_its_time_is_over() {
    run(async {
        let (app, _gate) = gated().await;
        let mut snapshot = snapshot([route("shop", "shop.example", &[app.addr])]);
        snapshot.settings.drain_ms = 50;
        let proxy = Proxy::start(snapshot).await;
        let mut busy = proxy.connect().await;
        busy.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
            .await
            .expect("the proxy reads");
        until("it is under way", async || app.seen.borrow().len() == 1).await;
        proxy.drain.cancel();
        proxy.done.await.expect("no panic").expect("no error");
        assert_eq!(read_head(&mut busy).await, "");
    });
}

#[test]
fn a_drain_of_an_idle_worker_ends() {
    run(async {
        let proxy = Proxy::start(snapshot([])).await;
        proxy.drain.cancel();
        proxy.done.await.expect("no panic").expect("no error");
    });
}

/// An app, and a proxy before it.
async fn served() -> (App, Proxy) {
    let app = App::start(|_| async { http::Response::new(full("done")) }).await;
    let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
    (app, proxy)
}

/// Asks on `stream` after the drain began: there is an answer, it says that the connection closes, it does, and so ends the
/// drain.
async fn ends_with_an_answer(proxy: Proxy, mut stream: TcpStream) {
    let stream = &mut stream;
    stream.write_all(REQUEST).await.expect("the connection is open");
    let answer = read_head(stream).await;
    assert!(
        status(&answer) == 200 && answer.contains("connection: close"),
        "{answer}"
    );
    assert_eq!(text(&read_exact(stream, 4).await), "done");
    assert_eq!(read_head(stream).await, "", "it closes");
    proxy.done.await.expect("no panic").expect("no error");
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";

#[test]
fn a_drain_answers_a_client_that_has_connected_and_not_yet_asked() {
    run(async {
        let (_app, proxy) = served().await;
        let stream = proxy.connect().await;
        until("it is accepted", async || {
            let metrics = proxy.link.metrics().await.expect("the worker lives");
            metrics.connections_open == 1
        })
        .await;
        proxy.drain.cancel();
        until("it is told to drain", async || proxy.link.metrics().await.is_some()).await;
        ends_with_an_answer(proxy, stream).await;
    });
}

#[test]
fn a_drain_answers_the_next_request_of_a_kept_connection_as_its_last_one() {
    run(async {
        let (_app, proxy) = served().await;
        let mut stream = proxy.connect().await;
        stream.write_all(REQUEST).await.expect("the proxy reads");
        let answer = read_head(&mut stream).await;
        assert!(
            status(&answer) == 200 && !answer.contains("connection: close"),
            "{answer}"
        );
        assert_eq!(text(&read_exact(&mut stream, 4).await), "done");
        proxy.drain.cancel();
        until("it is told to drain", async || proxy.link.metrics().await.is_some()).await;
        ends_with_an_answer(proxy, stream).await;
    });
}

#[test]
fn a_drain_serves_what_the_kernel_has_accepted_already() {
    run(async {
        let (_app, proxy) = served().await;
        // Nobody else runs between these lines: the kernel alone answers.
        let stream = std::net::TcpStream::connect(proxy.addr).expect("the kernel accepts");
        proxy.drain.cancel();
        stream.set_nonblocking(true).expect("a socket");
        ends_with_an_answer(proxy, TcpStream::from_std(stream).expect("a socket")).await;
    });
}

#[test]
fn a_worker_that_stands_still_closes_no_listener_in_which_somebody_waits() {
    run(async {
        let app = App::start(|_| async { http::Response::new(full("done")) }).await;
        let table = snapshot([route("shop", "shop.example", &[app.addr])]);
        let net = Faulty {
            stalls: true,
            ..Faulty::default()
        };
        let proxy = Proxy::start_over(net, table, AccessLog::off(), |_| {}).await;
        // More than the runtime lets one task do at a time.
        let connect = |_| std::net::TcpStream::connect(proxy.addr).expect("the kernel accepts");
        let mut streams: Vec<_> = (0..300).map(connect).collect();
        proxy.drain.cancel();
        let last = streams.pop().expect("there are some");
        last.set_nonblocking(true).expect("a socket");
        drop(streams);
        ends_with_an_answer(proxy, TcpStream::from_std(last).expect("a socket")).await;
    });
}

#[test]
fn who_waits_for_room_is_served_however_long_the_drain_has_begun() {
    run(async {
        let (app, gate) = gated().await;
        let table = snapshot([route("shop", "shop.example", &[app.addr])]);
        let one = |config: &mut WorkerConfig| config.connections_max = 1;
        let proxy = Proxy::start_with(table, AccessLog::off(), one).await;
        let mut first = proxy.connect().await;
        first.write_all(REQUEST).await.expect("the proxy reads");
        until("it is under way", async || app.seen.borrow().len() == 1).await;
        let second = proxy.connect().await; // to the kernel
        proxy.drain.cancel();
        until("it is told to drain", async || proxy.link.metrics().await.is_some()).await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::time::resume();
        until("it goes on", async || proxy.link.metrics().await.is_some()).await;
        gate.notify_one();
        assert_eq!(status(&read_head(&mut first).await), 200);
        assert_eq!(text(&read_exact(&mut first, 4).await), "done");
        gate.notify_one();
        ends_with_an_answer(proxy, second).await;
    });
}
