"""HDF5 files that h5py writes, and a reader of tables that knows no engine: the oracle of the tests."""

from __future__ import annotations

import itertools
import json
import zlib

import h5py
import hdf5plugin
import numcodecs
import numpy as np

import voxfetch as vf
from voxfetch.hierarchy import child, child_names
from voxfetch.sources import node_of, settings_of
from voxfetch.table import MISSING

#: Filters: keywords of `create_dataset`, and the codecs that they are.
FILTERS = {
    "gzip": ({"compression": "gzip"}, ["zlib"]),
    "shuffle gzip": ({"compression": "gzip", "compression_opts": 9, "shuffle": True}, ["shuffle", "zlib"]),
    "shuffle": ({"shuffle": True}, ["shuffle"]),
    "fletcher32": ({"fletcher32": True}, ["fletcher32"]),
    "all of it": (
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        ["shuffle", "zlib", "fletcher32"],
    ),
    "lzf": ({"compression": "lzf"}, ["hdf5_lzf"]),
    "shuffle lzf": ({"compression": "lzf", "shuffle": True}, ["shuffle", "hdf5_lzf"]),
    "lz4": (dict(hdf5plugin.LZ4()), ["hdf5_lz4"]),
    "lz4 small blocks": (dict(hdf5plugin.LZ4(nbytes=64)), ["hdf5_lz4"]),
    "bitshuffle": (dict(hdf5plugin.Bitshuffle(cname="none")), ["hdf5_bitshuffle"]),
    "bitshuffle lz4": (dict(hdf5plugin.Bitshuffle(cname="lz4")), ["hdf5_bitshuffle"]),
    "bitshuffle zstd": (dict(hdf5plugin.Bitshuffle(cname="zstd")), ["hdf5_bitshuffle"]),
    "zstd": (dict(hdf5plugin.Zstd()), ["zstd"]),
    "bzip2": (dict(hdf5plugin.BZip2()), ["bz2"]),
    "blosc lz4": (dict(hdf5plugin.Blosc(cname="lz4", shuffle=1)), ["blosc"]),
    "blosc zstd bits": (dict(hdf5plugin.Blosc(cname="zstd", shuffle=2)), ["blosc"]),
    "blosc blosclz": (dict(hdf5plugin.Blosc(cname="blosclz", shuffle=0)), ["blosc"]),
}
#: Filters that are refused: keywords, and the name and number in the message.
REFUSED = {
    "scale-offset": ({"scaleoffset": 2, "dtype": "f4"}, "scale-offset of floating point numbers \\(6\\)"),
    "zfp": (dict(hdf5plugin.Zfp(rate=8)), "ZFP \\(32013\\)"),
    "blosc2": (dict(hdf5plugin.Blosc2()), "Blosc2 \\(32026\\)"),
}


def voxels(shape, dtype="uint16", seed=0):
    """Voxels that compress, with hardly two neighbours alike."""
    count = int(np.prod(shape, dtype="i8"))
    random = np.random.default_rng(seed).integers(0, 3, count)
    return (np.arange(count) * 7 % 251 + random).astype(dtype).reshape(shape)


def low(file, name, values, layout, *, chunks=None, early=False, maxshape=None, fill=None):
    """Makes a dataset with properties that `create_dataset` does not know, and writes it unless `values` is a shape."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(layout)
    if chunks:
        plist.set_chunk(chunks)
    if early:
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    if fill is not None:
        plist.set_fill_value(np.array(fill, values.dtype))
    space = h5py.h5s.create_simple(values.shape, maxshape) if values.ndim else h5py.h5s.create(h5py.h5s.SCALAR)
    made = h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(values.dtype, logical=True), space, plist)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(values))
    return h5py.Dataset(made)


def write_layouts(path, libver, userblock=0):
    """Writes a dataset of every kind of layout and chunk index. Returns their names."""
    values = voxels((13, 17, 11))
    none = h5py.h5s.UNLIMITED
    with h5py.File(path, "w", libver=libver, userblock_size=userblock) as file:
        file["contiguous"] = values
        low(file, "compact", values[:3], h5py.h5d.COMPACT)
        file.create_dataset("tree or array", data=values, chunks=(5, 4, 11))
        file.create_dataset("single chunk", data=values, chunks=values.shape)
        file.create_dataset("single, compressed", data=values, chunks=values.shape, compression="gzip")
        low(file, "implicit", values, h5py.h5d.CHUNKED, chunks=(5, 4, 11), early=True)
        file.create_dataset("extensible array", data=values, chunks=(5, 4, 3), maxshape=(None, 17, 11))
        file.create_dataset("second tree", data=values, chunks=(5, 4, 3), maxshape=(None, 17, None), compression="gzip")
        sparse = file.create_dataset("sparse", values.shape, "u2", chunks=(4, 4, 4), maxshape=(none,) * 3, fillvalue=7)
        sparse[4:8, 3:9, 2:5] = values[4:8, 3:9, 2:5]
        file.create_dataset("not allocated", values.shape, ">i4", chunks=(4, 4, 4), fillvalue=-9)
        file.create_dataset("not allocated, in one piece", values.shape, "f4", fillvalue=np.nan)
        larger = file.create_dataset("smaller than its chunk", data=values[:3], chunks=(8, 8, 8), maxshape=(None,) * 3)
        larger.resize((3, 5, 11))
        return sorted(file)


def node_at(path, inside="", **format_options):
    """The node at a path in a file, as opening it makes it."""
    settings = settings_of(mode="r", format_options=format_options, read_options=None, engine=None)
    return node_of(str(path), inside, format=None, settings=settings)


def nodes(node):
    """A node and all below it that can be opened."""
    yield node
    for name in child_names(node):
        try:
            found = child(node, name)
        except vf.VoxfetchError:
            continue
        yield from nodes(found)


def by_table(node, data):
    """What an array holds, by its document, its table and the bytes of the file: no engine, and no h5py."""
    document, table = json.loads(node.document), node.table
    shape, chunks, dtype = document["shape"], document["chunks"], np.dtype(document["dtype"])
    whole = np.zeros([-(-extent // chunk) * chunk for extent, chunk in zip(shape, chunks, strict=True)], dtype)
    fill = document["fill_value"]
    whole[...] = 0 if fill is None else float(fill) if dtype.kind == "f" else fill
    grid = [-(-extent // chunk) for extent, chunk in zip(shape, chunks, strict=True)]
    for i, cell in enumerate(itertools.product(*map(range, grid))):
        if table.offsets[i] == MISSING:
            continue
        encoded = data[int(table.offsets[i]) : int(table.offsets[i] + table.nbytes[i])]
        mask = 0 if table.masks is None else int(table.masks[i])
        for bit, codec in reversed(list(enumerate(document["filters"] or []))):
            if not mask >> bit & 1:
                encoded = _decoded(encoded, codec)
        extents = chunks
        if table.clipped:
            extents = [min(c, s - c * g) for c, s, g in zip(chunks, shape, cell, strict=True)]
        place = tuple(slice(c * g, c * g + e) for c, g, e in zip(chunks, cell, extents, strict=True))
        whole[place] = np.frombuffer(encoded, dtype).reshape(extents)
    return whole[tuple(map(slice, shape))]


def _decoded(encoded, codec):
    if codec["id"] == "zlib":
        return zlib.decompress(encoded)
    if codec["id"] == "shuffle":
        return bytes(numcodecs.Shuffle(codec["elementsize"]).decode(encoded))
    return bytes(numcodecs.Fletcher32().decode(encoded))
