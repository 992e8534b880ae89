"""A store that is a folder on disk."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

from voxfetch.errors import LimitExceededError, PermissionDeniedError, StoreError, VoxfetchError
from voxfetch.store import MAX_DOCUMENT_NBYTES, check_key, is_key

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

__all__ = ["LocalStore", "file_url", "is_inside", "regular_file", "translated"]

_ABSENT = {errno.ENOENT, errno.ENOTDIR}
_REFUSED = {errno.EACCES, errno.EPERM}


def file_url(path: str) -> str:
    """Returns the `file://` URL of an absolute path."""
    return "file://" + quote(path)


class LocalStore:
    """The folder `root` (absolute path). Cheap to make and to pickle.

    Links are followed, also out of the folder, unless `inside` is the path of a folder, without links in it: what lies
    elsewhere is refused then.
    """

    __slots__ = ("inside", "root")

    def __init__(self, root: str, inside: str | None = None) -> None:
        self.root = root
        self.inside = inside

    def __repr__(self) -> str:
        return f"LocalStore({self.root!r})"

    @property
    def url(self) -> str:
        """URL of the folder."""
        return file_url(self.root)

    def path(self, key: str) -> str:
        """Returns the absolute path of `key`. Raises `MetadataError` when it would leave the folder."""
        return os.path.join(self.root, check_key(key)) if key else self.root  # noqa: PTH118 - hot, and str is wanted

    def get(self, key: str) -> bytes | None:
        """Returns the bytes of a file, None when there is no such file (a folder is none)."""
        path = self.path(key)
        self._check(path)
        with regular_file(path) as descriptor:
            return None if descriptor is None else _read_all(descriptor, path)

    def get_many(self, keys: Sequence[str]) -> list[bytes | PermissionDeniedError | None]:
        """Returns the bytes of several files, None for those that are not there. Raises what `get` raises."""
        return [self.get(key) for key in keys]

    def ahead(self, keys: Sequence[str]) -> LocalStore:
        """Returns the store itself: files are near."""
        del keys
        return self

    place = path

    def exists(self, key: str) -> bool:
        """Returns whether there is a file of this key that may be read."""
        path = self.path(key)
        try:
            if self.inside is not None and not is_inside(os.path.realpath(path), self.inside):
                return False
            return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - see `path`
        except OSError as error:
            if error.errno in _ABSENT:
                return False
            raise translated(error, path) from error

    def list(self, prefix: str = "") -> list[str]:
        """Returns the names directly under `prefix`, sorted; without those that are no keys."""
        path = self.path(prefix)
        self._check(path)
        try:
            return sorted(filter(is_key, os.listdir(path)))  # noqa: PTH208 - see `path`
        except OSError as error:
            if error.errno in _ABSENT:
                return []
            raise translated(error, path) from error

    def _check(self, path: str) -> None:
        """Raises `PermissionDeniedError` for what may not be read."""
        if self.inside is not None and not is_inside(os.path.realpath(path), self.inside):
            raise PermissionDeniedError("a link leads out of the folder that was opened", key=path)


def is_inside(path: str, folder: str) -> bool:
    """Returns whether a path without links is that of a folder or lies in it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


@contextmanager
def regular_file(path: str) -> Generator[int | None]:
    """Opens a file for reading; None when there is no such file (a folder, a pipe is none).

    Raises `PermissionDeniedError` or `StoreError`, also for what goes wrong while it is read.
    """
    try:
        # Without O_NONBLOCK a named pipe would block for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise translated(error, path) from error
        yield None
        return
    try:
        yield descriptor if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError as error:
        if isinstance(error, VoxfetchError):
            raise
        raise translated(error, path) from error
    finally:
        os.close(descriptor)


def _read_all(descriptor: int, path: str) -> bytes:
    parts: list[bytes] = []
    remaining = MAX_DOCUMENT_NBYTES + 1
    # A read may be short, and the size that a file system reports may be wrong: the end is where read returns nothing.
    while remaining and (part := os.read(descriptor, min(remaining, 1 << 16))):
        parts.append(part)
        remaining -= len(part)
    if not remaining:
        message = f"a metadata document of more than {MAX_DOCUMENT_NBYTES:,} bytes"
        raise LimitExceededError(message, key=path, hint="is this a metadata document at all?")
    return b"".join(parts)


def translated(error: OSError, path: str) -> StoreError:
    """Returns what an error of the system becomes."""
    what = error.strerror or str(error)
    if error.errno in _REFUSED:
        return PermissionDeniedError(what, key=path, hint="check the permissions of the file and of its folders")
    return StoreError(what, key=path)
