"""Connections of one engine: the compiled HTTP client, whose thread does what a request costs, on an asyncio loop."""

from __future__ import annotations

import asyncio
import itertools
import sys
from typing import TYPE_CHECKING

from voxfetch import _core
from voxfetch.errors import StoreError
from voxfetch.store import Answer, NoReply
from voxfetch.store.whole import Wholes
from voxfetch.wake import clear_wake_ups, close_descriptors, wake_descriptors

if TYPE_CHECKING:
    from voxfetch.store import Get, Landings, Strayed

__all__ = ["Connections"]


class Connections:
    """Connections of one engine, process and loop, made on first use; `get` is called on that loop only."""

    __slots__ = (
        "_client",
        "_closed",
        "_fds",
        "_futures",
        "_idle_timeout_s",
        "_strayed",
        "_tokens",
        "_unsent",
        "wholes",
    )

    def __init__(self, idle_timeout_s: float = 10) -> None:
        self._idle_timeout_s = idle_timeout_s
        self._client: _core.HttpClient | None = None
        self._fds = (-1, -1)
        self._futures: dict[int, asyncio.Future[Answer | NoReply]] = {}
        self._strayed: Strayed | None = None
        self._tokens = itertools.count()
        self._unsent: list[tuple[int, Get]] = []
        self._closed = False
        self.wholes = Wholes()
        """Objects of servers that ignore ranges."""

    @property
    def idle_timeout_s(self) -> float:
        """How long a reply may stand still."""
        return self._idle_timeout_s

    @property
    def in_flight(self) -> int:
        """Requests whose reply somebody waits for."""
        return len(self._futures)

    async def get(self, get: Get) -> Answer | NoReply:
        """Sends one GET. Raises `StoreError` after `close`."""
        loop = asyncio.get_running_loop()
        client, token = self._started(), next(self._tokens)
        future = self._futures[token] = loop.create_future()
        try:
            if not self._unsent:
                loop.call_soon(self._send)
            self._unsent.append((token, get))
            return await future
        finally:
            if self._futures.pop(token, None) is not None:
                client.cancel(token)

    def land(self, engine: _core.RemoteEngine, requests: Landings, strayed: Strayed) -> None:
        """Sends requests of the core, which takes the replies itself where they are exactly what is asked for.

        Any other is for `strayed`, with its number. Raises `StoreError` after `close`.
        """
        client, self._strayed = self._started(), strayed
        client.land(
            engine,
            [(n, (ask.start, ask.end, ask.suffix, ask.if_match, ask.max_nbytes), get) for n, ask, get in requests],
        )

    def drop(self, number: int) -> None:
        """Drops a request of `land` that nobody waits for."""
        if self._client is not None:
            self._client.cancel(number, lands=True)

    async def close(self) -> None:
        """Closes all connections, those of obstore as far as it lets us. A second call does nothing."""
        self._closed = True
        self.wholes.clear()
        client, self._client = self._client, None
        if client is not None:
            asyncio.get_running_loop().remove_reader(self._fds[0])
            client.close()
            close_descriptors(*self._fds)
            for future in tuple(self._futures.values()):
                future.cancel()
        if (native := sys.modules.get("voxfetch.store.native")) is not None:
            # Threads of obstore may still be handing over what was asked for.
            native.settle()

    def _started(self) -> _core.HttpClient:
        if self._closed:
            raise StoreError("the connections of this engine are closed")
        if self._client is None:
            self._fds = wake_descriptors()
            self._client = _core.HttpClient(self._fds[1], self._idle_timeout_s)
            asyncio.get_running_loop().add_reader(self._fds[0], self._drain)
        return self._client

    def _send(self) -> None:
        """Hands over all that were made in this turn of the loop."""
        unsent, self._unsent = self._unsent, []
        if self._client is None:
            return
        try:
            self._client.get([one for one in unsent if one[0] in self._futures])
        except Exception as error:  # noqa: BLE001 - those who wait are told
            for token, _ in unsent:
                if (future := self._futures.get(token)) is not None and not future.done():
                    future.set_exception(error)

    def _drain(self) -> None:
        clear_wake_ups(self._fds[0])
        if self._client is None:
            return
        for token, lands, status, headers, body, kind, errno in self._client.take():
            answer = NoReply(kind, status or None, errno) if kind else Answer(status, headers, body)
            if lands and self._strayed is not None:
                self._strayed(token, answer)
            elif (future := self._futures.pop(token, None)) is not None and not future.done():
                future.set_result(answer)
