"""zarrista's synchronous API; one aligned chunk goes through ``retrieve_subchunk`` with its shard cache."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.engines import Engine, known

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.volumes import Volume
    from bench.workloads import Box


def load(variant: str) -> Engine:
    """variant: "default"."""
    del variant
    import zarrista
    from zarrista.store import FilesystemStore

    def open_volume(volume: Volume) -> _Handle:
        known(volume, "zarr3", "zarr")
        return _Handle(zarrista.Array.open(FilesystemStore(str(volume.path))), volume)

    settings = "FilesystemStore; one chunk: retrieve_subchunk with a kept shard_cache; many boxes: one thread a core"
    return Engine({"zarrista": version("zarrista")}, settings, open_volume)


class _Handle:
    def __init__(self, array: Any, volume: Volume) -> None:
        self._array = array
        self._chunk = volume.chunk if volume.shard else None
        self._cache = array.shard_cache()

    def read(self, box: Box) -> np.ndarray[Any, Any]:
        if self._chunk is not None and box.is_aligned_to(self._chunk):
            index = [s // c for s, c in zip(box.start, self._chunk, strict=True)]
            return np.asarray(self._array.retrieve_subchunk(index, shard_cache=self._cache))
        return self._read(box)

    def _read(self, box: Box) -> np.ndarray[Any, Any]:
        return np.asarray(self._array.retrieve_array_subset(box.slices))

    def read_many(self, boxes: Sequence[Box]) -> Sequence[np.ndarray[Any, Any]]:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return list(pool.map(self._read, boxes))
