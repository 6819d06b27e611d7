//! Who the client is where balancers and proxies stand in front: PROXY headers, `X-Forwarded-*`, `Forwarded`.

use tidegate::telemetry::log::{AccessFormat, AccessLog, Redaction};
use tidegate_core::settings::proxy::{ProxyProtocol, ProxySettings};

use crate::harness::*;

/// Loopback is a balancer that is trusted.
fn trusting(proxy_protocol: ProxyProtocol) -> ProxySettings {
    ProxySettings {
        trusted_proxies: vec!["127.0.0.0/8".parse().expect("a range")],
        proxy_protocol,
        ..ProxySettings::default()
    }
}

/// A proxy with these settings, before an app with the host `shop.example`.
async fn proxy(settings: ProxySettings, labels: &[(&str, &str)]) -> (Proxy, App) {
    let app = App::named("shop").await;
    let labels = [&[("tidegate.hosts", "shop.example")][..], labels].concat();
    let mut snapshot = snapshot([labelled("shop", &labels, &[app.addr])]);
    snapshot.settings = settings;
    (Proxy::start(snapshot).await, app)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";
const V1: &str = "PROXY TCP4 203.0.113.9 198.51.100.1 4711 8443\r\n";

/// A header of version 2 from 203.0.113.9 port 4711 to 198.51.100.1 port 8443, with a TLV behind it.
fn v2() -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x10".to_vec();
    bytes.extend([203, 0, 113, 9, 198, 51, 100, 1, 0x12, 0x67, 0x20, 0xfb]);
    bytes.extend([4, 0, 1, 0]);
    bytes
}

fn request(fields: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: shop.example\r\n{fields}Connection: close\r\n\r\n").into_bytes()
}

#[test]
fn a_proxy_header_of_either_version_says_who_the_client_is() {
    run(async {
        for mode in [ProxyProtocol::On, ProxyProtocol::Optional] {
            let (proxy, app) = proxy(trusting(mode), &[("tidegate.allow_ips", "203.0.113.9")]).await;
            for header in [V1.as_bytes().to_vec(), v2()] {
                let answer = proxy.raw(&[&header, GET.as_bytes()].concat()).await;
                assert!(answer.ends_with("shop"), "{answer}");
                let head = app.head();
                assert_eq!(head.headers()["x-real-ip"], "203.0.113.9");
                assert_eq!(head.headers()["x-forwarded-for"], "203.0.113.9");
                assert_eq!(head.headers()["x-forwarded-port"], "8443");
                assert!(!head.headers().contains_key("forwarded"));
            }
            let other = V1.replace("203.0.113.9", "203.0.113.10");
            assert_eq!(status(&proxy.raw(format!("{other}{GET}").as_bytes()).await), 403);
        }
    });
}

#[test]
fn without_its_header_a_trusted_connection_is_closed_or_served_as_it_is() {
    run(async {
        let (on, _app) = proxy(trusting(ProxyProtocol::On), &[]).await;
        assert_eq!(on.raw(GET.as_bytes()).await, "");
        let metrics = on.link.metrics().await.expect("metrics");
        assert_eq!(metrics.refused_heads, 1);
        let (optional, app) = proxy(trusting(ProxyProtocol::Optional), &[]).await;
        assert!(optional.raw(GET.as_bytes()).await.ends_with("shop"));
        assert_eq!(app.head().headers()["x-real-ip"], "127.0.0.1");
        // A balancer that asks for itself.
        for local in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"] {
            assert!(on.raw(&[local, GET.as_bytes()].concat()).await.ends_with("shop"));
        }
        assert_eq!(on.raw(b"PROXY TCP4 nonsense\r\n").await, "");
    });
}

#[test]
fn a_proxy_header_of_somebody_who_is_not_trusted_is_no_http() {
    run(async {
        let mut settings = trusting(ProxyProtocol::On);
        settings.trusted_proxies = vec!["10.0.0.0/8".parse().expect("a range")];
        let (proxy, app) = proxy(settings, &[]).await;
        let answer = proxy.raw(format!("{V1}{GET}").as_bytes()).await;
        assert_eq!(status(&answer), 400, "{answer}");
        assert_eq!(app.accepted.get(), 0);
        assert!(
            proxy.raw(GET.as_bytes()).await.ends_with("shop"),
            "without one it is served"
        );
        assert_eq!(app.head().headers()["x-real-ip"], "127.0.0.1");
    });
}

#[test]
fn a_header_that_does_not_end_in_time_closes_the_connection() {
    run(async {
        let mut settings = trusting(ProxyProtocol::Optional);
        settings.header_timeout_ms = 50;
        let (proxy, _app) = proxy(settings, &[]).await;
        assert_eq!(proxy.raw(&V1.as_bytes()[..20]).await, "");
        assert_eq!(proxy.raw(b"").await, "");
    });
}

#[test]
fn what_an_untrusted_client_says_about_itself_is_replaced() {
    run(async {
        let mut settings = ProxySettings {
            forwarded: true,
            // Names that only look like those of our own fields reach the app as they are, if any do.
            underscores_in_headers: true,
            ..ProxySettings::default()
        };
        let fields = "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\nX-Real-IP: 10.0.0.1\r\n\
                      X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Port: 443\r\n\
                      Forwarded: for=10.0.0.1;proto=https\r\nX_Forwarded_For: 10.0.0.1\r\nX-Real_IP: 10.0.0.1\r\n\
                      X_Tenant: blue\r\n";
        for with_ours in [true, false] {
            settings.forwarded = with_ours;
            let (proxy, app) = proxy(settings.clone(), &[]).await;
            proxy.raw(&request(fields)).await;
            let head = app.head();
            let headers = head.headers();
            let port = proxy.addr.port().to_string();
            for (name, expected) in [
                ("x-forwarded-for", "127.0.0.1"),
                ("x-forwarded-host", "shop.example"),
                ("x-forwarded-port", &port),
                ("x-forwarded-proto", "http"),
                ("x-real-ip", "127.0.0.1"),
                ("x_tenant", "blue"),
            ] {
                let values: Vec<_> = headers.get_all(name).into_iter().collect();
                assert_eq!(values, [expected], "{name}");
            }
            assert!(!headers.contains_key("x_forwarded_for") && !headers.contains_key("x-real_ip"));
            let forwarded: Vec<_> = headers.get_all("forwarded").into_iter().collect();
            match with_ours {
                true => assert_eq!(forwarded, ["for=127.0.0.1;host=\"shop.example\";proto=http"]),
                false => assert!(forwarded.is_empty(), "{forwarded:?}"),
            }
        }
    });
}

#[test]
fn what_a_trusted_proxy_says_is_kept_and_added_to() {
    run(async {
        let mut settings = trusting(ProxyProtocol::Off);
        settings.forwarded = true;
        let (proxy, app) = proxy(settings, &[("tidegate.allow_ips", "203.0.113.9")]).await;
        let fields = "X-Forwarded-For: 6.6.6.6, 203.0.113.9, 127.0.0.2\r\nX-Forwarded-Proto: https\r\n\
                      X-Forwarded-Host: www.example\r\nForwarded: for=203.0.113.9\r\n";
        let answer = proxy.raw(&request(fields)).await;
        assert!(answer.ends_with("shop"), "{answer}");
        let head = app.head();
        for (name, expected) in [
            ("x-forwarded-for", "6.6.6.6, 203.0.113.9, 127.0.0.2, 127.0.0.1"),
            ("x-forwarded-host", "www.example"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "203.0.113.9"),
        ] {
            assert_eq!(head.headers()[name], expected, "{name}");
        }
        let forwarded: Vec<_> = head.headers().get_all("forwarded").into_iter().collect();
        assert_eq!(
            forwarded,
            ["for=203.0.113.9", "for=127.0.0.1;host=\"shop.example\";proto=http"]
        );
        // The client's own story does not let it in.
        let answer = proxy.raw(&request("X-Forwarded-For: 203.0.113.9, 6.6.6.6\r\n")).await;
        assert_eq!(status(&answer), 403, "{answer}");
    });
}

#[test]
fn ip_hash_and_the_access_log_go_by_the_client_that_is_found() {
    run(async {
        let (one, two) = (App::named("one").await, App::named("two").await);
        let labels = [("tidegate.hosts", "shop.example"), ("tidegate.ip_hash", "true")];
        let mut snapshot = snapshot([labelled("shop", &labels, &[one.addr, two.addr])]);
        snapshot.settings = trusting(ProxyProtocol::On);
        let (access, lines) = AccessLog::to_channel(AccessFormat::Json, Redaction::default());
        let proxy = Proxy::start_with(snapshot, access, |_| {}).await;
        let mut served = std::collections::BTreeSet::new();
        for client in 1..=20 {
            let header = V1.replace("203.0.113.9", &format!("203.0.113.{client}"));
            let mut of_client = std::collections::BTreeSet::new();
            for _ in 0..3 {
                let answer = proxy.raw(format!("{header}{GET}").as_bytes()).await;
                of_client.insert(answer[answer.len() - 3..].to_owned());
            }
            assert_eq!(of_client.len(), 1, "client {client} stays");
            served.extend(of_client);
        }
        assert_eq!(served.len(), 2, "clients are spread");
        let mut text = String::new();
        until("the lines are written", async || {
            while let Ok(buffer) = lines.try_recv() {
                text += std::str::from_utf8(&buffer).expect("text");
            }
            text.lines().count() == 60
        })
        .await;
        assert!(
            text.lines()
                .next()
                .expect("a line")
                .contains("\"client\":\"203.0.113.1\""),
            "{text}"
        );
    });
}

#[test]
fn https_in_front_counts_for_ssl_only_where_it_is_believed() {
    run(async {
        let settings = trusting(ProxyProtocol::Off);
        for (settings, expected) in [(settings, 200), (ProxySettings::default(), 302)] {
            let app = App::named("shop").await;
            let mut spec = route("shop", "shop.example", &[app.addr]);
            spec.tls.only = true;
            let mut snapshot = snapshot([spec]);
            snapshot.settings = settings;
            let proxy = Proxy::start(snapshot).await;
            assert_eq!(
                status(&proxy.raw(&request("X-Forwarded-Proto: https\r\n")).await),
                expected
            );
            assert_eq!(status(&proxy.raw(&request("")).await), 302);
        }
    });
}

#[test]
fn behind_the_mesh_an_allow_list_lets_nobody_in_whose_address_nobody_said() {
    run(async {
        let mut settings = trusting(ProxyProtocol::Optional);
        settings.behind_mesh = true;
        let (proxy, _app) = proxy(settings, &[("tidegate.allow_ips", "0.0.0.0/0")]).await;
        assert_eq!(status(&proxy.raw(GET.as_bytes()).await), 403);
        assert_eq!(status(&proxy.raw(format!("{V1}{GET}").as_bytes()).await), 200);
        assert_eq!(
            status(&proxy.raw(&request("X-Forwarded-For: 203.0.113.9\r\n")).await),
            200
        );
    });
}
