"""Arrays of very many chunks that take little disk: a document, and shards that are indexes or links to one shard.

All are uint8, three axes, cubic chunks and shards, index at the end with crc32c. A shard has ``SIDE``^3 chunks.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs.checksum32 import CRC32C

from bench.volumes import CACHE, CACHE_VERSION

#: Chunks along an axis of a shard, and in it.
SIDE = 32
ENTRIES = SIDE**3
INDEX_NBYTES = 16 * ENTRIES + 4
MISSING = 2**64 - 1
FOLDER = CACHE / f"v{CACHE_VERSION}" / "limits"

_ZSTD = {"name": "zstd", "configuration": {"level": 3, "checksum": False}}
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}


def document(shape: Sequence[int], chunk: int, *, zstd: bool, side: int = SIDE) -> dict[str, Any]:
    """zarr.json; without ``side`` chunks in a shard (0) the array is not sharded."""
    codecs: list[dict[str, Any]] = [_BYTES, _ZSTD] if zstd else [_BYTES]
    if side:
        sharding = {"chunk_shape": [chunk] * 3, "codecs": codecs, "index_codecs": [_BYTES, {"name": "crc32c"}]}
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [chunk * (side or 1)] * 3}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 7,
        "codecs": codecs,
    }


def make(name: str, what: dict[str, Any], shards: Iterable[tuple[Sequence[int], bytes | Path]] = ()) -> Path:
    """Writes an array: shards by their cell, as bytes or as links. Returns its folder."""
    path = FOLDER / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    (path / "zarr.json").write_text(json.dumps(what))
    for cell, shard in shards:
        file = path.joinpath("c", *map(str, cell))
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(shard, Path):
            file.symlink_to(os.path.relpath(shard, file.parent))
        else:
            file.write_bytes(shard)
    return path


def index(pairs: np.ndarray[Any, Any]) -> bytes:
    """The index of (offset, nbytes) pairs in C order."""
    words = np.ascontiguousarray(pairs, "<u8").tobytes()
    return words + crc32c(words).to_bytes(4, "little")


def missing_shard() -> bytes:
    """A shard without a chunk."""
    return index(np.full((ENTRIES, 2), MISSING, "u8"))


def shard(chunk: int, order: np.ndarray[Any, Any]) -> bytes:
    """A shard of uncompressed chunks, ``order[k]`` (C order) the ``k``-th in the file; chunk n holds n mod 251."""
    pairs = np.empty((ENTRIES, 2), "u8")
    pairs[order, 0] = np.arange(ENTRIES) * chunk**3
    pairs[:, 1] = chunk**3
    return np.repeat((order % 251).astype("u1"), chunk**3).tobytes() + index(pairs)


def undecodable_shard(order: np.ndarray[Any, Any]) -> bytes:
    """The same with chunks of 20 to 83 zero bytes, for plans only."""
    pairs = np.empty((ENTRIES, 2), "u8")
    pairs[:, 1] = 20 + np.arange(ENTRIES) * 7919 % 64
    ends = np.cumsum(pairs[order, 1])
    pairs[order, 0] = ends - pairs[order, 1]
    return bytes(int(ends[-1])) + index(pairs)


def crc32c(data: bytes) -> int:
    """As the index codec stores it."""
    return int.from_bytes(bytes(CRC32C().encode(np.frombuffer(data, "u1")))[-4:], "little")


def morton() -> np.ndarray[Any, Any]:
    """Chunk numbers (C order) in Morton order, axis 0 lowest: as zarr-python writes them."""
    z, y, x = np.indices((SIDE,) * 3).reshape(3, -1)
    code = np.zeros(ENTRIES, "i8")
    for bit in range(SIDE.bit_length() - 1):
        for axis, coordinate in enumerate((z, y, x)):
            code |= ((coordinate >> bit) & 1) << (3 * bit + axis)
    return np.argsort(code)


def no_order() -> np.ndarray[Any, Any]:
    """Chunk numbers in an order that is none."""
    return np.random.default_rng(0).permutation(ENTRIES)
