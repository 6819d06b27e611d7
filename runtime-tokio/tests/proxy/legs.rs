//! Endpoints on networks that the proxy is not on: a leg opens the connections. Here the leg's network is loopback, and the
//! proxy believes that it is on none.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tempfile::TempDir;
use tidegate::clock::Clock;
use tidegate::leg::NoLeg;
use tidegate::leg::net::LegNet;
use tidegate::leg::serve::{Leg, serve};
use tidegate::net::Net;
use tidegate::telemetry::log::AccessLog;
use tidegate_core::id::NetworkId;
use tidegate_core::pool::State;
use tidegate_core::route::active::ActiveChecks;
use tidegate_core::route::spec::{EndpointSpec, RouteSpec};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, spawn_local};
use tokio_util::sync::CancellationToken;

use crate::harness::{
    App, LIMIT, Proxy, endpoint, full, nobody, read_exact, read_head, route, run, snapshot, status, until,
};

const LOOPBACK: &str = "127.0.0.0/8";

fn network() -> NetworkId {
    NetworkId::from("net1")
}

/// A leg, and what stops it.
struct Running {
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("no panic").expect("the folder is there");
    }
}

async fn leg(folder: &Path, nonce: u64, inside: &str) -> Running {
    let stop = CancellationToken::new();
    let leg = Leg {
        network: network(),
        inside: vec![inside.parse().expect("a range")],
        folder: folder.to_owned(),
        nonce,
    };
    let beside = folder.join(format!("net1.{nonce:016x}.new"));
    let task = spawn_local(serve(leg, Clock::system(), stop.clone()));
    until("the leg stands", async || {
        folder.join("net1.sock").exists() && !beside.exists() && !task.is_finished()
    })
    .await;
    Running { stop, task }
}

fn over_legs(folder: &TempDir) -> LegNet {
    LegNet::new(Some(folder.path()), Vec::new())
}

fn far(addr: SocketAddr) -> EndpointSpec {
    EndpointSpec {
        via: Some(network()),
        ..endpoint(addr)
    }
}

fn far_route(name: &str, host: &str, addrs: &[SocketAddr]) -> RouteSpec {
    RouteSpec {
        endpoints: addrs.iter().map(|addr| far(*addr)).collect(),
        ..route(name, host, &[])
    }
}

async fn proxy(folder: &TempDir, routes: impl IntoIterator<Item = RouteSpec>) -> Proxy {
    Proxy::start_over(over_legs(folder), snapshot(routes), AccessLog::off(), |_| {}).await
}

#[test]
fn requests_reach_tasks_through_the_leg_of_their_network() {
    run(async {
        let folder = TempDir::new().unwrap();
        let app = App::named("far").await;
        let leg = leg(folder.path(), 1, LOOPBACK).await;
        let proxy = proxy(&folder, [far_route("far", "far.example", &[app.addr])]).await;
        for _ in 0..3 {
            let answer = proxy.get("far.example", "/").await;
            assert!(answer.ends_with("far"), "{answer}");
        }
        let metrics = proxy.link.metrics().await.unwrap();
        assert_eq!((metrics.no_leg, metrics.connect_failures), (0, 0));
        leg.end().await;
    });
}

#[test]
fn active_checks_go_through_the_leg_and_one_that_is_missing_blames_no_task() {
    run(async {
        let folder = TempDir::new().unwrap();
        let asked = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&asked);
        let app = App::start(move |request| {
            let host = request.headers()["host"].to_str().unwrap_or_default().to_owned();
            seen.borrow_mut().push(format!("{host}{}", request.uri()));
            async { http::Response::new(full("ok")) }
        })
        .await;
        let mut far = far_route("far", "far.example", &[app.addr]);
        far.active = Some(ActiveChecks {
            path: "/health".to_owned(),
            host: Some("far.example".to_owned()),
            interval_ms: 10,
            timeout_ms: 1_000,
            statuses: Vec::new(),
        });
        let proxy = proxy(&folder, [far]).await;
        let leg = leg(folder.path(), 1, LOOPBACK).await;
        until("it is asked", async || !asked.borrow().is_empty()).await;
        assert_eq!(asked.borrow()[0], "far.example/health");
        assert_eq!(proxy.pool("far").await.counters.unfit, 0);
        leg.end().await;
    });
}

#[test]
fn requests_wait_for_a_leg_that_is_not_there_yet() {
    run(async {
        let folder = TempDir::new().unwrap();
        let apps = [
            App::named("far").await,
            App::named("far").await,
            App::named("far").await,
        ];
        let near = App::named("near").await;
        let far = far_route("far", "far.example", &apps.each_ref().map(|app| app.addr));
        let proxy = proxy(&folder, [far, route("near", "near.example", &[near.addr])]).await;
        let waiting = {
            let mut client = proxy.connect().await;
            client
                .write_all(b"GET / HTTP/1.1\r\nHost: far.example\r\nConnection: close\r\n\r\n")
                .await
                .unwrap();
            client
        };
        until("the request waits", async || proxy.pool("far").await.parked == 1).await;
        let states: Vec<State> = proxy.pool("far").await.endpoints.iter().map(|e| e.state).collect();
        assert_eq!(states, [State::Probation; 3], "nobody tries them one after the other");
        assert_eq!(
            proxy.link.metrics().await.unwrap().no_leg,
            1,
            "one request met no leg; probes are no requests"
        );
        // Another network is as it was.
        assert_eq!(status(&proxy.get("near.example", "/").await), 200);
        let leg = leg(folder.path(), 1, LOOPBACK).await;
        let mut waiting = waiting;
        assert!(read_head(&mut waiting).await.starts_with("HTTP/1.1 200"));
        leg.end().await;
    });
}

#[test]
fn open_connections_outlive_the_leg_that_made_them() {
    run(async {
        let folder = TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let leg = leg(folder.path(), 1, LOOPBACK).await;
        let net = over_legs(&folder);
        let mut stream = net.connect_on(&network(), addr, LIMIT).await.unwrap();
        assert!(stream.nodelay().unwrap());
        let (mut app, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, stream.local_addr().unwrap());
        leg.end().await;
        assert!(
            !folder.path().join("net1.sock").exists(),
            "a leg that leaves takes its socket along"
        );
        stream.write_all(b"still").await.unwrap();
        assert_eq!(read_exact(&mut app, 5).await, b"still");
        app.write_all(b"here").await.unwrap();
        assert_eq!(read_exact(&mut stream, 4).await, b"here");
        let error = net.connect_on(&network(), addr, LIMIT).await.unwrap_err();
        assert!(error.get_ref().is_some_and(|inner| inner.is::<NoLeg>()), "{error}");
    });
}

#[test]
fn a_new_leg_takes_the_place_of_an_old_one_without_a_gap() {
    run(async {
        let folder = TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let net = over_legs(&folder);
        let mut old = leg(folder.path(), 1, LOOPBACK).await;
        for nonce in 2..6 {
            net.connect_on(&network(), addr, LIMIT).await.unwrap();
            let new = leg(folder.path(), nonce, LOOPBACK).await;
            net.connect_on(&network(), addr, LIMIT).await.unwrap();
            std::mem::replace(&mut old, new).end().await;
        }
        assert!(
            net.connect_on(&network(), addr, LIMIT).await.is_ok(),
            "the old one left the new one's socket alone"
        );
        old.end().await;
    });
}

#[test]
fn a_leg_dials_nothing_outside_its_network() {
    run(async {
        let folder = TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let leg = leg(folder.path(), 1, "10.99.0.0/24").await;
        let net = over_legs(&folder);
        let error = net
            .connect_on(&network(), listener.local_addr().unwrap(), LIMIT)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("not inside"), "{error}");
        let found = net.resolve_on(Some(&network()), "localhost", LIMIT).await.unwrap_err();
        assert_eq!(
            found.kind(),
            ErrorKind::NotFound,
            "an address outside is no answer: {found}"
        );
        leg.end().await;
    });
}

#[test]
fn what_an_endpoint_does_is_told_as_it_is() {
    run(async {
        let folder = TempDir::new().unwrap();
        let leg = leg(folder.path(), 1, "0.0.0.0/0").await;
        let net = over_legs(&folder);
        let refused = net.connect_on(&network(), nobody().await, LIMIT).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        // A listener that nobody accepts from, its backlog full: packets are dropped.
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        full.listen(0).unwrap();
        let addr = full.local_addr().unwrap().as_socket().unwrap();
        let mut filling = Vec::new();
        let limit = Duration::from_millis(200);
        let late = loop {
            match net.connect_on(&network(), addr, limit).await {
                Ok(stream) => filling.push(stream),
                Err(error) => break error,
            }
            assert!(filling.len() < 100);
        };
        assert_eq!(late.kind(), ErrorKind::TimedOut, "{late}");
        leg.end().await;
    });
}

#[test]
fn names_are_asked_for_on_the_network() {
    run(async {
        let folder = TempDir::new().unwrap();
        let leg = leg(folder.path(), 1, LOOPBACK).await;
        let net = over_legs(&folder);
        let found = net.resolve_on(Some(&network()), "localhost", LIMIT).await.unwrap();
        assert_eq!(found, [IpAddr::from([127, 0, 0, 1])]);
        assert!(net.resolve_on(Some(&network()), "not a name", LIMIT).await.is_err());
        leg.end().await;
    });
}

#[test]
fn addresses_of_the_proxys_own_networks_need_no_leg() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let net = LegNet::new(None, vec![LOOPBACK.parse().unwrap()]);
        assert!(
            net.connect_on(&network(), listener.local_addr().unwrap(), LIMIT)
                .await
                .is_ok()
        );
        let found = net.resolve_on(None, "localhost", LIMIT).await.unwrap();
        assert_eq!(found, [IpAddr::from([127, 0, 0, 1])]);
    });
}
