//! Which voxels belong to outlines: the windows of a stream as a map of bits.

use std::ops::Range;

use super::{Header, NAME, allocate, to_u64, truncated};
use crate::error::{Error, Result};

/// Which voxels belong to outlines, a bit each.
pub(super) struct Outlines {
    /// x, y, z in voxels.
    pub(super) extent: [usize; 3],
    /// Rows along x, each of whole words; a row's first voxel is the lowest bit. Bits after its last voxel are not set.
    words: Vec<u64>,
    words_per_row: usize,
}

impl Outlines {
    pub(super) fn decode(header: &Header) -> Result<Self> {
        let [x, y, z] = header.extent;
        let words_per_row = x.div_ceil(64);
        // The extent has 3 x 16 bits.
        let words = allocate(words_per_row * y * z, 0)?;
        let mut outlines = Self { extent: header.extent, words, words_per_row };
        match header.window {
            1 => outlines.set_windows::<1>(header)?,
            2 => outlines.set_windows::<2>(header)?,
            4 => outlines.set_windows::<4>(header)?,
            _ => outlines.set_windows::<8>(header)?,
        }
        if let padding @ 1.. = words_per_row * 64 - x {
            let last_words = outlines.words.iter_mut().skip(words_per_row - 1).step_by(words_per_row);
            last_words.for_each(|word| *word &= u64::MAX >> padding);
        }
        Ok(outlines)
    }

    fn set_windows<const W: usize>(&mut self, header: &Header) -> Result<()> {
        let (values, _) = header.values.as_chunks::<W>();
        let (windows, []) = header.windows.as_chunks::<W>() else { return Err(truncated()) };
        let grid = [0, 1, 2].map(|axis| header.extent[axis].div_ceil(header.block[axis]));
        let blocks = (grid[0] * grid[1] * grid[2]) as u64;
        let value = |index: u64| {
            let value = usize::try_from(index).ok().and_then(|index| values.get(index));
            value.map(|value| to_u64(*value)).ok_or_else(|| Error::codec(NAME, format!("no value {index}")))
        };
        let mut block = 0;
        for window in windows {
            let number = to_u64(*window);
            let (index, count) = if number & 1 == 1 { (0, number >> 1) } else { (number >> 1, 1) };
            let end = block + count;
            if end > blocks {
                return Err(Error::codec(NAME, format!("windows of more than {blocks} blocks")));
            }
            let value = value(index)?;
            if value != 0 {
                (block..end).for_each(|block| self.set_window(block as usize, grid, header.block, value));
            }
            block = end;
        }
        if block < blocks {
            return Err(Error::codec(NAME, format!("windows of {block} blocks, expected {blocks}")));
        }
        Ok(())
    }

    /// Sets the bits of one block, whose first voxel is the lowest bit of `window`.
    fn set_window(&mut self, index: usize, grid: [usize; 3], block: [usize; 3], window: u64) {
        let cell = [index % grid[0], index / grid[0] % grid[1], index / grid[0] / grid[1]];
        let start = [0, 1, 2].map(|axis| cell[axis] * block[axis]);
        let (word, shift) = (start[0] / 64, start[0] % 64);
        let mut bits = window;
        for z in start[2]..start[2] + block[2] {
            for y in start[1]..start[1] + block[1] {
                let row = bits & u64::MAX >> (64 - block[0]);
                bits = bits.checked_shr(block[0] as u32).unwrap_or(0);
                if y >= self.extent[1] || z >= self.extent[2] || row == 0 {
                    continue;
                }
                let words = self.words_of(y + self.extent[1] * z);
                let words = &mut self.words[words][word..];
                words[0] |= row << shift;
                if let (Some(next), 1..) = (words.get_mut(1), shift) {
                    *next |= row >> (64 - shift);
                }
            }
        }
    }

    /// The rows are numbered through the volume, y fastest.
    pub(super) fn row(&self, index: usize) -> Row<'_> {
        Row { words: &self.words[self.words_of(index)], len: self.extent[0] }
    }

    fn words_of(&self, row: usize) -> Range<usize> {
        row * self.words_per_row..(row + 1) * self.words_per_row
    }
}

/// The voxels of one row along x.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    words: &'a [u64],
    /// In voxels.
    pub(super) len: usize,
}

impl Row<'_> {
    pub(super) fn is_outline(self, x: usize) -> bool {
        self.words[x / 64] >> (x % 64) & 1 == 1
    }

    /// The first voxel from `x` on that is of an outline (`true`) or in a region (`false`), else the end of the row.
    fn find(self, outline: bool, x: usize) -> usize {
        let flip = if outline { 0 } else { u64::MAX };
        let mut ignored = x % 64;
        for (at, word) in self.words.iter().enumerate().skip(x / 64) {
            let word = (word ^ flip) >> ignored << ignored;
            if word != 0 {
                return (at * 64 + word.trailing_zeros() as usize).min(self.len);
            }
            ignored = 0;
        }
        self.len
    }

    /// Ranges of neighbouring voxels that are of outlines, or that are not.
    pub(super) fn runs(self, outline: bool) -> impl Iterator<Item = Range<usize>> {
        let mut end = 0;
        std::iter::from_fn(move || {
            let start = self.find(outline, end);
            end = self.find(!outline, start);
            (start < end).then_some(start..end)
        })
    }
}
