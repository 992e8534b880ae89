"""A node of a hierarchy, an array or a group: which documents it has and what they say of its children.

Store and key prefix go in, a `Node` comes out: format, kind, the document's bytes, attributes. The array document
itself is read by the compiled core; Python parses JSON only for attributes and groups. Formats beside Zarr are in
`voxfetch.formats`. Sources: Zarr v3 core spec 3.1
("Metadata"), Zarr v2 spec ("Metadata", "Hierarchies"), consolidated metadata as zarr-python writes it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from voxfetch import formats
from voxfetch.errors import LimitExceededError, MetadataError, NotFoundError, PermissionDeniedError
from voxfetch.formats import DOCUMENTS
from voxfetch.options import ReadOptions
from voxfetch.store import MAX_DOCUMENT_NBYTES, Store, check_key, join_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from voxfetch.engine import Engine
    from voxfetch.ngff import Multiscale

__all__ = [
    "Described",
    "Format",
    "Node",
    "Settings",
    "child",
    "child_names",
    "document_name",
    "find_node",
    "inside",
    "open_node",
    "parse_json",
    "with_children",
]

Format = Literal["zarr3", "zarr2", "n5", "precomputed", "wkw"]
Kind = Literal["array", "group"]

MAX_DOCUMENT_DEPTH = 64
"""Nesting of JSON values in a document."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the arrays below a node are read and written; handed from parent to child."""

    mode: Literal["r", "r+"] = "r"
    read_options: ReadOptions = field(default_factory=ReadOptions)
    dimension_separator: str | None = None
    engine: Engine | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """An array or a group and its documents.

    `path` is its key prefix in `store` ("" for the root), `document` the bytes of `zarr.json`, `.zarray` or `.zgroup`,
    `attributes` the user's attributes, `consolidated` what the metadata of this node or of one above says of the nodes
    below (path relative to this node -> node), None when there is no such metadata, `multiscale` the image that a group
    is where its format, and not its attributes, says so.
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
    """Returns the name of the file that describes a node."""
    if format == "wkw":
        return DOCUMENTS[format][0 if kind == "array" else -1]
    if format in DOCUMENTS:
        return DOCUMENTS[format][0]
    return "zarr.json" if format == "zarr3" else f".z{kind}"


def open_node(store: Store, path: str = "", *, format: Format | None = None, settings: Settings | None = None) -> Node:  # noqa: A002 - the word of the public names
    """Returns the node at `path`, whichever documents it has; Zarr v3 is preferred where both are.

    Raises `NotFoundError` (with the list of what was tried), `MetadataError`, `LimitExceededError`, `StoreError`.
    """
    check_key(path)
    node = find_node(store, path, format=format, settings=settings or Settings())
    if node is None:
        formats_tried: tuple[Format, ...] = (format,) if format else _FORMATS
        tried = [name for known in formats_tried for name in _documents(known)]
        message = f"nothing that is read is here; tried {', '.join(tried)}"
        raise NotFoundError(
            message, key=join_key(store.url, path), hint="give the folder that holds one of these files"
        )
    return node


_ZARR2 = (".zarray", ".zgroup", ".zattrs", ".zmetadata")
_FORMATS: tuple[Format, ...] = ("zarr3", "zarr2", "n5", "precomputed", "wkw")


def _documents(format: Format) -> tuple[str, ...]:  # noqa: A002
    """The files by which a node of a format is found."""
    return ("zarr.json",) if format == "zarr3" else _ZARR2 if format == "zarr2" else DOCUMENTS[format]


def find_node(store: Store, path: str, *, format: Format | None, settings: Settings) -> Node | None:  # noqa: A002
    """Returns the node at `path`, None when there is none. Raises like `open_node`."""
    refused: PermissionDeniedError | None = None
    if format in (None, "zarr3"):
        # Stores that hide their listing answer "forbidden" for what does not exist: it means "not this one" here.
        document = store.get_many([join_key(path, "zarr.json")])[0]
        if isinstance(document, bytes):
            return _node_zarr3(store, path, document, settings)
        refused = document
    others: list[Format] = [name for name in _FORMATS[1:] if format in (None, name)]
    # What the others need is fetched in one round trip.
    near = store.ahead([join_key(path, name) for other in others for name in _documents(other)]) if others else store
    for other in others:
        node = _find_zarr2(near, path, settings) if other == "zarr2" else formats.find(near, path, other, settings)
        if node is not None:
            return node
    if refused is not None:
        raise refused
    return None


def child(node: Node, name: str) -> Node:
    """Returns the node at `name` (a path with `/` reaches deeper) below a group.

    Consolidated metadata is used where it knows the child; else the child's own documents are read.
    Raises `NotFoundError`, and what `open_node` raises.
    """
    name = check_key(name.strip("/"))
    path = join_key(node.path, name)
    if name and node.consolidated is not None and (described := node.consolidated.get(name)) is not None:
        prefix = f"{name}/"
        below = {key.removeprefix(prefix): value for key, value in node.consolidated.items() if key.startswith(prefix)}
        return Node(
            store=node.store,
            path=path if described.path is None else described.path,
            format=described.format,
            kind=described.kind,
            document=_dump(described.document, join_key(node.url, name)),
            attributes=described.attributes,
            consolidated=below,
            settings=node.settings,
            multiscale=described.multiscale,
        )
    return open_node(node.store, path, settings=node.settings)


def with_children(node: Node, names: Sequence[str]) -> Node:
    """Returns the node with the documents of some children fetched at once, for `child` to find them."""
    unknown = [name for name in names if node.consolidated is None or name not in node.consolidated]
    documents = _documents(node.format)
    if not unknown:
        return node
    keys = [join_key(node.path, name.strip("/"), document) for name in unknown for document in documents]
    return replace(node, store=node.store.ahead(keys))


def child_names(node: Node) -> list[str]:
    """Returns the names of the nodes directly below a group, sorted.

    From consolidated metadata where there is any, else by listing and looking for documents.
    """
    if node.kind == "array":
        return []
    if node.consolidated is not None:
        return sorted({name for name in node.consolidated if "/" not in name})
    if node.format == "n5":
        return formats.n5_child_names(node.store, node.path)
    documents = ("zarr.json",) if node.format == "zarr3" else (".zarray", ".zgroup")
    return [
        name
        for name in node.store.list(node.path)
        if not name.startswith((".", "__"))
        and any(node.store.exists(join_key(node.path, name, document)) for document in documents)
    ]


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


def _node_zarr3(store: Store, path: str, document: bytes, settings: Settings) -> Node:
    key = join_key(store.url, path, "zarr.json")
    value = parse_json(document, key)
    described = _described_zarr3(value, key)
    consolidated: dict[str, Described] | None = None
    if described.kind == "group":
        consolidated = _consolidated_zarr3(value.get("consolidated_metadata"), key)
    return Node(store, path, "zarr3", described.kind, document, described.attributes, consolidated, settings)


def _described_zarr3(value: Mapping[str, Any], key: str) -> Described:
    if value.get("zarr_format") != 3:
        raise MetadataError(f"zarr_format: expected 3, not {_short(value.get('zarr_format'))}", key=key)
    kind = value.get("node_type")
    if kind not in ("array", "group"):
        raise MetadataError(f'node_type: expected "array" or "group", not {_short(kind)}', key=key)
    return Described("zarr3", kind, value, _attributes(value.get("attributes", {}), key))


def _consolidated_zarr3(value: object, key: str) -> dict[str, Described] | None:
    # Some writers leave `null` here, which says nothing about the children.
    if value is None:
        return None
    what = _object(value, key, "consolidated_metadata")
    if what.get("kind", "inline") != "inline":
        return None
    nodes: dict[str, Described] = {}
    for name, document in _object(what.get("metadata"), key, "consolidated_metadata.metadata").items():
        node = _object(document, key, f"consolidated_metadata.metadata[{name[:100]!r}]")
        if node.get("zarr_format") == 2:
            kind: Kind = "array" if "shape" in node else "group"
            found = Described("zarr2", kind, node, _attributes(node.get("attributes", {}), key))
        else:
            found = _described_zarr3(node, f"{key}: consolidated_metadata[{name[:100]!r}]")
        nodes[inside(name, key)] = found
    nodes.pop("", None)
    return nodes


def _find_zarr2(store: Store, path: str, settings: Settings) -> Node | None:
    found = dict(zip(_ZARR2, store.get_many([join_key(path, name) for name in _ZARR2]), strict=True))
    document = found[".zarray"]
    kind: Kind = "array"
    consolidated: dict[str, Described] | None = None
    attributes: Mapping[str, Any] | None = None
    if not isinstance(document, bytes):
        kind = "group"
        document = found[".zgroup"]
        root: Described | None = None
        if isinstance(below := found[".zmetadata"], bytes):
            consolidated, root = _consolidated_zarr2(below, join_key(store.url, path, ".zmetadata"))
        if not isinstance(document, bytes):
            if root is None:
                _raise_refused(found.values())
                return None
            document, attributes = _dump(root.document, join_key(store.url, path, ".zmetadata")), root.attributes
    key = join_key(store.url, path, f".z{kind}")
    if kind == "group":
        _check_format2(parse_json(document, key), key)
    if attributes is None:
        attributes_document = found[".zattrs"]
        attributes = {}
        if isinstance(attributes_document, bytes):
            attributes = parse_json(attributes_document, join_key(store.url, path, ".zattrs"))
    return Node(store, path, "zarr2", kind, document, attributes, consolidated, settings)


def _raise_refused(found: Iterable[bytes | PermissionDeniedError | None]) -> None:
    refused = [error for error in found if isinstance(error, PermissionDeniedError)]
    if refused:
        raise refused[0]


def _consolidated_zarr2(document: bytes, key: str) -> tuple[dict[str, Described], Described | None]:
    """Returns the nodes below and the node itself as `.zmetadata` describes them."""
    entries = _object(parse_json(document, key).get("metadata"), key, "metadata")
    nodes: dict[str, Described] = {}
    for name, value in entries.items():
        parent, _, last = name.rpartition("/")
        if last not in (".zarray", ".zgroup"):
            continue
        kind: Kind = "array" if last == ".zarray" else "group"
        attributes = _attributes(entries.get(join_key(parent, ".zattrs"), {}), key)
        nodes[inside(parent, key)] = Described("zarr2", kind, _object(value, key, name[:200]), attributes)
    return nodes, nodes.pop("", None)


def inside(name: str, key: str) -> str:
    """Returns the path of a node in the document at `key`. Raises `MetadataError` if it leads out of its group."""
    try:
        return check_key(name.strip("/"))
    except MetadataError as error:
        error.in_object(key)
        raise


def _check_format2(value: Mapping[str, Any], key: str) -> None:
    if value.get("zarr_format") != 2:
        raise MetadataError(f"zarr_format: expected 2, not {_short(value.get('zarr_format'))}", key=key)


def _attributes(value: object, key: str) -> dict[str, Any]:
    return _object(value, key, "attributes")


def _object(value: object, key: str, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MetadataError(f"{where}: a JSON object was expected, not {_short(value)}", key=key)
    return cast("dict[str, Any]", value)


def _short(value: object) -> str:
    return "missing" if value is None else repr(value)[:80]


def _dump(document: Mapping[str, Any], key: str) -> bytes:
    try:
        return json.dumps(document, allow_nan=False).encode()
    except ValueError as error:
        raise MetadataError(f"not a JSON document: {error}", key=key) from None
