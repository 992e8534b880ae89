"""Arrays whose chunks are references: the places of all chunks in one table, so that reads of many merge.

In: a node of Zarr in a `ReferenceStore`. Out: the same node with its `ChunkTable`, or as it is where the places of its
chunks are not known beforehand (references to whole objects, shards) or far fewer than its grid has cells: then each
chunk is asked for by its key. Sources: references specification of kerchunk; chunk keys of Zarr v2 and v3; LINDI,
"Special Zarr Annotations".
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from voxfetch.documents import RemoteDocuments
from voxfetch.errors import UnsupportedError
from voxfetch.node import parse_json
from voxfetch.store import join_key
from voxfetch.store.kerchunk import WHOLE
from voxfetch.store.references import ReferenceStore
from voxfetch.table import MISSING, ChunkTable

if TYPE_CHECKING:
    from voxfetch.node import Node
    from voxfetch.store.kerchunk import References

__all__ = ["with_table"]

# A table has an entry for each cell of the grid, stored or not.
_MAX_CELLS = 1 << 25
_MAX_CELLS_A_REFERENCE = 64
_FEW_CELLS = 1 << 16
_EXTERNAL = "_EXTERNAL_ARRAY_LINK"


class _Grid(NamedTuple):
    """The chunks of an array: how many along each axis, and keys that begin with `start`."""

    shape: tuple[int, ...]
    start: str
    separator: str

    def cell(self, key: str) -> int | None:
        """Returns the place of a key in the grid, in C order; None for one that is no chunk."""
        rest = key[len(self.start) :]
        parts = rest.split(self.separator) if self.shape else []
        if len(parts) != len(self.shape) or (not self.shape and rest):
            return None
        cell = 0
        for part, extent in zip(parts, self.shape, strict=True):
            # As they are written: no sign, no leading zeros, no other digits.
            if not (part.isascii() and part.isdecimal()) or len(part) > 19 or (part[0] == "0" and len(part) > 1):
                return None
            index = int(part)
            if index >= extent:
                return None
            cell = cell * extent + index
        return cell


def with_table(node: Node) -> Node:
    """Returns a node with the places of its chunks where it is an array of references.

    Raises `UnsupportedError` for an array that says that its chunks are not among the references.
    """
    remote = node.store.remote if isinstance(node.store, RemoteDocuments) else None
    if node.kind != "array" or not isinstance(remote, ReferenceStore):
        return node
    if (link := node.attributes.get(_EXTERNAL)) is not None:
        url = cast("dict[str, Any]", link).get("url") if isinstance(link, dict) else None
        message = f"the chunks of this array are not among the references ({_EXTERNAL})"
        raise UnsupportedError(message, key=node.url, hint=f"open the file itself: {str(url)[:500]}")
    grid = _grid(node)
    table = None if grid is None else _table(remote.references, grid)
    return node if table is None else replace(node, table=table)


def _table(references: References, grid: _Grid) -> ChunkTable | None:
    """The table of the chunks in a grid, None where there can be none."""
    rows = references.under(grid.start)
    cells = math.prod(grid.shape)
    if cells > min(max(_MAX_CELLS_A_REFERENCE * len(rows), _FEW_CELLS), _MAX_CELLS):
        return None
    offsets = np.full(cells, MISSING, np.uint64)
    nbytes = np.zeros(cells, np.uint64)
    targets = np.zeros(cells, np.int64)
    for row in rows:
        cell = grid.cell(references.keys[row])
        if cell is None:
            continue
        if references.nbytes[row] == WHOLE:
            return None
        offsets[cell], nbytes[cell], targets[cell] = (
            references.offsets[row],
            references.nbytes[row],
            references.targets[row],
        )
    stored = offsets != MISSING
    used, numbers = np.unique(targets[stored], return_inverse=True)
    if not used.size:
        return None
    if used.size == 1:
        return ChunkTable((ReferenceStore.target_key(int(used[0])),), offsets, nbytes)
    joined = ReferenceStore.joined_key(map(int, used), int((offsets + nbytes)[stored].max()))
    if joined is not None:
        key, bits = joined
        offsets[stored] += (targets[stored] + 1).astype(np.uint64) << np.uint64(bits)
        return ChunkTable((key,), offsets, nbytes)
    files = np.zeros(cells, np.uint32)
    files[stored] = numbers
    return ChunkTable(tuple(ReferenceStore.target_key(int(one)) for one in used), offsets, nbytes, files)


def _grid(node: Node) -> _Grid | None:
    """The grid that a document describes; None for shards and for what the core will refuse."""
    document = parse_json(node.document, join_key(node.url, node.document_name))
    if node.format == "zarr2":
        chunks, start = document.get("chunks"), ""
        separator = node.settings.dimension_separator or document.get("dimension_separator") or "."
    else:
        codecs = document.get("codecs")
        names = [_name(codec) for codec in cast("list[object]", codecs)] if isinstance(codecs, list) else []
        if _name(document.get("chunk_grid")) != "regular" or "sharding_indexed" in names:
            return None
        chunks = _configuration(document.get("chunk_grid")).get("chunk_shape")
        encoding = document.get("chunk_key_encoding")
        is_default = _name(encoding) == "default"
        separator = _configuration(encoding).get("separator", "/" if is_default else ".")
        start = f"c{separator}" if is_default else ""
    extents, steps = _extents(document.get("shape"), 0), _extents(chunks, 1)
    if extents is None or steps is None or len(extents) != len(steps) or separator not in (".", "/"):
        return None
    counts = tuple(-(-extent // step) for extent, step in zip(extents, steps, strict=True))
    if not counts:
        # The one chunk of an array without axes.
        start = "c" if start else "0"
    return _Grid(counts, join_key(node.path, start) if start else f"{node.path}/" if node.path else "", separator)


def _extents(value: object, least: int) -> list[int] | None:
    """A list of integers that are at least so large, None for all else."""
    found = cast("list[object]", value) if isinstance(value, list) else [None]
    numbers = [one for one in found if isinstance(one, int) and not isinstance(one, bool) and one >= least]
    return numbers if len(numbers) == len(found) else None


def _name(value: object) -> object:
    """Name of an extension of Zarr v3, which may be written short."""
    return cast("dict[str, Any]", value).get("name") if isinstance(value, dict) else value


def _configuration(value: object) -> dict[str, Any]:
    inner = cast("dict[str, Any]", value).get("configuration") if isinstance(value, dict) else None
    return cast("dict[str, Any]", inner) if isinstance(inner, dict) else {}
