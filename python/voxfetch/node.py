"""A node of a hierarchy, an array or a group, as a value: its documents and what they say of its children.

Which documents a place has is found by `voxfetch.formats`, what lies below by `voxfetch.hierarchy`. The array document
itself is read by the compiled core; Python parses JSON only for attributes and groups.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from voxfetch.errors import LimitExceededError, MetadataError
from voxfetch.options import ReadOptions
from voxfetch.store import MAX_DOCUMENT_NBYTES, Store, check_key, join_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from voxfetch.engine import Engine
    from voxfetch.formats.hdf5 import Hdf5File
    from voxfetch.ngff import Multiscale
    from voxfetch.table import ChunkTable

__all__ = [
    "Described",
    "Format",
    "Kind",
    "Node",
    "Revision",
    "Settings",
    "document_name",
    "inside",
    "known_child",
    "parse_json",
]

Format = Literal["zarr3", "zarr2", "n5", "precomputed", "wkw", "b2nd", "hdf5", "bossdb"]
Kind = Literal["array", "group"]
Revision = Literal["branch", "tag", "snapshot"]

MAX_DOCUMENT_DEPTH = 64
"""Nesting of JSON values in a document."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the arrays below a node are read and written; handed from parent to child.

    `allowed_prefixes` are URLs and folders that references may lead to, `revision` which one of a repository is read:
    ("branch" | "tag" | "snapshot", its name).
    """

    mode: Literal["r", "r+"] = "r"
    read_options: ReadOptions = field(default_factory=ReadOptions)
    dimension_separator: str | None = None
    chunk_tables: str | None = None
    engine: Engine | None = None
    allowed_prefixes: tuple[str, ...] = ()
    revision: tuple[Revision, str] = ("branch", "main")


@dataclass(frozen=True, slots=True)
class Node:
    """An array or a group and its documents.

    `path` is its key prefix in `store` ("" for the root), `document` the bytes of `zarr.json`, `.zarray` or `.zgroup`,
    `attributes` the user's attributes, `consolidated` what the metadata of this node or of one above says of the nodes
    below (path relative to this node -> node), None when there is no such metadata, `multiscale` the image that a group
    is where its format, and not its attributes, says so, `table` where the chunks of an array lie if no key says,
    `axes` the names of its axes where its document does not tell them, `file` the HDF5 file that a group is in.
    """

    store: Store
    path: str
    format: Format
    kind: Kind
    document: bytes
    attributes: Mapping[str, Any]
    consolidated: Mapping[str, Described] | None = None
    settings: Settings = field(default_factory=Settings)
    multiscale: Multiscale | None = None
    table: ChunkTable | None = None
    axes: tuple[str, ...] | None = None
    file: Hdf5File | None = None

    @property
    def name(self) -> str:
        """Last part of the path; for the root the last part of the store's URL."""
        return (self.path or self.store.url).rsplit("/", 1)[-1]

    @property
    def url(self) -> str:
        """URL of the node."""
        return join_key(self.store.url, self.path)

    @property
    def document_name(self) -> str:
        """Name of the file that `document` came from."""
        return document_name(self.format, self.kind)


@dataclass(frozen=True, slots=True)
class Described:
    """A node as consolidated metadata describes it, or the document of a format that describes all of its nodes.

    `path` is its key prefix in the store, where that does not follow from its name.
    """

    format: Format
    kind: Kind
    document: Mapping[str, Any]
    attributes: Mapping[str, Any]
    multiscale: Multiscale | None = None
    path: str | None = None


def document_name(format: Format, kind: Kind) -> str:  # noqa: A002 - the word of the public names
    """Returns the name of the file that describes a node, "" where that is the file which all of them are in."""
    if format in {"b2nd", "hdf5"}:
        return ""
    if format == "wkw":
        return "header.wkw" if kind == "array" else "datasource-properties.json"
    names = {"zarr3": "zarr.json", "zarr2": f".z{kind}", "n5": "attributes.json", "precomputed": "info"}
    return names.get(format, "channel")


def known_child(node: Node, name: str) -> Node | None:
    """Returns the node at `name` (a path with `/` reaches deeper) below a group, None when `consolidated` lacks it."""
    consolidated = node.consolidated or {}
    described = consolidated.get(name)
    if not name or described is None:
        return None
    prefix = f"{name}/"
    below = {key.removeprefix(prefix): value for key, value in consolidated.items() if key.startswith(prefix)}
    return Node(
        store=node.store,
        path=join_key(node.path, name) if described.path is None else described.path,
        format=described.format,
        kind=described.kind,
        document=_dump(described.document, join_key(node.url, name)),
        attributes=described.attributes,
        consolidated=below,
        settings=node.settings,
        multiscale=described.multiscale,
    )


def parse_json(document: bytes, key: str) -> dict[str, Any]:
    """Parses a metadata document that must be a JSON object.

    Raises `MetadataError` for anything else, `LimitExceededError` past 16 MiB or 64 levels of nesting.
    """
    if len(document) > MAX_DOCUMENT_NBYTES:
        message = f"a metadata document of {len(document):,} bytes; the limit is {MAX_DOCUMENT_NBYTES:,}"
        raise LimitExceededError(message, key=key)
    try:
        value: object = json.loads(document.decode("utf-8"))
    except RecursionError:
        raise _too_deep(key) from None
    except ValueError as error:
        # A page for people (sign in, not found) tells best by its beginning what it is.
        message = f"not a JSON document, it begins with {document[:80]!r}: {str(error)[:200]}"
        raise MetadataError(message, key=key) from None
    _check_depth(value, key)
    if not isinstance(value, dict):
        raise MetadataError(f"a JSON object was expected, not {type(value).__name__}", key=key)
    return cast("dict[str, Any]", value)


def _check_depth(value: object, key: str) -> None:
    level: list[object] = [value]
    for _ in range(MAX_DOCUMENT_DEPTH + 1):
        deeper: list[object] = []
        for item in level:
            if isinstance(item, dict):
                deeper.extend(cast("dict[str, object]", item).values())
            elif isinstance(item, list):
                deeper.extend(cast("list[object]", item))
        if not deeper:
            return
        level = deeper
    raise _too_deep(key)


def _too_deep(key: str) -> LimitExceededError:
    return LimitExceededError(f"JSON values nested more than {MAX_DOCUMENT_DEPTH} deep", key=key)


def inside(name: str, key: str) -> str:
    """Returns the path of a node in the document at `key`. Raises `MetadataError` if it leads out of its group."""
    try:
        return check_key(name.strip("/"))
    except MetadataError as error:
        error.in_object(key)
        raise


def _dump(document: Mapping[str, Any], key: str) -> bytes:
    try:
        return json.dumps(document, allow_nan=False).encode()
    except ValueError as error:
        raise MetadataError(f"not a JSON document: {error}", key=key) from None
