//! The controller: Docker facts in, tables for proxies and writes to Docker out.
//!
//! Composes the [`World`] (what is), the route book ([`routes`]: labels to specs, service by service), a [`Publisher`]
//! per service cluster, and the fleet ([`fleet`]: identities and proxy services). It drains its children inside its own
//! mutations, so the shell sees one machine. It publishes nothing before the world has been seen whole, and nothing
//! that goes wrong with Docker ever removes a route: only facts do.

mod checkpoint;
mod decision;
pub mod fleet;
pub mod routes;
pub mod status;
mod trouble;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::id::{ClusterName, ProxyId, SecretId, ServiceId, Version};
use crate::identity::NewSecret;
use crate::labels::Diagnostic;
use crate::machine::Machine;
use crate::reconcile::desired::ServiceShape;
use crate::reconcile::machine::{Write, WriteId};
use crate::route::allow::IpRange;
use crate::secrets::message::{Parcel, Report};
use crate::secrets::{Deliver, Ledger};
use crate::settings::{CertificateSource, NetworkPolicy, Settings};
use crate::snapshot::model::Snapshot;
use crate::snapshot::publisher::Send;
use crate::snapshot::{Ack, Connection, Digest, Publisher, Served, Taken};
use crate::swarm::model::ApiError;
use crate::swarm::world::{Fetch, FetchId, Lane, StreamId, World, WorldAction, WorldFact};
use crate::time::{Deadline, Duration, Instant};
pub use checkpoint::Checkpoint;
use fleet::{Fleet, FleetAction};
use routes::{RouteBook, attached};

/// Who this controller is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Me {
    /// Its own task, for people.
    pub task: String,
    /// Its version.
    pub version: String,
    /// Name of its own Swarm service; `None` where it is no service, and so keeps no proxies.
    pub service: Option<String>,
    /// Port that proxies connect to.
    pub control_port: u16,
    /// Generations of the authorities whose keys it has.
    pub authorities: BTreeSet<u64>,
    /// Wall time since 1970 when the process started.
    pub wall_at_start: Duration,
}

/// What the controller is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControllerFact {
    /// A proxy acknowledged.
    Ack {
        /// Its service cluster.
        cluster: ClusterName,
        /// What it said.
        ack: Ack,
    },
    /// A proxy connected.
    Connected {
        /// Its connection.
        connection: Connection,
        /// Its service cluster.
        cluster: ClusterName,
        /// Its name.
        proxy: ProxyId,
        /// What it has already.
        digest: Option<Digest>,
    },
    /// A proxy's connection ended.
    Disconnected {
        /// Its service cluster.
        cluster: ClusterName,
        /// Its connection.
        connection: Connection,
    },
    /// A courier connected, with everything that it holds.
    CourierConnected {
        /// Its connection.
        connection: Connection,
        /// Its task, for people.
        task: String,
        /// The secrets. Whoever writes this fact down writes no content.
        #[serde(with = "crate::recording::parcels")]
        parcels: Vec<Parcel>,
    },
    /// The networks that this process is on, where it is the proxy as well: what is on others it cannot reach.
    OwnNetworks(Vec<IpRange>),
    /// A proxy found something about its secrets, or nothing any more.
    Report {
        /// Its service cluster.
        cluster: ClusterName,
        /// What it said.
        report: Report,
    },
    /// A proxy asks for the secrets of its service cluster.
    SecretsWanted {
        /// Its connection for them.
        connection: Connection,
        /// Its service cluster.
        cluster: ClusterName,
        /// Its name.
        proxy: ProxyId,
    },
    /// The connection of a courier, or of a proxy for its secrets, ended.
    SecretsEnded(Connection),
    /// The answer to [`ControllerAction::CreateNetwork`], [`ControllerAction::CreateSecret`],
    /// [`ControllerAction::RemoveSecret`] or [`ControllerAction::WriteOwnService`].
    Done {
        /// Which.
        what: Chore,
        /// Whether it was done.
        result: Result<(), ApiError>,
    },
    /// About the Swarm.
    World(WorldFact),
    /// The answer to [`ControllerAction::Write`].
    Written {
        /// The write.
        id: WriteId,
        /// Whether it was done.
        result: Result<(), ApiError>,
    },
}

/// A write outside the reconciler; one of a kind is under way at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chore {
    /// The control network.
    Network,
    /// The controllers' own service.
    OwnService,
    /// The secret of this name, whose life is over.
    OldSecret(String),
    /// The secret of this name.
    Secret(String),
}

impl fmt::Display for Chore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Chore::Network => f.write_str("making the control network"),
            Chore::OldSecret(name) => write!(f, "removing the secret {name}, whose life is over"),
            Chore::OwnService => f.write_str("changing which authorities the controllers' service mounts"),
            Chore::Secret(name) => write!(f, "making the secret {name}"),
        }
    }
}

/// What the controller wants done.
#[derive(Clone, Debug)]
pub enum ControllerAction {
    /// A proxy serves revisions that it did not serve before.
    Acked {
        /// Its service cluster.
        cluster: ClusterName,
        /// Whether the present one is among them.
        is_present: bool,
        /// Those that were published while it was connected, and since when Docker wanted what they change.
        served: Vec<Served>,
    },
    /// Send secrets to a proxy.
    Deliver(Deliver),
    /// Make an overlay network that only services of ours use.
    CreateNetwork(String),
    /// Make a secret. The shell makes the keys.
    CreateSecret(NewSecret),
    /// A finding is new.
    Diagnosed(Diagnostic),
    /// Ask Docker, with a limit on the call.
    Fetch {
        /// Goes back with the answer.
        id: FetchId,
        /// What.
        fetch: Fetch,
    },
    /// Tell the operator.
    Notice(String),
    /// Open the event stream; drop an earlier one.
    OpenEvents(StreamId),
    /// Open SwarmKit's watch of tasks; drop an earlier one.
    OpenFeed {
        /// Goes back with the news.
        id: StreamId,
        /// Where to resume.
        resume_from: Option<Version>,
    },
    /// A table was published.
    Published {
        /// For whom.
        cluster: ClusterName,
        /// Its cause.
        cause: String,
    },
    /// Remove a secret whose life is over.
    RemoveSecret {
        /// Which.
        id: SecretId,
        /// Its name.
        name: String,
    },
    /// Send a line to a proxy.
    Send(Send),
    /// Change Docker.
    Write {
        /// Goes back with the answer.
        id: WriteId,
        /// The call.
        write: Write,
    },
    /// Change the controllers' own service.
    WriteOwnService {
        /// Which.
        id: ServiceId,
        /// Must be the present one.
        version: Version,
        /// All of the new shape.
        shape: Box<ServiceShape>,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Controller {
    settings: Settings,
    world: World,
    book: RouteBook,
    publishers: BTreeMap<ClusterName, Publisher>,
    fleet: Option<Fleet>,
    ledger: Ledger,
    /// What proxies find wrong with secrets, of the services that name them.
    secret_diagnostics: BTreeSet<Diagnostic>,
    /// What keeps us from seeing the Swarm, as it was told to the operator.
    told_trouble: Option<String>,
    /// Why there is no feed, as it was told to the operator.
    told_feed: Option<String>,
    actions: VecDeque<ControllerAction>,
}

impl Controller {
    /// A controller that has seen nothing yet.
    pub fn new(mut settings: Settings, me: Me) -> Self {
        if me.service.is_none() {
            // Whoever keeps no services keeps no legs: the process itself has to reach what it serves.
            for cluster in settings
                .clusters
                .values_mut()
                .filter(|c| c.networks == NetworkPolicy::Legs)
            {
                cluster.networks = NetworkPolicy::Attach;
            }
        }
        let publisher = || Publisher::new(&me.task, &me.version);
        Controller {
            world: World::new((&settings.controller).into()),
            book: RouteBook::default(),
            publishers: settings
                .clusters
                .keys()
                .map(|name| (name.clone(), publisher()))
                .collect(),
            fleet: me.service.clone().map(|service| Fleet::new(&settings, service, me)),
            settings,
            ledger: Ledger::default(),
            secret_diagnostics: BTreeSet::new(),
            told_trouble: None,
            told_feed: None,
            actions: VecDeque::new(),
        }
    }

    /// The model of the Swarm.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// What is published to whom.
    pub fn publishers(&self) -> &BTreeMap<ClusterName, Publisher> {
        &self.publishers
    }

    /// What the proxies of `cluster` are to serve now.
    pub fn snapshot(&self, cluster: &ClusterName) -> Snapshot {
        let Some(publisher) = self.publishers.get(cluster) else {
            return Snapshot::default();
        };
        let entries = publisher.entries();
        let specs = entries
            .get()
            .iter()
            .filter_map(|(id, entry)| Some((id.clone(), entry.spec.clone().ok()?)));
        Snapshot {
            settings: entries.settings().clone(),
            routes: specs.collect(),
        }
    }

    /// What each labelled service claims.
    pub fn claims(&self) -> Vec<routes::OwnedClaim> {
        self.book.claims()
    }

    /// All findings about labels, sorted.
    pub fn diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        let all: BTreeSet<&Diagnostic> = self.book.diagnostics().iter().chain(&self.secret_diagnostics).collect();
        all.into_iter()
    }

    /// The secrets that come by courier, and who has them.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Tells the ledger what routes name; nothing before that is known.
    fn look_at_secrets(&mut self) {
        if !self.world.is_synced() || !self.world.has_listed(Lane::Secrets) {
            return;
        }
        let clusters = self.settings.clusters.iter();
        let by_courier = clusters.filter(|(_, settings)| settings.certificates == CertificateSource::Courier);
        let wanted = by_courier.map(|(name, _)| (name.clone(), self.book.secrets_of(name)));
        self.ledger.look(wanted.collect(), routes::usable_secrets(&self.world));
    }

    /// Puts what proxies found beside the labels that it is about.
    fn judge_reports(&mut self) {
        let mut all = BTreeSet::new();
        for (cluster, publisher) in &self.publishers {
            for finding in publisher.findings() {
                let users = self.book.users_of(cluster, &finding.secret);
                let services = users.filter_map(|id| self.world.services().get(id));
                all.extend(services.map(|service| routes::about_secret(service, finding)));
            }
        }
        let new = all.difference(&self.secret_diagnostics).cloned();
        self.actions.extend(new.map(ControllerAction::Diagnosed));
        self.secret_diagnostics = all;
    }

    /// Takes what the world wants, and passes on what changed.
    fn drain_world(&mut self, now: Instant) {
        let mut publish = false;
        while let Some(action) = self.world.poll_action() {
            match action {
                WorldAction::Changed(changes) => {
                    let everything =
                        !changes.networks.is_empty() || !changes.nodes.is_empty() || !changes.secrets.is_empty();
                    let managed = !changes.managed.is_empty();
                    if everything || managed {
                        self.book.set_attached(attached(&self.world));
                    }
                    // Networks, nodes, secrets and the proxies' own networks bear on every service.
                    let which: BTreeSet<ServiceId> = if everything || managed {
                        self.world
                            .services()
                            .keys()
                            .chain(self.book.services())
                            .cloned()
                            .collect()
                    } else {
                        changes.services.clone()
                    };
                    self.book.refresh(&self.world, &self.settings, &which);
                    if everything || managed {
                        // Not the services and their tasks made the difference, so their times say nothing.
                        self.book.take_decisions();
                    }
                    if let Some(fleet) = &mut self.fleet {
                        fleet.look(&self.world, &self.book, now);
                    }
                    publish = true;
                }
                WorldAction::Synced => publish = true,
                WorldAction::Fetch { .. } | WorldAction::OpenEvents(_) | WorldAction::OpenFeed { .. } => {
                    self.ask(action)
                }
            }
        }
        // An empty list changes nothing, so what the fleet waits for may come without a change.
        if let Some(fleet) = &mut self.fleet
            && !fleet.has_begun()
        {
            fleet.look(&self.world, &self.book, now);
        }
        self.tell_trouble();
        if publish && self.world.is_synced() {
            self.look_at_secrets();
            self.publish(now);
            self.judge_reports();
        }
        self.drain(now);
    }

    /// Passes on what the world asks of Docker.
    fn ask(&mut self, action: WorldAction) {
        self.actions.push_back(match action {
            WorldAction::Fetch { id, fetch } => ControllerAction::Fetch { id, fetch },
            WorldAction::OpenEvents(stream) => ControllerAction::OpenEvents(stream),
            WorldAction::OpenFeed { id, resume_from } => ControllerAction::OpenFeed { id, resume_from },
            WorldAction::Changed(_) | WorldAction::Synced => return,
        });
    }

    fn publish(&mut self, now: Instant) {
        let (mut changes, decisions) = (self.book.take_changes(), self.book.take_decisions());
        for (name, publisher) in &mut self.publishers {
            let Some(cluster) = self.settings.clusters.get(name) else {
                continue;
            };
            let specs = changes.remove(name).unwrap_or_default();
            let cause = self.book.cause(specs.keys());
            let before = publisher.revision();
            publisher.publish_decided(specs, &decisions, &cluster.serving(), &cause, now);
            if publisher.revision() != before {
                self.actions.push_back(ControllerAction::Published {
                    cluster: name.clone(),
                    cause,
                });
            }
        }
        for diagnostic in self.book.take_new_diagnostics(&self.publishers) {
            self.actions.push_back(ControllerAction::Diagnosed(diagnostic));
        }
    }

    /// Passes on what the children want.
    fn drain(&mut self, now: Instant) {
        for publisher in self.publishers.values_mut() {
            while let Some(send) = publisher.poll_action() {
                self.actions.push_back(ControllerAction::Send(send));
            }
        }
        while let Some(deliver) = self.ledger.poll_action() {
            self.actions.push_back(ControllerAction::Deliver(deliver));
        }
        let Some(fleet) = &mut self.fleet else { return };
        let mut looks: Vec<Lane> = Vec::new();
        while let Some(action) = fleet.poll_action() {
            match action {
                FleetAction::Do(action) => self.actions.push_back(action),
                FleetAction::Look(lane) => looks.push(lane),
            }
        }
        for lane in looks {
            self.world.handle(WorldFact::Look(lane), now);
            while let Some(action) = self.world.poll_action() {
                // Asking for a look tells the world nothing new.
                self.ask(action);
            }
        }
    }

    fn notice(&mut self, text: String) {
        self.actions.push_back(ControllerAction::Notice(text));
    }
}

impl Machine for Controller {
    type Fact = ControllerFact;
    type Action = ControllerAction;

    fn handle(&mut self, fact: ControllerFact, now: Instant) {
        match fact {
            ControllerFact::World(fact) => {
                self.world.handle(fact, now);
                self.drain_world(now);
            }
            ControllerFact::Connected {
                connection,
                cluster,
                proxy,
                digest,
            } => match self.publishers.get_mut(&cluster) {
                Some(publisher) => publisher.handle_connected(connection, proxy, digest, now),
                None => self.notice(alloc::format!(
                    "proxy {proxy} asks for service cluster {cluster}, which the settings do not have"
                )),
            },
            ControllerFact::Disconnected { cluster, connection } => {
                if let Some(publisher) = self.publishers.get_mut(&cluster) {
                    publisher.handle_disconnected(connection);
                    self.judge_reports();
                }
            }
            ControllerFact::Ack { cluster, ack } => {
                let refused: Vec<String> = ack.refused.iter().map(|r| r.service.to_string()).collect();
                let proxy = ack.proxy.clone();
                let publisher = self.publishers.get_mut(&cluster);
                let taken = publisher.map(|publisher| publisher.handle_ack(ack, now));
                let Taken { is_present, served } = taken.unwrap_or_default();
                if is_present && !refused.is_empty() {
                    self.notice(alloc::format!(
                        "proxy {proxy} refused {}: see status",
                        refused.join(", ")
                    ));
                }
                if is_present || !served.is_empty() {
                    self.actions.push_back(ControllerAction::Acked {
                        cluster,
                        is_present,
                        served,
                    });
                }
            }
            ControllerFact::CourierConnected {
                connection,
                task,
                parcels,
            } => {
                self.ledger.handle_courier(connection, &task);
                self.ledger.handle_parcels(connection, parcels);
            }
            ControllerFact::OwnNetworks(on) => {
                self.book.set_own_networks(on);
                let all = self.book.services().cloned().collect();
                self.book.refresh(&self.world, &self.settings, &all);
                self.book.take_decisions();
                if self.world.is_synced() {
                    self.publish(now);
                }
            }
            ControllerFact::Report { cluster, report } => {
                if let Some(publisher) = self.publishers.get_mut(&cluster) {
                    publisher.handle_report(report);
                    self.judge_reports();
                }
            }
            ControllerFact::SecretsWanted {
                connection,
                cluster,
                proxy,
            } => self.ledger.handle_listener(connection, cluster, proxy),
            ControllerFact::SecretsEnded(connection) => self.ledger.handle_disconnected(connection),
            ControllerFact::Done { what, result } => {
                if let Some(fleet) = &mut self.fleet {
                    fleet.handle_done(&what, result, now);
                }
            }
            ControllerFact::Written { id, result } => {
                if let Some(fleet) = &mut self.fleet {
                    fleet.handle_written(id, result, now);
                }
            }
        }
        self.drain(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.world.handle_timeout(now);
        for publisher in self.publishers.values_mut() {
            publisher.handle_timeout(now);
        }
        if let Some(fleet) = &mut self.fleet {
            fleet.handle_timeout(&self.world, &self.book, now);
        }
        self.drain_world(now);
    }

    fn poll_action(&mut self) -> Option<ControllerAction> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let publishers = self.publishers.values().map(Publisher::poll_timeout);
        let fleet = self.fleet.as_ref().and_then(Fleet::poll_timeout);
        publishers.fold(Deadline::earliest(self.world.poll_timeout(), fleet), Deadline::earliest)
    }

    fn check_invariants(&self) {
        self.world.check_invariants();
        self.ledger.check_invariants();
        for (name, publisher) in &self.publishers {
            assert!(
                self.world.is_synced() || publisher.revision().0 == 0,
                "{name}: nothing is published before the Swarm was seen whole"
            );
        }
    }
}

#[cfg(test)]
mod tests;
