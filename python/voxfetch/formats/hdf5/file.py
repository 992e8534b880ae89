"""One HDF5 file, on disk or in a remote store: opened by h5py for as long as something in it is looked up.

Whatever h5py raises becomes an error that names the file. Links are followed here, because those to other files are
not: a file may come from anybody. Source: HDF5 File Format Specification 3.0, II.A "Superblock" (where it may lie).
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from voxfetch.documents import Beginning
from voxfetch.errors import (
    DataError,
    LimitExceededError,
    NotFoundError,
    ObjectChangedError,
    UnsupportedError,
    VoxfetchError,
)
from voxfetch.formats.hdf5.library import library
from voxfetch.formats.hdf5.remote import Blocks, RemoteFile
from voxfetch.formats.hdf5.values import FAILURES, member_names
from voxfetch.store import join_key
from voxfetch.store.local import LocalStore, regular_file, translated
from voxfetch.table import FileVersion

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Generator

    from voxfetch.documents import RemoteDocuments
    from voxfetch.table import ObjectVersion

__all__ = ["Hdf5File", "Opened", "beginning_of", "begins_hdf5", "is_hdf5"]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_FIRST_USER_BLOCK_NBYTES = 512
_MAX_LINKS = 64
# From here on chunks are told with the user block (HDFGroup/hdf5#3003).
_KNOWS_USER_BLOCKS = (1, 14, 4)


class Opened(NamedTuple):
    """A file that is open: its root group, its size, the version that it was when it was opened and the one it is."""

    root: Any
    nbytes: int
    version: FileVersion | ObjectVersion
    current: Callable[[], FileVersion | ObjectVersion]

    def at(self, path: str, place: str) -> Any:
        """Returns the group or dataset at a path; `place` names it.

        Raises `NotFoundError`, `UnsupportedError` (another file, a type that has a name), `LimitExceededError`.
        """
        h5py = library()
        node, todo, links = self.root, path.split("/")[::-1], 0
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            link = node.get(name, getlink=True) if isinstance(node, h5py.Group) else None
            if link is None:
                raise _not_found(node, name, place)
            if isinstance(link, h5py.ExternalLink):
                message = f"a link to another file, {str(link.filename)[:200]!r}, is not followed"
                raise UnsupportedError(message, key=place, hint="open that file")
            if isinstance(link, h5py.SoftLink):
                links += 1
                if links > _MAX_LINKS:
                    raise LimitExceededError(f"more than {_MAX_LINKS} links on the way", key=place)
                todo += link.path.split("/")[::-1]
                node = self.root if link.path.startswith("/") else node
            else:
                node = node[name]
        if not isinstance(node, h5py.Group | h5py.Dataset):
            raise UnsupportedError("a data type with a name, and no data", key=place, hint="open a dataset or a group")
        return node

    def check_unchanged(self, place: str) -> None:
        """Raises `ObjectChangedError` for a file that was written to since it was opened."""
        if self.current() != self.version:
            raise ObjectChangedError("the file was changed while its structures were read", key=place)


class Hdf5File:
    """The file `key` of a store; `tables` is the folder in which chunk tables are kept, None for none.

    Opened for each look-up: nothing is held over a fork. Of a remote one the parts that were read are kept.
    """

    __slots__ = ("_blocks", "key", "store", "tables")

    def __init__(self, store: LocalStore | RemoteDocuments, key: str, tables: str | None) -> None:
        self.store = store
        self.key = key
        self.tables = tables
        self._blocks: Blocks | None = None

    def __reduce__(self) -> tuple[Callable[..., Hdf5File], tuple[Any, ...]]:
        return Hdf5File, (self.store, self.key, self.tables)

    @property
    def place(self) -> str:
        """What people call the file."""
        return self.store.place(self.key)

    @property
    def was_read(self) -> bool:
        """Whether anything of a remote file has been read: there is one."""
        return self._blocks is not None

    def path(self, inside: str) -> str:
        """Returns the path, in the store, of what lies at `inside` in the file."""
        return join_key(self.key, inside)

    @contextmanager
    def opened(self) -> Generator[Opened]:
        """Opens the file. What goes wrong with it meanwhile is raised as an error that names it.

        Raises `DataError`, `NotFoundError`, `UnsupportedError`, `ObjectChangedError`, `PermissionDeniedError`,
        `StoreError`.
        """
        if isinstance(self.store, LocalStore):
            path = self.store.path(self.key)
            with regular_file(path) as descriptor:
                if descriptor is None:
                    raise NotFoundError("there is no such file", key=path)
                # Not by its path: the library would lock it, and refuse it where the process has it open already.
                with os.fdopen(descriptor, "rb", closefd=False) as file, self._looked_into(file) as root:
                    version = _version_of(descriptor)
                    yield Opened(root, version.nbytes, version, lambda: _version_of(descriptor))
            return
        if self._blocks is None:
            self._blocks = Blocks(self.store, self.key)
        blocks, remote = self._blocks, RemoteFile(self._blocks)
        try:
            with self._looked_into(remote) as root:
                yield Opened(root, blocks.nbytes, blocks.version, lambda: blocks.version)
        except ObjectChangedError:
            self._blocks = None
            raise
        except DataError:
            if remote.error is None:
                raise
            # h5py told it in its own words.
            self._blocks = None if isinstance(remote.error, ObjectChangedError) else blocks
            raise remote.error from None

    @contextmanager
    def _looked_into(self, file: io.RawIOBase | io.BufferedReader) -> Generator[Any]:
        h5py = library()
        try:
            with h5py.File(file, "r") as root:
                if root.userblock_size and h5py.version.hdf5_version_tuple < _KNOWS_USER_BLOCKS:
                    message = "a file with a user block, of which this HDF5 library tells wrong places"
                    raise UnsupportedError(message, key=self.place, hint="use an h5py with HDF5 1.14.4 or newer")
                yield root
        except VoxfetchError:
            raise
        except FAILURES as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise translated(error, self.place) from error
            message = f"h5py cannot read it: {str(error)[:300]}"
            hint = "is it a whole HDF5 file, and closed by its writer?"
            raise DataError(message, key=self.place, hint=hint) from error


def _version_of(descriptor: int) -> FileVersion:
    status = os.fstat(descriptor)
    return FileVersion(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _not_found(node: Any, name: str, place: str) -> NotFoundError:
    message = f"there is no {name[:200]!r} in {str(node.name)[:200]!r}"
    names = member_names(node) if isinstance(node, library().Group) else []
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    hint = f"it holds: {shown}" if names else "`FILE|hdf5:PATH` names a path in a file"
    return NotFoundError(message, key=place, hint=hint)


def is_hdf5(path: str) -> bool:
    """Returns whether a file has the signature where one may be. Raises `PermissionDeniedError`, `StoreError`."""
    with regular_file(path) as descriptor:
        if descriptor is None:
            return False
        at, nbytes = 0, os.fstat(descriptor).st_size
        while at + len(_SIGNATURE) <= nbytes:
            if os.pread(descriptor, len(_SIGNATURE), at) == _SIGNATURE:
                return True
            at = 2 * at or _FIRST_USER_BLOCK_NBYTES
        return False


def beginning_of(key: str) -> Beginning:
    """Returns as much of the beginning of an object as tells that it is an HDF5 file, not fetched yet."""
    return Beginning(key, len(_SIGNATURE))


def begins_hdf5(beginning: Beginning) -> bool:
    """Returns whether an object begins as an HDF5 file does; False also where that could not be told."""
    return beginning.body == _SIGNATURE
