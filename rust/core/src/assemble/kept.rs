//! Chunks that are kept decoded: delivered from memory, or decoded whole so that they can be kept.

use std::sync::Arc;

use super::{Assembly, Encoded, place};
use crate::codec::CodecContext;
use crate::error::Result;
use crate::plan::shard::Extent;
use crate::plan::{Item, Visit};

impl Assembly<'_> {
    /// Delivers a chunk that is at hand decoded to all items that need it.
    ///
    /// # Errors
    /// `Internal` when a projection reaches outside the chunk or its output.
    pub fn deliver_kept(&self, visit: &Visit<'_>, items: &[Item], elements: &[u8]) -> Result<()> {
        let array = &*self.plan.arrays()[visit.array];
        let shape = array.chunk_box(&visit.shard);
        let mut parts = Vec::with_capacity(array.rank());
        for &item in items {
            if let Some((output, part)) = self.output(visit, item) {
                self.plan.project(visit, item, &mut parts)?;
                place(Some((elements, 0)), &[], &parts, output, part, &shape)?;
            }
        }
        Ok(())
    }

    /// Decodes a chunk whole, keeps it and delivers it; false when it is to be delivered without being kept.
    ///
    /// Decoding all of a chunk of which a part is needed costs more once. Whoever turns the cache on is about to read more
    /// of the same chunks, and each further part of one costs a copy then.
    pub(super) fn deliver_and_keep(
        &self,
        codec: &mut CodecContext,
        visit: &Visit<'_>,
        items: &[Item],
        encoded: Encoded<'_>,
    ) -> Result<bool> {
        let (Some(cache), Extent::Whole, Some(first)) = (self.cache, encoded.extent, items.first()) else {
            return Ok(false);
        };
        let array = &*self.plan.arrays()[visit.array];
        if !cache.admit(1, array.chunk_nbytes) {
            return Ok(false);
        }
        let mut elements: Arc<[u8]> = std::iter::repeat_n(0, array.chunk_box(&visit.shard).nbytes()).collect();
        let Some(memory) = Arc::get_mut(&mut elements) else { return Ok(false) };
        let all = 0..memory.len();
        if array.decode_window(codec, encoded.bytes, self.verify, &visit.shard, all, memory).is_err() {
            // It may be broken where nobody needs it: a cache changes nothing in what a read returns.
            return Ok(false);
        }
        cache.insert(first.chunk, Arc::clone(&elements));
        self.deliver_kept(visit, items, &elements)?;
        Ok(true)
    }
}
