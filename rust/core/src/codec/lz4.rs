//! LZ4 raw blocks, and the `lz4` codec of Zarr v2: u32 little-endian decoded size, then one raw block.
//!
//! Source: LZ4 block format; numcodecs `lz4`. (N5, WKW and HDF5 put other frames around the same blocks.)

use super::sink::{check_len, resize};
use crate::error::{Error, Result};

const NAME: &str = "lz4";

/// Largest input of an LZ4 block, in bytes (`LZ4_MAX_INPUT_SIZE`).
const MAX_BLOCK_NBYTES: usize = 0x7e00_0000;

/// Decodes one raw block of exactly `out.len()` bytes.
///
/// # Errors
/// `Codec` when the block is broken or has another size.
pub(super) fn decode_raw_exact(encoded: &[u8], out: &mut [u8]) -> Result<()> {
    let decoded =
        lz4_flex::block::decompress_into(encoded, out).map_err(|error| Error::codec(NAME, error.to_string()))?;
    check_len(NAME, decoded, out.len())
}

/// Decodes a block with size prefix that must equal `out.len()`.
///
/// # Errors
/// `Codec` when prefix or block is broken or has another size.
pub(super) fn decode_exact(encoded: &[u8], out: &mut [u8]) -> Result<()> {
    let (size, block) = split_prefix(encoded)?;
    check_len(NAME, size, out.len())?;
    decode_raw_exact(block, out)
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
    out.extend_from_slice(&lz4_flex::block::compress(decoded));
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
        let encoded = lz4_flex::block::compress(&decoded);
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
}
