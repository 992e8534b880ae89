"""python-blosc2: ``blosc2.open(...)[...]``, b2nd only."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from bench.engines import Engine, known

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from bench.volumes import Volume
    from bench.workloads import Box


def load(variant: str) -> Engine:
    """variant: "default", or "mmap" = the file is mapped."""
    import blosc2

    options = {"mmap_mode": "r"} if variant == "mmap" else {"mode": "r"}

    def open_volume(volume: Volume) -> _Handle:
        known(volume, "b2nd")
        return _Handle(blosc2.open(str(volume.path), **options))

    settings = f"{options}, {blosc2.nthreads} threads; many boxes: one by one"
    return Engine({"blosc2": version("blosc2")}, settings, open_volume)


class _Handle:
    def __init__(self, array: Any) -> None:
        self._array = array

    def read(self, box: Box) -> np.ndarray[Any, Any]:
        return self._array[box.slices]  # type: ignore[no-any-return]

    def read_many(self, boxes: Sequence[Box]) -> Sequence[np.ndarray[Any, Any]]:
        return [self.read(box) for box in boxes]
