//! bzip2: one or more streams, one after the other. Block and stream checksums are verified.

use std::io::Read as _;

use super::sink::{ExactSink, GrowingSink, drain};
use crate::error::{Error, Result};

const NAME: &str = "bz2";

/// Decodes exactly `out.len()` bytes.
///
/// # Errors
/// `Codec` when a stream is broken, truncated, followed by other bytes, or of another size.
pub(super) fn decode_exact(encoded: &[u8], out: &mut [u8]) -> Result<()> {
    refuse_empty(encoded)?;
    drain(NAME, &mut bzip2::bufread::MultiBzDecoder::new(encoded), ExactSink::new(out))
}

/// Decodes at most `limit` bytes into `out`, which is emptied first.
///
/// # Errors
/// As [`decode_exact`]; `Codec` when there are more than `limit` bytes.
pub(super) fn decode_bounded(encoded: &[u8], limit: u64, out: &mut Vec<u8>) -> Result<()> {
    refuse_empty(encoded)?;
    drain(NAME, &mut bzip2::bufread::MultiBzDecoder::new(encoded), GrowingSink::new(out, limit))
}

/// Encodes `decoded` as one stream into `out`, which is emptied first. `level` is 1-9, in units of 100 kB of block.
///
/// # Errors
/// `Codec` when the encoder fails.
pub(super) fn encode(decoded: &[u8], level: u32, out: &mut Vec<u8>) -> Result<()> {
    out.clear();
    bzip2::bufread::BzEncoder::new(decoded, bzip2::Compression::new(level.clamp(1, 9)))
        .read_to_end(out)
        .map_err(|error| Error::codec(NAME, error.to_string()))?;
    Ok(())
}

fn refuse_empty(encoded: &[u8]) -> Result<()> {
    if encoded.is_empty() { Err(Error::codec(NAME, "no bytes")) } else { Ok(()) }
}
