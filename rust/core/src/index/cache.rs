//! Values kept for later, bounded in bytes, least recently used first out: the indexes of shards, and decoded chunks.
//!
//! A plain value without locks: its owner decides how it is shared. Keys name a version of an object (for a file: device,
//! inode, size and modification time), or the values say which version they belong to.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Values by key.
#[derive(Debug)]
pub struct ByteCache<K, V> {
    limit_nbytes: u64,
    nbytes: u64,
    clock: u64,
    entries: HashMap<K, Entry<V>>,
    by_age: BTreeMap<u64, K>,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    age: u64,
    nbytes: u64,
}

impl<K: Hash + Eq + Clone, V> ByteCache<K, V> {
    /// Bytes that keeping a value takes besides those that it is said to have: keys and map nodes.
    pub const ENTRY_NBYTES: u64 = (2 * size_of::<K>() + size_of::<Entry<V>>() + 64) as u64;

    /// A cache that keeps at most `limit_nbytes` bytes.
    #[must_use]
    pub fn new(limit_nbytes: u64) -> Self {
        Self { limit_nbytes, nbytes: 0, clock: 0, entries: HashMap::new(), by_age: BTreeMap::new() }
    }

    /// Bytes kept now.
    #[must_use]
    pub fn nbytes(&self) -> u64 {
        self.nbytes
    }

    /// The value of `key`, if it is kept.
    pub fn get(&mut self, key: &K) -> Option<&V> {
        let entry = self.entries.get_mut(key)?;
        if entry.age == self.clock {
            return Some(&entry.value); // the youngest already
        }
        self.clock += 1;
        if let Some(owned) = self.by_age.remove(&entry.age) {
            self.by_age.insert(self.clock, owned);
        }
        entry.age = self.clock;
        Some(&entry.value)
    }

    /// Takes the value of `key` out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.by_age.remove(&entry.age);
        self.nbytes -= entry.nbytes;
        Some(entry.value)
    }

    /// Keeps a value of `nbytes` bytes, taking the oldest out while the limit is passed; one larger than the limit is not
    /// kept. [`ByteCache::ENTRY_NBYTES`] are counted too. Returns what is not kept any more, to be dropped where no lock is held.
    pub fn insert(&mut self, key: K, value: V, nbytes: u64) -> Vec<V> {
        let mut outdated = Vec::from_iter(self.remove(&key));
        let nbytes = nbytes.saturating_add(Self::ENTRY_NBYTES);
        if nbytes > self.limit_nbytes {
            outdated.push(value);
            return outdated;
        }
        self.clock += 1;
        self.nbytes += nbytes;
        self.entries.insert(key.clone(), Entry { value, age: self.clock, nbytes });
        self.by_age.insert(self.clock, key);
        while self.nbytes > self.limit_nbytes {
            let Some((_, oldest)) = self.by_age.pop_first() else { break };
            if let Some(entry) = self.entries.remove(&oldest) {
                self.nbytes -= entry.nbytes;
                outdated.push(entry.value);
            }
        }
        outdated
    }
}

#[cfg(test)]
mod tests {
    use super::ByteCache;

    #[test]
    fn the_oldest_goes_first_and_the_limit_holds() {
        let mut alone = ByteCache::new(1 << 20);
        alone.insert(0u32, "", 1000);
        let cost = alone.nbytes();
        let mut cache = ByteCache::new(3 * cost + 1);
        for key in 0..3u32 {
            cache.insert(key, "", 1000);
        }
        assert!(cache.get(&0).is_some());
        assert_eq!(cache.insert(3, "", 1000), [""]);
        assert!(cache.get(&1).is_none(), "the least recently used one");
        assert!(cache.get(&0).is_some() && cache.get(&2).is_some() && cache.get(&3).is_some());
        cache.insert(3, "again", 1000);
        assert_eq!(cache.nbytes(), 3 * cost);
        assert_eq!(cache.insert(9, "too large", 1 << 20), ["too large"]);
        assert!(cache.get(&9).is_none(), "larger than the limit");
        assert_eq!(cache.remove(&3), Some("again"));
        assert_eq!(cache.nbytes(), 2 * cost);
    }
}
