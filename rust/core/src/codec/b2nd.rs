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
use super::{CodecChain, CodecContext};
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
        self.conversion.apply(&mut out[window]);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::{Verify, blosc2};
    use crate::dtype::{DataType, Endian};

    /// A chunk with its blocks stored as they are.
    fn stored(blocks: &[u8], blocksize: usize) -> Vec<u8> {
        let mut chunk = vec![5, 1, 0x07 | 0x10, 1];
        for size in [blocks.len(), blocksize, blocks.len() + 32] {
            chunk.extend((size as i32).to_le_bytes());
        }
        chunk.extend([0; 16]);
        chunk.extend(blocks);
        chunk
    }

    /// The chunk whose voxels are `elements`, one byte each, and 0xee where a block reaches over its end.
    fn encoded(elements: &[u8], shape: &[usize], block: &[usize]) -> Vec<u8> {
        let grid: Vec<usize> = shape.iter().zip(block).map(|(shape, block)| shape.div_ceil(*block)).collect();
        let mut blocks = Vec::new();
        for number in 0..grid.iter().product() {
            for inner in 0..block.iter().product() {
                let (mut number, mut inner, mut stride, mut place) = (number, inner, 1, Some(0));
                for axis in (0..shape.len()).rev() {
                    let at = number % grid[axis] * block[axis] + inner % block[axis];
                    (number, inner) = (number / grid[axis], inner / block[axis]);
                    place = place.filter(|_| at < shape[axis]).map(|place| place + at * stride);
                    stride *= shape[axis];
                }
                blocks.push(place.map_or(0xee, |place: usize| elements[place]));
            }
        }
        stored(&blocks, block.iter().product())
    }

    fn chain(shape: &[usize], block: &[usize]) -> CodecChain {
        let wide = |extents: &[usize]| extents.iter().map(|&extent| extent as u64).collect::<Vec<_>>();
        let spec = B2ndSpec::new(&wide(shape), &wide(block), 1).unwrap();
        let nbytes = spec.chunk_nbytes();
        CodecChain::new(&[CodecSpec::B2nd(spec)], Endian::NATIVE, &DataType::UInt(1), nbytes).unwrap()
    }

    fn layout() -> impl Strategy<Value = Vec<(usize, usize, usize, usize)>> {
        // Extent of the chunk and of a block, and a part of the chunk.
        let axis = (1usize..7, 1usize..8).prop_flat_map(|(shape, block)| {
            (Just(shape), Just(block), 0..shape)
                .prop_flat_map(|(shape, block, start)| (Just(shape), Just(block), Just(start), start + 1..=shape))
        });
        prop::collection::vec(axis, 0..5)
    }

    proptest! {
        #[test]
        fn parts_of_a_chunk_are_as_in_the_whole(axes in layout()) {
            let shape: Vec<usize> = axes.iter().map(|axis| axis.0).collect();
            let block: Vec<usize> = axes.iter().map(|axis| axis.1).collect();
            let wanted: Vec<Range<usize>> = axes.iter().map(|axis| axis.2..axis.3).collect();
            let elements: Vec<u8> = (0..shape.iter().product()).map(|at: usize| (at % 251) as u8).collect();
            let (chunk, chain) = (encoded(&elements, &shape, &block), chain(&shape, &block));
            let mut context = CodecContext::default();
            let mut out = vec![0xa5; elements.len()];
            chain.decode_into(&mut context, &chunk, Verify::Full, &mut out).unwrap();
            prop_assert_eq!(&out, &elements);

            // A box, of which the voxels alone are compared, and the bytes from its first to its last voxel.
            let corner = |end: bool| wanted.iter().zip(&shape).fold(0, |at, (range, &extent)| {
                at * extent + if end { range.end - 1 } else { range.start }
            });
            let window = corner(false)..corner(true) + 1;
            out.fill(0xa5);
            chain.decode_box(&mut context, &chunk, (&wanted, window.clone()), &mut out).unwrap();
            for place in 0..elements.len() {
                let mut rest = place;
                let inside = shape.iter().zip(&wanted).rev().all(|(&extent, range)| {
                    let at = rest % extent;
                    rest /= extent;
                    range.contains(&at)
                });
                prop_assert!(!inside || out[place] == elements[place]);
            }
            out.fill(0xa5);
            chain.decode_window(&mut context, &chunk, Verify::Full, window.clone(), &mut out).unwrap();
            prop_assert_eq!(&out[window.clone()], &elements[window]);
        }
    }

    #[test]
    fn blocks_outside_of_a_box_are_not_looked_at() {
        let elements: Vec<u8> = (0..64).collect();
        let mut chunk = encoded(&elements, &[8, 8], &[4, 4]);
        // The second block, of rows 0 to 3 and columns 4 to 7, and no other.
        chunk[32 + 16..32 + 32].fill(0xff);
        let mut out = vec![0; 64];
        let mut context = CodecContext::default();
        let chain = chain(&[8, 8], &[4, 4]);
        chain.decode_box(&mut context, &chunk, (&[0..8, 0..4], 0..60), &mut out).unwrap();
        assert!(!out.contains(&0xff));
        chain.decode_box(&mut context, &chunk, (&[3..4, 0..5], 24..29), &mut out).unwrap();
        assert_eq!(out.iter().filter(|&&byte| byte == 0xff).count(), 16);
    }

    #[test]
    fn chunks_of_other_sizes_are_refused() {
        let chunk = encoded(&[7; 30], &[5, 6], &[2, 4]);
        let mut out = vec![0; 30];
        let mut context = CodecContext::default();
        for (shape, block) in [([5, 6], [2, 3]), ([5, 6], [3, 4]), ([30, 1], [2, 4]), ([2, 15], [2, 4])] {
            let error = chain(&shape, &block).decode_into(&mut context, &chunk, Verify::Full, &mut out).unwrap_err();
            assert!(error.to_string().contains("in blocks"), "{error}");
        }
        assert!(B2ndSpec::new(&[1 << 20, 1 << 20], &[1, 1], 1).is_err());
        assert!(B2ndSpec::new(&[1 << 16], &[u64::MAX], 1).is_err());
        assert!(B2ndSpec::new(&[4, 4], &[4], 1).is_err() && B2ndSpec::new(&[4], &[0], 1).is_err());
    }

    #[test]
    fn one_chunk_alone_may_be_at_most_as_large_as_allowed() {
        let chunk = stored(&[3; 100], 40);
        assert_eq!(blosc2::decode_chunk(&chunk, 100).unwrap(), [3; 100]);
        assert!(blosc2::decode_chunk(&chunk, 99).unwrap_err().to_string().contains("at most 99"));
        for len in 0..chunk.len() {
            blosc2::decode_chunk(&chunk[..len], 100).unwrap_err();
        }
    }
}
