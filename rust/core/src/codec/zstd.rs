//! Zstandard (RFC 8878): one or more frames, each with or without content size and checksum; skippable frames.
//!
//! In: all frames of a chunk. Out: their concatenated content. libzstd verifies checksums that are present and refuses
//! bytes after the last frame. When the decoded size is known, libzstd decodes straight into the output: it needs no
//! window memory then, whatever window a frame declares, and stops at the end of the output.
//!
//! When only the beginning of a chunk is needed, its blocks (at most 128 KiB decoded, each relying on those before it)
//! are decoded as a stream that ends with the last one needed.

use zstd_safe::{CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer};

use super::sink::{GrowingSink, Sink, check_len, resize};
use crate::error::{Error, Result};

const NAME: &str = "zstd";

/// Largest window (2^27 bytes) that a frame may ask for when it is decoded as a stream.
const WINDOW_LOG_MAX: u32 = 27;

/// First bytes of a frame that is not skippable.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Flag in the byte after them: a checksum follows the content.
const FLAG_CHECKSUM: u8 = 0x04;
/// Most decoded bytes of a block.
pub(super) const BLOCK_NBYTES: usize = 128 << 10;

/// libzstd's contexts, made on first use.
#[derive(Default)]
pub(super) struct ZstdContext {
    decoder: Option<DCtx<'static>>,
    encoder: Option<CCtx<'static>>,
}

impl ZstdContext {
    fn decoder(&mut self) -> Result<&mut DCtx<'static>> {
        if self.decoder.is_none() {
            let mut decoder = DCtx::try_create().ok_or_else(out_of_memory)?;
            decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(refused)?;
            self.decoder = Some(decoder);
        }
        self.decoder.as_mut().ok_or_else(out_of_memory)
    }

    fn encoder(&mut self) -> Result<&mut CCtx<'static>> {
        if self.encoder.is_none() {
            self.encoder = Some(CCtx::try_create().ok_or_else(out_of_memory)?);
        }
        self.encoder.as_mut().ok_or_else(out_of_memory)
    }

    /// Decodes exactly `out.len()` bytes.
    pub(super) fn decode_exact(&mut self, encoded: &[u8], out: &mut [u8]) -> Result<()> {
        refuse_empty(encoded)?;
        let expected = out.len();
        let decoded = self.decoder()?.decompress(out, encoded).map_err(refused)?;
        check_len(NAME, decoded, expected)
    }

    /// Decodes `out`, which is as long as all frames together, at least up to byte `end`; behind it `out` may hold
    /// anything.
    ///
    /// Stops there when that saves enough and leaves no checksum out. Even then the declared sizes must add up to
    /// `out` and the headers of all blocks to `encoded`, so that truncated bytes are always refused.
    pub(super) fn decode_until(&mut self, encoded: &[u8], end: usize, out: &mut [u8]) -> Result<()> {
        if stops_early(end, out.len())
            && let Some(declared) = Declared::by(encoded)
            && declared.nbytes == out.len() as u64
            && !declared.checksum
            && let Some(start) = out.get_mut(..end)
            && self.decode_start(encoded, start).is_ok()
        {
            return Ok(());
        }
        // A stream needs window memory and refuses a frame with too large a window; decoded at once it may be fine.
        self.decode_exact(encoded, out)
    }

    /// Decodes the first `out.len()` bytes.
    fn decode_start(&mut self, encoded: &[u8], out: &mut [u8]) -> Result<()> {
        let decoder = self.decoder()?;
        decoder.reset(zstd_safe::ResetDirective::SessionOnly).map_err(refused)?;
        let expected = out.len();
        let mut output = OutBuffer::around(out);
        let mut frame = Frame::at(encoded);
        let (mut at, mut hint) = (0usize, 1);
        while output.pos() < expected {
            // What libzstd asks for is the next block: given more, it would decode the one after the last needed.
            let given = encoded.get(at..at.saturating_add(hint).min(encoded.len())).unwrap_or_default();
            if given.is_empty() {
                return Err(Error::codec(NAME, "the last frame is truncated"));
            }
            let before = output.pos();
            let mut input = InBuffer::around(given);
            hint = decoder.decompress_stream(&mut output, &mut input).map_err(refused)?;
            at = at.saturating_add(input.pos());
            frame.decoded = frame.decoded.saturating_add((output.pos() - before) as u64);
            if hint == 0 {
                frame.finish()?;
                frame = Frame::at(encoded.get(at..).unwrap_or_default());
                hint = 1;
            }
        }
        Ok(())
    }

    /// Gives back the memory of a stream when it is more than `kept_nbytes`.
    pub(super) fn trim(&mut self, kept_nbytes: usize) {
        self.decoder.take_if(|decoder| decoder.sizeof() > kept_nbytes);
    }

    /// Decodes at most `limit` bytes into `out`, which is emptied first.
    pub(super) fn decode_bounded(&mut self, encoded: &[u8], limit: u64, out: &mut Vec<u8>) -> Result<()> {
        refuse_empty(encoded)?;
        if let Some(Declared { nbytes, .. }) = Declared::by(encoded) {
            let nbytes = usize::try_from(nbytes).ok().filter(|_| nbytes <= limit);
            let nbytes = nbytes.ok_or_else(|| Error::codec(NAME, format!("decodes to more than {limit} bytes")))?;
            resize(out, nbytes)?;
            return self.decode_exact(encoded, out);
        }
        let decoder = self.decoder()?;
        decoder.reset(zstd_safe::ResetDirective::SessionOnly).map_err(refused)?;
        let mut sink = GrowingSink::new(out, limit);
        let mut input = InBuffer::around(encoded);
        // As a stream, libzstd does not compare what a frame declares when its last block is empty.
        let mut frame = Frame::at(encoded);
        loop {
            let spare = sink.spare(NAME)?;
            let spare_len = spare.len();
            let mut output = OutBuffer::around(spare);
            let hint = decoder.decompress_stream(&mut output, &mut input).map_err(refused)?;
            let written = output.pos();
            sink.advance(written);
            frame.decoded = frame.decoded.saturating_add(written as u64);
            if hint == 0 {
                frame.finish()?;
                frame = Frame::at(encoded.get(input.pos()..).unwrap_or_default());
            }
            if input.pos() == encoded.len() {
                if hint == 0 {
                    return sink.finish(NAME);
                }
                if written < spare_len {
                    // All input taken, room left, and still the frame is not over.
                    return Err(Error::codec(NAME, "the last frame is truncated"));
                }
            }
        }
    }

    /// Encodes `decoded` as one frame with content size; replaces what `out` holds.
    pub(super) fn encode(&mut self, decoded: &[u8], level: i32, checksum: bool, out: &mut Vec<u8>) -> Result<()> {
        resize(out, zstd_safe::compress_bound(decoded.len()))?;
        let encoder = self.encoder()?;
        encoder.set_parameter(CParameter::CompressionLevel(level)).map_err(refused)?;
        encoder.set_parameter(CParameter::ChecksumFlag(checksum)).map_err(refused)?;
        let written = encoder.compress2(out.as_mut_slice(), decoded).map_err(refused)?;
        out.truncate(written);
        Ok(())
    }
}

/// A frame that is being decoded as a stream; sizes in decoded bytes.
struct Frame {
    declared: Option<u64>,
    decoded: u64,
}

impl Frame {
    /// The frame that `encoded` begins with; a broken header is left to the decoder.
    fn at(encoded: &[u8]) -> Self {
        Self { declared: zstd_safe::get_frame_content_size(encoded).ok().flatten(), decoded: 0 }
    }

    fn finish(&self) -> Result<()> {
        match self.declared {
            Some(nbytes) if nbytes != self.decoded => {
                Err(Error::codec(NAME, format!("a frame of {nbytes} bytes holds {}", self.decoded)))
            }
            _ => Ok(()),
        }
    }
}

/// What the headers of all frames together say.
struct Declared {
    /// Decoded bytes.
    nbytes: u64,
    /// Whether some frame has a checksum.
    checksum: bool,
}

impl Declared {
    /// None when a frame does not tell its size or is broken or truncated, as far as its headers show.
    fn by(mut encoded: &[u8]) -> Option<Self> {
        let mut declared = Self { nbytes: 0, checksum: false };
        while !encoded.is_empty() {
            let nbytes = zstd_safe::get_frame_content_size(encoded).ok()??;
            declared.nbytes = declared.nbytes.checked_add(nbytes)?;
            declared.checksum |= encoded.starts_with(&MAGIC) && encoded.get(4)? & FLAG_CHECKSUM != 0;
            encoded = encoded.get(zstd_safe::find_frame_compressed_size(encoded).ok()?..)?;
        }
        Some(declared)
    }
}

/// True when decoding `end` of `nbytes` bytes as a stream takes less time than decoding all of them at once.
///
/// A stream copies what it decodes out of its window: some 5 % more time a byte for images, 40 % for labels that
/// compress to a hundredth. When a quarter of the blocks is left out, images gain 20 % and such labels lose nothing.
fn stops_early(end: usize, nbytes: usize) -> bool {
    let (needed, all) = (end.div_ceil(BLOCK_NBYTES), nbytes.div_ceil(BLOCK_NBYTES));
    needed <= all - all.div_ceil(4)
}

// libzstd takes no bytes as no frames; a stored chunk of no bytes is a lost one.
fn refuse_empty(encoded: &[u8]) -> Result<()> {
    if encoded.is_empty() { Err(Error::codec(NAME, "no bytes")) } else { Ok(()) }
}

fn refused(code: zstd_safe::ErrorCode) -> Error {
    Error::codec(NAME, zstd_safe::get_error_name(code))
}

fn out_of_memory() -> Error {
    Error::limit("memory of a zstd context", 0, 0)
}
