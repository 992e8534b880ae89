//! The labels of the voxels: first those of the regions, then those of the outlines between them.

use super::outlines::{Outlines, Row};
use super::{NAME, reserve, to_u64};
use crate::codec::from_little_endian;
use crate::error::{Error, Result};

/// Gives the voxels of each region their label; those of outlines stay as they are.
///
/// # Errors
/// `Codec` unless there is an id for each region and no more.
pub(super) fn fill_regions<const N: usize>(
    outlines: &Outlines,
    connects_slices: bool,
    ids: &[[u8; N]],
    out: &mut [[u8; N]],
) -> Result<()> {
    let [x, y, z] = outlines.extent;
    let slices = if connects_slices { z } else { 1 };
    let mut regions = Regions::default();
    let mut used = 0;
    for (group, out) in out.chunks_exact_mut(x * y * slices).enumerate() {
        let row = |index: usize| outlines.row(group * slices * y + index);
        regions.find(slices * y, y, row)?;
        let count = regions.number();
        let labels = ids.get(used..).and_then(|ids| ids.get(..count));
        let labels = labels.ok_or_else(|| Error::codec(NAME, format!("{} ids for more regions", ids.len())))?;
        used += count;
        let mut regions = regions.runs.iter();
        for (index, out) in out.chunks_exact_mut(x).enumerate() {
            // The numbers last: a row that has ended must not take one.
            for (run, region) in row(index).runs(false).zip(&mut regions) {
                out[run].fill(from_little_endian(labels[*region as usize]));
            }
        }
    }
    if used < ids.len() {
        return Err(Error::codec(NAME, format!("{} ids for {used} regions", ids.len())));
    }
    Ok(())
}

/// Regions of some rows, as sets of runs.
#[derive(Default)]
struct Regions {
    /// For each run of the rows, one after the other: a run before it, or itself, in the same region; when they have been
    /// numbered, the number of its region.
    runs: Vec<u32>,
    /// The first run of each row, and where the last row ends.
    rows: Vec<u32>,
}

impl Regions {
    /// Finds the regions of `count` rows, `height` of which make a slice.
    fn find<'a>(&mut self, count: usize, height: usize, row: impl Fn(usize) -> Row<'a>) -> Result<()> {
        self.runs.clear();
        self.rows.clear();
        reserve(&mut self.rows, count)?;
        for index in 0..count {
            let current = row(index);
            reserve(&mut self.runs, current.len / 2 + 1)?;
            let first = self.runs.len();
            self.rows.push(first as u32);
            self.runs.extend((first..).zip(current.runs(false)).map(|(run, _)| run as u32));
            if u32::try_from(self.runs.len()).is_err() {
                return Err(Error::limit("runs of a compresso stream", self.runs.len() as u64, u32::MAX.into()));
            }
            if index % height > 0 {
                self.join(first, current, self.rows[index - 1] as usize, row(index - 1));
            }
            if let Some(behind) = index.checked_sub(height) {
                self.join(first, current, self.rows[behind] as usize, row(behind));
            }
        }
        Ok(())
    }

    /// Joins the runs of two rows that touch. `first` and `other_first` are the numbers of their first runs.
    fn join(&mut self, first: usize, row: Row<'_>, other_first: usize, other_row: Row<'_>) {
        let mut runs = row.runs(false).zip(first..);
        let mut others = other_row.runs(false).zip(other_first..);
        let (mut next, mut other_next) = (runs.next(), others.next());
        while let (Some((run, number)), Some((other, other_number))) = (&next, &other_next) {
            if run.start < other.end && other.start < run.end {
                let (a, b) = (self.root(*number), self.root(*other_number));
                self.runs[a.max(b)] = a.min(b) as u32;
            }
            if run.end < other.end {
                next = runs.next();
            } else {
                other_next = others.next();
            }
        }
    }

    /// The first run of the region of `run`, as far as is known.
    fn root(&mut self, mut run: usize) -> usize {
        while self.runs[run] as usize != run {
            self.runs[run] = self.runs[self.runs[run] as usize];
            run = self.runs[run] as usize;
        }
        run
    }

    /// Numbers the regions by their first runs; returns how many there are.
    fn number(&mut self) -> usize {
        let mut count = 0;
        for run in 0..self.runs.len() {
            let before = self.runs[run] as usize;
            if before == run {
                self.runs[run] = count;
                count += 1;
            } else {
                self.runs[run] = self.runs[before];
            }
        }
        count as usize
    }
}

/// Gives the voxels of outlines their labels, those of regions being there.
///
/// # Errors
/// `Codec` unless there are as many locations as are needed, each of which says something.
pub(super) fn fill_outlines<const N: usize>(
    outlines: &Outlines,
    connects_slices: bool,
    locations: &[[u8; N]],
    out: &mut [[u8; N]],
) -> Result<()> {
    let [x, y, _] = outlines.extent;
    let mut locations = locations.iter();
    for (index, start) in (0..out.len()).step_by(x).enumerate() {
        let (ry, rz) = (index % y, index / y);
        let above = (ry > 0).then(|| outlines.row(index - 1));
        let behind = (connects_slices && rz > 0).then(|| outlines.row(index - y));
        let in_region = |row: Option<Row<'_>>, voxel: usize| row.is_some_and(|row| !row.is_outline(voxel));
        for run in outlines.row(index).runs(true) {
            for voxel in run.clone() {
                let at = start + voxel;
                out[at] = if voxel == run.start && voxel > 0 {
                    out[at - 1]
                } else if in_region(above, voxel) {
                    out[at - x]
                } else if in_region(behind, voxel) {
                    out[at - x * y]
                } else {
                    located(outlines, [voxel, ry, rz], &mut locations, out)?
                };
            }
        }
    }
    match locations.len() {
        0 => Ok(()),
        unused => Err(Error::codec(NAME, format!("{unused} locations more than are needed"))),
    }
}

/// The label of a voxel as the next location has it.
fn located<const N: usize>(
    outlines: &Outlines,
    [x, y, z]: [usize; 3],
    locations: &mut std::slice::Iter<'_, [u8; N]>,
    labels: &[[u8; N]],
) -> Result<[u8; N]> {
    let mut next = || locations.next().copied().ok_or_else(|| Error::codec(NAME, "too few locations"));
    let location = to_u64(next()?);
    let neighbour = match location {
        0 => x.checked_sub(1).map(|x| [x, y, z]),
        1 => Some([x + 1, y, z]),
        2 => y.checked_sub(1).map(|y| [x, y, z]),
        3 => Some([x, y + 1, z]),
        4 => z.checked_sub(1).map(|z| [x, y, z]),
        5 => Some([x, y, z + 1]),
        6 => return Ok(from_little_endian(next()?)),
        _ => {
            let mut label = [0; N];
            label.iter_mut().zip((location - 7).to_le_bytes()).for_each(|(byte, of_label)| *byte = of_label);
            return Ok(from_little_endian(label));
        }
    };
    let extent = outlines.extent;
    let inside = neighbour.filter(|[x, y, z]| *x < extent[0] && *y < extent[1] && *z < extent[2]);
    let in_region = inside.filter(|[x, y, z]| !outlines.row(y + extent[1] * z).is_outline(*x));
    let [nx, ny, nz] = in_region
        .ok_or_else(|| Error::codec(NAME, format!("location {location} at {:?}, where no region is", [x, y, z])))?;
    Ok(labels[nx + extent[0] * (ny + extent[1] * nz)])
}
