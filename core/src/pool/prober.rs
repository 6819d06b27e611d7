//! Active checks: which endpoint is probed when, and which of them fail.
//!
//! One prober per process, however many workers it has: endpoints are probed once per interval and proxy. It says which
//! endpoints are unfit, and each worker's [`Pool`](super::Pool) makes of it what it makes of everything that it learns.
//!
//! [`FAILS`] wrong answers in a row make an endpoint unfit, [`PASSES`] right ones in a row fit again. A new one is fit: its
//! service says that it runs. One that was told to stop is not probed, and one that is gone is forgotten.
//!
//! First probes are spread over the interval by the hash of the endpoint and a number of the process, so that neither all
//! endpoints of a table nor all proxies of a cluster probe at one moment.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;

use super::endpoint::EndpointKey;
use crate::balance::rendezvous;
use crate::machine::Machine;
use crate::route::RouteTable;
use crate::route::active::ActiveChecks;
use crate::route::spec::{BackendTls, UpstreamProtocol};
use crate::time::{Deadline, Duration, Instant, Timers};

/// Wrong answers in a row that make an endpoint unfit.
pub const FAILS: u32 = 3;
/// Right answers in a row that make it fit again.
pub const PASSES: u32 = 2;

/// Endpoints that fail their probes.
pub type Unfit = BTreeSet<EndpointKey>;

/// One request for the shell to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Which endpoint: id, address and the network whose leg connects.
    pub endpoint: EndpointKey,
    /// What to ask, and what is right as the answer.
    pub checks: Arc<ActiveChecks>,
    /// What is spoken.
    pub protocol: UpstreamProtocol,
    /// TLS to it, where it is spoken.
    pub tls: Option<Arc<BackendTls>>,
}

/// Facts for the prober.
#[derive(Clone, Debug)]
pub enum Fact {
    /// What came of a probe.
    Answer {
        /// Of whom.
        endpoint: EndpointKey,
        /// Whether the answer was right; `None`: it could not be asked, for reasons that are not its own.
        passed: Option<bool>,
    },
    /// The table by which the workers serve.
    Table(Arc<RouteTable>),
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Probe, and hand in [`Fact::Answer`]. There is one at a time for each endpoint.
    Probe(Probe),
    /// Tell all workers which endpoints are unfit now.
    Tell(Arc<Unfit>),
}

/// See the module.
#[derive(Debug)]
pub struct Prober {
    spread: u64,
    targets: BTreeMap<EndpointKey, Target>,
    timers: Timers<EndpointKey>,
    told: Arc<Unfit>,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Target {
    probe: Probe,
    is_running: bool,
    is_unfit: bool,
    /// Answers in a row that speak against what is thought of it.
    against: u32,
}

impl Prober {
    /// A prober without a table. `spread`: any number, another one for each process.
    pub fn new(spread: u64) -> Self {
        Prober {
            spread,
            targets: BTreeMap::new(),
            timers: Timers::new(),
            told: Arc::default(),
            actions: VecDeque::new(),
        }
    }

    fn take(&mut self, table: &RouteTable, now: Instant) {
        let mut wanted: BTreeMap<EndpointKey, Probe> = BTreeMap::new();
        for pool in table.pools().values() {
            for endpoint in &pool.endpoints {
                let share = pool.shares.get(endpoint.owner);
                let checks = share.and_then(|share| share.active.as_ref());
                let Some(checks) = checks.filter(|_| endpoint.spec.leaving.is_none()) else {
                    continue;
                };
                let spec = &endpoint.spec;
                let key = (spec.id.clone(), spec.addr, spec.via.clone());
                wanted.entry(key.clone()).or_insert_with(|| Probe {
                    endpoint: key,
                    checks: Arc::clone(checks),
                    protocol: pool.protocol,
                    tls: share.and_then(|share| share.tls.clone()),
                });
            }
        }
        let timers = &mut self.timers;
        self.targets.retain(|key, _| {
            let stays = wanted.contains_key(key);
            if !stays {
                timers.clear(key);
            }
            stays
        });
        for (key, probe) in wanted {
            if let Some(target) = self.targets.get_mut(&key) {
                // A shorter interval is kept from now on.
                if target.probe.checks != probe.checks && !target.is_running {
                    timers.set_at_latest(key, now + interval(&probe.checks));
                }
                target.probe = probe;
            } else {
                let phase = rendezvous::hash(key.0.as_str().as_bytes()) ^ self.spread;
                let first = Duration::from_millis(phase % u64::from(probe.checks.interval_ms.max(1)));
                timers.set(key.clone(), now + first);
                self.targets.insert(
                    key,
                    Target {
                        probe,
                        is_running: false,
                        is_unfit: false,
                        against: 0,
                    },
                );
            }
        }
    }

    fn handle_answer(&mut self, endpoint: &EndpointKey, passed: Option<bool>, now: Instant) {
        // Late answers of endpoints that are gone are normal.
        let Some(target) = self.targets.get_mut(endpoint).filter(|target| target.is_running) else {
            return;
        };
        target.is_running = false;
        self.timers.set(endpoint.clone(), now + interval(&target.probe.checks));
        let Some(passed) = passed else { return };
        if passed != target.is_unfit {
            target.against = 0;
            return;
        }
        target.against += 1;
        if target.against >= if target.is_unfit { PASSES } else { FAILS } {
            target.is_unfit = !target.is_unfit;
            target.against = 0;
        }
    }

    fn tell(&mut self) {
        let unfit = self.targets.iter().filter(|(_, target)| target.is_unfit);
        let count = unfit.clone().count();
        if count == self.told.len() && unfit.clone().all(|(key, _)| self.told.contains(key)) {
            return;
        }
        self.told = Arc::new(unfit.map(|(key, _)| key.clone()).collect());
        self.actions.push_back(Action::Tell(Arc::clone(&self.told)));
    }
}

fn interval(checks: &ActiveChecks) -> Duration {
    Duration::from_millis(checks.interval_ms.max(1).into())
}

impl Machine for Prober {
    type Fact = Fact;
    type Action = Action;

    fn handle(&mut self, fact: Fact, now: Instant) {
        match fact {
            Fact::Answer { endpoint, passed } => self.handle_answer(&endpoint, passed, now),
            Fact::Table(table) => self.take(&table, now),
        }
        self.tell();
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(key) = self.timers.pop_due(now) {
            if let Some(target) = self.targets.get_mut(&key) {
                target.is_running = true;
                self.actions.push_back(Action::Probe(target.probe.clone()));
            }
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let (_, at) = self.timers.next()?;
        Some(Deadline { at, why: "probe due" })
    }

    fn check_invariants(&self) {
        for (key, target) in &self.targets {
            debug_assert_eq!(self.timers.get(key).is_none(), target.is_running, "{key:?}");
        }
    }
}

#[cfg(test)]
mod tests;
