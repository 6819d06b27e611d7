//! A reconciler, and Docker as far as reconcilers see it.

use super::*;

/// Docker, as far as reconcilers see it.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    pub(super) services: BTreeMap<String, ManagedService>,
    pub(super) version: u64,
    pub(super) writes: Vec<String>,
}

impl Store {
    pub(super) fn next(&mut self) -> Version {
        self.version += 1;
        Version(self.version)
    }

    pub(super) fn list(&self) -> Vec<ManagedService> {
        self.services.values().cloned().collect()
    }

    pub(super) fn apply(&mut self, write: &Write) -> Result<(), ApiError> {
        let name = String::from(write.service());
        match write {
            Write::Create(shape) => {
                if self.services.contains_key(&name) {
                    return Err(ApiError::Exists(name));
                }
                let version = self.next();
                let service = ManagedService {
                    id: ServiceId::from(format!("id-{}", version.0)),
                    version,
                    shape: *shape.clone(),
                    template: String::new(),
                    update_state: None,
                };
                self.services.insert(name.clone(), service);
                self.writes.push(format!("create {name}"));
            }
            Write::Remove { id, .. } => {
                let before = self.services.len();
                self.services.retain(|_, service| service.id != *id);
                if self.services.len() == before {
                    return Err(ApiError::NotFound(name));
                }
                self.writes.push(format!("remove {name}"));
            }
            Write::Update { id, version, shape } => {
                let next = self.next();
                let service = self.services.get_mut(&name).filter(|service| service.id == *id);
                let service = service.ok_or(ApiError::NotFound(name.clone()))?;
                if service.version != *version {
                    return Err(ApiError::Conflict(String::from("update out of sequence")));
                }
                service.shape = *shape.clone();
                service.version = next;
                service.update_state = Some(String::from("updating"));
                self.writes.push(format!("update {name}"));
            }
        }
        Ok(())
    }

    /// Docker has replaced its tasks.
    pub(super) fn completes(&mut self, name: &str) {
        self.edit(name, |service| service.update_state = Some(String::from("completed")));
    }

    pub(super) fn edit(&mut self, name: &str, edit: impl FnOnce(&mut ManagedService)) {
        let version = self.next();
        let service = self.services.get_mut(name).expect("a service of this name");
        edit(service);
        service.version = version;
    }
}

pub(super) struct Bench {
    pub(super) reconciler: Reconciler,
    pub(super) now: Instant,
    /// The write in flight.
    pub(super) flight: Option<(WriteId, Write)>,
    pub(super) looks: u32,
    pub(super) notices: Vec<Notice>,
}

impl Bench {
    pub(super) fn new(settings: ReconcileSettings) -> Bench {
        Bench {
            reconciler: Reconciler::new(settings),
            now: Instant::START,
            flight: None,
            looks: 0,
            notices: Vec::new(),
        }
    }

    pub(super) fn input(&mut self, input: Input<ReconcileFact>) {
        step(&mut self.reconciler, input, self.now, |action| match action {
            ReconcileAction::LookAgain => self.looks += 1,
            ReconcileAction::Notice(notice) => self.notices.push(notice),
            ReconcileAction::Write { id, write } => {
                assert!(self.flight.is_none(), "two writes in flight");
                self.flight = Some((id, write));
            }
        });
    }

    pub(super) fn wanted(&mut self, shapes: &[ServiceShape]) {
        self.input(Input::Fact(ReconcileFact::Wanted(shapes.to_vec())));
    }

    pub(super) fn look(&mut self, store: &Store) {
        self.input(Input::Fact(ReconcileFact::Managed(store.list())));
    }

    pub(super) fn written(&mut self, result: Result<(), ApiError>) {
        let (id, _) = self.flight.take().expect("a write is in flight");
        self.input(Input::Fact(ReconcileFact::Written { id, result }));
    }

    /// Lets `ms` pass: writes are done at once, and each look that is asked for is answered.
    pub(super) fn run(&mut self, store: &mut Store, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        loop {
            if let Some((_, write)) = &self.flight {
                let result = store.apply(write);
                self.written(result);
            } else if self.looks > 0 {
                self.looks = 0;
                self.look(store);
            } else {
                let due = self.reconciler.poll_timeout().filter(|deadline| deadline.at <= end);
                let Some(deadline) = due else { break };
                self.now = self.now.max(deadline.at);
                self.input(Input::Timeout);
            }
        }
        self.now = end;
    }
}

pub(super) fn shape(name: &str, networks: &[&str]) -> ServiceShape {
    ServiceShape {
        name: String::from(name),
        labels: BTreeMap::from([
            (String::from(ROLE_LABEL), String::from(PROXY_ROLE)),
            (String::from(INSTALLATION_LABEL), String::from("tidegate")),
        ]),
        image: String::from("tidegate:1"),
        replicas: Some(2),
        networks: networks.iter().map(|network| String::from(*network)).collect(),
        ports: [published_tcp(80, 8080, PublishMode::Ingress)].into(),
        ..ServiceShape::default()
    }
}

/// The proxy service of another image.
pub(super) fn image(image: &str) -> ServiceShape {
    ServiceShape {
        image: String::from(image),
        ..shape("proxy", &["control"])
    }
}

/// One proxy service, made and seen.
pub(super) fn made() -> (Bench, Store) {
    let mut store = Store::default();
    let mut bench = Bench::new(ReconcileSettings::default());
    bench.look(&store);
    bench.wanted(&[shape("proxy", &["control"])]);
    bench.run(&mut store, 20_000);
    assert_eq!(store.writes, ["create proxy"]);
    assert!(bench.reconciler.is_settled());
    store.writes.clear();
    (bench, store)
}
