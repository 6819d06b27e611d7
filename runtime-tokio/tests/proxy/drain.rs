//! Leaving: what is under way ends as it should, nothing new begins.

use std::rc::Rc;

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
        assert_eq!(read_head(&mut idle).await, "", "idle connections close at once");
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
fn a_drain_of_an_idle_worker_ends_at_once() {
    run(async {
        let proxy = Proxy::start(snapshot([])).await;
        proxy.drain.cancel();
        proxy.done.await.expect("no panic").expect("no error");
    });
}
