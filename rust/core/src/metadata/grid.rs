//! One axis of a chunk grid: where each cell starts.

/// Cells along one axis. A cell is named by its index; cells lie end to end from voxel 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AxisGrid {
    /// Cells of equal extent; the last one may reach past the array.
    Regular {
        /// Extent of a cell in voxels, at least 1.
        step: u64,
        /// Number of cells.
        cells: u64,
    },
    /// Cell `i` is `[offsets[i], offsets[i + 1])`; strictly increasing from 0.
    Offsets(Vec<u64>),
}

impl AxisGrid {
    /// The regular grid that covers `extent` voxels. `step` is at least 1.
    #[must_use]
    pub fn regular(extent: u64, step: u64) -> Self {
        let step = step.max(1);
        Self::Regular { step, cells: extent.div_ceil(step) }
    }

    /// Number of cells.
    #[must_use]
    pub fn cells(&self) -> u64 {
        match self {
            Self::Regular { cells, .. } => *cells,
            Self::Offsets(offsets) => offsets.len().saturating_sub(1) as u64,
        }
    }

    /// Cell that holds `voxel`, which must lie inside the grid.
    #[must_use]
    pub fn cell_of(&self, voxel: u64) -> u64 {
        match self {
            Self::Regular { step, .. } => voxel / step,
            Self::Offsets(offsets) => offsets.partition_point(|&o| o <= voxel).saturating_sub(1) as u64,
        }
    }

    /// First voxel of a cell.
    #[must_use]
    pub fn start(&self, cell: u64) -> u64 {
        match self {
            Self::Regular { step, .. } => cell * step,
            Self::Offsets(offsets) => offsets.get(cell as usize).copied().unwrap_or(u64::MAX),
        }
    }

    /// Extent of a cell in voxels.
    #[must_use]
    pub fn extent(&self, cell: u64) -> u64 {
        match self {
            Self::Regular { step, .. } => *step,
            Self::Offsets(_) => self.start(cell + 1).saturating_sub(self.start(cell)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::AxisGrid;

    #[test]
    fn regular_and_offset_grids_agree() {
        let regular = AxisGrid::regular(10, 4);
        let offsets = AxisGrid::Offsets(vec![0, 4, 8, 12]);
        assert_eq!(regular.cells(), 3);
        assert_eq!(offsets.cells(), 3);
        for voxel in 0..10 {
            assert_eq!(regular.cell_of(voxel), offsets.cell_of(voxel));
            let cell = regular.cell_of(voxel);
            assert_eq!(regular.start(cell), offsets.start(cell));
            assert_eq!(regular.extent(cell), offsets.extent(cell));
            assert!((offsets.start(cell)..offsets.start(cell) + offsets.extent(cell)).contains(&voxel));
        }
    }
}
