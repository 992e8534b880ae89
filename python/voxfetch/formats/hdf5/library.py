"""h5py, loaded when the first HDF5 file is opened. It finds what is in a file; chunks are read without it."""

from __future__ import annotations

import importlib
from typing import Any

from voxfetch.errors import UnsupportedError

__all__ = ["library"]


def library() -> Any:
    """Returns the module h5py. Raises `UnsupportedError` where it is not installed."""
    try:
        return importlib.import_module("h5py")
    except ImportError:
        message = "HDF5 files are read with the help of h5py, which is not installed"
        raise UnsupportedError(message, hint="pip install voxfetch[hdf5]") from None
