//! The small form of an index, for chunks that lie one after another in the shard, in whatever order, with gaps or without.
//!
//! Sizes are kept in the order in which the chunks lie, an absolute offset every [`BLOCK`] of them, and the gaps. The rank
//! of an entry, its place in that order, follows from a known [`Order`] where the writer kept to one; else ranks are
//! listed, in few bits where neighbours in C order lie near each other (threads that write side by side leave such shards).

use super::bits::Bits;
use super::morton::Order;
use super::{MISSING, NOT_STORED};
use crate::error::{Error, Result};
use crate::metadata::limits::MAX_INDEX_NBYTES;
use crate::subset::product;

/// Ranks between two absolute offsets; entries between two bases of listed ranks.
const BLOCK: usize = 64;
/// Entries that an order is tried with before it is tried with all.
const SAMPLES: usize = 64;
/// Size of a missing entry among 16-bit sizes.
const MISSING_16: u16 = u16::MAX;

/// An index whose stored chunks do not overlap.
#[derive(Debug)]
pub(super) struct Compact {
    ranks: Ranks,
    smallest: u64,
    /// By rank.
    sizes: Sizes,
    /// For each block of ranks the end of the chunk before it.
    starts: Box<[u64]>,
    /// Chunks that do not begin where the one before them ends: rank, and bytes between them. Sorted.
    gaps: Box<[(u32, u64)]>,
}

/// Entry -> rank.
#[derive(Debug)]
enum Ranks {
    /// Missing entries have ranks too.
    Known(Order),
    /// For each block of entries its lowest rank and its first word in `bits`, and the end of the last one. A block takes
    /// as many words as each of its values takes bits: 0 for a missing entry, else its rank less the lowest, plus 1.
    Listed { blocks: Box<[(u32, u32)]>, bits: Bits },
}

/// Sizes less the smallest.
#[derive(Debug)]
enum Sizes {
    /// [`MISSING_16`] for a missing entry.
    Words(Box<[u16]>),
    /// `missing` for a missing entry.
    Bits { width: u32, missing: u64, bits: Bits },
}

impl Compact {
    /// The small form of (offset, nbytes) pairs in C order over `grid`; None when entries are half missing, overlap or
    /// reach past 2^64, or when none is stored.
    ///
    /// # Errors
    /// `Limit` when memory for it cannot be had.
    pub(super) fn new(pairs: &[(u64, u64)], grid: &[u64]) -> Result<Option<Self>> {
        if product(grid) != Some(pairs.len() as u64) || pairs.len() > u32::MAX as usize / BLOCK {
            return Ok(None);
        }
        let (mut smallest, mut largest) = (MISSING, 0);
        for &(offset, size) in pairs {
            if (offset, size) == NOT_STORED {
                continue;
            }
            if offset == MISSING || size == MISSING || offset.checked_add(size).is_none() {
                return Ok(None);
            }
            (smallest, largest) = (smallest.min(size), largest.max(size));
        }
        if smallest == MISSING {
            return Ok(None);
        }
        let spread = largest - smallest;
        let mut by_rank = Vec::new();
        by_rank.try_reserve_exact(pairs.len()).map_err(|_| no_memory(pairs.len()))?;
        for order in Order::candidates(grid) {
            if !is_plausible(&order, pairs) {
                continue;
            }
            by_rank.clear();
            by_rank.resize(pairs.len(), NOT_STORED);
            for (&pair, rank) in pairs.iter().zip(order.ranks(grid)) {
                if let Some(slot) = by_rank.get_mut(rank as usize) {
                    *slot = pair;
                }
            }
            if let Some((starts, gaps)) = lay(&by_rank) {
                let sizes = Sizes::new(&by_rank, smallest, spread, spread < u64::from(MISSING_16));
                return Ok(sizes.map(|sizes| Self { ranks: Ranks::Known(order), smallest, sizes, starts, gaps }));
            }
        }
        let Some(ranks) = Ranks::list(pairs, &mut by_rank) else { return Ok(None) };
        let Some((starts, gaps)) = lay(&by_rank) else { return Ok(None) };
        let sizes = Sizes::new(&by_rank, smallest, spread, false);
        Ok(sizes.map(|sizes| Self { ranks, smallest, sizes, starts, gaps }))
    }

    /// Bytes of its tables.
    pub(super) fn nbytes(&self) -> usize {
        let ranks = match &self.ranks {
            Ranks::Known(_) => 0,
            Ranks::Listed { blocks, bits } => size_of_val(&**blocks) + bits.nbytes(),
        };
        let sizes = match &self.sizes {
            Sizes::Words(sizes) => size_of_val(&**sizes),
            Sizes::Bits { bits, .. } => bits.nbytes(),
        };
        ranks + sizes + size_of_val(&*self.starts) + size_of_val(&*self.gaps)
    }

    /// Offset and size of an entry, which must be one of those it was made of.
    pub(super) fn pair(&self, entry: u64) -> (u64, u64) {
        let Some(rank) = self.ranks.of(entry) else { return NOT_STORED };
        let Some(size) = self.sizes.get(rank) else { return NOT_STORED };
        let block = rank / BLOCK;
        let (stored, sum) = self.sizes.before(block * BLOCK, rank);
        let mut offset = self.starts[block] + stored * self.smallest + sum;
        if !self.gaps.is_empty() {
            let first = self.gaps.partition_point(|gap| (gap.0 as usize) < block * BLOCK);
            let gaps = self.gaps[first..].iter().take_while(|gap| gap.0 as usize <= rank);
            offset += gaps.map(|gap| gap.1).sum::<u64>();
        }
        (offset, self.smallest + size)
    }
}

impl Ranks {
    fn of(&self, entry: u64) -> Option<usize> {
        match self {
            Self::Known(order) => Some(order.rank(entry) as usize),
            Self::Listed { blocks, bits } => {
                let (block, place) = (entry as usize / BLOCK, entry as usize % BLOCK);
                let (lowest, first) = blocks[block];
                let width = blocks[block + 1].1 - first;
                let value = bits.get(first as usize * 64 + place * width as usize, width);
                Some(lowest as usize + value.checked_sub(1)? as usize)
            }
        }
    }

    /// Lists the ranks of stored pairs, and puts the pairs into `by_rank` in that order. None when offsets are so large
    /// that they are not worth it.
    fn list(pairs: &[(u64, u64)], by_rank: &mut Vec<(u64, u64)>) -> Option<Self> {
        // Offset and entry in one integer sort several times faster than pairs do.
        let entry_bits = usize::BITS - pairs.len().leading_zeros();
        let mut keys = Vec::with_capacity(pairs.len());
        for (entry, &pair) in pairs.iter().enumerate() {
            if pair == NOT_STORED {
                continue;
            }
            if pair.0 >> (64 - entry_bits) != 0 {
                return None;
            }
            keys.push(pair.0 << entry_bits | entry as u64);
        }
        by_rank.clear();
        let mut ranks = vec![0u32; pairs.len()];
        for (rank, key) in sorted(&keys).into_iter().enumerate() {
            let entry = (key & ((1 << entry_bits) - 1)) as usize;
            by_rank.push(pairs[entry]);
            ranks[entry] = rank as u32 + 1;
        }
        let span = |block: &[u32]| {
            let stored = || block.iter().filter(|&&rank| rank > 0);
            (stored().min().copied().unwrap_or(1), stored().max().copied().unwrap_or(0))
        };
        let mut blocks = Vec::with_capacity(pairs.len().div_ceil(BLOCK) + 1);
        let mut words = 0;
        for block in ranks.chunks(BLOCK) {
            let (lowest, highest) = span(block);
            blocks.push((lowest - 1, words));
            words += u32::BITS - (highest + 1 - lowest).leading_zeros();
        }
        blocks.push((0, words));
        let mut bits = Bits::zeros(words as usize * 64);
        for (block, pair) in ranks.chunks(BLOCK).zip(blocks.windows(2)) {
            let ((before, first), width) = (pair[0], pair[1].1 - pair[0].1);
            for (place, &rank) in block.iter().enumerate().filter(|(_, rank)| **rank > 0) {
                bits.set(first as usize * 64 + place * width as usize, width, u64::from(rank - before));
            }
        }
        Some(Self::Listed { blocks: blocks.into_boxed_slice(), bits })
    }
}

impl Sizes {
    fn new(by_rank: &[(u64, u64)], smallest: u64, spread: u64, as_words: bool) -> Option<Self> {
        if as_words {
            let words = by_rank.iter().map(|&pair| match pair {
                NOT_STORED => MISSING_16,
                (_, size) => (size - smallest) as u16,
            });
            return Some(Self::Words(words.collect()));
        }
        let has_missing = by_rank.contains(&NOT_STORED);
        let width = u64::BITS - spread.checked_add(u64::from(has_missing))?.leading_zeros();
        if width == u64::BITS {
            return None;
        }
        let missing = if has_missing { Bits::ones(width) } else { MISSING };
        let mut bits = Bits::zeros(by_rank.len().checked_mul(width as usize)?);
        for (rank, &pair) in by_rank.iter().enumerate() {
            let value = if pair == NOT_STORED { missing } else { pair.1 - smallest };
            bits.set(rank * width as usize, width, value);
        }
        Some(Self::Bits { width, missing, bits })
    }

    fn get(&self, rank: usize) -> Option<u64> {
        match self {
            Self::Words(sizes) => Some(sizes[rank]).filter(|&size| size != MISSING_16).map(u64::from),
            Self::Bits { width, missing, bits } => {
                Some(bits.get(rank * *width as usize, *width)).filter(|size| size != missing)
            }
        }
    }

    /// How many chunks are stored from rank `first` to before `rank`, and the sum of their sizes less the smallest.
    fn before(&self, first: usize, rank: usize) -> (u64, u64) {
        match self {
            Self::Words(sizes) => sizes[first..rank].iter().fold((0, 0), |(stored, sum), &size| {
                let is_stored = u64::from(size != MISSING_16);
                (stored + is_stored, sum + is_stored * u64::from(size))
            }),
            Self::Bits { width, missing, bits } => (first..rank).fold((0, 0), |(stored, sum), rank| {
                let size = bits.get(rank * *width as usize, *width);
                if size == *missing { (stored, sum) } else { (stored + 1, sum + size) }
            }),
        }
    }
}

/// `starts` and `gaps` of chunks in the order of `by_rank`; None when some overlap in this order.
#[expect(clippy::type_complexity, reason = "two lists that belong together only here")]
fn lay(by_rank: &[(u64, u64)]) -> Option<(Box<[u64]>, Box<[(u32, u64)]>)> {
    let mut end = by_rank.iter().find(|pair| **pair != NOT_STORED)?.0;
    let mut starts = Vec::with_capacity(by_rank.len().div_ceil(BLOCK));
    let mut gaps = Vec::new();
    for (number, block) in by_rank.chunks(BLOCK).enumerate() {
        starts.push(end);
        for (place, &(offset, size)) in block.iter().enumerate() {
            if (offset, size) == NOT_STORED {
                continue;
            }
            let gap = offset.checked_sub(end)?;
            if gap > 0 {
                gaps.push(((number * BLOCK + place) as u32, gap));
            }
            end = offset + size;
        }
    }
    Some((starts.into_boxed_slice(), gaps.into_boxed_slice()))
}

/// Whether some of the chunks lie in this order; seldom true of an order that is not that of all.
fn is_plausible(order: &Order, pairs: &[(u64, u64)]) -> bool {
    let mut samples: Vec<(u64, u64)> = pairs
        .iter()
        .enumerate()
        .step_by(pairs.len().div_ceil(SAMPLES).max(1))
        .filter(|(_, pair)| **pair != NOT_STORED)
        .map(|(entry, pair)| (order.rank(entry as u64), pair.0))
        .collect();
    samples.sort_unstable();
    samples.is_sorted_by_key(|sample| sample.1)
}

/// The keys in ascending order. Fast where they are spread evenly, as chunks of about one size are.
fn sorted(keys: &[u64]) -> Vec<u64> {
    let (low, high) = keys.iter().fold((u64::MAX, 0), |(low, high), &key| (low.min(key), high.max(key)));
    let span_bits = u64::BITS - high.saturating_sub(low).leading_zeros();
    let shift = span_bits.saturating_sub(usize::BITS - keys.len().leading_zeros());
    let bucket = |key: u64| ((key - low) >> shift) as usize;
    // Up to and with its bucket; then, while buckets are filled from behind, where each begins.
    let mut ends = vec![0u32; keys.last().map_or(0, |_| bucket(high) + 1)];
    keys.iter().for_each(|&key| ends[bucket(key)] += 1);
    let mut sum = 0;
    for end in &mut ends {
        sum += *end;
        *end = sum;
    }
    let mut sorted = vec![0; keys.len()];
    for &key in keys {
        let place = &mut ends[bucket(key)];
        *place -= 1;
        sorted[*place as usize] = key;
    }
    let mut rest = &mut sorted[..];
    for pair in ends.windows(2) {
        let (own, others) = std::mem::take(&mut rest).split_at_mut((pair[1] - pair[0]) as usize);
        own.sort_unstable();
        rest = others;
    }
    rest.sort_unstable();
    sorted
}

fn no_memory(entries: usize) -> Error {
    Error::limit("memory for a shard index", (entries * 16) as u64, MAX_INDEX_NBYTES)
}
