//! The caller's memory, through the buffer protocol, and the descriptor that wakes an event loop.

#![expect(unsafe_code, reason = "describes the caller's memory to the core; borrows a file descriptor")]

use std::fs::File;
use std::os::fd::BorrowedFd;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::prelude::*;
use voxfetch_core::assemble::{Input, Output};
use voxfetch_core::error::Error;

use crate::error::to_python;

fn wrong(py: Python<'_>, what: String) -> PyErr {
    to_python(py, &Error::internal(what), 0)
}

fn get(py: Python<'_>, object: &Bound<'_, PyAny>, item_size: usize, shape: &[u64]) -> PyResult<PyUntypedBuffer> {
    let buffer = PyUntypedBuffer::get(object)?;
    let fits = buffer.item_size() == item_size
        && buffer.shape().len() == shape.len()
        && buffer.shape().iter().zip(shape).all(|(&have, &want)| have as u64 == want)
        && buffer.suboffsets().is_none();
    if !fits {
        let have = format!("{:?} of {} bytes", buffer.shape(), buffer.item_size());
        return Err(wrong(py, format!("buffer {have} where {shape:?} of {item_size} bytes is needed")));
    }
    Ok(buffer)
}

/// Writable memory of this shape: with `boxes`, the first dimension counts boxes.
pub fn output(
    py: Python<'_>,
    object: &Bound<'_, PyAny>,
    item_size: usize,
    boxes: Option<u64>,
    shape: &[u64],
) -> PyResult<(PyUntypedBuffer, Output)> {
    let all: Vec<u64> = boxes.into_iter().chain(shape.iter().copied()).collect();
    let buffer = get(py, object, item_size, &all)?;
    if buffer.readonly() {
        return Err(wrong(py, "a read-only buffer as output".into()));
    }
    let (box_stride, strides) = match (boxes, buffer.strides()) {
        (Some(_), [first, rest @ ..]) => (*first, rest.to_vec()),
        (_, strides) => (0, strides.to_vec()),
    };
    // SAFETY: the buffer protocol guarantees memory of this shape and these strides until the buffer is released, which
    // its owner does after the last worker. Python code promises that the strides do not overlap. Not guaranteed: that
    // other Python code leaves the memory alone meanwhile; that is the caller's race, over plain bytes.
    let output = unsafe {
        Output::new(buffer.buf_ptr().cast(), boxes.map_or(1, |n| n as usize), box_stride, shape.to_vec(), strides)
    };
    Ok((buffer, output))
}

/// Readable memory of the box of this rank that starts at `start`.
pub fn input(
    py: Python<'_>,
    object: &Bound<'_, PyAny>,
    item_size: usize,
    start: Vec<u64>,
) -> PyResult<(PyUntypedBuffer, Input, Vec<u64>)> {
    let found: Vec<u64> = PyUntypedBuffer::get(object)?.shape().iter().map(|&n| n as u64).collect();
    // Memory without axes exports no shape: one voxel of an array without axes comes as one of a row.
    let shape = if start.is_empty() { vec![1] } else { found };
    if !start.is_empty() && shape.len() != start.len() {
        return Err(wrong(py, format!("data of {} axes for a box of {}", shape.len(), start.len())));
    }
    let buffer = get(py, object, item_size, &shape)?;
    let rank = start.len();
    let (shape, strides) = (shape[..rank].to_vec(), buffer.strides()[..rank].to_vec());
    // SAFETY: as in `output`; the memory is only read.
    let input = unsafe { Input::new(buffer.buf_ptr().cast(), start, shape.clone(), strides) };
    Ok((buffer, input, shape))
}

/// The 64-bit integers of a C-contiguous buffer.
pub fn integers(py: Python<'_>, object: &Bound<'_, PyAny>) -> PyResult<Vec<i64>> {
    pyo3::buffer::PyBuffer::<i64>::get(object)?.to_vec(py)
}

/// A descriptor of our own for the file behind `fd`, so that it stays valid when the caller closes theirs.
pub fn own_descriptor(fd: i32) -> std::io::Result<File> {
    // SAFETY: the descriptor is open, as the caller passes it in; it is borrowed for this one call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().map(File::from)
}

/// Bytes that Python owns. Dropped with the GIL held, or it is taken for that.
pub struct Bytes {
    buffer: PyUntypedBuffer,
}

impl Bytes {
    /// The bytes of an object that exports them as one contiguous read-only block.
    pub fn new(py: Python<'_>, object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyUntypedBuffer::get(object)?;
        // A writable buffer could change while a worker, without the GIL, reads it.
        if buffer.item_size() != 1 || !buffer.is_c_contiguous() || !buffer.readonly() {
            return Err(wrong(py, "a body that is not a contiguous block of read-only bytes".into()));
        }
        Ok(Self { buffer })
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        let nbytes = self.buffer.len_bytes();
        if nbytes == 0 {
            return &[];
        }
        // SAFETY: the buffer protocol guarantees `len_bytes` contiguous bytes at this address until the buffer is released,
        // which it is when `self` is dropped; it is read-only, so that nobody changes them meanwhile. Not guaranteed:
        // an exporter that lies about being read-only.
        unsafe { std::slice::from_raw_parts(self.buffer.buf_ptr().cast(), nbytes) }
    }
}
