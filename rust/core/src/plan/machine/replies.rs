//! What follows from a reply: an index to decode, chunks to deliver, an object that is missing, failed or another one.

use std::sync::Arc;

use super::blocks::is_of_parts;
use super::object::UNKNOWN_NBYTES;
use super::{Delivery, Failure, Flight, IndexTask, Job, Kind, Known, Machine, Mode, Part, Task, Version, What};
use crate::error::{Error, ErrorKind, Result, TransportClass};
use crate::index::ShardIndex;
use crate::metadata::ChunkTable;
use crate::plan::shard::StoredChunk;
use crate::subset::ByteRange;

/// Times that a visit begins before its object is given up as one that changes all the time.
const MAX_PASSES: u32 = 4;

impl<P, B: Clone + AsRef<[u8]>> Machine<P, B> {
    /// Goes on with the visits that wait for an object. `body` is all of it (its bytes in flight), where it is at hand.
    pub(super) fn wake(&mut self, id: u64, body: Option<u64>) -> Vec<Part<P>> {
        let Some(object) = self.objects.get_mut(&id) else { return Vec::new() };
        let waiting = std::mem::take(&mut object.waiting);
        waiting.into_iter().filter_map(|visit| self.advance(visit, body)).collect()
    }

    /// Takes a body; true if a job has it now.
    pub(super) fn received(&mut self, flight: Flight, version: Version, start: u64, body: B, now_s: f64) -> bool {
        let Some(object) = self.objects.get_mut(&flight.object) else { return false };
        if object.epoch != flight.epoch {
            return false;
        }
        let nbytes = body.as_ref().len() as u64;
        let id = flight.object;
        let array = Arc::clone(&object.array);
        if version.total == Some(0) && !matches!(flight.kind, Kind::Object) {
            let may_be = array.meta.levels.first().is_some_and(|level| level.index.may_be_of_nothing());
            let is_shard = may_be && matches!(flight.kind, Kind::Root { .. });
            if is_shard || matches!(flight.what, What::Range(_)) {
                self.failed(flight, if is_shard { Failure::Absent } else { Failure::Changed }, now_s);
                return false;
            }
        }
        if array.meta.levels.is_empty()
            && !object.is_present()
            && matches!(flight.kind, Kind::Chunks(_))
            && !self.has_elements(id, &version, now_s)
        {
            return false;
        }
        let Some(object) = self.objects.get_mut(&id) else { return false };
        if let Kind::Chunks(_) | Kind::Inner { .. } = flight.kind {
            match &mut object.known {
                Some(Known::Present { version: known, .. }) if *known != Version::default() => {
                    if !known.is_same(&version) {
                        self.changed(id);
                        return false;
                    }
                }
                // The first reply of this object.
                known => {
                    let level = array.meta.levels.first().zip(version.total);
                    if let Some(Err(error)) = level.map(|(level, total)| level.index.check_object(total)) {
                        self.object_failed(id, &error);
                        return false;
                    }
                    match known {
                        Some(Known::Present { version: known, .. }) => *known = version.clone(),
                        _ => object.known = Some(object.first(version.clone(), now_s)),
                    }
                }
            }
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
                let cell = object.cell.clone();
                let level = array.meta.level_in(0, &cell);
                // Of an object of unknown size the suffix ends where the object does.
                let is_suffix = matches!(flight.what, What::Suffix(_));
                let start = if version.total.is_none() && is_suffix { total - nbytes } else { start };
                let end = start + nbytes;
                let object_nbytes = if whole { nbytes } else { total };
                let shard = ByteRange { start: 0, end: object_nbytes };
                let range = level.map_or(Ok(None), |level| level.index.range(shard));
                let found = range.and_then(|range| {
                    range
                        .filter(|range| start <= range.start && range.end <= end)
                        .ok_or_else(|| Error::shard_index("the reply does not hold the index"))
                });
                match found {
                    Ok(range) => {
                        let encoded = (range.start - start) as usize..(range.end - start) as usize;
                        let version = Version { total: Some(shard.end).filter(|_| whole).or(version.total), ..version };
                        let root = Some((version, whole));
                        let epoch = flight.epoch;
                        let task =
                            IndexTask { array, cell, level: 0, shard, encoded, object_nbytes, object: id, epoch, root };
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
                let (epoch, object_nbytes) = (flight.epoch, version.total.unwrap_or(UNKNOWN_NBYTES));
                let cell = object.cell.clone();
                let task =
                    IndexTask { array, cell, level, shard, encoded, object_nbytes, object: id, epoch, root: None };
                self.jobs.push(Job { task: Task::Index(task), body: Some(body), nbytes });
                true
            }
            Kind::Blocks => {
                self.beginning(id, version, body.as_ref(), now_s);
                false
            }
            Kind::Object => {
                object.asked = false;
                let waiting = std::mem::take(&mut object.waiting);
                self.came_whole(id, version, now_s);
                let parts: Vec<_> =
                    waiting.into_iter().filter_map(|visit| self.part(visit, Delivery::Object)).collect();
                self.count_checked(&parts, nbytes);
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
                let parts: Vec<_> = parts.collect();
                self.count_checked(&parts, nbytes);
                self.deliver(parts, start, body, nbytes)
            }
        }
    }

    /// Notes the bytes that the parts of a check came with.
    fn count_checked(&mut self, parts: &[Part<P>], nbytes: u64) {
        for part in parts {
            let batch = self.visits.get(&part.visit).map(|visit| visit.batch);
            if let Some(batch) = batch.and_then(|batch| self.batches.get_mut(&batch))
                && batch.shared.mode == Mode::Check
            {
                batch.tally.bytes_fetched += nbytes;
            }
        }
    }

    pub(super) fn deliver(&mut self, parts: Vec<Part<P>>, body_start: u64, body: B, nbytes: u64) -> bool {
        let some = !parts.is_empty();
        if some {
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
            (Failure::Absent, Kind::Root { .. } | Kind::Object | Kind::Blocks) => {
                object.asked = false;
                object.known = Some(object.absent());
                self.wake(id, None);
            }
            // What its index promised is gone.
            (Failure::Changed, Kind::Root { .. }) => {
                // Nothing was asked of a version: the object ends before its index does.
                self.root_failed(id, &Error::shard_index("the object is too short for its index; it is truncated"));
            }
            (Failure::Absent, _) if object.array.meta.table().is_some() => self.object_failed(id, &ChunkTable::gone()),
            (Failure::Absent, _) if !object.is_present() => {
                let known = object.absent();
                self.begin_again(id, Some(known));
            }
            (Failure::Changed, Kind::Chunks(_)) if !object.is_present() && object.array.meta.levels.is_empty() => {
                self.is_no_chunk(id, now_s);
            }
            (Failure::Error(error), Kind::Chunks(_))
                if !object.is_present() && object.array.meta.levels.is_empty() && is_refused_part(&error) =>
            {
                self.wholes.insert(Arc::clone(&object.name.store));
                self.is_no_chunk(id, now_s);
            }
            (Failure::Changed, Kind::Inner { .. } | Kind::Chunks(_)) if object.known.is_none() => {
                self.object_failed(id, &Error::shard_index("the object is too short for its layout; it is truncated"));
            }
            (Failure::Changed, Kind::Blocks) => self.has_no_blocks(id, now_s),
            (Failure::Error(error), Kind::Blocks) if is_of_parts(&error) => self.has_no_blocks(id, now_s),
            (Failure::Absent | Failure::Changed, _) => self.changed(id),
            (Failure::Error(error), Kind::Root { whole: true }) if is_too_large(&error) => {
                // There are bytes between its chunks: its index tells which are needed.
                object.asked = false;
                object.is_large = true;
                self.wake(id, None);
            }
            (Failure::Error(error), Kind::Root { .. } | Kind::Object | Kind::Blocks) => self.root_failed(id, &error),
            (Failure::Error(error), Kind::Inner { level, shard }) => {
                if object.known.is_none() {
                    object.known = Some(object.first(Version::default(), now_s));
                }
                self.inner_known(id, (level, shard), Err(error));
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

    /// Fails every visit that waits for an object.
    pub(super) fn root_failed(&mut self, id: u64, error: &Error) {
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
                    let (asked_s, blocks) = (object.asked_s, None);
                    object.known = Some(Known::Present { asked_s, since_s: now_s, version, indexes, blocks });
                    let parts = self.wake(task.object, whole.then_some(nbytes));
                    if let Some(body) = body.filter(|_| !parts.is_empty()) {
                        used = self.deliver(parts, 0, body.clone(), nbytes);
                    }
                }
                (None, index) => {
                    let index = index.map(Arc::new).map_err(|error| error.in_range(task.shard));
                    self.inner_known(task.object, (task.level, task.shard), index);
                }
            }
        }
        if !used {
            self.release(nbytes);
        }
    }

    /// Notes an index further in, or why there is none. Visits go on when all that were asked for are there: each resolves
    /// all its chunks anew.
    fn inner_known(&mut self, id: u64, place: (usize, ByteRange), index: Result<Arc<ShardIndex>>) {
        let Some(object) = self.objects.get_mut(&id) else { return };
        object.asked_inner.retain(|&asked| asked != place);
        let all = object.asked_inner.is_empty();
        if let Some(Known::Present { indexes, .. }) = &mut object.known {
            indexes.insert(place, index);
        }
        if all {
            self.wake(id, None);
        }
    }

    /// Fails every visit of an object, whatever it waits for.
    fn object_failed(&mut self, id: u64, error: &Error) {
        let Some(object) = self.objects.get_mut(&id) else { return };
        object.start_over(None);
        for visit_id in object.visits.clone() {
            let Some(visit) = self.visits.get_mut(&visit_id) else { continue };
            visit.pass += 1;
            visit.left = 0;
            let (batch, number, items) = (visit.batch, visit.number, Arc::clone(&visit.items));
            self.fail(batch, number, &items, error);
            self.end_if_over(visit_id);
        }
    }

    /// Forgets an object that turned out to be another one; its visits begin again.
    pub(super) fn changed(&mut self, id: u64) {
        let table = self.objects.get(&id).and_then(|object| object.array.meta.table());
        if table.is_some_and(|table| table.version().is_some()) {
            // There is nothing that could be read again: the table is of the other version.
            return self.object_failed(id, &ChunkTable::changed());
        }
        self.begin_again(id, None);
    }

    /// Lets the visits of an object begin again, with what is `known` of it now.
    pub(super) fn begin_again(&mut self, id: u64, known: Option<Known>) {
        let Some(object) = self.objects.get_mut(&id) else { return };
        let is_settled = known.is_some();
        object.start_over(known);
        for visit_id in object.visits.clone() {
            let Some(visit) = self.visits.get_mut(&visit_id) else { continue };
            visit.pass += 1;
            visit.left = 0;
            visit.again = true;
            if visit.pass >= MAX_PASSES && !is_settled {
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

    pub(super) fn restart(&mut self, id: u64) {
        let Some(visit) = self.visits.get_mut(&id) else { return };
        visit.again = false;
        visit.left = 0;
        self.advance(id, None);
    }
}

/// Whether a store does not give parts of objects.
fn is_refused_part(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Transport { class: TransportClass::RangeNotHonoured, .. })
}

fn is_too_large(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Transport { class: TransportClass::Limit, .. })
}
