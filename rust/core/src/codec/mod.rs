//! Codecs of one chunk: encoded bytes -> elements in native byte order, and back.
//!
//! A [`CodecChain`] is prepared once for an array; a [`CodecContext`] holds what one thread re-uses from chunk to chunk
//! (codec contexts and scratch memory), so that decoding a chunk allocates nothing.

use crate::dtype::{DataType, Endian};
use crate::error::Result;
use crate::metadata::CodecSpec;

/// Whether checksums that are present are computed and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Every checksum.
    #[default]
    Full,
    /// Only those that cost nothing.
    Cheap,
}

/// Scratch memory and codec contexts of one thread.
#[derive(Default)]
pub struct CodecContext {}

/// The bytes -> bytes codecs of a chunk and the byte order of its elements, prepared for chunks of one size.
#[derive(Debug)]
pub struct CodecChain {
    decoded_nbytes: usize,
}

impl CodecChain {
    /// Prepares the codecs of a chunk of `decoded_nbytes` bytes. `specs` are bytes -> bytes codecs in encoding order.
    ///
    /// # Errors
    /// `Metadata` when a codec that is not bytes -> bytes is among them.
    pub fn new(specs: &[CodecSpec], endian: Endian, dtype: &DataType, decoded_nbytes: usize) -> Result<Self> {
        let _ = (specs, endian, dtype);
        Ok(Self { decoded_nbytes })
    }

    /// Bytes of a decoded chunk.
    #[must_use]
    pub fn decoded_nbytes(&self) -> usize {
        self.decoded_nbytes
    }
}
