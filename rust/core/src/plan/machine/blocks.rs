//! Objects without an index: fetched whole or, where they are one chunk of which parts can be used, as what is needed: of
//! elements as they are the range that holds those voxels, of a large Blosc chunk the blocks.
//!
//! That elements lie where they should is certain only if the object has the size of the chunk, which the reply to the first
//! range tells; of any other object, and of those of a store that tells no sizes, all is fetched, for the decoder to judge. The table of a chunk's blocks comes with its beginning and is kept like an index. It counts for the version that it came
//! with only, so that an object whose store shows no version is fetched whole.

use std::ops::Range;
use std::sync::Arc;

use super::{Flight, Kind, Known, Machine, Mode, Object, Part, RemoteArray, Version, What};
use crate::codec::BlockTable;
use crate::error::{Error, ErrorKind, TransportClass};
use crate::plan::shard::{Extent, Resolved, StoredChunk};
use crate::subset::ByteRange;

/// Blocks of a chunk are fetched alone where that leaves at least this many decoded bytes out: about half as many stored
/// ones, which take a connection to an object store as long as the round trip that it costs (20 ms, 50 MB/s).
const LEFT_OUT_NBYTES: usize = 2 << 20;
/// So much of a chunk is fetched for the table of its blocks: 1,020 of them.
const BEGINNING_NBYTES: u64 = 1 << 12;

/// How a visit gets what it needs of an object.
enum Way {
    Whole,
    Beginning,
    Part(ByteRange, Extent),
}

impl Way {
    /// For bytes `window` of its one chunk, decoded.
    fn of(object: &Object, array: &RemoteArray, window: &Range<usize>, gives_parts: bool) -> Self {
        if array.meta.levels.is_empty() && array.meta.is_plain_in(&object.cell) {
            let has_size = match &object.known {
                Some(Known::Absent { .. }) | None => gives_parts,
                Some(known) => known.is_of_nbytes(array.meta.chunk_nbytes),
            };
            if !has_size || window.len() == array.meta.chunk_nbytes {
                return Self::Whole;
            }
            let range = ByteRange { start: window.start as u64, end: window.end as u64 };
            return Self::Part(range, Extent::Elements { from: window.start });
        }
        if !(array.meta.levels.is_empty() && array.meta.has_blocks()) {
            return Self::Whole;
        }
        let nbytes = array.meta.chunk_nbytes;
        match &object.known {
            // The table may be that of an array that was here before, with other chunks.
            Some(Known::Present { blocks: Some(table), .. }) if table.nbytes() == nbytes => {
                table.range_of(window).map_or(Self::Whole, |range| {
                    Self::Part(range, Extent::Blocks { from: range.start as usize, table: Arc::clone(table) })
                })
            }
            None if nbytes.saturating_sub(window.len()) >= LEFT_OUT_NBYTES => Self::Beginning,
            _ => Self::Whole,
        }
    }
}

impl<P, B: Clone + AsRef<[u8]>> Machine<P, B> {
    /// Takes a visit to an object of at most `limit` bytes that has no index as far as it gets.
    pub(super) fn advance_without_index(&mut self, id: u64, limit: u64) -> Option<Part<P>> {
        if self.take_kept_object(id) {
            return None;
        }
        let visit = self.visits.get_mut(&id)?;
        let object = self.objects.get_mut(&visit.object)?;
        let batch = self.batches.get_mut(&visit.batch)?;
        let shared = Arc::clone(&batch.shared);
        let plan_visit = shared.plan.visit(visit.number);
        let array = &shared.arrays[plan_visit.array];
        let gives_parts = !self.wholes.contains(&object.name.store);
        let whole_nbytes = (array.meta.chunk_nbytes as u64).min(limit);
        let way = match shared.mode {
            // Nothing may be left out.
            Mode::Check => Way::Whole,
            // What is left out could not be kept.
            _ if batch.cache.as_ref().is_some_and(|cache| cache.room(array.meta.chunk_nbytes) > 0) => Way::Whole,
            _ => shared
                .plan
                .window(&plan_visit, &visit.items, &mut Vec::new())
                .map_or(Way::Whole, |window| Way::of(object, array, &window, gives_parts)),
        };
        if let Mode::Explain { .. } = shared.mode {
            let (requests, nbytes) = match &way {
                Way::Whole => (1, whole_nbytes),
                Way::Beginning => (2, BEGINNING_NBYTES + whole_nbytes),
                Way::Part(range, _) => (1, range.len()),
            };
            batch.tally.requests += requests;
            batch.tally.bytes_needed += nbytes;
            batch.tally.bytes_fetched += nbytes;
            batch.tally.round_trips = batch.tally.round_trips.max(requests);
            batch.tally.inexact |= !matches!(way, Way::Part(..)) || object.known.is_none();
            self.end_if_over(id);
            return None;
        }
        let (what, kind, nbytes) = match way {
            Way::Part(range, extent) => {
                let mut resolved = Resolved::default();
                resolved.stored.push(StoredChunk { range, extent, items: 0..visit.items.len() });
                batch.tally.bytes_needed += range.len();
                batch.tally.round_trips = batch.tally.round_trips.max(visit.waited + 1);
                return self.resolved(id, resolved, None);
            }
            Way::Whole => (What::Whole(limit), Kind::Object, whole_nbytes),
            Way::Beginning => {
                (What::Range(ByteRange { start: 0, end: BEGINNING_NBYTES }), Kind::Blocks, BEGINNING_NBYTES)
            }
        };
        // What comes of a beginning is not known yet.
        visit.left = usize::from(matches!(kind, Kind::Object));
        visit.waited += u64::from(matches!(kind, Kind::Blocks));
        object.waiting.insert(id);
        if !std::mem::replace(&mut object.asked, true) {
            let (object, epoch) = (visit.object, object.epoch);
            self.make_ready(Flight { object, epoch, nbytes, what, kind });
        }
        None
    }

    /// Takes the version of an object of which elements were asked for when nothing was known of it. False when it has
    /// another size than its chunk: it is fetched whole then.
    pub(super) fn has_elements(&mut self, id: u64, version: &Version, now_s: f64) -> bool {
        let Some(object) = self.objects.get_mut(&id) else { return false };
        let known = object.first(version.clone(), now_s);
        if known.is_of_nbytes(object.array.meta.chunk_nbytes) {
            object.known = Some(known);
            return true;
        }
        if version.total.is_none() {
            self.wholes.insert(Arc::clone(&object.name.store));
        }
        self.begin_again(id, Some(known));
        false
    }

    /// Notes that elements of an object cannot be fetched alone: it is too short, or the server does not give a part.
    pub(super) fn is_no_chunk(&mut self, id: u64, now_s: f64) {
        let Some(object) = self.objects.get(&id) else { return };
        let known = object.first(Version::default(), now_s);
        self.begin_again(id, Some(known));
    }

    /// Takes the beginning of an object.
    pub(super) fn beginning(&mut self, id: u64, version: Version, body: &[u8], now_s: f64) {
        let Some(object) = self.objects.get(&id) else { return };
        let meta = &object.array.meta;
        let is_versioned = version.etag.is_some() || (version.modified.is_some() && version.total.is_some());
        let is_chunk = |table: &BlockTable| {
            table.nbytes() == meta.chunk_nbytes
                && version.total.is_none_or(|total| total == table.cbytes())
                && meta.whole_object_limit().is_some_and(|limit| table.cbytes() <= limit)
        };
        // Whatever is wrong with it, its decoder will say.
        let table = BlockTable::parse(body).ok().flatten().filter(|table| is_versioned && is_chunk(table));
        self.counters.index_misses += u64::from(table.is_some());
        self.blocks_known(id, version, table, now_s);
    }

    /// Notes that the blocks of an object cannot be fetched alone: it is too short, or the server does not give a part.
    pub(super) fn has_no_blocks(&mut self, id: u64, now_s: f64) {
        self.blocks_known(id, Version::default(), None, now_s);
    }

    fn blocks_known(&mut self, id: u64, version: Version, table: Option<BlockTable>, now_s: f64) {
        let Some(object) = self.objects.get_mut(&id) else { return };
        object.asked = false;
        let blocks = table.map(Arc::new);
        let mut known = object.first(version, now_s);
        if let Known::Present { blocks: none, .. } = &mut known {
            *none = blocks;
        }
        object.known = Some(known);
        self.wake(id, None);
    }
}

/// Whether an error of a request for the beginning says nothing of one for the whole.
pub(super) fn is_of_parts(error: &Error) -> bool {
    use TransportClass::{Limit, ObjectChanged, RangeNotHonoured, Store, Unsupported};
    matches!(
        error.kind(),
        ErrorKind::Transport { class: Limit | ObjectChanged | RangeNotHonoured | Store | Unsupported, .. }
            | ErrorKind::Store { .. }
    )
}
