"""What is read over the network: volumes of ``bench.volumes``, arrays of very many shards that are links to theirs, and
images that are metadata only. Built into bench/.cache and kept.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bench.remote.workloads import LEVELS, WORKLOADS, samples_per_run
from bench.volumes import CACHE, CACHE_VERSION, Size, Volume, build, linked

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

Shape = tuple[int, ...]

#: The folder that the server serves.
SERVED = CACHE / f"v{CACHE_VERSION}"
#: Arrays of links, and the volume to whose shards they lead. Any other name is a volume, read as it is.
LINKED = {"em_cells": "em", "em_tiled": "em", "crops": "webknossos"}
#: Raise it when what is built here changes.
LINKS_VERSION = 1
LEVEL_0_SHAPE = (1024, 1024, 1024)


@dataclass(frozen=True)
class RemoteVolume:
    """An array on the server: ``base`` itself, with shards or without, or an array of links.

    The shards of the latter are those of ``base``, repeated along every axis to the end of its shape.
    """

    volume: Volume
    base: Volume

    @property
    def path(self) -> str:
        """Below the root of the server."""
        return self.volume.path.relative_to(SERVED).as_posix()

    @property
    def folder(self) -> str:
        """The folder that it lies in, below the root of the server."""
        return self.volume.path.parent.relative_to(SERVED).as_posix()

    @property
    def root(self) -> Path:
        """The folder of a volume of ``bench.volumes``, which has all that belongs to it."""
        return next(path for path in self.volume.path.parents if path.name == self.volume.name)

    @property
    def dataset(self) -> str:
        """The folder of the volume, or of its copy, below the root of the server: of WKW the dataset."""
        depth = len(self.base.path.relative_to(RemoteVolume(self.base, self.base).root).parts)
        return self.volume.path.parents[depth - 1].relative_to(SERVED).as_posix()

    def copy(self, number: int) -> RemoteVolume:
        """The same, by links, at a place that nobody has read before; ``number``: which of those that were made."""
        inside = self.base.path.relative_to(self.root)
        return replace(self, volume=replace(self.volume, path=copies(self.root) / str(number) / inside))

    def key(self, cell: Shape) -> str:
        """Where an object lies, below the root of the server; ``cell``: its place in the grid of objects."""
        if self.zarr_format == 2:
            return f"{self.path}/{'.'.join(map(str, cell))}"
        return f"{self.path}/c/{'/'.join(map(str, cell))}"

    @property
    def zarr_format(self) -> Literal[2, 3]:
        """Of its metadata and keys."""
        return 2 if self.volume.format == "zarr" else 3

    @property
    def period_bytes(self) -> int:
        """Decoded."""
        return math.prod(self.base.period) * np.dtype(self.volume.dtype).itemsize

    @property
    def filled(self) -> Shape:
        """How far the voxels of every object are those of ``base``; beyond that some hold the fill value."""
        ends = zip(self.base.shape, self.base.period, self.volume.object_shape, strict=True)
        return tuple(n - (period - s) for n, period, s in ends)

    @cached_property
    def cells(self) -> list[Shape]:
        """The first voxel of every object (a shard, or a chunk where there are none), in C order."""
        ends = zip(self.volume.shape, self.volume.object_shape, strict=True)
        return list(itertools.product(*(range(0, n, s) for n, s in ends)))

    def as_json(self) -> dict[str, Any]:
        """Plain values, for a worker."""
        return {"volume": self.volume.as_json(), "base": self.base.as_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RemoteVolume:
        """The inverse of ``as_json``."""
        return cls(Volume.from_json(values["volume"]), Volume.from_json(values["base"]))


def prepare(
    names: Collection[str], size: Size, *, repeat: int, crops: int, sustained_bytes: int, few: bool
) -> dict[str, RemoteVolume | Path]:
    """What the workloads of these names read, by the name of the volume: arrays, and the folder of "images"."""
    volumes: dict[str, RemoteVolume | Path] = {}
    for name in dict.fromkeys(WORKLOADS[n].volume for n in names):
        count = max(samples_per_run(w, few=few) for w in WORKLOADS.values() if w.volume == name)
        if name == "images":
            # Half of them for arrays, half for images: nothing is opened twice.
            volumes[name] = _images(size, 2 * count * (repeat + 1))
            continue
        base = build(LINKED.get(name, name), size)
        if name not in LINKED:
            volumes[name] = volume = RemoteVolume(base, base)
            if any(WORKLOADS[n].kind in ("cold", "first") and WORKLOADS[n].volume == name for n in names):
                _make_copies(volume, count * (repeat + 1))
            continue
        grid = [-(-n // s) for n, s in zip(base.shape, base.object_shape, strict=True)]
        if name == "crops":
            # Run 0 of a fresh process warms up with the first cells, run 1 reads others.
            side = math.ceil((2 * crops) ** (1 / 3))
            grid[-3:] = [side, side, math.ceil(2 * crops / side**2)]
        elif name == "em_cells":
            grid = [count * (repeat + 1), 1, 1]
        else:
            # The last block is for the run that is not measured.
            grid[0] *= 1 + max(1, math.ceil(sustained_bytes / RemoteVolume(base, base).period_bytes))
        volumes[name] = _linked(name, size, base, tuple(grid))
    return volumes


def copies(root: Path) -> Path:
    """The folder of the copies of the volume in the folder ``root``."""
    return root.parent / f"remote{LINKS_VERSION}" / "copies" / root.name


def _make_copies(volume: RemoteVolume, count: int) -> None:
    folder = copies(volume.root)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        if not (folder / str(number)).is_symlink():
            (folder / str(number)).symlink_to(os.path.relpath(volume.root, folder))


def stored_files(volumes: Iterable[RemoteVolume | Path]) -> list[Path]:
    """The real files behind them, to be read into the page cache."""
    paths = {v.base.path for v in volumes if isinstance(v, RemoteVolume)}
    bases = {path if path.is_dir() else path.parent for path in paths}  # references lead to the file beside them
    return sorted(file for base in bases for file in (base, *base.rglob("*")) if file.is_file())


def _folder(size: Size, name: str) -> Path:
    return SERVED / size / f"remote{LINKS_VERSION}" / name


def _linked(name: str, size: Size, base: Volume, grid: Shape) -> RemoteVolume:
    """An array of ``grid`` shards, links to those of ``base``."""
    shape = tuple(g * s for g, s in zip(grid, base.object_shape, strict=True))
    return RemoteVolume(linked(name, _folder(size, f"{name}-{'x'.join(map(str, grid))}"), base, shape), base)


def _images(size: Size, count: int) -> Path:
    """``count`` OME-Zarr 0.5 images of six levels, without a single chunk: folders 0, 1, ... of the folder returned."""
    folder = _folder(size, f"images-{count}")
    if (folder / "done").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    sharding = {
        "chunk_shape": [32] * 3,
        "codecs": [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 3, "checksum": False}}],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "index_location": "end",
    }
    for image, level in itertools.product(range(count), range(LEVELS)):
        array = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": level_shape(level),
            "data_type": "uint8",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [512] * 3}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "dimension_names": ["z", "y", "x"],
            "attributes": {},
        }
        path = folder / str(image) / str(level)
        path.mkdir(parents=True)
        (path / "zarr.json").write_text(json.dumps(array, indent=1))
    multiscale = {
        "name": "bench",
        "axes": [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"],
        "datasets": [
            {
                "path": str(level),
                "coordinateTransformations": [{"type": "scale", "scale": [10.0 * 2**level] * 3}],
            }
            for level in range(LEVELS)
        ],
    }
    group = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"ome": {"version": "0.5", "multiscales": [multiscale]}},
    }
    for image in range(count):
        (folder / str(image) / "zarr.json").write_text(json.dumps(group, indent=1))
    (folder / "done").touch()
    return folder


def level_shape(level: int) -> list[int]:
    """(z, y, x) in voxels, of a level of every image."""
    return [n >> level for n in LEVEL_0_SHAPE]
