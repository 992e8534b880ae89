//! Bytes without an array behind them: encodings of objects on their way, chunks made of voxels, names of contents.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use voxfetch_core::codec::{CodecChain, CodecContext, PreparedArray, Verify};
use voxfetch_core::metadata::CodecSpec;
use voxfetch_core::shard_writer;

use crate::input::ArrayMeta;
use crate::remote::received;
use crate::{buffer, detached};

/// Decodes Brotli.
#[pyfunction]
pub fn decode_brotli<'py>(py: Python<'py>, encoded: &[u8], max_nbytes: u64) -> PyResult<Bound<'py, PyBytes>> {
    let decoded = detached(py, || {
        let chain = CodecChain::outer(&[CodecSpec::Brotli])?;
        chain.decode_to_vec(&mut CodecContext::default(), encoded, Verify::Full, max_nbytes)
    })?;
    Ok(PyBytes::new(py, &decoded))
}

/// The XXH3 of 64 bits.
#[pyfunction]
pub fn fingerprint(py: Python<'_>, content: &Bound<'_, PyAny>) -> PyResult<u64> {
    let content = received(py, content)?;
    Ok(py.detach(|| twox_hash::XxHash3_64::oneshot(content.as_ref())))
}

/// Those that nobody is encoding with; one has memory for a chunk or two, so encoders, of which there may be thousands,
/// share them.
static CONTEXTS: Mutex<Vec<CodecContext>> = Mutex::new(Vec::new());

/// Makes stored objects of voxels.
#[pyclass(frozen, module = "voxfetch._core")]
pub struct Encoder {
    array: Arc<PreparedArray>,
}

#[pymethods]
impl Encoder {
    #[new]
    fn new(py: Python<'_>, meta: &ArrayMeta) -> PyResult<Self> {
        detached(py, || shard_writer::check_codecs(&meta.0))?;
        Ok(Self { array: Arc::clone(&meta.0) })
    }

    fn encode<'py>(
        &self,
        py: Python<'py>,
        position: Vec<u64>,
        voxels: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let array = &*self.array;
        let grid = &array.shard_grid;
        if position.len() != grid.len() || position.iter().zip(grid).any(|(&cell, axis)| cell >= axis.cells()) {
            return Err(PyValueError::new_err(format!("no object at {position:?} of the grid")));
        }
        let start = position.iter().zip(grid).map(|(&cell, axis)| axis.start(cell)).collect();
        let (memory, input, _) = buffer::input(py, voxels, array.dtype.item_size(), start)?;
        let free = || CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
        let encoded = detached(py, || {
            let mut context = free().pop().unwrap_or_default();
            let encoded = shard_writer::encode_object(array, &mut context, &position, &input);
            free().push(context);
            encoded
        });
        memory.release(py);
        Ok(encoded?.map(|bytes| PyBytes::new(py, &bytes)))
    }
}
