"""What lies at a place: each format finds its documents there and turns them into a `Node`.

Formats are asked in an order, Zarr first; what all but the first need is fetched in one round trip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxfetch.errors import MetadataError, PermissionDeniedError, UnsupportedError
from voxfetch.formats import bossdb, n5, precomputed, wkw, zarr
from voxfetch.formats.around import above
from voxfetch.store import join_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from voxfetch.errors import VoxfetchError
    from voxfetch.node import Format, Node, Settings
    from voxfetch.store import Store

__all__ = ["DOCUMENTS", "find_node", "n5_child_names", "wkw_layer_names", "wkw_listed_layers"]

#: Format -> the files by which a node of it is found.
DOCUMENTS: dict[Format, tuple[str, ...]] = {
    "zarr3": ("zarr.json",),
    "zarr2": (".zarray", ".zgroup", ".zattrs", ".zmetadata"),
    "precomputed": ("info",),
    "wkw": ("header.wkw", "datasource-properties.json"),
    # Last, because any folder with a document is a group of N5.
    "n5": ("attributes.json", "s0/attributes.json"),
}
#: Of a format, the file by which a folder above describes what lies below it.
_ABOVE: dict[Format, str] = {"precomputed": "info", "wkw": "datasource-properties.json", "n5": "attributes.json"}
_FINDERS: dict[Format, Callable[[Store, str, Settings], Node | None]] = {
    "precomputed": precomputed.find,
    "wkw": wkw.find,
    "n5": n5.find,
}

n5_child_names = n5.child_names
wkw_layer_names = wkw.layer_names
wkw_listed_layers = wkw.listed_layers


def find_node(store: Store, path: str, *, format: Format | None, settings: Settings) -> Node | None:  # noqa: A002 - the word of the public names
    """Returns the node at `path`, None when there is none.

    Raises `MetadataError`, `UnsupportedError`, `LimitExceededError`, `PermissionDeniedError`, `StoreError`.
    """
    if format == "bossdb":
        # A server and no folder: nothing there is found by the name of a file.
        return bossdb.find(store, path, settings)
    # A document of one format, or one that nobody may see, says nothing of the next: it counts if no other fits. Stores
    # that hide their listing answer "forbidden" for what does not exist.
    wrong: list[VoxfetchError] = []
    refused: list[PermissionDeniedError] = []
    if format in (None, "zarr3"):
        document = store.get_many([join_key(path, "zarr.json")])[0]
        if isinstance(document, bytes):
            return zarr.node_zarr3(store, path, document, settings)
        refused += [document] if document is not None else []
    asked: list[Format] = [name for name in DOCUMENTS if name != "zarr3" and format in (None, name)]
    keys = [join_key(path, document) for name in asked for document in DOCUMENTS[name]]
    near = store.ahead(keys) if keys else store
    higher = [join_key(folder, _ABOVE[name]) for folder in above(path) for name in asked if name in _ABOVE]
    for name in asked:
        find = _FINDERS.get(name, zarr.find_zarr2)
        if name in _ABOVE and higher:
            # At once for all that a folder above may describe, when it is no Zarr.
            near, higher = near.ahead([*keys, *higher]), []
        try:
            node = find(near, path, settings)
        except PermissionDeniedError as error:
            refused.append(error)
            continue
        except (MetadataError, UnsupportedError) as error:
            wrong.append(error)
            continue
        if node is not None:
            return node
    for problem in (*wrong, *refused):
        raise problem
    return None
