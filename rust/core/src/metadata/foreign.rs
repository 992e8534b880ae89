//! Codecs that are decoded outside of the core: who knows them, and what the core keeps of one.
//!
//! To the core such a codec is bytes -> bytes. Where it is the first of an array whose elements have no fixed size, it
//! decodes a chunk to one number of 8 bytes for each element, in native byte order; what a number stands for only its
//! decoder knows. Number 0 is the fill value.

use std::fmt;
use std::sync::Arc;

use crate::error::Result;

/// Knows codecs that the core does not.
pub trait ForeignCodecs {
    /// The codec of this name, None when it is not known here either. `configuration` is the JSON text of its settings,
    /// `objects` tells that what it encodes is elements of no fixed size.
    ///
    /// # Errors
    /// Why a codec that is known cannot be decoded.
    fn find(&self, name: &str, configuration: &str, objects: bool) -> Result<Option<ForeignCodec>>;
}

/// Knows none.
#[derive(Debug, Clone, Copy)]
pub struct NoForeignCodecs;

impl ForeignCodecs for NoForeignCodecs {
    fn find(&self, _: &str, _: &str, _: bool) -> Result<Option<ForeignCodec>> {
        Ok(None)
    }
}

/// Decodes one codec, on any thread.
pub trait ForeignDecode: Send + Sync {
    /// Decodes to at most `limit` bytes; exactly as many when they are a chunk or have another known size.
    ///
    /// # Errors
    /// `Codec` when the bytes are refused, or are more than `limit` decoded.
    fn decode(&self, encoded: &[u8], limit: u64) -> Result<Vec<u8>>;
}

/// A codec with its settings, and its decoder. Equal where the former are.
#[derive(Clone)]
pub struct ForeignCodec {
    /// Name in the document.
    pub name: String,
    /// Settings, as JSON.
    pub configuration: String,
    /// Whether it decodes to numbers that stand for elements of no fixed size.
    pub objects: bool,
    /// What decodes it, for people to read.
    pub through: String,
    /// Its decoder.
    pub decoder: Arc<dyn ForeignDecode>,
}

impl PartialEq for ForeignCodec {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.configuration, self.objects) == (&other.name, &other.configuration, other.objects)
    }
}

/// Tells apart what `==` does: chunks are kept under it.
impl fmt::Debug for ForeignCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, configuration, objects, .. } = self;
        f.debug_tuple("ForeignCodec").field(name).field(configuration).field(objects).finish()
    }
}
