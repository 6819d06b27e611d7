//! Endpoints that answer, and answer badly.

use std::net::SocketAddr;

use tidegate_core::pool::State;

use crate::harness::*;

async fn sick() -> App {
    App::start(|_| async {
        http::Response::builder()
            .status(500)
            .body(full("sick"))
            .expect("a response")
    })
    .await
}

/// A proxy for apps that are asked one after the other, with these labels beside the usual ones.
async fn proxy(labels: &[(&str, &str)], addrs: &[SocketAddr]) -> Proxy {
    let usual = [
        ("tidegate.hosts", "shop.example"),
        ("tidegate.balance", "round_robin"),
        ("tidegate.fail_on", "500"),
        ("tidegate.fail_timeout", "24h"),
    ];
    let unsaid = |(name, _): &(&str, &str)| labels.iter().all(|(said, _)| said != name);
    let labels: Vec<_> = usual.into_iter().filter(unsaid).chain(labels.iter().copied()).collect();
    Proxy::start(snapshot([labelled("shop", &labels, addrs)])).await
}

/// How many of so many requests were answered well.
async fn good_of(proxy: &Proxy, requests: u32) -> u32 {
    let mut good = 0;
    for _ in 0..requests {
        good += u32::from(status(&proxy.get("shop.example", "/").await) == 200);
    }
    good
}

async fn ejected(proxy: &Proxy) -> usize {
    let pool = proxy.pool("shop").await;
    pool.endpoints.iter().filter(|one| one.state == State::Ejected).count()
}

#[test]
fn label_fail_on_ejects_a_task_for_its_answers() {
    run(async {
        let (good, bad) = (App::named("good").await, sick().await);
        let strict = proxy(&[], &[good.addr, bad.addr]).await;
        assert_eq!(good_of(&strict, 10).await, 9);
        assert_eq!(ejected(&strict).await, 1);
        let lax = proxy(&[("tidegate.fail_on", "502, 503")], &[good.addr, bad.addr]).await;
        assert_eq!(
            good_of(&lax, 10).await,
            5,
            "as Interlock: a status is the app's own affair"
        );
        assert_eq!(ejected(&lax).await, 0);
    });
}

#[test]
fn label_fail_rate_ejects_who_fails_far_more_often_than_the_others() {
    run(async {
        let (good, bad) = (App::named("good").await, sick().await);
        let addrs = [good.addr, bad.addr];
        let patient = ("tidegate.max_fails", "1000");
        let proxy_of = async |rate: &str| proxy(&[patient, ("tidegate.fail_rate", rate)], &addrs).await;
        let (watchful, blind) = (proxy_of("60").await, proxy_of("0").await);
        assert_eq!(good_of(&watchful, 20).await, 10);
        assert_eq!(watchful.pool("shop").await.counters.outliers, 1);
        assert_eq!(good_of(&blind, 40).await, 20);
        assert_eq!(blind.pool("shop").await.counters.ejections, 0);
    });
}

#[test]
fn label_eject_max_is_the_share_of_the_pool_that_may_rest() {
    run(async {
        let good = App::named("good").await;
        let bad = [sick().await, sick().await, sick().await];
        let addrs = [good.addr, bad[0].addr, bad[1].addr, bad[2].addr];
        for (share, resting) in [("0", 0), ("49", 1), ("50", 2), ("100", 3)] {
            let labels = [("tidegate.eject_max", share), ("tidegate.panic_threshold", "0")];
            let proxy = proxy(&labels, &addrs).await;
            good_of(&proxy, 20).await;
            assert_eq!(ejected(&proxy).await, resting, "{share} %");
        }
    });
}

#[test]
fn label_panic_threshold_brings_back_who_rests_where_too_few_are_ready() {
    run(async {
        let good = App::named("good").await;
        let bad = [sick().await, sick().await];
        let addrs = [good.addr, bad[0].addr, bad[1].addr];
        for (threshold, expected) in [("0", 12), ("33", 12), ("34", 4)] {
            let labels = [("tidegate.eject_max", "100"), ("tidegate.panic_threshold", threshold)];
            let proxy = proxy(&labels, &addrs).await;
            good_of(&proxy, 6).await;
            assert_eq!(ejected(&proxy).await, 2);
            assert_eq!(good_of(&proxy, 12).await, expected, "below {threshold} %");
            let counters = proxy.pool("shop").await.counters;
            assert_eq!(counters.panics > 0, threshold == "34", "{counters:?}");
        }
    });
}
