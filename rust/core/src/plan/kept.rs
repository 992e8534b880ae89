//! Chunks of a visit that are at hand decoded: taken out of what is read, before requests are made of the rest.

use std::ops::Range;
use std::sync::Arc;

use crate::chunk_cache::ObjectCache;
use crate::codec::PreparedArray;
use crate::metadata::ArrayMeta;
use crate::plan::Item;
use crate::plan::shard::{Extent, Resolved, StoredChunk};
use crate::subset::ByteRange;

/// A chunk that is at hand, and the items that need it.
#[derive(Debug, Clone)]
pub struct KeptChunk {
    /// Its elements, in native byte order and C order of the stored axes.
    pub elements: Arc<[u8]>,
    /// The items, all of this chunk.
    pub items: Range<usize>,
}

/// The chunks of a visit that are at hand.
#[derive(Debug, Default)]
pub struct Kept {
    /// In the order of their offsets.
    pub chunks: Vec<KeptChunk>,
    /// Bytes of the object that they take.
    pub nbytes: u64,
}

impl Kept {
    /// Takes the chunks that the cache has out of `resolved`, and widens the others (see [`widen`]).
    pub fn take(array: &PreparedArray, items: &[Item], resolved: &mut Resolved, cache: &ObjectCache) -> Self {
        let mut kept = Self::default();
        let found = cache.look_up(resolved.stored.iter().map(|chunk| items[chunk.items.start].chunk));
        for (chunk, found) in std::mem::take(&mut resolved.stored).into_iter().zip(found) {
            if let Some(elements) = found {
                kept.nbytes += whole(array, &chunk).len();
                kept.chunks.push(KeptChunk { elements, items: chunk.items });
            } else {
                resolved.stored.push(chunk);
            }
        }
        widen(array, resolved, cache.room(array.chunk_nbytes));
        kept
    }

    /// Whether the read that was only planned finds the same when it is carried out, and reads the same of `others`, the
    /// number of chunks that are not at hand. Not if it needs more than it may put in: what is at hand may go meanwhile,
    /// and chunks that can be read in part are read whole no longer.
    #[must_use]
    pub fn is_certain(&self, array: &PreparedArray, others: usize, cache: &ObjectCache) -> bool {
        cache.admit(self.chunks.len() + others, array.chunk_nbytes) || (self.chunks.is_empty() && !array.is_plain())
    }

    /// The chunks of an object of `nbytes` bytes that can only be read as a whole; None unless all of them are at hand.
    #[must_use]
    pub fn all(items: &[Item], nbytes: u64, cache: &ObjectCache) -> Option<Self> {
        let groups = || items.chunk_by(|a, b| a.chunk == b.chunk);
        let found: Option<Vec<_>> =
            cache.look_up(groups().filter_map(|group| group.first()).map(|item| item.chunk)).into_iter().collect();
        let mut end = 0;
        let chunks = groups().zip(found?).map(|(group, elements)| {
            let start = end;
            end += group.len();
            KeptChunk { elements, items: start..end }
        });
        Some(Self { chunks: chunks.collect(), nbytes })
    }
}

/// Lets the first `room` chunks be read whole of which a part would have been read, so that they can be kept: the next part
/// of them then takes nothing at all.
pub fn widen(array: &PreparedArray, resolved: &mut Resolved, room: u64) {
    let mut wider = false;
    for chunk in resolved.stored.iter_mut().take(usize::try_from(room).unwrap_or(usize::MAX)) {
        let whole = whole(array, chunk);
        if whole != chunk.range {
            (chunk.range, chunk.extent) = (whole, Extent::Whole);
            wider = true;
        }
    }
    if wider {
        resolved.stored.sort_unstable_by_key(|chunk| (chunk.range, chunk.items.start));
    }
}

/// The bytes of all of a chunk of which some are to be read, where that is known.
fn whole(array: &ArrayMeta, chunk: &StoredChunk) -> ByteRange {
    match chunk.extent {
        Extent::Elements { from } => {
            let start = chunk.range.start.saturating_sub(from as u64);
            ByteRange::from_len(start, array.chunk_nbytes as u64).unwrap_or(chunk.range)
        }
        Extent::Whole | Extent::Blocks { .. } => chunk.range,
    }
}
