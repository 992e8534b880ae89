"""Folders above a place: a document there may describe what lies below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxfetch.store import join_key
from voxfetch.store.local import LocalStore

if TYPE_CHECKING:
    from voxfetch.store import Store

__all__ = ["above", "around"]


def above(path: str, most: int | None = 2) -> list[str]:
    """Returns the keys of the folders above a key in its store, nearest first, `most` of them (None: all)."""
    parts = path.split("/") if path else []
    return ["/".join(parts[:count]) for count in range(len(parts) - 1, -1, -1)][:most]


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
            found.append((LocalStore(root, store.inside), inside))
    return found
