"""`/img/`: thumbnails and slices of a source as PNG, for pages that draw on a canvas, without WebGL.

    SOURCE/PATH/thumb.png?size=256
    SOURCE/PATH/slice.png?axes=yx&at=z=10,c=0&level=auto&box=y0:y1,x0:x1&size=512&window=lo,hi&channel=0&color=RRGGBB

`axes` are those of rows and columns. `at` says where along the others (default: the middle in space, else 0) and
`box` which part, half-open, in voxels of the level, of the finest with `level=auto`. `size` is how many pixels the
longer side has at most; with `level=auto` the coarsest level that has as many is read. Pixels are voxels: a page scales
them to their physical aspect. Labels get a colour by a fixed hash of their id, 0 is transparent.
"""

from __future__ import annotations

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

import voxfetch as vf
from voxfetch.png import write_png
from voxfetch.server.answers import Body
from voxfetch.server.parameters import BadParameterError, bad_parameter, integer
from voxfetch.server.room import Room
from voxfetch.server.scenes import Scenes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from voxfetch.server.answers import Asked
    from voxfetch.server.options import ServerOptions
    from voxfetch.server.registry import Registry
    from voxfetch.server.scene import Scene

__all__ = ["PicturesPlane", "label_color"]

_MAX_SIDE = 8192
_MAX_THUMBNAIL = 1024
#: Channels that a thumbnail shows at once.
_MAX_TOGETHER = 6
_VOXELS_AT_ONCE = 1 << 20
_PARAMETERS = {
    "thumb.png": {"size", "token"},
    "slice.png": {"axes", "at", "level", "box", "size", "window", "channel", "color", "token"},
}
#: Fibonacci hashing: ids that follow each other get shades far apart.
_HASH = np.uint64(0x9E3779B97F4A7C15)


class PicturesPlane:
    """Pictures of the sources of a registry."""

    def __init__(self, registry: Registry, options: ServerOptions) -> None:
        self._scenes = Scenes(registry)
        self._options = options
        self._threads = ThreadPoolExecutor(2, "voxfetch-pictures")
        self._room = Room(options.max_response_bytes)

    async def answer(self, asked: Asked) -> Body | None:
        """Returns the PNG, or what parameter is wrong (400). Raises `LimitExceededError`, and what reads raise."""
        try:
            return await self._answer(asked)
        except BadParameterError as error:
            return bad_parameter(error)

    async def _answer(self, asked: Asked) -> Body | None:
        name = asked.segments[-1] if asked.segments else ""
        if name not in _PARAMETERS:
            return None
        for given in asked.query:
            if given not in _PARAMETERS[name]:
                raise BadParameterError(f"{given}: {name} has no such parameter")
        # A page that says both needs no look at voxels.
        told = name == "slice.png" and {"window", "color"} <= asked.query.keys()
        scene = await self._scenes.find(asked.source, asked.segments[:-1], channels=not told)
        if scene is None:
            return None
        if name == "slice.png":
            return await self._slice(scene, parse_slice(scene, asked.query))
        return await self._thumbnail(scene, integer(asked.query, "size", 256, 1, _MAX_THUMBNAIL))

    async def _thumbnail(self, scene: Scene, size: int) -> Body:
        """The middle plane, channels in their colours on top of each other."""
        active = [i for i, channel in enumerate(scene.channels) if channel.active][:_MAX_TOGETHER]
        layers: list[NDArray[Any]] = []
        for i in active if scene.channel is not None and active else [0]:
            cut = parse_slice(scene, {"size": str(size), "channel": str(i)})
            layers.append(await self._pixels(scene, cut))
        return await self._in_thread(_png, _added(layers), {})

    async def _slice(self, scene: Scene, cut: Cut) -> Body:
        pixels = await self._pixels(scene, cut)
        told = {"level": cut.level, "axes": cut.axes, "start": cut.start, "shape": cut.shape, "step": cut.step}
        headers = {"X-Voxfetch-Slice": json.dumps(told)}
        return await self._in_thread(_png, pixels, headers)

    async def _pixels(self, scene: Scene, cut: Cut) -> NDArray[Any]:
        count = int(np.prod(cut.shape, dtype=object))
        if count > self._options.max_voxels:
            message = f"a slice of {count:,} voxels, the limit is {self._options.max_voxels:,}"
            raise vf.LimitExceededError(message, hint="ask for a smaller box or a coarser level")
        array = scene.levels[cut.level].array
        rows, columns = (scene.axes.index(name) for name in cut.axes)
        async with self._room.of(count * array.dtype.itemsize):
            voxels = await array.read_box_async(cut.start, cut.shape)
            plane = voxels.reshape(cut.shape[min(rows, columns)], cut.shape[max(rows, columns)])
            plane = (plane if rows < columns else plane.T)[:: cut.step, :: cut.step]
            return await self._in_thread(_drawn, plane, scene, cut)

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


@dataclass(slots=True)
class Cut:
    """A slice as it is read: a box one voxel thick in voxels of a level, and how it is drawn."""

    axes: tuple[str, str]
    level: int
    start: list[int]
    shape: list[int]
    #: Every how many voxels are drawn.
    step: int
    channel: int
    window: tuple[float, float]
    color: str


def parse_slice(scene: Scene, query: Mapping[str, str]) -> Cut:
    """The parameters of a slice. Raises `BadParameterError`."""
    axes = _plane(scene, query.get("axes", ""))
    size = integer(query, "size", 0, 1, _MAX_SIDE)
    wanted = query.get("level", "auto")
    given = 0 if wanted == "auto" else integer(query, "level", 0, 0, len(scene.levels) - 1)
    shape = scene.levels[given].shape
    box = {name: (0, shape[scene.axes.index(name)]) for name in axes}
    for name, text in _pairs(query.get("box", ""), axes):
        found = re.fullmatch(r"([0-9]{1,18}):([0-9]{1,18})", text)
        start, stop = (int(found[1]), int(found[2])) if found else (0, 0)
        extent = shape[scene.axes.index(name)]
        if not start < stop <= extent:
            raise BadParameterError(f"box: {name} is START:STOP within 0:{extent}, not {text[:40]!r}")
        box[name] = (start, stop)
    place, channel = _place(scene, query, axes, given)
    level = _level_for(scene, box, axes, size) if wanted == "auto" else given
    start, extents = [0] * len(shape), [1] * len(shape)
    for axis, name in enumerate(scene.axes):
        extent = scene.levels[level].shape[axis]
        if name in box:
            first, stop = box[name]
            if level != given:
                first = max(0, min(extent - 1, int(np.floor(scene.at(first, level, axis) + 1e-6))))
                stop = max(first + 1, min(extent, int(np.ceil(scene.at(stop, level, axis) - 1e-6))))
            start[axis], extents[axis] = first, stop - first
        else:
            index = place[axis]
            if level != given:
                index = int(np.floor(scene.at(index + 0.5, level, axis)))
            start[axis] = max(0, min(extent - 1, index))
    longest = max(extents)
    step = -(-longest // size) if size else 1
    if longest // step > _MAX_SIDE:
        raise BadParameterError(
            f"size: the picture would have {longest // step:,} pixels a side, the limit is {_MAX_SIDE:,}"
        )
    return Cut(
        axes, level, start, extents, step, channel, _window(scene, query, channel), _color(scene, query, channel)
    )


def _plane(scene: Scene, text: str) -> tuple[str, str]:
    """The axes of rows and columns; by default y and x."""
    if not text:
        if len(scene.space) < 2:
            raise BadParameterError(f"axes: name two of {', '.join(scene.axes)}")
        return scene.axes[scene.space["y"]], scene.axes[scene.space["x"]]
    parts = tuple(text.split(",")) if "," in text else tuple(text)
    if len(parts) != 2 or len(set(parts)) != 2 or not set(parts) <= set(scene.axes):
        raise BadParameterError(f"axes: two of {', '.join(scene.axes)} are needed, such as yx")
    return parts[0], parts[1]


def _place(scene: Scene, query: Mapping[str, str], axes: Sequence[str], level: int) -> tuple[list[int], int]:
    """The index along each axis that is no side of the picture, and the channel."""
    shape = scene.levels[level].shape
    place = [extent // 2 if i in scene.space.values() else 0 for i, extent in enumerate(shape)]
    if "channel" in query:
        count = 1 if scene.channel is None else shape[scene.channel]
        chosen = integer(query, "channel", 0, 0, count - 1)
        if scene.channel is not None:
            place[scene.channel] = chosen
    for name, text in _pairs(query.get("at", ""), scene.axes, "at"):
        if name in axes:
            raise BadParameterError(f"at: {name} is a side of the picture")
        axis = scene.axes.index(name)
        if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) >= shape[axis]:
            raise BadParameterError(f"at: {name} is one of 0..{shape[axis] - 1}, not {text[:40]!r}")
        place[axis] = int(text)
    return place, 0 if scene.channel is None else place[scene.channel]


def _pairs(text: str, names: Sequence[str], parameter: str = "box") -> list[tuple[str, str]]:
    """`a=1,b=2` (or `1,2` in the order of `names`) -> pairs."""
    if not text:
        return []
    parts = text.split(",")
    if all("=" not in part for part in parts) and parameter == "box" and len(parts) == len(names):
        return list(zip(names, parts, strict=True))
    pairs: list[tuple[str, str]] = []
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals or name not in names or name in (known for known, _ in pairs):
            raise BadParameterError(f"{parameter}: {part[:40]!r} is not NAME=VALUE with a name of {', '.join(names)}")
        pairs.append((name, value))
    return pairs


def _level_for(scene: Scene, box: Mapping[str, tuple[int, int]], axes: Sequence[str], size: int) -> int:
    """The coarsest level of which the box has at least `size` voxels along its longer side."""
    best = 0
    for number in range(len(scene.levels)) if size else ():
        sides = [(box[name][1] - box[name][0]) / scene.levels[number].factor[scene.axes.index(name)] for name in axes]
        if max(sides) >= size * (1 - 1e-6):
            best = number
    return best


def _window(scene: Scene, query: Mapping[str, str], channel: int) -> tuple[float, float]:
    text = query.get("window")
    if text is None:
        known = scene.channels[channel] if channel < len(scene.channels) else None
        return (0.0, 1.0) if known is None else (known.start, known.end)
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = float("nan")
    if not (np.isfinite(low) and np.isfinite(high)) or low == high:
        raise BadParameterError(f"window: two different numbers LOW,HIGH are needed, not {text[:40]!r}")
    return low, high


def _color(scene: Scene, query: Mapping[str, str], channel: int) -> str:
    text = query.get("color")
    if text is None:
        return scene.channels[channel].color if channel < len(scene.channels) else "FFFFFF"
    if not re.fullmatch(r"[0-9A-Fa-f]{6}", text):
        raise BadParameterError(f"color: RRGGBB is needed, not {text[:40]!r}")
    return text


# --- from voxels to pixels; in a thread


def _drawn(plane: NDArray[Any], scene: Scene, cut: Cut) -> NDArray[Any]:
    """The pixels of a plane: RGBA of labels, else grey or RGB."""
    if scene.is_label:
        return label_color(plane, scene.colors)
    grey = _stretched(plane, cut.window)
    color = [int(cut.color[i : i + 2], 16) for i in (0, 2, 4)]
    if color == [255, 255, 255]:
        return grey
    table = (np.arange(256)[:, None] * np.array(color) / 255).round().astype(np.uint8)
    return table[grey]


def _stretched(plane: NDArray[Any], window: tuple[float, float]) -> NDArray[Any]:
    """Voxels -> 0..255 over the window, which may be upside down; what is not finite is 0."""
    low, high = window
    if plane.dtype.kind in "biu" and plane.dtype.itemsize <= 2:
        # A table of all values is less work than arithmetic on all voxels.
        bits = plane.dtype.itemsize * 8
        values = np.arange(1 << bits).astype(f"u{plane.dtype.itemsize}").view(plane.dtype).astype(np.float64)
        return _stretched(values, window)[plane.view(f"u{plane.dtype.itemsize}")]
    pixels = np.empty(plane.shape, np.uint8)
    # Some rows at a time: eight bytes for each voxel would be much.
    rows = max(1, _VOXELS_AT_ONCE // max(1, plane.shape[-1]))
    for first in range(0, len(plane), rows):
        part = slice(first, first + rows)
        values = (plane[part].astype(np.float64) - low) * 255 / (high - low)
        pixels[part] = np.nan_to_num(np.clip(values, 0, 255), nan=0.0).round()
    return pixels


def label_color(labels: NDArray[Any], colors: Mapping[int, str]) -> NDArray[Any]:
    """Ids -> RGBA: a fixed hash of the id, or the colour that the file has for it; 0 is transparent."""
    ids = labels.astype(np.uint64)
    pixels = _PALETTE[(ids * _HASH >> np.uint64(56)).astype(np.uint8)]
    if colors:
        known = np.array(sorted(colors), np.uint64)
        shades = np.array([list(bytes.fromhex(colors[i])) for i in sorted(colors)], np.uint8)
        place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        found = known[place] == ids
        pixels[found, :3] = shades[place[found]]
    pixels[ids == 0] = 0
    return pixels


def _added(layers: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Grey and RGB pictures on top of each other, as light is added."""
    if len(layers) == 1:
        return layers[0]
    deep = [(layer if layer.ndim == 3 else layer[..., None]).astype(np.uint16) for layer in layers]
    return np.minimum(np.sum(np.broadcast_arrays(*deep), axis=0), 255).astype(np.uint8)


def _palette() -> NDArray[np.uint8]:
    """256 bright shades: the hue goes around once, lightness and saturation change from one to the next."""
    import colorsys

    shades = [colorsys.hls_to_rgb(i / 256, (0.5, 0.62, 0.42)[i % 3], (1.0, 0.75)[i % 2]) for i in range(256)]
    return np.array([[*(round(255 * part) for part in shade), 255] for shade in shades], np.uint8)


_PALETTE = _palette()


def _png(pixels: NDArray[Any], headers: Mapping[str, str]) -> Body:
    file = BytesIO()
    write_png(file, pixels, effort=1)
    return Body(file.getvalue(), "image/png", headers=headers)
