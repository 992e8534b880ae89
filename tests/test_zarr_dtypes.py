"""Data types of Zarr beyond plain numbers: what zarr-python and tensorstore write, voxel by voxel; what is refused."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tensorstore
import zarr

import voxfetch as vf
from tests.servers.faulty import FaultyServer

DATA = Path(__file__).parent / "data" / "zarr" / "zarr-python-3.4.2"
POINT = np.dtype([("id", "u2"), ("at", [("x", "f4"), ("when", "M8[10s]")]), ("tag", "S3"), ("name", "U2"), ("z", "c8")])
FLAT = np.dtype([("id", "u2"), ("when", "M8[10s]"), ("tag", "S3"), ("name", "U2"), ("z", "c8")])
TYPES = ["M8[ns]", "M8[25s]", "M8[D]", "m8[10ms]", "m8[us]", "U5", "S3", "V7"]
NARROW = ["bfloat16", "int2", "int4"]
NARROW += ["float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2"]
NARROW += ["float8_e5m2fnuz", "float8_e8m0fnu", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn", "uint2", "uint4"]
SHAPE = (11, 9)


@pytest.fixture
def engine():
    with vf.Engine(decode_threads=2) as engine:
        yield engine


def voxels(dtype, shape=SHAPE):
    """Different voxels of any type, NaT among them."""
    dtype = np.dtype(dtype)
    index = np.arange(np.prod(shape)).reshape(shape)
    if dtype.names:
        result = np.zeros(shape, dtype)
        for name in dtype.names:
            field = result[name]
            field[...] = voxels(field.dtype, field.shape)
        return result
    if dtype.kind == "V":
        one_byte = np.arange(index.size * dtype.itemsize, dtype=np.uint32) * 7 % 251
        return one_byte.astype(np.uint8).view(dtype).reshape(shape)
    result = index.astype(dtype) if dtype.kind in "SU" else (index * 259 % 65000).astype(dtype)
    if dtype.kind in "Mm":
        result[result.astype(np.int64) % 5 == 1] = "NaT"
    return result


def same(got, expected):
    """Equal bits, which NaN and NaT have too."""
    got, expected = np.asarray(got), np.asarray(expected)
    expected = expected.astype(expected.dtype.newbyteorder("="))
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    assert got.tobytes() == expected.tobytes()


def assert_reads(array, expected):
    """All kinds of reads, into memory of all kinds."""
    assert array.dtype.isnative
    same(array[...], expected)
    same(array[2:9:3, -4:], expected[2:9:3, -4:])
    same(array[3, 4], expected[3, 4])
    same(array.read(order="F"), expected)
    same(array.oindex[[8, 1, 1], :], expected[[8, 1, 1]])
    same(array.read_points([[0, 0], [10, 8], [5, 3]]), expected[[0, 10, 5], [0, 8, 3]])
    outside = array.read_box((9, -1), (4, 3), bounds="fill")
    same(outside[:2, 1:], expected[9:, :2])
    same(outside[2:], np.full((2, 3), array.fill_value, array.dtype))
    same(array.with_axes(array.axes[::-1])[1:5], expected.T[1:5])
    out = np.empty((9, 22), array.dtype).T[::2]
    same(array.read(out=out), expected)
    buffer = np.empty(expected.nbytes, np.uint8)
    array.read(out=buffer)
    same(buffer.view(array.dtype).reshape(expected.shape), expected)
    again = pickle.loads(pickle.dumps(array))
    assert (again, again.dtype) == (array, array.dtype)
    same(again[4:6], expected[4:6])


def written(path, expected, **layout):
    """By zarr-python, which warns of types without a specification; one chunk is taken away."""
    if expected.dtype.names:
        layout.setdefault("compressors", None)  # numcodecs takes no buffer of a struct with dates
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = zarr.create_array(path, shape=expected.shape, dtype=expected.dtype, **layout)
        array[...] = expected
        (path / array.metadata.encode_chunk_key((1, 0))).unlink()
        return np.asarray(array[...]), np.asarray(array.fill_value)


# ------------------------------------------------------------------------------------------------------ by zarr-python


CHUNKS, SHARDS = {"chunks": (4, 5)}, {"chunks": (2, 5), "shards": (4, 10)}
# This zarr-python does not write shards of raw bytes or of structs.
LAYOUTS = [(dtype, layout) for layout in (CHUNKS, SHARDS) for dtype in [*TYPES, POINT]]
LAYOUTS = [(dtype, layout) for dtype, layout in LAYOUTS if layout is CHUNKS or np.dtype(dtype).kind != "V"]


@pytest.mark.parametrize(("dtype", "layout"), LAYOUTS, ids=lambda value: "" if isinstance(value, dict) else str(value))
def test_types_of_version_3(tmp_path, engine, dtype, layout):
    expected, fill_value = written(tmp_path / "a", voxels(dtype), **layout)
    array = vf.open_array(tmp_path / "a", engine=engine)
    assert_reads(array, expected)
    same(array.fill_value, fill_value)
    assert array.verify().problem_count == 0
    with FaultyServer(tmp_path / "a") as server:
        assert_reads(vf.open_array(server.url, engine=engine), expected)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [*TYPES, FLAT], ids=str)
def test_types_of_version_2(tmp_path, engine, dtype, order):
    expected = voxels(dtype)
    expected = expected.astype(expected.dtype.newbyteorder(order))
    expected, fill_value = written(tmp_path / "a", expected, chunks=(4, 5), zarr_format=2, order="F")
    array = vf.open_array(tmp_path / "a", engine=engine)
    assert_reads(array, expected)
    same(array.fill_value, fill_value)


@pytest.mark.parametrize("dtype", ["M8[s]", "U3", "S3", "V2", FLAT], ids=str)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_fill_values(tmp_path, zarr_format, dtype):
    fill_value = voxels(dtype)[3, 7:8].reshape(())
    expected, _ = written(
        tmp_path / "a", voxels(dtype), chunks=(4, 5), fill_value=fill_value[()], zarr_format=zarr_format
    )
    array = vf.open_array(tmp_path / "a")
    same(np.asarray(array.fill_value, array.dtype), fill_value)
    same(array[4:8, :5], np.full((4, 5), fill_value))
    same(array[...], expected)


@pytest.mark.parametrize("name", ["struct_little", "struct_big", "struct_shards"])
def test_structs_by_a_later_version(engine, name):
    expected = np.load(DATA / f"{name}.npy")
    array = vf.open_array(DATA / f"{name}.zarr", engine=engine)
    same(array[...], expected)
    same(array[1:3, 2], expected[1:3, 2])
    assert array.dtype["at"]["x"] == np.float32
    assert (array.fill_value["id"], array.fill_value["at"]["x"], array.fill_value["name"]) == (1, 2.5, "é")
    assert np.isnat(array.fill_value["when"])
    with FaultyServer(DATA / f"{name}.zarr") as server:
        same(vf.open_array(server.url, engine=engine)[...], expected)


def test_fields_that_are_arrays_and_fields_of_mixed_order(tmp_path):
    """As numpy describes such types; padding of an aligned one is a field of its own."""
    inner = np.dtype({"names": ["a", "b"], "formats": ["<i2", ">f8"]})
    dtype = np.dtype([("n", ">u4", (2, 3)), ("", "V3"), ("r", inner, (2,)), ("f", "<c8"), ("s", "S2", 1)])
    expected = voxels(dtype, (4, 5))
    fields = [
        ["n", ">u4", [2, 3]],
        ["", "|V3"],
        ["r", [["a", "<i2"], ["b", ">f8"]], 2],
        ["f", "<c8"],
        ["s", "|S2", [1]],
    ]
    document = {"zarr_format": 2, "shape": [4, 5], "chunks": [4, 5], "dtype": fields, "compressor": None}
    document |= {"fill_value": None, "order": "C", "filters": None}
    (tmp_path / ".zarray").write_text(json.dumps(document))
    (tmp_path / "0.0").write_bytes(expected.tobytes())
    array = vf.open_array(tmp_path)
    assert array.dtype.names == ("n", "f1", "r", "f", "s")
    got = array[...]
    for name in array.dtype.names:
        np.testing.assert_array_equal(got[name], expected[name])
    assert got["n"].dtype.isnative
    np.testing.assert_array_equal(array[1:3, ::2]["r"]["b"], expected[1:3, ::2]["r"]["b"])


# ------------------------------------------------------------------------------------------------------ by tensorstore


def by_tensorstore(path, driver, dtype, expected):
    chunks = (
        {"chunks": [4, 5]}
        if driver == "zarr"
        else {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 5]}}}
    )
    metadata = {"shape": list(SHAPE), ("dtype" if driver == "zarr" else "data_type"): dtype, **chunks}
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": str(path)}, "metadata": metadata, "create": True}
    store = tensorstore.open(spec).result()
    store.write(expected).result()
    return store.read().result()


@pytest.mark.parametrize("driver", ["zarr", "zarr3"])
@pytest.mark.parametrize("dtype", ["bfloat16", "int4", "float8_e4m3fn", "float8_e5m2"])
def test_numbers_that_tensorstore_has(tmp_path, engine, dtype, driver):
    expected = (np.arange(99).reshape(SHAPE) % 16 - 8).astype(getattr(ml_dtypes, dtype))
    expected = by_tensorstore(tmp_path / "a", driver, dtype, expected)
    array = vf.open_array(tmp_path / "a", engine=engine)
    assert_reads(array, expected)
    with FaultyServer(tmp_path / "a") as server:
        assert_reads(vf.open_array(server.url, engine=engine), expected)


# ------------------------------------------------------------------------------------------------------------- by hand


def by_hand(path, dtype, stored, fill_value=0, **members):
    """One chunk of raw bytes."""
    path.mkdir(exist_ok=True)
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(stored.shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(stored.shape)}},
        "chunk_key_encoding": "default",
        "fill_value": fill_value,
        "codecs": ["bytes"],
    }
    (path / "zarr.json").write_text(json.dumps(document | members))
    key = path / "c" / "/".join("0" * stored.ndim)
    key.parent.mkdir(parents=True, exist_ok=True)
    key.write_bytes(stored.tobytes())
    return path


@pytest.mark.parametrize("dtype", NARROW)
def test_every_bit_pattern_is_read(tmp_path, dtype):
    """Bits that do not matter are not shown: they would make equal numbers look different."""
    native = np.dtype(getattr(ml_dtypes, dtype))
    bits = int("".join(c for c in dtype.partition("_")[0] if c.isdigit()))
    stored = np.arange(1 << (8 * native.itemsize), dtype=f"<u{native.itemsize}").reshape(16, -1)
    array = vf.open_array(by_hand(tmp_path / "a", dtype, stored, 1))
    assert array.dtype == native
    same(array[...], (stored & ((1 << bits) - 1)).view(native))
    assert array.fill_value == native.type(1)
    big = [{"name": "bytes", "configuration": {"endian": "big"}}]
    swapped = by_hand(tmp_path / "b", dtype, stored.astype(stored.dtype.newbyteorder(">")), 1, codecs=big)
    same(vf.open_array(swapped)[...], array[...])


@pytest.mark.parametrize("dtype", NARROW)
def test_fill_values_are_rounded_as_ml_dtypes_does(tmp_path, dtype):
    native = np.dtype(getattr(ml_dtypes, dtype))
    values = [1.0] if dtype == "float8_e8m0fnu" else [1.0, 0.0]
    if "float" in dtype and dtype != "float8_e8m0fnu":
        values += [-0.0, 0.3, -1.7, 1.0625, 2.5, 0.001, 1e-7]
    for value in values:
        fill_value = int(value) if "int" in dtype else value
        array = vf.open_array(by_hand(tmp_path / "a", dtype, np.zeros((1, 1), "V1"), fill_value))
        same(array.fill_value, np.array(value).astype(native))


def test_arrays_are_written_in_the_order_they_have(tmp_path):
    before = voxels(FLAT)
    layout = {"chunks": (4, 5), "zarr_format": 2}
    written(tmp_path / "a", before.astype(before.dtype.newbyteorder(">")), **layout)
    array = vf.open_array(tmp_path / "a", mode="r+")
    array[...] = before[::-1]
    same(zarr.open_array(tmp_path / "a")[...].astype(FLAT), before[::-1])


# ------------------------------------------------------------------------------------------------------------- refused


def test_without_ml_dtypes(tmp_path):
    path = by_hand(tmp_path / "a", "bfloat16", np.zeros((2, 2), "u2"))
    code = f"""if True:
        import sys
        sys.modules["ml_dtypes"] = None
        import voxfetch as vf
        try:
            vf.open_array({str(path)!r})
        except vf.UnsupportedError as error:
            assert "bfloat16" in str(error) and "pip install" in error.hint, error
            assert {path.name!r} in error.key, error.key
        else:
            raise AssertionError("opened")
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("dtype", ["complex_bfloat16", "complex_float8_e5m2", "float8", "int3"])
def test_numbers_that_nobody_has(tmp_path, dtype):
    with pytest.raises(vf.UnsupportedError, match=f"`{dtype}`"):
        vf.open_array(by_hand(tmp_path / "a", dtype, np.zeros((1, 1), "u1")))
