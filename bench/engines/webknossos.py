"""webknossos (the Python client): ``MagView.read``, on volumes that are WEBKNOSSOS layers only."""

from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from bench.engines import Engine, UnsupportedVolumeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from bench.volumes import Volume
    from bench.workloads import Box


def load(variant: str) -> Engine:
    """variant: "default"."""
    del variant
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it lists the image readers it misses; none is needed here
        wk: Any = import_module("webknossos")

    def open_volume(volume: Volume) -> _Handle:
        if volume.layer is None:
            raise UnsupportedVolumeError("not a WEBKNOSSOS layer")
        dataset = wk.Dataset.open(volume.path.parents[1])
        return _Handle(dataset.get_layer(volume.layer).get_mag("1"))

    versions = {"webknossos": version("webknossos"), "tensorstore": version("tensorstore")}
    return Engine(versions, "MagView.read; many boxes: one thread a core", open_volume)


class _Handle:
    def __init__(self, mag: Any) -> None:
        self._mag = mag

    def read(self, box: Box) -> np.ndarray[Any, Any]:
        # Boxes are (c, x, y, z); the client takes (x, y, z) and answers with all channels.
        return self._mag.read(absolute_offset=box.start[1:], size=box.shape[1:])  # type: ignore[no-any-return]

    def read_many(self, boxes: Sequence[Box]) -> Sequence[np.ndarray[Any, Any]]:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return list(pool.map(self.read, boxes))
