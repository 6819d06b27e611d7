//! The controller's side of one service cluster: numbers its tables, sends each proxy a full one and then deltas, and
//! knows who serves what.
//!
//! Publishes nothing before the first [`Publisher::publish`]: a controller that has not yet seen the Swarm must not
//! tell proxies that it is empty.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use super::awaited::{Awaited, Served};
use super::entry::{Digest, Entries, Entry, raw_of};
use super::message::{Ack, Delta, Full, Hello, Message, Ping, Refusal};
use crate::id::{ProxyId, Revision, ServiceId};
use crate::route::spec::RouteSpec;
use crate::secrets::Finding;
use crate::secrets::message::Report;
use crate::settings::proxy::ProxySettings;
use crate::time::{Deadline, Duration, Instant};

/// How often a quiet connection carries a sign of life.
pub const PING_EVERY: Duration = Duration::from_secs(3);

/// One proxy's connection, numbered by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Connection(pub u64);

/// A line for one connection. Lines of a connection are sent in order.
#[derive(Clone, Debug)]
pub struct Send {
    /// To whom.
    pub to: Connection,
    /// A JSON object and a newline.
    pub line: Arc<str>,
}

/// What one connected proxy serves, for `status` and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// The proxy.
    pub proxy: ProxyId,
    /// The revision it acknowledged last.
    pub acked: Option<Revision>,
    /// Whether it serves exactly what is published now.
    pub current: bool,
    /// Specs that it could not serve.
    pub refused: Vec<Refusal>,
    /// Milliseconds that its last acknowledgement took from publication.
    pub last_ack_ms: Option<u64>,
    /// What it finds wrong with certificates and other secrets.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub findings: BTreeSet<Finding>,
}

/// What an acknowledgement says that was not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The proxy's first answer to the present revision.
    pub is_present: bool,
    /// Revisions that it serves since then, and that were published while it was connected: what it missed before that is
    /// not late.
    pub served: Vec<Served>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Peer {
    proxy: ProxyId,
    /// The newest revision that is not waited for any more: that of its connection, or of its last answer.
    #[serde(default)]
    counted: Revision,
    acked: Option<(Revision, Digest)>,
    refused: Vec<Refusal>,
    last_ack_ms: Option<u64>,
    findings: BTreeSet<Finding>,
}

/// Publishes one service cluster's tables.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Publisher {
    #[serde(skip)]
    hello: Arc<str>,
    entries: Entries,
    revision: Revision,
    cause: String,
    awaited: Awaited,
    next_ping: Instant,
    peers: BTreeMap<Connection, Peer>,
    #[serde(skip)]
    actions: VecDeque<Send>,
}

impl Default for Publisher {
    fn default() -> Self {
        Publisher::new("", "")
    }
}

impl Publisher {
    /// A publisher that has published nothing yet.
    pub fn new(controller: &str, version: &str) -> Self {
        let hello = Hello {
            controller: controller.to_string(),
            version: version.to_string(),
        };
        Publisher {
            hello: line(&Message::Hello(hello)),
            entries: Entries::default(),
            revision: Revision(0),
            cause: String::new(),
            awaited: Awaited::default(),
            next_ping: Instant::START,
            peers: BTreeMap::new(),
            actions: VecDeque::new(),
        }
    }

    /// What `earlier` published and knew, for the same controller: a checkpoint has not its greeting.
    pub(crate) fn resume(&mut self, earlier: Publisher) {
        let hello = core::mem::replace(&mut self.hello, Arc::from(""));
        *self = Publisher { hello, ..earlier };
    }

    /// Publishes changes as one revision: new or changed specs, and `None` for services that are routed no more.
    /// Nothing is sent if nothing differs; the first call always publishes.
    pub fn publish(
        &mut self,
        changes: BTreeMap<ServiceId, Option<Arc<RouteSpec>>>,
        settings: &ProxySettings,
        cause: &str,
        now: Instant,
    ) {
        self.publish_decided(changes, &BTreeMap::new(), settings, cause, now);
    }

    /// [`Publisher::publish`] of changes that Docker decided at these moments, since 1970 by its clock. The first revision
    /// is what was there before anybody looked, so its times say nothing.
    pub fn publish_decided(
        &mut self,
        changes: BTreeMap<ServiceId, Option<Arc<RouteSpec>>>,
        decided_at: &BTreeMap<ServiceId, Duration>,
        settings: &ProxySettings,
        cause: &str,
        now: Instant,
    ) {
        let mut decided = Vec::new();
        let mut delta = Delta {
            revision: Revision(self.revision.0 + 1),
            cause: cause.to_string(),
            digest: Digest::default(),
            settings: None,
            changed: Vec::new(),
            removed: BTreeSet::new(),
        };
        for (service, spec) in changes {
            let decided_at = decided_at.get(&service).copied();
            match spec {
                Some(spec) => {
                    let entry = Entry::from_spec(spec);
                    let known = self.entries.get().get(&service);
                    if known.is_none_or(|known| known.raw.get() != entry.raw.get()) {
                        delta.changed.push((*entry.raw).to_owned());
                        self.entries.insert(entry);
                        decided.extend(decided_at);
                    }
                }
                None => {
                    if self.entries.remove(&service) {
                        delta.removed.insert(service);
                        decided.extend(decided_at);
                    }
                }
            }
        }
        if settings != self.entries.settings() {
            let raw = raw_of(settings);
            self.entries.set_settings(settings.clone(), raw.clone());
            delta.settings = Some(raw);
        }
        let first = self.revision == Revision(0);
        if !first && delta.changed.is_empty() && delta.removed.is_empty() && delta.settings.is_none() {
            return;
        }
        delta.digest = self.entries.digest();
        self.revision = delta.revision;
        self.cause = delta.cause.clone();
        if first {
            decided.clear();
        }
        if !self.peers.is_empty() {
            self.awaited.published(self.revision, delta.digest, decided, now);
        }
        let line = if first {
            self.full()
        } else {
            line(&Message::Delta(delta))
        };
        let peers: Vec<Connection> = self.peers.keys().copied().collect();
        self.send_all(&peers, &line, now);
    }

    /// A proxy connected and has the table of `digest`, if any.
    pub fn handle_connected(&mut self, connection: Connection, proxy: ProxyId, digest: Option<Digest>, now: Instant) {
        self.peers.insert(
            connection,
            Peer {
                proxy,
                counted: self.revision,
                acked: None,
                refused: Vec::new(),
                last_ack_ms: None,
                findings: BTreeSet::new(),
            },
        );
        self.actions.push_back(Send {
            to: connection,
            line: self.hello.clone(),
        });
        if self.revision == Revision(0) {
            return;
        }
        let line = if digest == Some(self.entries.digest()) {
            self.ping()
        } else {
            self.full()
        };
        self.send_all(&[connection], &line, now);
    }

    /// A proxy's connection ended; unknown ones are ignored.
    pub fn handle_disconnected(&mut self, connection: Connection) {
        self.peers.remove(&connection);
        self.forget_answered();
    }

    /// A proxy acknowledged. Answers from proxies that are not connected are ignored.
    pub fn handle_ack(&mut self, ack: Ack, now: Instant) -> Taken {
        let present = (self.revision, self.entries.digest());
        let answer = (ack.revision, ack.digest);
        let mut taken = Taken::default();
        // A connection that is about to end beside a new one: what was published between them came late for neither.
        let counted = |peer: &&Peer| peer.proxy == ack.proxy;
        if let Some(counted) = self.peers.values().filter(counted).map(|peer| peer.counted).max() {
            taken.served = self.awaited.served(counted, ack.revision, ack.digest, now);
        }
        let took = taken.served.last().map(|served| served.took.as_millis() as u64);
        for peer in self.peers.values_mut().filter(|peer| peer.proxy == ack.proxy) {
            if peer.acked.is_some_and(|(newer, _)| newer > ack.revision) {
                continue; // overtaken by the answer to a later one
            }
            taken.is_present |= answer == present && peer.acked != Some(present);
            if answer == present && took.is_some() {
                peer.last_ack_ms = took;
            }
            if took.is_some() {
                peer.counted = peer.counted.max(ack.revision);
            }
            peer.acked = Some(answer);
            peer.refused.clone_from(&ack.refused);
        }
        self.forget_answered();
        taken
    }

    /// A proxy says what is wrong with its secrets. Reports of proxies that are not connected are ignored.
    pub fn handle_report(&mut self, report: Report) {
        for peer in self.peers.values_mut().filter(|peer| peer.proxy == report.proxy) {
            peer.findings.clone_from(&report.findings);
        }
    }

    /// What connected proxies find wrong with their secrets.
    pub fn findings(&self) -> BTreeSet<&Finding> {
        self.peers.values().flat_map(|peer| &peer.findings).collect()
    }

    /// The next line to send.
    pub fn poll_action(&mut self) -> Option<Send> {
        self.actions.pop_front()
    }

    /// When the next sign of life is due.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        (!self.peers.is_empty()).then_some(Deadline {
            at: self.next_ping,
            why: "sign of life to proxies",
        })
    }

    /// Sends a sign of life to every proxy when it is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.peers.is_empty() || now < self.next_ping {
            return;
        }
        self.next_ping = now + PING_EVERY;
        if self.revision == Revision(0) {
            return;
        }
        let line = self.ping();
        let peers: Vec<Connection> = self.peers.keys().copied().collect();
        self.send_all(&peers, &line, now);
    }

    /// The present revision; 0 before the first.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The digest of what is published.
    pub fn digest(&self) -> Digest {
        self.entries.digest()
    }

    /// What is published.
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// What led to the present revision.
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// The connected proxies.
    pub fn proxies(&self) -> Vec<ProxyStatus> {
        let present = (self.revision, self.entries.digest());
        self.peers
            .values()
            .map(|peer| ProxyStatus {
                proxy: peer.proxy.clone(),
                acked: peer.acked.map(|(revision, _)| revision),
                current: peer.acked.is_some_and(|(_, digest)| digest == present.1),
                refused: peer.refused.clone(),
                last_ack_ms: peer.last_ack_ms,
                findings: peer.findings.clone(),
            })
            .collect()
    }

    fn forget_answered(&mut self) {
        let counted = self.peers.values().map(|peer| peer.counted).min();
        self.awaited.forget(counted);
    }

    fn send_all(&mut self, peers: &[Connection], line: &Arc<str>, now: Instant) {
        self.actions.extend(peers.iter().map(|to| Send {
            to: *to,
            line: line.clone(),
        }));
        self.next_ping = now + PING_EVERY;
    }

    fn ping(&self) -> Arc<str> {
        line(&Message::Ping(Ping {
            revision: self.revision,
            digest: self.entries.digest(),
        }))
    }

    fn full(&self) -> Arc<str> {
        line(&Message::Full(full(&self.entries, self.revision, &self.cause)))
    }
}

/// All entries as one message; also what a proxy stores.
pub(super) fn full(entries: &Entries, revision: Revision, cause: &str) -> Full {
    Full {
        revision,
        cause: cause.to_string(),
        digest: entries.digest(),
        settings: entries.settings_raw(),
        routes: entries.get().values().map(|entry| (*entry.raw).to_owned()).collect(),
    }
}

pub(super) fn line(message: &Message) -> Arc<str> {
    let mut text = serde_json::to_string(message).unwrap_or_default();
    text.push('\n');
    Arc::from(text)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::route::spec::{EndpointSpec, HostPattern};
    use core::net::SocketAddr;

    pub(in crate::snapshot) fn spec(name: &str, port: u16) -> Arc<RouteSpec> {
        Arc::new(RouteSpec {
            hosts: alloc::vec![HostPattern::from_normalised(alloc::format!("{name}.example.org"))],
            endpoints: alloc::vec![EndpointSpec {
                id: "t1".into(),
                addr: SocketAddr::from(([10, 0, 0, 1], port)),
                via: None,
                node: None,
                leaving: None,
                unsure: false,
            }],
            ..RouteSpec::new(ServiceId::from(name), name, "2026-01-01T00:00:00Z")
        })
    }

    pub(in crate::snapshot) fn change(specs: &[(&str, Option<u16>)]) -> BTreeMap<ServiceId, Option<Arc<RouteSpec>>> {
        specs
            .iter()
            .map(|(name, port)| (ServiceId::from(*name), port.map(|port| spec(name, port))))
            .collect()
    }

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn sent(publisher: &mut Publisher) -> Vec<(u64, String)> {
        core::iter::from_fn(|| publisher.poll_action())
            .map(|send| {
                let value: serde_json::Value = serde_json::from_str(&send.line).unwrap();
                (send.to.0, value.as_object().unwrap().keys().next().unwrap().clone())
            })
            .collect()
    }

    #[test]
    fn nothing_is_published_before_the_swarm_was_seen() {
        let mut publisher = Publisher::new("c1", "0");
        publisher.handle_connected(Connection(1), "p".into(), None, at(0));
        assert_eq!(sent(&mut publisher), [(1, "hello".to_string())]);
        publisher.handle_timeout(at(10_000));
        assert_eq!(sent(&mut publisher), []);
        publisher.publish(BTreeMap::new(), &ProxySettings::default(), "start", at(10_001));
        assert_eq!(sent(&mut publisher), [(1, "full".to_string())]);
    }

    #[test]
    fn a_proxy_gets_a_full_table_once_and_deltas_after_that() {
        let mut publisher = Publisher::new("c1", "0");
        let settings = ProxySettings::default();
        publisher.publish(change(&[("a", Some(1))]), &settings, "start", at(0));
        publisher.handle_connected(Connection(1), "p".into(), None, at(1));
        publisher.publish(change(&[("a", Some(2)), ("b", Some(1))]), &settings, "service a", at(2));
        publisher.publish(change(&[("a", Some(2)), ("c", None)]), &settings, "nothing new", at(3));
        let kinds: Vec<String> = sent(&mut publisher).into_iter().map(|(_, kind)| kind).collect();
        assert_eq!(kinds, ["hello", "full", "delta"]);
        assert_eq!(publisher.revision(), Revision(2));
    }

    #[test]
    fn a_proxy_that_has_the_table_already_is_not_sent_it_again() {
        let mut publisher = Publisher::new("c1", "0");
        publisher.publish(change(&[("a", Some(1))]), &ProxySettings::default(), "start", at(0));
        publisher.handle_connected(Connection(7), "p".into(), Some(publisher.digest()), at(1));
        assert_eq!(
            sent(&mut publisher),
            [(7, "hello".to_string()), (7, "ping".to_string())]
        );
    }

    #[test]
    fn acks_say_who_serves_what_and_how_long_it_took() {
        let mut publisher = Publisher::new("c1", "0");
        publisher.handle_connected(Connection(1), "p".into(), None, at(0));
        publisher.publish(change(&[("a", Some(1))]), &ProxySettings::default(), "start", at(100));
        assert!(!publisher.proxies()[0].current);
        let refused = alloc::vec![Refusal {
            service: "a".into(),
            reason: "too new".into()
        }];
        let ack = Ack {
            proxy: "p".into(),
            revision: Revision(1),
            digest: publisher.digest(),
            refused,
        };
        let taken = publisher.handle_ack(ack.clone(), at(130));
        let served = Served {
            took: Duration::from_millis(30),
            decided: Arc::from([]),
        };
        assert_eq!((taken.is_present, taken.served), (true, alloc::vec![served]));
        assert_eq!(publisher.handle_ack(ack.clone(), at(140)), Taken::default());
        let status = &publisher.proxies()[0];
        assert_eq!(
            (status.current, status.last_ack_ms, status.refused.len()),
            (true, Some(30), 1)
        );
        assert_eq!(
            publisher.handle_ack(
                Ack {
                    proxy: "stranger".into(),
                    ..ack
                },
                at(150)
            ),
            Taken::default()
        );
    }

    #[test]
    fn an_answer_that_was_overtaken_by_a_later_one_is_ignored() {
        let mut publisher = Publisher::new("c1", "0");
        let settings = ProxySettings::default();
        publisher.handle_connected(Connection(1), "p".into(), None, at(0));
        publisher.publish(change(&[("a", Some(1))]), &settings, "one", at(1));
        let first = publisher.digest();
        publisher.publish(change(&[("a", Some(2))]), &settings, "two", at(2));
        let ack = |revision, digest| Ack {
            proxy: "p".into(),
            revision: Revision(revision),
            digest,
            refused: Vec::new(),
        };
        publisher.handle_ack(ack(2, publisher.digest()), at(3));
        publisher.handle_ack(ack(1, first), at(4));
        assert!(publisher.proxies()[0].current);
    }

    #[test]
    fn quiet_connections_carry_signs_of_life() {
        let mut publisher = Publisher::new("c1", "0");
        assert_eq!(publisher.poll_timeout(), None);
        publisher.publish(change(&[]), &ProxySettings::default(), "start", at(0));
        publisher.handle_connected(Connection(1), "p".into(), None, at(0));
        sent(&mut publisher);
        let due = publisher.poll_timeout().unwrap().at;
        publisher.handle_timeout(due);
        assert_eq!(sent(&mut publisher), [(1, "ping".to_string())]);
        assert!(publisher.poll_timeout().unwrap().at > due);
    }
}
