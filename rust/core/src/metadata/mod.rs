//! Documents -> [`ArrayMeta`]: everything a read needs to know of an array, resolved and checked once.
//!
//! All per-axis lists are in the axis order of the array as its users see it. Transposes, wherever they stand in the
//! codec list, are folded into `order` lists here, so that no later layer moves data to honour them.

pub mod bossdb;
mod chunk_table;
pub mod codec_spec;
pub mod element_codec;
pub mod foreign;
mod grid;
mod index_spec;
mod json;
mod keys;
pub mod limits;
pub mod n5;
pub mod precomputed;
mod resolve;
pub mod uint64_sharding;
pub mod wkw;
pub mod zarr;

pub use chunk_table::{ChunkTable, Places, TableVersion};
pub use codec_spec::{
    B2ndSpec, BitshuffleInner, BitshuffleSpec, BloscShuffle, BloscSpec, ChecksumKind, ChecksumSpec, CodecList,
    CodecSpec, IndexLocation, ScaleOffsetSpec, ShardingSpec,
};
pub use element_codec::{BitPacking, CastSpec, ElementCodec, ElementStep, OutOfRange, PaddingByte, Rounding};
pub use grid::AxisGrid;
pub use index_spec::{IndexLayout, IndexSpec, WkwFile};
pub use keys::KeyEncoding;
pub use resolve::{Parsed, resolve};

use std::borrow::Cow;
use std::sync::Arc;

use crate::dtype::{DataType, Endian};
use crate::error::{Error, Result};
use crate::metadata::foreign::ForeignCodec;

/// An array, resolved.
#[derive(Debug, Clone)]
pub struct ArrayMeta {
    /// Extent of each axis in voxels.
    pub shape: Vec<u64>,
    /// Type of one voxel.
    pub dtype: DataType,
    /// One voxel of the fill value in native byte order; `dtype.item_size()` bytes.
    pub fill_value: Vec<u8>,
    /// Name of each axis where the document gives one.
    pub dimension_names: Vec<Option<String>>,
    /// Grid of stored objects (shards; chunks when unsharded), one entry an axis.
    pub shard_grid: Vec<AxisGrid>,
    /// Voxel of that grid which is the array's first, one entry an axis; zeros where the grid begins with the array.
    pub grid_origin: Vec<u64>,
    /// Coordinates of the first voxel as the users of the format count, one entry an axis.
    pub origin: Vec<i64>,
    /// Grid coordinates -> key of the stored object.
    pub keys: KeyEncoding,
    /// Shard levels from the stored object inwards, of the largest object where they differ; empty when the array is
    /// unsharded.
    pub levels: Vec<ShardLevel>,
    /// Extent of a chunk, the smallest unit that is decoded; the largest along each axis where they differ.
    pub chunk_shape: Vec<u64>,
    /// Stored axis `k` of a chunk is array axis `chunk_order[k]`.
    pub chunk_order: Vec<usize>,
    /// Bytes of one decoded chunk, at least 1; the most where they differ.
    pub chunk_nbytes: usize,
    /// Byte order of a chunk's stored elements, which are in C order of the stored axes.
    pub endian: Endian,
    /// How the elements lie in a chunk's bytes.
    pub chunk_form: ChunkForm,
    /// array -> array codecs of a chunk that change its elements, in encoding order; none in all usual arrays.
    pub chunk_elements: Vec<ElementCodec>,
    /// bytes -> bytes codecs of a chunk, in encoding order.
    pub chunk_codecs: Vec<CodecSpec>,
    /// The codecs of a stored object as declared, in encoding order.
    pub codecs: CodecList,
}

/// How the elements of a chunk lie in its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChunkForm {
    /// All of them, one after the other, in C order of the stored axes.
    Elements,
    /// Those of its voxels that lie inside the array, in C order of the stored axes: the beginning of a whole chunk.
    Clipped,
    /// The same, of as many as the chunk's own cell of an irregular grid has voxels.
    Cell,
    /// An N5 block: its own extent in front, then its elements.
    N5Block,
    /// A chunk of a Neuroglancer precomputed volume: of its voxels those inside the array, in this encoding.
    Volume(precomputed::Encoding),
}

/// One level of sharding: an object (or a chunk of the level above) that holds chunks of the next.
#[derive(Debug, Clone)]
pub struct ShardLevel {
    /// bytes -> bytes codecs applied to this shard's bytes as a whole; none in all usual arrays.
    pub outer: Vec<CodecSpec>,
    /// Number of entries along each axis.
    pub grid: Vec<u64>,
    /// Extent of one entry (a chunk, or a shard of the next level) in voxels.
    pub entry_shape: Vec<u64>,
    /// How the index is found and read.
    pub index: IndexSpec,
}

impl ShardLevel {
    /// Layout of the index, where it is that of `sharding_indexed`.
    #[must_use]
    pub fn layout(&self) -> Option<&IndexLayout> {
        match &self.index {
            IndexSpec::ShardingIndexed(layout) => Some(layout),
            _ => None,
        }
    }
}

impl ArrayMeta {
    /// Number of axes.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Extent of a stored object when the array is sharded into boxes; the largest along each axis where they differ.
    #[must_use]
    pub fn shard_shape(&self) -> Option<Vec<u64>> {
        // What lies in a precomputed shard, or in a file with a table, is no box.
        let is_box = !matches!(self.keys, KeyEncoding::PrecomputedShard { .. } | KeyEncoding::Table(_));
        let level = self.levels.first().filter(|_| is_box)?;
        Some(level.grid.iter().zip(&level.entry_shape).map(|(n, e)| n * e).collect())
    }

    /// Number, in C order, of the entry at `level` that holds the chunk at `coordinates` of the stored object in cell `cell`.
    #[must_use]
    pub fn entry(&self, level: usize, cell: &[u64], coordinates: &[u64]) -> u64 {
        if let KeyEncoding::PrecomputedShard { grid, sharding } = &self.keys {
            let id = uint64_sharding::chunk_id(cell, grid);
            return if level == 0 { sharding.place(id).minishard } else { id };
        }
        if let KeyEncoding::Table(table) = &self.keys {
            return table.entry(cell, coordinates);
        }
        let Some(spec) = self.level_in(level, cell) else { return 0 };
        let deeper = self.levels.get(level + 1..).unwrap_or(&[]);
        spec.grid.iter().enumerate().fold(0, |number, (axis, &n)| {
            let inside: u64 = deeper.iter().map(|spec| spec.grid[axis]).product();
            number * n + coordinates[axis] / inside % n
        })
    }

    /// True when stored objects differ in extent.
    #[must_use]
    pub fn is_irregular(&self) -> bool {
        self.shard_grid.iter().any(|axis| matches!(axis, AxisGrid::Offsets(_)))
    }

    /// Extent along each axis of the stored object in cell `cell`.
    pub(crate) fn cell_extent(&self, cell: &[u64]) -> Vec<u64> {
        self.shard_grid.iter().zip(cell).map(|(axis, &cell)| axis.extent(cell)).collect()
    }

    /// Level `level` of sharding in the stored object in cell `cell`.
    #[must_use]
    pub fn level_in(&self, level: usize, cell: &[u64]) -> Option<Cow<'_, ShardLevel>> {
        let spec = self.levels.get(level)?;
        if level > 0 || !self.is_irregular() {
            return Some(Cow::Borrowed(spec));
        }
        let extents = self.cell_extent(cell);
        let grid: Vec<u64> = extents.iter().zip(&spec.entry_shape).map(|(extent, entry)| extent / entry).collect();
        let index = match &spec.index {
            IndexSpec::ShardingIndexed(layout) => IndexSpec::ShardingIndexed(layout.over(&grid)),
            other => other.clone(),
        };
        Some(Cow::Owned(ShardLevel { grid, index, ..spec.clone() }))
    }

    /// The decoded form of the chunks of the stored object in cell `cell`.
    #[must_use]
    pub fn chunk_box(&self, cell: &[u64]) -> ChunkBox<'_> {
        let extent = match self.chunk_form {
            ChunkForm::Cell => Cow::Owned(self.cell_extent(cell)),
            _ => Cow::Borrowed(&*self.chunk_shape),
        };
        ChunkBox { array: self, extent }
    }

    /// Number in its stored object of the first chunk in cell `cell` of the grid of objects. Where objects hold chunks from
    /// anywhere (precomputed shards), it is the chunk's id; where chunks end with the array, one for each extent, as equal
    /// objects may be one file.
    #[must_use]
    pub fn first_chunk(&self, cell: &[u64]) -> u64 {
        match &self.keys {
            KeyEncoding::PrecomputedShard { grid, .. } => uint64_sharding::chunk_id(cell, grid),
            KeyEncoding::Table(table) => table.first_chunk(cell),
            KeyEncoding::PrecomputedChunk { .. } => {
                let axes = self.shape.iter().zip(&self.shard_grid).zip(cell.iter().zip(&self.chunk_shape));
                axes.fold(0, |number, ((&shape, grid), (&cell, &chunk))| {
                    number * (chunk + 1) + chunk.min(shape.saturating_sub(grid.start(cell)))
                })
            }
            _ => 0,
        }
    }

    /// Where its chunks lie, when a table says.
    #[must_use]
    pub fn table(&self) -> Option<&ChunkTable> {
        match &self.keys {
            KeyEncoding::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The codecs that were left out of the chunk in cell `cell`, as bits; see [`Places::masks`].
    #[must_use]
    pub fn mask(&self, cell: &[u64]) -> u32 {
        self.table().map_or(0, |table| table.mask(cell))
    }

    /// The array with its chunks where a table says. With `clipped` those at the array's end hold only what is inside it.
    ///
    /// # Errors
    /// As [`ChunkTable::new`]; `Unsupported` for an array with shards or a grid that is not regular, `Metadata` when
    /// chunks are clipped that are not the beginning of a whole one then.
    pub fn with_table(mut self, places: Places, clipped: bool) -> Result<Self> {
        let is_regular = self.shard_grid.iter().all(|axis| matches!(axis, AxisGrid::Regular { .. }));
        if !self.levels.is_empty() || !is_regular || self.chunk_form != ChunkForm::Elements {
            return Err(Error::unsupported(
                "a chunk table for shards or chunks of several extents",
                "read it by its keys",
            ));
        }
        if clipped {
            if !self.chunk_elements.is_empty() {
                return Err(Error::unsupported(
                    "clipped chunks of elements that are stored as others",
                    "read it by its keys",
                ));
            }
            // Only the first axis of more than one voxel may be cut.
            let mut axes = self.chunk_order.iter().skip_while(|&&axis| self.chunk_shape[axis] == 1).skip(1);
            if axes.any(|&axis| !self.shape[axis].is_multiple_of(self.chunk_shape[axis])) {
                return Err(Error::metadata("chunk table", "clipped chunks that are cut along more than one axis"));
            }
            self.chunk_form = ChunkForm::Clipped;
        }
        let chunks = self.shard_grid.iter().map(AxisGrid::cells).collect();
        let table = Arc::new(ChunkTable::new(places, chunks, clipped)?);
        let step = |(&block, &chunk): (&u64, &u64)| block.saturating_mul(chunk);
        let steps: Vec<u64> = table.block().iter().zip(&self.chunk_shape).map(step).collect();
        self.shard_grid =
            self.shape.iter().zip(&steps).map(|(&extent, &step)| AxisGrid::regular(extent, step)).collect();
        self.levels = vec![ShardLevel {
            outer: Vec::new(),
            grid: table.block().to_vec(),
            entry_shape: self.chunk_shape.clone(),
            index: IndexSpec::Table(Arc::clone(&table)),
        }];
        self.keys = KeyEncoding::Table(table);
        Ok(self)
    }

    /// Type of a chunk's stored elements, and how many bytes `nbytes` bytes of the array's are then.
    #[must_use]
    pub fn stored(&self, nbytes: usize) -> (&DataType, u64) {
        let Some(last) = self.chunk_elements.last() else { return (&self.dtype, nbytes as u64) };
        let count = nbytes / self.dtype.item_size().max(1);
        (&last.encoded, last.encoded_nbytes(count as u64).unwrap_or(u64::MAX))
    }

    /// The codecs that are decoded outside of the core.
    pub fn foreign_codecs(&self) -> impl Iterator<Item = &ForeignCodec> {
        let codecs = self.chunk_codecs.iter().chain(self.levels.iter().rev().flat_map(|level| &level.outer));
        codecs.filter_map(|codec| if let CodecSpec::Foreign(codec) = codec { Some(codec) } else { None })
    }

    /// True when some level's bytes are encoded as a whole, so that no part of the object can be read alone.
    #[must_use]
    pub fn has_outer_codecs(&self) -> bool {
        self.levels.iter().any(|level| !level.outer.is_empty())
    }
}

/// A chunk as it is decoded: elements in C order of the stored axes.
#[derive(Debug)]
pub struct ChunkBox<'a> {
    /// Its array.
    pub array: &'a ArrayMeta,
    /// Its extent along each axis of the array.
    pub extent: Cow<'a, [u64]>,
}

impl ChunkBox<'_> {
    /// Bytes in all, at most `array.chunk_nbytes`.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        let voxels = self.extent.iter().fold(1, |voxels, &extent| voxels * extent as usize);
        (voxels * self.array.dtype.item_size()).min(self.array.chunk_nbytes)
    }
}
