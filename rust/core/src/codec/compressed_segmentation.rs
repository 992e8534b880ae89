//! Neuroglancer's `compressed_segmentation`: labels of 4 or 8 bytes, in small blocks that each have a table of the labels
//! in it and index into that with as few bits as do.
//!
//! Source: Neuroglancer, "Compressed Segmentation Format". All numbers are little-endian; a word is 4 bytes.
//!
//! | where | what |
//! |---|---|
//! | first words | for each channel, the word at which it starts |
//! | start of a channel | for each block (x fastest) two words: 24 bits position of the table and 8 bits `bits`; position of the indices. Positions are words from the start of the channel |
//! | table | labels |
//! | indices | `bits` (0, 1, 2, 4, 8, 16 or 32) for each voxel of the block, x fastest, packed from the lowest bit up; a block at the upper edge of the volume has them for the voxels outside as well |
//!
//! A table has no length: it ends where its indices end, and several blocks may share one. A block of one label has 0
//! bits and no indices, and their position may be anything.

use super::from_little_endian;
use crate::error::{Error, Result};

const NAME: &str = "compressed_segmentation";

const WORD: usize = 4;
/// Bytes of the header of a block.
const HEADER: usize = 2 * WORD;

/// Decodes labels of `item_size` bytes, 4 or 8, into `out`, in native byte order: x fastest, the channel slowest.
/// `extent` is (x, y, z, channel) in voxels, `block` is (x, y, z) in voxels.
///
/// # Errors
/// `Codec` when something lies outside of the encoded bytes or a block has a number of bits that there is not,
/// `Internal` when sizes do not fit together.
pub(crate) fn decode(
    encoded: &[u8],
    extent: [usize; 4],
    block: [usize; 3],
    item_size: usize,
    out: &mut [u8],
) -> Result<()> {
    let nbytes = extent.iter().try_fold(item_size, |product, n| product.checked_mul(*n));
    if nbytes != Some(out.len()) || block.contains(&0) {
        let what =
            format!("{} bytes of output for {extent:?} labels of {item_size} bytes in blocks of {block:?}", out.len());
        return Err(Error::internal(what));
    }
    if !encoded.len().is_multiple_of(WORD) {
        return Err(Error::codec(NAME, format!("{} bytes are not a whole number of words", encoded.len())));
    }
    match item_size {
        4 => decode_channels::<4>(encoded, extent, block, out.as_chunks_mut().0),
        8 => decode_channels::<8>(encoded, extent, block, out.as_chunks_mut().0),
        _ => Err(Error::internal(format!("{NAME} of labels of {item_size} bytes"))),
    }
}

fn decode_channels<const N: usize>(
    encoded: &[u8],
    [x, y, z, channels]: [usize; 4],
    block: [usize; 3],
    out: &mut [[u8; N]],
) -> Result<()> {
    let voxels = x * y * z;
    if voxels == 0 {
        return Ok(());
    }
    let (words, _) = encoded.as_chunks::<WORD>();
    let starts = words.get(..channels).ok_or_else(|| outside("the start of a channel"))?;
    for (start, out) in starts.iter().zip(out.chunks_exact_mut(voxels)) {
        let channel = from_word(encoded, u32::from_le_bytes(*start)).ok_or_else(|| outside("a channel"))?;
        decode_channel(channel, [x, y, z], block, out)?;
    }
    Ok(())
}

fn decode_channel<const N: usize>(
    channel: &[u8],
    extent: [usize; 3],
    block: [usize; 3],
    out: &mut [[u8; N]],
) -> Result<()> {
    let grid = [0, 1, 2].map(|axis| extent[axis].div_ceil(block[axis]));
    let (headers, _) = channel.as_chunks::<HEADER>();
    // The grid has no more blocks than the output has voxels.
    let headers = headers.get(..grid[0] * grid[1] * grid[2]).ok_or_else(|| outside("the header of a block"))?;
    let volume = block.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
    let volume = volume.ok_or_else(|| Error::internal(format!("blocks of {block:?} voxels")))?;
    for (index, header) in headers.iter().enumerate() {
        let cell = [index % grid[0], index / grid[0] % grid[1], index / grid[0] / grid[1]];
        let start = [0, 1, 2].map(|axis| cell[axis] * block[axis]);
        let shape = [0, 1, 2].map(|axis| block[axis].min(extent[axis] - start[axis]));
        let [t0, t1, t2, bits, v0, v1, v2, v3] = *header;
        let table = from_word(channel, u32::from_le_bytes([t0, t1, t2, 0])).ok_or_else(|| outside("a table"))?;
        let (table, _) = table.as_chunks::<N>();
        let mut rows = Rows { out: &mut *out, extent, start, shape, block };
        if bits == 0 {
            let label = from_little_endian(*table.first().ok_or_else(|| outside("a table"))?);
            rows.each(|_, row| row.fill(label));
            continue;
        }
        let nbytes = volume.checked_mul(usize::from(bits)).map(|bits| bits.div_ceil(8 * WORD) * WORD);
        let indices = from_word(channel, u32::from_le_bytes([v0, v1, v2, v3]));
        let indices = indices.zip(nbytes).and_then(|(indices, nbytes)| indices.get(..nbytes));
        let indices = indices.ok_or_else(|| outside("the indices of a block"))?;
        match bits {
            1 => rows.look_up_packed::<1, 8, 2>(table, indices)?,
            2 => rows.look_up_packed::<2, 4, 4>(table, indices)?,
            4 => rows.look_up_packed::<4, 2, 16>(table, indices)?,
            8 => rows.look_up_packed::<8, 1, 256>(table, indices)?,
            16 => rows.look_up(table, indices.as_chunks().0, |index| u32::from(u16::from_le_bytes(index)))?,
            32 => rows.look_up(table, indices.as_chunks().0, u32::from_le_bytes)?,
            _ => return Err(Error::codec(NAME, format!("a block with indices of {bits} bits"))),
        }
    }
    Ok(())
}

/// The part of one block that lies inside the volume.
struct Rows<'a, const N: usize> {
    out: &'a mut [[u8; N]],
    /// Of the volume, in voxels.
    extent: [usize; 3],
    /// First voxel of the block.
    start: [usize; 3],
    /// Of the part, in voxels.
    shape: [usize; 3],
    /// Of the whole block, in voxels.
    block: [usize; 3],
}

impl<const N: usize> Rows<'_, N> {
    /// Calls `f` with each row along x and the number of its first voxel in the block.
    fn each(&mut self, mut f: impl FnMut(usize, &mut [[u8; N]])) {
        let [x, y, z] = self.start;
        for dz in 0..self.shape[2] {
            for dy in 0..self.shape[1] {
                let at = x + self.extent[0] * (y + dy + self.extent[1] * (z + dz));
                f(self.block[0] * (dy + self.block[1] * dz), &mut self.out[at..at + self.shape[0]]);
            }
        }
    }

    /// Fills the rows through indices of `BITS` bits, `PER_BYTE` in a byte, into `SIZE` (2 to the power of `BITS`) labels.
    fn look_up_packed<const BITS: usize, const PER_BYTE: usize, const SIZE: usize>(
        &mut self,
        table: &[[u8; N]],
        indices: &[u8],
    ) -> Result<()> {
        let index_of = |voxel: usize| usize::from(indices[voxel / PER_BYTE] >> (voxel % PER_BYTE * BITS)) % SIZE;
        // All labels that an index can mean, so that no index has to be checked when it is used.
        let mut labels = [[0; N]; SIZE];
        for (label, stored) in labels.iter_mut().zip(table) {
            *label = from_little_endian(*stored);
        }
        if table.len() < SIZE {
            // Near the end of the channel fewer may be there.
            let mut highest = 0;
            self.each(|first, row| {
                highest = (first..first + row.len()).map(index_of).fold(highest, usize::max);
            });
            if highest >= table.len() {
                return Err(outside("a label"));
            }
        }
        self.each(|first, row| {
            if !first.is_multiple_of(PER_BYTE) {
                for (voxel, label) in (first..).zip(row) {
                    *label = labels[index_of(voxel)];
                }
                return;
            }
            let (whole, rest) = row.as_chunks_mut::<PER_BYTE>();
            let mut packed = indices[first / PER_BYTE..].iter();
            for (row, byte) in whole.iter_mut().zip(&mut packed) {
                for (voxel, label) in row.iter_mut().enumerate() {
                    *label = labels[usize::from(*byte >> (voxel * BITS)) % SIZE];
                }
            }
            if let Some(byte) = packed.next() {
                for (voxel, label) in rest.iter_mut().enumerate() {
                    *label = labels[usize::from(*byte >> (voxel * BITS)) % SIZE];
                }
            }
        });
        Ok(())
    }

    /// Fills the rows through indices of whole bytes.
    fn look_up<const M: usize>(
        &mut self,
        table: &[[u8; N]],
        indices: &[[u8; M]],
        index_of: impl Fn([u8; M]) -> u32,
    ) -> Result<()> {
        let mut known = true;
        self.each(|first, row| {
            for (label, index) in row.iter_mut().zip(&indices[first..]) {
                match table.get(index_of(*index) as usize) {
                    Some(stored) => *label = from_little_endian(*stored),
                    None => known = false,
                }
            }
        });
        if known { Ok(()) } else { Err(outside("a label")) }
    }
}

/// What stands from a word on.
fn from_word(bytes: &[u8], word: u32) -> Option<&[u8]> {
    bytes.get((word as usize).checked_mul(WORD)?..)
}

fn outside(what: &str) -> Error {
    Error::codec(NAME, format!("{what} lies outside of the encoded bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// One channel of one block: its header says `bits`, then come the table and the indices.
    fn one_block(bits: u32, table: &[u32], indices: &[u32]) -> Vec<u8> {
        let header = [1, 2 | bits << 24, 2 + table.len() as u32];
        words(&[&header, table, indices].concat())
    }

    fn decode_u32(encoded: &[u8], extent: [usize; 3], block: [usize; 3]) -> Result<Vec<u32>> {
        let [x, y, z] = extent;
        let mut out = vec![0xa5; 4 * x * y * z];
        decode(encoded, [x, y, z, 1], block, 4, &mut out)?;
        Ok(out.as_chunks().0.iter().map(|label| u32::from_ne_bytes(*label)).collect())
    }

    #[track_caller]
    fn refuses(decoded: Result<Vec<u32>>) {
        let refused = decoded.unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::Codec { .. }), "{refused}");
    }

    /// By tensorstore: 4^3 labels in blocks of 2^3; a table that is shared, and positions of no indices behind the end.
    #[test]
    fn blocks_of_one_label_share_a_table_and_have_no_indices() {
        let mut stored = vec![1, 16, 16, 19 | 2 << 24, 18];
        stored.extend([16, 25].repeat(6));
        stored.extend([7, 0, 0x1108, 1, 0, 2, 0, 3, 0]);
        let mut out = [0; 512];
        decode(&words(&stored), [4, 4, 4, 1], [2, 2, 2], 8, &mut out).unwrap();
        let mut expected = [7u64; 64];
        for (at, label) in [2, 3, 6, 7, 18, 19, 22, 23].into_iter().zip([1, 3, 1, 1, 2, 1, 2, 1]) {
            expected[at] = label;
        }
        assert_eq!(out.as_chunks().0.iter().map(|label| u64::from_ne_bytes(*label)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn indices_of_every_width_are_looked_up() {
        let two = [1, 2, 2];
        for (bits, indices) in [
            (1, &[0b0110][..]),
            (2, &[0b_00_01_01_00]),
            (4, &[0x0110]),
            (8, &[0x0001_0100]),
            (16, &[0x0001_0000, 0x0000_0001]),
            (32, &[0, 1, 1, 0]),
        ] {
            assert_eq!(decode_u32(&one_block(bits, &[5, 6], indices), two, two), Ok(vec![5, 6, 6, 5]), "{bits}");
            // Rows of which a part lies outside of the volume, first voxels that are not the first of a byte.
            let indices = &[indices, &[0; 2]].concat();
            let encoded = one_block(bits, &[5, 6], indices);
            assert_eq!(decode_u32(&encoded, [2, 1, 1], [3, 1, 1]), Ok(vec![5, 6]), "{bits}");
            assert_eq!(decode_u32(&encoded, [1, 2, 1], [1, 3, 1]), Ok(vec![5, 6]), "{bits}");
            assert_eq!(decode_u32(&encoded, [1, 2, 1], [2, 2, 1]), Ok(vec![5, 6]), "{bits}");
        }
    }

    #[test]
    fn indices_beyond_the_table_are_refused_where_the_bytes_end() {
        let two = [2, 1, 1];
        for (bits, index) in [(1, 1), (2, 3), (4, 9), (8, 255), (16, 700), (32, u32::MAX)] {
            // The indices stand in front of the table here, which ends with the bytes.
            let indices = if bits == 32 { vec![0, index] } else { vec![index << bits] };
            let header = [1, (2 + indices.len() as u32) | (bits << 24), 2];
            let encoded = words(&[&header[..], &indices, &[5]].concat());
            refuses(decode_u32(&encoded, two, two));
            // Voxels outside of the volume may have any index.
            assert_eq!(decode_u32(&encoded, [1, 1, 1], two), Ok(vec![5]), "{bits}");
        }
    }

    #[test]
    fn what_lies_outside_is_refused() {
        let one = [1, 1, 1];
        assert_eq!(decode_u32(&one_block(0, &[5], &[]), one, one), Ok(vec![5]));
        refuses(decode_u32(&[], one, one));
        refuses(decode_u32(&words(&[1]), one, one));
        refuses(decode_u32(&words(&[u32::MAX, 2, 2, 5]), one, one));
        refuses(decode_u32(&words(&[1, 0x00ff_ffff, 2, 5]), one, one));
        refuses(decode_u32(&words(&[1, 2 | 1 << 24, u32::MAX, 5, 5]), one, one));
        refuses(decode_u32(&one_block(0, &[5], &[]), [3, 1, 1], one));
        refuses(decode_u32(&one_block(8, &[5], &[0]), one, [5, 1, 1]));
        refuses(decode_u32(&one_block(1, &[5], &[0]), one, [usize::MAX, 1, 1]));
        for bits in (0..=255).filter(|bits| ![0, 1, 2, 4, 8, 16, 32].contains(bits)) {
            refuses(decode_u32(&one_block(bits, &[5, 5], &[0; 64]), one, one));
        }
        for len in 1..4 {
            refuses(decode_u32(&[one_block(0, &[5], &[]), vec![0; len]].concat(), one, one));
        }
    }

    #[test]
    fn sizes_that_do_not_fit_together_are_refused() {
        let encoded = one_block(0, &[5], &[]);
        for (extent, block, item_size) in [
            ([2, 1, 1, 1], [1, 1, 1], 4),
            ([1, 1, 1, 1], [1, 1, 1], 8),
            ([1, 1, 1, 1], [1, 0, 1], 4),
            ([2, 1, 1, 1], [1, 1, 1], 2),
            ([usize::MAX, usize::MAX, 1, 1], [1, 1, 1], 4),
        ] {
            let refused = decode(&encoded, extent, block, item_size, &mut [0; 4]).unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::Internal { .. }), "{extent:?}");
        }
        assert_eq!(decode(&encoded, [0, 3, 1, 1], [1, 1, 1], 4, &mut []), Ok(()));
    }
}
