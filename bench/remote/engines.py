"""Who reads from the server: one adapter a library, each in the way its documentation recommends for speed.

A library is imported when its adapter is loaded. Where it offers that, all arrays share one HTTP client. ``lacks`` says
what a library has no way to do and what it does instead; it is printed with the results.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import shutil
import threading
from dataclasses import dataclass
from importlib.metadata import version
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bench.engines import OWN, known
from bench.engines.tensorstore import spec_of
from bench.engines.voxfetch import opened
from bench.engines.zarr import PIPELINES
from bench.remote.places import Place
from bench.writers import CHANNEL

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from bench.remote.volumes import RemoteVolume
    from bench.workloads import Box

Array = np.ndarray[Any, Any]

#: Of tensorstore-best: room for 500 indexes of the volumes here, for one box, and for little of a volume.
CACHE_POOL_BYTES = 32 << 20
REQUEST_CONCURRENCY = 256
ZARR_CONCURRENCY = 128
ZARR_WORKERS = 4
ZARRS_PIPELINE = PIPELINES["zarrs"]
FUSED_PIPELINE = PIPELINES["fused"]


class Handle(Protocol):
    """One open array. Results are in the axis order of the stored array. ``read`` may be called from any thread."""

    shape: tuple[int, ...]

    def read(self, box: Box) -> Array:
        """One box into a new array."""
        ...

    def read_many(self, boxes: Sequence[Box]) -> Sequence[Array] | Array:
        """All boxes at once, the fastest way the library offers."""
        ...


@dataclass(frozen=True)
class Engine:
    """A library in one configuration.

    ``open`` takes a volume whose path may have been replaced, and gives a handle; ``open_image`` takes the path of an
    OME-Zarr image below the root of the server and gives the shapes of its levels. ``decodes`` is False for the floor,
    which returns nothing to be compared. ``prepare`` makes, before the clock runs, what is kept of a volume until it is
    opened: such an engine does only what opens volumes.
    """

    versions: dict[str, str]
    configuration: str
    lacks: str
    open: Callable[[RemoteVolume], Handle]
    open_array: Callable[[str], tuple[int, ...]]
    open_image: Callable[[str], list[tuple[int, ...]]] | None
    decodes: bool = True
    prepare: Callable[[RemoteVolume], object] | None = None


def load(name: str, url: str, bucket: str | None = None) -> Engine:
    """The engine of that name, for the server at ``url``, or for its folder ``bucket`` through S3.

    ImportError where its library is missing, UnsupportedVolumeError where it is not used through S3.
    """
    return ENGINES[name](Place(url, bucket))


class Loop:
    """An event loop on a thread of its own, for libraries that are asynchronous only."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result, awaited from any other thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _voxfetch(place: Place, cache_nbytes: int = 0) -> Engine:
    import voxfetch as vf

    options = _store_options(vf, place)
    engine = vf.Engine(chunk_cache_bytes=cache_nbytes) if cache_nbytes else None

    def open_volume(volume: RemoteVolume) -> _Voxfetch:
        if volume.volume.format == "wkw":  # the extent of a mag is in the properties of its dataset
            url, layer = place.url(volume.dataset), f"{volume.volume.layer}/1"
            return _Voxfetch(vf.open_array(url, layer, engine=engine, options=options))
        if volume.volume.format == "bossdb":
            return _Voxfetch(vf.open_array(f"bossdb://{place.http()}/{CHANNEL}", "0", engine=engine))
        return _Voxfetch(opened(vf, place.url(volume.path), volume.volume, engine=engine, options=options))

    cache = f", chunk_cache_bytes={cache_nbytes}" if cache_nbytes else ""
    store = "" if options is None else ", StoreOptions(anonymous=True, endpoint=...)"
    return Engine(
        {"voxfetch": version("voxfetch")},
        f"defaults{cache}{store}; at once: read_many",
        "-",
        open_volume,
        lambda path: vf.open_array(place.url(path), options=options).shape,
        lambda path: [level.shape for level in vf.open_image(place.url(path), options=options).levels],
    )


def _store_options(vf: Any, place: Place) -> Any:
    return None if place.bucket is None else vf.StoreOptions(anonymous=True, endpoint=place.endpoint)


def _voxfetch_tables(place: Place) -> Engine:
    import voxfetch as vf

    folder = mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tables = {"chunk_tables": folder}
    options = _store_options(vf, place)

    def open_volume(volume: RemoteVolume) -> _Voxfetch:
        known(volume.volume, "hdf5")
        return _Voxfetch(opened(vf, place.url(volume.path), volume.volume, options=options, format_options=tables))

    return Engine(
        {"voxfetch": version("voxfetch")},
        'defaults, and chunk tables kept: format_options={"chunk_tables": folder}, where each was put beforehand',
        "-",
        open_volume,
        lambda path: vf.open_array(place.url(path), options=options).shape,
        None,
        prepare=open_volume,
    )


class _Voxfetch:
    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape = array.shape

    def read(self, box: Box) -> Array:
        return self._array.read_box(box.start, box.shape)  # type: ignore[no-any-return]

    def read_many(self, boxes: Sequence[Box]) -> Array:
        return self._array.read_many([box.start for box in boxes], boxes[0].shape)  # type: ignore[no-any-return]


def _tensorstore(place: Place, *, best: bool) -> Engine:
    import tensorstore as ts

    settings: dict[str, Any] = {
        "cache_pool": {"total_bytes_limit": CACHE_POOL_BYTES},
        "data_copy_concurrency": {"limit": os.cpu_count() or 1},
        f"{'http' if place.bucket is None else 's3'}_request_concurrency": {"limit": REQUEST_CONCURRENCY},
    }
    recheck = {"recheck_cached_data": "open"} if best else {}
    context = ts.Context(settings if best else {})

    def opening(path: str, volume_format: str = "zarr3") -> Any:
        spec = spec_of(place.kvstore(path), volume_format, pool=best) | recheck
        return ts.open(spec, context=context, open=True, read=True)

    def open_image(path: str) -> list[tuple[int, ...]]:
        folder = spec_of(place.kvstore(path), "zarr3", pool=best)["kvstore"]
        group = json.loads(ts.KvStore.open(folder, context=context).result().read("zarr.json").result().value)
        levels = [opening(f"{path}/{name}") for name in level_paths(group)]
        return [tuple(level.result().shape) for level in levels]

    return Engine(
        {"tensorstore": version("tensorstore")},
        f"{settings}, {recheck}" if best else "default context",
        "merges only ranges that touch; no images, no reads of many boxes (futures of all); "
        + ("cache shared by indexes and decoded chunks" if best else "no cache: an index is read for every call"),
        lambda volume: _Tensorstore(opening(volume.path, volume.volume.format).result()),
        lambda path: tuple(opening(path).result().shape),
        open_image,
    )


class _Tensorstore:
    def __init__(self, store: Any) -> None:
        self._store = store
        self.shape = tuple(store.shape)

    def read(self, box: Box) -> Array:
        return self._store[box.slices].read().result()  # type: ignore[no-any-return]

    def read_many(self, boxes: Sequence[Box]) -> list[Array]:
        futures = [self._store[box.slices].read() for box in boxes]
        return [future.result() for future in futures]


def level_paths(group: dict[str, Any]) -> list[str]:
    """The paths of the levels, from the zarr.json of an OME-Zarr 0.5 image."""
    return [dataset["path"] for dataset in group["attributes"]["ome"]["multiscales"][0]["datasets"]]


def _zarr34(place: Place, pipeline: str | None = None) -> Engine:
    if version("zarr").startswith(("3.0.", "3.1.")):
        raise ImportError(f"zarr {version('zarr')} is the old one; a newer one is expected in bench/.venv-zarr34")
    return _zarr(place, obstore=True, pipeline=pipeline)


def _zarr(place: Place, *, obstore: bool, pipeline: str | None = None) -> Engine:
    import zarr
    from zarr.api.asynchronous import open_group
    from zarr.core.sync import sync

    versions = {"zarr": version("zarr")}
    settings = ["FsspecStore, defaults"]
    gap_bytes = zarr.config.get("array.sharding_coalesce_max_gap_bytes", None)
    lacks = "no cache of indexes, no images, no reads of many boxes (asyncio.gather); "
    lacks += f"merges across gaps of {gap_bytes} bytes" if gap_bytes else "chunk after chunk inside a shard"
    if pipeline is not None:
        zarr.config.set({"codec_pipeline.path": pipeline})
        settings += [pipeline]
    if pipeline == ZARRS_PIPELINE:
        import zarrs  # noqa: F401

        versions |= {"zarrs": version("zarrs")}
        zarr.config.set({"codec_pipeline.strict": True})
        settings += ["strict"]
        lacks += ", one HEAD before each GET"
    if pipeline == PIPELINES["voxfetch"]:
        versions |= {"voxfetch": version("voxfetch")}
        zarr.config.set({"codec_pipeline.strict": True})
        settings += ["strict"]
        lacks = "no images, no reads of many boxes (asyncio.gather)"
    if obstore:
        versions |= {"obstore": version("obstore")}
        options = {"async.concurrency": ZARR_CONCURRENCY, "threading.max_workers": ZARR_WORKERS}
        client = place.obstore_store()
        settings[0] = f"one ObjectStore of obstore's {type(client).__name__}, {options}"
        zarr.config.set(options)
        shared = zarr.storage.ObjectStore(client, read_only=True)
    else:
        versions |= {"aiohttp": version("aiohttp")}
        if place.bucket is not None:
            versions |= {"s3fs": version("s3fs")}

    def where(path: str, zarr_format: int = 3) -> dict[str, Any]:
        own = {"store": place.url(path), "storage_options": place.fsspec_options()}
        store = {"store": shared, "path": place.key(path)} if obstore else own
        return store | {"mode": "r", "zarr_format": zarr_format}

    async def open_levels(path: str) -> list[tuple[int, ...]]:
        group = await open_group(**where(path))
        names = level_paths({"attributes": dict(group.attrs)})
        return [level.shape for level in await asyncio.gather(*(group.getitem(name) for name in names))]

    return Engine(
        versions,
        "; ".join(settings),
        lacks,
        lambda volume: Zarr(zarr.open_array(**where(_zarr_path(volume), volume.zarr_format)), sync),
        lambda path: zarr.open_array(**where(path)).shape,
        lambda path: sync(open_levels(path)),
    )


class Zarr:
    """An array of zarr-python."""

    def __init__(self, array: Any, sync: Any) -> None:
        self._array = array
        self._sync = sync  # on zarr's own loop, to which the sessions of fsspec belong
        self.shape = array.shape

    def read(self, box: Box) -> Array:
        return self._array[box.slices]  # type: ignore[no-any-return]

    def read_many(self, boxes: Sequence[Box]) -> list[Array]:
        array = self._array.async_array

        async def all_boxes() -> list[Array]:
            return list(await asyncio.gather(*(array.getitem(box.slices) for box in boxes)))

        return self._sync(all_boxes())  # type: ignore[no-any-return]


def _zarrista(place: Place) -> Engine:
    import zarrista

    loop = Loop()
    store = place.obstore_store()

    async def open_array(path: str) -> Any:
        return await zarrista.AsyncArray.open(store, f"/{place.key(path)}")

    async def open_levels(path: str) -> list[tuple[int, ...]]:
        group = await zarrista.AsyncGroup.open(store, f"/{place.key(path)}")
        names = level_paths({"attributes": dict(group.attrs)})
        return [tuple(level.shape) for level in await asyncio.gather(*(open_array(f"{path}/{n}") for n in names))]

    return Engine(
        {"zarrista": version("zarrista"), "obstore": version("obstore")},
        f"AsyncArray over one {type(store).__name__} of obstore; one chunk: retrieve_subchunk with a kept shard_cache",
        "no index cache but for single chunks; one HEAD before each GET; merges nothing; asynchronous only: threads "
        "wait for one event loop; at once: asyncio.gather",
        lambda volume: _Zarrista(loop, loop.run(open_array(_zarr_path(volume))), volume.volume.chunk),
        lambda path: tuple(loop.run(open_array(path)).shape),
        lambda path: loop.run(open_levels(path)),
    )


class _Zarrista:
    def __init__(self, loop: Loop, array: Any, chunk: tuple[int, ...]) -> None:
        self._loop = loop
        self._array = array
        self._chunk = chunk
        self._cache = array.shard_cache()
        self.shape = tuple(array.shape)

    def read(self, box: Box) -> Array:
        if box.is_aligned_to(self._chunk):
            index = [s // c for s, c in zip(box.start, self._chunk, strict=True)]
            return self._loop.run(self._chunk_at(index))  # type: ignore[no-any-return]
        return self._loop.run(self._box(box))  # type: ignore[no-any-return]

    def read_many(self, boxes: Sequence[Box]) -> list[Array]:
        async def all_boxes() -> list[Array]:
            return list(await asyncio.gather(*map(self._box, boxes)))

        return self._loop.run(all_boxes())  # type: ignore[no-any-return]

    async def _chunk_at(self, index: list[int]) -> Array:
        return np.asarray(await self._array.retrieve_subchunk(index, shard_cache=self._cache))

    async def _box(self, box: Box) -> Array:
        return np.asarray(await self._array.retrieve_array_subset(box.slices))


def _zarr_path(volume: RemoteVolume) -> str:
    """UnsupportedVolumeError where it is no array of Zarr in a folder."""
    known(volume.volume, "zarr3", "zarr")
    return volume.path


def _format_engine(name: str) -> Callable[[Place], Engine]:
    def load_engine(place: Place) -> Engine:
        from bench.remote import formats

        engine: Engine = getattr(formats, name)(place.http())
        return engine

    return load_engine


def _obstore(place: Place) -> Engine:
    from bench.remote.fetch import load as load_fetch

    return load_fetch(place)


#: name -> loads it for a server. One with requirements of its own may have an environment,
#: bench/.venv-<name up to the first hyphen>.
ENGINES: dict[str, Callable[[Place], Engine]] = {
    OWN: _voxfetch,
    f"{OWN}-cache": lambda place: _voxfetch(place, CACHE_POOL_BYTES),
    f"{OWN}-tables": _voxfetch_tables,
    "tensorstore": lambda place: _tensorstore(place, best=False),
    "tensorstore-best": lambda place: _tensorstore(place, best=True),
    "zarr": lambda place: _zarr(place, obstore=False),
    "zarr-obstore": lambda place: _zarr(place, obstore=True),
    "zarr34": _zarr34,
    "zarr34-fused": lambda place: _zarr34(place, FUSED_PIPELINE),
    "zarrs": lambda place: _zarr(place, obstore=True, pipeline=ZARRS_PIPELINE),
    f"{OWN}-zarr": lambda place: _zarr(place, obstore=True, pipeline=PIPELINES["voxfetch"]),
    "zarrista": _zarrista,
    "obstore": _obstore,
    "webknossos": _format_engine("webknossos"),
    "cloudvolume": _format_engine("cloudvolume"),
    "h5py": _format_engine("h5py"),
    "remfile": _format_engine("remfile"),
    "zarr-kerchunk": _format_engine("zarr_kerchunk"),
    "intern": _format_engine("intern"),
}
_FOR_FORMATS = (
    f"{OWN}-cache",
    f"{OWN}-tables",
    "webknossos",
    "cloudvolume",
    "h5py",
    "remfile",
    "zarr-kerchunk",
    "intern",
)
#: Names that stand for several engines.
ENGINE_GROUPS = {
    "of_zarr": tuple(name for name in ENGINES if name not in (*_FOR_FORMATS, f"{OWN}-zarr")),
    "through_zarr": (f"{OWN}-zarr", "zarr", "zarr-obstore", "zarr34", "zarr34-fused", "zarrs"),
    "of_formats": (OWN, "tensorstore", "tensorstore-best", *_FOR_FORMATS),
}
#: Not readers: what the network and an HTTP client allow.
FLOORS = ("obstore",)
