//! Chunks of one visited shard -> their byte ranges, through as many index levels as the shard has.
//!
//! An index that is not at hand is not waited for: it is named in [`Resolved::needs`], and the caller resolves again when
//! it has it. So the same code serves a caller that can read at once and one that has to ask and come back.

use std::ops::Range;
use std::sync::Arc;

use crate::codec::BlockTable;
use crate::error::{Error, Result};
use crate::index::ShardIndex;
use crate::plan::{AxisPart, Item, Plan, Visit};
use crate::subset::{ByteRange, MAX_RANK};

/// Gives indexes by their place.
pub trait IndexSource {
    /// The index of the shard that takes `shard` bytes of the object, at nesting `level` (0 = the object itself);
    /// None when it has to be read first.
    ///
    /// # Errors
    /// Whatever makes the index unusable.
    fn index(&mut self, level: usize, shard: ByteRange) -> Result<Option<Arc<ShardIndex>>>;
}

/// Which bytes of a chunk a range holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// All.
    Whole,
    /// Those from byte `from` on that the items need; they are the elements as they are.
    Elements {
        /// Bytes of the chunk before them.
        from: usize,
    },
    /// Those from byte `from` on that hold the blocks that the items need.
    Blocks {
        /// Bytes of the chunk before them.
        from: usize,
        /// Where its blocks lie.
        table: Arc<BlockTable>,
    },
}

/// One stored chunk and the items that need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChunk {
    /// Its bytes in the object, or those that the items need.
    pub range: ByteRange,
    /// Which of its bytes these are.
    pub extent: Extent,
    /// The items, all of the same chunk.
    pub items: Range<usize>,
}

/// What is known of the chunks of a visit.
#[derive(Debug, Default)]
pub struct Resolved {
    /// Stored chunks, sorted by offset.
    pub stored: Vec<StoredChunk>,
    /// Items of chunks that are not stored: fill value.
    pub missing: Vec<Range<usize>>,
    /// Items of chunks whose place cannot be found, and why.
    pub failed: Vec<(Range<usize>, Error)>,
    /// Indexes that have to be read before the rest is known.
    pub needs: Vec<(usize, ByteRange)>,
}

/// Finds the bytes of each item's chunk in an object of `object_nbytes` bytes. `items` are sorted by chunk.
pub fn resolve(
    plan: &Plan,
    visit: &Visit<'_>,
    items: &[Item],
    object_nbytes: u64,
    source: &mut dyn IndexSource,
) -> Resolved {
    let array = &plan.arrays()[visit.array];
    let max_chunk_nbytes = array.max_chunk_nbytes();
    let mut resolved = Resolved { stored: Vec::with_capacity(items.len()), ..Resolved::default() };
    // The last shard looked into at each level: neighbours in C order mostly share it.
    let mut last: Vec<Option<(ByteRange, Arc<ShardIndex>)>> = vec![None; array.levels.len()];
    let mut coordinates = [0u64; MAX_RANK];
    let coordinates = &mut coordinates[..array.rank()];
    // Else the entries of the one index are numbered as the chunks are.
    let by_place = array.levels.len() > 1 || array.is_irregular() || array.table().is_some();
    let mut parts = Vec::with_capacity(array.rank());
    let mut first = 0;
    'chunks: while first < items.len() {
        let chunk = items[first].chunk;
        let end = first + items[first..].iter().take_while(|item| item.chunk == chunk).count();
        let group = first..end;
        first = end;
        if by_place {
            plan.chunk_coordinates(visit.array, chunk, coordinates);
        }
        let mut range = ByteRange { start: 0, end: object_nbytes };
        for (level, last) in last.iter_mut().enumerate() {
            let index = match last {
                Some((at, index)) if *at == range => &*index,
                _ => match source.index(level, range) {
                    Ok(Some(index)) => &last.insert((range, index)).1,
                    Ok(None) => {
                        if !resolved.needs.contains(&(level, range)) {
                            resolved.needs.push((level, range));
                        }
                        continue 'chunks;
                    }
                    Err(error) => {
                        resolved.failed.push((group, error.in_range(range)));
                        continue 'chunks;
                    }
                },
            };
            let found = index.get(if by_place { array.entry(level, &visit.shard, coordinates) } else { chunk });
            match found {
                Ok(Some(place)) if array.levels[level].index.is_absolute() => range = place,
                Ok(Some(within)) => {
                    // Inside the parent by ShardIndex::get, so the sums cannot pass the object's size.
                    range = ByteRange { start: range.start + within.start, end: range.start + within.end };
                }
                Ok(None) => {
                    resolved.missing.push(group);
                    continue 'chunks;
                }
                Err(error) => {
                    resolved.failed.push((group, error));
                    continue 'chunks;
                }
            }
        }
        // A sparse file may claim any size; nothing is read for a chunk that its codecs cannot have made.
        if range.len() > max_chunk_nbytes {
            let what =
                format!("a chunk of {} bytes, more than its codecs can have made ({max_chunk_nbytes})", range.len());
            resolved.failed.push((group, Error::shard_index(what).in_range(range)));
            continue;
        }
        match needed(plan, visit, &items[group.clone()], range, &mut parts) {
            Ok((range, extent)) => resolved.stored.push(StoredChunk { range, extent, items: group }),
            Err(error) => resolved.failed.push((group, error.in_range(range))),
        }
    }
    resolved.stored.sort_unstable_by_key(|chunk| (chunk.range, chunk.items.start));
    resolved
}

/// The bytes of a chunk stored at `range` that are to be read.
///
/// # Errors
/// `Internal` for items that lie outside the chunk.
pub fn needed<'p>(
    plan: &'p Plan,
    visit: &Visit<'_>,
    items: &[Item],
    range: ByteRange,
    parts: &mut Vec<AxisPart<'p>>,
) -> Result<(ByteRange, Extent)> {
    let array = &plan.arrays()[visit.array];
    // A chunk of another length is read as it is, for the decoder to refuse.
    if !array.is_plain() || range.len() != array.chunk_nbytes as u64 {
        return Ok((range, Extent::Whole));
    }
    let window = plan.window(visit, items, parts)?;
    if window.len() == array.chunk_nbytes {
        return Ok((range, Extent::Whole));
    }
    let (start, end) = (range.start + window.start as u64, range.start + window.end as u64);
    Ok((ByteRange { start, end }, Extent::Elements { from: window.start }))
}
