"""Opens whatever lies at a source: parses what the caller names, finds the documents, returns the right object.

This version reads Zarr v2 and v3 in local folders; everything else is refused with what to do instead. `Node` and the
functions on it are in `voxfetch.node` and re-exported here.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import unquote, urlsplit

from voxfetch.array import Array
from voxfetch.engine import Engine
from voxfetch.errors import MetadataError, NotFoundError, UnsupportedError
from voxfetch.node import Node, Settings, child, child_names, open_node
from voxfetch.options import ReadOptions
from voxfetch.store import check_key, join_key
from voxfetch.store.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from voxfetch.image import Collection, Group, Image
    from voxfetch.options import StoreOptions

    Axes = str | Sequence[str] | None

__all__ = [
    "Node",
    "child",
    "child_names",
    "local_folder",
    "open",
    "open_array",
    "open_array_async",
    "open_async",
    "open_image",
    "open_image_async",
    "open_node",
]

_FORMATS: dict[str | None, Literal["zarr3", "zarr2"] | None] = {
    None: None,
    "zarr": None,
    "ome-zarr": None,
    "zarr3": "zarr3",
    "zarr2": "zarr2",
}
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_ADAPTER = re.compile(r"\|([a-z][a-z0-9-]*):([^|]*)$")


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
    """Opens an array, an image (a group with OME-Zarr multiscales), a collection or a group.

    `source` is a path, a `file://` URL (also `zarr3://PATH`, `URL|zarr3:`, `URL|zarr3:path/inside`), or a local zarr
    `Array`, `Group` or `LocalStore`. `format` (`zarr3`, `zarr2`) skips detection. With `mode="r+"` arrays can be
    written. `axes`, such as "zyx", gives a view with the axes in this order. `options` are for remote stores.
    `format_options={"dimension_separator": "/"}` overrides what a Zarr v2 array says of its keys.

    Raises `NotFoundError`, `MetadataError`, `UnsupportedError`, `PermissionDeniedError`, `LimitExceededError`,
    `StoreError`.
    """
    del options
    node = _open_source(source, None, _Wanted(format, mode, format_options, read_options, engine))
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
    del options
    node = _open_source(source, path, _Wanted(format, mode, format_options, read_options, engine))
    if node.kind != "array":
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
    """Opens a multi-resolution image (OME-Zarr). Parameters and errors as in `open`."""
    del options
    from voxfetch import image

    node = _open_source(source, None, _Wanted(format, mode, format_options, read_options, engine))
    found = image.image_from_node(node)
    if found is None:
        message = f"this {node.kind} has no OME-Zarr multiscales"
        hint = "use voxfetch.open_array" if node.kind == "array" else "use voxfetch.open and look at its members"
        raise MetadataError(message, key=node.url, hint=hint)
    return found if axes is None else found.with_axes(axes)


# Metadata of local folders is a few small files: the twins do not leave the loop for it.


async def open_async(source: Any, **keywords: Any) -> Array | Image | Group | Collection:
    """Async twin of `open`."""
    return open(source, **keywords)


async def open_array_async(source: Any, path: str | None = None, **keywords: Any) -> Array:
    """Async twin of `open_array`."""
    return open_array(source, path, **keywords)


async def open_image_async(source: Any, **keywords: Any) -> Image:
    """Async twin of `open_image`."""
    return open_image(source, **keywords)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the caller asked for, as given."""

    format: str | None
    mode: str
    format_options: Mapping[str, Any] | None
    read_options: ReadOptions | None
    engine: Engine | None

    def settings(self) -> Settings:
        """The same, checked."""
        if self.mode not in ("r", "r+"):
            raise ValueError(f'mode must be "r" or "r+", not {self.mode!r}')
        for name, value, wanted in (
            ("read_options", cast("object", self.read_options), ReadOptions),
            ("engine", cast("object", self.engine), Engine),
        ):
            if value is not None and not isinstance(value, wanted):
                raise TypeError(f"{name} must be a voxfetch.{wanted.__name__}, not {type(value).__name__}")
        format_options = dict(self.format_options or {})
        separator = format_options.pop("dimension_separator", None)
        if format_options:
            message = f"unknown format_options: {', '.join(map(repr, format_options))}"
            raise UnsupportedError(message, hint='Zarr v2 knows "dimension_separator"')
        if separator not in (None, ".", "/"):
            raise ValueError(f'dimension_separator must be "." or "/", not {separator!r}')
        return Settings(self.mode, self.read_options or ReadOptions(), separator, self.engine)


def _array(node: Node, axes: Axes) -> Array:
    array = Array(node)
    return array if axes is None else array.with_axes(axes)


def _open_source(source: object, path: str | None, wanted: _Wanted) -> Node:
    if wanted.format not in _FORMATS:
        message = f"format {wanted.format!r} is not read by this version"
        raise UnsupportedError(message, hint=f"it reads {', '.join(name for name in _FORMATS if name)}")
    settings = wanted.settings()
    folder, inside, implied = local_folder(source)
    wanted_format = _FORMATS[wanted.format] or implied
    inside = join_key(inside, (path or "").strip("/"))
    store = LocalStore(folder)
    if not os.path.isdir(folder):  # noqa: PTH112 - str in, str out
        if os.path.exists(folder):  # noqa: PTH110
            message = "this is a file; this version reads Zarr folders"
            raise UnsupportedError(message, key=folder, hint="unpack it, or give the folder that holds zarr.json")
        # A folder that may not be looked into seems not to exist: asking for a document tells the two apart.
        store.get("zarr.json")
        message = "there is no such folder"
        raise NotFoundError(message, key=folder, hint=f"a relative path is taken from {os.getcwd()}")  # noqa: PTH109
    return open_node(store, check_key(inside), format=wanted_format, settings=settings)


def local_folder(source: object) -> tuple[str, str, Literal["zarr3", "zarr2"] | None]:
    """Returns (absolute path, key inside, format or None) of a source. Raises `UnsupportedError` if it is not local."""
    inside = ""
    if not isinstance(source, (str, os.PathLike)):
        source, inside = _zarr_object(source)
    text = os.fspath(cast("str | os.PathLike[str]", source))
    if not isinstance(cast("object", text), str):
        raise UnsupportedError("a path of bytes", hint="decode it with os.fsdecode")
    wanted: Literal["zarr3", "zarr2"] | None = None
    while (adapter := _ADAPTER.search(text)) is not None:
        wanted = _format_of(adapter[1], text) or wanted
        inside = join_key(adapter[2].strip("/"), inside)
        text = text[: adapter.start()]
    while (scheme := _SCHEME.match(text)) is not None:
        name = scheme[1].lower()
        if name == "file":
            text = _path_of_file_url(text)
            break
        if name not in ("zarr", "zarr2", "zarr3"):
            message = f"{name}:// sources are not read by this version, which reads local files"
            raise UnsupportedError(message, hint="copy the data to disk first, and give its path")
        wanted = _format_of(name, text) or wanted
        text = text[scheme.end() :]
    if not text or "\0" in text:
        message = "an empty path" if not text else "a path with a NUL character"
        raise NotFoundError(message, hint="give the folder of an array or a group")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnsupportedError(f"the path {text!r} is not UTF-8", hint="rename the folder, or link to it") from None
    return os.path.abspath(text), inside, wanted  # noqa: PTH100 - links stay links


def _format_of(adapter: str, source: str) -> Literal["zarr3", "zarr2"] | None:
    if adapter not in ("zarr", "zarr2", "zarr3"):
        message = f"{adapter!r} in {source!r} is not read by this version"
        raise UnsupportedError(message, hint="it reads zarr2 and zarr3")
    return _FORMATS[adapter]


def _path_of_file_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        message = f"{url!r} is not a file on this machine"
        raise UnsupportedError(message, hint="file URLs look like file:///folder/name, with # and ? as %23 and %3F")
    return unquote(parts.path)


def _zarr_object(source: object) -> tuple[str | os.PathLike[str], str]:
    """Folder and path inside of an array, group or store of zarr-python that lies on disk."""
    module = type(source).__module__
    if module.partition(".")[0] == "zarr":
        store = getattr(source, "store", source)
        root = getattr(store, "root", None)
        if type(store).__name__ == "LocalStore" and root is not None:
            return root, str(getattr(source, "path", "")) if store is not source else ""
        message = f"a zarr {type(store).__name__} is not read by this version, which reads local files"
        raise UnsupportedError(message, hint="give a zarr LocalStore, or the path of the data")
    message = f"{type(source).__name__} is not a source this version reads"
    raise UnsupportedError(message, hint="give a path, a file:// URL, or a zarr object on disk")
