"""States of Neuroglancer: scenes of sources go in, the JSON value that its viewer shows comes out. Pure.

Dimensions are x, y and z in metres whatever the stored order, the position is the centre of the first image, and the
scales let it fit. Sources are the `/z3/` plane's, with the suffix that keeps Neuroglancer from probing for formats.
Neuroglancer places OME-Zarr images itself, corners half a voxel before the centres that files name. Only what it would
place wrong gets a transform: arrays that stand alone and have other names or another origin than its own, and images
without units beside ones that have them (their numbers are taken for the unit of those).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from voxfetch.server.scene import limits_of
from voxfetch.server.units import nanometres

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxfetch.server.contrast import ShownChannel
    from voxfetch.server.scene import Scene
    from voxfetch.server.shown import Shown

__all__ = ["Layer", "preset_for", "state_of", "viewer_url"]

_KNOWN = {"uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32"}
#: Pixels of a panel that an image is to fit in, of a window of moderate size.
_PANEL = 360
#: Colours of objects that a state holds: it is a URL in the end.
_MAX_COLORS = 200
_MAX_CHANNELS = 24

_SHADER = """#uicontrol invlerp contrast
#uicontrol vec3 color color(default="#{color}")
void main() {{
  emitRGB(color * contrast());
}}
"""


@dataclass(frozen=True, slots=True)
class Layer:
    """An image or an array to be shown: `given` is what the `/z3/` plane gives of it, under the preset of `preset_for`.

    `base` is the URL of the server with its token, `source` and `path` say where it lies there.
    """

    scene: Scene
    given: Shown
    base: str
    source: str
    path: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """The source as Neuroglancer names it."""
        preset = "" if self.given.preset == "native" else f"/@{self.given.preset}"
        place = "/".join(quote(part, safe="") for part in (self.source, *self.path))
        return f"{self.base}/z3{preset}/{place}/|zarr3:"


@dataclass(frozen=True, slots=True)
class _Dimension:
    """An axis as Neuroglancer has it: `source` is the name it takes from the document, `name` the one of the state."""

    axis: int
    source: str
    name: str
    scale: float
    unit: str
    #: Corner of the first voxel, and how many there are, in voxels.
    first: float
    extent: int

    @property
    def is_local(self) -> bool:
        """Whether each layer has a place of its own along it."""
        return self.name.endswith("'")


def preset_for(scene: Scene) -> str:
    """`native`, or `viv` where Neuroglancer does not know the type of the voxels: the server casts them then."""
    return "native" if scene.finest.view.dtype.name in _KNOWN else "viv"


def state_of(layers: Sequence[Layer]) -> dict[str, Any]:
    """Returns the state that shows the layers on top of each other, the first one below.

    Raises `ValueError` for none.
    """
    if not layers:
        raise ValueError("there is nothing to show")
    placed = [_dimensions(layer) for layer in layers]
    unit_of_space = next((one for dimensions in placed if (one := _length(dimensions)) is not None), None)
    shown: list[dict[str, Any]] = []
    for layer, dimensions in zip(layers, placed, strict=True):
        taken = dimensions if unit_of_space is None else _in_unit(dimensions, unit_of_space)
        shown += _layers(layer, taken, is_moved=taken is not dimensions)
    main = placed[0] if unit_of_space is None else _in_unit(placed[0], unit_of_space)
    global_ = [one for one in main if not one.is_local]
    order = {"x": 0, "y": 1, "z": 2}
    global_.sort(key=lambda one: order.get(one.name, 3))
    space = [one for one in global_ if one.name in order]
    state: dict[str, Any] = {
        "dimensions": {one.name: [one.scale, one.unit] for one in global_},
        "position": [_position(one) for one in global_],
        "layers": _named(shown),
        "layout": "4panel" if len(space) == 3 and min(one.extent for one in space) > 1 else "xy",
    }
    if space:
        state["displayDimensions"] = [one.name for one in space]
        # Neuroglancer counts in voxels of the shortest side.
        least = min(one.scale for one in space)
        longest = max(one.extent * one.scale / least for one in space)
        state["crossSectionScale"] = _short(longest / _PANEL)
        state["projectionScale"] = _short(longest * 1.6)
    return state


def viewer_url(state: dict[str, Any], base: str) -> str:
    """Returns the address of the client that the server at `base` has, with the state in its hash."""
    return f"{base}/v/ng/#!{quote(json.dumps(state, separators=(',', ':')), safe='~!*()/:,;$@=')}"


def _short(number: float) -> float:
    return float(f"{number:.12g}")


def _position(one: _Dimension) -> float:
    """The centre in space; elsewhere the first voxel."""
    return _short(one.first + (one.extent / 2 if one.name in ("x", "y", "z") else 0.5))


def _dimensions(layer: Layer) -> list[_Dimension]:
    """The axes in the order in which the document of the `/z3/` plane has them."""
    scene = layer.scene
    is_image = layer.given.kind == "image"
    level = layer.given.levels[0]
    names = {axis: name for name, axis in scene.space.items()}
    found: list[_Dimension] = []
    for view_axis, own in enumerate(level.view.axes):
        axis = scene.axes.index(own)
        source = level.axes[view_axis]
        is_channel = axis == scene.channel
        unit = level.unit[view_axis] or ""
        size = abs(level.scale[view_axis]) or 1.0
        scale, short = _si(size, unit)
        first = level.translation[view_axis] / size - 0.5 if is_image else level.translation[view_axis]
        # Neuroglancer makes channels of OME-Zarr local by a stroke.
        given = f"{source}'" if is_channel and is_image else source
        name = f"{source}'" if is_channel else names.get(axis, source)
        found.append(_Dimension(axis, given, name, _short(scale), short, first, level.shape[view_axis]))
    return found


def _si(size: float, unit: str) -> tuple[float, str]:
    """A size in metres or seconds, with the short name of that; a plain number where there is no unit."""
    if not unit:
        return size, ""
    if unit.endswith("second") or unit in _LONG_TIMES:
        return size * (_LONG_TIMES[unit] if unit in _LONG_TIMES else nanometres(1.0, f"{unit[:-6]}meter") * 1e-9), "s"
    return nanometres(size, unit) * 1e-9, "m"


_LONG_TIMES = {"minute": 60.0, "hour": 3600.0, "day": 86400.0}


def _length(dimensions: Sequence[_Dimension]) -> str | None:
    """The unit of the axes in space, None where they have none."""
    return next((one.unit for one in dimensions if one.name in ("x", "y", "z") and one.unit), None)


def _in_unit(dimensions: list[_Dimension], unit: str) -> list[_Dimension]:
    """The axes with a unit for those in space that have none: nanometres, as WEBKNOSSOS takes them."""
    if all(one.unit or one.name not in ("x", "y", "z") for one in dimensions):
        return dimensions
    return [
        _Dimension(one.axis, one.source, one.name, _short(one.scale * 1e-9), unit, one.first, one.extent)
        if one.name in ("x", "y", "z") and not one.unit
        else one
        for one in dimensions
    ]


def _source(layer: Layer, dimensions: Sequence[_Dimension], *, is_moved: bool) -> str | dict[str, Any]:
    """The URL, with a transform where Neuroglancer would place it elsewhere, or call an axis by another name."""
    is_image = layer.given.kind == "image"
    is_placed = is_image or not any(one.first for one in dimensions)
    if is_placed and not is_moved and all(one.name == one.source for one in dimensions):
        return layer.url
    count = len(dimensions)
    matrix = [[*(1 if i == k else 0 for k in range(count)), _short(one.first)] for i, one in enumerate(dimensions)]
    outputs = {one.name: [one.scale, one.unit] for one in dimensions}
    return {"url": layer.url, "transform": {"matrix": matrix, "outputDimensions": outputs}}


def _layers(layer: Layer, dimensions: Sequence[_Dimension], *, is_moved: bool) -> list[dict[str, Any]]:
    scene = layer.scene
    name = scene.shown.name or "/".join((layer.source, *layer.path))
    source = _source(layer, dimensions, is_moved=is_moved)
    if scene.is_label:
        colors = dict(list(scene.colors.items())[:_MAX_COLORS])
        found: dict[str, Any] = {"type": "segmentation", "name": name, "source": source, "tab": "segments"}
        if colors:
            found["segmentColors"] = {str(value): f"#{color.lower()}" for value, color in colors.items()}
        return [found]
    local = next((one for one in dimensions if one.is_local), None)
    layers: list[dict[str, Any]] = []
    whole = layer.given.levels[0].dtype.kind in "iu"
    # Very many channels are one layer, with a slider.
    channels = scene.channels if len(scene.channels) <= _MAX_CHANNELS else scene.channels[:1]
    for number, channel in enumerate(channels):
        title = f"{name} {channel.label}" if len(channels) > 1 and channel.label else name
        made: dict[str, Any] = {"type": "image", "name": title, "source": source, **_look(channel, whole=whole)}
        if len(channels) > 1:
            # As light is added; layers are half transparent otherwise.
            made |= {"blend": "additive", "opacity": 1}
        if local is not None:
            made["localDimensions"] = {local.name: [1, ""]}
            made["localPosition"] = [number]
        if not channel.active:
            made["visible"] = False
        layers.append(made)
    return layers


def _look(channel: ShownChannel, *, whole: bool) -> dict[str, Any]:
    """The shader, and its window; of integers in whole numbers, for Neuroglancer takes no others."""

    def plain(value: float) -> float:
        return round(value) if whole else value

    start, end = plain(channel.start), plain(channel.end)
    contrast = {
        "range": [start, end if start != end else end + 1],
        "window": [plain(value) for value in limits_of(channel)],
    }
    return {"shader": _SHADER.format(color=channel.color.lower()), "shaderControls": {"contrast": contrast}}


def _named(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The layers with names of which no two are the same."""
    taken: set[str] = set()
    for layer in layers:
        name, number = layer["name"], 1
        while layer["name"] in taken:
            number += 1
            layer["name"] = f"{name} {number}"
        taken.add(layer["name"])
    return layers
