//! Encodings of whole objects on their way that Python has no decoder of.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use voxfetch_core::codec::{CodecChain, CodecContext, Verify};
use voxfetch_core::metadata::CodecSpec;

use crate::detached;

/// Decodes Brotli.
#[pyfunction]
pub fn decode_brotli<'py>(py: Python<'py>, encoded: &[u8], max_nbytes: u64) -> PyResult<Bound<'py, PyBytes>> {
    let decoded = detached(py, || {
        let chain = CodecChain::outer(&[CodecSpec::Brotli])?;
        chain.decode_to_vec(&mut CodecContext::default(), encoded, Verify::Full, max_nbytes)
    })?;
    Ok(PyBytes::new(py, &decoded))
}
