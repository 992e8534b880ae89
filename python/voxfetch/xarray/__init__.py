"""The engine "voxfetch" of xarray: `xarray.open_dataset(source, engine="voxfetch")`, `open_datatree`, `open_groups`.

Whatever `voxfetch.open` opens goes in. An array becomes a dataset of one variable; a level of an image one with the
coordinates of its voxels in world units, and labels beside it; a group one of its arrays, decoded by the CF conventions
as xarray's own engine for Zarr does; a tree has a node for each level or group. Values are read when they are used.
"""

from __future__ import annotations

import os
import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, cast
from urllib.parse import unquote

from xarray import Dataset, DataTree
from xarray.backends import BackendEntrypoint

import voxfetch as vf
from voxfetch.xarray.datasets import of_array, of_group, of_level, same_places
from voxfetch.xarray.keywords import Keywords

if TYPE_CHECKING:
    Found = vf.Array | vf.Image | vf.Group

__all__ = ["VoxfetchBackend"]

# What no other engine claims: URLs that name one of our formats, and names that end like them.
_OURS = re.compile(
    r"(precomputed|zarr2|zarr3|n5|wkw|b2nd|bossdb|icechunk)://"
    r"|.*\|(zip|kerchunk|icechunk|zarr|zarr2|zarr3|n5|wkw|b2nd|hdf5|precomputed|neuroglancer-precomputed):[^|]*$"
    r"|[^?#]*\.(n5|b2nd|ozx|ims)/?$",
    re.IGNORECASE | re.DOTALL,
)
_MAX_NODES = 10_000
# Links may lead back up.
_MAX_DEPTH = 32


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
        *(one.name for one in fields(Keywords)),
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
        wanted = Keywords.of(**keywords)
        found = _opened(filename_or_obj, wanted)
        if isinstance(found, vf.Image):
            level = found.level(wanted.level)
            return of_level(level, found, _labels(found, wanted), wanted).assign_attrs(found.attrs)
        if wanted.level:
            raise ValueError(f"level={wanted.level} was given for what has no levels: {found!r}")
        if isinstance(found, vf.Array):
            return of_array(found, wanted)
        arrays, others = _members(found, wanted)
        images = [name for name, member in others.items() if isinstance(member, vf.Image)]
        if images and not arrays:
            message = f"a group of images: {', '.join(images)}"
            raise vf.MetadataError(message, key=found.url, hint="give path=... of one of them, or use open_datatree")
        return of_group(arrays, found.attrs, wanted)

    def open_datatree(self, filename_or_obj: Any, **keywords: Any) -> DataTree:
        """Returns an image as a tree with a node for each level, called by its path (`/0`, `/1`); a group as it is.

        Errors as in `open_dataset`; also those of xarray where nodes do not fit each other.
        """
        return cast("Any", DataTree).from_dict(self.open_groups_as_dict(filename_or_obj, **keywords))

    def open_groups_as_dict(self, filename_or_obj: Any, **keywords: Any) -> dict[str, Dataset]:
        """Returns the nodes of `open_datatree` by their paths. Errors as there.

        Raises `LimitExceededError` for more than 10,000 nodes, or more than 32 below one another.
        """
        wanted = Keywords.of(**keywords)
        if wanted.level:
            raise ValueError("level=... belongs to open_dataset: a tree has all levels")
        nodes: dict[str, Dataset] = {}
        _add_nodes(_opened(filename_or_obj, wanted), "", wanted, nodes)
        return nodes


def _opened(source: Any, wanted: Keywords) -> Found:
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
    # That of an array is a URL, that of an image may be a path.
    place = f"{unquote(image.url).removeprefix('file://')}/"
    names = [unquote(level.url).removeprefix("file://").removeprefix(place) for level in image.levels]
    usable = all(name and "//" not in name and not name.startswith(("/", ".", "labels/")) for name in names)
    keys = names if usable and len(set(names)) == len(names) else map(str, range(len(names)))
    return dict(zip(keys, image.levels, strict=True))


def _labels(image: vf.Image, wanted: Keywords) -> dict[str, vf.Image]:
    if not wanted.labels:
        return {}
    return {name: image.labels[name] for name in image.labels if name not in wanted.drop_variables}


def _members(group: vf.Group, wanted: Keywords) -> tuple[dict[str, vf.Array], dict[str, Found]]:
    """The arrays in a group, and what else is there."""
    members: dict[str, Found] = {}
    for name in group:
        if name not in wanted.drop_variables:
            try:
                members[name] = group[name]
            except vf.VoxfetchError as error:
                error.add_note(f"drop_variables=[{name!r}] leaves it out")
                raise
    arrays = {name: member for name, member in members.items() if isinstance(member, vf.Array)}
    return arrays, {name: member for name, member in members.items() if name not in arrays}


def _add_nodes(found: Found, path: str, wanted: Keywords, nodes: dict[str, Dataset]) -> None:
    """Adds what lies at `path` of the tree ("" for the root) and below it."""
    if len(nodes) >= _MAX_NODES or path.count("/") > _MAX_DEPTH:
        message = f"a tree of more than {_MAX_NODES:,} nodes, or {_MAX_DEPTH} of them deep"
        raise vf.LimitExceededError(message, key=found.url, hint="open a part of it with path=...")
    here = path or "/"
    if isinstance(found, vf.Image):
        labels = _labels(found, wanted)
        nodes[here] = Dataset(attrs=dict(found.attrs))
        for name, level in _named_levels(found).items():
            nodes[f"{path}/{name}"] = of_level(level, found, labels, wanted)
        for label, image in labels.items():
            for name, level in _named_levels(image).items():
                if not any(same_places(level, other) for other in found.levels):
                    nodes.setdefault(f"{path}/labels/{label}", Dataset(attrs=dict(image.attrs)))
                    nodes[f"{path}/labels/{label}/{name}"] = of_level(level, image, {}, wanted)
    elif isinstance(found, vf.Group):
        arrays, others = _members(found, wanted)
        nodes[here] = of_group(arrays, found.attrs, wanted)
        for name, member in others.items():
            _add_nodes(member, f"{path}/{name}", wanted, nodes)
    else:
        nodes[here] = of_array(found, wanted)
