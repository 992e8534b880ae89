"""`/api/`: what there is, as JSON; many boxes in one answer; states for Neuroglancer.

    GET  tree[?source=NAME&path=PATH&depth=2]       sources, groups, images, arrays, with URLs for each plane
    GET  node/SOURCE/PATH                           all that is known of one of them
    POST cutouts                                    [{"source", "path", "level", "start", "shape"}, ...] -> one body
    GET  state/neuroglancer?source=A,B/PATH[&redirect=1]

The body of `cutouts` is the boxes one after the other, C order, little endian. The header `X-Voxfetch-Boxes` lists them
as JSON: `offset` (bytes), `dtype`, `shape` and `count` of boxes of one shape and type that follow each other. Boxes may
reach outside: there they are the fill value. In `source` of a state a comma in a path is `%2C`, a percent sign `%25`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import quote, unquote

import numpy as np

import voxfetch as vf
from voxfetch.server.answers import Body
from voxfetch.server.described import (
    bounded_attrs,
    brief,
    described_array,
    described_picture,
    label_names,
    names_below,
    python_snippet,
)
from voxfetch.server.parameters import BadParameterError, bad_parameter, integer, parts_of
from voxfetch.server.scenes import Scenes
from voxfetch.server.shown import show
from voxfetch.view.neuroglancer import Layer, preset_for, state_of, viewer_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxfetch.server.answers import Asked
    from voxfetch.server.options import ServerOptions
    from voxfetch.server.registry import Registry
    from voxfetch.server.scene import Scene

__all__ = ["ApiPlane"]

_MAX_NODES = 2000
_MAX_CHILDREN = 500
_MAX_DEPTH = 8
_MAX_BOXES = 4096
#: Longer headers are refused by many clients.
_MAX_HEADER = 7 << 10
_MAX_OVERLAID = 16
_PLANES = ("z3", "z2", "pc", "raw")


class ApiPlane:
    """What a page or a script asks about the sources of a registry."""

    def __init__(self, registry: Registry, options: ServerOptions) -> None:
        self._registry = registry
        self._options = options
        self._scenes = Scenes(registry)

    async def answer(self, asked: Asked) -> Body | None:
        """Returns the answer, or what parameter is wrong (400). Raises `LimitExceededError`, and what reads raise."""
        try:
            return await self._answer(asked)
        except BadParameterError as error:
            return bad_parameter(error)

    async def _answer(self, asked: Asked) -> Body | None:
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
        depth = integer(asked.query, "depth", 2, 0, _MAX_DEPTH)
        source = asked.query.get("source")
        if source is not None and source not in self._registry.names:
            raise BadParameterError("source: there is no source of that name")
        path = parts_of("path", asked.query.get("path", "")) if source is not None else ()
        names = self._registry.names if source is None else (source,)
        left = _Left(_MAX_NODES)
        entries = await asyncio.gather(*(self._entry(asked, name, path, depth, left) for name in names))
        return {"version": vf.__version__, "sources": entries}

    async def _entry(self, asked: Asked, source: str, path: tuple[str, ...], depth: int, left: _Left) -> dict[str, Any]:
        """One node of the tree. Of those below it `children`, or `more` where they were not looked for.

        `left_out` counts the children that are too many.
        """
        entry: dict[str, Any] = {"name": path[-1] if path else source, "source": source, "path": "/".join(path)}
        try:
            node = await self._scenes.node(source, path)
            names = await self._registry.run(lambda: names_below(node))
        except vf.VoxfetchError as error:
            return entry | {"kind": "error", "error": error.kind}
        if node is None:
            return entry | {"kind": "error", "error": "NotFoundError"}
        entry |= brief(node) | {"urls": _urls(asked, source, path)}
        if depth == 0 and names:
            return entry | {"more": True}
        taken = names[: left.take(len(names))]
        children = [self._entry(asked, source, (*path, *parts), depth - 1, left) for parts in taken]
        entry["children"] = await asyncio.gather(*children)
        return entry | ({"left_out": len(names) - len(taken)} if len(taken) < len(names) else {})

    # --- node

    async def _node(self, asked: Asked, path: Sequence[str]) -> Body | None:
        node = await self._scenes.node(asked.source, path)
        if node is None:
            return None
        found = brief(node) | {"name": path[-1] if path else asked.source, "source": asked.source}
        found |= {"path": "/".join(path), "urls": _urls(asked, asked.source, path), "attrs": bounded_attrs(node.attrs)}
        found["python"] = python_snippet(node, asked.source)
        if isinstance(node, vf.Group):
            names = await self._registry.run(lambda: names_below(node))
            return _json(found | {"keys": ["/".join(parts) for parts in names[:_MAX_NODES]]})
        levels = node.levels if isinstance(node, vf.Image) else (node,)
        found["levels"] = [described_array(level) for level in levels]
        if isinstance(node, vf.Image):
            found["labels"] = await self._registry.run(lambda: label_names(node))
        try:
            scene = await self._scenes.find(asked.source, path)
        except vf.UnsupportedError as error:
            return _json(found | {"picture": None, "reason": error.message})
        return _json(found | {"picture": None if scene is None else described_picture(scene)})

    # --- cutouts

    async def _cutouts(self, body: bytes) -> Body:
        boxes = [await self._box(number, one) for number, one in enumerate(_boxes(body))]
        voxels = sum(math.prod(box.shape) for box in boxes)
        total = sum(math.prod(box.shape) * box.array.dtype.itemsize for box in boxes)
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
        return Body(content.data, "application/octet-stream", headers={"X-Voxfetch-Boxes": header})

    async def _box(self, number: int, given: Any) -> _Box:
        where = f"box {number}"
        if not isinstance(given, dict):
            raise BadParameterError(f"{where}: an object with source, path, level, start and shape is needed")
        asked = cast("dict[str, Any]", given)
        if unknown := asked.keys() - {"source", "path", "level", "start", "shape"}:
            raise BadParameterError(f"{where}: no such field: {min(unknown)[:40]!r}")
        source, path, level = asked.get("source"), asked.get("path", ""), asked.get("level", 0)
        if not isinstance(source, str) or not isinstance(path, str) or source not in self._registry.names:
            raise BadParameterError(f"{where}: source and path are to name one of the sources")
        node = await self._scenes.node(source, parts_of(where, path))
        if isinstance(node, vf.Image):
            if type(level) is not int or not 0 <= level < len(node.levels):
                raise BadParameterError(f"{where}: level is one of 0..{len(node.levels) - 1}")
            node = node.levels[level]
        if not isinstance(node, vf.Array) or type(level) is not int or (level and not isinstance(node, vf.Level)):
            raise BadParameterError(f"{where}: there is no such array")
        if node.dtype.kind not in "biufc":
            raise BadParameterError(f"{where}: elements of type {node.dtype} are not sent")
        start = _integers(where, "start", asked.get("start"), node.ndim, -(1 << 60))
        return _Box(node, start, _integers(where, "shape", asked.get("shape"), node.ndim, 1))

    # --- state

    async def _state(self, asked: Asked) -> Body:
        sources = [part for part in asked.query.get("source", "").split(",") if part]
        if not 1 <= len(sources) <= _MAX_OVERLAID:
            raise BadParameterError(f"source: 1 to {_MAX_OVERLAID} names are needed, separated by commas")
        shown: list[Layer] = []
        for one in map(unquote, sources):
            source, _, path = one.partition("/")
            if source not in self._registry.names:
                raise BadParameterError(f"source: there is no source {source[:40]!r}")
            shown += await self._shown(asked, source, parts_of("source", path))
        if not shown:
            raise BadParameterError("source: there is no image or array there")
        state = state_of(shown)
        if asked.query.get("redirect") in (None, "", "0"):
            return _json(state)
        place = viewer_url(state, asked.origin + asked.prefix)
        return Body(b"", "text/plain", headers={"Location": place, "Cache-Control": "no-store"}, status=302)

    async def _shown(self, asked: Asked, source: str, path: tuple[str, ...]) -> list[Layer]:
        """The layers of one source: the image and its labels; of a group, the images in it."""
        node = await self._scenes.node(source, path)
        if isinstance(node, vf.Group):
            return await self._below(asked, source, path, node)
        scene = await self._scenes.find(source, path)
        if scene is None:
            return []
        shown = [await self._layer(asked, scene, source, path)]
        if isinstance(node, vf.Image) and not scene.is_label:
            for name in (await self._registry.run(lambda: label_names(node)))[:_MAX_OVERLAID]:
                place = (*path, "labels", *name.split("/"))
                label = await self._scenes.find(source, place)
                if label is not None:
                    shown.append(await self._layer(asked, label, source, place))
        return shown

    async def _below(self, asked: Asked, source: str, path: tuple[str, ...], group: vf.Group) -> list[Layer]:
        """The layers of the images in a group, of its arrays if there are none; what cannot be opened is left out."""
        names = (await self._registry.run(lambda: names_below(group)))[:_MAX_CHILDREN]
        images: list[Layer] = []
        arrays: list[Layer] = []
        problems: list[vf.VoxfetchError] = []
        for parts in names:
            try:
                found = await self._shown(asked, source, (*path, *parts)) if len(path) < _MAX_DEPTH else []
            except vf.VoxfetchError as error:
                problems.append(error)
                continue
            for layer in found:
                (arrays if layer.given.kind == "array" else images).append(layer)
            if len(images) >= _MAX_OVERLAID:
                break
        if problems and not images and not arrays:
            raise problems[0]
        return (images or arrays)[:_MAX_OVERLAID]

    async def _layer(self, asked: Asked, scene: Scene, source: str, path: tuple[str, ...]) -> Layer:
        preset, given = preset_for(scene), scene.shown
        if preset != given.preset:
            given = await self._registry.run(lambda: show(scene.shown.node, preset))
        return Layer(scene, given, asked.origin + asked.prefix, source, path)


class _Left:
    """How many nodes one answer may still have."""

    def __init__(self, count: int) -> None:
        self._count = count

    def take(self, wanted: int) -> int:
        """Takes as many as there are, and at most `_MAX_CHILDREN`; returns how many."""
        taken = min(wanted, self._count, _MAX_CHILDREN)
        self._count -= taken
        return taken


class _Box(NamedTuple):
    array: vf.Array
    start: tuple[int, ...]
    shape: tuple[int, ...]


def _urls(asked: Asked, source: str, path: Sequence[str]) -> dict[str, str]:
    place = "/".join(quote(part, safe="") for part in (source, *path))
    return {plane: f"{asked.origin}{asked.prefix}/{plane}/{place}" for plane in (*_PLANES, "img")}


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
        raise BadParameterError("body: a JSON list of boxes is needed")
    found = cast("list[Any]", boxes)
    if len(found) > _MAX_BOXES:
        raise vf.LimitExceededError(f"{len(found):,} boxes, the limit is {_MAX_BOXES:,}")
    return found


def _integers(where: str, name: str, given: Any, count: int, least: int) -> tuple[int, ...]:
    numbers = cast("list[Any]", given) if isinstance(given, list) else []
    if len(numbers) != count or not all(type(one) is int and least <= one <= 1 << 60 for one in numbers):
        raise BadParameterError(f"{where}: {name} has {count} whole numbers, one per axis")
    return tuple(numbers)
