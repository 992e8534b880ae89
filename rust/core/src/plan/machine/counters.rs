//! What a machine counts.

/// Numbers since the start.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counters {
    /// Bodies received.
    pub requests: u64,
    /// Bytes of those.
    pub bytes_read: u64,
    /// Objects that visits found known.
    pub index_hits: u64,
    /// Indexes decoded.
    pub index_misses: u64,
    /// Chunks decoded.
    pub chunks_decoded: u64,
    /// Bytes they decoded to.
    pub bytes_decoded: u64,
    /// Chunks that were not stored.
    pub chunks_missing: u64,
    /// Chunks that were at hand decoded.
    pub chunk_cache_hits: u64,
    /// Chunks that were not, and were decoded.
    pub chunk_cache_misses: u64,
}
