//! Decoded chunks kept for later reads: a chunk that is at hand takes neither a request nor a decoder.
//!
//! In: chunks that were decoded whole, each named by the version of its stored object, the way it was decoded, and its
//! number in the object. Out: the same bytes, shared. Bounded in bytes, names included; the least recently used go first.
//! One read puts in half of what the cache holds at most, so that a scan leaves the other half to what is read again and
//! again, and finds a part of itself when it is repeated.
//!
//! The lock is held while the chunks of one visit are looked up, or one is put in; never while bytes are copied, decoded
//! or given back.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::codec::{PreparedArray, Verify};
use crate::index::cache::ByteCache;

/// Names one version of a stored object; another version has another name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StoredVersion {
    /// A file, by what its file system says of it.
    File {
        /// Number of the file system.
        device: u64,
        /// Number of the file there.
        inode: u64,
        /// Bytes of the file.
        nbytes: u64,
        /// Time of the last change, from any fixed start.
        modified_ns: i128,
    },
    /// An object of a store that shows strong ETags.
    Tagged {
        /// Names the store.
        store: Arc<str>,
        /// Key of the object.
        key: Arc<str>,
        /// The ETag.
        etag: Arc<str>,
    },
    /// An object of any other store: what was learnt of it at one moment is a version of its own, trusted for as long as
    /// the rest of what was learnt then.
    Learnt {
        /// Names the store.
        store: Arc<str>,
        /// Key of the object.
        key: Arc<str>,
        /// The moment, as the bits of a number of seconds.
        since_s: u64,
    },
}

/// One version of a stored object, decoded in one way.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Decoded {
    stored: StoredVersion,
    /// [`PreparedArray::chunk_hash`] of the array that decodes it.
    chunk_hash: u64,
    /// What was decoded without a look at its checksums is for those who want none.
    verify: Verify,
}

/// A chunk by its number in an object.
type Key = (Arc<Decoded>, u64);
type Chunks = ByteCache<Key, Arc<[u8]>>;

impl Decoded {
    /// Bytes of a chunk and its name: each may be the only one of its object. The counts of an `Arc` stand before its value.
    fn chunk_nbytes(&self, elements_nbytes: usize) -> u64 {
        let names = match &self.stored {
            StoredVersion::File { .. } => 0,
            StoredVersion::Tagged { store, key, etag } => store.len() + key.len() + etag.len(),
            StoredVersion::Learnt { store, key, .. } => store.len() + key.len(),
        };
        (elements_nbytes + size_of::<Self>() + names + 4 * size_of::<usize>()) as u64
    }
}

/// Decoded chunks of any number of arrays, for any number of threads.
pub struct ChunkCache {
    limit_nbytes: u64,
    chunks: Mutex<Chunks>,
}

impl ChunkCache {
    /// A cache that keeps at most `limit_nbytes` bytes; with 0 it is off.
    #[must_use]
    pub fn new(limit_nbytes: u64) -> Self {
        Self { limit_nbytes, chunks: Mutex::new(ByteCache::new(limit_nbytes)) }
    }

    /// Whether anything is kept at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.limit_nbytes > 0
    }

    /// Whether a chunk of `nbytes` bytes is ever kept.
    #[must_use]
    pub fn takes(&self, nbytes: usize) -> bool {
        self.is_on() && nbytes as u64 <= self.limit_nbytes / 2
    }

    /// Bytes kept now.
    #[must_use]
    pub fn nbytes(&self) -> u64 {
        self.lock().nbytes()
    }

    /// Forgets all chunks.
    pub fn clear(&self) {
        let chunks = std::mem::replace(&mut *self.lock(), ByteCache::new(self.limit_nbytes));
        drop(chunks);
    }

    /// The cache as one read uses it; None when it is off.
    #[must_use]
    pub fn for_read(self: &Arc<Self>) -> Option<ReadCache> {
        self.is_on().then(|| {
            let left = Arc::new(AtomicU64::new(self.limit_nbytes / 2));
            ReadCache { cache: Arc::clone(self), left }
        })
    }

    fn lock(&self) -> MutexGuard<'_, Chunks> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ChunkCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkCache").field("limit_nbytes", &self.limit_nbytes).finish_non_exhaustive()
    }
}

/// The cache as one read uses it. Clones are of the same read.
#[derive(Debug, Clone)]
pub struct ReadCache {
    cache: Arc<ChunkCache>,
    /// Bytes that this read may still put in.
    left: Arc<AtomicU64>,
}

impl ReadCache {
    /// How many chunks of `nbytes` bytes may still be put in, names not counted.
    #[must_use]
    pub fn room(&self, nbytes: usize) -> u64 {
        self.left.load(Ordering::Relaxed) / (nbytes as u64 + Chunks::ENTRY_NBYTES)
    }

    /// The cache as a visit to one object uses it, which holds the chunks in cell `cell` of the grid of objects. None for
    /// an array whose chunks cannot be kept.
    #[must_use]
    pub fn of_object(
        &self,
        stored: StoredVersion,
        array: &PreparedArray,
        verify: Verify,
        cell: &[u64],
    ) -> Option<ObjectCache> {
        let object = || Arc::new(Decoded { stored, chunk_hash: array.chunk_hash(cell), verify });
        let first = array.first_chunk(cell);
        array.has_lasting_chunks().then(|| ObjectCache { read: self.clone(), object: object(), first })
    }
}

/// The decoded chunks of one version of an object.
#[derive(Debug, Clone)]
pub struct ObjectCache {
    read: ReadCache,
    object: Arc<Decoded>,
    /// Number in the object of the first chunk of the visit.
    first: u64,
}

impl ObjectCache {
    /// For each chunk, by its number in the object, its elements in native byte order if they are at hand.
    pub fn look_up(&self, chunks: impl Iterator<Item = u64>) -> Vec<Option<Arc<[u8]>>> {
        let mut kept = self.read.cache.lock();
        chunks.map(|chunk| kept.get(&(Arc::clone(&self.object), self.first + chunk)).cloned()).collect()
    }

    /// How many chunks of `nbytes` bytes the read may still put in.
    #[must_use]
    pub fn room(&self, nbytes: usize) -> u64 {
        self.read.left.load(Ordering::Relaxed) / self.cost(nbytes)
    }

    /// Takes `count` chunks of `nbytes` bytes off what the read may still put in; false when that is less.
    pub fn admit(&self, count: usize, nbytes: usize) -> bool {
        let taken = |left: u64| left.checked_sub(self.cost(nbytes).saturating_mul(count as u64));
        self.read.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    /// Puts a whole chunk in.
    pub(crate) fn insert(&self, chunk: u64, elements: Arc<[u8]>) {
        let nbytes = self.object.chunk_nbytes(elements.len());
        let outdated = self.read.cache.lock().insert((Arc::clone(&self.object), self.first + chunk), elements, nbytes);
        // Giving memory back may be a call of the system: not under the lock.
        drop(outdated);
    }

    fn cost(&self, nbytes: usize) -> u64 {
        self.object.chunk_nbytes(nbytes) + Chunks::ENTRY_NBYTES
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{ChunkCache, ObjectCache, ReadCache, StoredVersion};
    use crate::codec::{PreparedArray, Verify};
    use crate::metadata::zarr::parse_v3;

    const CHUNK: usize = 1000;

    fn array(dtype: &str, codecs: &str) -> PreparedArray {
        let document = format!(
            r#"{{"zarr_format": 3, "node_type": "array", "shape": [1000, 1000], "data_type": "{dtype}", "fill_value": 0,
                "chunk_grid": {{"name": "regular", "configuration": {{"chunk_shape": [10, 100]}}}},
                "chunk_key_encoding": "default", "codecs": ["bytes"{codecs}]}}"#
        );
        PreparedArray::new(parse_v3(document.as_bytes()).unwrap()).unwrap()
    }

    fn file(inode: u64) -> StoredVersion {
        StoredVersion::File { device: 1, inode, nbytes: 5, modified_ns: 7 }
    }

    fn object(read: &ReadCache, stored: StoredVersion) -> ObjectCache {
        read.of_object(stored, &array("uint8", ""), Verify::Full, &[0, 0]).unwrap()
    }

    fn put(object: &ObjectCache, chunk: u64) -> bool {
        let admitted = object.admit(1, CHUNK);
        if admitted {
            object.insert(chunk, vec![chunk as u8; CHUNK].into());
        }
        admitted
    }

    fn has(object: &ObjectCache, chunk: u64) -> bool {
        let found = object.look_up([chunk].into_iter()).remove(0);
        assert!(found.iter().all(|elements| elements[..] == vec![chunk as u8; CHUNK]));
        found.is_some()
    }

    #[test]
    fn the_limit_holds_and_one_read_takes_half() {
        let cache = Arc::new(ChunkCache::new(1 << 20));
        assert!(put(&object(&cache.for_read().unwrap(), file(1)), 0));
        let cost = cache.nbytes();
        assert!((CHUNK as u64 + 100..CHUNK as u64 + 400).contains(&cost), "{cost}");
        let limit = 10 * cost + 1;
        let cache = Arc::new(ChunkCache::new(limit));
        let often = object(&cache.for_read().unwrap(), file(1));
        assert_eq!(often.room(CHUNK), 5);
        assert!(put(&often, 0) && put(&often, 1));
        assert_eq!((often.room(CHUNK), cache.nbytes()), (3, 2 * cost));
        assert!(!often.admit(4, CHUNK) && often.admit(3, CHUNK) && !put(&often, 2));
        let scan = object(&cache.for_read().unwrap(), file(2));
        assert_eq!((0..100).filter(|&chunk| put(&scan, chunk)).count(), 5);
        assert!(has(&often, 0) && has(&often, 1), "a scan leaves them");
        assert!((0..5).all(|chunk| has(&scan, chunk)) && !has(&scan, 5));
        for number in 0..20 {
            let other = object(&cache.for_read().unwrap(), file(3));
            assert!(put(&other, number) && has(&often, 1));
            assert!(cache.nbytes() <= limit);
        }
        assert!(!has(&often, 0), "least recently used");
        assert_eq!(cache.nbytes(), 10 * cost);
        cache.clear();
        assert!(cache.nbytes() == 0 && !has(&often, 1));
        assert!(Arc::new(ChunkCache::new(0)).for_read().is_none());
    }

    #[test]
    fn names_keep_apart_what_differs() {
        let cache = Arc::new(ChunkCache::new(1 << 20));
        let read = cache.for_read().unwrap();
        let name = |part: &str| -> Arc<str> { part.into() };
        let tagged = |key, etag| StoredVersion::Tagged { store: name("s"), key: name(key), etag: name(etag) };
        let learnt = |since_s| StoredVersion::Learnt { store: name("s"), key: name("k"), since_s };
        let plain = array("uint8", "");
        let mut objects: Vec<ObjectCache> = [file(1), file(2), tagged("k", "1"), tagged("k", "2"), tagged("l", "1")]
            .into_iter()
            .chain([learnt(1), learnt(2)])
            .map(|stored| read.of_object(stored, &plain, Verify::Full, &[0, 0]).unwrap())
            .collect();
        objects.push(read.of_object(file(1), &plain, Verify::Cheap, &[0, 0]).unwrap());
        objects.push(read.of_object(file(1), &array("int8", ""), Verify::Full, &[0, 0]).unwrap());
        objects.push(read.of_object(file(1), &array("uint8", r#", "crc32c""#), Verify::Full, &[0, 0]).unwrap());
        for (number, object) in objects.iter().enumerate() {
            assert!(!has(object, 3), "{number}");
            assert!(put(object, 3) && has(object, 3));
        }
        assert!(
            has(&read.of_object(file(1), &array("uint8", ""), Verify::Full, &[0, 0]).unwrap(), 3),
            "equal by value"
        );
    }
}
