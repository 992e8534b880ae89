"""Arrays of zarr-python -> handles of the core: one for each path, loop and way to treat what is missing.

Stores that are read natively are those of exactly the classes that zarr has; any other one, subclasses of these too, is
asked itself, on the loop that reads: it may change what it returns, or belong to that loop.
"""

from __future__ import annotations

import asyncio
import json
import os
import warnings
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from zarr.core.buffer import default_buffer_prototype
from zarr.storage import FsspecStore, LocalStore, ObjectStore, ZipStore

from voxfetch.dtypes import numpy_dtype
from voxfetch.errors import LimitExceededError, MetadataError, UnsupportedError
from voxfetch.handle import array_meta, local_array, remote_array
from voxfetch.objects import Objects
from voxfetch.options import ReadOptions
from voxfetch.store import join_key
from voxfetch.store.adapters import ABSENT, AdapterStore
from voxfetch.store.foreign import ZarrSource
from voxfetch.store.http import HttpStore
from voxfetch.store.resolve import local_source, remote_store
from voxfetch.zarr.batch import Grid

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    from voxfetch import _core
    from voxfetch.node import Format
    from voxfetch.store import RemoteStore

    Core = _core.LocalArray | _core.RemoteArray

__all__ = ["Handles"]

_NO_ETAG = (
    "the store shows no ETag: a shard that is replaced between its index and its chunks is noticed by bytes that are "
    "missing or a checksum at most"
)
_ETAG_OF_SERVER = (
    "a server of HTTP may show no ETag: a shard that is replaced between its index and its chunks is noticed then by "
    "its size and its time"
)
_NATIVE = (LocalStore, ObjectStore, FsspecStore, ZipStore)


class _Place(NamedTuple):
    """Where a store lies: a folder, or a store of ours and a key in it."""

    root: str
    remote: RemoteStore | None


class Handles:
    """Makes the handles of one array. Raises `UnsupportedError` for one that cannot be read."""

    def __init__(self, metadata: Any, store: Any) -> None:
        self.store = store
        _check_codecs(metadata)
        self._format: Format = "zarr2" if metadata.zarr_format == 2 else "zarr3"
        self._name = ".zarray" if self._format == "zarr2" else "zarr.json"
        self._document = _document(metadata, self._name)
        self.grid = _grid(self._document)
        self._shape = tuple(cast("list[int]", self._document["shape"]))
        self._meta = self._described(self._shape)
        self.dtype: np.dtype[Any] = numpy_dtype(self._meta.dtype, self._name)
        if self.dtype.hasobject:
            raise UnsupportedError("elements of no fixed size")
        made = metadata.data_type.to_native_dtype() if self.dtype.names and self._format == "zarr3" else self.dtype
        if made != self.dtype and not _tells_byte_order(metadata.codecs):
            # zarr 3.1 writes fields as they are in memory and says nothing of it: only who made the array knows.
            raise UnsupportedError("fields in an order of bytes that the metadata does not tell")
        self._place = _native_place(store)
        self._native: dict[Any, tuple[tuple[int, ...], Core]] = {}
        self._adapted: weakref.WeakKeyDictionary[Any, dict[Any, tuple[tuple[int, ...], Core]]] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def doubts(self) -> tuple[str, ...]:
        """What the store cannot guarantee."""
        if self._place is None:
            return (_NO_ETAG,)
        return (_ETAG_OF_SERVER,) if isinstance(self._place.remote, HttpStore) else ()

    def of(self, path: str, objects: tuple[int, ...], prototype: Any, *, missing_is_error: bool) -> Core:
        """Returns the handle of the array at `path` that has at least so many stored objects along each axis.

        `prototype` makes the buffers of a store that is not read natively.
        """
        known, key = self._native, (path, missing_is_error)
        if self._place is None:
            known = self._adapted.setdefault(asyncio.get_running_loop(), {})
            key = (*key, prototype)
        found = known.get(key)
        if found is None or any(have < needed for have, needed in zip(found[0], objects, strict=True)):
            size = tuple(1 << (needed - 1).bit_length() for needed in objects)
            found = known[key] = (size, self._made(path, size, prototype, missing_is_error=missing_is_error))
        return found[1]

    def _made(self, path: str, objects: tuple[int, ...], prototype: Any, *, missing_is_error: bool) -> Core:
        # Objects at the edge are stored whole, and zarr may make the array larger: its shape now is no bound.
        meta = self._described(
            tuple(
                starts[count] if isinstance(starts, range) else starts[-1]
                for starts, count in zip(self.grid.starts, objects, strict=True)
            )
        )
        adapted = self._place is None
        options = ReadOptions(
            on_missing="raise" if missing_is_error else "fill",
            index_ttl_s=0 if adapted else 60,
            missing_ttl_s=0,
        )
        place = self._place or _adapted_place(self.store, prototype)
        inside = join_key("" if place.remote is None else place.root, path)
        if place.remote is None:
            return local_array(meta, os.path.join(place.root, inside), self._name, options)  # noqa: PTH118
        return remote_array(meta, place.remote, inside, join_key(place.remote.url, inside), options)

    def _described(self, shape: tuple[int, ...]) -> _core.ArrayMeta:
        document = json.dumps({**self._document, "shape": shape}).encode()
        try:
            return array_meta(document, self._format, None, self._name, Objects(keeps=False))
        except (MetadataError, LimitExceededError) as error:
            raise UnsupportedError(error.message) from error


def _document(metadata: Any, name: str) -> dict[str, Any]:
    """The document of an array, without what says nothing of its voxels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # types without a specification; said once when the array was opened
        try:
            text = metadata.to_buffer_dict(default_buffer_prototype())[name].to_bytes()
        except ValueError as error:
            # As of a grid that `zarr.config` does not allow at this moment.
            raise UnsupportedError(f"metadata that zarr does not write ({type(error).__name__})") from error
    document = cast("dict[str, Any]", json.loads(text))
    for field in ("attributes", "dimension_names"):
        document.pop(field, None)
    return document


def _grid(document: dict[str, Any]) -> Grid:
    """The grid of stored objects. Raises `UnsupportedError` for keys or grids that are not known."""
    if document["zarr_format"] == 2:
        chunks: list[Any] = document["chunks"]
        separator, marker = document.get("dimension_separator", "."), ""
    else:
        encoding, layout = document["chunk_key_encoding"], document["chunk_grid"]
        if encoding["name"] not in ("default", "v2"):
            raise UnsupportedError(f"chunk key encoding `{encoding['name']:.40}`")
        marker = "c" if encoding["name"] == "default" else ""
        separator = encoding.get("configuration", {}).get("separator", "/" if marker else ".")
        settings = layout["configuration"]
        chunks = settings["chunk_shape"] if layout["name"] == "regular" else settings["chunk_shapes"]
    return Grid(tuple(Grid.regular(one) if isinstance(one, int) else _starts(one) for one in chunks), separator, marker)


def _starts(edges: list[Any]) -> tuple[int, ...]:
    """Starts of objects, and the end of the last one; an edge is an extent, or [extent, number of times]."""
    starts = [0]
    for edge in edges:
        extent, times = (edge, 1) if isinstance(edge, int) else edge
        for _ in range(times):
            starts.append(starts[-1] + extent)
    return tuple(starts)


def _check_codecs(metadata: Any) -> None:
    """Raises `UnsupportedError` for an array with a codec class that is not one of zarr or numcodecs.

    It may stand for a codec that the core knows under the same name, and decode something else.
    """

    def visit(codecs: Iterable[Any]) -> None:
        for codec in codecs:
            if type(codec).__module__.partition(".")[0] not in {"zarr", "numcodecs"}:
                raise UnsupportedError(f"codec class {type(codec).__module__}.{type(codec).__qualname__}")
            visit((*getattr(codec, "codecs", ()), *getattr(codec, "index_codecs", ())))

    if metadata.zarr_format == 2:
        visit(one for one in (*(metadata.filters or ()), metadata.compressor) if one is not None)
    else:
        visit(metadata.codecs)


def _native_place(store: Any) -> _Place | None:
    if type(store) not in _NATIVE or set(getattr(store, "allowed_exceptions", ABSENT)) != set(ABSENT):
        return None
    try:
        local = local_source(store)
        if local is not None:
            return _Place(os.path.join(*local), None)  # noqa: PTH118
        found = remote_store(store)
    except (UnsupportedError, ValueError, TypeError):
        return None
    # What is not translated is asked through zarr: with its own settings, on its own loop.
    return None if found is None or isinstance(found[0], AdapterStore) else _Place(found[1], found[0])


def _tells_byte_order(codecs: Iterable[Any]) -> bool:
    return any(getattr(one, "endian", None) or _tells_byte_order(getattr(one, "codecs", ())) for one in codecs)


def _adapted_place(store: Any, prototype: Any) -> _Place:
    source = ZarrSource(store, loop=asyncio.get_running_loop(), prototype=prototype, gets_only=True)
    return _Place("", AdapterStore(source))
