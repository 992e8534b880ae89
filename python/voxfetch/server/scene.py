"""`Scene`: how what is shown lies in space, and how a page draws it: `Shown` in, with positions across levels.

What pictures, the landing page and Neuroglancer's state have in common. Positions are corners: voxel i of an axis
covers i..i+1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import voxfetch as vf
from voxfetch.server.contrast import ShownChannel, shown_channels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from voxfetch.server.shown import Shown, ShownLevel

__all__ = ["Scene", "SceneLevel", "channels_of", "limits_of", "scene_of"]

#: Voxels of an array that stands alone that are looked at for a window.
_MAX_SAMPLED = 1 << 20


@dataclass(frozen=True, slots=True)
class SceneLevel:
    """One resolution; `position in finest voxels = factor * position in voxels of this level + offset` on each axis."""

    shown: ShownLevel
    factor: tuple[float, ...]
    offset: tuple[float, ...]

    @property
    def array(self) -> vf.Array:
        """The voxels."""
        return self.shown.view

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent in voxels."""
        return self.shown.shape


@dataclass(frozen=True, slots=True)
class Scene:
    """An image, or an array as an image of one level.

    `space` has the places of the axes drawn as x, y and z, where there are any; `channel` that of the channel axis;
    `colors` what a label image says of its objects: id -> RRGGBB. `channels` are empty until they are known,
    and of labels.
    """

    shown: Shown
    levels: tuple[SceneLevel, ...]
    axes: tuple[str, ...]
    space: Mapping[str, int]
    channel: int | None
    is_label: bool
    colors: Mapping[int, str]
    channels: tuple[ShownChannel, ...] = ()

    @property
    def finest(self) -> ShownLevel:
        """The finest level."""
        return self.levels[0].shown

    def at(self, position: float, level: int, axis: int) -> float:
        """A position in finest voxels -> in voxels of a level."""
        one = self.levels[level]
        return (position - one.offset[axis]) / one.factor[axis]


def scene_of(shown: Shown) -> Scene:
    """Returns the scene of an image or array.

    Raises `UnsupportedError` for no voxels, for voxels without shades, for fewer than two axes beside that of channels,
    and for two axes of one name.
    """
    finest = shown.levels[0]
    ndim = finest.view.ndim - (shown.channel_axis is not None)
    is_named = len(set(finest.view.axes)) == finest.view.ndim
    if finest.view.dtype.kind not in "biuf" or ndim < 2 or not finest.view.size or not is_named:
        message = f"{finest.shape} voxels of {finest.view.dtype} are no picture"
        raise vf.UnsupportedError(message, key=finest.view.url, hint="read it with numpy")
    is_label = shown.is_label
    if not is_label and finest.view.dtype.kind in "iu":
        # Nothing says so of arrays that stand alone; few images do, and integers of 64 bits are no intensities.
        nbytes = 4 if shown.kind == "array" else 8
        has_looks = isinstance(shown.node, vf.Image) and bool(shown.node.channels)
        is_label = not has_looks and finest.view.dtype.itemsize >= nbytes
    return Scene(
        shown=shown,
        levels=tuple(_level(level, finest) for level in shown.levels),
        axes=finest.view.axes,
        space=_space(finest.view, shown.channel_axis),
        channel=shown.channel_axis,
        is_label=is_label,
        colors=_colors(shown.node) if is_label else {},
    )


def _level(level: ShownLevel, finest: ShownLevel) -> SceneLevel:
    factors: list[float] = []
    offsets: list[float] = []
    for axis, (size, first) in enumerate(zip(level.scale, finest.scale, strict=True)):
        if not size or not first or (size == first and level.shape[axis] != finest.shape[axis]):
            # Nothing was said of the sizes of its voxels (OME-Zarr before 0.4).
            factors.append(finest.shape[axis] / max(1, level.shape[axis]))
            offsets.append(0.0)
        else:
            factors.append(size / first)
            offsets.append(((level.translation[axis] - finest.translation[axis]) / first) - (size / first - 1) / 2)
    return SceneLevel(level, tuple(factors), tuple(offsets))


def _space(array: vf.Array, channel: int | None) -> dict[str, int]:
    """The axes drawn as x, y, z: those of these names, else the last ones (of N5 and precomputed, the first)."""
    named = {name.lower(): i for i, name in enumerate(array.axes)}
    if {"x", "y"} <= named.keys():
        return {name: named[name] for name in "xyz" if name in named}
    others = [i for i in range(array.ndim) if i != channel]
    if array.format not in ("n5", "precomputed"):
        others.reverse()
    return dict(zip("xyz", others, strict=False))


def _colors(node: object) -> dict[int, str]:
    if not isinstance(node, vf.Image):
        return {}
    return {
        i: "".join(f"{part:02X}" for part in shade[:3]) for i, shade in node.label_colors.items() if 0 < i < 1 << 64
    }


async def channels_of(scene: Scene) -> tuple[ShownChannel, ...]:
    """Returns the channels with their windows; none of labels. Reads voxels where the file has no windows."""
    if scene.is_label:
        return ()
    found = await shown_channels(scene.shown)
    return found or await _of_array(scene)


async def _of_array(scene: Scene) -> tuple[ShownChannel, ...]:
    """Channels of an array that stands alone, all with one window: of voxels from its middle."""
    array = scene.levels[0].array
    shape = list(array.shape)
    while math.prod(shape) > _MAX_SAMPLED:
        longest = max(range(len(shape)), key=shape.__getitem__)
        shape[longest] = -(-shape[longest] // 2)
    start = [(extent - part) // 2 for extent, part in zip(array.shape, shape, strict=True)]
    try:
        voxels = (await array.read_box_async(start, shape)).astype(np.float64)
    except vf.DataError:
        # A window is no voxel; the slices say what is damaged.
        voxels = np.zeros(0)
    voxels = voxels[np.isfinite(voxels)]
    least, greatest = (float(voxels.min()), float(voxels.max())) if voxels.size else (0.0, 1.0)
    low, high = (float(one) for one in np.percentile(voxels, (1, 99.8))) if voxels.size else (0.0, 1.0)
    if array.dtype.kind == "b":
        least, greatest, low, high = 0.0, 1.0, 0.0, 1.0
    if not low < high:
        low, high = (least, greatest) if least < greatest else (low, low + 1.0)
    count = 1 if scene.channel is None else array.shape[scene.channel]
    colors = ("FF0000", "00FF00", "0000FF") if count == 3 else ("FFFFFF",)
    return tuple(
        ShownChannel(
            label=str(i) if count > 1 else scene.shown.name,
            color=colors[i % len(colors)],
            active=i < len(colors),
            low=min(least, low),
            high=max(greatest, high),
            start=low,
            end=high,
        )
        for i in range(count)
    )


def limits_of(channel: ShownChannel) -> tuple[float, float]:
    """The values that controls reach: some of what lies around the window, not all that the type can hold."""
    span = channel.end - channel.start
    return max(channel.low, channel.start - span), min(channel.high, channel.end + 2 * span)
