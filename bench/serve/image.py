"""What is viewed: an OME-Zarr 0.5 image of several levels, each a sharded array in the layout of a volume."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bench.layouts import VOLUMES
from bench.serve.chunks import StoredChunks
from bench.serve.neuroglancer import Level
from bench.volumes import CACHE, CACHE_VERSION, build, in_axes, source_path
from bench.writers import WRITERS

if TYPE_CHECKING:
    from pathlib import Path

    from bench.volumes import Array, Size
    from bench.workloads import Box

#: Raise it when what is built here changes.
IMAGES_VERSION = 1
#: No level is made of one that is smaller than this, in voxels.
LEAST_EXTENT = 64
VOXEL_NM = 10.0


@dataclass(frozen=True)
class Image:
    """Where it lies, and what its chunks hold: finest level first."""

    path: Path
    levels: list[StoredChunks]

    @property
    def geometry(self) -> list[Level]:
        """As Neuroglancer sees it: axes x, y, z."""
        return [Level(level.shape[1:], level.chunk[1:], (2.0**number,) * 3) for number, level in enumerate(self.levels)]


def build_image(name: str, size: Size) -> Image:
    """The image whose first level is a volume (c, x, y, z); written when it is not in the cache."""
    folder = CACHE / f"v{CACHE_VERSION}" / size / f"serve{IMAGES_VERSION}" / name
    layout = VOLUMES[name][1]
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "truth").mkdir(parents=True)
        volume = build(name, size)
        (folder / "0").symlink_to(os.path.relpath(volume.path, folder))
        voxels, number = np.load(source_path(VOLUMES[name][0], size), mmap_mode="r"), 0
        while min(voxels.shape) >= 2 * LEAST_EXTENT:
            voxels, number = halved(voxels), number + 1
            np.save(folder / "truth" / f"{number}.npy", voxels)
            shown = in_axes(voxels, layout.axes)
            level = replace(layout, chunk=tuple(map(min, layout.chunk, shown.shape)))
            WRITERS[layout.writer, layout.format](folder / str(number), shown, level)
        (folder / "zarr.json").write_text(json.dumps(_group(number + 1)))
        (folder / "done").touch()
    volume = build(name, size)
    truths = [_Truth(folder / "truth" / f"{number}.npy", layout.axes) for number in range(1, _levels(folder))]
    coarser = [StoredChunks(folder / str(number), truth) for number, truth in enumerate(truths, 1)]
    return Image(folder, [StoredChunks(folder / "0", volume.truth), *coarser])


def _levels(folder: Path) -> int:
    """How many a stored image has."""
    return 1 + sum(1 for _ in (folder / "truth").iterdir())


@dataclass(frozen=True)
class _Truth:
    path: Path
    axes: str

    def __call__(self, box: Box) -> Array:
        return in_axes(np.load(self.path, mmap_mode="r"), self.axes)[box.slices]


def halved(voxels: Array) -> Array:
    """(z, y, x) of uint8 at half the resolution: means of 2^3; odd voxels at the ends are left out."""
    shape = tuple(n // 2 for n in voxels.shape)
    out = np.empty(shape, voxels.dtype)
    for z in range(shape[0]):
        pairs = voxels[2 * z : 2 * z + 2, : 2 * shape[1], : 2 * shape[2]].astype(np.uint16)
        out[z] = pairs.reshape(2, shape[1], 2, shape[2], 2).sum((0, 2, 4)) // 8
    return out


def _group(levels: int) -> dict[str, object]:
    space = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "xyz"]
    datasets: list[dict[str, object]] = []
    for number in range(levels):
        voxel_nm = VOXEL_NM * 2**number
        centre_nm = (voxel_nm - VOXEL_NM) / 2
        datasets.append(
            {
                "path": str(number),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1.0, *[voxel_nm] * 3]},
                    {"type": "translation", "translation": [0.0, *[centre_nm] * 3]},
                ],
            }
        )
    multiscale = {"name": "bench", "axes": [{"name": "c", "type": "channel"}, *space], "datasets": datasets}
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"ome": {"version": "0.5", "multiscales": [multiscale]}},
    }
