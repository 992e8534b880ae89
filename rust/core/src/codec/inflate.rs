//! libdeflate's decoder of one gzip member (RFC 1952) or one zlib stream (RFC 1950) of known size.
//!
//! In: the encoded bytes and memory of the decoded size. Out: whether both were filled to their ends; libdeflate compares
//! the checksum. The safe crate does not tell where a stream ended, so that what follows it would go unnoticed.

#![expect(unsafe_code, reason = "calls into libdeflate")]

use std::ptr::NonNull;

use libdeflate_sys::{
    libdeflate_alloc_decompressor, libdeflate_decompressor, libdeflate_free_decompressor,
    libdeflate_gzip_decompress_ex, libdeflate_result_LIBDEFLATE_SUCCESS, libdeflate_zlib_decompress_ex,
};

use super::deflate::Container;

/// A decoder: scratch memory that is written anew by each call.
pub(super) struct Inflater(NonNull<libdeflate_decompressor>);

// SAFETY: the memory belongs to nobody else and to no thread; it is used through `&mut` only.
unsafe impl Send for Inflater {}

impl Inflater {
    /// None when there is no memory for one.
    pub(super) fn new() -> Option<Self> {
        // SAFETY: takes nothing, returns null when there is no memory.
        NonNull::new(unsafe { libdeflate_alloc_decompressor() }).map(Self)
    }

    /// Whether all of `encoded` is one member or stream of exactly `out.len()` bytes, which are in `out` then.
    pub(super) fn decode_exact(&mut self, container: Container, encoded: &[u8], out: &mut [u8]) -> bool {
        let decode = match container {
            Container::Gzip => libdeflate_gzip_decompress_ex,
            Container::Zlib => libdeflate_zlib_decompress_ex,
        };
        let (mut taken, mut decoded) = (0, 0);
        // SAFETY: both lengths are those of the slices, which libdeflate never leaves; the decoder is live and not shared.
        let result = unsafe {
            decode(
                self.0.as_ptr(),
                encoded.as_ptr().cast(),
                encoded.len(),
                out.as_mut_ptr().cast(),
                out.len(),
                &raw mut taken,
                &raw mut decoded,
            )
        };
        result == libdeflate_result_LIBDEFLATE_SUCCESS && taken == encoded.len() && decoded == out.len()
    }
}

impl Drop for Inflater {
    fn drop(&mut self) {
        // SAFETY: made by `libdeflate_alloc_decompressor`, and freed once.
        unsafe { libdeflate_free_decompressor(self.0.as_ptr()) }
    }
}
