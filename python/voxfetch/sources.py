"""What a caller names as a source -> the node that lies there.

A source is a path, a URL or an object of another library; this version finds what lies in local folders. URLs may say
the format before (`zarr3://PATH`) or after (`URL|zarr3:path/inside`).
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import unquote, urlsplit

from voxfetch.engine import Engine
from voxfetch.errors import NotFoundError, UnsupportedError
from voxfetch.node import Node, Settings, open_node
from voxfetch.options import ReadOptions
from voxfetch.store import check_key, join_key
from voxfetch.store.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["local_folder", "node_of", "settings_of"]

_FORMATS: dict[str | None, Literal["zarr3", "zarr2"] | None] = {
    None: None,
    "zarr": None,
    "ome-zarr": None,
    "zarr3": "zarr3",
    "zarr2": "zarr2",
}
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_ADAPTER = re.compile(r"\|([a-z][a-z0-9-]*):([^|]*)$")


def settings_of(
    *,
    mode: Literal["r", "r+"],
    format_options: Mapping[str, Any] | None,
    read_options: ReadOptions | None,
    engine: Engine | None,
) -> Settings:
    """Checks what the caller asked for. Raises `ValueError`, `TypeError`, `UnsupportedError`."""
    if mode not in ("r", "r+"):
        raise ValueError(f'mode must be "r" or "r+", not {mode!r}')
    for name, value, wanted in (
        ("read_options", cast("object", read_options), ReadOptions),
        ("engine", cast("object", engine), Engine),
    ):
        if value is not None and not isinstance(value, wanted):
            raise TypeError(f"{name} must be a voxfetch.{wanted.__name__}, not {type(value).__name__}")
    left = dict(format_options or {})
    separator = left.pop("dimension_separator", None)
    if left:
        message = f"unknown format_options: {', '.join(map(repr, left))}"
        raise UnsupportedError(message, hint='Zarr v2 knows "dimension_separator"')
    if separator not in (None, ".", "/"):
        raise ValueError(f'dimension_separator must be "." or "/", not {separator!r}')
    return Settings(mode, read_options or ReadOptions(), separator, engine)


def node_of(source: object, path: str | None, format: str | None, settings: Settings) -> Node:  # noqa: A002
    """Returns the node at a source, or at `path` inside it. Raises like `open_node`, and `UnsupportedError`."""
    if format not in _FORMATS:
        message = f"format {format!r} is not read by this version"
        raise UnsupportedError(message, hint=f"it reads {', '.join(name for name in _FORMATS if name)}")
    folder, inside, implied = local_folder(source)
    wanted_format = _FORMATS[format] or implied
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
