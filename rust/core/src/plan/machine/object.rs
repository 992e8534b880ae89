//! Stored objects that reads are busy with: what is known of each, who waits for it, which bytes are wanted.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::{Flight, RemoteArray};
use crate::codec::BlockTable;
use crate::error::{Error, Result};
use crate::index::ShardIndex;
use crate::metadata::TableVersion;
use crate::plan::shard::{IndexSource, StoredChunk};
use crate::subset::ByteRange;

/// Size that is assumed of an object whose store does not tell it.
pub(super) const UNKNOWN_NBYTES: u64 = i64::MAX as u64;

/// Names an object: its store, the layout its shards are read with, its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub store: Arc<str>,
    pub layout: u64,
    pub key: Arc<str>,
}

/// What a reply says of the version of the object that its bytes belong to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Version {
    /// Strong ETag, with its quotes.
    pub etag: Option<Arc<str>>,
    /// Last-Modified.
    pub modified: Option<Arc<str>>,
    /// Bytes of the object.
    pub total: Option<u64>,
}

impl Version {
    /// Whether two replies can be of the same version: strong ETags decide, else whatever both of them say.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        fn agree<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> bool {
            a.zip(b).is_none_or(|(a, b)| a == b)
        }
        let total = agree(self.total.as_ref(), other.total.as_ref());
        match (&self.etag, &other.etag) {
            (Some(a), Some(b)) => a == b && total,
            _ => total && agree(self.modified.as_ref(), other.modified.as_ref()),
        }
    }
}

/// An object as far as it is known.
#[derive(Debug, Clone)]
pub(super) enum Known {
    Absent {
        asked_s: f64,
    },
    Present {
        /// When it was asked for: a change after that may not be in it.
        asked_s: f64,
        /// When it was learnt, which tells versions without an ETag apart.
        since_s: f64,
        version: Version,
        /// Indexes by nesting level and the bytes of their shard.
        indexes: HashMap<(usize, ByteRange), Result<Arc<ShardIndex>>>,
        /// Of an object that is one chunk, where its blocks lie; None when they cannot be fetched alone.
        blocks: Option<Arc<BlockTable>>,
    },
}

impl Known {
    /// What a table tells of the object that it is of, before any reply.
    pub fn pinned(array: &RemoteArray, now_s: f64) -> Option<Self> {
        let Some(TableVersion::Object { etag, modified, total }) = array.meta.table()?.version() else { return None };
        let version = Version { etag: etag.clone(), modified: modified.clone(), total: *total };
        let (indexes, blocks) = (HashMap::new(), None);
        Some(Self::Present { asked_s: now_s, since_s: now_s, version, indexes, blocks })
    }

    /// Whether it is known to have this many bytes.
    pub fn is_of_nbytes(&self, nbytes: usize) -> bool {
        matches!(self, Self::Present { version, .. } if version.total == Some(nbytes as u64))
    }

    pub fn asked_s(&self) -> f64 {
        match self {
            Self::Absent { asked_s } | Self::Present { asked_s, .. } => *asked_s,
        }
    }

    /// Bytes of memory; None for what is not worth keeping.
    pub fn memory_nbytes(&self) -> Option<u64> {
        match self {
            Self::Absent { .. } => Some(0),
            Self::Present { indexes, blocks, .. } => {
                let indexes = indexes.values().map(|index| index.as_ref().ok().map(|index| index.memory_nbytes() + 64));
                let blocks = blocks.as_ref().map_or(0, |table| table.memory_nbytes());
                indexes.sum::<Option<u64>>().map(|nbytes| nbytes + blocks)
            }
        }
    }
}

/// A chunk that a visit waits for.
#[derive(Debug, Clone)]
pub(super) struct Want {
    pub visit: u64,
    /// Pass of the visit that asked.
    pub pass: u32,
    pub chunk: StoredChunk,
}

/// An object that visits are busy with.
#[derive(Debug)]
pub(super) struct Object {
    pub name: Name,
    pub array: Arc<RemoteArray>,
    /// Grid coordinates; of an object that holds chunks from anywhere those of one of them.
    pub cell: Vec<u64>,
    pub known: Option<Known>,
    /// Nothing was asked for before this moment.
    pub asked_s: f64,
    /// Raised when the object turns out to be another one; replies to older requests are dropped.
    pub epoch: u32,
    pub visits: BTreeSet<u64>,
    /// Of these, those that wait for an index, or for the whole object.
    pub waiting: BTreeSet<u64>,
    /// Whether the index of the object itself, or all of it, is being fetched.
    pub asked: bool,
    /// Indexes further in that are being fetched.
    pub asked_inner: Vec<(usize, ByteRange)>,
    pub pending: Vec<Want>,
    /// Whether it turned out too large to be fetched whole on suspicion.
    pub is_large: bool,
    /// Requests of its chunks that are not sent yet.
    pub cut: VecDeque<Flight>,
    /// Whether it stands in the queue of objects with pending chunks.
    pub queued: bool,
}

impl Object {
    pub fn new(name: Name, array: Arc<RemoteArray>, cell: Vec<u64>, known: Option<Known>, asked_s: f64) -> Self {
        Self {
            name,
            array,
            cell,
            known,
            asked_s,
            epoch: 0,
            visits: BTreeSet::new(),
            waiting: BTreeSet::new(),
            asked: false,
            asked_inner: Vec::new(),
            pending: Vec::new(),
            is_large: false,
            cut: VecDeque::new(),
            queued: false,
        }
    }

    /// What the first reply tells, which came just now.
    pub fn first(&self, version: Version, now_s: f64) -> Known {
        let (indexes, blocks) = (HashMap::new(), None);
        Known::Present { asked_s: self.asked_s, since_s: now_s, version, indexes, blocks }
    }

    /// That there is no such object.
    pub fn absent(&self) -> Known {
        Known::Absent { asked_s: self.asked_s }
    }

    pub fn is_present(&self) -> bool {
        matches!(self.known, Some(Known::Present { .. }))
    }

    /// Forgets what was asked for; replies to it are dropped.
    pub fn start_over(&mut self, known: Option<Known>) {
        self.known = known;
        self.epoch += 1;
        self.asked = false;
        self.asked_inner.clear();
        self.pending.clear();
        self.cut.clear();
        self.waiting.clear();
    }
}

/// The indexes of an object for one resolution, with what they would have cost.
pub(super) struct Indexes<'a> {
    pub known: &'a HashMap<(usize, ByteRange), Result<Arc<ShardIndex>>>,
    pub array: &'a RemoteArray,
    pub cell: &'a [u64],
    pub object_nbytes: u64,
    /// Bytes of the indexes that were used, as stored.
    pub nbytes: u64,
    pub hits: u64,
}

impl IndexSource for Indexes<'_> {
    fn index(&mut self, level: usize, shard: ByteRange) -> Result<Option<Arc<ShardIndex>>> {
        let spec = self.array.meta.level_in(level, self.cell);
        let spec = spec.ok_or_else(|| Error::internal("an index level the array lacks"))?;
        match self.known.get(&(level, shard)) {
            None => Ok(spec.index.known(self.object_nbytes).map(Arc::new)),
            Some(Err(error)) => Err(error.clone()),
            Some(Ok(index)) => {
                self.hits += 1;
                self.nbytes += spec.index.nbytes();
                Ok(Some(Arc::clone(index)))
            }
        }
    }
}
