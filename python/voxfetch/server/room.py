"""A bound on what is held at once, in bytes, for work of which each piece knows what it needs."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["Room"]


class Room:
    """Bytes of voxels that are held at once; one that needs more than there are gets all of them."""

    def __init__(self, nbytes: int) -> None:
        self._limit = nbytes
        self._taken = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def of(self, nbytes: int) -> AsyncGenerator[None]:
        """Waits until there is room, in turn, and holds it."""
        await self.take(nbytes)
        try:
            yield
        finally:
            self.give(nbytes)

    async def take(self, nbytes: int) -> None:
        """Waits until there is room, in turn; it is held until `give`."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((nbytes, turn))
        self._admit()
        try:
            await turn
        except BaseException:
            # One that left before its turn came has taken nothing.
            if turn.done() and not turn.cancelled():
                self._taken -= nbytes
            self._admit()
            raise

    def give(self, nbytes: int) -> None:
        """Gives back what `take` took."""
        self._taken -= nbytes
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            nbytes, turn = self._waiting[0]
            if not turn.cancelled():
                if self._taken and self._taken + nbytes > self._limit:
                    return
                self._taken += nbytes
                turn.set_result(None)
            self._waiting.popleft()
