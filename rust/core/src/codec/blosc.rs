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
//! Source: README_CHUNK_FORMAT of C-Blosc. Blosc 2 writes [other chunks](super::blosc2), which are refused here.

use std::ops::Range;

use super::CodecContext;
use super::deflate::Container;
use super::sink::{check_len, resize};
use super::{blosclz, lz4, shuffle};
use crate::error::{Error, Result};
use crate::subset::ByteRange;

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

/// The codec of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inner {
    BloscLz,
    Lz4,
    Snappy,
    Zlib,
    Zstd,
}

impl Inner {
    /// Decodes one stream of exactly `out.len()` bytes.
    pub(super) fn decode(self, context: &mut CodecContext, stream: &[u8], out: &mut [u8]) -> Result<()> {
        match self {
            Self::BloscLz => blosclz::decode_exact(stream, out),
            Self::Lz4 => lz4::decode_raw_exact(stream, out),
            Self::Snappy => decode_snappy(stream, out),
            Self::Zlib => context.deflate.decode_exact(Container::Zlib, stream, out),
            Self::Zstd => context.zstd.decode_exact(stream, out),
        }
    }
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
    header: Header,
    /// Four bytes a block; empty when the chunk is stored.
    table: &'a [u8],
    /// Bytes of the chunk from byte `from` on, all of them or as many as are at hand.
    encoded: &'a [u8],
    from: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    nbytes: usize,
    cbytes: usize,
    blocksize: usize,
    typesize: usize,
    split: bool,
    filter: Filter,
    inner: Inner,
    stored: bool,
}

impl Header {
    /// The header that a chunk begins with.
    fn parse(encoded: &[u8]) -> Result<Self> {
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
        if typesize == 0 {
            return Err(refuse("typesize is 0"));
        }
        let header = Self {
            nbytes: size(NAME, "nbytes", [n0, n1, n2, n3])?,
            blocksize: size(NAME, "blocksize", [b0, b1, b2, b3])?,
            cbytes: size(NAME, "cbytes", [c0, c1, c2, c3])?,
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
        if header.blocksize == 0 || header.blocksize > header.nbytes.max(1) {
            return Err(refuse(format!("blocksize is {}, nbytes {}", header.blocksize, header.nbytes)));
        }
        let payload = header.cbytes.saturating_sub(HEADER_NBYTES);
        if header.stored {
            check_len(NAME, payload, header.nbytes)?;
        } else if payload / 4 < header.num_blocks() {
            let (cbytes, blocks) = (header.cbytes, header.num_blocks());
            return Err(refuse(format!("{cbytes} bytes hold no table of {blocks} blocks")));
        }
        Ok(header)
    }

    fn num_blocks(&self) -> usize {
        self.nbytes.div_ceil(self.blocksize)
    }

    /// Bytes of the chunk that its block table takes.
    fn table_range(&self) -> Range<usize> {
        let nbytes = if self.stored { 0 } else { 4 * self.num_blocks() };
        HEADER_NBYTES..HEADER_NBYTES + nbytes
    }

    /// Bytes of the decoded chunk that block `index` holds.
    fn block_range(&self, index: usize) -> Range<usize> {
        let start = index.saturating_mul(self.blocksize).min(self.nbytes);
        start..start.saturating_add(self.blocksize).min(self.nbytes)
    }
}

/// Where the blocks of a chunk lie, as its first bytes say.
#[derive(Debug, PartialEq, Eq)]
pub struct BlockTable {
    header: Header,
    table: Box<[u8]>,
}

impl BlockTable {
    /// Reads the table of a chunk that begins with `head`; None when it does not end there.
    ///
    /// # Errors
    /// `Codec` when it is not the beginning of a Blosc-1 chunk.
    pub fn parse(head: &[u8]) -> Result<Option<Self>> {
        let header = Header::parse(head)?;
        Ok(head.get(header.table_range()).map(|table| Self { header, table: table.into() }))
    }

    /// Bytes of the decoded chunk.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        self.header.nbytes
    }

    /// Bytes of the whole chunk.
    #[must_use]
    pub fn cbytes(&self) -> u64 {
        self.header.cbytes as u64
    }

    /// Bytes this table takes in memory.
    #[must_use]
    pub fn memory_nbytes(&self) -> u64 {
        (size_of::<Self>() + self.table.len()) as u64
    }

    /// One range of the chunk that holds all blocks with bytes of `window`. Blocks may lie in any order.
    ///
    /// # Errors
    /// `Codec` when a block lies outside the chunk.
    pub fn range_of(&self, window: &Range<usize>) -> Result<ByteRange> {
        let Header { cbytes, blocksize, stored, .. } = self.header;
        let blocks = window.start / blocksize..window.end.div_ceil(blocksize).min(self.header.num_blocks());
        if blocks.is_empty() {
            return Err(refuse(format!("no block holds bytes {window:?}")));
        }
        if stored {
            let (first, last) = (self.header.block_range(blocks.start), self.header.block_range(blocks.end - 1));
            let (start, end) = ((HEADER_NBYTES + first.start) as u64, (HEADER_NBYTES + last.end) as u64);
            return Ok(ByteRange { start, end });
        }
        let mut starts = Vec::with_capacity(self.header.num_blocks());
        for index in 0..self.header.num_blocks() {
            starts.push(block_start(&self.table, index).filter(|&start| start < cbytes));
        }
        let (mut low, mut last) = (usize::MAX, 0);
        for index in blocks {
            let start = starts[index].ok_or_else(|| refuse(format!("block {index} starts outside of the chunk")))?;
            (low, last) = (low.min(start), last.max(start));
        }
        // A block ends where the next one in the file begins.
        let end = starts.iter().flatten().copied().filter(|&start| start > last).min().unwrap_or(cbytes);
        Ok(ByteRange { start: low as u64, end: end as u64 })
    }

    /// The chunk, of which the bytes from byte `from` on are at hand.
    pub(super) fn chunk<'a>(&'a self, encoded: &'a [u8], from: usize) -> BloscChunk<'a> {
        BloscChunk { header: self.header, table: &self.table, encoded, from }
    }
}

/// Decodes a chunk that is no array's and has exactly `nbytes` decoded bytes.
///
/// # Errors
/// `Codec` when it is broken or of another size, `Limit` when memory is short.
pub(super) fn decode_blosc(encoded: &[u8], nbytes: usize) -> Result<Vec<u8>> {
    let chunk = BloscChunk::parse(encoded)?;
    check_len(NAME, chunk.nbytes(), nbytes)?;
    let mut out = Vec::new();
    resize(&mut out, nbytes)?;
    chunk.decode(&mut CodecContext::default(), &mut out)?;
    Ok(out)
}

/// Where a block starts in its chunk, None when that is before the end of the table.
fn block_start(table: &[u8], index: usize) -> Option<usize> {
    let bytes = table.get(4 * index..)?.first_chunk()?;
    usize::try_from(i32::from_le_bytes(*bytes)).ok().filter(|&start| start >= HEADER_NBYTES + table.len())
}

impl<'a> BloscChunk<'a> {
    /// Reads the header of a chunk that is all of `encoded`.
    ///
    /// # Errors
    /// `Codec` when it is not a Blosc-1 chunk, or one whose sizes contradict each other.
    pub(super) fn parse(encoded: &'a [u8]) -> Result<Self> {
        let header = Header::parse(encoded)?;
        if header.cbytes != encoded.len() {
            return Err(refuse(format!("cbytes is {}, the chunk has {} bytes", header.cbytes, encoded.len())));
        }
        let table = encoded.get(header.table_range()).ok_or_else(|| refuse("the block table is truncated"))?;
        Ok(Self { header, table, encoded, from: 0 })
    }

    /// Bytes of the decoded chunk.
    pub(super) fn nbytes(&self) -> usize {
        self.header.nbytes
    }

    /// Number of blocks.
    pub(super) fn num_blocks(&self) -> usize {
        self.header.num_blocks()
    }

    /// Bytes of the decoded chunk that block `index` holds.
    pub(super) fn block_range(&self, index: usize) -> Range<usize> {
        self.header.block_range(index)
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
        check_len(NAME, self.header.nbytes, out.len())?;
        for (index, block) in out.chunks_mut(self.header.blocksize).enumerate() {
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
        self.decode_window(context, &(0..self.header.nbytes), out)
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
        if self.header.stored {
            let payload = self.from(HEADER_NBYTES + range.start).and_then(|payload| payload.get(..range.len()));
            out.copy_from_slice(payload.ok_or_else(|| refuse("the stored bytes are truncated"))?);
            return Ok(());
        }
        let rest = self.block_bytes(index)?;
        let filtered = match self.header.filter {
            Filter::None => false,
            Filter::Shuffle => self.header.typesize > 1,
            Filter::BitShuffle => out.len() >= self.header.typesize,
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
        match self.header.filter {
            Filter::None => out.copy_from_slice(filtered),
            Filter::Shuffle => shuffle::unshuffle(self.header.typesize, filtered, out),
            Filter::BitShuffle => shuffle::bit_unshuffle(self.header.typesize, filtered, &mut context.tile, out),
        }
    }

    /// What is at hand of the chunk from byte `start` on.
    fn from(&self, start: usize) -> Option<&'a [u8]> {
        self.encoded.get(start.checked_sub(self.from)?..)
    }

    /// The chunk from where block `index` starts.
    fn block_bytes(&self, index: usize) -> Result<&'a [u8]> {
        block_start(self.table, index)
            .and_then(|start| self.from(start))
            .ok_or_else(|| refuse(format!("block {index} starts outside of the chunk's blocks")))
    }

    /// Streams of a block of `block_nbytes` decoded bytes.
    fn num_streams(&self, block_nbytes: usize) -> usize {
        let split = self.header.split
            && block_nbytes == self.header.blocksize
            && self.header.typesize <= MAX_SPLITS
            && block_nbytes / self.header.typesize >= MIN_SPLIT_NBYTES;
        if split { self.header.typesize } else { 1 }
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
            self.header.inner.decode(context, stream, part)?;
        }
        Ok(())
    }
}

/// A size in a header, which is signed there.
pub(super) fn size(codec: &'static str, name: &str, bytes: [u8; 4]) -> Result<usize> {
    let value = i32::from_le_bytes(bytes);
    usize::try_from(value).map_err(|_| Error::codec(codec, format!("{name} is {value}")))
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
