//! Decoders that no array has yet, for the fuzz targets only.

use super::{brotli, compressed_segmentation, compresso, elements, image, lz4_java, xz};
use crate::error::Result;
use crate::metadata::ElementCodec;

/// See [`compressed_segmentation::decode`].
pub fn compressed_segmentation(
    encoded: &[u8],
    extent: [usize; 4],
    block: [usize; 3],
    item_size: usize,
    out: &mut [u8],
) -> Result<()> {
    compressed_segmentation::decode(encoded, extent, block, item_size, out)
}

/// See [`compresso::decode`].
pub fn compresso(encoded: &[u8], extent: [usize; 4], item_size: usize, out: &mut [u8]) -> Result<()> {
    compresso::decode(encoded, extent, item_size, out)
}

/// See [`elements::decode`].
pub fn elements(codecs: &[ElementCodec], stored: &[u8], out: &mut [u8]) -> Result<()> {
    elements::decode(codecs, stored, out)
}

/// See [`image::jpeg::decode`].
pub fn jpeg(encoded: &[u8], extent: [usize; 4], out: &mut [u8]) -> Result<()> {
    image::jpeg::decode(encoded, extent, out)
}

/// See [`image::png::decode`].
pub fn png(encoded: &[u8], extent: [usize; 4], item_size: usize, out: &mut [u8]) -> Result<()> {
    image::png::decode(encoded, extent, item_size, out)
}

/// See [`lz4_java::decode_exact`].
pub fn lz4_java_exact(encoded: &[u8], out: &mut [u8]) -> Result<()> {
    lz4_java::decode_exact(encoded, out)
}

/// See [`lz4_java::decode_bounded`].
pub fn lz4_java_bounded(encoded: &[u8], limit: u64, out: &mut Vec<u8>) -> Result<()> {
    lz4_java::decode_bounded(encoded, limit, out)
}

/// See [`xz::decode_exact`].
pub fn xz_exact(encoded: &[u8], out: &mut [u8]) -> Result<()> {
    xz::decode_exact(encoded, out)
}

/// See [`xz::decode_bounded`].
pub fn xz_bounded(encoded: &[u8], limit: u64, out: &mut Vec<u8>) -> Result<()> {
    xz::decode_bounded(encoded, limit, out)
}

/// See [`brotli::decode_exact`].
pub fn brotli_exact(encoded: &[u8], out: &mut [u8]) -> Result<()> {
    brotli::decode_exact(encoded, out)
}

/// See [`brotli::decode_bounded`].
pub fn brotli_bounded(encoded: &[u8], limit: u64, out: &mut Vec<u8>) -> Result<()> {
    brotli::decode_bounded(encoded, limit, out)
}
