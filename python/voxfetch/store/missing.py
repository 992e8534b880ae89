"""Whether a refusal means that there is no such object: some stores answer 403 to whoever may not list.

A wrong yes turns data into fill value without a word, so it takes all of: a key that can be a chunk's; another object
of the store that could be read, and still can after the refusal (access runs out, and a server that is asked too much
may refuse everything for a while); a 403 for each of some names that nobody has given (one alone may be a refusal that
comes and goes); and no 404 from this store, ever. Knows no transport: the store passes a `probe`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from voxfetch.errors import (
    CredentialsError,
    ObjectChangedError,
    PermissionDeniedError,
    RangeNotHonouredError,
    StoreError,
)
from voxfetch.store import Ask, TransientError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from voxfetch.store import Reply

    Probe = Callable[[str], Awaitable[bool | None]]
    Statuses = Literal["auto"] | int | tuple[int, ...]

__all__ = ["Missing", "may_be_chunk"]

# Documents of all formats, and whatever looks like one.
_DOCUMENT = re.compile(r"(|.*\.json|\.zarray|\.zgroup|\.zattrs|\.zmetadata|info|header\.wkw)")

# Names that nobody has given, all of which are refused by a store that hides so. A server that refuses three requests
# of ten at random is taken for one once in a hundred times.
_NAMES = 4


def may_be_chunk(key: str) -> bool:
    """Returns whether `key` can be the key of a chunk or shard, and is not one of a document."""
    return _DOCUMENT.fullmatch(key.rpartition("/")[2]) is None


class Missing:
    """What a store has learnt of its refusals. Made for one store; not picklable, see `witness`.

    `statuses` is `StoreOptions.missing_status`; `witness` is a key that was read before, None when none was.
    """

    __slots__ = ("_checks", "_hides", "_statuses", "witness")

    def __init__(self, statuses: Statuses, *, witness: str | None = None) -> None:
        self._statuses = statuses
        self._hides: bool | None = None
        self._checks: dict[asyncio.AbstractEventLoop, asyncio.Task[bool | StoreError | TransientError]] = {}
        self.witness = witness

    async def get(self, ask: Ask, attempt: Callable[[Ask], Awaitable[Reply | None]]) -> Reply | None:
        """Returns what `attempt(ask)` returns; None as well where its refusal means that there is no such object."""
        try:
            reply = await attempt(ask)
        except (StoreError, TransientError) as error:
            refusal = error
        else:
            if reply is None:
                # The store says so: its refusals mean what they say.
                self._hides = False
            elif self.witness is None:
                self.witness = ask.key
            return reply

        async def probe(key: str) -> bool | None:
            try:
                return None if await attempt(Ask(key, 0, 1)) is None else True
            except (RangeNotHonouredError, ObjectChangedError):
                return True
            except (PermissionDeniedError, CredentialsError):
                return False
            except StoreError:
                return None

        try:
            if await self._says(ask.key, refusal, probe):
                return None
            raise refusal
        finally:
            del refusal  # would hold itself, and what was read, through its traceback

    async def _says(self, key: str, refusal: StoreError | TransientError, probe: Probe) -> bool:
        """Returns whether `refusal`, the outcome of asking for `key`, means that there is no such object.

        `probe(key)` asks for a byte of an object: True if there is one, False if it is refused, None otherwise.
        Raises `CredentialsError` when what was readable is no longer, and what `probe` raises.
        """
        status = refusal.error.status if isinstance(refusal, TransientError) else refusal.status
        if self._statuses != "auto":
            statuses = self._statuses if isinstance(self._statuses, tuple) else (self._statuses,)
            # Expired credentials are no answer, whatever the status; a 401 is listed by who means it.
            return status in statuses and (status == 401 or not isinstance(refusal, CredentialsError))
        if not isinstance(refusal, PermissionDeniedError) or status != 403 or not may_be_chunk(key):
            return False
        if self.witness is None or self._hides is False:
            return False
        return await self._checked(self.witness, probe)

    async def _checked(self, witness: str, probe: Probe) -> bool:
        """One check for all refusals that arrived before it began."""
        import asyncio

        loop = asyncio.get_running_loop()
        before = self._checks.get(loop)
        if before is not None:
            await asyncio.wait((before,))
        task = self._checks.get(loop)
        if task is None or task is before:
            task = self._checks[loop] = loop.create_task(self._check(witness, probe))
            task.add_done_callback(lambda done: self._forget(loop, done))
        # Shielded: it is for all, and one of them may be cancelled.
        outcome = await asyncio.shield(task)
        if isinstance(outcome, bool):
            return outcome
        raise outcome

    def _forget(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[bool | StoreError | TransientError]) -> None:
        if self._checks.get(loop) is task:
            del self._checks[loop]

    async def _check(self, witness: str, probe: Probe) -> bool | StoreError | TransientError:
        """Returns an exception instead of raising it: those who wait may be gone."""
        try:
            if self._hides is None and not await _all_refused(probe):
                self._hides = False
            if self._hides is False:
                return False
            readable = await probe(witness)
        except (StoreError, TransientError) as error:
            return error
        if readable is None:
            # Removed meanwhile, perhaps; another object will do.
            self.witness = None
        elif not readable:
            message = "what could be read before is refused now"
            return CredentialsError(message, key=witness, status=403, hint="have the credentials expired?")
        elif self._hides is None:
            # Only now: while everything is refused, so are names that nobody has given.
            self._hides = True
        return self._hides is True and readable is True


async def _all_refused(probe: Probe) -> bool:
    """Whether names that nobody has given are refused: one first, which tells of most stores."""
    import asyncio

    if await probe(_impossible_name()) is not False:
        return False
    others = await asyncio.gather(*(probe(_impossible_name()) for _ in range(_NAMES - 1)))
    return all(readable is False for readable in others)


def _impossible_name() -> str:
    import secrets

    return f"voxfetch-{secrets.token_hex(16)}"
