//! Tasks that bear so many requests at once, and requests that wait for a place.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_local};

use crate::harness::*;

/// An app that answers a request whenever it is allowed to.
struct Slow {
    app: App,
    allowed: Rc<Semaphore>,
    /// The paths of what it got, in its order.
    asked: Rc<RefCell<Vec<String>>>,
}

async fn slow() -> Slow {
    let (allowed, asked) = (Rc::new(Semaphore::new(0)), Rc::new(RefCell::new(Vec::new())));
    let (permits, seen) = (Rc::clone(&allowed), Rc::clone(&asked));
    let app = App::start(move |request: http::Request<_>| {
        seen.borrow_mut().push(request.uri().path().to_owned());
        let permits = Rc::clone(&permits);
        async move {
            permits.acquire().await.expect("it is never closed").forget();
            http::Response::new(full("done"))
        }
    })
    .await;
    Slow { app, allowed, asked }
}

async fn proxy(labels: &[(&str, &str)], addrs: &[SocketAddr]) -> Rc<Proxy> {
    let usual = [("tidegate.hosts", "shop.example"), ("tidegate.requests_max", "1")];
    let route = labelled("shop", &[&usual, labels].concat(), addrs);
    Rc::new(Proxy::start(snapshot([route])).await)
}

fn get(proxy: &Rc<Proxy>, path: &'static str) -> JoinHandle<String> {
    let proxy = Rc::clone(proxy);
    spawn_local(async move { proxy.get("shop.example", path).await })
}

async fn parked(proxy: &Proxy, count: u32) {
    until("so many wait", async || proxy.pool("shop").await.parked == count).await;
}

#[test]
fn label_requests_max_lets_requests_wait_in_their_order() {
    run(async {
        let slow = slow().await;
        let proxy = proxy(&[], &[slow.app.addr]).await;
        let mut requests = vec![get(&proxy, "/0")];
        until("it is at work", async || slow.asked.borrow().len() == 1).await;
        for (waiting, path) in (1..).zip(["/1", "/2", "/left", "/3"]) {
            requests.push(get(&proxy, path));
            parked(&proxy, waiting).await;
        }
        // A client that leaves gives up its place, and nobody waits for it.
        requests.remove(3).abort();
        parked(&proxy, 3).await;
        for done in 1..=3 {
            slow.allowed.add_permits(1);
            until("the next one is asked for", async || {
                slow.asked.borrow().len() == done + 1
            })
            .await;
        }
        slow.allowed.add_permits(1);
        for request in requests {
            assert_eq!(status(&request.await.expect("an answer")), 200);
        }
        assert_eq!(*slow.asked.borrow(), ["/0", "/1", "/2", "/3"]);
        let pool = proxy.pool("shop").await;
        assert_eq!((pool.parked, pool.counters.busy), (0, 4));
    });
}

#[test]
fn requests_go_to_whoever_has_a_place_first() {
    run(async {
        let slow = [slow().await, slow().await];
        let proxy = proxy(&[], &slow.each_ref().map(|one| one.app.addr)).await;
        let first = [get(&proxy, "/"), get(&proxy, "/")];
        until("both are at work", async || {
            slow.iter().all(|one| one.asked.borrow().len() == 1)
        })
        .await;
        let waits = get(&proxy, "/waits");
        parked(&proxy, 1).await;
        slow[1].allowed.add_permits(2);
        assert_eq!(status(&waits.await.expect("an answer")), 200);
        assert_eq!(slow[1].asked.borrow().last().map(String::as_str), Some("/waits"));
        slow[0].allowed.add_permits(1);
        for request in first {
            assert_eq!(status(&request.await.expect("an answer")), 200);
        }
    });
}

#[test]
fn label_parked_max_bounds_who_waits() {
    run(async {
        let slow = slow().await;
        let proxy = proxy(&[("tidegate.parked_max", "1")], &[slow.app.addr]).await;
        let first = get(&proxy, "/");
        until("it is at work", async || slow.asked.borrow().len() == 1).await;
        let waits = get(&proxy, "/");
        parked(&proxy, 1).await;
        let answer = proxy.get("shop.example", "/").await;
        assert_eq!(status(&answer), 503);
        assert!(
            answer.contains("as many requests as they may have, and no more may wait"),
            "{answer}"
        );
        let metrics = proxy.link.metrics().await.expect("metrics");
        assert_eq!(metrics.faults.get("busy"), Some(&1), "{:?}", metrics.faults);
        slow.allowed.add_permits(2);
        for request in [first, waits] {
            assert_eq!(status(&request.await.expect("an answer")), 200);
        }
    });
}

#[test]
fn who_waits_for_a_place_in_vain_is_told_so() {
    run(async {
        let slow = slow().await;
        let proxy = proxy(&[("tidegate.park_timeout", "50ms")], &[slow.app.addr]).await;
        let first = get(&proxy, "/");
        until("it is at work", async || slow.asked.borrow().len() == 1).await;
        let answer = proxy.get("shop.example", "/").await;
        assert_eq!(status(&answer), 503);
        assert!(
            answer.contains("as many requests as they may have for 50 ms"),
            "{answer}"
        );
        let metrics = proxy.link.metrics().await.expect("metrics");
        assert_eq!(metrics.faults.get("busy_timed_out"), Some(&1), "{:?}", metrics.faults);
        slow.allowed.add_permits(1);
        assert_eq!(status(&first.await.expect("an answer")), 200);
    });
}
