//! Which endpoint answers, and what happens when one does not: retries, probation, parking, leaving, new tables.

use std::cell::Cell;
use std::rc::Rc;

use tidegate_core::pool::State;
use tokio::io::AsyncWriteExt as _;
use tokio::task::spawn_local;

use crate::harness::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn states(pool: &tidegate::worker::PoolView) -> Vec<State> {
    pool.endpoints.iter().map(|endpoint| endpoint.state).collect()
}

#[test]
fn a_refused_endpoint_costs_no_request_and_goes_on_probation() {
    run(async {
        let app = App::named("shop").await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[nobody().await, app.addr])])).await;
        for _ in 0..20 {
            let answer = proxy.get("shop.example", "/").await;
            assert_eq!(status(&answer), 200, "{answer}");
        }
        let pool = proxy.pool("shop").await;
        assert_eq!(pool.counters.requests, 20);
        assert_eq!(
            pool.counters.retries, 1,
            "probation keeps it away from users after the first"
        );
        assert!(states(&pool).contains(&State::Probation));
    });
}

#[test]
fn an_endpoint_on_probation_returns_by_itself_when_somebody_listens() {
    run(async {
        let address = nobody().await;
        let app = App::named("shop").await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[address, app.addr])])).await;
        until("probation", async || {
            proxy.get("shop.example", "/").await;
            states(&proxy.pool("shop").await).contains(&State::Probation)
        })
        .await;
        let late = App::listen(address, |_| async { http::Response::new(full("late")) }).await;
        until("a probe finds it", async || {
            states(&proxy.pool("shop").await) == [State::Ready, State::Ready]
        })
        .await;
        until("it answers", async || {
            proxy.get("shop.example", "/").await.ends_with("late")
        })
        .await;
        assert!(late.accepted.get() > 1);
    });
}

#[test]
fn requests_park_while_the_only_endpoint_is_away_and_none_is_lost() {
    run(async {
        let address = nobody().await;
        let proxy = Rc::new(Proxy::start(snapshot([route("shop", "shop.example", &[address])])).await);
        let requests: Vec<_> = (0..10)
            .map(|_| {
                let proxy = Rc::clone(&proxy);
                spawn_local(async move { proxy.get("shop.example", "/").await })
            })
            .collect();
        until("all are parked", async || proxy.pool("shop").await.parked == 10).await;
        let _app = App::listen(address, |_| async { http::Response::new(full("back")) }).await;
        for request in requests {
            let answer = request.await.expect("an answer");
            assert_eq!(status(&answer), 200, "{answer}");
        }
        assert_eq!(proxy.pool("shop").await.parked, 0);
    });
}

#[test]
fn parked_requests_go_on_when_a_table_brings_an_endpoint() {
    run(async {
        let app = App::named("shop").await;
        let proxy = Rc::new(Proxy::start(snapshot([route("shop", "shop.example", &[])])).await);
        let waiting = Rc::clone(&proxy);
        let request = spawn_local(async move { waiting.get("shop.example", "/").await });
        until("it is parked", async || proxy.pool("shop").await.parked == 1).await;
        proxy.publish(&snapshot([route("shop", "shop.example", &[app.addr])]));
        assert_eq!(status(&request.await.expect("an answer")), 200);
    });
}

#[test]
fn parked_requests_follow_their_route_when_its_pool_becomes_another() {
    run(async {
        let app = App::named("canary").await;
        let proxy = Rc::new(Proxy::start(snapshot([route("shop", "shop.example", &[])])).await);
        let waiting = Rc::clone(&proxy);
        let request = spawn_local(async move { waiting.get("shop.example", "/").await });
        until("it is parked", async || proxy.pool("shop").await.parked == 1).await;
        proxy.publish(&snapshot([
            route("shop", "shop.example", &[]),
            route("canary", "shop.example", &[app.addr]),
        ]));
        assert!(request.await.expect("an answer").ends_with("canary"));
    });
}

#[test]
fn parked_requests_are_told_when_their_route_is_removed() {
    run(async {
        let proxy = Rc::new(Proxy::start(snapshot([route("shop", "shop.example", &[])])).await);
        let waiting = Rc::clone(&proxy);
        let request = spawn_local(async move { waiting.get("shop.example", "/").await });
        until("it is parked", async || proxy.pool("shop").await.parked == 1).await;
        proxy.publish(&snapshot([]));
        let answer = request.await.expect("an answer");
        assert!(answer.contains("no service has the host shop.example"), "{answer}");
    });
}

#[test]
fn parking_ends_with_503_and_retry_after() {
    run(async {
        let mut spec = route("shop", "shop.example", &[]);
        spec.limits.park_ms = Some(30);
        let proxy = Proxy::start(snapshot([spec])).await;
        let answer = proxy.get("shop.example", "/").await;
        assert_eq!(status(&answer), 503, "{answer}");
        assert!(
            answer.contains("retry-after: 1\r\n") && answer.contains("within 30 ms"),
            "{answer}"
        );
        let metrics = proxy.link.metrics().await.expect("the worker lives");
        assert_eq!((metrics.park_timeouts, metrics.faults["park_timed_out"]), (1, 1));
    });
}

#[test]
fn no_more_requests_park_than_may() {
    run(async {
        let mut snapshot = snapshot([route("shop", "shop.example", &[])]);
        snapshot.settings.parked_max = 2;
        let proxy = Rc::new(Proxy::start(snapshot).await);
        for _ in 0..2 {
            let waiting = Rc::clone(&proxy);
            spawn_local(async move { waiting.get("shop.example", "/").await });
        }
        until("two are parked", async || proxy.pool("shop").await.parked == 2).await;
        let answer = proxy.get("shop.example", "/").await;
        assert_eq!(status(&answer), 503, "{answer}");
        assert!(answer.contains("too many requests wait"), "{answer}");
    });
}

#[test]
fn a_client_that_leaves_gives_up_its_place_among_the_parked() {
    run(async {
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[])])).await;
        let mut stream = proxy.connect().await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
            .await
            .expect("the proxy reads");
        until("it is parked", async || proxy.pool("shop").await.parked == 1).await;
        drop(stream);
        until("its place is free", async || proxy.pool("shop").await.parked == 0).await;
    });
}

/// Answers the first request of each connection, then closes the connection under the second; a connection after that
/// answers everything.
async fn dies_on_reuse() -> App {
    let deaths = Rc::new(Cell::new(0));
    App::scripted(move |mut stream| {
        let deaths = Rc::clone(&deaths);
        async move {
            loop {
                let head = read_head(&mut stream).await;
                if head.is_empty() {
                    return;
                }
                if let Some(length) = head.to_lowercase().split("content-length: ").nth(1) {
                    let length = length
                        .split("\r\n")
                        .next()
                        .and_then(|length| length.parse().ok())
                        .expect("a length");
                    read_exact(&mut stream, length).await;
                }
                if head.contains("/die") && deaths.get() == 0 {
                    deaths.set(1);
                    return;
                }
                stream.write_all(OK).await.expect("the proxy reads");
            }
        }
    })
    .await
}

async fn after_a_warm_up(second: &[u8]) -> (String, App, Proxy) {
    let app = dies_on_reuse().await;
    let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
    assert_eq!(status(&proxy.get("shop.example", "/").await), 200);
    until("the connection waits", async || {
        proxy.pool("shop").await.idle_connections == 1
    })
    .await;
    let answer = proxy.raw(second).await;
    (answer, app, proxy)
}

#[test]
fn a_get_is_sent_again_when_the_reused_connection_dies_under_it() {
    run(async {
        let get = b"GET /die HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";
        let (answer, app, proxy) = after_a_warm_up(get).await;
        assert_eq!(status(&answer), 200, "{answer}");
        assert_eq!(app.accepted.get(), 2);
        let pool = proxy.pool("shop").await;
        assert_eq!((pool.counters.retries, states(&pool)), (1, vec![State::Ready]));
    });
}

#[test]
fn a_post_whose_body_was_sent_is_not_sent_again() {
    run(async {
        let post = b"POST /die HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        let (answer, app, proxy) = after_a_warm_up(post).await;
        assert_eq!(status(&answer), 502, "{answer}");
        assert_eq!(app.accepted.get(), 1);
        assert_eq!(proxy.pool("shop").await.counters.retries, 0);
    });
}

#[test]
fn a_post_without_body_is_not_sent_again_either() {
    run(async {
        let post = b"POST /die HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let (answer, _app, proxy) = after_a_warm_up(post).await;
        assert_eq!(status(&answer), 502, "{answer}");
        assert_eq!(proxy.pool("shop").await.counters.retries, 0);
    });
}

#[test]
fn a_post_to_an_endpoint_that_refuses_keeps_its_body_for_the_next() {
    run(async {
        let app = App::start(|request| async move {
            use http_body_util::BodyExt as _;
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            http::Response::new(full(body))
        })
        .await;
        let refusing = [nobody().await, nobody().await];
        let proxy = Proxy::start(snapshot([route(
            "shop",
            "shop.example",
            &[refusing[0], refusing[1], app.addr],
        )]))
        .await;
        for _ in 0..5 {
            let answer = proxy
                .raw(b"POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
                .await;
            assert!(status(&answer) == 200 && answer.ends_with("hello"), "{answer}");
        }
    });
}

#[test]
fn an_idle_connection_that_the_app_closed_is_not_used() {
    run(async {
        let app = App::scripted(|mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(OK).await.expect("the proxy reads");
        })
        .await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        for _ in 0..5 {
            let post = b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            assert_eq!(status(&proxy.raw(post).await), 200);
            // The end of the connection is there already; the proxy must have seen it before it sends again.
            until("it is noticed", async || {
                proxy.pool("shop").await.endpoints[0].in_flight == 0
            })
            .await;
        }
        assert_eq!(app.accepted.get(), 5);
    });
}

#[test]
fn connections_are_used_again() {
    run(async {
        let app = App::named("shop").await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        for _ in 0..20 {
            assert_eq!(status(&proxy.get("shop.example", "/").await), 200);
        }
        assert_eq!(app.accepted.get(), 1);
        let metrics = proxy.link.metrics().await.expect("the worker lives");
        assert_eq!((metrics.upstream_new, metrics.upstream_reused), (1, 19));
    });
}

#[test]
fn an_endpoint_that_leaves_gets_nothing_new_and_its_idle_connections_close() {
    run(async {
        let closed = Rc::new(Cell::new(0));
        let count = Rc::clone(&closed);
        let old = App::scripted(move |mut stream| {
            let count = Rc::clone(&count);
            async move {
                while !read_head(&mut stream).await.is_empty() {
                    stream.write_all(OK).await.expect("the proxy reads");
                }
                count.set(count.get() + 1);
            }
        })
        .await;
        let new = App::named("new").await;
        let mut spec = route("shop", "shop.example", &[old.addr]);
        let proxy = Proxy::start(snapshot([spec.clone()])).await;
        assert_eq!(status(&proxy.get("shop.example", "/").await), 200);
        spec.endpoints = vec![leaving(old.addr, 60_000), endpoint(new.addr)];
        proxy.publish(&snapshot([spec]));
        until("idle connections close", async || closed.get() == 1).await;
        for _ in 0..20 {
            assert!(proxy.get("shop.example", "/").await.ends_with("new"));
        }
        assert_eq!(old.accepted.get(), 1);
    });
}

#[test]
fn an_endpoint_that_leaves_serves_while_there_is_no_other() {
    run(async {
        let app = App::named("last").await;
        let mut spec = route("shop", "shop.example", &[]);
        spec.endpoints = vec![leaving(app.addr, 60_000)];
        let proxy = Proxy::start(snapshot([spec])).await;
        assert!(proxy.get("shop.example", "/").await.ends_with("last"));
        assert_eq!(states(&proxy.pool("shop").await), [State::LastResort]);
    });
}

#[test]
fn a_new_table_ends_no_request_under_way_even_when_its_route_goes() {
    run(async {
        let gate = Rc::new(tokio::sync::Notify::new());
        let opened = Rc::clone(&gate);
        let app = App::start(move |_| {
            let gate = Rc::clone(&opened);
            async move {
                gate.notified().await;
                http::Response::new(full("done"))
            }
        })
        .await;
        let proxy = Rc::new(Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await);
        let waiting = Rc::clone(&proxy);
        let request = spawn_local(async move { waiting.get("shop.example", "/").await });
        until("it is under way", async || app.seen.borrow().len() == 1).await;
        proxy.publish(&snapshot([]));
        until("the route is gone", async || {
            proxy.link.pools().await.expect("pools").is_empty()
        })
        .await;
        gate.notify_one();
        assert!(request.await.expect("an answer").ends_with("done"));
    });
}

#[test]
fn no_answer_from_an_endpoint_is_502_and_in_time_504() {
    run(async {
        let dies = App::scripted(|mut stream| async move {
            read_head(&mut stream).await;
        })
        .await;
        let silent = App::scripted(|mut stream| async move {
            read_head(&mut stream).await;
            read_head(&mut stream).await;
        })
        .await;
        let talks = App::scripted(|mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(b"SSH-2.0-OpenSSH\r\n\r\n").await; // it may hang up
        })
        .await;
        let mut snapshot = snapshot([
            route("dies", "dies.example", &[dies.addr]),
            route("silent", "silent.example", &[silent.addr]),
            route("talks", "talks.example", &[talks.addr]),
        ]);
        snapshot.settings.first_byte_timeout_ms = 50;
        let proxy = Proxy::start(snapshot).await;
        for (host, expected, reason) in [
            ("dies.example", 502, "upstream_died"),
            ("silent.example", 504, "first_byte_timed_out"),
            ("talks.example", 502, "bad_response"),
        ] {
            let answer = proxy.get(host, "/").await;
            assert_eq!(status(&answer), expected, "{host}: {answer}");
            assert_eq!(proxy.link.metrics().await.expect("metrics").faults[reason], 1, "{host}");
        }
        assert_eq!(silent.accepted.get(), 1, "what may be at work is not sent again");
    });
}

async fn behind_a_black_hole(retries_max: u32) -> (Proxy, App) {
    let app = App::named("shop").await;
    let hole = nobody().await;
    let mut snapshot = snapshot([
        route("shop", "shop.example", &[hole, app.addr]),
        route("lost", "lost.example", &[hole]),
    ]);
    snapshot.settings.connect_timeout_ms = 30;
    snapshot.settings.retries_max = retries_max;
    let access = tidegate::telemetry::log::AccessLog::off();
    (
        Proxy::start_over(Faulty::without(hole), snapshot, access, |_| {}).await,
        app,
    )
}

#[test]
fn an_address_that_swallows_packets_costs_one_timeout_and_no_request() {
    run(async {
        let (proxy, _app) = behind_a_black_hole(3).await;
        for _ in 0..20 {
            assert_eq!(status(&proxy.get("shop.example", "/").await), 200);
        }
        let pool = proxy.pool("shop").await;
        assert_eq!((pool.counters.retries, pool.counters.probations), (1, 1));
    });
}

#[test]
fn a_connection_that_times_out_is_504_where_nothing_may_be_tried_again() {
    run(async {
        let (proxy, _app) = behind_a_black_hole(0).await;
        assert_eq!(status(&proxy.get("lost.example", "/").await), 504);
    });
}

#[test]
fn a_client_that_leaves_ends_its_request_at_the_endpoint() {
    run(async {
        let left = Rc::new(Cell::new(false));
        let seen = Rc::clone(&left);
        let app = App::scripted(move |mut stream| {
            let seen = Rc::clone(&seen);
            async move {
                read_head(&mut stream).await;
                seen.set(read_head(&mut stream).await.is_empty());
            }
        })
        .await;
        let proxy = Proxy::start(snapshot([route("shop", "shop.example", &[app.addr])])).await;
        let mut stream = proxy.connect().await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
            .await
            .expect("the proxy reads");
        until("it is under way", async || {
            proxy.pool("shop").await.endpoints[0].in_flight == 1
        })
        .await;
        drop(stream);
        until("the endpoint is told", async || left.get()).await;
        let pool = proxy.pool("shop").await;
        assert_eq!((pool.endpoints[0].in_flight, pool.statuses[0]), (0, 1));
        assert_eq!(proxy.link.metrics().await.expect("metrics").faults["client_left"], 1);
    });
}

#[test]
fn label_balance_spreads_requests_by_either_policy() {
    use tidegate_core::route::spec::Balance;
    run(async {
        for balance in [Balance::LeastRequests, Balance::RoundRobin] {
            let apps = [App::named("a").await, App::named("b").await, App::named("c").await];
            let mut spec = route("shop", "shop.example", &[apps[0].addr, apps[1].addr, apps[2].addr]);
            spec.balance = balance;
            let proxy = Proxy::start(snapshot([spec])).await;
            for _ in 0..60 {
                assert_eq!(status(&proxy.get("shop.example", "/").await), 200);
            }
            let counts = apps.each_ref().map(|app| app.seen.borrow().len());
            match balance {
                Balance::RoundRobin => assert_eq!(counts, [20, 20, 20]),
                Balance::LeastRequests => assert!(counts.iter().all(|count| *count > 5), "{counts:?}"),
            }
        }
    });
}

#[test]
fn connections_and_states_survive_when_a_service_joins_and_leaves_a_host() {
    run(async {
        let app = App::named("shop").await;
        let shop = route("shop", "shop.example", &[app.addr]);
        let proxy = Proxy::start(snapshot([shop.clone()])).await;
        assert_eq!(status(&proxy.get("shop.example", "/").await), 200);
        proxy.publish(&snapshot([shop.clone(), route("canary", "shop.example", &[])]));
        until("they share a pool", async || {
            proxy.link.pools().await.expect("pools")[0].name.contains('+')
        })
        .await;
        assert_eq!(status(&proxy.get("shop.example", "/").await), 200);
        proxy.publish(&snapshot([shop]));
        until("they do not", async || {
            proxy.link.pools().await.expect("pools")[0].name == "shop"
        })
        .await;
        assert_eq!(status(&proxy.get("shop.example", "/").await), 200);
        assert_eq!(app.accepted.get(), 1);
    });
}

#[test]
fn a_worker_tells_of_one_pool_without_the_others() {
    run(async {
        let app = App::named("shop").await;
        let routes = ["shop", "blog"].map(|name| route(name, &format!("{name}.example"), &[app.addr]));
        let proxy = Proxy::start(snapshot(routes)).await;
        let all = proxy.link.pools().await.expect("pools");
        assert_eq!(all.len(), 2);
        for pool in all {
            let alone = proxy.link.pools_of([pool.key.clone()].into()).await;
            assert_eq!(alone, Some(vec![pool]));
        }
    });
}
