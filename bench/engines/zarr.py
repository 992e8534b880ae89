"""zarr-python with its default pipeline, with another (strict: no silent fallback), and over references of kerchunk to
HDF5. A newer zarr-python is in an environment of its own.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from bench.engines import Engine, known
from bench.writers import DATASET, TEMPLATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from bench.volumes import Volume
    from bench.workloads import Box


#: Pipelines of codecs by the name of their variant.
PIPELINES = {
    "zarrs": "zarrs.ZarrsCodecPipeline",
    "voxfetch": "voxfetch.ZarrPipeline",
    "fused": "zarr.core.codec_pipeline.FusedCodecPipeline",
}


def load(variant: str) -> Engine:
    """variant: a name of `PIPELINES`, "default" or "kerchunk"; "new-" before it stands for a zarr after 3.1."""
    import zarr

    is_new = variant.startswith("new-")
    variant = variant.removeprefix("new-")
    if is_new and version("zarr").startswith(("3.0.", "3.1.")):
        raise ImportError(f"zarr {version('zarr')} is the old one; a newer one is expected in bench/.venv-zarr34")

    versions = {"zarr": version("zarr"), "numcodecs": version("numcodecs")}
    settings = "defaults; many boxes: asyncio.gather over the asynchronous array"
    if variant in PIPELINES:
        path = PIPELINES[variant]
        module = path.split(".", 1)[0]
        import_module(module)
        versions |= {module: version(module)}
        zarr.config.set({"codec_pipeline.path": path, "codec_pipeline.strict": True})
        settings = f"{path}, strict; {settings}"

    if variant == "kerchunk":
        versions |= {"fsspec": version("fsspec")}
        settings = f"{OVER_REFERENCES}; {settings}"

    def open_volume(volume: Volume) -> _Handle:
        if variant == "kerchunk":
            return _Handle(open_references(volume, str(volume.path.parent), "file"))
        known(volume, "zarr3", "zarr", *(("zip",) if variant == "default" else ()))
        store = zarr.storage.ZipStore(volume.path, mode="r") if volume.format == "zip" else str(volume.path)
        return _Handle(zarr.open_array(store, mode="r"))

    return Engine(versions, settings, open_volume)


OVER_REFERENCES = "FsspecStore over fsspec's ReferenceFileSystem"


def open_references(volume: Volume, folder: str, protocol: str) -> Any:
    """The array of zarr-python through the references at ``folder``, a path or URL, which lead to the file there."""
    import fsspec
    import zarr

    known(volume, "hdf5", "references")
    name = volume.path.stem
    system = fsspec.filesystem(
        "reference",
        fo=f"{folder}/{name}.json",
        template_overrides={TEMPLATE: f"{folder}/{name}.h5"},
        remote_protocol=protocol,
        remote_options={"asynchronous": True} if protocol == "http" else {},
        asynchronous=True,
        skip_instance_cache=True,
    )
    store = zarr.storage.FsspecStore(system, read_only=True)
    return zarr.open_array(store, path=DATASET, mode="r", zarr_format=2)


class _Handle:
    def __init__(self, array: Any) -> None:
        self._array = array

    def read(self, box: Box) -> np.ndarray[Any, Any]:
        return self._array[box.slices]  # type: ignore[no-any-return]

    def read_many(self, boxes: Sequence[Box]) -> Sequence[np.ndarray[Any, Any]]:
        array = self._array.async_array

        async def all_boxes() -> list[np.ndarray[Any, Any]]:
            return list(await asyncio.gather(*(array.getitem(box.slices) for box in boxes)))

        return asyncio.run(all_boxes())
