//! The chunks of a visited object, delivered: those at hand decoded from memory, the others by requests.

use std::ops::Range;
use std::sync::Arc;

use voxfetch_core::assemble::Encoded;
use voxfetch_core::chunk_cache::ObjectCache;
use voxfetch_core::error::Result;
use voxfetch_core::plan::coalesce::Request;
use voxfetch_core::plan::kept::KeptChunk;
use voxfetch_core::plan::shard::StoredChunk;
use voxfetch_core::plan::{Item, Visit};

use super::{After, Job, Task};
use crate::file::OpenFile;
use crate::pool::ThreadState;

/// Bytes from which requests are a task of their own.
const BATCH_NBYTES: u64 = 64 << 10;
/// Bytes of decoded chunks from which delivering them is a task of its own.
const KEPT_NBYTES: usize = 1 << 20;

/// A visited shard.
pub(super) struct Found {
    pub visit: u64,
    pub items: Vec<Item>,
    /// Chunks that are at hand decoded.
    pub kept: Vec<KeptChunk>,
    pub stored: Vec<StoredChunk>,
    pub requests: Vec<Request>,
    pub file: Arc<OpenFile>,
    /// Where chunks are kept that are decoded.
    pub cache: Option<ObjectCache>,
}

impl Job {
    /// Delivers a little at once, and makes tasks of more.
    pub(super) fn deliver_found(&self, visit: &Visit<'_>, found: Found, thread: &mut ThreadState) -> Result<After> {
        let kept = shares(found.kept.len(), self.arrays[visit.array].meta.chunk_nbytes);
        let batches = batches(&found.requests, self.threads);
        if kept.len() + batches.len() <= 1 {
            self.kept(visit, &found, 0..found.kept.len())?;
            return self.requests(visit, &found, 0..found.requests.len(), thread);
        }
        let found = Arc::new(found);
        let kept = kept.into_iter().map(|some| Task::Kept(Arc::clone(&found), some));
        let requests = batches.into_iter().map(|some| Task::Requests(Arc::clone(&found), some));
        Ok(After::Tasks(kept.chain(requests).collect()))
    }

    /// Delivers some of the chunks that are at hand.
    pub(super) fn kept(&self, visit: &Visit<'_>, found: &Found, some: Range<usize>) -> Result<()> {
        let assembly = self.assembly(visit.array, None);
        for chunk in &found.kept[some] {
            assembly.deliver_kept(visit, &found.items[chunk.items.clone()], &chunk.elements)?;
            self.counters.chunk_cache_hits.add(1);
        }
        Ok(())
    }

    pub(super) fn requests(
        &self,
        visit: &Visit<'_>,
        found: &Found,
        some: Range<usize>,
        thread: &mut ThreadState,
    ) -> Result<After> {
        for request in &found.requests[some] {
            if matches!(self.request(visit, found, request, thread)?, After::Changed) {
                return Ok(After::Changed);
            }
        }
        Ok(After::Nothing)
    }

    fn request(&self, visit: &Visit<'_>, found: &Found, request: &Request, thread: &mut ThreadState) -> Result<After> {
        let read = found.file.read(request.range, &mut thread.body).map_err(|error| error.in_range(request.range))?;
        if !read {
            self.caches.files.forget(&self.arrays[visit.array].path(&visit.shard));
            return Ok(After::Changed);
        }
        self.counters.requests.add(1);
        self.counters.bytes_read.add(request.range.len());
        let assembly = self.assembly(visit.array, found.cache.as_ref());
        let chunks = &found.stored[request.members.clone()];
        for chunk in chunks {
            let from = (chunk.range.start - request.range.start) as usize;
            let bytes = &thread.body[from..from + chunk.range.len() as usize];
            let encoded = Encoded { bytes, extent: &chunk.extent };
            let items = &found.items[chunk.items.clone()];
            let delivered = assembly
                .deliver(&mut thread.worker, visit, items, Some(encoded))
                .map_err(|error| error.in_range(chunk.range));
            match delivered {
                Err(error) if self.check => {
                    let path = self.arrays[visit.array].path(&visit.shard);
                    self.fail(&mut self.lock(), found.visit, error.in_object(&path.to_string_lossy()));
                }
                other => other?,
            }
        }
        let chunks = self.plan.decoded(visit, chunks.iter().map(|chunk| &found.items[chunk.items.clone()]));
        self.count_decoded(visit.array, chunks, found.cache.is_some());
        Ok(After::Nothing)
    }
}

/// `count` chunks of `chunk_nbytes` bytes, in parts that are a task each.
fn shares(count: usize, chunk_nbytes: usize) -> Vec<Range<usize>> {
    let most = (KEPT_NBYTES / chunk_nbytes.max(1)).max(1);
    (0..count).step_by(most).map(|start| start..count.min(start + most)).collect()
}

/// Requests so small that starting a task for each would cost more than they do are one task, a few for each thread.
fn batches(requests: &[Request], threads: usize) -> Vec<Range<usize>> {
    let most = requests.len().div_ceil(4 * threads.max(1));
    let mut batches: Vec<Range<usize>> = Vec::new();
    let mut nbytes = u64::MAX;
    for (number, request) in requests.iter().enumerate() {
        match batches.last_mut() {
            Some(last) if last.len() < most && nbytes < BATCH_NBYTES => last.end = number + 1,
            _ => {
                batches.push(number..number + 1);
                nbytes = 0;
            }
        }
        nbytes += request.range.len();
    }
    batches
}
