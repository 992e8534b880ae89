"""Zarr v2 and v3: the node at a path, from its own documents or from consolidated metadata.

Sources: Zarr v3 core spec 3.1 ("Metadata"), Zarr v2 spec ("Metadata", "Hierarchies"), consolidated metadata as
zarr-python writes it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from voxfetch.errors import MetadataError, PermissionDeniedError, UnsupportedError
from voxfetch.node import Described, Node, inside, parse_json
from voxfetch.store import join_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from voxfetch.node import Kind, Settings
    from voxfetch.store import Store

__all__ = ["find_zarr2", "node_zarr3"]

_ZARR2 = (".zarray", ".zgroup", ".zattrs", ".zmetadata")


def node_zarr3(store: Store, path: str, document: bytes, settings: Settings) -> Node:
    """Returns the node that a `zarr.json` describes. Raises `MetadataError`, `LimitExceededError`."""
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


def find_zarr2(store: Store, path: str, settings: Settings) -> Node | None:
    """Returns the Zarr v2 node at `path`, None when there is none. Raises like `formats.find_node`."""
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
    value = parse_json(document, key)
    if "record_size" in value:
        # Chunks lie where files beside this one say; to Zarr all of them would seem to be missing.
        message = "references of kerchunk in parquet, which this version does not read"
        raise UnsupportedError(message, key=key, hint="write them as JSON first")
    entries = _object(value.get("metadata"), key, "metadata")
    nodes: dict[str, Described] = {}
    for name, value in entries.items():
        parent, _, last = name.rpartition("/")
        if last not in (".zarray", ".zgroup"):
            continue
        kind: Kind = "array" if last == ".zarray" else "group"
        attributes = _attributes(entries.get(join_key(parent, ".zattrs"), {}), key)
        nodes[inside(parent, key)] = Described("zarr2", kind, _object(value, key, name[:200]), attributes)
    return nodes, nodes.pop("", None)


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
