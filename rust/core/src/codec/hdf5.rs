//! Filters of HDF5 that put a frame of their own around LZ4 or Zstandard: `hdf5_lz4` (32004) and `hdf5_bitshuffle` (32008).
//!
//! Sources: HDF5Plugin-lz4 `H5Zlz4.c`; bitshuffle 0.5 `bshuf_h5filter.c`, `bitshuffle_core.c`. Numbers are big-endian.
//!
//! | bytes | LZ4 | bitshuffle with a compressor (without one there is no header and no sizes) |
//! |---|---|---|
//! | 8 | decoded size | decoded size |
//! | 4 | decoded size of a block | decoded size of a block |
//! | then for each block: 4 | its encoded size | its encoded size |
//! | as many | a raw LZ4 block, or its bytes as they are if they are as many | its bit planes, compressed |
//!
//! A bitshuffled block has a multiple of 8 elements, so that the last one may be shorter and up to 7 elements are left, which
//! follow as they are.

use super::sink::{check_len, resize};
use super::{CodecContext, lz4, shuffle};
use crate::error::{Error, Result};
use crate::metadata::{BitshuffleInner, BitshuffleSpec};

const LZ4: &str = "hdf5_lz4";
const BITSHUFFLE: &str = "hdf5_bitshuffle";

/// Elements whose bits make whole bytes.
const GROUP: usize = 8;
/// A block has as many elements as fit these bytes, in whole groups ...
const BLOCK_NBYTES: usize = 8192;
/// ... and no fewer than these, unless the file says otherwise.
const MIN_BLOCK: usize = 128;

/// Decodes `hdf5_lz4` of exactly `out.len()` bytes.
///
/// # Errors
/// `Codec` when the frame is broken or of another size.
pub(crate) fn decode_lz4(encoded: &[u8], out: &mut [u8]) -> Result<()> {
    let (header, mut rest) = Header::take(LZ4, encoded)?;
    check_len(LZ4, header.nbytes(LZ4)?, out.len())?;
    if header.block_nbytes == 0 && !out.is_empty() {
        return Err(Error::codec(LZ4, "blocks of no bytes"));
    }
    for block in out.chunks_mut((header.block_nbytes as usize).max(1)) {
        let bytes = take_block(LZ4, &mut rest)?;
        if bytes.len() == block.len() {
            block.copy_from_slice(bytes);
        } else {
            lz4::decode_raw_exact(bytes, block)?;
        }
    }
    finish(LZ4, rest)
}

/// Decodes `hdf5_bitshuffle` of exactly `out.len()` bytes.
///
/// # Errors
/// As [`decode_lz4`].
pub(crate) fn decode_bitshuffle(
    spec: &BitshuffleSpec,
    context: &mut CodecContext,
    encoded: &[u8],
    out: &mut [u8],
) -> Result<()> {
    let item = spec.elementsize;
    if item == 0 || !out.len().is_multiple_of(item) {
        return Err(Error::codec(BITSHUFFLE, format!("{} bytes are no whole elements of {item} bytes", out.len())));
    }
    let (block_nbytes, mut rest) = if spec.inner == BitshuffleInner::None {
        check_len(BITSHUFFLE, encoded.len(), out.len())?;
        let elements =
            if spec.blocksize == 0 { (BLOCK_NBYTES / item / GROUP * GROUP).max(MIN_BLOCK) } else { spec.blocksize };
        (elements.saturating_mul(item), encoded)
    } else {
        let (header, rest) = Header::take(BITSHUFFLE, encoded)?;
        check_len(BITSHUFFLE, header.nbytes(BITSHUFFLE)?, out.len())?;
        (header.block_nbytes as usize, rest)
    };
    // A number of bytes that has no effect is not looked at.
    let groups = out.len() / (item * GROUP);
    if groups > 0 && (block_nbytes == 0 || !block_nbytes.is_multiple_of(item.saturating_mul(GROUP))) {
        return Err(Error::codec(BITSHUFFLE, format!("blocks of {block_nbytes} bytes of elements of {item}")));
    }
    let (shuffled, left) = out.split_at_mut(groups * item * GROUP);
    let mut planes = std::mem::take(&mut context.block);
    let decoded = shuffled.chunks_mut(block_nbytes.max(1)).try_for_each(|block| -> Result<()> {
        let bytes = match spec.inner {
            BitshuffleInner::None => {
                let (bytes, after) = rest.split_at_checked(block.len()).ok_or_else(|| truncated(BITSHUFFLE))?;
                rest = after;
                bytes
            }
            inner => {
                let bytes = take_block(BITSHUFFLE, &mut rest)?;
                resize(&mut planes, block.len())?;
                match inner {
                    BitshuffleInner::Zstd => context.zstd.decode_exact(bytes, &mut planes)?,
                    _ => lz4::decode_raw_exact(bytes, &mut planes)?,
                }
                &planes
            }
        };
        shuffle::bit_unshuffle(item, bytes, &mut context.tile, block);
        Ok(())
    });
    context.block = planes;
    decoded?;
    let (bytes, after) = rest.split_at_checked(left.len()).ok_or_else(|| truncated(BITSHUFFLE))?;
    left.copy_from_slice(bytes);
    finish(BITSHUFFLE, after)
}

/// Decodes, with `decode`, at most `limit` bytes into `out`, which is emptied first. `encoded` begins with their number, or
/// is as many when `is_framed` is false.
///
/// # Errors
/// As [`decode_lz4`]; `Codec` when there are more than `limit` bytes, `Limit` when memory is short.
pub(crate) fn decode_bounded(
    codec: &'static str,
    is_framed: bool,
    encoded: &[u8],
    limit: u64,
    out: &mut Vec<u8>,
    decode: impl FnOnce(&mut [u8]) -> Result<()>,
) -> Result<()> {
    let nbytes = if is_framed { Header::take(codec, encoded)?.0.nbytes(codec)? } else { encoded.len() };
    if nbytes as u64 > limit {
        return Err(Error::codec(codec, format!("claims {nbytes} bytes, at most {limit} are possible")));
    }
    out.clear();
    resize(out, nbytes)?;
    decode(out)
}

struct Header {
    nbytes: u64,
    block_nbytes: u32,
}

impl Header {
    fn take<'a>(codec: &'static str, encoded: &'a [u8]) -> Result<(Self, &'a [u8])> {
        let (nbytes, rest) = encoded.split_first_chunk().ok_or_else(|| truncated(codec))?;
        let (block_nbytes, rest) = rest.split_first_chunk().ok_or_else(|| truncated(codec))?;
        Ok((Self { nbytes: u64::from_be_bytes(*nbytes), block_nbytes: u32::from_be_bytes(*block_nbytes) }, rest))
    }

    fn nbytes(&self, codec: &'static str) -> Result<usize> {
        usize::try_from(self.nbytes).map_err(|_| Error::codec(codec, format!("claims {} bytes", self.nbytes)))
    }
}

/// Takes a block and its size off the front of `rest`.
fn take_block<'a>(codec: &'static str, rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let (nbytes, after) = rest.split_first_chunk().ok_or_else(|| truncated(codec))?;
    let (block, after) =
        after.split_at_checked(u32::from_be_bytes(*nbytes) as usize).ok_or_else(|| truncated(codec))?;
    *rest = after;
    Ok(block)
}

fn finish(codec: &'static str, rest: &[u8]) -> Result<()> {
    match rest.len() {
        0 => Ok(()),
        extra => Err(Error::codec(codec, format!("{extra} bytes after the last block"))),
    }
}

fn truncated(codec: &'static str) -> Error {
    Error::codec(codec, "the blocks are truncated")
}
