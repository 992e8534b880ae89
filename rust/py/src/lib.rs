//! The compiled module `voxfetch._core`: converts values, releases the GIL, maps errors. What things mean is decided in
//! the core; what they are called and said to do, in `_core.pyi`.

mod buffer;
mod encoding;
mod engine;
mod error;
mod foreign;
mod input;
mod net;
mod remote;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::encoding::{Encoder, decode_brotli, fingerprint};
    #[pymodule_export]
    use crate::engine::{LocalEngine, Read};
    #[pymodule_export]
    use crate::input::{ArrayMeta, LocalArray, decode_blosc2};
    #[pymodule_export]
    use crate::net::{HttpClient, Received};
    #[pymodule_export]
    use crate::remote::{RemoteArray, RemoteEngine};

    use std::sync::Arc;

    use pyo3::prelude::*;
    use pyo3::types::PyList;
    use voxfetch_core::codec::{CutoutBox, cutout_blocks};
    use voxfetch_local::remote::Body;

    /// Takes a cutout of BossDB apart.
    #[pyfunction]
    #[pyo3(signature = (encoded, *, item_nbytes, voxels, block, boxes))]
    fn decode_cutout<'py>(
        py: Python<'py>,
        encoded: &Bound<'py, PyAny>,
        item_nbytes: usize,
        voxels: CutoutBox,
        block: [u64; 4],
        boxes: Vec<CutoutBox>,
    ) -> PyResult<Bound<'py, PyList>> {
        let encoded = crate::remote::received(py, encoded)?;
        let work = || cutout_blocks(encoded.as_ref(), item_nbytes, &voxels, block, &boxes);
        let parts = crate::detached(py, work)?;
        let bodies = parts.into_iter().map(|part| Received(Body { bytes: Arc::new(part), is_lent: false }));
        PyList::new(py, bodies.map(|body| Bound::new(py, body)).collect::<PyResult<Vec<_>>>()?)
    }

    #[pymodule_init]
    fn init(module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        use pyo3::types::PyModuleMethods as _;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}

/// Runs `work` without the GIL and maps its error.
fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> voxfetch_core::error::Result<T> + Send) -> PyResult<T> {
    py.detach(work).map_err(|error| error::to_python(py, &error, 0))
}

/// Passes of a loop between two calls of [`yield_gil`]; so many take well under a millisecond.
const YIELD_EVERY: usize = 64;

/// Lets other threads have the GIL, now and then in a loop over what may be tens of thousands. `number` is that of the pass.
fn yield_gil(py: Python<'_>, number: usize) {
    if number % YIELD_EVERY == YIELD_EVERY - 1 {
        py.detach(|| ());
    }
}
