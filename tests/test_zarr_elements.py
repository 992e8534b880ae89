"""Codecs that change elements: casts and sums as numpy has them, and the registered ones of Zarr v3."""

from __future__ import annotations

import numcodecs
import numpy as np
import pytest
import zarrista
from zarrista.store import FilesystemStore

import voxfetch as vf
from tests.conftest import values
from tests.one_chunk import LITTLE, codec, put_v2, put_v3

CASTS = [f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)] + ["f2", "f4", "f8", "?"]


@pytest.mark.parametrize("stored", CASTS)
@pytest.mark.parametrize("decoded", CASTS)
def test_casts_are_those_of_numpy(tmp_path, stored, decoded):
    stored, decoded = np.dtype(stored), np.dtype(decoded)
    elements = values((300,), stored, 1)
    if stored.kind == "f":
        # Numbers that an integer type does not have are as the compiler of numpy would have them.
        limit = 2.0 ** min(decoded.itemsize * 8 - 1, 10) - 1 if decoded.kind in "iu" else 1e4
        elements = (elements * limit).clip(-limit, limit).astype(stored)
        if decoded.kind != "i" and decoded.kind != "u":
            elements[:4] = [np.nan, np.inf, -np.inf, -0.0]
        if decoded.kind == "u":
            elements = abs(elements)
    with np.errstate(all="ignore"):
        expected = elements.astype(decoded)
    filters = [{"id": "astype", "encode_dtype": stored.str, "decode_dtype": decoded.str}]
    path = put_v2(tmp_path / "a", elements.tobytes(), shape=(300,), dtype=decoded, filters=filters)
    assert vf.open_array(path)[:].tobytes() == expected.tobytes()
    elements = elements[4:]
    filters = [{"id": "delta", "astype": stored.str, "dtype": decoded.str}]
    path = put_v2(tmp_path / "b", elements.tobytes(), shape=(296,), dtype=decoded, filters=filters)
    if np.promote_types(stored, decoded) != decoded and not (
        stored.kind in "iu" and decoded.kind in "iu" and np.promote_types(stored, decoded).kind in "iu"
    ):
        with pytest.raises(vf.UnsupportedError, match="`delta` from"):
            vf.open_array(path)
        return
    sums = np.empty(296, decoded)
    with np.errstate(all="ignore"):
        np.cumsum(elements, out=sums)
    assert vf.open_array(path)[:].tobytes() == sums.tobytes()


def packed(elements, first, last, bits):
    """Bits `first` to `last` of each number, the lowest first, as a list of bytes."""
    stream = sum(((int(x) & (1 << bits) - 1) >> first & (1 << last - first + 1) - 1) << i * (last - first + 1)
                 for i, x in enumerate(elements))  # fmt: skip
    nbits = len(elements) * (last - first + 1)
    return stream.to_bytes(-(-nbits // 8), "little"), -nbits % 8


@pytest.mark.parametrize(
    ("dtype", "first", "last"),
    [("bool", 0, 0), ("uint8", 0, 4), ("uint16", 2, 12), ("int16", 0, 6), ("int8", 3, 7), ("int64", 1, 60),
     ("uint64", 0, 63), ("int32", 0, 31), ("float32", 0, 31), ("complex64", 0, 31)],
)  # fmt: skip
@pytest.mark.parametrize("padding", [None, "none", "first_byte", "last_byte"])
@pytest.mark.parametrize("count", [1, 7, 8, 61])
def test_packbits_of_version_3(tmp_path, dtype, first, last, padding, count):
    dtype = np.dtype(dtype)
    bits = 1 if dtype.kind == "b" else dtype.itemsize * 8
    if dtype.kind in "fc":
        bits, elements = 32, values((count,), dtype, 2)
        numbers = elements.view("u4")
    else:
        numbers = np.array([(i * 0x9E3779B97F4A7C15 >> 7) & (1 << bits) - 1 for i in range(count)], object)
        kept = [x >> first & (1 << last - first + 1) - 1 for x in numbers]
        if dtype.kind == "i":
            kept = [x - (1 << last - first + 1) if x >> last - first else x for x in kept]
        elements = np.array([x << first for x in kept], dtype)
    data, unused = packed(numbers, first, last, bits)
    chunk = {"first_byte": bytes([unused]) + data, "last_byte": data + bytes([unused])}.get(padding, data)
    settings = {} if padding is None else {"padding_encoding": padding}
    if (first, last) != (0, bits - 1):
        settings |= {"first_bit": first, "last_bit": last}
    codecs = [codec("packbits", **settings), "crc32c"]
    stored = bytes(numcodecs.CRC32C().encode(chunk))
    path = put_v3(tmp_path / "a", stored, shape=(count,), dtype=dtype.name, codecs=codecs, fill_value=[0, 0] if
                  dtype.kind == "c" else False if dtype.kind == "b" else 0)  # fmt: skip
    assert vf.open_array(path)[:].tobytes() == elements.tobytes()
    # zarrs extends a sign within a byte only, and leaves the padding byte out where all bits are stored.
    if dtype.kind != "i" and (padding in (None, "none") or (first, last) != (0, bits - 1) or dtype.kind == "b"):
        peer = zarrista.Array.open(FilesystemStore(str(path)))
        assert np.asarray(peer.retrieve_array_subset((slice(0, count),))).tobytes() == elements.tobytes()
    if padding in ("first_byte", "last_byte"):
        at = 0 if padding == "first_byte" else -1
        broken = bytearray(chunk)
        broken[at] ^= 1
        (path / "0").write_bytes(bytes(numcodecs.CRC32C().encode(broken)))
        with pytest.raises(vf.CodecError, match="bits of padding"):
            vf.open_array(path)[:]


def test_scale_offset(tmp_path):
    floats = values((50,), "float32", 3)
    path = put_v3(tmp_path / "f", floats.tobytes(), shape=(50,), dtype="float32",
                  codecs=[codec("scale_offset", offset=5, scale=0.1), LITTLE])  # fmt: skip
    assert vf.open_array(path)[:].tobytes() == (floats / np.float32(0.1) + np.float32(5)).tobytes()
    integers = np.array([-8, -6, -2, 0, 2, 6, 8], "int16")
    for scale, offset in ((2, 100), (-2, 100), (1, -3)):
        path = put_v3(tmp_path / f"{scale}", integers.tobytes(), shape=(7,), dtype="int16",
                      codecs=[codec("scale_offset", offset=offset, scale=scale), LITTLE])  # fmt: skip
        assert (vf.open_array(path)[:] == integers // scale + offset).all()
    path = put_v3(tmp_path / "none", integers.tobytes(), shape=(7,), dtype="int16", codecs=["scale_offset", LITTLE])
    assert (vf.open_array(path)[:] == integers).all()
    path = put_v3(tmp_path / "rest", (integers + 1).astype("int16").tobytes(), shape=(7,), dtype="int16",
                  codecs=[codec("scale_offset", scale=2), LITTLE])  # fmt: skip
    with pytest.raises(vf.CodecError, match=r"scale_offset: -7 / 2 \+ 0 is no int16"):
        vf.open_array(path)[:]
    for offset, dtype, stored in ((32767, "int16", integers), (-3, "uint8", np.arange(7, dtype="uint8"))):
        codecs = [codec("scale_offset", offset=max(offset, 0) or 250, scale=1), LITTLE]
        path = put_v3(tmp_path / dtype, stored.tobytes(), shape=(7,), dtype=dtype, codecs=codecs)
        with pytest.raises(vf.CodecError, match=r"scale_offset: .* is no " + dtype):
            vf.open_array(path)[:]
    for dtype, settings, error in (
        ("int16", {"scale": 0}, vf.MetadataError),
        ("float32", {"scale": -0.0}, vf.MetadataError),
        ("float32", {"scale": "0x00000000"}, vf.MetadataError),
        ("uint8", {"offset": 256}, vf.MetadataError),
        ("uint8", {"offset": 1.5}, vf.MetadataError),
        ("bool", {"offset": 1}, vf.MetadataError),
        ("uint8", {"offset": 1, "more": 1}, vf.UnsupportedError),
    ):
        path = put_v3(tmp_path / f"{dtype}{settings}", b"", shape=(7,), dtype=dtype,
                      codecs=[codec("scale_offset", **settings), LITTLE])  # fmt: skip
        with pytest.raises(error):
            vf.open_array(path)


CAST_VALUES = [
    # stored, decoded, settings, elements, decoded elements or None
    ("uint8", "float32", {}, [0, 7, 255], [0, 7, 255]),
    ("float64", "int8", {}, [-128.4, 0.5, 1.5, 2.5, -0.5, 127.4], [-128, 0, 2, 2, 0, 127]),
    ("float32", "int8", {"rounding": "nearest-away"}, [0.5, 1.5, -0.5, -2.5], [1, 2, -1, -3]),
    ("float32", "int8", {"rounding": "towards-zero"}, [0.9, -0.9, 2.5], [0, 0, 2]),
    ("float32", "int8", {"rounding": "towards-positive"}, [0.1, -0.9, 2.5], [1, 0, 3]),
    ("float32", "int8", {"rounding": "towards-negative"}, [0.1, -0.9, 2.5], [0, -1, 2]),
    ("float64", "int8", {}, [128], None),
    ("float64", "uint8", {"out_of_range": "error"}, [-1], None),
    ("int16", "uint8", {}, [256], None),
    ("int16", "uint8", {"out_of_range": "clamp"}, [-1, 256, 255], [0, 255, 255]),
    ("int16", "uint8", {"out_of_range": "wrap"}, [-1, 256, 513], [255, 0, 1]),
    ("float64", "uint8", {"out_of_range": "wrap"}, [-1, 256, 513.6, 2.0**70], [255, 0, 2, 0]),
    ("float64", "int64", {"out_of_range": "wrap"}, [2.0**63, -(2.0**64), 2.0**200], [-(2**63), 0, 0]),
    ("float64", "int64", {"out_of_range": "clamp"}, [1e30, -np.inf, np.inf], [2**63 - 1, -(2**63), 2**63 - 1]),
    ("float64", "uint64", {}, [2.0**63, 18446744073709549568.0], [2**63, 18446744073709549568]),
    ("float64", "uint64", {}, [2.0**64], None),
    ("uint64", "int64", {}, [2**63], None),
    ("float32", "uint8", {"out_of_range": "wrap"}, [np.inf], None),
    ("float32", "uint8", {"out_of_range": "clamp"}, [np.nan], None),
    ("float32", "uint8", {"scalar_map": {"decode": [["NaN", 9], [3, 200]]}}, [np.nan, 3, 4], [9, 200, 4]),
    ("uint8", "float32", {"scalar_map": {"decode": [[0, "NaN"], [1, "-Infinity"]]}}, [0, 1, 2], [np.nan, -np.inf, 2]),
    ("uint8", "float32", {"scalar_map": {"encode": [["NaN", 0]]}}, [0, 1, 2], [0, 1, 2]),
    ("float64", "float32", {}, [0.1, np.inf, -np.nan], [0.1, np.inf, -np.nan]),
    ("float64", "float32", {}, [1e300], None),
    ("float64", "float32", {"out_of_range": "clamp"}, [-1e300, np.inf], [-np.inf, np.inf]),
    ("int32", "float16", {}, [2048, 70000], None),
    ("int32", "float16", {"out_of_range": "clamp"}, [2048, 70000, -70000], [2048, np.inf, -np.inf]),
]  # fmt: skip


@pytest.mark.parametrize(("stored", "decoded", "settings", "elements", "expected"), CAST_VALUES)
def test_cast_value(tmp_path, stored, decoded, settings, elements, expected):
    elements = np.array(elements, stored)
    codecs = [codec("cast_value", data_type=stored, **settings), LITTLE]
    path = put_v3(tmp_path / "a", elements.tobytes(), shape=elements.shape, dtype=decoded, codecs=codecs)
    array = vf.open_array(path)
    if expected is None:
        with pytest.raises(vf.CodecError, match=f"cast_value: .* is no {decoded}"):
            array[:]
    else:
        np.testing.assert_array_equal(array[:], np.array(expected, decoded))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({}, vf.MetadataError, "data_type"),
        ({"data_type": "bool"}, vf.MetadataError, "integers and floats can be cast"),
        ({"data_type": "float64", "rounding": "up"}, vf.MetadataError, "rounding"),
        ({"data_type": "float64", "rounding": "towards-zero"}, vf.UnsupportedError, "rounds float64 to float32"),
        ({"data_type": "uint8", "out_of_range": "saturate"}, vf.MetadataError, "out_of_range"),
        ({"data_type": "uint8", "scalar_map": {"decode": [[256, 0]]}}, vf.MetadataError, "scalar_map.decode"),
        ({"data_type": "uint8", "scalar_map": {"decode": [[1]]}}, vf.MetadataError, "a pair of elements"),
        ({"data_type": "uint8", "scalar_map": {"decode": [[0, 0]] * 5000}}, vf.LimitExceededError, "number of items"),
        ({"data_type": "uint8", "more": 1}, vf.UnsupportedError, "more"),
    ],
)
def test_cast_values_that_are_refused(tmp_path, settings, error, message):
    codecs = [codec("cast_value", **settings), LITTLE]
    path = put_v3(tmp_path / "a", b"", shape=(1,), dtype="float32", codecs=codecs)
    with pytest.raises(error, match=message):
        vf.open_array(path)


def test_scale_offset_and_cast_value_together_and_in_big_endian(tmp_path):
    stored = np.array([[0, 1, 2], [7, 8, 250]], "uint16")
    codecs = [
        codec("scale_offset", offset=5, scale=10),
        codec("transpose", order=[1, 0]),
        codec("cast_value", data_type="uint16"),
        codec("bytes", endian="big"),
        "crc32c",
    ]
    chunk = bytes(numcodecs.CRC32C().encode(stored.T.astype(">u2").tobytes()))
    path = put_v3(tmp_path / "a", chunk, shape=(2, 3), dtype="float64", codecs=codecs)
    assert (vf.open_array(path)[:] == stored / 10 + 5).all()
    assert (vf.open_array(path)[1:, ::2] == (stored / 10 + 5)[1:, ::2]).all()
