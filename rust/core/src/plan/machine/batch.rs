//! Calls planned together: how far each is, and how it ended.
//!
//! The visits of a plan are begun one after another, never listed. A call ends when all its visits up to its first error
//! have ended, so that the error reported is the first in plan order whatever order bodies come in.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::RemoteArray;
use crate::chunk_cache::ReadCache;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{Item, Plan, ReadSpec, Selection, Visit};

/// Problems that a check lists one by one.
const MAX_PROBLEMS: usize = 1000;

/// What is done with the visits of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Chunks are fetched and delivered; a call ends at its first error.
    Read,
    /// Chunks are fetched and decoded; all problems are listed.
    Check,
    /// Nothing but indexes is fetched, and those only if asked to.
    Explain {
        /// Whether indexes that are not known are fetched.
        fetch_indexes: bool,
    },
}

/// Reads that end together: a token that names them, and what is read of which array.
pub type Call = (u64, Vec<(Arc<RemoteArray>, Selection)>);

/// Reads planned together, and what the caller keeps with them.
#[derive(Debug)]
pub struct Shared<P> {
    /// The arrays, in the order of the plan's.
    pub arrays: Vec<Arc<RemoteArray>>,
    /// What to read.
    pub plan: Plan,
    /// What is done.
    pub mode: Mode,
    /// The caller's: where the reads go to.
    pub payload: P,
    /// Call that each read belongs to.
    owner: Vec<u32>,
    pub(super) tokens: Vec<u64>,
}

impl<P> Shared<P> {
    /// Plans the reads of some calls, each with its token.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn new(calls: Vec<Call>, mode: Mode, payload: P) -> Result<Self> {
        let mut arrays: Vec<Arc<RemoteArray>> = Vec::new();
        let (mut specs, mut owner, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
        for (token, reads) in calls {
            for (array, selection) in reads {
                let known = arrays.iter().position(|other| Arc::ptr_eq(other, &array));
                let number = known.unwrap_or_else(|| {
                    arrays.push(array);
                    arrays.len() - 1
                });
                specs.push(ReadSpec { array: number, selection });
                owner.push(tokens.len() as u32);
            }
            tokens.push(token);
        }
        let plan = Plan::new(arrays.iter().map(|array| Arc::clone(&array.meta)).collect(), specs)?;
        Ok(Self { arrays, plan, mode, payload, owner, tokens })
    }

    /// The calls that some items of a visit belong to, ascending.
    pub(super) fn calls_of(&self, visit: &Visit<'_>, items: &[Item]) -> Vec<u32> {
        let mut calls: Vec<u32> = match items {
            [one] => vec![self.call_of(visit, *one)],
            _ if visit.pieces.len() == 1 && !items.is_empty() => vec![self.call_of(visit, items[0])],
            _ => items.iter().map(|&item| self.call_of(visit, item)).collect(),
        };
        calls.sort_unstable();
        calls.dedup();
        calls
    }

    pub(super) fn call_of(&self, visit: &Visit<'_>, item: Item) -> u32 {
        self.owner[visit.pieces[item.piece as usize].read as usize]
    }
}

/// How a call ended.
#[derive(Debug)]
pub struct Ended {
    /// Its token.
    pub token: u64,
    /// The first error in plan order.
    pub error: Option<Error>,
    /// Number of errors in all.
    pub errors: u64,
    /// Each problem in plan order, at most 1,000; only of a check.
    pub problems: Vec<Error>,
    /// What was found; of a call that shared its plan with others, what all of them found.
    pub tally: Tally,
}

/// What the visits of a batch found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Stored objects touched, missing ones included.
    pub shards: u64,
    /// Of these, not there.
    pub shards_missing: u64,
    /// Chunks needed, missing ones included.
    pub chunks: u64,
    /// Of these, not stored.
    pub chunks_missing: u64,
    /// Requests, of indexes too.
    pub requests: u64,
    /// Bytes of the stored chunks that are needed.
    pub bytes_needed: u64,
    /// Bytes that are fetched: chunks, gaps between merged ones, indexes.
    pub bytes_fetched: u64,
    /// Bytes, as stored, of indexes that are known already and of chunks that are at hand decoded.
    pub bytes_from_cache: u64,
    /// Requests that have to wait for one another, at most.
    pub round_trips: u64,
    /// Some of these numbers are upper bounds.
    pub inexact: bool,
}

/// Calls being carried out.
#[derive(Debug)]
pub(super) struct Batch<P> {
    pub shared: Arc<Shared<P>>,
    pub calls: Vec<Progress>,
    pub next_visit: u64,
    /// When its first visit began: its calls were made before.
    pub began_s: Option<f64>,
    /// Visits begun and not ended: number -> id.
    pub active: BTreeMap<u64, u64>,
    pub interactive: bool,
    pub cache: Option<ReadCache>,
    pub tally: Tally,
    open_calls: usize,
}

/// How far one call is.
#[derive(Debug)]
pub(super) struct Progress {
    token: u64,
    /// The last visit that it has a part in.
    last: Option<u64>,
    /// Number of the first visit that failed; later ones are not carried out for it.
    stop_after: u64,
    stopped: bool,
    active: BTreeSet<u64>,
    /// Jobs at work on its memory.
    pub busy: usize,
    failures: Vec<(u64, Error)>,
    errors: u64,
    pub reported: bool,
}

impl<P> Batch<P> {
    pub fn new(shared: Arc<Shared<P>>, interactive: bool, cache: Option<ReadCache>) -> Self {
        let mut last: Vec<Option<u64>> = vec![None; shared.tokens.len()];
        for (read, visit) in shared.plan.last_visits().into_iter().enumerate() {
            let slot = &mut last[shared.owner[read] as usize];
            *slot = (*slot).max(visit);
        }
        let calls = shared.tokens.iter().zip(last).map(|(&token, last)| Progress {
            token,
            last,
            stop_after: u64::MAX,
            stopped: false,
            active: BTreeSet::new(),
            busy: 0,
            failures: Vec::new(),
            errors: 0,
            reported: false,
        });
        Self {
            calls: calls.collect(),
            next_visit: 0,
            began_s: None,
            active: BTreeMap::new(),
            interactive,
            cache,
            tally: Tally::default(),
            open_calls: shared.tokens.len(),
            shared,
        }
    }

    /// Whether a call still wants anything of visit number `visit`.
    pub fn wants(&self, call: u32, visit: u64) -> bool {
        let call = &self.calls[call as usize];
        !call.reported && !call.stopped && visit <= call.stop_after
    }

    /// Notes that a visit has begun for some calls.
    pub fn begin(&mut self, visit: u64, id: u64, calls: &[u32]) {
        self.active.insert(visit, id);
        for &call in calls {
            self.calls[call as usize].active.insert(visit);
        }
    }

    /// Notes that a visit has ended for the calls that it began for.
    pub fn end(&mut self, visit: u64, calls: &[u32]) {
        self.active.remove(&visit);
        for &call in calls {
            self.calls[call as usize].active.remove(&visit);
        }
    }

    /// Notes an error of some calls in a visit.
    pub fn fail(&mut self, visit: u64, calls: &[u32], error: &Error) {
        for &number in calls {
            if !self.wants(number, visit) {
                continue;
            }
            let check = self.shared.mode == Mode::Check;
            let call = &mut self.calls[number as usize];
            call.errors += 1;
            if call.failures.len() < MAX_PROBLEMS {
                call.failures.push((visit, error.clone()));
            }
            if !check {
                call.stop_after = call.stop_after.min(visit);
            }
        }
    }

    /// Starts nothing more for a call.
    pub fn stop(&mut self, call: u32) {
        self.calls[call as usize].stopped = true;
    }

    /// Ids of the active visits that some of `calls` were in and want no more.
    pub fn unwanted(&self, calls: &[u32]) -> Vec<u64> {
        let mut visits = Vec::new();
        for &number in calls {
            let call = &self.calls[number as usize];
            if call.stopped || call.stop_after < u64::MAX {
                let late = call.active.iter().filter(|&&visit| !self.wants(number, visit));
                visits.extend(late.filter_map(|visit| self.active.get(visit)));
            }
        }
        visits
    }

    /// The reads of all calls but these.
    pub fn reads_of_others(&self, calls: &[u32]) -> Vec<u32> {
        let reads = 0..self.shared.owner.len() as u32;
        reads.filter(|&read| !calls.contains(&self.shared.owner[read as usize])).collect()
    }

    /// Those of `calls` that have ended, once each.
    pub fn ended(&mut self, calls: &[u32]) -> Vec<Ended> {
        let mut ended = Vec::new();
        let next_visit = self.next_visit;
        for &number in calls {
            let call = &mut self.calls[number as usize];
            if call.reported || call.busy > 0 {
                continue;
            }
            let begun = call.last.is_none_or(|last| next_visit > last.min(call.stop_after));
            let idle = call.active.range(..=call.stop_after).next().is_none();
            if !(call.stopped || (begun && idle)) {
                continue;
            }
            call.reported = true;
            self.open_calls -= 1;
            // Inside one visit in the order of the bytes, whatever came first.
            call.failures.sort_by_key(|failure| (failure.0, failure.1.place().byte_range));
            let mut failures = std::mem::take(&mut call.failures).into_iter().map(|failure| failure.1);
            let mut error = if self.shared.mode == Mode::Check { None } else { failures.next() };
            if error.is_none() && call.stopped {
                error = Some(ErrorKind::Store { what: "the read was stopped before its end".into() }.into());
            }
            let problems = failures.collect();
            ended.push(Ended { token: call.token, error, errors: call.errors, problems, tally: self.tally.clone() });
        }
        ended
    }

    /// True when nothing is left to do for any call.
    pub fn is_over(&self) -> bool {
        self.active.is_empty() && self.open_calls == 0
    }

    /// True when no visit is left to begin.
    pub fn is_begun(&self) -> bool {
        self.next_visit >= self.shared.plan.visits() || self.open_calls == 0
    }
}

/// The error of a chunk that is not stored where missing chunks are errors.
#[must_use]
pub fn missing_chunk(plan: &Plan, visit: &Visit<'_>, items: &[Item]) -> Error {
    let what = "this chunk is not stored, and the read options say that missing chunks are errors".into();
    let chunk = items.first().map_or(0, |item| item.chunk);
    Error::from(ErrorKind::NotFound { what }).in_chunk(&plan.chunk_position(visit, chunk))
}

/// Items of the same chunk, as ranges of positions.
pub(super) fn groups(items: &[Item]) -> Vec<Range<usize>> {
    let mut at = 0;
    items
        .chunk_by(|a, b| a.chunk == b.chunk)
        .map(|group| {
            at += group.len();
            at - group.len()..at
        })
        .collect()
}
