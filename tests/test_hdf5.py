"""HDF5 files on disk: the same voxels as h5py reads, whatever the layout, the index, the filters and the types."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import voxfetch as vf
from tests.hdf5_files import FILTERS, REFUSED, by_table, low, node_at, nodes, voxels, write_layouts
from voxfetch.formats.hdf5.table import row_chunks

DATA = Path(__file__).parent / "data/hdf5"
FOREIGN = sorted(path for path in DATA.rglob("*") if path.suffix in {".hdf5", ".nc", ".h5"})


@pytest.fixture
def engine():
    with vf.Engine(decode_threads=2) as engine:
        yield engine


def same(array, expected):
    """Compares the whole, a box and a selection with steps with what h5py read."""
    assert array.shape == expected.shape
    assert array.dtype == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(array[...], expected)
    box = tuple(slice(extent // 3, extent - extent // 4) for extent in expected.shape)
    np.testing.assert_array_equal(array[box], expected[box])
    steps = tuple(slice(extent // 5, None, 2 + i) for i, extent in enumerate(expected.shape))
    np.testing.assert_array_equal(array[steps], expected[steps])


# ------------------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("userblock", [0, 512, 4096])
@pytest.mark.parametrize("libver", ["earliest", "v110", "latest"])
def test_every_layout_and_chunk_index(libver, userblock, tmp_path, engine):
    path = tmp_path / "a.h5"
    names = write_layouts(path, libver, userblock)
    opened = vf.open(path, engine=engine)
    assert opened.format == "hdf5"
    assert list(opened.keys()) == names
    with h5py.File(path) as file:
        for name in names:
            same(opened[name], file[name][...])


def test_a_table_is_all_that_a_dataset_needs(tmp_path):
    path = tmp_path / "a.h5"
    names = write_layouts(path, "latest", 512)
    data = path.read_bytes()
    with h5py.File(path) as file:
        for name in set(names) - {"compact"}:
            np.testing.assert_array_equal(by_table(node_at(path, name), data), file[name][...])


@pytest.mark.parametrize(
    ("shape", "item", "chunks"),
    [
        ((), 8, ()),
        ((0,), 8, (1,)),
        ((250, 250, 250), 4, (4, 250, 250)),
        ((3, 1 << 11, 1 << 10), 1, (1, 1 << 10, 1 << 10)),
        ((5, 3 << 20), 1, (1, 1 << 20)),
        ((2, 1, (1 << 20) + 1), 1, (1, 1, 1 << 20)),
        ((1 << 20, 7), 2, ((1 << 20) // 14, 7)),
        ((2, 3), 1 << 21, (1, 1)),
        ((7,), 1, (7,)),
    ],
)
def test_rows_of_what_is_stored_in_one_piece(shape, item, chunks):
    assert row_chunks(shape, item) == chunks


@pytest.mark.parametrize("shape", [(3000, 1000), (2, 700, 1200), (3, 1, 1_500_000), (5, 1 << 20), (1 << 21,)])
def test_a_large_dataset_in_one_piece(shape, tmp_path, engine):
    path = tmp_path / "a.h5"
    expected = voxels(shape, ">u2")
    with h5py.File(path, "w", userblock_size=512) as file:
        file["a"] = expected
    array = vf.open_array(path, "a", engine=engine)
    assert np.prod(array.chunks) * 2 <= 1 << 20
    same(array, expected)
    # A box needs its rows only.
    report = array.explain(np.s_[..., :1])
    assert report.bytes_fetched <= array.nbytes
    assert array.explain(np.s_[:1]).bytes_fetched < array.nbytes / 1.9


@pytest.mark.parametrize("rank", range(6))
@pytest.mark.parametrize("chunked", [False, True])
def test_ranks(rank, chunked, tmp_path, engine):
    if chunked and not rank:
        pytest.skip("a scalar has no chunks")
    shape = (7, 5, 4, 3, 2)[:rank]
    expected = voxels(shape, "int32")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=expected, chunks=(3,) * rank if chunked and rank < 5 else chunked or None)
        if not chunked:
            low(file, "compact", expected, h5py.h5d.COMPACT)
    same(vf.open_array(path, "a", engine=engine), expected)
    if not chunked:
        same(vf.open_array(path, "compact", engine=engine), expected)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0, 4)])
def test_empty_datasets(shape, tmp_path, engine):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("contiguous", shape, "f4")
        file.create_dataset("chunked", shape, "f4", chunks=(2,) * len(shape), maxshape=(None,) * len(shape))
    for name in ("contiguous", "chunked"):
        array = vf.open_array(path, name, engine=engine)
        assert array.shape == shape
        assert array[...].shape == shape


def test_a_dataset_of_null_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["a"] = h5py.Empty("f4")
    with pytest.raises(vf.UnsupportedError, match="null"):
        vf.open_array(path, "a")


# ------------------------------------------------------------------------------------------------------------- filters


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i4", "<f8"])
def test_every_filter(name, dtype, tmp_path, engine):
    keywords, codecs = FILTERS[name]
    expected = voxels((37, 29), dtype)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=expected, chunks=(11, 13), **keywords)
    assert [codec["id"] for codec in json.loads(node_at(path, "a").document)["filters"]] == codecs
    same(vf.open_array(path, "a", engine=engine), expected)


def test_bytes_that_do_not_compress(tmp_path, engine):
    expected = np.random.default_rng(1).integers(0, 256, (64, 64), "u1")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name, (keywords, _) in FILTERS.items():
            file.create_dataset(name, data=expected, chunks=(32, 33), **keywords)
    for name in FILTERS:
        same(vf.open_array(path, name, engine=engine), expected)


def test_filters_that_single_chunks_were_written_without(tmp_path, engine):
    expected = voxels((12, 8), "<u2")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        made = file.create_dataset(
            "a", (12, 8), "<u2", chunks=(4, 8), compression="gzip", shuffle=True, fletcher32=True
        )
        made[...] = expected
        # Bit i of the mask: filter i, in the order shuffle, deflate, fletcher32, was left out.
        made.id.write_direct_chunk((4, 0), expected[4:8].tobytes(), filter_mask=0b111)
        shuffled = expected[8:].copy().view("u1").reshape(-1, 2).T.tobytes()
        made.id.write_direct_chunk((8, 0), shuffled, filter_mask=0b110)
        assert made.id.get_chunk_info_by_coord((8, 0)).filter_mask == 0b110
    assert node_at(path, "a").table.masks.tolist() == [0, 7, 6]
    same(vf.open_array(path, "a", engine=engine), expected)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["a"][...], expected)


def test_a_checksum_that_differs(tmp_path, engine):
    expected = voxels((12, 8), "<u2")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=expected, chunks=(4, 8), fletcher32=True)
        chunk = file["a"].id.get_chunk_info_by_coord((4, 0))
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + 5] ^= 1
    path.write_bytes(data)
    array = vf.open_array(path, "a", engine=engine)
    with pytest.raises(vf.ChecksumError) as caught:
        array[...]
    assert caught.value.chunk == (1, 0)
    assert caught.value.key.endswith("a.h5")
    np.testing.assert_array_equal(array[:4], expected[:4])
    report = array.verify()
    assert (report.problem_count, report.chunks) == (1, 3)


@pytest.mark.parametrize("dtype", ["i1", "u1", "<i2", ">i2", "<u4", ">u4", "<i8", ">i8", "<u8"])
@pytest.mark.parametrize("bits", [0, 1, 3, 5])
def test_integers_in_fewer_bits(dtype, bits, tmp_path, engine):
    dtype = np.dtype(dtype)
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    path = tmp_path / "a.h5"
    cases = {
        "one value": [7] * 40,
        "few": [5, 9, 6, 5] * 10,
        "all bits": [least, most] * 20,
        "all but two": [least + 1, most - 1] * 20,
        "small": range(40),
        "at the end": [most - i for i in range(40)],
    }
    with h5py.File(path, "w") as file:
        for name, values in cases.items():
            for fill in dict.fromkeys((None, 0, 9, int(most), int(least))):
                keywords = {"scaleoffset": bits, "fillvalue": fill, "compression": "gzip"}
                file.create_dataset(f"{name} {fill}", data=np.array(values, dtype), chunks=(17,), **keywords)
    with h5py.File(path) as file:
        for name in file:
            same(vf.open_array(path, name, engine=engine), file[name][...])


@pytest.mark.parametrize("name", REFUSED)
def test_filters_that_are_refused_by_name(name, tmp_path):
    keywords, named = REFUSED[name]
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=voxels((16, 16), "i4"), **{"chunks": (8, 8), **keywords})
    with pytest.raises(vf.UnsupportedError, match=named) as caught:
        vf.open_array(path, "a")
    assert "h5repack" in caught.value.hint


# --------------------------------------------------------------------------------------------------------------- types


@pytest.mark.parametrize(
    "dtype",
    [
        *("i1", "u1", "<i2", ">i2", "<u2", ">u2", "<i4", ">i4", "<u4", ">u4", "<i8", ">i8", "<u8", ">u8"),
        *("<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "<c8", ">c8", "<c16", ">c16"),
        *("S3", "V5", "?"),
    ],
)
@pytest.mark.parametrize("chunks", [None, (3, 2)])
def test_types(dtype, chunks, tmp_path, make_values, engine):
    dtype = np.dtype(dtype)
    expected = make_values((7, 5), "u1").astype(dtype) if dtype.kind == "V" else make_values((7, 5), dtype)
    expected = expected.astype(dtype)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=expected, dtype=dtype, chunks=chunks)
    array = vf.open_array(path, "a", engine=engine)
    assert array.dtype == dtype.newbyteorder("=")
    same(array, expected)


def test_enumerations_are_their_integers_and_those_of_truth_are_bool(tmp_path, engine):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=np.array([1, 300, 1], ">i2"), dtype=h5py.enum_dtype({"x": 1, "y": 300}, ">i2"))
        file.create_dataset("b", data=np.array([True, False]))
    assert vf.open_array(path, "a", engine=engine)[...].tolist() == [1, 300, 1]
    assert vf.open_array(path, "b", engine=engine).dtype == bool


def test_axes_that_elements_have(tmp_path, engine):
    expected = voxels((6, 4, 2, 3), ">f4")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (6, 4), np.dtype((">f4", (2, 3))), chunks=(4, 3), compression="gzip", shuffle=True)
        file["a"][...] = expected
        file.create_dataset("b", (6, 4), np.dtype((">f4", (2, 3))))
        file["b"][...] = expected
        file["a"].dims[1].label = "y"
    for name in "ab":
        same(vf.open_array(path, name, engine=engine), expected)
    assert vf.open_array(path, "a", engine=engine).axes == ("dim_0", "y", "dim_2", "dim_3")


@pytest.mark.parametrize(
    ("dtype", "named"),
    [
        (h5py.string_dtype(), "strings of variable length"),
        (h5py.vlen_dtype("i4"), "sequences of variable length"),
        (h5py.ref_dtype, "references"),
        (np.dtype({"names": ["a", "b"], "formats": ["i1", "i4"], "offsets": [0, 4]}), "gaps"),
        (np.dtype("longdouble"), "IEEE"),
    ],
)
def test_types_that_are_refused_by_name(dtype, named, tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (3,), dtype)
    with pytest.raises(vf.UnsupportedError, match=named) as caught:
        vf.open_array(path, "a")
    assert caught.value.key.endswith("a.h5/a")


def test_structures_are_their_fields(tmp_path):
    path = tmp_path / "a.h5"
    fields = [("a", "<i4"), ("b", ">f8"), ("c", "S3"), ("d", "?"), ("e", "<u2", (2,)), ("f", [("g", "<c8")])]
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (3,), np.dtype(fields), chunks=(2,), fillvalue=np.ones((), np.dtype(fields))[()])
    document = json.loads(node_at(path, "a").document)
    assert document["dtype"] == [
        ["a", "<i4"],
        ["b", ">f8"],
        ["c", "|S3"],
        ["d", "|b1"],
        ["e", "<u2", [2]],
        ["f", [["g", "<c8"]]],
    ]
    assert base64.b64decode(document["fill_value"]) == np.ones((), np.dtype(fields)).tobytes()


def test_integers_with_spare_bits_are_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        kind = h5py.h5t.STD_U16LE.copy()
        kind.set_precision(12)
        h5py.h5d.create(file.id, b"a", kind, h5py.h5s.create_simple((4,)))
    with pytest.raises(vf.UnsupportedError, match="12 bits in 2 bytes"):
        vf.open_array(path, "a")


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [("<i2", -3), (">f4", np.nan), ("<f8", -np.inf), ("<f8", 0.1), (">u8", 2**64 - 1), ("?", True), ("<c8", 1 - 2j)],
)
def test_fill_values(dtype, fill, tmp_path, engine):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (5, 5), dtype, chunks=(2, 2), fillvalue=fill)
        file["a"][0:2, 0:2] = 1
        expected = file["a"][...]
    array = vf.open_array(path, "a", engine=engine)
    np.testing.assert_array_equal(array[...], expected)
    np.testing.assert_array_equal(array.fill_value, np.array(fill, dtype))


# ------------------------------------------------------------------------------------------------------- foreign files


@pytest.mark.parametrize("path", FOREIGN, ids=lambda path: path.name)
def test_foreign_files(path, engine):
    found = 0
    with h5py.File(path) as file:
        for node in nodes(node_at(path)):
            if node.kind == "array":
                name = node.path.partition("/")[2]
                expected = file[name][()]
                array = vf.open_array(path, name, engine=engine)
                np.testing.assert_array_equal(array[...], expected)
                found += 1
    assert found or path.name in {"groups.hdf5", "new_style_groups.hdf5"}


# ---------------------------------------------------------------------------------------------------------- hierarchies


def test_groups_attributes_and_names_of_axes(tmp_path, engine):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w", track_order=True) as file:
        file.attrs.update({"n": np.int16(3), "s": "é", "b": np.bytes_(b"x"), "l": [1.5, 2.5], "t": np.bool_(True)})
        file.attrs["words"] = ["a", "bc"]
        file.attrs["nothing"] = h5py.Empty("f4")
        file.attrs["complex"] = 1 + 2j
        deep = file.create_group("z/deep")
        deep["a"] = voxels((4, 3, 2))
        deep["a"].dims[0].label = "time"
        deep["lon"] = np.arange(2.0)
        deep["lon"].make_scale("longitude")
        deep["a"].dims[2].attach_scale(deep["lon"])
        file.attrs["ref"] = deep.ref
        file["link"] = h5py.SoftLink("/z/deep/a")
        file["z/up"] = h5py.SoftLink("deep")
        file["kind"] = np.dtype("i4")
    opened = vf.open(path, engine=engine)
    assert isinstance(opened, vf.Group)
    attrs = dict(opened.attrs)
    assert attrs.pop("ref") == "<HDF5 object reference>"
    assert attrs == {
        "n": 3,
        "s": "é",
        "b": "x",
        "l": [1.5, 2.5],
        "t": True,
        "words": ["a", "bc"],
        "nothing": None,
        "complex": [1.0, 2.0],
    }
    assert all(type(value) in {int, str, list, bool, type(None)} for value in attrs.values())
    assert opened.keys() == ("link", "z")
    assert opened["z"]["deep"]["a"].axes == ("time", "dim_1", "lon")
    np.testing.assert_array_equal(opened["link"][...], voxels((4, 3, 2)))
    np.testing.assert_array_equal(opened["z/up/a"][...], voxels((4, 3, 2)))
    assert opened["z/deep"].url == f"file://{path}/z/deep"
    assert "a (4, 3, 2) uint16" in opened.tree()
    again = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal(again["z/deep/a"][...], voxels((4, 3, 2)))
    array = pickle.loads(pickle.dumps(opened["z/deep/a"]))
    assert array.axes == ("time", "dim_1", "lon")
    np.testing.assert_array_equal(array[1], voxels((4, 3, 2))[1])


def test_ways_to_name_what_is_inside(tmp_path, engine):
    path = tmp_path / "a.data"
    write_layouts(path, "latest", 2048)
    expected = vf.open(path)["contiguous"][...]
    for opened in (
        vf.open_array(path, "contiguous", engine=engine),
        vf.open_array(path, "/contiguous", format="hdf5", engine=engine),
        vf.open(f"{path}|hdf5:/contiguous", engine=engine),
        vf.open(f"{path}|hdf5:contiguous", engine=engine),
        vf.open(f"{path}/contiguous", engine=engine),
        vf.open(f"hdf5://{path}/contiguous", engine=engine),
        asyncio.run(vf.open_async(f"{path}|hdf5:/contiguous", engine=engine)),
    ):
        np.testing.assert_array_equal(opened[...], expected)
    with pytest.raises(vf.NotFoundError, match="there is no 'nope'") as caught:
        vf.open_array(path, "nope")
    assert "compact, contiguous" in caught.value.hint
    with pytest.raises(vf.NotFoundError, match="there is no 'x' in '/contiguous'"):
        vf.open_array(path, "contiguous/x")
    with pytest.raises(vf.MetadataError, match="this is a group") as caught:
        vf.open_array(path)
    assert "compact" in caught.value.hint


def test_links_that_are_not_followed(tmp_path):
    other, path = tmp_path / "other.h5", tmp_path / "a.h5"
    with h5py.File(other, "w") as file:
        file["a"] = [1, 2]
    with h5py.File(path, "w") as file:
        file["outside"] = h5py.ExternalLink("other.h5", "/a")
        file["by a link"] = h5py.SoftLink("/outside")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["around"] = h5py.SoftLink("/around")
        file["kind"] = np.dtype("i4")
    opened = vf.open(path)
    assert opened.keys() == ("around", "by a link", "dangling", "outside")
    for name in ("outside", "by a link"):
        with pytest.raises(vf.UnsupportedError, match=r"'other\.h5', is not followed"):
            opened[name]
    with pytest.raises(vf.NotFoundError, match="'nowhere'"):
        opened["dangling"]
    with pytest.raises(vf.LimitExceededError, match="64 links"):
        opened["around"]
    with pytest.raises(vf.UnsupportedError, match="data type with a name"):
        opened["kind"]
    assert opened.tree().count("!") == 4


def test_data_in_other_files_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("e", (4,), "u1", external=[(str(tmp_path / "e.raw"), 0, 4)])
        file["a"] = [1, 2]
        layout = h5py.VirtualLayout((2,), "i8")
        layout[:] = h5py.VirtualSource(file["a"])
        file.create_virtual_dataset("v", layout)
    with pytest.raises(vf.UnsupportedError, match="external files"):
        vf.open_array(path, "e")
    with pytest.raises(vf.UnsupportedError, match="virtual dataset"):
        vf.open_array(path, "v")


def test_a_file_that_is_open_elsewhere(tmp_path, engine):
    path = tmp_path / "a.h5"
    write_layouts(path, "earliest")
    with h5py.File(path, "r+") as file:
        file.flush()
        array = vf.open_array(path, "contiguous", engine=engine)
        np.testing.assert_array_equal(array[...], file["contiguous"][...])
    with h5py.File(path, locking=False) as file:
        np.testing.assert_array_equal(vf.open(path)["contiguous"][...], file["contiguous"][...])


def test_a_file_that_was_replaced(tmp_path, engine):
    path = tmp_path / "a.h5"
    write_layouts(path, "earliest")
    array = vf.open_array(path, "tree or array", engine=engine)
    write_layouts(path, "earliest", 512)
    with pytest.raises(vf.ObjectChangedError):
        array[...]


def test_other_files_and_folders(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"no HDF5 at all" * 100)
    with pytest.raises(vf.UnsupportedError, match="this is a file"):
        vf.open(path)
    with pytest.raises(vf.DataError, match="signature"):
        vf.open(path, format="hdf5")
    with pytest.raises(vf.UnsupportedError, match="this is a folder and not an HDF5 file"):
        vf.open(tmp_path, format="hdf5")
    with pytest.raises(vf.NotFoundError):
        vf.open(tmp_path / "none.h5", format="hdf5")
    write_layouts(path, "latest")
    with pytest.raises(vf.UnsupportedError, match="this is a file"):
        vf.open(path, format="zarr3")
    with pytest.raises(vf.UnsupportedError, match="chunk_tables"):
        vf.open(path, format_options={"chunk_table": "x"})
    with pytest.raises(TypeError, match="chunk_tables"):
        vf.open(path, format_options={"chunk_tables": 3})


def test_without_h5py(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    write_layouts(path, "latest")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(vf.UnsupportedError, match="h5py") as caught:
        vf.open(path)
    assert caught.value.hint == "pip install voxfetch[hdf5]"


def test_h5py_is_imported_by_the_first_hdf5_file_only(tmp_path):
    code = "import sys, voxfetch, voxfetch.sources; assert 'h5py' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
