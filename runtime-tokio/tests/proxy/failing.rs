//! Endpoints that fail without saying so: they vanish with their node, or are slow.

use std::cell::Cell;
use std::rc::Rc;

use tidegate::telemetry::log::AccessLog;
use tidegate_core::pool::State;
use tidegate_core::route::spec::Balance;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::harness::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold";

/// An app that answers until its power is lost, and then neither answers nor hangs up until it is `back`.
struct Lossy {
    app: App,
    net: Faulty,
    back: Rc<Notify>,
}

async fn lossy() -> Lossy {
    let (net, back) = (Faulty::default(), Rc::new(Notify::new()));
    let (lost, again) = (Rc::clone(&net.lost), Rc::clone(&back));
    let app = App::scripted(move |mut stream| {
        let (lost, again) = (Rc::clone(&lost), Rc::clone(&again));
        async move {
            while !read_head(&mut stream).await.is_empty() {
                if lost.get().is_some() {
                    again.notified().await;
                }
                let _ = stream.write_all(OK).await; // the proxy may have left
            }
        }
    })
    .await;
    Lossy { app, net, back }
}

/// A proxy with an idle connection to the lossy app, and beside it another app, unless it is alone.
async fn warmed_up(lossy: &Lossy, other: Option<&App>) -> Rc<Proxy> {
    let mut spec = route("shop", "shop.example", &[lossy.app.addr]);
    spec.balance = Balance::RoundRobin;
    let mut first = snapshot([spec.clone()]);
    first.settings.connect_timeout_ms = 30;
    first.settings.doubt_ms = 30;
    let proxy = Proxy::start_over(lossy.net.clone(), first.clone(), AccessLog::off(), |_| {}).await;
    assert!(proxy.get("shop.example", "/").await.ends_with("old"));
    until("the connection waits", async || {
        proxy.pool("shop").await.idle_connections == 1
    })
    .await;
    spec.endpoints.extend(other.map(|app| endpoint(app.addr)));
    let settings = first.settings.clone();
    let mut next = snapshot([spec]);
    next.settings = settings;
    proxy.publish(&next);
    let count = 1 + usize::from(other.is_some());
    until("all are ready", async || {
        let ready = proxy.pool("shop").await;
        let ready = ready.endpoints.iter().filter(|endpoint| endpoint.state == State::Ready);
        ready.count() == count
    })
    .await;
    lossy.net.lost.set(Some(lossy.app.addr));
    Rc::new(proxy)
}

#[test]
fn a_request_on_a_connection_to_a_node_without_power_is_answered_elsewhere() {
    run(async {
        let (lossy, other) = (lossy().await, App::named("new").await);
        let proxy = warmed_up(&lossy, Some(&other)).await;
        for _ in 0..6 {
            let answer = proxy.get("shop.example", "/").await;
            assert!(status(&answer) == 200 && answer.ends_with("new"), "{answer}");
        }
        let pool = proxy.pool("shop").await;
        assert_eq!((pool.counters.abandoned, pool.counters.probations), (1, 1));
        assert_eq!(pool.endpoints.iter().filter(|one| one.state == State::Ready).count(), 1);
    });
}

#[test]
fn what_may_not_be_sent_twice_waits_for_a_node_without_power() {
    run(async {
        let (lossy, other) = (lossy().await, App::named("new").await);
        let proxy = warmed_up(&lossy, Some(&other)).await;
        let posts: Vec<_> = (0..2)
            .map(|_| {
                let proxy = Rc::clone(&proxy);
                let post = b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                spawn_local(async move { proxy.raw(post).await })
            })
            .collect();
        until("it is known to be lost", async || {
            proxy.pool("shop").await.counters.probations == 1
        })
        .await;
        assert_eq!(proxy.pool("shop").await.counters.abandoned, 0);
        lossy.back.notify_one();
        let mut bodies = Vec::new();
        for post in posts {
            let answer = post.await.expect("an answer");
            bodies.push(answer[answer.len() - 3..].to_owned());
        }
        bodies.sort();
        assert_eq!(bodies, ["new", "old"], "each was sent once");
    });
}

#[test]
fn requests_to_the_only_endpoint_park_when_it_vanishes_and_are_answered_when_it_is_back() {
    run(async {
        let lossy = lossy().await;
        let proxy = warmed_up(&lossy, None).await;
        let waiting = Rc::clone(&proxy);
        let request = spawn_local(async move { waiting.get("shop.example", "/").await });
        until("it is parked", async || proxy.pool("shop").await.parked == 1).await;
        lossy.net.lost.set(None);
        assert_eq!(status(&request.await.expect("an answer")), 200);
    });
}

#[test]
fn an_app_that_is_merely_slow_keeps_its_requests() {
    run(async {
        let gate = Rc::new(Notify::new());
        let opened = Rc::clone(&gate);
        let app = App::start(move |_| {
            let gate = Rc::clone(&opened);
            async move {
                gate.notified().await;
                http::Response::new(full("slow"))
            }
        })
        .await;
        let mut table = snapshot([route("shop", "shop.example", &[app.addr])]);
        table.settings.doubt_ms = 1;
        let proxy = Rc::new(Proxy::start(table).await);
        let waiting = Rc::clone(&proxy);
        let request = spawn_local(async move { waiting.get("shop.example", "/").await });
        until("it was asked whether it is there", async || {
            proxy.link.metrics().await.expect("metrics").probes == 1
        })
        .await;
        until("it accepted the question", async || app.accepted.get() == 2).await;
        gate.notify_one();
        assert!(request.await.expect("an answer").ends_with("slow"));
        let pool = proxy.pool("shop").await;
        assert_eq!((pool.counters.retries, pool.counters.probations), (0, 0));
    });
}

#[test]
fn label_hedge_after_sends_a_second_copy_and_cancels_the_loser() {
    run(async {
        let cancelled = Rc::new(Cell::new(0));
        let count = Rc::clone(&cancelled);
        let silent = App::scripted(move |mut stream| {
            let count = Rc::clone(&count);
            async move {
                if !read_head(&mut stream).await.is_empty() && read_head(&mut stream).await.is_empty() {
                    count.set(count.get() + 1);
                }
            }
        })
        .await;
        let quick = App::named("quick").await;
        let labels = [
            ("tidegate.hosts", "shop.example"),
            ("tidegate.balance", "round_robin"),
            ("tidegate.hedge_after", "20ms"),
        ];
        let proxy = Proxy::start(snapshot([labelled("shop", &labels, &[silent.addr, quick.addr])])).await;
        for _ in 0..6 {
            let answer = proxy.get("shop.example", "/").await;
            assert!(status(&answer) == 200 && answer.ends_with("quick"), "{answer}");
        }
        let counters = proxy.pool("shop").await.counters;
        assert!(counters.hedges > 0, "{counters:?}");
        assert_eq!((counters.hedges_won, counters.retries), (counters.hedges, 0));
        until("the losers are cancelled", async || cancelled.get() == counters.hedges).await;
        let pool = proxy.pool("shop").await;
        assert!(pool.endpoints.iter().all(|endpoint| endpoint.in_flight == 0));
    });
}

#[test]
fn label_slow_start_gives_a_new_task_few_requests_at_first() {
    run(async {
        let (old, new) = (App::named("old").await, App::named("new").await);
        let labels = [
            ("tidegate.hosts", "shop.example"),
            ("tidegate.balance", "round_robin"),
            ("tidegate.slow_start", "24h"),
        ];
        let proxy = Proxy::start(snapshot([labelled("shop", &labels, &[old.addr])])).await;
        assert!(proxy.get("shop.example", "/").await.ends_with("old"));
        proxy.publish(&snapshot([labelled("shop", &labels, &[old.addr, new.addr])]));
        until("both are known", async || proxy.pool("shop").await.endpoints.len() == 2).await;
        let mut news = 0;
        for _ in 0..200 {
            news += u32::from(proxy.get("shop.example", "/").await.ends_with("new"));
        }
        // One in eleven, as its share is a tenth of the other's.
        assert!((1..50).contains(&news), "{news} of 200");
    });
}
