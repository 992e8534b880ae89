"""What Neuroglancer asks for: a model of its sliceview/base.ts (``filterVisibleSources`` and
``forEachPlaneIntersectingVolumetricChunk``), sliceview/backend.ts (priorities) and its Zarr driver, of version 2.41.

Pure functions of a view: which chunks of which levels, in which order. ``browser.py`` compares them with what a real
one asks for. Axes are x, y, z; rotated views and motion, which makes it read ahead, are not modelled.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Shape = tuple[int, ...]
#: A level counts as fine enough a little before its voxels are as small as pixels.
PIXEL_MARGIN = 1.1
SAME_SIZE = 1.01
#: Added to the centre, in voxels, so that what lies on the border of chunks belongs to the upper one.
BIAS_VOXELS = 1e-4
#: Axis across -> axes to the right and down, of the three planes of the layout "4panel".
PLANES = {2: (0, 1), 1: (0, 2), 0: (2, 1)}


@dataclass(frozen=True)
class Level:
    """One level: its shape and its chunks in voxels, and the size of its voxels in those of the first level."""

    shape: Shape
    chunk: Shape
    voxel: tuple[float, ...]


@dataclass(frozen=True)
class View:
    """Three planes through a point. ``at``: in voxels of the first level, from the corner of the first voxel;
    ``pixels``: width and height of each plane on the screen; ``pixel``: voxels of the first level a pixel.
    """

    at: tuple[float, float, float]
    pixels: tuple[float, float]
    pixel: float = 1.0


@dataclass(frozen=True)
class Chunk:
    """A chunk of a level of the image, and its place in the grid of that, (x, y, z)."""

    level: int
    position: Shape


def chunks_of(view: View, levels: Sequence[Level]) -> list[Chunk]:
    """All chunks that a view needs, in the order in which they are asked for: the coarsest level first, and of each
    level what is next to the centre. ``levels``: the finest first.
    """
    wanted: list[Chunk] = []
    for number in levels_of(view, levels):
        level = levels[number]
        at = tuple(a / voxel for a, voxel in zip(view.at, level.voxel, strict=True))
        found = set(itertools.chain.from_iterable(_plane(view, level, at, across) for across in PLANES))
        corners = {position: tuple(p * c for p, c in zip(position, level.chunk, strict=True)) for position in found}
        wanted += [Chunk(number, position) for position in sorted(found, key=lambda p: (math.dist(at, corners[p]), p))]
    return wanted


def levels_of(view: View, levels: Sequence[Level]) -> list[int]:
    """The levels that are shown, from the coarsest to the one whose voxels are about as large as pixels."""
    target = view.pixel * PIXEL_MARGIN
    finest = levels[0].voxel
    shown: list[int] = []
    for number in reversed(range(len(levels))):
        voxel = levels[number].voxel
        if shown and not _improves(voxel, levels[shown[-1]].voxel, target):
            break
        shown.append(number)
        if not any(size > target and size > SAME_SIZE * least for size, least in zip(voxel, finest, strict=True)):
            break
    return shown


def _improves(voxel: Sequence[float], before: Sequence[float], target: float) -> bool:
    pairs = zip(voxel, before, strict=True)
    return any(abs(target - size) < abs(target - old) and size < SAME_SIZE * old for size, old in pairs)


def _plane(view: View, level: Level, at: Sequence[float], across: int) -> list[Shape]:
    """The chunks of a level that one plane meets."""
    half = [0.0, 0.0, 0.0]
    for axis, pixels in zip(PLANES[across], view.pixels, strict=True):
        half[axis] = pixels * view.pixel / 2 / level.voxel[axis]
    ranges: list[range] = []
    for axis, chunk in enumerate(level.chunk):
        centre = at[axis] + BIAS_VOXELS
        lower, upper = (centre - half[axis]) / chunk, (centre + half[axis]) / chunk
        last = -(-level.shape[axis] // chunk)
        ranges.append(range(max(0, math.floor(lower)), min(last, math.floor(upper) + 1)))
    return list(itertools.product(*ranges))
