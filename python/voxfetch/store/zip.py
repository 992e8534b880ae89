"""A ZIP archive as a remote store: its members, without unpacking anything.

The archive is one object of another store, and its version that of all members. Opening takes its end and, where that
is not enough, the rest of the directory. An ask for a part of a stored member becomes one for a part of the archive;
the first for a member brings its local header as well (or two are sent at once, where that would bring much else), for
nothing else says for sure where the data begins. A deflated member is read and decoded whole. Sources: `archive`;
RFC-9 of OME-NGFF (.ozx), which asks for members that are stored as they are.
"""

from __future__ import annotations

import time
import zlib
from contextlib import nullcontext
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from voxfetch.errors import (
    LimitExceededError,
    NotFoundError,
    ObjectChangedError,
    RangeNotHonouredError,
    VoxfetchError,
)
from voxfetch.store import Ask, Reply, check_key, join_key, verify
from voxfetch.store.archive import (
    HEADER_NBYTES,
    STORED,
    TAIL_NBYTES,
    Directory,
    check_crc,
    check_readable,
    data_start,
    find_end,
    inflate,
)
from voxfetch.store.threads import Threads

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from weakref import WeakKeyDictionary

    from typing_extensions import Buffer

    from voxfetch.store import Clients, RemoteStore
    from voxfetch.store.archive import Member

__all__ = ["ZipStore"]

_T = TypeVar("_T")

TRUST_S = 60.0
"""How long a directory is believed that has no such member."""
MAX_DEFLATED_NBYTES = 256 << 20
"""Bytes of the largest member that is decoded whole for a part of it."""

# A part that begins nearer to the header than this is read together with it.
_NEAR_NBYTES = 64 << 10
# What takes longer to parse or to decode than handing it to a thread.
_LONG_NBYTES = 64 << 10
# Of members that are larger than this one is decoded at a time.
_LARGE_NBYTES = 8 << 20


class ZipStore:
    """The members of the archive at `key` in a store. Cheap to make and to pickle; reads the directory on first use."""

    __slots__ = ("_archive", "_key", "_locks", "_opened", "_threads")

    def __init__(self, archive: RemoteStore, key: str = "") -> None:
        self._archive = archive
        self._key = key
        self._opened: _Opened | None = None
        self._threads = Threads("voxfetch-zip")
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, _Locks] | None = None

    def __repr__(self) -> str:
        return f"ZipStore({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return self.identity == other.identity if isinstance(other, ZipStore) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.identity)

    def __reduce__(self) -> tuple[Callable[..., ZipStore], tuple[RemoteStore, str]]:
        return ZipStore, (self._archive, self._key)

    @property
    def url(self) -> str:
        """URL of the archive, and `|zip:`: what opens it again, with or without a path behind."""
        return f"{join_key(self._archive.url, self._key)}|zip:"

    @property
    def identity(self) -> str:
        """That of the archive; never shown."""
        return f"zip:{self._key}:{self._archive.identity}"

    def direct(self, ask: Ask, clients: Clients) -> None:
        """None: its answers are not those of a GET."""

    async def get(self, ask: Ask, clients: Clients) -> Reply | None:
        """Returns the bytes asked for, None when the archive has no such member. See `RemoteStore.get`.

        Raises `NotFoundError` when there is no archive, `DataError` for a broken one, `UnsupportedError`.
        """
        check_key(ask.key)
        verify.range_header(ask)
        try:
            return await self._get(ask, clients)
        except VoxfetchError as error:
            # The store of the archive knows but one key.
            error.key, error.byte_range = ask.key, verify.byte_range(ask)
            raise

    async def list(self, prefix: str, clients: Clients) -> Sequence[str]:
        """Returns the names directly under `prefix`, sorted."""
        check_key(prefix)
        return (await self._current(clients, TRUST_S)).directory.children(prefix)

    # --- a member

    async def _get(self, ask: Ask, clients: Clients) -> Reply | None:
        opened = await self._current(clients)
        if opened.directory.member(ask.key) is None:
            opened = await self._current(clients, TRUST_S)
        if ask.if_match not in {None, opened.etag}:
            raise ObjectChangedError("the archive was replaced while it was read")
        wanted = _wanted(ask, opened)
        try:
            return await self._reply(ask, opened, wanted, clients)
        except ObjectChangedError:
            if self._opened is opened:
                self._opened = None
            if ask.if_match is not None:
                raise
        opened = await self._current(clients)
        return await self._reply(ask, opened, _wanted(ask, opened), clients)

    async def _reply(self, ask: Ask, opened: _Opened, wanted: _Wanted | None, clients: Clients) -> Reply | None:
        if wanted is None:
            return None
        member, start, end = wanted
        if member.method == STORED:
            body = await self._stored(opened, member, (start, end), clients)
            if (start, end) == (0, member.nbytes):
                await self._worked(lambda: check_crc(body, member), member.nbytes)
            return opened.reply(body, start, member)

        async def decoded(_: Ask) -> Reply:
            return await self._decoded(opened, member, clients)

        if verify.asked_nbytes(ask) is None:
            return await decoded(ask)
        clients.wholes.expect(self)
        return await clients.wholes.get(self, replace(ask, if_match=opened.etag), decoded)

    async def _decoded(self, opened: _Opened, member: Member, clients: Clients) -> Reply:
        """A deflated member."""
        nbytes, most = max(member.nbytes, member.stored), MAX_DEFLATED_NBYTES
        if nbytes > most:
            message = f"the member {member.name!r} is compressed as a whole, {nbytes:,} bytes; the limit is {most:,}"
            hint = "pack the archive again without compression (zip -0): then it is read by its parts"
            raise LimitExceededError(message, hint=hint)
        async with self._lock().large if nbytes > _LARGE_NBYTES else nullcontext():
            encoded = await self._stored(opened, member, (0, member.stored), clients)
            body = await self._worked(lambda: inflate(encoded, member), nbytes)
        return opened.reply(body, 0, member)

    async def _stored(self, opened: _Opened, member: Member, part: tuple[int, int], clients: Clients) -> memoryview:
        """Bytes `[start, end)` of the data of a member as they are in the archive."""
        version, starts = opened.version, opened.directory.starts
        (start, end), data = part, starts[member.row]
        if start == end:
            return memoryview(b"")
        if data:
            return await self._bytes(version, data + start, data + end, clients)
        least, most = member.header_nbytes
        if start <= _NEAR_NBYTES:
            first = member.offset
            header = body = await self._bytes(version, first, first + most + end, clients)
        else:
            import asyncio

            first = member.offset + least + start
            header, body = await asyncio.gather(
                self._bytes(version, member.offset, member.offset + HEADER_NBYTES + member.name_nbytes, clients),
                self._bytes(version, first, member.offset + most + end, clients),
            )
        data = starts[member.row] = data_start(header, member)
        at = data + start - first
        if at >= 0 and at + end - start <= len(body):
            return body[at : at + end - start]
        # The header is longer, or shorter, than it seemed.
        return await self._bytes(version, data + start, data + end, clients)

    # --- the archive

    async def _current(self, clients: Clients, trust_s: float = inf) -> _Opened:
        """The archive as it is, or was less than `trust_s` ago."""
        opened = self._opened
        if opened is None or opened.version.age_s > trust_s:
            async with self._lock().opening:
                opened = self._opened
                is_old = opened is not None and opened.version.age_s > trust_s
                if opened is None or (is_old and not await self._is_still(opened.version, clients)):
                    opened = self._opened = await self._open(clients)
        return opened

    async def _open(self, clients: Clients) -> _Opened:
        """Reads the directory."""
        reply = await self._archive.get(Ask(self._key, suffix=TAIL_NBYTES), clients)
        if reply is None:
            raise NotFoundError("there is no such archive", hint="check the spelling; a folder needs a / at its end")
        tail, total = bytes(reply.body), reply.total
        if total is None:
            raise RangeNotHonouredError("the store does not say how large the archive is")
        end, base = find_end(tail, total), total - len(tail)
        version = _Version(reply.etag, reply.modified, total)
        entries = tail[max(end.start - base, 0) : end.end - base]
        if end.start < base:
            entries = bytes(await self._bytes(version, end.start, base, clients)) + entries
        directory = await self._worked(lambda: Directory(entries, end), len(entries))
        etag = reply.etag
        if etag is None:
            # Whoever holds what was read of an archive that was replaced has to be told in another way.
            etag = f'"{total:x}-{zlib.crc32(entries):x}-{zlib.crc32((reply.modified or "").encode()):x}"'
        return _Opened(version, directory, etag)

    async def _is_still(self, version: _Version, clients: Clients) -> bool:
        try:
            await self._checked(version, Ask(self._key, suffix=1, if_match=version.etag), clients)
        except ObjectChangedError:
            return False
        return True

    async def _bytes(self, version: _Version, start: int, end: int, clients: Clients) -> memoryview:
        """Bytes `[start, end)` of the archive."""
        return memoryview((await self._checked(version, Ask(self._key, start, end, None, version.etag), clients)).body)

    async def _checked(self, version: _Version, ask: Ask, clients: Clients) -> Reply:
        """A part of this version of the archive."""
        reply = await self._archive.get(ask, clients)
        if reply is None:
            raise NotFoundError("the archive is gone")
        if not version.is_of(reply):
            raise ObjectChangedError("the archive was replaced while it was read")
        version.seen_s = time.monotonic()
        return reply

    async def _worked(self, work: Callable[[], _T], nbytes: int) -> _T:
        return work() if nbytes <= _LONG_NBYTES else await self._threads.run(work)

    def _lock(self) -> _Locks:
        import asyncio
        from weakref import WeakKeyDictionary

        if self._locks is None:
            self._locks = WeakKeyDictionary()
        return self._locks.setdefault(asyncio.get_running_loop(), _Locks())


class _Wanted(NamedTuple):
    """Bytes `[start, end)` of a member."""

    member: Member
    start: int
    end: int


def _wanted(ask: Ask, opened: _Opened) -> _Wanted | None:
    """What of which member is asked for, None where there is no such member."""
    member = opened.directory.member(ask.key)
    if member is None:
        return None
    check_readable(member)
    if verify.asked_nbytes(ask) is None and member.nbytes > ask.max_nbytes:
        raise verify.too_large(ask)
    return _Wanted(member, *verify.extent(ask, member.nbytes))


class _Locks:
    """Of one loop: who reads the directory, and who decodes a large member."""

    __slots__ = ("large", "opening")

    def __init__(self) -> None:
        import asyncio

        self.opening = asyncio.Lock()
        self.large = asyncio.Lock()


class _Version:
    """What the store of the archive says of a version of it, and when it was last seen (`seen_s`)."""

    __slots__ = ("_modified", "_total", "etag", "seen_s")

    def __init__(self, etag: str | None, modified: str | None, total: int) -> None:
        self.etag = etag
        self._modified = modified
        self._total = total
        self.seen_s = time.monotonic()

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.seen_s

    def is_of(self, reply: Reply) -> bool:
        """Whether a reply can be of this version: strong ETags decide, else what both say."""
        if self.etag is not None and reply.etag is not None:
            return self.etag == reply.etag
        modified = self._modified is None or reply.modified in {None, self._modified}
        return modified and reply.total in {None, self._total}


class _Opened(NamedTuple):
    """A version of the archive, its directory, and the ETag of all its members."""

    version: _Version
    directory: Directory
    etag: str

    def reply(self, body: Buffer, start: int, member: Member) -> Reply:
        return Reply(body, start, member.nbytes, self.etag, None)
