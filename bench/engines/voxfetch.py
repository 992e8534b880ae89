"""voxfetch itself, through its public names and with its defaults."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from bench.engines import Engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from bench.volumes import Volume
    from bench.workloads import Box


def load(variant: str) -> Engine:
    """variant: "default"."""
    del variant
    import voxfetch as vf

    def open_volume(volume: Volume) -> _Handle:
        return _Handle(vf.open_array(str(volume.path)))

    return Engine({"voxfetch": version("voxfetch")}, "defaults; many boxes: read_many", open_volume)


class _Handle:
    def __init__(self, array: Any) -> None:
        self._array = array

    def read(self, box: Box) -> np.ndarray[Any, Any]:
        return self._array.read_box(box.start, box.shape)  # type: ignore[no-any-return]

    def read_many(self, boxes: Sequence[Box]) -> np.ndarray[Any, Any]:
        return self._array.read_many([box.start for box in boxes], boxes[0].shape)  # type: ignore[no-any-return]

    def read_into(self, box: Box, out: np.ndarray[Any, Any]) -> None:
        self._array.read_box(box.start, box.shape, out=out)
