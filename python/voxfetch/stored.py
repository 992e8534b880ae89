"""The stored objects of an array, an image or a group as bytes, whatever they are: for who passes them on untouched.

A node's store and key go in; sizes, versions and parts of the objects below come out. Of a folder only what lies in it
is given, also where links lead out of it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from voxfetch.documents import RemoteDocuments
from voxfetch.errors import ObjectChangedError, StoreError
from voxfetch.store import Ask, check_key, join_key
from voxfetch.store.local import LocalStore, is_inside, regular_file
from voxfetch.store.threads import Threads

if TYPE_CHECKING:
    from voxfetch.node import Node

__all__ = ["Stored", "Version", "stored_of"]


class Version(NamedTuple):
    """An object as it is now: its size in bytes, and a text that another version does not have, None if unknown."""

    nbytes: int
    etag: str | None


class Stored:
    """The objects at and below `base`, a key in `store`. To be kept: it has threads, which it makes on first use."""

    def __init__(self, store: RemoteDocuments | LocalStore, base: str) -> None:
        self._store = store
        self._base = base
        self._threads = Threads("voxfetch-stored")

    async def version(self, key: str) -> Version | None:
        """Returns what an object is now, None when there is none. `key` "" is the object at the base itself.

        Raises `MetadataError` for a key that leads out of its store, `PermissionDeniedError`, `StoreError`.
        """
        key = join_key(self._base, check_key(key))
        if isinstance(self._store, LocalStore):
            store = self._store
            return await self._threads.run(lambda: self._local_version(store, key))
        reply = await self._store.ask_async(Ask(key, 0, 1))
        if reply is None:
            return None
        if reply.total is None:
            raise StoreError("the server does not say how large this object is", key=join_key(self._store.url, key))
        return Version(reply.total, None if reply.etag is None else reply.etag[1:-1])

    async def read(self, key: str, start: int, end: int, version: Version) -> bytes | memoryview:
        """Returns bytes `[start, end)` of an object of this version, all of which exist.

        Raises `ObjectChangedError` when it is another one by now, and what `version` raises.
        """
        key = join_key(self._base, check_key(key))
        if start >= end:
            return b""
        if isinstance(self._store, LocalStore):
            store = self._store
            return await self._threads.run(lambda: self._local_part(store, key, (start, end), version))
        if_match = None if version.etag is None else f'"{version.etag}"'
        reply = await self._store.ask_async(Ask(key, start, end, if_match=if_match))
        if reply is None:
            raise ObjectChangedError("the object is gone", key=join_key(self._store.url, key))
        return memoryview(reply.body)

    def _local_version(self, store: LocalStore, key: str) -> Version | None:
        path = self._inside(store, key)
        if path is None:
            return None
        with regular_file(path) as descriptor:
            return None if descriptor is None else _version(descriptor)

    def _local_part(self, store: LocalStore, key: str, part: tuple[int, int], version: Version) -> bytes:
        path = self._inside(store, key)
        start, end = part
        pieces: list[bytes] = []
        if path is not None:
            with regular_file(path) as descriptor:
                # Before and after: a file that is written to in place has no moment at which it is another one.
                if descriptor is not None and _version(descriptor) == version:
                    # A read may be short.
                    while start < end and (piece := os.pread(descriptor, end - start, start)):
                        pieces.append(piece)
                        start += len(piece)
                    if start == end and _version(descriptor) == version:
                        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        raise ObjectChangedError("the file was replaced or changed", key=store.path(key), byte_range=part)

    def _inside(self, store: LocalStore, key: str) -> str | None:
        """The path of a file without links, None where it lies outside of what is given."""
        root = os.path.realpath(store.path(self._base))
        path = os.path.realpath(store.path(key))
        return path if is_inside(path, root) else None


def stored_of(node: Node) -> Stored:
    """Returns the objects of a group: of one in a file, such as HDF5, that file."""
    file = node.file
    store, base = (node.store, node.path) if file is None else (file.store, file.key)
    if isinstance(store, LocalStore | RemoteDocuments):
        return Stored(store, base)
    raise StoreError("this is in no store of objects", key=store.url)


def _version(descriptor: int) -> Version:
    status = os.fstat(descriptor)
    # What writes a file can set the time of that back, but not the time of the last change of either.
    times = f"{status.st_mtime_ns:x}-{status.st_ctime_ns:x}"
    return Version(status.st_size, f"{times}-{status.st_size:x}-{status.st_ino:x}")
