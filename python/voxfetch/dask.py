"""`Array.to_dask`: an array in, a lazy `dask.array.Array` of the same voxels out, in blocks that suit what is stored.

The graph is one blockwise layer that holds the array once; building it reads nothing, and workers that get the array
by pickle ask for no metadata. Slices of the dask array become slices of the reads where dask can fuse them.
"""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from voxfetch import Array

__all__ = ["to_dask"]

_Axis = int | str | tuple[int, ...] | None


def to_dask(array: Array, chunks: Any = None) -> Any:
    """Returns `array` as a `dask.array.Array`; see `voxfetch.Array.to_dask`."""
    # dask says of few of its functions what they take.
    dask = cast("Any", importlib.import_module("dask"))
    dask_array = cast("Any", importlib.import_module("dask.array"))
    wanted = _per_axis(_default(array) if chunks is None else chunks, array.ndim)
    limit: int = _limit_nbytes(wanted, dask)
    blocks = dask_array.core.normalize_chunks(_blocks(array, wanted, limit), shape=array.shape, dtype=array.dtype)
    return dask_array.from_array(
        array,
        chunks=blocks,
        name=f"voxfetch-{dask.base.tokenize(array, blocks)}",
        inline_array=True,
        meta=np.zeros((0,) * array.ndim, array.dtype),
    )


def _default(array: Array) -> Any:
    if array.shards is not None:
        return array.shards
    return array.chunks if array.dtype.hasobject else "auto"  # nobody knows the bytes of objects


def _per_axis(chunks: Any, ndim: int) -> list[_Axis]:
    """The forms that dask takes -> one entry per axis."""
    if isinstance(chunks, dict):
        of_axis = cast("Mapping[int, _Axis]", chunks)
        return [_entry(of_axis.get(axis)) for axis in range(ndim)]
    if isinstance(chunks, np.ndarray):
        chunks = cast("Any", chunks).tolist()
    if isinstance(chunks, list | tuple):
        given = cast("Sequence[Any]", chunks)
        if ndim == 1 and len(given) > 1 and all(isinstance(one, int) for one in given):
            return [tuple(given)]  # the blocks of the only axis
        if len(given) != ndim:
            raise ValueError(f"chunks={chunks!r} has {len(given)} entries for {ndim} axes")
        return [_entry(one) for one in given]
    return [_entry(chunks)] * ndim


def _entry(one: Any) -> _Axis:
    if isinstance(one, list):
        return tuple(cast("list[int]", one))
    return int(cast("Any", one)) if isinstance(one, np.integer) else one


def _limit_nbytes(wanted: Sequence[_Axis], dask: Any) -> int:
    """Bytes of a block where they are not given: "auto" stands for dask's setting, other texts say it themselves."""
    texts = {one for one in wanted if isinstance(one, str)} - {"auto"}
    if len(texts) > 1:
        raise ValueError(f"chunks has several sizes in bytes: {', '.join(sorted(texts))}")
    return dask.utils.parse_bytes(texts.pop() if texts else dask.config.get("array.chunk-size"))


def _blocks(array: Array, wanted: Sequence[_Axis], limit_nbytes: int) -> tuple[Any, ...]:
    """Per axis the extent of the blocks, or the extents where these were given one by one."""
    for one, extent in zip(wanted, array.shape, strict=True):
        if isinstance(one, int) and one < 1 and one != -1 and extent:
            raise ValueError(f"a block has at least 1 voxel along each axis, not {one}")
    given = [
        extent if one in (None, -1) else -(-one // chunk) * chunk if isinstance(one, int) and one > 0 else one
        for one, chunk, extent in zip(wanted, array.chunks, array.shape, strict=True)
    ]
    largest = [
        chunk if isinstance(one, str) else max(one) if isinstance(one, tuple) else one
        for one, chunk in zip(given, array.chunks, strict=True)
    ]
    free = {axis for axis, one in enumerate(given) if isinstance(one, str)}
    limit = limit_nbytes // max(array.dtype.itemsize, 1)
    while free:
        # The shortest edge grows first, so that blocks come close to cubes; inside a shard before past its end.
        axis = min(free, key=lambda axis: (largest[axis] >= _shard(array, axis), largest[axis]))
        longer = [*largest]
        longer[axis] = _next(largest[axis], array.chunks[axis], _shard(array, axis))
        inside = (max(min(edge, extent), 1) for edge, extent in zip(longer, array.shape, strict=True))
        if largest[axis] >= array.shape[axis] or math.prod(inside) > limit:
            free.remove(axis)
        else:
            largest = longer
    return tuple(size if isinstance(one, str) else one for one, size in zip(given, largest, strict=True))


def _shard(array: Array, axis: int) -> int:
    return (array.shards or array.chunks)[axis]


def _next(extent: int, chunk: int, shard: int) -> int:
    """The next longer edge: a divisor of the shard, in whole chunks, up to the shard; then twice as many shards."""
    if extent >= shard:
        return 2 * extent
    # Where chunks differ in extent, the largest need not divide the largest shard.
    return next((longer for longer in range(extent + chunk, shard, chunk) if shard % longer == 0), shard)
