"""`LazyArray`: how xarray reads an array. Its kinds of indexing in, those of `voxfetch.Array` out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    import voxfetch as vf

__all__ = ["LazyArray"]


class LazyArray(BackendArray):
    """An array as xarray indexes it. Usable from any thread, picklable."""

    # Not `array`: some of xarray's functions take a member of that name for the values.
    __slots__ = ("_array", "dtype", "shape")

    def __init__(self, array: vf.Array) -> None:
        self._array = array
        self.shape = array.shape
        self.dtype: np.dtype[Any] = array.dtype
        if isinstance(array.fill_value, str) and array.dtype.hasobject:
            self.dtype = np.dtype("O", metadata={"element_type": str})

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Reads. Raises what `voxfetch.Array.read` raises."""
        if isinstance(key, indexing.VectorizedIndexer):
            plan = _plan(key.tuple, self.shape)
            return plan.arranged(self._indexer(plan.outer)[plan.key])
        method = self._array.oindex.__getitem__ if isinstance(key, indexing.OuterIndexer) else self._array.read
        key = _without_empty_slices(key, self.shape)
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.VECTORIZED, method)

    async def async_getitem(self, key: indexing.ExplicitIndexer) -> Any:
        """Reads on the running loop. Raises what `voxfetch.Array.read_async` raises."""
        if isinstance(key, indexing.VectorizedIndexer):
            plan = _plan(key.tuple, self.shape)
            return plan.arranged(await self._indexer(plan.outer).read_async(plan.key))
        outer = isinstance(key, indexing.OuterIndexer)
        method = self._array.oindex.read_async if outer else self._array.read_async
        key = _without_empty_slices(key, self.shape)
        support = indexing.IndexingSupport.VECTORIZED
        return await indexing.async_explicit_indexing_adapter(key, self.shape, support, method)

    def _indexer(self, outer: bool) -> Any:  # noqa: FBT001 - internal
        return self._array.oindex if outer else self._array.vindex


def _without_empty_slices(key: indexing.ExplicitIndexer, shape: tuple[int, ...]) -> indexing.ExplicitIndexer:
    """The key with `0:0` for slices that select nothing: xarray's adapter fails at those with a negative step."""
    items: list[Any] = list(cast("Any", key).tuple)
    for axis, extent in enumerate(shape):
        one = items[axis]
        if isinstance(one, slice) and not range(*cast("Any", one).indices(extent)):
            items[axis] = slice(0, 0)
    return type(key)(tuple(items))


class _Plan(NamedTuple):
    """A read by `oindex` (`outer`) or `vindex`, and where in an answer of `shape` its result goes.

    Dimension k of the result is dimension `dims[k]` of the answer; along the others the answer repeats itself.
    """

    outer: bool
    key: tuple[Any, ...]
    dims: tuple[int, ...]
    shape: tuple[int, ...]

    def arranged(self, values: Any) -> NDArray[Any]:
        result = np.asarray(values).transpose(np.argsort(self.dims))
        result = np.expand_dims(result, [dim for dim in range(len(self.shape)) if dim not in self.dims])
        return result if result.shape == self.shape else np.broadcast_to(result, self.shape).copy()


def _plan(key: tuple[Any, ...], shape: tuple[int, ...]) -> _Plan:
    """Index arrays that broadcast together (slices come last in the answer) -> boxes where they are boxes.

    xarray has transposed arrays, and points along some axes with all of the others, as index arrays of every voxel. An
    index array that alone varies along a dimension of the answer is an edge of boxes.
    """
    arrays = _index_arrays(key, shape)
    answer = np.broadcast_shapes(*(array.shape for array in arrays))
    arrays = [_thinned(array) for array in arrays]
    varying = [[dim for dim, extent in enumerate(array.shape) if extent != 1] for array in arrays]
    edges = {
        axis: dims[0]
        for axis, dims in enumerate(varying)
        if len(dims) == 1 and sum(dims[0] in others for others in varying) == 1
    }
    if all(axis in edges or not dims for axis, dims in enumerate(varying)):
        items = [_edge(array) if axis in edges else int(array.item()) for axis, array in enumerate(arrays)]
        return _Plan(outer=True, key=tuple(items), dims=tuple(edges.values()), shape=answer)
    edges = {axis: dim for axis, dim in edges.items() if isinstance(_edge(arrays[axis]), slice)}
    points = [dim for dim in range(len(answer)) if dim not in edges.values()]
    items = [
        _edge(array) if axis in edges else array.reshape([array.shape[dim] for dim in points])
        for axis, array in enumerate(arrays)
    ]
    return _Plan(outer=False, key=tuple(items), dims=(*points, *edges.values()), shape=answer)


def _index_arrays(key: tuple[Any, ...], shape: tuple[int, ...]) -> list[NDArray[np.int64]]:
    """The key with arrays of indices >= 0 in place of slices, all with one number of dimensions."""
    sliced = [axis for axis, one in enumerate(key) if isinstance(one, slice)]
    arrays: list[NDArray[np.int64]] = []
    for axis, extent in enumerate(shape):
        one = key[axis]
        if isinstance(one, slice):
            indices = np.arange(extent)[one]
            trailing = [-1 if axis == other else 1 for other in sliced]
            arrays.append(indices.reshape([1] * max(np.ndim(k) for k in key if not isinstance(k, slice)) + trailing))
        else:
            indices = cast("NDArray[np.int64]", one)
            indices = np.where(indices < 0, indices + extent, indices)
            arrays.append(indices.reshape([*indices.shape, *[1] * len(sliced)]))
    return arrays


def _thinned(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """One element along the dimensions in which nothing varies: xarray gives arrays as they were broadcast."""
    for dim, extent in enumerate(indices.shape):
        if extent > 1 and indices.size:
            first = indices.take([0], dim)
            if (indices == first).all():
                indices = first
    return indices


def _edge(indices: NDArray[np.int64]) -> Any:
    """Indices along one axis, as a slice if they are one with step 1."""
    flat = indices.ravel()
    if flat.size and (np.diff(flat) == 1).all():
        return slice(int(flat[0]), int(flat[-1]) + 1)
    return flat
