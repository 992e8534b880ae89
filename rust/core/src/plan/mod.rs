//! Reads -> shards -> chunks -> projections: which stored objects a set of reads touches, which chunks of each, and which
//! part of a chunk goes where in which output. Pure; [`shard`] and [`coalesce`] turn chunks into requests.
//!
//! Several reads are planned together: a shard that more of them need is visited once, a chunk decoded once.
//!
//! One voxel through it: array (10, 10) of shards (4, 4) with chunks (2, 2), box from (3, 5) of (4, 2). Voxel (3, 5) lies
//! in shard (0, 1), visited first; that shard starts at (0, 4), so the voxel is in its chunk (1, 0), number 2 in C
//! order, whose first voxel is (2, 4). The projection of the box in this chunk is, per axis, `src` 1, `dst` 0,
//! `count` 1 and `src` 1, `dst` 0, `count` 1: voxel (1, 1) of the chunk goes to voxel (0, 0) of the output.

mod axis;
mod check;
pub mod coalesce;
pub mod kept;
pub mod machine;
pub mod shard;

use std::ops::Range;
use std::sync::Arc;

use crate::codec::PreparedArray;
use crate::error::{Error, Result};
use crate::metadata::{ArrayMeta, AxisGrid, ChunkBox};
use crate::subset::product;
pub use axis::AxisPart;
use axis::{AxisView, Cells};
use check::check;

/// What is wanted along one axis.
#[derive(Debug, Clone)]
pub enum AxisSelection {
    /// Voxels `start + k * step` for `k` in `0..count`.
    Range {
        /// First voxel.
        start: u64,
        /// Distance between voxels, at least 1.
        step: u64,
        /// Number of voxels.
        count: u64,
    },
    /// Single voxels: (voxel, place in the output), sorted by voxel. Voxels may repeat, places may not.
    Indices(Vec<(u64, u64)>),
}

impl AxisSelection {
    /// Names voxels by their places in a grid in which `first` is the array's first.
    fn shift(&mut self, first: u64) {
        match self {
            _ if first == 0 => {}
            Self::Range { start, .. } => *start = start.saturating_add(first),
            Self::Indices(voxels) => voxels.iter_mut().for_each(|(voxel, _)| *voxel += first),
        }
    }
}

/// What is wanted of one array.
#[derive(Debug, Clone)]
pub enum Selection {
    /// The outer product of one selection per axis; the output has one dimension per axis.
    Axes(Vec<AxisSelection>),
    /// Boxes of one shape; the output has one dimension for the boxes and one per axis.
    Boxes {
        /// First voxel of each box, (n, rank) in C order.
        starts: Vec<i64>,
        /// Extent of every box.
        shape: Vec<u64>,
        /// Whether boxes may reach outside the array (whoever carries the read out fills that part).
        fill_outside: bool,
    },
    /// The bytes of one chunk as they are stored, by its coordinates in the grid of chunks.
    Chunk(Vec<u64>),
}

/// One read of a plan.
#[derive(Debug, Clone)]
pub struct ReadSpec {
    /// Position of its array in the plan's list.
    pub array: usize,
    /// What is wanted of it.
    pub selection: Selection,
}

/// One array-shaped part of a read: the whole of an `Axes` selection, or one box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Piece {
    /// Position of the read in the plan.
    pub read: u32,
    /// Number of the box in the read; 0 for `Axes`.
    pub part: u32,
}

/// One stored object and the pieces that need some of it.
#[derive(Debug)]
pub struct Visit<'a> {
    /// Position of its array in the plan's list.
    pub array: usize,
    /// Grid coordinates of the object.
    pub shard: Vec<u64>,
    /// The pieces, sorted.
    pub pieces: &'a [Piece],
}

/// One chunk of a visited shard, needed by one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    /// Number of the chunk in C order over the shard's chunks.
    pub chunk: u64,
    /// Position of the piece in the visit.
    pub piece: u32,
}

/// Most items of one visit (half a GiB of them).
pub const MAX_ITEMS: u64 = 1 << 25;

/// Reads planned together.
#[derive(Debug)]
pub struct Plan {
    arrays: Vec<Arc<PreparedArray>>,
    /// Chunks along each axis of a stored object, for each array; of the largest, where they differ. Chunks are numbered so.
    chunk_grids: Vec<Vec<u64>>,
    reads: Vec<ReadSpec>,
    visits: Visits,
}

/// The stored objects to visit.
#[derive(Debug)]
enum Visits {
    /// One piece: the outer product of the cells it touches along each axis, never listed.
    Product { cells: Vec<Cells>, total: u64, piece: [Piece; 1] },
    /// Several pieces, listed: (array, coordinates at `shards[at..]`, pieces).
    Grouped { shards: Vec<u64>, groups: Vec<(usize, usize, Range<usize>)>, pieces: Vec<Piece> },
}

impl Plan {
    /// Plans reads of `arrays`.
    ///
    /// # Errors
    /// `Selection` when a read does not fit its array, `Limit` when there are too many chunks to count.
    pub fn new(arrays: Vec<Arc<PreparedArray>>, mut reads: Vec<ReadSpec>) -> Result<Self> {
        let chunk_grids = arrays.iter().map(|array| chunk_grid(array)).collect::<Result<Vec<_>>>()?;
        for read in &mut reads {
            let array = arrays.get(read.array).ok_or_else(|| Error::internal("read of an array the plan lacks"))?;
            check(array, &read.selection)?;
            if let Selection::Axes(axes) = &mut read.selection {
                axes.iter_mut().zip(&array.grid_origin).for_each(|(axis, &first)| axis.shift(first));
            }
        }
        let mut plan = Self {
            arrays,
            chunk_grids,
            reads,
            visits: Visits::Grouped { shards: Vec::new(), groups: Vec::new(), pieces: Vec::new() },
        };
        plan.visits = plan.find_visits()?;
        Ok(plan)
    }

    /// Whether some read wants chunks as they are stored.
    #[must_use]
    pub fn has_encoded(&self) -> bool {
        self.reads.iter().any(|read| matches!(read.selection, Selection::Chunk(_)))
    }

    /// Number of stored objects to visit.
    #[must_use]
    pub fn visits(&self) -> u64 {
        match &self.visits {
            Visits::Product { total, .. } => *total,
            Visits::Grouped { groups, .. } => groups.len() as u64,
        }
    }

    /// Visit number `i`, which is below [`Plan::visits`].
    #[must_use]
    pub fn visit(&self, i: u64) -> Visit<'_> {
        match &self.visits {
            Visits::Product { cells, piece, .. } => {
                let mut shard = vec![0; cells.len()];
                let mut rest = i;
                for (coordinate, cells) in shard.iter_mut().zip(cells).rev() {
                    *coordinate = cells.at(rest % cells.len());
                    rest /= cells.len();
                }
                Visit { array: self.reads[piece[0].read as usize].array, shard, pieces: piece }
            }
            Visits::Grouped { shards, groups, pieces } => {
                let (array, at, ref range) = groups[i as usize];
                let rank = self.arrays[array].rank();
                Visit { array, shard: shards[at..at + rank].to_vec(), pieces: &pieces[range.clone()] }
            }
        }
    }

    /// For each read the number of the last visit that it has a part in, None when it needs nothing.
    #[must_use]
    pub fn last_visits(&self) -> Vec<Option<u64>> {
        match &self.visits {
            Visits::Product { total, piece: [piece], .. } => {
                let mut last = vec![None; self.reads.len()];
                last[piece.read as usize] = total.checked_sub(1);
                last
            }
            Visits::Grouped { groups, pieces, .. } => {
                let mut last = vec![None; self.reads.len()];
                for (number, group) in groups.iter().enumerate() {
                    for piece in &pieces[group.2.clone()] {
                        last[piece.read as usize] = Some(number as u64);
                    }
                }
                last
            }
        }
    }

    /// The arrays of the plan.
    #[must_use]
    pub fn arrays(&self) -> &[Arc<PreparedArray>] {
        &self.arrays
    }

    /// The reads of the plan.
    #[must_use]
    pub fn reads(&self) -> &[ReadSpec] {
        &self.reads
    }

    /// Chunks along each axis of a stored object of array number `array`; of the largest, where they differ.
    #[must_use]
    pub fn chunk_grid(&self, array: usize) -> &[u64] {
        &self.chunk_grids[array]
    }

    /// Appends the chunks of a visited shard that its pieces need to `items`, sorted by chunk.
    ///
    /// # Errors
    /// `Limit` when there are more than [`MAX_ITEMS`]: nested shards can hold more chunks than there is memory for.
    pub fn chunk_items(&self, visit: &Visit<'_>, items: &mut Vec<Item>) -> Result<()> {
        let array = &self.arrays[visit.array];
        let grid = &self.chunk_grids[visit.array];
        let mut axes: Vec<Cells> = Vec::with_capacity(grid.len());
        for (number, piece) in visit.pieces.iter().enumerate() {
            axes.clear();
            for (axis, shards) in array.shard_grid.iter().enumerate() {
                let low = shards.start(visit.shard[axis]);
                let high = low + shards.extent(visit.shard[axis]);
                let extent = array.chunk_shape[axis];
                let cells = match self.view(*piece, axis).within(low, high) {
                    None => Cells::Span { first: 0, count: 0 },
                    Some(AxisPart::Run { src, step, dst, count }) => AxisView::Range { start: src, step, count, dst }
                        .cells(&AxisGrid::Regular { step: extent, cells: grid[axis] }),
                    Some(AxisPart::List { origin, voxels }) => {
                        let mut cells: Vec<u64> = voxels.iter().map(|v| (v.0 - origin) / extent).collect();
                        cells.dedup();
                        Cells::List(cells)
                    }
                };
                axes.push(cells);
            }
            let total = product(axes.iter().map(Cells::len)).unwrap_or(u64::MAX);
            let all = total.saturating_add(items.len() as u64);
            if all > MAX_ITEMS || items.try_reserve(total as usize).is_err() {
                return Err(Error::limit("chunks of one shard in one plan", all, MAX_ITEMS));
            }
            let mut counters = [0u64; crate::subset::MAX_RANK];
            let inner = axes.len().saturating_sub(1);
            for _ in 0..total.checked_div(axes.last().map_or(1, Cells::len)).unwrap_or(0) {
                let prefix = (0..inner).fold(0, |n, axis| n * grid[axis] + axes[axis].at(counters[axis]));
                match axes.last() {
                    None => items.push(Item { chunk: 0, piece: number as u32 }),
                    Some(last) => items.extend(
                        (0..last.len())
                            .map(|k| Item { chunk: prefix * grid[inner] + last.at(k), piece: number as u32 }),
                    ),
                }
                for axis in (0..inner).rev() {
                    counters[axis] += 1;
                    if counters[axis] < axes[axis].len() {
                        break;
                    }
                    counters[axis] = 0;
                }
            }
        }
        if visit.pieces.len() > 1 {
            items.sort_unstable();
        }
        Ok(())
    }

    /// Coordinates of a chunk inside its stored object, from its number in C order.
    pub fn chunk_coordinates(&self, array: usize, chunk: u64, coordinates: &mut [u64]) {
        let mut rest = chunk;
        for (coordinate, &n) in coordinates.iter_mut().zip(&self.chunk_grids[array]).rev() {
            *coordinate = rest % n;
            rest /= n;
        }
    }

    /// Grid coordinates of a chunk in the whole array, for messages.
    #[must_use]
    pub fn chunk_position(&self, visit: &Visit<'_>, chunk: u64) -> Vec<u64> {
        let mut position = vec![0; visit.shard.len()];
        self.chunk_coordinates(visit.array, chunk, &mut position);
        let array = &self.arrays[visit.array];
        for (axis, coordinate) in position.iter_mut().enumerate() {
            *coordinate += match &array.shard_grid[axis] {
                // Each shard is a whole number of chunks.
                grid @ AxisGrid::Offsets(_) if !array.levels.is_empty() => {
                    grid.start(visit.shard[axis]) / array.chunk_shape[axis]
                }
                _ => visit.shard[axis] * self.chunk_grids[visit.array][axis],
            };
        }
        position
    }

    /// The projection of one item, one part per axis, into `parts`.
    ///
    /// # Errors
    /// `Internal` when the piece does not touch the chunk, which `chunk_items` excludes.
    pub fn project<'p>(&'p self, visit: &Visit<'_>, item: Item, parts: &mut Vec<AxisPart<'p>>) -> Result<()> {
        let array = &self.arrays[visit.array];
        let piece = visit.pieces[item.piece as usize];
        let mut chunk = [0u64; crate::subset::MAX_RANK];
        let chunk = &mut chunk[..array.rank()];
        self.chunk_coordinates(visit.array, item.chunk, chunk);
        parts.clear();
        let extents = array.chunk_box(&visit.shard).extent;
        for (axis, (&number, &extent)) in chunk.iter().zip(&*extents).enumerate() {
            let low = array.shard_grid[axis].start(visit.shard[axis]) + number * extent;
            let part = self.view(piece, axis).within(low, low + extent);
            parts.push(part.ok_or_else(|| Error::internal("a planned chunk is not touched by its read"))?);
        }
        Ok(())
    }

    /// The bytes of a decoded chunk from the first to the last voxel that some of `items`, all of one chunk, need: all of
    /// them where it is wanted as it is stored. `parts` is memory to work in.
    ///
    /// # Errors
    /// As [`Plan::project`].
    pub fn window<'p>(
        &'p self,
        visit: &Visit<'_>,
        items: &[Item],
        parts: &mut Vec<AxisPart<'p>>,
    ) -> Result<Range<usize>> {
        let chunk = self.arrays[visit.array].chunk_box(&visit.shard);
        if items.iter().any(|&item| self.is_encoded(visit, item)) {
            return Ok(0..chunk.nbytes());
        }
        let mut all: Option<Range<usize>> = None;
        for &item in items {
            self.project(visit, item, parts)?;
            let one = window(parts, &chunk)?;
            all = Some(all.map_or_else(|| one.clone(), |all| all.start.min(one.start)..all.end.max(one.end)));
        }
        all.ok_or_else(|| Error::internal("a chunk that no item needs"))
    }

    /// The box of a chunk, first voxel to last along each axis, that holds what `items`, all of it, need.
    ///
    /// # Errors
    /// As [`Plan::window`].
    pub fn extents<'p>(
        &'p self,
        visit: &Visit<'_>,
        items: &[Item],
        parts: &mut Vec<AxisPart<'p>>,
    ) -> Result<Vec<Range<usize>>> {
        let mut all: Vec<Range<usize>> = Vec::new();
        for &item in items {
            self.project(visit, item, parts)?;
            let spans = parts.iter().map(AxisPart::span).collect::<Option<Vec<_>>>();
            let spans = spans.ok_or_else(|| Error::internal("a piece of a chunk without voxels"))?;
            let spans = spans.into_iter().map(|(low, high)| low as usize..high as usize + 1);
            if all.is_empty() {
                all = spans.collect();
            } else {
                let both = all.iter_mut().zip(spans);
                both.for_each(|(all, one)| *all = all.start.min(one.start)..all.end.max(one.end));
            }
        }
        Ok(all)
    }

    /// How many of some chunks, each with the items that need it, are to be decoded.
    pub fn decoded<'i>(&self, visit: &Visit<'_>, chunks: impl Iterator<Item = &'i [Item]>) -> u64 {
        chunks.filter(|items| items.iter().any(|&item| !self.is_encoded(visit, item))).count() as u64
    }

    fn is_encoded(&self, visit: &Visit<'_>, item: Item) -> bool {
        let piece = visit.pieces[item.piece as usize];
        matches!(self.reads[piece.read as usize].selection, Selection::Chunk(_))
    }

    fn view(&self, piece: Piece, axis: usize) -> AxisView<'_> {
        let read = &self.reads[piece.read as usize];
        match &read.selection {
            Selection::Axes(axes) => match &axes[axis] {
                AxisSelection::Range { start, step, count } => {
                    AxisView::Range { start: *start, step: *step, count: *count, dst: 0 }
                }
                AxisSelection::Indices(voxels) => AxisView::List(voxels),
            },
            Selection::Boxes { starts, shape, .. } => {
                let start = starts[piece.part as usize * shape.len() + axis];
                let array = &self.arrays[read.array];
                let extent = i128::from(array.shape[axis]);
                let low = i128::from(start).clamp(0, extent);
                let high = (i128::from(start) + i128::from(shape[axis])).clamp(low, extent);
                // Both ends lie inside the array, and the distance from a negative start is at most the box.
                AxisView::Range {
                    start: low as u64 + array.grid_origin[axis],
                    step: 1,
                    count: (high - low) as u64,
                    dst: if start < 0 { start.unsigned_abs().min(shape[axis]) } else { 0 },
                }
            }
            Selection::Chunk(position) => {
                let span = chunk_span(&self.arrays[read.array], axis, position[axis]).unwrap_or_default();
                AxisView::Range { start: span.start, step: 1, count: span.end - span.start, dst: 0 }
            }
        }
    }

    fn pieces(&self) -> impl Iterator<Item = Piece> {
        self.reads.iter().enumerate().flat_map(|(read, spec)| {
            let parts = match &spec.selection {
                Selection::Axes(_) | Selection::Chunk(_) => 1,
                Selection::Boxes { starts, shape, .. } => starts.len().checked_div(shape.len()).unwrap_or(1),
            };
            (0..parts).map(move |part| Piece { read: read as u32, part: part as u32 })
        })
    }

    /// The cells of the shard grid that a piece touches, None when it touches no voxel.
    fn shard_cells(&self, piece: Piece) -> Option<Vec<Cells>> {
        let array = &self.arrays[self.reads[piece.read as usize].array];
        (0..array.rank())
            .map(|axis| {
                let view = self.view(piece, axis);
                (!view.is_empty()).then(|| view.cells(&array.shard_grid[axis]))
            })
            .collect()
    }

    fn find_visits(&self) -> Result<Visits> {
        let mut pieces = self.pieces();
        let (first, second) = (pieces.next(), pieces.next());
        if let (Some(piece), None) = (first, second) {
            let (cells, total) = match self.shard_cells(piece) {
                None => (Vec::new(), 0),
                Some(cells) => {
                    let total = product(cells.iter().map(Cells::len));
                    (cells, total.ok_or_else(|| too_many("stored objects to visit"))?)
                }
            };
            return Ok(Visits::Product { cells, total, piece: [piece] });
        }
        // (array, place of the coordinates in `shards`, piece), to be sorted by array, coordinates, piece.
        let mut shards = Vec::new();
        let mut touched: Vec<(usize, usize, Piece)> = Vec::new();
        for piece in self.pieces() {
            let Some(cells) = self.shard_cells(piece) else { continue };
            let total = product(cells.iter().map(Cells::len)).filter(|&n| n < 1 << 32);
            let total = total.ok_or_else(|| too_many("stored objects to visit"))?;
            for number in 0..total {
                let at = shards.len();
                shards.resize(at + cells.len(), 0);
                let mut rest = number;
                for (axis, cells) in cells.iter().enumerate().rev() {
                    shards[at + axis] = cells.at(rest % cells.len());
                    rest /= cells.len();
                }
                touched.push((self.reads[piece.read as usize].array, at, piece));
            }
        }
        let coordinates = |&(array, at, _): &(usize, usize, Piece)| &shards[at..at + self.arrays[array].rank()];
        touched.sort_unstable_by(|a, b| {
            a.0.cmp(&b.0).then_with(|| coordinates(a).cmp(coordinates(b))).then_with(|| a.2.cmp(&b.2))
        });
        let mut groups: Vec<(usize, usize, Range<usize>)> = Vec::new();
        for (number, entry) in touched.iter().enumerate() {
            match groups.last_mut() {
                Some(last) if last.0 == entry.0 && coordinates(&(last.0, last.1, entry.2)) == coordinates(entry) => {
                    last.2.end = number + 1;
                }
                _ => groups.push((entry.0, entry.1, number..number + 1)),
            }
        }
        let pieces = touched.iter().map(|t| t.2).collect();
        Ok(Visits::Grouped { shards, groups, pieces })
    }
}

/// The voxels along one axis, by their places in the grid, that a chunk holds of the array; None where it holds none.
fn chunk_span(array: &ArrayMeta, axis: usize, at: u64) -> Option<Range<u64>> {
    let (grid, first) = (&array.shard_grid[axis], array.grid_origin[axis]);
    let (start, extent) = if array.levels.is_empty() {
        (at < grid.cells()).then(|| (grid.start(at), grid.extent(at)))?
    } else {
        (at.checked_mul(array.chunk_shape[axis])?, array.chunk_shape[axis])
    };
    let span = start.max(first)..start.saturating_add(extent).min(first.saturating_add(array.shape[axis]));
    (span.start < span.end).then_some(span)
}

fn chunk_grid(array: &ArrayMeta) -> Result<Vec<u64>> {
    let mut grid = vec![1u64; array.rank()];
    for level in &array.levels {
        for (n, m) in grid.iter_mut().zip(&level.grid) {
            *n = n.checked_mul(*m).ok_or_else(|| too_many("chunks in a shard"))?;
        }
    }
    match product(&grid) {
        Some(total) if total < 1 << 48 => Ok(grid),
        _ => Err(too_many("chunks in a shard")),
    }
}

/// The bytes of a decoded chunk from the first to the last voxel of a projection.
///
/// # Errors
/// `Internal` when it is empty or reaches outside the chunk.
pub(crate) fn window(parts: &[AxisPart<'_>], chunk: &ChunkBox<'_>) -> Result<Range<usize>> {
    let outside = || Error::internal("a projection reaches outside its chunk");
    let item_size = chunk.array.dtype.item_size();
    let (mut first, mut last, mut stride) = (0, 0, item_size);
    for &axis in chunk.array.chunk_order.iter().rev() {
        let (low, high) = parts.get(axis).and_then(AxisPart::span).ok_or_else(outside)?;
        if low > high || high >= chunk.extent[axis] {
            return Err(outside());
        }
        first += low as usize * stride;
        last += high as usize * stride;
        stride *= chunk.extent[axis] as usize;
    }
    Ok(first..last + item_size)
}

fn too_many(what: &str) -> Error {
    Error::limit(format!("too many {what}"), u64::MAX, 1 << 48)
}
