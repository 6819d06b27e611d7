//! Clients that come back to the endpoint that they had, and shares of services.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::route::spec::RouteSpec;

use crate::harness::*;

/// Apps that answer with their own number.
async fn apps(count: u8) -> Vec<App> {
    let mut apps = Vec::new();
    for number in 0..count {
        apps.push(App::start(move |_| async move { http::Response::new(full(vec![b'0' + number])) }).await);
    }
    apps
}

fn sticky(labels: &[(&str, &str)], apps: &[App]) -> RouteSpec {
    let labels: Vec<_> = [("tidegate.hosts", "shop.example")]
        .into_iter()
        .chain(labels.iter().copied())
        .collect();
    let addrs: Vec<_> = apps.iter().map(|app| app.addr).collect();
    labelled("shop", &labels, &addrs)
}

/// Who answers a request with these cookies.
async fn asked(proxy: &Proxy, cookies: &str) -> char {
    let request = format!("GET / HTTP/1.1\r\nHost: shop.example\r\nCookie: {cookies}\r\nConnection: close\r\n\r\n");
    let answer = proxy.raw(request.as_bytes()).await;
    assert_eq!(status(&answer), 200, "{answer}");
    answer.chars().last().expect("a body")
}

async fn homes(proxy: &Proxy) -> BTreeMap<u32, char> {
    let mut homes = BTreeMap::new();
    for client in 0..40 {
        homes.insert(client, asked(proxy, &format!("x=1; app_session=c{client}")).await);
    }
    homes
}

#[test]
fn label_sticky_session_cookie_leads_back_and_scaling_moves_the_fewest() {
    run(async {
        let apps = apps(4).await;
        let labels = [("com.docker.lb.sticky_session_cookie", "app_session")];
        let three = snapshot([sticky(&labels, &apps[..3])]);
        let proxy = Proxy::start(three.clone()).await;
        let before = homes(&proxy).await;
        assert_eq!(homes(&proxy).await, before);
        assert_eq!(
            before.values().collect::<BTreeSet<_>>().len(),
            3,
            "all endpoints have clients: {before:?}"
        );
        // Another proxy makes the same choice.
        let other = Proxy::start(three.clone()).await;
        assert_eq!(homes(&other).await, before);

        proxy.publish(&snapshot([sticky(&labels, &apps)]));
        until("the fourth is there", async || {
            proxy.pool("shop").await.endpoints.len() == 4
        })
        .await;
        let grown = homes(&proxy).await;
        for (client, home) in &grown {
            assert!(
                *home == '3' || *home == before[client],
                "client {client} moved between old endpoints"
            );
        }
        assert!(grown.values().any(|home| *home == '3'));
        proxy.publish(&three);
        until("the fourth is gone", async || {
            proxy.pool("shop").await.endpoints.len() == 3
        })
        .await;
        assert_eq!(homes(&proxy).await, before);
    });
}

#[test]
fn a_client_whose_endpoint_leaves_goes_to_the_next_and_comes_back() {
    run(async {
        let apps = apps(3).await;
        let labels = [("com.docker.lb.sticky_session_cookie", "app_session")];
        let all = sticky(&labels, &apps);
        let proxy = Proxy::start(snapshot([all.clone()])).await;
        let before = homes(&proxy).await;
        let mut without = all.clone();
        let gone = all
            .endpoints
            .iter()
            .position(|endpoint| endpoint.addr == apps[0].addr)
            .expect("listed");
        without.endpoints[gone].leaving = Some(tidegate_core::route::spec::Leaving { last_resort_ms: 60_000 });
        proxy.publish(&snapshot([without]));
        until("it leaves", async || {
            proxy
                .pool("shop")
                .await
                .endpoints
                .iter()
                .any(|endpoint| endpoint.state.name() != "ready")
        })
        .await;
        let during = homes(&proxy).await;
        assert_eq!(during, homes(&proxy).await, "they keep together meanwhile");
        for (client, home) in &before {
            assert!(if *home == '0' {
                during[client] != '0'
            } else {
                during[client] == *home
            });
        }
        proxy.publish(&snapshot([all]));
        until("it stays after all", async || {
            proxy
                .pool("shop")
                .await
                .endpoints
                .iter()
                .all(|endpoint| endpoint.state.name() == "ready")
        })
        .await;
        assert_eq!(homes(&proxy).await, before);
    });
}

#[test]
fn row_35_without_the_apps_cookie_requests_are_balanced_and_no_cookie_is_set() {
    run(async {
        let apps = apps(2).await;
        let labels = [
            ("com.docker.lb.sticky_session_cookie", "app_session"),
            ("tidegate.balance", "round_robin"),
        ];
        let proxy = Proxy::start(snapshot([sticky(&labels, &apps)])).await;
        for cookies in ["", "other=1", "app_session="] {
            let mut homes = BTreeSet::new();
            for _ in 0..2 {
                homes.insert(asked(&proxy, cookies).await);
            }
            assert_eq!(homes.len(), 2, "{cookies:?}");
        }
        assert!(!proxy.get("shop.example", "/").await.contains("set-cookie"));
    });
}

#[test]
fn label_sticky_cookie_is_set_once_and_leads_back() {
    run(async {
        let apps = apps(3).await;
        let proxy = Proxy::start(snapshot([sticky(&[("tidegate.sticky_cookie", "lb")], &apps)])).await;
        let mut homes = BTreeSet::new();
        for _ in 0..20 {
            let answer = proxy.get("shop.example", "/").await;
            let home = answer.chars().last().expect("a body");
            homes.insert(home);
            let line = answer
                .lines()
                .find(|line| line.starts_with("set-cookie: "))
                .expect("a cookie");
            let (pair, attributes) = line["set-cookie: ".len()..].split_once("; ").expect("attributes");
            assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
            let value = pair.strip_prefix("lb=").expect("its name");
            assert!(
                value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{value}"
            );
            let request =
                format!("GET / HTTP/1.1\r\nHost: shop.example\r\nCookie: {pair}\r\nConnection: close\r\n\r\n");
            let again = proxy.raw(request.as_bytes()).await;
            assert!(again.ends_with(home) && !again.contains("set-cookie"), "{again}");
        }
        assert!(homes.len() > 1, "new clients are spread");
        // What we did not make is replaced.
        let forged = proxy
            .raw(b"GET / HTTP/1.1\r\nHost: shop.example\r\nCookie: lb=10.0.0.1:80\r\nConnection: close\r\n\r\n")
            .await;
        assert!(forged.contains("set-cookie: lb="), "{forged}");
    });
}

#[test]
fn label_ip_hash_sends_one_client_to_one_endpoint() {
    run(async {
        let apps = apps(3).await;
        let proxy = Proxy::start(snapshot([sticky(&[("com.docker.lb.ip_hash", "true")], &apps)])).await;
        let mut homes = BTreeSet::new();
        for _ in 0..12 {
            homes.insert(asked(&proxy, "").await);
        }
        assert_eq!(homes.len(), 1);
    });
}

#[test]
fn label_weight_is_the_share_that_a_service_gets() {
    run(async {
        let apps = apps(4).await;
        let service = |name: &str, weight: &str, apps: &[App]| {
            let labels = [
                ("tidegate.hosts", "shop.example"),
                ("tidegate.balance", "round_robin"),
                ("tidegate.weight", weight),
            ];
            let addrs: Vec<_> = apps.iter().map(|app| app.addr).collect();
            labelled(name, &labels, &addrs)
        };
        let proxy = Proxy::start(snapshot([service("a", "3", &apps[..1]), service("b", "1", &apps[1..])])).await;
        let mut counts = BTreeMap::new();
        for _ in 0..24 {
            *counts.entry(asked(&proxy, "").await).or_insert(0) += 1;
        }
        assert_eq!(counts, BTreeMap::from([('0', 18), ('1', 2), ('2', 2), ('3', 2)]));
        proxy.publish(&snapshot([
            service("a", "0", &apps[..1]),
            service("b", "1", &apps[1..]),
        ]));
        until("the new weights hold", async || asked(&proxy, "").await != '0').await;
        for _ in 0..12 {
            assert_ne!(asked(&proxy, "").await, '0');
        }
    });
}

#[test]
fn row_36_each_service_of_a_pool_has_its_own_max_fails() {
    run(async {
        let dies = || {
            App::scripted(|mut stream| async move {
                read_head(&mut stream).await;
            })
        };
        let (strict, lenient) = (dies().await, dies().await);
        let good = App::named("good").await;
        let service = |name: &str, max_fails: &str, addrs: &[std::net::SocketAddr]| {
            let labels = [
                ("tidegate.hosts", "shop.example"),
                ("com.docker.lb.max_fails", max_fails),
                ("com.docker.lb.fail_timeout", "1h"),
            ];
            labelled(name, &labels, addrs)
        };
        let routes = [
            service("strict", "1", &[strict.addr, good.addr]),
            service("lenient", "0", &[lenient.addr]),
        ];
        let proxy = Proxy::start(snapshot(routes)).await;
        for _ in 0..40 {
            proxy.get("shop.example", "/").await;
        }
        let pool = proxy.pool("lenient+strict").await;
        let state = |addr| {
            let mut endpoints = pool.endpoints.iter();
            endpoints
                .find(|endpoint| endpoint.addr == addr)
                .map(|endpoint| endpoint.state.name())
        };
        assert_eq!(state(strict.addr), Some("ejected"));
        assert_eq!(state(lenient.addr), Some("ready"));
        assert_eq!(strict.accepted.get(), 1);
        assert!(lenient.accepted.get() > 1);
    });
}
