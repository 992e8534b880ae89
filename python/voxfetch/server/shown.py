"""`Shown`: what an array, an image or a group looks like under a preset, whatever format shows it.

A preset is what one family of viewers can read of what there is:

- `native`: axes in stored order, stored chunks, all levels, stored types; only units are spelt as OME-Zarr does.
- `viv` (vizarr, viv): axes in the order t, c, z, y, x; levels that are as deep in z, c and t as the finest, for viv
  takes the index of a plane for one of all levels; types of `voxfetch.server.casts`.
- `wk` (WEBKNOSSOS): levels whose scales are the finest ones times a power of two, when rounded, along each space axis;
  no unit on space axes that is no length; types of `voxfetch.server.casts`.

Images begin at their own first voxel, also those of WEBKNOSSOS and precomputed that begin elsewhere: where that is, in
units, is the translation of the level (`scale * origin`). So no empty voxels lie before the first one, and WEBKNOSSOS,
which takes the translation of the finest level for the corner of its bounding box, finds them where they were.
Of an array that is no level of an image, `origin` says it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import voxfetch as vf
from voxfetch.server.casts import Preset, cast_voxels, is_number, shown_dtype
from voxfetch.server.registry import label_names
from voxfetch.server.units import unit_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["MAX_CHUNK_VOXELS", "Shown", "ShownLevel", "capped", "show"]

#: Chunks that are encoded here have no more voxels than this.
MAX_CHUNK_VOXELS = 4 << 20
#: What larger ones are cut into is made of blocks of this side.
_PIECE = 64

_CANONICAL = {"time": "t", "ch": "c", "channel": "c"}
_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


@dataclass(frozen=True)
class ShownLevel:
    """An array as it is shown: a level of an image, or one that stands alone. Vectors are in shown axis order."""

    #: In stored axis order, unless it was opened as a view.
    source: vf.Array
    #: The same voxels in shown axis order and stored type.
    view: vf.Array
    axes: tuple[str, ...]
    dtype: np.dtype[Any]
    is_label: bool
    scale: tuple[float, ...]
    #: Position of the centre of the first voxel.
    translation: tuple[float, ...]
    unit: tuple[str | None, ...]
    #: Voxels and axes are those that are stored: bytes may pass as they are.
    is_stored: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent in voxels."""
        return self.view.shape

    @cached_property
    def chunks(self) -> tuple[int, ...]:
        """Extent of a chunk where chunks are encoded here: that of the source, or pieces of it where that is huge."""
        return capped(self.view.chunks)

    @cached_property
    def fill_value(self) -> Any:
        """Value of voxels that are not stored, a numpy scalar of the shown type."""
        return self.cast(np.asarray(self.view.fill_value))[()]

    def cast(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """Voxels of the view in the shown type."""
        return cast_voxels(voxels, self.dtype, is_label=self.is_label)


@dataclass(frozen=True)
class Shown:
    """A node of a source under a preset. `levels` are empty for a group, one for an array."""

    kind: Literal["array", "image", "group"]
    name: str
    preset: Preset
    node: vf.Array | vf.Image | vf.Group
    levels: tuple[ShownLevel, ...] = ()
    axes: tuple[str, ...] = ()
    #: `space`, `time`, `channel` or None, of each axis.
    types: tuple[str | None, ...] = ()
    labels: tuple[str, ...] = ()
    is_label: bool = False

    @property
    def channel_axis(self) -> int | None:
        """Place of the channel axis."""
        return self.types.index("channel") if "channel" in self.types else None

    @property
    def attrs(self) -> Mapping[str, Any]:
        """Attributes of the group or array, as the file has them."""
        return self.node.attrs


def show(node: vf.Array | vf.Image | vf.Group, preset: str = "native") -> Shown:
    """Returns what a node looks like under a preset. Reads the list of label images, which may take a request.

    Raises `UnsupportedError` for arrays of voxels that are no numbers, and what listing the labels raises.
    """
    if preset not in ("native", "viv", "wk"):
        raise vf.NotFoundError(f"no preset {preset!r}", hint="there are native, viv and wk")
    chosen: Preset = preset
    if isinstance(node, vf.Group):
        return Shown("group", node.name, chosen, node)
    if isinstance(node, vf.Array):
        level = _show_level(node, chosen, is_label=False)
        types = _types(level.axes)
        return Shown("array", node.url.rstrip("/").rpartition("/")[2], chosen, node, (level,), level.axes, types)
    levels = [_show_level(one, chosen, is_label=node.is_label) for one in node.levels]
    axes = levels[0].axes
    types = _types(axes)
    if chosen == "viv":
        levels = _equally_deep(levels)
    if chosen == "wk":
        levels = _powers_of_two(levels, [k for k, kind in enumerate(types) if kind == "space"])
    return Shown("image", node.name, chosen, node, tuple(levels), axes, types, label_names(node), node.is_label)


def _show_level(array: vf.Array, preset: Preset, *, is_label: bool) -> ShownLevel:
    """One array under a preset. Raises `UnsupportedError`."""
    if not is_number(array.dtype):
        message = f"voxels of type {array.dtype} are not numbers, and are not shown"
        raise vf.UnsupportedError(message, key=array.url, hint="/raw/ has the files as they are")
    order = _viv_order(array.axes) if preset == "viv" else array.axes
    view = array if order == array.axes else array.with_axes(order)
    dtype = shown_dtype(array.dtype, preset, is_label=is_label)
    plain = tuple(order) if preset == "native" else tuple(_CANONICAL.get(name.lower(), name) for name in order)
    axes = plain if len(set(plain)) == len(plain) else tuple(order)
    known = isinstance(view, vf.Level)
    scale = view.scale if known else (1.0,) * view.ndim
    translation = view.translation if known else tuple(map(float, view.origin))
    units = view.unit if known else (None,) * view.ndim
    types = _types(axes)
    return ShownLevel(
        source=array,
        view=view,
        axes=axes,
        dtype=dtype,
        is_label=is_label,
        scale=tuple(scale),
        translation=tuple(translation),
        unit=tuple(unit_of(unit, kind, strict=preset == "wk") for unit, kind in zip(units, types, strict=True)),
        is_stored=not array.is_reordered and view is array and dtype == array.dtype,
    )


def capped(chunks: Sequence[int], limit: int = MAX_CHUNK_VOXELS) -> tuple[int, ...]:
    """Chunks of at most `limit` voxels: the largest extents are halved, to multiples of 64 as long as they can be."""
    extents = [max(extent, 1) for extent in chunks]
    while math.prod(extents) > max(limit, 1):
        largest = max(range(len(extents)), key=extents.__getitem__)
        half = -(-extents[largest] // 2)
        extents[largest] = -(-half // _PIECE) * _PIECE if half > _PIECE else half
    return tuple(extents)


def _types(axes: Sequence[str]) -> tuple[str | None, ...]:
    """Types by name: that is all a viewer goes by, and all formats but OME-Zarr say."""
    return tuple(_TYPES.get(_CANONICAL.get(name.lower(), name.lower())) for name in axes)


def _viv_order(axes: tuple[str, ...]) -> tuple[str, ...]:
    """The names in the order t, c, z, y, x; as they are if there are others."""
    places = {name: "tczyx".find(_CANONICAL.get(name.lower(), name.lower())) for name in axes}
    whole = all(len(_CANONICAL.get(name.lower(), name)) == 1 and place >= 0 for name, place in places.items())
    return tuple(sorted(axes, key=places.__getitem__)) if whole else axes


def _equally_deep(levels: list[ShownLevel]) -> list[ShownLevel]:
    """The levels with as many planes, channels and times as the finest."""
    finest = levels[0]
    fixed = [k for k, name in enumerate(finest.axes) if name.lower() not in ("y", "x")]
    return [level for level in levels if all(level.shape[k] == finest.shape[k] for k in fixed)]


def _powers_of_two(levels: list[ShownLevel], space: list[int]) -> list[ShownLevel]:
    """The finest level and those coarser by factors that round to powers of two, each set of factors once."""
    finest = min(levels, key=lambda level: math.prod(abs(level.scale[k]) for k in space))
    found: dict[tuple[int, ...], ShownLevel] = {}
    for level in (finest, *levels):
        factors = [abs(level.scale[k] / finest.scale[k]) for k in space]
        mags = tuple(round(factor) if math.isfinite(factor) else 0 for factor in factors)
        # WEBKNOSSOS refuses an image whose finest scale is not the finest along every axis.
        if all(factor >= 1 and mag > 0 and mag & (mag - 1) == 0 for factor, mag in zip(factors, mags, strict=True)):
            found.setdefault(mags, level)
    return list(found.values())
