"""Batches of zarr-python -> `_core.Read` values.

A batch is what `CodecPipeline.read` of zarr gets: of each stored object its key, what of it is selected, and where that
goes in the output. Selections are those of zarr's indexers (`zarr.core.indexing`), in voxels of the stored object.
A batch that is one box, as basic indexing makes them, becomes one read, whatever the number of its objects.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise, product
from math import prod
from numbers import Integral
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
    """The array that a batch fills, and what is copied into it afterwards because it could not be read in place.

    `dtype` is that of the elements when read; `drop_axes` are axes of index arrays that the output does not have.
    """

    def __init__(self, array: NDArray[Any], dtype: np.dtype[Any], drop_axes: tuple[int, ...]) -> None:
        self.array = array
        self.drop_axes = drop_axes
        self.memory = exported(array) if array.dtype == dtype else None
        self._dtype = dtype
        self._moves: list[tuple[NDArray[Any], Any]] = []

    def take(self, selection: object, shape: tuple[int, ...], dropped: tuple[int, ...]) -> NDArray[Any]:
        """Returns memory of `shape` for a part of the output: a view where that is possible.

        Axes of `dropped` have the extent 1 and are not those of the output.
        """
        parts = cast("tuple[Any, ...]", selection if isinstance(selection, tuple) else (selection,))
        if self.memory is not None and all(type(part) is slice for part in parts):
            # The ellipsis makes it a view also where there is no axis.
            view = with_unit_axes(self.memory[(*parts, ...)], dropped)
            if view.shape == shape:
                return view
        values: NDArray[Any] = np.empty(shape, self._dtype)
        self._moves.append((values.squeeze(dropped) if dropped else values, parts))
        return exported(values)

    def finish(self) -> None:
        """Copies what was read elsewhere; called when the reads have ended."""
        for values, selection in self._moves:
            self.array[selection] = values


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
        if not grid.is_regular:
            for item, place in zip(items, self._places, strict=True):
                if grid.extents(place) != item[1].shape:
                    message = "a grid that has changed since the array was opened"
                    raise UnsupportedError(message, hint="open the array again")

    def reads(self, core: Core, out: Output) -> list[_core.Read]:
        """Returns what is to be read. Raises `UnsupportedError`, `ValueError` and others for unknown selections."""
        box = None if out.memory is None or out.drop_axes else self._box(out.memory.shape)
        if box is not None and out.memory is not None:
            axes, dropped = box
            return [_core.Read.axes(core, axes, with_unit_axes(out.memory, dropped))]
        return [
            read
            for (_, _, selection, to, *_), place in zip(self._items, self._places, strict=True)
            for read in self._read(core, out, selection, to, place)
        ]

    def _read(
        self, core: Core, out: Output, selection: Any, to: Any, place: tuple[int, ...]
    ) -> tuple[_core.Read] | tuple[()]:
        """The read of one stored object, none where nothing is selected."""
        first = [starts[one] for starts, one in zip(self._grid.starts, place, strict=True)]
        if not first:
            view = out.take(to, (), ())[np.newaxis]
            return (_core.Read.boxes(core, np.zeros((1, 0), np.int64), (), view, fill_outside=False),)
        kinds: list[Any] = [type(part) for part in selection]
        arrays, ndim = kinds.count(np.ndarray), len(first)
        if arrays == ndim > 1 and selection[0].ndim == 1:
            points = [part + start for part, start in zip(selection, first, strict=True)]
            starts = np.stack(points, axis=1, dtype=np.int64)
            view = with_unit_axes(out.take(to, (len(starts),), ()), tuple(range(1, ndim + 1)))
            return (_core.Read.boxes(core, starts, (1,) * ndim, view, fill_outside=False),)
        if arrays not in (0, ndim) and (arrays > 1 or kinds.count(slice) != ndim - 1):
            raise ValueError("index arrays beside other selections")
        extents = self._grid.extents(place)
        axes = [_axis(*one, ndim) for one in zip(selection, first, extents, range(ndim), strict=True)]
        counts = tuple(axis[2] if isinstance(axis, tuple) else len(axis) for axis in axes)
        dropped = (*out.drop_axes, *(axis for axis, kind in enumerate(kinds) if kind is not slice and kind is not np.ndarray))
        return (_core.Read.axes(core, axes, out.take(to, counts, dropped)),) if all(counts) else ()

    def _box(self, shape: tuple[int, ...]) -> tuple[list[tuple[int, int, int]], tuple[int, ...]] | None:
        """Returns the axes of the box that fills the whole output of `shape`, and which of them that does not have.

        None for any other batch: each item is compared with what the box has there.
        """
        begins = cast("tuple[Any, ...]", self._items[0][2])
        ends = cast("tuple[Any, ...]", self._items[-1][2])
        if not isinstance(cast("object", begins), tuple) or not begins:
            return None
        axes: list[tuple[int, int, int]] = []
        parts: list[list[tuple[int, Any]]] = []
        outs: list[list[slice]] = []
        for starts, low, high, part, end in zip(
            self._grid.starts, self._places[0], self._places[-1], begins, ends, strict=True
        ):
            if isinstance(part, Integral):
                axes.append((starts[low] + int(part), 1, 1))
                parts.append([(low, part)])
                continue
            if type(part) is not slice or type(end) is not slice or part.step not in (1, None):
                return None
            begin, stop = starts[low] + part.start, starts[high] + end.stop
            edges = [begin, *(starts[one] for one in range(low + 1, high + 1)), stop]
            axes.append((begin, 1, stop - begin))
            parts.append(
                [
                    (one, slice(a - starts[one], b - starts[one], part.step))
                    for one, (a, b) in enumerate(pairwise(edges), low)
                ]
            )
            outs.append([slice(a - begin, b - begin) for a, b in pairwise(edges)])
        dropped = tuple(axis for axis, part in enumerate(begins) if type(part) is not slice)
        counts = tuple(axis[2] for axis, part in zip(axes, begins, strict=True) if type(part) is slice)
        if counts != shape or prod(map(len, parts)) != len(self._items):
            return None
        for item, place, choice, to in zip(self._items, self._places, product(*parts), product(*outs), strict=True):
            if (place, item[2]) != tuple(zip(*choice, strict=True)) or item[3] != to:
                return None
        return axes, dropped


def _axis(part: Any, start: int, extent: int, axis: int, ndim: int) -> Axis:
    """The selection of one axis as the core takes it; `start` and `extent` are those of the stored object there."""
    if type(part) is slice:
        first, end, step = part.indices(extent)
        if step < 1:
            raise ValueError("a negative step")
        return start + first, step, len(range(first, end, step))
    if type(part) is not np.ndarray:
        return start + int(part), 1, 1
    # One dimension, or as `numpy.ix_` makes them.
    if part.ndim != 1 and part.shape != (*(1,) * axis, part.size, *(1,) * (ndim - axis - 1)):
        raise ValueError(f"an index array of the shape {part.shape}")
    flat = np.flatnonzero(part) if part.dtype == bool else part.reshape(-1)
    return np.asarray(flat + start, np.int64)
