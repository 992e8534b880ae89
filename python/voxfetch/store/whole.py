"""Whole objects in place of parts: for servers that ignore ranges and answer 200 with all of it to each ask for a part.

`verify.judge` takes such replies up to a size. From the first one on, the asks for parts of one object share one fetch,
and what it brought is kept for seconds: bytes of one version, which answers no ask for another or for bytes that it
does not have. The requests stay those for parts: a server that honours one is believed again. Errors are not kept, nor
what has no version: it may be a page of something else. Compressed members of an archive are read in the same way.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from voxfetch.errors import VoxfetchError
from voxfetch.store import TransientError, verify

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine

    from voxfetch.store import Ask, RemoteStore, Reply

    Attempt = Callable[[Ask], Awaitable[Reply | None]]
    Outcome = Reply | VoxfetchError | TransientError | None
    Place = tuple[str, str]  # identity of a store, key

__all__ = ["Wholes"]

UNUSED_S = 5.0
"""How long an object may be used after its last use."""
AGE_S = 15.0
"""How long it may be used at all: nobody gets older bytes."""
MOST_NBYTES = 32 << 20
LARGEST_NBYTES = 8 << 20


class _Kept(NamedTuple):
    whole: Reply
    since_s: float
    used_s: float

    @property
    def over(self) -> bool:
        return time.monotonic() >= min(self.since_s + AGE_S, self.used_s + UNUSED_S)


class Wholes:
    """What the stores of one engine, process and loop have learnt and keep; called on that loop only."""

    __slots__ = ("_fetches", "_ignoring", "_kept", "_sweeping", "nbytes")

    def __init__(self) -> None:
        # Of each store of which it was told: whether its server ignores ranges, as of the last reply.
        self._ignoring: dict[str, bool] = {}
        # A fetch, and the asks that wait for it.
        self._fetches: dict[Place, tuple[asyncio.Task[Outcome], list[Ask]]] = {}
        self._kept: dict[Place, _Kept] = {}  # the longest unused first
        self._sweeping: asyncio.TimerHandle | None = None
        self.nbytes = 0
        """Bytes of all objects that are kept."""

    async def get(self, store: RemoteStore, ask: Ask, attempt: Attempt) -> Reply | None:
        """Returns what is asked for, from what is kept or out of `attempt(ask)`, which may return the whole object.

        Raises what `attempt` raises; of the fetch for another ask only `TransientError`.
        """
        place = store.identity, ask.key
        while verify.asked_nbytes(ask) is not None:
            kept = self._kept.get(place)
            if kept is not None and not kept.over and _answers(kept.whole, ask):
                # Moved to the end.
                self._kept[place] = self._kept.pop(place)._replace(used_s=time.monotonic())
                return verify.cut(ask, kept.whole)
            if not self._ignoring.get(store.identity):
                break
            mine = place not in self._fetches
            outcome = await self._together(place, ask, lambda: self._outcome(store, ask, attempt))
            try:
                if isinstance(outcome, Exception):
                    if mine or isinstance(outcome, TransientError):
                        raise outcome
                elif mine or outcome is None or _answers(outcome, ask):
                    return _part(outcome, ask)
            finally:
                del outcome  # would hold itself, and what was read, through its traceback
        return _part(self._noted(store, ask, await attempt(ask)), ask)

    def expect(self, store: RemoteStore) -> None:
        """Notes beforehand that parts of the objects of a store come as whole ones, of which nobody has to be told."""
        self._ignoring[store.identity] = True

    def knows(self, store: RemoteStore) -> bool:
        """Returns whether the server of a store has ignored a range."""
        return store.identity in self._ignoring

    def clear(self) -> None:
        """Drops all that is kept."""
        self._kept.clear()
        self.nbytes = 0

    async def _together(self, place: Place, ask: Ask, fetch: Callable[[], Coroutine[Any, Any, Outcome]]) -> Outcome:
        """Waits for the one fetch of an object, which is given up when nobody waits for it any more."""
        import asyncio

        if place not in self._fetches:
            self._fetches[place] = asyncio.get_running_loop().create_task(fetch()), []
        task, waiting = shared = self._fetches[place]
        waiting.append(ask)
        try:
            await asyncio.wait((task,))
        finally:
            waiting.pop()
            if (task.done() or not waiting) and self._fetches.get(place) is shared:
                del self._fetches[place]
            if not waiting:
                task.cancel()
        return task.result()

    async def _outcome(self, store: RemoteStore, ask: Ask, attempt: Attempt) -> Outcome:
        """Returns an exception instead of raising it: those who wait may be gone."""
        try:
            return self._noted(store, ask, await attempt(ask))
        except (VoxfetchError, TransientError) as error:
            return error

    def _noted(self, store: RemoteStore, ask: Ask, reply: Reply | None) -> Reply | None:
        """Learns from a reply, and keeps it if it is one to keep."""
        asked, ignoring = verify.asked_nbytes(ask), self._ignoring
        if reply is None or asked is None:
            return reply
        if memoryview(reply.body).nbytes > asked:
            if store.identity not in ignoring:
                _tell(store.url)
            ignoring[store.identity] = True
        elif store.identity in ignoring and not _is_whole(reply):
            ignoring[store.identity] = False
        if ignoring.get(store.identity):
            self._keep((store.identity, ask.key), reply)
        return reply

    def _keep(self, place: Place, whole: Reply) -> None:
        self._drop(place)
        nbytes, version = memoryview(whole.body).nbytes, whole.etag or whole.modified
        if nbytes > LARGEST_NBYTES or version is None:
            return
        self._kept[place] = _Kept(whole, time.monotonic(), time.monotonic())
        self.nbytes += nbytes
        while self.nbytes > MOST_NBYTES:
            self._drop(next(iter(self._kept)))
        if self._sweeping is None:
            self._sweep()

    def _drop(self, place: Place) -> None:
        kept = self._kept.pop(place, None)
        self.nbytes -= 0 if kept is None else memoryview(kept.whole.body).nbytes

    def _sweep(self) -> None:
        import asyncio

        for place in [place for place, kept in self._kept.items() if kept.over]:
            self._drop(place)
        self._sweeping = asyncio.get_running_loop().call_later(UNUSED_S, self._sweep) if self._kept else None


def _is_whole(reply: Reply) -> bool:
    return memoryview(reply.body).nbytes == reply.total


def _answers(reply: Reply, ask: Ask) -> bool:
    """Whether a reply to another ask is a whole object that has what is asked for."""
    return _is_whole(reply) and ask.if_match in {None, reply.etag} and (ask.end or 0) <= (reply.total or 0)


def _part(reply: Reply | None, ask: Ask) -> Reply | None:
    return verify.cut(ask, reply) if reply is not None and _is_whole(reply) else reply


def _tell(url: str) -> None:
    from logging import getLogger

    message = "%s: the server ignores ranges, so that objects are read whole and large ones not at all; %s"
    getLogger("voxfetch").warning(message, url, "serve the data with a server that knows ranges")
