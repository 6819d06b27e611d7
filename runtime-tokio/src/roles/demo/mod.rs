//! `tidegate demo`: the real controller core and the real workers beside a simulated Swarm whose tasks are real HTTP
//! servers on loopback. Needs no Docker and no root.
//!
//! The Swarm takes its measured time for everything, so what is seen here is what a real one does: the apps publish
//! random host-mode ports, hence SIGTERM comes 1.1 s after the decision.

mod engine;
mod load;
mod service;
mod story;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use tidegate_core::controller::Me;
use tidegate_core::id::{ClusterName, ProxyId, ServiceId};
use tidegate_core::reconcile::desired::{ServiceShape, UpdatePolicy};
use tidegate_core::rng::Rng;
use tidegate_core::settings::Settings;
use tidegate_core::simulated::{Delays, Swarm};
use tidegate_core::swarm::model::{ApiError, PublishMode, PublishedPort};
use tidegate_core::time::Instant;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::proxy::Workers;
use super::{Failure, serve_admin, stop_signal, taken};
use crate::app::admin::{ControllerAdmin, RunAdmin};
use crate::app::controller::{ControllerApp, run_controller};
use crate::cli::{AccessLogFormat, AdminArgs, DemoArgs, EXIT_FINDING, ListenArgs, RecordArgs};
use crate::clock::Clock;
use crate::control::store::NoStore;
use crate::control::subscribe::{Controllers, Subscription, SubscriptionStatus, subscribe};
use crate::leg::net::LegNet;
use crate::net::TokioNet;
use crate::secrets::Secrets;
use engine::Engine;
use load::{Load, Wish};
use service::Behaviour;
use story::{REQUESTS_MIN, Story, millis};

/// The host of the services `shop` and `api`.
const SHOP_HOST: &str = "shop.example.org";
/// A host that `shop` gets and loses.
const STORE_HOST: &str = "store.example.org";
const BLOG_HOST: &str = "blog.example.org";
/// Port inside the containers.
const APP_PORT: u16 = 8000;
/// The demo's own users.
const USERS: u32 = 32;

/// Why a demo cannot go on.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    /// Something that always happens did not happen.
    #[error("error: waited a minute in vain: {0}; this is a bug, please report it with the seed")]
    Stuck(&'static str),
    /// The simulated Swarm refused.
    #[error("error: the simulated Swarm refused: {0}; this is a bug, please report it with the seed")]
    Swarm(ApiError),
}

/// What users ask for all the time.
fn wishes() -> Vec<Wish> {
    let wish = |host, path, service| Wish { host, path, service };
    vec![
        wish(SHOP_HOST, "/", "shop"),
        wish(SHOP_HOST, "/api/orders", "api"),
        wish(BLOG_HOST, "/", "blog"),
    ]
}

pub(super) async fn run(args: DemoArgs) -> Result<ExitCode, Failure> {
    let clock = Clock::system();
    let stop = stop_signal()?;
    let rng = Rng::new(args.seed);
    let http = settle_port(args.http, "the HTTP listener", "--http")?;
    let admin = settle_port(args.admin, "the admin listener", "--admin")?;
    if http.port() == admin.port() {
        return Err(Failure::usage(format!(
            "error: --http and --admin both say port {}: choose another for one of them",
            http.port()
        )));
    }
    let rate = args.rate.clamp(1, 20_000);

    let (engine, services) = swarm(clock, &rng).map_err(failure)?;
    let (workers, ended) = product(&engine, http, admin, args.record, &rng).await?;
    let load = Load::new(clock, reachable(http));
    let [shop, blog] = services;
    let mut story = Story {
        engine,
        load: load.clone(),
        shop,
        blog,
        rng: rng.fork("story"),
    };
    introduce(http, admin, args.once);
    let told = tokio::select! { biased;
        () = stop.cancelled() => return finish(workers, ended).await,
        begun = story.begin() => begun,
    };
    told.map_err(failure)?;
    load.start(USERS, rate);
    let told = tokio::select! { biased;
        () = stop.cancelled() => None,
        told = async { if args.once { story.once().await } else { story.for_ever().await } } => Some(told),
    };
    let interrupted = told.is_none();
    told.unwrap_or(Ok(())).map_err(failure)?;
    load.finish().await;
    let whole = summarize(&load, if args.once { REQUESTS_MIN } else { 0 });
    let code = finish(workers, ended).await?;
    Ok(if whole && !(args.once && interrupted) {
        code
    } else {
        ExitCode::from(EXIT_FINDING)
    })
}

fn failure(error: DemoError) -> Failure {
    Failure {
        code: EXIT_FINDING,
        message: error.to_string(),
    }
}

/// A port that all workers can share: 0 becomes a free one, and one that is taken is said so.
fn settle_port(addr: SocketAddr, what: &str, flag: &str) -> Result<SocketAddr, Failure> {
    let bound = std::net::TcpListener::bind(addr).and_then(|listener| listener.local_addr());
    bound.map_err(|error| taken(what, flag, addr, &error))
}

/// Where the demo's own users find a listener that may be bound to every address.
fn reachable(addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        SocketAddr::from((Ipv4Addr::LOCALHOST, addr.port()))
    } else {
        addr
    }
}

/// Three nodes, three services.
fn swarm(clock: Clock, rng: &Rng) -> Result<(Engine, [ServiceId; 2]), DemoError> {
    let mut swarm = Swarm::new(Delays::default(), rng.fork("swarm"));
    let here = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    for (name, manager) in [("manager-1", true), ("worker-1", false), ("worker-2", false)] {
        swarm.add_node(name, here, manager, Instant::START);
    }
    let behaviour = |work_ms, drain_ms| Behaviour {
        work: Duration::from_millis(work_ms),
        drain: Duration::from_millis(drain_ms),
    };
    let behaviours = BTreeMap::from([
        ("api".to_owned(), behaviour(2, 0)),
        ("blog".to_owned(), behaviour(5, 500)),
        ("shop".to_owned(), behaviour(1, 0)),
    ]);
    let engine = Engine::start(swarm, clock, behaviours);
    let create = |shape| {
        engine
            .command(|swarm, now| swarm.create_service(shape, now))
            .map_err(DemoError::Swarm)
    };
    let shop = create(shape("shop", 3, &[("hosts", SHOP_HOST)]))?;
    create(shape("api", 1, &[("hosts", SHOP_HOST), ("context_root", "/api")]))?;
    let blog = create(shape("blog", 2, &[("hosts", BLOG_HOST)]))?;
    Ok((engine, [shop, blog]))
}

fn shape(name: &str, replicas: u64, labels: &[(&str, &str)]) -> ServiceShape {
    let port = APP_PORT.to_string();
    let labels = labels.iter().copied().chain([("port", port.as_str())]);
    ServiceShape {
        name: name.to_owned(),
        image: format!("{name}:1"),
        labels: labels
            .map(|(key, value)| (format!("com.docker.lb.{key}"), value.to_owned()))
            .collect(),
        replicas: Some(replicas),
        ports: BTreeSet::from([PublishedPort {
            tcp: true,
            target: APP_PORT,
            published: None,
            mode: PublishMode::Host,
        }]),
        update: UpdatePolicy {
            // The next update need not wait until this one has been watched for long.
            monitor_ms: 500,
            failure_action: "pause".to_owned(),
            ..UpdatePolicy::default()
        },
        ..ServiceShape::default()
    }
}

/// Controller, workers and admin listener, as `tidegate run` has them.
async fn product(
    engine: &Engine,
    http: SocketAddr,
    admin: SocketAddr,
    record: RecordArgs,
    rng: &Rng,
) -> Result<(Workers, CancellationToken), Failure> {
    let clock = engine.clock();
    let listen = ListenArgs {
        access_log_format: String::new(),
        open_files: 0,
        http,
        https: None,
        certificates: std::path::PathBuf::new(),
        workers: 0,
        access_log: AccessLogFormat::Off,
        access_log_redact: Vec::new(),
    };
    let workers = Workers::new(
        &listen,
        "demo",
        LegNet::alone(),
        Secrets::default(),
        clock,
        rng.fork("workers"),
    )?;
    let (links, facts) = mpsc::channel(64);
    let (queries, asked) = mpsc::channel(16);
    let own = RunAdmin {
        controller: ControllerAdmin { queries },
        front: workers.front.subscribe(),
        drain: workers.drain.clone(),
    };
    let args = AdminArgs {
        admin,
        admin_control_port: 0,
    };
    serve_admin(&args, clock, None, own).await?;
    let settings = Settings::default();
    let me = Me {
        task: "demo".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        service: None,
        control_port: 0,
        authorities: BTreeSet::new(),
        wall_at_start: clock.wall(),
    };
    let app = ControllerApp {
        api: engine.clone(),
        clock,
        recorder: super::recorder(record, &settings, &me)?,
        settings,
        me,
        authorities: BTreeMap::new(),
    };
    let ended = CancellationToken::new();
    tokio::task::spawn_local(run_controller(app, facts, asked, ended.clone()));
    let subscription = Subscription {
        proxy: ProxyId::from("demo"),
        cluster: ClusterName::default_cluster(),
        controllers: Controllers::<TokioNet>::Local(links),
        store: NoStore,
        secrets: Secrets::default(),
        clock,
        rng: rng.fork("subscriber"),
    };
    let (status, _) = watch::channel(SubscriptionStatus::default());
    let report = move |now| {
        status.send_replace(now);
    };
    tokio::task::spawn_local(subscribe(subscription, workers.installer(), report, ended.clone()));
    Ok((workers, ended))
}

/// Lets requests under way end.
async fn finish(workers: Workers, ended: CancellationToken) -> Result<ExitCode, Failure> {
    let over = CancellationToken::new();
    over.cancel();
    workers.serve_until(&over).await?;
    ended.cancel();
    Ok(ExitCode::SUCCESS)
}

fn introduce(http: SocketAddr, admin: SocketAddr, once: bool) {
    let http = reachable(http);
    println!("A simulated Swarm of three nodes; its tasks are real HTTP servers on 127.0.0.1. Try");
    println!("  curl -H 'Host: {SHOP_HOST}' http://{http}/");
    println!("  curl -H 'Host: {SHOP_HOST}' http://{http}/api/orders");
    println!("  curl -H 'Host: {BLOG_HOST}' http://{http}/");
    println!("  curl 'http://{admin}/explain?url=http://{SHOP_HOST}/'");
    println!("  curl http://{admin}/routes");
    let end = if once { "It ends by itself." } else { "Ctrl-C ends it." };
    println!("{end} ● serves  ○ starts  ◌ was told to stop\n");
}

/// Prints what came of it; whether nothing failed and enough was asked.
fn summarize(load: &Load, requests_min: u64) -> bool {
    let (requests, failed) = (load.requests(), load.failed());
    println!("\n\nrequests  {requests}");
    println!("failed    {failed}");
    for (cause, count) in load.failures() {
        println!("  {count} × {cause}");
    }
    let [p50, p99] = [50, 99].map(|part| millis(load.within(part, 100)));
    println!(
        "latency   p50 {p50} ms, p99 {p99} ms, longest {} ms",
        millis(load.longest())
    );
    if requests < requests_min {
        println!("fewer than {requests_min} requests: choose a higher --rate");
    }
    failed == 0 && requests >= requests_min
}
