//! [`ArrayMeta`] -> [`PreparedArray`]: an array with its codec lists made ready to decode and encode.

use std::hash::{Hash, Hasher};
use std::ops::Deref;

use super::{CodecChain, MAX_COMPRESSORS};
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::metadata::limits::{MAX_CHUNK_NBYTES, max_encoded_nbytes};
use crate::metadata::{ArrayMeta, ChunkForm, ChunkTable, CodecSpec, ElementCodec};

/// Different masks in a table of chunks, each of which takes a chain of its own.
const MAX_MASKS: usize = 64;

/// An array and its prepared codecs; what the layers above hold. It can be used like its [`ArrayMeta`].
#[derive(Debug)]
pub struct PreparedArray {
    meta: ArrayMeta,
    chain: CodecChain,
    /// Those of chunks that leave codecs out, by their masks.
    masked: Vec<(u32, CodecChain)>,
    /// The codecs that change elements, in encoding order.
    elements: Vec<ElementCodec>,
    /// One entry per shard level.
    outer: Vec<Option<CodecChain>>,
    layout_hash: u64,
    chunk_hash: u64,
}

impl PreparedArray {
    /// Prepares the codecs of an array.
    ///
    /// # Errors
    /// As [`CodecChain::new`].
    pub fn new(meta: ArrayMeta) -> Result<Self> {
        let (dtype, nbytes) = meta.stored(meta.chunk_nbytes);
        let chain_of = |codecs: &[CodecSpec]| CodecChain::new(codecs, meta.endian, dtype, nbytes as usize);
        let chain = chain_of(&meta.chunk_codecs)?;
        let masks = meta.table().map(ChunkTable::masks).unwrap_or_default();
        let most = MAX_MASKS as u64;
        if masks.len() > MAX_MASKS {
            return Err(Error::limit("different lists of codecs of chunks", masks.len() as u64, most));
        }
        let masked = masks.into_iter().map(|mask| {
            let is_used = |i: usize| i >= u32::BITS as usize || mask & (1 << i) == 0;
            let codecs = meta.chunk_codecs.iter().enumerate().filter(|(i, _)| is_used(*i));
            let codecs: Vec<CodecSpec> = codecs.map(|(_, codec)| codec.clone()).collect();
            Ok((mask, chain_of(&codecs)?))
        });
        let masked = masked.collect::<Result<_>>()?;
        let elements = meta.chunk_elements.iter().filter(|codec| !codec.is_identity()).cloned().collect();
        let outer = meta.levels.iter().map(|level| match level.outer.as_slice() {
            [] => Ok(None),
            specs => CodecChain::outer(specs).map(Some),
        });
        let mut hasher = std::hash::DefaultHasher::new();
        format!("{:?}", meta.levels).hash(&mut hasher);
        if meta.levels.is_empty() {
            (meta.chunk_nbytes, meta.chunk_form).hash(&mut hasher);
        }
        let layout_hash = hasher.finish();
        (&meta.chunk_shape, &meta.chunk_order, &meta.fill_value).hash(&mut hasher);
        format!("{:?}", (&meta.dtype, meta.endian, &meta.chunk_elements, &meta.chunk_codecs, meta.chunk_form))
            .hash(&mut hasher);
        if let ChunkForm::Volume(_) | ChunkForm::Clipped = meta.chunk_form {
            // Chunks end where the array does.
            meta.shape.hash(&mut hasher);
        }
        Ok(Self {
            chain,
            masked,
            elements,
            outer: outer.collect::<Result<_>>()?,
            layout_hash,
            chunk_hash: hasher.finish(),
            meta,
        })
    }

    /// A copy of what it was prepared from.
    #[must_use]
    pub fn unprepared(&self) -> ArrayMeta {
        self.meta.clone()
    }

    /// The codecs of a chunk: encoded bytes -> stored elements in native byte order, C order of the stored axes.
    #[must_use]
    pub fn chain(&self) -> &CodecChain {
        &self.chain
    }

    /// The codecs of the chunk in cell `cell` of the grid of stored objects, which may leave some out.
    ///
    /// # Errors
    /// `Internal` for a mask that the table did not announce.
    pub(super) fn chain_of(&self, cell: &[u64]) -> Result<&CodecChain> {
        let mask = if self.masked.is_empty() { 0 } else { self.meta.mask(cell) };
        if mask == 0 {
            return Ok(&self.chain);
        }
        let found = self.masked.iter().find(|(other, _)| *other == mask);
        found.map(|(_, chain)| chain).ok_or_else(|| Error::internal("a chunk with an unknown mask"))
    }

    /// True when some chunks leave codecs out.
    pub(super) fn has_masks(&self) -> bool {
        !self.masked.is_empty()
    }

    /// The codecs that make elements of stored ones, in encoding order; none in all usual arrays.
    pub(super) fn elements(&self) -> &[ElementCodec] {
        &self.elements
    }

    /// The codecs around the shards of `level` as a whole; None in all usual arrays.
    #[must_use]
    pub fn outer(&self, level: usize) -> Option<&CodecChain> {
        self.outer.get(level)?.as_ref()
    }

    /// Equal for arrays that have the index of the stored object in cell `cell` in the same place and form, or whose chunks
    /// there are of one size.
    #[must_use]
    pub fn layout_hash(&self, cell: &[u64]) -> u64 {
        self.hash_in(self.layout_hash, cell)
    }

    /// Equal for arrays that decode the same chunks from the stored object in cell `cell`: it covers all that leads from an
    /// object and the number of a chunk in it to elements.
    #[must_use]
    pub fn chunk_hash(&self, cell: &[u64]) -> u64 {
        self.hash_in(self.chunk_hash, cell)
    }

    /// With the extent of the cell where cells differ, as equal objects may be one file.
    fn hash_in(&self, hash: u64, cell: &[u64]) -> u64 {
        if !self.is_irregular() {
            return hash;
        }
        let mut hasher = std::hash::DefaultHasher::new();
        (hash, self.cell_extent(cell)).hash(&mut hasher);
        hasher.finish()
    }

    /// Whether decoded chunks mean the same to every read: numbers that stand for elements belong to one.
    #[must_use]
    pub fn has_lasting_chunks(&self) -> bool {
        !matches!(self.dtype, DataType::Object)
    }

    /// The most bytes a shard of `level` may have before its outer codecs, capped: its index and all its entries, and as
    /// much again and 64 KiB for bytes between them, which belong to none and are legal.
    #[must_use]
    pub fn max_shard_nbytes(&self, level: usize) -> u64 {
        let nbytes =
            self.levels.get(level..).unwrap_or(&[]).iter().rev().fold(self.max_chunk_nbytes(), |entry, spec| {
                max_encoded_nbytes(entry.saturating_mul(spec.index.entries()).saturating_add(spec.index.nbytes()))
            });
        nbytes.min(MAX_CHUNK_NBYTES)
    }

    /// The most bytes of a stored object that can only be read as a whole, because its codecs span all of it; None when
    /// it is a shard whose parts can be read alone.
    #[must_use]
    pub fn whole_object_limit(&self) -> Option<u64> {
        if self.levels.is_empty() {
            return Some(self.max_chunk_nbytes());
        }
        let compressors = (0..MAX_COMPRESSORS).fold(self.max_shard_nbytes(0), |nbytes, _| max_encoded_nbytes(nbytes));
        self.has_outer_codecs().then_some(compressors.min(MAX_CHUNK_NBYTES))
    }
}

impl Deref for PreparedArray {
    type Target = ArrayMeta;

    fn deref(&self) -> &ArrayMeta {
        &self.meta
    }
}

#[cfg(test)]
mod tests {
    use super::PreparedArray;
    use crate::metadata::limits::{MAX_CHUNK_NBYTES, max_encoded_nbytes};
    use crate::metadata::zarr::parse_v3;
    use crate::metadata::{ArrayMeta, IndexSpec};

    /// uint16 (1024, 8), shards of (256, 8) around shards of (4, 8) around chunks of (2, 2).
    fn array(chunk: &str, middle: &str, outer: &str) -> ArrayMeta {
        let shard = |shape: &str, codecs: &str, around: &str| {
            format!(
                r#"[{{"name": "sharding_indexed", "configuration": {{"chunk_shape": {shape}, "codecs": {codecs},
                    "index_codecs": [{{"name": "bytes", "configuration": {{"endian": "little"}}}}, "crc32c"]}}}}{around}]"#
            )
        };
        let chunk = format!(r#"[{{"name": "bytes", "configuration": {{"endian": "little"}}}}{chunk}]"#);
        let codecs = shard("[4, 8]", &shard("[2, 2]", &chunk, middle), outer);
        let document = format!(
            r#"{{"zarr_format": 3, "node_type": "array", "shape": [1024, 8], "data_type": "uint16", "fill_value": 0,
                "chunk_grid": {{"name": "regular", "configuration": {{"chunk_shape": [256, 8]}}}},
                "chunk_key_encoding": "default", "codecs": {codecs}}}"#
        );
        parse_v3(document.as_bytes()).unwrap()
    }

    #[test]
    fn each_level_has_its_own_codecs() {
        let array = PreparedArray::new(array(r#", "crc32c""#, "", r#", "gzip""#)).unwrap();
        assert_eq!(array.chain().decoded_nbytes(), array.chunk_nbytes);
        assert_eq!(array.chain().fixed_encoded_nbytes(), Some(8 + 4));
        assert!(array.outer(0).is_some() && array.outer(1).is_none() && array.outer(2).is_none());
        assert!(array.has_outer_codecs());
        // 8 chunks and their index; 64 such shards and theirs; each with room for bytes between.
        let inner = max_encoded_nbytes(8 * 12 + (8 * 16 + 4));
        assert_eq!(array.max_shard_nbytes(1), inner);
        assert_eq!(array.max_shard_nbytes(0), max_encoded_nbytes(64 * inner + (64 * 16 + 4)));
    }

    #[test]
    fn sizes_are_capped() {
        let mut meta = array(r#", "gzip""#, "", "");
        assert_eq!(
            PreparedArray::new(array(r#", "gzip""#, "", "")).unwrap().chain().max_encoded_nbytes(),
            max_encoded_nbytes(8)
        );
        let IndexSpec::ShardingIndexed(layout) = &mut meta.levels[0].index else { panic!("not a shard") };
        layout.entries = u64::MAX;
        assert_eq!(PreparedArray::new(meta).unwrap().max_shard_nbytes(0), MAX_CHUNK_NBYTES);
    }

    #[test]
    fn long_lists_are_refused_at_every_level() {
        let many = r#", "gzip", "gzip", "gzip", "gzip""#;
        for meta in [array(many, "", ""), array("", many, ""), array("", "", many)] {
            let error = PreparedArray::new(meta).unwrap_err();
            assert_eq!(error.to_string(), "compressors in one chain: needs 4, the limit is 3");
        }
    }
}
