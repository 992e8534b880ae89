//! Memory of bodies, used again: the first touch of a page costs more than filling it.

use std::sync::{Arc, Mutex, PoisonError};

/// Smaller bodies are left to the allocator.
const MIN_NBYTES: usize = 1 << 14;
/// What is kept while nothing needs it.
const MAX_KEPT_NBYTES: usize = 1 << 25;

/// Memory that waits for the next body.
#[derive(Default)]
pub struct Recycled(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    blocks: Vec<Vec<u8>>,
    nbytes: usize,
}

/// The bytes of a body; its memory goes back when it is dropped.
pub struct Bytes {
    bytes: Vec<u8>,
    home: Arc<Recycled>,
}

impl Recycled {
    /// An empty body with memory for `capacity` bytes; the smallest block that is large enough, if it is not far larger.
    pub fn take(self: &Arc<Self>, capacity: usize) -> Bytes {
        let mut bytes = Vec::new();
        if capacity >= MIN_NBYTES {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let fitting = kept.blocks.iter().enumerate().filter(|(_, block)| block.capacity() >= capacity);
            let best =
                fitting.min_by_key(|(_, block)| block.capacity()).map(|(index, block)| (index, block.capacity()));
            if let Some((index, nbytes)) = best
                && nbytes / 4 <= capacity
            {
                kept.nbytes -= nbytes;
                bytes = kept.blocks.swap_remove(index);
            }
        }
        bytes.reserve_exact(capacity);
        Bytes { bytes, home: Arc::clone(self) }
    }
}

impl Bytes {
    /// Adds to the end.
    pub fn extend(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} bytes", self.bytes.len())
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let nbytes = bytes.capacity();
        // Never waits: in a forked child the lock may be held by a thread that is not there.
        let Ok(mut kept) = self.home.0.try_lock() else { return };
        if nbytes >= MIN_NBYTES && kept.nbytes + nbytes <= MAX_KEPT_NBYTES {
            kept.nbytes += nbytes;
            kept.blocks.push(bytes);
        }
    }
}
