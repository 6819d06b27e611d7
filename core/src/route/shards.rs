//! A map by host name whose copy costs a few hundred pointers, however large it is: tables are immutable, and a delta
//! copies what it changes.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A power of two. At 10,000 hosts a changed shard is 40 entries.
const SHARDS: usize = 256;

/// Sorted maps by the hash of their key's text. Keys come from operators; clients only look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shards<V> {
    shards: Vec<Arc<BTreeMap<Arc<str>, V>>>,
    len: usize,
}

impl<V: Clone> Default for Shards<V> {
    fn default() -> Self {
        Shards {
            shards: alloc::vec![Arc::new(BTreeMap::new()); SHARDS],
            len: 0,
        }
    }
}

impl<V: Clone> Shards<V> {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn get(&self, key: &str) -> Option<&V> {
        self.shards[shard_of(key)].get(key)
    }

    pub(crate) fn insert(&mut self, key: &str, value: V) {
        let shard = Arc::make_mut(&mut self.shards[shard_of(key)]);
        match shard.get_mut(key) {
            Some(old) => *old = value,
            None => {
                shard.insert(Arc::from(key), value);
                self.len += 1;
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &str) {
        let shard = &mut self.shards[shard_of(key)];
        if shard.contains_key(key) {
            Arc::make_mut(shard).remove(key);
            self.len -= 1;
        }
    }

    /// All entries, in the order of shards; sort before showing.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.shards
            .iter()
            .flat_map(|shard| shard.iter())
            .map(|(key, value)| (&**key, value))
    }
}

/// FNV-1a, cut to the number of shards.
fn shard_of(key: &str) -> usize {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // The upper half is mixed in, because FNV's low bits are its weakest.
    ((hash ^ (hash >> 32)) as usize) & (SHARDS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_a_copy_leaves_the_original() {
        let mut first = Shards::default();
        first.insert("a", 1);
        first.insert("b", 2);
        let mut second = first.clone();
        second.insert("a", 3);
        second.remove("b");
        second.remove("never");
        assert_eq!((first.get("a"), first.get("b")), (Some(&1), Some(&2)));
        assert_eq!((second.get("a"), second.get("b")), (Some(&3), None));
        assert_eq!(second.iter().collect::<Vec<_>>(), [("a", &3)]);
        second.remove("a");
        assert!(second.is_empty() && !first.is_empty());
    }
}
