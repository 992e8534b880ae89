//! The Blosc-1 chunk, format versions 1 and 2 (Zarr `blosc`, N5, BossDB, HDF5 filter 32001). Decoding only.
//!
//! All integers are little-endian:
//!
//! | bytes | meaning |
//! |---|---|
//! | 0 | format version |
//! | 1 | version of the inner codec's format |
//! | 2 | flags: 0x01 byte shuffle, 0x02 stored, 0x04 bit shuffle, 0x10 blocks are not split, bits 5-7 inner codec |
//! | 3 | typesize |
//! | 4-7, 8-11, 12-15 | i32 nbytes (decoded), blocksize, cbytes (of the whole chunk) |
//!
//! A stored chunk continues with the decoded bytes. Any other continues with one i32 a block: where the block starts,
//! from the start of the chunk. A block is one stream, or `typesize` streams for equal parts of it when blocks are split;
//! the last block, when shorter, is never split. A stream is i32 csize and `csize` bytes; `csize` equal to the decoded
//! size means stored. Shuffles apply to each block alone, so any block can be decoded without the others.
//!
//! Source: README_CHUNK_FORMAT of C-Blosc. Blosc 2 writes other chunks (version 3 and up), which are refused.

use std::ops::Range;

use super::CodecContext;
use super::deflate::Container;
use super::sink::{check_len, resize};
use super::{blosclz, lz4, shuffle};
use crate::error::{Error, Result};

const NAME: &str = "blosc";
const HEADER_NBYTES: usize = 16;

/// Limits of a writer that splits blocks: it does so only up to this typesize ...
const MAX_SPLITS: usize = 16;
/// ... and when each part has at least this many bytes. Chunks older than the split flag rely on both.
const MIN_SPLIT_NBYTES: usize = 128;

const FLAG_SHUFFLE: u8 = 0x01;
const FLAG_STORED: u8 = 0x02;
const FLAG_BITSHUFFLE: u8 = 0x04;
const FLAG_RESERVED: u8 = 0x08;
const FLAG_NOT_SPLIT: u8 = 0x10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inner {
    BloscLz,
    Lz4,
    Snappy,
    Zlib,
    Zstd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filter {
    None,
    Shuffle,
    BitShuffle,
}

/// A chunk whose header and block table have been checked.
#[derive(Debug)]
pub(super) struct BloscChunk<'a> {
    encoded: &'a [u8],
    nbytes: usize,
    blocksize: usize,
    typesize: usize,
    split: bool,
    filter: Filter,
    inner: Inner,
    stored: bool,
}

impl<'a> BloscChunk<'a> {
    /// Reads the header of a chunk that is all of `encoded`.
    ///
    /// # Errors
    /// `Codec` when it is not a Blosc-1 chunk, or one whose sizes contradict each other.
    pub(super) fn parse(encoded: &'a [u8]) -> Result<Self> {
        let Some(header) = encoded.first_chunk::<HEADER_NBYTES>() else {
            return Err(refuse(format!("{} bytes are shorter than the header", encoded.len())));
        };
        let [version, _, flags, typesize, n0, n1, n2, n3, b0, b1, b2, b3, c0, c1, c2, c3] = *header;
        if !(1..=2).contains(&version) {
            return Err(refuse(format!(
                "format version {version} is not Blosc 1 (1 or 2); chunks and frames of Blosc 2 are another format"
            )));
        }
        if flags & FLAG_SHUFFLE != 0 && flags & FLAG_BITSHUFFLE != 0 || flags & FLAG_RESERVED != 0 {
            return Err(refuse(format!("flags {flags:#04x} are not those of a Blosc 1 chunk")));
        }
        let size = |name, bytes| {
            let value = i32::from_le_bytes(bytes);
            usize::try_from(value).map_err(|_| refuse(format!("{name} is {value}")))
        };
        let nbytes = size("nbytes", [n0, n1, n2, n3])?;
        let blocksize = size("blocksize", [b0, b1, b2, b3])?;
        let cbytes = size("cbytes", [c0, c1, c2, c3])?;
        if cbytes != encoded.len() {
            return Err(refuse(format!("cbytes is {cbytes}, the chunk has {} bytes", encoded.len())));
        }
        if typesize == 0 {
            return Err(refuse("typesize is 0"));
        }
        let chunk = Self {
            encoded,
            nbytes,
            blocksize,
            typesize: usize::from(typesize),
            split: flags & FLAG_NOT_SPLIT == 0,
            filter: match (flags & FLAG_SHUFFLE != 0, flags & FLAG_BITSHUFFLE != 0) {
                (true, _) => Filter::Shuffle,
                (_, true) => Filter::BitShuffle,
                _ => Filter::None,
            },
            inner: match flags >> 5 {
                0 => Inner::BloscLz,
                1 => Inner::Lz4,
                2 => Inner::Snappy,
                3 => Inner::Zlib,
                4 => Inner::Zstd,
                other => return Err(refuse(format!("unknown inner codec {other}"))),
            },
            stored: flags & FLAG_STORED != 0,
        };
        if blocksize == 0 || blocksize > nbytes.max(1) {
            return Err(refuse(format!("blocksize is {blocksize}, nbytes {nbytes}")));
        }
        if chunk.stored {
            check_len(NAME, encoded.len() - HEADER_NBYTES, nbytes)?;
        } else if (encoded.len() - HEADER_NBYTES) / 4 < chunk.num_blocks() {
            return Err(refuse(format!("{} bytes hold no table of {} blocks", encoded.len(), chunk.num_blocks())));
        }
        Ok(chunk)
    }

    /// Bytes of the decoded chunk.
    pub(super) fn nbytes(&self) -> usize {
        self.nbytes
    }

    /// Number of blocks.
    pub(super) fn num_blocks(&self) -> usize {
        self.nbytes.div_ceil(self.blocksize)
    }

    /// Bytes of the decoded chunk that block `index` holds.
    pub(super) fn block_range(&self, index: usize) -> Range<usize> {
        let start = index.saturating_mul(self.blocksize).min(self.nbytes);
        start..start.saturating_add(self.blocksize).min(self.nbytes)
    }

    /// Decodes the blocks that hold bytes of `window` into their places in `out`; the rest of it stays.
    ///
    /// # Errors
    /// `Codec` when `out` is not `nbytes` long or one of those blocks is broken.
    pub(super) fn decode_window(
        &self,
        context: &mut CodecContext,
        window: &Range<usize>,
        out: &mut [u8],
    ) -> Result<()> {
        check_len(NAME, self.nbytes, out.len())?;
        for (index, block) in out.chunks_mut(self.blocksize).enumerate() {
            let range = self.block_range(index);
            if range.start < window.end && window.start < range.end {
                self.decode_block(context, index, block)?;
            }
        }
        Ok(())
    }

    /// Decodes all blocks.
    ///
    /// # Errors
    /// As [`BloscChunk::decode_window`].
    pub(super) fn decode(&self, context: &mut CodecContext, out: &mut [u8]) -> Result<()> {
        self.decode_window(context, &(0..self.nbytes), out)
    }

    /// Decodes block `index` into `out`, which is as long as its `block_range`.
    ///
    /// # Errors
    /// `Codec` when the block is broken.
    pub(super) fn decode_block(&self, context: &mut CodecContext, index: usize, out: &mut [u8]) -> Result<()> {
        if index >= self.num_blocks() {
            return Err(refuse(format!("no block {index} in a chunk of {}", self.num_blocks())));
        }
        let range = self.block_range(index);
        check_len(NAME, range.len(), out.len())?;
        if self.stored {
            let payload = self.encoded.get(HEADER_NBYTES..).unwrap_or_default();
            out.copy_from_slice(payload.get(range).ok_or_else(|| refuse("the stored bytes are truncated"))?);
            return Ok(());
        }
        let rest = self.block_bytes(index)?;
        let filtered = match self.filter {
            Filter::None => false,
            Filter::Shuffle => self.typesize > 1,
            Filter::BitShuffle => out.len() >= self.typesize,
        };
        if !filtered {
            return self.decode_streams(context, rest, out);
        }
        // A single stored stream needs no copy in between.
        if self.num_streams(out.len()) == 1
            && let Ok((stream, _)) = take_stream(rest)
            && stream.len() == out.len()
        {
            self.unfilter(context, stream, out);
            return Ok(());
        }
        let mut scratch = std::mem::take(&mut context.block);
        let decoded = resize(&mut scratch, out.len()).and_then(|()| self.decode_streams(context, rest, &mut scratch));
        if decoded.is_ok() {
            self.unfilter(context, &scratch, out);
        }
        context.block = scratch;
        decoded
    }

    fn unfilter(&self, context: &mut CodecContext, filtered: &[u8], out: &mut [u8]) {
        match self.filter {
            Filter::None => out.copy_from_slice(filtered),
            Filter::Shuffle => shuffle::unshuffle(self.typesize, filtered, out),
            Filter::BitShuffle => shuffle::bit_unshuffle(self.typesize, filtered, &mut context.tile, out),
        }
    }

    /// The chunk from where block `index` starts.
    fn block_bytes(&self, index: usize) -> Result<&'a [u8]> {
        let at = HEADER_NBYTES + 4 * index;
        let start = self.encoded.get(at..).and_then(<[u8]>::first_chunk).map(|bytes| i32::from_le_bytes(*bytes));
        let start = start.ok_or_else(|| refuse("the block table is truncated"))?;
        usize::try_from(start)
            .ok()
            .filter(|start| *start >= HEADER_NBYTES + 4 * self.num_blocks())
            .and_then(|start| self.encoded.get(start..))
            .ok_or_else(|| refuse(format!("block {index} starts at {start}, outside of the chunk's blocks")))
    }

    /// Streams of a block of `block_nbytes` decoded bytes.
    fn num_streams(&self, block_nbytes: usize) -> usize {
        let split = self.split
            && block_nbytes == self.blocksize
            && self.typesize <= MAX_SPLITS
            && block_nbytes / self.typesize >= MIN_SPLIT_NBYTES;
        if split { self.typesize } else { 1 }
    }

    fn decode_streams(&self, context: &mut CodecContext, mut rest: &[u8], out: &mut [u8]) -> Result<()> {
        let streams = self.num_streams(out.len());
        if !out.len().is_multiple_of(streams) {
            return Err(refuse(format!("blocksize {} is no multiple of {streams} streams", out.len())));
        }
        for part in out.chunks_exact_mut((out.len() / streams).max(1)) {
            let (stream, after) = take_stream(rest)?;
            rest = after;
            if stream.len() == part.len() {
                part.copy_from_slice(stream);
                continue;
            }
            match self.inner {
                Inner::BloscLz => blosclz::decode_exact(stream, part),
                Inner::Lz4 => lz4::decode_block(stream, part),
                Inner::Snappy => decode_snappy(stream, part),
                Inner::Zlib => context.deflate.decode_exact(Container::Zlib, stream, part),
                Inner::Zstd => context.zstd.decode_exact(stream, part),
            }?;
        }
        Ok(())
    }
}

/// Splits off one stream: i32 csize, then as many bytes.
fn take_stream(rest: &[u8]) -> Result<(&[u8], &[u8])> {
    let (size, rest) = rest.split_first_chunk::<4>().ok_or_else(|| refuse("a stream's size is truncated"))?;
    let size = i32::from_le_bytes(*size);
    usize::try_from(size)
        .ok()
        .and_then(|size| rest.split_at_checked(size))
        .ok_or_else(|| refuse(format!("a stream of {size} bytes where {} are left", rest.len())))
}

fn decode_snappy(encoded: &[u8], out: &mut [u8]) -> Result<()> {
    let broken = |error: snap::Error| Error::codec("snappy", error.to_string());
    check_len("snappy", snap::raw::decompress_len(encoded).map_err(broken)?, out.len())?;
    let decoded = snap::raw::Decoder::new().decompress(encoded, out).map_err(broken)?;
    check_len("snappy", decoded, out.len())
}

fn refuse(what: impl Into<String>) -> Error {
    Error::codec(NAME, what)
}
