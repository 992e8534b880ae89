"""The hook of the plugin of napari (`napari.yaml`): paths and URLs in, a function that makes their layers out."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxfetch.napari.layer import layers, viewer_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from voxfetch.napari.layer import LayerData

__all__ = ["get_reader"]

#: Files by whose name the folder they are in is meant.
_DOCUMENTS = ("zarr.json", ".zgroup", ".zarray", ".zattrs", "info", "datasource-properties.json", "attributes.json")
#: Others by which a folder is known, in it and (of a layer, a mag or a scale) in one of two folders above.
_INSIDE = (*_DOCUMENTS, ".zmetadata", "info.gz", "info.br", "header.wkw", "s0/attributes.json", "snapshots")
_ABOVE = ("info", "datasource-properties.json")
_FILE = re.compile(r".*\.(zarr|zarr\.zip|ozx|n5|h5|hdf5|ims|b2nd|wkw)/?", re.IGNORECASE | re.DOTALL)
_PICTURE = re.compile(r".*\.(png|jpe?g|tiff?|gif|bmp|svg|npy|csv|py)", re.IGNORECASE | re.DOTALL)
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_SCHEMES = ("s3", "gs", "az", "bossdb", "zarr", "zarr2", "zarr3", "n5", "precomputed")
_ADAPTER = re.compile(r"\|(zarr|zarr2|zarr3|n5|neuroglancer-precomputed|hdf5|zip|kerchunk|icechunk):")


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """Returns a function that makes the layers of paths or URLs; None if one of them is nothing that is read.

    Looks at names, and for files in local folders; opens nothing and asks no network.
    """
    paths = [path] if isinstance(path, str) else list(path)
    return _read if paths and all(_may_be_read(one) for one in paths) else None


def _read(path: str | Sequence[str]) -> list[LayerData]:
    engine = viewer_engine()
    paths = [path] if isinstance(path, str) else path
    return [layer for one in paths for layer in layers(_source(one), engine=engine)]


def _may_be_read(path: str) -> bool:
    """Whether something that is read may lie there, by its name and by what lies near in a local folder."""
    name = path.rstrip("/").rpartition("/")[2]
    named = _FILE.fullmatch(path) is not None or name in _DOCUMENTS
    if _ADAPTER.search(path):
        return True
    if (scheme := _URL.match(path)) is not None:
        return named or (scheme[1].lower() in _SCHEMES and _PICTURE.fullmatch(path) is None)
    folder = Path(path)
    if not folder.is_dir():
        return named and folder.exists()
    if any((folder / document).exists() for document in _INSIDE):
        return True
    above = itertools.islice(folder.absolute().parents, 2)
    return any((outer / document).is_file() for outer in above for document in _ABOVE)


def _source(path: str) -> str:
    """What is opened: the folder of a document that was named."""
    folder, slash, name = path.rstrip("/").rpartition("/")
    return (folder if slash else ".") if name in _DOCUMENTS and not Path(path).is_dir() else path
