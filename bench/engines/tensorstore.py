"""tensorstore, in its default context and in the best one found.

"best" keeps shard indexes between reads (a cache pool, data rechecked at open only). The pool is kept small, 16 MiB:
room for the indexes of every volume here, none for a decoded volume, so that a repeated read still decodes. "f" is the
best one with results in Fortran order, as formats with x first store their voxels.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from bench.engines import Engine, UnsupportedVolumeError, x_is_fastest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from bench.volumes import Volume
    from bench.workloads import Box

CACHE_POOL_BYTES = 16 << 20
FILE_IO_CONCURRENCY = 128
#: Format of a volume -> driver.
DRIVERS = {
    "zarr3": "zarr3",
    "zarr": "zarr",
    "zip": "zarr3",
    "n5": "n5",
    "precomputed": "neuroglancer_precomputed",
}


def spec_of(place: str | dict[str, Any], volume_format: str, *, pool: bool) -> dict[str, Any]:
    """How the volume at a place is opened, the URL or spec of a kvstore; ``pool``: with a cache pool.

    UnsupportedVolumeError where it does not work.
    """
    if volume_format not in DRIVERS:
        raise UnsupportedVolumeError(f"it does not read {volume_format}")
    if pool and volume_format == "zip":
        # Seen in 0.1.86: two full reads, one after the other, of a volume larger than the pool.
        raise UnsupportedVolumeError("with a cache pool a later read of a volume in a ZIP may wait for ever")
    kvstore: Any
    if volume_format == "zip":
        kvstore = {"driver": "zip", "base": place}
    else:
        kvstore = f"{place}/" if isinstance(place, str) else place | {"path": f"{place['path']}/"}
    return {"driver": DRIVERS[volume_format], "kvstore": kvstore}


def load(variant: str) -> Engine:
    """variant: "default", "best" or "f"."""
    import tensorstore as ts

    threads = len(os.sched_getaffinity(0))
    best: dict[str, Any] = {
        "cache_pool": {"total_bytes_limit": CACHE_POOL_BYTES},
        "data_copy_concurrency": {"limit": threads},
        "file_io_concurrency": {"limit": FILE_IO_CONCURRENCY},
    }
    context: dict[str, Any] = best if variant != "default" else {}
    recheck = {"recheck_cached_data": "open"} if variant != "default" else {}

    def open_volume(volume: Volume) -> _Handle:
        spec = spec_of(f"file://{volume.path}", volume.format, pool=bool(context)) | recheck
        if variant == "f":
            x_is_fastest(volume)
        store = ts.open(spec, context=ts.Context(context), open=True, read=True).result()
        return _Handle(ts, store, "F" if variant == "f" else "C")

    settings = f"{context}, {recheck}" if context else "default context"
    settings += '; read(order="F")' if variant == "f" else ""
    return Engine({"tensorstore": version("tensorstore")}, settings, open_volume)


class _Handle:
    def __init__(self, ts: Any, store: Any, order: str) -> None:
        self._ts = ts
        self._store = store
        self._order = order

    def read(self, box: Box) -> np.ndarray[Any, Any]:
        return self._store[box.slices].read(order=self._order).result()  # type: ignore[no-any-return]

    def read_many(self, boxes: Sequence[Box]) -> Sequence[np.ndarray[Any, Any]]:
        futures = [self._store[box.slices].read(order=self._order) for box in boxes]
        return [future.result() for future in futures]

    def read_into(self, box: Box, out: np.ndarray[Any, Any]) -> None:
        source = self._store[box.slices].translate_to[(0,) * len(box.shape)]
        self._ts.array(out).write(source).result()
