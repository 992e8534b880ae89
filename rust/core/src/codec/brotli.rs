//! Brotli (RFC 7932): one stream, nothing behind it. There is no checksum in it.
//!
//! Streams with the larger windows of the later extension (up to 1 GiB) are refused: a decoder of RFC 7932 takes at most
//! 16 MiB of memory for its window, whatever the stream asks for.

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

use super::sink::{ExactSink, GrowingSink, Sink};
use crate::error::{Error, Result};

const NAME: &str = "brotli";

/// Decodes exactly `out.len()` bytes.
///
/// # Errors
/// `Codec` when the stream is broken, truncated, followed by other bytes, or has another size.
pub(crate) fn decode_exact(encoded: &[u8], out: &mut [u8]) -> Result<()> {
    decode(encoded, ExactSink::new(out))
}

/// Decodes at most `limit` bytes into `out`, which is emptied first.
///
/// # Errors
/// As [`decode_exact`]; `Codec` when there are more than `limit` bytes, `Limit` when memory is short.
pub(crate) fn decode_bounded(encoded: &[u8], limit: u64, out: &mut Vec<u8>) -> Result<()> {
    decode(encoded, GrowingSink::new(out, limit))
}

fn decode(encoded: &[u8], mut sink: impl Sink) -> Result<()> {
    let memory = StandardAlloc::default;
    let mut state = BrotliState::new_strict(memory(), memory(), memory());
    let (mut left, mut at, mut total) = (encoded.len(), 0, 0);
    loop {
        let room = sink.spare(NAME)?;
        let (mut free, mut filled) = (room.len(), 0);
        let result =
            BrotliDecompressStream(&mut left, &mut at, encoded, &mut free, &mut filled, room, &mut total, &mut state);
        sink.advance(filled);
        match result {
            BrotliResult::NeedsMoreOutput => {}
            BrotliResult::ResultSuccess if left == 0 => return sink.finish(NAME),
            BrotliResult::ResultSuccess => return Err(Error::codec(NAME, "other bytes follow the stream")),
            BrotliResult::NeedsMoreInput => return Err(Error::codec(NAME, "the stream ends too early")),
            BrotliResult::ResultFailure => return Err(Error::codec(NAME, "not a stream of RFC 7932")),
        }
    }
}
