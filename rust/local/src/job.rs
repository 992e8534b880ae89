//! One plan being carried out by several threads.
//!
//! Tasks are visits (find the bytes of one stored object), requests (read one merged range, decode, deliver) and deliveries
//! of chunks that are at hand decoded. Visits come last, so that few tasks are known at a time. The first error in plan
//! order wins whatever order the threads come in.

mod requests;

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use voxfetch_core::assemble::{Assembly, Target};
use voxfetch_core::chunk_cache::{ObjectCache, ReadCache};
use voxfetch_core::error::{Error, ErrorKind, Result};
use voxfetch_core::plan::machine::missing_chunk;
use voxfetch_core::plan::{Item, Plan, Visit};

use crate::locate::{Caches, How, LocalArray, Located, locate};
use crate::pool::{ThreadState, Work, from_panic};
use crate::stats::Counters;
use requests::Found;

/// Passes over objects that change while they are read.
const MAX_PASSES: u32 = 4;
/// Problems that a check lists one by one.
const MAX_PROBLEMS: usize = 1000;

/// Called once with the outcome when the last task has ended.
pub type OnDone = Box<dyn FnOnce(Outcome) + Send>;

/// How a job ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The first error in plan order.
    pub error: Option<Error>,
    /// Number of errors in all.
    pub errors: u64,
    /// Each problem, at most 1,000, in plan order; only for a job that checks.
    pub problems: Vec<Error>,
}

/// A plan, the memory it goes to, and how far it is.
pub struct Job {
    caches: Arc<Caches>,
    arrays: Vec<Arc<LocalArray>>,
    plan: Plan,
    outputs: Vec<Option<Target>>,
    /// Lists all problems instead of stopping at the first.
    check: bool,
    /// Decoded chunks of earlier reads; None when none are kept.
    cache: Option<ReadCache>,
    threads: usize,
    /// What this job did; added to the engine's totals at its end.
    pub counters: Counters,
    totals: Arc<Counters>,
    cancelled: AtomicBool,
    /// Position of the first error in plan order; later tasks are not started.
    stop_after: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Visits of this pass: all of them in the first, then those whose file changed.
    again: Option<Vec<u64>>,
    next_visit: u64,
    pass: u32,
    /// Those that are not visits.
    tasks: VecDeque<Task>,
    active: usize,
    /// Threads that wait for `changed`: telling nobody costs a system call too.
    waiting: usize,
    replaced: Vec<u64>,
    failures: Vec<(u64, Error)>,
    errors: u64,
    present: Vec<bool>,
    on_done: Option<OnDone>,
    /// Cancelled with tasks left: the outputs are not complete.
    stopped: bool,
    done: bool,
}

enum Task {
    Visit(u64),
    /// Some of the visit's requests, one after another.
    Requests(Arc<Found>, Range<usize>),
    /// Some of the visit's chunks that are at hand decoded.
    Kept(Arc<Found>, Range<usize>),
}

impl Task {
    /// Number of the visit in the plan.
    fn visit(&self) -> u64 {
        match self {
            Self::Visit(visit) => *visit,
            Self::Requests(found, _) | Self::Kept(found, _) => found.visit,
        }
    }
}

/// What a job is made of.
pub struct Parts {
    /// Files and indexes.
    pub caches: Arc<Caches>,
    /// The arrays, in the order of the plan's.
    pub arrays: Vec<Arc<LocalArray>>,
    /// What to read.
    pub plan: Plan,
    /// Where to, one per read of the plan.
    pub outputs: Vec<Option<Target>>,
    /// Whether all problems are listed.
    pub check: bool,
    /// Decoded chunks, None when none are kept.
    pub cache: Option<ReadCache>,
    /// Threads that may work on it.
    pub threads: usize,
    /// The engine's totals.
    pub totals: Arc<Counters>,
    /// Called at the end.
    pub on_done: Option<OnDone>,
}

impl Job {
    /// A job that nobody works on yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { caches, arrays, plan, outputs, check, cache, threads, totals, on_done } = parts;
        let present = vec![false; arrays.len()];
        Self {
            caches,
            arrays,
            plan,
            outputs,
            check,
            cache,
            threads,
            counters: Counters::default(),
            totals,
            cancelled: AtomicBool::new(false),
            stop_after: AtomicU64::new(u64::MAX),
            state: Mutex::new(State { present, on_done, ..State::default() }),
            changed: Condvar::new(),
        }
    }

    /// Starts no further task.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.wake(&self.lock());
    }

    fn wake(&self, state: &State) {
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }

    /// Works on the calling thread until nothing is left to start. Between tasks, `busy` is told how many tasks are known
    /// to be left and may cancel the job by returning true.
    pub fn work(&self, thread: &mut ThreadState, mut busy: impl FnMut(u64) -> bool) {
        let mut state = self.lock();
        loop {
            if state.done {
                return;
            }
            if let Some(task) = self.next(&mut state) {
                state.active += 1;
                drop(state);
                let order = task.visit();
                let result = self.guarded(order, || {
                    let visit = self.plan.visit(order);
                    match task {
                        Task::Visit(_) => self.visit(order, &visit, thread),
                        Task::Requests(found, some) => self.requests(&visit, &found, some, thread),
                        Task::Kept(found, some) => self.kept(&visit, &found, some).map(|()| After::Nothing),
                    }
                });
                state = self.lock();
                state.active -= 1;
                match result {
                    Ok(After::Nothing) => {}
                    Ok(After::Tasks(tasks)) => {
                        state.tasks.extend(tasks);
                        self.wake(&state);
                    }
                    Ok(After::Changed) => state.replaced.push(order),
                    Err(error) => self.fail(&mut state, order, error),
                }
                if !state.tasks.is_empty() || state.next_visit < self.visits(&state) {
                    let left = state.tasks.len() as u64 + self.visits(&state) - state.next_visit;
                    drop(state);
                    if busy(left) {
                        self.cancel();
                    }
                    state = self.lock();
                }
                continue;
            }
            if state.active == 0 {
                if self.finish_pass(&mut state) {
                    continue;
                }
                // Before anybody learns of the end, and looks.
                self.totals.add(&self.counters);
                state.done = true;
                self.wake(&state);
                let on_done = state.on_done.take();
                drop(state);
                if let Some(on_done) = on_done {
                    on_done(self.outcome());
                }
                return;
            }
            state.waiting += 1;
            let (back, timeout) =
                self.changed.wait_timeout(state, Duration::from_millis(50)).unwrap_or_else(PoisonError::into_inner);
            state = back;
            state.waiting -= 1;
            if timeout.timed_out() {
                drop(state);
                if busy(0) {
                    self.cancel();
                }
                state = self.lock();
            }
        }
    }

    /// How it ended; call once it is done.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let mut state = self.lock();
        let mut failures = std::mem::take(&mut state.failures);
        failures.sort_by_key(|f| f.0);
        let mut errors = failures.into_iter().map(|f| f.1);
        let mut error = if self.check { None } else { errors.next() };
        if error.is_none() && state.stopped {
            error = Some(ErrorKind::Store { what: "the read was stopped before its end".into() }.into());
        }
        Outcome { error, errors: state.errors, problems: errors.collect() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn visits(&self, state: &State) -> u64 {
        state.again.as_ref().map_or_else(|| self.plan.visits(), |again| again.len() as u64)
    }

    fn next(&self, state: &mut State) -> Option<Task> {
        if self.cancelled.load(Ordering::Relaxed) {
            state.stopped |= !state.tasks.is_empty() || state.next_visit < self.visits(state);
            state.tasks.clear();
            state.next_visit = self.visits(state);
            return None;
        }
        while let Some(task) = state.tasks.pop_front() {
            if task.visit() <= self.stop_after.load(Ordering::Relaxed) {
                return Some(task);
            }
        }
        if state.next_visit < self.visits(state) {
            let visit = match &state.again {
                None => state.next_visit,
                Some(again) => again[state.next_visit as usize],
            };
            if visit > self.stop_after.load(Ordering::Relaxed) {
                state.next_visit = self.visits(state);
                return None;
            }
            state.next_visit += 1;
            return Some(Task::Visit(visit));
        }
        None
    }

    /// Prepares another pass over objects that changed while they were read; false when there is none.
    fn finish_pass(&self, state: &mut State) -> bool {
        let mut replaced = std::mem::take(&mut state.replaced);
        if replaced.is_empty() {
            return false;
        }
        if self.cancelled.load(Ordering::Relaxed) {
            state.stopped = true;
            return false;
        }
        replaced.sort_unstable();
        replaced.dedup();
        state.pass += 1;
        if state.pass >= MAX_PASSES {
            for number in replaced {
                let visit = self.plan.visit(number);
                let what = format!("the file was rewritten during each of {MAX_PASSES} reads of it");
                let error = Error::from(ErrorKind::ObjectChanged { what });
                self.fail(
                    state,
                    number,
                    error.in_object(&self.arrays[visit.array].path(&visit.shard).to_string_lossy()),
                );
            }
            return false;
        }
        state.again = Some(replaced);
        state.next_visit = 0;
        true
    }

    fn fail(&self, state: &mut State, order: u64, error: Error) {
        state.errors += 1;
        if !self.check {
            self.stop_after.fetch_min(order, Ordering::Relaxed);
        }
        if state.failures.len() < MAX_PROBLEMS {
            state.failures.push((order, error));
        }
    }

    /// Runs a task of visit number `number`, names its object in errors, and turns a panic into an error.
    fn guarded(&self, number: u64, task: impl FnOnce() -> Result<After>) -> Result<After> {
        let result = catch_unwind(AssertUnwindSafe(task)).unwrap_or_else(|panic| Err(from_panic(&*panic)));
        result.map_err(|error| {
            let visit = self.plan.visit(number);
            error.in_object(&self.arrays[visit.array].path(&visit.shard).to_string_lossy())
        })
    }

    fn assembly<'a>(&'a self, array: usize, cache: Option<&'a ObjectCache>) -> Assembly<'a> {
        Assembly { plan: &self.plan, outputs: &self.outputs, verify: self.arrays[array].verify, cache }
    }

    fn visit(&self, number: u64, visit: &Visit<'_>, thread: &mut ThreadState) -> Result<After> {
        let array = &self.arrays[visit.array];
        let mut items = Vec::new();
        self.plan.chunk_items(visit, &mut items)?;
        let how = How { fetch_indexes: true, threads: self.threads, cache: self.cache.as_ref() };
        match locate(&self.caches, array, &self.plan, visit, &items, how)? {
            Located::Changed => Ok(After::Changed),
            Located::Absent => {
                self.check_array_is_there(visit.array)?;
                self.counters.objects_missing.add(1);
                for group in items.chunk_by(|a, b| a.chunk == b.chunk) {
                    self.deliver_missing(visit, group, thread)?;
                }
                Ok(After::Nothing)
            }
            Located::Whole { file, compressed, cache } => {
                self.counters.objects.add(1);
                let range = voxfetch_core::subset::ByteRange { start: 0, end: file.id.nbytes };
                if !file.read(range, &mut thread.body)? {
                    return Ok(After::Changed);
                }
                self.counters.requests.add(1);
                self.counters.bytes_read.add(range.len());
                if let Some(compression) = compressed {
                    thread.body = array.meta.decompressed(&mut thread.worker.codec, compression, &thread.body)?;
                }
                let assembly = self.assembly(visit.array, cache.as_ref());
                if array.meta.levels.is_empty() {
                    assembly.deliver(&mut thread.worker, visit, &items, Some(thread.body.as_slice().into()))?;
                } else {
                    assembly.deliver_object(&mut thread.worker, visit, &items, &thread.body)?;
                }
                let chunks = self.plan.decoded(visit, items.chunk_by(|a, b| a.chunk == b.chunk));
                self.count_decoded(visit.array, chunks, cache.is_some());
                Ok(After::Nothing)
            }
            Located::Parts { file, kept, resolved, requests, indexes, cache } => {
                self.counters.objects.add(1);
                self.counters.index_hits.add(indexes.hits);
                self.counters.index_misses.add(indexes.misses);
                self.counters.requests.add(indexes.misses);
                self.counters.bytes_read.add(indexes.bytes);
                let mut failed = resolved.failed.into_iter();
                if self.check {
                    let mut state = self.lock();
                    let path = array.path(&visit.shard);
                    for (group, error) in failed.by_ref() {
                        let chunk = self.plan.chunk_position(visit, items[group.start].chunk);
                        self.fail(&mut state, number, error.in_chunk(&chunk).in_object(&path.to_string_lossy()));
                    }
                    for pair in resolved.stored.windows(2) {
                        if pair[1].range.start < pair[0].range.end {
                            let chunk = self.plan.chunk_position(visit, items[pair[1].items.start].chunk);
                            let error = Error::shard_index("overlaps the chunk stored before it");
                            let error = error.in_range(pair[1].range).in_chunk(&chunk);
                            self.fail(&mut state, number, error.in_object(&path.to_string_lossy()));
                        }
                    }
                } else if let Some((group, error)) = failed.next() {
                    return Err(error.in_chunk(&self.plan.chunk_position(visit, items[group.start].chunk)));
                }
                for group in &resolved.missing {
                    self.deliver_missing(visit, &items[group.clone()], thread)?;
                }
                let (kept, stored) = (kept.chunks, resolved.stored);
                self.deliver_found(visit, Found { visit: number, items, kept, stored, requests, file, cache }, thread)
            }
        }
    }

    fn deliver_missing(&self, visit: &Visit<'_>, items: &[Item], thread: &mut ThreadState) -> Result<()> {
        self.counters.chunks_missing.add(1);
        if self.arrays[visit.array].missing_is_error {
            return Err(missing_chunk(&self.plan, visit, items));
        }
        self.assembly(visit.array, None).deliver(&mut thread.worker, visit, items, None)
    }

    /// Counts chunks that were decoded, `missed` because they were not kept.
    fn count_decoded(&self, array: usize, chunks: u64, missed: bool) {
        self.counters.chunk_cache_misses.add(if missed { chunks } else { 0 });
        self.counters.chunks_decoded.add(chunks);
        self.counters.bytes_decoded.add(chunks * self.arrays[array].meta.chunk_nbytes as u64);
    }

    /// A chunk that is not there is the fill value only while its array is: an unmounted or deleted folder is an error.
    fn check_array_is_there(&self, array: usize) -> Result<()> {
        if self.lock().present[array] {
            return Ok(());
        }
        self.arrays[array].check_is_there()?;
        self.lock().present[array] = true;
        Ok(())
    }
}

impl Work for Job {
    fn run(&self, state: &mut ThreadState) {
        self.work(state, |_| false);
    }
}

enum After {
    Nothing,
    Tasks(Vec<Task>),
    Changed,
}
