//! Blosc's pre-filters, undone: byte shuffle and bit shuffle of one block.
//!
//! A block of `n` elements of `T` bytes is stored as `T` planes of `n` bytes (byte shuffle: plane `j` holds byte `j` of
//! each element) or as `8 T` planes of `n / 8` bytes (bit shuffle: plane `8 j + b` holds bit `b` of byte `j`, eight
//! elements a byte, the first in the lowest bit). Bytes after the last whole element are stored as they are; a block
//! whose number of elements is not a multiple of 8 is not bit-shuffled at all (Blosc 1; Blosc 2 differs).
//!
//! Bit planes are gathered back in two passes over a tile that stays in the first-level cache: eight bit planes -> eight
//! planes of bytes (transposes of 8 x 8 bits), then planes -> elements.

use super::simd;

/// Most bytes of a bit plane handled at once; a tile holds eight times as many elements.
const TILE: usize = 256;

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

/// Undoes the bit shuffle of one block. `typesize` in bytes; both slices are equally long. `tile` is scratch memory.
pub(super) fn bit_unshuffle(typesize: usize, shuffled: &[u8], tile: &mut Vec<u8>, out: &mut [u8]) {
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
    let width = plane.min(TILE);
    tile.resize(typesize * 8 * width, 0);
    let mut rows = [[0; TILE]; 8];
    for (index, out) in whole.chunks_mut(typesize * 8 * width).enumerate() {
        let start = index * width;
        let len = (plane - start).min(width);
        for (byte, elements) in tile.chunks_exact_mut(8 * width).enumerate() {
            for (bit, row) in rows.iter_mut().enumerate() {
                let from = (byte * 8 + bit) * plane + start;
                row[..len].copy_from_slice(&planes[from..from + len]);
            }
            simd::transpose_bits(&mut rows);
            interleave(8, rows.as_flattened(), TILE, elements);
        }
        interleave(typesize, tile, 8 * width, out);
    }
}

/// `out[i * typesize + j] = planes[j * stride + i]`; the length of `out` tells how many elements there are.
fn interleave(typesize: usize, planes: &[u8], stride: usize, out: &mut [u8]) {
    match typesize {
        1 => out.copy_from_slice(&planes[..out.len()]),
        2 => interleave_fixed::<2>(planes, stride, out),
        4 => interleave_fixed::<4>(planes, stride, out),
        8 => interleave_fixed::<8>(planes, stride, out),
        16 => interleave_fixed::<16>(planes, stride, out),
        _ => {
            for (j, plane) in planes.chunks_exact(stride).enumerate() {
                for (element, byte) in out.chunks_exact_mut(typesize).zip(plane) {
                    element[j] = *byte;
                }
            }
        }
    }
}

fn interleave_fixed<const T: usize>(planes: &[u8], stride: usize, out: &mut [u8]) {
    let planes: [&[u8]; T] = std::array::from_fn(|j| &planes[j * stride..(j + 1) * stride]);
    let done = simd::interleave(planes, out);
    for (i, element) in out.chunks_exact_mut(T).enumerate().skip(done) {
        for (byte, plane) in element.iter_mut().zip(planes) {
            *byte = plane[i];
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
        let mut tile = Vec::new();
        for typesize in [1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 32, 255] {
            for n in [0, 1, 7, 8, 9, 15, 16, 24, 31, 32, 33, 64, 100, 504, 512, 520, 1024, 1032, 2048, 2056, 4104] {
                for tail in [0, 1, typesize - 1] {
                    let shuffled: Vec<u8> = (0..n * typesize + tail)
                        .map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0])
                        .collect();
                    let mut out = vec![0xa5; shuffled.len()];
                    unshuffle(typesize, &shuffled, &mut out);
                    assert_eq!(out, reference(typesize, false, &shuffled), "byte {typesize} {n} {tail}");
                    out.fill(0xa5);
                    bit_unshuffle(typesize, &shuffled, &mut tile, &mut out);
                    assert_eq!(out, reference(typesize, true, &shuffled), "bit {typesize} {n} {tail}");
                }
            }
        }
    }
}
