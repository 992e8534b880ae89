//! One compressor of a chain -> the decoder or encoder that it has.

use super::blosc::BloscChunk;
use super::deflate::Container;
use super::sink::resize;
use super::{CodecContext, brotli, bz2, lz4, lz4_java, xz};
use crate::error::{Error, Result};
use crate::metadata::CodecSpec;

/// Fills `out` with decoded bytes.
pub(super) fn decode_exact(
    context: &mut CodecContext,
    codec: &CodecSpec,
    encoded: &[u8],
    out: &mut [u8],
) -> Result<()> {
    match codec {
        CodecSpec::Zstd { .. } => context.zstd.decode_exact(encoded, out),
        CodecSpec::Gzip { .. } => context.deflate.decode_exact(Container::Gzip, encoded, out),
        CodecSpec::Zlib { .. } => context.deflate.decode_exact(Container::Zlib, encoded, out),
        CodecSpec::Blosc(_) => BloscChunk::parse(encoded)?.decode(context, out),
        CodecSpec::Lz4 => lz4::decode_exact(encoded, out),
        CodecSpec::Lz4Block => lz4::decode_raw_exact(encoded, out),
        CodecSpec::Bz2 { .. } => bz2::decode_exact(encoded, out),
        CodecSpec::Lz4Java => lz4_java::decode_exact(encoded, out),
        CodecSpec::Xz => xz::decode_exact(encoded, out),
        CodecSpec::Brotli => brotli::decode_exact(encoded, out),
        _ => Err(not_a_compressor(codec)),
    }
}

/// Replaces `out` by at most `limit` decoded bytes.
pub(super) fn decode_bounded(
    context: &mut CodecContext,
    codec: &CodecSpec,
    encoded: &[u8],
    limit: u64,
    out: &mut Vec<u8>,
) -> Result<()> {
    match codec {
        CodecSpec::Zstd { .. } => context.zstd.decode_bounded(encoded, limit, out),
        CodecSpec::Gzip { .. } => context.deflate.decode_bounded(Container::Gzip, encoded, limit, out),
        CodecSpec::Zlib { .. } => context.deflate.decode_bounded(Container::Zlib, encoded, limit, out),
        CodecSpec::Blosc(_) => {
            let chunk = BloscChunk::parse(encoded)?;
            if chunk.nbytes() as u64 > limit {
                return Err(Error::codec(
                    "blosc",
                    format!("nbytes is {}, at most {limit} are possible", chunk.nbytes()),
                ));
            }
            resize(out, chunk.nbytes())?;
            chunk.decode(context, out)
        }
        CodecSpec::Lz4 => lz4::decode_bounded(encoded, limit, out),
        CodecSpec::Bz2 { .. } => bz2::decode_bounded(encoded, limit, out),
        CodecSpec::Lz4Java => lz4_java::decode_bounded(encoded, limit, out),
        CodecSpec::Xz => xz::decode_bounded(encoded, limit, out),
        CodecSpec::Brotli => brotli::decode_bounded(encoded, limit, out),
        _ => Err(not_a_compressor(codec)),
    }
}

/// Replaces `out` by the encoded bytes.
pub(super) fn encode_one(
    context: &mut CodecContext,
    codec: &CodecSpec,
    decoded: &[u8],
    out: &mut Vec<u8>,
) -> Result<()> {
    match codec {
        CodecSpec::Zstd { level, checksum } => context.zstd.encode(decoded, *level, *checksum, out),
        CodecSpec::Gzip { level } => context.deflate.encode(Container::Gzip, decoded, *level, out),
        CodecSpec::Zlib { level } => context.deflate.encode(Container::Zlib, decoded, *level, out),
        CodecSpec::Blosc(_) => Err(Error::unsupported("writing the blosc codec", "write zstd instead")),
        CodecSpec::Lz4 => lz4::encode(decoded, out),
        CodecSpec::Bz2 { level } => bz2::encode(decoded, *level, out),
        _ => Err(not_a_compressor(codec)),
    }
}

fn not_a_compressor(codec: &CodecSpec) -> Error {
    Error::internal(format!("{} among the compressors of a chain", codec.name()))
}
