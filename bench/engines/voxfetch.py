"""voxfetch itself, through its public names and with its defaults."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from bench.engines import Engine, UnsupportedVolumeError, x_is_fastest
from bench.writers import DATASET

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from bench.volumes import Volume
    from bench.workloads import Box


def load(variant: str) -> Engine:
    """variant: "default"; "f" = results in Fortran order, as formats with x first store their voxels."""
    import voxfetch as vf

    def open_volume(volume: Volume) -> _Handle:
        if volume.format == "bossdb":
            raise UnsupportedVolumeError("it is read from a server")
        array = opened(vf, str(volume.path), volume)
        if variant != "f":
            return _Handle(array)
        x_is_fastest(volume)
        return _Fortran(array)

    settings = "defaults; many boxes: read_many" if variant != "f" else 'read(order="F")'
    return Engine({"voxfetch": version("voxfetch")}, settings, open_volume)


def opened(vf: Any, source: str, volume: Volume, **keywords: Any) -> Any:
    """The array of a volume at a path or URL: what has levels is opened as an image, what has names by its name."""
    if volume.format == "precomputed":
        return vf.open_image(source, **keywords).level(0)
    return vf.open_array(source, DATASET if volume.format in ("hdf5", "references") else "", **keywords)


class _Handle:
    def __init__(self, array: Any) -> None:
        self._array = array

    def read(self, box: Box) -> np.ndarray[Any, Any]:
        return self._array.read_box(box.start, box.shape)  # type: ignore[no-any-return]

    def read_many(self, boxes: Sequence[Box]) -> Sequence[np.ndarray[Any, Any]]:
        return self._array.read_many([box.start for box in boxes], boxes[0].shape)  # type: ignore[no-any-return]

    def read_into(self, box: Box, out: np.ndarray[Any, Any]) -> None:
        self._array.read_box(box.start, box.shape, out=out)


class _Fortran(_Handle):
    def read(self, box: Box) -> np.ndarray[Any, Any]:
        return self._array.read(box.slices, order="F")  # type: ignore[no-any-return]

    def read_many(self, boxes: Sequence[Box]) -> Sequence[np.ndarray[Any, Any]]:
        return [self.read(box) for box in boxes]
