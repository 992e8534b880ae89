//! One axis of a plan: the voxels that a piece wants along it, the grid cells that they lie in, and the part of them inside
//! one cell.

use crate::metadata::AxisGrid;

/// A projection along one axis: voxels of the chunk -> places in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AxisPart<'a> {
    /// Voxels `src + k * step` of the chunk go to places `dst + k`.
    Run {
        /// First voxel, from the chunk's start.
        src: u64,
        /// Distance between voxels.
        step: u64,
        /// First place.
        dst: u64,
        /// Number of voxels.
        count: u64,
    },
    /// Single voxels: (voxel of the array, place); the chunk starts at `origin`.
    List {
        /// First voxel of the chunk.
        origin: u64,
        /// The voxels in this chunk.
        voxels: &'a [(u64, u64)],
    },
}

impl AxisPart<'_> {
    /// First and last voxel, from the chunk's start; None for a part without voxels.
    pub(crate) fn span(&self) -> Option<(u64, u64)> {
        match *self {
            Self::Run { src, step, count, .. } => Some((src, src + count.checked_sub(1)? * step)),
            // Sorted by voxel.
            Self::List { origin, voxels } => Some((voxels.first()?.0 - origin, voxels.last()?.0 - origin)),
        }
    }
}

/// Cells of one axis, ascending.
#[derive(Debug)]
pub(super) enum Cells {
    Span {
        first: u64,
        count: u64,
    },
    /// Those of voxels `start + k * step` for `k` in `0..count`, each in a cell of its own as `step >= extent`.
    Strided {
        start: u64,
        step: u64,
        extent: u64,
        count: u64,
    },
    List(Vec<u64>),
}

impl Cells {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Span { count, .. } | Self::Strided { count, .. } => *count,
            Self::List(cells) => cells.len() as u64,
        }
    }

    pub(super) fn at(&self, i: u64) -> u64 {
        match self {
            Self::Span { first, .. } => first + i,
            Self::Strided { start, step, extent, .. } => (start + i * step) / extent,
            Self::List(cells) => cells[i as usize],
        }
    }
}

/// One axis of a piece, clipped to the array.
#[derive(Clone, Copy)]
pub(super) enum AxisView<'a> {
    Range { start: u64, step: u64, count: u64, dst: u64 },
    List(&'a [(u64, u64)]),
}

/// Steps to go at least `distance` voxels.
fn steps(distance: u64, step: u64) -> u64 {
    // A division is worth avoiding: each axis of each chunk comes here.
    if step == 1 { distance } else { distance.div_ceil(step) }
}

impl<'a> AxisView<'a> {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Range { count, .. } => *count == 0,
            Self::List(voxels) => voxels.is_empty(),
        }
    }

    /// The part inside voxels `[low, high)`, None when there is none.
    pub(super) fn within(self, low: u64, high: u64) -> Option<AxisPart<'a>> {
        match self {
            Self::Range { start, step, count, dst } => {
                let first = steps(low.saturating_sub(start), step);
                let end = count.min(steps(high.saturating_sub(start), step));
                if first >= end {
                    return None;
                }
                Some(AxisPart::Run { src: start + first * step - low, step, dst: dst + first, count: end - first })
            }
            Self::List(voxels) => {
                let first = voxels.partition_point(|v| v.0 < low);
                let end = voxels.partition_point(|v| v.0 < high);
                (first < end).then(|| AxisPart::List { origin: low, voxels: &voxels[first..end] })
            }
        }
    }

    /// Cells of a grid that hold at least one voxel of it. The view is not empty.
    pub(super) fn cells(self, grid: &AxisGrid) -> Cells {
        match self {
            Self::Range { start, step, count, .. } => {
                let (first, last) = (grid.cell_of(start), grid.cell_of(start + (count - 1) * step));
                match grid {
                    _ if count == 1 => Cells::Span { first, count: 1 },
                    // A step no longer than a cell skips none.
                    AxisGrid::Regular { step: extent, .. } if step <= *extent => {
                        Cells::Span { first, count: last - first + 1 }
                    }
                    AxisGrid::Regular { step: extent, .. } => Cells::Strided { start, step, extent: *extent, count },
                    AxisGrid::Offsets(_) if step == 1 => Cells::Span { first, count: last - first + 1 },
                    AxisGrid::Offsets(_) => {
                        let holds = |&cell: &u64| self.within(grid.start(cell), grid.start(cell + 1)).is_some();
                        Cells::List((first..=last).filter(holds).collect())
                    }
                }
            }
            Self::List(voxels) => {
                let mut cells: Vec<u64> = voxels.iter().map(|v| grid.cell_of(v.0)).collect();
                cells.dedup();
                Cells::List(cells)
            }
        }
    }
}
