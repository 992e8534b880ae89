"""OME-Zarr documents -> values. Group attributes in, `Multiscale`, label names or series out; nothing is opened.

Reads OME-Zarr 0.4 (keys at the top of `.zattrs`) and 0.5 (keys under `ome`), and of 0.1-0.3 what needs no guessing:
five fixed axes (0.1, 0.2) or axes that are plain strings (0.3). 0.6 and later are refused by name, because their
coordinate systems and transformations mean other things under the same words.

Errors name the place inside the document, such as `ome.multiscales[0].datasets[1].path`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, cast

from voxfetch.errors import MetadataError, UnsupportedError
from voxfetch.ngff.model import Axis, Channel, Dataset, Multiscale, Window
from voxfetch.values import as_list, as_object, as_string, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Versions whose documents are understood; a suffix such as `-dev` or `.2` is accepted.
READABLE_VERSIONS: Final = ("0.1", "0.2", "0.3", "0.4", "0.5")

#: Axes of 0.1 and 0.2, which have none in the file.
_FIXED_AXES: Final = ("t", "c", "z", "y", "x")
_TYPE_OF_NAME: Final = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}

#: No image has more; a file that says so would cost one request per entry.
_MAX_ENTRIES: Final = 10_000
_MAX_AXES: Final = 32
#: Labels have a colour each; there may be many.
_MAX_COLORS: Final = 1_000_000


def ome_attributes(attributes: Mapping[str, object]) -> tuple[Mapping[str, object], str]:
    """The part of a group's attributes that OME-Zarr owns, and its place in the document (`ome` or nothing)."""
    ome = attributes.get("ome")
    return (cast("dict[str, object]", ome), "ome") if isinstance(ome, dict) else (attributes, "")


def is_image(attributes: Mapping[str, object]) -> bool:
    """Whether the group is an image: it has `multiscales`, wherever the version puts them."""
    ome, _ = ome_attributes(attributes)
    return "multiscales" in ome


def parse_image(attributes: Mapping[str, object]) -> Multiscale:
    """The image a group describes; of several multiscales the first, as the specification advises.

    Raises:
        MetadataError: the document breaks the specification in a way that leaves its meaning open.
        UnsupportedError: a version or a coordinate transformation that is not read.
    """
    ome, root = ome_attributes(attributes)
    entries = as_list(_member(ome, "multiscales", root), _at(root, "multiscales"), _MAX_ENTRIES)
    at = _at(root, "multiscales[0]")
    if not entries:
        raise MetadataError(f"{_at(root, 'multiscales')}: is empty")
    first = as_object(entries[0], at)
    version = _version(ome, first, root)
    axes = _axes(first, at, version)
    outer = _transform(first, at, len(axes))
    datasets = as_list(_member(first, "datasets", at), _at(at, "datasets"), _MAX_ENTRIES)
    if not datasets:
        raise MetadataError(f"{_at(at, 'datasets')}: is empty")
    levels = tuple(_dataset(item, f"{at}.datasets[{i}]", outer, len(axes)) for i, item in enumerate(datasets))
    name = first.get("name")
    return Multiscale(
        version=version,
        name=name if isinstance(name, str) and name else None,
        axes=axes,
        datasets=levels,
        channels=_channels(ome, root),
        is_label="image-label" in ome,
        label_colors=_label_colors(ome, root),
    )


def parse_label_names(attributes: Mapping[str, object]) -> tuple[str, ...]:
    """Names of the label images in a `labels` group, each a safe relative path; none if it lists none."""
    ome, root = ome_attributes(attributes)
    return _paths(ome, "labels", root)


def bioformats2raw_layout(attributes: Mapping[str, object]) -> bool:
    """Whether the group holds the images of one bioformats2raw conversion, in `0`, `1`, ...

    Raises:
        UnsupportedError: a layout other than 3, the only one the specification describes.
    """
    ome, root = ome_attributes(attributes)
    layout = ome.get("bioformats2raw.layout")
    if layout is None:
        return False
    if layout != 3 or isinstance(layout, bool):
        raise UnsupportedError(f"{_at(root, 'bioformats2raw.layout')}: layout {shown(layout)} is not known, only 3 is")
    return True


def parse_series(attributes: Mapping[str, object]) -> tuple[str, ...]:
    """Paths of the images as the `OME` group of a bioformats2raw conversion lists them; none if it does not."""
    ome, root = ome_attributes(attributes)
    return _paths(ome, "series", root)


def checked_path(value: object, at: str) -> str:
    """A path that stays inside the group: relative, with `/`, each part a plain name. Trailing `/` are dropped.

    Raises:
        MetadataError: it is not a string, is empty, absolute or a URL, or has a part such as `..`.
    """
    text = as_string(value, at)
    path = text.rstrip("/")
    if "://" in path or path.startswith("/") or "\\" in path or "\0" in path:
        raise MetadataError(f"{at}: {shown(text)} is not a relative path inside the group")
    if any(part in ("", ".", "..") for part in path.split("/")) or path[1:2] == ":":
        raise MetadataError(f"{at}: {shown(text)} is not a relative path inside the group")
    return path


def _version(ome: Mapping[str, object], multiscale: Mapping[str, object], root: str) -> str:
    """The version the document says, else the one its layout belongs to."""
    found = ome.get("version") if root else multiscale.get("version", ome.get("version"))
    place = _at(root, "version") if root else "multiscales[0].version"
    if found is None:
        if "coordinateSystems" in multiscale:
            at = _at(root, "multiscales[0].coordinateSystems")
            raise UnsupportedError(f"{at}: coordinate systems (OME-Zarr 0.6 or later) are not read")
        if root:
            return "0.5"
        axes = multiscale.get("axes")
        if axes is None:
            return "0.2"
        strings = isinstance(axes, list) and all(isinstance(axis, str) for axis in cast("list[object]", axes))
        return "0.3" if strings else "0.4"
    # Some writers spell it as a number.
    text = str(found) if isinstance(found, float) else as_string(found, place)
    # 0.10 is not 0.1: what follows a known version must not be a digit.
    if not any(text.startswith(known) and not text[len(known) :][:1].isdigit() for known in READABLE_VERSIONS):
        readable = f"{READABLE_VERSIONS[0]} to {READABLE_VERSIONS[-1]}"
        raise UnsupportedError(f"{place}: OME-Zarr {shown(text)} is not read, only {readable}")
    return text


def _axes(multiscale: Mapping[str, object], at: str, version: str) -> tuple[Axis, ...]:
    """The axes in array order, from objects (0.4, 0.5), strings (0.3) or by definition (0.1, 0.2)."""
    if "axes" not in multiscale and version[:3] in ("0.1", "0.2"):
        return tuple(Axis(name, _TYPE_OF_NAME[name]) for name in _FIXED_AXES)
    at = _at(at, "axes")
    axes: list[Axis] = []
    for i, item in enumerate(as_list(_member(multiscale, "axes", at.removesuffix(".axes")), at, _MAX_AXES)):
        place = f"{at}[{i}]"
        if isinstance(item, str):
            axis = Axis(_name(item, place), _TYPE_OF_NAME.get(item))
        else:
            entry = as_object(item, place)
            axis = Axis(
                _name(_member(entry, "name", place), f"{place}.name"),
                _optional_string(entry, "type", place),
                _optional_string(entry, "unit", place),
            )
        if any(axis.name == other.name for other in axes):
            raise MetadataError(f"{place}: a second axis named {shown(axis.name)}")
        axes.append(axis)
    if not axes:
        raise MetadataError(f"{at}: is empty")
    return tuple(axes)


_Transform = tuple[tuple[float, ...], tuple[float, ...]]


def _transform(owner: Mapping[str, object], at: str, rank: int) -> _Transform:
    """`coordinateTransformations` as (scale, translation): applied in the order of the list, identity if absent."""
    scale, translation = (1.0,) * rank, (0.0,) * rank
    if owner.get("coordinateTransformations") is None:
        return scale, translation
    at = _at(at, "coordinateTransformations")
    for i, item in enumerate(as_list(owner["coordinateTransformations"], at, _MAX_AXES)):
        place = f"{at}[{i}]"
        entry = as_object(item, place)
        kind = as_string(_member(entry, "type", place), f"{place}.type")
        if kind == "identity":
            continue
        if kind not in ("scale", "translation"):
            raise UnsupportedError(
                f"{place}.type: transformation {shown(kind)} is not read, only scale and translation"
            )
        if kind not in entry and "path" in entry:
            raise UnsupportedError(f"{place}.path: a {kind} kept in an array of its own is not read")
        vector = _vector(_member(entry, kind, place), f"{place}.{kind}", rank)
        if kind == "scale":
            if not all(vector):
                raise MetadataError(f"{place}.scale: {list(vector)} has a zero")
            scale = tuple(a * b for a, b in zip(scale, vector, strict=True))
            translation = tuple(a * b for a, b in zip(translation, vector, strict=True))
        else:
            translation = tuple(a + b for a, b in zip(translation, vector, strict=True))
    return scale, translation


def _dataset(item: object, at: str, outer: _Transform, rank: int) -> Dataset:
    """One entry of `datasets`, with the transformations of the multiscale applied after its own."""
    entry = as_object(item, at)
    path = checked_path(_member(entry, "path", at), f"{at}.path")
    own = _transform(entry, at, rank)
    scale = tuple(a * b for a, b in zip(outer[0], own[0], strict=True))
    translation = tuple(a * b + c for a, b, c in zip(outer[0], own[1], outer[1], strict=True))
    if not all(map(math.isfinite, scale + translation)) or not all(scale):
        raise MetadataError(f"{at}.coordinateTransformations: the product of all scales is not a usable number")
    return Dataset(path, scale, translation)


def _channels(ome: Mapping[str, object], root: str) -> tuple[Channel, ...]:
    """`omero.channels`. It is advice to viewers, so what is malformed in there counts as absent, not as an error."""
    omero = ome.get("omero")
    channels = cast("dict[str, object]", omero).get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list):
        return ()
    entries = as_list(cast("list[object]", channels), _at(root, "omero.channels"), _MAX_ENTRIES)
    return tuple(_channel(cast("dict[str, object]", entry) if isinstance(entry, dict) else {}) for entry in entries)


def _channel(entry: Mapping[str, object]) -> Channel:
    label, color, window = entry.get("label"), entry.get("color"), entry.get("window")
    return Channel(
        label=label if isinstance(label, str) else None,
        color=_color(color),
        window=_window(cast("dict[str, object]", window)) if isinstance(window, dict) else None,
        active=entry.get("active") is not False,
    )


def _label_colors(ome: Mapping[str, object], root: str) -> tuple[tuple[int, tuple[int, int, int, int]], ...]:
    """`image-label.colors`, advice too: entries without a label or a colour that can be shown are left out."""
    label = ome.get("image-label")
    colors = cast("dict[str, object]", label).get("colors") if isinstance(label, dict) else None
    if not isinstance(colors, list):
        return ()
    entries = as_list(cast("list[object]", colors), _at(root, "image-label.colors"), _MAX_COLORS)
    found: dict[int, tuple[int, int, int, int]] = {}
    for entry in entries:
        values = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
        number, rgba = values.get("label-value"), values.get("rgba")
        parts = cast("list[object]", rgba) if isinstance(rgba, list) else []
        is_color = len(parts) == 4 and all(isinstance(part, int) and 0 <= part <= 255 for part in parts)
        if isinstance(number, int) and not isinstance(number, bool) and is_color:
            red, green, blue, alpha = cast("list[int]", parts)
            found[number] = (int(red), int(green), int(blue), int(alpha))
    return tuple(found.items())


def _color(value: object) -> str | None:
    """Six hexadecimal digits; a leading `#`, which some writers add, is dropped."""
    if not isinstance(value, str):
        return None
    digits = value.removeprefix("#").upper()
    return digits if len(digits) == 6 and all(d in "0123456789ABCDEF" for d in digits) else None


def _window(entry: Mapping[str, object]) -> Window | None:
    """The contrast limits; `min` and `max` default to what is shown, as old writers leave them out."""
    numbers = [_finite(entry.get(name)) for name in ("start", "end")]
    if numbers[0] is None or numbers[1] is None:
        numbers = [_finite(entry.get(name)) for name in ("min", "max")]
    start, end = numbers
    if start is None or end is None:
        return None
    low, high = _finite(entry.get("min")), _finite(entry.get("max"))
    return Window(min=start if low is None else low, max=end if high is None else high, start=start, end=end)


# --- JSON, read with suspicion ------------------------------------------------------------------------------------


def _at(parent: str, name: str) -> str:
    return f"{parent}.{name}" if parent else name


def _name(value: object, at: str) -> str:
    text = as_string(value, at)
    if not text:
        raise MetadataError(f"{at}: is empty")
    return text


def _optional_string(owner: Mapping[str, object], name: str, at: str) -> str | None:
    value = owner.get(name)
    return None if value is None else as_string(value, _at(at, name))


def _member(owner: Mapping[str, object], name: str, at: str) -> object:
    if name not in owner:
        raise MetadataError(f"{_at(at, name)}: is missing")
    return owner[name]


def _finite(value: object) -> float | None:
    """A JSON number as float, None for anything else (NaN and what does not fit into a float included)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _vector(value: object, at: str, rank: int) -> tuple[float, ...]:
    items = as_list(value, at, _MAX_AXES)
    if len(items) != rank:
        raise MetadataError(f"{at}: {len(items)} numbers for {rank} axes")
    numbers: list[float] = []
    for i, item in enumerate(items):
        number = _finite(item)
        if number is None:
            raise MetadataError(f"{at}[{i}]: expected a finite number, found {shown(item)}")
        numbers.append(number)
    return tuple(numbers)


def _paths(ome: Mapping[str, object], name: str, root: str) -> tuple[str, ...]:
    value = ome.get(name)
    if value is None:
        return ()
    at = _at(root, name)
    return tuple(checked_path(item, f"{at}[{i}]") for i, item in enumerate(as_list(value, at, _MAX_ENTRIES)))
