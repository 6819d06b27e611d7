//! Active checks: endpoints are asked, whether or not users ask them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tidegate_core::pool::State;
use tidegate_core::route::active::ActiveChecks;

use crate::harness::*;

/// An app that answers its users well, and its probes with the status that is set.
struct Checked {
    app: App,
    health: Rc<Cell<u16>>,
    /// Host, path and `User-Agent` of the last probe.
    asked: Rc<RefCell<String>>,
}

async fn checked() -> Checked {
    let (health, asked) = (Rc::new(Cell::new(204)), Rc::new(RefCell::new(String::new())));
    let (status, seen) = (Rc::clone(&health), Rc::clone(&asked));
    let app = App::start(move |request: http::Request<_>| {
        let is_probe = request.uri().path().starts_with("/health");
        let field = |name: &str| request.headers()[name].to_str().unwrap_or_default().to_owned();
        if is_probe {
            seen.replace(format!("{} {} {}", field("host"), request.uri(), field("user-agent")));
        }
        let status = if is_probe { status.get() } else { 200 };
        async move {
            http::Response::builder()
                .status(status)
                .body(full("ok"))
                .expect("a response")
        }
    })
    .await;
    Checked { app, health, asked }
}

async fn proxy(labels: &[(&str, &str)], apps: &[&Checked]) -> Proxy {
    let usual = [
        ("tidegate.hosts", "Shop.example, other.example"),
        ("tidegate.probe_interval", "100ms"),
        ("tidegate.balance", "round_robin"),
    ];
    let addrs: Vec<_> = apps.iter().map(|one| one.app.addr).collect();
    Proxy::start(snapshot([labelled("shop", &[&usual, labels].concat(), &addrs)])).await
}

async fn states(proxy: &Proxy, addr: std::net::SocketAddr) -> State {
    let pool = proxy.pool("shop").await;
    let endpoint = pool.endpoints.iter().find(|one| one.addr == addr).expect("it is known");
    endpoint.state
}

#[test]
fn label_probe_path_takes_a_task_out_while_it_answers_wrongly() {
    run(async {
        let (first, second) = (checked().await, checked().await);
        let proxy = proxy(&[("tidegate.probe_path", "/health?full=1")], &[&first, &second]).await;
        until("it was asked", async || !first.asked.borrow().is_empty()).await;
        assert!(
            first
                .asked
                .borrow()
                .starts_with("shop.example /health?full=1 tidegate/"),
            "{}",
            first.asked.borrow()
        );
        first.health.set(500);
        until("it is out", async || {
            states(&proxy, first.app.addr).await == State::Probation
        })
        .await;
        let before = first.app.accepted.get();
        for _ in 0..10 {
            assert_eq!(status(&proxy.get("shop.example", "/").await), 200);
        }
        assert_eq!(proxy.pool("shop").await.counters.panics, 0);
        // Both fail: health is ignored rather than users turned away.
        second.health.set(503);
        until("both are out", async || {
            states(&proxy, second.app.addr).await == State::Probation
        })
        .await;
        for _ in 0..10 {
            assert_eq!(status(&proxy.get("shop.example", "/").await), 200);
        }
        assert_eq!(proxy.pool("shop").await.counters.panics, 10);
        first.health.set(200);
        until("it is back", async || {
            states(&proxy, first.app.addr).await == State::Ready
        })
        .await;
        assert!(first.app.accepted.get() > before, "it was asked all the while");
    });
}

#[test]
fn label_probe_status_says_which_answers_are_right() {
    run(async {
        let (first, second) = (checked().await, checked().await);
        first.health.set(401);
        second.health.set(200);
        let labels = [("tidegate.probe_path", "/health"), ("tidegate.probe_status", "401-403")];
        let proxy = proxy(&labels, &[&first, &second]).await;
        until("the other one is out", async || {
            states(&proxy, second.app.addr).await == State::Probation
        })
        .await;
        assert_eq!(states(&proxy, first.app.addr).await, State::Ready);
    });
}

#[test]
fn who_does_not_answer_its_probes_in_time_is_out() {
    run(async {
        let (silent, good) = (
            App::scripted(|stream| async move {
                std::future::pending::<()>().await;
                drop(stream);
            })
            .await,
            checked().await,
        );
        let labels = [
            ("tidegate.hosts", "shop.example"),
            ("tidegate.probe_path", "/health"),
            ("tidegate.probe_interval", "100ms"),
            ("tidegate.probe_timeout", "20ms"),
        ];
        let route = labelled("shop", &labels, &[silent.addr, good.app.addr]);
        let proxy = Proxy::start(snapshot([route])).await;
        until("it is out", async || {
            states(&proxy, silent.addr).await == State::Probation
        })
        .await;
        for _ in 0..10 {
            assert_eq!(status(&proxy.get("shop.example", "/").await), 200);
        }
    });
}

#[test]
fn without_the_label_nobody_is_asked_and_who_was_out_is_back() {
    run(async {
        let (first, second) = (checked().await, checked().await);
        let mut route = labelled(
            "shop",
            &[("tidegate.hosts", "shop.example")],
            &[first.app.addr, second.app.addr],
        );
        let checks = ActiveChecks {
            path: "/health".into(),
            host: None,
            interval_ms: 10,
            timeout_ms: 1_000,
            statuses: Vec::new(),
        };
        route.active = Some(checks);
        first.health.set(404);
        let proxy = Proxy::start(snapshot([route.clone()])).await;
        until("it is out", async || {
            states(&proxy, first.app.addr).await == State::Probation
        })
        .await;
        assert!(
            first.asked.borrow().starts_with(&first.app.addr.to_string()),
            "without a host its address is one: {}",
            first.asked.borrow()
        );
        route.active = None;
        proxy.publish(&snapshot([route]));
        until("it is back", async || {
            states(&proxy, first.app.addr).await == State::Ready
        })
        .await;
    });
}
