"""Index expressions -> one selection per axis. Pure: shapes and expressions in, values out, no array and no I/O.

Basic indexing (`a[...]`) is numpy's with these differences: slice steps are positive, and whatever is neither an int,
a slice nor an Ellipsis is refused with a hint at `oindex` (one selection per axis, outer product) and `vindex` (one
point per element of index arrays that broadcast together).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import index as as_index
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, SupportsIndex, cast

import numpy as np

from voxfetch.errors import SelectionError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import EllipsisType

    from numpy.typing import NDArray
    from typing_extensions import TypeIs

    Indices = NDArray[np.int64]
    AxisSelection = tuple[int, int, int] | Indices
    Item = SupportsIndex | slice[Any, Any, Any] | EllipsisType | NDArray[Any] | None

__all__ = [
    "Box",
    "Boxes",
    "Outer",
    "Points",
    "axes_order",
    "parse_basic",
    "parse_outer",
    "parse_points",
    "parse_shape",
    "parse_start",
    "parse_starts",
]

_HINT = "use .oindex[...] for one index array or mask per axis, .vindex[...] for points"


class Box(NamedTuple):
    """A box of voxels: its first voxel and its extent, one int per axis."""

    start: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def stop(self) -> tuple[int, ...]:
        """One past the last voxel of each axis."""
        return tuple(start + extent for start, extent in zip(self.start, self.shape, strict=True))

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box as an index expression."""
        return tuple(slice(start, start + extent) for start, extent in zip(self.start, self.shape, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Boxes of one shape at `starts` (N, ndim), as a selection for `read_all`; the result is (N, *shape).

    Parameters as in `Array.read_many`; `out` has the shape and type of the result.
    """

    starts: Any
    shape: Sequence[int] | int
    absolute: bool = False
    bounds: Literal["raise", "fill"] = "raise"
    out: Any = None


@dataclass(slots=True)  # not frozen, which triples the time to make one
class Outer:
    """The outer product of one selection per axis.

    `axes` holds (start, step, count) or an int64 array of indices >= 0 per axis; `shape` is the result's, without the
    axes in `dropped` (selected by an int); `scalar` says that the result is an element, not an array.
    """

    axes: tuple[AxisSelection, ...]
    shape: tuple[int, ...]
    dropped: tuple[int, ...] = ()
    scalar: bool = False


@dataclass(frozen=True, slots=True)
class Points:
    """Boxes of one shape at many places: the result has the shape `broadcast` + the extents of the `kept` axes.

    `starts` (N, ndim) int64 are first voxels, `box` the extent of each box (1 along axes selected by index arrays).
    """

    starts: Indices
    box: tuple[int, ...]
    broadcast: tuple[int, ...]
    kept: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return (*self.broadcast, *(self.box[axis] for axis in self.kept))


def parse_basic(selection: object, shape: Sequence[int]) -> Outer:
    """Parses an expression of ints, slices and an Ellipsis for an array of `shape`.

    Slices clip like numpy's, ints do not. Raises `SelectionError`.
    """
    items, scalar = _expand(_items(selection), len(shape))
    axes: list[AxisSelection] = []
    kept: list[int] = []
    dropped: list[int] = []
    for axis, item in enumerate(items):
        if isinstance(item, slice):
            taken = _slice(item, shape[axis], axis)
            axes.append(taken)
            kept.append(taken[2])
        else:
            axes.append((_int(item, shape[axis], axis), 1, 1))
            dropped.append(axis)
    return Outer(tuple(axes), tuple(kept), tuple(dropped), scalar and len(dropped) == len(shape))


def parse_outer(selection: object, shape: Sequence[int]) -> Outer:
    """Parses an expression of ints, slices, an Ellipsis, 1-D integer sequences and 1-D boolean masks, one per axis.

    Raises `SelectionError`.
    """
    items, scalar = _expand(_items(selection), len(shape))
    axes: list[AxisSelection] = []
    kept: list[int] = []
    dropped: list[int] = []
    for axis, (item, extent) in enumerate(zip(items, shape, strict=True)):
        if isinstance(item, slice):
            taken = _slice(item, extent, axis)
            axes.append(taken)
            kept.append(taken[2])
        elif _is_int(item):
            axes.append((_int(item, extent, axis), 1, 1))
            dropped.append(axis)
        else:
            indices = _indices(item, extent, axis)
            if indices.ndim != 1:
                message = f"axis {axis}: oindex takes 1-D index arrays, not {indices.ndim}-D"
                raise SelectionError(message, hint="use .vindex[...] for index arrays that broadcast together")
            axes.append(indices)
            kept.append(len(indices))
    return Outer(tuple(axes), tuple(kept), tuple(dropped), scalar and len(dropped) == len(shape))


def parse_points(selection: object, shape: Sequence[int]) -> Points:
    """Parses an expression of integer arrays (and ints) that broadcast together, or a mask of the array's whole shape.

    Axes may also be selected by slices with step 1: the result then has the broadcast shape first, these axes after.
    Raises `SelectionError`.
    """
    items = _items(selection)
    if len(items) == 1 and (mask := _whole_mask(items[0], shape)) is not None:
        if not shape:  # the mask selects the one element or nothing
            return Points(np.zeros((int(mask), 0), np.int64), (), (int(mask),), ())
        items = tuple(np.nonzero(mask))
    items, _ = _expand(items, len(shape))
    arrays: dict[int, Indices] = {}
    starts: list[int] = []
    box: list[int] = []
    for axis, (item, extent) in enumerate(zip(items, shape, strict=True)):
        if isinstance(item, slice):
            start, step, count = _slice(item, extent, axis)
            if step != 1:
                message = f"axis {axis}: vindex takes slices with step 1 only, not {step}"
                raise SelectionError(message, hint="give an index array instead")
            starts.append(start)
            box.append(count)
        else:
            arrays[axis] = _indices(item, extent, axis)
            starts.append(0)
            box.append(1)
    try:
        broadcast = np.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError:
        shapes = ", ".join(str(array.shape) for array in arrays.values())
        message = f"index arrays of shapes {shapes} do not broadcast together"
        raise SelectionError(message, hint="use .oindex[...] for the outer product") from None
    points = np.empty((*broadcast, len(shape)), np.int64)
    points[...] = np.asarray(starts, np.int64)
    for axis, array in arrays.items():
        points[..., axis] = array
    kept = tuple(axis for axis in range(len(shape)) if axis not in arrays)
    return Points(points.reshape(math.prod(broadcast), len(shape)), tuple(box), broadcast, kept)


def parse_shape(shape: Sequence[int] | int, ndim: int, *, what: str = "shape", minimum: int = 0) -> tuple[int, ...]:
    """Returns one int >= `minimum` per axis; an int counts for every axis. Raises `SelectionError`."""
    values = (as_index(shape),) * ndim if _is_int(shape) else parse_start(shape, ndim, what=what)
    for extent in values:
        if not minimum <= extent < 1 << 62:
            raise SelectionError(f"{what} {values} has an extent outside {minimum} .. 2**62")
    return values


def parse_start(start: Sequence[int], ndim: int, *, what: str = "start") -> tuple[int, ...]:
    """Returns one int per axis. Raises `SelectionError`."""
    try:
        values = tuple(map(as_index, start))
    except TypeError:
        raise SelectionError(f"{what}: one int per axis was expected, not {start!r:.200}") from None
    if len(values) != ndim:
        raise SelectionError(f"{what}: {len(values)} ints for {ndim} axes")
    return values


def parse_starts(starts: object, ndim: int, *, what: str = "starts") -> Indices:
    """Returns coordinates as a C-contiguous int64 array (N, ndim). Raises `SelectionError`."""
    array = _integers(starts, what)
    if array.size == 0 and array.ndim <= 1:
        array = array.reshape(0, ndim)
    if array.ndim != 2 or array.shape[1] != ndim:
        raise SelectionError(f"{what} must have the shape (N, {ndim}), not {array.shape}")
    return np.ascontiguousarray(array)


def axes_order(wanted: str | Sequence[str], axes: Sequence[str]) -> tuple[int, ...]:
    """Returns the position in `axes` of each wanted axis: `"zyx"` of one-letter names, or a sequence of names.

    Raises `SelectionError` unless each axis is wanted exactly once.
    """
    names = tuple(wanted)
    if sorted(names) != sorted(axes) or len(set(axes)) != len(axes):
        message = f"axes {names} is not an order of the array's axes {tuple(axes)}"
        raise SelectionError(message, hint="name each axis once; names that are longer than a letter as a tuple")
    return tuple(list(axes).index(name) for name in names)


def _items(selection: Any) -> tuple[Item, ...]:
    """The parts of an index expression, if it is one."""
    return cast("tuple[Item, ...]", selection) if isinstance(selection, tuple) else (selection,)


def _expand(items: tuple[Item, ...], ndim: int) -> tuple[tuple[Item, ...], bool]:
    """Fills the expression up to `ndim` items; also returns whether it had no Ellipsis."""
    ellipsis = None
    # Not `in`: comparing an array with == gives an array.
    for position, item in enumerate(items):
        if item is None:
            message = "None (newaxis) does not select voxels"
            raise SelectionError(message, hint="add axes to the result with numpy; " + _HINT)
        if item is ...:
            if ellipsis is not None:
                raise SelectionError("an index expression can have one Ellipsis (...) only")
            ellipsis = position
    given = len(items) - (ellipsis is not None)
    if given > ndim:
        raise SelectionError(f"{given} indices for an array with {ndim} axes")
    fill = (slice(None),) * (ndim - given)
    if ellipsis is None:
        return items + fill, True
    return items[:ellipsis] + fill + items[ellipsis + 1 :], False


def _slice(item: slice[Any, Any, Any], extent: int, axis: int) -> tuple[int, int, int]:
    try:
        start, stop, step = item.indices(extent)
    except (TypeError, ValueError) as error:
        message = f"axis {axis}: {item} is not a slice of ints with a step of at least 1 ({error})"
        raise SelectionError(message) from None
    if step < 1:
        message = f"axis {axis}: slice steps are at least 1, not {step}"
        raise SelectionError(message, hint="flip the result with numpy: block[::-1]")
    if stop <= start:
        return 0, 1, 0
    count = (stop - start - 1) // step + 1
    if count == 1:  # a single voxel needs no step, and the step may be any int
        return start, 1, 1
    return start, step, count


def _is_int(item: object) -> TypeIs[SupportsIndex]:
    if isinstance(item, int):
        return not isinstance(item, bool)
    # Scalars of numpy and of others; arrays of one element have __index__ too, and are arrays all the same.
    return hasattr(item, "__index__") and (isinstance(item, np.integer) or not hasattr(item, "shape"))


def _int(item: object, extent: int, axis: int) -> int:
    if not _is_int(item):
        raise SelectionError(f"axis {axis}: {type(item).__name__} is not an int, a slice or an Ellipsis", hint=_HINT)
    value = as_index(item)
    if not -extent <= value < extent:
        raise SelectionError(f"axis {axis}: index {value} is outside an axis of {extent}")
    return value + extent if value < 0 else value


def _array(value: object, what: str) -> NDArray[Any]:
    try:
        return np.asarray(cast("Any", value))
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise SelectionError(f"{what}: not an array of ints ({error})", hint=_HINT) from None


def _integers(value: object, what: str) -> Indices:
    array = _array(value, what)
    # `np.asarray([])` has a float type; uint64 indices may be too large for the signed ones used here.
    if array.size == 0 and array.dtype.kind == "f":
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu" or (array.dtype.kind == "u" and array.size and int(array.max()) >= 1 << 63):
        raise SelectionError(f"{what}: ints were expected, not {array.dtype}")
    return array.astype(np.int64, copy=False)


def _indices(item: object, extent: int, axis: int) -> Indices:
    """Returns an index array with negative indices counted from the end; a mask becomes the places that are True."""
    if _is_int(item):
        return np.asarray(_int(item, extent, axis), np.int64)
    if isinstance(item, bool) or item is None:
        raise SelectionError(f"axis {axis}: {item} does not select voxels")
    array = _array(item, f"axis {axis}")
    if array.dtype == np.bool_:
        if array.shape != (extent,):
            raise SelectionError(f"axis {axis}: a mask of shape {array.shape} for an axis of {extent}")
        return np.nonzero(array)[0].astype(np.int64, copy=False)
    indices = _integers(array, f"axis {axis}")
    if indices.size and not (-extent <= int(indices.min()) and int(indices.max()) < extent):
        message = f"axis {axis}: indices {int(indices.min())} .. {int(indices.max())} reach outside an axis of {extent}"
        raise SelectionError(message)
    return np.where(indices < 0, indices + extent, indices)  # a new array: contiguous when it is 1-D


def _whole_mask(item: object, shape: Sequence[int]) -> NDArray[np.bool_] | None:
    if not (hasattr(item, "__array__") or isinstance(item, list)):
        return None
    array = _array(cast("object", item), "index")
    if array.dtype != np.bool_:
        return None
    if array.shape != tuple(shape):
        message = f"a mask of shape {array.shape} for an array of shape {tuple(shape)}"
        raise SelectionError(message, hint="vindex takes a mask of the whole array; .oindex[...] takes one per axis")
    return array
