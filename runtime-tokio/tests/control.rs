//! The control network over real sockets: who may read which table, and what arrives.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tidegate::clock::Clock;
use tidegate::control::LinkFact;
use tidegate::control::publish::publish;
use tidegate::control::store::NoStore;
use tidegate::control::subscribe::{Controllers, Subscription, SubscriptionStatus, subscribe};
use tidegate::identity::{
    Authority, CONTROLLER_NAME, IdentityPem, Role, client_config, controller_config, server_config,
};
use tidegate::net::{Net, TokioNet};
use tidegate::secrets::Secrets;
use tidegate_core::id::ClusterName;
use tidegate_core::rng::Rng;
use tidegate_core::settings::proxy::ProxySettings;
use tidegate_core::snapshot::Publisher;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(20);

struct Control {
    clock: Clock,
    authority: Authority,
    address: SocketAddr,
    facts: mpsc::Receiver<LinkFact>,
    _stop: tokio_util::sync::DropGuard,
}

async fn control() -> Control {
    let clock = Clock::system();
    let authority = Authority::generate(clock.wall()).unwrap();
    let identity = authority
        .issue(&Role::Controller, &[authority.certificate_pem()], clock.wall())
        .unwrap();
    let listener = TokioNet
        .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .await
        .unwrap();
    let address = TokioNet.local_addr(&listener).unwrap();
    let (sender, facts) = mpsc::channel(16);
    let stop = CancellationToken::new();
    let (_, tls) = watch::channel(server_config(&identity, clock).unwrap());
    tokio::task::spawn_local(publish(TokioNet, clock, listener, tls, sender, stop.clone()));
    Control {
        clock,
        authority,
        address,
        facts,
        _stop: stop.drop_guard(),
    }
}

impl Control {
    fn proxy_identity(&self, cluster: &str) -> IdentityPem {
        let role = Role::Proxy(ClusterName::from(cluster));
        self.authority
            .issue(&role, &[self.authority.certificate_pem()], self.clock.wall())
            .unwrap()
    }

    /// Starts a proxy's subscription that reports its status and the number of routes it serves.
    fn proxy(
        &self,
        identity: &IdentityPem,
        cluster: &str,
    ) -> (watch::Receiver<SubscriptionStatus>, watch::Receiver<usize>) {
        let subscription = Subscription {
            proxy: "p1".into(),
            cluster: ClusterName::from(cluster),
            controllers: Controllers::Remote {
                net: TokioNet,
                host: "127.0.0.1".to_owned(),
                port: self.address.port(),
                tls: client_config(identity, self.clock).unwrap(),
            },
            store: NoStore,
            secrets: Secrets::folder(std::path::PathBuf::new()),
            clock: self.clock,
            rng: Rng::new(1),
        };
        let (status, statuses) = watch::channel(SubscriptionStatus::default());
        let (routes, served) = watch::channel(usize::MAX);
        let routes = Rc::new(routes);
        tokio::task::spawn_local(subscribe(
            subscription,
            move |table| {
                let routes = routes.clone();
                async move {
                    routes.send_replace(table.snapshot.routes.len());
                }
            },
            move |now| {
                status.send_replace(now);
            },
            CancellationToken::new(),
        ));
        (statuses, served)
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future)
        .await
        .expect("it happens within the limit")
}

async fn local(test: impl Future<Output = ()>) {
    tokio::task::LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_proxy_takes_a_table_and_acknowledges_it() {
    local(async {
        let mut control = control().await;
        let (mut status, mut served) = control.proxy(&control.proxy_identity("east"), "east");
        let Some(LinkFact::Connected {
            connection,
            cluster,
            proxy,
            digest: None,
            lines,
        }) = within(control.facts.recv()).await
        else {
            panic!("a proxy connects")
        };
        assert_eq!((cluster.as_str(), proxy.as_str()), ("east", "p1"));
        let mut publisher = Publisher::new("c1", "0");
        publisher.handle_connected(connection, proxy, None, control.clock.now());
        publisher.publish(BTreeMap::new(), &ProxySettings::default(), "start", control.clock.now());
        while let Some(send) = publisher.poll_action() {
            lines.send(send.line).await.unwrap();
        }
        within(served.wait_for(|routes| *routes == 0)).await.unwrap();
        let Some(LinkFact::Ack { ack, .. }) = within(control.facts.recv()).await else {
            panic!("an ack comes")
        };
        assert_eq!(ack.digest, publisher.digest());
        within(status.wait_for(|status| status.connected && status.has_table))
            .await
            .unwrap();
        drop(lines);
        assert!(matches!(
            within(control.facts.recv()).await,
            Some(LinkFact::Disconnected { .. })
        ));
        within(status.wait_for(|status| !status.connected && status.has_table))
            .await
            .unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_proxy_with_a_foreign_certificate_gets_nothing() {
    local(async {
        let mut control = control().await;
        let stranger = Authority::generate(control.clock.wall()).unwrap();
        // Trusts the real controller, but was not issued by its authority.
        let role = Role::Proxy(ClusterName::from("east"));
        let foreign = stranger
            .issue(&role, &[control.authority.certificate_pem()], control.clock.wall())
            .unwrap();
        let (mut status, _served) = control.proxy(&foreign, "east");
        let proper = control.proxy_identity("west");
        let (_status, _west) = control.proxy(&proper, "west");
        let Some(LinkFact::Connected { cluster, .. }) = within(control.facts.recv()).await else {
            panic!()
        };
        assert_eq!(cluster.as_str(), "west", "only the proper one is heard");
        assert!(!status.borrow_and_update().connected);
    })
    .await;
}

#[tokio::test]
async fn a_certificate_reads_the_table_of_its_own_cluster_alone() {
    local(async {
        let mut control = control().await;
        let (mut wrong, _served) = control.proxy(&control.proxy_identity("west"), "east");
        let (_right, _west) = control.proxy(&control.proxy_identity("west"), "west");
        let Some(LinkFact::Connected { cluster, .. }) = within(control.facts.recv()).await else {
            panic!()
        };
        assert_eq!(cluster.as_str(), "west");
        assert!(!wrong.borrow_and_update().connected);
    })
    .await;
}

#[tokio::test]
async fn a_controller_of_a_foreign_authority_is_not_believed() {
    local(async {
        let mut control = control().await;
        let stranger = Authority::generate(control.clock.wall()).unwrap();
        let role = Role::Proxy(ClusterName::from("east"));
        let misled = control
            .authority
            .issue(&role, &[stranger.certificate_pem()], control.clock.wall())
            .unwrap();
        let (_status, _served) = control.proxy(&misled, "east");
        let (_right, _west) = control.proxy(&control.proxy_identity("west"), "west");
        let Some(LinkFact::Connected { cluster, .. }) = within(control.facts.recv()).await else {
            panic!()
        };
        assert_eq!(cluster.as_str(), "west");
    })
    .await;
}

/// A proxy of another version, request by request.
struct RawProxy {
    requests: SendRequest<Full<Bytes>>,
}

impl RawProxy {
    async fn connect(control: &Control, identity: &IdentityPem) -> RawProxy {
        let stream = TcpStream::connect(control.address).await.unwrap();
        let name = ServerName::try_from(CONTROLLER_NAME).unwrap();
        let tls = TlsConnector::from(client_config(identity, control.clock).unwrap());
        let stream = tls.connect(name, stream).await.unwrap();
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (requests, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::task::spawn_local(connection);
        RawProxy { requests }
    }

    async fn ask(&mut self, method: Method, leaf: &str, body: String) -> Response<Incoming> {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{CONTROLLER_NAME}/v1/clusters/east/{leaf}"))
            .body(Full::from(body))
            .unwrap();
        within(self.requests.send_request(request)).await.unwrap()
    }
}

#[tokio::test]
async fn a_proxy_of_a_later_version_is_understood_as_far_as_it_can_be() {
    local(async {
        let mut control = control().await;
        let mut proxy = RawProxy::connect(&control, &control.proxy_identity("east")).await;
        let table = proxy
            .ask(
                Method::GET,
                "table?proxy=p9&digest=sha3-of-a-later-version&compress=zstd",
                String::new(),
            )
            .await;
        assert_eq!(table.status(), 200);
        let Some(LinkFact::Connected {
            proxy: name,
            digest,
            lines: _lines,
            ..
        }) = within(control.facts.recv()).await
        else {
            panic!("it connects")
        };
        assert_eq!(
            (name.as_str(), digest),
            ("p9", None),
            "a digest that means nothing is none"
        );

        // What it alone knows is refused, and nothing else ends by that.
        let answer = proxy
            .ask(Method::POST, "weather", r#"{"sky":"clear"}"#.to_owned())
            .await;
        assert_eq!(answer.status(), 405);
        let zeros = "0".repeat(64);
        let ack = format!(
            r#"{{"proxy":"p9","revision":7,"digest":"{zeros}","took_ms":{{"p50":1}},
                "refused":[{{"service":"shop","reason":"new","since":3}}]}}"#
        );
        assert_eq!(proxy.ask(Method::POST, "acks", ack).await.status(), 204);
        let fact = within(control.facts.recv()).await;
        let Some(LinkFact::Ack { ack, .. }) = fact else {
            panic!("the acknowledgement counts: {fact:?}")
        };
        assert_eq!((ack.proxy.as_str(), ack.revision.0), ("p9", 7));
        assert_eq!(ack.refused[0].service, "shop");
        drop(table);
        let end = within(control.facts.recv()).await;
        assert!(matches!(end, Some(LinkFact::Disconnected { .. })), "{end:?}");
    })
    .await;
}

/// Whether a proxy that trusts `trusted` alone talks to a controller with these authorities.
async fn is_believed(authorities: &BTreeMap<u64, Authority>, trusted: &Authority) -> bool {
    let clock = Clock::system();
    let server = controller_config(authorities, clock).unwrap();
    let role = Role::Proxy(ClusterName::from("east"));
    let newest = authorities.values().next_back().unwrap();
    let identity = newest.issue(&role, &[trusted.certificate_pem()], clock.wall()).unwrap();
    let connector = TlsConnector::from(client_config(&identity, clock).unwrap());
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let name = CONTROLLER_NAME.try_into().unwrap();
    let (client, _) = tokio::join!(connector.connect(name, ours), TlsAcceptor::from(server).accept(theirs));
    client.is_ok()
}

#[tokio::test]
async fn a_controller_shows_a_certificate_of_the_oldest_authority_that_outlives_it() {
    let now = Clock::system().wall();
    let years = |years: u64| Duration::from_secs(years * 365 * 24 * 3600);
    let made = |ago: u64| Authority::generate(now - years(ago)).unwrap();
    for (first_made, shown) in [(7, 1), (8, 1), (10, 2), (11, 2)] {
        // As it is read back: an authority knows its end from its certificate.
        let first = Authority::from_pem("first", &made(first_made).to_pem()).unwrap();
        let authorities = BTreeMap::from([(1, first), (2, made(0))]);
        for (generation, authority) in &authorities {
            let is_believed = is_believed(&authorities, authority).await;
            assert_eq!(is_believed, *generation == shown, "made {first_made} years ago");
        }
    }
    let last = BTreeMap::from([(1, made(11))]);
    assert!(is_believed(&last, &last[&1]).await, "there is no other one");
    assert!(controller_config(&BTreeMap::new(), Clock::system()).is_err());
}

#[test]
fn identities_survive_their_text_form() {
    let clock = Duration::from_secs(1_800_000_000);
    let authority = Authority::generate(clock).unwrap();
    let again = Authority::from_pem("secret ca", &authority.to_pem()).unwrap();
    assert_eq!(again.certificate_pem(), authority.certificate_pem());
    let role = Role::Proxy(ClusterName::from("east"));
    let identity = again.issue(&role, &[again.certificate_pem()], clock).unwrap();
    let read = IdentityPem::from_pem("secret proxy", &identity.to_pem()).unwrap();
    assert_eq!(read.to_pem(), identity.to_pem());
    let error = IdentityPem::from_pem("secret proxy", "nonsense")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("secret proxy") && error.contains("remove the secret"),
        "{error}"
    );
    assert!(Authority::from_pem("secret ca", &identity.to_pem()[..40]).is_err());
}
