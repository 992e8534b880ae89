"""tensorstore, in its default context and in the best one found.

"best" keeps shard indexes between reads (a cache pool, data rechecked at open only). The pool is kept small, 16 MiB:
room for the indexes of every volume here, none for a decoded volume, so that a repeated read still decodes.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from bench.engines import Engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from bench.volumes import Volume
    from bench.workloads import Box

CACHE_POOL_BYTES = 16 << 20
FILE_IO_CONCURRENCY = 128


def load(variant: str) -> Engine:
    """variant: "default" or "best"."""
    import tensorstore as ts

    threads = len(os.sched_getaffinity(0))
    best: dict[str, Any] = {
        "cache_pool": {"total_bytes_limit": CACHE_POOL_BYTES},
        "data_copy_concurrency": {"limit": threads},
        "file_io_concurrency": {"limit": FILE_IO_CONCURRENCY},
    }
    context: dict[str, Any] = best if variant == "best" else {}
    recheck = {"recheck_cached_data": "open"} if variant == "best" else {}

    def open_volume(volume: Volume) -> _Handle:
        spec = {"driver": volume.format, "kvstore": {"driver": "file", "path": f"{volume.path}/"}, **recheck}
        return _Handle(ts, ts.open(spec, context=ts.Context(context), open=True, read=True).result())

    settings = f"{context}, {recheck}" if context else "default context"
    return Engine({"tensorstore": version("tensorstore")}, settings, open_volume)


class _Handle:
    def __init__(self, ts: Any, store: Any) -> None:
        self._ts = ts
        self._store = store

    def read(self, box: Box) -> np.ndarray[Any, Any]:
        return self._store[box.slices].read().result()  # type: ignore[no-any-return]

    def read_many(self, boxes: Sequence[Box]) -> Sequence[np.ndarray[Any, Any]]:
        futures = [self._store[box.slices].read() for box in boxes]
        return [future.result() for future in futures]

    def read_into(self, box: Box, out: np.ndarray[Any, Any]) -> None:
        source = self._store[box.slices].translate_to[(0,) * len(box.shape)]
        self._ts.array(out).write(source).result()
