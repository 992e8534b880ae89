"""wkw: webknossos-wrap's library, in Rust behind a C interface, ``Dataset.read``. WKW only."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from bench.engines import Engine, known

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from bench.volumes import Volume
    from bench.workloads import Box


def load(variant: str) -> Engine:
    """variant: "default"."""
    del variant
    import wkw

    def open_volume(volume: Volume) -> _Handle:
        known(volume, "wkw")
        return _Handle(wkw.Dataset.open(str(volume.path)))

    return Engine({"wkw": version("wkw")}, "Dataset.read, one thread; many boxes: one thread a core", open_volume)


class _Handle:
    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def read(self, box: Box) -> np.ndarray[Any, Any]:
        # Boxes are (c, x, y, z); the library takes (x, y, z) and answers with all channels.
        return self._dataset.read(box.start[1:], box.shape[1:])  # type: ignore[no-any-return]

    def read_many(self, boxes: Sequence[Box]) -> Sequence[np.ndarray[Any, Any]]:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return list(pool.map(self.read, boxes))
