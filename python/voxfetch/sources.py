"""What a caller names as a source -> the node that lies there.

A source is a path, a URL or an object of another library. URLs may say the format before (`zarr3://PATH`) or after
(`URL|zarr3:path/inside`). `URL|zip:path/inside` lies in a ZIP archive; a URL that ends in `.zip` or `.ozx`, and a file
that is an archive, need no `|zip:`. `URL|hdf5:path/inside` is a dataset or a group in an HDF5 file, `URL|b2nd:` an
array of Blosc2; both are found by the name of a URL and by what is in a file. In the same way
`URL|kerchunk:path/inside` lies where a document with references says, which `.json` at the end says as well, and
`PATH|icechunk:path/inside` in a repository of icechunk. `bossdb://collection/experiment/channel` is a channel of
BossDB; behind `bossdb://` may stand the URL of another server.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast
from urllib.parse import unquote, urlsplit, urlunsplit

from voxfetch.documents import RemoteDocuments
from voxfetch.engine import Engine
from voxfetch.errors import NotFoundError, UnsupportedError
from voxfetch.formats import b2nd, hdf5
from voxfetch.formats.icechunk import is_repository, repository_store
from voxfetch.hierarchy import open_node
from voxfetch.node import Format, Node, Revision, Settings
from voxfetch.options import ReadOptions, StoreOptions
from voxfetch.store import check_key, join_key
from voxfetch.store.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from voxfetch.store import RemoteStore

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
    "b2nd": "b2nd",
    "hdf5": "hdf5",
    # What these hold is found out.
    "kerchunk": None,
    "icechunk": None,
    "bossdb": "bossdb",
}
Container = Literal["zip", "kerchunk", "icechunk"]
Options: TypeAlias = "StoreOptions | Mapping[str, Any] | None"
_CONTAINER = re.compile(r"\|(zip|kerchunk|icechunk):")
_CONTAINER_SCHEME = re.compile(r"(kerchunk|icechunk)://", re.IGNORECASE)
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_ADAPTER = re.compile(r"\|([a-z][a-z0-9-]*):([^|]*)$")
_B2ND = re.compile(r"[^?#]*\.b2nd(?:[?#].*)?", re.IGNORECASE | re.DOTALL)
_HDF5 = re.compile(r"[^?#]*\.(?:h5|hdf5|hdf|he5|ims|nwb|nc)(?:[?#].*)?", re.IGNORECASE | re.DOTALL)
#: The server of a channel whose URL names none.
_BOSSDB = "https://api.bossdb.io/"
_ARCHIVE = re.compile(r"[^?#]*\.(?:zip|ozx)(?:[?#].*)?", re.IGNORECASE | re.DOTALL)
_REFERENCES = re.compile(r"[^?#]*\.json(?:[?#].*)?", re.IGNORECASE | re.DOTALL)
_REVISIONS: tuple[Revision, ...] = ("branch", "tag", "snapshot")


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
    tables = left.pop("chunk_tables", None)
    allowed = left.pop("allowed_prefixes", ())
    revisions: list[tuple[Revision, Any]] = [(name, left.pop(name)) for name in _REVISIONS if name in left]
    if left:
        message = f"unknown format_options: {', '.join(map(repr, left))}"
        known = 'Zarr v2 knows "dimension_separator", HDF5 "chunk_tables", kerchunk "allowed_prefixes", '
        raise UnsupportedError(message, hint=f'{known}icechunk "branch", "tag" and "snapshot"')
    if tables is not None and not isinstance(tables, (str, os.PathLike)):
        raise TypeError(f"chunk_tables must be the path of a folder, not {type(tables).__name__}")
    if separator not in (None, ".", "/"):
        raise ValueError(f'dimension_separator must be "." or "/", not {separator!r}')
    if isinstance(allowed, str) or not all(isinstance(prefix, str) for prefix in allowed):
        raise TypeError("allowed_prefixes must be a list of str")
    if len(revisions) > 1 or not all(isinstance(name, str) and name for _, name in revisions):
        raise ValueError('one of "branch", "tag" and "snapshot", with its name')
    return Settings(
        mode,
        read_options or ReadOptions(),
        separator,
        chunk_tables=None if tables is None else os.path.abspath(os.fspath(cast("str", tables))),  # noqa: PTH100
        engine=engine,
        allowed_prefixes=tuple(allowed),
        revision=revisions[0] if revisions else ("branch", "main"),
    )


def node_of(
    source: object,
    path: str | None,
    *,
    format: str | None,  # noqa: A002
    settings: Settings,
    options: Options = None,
) -> Node:
    """Returns the node at a source, or at `path` inside it. Raises like `open_node`, and `UnsupportedError`."""
    if format not in _FORMATS:
        message = f"format {format!r} is not read by this version"
        raise UnsupportedError(message, hint=f"it reads {', '.join(name for name in _FORMATS if name)}")
    if isinstance(source, dict):
        asked = _Asked("kerchunk", (path or "").strip("/"), _FORMATS[format], settings, options)
        return _node_in_references(_document_of(cast("dict[str, Any]", source)), asked)
    source, container = _without_container(source)
    if format in ("kerchunk", "icechunk"):
        container = cast("Container", format)
    source, inside, implied = _without_adapters(source)
    inside = join_key(inside, (path or "").strip("/"))
    asked = _Asked(container, inside, _FORMATS[format] or implied, settings, options)
    if container == "icechunk":
        return _node_in_repository(source, asked)
    if asked.format == "bossdb":
        return _node_of_boss(source, asked)
    is_path = isinstance(source, str) and not _is_url(source)
    node = None if is_path else _node_afar(source, asked)
    return _node_on_disk(source, asked) if node is None else node


class _Asked(NamedTuple):
    """What of a source is wanted: `inside` is a key in it, `container` what it is said to be."""

    container: Container | None
    inside: str
    format: Format | None
    settings: Settings
    options: Options

    def node(self, remote: RemoteStore, inside: str) -> Node:
        """Returns the node at a key in a remote store."""
        documents = RemoteDocuments(remote, self.settings.engine)
        return open_node(documents, check_key(inside), format=self.format, settings=self.settings)


def _node_afar(source: object, asked: _Asked) -> Node | None:
    """The node in a remote store, None when the source is local."""
    if asked.container == "kerchunk" or (asked.container is None and _names_references(source)):
        document = _remote_document(source, asked.options)
        return None if document is None else _node_in_references(document, asked)
    remote = _remote(source, asked.options, asked.inside)
    if remote is None:
        return None
    if asked.container == "zip" or _names_archive(source):
        return _node_in_archive(remote[0], asked._replace(inside=remote[1]))
    store = RemoteDocuments(remote[0], asked.settings.engine)
    return _remote_node(source, store, asked._replace(inside=check_key(remote[1])))


def _node_on_disk(source: object, asked: _Asked) -> Node:
    folder, within = _local_folder(source)
    asked = asked._replace(inside=join_key(within, asked.inside))
    follows = not isinstance(asked.options, StoreOptions) or asked.options.follow_links
    store = LocalStore(folder, None if follows else os.path.realpath(folder))
    container = asked.container
    if not os.path.isdir(folder):  # noqa: PTH112 - str in, str out
        node = _node_in_file(folder, asked)
        if node is not None:
            return node
        if os.path.exists(folder):  # noqa: PTH110
            message = "this is a file; this version reads folders, ZIP archives, HDF5, b2nd and references in JSON"
            raise UnsupportedError(message, key=folder, hint="unpack it, or give the folder that holds zarr.json")
        # A folder that may not be looked into seems not to exist: asking for a document tells the two apart.
        store.get("zarr.json")
        message = f"there is no such {'folder' if container is None else 'file'}"
        raise NotFoundError(message, key=folder, hint=f"a relative path is taken from {os.getcwd()}")  # noqa: PTH109
    if container == "zip":
        raise UnsupportedError("this is a folder and not an archive", key=folder, hint="leave |zip: out")
    if asked.format == "b2nd" or (_B2ND.fullmatch(folder) and store.exists(b2nd.SPARSE)):
        message = "this is a folder; arrays of b2nd are read from one file"
        raise UnsupportedError(message, key=folder, hint=b2nd.COPY)
    if asked.format == "hdf5":
        raise UnsupportedError("this is a folder and not an HDF5 file", key=folder, hint="give the file")
    if container == "kerchunk":
        message = "this is a folder and not a JSON document with references"
        raise UnsupportedError(message, key=folder, hint="references in parquet have to be written as JSON first")
    try:
        return open_node(store, check_key(asked.inside), format=asked.format, settings=asked.settings)
    except NotFoundError:
        if not is_repository(folder):
            raise
    return _node_in_repository(folder, asked)


def _node_in_file(path: str, asked: _Asked) -> Node | None:
    """The node in a file, whose path may have a path in it at its end; None when there is none that is read."""
    from voxfetch.store.file import FileStore, is_zip

    file, within = _file_above(path)
    if not os.path.isfile(file):  # noqa: PTH113
        return None
    asked = asked._replace(inside=join_key(within, asked.inside))
    if asked.container == "kerchunk" or (asked.container is None and _names_references(file)):
        return _node_in_references((FileStore(file), ""), asked)
    if asked.container == "zip" or _names_archive(file) or (asked.format not in {"b2nd", "hdf5"} and is_zip(file)):
        return _node_in_archive(FileStore(file), asked)
    folder, name = os.path.split(file)
    if asked.format == "b2nd" or (asked.format is None and b2nd.is_b2nd(file)):
        if asked.inside:
            raise NotFoundError(f"there is no {asked.inside[:200]!r} in an array", key=file, hint="give the file alone")
        return b2nd.find(LocalStore(folder), name, asked.settings)
    if asked.format == "hdf5" or (asked.format is None and hdf5.is_hdf5(file)):
        found = hdf5.Hdf5File(LocalStore(folder), name, asked.settings.chunk_tables)
        return hdf5.find(found, asked.inside, asked.settings)
    return None


def is_remote(source: object) -> bool:
    """Returns whether opening a source has to wait for a network, or for the I/O thread, as archives on disk do."""
    source, container = _without_container(source)
    source, _, _ = _without_adapters(source)
    if not isinstance(source, str):
        return not isinstance(source, os.PathLike)
    return (
        container is not None
        or _is_url(source)
        or _names_archive(source)
        or _names_references(source)
        or _HDF5.fullmatch(source) is not None
    )


def local_folder(source: object) -> tuple[str, str, Format | None]:
    """Returns (absolute path, key inside, format or None) of a source. Raises `UnsupportedError` if it is not local."""
    source, container = _without_container(source)
    if container is not None:
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


def _without_container(source: object) -> tuple[object, Container | None]:
    """Returns a source and what it lies in by its `|zip:`, instead of which it then has `|zarr:`.

    What follows is a path inside in both cases, and that says nothing of the format.
    """
    text = str(source) if isinstance(source, PurePath) else source
    if not isinstance(text, str):
        return source, None
    container: str | None = None
    if (scheme := _CONTAINER_SCHEME.match(text)) is not None:
        source, text, container = text[scheme.end() :], text[scheme.end() :], scheme[1].lower()
    if (adapter := _CONTAINER.search(text)) is not None:
        before, inside = text[: adapter.start()], text[adapter.end() :]
        if container not in (None, adapter[1]) or _CONTAINER.search(inside) or _ADAPTER.search(before):
            # Without the URL in which it stands, which may hold a password.
            message = "an archive within another, or in an array"
            raise UnsupportedError(message, hint=f"take it out: |{adapter[1]}: follows the path or URL of a file")
        source, container = f"{before}|zarr:{inside}", adapter[1]
    return source, cast("Container | None", container)


def _remote_node(source: object, store: RemoteDocuments, asked: _Asked) -> Node:
    """The node at a key of a remote store, which may be in an HDF5 file there, or an array of Blosc2."""
    wanted, path, settings = asked.format, asked.inside, asked.settings
    file, inside = ("", path) if isinstance(source, str) else _file_in(path)
    name = source if isinstance(source, str) else file
    named = _HDF5.fullmatch(name) is not None
    found = hdf5.Hdf5File(store, file, settings.chunk_tables)
    # A folder may be called like a file.
    try:
        if wanted == "b2nd" or (wanted is None and _B2ND.fullmatch(name) is not None):
            return b2nd.find(store, path, settings)
        if wanted == "hdf5" or (wanted is None and named):
            return hdf5.find(found, inside, settings)
    except NotFoundError:
        if wanted is not None or found.was_read:
            raise
    if wanted is not None or named:
        return open_node(store, path, format=wanted, settings=settings)
    beginning = hdf5.beginning_of(file)
    try:
        with store.looking_at(beginning) as documents:
            return open_node(documents, path, settings=settings)
    except NotFoundError:
        if not hdf5.begins_hdf5(beginning):
            raise
        return hdf5.find(found, inside, settings)


def _file_in(path: str) -> tuple[str, str]:
    """Takes a key apart behind the part that names an HDF5 file: (file, path inside); without one all is the file."""
    parts = path.split("/")
    count = next((i for i, part in enumerate(parts, 1) if _HDF5.fullmatch(part) is not None), len(parts))
    return "/".join(parts[:count]), "/".join(parts[count:])


def _names_archive(source: object) -> bool:
    """Whether a path or URL is that of an archive by its name; with a slash at its end it names a folder."""
    return isinstance(source, str) and _ARCHIVE.fullmatch(source) is not None


def _names_references(source: object) -> bool:
    """Whether a path or URL is that of a document with references by its name."""
    return isinstance(source, str) and _REFERENCES.fullmatch(source) is not None


def _file_above(path: str) -> tuple[str, str]:
    """Takes off the end of a path what does not exist: (the rest, what was taken off as a key)."""
    inside = ""
    while not os.path.lexists(path) and os.path.dirname(path) != path:  # noqa: PTH120
        path, name = os.path.split(path)
        inside = join_key(name, inside)
    return path, inside


def _node_in_archive(archive: RemoteStore, asked: _Asked) -> Node:
    from voxfetch.store.zip import ZipStore

    store = ZipStore(archive)
    try:
        return asked.node(store, asked.inside)
    except NotFoundError as error:
        with suppress(NotFoundError):
            names = RemoteDocuments(store, asked.settings.engine).list(asked.inside)
            shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            what = f"it holds: {shown}" if names else "there is nothing"
            error.hint = f"{what}; `ARCHIVE|zip:PATH` names a path in an archive"
        raise


def _node_in_references(document: tuple[RemoteStore, str], asked: _Asked) -> Node:
    from voxfetch.store.references import ReferenceStore
    from voxfetch.store.targets import Targets

    targets = Targets(document, asked.settings.allowed_prefixes, asked.options)
    return asked.node(ReferenceStore(*document, targets), asked.inside)


def _document_of(references: dict[str, Any]) -> tuple[RemoteStore, str]:
    """A store for references that are no document yet; bytes among them are those of their keys."""
    import json
    from base64 import b64encode

    from voxfetch.store.memory import MemoryStore

    def text(value: object) -> str:
        if isinstance(value, bytes):
            return f"base64:{b64encode(value).decode()}"
        raise TypeError(f"references hold JSON values and bytes, not {type(value).__name__}")

    return MemoryStore({"": json.dumps(references, default=text).encode()}, "references"), ""


def _remote_document(source: object, options: Options) -> tuple[RemoteStore, str] | None:
    """The folder of a document and its name there, None when it lies on this machine."""
    if not isinstance(source, str):
        return _remote(source, options, "")
    parts = urlsplit(source)
    if parts.scheme.lower() in ("http", "https"):
        folder, _, name = parts.path.rpartition("/")
        found, name = _remote(urlunsplit(parts._replace(path=folder)), options, ""), unquote(name)
    else:
        folder, _, name = source.rpartition("/")
        found = _remote(folder, options, "")
    return None if found is None else (found[0], name)


def _node_of_boss(source: object, asked: _Asked) -> Node:
    from voxfetch.store.resolve import boss_store

    if not isinstance(source, str) or not _is_url(source):
        raise UnsupportedError("BossDB is a server", hint="give bossdb://collection/experiment/channel, or its URL")
    remote, channel = boss_store(source, asked.options)
    return asked.node(remote, join_key(channel, asked.inside))


def _node_in_repository(source: object, asked: _Asked) -> Node:
    if not isinstance(source, str | PurePath) or (isinstance(source, str) and _is_url(source)):
        message = "only repositories of icechunk on this machine are opened by their path"
        raise UnsupportedError(message, hint="open it with icechunk, and give the store of a session")
    folder, within = _local_folder(source)
    return asked.node(repository_store(folder, asked.settings.revision), join_key(within, asked.inside))


def _is_url(text: str) -> bool:
    scheme = _SCHEME.match(text)
    return scheme is not None and scheme[1].lower() != "file"


def _remote(source: object, options: Options, path: str) -> tuple[RemoteStore, str] | None:
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
