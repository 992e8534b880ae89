//! One visit of a plan on disk: which file, which bytes of it, merged into which requests.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use voxfetch_core::chunk_cache::{ChunkCache, ObjectCache, ReadCache};
use voxfetch_core::codec::{Compression, PreparedArray, Verify};
use voxfetch_core::error::{Error, ErrorKind, Result};
use voxfetch_core::index::ShardIndex;
use voxfetch_core::index::cache::ByteCache;
use voxfetch_core::metadata::limits::max_encoded_nbytes;
use voxfetch_core::metadata::{ChunkTable, KeyEncoding};
use voxfetch_core::plan::coalesce::{Merge, Request, coalesce};
use voxfetch_core::plan::kept::Kept;
use voxfetch_core::plan::shard::{Extent, IndexSource, Resolved, StoredChunk, needed, resolve};
use voxfetch_core::plan::{Item, Plan, Visit};
use voxfetch_core::subset::ByteRange;

use crate::file::{self, FileId, Files, OpenFile};

/// An array in a folder and how it is read.
#[derive(Debug)]
pub struct LocalArray {
    /// What its documents say.
    pub meta: Arc<PreparedArray>,
    /// Its folder.
    pub root: PathBuf,
    /// File name of its metadata document in the folder.
    pub document: String,
    /// When ranges are merged.
    pub merge: Merge,
    /// Which checksums are computed.
    pub verify: Verify,
    /// Whether a chunk that is not stored is an error instead of the fill value.
    pub missing_is_error: bool,
    /// Whether open files are trusted without looking at their paths again.
    pub immutable: bool,
    /// The folder, without links in its path, out of which no link may lead; None where they are followed.
    pub inside: Option<PathBuf>,
}

impl LocalArray {
    /// Path of the stored object at these grid coordinates.
    #[must_use]
    pub fn path(&self, shard: &[u64]) -> PathBuf {
        self.root.join(self.meta.keys.key(shard))
    }

    /// Checks that a file that was opened may be read.
    fn check(&self, file: &OpenFile, path: &Path) -> Result<()> {
        self.inside.as_deref().map_or(Ok(()), |inside| file.check_inside(path, inside))
    }

    /// Checks that the metadata document is still there.
    ///
    /// # Errors
    /// `NotFound` when it is not, `PermissionDenied` or `Store` when that cannot be found out.
    pub fn check_is_there(&self) -> Result<()> {
        // The folder above need not be reached through one that was never made.
        let above = self.root.parent().filter(|_| self.document == "..");
        let document = above.map_or_else(|| self.root.join(&self.document), Path::to_path_buf);
        if file::exists(&document)? {
            return Ok(());
        }
        let what = "the array's metadata is gone; the folder was deleted, moved or unmounted since it was opened";
        Err(Error::from(ErrorKind::NotFound { what: what.into() }).in_object(&document.to_string_lossy()))
    }
}

/// Files, indexes and decoded chunks of one engine in one process.
#[derive(Debug)]
pub struct Caches {
    /// Open files.
    pub files: Files,
    indexes: Mutex<ByteCache<(FileId, u64, ByteRange), Arc<ShardIndex>>>,
    /// Decoded chunks, of remote arrays too.
    pub chunks: Arc<ChunkCache>,
}

impl Caches {
    /// No files and indexes yet.
    #[must_use]
    pub fn new(index_cache_bytes: u64, max_open_files: usize, chunks: Arc<ChunkCache>) -> Self {
        Self { files: Files::new(max_open_files), indexes: Mutex::new(ByteCache::new(index_cache_bytes)), chunks }
    }

    /// Bytes of the indexes kept.
    #[must_use]
    pub fn index_nbytes(&self) -> u64 {
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner).nbytes()
    }
}

/// What a visit found.
pub enum Located {
    /// No such object.
    Absent,
    /// The object is read as a whole.
    Whole {
        /// The file.
        file: OpenFile,
        /// How its bytes are those of the object compressed, as its name says.
        compressed: Option<&'static Compression>,
        /// Where its chunks are kept that are decoded.
        cache: Option<ObjectCache>,
    },
    /// Parts of a shard, or nothing of an object whose chunks are at hand.
    Parts {
        /// The file.
        file: Arc<OpenFile>,
        /// Chunks that are at hand decoded.
        kept: Kept,
        /// The other chunks.
        resolved: Resolved,
        /// Their merged ranges; members are positions in `resolved.stored`.
        requests: Vec<Request>,
        /// What the indexes cost.
        indexes: IndexCost,
        /// Where chunks are kept that are decoded.
        cache: Option<ObjectCache>,
    },
    /// The file changed while its index was read.
    Changed,
}

/// Index reads of one visit.
#[derive(Debug, Default, Clone, Copy)]
pub struct IndexCost {
    /// Indexes found in the cache.
    pub hits: u64,
    /// Bytes of the indexes found in the cache, as stored.
    pub hit_bytes: u64,
    /// Indexes read.
    pub misses: u64,
    /// Bytes read for them.
    pub bytes: u64,
    /// Index steps that had to be read one after another.
    pub depth: u64,
    /// Indexes that were neither there nor read.
    pub unknown: u64,
}

/// How [`locate`] goes about it.
#[derive(Debug, Clone, Copy)]
pub struct How<'a> {
    /// Whether indexes that are not cached are read.
    pub fetch_indexes: bool,
    /// Threads that the requests are to be spread over.
    pub threads: usize,
    /// Decoded chunks, None when they are not looked at.
    pub cache: Option<&'a ReadCache>,
}

/// Chunks up to which a visit is one request.
const FEW_CHUNKS: usize = 4;
/// Requests are not cut below this many bytes for the sake of spreading them over threads.
const MIN_SPREAD_NBYTES: u64 = 64 << 10;

/// Finds the bytes of `items` of one visit.
///
/// # Errors
/// `PermissionDenied`, `Store`, or `Limit` for an object larger than its codecs could have made it.
pub fn locate(
    caches: &Caches,
    array: &LocalArray,
    plan: &Plan,
    visit: &Visit<'_>,
    items: &[Item],
    how: How<'_>,
) -> Result<Located> {
    let meta = &*array.meta;
    let cache_of = |id: &FileId| how.cache?.of_object(id.lasting()?, meta, array.verify, &visit.shard);
    let path = array.path(&visit.shard);
    if let Some(limit) = meta.whole_object_limit() {
        let (mut found, mut compressed) = (caches.files.open(&path)?, None);
        for compression in if found.is_none() { meta.compressions() } else { &[] } {
            found = caches.files.open(&with_suffix(&path, compression.suffix))?;
            if found.is_some() {
                compressed = Some(compression);
                break;
            }
        }
        let Some(file) = found else { return Ok(Located::Absent) };
        array.check(&file, &path)?;
        let limit = if compressed.is_some() { max_encoded_nbytes(limit) } else { limit };
        if file.id.nbytes > limit {
            return Err(Error::codec(
                "chunk",
                format!("the object has {} bytes, more than its codecs can have made ({limit})", file.id.nbytes),
            ));
        }
        let cache = cache_of(&file.id);
        if let Some(kept) = cache.as_ref().and_then(|cache| Kept::all(items, file.id.nbytes, cache)) {
            let (file, resolved, requests, indexes) =
                (Arc::new(file), Resolved::default(), Vec::new(), IndexCost::default());
            return Ok(Located::Parts { file, kept, resolved, requests, indexes, cache });
        }
        let all = ByteRange { start: 0, end: file.id.nbytes };
        if compressed.is_none() && cache.is_none() && meta.levels.is_empty() && meta.is_plain_in(&visit.shard) {
            let (range, extent) = needed(plan, visit, items, all, &mut Vec::new())?;
            if extent != Extent::Whole {
                let requests = coalesce([range], array.merge);
                let stored = vec![StoredChunk { range, extent, items: 0..items.len() }];
                let resolved = Resolved { stored, ..Resolved::default() };
                let (file, kept, indexes) = (Arc::new(file), Kept::default(), IndexCost::default());
                return Ok(Located::Parts { file, kept, resolved, requests, indexes, cache });
            }
        }
        return Ok(Located::Whole { file, compressed, cache });
    }
    let may_be_empty = meta.levels.first().is_some_and(|level| level.index.may_be_of_nothing());
    let found = caches.files.get(&path, array.immutable)?;
    if let Some(file) = &found {
        array.check(file, &path)?;
    }
    if may_be_empty && found.as_ref().is_some_and(|file| file.id.nbytes == 0) {
        return Ok(Located::Absent);
    }
    let Some(file) = found else {
        // An older form of shards of precomputed volumes, whose data must not pass for zeros.
        if matches!(meta.keys, KeyEncoding::PrecomputedShard { .. }) && file::exists(&path.with_extension("index"))? {
            let what = "a precomputed shard in two files, `.index` and `.data`";
            return Err(Error::unsupported(what, "append the second to the first, and call that `.shard`"));
        }
        return if meta.table().is_some() { Err(ChunkTable::gone()) } else { Ok(Located::Absent) };
    };
    if meta.table().and_then(ChunkTable::version).is_some_and(|version| !file.id.is(version)) {
        return Err(ChunkTable::changed());
    }
    let (cell, fetch, cost) = (&*visit.shard, how.fetch_indexes, IndexCost::default());
    let mut source = Source { caches, meta, cell, file: &file, fetch, cost, changed: false };
    let mut resolved = resolve(plan, visit, items, file.id.nbytes, &mut source);
    let (indexes, changed) = (source.cost, source.changed);
    if changed {
        caches.files.forget(&path);
        return Ok(Located::Changed);
    }
    let cache = cache_of(&file.id);
    let kept = cache.as_ref().map_or_else(Kept::default, |cache| Kept::take(meta, items, &mut resolved, cache));
    let mut merge = array.merge;
    if resolved.stored.len() > FEW_CHUNKS {
        let total: u64 = resolved.stored.iter().map(|chunk| chunk.range.len()).sum();
        let share = total / (4 * how.threads.max(1) as u64);
        merge.max_request_bytes = merge.max_request_bytes.min(share.max(MIN_SPREAD_NBYTES));
    }
    let requests = coalesce(resolved.stored.iter().map(|chunk| chunk.range), merge);
    Ok(Located::Parts { file, kept, resolved, requests, indexes, cache })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

struct Source<'a> {
    caches: &'a Caches,
    meta: &'a PreparedArray,
    /// Grid coordinates of the object.
    cell: &'a [u64],
    file: &'a OpenFile,
    fetch: bool,
    cost: IndexCost,
    changed: bool,
}

impl IndexSource for Source<'_> {
    fn index(&mut self, level: usize, shard: ByteRange) -> Result<Option<Arc<ShardIndex>>> {
        let key = (self.file.id, self.meta.layout_hash(self.cell), shard);
        let cached = |caches: &Caches| caches.indexes.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let spec = self.meta.level_in(level, self.cell);
        let spec = spec.ok_or_else(|| Error::internal("an index level the array lacks"))?;
        let object_nbytes = self.file.id.nbytes;
        if let Some(known) = spec.index.known(object_nbytes) {
            spec.index.check_object(object_nbytes)?;
            return Ok(Some(Arc::new(known)));
        }
        if let Some(index) = cached(self.caches) {
            self.cost.hits += 1;
            self.cost.hit_bytes += spec.index.nbytes();
            return Ok(Some(index));
        }
        if !self.fetch {
            self.cost.unknown += 1;
            return Ok(None);
        }
        let range = spec.index.range(shard)?.ok_or_else(|| Error::internal("an index that is known was looked for"))?;
        let mut encoded = Vec::new();
        if !self.file.read(range, &mut encoded)? {
            self.changed = true;
            return Err(ErrorKind::ObjectChanged { what: "the file changed while its index was read".into() }.into());
        }
        let index = Arc::new(
            spec.index.decode(&spec.grid, &encoded, shard, object_nbytes).map_err(|error| error.in_range(range))?,
        );
        self.cost.misses += 1;
        self.cost.bytes += range.len();
        self.cost.depth = self.cost.depth.max(level as u64 + 1);
        let mut indexes = self.caches.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        let nbytes = index.memory_nbytes();
        indexes.insert(key, Arc::clone(&index), nbytes);
        Ok(Some(index))
    }
}
