"""What a document with references may point to: URLs and paths of foreign making -> stores and keys, or a refusal.

A reference is followed only into the folder of the document itself and below the prefixes that the caller allows. A
prefix ends at a part of a path (`s3://bucket` has no part in `s3://bucket-2`). No part of a URL is empty, `.` or `..`,
however it is encoded; a local path is taken for what it is after all links.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from voxfetch.errors import PermissionDeniedError, UnsupportedError, VoxfetchError
from voxfetch.options import StoreOptions
from voxfetch.store import check_key, join_key
from voxfetch.store.file import FileStore
from voxfetch.store.place import is_object_url, parse_place
from voxfetch.store.resolve import remote_store
from voxfetch.store.threads import Threads
from voxfetch.store.urls import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from voxfetch.store import RemoteStore

__all__ = ["Target", "Targets"]

Options = StoreOptions | Mapping[str, Any] | None

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class Target(NamedTuple):
    """An object that is referred to; `shown` is its URL without secrets."""

    store: RemoteStore
    key: str
    shown: str


class _Place(NamedTuple):
    """A URL or path in its parts. `root`: URL of a host or bucket, "" for files; `plain`: there is no more to it."""

    root: str
    parts: tuple[str, ...]
    shown: str
    plain: bool

    def holds(self, other: _Place) -> bool:
        return self.root == other.root and self.parts == other.parts[: len(self.parts)]


class Targets:
    """Finds the objects that references name. Cheap to make; pickles with what it was made of.

    `document` is the store and the key of the document, `allowed` are URLs and absolute paths of prefixes beside its
    folder, `options` say how stores are reached. Of a remote document they are for stores of its own kind, headers for
    its own host. Raises `ValueError` for prefixes and options that are not understood.
    """

    __slots__ = (
        "_allowed",
        "_document",
        "_files",
        "_folder",
        "_options",
        "_own",
        "_prefixes",
        "_stores",
        "_threads",
        "identity",
    )

    def __init__(self, document: tuple[RemoteStore, str], allowed: Sequence[str] = (), options: Options = None) -> None:
        self._document = document
        self._allowed = tuple(allowed)
        self._options = options
        self._threads = Threads("voxfetch-references")
        self._files: dict[str, FileStore] = {}
        store, key = document
        self._folder = key.rpartition("/")[0]
        # A document that is a store of its own has nothing beside it that the store could name.
        whole = store.url if not key else join_key(store.url, self._folder)
        try:
            self._own = _place_of(whole)
        except VoxfetchError:
            self._own = None
        if self._own is not None and not key:
            self._own = self._own._replace(parts=self._own.parts[:-1])
        self._prefixes = [_prefix(text) for text in self._allowed]
        self._stores = {
            place.root: self._made(place.root, self._options_of(place.root)) for place in self._prefixes if place.root
        }
        self.identity = repr((self._allowed, sorted(one.identity for one in self._stores.values())))
        """Equal for two of them only if they follow the same references in the same way. May hold secrets."""

    def __reduce__(self) -> tuple[Callable[..., Targets], tuple[Any, ...]]:
        return Targets, (self._document, self._allowed, self._options)

    async def find(self, url: str) -> Target:
        """Returns what a reference names. Raises `PermissionDeniedError` for what is not allowed, `MetadataError`."""
        store, key = self._document
        scheme = _SCHEME.match(url)
        if scheme is None and not url.startswith("/"):
            if not isinstance(store, FileStore):
                below = check_key(join_key(self._folder, *_checked(url, url)))
                if not key:
                    raise _refused(below, "a relative reference in a document without a folder")
                return Target(store, below, join_key(store.url, below))
            url = os.path.join(os.path.dirname(store.path), url)  # noqa: PTH118, PTH120 - str in, str out
        place = _place_of(url)
        if not place.root:
            return await self._threads.run(lambda: self._file(place))
        own = self._own
        if own is not None and own.holds(place) and own.parts != place.parts:
            if place.plain and key:
                below = join_key(self._folder, *place.parts[len(own.parts) :])
                return Target(store, below, place.shown)
            return self._direct(url, place, self._options)
        if not any(prefix.holds(place) for prefix in self._prefixes):
            raise _refused(place.shown)
        if not place.plain:
            return self._direct(url, place, self._options_of(place.root))
        return Target(self._stores[place.root], join_key(*place.parts), place.shown)

    def _file(self, place: _Place) -> Target:
        """A file on this machine. Touches the disk."""
        real = os.path.realpath(place.shown)
        folders = [prefix.shown for prefix in self._prefixes if not prefix.root]
        if self._own is not None and not self._own.root:
            folders.append("/" + "/".join(self._own.parts))
        for folder in map(os.path.realpath, folders):
            if real == folder or real.startswith(folder.rstrip("/") + "/"):
                store = self._files.get(real)
                if store is None:
                    store = self._files[real] = FileStore(real, self._threads)
                return Target(store, "", place.shown)
        raise _refused(place.shown)

    def _direct(self, url: str, place: _Place, options: Options) -> Target:
        """An object of a URL with more than a path in it: a store of its own."""
        store = self._stores.get(url) or self._made(url, options)
        self._stores[url] = store
        return Target(store, "", place.shown)

    def _options_of(self, root: str) -> Options:
        """The options for a host or bucket beside the document's."""
        options, own = self._options, self._own
        is_http = root.startswith("http")
        if own is not None and own.root:
            kind = own.root if is_http else own.root.partition("//")[0]
            if kind != (root if is_http else root.partition("//")[0]):
                return None
        if is_http and isinstance(options, StoreOptions):
            return StoreOptions(headers=options.headers, missing_status=options.missing_status)
        return options

    @staticmethod
    def _made(url: str, options: Options) -> RemoteStore:
        found = remote_store(url, options)
        if found is None:
            raise UnsupportedError("a reference to no object store", hint="this version reads http(s), s3, gs and az")
        return found[0]


def _place_of(url: str) -> _Place:
    """Takes an absolute URL or path apart. Raises `UnsupportedError`, of which secrets stay out."""
    scheme = _SCHEME.match(url)
    if scheme is None or scheme[1].lower() == "file":
        return _path_of(url, is_url=scheme is not None)
    if is_object_url(url):
        place = parse_place(url)
        bucket = place._replace(prefix="", sas=None)
        return _Place(bucket.url, tuple(_checked(place.prefix, place.url)), place.url, plain=place.sas is None)
    address = parse(url)
    if address is None:
        message = f"a reference to {scheme[1].lower()}://"
        raise UnsupportedError(message, hint="this version reads file, http(s), s3, gs, az and abfs")
    parts = _checked(unquote(address.path).removeprefix("/"), address.shown)
    is_plain = address.of("") == address._replace(path="").of("/".join(parts)) and address.basic is None
    return _Place(address.origin, tuple(parts), address.shown, plain=is_plain and not address.query)


def _path_of(url: str, *, is_url: bool) -> _Place:
    path = url
    if is_url:
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise UnsupportedError("a reference to a file URL that is not one of this machine")
        path = unquote(parts.path)
    if not path.startswith("/") or "\0" in path:
        raise UnsupportedError(f"{path[:200]!r} is not an absolute path")
    return _Place("", tuple(part for part in path.split("/") if part), path, plain=True)


def _checked(path: str, shown: str) -> list[str]:
    """Parts of a path that stays where it seems to lead."""
    parts = path.split("/") if path else []
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
        raise _refused(shown, "a reference with an empty part, `.`, `..` or a backslash in its path")
    return parts


def _prefix(text: object) -> _Place:
    if not isinstance(text, str):
        raise TypeError(f"allowed_prefixes must be a list of str, not of {type(text).__name__}")
    try:
        place = _place_of(text.rstrip("/") if len(text) > 1 else text)
    except VoxfetchError as error:
        raise ValueError(f"allowed_prefixes: {error}") from None
    if not place.plain:
        raise ValueError("allowed_prefixes: a prefix has no query, user or password; options say how it is reached")
    return place


def _refused(shown: str, message: str = "a reference leads out of the folder of its document") -> PermissionDeniedError:
    hint = 'if you trust the document: format_options={"allowed_prefixes": [a URL or an absolute folder above it]}'
    return PermissionDeniedError(f"{message}, to {shown[:500]}, which is not followed", hint=hint)
