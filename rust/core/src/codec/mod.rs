//! Codecs of one chunk: encoded bytes -> elements in native byte order, and back.
//!
//! A [`CodecChain`] is prepared once for an array; a [`CodecContext`] holds what one thread re-uses from chunk to chunk
//! (codec contexts and scratch memory), so that decoding a chunk allocates nothing.
//!
//! Every decoder knows the size it must produce, or a limit, before it starts; it writes neither less nor more and asks
//! for no memory beyond that, whatever the encoded bytes claim.

mod b2nd;
mod blosc;
pub mod blosc2;
mod blosclz;
mod brotli;
mod bz2;
pub(crate) mod checksum;
mod compressed_segmentation;
mod compresso;
mod cutout;
mod deflate;
mod elements;
mod foreign;
mod form;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hdf5;
mod image;
mod inflate;
mod lz4;
mod lz4_java;
mod lzf;
mod lzma_alone;
pub mod n5_block;
mod number;
mod prepared;
mod scale_offset;
mod shuffle;
mod simd;
mod sink;
mod stages;
mod xz;
mod zstd;

use std::fmt;
use std::ops::Range;

pub use self::form::Compression;
pub use self::prepared::PreparedArray;

pub use self::blosc::BlockTable;
use self::blosc::BloscChunk;
pub use self::cutout::{CutoutBox, cutout_blocks};
use self::deflate::DeflateContext;
use self::sink::{check_len, resize};
use self::stages::{decode_bounded, decode_exact, encode_one};
use self::zstd::ZstdContext;
use crate::dtype::{Conversion, DataType, Endian};
use crate::error::{Error, Result};
use crate::metadata::CodecSpec;
use crate::metadata::limits::{MAX_CHUNK_NBYTES, max_encoded_nbytes};

/// Most compressors in one chain. Each may blow up its input, so their number bounds what intermediate bytes may cost.
const MAX_COMPRESSORS: usize = 3;
/// Most codecs in one chain.
const MAX_STAGES: usize = 16;

/// Whether checksums that are present are computed and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Verify {
    /// Every checksum.
    #[default]
    Full,
    /// Only those inside a codec, which cannot be had apart from decoding: those of the checksum codecs are cut off unread.
    Cheap,
}

/// Codec contexts and scratch memory of one thread, filled as chunks need them.
#[derive(Default)]
pub struct CodecContext {
    zstd: ZstdContext,
    deflate: DeflateContext,
    // One block of a Blosc chunk, still shuffled.
    block: Vec<u8>,
    // The same after one of several filters.
    filtered: Vec<u8>,
    // One block of a chunk whose blocks are boxes.
    boxed: Vec<u8>,
    // Part of a block between the two passes of the bit shuffle.
    tile: Vec<u8>,
    // Elements of a chunk as they are stored, where those of the array are others.
    stored: Vec<u8>,
    // Bytes between two codecs of a chain.
    scratch: [Vec<u8>; MAX_COMPRESSORS],
}

impl CodecContext {
    /// Gives back memory of a decoder when it is more than `kept_nbytes`.
    pub fn trim(&mut self, kept_nbytes: usize) {
        self.zstd.trim(kept_nbytes);
        for memory in [&mut self.block, &mut self.filtered, &mut self.boxed] {
            if memory.capacity() > kept_nbytes {
                *memory = Vec::new();
            }
        }
    }
}

impl fmt::Debug for CodecContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodecContext").finish_non_exhaustive()
    }
}

/// Size in bytes of what a codec decodes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Exactly(u64),
    AtMost(u64),
}

impl Size {
    fn limit(self) -> u64 {
        match self {
            Self::Exactly(nbytes) | Self::AtMost(nbytes) => nbytes,
        }
    }

    /// The size after `codec` has encoded bytes of this size.
    fn encoded_by(self, codec: &CodecSpec) -> Self {
        let and_checksum = |nbytes: u64| nbytes.saturating_add(checksum::NBYTES as u64);
        match (codec, self) {
            (CodecSpec::Checksum(_), Self::Exactly(nbytes)) => Self::Exactly(and_checksum(nbytes)),
            (CodecSpec::Checksum(_), Self::AtMost(nbytes)) => Self::AtMost(and_checksum(nbytes)),
            (CodecSpec::Shuffle { .. }, size) => size,
            (CodecSpec::B2nd(spec), _) => Self::AtMost(max_encoded_nbytes(spec.padded_nbytes() as u64)),
            // What it decodes to are numbers; what they stand for may be of any size.
            (CodecSpec::Foreign(codec), _) if codec.objects => Self::AtMost(MAX_CHUNK_NBYTES),
            (_, size) => Self::AtMost(max_encoded_nbytes(size.limit())),
        }
    }
}

/// The bytes -> bytes codecs of a chunk and the byte order of its elements, prepared for chunks of one size.
#[derive(Debug)]
pub struct CodecChain {
    /// bytes -> bytes codecs in encoding order.
    codecs: Vec<CodecSpec>,
    /// None when chunks have no common size (codecs outside of a shard).
    decoded_nbytes: Option<usize>,
    /// What makes stored elements native.
    conversion: Conversion,
}

impl CodecChain {
    /// Prepares the codecs of a chunk of `decoded_nbytes` bytes. `specs` are bytes -> bytes codecs in encoding order.
    ///
    /// # Errors
    /// `Metadata` when a codec that is not bytes -> bytes is among them, `Limit` when there are too many, `Internal`
    /// when the chunk is no whole number of elements.
    pub fn new(specs: &[CodecSpec], endian: Endian, dtype: &DataType, decoded_nbytes: usize) -> Result<Self> {
        if !decoded_nbytes.is_multiple_of(dtype.item_size().max(1)) {
            return Err(Error::internal(format!("a chunk of {decoded_nbytes} bytes of {}", dtype.numpy_name())));
        }
        let conversion = Conversion::new(dtype, endian);
        Ok(Self { codecs: checked(specs)?, decoded_nbytes: Some(decoded_nbytes), conversion })
    }

    /// Prepares codecs for bytes without a common decoded size, such as those outside of a shard. Of such a chain only
    /// `decode_to_vec` and `encode` are of use; its sizes are unlimited.
    ///
    /// # Errors
    /// As [`CodecChain::new`].
    pub fn outer(specs: &[CodecSpec]) -> Result<Self> {
        Ok(Self { codecs: checked(specs)?, decoded_nbytes: None, conversion: Conversion::default() })
    }

    /// Bytes of a decoded chunk; 0 when chunks have no common size.
    #[must_use]
    pub fn decoded_nbytes(&self) -> usize {
        self.decoded_nbytes.unwrap_or(0)
    }

    /// The most bytes that an encoded chunk may have.
    #[must_use]
    pub fn max_encoded_nbytes(&self) -> u64 {
        self.encoded_size(self.decoded_size(), self.codecs.len()).limit()
    }

    /// The bytes that each encoded chunk has, when that is the same for all (no compressor).
    #[must_use]
    pub fn fixed_encoded_nbytes(&self) -> Option<u64> {
        match self.encoded_size(self.decoded_size(), self.codecs.len()) {
            Size::Exactly(nbytes) => Some(nbytes),
            Size::AtMost(_) => None,
        }
    }

    /// True when a stored chunk is its elements as they are: any part of it can be used without the rest.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.decoded_nbytes.is_some() && self.codecs.is_empty() && self.conversion.is_none()
    }

    /// The elements where they lie inside `encoded`, when nothing has to be decoded (no compressor, native byte order).
    /// Checksums are verified and cut off.
    ///
    /// # Errors
    /// `Checksum` when one differs, `Codec` when the length is not that of a chunk.
    pub fn view<'a>(&self, encoded: &'a [u8], verify: Verify) -> Result<Option<&'a [u8]>> {
        let (Some(decoded_nbytes), true) = (self.decoded_nbytes, self.conversion.is_none()) else { return Ok(None) };
        if self.codecs.iter().any(is_compressor) {
            return Ok(None);
        }
        let (bytes, _) = strip_checksums(&self.codecs, encoded, verify)?;
        check_len("bytes", bytes.len(), decoded_nbytes)?;
        Ok(Some(bytes))
    }

    /// True when decoding a part of a chunk may take less than decoding all of it.
    #[must_use]
    pub fn has_parts(&self) -> bool {
        match self.codecs.first() {
            Some(CodecSpec::Zstd { .. }) => self.decoded_nbytes.is_some_and(|nbytes| nbytes > zstd::BLOCK_NBYTES),
            Some(CodecSpec::Blosc(_) | CodecSpec::B2nd(_) | CodecSpec::Lz4 | CodecSpec::Lz4Block) => true,
            _ => false,
        }
    }

    /// True when a stored chunk is a Blosc chunk and nothing else: its blocks can be read without the rest, see
    /// [`BlockTable`].
    #[must_use]
    pub fn has_blocks(&self) -> bool {
        matches!(self.codecs.as_slice(), [CodecSpec::Blosc(_)])
    }

    /// Decodes at least the bytes `window` of a chunk as [`CodecChain::decode_window`] does, out of some of its bytes: those
    /// from byte `from` on that [`BlockTable::range_of`] asks for.
    ///
    /// # Errors
    /// As [`CodecChain::decode_window`].
    pub fn decode_blocks(
        &self,
        context: &mut CodecContext,
        (table, from, encoded): (&BlockTable, usize, &[u8]),
        window: Range<usize>,
        out: &mut [u8],
    ) -> Result<()> {
        self.check_window(&window, out)?;
        table.chunk(encoded, from).decode_window(context, &window, out)?;
        self.conversion.apply(&mut out[window]);
        Ok(())
    }

    fn check_window(&self, window: &Range<usize>, out: &[u8]) -> Result<()> {
        if let Some(expected) = self.decoded_nbytes
            && expected != out.len()
        {
            return Err(Error::internal(format!("{} bytes of output for a chunk of {expected}", out.len())));
        }
        let is_aligned = [window.start, window.end].iter().all(|at| at.is_multiple_of(self.conversion.alignment()));
        if window.start > window.end || window.end > out.len() || !is_aligned {
            return Err(Error::internal(format!("bytes {window:?} of a chunk of {}", out.len())));
        }
        Ok(())
    }

    /// Decodes a chunk into `out`, which is `decoded_nbytes` long; elements in native byte order. After an error `out`
    /// may hold anything.
    ///
    /// # Errors
    /// `Codec` or `Checksum` when the bytes are refused or have another decoded size, `Limit` when memory is short.
    pub fn decode_into(
        &self,
        context: &mut CodecContext,
        encoded: &[u8],
        verify: Verify,
        out: &mut [u8],
    ) -> Result<()> {
        self.decode_window(context, encoded, verify, 0..out.len(), out)
    }

    /// Decodes at least the bytes `window` of a chunk, whole elements, into their places in `out`, which is
    /// `decoded_nbytes` long; the rest of `out` may hold anything.
    ///
    /// The first compressor decodes only what it must: zstd its blocks and LZ4 its bytes up to the end of the window, Blosc
    /// and b2nd the blocks in it. What is not decoded is not checked, so that a broken chunk may be delivered when the bytes it is broken in are
    /// not needed. The window itself is always as [`CodecChain::decode_into`] would have it: its sizes are checked, and
    /// every checksum that covers a byte of it (of a checksum codec, unless `verify` is `Cheap`, and those inside a codec).
    ///
    /// # Errors
    /// As [`CodecChain::decode_into`]; `Internal` when the window reaches outside the chunk.
    pub fn decode_window(
        &self,
        context: &mut CodecContext,
        encoded: &[u8],
        verify: Verify,
        window: Range<usize>,
        out: &mut [u8],
    ) -> Result<()> {
        self.check_window(&window, out)?;
        self.decode_any(context, encoded, verify, window, out)
    }

    /// As [`CodecChain::decode_window`], for bytes that decode to `out.len()` bytes, which need not be a chunk's size.
    fn decode_any(
        &self,
        context: &mut CodecContext,
        encoded: &[u8],
        verify: Verify,
        window: Range<usize>,
        out: &mut [u8],
    ) -> Result<()> {
        let mut scratch = std::mem::take(&mut context.scratch);
        let size = Size::Exactly(out.len() as u64);
        let decoded =
            self.reach_innermost(context, encoded, verify, size, &mut scratch, |context, bytes, codec| match codec {
                Some(CodecSpec::Zstd { .. }) => context.zstd.decode_until(bytes, window.end, out),
                Some(CodecSpec::Blosc(_)) => BloscChunk::parse(bytes)?.decode_window(context, &window, out),
                Some(CodecSpec::Lz4) => lz4::decode_until(bytes, window.end, out),
                Some(CodecSpec::Lz4Block) => lz4::decode_raw_until(bytes, window.end, out),
                Some(CodecSpec::B2nd(spec)) => b2nd::decode_window(context, spec, bytes, &window, out),
                Some(codec) => decode_exact(context, codec, bytes, out),
                None => {
                    check_len("bytes", bytes.len(), out.len())?;
                    out.copy_from_slice(bytes);
                    Ok(())
                }
            });
        context.scratch = scratch;
        decoded?;
        self.conversion.apply(&mut out[window]);
        Ok(())
    }

    /// Decodes bytes whose decoded size is not known beforehand, at most `limit` bytes of them.
    ///
    /// # Errors
    /// As [`CodecChain::decode_into`]; `Codec` when there are more than `limit` bytes.
    pub fn decode_to_vec(
        &self,
        context: &mut CodecContext,
        encoded: &[u8],
        verify: Verify,
        limit: u64,
    ) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut scratch = std::mem::take(&mut context.scratch);
        let size = Size::AtMost(limit);
        let decoded =
            self.reach_innermost(context, encoded, verify, size, &mut scratch, |context, bytes, codec| match codec {
                Some(codec) => decode_bounded(context, codec, bytes, limit, &mut out),
                None if bytes.len() as u64 > limit => check_len("bytes", bytes.len(), limit as usize),
                None => {
                    resize(&mut out, bytes.len())?;
                    out.copy_from_slice(bytes);
                    Ok(())
                }
            });
        context.scratch = scratch;
        decoded?;
        if let Some(expected) = self.decoded_nbytes {
            check_len("bytes", out.len(), expected)?;
        }
        self.conversion.apply(&mut out);
        Ok(out)
    }

    /// Encodes a chunk's elements, in native byte order, and appends the bytes to `out`.
    ///
    /// # Errors
    /// `Unsupported` for a codec that is only read, `Codec` when an encoder fails, `Internal` when `elements` are not
    /// one chunk.
    pub fn encode(&self, context: &mut CodecContext, elements: &[u8], out: &mut Vec<u8>) -> Result<()> {
        if let Some(expected) = self.decoded_nbytes
            && expected != elements.len()
        {
            return Err(Error::internal(format!("{} bytes of elements for a chunk of {expected}", elements.len())));
        }
        let [mut current, mut next, third] = std::mem::take(&mut context.scratch);
        current.clear();
        current.extend_from_slice(elements);
        self.conversion.apply(&mut current);
        let encoded = self.codecs.iter().try_for_each(|codec| {
            if let CodecSpec::Checksum(spec) = codec {
                checksum::add(*spec, &mut current);
                return Ok(());
            }
            encode_one(context, codec, &current, &mut next)?;
            std::mem::swap(&mut current, &mut next);
            Ok(())
        });
        if encoded.is_ok() {
            out.extend_from_slice(&current);
        }
        context.scratch = [current, next, third];
        encoded
    }

    fn decoded_size(&self) -> Size {
        self.decoded_nbytes.map_or(Size::AtMost(u64::MAX), |nbytes| Size::Exactly(nbytes as u64))
    }

    /// Size of a chunk of `size` after the first `codecs` codecs.
    fn encoded_size(&self, size: Size, codecs: usize) -> Size {
        self.codecs.iter().take(codecs).fold(size, Size::encoded_by)
    }

    /// Undoes all codecs but the first compressor (none when there is no compressor), which decodes to `size` if no
    /// checksum lies inside it, and gives `last` what it needs to finish.
    fn reach_innermost(
        &self,
        context: &mut CodecContext,
        encoded: &[u8],
        verify: Verify,
        size: Size,
        scratch: &mut [Vec<u8>],
        last: impl FnOnce(&mut CodecContext, &[u8], Option<&CodecSpec>) -> Result<()>,
    ) -> Result<()> {
        let (mut bytes, mut rest) = strip_checksums(&self.codecs, encoded, verify)?;
        for intermediate in scratch {
            match rest {
                [] | [_] => break,
                [inner @ .., codec] => {
                    match self.encoded_size(size, inner.len()) {
                        Size::Exactly(nbytes) => {
                            let nbytes = usize::try_from(nbytes)
                                .map_err(|_| Error::limit("memory between two codecs", nbytes, usize::MAX as u64))?;
                            resize(intermediate, nbytes)?;
                            decode_exact(context, codec, bytes, intermediate)?;
                        }
                        Size::AtMost(limit) => decode_bounded(context, codec, bytes, limit, intermediate)?,
                    }
                    (bytes, rest) = strip_checksums(inner, intermediate, verify)?;
                }
            }
        }
        match rest {
            [] => last(context, bytes, None),
            [codec] => last(context, bytes, Some(codec)),
            // `checked` lets at most MAX_COMPRESSORS pass.
            _ => Err(Error::internal("a chain with more compressors than scratch memory")),
        }
    }
}

fn checked(specs: &[CodecSpec]) -> Result<Vec<CodecSpec>> {
    if let Some(spec) = specs.iter().find(|spec| !spec.is_bytes_to_bytes()) {
        return Err(Error::metadata("codecs", format!("{} is not a bytes -> bytes codec", spec.name())));
    }
    let compressors = specs.iter().filter(|spec| is_compressor(spec)).count();
    if compressors > MAX_COMPRESSORS {
        return Err(Error::limit("compressors in one chain", compressors as u64, MAX_COMPRESSORS as u64));
    }
    if specs.len() > MAX_STAGES {
        return Err(Error::limit("codecs in one chain", specs.len() as u64, MAX_STAGES as u64));
    }
    Ok(specs.to_vec())
}

fn is_compressor(codec: &CodecSpec) -> bool {
    !matches!(codec, CodecSpec::Checksum(_))
}

/// Cuts off the checksums that the last codecs have added; also gives the codecs before them.
fn strip_checksums<'a, 'c>(
    mut codecs: &'c [CodecSpec],
    mut bytes: &'a [u8],
    verify: Verify,
) -> Result<(&'a [u8], &'c [CodecSpec])> {
    while let [before @ .., CodecSpec::Checksum(spec)] = codecs {
        bytes = checksum::strip(*spec, bytes, verify)?;
        codecs = before;
    }
    Ok((bytes, codecs))
}

/// A little-endian number in native byte order.
fn from_little_endian<const N: usize>(mut stored: [u8; N]) -> [u8; N] {
    if Endian::NATIVE == Endian::Big {
        stored.reverse();
    }
    stored
}

#[cfg(test)]
mod tests;
