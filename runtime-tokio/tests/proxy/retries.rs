//! Rows 37 to 39 of the reference, and the compatibility switches of rows 7 and 8.

use http::Response;
use tidegate_core::settings::proxy::ProxySettings;

use crate::harness::*;

/// An app that answers everything with this status and its name.
async fn answering(status: u16, name: &'static str) -> App {
    App::start(move |_| async move { Response::builder().status(status).body(full(name)).expect("a response") }).await
}

async fn proxy(endpoints: &[&App], change: impl FnOnce(&mut ProxySettings)) -> Proxy {
    let addrs: Vec<_> = endpoints.iter().map(|app| app.addr).collect();
    let mut snapshot = snapshot([route("shop", "shop.example", &addrs)]);
    change(&mut snapshot.settings);
    Proxy::start(snapshot).await
}

async fn send(proxy: &Proxy, method: &str, body: &str) -> String {
    let length = body.len();
    let head =
        format!("{method} / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    proxy.raw((head + body).as_bytes()).await
}

#[test]
fn row_37_an_answer_that_says_the_app_cannot_is_sought_elsewhere() {
    run(async {
        for code in [502, 503, 504] {
            let (sick, well) = (answering(code, "sick").await, App::named("well").await);
            let proxy = proxy(&[&sick, &well], |_| {}).await;
            for method in ["GET", "OPTIONS", "DELETE"] {
                for _ in 0..10 {
                    let answer = send(&proxy, method, "").await;
                    assert!(answer.ends_with("well"), "{method} {code}: {answer}");
                    assert!(
                        answer.contains(&format!("x-upstream-addr: {}\r\n", well.addr)),
                        "{answer}"
                    );
                }
            }
            assert!(!sick.seen.borrow().is_empty(), "the sick one was asked too");
        }
    });
}

#[test]
fn row_37_what_is_not_idempotent_or_has_lost_its_body_is_never_sent_twice() {
    run(async {
        let (sick, well) = (answering(503, "sick").await, App::named("well").await);
        let proxy = proxy(&[&sick, &well], |_| {}).await;
        for (method, body) in [("POST", "x"), ("POST", ""), ("PATCH", ""), ("LOCK", ""), ("PUT", "x")] {
            let mut answers = std::collections::BTreeSet::new();
            let before = sick.seen.borrow().len() + well.seen.borrow().len();
            for _ in 0..20 {
                answers.insert(status(&send(&proxy, method, body).await));
            }
            assert_eq!(
                sick.seen.borrow().len() + well.seen.borrow().len() - before,
                20,
                "{method}"
            );
            assert_eq!(answers.into_iter().collect::<Vec<_>>(), [200, 503], "{method} {body:?}");
        }
    });
}

#[test]
fn row_37_the_last_answer_is_passed_on_where_nobody_has_a_better_one() {
    run(async {
        let (one, two) = (answering(503, "one").await, answering(502, "two").await);
        let both = proxy(&[&one, &two], |_| {}).await;
        let answer = send(&both, "GET", "").await;
        let last = if answer.ends_with("one") { 503 } else { 502 };
        assert_eq!(status(&answer), last, "{answer}");
        assert_eq!(
            one.seen.borrow().len() + two.seen.borrow().len(),
            2,
            "each is asked once"
        );
        let alone = proxy(&[&one], |_| {}).await;
        let answer = send(&alone, "GET", "").await;
        assert!(status(&answer) == 503 && answer.ends_with("one"), "{answer}");
        // The other one takes nothing: what was heard is better than that.
        let addrs = [one.addr, nobody().await];
        let deaf = Proxy::start(snapshot([route("shop", "shop.example", &addrs)])).await;
        for _ in 0..5 {
            let answer = send(&deaf, "GET", "").await;
            assert!(status(&answer) == 503 && answer.ends_with("one"), "{answer}");
        }
        let off = proxy(&[&one, &two], |settings| settings.retries_max = 0).await;
        let before = one.seen.borrow().len() + two.seen.borrow().len();
        send(&off, "GET", "").await;
        assert_eq!(one.seen.borrow().len() + two.seen.borrow().len(), before + 1);
    });
}

#[test]
fn row_37_a_500_is_sought_elsewhere_behind_a_switch_alone() {
    run(async {
        let (sick, well) = (answering(500, "sick").await, App::named("well").await);
        let on = proxy(&[&sick, &well], |settings| settings.retry_on_500 = true).await;
        for _ in 0..10 {
            assert!(send(&on, "GET", "").await.ends_with("well"));
        }
        let off = proxy(&[&sick, &well], |_| {}).await;
        let mut answers = std::collections::BTreeSet::new();
        for _ in 0..20 {
            answers.insert(status(&send(&off, "GET", "").await));
        }
        assert_eq!(answers.into_iter().collect::<Vec<_>>(), [200, 500]);
    });
}

#[test]
fn row_37_an_endpoint_that_stays_silent_costs_an_idempotent_request_its_time_and_no_more() {
    run(async {
        let silent = App::start(|_| std::future::pending()).await;
        let well = App::named("well").await;
        let proxy = proxy(&[&silent, &well], |settings| settings.first_byte_timeout_ms = 50).await;
        for _ in 0..5 {
            assert!(send(&proxy, "GET", "").await.ends_with("well"));
        }
    });
}

#[test]
fn row_38_the_response_time_is_real_seconds_with_milliseconds() {
    run(async {
        let app = App::named("shop").await;
        let proxy = proxy(&[&app], |_| {}).await;
        let answer = send(&proxy, "GET", "").await;
        let field = answer
            .lines()
            .find_map(|line| line.strip_prefix("x-upstream-response-time: "));
        let (seconds, millis) = field
            .and_then(|text| text.split_once('.'))
            .expect("seconds with millis");
        assert!(
            seconds.parse::<u64>().expect("a number") < 20 && millis.len() == 3,
            "{field:?}"
        );
    });
}

#[test]
fn row_39_information_is_on_errors_too_unless_it_is_hidden() {
    run(async {
        let app = answering(500, "sick").await;
        let dying = App::scripted(|mut stream| async move {
            read_head(&mut stream).await;
        })
        .await;
        let mut all = snapshot([
            route("shop", "shop.example", &[app.addr]),
            route("dying", "dying.example", &[dying.addr]),
        ]);
        let shown = Proxy::start(all.clone()).await;
        all.settings.hide_info_headers = true;
        let hidden = Proxy::start(all).await;
        for (host, code, upstream) in [
            ("shop.example", 500, Some(app.addr)),
            ("dying.example", 502, Some(dying.addr)),
            ("no.example", 503, None),
        ] {
            let answer = shown.get(host, "/").await;
            assert_eq!(status(&answer), code, "{answer}");
            let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: "));
            assert_eq!(id.map(str::len), Some(32), "{answer}");
            assert!(answer.contains("x-proxy-id: proxy-1\r\n"), "{answer}");
            let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
            let server = answer
                .lines()
                .find_map(|line| line.strip_prefix("x-server-info: tidegate/v"));
            assert!(
                server.is_some_and(|info| info.ends_with(&format!("linux/{arch}"))),
                "{answer}"
            );
            let addr = answer.lines().find_map(|line| line.strip_prefix("x-upstream-addr: "));
            assert_eq!(addr, upstream.map(|addr| addr.to_string()).as_deref(), "{answer}");
            assert_eq!(
                answer.contains("x-upstream-response-time: "),
                upstream.is_some(),
                "{answer}"
            );
            let answer = hidden.get(host, "/").await;
            assert!(status(&answer) == code && !answer.contains("\r\nx-"), "{answer}");
        }
    });
}

#[test]
fn row_08_a_path_without_slash_is_redirected_to_one_behind_a_switch() {
    run(async {
        let app = App::named("shop").await;
        let labels = [
            ("tidegate.hosts", "shop.example"),
            ("tidegate.context_root", "/app"),
            ("tidegate.context_root_rewrite", "true"),
        ];
        let mut snapshot = snapshot([labelled("shop", &labels, &[app.addr])]);
        snapshot.settings.redirect_to_slash = true;
        let proxy = Proxy::start(snapshot).await;
        let answer = proxy.get("shop.example", "/app/x?y=1").await;
        assert!(
            status(&answer) == 301 && answer.contains("location: /app/x/?y=1\r\n"),
            "{answer}"
        );
        assert!(proxy.get("shop.example", "/app/x/?y=1").await.ends_with("shop"));
        assert_eq!(app.head().uri(), "/x/?y=1");
    });
}
