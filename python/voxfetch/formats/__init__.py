"""Formats beside Zarr: each module finds its documents at a place and turns them into a `Node`.

`find` asks them one after another; the documents of all have been fetched by then, in one round trip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxfetch.store import join_key
from voxfetch.store.local import LocalStore

if TYPE_CHECKING:
    from voxfetch.node import Node, Settings
    from voxfetch.store import Store

__all__ = ["DOCUMENTS", "above", "around", "find", "n5_child_names"]

#: Format -> the documents that it is recognised by.
DOCUMENTS: dict[str, tuple[str, ...]] = {
    "n5": ("attributes.json", "s0/attributes.json"),
    "precomputed": ("info",),
    "wkw": ("header.wkw", "datasource-properties.json"),
}


def find(store: Store, path: str, format: str, settings: Settings) -> Node | None:  # noqa: A002 - the public word
    """Returns the node of a format at `path`, None when its documents are not there.

    Raises `MetadataError`, `UnsupportedError`, `LimitExceededError`, `StoreError`.
    """
    from voxfetch.formats import n5, precomputed, wkw

    finders = {"n5": n5.find, "precomputed": precomputed.find, "wkw": wkw.find}
    return finders[format](store, path, settings)


def n5_child_names(store: Store, path: str) -> list[str]:
    """Returns the names of the nodes directly below a group of N5, which need no document."""
    from voxfetch.formats import n5

    return n5.child_names(store, path)


def above(path: str) -> list[str]:
    """Returns the keys of the two folders above, nearest first: a document may describe what lies below it."""
    parts = path.split("/") if path else []
    return ["/".join(parts[:count]) for count in range(len(parts) - 1, max(len(parts) - 3, -1), -1)]


def around(store: Store, path: str) -> list[tuple[LocalStore, str]]:
    """Returns the two folders on disk that a store lies in, nearest first, each with the key of `path` in it."""
    found: list[tuple[LocalStore, str]] = []
    if isinstance(store, LocalStore):
        root, inside = store.root, path
        for _ in range(2):
            root, _, name = root.rpartition("/")
            if not root:
                break
            inside = join_key(name, inside)
            found.append((LocalStore(root), inside))
    return found
