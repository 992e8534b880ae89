"""Damaged stored objects and a fresh process to read them in; what the tests of hostile input share.

Shards here have (offset, size) entries as Zarr v3 `sharding_indexed` writes them: little-endian, crc32c at the end.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest

import voxfetch as vf

MISSING = 2**64 - 1
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
CRC32C = {"name": "crc32c"}


def codec(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}


def sharding(chunk: Sequence[int], codecs: Sequence[Any], **changes: Any) -> dict[str, Any]:
    configuration = {"chunk_shape": list(chunk), "codecs": list(codecs), "index_codecs": [BYTES, CRC32C]}
    return {"name": "sharding_indexed", "configuration": configuration | changes}


def document_v3(**changes: Any) -> dict[str, Any]:
    """A `zarr.json`: uint16 (8, 8), chunks (4, 4); `...` removes a member."""
    base = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [8, 8],
        "data_type": "uint16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 4]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [BYTES],
    }
    return {name: value for name, value in (base | changes).items() if value is not ...}


def document_v2(**changes: Any) -> dict[str, Any]:
    base = {
        "zarr_format": 2,
        "shape": [8, 8],
        "chunks": [4, 4],
        "dtype": "<u2",
        "compressor": None,
        "fill_value": 0,
        "order": "C",
        "filters": None,
    }
    return {name: value for name, value in (base | changes).items() if value is not ...}


def put_document(root: Path, document: Any, name: str = "zarr.json") -> Path:
    """Writes a document (bytes as they are, anything else as JSON) and returns the array's folder."""
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    return root


def put_chunk(root: Path, key: str, content: bytes) -> Path:
    path = root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def crc32c(content: bytes) -> bytes:
    return struct.pack("<I", google_crc32c.value(content))


def encode_index(entries: Sequence[tuple[int, int]]) -> bytes:
    words = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    return words + crc32c(words)


def shard_of(chunks: Sequence[bytes | None], *, start: bool = False) -> bytes:
    """A shard of these encoded chunks, laid end to end."""
    at = 16 * len(chunks) + 4 if start else 0
    entries: list[tuple[int, int]] = []
    for chunk in chunks:
        entries.append((MISSING, MISSING) if chunk is None else (at, len(chunk)))
        at += len(chunk or b"")
    data = b"".join(chunk or b"" for chunk in chunks)
    return encode_index(entries) + data if start else data + encode_index(entries)


def flips(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The content with one bit flipped, for every byte of it."""
    for at in range(len(content)):
        mutant = bytearray(content)
        mutant[at] ^= 1 << (at * 5 + 3) % 8
        yield at, bytes(mutant)


def refused(call: Any, kinds: type | tuple[type, ...], *parts: str, seconds: float = 5.0) -> vf.VoxfetchError:
    """Calls, expects one of these errors in time, and that its text names `parts`; returns it.

    The text is short and speaks of no bug: a panic, were there one, would arrive as `InternalError`.
    """
    started = time.perf_counter()
    with pytest.raises(vf.VoxfetchError) as caught:
        call()
    assert time.perf_counter() - started < seconds, "too slow"
    error = caught.value
    assert isinstance(error, kinds), f"{type(error).__name__}: {error}"
    assert not isinstance(error, vf.InternalError), str(error)
    text = str(error)
    assert len(text) < 2000
    assert "panic" not in text
    for part in parts:
        assert part in text, text
    return error


@dataclass(frozen=True)
class Ended:
    """What became of a read in a process of its own."""

    kind: str
    text: str
    seconds: float
    grown_nbytes: int


_CHILD = """
import json, resource, sys, time
import numpy as np
import numpy.ma  # np.unique wants it, when there may be no descriptor left
import voxfetch as vf

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))

def grown(call):
    vf.default_engine().stats()
    before, started = resident(), time.perf_counter()
    try:
        result = call()
        kind, text = "ok", str(np.unique(result)[:3]) if isinstance(result, np.ndarray) else repr(result)
    except vf.VoxfetchError as error:
        kind, text = type(error).__name__, str(error)
    print(json.dumps([kind, text, time.perf_counter() - started, resident() - before]))

path = sys.argv[1]
"""


def in_child(code: str, path: Path, *, timeout: float = 50) -> Ended:
    """Runs code that calls `grown(...)` once; a crash or a hang of the process fails the test."""
    command = [sys.executable, "-c", _CHILD + code, str(path)]
    environment = os.environ | {"RUST_BACKTRACE": "0"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=environment)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr[-3000:]}"
    return Ended(*json.loads(done.stdout.splitlines()[-1]))


def ramp(shape: Sequence[int] = (8, 8), dtype: Any = "<u2") -> np.ndarray:
    """Voxels that are all different and nowhere zero."""
    return (np.arange(np.prod(shape), dtype=np.int64) * 37 + 11).astype(dtype).reshape(shape)


def blocks(voxels: np.ndarray, chunk: Sequence[int]) -> list[bytes]:
    """The bytes of each chunk, in C order over the grid."""
    grid = np.ndindex(*(extent // one for extent, one in zip(voxels.shape, chunk, strict=True)))
    places = [tuple(slice(g * one, (g + 1) * one) for g, one in zip(cell, chunk, strict=True)) for cell in grid]
    return [np.ascontiguousarray(voxels[place]).tobytes() for place in places]
