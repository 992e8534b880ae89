"""Attempts at one request: again after what may go better next time, and never more at once than the limit allows."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from voxfetch.errors import InternalError, RetriesExhaustedError, StoreError, StoreTimeoutError, VoxfetchError
from voxfetch.store import TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sized

    from voxfetch.limit import Limit
    from voxfetch.options import RetryPolicy
    from voxfetch.store import RemoteStore

__all__ = ["Attempts"]

_T = TypeVar("_T")

_DEADLINE_S = 120.0
"""Time after which a request is not tried again."""


class Attempts:
    """The attempts of one scheduler, on its loop."""

    def __init__(self, policy: RetryPolicy, limit: Limit, others: Sized, changed: Callable[[], None]) -> None:
        """`others` are requests in flight without an attempt here; `changed` is called when somebody waits for them."""
        self._policy = policy
        self._limit = limit
        self._others = others
        self._changed = changed
        self._not_before: dict[str, float] = {}
        self._attempting = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.retries = 0
        """Attempts that were not the first."""

    @property
    def are_waiting(self) -> bool:
        """Whether somebody waits for a turn."""
        return bool(self._waiting)

    def pause_s(self, store: RemoteStore) -> float:
        """Returns for how long a store has asked to be left alone; not above 0 for one that has not."""
        return self._not_before.get(store.identity, 0.0) - asyncio.get_running_loop().time()

    def forget(self, identity: str) -> None:
        """Drops what is known of a store."""
        self._not_before.pop(identity, None)

    async def make(
        self, attempt: Callable[[], Coroutine[Any, Any, _T]], store: RemoteStore, key: str, *, answered: bool = False
    ) -> _T:
        """Makes attempts until one succeeds, with growing waits between them (decorrelated jitter).

        `answered`: the first has its answer already, and waits for nothing.
        """
        policy, loop = self._policy, asyncio.get_running_loop()
        began_s = loop.time()
        wait_s = policy.base_s
        for number in itertools.count(1):
            waits = number > 1 or not answered
            pause_s = self.pause_s(store)
            if waits and pause_s > 0:
                await asyncio.sleep(pause_s)
            try:
                result = await (self._in_turn(attempt) if waits else attempt())
            except TransientError as failure:
                now_s = loop.time()
                wait_s = min(policy.cap_s, random.uniform(policy.base_s, 3 * wait_s))  # noqa: S311
                pause_s = max(wait_s, failure.retry_after_s or 0.0)
                if failure.throttled or isinstance(failure.error, StoreTimeoutError):
                    # Silence is what an overloaded store or line may have to say.
                    self._limit.throttled(now_s)
                    if failure.retry_after_s:
                        self._not_before[store.identity] = now_s + failure.retry_after_s
                if number >= policy.max_attempts or now_s + pause_s - began_s > _DEADLINE_S:
                    raise _exhausted(failure.error, number, f"{store.url}/{key}") from None
                self.retries += 1
                await asyncio.sleep(pause_s)
            except VoxfetchError as error:
                error.attempts = number
                raise
            else:
                self._limit.succeeded()
                return result
        raise InternalError("no attempt was made")

    async def _in_turn(self, attempt: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Makes an attempt when there is room: more requests may have begun than are allowed by now."""
        while self._attempting + len(self._others) >= self._limit.current:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            # From then on it is told of each reply.
            self._changed()
            try:
                await turn
            except asyncio.CancelledError:
                self.offer_turns()
                raise
        self._attempting += 1
        try:
            return await attempt()
        finally:
            self._attempting -= 1
            self.offer_turns()

    def offer_turns(self) -> None:
        """Lets those who wait go on as far as there is room."""
        free = self._limit.current - self._attempting - len(self._others)
        for _ in range(min(free, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)


def _exhausted(error: StoreError, attempts: int, key: str) -> StoreError:
    kind = StoreTimeoutError if isinstance(error, StoreTimeoutError) else RetriesExhaustedError
    message = f"failed {attempts} times, the last time: {error.message}"
    return kind(
        message,
        key=key,
        byte_range=error.byte_range,
        attempts=attempts,
        status=error.status,
        hint=error.hint or "is the store reachable? Engine(retry=RetryPolicy(...)) allows more attempts",
    )
