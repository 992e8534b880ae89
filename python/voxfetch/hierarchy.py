"""The nodes of a hierarchy: the one at a place, and those below it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from voxfetch.errors import NotFoundError, UnsupportedError
from voxfetch.formats import (
    DOCUMENTS,
    find_node,
    hdf5,
    n5_child_names,
    tried,
    wkw_completed,
    wkw_headers,
    wkw_layer_names,
    wkw_listed_layers,
)
from voxfetch.formats.references import with_table
from voxfetch.node import Settings, known_child
from voxfetch.store import check_key, join_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxfetch.node import Format, Node
    from voxfetch.store import Store

__all__ = ["child", "child_names", "open_node", "with_children"]


def open_node(store: Store, path: str = "", *, format: Format | None = None, settings: Settings | None = None) -> Node:  # noqa: A002 - the word of the public names
    """Returns the node at `path`, whichever documents it has; Zarr v3 is preferred where both are.

    Raises `NotFoundError` (with the list of what was tried), `MetadataError`, `LimitExceededError`, `StoreError`.
    """
    check_key(path)
    node = find_node(store, path, format=format, settings=settings or Settings())
    if node is None:
        message = f"nothing that is read is here; tried {tried(format)}"
        raise NotFoundError(
            message, key=join_key(store.url, path), hint="give the folder that holds one of these files"
        )
    return with_table(node)


def child(node: Node, name: str) -> Node:
    """Returns the node at `name` (a path with `/` reaches deeper) below a group.

    Consolidated metadata is used where it knows the child; else the child's own documents are read.
    Raises `NotFoundError`, and what `open_node` raises.
    """
    if node.file is not None:
        return hdf5.child(node.file, node, name)
    name = check_key(name.strip("/"))
    known = known_child(node, name)
    if known is None:
        return open_node(node.store, join_key(node.path, name), settings=node.settings)
    return wkw_completed(known) if known.format == "wkw" else with_table(known)


def with_children(node: Node, names: Sequence[str]) -> Node:
    """Returns the node with the documents of some children fetched at once, for `child` to find them."""
    if node.file is not None:
        return node
    known = node.consolidated or {}
    unknown = [name for name in names if name not in known]
    keys = [join_key(node.path, name.strip("/"), document) for name in unknown for document in DOCUMENTS[node.format]]
    if node.format == "wkw":
        keys += wkw_headers([known[name] for name in names if name in known])
    return replace(node, store=node.store.ahead(keys)) if keys else node


def child_names(node: Node) -> list[str]:
    """Returns the names of the nodes directly below a group, sorted.

    From consolidated metadata where there is any, else by listing and looking for documents. Raises `UnsupportedError`
    where nobody can tell.
    """
    if node.kind == "array":
        return []
    if node.file is not None:
        return hdf5.child_names(node.file, node)
    if node.format == "wkw" and (layers := wkw_layer_names(node)):
        return layers
    if node.consolidated is not None:
        return sorted({name for name in node.consolidated if "/" not in name})
    if node.format == "n5":
        return n5_child_names(node.store, node.path)
    documents = ("zarr.json",) if node.format == "zarr3" else (".zarray", ".zgroup")
    try:
        names = node.store.list(node.path)
    except UnsupportedError:
        # A WEBKNOSSOS server has no listings, but says which layers a dataset has.
        layers = wkw_listed_layers(node.store, node.path)
        if layers is None:
            raise
        return layers
    return [
        name
        for name in names
        if not name.startswith((".", "__"))
        and any(node.store.exists(join_key(node.path, name, document)) for document in documents)
    ]
