//! Documents and folders as Python objects.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};
use voxfetch_core::codec::{PreparedArray, Verify, blosc2};
use voxfetch_core::dtype::DataType;
use voxfetch_core::metadata::{CodecSpec, Places, TableVersion, bossdb, n5, precomputed, wkw, zarr};
use voxfetch_core::plan::coalesce::Merge;
use voxfetch_core::shard_writer;

use crate::detached;
use crate::foreign::PythonCodecs;

/// `FileVersion` and `ObjectVersion` of `voxfetch.table`.
#[derive(FromPyObject)]
enum Version {
    File(u64, u64, u64, i128),
    Object(Option<String>, Option<String>, Option<u64>),
}

impl Version {
    fn into_table(self) -> TableVersion {
        match self {
            Self::File(device, inode, nbytes, modified_ns) => TableVersion::File { device, inode, nbytes, modified_ns },
            Self::Object(etag, modified, total) => {
                TableVersion::Object { etag: etag.map(Into::into), modified: modified.map(Into::into), total }
            }
        }
    }
}

/// An array as its documents describe it.
#[pyclass(frozen, module = "voxfetch._core")]
pub struct ArrayMeta(pub Arc<PreparedArray>);

#[pymethods]
impl ArrayMeta {
    #[staticmethod]
    #[pyo3(signature = (document, foreign=None))]
    fn from_zarr3(py: Python<'_>, document: &[u8], foreign: Option<Py<PyAny>>) -> PyResult<Self> {
        let parse = || PreparedArray::new(zarr::parse_v3_with(document, &PythonCodecs(foreign))?);
        detached(py, parse).map(|array| Self(Arc::new(array)))
    }

    #[staticmethod]
    #[pyo3(signature = (document, dimension_separator=None, foreign=None))]
    fn from_zarr2(
        py: Python<'_>,
        document: &[u8],
        dimension_separator: Option<char>,
        foreign: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let foreign = PythonCodecs(foreign);
        detached(py, || PreparedArray::new(zarr::parse_v2_with(document, dimension_separator, &foreign)?))
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

    #[pyo3(signature = (files, offsets, nbytes, *, numbers=None, masks=None, version=None, clipped=false))]
    #[expect(clippy::too_many_arguments, reason = "keywords of the Python method")]
    fn with_table(
        &self,
        py: Python<'_>,
        files: Vec<String>,
        offsets: &Bound<'_, PyAny>,
        nbytes: &Bound<'_, PyAny>,
        numbers: Option<&Bound<'_, PyAny>>,
        masks: Option<&Bound<'_, PyAny>>,
        version: Option<Version>,
        clipped: bool,
    ) -> PyResult<Self> {
        let wide = |object: &Bound<'_, PyAny>| PyBuffer::<u64>::get(object)?.to_vec(py);
        let narrow = |object: &Bound<'_, PyAny>| PyBuffer::<u32>::get(object)?.to_vec(py);
        let places = Places {
            files,
            offsets: wide(offsets)?,
            nbytes: wide(nbytes)?,
            numbers: numbers.map(narrow).transpose()?,
            masks: masks.map(narrow).transpose()?,
            version: version.map(Version::into_table),
        };
        let meta = self.0.unprepared();
        detached(py, || PreparedArray::new(meta.with_table(places, clipped)?)).map(|array| Self(Arc::new(array)))
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
    fn dtype<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        described(py, &self.0.dtype)
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

    #[getter]
    fn foreign_codecs(&self) -> Vec<&str> {
        self.0.foreign_codecs().map(|codec| codec.name.as_str()).collect()
    }

    fn key(&self, coordinates: Vec<u64>) -> String {
        self.0.keys.key(&coordinates)
    }
}

/// A data type as `numpy.dtype` takes it: a name, of a record a list of (name, type, shape).
fn described<'py>(py: Python<'py>, dtype: &DataType) -> PyResult<Bound<'py, PyAny>> {
    let DataType::Record(record) = dtype else { return Ok(PyString::new(py, &dtype.numpy_name()).into_any()) };
    let fields = record
        .fields()
        .iter()
        .map(|field| (&field.name, described(py, &field.dtype)?, PyTuple::new(py, &field.shape)?).into_pyobject(py));
    Ok(PyList::new(py, fields.collect::<PyResult<Vec<_>>>()?)?.into_any())
}

/// Decodes a Blosc 2 chunk by itself.
#[pyfunction]
pub fn decode_blosc2<'py>(py: Python<'py>, chunk: &[u8], max_nbytes: usize) -> PyResult<Bound<'py, PyBytes>> {
    let decoded = detached(py, || blosc2::decode_chunk(chunk, max_nbytes))?;
    Ok(PyBytes::new(py, &decoded))
}

/// An array in a folder.
#[pyclass(frozen, module = "voxfetch._core")]
pub struct LocalArray(pub Arc<voxfetch_local::LocalArray>);

#[pymethods]
impl LocalArray {
    #[new]
    #[pyo3(signature = (meta, root, *, document, max_gap_bytes, max_request_bytes, verify_checksums, missing_is_error, immutable, inside))]
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
        inside: Option<PathBuf>,
    ) -> Self {
        Self(Arc::new(voxfetch_local::LocalArray {
            meta: Arc::clone(&meta.get().0),
            root,
            document,
            merge: Merge { max_gap_bytes, max_request_bytes },
            verify: if verify_checksums { Verify::Full } else { Verify::Cheap },
            missing_is_error,
            immutable,
            inside,
        }))
    }
}
