//! `ssl_passthrough`: by SNI, untouched.

use super::*;

/// The bytes of a ClientHello for `name`.
fn hello(authority: &Authority, name: &str) -> Vec<u8> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut client = rustls::ClientConnection::new(authority.client(&[]), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a vector takes everything");
    bytes
}

#[test]
fn label_ssl_passthrough_leads_each_name_to_the_app_that_ends_tls_itself() {
    run(async {
        let authority = Authority::new();
        let a = authority.app("a.example.org", "app-a").await;
        let b = authority.app("deep.b.example.org", "app-b").await;
        let proxy = start_bare(snapshot([
            passthrough(route("a", "a.example.org", &[a.addr])),
            passthrough(route("b", "*.example.org", &[b.addr])),
        ]))
        .await;
        // The client checks the app's own certificate.
        let client = authority.client(&[]);
        let mut stream = connect(&proxy, &client, "a.example.org").await.expect("a handshake");
        assert_eq!(read_text(&mut stream, 5).await, "app-a");
        let mut stream = connect(&proxy, &client, "deep.b.example.org")
            .await
            .expect("a handshake");
        assert_eq!(read_text(&mut stream, 5).await, "app-b");
        stream.write_all(&[b'x'; 1000]).await.expect("the app reads");
        assert_eq!(read_text(&mut stream, 1000).await, "x".repeat(1000));
        let metrics = proxy.link.metrics().await.expect("the worker lives");
        assert_eq!(metrics.passthrough, 2);
    });
}

#[test]
fn a_hello_that_comes_byte_by_byte_is_replayed_whole() {
    run(async {
        let authority = Authority::new();
        let heard = App::scripted(|mut stream| async move {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes).await; // until the client ends its side
            let _ = stream.write_all(&bytes).await;
        })
        .await;
        let proxy = start_bare(snapshot([passthrough(route("a", "a.example.org", &[heard.addr]))])).await;
        let hello = hello(&authority, "a.example.org");
        let addr = proxy.tls_addr.expect("it takes TLS");
        let mut stream = TcpStream::connect(addr).await.expect("the proxy accepts");
        stream.set_nodelay(true).expect("a socket");
        for byte in &hello {
            stream.write_all(&[*byte]).await.expect("the proxy reads");
            tokio::task::yield_now().await;
        }
        stream.shutdown().await.expect("half a close");
        let mut echoed = Vec::new();
        let read = timeout(LIMIT, stream.read_to_end(&mut echoed)).await;
        read.expect("an end").expect("bytes");
        assert_eq!(echoed, hello);
    });
}

#[test]
fn a_proxy_header_comes_before_tls_and_says_who_the_client_is() {
    run(async {
        let authority = Authority::new();
        let heard = App::scripted(|mut stream| async move {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes).await; // until the client ends its side
            let _ = stream.write_all(&bytes).await;
        })
        .await;
        let mut spec = passthrough(route("a", "a.example.org", &[heard.addr]));
        spec.allow_ips = Some(vec!["203.0.113.9".parse().expect("a range")]);
        let mut snapshot = snapshot([spec]);
        snapshot.settings.trusted_proxies = vec!["127.0.0.1".parse().expect("a range")];
        snapshot.settings.proxy_protocol = tidegate_core::settings::proxy::ProxyProtocol::On;
        let proxy = start_bare(snapshot).await;
        let hello = hello(&authority, "a.example.org");
        let addr = proxy.tls_addr.expect("it takes TLS");
        let answer = async |header: &str| {
            let mut stream = TcpStream::connect(addr).await.expect("the proxy accepts");
            let bytes = [header.as_bytes(), &hello].concat();
            stream.write_all(&bytes).await.expect("the proxy reads");
            stream.shutdown().await.expect("half a close");
            let mut answer = Vec::new();
            let _ = timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("an end"); // perhaps a reset
            answer
        };
        assert_eq!(answer("PROXY TCP4 203.0.113.9 10.0.0.1 1 443\r\n").await, hello);
        let access_denied = [21, 3, 3, 0, 2, 2, 49];
        assert_eq!(answer("PROXY TCP4 203.0.113.8 10.0.0.1 1 443\r\n").await, access_denied);
        assert_eq!(answer("").await, b"", "without a header it is closed");
        let metrics = proxy.link.metrics().await.expect("the worker lives");
        assert_eq!(metrics.tls_failures["proxy_header"], 1);
    });
}

#[test]
fn matrix_passthrough_task_an_endpoint_that_refuses_is_passed_over_for_the_next() {
    run(async {
        let authority = Authority::new();
        let app = authority.app("a.example.org", "alive").await;
        let endpoints = [nobody().await, app.addr, nobody().await];
        let proxy = start_bare(snapshot([passthrough(route("a", "a.example.org", &endpoints))])).await;
        let client = authority.client(&[]);
        for _ in 0..5 {
            let mut stream = connect(&proxy, &client, "a.example.org").await.expect("a handshake");
            assert_eq!(read_text(&mut stream, 5).await, "alive");
        }
    });
}

#[test]
fn a_passed_connection_outlives_the_leaving_of_its_endpoint_and_new_ones_go_elsewhere() {
    run(async {
        let authority = Authority::new();
        let old = authority.app("a.example.org", "old").await;
        let new = authority.app("a.example.org", "new").await;
        let table = |endpoints| {
            let mut spec = passthrough(route("a", "a.example.org", &[]));
            spec.endpoints = endpoints;
            snapshot([spec])
        };
        let proxy = start_bare(table(vec![endpoint(old.addr)])).await;
        let client = authority.client(&[]);
        let mut first = connect(&proxy, &client, "a.example.org").await.expect("a handshake");
        assert_eq!(read_text(&mut first, 3).await, "old");
        proxy.publish(&table(vec![leaving(old.addr, 0), endpoint(new.addr)]));
        proxy.link.applied().await;
        let mut second = connect(&proxy, &client, "a.example.org").await.expect("a handshake");
        assert_eq!(read_text(&mut second, 3).await, "new");
        // Not even its route's end closes it.
        proxy.publish(&snapshot([]));
        proxy.link.applied().await;
        first.write_all(b"still here").await.expect("the app reads");
        assert_eq!(read_text(&mut first, 10).await, "still here");
    });
}

#[test]
fn plain_http_to_a_passthrough_host_is_503_or_a_redirect_with_ssl_only() {
    run(async {
        let mut redirected = passthrough(route("b", "b.example.org", &[]));
        redirected.tls.only = true;
        let proxy = start_bare(snapshot([passthrough(route("a", "a.example.org", &[])), redirected])).await;
        assert_eq!(status(&proxy.get("a.example.org", "/x").await), 503);
        let answer = proxy.get("b.example.org", "/x?y=z").await;
        assert_eq!(status(&answer), 302);
        assert!(answer.contains("location: https://b.example.org/x?y=z\r\n"), "{answer}");
    });
}

#[test]
fn what_is_not_for_us_is_answered_in_its_own_words() {
    run(async {
        let authority = Authority::new();
        let proxy = start_bare(snapshot([])).await;
        let addr = proxy.tls_addr.expect("it takes TLS");
        let answer = async |bytes: Vec<u8>| {
            let mut stream = TcpStream::connect(addr).await.expect("the proxy accepts");
            stream.write_all(&bytes).await.expect("the proxy reads");
            let mut answer = Vec::new();
            let _ = timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("an end");
            answer
        };
        let plain = text(&answer(b"GET / HTTP/1.1\r\nHost: a.example.org\r\n\r\n".to_vec()).await);
        assert_eq!(status(&plain), 400);
        assert!(plain.ends_with("write https:// in the URL\n"), "{plain}");
        // RFC 6066 §3: unrecognized_name, fatal.
        assert_eq!(
            answer(hello(&authority, "a.example.org")).await,
            [21, 3, 3, 0, 2, 2, 112]
        );
        // RFC 8446 §6.2: decode_error.
        assert_eq!(answer(vec![22, 3, 1, 0, 0]).await, [21, 3, 3, 0, 2, 2, 50]);
        assert_eq!(answer(vec![22, 3, 1, 0, 9, 1, 9, 9, 9]).await, [21, 3, 3, 0, 2, 2, 50]);
        let metrics = proxy.link.metrics().await.expect("the worker lives");
        let counts: Vec<(&str, u64)> = metrics
            .tls_failures
            .iter()
            .map(|(why, count)| (why.as_str(), *count))
            .collect();
        assert_eq!(
            counts,
            [
                ("malformed", 1),
                ("not_tls", 1),
                ("too_long", 1),
                ("unrecognized_name", 1)
            ]
        );
    });
}

#[test]
fn a_connection_that_nobody_takes_ends_with_an_alert() {
    run(async {
        let authority = Authority::new();
        let mut table = snapshot([passthrough(route("a", "a.example.org", &[nobody().await]))]);
        table.settings.park_ms = 0;
        table.settings.retries_max = 0;
        let proxy = start_bare(table).await;
        let refused = connect(&proxy, &authority.client(&[]), "a.example.org").await;
        let error = refused.expect_err("nobody listens").to_string();
        assert!(error.contains("InternalError"), "{error}");
    });
}

#[test]
fn a_drain_waits_for_passed_connections() {
    run(async {
        let authority = Authority::new();
        let app = authority.app("a.example.org", "alive").await;
        let proxy = start_bare(snapshot([passthrough(route("a", "a.example.org", &[app.addr]))])).await;
        let mut stream = connect(&proxy, &authority.client(&[]), "a.example.org")
            .await
            .expect("a handshake");
        assert_eq!(read_text(&mut stream, 5).await, "alive");
        proxy.drain.cancel();
        stream.write_all(b"on").await.expect("the app reads");
        assert_eq!(read_text(&mut stream, 2).await, "on");
        assert!(!proxy.done.is_finished());
        drop(stream);
        let ended = timeout(LIMIT, proxy.done).await.expect("the worker ends");
        ended.expect("no panic").expect("no error");
    });
}

/// An app that repeats what it hears, once it has heard the end.
async fn echo_at_the_end() -> App {
    App::scripted(|mut stream| async move {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await; // until the client ends its side
        let _ = stream.write_all(&bytes).await;
    })
    .await
}

/// Sends all of it, then hears what comes back until the end.
async fn send_and_hear(proxy: &Proxy, bytes: Vec<u8>) -> Vec<u8> {
    let stream = TcpStream::connect(proxy.tls_addr.expect("it takes TLS"))
        .await
        .expect("the proxy accepts");
    let (mut read, mut write) = stream.into_split();
    let sent = async {
        write.write_all(&bytes).await.expect("the proxy reads");
        write.shutdown().await.expect("half a close");
    };
    let mut heard = Vec::new();
    let ((), end) = timeout(LIMIT, async { tokio::join!(sent, read.read_to_end(&mut heard)) })
        .await
        .expect("an end");
    end.expect("bytes");
    heard
}

#[test]
fn large_transfers_both_ways_and_half_a_close_pass_unchanged() {
    run(async {
        let app = echo_at_the_end().await;
        let proxy = start_bare(snapshot([passthrough(route("a", "a.example.org", &[app.addr]))])).await;
        let mut bytes = hello(&Authority::new(), "a.example.org");
        bytes.extend((0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8));
        let heard = send_and_hear(&proxy, bytes.clone()).await;
        assert!(heard == bytes, "{} bytes of {}", heard.len(), bytes.len());
    });
}

#[test]
fn label_proxy_protocol_says_who_the_client_is_before_its_first_byte() {
    run(async {
        let hello = hello(&Authority::new(), "a.example.org");
        for version in ["v1", "v2"] {
            let app = echo_at_the_end().await;
            let labels = [
                ("tidegate.hosts", "a.example.org"),
                ("tidegate.ssl_passthrough", "true"),
                ("tidegate.proxy_protocol", version),
            ];
            let proxy = start_bare(snapshot([labelled("a", &labels, &[app.addr])])).await;
            let to = proxy.tls_addr.expect("it takes TLS");
            let mut stream = TcpStream::connect(to).await.expect("the proxy accepts");
            let from = stream.local_addr().expect("an address");
            stream.write_all(&hello).await.expect("the proxy reads");
            stream.shutdown().await.expect("half a close");
            let mut heard = Vec::new();
            timeout(LIMIT, stream.read_to_end(&mut heard))
                .await
                .expect("an end")
                .expect("bytes");
            let header = match version {
                "v1" => format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", from.port(), to.port()).into_bytes(),
                _ => {
                    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01".to_vec();
                    header.extend(from.port().to_be_bytes());
                    header.extend(to.port().to_be_bytes());
                    header
                }
            };
            assert_eq!(text(&heard[..header.len()]), text(&header), "{version}");
            assert_eq!(heard[header.len()..], hello, "{version}");
        }
    });
}

#[test]
fn row_18_plain_http_to_a_passthrough_host_is_redirected_where_labels_say_so() {
    run(async {
        let labels = [
            ("com.docker.lb.hosts", "a.example.org"),
            ("com.docker.lb.ssl_passthrough", "true"),
            ("com.docker.lb.redirects", "http://a.example.org,https://a.example.org"),
        ];
        let proxy = start_bare(snapshot([labelled("a", &labels, &[nobody().await])])).await;
        let answer = proxy.get("a.example.org", "/x?y=z").await;
        assert_eq!(status(&answer), 302);
        assert!(answer.contains("location: https://a.example.org/x?y=z\r\n"), "{answer}");
    });
}

#[test]
fn row_12_a_passthrough_host_with_a_certificate_of_its_own_or_another_service_is_passed_through() {
    run(async {
        let authority = Authority::new();
        let app = authority.app("a.example.org", "app").await;
        let folder = tempfile::tempdir().expect("a folder");
        put(
            folder.path(),
            "a.pem",
            &Authority::new().issue(&["a.example.org"]).combined(),
        );
        let labels = [
            ("com.docker.lb.hosts", "a.example.org"),
            ("com.docker.lb.ssl_passthrough", "true"),
            ("com.docker.lb.ssl_cert", "a.pem"),
        ];
        let passed = labelled("b-passed", &labels, &[app.addr]);
        let ended = labelled("a-ended", &[labels[0], labels[2]], &[nobody().await]);
        let proxy = start(snapshot([ended, passed]), &keeper(folder.path())).await;
        let mut stream = connect(&proxy, &authority.client(&[]), "a.example.org")
            .await
            .expect("the app's own certificate");
        assert_eq!(read_text(&mut stream, 3).await, "app");
    });
}

#[test]
fn tls_without_a_name_reaches_the_default_backend_alone() {
    run(async {
        let authority = Authority::new();
        let app = authority.app("127.0.0.1", "app").await;
        let proxy = start_bare(snapshot([passthrough(route("a", "a.example.org", &[app.addr]))])).await;
        let client = authority.client(&[]);
        let refused = connect(&proxy, &client, "127.0.0.1")
            .await
            .expect_err("nobody is meant");
        assert!(refused.to_string().contains("UnrecognisedName"), "{refused}");
        let mut fallback = passthrough(route("a", "a.example.org", &[app.addr]));
        fallback.default_backend = true;
        proxy.publish(&snapshot([fallback]));
        proxy.link.applied().await;
        let mut stream = connect(&proxy, &client, "127.0.0.1").await.expect("a handshake");
        assert_eq!(read_text(&mut stream, 3).await, "app");
    });
}
