//! What really happened, seen from outside the product: which requests arrived where, what each proxy has put to work,
//! which faults struck, and how streams ended. Expectations judge by it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::id::{ClusterName, TaskId};
use tidegate_core::snapshot::model::Snapshot;
use tidegate_core::time::Instant;

use crate::lines::Lines;
use crate::product::PROXIES;
use crate::repeats::Repeats;

/// A request that a proxy had sent off before it put a table to work arrives within this time.
pub(crate) const UNDER_WAY: Duration = Duration::from_millis(600);
/// An endpoint that fails makes its pool use what it has; for this long after a blow a leaving task may be all of it.
const AFTERMATH: Duration = Duration::from_secs(10);

/// How often a request that may be sent again reaches a task at most: once, its retries (`retries_max`), a second copy.
const SENT_MAX: u32 = 1 + 3 + 1;

/// A fault that nobody announced.
#[derive(Clone, Debug)]
pub struct Blow {
    /// When it struck.
    pub at: Instant,
    /// The services whose tasks it struck.
    pub services: BTreeSet<String>,
    /// Those tasks; none where it struck all of them.
    pub tasks: BTreeSet<TaskId>,
    /// What it was.
    pub what: String,
    /// Whether what may be sent again was not to be lost by it.
    pub spares_safe: bool,
}

/// A stream that a user held open.
#[derive(Clone, Debug)]
pub struct StreamEnd {
    /// When it was opened.
    pub opened: Instant,
    /// When it ended.
    pub ended: Instant,
    /// The service that answered.
    pub service: String,
    /// Its task.
    pub task: TaskId,
    /// Through which proxy.
    pub proxy: IpAddr,
    /// How.
    pub why: String,
}

/// What one proxy serves by.
#[derive(Clone, Debug)]
pub struct Table {
    /// Since when.
    pub at: Instant,
    /// Its service cluster.
    pub cluster: ClusterName,
    /// The specs.
    pub snapshot: Arc<Snapshot>,
}

/// What a request that reached a task asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// Service of the task.
    pub service: String,
    /// Its `Host`.
    pub host: String,
    /// Its path.
    pub path: String,
}

/// A request that reached a task which should not run any more.
#[derive(Clone, Debug)]
pub struct Late {
    /// Service of the task.
    pub service: String,
    /// The task.
    pub task: TaskId,
    /// Since when it should not run.
    pub since: Instant,
    /// Through which proxy.
    pub proxy: IpAddr,
    /// When.
    pub at: Instant,
}

impl Blow {
    /// Whether it struck this task.
    pub fn struck(&self, service: &str, task: &TaskId) -> bool {
        self.services.contains(service) && (self.tasks.is_empty() || self.tasks.contains(task))
    }
}

/// Of an address, from and until when.
type Span = (IpAddr, Instant, Option<Instant>);

fn overlaps(spans: &[Span], addr: IpAddr, from: Instant, to: Instant) -> bool {
    let overlaps = |(of, begin, end): &Span| *of == addr && *begin <= to && end.is_none_or(|end| end >= from);
    spans.iter().any(overlaps)
}

/// See the module.
#[derive(Debug, Default)]
pub struct Witness {
    blows: RefCell<Vec<Blow>>,
    streams: RefCell<Vec<StreamEnd>>,
    tables: RefCell<BTreeMap<IpAddr, Table>>,
    /// Tasks that a proxy knows to be leaving while it has others: of which service, and since when.
    left: RefCell<BTreeMap<(IpAddr, TaskId), (String, Instant)>>,
    /// Services whose apps fail by themselves: proxies may use whatever they have of them.
    moody: RefCell<BTreeSet<String>>,
    /// Proxies that cannot be reached, from and until when.
    unreachable: RefCell<Vec<Span>>,
    /// Proxies that answer what they have and take nothing new, from and until when.
    refusing: RefCell<Vec<Span>>,
    /// When processes were told to stop or ended without being told.
    ended: RefCell<BTreeMap<TaskId, Instant>>,
    /// When what ran at an address exited.
    exits: RefCell<Vec<(IpAddr, Instant)>>,
    /// Proxies that started with a stored table, since when that was stored, and when they started.
    stored: RefCell<Vec<(IpAddr, Instant, Instant)>>,
    /// When what had been held back was let go.
    mended: RefCell<Vec<Instant>>,
    broken: RefCell<Vec<String>>,
    /// What reached which service, and when.
    arrivals: RefCell<BTreeMap<Arrival, Vec<Instant>>>,
    /// Tasks that should not run any more, since when.
    leaving: RefCell<BTreeMap<TaskId, Instant>>,
    late: RefCell<Vec<Late>>,
    /// How often each request reached a task, by its name.
    times: RefCell<BTreeMap<String, u32>>,
    /// Requests that waited in each proxy when it was looked at last.
    waiting: RefCell<BTreeMap<IpAddr, u64>>,
    lines: Lines,
    repeats: Repeats,
    /// How much one proxy may have under way at a task, where that is bounded.
    bounds: RefCell<BTreeMap<TaskId, u32>>,
    /// Services with a task that ails: what may be sent again is answered by another one.
    ailing: RefCell<BTreeSet<String>>,
    /// Tasks that by now no proxy should use.
    unfit: RefCell<BTreeSet<TaskId>>,
    /// Tasks that Docker calls running and that could answer once.
    able: RefCell<BTreeSet<TaskId>>,
    /// Those that cannot answer, and since when one can again.
    unable: RefCell<BTreeMap<TaskId, Option<Instant>>>,
}

impl Witness {
    /// A fault struck.
    pub fn blow(&self, at: Instant, services: BTreeSet<String>, tasks: &[TaskId], what: &str) {
        self.blows.borrow_mut().push(Blow {
            at,
            services,
            tasks: tasks.iter().cloned().collect(),
            what: what.to_owned(),
            spares_safe: false,
        });
    }

    /// A fault struck a service's tasks that a request which may be sent again need not feel.
    pub fn blow_to_unsafe(&self, at: Instant, service: &str, tasks: &[TaskId], what: &str) {
        self.blows.borrow_mut().push(Blow {
            at,
            services: [service.to_owned()].into(),
            tasks: tasks.iter().cloned().collect(),
            what: what.to_owned(),
            spares_safe: true,
        });
    }

    /// Apps of this service drop or keep requests by themselves.
    pub(crate) fn moody(&self, service: &str) {
        self.moody.borrow_mut().insert(service.to_owned());
    }

    /// Whether they do.
    pub(crate) fn fails_by_itself(&self, service: &str) -> bool {
        self.moody.borrow().contains(service)
    }

    /// All faults so far.
    pub fn blows(&self) -> Vec<Blow> {
        self.blows.borrow().clone()
    }

    /// A proxy put a table to work: every worker serves by it.
    pub fn table(&self, proxy: IpAddr, cluster: &ClusterName, snapshot: &Arc<Snapshot>, now: Instant) {
        let mut left = self.left.borrow_mut();
        let mut listed = BTreeSet::new();
        for spec in snapshot.routes.values() {
            let has_others = spec.endpoints.iter().any(|endpoint| endpoint.leaving.is_none());
            for endpoint in &spec.endpoints {
                let key = (proxy, TaskId::from(endpoint.id.as_str()));
                listed.insert(key.clone());
                if endpoint.leaving.is_some() && has_others {
                    left.entry(key).or_insert((spec.name.clone(), now));
                } else {
                    left.remove(&key);
                }
            }
        }
        let before = self.tables.borrow().get(&proxy).cloned();
        for spec in before.iter().flat_map(|table| table.snapshot.routes.values()) {
            for endpoint in &spec.endpoints {
                let key = (proxy, TaskId::from(endpoint.id.as_str()));
                if !listed.contains(&key) {
                    left.entry(key).or_insert((spec.name.clone(), now));
                }
            }
        }
        let table = Table {
            at: now,
            cluster: cluster.clone(),
            snapshot: snapshot.clone(),
        };
        self.tables.borrow_mut().insert(proxy, table);
    }

    /// What each proxy serves by.
    pub fn tables(&self) -> BTreeMap<IpAddr, Table> {
        self.tables.borrow().clone()
    }

    /// A request reached a task.
    pub fn arrival(&self, task: &TaskId, what: Arrival, from: IpAddr, now: Instant) {
        if let Some(since) = self.leaving.borrow().get(task).copied() {
            self.late.borrow_mut().push(Late {
                service: what.service.clone(),
                task: task.clone(),
                since,
                proxy: from,
                at: now,
            });
        }
        self.arrivals.borrow_mut().entry(what).or_default().push(now);
        if self.unfit.borrow().contains(task) {
            self.breaks(format!(
                "{now}: a request reached task {task} through proxy {from}, whose checks it fails"
            ));
        }
        if let Some(late) = self.left_long_ago(from, task, now) {
            self.breaks(format!(
                "{now}: a request reached task {task} {late:?} after proxy {from} served by a table that says it leaves"
            ));
        }
    }

    /// How long a proxy has served by a table that says a task leaves: none where what was sent before may still be under
    /// way, or a fault may have made it use what it has.
    fn left_long_ago(&self, proxy: IpAddr, task: &TaskId, now: Instant) -> Option<Duration> {
        let (service, left) = self.left.borrow().get(&(proxy, task.clone())).cloned()?;
        let is_forced = self.may_use_what_leaves(&service, left, now) || self.has_nothing_else(proxy, task, now);
        (now > left + UNDER_WAY && !is_forced && !self.is_mended(now)).then(|| now.since(left))
    }

    /// Whether proxies may have had to use a task of a service that leaves since `left`: its apps fail by themselves, or a fault
    /// struck others of it, or a proxy itself, which goes on later with what it had begun.
    pub(crate) fn may_use_what_leaves(&self, service: &str, left: Instant, now: Instant) -> bool {
        let concerns = |blow: &Blow| blow.services.contains(service) || blow.services.contains(PROXIES);
        let struck = |blow: &Blow| concerns(blow) && blow.at <= now && blow.at + AFTERMATH >= left;
        let fails = self.fails_by_itself(service) || self.ailing.borrow().contains(service);
        fails || self.blows.borrow().iter().any(struck)
    }

    /// Whether a proxy has a task that leaves in its table, and beside it none but such that cannot answer, however long ago they
    /// were struck, or came back so lately that they may still rest.
    fn has_nothing_else(&self, proxy: IpAddr, task: &TaskId, now: Instant) -> bool {
        let (tables, unable) = (self.tables.borrow(), self.unable.borrow());
        let mut specs = tables
            .get(&proxy)
            .into_iter()
            .flat_map(|table| table.snapshot.routes.values());
        let Some(spec) = specs.find(|spec| {
            spec.endpoints
                .iter()
                .any(|endpoint| endpoint.id.as_str() == task.as_str())
        }) else {
            return false;
        };
        let rests = |id: &str| {
            let back = unable.get(&TaskId::from(id));
            back.is_some_and(|back| back.is_none_or(|back| back + AFTERMATH >= now))
        };
        let mut others = spec.endpoints.iter().filter(|endpoint| endpoint.leaving.is_none());
        others.all(|other| rests(other.id.as_str()))
    }

    /// Whether a task that Docker calls running can answer.
    pub(crate) fn sees(&self, task: &TaskId, can_answer: bool, now: Instant) {
        let mut unable = self.unable.borrow_mut();
        if !can_answer {
            unable.insert(task.clone(), None);
        } else if self.able.borrow_mut().insert(task.clone()) {
            unable.remove(task); // it has begun
        } else if let Some(back) = unable.get_mut(task) {
            back.get_or_insert(now);
        }
    }

    /// A proxy counts a task among those that take requests.
    pub(crate) fn is_ready(&self, proxy: IpAddr, task: &TaskId, now: Instant) {
        if let Some(late) = self.left_long_ago(proxy, task, now) {
            self.breaks(format!(
                "{now}: task {task} is ready {late:?} after proxy {proxy} served by a table that says it leaves"
            ));
        }
    }

    /// A proxy connected to a task; the number names the connection.
    pub(crate) fn opens(&self, proxy: IpAddr, task: &TaskId, at: IpAddr, now: Instant) -> u64 {
        self.lines.opens(proxy, task, at, now)
    }

    /// It is closed.
    pub(crate) fn closes(&self, number: u64) {
        self.lines.closes(number);
    }

    /// A request or a stream begins on it.
    pub(crate) fn begins(&self, number: u64, now: Instant) {
        let Some((proxy, task, under_way)) = self.lines.begins(number) else {
            return;
        };
        if let Some(most) = self.bounds.borrow().get(&task).copied()
            && under_way > most
        {
            self.breaks(format!(
                "{now}: proxy {proxy} has {under_way} requests at task {task}, {most} at most were due"
            ));
        }
    }

    /// It ends.
    pub(crate) fn finishes(&self, number: u64, now: Instant) {
        self.lines.finishes(number, now);
    }

    /// Nothing is kept to a task that leaves, but what is under way. Where a task cannot be reached, it never hears that its
    /// connections were closed.
    pub(crate) fn judge_idle(&self, now: Instant) {
        for (proxy, task, at, since) in self.lines.idle() {
            if self.was_unreachable(at, now - UNDER_WAY, now) {
                continue;
            }
            let late = self.left_long_ago(proxy, &task, now);
            if let Some(late) = late.filter(|_| now > since + UNDER_WAY) {
                self.breaks(format!(
                    "{now}: proxy {proxy} keeps a connection to task {task} {late:?} after it served by a table that says it leaves"
                ));
            }
        }
    }

    /// One proxy may have so much under way at a task.
    pub fn bound(&self, task: &TaskId, under_way: u32) {
        self.bounds.borrow_mut().insert(task.clone(), under_way);
    }

    /// A task of this service ails, and others do not.
    pub fn ails(&self, service: &str) {
        self.ailing.borrow_mut().insert(service.to_owned());
    }

    /// Whether some service of these has or had a task that ails.
    pub fn is_ailing(&self, services: &BTreeSet<String>) -> bool {
        !self.ailing.borrow().is_disjoint(services)
    }

    /// From now on nothing is to reach a task.
    pub fn forbid(&self, task: &TaskId) {
        self.unfit.borrow_mut().insert(task.clone());
    }

    /// It may be used again.
    pub fn allow(&self, task: &TaskId) {
        self.unfit.borrow_mut().remove(task);
    }

    /// The whole of a request reached a task of a service: the one of this name, which may be sent once only or again.
    pub fn arrives_as(&self, name: &str, may_be_sent_again: bool, service: &str, proxy: IpAddr, now: Instant) {
        let mut times = self.times.borrow_mut();
        let count = times.entry(name.to_owned()).or_default();
        *count += 1;
        let most = if may_be_sent_again { SENT_MAX } else { 1 };
        if *count > most {
            self.breaks(format!(
                "{now}: request {name} reached tasks {count} times, {most} at most were due"
            ));
        }
        if let Some(too_many) = self.repeats.arrives(proxy, service, *count > 1, now) {
            self.breaks(too_many);
        }
    }

    /// So many requests wait in a proxy now.
    pub fn waits(&self, proxy: IpAddr, requests: u64) {
        self.waiting.borrow_mut().insert(proxy, requests);
    }

    /// Requests that waited in each proxy when it was looked at last.
    pub fn waiting(&self) -> BTreeMap<IpAddr, u64> {
        self.waiting.borrow().clone()
    }

    /// What a cut held back is let go now.
    pub fn mended(&self, now: Instant) {
        self.mended.borrow_mut().push(now);
    }

    /// What reached which service, and when.
    pub fn arrivals(&self) -> BTreeMap<Arrival, Vec<Instant>> {
        self.arrivals.borrow().clone()
    }

    /// The Swarm wants a task to run no more.
    pub(crate) fn leaves(&self, task: &TaskId, now: Instant) {
        self.leaving.borrow_mut().entry(task.clone()).or_insert(now);
    }

    /// Requests that reached tasks which should not run any more.
    pub fn late(&self) -> Vec<Late> {
        self.late.borrow().clone()
    }

    /// Whether what a cut had held back was let go so shortly before that it may arrive now.
    pub fn is_mended(&self, now: Instant) -> bool {
        self.mended.borrow().iter().any(|at| *at + UNDER_WAY >= now)
    }

    /// A process was told to stop, or ended.
    pub fn ends(&self, task: &TaskId, now: Instant) {
        self.ended.borrow_mut().entry(task.clone()).or_insert(now);
    }

    /// When a process was told to stop or ended.
    pub fn ended(&self, task: &TaskId) -> Option<Instant> {
        self.ended.borrow().get(task).copied()
    }

    /// What ran at an address exited.
    pub(crate) fn exits(&self, addr: IpAddr, now: Instant) {
        self.exits.borrow_mut().push((addr, now));
    }

    /// Whether what ran at an address exited between two moments.
    pub(crate) fn has_exited(&self, addr: IpAddr, from: Instant, to: Instant) -> bool {
        let exits = self.exits.borrow();
        exits.iter().any(|(of, at)| *of == addr && from <= *at && *at <= to)
    }

    /// A proxy starts, and its node has a table for it that was stored some time before.
    pub fn starts_from_table(&self, proxy: IpAddr, since: Instant, now: Instant) {
        self.stored.borrow_mut().push((proxy, since, now));
    }

    /// The oldest table that this proxy, or any, may serve by if it started between two moments and no controller was heard.
    pub fn oldest_table(&self, proxy: Option<IpAddr>, from: Instant, to: Instant) -> Option<Instant> {
        let stored = self.stored.borrow();
        let started = stored.iter().filter(|(of, _, started)| {
            let is_asked_for = proxy.is_none_or(|proxy| proxy == *of);
            is_asked_for && from <= *started && *started <= to
        });
        started.map(|(_, since, _)| *since).min()
    }

    /// A stream ended.
    pub fn stream(&self, end: StreamEnd) {
        self.streams.borrow_mut().push(end);
    }

    /// All streams that ended.
    pub fn streams(&self) -> Vec<StreamEnd> {
        self.streams.borrow().clone()
    }

    /// An address, of a proxy or of a task, cannot be reached from now on.
    pub fn unreachable(&self, addr: IpAddr, now: Instant) {
        self.unreachable.borrow_mut().push((addr, now, None));
    }

    /// A proxy was told to stop and nobody else was told: it answers what it has, and who comes from now on may be refused.
    pub fn refuses(&self, proxy: IpAddr, now: Instant) {
        self.refusing.borrow_mut().push((proxy, now, None));
    }

    /// It can again.
    pub fn reachable(&self, proxy: IpAddr, now: Instant) {
        for spans in [&self.unreachable, &self.refusing] {
            for (of, _, until) in spans.borrow_mut().iter_mut() {
                if *of == proxy {
                    until.get_or_insert(now);
                }
            }
        }
    }

    /// Whether a proxy might refuse what was sent then.
    pub fn was_refusing(&self, proxy: IpAddr, sent: Instant) -> bool {
        overlaps(&self.refusing.borrow(), proxy, sent, sent)
    }

    /// Whether a proxy could not be reached at some moment between two others.
    pub fn was_unreachable(&self, proxy: IpAddr, from: Instant, to: Instant) -> bool {
        overlaps(&self.unreachable.borrow(), proxy, from, to)
    }

    /// Something was seen that must never be.
    pub fn breaks(&self, what: String) {
        self.broken.borrow_mut().push(what);
    }

    /// What was seen that must never be.
    pub fn broken(&self) -> Vec<String> {
        self.broken.borrow().clone()
    }
}

#[cfg(test)]
mod tests;
