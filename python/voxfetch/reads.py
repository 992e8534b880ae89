"""Selections -> `_core.Read` values: what is read, and the memory that it goes to.

Array and selections are in the order of the axes that the caller sees; the core gets everything in the stored order,
with outputs as transposed views of the same memory, so that a reordered array costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import numpy as np

from voxfetch import _core
from voxfetch.dtypes import exported
from voxfetch.errors import LimitExceededError, SelectionError, UnsupportedError
from voxfetch.output import output_array, with_unit_axes
from voxfetch.selection import Outer, parse_basic, parse_outer, parse_points, parse_shape, parse_start, parse_starts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from voxfetch.pieces import Alone
    from voxfetch.selection import AxisSelection

__all__ = ["Bounds", "Job", "Reads"]

Bounds = Literal["raise", "fill"]
_T = TypeVar("_T")


@dataclass(slots=True)  # not frozen, which triples the time to make one
class Job:
    """What a call reads and the array that the reads fill; no reads when nothing is selected.

    `out` is what the caller handed in, None for a new array; `scalar` says that its one element is the result;
    `convert` makes what is returned, or fills `out`, out of an array that is not that itself.
    """

    reads: list[_core.Read]
    array: NDArray[Any]
    out: object = None
    scalar: bool = False
    convert: Callable[[NDArray[Any]], NDArray[Any]] | None = None

    @property
    def result(self) -> Any:
        """What the call returns, once the reads have ended."""
        array = self.array if self.convert is None else self.convert(self.array)
        if self.out is not None:
            return self.out
        return array[()] if self.scalar else array


@dataclass(frozen=True, slots=True)
class Reads:
    """Makes the reads of one array.

    `shape` is in the caller's order; axis k there is axis `order[k]` of the stored array (None: the same order);
    `where` names the array in errors. `alone` makes arrays of single boxes, where they are better read from those.
    """

    array: _core.LocalArray | _core.RemoteArray
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: tuple[int, ...] | None
    origin: tuple[int, ...]
    where: str
    alone: Alone | None = None

    def basic(self, selection: object, out: object = None, order: Literal["C", "F"] = "C") -> Job:
        """The read of `a[selection]`. Raises `SelectionError`, `LimitExceededError`."""
        return self._outer(parse_basic(selection, self.shape), out, order)

    def outer(self, selection: object) -> Job:
        """The read of `a.oindex[selection]`. Raises `SelectionError`, `LimitExceededError`."""
        return self._outer(parse_outer(selection, self.shape), None, "C")

    def points(self, selection: object) -> Job:
        """The read of `a.vindex[selection]`. Raises `SelectionError`, `LimitExceededError`."""
        points = parse_points(selection, self.shape)
        array = self._output(points.shape, None)
        boxes = array.reshape(len(points.starts), *points.box)  # a view: a new array is contiguous
        return Job(self._boxes(points.starts, points.box, "raise", boxes), array)

    def box(
        self,
        start: Sequence[int],
        shape: Sequence[int] | int,
        *,
        absolute: bool = False,
        bounds: Bounds,
        out: object = None,
    ) -> Job:
        """The read of one box. Raises `SelectionError`, `LimitExceededError`."""
        _check_word(bounds)
        places = parse_start(start, len(self.shape))
        extents = parse_shape(shape, len(self.shape))
        if absolute:
            places = tuple(place - first for place, first in zip(places, self.origin, strict=True))
        # The usual case takes the way of slices, which is the shorter one.
        axes: list[AxisSelection] = []
        for axis, extent in enumerate(self.shape):
            place, count = places[axis], extents[axis]
            if not 0 <= place <= extent - count:
                break
            axes.append((place, 1, count))
        else:
            return self._outer(Outer(tuple(axes), extents), out, "C")
        starts = parse_starts([places], len(self.shape), what="start")
        self._check_bounds(starts, extents, bounds)
        array = self._output(extents, out)
        return Job(self._boxes(starts, extents, bounds, array[np.newaxis]), array, out)

    def boxes(
        self, starts: object, shape: Sequence[int] | int, *, absolute: bool = False, bounds: Bounds, out: object = None
    ) -> Job:
        """The read of boxes of one shape at `starts` (N, ndim). Raises `SelectionError`, `LimitExceededError`."""
        _check_word(bounds)
        places = parse_starts(starts, len(self.shape))
        if absolute:
            places = places - np.asarray(self.origin, np.int64)
        extents = parse_shape(shape, len(self.shape))
        self._check_bounds(places, extents, bounds)
        array = self._output((len(places), *extents), out)
        return Job(self._boxes(places, extents, bounds, array), array, out)

    def explained(self, selection: object) -> _core.Read:
        """A read without memory, to be explained. Raises `SelectionError`."""
        return self._axes(parse_basic(selection, self.shape).axes, None)

    def box_to_write(self, selection: object, value: object) -> tuple[tuple[int, ...], NDArray[Any]]:
        """Returns (start, data) of `a[selection] = value` as the core takes them.

        Raises `SelectionError`, and `UnsupportedError` for a slice step.
        """
        outer = parse_basic(selection, self.shape)
        axes = cast("tuple[tuple[int, int, int], ...]", outer.axes)
        if any(step != 1 for _, step, _ in axes):
            message = "writing with a slice step is not supported"
            raise UnsupportedError(message, key=self.where, hint="write whole shards")
        data = with_unit_axes(self._data(value, outer.shape), outer.dropped)
        if not self.shape:
            data = data.reshape(1)  # memory without axes exports no shape
        return self._in_store(tuple(start for start, _, _ in axes)), self._memory(data)

    def _data(self, value: object, shape: tuple[int, ...]) -> NDArray[Any]:
        """Returns a value to write as an array of this dtype, broadcast to `shape`.

        Stricter than numpy's own assignment, which wraps integers and cuts off fractions without a word.
        """
        try:
            array = np.asarray(cast("Any", value))
            if array.dtype.kind in "iu" and self.dtype.kind in "iu":
                array = _in_range(array, self.dtype)
            casting = "safe" if self.dtype.kind in "SU" else "same_kind"
            return np.broadcast_to(array.astype(self.dtype, casting=casting, copy=False), shape)
        except (TypeError, ValueError, OverflowError) as error:
            message = f"the value does not fit {self.dtype} {shape}: {error}"
            raise SelectionError(message, key=self.where, hint="convert it with astype, or reshape it") from None

    def _outer(self, outer: Outer, out: object, order: Literal["C", "F"]) -> Job:
        array = self._output(outer.shape, out, order)
        reads: list[_core.Read] = []
        if not self.shape:
            reads = self._boxes(np.zeros((1, 0), np.int64), (), "raise", array[np.newaxis])
        elif array.size:
            memory = self._memory(with_unit_axes(array, outer.dropped))
            reads = [self._axes(outer.axes, memory)]
        return Job(reads, array, out, outer.scalar)

    def _axes(self, selections: tuple[AxisSelection, ...], memory: NDArray[Any] | None) -> _core.Read:
        axes = self._in_store(selections)
        if self.alone is not None:
            box = [(one[0], one[0] + one[2]) for one in axes if isinstance(one, tuple) and one[1] == 1 and one[2]]
            found = self.alone.array(box) if len(box) == len(axes) else None
            if found is not None:
                array, start = found
                own = tuple((at, 1, high - low) for at, (low, high) in zip(start, box, strict=True))
                return _core.Read.axes(array, own, memory)
        return _core.Read.axes(self.array, axes, memory)

    def _boxes(
        self, starts: NDArray[np.int64], shape: tuple[int, ...], bounds: Bounds, array: NDArray[Any]
    ) -> list[_core.Read]:
        """`starts` (N, ndim) and `array` (N, *shape) in the caller's order, inside the array if `bounds` says so."""
        if not array.size:
            return []
        memory = exported(array)
        if not self.shape:
            # Memory without axes exports no shape, and starts without axes have no number: one read each.
            one = np.zeros((1, 0), np.int64)
            return [self._core_boxes(one, (), memory[number : number + 1], bounds) for number in range(len(starts))]
        if self.order is not None:
            inverse = _inverse(self.order)
            starts = np.ascontiguousarray(starts[:, inverse])
            shape = tuple(shape[axis] for axis in inverse)
            memory = memory.transpose(0, *(axis + 1 for axis in inverse))
        return [self._core_boxes(starts, shape, memory, bounds)]

    def _core_boxes(
        self, starts: NDArray[np.int64], shape: tuple[int, ...], memory: NDArray[Any], bounds: Bounds
    ) -> _core.Read:
        return _core.Read.boxes(self.array, starts, shape, memory, fill_outside=bounds == "fill")

    def _check_bounds(self, starts: NDArray[np.int64], shape: tuple[int, ...], bounds: Bounds) -> None:
        if bounds == "fill":
            return
        last = np.asarray([extent - box for extent, box in zip(self.shape, shape, strict=True)], np.int64)
        outside = ((starts < 0) | (starts > last)).any(axis=1)
        if outside.any():
            start = tuple(int(value) for value in starts[int(outside.argmax())])
            message = f"the box of {shape} voxels at {start} reaches outside the array {self.shape}"
            hint = 'bounds="fill" gives the fill value there'
            raise SelectionError(message, key=self.where, hint=hint, others=int(outside.sum()) - 1)

    def _output(self, shape: tuple[int, ...], out: object, order: Literal["C", "F"] = "C") -> NDArray[Any]:
        if order not in ("C", "F"):
            raise ValueError(f'order must be "C" or "F", not {order!r}')
        if out is not None:
            return output_array(out, shape, self.dtype)
        try:
            # Not zeroed: the workers touch it first, and every voxel is written.
            return np.empty(shape, self.dtype, order)
        except (MemoryError, ValueError) as error:
            nbytes = math.prod(shape) * self.dtype.itemsize
            message = f"no memory for a result of {nbytes:,} bytes ({error})"
            raise LimitExceededError(message, key=self.where, hint="read less, or iterate with .blocks()") from None

    def _memory(self, array: NDArray[Any]) -> NDArray[Any]:
        """The same memory as the core wants it: stored order of the axes, items that export a buffer."""
        array = exported(array)
        return array if self.order is None else array.transpose(_inverse(self.order))

    def _in_store(self, values: tuple[_T, ...]) -> tuple[_T, ...]:
        """One value per axis in the caller's order -> in the stored order."""
        return values if self.order is None else tuple(values[axis] for axis in _inverse(self.order))


def _check_word(bounds: Bounds) -> None:
    if bounds not in ("raise", "fill"):
        raise ValueError(f'bounds must be "raise" or "fill", not {bounds!r}')


def _in_range(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Integers as another type that holds all their values. Raises `OverflowError` if it does not."""
    limits = np.iinfo(dtype)
    if values.size and not limits.min <= int(values.min()) <= int(values.max()) <= limits.max:
        raise OverflowError(f"{int(values.min())} .. {int(values.max())} is out of range")
    return values.astype(dtype, copy=False)


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(order.index(axis) for axis in range(len(order)))
