"""Chunk tables that are kept in a folder of the user's, so that a large file in a store is gone through once.

A table is a file of numpy's (`.npz`, without pickled objects), called by the hash of what it belongs to. One that does
not fit the version of the HDF5 file, or cannot be read, is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from voxfetch.store.local import translated
from voxfetch.table import ChunkTable, FileVersion, ObjectVersion

if TYPE_CHECKING:
    from collections.abc import Callable

    from voxfetch.formats.hdf5.table import Layout

__all__ = ["kept_table"]

_FORM = 2
"""Raised whenever a table of the same file would be another, so that those made before are made again."""


def kept_table(
    folder: str, place: str, layout: Layout, version: FileVersion | ObjectVersion, make: Callable[[], ChunkTable]
) -> ChunkTable:
    """Returns the table of the dataset `place` from a folder, else makes and puts it there.

    Raises what `make` raises, `PermissionDeniedError` and `StoreError` for a folder that cannot be written to.
    """
    if isinstance(version, ObjectVersion) and version.etag is None and version.modified is None:
        # A size alone tells no versions apart.
        return make()
    name = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    path = os.path.join(folder, f"{name}.npz")  # noqa: PTH118 - str in, str out
    about = json.dumps([_FORM, place, layout, version])
    with suppress(OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile):
        return _loaded(path, about, layout, version)
    table = make()
    _save(path, about, table)
    return table


def _loaded(path: str, about: str, layout: Layout, version: FileVersion | ObjectVersion) -> ChunkTable:
    """Raises `ValueError` for a table of something else, and what numpy raises for a file that is none."""
    with np.load(path, allow_pickle=False) as members:
        if str(members["about"]) != about:
            raise ValueError("a table of another version")
        cells = int(np.prod(layout.grid, dtype="i8"))
        columns = {name: members[name] for name in ("offsets", "nbytes", "masks") if name in members}
        for name, column in columns.items():
            if column.shape != (cells,) or column.dtype != ("u4" if name == "masks" else "u8"):
                raise ValueError("a table of another grid")
        files, clipped = json.loads(str(members["rest"]))
    return ChunkTable(tuple(files), **columns, version=version, clipped=bool(clipped))


def _save(path: str, about: str, table: ChunkTable) -> None:
    """Writes it beside and moves it to its place, so that others never see a part of it."""
    columns: dict[str, Any] = {"offsets": table.offsets, "nbytes": table.nbytes}
    if table.masks is not None:
        columns["masks"] = table.masks
    rest = json.dumps([table.files, table.clipped])
    beside = f"{path[:-4]}.{secrets.token_hex(8)}.tmp"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - see above
        with open(beside, "xb") as file:  # noqa: PTH123
            np.savez_compressed(file, about=np.array(about), rest=np.array(rest), **columns)
        os.replace(beside, path)  # noqa: PTH105
    except OSError as error:
        with suppress(OSError):
            os.unlink(beside)  # noqa: PTH108
        raise translated(error, path) from error
