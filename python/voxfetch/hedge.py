"""Requests that take far longer than most, sent once more: whichever reply comes first counts.

Source: Dean and Barroso, The Tail at Scale, Communications of the ACM 56(2), 2013.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from voxfetch.store import Ask, RemoteStore

__all__ = ["Hedges"]

_SHARE = 10
"""One request in so many is sent twice at most: a store that has become slow altogether is not asked more."""
_SPARE = 4
"""As many may be sent twice before that."""


class Hedges:
    """The requests in flight of one scheduler, on its loop. `again(number, store, ask)` sends one once more."""

    def __init__(
        self,
        after_s: float | None,
        loop: asyncio.AbstractEventLoop,
        again: Callable[[int, RemoteStore, Ask], Coroutine[None, None, None]],
        look: Callable[[], object],
    ) -> None:
        """`after_s`: when, None for never. `look` is called before a look at who is late."""
        self._after_s = after_s
        self._loop = loop
        self._again = again
        self._look = look
        self._sent: dict[int, tuple[float, RemoteStore, Ask]] = {}  # the oldest first
        self._twins: dict[int, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._begun = 0
        self.count = 0
        """Requests that were sent once more."""

    def begun(self, number: int, store: RemoteStore, ask: Ask) -> None:
        """Notes a request that is sent."""
        if self._after_s is None:
            return
        self._begun += 1
        self._sent[number] = self._loop.time(), store, ask
        if self._timer is None:
            self._timer = self._loop.call_later(self._after_s, self._sweep, self._after_s)

    def ended(self, number: int) -> None:
        """Notes the end of a request; the other one of its kind is given up."""
        self._sent.pop(number, None)
        twin = self._twins.pop(number, None)
        if twin is not None:
            twin.cancel()

    def _sweep(self, after_s: float) -> None:
        self._timer = None
        self._look()
        now_s = self._loop.time()
        for number, (since_s, store, ask) in tuple(self._sent.items()):
            if since_s + after_s > now_s:
                self._timer = self._loop.call_at(since_s + after_s, self._sweep, after_s)
                break
            del self._sent[number]
            if self.count < _SPARE + self._begun // _SHARE:
                self.count += 1
                twin = self._twins[number] = self._loop.create_task(self._again(number, store, ask))
                twin.add_done_callback(lambda _, number=number: self._twins.pop(number, None))
