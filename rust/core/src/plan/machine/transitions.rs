//! What makes the machine go from one state to the next.

use std::ops::Range;
use std::sync::Arc;

use super::object::{Indexes, UNKNOWN_NBYTES};
use super::{
    Active, Batch, Delivery, Failure, Flight, IndexTask, Job, Kind, Known, Machine, Mode, Name, Object, Part,
    RemoteArray, Task, Version, Want, What, batch,
};
use crate::error::{Error, ErrorKind, Result};
use crate::index::{ShardIndex, sharding_indexed};
use crate::plan::coalesce::coalesce;
use crate::plan::shard::{Resolved, StoredChunk, resolve};
use crate::subset::ByteRange;

/// Times that a visit begins before its object is given up as one that changes all the time.
const MAX_PASSES: u32 = 4;
/// Chunks of visits that have begun, past which no other begins.
const MAX_ITEMS: usize = 1 << 21;

/// Bodies as far as the transitions need them.
impl<P, B: Clone + AsRef<[u8]>> Machine<P, B> {
    /// The next request: one that is ready, else of the objects whose turn it is, else of a visit that begins.
    pub(super) fn next_flight(&mut self, now_s: f64) -> Option<Flight> {
        'again: loop {
            for priority in 0..2 {
                if let Some(flight) = self.ready[priority].pop_front() {
                    let Some(flight) = self.still_wanted(flight) else { continue 'again };
                    return Some(flight);
                }
                if let Some(object) = self.queue[priority].pop_front() {
                    self.cut(object);
                    continue 'again;
                }
                if self.begin_next(priority, now_s) {
                    continue 'again;
                }
            }
            return None;
        }
    }

    /// A request that has waited, without what nobody wants any more; None when nothing is left.
    fn still_wanted(&mut self, mut flight: Flight) -> Option<Flight> {
        if self.objects.get(&flight.object)?.epoch != flight.epoch {
            return None;
        }
        if let Kind::Chunks(wants) = &mut flight.kind {
            wants.retain(|want| self.visits.get(&want.visit).is_some_and(|visit| visit.pass == want.pass));
            if wants.is_empty() {
                return None;
            }
        }
        Some(flight)
    }

    pub(super) fn priority(&self, flight: &Flight) -> usize {
        self.objects.get(&flight.object).map_or(1, |object| self.object_priority(object))
    }

    fn object_priority(&self, object: &Object) -> usize {
        let interactive = |visit: &u64| {
            let batch = self.visits.get(visit).and_then(|visit| self.batches.get(&visit.batch));
            batch.is_some_and(|batch| batch.interactive)
        };
        usize::from(!object.visits.iter().any(interactive))
    }

    /// Whether somebody waits for a request that is in flight.
    pub(super) fn is_awaited(&self, flight: &Flight) -> bool {
        let Some(object) = self.objects.get(&flight.object) else { return false };
        object.epoch == flight.epoch
            && match &flight.kind {
                Kind::Chunks(wants) => wants.iter().any(|want| self.visits.contains_key(&want.visit)),
                _ => !object.waiting.is_empty(),
            }
    }

    // --- visits

    /// Begins the next visit of the next batch; false when there is none, or when enough have begun.
    fn begin_next(&mut self, priority: usize, now_s: f64) -> bool {
        while self.items <= MAX_ITEMS
            && let Some(id) = self.open[priority].pop_front()
        {
            let Some(batch) = self.batches.get_mut(&id) else { continue };
            if batch.is_begun() {
                continue;
            }
            let number = batch.next_visit;
            batch.next_visit += 1;
            // The others get their turn before its next.
            self.open[priority].push_back(id);
            self.begin(id, number, now_s);
            return true;
        }
        false
    }

    fn begin(&mut self, id: u64, number: u64, now_s: f64) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        let shared = Arc::clone(&batch.shared);
        let visit = shared.plan.visit(number);
        let mut items = Vec::new();
        let planned = shared.plan.chunk_items(&visit, &mut items);
        let wanted = |item: &crate::plan::Item| batch.wants(shared.call_of(&visit, *item), number);
        items.retain(wanted);
        let array = &shared.arrays[visit.array];
        if let Err(error) = planned {
            // No item is known, so it concerns every call with a piece in it.
            let pieces = 0..visit.pieces.len() as u32;
            let items: Vec<_> = pieces.map(|piece| crate::plan::Item { chunk: 0, piece }).collect();
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
            layout: array.meta.layout_hash(),
            key: array.key(&visit.shard).into(),
        };
        let object = self.activate(name, array, now_s);
        let visit_id = self.new_id();
        if let Some(batch) = self.batches.get_mut(&id) {
            batch.begin(number, visit_id, &calls);
            batch.tally.shards += 1;
            batch.tally.chunks += items.chunk_by(|a, b| a.chunk == b.chunk).count() as u64;
        }
        if let Some(object) = self.objects.get_mut(&object) {
            object.visits.push(visit_id);
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
        };
        self.visits.insert(visit_id, active);
        self.advance(visit_id, None);
    }

    /// The object of this name among those that reads are busy with.
    fn activate(&mut self, name: Name, array: &Arc<RemoteArray>, now_s: f64) -> u64 {
        if let Some(&id) = self.names.get(&name) {
            return id;
        }
        let known = self.remembered.remove(&name).filter(|known| now_s - known.since_s() <= array.trust_s);
        self.counters.index_hits += u64::from(matches!(known, Some(Known::Present { .. })));
        let id = self.new_id();
        self.names.insert(name.clone(), id);
        self.objects.insert(id, Object::new(name, Arc::clone(array), known));
        id
    }

    /// Takes a visit as far as it gets with what is known of its object. `body` is all of the object, where it is at
    /// hand; parts that are delivered from it are returned.
    fn advance(&mut self, id: u64, body: Option<u64>) -> Option<Part<P>> {
        let visit = self.visits.get_mut(&id)?;
        let object = self.objects.get_mut(&visit.object)?;
        let batch = self.batches.get_mut(&visit.batch)?;
        let shared = Arc::clone(&batch.shared);
        let plan_visit = shared.plan.visit(visit.number);
        let array = &shared.arrays[plan_visit.array];
        let fetch = !matches!(shared.mode, Mode::Explain { fetch_indexes: false });
        if let Some(Known::Absent { .. }) = &object.known {
            visit.left = 0;
            batch.tally.shards_missing += 1;
            let groups = batch::groups(&visit.items);
            self.missing(id, groups);
            self.end_if_over(id);
            return None;
        }
        if let Some(limit) = array.meta.whole_object_limit() {
            if let Mode::Explain { .. } = shared.mode {
                let nbytes = (array.meta.chunk_nbytes as u64).min(limit);
                batch.tally.requests += 1;
                batch.tally.bytes_needed += nbytes;
                batch.tally.bytes_fetched += nbytes;
                batch.tally.round_trips = batch.tally.round_trips.max(1);
                batch.tally.inexact = true;
                self.end_if_over(id);
                return None;
            }
            visit.left = 1;
            object.waiting.push(id);
            if !std::mem::replace(&mut object.asked, true) {
                let nbytes = (array.meta.chunk_nbytes as u64).min(limit);
                let flight = Flight {
                    object: visit.object,
                    epoch: object.epoch,
                    nbytes,
                    what: What::Whole(limit),
                    kind: Kind::Object,
                };
                self.make_ready(flight);
            }
            return None;
        }
        let Some(Known::Present { version, indexes, .. }) = &object.known else {
            if !fetch {
                batch.tally.inexact = true;
                self.end_if_over(id);
                return None;
            }
            visit.waited += 1;
            object.waiting.push(id);
            if !std::mem::replace(&mut object.asked, true) {
                let whole = array.is_small() && !matches!(shared.mode, Mode::Explain { .. });
                let level = &array.meta.levels[0];
                let index = level.index.nbytes;
                let (what, nbytes) = match level.index.location {
                    _ if whole => (What::Whole(array.meta.max_shard_nbytes(0)), super::SMALL_SHARD_NBYTES),
                    crate::metadata::IndexLocation::End => (What::Suffix(index), index),
                    crate::metadata::IndexLocation::Start => (What::Range(ByteRange { start: 0, end: index }), index),
                };
                let flight =
                    Flight { object: visit.object, epoch: object.epoch, nbytes, what, kind: Kind::Root { whole } };
                self.make_ready(flight);
            }
            return None;
        };
        let total = version.total.unwrap_or(UNKNOWN_NBYTES);
        let mut source = Indexes { known: indexes, array, nbytes: 0, hits: 0 };
        let resolved = resolve(&shared.plan, &plan_visit, &visit.items, total, &mut source);
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
        let round_trips = visit.waited + u64::from(!resolved.stored.is_empty());
        batch.tally.round_trips = batch.tally.round_trips.max(round_trips);
        batch.tally.bytes_needed += resolved.stored.iter().map(|chunk| chunk.range.len()).sum::<u64>();
        self.resolved(id, resolved, body)
    }

    /// Requests the indexes further in that a visit needs; it waits for them.
    fn ask_inner(&mut self, id: u64, array: &Arc<RemoteArray>, resolved: &Resolved) {
        let Some(visit) = self.visits.get(&id) else { return };
        let Some(object) = self.objects.get_mut(&visit.object) else { return };
        object.waiting.push(id);
        let mut broken = false;
        for &(level, shard) in &resolved.needs {
            if object.asked_inner.contains(&(level, shard)) {
                continue;
            }
            let range = sharding_indexed::index_range(&array.meta.levels[level].index, shard.len());
            match range {
                Ok(within) => {
                    object.asked_inner.push((level, shard));
                    let range = ByteRange { start: shard.start + within.start, end: shard.start + within.end };
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

    /// Goes on with a visit whose chunks are found.
    fn resolved(&mut self, id: u64, resolved: Resolved, body: Option<u64>) -> Option<Part<P>> {
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
    fn missing(&mut self, id: u64, groups: Vec<Range<usize>>) {
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
            let all: Vec<crate::plan::Item> =
                groups.into_iter().flat_map(|group| visit.items[group].to_vec()).collect();
            let calls = shared.calls_of(&plan_visit, &all);
            batch.fail(visit.number, &calls, &error.in_object(&array.object_url(&plan_visit.shard)));
            return;
        }
        if let Some(part) = self.part(id, Delivery::Missing(groups)) {
            self.jobs.push(Job { task: Task::Deliver { body_start: 0, parts: vec![part] }, body: None, nbytes: 0 });
        }
    }

    /// What one visit is to get, counted as work of it and of the calls that still want it.
    fn part(&mut self, id: u64, delivery: Delivery) -> Option<Part<P>> {
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
            Delivery::Missing(_) => 0,
        };
        let decoded = match &part.delivery {
            Delivery::Object => part.items.chunk_by(|a, b| a.chunk == b.chunk).count() as u64,
            _ => chunks as u64,
        };
        self.counters.chunks_decoded += decoded;
        self.counters.bytes_decoded += decoded * array.meta.chunk_nbytes as u64;
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

    /// Ends a visit that nobody wants any more, unless a job is at work for it.
    pub(super) fn drop_unwanted(&mut self, id: u64) {
        let Some(visit) = self.visits.get(&id) else { return };
        let Some(batch) = self.batches.get(&visit.batch) else { return };
        if visit.working == 0 && !visit.calls.iter().any(|&call| batch.wants(call, visit.number)) {
            self.end_visit(id);
        }
    }

    fn end_if_over(&mut self, id: u64) {
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
            object.visits.retain(|&other| other != id);
            object.waiting.retain(|&other| other != id);
            if object.visits.is_empty() {
                self.retire(visit.object);
            }
        }
        self.settle(visit.batch, &visit.calls);
    }

    /// Keeps what is known of an object that nobody is busy with.
    fn retire(&mut self, id: u64) {
        let Some(object) = self.objects.remove(&id) else { return };
        self.names.remove(&object.name);
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
        let ended = batch.ended(calls);
        for ended in ended {
            self.tokens.remove(&ended.token);
            self.ended.push(ended);
        }
        unwanted.into_iter().for_each(|visit| self.drop_unwanted(visit));
        if self.batches.get(&id).is_some_and(Batch::is_over) {
            self.batches.remove(&id);
        }
    }

    // --- requests

    fn make_ready(&mut self, flight: Flight) {
        let priority = self.priority(&flight);
        self.ready[priority].push_back(flight);
    }

    /// Merges the pending chunks of an object into requests.
    fn cut(&mut self, id: u64) {
        let Some(object) = self.objects.get_mut(&id) else { return };
        object.queued = false;
        let mut wants = std::mem::take(&mut object.pending);
        let (epoch, merge) = (object.epoch, object.array.merge);
        wants.retain(|want| self.visits.get(&want.visit).is_some_and(|visit| visit.pass == want.pass));
        wants.sort_by_key(|want| want.chunk.range);
        let requests = coalesce(wants.iter().map(|want| want.chunk.range), merge);
        let mut wants = wants.into_iter();
        for request in requests {
            let members = wants.by_ref().take(request.members.len()).collect();
            let what = What::Range(request.range);
            let flight = Flight { object: id, epoch, nbytes: request.range.len(), what, kind: Kind::Chunks(members) };
            self.make_ready(flight);
        }
    }

    /// Goes on with the visits that wait for an object. `body` is all of it (its bytes in flight), where it is at hand.
    fn wake(&mut self, id: u64, body: Option<u64>) -> Vec<Part<P>> {
        let Some(object) = self.objects.get_mut(&id) else { return Vec::new() };
        let waiting = std::mem::take(&mut object.waiting);
        waiting.into_iter().filter_map(|visit| self.advance(visit, body)).collect()
    }

    // --- replies

    /// Takes a body; true if a job has it now.
    pub(super) fn received(&mut self, flight: Flight, version: Version, start: u64, body: B, now_s: f64) -> bool {
        let Some(object) = self.objects.get_mut(&flight.object) else { return false };
        if object.epoch != flight.epoch {
            return false;
        }
        let nbytes = body.as_ref().len() as u64;
        let id = flight.object;
        let array = Arc::clone(&object.array);
        if let (Some(Known::Present { version: known, .. }), Kind::Chunks(_) | Kind::Inner { .. }) =
            (&object.known, &flight.kind)
            && !known.is_same(&version)
        {
            self.changed(id);
            return false;
        }
        if let What::Range(range) = flight.what
            && (start, start + nbytes) != (range.start, range.end)
        {
            let what = format!("{nbytes} bytes from {start} came instead");
            self.failed(flight, Failure::Error(Error::from(ErrorKind::Store { what }).in_range(range)), now_s);
            return false;
        }
        match flight.kind {
            Kind::Root { whole } => {
                let total = version.total.unwrap_or(UNKNOWN_NBYTES);
                let level = &array.meta.levels[0].index;
                // Of an object of unknown size the suffix ends where the object does.
                let is_suffix = matches!(flight.what, What::Suffix(_));
                let start = if version.total.is_none() && is_suffix { total - nbytes } else { start };
                let end = start + nbytes;
                let found =
                    sharding_indexed::index_range(level, if whole { nbytes } else { total }).and_then(|range| {
                        let inside = start <= range.start && range.end <= end;
                        inside.then_some(range).ok_or_else(|| Error::shard_index("the reply does not hold the index"))
                    });
                match found {
                    Ok(range) => {
                        let encoded = (range.start - start) as usize..(range.end - start) as usize;
                        let shard = ByteRange { start: 0, end: if whole { nbytes } else { total } };
                        let version = Version { total: Some(shard.end).filter(|_| whole).or(version.total), ..version };
                        let root = Some((version, whole));
                        let task = IndexTask { array, level: 0, shard, encoded, object: id, epoch: flight.epoch, root };
                        self.jobs.push(Job { task: Task::Index(task), body: Some(body), nbytes });
                        true
                    }
                    Err(error) => {
                        self.root_failed(id, &error);
                        false
                    }
                }
            }
            Kind::Inner { level, shard } => {
                let encoded = 0..nbytes as usize;
                let task = IndexTask { array, level, shard, encoded, object: id, epoch: flight.epoch, root: None };
                self.jobs.push(Job { task: Task::Index(task), body: Some(body), nbytes });
                true
            }
            Kind::Object => {
                object.asked = false;
                let waiting = std::mem::take(&mut object.waiting);
                let parts = waiting.into_iter().filter_map(|visit| self.part(visit, Delivery::Object)).collect();
                self.deliver(parts, 0, body, nbytes)
            }
            Kind::Chunks(wants) => {
                let mut parts: Vec<(u64, Vec<StoredChunk>)> = Vec::new();
                for want in wants {
                    if self.visits.get(&want.visit).is_none_or(|visit| visit.pass != want.pass || visit.again) {
                        continue;
                    }
                    match parts.iter_mut().find(|part| part.0 == want.visit) {
                        Some(part) => part.1.push(want.chunk),
                        None => parts.push((want.visit, vec![want.chunk])),
                    }
                }
                let parts = parts.into_iter().filter_map(|(visit, chunks)| self.part(visit, Delivery::Chunks(chunks)));
                let parts = parts.collect();
                self.deliver(parts, start, body, nbytes)
            }
        }
    }

    fn deliver(&mut self, parts: Vec<Part<P>>, body_start: u64, body: B, nbytes: u64) -> bool {
        let some = !parts.is_empty();
        if some {
            for part in &parts {
                if let Some(visit) = self.visits.get(&part.visit)
                    && let Some(batch) = self.batches.get_mut(&visit.batch)
                    && batch.shared.mode == Mode::Check
                {
                    batch.tally.bytes_fetched += nbytes;
                }
            }
            self.jobs.push(Job { task: Task::Deliver { body_start, parts }, body: Some(body), nbytes });
        }
        some
    }

    pub(super) fn failed(&mut self, flight: Flight, failure: Failure, now_s: f64) {
        let Some(object) = self.objects.get_mut(&flight.object) else { return };
        if object.epoch != flight.epoch {
            return;
        }
        let id = flight.object;
        match (failure, flight.kind) {
            (Failure::Absent, Kind::Root { .. } | Kind::Object) => {
                object.asked = false;
                object.known = Some(Known::Absent { since_s: now_s });
                self.wake(id, None);
            }
            // What its index promised is gone.
            (Failure::Absent | Failure::Changed, _) => self.changed(id),
            (Failure::Error(error), Kind::Root { .. } | Kind::Object) => self.root_failed(id, &error),
            (Failure::Error(error), Kind::Inner { level, shard }) => {
                object.asked_inner.retain(|&asked| asked != (level, shard));
                if let Some(Known::Present { indexes, .. }) = &mut object.known {
                    indexes.insert((level, shard), Err(error));
                }
                self.wake(id, None);
            }
            (Failure::Error(error), Kind::Chunks(wants)) => {
                for want in wants {
                    let Some(visit) = self.visits.get_mut(&want.visit) else { continue };
                    if visit.pass != want.pass {
                        continue;
                    }
                    visit.left = visit.left.saturating_sub(1);
                    let (batch, items, number) = (visit.batch, Arc::clone(&visit.items), visit.number);
                    self.fail(batch, number, &items[want.chunk.items], &error);
                    self.drop_unwanted(want.visit);
                    self.end_if_over(want.visit);
                }
            }
        }
    }

    /// Notes an error of some items of a visit.
    fn fail(&mut self, id: u64, number: u64, items: &[crate::plan::Item], error: &Error) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        let shared = Arc::clone(&batch.shared);
        let visit = shared.plan.visit(number);
        let calls = shared.calls_of(&visit, items);
        let array = &shared.arrays[visit.array];
        batch.fail(number, &calls, &error.clone().in_object(&array.object_url(&visit.shard)));
        self.settle(id, &calls);
    }

    /// Fails every visit that waits for an object.
    fn root_failed(&mut self, id: u64, error: &Error) {
        let Some(object) = self.objects.get_mut(&id) else { return };
        object.asked = false;
        for visit_id in std::mem::take(&mut object.waiting) {
            let Some(visit) = self.visits.get_mut(&visit_id) else { continue };
            visit.left = 0;
            let (batch, number, items) = (visit.batch, visit.number, Arc::clone(&visit.items));
            self.fail(batch, number, &items, error);
            self.end_if_over(visit_id);
        }
    }

    pub(super) fn index_done(
        &mut self,
        task: IndexTask,
        index: Result<ShardIndex>,
        body: Option<&B>,
        nbytes: u64,
        now_s: f64,
    ) {
        self.counters.index_misses += 1;
        let mut used = false;
        if let Some(object) = self.objects.get_mut(&task.object).filter(|object| object.epoch == task.epoch) {
            for visit in &object.waiting {
                let batch = self.visits.get(visit).map(|visit| visit.batch);
                if let Some(batch) = batch.and_then(|batch| self.batches.get_mut(&batch))
                    && batch.shared.mode != Mode::Read
                {
                    batch.tally.requests += 1;
                    batch.tally.bytes_fetched += nbytes;
                    break;
                }
            }
            match (task.root, index) {
                (Some(_), Err(error)) => self.root_failed(task.object, &error.in_range(task.shard)),
                (Some((version, whole)), Ok(index)) => {
                    object.asked = false;
                    let indexes = [((0, task.shard), Ok(Arc::new(index)))].into();
                    object.known = Some(Known::Present { since_s: now_s, version, indexes });
                    let parts = self.wake(task.object, whole.then_some(nbytes));
                    if let Some(body) = body.filter(|_| !parts.is_empty()) {
                        used = self.deliver(parts, 0, body.clone(), nbytes);
                    }
                }
                (None, index) => {
                    object.asked_inner.retain(|&asked| asked != (task.level, task.shard));
                    if let Some(Known::Present { indexes, .. }) = &mut object.known {
                        let index = index.map(Arc::new).map_err(|error| error.in_range(task.shard));
                        indexes.insert((task.level, task.shard), index);
                    }
                    self.wake(task.object, None);
                }
            }
        }
        if !used {
            self.release(nbytes);
        }
    }

    // --- an object that is another one now

    /// Forgets an object that turned out to be another one; its visits begin again.
    fn changed(&mut self, id: u64) {
        let Some(object) = self.objects.get_mut(&id) else { return };
        object.known = None;
        object.epoch += 1;
        object.asked = false;
        object.asked_inner.clear();
        object.pending.clear();
        object.waiting.clear();
        for visit_id in object.visits.clone() {
            let Some(visit) = self.visits.get_mut(&visit_id) else { continue };
            visit.pass += 1;
            visit.left = 0;
            visit.again = true;
            if visit.pass >= MAX_PASSES {
                visit.again = false;
                let what = format!("the object was replaced during each of {MAX_PASSES} reads of it");
                let error = ErrorKind::ObjectChanged { what }.into();
                let (batch, number, items) = (visit.batch, visit.number, Arc::clone(&visit.items));
                self.fail(batch, number, &items, &error);
                self.end_if_over(visit_id);
            } else if visit.working == 0 {
                self.restart(visit_id);
            }
        }
    }

    fn restart(&mut self, id: u64) {
        let Some(visit) = self.visits.get_mut(&id) else { return };
        visit.again = false;
        visit.left = 0;
        self.advance(id, None);
    }

    /// Takes a request that nobody waits for out of flight.
    pub(super) fn abandon(&mut self, id: u64) {
        let Some(flight) = self.in_flight.remove(&id) else { return };
        self.release(flight.nbytes);
        let Some(object) = self.objects.get_mut(&flight.object).filter(|object| object.epoch == flight.epoch) else {
            return;
        };
        match flight.kind {
            Kind::Root { .. } | Kind::Object => object.asked = false,
            Kind::Inner { level, shard } => object.asked_inner.retain(|&asked| asked != (level, shard)),
            Kind::Chunks(_) => {}
        }
    }

    /// Notes that the bytes of a request are not needed any more.
    pub(super) fn release(&mut self, nbytes: u64) {
        self.in_flight_nbytes = self.in_flight_nbytes.saturating_sub(nbytes);
        self.held = self.held.saturating_sub(1);
    }
}
