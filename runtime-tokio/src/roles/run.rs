//! `tidegate run`: controller and proxy in one process, over a Docker engine or a file.

use std::process::ExitCode;
use std::time::Duration;

use tidegate_core::controller::Me;
use tidegate_core::id::{ClusterName, ProxyId};
use tidegate_core::route::allow::IpRange;
use tidegate_core::settings::{ControllerSettings, Settings};
use tidegate_core::swarm::model::PublishMode;
use tidegate_docker::Docker;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::proxy::Workers;
use super::{Failure, entropy, serve_admin, stop_signal};
use crate::app::admin::{ControllerAdmin, FileAdmin, RunAdmin};
use crate::app::controller::{ControllerApp, run_controller};
use crate::app::file::{self, FileStatus};
use crate::cli::{RunArgs, Source};
use crate::clock::Clock;
use crate::config;
use crate::control::LinkFact;
use crate::control::store::NoStore;
use crate::control::subscribe::{Controllers, Subscription, SubscriptionStatus, subscribe};
use crate::leg::net::LegNet;
use crate::leg::own_networks;
use crate::net::TokioNet;
use crate::secrets::Secrets;

/// Between two looks at the networks that this process is on: containers join and leave them as they run.
const LOOK_AT_NETWORKS: Duration = Duration::from_secs(5);
/// Facts that wait for the controller.
const LINKS_WAITING_MAX: usize = 64;

pub(super) async fn run(args: RunArgs) -> Result<ExitCode, Failure> {
    let mut settings = config::settings(&args.watch.with(&args.settings), std::env::vars()).map_err(Failure::usage)?;
    for cluster in settings.clusters.values_mut() {
        // Clients connect to this very process, so their addresses are theirs, whatever holds for proxy services.
        cluster.publish_mode = PublishMode::Host;
    }
    match args.source.clone() {
        Source::Docker => over_docker(args, settings).await,
        Source::File(path) => {
            let file = file::load(&path).map_err(|error| Failure::usage(format!("error: {error}")))?;
            let clock = Clock::system();
            let stop = stop_signal()?;
            let secrets = Secrets::folder(args.listen.certificates.clone());
            let workers = Workers::new(
                &args.listen,
                "run",
                LegNet::alone(),
                secrets,
                clock,
                entropy().fork("workers"),
            )?;
            let (report, status) = watch::channel(FileStatus::default());
            let admin = FileAdmin {
                front: workers.front.subscribe(),
                status,
                path: path.clone(),
            };
            serve_admin(&args.admin, clock, None, admin).await?;
            let proxy = cluster(&settings)?.serving();
            let installer = workers.installer();
            tokio::task::spawn_local(file::follow_file(
                TokioNet,
                clock,
                path,
                file,
                proxy,
                installer,
                move |now| {
                    report.send_replace(now);
                },
                CancellationToken::new(),
            ));
            workers.serve_until(&stop).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn over_docker(args: RunArgs, settings: Settings) -> Result<ExitCode, Failure> {
    let clock = Clock::system();
    cluster(&settings)?;
    let api = docker(&settings.controller)?;
    let stop = stop_signal()?;
    let rng = entropy();
    let secrets = Secrets::folder(args.listen.certificates.clone());
    let workers = Workers::new(
        &args.listen,
        "run",
        LegNet::alone(),
        secrets.clone(),
        clock,
        rng.fork("workers"),
    )?;
    let (links, facts) = mpsc::channel(LINKS_WAITING_MAX);
    let on = own_networks();
    // Known before the first table is made, and there is room for it.
    links.try_send(LinkFact::OwnNetworks(on.clone())).ok();
    tokio::task::spawn_local(tell_own_networks(links.clone(), on, clock));
    let (queries, asked) = mpsc::channel(16);
    let admin = RunAdmin {
        controller: ControllerAdmin { queries },
        front: workers.front.subscribe(),
        drain: workers.drain.clone(),
    };
    serve_admin(&args.admin, clock, None, admin).await?;
    let me = Me {
        task: "run".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        service: None,
        control_port: 0,
        authorities: std::collections::BTreeSet::new(),
        wall_at_start: clock.wall(),
    };
    let recorder = super::recorder(args.record, &settings, &me)?;
    let app = ControllerApp {
        api,
        clock,
        settings,
        me,
        authorities: std::collections::BTreeMap::new(),
        recorder,
    };
    let ended = CancellationToken::new();
    tokio::task::spawn_local(run_controller(app, facts, asked, ended.clone()));
    let subscription = Subscription {
        proxy: ProxyId::from("run"),
        cluster: ClusterName::default_cluster(),
        controllers: Controllers::<TokioNet>::Local(links),
        store: NoStore,
        secrets,
        clock,
        rng: rng.fork("subscriber"),
    };
    let (status, _) = watch::channel(SubscriptionStatus::default());
    tokio::task::spawn_local(subscribe(
        subscription,
        workers.installer(),
        move |now| {
            status.send_replace(now);
        },
        ended.clone(),
    ));
    workers.serve_until(&stop).await?;
    ended.cancel();
    Ok(ExitCode::SUCCESS)
}

/// Tells the controller of every change of the networks that this process is on; `told` are those that it knows of.
async fn tell_own_networks(controller: mpsc::Sender<LinkFact>, mut told: Vec<IpRange>, clock: Clock) {
    loop {
        clock.pause(LOOK_AT_NETWORKS).await;
        let on = own_networks();
        if on != told {
            told.clone_from(&on);
            if controller.send(LinkFact::OwnNetworks(on)).await.is_err() {
                return;
            }
        }
    }
}

/// One process serves one service cluster.
fn cluster(settings: &Settings) -> Result<&tidegate_core::settings::ClusterSettings, Failure> {
    settings.clusters.get(&ClusterName::default_cluster()).ok_or_else(|| {
        Failure::usage(
            "error: clusters: `tidegate run` serves the service cluster `default`, which the settings do not have",
        )
    })
}

/// The engine that the settings name.
pub(super) fn docker(settings: &ControllerSettings) -> Result<Docker, Failure> {
    let docker = Docker::connect(&settings.docker)
        .map_err(|error| Failure::usage(format!("error: controller.docker: {error}")))?;
    Ok(match settings.swarm_watch.as_str() {
        "" => docker,
        socket => docker.with_control_socket(socket),
    })
}
