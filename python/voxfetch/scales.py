"""Which level of an image is meant: the levels and a mag or a resolution in, one of them out. Pure.

All levels have the same axes; `space` are the places of those in space. `where` names the image in errors.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from voxfetch.errors import SelectionError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from voxfetch.level import Level
    from voxfetch.ngff import Multiscale

__all__ = ["level_at_mag", "level_at_resolution"]

#: A mag is met when the factor between two scales is this close; odd extents make pyramids inexact.
_MAG_TOLERANCE = 0.05
#: A resolution is met when it is this close: 0.1 + 0.2 > 0.3.
_SCALE_TOLERANCE = 1e-6

_METRES = {
    "meter": 1.0,
    "metre": 1.0,
    "m": 1.0,
    "centimeter": 1e-2,
    "cm": 1e-2,
    "millimeter": 1e-3,
    "mm": 1e-3,
    "micrometer": 1e-6,
    "micron": 1e-6,
    "um": 1e-6,
    "\u00b5m": 1e-6,
    "\u03bcm": 1e-6,
    "nanometer": 1e-9,
    "nm": 1e-9,
    "angstrom": 1e-10,
    "picometer": 1e-12,
    "pm": 1e-12,
}


def level_at_mag(levels: Sequence[Level], space: Sequence[int], mag: str, multiscale: Multiscale, where: str) -> Level:
    """Returns the level with these factors to the finest scale.

    Raises `SelectionError` when none is near, `UnsupportedError` for one that lies elsewhere.
    """
    parts = mag.split("-")
    if len(parts) not in (1, 3) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise SelectionError(f"{mag!r} is not a mag such as 2-2-1", key=where)
    wanted = _triple(parts)
    for name, place in multiscale.elsewhere:
        if _triple(name.split("-")) == wanted:
            raise UnsupportedError(f"mag {mag} lies elsewhere, at {place!r}", key=where, hint="open that place itself")
    voxel = dict(zip((axis.name for axis in multiscale.axes), multiscale.voxel or (), strict=False))
    best, distance = levels[0], math.inf
    for level in levels:
        pairs = zip(_factors(levels, level, space, voxel), wanted, strict=True)
        found = max(abs(factor / part - 1) for factor, part in pairs)
        if found < distance:
            best, distance = level, found
    if distance > _MAG_TOLERANCE:
        names = ", ".join(_mag_name(_factors(levels, level, space, voxel)) for level in levels)
        raise SelectionError(f"no level with mag {mag}, there are {names}", key=where)
    return best


def level_at_resolution(
    levels: Sequence[Level], space: Sequence[int], resolution: Sequence[float] | float, unit: str | None, where: str
) -> Level:
    """Returns the coarsest level with voxels of at most this size, in `unit` (None: that of the file).

    Raises `SelectionError` when none is as fine.
    """
    axes = levels[0].axes
    asked = [float(resolution)] * len(space) if isinstance(resolution, int | float) else [*map(float, resolution)]
    places = space if len(asked) == len(space) else list(range(len(axes)))
    if len(asked) != len(places):
        names = ", ".join(axes[i] for i in space)
        message = f"resolution has {len(asked)} numbers: one per space axis ({names}) or one per axis is needed"
        raise SelectionError(message, key=where)
    if not all(size > 0 for size in asked):
        raise SelectionError("a resolution is made of positive numbers", key=where)
    best: Level | None = None
    for level in levels:
        sizes = [_size(level, i, unit, space, where) for i in places]
        fine = all(size <= limit * (1 + _SCALE_TOLERANCE) for size, limit in zip(sizes, asked, strict=True))
        if fine and (best is None or _voxel(level, places) > _voxel(best, places)):
            best = level
    if best is None:
        finest = " x ".join(f"{_size(levels[0], i, unit, space, where):g}" for i in places)
        message = f"no level is as fine as {' x '.join(f'{size:g}' for size in asked)}, the finest is {finest}"
        raise SelectionError(message, key=where, hint="level(0) is the finest there is")
    return best


def _factors(
    levels: Sequence[Level], level: Level, space: Sequence[int], voxel: Mapping[str, float]
) -> tuple[float, float, float]:
    """Factors of a level to the finest scale (`voxel`, by axis, where it is told) along x, y, z; else 1."""
    factors = {"x": 1.0, "y": 1.0, "z": 1.0}
    for i in space:
        if level.axes[i] in factors:
            finest = voxel.get(level.axes[i]) or min(abs(other.scale[i]) for other in levels)
            factors[level.axes[i]] = abs(level.scale[i]) / finest
    return factors["x"], factors["y"], factors["z"]


def _triple(parts: Sequence[str]) -> tuple[int, ...]:
    """Factors along x, y, z of the one or three parts of a mag."""
    return tuple(int(part) for part in parts) * (3 // len(parts))


def _mag_name(factors: Sequence[float]) -> str:
    near = [round(factor) if abs(round(factor) / factor - 1) <= _MAG_TOLERANCE else factor for factor in factors]
    return "-".join(f"{factor:.3g}" for factor in near)


def _size(level: Level, axis: int, unit: str | None, space: Sequence[int], where: str) -> float:
    """Size of a voxel along one axis in `unit`, or in the unit of the file."""
    size, stored = abs(level.scale[axis]), level.unit[axis]
    if unit is None or axis not in space or unit == stored:
        return size
    if stored not in _METRES or unit not in _METRES:
        message = f"axis {level.axes[axis]} is in {stored or 'no unit that the file names'}, not known in {unit}"
        raise SelectionError(message, key=where, hint="without unit=... numbers are taken as those of the file")
    return size * (_METRES[stored] / _METRES[unit])


def _voxel(level: Level, places: Sequence[int]) -> float:
    return math.prod(abs(level.scale[i]) for i in places)
