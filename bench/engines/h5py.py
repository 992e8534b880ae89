"""h5py: ``Dataset[...]``, of HDF5, and of the file that references lead to."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from bench.engines import Engine, known
from bench.writers import DATASET

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from bench.volumes import Volume
    from bench.workloads import Box


def load(variant: str) -> Engine:
    """variant: "default"."""
    del variant
    import h5py

    def open_volume(volume: Volume) -> Handle:
        known(volume, "hdf5", "references")
        return Handle(h5py.File(volume.path.with_suffix(".h5"), "r"))

    versions = {"h5py": version("h5py"), "HDF5": h5py.version.hdf5_version}
    return Engine(versions, "defaults, one thread; many boxes: one by one", open_volume)


class Handle:
    """The array of an open file."""

    def __init__(self, file: Any) -> None:
        self._array = file[DATASET]
        self.shape = self._array.shape

    def read(self, box: Box) -> np.ndarray[Any, Any]:
        return self._array[box.slices]  # type: ignore[no-any-return]

    def read_many(self, boxes: Sequence[Box]) -> Sequence[np.ndarray[Any, Any]]:
        return [self.read(box) for box in boxes]
