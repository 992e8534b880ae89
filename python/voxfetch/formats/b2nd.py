"""Arrays of Blosc2 NDim in one file, a contiguous frame of C-Blosc2 (`.b2nd`) -> nodes.

The file has a header, chunks, a Blosc 2 chunk with their offsets, and a trailer with attributes. The offsets become a
`ChunkTable`, the rest a Zarr v2 document whose filter `b2nd` says how blocks lie in a chunk. In a store that is far
this takes two requests, one for a small file and a third for very many chunks. Frames in folders (sparse), with chunks
of several sizes, or of codecs and filters of plugins are refused by name.

Source: C-Blosc2 `README_CFRAME_FORMAT`, `README_B2ND_METALAYER`; numbers of both are big-endian, offsets little-endian.
"""

from __future__ import annotations

import json
import math
import os
import struct
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from voxfetch import _core
from voxfetch.errors import (
    DataError,
    LimitExceededError,
    MetadataError,
    NotFoundError,
    ObjectChangedError,
    UnsupportedError,
    VoxfetchError,
)
from voxfetch.formats.msgpack import MAX_VALUES, Unpacker
from voxfetch.node import Node
from voxfetch.store import MAX_DOCUMENT_NBYTES, Ask
from voxfetch.store.local import LocalStore, regular_file
from voxfetch.table import MISSING, ChunkTable, FileVersion, ObjectVersion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from voxfetch.documents import RemoteDocuments
    from voxfetch.node import Settings

__all__ = ["COPY", "SPARSE", "find", "is_b2nd"]

_MAGIC = b"\xa8b2frame\0"
_METALAYERS_AT = 87
_TRAILER_END_NBYTES = 23
_CHUNK_HEADER_NBYTES = 32
_TAIL_NBYTES = 64 << 10
_HEAD_NBYTES = 16 << 10
_MAX_CHUNKS = 1 << 24
_ATTRIBUTES_NBYTES = 1 << 20
_MAX_AXES = 15
_MAX_DTYPE = 100
_FRAME_VERSIONS = (2, 3)
_OFFSETS_OF_64_BITS = 1
_LAST_FILTER = 4
_LAST_CODEC = 5
COPY = "copy it with blosc2 into one file, with the codecs and filters of its own: array.copy(urlpath='new.b2nd')"
"""What to do about a frame that is not read."""
SPARSE = "chunks.b2frame"
"""The file in a folder that is a frame whose chunks are files."""


class _Bytes(NamedTuple):
    """Part of a file from byte `start` on."""

    start: int
    body: memoryview

    def get(self, start: int, end: int) -> memoryview | None:
        """Bytes `[start, end)` of the file, None when not all of them are here."""
        at = start - self.start
        return self.body[at : at + end - start] if at >= 0 and end - self.start <= len(self.body) else None


class _File:
    """One version of a file: `nbytes` bytes, of which the last ones are read first."""

    def __init__(self, store: LocalStore | RemoteDocuments, key: str) -> None:
        self.place = store.place(key)
        self._store = store
        self._key = key
        self._known: list[_Bytes] = []
        self.version: FileVersion | ObjectVersion
        if isinstance(store, LocalStore):
            with regular_file(store.path(key)) as descriptor:
                if descriptor is None:
                    raise _no_file(self.place)
                self.version = _file_version(descriptor)
            self.nbytes = self.version.nbytes
            return
        (reply,) = store.ask(Ask(key, suffix=_TAIL_NBYTES))
        if reply is None:
            raise _no_file(self.place)
        body = memoryview(reply.body)
        self.nbytes = reply.start + len(body) if reply.total is None else reply.total
        self.version = ObjectVersion(reply.etag, reply.modified, self.nbytes)
        self._known.append(_Bytes(reply.start, body))

    def read(self, start: int, end: int, more: int = 0) -> memoryview:
        """Returns bytes `[start, end)`; what is asked for of a store reaches up to `more` where the file does.

        Raises `DataError` for what the file does not have, `ObjectChangedError`, `StoreError`.
        """
        if not 0 <= start <= end <= self.nbytes:
            raise DataError(f"a file of {self.nbytes:,} bytes ends before byte {end:,}", key=self.place)
        for known in self._known:
            if (found := known.get(start, end)) is not None:
                return found
        if isinstance(self._store, LocalStore):
            return self._read_local(start, end)
        end_asked = min(max(end, more), self.nbytes)
        etag = cast("ObjectVersion", self.version).etag
        (reply,) = self._store.ask(Ask(self._key, start, end_asked, if_match=etag, max_nbytes=end_asked - start))
        if reply is None:
            raise _no_file(self.place)
        self._check(ObjectVersion(reply.etag, reply.modified, reply.total))
        self._known.append(_Bytes(start, memoryview(reply.body)))
        return self._known[-1].body[: end - start]

    def _read_local(self, start: int, end: int) -> memoryview:
        with regular_file(self.place) as descriptor:
            if descriptor is None:
                raise _no_file(self.place)
            self._check(_file_version(descriptor))
            body = os.pread(descriptor, end - start, start)
        if len(body) < end - start:
            raise DataError("the file is shorter than it was", key=self.place)
        return memoryview(body)

    def _check(self, theirs: FileVersion | ObjectVersion) -> None:
        both = zip(self.version, theirs, strict=True)
        if any(own is not None and other is not None and own != other for own, other in both):
            raise ObjectChangedError("the file was replaced while its metadata was read", key=self.place)


class _Header(NamedTuple):
    """What the header of a frame says; sizes in bytes."""

    nbytes: int
    frame_nbytes: int
    chunks_nbytes: int
    item_nbytes: int
    chunk_nbytes: int
    trailer_nbytes: int
    several_sizes: bool
    layer: list[Any]


def is_b2nd(file: str) -> bool:
    """Returns whether a file on disk begins as a frame does. Raises `PermissionDeniedError`, `StoreError`."""
    with regular_file(file) as descriptor:
        return descriptor is not None and os.pread(descriptor, 10, 0)[1:] == _MAGIC


def find(store: LocalStore | RemoteDocuments, key: str, settings: Settings) -> Node:
    """Returns the array in the file `key`.

    Raises `NotFoundError`, `MetadataError`, `UnsupportedError`, `LimitExceededError`, `DataError`, `CodecError`,
    `ObjectChangedError`, `PermissionDeniedError`, `StoreError`.
    """
    file = _File(store, key)
    try:
        header = _header(file)
        document, cells = _document(header)
        offsets, nbytes, fill = _places(file, header, cells)
        if fill and document["dtype"][1:] not in ("f4", "f8"):
            raise UnsupportedError(f"chunks that are all NaN, of {document['dtype']}", hint=COPY)
        document["fill_value"] = "NaN" if fill else None
        attributes = _attributes(file, header)
    except VoxfetchError as error:
        error.in_object(file.place)
        raise
    except (ValueError, struct.error) as error:
        raise MetadataError(f"not a frame of Blosc 2: {error}", key=file.place) from None
    return Node(
        store=store,
        path=key,
        format="b2nd",
        kind="array",
        document=json.dumps(document).encode(),
        attributes=attributes,
        settings=settings,
        table=ChunkTable((key,), offsets, nbytes, version=file.version),
    )


def _header(file: _File) -> _Header:
    # All of the file, where the last bytes have not told it already.
    head = file.read(0, min(_METALAYERS_AT, file.nbytes), _HEAD_NBYTES)
    if bytes(head[1:10]) != _MAGIC:
        raise MetadataError(f"not a frame of Blosc 2: it begins with {bytes(head[:16])!r}")
    if len(head) < _METALAYERS_AT:
        raise DataError(f"a file of {file.nbytes} bytes is shorter than the header of a frame")
    header_nbytes, frame_nbytes = struct.unpack_from(">i x Q", head, 11)
    total, chunks_nbytes, item_nbytes, chunk_nbytes = struct.unpack_from(">q x q x i 6x i", head, 30)
    if not (_METALAYERS_AT <= header_nbytes <= MAX_DOCUMENT_NBYTES and min(total, chunks_nbytes) >= 0):
        raise MetadataError(f"a header of {header_nbytes} bytes, chunks of {chunks_nbytes} bytes, {total} decoded")
    if frame_nbytes > file.nbytes or header_nbytes + chunks_nbytes + _TRAILER_END_NBYTES > frame_nbytes:
        raise DataError(f"a frame of {frame_nbytes:,} bytes in a file of {file.nbytes:,}: is it whole?")
    _refuse(bytes(head[25:28]), bytes(head[71:78]))
    found = _layers(file.read(0, header_nbytes), _METALAYERS_AT)
    if "b2nd" not in found:
        hint = "open it with blosc2; arrays are read, `blosc2.NDArray`"
        raise UnsupportedError("a super-chunk of Blosc 2 without a shape", hint=hint)
    layer = Unpacker(found["b2nd"]).value()
    if not isinstance(layer, list):
        raise MetadataError("b2nd: not a list")
    layer = cast("list[Any]", layer)
    end = file.read(frame_nbytes - _TRAILER_END_NBYTES, frame_nbytes)
    trailer_nbytes = int(struct.unpack_from(">xI", end, 0)[0])
    if not _TRAILER_END_NBYTES <= trailer_nbytes <= min(MAX_DOCUMENT_NBYTES, frame_nbytes):
        raise MetadataError(f"a trailer of {trailer_nbytes:,} bytes")
    several = bool(head[25] >> 6 & 1)
    return _Header(
        header_nbytes, frame_nbytes, chunks_nbytes, item_nbytes, chunk_nbytes, trailer_nbytes, several, layer
    )


def _refuse(flags: bytes, encoded: bytes) -> None:
    """Raises `UnsupportedError` for a frame of another kind, or encoded by plugins. `flags` are bytes 25 to 27.

    `encoded` are six filters, and the codec of a plugin.
    """
    general, kind, codec = flags
    if general & 15 not in _FRAME_VERSIONS or general >> 4 & 3 != _OFFSETS_OF_64_BITS:
        raise UnsupportedError(f"a frame with flags {general:#04x}", hint=COPY)
    if kind & 15:
        raise UnsupportedError("a frame whose chunks are files in its folder (sparse)", hint=COPY)
    *filters, plugin = encoded
    if codec & 15 > _LAST_CODEC:
        raise UnsupportedError(f"a frame of codec {plugin}, which is a plugin's", hint=COPY)
    if (unknown := max(filters)) > _LAST_FILTER:
        raise UnsupportedError(f"a frame of filter {unknown}, which is a plugin's", hint=COPY)


def _document(header: _Header) -> tuple[dict[str, Any], int]:
    """(a Zarr v2 document but for its fill value, number of chunks)."""
    if len(header.layer) != 7:
        raise UnsupportedError(f"a metalayer b2nd of {len(header.layer)} members, without a data type", hint=COPY)
    _, axes, *extents, dtype_format, dtype = header.layer
    shape, chunks, blocks = (_extents(value, axes) for value in extents)
    if dtype_format != 0 or not isinstance(dtype, str):
        raise UnsupportedError(f"a data type of format {dtype_format!r}", hint="that of numpy (0) is read")
    # An array without voxels may have chunks without any; it has none of them.
    chunks = [max(extent, 1) for extent in chunks]
    blocks = [max(extent, 1) for extent in blocks]
    padded = [-(-extent // block) * block for extent, block in zip(chunks, blocks, strict=True)]
    cells = math.prod(-(-extent // chunk) for extent, chunk in zip(shape, chunks, strict=True))
    if cells > _MAX_CHUNKS:
        raise LimitExceededError(f"a file of {cells:,} chunks; the limit is {_MAX_CHUNKS:,}")
    # Without chunks that says nothing.
    if cells and header.several_sizes:
        raise UnsupportedError("a frame with chunks of several sizes", hint=COPY)
    if cells and math.prod(padded) * header.item_nbytes != header.chunk_nbytes:
        message = f"chunks {chunks} in blocks {blocks} of {header.item_nbytes} bytes a voxel take other than"
        raise MetadataError(f"{message} {header.chunk_nbytes} bytes")
    return {
        "zarr_format": 2,
        "shape": shape,
        "chunks": chunks,
        "dtype": _dtype(dtype, header.item_nbytes),
        "order": "C",
        "filters": [{"id": "b2nd", "blocks": blocks}],
        "compressor": None,
    }, cells


def _dtype(text: str, item_nbytes: int) -> str:
    """The data type as `.zarray` has it."""
    try:
        dtype = np.dtype(text) if len(text) <= _MAX_DTYPE else None
    except (TypeError, ValueError, SyntaxError):
        dtype = None
    if dtype is None or dtype.names or dtype.subdtype or dtype.hasobject:
        raise UnsupportedError(f"the data type {text[:100]!r}", hint="write each of several fields as an array")
    if dtype.itemsize != item_nbytes:
        raise MetadataError(f"the data type {text[:100]!r} does not take {item_nbytes} bytes")
    return dtype.str


def _extents(value: object, axes: object) -> list[int]:
    listed = cast("list[object]", value) if isinstance(value, list) else None
    if listed is None or len(listed) != axes or len(listed) > _MAX_AXES:
        raise MetadataError(f"b2nd: {axes!r} extents were expected, not {str(listed)[:100]}")
    extents = [extent for extent in listed if isinstance(extent, int) and extent >= 0]
    if len(extents) != len(listed):
        raise MetadataError(f"b2nd: {listed} are no extents")
    return extents


def _places(file: _File, header: _Header, cells: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64], bool]:
    """(offset of each chunk in the file, its bytes and some that follow it, whether those without are NaN)."""
    if cells == 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.uint64), False
    start, end = header.nbytes + header.chunks_nbytes, header.frame_nbytes - header.trailer_nbytes
    most = 16 * cells + (4 << 10)
    if not 0 <= end - start <= most:
        raise MetadataError(f"{end - start:,} bytes between chunks and trailer for the offsets of {cells:,} chunks")
    decoded = _core.decode_blosc2(bytes(file.read(start, end, header.frame_nbytes)), 8 * cells)
    if len(decoded) != 8 * cells:
        raise MetadataError(f"offsets of {len(decoded) // 8:,} chunks, the array has {cells:,}")
    offsets = np.frombuffer(decoded, "<i8")
    stored = offsets >= 0
    if np.any(offsets[stored] >= header.chunks_nbytes):
        outside = int(np.argmax(offsets))
        raise DataError(f"chunk {outside} lies outside of the chunks of the file")
    # Of those that are not stored, the highest byte says what they hold: 1 zeros, 2 NaN, 4 nothing in particular.
    kinds = set(np.unique(offsets[~stored] >> 56 & 7).tolist())
    if not kinds <= {1, 2, 4}:
        raise MetadataError(f"chunks of unknown special values, {sorted(kinds)}")
    if kinds >= {1, 2}:
        raise UnsupportedError("some chunks that are all zeros and others all NaN", hint=COPY)
    # Chunks lie in any order, and bytes between them belong to none; one that is not compressed is the largest.
    starts = np.unique(np.append(offsets[stored], header.chunks_nbytes))
    nbytes = np.zeros(cells, np.uint64)
    room = starts[np.searchsorted(starts, offsets[stored]) + 1] - offsets[stored]
    nbytes[stored] = np.minimum(room, header.chunk_nbytes + _CHUNK_HEADER_NBYTES)
    places = np.full(cells, MISSING, np.uint64)
    places[stored] = offsets[stored] + header.nbytes
    return places, nbytes, 2 in kinds


def _layers(data: memoryview, at: int) -> dict[str, bytes]:
    """Metalayers by name: a list of a size, a map of their names, and their contents in the same order."""
    value: object = Unpacker(data, at).value()
    listed = cast("list[object]", value) if isinstance(value, list) else []
    names, contents = listed[1:] if len(listed) == 3 else (None, None)
    if not isinstance(names, dict) or not isinstance(contents, list):
        raise MetadataError("metalayers that are none")
    pairs = zip(cast("dict[str, int]", names), cast("list[object]", contents), strict=False)
    return {name: content for name, content in pairs if isinstance(content, bytes)}


def _attributes(file: _File, header: _Header) -> Mapping[str, Any]:
    """The metalayers of the trailer that hold plain values, each compressed by itself; others are left out."""
    trailer = file.read(header.frame_nbytes - header.trailer_nbytes, header.frame_nbytes)
    attributes: dict[str, Any] = {}
    left, values = _ATTRIBUTES_NBYTES, MAX_VALUES
    for name, content in _layers(trailer, 2).items():
        try:
            decoded = _core.decode_blosc2(content, left)
            left -= len(decoded)
            unpacker = Unpacker(decoded, left=values)
            try:
                value = unpacker.value()
            finally:
                values = unpacker.left
            json.dumps(value, allow_nan=False)
        except (ValueError, TypeError, VoxfetchError):
            continue
        attributes[name] = value
    return attributes


def _file_version(descriptor: int) -> FileVersion:
    found = os.fstat(descriptor)
    return FileVersion(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _no_file(place: str) -> NotFoundError:
    return NotFoundError("there is no such file", key=place, hint="check the spelling")
