//! The controller's side: what couriers brought, and which proxy gets what of it.
//!
//! Invariant: a proxy is given the secrets that routes of its own service cluster name, and no other. What was brought last
//! is kept as long as a route names it, also when the courier goes; a name that no route uses is forgotten once no connected
//! courier has it. Contents pass through and are never looked at.

#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use super::message::{Delivery, Parcel};
use super::{SecretProblem, SecretText};
use crate::id::{ClusterName, ProxyId};
use crate::recording::Hide;
use crate::snapshot::Connection;

/// A line for one proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deliver {
    /// To whom.
    pub to: Connection,
    /// What.
    pub delivery: Delivery,
}

/// The state of the courier, for `tidegate status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CourierStatus {
    /// Tasks that are connected.
    pub connected: Vec<String>,
    /// Every secret that a route names: `here`, or what is wrong.
    pub secrets: BTreeMap<String, String>,
}

/// What each service cluster's routes name, of the clusters whose secrets come by courier.
pub type Wanted = BTreeMap<ClusterName, BTreeSet<String>>;

type Present = (Option<SecretText>, Option<SecretProblem>);

#[derive(Clone, Debug)]
struct Listener {
    cluster: ClusterName,
    proxy: ProxyId,
    names: Option<BTreeSet<String>>,
    told: BTreeMap<String, Present>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Courier {
    task: String,
    has: BTreeSet<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    /// None until the Swarm was seen whole.
    wanted: Option<Wanted>,
    /// The secrets that Docker has and that a label may use.
    existing: BTreeSet<String>,
    brought: BTreeMap<String, Present>,
    couriers: BTreeMap<Connection, Courier>,
    listeners: BTreeMap<Connection, Listener>,
    actions: VecDeque<Deliver>,
}

/// A ledger in a checkpoint, without contents.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LedgerState {
    wanted: Option<Wanted>,
    existing: BTreeSet<String>,
    #[serde(with = "crate::recording::parcels")]
    brought: Vec<Parcel>,
    couriers: BTreeMap<Connection, Courier>,
    listeners: BTreeMap<Connection, (ClusterName, ProxyId)>,
}

impl Ledger {
    /// A copy for a checkpoint, in which every content is hidden.
    pub(crate) fn hidden(&self, hide: &Hide) -> LedgerState {
        let parcel = |(name, (content, problem)): (&String, &Present)| Parcel {
            name: name.clone(),
            content: content.as_ref().map(|content| hide.content(content)),
            problem: problem.clone(),
        };
        let listener = |(connection, listener): (&Connection, &Listener)| {
            (*connection, (listener.cluster.clone(), listener.proxy.clone()))
        };
        LedgerState {
            wanted: self.wanted.clone(),
            existing: self.existing.clone(),
            brought: self.brought.iter().map(parcel).collect(),
            couriers: self.couriers.clone(),
            listeners: self.listeners.iter().map(listener).collect(),
        }
    }

    /// The ledger of a checkpoint. Who listens knows what there is: nothing is ever left untold between two facts.
    pub(crate) fn from_state(state: LedgerState) -> Ledger {
        let present = |parcel: Parcel| (parcel.name, (parcel.content, parcel.problem));
        let mut ledger = Ledger {
            wanted: state.wanted,
            existing: state.existing,
            brought: state.brought.into_iter().map(present).collect(),
            couriers: state.couriers,
            ..Ledger::default()
        };
        for (connection, (cluster, proxy)) in state.listeners {
            ledger.handle_listener(connection, cluster, proxy);
        }
        ledger.actions.clear();
        ledger
    }

    /// Takes what routes name, and the secrets that Docker has and that a label may use.
    pub fn look(&mut self, wanted: Wanted, existing: BTreeSet<String>) {
        if self.wanted.as_ref() == Some(&wanted) && self.existing == existing {
            return;
        }
        self.wanted = Some(wanted);
        self.existing = existing;
        self.forget();
        self.tell_all();
    }

    /// A courier connected.
    pub fn handle_courier(&mut self, connection: Connection, task: &str) {
        let has = BTreeSet::new();
        let task = task.to_string();
        self.couriers.insert(connection, Courier { task, has });
    }

    /// A courier brought secrets, or says why it cannot. Unknown couriers are ignored.
    pub fn handle_parcels(&mut self, connection: Connection, parcels: Vec<Parcel>) {
        let Some(courier) = self.couriers.get_mut(&connection) else {
            return;
        };
        for parcel in parcels {
            courier.has.insert(parcel.name.clone());
            let entry = self.brought.entry(parcel.name).or_default();
            if parcel.content.is_some() {
                entry.0 = parcel.content;
            }
            entry.1 = parcel.problem;
        }
        self.tell_all();
    }

    /// A proxy asks for the secrets of its service cluster.
    pub fn handle_listener(&mut self, connection: Connection, cluster: ClusterName, proxy: ProxyId) {
        let listener = Listener {
            cluster,
            proxy,
            names: None,
            told: BTreeMap::new(),
        };
        self.listeners.insert(connection, listener);
        self.tell(connection);
    }

    /// A connection ended; unknown ones are ignored.
    pub fn handle_disconnected(&mut self, connection: Connection) {
        self.listeners.remove(&connection);
        if self.couriers.remove(&connection).is_some() {
            self.forget();
        }
    }

    /// The next line to send.
    pub fn poll_action(&mut self) -> Option<Deliver> {
        self.actions.pop_front()
    }

    /// The present state; `None` where no secret comes by courier.
    pub fn status(&self) -> Option<CourierStatus> {
        let names: BTreeSet<&String> = self.wanted.iter().flat_map(BTreeMap::values).flatten().collect();
        if names.is_empty() && self.couriers.is_empty() {
            return None;
        }
        let state = |name: &String| match self.present(name) {
            (Some(_), None) => String::from("here"),
            (Some(_), Some(problem)) => alloc::format!("an earlier one is used: {}", problem.finding(name)),
            (None, problem) => problem.unwrap_or(SecretProblem::Waiting).finding(name).to_string(),
        };
        Some(CourierStatus {
            connected: self.couriers.values().map(|courier| courier.task.clone()).collect(),
            secrets: names.into_iter().map(|name| (name.clone(), state(name))).collect(),
        })
    }

    /// Proxies that listen, by name, for checks.
    pub fn listeners(&self) -> impl Iterator<Item = (&ProxyId, &ClusterName)> {
        self.listeners
            .values()
            .map(|listener| (&listener.proxy, &listener.cluster))
    }

    /// For checks: nobody was told of a secret that its service cluster does not use.
    pub fn check_invariants(&self) {
        for listener in self.listeners.values() {
            let names = self.wanted.as_ref().and_then(|wanted| wanted.get(&listener.cluster));
            for name in listener.told.keys() {
                assert!(
                    names.is_some_and(|names| names.contains(name)),
                    "{} of {} knows {name}",
                    listener.proxy,
                    listener.cluster
                );
            }
        }
    }

    fn present(&self, name: &str) -> Present {
        let (content, problem) = self.brought.get(name).cloned().unwrap_or_default();
        let problem = if !self.existing.contains(name) {
            Some(SecretProblem::Missing)
        } else if problem.is_some() {
            problem
        } else {
            content.is_none().then_some(SecretProblem::Waiting)
        };
        (content, problem)
    }

    fn forget(&mut self) {
        // Before the Swarm was seen nobody knows what is of use.
        let Some(wanted) = &self.wanted else { return };
        let couriers = &self.couriers;
        self.brought.retain(|name, _| {
            wanted.values().any(|names| names.contains(name))
                || couriers.values().any(|courier| courier.has.contains(name))
        });
    }

    fn tell_all(&mut self) {
        let connections: Vec<Connection> = self.listeners.keys().copied().collect();
        for connection in connections {
            self.tell(connection);
        }
    }

    /// Tells a proxy what it does not know yet, in one line.
    fn tell(&mut self, connection: Connection) {
        let Some(listener) = self.listeners.get(&connection) else {
            return;
        };
        let wanted = self.wanted.as_ref().and_then(|wanted| wanted.get(&listener.cluster));
        let Some(names) = wanted else { return };
        let mut delivery = Delivery::default();
        let mut told = BTreeMap::new();
        for name in names {
            let present = self.present(name);
            if listener.told.get(name) != Some(&present) {
                let (content, problem) = present.clone();
                delivery.secrets.push(Parcel {
                    name: name.clone(),
                    content,
                    problem,
                });
            }
            told.insert(name.clone(), present);
        }
        if listener.names.as_ref() != Some(names) {
            delivery.names = Some(names.clone());
        }
        let (names, is_news) = (names.clone(), delivery != Delivery::default());
        if let Some(listener) = self.listeners.get_mut(&connection) {
            listener.told = told;
            listener.names = Some(names);
        }
        if is_news {
            self.actions.push_back(Deliver {
                to: connection,
                delivery,
            });
        }
    }
}
