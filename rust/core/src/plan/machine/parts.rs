//! What visits get: chunks that are to be fetched, missing ones, and parts that have been delivered.

use std::ops::Range;
use std::sync::Arc;

use super::{Delivery, Job, Machine, Mode, Part, Task, Want, batch};
use crate::error::Error;
use crate::metadata::KeyEncoding;
use crate::plan::Item;
use crate::plan::coalesce::coalesce;
use crate::plan::shard::Resolved;

impl<P, B: Clone + AsRef<[u8]>> Machine<P, B> {
    /// Goes on with a visit whose chunks are found.
    pub(super) fn resolved(&mut self, id: u64, resolved: Resolved, body: Option<u64>) -> Option<Part<P>> {
        let visit = self.visits.get(&id)?;
        let batch = self.batches.get_mut(&visit.batch)?;
        let shared = Arc::clone(&batch.shared);
        let (number, items, pass) = (visit.number, Arc::clone(&visit.items), visit.pass);
        let plan_visit = shared.plan.visit(number);
        let array = &shared.arrays[plan_visit.array];
        let url = array.object_url(&plan_visit.shard);
        for (group, error) in resolved.failed {
            let chunk = shared.plan.chunk_position(&plan_visit, items[group.start].chunk);
            let calls = shared.calls_of(&plan_visit, &items[group]);
            batch.fail(number, &calls, &error.in_chunk(&chunk).in_object(&url));
        }
        if shared.mode == Mode::Check {
            for pair in resolved.stored.windows(2) {
                if pair[1].range.start < pair[0].range.end {
                    let group = pair[1].items.clone();
                    let chunk = shared.plan.chunk_position(&plan_visit, items[group.start].chunk);
                    let error = Error::shard_index("overlaps the chunk stored before it").in_range(pair[1].range);
                    batch.fail(
                        number,
                        &shared.calls_of(&plan_visit, &items[group]),
                        &error.in_chunk(&chunk).in_object(&url),
                    );
                }
            }
        }
        if let Mode::Explain { .. } = shared.mode {
            // Chunks of such shards and tables are merged across visits.
            batch.tally.inexact |=
                matches!(array.meta.keys, KeyEncoding::PrecomputedShard { .. } | KeyEncoding::Table(_));
            let requests = coalesce(resolved.stored.iter().map(|chunk| chunk.range), array.merge);
            batch.tally.requests += requests.len() as u64;
            batch.tally.bytes_fetched += requests.iter().map(|request| request.range.len()).sum::<u64>();
        }
        self.missing(id, resolved.missing);
        let calls = self.visits.get(&id)?.calls.clone();
        self.drop_unwanted(id);
        let mut part = None;
        let explains = matches!(shared.mode, Mode::Explain { .. });
        if let Some(visit) = self.visits.get_mut(&id)
            && !resolved.stored.is_empty()
            && !explains
        {
            visit.left = resolved.stored.len();
            if body.is_some() {
                part = self.part(id, Delivery::Chunks(resolved.stored));
            } else if let Some(object) = self.objects.get_mut(&visit.object) {
                let wants = resolved.stored.into_iter().map(|chunk| Want { visit: id, pass, chunk });
                object.pending.extend(wants);
                if !std::mem::replace(&mut object.queued, true) {
                    let object_id = visit.object;
                    let priority = self.objects.get(&object_id).map_or(1, |object| self.object_priority(object));
                    self.queue[priority].push_back(object_id);
                }
            }
        }
        let batch = self.visits.get(&id).map(|visit| visit.batch);
        self.end_if_over(id);
        if let Some(batch) = batch {
            self.settle(batch, &calls);
        }
        part
    }

    /// Delivers the fill value to items of a visit, by position, or the error that they are missing.
    pub(super) fn missing(&mut self, id: u64, groups: Vec<Range<usize>>) {
        let Some(visit) = self.visits.get(&id) else { return };
        let Some(batch) = self.batches.get_mut(&visit.batch) else { return };
        let shared = Arc::clone(&batch.shared);
        batch.tally.chunks_missing += groups.len() as u64;
        let Some(first) = groups.first().cloned() else { return };
        if shared.mode != Mode::Read {
            return;
        }
        self.counters.chunks_missing += groups.len() as u64;
        let plan_visit = shared.plan.visit(visit.number);
        let array = &shared.arrays[plan_visit.array];
        if array.missing_is_error {
            let error = batch::missing_chunk(&shared.plan, &plan_visit, &visit.items[first]);
            let all: Vec<Item> = groups.into_iter().flat_map(|group| visit.items[group].to_vec()).collect();
            let calls = shared.calls_of(&plan_visit, &all);
            batch.fail(visit.number, &calls, &error.in_object(&array.object_url(&plan_visit.shard)));
            return;
        }
        if let Some(part) = self.part(id, Delivery::Missing(groups)) {
            self.jobs.push(Job { task: Task::Deliver { body_start: 0, parts: vec![part] }, body: None, nbytes: 0 });
        }
    }

    /// What one visit is to get, counted as work of it and of the calls that still want it.
    pub(super) fn part(&mut self, id: u64, delivery: Delivery) -> Option<Part<P>> {
        let decodes = matches!(delivery, Delivery::Chunks(_) | Delivery::Object);
        let cache = if decodes { self.object_cache(id) } else { None };
        let visit = self.visits.get_mut(&id)?;
        let batch = self.batches.get_mut(&visit.batch)?;
        let wanted = |call: &u32| batch.wants(*call, visit.number);
        let calls: Vec<u32> = visit.calls.iter().copied().filter(wanted).collect();
        if calls.is_empty() {
            return None;
        }
        let dropped = if calls.len() == visit.calls.len() { Vec::new() } else { batch.reads_of_others(&calls) };
        visit.working += 1;
        for &call in &calls {
            batch.calls[call as usize].busy += 1;
        }
        Some(Part {
            shared: Arc::clone(&batch.shared),
            number: visit.number,
            items: Arc::clone(&visit.items),
            delivery,
            dropped,
            cache,
            visit: id,
            calls,
            pass: visit.pass,
        })
    }

    pub(super) fn part_done(&mut self, part: Part<P>, errors: Vec<(Range<usize>, Error)>) {
        let shared = &part.shared;
        let plan_visit = shared.plan.visit(part.number);
        let array = &shared.arrays[plan_visit.array];
        let chunks = match &part.delivery {
            Delivery::Chunks(chunks) => chunks.len(),
            Delivery::Object => 1,
            Delivery::Missing(_) | Delivery::Kept(_) => 0,
        };
        let decoded = match &part.delivery {
            Delivery::Object => shared.plan.decoded(&plan_visit, part.items.chunk_by(|a, b| a.chunk == b.chunk)),
            Delivery::Chunks(chunks) => {
                shared.plan.decoded(&plan_visit, chunks.iter().map(|chunk| &part.items[chunk.items.clone()]))
            }
            Delivery::Missing(_) | Delivery::Kept(_) => 0,
        };
        self.counters.chunks_decoded += decoded;
        self.counters.bytes_decoded += decoded * array.meta.chunk_nbytes as u64;
        self.counters.chunk_cache_misses += if part.cache.is_some() { decoded } else { 0 };
        let Some(visit) = self.visits.get_mut(&part.visit) else { return };
        let id = visit.batch;
        visit.working -= 1;
        if visit.pass == part.pass && !visit.again {
            visit.left = visit.left.saturating_sub(chunks);
        }
        if let Some(batch) = self.batches.get_mut(&id) {
            for &call in &part.calls {
                batch.calls[call as usize].busy -= 1;
            }
            // What an older version of the object did wrong is not reported: it is read again.
            if !visit.again {
                let url = array.object_url(&plan_visit.shard);
                for (items, error) in errors {
                    let calls = shared.calls_of(&plan_visit, &part.items[items]);
                    batch.fail(part.number, &calls, &error.in_object(&url));
                }
            }
        }
        let again = visit.again && visit.working == 0;
        self.drop_unwanted(part.visit);
        if again {
            self.restart(part.visit);
        }
        self.end_if_over(part.visit);
        self.settle(id, &part.calls);
    }
}
