//! `hdf5_scaleoffset`: integers as what they are above the smallest of them, in as many bits as that takes (HDF5 filter 6).
//!
//! Source: "The HDF5 Library: the scale-offset filter" of the HDF Group, and bytes that HDF5 wrote. Numbers are
//! little-endian.
//!
//! | bytes | |
//! |---|---|
//! | 4 | bits of an element |
//! | 1 | how many of the next bytes are the smallest element: 8 |
//! | 8 | the smallest element |
//! | 8 | nothing |
//! | rest | the elements, most significant bit first; with all bits of their type as they are, little-endian |
//!
//! An element of ones is the fill value, where there is one. The library leaves one byte more than is needed.

use super::sink::resize;
use crate::dtype::Endian;
use crate::error::{Error, Result};
use crate::metadata::ScaleOffsetSpec;

const NAME: &str = "hdf5_scaleoffset";
const HEADER_NBYTES: usize = 21;

/// Decodes exactly `out.len()` bytes.
///
/// # Errors
/// `Codec` when the bytes are broken or of another number of elements.
pub(crate) fn decode_exact(spec: &ScaleOffsetSpec, encoded: &[u8], out: &mut [u8]) -> Result<()> {
    let size = spec.elementsize;
    if !matches!(size, 1 | 2 | 4 | 8) || out.len() != spec.elements.saturating_mul(size) {
        return Err(Error::codec(
            NAME,
            format!("{} elements of {size} bytes are not {} bytes", spec.elements, out.len()),
        ));
    }
    let (header, rest) = encoded.split_at_checked(HEADER_NBYTES).ok_or_else(truncated)?;
    let (bits, header) = header.split_first_chunk().ok_or_else(truncated)?;
    let (&count, header) = header.split_first().ok_or_else(truncated)?;
    let bits = u32::from_le_bytes(*bits) as usize;
    if bits > 8 * size {
        return Err(Error::codec(NAME, format!("{bits} bits of an element of {size} bytes")));
    }
    let needed = (spec.elements as u64).saturating_mul(bits as u64).div_ceil(8);
    let extra = (rest.len() as u64).checked_sub(needed).ok_or_else(truncated)?;
    if extra > 1 {
        return Err(Error::codec(NAME, format!("{extra} bytes after the last element")));
    }
    let mut smallest = [0; 8];
    smallest.iter_mut().zip(header.iter().take(count.into())).for_each(|(to, from)| *to = *from);
    let smallest = u64::from_le_bytes(smallest);
    let all = bits == 8 * size;
    let ones = 1u64.checked_shl(bits as u32).map_or(u64::MAX, |above| above - 1);
    let mut unread = Bits { bytes: rest, buffer: 0, available: 0 };
    for (i, element) in out.chunks_exact_mut(size).enumerate() {
        let value = if all {
            let mut value = [0; 8];
            value.iter_mut().zip(rest.iter().skip(i * size).take(size)).for_each(|(to, from)| *to = *from);
            u64::from_le_bytes(value)
        } else {
            match (unread.take(bits), spec.fill) {
                (above, Some(fill)) if above == ones => fill,
                (above, _) => smallest.wrapping_add(above),
            }
        };
        element.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
        if spec.endian == Endian::Big {
            element.reverse();
        }
    }
    Ok(())
}

/// Replaces `out` by the decoded bytes, `limit` at most.
///
/// # Errors
/// As [`decode_exact`]; `Codec` when there are more than `limit` bytes, `Limit` when memory is short.
pub(crate) fn decode_bounded(spec: &ScaleOffsetSpec, encoded: &[u8], limit: u64, out: &mut Vec<u8>) -> Result<()> {
    let nbytes = spec.elements.saturating_mul(spec.elementsize);
    if nbytes as u64 > limit {
        return Err(Error::codec(NAME, format!("claims {nbytes} bytes, at most {limit} are possible")));
    }
    out.clear();
    resize(out, nbytes)?;
    decode_exact(spec, encoded, out)
}

/// Bytes as bits, the most significant first. Of fewer than are asked for the missing ones are zeros.
struct Bits<'a> {
    bytes: &'a [u8],
    buffer: u128,
    available: usize,
}

impl Bits<'_> {
    /// Takes `count` bits, 64 at most.
    fn take(&mut self, count: usize) -> u64 {
        while self.available < count {
            let (first, rest) = self.bytes.split_first().unwrap_or((&0, &[]));
            self.bytes = rest;
            self.buffer = (self.buffer << 8) | u128::from(*first);
            self.available += 8;
        }
        self.available -= count;
        let taken = (self.buffer >> self.available) as u64;
        self.buffer &= (1 << self.available) - 1;
        taken
    }
}

fn truncated() -> Error {
    Error::codec(NAME, "the bits are truncated")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn spec(elementsize: usize, endian: Endian, fill: Option<u64>) -> ScaleOffsetSpec {
        ScaleOffsetSpec { elementsize, elements: 3, endian, fill }
    }

    fn bytes(bits: u32, smallest: u64, rest: &[u8]) -> Vec<u8> {
        [&bits.to_le_bytes()[..], &[8], &smallest.to_le_bytes(), &[0; 8], rest].concat()
    }

    fn decoded(spec: ScaleOffsetSpec, encoded: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        decode_bounded(&spec, encoded, 24, &mut out)?;
        Ok(out)
    }

    #[test]
    fn elements_are_above_the_smallest() {
        // 1, 100, 5, as HDF5 writes them: 0, 99, 4 in 7 bits each.
        let encoded = bytes(7, 1, &[0x01, 0x8c, 0x20]);
        assert_eq!(decoded(spec(2, Endian::Big, Some(0)), &encoded).unwrap(), [0, 1, 0, 100, 0, 5]);
        assert_eq!(decoded(spec(4, Endian::Little, None), &encoded).unwrap(), [1, 0, 0, 0, 100, 0, 0, 0, 5, 0, 0, 0]);
        let negative = bytes(1, -2i64 as u64, &[0b0110_0000, 0]);
        assert_eq!(decoded(spec(1, Endian::Little, None), &negative).unwrap(), [254, 255, 255]);
        assert_eq!(decoded(spec(1, Endian::Little, Some(9)), &negative).unwrap(), [254, 9, 9]);
        assert_eq!(decoded(spec(1, Endian::Little, None), &bytes(0, 7, &[0])).unwrap(), [7; 3]);
        let whole = bytes(16, 3, &[1, 2, 3, 4, 5, 6]);
        assert_eq!(decoded(spec(2, Endian::Big, Some(0x0201)), &whole).unwrap(), [2, 1, 4, 3, 6, 5]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let spec = spec(2, Endian::Little, None);
        let encoded = bytes(7, 1, &[0x01, 0x8c, 0x20]);
        let too_long = [&encoded[..], &[0, 0]].concat();
        for broken in
            [&encoded[..23], &encoded[..20], &[], &bytes(17, 1, &[0; 7]), &bytes(u32::MAX, 1, &[0; 7]), &too_long]
        {
            assert!(matches!(decoded(spec, broken).unwrap_err().kind(), ErrorKind::Codec { .. }));
        }
        assert!(decode_exact(&spec, &encoded, &mut [0; 5]).is_err());
        assert!(decode_bounded(&spec, &encoded, 5, &mut Vec::new()).is_err());
        let huge = ScaleOffsetSpec { elements: usize::MAX, ..spec };
        assert!(decoded(huge, &encoded).is_err());
        assert!(decoded(ScaleOffsetSpec { elementsize: 3, ..spec }, &encoded).is_err());
    }
}
