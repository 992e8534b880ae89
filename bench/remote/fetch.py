"""The floor: obstore alone fetches the bytes of a read and decodes nothing.

Indexes are read by a suffix range and kept; chunks of all boxes are asked for in one wave of merged ranges; objects
that are needed whole are fetched whole, and so is every chunk without a shard. A reader with this client that decodes
as well is hardly faster, unless it fetches parts of such chunks.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.remote.engines import Array, Engine, Loop, level_paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.remote.places import Place
    from bench.remote.volumes import RemoteVolume
    from bench.workloads import Box

MAX_GAP_BYTES = 64 << 10
MAX_REQUEST_BYTES = 1 << 20
MAX_REQUESTS = 256
#: Objects that are fetched whole: their bodies are large, so few are needed to fill a connection.
MAX_WHOLE = 8
KEPT_INDEX_BYTES = 64 << 20
ENTRY_BYTES = 16
CRC_BYTES = 4
MISSING = 2**64 - 1


def load(place: Place) -> Engine:
    """For what is at that place."""
    import obstore

    loop = Loop()
    store = place.obstore_store()

    async def document(path: str) -> Any:
        reply = await obstore.get_async(store, f"{place.key(path)}/zarr.json")
        return json.loads(bytes(await reply.bytes_async()))

    async def shapes(path: str) -> list[tuple[int, ...]]:
        group = await document(path)
        levels = await asyncio.gather(*(document(f"{path}/{name}") for name in level_paths(group)))
        return [tuple(level["shape"]) for level in levels]

    return Engine(
        {"obstore": version("obstore")},
        f"gap {MAX_GAP_BYTES}, request {MAX_REQUEST_BYTES} bytes, {MAX_REQUESTS} in flight; whole objects: {MAX_WHOLE}",
        "not a reader: decodes nothing",
        lambda volume: _Fetch(obstore, store, loop, place, volume),
        lambda path: tuple(loop.run(document(path))["shape"]),
        lambda path: loop.run(shapes(path)),
        decodes=False,
    )


class _Fetch:
    def __init__(self, obstore: Any, store: Any, loop: Loop, place: Place, volume: RemoteVolume) -> None:
        self._obstore = obstore
        self._store = store
        self._loop = loop
        self._key = lambda shard: place.key(volume.key(shard))
        self._shard, self._chunk = volume.volume.object_shape, volume.volume.chunk
        self._chunks = tuple(s // c for s, c in zip(self._shard, self._chunk, strict=True))
        self._index: dict[tuple[int, ...], Array] = {}
        self._requests = asyncio.Semaphore(MAX_REQUESTS)
        self._whole = asyncio.Semaphore(MAX_WHOLE)
        self.shape = volume.volume.shape

    def read(self, box: Box) -> Array:
        return self.read_many([box])

    def read_many(self, boxes: Sequence[Box]) -> Array:
        """The number of bytes fetched."""
        return np.array([self._loop.run(self._fetch(boxes))])

    async def _fetch(self, boxes: Sequence[Box]) -> int:
        wanted: dict[tuple[int, ...], Array | None] = {}
        for box in boxes:
            for shard, chunks in self._shards(box):
                if chunks is None or wanted.get(shard, ()) is None:
                    wanted[shard] = None
                else:
                    mask = wanted.setdefault(shard, np.zeros(self._chunks, bool))
                    mask[chunks] = True
        return sum(await asyncio.gather(*(self._fetch_shard(shard, mask) for shard, mask in wanted.items())))

    def _shards(self, box: Box) -> Iterable[tuple[tuple[int, ...], tuple[slice, ...] | None]]:
        """Every shard that a box touches, with its chunks; None where it needs them all."""
        ends = [a + n for a, n in zip(box.start, box.shape, strict=True)]
        ranges = (range(a // s, -(-end // s)) for a, end, s in zip(box.start, ends, self._shard, strict=True))
        for shard in itertools.product(*ranges):
            chunks, whole = [], True
            for at, a, end, s, c in zip(shard, box.start, ends, self._shard, self._chunk, strict=True):
                first, last = max(a - at * s, 0) // c, -(-min(end - at * s, s) // c)
                chunks.append(slice(first, last))
                whole = whole and first == 0 and last == s // c
            yield shard, None if whole else tuple(chunks)

    async def _fetch_shard(self, shard: tuple[int, ...], mask: Array | None) -> int:
        key = self._key(shard)
        if mask is None:
            return await self._object(key)
        index = self._index.get(shard)
        if index is None:
            index = await self._read_index(key)
            if (len(self._index) + 1) * index.nbytes <= KEPT_INDEX_BYTES:
                self._index[shard] = index
        entries = index[mask]
        entries = entries[entries[:, 0] != MISSING]
        ranges = _merged(entries[np.argsort(entries[:, 0])].tolist())
        return sum(await asyncio.gather(*(self._range(key, start, end) for start, end in ranges)))

    async def _object(self, key: str) -> int:
        async with self._whole:
            try:
                reply = await self._obstore.get_async(self._store, key)
            except FileNotFoundError:
                return 0  # nothing but the fill value
            return len(await reply.bytes_async())

    async def _read_index(self, key: str) -> Array:
        suffix = math.prod(self._chunks) * ENTRY_BYTES + CRC_BYTES
        async with self._requests:
            reply = await self._obstore.get_async(self._store, key, options={"range": {"suffix": suffix}})
            body = bytes(await reply.bytes_async())
        return np.frombuffer(body[:-CRC_BYTES], "<u8").reshape(*self._chunks, 2)

    async def _range(self, key: str, start: int, end: int) -> int:
        async with self._requests:
            return len(await self._obstore.get_range_async(self._store, key, start=start, end=end))


def _merged(entries: list[list[int]]) -> list[tuple[int, int]]:
    """Sorted (offset, size) as half-open byte ranges, small gaps bridged."""
    ranges: list[tuple[int, int]] = []
    for offset, size in entries:
        end = offset + size
        if ranges and offset - ranges[-1][1] <= MAX_GAP_BYTES and end - ranges[-1][0] <= MAX_REQUEST_BYTES:
            ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
        else:
            ranges.append((offset, end))
    return ranges
