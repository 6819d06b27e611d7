//! The controller's loop: starts what the [`Controller`] asks for, and brings every answer back as a fact.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tidegate_core::controller::routes::OwnedClaim;
use tidegate_core::controller::status::ControllerStatus;
use tidegate_core::controller::{Chore, Controller, ControllerAction, ControllerFact, Me};
use tidegate_core::id::{ClusterName, Version};
use tidegate_core::identity::{Content, NewSecret};
use tidegate_core::labels::Severity;
use tidegate_core::machine::{Input, step};
use tidegate_core::reconcile::machine::Write;
use tidegate_core::recording::{Recorder, step_recorded};
use tidegate_core::settings::Settings;
use tidegate_core::snapshot::Connection;
use tidegate_core::snapshot::model::Snapshot;
use tidegate_core::swarm::model::{ApiError, FeedEnd};
use tidegate_core::swarm::world::{Answer, Fetch, Lane, StreamId, WorldCounters, WorldFact};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::clock::Clock;
use crate::control::LinkFact;
use crate::identity::{Authority, IdentityError, Role};
use crate::swarm_api::SwarmApi;
use crate::telemetry::freshness::{CallCounts, Calls, Freshness};

/// Facts that wait for the controller.
const FACTS_WAITING_MAX: usize = 1024;
/// What is said where nothing is recorded.
const NOT_RECORDED: &str =
    "nothing is recorded: start the controller with --record 10m, or TIDEGATE_RECORD=10m in its environment";

/// What a controller is made of.
#[derive(Debug)]
pub struct ControllerApp<A> {
    /// The Swarm.
    pub api: A,
    /// Time.
    pub clock: Clock,
    /// Settings.
    pub settings: Settings,
    /// Who it is.
    pub me: Me,
    /// The authorities whose keys it has, by generation.
    pub authorities: BTreeMap<u64, Authority>,
    /// Keeps what it is told and decides, where that is wanted.
    pub recorder: Option<Recorder>,
}

/// A question to a running controller.
#[derive(Debug)]
pub enum ControllerQuery {
    /// What the recorder has, as the lines of a file, or why there is nothing.
    Recording(oneshot::Sender<Result<String, String>>),
    /// Everything about its present state.
    State(oneshot::Sender<ControllerState>),
}

/// The answer: all of it at one moment.
#[derive(Clone, Debug, Default)]
pub struct ControllerState {
    /// For people.
    pub status: ControllerStatus,
    /// What is published, by service cluster.
    pub snapshots: BTreeMap<ClusterName, Snapshot>,
    /// What each labelled service claims.
    pub claims: Vec<OwnedClaim>,
    /// Counts of looks at Docker.
    pub counters: WorldCounters,
    /// How far each list may be behind Docker.
    pub ages: BTreeMap<Lane, Duration>,
    /// Whether SwarmKit's watch tells of tasks.
    pub is_fed: bool,
    /// Calls to Docker.
    pub calls: CallCounts,
    /// How long changes took to the proxies.
    pub freshness: Freshness,
}

enum Wake {
    Fact(ControllerFact),
    Link(LinkFact),
    Query(ControllerQuery),
    Timeout,
}

/// Runs a controller until `stop`.
pub async fn run_controller<A: SwarmApi>(
    app: ControllerApp<A>,
    mut links: mpsc::Receiver<LinkFact>,
    mut queries: mpsc::Receiver<ControllerQuery>,
    stop: CancellationToken,
) {
    let ControllerApp {
        api,
        clock,
        settings,
        me,
        authorities,
        mut recorder,
    } = app;
    let limit = Duration::from_millis(settings.controller.docker_timeout_ms.into());
    let (facts, mut incoming) = mpsc::channel(FACTS_WAITING_MAX);
    let mut shell = Shell {
        api: Rc::new(api),
        clock,
        calling: Calling {
            limit,
            calls: Rc::default(),
        },
        authorities: Rc::new(authorities),
        facts,
        lines: BTreeMap::new(),
        events: None,
        feed: None,
        freshness: Freshness::default(),
    };
    let mut machine = Controller::new(settings, me);
    let mut told_end = false;
    let mut turn = |machine: &mut Controller, shell: &mut Shell<A>, recorder: &mut Option<Recorder>, input| {
        let now = clock.now();
        let Some(kept) = recorder else {
            return step(machine, input, now, |action| shell.start(action));
        };
        let next = step_recorded(machine, kept, input, now, |action| shell.start(action));
        if let (Some(why), false) = (kept.given_up(), told_end) {
            tracing::warn!("nothing is recorded any more: {why}; see --record-mb");
            told_end = true;
        }
        next
    };
    let mut next = turn(&mut machine, &mut shell, &mut recorder, Input::Timeout);
    loop {
        let wake = tokio::select! { biased;
            () = stop.cancelled() => return,
            () = clock.sleep_until(next.map(|deadline| deadline.at)) => Wake::Timeout,
            Some(query) = queries.recv() => Wake::Query(query),
            Some(link) = links.recv() => Wake::Link(link),
            Some(fact) = incoming.recv() => Wake::Fact(fact),
        };
        let input = match wake {
            Wake::Timeout => Input::Timeout,
            Wake::Fact(fact) => Input::Fact(fact),
            Wake::Link(link) => Input::Fact(shell.link(link)),
            Wake::Query(ControllerQuery::Recording(answer)) => {
                let none = || Err(NOT_RECORDED.to_owned());
                answer
                    .send(recorder.as_ref().map_or_else(none, Recorder::recording))
                    .ok(); // as below
                continue;
            }
            Wake::Query(ControllerQuery::State(answer)) => {
                // The asker may have gone meanwhile.
                answer.send(shell.state(&machine)).ok();
                continue;
            }
        };
        next = turn(&mut machine, &mut shell, &mut recorder, input);
    }
}

struct Shell<A> {
    api: Rc<A>,
    clock: Clock,
    calling: Calling,
    authorities: Rc<BTreeMap<u64, Authority>>,
    facts: mpsc::Sender<ControllerFact>,
    lines: BTreeMap<Connection, mpsc::Sender<Arc<str>>>,
    events: Option<AbortOnDropHandle<()>>,
    feed: Option<AbortOnDropHandle<()>>,
    freshness: Freshness,
}

impl<A: SwarmApi> Shell<A> {
    fn link(&mut self, fact: LinkFact) -> ControllerFact {
        match fact {
            LinkFact::Ack { cluster, ack } => ControllerFact::Ack { cluster, ack },
            LinkFact::Connected {
                connection,
                cluster,
                proxy,
                digest,
                lines,
            } => {
                tracing::info!(%cluster, %proxy, "a proxy connected");
                self.lines.insert(connection, lines);
                ControllerFact::Connected {
                    connection,
                    cluster,
                    proxy,
                    digest,
                }
            }
            LinkFact::Disconnected { cluster, connection } => {
                self.lines.remove(&connection);
                ControllerFact::Disconnected { cluster, connection }
            }
            LinkFact::CourierConnected {
                connection,
                task,
                parcels,
                lines,
            } => {
                let names: Vec<&str> = parcels.iter().map(|parcel| parcel.name.as_str()).collect();
                tracing::info!(task, secrets = names.join(", "), "a courier handed over");
                self.lines.insert(connection, lines);
                ControllerFact::CourierConnected {
                    connection,
                    task,
                    parcels,
                }
            }
            LinkFact::OwnNetworks(on) => ControllerFact::OwnNetworks(on),
            LinkFact::Report { cluster, report } => ControllerFact::Report { cluster, report },
            LinkFact::SecretsEnded(connection) => {
                self.lines.remove(&connection);
                ControllerFact::SecretsEnded(connection)
            }
            LinkFact::SecretsWanted {
                connection,
                cluster,
                proxy,
                lines,
            } => {
                self.lines.insert(connection, lines);
                ControllerFact::SecretsWanted {
                    connection,
                    cluster,
                    proxy,
                }
            }
        }
    }

    fn send(&mut self, to: Connection, line: Arc<str>) {
        let Some(lines) = self.lines.get(&to) else { return };
        if lines.try_send(line).is_err() {
            // Too slow or gone: without its sender the connection ends, and the proxy starts anew.
            self.lines.remove(&to);
        }
    }

    fn state(&self, machine: &Controller) -> ControllerState {
        let now = self.clock.now();
        let age = |lane: Lane| Some((lane, machine.world().age(lane, now)?));
        ControllerState {
            status: machine.status(now),
            snapshots: machine
                .publishers()
                .keys()
                .map(|name| (name.clone(), machine.snapshot(name)))
                .collect(),
            claims: machine.claims(),
            counters: machine.world().counters().clone(),
            ages: Lane::ALL.into_iter().filter_map(age).collect(),
            is_fed: machine.world().is_fed(),
            calls: self.calling.calls.counts(),
            freshness: self.freshness.clone(),
        }
    }

    /// Starts what was asked for; never waits.
    fn start(&mut self, action: ControllerAction) {
        match action {
            ControllerAction::Acked {
                cluster,
                is_present,
                served,
            } => {
                self.freshness.served(&served, self.clock.wall());
                let took_ms = served.last().map(|served| served.took.as_millis());
                match is_present {
                    true => tracing::info!(%cluster, took_ms, "a proxy serves the present table"),
                    false => tracing::debug!(%cluster, took_ms, "a proxy serves a table that is past already"),
                }
            }
            ControllerAction::Diagnosed(diagnostic) => match diagnostic.severity {
                Severity::Error => tracing::warn!("{diagnostic}"),
                Severity::Warning => tracing::info!("{diagnostic}"),
            },
            ControllerAction::Notice(text) => tracing::warn!("{text}"),
            ControllerAction::Published { cluster, cause } => tracing::info!(%cluster, %cause, "table published"),
            ControllerAction::Deliver(deliver) => match serde_json::to_string(&deliver.delivery) {
                Ok(line) => self.send(deliver.to, Arc::from(line + "\n")),
                Err(error) => tracing::error!(%error, "secrets cannot be sent"),
            },
            ControllerAction::Send(send) => self.send(send.to, send.line),
            ControllerAction::Fetch { id, fetch } => {
                self.spawn(move |api, calling| async move {
                    let result = calling.run(name_of(&fetch), fetch_from(&*api, fetch)).await;
                    ControllerFact::World(WorldFact::Answer { id, result })
                });
            }
            ControllerAction::OpenEvents(stream) => self.open_events(stream),
            ControllerAction::OpenFeed { id, resume_from } => self.open_feed(id, resume_from),
            ControllerAction::CreateNetwork(name) => {
                tracing::info!(network = name, "making the control network");
                self.spawn(move |api, calling| async move {
                    let result = calling.run("create_network", api.create_network(&name, false)).await;
                    ControllerFact::Done {
                        what: Chore::Network,
                        result,
                    }
                });
            }
            ControllerAction::CreateSecret(new) => {
                tracing::info!(secret = new.name, "making an identity");
                let (authorities, clock) = (self.authorities.clone(), self.clock);
                self.spawn(move |api, calling| async move {
                    let result = match content(&new, &authorities, clock) {
                        Ok(pem) => {
                            let call = api.create_secret(&new.name, &new.labels, pem.as_bytes());
                            calling.run("create_secret", call).await.map(|_| ())
                        }
                        Err(error) => Err(ApiError::Refused(error.to_string())),
                    };
                    ControllerFact::Done {
                        what: Chore::Secret(new.name),
                        result,
                    }
                });
            }
            ControllerAction::RemoveSecret { id, name } => {
                tracing::info!(secret = name, "removing an identity whose life is over");
                self.spawn(move |api, calling| async move {
                    let result = calling.run("remove_secret", api.remove_secret(&id)).await;
                    ControllerFact::Done {
                        what: Chore::OldSecret(name),
                        result,
                    }
                });
            }
            ControllerAction::Write { id, write } => {
                tracing::info!(service = write.service(), "writing a service");
                self.spawn(move |api, calling| async move {
                    let result = calling.run(name_of_write(&write), perform(&*api, write)).await;
                    ControllerFact::Written { id, result }
                });
            }
            ControllerAction::WriteOwnService { id, version, shape } => {
                tracing::info!("changing which authorities the controllers mount: each restarts once");
                self.spawn(move |api, calling| async move {
                    let result = calling
                        .run("update_service", api.update_service(&id, version, &shape))
                        .await;
                    ControllerFact::Done {
                        what: Chore::OwnService,
                        result,
                    }
                });
            }
        }
    }

    /// Runs a call to Docker beside the loop; what it returns is the next fact.
    fn spawn<F: Future<Output = ControllerFact> + 'static>(&self, call: impl FnOnce(Rc<A>, Calling) -> F) {
        let (call, facts) = (call(self.api.clone(), self.calling.clone()), self.facts.clone());
        tokio::task::spawn_local(async move {
            facts.send(call.await).await.ok(); // the controller has stopped where this fails
        });
    }

    fn open_feed(&mut self, stream: StreamId, resume_from: Option<Version>) {
        let (api, calling, facts) = (self.api.clone(), self.calling.clone(), self.facts.clone());
        self.feed = Some(AbortOnDropHandle::new(tokio::task::spawn_local(async move {
            let told = feed_on(&*api, &calling, &facts, stream, resume_from).await;
            told.ok(); // the controller has stopped where this fails
        })));
    }

    fn open_events(&mut self, stream: StreamId) {
        let (api, calling, facts) = (self.api.clone(), self.calling.clone(), self.facts.clone());
        self.events = Some(AbortOnDropHandle::new(tokio::task::spawn_local(async move {
            let tell = |fact| facts.send(ControllerFact::World(fact));
            let error = match calling.run("events", api.events()).await {
                Ok(events) => {
                    let mut events = std::pin::pin!(events);
                    if tell(WorldFact::EventStreamOpened(stream)).await.is_err() {
                        return;
                    }
                    loop {
                        match events.next().await {
                            Some(Ok(event)) => {
                                if tell(WorldFact::Event(event)).await.is_err() {
                                    return;
                                }
                            }
                            Some(Err(error)) => break Some(error),
                            None => break None,
                        }
                    }
                }
                Err(error) => Some(error),
            };
            tell(WorldFact::EventStreamClosed { stream, error }).await.ok(); // as above
        })));
    }
}

/// Carries on what the feed tells, up to its end; stops where the controller has.
async fn feed_on<A: SwarmApi>(
    api: &A,
    calling: &Calling,
    facts: &mpsc::Sender<ControllerFact>,
    stream: StreamId,
    resume_from: Option<Version>,
) -> Result<(), mpsc::error::SendError<ControllerFact>> {
    let tell = |fact| facts.send(ControllerFact::World(fact));
    let changes = api.task_changes(resume_from);
    let opened = calling.run_feed(changes).await;
    let end = match opened {
        Ok(changes) => {
            let mut changes = std::pin::pin!(changes);
            tracing::info!(resumes = resume_from.is_some(), "SwarmKit tells of tasks");
            tell(WorldFact::FeedOpened(stream)).await?;
            loop {
                match changes.next().await {
                    Some(Ok(events)) => tell(WorldFact::FeedEvents(events)).await?,
                    Some(Err(end)) => break end,
                    None => break FeedEnd::Broken(ApiError::Unreachable("it ended without a reason".to_owned())),
                }
            }
        }
        Err(end) => end,
    };
    tracing::debug!("{end}");
    tell(WorldFact::FeedClosed { stream, end }).await
}

/// One limit for every call to Docker, and an account of them.
#[derive(Clone)]
struct Calling {
    limit: Duration,
    calls: Rc<Calls>,
}

impl Calling {
    async fn run<T>(&self, name: &'static str, call: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
        let limit = self.limit;
        let late = |_| {
            Err(ApiError::Unreachable(format!(
                "no answer within {} ms",
                limit.as_millis()
            )))
        };
        let result = tokio::time::timeout(limit, call).await.unwrap_or_else(late);
        self.calls.count(name, &result);
        result
    }

    /// The same for the feed, which fails in more ways than a call.
    async fn run_feed<T>(&self, opening: impl Future<Output = Result<T, FeedEnd>>) -> Result<T, FeedEnd> {
        let mut end = None;
        let call = async {
            opening.await.map_err(|why| {
                let text = why.to_string();
                let error = match &why {
                    FeedEnd::Broken(error) => error.clone(),
                    FeedEnd::Gap(_) => ApiError::Refused(text),
                    FeedEnd::NotThere(_) => ApiError::NotFound(text),
                };
                end = Some(why);
                error
            })
        };
        let result = self.run("task_changes", call).await;
        result.map_err(|late| end.unwrap_or(FeedEnd::Broken(late)))
    }
}

/// The call's kind, for metrics.
fn name_of(fetch: &Fetch) -> &'static str {
    match fetch {
        Fetch::Managed => "managed_services",
        Fetch::Networks => "networks",
        Fetch::Nodes => "nodes",
        Fetch::Secrets => "secrets",
        Fetch::Services(of) if of.is_empty() => "services",
        Fetch::Services(_) => "services_by_id",
        Fetch::Tasks(of) if of.is_empty() => "tasks",
        Fetch::Tasks(_) => "tasks_of_services",
    }
}

fn name_of_write(write: &Write) -> &'static str {
    match write {
        Write::Create(_) => "create_service",
        Write::Remove { .. } => "remove_service",
        Write::Update { .. } => "update_service",
    }
}

async fn fetch_from<A: SwarmApi>(api: &A, fetch: Fetch) -> Result<Answer, ApiError> {
    Ok(match fetch {
        Fetch::Managed => Answer::Managed(api.managed_services().await?),
        Fetch::Networks => Answer::Networks(api.networks().await?),
        Fetch::Nodes => Answer::Nodes(api.nodes().await?),
        Fetch::Secrets => Answer::Secrets(api.secrets().await?),
        Fetch::Services(of) => Answer::Services(api.services(&of).await?),
        Fetch::Tasks(of) => Answer::Tasks(api.tasks(&of).await?),
    })
}

async fn perform<A: SwarmApi>(api: &A, write: Write) -> Result<(), ApiError> {
    match write {
        Write::Create(shape) => api.create_service(&shape).await.map(|_| ()),
        Write::Remove { id, .. } => api.remove_service(&id).await,
        Write::Update { id, version, shape } => api.update_service(&id, version, &shape).await,
    }
}

fn content(new: &NewSecret, authorities: &BTreeMap<u64, Authority>, clock: Clock) -> Result<String, IdentityError> {
    let (role, roots) = match &new.content {
        Content::Authority => return Ok(Authority::generate(clock.wall())?.to_pem()),
        Content::Courier { roots } => (Role::Courier, roots),
        Content::Proxy { cluster, roots } => (Role::Proxy(cluster.clone()), roots),
    };
    let trusted: Vec<&str> = roots
        .iter()
        .filter_map(|root| authorities.get(root))
        .map(Authority::certificate_pem)
        .collect();
    let signer = roots.last().and_then(|newest| authorities.get(newest));
    let signer = signer
        .ok_or_else(|| IdentityError::Unreadable(new.name.clone(), "the authority's key is not here".to_owned()))?;
    Ok(signer.issue(&role, &trusted, clock.wall())?.to_pem())
}
