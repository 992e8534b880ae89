"""z5py: z5, in C++. N5 only; its axes are z, y, x, and what it reads is handed on as a view with x first."""

from __future__ import annotations

import os
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
    import z5py

    threads = os.cpu_count() or 1

    def open_volume(volume: Volume) -> _Handle:
        known(volume, "n5")
        dataset = z5py.File(str(volume.path.parent), mode="r", use_zarr_format=False)[volume.path.name]
        dataset.n_threads = threads
        return _Handle(dataset)

    return Engine({"z5py": version("z5py")}, f"n_threads = {threads}; many boxes: one by one", open_volume)


class _Handle:
    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def read(self, box: Box) -> np.ndarray[Any, Any]:
        return self._dataset[box.slices[::-1]].transpose()  # type: ignore[no-any-return]

    def read_many(self, boxes: Sequence[Box]) -> Sequence[np.ndarray[Any, Any]]:
        return [self.read(box) for box in boxes]
