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

#[cfg(test)]
mod tests {
    use super::*;

    fn address(bytes: &Bytes) -> *const u8 {
        bytes.bytes.as_ptr()
    }

    #[test]
    fn the_best_block_is_used_again_and_never_one_far_too_large() {
        let home = Arc::new(Recycled::default());
        let (mut large, small) = (home.take(1 << 20), home.take(1 << 16));
        large.extend(b"of the last body");
        let (at_large, at_small) = (address(&large), address(&small));
        drop((large, small));
        let (a, b, c) = (home.take(60_000), home.take(1 << 14), home.take(1 << 19));
        assert_eq!((address(&a), address(&c)), (at_small, at_large));
        assert_eq!(b.bytes.capacity(), 1 << 14);
        assert!(c.as_ref().is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_held_lock_keeps_nobody_waiting() {
        let home = Arc::new(Recycled::default());
        drop((0..40).map(|_| home.take(1 << 20)).collect::<Vec<_>>());
        assert_eq!(home.0.lock().unwrap().nbytes, MAX_KEPT_NBYTES);
        drop(home.take(100));
        let body = home.take(1 << 20);
        let held = home.0.lock().unwrap();
        let blocks = held.blocks.len();
        drop(body);
        assert_eq!(held.blocks.len(), blocks);
    }
}
