//! Time as a value. Nothing here reads a clock: every `now` is an argument, so a test writes it and a
//! simulation replays it.

use alloc::collections::BTreeMap;
use core::fmt;
use core::ops::{Add, Sub};
pub use core::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment on the process's own monotonic clock: the time since it started.
///
/// Prints as seconds with milliseconds, e.g. `12.345s`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

impl Instant {
    /// The start of the process.
    pub const START: Instant = Instant(Duration::ZERO);

    /// The moment `since_start` after the start of the process.
    pub const fn at(since_start: Duration) -> Self {
        Instant(since_start)
    }

    /// The moment `ms` milliseconds after the start of the process.
    pub const fn from_millis(ms: u64) -> Self {
        Instant(Duration::from_millis(ms))
    }

    /// Time since the start of the process.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// Time from `earlier` to this moment; zero if `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Serialize for Instant {
    /// As whole nanoseconds since the start of the process: a recording is replayed at exactly the same moments.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let nanos = u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX); // 584 years
        serializer.serialize_u64(nanos)
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Instant(Duration::from_nanos(u64::deserialize(deserializer)?)))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, more: Duration) -> Instant {
        Instant(self.0.saturating_add(more))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, less: Duration) -> Instant {
        Instant(self.0.saturating_sub(less))
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0.as_secs(), self.0.subsec_millis())
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// When a machine wants to be woken, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The moment to call `handle_timeout`.
    pub at: Instant,
    /// What is due then, for traces and logs.
    pub why: &'static str,
}

impl Deadline {
    /// The earlier of two deadlines; the first where they are equal.
    pub fn earliest(a: Option<Deadline>, b: Option<Deadline>) -> Option<Deadline> {
        match (a, b) {
            (Some(a), Some(b)) => Some(if b.at < a.at { b } else { a }),
            (a, b) => a.or(b),
        }
    }
}

/// One timer per key. Setting a key again replaces its timer, so none is ever cancelled by handle.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(serialize = "K: Serialize + Ord", deserialize = "K: Deserialize<'de> + Ord"))]
pub struct Timers<K> {
    #[serde(with = "crate::state::pairs")]
    due: BTreeMap<K, Instant>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Timers { due: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// No timer set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets or moves the timer of `key`.
    pub fn set(&mut self, key: K, at: Instant) {
        self.due.insert(key, at);
    }

    /// Sets the timer of `key` unless it is set already for an earlier moment.
    pub fn set_at_latest(&mut self, key: K, at: Instant) {
        let due = self.due.entry(key).or_insert(at);
        *due = (*due).min(at);
    }

    /// Clears the timer of `key`; nothing happens if it is not set.
    pub fn clear(&mut self, key: &K) {
        self.due.remove(key);
    }

    /// When `key` is due, if it is set.
    pub fn get(&self, key: &K) -> Option<Instant> {
        self.due.get(key).copied()
    }

    /// The earliest timer; of equal ones the smallest key.
    pub fn next(&self) -> Option<(K, Instant)> {
        let (key, at) = self.due.iter().min_by_key(|(key, at)| (**at, *key))?;
        Some((key.clone(), *at))
    }

    /// Removes and returns the earliest timer that is due at `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (key, at) = self.next()?;
        if at > now {
            return None;
        }
        self.due.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_prints_as_seconds() {
        assert_eq!(alloc::format!("{}", Instant::from_millis(12_345)), "12.345s");
    }

    #[test]
    fn timers_fire_in_order_of_time_then_key() {
        let mut timers = Timers::new();
        timers.set("b", Instant::from_millis(5));
        timers.set("a", Instant::from_millis(5));
        timers.set("c", Instant::from_millis(1));
        let now = Instant::from_millis(5);
        let fired: alloc::vec::Vec<_> = core::iter::from_fn(|| timers.pop_due(now)).collect();
        assert_eq!(fired, ["c", "a", "b"]);
    }

    #[test]
    fn a_timer_that_is_set_again_moves() {
        let mut timers = Timers::new();
        timers.set("a", Instant::from_millis(5));
        timers.set("a", Instant::from_millis(9));
        assert_eq!(timers.pop_due(Instant::from_millis(6)), None);
        timers.set_at_latest("a", Instant::from_millis(20));
        assert_eq!(timers.get(&"a"), Some(Instant::from_millis(9)));
    }
}
