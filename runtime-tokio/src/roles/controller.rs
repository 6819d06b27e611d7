//! `tidegate controller`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tidegate_core::controller::Me;
use tidegate_core::identity::{AUTHORITY_FILE, CERTIFICATE_LIFE};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Failure, listen, serve_admin, stop_signal};
use crate::app::admin::ControllerAdmin;
use crate::app::controller::{ControllerApp, run_controller};
use crate::cli::ControllerArgs;
use crate::clock::Clock;
use crate::config;
use crate::control::publish::publish;
use crate::identity::{Authority, IdentityError, controller_config};
use crate::net::TokioNet;

/// Facts of proxies that wait for the controller.
const LINKS_WAITING_MAX: usize = 1024;

pub(super) async fn run(args: ControllerArgs) -> Result<ExitCode, Failure> {
    let clock = Clock::system();
    let settings = config::settings(&args.watch.with(&args.settings), std::env::vars()).map_err(Failure::usage)?;
    let stop = stop_signal()?;
    let authorities = load_authorities(&args.secrets)?;
    let control: SocketAddr = settings
        .controller
        .listen
        .parse()
        .map_err(|error| Failure::usage(format!("error: controller.listen: {error}")))?;
    let api = super::run::docker(&settings.controller)?;
    let me = Me {
        task: args.task,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        service: args.service.filter(|name| !name.is_empty()),
        control_port: control.port(),
        authorities: authorities.keys().copied().collect(),
        wall_at_start: clock.wall(),
    };
    let recorder = super::recorder(args.record, &settings, &me)?;
    let (links, facts) = mpsc::channel(LINKS_WAITING_MAX);
    if authorities.is_empty() {
        tracing::info!("no authority is mounted yet: it is made first, and no proxy can connect until then");
    } else {
        let listener = listen("the control port", "--set controller.listen=ADDR", control).await?;
        let failed = |error: IdentityError| Failure::usage(format!("error: {error}"));
        let (renewed, tls) = watch::channel(controller_config(&authorities, clock).map_err(failed)?);
        let authorities = load_authorities(&args.secrets)?;
        tokio::task::spawn_local(renew(authorities, clock, renewed, stop.clone()));
        tokio::task::spawn_local(publish(TokioNet, clock, listener, tls, links.clone(), stop.clone()));
    }
    let (queries, asked) = mpsc::channel(16);
    let peer = me.service.as_ref().map(|name| format!("tasks.{name}"));
    serve_admin(&args.admin, clock, peer.as_deref(), ControllerAdmin { queries }).await?;
    run_controller(
        ControllerApp {
            api,
            clock,
            settings,
            me,
            authorities,
            recorder,
        },
        facts,
        asked,
        stop,
    )
    .await;
    Ok(ExitCode::SUCCESS)
}

/// The mounted authorities by generation.
fn load_authorities(secrets: &Path) -> Result<BTreeMap<u64, Authority>, Failure> {
    let mut found = BTreeMap::new();
    let Ok(folder) = std::fs::read_dir(secrets) else {
        return Ok(found);
    };
    for entry in folder.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(generation) = name.strip_prefix(AUTHORITY_FILE).and_then(|number| number.parse().ok()) else {
            continue;
        };
        let read = std::fs::read_to_string(entry.path())
            .map_err(|error| IdentityError::Unreadable(name.clone(), error.to_string()))
            .and_then(|pem| Authority::from_pem(&format!("secret {name}"), &pem));
        found.insert(
            generation,
            read.map_err(|error| Failure::usage(format!("error: {error}")))?,
        );
    }
    Ok(found)
}

/// Takes a new certificate long before the present one ends.
async fn renew(
    authorities: BTreeMap<u64, Authority>,
    clock: Clock,
    renewed: watch::Sender<Arc<ServerConfig>>,
    stop: CancellationToken,
) {
    let authorities = Rc::new(authorities);
    let every: Duration = CERTIFICATE_LIFE / 3;
    loop {
        let at = clock.now() + every;
        tokio::select! { biased;
            () = stop.cancelled() => return,
            () = clock.sleep_until(Some(at)) => {}
        }
        match controller_config(&authorities, clock) {
            Ok(tls) => {
                renewed.send_replace(tls);
            }
            Err(error) => tracing::error!(%error, "the controller's certificate cannot be renewed"),
        }
    }
}
