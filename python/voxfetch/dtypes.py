"""Data types as the core describes them -> numpy's, of which the package ml_dtypes has some."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from voxfetch.errors import UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["exported", "numpy_dtype"]


def numpy_dtype(described: str | list[Any], key: str) -> np.dtype[Any]:
    """Returns the type that `_core.ArrayMeta.dtype` describes, of the array at `key`.

    Raises `UnsupportedError` for one that only ml_dtypes has, where that is not installed.
    """
    try:
        return np.dtype(described)
    except TypeError:
        pass
    try:
        # Its import adds its types to those that numpy knows by name.
        importlib.import_module("ml_dtypes")
        return np.dtype(described)
    except (ImportError, TypeError):
        message = f"data type {described}: numpy itself has no such numbers"
        raise UnsupportedError(message, key=key, hint="pip install -U ml_dtypes") from None


def exported(array: NDArray[Any]) -> NDArray[Any]:
    """Returns the same memory as items that export a buffer.

    Only numbers of numpy's own do; the others (dates, structures, types of ml_dtypes) are taken for raw bytes.
    """
    return array if array.dtype.isbuiltin == 1 else array.view(f"V{array.dtype.itemsize}")
