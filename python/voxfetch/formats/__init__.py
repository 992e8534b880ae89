"""What lies at a place: each format finds its documents there and turns them into a `Node`.

Formats are asked in an order, Zarr first; what all but the first need is fetched in one round trip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxfetch.errors import MetadataError, PermissionDeniedError, UnsupportedError
from voxfetch.formats import n5, precomputed, wkw, zarr
from voxfetch.store import join_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from voxfetch.errors import VoxfetchError
    from voxfetch.node import Format, Node, Settings
    from voxfetch.store import Store

__all__ = ["DOCUMENTS", "find_node", "n5_child_names"]

#: Format -> the files by which a node of it is found.
DOCUMENTS: dict[Format, tuple[str, ...]] = {
    "zarr3": ("zarr.json",),
    "zarr2": (".zarray", ".zgroup", ".zattrs", ".zmetadata"),
    "precomputed": ("info",),
    "wkw": ("header.wkw", "datasource-properties.json"),
    # Last, because any folder with a document is a group of N5.
    "n5": ("attributes.json", "s0/attributes.json"),
}
_FINDERS: dict[Format, Callable[[Store, str, Settings], Node | None]] = {
    "zarr2": zarr.find_zarr2,
    "precomputed": precomputed.find,
    "wkw": wkw.find,
    "n5": n5.find,
}

n5_child_names = n5.child_names


def find_node(store: Store, path: str, *, format: Format | None, settings: Settings) -> Node | None:  # noqa: A002 - the word of the public names
    """Returns the node at `path`, None when there is none.

    Raises `MetadataError`, `UnsupportedError`, `LimitExceededError`, `PermissionDeniedError`, `StoreError`.
    """
    refused: PermissionDeniedError | None = None
    if format in (None, "zarr3"):
        # Stores that hide their listing answer "forbidden" for what does not exist: it means "not this one" here.
        document = store.get_many([join_key(path, "zarr.json")])[0]
        if isinstance(document, bytes):
            return zarr.node_zarr3(store, path, document, settings)
        refused = document
    others = [(DOCUMENTS[name], find) for name, find in _FINDERS.items() if format in (None, name)]
    near = store.ahead([join_key(path, name) for documents, _ in others for name in documents]) if others else store
    # A document of one format, or that nobody may see, says nothing of the next: it counts if no other fits.
    wrong: VoxfetchError | None = None
    for _, find in others:
        try:
            node = find(near, path, settings)
        except PermissionDeniedError as error:
            refused, node = refused or error, None
        except (MetadataError, UnsupportedError) as error:
            wrong, node = wrong or error, None
        if node is not None:
            return node
    if (problem := wrong or refused) is not None:
        raise problem
    return None
