"""Attributes, names of axes and names of members of HDF5 objects as plain Python values.

Sources: HDF5 Dimension Scale Specification (`DIMENSION_LABELS`, `DIMENSION_LIST`); netCDF-4 "Interoperability with
HDF5" (a scale without data is called by what its place in the file is called).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from voxfetch.formats.hdf5.library import library
from voxfetch.store import MAX_DOCUMENT_NBYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FAILURES", "attributes", "axis_names", "member_names", "numbers", "text"]

FAILURES = (OSError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, SystemError)
"""What h5py raises for a file that it cannot make sense of."""


def attributes(node: Any) -> dict[str, Any]:
    """Returns the attributes of a group or dataset: numbers, strings, lists; references and the like as text."""
    return {name: _attribute(node, name) for name in node.attrs}


def _attribute(node: Any, name: str) -> Any:
    try:
        found = node.attrs.get_id(name)
        if found.get_space().get_simple_extent_npoints() * found.get_type().get_size() > MAX_DOCUMENT_NBYTES:
            return f"<more than {MAX_DOCUMENT_NBYTES:,} bytes>"
        return _plain(node.attrs[name])
    except FAILURES as error:
        # One attribute of a kind that h5py does not know hides neither the others nor the data.
        return f"<not readable: {str(error)[:200]}>"


def _plain(value: Any) -> Any:
    h5py = library()
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, np.ndarray):
        array = cast("np.ndarray[Any, np.dtype[Any]]", value)
        return _items(array.tolist())
    return _items(value.item() if isinstance(value, np.generic) else value)


def _items(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_items(item) for item in cast("Iterable[Any]", value)]
    if isinstance(value, bytes):
        return text(value)
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, complex):
        return [value.real, value.imag]
    # References to objects and regions, dates.
    return str(value)[:200]


def text(value: Any) -> str:
    """Returns a string that a file holds as bytes, as an array of single characters or as a string."""
    if isinstance(value, np.ndarray):
        array = cast("np.ndarray[Any, np.dtype[Any]]", value)
        value = array.astype("S").tobytes() if array.dtype.kind == "S" else "".join(map(str, array.reshape(-1)))
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode("utf-8", "replace")
    return str(value)


def numbers(value: Any, count: int) -> list[float] | None:
    """Returns so many numbers of a file, None where there are others."""
    with suppress(ValueError, TypeError):
        found = np.asarray(value, "f8").reshape(-1)
        if found.size == count and bool(np.isfinite(found).all()):
            return cast("list[float]", found.tolist())
    return None


def axis_names(dataset: Any, rank: int) -> tuple[str, ...] | None:
    """Returns the names of the axes by their labels, else by their scales; None where nothing names them.

    `rank` counts the axes of the array, which may be more than those of the dataset.
    """
    try:
        names = [_axis_name(axis) for axis in dataset.dims]
    except FAILURES:
        return None
    if not any(names):
        return None
    names += [""] * (rank - len(names))
    shown = tuple(name or f"dim_{i}" for i, name in enumerate(names))
    return shown if len(set(shown)) == rank else None


def _axis_name(axis: Any) -> str:
    if axis.label:
        return str(axis.label)
    return str(axis[0].name).rpartition("/")[2] if len(axis) else ""


def member_names(group: Any) -> list[str]:
    """Returns the names of what can be opened in a group, sorted: all but types that have a name."""
    h5py = library()
    names: list[str] = []
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink) or group.get(name, getclass=True) is not h5py.Datatype:
            names.append(str(name))
    return sorted(names)
