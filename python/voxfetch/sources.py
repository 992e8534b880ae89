"""What a caller names as a source -> the node that lies there.

A source is a path, a URL or an object of another library. URLs may say the format before (`zarr3://PATH`) or after
(`URL|zarr3:path/inside`). `URL|zip:path/inside` lies in a ZIP archive; a URL that ends in `.zip` or `.ozx`, and a file
that is an archive, need no `|zip:`. `bossdb://collection/experiment/channel` is a channel of BossDB; behind `bossdb://`
may stand the URL of another server.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import unquote, urlsplit

from voxfetch.documents import RemoteDocuments
from voxfetch.engine import Engine
from voxfetch.errors import NotFoundError, UnsupportedError
from voxfetch.hierarchy import open_node
from voxfetch.node import Format, Node, Settings
from voxfetch.options import ReadOptions
from voxfetch.store import check_key, join_key
from voxfetch.store.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from voxfetch.options import StoreOptions
    from voxfetch.store import RemoteStore, Store

__all__ = ["is_remote", "local_folder", "node_of", "settings_of"]

_FORMATS: dict[str | None, Format | None] = {
    None: None,
    "zarr": None,
    "ome-zarr": None,
    "zarr3": "zarr3",
    "zarr2": "zarr2",
    "n5": "n5",
    "precomputed": "precomputed",
    "neuroglancer-precomputed": "precomputed",
    "wkw": "wkw",
    "bossdb": "bossdb",
}
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_ADAPTER = re.compile(r"\|([a-z][a-z0-9-]*):([^|]*)$")
#: The server of a channel whose URL names none.
_BOSSDB = "https://api.bossdb.io/"
_ARCHIVE = re.compile(r"[^?#]*\.(?:zip|ozx)(?:[?#].*)?", re.IGNORECASE | re.DOTALL)


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


def node_of(
    source: object,
    path: str | None,
    *,
    format: str | None,  # noqa: A002
    settings: Settings,
    options: StoreOptions | Mapping[str, Any] | None = None,
) -> Node:
    """Returns the node at a source, or at `path` inside it. Raises like `open_node`, and `UnsupportedError`."""
    if format not in _FORMATS:
        message = f"format {format!r} is not read by this version"
        raise UnsupportedError(message, hint=f"it reads {', '.join(name for name in _FORMATS if name)}")
    source, zipped = _without_zip(source)
    source, inside, implied = _without_adapters(source)
    wanted_format = _FORMATS[format] or implied
    inside = join_key(inside, (path or "").strip("/"))
    if wanted_format == "bossdb":
        return _node_of_boss(source, options, inside, settings)
    remote = None if isinstance(source, str) and not _is_url(source) else _remote(source, options, inside)
    if remote is not None:
        if zipped or _names_archive(source):
            return _node_in_archive(remote[0], remote[1], format=wanted_format, settings=settings)
        store: Store = RemoteDocuments(remote[0], settings.engine)
        return open_node(store, check_key(remote[1]), format=wanted_format, settings=settings)
    folder, within = _local_folder(source)
    inside = join_key(within, inside)
    store = LocalStore(folder)
    if not os.path.isdir(folder):  # noqa: PTH112 - str in, str out
        file, within = _file_above(folder)
        if os.path.isfile(file):  # noqa: PTH113
            from voxfetch.store.file import FileStore, is_zip

            if zipped or _names_archive(file) or is_zip(file):
                inside = join_key(within, inside)
                return _node_in_archive(FileStore(file), inside, format=wanted_format, settings=settings)
        if os.path.exists(folder):  # noqa: PTH110
            message = "this is a file; this version reads folders and ZIP archives"
            raise UnsupportedError(message, key=folder, hint="unpack it, or give the folder that holds zarr.json")
        # A folder that may not be looked into seems not to exist: asking for a document tells the two apart.
        store.get("zarr.json")
        message = f"there is no such {'file' if zipped else 'folder'}"
        raise NotFoundError(message, key=folder, hint=f"a relative path is taken from {os.getcwd()}")  # noqa: PTH109
    if zipped:
        raise UnsupportedError("this is a folder and not an archive", key=folder, hint="leave |zip: out")
    return open_node(store, check_key(inside), format=wanted_format, settings=settings)


def is_remote(source: object) -> bool:
    """Returns whether opening a source has to wait for a network, or for the I/O thread, as archives on disk do."""
    source, zipped = _without_zip(source)
    source, _, _ = _without_adapters(source)
    if not isinstance(source, str):
        return not isinstance(source, os.PathLike)
    return zipped or _is_url(source) or _names_archive(source)


def local_folder(source: object) -> tuple[str, str, Format | None]:
    """Returns (absolute path, key inside, format or None) of a source. Raises `UnsupportedError` if it is not local."""
    source, zipped = _without_zip(source)
    if zipped:
        raise UnsupportedError("archives are not written by this version", hint="write a folder and pack it")
    source, inside, wanted = _without_adapters(source)
    folder, within = _local_folder(source)
    return folder, join_key(within, inside), wanted


def _without_adapters(source: object) -> tuple[object, str, Format | None]:
    """Takes `zarr3://` and `|zarr3:inside` off a path or URL: (the rest, key inside, format or None)."""
    if isinstance(source, PurePath):
        source = str(source)
    if not isinstance(source, str):
        return source, "", None
    text, inside = source, ""
    wanted: Format | None = None
    while (adapter := _ADAPTER.search(text)) is not None:
        wanted = _format_of(adapter[1]) or wanted
        inside = join_key(adapter[2].strip("/"), inside)
        text = text[: adapter.start()]
    while (scheme := _SCHEME.match(text)) is not None and scheme[1].lower() in _FORMATS:
        wanted = _format_of(scheme[1].lower()) or wanted
        text = text[scheme.end() :]
    if wanted == "bossdb" and not _is_url(text):
        text = _BOSSDB + text
    return text, inside, wanted


def _without_zip(source: object) -> tuple[object, bool]:
    """Returns a source and whether it is an archive by its `|zip:`, instead of which it then has `|zarr:`.

    What follows is a path inside in both cases, and that says nothing of the format.
    """
    text = str(source) if isinstance(source, PurePath) else source
    if not isinstance(text, str) or "|zip:" not in text:
        return source, False
    archive, _, inside = text.partition("|zip:")
    if "|zip:" in inside or _ADAPTER.search(archive) is not None:
        # Without the URL in which it stands, which may hold a password.
        message = "an archive within another, or in an array"
        raise UnsupportedError(message, hint="take it out: |zip: follows the path or URL of a file")
    return f"{archive}|zarr:{inside}", True


def _names_archive(source: object) -> bool:
    """Whether a path or URL is that of an archive by its name; with a slash at its end it names a folder."""
    return isinstance(source, str) and _ARCHIVE.fullmatch(source) is not None


def _file_above(path: str) -> tuple[str, str]:
    """Takes off the end of a path what does not exist: (the rest, what was taken off as a key)."""
    inside = ""
    while not os.path.lexists(path) and os.path.dirname(path) != path:  # noqa: PTH120
        path, name = os.path.split(path)
        inside = join_key(name, inside)
    return path, inside


def _node_in_archive(
    archive: RemoteStore,
    inside: str,
    *,
    format: Format | None,  # noqa: A002
    settings: Settings,
) -> Node:
    from voxfetch.store.zip import ZipStore

    store = RemoteDocuments(ZipStore(archive), settings.engine)
    try:
        return open_node(store, check_key(inside), format=format, settings=settings)
    except NotFoundError as error:
        with suppress(NotFoundError):
            names = store.list(inside)
            shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            what = f"it holds: {shown}" if names else "there is nothing"
            error.hint = f"{what}; `ARCHIVE|zip:PATH` names a path in an archive"
        raise


def _node_of_boss(
    source: object, options: StoreOptions | Mapping[str, Any] | None, inside: str, settings: Settings
) -> Node:
    from voxfetch.store.resolve import boss_store

    if not isinstance(source, str) or not _is_url(source):
        raise UnsupportedError("BossDB is a server", hint="give bossdb://collection/experiment/channel, or its URL")
    remote, channel = boss_store(source, options)
    path = check_key(join_key(channel, inside))
    return open_node(RemoteDocuments(remote, settings.engine), path, format="bossdb", settings=settings)


def _is_url(text: str) -> bool:
    scheme = _SCHEME.match(text)
    return scheme is not None and scheme[1].lower() != "file"


def _remote(
    source: object, options: StoreOptions | Mapping[str, Any] | None, path: str
) -> tuple[RemoteStore, str] | None:
    from voxfetch.store.resolve import remote_store

    return remote_store(source, options, path)


def _local_folder(source: object) -> tuple[str, str]:
    """Returns (absolute path, key inside) of a local source. Raises `UnsupportedError` if it is not local."""
    inside = ""
    if not isinstance(source, (str, os.PathLike)):
        from voxfetch.store.resolve import local_source

        found = local_source(source)
        if found is None:
            message = f"{type(source).__name__} is not a folder on this machine"
            raise UnsupportedError(message, hint="give a path, a file:// URL, or a zarr object on disk")
        source, inside = found
    text = os.fspath(cast("str | os.PathLike[str]", source))
    if not isinstance(cast("object", text), str):
        raise UnsupportedError("a path of bytes", hint="decode it with os.fsdecode")
    if (scheme := _SCHEME.match(text)) is not None:
        if scheme[1].lower() != "file":
            message = f"{scheme[1].lower()}:// is not a folder on this machine"
            raise UnsupportedError(message, hint="this version writes to local folders")
        text = _path_of_file_url(text)
    if not text or "\0" in text:
        message = "an empty path" if not text else "a path with a NUL character"
        raise NotFoundError(message, hint="give the folder of an array or a group")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnsupportedError(f"the path {text!r} is not UTF-8", hint="rename the folder, or link to it") from None
    return os.path.abspath(text), inside  # noqa: PTH100 - links stay links


def _format_of(adapter: str) -> Format | None:
    if adapter not in _FORMATS:
        # Without the URL in which it stands, which may hold a password.
        message = f"the format {adapter!r} in this source is not read by this version"
        raise UnsupportedError(message, hint=f"it reads {', '.join(name for name in _FORMATS if name)}")
    return _FORMATS[adapter]


def _path_of_file_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        message = f"{url!r} is not a file on this machine"
        raise UnsupportedError(message, hint="file URLs look like file:///folder/name, with # and ? as %23 and %3F")
    return unquote(parts.path)
