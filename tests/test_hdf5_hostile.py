"""Broken HDF5 files, and such as are made to do harm: a typed error, or the right voxels; memory within limits."""

from __future__ import annotations

import struct
import subprocess
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

import voxfetch as vf
from tests.hdf5_files import voxels, write_layouts
from voxfetch.formats.hdf5.table import Layout, chunk_table
from voxfetch.table import MISSING, ObjectVersion


@pytest.fixture
def engine():
    with vf.Engine(decode_threads=2) as engine:
        yield engine


# ------------------------------------------------------------------------------------------------- tables, made by hand


def info(place, start, size, mask=0):
    return SimpleNamespace(chunk_offset=place, byte_offset=start, size=size, filter_mask=mask)


def table_of(infos, *, shape=(8, 8), chunks=(4, 4), filters=1, nbytes=1000, one_by_one=False):
    """The table of a dataset of uint8 of which the library tells this."""

    def told(take):
        for one in infos:
            if take(one):
                return

    plist = SimpleNamespace(get_layout=lambda: h5py.h5d.CHUNKED)
    ways = {"get_num_chunks": lambda: len(infos), "get_chunk_info": infos.__getitem__}
    identity = SimpleNamespace(get_create_plist=lambda: plist, **(ways if one_by_one else {"chunk_iter": told}))
    dataset = SimpleNamespace(shape=shape, maxshape=shape, chunks=chunks, id=identity)
    opened = SimpleNamespace(nbytes=nbytes, version=ObjectVersion("x", None, nbytes))
    return chunk_table(dataset, Layout(shape, chunks, 1, filters), opened, "a.h5", "a.h5/a")


@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_table_by_hand(one_by_one):
    table = table_of([info((4, 0), 100, 10), info((0, 4), 110, 16, 1), info((4, 4), None, 0)], one_by_one=one_by_one)
    assert table.offsets.tolist() == [MISSING, 110, 100, MISSING]
    assert table.nbytes.tolist() == [0, 16, 10, 0]
    assert table.masks.tolist() == [0, 1, 0, 0]
    assert table.version == ObjectVersion("x", None, 1000)


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize(
    ("infos", "named"),
    [
        ([info((4, 0), 100, 10), info((0, 0), 109, 10)], "overlap"),
        ([info((4, 0), 100, 10), info((0, 0), 100, 10)], "overlap"),
        ([info((4, 0), 100, 10), info((4, 0), 200, 10)], "two chunks at one place"),
        ([info((4, 8), 100, 10)], "off its grid"),
        ([info((2**63, 0), 100, 10)], "off its grid"),
        ([info((4, 1), 100, 10)], "off its grid"),
        ([info((4, 0), 991, 10)], "reaches out of the file"),
        ([info((4, 0), 2**64 - 2, 10)], "reaches out of the file"),
        ([info((4, 0), 2**64 - 1, 1)], "reaches out of the file"),
        ([info((4, 0), 5, 2**64 - 1)], "reaches out of the file"),
        ([info((4, 0), 5, 0)], "without bytes"),
        ([info((4, 0), 5, 10, 2)], "a filter that it has not"),
        ([info((4, 0), 5, 10, 1)], "as long as its voxels"),
        ([info((0, 0), 10 * i, 10) for i in range(5)], "more chunks than its grid"),
    ],
)
def test_tables_that_are_refused(infos, named, one_by_one):
    with pytest.raises(vf.DataError, match=named) as caught:
        table_of(infos, one_by_one=one_by_one)
    assert caught.value.key == "a.h5/a"


def test_chunks_without_filters_have_one_size():
    with pytest.raises(vf.DataError, match="as long as its voxels"):
        table_of([info((0, 0), 5, 15)], filters=0)
    assert table_of([info((0, 0), 5, 16)], filters=0).nbytes.tolist() == [16, 0, 0, 0]


def test_a_grid_of_any_size_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (1 << 40, 4), "u1", chunks=(1, 1))
        file.create_dataset("b", (1 << 58,), "u1")
    for name in "ab":
        with pytest.raises(vf.LimitExceededError, match="a grid of"):
            vf.open_array(path, name)


# --------------------------------------------------------------------------------------------------------- broken files


def test_a_file_that_is_cut_off(tmp_path, engine):
    path, cut = tmp_path / "a.h5", tmp_path / "cut.h5"
    names = write_layouts(path, "earliest")
    data = path.read_bytes()
    for nbytes in (*range(0, 200, 7), *range(200, len(data), len(data) // 40)):
        cut.write_bytes(data[:nbytes])
        for name in names[:4]:
            with pytest.raises((vf.DataError, vf.UnsupportedError)) as caught:
                vf.open_array(cut, name, engine=engine)[...]
            assert str(cut) in caught.value.key


def test_what_the_library_says_is_told(tmp_path):
    path = tmp_path / "a.h5"
    write_layouts(path, "latest")
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    with pytest.raises(vf.DataError, match="checksum") as caught:
        vf.open(path)
    assert caught.value.key == str(path)


FLIPS = """
import sys, pathlib, numpy as np, warnings
import voxfetch as vf
path, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2])
data = path.read_bytes()
random = np.random.default_rng(seed)
outcomes = set()
for i in range(60):
    broken = bytearray(data)
    for _ in range(random.integers(1, 4)):
        broken[random.integers(0, len(broken))] = random.integers(0, 256)
    path.with_suffix(".flip").write_bytes(broken)
    try:
        names = vf.open(path.with_suffix(".flip"), format="hdf5").keys()
        for name in names:
            try:
                array = vf.open_array(path.with_suffix(".flip"), name, format="hdf5")
                if array.nbytes < 1 << 24:
                    array[...]
                outcomes.add("read")
            except vf.VoxfetchError as error:
                outcomes.add(type(error).__name__)
    except vf.VoxfetchError as error:
        outcomes.add(type(error).__name__)
print(*sorted(outcomes))
"""


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_bytes_that_flip(libver, tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file.create_dataset("a", data=voxels((9, 9)), chunks=(4, 4), compression="gzip", fletcher32=True)
        file.create_dataset("b", data=voxels((9, 9)))
        file.create_dataset("c", data=voxels((9, 9)), chunks=(2, 2), maxshape=(None, None))
        file["a"].attrs["words"] = ["a", "b"]
    # In a process of its own: what breaks a C library is not what is tested here.
    command = [sys.executable, "-c", FLIPS, str(path), "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"read", "DataError"} <= set(done.stdout.split())


def test_a_chunk_whose_place_is_changed(tmp_path, engine):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="earliest") as file:
        file.create_dataset("a", data=voxels((8, 8)), chunks=(4, 8))
        places = [file["a"].id.get_chunk_info(i).byte_offset for i in range(2)]
    data = path.read_bytes()
    old = struct.pack("<Q", places[1])
    assert data.count(old) == 1
    for place, named in ((places[0], "overlap"), (len(data) - 3, "out of the file"), (1 << 60, "out of the file")):
        path.write_bytes(data.replace(old, struct.pack("<Q", place)))
        with pytest.raises(vf.DataError, match=named):
            vf.open_array(path, "a", engine=engine)


def test_a_chunk_that_is_broken(tmp_path, engine):
    path = tmp_path / "a.h5"
    expected = voxels((8, 8))
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=expected, chunks=(4, 8), compression="gzip")
        chunk = file["a"].id.get_chunk_info_by_coord((4, 0))
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + 2] = b"\0\0"
    path.write_bytes(data)
    array = vf.open_array(path, "a", engine=engine)
    with pytest.raises(vf.CodecError) as caught:
        array[...]
    assert caught.value.chunk == (1, 0)
    assert caught.value.byte_range == (chunk.byte_offset, chunk.byte_offset + chunk.size)
    np.testing.assert_array_equal(array[:4], expected[:4])


def test_a_chunk_that_decodes_to_more(tmp_path, engine):
    import zlib

    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (8, 8), "u1", chunks=(4, 8), compression="gzip")
        file["a"].id.write_direct_chunk((0, 0), zlib.compress(bytes(1 << 22)))
    with pytest.raises(vf.CodecError):
        vf.open_array(path, "a", engine=engine)[...]


def test_attributes_of_any_size(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["large"] = np.zeros(3 << 20, "f8")
        file.attrs["small"] = 1
    assert vf.open(path).attrs == {"large": "<more than 16,777,216 bytes>", "small": 1}


def test_structures_of_any_depth(tmp_path):
    path = tmp_path / "a.h5"
    dtype = np.dtype("u1")
    for _ in range(12):
        dtype = np.dtype([("a", dtype)])
    with h5py.File(path, "w") as file:
        file.create_dataset("deep", (2,), dtype)
        file.create_dataset("wide", (2,), np.dtype([(f"f{i}", "u1") for i in range(1200)]))
    for name in ("deep", "wide"):
        with pytest.raises(vf.UnsupportedError, match="a structure of"):
            vf.open_array(path, name)
