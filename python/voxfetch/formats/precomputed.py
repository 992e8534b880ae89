"""Neuroglancer precomputed volumes: an `info` document -> the image that it describes.

An `info` lists the scales of a volume. Each becomes a level, an array with the axes x, y, z, channel, whose document is
the `info` with this scale alone and with an empty `key`, because the node lies in the scale's folder already; the
compiled core reads it. Sources: Neuroglancer's "Precomputed Volume Format" (volume.rst, json_schema/volume.yml);
`redirect`, `info.gz` and `info.br` are cloud-volume's.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from voxfetch import _core, ngff
from voxfetch.errors import (
    CodecError,
    LimitExceededError,
    MetadataError,
    NotFoundError,
    UnsupportedError,
    VoxfetchError,
)
from voxfetch.formats.around import above, around
from voxfetch.node import Described, Node, known_child, parse_json
from voxfetch.store import MAX_DOCUMENT_NBYTES, join_key
from voxfetch.store.local import LocalStore
from voxfetch.values import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from voxfetch.node import Settings
    from voxfetch.store import Store

__all__ = ["find"]

_MAX_REDIRECTS = 10
_MAX_SCALES = 1000

_AXES = (*(ngff.Axis(name, "space", "nanometer") for name in "xyz"), ngff.Axis("channel", "channel"))
_OTHERS = {
    "neuroglancer_multilod_draco": "multi-resolution meshes",
    "neuroglancer_legacy_mesh": "meshes",
    "neuroglancer_skeletons": "skeletons",
    "neuroglancer_annotations_v1": "annotations",
    "neuroglancer_annotation_collection": "annotations",
    "neuroglancer_segment_properties": "properties of segments",
}
# What the core needs of the volume to read a scale.
_OF_EVERY_SCALE = ("@type", "type", "data_type", "num_channels")


def find(store: Store, path: str, settings: Settings) -> Node | None:
    """Returns the volume whose `info` lies at `path`, an image; None when there is none.

    Raises `UnsupportedError` for an `info` of something else (meshes, skeletons, ...), a graphene volume and a redirect
    out of the store, `MetadataError`, `LimitExceededError`, `NotFoundError` (where a redirect leads),
    `PermissionDeniedError`, `StoreError`.
    """
    found = _read(store, path)
    if found is None:
        return _scale_at(store, path, settings)
    for _ in range(_MAX_REDIRECTS + 1):
        if "redirect" not in found.info:
            return _node(found, store, path, settings)
        path = _redirected(store, found)
        found = _read(store, path)
        if found is None:
            message = "an info document redirects to this folder, which has none"
            raise NotFoundError(message, key=join_key(store.url, path))
    raise LimitExceededError(f"redirect: more than {_MAX_REDIRECTS} of them", key=found.key)


def _scale_at(store: Store, path: str, settings: Settings) -> Node | None:
    """The scale whose folder `path` is, as a volume above it describes it."""
    places: list[tuple[Store, str, str]] = [(store, folder, path) for folder in above(path)]
    places += [(outer, "", below) for outer, below in around(store, path)]
    for outer, folder, below in places:
        # What lies above is not what was asked for: only a volume with this scale counts.
        volume = None
        with suppress(VoxfetchError):
            volume = find(outer, folder, settings) if _read(outer, folder) is not None else None
        for name, scale in (volume.consolidated or {}).items() if volume is not None else ():
            if scale.path == below:
                return known_child(cast("Node", volume), name)
    return None


class _Found(NamedTuple):
    """An `info`: its bytes, its content, its URL."""

    document: bytes
    info: Mapping[str, Any]
    key: str


def _read(store: Store, path: str) -> _Found | None:
    """Reads the `info` of a folder. cloud-files adds to the names of files that it compresses, on disk only."""
    names = ("info", "info.gz", "info.br") if isinstance(store, LocalStore) else ("info",)
    documents = store.get_many([join_key(path, name) for name in names])
    for name, document in zip(names, documents, strict=True):
        if isinstance(document, bytes):
            key = join_key(store.url, path, name)
            text = _unbrotlied(document, key) if name == "info.br" else _unzipped(document, key)
            return _Found(text, parse_json(text, key), key)
        if document is not None:
            raise document
    return None


def _unzipped(document: bytes, key: str) -> bytes:
    """The document without gzip, if it has any: no JSON begins with these two bytes."""
    if not document.startswith(b"\x1f\x8b"):
        return document
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(document)) as file:
            return file.read(MAX_DOCUMENT_NBYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise MetadataError(f"not a whole gzip stream: {error}", key=key) from None


def _unbrotlied(document: bytes, key: str) -> bytes:
    try:
        return _core.decode_brotli(document, MAX_DOCUMENT_NBYTES)
    except CodecError as error:
        raise MetadataError(error.message, key=key) from None


def _redirected(store: Store, found: _Found) -> str:
    """The path in the store that a redirect leads to."""
    target = found.info["redirect"]
    if not isinstance(target, str):
        raise MetadataError(f"redirect: expected a URL, found {shown(target)}", key=found.key)
    url = target.removeprefix("precomputed://").rstrip("/")
    if not f"{url}/".startswith(f"{store.url}/"):
        place = re.sub(r"//[^/@]*@", "//", url).partition("?")[0][:200]
        message = f"redirect: the volume lies in another store, at {place!r}"
        raise UnsupportedError(message, key=found.key, hint="open that URL")
    return _joined("", url.removeprefix(store.url).lstrip("/"), found.key, "redirect")


def _node(found: _Found, store: Store, path: str, settings: Settings) -> Node | None:
    info = found.info
    if "scales" not in info:
        _refuse_others(info.get("@type"), found.key)
        return None
    if "graph" in info and "data_dir" in info:
        message = f"a graphene volume, whose chunks lie at {shown(info['data_dir'])}, is not read"
        raise UnsupportedError(
            message, key=found.key, hint="its supervoxels are a precomputed volume: open that folder"
        )
    datasets: list[ngff.Dataset] = []
    levels: dict[str, Described] = {}
    finest: tuple[float, ...] | None = None
    for i, scale in enumerate(_scales(info["scales"], found.key)):
        dataset, level, finest = _level(scale, path, found, f"scales[{i}]", finest)
        if dataset.path in levels:
            raise MetadataError(f"scales[{i}].key: {shown(dataset.path)} is that of another scale too", key=found.key)
        datasets.append(dataset)
        levels[dataset.path] = level
    is_label = info.get("type") == "segmentation"
    return Node(
        store=store,
        path=path,
        format="precomputed",
        kind="group",
        document=found.document,
        attributes={name: value for name, value in info.items() if name != "scales"},
        consolidated=levels,
        settings=settings,
        multiscale=ngff.Multiscale("Neuroglancer precomputed", None, _AXES, tuple(datasets), is_label=is_label),
    )


def _refuse_others(kind: object, key: str) -> None:
    """Raises for an `info` without scales that is one of Neuroglancer's all the same."""
    if not isinstance(kind, str) or not kind.startswith("neuroglancer_"):
        return
    if kind == "neuroglancer_multiscale_volume":
        raise MetadataError("scales: is missing", key=key)
    message = f"@type: {_OTHERS.get(kind, shown(kind))} of Neuroglancer's precomputed format are not read"
    raise UnsupportedError(message, key=key, hint="open the folder of a volume, whose info has `scales`")


def _scales(value: object, key: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise MetadataError(f"scales: expected a list of scales, found {shown(cast('object', value))}", key=key)
    scales = cast("list[object]", value)
    if len(scales) > _MAX_SCALES:
        raise LimitExceededError(f"scales: {len(scales)} scales, the limit is {_MAX_SCALES}", key=key)
    for i, scale in enumerate(scales):
        if not isinstance(scale, dict):
            raise MetadataError(f"scales[{i}]: expected an object, found {shown(scale)}", key=key)
    return cast("list[dict[str, Any]]", scales)


def _level(
    scale: dict[str, Any], path: str, found: _Found, at: str, finest: tuple[float, ...] | None
) -> tuple[ngff.Dataset, Described, tuple[float, ...]]:
    """One scale: its place in the world, its array, and the resolution of the finest, which is the first."""
    resolution = _vector(scale.get("resolution"), found.key, f"{at}.resolution")
    if min(resolution) <= 0:
        raise MetadataError(f"{at}.resolution: expected positive numbers, found {shown(resolution)}", key=found.key)
    offset = scale.get("voxel_offset")
    offsets = (0.0, 0.0, 0.0) if offset is None else _vector(offset, found.key, f"{at}.voxel_offset")
    finest = resolution if finest is None else finest
    # An offset counts voxels of its own scale and names their corner. Here centres count, from that of voxel 0 of the
    # finest scale.
    places = zip(offsets, resolution, finest, strict=True)
    translation = tuple(start * size + (size - first) / 2 for start, size, first in places)
    folder = _joined(path, scale.get("key"), found.key, f"{at}.key")
    name = _name(path, folder)
    if not name:
        raise MetadataError(f"{at}.key: {shown(scale.get('key'))} is not the folder of a scale", key=found.key)
    common = {name: found.info[name] for name in _OF_EVERY_SCALE if name in found.info}
    document = {**common, "scales": [{**scale, "key": ""}]}
    level = Described("precomputed", "array", document, attributes=scale, path=folder)
    return ngff.Dataset(name, (*resolution, 1.0), (*translation, 0.0)), level, finest


def _joined(path: str, key: object, document: str, at: str) -> str:
    """The folder that `key` names from `path`: `..` leads up, but not out of the store."""
    if not isinstance(key, str):
        raise MetadataError(f"{at}: expected a string, found {shown(key)}", key=document)
    parts = path.split("/") if path else []
    steps = key.rstrip("/").split("/") if key.rstrip("/") else []
    if any(step == "" or "\\" in step or "\0" in step for step in steps) or "://" in key:
        raise MetadataError(f"{at}: {shown(key)} is not a relative path", key=document)
    for step in steps:
        if step == "..":
            if not parts:
                message = f"{at}: {shown(key)} leads out of what was opened"
                raise UnsupportedError(message, key=document, hint="open a folder above both, and this volume in it")
            parts.pop()
        elif step != ".":
            parts.append(step)
    return "/".join(parts)


def _name(path: str, folder: str) -> str:
    """How a level is called in its image: the way to its folder, without what leads up."""
    above, below = path.split("/"), folder.split("/")
    while above and len(below) > 1 and above[0] == below[0]:
        above, below = above[1:], below[1:]
    return "/".join(below)


def _vector(value: object, key: str, at: str) -> tuple[float, ...]:
    error = MetadataError(f"{at}: expected three numbers, found {shown(value)}", key=key)
    if not isinstance(value, list):
        raise error
    items = cast("list[object]", value)
    numbers = [
        float(item)
        for item in items[:3]
        if isinstance(item, int | float) and not isinstance(item, bool) and abs(item) < 2**63
    ]
    if not len(numbers) == len(items) == 3:
        raise error
    return tuple(numbers)
