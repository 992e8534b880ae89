//! The index of the Zarr v3 `sharding_indexed` codec (v1.0): u64 pairs (offset, nbytes) of fixed total size at one end of
//! the shard, offsets from the shard's start.

use crate::codec::{Verify, checksum};
use crate::dtype::Endian;
use crate::error::{Error, Result};
use crate::index::{MISSING, ShardIndex};
use crate::metadata::{IndexLayout, IndexLocation};
use crate::subset::ByteRange;

/// Where the index lies in a shard of `shard_nbytes` bytes.
///
/// # Errors
/// `ShardIndex` when the shard is too small to hold its index.
pub fn index_range(layout: &IndexLayout, shard_nbytes: u64) -> Result<ByteRange> {
    if shard_nbytes < layout.nbytes {
        return Err(Error::shard_index(format!(
            "{shard_nbytes} bytes are too few for a shard: its index alone takes {}; the object is truncated",
            layout.nbytes
        )));
    }
    Ok(match layout.location {
        IndexLocation::Start => ByteRange { start: 0, end: layout.nbytes },
        IndexLocation::End => ByteRange { start: shard_nbytes - layout.nbytes, end: shard_nbytes },
    })
}

/// Decodes the index. `encoded` is exactly the bytes of [`index_range`]; `grid` the entries along each axis.
///
/// # Errors
/// `ShardIndex` when sizes do not fit, `Checksum` when a checksum differs.
pub fn decode(layout: &IndexLayout, grid: &[u64], encoded: &[u8], shard_nbytes: u64) -> Result<ShardIndex> {
    if encoded.len() as u64 != layout.nbytes {
        return Err(Error::shard_index(format!("index of {} bytes, expected {}", encoded.len(), layout.nbytes)));
    }
    let mut words = encoded;
    for checksum in layout.checksums.iter().rev() {
        // The cost is small against the data an index leads to, so it is paid with Verify::Cheap too.
        words = checksum::strip(*checksum, words, Verify::Full)?;
    }
    let (words, rest) = words.as_chunks::<8>();
    if !rest.is_empty() || words.len() as u64 != layout.entries.saturating_mul(2) {
        return Err(Error::shard_index("index length does not match the number of chunks"));
    }
    let word = |at: u64| -> Result<u64> {
        let bytes = words.get(at as usize).ok_or_else(|| Error::internal("index stride outside the index"))?;
        Ok(match layout.endian {
            Endian::Little => u64::from_le_bytes(*bytes),
            Endian::Big => u64::from_be_bytes(*bytes),
        })
    };
    let mut pairs = Vec::new();
    pairs.try_reserve_exact(layout.entries as usize).map_err(|_| {
        Error::limit("memory for a shard index", layout.nbytes, crate::metadata::limits::MAX_INDEX_NBYTES)
    })?;
    let mut coordinates = vec![0u64; grid.len()];
    let mut at = 0u64;
    for _ in 0..layout.entries {
        pairs.push((word(at)?, word(at + layout.pair_stride)?));
        // Next cell in C order.
        for axis in (0..grid.len()).rev() {
            coordinates[axis] += 1;
            at += layout.strides[axis];
            if coordinates[axis] < grid[axis] {
                break;
            }
            at -= layout.strides[axis] * grid[axis];
            coordinates[axis] = 0;
        }
    }
    ShardIndex::from_pairs(pairs, grid, shard_nbytes, index_range(layout, shard_nbytes)?)
}

/// Encodes an index. `pairs` are (offset, nbytes) in C order over `grid`.
#[must_use]
pub fn encode(layout: &IndexLayout, grid: &[u64], pairs: &[(u64, u64)]) -> Vec<u8> {
    let mut words = vec![MISSING; pairs.len() * 2];
    let mut coordinates = vec![0u64; grid.len()];
    for &(offset, size) in pairs {
        let at: u64 = coordinates.iter().zip(&layout.strides).map(|(c, s)| c * s).sum();
        words[at as usize] = offset;
        words[(at + layout.pair_stride) as usize] = size;
        for axis in (0..grid.len()).rev() {
            coordinates[axis] += 1;
            if coordinates[axis] < grid[axis] {
                break;
            }
            coordinates[axis] = 0;
        }
    }
    let mut encoded: Vec<u8> = words
        .into_iter()
        .flat_map(|word| match layout.endian {
            Endian::Little => word.to_le_bytes(),
            Endian::Big => word.to_be_bytes(),
        })
        .collect();
    for checksum in &layout.checksums {
        checksum::add(*checksum, &mut encoded);
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::{decode, encode, index_range};
    use crate::dtype::Endian;
    use crate::index::MISSING;
    use crate::metadata::{ChecksumKind, ChecksumSpec, IndexLayout, IndexLocation};
    use crate::subset::ByteRange;

    const CRC32C: ChecksumSpec = ChecksumSpec { kind: ChecksumKind::Crc32c, at_start: false };

    fn layout(location: IndexLocation, endian: Endian, transposed: bool, checksums: usize) -> IndexLayout {
        // Grid (2, 3). Transposed: stored as (pair, axis 1, axis 0).
        let (strides, pair_stride) = if transposed { (vec![1, 2], 6) } else { (vec![6, 2], 1) };
        IndexLayout {
            location,
            endian,
            entries: 6,
            strides,
            pair_stride,
            checksums: vec![CRC32C; checksums],
            nbytes: 96 + 4 * checksums as u64,
        }
    }

    #[test]
    fn the_bytes_of_the_specification() {
        // uint16 (5, 4), shard (4, 4), chunks (2, 2), written by zarr-python 3.1.6: index at the end, crc32c.
        let entries: [(u64, u64); 4] = [(MISSING, MISSING), (8, 8), (0, 8), (16, 8)];
        let layout = IndexLayout {
            location: IndexLocation::End,
            endian: Endian::Little,
            entries: 4,
            strides: vec![4, 2],
            pair_stride: 1,
            checksums: vec![CRC32C],
            nbytes: 68,
        };
        let encoded = encode(&layout, &[2, 2], &entries);
        assert_eq!(encoded[64..], [0x1b, 0xa7, 0x35, 0xa3]);
        let index = decode(&layout, &[2, 2], &encoded, 92).unwrap();
        assert_eq!(index.get(0).unwrap(), None);
        assert_eq!(index.get(2).unwrap(), Some(ByteRange { start: 0, end: 8 }));
        assert_eq!(index_range(&layout, 92).unwrap(), ByteRange { start: 24, end: 92 });
        assert!(index_range(&layout, 67).is_err());
        for bit in 0..encoded.len() * 8 {
            let mut broken = encoded.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            let error = decode(&layout, &[2, 2], &broken, 92).unwrap_err();
            assert_eq!(error.kind().class_name(), "ChecksumError");
        }
    }

    #[test]
    fn any_fixed_size_layout_round_trips() {
        let pairs: Vec<(u64, u64)> = vec![(100, 5), (MISSING, MISSING), (105, 2), (200, 9), (300, 1), (107, 3)];
        for location in [IndexLocation::Start, IndexLocation::End] {
            for endian in [Endian::Little, Endian::Big] {
                for transposed in [false, true] {
                    for checksums in 0..3 {
                        let layout = layout(location, endian, transposed, checksums);
                        let encoded = encode(&layout, &[2, 3], &pairs);
                        assert_eq!(encoded.len() as u64, layout.nbytes);
                        let mut at_end = vec![0; 1000];
                        at_end.extend_from_slice(&encoded);
                        let index = decode(&layout, &[2, 3], &encoded, at_end.len() as u64).unwrap();
                        for (entry, &(offset, size)) in pairs.iter().enumerate() {
                            let range = (offset != MISSING).then(|| ByteRange { start: offset, end: offset + size });
                            if range.is_some_and(|r| location == IndexLocation::Start && r.start < layout.nbytes) {
                                continue;
                            }
                            assert_eq!(index.get(entry as u64).unwrap(), range);
                        }
                        assert!(decode(&layout, &[2, 3], &encoded[1..], 2000).is_err());
                    }
                }
            }
        }
    }
}
