//! What one list does to the model.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::fold::{Folded, Rules, fold, fold_alike};
use super::lane::Flight;
use super::watch::{Look, at_rest};
use super::{Answer, Fetch, Lane, World, WorldSettings};
use crate::id::ServiceId;
use crate::swarm::model::{ApiError, Network, Service, Task};
use crate::time::{Duration, Instant};

/// After an answer that was behind what is known.
const OUTDATED_PAUSE: Duration = Duration::from_millis(250);

impl World {
    pub(super) fn handle_list(&mut self, lane: Lane, flight: &Flight, answer: Answer, now: Instant) {
        let sent = flight.sent;
        let behind = self.is_behind(now);
        let outdated = match (answer, &flight.fetch) {
            (Answer::Services(list), Fetch::Services(_)) => self.fold_services(list, flight, now),
            (Answer::Tasks(list), Fetch::Tasks(_)) => self.fold_tasks(list, flight, now),
            (Answer::Networks(list), Fetch::Networks) => self.fold_networks(list, sent, now),
            (Answer::Nodes(list), Fetch::Nodes) => {
                let confirm = self.settings.confirm_of(&list);
                let folded = fold_alike(
                    &mut self.nodes,
                    &mut self.absent.nodes,
                    list,
                    sent,
                    behind,
                    confirm,
                    now,
                );
                self.changes.nodes.extend(folded.changed.iter().cloned());
                self.account(Lane::Nodes, &folded, now)
            }
            (Answer::Secrets(list), Fetch::Secrets) => {
                let confirm = self.settings.confirm_of(&list);
                let absent = &mut self.absent.secrets;
                let folded = fold_alike(&mut self.secrets, absent, list, sent, behind, confirm, now);
                self.changes.secrets.extend(folded.changed.iter().cloned());
                self.account(Lane::Secrets, &folded, now)
            }
            (Answer::Managed(list), Fetch::Managed) => {
                let confirm = self.settings.confirm_of(&list);
                let absent = &mut self.absent.managed;
                let folded = fold_alike(&mut self.managed, absent, list, sent, behind, confirm, now);
                self.changes.managed.extend(folded.changed.iter().cloned());
                self.account(Lane::Managed, &folded, now)
            }
            (
                Answer::Managed(_)
                | Answer::Networks(_)
                | Answer::Nodes(_)
                | Answer::Secrets(_)
                | Answer::Services(_)
                | Answer::Tasks(_),
                _,
            ) => {
                let error = ApiError::Garbled(alloc::format!("a {} list was answered by another one", lane.name()));
                self.handle_failure(flight, Some(&error), now);
                return;
            }
        };
        self.lane(lane).overtake(flight);
        let took = now.since(sent);
        let mut recovered = false;
        if flight.fetch.is_partial() {
            let pause = took.max(self.settings.poll_changing / 4);
            self.lane(lane).succeed_look(pause, now);
        } else {
            let pause = self.settings.pause.max(took * 2);
            let every = match (lane, self.stream.is_open()) {
                (Lane::Tasks, _) => self.settings.tasks_every,
                (_, true) => self.settings.lists_every,
                (_, false) => self.settings.blind_every,
            };
            recovered = self.lane(lane).failures > 0;
            self.troubles.remove(&lane);
            self.lane(lane).succeed(sent, every, pause, now);
        }
        if outdated {
            self.behind_at = Some(now);
            self.want(lane, now + OUTDATED_PAUSE);
        }
        if recovered {
            self.want_all(now);
        }
        if self.stream_in_doubt {
            self.stream_in_doubt = false;
            self.stream.renew(now);
            self.feed.stream.renew(now);
        }
    }

    /// Folds the services that `flight` asked for, but for those of which something newer was told.
    fn fold_services(&mut self, mut list: Vec<Service>, flight: &Flight, now: Instant) -> bool {
        let behind = self.is_behind(now);
        let confirm = self.settings.confirm_of(&list);
        let of = flight.fetch.of();
        let told = |id: &ServiceId| (of.is_empty() || of.contains(id)) && !flight.overtaken.contains(id);
        // What is not told of is neither there nor missing.
        list.retain(|service| told(&service.id));
        let mut known: BTreeMap<ServiceId, Service> = if of.is_empty() {
            let mut all = core::mem::take(&mut self.services);
            let rest = flight.overtaken.iter().filter_map(|id| all.remove_entry(id));
            self.services = rest.collect();
            all
        } else {
            let asked = of.iter().filter(|id| told(id));
            asked.filter_map(|id| self.services.remove_entry(id)).collect()
        };
        let absent = &mut self.absent.services;
        let folded = fold_alike(&mut known, absent, list, flight.sent, behind, confirm, now);
        self.services.append(&mut known);
        for id in &folded.gone {
            for task in self.tasks.remove(id).into_iter().flatten() {
                self.absent.tasks.forget(&task.0);
            }
            self.watch.forget(id);
        }
        for id in &folded.touched {
            self.strangers.remove(id);
            self.watch_tasks_of(id, now);
        }
        self.changes.services.extend(folded.changed.iter().cloned());
        self.account(Lane::Services, &folded, now)
    }

    /// Folds the tasks of the services that `flight` asked for, but for those of which something newer was told.
    fn fold_tasks(&mut self, mut list: Vec<Task>, flight: &Flight, now: Instant) -> bool {
        let (of, sent) = (flight.fetch.of(), flight.sent);
        let whole = of.is_empty();
        let confirm_empty = whole && list.is_empty();
        self.compare_with_feed(list.iter().map(|task| task.version).max(), whole, sent, now);
        list.retain(|task| !flight.overtaken.contains(&task.service));
        let mut by_service: BTreeMap<ServiceId, Vec<Task>> = BTreeMap::new();
        for task in list {
            by_service.entry(task.service.clone()).or_default().push(task);
        }
        let told = |id: &&ServiceId| self.services.contains_key(*id) && !flight.overtaken.contains(*id);
        let asked: Vec<ServiceId> = if whole {
            self.services.keys().filter(told).cloned().collect()
        } else {
            of.iter().filter(told).cloned().collect()
        };
        let older = |task: &Task| {
            let known = self.tasks.get(&task.service).and_then(|tasks| tasks.get(&task.id));
            known.is_some_and(|known| known.version > task.version)
        };
        let mut outdated = by_service.values().flatten().any(older);
        if outdated {
            self.behind_at = Some(now);
        }
        for id in asked {
            let tasks = by_service.remove(&id).unwrap_or_default();
            outdated |= self.fold_tasks_of(&id, tasks, confirm_empty, sent, now);
        }
        // Tasks of a service that no list has yet: a new one, or a finished job's.
        let is_strange = |id: &ServiceId| !self.services.contains_key(id);
        let strangers: BTreeSet<ServiceId> = by_service.into_keys().filter(is_strange).collect();
        let is_new = !strangers.is_subset(&self.strangers);
        if whole {
            self.strangers = strangers; // of others no task is left
        } else {
            self.strangers.extend(strangers);
        }
        if is_new {
            self.want(Lane::Services, now);
        }
        outdated
    }

    fn fold_tasks_of(
        &mut self,
        id: &ServiceId,
        list: Vec<Task>,
        confirm_empty: bool,
        sent: Instant,
        now: Instant,
    ) -> bool {
        let (behind, fed) = (self.is_behind(now), self.may_wait_for_feed());
        let Some(service) = self.services.get(id) else {
            return false;
        };
        let settings = &self.settings;
        // A serving task does not vanish: it is told to stop first, and other answers show it then.
        let confirm = |task: &Task| match (task.is_serving(), confirm_empty) {
            (false, _) => Duration::ZERO,
            (true, false) => settings.confirm,
            (true, true) => settings.confirm_empty,
        };
        let rules = Rules {
            sent,
            behind,
            keep: &|_| false,
            confirm: &confirm,
        };
        let known = self.tasks.entry(id.clone()).or_default();
        let mut told_to_stop = false;
        let folded = fold(known, &mut self.absent.tasks, list, &rules, now, |old, new| {
            told_to_stop |= new.is_leaving() && old.is_some_and(|old| old.desired != new.desired);
        });
        self.counters.outdated += folded.outdated;
        self.counters.kept += folded.kept;
        let look = Look {
            at_rest: folded.kept == 0 && folded.outdated == 0 && at_rest(service, known.values(), &self.nodes),
            changed: !folded.changed.is_empty(),
            told_to_stop,
            sent,
            may_wait: fed,
        };
        if known.is_empty() {
            self.tasks.remove(id);
        }
        self.watch.looked(id, look, &self.settings, now);
        if look.changed {
            self.changes.services.insert(id.clone());
        }
        folded.outdated > 0
    }

    fn fold_networks(&mut self, list: Vec<Network>, sent: Instant, now: Instant) -> bool {
        let mut referred: BTreeSet<&str> = BTreeSet::new();
        for service in self.services.values() {
            referred.extend(service.networks.iter().map(core::ops::Deref::deref));
            referred.extend(service.virtual_ips.iter().map(|vip| vip.network.as_str()));
        }
        for task in self.tasks.values().flat_map(BTreeMap::values) {
            referred.extend(task.addresses.iter().map(|address| address.network.as_str()));
        }
        let behind = self.is_behind(now);
        // Without quorum `/networks` answers, but lacks the networks without a task on that manager (facts §4).
        let leaderless = self.lanes.get(&Lane::Services).is_some_and(|lane| lane.failures > 0);
        let confirm = if list.is_empty() {
            self.settings.confirm_empty.max(self.settings.confirm_network)
        } else {
            self.settings.confirm_network
        };
        let rules = Rules {
            sent,
            behind,
            keep: &|network: &Network| {
                leaderless || referred.contains(network.id.as_str()) || referred.contains(network.name.as_str())
            },
            confirm: &|_| confirm,
        };
        let folded = fold(
            &mut self.networks,
            &mut self.absent.networks,
            list,
            &rules,
            now,
            |_, _| (),
        );
        self.changes.networks.extend(folded.changed.iter().cloned());
        self.account(Lane::Networks, &folded, now)
    }

    /// Counts what a fold found and asks again where it leaves doubt; says whether the list was behind.
    fn account<K: Ord>(&mut self, lane: Lane, folded: &Folded<K>, now: Instant) -> bool {
        self.counters.outdated += folded.outdated;
        self.counters.kept += folded.kept;
        let doubts = match lane {
            Lane::Managed => self.absent.managed.doubts(),
            Lane::Networks => self.absent.networks.doubts(),
            Lane::Nodes => self.absent.nodes.doubts(),
            Lane::Secrets => self.absent.secrets.doubts(),
            Lane::Services => self.absent.services.doubts(),
            Lane::Tasks => None,
        };
        if let Some(since) = doubts {
            // The list that confirms it; lists for other reasons put it off for no longer.
            let confirm = self.settings.confirm;
            let at = since + confirm;
            self.want(lane, if at > now { at } else { now + confirm });
        }
        folded.outdated > 0
    }
}

impl WorldSettings {
    /// How long what `list` lacks must be missing.
    fn confirm_of<V>(&self, list: &[V]) -> Duration {
        if list.is_empty() {
            self.confirm_empty
        } else {
            self.confirm
        }
    }
}
