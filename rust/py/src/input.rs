//! Documents and folders as Python objects.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use voxfetch_core::codec::{PreparedArray, Verify};
use voxfetch_core::metadata::{CodecSpec, bossdb, n5, precomputed, wkw, zarr};
use voxfetch_core::plan::coalesce::Merge;
use voxfetch_core::shard_writer;

use crate::detached;

/// An array as its documents describe it.
#[pyclass(frozen, module = "voxfetch._core")]
pub struct ArrayMeta(pub Arc<PreparedArray>);

#[pymethods]
impl ArrayMeta {
    #[staticmethod]
    fn from_zarr3(py: Python<'_>, document: &[u8]) -> PyResult<Self> {
        detached(py, || PreparedArray::new(zarr::parse_v3(document)?)).map(|array| Self(Arc::new(array)))
    }

    #[staticmethod]
    #[pyo3(signature = (document, dimension_separator=None))]
    fn from_zarr2(py: Python<'_>, document: &[u8], dimension_separator: Option<char>) -> PyResult<Self> {
        detached(py, || PreparedArray::new(zarr::parse_v2(document, dimension_separator)?))
            .map(|array| Self(Arc::new(array)))
    }

    /// Of a format beside Zarr: its name as `voxfetch.node.Format` has it.
    #[staticmethod]
    fn from_document(py: Python<'_>, document: &[u8], format: &str) -> PyResult<Self> {
        let parse = match format {
            "bossdb" => bossdb::array,
            "n5" => n5::array,
            "precomputed" => precomputed::array,
            "wkw" => wkw::parse,
            other => return Err(PyValueError::new_err(format!("no parser of {other}"))),
        };
        detached(py, || PreparedArray::new(parse(document)?)).map(|array| Self(Arc::new(array)))
    }

    fn check_writable(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || shard_writer::check_codecs(&self.0))
    }

    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.0.shape)
    }

    #[getter]
    fn origin<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.0.origin)
    }

    #[getter]
    fn dtype(&self) -> String {
        self.0.dtype.numpy_name()
    }

    #[getter]
    fn item_size(&self) -> usize {
        self.0.dtype.item_size()
    }

    #[getter]
    fn fill_value<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.fill_value)
    }

    #[getter]
    fn dimension_names<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.0.dimension_names)
    }

    #[getter]
    fn chunks<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.0.chunk_shape)
    }

    #[getter]
    fn shards<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.0.shard_shape().map(|shape| PyTuple::new(py, shape)).transpose()
    }

    #[getter]
    fn codecs(&self) -> String {
        CodecSpec::describe(&self.0.codecs)
    }

    fn key(&self, coordinates: Vec<u64>) -> String {
        self.0.keys.key(&coordinates)
    }
}

/// An array in a folder.
#[pyclass(frozen, module = "voxfetch._core")]
pub struct LocalArray(pub Arc<voxfetch_local::LocalArray>);

#[pymethods]
impl LocalArray {
    #[new]
    #[pyo3(signature = (meta, root, *, document, max_gap_bytes, max_request_bytes, verify_checksums, missing_is_error, immutable))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of the Python constructor")]
    fn new(
        meta: &Bound<'_, ArrayMeta>,
        root: PathBuf,
        document: String,
        max_gap_bytes: u64,
        max_request_bytes: u64,
        verify_checksums: bool,
        missing_is_error: bool,
        immutable: bool,
    ) -> Self {
        Self(Arc::new(voxfetch_local::LocalArray {
            meta: Arc::clone(&meta.get().0),
            root,
            document,
            merge: Merge { max_gap_bytes, max_request_bytes },
            verify: if verify_checksums { Verify::Full } else { Verify::Cheap },
            missing_is_error,
            immutable,
        }))
    }
}
