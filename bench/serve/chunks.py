"""What is served: the chunks of a sharded Zarr v3 volume, read out of its shards without any library.

    stored = StoredChunks(volume)                       # every shard index is read
    stored.body(position)                               # bytes of a chunk, as they lie in the shard
    stored.check(position, body)                        # WrongAnswerError unless it is that, or holds the same voxels

A position is a place in the grid of chunks, in the axis order of the volume.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.worker import compare
from bench.workloads import Box

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.volumes import Array, Volume

Shape = tuple[int, ...]
ABSENT = 2**64 - 1
CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class Part:
    """Where a chunk lies: the key of its shard below the array, bytes ``start <= i < end``."""

    key: str
    start: int
    end: int


class StoredChunks:
    """The chunks of a volume: what is stored, and what they hold."""

    def __init__(self, path: Path, truth: Callable[[Box], Array]) -> None:
        """``path``: of the array; ``truth``: the voxels of a box."""
        document = json.loads((path / "zarr.json").read_bytes())
        sharding = document["codecs"][0]["configuration"]
        self.path = path
        self.shape: Shape = tuple(document["shape"])
        self.chunk: Shape = tuple(sharding["chunk_shape"])
        self.shard: Shape = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
        self.unsharded = document | {
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.chunk)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "codecs": sharding["codecs"],
            "attributes": {},
        }
        self._truth = truth
        self.parts = self._read_indexes()
        self._right: set[Shape] = set()
        self._decoded = Decoder(self.unsharded)

    @classmethod
    def of(cls, volume: Volume) -> StoredChunks:
        """Those of a volume of ``bench.volumes``."""
        return cls(volume.path, volume.truth)

    @property
    def chunk_bytes(self) -> int:
        """Of one chunk, decoded."""
        return math.prod(self.chunk) * np.dtype(self.unsharded["data_type"]).itemsize

    @property
    def index_bytes(self) -> int:
        """Of the index at the end of a shard."""
        return math.prod(s // c for s, c in zip(self.shard, self.chunk, strict=True)) * 16 + CHECKSUM_BYTES

    def key(self, position: Shape) -> str:
        """Of a chunk, where there are no shards."""
        return f"c/{'/'.join(map(str, position))}"

    def body(self, position: Shape) -> bytes:
        """The stored bytes."""
        part = self.parts[position]
        with (self.path / part.key).open("rb") as file:
            file.seek(part.start)
            return file.read(part.end - part.start)

    def box(self, position: Shape) -> Box:
        """The voxels of a chunk that are inside the volume."""
        start = tuple(p * c for p, c in zip(position, self.chunk, strict=True))
        return Box(start, tuple(min(c, n - s) for c, n, s in zip(self.chunk, self.shape, start, strict=True)))

    def check(self, position: Shape, body: bytes, decode: Callable[[Shape, bytes], Array] | None = None) -> None:
        """WrongAnswerError unless a body holds the voxels of its chunk. Without ``decode`` it is one of ``unsharded``.

        Bytes that were right once are not decoded again.
        """
        as_stored = decode is None and body == self.body(position)
        if as_stored and position in self._right:
            return
        box = self.box(position)
        voxels = (decode or self._decoded)(position, body)
        compare(voxels[tuple(slice(0, n) for n in box.shape)], self._truth, box, f"chunk {position}")
        if as_stored:
            self._right.add(position)

    def write(self, folder: Path) -> None:
        """The same chunks as files of an unsharded Zarr v3 array."""
        for position in self.parts:
            file = folder / self.key(position)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self.body(position))
        (folder / "zarr.json").write_text(json.dumps(self.unsharded))

    def _read_indexes(self) -> dict[Shape, Part]:
        parts: dict[Shape, Part] = {}
        inside = [s // c for s, c in zip(self.shard, self.chunk, strict=True)]
        grid = [range(-(-n // s)) for n, s in zip(self.shape, self.shard, strict=True)]
        for cell in itertools.product(*grid):
            key = f"c/{'/'.join(map(str, cell))}"
            with (self.path / key).open("rb") as file:
                file.seek(-self.index_bytes, 2)
                entries = parse_index(file.read())
            for place, (offset, length) in zip(itertools.product(*map(range, inside)), entries, strict=True):
                if offset != ABSENT:
                    position = tuple(c * n + p for c, n, p in zip(cell, inside, place, strict=True))
                    parts[position] = Part(key, offset, offset + length)
        return parts


def parse_index(index: bytes) -> list[tuple[int, int]]:
    """(offset, length) of each chunk of a shard, in C order; its index has no codecs but bytes and crc32c."""
    entries = np.frombuffer(index, "<u8", (len(index) - CHECKSUM_BYTES) // 8).reshape(-1, 2)
    return [(int(offset), int(length)) for offset, length in entries]


class Decoder:
    """Decodes bodies as an array's zarr.json says, by zarr-python."""

    def __init__(self, document: dict[str, Any]) -> None:
        import zarr
        from zarr.core.buffer.cpu import Buffer
        from zarr.storage import MemoryStore

        self._chunk = document["chunk_grid"]["configuration"]["chunk_shape"]
        alone = {"shape": self._chunk, "attributes": {}, "chunk_key_encoding": {"name": "default"}}
        self._stored: dict[str, Any] = {}
        self._buffer = Buffer.from_bytes
        self._stored["zarr.json"] = self._buffer(json.dumps(document | alone).encode())
        self._array: Any = zarr.open_array(MemoryStore(self._stored), mode="r")

    def __call__(self, position: Shape, body: bytes) -> Array:
        """The voxels of a whole chunk, with what an edge chunk has beyond the edge."""
        del position
        self._stored[f"c/{'/'.join('0' for _ in self._chunk)}"] = self._buffer(body)
        return np.asarray(self._array[...])
