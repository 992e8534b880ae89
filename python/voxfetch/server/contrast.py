"""How the channels of an image are shown: label, colour and contrast window of each, of 1024 at most.

What the file says is taken. Else the window is what lies between the 1st and the 99.8th percentile of a part of the
coarsest level, at most a million voxels around its middle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import voxfetch as vf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxfetch.server.shown import Shown

__all__ = ["ShownChannel", "shown_channels"]

_MAX_SAMPLE_VOXELS = 1 << 20
#: No axis of the sample gets shorter, as long as there are channels to leave out.
_MIN_SAMPLE_EXTENT = 16
_MAX_CHANNELS = 1024
#: As many as vizarr shows at a time.
_MAX_ACTIVE = 6
_PERCENTILES = (1.0, 99.8)
_COLORS: dict[int, tuple[str, ...]] = {
    1: ("FFFFFF",),
    2: ("FF00FF", "00FF00"),
    3: ("FF0000", "00FF00", "0000FF"),
}
_MORE_COLORS = ("00FFFF", "FF00FF", "FFFF00", "FF0000", "00FF00", "0000FF")


@dataclass(frozen=True, slots=True)
class ShownChannel:
    """One channel: `color` is six hexadecimal digits; shown from `start` to `end` of what can be, `low` to `high`."""

    label: str
    color: str
    active: bool
    low: float
    high: float
    start: float
    end: float


async def shown_channels(shown: Shown) -> tuple[ShownChannel, ...]:
    """The channels of an image, one where it has no such axis; none of labels.

    Reads a part of the coarsest level where the file has no windows. Raises what reading does, but not for damaged
    data: a window is no voxel.
    """
    if shown.is_label or not shown.levels or not isinstance(shown.node, vf.Image):
        return ()
    axis = shown.channel_axis
    count = 1 if axis is None else min(shown.levels[0].shape[axis], _MAX_CHANNELS)
    told = [*shown.node.channels[:count], *[None] * (count - len(shown.node.channels))]
    sampled: list[NDArray[Any]] = []
    if any(one is None or one.window is None or not one.window.start < one.window.end for one in told):
        sampled = await _sample(shown, axis)
    found: list[ShownChannel] = []
    for number, one in enumerate(told):
        window = None if one is None else one.window
        if window is not None and window.start < window.end:
            low, high, start, end = window.min, window.max, window.start, window.end
        else:
            voxels = sampled[number] if number < len(sampled) else None
            low, high, start, end = _window(voxels, shown.levels[0].dtype)
        colors = _COLORS.get(count, _MORE_COLORS)
        found.append(
            ShownChannel(
                label=(one and one.label) or (f"{number}" if count > 1 else shown.name),
                color=(one and one.color) or colors[number % len(colors)],
                active=number < _MAX_ACTIVE if one is None else one.active,
                low=low,
                high=high,
                start=start,
                end=end,
            )
        )
    return tuple(found)


async def _sample(shown: Shown, axis: int | None) -> list[NDArray[Any]]:
    """Voxels of each channel from the middle of the coarsest level; fewer channels than there are, where many."""
    level = shown.levels[-1]
    extents = list(level.shape)
    rest = [k for k in range(len(extents)) if k != axis]
    while math.prod(extents) > _MAX_SAMPLE_VOXELS:
        largest = max(rest, key=extents.__getitem__, default=0)
        is_thin = extents[largest] <= _MIN_SAMPLE_EXTENT
        if axis is not None and is_thin and extents[axis] > 1:
            largest = axis
        extents[largest] = -(-extents[largest] // 2)
    start = [0 if k == axis else (whole - extents[k]) // 2 for k, whole in enumerate(level.shape)]
    try:
        voxels = level.cast(await level.view.read_box_async(start, extents))
    except vf.DataError:
        return []
    return [voxels] if axis is None else list(np.moveaxis(voxels, axis, 0))


def _window(voxels: NDArray[Any] | None, dtype: np.dtype[Any]) -> tuple[float, float, float, float]:
    """(min, max, start, end) of some voxels: of integers what the type holds, of others what is there."""
    flat = np.zeros(0, dtype) if voxels is None else voxels.reshape(-1)
    flat = np.abs(flat) if dtype.kind == "c" else flat
    flat = flat[np.isfinite(flat)] if dtype.kind in "fc" else flat
    if dtype.kind in "bmM":
        return 0.0, 1.0, 0.0, 1.0
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        low, high = float(info.min), float(info.max)
    else:
        low, high = (float(flat.min()), float(flat.max())) if flat.size else (0.0, 1.0)
    if not flat.size:
        return low, high, low, high
    start, end = (float(value) for value in np.percentile(flat.astype(np.float64), _PERCENTILES))
    if not start < end:
        # One value only: it is shown dark, the next one bright.
        end = start + max(1.0, abs(start) * 1e-6)
    return min(low, start), max(high, end), start, end
