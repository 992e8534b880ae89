//! Planes of bytes -> elements, 16 elements at a time, with the unpack instructions of x86-64. The only unsafe code of
//! the codecs: loads and stores of whole vectors, and calls of functions compiled for AVX2.
//!
//! Every function here does as much as fits its vectors and returns how many elements that were; the caller does the
//! rest. On other machines that is all of it.
#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "vector loads and stores, calls of AVX2 functions"))]

/// `out[i * T + j] = planes[j][i]` for the first elements `i`; returns how many. `T` is a power of two.
#[cfg(target_arch = "x86_64")]
pub(super) fn interleave<const T: usize>(planes: [&[u8]; T], out: &mut [u8]) -> usize {
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 is there. The function itself is safe code but for its loads and stores.
        unsafe { x86::interleave_avx2(planes, out) }
    } else {
        // SAFETY: SSE2 is part of every x86-64. Otherwise as above.
        unsafe { x86::interleave_sse2(planes, out) }
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn interleave<const T: usize>(_: [&[u8]; T], _: &mut [u8]) -> usize {
    0
}

/// Transposes the 8 x 8 bits of each column: afterwards bit `b` of `rows[k][i]` is what bit `k` of `rows[b][i]` was.
pub(super) fn transpose_bits<const N: usize>(rows: &mut [[u8; N]; 8]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 is there. The function is safe code, compiled for it.
        unsafe { x86::transpose_bits_avx2(rows) };
        return;
    }
    transpose_bits_plain(rows);
}

// Plain loops over arrays, which the compiler turns into vectors of whatever width it may use.
#[inline(always)]
fn transpose_bits_plain<const N: usize>(rows: &mut [[u8; N]; 8]) {
    swap_bits::<N, 4>(rows, 0x0f);
    swap_bits::<N, 2>(rows, 0x33);
    swap_bits::<N, 1>(rows, 0x55);
}

/// Swaps the high bits of each row without `DISTANCE` in its number with the low bits of the row `DISTANCE` further.
#[inline(always)]
fn swap_bits<const N: usize, const DISTANCE: usize>(rows: &mut [[u8; N]; 8], mask: u8) {
    for low in (0..8).filter(|row| row & DISTANCE == 0) {
        let (head, tail) = rows.split_at_mut(low + DISTANCE);
        for (a, b) in head[low].iter_mut().zip(&mut tail[0]) {
            let swapped = ((*a >> DISTANCE) ^ *b) & mask;
            *b ^= swapped;
            *a ^= swapped << DISTANCE;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    // A vector of plane `j` holds one byte of each of its elements: its number is `j`, the lane is `i`. Unpacking the
    // vectors `m` and `m + T / 2` byte by byte moves the top bit of `j` to the bottom of the lane number and the top bit
    // of `i` to the bottom of the vector number. After log2(T) such rounds the lanes count `i * T + j`, as wanted.

    #[target_feature(enable = "sse2")]
    pub(super) fn interleave_sse2<const T: usize>(planes: [&[u8]; T], out: &mut [u8]) -> usize {
        let planes = planes.map(|plane| plane.as_chunks::<16>().0);
        let blocks = planes.iter().map(|plane| plane.len()).min().unwrap_or(0);
        let (out, _) = out.as_chunks_mut::<16>();
        let mut done = 0;
        for (block, out) in out.chunks_exact_mut(T).take(blocks).enumerate() {
            let mut vectors = [_mm_setzero_si128(); T];
            for (vector, plane) in vectors.iter_mut().zip(planes) {
                *vector = load_128(&plane[block]);
            }
            for _ in 0..T.ilog2() {
                let before = vectors;
                for m in 0..T / 2 {
                    vectors[2 * m] = _mm_unpacklo_epi8(before[m], before[m + T / 2]);
                    vectors[2 * m + 1] = _mm_unpackhi_epi8(before[m], before[m + T / 2]);
                }
            }
            for (to, vector) in out.iter_mut().zip(vectors) {
                store_128(to, vector);
            }
            done += 16;
        }
        done
    }

    /// As above in each half of the vectors; the halves hold elements 0-15 and 16-31 of a block and are put together last.
    #[target_feature(enable = "avx2")]
    pub(super) fn interleave_avx2<const T: usize>(planes: [&[u8]; T], out: &mut [u8]) -> usize {
        let planes = planes.map(|plane| plane.as_chunks::<32>().0);
        let blocks = planes.iter().map(|plane| plane.len()).min().unwrap_or(0);
        let (out, _) = out.as_chunks_mut::<32>();
        let mut done = 0;
        for (block, out) in out.chunks_exact_mut(T).take(blocks).enumerate() {
            let mut vectors = [_mm256_setzero_si256(); T];
            for (vector, plane) in vectors.iter_mut().zip(planes) {
                *vector = load_256(&plane[block]);
            }
            for _ in 0..T.ilog2() {
                let before = vectors;
                for m in 0..T / 2 {
                    vectors[2 * m] = _mm256_unpacklo_epi8(before[m], before[m + T / 2]);
                    vectors[2 * m + 1] = _mm256_unpackhi_epi8(before[m], before[m + T / 2]);
                }
            }
            for m in 0..T / 2 {
                let (a, b) = (vectors[2 * m], vectors[2 * m + 1]);
                store_256(&mut out[m], _mm256_permute2x128_si256::<0x20>(a, b));
                store_256(&mut out[m + T / 2], _mm256_permute2x128_si256::<0x31>(a, b));
            }
            done += 32;
        }
        done
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn transpose_bits_avx2<const N: usize>(rows: &mut [[u8; N]; 8]) {
        super::transpose_bits_plain(rows);
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn load_128(from: &[u8; 16]) -> __m128i {
        // SAFETY: the reference is to 16 readable bytes; the load needs no alignment.
        unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn store_128(to: &mut [u8; 16], vector: __m128i) {
        // SAFETY: the reference is to 16 writable bytes; the store needs no alignment.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), vector) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load_256(from: &[u8; 32]) -> __m256i {
        // SAFETY: the reference is to 32 readable bytes; the load needs no alignment.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn store_256(to: &mut [u8; 32], vector: __m256i) {
        // SAFETY: the reference is to 32 writable bytes; the store needs no alignment.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), vector) }
    }
}
