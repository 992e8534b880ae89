"""URLs at which the HTTP client of the engine reads objects of a bucket: a request costs half of what obstore's does.

In a public bucket each key has one; else obstore signs one for each object of which parts are read, once in a while.
An answer is taken where it is what was asked for, says that there is no such key or that the object has changed, or
asks for patience. All else is for obstore: regions, credentials that have run out, objects that are stored compressed.
Where that is the rule, nothing is asked this way any more.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Literal

from voxfetch.errors import ObjectChangedError, PermissionDeniedError, StoreError, VoxfetchError
from voxfetch.store import NoReply, TransientError, check_key
from voxfetch.store.faults import Refused
from voxfetch.store.http import reply_of, request_of, translated
from voxfetch.store.urls import Address, parse
from voxfetch.store.verify import cut

if TYPE_CHECKING:
    from voxfetch.store import Ask, Clients, Get, Reply
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

    def request(self, ask: Ask) -> Get | None:
        """Returns the GET of an ask, None where no URL is known for it."""
        if self._failures > _MAX_FAILURES + self._used // 20:
            return None
        try:
            if self._root is not None:
                url = self._root.of(check_key(ask.key))
            else:
                address, until = self._signed[ask.key]
                if until < time.monotonic():
                    return None
                url = address.of("")
            self._used += 1
            return request_of(ask, url, _HEADERS)
        except (KeyError, VoxfetchError, ValueError):
            return None

    async def get(self, ask: Ask, request: Get, clients: Clients) -> Reply | Literal["left to obstore"] | None:
        """Returns the bytes asked for, None when there is no such object, "left to obstore" for all that it has to see.

        Raises `TransientError`, `ObjectChangedError`; of a public bucket `PermissionDeniedError`.
        """
        answer = await clients.get(request)
        if isinstance(answer, NoReply):
            if answer.kind in _INTERRUPTED:
                raise translated(answer, ask)
            return self._left(ask, request)
        try:
            reply = reply_of(ask, answer)
            return reply if reply is None or answer.status != 200 else cut(ask, reply)
        except TransientError as error:
            # Some servers fail at signed URLs.
            if error.throttled:
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
        return self._left(ask, request)

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

    def _left(self, ask: Ask, request: Get) -> Literal["left to obstore"]:
        address, until = self._signed.get(ask.key, (None, 0.0))
        if address is not None and address.of("") != request.url:
            # Another was signed meanwhile.
            return _LEFT
        if address is not None and until - time.monotonic() < _FRESH_S - _NEW_S:
            # It has run out with its credentials, for others that are in flight as well.
            self._signed[ask.key] = address, float("-inf")
        else:
            self._failures += 1
            self._signed.pop(ask.key, None)
        return _LEFT
