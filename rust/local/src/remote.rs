//! Reads of remote arrays: the machine of one process, its jobs on the engine's workers, and the descriptor that tells its
//! owner that something has ended.
//!
//! Whoever owns the network sends what [`LocalEngine::remote_turn`] gives and hands the replies in; nothing here waits.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use voxfetch_core::assemble::Target;
use voxfetch_core::assemble::job::{Outputs, carry_out, failed};
use voxfetch_core::chunk_cache::ChunkCache;
use voxfetch_core::error::{Error, Result};
use voxfetch_core::plan::Selection;
use voxfetch_core::plan::machine::{
    Call, Counters, Ended, Failure, Limits, Machine, Mode, RemoteArray, Request, Shared, Version,
};

use crate::LocalEngine;
use crate::pool::{ThreadState, Work, from_panic};

/// Received bytes.
#[derive(Clone)]
pub struct Body {
    /// The bytes.
    pub bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    /// Whether the thread that handed them in must be the one that drops them, see [`LocalEngine::remote_turn`].
    pub is_lent: bool,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }
}

/// One read: what of which array, and the memory it goes to (None when it is only explained or checked).
pub struct RemoteRead {
    /// The array.
    pub array: Arc<RemoteArray>,
    /// What of it.
    pub selection: Selection,
    /// Where to.
    pub output: Option<Target>,
}

/// Reads that end together, under one token.
pub struct RemoteCall {
    /// Names it.
    pub token: u64,
    /// What is read.
    pub reads: Vec<RemoteRead>,
}

type RemoteMachine = Machine<Outputs, Body>;
type Job = voxfetch_core::plan::machine::Job<Outputs, Body>;

/// Remote reads of one engine in one process.
pub struct Remote {
    machine: Mutex<RemoteMachine>,
    jobs: Mutex<VecDeque<Job>>,
    /// Requests whose bodies came from another thread than the owner's.
    landed: Mutex<Vec<u64>>,
    /// Whether the owner is to be told of each of those.
    waits: AtomicBool,
    /// Bodies that were lent and are not needed any more.
    spent: Mutex<Vec<Body>>,
    wake: Mutex<Option<File>>,
    /// Whether the owner has been woken and has not looked yet.
    woken: AtomicBool,
    started: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Remote {
    /// Nothing to read yet.
    #[must_use]
    pub fn new(limits: Limits, chunks: Arc<ChunkCache>) -> Self {
        Self {
            machine: Mutex::new(Machine::new(limits, chunks)),
            jobs: Mutex::default(),
            landed: Mutex::default(),
            waits: AtomicBool::new(false),
            spent: Mutex::default(),
            wake: Mutex::default(),
            woken: AtomicBool::new(false),
            started: Instant::now(),
        }
    }

    fn now_s(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel)
            && let Some(file) = lock(&self.wake).as_mut()
        {
            // A full counter means that a wake-up is pending anyway.
            let _ = file.write(&1u64.to_ne_bytes());
        }
    }

    /// Changes the machine, queues the jobs that follow; returns how many.
    fn with<T>(&self, change: impl FnOnce(&mut RemoteMachine, f64) -> T) -> (T, usize) {
        let now_s = self.now_s();
        let mut machine = lock(&self.machine);
        let result = change(&mut machine, now_s);
        let jobs = machine.take_jobs();
        drop(machine);
        let count = jobs.len();
        if count > 0 {
            lock(&self.jobs).extend(jobs);
        }
        (result, count)
    }
}

impl Work for Remote {
    /// Carries out jobs until none is left.
    fn run(&self, thread: &mut ThreadState) {
        loop {
            let job = lock(&self.jobs).pop_front();
            let Some(job) = job else { return };
            let outcome = catch_unwind(AssertUnwindSafe(|| carry_out(&job, &mut thread.worker)));
            let outcome = outcome.unwrap_or_else(|panic| failed(&job, &from_panic(&*panic)));
            let ((spent, has_news), _) =
                self.with(|machine, now_s| (machine.on_done(job, outcome, now_s), machine.has_news()));
            let lent = spent.filter(|body| body.is_lent);
            if has_news || lent.is_some() {
                lock(&self.spent).extend(lent);
                self.wake();
            }
        }
    }
}

/// Remote reads.
impl LocalEngine {
    /// Sets the file to which 8 bytes (the integer 1, native order) are written when [`LocalEngine::remote_turn`] has
    /// something.
    pub fn remote_wake(&self, file: Option<File>) {
        let remote = &self.state().remote;
        *lock(&remote.wake) = file;
        remote.woken.store(false, Ordering::Release);
    }

    /// Takes calls up, as one plan each for those that are interactive and those that are not. Boxes that reach outside
    /// have been filled (see [`crate::fill_outside`]). Returns the tokens of those that cannot be planned, with the reason; they do not end.
    pub fn remote_submit(&self, calls: Vec<RemoteCall>, mode: Mode) -> Vec<(u64, Error)> {
        let is_interactive = |call: &RemoteCall| call.reads.iter().any(|read| read.array.interactive);
        let (interactive, bulk): (Vec<_>, Vec<_>) = calls.into_iter().partition(is_interactive);
        let mut refused = Vec::new();
        for calls in [interactive, bulk] {
            if !calls.is_empty() {
                refused.extend(self.submit_together(calls, mode));
            }
        }
        refused
    }

    fn submit_together(&self, calls: Vec<RemoteCall>, mode: Mode) -> Vec<(u64, Error)> {
        let state = self.state();
        let mut refused = Vec::new();
        let together = calls.len() > 1;
        let (mut specs, mut outputs) = (Vec::with_capacity(calls.len()), Vec::new());
        for call in calls {
            let mut reads = Vec::with_capacity(call.reads.len());
            for RemoteRead { array, selection, output } in call.reads {
                outputs.push(output);
                reads.push((array, selection));
            }
            specs.push((call.token, reads));
        }
        state.totals.reads.add(specs.len() as u64);
        let retained = if together { Some((specs.clone(), outputs.clone())) } else { None };
        let tokens: Vec<u64> = specs.iter().map(|spec| spec.0).collect();
        match plan(specs, outputs, mode) {
            Ok(shared) => self.after(|machine, _| machine.submit(Arc::new(shared))),
            Err(error) => match retained {
                None => refused.extend(tokens.into_iter().map(|token| (token, error.clone()))),
                // One of them is to blame; the others are not.
                Some((specs, outputs)) => {
                    let mut outputs = outputs.into_iter();
                    for (token, reads) in specs {
                        let own = outputs.by_ref().take(reads.len()).collect();
                        match plan(vec![(token, reads)], own, mode) {
                            Ok(shared) => self.after(|machine, _| machine.submit(Arc::new(shared))),
                            Err(error) => refused.push((token, error)),
                        }
                    }
                }
            },
        }
        refused
    }

    /// The requests to send next, at most `most`; the calls that have ended since it was last asked; bodies to drop.
    pub fn remote_turn(&self, most: usize) -> (Vec<Request>, Vec<Ended>, Vec<Body>) {
        let remote = &self.state().remote;
        remote.woken.store(false, Ordering::Release);
        let (requests, ended, has_more) = self.after(|machine, now_s| {
            let requests = if most > 0 { machine.next_requests(most, now_s) } else { Vec::new() };
            (requests, machine.take_ended(), most > 0 && machine.has_more())
        });
        if has_more {
            remote.wake();
        }
        let spent = std::mem::take(&mut *lock(&remote.spent));
        (requests, ended, spent)
    }

    /// Hands in the body of a request: bytes `start..` of a version of the object.
    pub fn remote_body(&self, id: u64, version: Version, start: u64, body: Body) {
        // The last owner of a body may need the GIL to drop it, and must not hold the lock of the machine then.
        let kept = body.clone();
        self.after(|machine, now_s| machine.on_body(id, version, start, body, now_s));
        drop(kept);
    }

    /// Hands in a body as [`LocalEngine::remote_body`] does, from a thread that is not the owner's. The owner is woken if
    /// that may have made something for it, or if it waits for each (see [`LocalEngine::remote_landed`]).
    pub fn remote_land(&self, id: u64, version: Version, start: u64, body: Body) {
        let remote = &self.state().remote;
        // Before the machine knows: what follows may end a call, and its owner then finds all that it sent ended.
        lock(&remote.landed).push(id);
        let has_news = self.after(|machine, now_s| {
            machine.on_body(id, version, start, body, now_s);
            machine.has_news()
        });
        if has_news || remote.waits.load(Ordering::Acquire) {
            remote.wake();
        }
    }

    /// The requests that [`LocalEngine::remote_land`] has ended since it was last asked. `wait`: whether the owner is woken
    /// at each from now on.
    pub fn remote_landed(&self, wait: bool) -> Vec<u64> {
        let remote = &self.state().remote;
        remote.waits.store(wait, Ordering::Release);
        // What lands from now on wakes its owner again, who has not looked at it yet.
        remote.woken.store(false, Ordering::Release);
        std::mem::take(&mut *lock(&remote.landed))
    }

    /// Hands in the end of a request that brings no body.
    pub fn remote_error(&self, id: u64, failure: Failure) {
        self.after(|machine, now_s| machine.on_error(id, failure, now_s));
    }

    /// Starts nothing more for a call; returns the requests whose replies nobody waits for any more.
    pub fn remote_cancel(&self, token: u64) -> Vec<u64> {
        self.after(|machine, _| machine.cancel(token))
    }

    pub(crate) fn remote_counters(&self) -> (Counters, u64) {
        let machine = lock(&self.state().remote.machine);
        (machine.counters, machine.index_cache_nbytes())
    }

    pub(crate) fn remote_forget(&self) {
        lock(&self.state().remote.machine).forget();
    }

    /// Changes the machine and asks the workers in for the jobs that follow.
    fn after<T>(&self, change: impl FnOnce(&mut RemoteMachine, f64) -> T) -> T {
        let state = self.state();
        let (result, _) = state.remote.with(change);
        let count = lock(&state.remote.jobs).len();
        if count > 0 {
            let pool = self.pool(state);
            let work: Arc<dyn Work> = Arc::clone(&state.remote) as _;
            if pool.threads() == 0 {
                // The system gives us no thread: better late than never.
                work.run(&mut ThreadState::default());
            } else {
                pool.offer(&work, count.min(self.config.threads));
            }
        }
        result
    }
}

fn plan(specs: Vec<Call>, outputs: Outputs, mode: Mode) -> Result<Shared<Outputs>> {
    Shared::new(specs, mode, outputs)
}
