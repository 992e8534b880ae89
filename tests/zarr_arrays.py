"""Arrays of zarr-python's default pipeline, for tests of `voxfetch.ZarrPipeline`, and what is asserted of it."""

from __future__ import annotations

import numpy as np
import zarr

from voxfetch.zarr import report

PIPELINE = {"codec_pipeline.path": "voxfetch.ZarrPipeline"}
NEWER = tuple(map(int, zarr.__version__.split(".")[:2])) >= (3, 3)
SHAPE, CHUNKS, SHARDS = (37, 26, 19), (4, 5, 6), (8, 10, 12)


def filled(shape, dtype):
    """Voxels of which hardly any two are equal."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=int))
    if dtype.names:
        out = np.zeros(shape, dtype)
        for name in dtype.names:
            out[name] = filled(shape, dtype[name])
        return out
    if dtype.kind == "U":
        return np.array([chr(0x100 + k) * (k % 4) for k in range(count)], dtype).reshape(shape)
    if dtype.kind in "SV":
        return np.frombuffer(np.arange(1, count * dtype.itemsize + 1, dtype="u1").tobytes(), dtype).reshape(shape)
    return (np.arange(count) * 7 + 1).astype("i8").astype(dtype).reshape(shape)


def stored(store=None, *, shape, dtype="u2", name="a", holes=(), **layout):
    """An array of zarr's default pipeline; `holes` are selections that are not written."""
    if layout.get("zarr_format", 3) == 3 and "order" in layout:
        layout["config"] = {"order": layout.pop("order")}
    array = zarr.create_array({} if store is None else store, name=name, shape=shape, dtype=dtype, **layout)
    voxels = filled(shape, dtype)
    array[...] = voxels
    for hole in holes:
        array[hole] = array.fill_value
    return array


def same(got, expected):
    np.testing.assert_array_equal(got, expected, strict=True)
    assert np.asarray(got).dtype == np.asarray(expected).dtype


def all_accelerated(array, count=None):
    counts = report(array)
    assert (counts.not_accelerated, counts.reasons) == (0, {})
    assert counts.accelerated == count if count is not None else counts.accelerated > 0
