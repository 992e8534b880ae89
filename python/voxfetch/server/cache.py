"""What the chunks of all shown arrays share: encoded bytes kept, work in flight, reading ahead, threads that encode.

One `ChunkCache` serves all planes of a server, on one event loop. Chunks are kept in two lists, least recently used
first out: those that were asked for, and those that were only read ahead, which move to the first when they are asked
for and never push others out of it. Work on a chunk is done once however many ask for it, and is cancelled when the
last of them goes away.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from voxfetch.server.room import Room

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from voxfetch.server.answers import Body

__all__ = ["ChunkCache", "Counts", "Flight"]

_T = TypeVar("_T")

#: Bytes read ahead that nobody has asked for yet, and chunks being read ahead at a time.
AHEAD_BYTES = 32 << 20
AHEAD_AT_WORK = 64
#: Voxels that are encoded at a time, with what becomes of them; of a chunk that needs more, one.
ROOM_BYTES = 256 << 20
UNSENT_BYTES = 256 << 20
#: What an entry takes beside its bytes.
_ENTRY_BYTES = 512
#: Some wait for a store (lists of label images), most encode.
_THREADS = 8


@dataclass(slots=True)
class Counts:
    """What was done: chunks `asked` for; of these in the cache (`hits`) and joined to work in flight (`joined`).

    `fetched` counts reads for somebody, `ahead` those for nobody yet, `used` the ones of these that somebody asked for.
    """

    asked: int = 0
    hits: int = 0
    joined: int = 0
    fetched: int = 0
    ahead: int = 0
    used: int = 0


@dataclass(slots=True)
class Flight:
    """Work on a chunk, and how many wait for it."""

    key: Hashable
    task: asyncio.Task[Body | None]
    waiting: int = 0
    is_ahead: bool = False


@dataclass(slots=True)
class _Kept:
    """Bodies by key, bounded in bytes; those past their time are not given out."""

    limit: int
    nbytes: int = 0
    entries: OrderedDict[Hashable, tuple[Body, float]] = field(
        default_factory=OrderedDict["Hashable", "tuple[Body, float]"]
    )

    def take(self, key: Hashable) -> tuple[Body, float]:
        found = self.entries.pop(key)
        self.nbytes -= _size(found[0])
        return found

    def put(self, key: Hashable, body: Body, until: float) -> None:
        size = _size(body)
        if key in self.entries:
            self.take(key)
        if size > self.limit:
            return
        self.entries[key] = body, until
        self.nbytes += size
        while self.nbytes > self.limit:
            _, (old, _) = self.entries.popitem(last=False)
            self.nbytes -= _size(old)

    def get(self, key: Hashable) -> Body | None:
        found = self.entries.get(key)
        if found is None:
            return None
        if found[1] < time.monotonic():
            self.take(key)
            return None
        self.entries.move_to_end(key)
        return found[0]


def _size(body: Body) -> int:
    return memoryview(body.content).nbytes + _ENTRY_BYTES


class ChunkCache:
    """Encoded chunks by key. Used on one event loop; close it there."""

    def __init__(self, cache_bytes: int, *, ahead_bytes: int = AHEAD_BYTES) -> None:
        """`cache_bytes` bounds all that is kept; at most a quarter of it, and `ahead_bytes`, is read ahead."""
        self.counts = Counts()
        self._ahead = _Kept(min(ahead_bytes, cache_bytes // 4))
        self._kept = _Kept(cache_bytes - self._ahead.limit)
        self._flights: dict[Hashable, Flight] = {}
        self._ahead_at_work = 0
        self._ahead_nbytes = 0
        #: What chunks take that are decoded and encoded here.
        self.room = Room(ROOM_BYTES)
        #: What large chunks take that pass, until they are sent: who reads slowly holds up others of them alone.
        self.unsent = Room(UNSENT_BYTES)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="voxfetch-encode")
        self._closed = False

    @property
    def nbytes(self) -> int:
        """Bytes kept now, with what the entries themselves take."""
        return self._kept.nbytes + self._ahead.nbytes

    def begin(self, key: Hashable, fetch: Callable[[], Awaitable[Body | None]], keep_s: float) -> Body | Flight:
        """A chunk that is kept; else the work on it, in flight or begun now, for `landed` to wait for at once.

        What is fetched is kept for `keep_s`, in seconds; None is not kept.
        """
        self.counts.asked += 1
        body = self._kept.get(key)
        if body is None and (body := self._ahead.get(key)) is not None:
            self._kept.put(key, *self._ahead.take(key))
            self.counts.used += 1
        if body is not None:
            self.counts.hits += 1
            return body
        flight = self._flights.get(key)
        if flight is None:
            self.counts.fetched += 1
            flight = self._start(key, fetch, keep_s, is_ahead=False)
        else:
            self.counts.joined += 1
            if flight.is_ahead:
                flight.is_ahead = False
                self.counts.used += 1
        flight.waiting += 1
        return flight

    async def landed(self, flight: Flight) -> Body | None:
        """Waits for work that `begin` gave. Raises what the work raises, to all who wait for it."""
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                # Who asks from now on starts anew.
                self._forget(flight)
                flight.task.cancel()

    def look_ahead(
        self, key: Hashable, fetch: Callable[[], Awaitable[Body | None]], keep_s: float, nbytes: int
    ) -> None:
        """Fetches a chunk that may be asked for soon, of about `nbytes`, unless there is too much of that already."""
        if key in self._flights or key in self._kept.entries or key in self._ahead.entries:
            return
        is_much = self._ahead_at_work >= AHEAD_AT_WORK or self._ahead_nbytes + nbytes > self._ahead.limit
        if self._closed or is_much:
            return
        self.counts.ahead += 1
        self._ahead_at_work += 1
        self._ahead_nbytes += nbytes

        def landed(_: object) -> None:
            self._ahead_at_work -= 1
            self._ahead_nbytes -= nbytes

        self._start(key, fetch, keep_s, is_ahead=True).task.add_done_callback(landed)

    def was_asked(self, key: Hashable) -> bool:
        """Whether somebody asked for a chunk that is kept or in flight."""
        flight = self._flights.get(key)
        return key in self._kept.entries or (flight is not None and not flight.is_ahead)

    async def in_thread(self, work: Callable[[], _T]) -> _T:
        """Runs work that releases the GIL, or waits, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def aclose(self) -> None:
        """Cancels all work and waits for its end."""
        self._closed = True
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _start(
        self, key: Hashable, fetch: Callable[[], Awaitable[Body | None]], keep_s: float, *, is_ahead: bool
    ) -> Flight:
        async def work() -> Body | None:
            body = await fetch()
            if body is not None and keep_s > 0:
                kept = self._ahead if flight.is_ahead else self._kept
                kept.put(key, body, time.monotonic() + keep_s)
            return body

        flight = self._flights[key] = Flight(key, asyncio.ensure_future(work()), is_ahead=is_ahead)

        def landed(task: asyncio.Task[Body | None]) -> None:
            self._forget(flight)
            if not task.cancelled():
                task.exception()  # nobody may be left to look at it

        flight.task.add_done_callback(landed)
        return flight

    def _forget(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
