"""What of a source is shown: arrays, images and groups in, `Picture` values out. Reads documents, no voxels."""

from __future__ import annotations

import itertools
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

import voxfetch as vf

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Picture", "members", "pictures"]

#: Images of a group that become layers, and what is opened to find them.
_MAX_IMAGES = 24
_MAX_OPENED = 200
#: More channels than these are a slider and not layers.
_MAX_CHANNELS = 24

_CHANNEL_NAMES = ("c", "ch", "channel")
_DISPLAYED = {"z": 1, "y": 2, "x": 3}


def members(group: vf.Group) -> list[vf.Array | vf.Image]:
    """The images below a group, its arrays if there are none. What cannot be opened is warned of, if anything can."""
    images: list[vf.Array | vf.Image] = []
    arrays: list[vf.Array | vf.Image] = []
    problems: list[vf.VoxfetchError] = []
    opened = itertools.count(1)

    def visit(group: vf.Group) -> None:
        for name in group:
            if next(opened) > _MAX_OPENED or len(images) > _MAX_IMAGES:
                raise _too_many(top, images)
            try:
                member = group[name]
            except vf.VoxfetchError as error:
                problems.append(error)
                continue
            if isinstance(member, vf.Group):
                visit(member)
            else:
                (images if isinstance(member, vf.Image) else arrays).append(member)

    top = group
    visit(group)
    found = images or [array for array in arrays if cast("vf.Array", array).ndim > 1]
    if len(found) > _MAX_IMAGES:
        raise _too_many(top, found)
    if not found:
        raise problems[0] if problems else vf.MetadataError("there is no image in this group", key=group.url)
    for problem in problems:
        warnings.warn(f"left out: {problem}", stacklevel=2)
    return found


def _too_many(group: vf.Group, found: Sequence[vf.Array | vf.Image]) -> vf.LimitExceededError:
    names = [one.url.removeprefix(group.url).lstrip("/") for one in found] or list(group)
    listed = ", ".join(names[:_MAX_IMAGES]) + (", ..." if len(names) > _MAX_IMAGES else "")
    message = f"a group with more than {_MAX_IMAGES} images or {_MAX_OPENED} members"
    return vf.LimitExceededError(message, key=group.url, hint=f"open one of them, such as {listed}")


class Picture(NamedTuple):
    """What is shown: arrays, finest first, whose last axes are z, y and x (or the colours, `rgb`)."""

    arrays: list[vf.Array]
    name: str
    is_label: bool
    channels: Sequence[Any]
    channel_axis: int | None
    rgb: bool
    metadata: dict[str, Any]
    #: Of labels that the file gives a colour to.
    colors: Mapping[int, tuple[int, int, int, int]]

    @property
    def split(self) -> int:
        """How many channels become layers; 0 when they do not, or there are none."""
        count = 0 if self.channel_axis is None or self.rgb else self.arrays[0].shape[self.channel_axis]
        return count if count <= _MAX_CHANNELS else 0

    @property
    def shown(self) -> Sequence[Any]:
        """The channels whose looks the layers take; none where several are one layer."""
        return self.channels if self.split or len(self.channels) == 1 else ()


def pictures(found: vf.Array | vf.Image) -> Iterator[Picture]:
    """Yields the picture that an array or an image is, and those of its labels. Raises `UnsupportedError`."""
    if not isinstance(found, vf.Image):
        yield _picture([found], found, is_label=_is_wide(found.dtype, 4))
        return
    # Integers of 64 bits in N5 are segmentations, of which only Paintera's say so.
    is_label = found.is_label or (found.format == "N5" and _is_wide(found.levels[0].dtype, 8))
    yield _picture(_pyramid(found.levels), found, is_label=is_label, channels=found.channels)
    for name in found.labels if found.format.startswith("OME-Zarr") else ():
        try:
            label = found.labels[name]
        except vf.VoxfetchError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
        else:
            yield _picture(_pyramid(label.levels), label, is_label=True)


def _is_wide(dtype: np.dtype[Any], nbytes: int) -> bool:
    return dtype.kind in "iu" and dtype.itemsize >= nbytes


def _picture(
    arrays: Sequence[vf.Array], found: vf.Array | vf.Image, *, is_label: bool, channels: Sequence[Any] = ()
) -> Picture:
    finest = arrays[0]
    if finest.dtype.kind not in "biuf":
        raise vf.UnsupportedError(f"voxels of type {finest.dtype} are not shown by napari", key=finest.url)
    is_label = is_label and finest.dtype.kind in "iu"
    axes = _display_order(finest)
    channel = next((name for name in axes if name.lower() in _CHANNEL_NAMES), None)
    count = 1 if channel is None else finest.shape[finest.axes.index(channel)]
    # Samples of a voxel together, or the one kind of layer of WEBKNOSSOS that has three bytes.
    together = (count in (3, 4) and channel == finest.axes[-1]) or (count == 3 and finest.format == "wkw")
    rgb = together and finest.dtype == np.uint8 and not is_label
    if rgb:
        axes = (*(name for name in axes if name != channel), cast("str", channel))
    seen = [array if axes == array.axes else array.with_axes(axes) for array in arrays]
    place = None if channel is None else axes.index(channel)
    name = found.name if isinstance(found, vf.Image) else found.url.rstrip("/").rpartition("/")[2]
    metadata = {"url": found.url, "format": found.format, "attrs": dict(found.attrs)}
    colors: Mapping[int, tuple[int, int, int, int]] = {}
    if isinstance(found, vf.Image) and is_label:
        colors = found.label_colors
    picture = Picture(seen, name, is_label, channels, place, rgb, metadata, colors)
    if finest.ndim - (rgb or picture.split > 0) < 2:
        raise vf.UnsupportedError(f"{finest.shape} voxels are no picture", key=finest.url, hint="read it with numpy")
    return picture


def _display_order(array: vf.Array) -> tuple[str, ...]:
    """The axes of an array with z, y and x at the end; those of N5 without names are in the order of Fortran."""
    axes = array.axes
    if len(set(axes)) < len(axes):
        return axes
    if array.format == "n5" and not any(name.lower() in _DISPLAYED for name in axes):
        return axes[::-1]
    return tuple(sorted(axes, key=lambda name: _DISPLAYED.get(name.lower(), 0)))


def _pyramid(levels: Sequence[vf.Level]) -> list[vf.Level]:
    """The levels that napari can show as one picture: each smaller than the one before, over the same box."""
    ordered = sorted(levels, key=lambda level: -level.size)
    shown = ordered[:1]
    for level in ordered[1:]:
        if not _same_box(ordered[0], level):
            warnings.warn(f"left out, for it covers another box than the finest level: {level!r}", stacklevel=2)
        elif level.size < shown[-1].size:
            shown.append(level)
    return shown


def _same_box(finest: vf.Level, level: vf.Level) -> bool:
    """Whether two levels begin and end within one voxel of the coarser."""
    for axis, size in enumerate(level.scale):
        first = finest.scale[axis]
        if size == first and level.shape[axis] != finest.shape[axis]:
            # Nothing was said of the sizes of its voxels (OME-Zarr before 0.4).
            continue
        begin = (level.translation[axis] - size / 2) - (finest.translation[axis] - first / 2)
        end = begin + level.shape[axis] * size - finest.shape[axis] * first
        if max(abs(begin), abs(end)) > abs(size) * 1.001:
            return False
    return True
