//! Blocks of N5: the header before the elements, and elements of one box put into another.
//!
//! Source: N5 specification 4.0.0, "File-system specification", item 9. Everything is big-endian: u16 mode, u16 number of
//! axes, u32 extent of each; mode 1 (varlength) adds the u32 number of elements. One compressed stream follows. Java writes
//! blocks at the end of an axis as small as they are, other writers pad them to the nominal size, and both may stand in one
//! array: the header says what is there.

use crate::error::{Error, Result};
use crate::metadata::limits::MAX_CHUNK_NBYTES;
use crate::subset::MAX_RANK;

const NAME: &str = "n5";

/// What the header of a block says, checked by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockHeader {
    extents: [usize; MAX_RANK],
    rank: usize,
    elements: usize,
    /// Bytes of the header; the compressed elements begin here.
    pub nbytes: usize,
}

impl BlockHeader {
    /// Extent of the block along each axis in voxels, each at least 1; the first axis is the fastest.
    #[must_use]
    pub fn extent(&self) -> &[usize] {
        self.extents.get(..self.rank).unwrap_or_default()
    }

    /// Bytes of the decoded elements.
    ///
    /// # Errors
    /// `Limit` when they are more than `limit`.
    pub fn decoded_nbytes(&self, item_size: usize, limit: u64) -> Result<usize> {
        let nbytes = self.elements.saturating_mul(item_size);
        if nbytes as u64 > limit {
            return Err(Error::limit(format!("bytes of a block of {:?} voxels", self.extent()), nbytes as u64, limit));
        }
        Ok(nbytes)
    }
}

/// Reads the header of a block of an array with `rank` axes.
///
/// # Errors
/// `Codec` when the header is cut off, has another number of axes or an extent of 0; `Unsupported` for blocks whose
/// elements have no fixed size (strings, objects, label multisets); `Limit` for a block of more voxels than a chunk may
/// have bytes.
pub fn parse(encoded: &[u8], rank: usize) -> Result<BlockHeader> {
    let mut words = encoded;
    let mode = u16::from_be_bytes(take(&mut words)?);
    match mode {
        0 | 1 => {}
        2 => return Err(Error::unsupported("a block of mode 2 (one object of any form)", "numbers are read")),
        _ => return Err(Error::codec(NAME, format!("a block of mode {mode}"))),
    }
    let found = u16::from_be_bytes(take(&mut words)?);
    if usize::from(found) != rank {
        return Err(Error::codec(NAME, format!("a block with {found} axes, the array has {rank}")));
    }
    let mut extents = [0; MAX_RANK];
    let mut elements = Some(1usize);
    for axis in 0..rank {
        let extent = u32::from_be_bytes(take(&mut words)?) as usize;
        match extents.get_mut(axis) {
            Some(slot) if extent > 0 => *slot = extent,
            _ => return Err(Error::codec(NAME, format!("a block of extent {extent} along axis {axis}"))),
        }
        elements = elements.and_then(|elements| elements.checked_mul(extent));
    }
    let elements = match elements {
        Some(elements) if elements as u64 <= MAX_CHUNK_NBYTES => elements,
        elements => {
            let needed = elements.map_or(u64::MAX, |elements| elements as u64);
            return Err(Error::limit("voxels of a block", needed, MAX_CHUNK_NBYTES));
        }
    };
    if mode == 1 {
        let count = u32::from_be_bytes(take(&mut words)?) as usize;
        if count != elements {
            return Err(Error::unsupported(
                format!("a block of {count} elements for {elements} voxels (mode 1)"),
                "strings and label multisets are not read",
            ));
        }
    }
    Ok(BlockHeader { extents, rank, elements, nbytes: encoded.len() - words.len() })
}

/// The next bytes of a header.
fn take<const N: usize>(words: &mut &[u8]) -> Result<[u8; N]> {
    match words.split_first_chunk::<N>() {
        Some((bytes, rest)) => {
            *words = rest;
            Ok(*bytes)
        }
        None => Err(Error::codec(NAME, "the header of the block is cut off")),
    }
}

/// Puts the elements of a box of extent `from` into a box of extent `to`, both of the same rank and packed with the first
/// axis fastest: what lies outside of `to` is left out, what `from` does not have becomes zero.
///
/// `elements` and `out` hold the elements of their boxes. Where one is shorter, what it lacks counts as not there.
pub fn unfold(elements: &[u8], from: &[usize], to: &[usize], item_size: usize, out: &mut [u8]) {
    match (from.split_last(), to.split_last()) {
        // Planes, rows or items that have the same form on both sides are one run of bytes.
        (Some((_, from)), Some((_, to))) if from != to => {
            let (from_step, to_step) = (packed_nbytes(from, item_size), packed_nbytes(to, item_size));
            if from_step == 0 || to_step == 0 {
                return out.fill(0);
            }
            let mut parts = elements.chunks_exact(from_step);
            for place in out.chunks_mut(to_step) {
                match parts.next() {
                    Some(part) => unfold(part, from, to, item_size, place),
                    None => place.fill(0),
                }
            }
        }
        _ => {
            let (same, rest) = out.split_at_mut(elements.len().min(out.len()));
            if let Some(elements) = elements.get(..same.len()) {
                same.copy_from_slice(elements);
            }
            rest.fill(0);
        }
    }
}

fn packed_nbytes(extent: &[usize], item_size: usize) -> usize {
    extent.iter().fold(item_size, |nbytes, &extent| nbytes.saturating_mul(extent))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{parse, unfold};
    use crate::error::ErrorKind;
    use crate::metadata::limits::MAX_CHUNK_NBYTES;

    /// A header: mode, axes, extents, and the number of elements where there is one.
    fn header(mode: u16, extents: &[u32], elements: Option<u32>) -> Vec<u8> {
        let mut bytes = [mode.to_be_bytes(), (extents.len() as u16).to_be_bytes()].concat();
        bytes.extend(extents.iter().chain(&elements).flat_map(|word| word.to_be_bytes()));
        bytes
    }

    /// Dimensions (3, 2), blocks (2, 2), uint16, raw: as tensorstore writes them, padded, and as Java does.
    #[test]
    fn blocks_of_two_writers() {
        let first = b"\0\0\0\x02\0\0\0\x02\0\0\0\x02\0\0\0\x02\0\x01\0\x03";
        let found = parse(first, 2).unwrap();
        assert_eq!((found.extent(), found.nbytes), (&[2, 2][..], 12));
        assert_eq!(found.decoded_nbytes(2, 8).unwrap(), 8);
        assert_eq!(first.len() - found.nbytes, 8);

        let padded = parse(b"\0\0\0\x02\0\0\0\x02\0\0\0\x02\0\x04\0\0\0\x05\0\0", 2).unwrap();
        let short = parse(b"\0\0\0\x02\0\0\0\x01\0\0\0\x02\0\x04\0\x05", 2).unwrap();
        let (mut from_padded, mut from_short) = ([9; 8], [9; 8]);
        unfold(&[0, 4, 0, 0, 0, 5, 0, 0], padded.extent(), &[2, 2], 2, &mut from_padded);
        unfold(&[0, 4, 0, 5], short.extent(), &[2, 2], 2, &mut from_short);
        assert_eq!(from_padded, [0, 4, 0, 0, 0, 5, 0, 0]);
        assert_eq!(from_short, from_padded);
    }

    #[test]
    fn varlength_blocks_of_numbers_are_ordinary_ones() {
        let found = parse(&header(1, &[4, 3, 2], Some(24)), 3).unwrap();
        assert_eq!((found.extent(), found.nbytes), (&[4, 3, 2][..], 20));
        let most = [u32::from(u16::MAX), 32_768];
        assert!(parse(&header(0, &most, None), 2).is_ok());
    }

    #[test]
    fn refused_headers() {
        let (codec, limit, unsupported) = ("CodecError", "LimitExceededError", "UnsupportedError");
        let table = [
            (header(0, &[2], None), codec, "1 axes, the array has 2"),
            (header(0, &[2, 2, 2], None), codec, "3 axes"),
            (header(0, &[0, 2], None), codec, "extent 0 along axis 0"),
            (header(0, &[2, 0], None), codec, "extent 0 along axis 1"),
            (header(0, &[u32::MAX, u32::MAX], None), limit, "voxels of a block"),
            (header(0, &[65_536, 32_768], None), limit, "needs 2147483648"),
            (header(1, &[u32::MAX, u32::MAX], Some(1)), limit, "voxels of a block"),
            (header(1, &[2, 2], Some(3)), unsupported, "3 elements for 4 voxels"),
            (header(1, &[2, 2], Some(5)), unsupported, "5 elements for 4 voxels"),
            (header(2, &[2, 2], None), unsupported, "mode 2"),
            (header(3, &[2, 2], None), codec, "mode 3"),
            (header(u16::MAX, &[2, 2], None), codec, "mode 65535"),
        ];
        for (bytes, class, part) in table {
            let error = parse(&bytes, 2).unwrap_err();
            assert_eq!(error.kind().class_name(), class, "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
        for whole in [header(0, &[2, 2], None), header(1, &[2, 2], Some(4))] {
            for cut in 0..whole.len() {
                let error = parse(&whole[..cut], 2).unwrap_err();
                assert!(error.to_string().contains("cut off"), "{cut}: {error}");
            }
        }
        let large = parse(&header(0, &[1 << 15, 1 << 15], None), 2).unwrap();
        assert!(large.decoded_nbytes(1, MAX_CHUNK_NBYTES).is_ok());
        let error = large.decoded_nbytes(2, MAX_CHUNK_NBYTES).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Limit { .. }), "{error}");
        assert!(large.decoded_nbytes(usize::MAX, MAX_CHUNK_NBYTES).is_err());
    }

    /// One voxel at a time.
    fn naive(elements: &[u8], from: &[usize], to: &[usize], item: usize, out: &mut [u8]) {
        out.fill(0);
        let voxels = out.len() / item;
        for voxel in 0..voxels {
            let (mut left, mut source, mut stride, mut inside) = (voxel, 0, 1, true);
            for (&have, &want) in from.iter().zip(to) {
                let at = left % want;
                left /= want;
                inside &= at < have;
                source += at * stride;
                stride *= have;
            }
            if inside {
                out[voxel * item..][..item].copy_from_slice(&elements[source * item..][..item]);
            }
        }
    }

    fn boxes() -> impl Strategy<Value = (Vec<usize>, Vec<usize>, usize)> {
        (0usize..5, prop::sample::select(vec![1usize, 2, 3, 8])).prop_flat_map(|(rank, item)| {
            let extents = || prop::collection::vec(1usize..7, rank);
            // Axes often agree, so that runs of several axes are merged.
            (extents(), extents(), prop::collection::vec(any::<bool>(), rank), Just(item)).prop_map(
                |(from, mut to, same, item)| {
                    for ((to, from), same) in to.iter_mut().zip(&from).zip(same) {
                        *to = if same { *from } else { *to };
                    }
                    (from, to, item)
                },
            )
        })
    }

    proptest! {
        #[test]
        fn unfold_equals_the_naive_loop((from, to, item) in boxes()) {
            let nbytes = |extent: &[usize]| extent.iter().product::<usize>() * item;
            let elements: Vec<u8> = (0..nbytes(&from)).map(|i| (i % 251 + 1) as u8).collect();
            let (mut expected, mut got) = (vec![0xA5; nbytes(&to)], vec![0x5A; nbytes(&to)]);
            naive(&elements, &from, &to, item, &mut expected);
            unfold(&elements, &from, &to, item, &mut got);
            prop_assert_eq!(got, expected);
        }

        #[test]
        fn unfold_survives_what_does_not_fit(
            elements in prop::collection::vec(any::<u8>(), 0..40),
            from in prop::collection::vec(prop_oneof![0usize..4, Just(usize::MAX)], 0..4),
            to in prop::collection::vec(prop_oneof![0usize..4, Just(usize::MAX)], 0..4),
            (item, nbytes) in (0usize..4, 0usize..40),
        ) {
            unfold(&elements, &from, &to, item, &mut vec![1; nbytes]);
        }
    }
}
