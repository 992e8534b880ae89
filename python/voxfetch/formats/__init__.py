"""Formats beside Zarr: each module finds its documents at a place and turns them into a `Node`.

`find` asks them one after another; the documents of all have been fetched by then, in one round trip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from voxfetch.node import Node, Settings
    from voxfetch.store import Store

__all__ = ["DOCUMENTS", "find"]

#: Format -> the documents that it is recognised by.
DOCUMENTS: dict[str, tuple[str, ...]] = {
    "wkw": ("header.wkw", "datasource-properties.json"),
}


def find(store: Store, path: str, format: str, settings: Settings) -> Node | None:  # noqa: A002 - the public word
    """Returns the node of a format at `path`, None when its documents are not there.

    Raises `MetadataError`, `UnsupportedError`, `LimitExceededError`, `StoreError`.
    """
    from voxfetch.formats import wkw

    finders = {"wkw": wkw.find}
    return finders[format](store, path, settings)
