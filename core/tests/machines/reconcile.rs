//! Two reconcilers of one installation over one Docker: lists that come late, writes that are refused, lost or never
//! answered, updates that are paused or rolled back, an operator who edits and removes, wishes that reach one before the other,
//! and services that belong to somebody else.
//!
//! The model is Docker itself: services by name, each with a version that a write must name.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::id::{ServiceId, Version};
use tidegate_core::machine::{Input, Machine as _, step};
use tidegate_core::reconcile::desired::{INSTALLATION_LABEL, ManagedService, ROLE_LABEL, ServiceShape};
use tidegate_core::reconcile::leg::LEG_ROLE;
use tidegate_core::reconcile::machine::{
    ReconcileAction, ReconcileFact, ReconcileSettings, Reconciler, Write, WriteId,
};
use tidegate_core::reconcile::plan::{Plan, plan};
use tidegate_core::reconcile::proxy::PROXY_ROLE;
use tidegate_core::rng::Rng;
use tidegate_core::swarm::model::ApiError;
use tidegate_core::time::{Duration, Instant};

use super::{Story, seeds};

const STEPS: u32 = 1500;
const INSTALLATION: &str = "tidegate";
const FOREIGN: &str = "somebody-elses-proxy";

struct Docker {
    services: BTreeMap<String, ManagedService>,
    version: u64,
    writes: u32,
    /// What each service was before its last update, for rollbacks.
    before: BTreeMap<String, ServiceShape>,
}

impl Docker {
    fn next(&mut self) -> Version {
        self.version += 1;
        Version(self.version)
    }

    fn apply(&mut self, write: &Write) -> Result<(), ApiError> {
        let name = write.service().to_owned();
        let version = self.next();
        match write {
            Write::Create(shape) => {
                if self.services.contains_key(&name) {
                    return Err(ApiError::Exists(name));
                }
                let service = ManagedService {
                    id: ServiceId::from(format!("id-{}", version.0).as_str()),
                    version,
                    shape: (**shape).clone(),
                    template: String::new(),
                    update_state: None,
                };
                self.services.insert(name, service);
            }
            Write::Remove { id, .. } => {
                let before = self.services.len();
                self.services.retain(|_, service| service.id != *id);
                if self.services.len() == before {
                    return Err(ApiError::NotFound(name));
                }
            }
            Write::Update {
                id,
                version: seen,
                shape,
            } => {
                let service = self.services.get_mut(&name).filter(|service| service.id == *id);
                let service = service.ok_or_else(|| ApiError::NotFound(name.clone()))?;
                if service.version != *seen {
                    return Err(ApiError::Conflict("update out of sequence".to_owned()));
                }
                self.before.insert(name, service.shape.clone());
                service.shape = (**shape).clone();
                service.version = version;
                service.update_state = Some("updating".to_owned());
            }
        }
        self.writes += 1;
        Ok(())
    }

    /// Somebody changes a service, or Docker itself does.
    fn edit(&mut self, name: &str, edit: impl FnOnce(&mut ManagedService)) {
        let version = self.next();
        if let Some(service) = self.services.get_mut(name) {
            edit(service);
            service.version = version;
        }
    }
}

struct Controller {
    machine: Reconciler,
    flight: Option<(WriteId, Write)>,
    /// The list that it saw last.
    seen: BTreeMap<String, ManagedService>,
    seen_at: u64,
    asks: bool,
}

struct World<'a> {
    rng: Rng,
    story: &'a Story,
    now: Instant,
    docker: Docker,
    controllers: Vec<Controller>,
    wish: BTreeMap<String, ServiceShape>,
    ever_wanted: BTreeSet<String>,
    faults: bool,
}

fn shape(name: &str, role: &str, installation: &str) -> ServiceShape {
    let labels = [(ROLE_LABEL, role), (INSTALLATION_LABEL, installation)];
    ServiceShape {
        name: name.to_owned(),
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        image: "tidegate:1".to_owned(),
        replicas: Some(2),
        networks: ["control".to_owned()].into(),
        ..ServiceShape::default()
    }
}

impl<'a> World<'a> {
    fn new(rng: Rng, story: &'a Story) -> Self {
        let settings = || ReconcileSettings {
            installation: INSTALLATION.to_owned(),
            ..ReconcileSettings::default()
        };
        let controllers = (0..2)
            .map(|_| Controller {
                machine: Reconciler::new(settings()),
                flight: None,
                seen: BTreeMap::new(),
                seen_at: 0,
                asks: true,
            })
            .collect();
        let mut docker = Docker {
            services: BTreeMap::new(),
            version: 0,
            writes: 0,
            before: BTreeMap::new(),
        };
        let foreign = Write::Create(Box::new(shape(FOREIGN, PROXY_ROLE, "another")));
        docker.apply(&foreign).expect("nobody has this name");
        docker.writes = 0;
        let wish = BTreeMap::from([("proxy".to_owned(), shape("proxy", PROXY_ROLE, INSTALLATION))]);
        World {
            rng,
            story,
            now: Instant::START,
            docker,
            controllers,
            ever_wanted: wish.keys().cloned().collect(),
            wish,
            faults: true,
        }
    }

    fn feed(&mut self, at: usize, input: Input<ReconcileFact>) {
        let mut actions = Vec::new();
        step(&mut self.controllers[at].machine, input, self.now, |action| {
            actions.push(action)
        });
        for action in actions {
            match action {
                ReconcileAction::LookAgain => self.controllers[at].asks = true,
                ReconcileAction::Notice(notice) => self.story.tell(format!("{:?} c{at}: {notice:?}", self.now)),
                ReconcileAction::Write { id, write } => self.take(at, id, write),
            }
        }
    }

    /// What a reconciler wants written is its own, wanted, and of the version that it saw.
    fn take(&mut self, at: usize, id: WriteId, write: Write) {
        let controller = &mut self.controllers[at];
        self.story.tell(format!("{:?} c{at} writes {}", self.now, told(&write)));
        assert!(controller.flight.is_none(), "c{at} has two writes in flight");
        let name = write.service();
        assert!(
            self.ever_wanted.contains(name),
            "c{at} writes {name}, which nobody ever wanted"
        );
        match &write {
            Write::Create(_) => {}
            Write::Remove { id, .. } => {
                let known = controller.seen.values().find(|service| service.id == *id);
                assert!(known.is_some_and(is_ours), "c{at} removes {name}");
            }
            Write::Update { id, version, shape } => {
                let known = controller.seen.get(name);
                let fits = |service: &ManagedService| service.id == *id && service.version == *version;
                assert!(
                    known.is_some_and(|service| is_ours(service) && fits(service)),
                    "c{at} updates {name}"
                );
                assert_eq!(known.map(|service| &service.shape.name), Some(&shape.name));
            }
        }
        controller.flight = Some((id, write));
    }

    /// Docker answers a write, or somebody in between loses it or its answer.
    fn answer(&mut self, at: usize) {
        let Some((id, write)) = self.controllers[at].flight.take() else {
            return;
        };
        let dice = if self.faults { self.rng.below(12) } else { 99 };
        let result = match dice {
            0 => Err(ApiError::Unreachable("reset".to_owned())),
            1 => Err(ApiError::Server("the swarm does not have a leader".to_owned())),
            2 => Err(ApiError::Refused("invalid mount".to_owned())),
            3 => {
                let _ = self.docker.apply(&write); // done or not, nobody hears of it
                Err(ApiError::Unreachable("no answer in time".to_owned()))
            }
            4 => {
                let _ = self.docker.apply(&write); // nobody ever answers
                return;
            }
            _ => self.docker.apply(&write),
        };
        self.story.tell(format!("{:?} c{at} hears {result:?}", self.now));
        self.feed(at, Input::Fact(ReconcileFact::Written { id, result }));
    }

    /// A list of now; lists never go back.
    fn look(&mut self, at: usize) {
        let controller = &mut self.controllers[at];
        (controller.seen, controller.seen_at) = (self.docker.services.clone(), self.docker.version);
        controller.asks = false;
        let list = controller.seen.values().cloned().collect();
        self.feed(at, Input::Fact(ReconcileFact::Managed(list)));
    }

    fn tell_wish(&mut self, at: usize) {
        let wish = self.wish.values().cloned().collect();
        self.feed(at, Input::Fact(ReconcileFact::Wanted(wish)));
    }

    fn change_wish(&mut self) {
        let leg = format!("leg-{}", self.rng.below(3));
        let dice = self.rng.below(6);
        let proxy = self.wish.get_mut("proxy").expect("it is always wanted");
        match dice {
            0 => proxy.image = format!("tidegate:{}", self.rng.below(4)),
            1 => {
                let network = format!("net-{}", self.rng.below(4));
                if !proxy.networks.remove(&network) {
                    proxy.networks.insert(network);
                }
            }
            2 => proxy.replicas = Some(self.rng.between(1, 3)),
            3 => proxy.replicas = None,
            _ if self.wish.contains_key(&leg) => _ = self.wish.remove(&leg),
            _ => {
                let shape = shape(&leg, LEG_ROLE, INSTALLATION);
                self.ever_wanted.insert(leg.clone());
                self.wish.insert(leg, shape);
            }
        }
        self.story.tell(format!("{:?} wish: {:?}", self.now, self.wish.keys()));
    }

    /// Docker goes on with an update, or a person does something by hand.
    fn others(&mut self) {
        let ours: Vec<String> = self
            .docker
            .services
            .values()
            .filter(|one| is_ours(one))
            .map(|one| one.shape.name.clone())
            .collect();
        let Some(name) = self.rng.pick(&ours).cloned() else {
            return;
        };
        let dice = self.rng.below(8);
        self.story.tell(format!("{:?} {name}: {dice}", self.now));
        match dice {
            0 => _ = self.docker.services.remove(&name),
            1 => self
                .docker
                .edit(&name, |service| service.shape.image = "edited:1".to_owned()),
            2 => self
                .docker
                .edit(&name, |service| _ = service.shape.env.insert("BY=hand".to_owned())),
            3 => self
                .docker
                .edit(&name, |service| service.update_state = Some("paused".to_owned())),
            4 => {
                let before = self.docker.before.get(&name).cloned();
                self.docker.edit(&name, |service| {
                    service.shape = before.unwrap_or_else(|| service.shape.clone());
                    service.update_state = Some("rollback_completed".to_owned());
                });
            }
            _ => self
                .docker
                .edit(&name, |service| service.update_state = Some("completed".to_owned())),
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
        for at in 0..self.controllers.len() {
            if self.controllers[at]
                .machine
                .poll_timeout()
                .is_some_and(|due| due.at <= self.now)
            {
                // A write that counts as lost is not in flight any more.
                let due = self.controllers[at].machine.poll_timeout().map(|due| due.why);
                if due == Some("a write to Docker counts as lost") {
                    self.controllers[at].flight = None;
                }
                self.feed(at, Input::Timeout);
            }
        }
    }

    /// Docker does what it is asked, lists are of now, and everybody has one wish.
    fn rest(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            for at in 0..self.controllers.len() {
                self.answer(at);
                if self.controllers[at].asks || self.controllers[at].seen_at < self.docker.version {
                    self.look(at);
                }
            }
            let updating = |one: &&ManagedService| one.update_state.as_deref() == Some("updating");
            let updating = self
                .docker
                .services
                .values()
                .find(updating)
                .map(|one| one.shape.name.clone());
            if let Some(name) = &updating
                && self.rng.chance(1, 10)
            {
                self.docker
                    .edit(name, |service| service.update_state = Some("completed".to_owned()));
            }
            let busy = |one: &Controller| one.flight.is_some() || one.asks || one.seen_at < self.docker.version;
            let still = updating.is_none() && !self.controllers.iter().any(busy);
            let due = self
                .controllers
                .iter()
                .filter_map(|one| one.machine.poll_timeout())
                .map(|due| due.at)
                .min();
            let quiet = due.unwrap_or(end).min(end).since(self.now).as_millis() as u64;
            self.pass(if still { quiet.max(1) } else { 500 });
        }
    }

    fn heal(&mut self) {
        self.faults = false;
        // What Docker rolled back is not written again until the wish is another one.
        for shape in self.wish.values_mut() {
            shape.image = "tidegate:at-last".to_owned();
        }
        for at in 0..self.controllers.len() {
            self.tell_wish(at);
        }
        self.rest(900);
        let writes = self.docker.writes;
        self.rest(900);
        assert_eq!(self.docker.writes, writes, "writes go on though nothing changes");
        for (name, wanted) in &self.wish {
            let actual = self
                .docker
                .services
                .get(name)
                .unwrap_or_else(|| panic!("{name} is not there"));
            assert_eq!(plan(wanted, actual, None), Plan::Nothing, "{name} is as wanted");
            assert_eq!(actual.shape.image, wanted.image, "{name}");
        }
        for service in self.docker.services.values().filter(|service| is_ours(service)) {
            assert!(
                self.wish.contains_key(&service.shape.name),
                "{} is not wanted",
                service.shape.name
            );
        }
        for (at, controller) in self.controllers.iter().enumerate() {
            assert!(controller.machine.is_settled(), "c{at} is not at rest");
        }
    }
}

fn told(write: &Write) -> String {
    match write {
        Write::Create(shape) => format!("create {}", shape.name),
        Write::Remove { name, .. } => format!("remove {name}"),
        Write::Update { version, shape, .. } => format!("update {} of {version:?}", shape.name),
    }
}

fn is_ours(service: &ManagedService) -> bool {
    service.shape.labels.get(INSTALLATION_LABEL).map(String::as_str) == Some(INSTALLATION)
}

#[test]
fn services_become_as_wanted_and_nothing_else_is_touched() {
    seeds("services_become", 20, |rng, story| {
        let mut world = World::new(rng, story);
        let foreign = world.docker.services[FOREIGN].clone();
        let faults = world.rng.between(0, 10);
        for _ in 0..STEPS {
            let at = world.rng.index(2);
            match world.rng.below(100) {
                dice if dice < faults => world.others(),
                dice if dice < faults + 3 => world.change_wish(),
                dice if dice < faults + 12 => world.tell_wish(at),
                dice if dice < faults + 35 => world.answer(at),
                dice if dice < faults + 50 => {
                    if world.controllers[at].asks || world.rng.chance(1, 3) {
                        world.look(at);
                    }
                }
                _ => {
                    let ms = world.rng.below(2000);
                    world.pass(ms);
                }
            }
        }
        let hours = world.now.since_start().as_secs() / 3600 + 1;
        assert!(
            u64::from(world.docker.writes) < 2000 * hours,
            "{} writes",
            world.docker.writes
        );
        world.heal();
        assert_eq!(
            world.docker.services[FOREIGN], foreign,
            "somebody else's service is touched"
        );
    });
}
