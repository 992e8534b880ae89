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
    from collections.abc import Iterable, Sequence

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
    f"{OWN}-zarr": ("zarr", "voxfetch"),
    "zarr34": ("zarr", "new-default"),
    "zarr34-fused": ("zarr", "new-fused"),
    "zarrista": ("zarrista", "default"),
    "webknossos": ("webknossos", "default"),
    "floor-1t": ("floor", "1"),
    "floor-2t": ("floor", "2"),
    "floor-prefix": ("floor", "prefix"),
    f"{OWN}-f": ("voxfetch", "f"),
    "tensorstore-f": ("tensorstore", "f"),
    "wkw": ("wkw", "default"),
    "z5py": ("z5py", "default"),
    "cloudvolume": ("cloudvolume", "default"),
    "h5py": ("h5py", "default"),
    "zarr-kerchunk": ("zarr", "kerchunk"),
    "blosc2": ("blosc2", "default"),
    "blosc2-mmap": ("blosc2", "mmap"),
}
_FOR_FORMATS = (
    f"{OWN}-f", "tensorstore-f", "wkw", "z5py", "cloudvolume", "h5py", "zarr-kerchunk", "blosc2", "blosc2-mmap",
)  # fmt: skip
_THROUGH_ZARR = (f"{OWN}-zarr", "zarr34", "zarr34-fused")
#: Names that stand for several engines.
ENGINE_GROUPS = {
    "of_zarr": tuple(name for name in ENGINES if name not in (*_FOR_FORMATS, *_THROUGH_ZARR)),
    "through_zarr": (*_THROUGH_ZARR, "zarr", "zarrs"),
    "of_formats": (OWN, "tensorstore", "tensorstore-best", "zarr", "webknossos", *_FOR_FORMATS),
}


class UnsupportedVolumeError(Exception):
    """The engine cannot read this volume by design; the message says why. Not a failure."""


def known(volume: Volume, *formats: str) -> None:
    """UnsupportedVolumeError where a volume has none of these formats."""
    if volume.format not in formats:
        raise UnsupportedVolumeError(f"it does not read {volume.format}")


def x_is_fastest(volume: Volume) -> None:
    """UnsupportedVolumeError where a format does not store voxels with x fastest and shows x before z."""
    if volume.axes.index("x") > volume.axes.index("z"):
        raise UnsupportedVolumeError("in C order as it is stored")


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


def is_own(engine: str) -> bool:
    """Whether an engine is voxfetch, in whichever variant."""
    return engine.split("-", 1)[0] == OWN


def own(engines: Iterable[str]) -> str | None:
    """The engine that is compared with the others: voxfetch, else its first variant; None where there is neither."""
    mine = [engine for engine in engines if is_own(engine)]
    return OWN if OWN in mine else next(iter(mine), None)


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
