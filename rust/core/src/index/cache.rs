//! Shard indexes kept for later reads, bounded in bytes, least recently used first out.
//!
//! A plain value without locks: its owner decides how it is shared. Keys name a version of an object (for a file: device,
//! inode, size and modification time; for an object store: key and ETag), so that a replaced object is another key.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use crate::index::ShardIndex;

/// Indexes by version of the shard they belong to.
#[derive(Debug)]
pub struct IndexCache<K> {
    limit_nbytes: u64,
    nbytes: u64,
    clock: u64,
    entries: HashMap<K, (Arc<ShardIndex>, u64)>,
    by_age: BTreeMap<u64, K>,
}

impl<K: Hash + Eq + Clone> IndexCache<K> {
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

    /// The index of `key`, if it is kept.
    pub fn get(&mut self, key: &K) -> Option<Arc<ShardIndex>> {
        let (index, age) = self.entries.get_mut(key)?;
        self.clock += 1;
        if let Some(owned) = self.by_age.remove(age) {
            self.by_age.insert(self.clock, owned);
        }
        *age = self.clock;
        Some(Arc::clone(index))
    }

    /// Keeps `index`, dropping the oldest while the limit is passed. An index larger than the limit is not kept.
    pub fn insert(&mut self, key: K, index: Arc<ShardIndex>) {
        let cost = Self::cost(&index);
        if cost > self.limit_nbytes {
            return;
        }
        self.clock += 1;
        if let Some((old, age)) = self.entries.insert(key.clone(), (index, self.clock)) {
            self.nbytes -= Self::cost(&old);
            self.by_age.remove(&age);
        }
        self.nbytes += cost;
        self.by_age.insert(self.clock, key);
        while self.nbytes > self.limit_nbytes {
            let Some((_, oldest)) = self.by_age.pop_first() else { break };
            if let Some((index, _)) = self.entries.remove(&oldest) {
                self.nbytes -= Self::cost(&index);
            }
        }
    }

    /// Table, key (twice) and map nodes.
    fn cost(index: &ShardIndex) -> u64 {
        index.memory_nbytes() + 2 * size_of::<K>() as u64 + 64
    }
}

#[cfg(test)]
mod tests {
    use super::IndexCache;
    use crate::index::ShardIndex;
    use crate::subset::ByteRange;
    use std::sync::Arc;

    fn index(entries: u64) -> Arc<ShardIndex> {
        let pairs = (0..entries).map(|i| (i * 10, 10)).collect();
        Arc::new(ShardIndex::from_pairs(pairs, &[entries], u64::MAX, ByteRange { start: 0, end: 0 }).unwrap())
    }

    #[test]
    fn the_oldest_goes_first_and_the_limit_holds() {
        let cost = IndexCache::<u32>::cost(&index(1000));
        let mut cache = IndexCache::new(3 * cost + 1);
        for key in 0..3u32 {
            cache.insert(key, index(1000));
        }
        assert!(cache.get(&0).is_some());
        cache.insert(3, index(1000));
        assert!(cache.get(&1).is_none(), "the least recently used one");
        assert!(cache.get(&0).is_some() && cache.get(&2).is_some() && cache.get(&3).is_some());
        cache.insert(3, index(1000));
        assert_eq!(cache.nbytes(), 3 * cost);
        cache.insert(9, index(1 << 20));
        assert!(cache.get(&9).is_none(), "larger than the limit");
        assert!(cache.nbytes() <= 3 * cost + 1);
    }
}
