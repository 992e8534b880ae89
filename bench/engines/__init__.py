"""Who reads: one adapter a library, all behind ``Engine`` and ``Handle``.

An adapter imports its library inside ``load``, so that a missing one is skipped with its reason and never in the way
of the others. Each uses the library the way its documentation recommends for speed; ``configuration`` says what was
set and is printed with the results.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from bench.volumes import Volume
    from bench.workloads import Box

OWN = "voxfetch"
FLOORS = ("floor-1t", "floor-2t", "floor-prefix")

#: name -> (module in this package, variant given to its ``load``)
ENGINES: dict[str, tuple[str, str]] = {
    OWN: ("voxfetch", "default"),
    "tensorstore": ("tensorstore", "default"),
    "tensorstore-best": ("tensorstore", "best"),
    "zarr": ("zarr", "default"),
    "zarrs": ("zarr", "zarrs"),
    "zarrista": ("zarrista", "default"),
    "webknossos": ("webknossos", "default"),
    "floor-1t": ("floor", "1"),
    "floor-2t": ("floor", "2"),
    "floor-prefix": ("floor", "prefix"),
}


class UnsupportedVolumeError(Exception):
    """The engine cannot read this volume by design; the message says why. Not a failure."""


class Handle(Protocol):
    """One open array. Results are arrays in the axis order of the stored array."""

    def read(self, box: Box) -> np.ndarray[Any, Any]:
        """One box into a new array."""
        ...

    def read_many(self, boxes: Sequence[Box]) -> Sequence[np.ndarray[Any, Any]] | np.ndarray[Any, Any]:
        """All boxes, the fastest way the library offers: a list of arrays, or one array (box, *shape)."""
        ...


@runtime_checkable
class ReadsInto(Protocol):
    """A handle of a library that can read into a given array."""

    def read_into(self, box: Box, out: np.ndarray[Any, Any]) -> None:
        """One box into ``out``, C order, of the shape and type of the box."""
        ...


class Open(Protocol):
    """Opens a volume; every call gives a handle with caches of its own."""

    def __call__(self, volume: Volume) -> Handle:
        """A handle, or UnsupportedVolumeError."""
        ...


@dataclass(frozen=True)
class Engine:
    """A library in one configuration."""

    versions: dict[str, str]
    configuration: str
    open: Open


def load(name: str) -> Engine:
    """The engine of that name.

    Raises ImportError when its library is missing, UnsupportedVolumeError when it cannot run here at all.
    """
    module, variant = ENGINES[name]
    engine: Engine = import_module(f"bench.engines.{module}").load(variant)
    return engine
