//! The second witness: what Docker's DNS says about the tasks of routed services, for when no controller is heard.
//!
//! Stands between the subscriber and the workers. While a controller is heard, tables pass through as they are. Without one,
//! names `tasks.<service>` are asked for again and again, and what they answer narrows or extends the endpoints of the last
//! table: a task that is told to stop leaves DNS 1.1 to 1.7 s later, which is before its app is told (facts §1), and a new one
//! comes when it runs. Routes are changed by controllers alone.
//!
//! # What counts as evidence
//!
//! - An answer with addresses. An error, an empty answer or NXDOMAIN says nothing: gossip has lost names of living services
//!   (facts §10), and no pool is ever emptied for it.
//! - An address is missed twice in a row before its endpoint goes.
//! - An address that the name of another service has now is no longer this service's: addresses are reused (facts §5).
//! - An endpoint whose address no answer has had for [`FRESH`] is *unsure*: it serves on, but once a connection to it fails it
//!   is not tried again until DNS or a controller confirms it (`EndpointSpec::unsure`). An answer confirms what it has alone:
//!   the address that it misses may be another service's by now, before that one's name says so.
//!
//! A stored table that no controller has confirmed for long is not served before DNS confirms its endpoints, service by service.

#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use crate::id::{EndpointId, ServiceId};
use crate::machine::Machine;
use crate::route::spec::{DnsWitness, EndpointSpec, Leaving, RouteSpec};
use crate::snapshot::model::Snapshot;
use crate::snapshot::subscriber::Install;
use crate::time::{Deadline, Duration, Instant, Timers};

/// Silence of all controllers after which DNS is asked: a controller that is replaced is back before.
pub const ASK_AFTER: Duration = Duration::from_secs(1);
/// Between two questions for one name.
pub const ASK_EVERY: Duration = Duration::from_millis(250);
/// Before the question that confirms a change.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Least pause per service: with many services each is asked for less often, 200 questions a second in all.
const ASK_SHARE: Duration = Duration::from_millis(5);
/// How long a confirmation holds; three questions where these are further apart.
pub const FRESH: Duration = Duration::from_secs(2);
/// Answers in a row that must miss an address.
const MISSES: u32 = 2;

/// What the witness is told.
#[derive(Clone, Debug)]
pub enum Fact {
    /// The answer to [`Action::Ask`]; none: an error, nothing, or too late.
    Answer {
        /// Whose name.
        service: ServiceId,
        /// Which question.
        question: u64,
        /// Addresses inside the network.
        addresses: Option<Vec<IpAddr>>,
    },
    /// Whether a controller confirms the present table.
    Heard(bool),
    /// A table of a controller, or the stored one.
    Table(Install),
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Ask DNS, within [`ASK_AFTER`].
    Ask {
        /// Goes back with the answer.
        service: ServiceId,
        /// As well.
        question: u64,
        /// What to ask for, and where.
        name: DnsWitness,
    },
    /// Serve this.
    Install(Install),
    /// Something that an operator should know.
    Notice(String),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Begin,
    Service(ServiceId),
}

/// What DNS said about one service since no controller is heard.
#[derive(Clone, Debug, Default)]
struct Belief {
    /// The last answer with addresses.
    present: BTreeSet<IpAddr>,
    /// When an answer had an address last, while that counts.
    confirmed: BTreeMap<IpAddr, Instant>,
    /// Addresses of the table that were missed, how often in a row.
    missed: BTreeMap<IpAddr, u32>,
    /// Addresses that went to another service.
    lost: BTreeSet<IpAddr>,
    /// The question that is open.
    asked: Option<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Witness {
    /// The last table as it came.
    table: Option<Install>,
    /// Its specs that are served otherwise than they came.
    changed: BTreeMap<ServiceId, Arc<RouteSpec>>,
    beliefs: BTreeMap<ServiceId, Belief>,
    /// A controller confirms the table.
    heard: bool,
    /// DNS is being asked.
    active: bool,
    /// The table is too old to be served unconfirmed.
    doubted: bool,
    next_question: u64,
    timers: Timers<Timer>,
    actions: VecDeque<Action>,
}

impl Witness {
    /// Knows no table and hears nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether DNS is being asked.
    pub fn is_active(&self) -> bool {
        self.active
    }

    fn handle_table(&mut self, table: Install, now: Instant) {
        let stored = table.stored;
        let limit = Duration::from_millis(table.snapshot.settings.confirm_table_after_ms.into());
        self.doubted = stored.is_some_and(|age| !limit.is_zero() && age > limit);
        self.heard = stored.is_none();
        let changed_before: BTreeSet<ServiceId> = core::mem::take(&mut self.changed).into_keys().collect();
        self.beliefs.clear();
        self.timers = Timers::new();
        self.active = false;
        self.table = Some(table.clone());
        if self.doubted {
            self.actions.push_back(Action::Notice(format!(
                "the stored table is {} s old and no controller is heard: Docker's DNS confirms its endpoints first",
                stored.unwrap_or_default().as_secs()
            )));
            self.begin(now);
            let all = self.beliefs.keys().cloned().collect();
            self.respec(&all, now);
            self.install(None);
            return;
        }
        if stored.is_some() {
            self.timers.set(Timer::Begin, now + ASK_AFTER);
        }
        let changed = table.changed.map(|mut changed| {
            changed.extend(changed_before);
            changed
        });
        self.install(changed);
    }

    fn handle_heard(&mut self, heard: bool, now: Instant) {
        if heard == self.heard {
            return;
        }
        self.heard = heard;
        if !heard {
            self.timers.set(Timer::Begin, now + ASK_AFTER);
            return;
        }
        self.timers = Timers::new();
        self.beliefs.clear();
        self.doubted = false;
        if core::mem::take(&mut self.active) {
            self.actions.push_back(Action::Notice(String::from(
                "a controller is heard again, and its table is served",
            )));
        }
        let changed: BTreeSet<ServiceId> = core::mem::take(&mut self.changed).into_keys().collect();
        if !changed.is_empty() {
            self.install(Some(changed));
        }
    }

    /// Starts to ask for every service that has a name.
    fn begin(&mut self, now: Instant) {
        let Some(table) = &self.table else { return };
        self.active = true;
        let named = table.snapshot.routes.iter().filter(|(_, spec)| spec.witness.is_some());
        for (number, (service, _)) in named.enumerate() {
            // Spread over their period.
            let at = now + ASK_SHARE.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX));
            self.timers.set(Timer::Service(service.clone()), at);
            self.beliefs.insert(service.clone(), Belief::default());
        }
        if !self.doubted && !self.beliefs.is_empty() {
            self.actions.push_back(Action::Notice(format!(
                "no controller is heard: Docker's DNS is asked for the tasks of {} services",
                self.beliefs.len()
            )));
        }
    }

    fn ask(&mut self, service: &ServiceId, now: Instant) {
        let spec = self.table.as_ref().and_then(|table| table.snapshot.routes.get(service));
        let (Some(name), Some(belief)) = (
            spec.and_then(|spec| spec.witness.clone()),
            self.beliefs.get_mut(service),
        ) else {
            return;
        };
        // Without an answer the next question comes in its time all the same: the shell answers within that.
        belief.asked = Some(self.next_question);
        self.actions.push_back(Action::Ask {
            service: service.clone(),
            question: self.next_question,
            name,
        });
        self.next_question += 1;
        self.timers
            .set(Timer::Service(service.clone()), now + ASK_AFTER + self.pause());
    }

    /// Between two questions for one name.
    fn pause(&self) -> Duration {
        let count = u32::try_from(self.beliefs.len()).unwrap_or(u32::MAX);
        ASK_EVERY.max(ASK_SHARE.saturating_mul(count))
    }

    fn handle_answer(&mut self, service: &ServiceId, question: u64, addresses: Option<Vec<IpAddr>>, now: Instant) {
        let pause = self.pause();
        let Some(table) = &self.table else { return };
        let (Some(belief), Some(spec)) = (self.beliefs.get_mut(service), table.snapshot.routes.get(service)) else {
            return;
        };
        if belief.asked != Some(question) {
            return; // too late
        }
        belief.asked = None;
        let mut next = pause;
        let present: BTreeSet<IpAddr> = addresses.into_iter().flatten().collect();
        if !present.is_empty() {
            belief.confirmed.extend(present.iter().map(|ip| (*ip, now)));
            belief.lost.retain(|ip| !present.contains(ip));
            belief.missed.retain(|ip, _| !present.contains(ip));
            for ip in spec.endpoints.iter().map(|endpoint| endpoint.addr.ip()) {
                if !present.contains(&ip) {
                    let missed = belief.missed.entry(ip).or_default();
                    *missed = missed.saturating_add(1);
                    if *missed < MISSES {
                        next = ASK_AGAIN;
                    }
                }
            }
            belief.present.clone_from(&present);
        }
        let mut looked_at = self.take_from_others(service, &present);
        looked_at.insert(service.clone());
        self.timers.set(Timer::Service(service.clone()), now + next);
        self.serve_what_is_believed(&looked_at, now);
    }

    /// What one service's name has, no other service has. Gives the services that had some of it.
    fn take_from_others(&mut self, service: &ServiceId, present: &BTreeSet<IpAddr>) -> BTreeSet<ServiceId> {
        let mut losers = BTreeSet::new();
        for (other, belief) in self.beliefs.iter_mut().filter(|(other, _)| *other != service) {
            let Some(spec) = self.table.as_ref().and_then(|table| table.snapshot.routes.get(other)) else {
                continue;
            };
            let of_table = spec.endpoints.iter().map(|endpoint| endpoint.addr.ip());
            let theirs = of_table.chain(belief.present.iter().copied());
            let lost: Vec<IpAddr> = theirs.filter(|ip| present.contains(ip)).collect();
            if !lost.is_empty() {
                belief.present.retain(|ip| !present.contains(ip));
                belief.lost.extend(lost);
                losers.insert(other.clone());
            }
        }
        losers
    }

    fn serve_what_is_believed(&mut self, services: &BTreeSet<ServiceId>, now: Instant) {
        let changed = self.respec(services, now);
        if !changed.is_empty() {
            self.install(Some(changed));
        }
    }

    /// Computes specs as they are believed to be; which of them are not as they were.
    fn respec(&mut self, services: &BTreeSet<ServiceId>, now: Instant) -> BTreeSet<ServiceId> {
        let mut changed = BTreeSet::new();
        let fresh_for = FRESH.max(self.pause() * 3);
        let Some(table) = &self.table else { return changed };
        for service in services {
            let (Some(belief), Some(spec)) = (self.beliefs.get_mut(service), table.snapshot.routes.get(service)) else {
                continue;
            };
            belief.confirmed.retain(|_, at| now < *at + fresh_for);
            let believed = believed(spec, belief, self.doubted);
            let served = self.changed.get(service).unwrap_or(spec);
            if believed == **served {
                continue;
            }
            changed.insert(service.clone());
            if believed == **spec {
                self.changed.remove(service);
            } else {
                self.changed.insert(service.clone(), Arc::new(believed));
            }
        }
        changed
    }

    fn install(&mut self, changed: Option<BTreeSet<ServiceId>>) {
        let Some(table) = &self.table else { return };
        let snapshot = if self.changed.is_empty() {
            table.snapshot.clone()
        } else {
            let mut snapshot: Snapshot = (*table.snapshot).clone();
            snapshot.routes.extend(self.changed.clone());
            Arc::new(snapshot)
        };
        let cause = if self.active {
            String::from("Docker's DNS")
        } else {
            table.cause.clone()
        };
        let (revision, digest, stored) = (table.revision, table.digest, table.stored);
        self.actions.push_back(Action::Install(Install {
            snapshot,
            changed,
            revision,
            cause,
            digest,
            stored,
        }));
    }
}

/// A spec as DNS has it.
fn believed(spec: &RouteSpec, belief: &Belief, doubted: bool) -> RouteSpec {
    let Some(name) = &spec.witness else {
        return spec.clone();
    };
    let went = |ip: &IpAddr| belief.lost.contains(ip) || belief.missed.get(ip).is_some_and(|missed| *missed >= MISSES);
    let unsure = |ip: &IpAddr| !belief.confirmed.contains_key(ip);
    let mut endpoints = Vec::new();
    for endpoint in &spec.endpoints {
        let ip = endpoint.addr.ip();
        if belief.lost.contains(&ip) || (doubted && !belief.present.contains(&ip)) {
            continue; // somebody else's, or nobody knows whose
        }
        let is_gone = went(&ip);
        let leaving = match is_gone {
            true => Some(Leaving { last_resort_ms: 0 }),
            false => endpoint.leaving,
        };
        endpoints.push(EndpointSpec {
            leaving,
            // Who takes nothing new has nothing to be unsure about.
            unsure: !is_gone && unsure(&ip),
            ..endpoint.clone()
        });
    }
    // An endpoint that was told to stop does not come back; whoever has its address afterwards is another one.
    let known: BTreeSet<IpAddr> = spec.endpoints.iter().map(|endpoint| endpoint.addr.ip()).collect();
    for ip in belief.present.iter().filter(|ip| !known.contains(*ip)) {
        endpoints.push(EndpointSpec {
            id: EndpointId::from(format!("dns:{}:{ip}", spec.service)),
            addr: SocketAddr::new(*ip, name.port),
            via: name.via.clone(),
            node: None,
            leaving: None,
            unsure: unsure(ip),
        });
    }
    endpoints.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    RouteSpec {
        endpoints,
        ..spec.clone()
    }
}

impl Machine for Witness {
    type Fact = Fact;
    type Action = Action;

    fn handle(&mut self, fact: Fact, now: Instant) {
        match fact {
            Fact::Answer {
                service,
                question,
                addresses,
            } => self.handle_answer(&service, question, addresses, now),
            Fact::Heard(heard) => self.handle_heard(heard, now),
            Fact::Table(table) => self.handle_table(table, now),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        let mut asked = BTreeSet::new();
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Begin => self.begin(now),
                Timer::Service(service) => {
                    self.ask(&service, now);
                    asked.insert(service);
                }
            }
        }
        self.serve_what_is_believed(&asked, now); // a confirmation may be too old by now
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let (timer, at) = self.timers.next()?;
        let why = match timer {
            Timer::Begin => "no controller is heard for long",
            Timer::Service(_) => "Docker's DNS is asked",
        };
        Some(Deadline { at, why })
    }

    fn check_invariants(&self) {
        debug_assert!(
            self.active || self.beliefs.is_empty(),
            "DNS is believed only while nobody else speaks"
        );
        debug_assert!(
            !self.heard || self.changed.is_empty(),
            "a controller's table is served as it is"
        );
    }
}
