"""An answer that came before its store was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from voxfetch import _core
    from voxfetch.store import Answer, Clients, Get, Landings, NoReply, Strayed
    from voxfetch.store.whole import Wholes

__all__ = ["Answered"]


class Answered:
    """Connections of which one GET has its answer already."""

    __slots__ = ("_answer", "_clients", "_get")

    def __init__(self, clients: Clients, get: Get, answer: Answer | NoReply) -> None:
        self._clients = clients
        self._get = get
        self._answer: Answer | NoReply | None = answer

    @property
    def wholes(self) -> Wholes:
        """Those of the connections."""
        return self._clients.wholes

    @property
    def idle_timeout_s(self) -> float:
        """That of the connections."""
        return self._clients.idle_timeout_s

    def knows(self, get: Get) -> bool:
        """Returns whether the next answer to a GET is the one that came before."""
        return self._answer is not None and get == self._get

    async def get(self, get: Get) -> Answer | NoReply:
        """Returns the answer to its GET the first time; sends whatever else there is to send."""
        answer = self._answer
        if answer is None or not self.knows(get):
            return await self._clients.get(get)
        self._answer = None
        return answer

    def land(self, engine: _core.RemoteEngine, requests: Landings, strayed: Strayed) -> None:
        """As the connections do."""
        self._clients.land(engine, requests, strayed)

    def drop(self, number: int) -> None:
        """As the connections do."""
        self._clients.drop(number)

    async def close(self) -> None:
        """Closes the connections."""
        await self._clients.close()
