//! When the services that Tidegate owns are written: one write in flight, each by compare-and-swap on what was seen.
//!
//! A lost race is a reason to look again, never an error. After a write nothing is decided about that service until
//! Docker shows it changed. New networks are written in batches (a write replaces the proxy's tasks), but a network
//! that the last routed service left is left at once, because `docker stack rm` waits for it. Nothing is written about
//! proxies while Docker is still replacing them: any write makes it begin anew with another proxy, while the one before is
//! away (seen on a real Swarm: no proxy at all for 3 s). As what is written may be what mends an update that hangs, this has
//! its limit. A write for the same wish that must be repeated, because it was refused or undone by somebody, waits longer each
//! time and says so. What Docker rolled back is not written again until the wish changes. A service that vanished is made anew
//! after a pause, so that `docker stack rm` can take controllers and proxies away in any order.

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use super::courier::COURIER_ROLE;
use super::desired::{INSTALLATION_LABEL, ManagedService, ROLE_LABEL, ServiceShape};
use super::leg::LEG_ROLE;
use super::plan::{Plan, applied, differences, plan, stamped};
use super::proxy::PROXY_ROLE;
use crate::id::{ServiceId, Version};
use crate::machine::Machine;
use crate::swarm::model::{ApiError, STACK_LABEL};
use crate::swarm::world::backoff;
use crate::time::{Deadline, Duration, Instant};

pub use super::facts::{Notice, ReconcileAction, ReconcileFact, ReconcileSettings, Write, WriteId};

/// See the module. Decides nothing before both [`ReconcileFact::Wanted`] and [`ReconcileFact::Managed`] have come once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Reconciler {
    #[serde(skip)]
    settings: ReconcileSettings,
    /// Whether somebody else writes.
    relieved: bool,
    wanted: Option<BTreeMap<String, ServiceShape>>,
    /// Our own services of proxies and legs, by name.
    actual: Option<BTreeMap<String, ManagedService>>,
    progress: BTreeMap<String, Progress>,
    flight: Option<Flight>,
    leaving: bool,
    next_write: u64,
    #[serde(skip)]
    actions: VecDeque<ReconcileAction>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Flight {
    id: WriteId,
    write: Write,
    /// The wish behind the write; none for a removal.
    wish: Option<ServiceShape>,
    sent: Instant,
}

/// What happened to one service so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Progress {
    /// The wish that was written last, how often, and when.
    #[serde(with = "crate::state::nested")]
    written: Option<Option<ServiceShape>>,
    writes: u32,
    /// Whether Docker did not do the last one.
    refused: bool,
    written_at: Instant,
    /// No write before this.
    next_at: Instant,
    /// Nothing is decided until Docker shows another state than this, or until then.
    settling: Option<(Seen, Instant)>,
    /// Since when Docker has been replacing its tasks, as it says.
    updating: Option<Instant>,
    /// When the wanted networks changed first and last since they were written.
    networks: Option<(Instant, Instant)>,
    /// Since when it has been there and not wanted.
    unwanted: Option<Instant>,
    /// It was there and is not any more, though nobody here removed it.
    vanished: Option<Instant>,
    /// The wish that Docker had last, as its label says, and did not roll back then.
    applied: Option<ServiceShape>,
    /// Docker rolled back this wish.
    held: Option<ServiceShape>,
    said: Option<Notice>,
}

/// Identity and version of a service as listed.
type Seen = Option<(ServiceId, Version)>;

/// What to do about one service, and when.
#[derive(Debug)]
struct Step {
    at: Instant,
    /// None: only look again at the state of things then.
    write: Option<Write>,
}

impl Default for Reconciler {
    fn default() -> Self {
        Reconciler::new(ReconcileSettings::default())
    }
}

impl Reconciler {
    /// Knows nothing yet.
    pub fn new(settings: ReconcileSettings) -> Self {
        Reconciler {
            settings,
            relieved: false,
            wanted: None,
            actual: None,
            progress: BTreeMap::new(),
            flight: None,
            leaving: false,
            next_write: 1,
            actions: VecDeque::new(),
        }
    }

    /// Whether everything is as wanted, as far as is known: no write in flight, due or waited for.
    pub fn is_settled(&self) -> bool {
        self.flight.is_none() && self.wanted.is_some() && self.actual.is_some() && self.next_step().is_none()
    }

    /// The write that is under way.
    pub fn in_flight(&self) -> Option<WriteId> {
        self.flight.as_ref().map(|flight| flight.id)
    }

    /// The last thing worth knowing about each service.
    pub fn notices(&self) -> impl Iterator<Item = &Notice> {
        self.progress.values().filter_map(|progress| progress.said.as_ref())
    }

    /// Itself after it was read from a checkpoint, with the settings, which are not in it.
    pub(crate) fn with_settings(mut self, settings: ReconcileSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Every shape that came from Docker, for a checkpoint that leaves something out.
    pub(crate) fn shapes_mut(&mut self) -> impl Iterator<Item = &mut ServiceShape> {
        let seen = self.actual.iter_mut().flat_map(BTreeMap::values_mut);
        let written = self.flight.iter_mut().filter_map(|flight| match &mut flight.write {
            Write::Create(shape) | Write::Update { shape, .. } => Some(&mut **shape),
            Write::Remove { .. } => None,
        });
        seen.map(|service| &mut service.shape).chain(written)
    }

    /// Every managed service as it was seen, for the same.
    pub(crate) fn templates_mut(&mut self) -> impl Iterator<Item = &mut String> {
        let seen = self.actual.iter_mut().flat_map(BTreeMap::values_mut);
        seen.map(|service| &mut service.template)
    }

    fn handle_wanted(&mut self, shapes: Vec<ServiceShape>, now: Instant) {
        let wanted: BTreeMap<_, _> = shapes.into_iter().map(|shape| (shape.name.clone(), shape)).collect();
        for (name, shape) in &wanted {
            let before = self.wanted.as_ref().and_then(|wanted| wanted.get(name));
            if before.is_none_or(|before| before.networks != shape.networks) {
                let progress = self.progress.entry(name.clone()).or_default();
                let first = progress.networks.map_or(now, |(first, _)| first);
                progress.networks = Some((first, now));
            }
        }
        self.wanted = Some(wanted);
        self.note_unwanted(now);
    }

    fn handle_managed(&mut self, services: Vec<ManagedService>, now: Instant) {
        let ours = |service: &ManagedService| {
            let label = |key| service.shape.labels.get(key).map(String::as_str);
            matches!(label(ROLE_LABEL), Some(COURIER_ROLE | PROXY_ROLE | LEG_ROLE))
                && label(INSTALLATION_LABEL) == Some(self.settings.installation.as_str())
        };
        let actual: BTreeMap<_, _> = services
            .into_iter()
            .filter(ours)
            .map(|service| (service.shape.name.clone(), service))
            .collect();
        for name in self.actual.iter().flat_map(BTreeMap::keys) {
            let progress = self.progress.entry(name.clone()).or_default();
            let removing = progress.written == Some(None);
            if !actual.contains_key(name) && !removing {
                progress.vanished.get_or_insert(now);
            }
        }
        for (name, service) in &actual {
            let progress = self.progress.entry(name.clone()).or_default();
            progress.vanished = None;
            let wish = self.wanted.as_ref().and_then(|wanted| wanted.get(name));
            if wish.is_some_and(|wish| wish.networks.is_subset(&service.shape.networks)) {
                progress.networks = None;
            }
            match service.update_state.as_deref() {
                Some("updating" | "rollback_started") => _ = progress.updating.get_or_insert(now),
                Some(_) | None => progress.updating = None,
            }
            match service.update_state.as_deref() {
                Some("rollback_started" | "rollback_paused" | "rollback_completed") => {
                    if progress.held.is_none() {
                        // Of a wish that was never seen at Docker nobody can say that it was tried.
                        progress.held = progress.applied.take().or_else(|| progress.written.clone().flatten());
                    }
                    let service = name.clone();
                    say(&mut self.actions, progress, Notice::RolledBack { service });
                }
                Some("paused") => {
                    progress.held = None;
                    progress.applied = applied(&service.shape);
                    let service = name.clone();
                    say(&mut self.actions, progress, Notice::Paused { service });
                }
                Some(_) | None => {
                    progress.held = None;
                    progress.applied = applied(&service.shape);
                    progress
                        .said
                        .take_if(|said| matches!(said, Notice::Paused { .. } | Notice::RolledBack { .. }));
                }
            }
        }
        // Legs come and go with networks: what is neither there nor wanted is remembered no longer.
        let in_flight = self.flight.as_ref().map(|flight| flight.write.service());
        self.progress.retain(|name, _| {
            let is_wanted = self.wanted.as_ref().is_none_or(|wanted| wanted.contains_key(name));
            is_wanted || actual.contains_key(name) || in_flight == Some(name.as_str())
        });
        for (name, progress) in &mut self.progress {
            let seen: Seen = actual.get(name).map(|service| (service.id.clone(), service.version));
            progress.settling.take_if(|(before, _)| *before != seen);
        }
        self.actual = Some(actual);
        self.note_unwanted(now);
    }

    fn note_unwanted(&mut self, now: Instant) {
        let (Some(wanted), Some(actual)) = (&self.wanted, &self.actual) else {
            return;
        };
        for name in actual.keys() {
            let progress = self.progress.entry(name.clone()).or_default();
            if wanted.contains_key(name) {
                progress.unwanted = None;
            } else {
                progress.unwanted.get_or_insert(now);
            }
        }
    }

    fn handle_written(&mut self, id: WriteId, result: Result<(), ApiError>, now: Instant) {
        let Some(flight) = self.flight.take_if(|flight| flight.id == id) else {
            return;
        };
        let name = String::from(flight.write.service());
        let seen: Seen = match &flight.write {
            Write::Create(_) => None,
            Write::Remove { id, .. } => {
                let service = self
                    .actual
                    .iter()
                    .flat_map(BTreeMap::values)
                    .find(|service| service.id == *id);
                service.map(|service| (service.id.clone(), service.version))
            }
            Write::Update { id, version, .. } => Some((id.clone(), *version)),
        };
        let wish = flight.wish;
        let present = self.actual.as_ref().and_then(|actual| actual.get(&name));
        let unseen = present.map(|service| (service.id.clone(), service.version)) == seen;
        let progress = self.progress.entry(name.clone()).or_default();
        // Another write than the last one begins a new count.
        if progress.written.as_ref() != Some(&wish) || now.since(progress.written_at) >= self.settings.forget_after {
            progress.writes = 0;
        }
        // Refusals are no sign of somebody else who writes.
        if result.is_ok() && core::mem::take(&mut progress.refused) {
            progress.writes = 0;
        }
        let lost_race = matches!(result, Err(ApiError::Conflict(_)));
        if !lost_race {
            progress.written = Some(wish);
            progress.written_at = now;
        }
        let pause = |writes: u32, max: Duration| backoff(writes, self.settings.retry_min, max);
        match result {
            // The service has another version than the one seen: look, and decide again.
            Err(ApiError::Conflict(_)) => {
                if unseen {
                    progress.settling = Some((seen, now + self.settings.settle));
                }
            }
            Ok(()) => {
                let next = pause(progress.writes, self.settings.retry_max);
                progress.next_at = now + next;
                progress.writes = progress.writes.saturating_add(1);
                if progress.written.as_ref().map(Option::as_ref)
                    == Some(self.wanted.as_ref().and_then(|w| w.get(&name)))
                {
                    progress.networks = None;
                }
                if unseen {
                    // Docker begins anew.
                    (progress.updating, progress.applied) = (None, None);
                    progress.settling = Some((seen, now + self.settings.settle));
                }
                if progress.writes > 2 {
                    let (service, writes) = (name, progress.writes);
                    let notice = Notice::Overruled {
                        service,
                        writes,
                        pause: next,
                    };
                    say(&mut self.actions, progress, notice);
                } else {
                    progress.said = None;
                }
            }
            Err(ApiError::NotFound(_)) if matches!(flight.write, Write::Remove { .. }) => {
                progress.next_at = now + pause(progress.writes, self.settings.retry_max);
                progress.writes = progress.writes.saturating_add(1);
            }
            Err(error) => {
                let transient = match &error {
                    ApiError::Unreachable(_) | ApiError::NotManager(_) | ApiError::Server(_) => true,
                    ApiError::Conflict(_)
                    | ApiError::Exists(_)
                    | ApiError::Garbled(_)
                    | ApiError::NotFound(_)
                    | ApiError::Refused(_) => false,
                };
                // Perhaps it was done.
                progress.applied.take_if(|_| transient);
                let max = if transient {
                    self.settings.retry_unreachable_max
                } else {
                    self.settings.retry_max
                };
                let pause = pause(progress.writes, max);
                progress.next_at = now + pause;
                let repeated = progress.writes > 0;
                progress.refused = true;
                progress.writes = progress.writes.saturating_add(1);
                let service = name;
                match error {
                    // Another controller made it first, which the next list shows; or it is not ours.
                    ApiError::Exists(_) => {
                        if repeated {
                            say(&mut self.actions, progress, Notice::NameTaken { service });
                        }
                    }
                    ApiError::Conflict(_)
                    | ApiError::Garbled(_)
                    | ApiError::NotFound(_)
                    | ApiError::NotManager(_)
                    | ApiError::Refused(_)
                    | ApiError::Server(_)
                    | ApiError::Unreachable(_) => {
                        let notice = Notice::Refused { service, error, pause };
                        say(&mut self.actions, progress, notice);
                    }
                }
            }
        }
        self.actions.push_back(ReconcileAction::LookAgain);
    }

    /// The step that is due first; removals before everything else, then by name.
    fn next_step(&self) -> Option<Step> {
        if self.relieved {
            return None;
        }
        let (wanted, actual) = (self.wanted.as_ref()?, self.actual.as_ref()?);
        let gone = actual
            .values()
            .filter(|service| !wanted.contains_key(&service.shape.name));
        let removals = gone.filter_map(|service| self.removal(service));
        let others = wanted
            .values()
            .filter_map(|shape| self.step(shape, actual.get(&shape.name)));
        removals.chain(others).min_by_key(|step| step.at)
    }

    fn removal(&self, service: &ManagedService) -> Option<Step> {
        let name = service.shape.name.clone();
        let id = service.id.clone();
        let label = |key| service.shape.labels.get(key).map(String::as_str);
        let is_of_a_stack = label(ROLE_LABEL) == Some(LEG_ROLE)
            && label(STACK_LABEL).is_some_and(|stack| stack != self.settings.installation);
        let since = self.progress.get(&name).and_then(|progress| progress.unwanted);
        let not_before = match since {
            Some(since) if is_of_a_stack && !self.leaving => since + self.settings.leave_stack_after,
            Some(_) | None => Instant::START,
        };
        self.at(&name, None, not_before, Write::Remove { id, name: name.clone() })
    }

    fn step(&self, wanted: &ServiceShape, actual: Option<&ManagedService>) -> Option<Step> {
        let name = &wanted.name;
        let progress = self.progress.get(name);
        let Some(actual) = actual else {
            let vanished = progress.and_then(|progress| progress.vanished);
            let pause = match wanted.labels.get(ROLE_LABEL).map(String::as_str) {
                Some(LEG_ROLE) => self.settings.recreate_leg_after,
                Some(_) | None => self.settings.recreate_after,
            };
            let not_before = vanished.map_or(Instant::START, |at| at + pause);
            let create = Write::Create(Box::new(stamped(wanted.clone(), wanted)));
            return self.at(name, Some(wanted), not_before, create);
        };
        match plan(wanted, actual, progress.and_then(|progress| progress.held.as_ref())) {
            Plan::Nothing => None,
            Plan::Recreate => {
                let id = actual.id.clone();
                let name = name.clone();
                self.at(&name, None, Instant::START, Write::Remove { id, name: name.clone() })
            }
            Plan::Update(shape) => {
                let mut joined = actual.shape.clone();
                joined.networks.extend(shape.networks.iter().cloned());
                // Only networks are added: more may come.
                let joins = joined.networks == shape.networks && differences(&joined, &shape).is_empty();
                let batch = progress
                    .and_then(|progress| progress.networks)
                    .filter(|_| joins && joined.networks != actual.shape.networks);
                let batched = batch.map_or(Instant::START, |(first, last)| {
                    (last + self.settings.network_quiet).min(first + self.settings.network_wait_max)
                });
                let is_proxy = wanted.labels.get(ROLE_LABEL).is_some_and(|role| role == PROXY_ROLE);
                let patience = match (differences(&actual.shape, &shape) == ["networks"], is_proxy) {
                    (true, _) => self.settings.update_wait_max,
                    (false, true) => self.settings.mend_wait_max,
                    (false, false) => Duration::ZERO,
                };
                let updating = progress.and_then(|progress| progress.updating);
                let not_before = updating.map_or(batched, |since| batched.max(since + patience));
                let (id, version) = (actual.id.clone(), actual.version);
                self.at(name, Some(wanted), not_before, Write::Update { id, version, shape })
            }
        }
    }

    /// `write` as soon as the service's progress allows it, for the wish `wish`.
    fn at(&self, name: &str, wish: Option<&ServiceShape>, not_before: Instant, write: Write) -> Option<Step> {
        let Some(progress) = self.progress.get(name) else {
            return Some(Step {
                at: not_before,
                write: Some(write),
            });
        };
        if let Some((_, until)) = progress.settling {
            return Some(Step { at: until, write: None });
        }
        let repeats = progress
            .written
            .as_ref()
            .is_some_and(|written| written.as_ref() == wish);
        let pause = if repeats { progress.next_at } else { Instant::START };
        if self.settings.read_only && progress.said.as_ref() == Some(&self.would_write(&write)) {
            return None;
        }
        Some(Step {
            at: not_before.max(pause),
            write: Some(write),
        })
    }

    fn would_write(&self, write: &Write) -> Notice {
        let what = match write {
            Write::Create(_) => String::from("create"),
            Write::Remove { .. } => String::from("remove"),
            Write::Update { shape, .. } => {
                let actual = self.actual.as_ref().and_then(|actual| actual.get(&shape.name));
                let fields = actual
                    .map(|actual| differences(&actual.shape, shape))
                    .unwrap_or_default();
                if fields.is_empty() {
                    String::from("update of its labels")
                } else {
                    alloc::format!("update of {}", fields.join(", "))
                }
            }
        };
        Notice::WouldWrite {
            service: write.service().to_string(),
            what,
        }
    }

    fn pump(&mut self, now: Instant) {
        while self.flight.is_none() {
            let Some(step) = self.next_step().filter(|step| step.at <= now) else {
                return;
            };
            let Some(write) = step.write else {
                // Docker did not show a write in time: decide by what it shows.
                for progress in self.progress.values_mut() {
                    progress.settling.take_if(|(_, until)| *until <= now);
                }
                self.actions.push_back(ReconcileAction::LookAgain);
                continue;
            };
            if self.settings.read_only {
                let notice = self.would_write(&write);
                let progress = self.progress.entry(write.service().to_string()).or_default();
                say(&mut self.actions, progress, notice);
                continue;
            }
            let id = WriteId(self.next_write);
            self.next_write += 1;
            self.actions.push_back(ReconcileAction::Write {
                id,
                write: write.clone(),
            });
            let wish = match &write {
                Write::Remove { .. } => None,
                Write::Create(_) | Write::Update { .. } => self
                    .wanted
                    .as_ref()
                    .and_then(|wanted| wanted.get(write.service()))
                    .cloned(),
            };
            self.flight = Some(Flight {
                id,
                write,
                wish,
                sent: now,
            });
        }
    }
}

fn say(actions: &mut VecDeque<ReconcileAction>, progress: &mut Progress, notice: Notice) {
    if !progress.said.as_ref().is_some_and(|said| said.same_cause(&notice)) {
        actions.push_back(ReconcileAction::Notice(notice.clone()));
    }
    progress.said = Some(notice);
}

impl Machine for Reconciler {
    type Fact = ReconcileFact;
    type Action = ReconcileAction;

    fn handle(&mut self, fact: ReconcileFact, now: Instant) {
        match fact {
            ReconcileFact::Leave => self.leaving = true,
            ReconcileFact::Managed(services) => self.handle_managed(services, now),
            ReconcileFact::Relieved(relieved) => self.relieved = relieved,
            ReconcileFact::Wanted(shapes) => self.handle_wanted(shapes, now),
            ReconcileFact::Written { id, result } => self.handle_written(id, result, now),
        }
        self.pump(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        let lost = self
            .flight
            .as_ref()
            .filter(|flight| flight.sent + self.settings.answer_limit <= now);
        if let Some(id) = lost.map(|flight| flight.id) {
            let error = ApiError::Unreachable(String::from("the write was never answered"));
            self.handle_written(id, Err(error), now);
        }
        self.pump(now);
    }

    fn poll_action(&mut self) -> Option<ReconcileAction> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        if let Some(flight) = &self.flight {
            return Some(Deadline {
                at: flight.sent + self.settings.answer_limit,
                why: "a write to Docker counts as lost",
            });
        }
        self.next_step().map(|step| Deadline {
            at: step.at,
            why: "a managed service is written",
        })
    }

    fn check_invariants(&self) {
        for (name, service) in self.actual.iter().flatten() {
            assert_eq!(*name, service.shape.name, "a service is filed wrongly");
        }
        if self.settings.read_only {
            assert!(self.flight.is_none(), "a read-only reconciler writes");
        }
    }
}
