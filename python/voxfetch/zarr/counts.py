"""How many reads of zarr arrays were accelerated, and why others were not."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Counts", "Report", "whole"]


@dataclass(frozen=True, slots=True)
class Report:
    """Reads since the start of the process, or the last `reset`. `str()` says it in one line.

    A read is one call of zarr into its codec pipeline, such as one `array[...]`, also one that raised. `reasons` counts
    by what they say why reads went through zarr's own codecs. `doubts` are what the store of an array cannot guarantee
    (empty for all arrays together).
    """

    accelerated: int
    not_accelerated: int
    reasons: Mapping[str, int]
    doubts: tuple[str, ...] = ()
    _reset: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)

    def reset(self) -> None:
        """Starts to count at zero again."""
        self._reset()

    def __str__(self) -> str:
        total = self.accelerated + self.not_accelerated
        text = f"{self.accelerated:,} of {total:,} reads accelerated"
        if self.reasons:
            reasons = ", ".join(f"{reason} ({count:,})" for reason, count in self.reasons.items())
            text += f"; {self.not_accelerated:,} not: {reasons}"
        return "; ".join((text, *self.doubts))


class Counts:
    """Counts reads, from any number of threads: each has counters of its own, as a lock does not survive a fork."""

    def __init__(self) -> None:
        self._counters: dict[tuple[int, str], int] = {}

    def add(self, reason: str = "") -> None:
        """Counts a read that was accelerated, or was not for a reason."""
        key = (threading.get_ident(), reason)
        self._counters[key] = self._counters.get(key, 0) + 1

    def report(self, doubts: tuple[str, ...] = ()) -> Report:
        """Returns the counts as they are now."""
        totals: dict[str, int] = {}
        for (_, reason), count in list(self._counters.items()):
            totals[reason] = totals.get(reason, 0) + count
        accelerated = totals.pop("", 0)
        return Report(accelerated, sum(totals.values()), totals, doubts, self.reset)

    def reset(self) -> None:
        """Starts at zero again."""
        self._counters = {}


whole = Counts()
"""The reads of all arrays of this process: module state, for a report that needs no array."""
