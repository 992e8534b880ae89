//! Shards of Neuroglancer's precomputed format, `neuroglancer_uint64_sharded_v1` (sharded.rst).
//!
//! A chunk id names a shard, which is an object, and a minishard in it
//! ([`Sharding::place`](crate::metadata::uint64_sharding::Sharding::place)). The shard begins with the
//! ranges of its minishard indexes ([`decode_shard_index`]); a minishard index, decompressed if need be, has the ranges
//! of its chunks ([`decode_minishard`]). All ranges here are from the start of the object.

use crate::error::{Error, Result};
use crate::index::{MISSING, NOT_STORED};
use crate::metadata::limits::MAX_INDEX_NBYTES;
use crate::subset::ByteRange;

/// Bytes of a minishard index a chunk: id, offset, size.
const ENTRY_NBYTES: usize = 24;

/// Decodes the index with which a shard begins: minishard -> (offset, nbytes) of its index, (MISSING, MISSING) where it
/// has no chunk. `encoded` is exactly the bytes of the index, [`Sharding::index_nbytes`].
///
/// A range that cannot be is kept as a pair that [`ShardIndex::get`](crate::index::ShardIndex::get) refuses, so that one
/// broken entry does not hide the others.
///
/// # Errors
/// `ShardIndex` when `encoded` is not made of pairs or is longer than a shard of `shard_nbytes` bytes, `Limit` when memory
/// for it cannot be had.
pub fn decode_shard_index(encoded: &[u8], shard_nbytes: Option<u64>) -> Result<Vec<(u64, u64)>> {
    let index_nbytes = encoded.len() as u64;
    if let Some(shard_nbytes) = shard_nbytes.filter(|&nbytes| nbytes < index_nbytes) {
        return Err(Error::shard_index(format!(
            "{shard_nbytes} bytes are too few for a shard: its index alone takes {index_nbytes}; the object is truncated"
        )));
    }
    let (entries, rest) = encoded.as_chunks::<16>();
    if !rest.is_empty() {
        return Err(Error::shard_index(format!("an index of {index_nbytes} bytes, which are no pairs of u64")));
    }
    let mut pairs = with_room_for(entries.len())?;
    pairs.extend(entries.iter().map(|entry| {
        let [start, end] = words(entry);
        match (index_nbytes.checked_add(start), end.checked_sub(start)) {
            (_, Some(0)) => NOT_STORED,
            (Some(offset), Some(nbytes)) => (offset, nbytes),
            // Half missing, which no entry of a sound shard is.
            (None, Some(nbytes)) => (MISSING, nbytes),
            (offset, None) => (offset.unwrap_or(MISSING).min(MISSING - 1), MISSING),
        }
    }));
    Ok(pairs)
}

/// The index of one minishard. Entries are checked when they are used, so that one bad entry does not hide the others.
#[derive(Debug)]
pub struct Minishard {
    /// By id.
    chunks: Box<[Chunk]>,
    /// End of the shard's index, into which no chunk may reach.
    shard_index_nbytes: u64,
    /// Bytes of the shard, index included.
    object_nbytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Chunk {
    id: u64,
    start: u64,
    nbytes: u64,
}

/// Decodes the index of a minishard, which is not compressed any more: the differences of the ids, of each start to the
/// end of the chunk before (the first to the end of the shard index), and the sizes. Arithmetic wraps around.
///
/// # Errors
/// `ShardIndex` when `encoded` is not made of entries, `Limit` when memory for it cannot be had.
pub fn decode_minishard(encoded: &[u8], shard_index_nbytes: u64, object_nbytes: u64) -> Result<Minishard> {
    if !encoded.len().is_multiple_of(ENTRY_NBYTES) {
        return Err(Error::shard_index(format!(
            "a minishard index of {} bytes, which is no multiple of {ENTRY_NBYTES}",
            encoded.len()
        )));
    }
    let count = encoded.len() / ENTRY_NBYTES;
    let (ids, rest) = encoded.as_chunks::<8>().0.split_at(count);
    let (gaps, sizes) = rest.split_at(count);
    let mut chunks = with_room_for(count)?;
    let (mut id, mut end) = (0u64, shard_index_nbytes);
    chunks.extend(ids.iter().zip(gaps).zip(sizes).map(|((delta, gap), nbytes)| {
        let nbytes = u64::from_le_bytes(*nbytes);
        id = id.wrapping_add(u64::from_le_bytes(*delta));
        let start = end.wrapping_add(u64::from_le_bytes(*gap));
        end = start.wrapping_add(nbytes);
        Chunk { id, start, nbytes }
    }));
    // Writers sort, but nothing says that they have to.
    if !chunks.is_sorted_by_key(|chunk| chunk.id) {
        chunks.sort_unstable_by_key(|chunk| chunk.id);
    }
    Ok(Minishard { chunks: chunks.into_boxed_slice(), shard_index_nbytes, object_nbytes })
}

impl Minishard {
    /// Number of chunks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// True when it has no chunk.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Bytes this index takes in memory.
    #[must_use]
    pub fn memory_nbytes(&self) -> u64 {
        (size_of_val(&*self.chunks) + size_of::<Self>()) as u64
    }

    /// Bytes of the chunk `id` in the object, None when it is not stored.
    ///
    /// # Errors
    /// `ShardIndex` when there are two of this id, or the chunk is empty, wraps, or does not lie inside the object and
    /// outside the shard index.
    pub fn get(&self, id: u64) -> Result<Option<ByteRange>> {
        let first = self.chunks.partition_point(|chunk| chunk.id < id);
        let mut found = self.chunks.iter().skip(first).take_while(|chunk| chunk.id == id);
        let Some(&Chunk { start, nbytes, .. }) = found.next() else { return Ok(None) };
        if found.next().is_some() {
            return Err(Error::shard_index(format!("the minishard lists chunk {id} twice; the shard is corrupt")));
        }
        if nbytes == 0 {
            return Err(Error::shard_index(format!("chunk {id} has size 0; the shard is corrupt")));
        }
        match ByteRange::from_len(start, nbytes).filter(|range| range.end <= self.object_nbytes) {
            Some(range) if range.start >= self.shard_index_nbytes => Ok(Some(range)),
            Some(_) => Err(Error::shard_index(format!("chunk {id} points into the shard's own index"))),
            None => Err(Error::shard_index(format!(
                "chunk {id} (offset {start}, size {nbytes}) lies outside the shard of {} bytes",
                self.object_nbytes
            ))),
        }
    }
}

fn words(entry: &[u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, end @ ..] = *entry;
    [u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes(end)]
}

/// An empty list with room for `count` entries, which are bytes that the caller has.
fn with_room_for<T>(count: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    let nbytes = (count as u64).saturating_mul(size_of::<T>() as u64);
    let failed = |_| Error::limit("memory for a shard index", nbytes, MAX_INDEX_NBYTES);
    list.try_reserve_exact(count).map_err(failed)?;
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::{MISSING, decode_minishard, decode_shard_index};
    use crate::index::ShardIndex;
    use crate::subset::ByteRange;

    fn bytes(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The pairs of an index as the rest of the core takes them.
    fn index(encoded: &[u8], shard_nbytes: u64) -> ShardIndex {
        let pairs = decode_shard_index(encoded, Some(shard_nbytes)).unwrap();
        let (count, own) = (pairs.len() as u64, ByteRange { start: 0, end: encoded.len() as u64 });
        ShardIndex::from_pairs(pairs, &[count], shard_nbytes, own).unwrap()
    }

    /// A shard of tensorstore 0.1.86: uint16, 9 x 2 x 5 voxels in chunks of 2^3, murmur, preshift 1, minishard 2, shard 2.
    #[test]
    fn a_shard_as_written() {
        let encoded = bytes(&[0, 0, 0x48, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0]);
        let index = index(&encoded, 256);
        assert_eq!(index.get(0).unwrap(), None);
        assert_eq!(index.get(1).unwrap(), Some(ByteRange { start: 136, end: 256 }));
        assert_eq!(index.get(2).unwrap(), None);
        let minishard = bytes(&[0, 1, 5, 1, 9, 0, 0, 0, 0, 0, 16, 16, 16, 16, 8]);
        let minishard = decode_minishard(&minishard, 64, 256).unwrap();
        assert_eq!((minishard.len(), minishard.is_empty()), (5, false));
        for (id, start, end) in [(0, 64, 80), (1, 80, 96), (6, 96, 112), (7, 112, 128), (16, 128, 136)] {
            assert_eq!(minishard.get(id).unwrap(), Some(ByteRange { start, end }));
        }
        for id in [2, 5, 8, 15, 17, u64::MAX] {
            assert_eq!(minishard.get(id).unwrap(), None);
        }
        assert!(minishard.memory_nbytes() < 5 * 24 + 64);
        assert!(decode_minishard(&[], 64, 256).unwrap().is_empty());
    }

    #[test]
    fn broken_ranges_of_minishards_are_refused_alone() {
        let all = u64::MAX;
        for (start, end) in
            [(5, 4), (all, 0), (all - 47, 3), (0, 969), (0, all), (968, 969), (all - 1, all), (all - 48, all)]
        {
            let encoded = bytes(&[0, 8, start, end, 7, 7]);
            let index = index(&encoded, 48 + 968);
            assert_eq!(index.get(0).unwrap(), Some(ByteRange { start: 48, end: 56 }));
            assert_eq!(index.get(1).unwrap_err().kind().class_name(), "ShardIndexError", "{start} {end}");
            assert_eq!(index.get(2).unwrap(), None);
        }
        // Equal ends are an empty minishard wherever they are.
        assert_eq!(decode_shard_index(&bytes(&[all, all]), None).unwrap(), [(MISSING, MISSING)]);
        assert_eq!(decode_shard_index(&bytes(&[all - 1, all]), None).unwrap(), [(MISSING, 1)]);
        for (encoded, shard_nbytes) in
            [(bytes(&[0, 8, 0]), None), (bytes(&[0, 8]), Some(15)), (bytes(&[0, 8]), Some(0))]
        {
            let error = decode_shard_index(&encoded, shard_nbytes).unwrap_err();
            assert_eq!(error.kind().class_name(), "ShardIndexError");
        }
        assert_eq!(decode_shard_index(&bytes(&[0, 8]), Some(16)).unwrap(), [(16, 8)]);
    }

    #[test]
    fn broken_ranges_of_chunks_are_refused_alone() {
        let all = u64::MAX;
        // Chunk 3 lies at 100..110 in a shard of 1000 bytes; chunk 9 begins `gap` after its end.
        for (gap, nbytes) in [(0, 0), (0, 891), (890, 1), (all, all), (all - 99, 20), (0, all - 50), (all - 109, 5)] {
            let minishard = decode_minishard(&bytes(&[3, 6, 36, gap, 10, nbytes]), 64, 1000).unwrap();
            assert_eq!(minishard.get(3).unwrap(), Some(ByteRange { start: 100, end: 110 }));
            assert_eq!(minishard.get(9).unwrap_err().kind().class_name(), "ShardIndexError", "{gap} {nbytes}");
            assert_eq!(minishard.get(8).unwrap(), None);
        }
        let minishard = decode_minishard(&bytes(&[3, 6, 36, 0, 10, 890]), 64, 1000).unwrap();
        assert_eq!(minishard.get(9).unwrap(), Some(ByteRange { start: 110, end: 1000 }));
        for nbytes in [1, 8, 23, 25, 47] {
            let error = decode_minishard(&vec![0; nbytes], 64, 1000).unwrap_err();
            assert_eq!(error.kind().class_name(), "ShardIndexError");
        }
    }

    #[test]
    fn ids_need_not_be_sorted_and_must_not_repeat() {
        // Ids 9, 2, 5, 2 and 7 by differences that wrap around, at 64, 74, 70, 90 and 66: differences wrap around too.
        let wrapped = |n: i64| n as u64;
        let ids = [9, wrapped(-7), 3, wrapped(-3), 5];
        let gaps = [0, 8, wrapped(-8), 16, wrapped(-28)];
        let encoded = bytes(&[&ids[..], &gaps[..], &[2, 4, 4, 4, 2][..]].concat());
        let minishard = decode_minishard(&encoded, 64, 94).unwrap();
        assert_eq!(minishard.get(9).unwrap(), Some(ByteRange { start: 64, end: 66 }));
        assert_eq!(minishard.get(5).unwrap(), Some(ByteRange { start: 70, end: 74 }));
        assert_eq!(minishard.get(7).unwrap(), Some(ByteRange { start: 66, end: 68 }));
        assert_eq!(minishard.get(2).unwrap_err().kind().class_name(), "ShardIndexError");
        assert_eq!(minishard.get(3).unwrap(), None);
    }
}
