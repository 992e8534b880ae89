"""Who loads crops: voxfetch by its own loader, and everybody by torch's DataLoader with or without worker processes."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from bench.engines import OWN
from bench.engines import load as load_local
from bench.remote.engines import load as load_remote
from bench.remote.volumes import RemoteVolume
from bench.volumes import Volume
from bench.workloads import Box

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Starts = np.ndarray[Any, Any]

#: library -> its engine for local files and the one for HTTP.
LIBRARIES = {
    "zarr": ("zarr", "zarr-obstore"),
    "zarrs": ("zarrs", "zarrs"),
    "tensorstore": ("tensorstore-best", "tensorstore-best"),
}


def parts(engine: str) -> tuple[str, int | None]:
    """The library of an engine and its number of workers, None for CropLoader."""
    name, _, workers = engine.partition("-")
    return name, int(workers[:-1]) if workers else None


class PeerCrops(Dataset[torch.Tensor]):
    """Crops of a volume, asked for a batch at a time: the fastest way the library offers. Opened in each process."""

    def __init__(self, engine: str, volume: Volume, url: str | None, starts: Starts, extent: int) -> None:
        self._engine, self._volume, self._url = engine, volume, url
        self._starts, self._extent = starts, extent
        self._handle: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handle": None}

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        if self._handle is None:
            if self._url is None:
                self._handle = load_local(self._engine).open(self._volume)
            else:
                self._handle = load_remote(self._engine, self._url).open(RemoteVolume(self._volume, self._volume))
        shape = (self._extent,) * self._starts.shape[1]
        crops = self._handle.read_many([Box(tuple(map(int, self._starts[index])), shape) for index in indices])
        return [torch.from_numpy(np.asarray(crop)) for crop in crops]


class Numbers:
    """A batch sampler: the batches of one run after the other, for workers that live on."""

    def __init__(self, count: int, batch: int) -> None:
        self._count, self._batch = count, batch
        self.run = 0

    def __len__(self) -> int:
        return (self._count + self._batch - 1) // self._batch

    def __iter__(self) -> Iterator[list[int]]:
        first, end = self.run * self._count, (self.run + 1) * self._count
        return (list(range(at, min(at + self._batch, end))) for at in range(first, end, self._batch))


class Loader:
    """Batches (n, z, y, x) of each run. ``starts``: those of all runs, ``count`` of each; in this order."""

    def __init__(
        self, engine: str, volume: Volume, url: str | None, starts: Starts, *, extent: int, count: int, batch: int
    ) -> None:
        library, workers = parts(engine)
        self._own = None
        self._count, self._batch = count, batch
        self._numbers = Numbers(count, batch)
        if library == OWN:
            import voxfetch as vf
            from voxfetch.torch import CropDataset

            array = vf.open_array(volume.path if url is None else f"{url}/{RemoteVolume(volume, volume).path}")
            dataset: Any = CropDataset(array, extent, starts)
            if workers is None:
                runs = range(0, len(starts), count)
                self._own = [CropDataset(array, extent, starts[at : at + count]) for at in runs]
                return
        else:
            dataset = PeerCrops(LIBRARIES[library][url is not None], volume, url, starts, extent)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # more workers than cores
            self._loader = DataLoader(
                dataset,
                batch_sampler=self._numbers,
                num_workers=workers or 0,
                persistent_workers=bool(workers),
                # Most peers do not survive a fork.
                multiprocessing_context="forkserver" if workers else None,
            )

    def batches(self, run: int) -> Iterable[torch.Tensor]:
        """The batches of a run, from 0 on."""
        if self._own is not None:
            from voxfetch.torch import CropLoader

            return CropLoader(self._own[run], self._batch, shuffle=False)
        self._numbers.run = run
        return self._loader


def configuration(engine: str) -> tuple[dict[str, str], str]:
    """Versions and how it is used. ImportError where something is missing."""
    from importlib.metadata import version

    library, workers = parts(engine)
    torch_version = {"torch": version("torch"), "numpy": np.__version__}
    if library == OWN:
        how = "CropLoader, defaults" if workers is None else f"DataLoader of CropDataset, {workers} workers"
        return {OWN: version(OWN)} | torch_version, how
    loaded = load_local(LIBRARIES[library][0])
    how = f"DataLoader, {workers} workers; a batch at once; local: {loaded.configuration}"
    return loaded.versions | torch_version, how
