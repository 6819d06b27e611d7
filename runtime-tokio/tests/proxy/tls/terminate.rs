//! `ssl_cert`: TLS ends here, with certificates from a folder of secrets.

use super::*;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rcgen::PKCS_RSA_SHA256;
use rustls::CipherSuite;
use tidegate_core::secrets::SecretText;
use tidegate_core::secrets::message::{Delivery, Parcel};
use tidegate_core::settings::proxy::ProxySettings;
use tokio::sync::oneshot;
use tokio::task::spawn_local;

/// A proxy with one app for `a.example.org`, and the secret `cert` for it.
struct Scene {
    authority: Authority,
    folder: tempfile::TempDir,
    keep: Keep,
    app: App,
    proxy: Proxy,
}

impl Scene {
    async fn new() -> Scene {
        Scene::with(ProxySettings::default()).await
    }

    async fn with(settings: ProxySettings) -> Scene {
        let authority = Authority::new();
        let folder = tempfile::tempdir().expect("a folder");
        put(folder.path(), "cert", &authority.issue(&["a.example.org"]).combined());
        let app = App::named("hello").await;
        let keep = keeper(folder.path());
        let spec = with_certificate(route("a", "a.example.org", &[app.addr]), &["cert"]);
        let mut snapshot = snapshot([spec]);
        snapshot.settings = settings;
        let proxy = start(snapshot, &keep).await;
        Scene {
            authority,
            folder,
            keep,
            app,
            proxy,
        }
    }

    /// As a new table with another label would.
    fn relabel(&self, secret: &str) {
        let spec = with_certificate(route("a", "a.example.org", &[self.app.addr]), &[secret]);
        self.keep.install(&snapshot([spec]));
    }

    /// The certificate that a new connection gets, trusted and for its name.
    async fn served(&self) -> CertificateDer<'static> {
        leaf(
            &connect(&self.proxy, &self.authority.client(&[]), "a.example.org")
                .await
                .expect("a handshake"),
        )
    }
}

fn leaf(stream: &Tls) -> CertificateDer<'static> {
    let (_, session) = stream.get_ref();
    session.peer_certificates().expect("a certificate")[0].clone()
}

#[test]
fn label_ssl_cert_ends_tls_and_the_app_learns_of_it() {
    run(async {
        let scene = Scene::new().await;
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let client = scene.authority.client_with(provider(), &[version], &[]);
            let mut stream = connect(&scene.proxy, &client, "a.example.org")
                .await
                .expect("a handshake");
            let answer = get(&mut stream, "a.example.org").await;
            assert!(answer.ends_with("hello"), "{answer}");
            let head = scene.app.head();
            assert_eq!(head.headers()["x-forwarded-proto"], "https");
            assert_eq!(head.headers()["x-forwarded-port"], "443");
        }
        // §2.2: plain HTTP goes on beside it.
        assert!(scene.proxy.get("a.example.org", "/").await.ends_with("hello"));
        assert_eq!(scene.app.head().headers()["x-forwarded-proto"], "http");
    });
}

#[test]
fn option_ssl_protocols_keeps_older_clients_out() {
    run(async {
        let scene = Scene::with(ProxySettings {
            tls_min_version: "1.3".to_owned(),
            ..ProxySettings::default()
        })
        .await;
        let client = |version| scene.authority.client_with(provider(), &[version], &[]);
        let (older, newer) = (client(&rustls::version::TLS12), client(&rustls::version::TLS13));
        let refused = connect(&scene.proxy, &older, "a.example.org").await;
        let error = refused.expect_err("it is too old").to_string();
        assert!(error.contains("ProtocolVersion"), "{error}");
        let mut stream = connect(&scene.proxy, &newer, "a.example.org")
            .await
            .expect("a handshake");
        assert!(get(&mut stream, "a.example.org").await.ends_with("hello"));
    });
}

#[test]
fn option_ssl_ciphers_are_the_only_ones_of_their_version() {
    const NAMED: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    run(async {
        let scene = Scene::with(ProxySettings {
            tls_ciphers: vec!["ECDHE-ECDSA-AES128-GCM-SHA256".to_owned()],
            ..ProxySettings::default()
        })
        .await;
        let client = |chosen: fn(CipherSuite) -> bool, version| {
            let mut provider = rustls::crypto::CryptoProvider::clone(&provider());
            provider.cipher_suites.retain(|suite| chosen(suite.suite()));
            scene.authority.client_with(Arc::new(provider), &[version], &[])
        };
        // Left to itself the proxy would choose a stronger one.
        let all = client(|_| true, &rustls::version::TLS12);
        let stream = connect(&scene.proxy, &all, "a.example.org").await.expect("a handshake");
        let suite = stream.get_ref().1.negotiated_cipher_suite().expect("a cipher");
        assert_eq!(suite.suite(), NAMED);
        let others = client(|suite| suite != NAMED, &rustls::version::TLS12);
        let refused = connect(&scene.proxy, &others, "a.example.org").await;
        let error = refused.expect_err("no cipher in common").to_string();
        assert!(error.contains("HandshakeFailure"), "{error}");
        // None of 1.3 is named, so all of them are spoken.
        let newer = client(|_| true, &rustls::version::TLS13);
        connect(&scene.proxy, &newer, "a.example.org")
            .await
            .expect("a handshake");
    });
}

#[test]
fn alpn_offers_http2_and_http1() {
    run(async {
        let scene = Scene::new().await;
        for (offered, chosen) in [("h2 http/1.1", Some("h2")), ("http/1.1", Some("http/1.1")), ("", None)] {
            let offered: Vec<&[u8]> = offered.split_whitespace().map(str::as_bytes).collect();
            let client = scene.authority.client(&offered);
            let stream = connect(&scene.proxy, &client, "a.example.org")
                .await
                .expect("a handshake");
            assert_eq!(stream.get_ref().1.alpn_protocol(), chosen.map(str::as_bytes));
        }
        let client = scene.authority.client(&[b"h2"]);
        let stream = connect(&scene.proxy, &client, "a.example.org")
            .await
            .expect("a handshake");
        let handshake = hyper::client::conn::http2::handshake(LocalExec, TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.expect("HTTP/2");
        spawn_local(async move {
            let _ = connection.await; // ends with the test
        });
        let request = Request::get("https://a.example.org/").body(Empty::<bytes::Bytes>::new());
        let answer = timeout(LIMIT, sender.send_request(request.expect("a request"))).await;
        let body = answer.expect("in time").expect("an answer").into_body().collect().await;
        assert_eq!(&body.expect("a body").to_bytes()[..], b"hello");
        // Nothing in common is an alert, not a guess.
        let client = scene.authority.client(&[b"spdy/1"]);
        let refused = connect(&scene.proxy, &client, "a.example.org").await;
        let error = refused.expect_err("no protocol in common").to_string();
        assert!(error.contains("NoApplicationProtocol"), "{error}");
    });
}

#[test]
fn certificates_are_chosen_by_sni_exact_before_wildcard_before_the_default_backends() {
    run(async {
        let authority = Authority::new();
        let folder = tempfile::tempdir().expect("a folder");
        for (secret, name) in [
            ("exact", "a.example.org"),
            ("wild", "*.example.org"),
            ("default", "default.example.com"),
        ] {
            put(folder.path(), secret, &authority.issue(&[name]).combined());
        }
        let app = App::named("hello").await;
        let mut fallback = with_certificate(route("d", "default.example.com", &[app.addr]), &["default"]);
        fallback.default_backend = true;
        let table = snapshot([
            with_certificate(route("a", "a.example.org", &[app.addr]), &["exact"]),
            with_certificate(route("b", "*.example.org", &[app.addr]), &["wild"]),
            route("c", "plain.example.org", &[app.addr]),
            fallback,
        ]);
        let proxy = start(table, &keeper(folder.path())).await;
        let client = authority.client(&[]);
        let exact = leaf(&connect(&proxy, &client, "a.example.org").await.expect("a handshake"));
        let wild = leaf(&connect(&proxy, &client, "b.example.org").await.expect("a handshake"));
        assert_ne!(exact, wild);
        let plain = leaf(
            &connect(&proxy, &client, "plain.example.org")
                .await
                .expect("a handshake"),
        );
        assert_eq!(plain, wild);
        // An unknown name meets the default backend's certificate, which its client does not take.
        let refused = connect(&proxy, &client, "other.example.net").await;
        let error = refused.expect_err("another name").to_string();
        assert!(error.contains("not valid for name"), "{error}");
    });
}

#[test]
fn of_an_rsa_and_an_ecdsa_certificate_each_client_gets_one_that_it_can_use() {
    run(async {
        let authority = Authority::new();
        let folder = tempfile::tempdir().expect("a folder");
        let ecdsa = authority.issue(&["a.example.org"]);
        let rsa = authority.issue_with(&["a.example.org"], &PKCS_RSA_SHA256, |_| ());
        put(folder.path(), "rsa", &rsa.combined());
        put(folder.path(), "ecdsa", &ecdsa.combined());
        let app = App::named("hello").await;
        let spec = with_certificate(route("a", "a.example.org", &[app.addr]), &["rsa", "ecdsa"]);
        let proxy = start(snapshot([spec]), &keeper(folder.path())).await;
        let chosen = leaf(
            &connect(&proxy, &authority.client(&[]), "a.example.org")
                .await
                .expect("a handshake"),
        );
        assert_eq!(chosen, ecdsa.der());
        // A client that has RSA alone.
        let mut old = rustls::crypto::aws_lc_rs::default_provider();
        let suite = rustls::CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;
        old.cipher_suites.retain(|supported| supported.suite() == suite);
        let old = authority.client_with(Arc::new(old), &[&rustls::version::TLS12], &[]);
        let chosen = leaf(&connect(&proxy, &old, "a.example.org").await.expect("a handshake"));
        assert_eq!(chosen, rsa.der());
    });
}

#[test]
fn a_certificate_replaced_twenty_times_closes_no_connection() {
    run(async {
        let scene = Scene::new().await;
        let client = scene.authority.client(&[]);
        let mut open = connect(&scene.proxy, &client, "a.example.org")
            .await
            .expect("a handshake");
        for number in 0..20 {
            let pair = scene.authority.issue(&["a.example.org"]);
            let secret = format!("cert-{number}");
            put(scene.folder.path(), &secret, &pair.combined());
            scene.relabel(&secret);
            assert_eq!(scene.served().await, pair.der());
            let request = b"GET / HTTP/1.1\r\nHost: a.example.org\r\n\r\n";
            open.write_all(request).await.expect("the proxy reads");
            let mut answer = String::new();
            while !answer.ends_with("hello") {
                answer += &read_text(&mut open, 1).await;
            }
        }
    });
}

#[test]
fn a_file_that_changes_in_place_is_served_anew() {
    run(async {
        let scene = Scene::new().await;
        let before = scene.served().await;
        let pair = scene.authority.issue(&["a.example.org", "b.example.org"]);
        put(scene.folder.path(), "cert", &pair.combined());
        scene
            .keep
            .secrets
            .clone()
            .follow(Clock::system(), scene.proxy.drain.clone());
        scene.keep.certificates.clone().follow(scene.proxy.drain.clone());
        until("the new certificate", async || scene.served().await != before).await;
        assert_eq!(scene.served().await, pair.der());
    });
}

#[test]
fn row_13_certificate_and_key_are_in_one_secret_or_in_two() {
    run(async {
        let scene = Scene::new().await;
        let pair = scene.authority.issue(&["a.example.org"]);
        put(scene.folder.path(), "only.cert", &pair.certificate);
        put(scene.folder.path(), "only.key", &pair.key);
        let mut spec = with_certificate(route("a", "a.example.org", &[scene.app.addr]), &["only.cert"]);
        spec.tls.certificates[0].key = Some("only.key".to_owned());
        scene.keep.install(&snapshot([spec]));
        assert_eq!(scene.served().await, pair.der());
        put(
            scene.folder.path(),
            "key-first",
            &format!("{}{}", pair.key, pair.certificate),
        );
        scene.relabel("key-first");
        assert_eq!(scene.served().await, pair.der());
    });
}

#[test]
fn row_14_a_host_keeps_its_last_good_certificate_and_http() {
    run(async {
        let scene = Scene::new().await;
        let good = scene.served().await;
        let other = scene.authority.issue(&["a.example.org"]);
        let misnamed = scene.authority.issue(&["b.example.org"]);
        let expired = scene
            .authority
            .issue_with(&["a.example.org"], &PKCS_ECDSA_P256_SHA256, |params| {
                params.not_before = rcgen::date_time_ymd(2020, 1, 1);
                params.not_after = rcgen::date_time_ymd(2020, 2, 1);
            });
        for (secret, text) in [
            ("missing", None),
            ("no-pem", Some("no certificate at all".to_owned())),
            ("no-key", Some(other.certificate.clone())),
            ("wrong-key", Some(format!("{}{}", other.certificate, misnamed.key))),
            ("wrong-name", Some(misnamed.combined())),
            ("expired", Some(expired.combined())),
        ] {
            if let Some(text) = text {
                put(scene.folder.path(), secret, &text);
            }
            scene.relabel(secret);
            assert_eq!(scene.served().await, good, "{secret}");
            let metrics = scene.keep.certificates.metrics();
            assert!(
                metrics.contains("\ntidegate_certificate_findings 1\n"),
                "{secret}: {metrics}"
            );
            assert!(scene.proxy.get("a.example.org", "/").await.ends_with("hello"));
        }
        put(scene.folder.path(), "missing", &other.combined());
        scene.relabel("missing");
        assert_eq!(scene.served().await, other.der());
        let metrics = scene.keep.certificates.metrics();
        let expiry = "tidegate_certificate_expires_in_seconds{certificate=\"missing\"} ";
        assert!(metrics.contains(expiry), "{metrics}");
        assert!(metrics.contains("\ntidegate_certificate_findings 0\n"), "{metrics}");
    });
}

#[test]
fn a_host_whose_certificate_never_was_there_gets_an_alert_and_serves_http() {
    run(async {
        let authority = Authority::new();
        let app = App::named("hello").await;
        let secrets = ["../../etc/hostname", "missing"];
        let spec = with_certificate(route("a", "a.example.org", &[app.addr]), &secrets);
        let proxy = start_bare(snapshot([spec])).await;
        let refused = connect(&proxy, &authority.client(&[]), "a.example.org").await;
        let error = refused.expect_err("no certificate").to_string();
        assert!(error.contains("UnrecognisedName"), "{error}");
        assert!(proxy.get("a.example.org", "/").await.ends_with("hello"));
    });
}

#[test]
fn a_certificate_that_is_brought_is_served_and_closes_nothing() {
    run(async {
        let (authority, app) = (Authority::new(), App::named("hello").await);
        let spec = |secret| with_certificate(route("a", "a.example.org", &[app.addr]), &[secret]);
        let keep = Keep::over(Secrets::brought());
        let proxy = start(snapshot([spec("one")]), &keep).await;
        keep.certificates.clone().follow(proxy.drain.clone());
        let client = authority.client(&[]);
        let refused = connect(&proxy, &client, "a.example.org").await;
        assert!(refused.is_err(), "nothing was brought yet");
        assert!(proxy.get("a.example.org", "/").await.ends_with("hello"));
        let bring = |name: &str, pair: &Pair| {
            let parcel = Parcel {
                name: name.to_owned(),
                content: Some(SecretText::new(pair.combined())),
                problem: None,
            };
            keep.secrets.take(Delivery {
                names: Some([name.to_owned()].into()),
                secrets: vec![parcel],
            });
        };
        let served = async || -> Option<CertificateDer<'static>> {
            let stream = connect(&proxy, &client, "a.example.org").await.ok()?;
            let certificates = stream.get_ref().1.peer_certificates()?;
            Some(certificates[0].clone().into_owned())
        };
        let (one, two) = (authority.issue(&["a.example.org"]), authority.issue(&["a.example.org"]));
        bring("one", &one);
        until("the first", async || served().await == Some(one.der())).await;
        let mut open = connect(&proxy, &client, "a.example.org").await.expect("a handshake");
        // The label names another: the last good one is served until that is brought.
        keep.install(&snapshot([spec("two")]));
        proxy.publish(&snapshot([spec("two")]));
        assert_eq!(served().await, Some(one.der()));
        bring("two", &two);
        until("the second", async || served().await == Some(two.der())).await;
        assert!(
            get(&mut open, "a.example.org").await.ends_with("hello"),
            "an open connection lives on"
        );
    });
}

#[test]
fn tickets_of_one_worker_are_taken_by_its_siblings() {
    run(async {
        let scene = Scene::new().await;
        let spec = with_certificate(route("a", "a.example.org", &[scene.app.addr]), &["cert"]);
        let sibling = start(snapshot([spec]), &scene.keep).await;
        let client = scene.authority.client(&[]);
        let mut first = connect(&scene.proxy, &client, "a.example.org")
            .await
            .expect("a handshake");
        get(&mut first, "a.example.org").await; // tickets come with the first bytes
        assert_eq!(first.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        let second = connect(&sibling, &client, "a.example.org").await.expect("a handshake");
        assert_eq!(
            second.get_ref().1.handshake_kind(),
            Some(rustls::HandshakeKind::Resumed)
        );
    });
}

#[test]
fn row_15_ssl_only_redirects_plain_http_to_the_port_of_https() {
    run(async {
        let authority = Authority::new();
        let folder = tempfile::tempdir().expect("a folder");
        put(folder.path(), "cert", &authority.issue(&["a.example.org"]).combined());
        let app = App::named("hello").await;
        let mut spec = with_certificate(route("a", "a.example.org", &[app.addr]), &["cert"]);
        spec.tls.only = true;
        let mut table = snapshot([spec]);
        table.settings.https_port = 8443;
        let proxy = start(table, &keeper(folder.path())).await;
        let answer = proxy.get("a.example.org:8080", "/x?y=%2F").await;
        assert_eq!(status(&answer), 302);
        assert!(
            answer.contains("location: https://a.example.org:8443/x?y=%2F\r\n"),
            "{answer}"
        );
        assert_eq!(app.accepted.get(), 0);
        let client = authority.client(&[]);
        let mut stream = connect(&proxy, &client, "a.example.org").await.expect("a handshake");
        assert!(get(&mut stream, "a.example.org").await.ends_with("hello"));
        assert_eq!(app.head().headers()["x-forwarded-port"], "8443");
    });
}

#[test]
fn a_request_for_a_passthrough_host_on_a_connection_that_ended_here_is_misdirected() {
    run(async {
        let scene = Scene::new().await;
        scene.proxy.publish(&snapshot([
            with_certificate(route("a", "a.example.org", &[scene.app.addr]), &["cert"]),
            passthrough(route("b", "b.example.org", &[scene.app.addr])),
        ]));
        scene.proxy.link.applied().await;
        let client = scene.authority.client(&[]);
        let mut stream = connect(&scene.proxy, &client, "a.example.org")
            .await
            .expect("a handshake");
        assert_eq!(status(&get(&mut stream, "b.example.org").await), 421);
    });
}

/// Runs a program on a thread of its own; `None` where it is not installed.
async fn program(name: &'static str, line: &str) -> Option<String> {
    let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let mut command = std::process::Command::new(name);
        tell.send(command.args(arguments).stdin(std::process::Stdio::null()).output())
    });
    match timeout(LIMIT, told).await.expect("in time").expect("a thread") {
        Ok(output) => Some(text(&output.stdout) + &text(&output.stderr)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: {name} is not installed");
            None
        }
        Err(error) => panic!("{name}: {error}"),
    }
}

#[test]
fn curl_and_openssl_are_served() {
    run(async {
        let scene = Scene::new().await;
        put(scene.folder.path(), "ca.pem", &scene.authority.pem);
        let authority = scene.folder.path().join("ca.pem");
        let (authority, port) = (authority.display(), scene.proxy.tls_addr.expect("it takes TLS").port());
        for version in [
            "--tlsv1.2 --tls-max 1.2 --http1.1",
            "--tlsv1.3 --http1.1",
            "--tlsv1.2 --http2",
        ] {
            let line = format!(
                "-sS {version} --cacert {authority} --resolve a.example.org:{port}:127.0.0.1 https://a.example.org:{port}/"
            );
            let Some(answer) = program("curl", &line).await else {
                break;
            };
            assert_eq!(answer, "hello", "{line}");
        }
        for version in ["-tls1_2", "-tls1_3"] {
            let line =
                format!("s_client -connect 127.0.0.1:{port} -servername a.example.org -CAfile {authority} {version}");
            let Some(answer) = program("openssl", &line).await else {
                break;
            };
            assert!(answer.contains("Verify return code: 0 (ok)"), "{answer}");
        }
    });
}
