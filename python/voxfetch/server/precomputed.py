"""`/pc/`: any image or array with the axes x, y and z as a Neuroglancer precomputed volume; no shards, encoding raw.

| path below a source | what |
|-|-|
| `info` | the volume: one scale per level, called 0, 1, 2 |
| `0/0-64_0-64_0-64` | a chunk; half-open ranges of x, y and z, clipped at the end; 404 for one of zeros |

Below an image its label images are at `labels/NAME/...`, below a group its members. Chunks hold all channels, x fastest
and the channel slowest, little-endian. A fill value other than 0 is written out: the format has none.

Precomputed places voxels by their corners in whole voxels (`voxel_offset`): the corner of the first voxel of the finest
level counts from 0 where its centre is at 0, and a level that lies between whole voxels is moved to the nearest. Sizes
are in nanometres, as Neuroglancer wants; what has no unit of length is taken for nanometres. Types that the format
does not have are converted (`voxfetch.server.casts`).
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

import voxfetch as vf
from voxfetch.server.casts import shown_dtype
from voxfetch.server.chunks import Boxes, Chunks, position_of
from voxfetch.server.shown import MAX_CHUNK_VOXELS, capped
from voxfetch.server.units import nanometres
from voxfetch.server.views import ChunkPlane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from voxfetch.server.answers import Asked, Body
    from voxfetch.server.shown import ShownLevel
    from voxfetch.server.views import View

__all__ = ["PrecomputedPlane"]

_TYPES = frozenset({"uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32"})
_CHANNELS = ("c", "ch", "channel")
_NUMBER = "(0|-?[1-9][0-9]{0,17})"
_NAME = re.compile("_".join([f"{_NUMBER}-{_NUMBER}"] * 3))


class PrecomputedPlane(ChunkPlane):
    """The plane of precomputed volumes."""

    async def answer(self, asked: Asked) -> Body | None:
        """Returns the `info` or a chunk, None when there is no such thing.

        Raises `NotFoundError`, which says why, for what the format cannot hold, and other errors of voxfetch.
        """
        view, rest = await self._views.find(asked)
        if view.shown.kind == "group":
            return None
        if rest == ("info",):
            return await view.document("info", lambda: self._info(view))
        if len(rest) != 2 or (key := position_of(rest[:1])) is None or key[0] >= len(view.shown.levels):
            return None
        scale = self._scales(view)[key[0]]
        position = scale.position(rest[1])
        return None if position is None else await scale.chunks.chunk(position)

    def _scales(self, view: View) -> dict[int, _Scale]:
        if not view.levels:
            tag = f"pc.{view.shown.preset}.1"
            finest = view.shown.levels[0]
            made: dict[int, _Scale] = {}
            for number, level in enumerate(view.shown.levels):
                source = RawBoxes(_stacked(level))
                made[number] = _Scale(level, finest, Chunks(source, self.cache, tag=tag, immutable=self._immutable))
            view.levels = made
        return view.levels

    async def _info(self, view: View) -> dict[str, Any]:
        scales = self._scales(view)
        finest = scales[0].chunks.source
        dtype = finest.level.dtype
        is_segmentation = dtype.kind in "iu" and (view.shown.is_label or dtype == np.uint64)
        return {
            "@type": "neuroglancer_multiscale_volume",
            "type": "segmentation" if is_segmentation else "image",
            "data_type": dtype.name,
            "num_channels": math.prod(finest.shape[:-3]),
            "scales": [{"key": str(number), **scale.described()} for number, scale in scales.items()],
        }


class RawBoxes(Boxes):
    """Chunks of precomputed volumes: boxes (z, y, x), before them the channel if there is one, clipped at the end."""

    def __init__(self, level: ShownLevel) -> None:
        """`level` has these axes, in this order."""
        super().__init__(level)
        channels = level.shape[:-3]
        extents = capped(level.view.chunks[-3:], MAX_CHUNK_VOXELS // max(*channels, 1, 1))
        self.chunks = (*channels, *extents)

    def box(self, start: Sequence[int]) -> tuple[int, ...]:
        """Extent of the chunk that begins at a voxel."""
        parts = zip(start, self.chunks, self.shape, strict=True)
        return tuple(min(extent, end - first) for first, extent, end in parts)

    def encoded(self, position: tuple[int, ...], voxels: NDArray[Any]) -> bytes | None:
        """The voxels, little-endian; None when all are 0."""
        del position
        if not voxels.any():
            return None
        little = self.level.dtype.newbyteorder("<")
        return self.level.cast(voxels).astype(little, copy=False).tobytes()


class _Scale:
    """A level as `info` describes it, and its chunks. Vectors are in the order x, y, z."""

    def __init__(self, level: ShownLevel, finest: ShownLevel, chunks: Chunks) -> None:
        self.chunks = chunks
        self._resolution: list[float] = []
        self._offset: list[int] = []
        for axis in map(level.axes.index, "xyz"):
            size, finest_size = level.scale[axis] or 1.0, finest.scale[axis]
            resolution = abs(nanometres(size, level.unit[axis]))
            offset = (level.translation[axis] - size / 2 + finest_size / 2) / size
            if not (math.isfinite(resolution) and math.isfinite(offset)):
                raise vf.NotFoundError("a precomputed volume has sizes and places in nanometres, here too large")
            self._resolution.append(resolution)
            self._offset.append(round(offset))
        self._size = [*reversed(chunks.source.shape[-3:])]
        self._extent = [*reversed(chunks.source.chunks[-3:])]

    def described(self) -> dict[str, Any]:
        """The members of the scale in `info` but its key."""
        return {
            "size": self._size,
            "resolution": self._resolution,
            "voxel_offset": self._offset,
            "chunk_sizes": [self._extent],
            "encoding": "raw",
        }

    def position(self, name: str) -> tuple[int, ...] | None:
        """The place in the grid of a chunk by its name, None unless it is the name of a chunk of this grid."""
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        numbers = [int(text) for text in found.groups()]
        places: list[int] = []
        for axis, extent in enumerate(self._extent):
            begin, end = (number - self._offset[axis] for number in numbers[2 * axis : 2 * axis + 2])
            place, within = divmod(begin, extent)
            if within or not 0 <= begin < end or end != min(begin + extent, self._size[axis]):
                return None
            places.append(place)
        return (*(0 for _ in self.chunks.grid[:-3]), *reversed(places))


def _stacked(level: ShownLevel) -> ShownLevel:
    """The level with the axes channel (if any), z, y, x, in a type of the format.

    Raises `NotFoundError`, without a key as it is about what was asked for.
    """
    by_name = {("c" if name.lower() in _CHANNELS else name): axis for axis, name in enumerate(level.axes)}
    if set(by_name) - {"c"} != {"x", "y", "z"} or len(by_name) != len(level.axes):
        message = f"a precomputed volume has the axes x, y, z and perhaps channels, this has {', '.join(level.axes)}"
        raise vf.NotFoundError(message, hint="/z3/ and /z2/ have it")
    dtype = shown_dtype(level.dtype, "pc", is_label=level.is_label)
    if dtype.name not in _TYPES:
        message = f"a precomputed volume has no voxels of type {dtype}"
        raise vf.NotFoundError(message, hint="/z3/ and /z2/ have it")
    order = [by_name[name] for name in "czyx" if name in by_name]
    channels = math.prod(level.shape[axis] for axis in order[:-3])
    if not 0 < channels <= MAX_CHUNK_VOXELS:
        # A chunk holds them all.
        message = f"a precomputed volume has from 1 to {MAX_CHUNK_VOXELS:,} channels, this has {channels:,}"
        raise vf.NotFoundError(message, hint="/z3/ and /z2/ have it")
    return dataclasses.replace(
        level,
        view=level.view.with_axes([level.view.axes[axis] for axis in order]),
        axes=tuple(level.axes[axis] for axis in order),
        dtype=dtype,
        scale=tuple(level.scale[axis] for axis in order),
        translation=tuple(level.translation[axis] for axis in order),
        unit=tuple(level.unit[axis] for axis in order),
        is_stored=False,
    )
