//! The HTTP client, and what it receives as a Python object.

#![expect(unsafe_code, reason = "exports received bytes through the buffer protocol")]

use std::ffi::c_int;
use std::io::Write as _;
use std::os::raw::c_void;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use voxfetch_core::plan::machine::Version;
use voxfetch_local::remote::Body;
use voxfetch_net::{Accepted, Client, Done, Failure, Get, Kind, Landing, Limits, Part, Reply, Wanted};

use crate::buffer;
use crate::remote::RemoteEngine;

/// Received bytes, read-only.
#[pyclass(frozen, module = "voxfetch._core")]
pub struct Received(pub Body);

#[pymethods]
impl Received {
    fn __len__(&self) -> usize {
        self.0.as_ref().len()
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view"));
        }
        let bytes: &[u8] = slf.get().0.as_ref();
        // SAFETY: `view` is not null and CPython's to be filled. The bytes do not move and live as long as the object, which
        // the view keeps alive; CPython refuses writers, as it is told that they are read-only.
        let outcome = unsafe {
            let pointer = bytes.as_ptr().cast::<c_void>().cast_mut();
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), pointer, bytes.len().cast_signed(), 1, flags)
        };
        if outcome == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

#[pyclass(frozen, module = "voxfetch._core")]
pub struct HttpClient {
    client: Client,
}

/// URL, headers, limits: bytes of a 206 and of a 200 that are read, of the latter only with a length.
type Sent<'py> = (String, Bound<'py, PyDict>, (u64, u64, bool));
/// Start, end, suffix, ETag, most bytes: as the engine asks.
type Asked = (Option<u64>, Option<u64>, Option<u64>, Option<String>, u64);

/// The two kinds of requests have tokens of their own, of which the client's is made.
fn joined(token: u64, lands: bool) -> u64 {
    2 * token + u64::from(lands)
}

fn parted(joined: u64) -> (u64, bool) {
    (joined / 2, joined % 2 == 1)
}

impl HttpClient {
    fn send(&self, token: u64, sent: Sent<'_>, landing: Option<Landing>) -> PyResult<()> {
        let (url, headers, (part, whole, sized)) = sent;
        let headers = headers.iter().map(|(name, value)| Ok((name.extract()?, value.extract()?)));
        let headers = headers.collect::<PyResult<_>>()?;
        let limits = Limits { part, whole, sized };
        self.client.get(Get { token: joined(token, landing.is_some()), url, headers, limits, landing });
        Ok(())
    }
}

#[pymethods]
impl HttpClient {
    #[new]
    fn new(wake_fd: i32, idle_timeout_s: f64) -> PyResult<Self> {
        let file = buffer::own_descriptor(wake_fd)?;
        // A full counter means that a wake-up is pending anyway.
        let wake = move || drop((&file).write(&1u64.to_ne_bytes()));
        Ok(Self { client: Client::new(Duration::try_from_secs_f64(idle_timeout_s).unwrap_or(Duration::MAX), wake)? })
    }

    fn get(&self, requests: Vec<(u64, Sent<'_>)>) -> PyResult<()> {
        requests.into_iter().try_for_each(|(token, sent)| self.send(token, sent, None))
    }

    fn land(&self, engine: &RemoteEngine, requests: Vec<(u64, Asked, Sent<'_>)>) -> PyResult<()> {
        let engine = Arc::clone(engine.engine());
        let take = Arc::new(move |token, accepted: Accepted, bytes| {
            let Accepted { start, total, etag, modified } = accepted;
            let version = Version { etag: etag.map(Into::into), modified: modified.map(Into::into), total };
            engine.remote_land(parted(token).0, version, start, Body { bytes: Arc::new(bytes), is_lent: false });
        });
        for (number, (start, end, suffix, if_match, most), sent) in requests {
            let part = match (start, end, suffix) {
                (Some(start), Some(end), _) => Part::Range { start, end },
                (_, _, Some(nbytes)) => Part::Suffix(nbytes),
                _ => Part::Whole(most),
            };
            let take = Arc::clone(&take) as _;
            self.send(number, sent, Some(Landing { wanted: Wanted { part, if_match }, take }))?;
        }
        Ok(())
    }

    #[pyo3(signature = (token, lands = false))]
    fn cancel(&self, token: u64, lands: bool) {
        self.client.cancel(joined(token, lands));
    }

    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for Done { token, outcome } in self.client.take() {
            let (token, lands) = parted(token);
            let headers = PyDict::new(py);
            match outcome {
                Ok(Reply { head, body }) => {
                    for (name, value) in head.headers {
                        headers.set_item(name, value)?;
                    }
                    let body = body.map(|bytes| Received(Body { bytes: Arc::new(bytes), is_lent: false }));
                    list.append((token, lands, head.status, headers, body, "", None::<i32>))?;
                }
                Err(Failure { kind, status, errno }) => {
                    let status = status.unwrap_or(0);
                    list.append((token, lands, status, headers, None::<Received>, name(kind), errno))?;
                }
            }
        }
        Ok(list)
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.client.close());
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Url => "url",
        Kind::Name => "name",
        Kind::Connect => "connect",
        Kind::Certificate => "certificate",
        Kind::Tls => "tls",
        Kind::Trust => "trust",
        Kind::Timeout => "timeout",
        Kind::Stalled => "stalled",
        Kind::Closed => "closed",
        Kind::Short => "short",
        Kind::Lost => "lost",
        Kind::NotHttp => "not http",
        Kind::Internal => "internal",
    }
}
