//! Chunks of formats in which stored bytes are more than encoded elements: a header in front, an image, or less than a
//! whole chunk at the array's end. They come out as every other chunk: full size, elements in native byte order.

use std::ops::Range;

use super::sink::resize;
use super::{
    CodecChain, CodecContext, PreparedArray, Verify, compressed_segmentation, compresso, elements, image, n5_block,
};
use crate::error::{Error, Result};
use crate::metadata::limits::{MAX_CHUNK_NBYTES, max_encoded_nbytes};
use crate::metadata::precomputed::Encoding;
use crate::metadata::{ChunkForm, CodecSpec};
use crate::subset::product;

/// Bytes of the longest header of an N5 block.
const MAX_HEADER_NBYTES: u64 = 4 + 4 * crate::subset::MAX_RANK as u64 + 4;

/// A compression of whole objects that the end of their names tells.
#[derive(Debug)]
pub struct Compression {
    /// The end of the name.
    pub suffix: &'static str,
    codec: CodecSpec,
}

/// Those of cloud-files, in its order of looking for them (`EXT_TEST_SEQUENCE`).
static COMPRESSIONS: &[Compression] = &[
    Compression { suffix: ".gz", codec: CodecSpec::Gzip { level: -1 } },
    Compression { suffix: ".br", codec: CodecSpec::Brotli },
    Compression { suffix: ".zstd", codec: CodecSpec::Zstd { level: 0, checksum: false } },
    Compression { suffix: ".xz", codec: CodecSpec::Xz },
    Compression { suffix: ".bz2", codec: CodecSpec::Bz2 { level: 9 } },
];

impl PreparedArray {
    /// True when any part of a stored chunk of full size can be used without the rest.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.has_only_elements() && !self.has_masks() && self.chain().is_plain()
    }

    /// True when any part of the stored chunk in cell `cell` of the grid of stored objects can be used without the rest.
    #[must_use]
    pub fn is_plain_in(&self, cell: &[u64]) -> bool {
        self.is_plain() && (self.chunk_form == ChunkForm::Elements || self.stored_extent(cell) == self.chunk_shape)
    }

    /// True when the stored chunk is its elements, encoded by the chain.
    fn has_only_elements(&self) -> bool {
        let is_plain =
            matches!(self.chunk_form, ChunkForm::Elements | ChunkForm::Clipped | ChunkForm::Volume(Encoding::Raw));
        is_plain && self.elements().is_empty()
    }

    /// True when each stored chunk is its elements, encoded by the one chain.
    fn is_chain(&self) -> bool {
        let is_plain = matches!(self.chunk_form, ChunkForm::Elements | ChunkForm::Cell);
        is_plain && self.elements().is_empty() && !self.has_masks()
    }

    /// True when decoding a part of a chunk may take less than decoding all of it.
    #[must_use]
    pub fn has_parts(&self) -> bool {
        self.is_chain() && self.chain().has_parts()
    }

    /// True when a stored chunk is a Blosc chunk and nothing else, see [`CodecChain::has_blocks`](super::CodecChain::has_blocks).
    #[must_use]
    pub fn has_blocks(&self) -> bool {
        self.is_chain() && self.chain().has_blocks()
    }

    /// True when a stored chunk is cut into boxes and nothing else, see [`CodecChain::decode_box`](super::CodecChain::decode_box).
    #[must_use]
    pub fn has_boxes(&self) -> bool {
        self.chunk_form == ChunkForm::Elements && self.is_chain() && self.chain().has_boxes()
    }

    /// The most bytes that a stored chunk may have.
    #[must_use]
    pub fn max_chunk_nbytes(&self) -> u64 {
        let nbytes = self.chain().max_encoded_nbytes();
        match self.chunk_form {
            ChunkForm::Elements | ChunkForm::Cell | ChunkForm::Clipped | ChunkForm::Volume(Encoding::Raw) => nbytes,
            ChunkForm::N5Block => nbytes.saturating_add(MAX_HEADER_NBYTES),
            ChunkForm::Volume(_) => max_encoded_nbytes(nbytes),
        }
    }

    /// How its objects may be compressed as a whole on disk, where their names say so.
    #[must_use]
    pub fn compressions(&self) -> &'static [Compression] {
        if matches!(self.chunk_form, ChunkForm::Volume(_)) && self.levels.is_empty() { COMPRESSIONS } else { &[] }
    }

    /// A stored object without what it is compressed with as a whole.
    ///
    /// # Errors
    /// `Codec` when the bytes are refused, or are more than a chunk can have.
    pub fn decompressed(
        &self,
        context: &mut CodecContext,
        compression: &Compression,
        encoded: &[u8],
    ) -> Result<Vec<u8>> {
        let limit = self.max_chunk_nbytes();
        CodecChain::outer(std::slice::from_ref(&compression.codec))?.decode_to_vec(
            context,
            encoded,
            Verify::Full,
            limit,
        )
    }

    /// Voxels along each axis that are stored of the chunk in cell `cell` of the grid of stored objects.
    fn stored_extent(&self, cell: &[u64]) -> Vec<u64> {
        let axes = self.shape.iter().zip(&self.chunk_shape).zip(self.shard_grid.iter().zip(cell));
        axes.map(|((&shape, &chunk), (grid, &cell))| chunk.min(shape.saturating_sub(grid.start(cell)))).collect()
    }

    /// The elements where they lie inside `encoded`, as [`CodecChain::view`](super::CodecChain::view) finds them. `cell` is
    /// the cell of the stored object.
    ///
    /// # Errors
    /// As `CodecChain::view`.
    pub fn view<'a>(&self, encoded: &'a [u8], verify: Verify, cell: &[u64]) -> Result<Option<&'a [u8]>> {
        let is_whole = match self.chunk_form {
            ChunkForm::Elements => self.elements().is_empty(),
            ChunkForm::Cell => self.elements().is_empty() && *self.chunk_box(cell).extent == self.chunk_shape,
            ChunkForm::Clipped | ChunkForm::Volume(Encoding::Raw) => self.stored_extent(cell) == self.chunk_shape,
            ChunkForm::N5Block | ChunkForm::Volume(_) => false,
        };
        if is_whole { self.chain_of(cell)?.view(encoded, verify) } else { Ok(None) }
    }

    /// Decodes at least the bytes `window` of a chunk as [`CodecChain::decode_window`](super::CodecChain::decode_window) does.
    /// `cell` is the cell of the stored object, and `out` as long as its chunks are (see `ArrayMeta::chunk_box`).
    ///
    /// # Errors
    /// As `CodecChain::decode_window`.
    pub fn decode_window(
        &self,
        context: &mut CodecContext,
        encoded: &[u8],
        verify: Verify,
        cell: &[u64],
        window: Range<usize>,
        out: &mut [u8],
    ) -> Result<()> {
        match self.chunk_form {
            ChunkForm::Elements if self.elements().is_empty() => {
                self.chain_of(cell)?.decode_window(context, encoded, verify, window, out)
            }
            ChunkForm::Cell if self.elements().is_empty() => {
                self.chain().decode_any(context, encoded, verify, window, out)
            }
            ChunkForm::Elements | ChunkForm::Cell => self.decode_elements(context, encoded, verify, cell, out),
            ChunkForm::Clipped => {
                let voxels: u64 = self.stored_extent(cell).iter().product();
                let nbytes = voxels as usize * self.dtype.item_size();
                let (inside, outside) = out.split_at_mut(nbytes.min(out.len()));
                outside.fill(0);
                self.chain_of(cell)?.decode_any(context, encoded, verify, 0..inside.len(), inside)
            }
            ChunkForm::N5Block => self.decode_n5_block(context, encoded, verify, out),
            ChunkForm::Volume(encoding) => {
                let extent = self.stored_extent(cell);
                self.unfolded(&extent, out, |out| self.decode_volume(context, encoded, verify, encoding, &extent, out))
            }
        }
    }

    /// A chunk whose stored elements are others.
    fn decode_elements(
        &self,
        context: &mut CodecContext,
        encoded: &[u8],
        verify: Verify,
        cell: &[u64],
        out: &mut [u8],
    ) -> Result<()> {
        let chain = self.chain_of(cell)?;
        let (_, nbytes) = self.stored(out.len());
        let mut stored = std::mem::take(&mut context.stored);
        let all = 0..nbytes as usize;
        let decoded = resize(&mut stored, all.end)
            .and_then(|()| chain.decode_any(context, encoded, verify, all, &mut stored))
            .and_then(|()| elements::decode(self.elements(), &stored, out));
        context.stored = stored;
        decoded
    }

    /// An N5 block: a header that tells its own extent, then its elements, x fastest (N5 specification 4.0, "File system").
    fn decode_n5_block(
        &self,
        context: &mut CodecContext,
        encoded: &[u8],
        verify: Verify,
        out: &mut [u8],
    ) -> Result<()> {
        let header = n5_block::parse(encoded, self.rank())?;
        let encoded = encoded.get(header.nbytes..).unwrap_or(&[]);
        let extent: Vec<u64> = header.extent().iter().map(|&extent| extent as u64).collect();
        self.unfolded(&extent, out, |out| {
            let all = 0..out.len();
            self.chain().decode_any(context, encoded, verify, all, out)
        })
    }

    /// A chunk of a Neuroglancer precomputed volume (`volume.rst`, "Chunk encoding").
    fn decode_volume(
        &self,
        context: &mut CodecContext,
        encoded: &[u8],
        verify: Verify,
        encoding: Encoding,
        extent: &[u64],
        out: &mut [u8],
    ) -> Result<()> {
        if matches!(encoding, Encoding::Raw) {
            let all = 0..out.len();
            return self.chain().decode_any(context, encoded, verify, all, out);
        }
        let undone;
        let encoded = if self.chunk_codecs.is_empty() {
            encoded
        } else {
            let limit = max_encoded_nbytes(self.chunk_nbytes as u64);
            undone = CodecChain::outer(&self.chunk_codecs)?.decode_to_vec(context, encoded, verify, limit)?;
            &undone
        };
        let mut voxels = [1usize; 4];
        voxels.iter_mut().zip(extent).for_each(|(to, &from)| *to = from as usize);
        let item_size = self.dtype.item_size();
        match encoding {
            Encoding::Raw => Ok(()),
            Encoding::Jpeg => image::jpeg::decode(encoded, voxels, out),
            Encoding::Png => image::png::decode(encoded, voxels, item_size, out),
            Encoding::CompressedSegmentation { block_size } => {
                let block = block_size.map(|extent| extent as usize);
                compressed_segmentation::decode(encoded, voxels, block, item_size, out)
            }
            Encoding::Compresso => compresso::decode(encoded, voxels, item_size, out),
        }
    }

    /// Decodes a block of `extent` voxels into a chunk: straight if it has the chunk's extent, else by way of memory of
    /// its own, clipped where it is larger and with zeros where it is smaller.
    fn unfolded(&self, extent: &[u64], out: &mut [u8], decode: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
        if extent == self.chunk_shape {
            return decode(out);
        }
        let item_size = self.dtype.item_size();
        let nbytes = product(extent).and_then(|voxels| voxels.checked_mul(item_size as u64));
        // A block may be larger than the chunks of its array, which clips it.
        let limit = max_encoded_nbytes(self.chunk_nbytes as u64).min(MAX_CHUNK_NBYTES);
        let nbytes = match nbytes {
            Some(nbytes) if nbytes <= limit => nbytes as usize,
            nbytes => return Err(Error::limit("bytes of a decoded block", nbytes.unwrap_or(u64::MAX), limit)),
        };
        let mut block = Vec::new();
        block
            .try_reserve_exact(nbytes)
            .map_err(|_| Error::limit("memory for a decoded block", nbytes as u64, limit))?;
        block.resize(nbytes, 0);
        decode(&mut block)?;
        let lengths = |extents: &[u64]| extents.iter().map(|&extent| extent as usize).collect::<Vec<_>>();
        n5_block::unfold(&block, &lengths(extent), &lengths(&self.chunk_shape), item_size, out);
        Ok(())
    }
}
