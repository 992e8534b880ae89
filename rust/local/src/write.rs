//! Whole stored objects written in parallel, each through a temporary file and a rename: a reader sees the old object or
//! the new one, never a part.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind as Io, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use voxfetch_core::assemble::Input;
use voxfetch_core::error::{Error, Result};
use voxfetch_core::plan::{AxisSelection, Plan, ReadSpec, Selection};
use voxfetch_core::shard_writer;

use crate::file::store_error;
use crate::locate::LocalArray;
use crate::pool::{ThreadState, Work};

/// A box being written.
pub struct WriteJob {
    array: Arc<LocalArray>,
    plan: Plan,
    input: Input,
    next: AtomicU64,
    state: Mutex<State>,
    ended: std::sync::Condvar,
}

#[derive(Default)]
struct State {
    ended: u64,
    first_error: Option<(u64, Error)>,
}

impl WriteJob {
    /// Plans the write of the box of `counts` voxels from `start`.
    ///
    /// # Errors
    /// `Selection` when it reaches outside the array, `Unsupported` when it covers part of a stored object or a codec
    /// cannot be written.
    pub fn new(array: Arc<LocalArray>, start: &[u64], counts: &[u64], input: Input) -> Result<Self> {
        shard_writer::check_whole(&array.meta, start, counts)?;
        shard_writer::check_codecs(&array.meta)?;
        let axes = start.iter().zip(counts).map(|(&start, &count)| AxisSelection::Range { start, step: 1, count });
        let read = ReadSpec { array: 0, selection: Selection::Axes(axes.collect()) };
        let plan = Plan::new(vec![Arc::clone(&array.meta)], vec![read])?;
        Ok(Self {
            array,
            plan,
            input,
            next: AtomicU64::new(0),
            state: Mutex::default(),
            ended: std::sync::Condvar::new(),
        })
    }

    /// Number of stored objects.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.plan.visits()
    }

    /// Waits until every object is written; the first error in plan order, and how many objects were left unwritten.
    ///
    /// # Errors
    /// The first error in plan order.
    pub fn wait(&self) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.ended < self.objects() {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.first_error.take().map_or(Ok(()), |(_, error)| Err(error))
    }

    fn write(&self, number: u64, thread: &mut ThreadState) -> Result<()> {
        let visit = self.plan.visit(number);
        let path = self.array.path(&visit.shard);
        let encoded =
            shard_writer::encode_object(&self.array.meta, &mut thread.worker.codec, &visit.shard, &self.input)?;
        let written = match encoded {
            Some(bytes) => replace(&path, &bytes),
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() != Io::NotFound => Err(error),
                _ => Ok(()),
            },
        };
        written.map_err(|error| store_error(&error).in_object(&path.to_string_lossy()))
    }
}

impl Work for WriteJob {
    fn run(&self, thread: &mut ThreadState) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.objects() {
                return;
            }
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.write(number, thread)))
                .unwrap_or_else(|_| Err(Error::internal("a panic while an object was encoded")));
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.ended += 1;
            if let Err(error) = result
                && state.first_error.as_ref().is_none_or(|(first, _)| number < *first)
            {
                state.first_error = Some((number, error));
            }
            if state.ended == self.objects() {
                self.ended.notify_all();
            }
        }
    }
}

/// Replaces `path` by a file of these bytes, at once.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let folder = path.parent().ok_or_else(|| io::Error::other("has no folder"))?;
    let name = path.file_name().ok_or_else(|| io::Error::other("has no name"))?.to_string_lossy().into_owned();
    fs::create_dir_all(folder)?;
    // Unique among processes by the process id and among threads by the counter. A killed process may have left a file
    // of that name, and in containers ids come again: then the next one.
    let (mut file, temporary) = loop {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!(".{name}.{}.{number}.tmp", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Err(error) if error.kind() == Io::AlreadyExists => {}
            file => break (file?, temporary),
        }
    };
    let written = (|| {
        file.write_all(bytes)?;
        drop(file);
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // The error that counts is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written
}
