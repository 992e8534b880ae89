//! Decoded chunks -> the caller's arrays.
//!
//! A chunk that is one contiguous run of its output is decoded straight into it; any other goes through one scratch of
//! the worker and one [`copy`], decoded no further than the last voxel needed where that takes less. With a cache it is
//! decoded whole, into memory of its own. Chunks that are not stored become the fill value. Here and in [`copy`] is the
//! only memory that the core does not own.

#![expect(unsafe_code, reason = "writes into the caller's memory")]

mod copy;
pub mod job;
mod kept;
mod tile;

use std::sync::{Arc, Mutex, PoisonError};

use crate::chunk_cache::ObjectCache;
use crate::codec::{CodecContext, Verify};
use crate::error::{Error, Result};
use crate::metadata::{ArrayMeta, ChunkBox};
use crate::plan::shard::Extent;
use crate::plan::{AxisPart, Item, Plan, Visit, window};
use crate::subset::{ByteRange, MAX_RANK};
use copy::Dim;

/// The memory of one read's output: where a place along each axis lies. Strides in bytes, any sign.
#[derive(Debug, Clone)]
pub struct Output {
    base: *mut u8,
    box_stride: isize,
    box_count: usize,
    strides: Vec<isize>,
    counts: Vec<u64>,
}

// SAFETY: an Output is an address and numbers; whoever made it promised that the memory may be written from any thread.
// Not guaranteed here: that two workers never write the same byte, which the plan guarantees (each voxel has one chunk).
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

impl Output {
    /// Describes memory: `box_count` boxes `box_stride` bytes apart, each with `counts[k]` places `strides[k]` bytes apart
    /// along axis `k`.
    ///
    /// # Safety
    /// Every place so described is valid for writes of one item until the last user of this value is gone; no two
    /// places overlap; nobody else reads or writes them meanwhile.
    #[must_use]
    pub unsafe fn new(
        base: *mut u8,
        box_count: usize,
        box_stride: isize,
        counts: Vec<u64>,
        strides: Vec<isize>,
    ) -> Self {
        Self { base, box_stride, box_count, strides, counts }
    }

    /// First byte of box `part`.
    fn origin(&self, part: u32) -> Result<*mut u8> {
        if part as usize >= self.box_count {
            return Err(Error::internal("a planned box lies outside its output"));
        }
        // The box exists, so its offset fits an isize (it is an offset inside one allocation).
        Ok(self.base.wrapping_offset(part as isize * self.box_stride))
    }

    /// Writes the fill value to every place of box `part`.
    ///
    /// # Errors
    /// `Internal` when there is no such box.
    pub fn fill_box(&self, part: u32, fill_value: &[u8]) -> Result<()> {
        let dims: Vec<Dim> = self
            .counts
            .iter()
            .zip(&self.strides)
            .map(|(&count, &dst)| Dim { count: count as usize, src: 0, dst })
            .collect();
        let origin = self.origin(part)?;
        // SAFETY: all places of the box, valid by the contract of `new`.
        unsafe { copy::fill(fill_value, origin, dims) };
        Ok(())
    }
}

/// Where a read goes to.
#[derive(Debug, Clone)]
pub enum Target {
    /// Voxels, to memory.
    Voxels(Output),
    /// A chunk as it is stored; left empty where it is not.
    Encoded(Arc<Mutex<Option<Box<[u8]>>>>),
}

impl From<Output> for Target {
    fn from(output: Output) -> Self {
        Self::Voxels(output)
    }
}

/// What one thread re-uses from chunk to chunk.
#[derive(Default)]
pub struct Worker {
    /// Codec contexts and their scratch.
    pub codec: CodecContext,
    scratch: Vec<u8>,
}

/// Bytes of a decoded chunk that a worker keeps for the next one.
const KEPT_SCRATCH_NBYTES: usize = 8 << 20;

impl Worker {
    /// Gives back memory that an unusually large chunk took.
    pub fn trim(&mut self) {
        if self.scratch.capacity() > KEPT_SCRATCH_NBYTES {
            self.scratch = Vec::new();
        }
        self.codec.trim(KEPT_SCRATCH_NBYTES);
    }
}

/// The bytes of a stored chunk that were read.
#[derive(Debug, Clone, Copy)]
pub struct Encoded<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Which of its bytes these are.
    pub extent: &'a Extent,
}

impl<'a> From<&'a [u8]> for Encoded<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self { bytes, extent: &Extent::Whole }
    }
}

/// The reads of a plan with the memory they go to; None for a read that is only checked.
#[derive(Debug)]
pub struct Assembly<'a> {
    /// What is read.
    pub plan: &'a Plan,
    /// One per read of the plan.
    pub outputs: &'a [Option<Target>],
    /// Which checksums are computed.
    pub verify: Verify,
    /// Where chunks of the object are kept that are decoded; None when they are not.
    pub cache: Option<&'a ObjectCache>,
}

impl Assembly<'_> {
    /// Delivers one chunk to all items that need it. `encoded` is None for a chunk that is not stored.
    ///
    /// # Errors
    /// Whatever the codecs refuse, naming the chunk.
    pub fn deliver(
        &self,
        worker: &mut Worker,
        visit: &Visit<'_>,
        items: &[Item],
        encoded: Option<Encoded<'_>>,
    ) -> Result<()> {
        self.deliver_inner(worker, visit, items, encoded).map_err(|error| match items.first() {
            Some(item) => error.in_chunk(&self.plan.chunk_position(visit, item.chunk)),
            None => error,
        })
    }

    fn deliver_inner(
        &self,
        worker: &mut Worker,
        visit: &Visit<'_>,
        items: &[Item],
        encoded: Option<Encoded<'_>>,
    ) -> Result<()> {
        let array = &*self.plan.arrays()[visit.array];
        let Worker { codec, scratch } = worker;
        if self.hand_over(visit, items, encoded)? {
            return Ok(());
        }
        if let Some(encoded) = encoded
            && self.deliver_and_keep(codec, visit, items, encoded)?
        {
            return Ok(());
        }
        let mut parts = Vec::with_capacity(array.rank());
        let shape = array.chunk_box(&visit.shard);
        let Some(encoded) = encoded else {
            for &item in items {
                if let Some((output, part)) = self.output(visit, item) {
                    self.plan.project(visit, item, &mut parts)?;
                    place(None, &array.fill_value, &parts, output, part, &shape)?;
                }
            }
            return Ok(());
        };
        let Encoded { bytes: encoded, extent } = encoded;
        let (elements, from): (&[u8], usize) = if let Extent::Elements { from } = *extent {
            (encoded, from)
        } else if let Some(view) = array.view(encoded, self.verify, &visit.shard)? {
            (view, 0)
        } else {
            if let (Extent::Whole, &[item]) = (extent, items)
                && let Some((output, part)) = self.output(visit, item)
            {
                self.plan.project(visit, item, &mut parts)?;
                if let Some(target) = contiguous(&parts, output, part, &shape)? {
                    let all = 0..target.len();
                    return array.decode_window(codec, encoded, self.verify, &visit.shard, all, target);
                }
            }
            let nbytes = shape.nbytes();
            if scratch.len() < nbytes {
                scratch
                    .try_reserve_exact(nbytes - scratch.len())
                    .map_err(|_| Error::limit("memory for a decoded chunk", nbytes as u64, scratch.len() as u64))?;
                scratch.resize(nbytes, 0);
            }
            let chunk = &mut scratch[..nbytes];
            if let Extent::Blocks { from, table } = extent {
                let blocks = (&**table, *from, encoded);
                array.chain().decode_blocks(codec, blocks, self.plan.window(visit, items, &mut parts)?, chunk)?;
            } else {
                // Of a chunk that is only checked, nothing may be left out.
                let in_part = array.has_parts() && items.iter().all(|&item| self.output(visit, item).is_some());
                let window = if in_part { self.plan.window(visit, items, &mut parts)? } else { 0..nbytes };
                if in_part && array.has_boxes() {
                    let extents = self.plan.extents(visit, items, &mut parts)?;
                    array.chain().decode_box(codec, encoded, (&extents, window), chunk)?;
                } else {
                    array.decode_window(codec, encoded, self.verify, &visit.shard, window, chunk)?;
                }
            }
            (chunk, 0)
        };
        for &item in items {
            if let Some((output, part)) = self.output(visit, item) {
                self.plan.project(visit, item, &mut parts)?;
                place(Some((elements, from)), &[], &parts, output, part, &shape)?;
            }
        }
        Ok(())
    }

    /// Delivers the items of a visit from a whole object in memory: for arrays whose shards are encoded as a whole, so
    /// that no part of them can be read alone.
    ///
    /// # Errors
    /// The first problem of a chunk, an index or an outer codec.
    pub fn deliver_object(&self, worker: &mut Worker, visit: &Visit<'_>, items: &[Item], object: &[u8]) -> Result<()> {
        let groups: Vec<&[Item]> = items.chunk_by(|a, b| a.chunk == b.chunk).collect();
        self.deliver_level(worker, visit, 0, &groups, object)
    }

    fn deliver_level(
        &self,
        worker: &mut Worker,
        visit: &Visit<'_>,
        level: usize,
        groups: &[&[Item]],
        bytes: &[u8],
    ) -> Result<()> {
        let array = &*self.plan.arrays()[visit.array];
        let Some(spec) = array.level_in(level, &visit.shard) else {
            return groups.iter().try_for_each(|items| self.deliver(worker, visit, items, Some(bytes.into())));
        };
        let decoded;
        let shard = match array.outer(level) {
            None => bytes,
            Some(outer) => {
                let limit = array.max_shard_nbytes(level);
                decoded = outer.decode_to_vec(&mut worker.codec, bytes, self.verify, limit)?;
                &decoded
            }
        };
        let nbytes = shard.len() as u64;
        let whole = ByteRange { start: 0, end: nbytes };
        let range = spec.index.range(whole)?.ok_or_else(|| Error::internal("an encoded shard without an index"))?;
        let encoded = &shard[range.start as usize..range.end as usize];
        let index = spec.index.decode(&spec.grid, encoded, whole, nbytes)?;
        // Groups by entry of this level.
        let mut entries: Vec<(u64, &[Item])> = Vec::with_capacity(groups.len());
        let mut coordinates = [0u64; MAX_RANK];
        let coordinates = &mut coordinates[..array.rank()];
        for group in groups {
            self.plan.chunk_coordinates(visit.array, group[0].chunk, coordinates);
            entries.push((array.entry(level, &visit.shard, coordinates), group));
        }
        entries.sort_by_key(|e| e.0);
        for same in entries.chunk_by(|a, b| a.0 == b.0) {
            let inner: Vec<&[Item]> = same.iter().map(|e| e.1).collect();
            match index.get(same[0].0)? {
                None => inner.iter().try_for_each(|items| self.deliver(worker, visit, items, None))?,
                Some(at) => {
                    let within = &shard[at.start as usize..at.end as usize];
                    self.deliver_level(worker, visit, level + 1, &inner, within)?;
                }
            }
        }
        Ok(())
    }

    /// Gives a chunk as it is stored to the items that want it so; true when there are no others.
    fn hand_over(&self, visit: &Visit<'_>, items: &[Item], encoded: Option<Encoded<'_>>) -> Result<bool> {
        let mut only = !items.is_empty();
        for &item in items {
            let read = visit.pieces[item.piece as usize].read;
            let Some(Some(Target::Encoded(slot))) = self.outputs.get(read as usize) else {
                only = false;
                continue;
            };
            let Some(Encoded { bytes, extent }) = encoded else { continue };
            if !matches!(extent, Extent::Whole | Extent::Elements { from: 0 }) {
                return Err(Error::internal("a part of a chunk that is wanted as it is stored"));
            }
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes.into());
        }
        Ok(only)
    }

    fn output(&self, visit: &Visit<'_>, item: Item) -> Option<(&Output, u32)> {
        let piece = visit.pieces[item.piece as usize];
        match self.outputs.get(piece.read as usize)?.as_ref()? {
            Target::Voxels(output) => Some((output, piece.part)),
            Target::Encoded(_) => None,
        }
    }
}

/// The output memory of a chunk when it takes the whole chunk in stored order without a gap.
#[expect(clippy::mut_from_ref, reason = "an Output is an address; the memory behind it is the caller's")]
fn contiguous<'o>(
    parts: &[AxisPart<'_>],
    output: &'o Output,
    box_number: u32,
    chunk: &ChunkBox<'_>,
) -> Result<Option<&'o mut [u8]>> {
    let mut offset = 0isize;
    let mut expected = chunk.array.dtype.item_size() as isize;
    for &axis in chunk.array.chunk_order.iter().rev() {
        let AxisPart::Run { src: 0, step: 1, dst, count } = parts[axis] else { return Ok(None) };
        if count != chunk.extent[axis] || (count > 1 && output.strides[axis] != expected) {
            return Ok(None);
        }
        offset += dst as isize * output.strides[axis];
        expected *= count as isize;
    }
    check_places(parts, output)?;
    let base = output.origin(box_number)?.wrapping_offset(offset);
    // SAFETY: the places [dst, dst + count) of every axis exist (checked above) and, the strides being those of a packed
    // array, are `expected` consecutive bytes. The bytes may be uninitialised: they are only written before they are
    // read, as every decoder fills its output before it looks back into it. No other worker has this chunk.
    Ok(Some(unsafe { std::slice::from_raw_parts_mut(base, expected as usize) }))
}

/// An axis of which single voxels are wanted: strides in bytes, the chunk's first voxel, (voxel, place).
struct ListedAxis<'a> {
    src: isize,
    dst: isize,
    origin: u64,
    voxels: &'a [(u64, u64)],
}

/// Copies a projection of a decoded chunk, of which the bytes from some byte on are given, or of the fill value when there
/// is none, to its places.
fn place(
    elements: Option<(&[u8], usize)>,
    fill_value: &[u8],
    parts: &[AxisPart<'_>],
    output: &Output,
    box_number: u32,
    chunk: &ChunkBox<'_>,
) -> Result<()> {
    check_places(parts, output)?;
    let item_size = chunk.array.dtype.item_size();
    // Strides of the chunk in array axes.
    let mut strides = [0isize; MAX_RANK];
    let mut stride = item_size as isize;
    for &axis in chunk.array.chunk_order.iter().rev() {
        strides[axis] = stride;
        stride *= chunk.extent[axis] as isize;
    }
    let window = window(parts, chunk)?;
    let elements = match elements {
        None => None,
        Some((bytes, from)) if from <= window.start && window.end - from <= bytes.len() => Some((bytes, from)),
        Some(_) => return Err(Error::internal("a projection reaches outside what was read of its chunk")),
    };
    let mut dims = Vec::with_capacity(parts.len());
    let mut lists: Vec<ListedAxis<'_>> = Vec::new();
    let (mut src_offset, mut dst_offset) = (0isize, 0isize);
    for (axis, part) in parts.iter().enumerate() {
        match *part {
            AxisPart::Run { src, step, dst, count } => {
                src_offset += src as isize * strides[axis];
                dst_offset += dst as isize * output.strides[axis];
                dims.push(Dim { count: count as usize, src: strides[axis] * step as isize, dst: output.strides[axis] });
            }
            AxisPart::List { origin, voxels } => {
                lists.push(ListedAxis { src: strides[axis], dst: output.strides[axis], origin, voxels });
            }
        }
    }
    let origin = output.origin(box_number)?;
    // The listed axes are walked one voxel at a time, the others copied together.
    let total: usize = lists.iter().map(|list| list.voxels.len()).product();
    for number in 0..total {
        let (mut src, mut dst, mut rest) = (src_offset, dst_offset, number);
        for list in lists.iter().rev() {
            let (voxel, place) = list.voxels[rest % list.voxels.len()];
            rest /= list.voxels.len();
            src += (voxel - list.origin) as isize * list.src;
            dst += place as isize * list.dst;
        }
        let target = origin.wrapping_offset(dst);
        // SAFETY: sources: every voxel of the projection lies inside its window (a plan's voxels are sorted), which lies
        // inside `bytes`, the chunk from byte `from` on (checked above). Targets: every place exists (check_places). They
        // cannot overlap: `bytes` are the worker's scratch, a body or a cache, never the caller's memory.
        unsafe {
            match elements {
                Some((bytes, from)) => {
                    let source = bytes.as_ptr().offset(src - from as isize);
                    copy::strided(source, target, dims.clone(), item_size);
                }
                None => copy::fill(fill_value, target, dims.clone()),
            }
        }
    }
    Ok(())
}

fn check_places(parts: &[AxisPart<'_>], output: &Output) -> Result<()> {
    let inside = parts.len() == output.counts.len()
        && parts.iter().zip(&output.counts).all(|(part, &places)| match part {
            AxisPart::Run { dst, count, .. } => dst.checked_add(*count).is_some_and(|end| end <= places),
            AxisPart::List { voxels, .. } => voxels.iter().all(|v| v.1 < places),
        });
    if inside { Ok(()) } else { Err(Error::internal("a projection reaches outside its output")) }
}

/// The memory that a write comes from: a box of the array. Strides in bytes, any sign.
#[derive(Debug, Clone)]
pub struct Input {
    base: *const u8,
    strides: Vec<isize>,
    /// First voxel of the box.
    start: Vec<u64>,
    /// Extent of the box.
    counts: Vec<u64>,
}

// SAFETY: an address and numbers, as for Output; the memory is only read.
unsafe impl Send for Input {}
// SAFETY: as above.
unsafe impl Sync for Input {}

impl Input {
    /// Describes memory: the box of `counts` voxels from `start`, voxels `strides[k]` bytes apart along axis `k`.
    ///
    /// # Safety
    /// Every voxel so described is valid for reads of one item until the last user of this value is gone, and nobody
    /// writes it meanwhile.
    #[must_use]
    pub unsafe fn new(base: *const u8, start: Vec<u64>, counts: Vec<u64>, strides: Vec<isize>) -> Self {
        Self { base, strides, start, counts }
    }

    /// Copies the chunk whose first voxel is `first` into `chunk` (C order of the stored axes); voxels outside the array
    /// become the fill value. False when no voxel of it lies inside the array.
    ///
    /// # Errors
    /// `Internal` when the box does not cover the part of the chunk that lies inside the array.
    pub(crate) fn gather(&self, array: &ArrayMeta, first: &[u64], chunk: &mut [u8]) -> Result<bool> {
        let item_size = array.dtype.item_size();
        let mut dims = Vec::with_capacity(array.rank());
        let mut offset = 0isize;
        let mut whole = true;
        let mut stride = item_size as isize;
        for &axis in array.chunk_order.iter().rev() {
            let (low, extent) = (first[axis], array.chunk_shape[axis]);
            let count = array.shape[axis].saturating_sub(low).min(extent);
            if count == 0 {
                return Ok(false);
            }
            if low < self.start[axis] || low - self.start[axis] + count > self.counts[axis] {
                return Err(Error::internal("a chunk to write reaches outside its data"));
            }
            whole &= count == extent;
            offset += (low - self.start[axis]) as isize * self.strides[axis];
            dims.push(Dim { count: count as usize, src: self.strides[axis], dst: stride });
            stride *= extent as isize;
        }
        if chunk.len() as isize != stride {
            return Err(Error::internal("memory for a chunk has the wrong size"));
        }
        if !whole {
            chunk.chunks_exact_mut(item_size).for_each(|item| item.copy_from_slice(&array.fill_value));
        }
        // SAFETY: sources lie inside the box (checked above) and targets inside `chunk` (its strides are those of a packed
        // chunk and its length is checked); the caller's memory and `chunk` are different allocations.
        unsafe { copy::strided(self.base.wrapping_offset(offset), chunk.as_mut_ptr(), dims, item_size) };
        Ok(true)
    }
}
