//! How the index of a shard is stored; what it says is decoded by [`index`](crate::index).

use std::sync::Arc;

use super::ChunkTable;
use super::uint64_sharding::Sharding;
use super::{ChecksumSpec, IndexLocation};
use crate::dtype::Endian;

/// How the index of a shard is found and read. A level of nesting in a stored object has one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexSpec {
    /// Zarr v3 `sharding_indexed`: (offset, nbytes) of each entry, relative to the shard.
    ShardingIndexed(IndexLayout),
    /// WKW without compression: nothing is stored, blocks of one size lie in Morton order.
    WkwRaw(WkwFile),
    /// WKW with compression: nothing is stored, its entries are the slices of the file's jump table.
    WkwTable(WkwFile),
    /// A slice of that jump table; its entries are blocks, anywhere in the file.
    WkwSlice(WkwFile),
    /// Precomputed: the index with which a shard begins; its entries are the indexes of minishards.
    PrecomputedShard(Sharding),
    /// Precomputed: the index of a minishard; its entries are chunks, anywhere in the file, by their ids.
    PrecomputedMinishard(Sharding),
    /// Nothing is stored: the metadata says where each chunk lies.
    Table(Arc<ChunkTable>),
}

/// Place and layout of a shard's index: u64 pairs (offset, nbytes) with fixed total size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexLayout {
    /// End of the shard at which it lies.
    pub location: IndexLocation,
    /// Byte order of its integers.
    pub endian: Endian,
    /// Number of entries.
    pub entries: u64,
    /// Position (in u64 words) of an entry's offset is the sum of `coordinate[k] * strides[k]` over the array's axes.
    pub strides: Vec<u64>,
    /// Words from an entry's offset to its nbytes.
    pub pair_stride: u64,
    /// Checksums around the words, in encoding order, each of all bytes inside it.
    pub checksums: Vec<ChecksumSpec>,
    /// Bytes in all: 16 an entry and 4 a checksum.
    pub nbytes: u64,
}

/// Geometry of a WKW file (webknossos-wrap, "File format").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WkwFile {
    /// The file holds `2^blocks_log2` blocks along each of its three axes.
    pub blocks_log2: u32,
    /// A slice of the jump table concerns `2^slice_log2` blocks along each axis.
    pub slice_log2: u32,
    /// Bytes of a decoded block.
    pub block_nbytes: u64,
    /// Bytes before the first block: the header and, with compression, the jump table.
    pub data_offset: u64,
}

impl IndexLayout {
    /// The layout of words that lie along `axes`, the slowest first, of which the one past those of `grid` is (offset,
    /// nbytes): strides of the others, stride of that.
    pub(super) fn strides_along(axes: &[usize], grid: &[u64]) -> (Vec<u64>, u64) {
        let (mut strides, mut pair_stride, mut stride) = (vec![1; grid.len()], 1, 1u64);
        for &axis in axes.iter().rev() {
            let extent = match (strides.get_mut(axis), grid.get(axis)) {
                (Some(slot), Some(&extent)) => {
                    *slot = stride;
                    extent
                }
                _ => {
                    pair_stride = stride;
                    2
                }
            };
            stride = stride.saturating_mul(extent); // At most twice the number of entries, which is bounded.
        }
        (strides, pair_stride)
    }

    /// The same layout for a shard with `grid` entries along each axis, no more than this one has.
    #[must_use]
    pub fn over(&self, grid: &[u64]) -> Self {
        let mut axes: Vec<usize> = (0..=grid.len()).collect();
        // Axes of one entry have the stride of another, but then their place does not matter.
        axes.sort_by_key(|&axis| std::cmp::Reverse(self.strides.get(axis).copied().unwrap_or(self.pair_stride)));
        let (strides, pair_stride) = Self::strides_along(&axes, grid);
        let entries = grid.iter().fold(1u64, |entries, &n| entries.saturating_mul(n)).min(self.entries);
        let nbytes = 16 * entries + 4 * self.checksums.len() as u64;
        Self { entries, strides, pair_stride, nbytes, ..self.clone() }
    }
}

impl WkwFile {
    /// Bytes of the header of a file.
    pub const HEADER_NBYTES: u64 = 16;

    /// Number of blocks in the file.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        1 << (3 * self.blocks_log2)
    }

    /// Number of blocks in a slice of the jump table.
    #[must_use]
    pub fn slice_blocks(&self) -> u64 {
        1 << (3 * self.slice_log2)
    }
}

impl IndexSpec {
    /// Number of entries.
    #[must_use]
    pub fn entries(&self) -> u64 {
        match self {
            Self::ShardingIndexed(layout) => layout.entries,
            Self::WkwRaw(file) => file.blocks(),
            Self::WkwTable(file) => file.blocks() / file.slice_blocks(),
            Self::WkwSlice(file) => file.slice_blocks(),
            Self::PrecomputedShard(sharding) => sharding.index_nbytes() / 16,
            // As many as the file says.
            Self::PrecomputedMinishard(_) => 1,
            Self::Table(table) => table.block().iter().product(),
        }
    }

    /// Bytes of the index as stored; 0 for one that follows from the metadata.
    #[must_use]
    pub fn nbytes(&self) -> u64 {
        match self {
            Self::ShardingIndexed(layout) => layout.nbytes,
            Self::WkwRaw(_) | Self::WkwTable(_) | Self::Table(_) => 0,
            // But for the first slice, one entry more.
            Self::WkwSlice(file) => 8 * (file.slice_blocks() + 1),
            Self::PrecomputedShard(sharding) => sharding.index_nbytes(),
            // As many as the file says; for one chunk.
            Self::PrecomputedMinishard(_) => 24,
        }
    }

    /// End of its shard at which the index lies.
    #[must_use]
    pub fn location(&self) -> IndexLocation {
        match self {
            Self::ShardingIndexed(layout) => layout.location,
            _ => IndexLocation::Start,
        }
    }

    /// True when the index follows from the metadata, so that nothing has to be read for it.
    #[must_use]
    pub fn is_known(&self) -> bool {
        matches!(self, Self::WkwRaw(_) | Self::WkwTable(_) | Self::Table(_))
    }

    /// True when entries are places in the stored object rather than in the shard that the index belongs to.
    #[must_use]
    pub fn is_absolute(&self) -> bool {
        matches!(self, Self::WkwSlice(_) | Self::PrecomputedMinishard(_))
    }
}
