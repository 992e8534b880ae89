"""N5 arrays written block by block, in forms that no library at hand writes: what the tests of N5 read.

Blocks are those of the specification: header and elements big-endian, the first axis fastest. `lz4` has the framing of
lz4-java, in which N5 for Java stores it.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import struct
import zlib
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np

LZ4_SEED = 0x9747B28C
RAW = {"type": "raw"}


def xxhash32(content: bytes, seed: int = 0) -> int:
    """XXH32 (xxHash specification 0.1.1)."""
    prime = (2654435761, 2246822519, 3266489917, 668265263, 374761393)
    mask = 0xFFFFFFFF

    def rotated(word: int, bits: int) -> int:
        return (word << bits | word >> (32 - bits)) & mask

    whole = len(content) // 16 * 16
    if whole:
        lanes = [seed + prime[0] + prime[1], seed + prime[1], seed, seed - prime[0]]
        for words in struct.iter_unpack("<4I", content[:whole]):
            pairs = zip(lanes, words, strict=True)
            lanes = [rotated(lane + word * prime[1] & mask, 13) * prime[0] & mask for lane, word in pairs]
        result = sum(rotated(lane & mask, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True))
    else:
        result = seed + prime[4]
    result += len(content)
    rest = content[whole:]
    for (word,) in struct.iter_unpack("<I", rest[: len(rest) // 4 * 4]):
        result = rotated(result + word * prime[2] & mask, 17) * prime[3]
    for byte in rest[len(rest) // 4 * 4 :]:
        result = rotated(result + byte * prime[4] & mask, 11) * prime[0]
    result &= mask
    result = (result ^ result >> 15) * prime[1] & mask
    result = (result ^ result >> 13) * prime[2] & mask
    return result ^ result >> 16


def lz4_java(content: bytes, block_nbytes: int = 100) -> bytes:
    """What lz4-java's LZ4BlockOutputStream writes: blocks, stored ones where that is shorter, and an empty one."""

    def framed(method: int, encoded: bytes, decoded: bytes, checksum: int) -> bytes:
        return b"LZ4Block" + struct.pack("<B3I", method, len(encoded), len(decoded), checksum) + encoded

    stream = b""
    for start in range(0, len(content), block_nbytes):
        decoded = content[start : start + block_nbytes]
        # numcodecs puts the size before the same raw block.
        encoded = numcodecs.LZ4().encode(decoded)[4:]
        stored = len(encoded) >= len(decoded)
        checksum = xxhash32(decoded, LZ4_SEED) & 0x0FFFFFFF
        stream += framed(0x10 if stored else 0x20, decoded if stored else encoded, decoded, checksum)
    return stream + framed(0x10, b"", b"", 0)


COMPRESSIONS: dict[str, tuple[dict[str, Any], Any]] = {
    "raw": (RAW, bytes),
    "gzip": ({"type": "gzip", "level": -1}, gzip.compress),
    "gzip members": (
        {"type": "gzip", "level": -1, "useZlib": False},
        lambda content: gzip.compress(content[:7]) + gzip.compress(content[7:]),
    ),
    "zlib": ({"type": "gzip", "level": 5, "useZlib": True}, zlib.compress),
    "bzip2": ({"type": "bzip2", "blockSize": 9}, bz2.compress),
    "xz": ({"type": "xz", "preset": 6}, lzma.compress),
    "lz4": ({"type": "lz4", "blockSize": 65536}, lz4_java),
    "zstd": ({"type": "zstd", "level": 3}, lambda content: bytes(numcodecs.Zstd().encode(content))),
    "zstandard": ({"type": "zstandard", "level": 3}, lambda content: bytes(numcodecs.Zstd().encode(content))),
    "blosc": (
        {"type": "blosc", "cname": "zstd", "clevel": 5, "shuffle": 1, "blocksize": 0, "nthreads": 1},
        lambda content: bytes(numcodecs.Blosc("zstd").encode(content)),
    ),
}


def encoded_block(block: np.ndarray, compression: str = "raw", *, mode: int = 0, count: int | None = None) -> bytes:
    """A stored block with axes in the order of `dimensions`; with `mode` 1 `count` is its number of elements."""
    elements = block.astype(block.dtype.newbyteorder(">")).tobytes(order="F")
    header = struct.pack(f">HH{block.ndim}I", mode, block.ndim, *block.shape)
    if mode == 1:
        header += struct.pack(">I", block.size if count is None else count)
    return header + COMPRESSIONS[compression][1](elements)


def put_document(folder: Path, array: np.ndarray, block_shape: tuple[int, ...], **members: Any) -> Path:
    """Writes the document of an array and returns the folder."""
    document = {
        "dimensions": list(array.shape),
        "blockSize": list(block_shape),
        "dataType": array.dtype.name,
        "compression": RAW,
        **members,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "attributes.json").write_text(
        json.dumps({name: value for name, value in document.items() if value != ...})
    )
    return folder


def put_block(folder: Path, grid: tuple[int, ...], stored: bytes) -> None:
    path = folder.joinpath(*map(str, grid))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stored)


def put_array(
    folder: Path,
    array: np.ndarray,
    block_shape: tuple[int, ...],
    compression: str = "raw",
    *,
    padded: tuple[tuple[int, ...], ...] = (),
    mode: int = 0,
    holes: tuple[tuple[int, ...], ...] = (),
    **members: Any,
) -> Path:
    """Writes an array as Java does, blocks at the ends as small as they are; those in `padded` are filled up with 77.

    Blocks in `holes` are not stored.
    """
    put_document(folder, array, block_shape, compression=COMPRESSIONS[compression][0], **members)
    for grid in np.ndindex(*(-(-n // b) for n, b in zip(array.shape, block_shape, strict=True))):
        if grid in holes:
            continue
        block = array[tuple(slice(g * b, (g + 1) * b) for g, b in zip(grid, block_shape, strict=True))]
        if grid in padded:
            missing = [(0, b - n) for n, b in zip(block.shape, block_shape, strict=True)]
            block = np.pad(block, missing, constant_values=77)
        put_block(folder, grid, encoded_block(block, compression, mode=mode))
    return folder
