//! The fleet: what Tidegate itself has in the Swarm. Identities first, then the control network, then one proxy
//! service per service cluster, the legs that it needs and the courier, which the [`Reconciler`] keeps.
//!
//! Acts only on facts that have been listed. Every chore is tried again with growing pauses; another controller that
//! does the same at the same time makes it a no-op.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use super::routes::{RouteBook, usable_secrets};
use super::{Chore, ControllerAction, Me};
use crate::id::{ClusterName, NetworkId, ServiceId};
use crate::identity::{self, IdentityPlan, PROXY_FILE};
use crate::machine::Machine;
use crate::reconcile::courier::{CourierFacts, courier_shape};
use crate::reconcile::desired::{ManagedService, ROLE_LABEL, ServiceShape};
use crate::reconcile::leg::{LEG_ROLE, LegFacts, leg_shape};
use crate::reconcile::machine::{ReconcileAction, ReconcileFact, ReconcileSettings, Reconciler, WriteId};
use crate::reconcile::proxy::{ProxyFacts, proxy_service_name, proxy_shape};
use crate::recording::Hide;
use crate::settings::{CertificateSource, NetworkPolicy, Settings};
use crate::swarm::model::{ApiError, Network};
use crate::swarm::world::{Lane, World, backoff};
use crate::time::{Deadline, Duration, Instant, Timers};

/// How often lifetimes of certificates are looked at.
const IDENTITY_EVERY: Duration = Duration::from_secs(3600);
/// Port of the proxies' admin listeners on the control network, where Prometheus finds them.
pub const ADMIN_CONTROL_PORT: u16 = 7172;
/// First and longest pause before a chore is tried again.
const CHORE_RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What the fleet wants of its parent.
#[derive(Clone, Debug)]
pub enum FleetAction {
    /// Something for the shell.
    Do(ControllerAction),
    /// A fresh look at a list.
    Look(Lane),
}

/// See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Fleet {
    #[serde(skip)]
    settings: Settings,
    #[serde(skip)]
    service: String,
    #[serde(skip)]
    me: Me,
    /// Name of the controllers' stack; known once the own service was seen.
    installation: Option<String>,
    /// The own service, once it was seen.
    own: Option<ServiceId>,
    /// What the tasks of the own service were made of when it was first seen: its settings are those of this process.
    template: Option<String>,
    reconciler: Option<Reconciler>,
    /// Chores under way, and how often each failed in a row.
    under_way: BTreeSet<Chore>,
    #[serde(with = "crate::state::pairs")]
    failures: BTreeMap<Chore, u32>,
    pauses: Timers<Chore>,
    next_identity_look: Instant,
    wanted: Vec<ServiceShape>,
    #[serde(skip)]
    actions: VecDeque<FleetAction>,
    /// What was said and still holds, by topic.
    said: BTreeMap<String, String>,
}

impl Default for Fleet {
    fn default() -> Self {
        Fleet::new(&Settings::default(), String::new(), Me::default())
    }
}

impl Fleet {
    /// Knows nothing yet. `service` is the name of the controllers' own service.
    pub fn new(settings: &Settings, service: String, me: Me) -> Self {
        Fleet {
            settings: settings.clone(),
            service,
            me,
            installation: None,
            own: None,
            template: None,
            reconciler: None,
            under_way: BTreeSet::new(),
            failures: BTreeMap::new(),
            pauses: Timers::new(),
            next_identity_look: Instant::START,
            wanted: Vec::new(),
            actions: VecDeque::new(),
            said: BTreeMap::new(),
        }
    }

    /// What `earlier` knew and did, for the same controller: a checkpoint has not its settings.
    pub(super) fn resume(&mut self, earlier: Fleet) {
        let (settings, service, me) = (self.settings.clone(), self.service.clone(), self.me.clone());
        let installation = earlier.installation.clone().unwrap_or_default();
        let with_settings =
            |reconciler: Reconciler| reconciler.with_settings(reconcile_settings(&settings, &installation));
        let reconciler = earlier.reconciler.clone().map(with_settings);
        *self = Fleet {
            settings,
            service,
            me,
            reconciler,
            ..earlier
        };
    }

    /// A copy for a checkpoint, with what must not get into a recording hidden.
    pub(super) fn hidden(&self, hide: &Hide) -> Fleet {
        let mut fleet = self.clone();
        if let Some(reconciler) = &mut fleet.reconciler {
            reconciler.shapes_mut().for_each(|shape| hide.shape(shape));
            reconciler
                .templates_mut()
                .for_each(|template| *template = hide.text(template));
        }
        fleet.template = fleet.template.map(|template| hide.text(&template));
        fleet
    }

    /// The write that is under way.
    pub fn write_in_flight(&self) -> Option<WriteId> {
        self.reconciler.as_ref()?.in_flight()
    }

    /// The next effect.
    pub fn poll_action(&mut self) -> Option<FleetAction> {
        self.actions.pop_front()
    }

    /// What an operator should know.
    pub fn notices(&self) -> Vec<String> {
        let of_services = self
            .reconciler
            .iter()
            .flat_map(Reconciler::notices)
            .map(ToString::to_string);
        self.said.values().cloned().chain(of_services).collect()
    }

    /// Whether it has seen everything that it acts on, its own service included.
    pub fn has_begun(&self) -> bool {
        self.installation.is_some()
    }

    /// Something in the world changed, or was listed for the first time.
    pub fn look(&mut self, world: &World, book: &RouteBook, now: Instant) {
        let listed = [Lane::Managed, Lane::Secrets, Lane::Networks, Lane::Nodes]
            .iter()
            .all(|l| world.has_listed(*l));
        if !listed || !world.is_synced() {
            return;
        }
        let Some(own) = world
            .managed()
            .values()
            .find(|service| service.shape.name == self.service)
        else {
            let text = format!(
                "there is no service {} with the label tidegate.role=controller, so proxies are not kept: deploy with \
                 deploy/tidegate.yml, or mend TIDEGATE_SELF",
                self.service
            );
            self.say("own service".to_string(), text);
            self.leave_with_own_service(world, now);
            return;
        };
        self.own = Some(own.id.clone());
        self.said.remove("own service");
        let stack = own.shape.labels.get(crate::swarm::model::STACK_LABEL);
        let installation = stack.unwrap_or(&self.service).clone();
        let reconciler = self
            .reconciler
            .get_or_insert_with(|| Reconciler::new(reconcile_settings(&self.settings, &installation)));
        self.installation = Some(installation.clone());
        // Controllers of old and new settings run side by side while Docker replaces them: only the new ones write, or each would
        // undo what the others wrote.
        let template = self.template.get_or_insert_with(|| own.template.clone());
        let is_relieved = *template != own.template;
        reconciler.handle(ReconcileFact::Relieved(is_relieved), now);
        let topic = "successors".to_string();
        if is_relieved {
            let text = format!(
                "the service {} has changed, so the tasks that Docker starts for it keep the proxies, and this one only serves tables",
                self.service
            );
            self.say(topic, text);
            self.drain_reconciler(now);
            return;
        }
        self.said.remove(&topic);
        reconciler.handle(ReconcileFact::Managed(world.managed().values().cloned().collect()), now);
        let wall = self.me.wall_at_start + now.since_start();
        let secrets = world.secrets().values();
        let plan = identity::plan(
            &installation,
            secrets,
            &self.me.authorities,
            self.settings.clusters.keys(),
            self.has_courier(),
            wall,
        );
        self.next_identity_look = now + IDENTITY_EVERY;
        self.keep_identities(&plan, world, own, now);
        if let Some(control) = self.control_network(world, now) {
            self.keep_services(world, book, own, &plan, &control, now);
        }
        self.drain_reconciler(now);
    }

    /// A chore was answered.
    pub fn handle_done(&mut self, what: &Chore, result: Result<(), ApiError>, now: Instant) {
        if !self.under_way.remove(what) {
            return;
        }
        let failure = match (what, result) {
            // Somebody else was quicker: as good as done by us.
            (_, Ok(()) | Err(ApiError::Exists(_) | ApiError::Conflict(_)))
            | (Chore::OldSecret(_), Err(ApiError::NotFound(_))) => None,
            (_, Err(error)) => Some(error),
        };
        match failure {
            Some(error) => {
                let failures = self.failures.entry(what.clone()).or_default();
                let pause = backoff(*failures, CHORE_RETRY.0, CHORE_RETRY.1);
                *failures = failures.saturating_add(1);
                self.pauses.set(what.clone(), now + pause);
                self.say(what.to_string(), format!("{what}: {error}; tried again"));
            }
            None => {
                self.failures.remove(what);
                self.said.remove(&what.to_string());
                // Time for the list to show it, so that it is not done twice.
                self.pauses.set(what.clone(), now + CHORE_RETRY.0);
            }
        }
        let lane = match what {
            Chore::Network => Lane::Networks,
            Chore::OwnService => Lane::Managed,
            Chore::OldSecret(_) | Chore::Secret(_) => Lane::Secrets,
        };
        self.actions.push_back(FleetAction::Look(lane));
    }

    /// A write of the reconciler was answered.
    pub fn handle_written(&mut self, id: WriteId, result: Result<(), ApiError>, now: Instant) {
        if let Some(reconciler) = &mut self.reconciler {
            reconciler.handle(ReconcileFact::Written { id, result }, now);
        }
        self.drain_reconciler(now);
    }

    /// The earliest thing that is due.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let reconciler = self.reconciler.as_ref()?;
        let pause = self.pauses.next().map(|(_, at)| Deadline {
            at,
            why: "a chore is tried again",
        });
        let identity = Deadline {
            at: self.next_identity_look,
            why: "lifetimes of certificates",
        };
        Deadline::earliest(Deadline::earliest(reconciler.poll_timeout(), pause), Some(identity))
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, world: &World, book: &RouteBook, now: Instant) {
        let Some(reconciler) = &mut self.reconciler else { return };
        reconciler.handle_timeout(now);
        let mut look = now >= self.next_identity_look;
        while self.pauses.pop_due(now).is_some() {
            look = true;
        }
        if look {
            self.look(world, book, now);
            // The look may have found nothing to act on; it is not repeated at once.
            self.next_identity_look = self.next_identity_look.max(now + IDENTITY_EVERY);
        }
        self.drain_reconciler(now);
    }

    fn keep_identities(&mut self, plan: &IdentityPlan, world: &World, own: &ManagedService, now: Instant) {
        for new in &plan.create {
            self.chore(
                Chore::Secret(new.name.clone()),
                ControllerAction::CreateSecret(new.clone()),
                now,
            );
        }
        let is_mounted = |name: &String| {
            let mut services = world.managed().values();
            services.any(|service| service.shape.secrets.contains_key(name))
        };
        for (name, id) in plan.remove.iter().filter(|(name, _)| !is_mounted(name)) {
            let (id, name) = (id.clone(), name.clone());
            let what = Chore::OldSecret(name.clone());
            self.chore(what, ControllerAction::RemoveSecret { id, name }, now);
        }
        let mut secrets = own.shape.secrets.clone();
        secrets.extend(plan.controller_mounts.clone());
        secrets.retain(|name, _| !plan.controller_unmounts.contains(name));
        if secrets != own.shape.secrets {
            let mut shape = Box::new(own.shape.clone());
            shape.secrets = secrets;
            let action = ControllerAction::WriteOwnService {
                id: own.id.clone(),
                version: own.version,
                shape,
            };
            self.chore(Chore::OwnService, action, now);
        }
    }

    fn control_network(&mut self, world: &World, now: Instant) -> Option<NetworkId> {
        let name = self.settings.controller.control_network.clone();
        let found = by_name(world, &name).map(|network| network.id.clone());
        if found.is_none() {
            self.chore(Chore::Network, ControllerAction::CreateNetwork(name), now);
        }
        found
    }

    /// Whether the secrets of a service cluster come by courier.
    fn has_courier(&self) -> bool {
        let clusters = self.settings.clusters.values();
        clusters
            .map(|cluster| cluster.certificates)
            .any(|source| source == CertificateSource::Courier)
    }

    fn keep_services(
        &mut self,
        world: &World,
        book: &RouteBook,
        own: &ManagedService,
        plan: &IdentityPlan,
        control: &NetworkId,
        now: Instant,
    ) {
        let Some(installation) = self.installation.clone() else {
            return;
        };
        if !self
            .settings
            .clusters
            .keys()
            .all(|cluster| plan.proxy_secrets.contains_key(cluster))
            || self.has_courier() && plan.courier_secret.is_none()
        {
            return; // identities come first; until then no cluster is judged, so that none is removed
        }
        let env = BTreeMap::from([
            (
                "TIDEGATE_CONTROLLER".to_string(),
                format!("tasks.{}:{}", self.service, self.me.control_port),
            ),
            ("TIDEGATE_TASK".to_string(), "{{.Task.Name}}".to_string()),
            (
                "TIDEGATE_ADMIN_CONTROL_PORT".to_string(),
                ADMIN_CONTROL_PORT.to_string(),
            ),
        ]);
        let has_workers = world.nodes().values().any(|node| !node.manager);
        let usable = usable_secrets(world);
        let mut wanted = Vec::new();
        let mut by_courier = BTreeMap::new();
        for (cluster, settings) in &self.settings.clusters.clone() {
            let networks = match &settings.networks {
                NetworkPolicy::Attach => book.networks_of(cluster),
                NetworkPolicy::Legs => BTreeSet::new(),
                NetworkPolicy::Shared(names) => self.shared_networks(world, cluster, names),
            };
            if settings.networks == NetworkPolicy::Legs {
                let proxies = proxy_service_name(cluster, settings, &installation);
                let proxies = world.managed().values().find(|service| service.shape.name == proxies);
                let facts = LegFacts {
                    installation: &installation,
                    own_image: &own.shape.image,
                    has_workers,
                    constraints: proxies.map(|service| &service.shape.constraints),
                };
                let foreign = book
                    .networks_of(cluster)
                    .into_iter()
                    .filter(|network| network != control);
                wanted.extend(
                    foreign
                        .map(|network| leg_shape(cluster, settings, &network, world.networks().get(&network), &facts)),
                );
            }
            let named = book.secrets_of(cluster);
            let existing = named.intersection(&usable).map(|name| (name.clone(), name.clone()));
            let mut secrets = BTreeMap::new();
            let mut env = env.clone();
            match settings.certificates {
                CertificateSource::Courier => {
                    by_courier.extend(existing);
                    env.insert("TIDEGATE_COURIER".to_string(), "true".to_string());
                }
                CertificateSource::Direct => secrets.extend(existing),
            }
            let secret = plan.proxy_secrets.get(cluster).cloned().unwrap_or_default();
            secrets.insert(secret, PROXY_FILE.to_string());
            let facts = ProxyFacts {
                installation: &installation,
                own_image: &own.shape.image,
                control_network: control,
                networks: &networks,
                has_workers,
                env: &env,
                secrets: &secrets,
            };
            wanted.push(proxy_shape(cluster, settings, &facts));
        }
        // Without a secret to bring there is nothing to do for it.
        if let Some(identity) = plan.courier_secret.as_ref().filter(|_| !by_courier.is_empty()) {
            by_courier.insert(identity.clone(), PROXY_FILE.to_string());
            let facts = CourierFacts {
                installation: &installation,
                own_image: &own.shape.image,
                control_network: control,
                env: &env,
                secrets: &by_courier,
            };
            wanted.push(courier_shape(&self.settings.controller, &facts));
        }
        if wanted != self.wanted {
            self.wanted.clone_from(&wanted);
            if let Some(reconciler) = &mut self.reconciler {
                reconciler.handle(ReconcileFact::Wanted(wanted), now);
            }
        }
    }

    /// `docker stack rm` takes the proxies along and not the legs, which belong to other stacks: the controllers, which live on
    /// for 3 s after their service was removed, remove them.
    fn leave_with_own_service(&mut self, world: &World, now: Instant) {
        let is_removed = self.own.as_ref().is_some_and(|own| world.was_removed(own));
        let Some(reconciler) = self.reconciler.as_mut().filter(|_| is_removed) else {
            return;
        };
        reconciler.handle(ReconcileFact::Relieved(false), now);
        let is_leg = |shape: &ServiceShape| shape.labels.get(ROLE_LABEL).is_some_and(|role| role == LEG_ROLE);
        self.wanted.retain(|shape| !is_leg(shape));
        reconciler.handle(ReconcileFact::Leave, now);
        reconciler.handle(ReconcileFact::Managed(world.managed().values().cloned().collect()), now);
        reconciler.handle(ReconcileFact::Wanted(self.wanted.clone()), now);
        self.drain_reconciler(now);
    }

    fn shared_networks(&mut self, world: &World, cluster: &ClusterName, names: &[String]) -> BTreeSet<NetworkId> {
        let mut found = BTreeSet::new();
        for name in names {
            let topic = format!("clusters.{cluster}.networks: {name}");
            match by_name(world, name) {
                Some(network) => {
                    found.insert(network.id.clone());
                    self.said.remove(&topic);
                }
                None => {
                    let text = format!(
                        "{topic}: there is no such network; make it with `docker network create --driver overlay {name}`"
                    );
                    self.say(topic, text);
                }
            }
        }
        found
    }

    fn chore(&mut self, what: Chore, action: ControllerAction, now: Instant) {
        let waits = self.pauses.get(&what).is_some_and(|until| until > now);
        if waits || self.under_way.contains(&what) {
            return;
        }
        if self.settings.controller.read_only {
            self.say(what.to_string(), format!("read-only: would do: {what}"));
            return;
        }
        self.under_way.insert(what);
        self.actions.push_back(FleetAction::Do(action));
    }

    fn drain_reconciler(&mut self, _now: Instant) {
        let Some(reconciler) = &mut self.reconciler else { return };
        while let Some(action) = reconciler.poll_action() {
            self.actions.push_back(match action {
                ReconcileAction::LookAgain => FleetAction::Look(Lane::Managed),
                ReconcileAction::Notice(notice) => FleetAction::Do(ControllerAction::Notice(notice.to_string())),
                ReconcileAction::Write { id, write } => FleetAction::Do(ControllerAction::Write { id, write }),
            });
        }
    }

    /// Says a thing once, until it holds no more.
    fn say(&mut self, topic: String, text: String) {
        if self.said.get(&topic) != Some(&text) {
            self.said.insert(topic, text.clone());
            self.actions.push_back(FleetAction::Do(ControllerAction::Notice(text)));
        }
    }
}

fn reconcile_settings(settings: &Settings, installation: &str) -> ReconcileSettings {
    ReconcileSettings {
        installation: installation.to_string(),
        read_only: settings.controller.read_only,
        ..ReconcileSettings::default()
    }
}

fn by_name<'a>(world: &'a World, name: &str) -> Option<&'a Network> {
    world
        .networks()
        .values()
        .find(|network| network.swarm_scope && (network.name == name || network.id.as_str() == name))
}
