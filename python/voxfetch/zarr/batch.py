"""Batches of zarr-python -> `_core.Read` values.

A batch is what `CodecPipeline.read` of zarr gets: of each stored object its key, what of it is selected, and where that
goes in the output. Selections are those of zarr's indexers (`zarr.core.indexing`), in voxels of the stored object.
Whatever the number of objects, a batch becomes one read: the outer product of one selection per axis, or points.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import numpy as np

from voxfetch import _core
from voxfetch.dtypes import exported
from voxfetch.errors import UnsupportedError
from voxfetch.output import with_unit_axes

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

    Core: TypeAlias = _core.LocalArray | _core.RemoteArray
    Axis: TypeAlias = tuple[int, int, int] | NDArray[np.int64]

__all__ = ["Batch", "Grid", "Item", "Output", "understood"]

_MOST_OBJECTS = 1 << 40


class Item(NamedTuple):
    """One stored object of a batch, as zarr hands it over."""

    getter: Any
    spec: Any
    selection: Any
    out_selection: Any
    is_complete: bool


@contextmanager
def understood() -> Generator[None]:
    """Makes `UnsupportedError` of what a batch raises that is not as zarr's own indexers make them."""
    try:
        yield
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        message = "a selection that is not one of zarr's own"
        raise UnsupportedError(message, hint=f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True, slots=True)
class Grid:
    """Where stored objects begin along each axis, in voxels, and how their keys tell their coordinates.

    `separator` stands between the parts of a key, the first of which is `marker` if that is not empty.
    """

    starts: tuple[Sequence[int], ...]
    separator: str
    marker: str

    @staticmethod
    def regular(extent: int) -> Sequence[int]:
        """Returns the starts along an axis of objects of one extent."""
        return range(0, extent * _MOST_OBJECTS, extent)

    @property
    def is_regular(self) -> bool:
        """Whether the objects have one extent along each axis."""
        return all(isinstance(starts, range) for starts in self.starts)

    def extents(self, place: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the extents of the object at these grid coordinates."""
        return tuple(starts[one + 1] - starts[one] for starts, one in zip(self.starts, place, strict=True))

    def root(self, key: str) -> tuple[str, str]:
        """Returns the path of the array that a key is of, and what all of its keys begin with."""
        above = len(self.starts) + bool(self.marker) if self.starts else 1
        path = "/".join(key.split("/")[: -above if self.separator == "/" else -1])
        head = f"{path}/" if path else ""
        return path, head + self.marker + self.separator if self.marker and self.starts else head


class Output:
    """The array that a batch fills, and the memory of its shape that is read to.

    `dtype` is that of the elements when read; `drop_axes` are axes of index arrays that the output does not have.
    """

    def __init__(self, array: NDArray[Any], dtype: np.dtype[Any], drop_axes: tuple[int, ...]) -> None:
        self._array = array
        self._is_swapped = array.dtype != dtype and dtype.names is None and array.dtype.newbyteorder("=") == dtype
        # Of another byte order it is read in place, and swapped there. Fields, and types that only a user's own output
        # has, are converted by numpy out of an array of the whole output.
        in_place = self._is_swapped or array.dtype == dtype
        self._values = array.view(dtype) if in_place else np.empty(array.shape, dtype)
        self.memory = exported(self._values)
        self.drop_axes = drop_axes

    def finish(self) -> None:
        """Called when the reads have ended."""
        if self._is_swapped:
            self._values.byteswap(inplace=True)
        elif self._array.dtype != self._values.dtype:
            self._array[...] = self._values


class Batch:
    """The stored objects of one call: the `path` of their array, and how many `objects` it has at least along an axis.

    Raises `UnsupportedError` for objects that are not of one array, or not of the grid.
    """

    def __init__(self, items: Sequence[Item], grid: Grid) -> None:
        keys: list[str] = [item[0].path for item in items]
        self.path, begin = grid.root(keys[0])
        if not all(key.startswith(begin) for key in keys):
            raise UnsupportedError("a batch of several arrays")
        self.objects: tuple[int, ...] = ()
        self._places: list[tuple[int, ...]] = [()] * len(keys)
        if grid.starts:
            cut, separator = len(begin), grid.separator
            self._places = [tuple(map(int, key[cut:].split(separator))) for key in keys]
            self.objects = tuple(max(axis) + 1 for axis in zip(*self._places, strict=True))
        self._items = items
        self._grid = grid
        if not grid.is_regular and not self._is_of_grid():
            raise UnsupportedError("a grid that has changed since it was opened", hint="open the array again")

    def _is_of_grid(self) -> bool:
        try:
            return all(
                self._grid.extents(at) == one[1].shape for at, one in zip(self._places, self._items, strict=True)
            )
        except IndexError:
            return False

    def read(self, core: Core, out: Output) -> _core.Read:
        """Returns the read of the batch. Raises `ValueError` and others for one that is not understood."""
        ndim = len(self._grid.starts)
        if not ndim:
            starts = np.zeros((1, 0), np.int64)
            return _core.Read.boxes(core, starts, (), out.memory.reshape(1), fill_outside=False)
        selection = self._items[0][2]
        kinds: list[Any] = [np.ndarray if isinstance(part, np.ndarray) else type(part) for part in selection]
        arrays = kinds.count(np.ndarray)
        if arrays == ndim > 1 and selection[0].ndim == 1:
            memory = with_unit_axes(out.memory, tuple(range(1, ndim + 1)))
            return _core.Read.boxes(core, self._points(out.memory.shape), (1,) * ndim, memory, fill_outside=False)
        if arrays not in (0, ndim) and (arrays > 1 or kinds.count(slice) != ndim - 1):
            raise ValueError("index arrays beside other selections")
        dropped = (*out.drop_axes, *(axis for axis, kind in enumerate(kinds) if kind not in (slice, np.ndarray)))
        return _core.Read.axes(core, self._axes(dropped, out.memory.shape), with_unit_axes(out.memory, dropped))

    def _points(self, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """The points of index arrays that go together, in the order of the output."""
        counts = [len(item[2][0]) for item in self._items]
        starts = np.empty((sum(counts), len(self._grid.starts)), np.int64)
        for axis, first in enumerate(self._grid.starts):
            inside = np.concatenate([item[2][axis] for item in self._items])
            extents = [first[place[axis] + 1] - first[place[axis]] for place in self._places]
            if (inside < 0).any() or (inside >= np.repeat(extents, counts)).any():
                raise ValueError("points outside of their object")
            starts[:, axis] = inside + np.repeat([first[place[axis]] for place in self._places], counts)
        if shape != (len(starts),):
            raise ValueError(f"{len(starts)} points for an output of the shape {shape}")
        order = np.concatenate([np.arange(shape[0])[item[3]] for item in self._items])
        if (order == np.arange(shape[0])).all():
            return starts
        if (np.bincount(order, minlength=shape[0]) != 1).any():
            raise ValueError("points for the same place")
        ordered = np.empty_like(starts)
        ordered[order] = starts
        return ordered

    def _axes(self, dropped: tuple[int, ...], shape: tuple[int, ...]) -> list[Axis]:
        """The selections of which a batch is the outer product; `dropped` are axes that the output does not have."""
        ndim = len(self._grid.starts)
        kept = [axis for axis in range(ndim) if axis not in dropped]
        if len(kept) != len(shape):
            raise ValueError(f"{len(kept)} axes for an output of the shape {shape}")
        parts: list[dict[int, Any]] = [{} for _ in range(ndim)]
        outs: list[dict[int, Any]] = [{} for _ in kept]
        for item, place in zip(self._items, self._places, strict=True):
            to = item[3] if type(item[3]) is tuple else (item[3],)
            for known, one, part in zip(parts, place, item[2], strict=True):
                if known.setdefault(one, part) is not part and not _equal(known[one], part):
                    raise ValueError("objects with different selections along an axis")
            for known, axis, part in zip(outs, kept, to, strict=True):
                if known.setdefault(place[axis], part) is not part and not _equal(known[place[axis]], part):
                    raise ValueError("objects with different places along an axis")
        if any(len({_kind(part) for part in known.values()}) > 1 for known in parts):
            raise ValueError("selections of several kinds along an axis")
        if not prod(map(len, parts)) == len(set(self._places)) == len(self._places):
            raise ValueError("objects that are not all of a box")
        extents = dict(zip(kept, shape, strict=True))
        places = dict(zip(kept, outs, strict=True))
        return [
            _axis(
                [
                    (_inside(part, starts, one, (axis, ndim)), places[axis][one] if axis in places else slice(0, 1))
                    for one, part in sorted(parts[axis].items())
                ],
                extents.get(axis, 1),
            )
            for axis, starts in enumerate(self._grid.starts)
        ]


def _kind(part: object) -> tuple[object, int]:
    return type(part), getattr(part, "ndim", 0)


def _equal(one: Any, other: Any) -> bool:
    if type(one) is not np.ndarray:
        return type(one) is type(other) and one == other
    if type(other) is not np.ndarray or (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return one.tobytes() == other.tobytes()


def _inside(part: Any, starts: Sequence[int], place: int, axis: tuple[int, int]) -> range | NDArray[np.int64]:
    """What is selected of a stored object, in voxels of the array; `axis` is the number of this one, and of all."""
    voxels = range(starts[place], starts[place + 1])
    if type(part) is slice:
        found = voxels[part]
        if found.step < 1:
            raise ValueError("a negative step")
        return found
    if not isinstance(part, np.ndarray):
        if not 0 <= part < len(voxels):
            raise ValueError("an index outside of its object")
        return voxels[part : part + 1]
    array = cast("NDArray[Any]", part)
    before, ndim = axis
    # One dimension, or as `numpy.ix_` makes them.
    if array.ndim != 1 and array.shape != (*(1,) * before, array.size, *(1,) * (ndim - before - 1)):
        raise ValueError(f"an index array of the shape {array.shape}")
    flat = np.flatnonzero(array) if array.dtype == bool else array.reshape(-1)
    if flat.size and not 0 <= int(flat.min()) <= int(flat.max()) < len(voxels):
        raise ValueError("indices outside of their object")
    return flat.astype(np.int64) + voxels.start


def _axis(pieces: list[tuple[range | NDArray[np.int64], Any]], count: int) -> Axis:
    """The selection of one axis as the core takes it, of pieces and the places in the output where they go."""
    line = _line(pieces)
    if line is not None and len(line) == count:
        return line.start, line.step, count
    if sum(len(inside) for inside, _ in pieces) != count:
        raise ValueError("an output of another extent")
    indices = np.full(count, -1, np.int64)  # refused by the core, where nothing goes to
    for inside, to in pieces:
        indices[to.reshape(-1) if isinstance(to, np.ndarray) else to] = inside
    steps = np.diff(indices)
    if count > 1 and steps[0] > 0 and (steps == steps[0]).all():
        return int(indices[0]), int(steps[0]), count
    return indices


def _line(pieces: list[tuple[range | NDArray[np.int64], Any]]) -> range | None:
    """The evenly spaced voxels that pieces are together, one after the other; None for any others."""
    first, end = pieces[0][0], 0
    if not isinstance(first, range):
        return None
    for inside, to in pieces:
        if not isinstance(inside, range) or type(to) is not slice or (to.start, to.step) != (end, None):
            return None
        if not inside or inside.step != first.step or inside[0] != first[0] + end * first.step:
            return None
        end += len(inside)
        if to.stop != end:
            return None
    return range(first[0], first[0] + end * first.step, first.step)
