//! One compressor of a chain -> the decoder or encoder that it has.

use super::blosc::BloscChunk;
use super::deflate::Container;
use super::sink::{check_len, resize};
use super::{
    CodecContext, b2nd, brotli, bz2, foreign, hdf5, lz4, lz4_java, lzf, lzma_alone, scale_offset, shuffle, xz,
};
use crate::error::{Error, Result};
use crate::metadata::{BitshuffleInner, CodecSpec};

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
        CodecSpec::Lz4 => lz4::decode_until(encoded, out.len(), out),
        CodecSpec::B2nd(spec) => b2nd::decode_window(context, spec, encoded, &(0..out.len()), out),
        CodecSpec::Lz4Block => lz4::decode_raw_exact(encoded, out),
        CodecSpec::Bz2 { .. } => bz2::decode_exact(encoded, out),
        CodecSpec::Lz4Java => lz4_java::decode_exact(encoded, out),
        CodecSpec::Xz => xz::decode_exact(encoded, out),
        CodecSpec::LzmaAlone => lzma_alone::decode_exact(encoded, out),
        CodecSpec::Shuffle { elementsize } => {
            check_len("shuffle", encoded.len(), out.len())?;
            shuffle::unshuffle(*elementsize, encoded, out);
            Ok(())
        }
        CodecSpec::Hdf5Lzf => lzf::decode_exact(encoded, out),
        CodecSpec::Hdf5Lz4 => hdf5::decode_lz4(encoded, out),
        CodecSpec::Hdf5Bitshuffle(spec) => hdf5::decode_bitshuffle(spec, context, encoded, out),
        CodecSpec::Foreign(codec) => foreign::decode_exact(codec, encoded, out),
        CodecSpec::Brotli => brotli::decode_exact(encoded, out),
        CodecSpec::Hdf5ScaleOffset(spec) => scale_offset::decode_exact(spec, encoded, out),
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
        CodecSpec::B2nd(spec) if spec.chunk_nbytes() as u64 <= limit => {
            resize(out, spec.chunk_nbytes())?;
            b2nd::decode_window(context, spec, encoded, &(0..out.len()), out)
        }
        CodecSpec::Lz4 => lz4::decode_bounded(encoded, limit, out),
        CodecSpec::Bz2 { .. } => bz2::decode_bounded(encoded, limit, out),
        CodecSpec::Lz4Java => lz4_java::decode_bounded(encoded, limit, out),
        CodecSpec::Xz => xz::decode_bounded(encoded, limit, out),
        CodecSpec::LzmaAlone => lzma_alone::decode_bounded(encoded, limit, out),
        CodecSpec::Hdf5Lzf => lzf::decode_bounded(encoded, limit, out),
        CodecSpec::Hdf5ScaleOffset(spec) => scale_offset::decode_bounded(spec, encoded, limit, out),
        CodecSpec::Shuffle { .. } | CodecSpec::Hdf5Lz4 | CodecSpec::Hdf5Bitshuffle(_) => {
            let (name, is_framed) = match codec {
                CodecSpec::Hdf5Bitshuffle(spec) => ("hdf5_bitshuffle", spec.inner != BitshuffleInner::None),
                CodecSpec::Hdf5Lz4 => ("hdf5_lz4", true),
                _ => ("shuffle", false),
            };
            hdf5::decode_bounded(name, is_framed, encoded, limit, out, |out| decode_exact(context, codec, encoded, out))
        }
        CodecSpec::Foreign(codec) => foreign::decode_bounded(codec, encoded, limit, out),
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
        CodecSpec::Lz4 => lz4::encode(decoded, out),
        CodecSpec::Bz2 { level } => bz2::encode(decoded, *level, out),
        _ => Err(Error::unsupported(format!("writing the {} codec", codec.name()), "write zstd instead")),
    }
}

fn not_a_compressor(codec: &CodecSpec) -> Error {
    Error::internal(format!("{} among the compressors of a chain", codec.name()))
}
