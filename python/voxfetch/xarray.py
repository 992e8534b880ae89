"""The engine "voxfetch" of xarray: `xarray.open_dataset(source, engine="voxfetch")`, `open_datatree`, `open_groups`.

Whatever `voxfetch.open` opens goes in. An array becomes a dataset of one variable; a level of an image one with the
coordinates of its voxels in world units, and labels beside it; a group one of its arrays, decoded by the CF conventions
as xarray's own engine for Zarr does; a tree has a node for each level or group. Values are read when they are used.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import numpy as np
from xarray import Dataset, DataTree, Variable
from xarray.backends import BackendArray, BackendEntrypoint, InMemoryDataStore, StoreBackendEntrypoint
from xarray.backends.zarr import FillValueCoder
from xarray.core import indexing

import voxfetch as vf

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    Found = vf.Array | vf.Image | vf.Group

__all__ = ["VoxfetchBackend"]

# What no other engine claims: URLs that name one of our formats, and names that end like them.
_OURS = re.compile(
    r"(precomputed|zarr2|zarr3|n5|wkw|b2nd|bossdb|icechunk)://"
    r"|.*\|(zip|kerchunk|icechunk|zarr|zarr2|zarr3|n5|wkw|b2nd|hdf5|precomputed|neuroglancer-precomputed):[^|]*$"
    r"|[^?#]*\.(n5|b2nd|ozx|ims)/?$",
    re.IGNORECASE | re.DOTALL,
)
_CHANNEL = ("c", "channel")
# Coordinates are made at once, 8 bytes each; longer axes have none.
_MAX_COORDINATES = 1 << 24
_MAX_NODES = 10_000
_DIMENSIONS = "_ARRAY_DIMENSIONS"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Keywords:
    """What the engine takes besides the source, as `VoxfetchBackend` says."""

    drop_variables: str | Iterable[str] | None = None
    path: str | None = None
    level: int = 0
    labels: bool = True
    axes: Any = None
    format: str | None = None
    options: Any = None
    format_options: Mapping[str, Any] | None = None
    read_options: vf.ReadOptions | None = None
    reader: vf.Engine | None = None
    mask_and_scale: Any = True
    decode_times: Any = True
    concat_characters: Any = True
    decode_coords: Any = True
    use_cftime: Any = None
    decode_timedelta: Any = None

    @property
    def opening(self) -> dict[str, Any]:
        """What `voxfetch.open` is to know."""
        given = {name: getattr(self, name) for name in ("format", "options", "format_options", "read_options")}
        return {name: value for name, value in {**given, "engine": self.reader}.items() if value is not None}

    @property
    def decoding(self) -> dict[str, Any]:
        """How xarray decodes variables."""
        names = [one.name for one in fields(self)]
        return {name: getattr(self, name) for name in names[names.index("mask_and_scale") :]}

    @property
    def dropped(self) -> frozenset[str]:
        """Names of variables that are left out."""
        names = self.drop_variables
        return frozenset([names] if isinstance(names, str) else names or ())


class VoxfetchBackend(BackendEntrypoint):
    """The engine. The source is whatever `voxfetch.open` takes, or an open array, image or group of voxfetch.

    Keywords: `path` of a member of the source; `level` of an image, 0 the finest; `labels=False` does not look for
    labels; `axes`, `format`, `options`, `format_options` and `read_options` as in `voxfetch.open`, whose `engine` is
    called `reader` here; and xarray's own (`drop_variables`, `mask_and_scale`, `decode_times`, ...).

    Dimensions are called as the axes. An array is called by the last part of its path, an image by its name, else
    "image"; its coordinates are the centres of the voxels, with their unit in `units`, those of channels their names
    (axes of more than 2**24 voxels have none). Labels whose voxels lie at the same places are variables beside the
    image; others are in trees only. Arrays and groups are decoded as by xarray's engine "zarr", images are not. With
    `chunks={}` the chunks of dask are shards, or chunks where there are none.
    """

    description: ClassVar[str] = "Open OME-Zarr, Zarr, N5, precomputed, WKW, HDF5 and more in Xarray"
    url: ClassVar[str] = "https://github.com/voxfetch/voxfetch"
    supports_groups: ClassVar[bool] = True
    open_dataset_parameters: ClassVar[tuple[str, ...] | None] = (
        "filename_or_obj",
        *(one.name for one in fields(_Keywords)),
    )

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """True for what the engines that come with xarray do not claim.

        These are open arrays, images and groups of voxfetch; URLs that name one of its formats (`precomputed://...`,
        `...|zarr3:`); names that end in `.n5`, `.b2nd`, `.ozx` or `.ims`.
        """
        if isinstance(filename_or_obj, str | os.PathLike):
            return _OURS.match(os.fspath(cast("str", filename_or_obj))) is not None
        return isinstance(filename_or_obj, vf.Array | vf.Image | vf.Group)

    def open_dataset(self, filename_or_obj: Any, **keywords: Any) -> Dataset:
        """Returns an array, one level of an image, or the arrays of a group, as a dataset that reads when it is used.

        Raises what `voxfetch.open` raises, `SelectionError` for a level that is not there.
        """
        wanted = _Keywords(**keywords)
        found = _opened(filename_or_obj, wanted)
        if isinstance(found, vf.Image):
            level = found.level(wanted.level)
            return _of_level(level, found, _labels(found, wanted), wanted).assign_attrs(found.attrs)
        if wanted.level:
            raise ValueError(f"level={wanted.level} was given for what has no levels: {found!r}")
        if isinstance(found, vf.Collection):
            message = f"a collection of images: {', '.join(found.keys())}"
            raise vf.MetadataError(message, key=found.url, hint="give path=... of one of them, or use open_datatree")
        if isinstance(found, vf.Group):
            return _of_group(_arrays(found, wanted), found.attrs, wanted)
        return _of_array(found, wanted)

    def open_datatree(self, filename_or_obj: Any, **keywords: Any) -> DataTree:
        """Returns an image as a tree with a node for each level, called by its path (`/0`, `/1`); a group as it is.

        Errors as in `open_dataset`; also those of xarray where nodes do not fit each other.
        """
        return cast("Any", DataTree).from_dict(self.open_groups_as_dict(filename_or_obj, **keywords))

    def open_groups_as_dict(self, filename_or_obj: Any, **keywords: Any) -> dict[str, Dataset]:
        """Returns the nodes of `open_datatree` by their paths. Raises `LimitExceededError` for more than 10,000."""
        wanted = _Keywords(**keywords)
        if wanted.level:
            raise ValueError("level=... belongs to open_dataset: a tree has all levels")
        nodes: dict[str, Dataset] = {}
        _add_nodes(_opened(filename_or_obj, wanted), "", wanted, nodes)
        return nodes


# ------------------------------------------------------------------------------------------------ what lies at a source


def _opened(source: Any, wanted: _Keywords) -> Found:
    found = cast("Found", source)
    if not isinstance(source, vf.Array | vf.Image | vf.Group):
        found = vf.open(source, **wanted.opening)
    elif wanted.opening:
        raise TypeError(f"{', '.join(wanted.opening)}: for sources that are not open yet")
    path = (wanted.path or "").strip("/")
    if path:
        found = _member(found, path)
    if wanted.axes is None:
        return found
    if isinstance(found, vf.Group):
        raise TypeError(f"axes={wanted.axes!r} was given for a group, which has none: {found!r}")
    return found.with_axes(wanted.axes)


def _member(found: Found, path: str) -> Found:
    if isinstance(found, vf.Group):
        return found[path]
    if isinstance(found, vf.Image):
        if path.startswith("labels/"):
            return found.labels[path.removeprefix("labels/")]
        for name, level in _named_levels(found).items():
            if name == path:
                return level
    raise vf.NotFoundError(f"no member {path!r} of {found!r}", key=found.url)


def _named_levels(image: vf.Image) -> dict[str, vf.Level]:
    """The levels by their paths in the image, by their numbers where these do not serve as names."""
    prefix = f"{image.url}/"
    # The URL of an array says `file:`, that of a group need not.
    names = [level.url.removeprefix("file://").removeprefix(prefix.removeprefix("file://")) for level in image.levels]
    usable = all(name and "//" not in name and not name.startswith(("/", ".", "labels/")) for name in names)
    keys = names if usable and len(set(names)) == len(names) else map(str, range(len(names)))
    return dict(zip(keys, image.levels, strict=True))


def _labels(image: vf.Image, wanted: _Keywords) -> dict[str, vf.Image]:
    if not wanted.labels:
        return {}
    return {name: image.labels[name] for name in image.labels if name not in wanted.dropped}


def _last_part(found: vf.Array) -> str:
    return found.url.rstrip("/").rsplit("/", 1)[-1]


def _arrays(group: vf.Group, wanted: _Keywords) -> dict[str, vf.Array]:
    members = {name: group[name] for name in group if name not in wanted.dropped}
    return {name: member for name, member in members.items() if isinstance(member, vf.Array)}


def _add_nodes(found: Found, path: str, wanted: _Keywords, nodes: dict[str, Dataset]) -> None:
    """Adds what lies at `path` of the tree ("" for the root) and below it."""
    if len(nodes) >= _MAX_NODES:
        raise vf.LimitExceededError(f"more than {_MAX_NODES:,} nodes", key=found.url, hint="open a part with path=...")
    here = path or "/"
    if isinstance(found, vf.Image):
        labels = _labels(found, wanted)
        nodes[here] = Dataset(attrs=dict(found.attrs))
        for name, level in _named_levels(found).items():
            nodes[f"{path}/{name}"] = _of_level(level, found, labels, wanted)
        for label, image in labels.items():
            for name, level in _named_levels(image).items():
                if not any(_same_places(level, other) for other in found.levels):
                    nodes.setdefault(f"{path}/labels/{label}", Dataset(attrs=dict(image.attrs)))
                    nodes[f"{path}/labels/{label}/{name}"] = _of_level(level, image, {}, wanted)
    elif isinstance(found, vf.Group):
        members = {name: found[name] for name in found if name not in wanted.dropped}
        arrays = {name: member for name, member in members.items() if isinstance(member, vf.Array)}
        nodes[here] = _of_group(arrays, found.attrs, wanted)
        for name, member in members.items():
            if not isinstance(member, vf.Array):
                _add_nodes(member, f"{path}/{name}", wanted, nodes)
    else:
        nodes[here] = _of_array(found, wanted)


# ------------------------------------------------------------------------------------------------------------- datasets


def _of_array(array: vf.Array, wanted: _Keywords) -> Dataset:
    if isinstance(array, vf.Level):
        return _of_level(array, None, {}, wanted)
    name = _last_part(array)
    return _of_group({"image" if not name or (name in array.axes and array.ndim > 1) else name: array}, {}, wanted)


def _of_group(arrays: Mapping[str, vf.Array], attrs: Mapping[str, Any], wanted: _Keywords) -> Dataset:
    """The arrays as a dataset, decoded as the caller wants it."""
    dims = _dimensions(arrays)
    variables = {name: _decodable(array, dims[name]) for name, array in arrays.items()}
    shown = {name: value for name, value in attrs.items() if not name.lower().startswith("_nc")}
    return _dataset(variables, shown, {**wanted.decoding, "drop_variables": wanted.drop_variables})


def _of_level(level: vf.Level, image: vf.Image | None, labels: Mapping[str, vf.Image], wanted: _Keywords) -> Dataset:
    """A level with its coordinates, and of labels those levels that lie at the same places."""
    name = _last_part(level) if image is None else image.name
    variables = {"image" if not name or name in level.axes or "/" in name else name: _variable(level, level.axes)}
    for label, other in labels.items():
        for one in other.levels:
            if _same_places(one, level):
                free = label not in variables and label not in level.axes
                variables[label if free else f"labels_{label}"] = _variable(one, one.axes)
                break
    channels = () if image is None else image.channels
    variables.update(_coordinates(level, [channel.label for channel in channels]))
    kept = {name: variable for name, variable in variables.items() if name not in wanted.dropped}
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


def _same_places(one: vf.Level, other: vf.Level) -> bool:
    """Whether the voxels of a level lie where those of another do, along the axes that it has."""
    places = {axis: place for axis, *place in zip(other.axes, other.shape, other.scale, other.translation, strict=True)}
    for axis, extent, scale, translation in zip(one.axes, one.shape, one.scale, one.translation, strict=True):
        if axis not in places or places[axis][0] != extent:
            return False
        if not np.allclose((scale, translation), places[axis][1:], rtol=1e-6, atol=1e-6 * abs(scale)):
            return False
    return True


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


# ------------------------------------------------------------------------------------------------------------ variables


def _dimensions(arrays: Mapping[str, vf.Array]) -> dict[str, tuple[str, ...]]:
    """Names of the dimensions of each variable; those without a name are told apart where they differ in extent."""
    extents: dict[str, set[int]] = {}
    dims: dict[str, tuple[str, ...]] = {}
    for name, array in arrays.items():
        declared = array.attrs.get(_DIMENSIONS) if array.format == "zarr2" else None
        known = {f"dim_{axis}": str(one) for axis, one in enumerate(cast("list[object]", declared or []))}
        dims[name] = tuple(known.get(axis, axis) for axis in array.axes)
        for axis, extent in zip(dims[name], array.shape, strict=True):
            extents.setdefault(axis, set()).add(extent)
    unnamed = re.compile(r"dim_\d+")
    torn = {axis for axis, found in extents.items() if len(found) > 1 and unnamed.fullmatch(axis)}
    return {name: tuple(f"{name}_{axis}" if axis in torn else axis for axis in axes) for name, axes in dims.items()}


def _decodable(array: vf.Array, dims: tuple[str, ...]) -> Variable:
    """A variable with what xarray decodes it by, as its engine for Zarr has it."""
    variable = _variable(array, dims)
    attrs = variable.attrs
    if array.format == "zarr2" and _DIMENSIONS in attrs:
        del attrs[_DIMENSIONS]
        if array.has_fill_value:
            # What a chunk that is not stored holds is what a missing value holds, by the custom of version 2.
            attrs["_FillValue"] = array.fill_value
    elif array.format == "zarr3":
        variable.encoding["fill_value"] = array.fill_value
        if "_FillValue" in attrs:
            dtype = (
                ("string" if isinstance(array.fill_value, str) else "bytes") if array.dtype.hasobject else array.dtype
            )
            attrs["_FillValue"] = cast("Any", FillValueCoder).decode(attrs["_FillValue"], dtype)
    variable.attrs = {name: value for name, value in attrs.items() if not name.lower().startswith("_nc")}
    return variable


def _variable(array: vf.Array, dims: tuple[str, ...]) -> Variable:
    """A variable that reads when it is used."""
    stored = array.chunks if array.shards is None else array.shards
    encoding = {
        "chunks": array.chunks,
        "shards": array.shards,
        "preferred_chunks": dict(zip(dims, stored, strict=True)),
    }
    return Variable(dims, indexing.LazilyIndexedArray(LazyArray(array)), dict(array.attrs), encoding)


class LazyArray(BackendArray):
    """An array as xarray indexes it. Usable from any thread, picklable."""

    # Not `array`: some of xarray's functions take a member of that name for the values.
    __slots__ = ("_array", "dtype", "shape")

    def __init__(self, array: vf.Array) -> None:
        self._array = array
        self.shape = array.shape
        self.dtype: np.dtype[Any] = array.dtype
        if isinstance(array.fill_value, str) and array.dtype.hasobject:
            self.dtype = np.dtype("O", metadata={"element_type": str})

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Reads. Raises what `voxfetch.Array.read` raises."""
        if isinstance(key, indexing.VectorizedIndexer):
            plan = _plan(key.tuple, self.shape)
            return plan.arranged(self._indexer(plan.outer)[plan.key])
        method = self._array.oindex.__getitem__ if isinstance(key, indexing.OuterIndexer) else self._array.read
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.VECTORIZED, method)

    async def async_getitem(self, key: indexing.ExplicitIndexer) -> Any:
        """Reads on the running loop. Raises what `voxfetch.Array.read_async` raises."""
        if isinstance(key, indexing.VectorizedIndexer):
            plan = _plan(key.tuple, self.shape)
            return plan.arranged(await self._indexer(plan.outer).read_async(plan.key))
        outer = isinstance(key, indexing.OuterIndexer)
        method = self._array.oindex.read_async if outer else self._array.read_async
        support = indexing.IndexingSupport.VECTORIZED
        return await indexing.async_explicit_indexing_adapter(key, self.shape, support, method)

    def _indexer(self, outer: bool) -> Any:  # noqa: FBT001 - internal
        return self._array.oindex if outer else self._array.vindex


class _Plan(NamedTuple):
    """A read by `oindex` (`outer`) or `vindex`, and where in an answer of `shape` its result goes.

    Dimension k of the result is dimension `dims[k]` of the answer; those that are missing have one element.
    """

    outer: bool
    key: tuple[Any, ...]
    dims: tuple[int, ...]
    shape: tuple[int, ...]

    def arranged(self, values: Any) -> NDArray[Any]:
        return np.asarray(values).transpose(np.argsort(self.dims)).reshape(self.shape)


def _plan(key: tuple[Any, ...], shape: tuple[int, ...]) -> _Plan:
    """Index arrays that broadcast together (slices come last in the answer) -> boxes where they are boxes.

    xarray has transposed arrays, and points along some axes with all of the others, as index arrays of every voxel. An
    index array that alone varies along a dimension of the answer is an edge of boxes.
    """
    arrays = _index_arrays(key, shape)
    answer = np.broadcast_shapes(*(array.shape for array in arrays))
    varying = [[dim for dim, extent in enumerate(array.shape) if extent != 1] for array in arrays]
    edges = {
        axis: dims[0]
        for axis, dims in enumerate(varying)
        if len(dims) == 1 and sum(dims[0] in others for others in varying) == 1
    }
    if all(axis in edges or not dims for axis, dims in enumerate(varying)):
        items = [_edge(array) if axis in edges else int(array.item()) for axis, array in enumerate(arrays)]
        return _Plan(outer=True, key=tuple(items), dims=tuple(edges.values()), shape=answer)
    edges = {axis: dim for axis, dim in edges.items() if isinstance(_edge(arrays[axis]), slice)}
    points = [dim for dim in range(len(answer)) if dim not in edges.values()]
    items = [
        _edge(array) if axis in edges else array.reshape([array.shape[dim] for dim in points])
        for axis, array in enumerate(arrays)
    ]
    return _Plan(outer=False, key=tuple(items), dims=(*points, *edges.values()), shape=answer)


def _index_arrays(key: tuple[Any, ...], shape: tuple[int, ...]) -> list[NDArray[np.int64]]:
    """The key with arrays of indices >= 0 in place of slices, all with one number of dimensions."""
    sliced = [axis for axis, one in enumerate(key) if isinstance(one, slice)]
    arrays: list[NDArray[np.int64]] = []
    for axis, extent in enumerate(shape):
        one = key[axis]
        if isinstance(one, slice):
            indices = np.arange(extent)[one]
            trailing = [-1 if axis == other else 1 for other in sliced]
            arrays.append(indices.reshape([1] * max(np.ndim(k) for k in key if not isinstance(k, slice)) + trailing))
        else:
            indices = cast("NDArray[np.int64]", one)
            indices = np.where(indices < 0, indices + extent, indices)
            arrays.append(indices.reshape([*indices.shape, *[1] * len(sliced)]))
    return arrays


def _edge(indices: NDArray[np.int64]) -> Any:
    """Indices along one axis, as a slice if they are one with step 1."""
    flat = indices.ravel()
    if flat.size and (np.diff(flat) == 1).all():
        return slice(int(flat[0]), int(flat[-1]) + 1)
    return flat
