"""WEBKNOSSOS datasets: `datasource-properties.json` and the headers of their WKW mags -> nodes.

A dataset is a group of layers, a layer an image, a mag a level of it. Arrays have the axes (c, x, y, z) and begin where
the layer's bounding box does: `origin` says where, in voxels of the mag. Layers of other formats (Zarr, N5) are opened
by their own documents. The header of a mag is read when the mag is opened; a mag may lie anywhere in the store, and one
that does not is named, and left out of the levels. Source: webknossos-libs `DatasetProperties`; webknossos-wrap, "File
format".
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import unquote

from voxfetch.errors import (
    LimitExceededError,
    MetadataError,
    NotFoundError,
    PermissionDeniedError,
    UnsupportedError,
    VoxfetchError,
)
from voxfetch.formats.around import above, around
from voxfetch.ngff import Axis, Dataset, Multiscale
from voxfetch.node import Described, Node, Settings, inside, known_child, parse_json
from voxfetch.store import join_key
from voxfetch.store.local import LocalStore, file_url
from voxfetch.values import as_list, as_object

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from voxfetch.store import Store

__all__ = ["completed", "find", "headers", "layer_names", "listed_layers"]

PROPERTIES = "datasource-properties.json"
HEADER = "header.wkw"

#: Layers and mags of one dataset.
_MAX_MAGS = 10_000
_NANOMETER = "nanometer"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# URLs of object stores have keys as they are.
_AS_WRITTEN = ("s3:", "gs:", "az:", "abfs:")
_FILE = re.compile(r"([xyz])(\d+)(?:\.wkw)?")

_Triple = tuple[int, int, int]


class _Box(NamedTuple):
    """Voxels `start` to `end` of the finest mag."""

    start: _Triple
    end: _Triple

    def at(self, mag: _Triple) -> tuple[list[int], list[int]]:
        """(first voxel, extent) in a mag: all voxels that a voxel of the finest lies in."""
        start = [low // factor for low, factor in zip(self.start, mag, strict=True)]
        end = [-(-high // factor) for high, factor in zip(self.end, mag, strict=True)]
        return start, [high - low for low, high in zip(start, end, strict=True)]

    def document(self, mag: _Triple) -> dict[str, Any]:
        """The document of a mag, without its header."""
        start, shape = self.at(mag)
        return {"start": start, "shape": shape}


class _Mag(NamedTuple):
    """`path` is its key in the store, None where it lies outside of that: at `place`, as the file says it."""

    factors: _Triple
    name: str
    path: str | None
    place: str


class _Layer(NamedTuple):
    name: str
    box: _Box
    mags: list[_Mag]
    is_wkw: bool
    is_label: bool
    attributes: Mapping[str, Any]


def find(store: Store, path: str, settings: Settings) -> Node | None:
    """Returns the dataset, layer or mag at `path`, None when there is none. Raises like `formats.find`."""
    higher = above(path)
    keys = [join_key(path, HEADER), *(join_key(folder, PROPERTIES) for folder in (path, *higher))]
    header, *properties = (
        None if isinstance(found, PermissionDeniedError) else found for found in store.get_many(keys)
    )
    for folder, document in zip((path, *higher), properties, strict=True):
        if document is None:
            continue
        dataset = _dataset(store, folder, document, settings)
        name = path[len(folder) :].strip("/")
        if not name:
            return dataset
        found = known_child(dataset, name)
        return None if found is None else completed(found)
    for outer, below in around(store, path):
        if header is not None and outer.exists(PROPERTIES):
            return find(outer, below, settings)
        # What lies above is not what was asked for: only a dataset with this layer counts.
        with suppress(VoxfetchError):
            if outer.exists(PROPERTIES) and (found := find(outer, below, settings)) is not None:
                return found
    if header is None:
        return None
    # A mag whose dataset is not at hand: its extent is that of its files.
    document = _with_header(header, _extent_of_files(store, path, header).document((1, 1, 1)))
    return Node(store, path, "wkw", "array", document, {}, settings=settings)


# Folders of a store far away that are listed for the extent of a mag alone, one after the other.
_MOST_LISTINGS = 1_000


def _extent_of_files(store: Store, path: str, header: bytes) -> _Box:
    key = join_key(store.url, path, HEADER)
    hint = f"open the folder with the dataset's {PROPERTIES} and name the mag in it, such as open_array(URL, 'color/1')"
    voxels = 1 << ((header[4] & 15) + (header[4] >> 4)) if len(header) > 4 else 1
    low, high = [1 << 62] * 3, [0] * 3
    listings = 0
    try:
        for z in store.list(path):
            for y in store.list(join_key(path, z)) if _FILE.fullmatch(z) else ():
                listings += 1
                if listings > _MOST_LISTINGS and not isinstance(store, LocalStore):
                    message = f"a WKW mag of more than {_MOST_LISTINGS:,} folders, whose extent only their names tell"
                    raise LimitExceededError(message, key=key, hint=hint)
                for x in store.list(join_key(path, z, y)) if _FILE.fullmatch(y) else ():
                    places = [_FILE.fullmatch(name) for name in (x, y, z)]
                    for axis, place in enumerate(places):
                        if place is None or place[1] != "xyz"[axis]:
                            break
                        low[axis] = min(low[axis], int(place[2]) * voxels)
                        high[axis] = max(high[axis], (int(place[2]) + 1) * voxels)
    except UnsupportedError:
        high = [0] * 3
    if not all(high):
        message = f"the extent of a WKW mag is in its dataset's {PROPERTIES}, which is not within this source"
        raise MetadataError(message, key=key, hint=hint)
    return _Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def headers(described: Sequence[Described]) -> list[str]:
    """Returns the keys of the headers that `completed` reads of mags."""
    return [join_key(mag.path, HEADER) for mag in described if mag.path is not None and mag.kind == "array"]


def completed(node: Node) -> Node:
    """Returns a node as a dataset describes it, a mag with its header.

    Raises `UnsupportedError` for a mag that lies elsewhere, `NotFoundError` where it has no header, `StoreError`.
    """
    if node.kind != "array":
        return node
    document = parse_json(node.document, node.url)
    if "elsewhere" in document:
        message = f"the mag lies elsewhere, at {document['elsewhere']!r}"
        raise UnsupportedError(message, key=node.url, hint="open that place itself")
    header = node.store.get(join_key(node.path, HEADER))
    if header is None:
        message = f"the dataset lists a mag here, which has no {HEADER}"
        raise NotFoundError(message, key=node.url, hint="was it deleted, or not copied with the others?")
    return replace(node, document=_with_header(header, document))


def layer_names(node: Node) -> list[str]:
    """Returns the names of the layers of a dataset, sorted, also of those that have documents of their own.

    A layer has none.
    """
    layers = parse_json(node.document, node.url).get("dataLayers", [])
    return sorted(layer["name"] for layer in layers)


def listed_layers(store: Store, path: str) -> list[str] | None:
    """Returns the names of the layers of the dataset at a place, sorted; None when there is none."""
    document = store.get(join_key(path, PROPERTIES))
    return None if document is None else layer_names(_dataset(store, path, document, Settings()))


def _dataset(store: Store, path: str, document: bytes, settings: Settings) -> Node:
    key = join_key(store.url, path, PROPERTIES)
    properties = parse_json(document, key)
    unit, voxel = _voxel_size(properties.get("scale"), key)
    listed = as_list(properties.get("dataLayers"), "dataLayers", _MAX_MAGS, key)
    layers = [_layer(value, store, path, key) for value in listed]
    if sum(len(layer.mags) for layer in layers) > _MAX_MAGS:
        raise MetadataError(f"more than {_MAX_MAGS:,} mags", key=key)
    axes = (Axis("c", "channel"), *(Axis(name, "space", unit) for name in "xyz"))
    nodes: dict[str, Described] = {}
    for layer in (layer for layer in layers if layer.is_wkw):
        for mag in layer.mags:
            where: dict[str, Any] = (
                layer.box.document(mag.factors) if mag.path is not None else {"elsewhere": mag.place}
            )
            nodes[f"{layer.name}/{mag.name}"] = Described("wkw", "array", where, {}, path=mag.path)
        multiscale = Multiscale(
            "WEBKNOSSOS",
            layer.name,
            axes,
            tuple(_level(layer.box, mag, voxel) for mag in layer.mags if mag.path is not None),
            is_label=layer.is_label,
            voxel=(1.0, *voxel),
            elsewhere=tuple((mag.name, mag.place) for mag in layer.mags if mag.path is None),
        )
        attributes = dict(layer.attributes)
        if multiscale.elsewhere:
            attributes["elsewhere"] = dict(multiscale.elsewhere)
        is_image = bool(multiscale.datasets)
        nodes[layer.name] = Described("wkw", "group", {}, attributes, multiscale if is_image else None)
    attributes = {name: value for name, value in properties.items() if name != "dataLayers"}
    return Node(store, path, "wkw", "group", document, attributes, nodes, settings)


def _level(box: _Box, mag: _Mag, voxel: tuple[float, float, float]) -> Dataset:
    """How the voxels of a mag lie in the world, by their centres; that of voxel 0 of the finest mag is 0."""
    start, _ = box.at(mag.factors)
    scale = [size * factor for size, factor in zip(voxel, mag.factors, strict=True)]
    places = [
        size * (first * factor + (factor - 1) / 2)
        for size, first, factor in zip(voxel, start, mag.factors, strict=True)
    ]
    return Dataset(mag.name, (1.0, *scale), (0.0, *places))


def _with_header(header: bytes, document: Mapping[str, Any]) -> bytes:
    return json.dumps({"header": header[:64].hex(), **document}).encode()


def _layer(value: object, store: Store, path: str, key: str) -> _Layer:
    layer = as_object(value, "dataLayers[]", key)
    name = layer.get("name")
    if not isinstance(name, str) or not name or "/" in name:
        raise MetadataError(f"dataLayers[].name: {name!r} is not a name of a layer", key=key)
    where = f"layer {name[:100]!r}"
    inside(name, key)
    is_wkw = str(layer.get("dataFormat", "wkw")).lower() == "wkw"
    # The mags of other formats are told by their own documents.
    listed: object = (is_wkw and (layer.get("mags") or layer.get("wkwResolutions"))) or cast("list[object]", [])
    place = _Place(store, path, name)
    mags = [_mag(one, place, f"{where}: mags", key) for one in as_list(listed, f"{where}: mags", _MAX_MAGS, key)]
    mags.sort(key=lambda mag: mag.factors)
    if len({mag.name for mag in mags}) < len(mags):
        raise MetadataError(f"{where}: two mags of one name", key=key)
    return _Layer(
        name,
        _box(as_object(layer.get("boundingBox"), f"{where}: boundingBox", key), where, key),
        mags,
        is_wkw,
        layer.get("category") == "segmentation",
        {name: value for name, value in layer.items() if name not in ("mags", "wkwResolutions")},
    )


class _Place(NamedTuple):
    """A layer: the store, the key of its dataset, its name."""

    store: Store
    path: str
    name: str

    def key_of(self, path: str) -> str | None:
        """The key in the store of the path of a mag: relative to the dataset, absolute or a URL; None outside."""
        root = self.store.url
        if path.startswith("/"):
            path = file_url(path)
        if _SCHEME.match(path):
            if not f"{path}/".startswith(f"{root}/"):
                return None
            below = path[len(root) :]
            steps = (below if root.startswith(_AS_WRITTEN) else unquote(below)).split("/")
        else:
            steps = f"{self.path}/{path}".split("/")
        parts: list[str] = []
        for step in steps:
            if step == "..":
                if not parts:
                    return None
                parts.pop()
            elif step not in ("", "."):
                parts.append(step)
        return "/".join(parts)


def _mag(value: object, layer: _Place, where: str, key: str) -> _Mag:
    mag = as_object(value, where, key)
    named: object = mag.get("mag", mag.get("resolution"))
    parts: list[object] = [named]
    if isinstance(named, dict):
        parts = [cast("dict[str, object]", named).get(axis) for axis in "xyz"]
    elif isinstance(named, list):
        parts = cast("list[object]", named)
    elif isinstance(named, str):
        parts = [int(part) for part in named.split("-") if part.isdecimal()]
    factors = _triple(parts * 3 if len(parts) == 1 else parts, where, key)
    if not all(factor > 0 for factor in factors):
        raise MetadataError(f"{where}: {named!r} is not a mag", key=key)
    isotropic = len(set(factors)) == 1
    path = mag.get("path")
    folder = str(factors[0]) if isotropic else "-".join(map(str, factors))
    if not isinstance(path, str) or not path:
        path = f"{layer.name}/{folder}"
    place = re.sub(r"//[^/@]*@", "//", path).partition("?")[0][:200]
    found = layer.key_of(path.rstrip("/"))
    if found is None:
        return _Mag(factors, folder, None, place)
    own = f"{join_key(layer.path, layer.name)}/"
    return _Mag(factors, found.removeprefix(own) if found.startswith(own) else folder, inside(found, key), place)


def _box(value: Mapping[str, object], where: str, key: str) -> _Box:
    start = _triple(value.get("topLeft"), f"{where}: boundingBox.topLeft", key)
    size = _triple([value.get(name) for name in ("width", "height", "depth")], f"{where}: boundingBox", key)
    if min(start) < 0:
        message = f"{where}: its bounding box begins at {start}; WKW has no negative coordinates"
        raise MetadataError(message, key=key)
    if min(size) < 0:
        raise MetadataError(f"{where}: a bounding box of {size} voxels", key=key)
    end = [first + extent for first, extent in zip(start, size, strict=True)]
    return _Box(start, (end[0], end[1], end[2]))


def _voxel_size(value: object, key: str) -> tuple[str | None, tuple[float, float, float]]:
    """(unit, size of a voxel of the finest mag): a list is in nanometers."""
    unit: str | None = _NANOMETER
    listed = value
    if isinstance(value, dict):
        named = cast("dict[str, object]", value)
        given, listed = named.get("unit"), named.get("factor")
        unit = given if isinstance(given, str) else None
    if listed is None:
        return None, (1.0, 1.0, 1.0)
    sizes = cast("Sequence[Any]", as_list(listed, "scale", 3, key))
    if len(sizes) != 3 or not all(isinstance(size, int | float) and 0 < size < 1e30 for size in sizes):
        raise MetadataError(f"scale: three sizes were expected, not {str(sizes)[:80]}", key=key)
    return unit, (float(sizes[0]), float(sizes[1]), float(sizes[2]))


def _triple(value: object, where: str, key: str) -> _Triple:
    shown = str(value)[:80]
    items = cast("list[object]", value) if isinstance(value, list) else []
    if len(items) == 3 and all(_is_count(item) for item in items):
        x, y, z = cast("list[int]", items)
        return x, y, z
    raise MetadataError(f"{where}: three integers were expected, not {shown}", key=key)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 61
