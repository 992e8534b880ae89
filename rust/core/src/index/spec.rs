//! What can be done with an index of any kind: find it, decode it.

use super::{ShardIndex, precomputed, sharding_indexed, wkw};
use crate::codec::{CodecChain, CodecContext, Verify};
use crate::error::{Error, Result};
use crate::metadata::limits::MAX_INDEX_NBYTES;
use crate::metadata::{ChunkTable, CodecSpec, IndexSpec};
use crate::subset::ByteRange;

impl IndexSpec {
    /// Where the index of the shard at `shard` lies in its object; None for one that follows from the metadata.
    ///
    /// # Errors
    /// `ShardIndex` when the shard is too small to hold its index, `Limit` when that is too large.
    pub fn range(&self, shard: ByteRange) -> Result<Option<ByteRange>> {
        match self {
            Self::ShardingIndexed(layout) => {
                let within = sharding_indexed::index_range(layout, shard.len())?;
                Ok(Some(ByteRange { start: shard.start + within.start, end: shard.start + within.end }))
            }
            Self::WkwRaw(_) | Self::WkwTable(_) | Self::Table(_) => Ok(None),
            Self::PrecomputedMinishard(_) if shard.len() > MAX_INDEX_NBYTES => {
                Err(Error::limit("bytes of a minishard index", shard.len(), MAX_INDEX_NBYTES))
            }
            Self::WkwSlice(_) | Self::PrecomputedMinishard(_) => Ok(Some(shard)),
            Self::PrecomputedShard(sharding) => {
                let nbytes = sharding.index_nbytes();
                if shard.len() < nbytes {
                    let what = format!("{} bytes are too few for a shard: its index takes {nbytes}", shard.len());
                    return Err(Error::shard_index(format!("{what}; the object is truncated")));
                }
                Ok(Some(ByteRange { start: shard.start, end: shard.start + nbytes }))
            }
        }
    }

    /// The index that follows from the metadata, for an object of `object_nbytes` bytes; None for one that is read.
    #[must_use]
    pub fn known(&self, object_nbytes: u64) -> Option<ShardIndex> {
        match self {
            Self::WkwRaw(file) => Some(wkw::raw(file, object_nbytes)),
            Self::WkwTable(file) => Some(wkw::slices(file, object_nbytes)),
            Self::Table(table) => Some(ShardIndex::of_table(table, object_nbytes)),
            _ => None,
        }
    }

    /// True where an object without a byte is a shard in which nothing is stored: writers of precomputed volumes leave
    /// such objects. Of any other kind it is one that was cut off.
    #[must_use]
    pub fn may_be_of_nothing(&self) -> bool {
        matches!(self, Self::PrecomputedShard(_))
    }

    /// Checks what the size of an object tells of its layout, where its index does not.
    ///
    /// # Errors
    /// `ShardIndex` when it is not an object of this kind, `ObjectChanged` when it is not the one that a table is of.
    pub fn check_object(&self, object_nbytes: u64) -> Result<()> {
        match self {
            Self::WkwRaw(file) => wkw::check_nbytes(file, false, object_nbytes),
            Self::WkwTable(file) => wkw::check_nbytes(file, true, object_nbytes),
            Self::Table(table) if table.object_nbytes().is_some_and(|expected| expected != object_nbytes) => {
                Err(ChunkTable::changed())
            }
            _ => Ok(()),
        }
    }

    /// Decodes the index of the shard at `shard` of an object of `object_nbytes` bytes. `encoded` are the bytes of
    /// [`IndexSpec::range`], `grid` the entries along each axis.
    ///
    /// # Errors
    /// `ShardIndex` when sizes do not fit, `Checksum` when a checksum differs, `Limit` when memory is short.
    pub fn decode(&self, grid: &[u64], encoded: &[u8], shard: ByteRange, object_nbytes: u64) -> Result<ShardIndex> {
        match self {
            Self::ShardingIndexed(layout) => sharding_indexed::decode(layout, grid, encoded, shard.len()),
            Self::WkwSlice(file) => wkw::decode_slice(file, encoded, shard, object_nbytes),
            Self::PrecomputedShard(_) => {
                let pairs = precomputed::decode_shard_index(encoded, Some(object_nbytes))?;
                let count = pairs.len() as u64;
                ShardIndex::from_pairs(
                    pairs,
                    &[count],
                    object_nbytes,
                    ByteRange { start: 0, end: encoded.len() as u64 },
                )
            }
            Self::PrecomputedMinishard(sharding) => {
                let undone;
                let encoded = if sharding.minishard_index_gzip {
                    let gzip = CodecChain::outer(&[CodecSpec::Gzip { level: -1 }])?;
                    let context = &mut CodecContext::default();
                    undone = gzip.decode_to_vec(context, encoded, Verify::Full, MAX_INDEX_NBYTES)?;
                    &undone
                } else {
                    encoded
                };
                let minishard = precomputed::decode_minishard(encoded, sharding.index_nbytes(), object_nbytes)?;
                Ok(ShardIndex::of_minishard(minishard))
            }
            Self::WkwRaw(_) | Self::WkwTable(_) | Self::Table(_) => {
                Err(Error::internal("an index that is known was read"))
            }
        }
    }
}
