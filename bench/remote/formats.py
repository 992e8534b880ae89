"""Who reads formats beside Zarr over HTTP, and nothing else: webknossos (WKW), cloud-volume (precomputed)."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from bench.engines import UnsupportedVolumeError, known
from bench.remote.engines import Array, Engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.remote.volumes import RemoteVolume
    from bench.workloads import Box


def webknossos(url: str) -> Engine:
    """webknossos, whose reader of remote WKW is in Python, over fsspec's HTTP."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it lists the image readers it misses; none is needed here
        import webknossos as wk
    from upath import UPath

    def open_volume(volume: RemoteVolume) -> _Webknossos:
        known(volume.volume, "wkw")
        dataset = wk.Dataset.open(UPath(f"{url}/{volume.dataset}"))
        mag = dataset.get_layer(volume.volume.layer).get_mag("1")
        _ = mag.info  # it reads the header of the mag
        return _Webknossos(mag, volume.volume.shape)

    return Engine(
        {name: version(name) for name in ("webknossos", "universal_pathlib", "fsspec", "aiohttp")},
        "Dataset.open(UPath(URL)), MagView.read; many boxes: one by one",
        "no index cache: the table of a file is read for every call",
        open_volume,
        _no_arrays,
        None,
    )


class _Webknossos:
    def __init__(self, mag: Any, shape: tuple[int, ...]) -> None:
        self._mag = mag
        self.shape = shape

    def read(self, box: Box) -> Array:
        # Boxes are (c, x, y, z); the client takes (x, y, z) and answers with all channels.
        return self._mag.read(absolute_offset=box.start[1:], size=box.shape[1:])  # type: ignore[no-any-return]

    def read_many(self, boxes: Sequence[Box]) -> list[Array]:
        return [self.read(box) for box in boxes]


def cloudvolume(url: str) -> Engine:
    """cloud-volume."""
    import cloudvolume  # noqa: F401

    from bench.engines.cloudvolume import CONFIGURATION, VERSIONS, Handle

    def open_volume(volume: RemoteVolume) -> Handle:
        known(volume.volume, "precomputed")
        return Handle(f"precomputed://{url}/{volume.path}")

    return Engine(
        {name: version(name) for name in VERSIONS},
        CONFIGURATION,
        "merges nothing; many boxes: one by one",
        open_volume,
        _no_arrays,
        None,
    )


def _no_arrays(path: str) -> tuple[int, ...]:
    raise UnsupportedVolumeError(f"{path}: it knows no Zarr arrays without their volumes")
