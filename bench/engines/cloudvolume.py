"""cloud-volume: precomputed only, with its defaults: one process, no cache of chunks."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.engines import Engine, known

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.volumes import Volume
    from bench.workloads import Box

VERSIONS = ("cloud-volume", "cloud-files", "compressed-segmentation")
CONFIGURATION = "defaults: one process, no cache of chunks"


def load(variant: str) -> Engine:
    """variant: "default"."""
    del variant
    import cloudvolume  # noqa: F401

    def open_volume(volume: Volume) -> Handle:
        known(volume, "precomputed")
        return Handle(f"precomputed://file://{volume.path}")

    return Engine({name: version(name) for name in VERSIONS}, f"{CONFIGURATION}; many: one by one", open_volume)


class Handle:
    """A volume at a URL."""

    def __init__(self, url: str) -> None:
        from cloudvolume import CloudVolume

        self._volume: Any = CloudVolume(url, progress=False)
        self.shape = tuple(map(int, self._volume.shape))

    def read(self, box: Box) -> np.ndarray[Any, Any]:
        return np.asarray(self._volume[box.slices])

    def read_many(self, boxes: Sequence[Box]) -> Sequence[np.ndarray[Any, Any]]:
        return [self.read(box) for box in boxes]
