"""Makes a new Zarr v3 array in a local folder: chooses the layout where it is "auto" and writes `zarr.json`.

The default layout: chunks of 32^3 voxels (or about as many), decoded shards of at most 512 MiB and 32 chunks an axis,
zstd level 3 with a checksum per chunk and one over the index.
"""

from __future__ import annotations

import json
import math
import os
import re
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from voxfetch import _core
from voxfetch.array import Array
from voxfetch.errors import ConflictError, MetadataError, PermissionDeniedError, StoreError, UnsupportedError
from voxfetch.formats import find_node
from voxfetch.hierarchy import open_node
from voxfetch.node import Settings
from voxfetch.selection import parse_shape
from voxfetch.sources import local_folder
from voxfetch.store import join_key
from voxfetch.store.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["create", "create_async"]

_MAX_SHARD_NBYTES = 512 << 20
_MAX_CHUNKS_PER_AXIS = 32
_SPACE = frozenset("xyz")
# Extent of a chunk along each spatial axis, by the number of those: about 32 Ki voxels in all.
_CHUNK_EXTENTS = {0: 1, 1: 1 << 15, 2: 256, 3: 32}
# What a killed writer of a document leaves behind (see `_replace`); it is in nobody's way.
_LEFTOVER = re.compile(r"\.zarr\.json\.[0-9a-f]{16}\.tmp")
# What an array may have in its folder: documents, chunks of the `default` and the `v2` key encodings.
_OWN_ENTRY = re.compile(r"zarr\.json|\.zarray|\.zattrs|c|(c\.)?[0-9]+(\.[0-9]+)*")


def create(  # noqa: PLR0913 - the public names are a contract
    url: Any,
    *,
    shape: Sequence[int] | int,
    dtype: Any,
    chunks: Literal["auto"] | Sequence[int] = "auto",
    shards: Literal["auto", False] | Sequence[int] | None = "auto",
    codecs: Literal["auto"] | Sequence[Mapping[str, Any] | str] = "auto",
    fill_value: Any = 0,
    axes: str | Sequence[str] | None = None,
    attrs: Mapping[str, Any] | None = None,
    format: Literal["zarr3"] = "zarr3",  # noqa: A002
    overwrite: bool = False,
) -> Array:
    """Creates an array and returns it, open for writing; nothing but its metadata is written.

    `chunks` and `shards` are extents in voxels, `shards` a multiple of `chunks`; `shards=False` stores each chunk on
    its own. `codecs` are those of a chunk, as Zarr v3 metadata. `axes` become the dimension names.

    `overwrite=True` replaces an array that lies there; anything else (a group, other files) is never touched.
    Raises `ConflictError` for that, `UnsupportedError`, `MetadataError`, `SelectionError`, `PermissionDeniedError`.
    """
    if format != "zarr3":
        raise UnsupportedError(f"format {format!r} is not written by this version", hint='it writes "zarr3"')
    folder, inside, implied = local_folder(url)
    if implied == "zarr2":
        raise UnsupportedError("Zarr v2 is not written by this version", hint="leave zarr2 out of the URL")
    store = LocalStore(LocalStore(folder).path(inside))
    extents = (shape,) if isinstance(shape, int) else tuple(shape)
    extents = parse_shape(extents, len(extents))
    document = _document(extents, _dtype(dtype), (chunks, shards, codecs), (fill_value, axes, attrs))
    # Refuses what could not be written, or read again, before anything is touched.
    _core.ArrayMeta.from_zarr3(document).check_writable()
    try:
        _make_room(store, overwrite=overwrite)
        _replace(store.path("zarr.json"), document)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        refused = PermissionDeniedError if isinstance(error, PermissionError) else StoreError
        raise refused(error.strerror or str(error), key=store.root) from error
    return Array(open_node(store, format="zarr3", settings=Settings(mode="r+")))


async def create_async(url: Any, **keywords: Any) -> Array:
    """Async twin of `create`."""
    return create(url, **keywords)


def _dtype(dtype: Any) -> np.dtype[Any]:
    try:
        found = np.dtype(dtype).newbyteorder("=")
    except TypeError as error:
        raise UnsupportedError(f"dtype: {error}") from None
    if found.kind not in "biufc" or found.itemsize > 16 or found.name == "float128" or found.type.__module__ != "numpy":
        message = f"dtype {found} cannot be written"
        raise UnsupportedError(message, hint="bool, integers, float16 to float64, complex64 and complex128 can")
    return found


def _document(
    shape: tuple[int, ...], dtype: np.dtype[Any], layout: tuple[Any, Any, Any], content: tuple[Any, Any, Any]
) -> bytes:
    """`layout` is (chunks, shards, codecs), `content` (fill_value, axes, attrs)."""
    fill_value, axes, attrs = content
    names = None if axes is None else tuple(axes)
    if names is not None and len(names) != len(shape):
        raise MetadataError(f"axes: {len(names)} names for {len(shape)} axes")
    chunk, shard = _extents(shape, dtype, names, layout)
    chain = _default_codecs(dtype) if isinstance(layout[2], str) and layout[2] == "auto" else list(layout[2])
    if shard is not None:
        index_codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        configuration = {
            "chunk_shape": chunk,
            "codecs": chain,
            "index_codecs": index_codecs,
            "index_location": "end",
        }
        chain = [{"name": "sharding_indexed", "configuration": configuration}]
    document: dict[str, Any] = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard or chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": _fill_value(fill_value, dtype),
        "codecs": chain,
        "attributes": dict(attrs or {}),
    }
    if names is not None:
        document["dimension_names"] = names
    try:
        return json.dumps(document, indent=2, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise MetadataError(f"attrs or codecs are not JSON: {error}") from None


def _extents(
    shape: tuple[int, ...], dtype: np.dtype[Any], names: tuple[str, ...] | None, layout: tuple[Any, Any, Any]
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Extents of a chunk and of a shard (None: unsharded)."""
    chunks, shards, _ = layout
    ndim = len(shape)
    if shards is None or shards is False:
        given = None
    else:
        given = "auto" if isinstance(shards, str) else parse_shape(shards, ndim, what="shards", minimum=1)
    if isinstance(chunks, str):
        space = _spatial(names, ndim)
        extent = _CHUNK_EXTENTS[min(sum(space), 3)]
        most = given if isinstance(given, tuple) else tuple(max(n, 1) for n in shape)
        chunk = tuple(min(extent, n) if is_space else 1 for is_space, n in zip(space, most, strict=True))
        if isinstance(given, tuple):
            chunk = tuple(_divisor(n, most=c) for n, c in zip(given, chunk, strict=True))
    else:
        chunk = parse_shape(chunks, ndim, what="chunks", minimum=1)
    if given is None:
        return chunk, None
    if isinstance(given, tuple):
        if any(n % c for n, c in zip(given, chunk, strict=True)):
            raise MetadataError(f"shards {given} are not a multiple of chunks {chunk}")
        return chunk, given
    counts = [
        min(_MAX_CHUNKS_PER_AXIS, -(-max(n, 1) // c)) if is_space else 1
        for n, c, is_space in zip(shape, chunk, _spatial(names, ndim), strict=True)
    ]
    while math.prod(counts) * math.prod(chunk) * dtype.itemsize > _MAX_SHARD_NBYTES and max(counts, default=1) > 1:
        largest = counts.index(max(counts))
        counts[largest] = -(-counts[largest] // 2)
    if math.prod(counts) == 1:
        return chunk, None  # an index for a single chunk would only cost
    return chunk, tuple(n * c for n, c in zip(counts, chunk, strict=True))


def _spatial(names: tuple[str, ...] | None, ndim: int) -> tuple[bool, ...]:
    """Which axes get extended chunks: x, y and z by name, else the last three."""
    if names is not None and _SPACE.intersection(names):
        return tuple(name in _SPACE for name in names)
    return tuple(axis >= ndim - 3 for axis in range(ndim))


def _divisor(number: int, *, most: int) -> int:
    return next(divisor for divisor in range(most, 0, -1) if number % divisor == 0)


def _default_codecs(dtype: np.dtype[Any]) -> list[dict[str, Any]]:
    to_bytes: dict[str, Any] = {"name": "bytes"}
    if dtype.itemsize > 1:
        to_bytes["configuration"] = {"endian": "little"}
    return [to_bytes, {"name": "zstd", "configuration": {"level": 3, "checksum": False}}, {"name": "crc32c"}]


def _fill_value(value: Any, dtype: np.dtype[Any]) -> Any:
    """One voxel as Zarr v3 writes it ("fill_value" of the core spec). Raises `MetadataError` if it does not fit."""
    try:
        voxel: Any = np.asarray(value, dtype)[()] if not hasattr(value, "dtype") else dtype.type(value)
        fits = voxel.shape == () and (bool(voxel == value) or dtype.kind in "fc")
    except (TypeError, ValueError, OverflowError):
        voxel, fits = None, False
    if voxel is None or not fits:
        raise MetadataError(f"fill_value {value!r:.100} is not one {dtype}")
    if dtype.kind == "c":
        return [_float(voxel.real), _float(voxel.imag)]
    return _float(voxel) if dtype.kind == "f" else voxel.item()


def _float(value: Any) -> float | str:
    if np.isnan(value):
        bits = int.from_bytes(value.tobytes(), "little" if np.little_endian else "big")
        usual = int.from_bytes(type(value)(np.nan).tobytes(), "little" if np.little_endian else "big")
        return "NaN" if bits == usual else f"0x{bits:0{2 * value.itemsize}x}"
    if np.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return float(value)


def _make_room(store: LocalStore, *, overwrite: bool) -> None:
    """Makes the folder, empty of an array. Raises `ConflictError` for what may not be deleted."""
    os.makedirs(store.root, exist_ok=True)  # noqa: PTH103 - str in, as everywhere here
    entries = [name for name in store.list() if not _LEFTOVER.fullmatch(name)]
    if not entries:
        return
    node = find_node(store, "", format=None, settings=Settings())
    is_zarr = node is not None and node.format in ("zarr3", "zarr2")
    if node is None or not is_zarr or node.kind == "group":
        message = "a group lies here" if is_zarr else "the folder has something in it that is not a Zarr array"
        raise ConflictError(message, key=store.root, hint="choose another path; this is never overwritten")
    if not overwrite:
        raise ConflictError("an array lies here", key=store.root, hint="overwrite=True replaces it")
    import shutil

    # The document first: what is half deleted is not to be read as an array full of the fill value.
    for name in sorted(filter(_OWN_ENTRY.fullmatch, entries), key=lambda name: (name not in _DOCUMENTS, name)):
        path = join_key(store.root, name)
        if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114
            shutil.rmtree(path)
        else:
            os.unlink(path)  # noqa: PTH108


_DOCUMENTS = frozenset({"zarr.json", ".zarray", ".zattrs"})


def _replace(path: str, content: bytes) -> None:
    """Writes a file so that a reader finds the old one, or the new one, whole."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.urandom(8).hex()}.tmp")  # noqa: PTH118
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        os.unlink(temporary)  # noqa: PTH108
        raise
