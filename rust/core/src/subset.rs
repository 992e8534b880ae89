//! Boxes of voxels and ranges of bytes.

use std::borrow::Borrow;

/// Largest rank of an array; every per-axis list is at most this long.
pub const MAX_RANK: usize = 32;

/// Largest extent of an axis, so that sums of two coordinates fit an `i64`.
pub const MAX_EXTENT: u64 = (1 << 62) - 2;

/// Half-open range `[start, end)` of bytes in an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte; never below `start`.
    pub end: u64,
}

impl ByteRange {
    /// The range of `len` bytes from `start`, or None when it would pass 2^64.
    #[must_use]
    pub fn from_len(start: u64, len: u64) -> Option<Self> {
        Some(Self { start, end: start.checked_add(len)? })
    }

    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// True when it holds no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }
}

/// A box of voxels: `shape[k]` voxels from `start[k]` along each axis `k`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArraySubset {
    /// First voxel along each axis.
    pub start: Vec<u64>,
    /// Number of voxels along each axis.
    pub shape: Vec<u64>,
}

impl ArraySubset {
    /// The box of a whole array.
    #[must_use]
    pub fn whole(shape: &[u64]) -> Self {
        Self { start: vec![0; shape.len()], shape: shape.to_vec() }
    }

    /// Number of voxels, or None when it does not fit a `u64`.
    #[must_use]
    pub fn num_voxels(&self) -> Option<u64> {
        product(&self.shape)
    }
}

/// Product of extents, or None when it does not fit a `u64`. The product of no extents is 1.
#[must_use]
pub fn product(extents: impl IntoIterator<Item = impl Borrow<u64>>) -> Option<u64> {
    let mut product = Some(1u64);
    for extent in extents {
        match *extent.borrow() {
            0 => return Some(0),
            extent => product = product.and_then(|product| product.checked_mul(extent)),
        }
    }
    product
}
