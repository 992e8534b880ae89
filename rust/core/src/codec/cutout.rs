//! A cutout of a BossDB server: one Blosc-1 chunk of a box of voxels -> the blocks of a regular grid in it.
//!
//! Boxes are half-open, [start, end) along t, z, y and x, in voxels; the last axis is the fastest one everywhere.

use super::blosc::decode_blosc;
use super::sink::resize;
use crate::error::{Error, Result};
use crate::metadata::limits::MAX_CHUNK_NBYTES;
use crate::subset::product;

/// [start, end) along t, z, y and x.
pub type CutoutBox = [(u64, u64); 4];

/// Decodes the cutout of `voxels` and returns, for each of `boxes`, its blocks one after the other in C order.
///
/// A box begins and ends between blocks of `block` voxels. What lies outside of `voxels` is zero.
///
/// # Errors
/// `Codec` when the chunk is broken or of another size, `Limit` when that or memory is too much, `Internal` for a box that
/// cuts a block.
pub fn cutout_blocks(
    encoded: &[u8],
    item_nbytes: usize,
    voxels: &CutoutBox,
    block: [u64; 4],
    boxes: &[CutoutBox],
) -> Result<Vec<Vec<u8>>> {
    let decoded = decode_blosc(encoded, nbytes(voxels, item_nbytes)?)?;
    if boxes == [*voxels] && block == [1, 1, 1, voxels[3].1.saturating_sub(voxels[3].0)] {
        return Ok(vec![decoded]);
    }
    let cutout = Cutout { decoded: &decoded, item_nbytes, voxels };
    boxes.iter().map(|wanted| cutout.blocks(block, wanted)).collect()
}

fn nbytes(voxels: &CutoutBox, item_nbytes: usize) -> Result<usize> {
    let extents = voxels.iter().map(|(low, high)| high.saturating_sub(*low));
    match product(extents.chain([item_nbytes as u64])) {
        Some(nbytes) if nbytes <= MAX_CHUNK_NBYTES => Ok(nbytes as usize),
        found => Err(Error::limit("bytes of a cutout", found.unwrap_or(u64::MAX), MAX_CHUNK_NBYTES)),
    }
}

struct Cutout<'a> {
    decoded: &'a [u8],
    item_nbytes: usize,
    voxels: &'a CutoutBox,
}

impl Cutout<'_> {
    fn blocks(&self, block: [u64; 4], wanted: &CutoutBox) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        resize(&mut out, nbytes(wanted, self.item_nbytes)?)?;
        if out.is_empty() {
            return Ok(out);
        }
        let row_nbytes = nbytes(&[(0, 1), (0, 1), (0, 1), (0, block[3])], self.item_nbytes)?.max(1);
        let mut rows = out.chunks_exact_mut(row_nbytes);
        let [times, layers, lines, columns] = [0, 1, 2, 3].map(|axis| corners(wanted[axis], block[axis]));
        for &t in &times {
            for &z in &layers {
                for &y in &lines {
                    for &x in &columns {
                        for t in t.0..t.1 {
                            for z in z.0..z.1 {
                                for y in y.0..y.1 {
                                    let row = rows.next().ok_or_else(|| Error::internal("a box that cuts a block"))?;
                                    self.copy_row([t, z, y], x, row);
                                }
                            }
                        }
                    }
                }
            }
        }
        Ok(out)
    }

    /// Copies what the cutout has of the voxels [x.0, x.1) of a line.
    fn copy_row(&self, line: [u64; 3], x: (u64, u64), row: &mut [u8]) {
        let mut first = 0;
        for (at, (low, high)) in line.into_iter().zip(self.voxels) {
            if !(*low..*high).contains(&at) {
                return;
            }
            first = first * (high - low) + at - low;
        }
        let (low, high) = self.voxels[3];
        let (start, end) = (x.0.max(low), x.1.min(high));
        if start >= end {
            return;
        }
        // Within the cutout, whose size fits memory.
        let from = (first * (high - low) + start - low) as usize * self.item_nbytes;
        let (to, count) = ((start - x.0) as usize * self.item_nbytes, (end - start) as usize * self.item_nbytes);
        if let (Some(source), Some(target)) = (self.decoded.get(from..from + count), row.get_mut(to..to + count)) {
            target.copy_from_slice(source);
        }
    }
}

/// [start, end) of each block along an axis.
fn corners((low, high): (u64, u64), step: u64) -> Vec<(u64, u64)> {
    let step = step.max(1);
    (low..high).step_by(step as usize).map(|start| (start, start.saturating_add(step))).collect()
}

#[cfg(test)]
mod tests {
    use super::{CutoutBox, cutout_blocks};

    /// A Blosc chunk that holds its bytes as they are.
    fn stored(bytes: &[u8]) -> Vec<u8> {
        let [nbytes, cbytes] = [bytes.len(), bytes.len() + 16].map(|n| (n as u32).to_le_bytes());
        [&[2, 1, 2, 8][..], &nbytes, &nbytes, &cbytes, bytes].concat()
    }

    #[test]
    fn blocks_lie_one_after_the_other_and_end_in_zeros() {
        // Voxels (1, 2, 3) of 2 bytes, from (0, 1, 2, 3) on, in blocks of (1, 1, 2, 4).
        let voxels: CutoutBox = [(0, 1), (1, 2), (2, 4), (3, 6)];
        let bytes: Vec<u8> = (1..=12).collect();
        let all =
            cutout_blocks(&stored(&bytes), 2, &voxels, [1, 1, 2, 4], &[[(0, 1), (1, 2), (2, 4), (0, 8)]]).unwrap();
        let first = [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 7, 8];
        let second = [3, 4, 5, 6, 0, 0, 0, 0, 9, 10, 11, 12, 0, 0, 0, 0];
        assert_eq!(all, [[first, second].concat()]);
        let outside = cutout_blocks(&stored(&bytes), 2, &voxels, [1, 1, 2, 4], &[[(1, 2), (0, 1), (2, 4), (4, 8)]]);
        assert_eq!(outside.unwrap(), [[0; 16]]);
        let nothing =
            cutout_blocks(&stored(&bytes), 2, &voxels, [1, 1, 2, 4], &[[(0, u64::MAX), (0, 1), (2, 2), (4, 8)]]);
        assert_eq!(nothing.unwrap(), [[0; 0]]);
    }

    #[test]
    fn other_sizes_are_refused() {
        let block = [1, 1, 2, 4];
        for (bytes, voxels, wanted, part) in [
            (5, [(0, 1), (0, 1), (0, 1), (0, 6)], [(0, 1); 4], "decodes to 5 bytes"),
            (6, [(0, 1), (0, 1), (0, 1), (0, u64::MAX)], [(0, 1); 4], "limit"),
            (6, [(0, 1), (0, 1), (0, 1), (0, 6)], [(0, 1), (0, 1), (0, u64::MAX), (0, 4)], "limit"),
            (6, [(0, 1), (0, 1), (0, 1), (0, 6)], [(0, 1), (0, 1), (0, 1), (0, 4)], "cuts a block"),
        ] {
            let error = cutout_blocks(&stored(&vec![1; bytes]), 1, &voxels, block, &[wanted]).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
