//! From flags to a running role: the only place that joins real sockets, clocks and a Docker engine.

mod ask;
mod controller;
mod courier;
mod demo;
mod import;
mod leg;
mod prove;
mod proxy;
mod replay;
mod run;
mod table;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tidegate_core::controller::Me;
use tidegate_core::recording::{Recorder, RecorderSettings};
use tidegate_core::rng::Rng;
use tidegate_core::settings::Settings;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin};
use crate::cli::{AdminArgs, Cli, EXIT_FINDING, EXIT_UNREACHABLE, EXIT_USAGE, LogFormat, RecordArgs, Role, version};
use crate::clock::Clock;
use crate::identity::{IdentityPem, client_config};
use crate::net::{Net, TokioNet};
use crate::telemetry::log;

/// Why a role ended, and the exit code that says so.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Wrong usage, wrong settings included.
    fn usage(message: impl Into<String>) -> Failure {
        Failure {
            code: EXIT_USAGE,
            message: message.into(),
        }
    }

    /// The process cannot go on.
    fn fatal(message: impl Into<String>) -> Failure {
        Failure {
            code: EXIT_FINDING,
            message: message.into(),
        }
    }

    /// Docker, the control plane or another process cannot be reached.
    fn unreachable(message: impl Into<String>) -> Failure {
        Failure {
            code: EXIT_UNREACHABLE,
            message: message.into(),
        }
    }
}

/// Runs what the flags say; the exit code of the process.
pub fn run(cli: Cli) -> ExitCode {
    let serves = matches!(
        cli.role,
        Role::Controller(_) | Role::Courier(_) | Role::Leg(_) | Role::Proxy(_) | Role::Run(_)
    );
    // Commands for people print their answer alone, unless something is wrong.
    let filter = if serves || cli.log != "info" {
        cli.log.as_str()
    } else {
        "warn"
    };
    let format = match cli.log_format {
        LogFormat::Json => log::LogFormat::Json,
        LogFormat::Text => log::LogFormat::Text,
    };
    if let Err(error) = log::init_tracing(format, filter) {
        eprintln!("error: --log: {error:#}");
        return ExitCode::from(EXIT_USAGE);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = tokio::task::LocalSet::new().block_on(&runtime, async {
        if serves {
            raise_open_files(0);
        }
        match cli.role {
            Role::Controller(args) => controller::run(args).await,
            Role::Courier(args) => courier::run(args).await,
            Role::Demo(args) => demo::run(args).await,
            Role::Explain(args) => ask::explain(args).await,
            Role::Healthcheck(args) => ask::healthcheck(args).await,
            Role::Import(args) => import::run(args),
            Role::Leg(args) => leg::run(args).await,
            Role::Prove(args) => prove::run(args).await,
            Role::Proxy(args) => proxy::run(args).await,
            Role::Recording(args) => ask::recording(args).await,
            Role::Replay(args) => replay::run(&args),
            Role::Routes(args) => ask::routes(args).await,
            Role::Run(args) => run::run(args).await,
            Role::Status(args) => ask::status(args).await,
            Role::Table(args) => table::run(&args),
        }
    });
    match ended {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// `--controller HOST:PORT`
fn host_and_port(controller: &str) -> Result<(String, u16), Failure> {
    controller
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.to_owned(), port.parse::<u16>().ok()?)))
        .ok_or_else(|| Failure::usage(format!("error: --controller {controller}: write HOST:PORT")))
}

/// The identity in a file, for connections to controllers.
fn identity(path: &Path, clock: Clock) -> Result<Arc<ClientConfig>, Failure> {
    let place = path.display().to_string();
    let pem = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("error: --identity {place}: cannot be read: {error}")))?;
    IdentityPem::from_pem(&place, &pem)
        .and_then(|identity| client_config(&identity, clock))
        .map_err(|error| Failure::usage(format!("error: --identity: {error}")))
}

/// Cancelled at SIGTERM or SIGINT; a second signal ends the process at once.
fn stop_signal() -> Result<CancellationToken, Failure> {
    let stop = CancellationToken::new();
    let failed = |error| Failure::usage(format!("error: signals cannot be heard: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut quit = signal(SignalKind::quit()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let token = stop.clone();
    tokio::task::spawn_local(async move {
        loop {
            tokio::select! { biased;
                _ = terminate.recv() => {}
                _ = quit.recv() => {}
                _ = interrupt.recv() => {}
            }
            if token.is_cancelled() {
                std::process::exit(130);
            }
            tracing::info!("told to stop");
            token.cancel();
        }
    });
    Ok(stop)
}

/// Serves the admin listener on loopback, and on the control network if that is wanted. `peer` is a name on the control
/// network, by which the own address there is found.
async fn serve_admin<A: Admin>(args: &AdminArgs, clock: Clock, peer: Option<&str>, admin: A) -> Result<(), Failure> {
    let listener = listen("the admin listener", "--admin", args.admin).await?;
    let never = CancellationToken::new(); // it answers while the process drains
    tokio::task::spawn_local(admin::serve(TokioNet, clock, listener, admin.clone(), never.clone()));
    let (Some(peer), port @ 1..) = (peer.map(str::to_owned), args.admin_control_port) else {
        return Ok(());
    };
    tokio::task::spawn_local(async move {
        loop {
            if let Some(listener) = listen_beside(&peer, port).await {
                return admin::serve(TokioNet, clock, listener, admin, never).await;
            }
            clock.pause(Duration::from_secs(2)).await; // nobody of that name yet
        }
    });
    Ok(())
}

/// Binds the own address on the network where `peer` is; none while that cannot be found.
async fn listen_beside(peer: &str, port: u16) -> Option<<TokioNet as Net>::Listener> {
    let there = *TokioNet.resolve(peer, port).await.ok()?.first()?;
    // Connecting a datagram socket sends nothing; it only chooses the address that would be used.
    let socket = tokio::net::UdpSocket::bind(if there.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" })
        .await
        .ok()?;
    socket.connect(there).await.ok()?;
    let own = SocketAddr::new(socket.local_addr().ok()?.ip(), port);
    let listener = TokioNet.listen(own).await.ok()?;
    tracing::info!(address = %own, "the admin listener answers on the control network");
    Some(listener)
}

/// Raises the limit of open files to what the system allows: Docker and systemd start processes with 1024 of them, so that
/// programs from the last century work. The limit that holds now.
fn raise_open_files(limit: u64) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: match limit {
            0 => before.maximum,
            limit => Some(before.maximum.map_or(limit, |maximum| maximum.min(limit))),
        },
        ..before
    };
    let now = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => wanted.current,
        Err(error) => {
            tracing::warn!(%error, limit = before.current, "the limit of open files cannot be raised");
            before.current
        }
    };
    now.unwrap_or(u64::MAX)
}

/// A bound port, or what to do about it.
async fn listen(what: &str, flag: &str, addr: SocketAddr) -> Result<<TokioNet as Net>::Listener, Failure> {
    free(addr, what, flag)?;
    TokioNet
        .listen(addr)
        .await
        .map_err(|error| taken(what, flag, addr, &error))
}

/// `SO_REUSEPORT` would let two processes share a port without a word; a plain bind tells.
fn free(addr: SocketAddr, what: &str, flag: &str) -> Result<(), Failure> {
    std::net::TcpListener::bind(addr)
        .map(drop)
        .map_err(|error| taken(what, flag, addr, &error))
}

fn taken(what: &str, flag: &str, addr: SocketAddr, error: &std::io::Error) -> Failure {
    Failure::usage(format!(
        "error: {what} cannot listen on {addr}: {error}; free the port, or choose another with {flag}"
    ))
}

/// What keeps `settings`' controller on record, if that is wanted.
fn recorder(args: RecordArgs, settings: &Settings, me: &Me) -> Result<Option<Recorder>, Failure> {
    if args.record.is_zero() {
        return Ok(None);
    }
    let mut key = [0; 32];
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider
        .secure_random
        .fill(&mut key)
        .map_err(|_| Failure::fatal("error: --record: the system gives no random numbers to hide secrets with"))?;
    let limits = RecorderSettings {
        span: args.record,
        bytes_max: args.record_mb as usize * 1024 * 1024,
    };
    let recorder = Recorder::new(limits, version(), me.clone(), settings.clone(), key);
    tracing::info!(
        span_s = args.record.as_secs(),
        megabytes = args.record_mb,
        "decisions are recorded"
    );
    Ok(Some(recorder))
}

/// A seed from the operating system: the hasher's keys are random in each process.
fn entropy() -> Rng {
    use std::hash::{BuildHasher, Hasher};
    Rng::new(std::hash::RandomState::new().build_hasher().finish())
}
