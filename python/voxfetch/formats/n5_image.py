"""Images in N5: the attributes of a group, of those above it and of its levels in, `Multiscale` out. Pure.

N5 has no standard for images. Conventions that are read; axes come out in the order of `dimensions` (x first):

- COSEM: `multiscales[0].datasets` of the group, each with a path and a `transform` {axes, units, scale, translate}, or
  a `transform` in each level. Its lists are in the order of numpy (z first) unless it says `"ordering": "F"` (or
  `order`).
- N5-viewer and Neuroglancer: levels `s0`, `s1`, ...; factors to `s0` as `scales` or `downsamplingFactors`, a list of
  lists, in the group or above it, or as `downsamplingFactors` in each level; voxels of `s0` as `pixelResolution`
  ({unit, dimensions} or a list) or as `resolution` and `units`; names as `axes`.
- BigDataViewer: `setup{n}/timepoint{m}/s{k}`, with the factors in the group of the setup.
- Paintera: `multiScale`, `resolution`, `offset`; under `painteraData` the levels are in `data`.

Where they contradict each other:

- Where levels lie: `multiscales` of the group, else factors of a group, else what each level says: its `transform`,
  else its factors.
- How the voxels of `s0` lie: its `transform`, else the groups, else `s0`; in one document `pixelResolution`, with its
  own unit, wins over `resolution`.
- Names of axes: those of the `transform`, else of the groups, else of `s0`, else x, y, z, t, c.
- Of groups the nearest wins; in one, `scales` wins over `downsamplingFactors`. Inherited are these two,
  `pixelResolution`, `resolution` with `units`, and `axes`.

Levels are averages: one with factor f begins (f - 1) / 2 voxels of `s0` after it, as N5-viewer and Neuroglancer show.
`affineTransform` of N5-viewer is for display and not applied. Sources: metadata parsers of N5 universe, cellmap-schemas
(COSEM), "BigDataViewer N5 format", documentation of N5-viewer, Neuroglancer (n5) and Paintera.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, cast

from voxfetch.errors import MetadataError, UnsupportedError
from voxfetch.ngff import Axis, Dataset, Multiscale, checked_path
from voxfetch.values import as_list, as_object, as_string, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Document", "level_paths", "parse_image"]

_MAX_LEVELS = 256
_MAX_AXES = 32
_DEFAULT_AXES = ("x", "y", "z", "t", "c")
_TYPE_OF_NAME = {"x": "space", "y": "space", "z": "space", "t": "time", "c": "channel"}


class Document(NamedTuple):
    """An `attributes.json`: its path from the group, such as `s0/attributes.json`, and what it holds."""

    path: str
    members: Mapping[str, object]

    def at(self, name: str) -> str:
        """Place of a member, for messages."""
        return f"{self.path}: {name}"


class _Place(NamedTuple):
    """How the voxels of one level lie; axes in the order of `dimensions`, None where nothing names them."""

    scale: tuple[float, ...]
    translation: tuple[float, ...]
    units: tuple[str | None, ...]
    axes: tuple[str, ...] | None = None


def level_paths(groups: Sequence[Document]) -> list[str] | None:
    """Paths of the levels as the group and those above it (nearest first) tell them; None where they do not."""
    if "multiscales" in groups[0].members:
        return [path for path, _, _ in _cosem_datasets(groups[0])]
    told = _factors_of_groups(groups)
    return None if told is None else [f"s{k}" for k in range(len(told[1]))]


def parse_image(groups: Sequence[Document], levels: Mapping[str, Document]) -> Multiscale | None:
    """The image that a group holds, None when it is just a group.

    `groups` are the documents of the group and of those above it, nearest first; `levels` those of its levels by path,
    finest first, without members where there is none.

    Raises:
        MetadataError: a convention is followed in a way that leaves its meaning open.
        UnsupportedError: label multisets, OME-Zarr metadata.
        LimitExceededError: more levels or axes than images have.
    """
    group = groups[0]
    for document in (group, *levels.values()):
        if document.members.get("isLabelMultiset") is True:
            raise UnsupportedError(
                f"{document.at('isLabelMultiset')}: label multisets of Paintera are not read",
                hint="extract scalar labels with the command extract-to-scalar of paintera-conversion-helper",
            )
    name = group.members.get("name")
    if "multiscales" in group.members:
        name = _first_multiscale(group).get("name", name)
        places = {path: _cosem_place(entry, at, levels[path]) for path, entry, at in _cosem_datasets(group)}
    else:
        found = _places(groups, levels)
        if found is None:
            return None
        places = found
    paintera = [document.members["painteraData"] for document in groups if "painteraData" in document.members]
    return Multiscale(
        version="N5",
        name=name if isinstance(name, str) and name else None,
        axes=_axes(groups, places, levels.get("s0")),
        datasets=tuple(Dataset(path, place.scale, place.translation) for path, place in places.items()),
        is_label=bool(paintera) and as_object(paintera[0], "painteraData").get("type") == "label",
    )


# --- COSEM --------------------------------------------------------------------------------------------------------


def _first_multiscale(group: Document) -> Mapping[str, object]:
    at = group.at("multiscales")
    entries = as_list(group.members["multiscales"], at, _MAX_LEVELS)
    if not entries:
        raise MetadataError(f"{at}: is empty")
    return as_object(entries[0], f"{at}[0]")


def _cosem_datasets(group: Document) -> list[tuple[str, Mapping[str, object], str]]:
    """Path, entry and place of the entry of each level."""
    at = f"{group.at('multiscales')}[0].datasets"
    entries = as_list(_first_multiscale(group).get("datasets"), at, _MAX_LEVELS)
    if not entries:
        raise MetadataError(f"{at}: is empty")
    datasets: dict[str, tuple[str, Mapping[str, object], str]] = {}
    for i, item in enumerate(entries):
        entry = as_object(item, f"{at}[{i}]")
        path = checked_path(entry.get("path"), f"{at}[{i}].path")
        if path in datasets:
            raise MetadataError(f"{at}[{i}].path: a second level at {shown(path)}")
        datasets[path] = path, entry, f"{at}[{i}]"
    return list(datasets.values())


def _cosem_place(entry: Mapping[str, object], at: str, level: Document) -> _Place:
    if "transform" in entry:
        return _transform(entry["transform"], f"{at}.transform")
    if "transform" in level.members:
        return _transform(level.members["transform"], level.at("transform"))
    if "coordinateTransformations" in entry:
        message = (
            f"{at}.coordinateTransformations: OME-Zarr metadata in N5, where writers disagree on the order of axes"
        )
        raise UnsupportedError(message, hint="open its arrays by their paths")
    raise MetadataError(f"{at}.transform: is missing")


def _transform(value: object, at: str) -> _Place:
    members = as_object(value, at)
    names = _names(members.get("axes"), f"{at}.axes")
    rank = len(names)
    scale = _vector(members.get("scale"), f"{at}.scale", rank)
    if not all(scale):
        raise MetadataError(f"{at}.scale: {list(scale)} has a zero")
    translation = _vector(members.get("translate", [0] * rank), f"{at}.translate", rank)
    units = _units(members.get("units", [""] * rank), f"{at}.units", rank)
    order = members.get("ordering", members.get("order", "C"))
    if order not in ("C", "F", None) or members.get("order", order) != order:
        raise MetadataError(f"{at}.ordering: expected C or F, found {shown(order)}")
    step = 1 if order == "F" else -1
    return _Place(scale[::step], translation[::step], units[::step], names[::step])


# --- levels s0, s1, ... -------------------------------------------------------------------------------------------


def _places(groups: Sequence[Document], levels: Mapping[str, Document]) -> dict[str, _Place] | None:
    first = levels.get("s0")
    if first is None:
        return None
    rank = len(as_list(first.members.get("dimensions"), first.at("dimensions"), _MAX_AXES))
    told = _factors_of_groups(groups)
    if told is not None:
        at, factors = told
        base = _base(groups, first, rank)
        return {path: _coarser(base, factors[k], f"{at}[{k}]") for k, path in enumerate(levels)}
    if not _is_image(groups, levels):
        return None
    base = _base(groups, first, rank)
    places: dict[str, _Place] = {}
    for path, level in levels.items():
        if "transform" in level.members:
            places[path] = _transform(level.members["transform"], level.at("transform"))
        else:
            factors = level.members.get("downsamplingFactors", [1] * rank)
            places[path] = _coarser(base, factors, level.at("downsamplingFactors"))
        if len(places[path].scale) != rank:
            raise MetadataError(f"{level.at('transform')}: {len(places[path].scale)} axes, s0 has {rank}")
    return places


def _is_image(groups: Sequence[Document], levels: Mapping[str, Document]) -> bool:
    """Whether levels that no group lists are one image: something says so, and all that is needed is there."""
    said = groups[0].members.get("multiScale") is True
    own = {"transform", "downsamplingFactors"}
    silent = [level for path, level in levels.items() if path != "s0" and own.isdisjoint(level.members)]
    if silent and (said or len(silent) < len(levels) - 1):
        raise MetadataError(f"{silent[0].at('downsamplingFactors')}: is missing")
    if silent or len(levels) > 1:
        return not silent
    voxels = {"pixelResolution", "resolution"}
    return said or not (own | voxels).isdisjoint(levels["s0"].members) or _nearest(groups, voxels) is not None


def _factors_of_groups(groups: Sequence[Document]) -> tuple[str, Sequence[object]] | None:
    """Place and entries of the nearest list of factors of all levels."""
    for group in groups:
        for name in ("scales", "downsamplingFactors"):
            value = group.members.get(name)
            if isinstance(value, list) and value and isinstance(value[0], list):
                return group.at(name), as_list(cast("list[object]", value), group.at(name), _MAX_LEVELS)
    return None


def _nearest(documents: Sequence[Document], names: set[str]) -> Document | None:
    return next((document for document in documents if not names.isdisjoint(document.members)), None)


def _base(groups: Sequence[Document], first: Document, rank: int) -> _Place:
    """How the voxels of `s0` lie."""
    if "transform" in first.members:
        base = _transform(first.members["transform"], first.at("transform"))
        if len(base.scale) != rank:
            raise MetadataError(f"{first.at('transform')}: {len(base.scale)} axes, s0 has {rank}")
        return base
    documents = [*groups, first]
    source = _nearest(documents, {"pixelResolution", "resolution"}) or groups[0]
    scale, units = _voxels(source, documents, rank)
    if not all(scale):
        raise MetadataError(f"{source.path}: a voxel of {list(scale)}")
    offset = _vector(source.members.get("offset", [0] * rank), source.at("offset"), rank)
    return _Place(scale, offset, units)


def _voxels(
    source: Document, documents: Sequence[Document], rank: int
) -> tuple[tuple[float, ...], tuple[str | None, ...]]:
    """Size and units of a voxel. N5-viewer may give them for the axes in space only, which come first."""
    units: tuple[str | None, ...] | None = None
    if "pixelResolution" in source.members:
        value, at = source.members["pixelResolution"], source.at("pixelResolution")
        if isinstance(value, dict):
            members = cast("dict[str, object]", value)
            if members.get("unit") is not None:
                units = (as_string(members["unit"], f"{at}.unit") or None,) * rank
            value, at = members.get("dimensions"), f"{at}.dimensions"
        numbers = _vector(value, at)
        if not 0 < len(numbers) <= rank:
            raise MetadataError(f"{at}: {len(numbers)} numbers for {rank} axes")
        units = units and units[: len(numbers)] + (None,) * (rank - len(numbers))
        scale = numbers + (1.0,) * (rank - len(numbers))
    else:
        scale = _vector(source.members.get("resolution", [1] * rank), source.at("resolution"), rank)
    if units is None and (named := _nearest(documents, {"units"})) is not None:
        units = _units(named.members["units"], named.at("units"), rank)
    return scale, units or (None,) * rank


def _coarser(base: _Place, factors: object, at: str) -> _Place:
    """The level that averages so many voxels of `base` along each axis."""
    numbers = _vector(factors, at, len(base.scale))
    if not all(number > 0 for number in numbers):
        raise MetadataError(f"{at}: {list(numbers)} is not all positive")
    scale = tuple(size * factor for size, factor in zip(base.scale, numbers, strict=True))
    parts = zip(base.translation, base.scale, numbers, strict=True)
    translation = tuple(start + size * (factor - 1) / 2 for start, size, factor in parts)
    if not all(map(math.isfinite, scale + translation)) or not all(scale):
        raise MetadataError(f"{at}: times the size of a voxel it is not a usable number")
    return base._replace(scale=scale, translation=translation)


# --- axes ---------------------------------------------------------------------------------------------------------


def _axes(groups: Sequence[Document], places: Mapping[str, _Place], first: Document | None) -> tuple[Axis, ...]:
    """The axes of all levels, which must agree where their `transform` names them."""
    finest, *others = places.values()
    for path, place in zip(list(places)[1:], others, strict=True):
        if (place.axes or finest.axes) != (finest.axes or place.axes) or place.units != finest.units:
            raise MetadataError(f"{path}: its transform has other axes or units than the finest level")
    rank, names = len(finest.scale), finest.axes
    named = _nearest([*groups, *([first] if first else [])], {"axes"})
    if names is None and named is not None:
        names = _names(named.members["axes"], named.at("axes"))
        if len(names) != rank:
            raise MetadataError(f"{named.at('axes')}: {len(names)} names for {rank} axes")
    if names is None:
        names = (*_DEFAULT_AXES, *(f"d{axis + 1}" for axis in range(len(_DEFAULT_AXES), rank)))[:rank]
    return tuple(Axis(name, _TYPE_OF_NAME.get(name), unit) for name, unit in zip(names, finest.units, strict=True))


# --- JSON, read with suspicion ------------------------------------------------------------------------------------


def _names(value: object, at: str) -> tuple[str, ...]:
    """Names of axes, all different."""
    names = tuple(as_string(item, f"{at}[{i}]") for i, item in enumerate(as_list(value, at, _MAX_AXES)))
    if not all(names) or len(set(names)) != len(names) or not names:
        raise MetadataError(f"{at}: {shown(list(names))} does not name each axis differently")
    return names


def _units(value: object, at: str, rank: int) -> tuple[str | None, ...]:
    items = as_list(value, at, _MAX_AXES)
    if len(items) != rank:
        raise MetadataError(f"{at}: {len(items)} units for {rank} axes")
    return tuple(None if item is None else as_string(item, f"{at}[{i}]") or None for i, item in enumerate(items))


def _vector(value: object, at: str, rank: int | None = None) -> tuple[float, ...]:
    """Finite numbers, one for each axis where their number is known."""
    items = as_list(value, at, _MAX_AXES)
    if rank is not None and len(items) != rank:
        raise MetadataError(f"{at}: {len(items)} numbers for {rank} axes")
    numbers: list[float] = []
    for i, item in enumerate(items):
        # Beyond any double there is no size that means something.
        if isinstance(item, bool) or not isinstance(item, int | float) or not -1e300 < item < 1e300:
            raise MetadataError(f"{at}[{i}]: expected a finite number, found {shown(item)}")
        numbers.append(float(item))
    return tuple(numbers)
