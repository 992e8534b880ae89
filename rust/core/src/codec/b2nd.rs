//! Chunks of Blosc2 NDim arrays (`.b2nd`): Blosc 2 chunks whose blocks are boxes.
//!
//! In: a Blosc 2 chunk. Out: its elements in C order. A chunk is cut into boxes of one shape, in C order of their places;
//! each is a block, its elements in C order. Boxes that reach over the end of the chunk are stored whole, and so are chunks
//! at the end of the array. Blocks are decoded alone, so that a window needs only those that it touches.
//!
//! Source: C-Blosc2 `README_B2ND_FORMAT`.

use std::ops::Range;

use super::blosc2::Blosc2Chunk;
use super::sink::{check_len, resize};
use super::{CodecChain, CodecContext, swap_bytes_in_place};
use crate::error::{Error, Result};
use crate::metadata::{B2ndSpec, CodecSpec};

const NAME: &str = "b2nd";

impl CodecChain {
    /// True when a stored chunk is cut into boxes and nothing else: those that a box needs can be decoded without the rest.
    #[must_use]
    pub fn has_boxes(&self) -> bool {
        matches!(self.codecs.as_slice(), [CodecSpec::B2nd(_)])
    }

    /// Decodes at least a box of a chunk as [`CodecChain::decode_window`] does: `extents` voxels along each axis, from the
    /// first to the last of which it takes the bytes `window`.
    ///
    /// # Errors
    /// As [`CodecChain::decode_window`].
    pub fn decode_box(
        &self,
        context: &mut CodecContext,
        encoded: &[u8],
        (extents, window): (&[Range<usize>], Range<usize>),
        out: &mut [u8],
    ) -> Result<()> {
        self.check_window(&window, out)?;
        let [CodecSpec::B2nd(spec)] = self.codecs.as_slice() else {
            return Err(Error::internal("a box of a chunk that is none"));
        };
        decode_box(context, spec, encoded, extents, out)?;
        swap_bytes_in_place(&mut out[window], self.swap_unit);
        Ok(())
    }
}

/// Decodes the blocks that hold bytes of `window` into their places in `out`, which is the whole chunk; the rest may hold
/// anything.
///
/// # Errors
/// `Codec` when the chunk is broken or of another size, `Unsupported` for what is not read, `Limit` when memory is short.
pub(super) fn decode_window(
    context: &mut CodecContext,
    spec: &B2ndSpec,
    encoded: &[u8],
    window: &Range<usize>,
    out: &mut [u8],
) -> Result<()> {
    decode_box(context, spec, encoded, &box_of(spec, window), out)
}

/// Decodes the blocks that touch a box of the chunk, `wanted` voxels along each axis, as [`decode_window`] does.
///
/// # Errors
/// As [`decode_window`].
pub(super) fn decode_box(
    context: &mut CodecContext,
    spec: &B2ndSpec,
    encoded: &[u8],
    wanted: &[Range<usize>],
    out: &mut [u8],
) -> Result<()> {
    check_len(NAME, out.len(), spec.chunk_nbytes())?;
    let mut chunk = Blosc2Chunk::parse(encoded)?;
    if chunk.nbytes() != spec.padded_nbytes() || chunk.blocksize().is_some_and(|size| size != spec.block_nbytes()) {
        let (has, needs) = ((chunk.nbytes(), chunk.blocksize()), (spec.padded_nbytes(), spec.block_nbytes()));
        let what = format!("chunks {:?} in blocks {:?} take {needs:?} bytes", spec.chunk_shape(), spec.block_shape());
        return Err(Error::codec(NAME, format!("{what}, this one (nbytes, blocksize) {has:?}")));
    }
    let axes = wanted.iter().zip(spec.block_shape()).zip(spec.grid());
    let blocks: Vec<Range<usize>> =
        axes.map(|((axis, &step), count)| axis.start / step..axis.end.div_ceil(step).min(count)).collect();
    if blocks.iter().any(Range::is_empty) {
        return Ok(());
    }
    let mut memory = std::mem::take(&mut context.boxed);
    let mut at: Vec<usize> = blocks.iter().map(|axis| axis.start).collect();
    let decoded = resize(&mut memory, spec.block_nbytes()).and_then(|()| {
        loop {
            let number = at.iter().zip(spec.grid()).fold(0, |number, (&at, blocks)| number * blocks + at);
            let place = Place::of(spec, &at);
            match place.run(out) {
                // Blocks that are one run of the chunk need no copy.
                Some(run) => chunk.decode_block(context, number, run)?,
                None => {
                    chunk.decode_block(context, number, &mut memory)?;
                    place.scatter(&memory, out)?;
                }
            }
            if !advance(&mut at, &blocks) {
                return Ok(());
            }
        }
    });
    context.boxed = memory;
    decoded
}

/// The smallest box that holds the bytes `window` of a chunk.
fn box_of(spec: &B2ndSpec, window: &Range<usize>) -> Vec<Range<usize>> {
    let mut wanted = Vec::with_capacity(spec.chunk_shape().len());
    let (mut first, mut last) = (window.start, window.end.saturating_sub(1));
    let mut step = spec.chunk_nbytes();
    for &extent in spec.chunk_shape() {
        step /= extent;
        let range = first / step..last / step + 1;
        (first, last) = if range.len() == 1 { (first % step, last % step) } else { (0, step - 1) };
        wanted.push(if window.is_empty() { 0..0 } else { range });
    }
    wanted
}

/// Where a block lies in its chunk. Its last axes, as far as both have them whole, are one run of bytes with the axis before.
struct Place {
    /// Of each axis that is no part of a run, the number of steps and the bytes of one in the chunk and in the block.
    axes: Vec<(usize, usize, usize)>,
    /// First byte in the chunk.
    start: usize,
    run_nbytes: usize,
    block_nbytes: usize,
}

impl Place {
    /// The place of the block with these coordinates in the grid of blocks.
    fn of(spec: &B2ndSpec, at: &[usize]) -> Self {
        let block_nbytes = spec.block_nbytes();
        let mut place = Self { axes: Vec::new(), start: 0, run_nbytes: spec.item_size(), block_nbytes };
        let (mut in_chunk, mut in_block) = (spec.item_size(), spec.item_size());
        let mut is_run = true;
        for ((&chunk, &block), &at) in spec.chunk_shape().iter().zip(spec.block_shape()).zip(at).rev() {
            let origin = at * block;
            let extent = block.min(chunk - origin.min(chunk));
            place.start += origin * in_chunk;
            if is_run {
                place.run_nbytes *= extent;
                is_run = extent == chunk && extent == block;
            } else {
                place.axes.push((extent, in_chunk, in_block));
            }
            in_chunk *= chunk;
            in_block *= block;
        }
        place.axes.reverse();
        place
    }

    /// The block in the chunk, when it is one run of it.
    fn run<'o>(&self, out: &'o mut [u8]) -> Option<&'o mut [u8]> {
        if self.run_nbytes != self.block_nbytes {
            return None;
        }
        out.get_mut(self.start..)?.get_mut(..self.run_nbytes)
    }

    /// Copies a decoded block into its chunk.
    fn scatter(&self, block: &[u8], out: &mut [u8]) -> Result<()> {
        let counts: Vec<Range<usize>> = self.axes.iter().map(|&(count, ..)| 0..count).collect();
        let mut at = vec![0; counts.len()];
        loop {
            let steps = || at.iter().zip(&self.axes);
            let to = steps().fold(self.start, |to, (&at, &(_, step, _))| to + at * step);
            let from = steps().fold(0, |from, (&at, &(.., step))| from + at * step);
            let from = block.get(from..).and_then(|rest| rest.get(..self.run_nbytes));
            match (from, out.get_mut(to..).and_then(|rest| rest.get_mut(..self.run_nbytes))) {
                (Some(from), Some(to)) => to.copy_from_slice(from),
                _ => return Err(Error::internal("a block outside of its chunk")),
            }
            if !advance(&mut at, &counts) {
                return Ok(());
            }
        }
    }
}

/// The next coordinates within `ranges` in C order; false, and the first ones again, after the last.
fn advance(at: &mut [usize], ranges: &[Range<usize>]) -> bool {
    for (at, range) in at.iter_mut().zip(ranges).rev() {
        *at += 1;
        if *at < range.end {
            return true;
        }
        *at = range.start;
    }
    false
}
