"""What lies at a place: each format finds its documents there and turns them into a `Node`.

Formats are asked in an order, Zarr first; what all but the first need is fetched in one round trip, also from the
folders above, in which a document may describe what lies below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxfetch.errors import MetadataError, PermissionDeniedError, UnsupportedError, VoxfetchError
from voxfetch.formats import bossdb, hdf5, n5, precomputed, wkw, zarr
from voxfetch.formats.around import above
from voxfetch.store import join_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from voxfetch.node import Format, Node, Settings
    from voxfetch.store import Store

__all__ = [
    "DOCUMENTS",
    "find_node",
    "hdf5",
    "n5_child_names",
    "tried",
    "wkw_completed",
    "wkw_headers",
    "wkw_layer_names",
    "wkw_listed_layers",
]

#: Format -> the files by which a node of it is found.
DOCUMENTS: dict[Format, tuple[str, ...]] = {
    "zarr3": ("zarr.json",),
    "zarr2": (".zarray", ".zgroup", ".zattrs", ".zmetadata"),
    "precomputed": ("info",),
    "wkw": ("header.wkw", "datasource-properties.json"),
    # Last, because any folder with a document is a group of N5.
    "n5": ("attributes.json", "s0/attributes.json"),
    # A server and no folder.
    "bossdb": (),
}
#: Of a format, the file by which a folder above describes what lies below it, and how many folders below at most.
_ABOVE: dict[Format, tuple[str, int | None]] = {
    "precomputed": ("info", 2),
    "wkw": ("datasource-properties.json", 2),
    "n5": ("attributes.json", None),
}
_FINDERS: dict[Format, Callable[[Store, str, Settings], Node | None]] = {
    "precomputed": precomputed.find,
    "wkw": wkw.find,
    "n5": n5.find,
    "bossdb": bossdb.find,
}

n5_child_names = n5.child_names
wkw_completed = wkw.completed
wkw_headers = wkw.headers
wkw_layer_names = wkw.layer_names
wkw_listed_layers = wkw.listed_layers


def find_node(store: Store, path: str, *, format: Format | None, settings: Settings) -> Node | None:  # noqa: A002 - the word of the public names
    """Returns the node at `path`, None when there is none.

    Raises `MetadataError`, `UnsupportedError`, `LimitExceededError`, `PermissionDeniedError`, `StoreError`.
    """
    # A document of one format, or one that nobody may see, says nothing of the next: it counts if no other fits. Stores
    # that hide their listing answer "forbidden" for what does not exist.
    wrong: list[VoxfetchError] = []
    refused: list[PermissionDeniedError] = []
    if format in (None, "zarr3"):
        document = store.get_many([join_key(path, "zarr.json")])[0]
        if isinstance(document, bytes):
            return zarr.node_zarr3(store, path, document, settings)
        refused += [document] if document is not None else []
    asked: list[Format] = [name for name in _asked(format) if name != "zarr3"]
    keys = [join_key(path, document) for name in asked for document in DOCUMENTS[name]]
    near = store.ahead([*keys, *_higher(path, asked)]) if keys else store
    for name in asked:
        node = _found(name, near, path, settings)
        if isinstance(node, PermissionDeniedError):
            refused.append(node)
        elif isinstance(node, VoxfetchError):
            wrong.append(node)
        elif node is not None:
            return node
    for problem in wrong:
        raise problem
    if not refused:
        # What a format took for nothing.
        refused = [found for found in near.get_many(keys) if isinstance(found, PermissionDeniedError)]
    for problem in refused:
        problem.hint = f"{problem.hint}; tried {tried(format)}"
        raise problem
    return None


def _asked(format: Format | None) -> list[Format]:  # noqa: A002
    """The formats to look for: one that no file tells by its name only where it is named, none that lie in one file."""
    return [name for name in DOCUMENTS if (DOCUMENTS[name] if format is None else name == format)]


def _found(format: Format, near: Store, path: str, settings: Settings) -> Node | VoxfetchError | None:  # noqa: A002
    """The node of one format, None for none, or what is wrong with its documents."""
    try:
        return _FINDERS.get(format, zarr.find_zarr2)(near, path, settings)
    except (PermissionDeniedError, MetadataError, UnsupportedError) as error:
        return error


def _higher(path: str, asked: Sequence[Format]) -> list[str]:
    """Keys of the documents in folders above that may describe what lies at `path`."""
    found = (_ABOVE[name] for name in asked if name in _ABOVE)
    return [join_key(folder, document) for document, most in found for folder in above(path, most)]


def tried(format: Format | None) -> str:  # noqa: A002 - the word of the public names
    """Returns which formats were looked for at a place and by which files."""
    return ", ".join(f"{name} ({', '.join(DOCUMENTS[name])})" for name in _asked(format))
