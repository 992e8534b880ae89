//! Chunks whose places are given with the metadata: in files with a table of their own (HDF5, Blosc2), or by references to
//! parts of other files (kerchunk).
//!
//! An entry is named by its position in C order over the grid of chunks.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::limits::MAX_INDEX_NBYTES;
use crate::error::{Error, ErrorKind, Result};
use crate::subset::product;

/// Offset of a chunk that is not stored (2^64 - 1).
const MISSING: u64 = u64::MAX;
/// Chunks of one cell of the grid of stored objects, at most: what one visit of a plan goes through.
const MAX_BLOCK_CHUNKS: u64 = 1 << 15;

/// A table as it is handed in.
#[derive(Debug, Default)]
pub struct Places {
    /// Keys of the objects that hold chunks, at least one.
    pub files: Vec<String>,
    /// First byte of each chunk, 2^64 - 1 for one that is not stored.
    pub offsets: Vec<u64>,
    /// Bytes of each chunk.
    pub nbytes: Vec<u64>,
    /// Position in `files` of each chunk's object; None when all lie in the first.
    pub numbers: Option<Vec<u32>>,
    /// Of each chunk, the bytes -> bytes codecs that were left out: bit `i` is codec `i` in encoding order.
    pub masks: Option<Vec<u32>>,
    /// The version of the only object when the table was read. Of another version it says nothing.
    pub version: Option<TableVersion>,
}

/// The version of the object that a table is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TableVersion {
    /// A file, by what its file system says of it.
    File {
        /// Number of the file system.
        device: u64,
        /// Number of the file there.
        inode: u64,
        /// Bytes of the file.
        nbytes: u64,
        /// Time of the last change, in ns since 1970.
        modified_ns: i128,
    },
    /// An object of a store, by what the store says of it.
    Object {
        /// Strong ETag, with its quotes.
        etag: Option<Arc<str>>,
        /// Last-Modified.
        modified: Option<Arc<str>>,
        /// Bytes of the object.
        total: Option<u64>,
    },
}

impl TableVersion {
    /// Bytes of the object, where they are known.
    #[must_use]
    pub fn nbytes(&self) -> Option<u64> {
        match self {
            Self::File { nbytes, .. } => Some(*nbytes),
            Self::Object { total, .. } => *total,
        }
    }
}

/// Where each chunk of an array lies.
pub struct ChunkTable {
    files: Vec<String>,
    offsets: Box<[u64]>,
    nbytes: Box<[u32]>,
    numbers: Option<Box<[u32]>>,
    masks: Option<Box<[u32]>>,
    version: Option<TableVersion>,
    /// Chunks along each axis of the array.
    chunks: Vec<u64>,
    /// Chunks along each axis of a cell of the grid of stored objects.
    block: Vec<u64>,
    hash: u64,
}

impl ChunkTable {
    /// Checks a table for an array with `chunks` chunks along each axis. With `is_single` a cell of the grid of stored
    /// objects holds one chunk.
    ///
    /// # Errors
    /// `Metadata` when its parts contradict each other, `Limit` when it is too large.
    pub fn new(places: Places, chunks: Vec<u64>, is_single: bool) -> Result<Self> {
        let Places { files, offsets, nbytes, numbers, masks, version } = places;
        let count = product(&chunks).unwrap_or(u64::MAX);
        let most = MAX_INDEX_NBYTES / 4;
        if count > most {
            return Err(Error::limit("chunks in a table", count, most));
        }
        let lengths = [Some(offsets.len()), Some(nbytes.len())];
        let others = [numbers.as_ref().map(Vec::len), masks.as_ref().map(Vec::len)];
        if lengths.into_iter().chain(others).flatten().any(|length| length as u64 != count) {
            return Err(Error::metadata("chunk table", format!("{} entries for {count} chunks", offsets.len())));
        }
        if files.is_empty() || numbers.iter().flatten().any(|&number| number as usize >= files.len()) {
            return Err(Error::metadata("chunk table", format!("a chunk in none of its {} files", files.len())));
        }
        // More than the largest chunk may have; like all that is wrong with one entry, it is refused where it is used.
        let nbytes: Box<[u32]> = nbytes.into_iter().map(|size| u32::try_from(size).unwrap_or(u32::MAX)).collect();
        let masks = masks.filter(|masks| masks.iter().any(|&mask| mask != 0));
        let is_single = is_single || numbers.is_some() || masks.is_some();
        let block = if is_single { vec![1; chunks.len()] } else { block(&chunks) };
        let mut hasher = std::hash::DefaultHasher::new();
        (&files, &offsets, &nbytes, &numbers, &masks, &version, &chunks, &block).hash(&mut hasher);
        Ok(Self {
            files,
            offsets: offsets.into(),
            nbytes,
            numbers: numbers.map(Into::into),
            masks: masks.map(Into::into),
            version,
            chunks,
            block,
            hash: hasher.finish(),
        })
    }

    /// Offset and bytes of chunk `entry` in its object as they were given, None when it is not stored.
    #[must_use]
    pub fn pair(&self, entry: u64) -> Option<(u64, u64)> {
        let offset = *self.offsets.get(entry as usize)?;
        let nbytes = *self.nbytes.get(entry as usize)?;
        (offset != MISSING).then_some((offset, u64::from(nbytes)))
    }

    /// Number of chunks.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.offsets.len() as u64
    }

    /// True when the array has no chunk.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Bytes it takes in memory.
    #[must_use]
    pub fn memory_nbytes(&self) -> u64 {
        self.len() * 12
    }

    /// The version of the object that it is of.
    #[must_use]
    pub fn version(&self) -> Option<&TableVersion> {
        self.version.as_ref()
    }

    /// Bytes of the object that it is of, where that is known.
    #[must_use]
    pub fn object_nbytes(&self) -> Option<u64> {
        self.version.as_ref().and_then(TableVersion::nbytes)
    }

    /// The error of reading another version of the object.
    #[must_use]
    pub fn changed() -> Error {
        let what = "the file was changed or replaced since its table of chunks was read; open it again";
        ErrorKind::ObjectChanged { what: what.into() }.into()
    }

    /// The error of an object that is gone.
    #[must_use]
    pub fn gone() -> Error {
        let what = "the file is gone that the table of chunks names";
        ErrorKind::NotFound { what: what.into() }.into()
    }

    /// Chunks along each axis of a cell of the grid of stored objects.
    #[must_use]
    pub fn block(&self) -> &[u64] {
        &self.block
    }

    /// The entry of the chunk at `coordinates` in cell `cell`.
    #[must_use]
    pub fn entry(&self, cell: &[u64], coordinates: &[u64]) -> u64 {
        let axes = self.chunks.iter().zip(&self.block).zip(cell.iter().zip(coordinates));
        axes.fold(0, |entry, ((&chunks, &block), (&cell, &at))| entry * chunks + cell * block + at)
    }

    /// Number in the array of the first chunk in cell `cell`, where cells follow each other with all of their chunks.
    #[must_use]
    pub fn first_chunk(&self, cell: &[u64]) -> u64 {
        let axes = self.chunks.iter().zip(&self.block).zip(cell);
        let number = axes.fold(0u64, |number, ((&chunks, &block), &cell)| number * chunks.div_ceil(block) + cell);
        number * self.block.iter().product::<u64>()
    }

    /// Key of the object that holds the chunks of cell `cell`.
    #[must_use]
    pub fn key(&self, cell: &[u64]) -> &str {
        let number = self.numbers.as_ref().and_then(|numbers| {
            let entry = self.entry(cell, &vec![0; cell.len()]);
            numbers.get(entry as usize).copied()
        });
        self.files.get(number.unwrap_or_default() as usize).map_or("", String::as_str)
    }

    /// The codecs that were left out of the chunk in cell `cell`.
    #[must_use]
    pub fn mask(&self, cell: &[u64]) -> u32 {
        let Some(masks) = &self.masks else { return 0 };
        let entry = self.entry(cell, &vec![0; cell.len()]);
        masks.get(entry as usize).copied().unwrap_or_default()
    }

    /// The masks that occur, without 0 and each once.
    #[must_use]
    pub fn masks(&self) -> Vec<u32> {
        let mut found: Vec<u32> = self.masks.iter().flatten().copied().filter(|&mask| mask != 0).collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Extents of a cell: as many chunks as one visit may have, the last axes first, in which neighbours mostly lie together.
fn block(chunks: &[u64]) -> Vec<u64> {
    let mut left = MAX_BLOCK_CHUNKS;
    let mut block = vec![1; chunks.len()];
    for (extent, &chunks) in block.iter_mut().zip(chunks).rev() {
        *extent = chunks.clamp(1, left);
        left /= *extent;
    }
    block
}

impl PartialEq for ChunkTable {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for ChunkTable {}

// What array layouts are told apart by; the table itself may be of millions of entries.
impl std::fmt::Debug for ChunkTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkTable").field("chunks", &self.chunks).field("hash", &self.hash).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{ChunkTable, MISSING, Places};

    fn places(count: u64) -> Places {
        Places {
            files: vec!["a".into(), "b".into()],
            offsets: (0..count).map(|i| i * 10).collect(),
            nbytes: vec![10; count as usize],
            ..Places::default()
        }
    }

    #[test]
    fn cells_and_chunks_name_each_entry_once() {
        for (chunks, is_single) in [(vec![3, 4], false), (vec![3, 4], true), (vec![5, 300, 200], false)] {
            let count = chunks.iter().product();
            let table = ChunkTable::new(places(count), chunks.clone(), is_single).unwrap();
            let block = table.block().to_vec();
            let mut seen = vec![false; count as usize];
            let mut numbers = std::collections::HashSet::new();
            let mut cells: Vec<Vec<u64>> = vec![vec![]];
            for (&chunks, &block) in chunks.iter().zip(&block) {
                let all = cells.iter().flat_map(|cell| {
                    (0..chunks.div_ceil(block)).map(move |c| cell.iter().copied().chain([c]).collect())
                });
                cells = all.collect();
            }
            for cell in cells {
                let mut inner = vec![0; chunks.len()];
                for at in 0..block.iter().product::<u64>() {
                    let mut rest = at;
                    for (inner, &block) in inner.iter_mut().zip(&block).rev() {
                        *inner = rest % block;
                        rest /= block;
                    }
                    let inside = (0..chunks.len()).all(|axis| cell[axis] * block[axis] + inner[axis] < chunks[axis]);
                    if inside {
                        assert!(!std::mem::replace(&mut seen[table.entry(&cell, &inner) as usize], true));
                    }
                    assert!(numbers.insert(table.first_chunk(&cell) + at));
                }
            }
            assert!(seen.iter().all(|&seen| seen));
        }
    }

    #[test]
    fn entries_give_back_their_places() {
        let mut given = places(4);
        (given.offsets[1], given.nbytes[1]) = (MISSING, 7);
        given.numbers = Some(vec![0, 0, 1, 0]);
        given.masks = Some(vec![0, 0, 0, 3]);
        let table = ChunkTable::new(given, vec![4], false).unwrap();
        assert_eq!((table.pair(0), table.pair(1)), (Some((0, 10)), None));
        assert_eq!((table.key(&[1]), table.key(&[2]), table.key(&[3])), ("a", "b", "a"));
        assert_eq!((table.mask(&[2]), table.mask(&[3]), table.masks()), (0, 3, vec![3]));
        assert_eq!(table.block(), [1]);
    }

    #[test]
    fn contradictions_are_refused() {
        let table = |change: fn(&mut Places)| {
            let mut given = places(4);
            change(&mut given);
            ChunkTable::new(given, vec![2, 2], false)
        };
        assert!(table(|_| ()).is_ok());
        let changes: [fn(&mut Places); 5] = [
            |given| given.offsets.truncate(3),
            |given| given.nbytes.truncate(3),
            |given| given.numbers = Some(vec![0; 3]),
            |given| given.numbers = Some(vec![2; 4]),
            |given| given.files.clear(),
        ];
        for change in changes {
            assert!(table(change).unwrap_err().to_string().starts_with("chunk table: "));
        }
    }
}
