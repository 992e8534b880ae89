"""`View`: an array as napari slices it. A selection goes in, numpy's call for voxels becomes one read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np

import voxfetch as vf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["View"]


class View:
    """A selection of an array, read when numpy asks for it: `numpy.asarray(view)`.

    Indexing by ints and slices gives another view and reads nothing; ints along all axes give the voxel. A read of more
    than the `memory_limit_bytes` of the array's engine raises `LimitExceededError`. Usable from any thread.
    """

    def __init__(self, array: vf.Array, selection: Sequence[int | range] | None = None) -> None:
        """`selection` has the index or the indices along each axis of the array; None is all of it."""
        self._array = array
        self._selection = tuple(map(range, array.shape)) if selection is None else tuple(selection)
        self._kept = tuple(axis for axis, taken in enumerate(self._selection) if isinstance(taken, range))

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent of each axis in voxels."""
        return tuple(len(self._range(axis)) for axis in self._kept)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a voxel."""
        return self._array.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._kept)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the view when read."""
        return self.size * self.dtype.itemsize

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Extent of a chunk in voxels, by which napari takes tiles; None where the view is a part along an axis."""
        whole = all(self._range(axis) == range(self._array.shape[axis]) for axis in self._kept)
        return tuple(self._array.chunks[axis] for axis in self._kept) if whole else None

    def _range(self, axis: int) -> range:
        return cast("range", self._selection[axis])

    def __getitem__(self, key: Any) -> Any:
        """Returns a view of a part. Raises `SelectionError` for all but ints, slices (step >= 1) and an Ellipsis."""
        items: list[Any] = list(cast("tuple[Any, ...]", key)) if isinstance(key, tuple) else [key]
        ellipses = [place for place, item in enumerate(items) if item is ...]
        if ellipses:
            items[ellipses[0] : ellipses[0] + 1] = [slice(None)] * (self.ndim + 1 - len(items))
        if len(items) > self.ndim or len(ellipses) > 1:
            raise vf.SelectionError(f"{key!r:.200} does not fit a view with {self.ndim} axes", key=self._array.url)
        selection = list(self._selection)
        for axis, item in zip(self._kept, items, strict=False):
            try:
                taken = cast("Any", self._range(axis))[item]
            except (TypeError, ValueError, IndexError) as error:
                raise _refused(item, str(error), self._array) from None
            if isinstance(taken, range) and taken.step < 1:
                raise _refused(item, "steps are at least 1", self._array)
            selection[axis] = taken
        view = View(self._array, selection)
        return view if view.ndim else np.asarray(view)[()]

    def __len__(self) -> int:
        """Extent of the first axis."""
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: FBT001 - numpy's protocol
        """Reads the view. Raises `LimitExceededError`, and what `Array.read` raises."""
        if copy is False:
            raise ValueError("reading always makes a new array")
        limit = self._array.engine.options.memory_limit_bytes
        if self.nbytes > limit:
            message = f"{self.nbytes:,} bytes at once, a view of {self.shape} voxels; the limit is {limit:,}"
            hint = "take a part with [...], or give layers() an engine with a larger memory_limit_bytes"
            raise vf.LimitExceededError(message, key=self._array.url, hint=hint)
        taken = (slice(one.start, one.stop, one.step) if isinstance(one, range) else one for one in self._selection)
        return np.asarray(self._array.read(tuple(taken)), dtype)

    def __repr__(self) -> str:
        return f"<voxfetch.napari.View {self.dtype} {self.shape} of {self._array.url}>"


def _refused(item: object, why: str, array: vf.Array) -> vf.SelectionError:
    hint = "numpy.asarray(...) of a part is an array, which takes any index"
    return vf.SelectionError(f"{item!r:.200} does not select voxels: {why}", key=array.url, hint=hint)
