//! Tidegate itself in the simulated Swarm: its controllers run as a service that the operator deployed, its proxies as
//! the service that the controllers make of it. Each task is a simulated host that runs the real code.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate::app::controller::{ControllerApp, run_controller};
use tidegate::app::proxy::Front;
use tidegate::clock::Clock;
use tidegate::control::courier::{CourierApp, carry};
use tidegate::control::publish::publish;
use tidegate::control::store::Store;
use tidegate::control::subscribe::{Controllers, Subscription, subscribe};
use tidegate::control::witness::SecondWitness;
use tidegate::control::{LINES_WAITING_MAX, LinkFact};
use tidegate::identity::{Authority, IdentityPem, client_config, controller_config};
use tidegate::net::Net;
use tidegate::secrets::Secrets;
use tidegate::telemetry::log::AccessLog;
use tidegate::tls::TlsListen;
use tidegate::tls::certificates::{Certificates, Keeper};
use tidegate::worker::{ProberDeps, WorkerConfig, WorkerDeps, run_worker, start_prober};
use tidegate_core::controller::Me;
use tidegate_core::id::{ClusterName, ProxyId, ServiceId};
use tidegate_core::identity::{AUTHORITY_FILE, PROXY_FILE};
use tidegate_core::reconcile::courier::COURIER_ROLE;
use tidegate_core::reconcile::desired::{ROLE_LABEL, ServiceShape};
use tidegate_core::reconcile::proxy::{PROXY_HTTP_PORT, PROXY_HTTPS_PORT, PROXY_ROLE};
use tidegate_core::rng::Rng;
use tidegate_core::route::RouteTable;
use tidegate_core::secrets::SecretText;
use tidegate_core::secrets::message::Parcel;
use tidegate_core::settings::{NetworkPolicy, Settings};
use tidegate_core::simulated::{Fact, Start};
use tidegate_core::snapshot::subscriber::Install;
use tidegate_core::swarm::model::{STACK_LABEL, Task};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use crate::backend::Signal;
use crate::bounds;
use crate::docker::FakeDocker;
use crate::faults::DockerFaults;
use crate::net::SimNet;
use crate::shared::Shared;
use crate::world::{Running, World};

/// Name of the controllers' service.
pub const CONTROLLERS: &str = "tidegate_controller";
/// Name of the proxies' service that they make.
pub const PROXIES: &str = "tidegate_proxy";
/// The same of the service cluster `inner`, where there is one.
pub const INNER_PROXIES: &str = "tidegate_proxy-inner";
/// The network between the two.
pub const CONTROL_NETWORK: &str = "tidegate-control";

const CONTROLLER_ROLE: &str = "controller";
const CONTROL_PORT: u16 = 7171;

/// What the operator deploys.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// How many controllers.
    pub controllers: u64,
    /// Which version of the snapshot protocol the controllers speak.
    pub protocol: Protocol,
    /// Settings; proxies share the network `apps` unless they say otherwise.
    pub settings: Settings,
}

impl Default for Deployment {
    fn default() -> Self {
        let mut settings = Settings::default();
        for cluster in settings.clusters.values_mut() {
            cluster.networks = NetworkPolicy::Shared(vec!["apps".to_owned()]);
        }
        Deployment {
            controllers: 1,
            protocol: Protocol::Present,
            settings,
        }
    }
}

/// A version of the snapshot protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Some controllers speak their own, others a newer one, as while they are updated.
    Mixed,
    /// One that proxies do not know yet: kinds of messages and fields that they have never heard of.
    Newer,
    /// Their own.
    Present,
}

impl World {
    /// Whether the operator of this seed wants SwarmKit's watch.
    fn follows_tasks(&self) -> bool {
        let follows = self.shared.fork("swarm watch").chance(1, 2);
        self.shared.trace("operator", &format!("swarm_watch = {follows}"));
        follows
    }

    /// `docker stack deploy`, then waits until every proxy runs. Users enter through the proxies from then on.
    ///
    /// # Panics
    /// If the proxies do not run within two minutes.
    pub fn deploy(&mut self, deployment: &Deployment) -> ServiceId {
        let (mut settings, faults) = (deployment.settings.clone(), self.faults().clone());
        if self.follows_tasks() {
            settings.controller.swarm_watch = "/var/run/docker/swarm/control.sock".to_owned();
        }
        let protocol = deployment.protocol;
        let controller = move |shared, start, signals| -> Running {
            Box::pin(process(signals, shared, start, {
                let (settings, faults) = (settings.clone(), faults.clone());
                move |shared, start, stop| controller(shared, start, stop, settings, faults, protocol)
            }))
        };
        self.launch(&format!("{ROLE_LABEL}={CONTROLLER_ROLE}"), Box::new(controller));
        let proxy = |shared, start, signals| -> Running { Box::pin(process(signals, shared, start, proxy)) };
        self.launch(&format!("{ROLE_LABEL}={PROXY_ROLE}"), Box::new(proxy));
        let courier = |shared, start, signals| -> Running { Box::pin(process(signals, shared, start, courier)) };
        self.launch(&format!("{ROLE_LABEL}={COURIER_ROLE}"), Box::new(courier));
        let labels = [(ROLE_LABEL, CONTROLLER_ROLE), (STACK_LABEL, "tidegate")];
        let shape = ServiceShape {
            name: CONTROLLERS.to_owned(),
            image: "tidegate:1".to_owned(),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            replicas: Some(deployment.controllers),
            constraints: ["node.role==manager".to_owned()].into(),
            networks: [CONTROL_NETWORK.to_owned()].into(),
            ..ServiceShape::default()
        };
        let id = self.command("deploys tidegate", |swarm, now| {
            swarm
                .create_network(CONTROL_NETWORK, false, now)
                .expect("no such network yet");
            swarm.create_service(shape, now).expect("the first service of its name")
        });
        let workers = self.nodes(false).len();
        let clusters = deployment.settings.clusters.values();
        let wanted: usize = clusters
            .map(|cluster| match cluster.global {
                true => workers,
                false => usize::try_from(cluster.replicas).unwrap_or_default(),
            })
            .sum();
        let limit = Duration::from_secs(120);
        self.until("every proxy runs", limit, |world| world.proxies() == wanted);
        self.enter_at_service(PROXIES, PROXY_HTTP_PORT);
        // Each controller starts anew once, when the Swarm has its authority.
        self.until("every controller runs", limit, |world| world.what_blinds().is_none());
        self.deployed = true;
        id
    }

    /// Tasks of a service that can answer.
    pub fn ready(&self, service: &ServiceId) -> usize {
        let tasks = self.tasks(service);
        let can = |task: &&Task| self.shared().with_swarm(|swarm, _| swarm.can_answer(&task.id));
        tasks.iter().filter(can).count()
    }

    /// Proxies that run, of all service clusters.
    pub fn proxies(&self) -> usize {
        let managed = self.shared().with_swarm(|swarm, _| swarm.managed());
        let proxies = managed.iter().filter(|service| {
            let role = service.shape.labels.get(ROLE_LABEL);
            role.is_some_and(|role| role == PROXY_ROLE)
        });
        proxies.map(|service| self.serving(&service.id)).sum()
    }
}

/// A process: runs `program` until it ends by itself or by a signal, and everything it spawned with it.
async fn process<F>(
    mut signals: watch::Receiver<Signal>,
    shared: Rc<Shared>,
    start: Start,
    program: impl FnOnce(Rc<Shared>, Start, CancellationToken) -> F,
) where
    F: Future<Output = ()> + 'static,
{
    let task = start.task.clone();
    let stop = CancellationToken::new();
    let tasks = LocalSet::new();
    let running = tasks.run_until(program(shared.clone(), start, stop.clone()));
    let code = tokio::select! { biased;
        () = signalled(&mut signals, &stop) => 137,
        () = running => 0,
    };
    drop(tasks);
    shared.trace(&shared.task_name(&task), &format!("exits with {code}"));
    shared.tell(Fact::Exited { task, code });
    std::future::pending::<()>().await;
}

/// Passes SIGTERM on; returns at SIGKILL.
async fn signalled(signals: &mut watch::Receiver<Signal>, stop: &CancellationToken) {
    loop {
        match *signals.borrow_and_update() {
            Signal::Kill => return,
            Signal::Term => stop.cancel(),
            Signal::None => {}
        }
        if signals.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What a task has mounted: file name below `/run/secrets` -> content.
fn mounted(shared: &Shared, start: &Start) -> BTreeMap<String, String> {
    let secrets = start.shape.secrets.iter();
    let read = secrets.filter_map(|(name, file)| {
        let data = shared.with_swarm(|swarm, _| swarm.secret_data(name).map(<[u8]>::to_vec))?;
        Some((file.clone(), String::from_utf8(data).ok()?))
    });
    read.collect()
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}

async fn controller(
    shared: Rc<Shared>,
    start: Start,
    stop: CancellationToken,
    settings: Settings,
    faults: DockerFaults,
    protocol: Protocol,
) {
    let (clock, net) = (shared.clock(&start.node), SimNet::new(shared.clone()));
    let authorities: BTreeMap<u64, Authority> = mounted(&shared, &start)
        .into_iter()
        .filter_map(|(file, pem)| {
            let generation = file.strip_prefix(AUTHORITY_FILE)?.parse().ok()?;
            let authority = Authority::from_pem(&file, &pem).expect("an authority that a controller made");
            Some((generation, authority))
        })
        .collect();
    let (links, incoming) = mpsc::channel(256);
    let is_newer = match protocol {
        Protocol::Mixed => shared.fork(&format!("version of {}", start.task)).chance(1, 2),
        Protocol::Newer => true,
        Protocol::Present => false,
    };
    let incoming = if is_newer { newer(incoming) } else { incoming };
    if !authorities.is_empty() {
        let tls = controller_config(&authorities, clock).expect("a certificate can be issued");
        let listener = net.listen(any(CONTROL_PORT)).await.expect("a new host has no listener");
        // Renewed while it runs only after months.
        let (_, tls) = watch::channel(tls);
        tokio::task::spawn_local(publish(net, clock, listener, tls, links.clone(), stop.clone()));
    }
    let me = Me {
        task: start.task.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        service: Some(CONTROLLERS.to_owned()),
        control_port: CONTROL_PORT,
        authorities: authorities.keys().copied().collect::<BTreeSet<u64>>(),
        wall_at_start: clock.wall(),
    };
    let (recorder, asked) = shared.records(&me, &settings);
    let app = ControllerApp {
        api: FakeDocker::new(
            shared.clone(),
            faults,
            &shared.task_name(&start.task),
            start.node.clone(),
        ),
        clock,
        settings,
        me,
        authorities,
        recorder,
    };
    run_controller(app, incoming, asked, stop).await;
}

fn variable(start: &Start, name: &str) -> String {
    let mut set = start.shape.env.iter().filter_map(|line| line.split_once('='));
    set.find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
        .unwrap_or_default()
}

/// What a task has mounted as who it is; none where it was removed meanwhile, as its life is over: then the process ends.
fn identity(shared: &Shared, start: &Start, files: &BTreeMap<String, String>) -> Option<IdentityPem> {
    let Some(pem) = files.get(PROXY_FILE) else {
        shared.trace(&shared.task_name(&start.task), "has no identity");
        return None;
    };
    Some(IdentityPem::from_pem(PROXY_FILE, pem).expect("an identity that a controller made"))
}

async fn courier(shared: Rc<Shared>, start: Start, stop: CancellationToken) {
    let (clock, files) = (shared.clock(&start.node), mounted(&shared, &start));
    let Some(identity) = identity(&shared, &start, &files) else {
        return;
    };
    let controller = variable(&start, "TIDEGATE_CONTROLLER");
    let (host, port) = controller.split_once(':').expect("host and port of the controllers");
    let app = CourierApp {
        net: SimNet::new(shared.clone()),
        clock,
        task: start.task.to_string(),
        host: host.to_owned(),
        port: port.parse().expect("a port is a number"),
        tls: client_config(&identity, clock).expect("an identity that a controller made"),
    };
    let secrets = files.into_iter().filter(|(name, _)| name != PROXY_FILE);
    let parcels = secrets.map(|(name, text)| Parcel {
        name,
        content: Some(SecretText::new(text)),
        problem: None,
    });
    let parcels: Vec<Parcel> = parcels.collect();
    carry(app, move || parcels.clone(), |_| (), stop).await;
}

async fn proxy(shared: Rc<Shared>, start: Start, stop: CancellationToken) {
    let (clock, net) = (shared.clock(&start.node), SimNet::new(shared.clone()));
    let variable = |name: &str| variable(&start, name);
    let files = mounted(&shared, &start);
    let Some(identity) = identity(&shared, &start, &files) else {
        return;
    };
    let controller = variable("TIDEGATE_CONTROLLER");
    let (host, port) = controller.split_once(':').expect("host and port of the controllers");
    let secrets = Secrets::brought();
    shared.keeps_secrets(&start.name, start.task.as_str(), &secrets);
    let proxy = ProxyId::from(start.task.as_str());
    let volume = format!("{} of {}", start.name, start.node);
    shared.starts_from_table(&start.addresses, &volume);
    let subscription = Subscription {
        proxy: proxy.clone(),
        cluster: ClusterName::from(variable("TIDEGATE_CLUSTER")),
        controllers: Controllers::Remote {
            net: net.clone(),
            host: host.to_owned(),
            port: port.parse().expect("a port is a number"),
            tls: client_config(&identity, clock).expect("an identity that a controller made"),
        },
        store: Volume {
            shared: shared.clone(),
            name: volume,
        },
        secrets: secrets.clone(),
        clock,
        rng: shared.fork(&format!("subscription of {proxy}")),
    };
    let worker = Worker {
        net,
        clock,
        rng: shared.fork(&format!("worker of {proxy}")),
        proxy,
        drain: stop.clone(),
        secrets: secrets.clone(),
        certificates: Certificates::new(Keeper::new(secrets.clone(), clock).expect("the system gives randomness")),
    };
    let (ended, end) = oneshot::channel();
    let mut waiting = Some((worker, ended));
    let front: Rc<RefCell<Option<Front>>> = Rc::default();
    let looked_at = front.clone();
    let serves = Rc::new(Cell::new(false));
    let begins = serves.clone();
    let (telling, task) = (shared.clone(), start.task.clone());
    let unready = Fact::Health {
        task: task.clone(),
        healthy: false,
    };
    shared.tell(unready);
    // As in production, it listens from its first table on.
    let seen = Installed {
        shared: shared.clone(),
        proxy: own_address(&shared, &start),
        cluster: ClusterName::from(variable("TIDEGATE_CLUSTER")),
    };
    let install = move |install: Install| -> Pin<Box<dyn Future<Output = ()>>> {
        let seen = seen.clone();
        let running = front.borrow().clone();
        if let Some(front) = running {
            let installing = front.install(&install);
            return Box::pin(async move {
                installing.await;
                seen.note(&install);
            });
        }
        seen.note(&install);
        if let Some((worker, ended)) = waiting.take() {
            front.replace(Some(worker.start(&install, ended)));
            begins.set(true);
            // What `tidegate healthcheck` says: ready from the first table on.
            let (task, healthy) = (task.clone(), true);
            telling.tell(Fact::Health { task, healthy });
        }
        Box::pin(std::future::ready(()))
    };
    // It follows changes while it drains, so it stops with the worker and not before.
    let witness = SecondWitness::new(SimNet::new(shared.clone()), clock, install);
    let told = witness.clone();
    let subscribing = tokio::task::spawn_local(subscribe(
        subscription,
        witness.installer(),
        move |status| told.heard(status.current),
        CancellationToken::new(),
    ));
    let asking = tokio::task::spawn_local(witness.run());
    let own = own_address(&shared, &start);
    let looking = tokio::task::spawn_local(bounds::look(shared.clone(), own, looked_at));
    tokio::select! { biased;
        _ = end => {}
        () = told_before_it_serves(&stop, &serves) => {}
    }
    subscribing.abort();
    asking.abort();
    looking.abort();
}

/// The address of the product's host on the control network, where the world runs it.
fn own_address(shared: &Shared, start: &Start) -> IpAddr {
    let control = shared.with_swarm(|swarm, _| swarm.network_named(CONTROL_NETWORK));
    let own = start
        .addresses
        .iter()
        .find(|held| control.as_ref() == Some(&held.network));
    own.map_or(Ipv4Addr::UNSPECIFIED.into(), |held| held.addr)
}

/// Tells the witness what a proxy has put to work.
#[derive(Clone)]
struct Installed {
    shared: Rc<Shared>,
    proxy: IpAddr,
    cluster: ClusterName,
}

impl Installed {
    fn note(&self, install: &Install) {
        let (shared, now) = (&self.shared, self.shared.now());
        for spec in install.snapshot.routes.values() {
            let cluster = shared.with_swarm(|swarm, _| {
                let shape = swarm.shape(&spec.service)?;
                shape.labels.get("com.docker.lb.service_cluster").cloned()
            });
            let cluster = cluster.map_or_else(ClusterName::default_cluster, ClusterName::from);
            if cluster != self.cluster {
                let (own, name) = (&self.cluster, &spec.name);
                shared
                    .witness()
                    .breaks(format!("{now}: a proxy of {own} was given service {name} of {cluster}"));
            }
        }
        shared
            .witness()
            .table(self.proxy, &self.cluster, &install.snapshot, now);
    }
}

/// Stands between a controller and its proxies and lets it speak as a later version would: more fields in what is known,
/// and kinds of messages that are not.
fn newer(mut incoming: mpsc::Receiver<LinkFact>) -> mpsc::Receiver<LinkFact> {
    let (pass, passed) = mpsc::channel(256);
    tokio::task::spawn_local(async move {
        while let Some(fact) = incoming.recv().await {
            let fact = match fact {
                LinkFact::Connected {
                    connection,
                    cluster,
                    proxy,
                    digest,
                    lines,
                } => {
                    let (sender, mut said) = mpsc::channel::<Arc<str>>(LINES_WAITING_MAX);
                    tokio::task::spawn_local(async move {
                        while let Some(line) = said.recv().await {
                            let unknown = Arc::from("{\"weather\":{\"sky\":\"clear\"}}\n");
                            let more = line.replacen(":{", ":{\"of_a_later_version\":[1,{\"a\":null}],", 1);
                            if lines.send(unknown).await.is_err() || lines.send(Arc::from(more)).await.is_err() {
                                return;
                            }
                        }
                    });
                    LinkFact::Connected {
                        connection,
                        cluster,
                        proxy,
                        digest,
                        lines: sender,
                    }
                }
                other @ (LinkFact::Ack { .. }
                | LinkFact::CourierConnected { .. }
                | LinkFact::Disconnected { .. }
                | LinkFact::OwnNetworks(_)
                | LinkFact::Report { .. }
                | LinkFact::SecretsEnded(_)
                | LinkFact::SecretsWanted { .. }) => other,
            };
            if pass.send(fact).await.is_err() {
                return;
            }
        }
    });
    passed
}

/// A proxy that is told to stop before it has a table just goes; one that serves ends with its worker.
async fn told_before_it_serves(stop: &CancellationToken, serves: &Cell<bool>) {
    stop.cancelled().await;
    if serves.get() {
        std::future::pending::<()>().await;
    }
}

struct Worker {
    net: SimNet,
    clock: Clock,
    rng: Rng,
    proxy: ProxyId,
    drain: CancellationToken,
    secrets: Secrets,
    certificates: Certificates,
}

impl Worker {
    fn start(self, first: &Install, ended: oneshot::Sender<()>) -> Front {
        let table = Arc::new(RouteTable::compile(&first.snapshot));
        self.secrets.want(table.secrets());
        self.certificates.install(&table);
        let tables = watch::Sender::new(table);
        let serving = tables.subscribe();
        let unfit = start_prober(ProberDeps {
            net: self.net.clone(),
            clock: self.clock,
            rng: self.rng.fork("prober"),
            tables: tables.subscribe(),
            secrets: self.secrets.clone(),
            stop: self.drain.clone(),
        });
        self.certificates.clone().follow(self.drain.clone());
        let (deps, link) = WorkerDeps::new(self.net, self.clock, self.rng, serving, self.drain, AccessLog::off());
        let mut config = WorkerConfig::new(any(PROXY_HTTP_PORT), self.proxy.as_str());
        config.secrets = self.secrets.clone();
        config.unfit = unfit;
        config.tls = Some(TlsListen {
            addr: any(PROXY_HTTPS_PORT),
            certificates: self.certificates.subscribe(),
        });
        tokio::task::spawn_local(async move {
            run_worker(deps, config).await.expect("a new host has no listener");
            ended.send(()).ok(); // the process has ended where this fails
        });
        Front::new(tables, vec![link]).with_secrets(self.secrets, self.certificates)
    }
}

/// A volume on a node: survives the task, not the node.
struct Volume {
    shared: Rc<Shared>,
    name: String,
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Volume").field(&self.name).finish()
    }
}

impl Store for Volume {
    fn load(&self) -> io::Result<Option<String>> {
        Ok(self.shared.volume(&self.name).map(|(text, _)| text))
    }

    fn confirmed(&self) -> Option<Duration> {
        None // as if it were just now
    }

    fn confirm(&self, _wall: Duration) -> io::Result<()> {
        Ok(())
    }

    fn save(&self, text: &str) -> io::Result<()> {
        self.shared.keep(&self.name, text)
    }
}
