//! Blosc's pre-filters, undone: byte shuffle and bit shuffle of one block.
//!
//! A block of `n` elements of `T` bytes is stored as `T` planes of `n` bytes (byte shuffle: plane `j` holds byte `j` of
//! each element) or as `8 T` planes of `n / 8` bytes (bit shuffle: plane `8 j + b` holds bit `b` of byte `j`, eight
//! elements a byte, the first in the lowest bit). Bytes after the last whole element are stored as they are; a block
//! whose number of elements is not a multiple of 8 is not bit-shuffled at all (Blosc 1; Blosc 2 differs).
//!
//! Bit planes are gathered back in two passes over a tile that stays in the first-level cache: eight bit planes -> eight
//! planes of bytes (transposes of 8 x 8 bits), then planes -> elements.

/// Bytes of a bit plane handled at once; a tile holds eight times as many elements.
const TILE: usize = 64;

/// Undoes the byte shuffle of one block. `typesize` in bytes; both slices are equally long.
pub(super) fn unshuffle(typesize: usize, shuffled: &[u8], out: &mut [u8]) {
    debug_assert_eq!(shuffled.len(), out.len());
    if typesize < 2 {
        out.copy_from_slice(shuffled);
        return;
    }
    let elements = shuffled.len() / typesize;
    let (planes, tail) = shuffled.split_at(elements * typesize);
    let (whole, out_tail) = out.split_at_mut(elements * typesize);
    out_tail.copy_from_slice(tail);
    if elements > 0 {
        interleave(typesize, planes, elements, whole);
    }
}

/// Undoes the bit shuffle of one block. `typesize` in bytes; both slices are equally long.
pub(super) fn bit_unshuffle(typesize: usize, shuffled: &[u8], out: &mut [u8]) {
    debug_assert_eq!(shuffled.len(), out.len());
    let elements = shuffled.len() / typesize.max(1);
    if !elements.is_multiple_of(8) || elements == 0 {
        out.copy_from_slice(shuffled);
        return;
    }
    let (planes, tail) = shuffled.split_at(elements * typesize);
    let (whole, out_tail) = out.split_at_mut(elements * typesize);
    out_tail.copy_from_slice(tail);
    let plane = elements / 8;
    let mut tile = vec![0; typesize * 8 * TILE];
    for (index, out) in whole.chunks_mut(typesize * 8 * TILE).enumerate() {
        let (start, len) = (index * TILE, (plane - index * TILE).min(TILE));
        for (byte, elements) in tile.chunks_exact_mut(8 * len).take(typesize).enumerate() {
            let mut rows = [[0; TILE]; 8];
            for (bit, row) in rows.iter_mut().enumerate() {
                let from = (byte * 8 + bit) * plane + start;
                row[..len].copy_from_slice(&planes[from..from + len]);
            }
            transpose_bits(&mut rows);
            interleave_rows(&rows, elements);
        }
        interleave(typesize, &tile[..typesize * 8 * len], 8 * len, out);
    }
}

/// `out[i * typesize + j] = planes[j * elements + i]`.
fn interleave(typesize: usize, planes: &[u8], elements: usize, out: &mut [u8]) {
    match typesize {
        1 => out.copy_from_slice(planes),
        2 => interleave_fixed::<2>(planes, elements, out),
        4 => interleave_fixed::<4>(planes, elements, out),
        8 => interleave_fixed::<8>(planes, elements, out),
        _ => {
            for (j, plane) in planes.chunks_exact(elements).enumerate() {
                for (element, byte) in out.chunks_exact_mut(typesize).zip(plane) {
                    element[j] = *byte;
                }
            }
        }
    }
}

fn interleave_fixed<const T: usize>(planes: &[u8], elements: usize, out: &mut [u8]) {
    let mut rest = planes;
    let planes: [&[u8]; T] = std::array::from_fn(|_| {
        let (plane, after) = rest.split_at(elements);
        rest = after;
        plane
    });
    for (i, element) in out.chunks_exact_mut(T).enumerate().take(elements) {
        for j in 0..T {
            element[j] = planes[j][i];
        }
    }
}

/// Row `k` of the result holds byte `k` of each column's eight: out[8 i + k] = rows[k][i].
fn interleave_rows(rows: &[[u8; TILE]; 8], out: &mut [u8]) {
    for (i, eight) in out.chunks_exact_mut(8).enumerate() {
        for (k, byte) in eight.iter_mut().enumerate() {
            *byte = rows[k][i];
        }
    }
}

/// Transposes the 8 x 8 bits of each column: afterwards bit `b` of `rows[k][i]` is what bit `k` of `rows[b][i]` was.
fn transpose_bits(rows: &mut [[u8; TILE]; 8]) {
    for (distance, mask) in [(4, 0x0fu8), (2, 0x33), (1, 0x55)] {
        for low in (0..8).filter(|row| row & distance == 0) {
            let (head, tail) = rows.split_at_mut(low + distance);
            for (a, b) in head[low].iter_mut().zip(tail[0].iter_mut()) {
                // Swaps the high part of `a` with the low part of `b`.
                let swapped = ((*a >> distance) ^ *b) & mask;
                *b ^= swapped;
                *a ^= swapped << distance;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definitions of the two filters, one bit at a time.
    fn reference(typesize: usize, bits: bool, shuffled: &[u8]) -> Vec<u8> {
        let n = shuffled.len() / typesize;
        let mut out = shuffled.to_vec();
        if bits && !n.is_multiple_of(8) {
            return out;
        }
        for i in 0..n {
            for j in 0..typesize {
                out[i * typesize + j] = if bits {
                    (0..8).map(|b| (shuffled[(j * 8 + b) * (n / 8) + i / 8] >> (i % 8) & 1) << b).sum()
                } else {
                    shuffled[j * n + i]
                };
            }
        }
        out
    }

    #[test]
    fn both_filters_follow_their_definition() {
        for typesize in [1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 32, 255] {
            for n in [0, 1, 7, 8, 9, 15, 16, 24, 31, 32, 33, 64, 100, 504, 512, 520, 1024, 1032, 4000] {
                for tail in [0, 1, typesize - 1] {
                    let shuffled: Vec<u8> = (0..n * typesize + tail)
                        .map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0])
                        .collect();
                    let mut out = vec![0xa5; shuffled.len()];
                    unshuffle(typesize, &shuffled, &mut out);
                    assert_eq!(out, reference(typesize, false, &shuffled), "byte {typesize} {n} {tail}");
                    out.fill(0xa5);
                    bit_unshuffle(typesize, &shuffled, &mut out);
                    assert_eq!(out, reference(typesize, true, &shuffled), "bit {typesize} {n} {tail}");
                }
            }
        }
    }
}
