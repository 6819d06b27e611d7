//! `ssl_backend`: TLS to apps that end it themselves, made by the labels as users write them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use rcgen::date_time_ymd;
use tidegate_core::secrets::message::{Delivery, Parcel};
use tidegate_core::secrets::{SecretProblem, SecretText};

use super::*;

mod probes;

/// What an app heard: the name it was asked for, and the request's head.
struct Heard {
    name: Option<String>,
    head: Request<()>,
}

/// An app that ends TLS with a certificate that may be swapped.
struct Site {
    app: App,
    heard: Rc<RefCell<Vec<Heard>>>,
    pair: Rc<RefCell<Pair>>,
}

fn acceptor(pair: &Pair, alpn: &[&[u8]]) -> TlsAcceptor {
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![pair.der()], key)
        .expect("a key that fits");
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

impl Site {
    /// Answers every request with `body`.
    async fn start(pair: Pair, alpn: &'static [&'static [u8]], body: &'static str) -> Site {
        let heard: Rc<RefCell<Vec<Heard>>> = Rc::default();
        let pair = Rc::new(RefCell::new(pair));
        let (notes, certificate) = (Rc::clone(&heard), Rc::clone(&pair));
        let app = App::scripted(move |stream| {
            let notes = Rc::clone(&notes);
            let acceptor = acceptor(&certificate.borrow(), alpn);
            async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let name = stream.get_ref().1.server_name().map(str::to_owned);
                let service = service_fn(move |request: Request<Incoming>| {
                    let mut head = Request::new(());
                    *head.uri_mut() = request.uri().clone();
                    *head.version_mut() = request.version();
                    *head.headers_mut() = request.headers().clone();
                    let name = name.clone();
                    notes.borrow_mut().push(Heard { name, head });
                    async move { Ok::<_, std::convert::Infallible>(Response::new(full(body))) }
                });
                let _ = auto::Builder::new(LocalExec) // the proxy may leave as it likes
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        })
        .await;
        Site { app, heard, pair }
    }

    fn heard(&self) -> Heard {
        self.heard.borrow_mut().pop().expect("a request")
    }

    fn connections(&self) -> usize {
        self.app.accepted.get()
    }
}

const H1: &[&[u8]] = &[b"http/1.1"];
const H2: &[&[u8]] = &[b"h2"];
const BOTH: &[&[u8]] = &[b"h2", b"http/1.1"];
const HOST: &str = "shop.example.org";
const CA: (&str, &str) = ("tidegate.ssl_backend_ca", "shop.ca");

/// `shop` at these addresses over TLS.
fn over_tls(more: &[(&str, &str)], endpoints: &[SocketAddr]) -> RouteSpec {
    let usual = [
        ("tidegate.hosts", HOST),
        ("tidegate.ssl_backend", "true"),
        ("tidegate.park_timeout", "50ms"),
    ];
    let labels: Vec<(&str, &str)> = usual.into_iter().chain(more.iter().copied()).collect();
    labelled("shop", &labels, endpoints)
}

/// Brings what there is of the secret `shop.ca`.
fn bring(secrets: &Secrets, content: Option<SecretText>, problem: Option<SecretProblem>) {
    let name = "shop.ca".to_owned();
    secrets.take(Delivery {
        names: None,
        secrets: vec![Parcel { name, content, problem }],
    });
}

/// A proxy to which the authority is brought as the secret `shop.ca`.
async fn proxy_trusting(authority: &Authority, snapshot: Snapshot) -> (Proxy, Secrets) {
    let secrets = Secrets::brought();
    secrets.want(RouteTable::compile(&snapshot).secrets());
    bring(&secrets, Some(SecretText::new(authority.pem.as_str())), None);
    (proxy_with(snapshot, &secrets).await, secrets)
}

async fn proxy_with(snapshot: Snapshot, secrets: &Secrets) -> Proxy {
    let secrets = secrets.clone();
    Proxy::start_with(snapshot, AccessLog::off(), move |config| config.secrets = secrets).await
}

async fn grpc(proxy: &Proxy) -> String {
    let head = format!("POST /x HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n");
    let rest = "Content-Type: application/grpc\r\nContent-Length: 0\r\n\r\n";
    proxy.raw(format!("{head}{rest}").as_bytes()).await
}

/// The status and what the page says.
async fn refused(proxy: &Proxy) -> (u16, String) {
    let answer = proxy.get(HOST, "/").await;
    (status(&answer), answer)
}

#[test]
fn label_ssl_backend_speaks_tls_and_takes_any_certificate() {
    run(async {
        let stranger = Authority::new();
        let site = Site::start(stranger.issue(&["another.example.org"]), H1, "over tls").await;
        let proxy = Proxy::start(snapshot([over_tls(&[], &[site.app.addr])])).await;
        let answer = proxy.get(HOST, "/a?b").await;
        assert!(status(&answer) == 200 && answer.ends_with("over tls"), "{answer}");
        let heard = site.heard();
        assert_eq!(heard.name.as_deref(), Some(HOST));
        assert_eq!(
            (heard.head.version(), heard.head.uri().to_string().as_str()),
            (Version::HTTP_11, "/a?b")
        );
        assert_eq!(heard.head.headers()["host"], HOST);
        assert_eq!(heard.head.headers()["x-forwarded-proto"], "http");
    });
}

#[test]
fn label_ssl_backend_server_name_is_what_the_app_is_asked_for() {
    run(async {
        let authority = Authority::new();
        let site = Site::start(authority.issue(&["shop.internal"]), H1, "ok").await;
        let named = over_tls(
            &[CA, ("tidegate.ssl_backend_server_name", "shop.internal")],
            &[site.app.addr],
        );
        let (proxy, _) = proxy_trusting(&authority, snapshot([named])).await;
        assert_eq!(status(&proxy.get(HOST, "/").await), 200);
        assert_eq!(site.heard().name.as_deref(), Some("shop.internal"));
        // An address is verified and never sent.
        let site = Site::start(authority.issue(&["127.0.0.1"]), H1, "ok").await;
        let addressed = over_tls(
            &[CA, ("tidegate.ssl_backend_server_name", "127.0.0.1")],
            &[site.app.addr],
        );
        proxy.publish(&snapshot([addressed]));
        proxy.link.applied().await;
        assert_eq!(status(&proxy.get(HOST, "/").await), 200);
        assert_eq!(site.heard().name, None);
    });
}

#[test]
fn row_16_required_takes_a_certificate_of_the_authority_for_the_name_alone() {
    run(async {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let algorithm = &PKCS_ECDSA_P256_SHA256;
        let expired = authority.issue_with(&[HOST], algorithm, |params| {
            params.not_after = date_time_ymd(2020, 1, 1)
        });
        let early = authority.issue_with(&[HOST], algorithm, |params| {
            params.not_before = date_time_ymd(4000, 1, 1)
        });
        let cases = [
            (authority.issue(&[HOST]), 200, "ok"),
            (
                stranger.issue(&[HOST]),
                502,
                "was not signed by an authority that its route trusts",
            ),
            (
                authority.issue(&["other.example.org"]),
                502,
                "is not for the name that its route verifies",
            ),
            (expired, 502, "has expired"),
            (early, 502, "is not valid yet"),
        ];
        for (pair, expected, says) in cases {
            let site = Site::start(pair, H1, "ok").await;
            let spec = over_tls(&[CA, ("tidegate.ssl_backend_tls_verify", "required")], &[site.app.addr]);
            let (proxy, _) = proxy_trusting(&authority, snapshot([spec])).await;
            let (status, answer) = refused(&proxy).await;
            assert!(status == expected && answer.contains(says), "{says}: {answer}");
            assert_eq!(site.heard.borrow().len(), usize::from(expected == 200));
        }
    });
}

#[test]
fn row_16_without_a_secret_the_authorities_of_the_web_decide() {
    run(async {
        let site = Site::start(Authority::new().issue(&[HOST]), H1, "ok").await;
        let spec = over_tls(
            &[("com.docker.lb.ssl_backend_tls_verify", "required")],
            &[site.app.addr],
        );
        let proxy = Proxy::start(snapshot([spec])).await;
        let (status, answer) = refused(&proxy).await;
        assert!(status == 502 && answer.contains("authority"), "{answer}");
    });
}

#[test]
fn label_ssl_backend_ca_may_hold_the_certificate_of_the_app_itself() {
    run(async {
        // As `openssl req -x509` makes it: an authority of itself.
        let own = |names: &[&str]| {
            let key = KeyPair::generate().expect("a key");
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut params = CertificateParams::new(names).expect("names");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let certificate = params.self_signed(&key).expect("a certificate");
            Pair {
                certificate: certificate.pem(),
                key: key.serialize_pem(),
            }
        };
        for (names, expected) in [([HOST], 200), (["other.example.org"], 502)] {
            let pair = own(&names);
            let pem = pair.certificate.clone();
            let site = Site::start(pair, H1, "ok").await;
            let spec = snapshot([over_tls(&[CA], &[site.app.addr])]);
            let (proxy, secrets) = proxy_trusting(&Authority::new(), spec).await;
            assert_eq!(refused(&proxy).await.0, 502, "nobody vouches for it");
            bring(&secrets, Some(SecretText::new(pem)), None);
            until("the list is taken", async || refused(&proxy).await.0 == expected).await;
        }
    });
}

#[test]
fn label_ssl_backend_ca_that_cannot_be_read_answers_503_until_it_can() {
    run(async {
        let authority = Authority::new();
        let site = Site::start(authority.issue(&[HOST]), H1, "ok").await;
        let table = snapshot([over_tls(&[CA], &[site.app.addr])]);
        let secrets = Secrets::brought();
        secrets.want(RouteTable::compile(&table).secrets());
        let proxy = proxy_with(table, &secrets).await;
        let no_trust = async || {
            let (status, answer) = refused(&proxy).await;
            assert!(status == 503 && answer.contains("authorities"), "{answer}");
        };
        no_trust().await;
        bring(&secrets, None, Some(SecretProblem::Missing));
        no_trust().await;
        bring(&secrets, Some(SecretText::new("no PEM at all")), None);
        no_trust().await;
        // Controllers show it beside the label.
        let found = || -> Vec<String> { secrets.findings().borrow().iter().map(ToString::to_string).collect() };
        assert!(
            found().len() == 1 && found()[0].contains("no PEM block CERTIFICATE"),
            "{:?}",
            found()
        );
        assert_eq!(site.connections(), 0, "not even a connection was tried");
        bring(&secrets, Some(SecretText::new(authority.pem.as_str())), None);
        until("it is read", async || refused(&proxy).await.0 == 200).await;
        assert!(found().is_empty(), "{:?}", found());
        // What was good stays, as long as nothing better comes.
        bring(&secrets, Some(SecretText::new("broken")), None);
        bring(&secrets, None, Some(SecretProblem::Missing));
        assert_eq!(refused(&proxy).await.0, 200);
    });
}

#[test]
fn an_app_without_tls_hears_no_request() {
    run(async {
        let plain = App::named("plain").await;
        let proxy = Proxy::start(snapshot([over_tls(&[], &[plain.addr])])).await;
        let (status, answer) = refused(&proxy).await;
        assert!(status == 502 && answer.contains("does not speak TLS"), "{answer}");
        assert!(plain.seen.borrow().is_empty() && plain.accepted.get() > 0);
    });
}

#[test]
fn an_endpoint_whose_handshake_fails_is_passed_over_and_comes_back_when_it_is_mended() {
    run(async {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let bad = Site::start(stranger.issue(&[HOST]), H1, "mended").await;
        let good = Site::start(authority.issue(&[HOST]), H1, "good").await;
        let spec = over_tls(&[CA], &[bad.app.addr, good.app.addr]);
        let (proxy, _) = proxy_trusting(&authority, snapshot([spec])).await;
        for _ in 0..20 {
            let answer = proxy.get(HOST, "/").await;
            assert!(status(&answer) == 200 && answer.ends_with("good"), "{answer}");
        }
        // It accepts connections all the while, so only a probe that shakes hands tells.
        let refused = bad.connections();
        until("it is probed", async || bad.connections() > refused + 2).await;
        assert!(bad.heard.borrow().is_empty());
        *bad.pair.borrow_mut() = authority.issue(&[HOST]);
        until("it serves again", async || {
            proxy.get(HOST, "/").await.ends_with("mended")
        })
        .await;
    });
}

#[test]
fn a_handshake_that_never_ends_is_over_with_the_connect_timeout() {
    run(async {
        let mute = App::scripted(|mut stream| async move {
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await; // until the proxy hangs up
        })
        .await;
        let proxy = Proxy::start(snapshot([over_tls(
            &[("tidegate.connect_timeout", "50ms")],
            &[mute.addr],
        )]))
        .await;
        assert_eq!(refused(&proxy).await.0, 503, "there is no other endpoint");
        let metrics = proxy.link.metrics().await.expect("the worker lives");
        assert!(metrics.connect_failures > 0 && mute.accepted.get() > 0);
    });
}

#[test]
fn which_http_version_is_spoken_is_agreed_on_by_alpn() {
    run(async {
        let authority = Authority::new();
        let protocol = |word| ("tidegate.backend_protocol", word);
        // What the app offers, what the label says, whether the request is gRPC; what is spoken.
        let h1 = Some(Version::HTTP_11);
        let h2 = Some(Version::HTTP_2);
        for (alpn, word, is_grpc, expected) in [
            (BOTH, "auto", false, h1),
            (BOTH, "auto", true, h2),
            (H1, "auto", true, h1),
            (&[], "auto", true, h1),
            (&[], "auto", false, h1),
            (BOTH, "h2c", false, h2),
            (H2, "h2", true, h2),
            (BOTH, "http1", true, h1),
            (H1, "h2c", false, None),
            (&[], "h2c", false, None),
            (H2, "http1", false, None),
        ] {
            let site = Site::start(authority.issue(&[HOST]), alpn, "ok").await;
            let spec = over_tls(&[CA, protocol(word)], &[site.app.addr]);
            let (proxy, _) = proxy_trusting(&authority, snapshot([spec])).await;
            let ask = async || match is_grpc {
                true => grpc(&proxy).await,
                false => proxy.get(HOST, "/x").await,
            };
            let case = format!("{alpn:?} {word} grpc={is_grpc}");
            for _ in 0..3 {
                let answer = ask().await;
                let Some(version) = expected else {
                    assert!(
                        status(&answer) == 502 && answer.contains("HTTP version"),
                        "{case}: {answer}"
                    );
                    continue;
                };
                assert_eq!(status(&answer), 200, "{case}: {answer}");
                let heard = site.heard();
                assert_eq!(heard.head.version(), version, "{case}");
                if version == Version::HTTP_2 {
                    assert_eq!(heard.head.uri().to_string(), format!("https://{HOST}/x"), "{case}");
                }
            }
            if expected.is_some() {
                assert_eq!(site.connections(), 1, "{case}: one connection for all three");
            }
        }
    });
}

#[test]
fn matrix_websockets_ssl_backend_upgrades_go_over_tls() {
    run(async {
        let authority = Authority::new();
        let acceptor = acceptor(&authority.issue(&[HOST]), BOTH);
        let app = App::scripted(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let mut stream = acceptor.accept(stream).await.expect("a handshake");
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a head"));
                }
                let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
                stream.write_all(answer).await.expect("the proxy reads");
                let (mut read, mut write) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut read, &mut write).await; // it may hang up
                let _ = write.shutdown().await;
            }
        })
        .await;
        let (proxy, _) = proxy_trusting(&authority, snapshot([over_tls(&[CA], &[app.addr])])).await;
        let mut stream = proxy.connect().await;
        let head = format!("GET /chat HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("the proxy reads");
        assert_eq!(status(&read_head(&mut stream).await), 101);
        let words = vec![b'w'; 300_000];
        let (mut read, mut write) = stream.split();
        let sent = async {
            write.write_all(&words).await.expect("the proxy reads");
            write.shutdown().await.expect("half a close");
        };
        let mut back = Vec::new();
        let ((), read) = tokio::join!(sent, read.read_to_end(&mut back));
        read.expect("the end");
        assert!(back == words, "{} bytes of {}", back.len(), words.len());
    });
}

#[test]
fn connections_of_one_trust_are_never_used_for_another() {
    run(async {
        let (authority, another) = (Authority::new(), Authority::new());
        let site = Site::start(authority.issue(&[HOST]), H1, "ok").await;
        let table = |more: &[(&str, &str)]| snapshot([over_tls(more, &[site.app.addr])]);
        let (proxy, secrets) = proxy_trusting(&authority, table(&[])).await;
        let publish = async |table: Snapshot| {
            secrets.want(RouteTable::compile(&table).secrets());
            proxy.publish(&table);
            proxy.link.applied().await;
        };
        let get = async || refused(&proxy).await.0;
        assert_eq!((get().await, get().await, site.connections()), (200, 200, 1));
        publish(table(&[CA])).await;
        bring(&secrets, Some(SecretText::new(authority.pem.as_str())), None);
        until("the secret is taken", async || get().await == 200).await;
        assert_eq!(site.connections(), 2, "the unverified connection is not used any more");
        assert_eq!((get().await, site.connections()), (200, 2));
        // Another name is another question.
        publish(table(&[CA, ("tidegate.ssl_backend_server_name", "x.example.org")])).await;
        assert_eq!(get().await, 502);
        publish(table(&[CA])).await;
        until("a probe succeeds", async || get().await == 200).await;
        // Other authorities behind the same name of a secret.
        bring(&secrets, Some(SecretText::new(another.pem.as_str())), None);
        until("the new authority is asked", async || get().await == 502).await;
        // TLS goes: what is left of it serves no plain request.
        let connections = site.connections();
        publish(snapshot([labelled(
            "shop",
            &[("tidegate.hosts", HOST)],
            &[site.app.addr],
        )]))
        .await;
        assert_eq!(get().await, 502, "the app speaks TLS alone");
        assert!(site.connections() > connections);
    });
}

#[test]
fn a_request_under_way_keeps_its_connection_out_of_the_next_trust() {
    run(async {
        // The app answers when it is told to, on a connection that nobody verified.
        let authority = Authority::new();
        let (tell, told) = tokio::sync::watch::channel(false);
        let acceptor = acceptor(&authority.issue(&[HOST]), H1);
        let begun = Rc::new(Cell::new(0));
        let count = Rc::clone(&begun);
        let app = App::scripted(move |stream| {
            let (acceptor, mut told, count) = (acceptor.clone(), told.clone(), Rc::clone(&count));
            async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut head = Vec::new();
                while let Ok(byte) = stream.read_u8().await {
                    head.push(byte);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        count.set(count.get() + 1);
                        told.wait_for(|told| *told).await.expect("the test lives");
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                        stream.write_all(answer).await.expect("the proxy reads");
                    }
                }
            }
        })
        .await;
        let table = |more: &[(&str, &str)]| snapshot([over_tls(more, &[app.addr])]);
        let (proxy, secrets) = proxy_trusting(&authority, table(&[])).await;
        let mut first = proxy.connect().await;
        let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        first.write_all(head.as_bytes()).await.expect("the proxy reads");
        until("the request is there", async || begun.get() == 1).await;
        let verified = table(&[CA]);
        secrets.want(RouteTable::compile(&verified).secrets());
        bring(&secrets, Some(SecretText::new(Authority::new().pem)), None);
        proxy.publish(&verified);
        proxy.link.applied().await;
        tell.send_replace(true);
        assert_eq!(status(&read_head(&mut first).await), 200, "it ends as it began");
        assert_eq!(read_exact(&mut first, 2).await, b"ok");
        first.write_all(head.as_bytes()).await.expect("the proxy reads");
        assert_eq!(status(&read_head(&mut first).await), 502, "the app is verified now");
        assert_eq!(begun.get(), 1);
    });
}

#[test]
fn matrix_canary_ssl_backend_each_service_is_spoken_to_in_its_own_way() {
    run(async {
        let authority = Authority::new();
        let site = Site::start(authority.issue(&[HOST]), H1, "tls").await;
        let plain = App::named("plain").await;
        let next = over_tls(&[CA], &[site.app.addr]);
        let old = labelled(
            "a-shop",
            &[("tidegate.hosts", HOST), ("tidegate.balance", "round_robin")],
            &[plain.addr],
        );
        let (proxy, _) = proxy_trusting(&authority, snapshot([old, next])).await;
        let (mut by_tls, mut in_the_clear) = (0, 0);
        for _ in 0..10 {
            let answer = proxy.get(HOST, "/").await;
            assert_eq!(status(&answer), 200, "{answer}");
            by_tls += usize::from(answer.ends_with("tls"));
            in_the_clear += usize::from(answer.ends_with("plain"));
        }
        assert_eq!((by_tls, in_the_clear), (5, 5));
    });
}

#[test]
fn matrix_cert_task_tls_ends_here_and_begins_anew() {
    run(async {
        let authority = Authority::new();
        let folder = tempfile::tempdir().expect("a folder");
        put(folder.path(), "front.pem", &authority.issue(&[HOST]).combined());
        put(folder.path(), "shop.ca", &authority.pem);
        let site = Site::start(authority.issue(&[HOST]), H1, "twice").await;
        let spec = over_tls(&[CA, ("tidegate.ssl_cert", "front.pem")], &[site.app.addr]);
        let proxy = start(snapshot([spec]), &keeper(folder.path())).await;
        let mut stream = connect(&proxy, &authority.client(&[]), HOST)
            .await
            .expect("a handshake");
        let answer = get(&mut stream, HOST).await;
        assert!(answer.ends_with("twice"), "{answer}");
        assert_eq!(site.heard().head.headers()["x-forwarded-proto"], "https");
    });
}
