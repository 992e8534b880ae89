//! Worker threads of one engine in one process.
//!
//! A piece of work is offered to some of the threads; each that is free calls it once, and it returns when nothing is
//! left to do in it. After a fork the child has none of these threads: it must not touch this pool, and its owner makes
//! another (see `PerProcess`).

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use voxfetch_core::error::Error;

/// Something that several threads can do together.
pub trait Work: Send + Sync {
    /// Does what is left to do, with this thread's own state; returns when nothing is left.
    fn run(&self, state: &mut ThreadState);
}

/// What one thread keeps from work to work.
#[derive(Default)]
pub struct ThreadState {
    /// Codec contexts and the scratch of one chunk.
    pub worker: voxfetch_core::assemble::Worker,
    /// Bytes of one request.
    pub body: Vec<u8>,
}

/// Bytes of a request that a thread keeps for the next one.
const KEPT_BODY_NBYTES: usize = 8 << 20;

impl ThreadState {
    /// Gives back memory that an unusually large request took.
    pub fn trim(&mut self) {
        if self.body.capacity() > KEPT_BODY_NBYTES {
            self.body = Vec::new();
        }
        self.worker.trim();
    }
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    offered: Condvar,
}

#[derive(Default)]
struct Queue {
    work: VecDeque<Arc<dyn Work>>,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The threads. Dropping it lets them end once the queue is empty.
pub struct Pool {
    shared: Arc<Shared>,
    threads: usize,
    process: u32,
    handles: Vec<std::thread::JoinHandle<()>>,
}

impl Pool {
    /// Starts `threads` threads; fewer when the system refuses more.
    #[must_use]
    pub fn start(threads: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let handles: Vec<_> = (0..threads)
            .map_while(|number| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new().name(format!("voxfetch-{number}")).spawn(move || serve(&shared)).ok()
            })
            .collect();
        Self { shared, threads: handles.len(), process: std::process::id(), handles }
    }

    /// Number of threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Offers work to at most `threads` threads.
    pub fn offer(&self, work: &Arc<dyn Work>, threads: usize) {
        let threads = threads.min(self.threads);
        let mut queue = self.shared.lock();
        queue.work.extend((0..threads).map(|_| Arc::clone(work)));
        drop(queue);
        for _ in 0..threads {
            self.shared.offered.notify_one();
        }
    }

    /// Lets the threads finish what is queued and waits for them.
    pub fn join(mut self) {
        let handles = std::mem::take(&mut self.handles);
        drop(self);
        for handle in handles {
            // A thread that panicked has nothing left to wait for.
            let _ = handle.join();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            self.shared.lock().closed = true;
            self.shared.offered.notify_all();
        }
    }
}

fn serve(shared: &Shared) {
    let mut state = ThreadState::default();
    loop {
        let work = {
            let mut queue = shared.lock();
            loop {
                if let Some(work) = queue.work.pop_front() {
                    break work;
                }
                if queue.closed {
                    return;
                }
                queue = shared.offered.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        };
        work.run(&mut state);
        state.trim();
    }
}

/// The error that a panic of some work becomes.
pub(crate) fn from_panic(panic: &(dyn Any + Send)) -> Error {
    let what = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic".into());
    Error::internal(what)
}
