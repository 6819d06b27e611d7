//! The proxy's side: keeps a connection to some controller, takes its tables, serves the last good one for ever.
//!
//! A line that cannot be read, a revision out of order or a digest that does not come out right changes nothing: the
//! proxy serves on and asks another time. A spec that this version cannot serve is refused by itself; its service goes
//! on with what it had.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::FEATURES;
use super::entry::{Digest, Entries, Entry};
use super::message::{Ack, Delta, Full, Message, Refusal};
use super::model::Snapshot;
use super::publisher::{full, line};
use crate::id::{ProxyId, Revision, ServiceId};
use crate::machine::Machine;
use crate::rng::Rng;
use crate::settings::proxy::ProxySettings;
use crate::time::{Deadline, Duration, Instant, Timers};

/// A controller that says nothing for so long is taken for dead: four signs of life.
pub const SILENCE_MAX: Duration = Duration::from_secs(12);
/// The first wait before connecting again; doubles up to [`RETRY_MAX`].
pub const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest wait before connecting again.
pub const RETRY_MAX: Duration = Duration::from_secs(5);
/// A changed table is stored this long after it came, so that a burst is stored once.
pub const STORE_AFTER: Duration = Duration::from_millis(300);

/// Between two notes in the file that a controller confirmed its table.
pub const CONFIRM_EVERY: Duration = Duration::from_secs(60);

/// What happens to a proxy's control connection.
#[derive(Debug)]
pub enum Fact {
    /// A controller answered the connection that was asked for.
    Connected,
    /// The connection failed or ended, for this reason.
    Disconnected(String),
    /// A line arrived.
    Line(String),
    /// The file of the last good table was read at start.
    Stored {
        /// Its content.
        text: String,
        /// Since a controller confirmed it last.
        age: Duration,
    },
}

/// What the shell is to do.
#[derive(Debug)]
pub enum Action {
    /// Send this answer to the controller of the present connection.
    Ack(Ack),
    /// Connect to one of the controllers: of the addresses, sorted, the one at `pick` modulo their number. The table
    /// of `digest` is here already.
    Connect {
        /// Which of the controllers.
        pick: u64,
        /// What need not be sent again.
        digest: Option<Digest>,
    },
    /// A controller says that the stored table is the present one.
    Confirmed,
    /// Close the present connection; its end is not reported back.
    Disconnect,
    /// A controller introduced itself.
    Greeted {
        /// Its name.
        controller: String,
        /// Its version.
        version: String,
    },
    /// Serve this.
    Install(Install),
    /// Something that an operator should know.
    Notice(String),
    /// Write this text to the file of the last good table, by atomic rename.
    Store(String),
}

/// A table to serve.
#[derive(Clone, Debug)]
pub struct Install {
    /// All of it.
    pub snapshot: Arc<Snapshot>,
    /// The services whose specs changed since the last one; `None` = take everything for new.
    pub changed: Option<BTreeSet<ServiceId>>,
    /// Its number.
    pub revision: Revision,
    /// What led to it.
    pub cause: String,
    /// Its digest.
    pub digest: Digest,
    /// For a table from the file: since a controller confirmed it last. `None`: a controller sent it.
    pub stored: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Connect,
    Silence,
    Store,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Connected,
    Connecting,
    Waiting,
}

/// Keeps a proxy's table.
#[derive(Debug)]
pub struct Subscriber {
    proxy: ProxyId,
    rng: Rng,
    link: Link,
    failures: u32,
    /// Whether entries are a whole table: from a controller or from the file.
    has_table: bool,
    /// Whether deltas continue what is here: false until this connection brought a full table or confirmed ours.
    in_step: bool,
    /// When the file was noted to be confirmed.
    confirmed_at: Instant,
    entries: Entries,
    refused: BTreeMap<ServiceId, Refusal>,
    snapshot: Arc<Snapshot>,
    revision: Revision,
    cause: String,
    timers: Timers<Timer>,
    actions: VecDeque<Action>,
}

impl Subscriber {
    /// A proxy without a table; connects at the first timeout.
    pub fn new(proxy: ProxyId, rng: Rng, now: Instant) -> Self {
        let mut timers = Timers::new();
        timers.set(Timer::Connect, now);
        Subscriber {
            proxy,
            rng,
            link: Link::Waiting,
            failures: 0,
            has_table: false,
            in_step: false,
            confirmed_at: now,
            entries: Entries::default(),
            refused: BTreeMap::new(),
            snapshot: Arc::default(),
            revision: Revision(0),
            cause: String::new(),
            timers,
            actions: VecDeque::new(),
        }
    }

    /// Whether there is a table to serve.
    pub fn has_table(&self) -> bool {
        self.has_table
    }

    /// Whether a controller is heard.
    pub fn is_connected(&self) -> bool {
        self.link == Link::Connected
    }

    /// Whether a controller is heard, and the table is its present one.
    pub fn is_current(&self) -> bool {
        self.is_connected() && self.in_step
    }

    /// The revision that is served, and its digest.
    pub fn revision(&self) -> (Revision, Digest) {
        (self.revision, self.entries.digest())
    }

    /// Specs that this version cannot serve.
    pub fn refused(&self) -> impl Iterator<Item = &Refusal> {
        self.refused.values()
    }

    fn handle_stored(&mut self, text: &str, age: Duration) {
        if self.has_table {
            return; // a controller was quicker
        }
        match serde_json::from_str::<Message>(text) {
            Ok(Message::Full(stored)) => {
                if let Err(reason) = self.apply_full(stored, Some(age)) {
                    self.notice(format!("the stored table is passed over: {reason}"));
                }
            }
            Ok(_) | Err(_) => self.notice("the stored table is passed over: not a table".to_string()),
        }
    }

    fn handle_line(&mut self, text: &str, now: Instant) {
        if self.link != Link::Connected {
            return; // of a connection that was closed meanwhile
        }
        self.timers.set(Timer::Silence, now + SILENCE_MAX);
        let outcome = match serde_json::from_str::<Message>(text) {
            Ok(Message::Hello(hello)) => {
                self.actions.push_back(Action::Greeted {
                    controller: hello.controller,
                    version: hello.version,
                });
                return; // a greeting is no table: `failures` stay, so that a controller that ends here is no loop
            }
            Ok(Message::Full(table)) => self.apply_full(table, None).map(|()| true),
            Ok(Message::Delta(delta)) => self.apply_delta(delta).map(|()| true),
            Ok(Message::Ping(ping)) => {
                if self.has_table && ping.digest == self.entries.digest() {
                    let confirmed = !self.in_step;
                    self.in_step = true;
                    self.revision = ping.revision;
                    if confirmed || now.since(self.confirmed_at) >= CONFIRM_EVERY {
                        self.confirmed_at = now;
                        self.actions.push_back(Action::Confirmed);
                    }
                    Ok(confirmed)
                        .inspect(|confirmed| {
                            if *confirmed {
                                self.push_ack();
                            }
                        })
                        .map(|_| false)
                } else {
                    Err(format!("the controller's table {} is not the one here", ping.digest))
                }
            }
            // A kind of a newer controller: an object with one unknown key. Anything else is damage.
            Err(error) if is_unknown_kind(text) => {
                self.notice(format!("a message of a newer controller is passed over: {error}"));
                Ok(false)
            }
            Err(error) => Err(format!("a line cannot be read: {error}")),
        };
        match outcome {
            Ok(changed) => {
                self.failures = 0;
                if changed {
                    self.timers.set_at_latest(Timer::Store, now + STORE_AFTER);
                    self.push_ack();
                }
            }
            Err(reason) => {
                self.notice(format!("{reason}; the last good table is served and asked for again"));
                self.in_step = false;
                self.actions.push_back(Action::Disconnect);
                self.retry_later(now);
            }
        }
    }

    /// Takes a whole table. An error changes nothing.
    fn apply_full(&mut self, table: Full, stored: Option<Duration>) -> Result<(), String> {
        let mut entries = Entries::default();
        let settings: ProxySettings =
            serde_json::from_str(table.settings.get()).map_err(|error| format!("settings cannot be read: {error}"))?;
        entries.set_settings(settings, table.settings);
        for raw in table.routes {
            entries
                .insert(Entry::from_raw(raw, FEATURES).map_err(|error| format!("a spec names no service: {error}"))?);
        }
        if entries.digest() != table.digest {
            return Err(format!(
                "its digest is {} and was to be {}",
                entries.digest(),
                table.digest
            ));
        }
        let mut routes = BTreeMap::new();
        let mut refused = BTreeMap::new();
        for (service, entry) in entries.get() {
            match &entry.spec {
                Ok(spec) => {
                    routes.insert(service.clone(), spec.clone());
                }
                Err(reason) => {
                    refused.insert(service.clone(), refusal(entry, reason));
                    if let Some(before) = self.snapshot.routes.get(service) {
                        routes.insert(service.clone(), before.clone());
                    }
                }
            }
        }
        let changed = self.has_table.then(|| differing(&self.snapshot.routes, &routes));
        self.snapshot = Arc::new(Snapshot {
            settings: entries.settings().clone(),
            routes,
        });
        self.entries = entries;
        self.refused = refused;
        self.took(table.revision, table.cause, changed, stored);
        Ok(())
    }

    /// Takes a change. An error changes nothing.
    fn apply_delta(&mut self, delta: Delta) -> Result<(), String> {
        if !self.in_step || delta.revision.0 != self.revision.0 + 1 {
            return Err(format!("{} does not follow {}", delta.revision, self.revision));
        }
        let mut entries = self.entries.clone();
        let mut changed = delta.removed.clone();
        if let Some(raw) = delta.settings {
            let settings =
                serde_json::from_str(raw.get()).map_err(|error| format!("settings cannot be read: {error}"))?;
            entries.set_settings(settings, raw);
        }
        for service in &delta.removed {
            entries.remove(service);
        }
        for raw in delta.changed {
            let entry = Entry::from_raw(raw, FEATURES).map_err(|error| format!("a spec names no service: {error}"))?;
            changed.insert(entry.service.clone());
            entries.insert(entry);
        }
        if entries.digest() != delta.digest {
            return Err(format!(
                "after {} the digest is {} and was to be {}",
                delta.revision,
                entries.digest(),
                delta.digest
            ));
        }
        let mut snapshot = (*self.snapshot).clone();
        snapshot.settings = entries.settings().clone();
        for service in &changed {
            self.refused.remove(service);
            match entries.get().get(service).map(|entry| (entry, &entry.spec)) {
                None => {
                    snapshot.routes.remove(service);
                }
                Some((_, Ok(spec))) => {
                    snapshot.routes.insert(service.clone(), spec.clone());
                }
                Some((entry, Err(reason))) => {
                    self.refused.insert(service.clone(), refusal(entry, reason));
                }
            }
        }
        self.snapshot = Arc::new(snapshot);
        self.entries = entries;
        self.took(delta.revision, delta.cause, Some(changed), None);
        Ok(())
    }

    fn took(
        &mut self,
        revision: Revision,
        cause: String,
        changed: Option<BTreeSet<ServiceId>>,
        stored: Option<Duration>,
    ) {
        self.has_table = true;
        self.in_step = true;
        self.revision = revision;
        self.cause.clone_from(&cause);
        let notices: Vec<String> = self
            .refused
            .values()
            .map(|refusal| format!("service {} refused: {}", refusal.service, refusal.reason))
            .collect();
        notices.into_iter().for_each(|notice| self.notice(notice));
        let digest = self.entries.digest();
        self.actions.push_back(Action::Install(Install {
            snapshot: self.snapshot.clone(),
            changed,
            revision,
            cause,
            digest,
            stored,
        }));
    }

    fn push_ack(&mut self) {
        self.actions.push_back(Action::Ack(Ack {
            proxy: self.proxy.clone(),
            revision: self.revision,
            digest: self.entries.digest(),
            refused: self.refused.values().cloned().collect(),
        }));
    }

    fn notice(&mut self, text: String) {
        self.actions.push_back(Action::Notice(text));
    }

    fn retry_later(&mut self, now: Instant) {
        self.link = Link::Waiting;
        self.timers.clear(&Timer::Silence);
        let longest = RETRY_MIN.saturating_mul(1 << self.failures.min(10)).min(RETRY_MAX);
        let jitter = self
            .rng
            .between(longest.as_millis() as u64 / 2, longest.as_millis() as u64);
        self.timers.set(Timer::Connect, now + Duration::from_millis(jitter));
        self.failures += 1;
    }
}

impl Machine for Subscriber {
    type Fact = Fact;
    type Action = Action;

    fn handle(&mut self, fact: Fact, now: Instant) {
        match fact {
            Fact::Stored { text, age } => self.handle_stored(&text, age),
            Fact::Connected if self.link == Link::Connecting => {
                self.link = Link::Connected;
                self.in_step = false;
                self.timers.set(Timer::Silence, now + SILENCE_MAX);
            }
            Fact::Connected => self.actions.push_back(Action::Disconnect),
            Fact::Disconnected(reason) => {
                if self.link != Link::Waiting {
                    if self.link == Link::Connected || self.failures == 0 {
                        self.notice(format!(
                            "no controller is heard: {reason}; the last good table is served"
                        ));
                    }
                    self.retry_later(now);
                }
            }
            Fact::Line(text) => self.handle_line(&text, now),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Connect => {
                    self.link = Link::Connecting;
                    let digest = self.has_table.then(|| self.entries.digest());
                    let pick = self.rng.next_u64();
                    self.actions.push_back(Action::Connect { pick, digest });
                }
                Timer::Silence => {
                    self.notice(format!("the controller is silent for {} s", SILENCE_MAX.as_secs()));
                    self.actions.push_back(Action::Disconnect);
                    self.retry_later(now);
                }
                Timer::Store => {
                    let table = full(&self.entries, self.revision, &self.cause);
                    self.actions
                        .push_back(Action::Store(line(&Message::Full(table)).to_string()));
                }
            }
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let (timer, at) = self.timers.next()?;
        let why = match timer {
            Timer::Connect => "connect to a controller",
            Timer::Silence => "the controller is silent",
            Timer::Store => "store the table",
        };
        Some(Deadline { at, why })
    }

    fn check_invariants(&self) {
        assert!(
            self.entries.get().len() > 1000 || self.entries.digest_is_true(),
            "the digest is that of the content"
        );
        assert!(
            self.has_table || self.snapshot.routes.is_empty(),
            "routes come from tables alone"
        );
        assert_eq!(
            self.link == Link::Connected,
            self.timers.get(&Timer::Silence).is_some(),
            "silence is watched exactly while connected"
        );
    }
}

fn refusal(entry: &Entry, reason: &str) -> Refusal {
    let service = if entry.name.is_empty() {
        entry.service.to_string()
    } else {
        entry.name.clone()
    };
    Refusal {
        service,
        reason: reason.to_string(),
    }
}

fn differing<V: PartialEq>(a: &BTreeMap<ServiceId, V>, b: &BTreeMap<ServiceId, V>) -> BTreeSet<ServiceId> {
    let changed_or_gone = a
        .iter()
        .filter(|(id, value)| b.get(*id) != Some(*value))
        .map(|(id, _)| id.clone());
    let new = b.keys().filter(|id| !a.contains_key(*id)).cloned();
    changed_or_gone.chain(new).collect()
}

fn is_unknown_kind(text: &str) -> bool {
    let known = ["delta", "full", "hello", "ping"];
    serde_json::from_str::<BTreeMap<String, serde::de::IgnoredAny>>(text)
        .is_ok_and(|object| object.len() == 1 && object.keys().all(|kind| !known.contains(&kind.as_str())))
}

#[cfg(test)]
#[path = "subscriber/tests.rs"]
mod tests;
