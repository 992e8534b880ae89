//! LZMA streams in the format before xz, which `lzma` of Python calls `FORMAT_ALONE`: one byte of properties, the size of the
//! dictionary, the decoded size or all ones, and the data. There is no checksum.
//!
//! Source: LZMA SDK, `lzma.txt`; Python `lzma`.

use lzma_rust2::LzmaReader;

use super::sink::{ExactSink, GrowingSink, Sink, drain};
use super::xz::MAX_MEMORY_KIB;
use crate::error::{Error, Result};

const NAME: &str = "lzma";

/// Decodes exactly `out.len()` bytes.
///
/// # Errors
/// `Codec` when the stream is broken, truncated, followed by other bytes, needs too much memory, or has another size.
pub(crate) fn decode_exact(encoded: &[u8], out: &mut [u8]) -> Result<()> {
    decode_stream(encoded, ExactSink::new(out))
}

/// Decodes at most `limit` bytes into `out`, which is emptied first.
///
/// # Errors
/// As [`decode_exact`]; `Codec` when there are more than `limit` bytes, `Limit` when memory is short.
pub(crate) fn decode_bounded(encoded: &[u8], limit: u64, out: &mut Vec<u8>) -> Result<()> {
    decode_stream(encoded, GrowingSink::new(out, limit))
}

fn decode_stream(encoded: &[u8], sink: impl Sink) -> Result<()> {
    let mut reader = LzmaReader::new_mem_limit(encoded, MAX_MEMORY_KIB, None)
        .map_err(|error| Error::codec(NAME, error.to_string()))?;
    drain(NAME, &mut reader, sink)?;
    // The reader reads ahead.
    let (after, ahead) = reader.into_parts();
    match after.len() + ahead.len() {
        0 => Ok(()),
        extra => Err(Error::codec(NAME, format!("{extra} bytes after the stream"))),
    }
}
