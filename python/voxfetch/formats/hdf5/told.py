"""What libhdf5 tells of chunks and is not so: their places in extensible arrays, and filters at the edges.

- Where one axis is unlimited, and not the first, the index of HDF5 1.10 and later ("extensible array") counts chunks
  with that axis slowest. libhdf5 (at least up to 2.0) finds a chunk like this, but turns its number back into a place
  as if the axis were not moved.
- With `H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS` chunks that reach over the edge are stored without filters, while their
  masks leave none out.

What is told in, what is so out. Source: HDF5 File Format Specification 3.0, IV.A.2.i "Data Layout" (version 4),
Appendix C "Types of Indexes for Dataset Chunks".
"""

from __future__ import annotations

import io
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from voxfetch.formats.hdf5.library import library
from voxfetch.formats.hdf5.values import FAILURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["edges_are_plain", "true_numbers"]

_MOST_ELEMENTS = 1 << 32
"""Of an extensible array in libhdf5."""
_MAX_CHUNK_NBYTES = (2 << 30) - 1
"""Arrays with larger chunks are refused."""


def true_numbers(dataset: Any, told: NDArray[np.uint64]) -> NDArray[np.uint64] | None:
    """Returns the numbers of chunks along the axes of the dataset, (chunks, axes), from those that are told.

    Trees of version 1 tell them as they are, and a library may: the library is asked where it finds two chunks. None
    where it finds neither.
    """
    true = _as_counted(dataset.maxshape, dataset.chunks, told)
    if true is None:
        return told
    axis = dataset.maxshape.index(None)
    # Two chunks that are at no place of the other reading. What is told has zeros before the axis, and along it the
    # greatest number of what is told is greater than that of any other reading.
    if _is_found(dataset, told[np.argmax(told[:, axis])]):
        return told
    before = true[:, :axis].any(axis=1)
    first = np.argmax(before) if before.any() else np.argmin(np.where(true[:, axis] > 0, true[:, axis], _MOST_ELEMENTS))
    return true if _is_found(dataset, true[first]) else None


def _as_counted(
    maxshape: Sequence[int | None], chunks: Sequence[int], told: NDArray[np.uint64]
) -> NDArray[np.uint64] | None:
    """The numbers that an extensible array means, None where there is none, or it would mean what is told."""
    if list(maxshape).count(None) != 1 or not len(told):
        return None
    axis = list(maxshape).index(None)
    most = [1 if extent is None else -(-extent // chunk) for extent, chunk in zip(maxshape, chunks, strict=True)]
    before, after = math.prod(most[:axis]), math.prod(most[axis + 1 :])
    along = told[:, axis]
    if before == 1 or told[:, :axis].any() or not along.any() or (int(along.max()) + 1) * after > _MOST_ELEMENTS:
        return None
    if (told[:, axis + 1 :] >= np.array(most[axis + 1 :], "u8")).any():
        return None
    true = np.empty_like(told)
    # Axes behind it stay as they are. Those before it follow, and what is left over is the number along it.
    true[:, axis + 1 :] = told[:, axis + 1 :]
    rest = along
    for i in reversed(range(axis)):
        rest, true[:, i] = np.divmod(rest, np.uint64(most[i]))
    true[:, axis] = rest
    return true


def _is_found(dataset: Any, number: NDArray[np.uint64]) -> bool:
    place = tuple(int(n) * chunk for n, chunk in zip(number, dataset.chunks, strict=True))
    try:
        dataset.id.read_direct_chunk(place)
    except FAILURES:
        return False
    return True


def edges_are_plain(dataset: Any) -> bool:
    """Returns whether chunks that reach over the edge of a dataset are stored without its filters.

    h5py does not tell the option, but keeps it in the properties that a dataset was made with: a dataset of one such
    chunk is made with them, in memory, and with a filter that adds a checksum. False where that cannot be done.
    """
    h5py = library()
    stored = dataset.id.get_type().copy()
    nbytes = math.prod(dataset.chunks) * stored.get_size()
    if nbytes > _MAX_CHUNK_NBYTES:
        return False
    with suppress(*FAILURES):
        plist = dataset.id.get_create_plist().copy()
        plist.remove_filter(h5py.h5z.FILTER_ALL)
        plist.set_fletcher32()
        one = (1,) * len(dataset.chunks)
        shape = tuple(max(extent - 1, 1) for extent in dataset.chunks)
        with h5py.File(io.BytesIO(), "w") as file:
            space = h5py.h5s.create_simple(shape, (h5py.h5s.UNLIMITED,) * len(shape))
            made = h5py.h5d.create(file.id, b"a", stored, space, plist)
            space.select_hyperslab((0,) * len(shape), one)
            value = np.zeros(one, f"V{stored.get_size()}")
            made.write(h5py.h5s.create_simple(one), space, value, mtype=stored)
            made.flush()
            return made.get_chunk_info(0).size == nbytes
    return False
