//! The local engine as a Python object: reads with the memory they go to, calls without the GIL, completions.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::buffer::PyUntypedBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use voxfetch_core::assemble::Target;
use voxfetch_core::error::{Error, ErrorKind};
use voxfetch_core::plan::{AxisSelection, Selection, machine};
use voxfetch_local::job::{Job, Outcome};
use voxfetch_local::process::PerProcess;
use voxfetch_local::remote::{Body, RemoteRead};
use voxfetch_local::{Config, LocalRead};

use crate::error::{build, to_python};
use crate::input::LocalArray;
use crate::net::Received;
use crate::remote::RemoteArray;
use crate::{buffer, detached, yield_gil};

/// Time between two looks at pending signals while a call waits.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(100);

/// Where an array lies.
enum Source {
    Local(Arc<voxfetch_local::LocalArray>),
    Remote(Arc<machine::RemoteArray>, Py<PyAny>),
}

impl Source {
    fn of(array: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(remote) = array.cast::<RemoteArray>() {
            let RemoteArray { array, store } = remote.get();
            return Ok(Self::Remote(Arc::clone(array), store.clone_ref(remote.py())));
        }
        Ok(Self::Local(Arc::clone(&array.cast::<LocalArray>()?.get().0)))
    }

    fn item_size(&self) -> usize {
        match self {
            Self::Local(array) => array.meta.dtype.item_size(),
            Self::Remote(array, _) => array.meta.dtype.item_size(),
        }
    }
}

/// One thing to read and the memory it goes to.
#[pyclass(frozen, module = "voxfetch._core")]
pub struct Read {
    array: Source,
    selection: Selection,
    output: Option<Target>,
    /// Keeps the memory behind `output` alive and in place.
    _memory: Option<PyUntypedBuffer>,
}

#[pymethods]
impl Read {
    #[staticmethod]
    fn axes(
        py: Python<'_>,
        array: &Bound<'_, PyAny>,
        axes: Vec<Bound<'_, PyAny>>,
        out: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let axes = axes.iter().map(|axis| axis_selection(py, axis)).collect::<PyResult<Vec<_>>>()?;
        let shape: Vec<u64> = axes
            .iter()
            .map(|axis| match axis {
                AxisSelection::Range { count, .. } => *count,
                AxisSelection::Indices(voxels) => voxels.len() as u64,
            })
            .collect();
        Self::new(py, array, Selection::Axes(axes), None, &shape, out)
    }

    #[staticmethod]
    #[pyo3(signature = (array, starts, shape, out, *, fill_outside))]
    fn boxes(
        py: Python<'_>,
        array: &Bound<'_, PyAny>,
        starts: &Bound<'_, PyAny>,
        shape: Vec<u64>,
        out: Option<&Bound<'_, PyAny>>,
        fill_outside: bool,
    ) -> PyResult<Self> {
        let count = PyUntypedBuffer::get(starts)?.shape().first().copied().unwrap_or(0) as u64;
        let starts = buffer::integers(py, starts)?;
        let selection = Selection::Boxes { starts, shape: shape.clone(), fill_outside };
        Self::new(py, array, selection, Some(count), &shape, out)
    }

    #[staticmethod]
    fn encoded(array: &Bound<'_, PyAny>, position: Vec<u64>) -> PyResult<Self> {
        let output = Some(Target::Encoded(Arc::default()));
        Ok(Self { array: Source::of(array)?, selection: Selection::Chunk(position), output, _memory: None })
    }

    fn taken(&self) -> Option<Received> {
        let Some(Target::Encoded(slot)) = &self.output else { return None };
        let bytes = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        bytes.map(|bytes| Received(Body { bytes: Arc::new(bytes), is_lent: false }))
    }

    fn fill_outside(&self, py: Python<'_>) -> PyResult<()> {
        let (Source::Remote(array, _), Some(Target::Voxels(output))) = (&self.array, &self.output) else {
            return Ok(());
        };
        detached(py, || voxfetch_local::fill_outside(&array.meta, &self.selection, output))
    }

    #[getter]
    fn store(&self) -> Option<&Py<PyAny>> {
        match &self.array {
            Source::Local(_) => None,
            Source::Remote(_, store) => Some(store),
        }
    }
}

impl Read {
    fn new(
        py: Python<'_>,
        array: &Bound<'_, PyAny>,
        selection: Selection,
        boxes: Option<u64>,
        shape: &[u64],
        out: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let array = Source::of(array)?;
        let item_size = array.item_size();
        let (memory, output) = match out {
            None => (None, None),
            Some(out) => {
                let (memory, output) = buffer::output(py, out, item_size, boxes, shape)?;
                (Some(memory), Some(Target::Voxels(output)))
            }
        };
        Ok(Self { array, selection, output, _memory: memory })
    }

    fn to_local(&self) -> Option<LocalRead> {
        let Source::Local(array) = &self.array else { return None };
        let (selection, output) = (self.selection.clone(), self.output.clone());
        Some(LocalRead { array: Arc::clone(array), selection, output })
    }

    /// The read as the remote part of the engine takes it, None when its array is local.
    pub fn to_remote(&self) -> Option<RemoteRead> {
        let Source::Remote(array, _) = &self.array else { return None };
        let (selection, output) = (self.selection.clone(), self.output.clone());
        Some(RemoteRead { array: Arc::clone(array), selection, output })
    }
}

fn axis_selection(py: Python<'_>, axis: &Bound<'_, PyAny>) -> PyResult<AxisSelection> {
    if let Ok((start, step, count)) = axis.extract::<(u64, u64, u64)>() {
        return Ok(AxisSelection::Range { start, step, count });
    }
    let indices = buffer::integers(py, axis)?;
    let mut voxels = Vec::with_capacity(indices.len());
    for (place, index) in indices.into_iter().enumerate() {
        let voxel = u64::try_from(index).map_err(|_| {
            let what = format!("index {index} lies outside the array");
            to_python(py, &ErrorKind::Selection { what }.into(), 0)
        })?;
        voxels.push((voxel, place as u64));
    }
    voxels.sort_unstable();
    Ok(AxisSelection::Indices(voxels))
}

fn to_local(reads: &[Bound<'_, Read>]) -> Vec<LocalRead> {
    reads.iter().filter_map(|read| read.get().to_local()).collect()
}

/// Asks Python for pending signals now and then; keeps what a handler raised.
struct Signals {
    asked: Instant,
    raised: Option<PyErr>,
}

impl Signals {
    fn new() -> Self {
        Self { asked: Instant::now(), raised: None }
    }

    /// True when a handler has raised.
    fn interrupted(&mut self) -> bool {
        if self.raised.is_none() && self.asked.elapsed() >= SIGNAL_INTERVAL {
            self.asked = Instant::now();
            self.raised = Python::attach(|py| py.check_signals()).err();
        }
        self.raised.is_some()
    }
}

/// What ended, and the reads whose memory it used, to be released with the GIL held.
type Completed = (u64, Outcome, Vec<Py<Read>>);

/// Ended and running reads of one wake-up descriptor.
#[derive(Default)]
struct Channel {
    completed: Vec<Completed>,
    /// None while it is being submitted.
    running: HashMap<u64, Option<Arc<Job>>>,
}

type Channels = Arc<Mutex<HashMap<i32, Channel>>>;

fn lock(channels: &Channels) -> MutexGuard<'_, HashMap<i32, Channel>> {
    channels.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads arrays from disk.
#[pyclass(frozen, module = "voxfetch._core")]
pub struct LocalEngine {
    pub engine: Arc<voxfetch_local::LocalEngine>,
    /// Per process: a fork may find the lock held by a worker that the child does not have.
    channels: PerProcess<Channels>,
}

impl LocalEngine {
    fn channels(&self) -> &Channels {
        self.channels.get(Channels::default)
    }
}

#[pymethods]
impl LocalEngine {
    #[new]
    #[pyo3(signature = (*, threads, index_cache_bytes, chunk_cache_bytes, max_open_files, in_flight_bytes))]
    fn new(
        threads: usize,
        index_cache_bytes: u64,
        chunk_cache_bytes: u64,
        max_open_files: usize,
        in_flight_bytes: u64,
    ) -> Self {
        let config = Config { threads, index_cache_bytes, chunk_cache_bytes, max_open_files, in_flight_bytes };
        let engine = Arc::new(voxfetch_local::LocalEngine::new(config));
        Self { engine, channels: PerProcess::new(Channels::default()) }
    }

    fn read(&self, py: Python<'_>, reads: Vec<Bound<'_, Read>>) -> PyResult<()> {
        let local = to_local(&reads);
        let mut signals = Signals::new();
        let result = py.detach(|| self.engine.read(local, || signals.interrupted()));
        if let Some(raised) = signals.raised {
            return Err(raised);
        }
        result.or_else(|(error, count)| {
            // A decoder of Python's may have been interrupted: what a handler raises for that counts.
            py.check_signals()?;
            Err(to_python(py, &error, count.saturating_sub(1)))
        })
    }

    fn submit(&self, py: Python<'_>, reads: Vec<Bound<'_, Read>>, token: u64, wake_fd: i32) -> PyResult<()> {
        let local = to_local(&reads);
        let held: Vec<Py<Read>> = reads.into_iter().map(Bound::unbind).collect();
        let mut wake = buffer::own_descriptor(wake_fd)?;
        let channels = Arc::clone(self.channels());
        let on_done = Box::new(move |outcome: Outcome| {
            let mut open = lock(&channels);
            let channel = open.entry(wake_fd).or_default();
            channel.running.remove(&token);
            channel.completed.push((token, outcome, held));
            drop(open);
            // A full counter or pipe means that the loop has a wake-up pending anyway.
            let _ = wake.write(&1u64.to_ne_bytes());
        });
        let channels = self.channels();
        // The lock of the channels is never waited for with the GIL held.
        detached(py, || {
            lock(channels).entry(wake_fd).or_default().running.insert(token, None);
            let submitted = self.engine.submit(local, on_done);
            let mut open = lock(channels);
            let running = &mut open.entry(wake_fd).or_default().running;
            match submitted {
                Ok(job) => {
                    // Unless it has ended by now.
                    if let Some(slot) = running.get_mut(&token) {
                        *slot = Some(job);
                    }
                    Ok(())
                }
                Err(error) => {
                    running.remove(&token);
                    Err(error)
                }
            }
        })
    }

    fn take_completed<'py>(&self, py: Python<'py>, wake_fd: i32) -> PyResult<Bound<'py, PyList>> {
        let take = |channel: &mut Channel| std::mem::take(&mut channel.completed);
        let completed = py.detach(|| lock(self.channels()).get_mut(&wake_fd).map(take));
        let list = PyList::empty(py);
        for (number, (token, outcome, _held)) in completed.unwrap_or_default().into_iter().enumerate() {
            yield_gil(py, number);
            let error = outcome.error.map(|error| build(py, &error, outcome.errors.saturating_sub(1))).transpose()?;
            list.append((token, error))?;
        }
        Ok(list)
    }

    fn cancel(&self, py: Python<'_>, token: u64, wake_fd: i32) {
        py.detach(|| {
            let known = lock(self.channels()).get(&wake_fd).and_then(|channel| channel.running.get(&token).cloned());
            if let Some(Some(job)) = known {
                job.cancel();
            }
        });
    }

    #[pyo3(signature = (reads, *, fetch_indexes))]
    fn explain<'py>(
        &self,
        py: Python<'py>,
        reads: Vec<Bound<'_, Read>>,
        fetch_indexes: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let local = to_local(&reads);
        let mut signals = Signals::new();
        let sum = detached(py, || self.engine.explain(local, fetch_indexes, || signals.interrupted()))?;
        if let Some(raised) = signals.raised {
            return Err(raised);
        }
        let result = PyDict::new(py);
        for (name, value) in [
            ("shards", sum.shards),
            ("shards_missing", sum.shards_missing),
            ("chunks", sum.chunks),
            ("chunks_missing", sum.chunks_missing),
            ("requests", sum.requests),
            ("bytes_needed", sum.bytes_needed),
            ("bytes_fetched", sum.bytes_fetched),
            ("bytes_from_cache", sum.bytes_from_cache),
            ("round_trips", sum.round_trips),
        ] {
            result.set_item(name, value)?;
        }
        result.set_item("exact", sum.exact)?;
        Ok(result)
    }

    fn verify<'py>(&self, py: Python<'py>, array: &LocalArray) -> PyResult<Bound<'py, PyDict>> {
        let mut signals = Signals::new();
        let verified = detached(py, || self.engine.verify(&array.0, || signals.interrupted()));
        // Stopped by a handler, it also says that it was stopped: what the handler raised counts.
        if let Some(raised) = signals.raised {
            return Err(raised);
        }
        let verified = verified?;
        let counters = &verified.counters;
        let result = PyDict::new(py);
        for (name, value) in [
            ("objects", counters.objects.get()),
            ("objects_missing", counters.objects_missing.get()),
            ("chunks", counters.chunks_decoded.get()),
            ("chunks_missing", counters.chunks_missing.get()),
            ("bytes", counters.bytes_read.get()),
            ("problem_count", verified.problem_count),
        ] {
            result.set_item(name, value)?;
        }
        let problems =
            verified.problems.iter().map(|problem: &Error| build(py, problem, 0)).collect::<PyResult<Vec<_>>>()?;
        result.set_item("problems", problems)?;
        Ok(result)
    }

    fn write(&self, py: Python<'_>, array: &LocalArray, start: Vec<u64>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let item_size = array.0.meta.dtype.item_size();
        let (memory, input, counts) = buffer::input(py, data, item_size, start.clone())?;
        let result = detached(py, || self.engine.write(&array.0, &start, &counts, input));
        memory.release(py);
        result
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = PyDict::new(py);
        // The lock of the machine is never waited for with the GIL held.
        for (name, value) in py.detach(|| self.engine.stats()) {
            stats.set_item(name, value)?;
        }
        Ok(stats)
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.engine.close());
    }
}
