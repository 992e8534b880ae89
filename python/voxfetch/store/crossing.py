"""Coroutines of the loop in another thread, awaited here: those that go together wake either of the two loops once."""

from __future__ import annotations

import weakref
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from voxfetch.errors import StoreError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

__all__ = ["Crossing"]

_T = TypeVar("_T")


class Crossing:
    """The way from the running loop to another one, which it does not keep alive, and back."""

    def __init__(self, there: asyncio.AbstractEventLoop) -> None:
        import asyncio

        self._here = asyncio.get_running_loop()
        self._there = weakref.ref(there)
        self._going: deque[tuple[Coroutine[Any, Any, Any], asyncio.Future[Any]]] = deque()
        self._coming: deque[tuple[asyncio.Future[Any], asyncio.Task[Any]]] = deque()
        self._tasks: dict[asyncio.Future[Any], asyncio.Task[Any]] = {}

    def leads(self, there: asyncio.AbstractEventLoop) -> bool:
        """Whether it leads from the running loop to that one."""
        import asyncio

        return self._there() is there and self._here is asyncio.get_running_loop()

    async def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Returns what the coroutine returns on the other loop, raises what it raises.

        Raises `StoreError` when that loop ends before. When the waiting task is cancelled, the coroutine is.
        """
        there = self._there()
        if there is self._here:
            return await coroutine
        if there is None or there.is_closed():
            coroutine.close()
            raise StoreError("the event loop of the store is gone")
        future = self._here.create_future()
        self._going.append((coroutine, future))
        # Who finds a queue empty wakes the other side, which takes all there is by then.
        if len(self._going) == 1:
            there.call_soon_threadsafe(self._depart)
        try:
            return await future
        finally:
            if future.cancelled():
                with suppress(RuntimeError):
                    there.call_soon_threadsafe(self._drop, future)

    def _depart(self) -> None:
        import asyncio

        while self._going:
            coroutine, future = self._going.popleft()
            self._tasks[future] = task = asyncio.get_running_loop().create_task(coroutine)
            task.add_done_callback(partial(self._arrive, future))

    def _drop(self, future: asyncio.Future[Any]) -> None:
        task = self._tasks.get(future)
        if task is not None:
            task.cancel()

    def _arrive(self, future: asyncio.Future[Any], task: asyncio.Task[Any]) -> None:
        del self._tasks[future]
        self._coming.append((future, task))
        if len(self._coming) == 1:
            with suppress(RuntimeError):  # nobody is there any more
                self._here.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        while self._coming:
            future, task = self._coming.popleft()
            ended = StoreError("the event loop of the store has ended")
            error = ended if task.cancelled() else task.exception()
            if future.done():
                continue
            if error is None:
                future.set_result(task.result())
            else:
                future.set_exception(error)
