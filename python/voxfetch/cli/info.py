"""`voxfetch info` and `voxfetch ls`: what is there."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

import voxfetch as vf
from voxfetch.cli.text import extents, number, plain, size, without_secrets

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Mapping

    from voxfetch.cli.console import Console
    from voxfetch.ngff import Channel

#: What `open` can return.
Opened = vf.Array | vf.Image | vf.Group | vf.Collection
#: What a URL has behind a file or folder that holds a hierarchy -> what people call it.
_CONTAINERS = {"|zip:": "ZIP archive", "|kerchunk:": "kerchunk references", "|icechunk:": "icechunk"}


def info(args: argparse.Namespace, console: Console) -> int:
    """Describes one array, image or group on a page."""
    node = vf.open(args.source)
    console.result(describe(node))
    if console.as_json:
        return 0
    if isinstance(node, vf.Image):
        _show_image(node, console)
    elif isinstance(node, vf.Array):
        _show_array(node, console)
    else:
        _show_group(node, console)
    return 0


def ls(args: argparse.Namespace, console: Console) -> int:
    """Lists a hierarchy, one line per node."""
    entries: list[dict[str, object]] = []
    for path, node in walk(vf.open(args.source), depth=args.depth):
        if isinstance(node, vf.VoxfetchError):
            entries.append({"path": path, "kind": "error", "error": str(node)})
            console.line(f"{plain(path)}  ! {plain(node)}")
        else:
            entries.append({"path": path, **brief(node)})
            console.line(f"{plain(path)}  {_one_line(node)}")
    console.result({"source": without_secrets(args.source), "entries": entries})
    return 0


def walk(node: Opened, path: str = "", *, depth: int | None = None) -> Iterator[tuple[str, Opened | vf.VoxfetchError]]:
    """The node and all below it, parents first, levels and labels of images too.

    What cannot be opened is yielded as its error. `depth` limits how far down; None is all the way.
    """
    yield path or ".", node
    if depth == 0 or isinstance(node, vf.Array):
        return
    below = None if depth is None else depth - 1
    for name, child in _children(node):
        place = f"{path}/{name}" if path else name
        if isinstance(child, vf.VoxfetchError):
            yield place, child
        else:
            yield from walk(child, place, depth=below)


def _children(node: vf.Image | vf.Group | vf.Collection) -> Iterator[tuple[str, Opened | vf.VoxfetchError]]:
    if isinstance(node, vf.Image):
        for i in range(len(node.levels)):
            yield f"level {i}", node.level(i)
        for name in node.labels:
            yield f"labels/{name}", _attempt(node.labels, name)
    else:
        for name in node.keys():  # noqa: SIM118 - a group is not a mapping
            yield name, _attempt(node, name)


def _attempt(owner: object, name: str) -> Opened | vf.VoxfetchError:
    try:
        return owner[name]  # type: ignore[index]
    except vf.VoxfetchError as error:
        return error


def describe(node: Opened) -> dict[str, object]:
    """Everything `info` knows, as JSON values."""
    found = brief(node)
    if isinstance(node, vf.Array):
        return found | {"fill_value": node.fill_value, "attrs": dict(node.attrs)}
    if isinstance(node, vf.Image):
        found["labels"] = list(node.labels)
        found["channels"] = [
            {
                "label": channel.label,
                "color": channel.color,
                "window": None if channel.window is None else asdict(channel.window),
            }
            for channel in node.channels
        ]
        found["levels"] = [brief(level) for level in node.levels]
    else:
        found["keys"] = list(node.keys())
    return found | {"attrs": dict(node.attrs)}


def brief(node: Opened) -> dict[str, object]:
    """What fits on a line, as JSON values."""
    if isinstance(node, vf.Array):
        found: dict[str, object] = {
            "kind": "array",
            "format": node.format,
            "url": node.url,
            "axes": list(node.axes),
            "shape": list(node.shape),
            "origin": list(node.origin),
            "dtype": str(node.dtype),
            "chunks": list(node.chunks),
            "shards": None if node.shards is None else list(node.shards),
            "codecs": str(node.codecs),
            "nbytes": node.nbytes,
        }
        if isinstance(node, vf.Level):
            found |= {"scale": list(node.scale), "translation": list(node.translation), "unit": list(node.unit)}
        return found
    if isinstance(node, vf.Image):
        return {
            "kind": "image",
            "format": node.format,
            "url": node.url,
            "name": node.name,
            "axes": list(node.axes),
            "shape": list(node.level(0).shape),
            "dtype": str(node.level(0).dtype),
        }
    return {
        "kind": "collection" if isinstance(node, vf.Collection) else "group",
        "format": node.format,
        "url": node.url,
    }


def _format(node: Opened) -> str:
    """The format, and what it lies in."""
    container = next((what for mark, what in _CONTAINERS.items() if mark in node.url), None)
    return node.format if container is None else f"{node.format} ({container})"


def _one_line(node: Opened) -> str:
    if isinstance(node, vf.Array):
        line = f"{extents(node.shape)} {node.dtype}, chunks {extents(node.chunks)}"
        return line if node.shards is None else f"{line}, shards {extents(node.shards)}"
    if isinstance(node, vf.Image):
        return f"image, {node.format}, {' '.join(map(plain, node.axes))}"
    return "collection" if isinstance(node, vf.Collection) else "group"


def _show_array(array: vf.Array, console: Console) -> None:
    console.line(f"{plain(array.url)}: array, {_format(array)}")
    fields = [
        ("shape", f"{extents(array.shape)} ({' '.join(map(plain, array.axes))})"),
        ("data type", f"{array.dtype}, fill value {plain(array.fill_value)}"),
        ("size", size(array.nbytes)),
        ("chunks", _with_size(array.chunks, array.dtype.itemsize)),
        ("shards", "none" if array.shards is None else _with_size(array.shards, array.dtype.itemsize)),
        ("codecs", plain(array.codecs)),
    ]
    if any(array.origin):
        fields.insert(1, ("origin", ", ".join(map(str, array.origin))))
    if isinstance(array, vf.Level):
        fields.append(("scale", _scale(array)))
    _show_fields(fields, array.attrs, console)


def _show_image(image: vf.Image, console: Console) -> None:
    finest = image.level(0)
    console.line(f"{plain(image.url)}: image, {_format(image)}")
    named = zip(image.axes, finest.unit, strict=True)
    axes = [f"{plain(name)} ({plain(unit)})" if unit else plain(name) for name, unit in named]
    fields = [
        ("name", plain(image.name or "-")),
        ("axes", ", ".join(axes)),
        ("data type", str(finest.dtype)),
        ("codecs", plain(finest.codecs)),
        ("labels", ", ".join(map(plain, image.labels)) or "none"),
    ]
    if any(finest.origin):
        fields.insert(2, ("origin", ", ".join(map(str, finest.origin))))
    if image.channels:
        fields.append(("channels", ", ".join(_channel(i, channel) for i, channel in enumerate(image.channels))))
    if image.format == "WEBKNOSSOS" and "elsewhere" in image.attrs:
        places = ", ".join(f"{plain(mag)} at {plain(place)}" for mag, place in image.attrs["elsewhere"].items())
        fields.append(("elsewhere", places))
    _show_fields(fields, {}, console)
    console.table(
        ("level", "shape", "scale", "chunks", "shards", "size"),
        [
            (
                str(i),
                extents(level.shape),
                " x ".join(map(number, level.scale)),
                extents(level.chunks),
                extents(level.shards),
                size(level.nbytes),
            )
            for i, level in enumerate(image.levels)
        ],
    )


def _show_group(group: vf.Group, console: Console) -> None:
    kind = "collection" if isinstance(group, vf.Collection) else "group"
    console.line(f"{plain(group.url)}: {kind}, {_format(group)}")
    names = list(group.keys())
    shown = ", ".join(map(plain, names[:20])) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
    _show_fields([("holds", shown or "nothing")], group.attrs, console)


def _show_fields(fields: Iterable[tuple[str, str]], attrs: Mapping[str, object], console: Console) -> None:
    for name, value in fields:
        console.line(f"  {name:<10} {value}")
    for i, (name, value) in enumerate(attrs.items()):
        shown = f"{plain(name)} = {plain(value)}"
        console.line(f"  {'attributes' if i == 0 else '':<10} {shown if len(shown) <= 100 else shown[:97] + '...'}")


def _with_size(shape: tuple[int, ...], item_bytes: int) -> str:
    return f"{extents(shape)}, {size(math.prod(shape) * item_bytes)} decoded"


def _scale(level: vf.Level) -> str:
    parts = zip(level.scale, level.unit, strict=True)
    return " x ".join(f"{number(scale)} {plain(unit)}" if unit else number(scale) for scale, unit in parts)


def _channel(i: int, channel: Channel) -> str:
    label = plain(channel.label or i)
    return f"{label} #{channel.color}" if channel.color else label
