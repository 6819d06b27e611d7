//! Secrets on the control network over real sockets: from a courier to controllers, and from there to the proxies whose
//! service cluster uses them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate::clock::Clock;
use tidegate::control::LinkFact;
use tidegate::control::courier::{CourierApp, carry};
use tidegate::control::publish::publish;
use tidegate::control::store::NoStore;
use tidegate::control::subscribe::{Controllers, Subscription, subscribe};
use tidegate::identity::{Authority, Role, client_config, server_config};
use tidegate::net::{Net, TokioNet};
use tidegate::secrets::Secrets;
use tidegate_core::id::ClusterName;
use tidegate_core::rng::Rng;
use tidegate_core::secrets::message::Parcel;
use tidegate_core::secrets::{Ledger, SecretText};
use tidegate_core::snapshot::{Connection, Publisher};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(20);

fn cluster(name: &str) -> ClusterName {
    ClusterName::from(name)
}

/// The keys of all: certificates of each role.
struct Keys {
    clock: Clock,
    authority: Authority,
}

impl Keys {
    fn new() -> Keys {
        let clock = Clock::system();
        let authority = Authority::generate(clock.wall()).unwrap();
        Keys { clock, authority }
    }

    fn client(&self, role: &Role) -> Arc<rustls::ClientConfig> {
        let roots = [self.authority.certificate_pem()];
        let identity = self.authority.issue(role, &roots, self.clock.wall()).unwrap();
        client_config(&identity, self.clock).unwrap()
    }

    /// A controller that decides by a ledger, as the real one does.
    async fn controller(&self, addr: SocketAddr, wanted: &[(&str, &[&str])]) -> Controller {
        let roots = [self.authority.certificate_pem()];
        let identity = self
            .authority
            .issue(&Role::Controller, &roots, self.clock.wall())
            .unwrap();
        let (_, tls) = watch::channel(server_config(&identity, self.clock).unwrap());
        let listener = TokioNet.listen(addr).await.unwrap();
        let addr = TokioNet.local_addr(&listener).unwrap();
        let (sender, mut facts) = mpsc::channel(16);
        let stop = CancellationToken::new();
        tokio::task::spawn_local(publish(TokioNet, self.clock, listener, tls, sender, stop.clone()));
        let heard = Rc::new(RefCell::new(Vec::new()));
        let mut ledger = Ledger::default();
        let wanted = wanted.iter().map(|(name, secrets)| {
            let secrets: BTreeSet<String> = secrets.iter().map(|name| (*name).to_owned()).collect();
            (cluster(name), secrets)
        });
        let wanted: BTreeMap<ClusterName, BTreeSet<String>> = wanted.collect();
        ledger.look(wanted.clone(), wanted.into_values().flatten().collect());
        let (saying, clock) = (heard.clone(), self.clock);
        let stopping = stop.clone();
        tokio::task::spawn_local(async move {
            let mut publisher = Publisher::new("c1", "0");
            let mut lines: BTreeMap<Connection, mpsc::Sender<Arc<str>>> = BTreeMap::new();
            publisher.publish(BTreeMap::new(), &Default::default(), "start", clock.now());
            loop {
                let fact = tokio::select! { biased;
                    () = stopping.cancelled() => return,
                    fact = facts.recv() => fact,
                };
                let Some(fact) = fact else { return };
                saying.borrow_mut().push(word(&fact));
                match fact {
                    LinkFact::Connected {
                        connection,
                        proxy,
                        digest,
                        lines: to,
                        ..
                    } => {
                        lines.insert(connection, to);
                        publisher.handle_connected(connection, proxy, digest, clock.now());
                    }
                    LinkFact::CourierConnected {
                        connection,
                        task,
                        parcels,
                        lines: to,
                    } => {
                        lines.insert(connection, to);
                        ledger.handle_courier(connection, &task);
                        ledger.handle_parcels(connection, parcels);
                    }
                    LinkFact::SecretsWanted {
                        connection,
                        cluster,
                        proxy,
                        lines: to,
                    } => {
                        lines.insert(connection, to);
                        ledger.handle_listener(connection, cluster, proxy);
                    }
                    LinkFact::SecretsEnded(connection) => {
                        lines.remove(&connection);
                        ledger.handle_disconnected(connection);
                    }
                    LinkFact::Disconnected { connection, .. } => {
                        lines.remove(&connection);
                        publisher.handle_disconnected(connection);
                    }
                    LinkFact::Ack { .. } | LinkFact::OwnNetworks(_) | LinkFact::Report { .. } => {}
                }
                while let Some(send) = publisher.poll_action() {
                    lines[&send.to].send(send.line).await.unwrap();
                }
                while let Some(deliver) = ledger.poll_action() {
                    let line = serde_json::to_string(&deliver.delivery).unwrap() + "\n";
                    lines[&deliver.to].send(line.into()).await.unwrap();
                }
            }
        });
        Controller { addr, heard, stop }
    }
}

/// What was heard, in a word and without its content.
fn word(fact: &LinkFact) -> String {
    match fact {
        LinkFact::Ack { .. } => "ack".to_owned(),
        LinkFact::Connected { cluster, .. } => format!("table of {cluster}"),
        LinkFact::CourierConnected { task, parcels, .. } => {
            let names: Vec<&str> = parcels.iter().map(|parcel| parcel.name.as_str()).collect();
            format!("{task} brings {}", names.join(" "))
        }
        LinkFact::Disconnected { .. } => "end".to_owned(),
        LinkFact::Report { report, .. } => {
            let said: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
            format!("report {}", said.join(" "))
        }
        LinkFact::SecretsEnded(_) => "end of secrets".to_owned(),
        LinkFact::SecretsWanted { cluster, .. } => format!("secrets of {cluster}"),
        LinkFact::OwnNetworks(on) => format!("on {} networks", on.len()),
    }
}

struct Controller {
    addr: SocketAddr,
    heard: Rc<RefCell<Vec<String>>>,
    stop: CancellationToken,
}

impl Controller {
    fn has_heard(&self, what: &str) -> bool {
        self.heard.borrow().iter().any(|line| line.contains(what))
    }
}

fn courier(keys: &Keys, addr: SocketAddr, tls: Arc<rustls::ClientConfig>, task: &str, secrets: &[(&str, &str)]) {
    let app = CourierApp {
        net: TokioNet,
        clock: keys.clock,
        task: task.to_owned(),
        host: addr.ip().to_string(),
        port: addr.port(),
        tls,
    };
    let parcels: Vec<Parcel> = secrets
        .iter()
        .map(|(name, text)| Parcel {
            name: (*name).to_owned(),
            content: Some(SecretText::new(*text)),
            problem: None,
        })
        .collect();
    tokio::task::spawn_local(carry(app, move || parcels.clone(), |_| (), CancellationToken::new()));
}

/// A proxy of `of` that wants `names`, with a certificate for `role`.
fn proxy(keys: &Keys, addr: SocketAddr, of: &str, role: &Role, names: &[&str]) -> Secrets {
    let secrets = Secrets::brought();
    secrets.want(names.iter().map(|name| (*name).to_owned()).collect());
    let subscription = Subscription {
        proxy: "p1".into(),
        cluster: cluster(of),
        controllers: Controllers::Remote {
            net: TokioNet,
            host: addr.ip().to_string(),
            port: addr.port(),
            tls: keys.client(role),
        },
        store: NoStore,
        secrets: secrets.clone(),
        clock: keys.clock,
        rng: Rng::new(1),
    };
    let install = |_| std::future::ready(());
    tokio::task::spawn_local(subscribe(subscription, install, |_| (), CancellationToken::new()));
    secrets
}

fn content(secrets: &Secrets, name: &str) -> Option<String> {
    secrets.get(name).content.map(|text| text.expose().to_owned())
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(LIMIT, async {
        while !done() {
            tokio::task::yield_now().await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[test]
fn secrets_reach_the_proxies_of_the_clusters_that_use_them_and_no_others() {
    run(async {
        let keys = Keys::new();
        let controller = keys
            .controller(ANY, &[("west", &["a", "both"]), ("east", &["b", "both"])])
            .await;
        let everything = ["a", "b", "both"];
        let west = proxy(
            &keys,
            controller.addr,
            "west",
            &Role::Proxy(cluster("west")),
            &everything,
        );
        let east = proxy(
            &keys,
            controller.addr,
            "east",
            &Role::Proxy(cluster("east")),
            &everything,
        );
        let brought = [("a", "of west"), ("b", "of east"), ("both", "of both")];
        courier(
            &keys,
            controller.addr,
            keys.client(&Role::Courier),
            "courier.1",
            &brought,
        );
        until("all is there", || {
            content(&west, "both").is_some() && content(&east, "both").is_some()
        })
        .await;
        assert_eq!(content(&west, "a").as_deref(), Some("of west"));
        assert_eq!(content(&west, "b"), None);
        assert_eq!(content(&east, "b").as_deref(), Some("of east"));
        assert_eq!(content(&east, "a"), None);
    });
}

#[test]
fn a_certificate_of_one_role_is_of_no_use_in_another() {
    run(async {
        let keys = Keys::new();
        let controller = keys.controller(ANY, &[("west", &["a"])]).await;
        let as_proxy = Role::Proxy(cluster("west"));
        courier(
            &keys,
            controller.addr,
            keys.client(&as_proxy),
            "forged",
            &[("a", "forged")],
        );
        let stranger = Keys::new();
        let foreign = {
            // Trusts the real controller, but was not issued by its authority.
            let roots = [keys.authority.certificate_pem()];
            let identity = stranger
                .authority
                .issue(&Role::Courier, &roots, keys.clock.wall())
                .unwrap();
            client_config(&identity, keys.clock).unwrap()
        };
        courier(&keys, controller.addr, foreign, "foreign", &[("a", "foreign")]);
        let as_courier = proxy(&keys, controller.addr, "west", &Role::Courier, &["a"]);
        let of_another = proxy(&keys, controller.addr, "west", &Role::Proxy(cluster("east")), &["a"]);
        let proper = proxy(&keys, controller.addr, "west", &as_proxy, &["a"]);
        courier(
            &keys,
            controller.addr,
            keys.client(&Role::Courier),
            "proper",
            &[("a", "real")],
        );
        until("the proper one is given it", || content(&proper, "a").is_some()).await;
        // Those that are refused have tried several times by the time that a second proper proxy was served.
        let later = proxy(&keys, controller.addr, "west", &as_proxy, &["a"]);
        until("the later one too", || content(&later, "a").is_some()).await;
        assert_eq!(content(&proper, "a").as_deref(), Some("real"));
        assert!(!controller.has_heard("forged") && !controller.has_heard("foreign"));
        assert_eq!(content(&as_courier, "a"), None);
        assert_eq!(content(&of_another, "a"), None);
    });
}

#[test]
fn a_new_controller_is_handed_everything_and_proxies_keep_what_they_have_meanwhile() {
    run(async {
        let keys = Keys::new();
        let first = keys.controller(ANY, &[("west", &["a"])]).await;
        let role = Role::Proxy(cluster("west"));
        let early = proxy(&keys, first.addr, "west", &role, &["a"]);
        courier(
            &keys,
            first.addr,
            keys.client(&Role::Courier),
            "courier.1",
            &[("a", "1")],
        );
        until("the first controller has it", || content(&early, "a").is_some()).await;
        first.stop.cancel();
        let late = proxy(&keys, first.addr, "west", &role, &["a"]);
        assert_eq!(content(&early, "a").as_deref(), Some("1"), "without a controller");
        assert!(late.findings().borrow().iter().all(|finding| finding.passing));
        let second = keys.controller(first.addr, &[("west", &["a"])]).await;
        until("a proxy that never saw the first has it", || {
            content(&late, "a").is_some()
        })
        .await;
        assert!(second.has_heard("courier.1 brings a"));
        assert_eq!(content(&early, "a").as_deref(), Some("1"));
    });
}

#[test]
fn another_courier_brings_another_content() {
    run(async {
        let keys = Keys::new();
        let controller = keys.controller(ANY, &[("west", &["a"])]).await;
        let secrets = proxy(&keys, controller.addr, "west", &Role::Proxy(cluster("west")), &["a"]);
        let tls = keys.client(&Role::Courier);
        courier(&keys, controller.addr, tls.clone(), "courier.1", &[("a", "1")]);
        until("the first", || content(&secrets, "a").as_deref() == Some("1")).await;
        let before = secrets.get("a").version;
        courier(&keys, controller.addr, tls, "courier.2", &[("a", "2")]);
        until("the second", || content(&secrets, "a").as_deref() == Some("2")).await;
        assert_ne!(secrets.get("a").version, before);
    });
}

#[test]
fn what_a_proxy_finds_wrong_reaches_the_controller() {
    run(async {
        let keys = Keys::new();
        let controller = keys.controller(ANY, &[("west", &["a"])]).await;
        let secrets = proxy(&keys, controller.addr, "west", &Role::Proxy(cluster("west")), &["a"]);
        until("it is connected", || controller.has_heard("secrets of west")).await;
        let finding = tidegate_core::secrets::Finding::new("a", "the certificate a has expired", "make another");
        secrets.report("certificates", [finding].into());
        until("it is reported", || {
            controller.has_heard("report the certificate a has expired; make another")
        })
        .await;
        // What is only on its way is no word worth.
        assert!(!controller.has_heard("not been brought"));
        secrets.report("certificates", BTreeSet::new());
        until("it is taken back", || {
            controller.heard.borrow().last().is_some_and(|last| last == "report ")
        })
        .await;
    });
}
