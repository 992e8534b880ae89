"""An HDF5 file in a remote store as the Python file that h5py reads its structures through.

Bytes come in blocks through the engine, which tries again as for any other request, and are kept, within a limit, for
what is looked up later. Structures of HDF5 are small, and lie at the beginning, at the end, or anywhere in between: the
end is read first, which also tells the size and the version; then more of the beginning; then blocks, more at once
where they follow each other. Whatever comes later has to be of the same version.
"""

from __future__ import annotations

import gc
import io
from typing import TYPE_CHECKING

from voxfetch.errors import DataError, NotFoundError, ObjectChangedError, RangeNotHonouredError
from voxfetch.store import Ask, join_key
from voxfetch.table import ObjectVersion

if TYPE_CHECKING:
    from collections.abc import Generator

    from typing_extensions import Buffer

    from voxfetch.documents import RemoteDocuments
    from voxfetch.store import Reply

__all__ = ["Blocks", "RemoteFile"]

_BLOCK_NBYTES = 64 << 10
_TAIL_NBYTES = 64 << 10
_HEAD_NBYTES = 256 << 10
_MAX_ASK_NBYTES = 1 << 20
_MAX_KEPT_NBYTES = 16 << 20


class Blocks:
    """Parts of one version of the object `key`, kept least recently used first out. `nbytes` is its size.

    Raises `NotFoundError` where there is no such object, and what asking for it raises.
    """

    def __init__(self, store: RemoteDocuments, key: str) -> None:
        self._store = store
        self._key = key
        self._kept: dict[int, bytes] = {}
        self._next = -1
        self._ahead = 1
        reply = self._asked(Ask(key, suffix=_TAIL_NBYTES))
        if reply.total is None:
            raise RangeNotHonouredError("the store does not say how large the file is", key=self._place)
        self.nbytes = reply.total
        self.version = ObjectVersion(reply.etag, reply.modified, reply.total)
        self._keep(reply.start, memoryview(reply.body))
        if reply.start > 0:
            self._fetch(0, min(-(-_HEAD_NBYTES // _BLOCK_NBYTES), self._count))

    @property
    def _place(self) -> str:
        return join_key(self._store.url, self._key)

    @property
    def _count(self) -> int:
        return -(-self.nbytes // _BLOCK_NBYTES)

    def read(self, start: int, nbytes: int) -> Generator[memoryview]:
        """Yields bytes `[start, start + nbytes)` in pieces; they end where the file ends."""
        end = min(start + nbytes, self.nbytes)
        while start < end:
            number, at = divmod(start, _BLOCK_NBYTES)
            block = self._kept.pop(number, None)
            if block is None:
                block = self._missing(number, end)
            self._kept[number] = block
            piece = memoryview(block)[at : at + end - start]
            if not piece:
                raise DataError("a part of the file is shorter than it was", key=self._place)
            yield piece
            start += len(piece)

    def _missing(self, number: int, end: int) -> bytes:
        """Fetches a block, what is wanted of those that follow, and more where that goes on."""
        self._ahead = min(2 * self._ahead, _MAX_ASK_NBYTES // _BLOCK_NBYTES) if number == self._next else 1
        wanted = -(-end // _BLOCK_NBYTES) - number
        count = min(max(wanted, self._ahead), _MAX_ASK_NBYTES // _BLOCK_NBYTES, self._count - number)
        known = next((i for i in range(1, count) if number + i in self._kept), count)
        self._next = number + known
        self._fetch(number, known)
        return self._kept.pop(number)

    def _fetch(self, number: int, count: int) -> None:
        start, end = number * _BLOCK_NBYTES, min((number + count) * _BLOCK_NBYTES, self.nbytes)
        reply = self._asked(Ask(self._key, start, end, if_match=self.version.etag))
        theirs = ObjectVersion(reply.etag, reply.modified, reply.total)
        both = zip(self.version, theirs, strict=True)
        if any(own is not None and other is not None and own != other for own, other in both):
            raise ObjectChangedError("the file was replaced while its structures were read", key=self._place)
        self._keep(reply.start, memoryview(reply.body))

    def _keep(self, start: int, body: memoryview) -> None:
        """Takes the whole blocks of a body; one that is cut by the end of the file is whole."""
        end = start + len(body)
        for number in range(-(-start // _BLOCK_NBYTES), -(-end // _BLOCK_NBYTES)):
            first = number * _BLOCK_NBYTES
            last = min(first + _BLOCK_NBYTES, self.nbytes)
            if last <= end:
                self._kept[number] = bytes(body[first - start : last - start])
        while len(self._kept) > _MAX_KEPT_NBYTES // _BLOCK_NBYTES:
            del self._kept[next(iter(self._kept))]

    def _asked(self, ask: Ask) -> Reply:
        # h5py holds a lock here that it also takes when one of its objects is freed. Were a cycle of garbage that holds
        # such an object collected on the engine's thread, which knows nothing of it, both would wait for ever.
        collects = gc.isenabled()
        gc.disable()
        try:
            reply = self._store.ask(ask)
        finally:
            if collects:
                gc.enable()
        if reply is None:
            hint = "check the spelling; a folder needs a / at its end"
            raise NotFoundError("there is no such file", key=self._place, hint=hint)
        return reply


class RemoteFile(io.RawIOBase):
    """The file as h5py sees it. `error` is what a read raised, which h5py may tell in its own words only."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._at = 0
        self.error: BaseException | None = None

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Returns where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a place; nothing is read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._blocks.nbytes}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Buffer, /) -> int:
        """Fills a buffer, as far as the file goes; returns how many bytes that is."""
        out = memoryview(buffer).cast("B")
        done = 0
        try:
            for piece in self._blocks.read(self._at, len(out)):
                out[done : done + len(piece)] = piece
                done += len(piece)
        except BaseException as error:
            self.error = error
            raise
        self._at += done
        return done
