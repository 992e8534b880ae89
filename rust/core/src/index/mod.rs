//! Shard indexes: chunk -> byte range or MISSING, kept small in memory.
//!
//! An entry is named by its position in C order over the shard's grid, in array axis order, whatever order the file
//! keeps. [`sharding_indexed`], [`wkw`] and [`precomputed`] decode what files hold; [`spec`] chooses between them, [`cache`] bounds what is kept.

mod bits;
pub mod cache;
mod compact;
pub mod morton;
pub mod precomputed;
pub mod sharding_indexed;
mod spec;
pub mod wkw;

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::metadata::ChunkTable;
use crate::subset::ByteRange;
use compact::Compact;
use morton::Order;
use precomputed::Minishard;

/// Offset and size of an entry that is not stored (2^64 - 1).
pub const MISSING: u64 = u64::MAX;

const NOT_STORED: (u64, u64) = (MISSING, MISSING);

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

/// Forms of the same table; the smallest that fits is used.
#[derive(Debug)]
enum Entries {
    /// Nothing is stored.
    None,
    /// Chunks do not overlap: 2 to 4 bytes an entry.
    Compact(Compact),
    /// Shards below 4 GiB: (offset, size).
    Narrow(Box<[(u32, u32)]>),
    /// (offset, size) as in the file.
    Wide(Box<[(u64, u64)]>),
    /// At even distances in an order.
    Even(Order, Even),
    /// By the ids of chunks, which may be any numbers.
    Minishard(Minishard),
    /// As the metadata says.
    Table(Arc<ChunkTable>),
}

/// Entry of rank `r`: `stride` bytes from `first + r * stride` on and, but for rank 0, the `before` bytes before them.
#[derive(Debug)]
struct Even {
    first: u64,
    stride: u64,
    before: u64,
}

impl ShardIndex {
    /// Builds the index from (offset, nbytes) pairs in C order over `grid`.
    ///
    /// # Errors
    /// `Limit` when memory for it cannot be had.
    pub fn from_pairs(pairs: Vec<(u64, u64)>, grid: &[u64], shard_nbytes: u64, index_range: ByteRange) -> Result<Self> {
        let count = pairs.len() as u64;
        let narrow = pairs.iter().all(|&(offset, size)| is_narrow(offset) && is_narrow(size));
        let plain_nbytes = pairs.len() * if narrow { size_of::<(u32, u32)>() } else { size_of::<(u64, u64)>() };
        let compact = Compact::new(&pairs, grid)?.filter(|compact| compact.nbytes() < plain_nbytes);
        let entries = match compact {
            Some(compact) => Entries::Compact(compact),
            None if pairs.iter().all(|pair| *pair == NOT_STORED) => Entries::None,
            None if narrow => Entries::Narrow(pairs.iter().map(|pair| (pair.0 as u32, pair.1 as u32)).collect()),
            None => Entries::Wide(pairs.into_boxed_slice()),
        };
        Ok(Self { entries, count, shard_nbytes, index_range })
    }

    /// The index of a precomputed minishard; its entries are named by the ids of their chunks.
    pub(crate) fn of_minishard(minishard: Minishard) -> Self {
        let nothing = ByteRange { start: 0, end: 0 };
        let count = minishard.len() as u64;
        Self { entries: Entries::Minishard(minishard), count, shard_nbytes: 0, index_range: nothing }
    }

    /// The index that the metadata gives; its entries are places in an object of `object_nbytes` bytes.
    pub(crate) fn of_table(table: &Arc<ChunkTable>, object_nbytes: u64) -> Self {
        let nothing = ByteRange { start: 0, end: 0 };
        let entries = Entries::Table(Arc::clone(table));
        let shard_nbytes = table.object_nbytes().map_or(object_nbytes, |expected| expected.min(object_nbytes));
        Self { entries, count: table.len(), shard_nbytes, index_range: nothing }
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
            Entries::None => 0,
            Entries::Compact(compact) => compact.nbytes(),
            Entries::Narrow(pairs) => pairs.len() * 8,
            Entries::Wide(pairs) => pairs.len() * 16,
            Entries::Even(..) => 64,
            Entries::Minishard(minishard) => minishard.memory_nbytes() as usize,
            Entries::Table(table) => table.memory_nbytes() as usize,
        };
        (table + size_of::<Self>()) as u64
    }

    /// Bytes of entry `entry` relative to the shard's start, None when it is not stored.
    ///
    /// # Errors
    /// `ShardIndex` when the entry is half missing, empty, wraps, or does not lie inside the shard and outside the index.
    pub fn get(&self, entry: u64) -> Result<Option<ByteRange>> {
        if let Entries::Minishard(minishard) = &self.entries {
            return minishard.get(entry);
        }
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
        if entry >= self.count {
            return Err(Error::internal(format!("index entry {entry} of {}", self.count)));
        }
        Ok(match &self.entries {
            Entries::None | Entries::Minishard(_) => NOT_STORED,
            Entries::Compact(compact) => compact.pair(entry),
            Entries::Narrow(pairs) => {
                let (offset, size) = pairs[entry as usize];
                (widen(offset), widen(size))
            }
            Entries::Wide(pairs) => pairs[entry as usize],
            Entries::Table(table) => table.pair(entry).unwrap_or(NOT_STORED),
            Entries::Even(order, Even { first, stride, before }) => {
                let rank = order.rank(entry);
                let before = if rank == 0 { 0 } else { *before };
                (first.saturating_add(rank.saturating_mul(*stride)) - before, stride + before)
            }
        })
    }
}

fn is_narrow(value: u64) -> bool {
    value < u64::from(u32::MAX) || value == MISSING
}

fn widen(value: u32) -> u64 {
    if value == u32::MAX { MISSING } else { u64::from(value) }
}

#[cfg(test)]
mod tests {
    use super::{Entries, MISSING, NOT_STORED, ShardIndex, morton};
    use crate::subset::ByteRange;
    use proptest::prelude::*;

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

    /// An index of 32^3 chunks with sizes from 20,000 to 24,095 bytes that lie in the order of `ranks`.
    fn index_of_em(ranks: &[u64], is_stored: impl Fn(u64) -> bool) -> ShardIndex {
        let mut cells: Vec<usize> = (0..ranks.len()).collect();
        cells.sort_unstable_by_key(|&cell| ranks[cell]);
        let mut pairs = vec![NOT_STORED; ranks.len()];
        let mut at = 0;
        for cell in cells.into_iter().filter(|&cell| is_stored(cell as u64)) {
            let size = 20_000 + (cell as u64 * 7919) % 4096;
            pairs[cell] = (at, size);
            at += size;
        }
        let range = ByteRange { start: at, end: at + 524_292 };
        let index = ShardIndex::from_pairs(pairs.clone(), &[32, 32, 32], range.end, range).unwrap();
        for (entry, &pair) in pairs.iter().enumerate() {
            assert_eq!(index.pair(entry as u64).unwrap(), pair);
        }
        index
    }

    #[test]
    fn an_index_takes_under_three_bytes_an_entry() {
        let orders = morton::Order::candidates(&[32, 32, 32]);
        let mut written: Vec<Vec<u64>> = orders.map(|order| order.ranks(&[32, 32, 32])).collect();
        assert_eq!(written.len(), 4);
        // As eight threads leave it that each take the next run of 512 entries and append a chunk in turn.
        written.push((0..32768).map(|i| i / 4096 * 4096 + i % 512 * 8 + i / 512 % 8).collect());
        for ranks in written {
            assert!(index_of_em(&ranks, |_| true).memory_nbytes() < 3 * 32768);
            assert!(index_of_em(&ranks, |cell| cell % 5 > 0).memory_nbytes() < 3 * 32768);
        }
        // In no order at all, where the order alone takes most of two bytes.
        let shuffled: Vec<u64> = (0..32768).map(|i| i * 20_479 % 32768).collect();
        assert!(index_of_em(&shuffled, |_| true).memory_nbytes() < 4 * 32768);
        assert!(index_of_em(&shuffled, |_| false).memory_nbytes() < 200);
    }

    /// Pairs over a grid: as writers leave them, then some of them broken.
    fn pairs() -> impl Strategy<Value = (Vec<u64>, Vec<(u64, u64)>)> {
        let grid = prop_oneof![
            prop::collection::vec(1u64..7, 1..5),
            prop::collection::vec(prop::sample::select(vec![1u64, 2, 4, 8]), 1..5),
            Just(vec![20, 20])
        ];
        let spread = prop::sample::select(vec![1u64, 30, 5000, 65_534, 65_535, 1 << 20, 1 << 33]);
        let start = prop::sample::select(vec![0u64, 7, 1 << 31, u64::from(u32::MAX) - 60, 1 << 57, MISSING - 5000]);
        let rare = |most: u32| prop_oneof![Just(0u32), 0..most];
        (grid, 0usize..7, spread, start, rare(90), rare(60), rare(20), any::<u64>()).prop_map(
            |(grid, order, spread, start, missing, gaps, broken, seed)| {
                let mut dice = seed;
                let mut roll = move |n: u64| {
                    dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (dice >> 33) % n.max(1)
                };
                let count = grid.iter().product::<u64>() as usize;
                let ranks = match morton::Order::candidates(&grid).nth(order) {
                    Some(order) => order.ranks(&grid),
                    None if order % 2 == 0 => (0..count).map(|_| roll(1 << 30)).collect(),
                    None => (0..count as u64).map(|cell| cell + roll(9)).collect(),
                };
                let mut cells: Vec<usize> = (0..count).collect();
                cells.sort_by_key(|&cell| ranks[cell]);
                let mut at = start;
                let mut pairs = vec![NOT_STORED; count];
                for cell in cells {
                    if roll(100) < u64::from(missing) {
                        continue;
                    }
                    if roll(100) < u64::from(gaps) {
                        at = at.saturating_add(roll(3 * spread));
                    }
                    let size = 10 + roll(spread);
                    pairs[cell] = (at, size);
                    at = at.saturating_add(size);
                }
                for cell in 0..count {
                    if roll(100) < u64::from(broken) {
                        let other = pairs[roll(count as u64) as usize];
                        pairs[cell] = match roll(6) {
                            0 => (MISSING, 3),
                            1 => (3, MISSING),
                            2 => (pairs[cell].0, 0),
                            3 => other,
                            4 => (other.0.saturating_sub(1), 40),
                            _ => (MISSING - 1, 8),
                        };
                    }
                }
                (grid, pairs)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn every_form_is_the_table_it_was_made_of((grid, pairs) in pairs()) {
            let index = index(&pairs, &grid);
            for (entry, &pair) in pairs.iter().enumerate() {
                prop_assert_eq!(index.pair(entry as u64).unwrap(), pair, "{:?} in {:?}", entry, index);
            }
            prop_assert!(index.memory_nbytes() <= (pairs.len() * 16 + size_of::<ShardIndex>()) as u64);
            prop_assert!(index.pair(pairs.len() as u64).is_err());
        }
    }

    #[test]
    fn overlapping_chunks_are_kept_as_they_are() {
        let pairs: Vec<_> = (0..512u64).map(|i| (i * 10, if i == 300 { 11 } else { 10 })).collect();
        assert!(matches!(index(&pairs, &[8, 8, 8]).entries, Entries::Narrow(_)));
        let apart: Vec<_> = (0..512u64).map(|i| (i * 10, if i == 300 { 9 } else { 10 })).collect();
        assert!(matches!(index(&apart, &[8, 8, 8]).entries, Entries::Compact(_)));
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
