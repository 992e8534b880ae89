//! voxfetch-local: arrays on disk, read and written on the threads of one engine.
//!
//! A read is planned by the core; then each thread takes visits (open a file, look into its index) and requests (one
//! positioned read, decode, scatter) until none is left. The calling thread works too, and alone when there is little
//! to do. Files stay open, and indexes and decoded chunks stay in memory, for as long as the file is the same one (device,
//! inode, size, modification time).
//!
//! After a fork the child's first call starts an engine of its own; the parent's is left alone (see [`LocalEngine`]).

pub mod file;
pub mod job;
pub mod locate;
mod pool;
pub mod process;
pub mod remote;
pub mod stats;
mod write;

use std::sync::{Arc, Mutex, PoisonError};

use voxfetch_core::assemble::{Input, Output, Target};
use voxfetch_core::chunk_cache::ChunkCache;
use voxfetch_core::codec::PreparedArray;
use voxfetch_core::error::{Error, ErrorKind, Result};
use voxfetch_core::plan::machine::Limits;
use voxfetch_core::plan::{AxisSelection, Plan, ReadSpec, Selection};

use job::{Job, OnDone, Outcome, Parts};
pub use locate::LocalArray;
use locate::{Caches, How, IndexCost, Located, locate};
use pool::{Pool, ThreadState, Work};
use process::PerProcess;
use remote::Remote;
use stats::Counters;

/// Tasks left after the first one up to which the calling thread goes on alone.
const FEW_TASKS: u64 = 3;

/// Sizes of an engine.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Threads that read and decode, the calling one included.
    pub threads: usize,
    /// Bytes of shard indexes kept.
    pub index_cache_bytes: u64,
    /// Bytes of decoded chunks kept, of local and remote arrays together; 0 keeps none.
    pub chunk_cache_bytes: u64,
    /// Files kept open.
    pub max_open_files: usize,
    /// Bytes of requests of remote stores in flight, or received and not decoded yet.
    pub in_flight_bytes: u64,
}

/// One read: what of which array, and the memory it goes to (None when it is only planned or checked).
pub struct LocalRead {
    /// The array.
    pub array: Arc<LocalArray>,
    /// What of it.
    pub selection: Selection,
    /// Where to.
    pub output: Option<Target>,
}

/// What a read would do.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Stored objects touched, missing ones included.
    pub shards: u64,
    /// Of these, not there.
    pub shards_missing: u64,
    /// Chunks needed, missing ones included.
    pub chunks: u64,
    /// Of these, not stored.
    pub chunks_missing: u64,
    /// Positioned reads, of indexes too.
    pub requests: u64,
    /// Bytes of the stored chunks that are needed.
    pub bytes_needed: u64,
    /// Bytes that are read: chunks, gaps between merged ones, indexes.
    pub bytes_fetched: u64,
    /// Bytes, as stored, of indexes and chunks that are in memory already.
    pub bytes_from_cache: u64,
    /// Reads that have to wait for one another, at most.
    pub round_trips: u64,
    /// Whether all indexes were known, and the read will find the same chunks in memory.
    pub exact: bool,
}

/// Result of reading and decoding everything that is stored.
#[derive(Debug, Default)]
pub struct Verification {
    /// What was done.
    pub counters: Counters,
    /// Problems found, in all.
    pub problem_count: u64,
    /// The first 1,000 of them, in the order of the array.
    pub problems: Vec<Error>,
}

/// Threads, open files and indexes for arrays on disk. A forked child has its own.
pub struct LocalEngine {
    config: Config,
    state: PerProcess<ProcessState>,
}

struct ProcessState {
    caches: Arc<Caches>,
    pool: Mutex<Option<Arc<Pool>>>,
    /// States of threads that called in, for the next that does.
    callers: Mutex<Vec<ThreadState>>,
    totals: Arc<Counters>,
    remote: Arc<Remote>,
}

impl ProcessState {
    fn new(config: Config) -> Self {
        let chunks = Arc::new(ChunkCache::new(config.chunk_cache_bytes));
        let limits = Limits { in_flight_nbytes: config.in_flight_bytes, index_cache_nbytes: config.index_cache_bytes };
        Self {
            caches: Arc::new(Caches::new(config.index_cache_bytes, config.max_open_files, Arc::clone(&chunks))),
            pool: Mutex::new(None),
            callers: Mutex::default(),
            totals: Arc::default(),
            remote: Arc::new(Remote::new(limits, chunks)),
        }
    }
}

impl LocalEngine {
    /// An engine without threads or open files yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, state: PerProcess::new(ProcessState::new(config)) }
    }

    /// Reads and returns when every output is written. `interrupted` is asked at least every 50 ms or after each task.
    ///
    /// # Errors
    /// The first error in plan order, with the number of errors.
    pub fn read(
        &self,
        reads: Vec<LocalRead>,
        mut interrupted: impl FnMut() -> bool,
    ) -> std::result::Result<(), (Error, u64)> {
        let state = self.state();
        let job = self.job(state, reads, false, None).map_err(|error| (error, 1))?;
        self.carry_out(state, &job, &mut interrupted);
        let outcome = job.outcome();
        outcome.error.map_or(Ok(()), |error| Err((error, outcome.errors)))
    }

    /// Starts reads on the workers; `on_done` is called by the thread that ends the last task.
    ///
    /// # Errors
    /// What makes the reads impossible to plan; then `on_done` is not called.
    pub fn submit(&self, reads: Vec<LocalRead>, on_done: OnDone) -> Result<Arc<Job>> {
        let state = self.state();
        let job = self.job(state, reads, false, Some(on_done))?;
        let pool = self.pool(state);
        let work: Arc<dyn Work> = Arc::clone(&job) as _;
        if pool.threads() == 0 {
            // The system gives us no thread: better late than never.
            work.run(&mut ThreadState::default());
        } else {
            pool.offer(&work, self.config.threads);
        }
        Ok(job)
    }

    /// What `read` would do. Reads indexes that are not in memory only with `fetch_indexes`. `interrupted` is asked at
    /// every stored object; when it says so, what is known by then is returned.
    ///
    /// # Errors
    /// What would stop the read before its first byte of data.
    pub fn explain(
        &self,
        reads: Vec<LocalRead>,
        fetch_indexes: bool,
        mut interrupted: impl FnMut() -> bool,
    ) -> Result<Explanation> {
        let state = self.state();
        let (arrays, plan, _) = plan(reads)?;
        let mut sum = Explanation { exact: true, ..Explanation::default() };
        let cache = state.caches.chunks.for_read();
        let mut items = Vec::new();
        let mut present = vec![false; arrays.len()];
        for number in 0..plan.visits() {
            if interrupted() {
                sum.exact = false;
                break;
            }
            let visit = plan.visit(number);
            let array = &arrays[visit.array];
            items.clear();
            let name = |error: Error| error.in_object(&array.path(&visit.shard).to_string_lossy());
            plan.chunk_items(&visit, &mut items).map_err(name)?;
            let chunks = items.chunk_by(|a, b| a.chunk == b.chunk).count() as u64;
            sum.shards += 1;
            sum.chunks += chunks;
            let how = How { fetch_indexes, threads: self.config.threads, cache: cache.as_ref() };
            let located = locate(&state.caches, array, &plan, &visit, &items, how);
            match located.map_err(name)? {
                Located::Absent => {
                    if !std::mem::replace(&mut present[visit.array], true) {
                        array.check_is_there()?;
                    }
                    sum.shards_missing += 1;
                    sum.chunks_missing += chunks;
                }
                Located::Changed => sum.exact = false,
                Located::Whole { file, .. } => {
                    sum.requests += 1;
                    sum.bytes_needed += file.id.nbytes;
                    sum.bytes_fetched += file.id.nbytes;
                    sum.round_trips = sum.round_trips.max(1);
                }
                Located::Parts { kept, resolved, requests, indexes, cache, .. } => {
                    let others = resolved.stored.len();
                    sum.exact &= cache.is_none_or(|cache| kept.is_certain(&array.meta, others, &cache));
                    if let Some((_, error)) = resolved.failed.into_iter().next() {
                        return Err(name(error));
                    }
                    let IndexCost { hit_bytes, misses, bytes, depth, unknown, .. } = indexes;
                    sum.chunks_missing += resolved.missing.len() as u64;
                    sum.requests += misses + requests.len() as u64;
                    sum.bytes_needed +=
                        kept.nbytes + resolved.stored.iter().map(|chunk| chunk.range.len()).sum::<u64>();
                    sum.bytes_fetched += bytes + requests.iter().map(|request| request.range.len()).sum::<u64>();
                    sum.bytes_from_cache += kept.nbytes + hit_bytes;
                    sum.round_trips = sum.round_trips.max(depth + u64::from(!requests.is_empty()));
                    sum.exact &= unknown == 0;
                }
            }
        }
        Ok(sum)
    }

    /// Reads and decodes every stored chunk of an array, with all checksums, and lists what is wrong.
    ///
    /// # Errors
    /// Only what keeps the array from being looked at; problems of its data are listed in the result.
    pub fn verify(&self, array: &Arc<LocalArray>, mut interrupted: impl FnMut() -> bool) -> Result<Verification> {
        let state = self.state();
        let axes = array.meta.shape.iter().map(|&count| AxisSelection::Range { start: 0, step: 1, count });
        let selection = Selection::Axes(axes.collect());
        let array = Arc::new(LocalArray {
            meta: Arc::clone(&array.meta),
            root: array.root.clone(),
            document: array.document.clone(),
            inside: array.inside.clone(),
            verify: voxfetch_core::codec::Verify::Full,
            missing_is_error: false,
            ..**array
        });
        let job = self.job(state, vec![LocalRead { array, selection, output: None }], true, None)?;
        self.carry_out(state, &job, &mut interrupted);
        let Outcome { error, errors, problems } = job.outcome();
        if let Some(error) = error {
            return Err(error);
        }
        let counters = Counters::default();
        counters.add(&job.counters);
        Ok(Verification { counters, problem_count: errors, problems })
    }

    /// Writes the box of `counts` voxels from `start`, which covers whole stored objects.
    ///
    /// # Errors
    /// `Unsupported` when it covers part of a stored object or a codec cannot be written, or what the disk says.
    pub fn write(&self, array: &Arc<LocalArray>, start: &[u64], counts: &[u64], input: Input) -> Result<()> {
        let state = self.state();
        let job = Arc::new(write::WriteJob::new(Arc::clone(array), start, counts, input)?);
        let helpers = (self.config.threads as u64).min(job.objects()).saturating_sub(1) as usize;
        if helpers > 0 {
            let work: Arc<dyn Work> = Arc::clone(&job) as _;
            self.pool(state).offer(&work, helpers);
        }
        let mut caller = self.caller(state);
        job.run(&mut caller);
        self.keep(state, caller);
        job.wait()
    }

    /// Name and value of each counter, totals since the engine's start in this process.
    #[must_use]
    pub fn stats(&self) -> Vec<(&'static str, u64)> {
        let state = self.state();
        let mut list = state.totals.list();
        let (remote, remote_index_nbytes) = self.remote_counters();
        for (name, number) in &mut list {
            *number += match *name {
                "requests" => remote.requests,
                "bytes_read" => remote.bytes_read,
                "chunks_decoded" => remote.chunks_decoded,
                "bytes_decoded" => remote.bytes_decoded,
                "chunks_missing" => remote.chunks_missing,
                "index_hits" => remote.index_hits,
                "index_misses" => remote.index_misses,
                "chunk_cache_hits" => remote.chunk_cache_hits,
                "chunk_cache_misses" => remote.chunk_cache_misses,
                _ => 0,
            };
        }
        list.push(("index_cache_bytes", state.caches.index_nbytes() + remote_index_nbytes));
        list.push(("chunk_cache_bytes", state.caches.chunks.nbytes()));
        list.push(("open_files", state.caches.files.count() as u64));
        list.push(("threads", self.config.threads as u64));
        list
    }

    /// Ends the threads, after what they are doing, closes the files and forgets decoded chunks. The next call starts them again.
    pub fn close(&self) {
        let state = self.state();
        let pool = state.pool.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(pool) = pool.and_then(Arc::into_inner) {
            pool.join();
        }
        state.caches.files.clear();
        state.caches.chunks.clear();
        self.remote_forget();
    }

    fn state(&self) -> &ProcessState {
        self.state.get(|| ProcessState::new(self.config))
    }

    fn pool(&self, state: &ProcessState) -> Arc<Pool> {
        let mut pool = state.pool.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(pool.get_or_insert_with(|| Arc::new(Pool::start(self.config.threads))))
    }

    fn caller(&self, state: &ProcessState) -> ThreadState {
        state.callers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn keep(&self, state: &ProcessState, mut caller: ThreadState) {
        caller.trim();
        let mut callers = state.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() < self.config.threads {
            callers.push(caller);
        }
    }

    fn job(
        &self,
        state: &ProcessState,
        reads: Vec<LocalRead>,
        check: bool,
        on_done: Option<OnDone>,
    ) -> Result<Arc<Job>> {
        state.totals.reads.add(1);
        let (arrays, plan, outputs) = plan(reads)?;
        for (read, output) in plan.reads().iter().zip(&outputs) {
            if let Some(Target::Voxels(output)) = output {
                fill_outside(&plan.arrays()[read.array], &read.selection, output)?;
            }
        }
        // A check is of what is stored.
        let is_stored = check || plan.has_encoded();
        let cache = state.caches.chunks.for_read();
        Ok(Arc::new(Job::new(Parts {
            caches: Arc::clone(&state.caches),
            arrays,
            plan,
            outputs,
            check,
            cache: cache.filter(|_| !is_stored),
            threads: self.config.threads,
            totals: Arc::clone(&state.totals),
            on_done,
        })))
    }

    /// Works on the calling thread and asks the workers in once it is clear that there is enough for them.
    fn carry_out(&self, state: &ProcessState, job: &Arc<Job>, interrupted: &mut dyn FnMut() -> bool) {
        let mut caller = self.caller(state);
        let mut offered = self.config.threads < 2;
        job.work(&mut caller, |left| {
            if !offered && left > FEW_TASKS {
                offered = true;
                let work: Arc<dyn Work> = Arc::clone(job) as _;
                self.pool(state).offer(&work, self.config.threads - 1);
            }
            interrupted()
        });
        self.keep(state, caller);
    }
}

/// Plans reads; reads of the same array share it.
#[expect(clippy::type_complexity, reason = "three lists that belong together only here")]
fn plan(reads: Vec<LocalRead>) -> Result<(Vec<Arc<LocalArray>>, Plan, Vec<Option<Target>>)> {
    let mut arrays: Vec<Arc<LocalArray>> = Vec::new();
    let mut specs = Vec::with_capacity(reads.len());
    let mut outputs = Vec::with_capacity(reads.len());
    for LocalRead { array, selection, output } in reads {
        let known = arrays.iter().position(|other| Arc::ptr_eq(other, &array));
        let number = known.unwrap_or_else(|| {
            arrays.push(array);
            arrays.len() - 1
        });
        specs.push(ReadSpec { array: number, selection });
        outputs.push(output);
    }
    let plan = Plan::new(arrays.iter().map(|array| Arc::clone(&array.meta)).collect(), specs)?;
    Ok((arrays, plan, outputs))
}

/// Fills those boxes of a read that reach outside their array; what lies inside is overwritten by the read.
///
/// # Errors
/// `Selection` when there are too many boxes.
pub fn fill_outside(array: &PreparedArray, selection: &Selection, output: &Output) -> Result<()> {
    let Selection::Boxes { starts, shape, fill_outside: true } = selection else { return Ok(()) };
    for (number, start) in starts.chunks_exact(shape.len().max(1)).enumerate() {
        let inside = start.iter().zip(shape).zip(&array.shape).all(|((&low, &count), &extent)| {
            u64::try_from(low).is_ok_and(|low| low.checked_add(count).is_some_and(|high| high <= extent))
        });
        if !inside {
            let part = u32::try_from(number)
                .map_err(|_| Error::from(ErrorKind::Selection { what: "more than 2^32 boxes in one read".into() }))?;
            output.fill_box(part, &array.fill_value)?;
        }
    }
    Ok(())
}
