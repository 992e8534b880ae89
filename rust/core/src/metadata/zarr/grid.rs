//! `chunk_grid` of a version 3 array -> where each stored object lies.
//!
//! `regular` (Zarr v3 core, "regular grids"), `rectilinear` (Zarr extensions, chunk-grids/rectilinear), and of zarrs its
//! predecessor `rectangular` and `zarrs.regular_bounded`, whose last cells end with the array.

use serde_json::Value;

use super::{Extension, extents};
use crate::error::{Error, Result};
use crate::metadata::AxisGrid;
use crate::metadata::json::Node;
use crate::metadata::limits::MAX_LISTED_CELLS;
use crate::subset::{MAX_EXTENT, MAX_RANK};

/// A chunk grid.
pub(super) struct Grid {
    /// Extent of a cell; the largest along each axis where they differ.
    pub(super) chunk_shape: Vec<u64>,
    /// The cells of each axis, where those of some axis differ in extent.
    pub(super) irregular: Option<Vec<AxisGrid>>,
}

/// The grid over an array of `shape` voxels.
pub(super) fn v3(node: Node<'_>, shape: &[u64]) -> Result<Grid> {
    let grid = Extension::parse_required(node)?;
    let list = |name: &str| grid.require(name)?.items(MAX_RANK).map(Iterator::collect::<Vec<_>>);
    let axes: Vec<Runs> = match grid.name {
        "regular" => {
            grid.only(&["chunk_shape"])?;
            return Ok(Grid { chunk_shape: extents(&grid.require("chunk_shape")?)?, irregular: None });
        }
        "rectilinear" => {
            grid.only(&["kind", "chunk_shapes"])?;
            let kind = grid.require("kind")?;
            match kind.short_str()? {
                "inline" => {}
                kind => {
                    return Err(Error::unsupported(format!("rectilinear grid of kind `{kind}`"), "read is `inline`"));
                }
            }
            list("chunk_shapes")?.iter().zip(shape).map(|(axis, &extent)| edges(axis, extent)).collect::<Result<_>>()?
        }
        "rectangular" => {
            grid.only(&["chunk_shape"])?;
            list("chunk_shape")?.iter().zip(shape).map(|(axis, &extent)| edges(axis, extent)).collect::<Result<_>>()?
        }
        "zarrs.regular_bounded" => {
            grid.only(&["chunk_shape"])?;
            let axes = list("chunk_shape")?;
            axes.iter().zip(shape).map(|(axis, &extent)| bounded(edge(axis)?, extent)).collect::<Result<_>>()?
        }
        name => {
            let what = format!("chunk grid `{name}`");
            return Err(Error::unsupported(what, "read are `regular` and `rectilinear` grids"));
        }
    };
    if axes.len() != shape.len() {
        return Err(grid.node.error(format!("edges of {} axes, the array has {}", axes.len(), shape.len())));
    }
    let chunk_shape = axes.iter().map(Runs::largest).collect();
    let listed = axes.iter().map(Runs::listed).fold(0, u64::saturating_add);
    if listed > MAX_LISTED_CELLS {
        return Err(Error::limit("cells of an irregular chunk grid", listed, MAX_LISTED_CELLS));
    }
    let irregular = (listed > 0).then(|| axes.iter().zip(shape).map(|(runs, &extent)| runs.cells(extent)).collect());
    Ok(Grid { chunk_shape, irregular })
}

/// Runs of cells of one extent, (extent, count), as far as the array reaches; at least one, neighbours differ in extent.
struct Runs(Vec<(u64, u64)>);

impl Runs {
    /// Extent of the largest cell.
    fn largest(&self) -> u64 {
        self.0.iter().map(|run| run.0).max().unwrap_or(1)
    }

    /// Number of cells that have to be listed: none when all are equal.
    fn listed(&self) -> u64 {
        if self.0.len() <= 1 { 0 } else { self.0.iter().fold(0, |cells, run| cells.saturating_add(run.1)) }
    }

    fn cells(&self, extent: u64) -> AxisGrid {
        if self.0.len() <= 1 {
            return AxisGrid::regular(extent, self.largest());
        }
        let mut end = 0u64;
        let ends = self.0.iter().flat_map(|&(edge, count)| std::iter::repeat_n(edge, count as usize)).map(|edge| {
            end = end.saturating_add(edge);
            end
        });
        AxisGrid::Offsets(std::iter::once(0).chain(ends).collect())
    }
}

/// The extents of the cells along one axis: one number for all of them, or a list of numbers and of (extent, count). Together
/// they may reach past the array, by whole cells too.
fn edges(node: &Node<'_>, extent: u64) -> Result<Runs> {
    if let Value::Number(_) = node.value {
        let step = edge(node)?;
        return Ok(Runs(vec![(step, extent.div_ceil(step))]));
    }
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut end = 0u64;
    for item in node.items(usize::MAX)? {
        let (step, count) = if let Value::Array(_) = item.value {
            let pair: Vec<Node<'_>> = item.items(2)?.collect();
            let [step, count] = pair.as_slice() else { return Err(item.expected("an extent and a count")) };
            (edge(step)?, count.integer(1, u64::MAX)? as u64)
        } else {
            (edge(&item)?, 1)
        };
        // Cells past the array hold nothing that is ever read.
        let count = count.min(extent.saturating_sub(end).div_ceil(step));
        end = end.saturating_add(step.saturating_mul(count));
        match runs.last_mut() {
            Some(last) if last.0 == step => last.1 = last.1.saturating_add(count),
            Some(_) if count == 0 => {}
            // Of an axis without voxels the first tells how long cells would be.
            _ => runs.push((step, count)),
        }
    }
    if runs.is_empty() {
        return Err(node.expected("at least one extent"));
    }
    if end < extent {
        return Err(node.error(format!("the extents add up to {end}, the axis has {extent} voxels")));
    }
    Ok(Runs(runs))
}

/// Cells of `step` voxels, the last of which ends with the axis.
fn bounded(step: u64, extent: u64) -> Result<Runs> {
    let runs = [(step, extent / step), (extent % step, 1)];
    Ok(Runs(runs.into_iter().filter(|&(edge, count)| edge > 0 && (count > 0 || extent == 0)).collect()))
}

/// An extent of a cell.
fn edge(node: &Node<'_>) -> Result<u64> {
    Ok(node.integer(1, MAX_EXTENT)? as u64)
}
