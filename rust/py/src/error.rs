//! Errors of the core -> the classes of `voxfetch.errors`.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use voxfetch_core::error::{Error, ErrorKind};

/// The exception for `error`; `others` is the number of further errors of the same call.
pub fn to_python(py: Python<'_>, error: &Error, others: u64) -> PyErr {
    build(py, error, others).map_or_else(|failure| failure, PyErr::from_value)
}

/// The exception as an object.
pub fn build<'py>(py: Python<'py>, error: &Error, others: u64) -> PyResult<Bound<'py, PyAny>> {
    let kind = error.kind();
    let place = error.place();
    let class = py.import("voxfetch.errors")?.getattr(kind.class_name())?;
    let fields = PyDict::new(py);
    fields.set_item("key", place.key.as_deref())?;
    fields.set_item("byte_range", place.byte_range.map(|range| (range.start, range.end)))?;
    fields.set_item("chunk", place.chunk.as_ref().map(|chunk| PyTuple::new(py, chunk)).transpose()?)?;
    let hint = match kind {
        ErrorKind::Unsupported { hint, .. } if !hint.is_empty() => Some(hint.as_str()),
        _ => None,
    };
    fields.set_item("hint", hint)?;
    fields.set_item("others", others)?;
    class.call((kind.to_string(),), Some(&fields))
}
