"""Who reads formats beside Zarr over HTTP, and nothing else: webknossos (WKW), cloud-volume (precomputed), h5py and
remfile (HDF5), zarr-python over references of kerchunk, intern (BossDB).
"""

from __future__ import annotations

import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from bench.engines import UnsupportedVolumeError, known
from bench.remote.engines import ZARR_CONCURRENCY, ZARR_WORKERS, Array, Engine, Zarr
from bench.writers import CHANNEL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


def h5py(url: str) -> Engine:
    """h5py over a file of fsspec."""
    import fsspec

    system = fsspec.filesystem("http")
    return _over_file(
        lambda path: system.open(f"{url}/{path}"), ("fsspec", "aiohttp"), "h5py.File of fsspec's HTTP file, defaults"
    )


def remfile(url: str) -> Engine:
    """h5py over a file of remfile."""
    from remfile import File

    return _over_file(lambda path: File(f"{url}/{path}"), ("remfile",), "h5py.File of remfile.File, defaults")


def _over_file(open_file: Callable[[str], Any], packages: tuple[str, ...], configuration: str) -> Engine:
    """h5py over what looks like a file."""
    import h5py

    from bench.engines.h5py import Handle

    def open_volume(volume: RemoteVolume) -> Handle:
        known(volume.volume, "hdf5", "references")
        return Handle(h5py.File(open_file(f"{volume.folder}/{volume.volume.path.stem}.h5"), "r"))

    return Engine(
        {name: version(name) for name in ("h5py", *packages)},
        f"{configuration}; many boxes: one by one",
        "one request at a time",
        open_volume,
        _no_arrays,
        None,
    )


def zarr_kerchunk(url: str) -> Engine:
    """zarr-python over references of kerchunk."""
    import zarr
    from zarr.core.sync import sync

    from bench.engines.zarr import OVER_REFERENCES, open_references

    options = {"async.concurrency": ZARR_CONCURRENCY, "threading.max_workers": ZARR_WORKERS}
    zarr.config.set(options)
    return Engine(
        {name: version(name) for name in ("zarr", "fsspec", "aiohttp")},
        f"{OVER_REFERENCES}, {options}",
        "merges nothing; no reads of many boxes (asyncio.gather)",
        lambda volume: Zarr(open_references(volume.volume, f"{url}/{volume.folder}", "http"), sync),
        _no_arrays,
        None,
    )


def intern(url: str) -> Engine:
    """intern, the client of BossDB."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on how its documentation is spelt
        from intern.convenience.array import _BossDBVolumeProvider, array
        from intern.remote.boss import BossRemote
    protocol, _, host = url.partition("://")
    # Given only a URI it would look for the channel at api.bossdb.io.
    provider = _BossDBVolumeProvider(BossRemote({"protocol": protocol, "host": host, "token": "public"}))

    def open_volume(volume: RemoteVolume) -> _Intern:
        known(volume.volume, "bossdb")
        return _Intern(array(f"bossdb://{CHANNEL}", volume_provider=provider), volume.volume.shape)

    return Engine(
        {name: version(name) for name in ("intern", "blosc", "requests")},
        "intern.array(...)[...], defaults; many boxes: one by one",
        "up to 512 x 512 x 115 voxels are one cutout, larger boxes several, from a pool of processes for each call",
        open_volume,
        _no_arrays,
        None,
    )


class _Intern:
    def __init__(self, array: Any, shape: tuple[int, ...]) -> None:
        self._array = array
        self.shape = shape

    def read(self, box: Box) -> Array:
        # It drops axes of length one.
        return self._array[box.slices].reshape(box.shape)  # type: ignore[no-any-return]

    def read_many(self, boxes: Sequence[Box]) -> list[Array]:
        return [self.read(box) for box in boxes]


def _no_arrays(path: str) -> tuple[int, ...]:
    raise UnsupportedVolumeError(f"{path}: it knows no Zarr arrays without their volumes")
