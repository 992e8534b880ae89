"""What is read: volumes, built once into bench/.cache and kept.

A volume is a source (voxels, C order, axes z, y, x, kept as .npy: the truth every answer is compared with) stored in a
layout by a foreign writer, or the shards of another one, repeated by links. ``python -m bench build`` builds them ahead
of a run.

Sources: EM-like noise over a smooth background (zstd about 1.5x in 32^3 chunks), light microscopy with little light
(over 2x), labels of irregular cells (over 50x), and the real FIB-SEM volume of tests/data with its segmentation,
mirrored to the wanted size.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from bench.layouts import REPEATS, SUFFIXES, VOLUMES
from bench.workloads import Box
from bench.writers import WRITERS, Format, describe_dataset

ROOT = Path(__file__).parents[1]
CACHE = ROOT / "bench" / ".cache"
REAL_EM = ROOT / "tests" / "data" / "fib25" / "fib25.ome.zarr" / "0"
REAL_LABELS = REAL_EM.parent / "labels" / "groundtruth" / "0"

Size = Literal["small", "medium", "full"]
SIZES: tuple[Size, ...] = ("small", "medium", "full")
Shape3 = tuple[int, int, int]
Array = np.ndarray[Any, Any]

#: Part of the path of everything cached; raise it when a source or a layout changes.
CACHE_VERSION = 1
SLAB_VOXELS = 1 << 24


@dataclass(frozen=True)
class Volume:
    """A stored volume and its truth. Shapes are in voxels, in the order of ``axes``; shard is None when unsharded.

    Of a sharded precomputed volume the shard is the box whose chunks share a minishard index.
    """

    name: str
    path: Path
    source: Path
    format: Format
    axes: str
    shape: tuple[int, ...]
    dtype: str
    chunk: tuple[int, ...]
    shard: tuple[int, ...] | None
    layer: str | None
    writer: str
    stored_bytes: int
    what: str

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded volume."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def object_shape(self) -> tuple[int, ...]:
        """Voxels of one stored object: a shard, or a chunk where there are none."""
        return self.shard or self.chunk

    @property
    def period(self) -> tuple[int, ...]:
        """The shape, rounded up to whole shards: voxels after which an array of links to them repeats."""
        return tuple(-(-n // s) * s for n, s in zip(self.shape, self.object_shape, strict=True))

    def as_json(self) -> dict[str, Any]:
        """Plain values, for a worker or a report."""
        return asdict(self) | {"path": str(self.path), "source": str(self.source)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Volume:
        """The inverse of ``as_json``."""
        typed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**typed | {"path": Path(values["path"]), "source": Path(values["source"])})

    def truth(self, box: Box) -> Array:
        """The voxels of a box, from the source: a view of a mapped file, except where a box meets a repeated shard.

        Where the shards are links, the source is repeated: after whole shards, with the fill value in between.
        """
        voxels = in_axes(np.load(self.source, mmap_mode="r"), self.axes)
        if voxels.shape == self.shape:
            return voxels[box.slices]
        at: list[Array] = []
        for start, size, n, s in zip(box.start, box.shape, voxels.shape, self.object_shape, strict=True):
            at.append((start + np.arange(size)) % (-(-n // s) * s))
        if all(len(a) == a[-1] - a[0] + 1 and a[-1] < n for a, n in zip(at, voxels.shape, strict=True)):
            return voxels[tuple(slice(a[0], a[-1] + 1) for a in at)]
        out = np.zeros(box.shape, self.dtype)
        known = [np.flatnonzero(a < n) for a, n in zip(at, voxels.shape, strict=True)]
        out[np.ix_(*known)] = voxels[np.ix_(*(a[k] for a, k in zip(at, known, strict=True)))]
        return out


def in_axes(zyx: Array, axes: str) -> Array:
    """A view of a (z, y, x) array in the axis order of a layout; c becomes an axis of length one."""
    spatial = zyx.transpose(["zyx".index(a) for a in axes if a != "c"])
    return np.expand_dims(spatial, axes.index("c")) if "c" in axes else spatial


# Sources ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """Voxels by name: their shape at each size, and how slabs of planes (z0 <= z < z1) are made."""

    what: str
    dtype: str
    small: Shape3
    medium: Shape3
    full: Shape3
    prepare: Callable[[Shape3], Callable[[int, int], Array]]

    def shape(self, size: Size) -> Shape3:
        """(z, y, x) in voxels."""
        shape: Shape3 = getattr(self, size)
        return shape


class MissingSourceError(Exception):
    """Voxels that a source needs are not there; the message says which."""


def _smooth_field(rng: np.random.Generator, shape: Shape3, cell: int, amplitude: float) -> Callable[[int, int], Array]:
    """A random field, trilinear between nodes ``cell`` voxels apart: slabs (z1 - z0, y, x) of float32."""
    nodes = [n // cell + 2 for n in shape]
    values = rng.normal(0, amplitude, nodes).astype(np.float32)
    z_weights, y_weights, x_weights = (_weights(n, m, cell) for n, m in zip(shape, nodes, strict=True))
    planes = np.einsum("jb,kc,abc->ajk", y_weights, x_weights, values, optimize=True)

    def slab(z0: int, z1: int) -> Array:
        field: Array = np.tensordot(z_weights[z0:z1], planes, axes=1)
        return field

    return slab


def _weights(size: int, nodes: int, cell: int) -> Array:
    """Linear interpolation as a matrix (size, nodes)."""
    position = np.arange(size, dtype=np.float32) / cell
    left = position.astype(int)
    weights = np.zeros((size, nodes), np.float32)
    weights[np.arange(size), left] = 1 - (position - left)
    weights[np.arange(size), left + 1] = position - left
    return weights


def _em(shape: Shape3) -> Callable[[int, int], Array]:
    rng = np.random.default_rng(1)
    background = _smooth_field(rng, shape, cell=16, amplitude=18)
    normal = NormalDist(0, 5)
    noise_levels = 1 << 12
    noise = np.array([normal.inv_cdf((i + 0.5) / noise_levels) for i in range(noise_levels)], np.float32)

    def slab(z0: int, z1: int) -> Array:
        values = background(z0, z1)
        values += noise[rng.integers(0, noise_levels, values.shape, np.uint16)]
        values += 128
        voxels: Array = np.clip(values, 0, 255, out=values).astype(np.uint8)
        return voxels

    return slab


def _lm(shape: Shape3) -> Callable[[int, int], Array]:
    """Dark, with noise that grows with the light, and soft bright places."""
    rng = np.random.default_rng(3)
    light = _smooth_field(rng, shape, cell=24, amplitude=1.2)
    noise_levels = 1 << 12
    noise = np.array([NormalDist().inv_cdf((i + 0.5) / noise_levels) for i in range(noise_levels)], np.float32)

    def slab(z0: int, z1: int) -> Array:
        values = np.exp(2 + light(z0, z1))
        values += np.sqrt(values) * noise[rng.integers(0, noise_levels, values.shape, np.uint16)]
        values += 100
        voxels: Array = np.clip(values, 0, 65535, out=values).astype(np.uint16)
        return voxels

    return slab


def _labels(dtype: str) -> Callable[[Shape3], Callable[[int, int], Array]]:
    cell, warp_cell, warp = 54, 24, 9

    def prepare(shape: Shape3) -> Callable[[int, int], Array]:
        rng = np.random.default_rng(2)
        cells = [n // cell + 4 for n in shape]
        ids = rng.integers(1, 1 << 31, cells, np.int64).astype(dtype)
        warps = [_smooth_field(rng, shape, warp_cell, warp) for _ in shape]

        def slab(z0: int, z1: int) -> Array:
            axes = np.ogrid[z0:z1, 0 : shape[1], 0 : shape[2]]
            at = []
            for axis, field, n in zip(axes, warps, cells, strict=True):
                position = field(z0, z1)
                position += axis + cell
                position /= cell
                at.append(np.clip(position, 0, n - 1, out=position).astype(np.intp))
            labels: Array = ids[tuple(at)]
            return labels

        return slab

    return prepare


def _mirrored(path: Path) -> Callable[[Shape3], Callable[[int, int], Array]]:
    """A stored cube, continued by reflection at its faces."""

    def prepare(shape: Shape3) -> Callable[[int, int], Array]:
        import zarr

        if not (path / "zarr.json").exists():
            raise MissingSourceError(f"{path.relative_to(ROOT)} is not there")
        cube = np.asarray(zarr.open_array(str(path), mode="r")[...])
        at = []
        for n, period in zip(shape, cube.shape, strict=True):
            there_and_back = np.arange(n) % (2 * period)
            at.append(np.minimum(there_and_back, 2 * period - 1 - there_and_back))

        def slab(z0: int, z1: int) -> Array:
            mirrored: Array = cube[np.ix_(at[0][z0:z1], at[1], at[2])]
            return mirrored

        return slab

    return prepare


ODD = (150, 140, 130)  # small: every axis ends inside a chunk and a shard
SOURCES: dict[str, Source] = {
    "em": Source("synthetic EM", "uint8", ODD, (512, 512, 512), (1024, 1024, 1024), _em),
    "lm": Source("synthetic light microscopy", "uint16", ODD, (256, 512, 512), (512, 1024, 1024), _lm),
    "labels": Source("synthetic labels", "uint32", ODD, (256, 512, 512), (512, 512, 1024), _labels("uint32")),
    "labels64": Source("synthetic labels", "uint64", ODD, (256, 256, 512), (512, 512, 512), _labels("uint64")),
    "real_em": Source("real FIB-SEM, mirrored", "uint8", ODD, (500, 500, 500), (1000, 1000, 1000), _mirrored(REAL_EM)),
    "real_labels": Source(
        "real labels, mirrored", "uint64", ODD, (250, 500, 500), (500, 500, 500), _mirrored(REAL_LABELS)
    ),
}


def _slabs(shape: Shape3, step: int) -> Iterator[tuple[int, int]]:
    for z0 in range(0, shape[0], step):
        yield z0, min(z0 + step, shape[0])


def source_path(name: str, size: Size) -> Path:
    """The .npy of a source, made when it is not there. MissingSourceError where it cannot be."""
    path = CACHE / f"v{CACHE_VERSION}" / size / "sources" / f"{name}.npy"
    if path.exists():
        return path
    source = SOURCES[name]
    shape = source.shape(size)
    slab = source.prepare(shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    out = np.lib.format.open_memmap(partial, "w+", np.dtype(source.dtype), shape)  # type: ignore[no-untyped-call]
    for z0, z1 in _slabs(shape, max(1, SLAB_VOXELS // (shape[1] * shape[2]))):
        out[z0:z1] = slab(z0, z1)
    out.flush()
    del out
    partial.replace(path)
    return path


# Volumes ----------------------------------------------------------------------------------------------------------

#: WKW files are written whole: those of small volumes have this many voxels along an axis.
SMALL_WKW_FILE = 256


def build(name: str, size: Size) -> Volume:
    """The stored volume, written when it is not in the cache. MissingSourceError where its voxels are missing."""
    source_name, layout = VOLUMES[name]
    root = CACHE / f"v{CACHE_VERSION}" / size / name
    description = root / "volume.json"
    source = source_path(source_name, size)
    if description.exists():
        known = json.loads(description.read_text())
        return Volume.from_json(known | {"path": str(root / known["path"]), "source": str(source)})

    if layout.repeats:
        base = build(layout.repeats, size)
        return linked(name, root / "array", base, ((REPEATS - 1) * base.period[0] + base.shape[0], *base.shape[1:]))
    shutil.rmtree(root, ignore_errors=True)
    voxels = in_axes(np.load(source, mmap_mode="r"), layout.axes)
    layout = replace(layout, chunk=tuple(map(min, layout.chunk, voxels.shape)))
    if layout.format == "wkw" and size == "small":
        layout = replace(layout, shard=(1, *[SMALL_WKW_FILE] * 3))
    path = root / layout.layer / "1" if layout.layer else root / f"array{SUFFIXES.get(layout.format, '')}"
    root.mkdir(parents=True)
    WRITERS[layout.writer, layout.format](path, voxels, layout)
    if layout.layer:
        describe_dataset(root, voxels, layout)
    stored = [path, *path.rglob("*")]
    if layout.format == "references":
        stored.append(path.with_suffix(SUFFIXES["hdf5"]))
    volume = Volume(
        name=name,
        path=path,
        source=source,
        format=layout.format,
        axes=layout.axes,
        shape=voxels.shape,
        dtype=str(voxels.dtype),
        chunk=layout.chunk,
        shard=layout.shard,
        layer=layout.layer,
        writer=f"{layout.writer} {version(layout.writer)}",
        stored_bytes=sum(f.stat().st_size for f in stored if f.is_file()),
        what=f"{SOURCES[source_name].what}; {layout.what}",
    )
    description.write_text(json.dumps(volume.as_json() | {"path": str(path.relative_to(root))}, indent=1))
    return volume


def linked(name: str, path: Path, base: Volume, shape: tuple[int, ...]) -> Volume:
    """An array of links to the shards of ``base``, repeated along every axis to the end of ``shape``, in voxels.

    So it takes no disk, and little of the page cache.
    """
    if base.shard is None:
        raise ValueError(f"{base.name} has no shards")
    grid, base_grid = ([-(-n // s) for n, s in zip(v, base.shard, strict=True)] for v in (shape, base.shape))
    if not (path / "zarr.json").exists():
        shutil.rmtree(path, ignore_errors=True)
        for cell in itertools.product(*map(range, grid)):
            link = path.joinpath("c", *map(str, cell))
            link.parent.mkdir(parents=True, exist_ok=True)
            real = base.path.joinpath("c", *(str(i % n) for i, n in zip(cell, base_grid, strict=True)))
            link.symlink_to(os.path.relpath(real, link.parent))
        document = json.loads((base.path / "zarr.json").read_bytes())
        (path / "zarr.json").write_text(json.dumps(document | {"shape": shape}, indent=1))
    return replace(
        base, name=name, path=path, shape=shape, what=f"{math.prod(grid)} shards, links to those of {base.name}",
        stored_bytes=base.stored_bytes * math.prod(grid) // math.prod(base_grid),
    )  # fmt: skip
