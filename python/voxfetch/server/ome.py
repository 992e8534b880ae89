"""OME-Zarr attributes of what is shown: 0.5 for Zarr v3, 0.4 for Zarr v2.

Both have the same members; in 0.5 they are below `ome`, which has the one version, in 0.4 each has its own. Levels are
called 0, 1, 2 whatever they are called in the source, and the transforms of any version are one scale and one
translation each. Of plates, wells and collections the members are passed on as they are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from voxfetch.server.contrast import ShownChannel
    from voxfetch.server.shown import Shown

__all__ = ["OmeVersion", "group_attributes", "image_attributes", "labels_attributes", "plain_json"]

OmeVersion = Literal["0.4", "0.5"]

#: Members of attributes that OME-Zarr has given a meaning, in one version or the other.
_OME_MEMBERS = (
    "ome",
    "multiscales",
    "omero",
    "image-label",
    "labels",
    "plate",
    "well",
    "series",
    "bioformats2raw.layout",
)
#: Of a group that is no image, what is passed on; the first ones have a version in 0.4.
_VERSIONED = ("plate", "well")
_OF_GROUPS = (*_VERSIONED, "series", "bioformats2raw.layout")


def image_attributes(
    shown: Shown, channels: Sequence[ShownChannel], version: OmeVersion, *, is_in_labels: bool
) -> dict[str, Any]:
    """Attributes of the group of an image; `is_in_labels`: it lies at `labels/NAME` of the image that it labels."""
    axes: list[dict[str, Any]] = []
    for name, kind, unit in zip(shown.axes, shown.types, shown.levels[0].unit, strict=True):
        axes.append({"name": name} | ({"type": kind} if kind else {}) | ({"unit": unit} if unit else {}))
    datasets = [
        {
            "path": str(number),
            "coordinateTransformations": [
                {"type": "scale", "scale": list(level.scale)},
                {"type": "translation", "translation": list(level.translation)},
            ],
        }
        for number, level in enumerate(shown.levels)
    ]
    members: dict[str, Any] = {"multiscales": [{"name": shown.name, "axes": axes, "datasets": datasets}]}
    if shown.is_label:
        found = _ome(shown.attrs).get("image-label")
        label = dict(cast("Mapping[str, Any]", found)) if isinstance(found, dict) else {}
        label.pop("version", None)
        members["image-label"] = label | ({"source": {"image": "../../"}} if is_in_labels else {})
    else:
        members["omero"] = _omero(shown, channels)
    return {**_own(shown.attrs), **_versioned(members, version, ("omero", "image-label"))}


def labels_attributes(names: Sequence[str], version: OmeVersion) -> dict[str, Any]:
    """Attributes of the group that holds label images."""
    return _versioned({"labels": list(names)}, version, ())


def group_attributes(shown: Shown, version: OmeVersion) -> dict[str, Any]:
    """Attributes of a group that is no image."""
    members = {name: value for name, value in _ome(shown.attrs).items() if name in _OF_GROUPS}
    for name in _VERSIONED:
        if isinstance(members.get(name), dict):
            members[name] = {key: value for key, value in members[name].items() if key != "version"}
    return {**_own(shown.attrs), **(_versioned(members, version, _VERSIONED) if members else {})}


def plain_json(value: Any) -> Any:
    """A value from the attributes of any format as JSON that every reader parses; NaN and infinity become texts."""
    if isinstance(value, dict):
        return {str(name): plain_json(one) for name, one in cast("dict[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(one) for one in cast("list[Any]", value)]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _omero(shown: Shown, channels: Sequence[ShownChannel]) -> dict[str, Any]:
    finest = shown.levels[0]
    middle = next((n // 2 for n, name in zip(finest.shape, shown.axes, strict=True) if name.lower() == "z"), 0)
    return {
        "name": shown.name,
        "channels": [
            {
                "label": channel.label,
                "color": channel.color,
                "active": channel.active,
                "coefficient": 1,
                "family": "linear",
                "inverted": False,
                "window": {
                    "min": channel.low,
                    "max": channel.high,
                    "start": channel.start,
                    "end": channel.end,
                },
            }
            for channel in channels
        ],
        "rdefs": {"defaultT": 0, "defaultZ": middle, "model": "color" if len(channels) > 1 else "greyscale"},
    }


def _ome(attrs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The members of OME-Zarr among attributes of any version."""
    found: object = attrs.get("ome")
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else attrs


def _own(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """What the writer has put beside OME-Zarr's members."""
    return {name: value for name, value in attrs.items() if name not in _OME_MEMBERS and name != "_ARRAY_DIMENSIONS"}


def _versioned(members: dict[str, Any], version: OmeVersion, each: Sequence[str]) -> dict[str, Any]:
    if version == "0.5":
        return {"ome": {"version": version, **members}}
    for name in each:
        if isinstance(members.get(name), dict):
            members[name] = {"version": version, **members[name]}
    if "multiscales" in members:
        members["multiscales"] = [{"version": version, **one} for one in members["multiscales"]]
    return members
