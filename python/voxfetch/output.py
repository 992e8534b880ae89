"""The memory that results go to: arrays that callers hand in as `out`, checked before a worker writes to them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from voxfetch.errors import SelectionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["output_array", "with_unit_axes"]


def output_array(out: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Returns an array of `shape` and `dtype` over the memory of `out`.

    `out` is an array of exactly this shape and type (numpy, or anything on the CPU that exports a buffer or DLPack)
    with any strides that do not overlap, or a writable 1-D byte buffer of as many bytes. Raises `SelectionError`.
    """
    array = _as_array(out)
    nbytes = math.prod(shape) * dtype.itemsize
    if array.shape != shape or array.dtype != dtype:
        if not (array.ndim == 1 and array.dtype.kind in "iuSV" and array.dtype.itemsize == 1 and len(array) == nbytes):
            message = f"out has the shape {array.shape} and type {array.dtype}; {shape} and {dtype} are needed"
            raise SelectionError(message, hint=f"or a contiguous 1-D byte buffer of {nbytes:,} bytes")
        if not array.flags.c_contiguous:
            raise SelectionError("out is a byte buffer that is not contiguous")
        array = array.view(dtype).reshape(shape) if nbytes else np.empty(shape, dtype)
    if not array.flags.writeable:
        raise SelectionError("out is read-only")
    if _may_overlap(array):
        raise SelectionError(f"out has strides {array.strides} for the shape {array.shape}: voxels share memory")
    return array


def with_unit_axes(array: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    """Returns a view with axes of extent 1 inserted, so that these are its positions."""
    if not axes:
        return array
    places: list[slice | None] = [slice(None)] * (array.ndim + len(axes))
    for axis in axes:
        places[axis] = None
    return array[tuple(places)]


def _as_array(out: object) -> NDArray[Any]:
    if isinstance(out, np.ndarray):
        return cast("NDArray[Any]", out)
    try:
        return np.asarray(memoryview(cast("Any", out)))
    except (TypeError, ValueError):
        pass
    try:
        # Tensors export no buffer; older ones hand out read-only DLPack memory, which the check of flags refuses.
        return np.from_dlpack(cast("Any", out))
    except (TypeError, ValueError, AttributeError, RuntimeError, BufferError) as error:
        message = f"out must be an array or a writable buffer on the CPU, not {type(out).__name__}"
        # What exports DLPack says itself why not now: on another device, part of a computation.
        raise SelectionError(f"{message}: {error}" if hasattr(out, "__dlpack__") else message) from None


def _may_overlap(array: NDArray[Any]) -> bool:
    """False when each axis, from the smallest stride on, steps over all that the axes before it span.

    That holds for whatever slicing, stepping, flipping and transposing make of a plain array. Interleavings that only
    `as_strided` makes are refused even where they do not overlap.
    """
    if array.size <= 1:
        return False
    span = array.itemsize
    axes = sorted(
        (abs(stride), extent) for stride, extent in zip(array.strides, array.shape, strict=True) if extent > 1
    )
    for stride, extent in axes:
        if stride < span:
            return True
        span += stride * (extent - 1)
    return False
