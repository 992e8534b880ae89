//! Shard indexes: chunk -> byte range or MISSING, kept small in memory.
//!
//! An entry is named by its position in C order over the shard's grid, in array axis order, whatever order the file
//! keeps. [`sharding_indexed`] decodes the Zarr v3 form; [`cache::IndexCache`] bounds what is kept.

pub mod cache;
pub mod morton;
pub mod sharding_indexed;

use crate::error::{Error, Result};
use crate::subset::ByteRange;

/// Offset and size of an entry that is not stored (2^64 - 1).
pub const MISSING: u64 = u64::MAX;

/// Entries between two absolute offsets in the dense form.
const CHECKPOINT: usize = 64;
/// Size of a missing entry in the dense form.
const DENSE_MISSING: u16 = u16::MAX;

/// The index of one shard. Entries are checked when they are used, so that one bad entry does not hide the others.
#[derive(Debug)]
pub struct ShardIndex {
    entries: Entries,
    count: u64,
    /// Bytes of the shard, index included.
    shard_nbytes: u64,
    /// Where the index itself lies; no chunk may reach into it.
    index_range: ByteRange,
}

/// Three forms of the same table; the smallest that fits is used.
#[derive(Debug)]
enum Entries {
    /// Chunks lie end to end in a known order: 2 bytes an entry and an absolute offset every `CHECKPOINT` entries.
    Dense { ranks: morton::Order, base_size: u64, sizes: Box<[u16]>, checkpoints: Box<[u64]> },
    /// Shards below 4 GiB: (offset, size).
    Narrow(Box<[(u32, u32)]>),
    /// (offset, size) as in the file.
    Wide(Box<[(u64, u64)]>),
}

impl ShardIndex {
    /// Builds the index from (offset, nbytes) pairs in C order over `grid`.
    ///
    /// # Errors
    /// `Limit` when memory for it cannot be had.
    pub fn from_pairs(pairs: Vec<(u64, u64)>, grid: &[u64], shard_nbytes: u64, index_range: ByteRange) -> Result<Self> {
        let count = pairs.len() as u64;
        let entries = if let Some(dense) = dense(&pairs, grid)? {
            dense
        } else if pairs.iter().all(|&(offset, size)| is_narrow(offset) && is_narrow(size)) {
            Entries::Narrow(pairs.into_iter().map(|(offset, size)| (offset as u32, size as u32)).collect())
        } else {
            Entries::Wide(pairs.into_boxed_slice())
        };
        Ok(Self { entries, count, shard_nbytes, index_range })
    }

    /// Number of entries, missing ones included.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.count
    }

    /// Bytes this index takes in memory.
    #[must_use]
    pub fn memory_nbytes(&self) -> u64 {
        let table = match &self.entries {
            Entries::Dense { sizes, checkpoints, .. } => sizes.len() * 2 + checkpoints.len() * 8,
            Entries::Narrow(pairs) => pairs.len() * 8,
            Entries::Wide(pairs) => pairs.len() * 16,
        };
        (table + size_of::<Self>()) as u64
    }

    /// Bytes of entry `entry` relative to the shard's start, None when it is not stored.
    ///
    /// # Errors
    /// `ShardIndex` when the entry is half missing, empty, wraps, or does not lie inside the shard and outside the index.
    pub fn get(&self, entry: u64) -> Result<Option<ByteRange>> {
        let (offset, size) = self.pair(entry)?;
        if offset == MISSING && size == MISSING {
            return Ok(None);
        }
        if offset == MISSING || size == MISSING {
            return Err(Error::shard_index(format!(
                "entry {entry} is half missing: offset {offset:#x}, size {size:#x}; the shard is corrupt"
            )));
        }
        if size == 0 {
            return Err(Error::shard_index(format!("entry {entry} has size 0; the shard is corrupt")));
        }
        match ByteRange::from_len(offset, size) {
            Some(range) if range.end <= self.shard_nbytes => {
                let overlaps = range.start < self.index_range.end && self.index_range.start < range.end;
                if overlaps {
                    return Err(Error::shard_index(format!("entry {entry} points into the shard's own index")));
                }
                Ok(Some(range))
            }
            _ => Err(Error::shard_index(format!(
                "entry {entry} (offset {offset}, size {size}) lies outside the shard of {} bytes",
                self.shard_nbytes
            ))),
        }
    }

    fn pair(&self, entry: u64) -> Result<(u64, u64)> {
        let outside = || Error::internal(format!("index entry {entry} of {}", self.count));
        let position = usize::try_from(entry).map_err(|_| outside())?;
        match &self.entries {
            Entries::Narrow(pairs) => {
                let &(offset, size) = pairs.get(position).ok_or_else(outside)?;
                Ok((widen(offset), widen(size)))
            }
            Entries::Wide(pairs) => pairs.get(position).copied().ok_or_else(outside),
            Entries::Dense { ranks, base_size, sizes, checkpoints } => {
                let rank = ranks.rank(entry) as usize;
                let size = *sizes.get(rank).ok_or_else(outside)?;
                if size == DENSE_MISSING {
                    return Ok((MISSING, MISSING));
                }
                let block = rank / CHECKPOINT;
                let before = &sizes[block * CHECKPOINT..rank];
                let stored = before.iter().filter(|&&s| s != DENSE_MISSING);
                let offset = checkpoints[block] + stored.map(|&s| base_size + u64::from(s)).sum::<u64>();
                Ok((offset, base_size + u64::from(size)))
            }
        }
    }
}

fn is_narrow(value: u64) -> bool {
    value < u64::from(u32::MAX) || value == MISSING
}

fn widen(value: u32) -> u64 {
    if value == u32::MAX { MISSING } else { u64::from(value) }
}

/// The dense form, when the stored chunks lie end to end in one of the orders writers use.
fn dense(pairs: &[(u64, u64)], grid: &[u64]) -> Result<Option<Entries>> {
    let stored = || pairs.iter().filter(|p| **p != (MISSING, MISSING));
    let Some(first) = stored().map(|p| p.0).min() else {
        return Ok(None);
    };
    let (smallest, largest) = stored().fold((u64::MAX, 0), |(lo, hi), p| (lo.min(p.1), hi.max(p.1)));
    if largest == MISSING || largest - smallest >= u64::from(DENSE_MISSING) {
        return Ok(None);
    }
    for ranks in morton::Order::candidates(grid) {
        let mut by_rank = Vec::new();
        by_rank.try_reserve_exact(pairs.len()).map_err(|_| {
            Error::limit(
                "memory for a shard index",
                (pairs.len() * 16) as u64,
                crate::metadata::limits::MAX_INDEX_NBYTES,
            )
        })?;
        by_rank.resize(pairs.len(), (MISSING, MISSING));
        for (&pair, rank) in pairs.iter().zip(ranks.ranks(grid)) {
            if let Some(slot) = by_rank.get_mut(rank as usize) {
                *slot = pair;
            }
        }
        // None once an entry is half missing or reaches past 2^64: such a table is kept as it is, for `get` to refuse.
        let mut next = Some(first).filter(|&offset| offset != MISSING);
        let end_to_end = by_rank.iter().all(|&(offset, size)| {
            if (offset, size) == (MISSING, MISSING) {
                return true;
            }
            let fits = next == Some(offset);
            next = next.and_then(|at| at.checked_add(size));
            fits
        }) && next.is_some();
        if !end_to_end {
            continue;
        }
        let mut checkpoints = Vec::with_capacity(pairs.len().div_ceil(CHECKPOINT));
        let mut sizes = Vec::with_capacity(pairs.len());
        let mut at = first;
        for (rank, &(offset, size)) in by_rank.iter().enumerate() {
            if rank % CHECKPOINT == 0 {
                checkpoints.push(at);
            }
            if offset == MISSING {
                sizes.push(DENSE_MISSING);
            } else {
                sizes.push((size - smallest) as u16);
                at += size;
            }
        }
        return Ok(Some(Entries::Dense {
            ranks,
            base_size: smallest,
            sizes: sizes.into_boxed_slice(),
            checkpoints: checkpoints.into_boxed_slice(),
        }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::{MISSING, ShardIndex};
    use crate::subset::ByteRange;

    fn index(pairs: &[(u64, u64)], grid: &[u64]) -> ShardIndex {
        ShardIndex::from_pairs(pairs.to_vec(), grid, 1 << 20, ByteRange { start: (1 << 20) - 100, end: 1 << 20 })
            .unwrap()
    }

    #[test]
    fn every_form_gives_back_its_pairs() {
        let missing = (MISSING, MISSING);
        // End to end in C order, in Morton order (dimension 0 lowest), out of order, beyond 4 GiB.
        for pairs in [
            vec![(0, 5), (5, 7), missing, (12, 900)],
            vec![(0, 5), (12, 3), (5, 7), (15, 1)],
            vec![(100, 5), (5, 7), (50, 1), missing],
            vec![missing; 4],
        ] {
            let index = index(&pairs, &[2, 2]);
            for (i, &(offset, size)) in pairs.iter().enumerate() {
                let expected = (offset != MISSING).then(|| ByteRange { start: offset, end: offset + size });
                assert_eq!(index.get(i as u64).unwrap(), expected, "{pairs:?} {i}");
            }
        }
        let far = 1u64 << 40;
        let wide =
            ShardIndex::from_pairs(vec![(far, 9), (0, 3)], &[2], far + 9, ByteRange { start: far + 9, end: far + 9 })
                .unwrap();
        assert_eq!(wide.get(0).unwrap(), Some(ByteRange { start: far, end: far + 9 }));
    }

    #[test]
    fn a_dense_index_takes_under_three_bytes_an_entry() {
        let mut at = 0;
        let pairs: Vec<_> = (0..32768u64)
            .map(|i| {
                let size = 20_000 + (i * 7919) % 4096;
                at += size;
                (at - size, size)
            })
            .collect();
        let end = at + 524_292;
        let index = ShardIndex::from_pairs(pairs.clone(), &[32, 32, 32], end, ByteRange { start: at, end }).unwrap();
        assert!(index.memory_nbytes() < 3 * 32768, "{}", index.memory_nbytes());
        for (i, &(offset, size)) in pairs.iter().enumerate().step_by(97) {
            assert_eq!(index.get(i as u64).unwrap(), ByteRange::from_len(offset, size));
        }
    }

    #[test]
    fn bad_entries_are_typed_errors() {
        for bad in [(MISSING, 3), (3, MISSING), (4, 0), (MISSING - 1, 8), (1 << 20, 1), ((1 << 20) - 50, 10)] {
            let index = index(&[(0, 4), bad], &[2]);
            assert!(index.get(0).unwrap().is_some());
            assert_eq!(index.get(1).unwrap_err().kind().class_name(), "ShardIndexError", "{bad:?}");
            // Alone, such an entry might pass for chunks that lie end to end.
            let pairs = vec![(MISSING, MISSING), bad, (MISSING, MISSING)];
            let alone =
                ShardIndex::from_pairs(pairs, &[3], 1 << 20, ByteRange { start: (1 << 20) - 100, end: 1 << 20 });
            let alone = alone.unwrap();
            assert_eq!(alone.get(0).unwrap(), None);
            assert_eq!(alone.get(1).unwrap_err().kind().class_name(), "ShardIndexError", "{bad:?}");
        }
        assert_eq!(index(&[(0, 4)], &[1]).get(7).unwrap_err().kind().class_name(), "InternalError");
    }
}
