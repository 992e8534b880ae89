//! The LZ4 streams of lz4-java, which N5 calls `lz4`: blocks with a header and a checksum each.
//!
//! Source: lz4-java, `LZ4BlockOutputStream` and `LZ4BlockInputStream`. Numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `LZ4Block` |
//! | 1 | high four bits: 1 the bytes as they are, 2 a raw LZ4 block; low four bits `n`: at most 2^(10 + n) bytes decoded |
//! | 4 | encoded size |
//! | 4 | decoded size |
//! | 4 | low 28 bits of the XXH32 of the decoded bytes, with a seed of its own |
//!
//! An empty block ends the stream; its checksum is 0.

use super::lz4;
use super::sink::{check_len, resize};
use crate::error::{Error, ErrorKind, Result};

const NAME: &str = "lz4";

const MAGIC: &[u8; 8] = b"LZ4Block";
const SEED: u32 = 0x9747_b28c;
const CHECKSUM_MASK: u32 = 0x0fff_ffff;

/// Decodes exactly `out.len()` bytes.
///
/// # Errors
/// `Codec` when the stream is broken, truncated, followed by other bytes, or of another size; `Checksum` when one differs.
pub(crate) fn decode_exact(encoded: &[u8], out: &mut [u8]) -> Result<()> {
    let (mut rest, mut filled) = (encoded, 0);
    while let Some(block) = Block::take(&mut rest)? {
        let expected = out.len();
        let room = out.get_mut(filled..).and_then(|room| room.get_mut(..block.decoded_nbytes));
        block.decode(room.ok_or_else(|| too_long(expected as u64))?)?;
        filled += block.decoded_nbytes;
    }
    check_len(NAME, filled, out.len())
}

/// Decodes at most `limit` bytes into `out`, which is emptied first.
///
/// # Errors
/// As [`decode_exact`]; `Codec` when there are more than `limit` bytes, `Limit` when memory is short.
pub(crate) fn decode_bounded(encoded: &[u8], limit: u64, out: &mut Vec<u8>) -> Result<()> {
    out.clear();
    let mut rest = encoded;
    while let Some(block) = Block::take(&mut rest)? {
        let filled = out.len();
        let len = filled.saturating_add(block.decoded_nbytes);
        if len as u64 > limit {
            return Err(too_long(limit));
        }
        resize(out, len)?;
        block.decode(out.get_mut(filled..).unwrap_or_default())?;
    }
    Ok(())
}

/// One block, not yet decoded.
struct Block<'a> {
    is_compressed: bool,
    encoded: &'a [u8],
    decoded_nbytes: usize,
    checksum: u32,
}

impl<'a> Block<'a> {
    /// Takes the next block off the front of `rest`; None for the end of the stream, after which nothing may follow.
    fn take(rest: &mut &'a [u8]) -> Result<Option<Self>> {
        let (magic, after) = rest.split_first_chunk::<8>().ok_or_else(truncated)?;
        let (token, after) = after.split_first().ok_or_else(truncated)?;
        let (encoded_nbytes, after) = number(after)?;
        let (decoded_nbytes, after) = number(after)?;
        let (checksum, after) = number(after)?;
        if magic != MAGIC {
            return Err(Error::codec(NAME, "a block does not start with \"LZ4Block\""));
        }
        let is_compressed = match token >> 4 {
            1 => false,
            2 => true,
            other => return Err(Error::codec(NAME, format!("a block compressed by method {other}"))),
        };
        let possible = decoded_nbytes <= 1 << (10 + (token & 15))
            && (encoded_nbytes == 0) == (decoded_nbytes == 0)
            && (is_compressed || encoded_nbytes == decoded_nbytes);
        if !possible {
            let what = format!("a block of {encoded_nbytes} bytes that decode to {decoded_nbytes}");
            return Err(Error::codec(NAME, what));
        }
        let (encoded, after) = after.split_at_checked(encoded_nbytes as usize).ok_or_else(truncated)?;
        *rest = after;
        if encoded.is_empty() {
            return match (checksum, after) {
                (0, []) => Ok(None),
                (0, _) => Err(Error::codec(NAME, format!("{} bytes after the stream", after.len()))),
                _ => Err(mismatch(checksum, 0)),
            };
        }
        Ok(Some(Self { is_compressed, encoded, decoded_nbytes: decoded_nbytes as usize, checksum }))
    }

    /// Fills `out`, which is `decoded_nbytes` long.
    fn decode(&self, out: &mut [u8]) -> Result<()> {
        if self.is_compressed {
            lz4::decode_raw_exact(self.encoded, out)?;
        } else {
            out.copy_from_slice(self.encoded);
        }
        let computed = twox_hash::XxHash32::oneshot(SEED, out) & CHECKSUM_MASK;
        if computed == self.checksum { Ok(()) } else { Err(mismatch(self.checksum, computed)) }
    }
}

/// Splits a number of 4 bytes off the front.
fn number(bytes: &[u8]) -> Result<(u32, &[u8])> {
    let (number, after) = bytes.split_first_chunk::<4>().ok_or_else(truncated)?;
    Ok((u32::from_le_bytes(*number), after))
}

fn mismatch(stored: u32, computed: u32) -> Error {
    ErrorKind::Checksum { codec: NAME, stored: stored.into(), computed: computed.into() }.into()
}

fn too_long(limit: u64) -> Error {
    Error::codec(NAME, format!("decodes to more than {limit} bytes"))
}

fn truncated() -> Error {
    Error::codec(NAME, "the stream is truncated")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: [u32; 3] = [0, 0, 0];

    fn block(token: u8, [encoded, decoded, checksum]: [u32; 3], bytes: &[u8]) -> Vec<u8> {
        let mut block = [&MAGIC[..], &[token]].concat();
        [encoded, decoded, checksum].iter().for_each(|number| block.extend(number.to_le_bytes()));
        block.extend(bytes);
        block
    }

    #[track_caller]
    fn refuses(stream: &[u8]) {
        for refused in [decode_exact(stream, &mut [0; 3]), decode_bounded(stream, 3, &mut Vec::new())] {
            assert!(matches!(refused.unwrap_err().kind(), ErrorKind::Codec { .. } | ErrorKind::Checksum { .. }));
        }
    }

    #[test]
    fn blocks_are_checked() {
        // XXH32 of "abc" with the seed is 0x4d4cb222.
        let checksum = 0x4d4c_b222 & CHECKSUM_MASK;
        let end = block(0x10, EMPTY, &[]);
        let stored = [block(0x10, [3, 3, checksum], b"abc"), end.clone()].concat();
        let compressed = [block(0x20, [4, 3, checksum], b"\x30abc"), end.clone()].concat();
        for stream in [&stored, &compressed] {
            let mut out = [0; 3];
            decode_exact(stream, &mut out).unwrap();
            assert_eq!(&out, b"abc");
        }
        decode_exact(&end, &mut []).unwrap();
        decode_exact(&end, &mut [0; 3]).unwrap_err();
        decode_bounded(&stored, 2, &mut Vec::new()).unwrap_err();
        refuses(&stored[..stored.len() - end.len()]);
        refuses(&[&stored[..], &stored].concat());
        for (token, numbers) in [
            (0x00, [3, 3, checksum]),
            (0x30, [3, 3, checksum]),
            (0x10, [3, 3, checksum | 0x9000_0000]),
            (0x10, [3, 3, 0]),
            (0x10, [3, 4, checksum]),
            (0x20, [3, 0, 0]),
            (0x20, [0, 3, 0]),
            (0x10, [u32::MAX, u32::MAX, 0]),
            (0x2f, [3, 1 << 25, 0]),
            (0x2f, [3, (1 << 25) + 1, 0]),
            (0x20, [3, 1025, 0]),
        ] {
            refuses(&[block(token, numbers, b"abc"), end.clone()].concat());
        }
        refuses(&[&stored[..stored.len() - end.len()], &block(0x10, [0, 0, 1], &[])].concat());
    }
}
