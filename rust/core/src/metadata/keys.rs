//! Grid coordinates of a stored object -> its key.

use std::sync::Arc;

use super::ChunkTable;
use super::precomputed::chunk_name;
use super::uint64_sharding::{Sharding, chunk_id};

/// Grid coordinates -> key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyEncoding {
    /// Zarr v3 `default`: `c` and the coordinates joined by the separator; `c` alone for rank 0.
    Default {
        /// `/` or `.`.
        separator: char,
    },
    /// Zarr v2: the coordinates joined by the separator; `0` for rank 0.
    V2 {
        /// `.` or `/`.
        separator: char,
    },
    /// Precomputed without shards: the voxels between which a chunk lies, such as `0-64_64-128_0-40`.
    PrecomputedChunk {
        /// Extent of the volume in voxels.
        size: [u64; 3],
        /// Extent of a chunk in voxels.
        step: [u64; 3],
        /// Coordinates of the first voxel.
        offset: [i64; 3],
    },
    /// Precomputed with shards: the shard that holds a chunk.
    PrecomputedShard {
        /// Chunks along each axis.
        grid: [u64; 3],
        /// How they are spread over shards.
        sharding: Sharding,
    },
    /// What a table says.
    Table(Arc<ChunkTable>),
    /// WKW: `z{Z}/y{Y}/x{X}.wkw` of the coordinates (channel, x, y, z).
    Wkw,
}

impl KeyEncoding {
    /// The key of one stored object, relative to the array.
    #[must_use]
    pub fn key(&self, coordinates: &[u64]) -> String {
        use std::fmt::Write as _;
        let mut key = String::with_capacity(4 + coordinates.len() * 4);
        let (separator, prefixed) = match *self {
            Self::Default { separator } => {
                key.push('c');
                (separator, true)
            }
            Self::V2 { separator } => (separator, false),
            Self::PrecomputedChunk { size, step, offset } => {
                return chunk_name(coordinates, size, step, offset);
            }
            Self::PrecomputedShard { ref grid, ref sharding } => {
                return sharding.key(sharding.place(chunk_id(coordinates, grid)).shard);
            }
            Self::Table(ref table) => return table.key(coordinates).to_owned(),
            Self::Wkw => {
                let [x, y, z] = [1, 2, 3].map(|axis| coordinates.get(axis).copied().unwrap_or_default());
                return format!("z{z}/y{y}/x{x}.wkw");
            }
        };
        for (axis, coordinate) in coordinates.iter().enumerate() {
            if prefixed || axis > 0 {
                key.push(separator);
            }
            // Writing to a String cannot fail.
            let _ = write!(key, "{coordinate}");
        }
        if key.is_empty() {
            key.push('0');
        }
        key
    }
}
