"""One number and its limit."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass
class Figure:
    """What was measured. ``samples`` in ``unit``; their median is held against ``most``, where there is a limit.

    ``exact``: a count, which no load of the machine changes.
    """

    what: str
    unit: str
    samples: list[float]
    most: float | None = None
    exact: bool = False
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The median."""
        return median(self.samples)

    @property
    def holds(self) -> bool:
        """Whether the limit holds; true where there is none."""
        return self.most is None or self.value <= self.most

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def count(
    what: str, number: float, most: float | None = None, unit: str = "", more: dict[str, Any] | None = None
) -> Figure:
    """A figure that is the same in every run."""
    return Figure(what, unit, [number], most, exact=True, more=more or {})


def times(what: str, unit: str, seconds: Iterable[float], per_s: float, most: float | None = None) -> Figure:
    """Times in a unit of which ``per_s`` make a second."""
    return Figure(what, unit, [s * per_s for s in seconds], most)
