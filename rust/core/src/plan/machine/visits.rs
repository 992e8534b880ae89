//! Visits: begun, resolved to chunks of their object, ended.

use std::collections::HashMap;
use std::sync::Arc;

use super::object::{Indexes, UNKNOWN_NBYTES};
use super::{
    Active, Batch, Flight, Kind, Known, Machine, Mode, Name, Object, Part, RemoteArray, SMALL_SHARD_NBYTES, What, batch,
};
use crate::error::Error;
use crate::metadata::IndexLocation;
use crate::plan::Item;
use crate::plan::shard::{Resolved, resolve};
use crate::subset::ByteRange;

/// Chunks of visits that have begun, past which no other begins.
const MAX_ITEMS: usize = 1 << 21;
/// Objects that visits begin to be busy with in one go: planning must not keep replies waiting.
const MAX_BEGUN_OBJECTS: usize = 256;
/// Visits that begin in one go. Of an object that holds chunks from anywhere each chunk is a visit, and only those that have
/// begun are merged.
const MAX_BEGUN: usize = 1 << 13;

/// Whether no more visits are to begin in one go, after so many of so many objects.
pub(super) fn have_enough_begun((visits, objects): (usize, usize)) -> bool {
    visits >= MAX_BEGUN || objects >= MAX_BEGUN_OBJECTS
}

impl<P, B: Clone + AsRef<[u8]>> Machine<P, B> {
    /// Begins the next visit of the next batch; false when there is none, or when enough have begun.
    pub(super) fn begin_next(&mut self, priority: usize, now_s: f64) -> bool {
        while self.items <= MAX_ITEMS
            && !self.has_more()
            && let Some(id) = self.open[priority].pop_front()
        {
            let Some(batch) = self.batches.get_mut(&id) else { continue };
            if batch.is_begun() {
                continue;
            }
            let number = batch.next_visit;
            batch.next_visit += 1;
            self.begun.0 += 1;
            // The others get their turn before its next.
            self.open[priority].push_back(id);
            self.begin(id, number, now_s);
            return true;
        }
        false
    }

    pub(super) fn begin(&mut self, id: u64, number: u64, now_s: f64) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        let began_s = *batch.began_s.get_or_insert(now_s);
        let shared = Arc::clone(&batch.shared);
        let visit = shared.plan.visit(number);
        let mut items = Vec::new();
        let planned = shared.plan.chunk_items(&visit, &mut items);
        let wanted = |item: &Item| batch.wants(shared.call_of(&visit, *item), number);
        items.retain(wanted);
        let array = &shared.arrays[visit.array];
        if let Err(error) = planned {
            // No item is known, so it concerns every call with a piece in it.
            let pieces = 0..visit.pieces.len() as u32;
            let items: Vec<_> = pieces.map(|piece| Item { chunk: 0, piece }).collect();
            let calls = shared.calls_of(&visit, &items);
            batch.fail(number, &calls, &error.in_object(&array.object_url(&visit.shard)));
            self.settle(id, &calls);
            return;
        }
        let calls = shared.calls_of(&visit, &items);
        if calls.is_empty() {
            return;
        }
        let name = Name {
            store: Arc::clone(&array.store),
            layout: array.meta.layout_hash(&visit.shard),
            key: array.key(&visit.shard).into(),
        };
        let object = self.activate(name, array, &visit.shard, (now_s, began_s));
        let visit_id = self.new_id();
        if let Some(batch) = self.batches.get_mut(&id) {
            batch.begin(number, visit_id, &calls);
            batch.tally.shards += 1;
            batch.tally.chunks += items.chunk_by(|a, b| a.chunk == b.chunk).count() as u64;
        }
        if let Some(object) = self.objects.get_mut(&object) {
            object.visits.insert(visit_id);
        }
        self.items += items.len();
        let active = Active {
            batch: id,
            number,
            object,
            items: Arc::new(items),
            calls,
            left: 0,
            working: 0,
            pass: 0,
            again: false,
            waited: 0,
            began_s,
            trusts_missing_since_s: began_s - array.trust_missing_s,
        };
        self.visits.insert(visit_id, active);
        self.advance(visit_id, None);
    }

    /// The object of this name among those that reads are busy with, for a read that began at `began_s`.
    ///
    /// What is not known yet but asked for counts as known: a reply tells of no change after its request. That something is
    /// missing is looked at when it is known (see `advance`); an object without an index is one reply.
    fn activate(&mut self, name: Name, array: &Arc<RemoteArray>, cell: &[u64], (now_s, began_s): (f64, f64)) -> u64 {
        let most_s = array.trust_s.min(array.trust_missing_s);
        let is_trusted = |known: &Known| match known {
            Known::Absent { asked_s } => began_s - asked_s <= most_s,
            Known::Present { asked_s, .. } => began_s - asked_s <= array.trust_s,
        };
        let unknown_s = if array.meta.whole_object_limit().is_some() { most_s } else { array.trust_s };
        let is_usable = |object: &Object| match &object.known {
            Some(known) => is_trusted(known),
            None => began_s - object.asked_s <= unknown_s,
        };
        if let Some(&id) = self.names.get(&name)
            && self.objects.get(&id).is_some_and(is_usable)
        {
            return id;
        }
        // One that is known no more is left to the visits that it has.
        let known = self.remembered.remove(&name).filter(is_trusted).or_else(|| Known::pinned(array, now_s));
        self.counters.index_hits += u64::from(matches!(known, Some(Known::Present { .. })));
        self.begun.1 += 1;
        self.add_object(Object::new(name, Arc::clone(array), cell.to_vec(), known, now_s))
    }

    /// Takes an object up as the one of its name.
    fn add_object(&mut self, object: Object) -> u64 {
        let id = self.new_id();
        self.names.insert(object.name.clone(), id);
        self.objects.insert(id, object);
        id
    }

    /// Moves a visit to an object of which nothing is known; the one that it had is left to its other visits.
    fn know_anew(&mut self, id: u64) {
        let Some(visit) = self.visits.get(&id) else { return };
        let (old, began_s) = (visit.object, visit.began_s);
        let Some(object) = self.objects.get_mut(&old) else { return };
        object.visits.remove(&id);
        let is_over = object.visits.is_empty();
        let mut fresh = Object::new(object.name.clone(), Arc::clone(&object.array), object.cell.clone(), None, began_s);
        fresh.visits.insert(id);
        let fresh = self.add_object(fresh);
        if let Some(visit) = self.visits.get_mut(&id) {
            visit.object = fresh;
        }
        if is_over {
            self.retire(old);
        }
    }

    /// Takes a visit as far as it gets with what is known of its object. `body` is all of the object, where it is at
    /// hand; parts that are delivered from it are returned.
    pub(super) fn advance(&mut self, id: u64, body: Option<u64>) -> Option<Part<P>> {
        let visit = self.visits.get_mut(&id)?;
        let object = self.objects.get_mut(&visit.object)?;
        let batch = self.batches.get_mut(&visit.batch)?;
        let shared = Arc::clone(&batch.shared);
        let plan_visit = shared.plan.visit(visit.number);
        let array = &shared.arrays[plan_visit.array];
        let fetch = !matches!(shared.mode, Mode::Explain { fetch_indexes: false });
        if let Some(Known::Absent { asked_s }) = &object.known {
            if fetch && *asked_s < visit.trusts_missing_since_s && array.meta.whole_object_limit().is_none() {
                self.know_anew(id);
                return self.advance(id, None);
            }
            visit.left = 0;
            batch.tally.shards_missing += 1;
            let groups = batch::groups(&visit.items);
            self.missing(id, groups);
            self.end_if_over(id);
            return None;
        }
        if let Some(limit) = array.meta.whole_object_limit() {
            return self.advance_without_index(id, limit);
        }
        let unknown = HashMap::new();
        let has_known_index = array.meta.levels.first().is_some_and(|level| level.index.is_known());
        // What needs no index is never out of date.
        let known_s = object.known.as_ref().filter(|_| !has_known_index).map_or(f64::INFINITY, Known::asked_s);
        let (object_nbytes, known) = match &object.known {
            Some(Known::Present { version, indexes, .. }) => (version.total.unwrap_or(UNKNOWN_NBYTES), indexes),
            // Parts can be asked for at once; whether there is such an object their replies tell.
            _ if has_known_index => {
                batch.tally.inexact |= matches!(shared.mode, Mode::Explain { .. });
                (UNKNOWN_NBYTES, &unknown)
            }
            _ if fetch => {
                self.ask_root(id, array, shared.mode);
                return None;
            }
            _ => {
                batch.tally.inexact = true;
                self.end_if_over(id);
                return None;
            }
        };
        let mut source = Indexes { known, array, cell: &plan_visit.shard, object_nbytes, nbytes: 0, hits: 0 };
        let mut resolved = resolve(&shared.plan, &plan_visit, &visit.items, object_nbytes, &mut source);
        if fetch && !resolved.missing.is_empty() && known_s < visit.trusts_missing_since_s {
            self.know_anew(id);
            return self.advance(id, None);
        }
        if visit.waited == 0 {
            batch.tally.bytes_from_cache += source.nbytes;
        }
        if !resolved.needs.is_empty() {
            if fetch {
                visit.waited += 1;
                self.ask_inner(id, array, &resolved);
            } else {
                batch.tally.inexact = true;
                self.end_if_over(id);
            }
            return None;
        }
        self.take_kept(id, &mut resolved);
        let visit = self.visits.get(&id)?;
        let batch = self.batches.get_mut(&visit.batch)?;
        let round_trips = visit.waited + u64::from(!resolved.stored.is_empty());
        batch.tally.round_trips = batch.tally.round_trips.max(round_trips);
        batch.tally.bytes_needed += resolved.stored.iter().map(|chunk| chunk.range.len()).sum::<u64>();
        self.resolved(id, resolved, body)
    }

    /// Requests the index of an object, or all of a small one; the visit waits for it.
    pub(super) fn ask_root(&mut self, id: u64, array: &RemoteArray, mode: Mode) {
        let Some(visit) = self.visits.get_mut(&id) else { return };
        let Some(object) = self.objects.get_mut(&visit.object) else { return };
        visit.waited += 1;
        object.waiting.insert(id);
        if std::mem::replace(&mut object.asked, true) {
            return;
        }
        let whole = array.is_small() && !object.is_large && !matches!(mode, Mode::Explain { .. });
        let Some(level) = array.meta.level_in(0, &object.cell) else { return };
        let (index, nbytes) = (&level.index, level.index.nbytes());
        let (what, nbytes) = match index.location() {
            _ if whole => (What::Whole(array.meta.max_shard_nbytes(0)), SMALL_SHARD_NBYTES),
            IndexLocation::End => (What::Suffix(nbytes), nbytes),
            IndexLocation::Start => (What::Range(ByteRange { start: 0, end: nbytes }), nbytes),
        };
        let (object, epoch) = (visit.object, object.epoch);
        self.make_ready(Flight { object, epoch, nbytes, what, kind: Kind::Root { whole } });
    }

    /// Requests the indexes further in that a visit needs; it waits for them.
    pub(super) fn ask_inner(&mut self, id: u64, array: &Arc<RemoteArray>, resolved: &Resolved) {
        let Some(visit) = self.visits.get(&id) else { return };
        let Some(object) = self.objects.get_mut(&visit.object) else { return };
        object.waiting.insert(id);
        let mut broken = false;
        for &(level, shard) in &resolved.needs {
            if object.asked_inner.contains(&(level, shard)) {
                continue;
            }
            let range = array.meta.levels[level].index.range(shard);
            let range =
                range.and_then(|range| range.ok_or_else(|| Error::internal("an index that is known is asked for")));
            match range {
                Ok(range) => {
                    object.asked_inner.push((level, shard));
                    let flight = Flight {
                        object: visit.object,
                        epoch: object.epoch,
                        nbytes: range.len(),
                        what: What::Range(range),
                        kind: Kind::Inner { level, shard },
                    };
                    let interactive = self.batches.get(&visit.batch).is_some_and(|batch| batch.interactive);
                    self.ready[usize::from(!interactive)].push_back(flight);
                }
                Err(error) => {
                    if let Some(Known::Present { indexes, .. }) = &mut object.known {
                        indexes.insert((level, shard), Err(error.in_range(shard)));
                    }
                    broken = true;
                }
            }
        }
        if broken {
            let object = visit.object;
            self.wake(object, None);
        }
    }

    /// Ends a visit that nobody wants any more, unless a job is at work for it.
    pub(super) fn drop_unwanted(&mut self, id: u64) {
        let Some(visit) = self.visits.get(&id) else { return };
        let Some(batch) = self.batches.get(&visit.batch) else { return };
        if visit.working == 0 && !visit.calls.iter().any(|&call| batch.wants(call, visit.number)) {
            self.end_visit(id);
        }
    }

    pub(super) fn end_if_over(&mut self, id: u64) {
        let Some(visit) = self.visits.get(&id) else { return };
        let waits = self.objects.get(&visit.object).is_some_and(|object| object.waiting.contains(&id));
        if visit.left == 0 && visit.working == 0 && !visit.again && !waits {
            self.end_visit(id);
        }
    }

    fn end_visit(&mut self, id: u64) {
        let Some(visit) = self.visits.remove(&id) else { return };
        self.items -= visit.items.len();
        if let Some(batch) = self.batches.get_mut(&visit.batch) {
            batch.end(visit.number, &visit.calls);
        }
        if let Some(object) = self.objects.get_mut(&visit.object) {
            object.visits.remove(&id);
            object.waiting.remove(&id);
            if object.visits.is_empty() {
                self.retire(visit.object);
            }
        }
        self.report_ended(visit.batch, &visit.calls);
    }

    /// Keeps what is known of an object that nobody is busy with.
    pub(super) fn retire(&mut self, id: u64) {
        let Some(object) = self.objects.remove(&id) else { return };
        if self.names.get(&object.name) != Some(&id) {
            return;
        }
        self.names.remove(&object.name);
        let is_chunk = object.array.meta.levels.is_empty() && object.array.meta.is_plain();
        let is_there = matches!(object.known, Some(Known::Present { .. }));
        if is_chunk && is_there && !self.chunk_cache.takes(object.array.meta.chunk_nbytes) {
            // Each reply tells all that is to be known of it.
            return;
        }
        if let Some(known) = object.known
            && let Some(nbytes) = known.memory_nbytes()
        {
            let nbytes = nbytes + object.name.key.len() as u64;
            self.remembered.insert(object.name, known, nbytes);
        }
    }

    /// Ends what nobody wants any more of some calls, and reports those that have ended.
    pub(super) fn settle(&mut self, id: u64, calls: &[u32]) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        let unwanted = batch.unwanted(calls);
        self.report_ended(id, calls);
        unwanted.into_iter().for_each(|visit| self.drop_unwanted(visit));
    }

    /// Reports those of some calls that have ended; with the last one ends their batch.
    fn report_ended(&mut self, id: u64, calls: &[u32]) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        for ended in batch.ended(calls) {
            self.tokens.remove(&ended.token);
            self.ended.push(ended);
        }
        if self.batches.get(&id).is_some_and(Batch::is_over) {
            self.batches.remove(&id);
        }
    }

    /// Notes an error of some items of a visit.
    pub(super) fn fail(&mut self, id: u64, number: u64, items: &[Item], error: &Error) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        let shared = Arc::clone(&batch.shared);
        let visit = shared.plan.visit(number);
        let calls = shared.calls_of(&visit, items);
        let array = &shared.arrays[visit.array];
        let mut error = error.clone().in_object(&array.object_url(&visit.shard));
        if let [first, .., last] | [first @ last] = items
            && first.chunk == last.chunk
        {
            error = error.in_chunk(&shared.plan.chunk_position(&visit, first.chunk));
        }
        batch.fail(number, &calls, &error);
        self.settle(id, &calls);
    }
}
