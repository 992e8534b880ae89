"""How many requests may be in flight to a store."""

from __future__ import annotations

__all__ = ["Limit"]

_START_REQUESTS = 64
_MIN_REQUESTS = 4


class Limit:
    """How many requests may be in flight: additive increase, multiplicative decrease between 4 and `most`.

    It doubles in the time of one reply until the store first asks for less.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._current = float(min(_START_REQUESTS, most))
        self._throttled = False
        self._reduced_at = float("-inf")

    @property
    def current(self) -> int:
        """Requests in flight at most."""
        return max(int(self._current), min(_MIN_REQUESTS, self._most))

    def succeeded(self) -> None:
        """Notes a reply."""
        step = 1 / self._current if self._throttled else 1.0
        self._current = min(self._current + step, float(self._most))

    def throttled(self, now_s: float) -> None:
        """Notes that a store asks for fewer requests; those of the same second count once."""
        self._throttled = True
        if now_s - self._reduced_at >= 1:
            self._reduced_at = now_s
            self._current = max(self._current / 2, float(min(_MIN_REQUESTS, self._most)))
