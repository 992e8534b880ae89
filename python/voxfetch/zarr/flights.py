"""What `Store` keeps besides the store it wraps: requests under way, and ends of objects.

`merged` is pure; `Flights` works on whatever loop asks; `Ends` is used by many threads. Byte ranges are half-open.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import TYPE_CHECKING, Any

from zarr.abc.store import RangeByteRequest

from voxfetch.zarr.fetch import Fetched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zarr.core.buffer import Buffer

__all__ = ["Ends", "Flights", "merged"]

# What an entry needs besides its bytes.
_ENTRY_NBYTES = 400
_TTL_S = 60


_Call = Callable[[], Coroutine[Any, Any, Fetched | None]]
_CallRange = Callable[[RangeByteRequest], Coroutine[Any, Any, Fetched | None]]
_Waiting = tuple[RangeByteRequest, "asyncio.Future[Buffer | None]"]


def merged(
    asked: Sequence[_Waiting], max_gap_bytes: int, max_request_bytes: int
) -> list[tuple[RangeByteRequest, list[_Waiting]]]:
    """Returns the requests to send, each with what it is for: ranges near together make one."""
    groups: list[tuple[RangeByteRequest, list[_Waiting]]] = []
    for one in sorted(asked, key=lambda one: one[0].start):
        ask = one[0]
        if groups:
            last, members = groups[-1]
            whole = RangeByteRequest(last.start, max(last.end, ask.end))
            small = whole.end - whole.start <= max_request_bytes or whole == last
            if small and ask.start - last.end <= max_gap_bytes:
                groups[-1] = (whole, [*members, one])
                continue
        groups.append((ask, [one]))
    return groups


class Flights:
    """Requests that have been sent, each once; ranges that are asked for in one turn of a loop are sent together."""

    def __init__(self, max_gap_bytes: int, max_request_bytes: int) -> None:
        self._bounds = (max_gap_bytes, max_request_bytes)
        # Keys begin with the loop: each sees its own only, in its own thread.
        self._tasks: dict[Hashable, asyncio.Task[Fetched | None]] = {}
        self._waiting: dict[Hashable, list[_Waiting]] = {}

    async def once(self, key: Hashable, call: _Call) -> Fetched | None:
        """Returns what the request for this key that is under way returns; makes it if there is none."""
        # Whoever is cancelled leaves the request to the others.
        return await asyncio.shield(self._task(key, call))

    async def part(self, key: Hashable, ask: RangeByteRequest, call: _CallRange) -> Buffer | None:
        """Returns the bytes of a range, out of a request that may hold more ranges of the same key."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting.setdefault((loop, key), [])
        if not waiting:
            loop.call_soon(self._send, loop, key, call)
        future: asyncio.Future[Buffer | None] = loop.create_future()
        waiting.append((ask, future))
        return await future

    def _send(self, loop: asyncio.AbstractEventLoop, key: Hashable, call: _CallRange) -> None:
        for whole, members in merged(self._waiting.pop((loop, key)), *self._bounds):
            task = self._task((key, whole), partial(call, whole))
            task.add_done_callback(partial(_hand_out, whole.start, members))

    def _task(self, key: Hashable, call: _Call) -> asyncio.Task[Fetched | None]:
        loop = asyncio.get_running_loop()
        task = self._tasks.get((loop, key))
        if task is None:
            task = self._tasks[loop, key] = loop.create_task(call())
            task.add_done_callback(partial(self._ended, (loop, key)))
        return task

    def _ended(self, place: Hashable, task: asyncio.Task[Fetched | None]) -> None:
        del self._tasks[place]
        if not task.cancelled():
            # Looked at, also when nobody waits any more.
            task.exception()


def _hand_out(start: int, members: list[_Waiting], task: asyncio.Task[Fetched | None]) -> None:
    for ask, future in members:
        if future.done():
            continue
        if task.cancelled():
            future.cancel()
        elif (error := task.exception()) is not None:
            future.set_exception(error)
        else:
            fetched = task.result()
            future.set_result(None if fetched is None else fetched.body[ask.start - start : ask.end - start])


class Ends:
    """Last bytes of objects, `max_nbytes` at most; what was used least recently goes first.

    Without a `ttl_s`, what has an ETag is trusted for 60 s and the rest is not kept. `turn` changes whenever something
    is forgotten: what was asked for before is not kept after.
    """

    def __init__(self, ttl_s: float | None, max_nbytes: int) -> None:
        self._ttl_s = ttl_s
        self._max_nbytes = max_nbytes
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._nbytes = 0
        self.turn = 0
        # Key of an object -> what was asked for -> the reply, and when it came.
        self._entries: dict[str, dict[Hashable, tuple[Fetched, float]]] = {}

    def _locked(self) -> threading.Lock:
        # After a fork a thread that is no more may hold it.
        if self._pid != os.getpid():
            self._begin()
        return self._lock

    def get(self, key: str, what: Hashable) -> Fetched | None:
        """Returns what is kept, None when there is nothing or it is too old."""
        with self._locked():
            found = self._entries.get(key, {}).get(what)
            if found is None:
                return None
            if time.monotonic() - found[1] >= self._lasts_s(found[0]):
                self._drop(key)
                return None
            self._entries[key] = self._entries.pop(key)
            return found[0]

    def put(self, key: str, what: Hashable, fetched: Fetched, turn: int) -> None:
        """Keeps a reply to what was asked for in that turn."""
        with self._locked():
            if turn != self.turn or self._lasts_s(fetched) <= 0:
                return
            known = self._entries.get(key, {})
            if what in known or any(one.version != fetched.version for one, _ in known.values()):
                self._drop(key)
            self._entries.setdefault(key, {})[what] = (fetched, time.monotonic())
            self._nbytes += len(fetched.body) + _ENTRY_NBYTES
            while self._nbytes > self._max_nbytes:
                self._drop(next(iter(self._entries)))

    def forget(self, key: str, *, below: bool = False) -> None:
        """Forgets an object, or all whose keys begin like that."""
        with self._locked():
            self.turn += 1
            for one in [one for one in self._entries if one.startswith(key)] if below else [key]:
                self._drop(one)

    def _drop(self, key: str) -> None:
        for fetched, _ in self._entries.pop(key, {}).values():
            self._nbytes -= len(fetched.body) + _ENTRY_NBYTES

    def _lasts_s(self, fetched: Fetched) -> float:
        if self._ttl_s is not None:
            return self._ttl_s
        return 0 if fetched.version.etag is None else _TTL_S
