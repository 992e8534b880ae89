//! Chunks that are at hand decoded: what visits get of them, and the name under which others are kept.
//!
//! A version with a strong ETag is the same whenever it is met again. What is known of any other object is a version of
//! its own, so that its chunks are trusted no longer than its index is.

use super::{Delivery, Job, Known, Machine, Mode, Name, Task, Version};
use crate::chunk_cache::{ObjectCache, StoredVersion};
use crate::plan::kept::{Kept, widen};
use crate::plan::shard::Resolved;

/// Bytes of decoded chunks from which the chunks of a visit are delivered by several jobs.
const JOB_NBYTES: usize = 1 << 20;

impl<P, B: Clone + AsRef<[u8]>> Machine<P, B> {
    /// The decoded chunks of the object of a visit, in the version that is known; None where nothing is kept.
    pub(super) fn object_cache(&self, id: u64) -> Option<ObjectCache> {
        if !self.chunk_cache.is_on() {
            return None;
        }
        let visit = self.visits.get(&id)?;
        let batch = self.batches.get(&visit.batch)?;
        let cache = batch.cache.as_ref()?;
        let object = self.objects.get(&visit.object)?;
        let Some(Known::Present { since_s, version, .. }) = &object.known else { return None };
        let Name { store, key, .. } = object.name.clone();
        let stored = match version.etag.clone() {
            Some(etag) => StoredVersion::Tagged { store, key, etag },
            None => StoredVersion::Learnt { store, key, since_s: since_s.to_bits() },
        };
        let plan_visit = batch.shared.plan.visit(visit.number);
        let array = &batch.shared.arrays[plan_visit.array];
        cache.of_object(stored, &array.meta, array.verify, &plan_visit.shard)
    }

    /// Delivers the chunks of a visit that are at hand, and takes them out of those that are to be fetched.
    pub(super) fn take_kept(&mut self, id: u64, resolved: &mut Resolved) {
        let Some(visit) = self.visits.get(&id) else { return };
        let Some(batch) = self.batches.get(&visit.batch) else { return };
        let Some(read) = &batch.cache else { return };
        let array = &batch.shared.arrays[batch.shared.plan.visit(visit.number).array].meta;
        let Some(cache) = self.object_cache(id) else {
            // Nothing is known of the object before its first chunks come, which are kept then.
            return widen(array, resolved, read.room(array.chunk_nbytes));
        };
        let kept = Kept::take(array, &visit.items, resolved, &cache);
        let (chunk_nbytes, others) = (array.chunk_nbytes, resolved.stored.len());
        let inexact = batch.shared.mode != Mode::Read && !kept.is_certain(array, others, &cache);
        self.deliver_kept(id, kept, chunk_nbytes, inexact);
    }

    /// Delivers all that a visit needs of an object without an index, if it is at hand.
    pub(super) fn take_kept_object(&mut self, id: u64) -> bool {
        let Some(cache) = self.object_cache(id) else { return false };
        let Some(visit) = self.visits.get(&id) else { return false };
        let Some(batch) = self.batches.get(&visit.batch) else { return false };
        let array = &batch.shared.arrays[batch.shared.plan.visit(visit.number).array].meta;
        let total = match self.objects.get(&visit.object).map(|object| &object.known) {
            Some(Some(Known::Present { version, .. })) => version.total,
            _ => None,
        };
        let chunk_nbytes = array.chunk_nbytes;
        let Some(kept) = Kept::all(&visit.items, total.unwrap_or(chunk_nbytes as u64), &cache) else { return false };
        let inexact = batch.shared.mode != Mode::Read && (total.is_none() || !kept.is_certain(array, 0, &cache));
        self.deliver_kept(id, kept, chunk_nbytes, inexact);
        self.end_if_over(id);
        true
    }

    fn deliver_kept(&mut self, id: u64, kept: Kept, chunk_nbytes: usize, inexact: bool) {
        let Some(visit) = self.visits.get(&id) else { return };
        let Some(batch) = self.batches.get_mut(&visit.batch) else { return };
        batch.tally.bytes_needed += kept.nbytes;
        batch.tally.bytes_from_cache += kept.nbytes;
        batch.tally.inexact |= inexact;
        if batch.shared.mode != Mode::Read {
            return;
        }
        self.counters.chunk_cache_hits += kept.chunks.len() as u64;
        for chunks in kept.chunks.chunks((JOB_NBYTES / chunk_nbytes.max(1)).max(1)) {
            if let Some(part) = self.part(id, Delivery::Kept(chunks.to_vec())) {
                self.jobs.push(Job { task: Task::Deliver { body_start: 0, parts: vec![part] }, body: None, nbytes: 0 });
            }
        }
    }

    /// Notes the version of an object that came whole, if its chunks are kept: while it is trusted they are delivered
    /// without a request.
    pub(super) fn came_whole(&mut self, id: u64, version: Version, now_s: f64) {
        let Some(object) = self.objects.get_mut(&id) else { return };
        if self.chunk_cache.takes(object.array.meta.chunk_nbytes) {
            object.known = Some(object.first(version, now_s));
        }
    }
}
