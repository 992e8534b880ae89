//! `compresso`: labels as the outlines of flat regions, a label for each region, and what is needed for the outlines.
//!
//! Source: seung-lab/compresso, "Compresso Stream Format", versions 0 and 1. All numbers are little-endian; `width` is
//! the number of bytes of a label, a window has as many bits as a block has voxels, in 1, 2, 4 or 8 bytes.
//!
//! | part | what |
//! |---|---|
//! | header | `cpso`, version u8, width u8, extent (x, y, z) 3 x u16, block (x, y, z) 3 x u8, number of ids u64, of values u32, of locations u64, connectivity u8 |
//! | ids | a label for each region |
//! | values | all different windows |
//! | locations | see below, as wide as labels |
//! | windows | for each block, x fastest: twice the number of its value; or, odd, twice the length of a run of value 0, plus 1 |
//! | index | version 1 only: two numbers for each z, as wide as twice a slice's number of voxels needs |
//!
//! A bit of a window says that the voxel belongs to an outline: its neighbour at x + 1 or y + 1 (connectivity 6: or z + 1)
//! has another label. Regions are the connected voxels without outlines, in a slice (connectivity 4) or in the volume (6),
//! numbered by their first voxel. A voxel of an outline has the label of the first of its neighbours at x - 1, y - 1
//! (6: z - 1) that is in a region; failing all, the next location says which: that of the neighbour at x - 1, x + 1, y - 1,
//! y + 1, z - 1, z + 1 (0 to 5), the location after it (6), or the location less 7.
//!
//! Whatever the stream, the work and the memory are those of the output: the outlines take a bit for each voxel, in whole
//! words for each row along x; the regions 4 bytes for each row and each run of voxels in it, of one slice where they do
//! not go on in the next.

mod labels;
mod outlines;

use self::outlines::Outlines;
use crate::error::{Error, Result};

const NAME: &str = "compresso";

const MAGIC: &[u8] = b"cpso";

/// Decodes labels of `item_size` bytes into `out`, in native byte order and x fastest. `extent` is (x, y, z, channel) in
/// voxels; there is one channel.
///
/// # Errors
/// `Codec` when the stream is broken or has another extent or another width of labels, `Unsupported` for another version
/// of the stream or more channels, `Limit` when memory is short, `Internal` when sizes do not fit together.
pub(crate) fn decode(encoded: &[u8], extent: [usize; 4], item_size: usize, out: &mut [u8]) -> Result<()> {
    let nbytes = extent.iter().try_fold(item_size, |product, n| product.checked_mul(*n));
    if nbytes != Some(out.len()) {
        let what = format!("{} bytes of output for {extent:?} labels of {item_size} bytes", out.len());
        return Err(Error::internal(what));
    }
    let [x, y, z, 1] = extent else {
        let what = format!("{NAME} of {} channels", extent[3]);
        return Err(Error::unsupported(what, "the encoding holds one channel: read another scale"));
    };
    let header = Header::parse(encoded)?;
    if header.extent != [x, y, z] || header.width != item_size {
        let what = format!("{:?} labels of {} bytes", header.extent, header.width);
        return Err(Error::codec(NAME, format!("holds {what}, expected {:?} of {item_size} bytes", [x, y, z])));
    }
    if out.is_empty() {
        return Ok(());
    }
    match item_size {
        1 => decode_labels::<1>(&header, out.as_chunks_mut().0),
        2 => decode_labels::<2>(&header, out.as_chunks_mut().0),
        4 => decode_labels::<4>(&header, out.as_chunks_mut().0),
        8 => decode_labels::<8>(&header, out.as_chunks_mut().0),
        _ => Err(Error::codec(NAME, format!("labels of {item_size} bytes"))),
    }
}

fn decode_labels<const N: usize>(header: &Header, out: &mut [[u8; N]]) -> Result<()> {
    let outlines = Outlines::decode(header)?;
    let (ids, _) = header.ids.as_chunks();
    labels::fill_regions(&outlines, header.connects_slices, ids, out)?;
    let (locations, _) = header.locations.as_chunks();
    labels::fill_outlines(&outlines, header.connects_slices, locations, out)
}

/// The parts of a stream.
struct Header<'a> {
    /// x, y, z in voxels.
    extent: [usize; 3],
    /// Bytes of a label.
    width: usize,
    /// x, y, z in voxels; at most 64 voxels.
    block: [usize; 3],
    /// Bytes of a window.
    window: usize,
    /// True when regions go on from slice to slice (connectivity 6).
    connects_slices: bool,
    ids: &'a [u8],
    values: &'a [u8],
    locations: &'a [u8],
    windows: &'a [u8],
}

impl<'a> Header<'a> {
    fn parse(encoded: &'a [u8]) -> Result<Self> {
        let mut rest = encoded;
        if take(&mut rest, MAGIC.len() as u64, 1)? != MAGIC {
            return Err(Error::codec(NAME, "the stream does not start with \"cpso\""));
        }
        let version = number::<1>(&mut rest)?;
        if version > 1 {
            let what = format!("{NAME} streams of version {version}");
            return Err(Error::unsupported(what, "versions 0 and 1 are read"));
        }
        let width = number::<1>(&mut rest)? as usize;
        let extent = [number::<2>(&mut rest)?, number::<2>(&mut rest)?, number::<2>(&mut rest)?].map(|n| n as usize);
        let block = [number::<1>(&mut rest)?, number::<1>(&mut rest)?, number::<1>(&mut rest)?].map(|n| n as usize);
        let (ids, values, locations) = (number::<8>(&mut rest)?, number::<4>(&mut rest)?, number::<8>(&mut rest)?);
        let connects_slices = match number::<1>(&mut rest)? {
            4 => false,
            6 => true,
            other => return Err(Error::codec(NAME, format!("a connectivity of {other}"))),
        };
        let bits: usize = block.iter().product();
        if bits == 0 || bits > 64 {
            return Err(Error::codec(NAME, format!("blocks of {block:?} voxels")));
        }
        let window = bits.next_power_of_two().max(8) / 8;
        let ids = take(&mut rest, ids, width)?;
        let values = take(&mut rest, values, window)?;
        let locations = take(&mut rest, locations, width)?;
        let index = if version == 1 { 2 * extent[2] * index_width(extent) } else { 0 };
        let windows = rest.len().checked_sub(index).and_then(|len| rest.get(..len)).ok_or_else(truncated)?;
        Ok(Self { extent, width, block, window, connects_slices, ids, values, locations, windows })
    }
}

/// Bytes of a number of the index over z.
fn index_width([x, y, _]: [usize; 3]) -> usize {
    match 2 * x as u64 * y as u64 {
        0..0x100 => 1,
        0x100..0x1_0000 => 2,
        0x1_0000..0x1_0000_0000 => 4,
        _ => 8,
    }
}

/// Splits `count` items of `width` bytes off the front.
fn take<'a>(rest: &mut &'a [u8], count: u64, width: usize) -> Result<&'a [u8]> {
    let nbytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(width));
    let split = nbytes.and_then(|nbytes| rest.split_at_checked(nbytes));
    let (taken, after) = split.ok_or_else(truncated)?;
    *rest = after;
    Ok(taken)
}

/// Takes a number of `N` bytes off the front.
fn number<const N: usize>(rest: &mut &[u8]) -> Result<u64> {
    let (bytes, after) = rest.split_first_chunk::<N>().ok_or_else(truncated)?;
    *rest = after;
    Ok(to_u64(*bytes))
}

/// A little-endian number of up to 8 bytes.
fn to_u64<const N: usize>(bytes: [u8; N]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A vector of `len` items.
fn allocate<T: Clone>(len: usize, item: T) -> Result<Vec<T>> {
    let mut vec = Vec::new();
    reserve(&mut vec, len)?;
    vec.resize(len, item);
    Ok(vec)
}

/// Room for `len` more items; memory that cannot be had is an error, not an abort.
fn reserve<T>(vec: &mut Vec<T>, len: usize) -> Result<()> {
    vec.try_reserve(len).map_err(|_| {
        let nbytes = (vec.len() + len) * size_of::<T>();
        Error::limit("memory of a compresso decoder", nbytes as u64, vec.capacity() as u64)
    })
}

fn truncated() -> Error {
    Error::codec(NAME, "the stream is truncated")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// A stream of labels of one byte and windows of one byte.
    #[derive(Clone)]
    struct Stream {
        version: u8,
        extent: [u16; 3],
        block: [u8; 3],
        connectivity: u8,
        ids: Vec<u8>,
        values: Vec<u8>,
        locations: Vec<u8>,
        windows: Vec<u8>,
        index: Vec<u8>,
    }

    impl Stream {
        fn bytes(&self) -> Vec<u8> {
            let mut bytes = [MAGIC, &[self.version, 1]].concat();
            self.extent.iter().for_each(|n| bytes.extend(n.to_le_bytes()));
            bytes.extend(self.block);
            bytes.extend((self.ids.len() as u64).to_le_bytes());
            bytes.extend((self.values.len() as u32).to_le_bytes());
            bytes.extend((self.locations.len() as u64).to_le_bytes());
            bytes.push(self.connectivity);
            [&bytes[..], &self.ids, &self.values, &self.locations, &self.windows, &self.index].concat()
        }

        fn decode(&self) -> Result<Vec<u8>> {
            let [x, y, z] = self.extent.map(usize::from);
            let mut out = vec![0xa5; x * y * z];
            decode(&self.bytes(), [x, y, z, 1], 1, &mut out).map(|()| out)
        }

        #[track_caller]
        fn is_refused(&self) {
            let refused = self.decode().unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::Codec { .. }), "{refused}");
        }
    }

    /// Labels 1 1 2 over 1 2 2: outlines at the second voxel and, below, at the first.
    fn example() -> Stream {
        Stream {
            version: 0,
            extent: [3, 2, 1],
            block: [3, 2, 1],
            connectivity: 4,
            ids: vec![1, 2],
            values: vec![0b001_010],
            locations: vec![],
            windows: vec![0],
            index: vec![],
        }
    }

    #[test]
    fn regions_and_outlines_get_their_labels() {
        assert_eq!(example().decode(), Ok(vec![1, 1, 2, 1, 2, 2]));
        // An outline in the corner has nobody before it or above.
        let corner = Stream { ids: vec![4], values: vec![0b000_001], ..example() };
        for (locations, label) in
            [(vec![1], 4), (vec![3], 4), (vec![6, 255], 255), (vec![6, 3], 3), (vec![7], 0), (vec![255], 248)]
        {
            let stream = Stream { locations, ..corner.clone() };
            assert_eq!(stream.decode(), Ok(vec![label, 4, 4, 4, 4, 4]), "{:?}", stream.locations);
        }
    }

    #[test]
    fn regions_go_on_from_slice_to_slice_only_with_connectivity_6() {
        let stream = Stream { extent: [1, 1, 3], block: [1, 1, 1], values: vec![0, 1], ..example() };
        let flat = Stream { windows: vec![3 << 1 | 1], ids: vec![1, 2, 3], ..stream.clone() };
        assert_eq!(flat.decode(), Ok(vec![1, 2, 3]));
        let solid = Stream { connectivity: 6, ids: vec![9], ..flat.clone() };
        assert_eq!(solid.decode(), Ok(vec![9, 9, 9]));
        Stream { connectivity: 6, ..flat.clone() }.is_refused();
        Stream { ids: vec![9], ..flat }.is_refused();
        // An outline in the middle: behind it a region with 6, a location with 4.
        let between = Stream { windows: vec![0, 1 << 1, 0], ids: vec![1, 2], ..stream };
        assert_eq!(Stream { connectivity: 6, ..between.clone() }.decode(), Ok(vec![1, 1, 2]));
        for (location, label) in [(4, 1), (5, 2)] {
            assert_eq!(Stream { locations: vec![location], ..between.clone() }.decode(), Ok(vec![1, label, 2]));
        }
        between.is_refused();
    }

    #[test]
    fn regions_that_meet_late_are_one() {
        // A spiral, all of one region but for the outlines between its arms, which take the label of what is before or above.
        let rows = ["......", ".####.", ".#..#.", ".##.#.", "....#."];
        let value = |row: &str| row.bytes().rev().fold(0, |bits, voxel| bits << 1 | u8::from(voxel == b'#'));
        let stream = Stream {
            extent: [6, 5, 1],
            block: [6, 1, 1],
            ids: vec![5],
            values: rows.map(value).to_vec(),
            windows: vec![0, 2, 4, 6, 8],
            ..example()
        };
        assert_eq!(stream.decode(), Ok(vec![5; 30]));
        Stream { ids: vec![5, 6], ..stream.clone() }.is_refused();
        let rows = ["......", "######", ".#..#.", ".##.#.", "....#."];
        let cut = Stream { ids: vec![5, 6, 7], values: rows.map(value).to_vec(), ..stream };
        assert_eq!(cut.decode(), Ok([&[5; 12][..], &[6, 6, 6, 6, 6, 7].repeat(3)].concat()));
    }

    #[test]
    fn broken_streams_are_refused() {
        let good = Stream { ids: vec![4], values: vec![0b000_001], locations: vec![1], ..example() };
        good.decode().unwrap();
        Stream { version: 2, ..good.clone() }.decode().unwrap_err();
        for location in [vec![], vec![6], vec![1, 1], vec![0], vec![2], vec![4], vec![5]] {
            Stream { locations: location, ..good.clone() }.is_refused();
        }
        for ids in [vec![], vec![4, 4]] {
            Stream { ids, ..good.clone() }.is_refused();
        }
        for windows in [vec![], vec![2], vec![0, 0], vec![2 << 1 | 1], vec![255], vec![0, 255], vec![255; 100]] {
            Stream { windows, ..good.clone() }.is_refused();
        }
        for block in [[0, 1, 1], [3, 0, 1], [3, 2, 0], [65, 1, 1], [16, 16, 1], [255, 255, 255]] {
            Stream { block, ..good.clone() }.is_refused();
        }
        for connectivity in [0, 5, 8] {
            Stream { connectivity, ..good.clone() }.is_refused();
        }
        // Two numbers of one byte for each slice.
        Stream { version: 1, index: vec![1], ..good.clone() }.is_refused();
        Stream { version: 1, index: vec![1, 0], ..good.clone() }.decode().unwrap();
        Stream { index: vec![1, 0], ..good.clone() }.is_refused();
        let bytes = good.bytes();
        // Numbers of ids, values and locations.
        for (at, len) in [(15, 8), (23, 4), (27, 8)] {
            for number in [4u64, 1 << 31, 1 << 61, u64::MAX] {
                let mut claims = bytes.clone();
                claims[at..at + len].copy_from_slice(&number.to_le_bytes()[..len]);
                decode(&claims, [3, 2, 1, 1], 1, &mut [0; 6]).unwrap_err();
            }
        }
        let channels = decode(&bytes, [3, 1, 1, 2], 1, &mut [0; 6]).unwrap_err();
        assert!(matches!(channels.kind(), ErrorKind::Unsupported { .. }));
        let output = decode(&bytes, [3, 2, 1, 1], 1, &mut [0; 5]).unwrap_err();
        assert!(matches!(output.kind(), ErrorKind::Internal { .. }));
        let mut of_three = bytes;
        of_three[5] = 3;
        decode(&of_three, [3, 2, 1, 1], 3, &mut [0; 18]).unwrap_err();
    }

    #[test]
    fn an_empty_stream_is_an_empty_chunk() {
        let empty = Stream { extent: [0, 2, 1], ids: vec![], values: vec![], windows: vec![], ..example() };
        assert_eq!(empty.decode(), Ok(vec![]));
    }
}
