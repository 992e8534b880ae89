//! [`ArrayMeta`] -> [`PreparedArray`]: an array with its codec lists made ready to decode and encode.

use std::hash::{Hash, Hasher};
use std::ops::Deref;

use super::{CodecChain, MAX_COMPRESSORS};
use crate::error::Result;
use crate::metadata::limits::{MAX_CHUNK_NBYTES, max_encoded_nbytes};
use crate::metadata::{ArrayMeta, ChunkForm};

/// An array and its prepared codecs; what the layers above hold. It can be used like its [`ArrayMeta`].
#[derive(Debug)]
pub struct PreparedArray {
    meta: ArrayMeta,
    chain: CodecChain,
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
        let chain = CodecChain::new(&meta.chunk_codecs, meta.endian, &meta.dtype, meta.chunk_nbytes)?;
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
        format!("{:?}", (&meta.dtype, meta.endian, &meta.chunk_codecs, meta.chunk_form)).hash(&mut hasher);
        if let ChunkForm::Volume(_) = meta.chunk_form {
            // Chunks end where the array does.
            meta.shape.hash(&mut hasher);
        }
        Ok(Self { chain, outer: outer.collect::<Result<_>>()?, layout_hash, chunk_hash: hasher.finish(), meta })
    }

    /// The codecs of a chunk: encoded bytes -> elements in native byte order, C order of the stored axes.
    #[must_use]
    pub fn chain(&self) -> &CodecChain {
        &self.chain
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
