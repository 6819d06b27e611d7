//! `tidegate proxy`, and the workers of every role that serves users.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tidegate_core::id::{ClusterName, ProxyId};
use tidegate_core::rng::Rng;
use tidegate_core::route::RouteTable;
use tidegate_core::settings::log_format;
use tidegate_core::snapshot::subscriber::Install;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Failure, entropy, free, host_and_port, identity, serve_admin, stop_signal};
use crate::app::admin::ProxyAdmin;
use crate::app::proxy::Front;
use crate::cli::{AccessLogFormat, ListenArgs, ProxyArgs};
use crate::clock::Clock;
use crate::control::store::FileStore;
use crate::control::subscribe::{Controllers, Subscription, SubscriptionStatus, subscribe};
use crate::control::witness::SecondWitness;
use crate::leg::net::LegNet;
use crate::leg::own_networks;
use crate::net::TokioNet;
use crate::secrets::Secrets;
use crate::telemetry::log::{AccessFormat, AccessLog, Redaction};
use crate::tls::TlsListen;
use crate::tls::certificates::{Certificates, Keeper};
use crate::worker::{ProberDeps, WorkerConfig, WorkerDeps, spawn_workers, start_prober};

/// File of the last good table, in the state folder.
const TABLE_FILE: &str = "table.json";
/// Between two looks at whether threads have ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The same while they should run.
const LOOK_FOR_FAILURE_EVERY: Duration = Duration::from_millis(500);

pub(super) async fn run(args: ProxyArgs) -> Result<ExitCode, Failure> {
    let clock = Clock::system();
    let stop = stop_signal()?;
    let (host, port) = host_and_port(&args.controller)?;
    let tls = identity(&args.identity, clock)?;
    let cluster = ClusterName::from(args.cluster.as_str());
    let rng = entropy();
    let net = LegNet::new(args.legs_dir.as_deref(), own_networks());
    let secrets = if args.courier {
        Secrets::brought()
    } else {
        Secrets::folder(args.listen.certificates.clone())
    };
    let workers = Workers::new(
        &args.listen,
        &args.task,
        net.clone(),
        secrets.clone(),
        clock,
        rng.fork("workers"),
    )?;
    let (status, subscription) = watch::channel(SubscriptionStatus::default());
    let admin = ProxyAdmin {
        cluster: cluster.clone(),
        front: workers.front.subscribe(),
        subscription,
        secrets: secrets.clone(),
        drain: workers.drain.clone(),
    };
    serve_admin(&args.admin, clock, Some(&host), admin).await?;
    let witness = SecondWitness::new(net, clock, workers.installer());
    let subscription = Subscription {
        proxy: ProxyId::from(args.task.as_str()),
        cluster,
        controllers: Controllers::Remote {
            net: TokioNet,
            host,
            port,
            tls,
        },
        store: FileStore::new(args.state_dir.join(TABLE_FILE)),
        secrets,
        clock,
        rng: rng.fork("subscriber"),
    };
    // Tables are followed while requests under way finish: an endpoint may leave meanwhile.
    let subscribed = CancellationToken::new();
    let told = witness.clone();
    tokio::task::spawn_local(subscribe(
        subscription,
        witness.installer(),
        move |now| {
            told.heard(now.current);
            status.send_replace(now);
        },
        subscribed.clone(),
    ));
    tokio::task::spawn_local(witness.run());
    workers.serve_until(&stop).await?;
    subscribed.cancel();
    Ok(ExitCode::SUCCESS)
}

/// The threads that serve users. They start with the first table: before that, connections are refused, and whoever
/// balances over proxies goes elsewhere.
#[derive(Debug)]
pub(super) struct Workers {
    /// The workers once they run.
    pub(super) front: watch::Sender<Option<Front>>,
    /// Cancelled when they drain.
    pub(super) drain: CancellationToken,
    clock: Clock,
    /// Taken by the first table.
    start: Rc<RefCell<Option<Start>>>,
    threads: Rc<RefCell<Vec<JoinHandle<std::io::Result<()>>>>>,
    access_thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Debug)]
struct Start {
    net: LegNet,
    http: SocketAddr,
    https: Option<SocketAddr>,
    secrets: Secrets,
    certificates: Certificates,
    count: usize,
    open_files: u64,
    proxy_id: String,
    clock: Clock,
    rng: Rng,
    access: AccessLog,
}

impl Workers {
    /// Nothing runs yet, but the port is known to be free.
    pub(super) fn new(
        args: &ListenArgs,
        proxy_id: &str,
        net: LegNet,
        secrets: Secrets,
        clock: Clock,
        rng: Rng,
    ) -> Result<Workers, Failure> {
        free(args.http, "the HTTP listener", "--http")?;
        if let Some(https) = args.https {
            free(https, "the HTTPS listener", "--https")?;
        }
        let keeper = Keeper::new(secrets.clone(), clock)
            .map_err(|error| Failure::usage(format!("error: TLS cannot be set up: {error}")))?;
        let count = match args.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let mut redaction = Redaction::default();
        for part in &args.access_log_redact {
            match part.trim() {
                "" => {}
                "client" => redaction.client = true,
                "query" => redaction.query = true,
                "referer" | "user-agent" | "host" | "x-request-id" => {
                    redaction.headers.insert(part.trim().to_owned());
                }
                other => {
                    return Err(Failure::usage(format!(
                        "error: --access-log-redact {other}: write client, query, referer, user-agent, host or x-request-id"
                    )));
                }
            }
        }
        let format = match args.access_log {
            AccessLogFormat::Off => None,
            AccessLogFormat::Common if !args.access_log_format.is_empty() => {
                let pieces = log_format::parse(&args.access_log_format)
                    .map_err(|problem| Failure::usage(format!("error: --access-log-format: {problem}")))?;
                Some(AccessFormat::Own(pieces.into()))
            }
            AccessLogFormat::Common => Some(AccessFormat::Common),
            AccessLogFormat::Json => Some(AccessFormat::Json),
        };
        let (access, access_thread) = match format {
            None => (AccessLog::off(), None),
            Some(format) => {
                let (log, thread) = AccessLog::to_writer(format, redaction, std::io::stdout())
                    .map_err(|error| Failure::usage(format!("error: the access log cannot start: {error}")))?;
                (log, Some(thread))
            }
        };
        let start = Start {
            net,
            http: args.http,
            https: args.https,
            secrets,
            certificates: Certificates::new(keeper),
            count,
            open_files: args.open_files,
            proxy_id: proxy_id.to_owned(),
            clock,
            rng,
            access,
        };
        Ok(Workers {
            front: watch::Sender::new(None),
            drain: CancellationToken::new(),
            clock,
            start: Rc::new(RefCell::new(Some(start))),
            threads: Rc::default(),
            access_thread,
        })
    }

    /// What puts tables to work; the first one starts the threads.
    pub(super) fn installer(&self) -> impl FnMut(Install) -> Installed + use<> {
        let (front, drain, start, threads) = (
            self.front.clone(),
            self.drain.clone(),
            self.start.clone(),
            self.threads.clone(),
        );
        move |table| {
            let present = front.borrow().clone();
            if let Some(present) = present {
                return Box::pin(present.install(&table));
            }
            let Some(starting) = start.take() else {
                return Box::pin(std::future::ready(())); // draining
            };
            let first = Arc::new(RouteTable::compile(&table.snapshot));
            match starting.spawn(first, &drain) {
                Ok((started, handles)) => {
                    threads.borrow_mut().extend(handles);
                    front.send_replace(Some(started));
                }
                Err(error) => {
                    tracing::error!(%error, "the workers cannot start; tried again with the next table");
                    start.replace(Some(starting));
                }
            }
            Box::pin(std::future::ready(()))
        }
    }

    /// Serves until `stop`, then drains.
    pub(super) async fn serve_until(self, stop: &CancellationToken) -> Result<(), Failure> {
        tokio::select! { biased;
            () = stop.cancelled() => {}
            failure = self.failed() => return Err(failure),
        }
        self.drain().await;
        Ok(())
    }

    /// Returns when a worker has ended although nobody told it to: the process should end too, and be started anew.
    async fn failed(&self) -> Failure {
        while !self.threads.borrow().iter().any(JoinHandle::is_finished) {
            self.clock.pause(LOOK_FOR_FAILURE_EVERY).await;
        }
        let mut threads = self.threads.borrow_mut();
        let ended = threads
            .iter()
            .position(JoinHandle::is_finished)
            .map(|index| threads.swap_remove(index).join());
        let why = match ended {
            Some(Ok(Err(error))) => error.to_string(),
            Some(Ok(Ok(()))) | None => "nobody told it to".to_owned(),
            Some(Err(_)) => "it panicked".to_owned(),
        };
        Failure::fatal(format!("error: a worker ended: {why}"))
    }

    /// Stops accepting, lets requests finish, and returns when all threads have ended and every access line is written.
    async fn drain(self) {
        self.drain.cancel();
        while !self.threads.borrow().iter().all(JoinHandle::is_finished) {
            self.clock.pause(LOOK_EVERY).await;
        }
        // With the last sender gone the writer of access lines ends.
        self.start.take();
        if let Some(thread) = self.access_thread {
            while !thread.is_finished() {
                self.clock.pause(LOOK_EVERY).await;
            }
        }
    }
}

/// Ends when the table is served by every worker.
pub(super) type Installed = std::pin::Pin<Box<dyn Future<Output = ()>>>;

/// Client connections that one of `workers` may have open where the process may open `files`: each request needs another
/// socket to its endpoint, and the process a few files for itself.
fn connections_max(files: u64, workers: usize) -> usize {
    const OWN: u64 = 64;
    const LEAST: u64 = 8;
    let each = files.saturating_sub(OWN) / 2 / workers.max(1) as u64;
    usize::try_from(each.max(LEAST)).unwrap_or(usize::MAX)
}

impl Start {
    fn spawn(
        &self,
        table: Arc<RouteTable>,
        drain: &CancellationToken,
    ) -> std::io::Result<(Front, Vec<JoinHandle<std::io::Result<()>>>)> {
        self.secrets.want(table.secrets());
        self.certificates.install(&table);
        let tables = watch::Sender::new(table);
        let mut workers = Vec::new();
        let mut links = Vec::new();
        let unfit = start_prober(ProberDeps {
            net: self.net.clone(),
            clock: self.clock,
            rng: self.rng.fork("prober"),
            tables: tables.subscribe(),
            secrets: self.secrets.clone(),
            stop: drain.clone(),
        });
        let files = super::raise_open_files(self.open_files);
        for index in 0..self.count {
            let rng = self.rng.fork(&format!("worker {index}"));
            let (deps, link) = WorkerDeps::new(
                self.net.clone(),
                self.clock,
                rng,
                tables.subscribe(),
                drain.clone(),
                self.access.clone(),
            );
            let mut config = WorkerConfig::new(self.http, &self.proxy_id);
            config.connections_max = config.connections_max.min(connections_max(files, self.count));
            config.secrets = self.secrets.clone();
            config.unfit = unfit.clone();
            config.workers = u32::try_from(self.count).unwrap_or(u32::MAX);
            config.tls = self.https.map(|addr| TlsListen {
                addr,
                certificates: self.certificates.subscribe(),
            });
            workers.push((deps, config));
            links.push(link);
        }
        let threads = spawn_workers(workers)?;
        let (secrets, certificates) = (self.secrets.clone(), self.certificates.clone());
        secrets.clone().follow(self.clock, drain.clone());
        certificates.clone().follow(drain.clone());
        let front = Front::new(tables, links).with_secrets(secrets, certificates);
        Ok((front, threads))
    }
}

#[cfg(test)]
mod tests {
    use super::connections_max;
    use crate::roles::raise_open_files;

    #[test]
    fn clients_leave_sockets_for_endpoints() {
        assert_eq!(connections_max(1024, 2), 240);
        assert_eq!(connections_max(10, 64), 8);
        assert!(connections_max(u64::MAX, 1) > 1_000_000);
    }

    #[test]
    fn option_r_limit_no_file_is_the_limit_of_the_process() {
        use rustix::process::{Resource, getrlimit};
        let most = getrlimit(Resource::Nofile).maximum;
        let wanted = most.map_or(2000, |most| most.min(2000));
        assert_eq!(raise_open_files(wanted), wanted);
        assert_eq!(getrlimit(Resource::Nofile).current, Some(wanted));
        // Never beyond what the system allows, and all of that where nothing is said.
        assert_eq!(raise_open_files(u64::MAX), most.unwrap_or(u64::MAX));
        assert_eq!(raise_open_files(0), most.unwrap_or(u64::MAX));
    }
}
