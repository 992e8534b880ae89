"""What is read, and under which delays: each workload is a value, and ``plan`` turns it into boxes for one volume.

The boxes depend only on (seed, workload, volume, run), never on the engine: every engine reads the same ones.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bench.layouts import VOLUME_GROUPS, VOLUMES
from bench.workloads import FEW, PLANE_EXTENT_MAX, SPATIAL_AXES, Box

if TYPE_CHECKING:
    from bench.remote.volumes import RemoteVolume

#: Of the workload "rois".
READING_THREADS = 8


@dataclass(frozen=True)
class Remote:
    """One kind of read. ``extent``: of a box in voxels along (z, y, x), None is the whole axis.

    kind: "each" = ``count`` reads, one after the other, each a sample; "threads" = ``count`` reads from 8 threads, each
    thread its share one after the other, one sample; "many" = ``count`` boxes asked for at once, one sample; "array",
    "image" = ``count`` opened, each a sample; "sustained" = one block after the other, one sample; "cold" = ``count``
    reads, each a sample, each of a copy of the volume that was opened and never read; "first" = the same of a copy that
    was not opened before: one sample is opening and reading.

    place: "anywhere"; "chunk" = on the grid of chunks, and of "cold" and "first" one chunk; "shards" = each box in a
    shard that no read has touched before, "shard_chunks" = and on the grid of chunks. ``prime``: one voxel of each
    shard is read before a run, so that indexes are known to those that keep them. ``fresh``: a new process for each
    run, and its memory is measured.
    ``requests_at_most`` bounds what voxfetch may ask for in one sample, where that does not depend on the volume.
    """

    name: str
    what: str
    volume: str
    kind: Literal["each", "threads", "many", "array", "image", "sustained", "cold", "first"]
    extent: tuple[int | None, int | None, int | None] = (None, None, None)
    count: int = 1
    place: Literal["anywhere", "chunk", "shards", "shard_chunks"] = "anywhere"
    latency_ms: float = 20
    bandwidth_mb_s: float = 0
    prime: bool = False
    fresh: bool = False
    requests_at_most: int | None = None

    @property
    def measures_memory(self) -> bool:
        """Whether the peak of resident memory is of interest."""
        return self.fresh or self.kind == "sustained"


_BOX = (256, 256, 256)
_PLANE = (1, PLANE_EXTENT_MAX, PLANE_EXTENT_MAX)
_ROI = (48, 48, 48)
_CHUNK = (32, 32, 32)
_TILE = (1, 128, 128)
LEVELS = 6

_ON_ZARR: dict[str, Remote] = {
    w.name: w
    for w in (
        Remote("open_array", "open an array", "images", "array", count=5, requests_at_most=1),
        Remote("open_image", "open an image of 6 levels", "images", "image", count=5, requests_at_most=1 + LEVELS),
        Remote(
            "chunk_cold", "one 32^3 chunk of a shard never touched before", "em_cells", "each", _CHUNK, 10,
            "shard_chunks", requests_at_most=2,
        ),
        Remote(
            "chunk_known", "one 32^3 chunk, index read before", "em", "each", _CHUNK, 20, "chunk",
            prime=True, requests_at_most=1,
        ),
        Remote("box", "one 256^3 box, unaligned", "em", "each", _BOX, prime=True),
        Remote("box_100", "the same at 100 ms", "em", "each", _BOX, latency_ms=100, prime=True),
        Remote("box_50mb", "the same, 50 MB/s a connection", "em", "each", _BOX, bandwidth_mb_s=50, prime=True),
        Remote("xy", "one plane z = const, at most 1024^2", "em", "each", _PLANE, prime=True),
        Remote("rois", "300 boxes of 48^3, read one by one by 8 threads", "em", "threads", _ROI, 300, prime=True),
        Remote("rois_many", "300 boxes of 48^3 asked for at once", "em", "many", _ROI, 300, prime=True),
        Remote(
            "crops", "one 48^3 crop of each of many shards never touched before, asked for at once: WEBKNOSSOS layout, "
            "indexes of 512 KiB", "crops", "many", _ROI, 2000, "shards", fresh=True,
        ),
        Remote(
            "cubes", "one 48^3 box of chunks of 128^3 without shards, Zarr v2, blosc lz4", "cubes", "each", _ROI, 20,
            requests_at_most=16,
        ),
        Remote(
            "cubes_50mb", "the same, 50 MB/s a connection", "cubes", "each", _ROI, 20, bandwidth_mb_s=50,
            requests_at_most=16,
        ),
        Remote(
            "tiles", "one (1,128,128) box of chunks of one plane without shards, Zarr v2, blosc lz4", "tiles", "each",
            _TILE, 20, requests_at_most=8,
        ),
        Remote(
            "tiles_50mb", "the same, 50 MB/s a connection", "tiles", "each", _TILE, 20, bandwidth_mb_s=50,
            requests_at_most=8,
        ),
        Remote("sustained", "many GiB, one block of up to 1 GiB after the other", "em_tiled", "sustained"),
        Remote("sustained_50mb", "the same, 50 MB/s a connection", "em_tiled", "sustained", bandwidth_mb_s=50),
    )
}  # fmt: skip
#: What is read of each format beside Zarr, and the name of its workload.
FORMAT_READS = ("box128", "xy", "cold", "first")
#: Format -> requests of "first", read of these instead of "cold": some readers find chunks when they open, some later.
_OPENED_TOO = {"hdf5": 3, "references": 3, "b2nd": 3}
#: Without either: its server has one volume, of which there are no copies, and nothing of it is kept.
_EACH_READ_IS_COLD = ("bossdb",)


def _on_format(volume: str) -> tuple[Remote, ...]:
    """Of formats beside Zarr; indexes are read before, where there are any, but not in "cold"."""
    layout = VOLUMES[volume][1]
    prime = layout.shard is not None
    at_most = 1 if not prime else 3 if layout.format in ("precomputed", "zip") else 2
    each = (
        Remote(f"{volume}_box128", "one 128^3 box, unaligned", volume, "each", (128, 128, 128), 3, prime=prime),
        Remote(f"{volume}_xy", "one plane z = const, at most 1024^2", volume, "each", _PLANE, 3, prime=prime),
    )
    if layout.format in _EACH_READ_IS_COLD:
        return each
    if layout.format in _OPENED_TOO:
        last = Remote(
            f"{volume}_first", "open, and read one chunk: both are timed", volume, "first", count=3, place="chunk",
            requests_at_most=_OPENED_TOO[layout.format],
        )  # fmt: skip
    else:
        last = Remote(
            f"{volume}_cold", "one chunk of a volume opened and never read", volume, "cold", count=3, place="chunk",
            requests_at_most=at_most,
        )  # fmt: skip
    return (*each, last)


ON_FORMATS = {w.name: w for volume in VOLUME_GROUPS["formats"] for w in _on_format(volume)}
WORKLOADS: dict[str, Remote] = _ON_ZARR | ON_FORMATS
#: Names that stand for several workloads.
WORKLOAD_GROUPS = {"of_zarr": tuple(_ON_ZARR), "of_formats": tuple(ON_FORMATS)}


def samples_per_run(workload: Remote, *, few: bool) -> int:
    """How many things one run reads or opens; ``few`` is for tests."""
    return min(workload.count, FEW if workload.kind in ("threads", "many") else 2) if few else workload.count


def plan(workload: Remote, volume: RemoteVolume, run: int, *, count: int, seed: str) -> list[Box]:
    """The boxes of a run, in the axis order of the array; run 0 is the one that is not measured."""
    rng = random.Random(f"{seed}/{workload.name}/{run}/{volume.volume.axes}")
    axes, base = volume.volume.axes, volume.base.shape
    align = volume.volume.chunk if "chunk" in workload.place else (1,) * len(base)
    if workload.kind == "sustained":
        starts = range(0, volume.volume.shape[0], volume.base.period[0])
        blocks = [Box((start, *(0 for _ in base[1:])), volume.base.period) for start in starts]
        return blocks[:-1] if run else blocks[-1:]
    if workload.place not in ("shards", "shard_chunks"):
        extent = tuple(_extent(workload, a, n) for a, n in zip(axes, base, strict=True))
        if workload.kind in ("cold", "first"):
            extent = align
        return [Box(_start(rng, base, extent, align), extent) for _ in range(count)]
    if len(volume.cells) < count * (run + 1):
        raise ValueError(f"{workload.name}: {len(volume.cells)} shards are too few for {count} in run {run}")
    inside = volume.filled
    extent = tuple(_extent(workload, a, n) for a, n in zip(axes, inside, strict=True))
    boxes = []
    for cell in volume.cells[count * run : count * (run + 1)]:
        start = _start(rng, inside, extent, align)
        boxes.append(Box(tuple(c + s for c, s in zip(cell, start, strict=True)), extent))
    return boxes


def _extent(workload: Remote, axis: str, size: int) -> int:
    """Voxels of a box along one axis; cut to three quarters of a volume that is smaller than the box, except planes."""
    wanted = workload.extent[SPATIAL_AXES.index(axis)] if axis in SPATIAL_AXES else None
    if wanted is None or wanted == PLANE_EXTENT_MAX:
        return size if wanted is None else min(wanted, size)
    return min(wanted, max(1, size * 3 // 4))


def _start(
    rng: random.Random, shape: tuple[int, ...], extent: tuple[int, ...], align: tuple[int, ...]
) -> tuple[int, ...]:
    return tuple(rng.randrange((n - e) // a + 1) * a for n, e, a in zip(shape, extent, align, strict=True))
