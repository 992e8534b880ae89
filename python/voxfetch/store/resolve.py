"""What a user names as a source -> the remote store that has it.

Sources: URLs (http, https, s3, gs, az, abfs), store objects of obstore, stores, arrays and groups of zarr-python 3,
file systems, maps and paths of fsspec, objects that follow obspec. What other libraries say about access is translated
to stores of ours where possible, and used through their own interface (`adapters`) where not. Local sources are None.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast
from urllib.parse import unquote, urlsplit

from voxfetch.errors import UnsupportedError
from voxfetch.options import StoreOptions
from voxfetch.store import join_key
from voxfetch.store.fsspec_options import store_options
from voxfetch.store.place import is_object_url, parse_place

if TYPE_CHECKING:
    from voxfetch.store import RemoteStore
    from voxfetch.store.boss import BossStore

__all__ = ["boss_store", "local_source", "remote_store"]

Options = StoreOptions | Mapping[str, Any] | None

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_OBSTORE = {"S3Store", "GCSStore", "AzureStore", "HTTPStore", "LocalStore", "MemoryStore"}
_PROTOCOLS: dict[str, Literal["s3", "gcs", "azure", "http"]] = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "azure"),
    **dict.fromkeys(("http", "https"), "http"),
}
# Settings of obstore's store over HTTP that are all the same here: times and attempts are those of the engine.
_PLAIN_SETTINGS = {"client_options", "retry_config", "allow_http", "timeout", "connect_timeout", "http1_only"}
_SCHEMES = {"s3": "s3", "gcs": "gs", "azure": "az"}
_NATIVE_FILESYSTEMS = {"s3fs": "s3", "gcsfs": "gcs", "adlfs": "azure", "fsspec": "http"}


class _Parts(NamedTuple):
    """A source taken apart: `store` is an object of `library`, `inside` a key in it; a path of a file system or URL."""

    library: Literal["url", "path", "obstore", "zarr", "fsspec", "obspec", "unknown"]
    store: Any
    path: str = ""
    inside: str = ""


def remote_store(source: object, options: Options = None, path: str = "") -> tuple[RemoteStore, str] | None:
    """Returns the store of a source and the key inside it, None when the source is local.

    `path` is a key inside the source; with a file system, which alone names no place, it is the place.
    Raises `UnsupportedError` for what is not known, `ValueError` and `TypeError` for options that are not understood.
    """
    parts = _taken_apart(source)
    if _is_local(parts):
        return None
    if parts.library == "fsspec" and not parts.path:
        parts, path = parts._replace(path=path), ""
    inside = join_key(parts.inside, path)
    if parts.library == "url":
        return _of_url(parts.path, options), inside
    if parts.library == "fsspec":
        return _of_fsspec(parts, options), inside
    if parts.library in {"obstore", "zarr", "obspec"}:
        return _of_object(parts, _only_statuses(options, parts.store)), inside
    message = f"{type(source).__name__} is not a source this version reads"
    raise UnsupportedError(message, hint="give a path, a URL, or an object of zarr, obstore or fsspec")


def boss_store(url: str, options: Options = None) -> tuple[BossStore, str]:
    """Returns the store of the BossDB server of an http(s) URL, and the rest of the URL: the key of a channel there.

    Raises as `remote_store`, `StoreError` for another URL.
    """
    from voxfetch.store.boss import BossStore

    own = options if isinstance(options, StoreOptions) else store_options("http", options or {})
    for name in ("endpoint", "region", "profile"):
        if getattr(own, name) is not None:
            raise ValueError(f"{name} says nothing of a BossDB server")
    parts = urlsplit(url)
    server = parts._replace(path="", query="", fragment="").geturl()
    return BossStore(server, credentials=own.credentials, headers=own.headers), unquote(parts.path).strip("/")


def local_source(source: object) -> tuple[str, str] | None:
    """Returns (path, key inside) of an object of another library that lies on disk, None for all else."""
    parts = _taken_apart(source)
    if parts.library in {"url", "path", "unknown"} or not _is_local(parts):
        return None
    if parts.library == "zarr":
        return str(parts.store.root), parts.inside
    if parts.library == "obstore":
        from voxfetch.store.session import foreign_arguments

        made = foreign_arguments(parts.store)
        return os.fspath(made.args[0] if made.args and made.args[0] is not None else "/"), parts.inside
    return parts.path, parts.inside


# ------------------------------------------------------------------------------------------------------- taking apart


def _taken_apart(source: object) -> _Parts:
    if isinstance(source, str):
        scheme = _SCHEME.match(source)
        return _Parts("path" if scheme is None or scheme[1].lower() == "file" else "url", None, source)
    found = _of_zarr(source) if _comes_from(source, "zarr") else None
    if found is None and (_comes_from(source, "fsspec") or _comes_from(source, "upath")):
        found = _of_filesystem(source)
    if found is not None:
        return found
    if isinstance(source, os.PathLike):
        return _Parts("path", None)
    if _comes_from(source, "obstore") and type(source).__name__ in _OBSTORE:
        return _Parts("obstore", source)
    if hasattr(source, "get_async"):
        return _Parts("obspec", source)
    return _Parts("unknown", source)


def _comes_from(source: object, package: str) -> bool:
    """Whether a class of an object is of a package, which is not imported for that."""
    return any(cls.__module__.partition(".")[0] == package for cls in type(source).__mro__)


def _of_zarr(source: object) -> _Parts | None:
    """A store, or what has one: array, group, path. zarr's wrappers of obstore and fsspec are taken off."""
    whole: Any = getattr(source, "store_path", source)
    inside = ""
    if hasattr(whole, "store") and hasattr(whole, "path") and type(whole).__name__ == "StorePath":
        whole, inside = whole.store, str(whole.path)
    name = type(whole).__name__
    if type(whole).__module__.partition(".")[0] == "zarr":
        if name == "ObjectStore":
            return _taken_apart(whole.store)._replace(inside=inside)
        if name == "FsspecStore":
            return _Parts("fsspec", _unwrapped(whole.fs), str(whole.path), inside)
    is_store = any((cls.__module__, cls.__name__) == ("zarr.abc.store", "Store") for cls in type(whole).__mro__)
    return _Parts("zarr", whole, inside=inside) if is_store else None


def _of_filesystem(source: object) -> _Parts | None:
    """A map or a path of fsspec; a file system alone names no place."""
    one = cast("Any", source)
    if hasattr(one, "fs") and hasattr(one, "path"):
        filesystem, path = one.fs, str(one.path)
    elif hasattr(one, "fs") and hasattr(one, "root"):
        filesystem, path = one.fs, str(one.root)
    elif hasattr(one, "cat_file"):
        filesystem, path = one, ""
    else:
        return None
    while type(filesystem).__name__ == "DirFileSystem":
        filesystem, path = filesystem.fs, join_key(str(filesystem.path).rstrip("/"), path.lstrip("/"))
    return _Parts("fsspec", _unwrapped(filesystem), path)


def _unwrapped(filesystem: Any) -> Any:
    """The blocking file system in a wrapper that runs it in threads of the loop."""
    return filesystem.sync_fs if type(filesystem).__name__ == "AsyncFileSystemWrapper" else filesystem


def _is_local(parts: _Parts) -> bool:
    if parts.library == "fsspec":
        return type(parts.store).__name__ == "LocalFileSystem"
    if parts.library in {"zarr", "obstore"}:
        return type(parts.store).__name__ == "LocalStore"
    return parts.library == "path"


# ------------------------------------------------------------------------------------------------------------- stores


def _of_url(url: str, options: Options) -> RemoteStore:
    if is_object_url(url):
        from voxfetch.store.object import ObjectStore

        kind = parse_place(url).kind
        return ObjectStore(url, options if isinstance(options, StoreOptions) else store_options(kind, options or {}))
    scheme = cast("re.Match[str]", _SCHEME.match(url))[1].lower()
    if scheme in {"http", "https"}:
        return _of_http(url, options if isinstance(options, StoreOptions) else store_options("http", options or {}))
    if scheme == "memory":
        message = "memory:// names what only one process has"
        raise UnsupportedError(message, hint="pass the object that has it: a store of zarr, obstore or fsspec")
    message = f"{scheme}:// sources are not read by this version"
    raise UnsupportedError(message, hint="it reads file, http(s), s3, gs, az and abfs")


def _of_http(url: str, options: StoreOptions) -> RemoteStore:
    from voxfetch.store.http import HttpStore

    for name in ("endpoint", "region", "profile", "credentials"):
        if getattr(options, name) is not None:
            raise ValueError(f"{name} says nothing of an http URL; headers may say who you are")
    return HttpStore(url, headers=options.headers, missing_status=options.missing_status)


def _of_fsspec(parts: _Parts, options: Options) -> RemoteStore:
    """A store of ours for the file systems that we know, with the options they were made with."""
    from voxfetch.store.adapters import AdapterStore
    from voxfetch.store.foreign import FsspecSource

    own = _only_statuses(options, parts.store)
    translated = _translated(parts, own)
    return AdapterStore(FsspecSource(parts.store, parts.path)) if translated is None else translated


def _translated(parts: _Parts, own: StoreOptions) -> RemoteStore | None:
    filesystem = parts.store
    package = type(filesystem).__module__.partition(".")[0]
    protocol = filesystem.protocol if isinstance(filesystem.protocol, str) else filesystem.protocol[0]
    kind = _PROTOCOLS.get(protocol)
    if kind is None or _NATIVE_FILESYSTEMS.get(package) != kind or filesystem.storage_args:
        return None
    url = parts.path if kind == "http" else f"{_SCHEMES[kind]}://{parts.path}"
    try:
        options = store_options(kind, {**filesystem.storage_options, "missing_status": own.missing_status})
        return _of_url(url, options)
    except (ValueError, TypeError, ImportError, UnsupportedError):
        # An option that only this file system knows: it does the reading.
        return None


def _of_object(parts: _Parts, options: StoreOptions) -> RemoteStore:
    from voxfetch.store.adapters import AdapterStore, ObspecStore
    from voxfetch.store.foreign import ZarrSource
    from voxfetch.store.object import ObjectStore

    if parts.library == "obstore":
        return _plain_http(parts.store, options) or ObjectStore(parts.store, options)
    if parts.library == "zarr":
        return _zipped(parts.store) or AdapterStore(ZarrSource(parts.store))
    return ObspecStore(parts.store)


def _plain_http(store: Any, options: StoreOptions) -> RemoteStore | None:
    """A store of ours, which costs less a request, for one of obstore over HTTP that has no settings of its own."""
    if type(store).__name__ != "HTTPStore":
        return None
    from urllib.request import getproxies_environment

    from voxfetch.store.session import foreign_arguments

    if getproxies_environment():
        return None

    made = foreign_arguments(store)
    settings = {**made.kwargs, **cast("dict[str, Any]", made.kwargs.get("client_options") or {})}
    url = str(made.args[0]) if made.args else ""
    parts = urlsplit(url)
    if set(settings) - _PLAIN_SETTINGS or "@" in parts.netloc or parts.query or parts.fragment:
        return None
    return _of_http(url, options)


def _zipped(store: Any) -> RemoteStore | None:
    """A store of ours for an archive that zarr reads from disk, and nobody writes to through that store."""
    path = getattr(store, "path", None)
    if type(store).__name__ != "ZipStore" or not store.read_only or not isinstance(path, PurePath):
        return None
    from voxfetch.store.file import FileStore
    from voxfetch.store.zip import ZipStore

    return ZipStore(FileStore(os.path.abspath(path)))  # noqa: PTH100 - links stay links


def _only_statuses(options: Options, store: object) -> StoreOptions:
    """The options for an object that says itself how it is reached."""
    if isinstance(options, StoreOptions):
        given = {name: value for name in StoreOptions.__slots__ if (value := getattr(options, name)) is not None}
    else:
        given = dict(options or {})
    statuses = given.pop("missing_status", "auto")
    given.pop("follow_links", None)  # of folders
    if given:
        raise ValueError(f"options for a {type(store).__name__} are part of it: {', '.join(map(repr, given))}")
    return StoreOptions(missing_status=statuses)
