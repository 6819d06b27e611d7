//! Folds Docker's lists into one model, and says what to ask next and when.
//!
//! Docker's event stream has no task and no health events, and its contents lie at times (facts §3): an event is only
//! ever a reason to look. So the stream is opened first, then everything is listed; an event causes a look at the list
//! it belongs to, a changed service a series of looks at its tasks until they rest, and all tasks are listed every few
//! seconds as the safety net. A gap, an error or a reconnect lists everything again. Where the operator asked for it, [`feed`]
//! tells of tasks too, and the series of looks becomes one look per change that matters.
//!
//! What never removes anything: an error, a list without an object that no `remove` event explains (until a second list
//! confirms it some time later), a node that is `unknown`, an object older than the one known, history that is replayed
//! as events, a network that a service or task still refers to. The world never waits and never calls Docker: it emits
//! [`WorldAction::Fetch`], one list and one look at some objects in flight per [`Lane`], and backs off under errors.

mod absence;
#[cfg(test)]
mod desk;
mod events;
mod facts;
mod feed;
mod fold;
mod lane;
mod lists;
#[cfg(test)]
mod looks_tests;
#[cfg(test)]
mod simulation;
mod stream;
#[cfg(test)]
mod tests;
mod watch;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use self::absence::Absence;
use self::feed::Feed;
use self::lane::{Flight, Schedule};
use self::stream::{Pauses, Stream, Whys};
use self::watch::Watch;
use crate::id::{NetworkId, NodeId, SecretId, ServiceId, TaskId};
use crate::machine::Machine;
use crate::reconcile::desired::ManagedService;
use crate::recording::Hide;
use crate::swarm::model::{ApiError, Network, Node, Secret, Service, Task};
use crate::time::{Deadline, Duration, Instant};

pub use self::facts::{
    Answer, Changes, Fetch, FetchId, StreamId, WorldAction, WorldCounters, WorldFact, WorldSettings,
};
pub use self::lane::Lane;
pub(crate) use self::lane::backoff;

/// For how long after such an answer nothing counts as missing.
const BEHIND_FOR: Duration = Duration::from_secs(2);

/// The model of one Swarm; see the module. Starts with its first `handle_timeout`, which is due at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct World {
    #[serde(skip)]
    settings: WorldSettings,
    services: BTreeMap<ServiceId, Service>,
    /// Tasks of known services alone; no empty maps.
    tasks: BTreeMap<ServiceId, BTreeMap<TaskId, Task>>,
    networks: BTreeMap<NetworkId, Network>,
    nodes: BTreeMap<NodeId, Node>,
    secrets: BTreeMap<SecretId, Secret>,
    managed: BTreeMap<ServiceId, ManagedService>,
    absent: Absences,
    /// Services that tasks name and no list has: a list is asked for once each. Jobs leave such tasks (facts §5).
    strangers: BTreeSet<ServiceId>,
    watch: Watch,
    /// Services that events named, since the first of them at this moment: a list of all takes long where there are many.
    named: Option<(Instant, BTreeSet<ServiceId>)>,
    lanes: BTreeMap<Lane, Schedule>,
    stream: Stream,
    feed: Feed,
    /// A call hung or failed to connect, so open streams may be dead without having said so.
    stream_in_doubt: bool,
    /// When an answer last had an object older than the one known.
    behind_at: Option<Instant>,
    synced: bool,
    next_fetch: u64,
    next_stream: u64,
    #[serde(skip)]
    changes: Changes,
    #[serde(skip)]
    actions: VecDeque<WorldAction>,
    counters: WorldCounters,
    troubles: BTreeMap<Lane, String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Absences {
    services: Absence<ServiceId>,
    tasks: Absence<TaskId>,
    networks: Absence<NetworkId>,
    nodes: Absence<NodeId>,
    secrets: Absence<SecretId>,
    managed: Absence<ServiceId>,
}

impl Default for World {
    fn default() -> Self {
        World::new(WorldSettings::default())
    }
}

impl World {
    /// An empty model that wants to look at once.
    pub fn new(settings: WorldSettings) -> Self {
        World {
            settings,
            services: BTreeMap::new(),
            tasks: BTreeMap::new(),
            networks: BTreeMap::new(),
            nodes: BTreeMap::new(),
            secrets: BTreeMap::new(),
            managed: BTreeMap::new(),
            absent: Absences::default(),
            strangers: BTreeSet::new(),
            watch: Watch::default(),
            named: None,
            lanes: Lane::ALL.iter().map(|lane| (*lane, Schedule::default())).collect(),
            stream: Stream::default(),
            feed: Feed::default(),
            stream_in_doubt: false,
            behind_at: None,
            synced: false,
            next_fetch: 1,
            next_stream: 1,
            changes: Changes::default(),
            actions: VecDeque::new(),
            counters: WorldCounters::default(),
            troubles: BTreeMap::new(),
        }
    }

    /// Itself after it was read from a checkpoint, with the settings, which are not in it.
    pub(crate) fn with_settings(mut self, settings: WorldSettings) -> Self {
        self.settings = settings;
        // Of a version that had one place for both.
        for schedule in self.lanes.values_mut() {
            if let Some(look) = schedule.flight.take_if(|flight| flight.fetch.is_partial()) {
                schedule.look = Some(look);
                schedule.look_not_before = schedule.not_before;
            }
        }
        self
    }

    /// A copy for a checkpoint, with what must not get into a recording hidden.
    pub(crate) fn hidden(&self, hide: &Hide) -> World {
        let mut world = self.clone();
        world.services.values_mut().for_each(|service| hide.service(service));
        world.managed.values_mut().for_each(|service| hide.managed(service));
        world.networks.values_mut().for_each(|network| hide.network(network));
        world.secrets.values_mut().for_each(|secret| hide.secret(secret));
        world
    }

    /// Whether it has never asked anything.
    pub(crate) fn is_new(&self) -> bool {
        self.next_fetch == 1 && self.next_stream == 1
    }

    /// The questions that are under way.
    pub fn flights(&self) -> impl Iterator<Item = (FetchId, &Fetch)> {
        let flights = self.lanes.values().flat_map(Schedule::flights);
        flights.map(|flight| (flight.id, &flight.fetch))
    }

    /// The event stream that is open or being opened.
    pub fn stream(&self) -> Option<StreamId> {
        self.stream.id()
    }

    /// All services.
    pub fn services(&self) -> &BTreeMap<ServiceId, Service> {
        &self.services
    }

    /// The tasks of one service, ordered by id; none if it is unknown.
    pub fn tasks_of<'a>(&'a self, service: &ServiceId) -> impl Iterator<Item = &'a Task> + use<'a> {
        self.tasks.get(service).into_iter().flat_map(BTreeMap::values)
    }

    /// All networks of the engine, also those of local scope.
    pub fn networks(&self) -> &BTreeMap<NetworkId, Network> {
        &self.networks
    }

    /// All nodes. A node that is `unknown` keeps the state that it had before.
    pub fn nodes(&self) -> &BTreeMap<NodeId, Node> {
        &self.nodes
    }

    /// All secrets, without content.
    pub fn secrets(&self) -> &BTreeMap<SecretId, Secret> {
        &self.secrets
    }

    /// Services with a `tidegate.role` label, as shapes.
    pub fn managed(&self) -> &BTreeMap<ServiceId, ManagedService> {
        &self.managed
    }

    /// Whether a managed service is gone because somebody removed it: an event said so, and a list confirmed it.
    pub fn was_removed(&self, id: &ServiceId) -> bool {
        self.absent.managed.is_buried(id)
    }

    /// Whether services, tasks, networks and nodes have all been listed: before that, what is missing means nothing.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Whether a lane has been answered at least once.
    pub fn has_listed(&self, lane: Lane) -> bool {
        self.lanes.get(&lane).is_some_and(|lane| lane.fresh_at.is_some())
    }

    /// How old the model may be at `now`; none before it is synced. Services, networks and nodes count as current while
    /// the event stream is open and nothing is asked for, tasks while the feed is, else since they were last listed as a whole.
    pub fn staleness(&self, now: Instant) -> Option<Duration> {
        if !self.synced {
            return None;
        }
        [Lane::Services, Lane::Tasks, Lane::Networks, Lane::Nodes]
            .into_iter()
            .filter_map(|lane| self.age(lane, now))
            .max()
    }

    /// The same for one list; none before its first answer. Events follow every list but that of tasks, the feed that one alone.
    pub fn age(&self, lane: Lane, now: Instant) -> Option<Duration> {
        let schedule = self.lanes.get(&lane)?;
        let fresh_at = schedule.fresh_at?;
        let followed = match lane {
            Lane::Tasks => self.feeds_since(fresh_at),
            Lane::Managed | Lane::Networks | Lane::Nodes | Lane::Secrets | Lane::Services => {
                self.stream.open_since().is_some_and(|since| since <= fresh_at)
            }
        };
        let is_named = lane == Lane::Services && (self.named.is_some() || schedule.look.is_some());
        let quiet = schedule.failures == 0 && !is_named && schedule.wanted.is_none_or(|wanted| wanted > now);
        Some(if followed && quiet {
            Duration::ZERO
        } else {
            now.since(fresh_at)
        })
    }

    /// Whether the event stream is open.
    pub fn is_following(&self) -> bool {
        self.stream.is_open()
    }

    /// Why the last list, or a look since, failed; a list that succeeds ends it.
    pub fn troubles(&self) -> &BTreeMap<Lane, String> {
        &self.troubles
    }

    /// Counts since the start.
    pub fn counters(&self) -> &WorldCounters {
        &self.counters
    }

    fn handle_answer(&mut self, id: FetchId, result: Result<Answer, ApiError>, now: Instant) {
        let landed = |(lane, schedule): (&Lane, &mut Schedule)| Some((*lane, schedule.land(id)?));
        let Some((lane, flight)) = self.lanes.iter_mut().find_map(landed) else {
            return;
        };
        match result {
            Ok(answer) => self.handle_list(lane, &flight, answer, now),
            Err(ApiError::NotFound(_)) if lane == Lane::Tasks && flight.fetch.is_partial() => {
                self.handle_unknown_service(&flight, now);
            }
            Err(error) => self.handle_failure(&flight, Some(&error), now),
        }
    }

    /// One of several services is unknown to Docker, so none was answered: all of them, and a look at what is left.
    fn handle_unknown_service(&mut self, flight: &Flight, now: Instant) {
        let (pause, max) = (self.settings.pause, self.settings.retry_max);
        for service in flight.fetch.of() {
            self.watch.postpone(service, now + pause * 4);
        }
        self.lane(Lane::Tasks).refuse_look(pause, max, now);
        self.want(Lane::Services, now);
    }

    fn handle_failure(&mut self, flight: &Flight, error: Option<&ApiError>, now: Instant) {
        let lane = flight.fetch.lane();
        *self.counters.failures.entry(lane).or_default() += 1;
        let why = error.map_or_else(|| "no answer in time".to_string(), ToString::to_string);
        self.troubles.insert(lane, why);
        if error.is_none_or(|error| matches!(error, ApiError::Unreachable(_))) {
            self.stream_in_doubt = true;
        }
        let (min, max) = (self.settings.retry_min, self.settings.retry_max);
        let schedule = self.lane(lane);
        if flight.fetch.is_partial() {
            schedule.fail_look(min, max, now);
        } else {
            schedule.fail(min, max, now);
        }
    }

    /// Whether a manager that is behind has answered lately.
    fn is_behind(&self, now: Instant) -> bool {
        self.behind_at.is_some_and(|at| now.since(at) < BEHIND_FOR)
    }

    fn handle_stream_opened(&mut self, id: StreamId, now: Instant) {
        if self.stream.opened(id, now) {
            self.counters.streams += 1;
            self.want_all(now);
            self.retry_feed(now);
        }
    }

    fn handle_stream_closed(&mut self, id: StreamId, now: Instant) {
        let pauses = Pauses {
            min: self.settings.retry_min,
            max: self.settings.retry_max,
        };
        if self.stream.closed(id, pauses, self.settings.retry_max, now) {
            self.want_all(now);
        }
    }

    fn lane(&mut self, lane: Lane) -> &mut Schedule {
        self.lanes.entry(lane).or_default()
    }

    fn want(&mut self, lane: Lane, at: Instant) {
        self.lane(lane).want(at);
    }

    fn want_all(&mut self, at: Instant) {
        for lane in Lane::ALL {
            self.want(lane, at);
        }
    }

    /// When the next whole list of `lane` is asked for, and why.
    fn list_starts(&self, lane: Lane) -> Option<Deadline> {
        let schedule = self.lanes.get(&lane)?;
        // Tasks of services that are not known yet would have to be dropped.
        if lane == Lane::Tasks && !self.has_listed(Lane::Services) {
            return None;
        }
        let wanted = schedule.wanted.map(|at| Deadline {
            at,
            why: "a list is asked for",
        });
        let instead = self.look_wanted(lane).filter(|(_, of)| *of > self.settings.some_max);
        let instead = instead.map(|(at, _)| Deadline {
            at,
            why: "more objects are wanted than a look may ask for",
        });
        let earliest = Deadline::earliest(wanted, instead)?;
        let at = schedule.list_starts(earliest.at)?;
        Some(Deadline { at, ..earliest })
    }

    /// When the next look at some objects of `lane` is due, and why.
    fn look_starts(&self, lane: Lane) -> Option<Deadline> {
        let schedule = self.lanes.get(&lane)?;
        let (at, of) = self.look_wanted(lane)?;
        if !self.has_listed(lane) || of > self.settings.some_max {
            return None;
        }
        Some(Deadline {
            at: schedule.look_starts(at)?,
            why: if lane == Lane::Tasks {
                "tasks of changing services are looked at"
            } else {
                "services that events named are asked for"
            },
        })
    }

    /// When some objects of `lane` are wanted, and of how many services.
    fn look_wanted(&self, lane: Lane) -> Option<(Instant, usize)> {
        match lane {
            Lane::Services => self.named.as_ref().map(|(at, named)| (*at, named.len())),
            Lane::Tasks => {
                let schedule = self.lanes.get(&lane)?;
                let at = self.watch.next()?.max(schedule.look_not_before);
                Some((at, self.watch.due(at + self.settings.poll_changing / 4).count()))
            }
            Lane::Managed | Lane::Networks | Lane::Nodes | Lane::Secrets => None,
        }
    }

    /// Starts everything that is due, and says what changed.
    fn pump(&mut self, now: Instant) {
        if let Some(id) = self.stream.begin(&mut self.next_stream, now) {
            self.actions.push_back(WorldAction::OpenEvents(id));
        }
        self.open_feed(now);
        for lane in Lane::ALL {
            // The look first: its answer is the smaller one.
            if self.look_starts(lane).is_some_and(|start| start.at <= now) {
                self.send_look(lane, now);
            }
            if self.list_starts(lane).is_some_and(|start| start.at <= now) {
                self.send_list(lane, now);
            }
        }
        let changes = core::mem::take(&mut self.changes);
        if !changes.is_empty() {
            self.actions.push_back(WorldAction::Changed(changes));
        }
        let needed = [Lane::Services, Lane::Tasks, Lane::Networks, Lane::Nodes];
        if !self.synced && needed.iter().all(|lane| self.has_listed(*lane)) {
            self.synced = true;
            self.actions.push_back(WorldAction::Synced);
        }
    }

    fn send_list(&mut self, lane: Lane, now: Instant) {
        let fetch = match lane {
            Lane::Managed => Fetch::Managed,
            Lane::Networks => Fetch::Networks,
            Lane::Nodes => Fetch::Nodes,
            Lane::Secrets => Fetch::Secrets,
            Lane::Services => {
                // Fewer get their look beside it.
                self.named.take_if(|(_, named)| named.len() > self.settings.some_max);
                Fetch::Services(Vec::new())
            }
            Lane::Tasks => Fetch::Tasks(Vec::new()),
        };
        let flight = self.begin(fetch, now);
        let schedule = self.lane(lane);
        schedule.wanted = None;
        schedule.flight = Some(flight);
    }

    fn send_look(&mut self, lane: Lane, now: Instant) {
        let fetch = match lane {
            Lane::Services => {
                let named = self.named.take().map(|(_, named)| named);
                Fetch::Services(named.into_iter().flatten().collect())
            }
            Lane::Tasks => {
                // More may be due by now than when it was decided to look; they go next.
                let due = self.watch.due(now + self.settings.poll_changing / 4);
                Fetch::Tasks(due.take(self.settings.some_max).cloned().collect())
            }
            Lane::Managed | Lane::Networks | Lane::Nodes | Lane::Secrets => return,
        };
        let flight = self.begin(fetch, now);
        self.lane(lane).look = Some(flight);
    }

    fn begin(&mut self, fetch: Fetch, now: Instant) -> Flight {
        let id = FetchId(self.next_fetch);
        self.next_fetch += 1;
        *self.counters.fetches.entry(fetch.lane()).or_default() += 1;
        let action = WorldAction::Fetch {
            id,
            fetch: fetch.clone(),
        };
        self.actions.push_back(action);
        Flight::new(id, fetch, now)
    }
}

impl Machine for World {
    type Fact = WorldFact;
    type Action = WorldAction;

    fn handle(&mut self, fact: WorldFact, now: Instant) {
        match fact {
            WorldFact::Answer { id, result } => self.handle_answer(id, result, now),
            WorldFact::Event(event) => self.handle_event(&event, now),
            WorldFact::EventStreamClosed { stream, .. } => self.handle_stream_closed(stream, now),
            WorldFact::EventStreamOpened(stream) => self.handle_stream_opened(stream, now),
            WorldFact::FeedClosed { stream, end } => self.handle_feed_closed(stream, &end, now),
            WorldFact::FeedEvents(events) => self.handle_feed_events(&events, now),
            WorldFact::FeedOpened(stream) => self.handle_feed_opened(stream, now),
            WorldFact::Look(lane) => self.want(lane, now),
        }
        self.pump(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        let limit = self.settings.answer_limit;
        for lane in Lane::ALL {
            for lost in self.lane(lane).give_up(limit, now).into_iter().flatten() {
                self.handle_failure(&lost, None, now);
            }
        }
        if let Some(id) = self.stream.lost(limit, now) {
            self.handle_stream_closed(id, now);
        }
        self.handle_feed_timeout(now);
        self.pump(now);
    }

    fn poll_action(&mut self) -> Option<WorldAction> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let limit = self.settings.answer_limit;
        let whys = Whys {
            opens: "the event stream is opened",
            is_lost: "opening the event stream counts as lost",
        };
        let streams = Deadline::earliest(self.stream.deadline(limit, whys), self.feed_deadline());
        Lane::ALL.iter().fold(streams, |earliest, lane| {
            let lost = self.lanes.get(lane).and_then(|schedule| schedule.lost(limit));
            let starts = Deadline::earliest(self.look_starts(*lane), self.list_starts(*lane));
            Deadline::earliest(Deadline::earliest(earliest, lost), starts)
        })
    }

    fn check_invariants(&self) {
        for (service, tasks) in &self.tasks {
            assert!(
                self.services.contains_key(service),
                "tasks of an unknown service {service}"
            );
            assert!(!tasks.is_empty(), "an empty list of tasks is kept for {service}");
            for (id, task) in tasks {
                assert!(task.id == *id && task.service == *service, "task {id} is filed wrongly");
            }
        }
        for service in self.watch.services() {
            assert!(
                self.services.contains_key(service),
                "watches an unknown service {service}"
            );
        }
        for (lane, schedule) in &self.lanes {
            let [list, look] = [&schedule.flight, &schedule.look].map(Option::as_ref);
            assert!(
                list.is_none_or(|list| list.fetch.lane() == *lane && !list.fetch.is_partial()),
                "a look in the place of a list"
            );
            assert!(
                look.is_none_or(|look| look.fetch.lane() == *lane && look.fetch.is_partial()),
                "a list in the place of a look"
            );
            let asked = look.map_or(0, |look| look.fetch.of().len());
            assert!(asked <= self.settings.some_max, "a look at {asked} services");
        }
        assert!(self.changes.is_empty(), "changes that nobody was told of");
    }
}
