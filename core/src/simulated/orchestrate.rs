//! The orchestrator: as many tasks as a service wants, replaced one after another when its template changes, and
//! replaced after a delay when they fail.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::record::{Availability, Place, Step, TaskRecord, Update};
use super::{Due, Swarm};
use crate::id::{NodeId, ServiceId, TaskId};
use crate::swarm::model::{DesiredState, EventAction, EventKind, TaskState};
use crate::time::{Duration, Instant};

/// `RollbackConfig.Monitor` where none is set.
const ROLLBACK_MONITOR_MS: u64 = 5000;

impl Swarm {
    pub(super) fn fill_all(&mut self, now: Instant) {
        let services: Vec<ServiceId> = self.services.keys().cloned().collect();
        for service in services {
            self.after(Due::Fill(service), self.delays.orchestrate, now);
        }
        self.assign_waiting(now);
    }

    /// Creates what is missing and stops what is too many.
    pub(super) fn fill(&mut self, id: &ServiceId, now: Instant) {
        let Some(service) = self.services.get(id) else { return };
        let live = self.live_places(id);
        let wanted: BTreeSet<Place> = match service.shape.replicas {
            Some(replicas) => {
                // Places that run are kept before those that do not, then the lower ones.
                let rank = |place: &Place| {
                    let is_running = |task: &TaskId| self.tasks.get(task).is_some_and(|t| t.task.is_serving());
                    !live.get(place).is_some_and(|tasks| tasks.iter().any(is_running))
                };
                let mut kept: Vec<&Place> = live.keys().collect();
                kept.sort_by_key(|place| (rank(place), (*place).clone()));
                let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
                let mut wanted: BTreeSet<Place> = kept.into_iter().take(replicas).cloned().collect();
                let mut slot = 1;
                while wanted.len() < replicas {
                    wanted.insert(Place::Slot(slot));
                    slot += 1;
                }
                wanted
            }
            None => {
                let shape = service.shape.clone();
                let nodes = self.nodes.keys().filter(|node| self.is_eligible(node, &shape));
                nodes.cloned().map(Place::Node).collect()
            }
        };
        let replicated = service.shape.replicas.is_some();
        for (place, tasks) in &live {
            let kept = |node: &NodeId| {
                self.nodes
                    .get(node)
                    .is_some_and(|node| node.loss.is_some() || node.availability == Availability::Pause)
            };
            // A node that cannot be heard, is paused, or whose state is unknown after an election, keeps its task.
            let kept = matches!(place, Place::Node(node) if kept(node) || self.is_unknown(node));
            if wanted.contains(place) || kept {
                continue;
            }
            let desired = if replicated {
                DesiredState::Remove
            } else {
                DesiredState::Shutdown
            };
            for task in tasks {
                self.stop(task, desired, now);
            }
            if let Some(update) = self.services.get_mut(id).and_then(|service| service.update.as_mut()) {
                update.steps.remove(place);
                update.resting.remove(place);
            }
        }
        for place in wanted {
            if !live.contains_key(&place) {
                self.create_task(id, place, DesiredState::Running, None, now);
            }
        }
        self.wake_update(id, now);
    }

    /// The updater, where there is one, looks at the places again.
    pub(super) fn wake_update(&mut self, id: &ServiceId, now: Instant) {
        if self.services.get(id).is_some_and(|service| service.update.is_some()) {
            self.after(Due::AdvanceUpdate(id.clone()), self.delays.orchestrate, now);
        }
    }

    /// Live tasks by place, the older first.
    fn live_places(&self, id: &ServiceId) -> BTreeMap<Place, Vec<TaskId>> {
        let mut live: BTreeMap<Place, Vec<TaskId>> = BTreeMap::new();
        for task in self.ids_of(id) {
            if let Some(record) = self.tasks.get(&task).filter(|record| record.is_live()) {
                live.entry(record.place.clone()).or_default().push(task);
            }
        }
        live
    }

    /// The spec changed and replaces nothing: an updater that is busy, or has something to do, begins anew.
    pub(super) fn restart_update(&mut self, id: &ServiceId, now: Instant) {
        let is_dirty = !self.dirty_places(id).is_empty();
        let Some(service) = self.services.get_mut(id) else {
            return;
        };
        if is_dirty || service.update.is_some() {
            service.begin_update();
            self.clear(&Due::Monitored(id.clone()));
            self.after(Due::AdvanceUpdate(id.clone()), self.delays.orchestrate, now);
        }
    }

    /// Places outside the update's steps where more than one task lives, or one that is not as the spec says.
    fn dirty_places(&self, id: &ServiceId) -> Vec<(Place, Vec<TaskId>)> {
        let Some(service) = self.services.get(id) else {
            return Vec::new();
        };
        let is_stepped = |place: &Place| {
            let update = service.update.as_ref();
            update.is_some_and(|update| update.steps.contains_key(place))
        };
        let is_old = |task: &TaskId| self.tasks.get(task).is_some_and(|record| !service.is_current(record));
        self.live_places(id)
            .into_iter()
            .filter(|(place, tasks)| !is_stepped(place) && (tasks.len() > 1 || tasks.iter().any(is_old)))
            .collect()
    }

    /// Starts as many steps as the update's parallelism allows.
    pub(super) fn advance_update(&mut self, id: &ServiceId, now: Instant) {
        self.forget_lost_steps(id);
        let dirty = self.dirty_places(id);
        if !self.has_work(id, !dirty.is_empty(), now) {
            return;
        }
        let Some(service) = self.services.get(id) else { return };
        let mut policy = service.shape.update.clone();
        let Some(update) = &service.update else { return };
        if update.rollback {
            // A shape has no `RollbackConfig`: Docker's default is stop-first, one at a time, without a delay, and 5 s of watch,
            // whatever the update was.
            (policy.start_first, policy.parallelism, policy.monitor_ms) = (false, 1, ROLLBACK_MONITOR_MS);
        }
        let busy = update.steps.len() + update.resting.len();
        if dirty.is_empty() && busy == 0 {
            let monitor = Duration::from_millis(policy.monitor_ms);
            self.timers.set_at_latest(Due::Monitored(id.clone()), now + monitor);
            return;
        }
        // There is work after all: the watch over the end begins anew when it is done.
        self.clear(&Due::Monitored(id.clone()));
        let mut room = match policy.parallelism {
            0 => usize::MAX,
            parallelism => usize::try_from(parallelism).unwrap_or(usize::MAX).saturating_sub(busy),
        };
        let mut is_busy = busy > 0;
        for (place, old) in dirty {
            if room == 0 {
                break;
            }
            if self.begin_step(id, place, old, policy.start_first, now) {
                room -= 1;
                is_busy = true;
            }
        }
        if !is_busy {
            // All that there was to do is done.
            self.after(Due::AdvanceUpdate(id.clone()), self.delays.orchestrate, now);
        }
    }

    /// Steps whose new task left with its node are over.
    fn forget_lost_steps(&mut self, id: &ServiceId) {
        let tasks = &self.tasks;
        if let Some(update) = self.services.get_mut(id).and_then(|service| service.update.as_mut()) {
            update
                .steps
                .retain(|_, step| tasks.get(&step.new).is_some_and(TaskRecord::is_live));
        }
    }

    /// At the first look the updater says that it begins; one that finds nothing to do is over, and says of a rollback alone
    /// that it is completed. Gives whether it is there still.
    fn has_work(&mut self, id: &ServiceId, is_dirty: bool, now: Instant) -> bool {
        let Some(service) = self.services.get_mut(id) else {
            return false;
        };
        let before = service.update_state;
        let Some(update) = &mut service.update else {
            return false;
        };
        if core::mem::replace(&mut update.has_begun, true) {
            return true;
        }
        if is_dirty {
            service.update_state.get_or_insert("updating");
        } else {
            let is_rollback = update.rollback;
            service.update = None;
            service.update_state = is_rollback.then_some("rollback_completed");
        }
        if service.update_state != before {
            self.touch(id, now);
        }
        is_dirty
    }

    /// A service has another version, which is told.
    fn touch(&mut self, id: &ServiceId, now: Instant) {
        let version = self.next_version();
        if let Some(service) = self.services.get_mut(id) {
            service.version = version;
            self.emit(EventKind::Service, EventAction::Update, id.as_str(), now);
        }
    }

    /// Gives whether the updater is busy with the place from now on.
    fn begin_step(&mut self, id: &ServiceId, place: Place, old: Vec<TaskId>, start_first: bool, now: Instant) -> bool {
        let Some(service) = self.services.get(id) else {
            return false;
        };
        let is_current = |task: &&TaskId| self.tasks.get(*task).is_some_and(|record| service.is_current(record));
        if let Some(kept) = old.iter().rfind(is_current) {
            for task in old.iter().filter(|task| *task != kept) {
                self.stop(task, DesiredState::Shutdown, now);
            }
            return self.rest(id, place, now);
        }
        let new = if start_first {
            self.create_task(id, place.clone(), DesiredState::Running, None, now)
        } else {
            for task in &old {
                self.stop(task, DesiredState::Shutdown, now);
            }
            let is_there = |task: &&TaskId| self.tasks.get(*task).is_some_and(|record| !record.task.is_over());
            match old.iter().find(is_there).cloned() {
                Some(last) => self.create_task(id, place.clone(), DesiredState::Ready, Some(last), now),
                None => self.create_task(id, place.clone(), DesiredState::Running, None, now),
            }
        };
        let update = self.services.get_mut(id).and_then(|service| service.update.as_mut());
        if let (Some(new), Some(update)) = (new, update) {
            update.made.insert(new.clone(), None);
            update.steps.insert(place, Step { old, new });
        }
        true
    }

    /// The delay after a step. Gives whether there is one.
    fn rest(&mut self, id: &ServiceId, place: Place, now: Instant) -> bool {
        let Some(service) = self.services.get_mut(id) else {
            return false;
        };
        let delay = Duration::from_millis(service.shape.update.delay_ms);
        let has_delay = |update: &&mut Update| delay > Duration::ZERO && !update.rollback;
        let Some(update) = service.update.as_mut().filter(has_delay) else {
            return false;
        };
        update.resting.insert(place.clone());
        self.timers.set(Due::Rested(id.clone(), place), now + delay);
        true
    }

    /// A task was reported running: if it is the new one of a step, the step is done.
    pub(super) fn step_done(&mut self, task: &TaskId, now: Instant) {
        let Some(record) = self.tasks.get(task) else { return };
        let (id, place) = (record.task.service.clone(), record.place.clone());
        let update = self.services.get_mut(&id).and_then(|service| service.update.as_mut());
        let Some(update) = update.filter(|update| update.steps.get(&place).is_some_and(|step| &step.new == task))
        else {
            return;
        };
        let old = update.steps.remove(&place).map(|step| step.old).unwrap_or_default();
        if let Some(runs) = update.made.get_mut(task) {
            *runs = Some(now);
        }
        self.rest(&id, place, now);
        // Start-first: the old one is told in the same commit, so no list is without either (facts §1.1).
        for task in old {
            self.stop(&task, DesiredState::Shutdown, now);
        }
        self.advance_update(&id, now);
    }

    pub(super) fn rested(&mut self, id: &ServiceId, place: &Place, now: Instant) {
        if let Some(update) = self.services.get_mut(id).and_then(|service| service.update.as_mut()) {
            update.resting.remove(place);
        }
        self.advance_update(id, now);
    }

    pub(super) fn monitored(&mut self, id: &ServiceId, now: Instant) {
        let Some(service) = self.services.get_mut(id) else {
            return;
        };
        let Some(update) = service.update.take() else { return };
        let completed = if update.rollback {
            "rollback_completed"
        } else {
            "completed"
        };
        service.update_state = service.update_state.map(|_| completed);
        self.touch(id, now);
    }

    /// A task ended that should run: a new one takes its place after the restart delay.
    pub(super) fn replace_failed(&mut self, id: &TaskId, now: Instant) {
        let Some(record) = self.tasks.get_mut(id) else { return };
        record.task.desired = DesiredState::Shutdown;
        let failed = record.task.state == TaskState::Failed;
        let (service, place) = (record.task.service.clone(), record.place.clone());
        if !self.services.contains_key(&service) {
            return;
        }
        if failed {
            self.update_failed(id, now);
        }
        let restart = self.delays.restart.draw(&mut self.rng);
        self.replace(&service, place, id, Some(now + restart), now);
    }

    /// Creates the successor of a task that is lost or leaves its node, to start at `at` or else when `old` has ended;
    /// none where the place is filled otherwise.
    pub(super) fn replace(&mut self, id: &ServiceId, place: Place, old: &TaskId, at: Option<Instant>, now: Instant) {
        let gone = |node: &NodeId| {
            let node = self.nodes.get(node);
            node.is_none_or(|node| node.availability == Availability::Drain)
        };
        let mut others = self
            .tasks
            .values()
            .filter(|other| &other.task.service == id && other.place == place);
        let filled = others.any(|other| other.is_live() && &other.task.id != old);
        let update = self.services.get(id).and_then(|service| service.update.as_ref());
        let is_new = update
            .and_then(|update| update.steps.get(&place))
            .is_some_and(|step| &step.new == old);
        if matches!(&place, Place::Node(node) if gone(node)) || (filled && !is_new) {
            return;
        }
        let waits_for = at.is_none().then(|| old.clone());
        let Some(new) = self.create_task(id, place.clone(), DesiredState::Ready, waits_for, now) else {
            return;
        };
        if let Some(at) = at {
            self.timers.set(Due::Promote(new.clone()), at);
        }
        // A step whose new task is lost goes on with the successor.
        let update = self.services.get_mut(id).and_then(|service| service.update.as_mut());
        if let Some(step) = update
            .filter(|_| is_new)
            .and_then(|update| update.steps.get_mut(&place))
        {
            step.new = new;
        }
    }

    /// A task failed: `FailureAction` of the update that made it, or of the rollback that this became.
    pub(super) fn update_failed(&mut self, task: &TaskId, now: Instant) {
        let Some(record) = self.tasks.get(task) else { return };
        let id = record.task.service.clone();
        let Some(service) = self.services.get_mut(&id) else {
            return;
        };
        let Some(update) = &service.update else { return };
        let is_rollback = update.rollback;
        let (monitor_ms, action) = match is_rollback {
            true => (ROLLBACK_MONITOR_MS, "pause"),
            false => (
                service.shape.update.monitor_ms,
                service.shape.update.failure_action.as_str(),
            ),
        };
        let monitor = Duration::from_millis(monitor_ms);
        let is_watched = |since: &Option<Instant>| since.is_none_or(|since| now.since(since) <= monitor);
        if !update.made.get(task).is_some_and(is_watched) {
            return;
        }
        match action {
            "continue" => return,
            // Somebody wiped the state with the same spec again: the updater ends without a word.
            _ if service.update_state.is_none() => {
                service.update = None;
                self.keep_one_for_each_place(&id, now);
                self.clear(&Due::Monitored(id));
                return;
            }
            "rollback" if !is_rollback => {
                if !service.roll_back() {
                    return;
                }
            }
            _ => {
                let paused = if is_rollback { "rollback_paused" } else { "paused" };
                service.update_state = Some(paused);
                service.update = None;
                self.keep_one_for_each_place(&id, now);
            }
        }
        self.clear(&Due::Monitored(id.clone()));
        self.touch(&id, now);
        self.wake_update(&id, now);
    }

    /// A place whose old task still runs keeps it alone.
    fn keep_one_for_each_place(&mut self, id: &ServiceId, now: Instant) {
        let newer = self.live_places(id).into_values();
        for task in newer.flat_map(|tasks| tasks.into_iter().skip(1)) {
            self.stop(&task, DesiredState::Shutdown, now);
        }
    }
}
