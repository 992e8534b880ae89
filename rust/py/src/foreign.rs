//! Codecs that only Python has. Here, and nowhere else, a worker takes the GIL.
//!
//! Whoever waits for a worker must not hold the GIL meanwhile: see `docs/decisions/2026-11-28-codecs-of-python.md`.

use std::sync::Arc;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use voxfetch_core::error::{Error, Result};
use voxfetch_core::metadata::foreign::{ForeignCodec, ForeignCodecs, ForeignDecode};

/// Characters of an exception's text that an error repeats.
const MAX_TEXT: usize = 200;

/// Codecs by the Python function that finds them: (name, settings as JSON, objects) -> (what decodes it, decoder) or None.
/// None knows none.
pub struct PythonCodecs(pub Option<Py<PyAny>>);

impl ForeignCodecs for PythonCodecs {
    fn find(&self, name: &str, configuration: &str, objects: bool) -> Result<Option<ForeignCodec>> {
        let Some(find) = &self.0 else { return Ok(None) };
        let found = Python::attach(|py| {
            let found = find.bind(py).call1((name, configuration, objects));
            let found = found.and_then(|found| found.extract::<Option<(String, Py<PyAny>)>>());
            found.map_err(|raised| refusal(py, &raised))
        })?;
        Ok(found.map(|(through, decode)| ForeignCodec {
            name: name.to_owned(),
            configuration: configuration.to_owned(),
            objects,
            through,
            decoder: Arc::new(Decoder { name: name.to_owned(), decode }),
        }))
    }
}

/// A Python function: (encoded bytes, most bytes of the result) -> bytes.
struct Decoder {
    name: String,
    decode: Py<PyAny>,
}

impl ForeignDecode for Decoder {
    fn decode(&self, encoded: &[u8], limit: u64) -> Result<Vec<u8>> {
        let decoded = Python::try_attach(|py| {
            self.call(py, encoded, limit).map_err(|raised| {
                let error = Error::codec(self.name.clone(), text(py, &raised));
                if raised.is_instance_of::<PyKeyboardInterrupt>(py) {
                    // Not an error of the codec: it is raised again where the read was called.
                    let _ = py.import("_thread").and_then(|thread| thread.call_method0("interrupt_main"));
                }
                error
            })
        });
        decoded.unwrap_or_else(|| Err(Error::codec(self.name.clone(), "Python is exiting")))?
    }
}

impl Decoder {
    /// The inner result is for what is decoded, but too long.
    fn call(&self, py: Python<'_>, encoded: &[u8], limit: u64) -> PyResult<Result<Vec<u8>>> {
        // A copy: the function may keep what it is given.
        let encoded = PyBytes::new_with(py, encoded.len(), |bytes| {
            bytes.copy_from_slice(encoded);
            Ok(())
        })?;
        let stop = StopAtExit;
        let decoded = self.decode.bind(py).call1((encoded, limit));
        std::mem::forget(stop);
        let decoded = PyBuffer::<u8>::get(&decoded?)?;
        if decoded.len_bytes() as u64 > limit {
            return Ok(Err(Error::codec(self.name.clone(), format!("decodes to more than {limit} bytes"))));
        }
        decoded.to_vec(py).map(Ok)
    }
}

/// Stops a thread for good that Python unwinds, which it does before 3.14 to threads that run it while it shuts down: what is
/// further up would give back a GIL that it does not have. A panic may pass.
struct StopAtExit;

impl Drop for StopAtExit {
    fn drop(&mut self) {
        while !std::thread::panicking() {
            std::thread::park();
        }
    }
}

/// Why a codec is not read.
fn refusal(py: Python<'_>, raised: &PyErr) -> Error {
    let value = raised.value(py);
    let field = |name: &str| value.getattr(name).and_then(|field| field.extract::<String>()).unwrap_or_default();
    match value.get_type().name() {
        Ok(name) if name == "UnsupportedError" => Error::unsupported(field("message"), field("hint")),
        Ok(name) if name == "MetadataError" => Error::metadata("", field("message")),
        _ => Error::internal(text(py, raised)),
    }
}

/// The first line of what an exception says, after its type.
fn text(py: Python<'_>, raised: &PyErr) -> String {
    let value = raised.value(py);
    let kind = value.get_type().name().map(|name| name.to_string()).unwrap_or_default();
    let said = value.str().map(|said| said.to_string_lossy().into_owned()).unwrap_or_default();
    let line: String = said.lines().next().unwrap_or_default().chars().take(MAX_TEXT).collect();
    match (kind.as_str(), line.is_empty()) {
        (_, true) => kind,
        // Of our own, which says what is wrong with the bytes.
        ("CodecError", false) => line,
        (_, false) => format!("{kind}: {line}"),
    }
}
