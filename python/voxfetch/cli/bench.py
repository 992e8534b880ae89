"""`voxfetch bench`: times the usual reads on the user's own data.

Random places with a fixed seed, one read after the other, each into a new array. The file cache of the system is
left as it is: a first run may measure the disk, a second one memory.
"""

from __future__ import annotations

import platform
import random
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import voxfetch as vf
from voxfetch.cli import text
from voxfetch.cli.read import open_array

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from voxfetch.cli.console import Console

#: Sides of the boxes and planes when the user gives none, in voxels.
_BOX_SIDE, _PLANE_SIDE = 64, 1024
_BATCH = 64
#: Axes that are stepped through, not cut: a box has one index of each.
_INDEX_AXES = ("t", "c")


@dataclass(frozen=True, slots=True)
class _Workload:
    """Boxes of one shape at random places; `batch` of them go into one call."""

    name: str
    shape: tuple[int, ...]
    batch: int = 1


@dataclass(frozen=True, slots=True)
class _Row:
    workload: _Workload
    nbytes: int
    seconds: Sequence[float]

    def quantile_s(self, share: float) -> float:
        """The time below which `share` of the calls lie."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def bench(args: argparse.Namespace, console: Console) -> int:
    """Runs each workload until `--count` calls or `--seconds` have passed."""
    array = open_array(args.source, args.level)
    workloads = list(_workloads(array, None if args.shape is None else text.parse_shape(args.shape)))
    rows: list[_Row] = []
    with console.progress("timing", len(workloads)) as progress:
        for workload in workloads:
            rows.append(_run(array, workload, args))
            progress.advance()
    console.result(
        {
            "source": text.without_secrets(args.source),
            "version": vf.__version__,
            "machine": platform.machine(),
            "seed": args.seed,
            "shape": list(array.shape),
            "dtype": str(array.dtype),
            "workloads": [
                {
                    "name": row.workload.name,
                    "shape": list(row.workload.shape),
                    "boxes_per_call": row.workload.batch,
                    "calls": len(row.seconds),
                    "nbytes": row.nbytes,
                    "mb_per_s": row.nbytes / max(sum(row.seconds), 1e-9) / 1e6,
                    "p50_ms": statistics.median(row.seconds) * 1e3,
                    "p99_ms": row.quantile_s(0.99) * 1e3,
                }
                for row in rows
            ],
        }
    )
    console.line(f"{text.plain(array.url)}: {text.extents(array.shape)} {array.dtype}, seed {args.seed}")
    console.table(
        ("workload", "box", "calls", "decoded", "p50", "p99"),
        [
            (
                row.workload.name,
                text.extents(row.workload.shape),
                str(len(row.seconds)),
                text.rate(row.nbytes, sum(row.seconds)),
                text.duration(statistics.median(row.seconds)),
                text.duration(row.quantile_s(0.99)),
            )
            for row in rows
        ],
    )
    return 0


def _workloads(array: vf.Array, box: tuple[int, ...] | None) -> Iterator[_Workload]:
    """Boxes and planes that fit into the array. `box` may leave out leading axes, which then have one voxel.

    Raises:
        UsageError: a box with more axes than the array, or an array without voxels.
    """
    if array.ndim == 0 or 0 in array.shape:
        raise text.UsageError("there are no voxels to read")
    cut = [i for i, name in enumerate(array.axes) if name not in _INDEX_AXES][-3:]
    if box is not None and len(box) > array.ndim:
        raise text.UsageError(f"--shape has {len(box)} axes, the array {array.ndim}")

    def within(side: Callable[[int], int]) -> tuple[int, ...]:
        return tuple(min(side(i), extent) for i, extent in enumerate(array.shape))

    if box is None:
        shape = within(lambda i: _BOX_SIDE if i in cut else 1)
    else:
        full = (1,) * (array.ndim - len(box)) + box
        shape = within(lambda i: full[i])
    yield _Workload("chunk", within(lambda i: array.chunks[i]))
    yield _Workload("box", shape)
    yield _Workload(f"{_BATCH} boxes", shape, batch=_BATCH)
    for flat in cut if len(cut) == 3 else ():
        names = "".join(array.axes[i] for i in cut if i != flat)
        sides = {i: _PLANE_SIDE for i in cut if i != flat}
        yield _Workload(f"plane {text.plain(names)}", within(lambda i, sides=sides: sides.get(i, 1)))


def _run(array: vf.Array, workload: _Workload, args: argparse.Namespace) -> _Row:
    # One stream of places a workload: what runs before it does not move its boxes.
    places = random.Random(f"{args.seed} {workload.name}")  # noqa: S311 - not for secrets
    grid = array.chunks if workload.name == "chunk" else (1,) * array.ndim
    seconds: list[float] = []
    nbytes = 0
    until = time.perf_counter() + args.seconds
    while len(seconds) < args.count and (not seconds or time.perf_counter() < until):
        starts = [_place(places, array.shape, workload.shape, grid) for _ in range(workload.batch)]
        started = time.perf_counter()
        if workload.batch == 1:
            data = array.read_box(starts[0], workload.shape)
        else:
            data = array.read_many(np.array(starts, np.int64), workload.shape)
        seconds.append(time.perf_counter() - started)
        nbytes += data.nbytes
    return _Row(workload, nbytes, seconds)


def _place(places: random.Random, extent: Sequence[int], shape: Sequence[int], grid: Sequence[int]) -> tuple[int, ...]:
    """A random start from which the box lies inside, on the grid."""
    sides = zip(extent, shape, grid, strict=True)
    return tuple(places.randrange((whole - side) // step + 1) * step for whole, side, step in sides)
