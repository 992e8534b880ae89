"""One file on disk as a remote store: what `zip` reads a local archive through."""

from __future__ import annotations

import os
import time
import zlib
from typing import TYPE_CHECKING

from voxfetch.errors import ObjectChangedError, UnsupportedError, VoxfetchError
from voxfetch.store import Reply, check_key, verify
from voxfetch.store.archive import STARTS, TAIL_NBYTES, find_end
from voxfetch.store.local import file_url, regular_file, translated
from voxfetch.store.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from voxfetch.store import Ask, Clients

__all__ = ["FileStore", "is_zip"]

# No file system in use counts the time of a change in larger steps (FAT: 2 s; a few ms on Linux).
_CLOCK_STEP_NS = 2_000_000_000


class FileStore:
    """The file at `path` (absolute), under the empty key. Device, inode, size and time of change are its ETag.

    Within one step of the file system's clock a file that is written again may get all of them back. So of one that was
    written less than two seconds ago the directory of the archive, which has the checksums of all members, is looked at
    with each request, and is part of the ETag.

    It is opened for each request: nothing is held over a fork, and one that was replaced is noticed. `threads` are
    those that many files share.
    """

    __slots__ = ("_threads", "path")

    def __init__(self, path: str, threads: Threads | None = None) -> None:
        self.path = path
        self._threads = threads or Threads("voxfetch-file")

    def __repr__(self) -> str:
        return f"FileStore({self.path!r})"

    def __reduce__(self) -> tuple[Callable[[str], FileStore], tuple[str]]:
        return FileStore, (self.path,)

    @property
    def url(self) -> str:
        """URL of the file."""
        return file_url(self.path)

    @property
    def identity(self) -> str:
        """The path."""
        return f"file:{self.path}"

    def direct(self, ask: Ask, clients: Clients) -> None:
        """None: its answers are not those of a GET."""

    async def get(self, ask: Ask, clients: Clients) -> Reply | None:  # noqa: ARG002 - the protocol's
        """Returns the bytes asked for, None when there is no such file. See `RemoteStore.get`."""
        verify.range_header(ask)
        return None if check_key(ask.key) else await self._threads.run(lambda: _read(self.path, ask))

    async def list(self, prefix: str, clients: Clients) -> list[str]:  # noqa: ARG002
        """Raises `UnsupportedError`: a file has no listing."""
        raise UnsupportedError("a file has no listing", key=prefix or None)


def is_zip(path: str) -> bool:
    """Returns whether a file begins or ends as a ZIP archive does. Raises `PermissionDeniedError`, `StoreError`."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - str in
            if file.read(4) in STARTS:
                return True
            total = file.seek(0, os.SEEK_END)
            file.seek(max(total - TAIL_NBYTES, 0))
            tail = file.read(TAIL_NBYTES)
    except OSError as error:
        raise translated(error, path) from error
    try:
        find_end(tail, total)
    except VoxfetchError:
        return False
    return True


def _read(path: str, ask: Ask) -> Reply | None:
    with regular_file(path) as descriptor:
        if descriptor is None:
            return None
        status = os.fstat(descriptor)
        etag, total = _etag(descriptor, status), status.st_size
        start, end = verify.extent(ask, total)
        if verify.asked_nbytes(ask) is None and total > ask.max_nbytes:
            raise verify.too_large(ask)
        body = b"" if ask.if_match not in {None, etag} else _part(descriptor, start, end)
        # Before and after: a file that is written to in place has no moment at which it is another one.
        if ask.if_match not in {None, etag} or len(body) != end - start or not _is_still(descriptor, status, etag):
            raise ObjectChangedError("the file was replaced or changed", byte_range=verify.byte_range(ask))
        return Reply(body, start, total, etag, None)


def _part(descriptor: int, start: int, end: int) -> bytes:
    """Bytes `[start, end)` of a file, fewer where it ends."""
    parts: list[bytes] = []
    # A read may be short.
    while start < end and (part := os.pread(descriptor, end - start, start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _etag(descriptor: int, status: os.stat_result) -> str:
    age_ns = time.time_ns() - status.st_mtime_ns
    return _tag(status, None if age_ns > _CLOCK_STEP_NS else _directory_crc(descriptor, status.st_size))


def _is_still(descriptor: int, status: os.stat_result, etag: str) -> bool:
    """Whether the file is what it was at `status`, with as close a look as was taken then."""
    crc = None if etag == _tag(status, None) else _directory_crc(descriptor, status.st_size)
    return _tag(os.fstat(descriptor), crc) == etag


def _tag(status: os.stat_result, crc: int | None) -> str:
    tag = f"{status.st_dev:x}-{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"
    return f'"{tag}"' if crc is None else f'"{tag}-{crc:x}"'


def _directory_crc(descriptor: int, total: int) -> int:
    """CRC-32 of the directory of the archive; of its last bytes where it has none, or one that is too large."""
    base = max(total - TAIL_NBYTES, 0)
    tail = _part(descriptor, base, total)
    try:
        end = find_end(tail, total)
    except VoxfetchError:
        return zlib.crc32(tail)
    return zlib.crc32(_part(descriptor, end.start, end.end))
