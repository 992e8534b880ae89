"""Parts of cuboids, boxes -> what to ask a BossDB server for; and the voxels of a reply -> those parts again. Pure.

A cuboid is what the server stores, 16 x 512 x 512 voxels. It is seen here as an object: blocks of 4 x 64 x 64 voxels,
one after the other in C order, those that hold voxels of the volume, and behind them the index of a shard of Zarr v3.
So any run of blocks can be asked for. A box that is wanted alone is an array of its own, whose chunks are pieces of it.
All boxes have the axes t, z, y, x and are half-open: [start, end) along each.
"""

from __future__ import annotations

import itertools
import math
import struct
from typing import TYPE_CHECKING, NamedTuple

from voxfetch import _core

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from typing_extensions import Buffer

__all__ = [
    "BLOCK",
    "CUBOID",
    "MAX_CUTOUT_NBYTES",
    "TABLE_NBYTES",
    "Box",
    "Cuboid",
    "Grid",
    "Run",
    "Volume",
    "around",
    "inside",
    "merged",
    "split",
    "voxels",
]

CUBOID = (1, 16, 512, 512)
"""Voxels of a cuboid of the server (t, z, y, x), counted from voxel 0."""
BLOCK = (1, 4, 64, 64)
"""Voxels of the smallest part of it that is asked for."""
MAX_CUTOUT_NBYTES = 16 << 20
"""Bytes of the largest cutout that is put together; the server refuses 500 MB."""

_GRID = tuple(whole // part for whole, part in zip(CUBOID, BLOCK, strict=True))
TABLE_NBYTES = 16 * math.prod(_GRID)
"""Bytes of the index of a cuboid."""
_MISSING = (1 << 64) - 1

Box = tuple[tuple[int, int], ...]
"""[start, end) along t, z, y and x."""
_Group = tuple[Box, list[Box]]


class Volume(NamedTuple):
    """One resolution of a channel: `path` is `collection/experiment/channel/resolution`, `box` all of its voxels."""

    path: str
    box: Box
    item_nbytes: int
    has_time: bool

    @property
    def block_nbytes(self) -> int:
        """Bytes of a block."""
        return math.prod(BLOCK) * self.item_nbytes

    def cuboid(self, cell: Sequence[int]) -> Cuboid:
        """Returns the cuboid in a cell (t, z, y, x) of the grid of cuboids."""
        axes = zip(self.box, BLOCK, cell, _GRID, strict=True)
        box = ((max(low // step, at * n), min(-(-high // step), at * n + n)) for (low, high), step, at, n in axes)
        return Cuboid(tuple((low, max(low, high)) for low, high in box), self.block_nbytes)

    def grid(self, box: Box) -> Grid:
        """Returns the pieces of a box, each at most a cutout; between two cuboids where the box is cut."""
        most = MAX_CUTOUT_NBYTES // self.item_nbytes
        start, shape = [low for low, _ in box], [high - low for low, high in box]
        for axis, cuboid in enumerate(CUBOID):
            fit = most * shape[axis] // max(math.prod(shape), 1)
            # Less than a cuboid along an axis only where all others are cut already.
            step = min(cuboid, max(fit, 1)) if axis == len(shape) - 1 else cuboid
            extent = max(fit - fit % step, step)
            if extent < shape[axis]:
                shape[axis] = extent
                start[axis] -= start[axis] % step
        return Grid(tuple(start), tuple(shape))

    def key(self, voxels: Box) -> str:
        """Returns the key of a cutout: its place below the service `cutout`, which counts x first."""
        times, *space = (f"{low}:{high}" for low, high in voxels)
        return "/".join([self.path, *reversed(space), *([times] if self.has_time else [])])

    def keyed(self, key: str) -> Box:
        """Returns the voxels of a key that `key` made."""
        ends = [part.split(":") for part in key.removeprefix(self.path + "/").split("/")]
        x, y, z, *times = [(int(low), int(high)) for low, high in ends]
        return (times[0] if times else (0, 1), z, y, x)


class Grid(NamedTuple):
    """Pieces of `shape`, the first of which begins at voxel `start`."""

    start: tuple[int, ...]
    shape: tuple[int, ...]

    def piece(self, cell: Sequence[int]) -> Box:
        """Returns the voxels of the piece in a cell (t, z, y, x)."""
        axes = zip(self.start, self.shape, cell, strict=True)
        return tuple((first + at * step, first + (at + 1) * step) for first, step, at in axes)


class Run(NamedTuple):
    """Bytes of a cuboid, and the blocks that they are of: `skip` bytes of `box` come before."""

    box: Box
    skip: int
    nbytes: int


class Cuboid(NamedTuple):
    """A cuboid as an object: `box` are the blocks in it, counted from voxel 0."""

    box: Box
    block_nbytes: int

    @property
    def data_nbytes(self) -> int:
        """Bytes of all blocks, behind which the index begins."""
        return math.prod(self._shape) * self.block_nbytes

    @property
    def table(self) -> bytes:
        """Offset and size of each block of the grid, as `sharding_indexed` has them."""
        axes = (range(low % n, low % n + high - low) for (low, high), n in zip(self.box, _GRID, strict=True))
        numbers = {place: number for number, place in enumerate(itertools.product(*axes))}
        entries: list[bytes] = []
        for place in itertools.product(*map(range, _GRID)):
            number = numbers.get(place)
            pair = (_MISSING, _MISSING) if number is None else (number * self.block_nbytes, self.block_nbytes)
            entries.append(struct.pack("<QQ", *pair))
        return b"".join(entries)

    def run(self, start: int, end: int) -> Run:
        """Returns bytes [start, end) of the blocks, of which there is at least one."""
        first, last = self._place(start // self.block_nbytes), self._place((end - 1) // self.block_nbytes)
        box: list[tuple[int, int]] = []
        before = 0
        for axis, (low, high) in enumerate(self.box):
            # Behind the first axis along which there are several all are needed, as the order is C.
            one = (low, high) if first[:axis] != last[:axis] else (low + first[axis], low + last[axis] + 1)
            before = before * (high - low) + one[0] - low
            box.append(one)
        return Run(tuple(box), start - before * self.block_nbytes, end - start)

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(high - low for low, high in self.box)

    def _place(self, block: int) -> tuple[int, ...]:
        """Where the block of a number lies among those in the cuboid."""
        found: list[int] = []
        for number in reversed(self._shape):
            block, at = divmod(block, number)
            found.append(at)
        return tuple(reversed(found))


def merged(boxes: Iterable[Box], most: int) -> list[list[Box]]:
    """Returns the boxes of voxels in groups, each of which fills a box of at most `most`.

    Those of one cuboid come together first, so that the server reads few cuboids twice.
    """
    groups = [(box, [box]) for box in dict.fromkeys(boxes)]
    for axes, inside in (((3, 2, 1), True), ((3, 2, 1, 0), False)):
        for axis in axes:
            groups = _merged_along(axis, groups, most, inside_cuboids=inside)
    return [members for _, members in groups]


def around(boxes: Sequence[Box]) -> Box:
    """Returns the box that a group of `merged` fills."""
    axes = zip(*boxes, strict=True)
    return tuple((min(low for low, _ in axis), max(high for _, high in axis)) for axis in axes)


def voxels(blocks: Box) -> Box:
    """Returns the voxels of a box of blocks."""
    return tuple((low * step, high * step) for (low, high), step in zip(blocks, BLOCK, strict=True))


def inside(box: Box, whole: Box) -> Box:
    """Returns what of a box lies in another; an axis of which nothing does ends where it starts."""
    axes = zip(box, whole, strict=True)
    found = ((max(low, first), min(high, last)) for (low, high), (first, last) in axes)
    return tuple((low, max(low, high)) for low, high in found)


def split(
    encoded: Buffer, item_nbytes: int, cutout: Box, block: Sequence[int], boxes: Sequence[Box]
) -> Sequence[Buffer]:
    """Returns the bytes of each of `boxes`, block by block in C order, out of the cutout of the voxels `cutout`.

    `block` is the shape of a block, of which each box has a whole number. What lies outside of the cutout is zero.
    Raises `CodecError`, `LimitExceededError`.
    """
    return _core.decode_cutout(encoded, item_nbytes=item_nbytes, voxels=cutout, block=block, boxes=boxes)


def _merged_along(axis: int, groups: list[_Group], most: int, *, inside_cuboids: bool) -> list[_Group]:
    """Puts together what touches along an axis and is alike along the others."""

    def others(box: Box) -> Box:
        return (*box[:axis], *box[axis + 1 :])

    result: list[_Group] = []
    for box, members in sorted(groups, key=lambda group: (others(group[0]), group[0][axis])):
        if result:
            last, before = result[-1]
            joined = around([last, box])
            touches = others(last) == others(box) and last[axis][1] == box[axis][0]
            fits = math.prod(high - low for low, high in joined) <= most
            is_one = not inside_cuboids or last[axis][0] // CUBOID[axis] == box[axis][0] // CUBOID[axis]
            if touches and fits and is_one:
                result[-1] = joined, [*before, *members]
                continue
        result.append((box, members))
    return result
