"""URLs at which the HTTP client of the engine reads objects of a bucket, which takes less CPU time than obstore.

In a public bucket each key has one; else obstore signs one for each object of which parts are read, once in a while.
An answer is taken where it is what was asked for, says that the object has changed, or asks for patience; of a public
bucket also where it says that there is no such key. All else is for obstore: regions, credentials that have run out,
objects that are stored compressed. Where that is the rule, nothing is asked this way any more.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Literal

from voxfetch.errors import ObjectChangedError, PermissionDeniedError, StoreError, VoxfetchError
from voxfetch.store import NoReply, TransientError, check_key
from voxfetch.store.answered import Answered
from voxfetch.store.faults import Refused
from voxfetch.store.http import reply_of, request_of, translated
from voxfetch.store.urls import Address, parse
from voxfetch.store.verify import cut

if TYPE_CHECKING:
    from voxfetch.store import Answer, Ask, Clients, Get, Reply
    from voxfetch.store.reach import Reach
    from voxfetch.store.session import Session

__all__ = ["PresignedUrls"]

_LEFT: Final = "left to obstore"
"""Stands for a reply of which nothing can be taken."""
_MAX_URLS = 4096
_FRESH_S = 2700.0
"""Seconds for which a URL is used: well below what it was signed for."""
_NEW_S = 240.0
"""Age below which a URL that is refused tells of the server: obstore signs with what lasts for five minutes more."""
_MAX_FAILURES = 8
"""So many answers that only obstore could make something of, and one of twenty more, are put up with."""
_OVER = float("-inf")
_INTERRUPTED = {"timeout", "stalled", "closed", "short", "lost"}
_HEADERS = {"user-agent": "voxfetch"}


class PresignedUrls:
    """The URLs of one store in one process, filled by `learn`."""

    __slots__ = ("_failures", "_root", "_session", "_signed", "_signs", "_used")

    def __init__(self) -> None:
        self._session: Session | None = None
        self._root: Address | None = None
        self._signs = False
        self._signed: dict[str, tuple[Address, float]] = {}
        self._used = 0
        self._failures = 0

    def request(self, ask: Ask, clients: Clients) -> Get | None:
        """Returns the GET of an ask, None where no URL is known for it that is still used, or was when it was sent."""
        until = float("inf")
        try:
            if self._root is not None:
                url = self._root.of(check_key(ask.key))
            else:
                address, until = self._signed[ask.key]
                url = address.of("")
            request = request_of(ask, url, _HEADERS)
        except (KeyError, VoxfetchError, ValueError):
            return None
        if isinstance(clients, Answered) and clients.knows(request):
            return request
        if until < time.monotonic() or self._failures > _MAX_FAILURES + self._used // 20:
            return None
        self._used += 1
        return request

    async def get(self, ask: Ask, request: Get, clients: Clients) -> Reply | Literal["left to obstore"] | None:
        """Returns the bytes asked for, "left to obstore" for all that it has to see.

        Of a public bucket also None when there is no such object. Raises `TransientError`, `ObjectChangedError`; of a
        public bucket `PermissionDeniedError`.
        """
        answer = await clients.get(request)
        if isinstance(answer, NoReply):
            if answer.kind not in _INTERRUPTED:
                return self._left(ask, request)
            # Another attempt is made by obstore: what stands between may not let such long URLs pass.
            if (signed := self._signed.get(ask.key)) is not None:
                self._signed[ask.key] = signed[0], _OVER
            raise translated(answer, ask)
        taken = self._taken(ask, answer)
        return self._left(ask, request) if isinstance(taken, str) else taken

    async def learn(self, session: Session, reach: Reach, ask: Ask) -> None:
        """Notes at which URL an object can be read, after `session` has read it or a part of it."""
        if session is not self._session:
            way = reach.way(session)
            self._session, self._signed, self._signs = session, {}, way == "sign"
            self._used = self._failures = 0
            self._root = None if way is None or self._signs else parse(way)
        if not self._signs or (ask.start is None and ask.suffix is None):
            return
        try:
            url = await session.sign(ask.key)
        except Refused:
            self._signs = False
            return
        address = parse(url)
        if address is None or address.of("") != url or session is not self._session:
            return
        while len(self._signed) >= _MAX_URLS:
            self._signed.pop(next(iter(self._signed)), None)
        self._signed[ask.key] = address, time.monotonic() + _FRESH_S

    def _taken(self, ask: Ask, answer: Answer) -> Reply | Literal["left to obstore"] | None:
        try:
            reply = reply_of(ask, answer)
            if reply is not None and answer.status == 200:
                reply = cut(ask, reply)
        except TransientError as error:
            # Some servers fail at signed URLs.
            if error.throttled or self._root is not None:
                raise
        except ObjectChangedError as error:
            # An empty object has no range; obstore's way knows that.
            if error.status == 412:
                raise
        except PermissionDeniedError:
            # Obstore would ask in the same way.
            if self._root is not None:
                raise
        except StoreError:
            pass
        else:
            # An object that was there before is gone, or the server knows no such URLs.
            return _LEFT if reply is None and self._root is None else reply
        return _LEFT

    def _left(self, ask: Ask, request: Get) -> Literal["left to obstore"]:
        address, until = self._signed.get(ask.key, (None, 0.0))
        if address is None:
            self._failures += 1
        elif address.of("") == request.url:
            # For others that are in flight as well. What was used for minutes has run out with its credentials.
            self._signed[ask.key] = address, _OVER
            self._failures += until - time.monotonic() > _FRESH_S - _NEW_S
        return _LEFT
