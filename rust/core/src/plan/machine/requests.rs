//! Which request is sent next: merged from the chunks that wait for an object, in the order of priorities.

use super::{Flight, Kind, Machine, Object, What};
use crate::plan::coalesce::coalesce;

/// Objects that reads are busy with, past which visits begin only when nothing else is left to send.
const MAX_ACTIVE: usize = 256;
/// As many visits, of which one object may have any number.
const MAX_ACTIVE_VISITS: usize = 1 << 15;

/// So much of an object comes from a server that ignores ranges; more is refused.
const MAX_UNASKED_NBYTES: u64 = 8 << 20;

impl<P, B: Clone + AsRef<[u8]>> Machine<P, B> {
    /// The next request: one that is ready, else of the objects whose turn it is, else of a visit that begins.
    pub(super) fn next_flight(&mut self, now_s: f64) -> Option<Flight> {
        'again: loop {
            for priority in 0..2 {
                if let Some(flight) = self.ready[priority].pop_front() {
                    let Some(flight) = self.still_wanted(flight) else { continue 'again };
                    return Some(flight);
                }
                // New visits before old requests, so that a large read does not stand before all that comes later.
                let has_room = self.objects.len() < MAX_ACTIVE && self.visits.len() < MAX_ACTIVE_VISITS;
                if has_room && self.begin_next(priority, now_s) {
                    continue 'again;
                }
                if let Some(object) = self.queue[priority].pop_front() {
                    self.cut(object);
                    if let Some(flight) = self.next_of(object, priority) {
                        return Some(flight);
                    }
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
    pub(super) fn still_wanted(&mut self, mut flight: Flight) -> Option<Flight> {
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

    pub(super) fn object_priority(&self, object: &Object) -> usize {
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

    pub(super) fn make_ready(&mut self, flight: Flight) {
        let priority = self.priority(&flight);
        self.ready[priority].push_back(flight);
    }

    /// The next request of an object, which goes to the end of its queue if it has more.
    fn next_of(&mut self, id: u64, priority: usize) -> Option<Flight> {
        loop {
            let flight = self.objects.get_mut(&id)?.cut.pop_front()?;
            let flight = self.still_wanted(flight);
            let object = self.objects.get_mut(&id)?;
            let has_more = !object.cut.is_empty() || !object.pending.is_empty();
            if has_more && !std::mem::replace(&mut object.queued, true) {
                self.queue[priority].push_back(id);
            }
            if flight.is_some() {
                return flight;
            }
        }
    }

    /// Merges the pending chunks of an object into requests.
    pub(super) fn cut(&mut self, id: u64) {
        let Some(object) = self.objects.get_mut(&id) else { return };
        object.queued = false;
        let mut wants = std::mem::take(&mut object.pending);
        let (epoch, merge) = (object.epoch, object.array.merge);
        let meta = &object.array.meta;
        // All of a chunk may come where a part was asked for.
        let least_nbytes = if meta.levels.is_empty() { (meta.chunk_nbytes as u64).min(MAX_UNASKED_NBYTES) } else { 0 };
        wants.retain(|want| self.visits.get(&want.visit).is_some_and(|visit| visit.pass == want.pass));
        wants.sort_by_key(|want| want.chunk.range);
        let requests = coalesce(wants.iter().map(|want| want.chunk.range), merge);
        let mut wants = wants.into_iter();
        for request in requests {
            let members = wants.by_ref().take(request.members.len()).collect();
            let what = What::Range(request.range);
            let nbytes = request.range.len().max(least_nbytes);
            let flight = Flight { object: id, epoch, nbytes, what, kind: Kind::Chunks(members) };
            if let Some(object) = self.objects.get_mut(&id) {
                object.cut.push_back(flight);
            }
        }
    }

    /// Takes a request that nobody waits for out of flight.
    pub(super) fn abandon(&mut self, id: u64) {
        let Some(flight) = self.in_flight.remove(&id) else { return };
        self.release(flight.nbytes);
        let Some(object) = self.objects.get_mut(&flight.object).filter(|object| object.epoch == flight.epoch) else {
            return;
        };
        match flight.kind {
            Kind::Root { .. } | Kind::Object | Kind::Blocks => object.asked = false,
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
