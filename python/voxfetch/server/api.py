"""`/api/`: what there is, as JSON; many boxes in one answer; states for Neuroglancer.

    GET  tree[?source=NAME&path=PATH&depth=2]       sources, groups, images, arrays, with URLs for each plane
    GET  node/SOURCE/PATH                           all that is known of one of them
    POST cutouts                                    [{"source", "path", "level", "start", "shape"}, ...] -> one body
    GET  state/neuroglancer?source=A,B/PATH[&redirect=1]

The body of `cutouts` is the boxes one after the other, C order, little endian. The header `X-Voxfetch-Boxes` lists them
as JSON: `offset` (bytes), `dtype`, `shape` and `count` of boxes of one shape and type that follow each other. Boxes may
reach outside: there they are the fill value.
"""

from __future__ import annotations

import itertools
import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import quote

import numpy as np

import voxfetch as vf
from voxfetch.server.answers import Body
from voxfetch.server.scene import limits_of
from voxfetch.server.scenes import Scenes
from voxfetch.view.neuroglancer import Layer, state_of, viewer_url

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from voxfetch.server.answers import Asked
    from voxfetch.server.options import ServerOptions
    from voxfetch.server.registry import Registry
    from voxfetch.server.scene import Scene

__all__ = ["ApiPlane"]

_MAX_NODES = 2000
_MAX_DEPTH = 8
_MAX_BOXES = 4096
#: Longer headers are refused by many clients.
_MAX_HEADER = 7 << 10
_MAX_OVERLAID = 16
#: More channels than these are no layers of a page.
_MAX_CHANNELS = 24
_MAX_ATTRS_BYTES = 64 << 10
_PLANES = ("z3", "z2", "pc", "raw")


class ApiPlane:
    """What a page or a script asks about the sources of a registry."""

    def __init__(self, registry: Registry, options: ServerOptions) -> None:
        self._registry = registry
        self._options = options
        self._scenes = Scenes(registry)

    async def answer(self, asked: Asked) -> Body | None:
        """Returns the answer. Raises `ValueError` naming what is wrong, `LimitExceededError`, and what reads raise."""
        match (asked.method, *asked.segments):
            case ("GET" | "HEAD", "tree"):
                return _json(await self._tree(asked))
            case ("GET" | "HEAD", "node", *path) if asked.source:
                return await self._node(asked, path)
            case ("POST", "cutouts"):
                return await self._cutouts(asked.body)
            case ("GET" | "HEAD", "state", "neuroglancer"):
                return await self._state(asked)
            case _:
                return None

    # --- tree

    async def _tree(self, asked: Asked) -> dict[str, Any]:
        depth = _integer(asked.query, "depth", 2, _MAX_DEPTH)
        left = itertools.count(_MAX_NODES, -1)
        source = asked.query.get("source")
        path = tuple(part for part in asked.query.get("path", "").split("/") if part)
        names = self._registry.names if source is None else (source,)
        if source is not None and source not in self._registry.names:
            raise ValueError("source: there is no source of that name")
        entries = [await self._entry(asked, name, path if source else (), depth, left) for name in names]
        return {"version": vf.__version__, "sources": entries}

    async def _entry(
        self, asked: Asked, source: str, path: tuple[str, ...], depth: int, left: itertools.count[int]
    ) -> dict[str, Any]:
        """One node of the tree, and those below it; `children` is left out where they were not looked for."""
        entry: dict[str, Any] = {"name": path[-1] if path else source, "source": source, "path": "/".join(path)}
        next(left)
        try:
            node = await self._scenes.node(source, path)
            names = await self._registry.run(lambda: _names_below(node))
        except vf.VoxfetchError as error:
            return entry | {"kind": "error", "error": error.kind}
        if node is None:
            return entry | {"kind": "error", "error": "NotFoundError"}
        entry |= _brief(node) | {"urls": _urls(asked, source, path)}
        if depth <= 0 and names:
            return entry | {"more": True}
        entry["children"] = children = []
        for parts in names:
            if next(left) <= 0:
                entry["more"] = True
                break
            below = (*path, *parts)
            if not all(part not in ("", ".", "..") for part in parts):
                continue
            children.append(await self._entry(asked, source, below, depth - 1, left))
        return entry

    # --- node

    async def _node(self, asked: Asked, path: Sequence[str]) -> Body | None:
        node = await self._scenes.node(asked.source, path)
        if node is None:
            return None
        found = _brief(node) | {"name": path[-1] if path else asked.source, "source": asked.source}
        found |= {"path": "/".join(path), "urls": _urls(asked, asked.source, path), "attrs": _bounded(node.attrs)}
        found["python"] = _snippet(node, asked.source)
        if isinstance(node, vf.Group):
            names = await self._registry.run(lambda: _names_below(node))
            return _json(found | {"keys": ["/".join(parts) for parts in names[:_MAX_NODES]]})
        levels = node.levels if isinstance(node, vf.Image) else (node,)
        found["levels"] = [_array(level) for level in levels]
        if isinstance(node, vf.Image):
            found["labels"] = await self._registry.run(lambda: _labels(node))
        try:
            scene = await self._scenes.find(asked.source, path)
        except vf.UnsupportedError as error:
            return _json(found | {"picture": None, "reason": error.message})
        return _json(found | {"picture": None if scene is None else _picture(scene)})

    # --- cutouts

    async def _cutouts(self, body: bytes) -> Body:
        boxes = [await self._box(number, one) for number, one in enumerate(_boxes(body))]
        voxels, total = sum(box.voxels for box in boxes), sum(box.nbytes for box in boxes)
        limits = self._options.max_voxels, self._options.max_response_bytes
        if voxels > limits[0] or total > limits[1]:
            message = f"{voxels:,} voxels of {total:,} bytes; the limits are {limits[0]:,} and {limits[1]:,}"
            raise vf.LimitExceededError(message, hint="ask for fewer or smaller boxes")
        content = np.empty(total, np.uint8)
        pairs: list[tuple[vf.Array, vf.Boxes]] = []
        listed: list[dict[str, Any]] = []
        offset = 0
        for (array, shape), group in itertools.groupby(boxes, key=lambda box: (box.array, box.shape)):
            starts = [box.start for box in group]
            nbytes = math.prod(shape) * array.dtype.itemsize
            part = content[offset : offset + nbytes * len(starts)]
            out = part.view(array.dtype).reshape(len(starts), *shape)
            pairs.append((array, vf.Boxes(np.array(starts, np.int64), shape, bounds="fill", out=out)))
            dtype = array.dtype.newbyteorder("<").str
            listed.append({"offset": offset, "dtype": dtype, "shape": shape, "count": len(starts)})
            offset += nbytes * len(starts)
        header = json.dumps(listed, separators=(",", ":"))
        if len(header) > _MAX_HEADER:
            raise vf.LimitExceededError("more shapes of boxes than a header can list", hint="ask for fewer at once")
        await vf.read_all_async(pairs)
        return Body(memoryview(content), "application/octet-stream", headers={"X-Voxfetch-Boxes": header})

    async def _box(self, number: int, given: Any) -> _Box:
        where = f"box {number}"
        if not isinstance(given, dict):
            raise ValueError(f"{where}: an object with source, path, level, start and shape is needed")
        asked = cast("dict[str, Any]", given)
        if unknown := asked.keys() - {"source", "path", "level", "start", "shape"}:
            raise ValueError(f"{where}: no such field: {sorted(unknown)[0][:40]!r}")
        source, path, level = asked.get("source"), asked.get("path", ""), asked.get("level", 0)
        if not isinstance(source, str) or not isinstance(path, str) or source not in self._registry.names:
            raise ValueError(f"{where}: source and path are to name one of the sources")
        parts = tuple(part for part in path.split("/") if part)
        if any(part in (".", "..") for part in parts):
            raise ValueError(f"{where}: path: not a path below a source")
        node = await self._scenes.node(source, parts)
        if isinstance(node, vf.Image):
            if type(level) is not int or not 0 <= level < len(node.levels):
                raise ValueError(f"{where}: level is one of 0..{len(node.levels) - 1}")
            node = node.levels[level]
        if not isinstance(node, vf.Array) or type(level) is not int or (level and not isinstance(node, vf.Level)):
            raise ValueError(f"{where}: there is no such array")
        if node.dtype.kind not in "biufc":
            raise ValueError(f"{where}: elements of type {node.dtype} are not sent")
        start = _integers(where, "start", asked.get("start"), node.ndim, -(1 << 60))
        return _Box(node, start, _integers(where, "shape", asked.get("shape"), node.ndim, 1))

    # --- state

    async def _state(self, asked: Asked) -> Body:
        sources = [part for part in asked.query.get("source", "").split(",") if part]
        if not 1 <= len(sources) <= _MAX_OVERLAID:
            raise ValueError(f"source: 1 to {_MAX_OVERLAID} names are needed, separated by commas")
        shown: list[Layer] = []
        for one in sources:
            source, _, path = one.partition("/")
            parts = tuple(part for part in path.split("/") if part)
            if source not in self._registry.names or any(part in (".", "..") for part in parts):
                raise ValueError(f"source: there is no source {source[:40]!r}")
            shown += await self._shown(asked, source, parts)
        if not shown:
            raise ValueError("source: there is no image or array")
        state = state_of(shown)
        if asked.query.get("redirect") in (None, "", "0"):
            return _json(state)
        place = viewer_url(state, asked.origin + asked.prefix)
        return Body(b"", "text/plain", headers={"Location": place, "Cache-Control": "no-store"}, status=302)

    async def _shown(self, asked: Asked, source: str, path: tuple[str, ...]) -> list[Layer]:
        """The layers of one source: the image and its labels; of a group, the images in it."""
        node = await self._scenes.node(source, path)
        if isinstance(node, vf.Group):
            found: list[Layer] = []
            for parts in (await self._registry.run(lambda: _names_below(node)))[:_MAX_OVERLAID]:
                below = await self._scenes.node(source, (*path, *parts))
                if isinstance(below, vf.Array | vf.Image):
                    found += await self._shown(asked, source, (*path, *parts))
            return found
        if node is None:
            raise ValueError(f"source: nothing lies at {'/'.join((source, *path))[:80]!r}")
        scene = await self._scenes.find(source, path)
        if scene is None:
            return []
        shown = [Layer(scene, asked.origin + asked.prefix, source, path)]
        if isinstance(node, vf.Image) and not scene.is_label:
            for name in (await self._registry.run(lambda: _labels(node)))[:_MAX_OVERLAID]:
                place = (*path, "labels", *name.split("/"))
                label = await self._scenes.find(source, place)
                if label is not None:
                    shown.append(Layer(label, asked.origin + asked.prefix, source, place))
        return shown


class _Box(NamedTuple):
    array: vf.Array
    start: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def voxels(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.voxels * self.array.dtype.itemsize


# --- nodes as JSON


def _names_below(node: vf.Array | vf.Image | vf.Group | None) -> list[tuple[str, ...]]:
    """The paths of what lies in a node, each as its parts. Where nobody can list, there is nothing."""
    if isinstance(node, vf.Image):
        return [("labels", *name.split("/")) for name in _labels(node)]
    if not isinstance(node, vf.Group):
        return []
    try:
        return [tuple(name.split("/")) for name in node.keys()]  # noqa: SIM118 - a group is not a mapping
    except vf.UnsupportedError:
        return []


def _labels(image: vf.Image) -> list[str]:
    try:
        return list(image.labels)
    except vf.UnsupportedError:
        return []


def _brief(node: vf.Array | vf.Image | vf.Group) -> dict[str, Any]:
    if isinstance(node, vf.Group):
        return {"kind": "collection" if isinstance(node, vf.Collection) else "group", "format": node.format}
    finest = node.levels[0] if isinstance(node, vf.Image) else node
    found = {"kind": "image" if isinstance(node, vf.Image) else "array", "format": node.format}
    found |= {"shape": list(finest.shape), "axes": list(finest.axes), "dtype": str(finest.dtype)}
    if isinstance(node, vf.Image):
        found |= {"title": node.name, "is_label": node.is_label}
    return found


def _array(array: vf.Array) -> dict[str, Any]:
    found: dict[str, Any] = {"shape": array.shape, "dtype": str(array.dtype), "chunks": array.chunks}
    found |= {"shards": array.shards, "codecs": array.codecs, "format": array.format, "nbytes": array.nbytes}
    if isinstance(array, vf.Level):
        found |= {"scale": array.scale, "translation": array.translation, "units": array.unit}
    return found


def _picture(scene: Scene) -> dict[str, Any]:
    """How a page draws it: which axes are x, y and z, and how the levels lie in each other (see `SceneLevel`)."""
    return {
        "axes": scene.axes,
        "units": scene.finest.unit,
        "space": scene.space,
        "channel": scene.channel,
        "is_label": scene.is_label,
        "scale": scene.finest.scale,
        "translation": scene.finest.translation,
        "levels": [{"shape": level.shape, "factor": level.factor, "offset": level.offset} for level in scene.levels],
        "channels": [
            {
                "label": channel.label,
                "color": channel.color,
                "window": (channel.start, channel.end),
                "limits": limits_of(channel),
                "active": channel.active,
            }
            for channel in scene.channels[:_MAX_CHANNELS]
        ],
    }


def _urls(asked: Asked, source: str, path: Sequence[str]) -> dict[str, str]:
    place = "/".join(quote(part, safe="") for part in (source, *path))
    return {plane: f"{asked.origin}{asked.prefix}/{plane}/{place}" for plane in (*_PLANES, "img")}


def _snippet(node: vf.Array | vf.Image | vf.Group, source: str) -> str:
    """Python that opens the node, without user, password and query: what it is shown to may not have them."""
    place = without_secrets(node.url)
    name = source if source.isidentifier() else "source"
    lines = ["import voxfetch as vf", f"{name} = vf.open({json.dumps(place)})"]
    if isinstance(node, vf.Image):
        lines.append(f"voxels = {name}.level(0)[{', '.join(_middle(node.levels[0]))}]")
    elif isinstance(node, vf.Array) and node.ndim:
        lines.append(f"voxels = {name}[{', '.join(_middle(node))}]")
    return "\n".join(lines)


def _middle(array: vf.Array) -> list[str]:
    """A small box in the middle, as Python spells it."""
    sides = [min(extent, 64 if name.lower() in "xyz" else 1) for name, extent in zip(array.axes, array.shape, strict=True)]
    starts = [(extent - side) // 2 for extent, side in zip(array.shape, sides, strict=True)]
    return [f"{start}:{start + side}" for start, side in zip(starts, sides, strict=True)]


def without_secrets(url: str) -> str:
    """A URL without user, password, query and fragment."""
    head, mark, rest = url.partition("://")
    if not mark or head == "file":
        return url
    rest, *formats = rest.split("|")
    host, slash, path = rest.partition("/")
    path = path.partition("?")[0].partition("#")[0]
    host = host.partition("?")[0].partition("#")[0].rpartition("@")[2]
    return "|".join([f"{head}://{host}{slash}{path}", *formats])


def _bounded(attrs: Mapping[str, Any]) -> Any:
    """The attributes, those left out that make them too long."""
    kept: dict[str, Any] = {}
    left = _MAX_ATTRS_BYTES
    for name, value in attrs.items():
        length = len(name) + len(json.dumps(value, default=str))
        if length > left:
            kept["..."] = "more attributes than fit here"
            break
        kept[name] = value
        left -= length
    return kept


def _json(value: Any) -> Body:
    return Body(json.dumps(_finite(value), default=str, allow_nan=False).encode(), "application/json")


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become text."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in cast("Sequence[Any]", value)]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


# --- what was asked, checked


def _boxes(body: bytes) -> list[Any]:
    try:
        boxes: Any = json.loads(body)
    except (ValueError, RecursionError):
        boxes = None
    if not isinstance(boxes, list) or not boxes:
        raise ValueError("body: a JSON list of boxes is needed")
    found = cast("list[Any]", boxes)
    if len(found) > _MAX_BOXES:
        raise vf.LimitExceededError(f"{len(found):,} boxes, the limit is {_MAX_BOXES:,}")
    return found


def _integers(where: str, name: str, given: Any, count: int, least: int) -> tuple[int, ...]:
    numbers = cast("list[Any]", given) if isinstance(given, list) else []
    if len(numbers) != count or not all(type(one) is int and least <= one <= 1 << 60 for one in numbers):
        raise ValueError(f"{where}: {name} has {count} whole numbers, one per axis")
    return tuple(numbers)


def _integer(query: Mapping[str, str], name: str, default: int, greatest: int) -> int:
    text = query.get(name, str(default))
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) > greatest:
        raise ValueError(f"{name}: a number of 0..{greatest} is needed")
    return int(text)
