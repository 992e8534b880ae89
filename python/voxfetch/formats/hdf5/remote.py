"""An HDF5 file in a remote store as the Python file that h5py reads its structures through.

Bytes come in blocks through the engine, which tries again as for any other request, and are kept, within a limit, for
what is looked up later. Structures of HDF5 are small, and lie at the beginning, at the end, or anywhere in between: the
end, which also tells the size and the version, and the beginning are read first, then blocks, more at once where they
follow each other. Of a B-tree of chunks the nodes below one are fetched many at once, though the library
reads them one by one. Whatever comes later has to be of the same version.
"""

from __future__ import annotations

import gc
import io
import os
import threading
from contextlib import contextmanager
from struct import Struct
from typing import TYPE_CHECKING, TypeVar

from voxfetch.errors import DataError, NotFoundError, ObjectChangedError, RangeNotHonouredError
from voxfetch.store import Ask, join_key
from voxfetch.table import ObjectVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from typing_extensions import Buffer

    from voxfetch.documents import RemoteDocuments
    from voxfetch.store import Reply

__all__ = ["Blocks", "RemoteFile"]

_T = TypeVar("_T")

_BLOCK_NBYTES = 64 << 10
_TAIL_NBYTES = 64 << 10
_HEAD_NBYTES = 256 << 10
_MAX_ASK_NBYTES = 1 << 20
_MAX_KEPT_NBYTES = 16 << 20
_MOST_AT_ONCE = 32
_NODE_HEAD = Struct("<4sBBHQQ")
_CHILDREN = 64


class _Collection:
    """Garbage collection, off while any thread wants it off."""

    def __init__(self) -> None:
        # Collecting begins as soon as it is on again, and what is freed may come here.
        self._lock = threading.RLock()
        self._threads = 0
        self._was_on = False
        self._is_off = False
        self._knows_forks = False

    @contextmanager
    def off(self) -> Generator[None]:
        """The first to come switches it off, the last to go on again, if it was on."""
        with self._lock:
            if not self._knows_forks:
                os.register_at_fork(after_in_child=self._forked)
                self._knows_forks = True
            if self._threads == 0:
                self._was_on = gc.isenabled()
            self._threads += 1
            # As long as it is off, at the least: a fork may come between any two lines.
            self._is_off = True
            gc.disable()
        try:
            yield
        finally:
            with self._lock:
                self._threads = max(self._threads - 1, 0)
                if self._threads == 0:
                    if self._was_on:
                        gc.enable()
                    self._is_off = False

    def _forked(self) -> None:
        """In a child: those who wanted it off are not there any more, and the lock may be held by one of them."""
        self._lock = threading.RLock()
        if self._is_off and self._was_on:
            gc.enable()
        self._threads, self._is_off = 0, False


_collection = _Collection()
"""State of the module, because what it counts the users of is one switch of the whole process."""


class Blocks:
    """Parts of one version of the object `key`, kept least recently used first out. `nbytes` is its size.

    Raises `NotFoundError` where there is no such object, and what asking for it raises.
    """

    def __init__(self, store: RemoteDocuments, key: str) -> None:
        self._store = store
        self._key = key
        self._kept: dict[int, bytes] = {}
        self._soon: list[int] = []
        self._next = -1
        self._ahead = 1
        reply, head = self._waiting(lambda: store.ends(key, _HEAD_NBYTES, _TAIL_NBYTES))
        if reply is None:
            raise self._gone()
        if reply.total is None:
            raise RangeNotHonouredError("the store does not say how large the file is", key=self._place)
        self.nbytes = reply.total
        self.version = ObjectVersion(reply.etag, reply.modified, reply.total)
        self._take(reply, *(() if head is None else (head,)))
        if reply.start > 0 and head is None:
            self._fetch((0, self._count))

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
            if block is None and number in self._soon:
                self._fetch_soon(number)
                block = self._kept.pop(number)
            if block is None:
                block = self._missing(number, end)
            self._kept[number] = block
            piece = memoryview(block)[at : at + end - start]
            if not piece:
                raise DataError("a part of the file is shorter than it was", key=self._place)
            yield piece
            start += len(piece)

    def expect(self, places: Sequence[int], nbytes: int) -> None:
        """Takes note that so many bytes will be read soon from each of these places on, in this order."""
        ends = ((place // _BLOCK_NBYTES, -(-(place + nbytes) // _BLOCK_NBYTES)) for place in places)
        blocks = (number for first, end in ends for number in range(first, min(end, self._count)))
        self._soon = list(dict.fromkeys(blocks))

    def _fetch_soon(self, number: int) -> None:
        """Fetches a block that was expected, and those that are expected after it."""
        at = self._soon.index(number)
        spans: list[tuple[int, int]] = []
        for each in self._soon[at : at + _MOST_AT_ONCE]:
            if each in self._kept:
                continue
            first, count = spans[-1] if spans else (each, 0)
            if first + count == each and count < _MAX_ASK_NBYTES // _BLOCK_NBYTES:
                spans[-1:] = [(first, count + 1)]
            else:
                spans.append((each, 1))
        self._soon = self._soon[at + _MOST_AT_ONCE :]
        self._fetch(*spans)

    def _missing(self, number: int, end: int) -> bytes:
        """Fetches a block, what is wanted of those that follow, and more where that goes on."""
        self._ahead = min(2 * self._ahead, _MAX_ASK_NBYTES // _BLOCK_NBYTES) if number == self._next else 1
        wanted = -(-end // _BLOCK_NBYTES) - number
        count = min(max(wanted, self._ahead), _MAX_ASK_NBYTES // _BLOCK_NBYTES, self._count - number)
        known = next((i for i in range(1, count) if number + i in self._kept), count)
        self._next = number + known
        self._fetch((number, known))
        return self._kept.pop(number)

    def _fetch(self, *spans: tuple[int, int]) -> None:
        """Fetches, at once, so many blocks from each of these on."""
        asks: list[Ask] = []
        for number, count in spans:
            start, end = number * _BLOCK_NBYTES, min((number + count) * _BLOCK_NBYTES, self.nbytes)
            asks.append(Ask(self._key, start, end, if_match=self.version.etag))
        self._take(*self._asked(*asks))

    def _take(self, *replies: Reply) -> None:
        for reply in replies:
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

    def _asked(self, *asks: Ask) -> list[Reply]:
        replies = self._waiting(lambda: self._store.ask(*asks))
        found = [reply for reply in replies if reply is not None]
        if len(found) < len(replies):
            raise self._gone()
        return found

    def _gone(self) -> NotFoundError:
        hint = "check the spelling; a folder needs a / at its end"
        return NotFoundError("there is no such file", key=self._place, hint=hint)

    def _waiting(self, work: Callable[[], _T]) -> _T:
        # h5py holds a lock here that it also takes when one of its objects is freed. Were a cycle of garbage that holds
        # such an object collected on the engine's thread, which knows nothing of it, both would wait for ever.
        with _collection.off():
            return work()


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
        if children := nodes_below(bytes(out[: _NODE_HEAD.size]), out[:done]):
            # Nodes of a tree are all of one size.
            self._blocks.expect(children, done)
        return done


def nodes_below(head: bytes, node: memoryview) -> list[int]:
    """Returns where the nodes lie that a node of a B-tree of chunks points to, none for any other bytes.

    The tree is that of version 1, with offsets of 8 bytes and 2 * 32 children a node, as nearly all files have it; of
    others nothing is known beforehand. Source: HDF5 File Format Specification 3.0, III.A.1 "Version 1 B-trees".
    """
    if len(head) < _NODE_HEAD.size:
        return []
    sign, kind, level, used, _, _ = _NODE_HEAD.unpack(head)
    # A key, a child, a key, ... and a last key.
    key_nbytes, rest = divmod(len(node) - _NODE_HEAD.size - 8 * _CHILDREN, _CHILDREN + 1)
    if sign != b"TREE" or kind != 1 or level == 0 or rest or key_nbytes < 16 or used > _CHILDREN:
        return []
    firsts = (_NODE_HEAD.size + key_nbytes + i * (key_nbytes + 8) for i in range(used))
    return [int.from_bytes(node[first : first + 8], "little") for first in firsts]
