"""HDF5 files: the node at a path in a file, with the places of its chunks, and those below it.

h5py reads the structures of the file, once when a node is opened; from then on an array is a Zarr v2 document and a
`ChunkTable`, and its chunks are read as those of any other array. Refused by name is what needs libhdf5 itself: data in
other files (external, virtual datasets), filters without a decoder here, elements of variable length. Source: HDF5 File
Format Specification 3.0.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from voxfetch.documents import RemoteDocuments
from voxfetch.errors import UnsupportedError
from voxfetch.formats.hdf5.file import Hdf5File, beginning_of, begins_hdf5, is_hdf5
from voxfetch.formats.hdf5.image import image_at, meant_shape, meant_type
from voxfetch.formats.hdf5.kept import kept_table
from voxfetch.formats.hdf5.library import library
from voxfetch.formats.hdf5.table import Layout, chunk_table, row_chunks
from voxfetch.formats.hdf5.types import codecs, element, fill_value
from voxfetch.formats.hdf5.values import attributes, axis_names, member_names
from voxfetch.node import Node
from voxfetch.store import join_key
from voxfetch.store.memory import MemoryStore
from voxfetch.table import ChunkTable

if TYPE_CHECKING:
    from voxfetch.formats.hdf5.file import Opened
    from voxfetch.node import Settings

__all__ = ["Hdf5File", "beginning_of", "begins_hdf5", "child", "child_names", "find", "is_hdf5"]


def find(file: Hdf5File, path: str, settings: Settings) -> Node:
    """Returns the node at a path in a file.

    Raises `NotFoundError`, `UnsupportedError`, `DataError` (a file that h5py cannot read), `LimitExceededError`,
    `ObjectChangedError`, `PermissionDeniedError`, `StoreError`.
    """
    path = "/".join(part for part in path.split("/") if part not in ("", "."))
    place = join_key(file.place, path)
    with file.opened() as opened:
        found = opened.at(path, place)
        if isinstance(found, library().Dataset):
            node = _array(found, opened, file, path, settings)
        else:
            multiscale = image_at(opened, file, path)
            node = Node(
                store=file.store,
                path=file.path(path),
                format="hdf5",
                kind="group",
                document=b"{}",
                attributes=attributes(found),
                settings=settings,
                multiscale=multiscale,
                file=file,
            )
        opened.check_unchanged(place)
    return node


def child(file: Hdf5File, node: Node, name: str) -> Node:
    """Returns the node at a path below a group, or with a `/` before it, below the root. Raises like `find`."""
    inside = "" if name.startswith("/") else node.path.removeprefix(file.key)
    return find(file, f"{inside}/{name}", node.settings)


def child_names(file: Hdf5File, node: Node) -> list[str]:
    """Returns the names of the nodes directly below a group, sorted. Raises like `find`."""
    with file.opened() as opened:
        return member_names(opened.at(node.path.removeprefix(file.key), node.url))


def _array(dataset: Any, opened: Opened, file: Hdf5File, path: str, settings: Settings) -> Node:
    h5d = library().h5d
    place = join_key(file.place, path)
    plist = dataset.id.get_create_plist()
    layout = plist.get_layout()
    _check_data(dataset, plist, place)
    stored = dataset.id.get_type()
    spelling, axes = element(stored, place)
    item_nbytes = int(stored.get_size()) // math.prod(axes)
    shape = (*map(int, dataset.shape), *axes)
    chunks = (1,) * len(shape)
    if layout == h5d.CHUNKED:
        shape = (*meant_shape(opened, path, dataset.shape), *axes)
        chunks = (*map(int, dataset.chunks), *axes)
    elif layout == h5d.COMPACT:
        chunks = tuple(max(extent, 1) for extent in shape)
    else:
        chunks = row_chunks(shape, item_nbytes)
    filters = codecs(plist, int(stored.get_size()), place)
    fill = fill_value(plist, _element_dtype(stored), place)
    meant = meant_type(opened, path, spelling)
    if meant != spelling and fill is not None:
        # The same bits as a number without a sign.
        fill %= 1 << 8 * item_nbytes
    document = {
        "zarr_format": 2,
        "shape": shape,
        "chunks": chunks,
        "dtype": meant,
        "fill_value": fill,
        "order": "C",
        "filters": filters or None,
        "compressor": None,
    }
    store, key = file.store, file.path(path)
    if layout == h5d.COMPACT:
        store, table = _in_memory(dataset, file, settings)
    else:
        about = Layout(shape, chunks, item_nbytes, len(filters))

        def made() -> ChunkTable:
            return chunk_table(dataset, about, opened, file.key, place)

        folder = file.tables
        table = made() if folder is None else kept_table(folder, place, about, opened.version, made)
    return Node(
        store=store,
        path=key,
        format="hdf5",
        kind="array",
        document=json.dumps(document, allow_nan=False).encode(),
        attributes=attributes(dataset),
        settings=settings,
        table=table,
        axes=axis_names(dataset, len(shape)),
    )


def _check_data(dataset: Any, plist: Any, place: str) -> None:
    """Raises `UnsupportedError` for a dataset whose data is not in the file."""
    if dataset.shape is None:
        raise UnsupportedError("a dataset without data: its dataspace is null", key=place)
    if plist.get_layout() == library().h5d.VIRTUAL:
        message = "a virtual dataset: its data is in other datasets, or other files"
        raise UnsupportedError(message, key=place, hint="open those, or copy it: h5repack -l CONTI old.h5 new.h5")
    if plist.get_external_count():
        message = "a dataset whose data is in external files"
        raise UnsupportedError(message, key=place, hint="copy it into the file: h5repack -l CONTI old.h5 new.h5")


def _element_dtype(stored: Any) -> np.dtype[Any]:
    """What h5py calls an element, with the byte order of the file."""
    return stored.dtype


def _in_memory(dataset: Any, file: Hdf5File, settings: Settings) -> tuple[RemoteDocuments, ChunkTable]:
    """A compact dataset is a part of the structures of the file, of 64 KiB at most: it is read at once, as stored."""
    h5s = library().h5s
    stored = dataset.id.get_type()
    data = np.zeros(dataset.shape, f"V{stored.get_size()}")
    if data.size:
        dataset.id.read(h5s.ALL, h5s.ALL, data, mtype=stored)
    objects = MemoryStore({"": data.tobytes()}, file.place.rpartition("/")[2])
    cells = 0 if 0 in data.shape else 1
    offsets, nbytes = np.zeros(cells, "u8"), np.full(cells, data.nbytes, "u8")
    return RemoteDocuments(objects, settings.engine), ChunkTable(("",), offsets, nbytes)
