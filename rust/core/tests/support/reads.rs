//! Random reads and random memory for them.

use voxfetch_core::assemble::Output;
use voxfetch_core::plan::{AxisSelection, Selection};

use super::Choices;
use super::naive::each_place;

/// Bytes before and after the memory of an output, which nobody may touch.
const GUARD: usize = 64;

/// Most voxels of a box.
const BOX_VOXELS: u64 = 2000;

/// A read, in words of the naive reader.
#[derive(Debug)]
pub enum Wanted {
    /// Voxels along each axis, in the order of the places.
    Axes(Vec<Vec<u64>>, Vec<AxisKind>),
    Boxes {
        starts: Vec<Vec<i64>>,
        shape: Vec<u64>,
        fill_outside: bool,
    },
}

#[derive(Debug, Clone, Copy)]
pub enum AxisKind {
    Range { start: u64, step: u64 },
    Indices,
}

impl Wanted {
    /// All voxels.
    pub fn whole(shape: &[u64]) -> Self {
        let kinds = vec![AxisKind::Range { start: 0, step: 1 }; shape.len()];
        Self::Axes(shape.iter().map(|&extent| (0..extent).collect()).collect(), kinds)
    }

    /// Of an array of this shape and chunks of this shape.
    pub fn random(choices: &mut Choices<'_>, shape: &[u64], chunk_shape: &[u64]) -> Self {
        if choices.chance(2) {
            return Self::random_boxes(choices, shape);
        }
        let (mut axes, mut kinds) = (Vec::new(), Vec::new());
        for (&extent, &chunk) in shape.iter().zip(chunk_shape) {
            if choices.chance(4) && extent > 0 {
                axes.push((0..choices.below(8)).map(|_| choices.below(extent)).collect());
                kinds.push(AxisKind::Indices);
                continue;
            }
            let start = choices.below(extent);
            // Steps about as long as a chunk are the ones that just do or do not skip one.
            let step = match choices.below(8) {
                0..5 => 1,
                5 => 1 + choices.below(extent + 2),
                _ => (chunk + choices.below(3)).saturating_sub(1).max(1),
            };
            let most = (extent - start).div_ceil(step);
            let count = if choices.chance(2) { choices.below(most + 1) } else { most };
            axes.push((0..count).map(|k| start + k * step).collect());
            kinds.push(AxisKind::Range { start, step });
        }
        Self::Axes(axes, kinds)
    }

    fn random_boxes(choices: &mut Choices<'_>, shape: &[u64]) -> Self {
        let fill_outside = choices.chance(2);
        let beyond = if fill_outside { 4 } else { 0 };
        let mut left = BOX_VOXELS;
        let mut count = |extent: u64| {
            let count = choices.below((extent + beyond as u64).min(left) + 1);
            left /= count.max(1);
            count
        };
        let counts: Vec<u64> = shape.iter().map(|&extent| count(extent)).collect();
        let starts = (0..choices.below(6))
            .map(|_| {
                let axes = shape.iter().zip(&counts);
                axes.map(|(&extent, &count)| {
                    let last = if fill_outside { extent as i64 + beyond } else { extent as i64 - count as i64 };
                    match choices.below(50) {
                        49 if fill_outside => choices.pick(&[i64::MIN, i64::MAX, -1 << 40]),
                        _ => choices.between(if fill_outside { -beyond - count as i64 } else { 0 }, last),
                    }
                })
                .collect()
            })
            .collect();
        // One box without axes is the whole array without axes.
        Self::Boxes { starts: if shape.is_empty() { vec![vec![]] } else { starts }, shape: counts, fill_outside }
    }

    pub fn selection(&self) -> Selection {
        match self {
            Self::Axes(axes, kinds) => {
                let axis = |(voxels, kind): (&Vec<u64>, &AxisKind)| match *kind {
                    AxisKind::Range { start, step } => AxisSelection::Range { start, step, count: voxels.len() as u64 },
                    AxisKind::Indices => {
                        let mut pairs: Vec<(u64, u64)> =
                            voxels.iter().enumerate().map(|(place, &voxel)| (voxel, place as u64)).collect();
                        pairs.sort_unstable();
                        AxisSelection::Indices(pairs)
                    }
                };
                Selection::Axes(axes.iter().zip(kinds).map(axis).collect())
            }
            Self::Boxes { starts, shape, fill_outside } => {
                Selection::Boxes { starts: starts.concat(), shape: shape.clone(), fill_outside: *fill_outside }
            }
        }
    }

    /// Boxes, and places along each axis of one.
    fn counts(&self) -> (usize, Vec<u64>) {
        match self {
            Self::Axes(axes, _) => (1, axes.iter().map(|voxels| voxels.len() as u64).collect()),
            Self::Boxes { starts, shape, .. } => (starts.len(), shape.clone()),
        }
    }

    /// Calls `each` with the box, the place in it and the voxel that belongs there.
    pub fn each(&self, mut each: impl FnMut(usize, &[u64], &[i64])) {
        let (boxes, counts) = self.counts();
        for part in 0..boxes {
            each_place(&counts, &mut |place| {
                let voxel: Vec<i64> = match self {
                    Self::Axes(axes, _) => {
                        place.iter().zip(axes).map(|(&p, voxels)| voxels[p as usize] as i64).collect()
                    }
                    // A start near the ends of i64 is outside of any array, however far.
                    Self::Boxes { starts, .. } => {
                        place.iter().zip(&starts[part]).map(|(&p, start)| start.saturating_add(p as i64)).collect()
                    }
                };
                each(part, place, &voxel);
            });
        }
    }
}

/// Where the places of a read lie in a string of bytes.
#[derive(Debug)]
pub struct Memory {
    pub nbytes: usize,
    first: usize,
    boxes: usize,
    counts: Vec<u64>,
    box_stride: isize,
    strides: Vec<isize>,
}

impl Memory {
    /// Axes (and boxes) in any order of memory, some backwards, some with gaps.
    pub fn random(choices: &mut Choices<'_>, wanted: &Wanted, item_size: usize) -> Self {
        let (boxes, counts) = wanted.counts();
        let extents: Vec<u64> = [boxes as u64].iter().chain(&counts).copied().collect();
        let packed = choices.chance(2);
        let order = if packed { (0..extents.len()).collect() } else { choices.permutation(extents.len()) };
        let mut strides = vec![0isize; extents.len()];
        let (mut stride, mut first) = (item_size as isize, GUARD as isize);
        for &axis in order.iter().rev() {
            if !packed && choices.chance(3) {
                stride += choices.between(1, 9) as isize;
            }
            let count = extents[axis] as isize;
            strides[axis] = stride;
            if !packed && choices.chance(4) {
                strides[axis] = -stride;
                first += stride * (count - 1).max(0);
            }
            stride *= count.max(1);
        }
        let box_stride = strides.remove(0);
        Self { nbytes: stride as usize + 2 * GUARD, first: first as usize, boxes, counts, box_stride, strides }
    }

    /// First byte of a place.
    pub fn at(&self, part: usize, place: &[u64]) -> usize {
        let offset: isize = place.iter().zip(&self.strides).map(|(&p, stride)| p as isize * stride).sum();
        (self.first as isize + part as isize * self.box_stride + offset) as usize
    }

    pub fn output(&self, bytes: &mut [u8]) -> Output {
        assert_eq!(bytes.len(), self.nbytes);
        let base = bytes.as_mut_ptr().wrapping_add(self.first);
        // SAFETY: all places lie inside `bytes` and none overlap, by construction of the strides; the callers use the
        // output only while they hold `bytes`.
        unsafe { Output::new(base, self.boxes, self.box_stride, self.counts.clone(), self.strides.clone()) }
    }
}
