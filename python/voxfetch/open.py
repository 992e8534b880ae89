"""Opens whatever lies at a source and returns the right object; parsing and detection are in `voxfetch.sources`.

What is not read is refused with what to do instead. This module loads the rest of the package when a function is
called: `import voxfetch` needs it at once, because an import of the module at a later time would hide the function of
the same name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from voxfetch.errors import MetadataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from voxfetch.array import Array
    from voxfetch.engine import Engine
    from voxfetch.image import Collection, Group, Image
    from voxfetch.node import Node
    from voxfetch.options import ReadOptions, StoreOptions

    Axes = str | Sequence[str] | None

_T = TypeVar("_T")

__all__ = ["open", "open_array", "open_array_async", "open_async", "open_image", "open_image_async"]


def open(  # noqa: A001, PLR0913 - the public names are a contract
    source: Any,
    *,
    format: str | None = None,  # noqa: A002
    mode: Literal["r", "r+"] = "r",
    axes: Axes = None,
    options: StoreOptions | Mapping[str, Any] | None = None,
    format_options: Mapping[str, Any] | None = None,
    read_options: ReadOptions | None = None,
    engine: Engine | None = None,
) -> Array | Image | Group | Collection:
    """Opens an array, an image (a group with multiscales, a volume, a layer), a collection or a group.

    `source` is a path; a URL (`file`, `http`, `https`, `s3`, `gs`, `az`; also `zarr3://PATH`, `URL|zarr3:`,
    `URL|zarr3:path/inside`); a ZIP archive, by a path or a URL that ends in `.zip` or `.ozx`, or
    `URL|zip:path/inside`, read in place; an HDF5 file, by a path, a URL that ends in `.h5`, `.hdf5`, `.hdf`, `.he5`,
    `.ims`, `.nwb` or `.nc`, or `URL|hdf5:path/inside`; an array of Blosc2, by a path or a URL that ends in `.b2nd`, or
    `URL|b2nd:`; references of kerchunk (`.json`, `URL|kerchunk:path/inside`, or a dict); the folder of an icechunk
    repository; `bossdb://collection/experiment/channel`, or with the URL of another server behind `bossdb://`; a zarr
    `Array`, `Group` or `Store`; a store of obstore; a file system, map or path of fsspec. What lies there is found
    out; `format` (`zarr3`, `zarr2`, `n5`, `precomputed`, `wkw`, `b2nd`, `hdf5`, `bossdb`) skips that. With `mode="r+"`
    local arrays of Zarr v3 can be written. `axes`, such as "zyx", gives a view with the axes in this order. `options`
    (`StoreOptions`, or a dict as fsspec takes it) say how a remote store is reached; left out, credentials, region and
    anonymous access are found. `format_options={"dimension_separator": "/"}` overrides what a Zarr v2 array says of
    its keys; `{"allowed_prefixes": [...]}` are URLs and absolute folders that references may lead to beside the folder
    of their document; `{"branch": ...}`, `{"tag": ...}` and `{"snapshot": ...}` say what of an icechunk repository is
    read; `{"chunk_tables": FOLDER}` keeps the places of the chunks of HDF5 datasets in a folder, for as long as their
    file is the same.

    Raises `NotFoundError`, `MetadataError`, `UnsupportedError`, `PermissionDeniedError`, `CredentialsError`,
    `LimitExceededError`, `StoreError`, `DataError` (HDF5).
    """
    from voxfetch.sources import node_of, settings_of

    settings = settings_of(mode=mode, format_options=format_options, read_options=read_options, engine=engine)
    node = node_of(source, None, format=format, settings=settings, options=options)
    if node.kind == "array":
        return _array(node, axes)
    from voxfetch import image

    found = image.image_from_node(node)
    if found is None:
        found = image.open_group_node(node)
    if axes is None:
        return found
    if not isinstance(found, image.Image):
        message = f"axes={axes!r} was given for a group, which has none"
        raise MetadataError(message, key=node.url, hint="open one of its arrays or images")
    return found.with_axes(axes)


def open_array(  # noqa: PLR0913
    source: Any,
    path: str | None = None,
    *,
    format: str | None = None,  # noqa: A002
    mode: Literal["r", "r+"] = "r",
    axes: Axes = None,
    options: StoreOptions | Mapping[str, Any] | None = None,
    format_options: Mapping[str, Any] | None = None,
    read_options: ReadOptions | None = None,
    engine: Engine | None = None,
) -> Array:
    """Opens an array, at `path` inside the source if given. Parameters and errors as in `open`."""
    from voxfetch.sources import node_of, settings_of

    settings = settings_of(mode=mode, format_options=format_options, read_options=read_options, engine=engine)
    node = node_of(source, path, format=format, settings=settings, options=options)
    if node.kind != "array":
        from voxfetch.hierarchy import child_names

        names = child_names(node)
        shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        message = "this is a group, not an array"
        hint = f"give the path of an array in it; it holds: {shown}" if names else "use voxfetch.open"
        raise MetadataError(message, key=node.url, hint=hint)
    return _array(node, axes)


def open_image(  # noqa: PLR0913
    source: Any,
    *,
    format: str | None = None,  # noqa: A002
    mode: Literal["r", "r+"] = "r",
    axes: Axes = None,
    options: StoreOptions | Mapping[str, Any] | None = None,
    format_options: Mapping[str, Any] | None = None,
    read_options: ReadOptions | None = None,
    engine: Engine | None = None,
) -> Image:
    """Opens an image of several resolutions: OME-Zarr, precomputed, N5, a layer of WEBKNOSSOS, a channel of BossDB.

    Also Imaris and BigDataViewer in HDF5.

    Parameters and errors as in `open`.
    """
    from voxfetch import image
    from voxfetch.sources import node_of, settings_of

    settings = settings_of(mode=mode, format_options=format_options, read_options=read_options, engine=engine)
    node = node_of(source, None, format=format, settings=settings, options=options)
    found = image.image_from_node(node)
    if found is None:
        message = f"this {node.kind} has no OME-Zarr multiscales"
        hint = "use voxfetch.open_array" if node.kind == "array" else "use voxfetch.open and look at its members"
        raise MetadataError(message, key=node.url, hint=hint)
    return found if axes is None else found.with_axes(axes)


async def open_async(source: Any, **keywords: Any) -> Array | Image | Group | Collection:
    """Async twin of `open`."""
    return await _opened(lambda: open(source, **keywords), source)


async def open_array_async(source: Any, path: str | None = None, **keywords: Any) -> Array:
    """Async twin of `open_array`."""
    return await _opened(lambda: open_array(source, path, **keywords), source)


async def open_image_async(source: Any, **keywords: Any) -> Image:
    """Async twin of `open_image`."""
    return await _opened(lambda: open_image(source, **keywords), source)


async def _opened(function: Callable[[], _T], source: object) -> _T:
    from voxfetch.engine import run_in_thread
    from voxfetch.sources import is_remote

    # Metadata of local folders is a few small files, which is not worth leaving the loop for.
    return await run_in_thread(function) if is_remote(source) else function()


def _array(node: Node, axes: Axes) -> Array:
    from voxfetch.array import Array

    array = Array(node)
    return array if axes is None else array.with_axes(axes)
