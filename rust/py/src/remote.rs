//! Remote reads as Python sees them: arrays behind a store, requests as tuples, replies, endings.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use voxfetch_core::codec::Verify;
use voxfetch_core::error::Error;
use voxfetch_core::plan::coalesce::Merge;
use voxfetch_core::plan::machine::{self, Ended, Failure, Mode, Request, Tally, Version, What};
use voxfetch_local::remote::{Body, RemoteCall};

use crate::buffer;
use crate::engine::{LocalEngine, Read};
use crate::error::{build, from_python};
use crate::input::ArrayMeta;
use crate::net::Received;
use crate::yield_gil;

/// An array behind a store and how it is read.
#[pyclass(frozen, module = "voxfetch._core")]
pub struct RemoteArray {
    /// What the core knows of it.
    pub array: Arc<machine::RemoteArray>,
    /// The store that its objects are asked of.
    pub store: Py<PyAny>,
}

#[pymethods]
impl RemoteArray {
    #[new]
    #[pyo3(signature = (meta, store, path, *, identity, url, max_gap_bytes, max_request_bytes, verify_checksums, missing_is_error, trust_s, trust_missing_s, interactive))]
    #[expect(clippy::too_many_arguments, reason = "keywords of the Python constructor")]
    fn new(
        meta: &ArrayMeta,
        store: Py<PyAny>,
        path: String,
        identity: &str,
        url: String,
        max_gap_bytes: u64,
        max_request_bytes: u64,
        verify_checksums: bool,
        missing_is_error: bool,
        trust_s: f64,
        trust_missing_s: f64,
        interactive: bool,
    ) -> Self {
        let array = Arc::new(machine::RemoteArray {
            meta: Arc::clone(&meta.0),
            store: identity.into(),
            path,
            url,
            merge: Merge { max_gap_bytes, max_request_bytes },
            verify: if verify_checksums { Verify::Full } else { Verify::Cheap },
            missing_is_error,
            trust_s,
            trust_missing_s,
            interactive,
        });
        Self { array, store }
    }
}

/// The remote reads of an engine, for the one thread that owns the network.
#[pyclass(frozen, module = "voxfetch._core")]
pub struct RemoteEngine {
    local: Py<LocalEngine>,
    /// The reads of each call that has not ended: they keep the memory that is written to.
    held: Mutex<HashMap<u64, Vec<Py<Read>>>>,
}

impl RemoteEngine {
    pub fn engine(&self) -> &Arc<voxfetch_local::LocalEngine> {
        &self.local.get().engine
    }

    fn held(&self) -> MutexGuard<'_, HashMap<u64, Vec<Py<Read>>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mode(name: &str) -> PyResult<Mode> {
    match name {
        "read" => Ok(Mode::Read),
        "check" => Ok(Mode::Check),
        "explain" => Ok(Mode::Explain { fetch_indexes: true }),
        "explain known" => Ok(Mode::Explain { fetch_indexes: false }),
        _ => Err(PyValueError::new_err(format!("no mode {name:?}"))),
    }
}

type Call<'py> = (u64, Vec<Bound<'py, Read>>);

#[pymethods]
impl RemoteEngine {
    #[new]
    fn new(local: Py<LocalEngine>) -> Self {
        Self { local, held: Mutex::default() }
    }

    fn wake(&self, fd: Option<i32>) -> PyResult<()> {
        let file = fd.map(buffer::own_descriptor).transpose()?;
        self.engine().remote_wake(file);
        Ok(())
    }

    fn submit<'py>(&self, py: Python<'py>, calls: &Bound<'py, PyAny>, mode: &str) -> PyResult<Bound<'py, PyList>> {
        let mode = self::mode(mode)?;
        let mut remote = Vec::new();
        for (number, call) in calls.try_iter()?.enumerate() {
            yield_gil(py, number);
            let (token, reads): Call<'py> = call?.extract()?;
            let call = RemoteCall { token, reads: reads.iter().filter_map(|read| read.get().to_remote()).collect() };
            remote.push(call);
            self.held().insert(token, reads.into_iter().map(Bound::unbind).collect());
        }
        let refused = py.detach(|| self.engine().remote_submit(remote, mode));
        let list = PyList::empty(py);
        for (token, error) in refused {
            self.held().remove(&token);
            list.append((token, build(py, &error, 0)?))?;
        }
        Ok(list)
    }

    #[pyo3(signature = (number, body, *, start, total, etag, modified))]
    #[expect(clippy::too_many_arguments, reason = "what a reply says, as keywords of the Python method")]
    fn body(
        &self,
        py: Python<'_>,
        number: u64,
        body: &Bound<'_, PyAny>,
        start: u64,
        total: Option<u64>,
        etag: Option<&str>,
        modified: Option<&str>,
    ) -> PyResult<()> {
        let body = received(py, body)?;
        let version = Version { etag: etag.map(Into::into), modified: modified.map(Into::into), total };
        py.detach(|| self.engine().remote_body(number, version, start, body));
        Ok(())
    }

    fn error(&self, py: Python<'_>, number: u64, failure: &Bound<'_, PyAny>) {
        let failure = match failure.extract::<String>().as_deref() {
            Ok("absent") => Failure::Absent,
            Ok("changed") => Failure::Changed,
            _ => Failure::Error(from_python(failure)),
        };
        py.detach(|| self.engine().remote_error(number, failure));
    }

    fn cancel(&self, py: Python<'_>, token: u64) -> Vec<u64> {
        py.detach(|| self.engine().remote_cancel(token))
    }

    fn landed(&self, wait: bool) -> Vec<u64> {
        self.engine().remote_landed(wait)
    }

    fn turn<'py>(&self, py: Python<'py>, most: usize) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>)> {
        let (requests, ended, spent) = py.detach(|| self.engine().remote_turn(most));
        drop(spent);
        let list = PyList::empty(py);
        for (number, Ended { token, error, errors, problems, tally }) in ended.into_iter().enumerate() {
            yield_gil(py, number);
            let _memory = self.held().remove(&token);
            let error = error.map(|error| build(py, &error, errors.saturating_sub(1))).transpose()?;
            let report = as_dict(py, &tally)?;
            report.set_item("problem_count", errors)?;
            let problems =
                problems.iter().map(|problem: &Error| build(py, problem, 0)).collect::<PyResult<Vec<_>>>()?;
            report.set_item("problems", problems)?;
            list.append((token, error, report))?;
        }
        let requests = requests.iter().map(|request| as_tuple(py, request)).collect::<PyResult<Vec<_>>>()?;
        Ok((list, PyList::new(py, requests)?))
    }
}

/// The bytes of a reply, which are not copied.
pub fn received(py: Python<'_>, body: &Bound<'_, PyAny>) -> PyResult<Body> {
    match body.cast::<Received>() {
        Ok(received) => Ok(received.get().0.clone()),
        Err(_) => Ok(Body { bytes: Arc::new(buffer::Bytes::new(py, body)?), is_lent: true }),
    }
}

/// (id, store, key, start, end, suffix, etag, most bytes).
fn as_tuple<'py>(py: Python<'py>, request: &Request) -> PyResult<Bound<'py, PyTuple>> {
    let (start, end, suffix, most) = match request.what {
        What::Range(range) => (Some(range.start), Some(range.end), None, range.len()),
        What::Suffix(nbytes) => (None, None, Some(nbytes), nbytes),
        What::Whole(most) => (None, None, None, most),
    };
    let etag = request.if_match.as_deref();
    (request.id, &*request.store, &*request.key, start, end, suffix, etag, most).into_pyobject(py)
}

fn as_dict<'py>(py: Python<'py>, tally: &Tally) -> PyResult<Bound<'py, PyDict>> {
    let report = PyDict::new(py);
    for (name, value) in [
        ("shards", tally.shards),
        ("shards_missing", tally.shards_missing),
        ("chunks", tally.chunks),
        ("chunks_missing", tally.chunks_missing),
        ("requests", tally.requests),
        ("bytes_needed", tally.bytes_needed),
        ("bytes_fetched", tally.bytes_fetched),
        ("bytes_from_cache", tally.bytes_from_cache),
        ("round_trips", tally.round_trips),
    ] {
        report.set_item(name, value)?;
    }
    report.set_item("exact", !tally.inexact)?;
    Ok(report)
}
