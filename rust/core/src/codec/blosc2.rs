//! The Blosc 2 chunk, format version 5 (`.b2nd` files, frames). Decoding only.
//!
//! Its first 16 bytes are laid out as those of [Blosc 1](super::blosc). Shuffle and bit shuffle are both flagged, which says
//! that 16 more follow:
//!
//! | bytes | meaning |
//! |---|---|
//! | 16-21, 24-29 | codes of six filters in encoding order, and one byte for each: of shuffle the bytes of an element, 0 for typesize |
//! | 22, 23 | a codec of a plugin and its settings |
//! | 30 | 0x01 blocks of several sizes |
//! | 31 | flags: 0x01 dictionary, 0x02 big-endian writer, 0x08 lazy, bits 4-6 one value for all elements, 0x80 instrumented |
//!
//! One value for all (1 zeros, 2 NaN, 3 the bytes that follow the header, 4 never written) leaves out all the rest. Else the
//! chunk goes on as Blosc 1 does, but for streams: csize 0 is a run of zeros, and a negative one is a run of another byte,
//! its number without the sign; one byte with bit 0 set follows then and no data. Whether blocks are split the flag alone says.
//!
//! Codecs and filters of plugins, dictionaries and blocks of several sizes are refused by name. Source: C-Blosc2
//! `README_CHUNK_FORMAT`.

use super::CodecContext;
use super::blosc::{Inner, size};
use super::shuffle;
use super::sink::{check_len, resize};
use crate::error::{Error, Result};

const NAME: &str = "blosc2";
const HEADER_NBYTES: usize = 32;
const VERSION: u8 = 5;
/// The version of chunks with blocks of several sizes.
const VERSION_SEVERAL: u8 = 6;

const FLAG_STORED: u8 = 0x02;
const FLAG_NOT_SPLIT: u8 = 0x10;
/// Shuffle and bit shuffle of Blosc 1, which never come together there.
const FLAGS_LONG_HEADER: u8 = 0x05;

/// Flags of byte 31 that are refused, and what they say.
const REFUSED: [(u8, &str); 4] = [
    (0x01, "compressed with a dictionary"),
    (0x02, "written on a big-endian machine"),
    (0x08, "without its data (a lazy chunk)"),
    (0x80, "with measurements in place of its data"),
];

/// What undoes a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filter {
    /// Of elements of so many bytes.
    Shuffle(usize),
    BitShuffle,
    Delta,
}

/// What a chunk holds beside encoded blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content<'a> {
    /// Encoded blocks, of which this is the table.
    Blocks(&'a [u8]),
    /// The decoded bytes as they are.
    Stored(&'a [u8]),
    /// These bytes again and again.
    Repeated(&'a [u8]),
}

/// A chunk whose header and block table have been checked.
#[derive(Debug)]
pub(super) struct Blosc2Chunk<'a> {
    nbytes: usize,
    blocksize: usize,
    typesize: usize,
    split: bool,
    inner: Inner,
    /// In decoding order.
    filters: Vec<Filter>,
    content: Content<'a>,
    /// All bytes of the chunk.
    encoded: &'a [u8],
    /// The first block, decoded, when the others are differences from it.
    reference: Vec<u8>,
}

impl<'a> Blosc2Chunk<'a> {
    /// Reads the header of the chunk that `encoded` begins with.
    ///
    /// # Errors
    /// `Codec` when it is not a Blosc 2 chunk or its sizes contradict each other, `Unsupported` for what is not read.
    pub(super) fn parse(encoded: &'a [u8]) -> Result<Self> {
        let Some(&[version, _, flags, typesize, n0, n1, n2, n3, b0, b1, b2, b3, c0, c1, c2, c3]) =
            encoded.first_chunk()
        else {
            return Err(refuse(format!("{} bytes are shorter than the header", encoded.len())));
        };
        if version == VERSION_SEVERAL {
            return Err(unsupported("a chunk with blocks of several sizes"));
        }
        if version != VERSION || flags & FLAGS_LONG_HEADER != FLAGS_LONG_HEADER {
            let what = "is not that of a Blosc 2 chunk (5, with a header of 32 bytes)";
            return Err(refuse(format!("format version {version} with flags {flags:#04x} {what}")));
        }
        let nbytes = size(NAME, "nbytes", [n0, n1, n2, n3])?;
        let blocksize = size(NAME, "blocksize", [b0, b1, b2, b3])?;
        let cbytes = size(NAME, "cbytes", [c0, c1, c2, c3])?;
        let typesize = usize::from(typesize);
        let Some(encoded) = encoded.get(..cbytes) else {
            return Err(refuse(format!("cbytes is {cbytes}, the chunk has {} bytes", encoded.len())));
        };
        let Some((header, rest)) = encoded.split_first_chunk::<HEADER_NBYTES>() else {
            return Err(refuse(format!("cbytes is {cbytes}, less than the header")));
        };
        if typesize == 0 || blocksize == 0 || blocksize > nbytes.max(1) {
            return Err(refuse(format!("typesize is {typesize}, blocksize {blocksize}, nbytes {nbytes}")));
        }
        let [.., several, more] = *header;
        if several != 0 {
            return Err(unsupported("a chunk with blocks of several sizes"));
        }
        if let Some((_, what)) = REFUSED.iter().find(|(flag, _)| more & flag != 0) {
            return Err(unsupported(format!("a chunk {what}")));
        }
        let content = match more >> 4 & 7 {
            0 if flags & FLAG_STORED != 0 => {
                check_len(NAME, rest.len(), nbytes)?;
                Content::Stored(rest)
            }
            0 => {
                let table = nbytes.div_ceil(blocksize).checked_mul(4).and_then(|nbytes| rest.get(..nbytes));
                Content::Blocks(table.ok_or_else(|| refuse(format!("{cbytes} bytes hold no table of its blocks")))?)
            }
            1 | 4 => Content::Repeated(&[0]),
            2 => Content::Repeated(nan(typesize)?),
            3 => Content::Repeated(rest),
            other => return Err(refuse(format!("unknown kind {other} of one value for all"))),
        };
        if let Content::Repeated(value) = content
            && (value.is_empty() || !nbytes.is_multiple_of(value.len()) || !blocksize.is_multiple_of(value.len()))
        {
            return Err(refuse(format!("a value of {} bytes in blocks of {blocksize}", value.len())));
        }
        let (inner, filters) = match content {
            Content::Blocks(_) => (inner(flags, header)?, filters(header, typesize)?),
            _ => (Inner::BloscLz, Vec::new()),
        };
        let split = flags & FLAG_NOT_SPLIT == 0;
        Ok(Self { nbytes, blocksize, typesize, split, inner, filters, content, encoded, reference: Vec::new() })
    }

    /// Bytes of the decoded chunk.
    pub(super) fn nbytes(&self) -> usize {
        self.nbytes
    }

    /// Bytes of a block; None when the chunk is one value without blocks.
    pub(super) fn blocksize(&self) -> Option<usize> {
        (!matches!(self.content, Content::Repeated(_))).then_some(self.blocksize)
    }

    /// Decodes all blocks into `out`.
    ///
    /// # Errors
    /// `Codec` when `out` is not `nbytes` long or a block is broken, `Limit` when memory is short.
    pub(super) fn decode(&mut self, context: &mut CodecContext, out: &mut [u8]) -> Result<()> {
        check_len(NAME, self.nbytes, out.len())?;
        out.chunks_mut(self.blocksize)
            .enumerate()
            .try_for_each(|(index, block)| self.decode_block(context, index, block))
    }

    /// Decodes block `index` into `out`, which has the bytes of the block.
    ///
    /// # Errors
    /// As [`Blosc2Chunk::decode`].
    pub(super) fn decode_block(&mut self, context: &mut CodecContext, index: usize, out: &mut [u8]) -> Result<()> {
        let table = match self.content {
            Content::Blocks(table) => table,
            Content::Stored(payload) => {
                let start = index.saturating_mul(self.blocksize);
                let bytes = payload.get(start..).and_then(|rest| rest.get(..out.len()));
                out.copy_from_slice(bytes.ok_or_else(|| refuse(format!("no block {index}")))?);
                return Ok(());
            }
            Content::Repeated(&[value]) => {
                out.fill(value);
                return Ok(());
            }
            Content::Repeated(value) => {
                out.chunks_mut(value.len()).for_each(|place| place.copy_from_slice(&value[..place.len()]));
                return Ok(());
            }
        };
        let is_delta = self.filters.contains(&Filter::Delta);
        if is_delta && index > 0 && self.reference.is_empty() {
            let mut first = Vec::new();
            resize(&mut first, self.blocksize)?;
            self.decode_filtered(context, table, 0, &mut first)?;
            undo_delta(self.typesize, None, &mut first);
            self.reference = first;
        }
        self.decode_filtered(context, table, index, out)?;
        if is_delta {
            undo_delta(self.typesize, (index > 0).then_some(&self.reference), out);
        }
        Ok(())
    }

    /// Decodes a block but for delta, which comes last.
    fn decode_filtered(&self, context: &mut CodecContext, table: &[u8], index: usize, out: &mut [u8]) -> Result<()> {
        let start = index.checked_mul(4).and_then(|at| table.get(at..)?.first_chunk());
        let start = start.and_then(|bytes| usize::try_from(i32::from_le_bytes(*bytes)).ok());
        let start = start.filter(|&start| start >= HEADER_NBYTES + table.len());
        let bytes = start
            .and_then(|start| self.encoded.get(start..))
            .ok_or_else(|| refuse(format!("block {index} starts outside of the chunk's blocks")))?;
        let [first, more @ ..] = self.filters.as_slice() else {
            return self.decode_streams(context, bytes, out);
        };
        if *first == Filter::Delta {
            return self.decode_streams(context, bytes, out);
        }
        let mut from = std::mem::take(&mut context.block);
        let mut to = std::mem::take(&mut context.filtered);
        let decoded = resize(&mut from, out.len()).and_then(|()| self.decode_streams(context, bytes, &mut from));
        let undone = decoded.and_then(|()| {
            let mut filter = *first;
            for &next in more.iter().filter(|&&next| next != Filter::Delta) {
                resize(&mut to, out.len())?;
                self.undo(context, filter, &from, &mut to);
                std::mem::swap(&mut from, &mut to);
                filter = next;
            }
            self.undo(context, filter, &from, out);
            Ok(())
        });
        (context.block, context.filtered) = (from, to);
        undone
    }

    /// Undoes a shuffle; both slices are equally long.
    fn undo(&self, context: &mut CodecContext, filter: Filter, from: &[u8], to: &mut [u8]) {
        let eight = 8 * self.typesize;
        // Of the bits of a block, those of each 8 elements are shuffled; a rest stays.
        let whole = if filter == Filter::BitShuffle { to.len() / eight * eight } else { to.len() };
        let (shuffled, rest) = from.split_at(whole);
        let (to, to_rest) = to.split_at_mut(whole);
        to_rest.copy_from_slice(rest);
        match filter {
            Filter::Shuffle(typesize) => shuffle::unshuffle(typesize, shuffled, to),
            Filter::BitShuffle | Filter::Delta => {
                shuffle::bit_unshuffle(self.typesize, shuffled, &mut context.tile, to);
            }
        }
    }

    fn decode_streams(&self, context: &mut CodecContext, mut rest: &[u8], out: &mut [u8]) -> Result<()> {
        // The last block, when shorter, is never split.
        let streams = if self.split && out.len() == self.blocksize { self.typesize } else { 1 };
        if !out.len().is_multiple_of(streams) || out.is_empty() {
            return Err(refuse(format!("blocksize {} is no multiple of {streams} streams", out.len())));
        }
        for part in out.chunks_exact_mut(out.len() / streams) {
            let (csize, after) = rest.split_first_chunk().ok_or_else(|| refuse("a stream's size is truncated"))?;
            let csize = i32::from_le_bytes(*csize);
            rest = after;
            if csize <= 0 {
                if csize < 0 {
                    let (token, after) = rest.split_first().ok_or_else(|| refuse("a run is truncated"))?;
                    if token & 1 == 0 || csize < -255 {
                        return Err(refuse(format!("a run of {csize} with token {token:#04x}")));
                    }
                    rest = after;
                }
                part.fill(csize.unsigned_abs() as u8);
                continue;
            }
            let stream;
            (stream, rest) = rest
                .split_at_checked(csize as usize)
                .ok_or_else(|| refuse(format!("a stream of {csize} bytes where {} are left", rest.len())))?;
            if stream.len() == part.len() {
                part.copy_from_slice(stream);
            } else {
                self.inner.decode(context, stream, part)?;
            }
        }
        Ok(())
    }
}

/// Decodes a chunk by itself, of at most `limit` decoded bytes.
///
/// # Errors
/// `Codec` when it is broken or larger, `Unsupported` for what is not read, `Limit` when memory is short.
pub fn decode_chunk(encoded: &[u8], limit: usize) -> Result<Vec<u8>> {
    let mut chunk = Blosc2Chunk::parse(encoded)?;
    if chunk.nbytes > limit {
        return Err(refuse(format!("nbytes is {}, at most {limit} are possible", chunk.nbytes)));
    }
    let mut out = Vec::new();
    resize(&mut out, chunk.nbytes)?;
    chunk.decode(&mut CodecContext::default(), &mut out)?;
    Ok(out)
}

/// The codec of the streams.
fn inner(flags: u8, header: &[u8; HEADER_NBYTES]) -> Result<Inner> {
    match flags >> 5 {
        0 => Ok(Inner::BloscLz),
        1 => Ok(Inner::Lz4),
        3 => Ok(Inner::Zlib),
        4 => Ok(Inner::Zstd),
        6 => Err(unsupported(format!("a chunk of codec {}, which is a plugin's", header[22]))),
        other => Err(refuse(format!("unknown inner codec {other}"))),
    }
}

/// What undoes the filters, in decoding order.
fn filters(header: &[u8; HEADER_NBYTES], typesize: usize) -> Result<Vec<Filter>> {
    let mut filters = Vec::new();
    for (&code, &setting) in header[16..22].iter().zip(&header[24..30]).rev() {
        match code {
            // Bits that were cut off stay so.
            0 | 4 => {}
            1 => filters.push(Filter::Shuffle(if setting == 0 { typesize } else { usize::from(setting) })),
            2 => filters.push(Filter::BitShuffle),
            3 => filters.push(Filter::Delta),
            _ => return Err(unsupported(format!("a chunk of filter {code}, which is a plugin's"))),
        }
    }
    // A block is needed decoded to undo delta in the others.
    let is_last = |position: usize| position + 1 == filters.len();
    match filters.iter().position(|&filter| filter == Filter::Delta) {
        Some(position) if !is_last(position) => Err(unsupported("a chunk whose filters begin with others than delta")),
        _ => Ok(filters),
    }
}

/// Undoes delta: in the first block each element is combined with the one before, in the others with that of the first at
/// the same place, by exclusive or.
fn undo_delta(typesize: usize, reference: Option<&Vec<u8>>, block: &mut [u8]) {
    let unit = match typesize {
        1 | 2 | 4 | 8 => typesize,
        _ if typesize.is_multiple_of(8) => 8,
        _ => 1,
    };
    let whole = block.len() / unit * unit;
    let block = &mut block[..whole];
    match reference {
        Some(reference) => block.iter_mut().zip(reference).for_each(|(byte, from)| *byte ^= from),
        None => (unit..whole).for_each(|at| block[at] ^= block[at - unit]),
    }
}

/// A NaN of so many bytes, as C-Blosc2 has them.
fn nan(typesize: usize) -> Result<&'static [u8]> {
    const SINGLE: [u8; 4] = f32::NAN.to_le_bytes();
    const DOUBLE: [u8; 8] = f64::NAN.to_le_bytes();
    match typesize {
        4 => Ok(&SINGLE),
        8 => Ok(&DOUBLE),
        _ => Err(refuse(format!("NaN in elements of {typesize} bytes"))),
    }
}

fn refuse(what: impl Into<String>) -> Error {
    Error::codec(NAME, what)
}

fn unsupported(what: impl Into<String>) -> Error {
    Error::unsupported(
        format!("{NAME}: {}", what.into()),
        "copy it without plugins and dictionaries: codecs blosclz, lz4, zlib and zstd, filters shuffle, bitshuffle, delta \
         (first of all) and trunc_prec are read",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A chunk of u16 in blocks of 16 bytes: `codec` and flags of byte 2, filters, then streams of each block.
    fn chunk(flags: u8, filters: [u8; 6], nbytes: usize, blocks: &[&[u8]]) -> Vec<u8> {
        let mut start = HEADER_NBYTES + 4 * blocks.len();
        let cbytes = start + blocks.iter().map(|block| block.len()).sum::<usize>();
        let mut chunk = vec![VERSION, 1, FLAGS_LONG_HEADER | flags, 2];
        [nbytes, 16, cbytes].iter().for_each(|&size| chunk.extend((size as i32).to_le_bytes()));
        chunk.extend(filters);
        chunk.extend([0; 10]);
        for block in blocks {
            chunk.extend((start as i32).to_le_bytes());
            start += block.len();
        }
        blocks.iter().for_each(|block| chunk.extend(*block));
        chunk
    }

    fn raw(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as i32).to_le_bytes()[..], bytes].concat()
    }

    const NONE: [u8; 6] = [0; 6];

    #[test]
    fn runs_and_split_blocks() {
        // 16 zeros; 16 times 7; a block that is split, as the last one is not: it is shorter.
        let sevens = [&(-7i32).to_le_bytes()[..], &[1]].concat();
        let split = [raw(&[1; 8]), raw(&[2; 8])].concat();
        let whole = |blocks: &[&[u8]], nbytes| decode_chunk(&chunk(FLAG_NOT_SPLIT, NONE, nbytes, blocks), 100);
        assert_eq!(whole(&[&[0; 4], &sevens], 32).unwrap(), [[0; 16], [7; 16]].concat());
        let short = raw(&[9; 4]);
        let decoded = decode_chunk(&chunk(0, NONE, 20, &[&split, &short]), 100).unwrap();
        assert_eq!(decoded, [&[1; 8][..], &[2; 8], &[9; 4]].concat());
        let unmarked = [&(-7i32).to_le_bytes()[..], &[2]].concat();
        let large = [&(-256i32).to_le_bytes()[..], &[1]].concat();
        for broken in [&unmarked, &large, &sevens[..4].to_vec(), &vec![1, 2], &raw(&[1; 16])[..10].to_vec()] {
            assert!(matches!(whole(&[broken], 16).unwrap_err().kind(), crate::error::ErrorKind::Codec { .. }));
        }
    }

    #[test]
    fn one_value_for_all() {
        let with = |typesize: u8, kind: u8, value: &[u8]| {
            let mut chunk = chunk(0, NONE, 32, &[]);
            chunk.extend(value);
            (chunk[3], chunk[12], chunk[31]) = (typesize, 32 + value.len() as u8, kind << 4);
            decode_chunk(&chunk, 100)
        };
        for kind in [1, 4] {
            assert_eq!(with(2, kind, &[]).unwrap(), [0; 32]);
        }
        assert_eq!(with(4, 2, &[]).unwrap(), f32::NAN.to_le_bytes().repeat(8));
        assert_eq!(with(8, 2, &[]).unwrap(), f64::NAN.to_le_bytes().repeat(4));
        assert_eq!(with(2, 3, &[1, 2, 3, 4]).unwrap(), [1, 2, 3, 4].repeat(8));
        assert_eq!(with(1, 3, &[9]).unwrap(), [9; 32]);
        for (typesize, kind, value) in [(2, 2, &[][..]), (2, 3, &[]), (2, 3, &[1, 2, 3]), (2, 3, &[1; 32]), (2, 5, &[])]
        {
            with(typesize, kind, value).unwrap_err();
        }
    }

    #[test]
    fn delta_needs_the_first_block_for_the_others() {
        let (first, second) = (raw(&[1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0]), raw(&[0xf; 16]));
        let chunk = chunk(FLAG_NOT_SPLIT, [3, 0, 0, 0, 0, 0], 32, &[&first, &second]);
        let reference: Vec<u8> = [1u8, 0].repeat(8);
        let expected: Vec<u8> = (0..8).flat_map(|i| [reference[0] * u8::from(i % 2 == 0), 0]).collect();
        let mut parsed = Blosc2Chunk::parse(&chunk).unwrap();
        let mut alone = [0; 16];
        parsed.decode_block(&mut CodecContext::default(), 1, &mut alone).unwrap();
        assert_eq!(alone.to_vec(), expected.iter().map(|byte| byte ^ 0xf).collect::<Vec<_>>());
        let all = decode_chunk(&chunk, 32).unwrap();
        assert_eq!(all, [&expected[..], &alone].concat());
    }

    #[test]
    fn what_is_not_read_has_a_name() {
        let block = raw(&[1; 16]);
        let with = |flags, filters| chunk(flags, filters, 16, &[&block]);
        let change = |at: usize, value: u8| {
            let mut chunk = with(FLAG_NOT_SPLIT, NONE);
            chunk[at] = value;
            chunk
        };
        let table = [
            (with(0xc0, NONE), "codec 0, which is a plugin's"),
            (with(0, [0, 0, 35, 0, 0, 0]), "filter 35, which is a plugin's"),
            (with(0, [1, 3, 0, 0, 0, 0]), "others than delta"),
            (change(0, VERSION_SEVERAL), "several sizes"),
            (change(30, 1), "several sizes"),
            (change(31, 1), "dictionary"),
            (change(31, 2), "big-endian"),
            (change(31, 8), "lazy"),
            (change(31, 0x80), "measurements"),
        ];
        for (chunk, part) in table {
            let error = decode_chunk(&chunk, 100).unwrap_err();
            assert_eq!(error.kind().class_name(), "UnsupportedError", "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
        for (at, value) in [(0, 2), (0, 7), (2, 0x10), (3, 0), (4, 255), (8, 0), (31, 0x50), (31, 0x30), (31, 0x20)] {
            let error = decode_chunk(&change(at, value), 100).unwrap_err();
            assert_eq!(error.kind().class_name(), "CodecError", "{at}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_typed_errors(
            flags in any::<u8>(),
            filters in prop::array::uniform6(0u8..6),
            changes in prop::collection::vec((0usize..120, any::<u8>()), 0..6),
            streams in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let mut chunk = chunk(flags & !FLAG_STORED, filters, 40, &[&streams, &streams, &streams]);
            for (at, value) in changes {
                if let Some(byte) = chunk.get_mut(at) {
                    *byte = value;
                }
            }
            if let Ok(decoded) = decode_chunk(&chunk, 1000) {
                prop_assert!(decoded.len() <= 1000);
            }
        }
    }
}
