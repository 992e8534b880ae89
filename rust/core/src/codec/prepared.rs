//! [`ArrayMeta`] -> [`PreparedArray`]: an array with its codec lists made ready to decode and encode.

use std::ops::Deref;

use super::CodecChain;
use crate::error::Result;
use crate::metadata::ArrayMeta;
use crate::metadata::limits::{MAX_CHUNK_NBYTES, max_encoded_nbytes};

/// An array and its prepared codecs; what the layers above hold. It can be used like its [`ArrayMeta`].
#[derive(Debug)]
pub struct PreparedArray {
    meta: ArrayMeta,
    chain: CodecChain,
    /// One entry per shard level.
    outer: Vec<Option<CodecChain>>,
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
        Ok(Self { chain, outer: outer.collect::<Result<_>>()?, meta })
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

    /// The most bytes a shard of `level` may have before its outer codecs, capped: its index and all its entries, and as
    /// much again and 64 KiB for bytes between them, which belong to none and are legal.
    #[must_use]
    pub fn max_shard_nbytes(&self, level: usize) -> u64 {
        let nbytes = self
            .levels
            .get(level..)
            .unwrap_or(&[])
            .iter()
            .rev()
            .fold(self.chain.max_encoded_nbytes(), |entry, spec| {
                max_encoded_nbytes(entry.saturating_mul(spec.index.entries).saturating_add(spec.index.nbytes))
            });
        nbytes.min(MAX_CHUNK_NBYTES)
    }
}

impl Deref for PreparedArray {
    type Target = ArrayMeta;

    fn deref(&self) -> &ArrayMeta {
        &self.meta
    }
}
