//! LZ4 raw blocks, and the `lz4` codec of Zarr v2: u32 little-endian decoded size, then one raw block.
//!
//! In: one block, all of it. Out: its bytes, through liblz4, which checks every length against both ends. When only the
//! beginning of a chunk is needed, decoding stops there. Source: LZ4 block format; numcodecs `lz4`. (N5, WKW and HDF5
//! put other frames around the same blocks.)

#![expect(unsafe_code, reason = "calls into liblz4")]

use std::ffi::{c_char, c_int};

use lz4_sys::{LZ4_compress_default, LZ4_compressBound, LZ4_decompress_safe};

use super::sink::{check_len, resize};
use crate::error::{Error, Result};

const NAME: &str = "lz4";

/// Largest input of an LZ4 block, in bytes (`LZ4_MAX_INPUT_SIZE`).
const MAX_BLOCK_NBYTES: usize = 0x7e00_0000;

// lz4-sys links it and does not declare it (lz4.h).
unsafe extern "C" {
    fn LZ4_decompress_safe_partial(
        src: *const c_char,
        dst: *mut c_char,
        src_nbytes: c_int,
        wanted_nbytes: c_int,
        dst_capacity: c_int,
    ) -> c_int;
}

/// A length as liblz4 takes it.
fn length(nbytes: usize) -> Result<i32> {
    let too_large = || Error::codec(NAME, format!("{nbytes} bytes are more than a block can have"));
    i32::try_from(nbytes).map_err(|_| too_large())
}

/// What liblz4 wrote, or its refusal.
fn written(result: i32) -> Result<usize> {
    usize::try_from(result).map_err(|_| Error::codec(NAME, "the block is broken, or decodes to more than expected"))
}

/// Decodes one raw block of exactly `out.len()` bytes.
///
/// # Errors
/// `Codec` when the block is broken or has another size.
pub(super) fn decode_raw_exact(encoded: &[u8], out: &mut [u8]) -> Result<()> {
    let (from, to) = (length(encoded.len())?, length(out.len())?);
    // SAFETY: both lengths are those of the slices; liblz4 reads and writes inside of them, whatever the bytes say.
    let result = unsafe { LZ4_decompress_safe(encoded.as_ptr().cast(), out.as_mut_ptr().cast(), from, to) };
    check_len(NAME, written(result)?, out.len())
}

/// Decodes one raw block of `out.len()` bytes at least up to byte `end`; behind it `out` may hold anything.
///
/// # Errors
/// `Codec` when the block is broken before that byte, or ends before it.
pub(super) fn decode_raw_until(encoded: &[u8], end: usize, out: &mut [u8]) -> Result<()> {
    if end >= out.len() {
        return decode_raw_exact(encoded, out);
    }
    let (from, to, capacity) = (length(encoded.len())?, length(end)?, length(out.len())?);
    let (encoded, out) = (encoded.as_ptr().cast(), out.as_mut_ptr().cast());
    // SAFETY: as in `decode_raw_exact`; `to` is less than `capacity`, which is the length of `out`.
    let result = unsafe { LZ4_decompress_safe_partial(encoded, out, from, to, capacity) };
    match written(result)? {
        decoded if decoded >= end => Ok(()),
        decoded => check_len(NAME, decoded, end),
    }
}

/// Decodes a block with size prefix that must equal `out.len()`, as [`decode_raw_until`] does.
///
/// # Errors
/// `Codec` when prefix or block is broken or has another size.
pub(super) fn decode_until(encoded: &[u8], end: usize, out: &mut [u8]) -> Result<()> {
    let (size, block) = split_prefix(encoded)?;
    check_len(NAME, size, out.len())?;
    decode_raw_until(block, end, out)
}

/// Decodes a block with size prefix of at most `limit` into `out`, which is emptied first.
///
/// # Errors
/// `Codec` when prefix or block is broken or claims more than the limit.
pub(super) fn decode_bounded(encoded: &[u8], limit: u64, out: &mut Vec<u8>) -> Result<()> {
    let (size, block) = split_prefix(encoded)?;
    if size as u64 > limit {
        return Err(Error::codec(NAME, format!("claims {size} bytes, at most {limit} are possible")));
    }
    out.clear();
    resize(out, size)?;
    decode_raw_exact(block, out)
}

/// Encodes `decoded` with size prefix into `out`, which is emptied first.
///
/// # Errors
/// `Codec` when the input is larger than LZ4 allows.
pub(super) fn encode(decoded: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let size = u32::try_from(decoded.len()).ok().filter(|_| decoded.len() <= MAX_BLOCK_NBYTES);
    let size = size.ok_or_else(|| Error::codec(NAME, format!("cannot encode {} bytes", decoded.len())))?;
    out.clear();
    out.extend_from_slice(&size.to_le_bytes());
    encode_raw(decoded, out)
}

/// Appends `decoded` as one raw block to `out`.
fn encode_raw(decoded: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let from = length(decoded.len())?;
    // SAFETY: a function of numbers.
    let bound = unsafe { LZ4_compressBound(from) };
    let start = out.len();
    resize(out, start + written(bound)?)?;
    let Some(room) = out.get_mut(start..) else { return Err(Error::internal("no room for a block")) };
    // SAFETY: both lengths are those of the slices.
    let result = unsafe { LZ4_compress_default(decoded.as_ptr().cast(), room.as_mut_ptr().cast(), from, bound) };
    out.truncate(start + written(result)?);
    Ok(())
}

fn split_prefix(encoded: &[u8]) -> Result<(usize, &[u8])> {
    let (size, block) =
        encoded.split_first_chunk::<4>().ok_or_else(|| Error::codec(NAME, "no size in front of the block"))?;
    Ok((u32::from_le_bytes(*size) as usize, block))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_block_has_exactly_the_size_of_the_output() {
        let decoded: Vec<u8> = (0..4000u32).map(|i| (i / 7) as u8).collect();
        let mut encoded = Vec::new();
        encode_raw(&decoded, &mut encoded).unwrap();
        let mut out = vec![0xa5; decoded.len()];
        decode_raw_exact(&encoded, &mut out).unwrap();
        assert_eq!(out, decoded);
        for nbytes in [0, decoded.len() - 1, decoded.len() + 1] {
            decode_raw_exact(&encoded, &mut vec![0; nbytes]).unwrap_err();
        }
        for len in 0..encoded.len() {
            decode_raw_exact(&encoded[..len], &mut out).unwrap_err();
        }
        decode_raw_exact(&[&encoded[..], b"more"].concat(), &mut out).unwrap_err();
    }

    #[test]
    fn a_part_is_the_beginning_of_the_whole() {
        let decoded: Vec<u8> = (0..40_000u32).map(|i| (i * i / 977 % 251) as u8).collect();
        let mut encoded = Vec::new();
        encode_raw(&decoded, &mut encoded).unwrap();
        for end in (0..=decoded.len()).step_by(391) {
            let mut out = vec![0xa5; decoded.len()];
            decode_raw_until(&encoded, end, &mut out).unwrap();
            assert_eq!(out[..end], decoded[..end]);
        }
        // A block that ends too early is noticed where its end is needed.
        let half = &encoded[..encoded.len() / 2];
        decode_raw_until(half, decoded.len() - 1, &mut vec![0; decoded.len()]).unwrap_err();
    }
}
