"""HDF5 files of which the library tells places or filters of chunks that are not so: the same voxels as h5py reads."""

from __future__ import annotations

import ctypes
import itertools
import math
from pathlib import Path

import h5py
import numpy as np
import pytest

import voxfetch as vf
from tests.hdf5_files import by_table, node_at
from tests.servers.faulty import FaultyServer, status
from voxfetch.formats.hdf5.told import true_numbers


@pytest.fixture
def engine():
    with vf.Engine(decode_threads=2) as engine:
        yield engine


def same(path, name, engine):
    """Compares what the engine and what the table give with what h5py reads."""
    with h5py.File(path) as file:
        expected = file[name][...]
    np.testing.assert_array_equal(vf.open_array(path, name, engine=engine)[...], expected)
    if expected.dtype.names is None:
        np.testing.assert_array_equal(by_table(node_at(path, name), path.read_bytes()), expected)


# -------------------------------------------------------------------------------------------------- places of chunks

STRUCTURES = ("bytes=-65536", "bytes=0-262143")
#: Shape, chunks, and the shape that it may grow to.
GROWING = [
    ((4, 6), (2, 2), (4, None)),
    ((4, 8), (2, 2), (8, None)),
    ((4, 6), (2, 2), (None, 6)),
    ((4, 6), (2, 2), (None, 12)),
    ((4, 6), (2, 2), (8, 12)),
    ((4, 6), (2, 2), None),
    ((4, 6), (2, 2), (None, None)),
    ((4, 4, 4), (2, 2, 2), (4, 4, None)),
    ((8, 8), (2, 2), (8, None)),
    ((8, 4), (2, 2), (8, None)),
    ((7, 4), (7, 2), (12, None)),
    ((6, 60), (6, 10), (6, None)),
    ((3, 4, 4), (1, 4, 4), (9, None, 4)),
    ((3, 4, 4), (1, 4, 4), (9, 4, None)),
    ((1, 40, 40), (1, 20, 20), (5, 40, None)),
    ((2, 3, 4, 4), (1, 1, 4, 4), (5, None, 4, 4)),
    ((3, 5, 4, 4), (1, 1, 2, 3), (5, None, 4, 7)),
    ((1, 4, 8), (1, 4, 2), (1, 4, None)),
]


@pytest.mark.parametrize("libver", ["earliest", "v108", "v110", "latest"])
@pytest.mark.parametrize(("shape", "chunks", "most"), GROWING)
def test_datasets_that_grow_along_any_axis(shape, chunks, most, libver, tmp_path, engine):
    path = tmp_path / "a.h5"
    expected = np.arange(1, 1 + math.prod(shape), dtype="u2").reshape(shape)
    with h5py.File(path, "w", libver=libver) as file:
        file.create_dataset("plain", data=expected, chunks=chunks, maxshape=most)
        file.create_dataset("gzip", data=expected, chunks=chunks, maxshape=most, compression="gzip")
        # Written in part only: the beginning, the end, and a box in between.
        for i, part in enumerate((np.s_[:1], np.s_[..., -1:], np.s_[-1:, 1:3])):
            made = file.create_dataset(f"part {i}", shape, "u2", chunks=chunks, maxshape=most, fillvalue=9)
            made[part] = expected[part]
        names = list(file)
    for name in names:
        same(path, name, engine)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_movie_that_was_appended_to(libver, tmp_path, engine):
    """Every place that is told lies on the grid, and all but a few are wrong."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=libver) as file:
        movie = file.create_dataset("movie", (8, 8, 100), "u2", chunks=(4, 8, 1), maxshape=(8, 8, None))
        for t in range(30):
            movie[..., t] = t + 1
    same(path, "movie", engine)
    with h5py.File(path, "r+") as file:
        file["movie"].resize(21, 2)
    same(path, "movie", engine)


def test_a_remote_dataset_that_grows(tmp_path, engine):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="latest") as file:
        expected = np.random.default_rng(2).integers(0, 256, (4, 800_000), "u1")
        file.create_dataset("a", data=expected, chunks=(2, 200_000), maxshape=(4, None))
    with FaultyServer({"a.h5": path.read_bytes()}) as server:
        np.testing.assert_array_equal(vf.open_array(f"{server.url}/a.h5", "a", engine=engine)[...], expected)
        # What cannot be asked is not taken for an answer.
        server.rule = lambda request: status(403) if request.range not in STRUCTURES else None
        with pytest.raises(vf.PermissionDeniedError):
            vf.open_array(f"{server.url}/a.h5", "a", engine=engine)


def test_random_datasets_that_grow(tmp_path, engine):
    random = np.random.default_rng(1)
    path = tmp_path / "a.h5"
    for _ in range(150):
        rank = int(random.integers(2, 5))
        shape = tuple(int(extent) for extent in random.integers(1, 9, rank))
        chunks = tuple(int(random.integers(1, extent + 1)) for extent in shape)
        axis = int(random.integers(0, rank))
        most = tuple(None if i == axis else n + int(random.choice([0, 0, 3, 9])) for i, n in enumerate(shape))
        with h5py.File(path, "w", libver=random.choice(["earliest", "latest"])) as file:
            made = file.create_dataset("a", shape, "u4", chunks=chunks, maxshape=most)
            part = tuple(slice(int(random.integers(1, n + 1)) if random.random() < 0.6 else n) for n in shape)
            made[part] = np.arange(1, 1 + math.prod(shape), dtype="u4").reshape(shape)[part]
        same(path, "a", engine)


class _Told:
    """A dataset with a library that finds chunks at some places."""

    def __init__(self, maxshape, chunks, found):
        self.maxshape, self.chunks, self.id = maxshape, chunks, self
        self._found, self.looks = found, 0

    def read_direct_chunk(self, place):
        self.looks += 1
        if place not in self._found:
            raise OSError("no such chunk")


def test_a_library_that_tells_places_as_they_are():
    every = np.array(list(itertools.product(range(2), range(3))), "u8")
    dataset = _Told((4, None), (2, 2), set())
    np.testing.assert_array_equal(true_numbers(dataset, every), every)
    assert dataset.looks == 0
    # Nothing but the library tells these from those of a larger dataset.
    row = every[:3]
    dataset = _Told((4, None), (2, 2), {(0, 0), (0, 2), (0, 4)})
    np.testing.assert_array_equal(true_numbers(dataset, row), row)
    dataset = _Told((4, None), (2, 2), {(0, 0), (2, 0), (0, 2)})
    np.testing.assert_array_equal(true_numbers(dataset, row), [[0, 0], [1, 0], [0, 1]])
    assert true_numbers(_Told((4, None), (2, 2), {(0, 0)}), row) is None


@pytest.mark.parametrize("number", [(0, 2**63, 0), (0, 2**32, 0), (0, 2**64 - 1, 1), (0, 1, 7)])
def test_numbers_that_no_index_has(number):
    numbers = np.array([number], "u8")
    dataset = _Told((9, None, 4), (1, 1, 2), set())
    assert true_numbers(dataset, numbers) is numbers
    assert dataset.looks == 0


# ------------------------------------------------------------------------------------------------- filters at the edges


def plain_edges(file, name, values, filters, *, most=None, option=2):
    """Makes a dataset in chunks of (4, 4), by a function that h5py does not have: filters are left out at the edges."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    library = next((line.split()[-1] for line in maps if "libhdf5-" in line or "libhdf5.so" in line), None)
    if library is None:
        pytest.skip("the library of h5py is not found here")
    set_chunk_opts = ctypes.CDLL(library).H5Pset_chunk_opts
    set_chunk_opts.argtypes = [ctypes.c_int64, ctypes.c_uint]
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((4, 4))
    for filter_, *how in filters:
        getattr(plist, f"set_{filter_}")(*how)
    assert set_chunk_opts(plist.id, option) >= 0
    space = h5py.h5s.create_simple(values.shape, most)
    stored = h5py.h5t.py_create(values.dtype, logical=True)
    made = h5py.h5d.create(file.id, name.encode(), stored, space, plist)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return h5py.Dataset(made)


PIPELINES = {
    "shuffle": [("shuffle",)],
    "gzip": [("deflate", 4)],
    "shuffle gzip": [("shuffle",), ("deflate", 4)],
    "fletcher32": [("fletcher32",)],
    "all of it": [("shuffle",), ("deflate", 4), ("fletcher32",)],
}


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("option", [0, 2])
def test_edges_without_filters(pipeline, libver, option, tmp_path, engine):
    path = tmp_path / "a.h5"
    random = np.random.default_rng(3)
    values = {
        "compress": np.arange(70, dtype="u2").reshape(7, 10) * 257 + 3,
        "do not compress": random.integers(0, 1 << 16, (7, 10), "u2"),
        "big endian": random.integers(0, 1 << 16, (7, 10), "u2").astype(">i4"),
        "records": np.arange(70).reshape(7, 10).astype([("a", "u1"), ("b", ">f4")]),
        "booleans": random.integers(0, 2, (7, 10)).astype(bool),
        "one edge": random.integers(0, 1 << 16, (8, 5), "u2"),
        "no edge": random.integers(0, 1 << 16, (8, 12), "u2"),
    }
    # At the edges that come first nothing tells the two apart.
    values["zeros first"] = np.zeros((99, 6), "u2")
    values["zeros first"][90:] = random.integers(0, 1 << 16, (9, 6), "u2")
    with h5py.File(path, "w", libver=libver) as file:

        def write(name, stored, most=None):
            return plain_edges(file, name, stored, PIPELINES[pipeline], most=most, option=option)

        for name, stored in values.items():
            write(name, stored)
        unlimited = h5py.h5s.UNLIMITED
        write("within one chunk", values["compress"][:3, :3].copy(), (unlimited, unlimited))
        grown = write("grown", values["compress"], (unlimited, unlimited))
        grown.resize((9, 11))
        grown[7:] = 5
        write("shrunk", values["no edge"], (8, unlimited)).resize((6, 9))
        names = list(file)
    for name in names:
        same(path, name, engine)


def test_masks_of_edges_without_filters(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        plain_edges(file, "a", np.arange(70, dtype="u2").reshape(7, 10), PIPELINES["shuffle gzip"])
        # As many bytes as without a filter, by chance.
        file.create_dataset("b", (7, 10), "u2", chunks=(4, 4), shuffle=True)[...] = 1
        file.create_dataset("c", (8, 12), "u2", chunks=(4, 4), shuffle=True)[...] = 1
    assert node_at(path, "a").table.masks.reshape(2, 3).tolist() == [[0, 0, 3], [3, 3, 3]]
    assert node_at(path, "b").table.masks is None
    assert node_at(path, "c").table.masks is None
