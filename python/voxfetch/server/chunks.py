"""`Chunks`: the chunks of one shown array as bytes, as they are stored or encoded here.

Chunks pass as they are stored where the preset keeps voxels and axes and the codecs are those of the format shown
(`voxfetch.server.stored`); all others are read as boxes and encoded. The ETag of a chunk is a fingerprint of its bytes
and the name of what shows it.

Beyond a chunk of a remote store the next ones are read ahead, where there are shards those of the same one: its index
is known. They lie on ways along which chunks were asked for: a view grows from its middle, one that is moved grows at
an edge, and what lies off its plane is not fetched. Local files are not read ahead.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

import voxfetch as vf
from voxfetch.encoding import Encoder, fingerprint
from voxfetch.server.answers import Body

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from voxfetch.server.cache import ChunkCache
    from voxfetch.server.shown import ShownLevel

__all__ = ["Boxes", "Chunks", "Encoded", "Passed", "Source", "position_of"]

#: How long chunks are kept, in seconds: remote ones for as long as indexes are trusted; what was encoded from local
#: files for as long as a viewer needs to ask twice; local bytes that pass are cheaper read than kept.
_KEEP_REMOTE_S = 60.0
_KEEP_LOCAL_S = 5.0
#: Chunks that pass of no more voxels than this, in bytes, are read whatever else is held.
_SMALL_NBYTES = 256 << 10
#: Voxels of smaller chunks are encoded on the event loop: a thread would cost more.
_INLINE_NBYTES = 64 << 10
#: Chunks read ahead around one.
_MAX_AHEAD = 26
#: How far ahead, in chunks.
_STEPS_AHEAD = 2

_numbers = itertools.count()


class Source(Protocol):
    """Where the bytes of chunks come from."""

    #: Extent of a chunk and of the array in voxels, shown axis order.
    chunks: tuple[int, ...]
    shape: tuple[int, ...]
    level: ShownLevel
    #: Bytes pass as they are stored.
    passes: bool

    async def fetch(self, position: tuple[int, ...], cache: ChunkCache, *, ahead: bool) -> bytes | memoryview | None:
        """The bytes of a chunk of the grid; None when all of it is fill value, or none of it stored."""
        ...


class Passed:
    """Chunks as they are stored."""

    passes = True

    def __init__(self, level: ShownLevel) -> None:
        """`level` shows what is stored, chunk by chunk."""
        self.level = level
        self.chunks = level.source.chunks
        self.shape = level.shape
        self._arrays = _prioritized(level.source)

    async def fetch(self, position: tuple[int, ...], cache: ChunkCache, *, ahead: bool) -> memoryview | None:
        """The stored bytes. Raises what reading does."""
        del cache
        return await self._arrays[ahead].read_encoded_async(position)


class Boxes:
    """Chunks that are read as boxes, each of which a subclass makes bytes of."""

    passes = False

    def __init__(self, level: ShownLevel) -> None:
        """`level` is what is read."""
        self.level = level
        self.chunks = level.chunks
        self.shape = level.shape
        self._arrays = _prioritized(level.view)

    async def fetch(self, position: tuple[int, ...], cache: ChunkCache, *, ahead: bool) -> bytes | None:
        """Reads and encodes. Raises what reading does."""
        start = [at * extent for at, extent in zip(position, self.chunks, strict=True)]
        box, array = self.box(start), self._arrays[ahead]
        # As they are read, as they are shown, and encoded.
        async with cache.room.of(3 * math.prod(box) * array.dtype.itemsize):
            voxels = await array.read_box_async(start, box, bounds="fill")
            if voxels.nbytes <= _INLINE_NBYTES:
                return self.encoded(position, voxels)
            return await cache.in_thread(lambda: self.encoded(position, voxels))

    def box(self, start: Sequence[int]) -> tuple[int, ...]:
        """Extent of what is read for the chunk that begins at a voxel."""
        del start
        return self.chunks

    def encoded(self, position: tuple[int, ...], voxels: NDArray[Any]) -> bytes | None:
        """The bytes of a chunk, None for one that need not be there."""
        raise NotImplementedError


class Encoded(Boxes):
    """Chunks of Zarr, encoded as a document of v3 says."""

    def __init__(self, level: ShownLevel, document: bytes) -> None:
        """`document` describes an array without shards, of the chunks of `level`."""
        super().__init__(level)
        self._encoder = Encoder(document)

    def encoded(self, position: tuple[int, ...], voxels: NDArray[Any]) -> bytes | None:
        """The bytes of a chunk, None when all of it is the fill value."""
        return self._encoder.encode(position, np.asarray(self.level.cast(voxels), order="C"))


class Chunks:
    """The chunks of one array as one plane shows it."""

    def __init__(self, source: Source, cache: ChunkCache, *, tag: str, immutable: bool = False) -> None:
        """`tag` names plane and preset in ETags; `immutable`: what was read once is kept as long as there is room."""
        self.source = source
        self.grid = tuple(-(-extent // chunk) for extent, chunk in zip(source.shape, source.chunks, strict=True))
        self._cache = cache
        self._tag = tag
        self._number = next(_numbers)
        self._is_remote = _is_far(source.level.source)
        self._nbytes = math.prod(source.chunks) * source.level.dtype.itemsize
        keep_s = _KEEP_REMOTE_S if self._is_remote else 0.0 if source.passes else _KEEP_LOCAL_S
        self._keep_s = math.inf if immutable and keep_s else keep_s
        #: Extent of what is read ahead within.
        self._shards = source.level.view.shards or source.shape

    async def chunk(self, position: tuple[int, ...]) -> Body | None:
        """The chunk at a place of the grid, None when there is none. Raises what reading does.

        Costs nothing outside the grid. Work that nobody waits for any more is cancelled.
        """
        if len(position) != len(self.grid) or not all(0 <= at < n for at, n in zip(position, self.grid, strict=True)):
            return None
        if not self._keep_s:
            # Read anew for whoever asks: to share it would cost more.
            return await (self._fetch(position, ahead=False) if self._nbytes <= _SMALL_NBYTES else self._held(position))
        key = (self._number, position)
        found = self._cache.begin(key, lambda: self._fetch(position, ahead=False), self._keep_s)
        if self._is_remote:
            for near in itertools.islice(self._near(position), _MAX_AHEAD):
                self._cache.look_ahead(
                    (self._number, near), lambda near=near: self._fetch(near, ahead=True), self._keep_s, self._nbytes
                )
        return found if isinstance(found, Body) else await self._cache.landed(found)

    async def _fetch(self, position: tuple[int, ...], *, ahead: bool) -> Body | None:
        content = await self.source.fetch(position, self._cache, ahead=ahead)
        return None if content is None else Body(content, etag=f"{fingerprint(content)}-{self._tag}")

    async def _held(self, position: tuple[int, ...]) -> Body | None:
        """A chunk with the room that it takes until it is sent: who reads slowly holds it for long."""
        room = self._cache.unsent
        await room.take(self._nbytes)
        release = partial(room.give, self._nbytes)
        body = None
        try:
            body = await self._fetch(position, ahead=False)
        finally:
            if body is None:
                release()
        return None if body is None else replace(body, release=release)

    def _near(self, position: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """The next places, in the same shard, along the ways on which chunks were asked for up to this one."""
        ways = [(axis, step) for axis in range(len(position)) for step in (1, -1) if self._came(position, axis, step)]
        for far in range(1, _STEPS_AHEAD + 1):
            for axis, step in ways:
                at, near = position[axis], position[axis] + far * step
                extent, within = self.source.chunks[axis], self._shards[axis]
                if 0 <= near < self.grid[axis] and near * extent // within == at * extent // within:
                    yield (*position[:axis], near, *position[axis + 1 :])

    def _came(self, position: tuple[int, ...], axis: int, step: int) -> bool:
        """Whether the chunk before this one, on the way along an axis, was asked for."""
        before = (*position[:axis], position[axis] - step, *position[axis + 1 :])
        return self._cache.was_asked((self._number, before))


def _is_far(array: vf.Array) -> bool:
    """Whether an array lies behind a network: a file that is read like an object of a store does not."""
    return array.is_remote and not array.url.startswith("file:")


def position_of(parts: Sequence[str]) -> tuple[int, ...] | None:
    """Chunk coordinates as they stand in a key, None unless each is spelt in the one way there is."""
    if all(part.isascii() and part.isdecimal() and len(part) < 19 and str(int(part)) == part for part in parts):
        return tuple(map(int, parts))
    return None


def _prioritized(array: vf.Array) -> tuple[vf.Array, vf.Array]:
    """The array as it is read for somebody, with the options that it was opened with, and ahead."""
    return array, array.with_options(vf.ReadOptions(priority="bulk"))
