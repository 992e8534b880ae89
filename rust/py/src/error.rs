//! Errors of the core -> the classes of `voxfetch.errors`.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use voxfetch_core::error::{Error, ErrorKind, TransportClass};
use voxfetch_core::subset::ByteRange;

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
        ErrorKind::Unsupported { hint, .. } | ErrorKind::Transport { hint, .. } if !hint.is_empty() => {
            Some(hint.as_str())
        }
        _ => None,
    };
    if let ErrorKind::Transport { status, attempts, .. } = kind {
        fields.set_item("status", *status)?;
        fields.set_item("attempts", *attempts)?;
    }
    fields.set_item("hint", hint)?;
    fields.set_item("others", others)?;
    class.call((kind.to_string(),), Some(&fields))
}

/// The error of the core for an exception that a transport raised.
pub fn from_python(raised: &Bound<'_, PyAny>) -> Error {
    let text = |name: &str| raised.getattr(name).ok().and_then(|value| value.extract::<String>().ok());
    let class = raised.get_type().name().ok().and_then(|name| TransportClass::of_class(&name.to_string_lossy()));
    let what = text("message").unwrap_or_else(|| format!("{}: {raised}", raised.get_type()));
    let status = raised.getattr("status").ok().and_then(|value| value.extract().ok()).flatten();
    let attempts: Option<u32> = raised.getattr("attempts").ok().and_then(|value| value.extract().ok()).flatten();
    let error = Error::from(ErrorKind::Transport {
        class: class.unwrap_or(TransportClass::Internal),
        what,
        hint: text("hint").unwrap_or_default(),
        status,
        attempts: attempts.unwrap_or(1),
    });
    let range: Option<(u64, u64)> = raised.getattr("byte_range").ok().and_then(|value| value.extract().ok()).flatten();
    match range {
        Some((start, end)) => error.in_range(ByteRange { start, end }),
        None => error,
    }
}
