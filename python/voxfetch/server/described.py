"""Nodes as JSON values: what a page shows of them. Documents only, no voxels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import voxfetch as vf
from voxfetch.server.scene import limits_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from voxfetch.server.scene import Scene

__all__ = [
    "bounded_attrs",
    "brief",
    "described_array",
    "described_picture",
    "label_names",
    "names_below",
    "python_snippet",
    "without_secrets",
]

_MAX_ATTRS_BYTES = 64 << 10
#: More channels than these are no layers of a page.
_MAX_CHANNELS = 24


def names_below(node: vf.Array | vf.Image | vf.Group | None) -> list[tuple[str, ...]]:
    """The paths of what lies in a node, each as its parts. Where nobody can list, there is nothing."""
    if isinstance(node, vf.Image):
        return [("labels", *name.split("/")) for name in label_names(node)]
    if not isinstance(node, vf.Group):
        return []
    try:
        # What begins like this is of a format's own, and a registry does not find it.
        return [tuple(name.split("/")) for name in node if not name.startswith((".", "__"))]
    except vf.UnsupportedError:
        return []


def label_names(image: vf.Image) -> list[str]:
    """Names of the label images; none where the document that lists them is broken: the image itself is fine."""
    try:
        return list(image.labels)
    except (vf.UnsupportedError, vf.MetadataError):
        return []


def brief(node: vf.Array | vf.Image | vf.Group) -> dict[str, Any]:
    """What a tree shows of a node."""
    if isinstance(node, vf.Group):
        return {"kind": "collection" if isinstance(node, vf.Collection) else "group", "format": node.format}
    finest = node.levels[0] if isinstance(node, vf.Image) else node
    found = {"kind": "image" if isinstance(node, vf.Image) else "array", "format": node.format}
    found |= {"shape": list(finest.shape), "axes": list(finest.axes), "dtype": str(finest.dtype)}
    if isinstance(node, vf.Image):
        found |= {"title": node.name, "is_label": node.is_label}
    return found


def described_array(array: vf.Array) -> dict[str, Any]:
    """A level of an image, or an array that stands alone."""
    found: dict[str, Any] = {"shape": array.shape, "dtype": str(array.dtype), "chunks": array.chunks}
    found |= {"shards": array.shards, "codecs": array.codecs, "format": array.format, "nbytes": array.nbytes}
    if isinstance(array, vf.Level):
        found |= {"scale": array.scale, "translation": array.translation, "units": array.unit}
    return found


def described_picture(scene: Scene) -> dict[str, Any]:
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


def python_snippet(node: vf.Array | vf.Image | vf.Group, source: str) -> str:
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
    sides = [
        min(extent, 64 if name.lower() in "xyz" else 1) for name, extent in zip(array.axes, array.shape, strict=True)
    ]
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


def bounded_attrs(attrs: Mapping[str, Any]) -> Any:
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
