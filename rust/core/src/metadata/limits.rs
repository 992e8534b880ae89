//! Bounds on what a document or an encoded chunk may ask for. Sizes in files are hostile until checked against these.

/// Bytes of one metadata document.
pub const MAX_DOCUMENT_NBYTES: usize = 16 << 20;
/// Nesting of JSON values in a document.
pub const MAX_DOCUMENT_DEPTH: usize = 64;
/// JSON values in a document, without the attributes.
pub const MAX_DOCUMENT_VALUES: usize = 1 << 18;
/// Codecs in one list of a document.
pub const MAX_CODECS: usize = 32;
/// Bytes of one element.
pub const MAX_ITEM_NBYTES: u64 = 1 << 20;
/// Fields of one record.
pub const MAX_FIELDS: usize = 1 << 12;
/// Levels of sharding inside sharding.
pub const MAX_SHARD_LEVELS: usize = 4;
/// Cells of an irregular chunk grid, those of all axes together (32 MiB of offsets).
pub const MAX_LISTED_CELLS: u64 = 1 << 22;
/// Bytes of one encoded shard index (4 Mi chunks; a shard of 32^3 chunks needs 512 KiB).
pub const MAX_INDEX_NBYTES: u64 = 64 << 20;
/// Bytes of one decoded chunk (Blosc's own limit).
pub const MAX_CHUNK_NBYTES: u64 = (2 << 30) - 1;

/// The most bytes that `decoded` bytes may take when encoded: twice as many and 64 KiB.
#[must_use]
pub fn max_encoded_nbytes(decoded: u64) -> u64 {
    decoded.saturating_mul(2).saturating_add(64 << 10)
}
