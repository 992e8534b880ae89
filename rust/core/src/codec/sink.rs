//! Where a streaming decoder writes: memory of exactly known size, or memory that grows to a limit.
//!
//! In: decoded bytes in pieces. Out: the guarantee that neither more than the expected bytes nor more than the limit
//! are ever stored, whatever the encoded bytes claim. One byte more than allowed is an error, not a truncation.

use std::io::Read;

use crate::error::{Error, Result};

/// Smallest step in which a growing sink grows, in bytes.
const MIN_GROWTH_NBYTES: usize = 64 << 10;

/// Receives decoded bytes piece by piece.
pub(super) trait Sink {
    /// Free memory for the next piece, never empty.
    ///
    /// # Errors
    /// `Codec` when the limit is passed, `Limit` when memory is short.
    fn spare(&mut self, codec: &'static str) -> Result<&mut [u8]>;

    /// Marks the first `len` bytes of the last `spare` as written.
    fn advance(&mut self, len: usize);

    /// Checks that everything expected has arrived.
    ///
    /// # Errors
    /// `Codec` when bytes are missing or too many.
    fn finish(self, codec: &'static str) -> Result<()>;
}

/// Expects exactly as many bytes as the slice holds.
pub(super) struct ExactSink<'a> {
    out: &'a mut [u8],
    filled: usize,
    // Offered when the slice is full: a decoder that has more to say says it here.
    probe: [u8; 1],
}

impl<'a> ExactSink<'a> {
    pub(super) fn new(out: &'a mut [u8]) -> Self {
        Self { out, filled: 0, probe: [0] }
    }
}

impl Sink for ExactSink<'_> {
    fn spare(&mut self, codec: &'static str) -> Result<&mut [u8]> {
        let expected = self.out.len();
        match self.filled.cmp(&expected) {
            std::cmp::Ordering::Less => Ok(self.out.get_mut(self.filled..).unwrap_or_default()),
            std::cmp::Ordering::Equal => Ok(&mut self.probe),
            std::cmp::Ordering::Greater => Err(too_long(codec, expected as u64)),
        }
    }

    fn advance(&mut self, len: usize) {
        self.filled = self.filled.saturating_add(len);
    }

    fn finish(self, codec: &'static str) -> Result<()> {
        check_len(codec, self.filled, self.out.len())
    }
}

/// Takes up to `limit` bytes into a vector, which is emptied first.
pub(super) struct GrowingSink<'a> {
    out: &'a mut Vec<u8>,
    filled: usize,
    limit: usize,
}

impl<'a> GrowingSink<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, limit: u64) -> Self {
        out.clear();
        Self { out, filled: 0, limit: usize::try_from(limit).unwrap_or(usize::MAX) }
    }
}

impl Sink for GrowingSink<'_> {
    fn spare(&mut self, codec: &'static str) -> Result<&mut [u8]> {
        if self.filled > self.limit {
            return Err(too_long(codec, self.limit as u64));
        }
        if self.filled == self.out.len() {
            // One byte past the limit is offered, so that passing it shows.
            let len = self.filled.saturating_mul(2).max(MIN_GROWTH_NBYTES).min(self.limit.saturating_add(1));
            resize(self.out, len)?;
        }
        Ok(self.out.get_mut(self.filled..).unwrap_or_default())
    }

    fn advance(&mut self, len: usize) {
        self.filled = self.filled.saturating_add(len);
    }

    fn finish(self, codec: &'static str) -> Result<()> {
        if self.filled > self.limit {
            return Err(too_long(codec, self.limit as u64));
        }
        self.out.truncate(self.filled);
        Ok(())
    }
}

/// Moves everything `reader` decodes into `sink`.
///
/// # Errors
/// `Codec` with what the reader refused, or when the sink is over- or underfilled.
pub(super) fn drain(codec: &'static str, reader: &mut impl Read, mut sink: impl Sink) -> Result<()> {
    loop {
        let len = reader.read(sink.spare(codec)?).map_err(|error| Error::codec(codec, error.to_string()))?;
        if len == 0 {
            return sink.finish(codec);
        }
        sink.advance(len);
    }
}

/// Sets the length of `vec`, zero-filling what is new; memory that cannot be had is an error, not an abort.
///
/// # Errors
/// `Limit` when memory is short.
pub(super) fn resize(vec: &mut Vec<u8>, len: usize) -> Result<()> {
    let additional = len.saturating_sub(vec.len());
    vec.try_reserve_exact(additional)
        .map_err(|_| Error::limit("memory of a decoded chunk", len as u64, vec.capacity() as u64))?;
    vec.resize(len, 0);
    Ok(())
}

/// # Errors
/// `Codec` when a decoder produced another number of bytes than expected.
pub(super) fn check_len(codec: &'static str, decoded: usize, expected: usize) -> Result<()> {
    if decoded == expected {
        Ok(())
    } else if decoded > expected {
        Err(too_long(codec, expected as u64))
    } else {
        Err(Error::codec(codec, format!("decodes to {decoded} bytes, expected {expected}")))
    }
}

fn too_long(codec: &'static str, limit: u64) -> Error {
    Error::codec(codec, format!("decodes to more than {limit} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_sink_takes_exactly_its_length() {
        for (given, ok) in [(4, false), (5, true), (6, false)] {
            let mut out = [0; 5];
            let bytes = vec![7u8; given];
            assert_eq!(drain("test", &mut bytes.as_slice(), ExactSink::new(&mut out)).is_ok(), ok, "{given}");
        }
    }

    #[test]
    fn growing_sink_takes_up_to_its_limit() {
        let mut out = Vec::new();
        for (given, limit, ok) in [(0, 0, true), (1, 0, false), (200_000, 200_000, true), (200_001, 200_000, false)] {
            let bytes = vec![7u8; given];
            assert_eq!(drain("test", &mut bytes.as_slice(), GrowingSink::new(&mut out, limit)).is_ok(), ok);
            if ok {
                assert_eq!(out, bytes);
            }
        }
    }
}
