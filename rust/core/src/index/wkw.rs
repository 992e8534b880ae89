//! The index of a WKW file (webknossos-wrap, "File format"): blocks in Morton order, x lowest. Without compression they
//! have one size; with it a jump table after the header holds the end of each, from the file's beginning.
//!
//! Of a jump table only the slices are read that concern the blocks wanted: those of a cube of blocks, which follow each
//! other in Morton order. The end of a block is the beginning of the next, so a slice begins one entry early.

use super::morton::Order;
use super::{Entries, Even, ShardIndex};
use crate::error::{Error, Result};
use crate::metadata::WkwFile;
use crate::subset::ByteRange;

const ENTRY_NBYTES: u64 = 8;

/// Checks the size of a file, as far as it is known without looking inside.
///
/// # Errors
/// `ShardIndex` when it is not that of such a file.
pub fn check_nbytes(file: &WkwFile, is_compressed: bool, nbytes: u64) -> Result<()> {
    let blocks = if is_compressed { 0 } else { file.blocks().saturating_mul(file.block_nbytes) };
    let expected = file.data_offset.saturating_add(blocks);
    let fits = if is_compressed { nbytes >= expected } else { nbytes == expected };
    if fits {
        return Ok(());
    }
    let bound = if is_compressed { "at least " } else { "" };
    Err(Error::shard_index(format!(
        "a WKW file of {nbytes} bytes; by the header of its folder it has {bound}{expected}: it is truncated, or of another layout"
    )))
}

/// The blocks of a file without compression.
#[must_use]
pub fn raw(file: &WkwFile, file_nbytes: u64) -> ShardIndex {
    even(file.blocks_log2, file_nbytes, Even { first: file.data_offset, stride: file.block_nbytes, before: 0 })
}

/// The slices of the jump table of a file with compression, each a shard of the next level.
#[must_use]
pub fn slices(file: &WkwFile, file_nbytes: u64) -> ShardIndex {
    let stride = ENTRY_NBYTES * file.slice_blocks();
    let even_slices = Even { first: WkwFile::HEADER_NBYTES, stride, before: ENTRY_NBYTES };
    even(file.blocks_log2 - file.slice_log2, file_nbytes, even_slices)
}

fn even(cells_log2: u32, file_nbytes: u64, even: Even) -> ShardIndex {
    let cells = 1 << cells_log2;
    ShardIndex {
        entries: Entries::Even(order(cells), even),
        count: cells * cells * cells,
        shard_nbytes: file_nbytes,
        index_range: ByteRange { start: 0, end: WkwFile::HEADER_NBYTES },
    }
}

/// Blocks along one axis -> their order.
fn order(cells: u64) -> Order {
    // The first candidate is Morton's with the first axis lowest, unless there is but one cell.
    Order::candidates(&[1, cells, cells, cells]).next().unwrap_or(Order::C)
}

/// Decodes a slice, `encoded`, which lies at `slice` in the file; places are those in the file.
///
/// # Errors
/// `ShardIndex` when it has another size, `Limit` when memory for it cannot be had.
pub fn decode_slice(file: &WkwFile, encoded: &[u8], slice: ByteRange, file_nbytes: u64) -> Result<ShardIndex> {
    let (words, rest) = encoded.as_chunks::<8>();
    let mut ends = words.iter().map(|word| u64::from_le_bytes(*word));
    let is_first = slice.start <= WkwFile::HEADER_NBYTES;
    let expected = file.slice_blocks() + u64::from(!is_first);
    if words.len() as u64 != expected || !rest.is_empty() {
        return Err(Error::shard_index(format!("{} bytes of a jump table, expected {}", encoded.len(), 8 * expected)));
    }
    let mut start = if is_first { file.data_offset } else { ends.next().unwrap_or_default() };
    let in_order: Vec<(u64, u64)> = ends
        .map(|end| {
            // A table that goes backwards gives a size past the end of any file, which is refused where it is used.
            let pair = (start, end.wrapping_sub(start));
            start = end;
            pair
        })
        .collect();
    let cells = 1 << file.slice_log2;
    let ranks = order(cells).ranks(&[1, cells, cells, cells]);
    let pairs = ranks.iter().map(|&rank| in_order.get(rank as usize).copied()).collect::<Option<Vec<_>>>();
    let pairs = pairs.ok_or_else(|| Error::internal("a block outside its slice of the jump table"))?;
    let index_range = ByteRange { start: 0, end: file.data_offset };
    ShardIndex::from_pairs(pairs, &[1, cells, cells, cells], file_nbytes, index_range)
}

#[cfg(test)]
mod tests {
    use super::{check_nbytes, decode_slice, raw, slices};
    use crate::metadata::WkwFile;
    use crate::subset::ByteRange;

    fn file(blocks_log2: u32, slice_log2: u32, is_compressed: bool) -> WkwFile {
        let table = if is_compressed { 8 << (3 * blocks_log2) } else { 0 };
        WkwFile { blocks_log2, slice_log2, block_nbytes: 100, data_offset: 16 + table }
    }

    #[test]
    fn blocks_lie_in_morton_order() {
        let index = raw(&file(5, 3, false), 16 + 32768 * 100);
        // Cell (x, y, z) in C order -> Morton code with x lowest; codes of webknossos-wrap's own tests.
        for ((x, y, z), code) in [((29, 20, 3), 13029), ((23, 20, 3), 12525), ((31, 31, 31), 32767), ((1, 0, 0), 1)] {
            let range = index.get((x * 32 + y) * 32 + z).unwrap().unwrap();
            assert_eq!(range, ByteRange { start: 16 + code * 100, end: 116 + code * 100 });
        }
        assert!(index.get(32768).is_err());
        let short = raw(&file(5, 3, false), 16 + 100);
        assert!(short.get(0).unwrap().is_some());
        assert_eq!(short.get(1).unwrap_err().kind().class_name(), "ShardIndexError");
        let single = raw(&file(0, 0, false), 116);
        assert_eq!(single.get(0).unwrap(), Some(ByteRange { start: 16, end: 116 }));
    }

    #[test]
    fn slices_of_a_jump_table_give_its_blocks() {
        let file = file(3, 1, true);
        let sizes: Vec<u64> = (0..512).map(|rank| 10 + rank % 7).collect();
        let ends: Vec<u64> =
            sizes.iter().scan(file.data_offset, |at, size| Some(std::mem::replace(at, *at + size) + size)).collect();
        let nbytes = *ends.last().unwrap();
        let bytes: Vec<u8> = [0; 16].into_iter().chain(ends.iter().flat_map(|end| end.to_le_bytes())).collect();
        let table = slices(&file, nbytes);
        let mut seen = 0;
        for (cx, cy, cz) in (0..64).map(|cell| (cell / 16, cell / 4 % 4, cell % 4)) {
            let slice = table.get((cx * 4 + cy) * 4 + cz).unwrap().unwrap();
            let blocks = decode_slice(&file, &bytes[slice.start as usize..slice.end as usize], slice, nbytes).unwrap();
            for (bx, by, bz) in (0..8).map(|cell| (cell / 4, cell / 2 % 2, cell % 2)) {
                let bit = |n: u64, at: u32| (n >> at) & 1;
                let (x, y, z) = (2 * cx + bx, 2 * cy + by, 2 * cz + bz);
                let code: u64 = (0..3)
                    .map(|at| bit(x, at) << (3 * at) | bit(y, at) << (3 * at + 1) | bit(z, at) << (3 * at + 2))
                    .sum();
                let end = ends[code as usize];
                let expected = ByteRange { start: end - sizes[code as usize], end };
                assert_eq!(blocks.get((bx * 2 + by) * 2 + bz).unwrap(), Some(expected), "{x} {y} {z}");
                seen += 1;
            }
        }
        assert_eq!(seen, 512);
    }

    #[test]
    fn lies_of_a_jump_table_are_errors_of_their_block() {
        let file = file(1, 1, true);
        let slice = ByteRange { start: 16, end: 80 };
        let decode = |ends: [u64; 8], nbytes: u64| {
            let bytes: Vec<u8> = ends.iter().flat_map(|end| end.to_le_bytes()).collect();
            decode_slice(&file, &bytes, slice, nbytes).unwrap()
        };
        // Block 1 (x = 1) goes backwards, block 2 is empty, block 4 ends outside, block 5 begins there.
        let index = decode([90, 85, 85, 95, 400, 120, 130, 140], 140);
        let kinds: Vec<bool> = [0b000u64, 0b100, 0b010, 0b110, 0b001, 0b101].map(|cell| index.get(cell).is_ok()).into();
        assert_eq!(kinds, [true, false, false, true, false, false]);
        // A table of zeros points into itself.
        assert!(decode([0; 8], 1000).get(0).is_err());
        for nbytes in [0, 8, 63, 65, 72] {
            assert!(decode_slice(&file, &vec![0; nbytes], slice, 1000).is_err(), "{nbytes}");
        }
    }

    #[test]
    fn the_size_of_a_file_tells_its_layout() {
        check_nbytes(&file(1, 1, false), false, 816).unwrap();
        check_nbytes(&file(1, 1, true), true, 80).unwrap();
        for (is_compressed, nbytes) in [(false, 815), (false, 817), (false, 0), (true, 79)] {
            assert!(check_nbytes(&file(1, 1, is_compressed), is_compressed, nbytes).is_err());
        }
    }
}
