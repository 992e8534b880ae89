//! xz: one or more streams of LZMA2, one after the other. Checksums are verified: those of the data and those around it.
//!
//! Source: The .xz File Format 1.2.1 §2 to §5. Numbers are little-endian; a vli has 7 bits a byte, the lowest first, the
//! high bit set in all but the last.
//!
//! | part of a stream | what |
//! |---|---|
//! | header | magic, 2 flags (the second: kind of check), CRC-32 of the flags |
//! | block | header: its size in words less 1, number of filters less 1 and which sizes follow, sizes, filters, padding, CRC-32; LZMA2; padding; check |
//! | index | 0, number of blocks, sizes of each (without padding; decoded), padding, CRC-32 |
//! | footer | CRC-32 of what follows, size of the index in words less 1, flags, `YZ` |
//!
//! Between streams and after the last there may be words of 0. Not read: other filters than LZMA2, SHA-256 as a check.

use std::io::Read as _;

use lzma_rust2::Lzma2Reader;

use super::sink::{ExactSink, GrowingSink, Sink};
use crate::error::{Error, ErrorKind, Result};

const NAME: &str = "xz";

const MAGIC: &[u8; 6] = b"\xfd7zXZ\0";
const FOOTER_MAGIC: &[u8; 2] = b"YZ";
const LZMA2: u64 = 0x21;

/// Memory of the decoder. Encoders ask for a dictionary of at most 64 MiB (preset 9), however little there is to encode.
pub(super) const MAX_MEMORY_KIB: u32 = 65 << 10;

/// Decodes exactly `out.len()` bytes.
///
/// # Errors
/// `Codec` when a stream is broken, truncated, followed by other bytes, needs too much memory, or has another size;
/// `Checksum` when one differs; `Unsupported` for what is not read.
pub(crate) fn decode_exact(encoded: &[u8], out: &mut [u8]) -> Result<()> {
    decode_streams(encoded, ExactSink::new(out))
}

/// Decodes at most `limit` bytes into `out`, which is emptied first.
///
/// # Errors
/// As [`decode_exact`]; `Codec` when there are more than `limit` bytes, `Limit` when memory is short.
pub(crate) fn decode_bounded(encoded: &[u8], limit: u64, out: &mut Vec<u8>) -> Result<()> {
    decode_streams(encoded, GrowingSink::new(out, limit))
}

fn decode_streams(encoded: &[u8], mut sink: impl Sink) -> Result<()> {
    let mut rest = Input { bytes: encoded };
    loop {
        decode_stream(&mut rest, &mut sink)?;
        let zeros = rest.bytes.iter().take_while(|byte| **byte == 0).count();
        if !zeros.is_multiple_of(4) {
            return Err(broken("the padding after a stream"));
        }
        rest.take(zeros)?;
        if rest.bytes.is_empty() {
            return sink.finish(NAME);
        }
    }
}

fn decode_stream(rest: &mut Input<'_>, sink: &mut impl Sink) -> Result<()> {
    if rest.take(MAGIC.len())? != MAGIC {
        return Err(broken("the magic of a stream"));
    }
    let flags = *rest.array::<2>()?;
    verify(&flags, *rest.array()?)?;
    let check = Check::parse(flags)?;
    let mut sizes = Vec::new();
    let start = loop {
        let start = rest.bytes;
        match rest.array()? {
            [0] => break start,
            [words] => sizes.push(decode_block(start, usize::from(*words), check, rest, sink)?),
        }
    };

    if rest.vli()? != sizes.len() as u64 {
        return Err(broken("the number of blocks in the index"));
    }
    for size in &sizes {
        if [rest.vli()?, rest.vli()?] != *size {
            return Err(broken("the size of a block in the index"));
        }
    }
    rest.padding(start)?;
    verify(rest.since(start), *rest.array()?)?;
    let words = rest.since(start).len() as u64 / 4;

    let stored = *rest.array()?;
    let footer = *rest.array::<6>()?;
    verify(&footer, stored)?;
    let [w0, w1, w2, w3, footer_flags @ ..] = footer;
    if u64::from(u32::from_le_bytes([w0, w1, w2, w3])) + 1 != words || footer_flags != flags {
        return Err(broken("the footer of a stream"));
    }
    if rest.array()? != FOOTER_MAGIC {
        return Err(broken("the end of a stream"));
    }
    Ok(())
}

/// Decodes the block that begins at `start`, of which the first byte has been taken. Returns its sizes as the index has
/// them.
fn decode_block(
    start: &[u8],
    words: usize,
    mut check: Check,
    rest: &mut Input<'_>,
    sink: &mut impl Sink,
) -> Result<[u64; 2]> {
    let mut header = Input { bytes: rest.take(words * 4 - 1)? };
    verify(rest.since(start), *rest.array()?)?;
    let flags = header.array::<1>()?[0];
    if flags & 0x3c != 0 {
        return Err(broken("the flags of a block"));
    }
    let stated = [flags & 0x40, flags & 0x80].map(|has_size| has_size != 0);
    let encoded_nbytes = if stated[0] { Some(header.vli()?) } else { None };
    let decoded_nbytes = if stated[1] { Some(header.vli()?) } else { None };
    if flags & 3 != 0 || header.vli()? != LZMA2 {
        return Err(Error::unsupported("xz with another filter than LZMA2", "encode it again without"));
    }
    let [1, log2] = header.array()? else { return Err(broken("the properties of LZMA2")) };
    if header.bytes.iter().any(|byte| *byte != 0) {
        return Err(broken("the padding in the header of a block"));
    }
    let dictionary_nbytes = match log2 {
        0..40 => (2 | u32::from(log2 & 1)) << (log2 / 2 + 11),
        40 => u32::MAX,
        _ => return Err(broken("the size of a dictionary")),
    };

    let refuse = |error: std::io::Error| Error::codec(NAME, error.to_string());
    let encoded = rest.bytes;
    let mut reader = Lzma2Reader::new_mem_limit(encoded, dictionary_nbytes, MAX_MEMORY_KIB, None).map_err(refuse)?;
    let mut decoded = 0;
    loop {
        let spare = sink.spare(NAME)?;
        let len = reader.read(spare).map_err(refuse)?;
        if len == 0 {
            break;
        }
        check.update(spare.get(..len).unwrap_or_default());
        sink.advance(len);
        decoded += len as u64;
    }
    rest.bytes = reader.into_inner();
    let nbytes = rest.since(encoded).len() as u64;
    if encoded_nbytes.is_some_and(|stated| stated != nbytes) || decoded_nbytes.is_some_and(|stated| stated != decoded) {
        return Err(broken("the size of a block"));
    }
    rest.padding(encoded)?;
    let stored = rest.take(check.nbytes())?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let computed = check.value();
    if stored != computed {
        return Err(ErrorKind::Checksum { codec: NAME, stored, computed }.into());
    }
    let header_nbytes = words as u64 * 4 + 4;
    Ok([header_nbytes + nbytes + check.nbytes() as u64, decoded])
}

/// The check of the data of a block, of what has been decoded of it.
#[derive(Debug, Clone, Copy)]
enum Check {
    None,
    Crc32(u32),
    Crc64(u64),
}

impl Check {
    /// Of the flags of a stream, and of no data.
    fn parse(flags: [u8; 2]) -> Result<Self> {
        match flags {
            [0, 0] => Ok(Self::None),
            [0, 1] => Ok(Self::Crc32(0)),
            [0, 4] => Ok(Self::Crc64(0)),
            [0, 10] => Err(Error::unsupported("xz with SHA-256 as its check", "CRC-32 and CRC-64 are read")),
            _ => Err(broken("the flags of a stream")),
        }
    }

    fn nbytes(self) -> usize {
        match self {
            Self::None => 0,
            Self::Crc32(_) => 4,
            Self::Crc64(_) => 8,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::None => {}
            Self::Crc32(crc) => {
                let mut state = libdeflater::Crc::with_initial(*crc);
                state.update(bytes);
                *crc = state.sum();
            }
            Self::Crc64(crc) => {
                let step = |state: u64, byte: &u8| CRC64[usize::from(state as u8 ^ byte)] ^ state >> 8;
                *crc = !bytes.iter().fold(!*crc, step);
            }
        }
    }

    fn value(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Crc32(crc) => crc.into(),
            Self::Crc64(crc) => crc,
        }
    }
}

/// What a byte does to a CRC-64 (ECMA-182, reflected).
const CRC64: [u64; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut state = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            state = if state & 1 == 1 { state >> 1 ^ 0xc96c_5795_d787_0f42 } else { state >> 1 };
            bit += 1;
        }
        table[byte] = state;
        byte += 1;
    }
    table
};

/// Bytes that are still to be read.
struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, after) = self.bytes.split_at_checked(len).ok_or_else(truncated)?;
        self.bytes = after;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N]> {
        let (taken, after) = self.bytes.split_first_chunk().ok_or_else(truncated)?;
        self.bytes = after;
        Ok(taken)
    }

    /// A number of at most 63 bits, in as few bytes as it needs.
    fn vli(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..63).step_by(7) {
            let [byte] = *self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 && (byte > 0 || shift == 0) {
                return Ok(number);
            } else if byte == 0 {
                break;
            }
        }
        Err(broken("a number"))
    }

    /// Bytes read since `start` was all there was to read.
    fn since<'b>(&self, start: &'b [u8]) -> &'b [u8] {
        &start[..start.len() - self.bytes.len()]
    }

    /// Takes zeros until whole words have been read since `start`.
    fn padding(&mut self, start: &[u8]) -> Result<()> {
        let len = self.since(start).len();
        if self.take(len.next_multiple_of(4) - len)?.iter().any(|byte| *byte != 0) {
            return Err(broken("padding"));
        }
        Ok(())
    }
}

/// Compares a CRC-32.
fn verify(bytes: &[u8], stored: [u8; 4]) -> Result<()> {
    let (stored, computed) = (u32::from_le_bytes(stored), libdeflater::crc32(bytes));
    if stored == computed {
        return Ok(());
    }
    Err(ErrorKind::Checksum { codec: NAME, stored: stored.into(), computed: computed.into() }.into())
}

fn truncated() -> Error {
    Error::codec(NAME, "the stream is truncated")
}

fn broken(what: &str) -> Error {
    Error::codec(NAME, format!("{what} is wrong"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream of one block of "voxels" without a check, its parts without their checksums.
    #[derive(Clone)]
    struct Stream {
        flags: Vec<u8>,
        /// Of 12 bytes: LZMA2 with one byte of properties.
        block: Vec<u8>,
        /// A chunk as it is, the end, padding to whole words.
        data: Vec<u8>,
        /// One block of 12 + 10 bytes, without padding, that decode to 6.
        index: Vec<u8>,
        footer: Vec<u8>,
        end: Vec<u8>,
    }

    impl Stream {
        fn new() -> Self {
            Self {
                flags: vec![0, 0],
                block: vec![2, 0, 0x21, 1, 0, 0, 0, 0],
                data: b"\x01\0\x05voxels\0\0\0".to_vec(),
                index: vec![0, 1, 22, 6],
                footer: vec![1, 0, 0, 0, 0, 0],
                end: b"YZ".to_vec(),
            }
        }

        fn with(&self, edit: impl FnOnce(&mut Self)) -> Self {
            let mut edited = self.clone();
            edit(&mut edited);
            edited
        }

        fn decode(&self) -> Result<[u8; 6]> {
            let crc = |bytes: &[u8]| libdeflater::crc32(bytes).to_le_bytes();
            let Self { flags, block, data, index, footer, end } = self;
            let header = [&MAGIC[..], flags, &crc(flags), block, &crc(block)].concat();
            let encoded = [&header[..], data, index, &crc(index), &crc(footer), footer, end].concat();
            let mut out = [0; 6];
            let exact = decode_exact(&encoded, &mut out);
            assert_eq!(exact, decode_bounded(&encoded, 6, &mut Vec::new()));
            exact.map(|()| out)
        }
    }

    #[test]
    fn every_part_of_a_stream_must_fit_the_others() {
        let stream = Stream::new();
        assert_eq!(stream.decode(), Ok(*b"voxels"));
        // Both sizes in the header of the block, in another order of magnitude; no end to a number.
        let sizes =
            |sizes: &[u8]| stream.with(|s| s.block = [&[3, 0xc0], sizes, &[0x21, 1, 0, 0, 0, 0, 0, 0]].concat());
        let [larger, index] = [10, 6].map(|n| sizes(&[n, 6]).with(|s| s.index[2] = 26));
        assert_eq!(larger.decode(), Ok(*b"voxels"));
        let refused = [
            index,
            larger.with(|s| s.block[3] = 7),
            larger.with(|s| s.block[2..5].copy_from_slice(&[0x8a, 0, 6])),
            larger.with(|s| s.block[2..12].fill(0x80)),
            stream.with(|s| s.flags = vec![1, 0]),
            stream.with(|s| s.flags = vec![0, 2]),
            stream.with(|s| s.flags = vec![0, 1]),
            stream.with(|s| s.block[1] = 4),
            stream.with(|s| s.block[3] = 2),
            stream.with(|s| s.block[4] = 41),
            stream.with(|s| s.block[7] = 1),
            stream.with(|s| s.data[0] = 2),
            stream.with(|s| s.data[11] = 1),
            stream.with(|s| s.index[1] = 0),
            stream.with(|s| s.index[1] = 2),
            stream.with(|s| s.index[2] = 21),
            stream.with(|s| s.index[3] = 7),
            stream.with(|s| s.index.extend([0; 4])),
            stream.with(|s| s.footer[0] = 2),
            stream.with(|s| s.footer[3] = 1),
            stream.with(|s| s.footer[5] = 1),
            stream.with(|s| s.end[1] = b'z'),
            stream.with(|s| s.end.push(0)),
        ];
        for (case, stream) in refused.iter().enumerate() {
            let refused = stream.decode().expect_err(&format!("case {case}"));
            let is_typed = matches!(refused.kind(), ErrorKind::Codec { .. } | ErrorKind::Checksum { .. });
            assert!(is_typed, "case {case}: {refused}");
        }
        let filters = [stream.with(|s| s.block[2] = 3), stream.with(|s| s.block[1] = 1)];
        for stream in filters {
            assert!(matches!(stream.decode().unwrap_err().kind(), ErrorKind::Unsupported { .. }));
        }
        stream.with(|s| s.end.extend([0; 4])).decode().unwrap();
    }

    #[test]
    fn a_dictionary_is_as_large_as_the_highest_preset_has_it_or_refused() {
        for (log2, possible) in [(12, true), (20, true), (26, true), (27, false), (31, false)] {
            let stream = Stream::new().with(|s| s.block[4] = (log2 - 12) * 2);
            assert_eq!(stream.decode().is_ok(), possible, "{log2}");
        }
    }

    #[test]
    fn very_many_streams_are_read_without_recursion() {
        let empty = [
            &b"\xfd7zXZ\0\0\0"[..],
            &libdeflater::crc32(&[0, 0]).to_le_bytes(),
            &[0; 4],
            &libdeflater::crc32(&[0; 4]).to_le_bytes(),
            &libdeflater::crc32(&[1, 0, 0, 0, 0, 0]).to_le_bytes(),
            &[1, 0, 0, 0, 0, 0],
            b"YZ",
        ]
        .concat();
        decode_exact(&empty.repeat(100_000), &mut []).unwrap();
    }
}
