//! The content of a revision, entry by entry, and its digest.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::id::ServiceId;
use crate::route::spec::RouteSpec;
use crate::settings::proxy::ProxySettings;

/// The digest of a revision: the sum, modulo 2^256, of the SHA-256 of each entry and of the settings. Independent of
/// the order in which entries came and went, so adding and removing one entry costs one hash.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest([u64; 4]);

impl Digest {
    fn of(text: &str) -> Digest {
        let hash = Sha256::digest(text.as_bytes());
        let mut limbs = [0; 4];
        for (limb, bytes) in limbs.iter_mut().zip(hash.chunks_exact(8)) {
            *limb = bytes.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        }
        Digest(limbs)
    }

    fn add(&mut self, other: Digest) {
        let mut carry = 0;
        for (limb, more) in self.0.iter_mut().zip(other.0) {
            let sum = u128::from(*limb) + u128::from(more) + carry;
            *limb = sum as u64;
            carry = sum >> 64;
        }
    }

    fn subtract(&mut self, other: Digest) {
        let mut borrow = false;
        for (limb, less) in self.0.iter_mut().zip(other.0) {
            let (once, first) = limb.overflowing_sub(less);
            let (twice, second) = once.overflowing_sub(borrow.into());
            *limb = twice;
            borrow = first || second;
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().rev().try_for_each(|limb| write!(f, "{limb:016x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::str::FromStr for Digest {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut limbs = [0; 4];
        if text.len() != 64 || !text.is_ascii() {
            return Err("a digest has 64 hexadecimal digits");
        }
        for (index, limb) in limbs.iter_mut().rev().enumerate() {
            let digits = &text[index * 16..(index + 1) * 16];
            *limb = u64::from_str_radix(digits, 16).map_err(|_| "a digest has 64 hexadecimal digits")?;
        }
        Ok(Digest(limbs))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// One service's spec: as text, as it was sent, and as it is understood here.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The service.
    pub service: ServiceId,
    /// Its name.
    pub name: String,
    /// The JSON text, byte for byte as the controller wrote it.
    pub raw: Arc<RawValue>,
    /// What it says, or why this version cannot serve it.
    pub spec: Result<Arc<RouteSpec>, String>,
    digest: Digest,
}

impl Entry {
    /// The entry of a spec made here.
    pub fn from_spec(spec: Arc<RouteSpec>) -> Entry {
        let raw = raw_of(&*spec);
        Entry {
            digest: Digest::of(raw.get()),
            raw: raw.into(),
            service: spec.service.clone(),
            name: spec.name.clone(),
            spec: Ok(spec),
        }
    }

    /// The entry of a text that this controller wrote once.
    ///
    /// # Errors
    /// Where it is no spec.
    fn from_own(raw: Box<RawValue>) -> Result<Entry, serde_json::Error> {
        let spec: RouteSpec = serde_json::from_str(raw.get())?;
        Ok(Entry {
            digest: Digest::of(raw.get()),
            raw: raw.into(),
            service: spec.service.clone(),
            name: spec.name.clone(),
            spec: Ok(Arc::new(spec)),
        })
    }

    /// The entry of a text that was received; `features` are those that this version serves.
    ///
    /// # Errors
    /// What is wrong with the text, if it does not even name its service.
    pub fn from_raw(raw: Box<RawValue>, features: &[&str]) -> Result<Entry, serde_json::Error> {
        #[derive(Deserialize)]
        struct Head {
            service: ServiceId,
            #[serde(default)]
            name: String,
            #[serde(default)]
            requires: BTreeSet<String>,
        }
        let head: Head = serde_json::from_str(raw.get())?;
        let missing: Vec<&str> = head
            .requires
            .iter()
            .map(String::as_str)
            .filter(|feature| !features.contains(feature))
            .collect();
        let spec = if missing.is_empty() {
            serde_json::from_str::<RouteSpec>(raw.get())
                .map(Arc::new)
                .map_err(|error| error.to_string())
        } else {
            Err(format!(
                "requires {}, which this proxy does not know; update the proxies",
                missing.join(", ")
            ))
        };
        Ok(Entry {
            service: head.service,
            name: head.name,
            digest: Digest::of(raw.get()),
            raw: raw.into(),
            spec,
        })
    }
}

/// All entries of a service cluster and its settings, with their digest kept up to date.
#[derive(Clone, Debug)]
pub struct Entries {
    settings: ProxySettings,
    settings_raw: Arc<RawValue>,
    settings_digest: Digest,
    entries: BTreeMap<ServiceId, Entry>,
    digest: Digest,
}

/// Entries of a controller in a checkpoint: their texts, byte for byte, so that digests stay.
#[derive(Serialize, Deserialize)]
struct Texts {
    settings: Box<RawValue>,
    routes: Vec<Box<RawValue>>,
}

impl Serialize for Entries {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let texts = Texts {
            settings: self.settings_raw(),
            routes: self.entries.values().map(|entry| (*entry.raw).to_owned()).collect(),
        };
        texts.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let texts = Texts::deserialize(deserializer)?;
        let mut entries = Entries::default();
        let settings = serde_json::from_str(texts.settings.get()).map_err(D::Error::custom)?;
        entries.set_settings(settings, texts.settings);
        for raw in texts.routes {
            entries.insert(Entry::from_own(raw).map_err(D::Error::custom)?);
        }
        Ok(entries)
    }
}

impl Default for Entries {
    fn default() -> Self {
        let settings = ProxySettings::default();
        let raw = raw_of(&settings);
        let digest = Digest::of(raw.get());
        Entries {
            settings,
            settings_raw: raw.into(),
            settings_digest: digest,
            entries: BTreeMap::new(),
            digest,
        }
    }
}

impl Entries {
    /// The digest of everything held.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The entries by service.
    pub fn get(&self) -> &BTreeMap<ServiceId, Entry> {
        &self.entries
    }

    /// The settings.
    pub fn settings(&self) -> &ProxySettings {
        &self.settings
    }

    /// The settings as they were sent.
    pub fn settings_raw(&self) -> Box<RawValue> {
        (*self.settings_raw).to_owned()
    }

    /// Takes settings; `raw` is their text as it was sent.
    pub fn set_settings(&mut self, settings: ProxySettings, raw: Box<RawValue>) {
        self.digest.subtract(self.settings_digest);
        self.settings_digest = Digest::of(raw.get());
        self.digest.add(self.settings_digest);
        self.settings_raw = raw.into();
        self.settings = settings;
    }

    /// Takes or replaces one entry.
    pub fn insert(&mut self, entry: Entry) {
        self.remove(&entry.service);
        self.digest.add(entry.digest);
        self.entries.insert(entry.service.clone(), entry);
    }

    /// Drops one entry; whether it was there.
    pub fn remove(&mut self, service: &ServiceId) -> bool {
        let Some(old) = self.entries.remove(service) else {
            return false;
        };
        self.digest.subtract(old.digest);
        true
    }

    /// Whether the kept digest is that of the content; for checks.
    pub fn digest_is_true(&self) -> bool {
        let mut digest = self.settings_digest;
        self.entries.values().for_each(|entry| digest.add(entry.digest));
        digest == self.digest
    }
}

/// The text of a value as JSON.
pub(super) fn raw_of<T: Serialize>(value: &T) -> Box<RawValue> {
    serde_json::value::to_raw_value(value)
        .unwrap_or_else(|_| RawValue::from_string("null".to_string()).expect("null is JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::publisher::tests::spec;

    #[test]
    fn the_digest_forgets_the_order_of_changes() {
        let (mut a, mut b) = (Entries::default(), Entries::default());
        for name in ["x", "y", "z"] {
            a.insert(Entry::from_spec(spec(name, 1)));
        }
        a.remove(&ServiceId::from("y"));
        b.insert(Entry::from_spec(spec("z", 1)));
        b.insert(Entry::from_spec(spec("x", 2)));
        assert_ne!(a.digest(), b.digest());
        b.insert(Entry::from_spec(spec("x", 1)));
        assert_eq!(a.digest(), b.digest());
        assert!(a.digest_is_true());
    }

    #[test]
    fn a_digest_is_read_as_it_was_printed() {
        let digest = Digest::of("x");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!("12".parse::<Digest>().is_err());
        assert!("zz".repeat(32).parse::<Digest>().is_err());
    }

    #[test]
    fn what_a_newer_controller_says_of_failures_changes_nothing_for_an_older_proxy_and_the_other_way_round() {
        let mut spec = (*spec("x", 1)).clone();
        spec.checks.max_fails = Some(3);
        let old = serde_json::to_value(&spec).unwrap();
        spec.checks.fail_rate_percent = Some(30);
        spec.checks.fail_on.insert(503);
        spec.limits.eject_max_percent = Some(20);
        let new = Entry::from_spec(Arc::new(spec.clone()));
        assert!(
            spec.requires.is_empty(),
            "an older proxy serves on and leaves out what it does not know"
        );
        let read = Entry::from_raw(raw_of(&old), &[]).unwrap().spec.unwrap();
        assert_eq!(
            read.checks,
            crate::route::spec::PassiveChecks {
                max_fails: Some(3),
                ..Default::default()
            }
        );
        let again = Entry::from_raw((*new.raw).to_owned(), &[]).unwrap();
        assert_eq!((again.digest, &*again.spec.unwrap()), (new.digest, &spec));
    }

    #[test]
    fn fields_of_a_newer_controller_survive_in_the_text() {
        let mut json: serde_json::Value = serde_json::to_value(&*spec("x", 1)).unwrap();
        json["from_the_future"] = true.into();
        let entry = Entry::from_raw(raw_of(&json), &[]).unwrap();
        assert!(entry.raw.get().contains("from_the_future"));
        assert_eq!(entry.digest, Digest::of(entry.raw.get()));
    }
}
