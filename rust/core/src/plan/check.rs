//! Whether a selection fits its array: one entry per axis, every voxel inside. A plan relies on it.

use super::{AxisSelection, Selection, chunk_span};
use crate::error::{ErrorKind, Result};
use crate::metadata::ArrayMeta;

/// Checks what one read of a plan wants of its array.
///
/// # Errors
/// `Selection` when it has another number of axes or reaches outside (boxes may when `fill_outside` says so).
pub(super) fn check(array: &ArrayMeta, selection: &Selection) -> Result<()> {
    let refuse = |what: String| Err(ErrorKind::Selection { what }.into());
    let rank = array.rank();
    match selection {
        Selection::Axes(axes) => {
            if axes.len() != rank {
                return refuse(format!("{} selections for {rank} axes", axes.len()));
            }
            for (axis, (selection, &extent)) in axes.iter().zip(&array.shape).enumerate() {
                let inside = match selection {
                    AxisSelection::Range { start, step, count } => {
                        *step >= 1
                            && (*count == 0
                                || (count - 1)
                                    .checked_mul(*step)
                                    .and_then(|span| span.checked_add(*start))
                                    .is_some_and(|last| last < extent))
                    }
                    AxisSelection::Indices(voxels) => {
                        voxels.is_sorted_by_key(|v| v.0) && voxels.last().is_none_or(|v| v.0 < extent)
                    }
                };
                if !inside {
                    return refuse(format!("axis {axis} has {extent} voxels; the selection reaches outside"));
                }
            }
        }
        Selection::Boxes { starts, shape, fill_outside } => {
            if shape.len() != rank || (rank > 0 && starts.len() % rank != 0) {
                return refuse(format!("boxes of {} axes in an array of {rank}", shape.len()));
            }
            if !fill_outside && rank > 0 {
                for (number, start) in starts.chunks_exact(rank).enumerate() {
                    for axis in 0..rank {
                        let inside = u64::try_from(start[axis])
                            .ok()
                            .and_then(|low| low.checked_add(shape[axis]))
                            .is_some_and(|high| high <= array.shape[axis]);
                        if !inside {
                            return refuse(format!(
                                "box {number} from {start:?} of shape {shape:?} reaches outside the array of shape {:?} \
                                 on axis {axis}",
                                array.shape
                            ));
                        }
                    }
                }
            }
        }
        Selection::Chunk(position) => {
            if position.len() != rank {
                return refuse(format!("a chunk at {position:?} in an array of {rank} axes"));
            }
            if let Some(axis) = (0..rank).find(|&axis| chunk_span(array, axis, position[axis]).is_none()) {
                return refuse(format!("no chunk {position:?}: axis {axis} has {} voxels", array.shape[axis]));
            }
        }
    }
    Ok(())
}
