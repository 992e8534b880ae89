//! Strided n-D copies: the inner loops of assembly.
//!
//! Dimensions are reordered so that the destination is written in memory order, and merged where both sides are
//! contiguous. Then one of three kernels runs: rows of bytes, a transposed plane, single items.

#![expect(unsafe_code, reason = "raw strided memory")]

use std::ptr;

use super::tile::{self, Tile};

/// Items along each side of a tile.
const TILE: usize = 8;

/// One dimension of a copy: `count` items, strides in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dim {
    pub count: usize,
    pub src: isize,
    pub dst: isize,
}

/// Drops dimensions of one item, sorts the rest so that the destination's smallest stride is last, merges neighbours that
/// are one run on both sides. False when nothing is to be copied.
fn normalise(dims: &mut Vec<Dim>) -> bool {
    if dims.iter().any(|d| d.count == 0) {
        return false;
    }
    dims.retain(|d| d.count > 1);
    dims.sort_by_key(|d| std::cmp::Reverse(d.dst.unsigned_abs()));
    let mut kept = 0;
    for i in 1..dims.len() {
        let (outer, inner) = (dims[kept], dims[i]);
        let n = inner.count as isize;
        if outer.dst == inner.dst * n && outer.src == inner.src * n {
            dims[kept] = Dim { count: outer.count * inner.count, ..inner };
        } else {
            kept += 1;
            dims[kept] = inner;
        }
    }
    dims.truncate(kept + 1);
    true
}

/// Calls `each` with the two offsets of every combination of the outer dimensions.
fn walk(outer: &[Dim], src: *const u8, dst: *mut u8, each: &mut dyn FnMut(*const u8, *mut u8)) {
    match outer {
        [] => each(src, dst),
        [first, rest @ ..] => {
            let (mut src, mut dst) = (src, dst);
            for _ in 0..first.count {
                walk(rest, src, dst, each);
                src = src.wrapping_offset(first.src);
                dst = dst.wrapping_offset(first.dst);
            }
        }
    }
}

/// Copies items of `item_size` bytes.
///
/// # Safety
/// Every source item is readable, every destination item writable, and no source byte is a destination byte.
pub(super) unsafe fn strided(src: *const u8, dst: *mut u8, mut dims: Vec<Dim>, item_size: usize) {
    if !normalise(&mut dims) {
        return;
    }
    let item = item_size as isize;
    let Some((&inner, outer)) = dims.split_last() else {
        // SAFETY: one item, by the caller's contract.
        unsafe { ptr::copy_nonoverlapping(src, dst, item_size) };
        return;
    };
    if inner.src == item && inner.dst == item {
        let nbytes = inner.count * item_size;
        // SAFETY: rows of contiguous items on both sides, by the caller's contract.
        unsafe { rows(src, dst, outer, nbytes) };
        return;
    }
    let other = outer.iter().position(|d| d.src == item);
    if let (true, Some(other)) = (inner.dst == item, other) {
        let along = outer[other];
        let mut rest = outer.to_vec();
        rest.remove(other);
        let plane = Plane { rows: along.count, columns: inner.count, src_column: inner.src, dst_row: along.dst };
        walk(&rest, src, dst, &mut |src, dst| {
            // SAFETY: one plane of items, by the caller's contract.
            unsafe {
                match item_size {
                    1 => plane.transpose(src, dst, tile::bytes),
                    2 => plane.transpose(src, dst, tile::pairs),
                    4 => plane.transpose(src, dst, tile::quads),
                    8 => plane.transpose(src, dst, tile::words),
                    _ => plane.transpose_any(src, dst, item_size),
                }
            }
        });
        return;
    }
    walk(outer, src, dst, &mut |src, dst| {
        // SAFETY: one run of single items, by the caller's contract.
        unsafe {
            match item_size {
                1 => single::<u8>(src, dst, inner),
                2 => single::<u16>(src, dst, inner),
                4 => single::<u32>(src, dst, inner),
                8 => single::<u64>(src, dst, inner),
                _ => {
                    for i in 0..inner.count as isize {
                        ptr::copy_nonoverlapping(src.offset(i * inner.src), dst.offset(i * inner.dst), item_size);
                    }
                }
            }
        }
    });
}

/// # Safety
/// As [`strided`], for rows of `nbytes` contiguous bytes.
unsafe fn rows(src: *const u8, dst: *mut u8, outer: &[Dim], nbytes: usize) {
    // The usual row lengths as constants become a few vector moves; a call of memcpy costs more than it copies.
    macro_rules! fixed {
        ($($n:literal)*) => {
            match nbytes {
                // SAFETY: by the caller's contract; a row has exactly this many bytes.
                $($n => unsafe { rows_of(src, dst, outer, |s, d| ptr::copy_nonoverlapping(s, d, $n)) },)*
                // SAFETY: by the caller's contract.
                _ => unsafe { rows_of(src, dst, outer, |s, d| ptr::copy_nonoverlapping(s, d, nbytes)) },
            }
        };
    }
    fixed!(8 16 32 64 128 256)
}

/// # Safety
/// `copy_row` copies one row between pointers that [`rows`] may use.
#[inline(always)]
unsafe fn rows_of(src: *const u8, dst: *mut u8, outer: &[Dim], copy_row: impl Fn(*const u8, *mut u8) + Copy) {
    let Some((&last, rest)) = outer.split_last() else {
        copy_row(src, dst);
        return;
    };
    walk(rest, src, dst, &mut |mut src, mut dst| {
        for _ in 0..last.count {
            copy_row(src, dst);
            src = src.wrapping_offset(last.src);
            dst = dst.wrapping_offset(last.dst);
        }
    });
}

/// # Safety
/// As [`strided`], along one dimension of items of `size_of::<T>()` bytes.
unsafe fn single<T: Copy>(src: *const u8, dst: *mut u8, dim: Dim) {
    let (mut src, mut dst) = (src, dst);
    for _ in 0..dim.count {
        // SAFETY: one item on each side, by the caller's contract; nothing is known of their alignment.
        unsafe { dst.cast::<T>().write_unaligned(src.cast::<T>().read_unaligned()) };
        src = src.wrapping_offset(dim.src);
        dst = dst.wrapping_offset(dim.dst);
    }
}

/// A plane whose rows are contiguous in the destination and whose columns are contiguous in the source.
#[derive(Clone, Copy)]
struct Plane {
    rows: usize,
    columns: usize,
    /// Source bytes from one column to the next.
    src_column: isize,
    /// Destination bytes from one row to the next.
    dst_row: isize,
}

impl Plane {
    /// Transposes items of `S` bytes, of which `turn` transposes a tile.
    ///
    /// # Safety
    /// As [`strided`], for the items of the plane.
    unsafe fn transpose<const S: usize>(self, src: *const u8, dst: *mut u8, turn: impl Fn(Tile<S>) -> Tile<S> + Copy) {
        // Blocks keep the source lines of a tile in L1 while its destination rows are written. Where columns lie a
        // multiple of 4 KiB apart, as in chunks of 64^3, their lines share one set of it, which holds 8 or 12.
        const ROWS: usize = 16;
        let (rows, columns) = (self.rows / TILE * TILE, self.columns / TILE * TILE);
        let item = S as isize;
        let at = |row: usize, column: usize| {
            let (row, column) = (row as isize, column as isize);
            let from = src.wrapping_offset(row * item + column * self.src_column);
            (from, dst.wrapping_offset(row * self.dst_row + column * item))
        };
        for block in (0..rows).step_by(ROWS) {
            for column in (0..columns).step_by(TILE) {
                for row in (block..rows.min(block + ROWS)).step_by(TILE) {
                    let (mut from, mut to) = at(row, column);
                    let mut tile = [[0; S]; TILE];
                    for line in &mut tile {
                        // SAFETY: 8 items of a column of the plane; nothing is known of their alignment.
                        *line = unsafe { from.cast::<[u64; S]>().read_unaligned() };
                        from = from.wrapping_offset(self.src_column);
                    }
                    for line in turn(tile) {
                        // SAFETY: 8 items of a row of the plane.
                        unsafe { to.cast::<[u64; S]>().write_unaligned(line) };
                        to = to.wrapping_offset(self.dst_row);
                    }
                }
            }
        }
        // What is left at the two ends.
        for row in 0..self.rows {
            for column in (if row < rows { columns } else { 0 })..self.columns {
                let (from, to) = at(row, column);
                // SAFETY: item (row, column) of the plane.
                unsafe { ptr::copy_nonoverlapping(from, to, S) };
            }
        }
    }

    /// # Safety
    /// As [`strided`], for the items of the plane.
    unsafe fn transpose_any(self, src: *const u8, dst: *mut u8, item_size: usize) {
        let item = item_size as isize;
        for row in 0..self.rows as isize {
            for column in 0..self.columns as isize {
                let from = src.wrapping_offset(row * item + column * self.src_column);
                let to = dst.wrapping_offset(row * self.dst_row + column * item);
                // SAFETY: item (row, column) of the plane.
                unsafe { ptr::copy_nonoverlapping(from, to, item_size) };
            }
        }
    }
}

/// Writes `value` to every item.
///
/// # Safety
/// Every destination item is writable.
pub(super) unsafe fn fill(value: &[u8], dst: *mut u8, mut dims: Vec<Dim>) {
    for dim in &mut dims {
        dim.src = 0;
    }
    // A source stride of 0 would keep neighbours from merging; give each the destination's, the source is not read by it.
    let mut merged: Vec<Dim> = dims.iter().map(|d| Dim { src: d.dst, ..*d }).collect();
    if !normalise(&mut merged) {
        return;
    }
    let item = value.len() as isize;
    let uniform = value.iter().all(|byte| Some(byte) == value.first()).then(|| value.first().copied()).flatten();
    let (inner, outer) = match merged.split_last() {
        Some((&inner, outer)) => (inner, outer),
        None => (Dim { count: 1, src: item, dst: item }, &[][..]),
    };
    walk(outer, ptr::null(), dst, &mut |_, dst| {
        // SAFETY: one run of items, by the caller's contract.
        unsafe {
            match uniform {
                Some(byte) if inner.dst == item => ptr::write_bytes(dst, byte, inner.count * value.len()),
                _ => {
                    for i in 0..inner.count as isize {
                        ptr::copy_nonoverlapping(value.as_ptr(), dst.offset(i * inner.dst), value.len());
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::{Dim, fill, strided};
    use proptest::prelude::*;

    /// The naive copy: one item at a time, every dimension on its own.
    fn naive(src: &[u8], dst: &mut [u8], at: (isize, isize), dims: &[Dim], item: usize) {
        match dims {
            [] => {
                let (s, d) = (at.0 as usize, at.1 as usize);
                dst[d..d + item].copy_from_slice(&src[s..s + item]);
            }
            [first, rest @ ..] => {
                for i in 0..first.count as isize {
                    naive(src, dst, (at.0 + i * first.src, at.1 + i * first.dst), rest, item);
                }
            }
        }
    }

    /// Dimensions over a packed source and a destination with its axes permuted, some reversed, and gaps.
    fn case() -> impl Strategy<Value = (Vec<usize>, Vec<usize>, Vec<bool>, usize, usize)> {
        (1usize..5).prop_flat_map(|rank| {
            (
                prop::collection::vec(1usize..40, rank).prop_filter("small", |s| s.iter().product::<usize>() < 20_000),
                Just((0..rank).collect::<Vec<_>>()).prop_shuffle(),
                prop::collection::vec(any::<bool>(), rank),
                prop::sample::select(vec![1usize, 2, 3, 4, 8, 16]),
                0usize..3,
            )
        })
    }

    proptest! {
        #[test]
        fn equals_the_naive_copy((shape, order, reversed, item, gap) in case()) {
            let mut dims: Vec<Dim> = shape.iter().map(|&count| Dim { count, src: 0, dst: 0 }).collect();
            let mut stride = item as isize;
            for dim in dims.iter_mut().rev() {
                dim.src = stride;
                stride *= dim.count as isize;
            }
            let src: Vec<u8> = (0..stride).map(|i| (i * 31 % 251) as u8).collect();
            let mut start = 0;
            let mut stride = item as isize;
            for &axis in order.iter().rev() {
                let span = stride * dims[axis].count as isize;
                dims[axis].dst = if reversed[axis] { -stride } else { stride };
                if reversed[axis] {
                    start += span - stride;
                }
                stride = span + (gap * item) as isize;
            }
            let mut expected = vec![0xA5u8; stride as usize + item];
            let mut got = expected.clone();
            naive(&src, &mut expected, (0, start), &dims, item);
            // SAFETY: the dimensions address items inside both buffers, as the naive copy has just shown.
            unsafe { strided(src.as_ptr(), got.as_mut_ptr().offset(start), dims.clone(), item) };
            prop_assert_eq!(&got, &expected);

            let value: Vec<u8> = (0..item).map(|i| i as u8 % 3).collect();
            for dim in &mut dims {
                dim.src = 0;
            }
            naive(&value, &mut expected, (0, start), &dims, item);
            // SAFETY: as above.
            unsafe { fill(&value, got.as_mut_ptr().offset(start), dims) };
            prop_assert_eq!(got, expected);
        }
    }
}
