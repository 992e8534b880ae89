//! Counters of what an engine did.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that several threads add to.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        if n > 0 {
            self.0.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// The number now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What was done.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Counters {
            /// Adds another set of counters to this one.
            pub fn add(&self, other: &Self) {
                $(self.$name.add(other.$name.get());)*
            }

            /// Name and number of each.
            #[must_use]
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

counters! {
    /// Calls that read.
    reads,
    /// Positioned reads, of data and of indexes.
    requests,
    /// Bytes of those.
    bytes_read,
    /// Stored objects looked into.
    objects,
    /// Stored objects that were not there.
    objects_missing,
    /// Chunks decoded.
    chunks_decoded,
    /// Bytes they decoded to.
    bytes_decoded,
    /// Chunks that are not stored.
    chunks_missing,
    /// Indexes found in the cache.
    index_hits,
    /// Indexes read.
    index_misses,
    /// Chunks that were at hand decoded.
    chunk_cache_hits,
    /// Chunks that were not, and were decoded.
    chunk_cache_misses,
}
