"""Arrays and levels of images -> datasets of xarray, with dimensions, coordinates and what values are decoded by."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import numpy as np
from xarray import Variable
from xarray.backends import InMemoryDataStore, StoreBackendEntrypoint
from xarray.backends.zarr import FillValueCoder
from xarray.core.indexing import LazilyIndexedArray

import voxfetch as vf
from voxfetch.xarray.lazy import LazyArray

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xarray import Dataset

    from voxfetch.xarray.keywords import Keywords

__all__ = ["of_array", "of_group", "of_level", "same_places"]

_CHANNEL = ("c", "channel")
# Coordinates are made at once, 8 bytes each; longer axes have none.
_MAX_COORDINATES = 1 << 24
_DIMENSIONS = "_ARRAY_DIMENSIONS"


def of_array(array: vf.Array, wanted: Keywords) -> Dataset:
    """An array as the only variable, decoded as the caller wants it; a level with its coordinates, and as it is."""
    if isinstance(array, vf.Level):
        return of_level(array, None, {}, wanted)
    name = _last_part(array)
    return of_group({"image" if name in array.axes and array.ndim > 1 else name: array}, {}, wanted)


def of_group(arrays: Mapping[str, vf.Array], attrs: Mapping[str, Any], wanted: Keywords) -> Dataset:
    """The arrays as a dataset, decoded as the caller wants it."""
    dims = _dimensions(arrays)
    variables = {name: _decodable(array, dims[name]) for name, array in arrays.items()}
    shown = {name: value for name, value in attrs.items() if not name.lower().startswith("_nc")}
    return _dataset(variables, shown, {**wanted.decoding, "drop_variables": wanted.drop_variables})


def of_level(level: vf.Level, image: vf.Image | None, labels: Mapping[str, vf.Image], wanted: Keywords) -> Dataset:
    """A level with its coordinates, and of labels those levels that lie at the same places."""
    name = _last_part(level) if image is None else image.name
    # Neither a dimension nor a node of a tree.
    variables = {"image" if not name or name in level.axes or "/" in name else name: _variable(level, level.axes)}
    for label, other in labels.items():
        for one in other.levels:
            if same_places(one, level):
                free = label not in variables and label not in level.axes
                variables[label if free else f"labels_{label}"] = _variable(one, one.axes)
                break
    channels = () if image is None else image.channels
    variables.update(_coordinates(level, [channel.label for channel in channels]))
    kept = {name: variable for name, variable in variables.items() if name not in wanted.drop_variables}
    return _dataset(kept, {}, _AS_STORED)


def _dataset(variables: Mapping[str, Variable], attrs: Mapping[str, Any], decoding: Mapping[str, Any]) -> Dataset:
    store = cast("Any", InMemoryDataStore)(dict(variables), dict(attrs))
    return cast("Any", StoreBackendEntrypoint()).open_dataset(store, **decoding)


_AS_STORED: dict[str, Any] = {
    "mask_and_scale": False,
    "decode_times": False,
    "concat_characters": False,
    "decode_coords": False,
    "decode_timedelta": False,
}


def same_places(one: vf.Level, other: vf.Level) -> bool:
    """Whether the voxels of a level lie where those of another do, along the axes that it has."""
    places = {axis: place for axis, *place in zip(other.axes, other.shape, other.scale, other.translation, strict=True)}
    for axis, extent, scale, translation in zip(one.axes, one.shape, one.scale, one.translation, strict=True):
        if axis not in places or places[axis][0] != extent:
            return False
        if not np.allclose((scale, translation), places[axis][1:], rtol=1e-6, atol=1e-6 * abs(scale)):
            return False
    units = dict(zip(other.axes, other.unit, strict=True))
    return all(unit is None or units[axis] in (None, unit) for axis, unit in zip(one.axes, one.unit, strict=True))


def _coordinates(level: vf.Level, channels: list[str | None]) -> dict[str, Variable]:
    found: dict[str, Variable] = {}
    for place, axis in enumerate(level.axes):
        extent, unit = level.shape[place], level.unit[place]
        if axis in _CHANNEL:
            if len(channels) == extent and all(channels):
                found[axis] = Variable((axis,), np.asarray(channels))
        elif extent <= _MAX_COORDINATES:
            values = level.translation[place] + level.scale[place] * np.arange(extent)
            found[axis] = Variable((axis,), values, {} if unit is None else {"units": unit})
    return found


def _dimensions(arrays: Mapping[str, vf.Array]) -> dict[str, tuple[str, ...]]:
    """Names of the dimensions of each variable; those without a name are told apart where they differ in extent."""
    extents: dict[str, set[int]] = {}
    dims: dict[str, tuple[str, ...]] = {}
    for name, array in arrays.items():
        dims[name] = array.axes
        for axis, extent in zip(dims[name], array.shape, strict=True):
            extents.setdefault(axis, set()).add(extent)
    unnamed = re.compile(r"dim_\d+")
    torn = {axis for axis, found in extents.items() if len(found) > 1 and unnamed.fullmatch(axis)}
    return {name: tuple(f"{name}_{axis}" if axis in torn else axis for axis in axes) for name, axes in dims.items()}


def _last_part(array: vf.Array) -> str:
    return unquote(array.url.rstrip("/").rsplit("/", 1)[-1]) or "image"


def _decodable(array: vf.Array, dims: tuple[str, ...]) -> Variable:
    """A variable with what xarray decodes it by, as its engine for Zarr has it."""
    variable = _variable(array, dims)
    attrs = variable.attrs
    if array.format == "zarr2" and _DIMENSIONS in array.attrs and array.has_fill_value:
        # What a chunk that is not stored holds is what a missing value holds, by the custom of version 2.
        attrs["_FillValue"] = array.fill_value
    elif array.format == "zarr3":
        variable.encoding["fill_value"] = array.fill_value
        if "_FillValue" in attrs:
            attrs["_FillValue"] = _missing_value(array, attrs["_FillValue"])
    variable.attrs = {name: value for name, value in attrs.items() if not name.lower().startswith("_nc")}
    return variable


def _missing_value(array: vf.Array, stored: Any) -> Any:
    """The attribute `_FillValue` as xarray writes it in version 3, where JSON has no NaN: in base64, or a number."""
    if isinstance(stored, int | float):
        return stored
    dtype = ("string" if isinstance(array.fill_value, str) else "bytes") if array.dtype.hasobject else array.dtype
    try:
        return cast("Any", FillValueCoder).decode(stored, dtype)
    except (TypeError, ValueError, struct.error) as error:
        raise vf.MetadataError(f"_FillValue {stored!r:.100} is no value of {dtype}: {error}", key=array.url) from None


def _variable(array: vf.Array, dims: tuple[str, ...]) -> Variable:
    """A variable that reads when it is used."""
    stored = array.chunks if array.shards is None else array.shards
    encoding = {
        "chunks": array.chunks,
        "shards": array.shards,
        "preferred_chunks": dict(zip(dims, stored, strict=True)),
    }
    attrs = {name: value for name, value in array.attrs.items() if name != _DIMENSIONS}
    return Variable(dims, LazilyIndexedArray(LazyArray(array)), attrs, encoding)
