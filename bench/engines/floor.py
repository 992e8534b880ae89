"""The floor: ``bench/floor/floor.c`` on one or two threads, decoding whole chunks or no more than is needed. Its index
is read at ``open``, its files stay open.

Knows zstd and uncompressed chunks, sharded or not, C order or transposed, missing chunks as zero: what the volumes of
the report need. blosc volumes have no floor.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import json
import math
import os
import resource
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.engines import Engine, UnsupportedVolumeError
from bench.volumes import CACHE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.volumes import Volume
    from bench.workloads import Box

SOURCE = Path(__file__).parents[1] / "floor" / "floor.c"
FLAGS = ("-O3", "-march=native", "-shared", "-fPIC", "-pthread")
LIBZSTD = ("-lzstd", "-l:libzstd.so.1")  # with and without the development package
MISSING = 2**64 - 1
NDIM = 3
ENTRY_BYTES = 16
CRC_BYTES = 4
CODEC_RAW, CODEC_ZSTD = 0, 1
VARIANTS = {"1": (1, False), "2": (2, False), "prefix": (2, True)}  # threads, prefix


class _CArray(ctypes.Structure):
    """``floor_array`` of floor.c."""

    _fields_ = (
        ("grid", ctypes.c_int64 * NDIM),
        ("chunk", ctypes.c_int64 * NDIM),
        ("stored_stride", ctypes.c_int64 * NDIM),
        ("itemsize", ctypes.c_int64),
        ("codec", ctypes.c_int64),
        ("prefix", ctypes.c_int64),
        ("max_size", ctypes.c_uint64),
        ("file", ctypes.c_void_p),
        ("offset", ctypes.c_void_p),
        ("size", ctypes.c_void_p),
    )


def load(variant: str) -> Engine:
    """variant: the number of threads, or "prefix": two threads that decode a chunk up to the last byte needed."""
    library = _build()
    threads, prefix = VARIANTS[variant]
    library.ZSTD_versionString.restype = ctypes.c_char_p
    zstd = library.ZSTD_versionString().decode()

    def open_volume(volume: Volume) -> _Handle:
        return _Handle(library, volume, threads, prefix=prefix)

    settings = f"pread + decode + scatter, index held, files open, nothing checked; threads: {threads}"
    settings += "; decodes up to the zstd block of the last byte needed" if prefix else ""
    return Engine({"libzstd": zstd}, settings, open_volume)


def _build() -> ctypes.CDLL:
    """floor.c compiled for this machine, once per content; ImportError where there is no compiler or no libzstd."""
    cc = os.environ.get("CC", "cc")
    digest = hashlib.sha256(SOURCE.read_bytes() + cc.encode()).hexdigest()[:12]
    library = CACHE / f"floor-{digest}.so"
    if not library.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = library.with_suffix(f".{os.getpid()}")
        errors = ""
        for libzstd in LIBZSTD:
            try:
                done = subprocess.run(
                    [cc, *FLAGS, str(SOURCE), "-o", str(partial), libzstd], capture_output=True, text=True, check=False
                )
            except OSError as error:
                raise ImportError(f"no C compiler: {error}") from error
            if done.returncode == 0:
                partial.replace(library)
                break
            errors += done.stderr
        else:
            raise ImportError(f"floor.c does not build (is libzstd installed?): {errors[-300:]}")
    return ctypes.CDLL(str(library))


class _Handle:
    def __init__(self, library: ctypes.CDLL, volume: Volume, threads: int, *, prefix: bool) -> None:
        self._library = library
        self._threads = threads
        self._dtype = np.dtype(volume.dtype)
        table = _ChunkTable(volume)
        # The last three axes are spatial; a leading channel axis has length one (checked by the table).
        self._keep = (table.file, table.offset, table.size)
        present = table.size[table.offset != MISSING]
        self._array = _CArray(
            grid=(ctypes.c_int64 * NDIM)(*table.grid[-NDIM:]),
            chunk=(ctypes.c_int64 * NDIM)(*volume.chunk[-NDIM:]),
            stored_stride=(ctypes.c_int64 * NDIM)(*table.stored_stride[-NDIM:]),
            itemsize=self._dtype.itemsize,
            codec=table.codec,
            prefix=prefix,
            max_size=int(present.max(initial=1)),
            file=table.file.ctypes.data,
            offset=table.offset.ctypes.data,
            size=table.size.ctypes.data,
        )

    def read(self, box: Box) -> np.ndarray[Any, Any]:
        out = np.empty(box.shape, self._dtype)
        self._read([box], out)
        return out

    def read_many(self, boxes: Sequence[Box]) -> np.ndarray[Any, Any]:
        out = np.empty((len(boxes), *boxes[0].shape), self._dtype)
        self._read(boxes, out)
        return out

    def read_into(self, box: Box, out: np.ndarray[Any, Any]) -> None:
        self._read([box], out)

    def _read(self, boxes: Sequence[Box], out: np.ndarray[Any, Any]) -> None:
        """``out``: C-contiguous, (boxes, *shape) or the shape of the only box."""
        starts = (ctypes.c_int64 * (NDIM * len(boxes)))(*itertools.chain(*(box.start[-NDIM:] for box in boxes)))
        shape = (ctypes.c_int64 * NDIM)(*boxes[0].shape[-NDIM:])
        count, data = ctypes.c_int64(len(boxes)), ctypes.c_void_p(out.ctypes.data)
        failed = self._library.floor_read_boxes(ctypes.byref(self._array), starts, count, shape, data, self._threads)
        if failed:
            raise OSError(f"the floor failed with {('a short read', 'a decode error', 'no memory')[failed - 1]}")


class _ChunkTable:
    """File, offset and size of every chunk, in C order of the chunk grid, from the metadata and the shard indexes."""

    def __init__(self, volume: Volume) -> None:
        if volume.format != "zarr3":
            raise UnsupportedVolumeError("the floor knows Zarr v3 only")
        document = json.loads((volume.path / "zarr.json").read_bytes())
        codecs = document["codecs"]
        if codecs[0]["name"] == "sharding_indexed":
            sharding = codecs[0]["configuration"]
            codecs = sharding["codecs"]
            index = [codec["name"] for codec in sharding["index_codecs"]], sharding.get("index_location", "end")
            if index != (["bytes", "crc32c"], "end"):
                raise UnsupportedVolumeError(f"the floor does not know the index {index}")
        names = [codec["name"] for codec in codecs]
        if set(names) - {"transpose", "bytes", "zstd"}:
            raise UnsupportedVolumeError(f"the floor does not know the codecs {names}")
        self.codec = CODEC_ZSTD if "zstd" in names else CODEC_RAW
        if math.prod(volume.shape[:-NDIM]) != 1 or len(volume.shape) < NDIM:
            raise UnsupportedVolumeError("the floor knows three dimensions, and channel axes of length one")
        self.stored_stride = _stored_stride(volume.chunk, codecs)
        self.grid = [-(-n // c) for n, c in zip(volume.shape, volume.chunk, strict=True)]
        self.file = np.full(self.grid, -1, np.int32)
        self.offset = np.full(self.grid, MISSING, np.uint64)
        self.size = np.zeros(self.grid, np.uint64)
        self._open_files(volume)

    def _open_files(self, volume: Volume) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        shard = volume.shard or volume.chunk
        chunks = [s // c for s, c in zip(shard, volume.chunk, strict=True)]
        for at in itertools.product(*(range(-(-n // s)) for n, s in zip(volume.shape, shard, strict=True))):
            path = volume.path.joinpath("c", *map(str, at))
            if not path.exists():
                continue
            fd = os.open(path, os.O_RDONLY)
            if volume.shard:
                count = math.prod(chunks)
                end = path.stat().st_size - CRC_BYTES
                tail = os.pread(fd, count * ENTRY_BYTES, end - count * ENTRY_BYTES)
                entries = np.frombuffer(tail, "<u8").reshape(*chunks, 2)
            else:
                entries = np.array([0, path.stat().st_size], np.uint64).reshape(*chunks, 2)
            cells = tuple(slice(a * n, (a + 1) * n) for a, n in zip(at, chunks, strict=True))
            inside = tuple(slice(0, n) for n in self.file[cells].shape)  # a shard may reach past the array
            self.file[cells] = fd
            self.offset[cells] = entries[..., 0][inside]
            self.size[cells] = entries[..., 1][inside]


def _stored_stride(chunk: tuple[int, ...], codecs: list[dict[str, Any]]) -> list[int]:
    """Voxels between neighbours along each axis of the array inside a decoded chunk."""
    order = list(range(len(chunk)))
    for codec in codecs:
        if codec["name"] == "transpose":
            order = codec["configuration"]["order"]
    stride = [0] * len(chunk)
    step = 1
    for axis in reversed(order):
        stride[axis] = step
        step *= chunk[axis]
    return stride
