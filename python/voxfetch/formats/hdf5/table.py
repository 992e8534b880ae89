"""A dataset of an HDF5 file -> where its chunks lie: one `ChunkTable`, which reads need and the file no more.

Datasets without chunks get some: rows of about 1 MiB, so that a box needs no more than its rows. Everything that the
file says is checked: a chunk lies on the grid, once, inside the file and beside all others. Source: HDF5 File Format
Specification 3.0, IV.A.2.i "Data Layout", III.A "B-trees" (the mask of filters that were skipped).
"""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from voxfetch.errors import DataError, LimitExceededError
from voxfetch.formats.hdf5.library import library
from voxfetch.formats.hdf5.told import edges_are_plain, true_numbers
from voxfetch.table import MISSING, ChunkTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from voxfetch.formats.hdf5.file import Opened

__all__ = ["Layout", "chunk_table", "row_chunks"]

_ROWS_NBYTES = 1 << 20
_MAX_CELLS = 1 << 25
"""Cells of the chunk grid: half a GiB of table."""


class Layout(NamedTuple):
    """What the table of a dataset depends on.

    `shape` and `chunks` are those of the array, in elements, and may have more axes than the dataset. `shape` may be
    smaller than that of the dataset. `filters` counts its filters.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    item_nbytes: int
    filters: int

    @property
    def grid(self) -> tuple[int, ...]:
        """Cells along each axis."""
        return _grid(self.shape, self.chunks)


def _grid(shape: Sequence[int], chunks: Sequence[int]) -> tuple[int, ...]:
    return tuple(-(-extent // chunk) for extent, chunk in zip(shape, chunks, strict=True))


def row_chunks(shape: Sequence[int], item_nbytes: int) -> tuple[int, ...]:
    """Returns the chunks of an array that is stored in one piece: rows along its slowest axes, of about 1 MiB."""
    chunks = [max(extent, 1) for extent in shape]
    nbytes = item_nbytes * math.prod(chunks)
    for axis, extent in enumerate(chunks):
        if nbytes <= _ROWS_NBYTES:
            break
        row = nbytes // extent
        chunks[axis] = min(max(_ROWS_NBYTES // row, 1), extent)
        nbytes = row * chunks[axis]
    return tuple(chunks)


def chunk_table(dataset: Any, layout: Layout, opened: Opened, file: str, place: str) -> ChunkTable:
    """Returns the table of a dataset with chunks, or in one piece; `file` is the key of its file, `place` names it.

    Raises `DataError` where the file contradicts itself, `LimitExceededError`.
    """
    h5d = library().h5d
    chunked = dataset.id.get_create_plist().get_layout() == h5d.CHUNKED
    cells = math.prod(_grid(dataset.shape, dataset.chunks) if chunked else layout.grid)
    if cells > _MAX_CELLS:
        message = f"a grid of {cells:,} chunks; the limit is {_MAX_CELLS:,}"
        raise LimitExceededError(message, key=place, hint="repack the file with larger chunks: h5repack -l CHUNK=...")
    if chunked:
        return _of_chunks(dataset, layout, opened, file, place)
    start = None
    if dataset.id.get_space_status() != h5d.SPACE_STATUS_NOT_ALLOCATED:
        start = dataset.id.get_offset()
    return _of_rows(layout, start, opened, file, place)


def _of_rows(layout: Layout, start: int | None, opened: Opened, file: str, place: str) -> ChunkTable:
    """The table of what lies in one piece from `start` on, None where it lies nowhere yet."""
    shape, chunks, grid = layout.shape, layout.chunks, layout.grid
    cells = math.prod(grid)
    if start is None or not cells:
        none = np.full(cells, MISSING, "u8")
        return ChunkTable((file,), none, np.zeros_like(none), version=opened.version)
    nbytes = layout.item_nbytes * math.prod(shape)
    if not 0 <= start <= opened.nbytes - nbytes:
        message = f"its {nbytes:,} bytes from byte {start:,} on reach out of the file of {opened.nbytes:,}"
        raise DataError(message, key=place, hint="the file is cut off, or broken")
    # Along one axis several rows make a chunk, and the last chunk is shorter: a chunk is one row of all axes before it,
    # and has all of those behind it.
    axis = next((axis for axis, rows in enumerate(chunks) if rows > 1), len(shape))
    extent, rows, along = (shape[axis], chunks[axis], grid[axis]) if axis < len(shape) else (1, 1, 1)
    row = np.uint64(layout.item_nbytes * math.prod(shape[axis + 1 :]))
    firsts = np.arange(along, dtype="u8") * np.uint64(rows)
    counts = np.minimum(np.uint64(extent) - firsts, np.uint64(rows))
    outer = np.arange(cells // along, dtype="u8")[:, None] * np.uint64(extent)
    offsets = (outer + firsts) * row + np.uint64(start)
    sizes = np.broadcast_to(counts * row, offsets.shape)
    return ChunkTable(
        (file,),
        offsets.reshape(-1),
        np.ascontiguousarray(sizes).reshape(-1),
        version=opened.version,
        clipped=extent % rows != 0,
    )


class _Rows:
    """What the library tells of chunks, one after the other, until it is more than there can be."""

    def __init__(self, rank: int, cells: int) -> None:
        self._most = cells
        self.too_many = False
        self.places = array("Q")
        self.starts, self.sizes, self.masks = array("Q"), array("Q"), array("Q")
        self._rank = rank

    def add(self, info: Any) -> bool | None:
        """Takes one chunk; True ends it."""
        if len(self.starts) == self._most:
            self.too_many = True
            return True
        if info.byte_offset is not None:
            self.places.extend(info.chunk_offset[: self._rank])
            self.starts.append(info.byte_offset)
            self.sizes.append(info.size)
            self.masks.append(info.filter_mask)
        return None

    def places_of(self) -> NDArray[np.uint64]:
        return np.frombuffer(self.places, "u8").reshape(len(self.starts), self._rank)


def _of_chunks(dataset: Any, layout: Layout, opened: Opened, file: str, place: str) -> ChunkTable:
    of_dataset = _grid(dataset.shape, dataset.chunks)
    rows = _Rows(len(of_dataset), math.prod(of_dataset))
    _collect(dataset, rows)
    _check(not rows.too_many, "more chunks than its grid has", place)
    starts, sizes, skipped = (np.frombuffer(column, "u8") for column in (rows.starts, rows.sizes, rows.masks))
    numbers, beside = np.divmod(rows.places_of(), np.array(dataset.chunks, "u8"))
    _check(not beside.any(), "a chunk off its grid", place)
    _check_ranges(starts, sizes, opened.nbytes, place)
    numbers = true_numbers(dataset, numbers)
    if numbers is None:
        raise _broken("a chunk that is not found there", place)
    _check(bool((numbers < np.array(of_dataset, "u8")).all()), "a chunk off its grid", place)
    every = np.uint64((1 << layout.filters) - 1)
    _check(not (skipped & ~every).any(), "a chunk that skips a filter that it has not", place)
    whole = np.uint64(layout.item_nbytes * math.prod(layout.chunks))
    edges = (numbers >= np.array(dataset.shape, "u8") // np.array(dataset.chunks, "u8")).any(axis=1)
    # Asked only where it may be so, because asking takes the memory of a chunk.
    if layout.filters and edges.any() and bool((sizes[edges] == whole).all()) and edges_are_plain(dataset):
        skipped = np.where(edges, every, skipped)
    as_long = bool((sizes[skipped == every] == whole).all())
    _check(as_long, "a chunk without a filter that is not as long as its voxels", place)
    # Chunks beyond the shape hold nothing of the array. Axes that elements have themselves are never cut.
    grid = layout.grid[: len(of_dataset)]
    inside = (numbers < np.array(grid, "u8")).all(axis=1)
    cells = np.ravel_multi_index(tuple(numbers[inside].astype("i8").T), grid) if inside.any() else np.zeros(0, "i8")
    _check(np.unique(cells).size == cells.size, "two chunks at one place", place)
    offsets, nbytes = np.full(math.prod(grid), MISSING, "u8"), np.zeros(math.prod(grid), "u8")
    masks = np.zeros(math.prod(grid), "u4")
    offsets[cells], nbytes[cells], masks[cells] = starts[inside], sizes[inside], skipped[inside]
    return ChunkTable((file,), offsets, nbytes, masks=masks if masks.any() else None, version=opened.version)


def _collect(dataset: Any, rows: _Rows) -> None:
    """In one pass; where the library has none, chunk by chunk."""
    if hasattr(dataset.id, "chunk_iter"):
        dataset.id.chunk_iter(rows.add)
        return
    for i in range(dataset.id.get_num_chunks()):
        if rows.add(dataset.id.get_chunk_info(i)):
            return


def _check_ranges(starts: NDArray[np.uint64], sizes: NDArray[np.uint64], nbytes: int, place: str) -> None:
    total = np.uint64(nbytes)
    inside = bool((sizes <= total).all()) and bool((starts <= total - sizes).all())
    _check(inside, "a chunk that reaches out of the file", place)
    _check(bool((sizes > 0).all()), "a chunk without bytes", place)
    order = np.argsort(starts, kind="stable")
    ends = (starts + sizes)[order]
    _check(bool((ends[:-1] <= starts[order][1:]).all()), "two chunks that overlap", place)


def _check(holds: bool, what: str, place: str) -> None:  # noqa: FBT001 - the one thing that it is about
    if not holds:
        raise _broken(what, place)


def _broken(what: str, place: str) -> DataError:
    return DataError(f"the table of chunks names {what}", key=place, hint="the file is cut off, or broken")
