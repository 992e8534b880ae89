"""zarr-python with its default pipeline, and with the Rust pipeline of zarrs-python (strict: no silent fallback)."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from bench.engines import Engine, known

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from bench.volumes import Volume
    from bench.workloads import Box


def load(variant: str) -> Engine:
    """variant: "default" or "zarrs"."""
    import zarr

    versions = {"zarr": version("zarr"), "numcodecs": version("numcodecs")}
    settings = "defaults; many boxes: asyncio.gather over the asynchronous array"
    if variant == "zarrs":
        import zarrs  # noqa: F401

        versions |= {"zarrs": version("zarrs")}
        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": True})
        settings = f"zarrs.ZarrsCodecPipeline, strict; {settings}"

    def open_volume(volume: Volume) -> _Handle:
        known(volume, "zarr3", "zarr", *(("zip",) if variant == "default" else ()))
        store = zarr.storage.ZipStore(volume.path, mode="r") if volume.format == "zip" else str(volume.path)
        return _Handle(zarr.open_array(store, mode="r"))

    return Engine(versions, settings, open_volume)


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
