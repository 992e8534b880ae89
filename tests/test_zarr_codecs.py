"""Codecs of numcodecs, of HDF5 and the registered ones of Zarr v3, as users read them: the voxels of who wrote them.

Whole arrays, and parts of them with steps; plain and in shards. What is broken is an error of the right kind.
"""

from __future__ import annotations

import json
import lzma
import math
import warnings
from functools import partial
from pathlib import Path

import h5py
import hdf5plugin
import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import numcodecs as v3codecs

import voxfetch as vf
from tests.one_chunk import LITTLE, codec, put_v2, put_v3

DATA = Path(__file__).parent / "data" / "numcodecs"
SHAPE, CHUNKS = (13, 10), (6, 5)
WINDOWS = [np.s_[:], np.s_[3:9], np.s_[5:6, 4:10:3], np.s_[::4, ::2], np.s_[12, 9]]


def smooth(dtype, shape=SHAPE):
    """Voxels that grow slowly, within what a filter of a narrower type takes."""
    ramp = np.arange(math.prod(shape)).reshape(shape)
    return (ramp % 2 == 0) if np.dtype(dtype).kind == "b" else (ramp % 97).astype(dtype)


def check(path, expected, dtype=None):
    """Voxel by voxel, bit by bit, in several windows."""
    array = vf.open_array(path)
    assert (array.shape, array.dtype) == (expected.shape, np.dtype(dtype or expected.dtype).newbyteorder("="))
    for window in WINDOWS:
        got = np.asarray(array[window] if expected.ndim == len(SHAPE) else array[window[:1]])
        wanted = np.asarray(expected[window] if expected.ndim == len(SHAPE) else expected[window[:1]])
        assert got.tobytes() == wanted.astype(wanted.dtype.newbyteorder("=")).tobytes(), window
    return array


FILTERS = {
    "delta u2": ("<u2", [numcodecs.Delta("<u2")]),
    "delta u2 wraps": ("<u2", [numcodecs.Delta("<u2", "|i1")]),
    "delta >i4": (">i4", [numcodecs.Delta(">i4", ">i2")]),
    "delta f4": ("<f4", [numcodecs.Delta("<f4")]),
    "delta f4 of i2": ("<f4", [numcodecs.Delta("<f4", "<i2")]),
    "delta f2": ("<f2", [numcodecs.Delta("<f2")]),
    "delta of times": ("<M8[s]", [numcodecs.Delta("<i8", "<i4")]),
    "delta bool": ("|b1", [numcodecs.Delta("|b1")]),
    "scale f8 u1": ("<f8", [numcodecs.FixedScaleOffset(3, 0.7, "<f8", "|u1")]),
    "scale f4 i2": ("<f4", [numcodecs.FixedScaleOffset(1.5, 10, "<f4", "<i2")]),
    "scale f4": ("<f4", [numcodecs.FixedScaleOffset(offset=1.1, scale=3.3, dtype="<f4")]),
    "scale f2": ("<f2", [numcodecs.FixedScaleOffset(offset=1.1, scale=3.3, dtype="<f2")]),
    "scale f4 of f2": ("<f4", [numcodecs.FixedScaleOffset(1.1, 3.3, "<f4", "<f2")]),
    "scale u2": ("<u2", [numcodecs.FixedScaleOffset(0, 0.5, "<u2", "|u1")]),
    "scale >f8 >i8": (">f8", [numcodecs.FixedScaleOffset(1000, 1e6, ">f8", ">i8")]),
    "scale f4 i8": ("<f4", [numcodecs.FixedScaleOffset(0, 1e12, "<f4", "<i8")]),
    "astype i2 f4": ("<i2", [numcodecs.AsType("<f4", "<i2")]),
    "astype f8 i1": ("<f8", [numcodecs.AsType("|i1", "<f8")]),
    "astype f4 i8": ("<f4", [numcodecs.AsType("<i8", "<f4")]),
    "astype f2 u4": ("<f2", [numcodecs.AsType("<u4", "<f2")]),
    "astype u8 f2": ("<u8", [numcodecs.AsType("<f2", "<u8")]),
    "astype bool": ("|b1", [numcodecs.AsType("<i4", "|b1")]),
    "quantize": ("<f8", [numcodecs.Quantize(1, "<f8", "<f2")]),
    "quantize same": ("<f4", [numcodecs.Quantize(1, "<f4")]),
    "bitround": ("<f4", [numcodecs.BitRound(5)]),
    "packbits": ("|b1", [numcodecs.PackBits()]),
    "shuffle": ("<i4", [numcodecs.Shuffle(4)]),
    "shuffle of 2 in 4": ("<i4", [numcodecs.Shuffle(2)]),
    "shuffle 0": ("<i4", [numcodecs.Shuffle(0)]),
    "crc32": ("<i4", [numcodecs.CRC32()]),
    "crc32 end": ("<i4", [numcodecs.CRC32("end")]),
    "crc32c start": ("<i4", [numcodecs.CRC32C("start")]),
    "adler32": ("<i4", [numcodecs.Adler32()]),
    "fletcher32": ("<i4", [numcodecs.Fletcher32()]),
    "lookup3": ("<i4", [numcodecs.JenkinsLookup3(initval=11)]),
    "lzma": ("<i4", [numcodecs.LZMA(preset=1)]),
    "lzma alone": ("<i4", [numcodecs.LZMA(format=lzma.FORMAT_ALONE, preset=1)]),
    "three of elements": (
        "<f8",
        [
            numcodecs.FixedScaleOffset(0, 2, "<f8", "<i4"),
            numcodecs.Delta("<i4", "<i2"),
            numcodecs.AsType("|i1", "<i2"),
            numcodecs.Shuffle(1),
            numcodecs.Adler32(),
        ],
    ),
}


@pytest.mark.parametrize("compressor", [None, numcodecs.Zstd(1), numcodecs.LZMA(preset=0)], ids=["raw", "zstd", "lzma"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", FILTERS)
def test_filters_of_version_2(tmp_path, name, order, compressor):
    dtype, filters = FILTERS[name]
    array = zarr.create_array(
        tmp_path / "a", shape=SHAPE, chunks=CHUNKS, dtype=dtype, zarr_format=2, order=order, filters=filters,
        compressors=compressor, fill_value=0,
    )  # fmt: skip
    array[:] = smooth(dtype)
    document = json.loads((tmp_path / "a" / ".zarray").read_text())
    assert [one["id"] for one in document["filters"]] == [one.codec_id for one in filters]
    expected = array[:]
    assert expected.any()
    check(tmp_path / "a", expected)


V3_FILTERS = {
    "delta": ("uint16", partial(v3codecs.Delta, dtype="<u2")),
    "delta named": ("int32", partial(v3codecs.Delta, dtype="int32", astype="i2")),
    "scale": ("float64", partial(v3codecs.FixedScaleOffset, offset=3, scale=0.7, dtype="<f8", astype="|u1")),
    "scale of its own type": ("float32", partial(v3codecs.FixedScaleOffset, offset=3, scale=0.7, astype="float16")),
    "quantize": ("float32", partial(v3codecs.Quantize, digits=2, dtype="<f4")),
    "astype": ("float32", partial(v3codecs.AsType, encode_dtype="float16", decode_dtype="float32")),
    "bitround": ("float32", partial(v3codecs.BitRound, keepbits=3)),
    "packbits": ("bool", partial(v3codecs.PackBits)),
}
V3_COMPRESSORS = {
    "lzma": partial(v3codecs.LZMA, preset=1),
    "shuffle": partial(v3codecs.Shuffle, elementsize=2),
    "crc32": partial(v3codecs.CRC32),
    "adler32 end": partial(v3codecs.Adler32, location="end"),
    "crc32c start": partial(v3codecs.CRC32C, location="start"),
    "fletcher32": partial(v3codecs.Fletcher32),
    "lookup3": partial(v3codecs.JenkinsLookup3, initval=0),
}


@pytest.mark.parametrize("shards", [None, (12, 10)], ids=["chunks", "shards"])
@pytest.mark.parametrize("name", [*V3_FILTERS, *V3_COMPRESSORS])
def test_numcodecs_of_version_3(tmp_path, name, shards):
    dtype, one = V3_FILTERS.get(name, ("uint16", None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        filters = one and (one(),)
        compressors = None if one else (V3_COMPRESSORS[name](), v3codecs.Zlib(level=1))
        array = zarr.create_array(
            tmp_path / "a", shape=SHAPE, chunks=CHUNKS, shards=shards, dtype=dtype, fill_value=0, filters=filters,
            compressors=compressors,
        )  # fmt: skip
        array[:7] = smooth(dtype)[:7]
        expected = array[:]
    check(tmp_path / "a", expected)


def fixtures():
    for config in sorted(DATA.glob("**/config.json")):
        settings = json.loads(config.read_text())
        if settings["id"] in ("adler32", "crc32c", "shuffle", "delta", "fixedscaleoffset", "quantize", "packbits"):
            for encoded in sorted(config.parent.glob("encoded*.dat")):
                yield pytest.param(settings, encoded, id="/".join(encoded.relative_to(DATA).parts))


@pytest.mark.parametrize(("settings", "encoded"), [*fixtures()])
def test_frozen_bytes_of_numcodecs(tmp_path, settings, encoded):
    name = encoded.name.replace("encoded", "array").replace(".dat", ".npy")
    original = np.load(encoded.parents[1] / name)
    chunk = encoded.read_bytes()
    dtype = settings.get("dtype", original.dtype.str)
    if np.dtype(dtype).itemsize != original.dtype.itemsize or np.dtype(dtype).kind == "O":
        pytest.skip("the filter sees other elements than the array has")
    decoded = numcodecs.get_codec(settings).decode(chunk)
    expected = np.frombuffer(np.ascontiguousarray(decoded).tobytes(), original.dtype)
    path = put_v2(tmp_path / "a", chunk, shape=expected.shape, dtype=original.dtype, filters=[settings])
    assert vf.open_array(path)[:].tobytes() == expected.astype(expected.dtype.newbyteorder("=")).tobytes()


def hdf5_chunk(path, elements, **settings):
    """The bytes of the only chunk that HDF5 writes."""
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("a", data=elements, chunks=elements.shape, **settings)
        mask, chunk = dataset.id.read_direct_chunk((0,) * elements.ndim)
        assert mask == 0
        return chunk


def bitshuffle(dtype, cname, blocksize=None):
    settings = {"id": "hdf5_bitshuffle", "elementsize": np.dtype(dtype).itemsize, "cname": cname}
    return settings if blocksize is None else settings | {"blocksize": blocksize}


HDF5 = {
    "deflate": ({"compression": "gzip"}, lambda _: [{"id": "zlib"}]),
    "shuffle, deflate, fletcher32": (
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        lambda dtype: [
            {"id": "shuffle", "elementsize": np.dtype(dtype).itemsize},
            {"id": "zlib"},
            {"id": "fletcher32"},
        ],
    ),
    "fletcher32": ({"fletcher32": True}, lambda _: [{"id": "fletcher32"}]),
    "lzf": ({"compression": "lzf"}, lambda _: [{"id": "hdf5_lzf"}]),
    "shuffle, lzf": (
        {"compression": "lzf", "shuffle": True},
        lambda dtype: [{"id": "shuffle", "elementsize": np.dtype(dtype).itemsize}, {"id": "hdf5_lzf"}],
    ),
    "lz4": (dict(hdf5plugin.LZ4()), lambda _: [{"id": "hdf5_lz4"}]),
    "lz4 in blocks": (dict(hdf5plugin.LZ4(nbytes=1000)), lambda _: [{"id": "hdf5_lz4"}]),
    "bitshuffle": (dict(hdf5plugin.Bitshuffle(cname="none")), lambda dtype: [bitshuffle(dtype, "none")]),
    "bitshuffle in blocks": (
        dict(hdf5plugin.Bitshuffle(nelems=64, cname="none")),
        lambda dtype: [bitshuffle(dtype, "none", 64)],
    ),
    "bitshuffle lz4": (dict(hdf5plugin.Bitshuffle(cname="lz4")), lambda dtype: [bitshuffle(dtype, "lz4")]),
    "bitshuffle lz4 in blocks": (
        dict(hdf5plugin.Bitshuffle(nelems=128, cname="lz4")),
        lambda dtype: [bitshuffle(dtype, "lz4")],
    ),
    "bitshuffle zstd": (dict(hdf5plugin.Bitshuffle(cname="zstd")), lambda dtype: [bitshuffle(dtype, "zstd")]),
    "blosc": (dict(hdf5plugin.Blosc(cname="lz4", shuffle=1)), lambda _: [{"id": "blosc"}]),
    "zstd": (dict(hdf5plugin.Zstd()), lambda _: [{"id": "zstd"}]),
    "bzip2": (dict(hdf5plugin.BZip2()), lambda _: [{"id": "bz2"}]),
}


@pytest.mark.parametrize("dtype", ["|u1", "<i2", "<f4", "<f8"])
@pytest.mark.parametrize("shape", [(90, 61), (3, 3), (31, 1031)], ids=str)
@pytest.mark.parametrize("name", HDF5)
def test_chunks_of_hdf5(tmp_path, name, dtype, shape):
    settings, filters = HDF5[name]
    elements = (np.arange(math.prod(shape)) // 7 % 200).astype(dtype).reshape(shape)
    if elements.nbytes < 100 and ("lzf" in name or name == "blosc"):
        pytest.skip("HDF5 stores so small a chunk as it is")
    chunk = hdf5_chunk(tmp_path / "a.h5", elements, **settings)
    path = put_v2(tmp_path / "a", chunk, shape=shape, dtype=dtype, filters=filters(dtype))
    assert (vf.open_array(path)[:] == elements).all()
    assert (vf.open_array(path)[1:3, ::2] == elements[1:3, ::2]).all()


@pytest.mark.parametrize("name", HDF5)
def test_broken_chunks_of_hdf5_are_refused(tmp_path, name):
    elements = (np.arange(5000) // 7 % 200).astype("<i2")
    settings, filters = HDF5[name]
    chunk = hdf5_chunk(tmp_path / "a.h5", elements, **settings)
    path = put_v2(tmp_path / "a", chunk, shape=(5000,), dtype="<i2", filters=filters("<i2"))
    assert (vf.open_array(path)[:] == elements).all()
    for broken in (chunk[: len(chunk) // 2], chunk[:-1], chunk + b"\0", b"", b"\xfe" * len(chunk)):
        (path / "0").write_bytes(broken)
        if name.startswith("bitshuffle") and "none" in str(filters("<i2")) and len(broken) == len(chunk):
            continue
        with pytest.raises((vf.CodecError, vf.ChecksumError)):
            vf.open_array(path)[:]


@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("name", ["crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"])
def test_a_changed_byte_is_noticed_by_every_checksum(tmp_path, name, location):
    if location == "start" and name in ("fletcher32", "jenkins_lookup3"):
        pytest.skip("stands at the end")
    settings = {"id": name} | ({"location": location} if name.startswith(("crc", "adler")) else {})
    elements = np.arange(100, dtype="<u2")
    for rest in ([], [{"id": "shuffle", "elementsize": 2}], [{"id": "zstd"}]):
        encoded = elements.tobytes()
        for one in [*rest, settings]:
            encoded = bytes(numcodecs.get_codec(one).encode(encoded))
        path = put_v2(tmp_path / f"{rest}", encoded, shape=(100,), dtype="<u2", filters=[*rest, settings])
        assert (vf.open_array(path)[:] == elements).all()
        for at in (0, len(encoded) // 2, len(encoded) - 1):
            broken = bytearray(encoded)
            broken[at] ^= 0x10
            (path / "0").write_bytes(broken)
            for window in (np.s_[:], np.s_[40:42]):
                with pytest.raises(vf.ChecksumError, match=name):
                    vf.open_array(path)[window]
        for cut in (0, 3):
            (path / "0").write_bytes(encoded[:cut])
            with pytest.raises(vf.CodecError, match="no checksum"):
                vf.open_array(path)[:]
        if not rest:
            broken = bytearray(encoded)
            broken[100] ^= 0x10
            (path / "0").write_bytes(broken)
            cheap = vf.open_array(path).with_options(vf.ReadOptions(verify="cheap"))
            assert (cheap[:] != elements).sum() == 1


SHARDING = codec("sharding_indexed", chunk_shape=[2], codecs=[LITTLE], index_codecs=[LITTLE])


@pytest.mark.parametrize(
    ("codecs", "error", "message"),
    [
        (
            [codec("numcodecs.delta", dtype="<u2"), codec("transpose", order=[0]), LITTLE],
            vf.UnsupportedError,
            r"codecs\[1\]: `transpose` after `delta`",
        ),
        (["bitround", SHARDING], vf.UnsupportedError, r"codecs\[1\]: `bitround` before `sharding_indexed`"),
        ([codec("numcodecs.delta", dtype=">u2"), LITTLE], vf.UnsupportedError, "another order"),
        ([codec("numcodecs.delta", dtype="<u2", astype=">u2"), LITTLE], vf.UnsupportedError, "big-endian"),
        ([codec("numcodecs.delta", dtype="<u4"), LITTLE], vf.MetadataError, "elements of uint32"),
        ([codec("numcodecs.delta", dtype="<u2", more=1), LITTLE], vf.UnsupportedError, "setting `more`"),
        ([codec("numcodecs.packbits"), LITTLE], vf.MetadataError, "elements of bool"),
        ([LITTLE, codec("numcodecs.delta", dtype="<u2")], vf.MetadataError, "cannot follow `bytes`"),
        ([LITTLE, codec("packbits")], vf.MetadataError, "cannot follow `bytes`"),
        ([codec("packbits", first_bit=16)], vf.MetadataError, "first_bit"),
        ([codec("packbits", first_bit=3, last_bit=2)], vf.MetadataError, "last_bit"),
        ([codec("packbits", padding_encoding="middle")], vf.MetadataError, "padding_encoding"),
        ([codec("reshape", shape=[-1]), LITTLE], vf.UnsupportedError, "codec `reshape`"),
    ],
)
def test_lists_that_are_refused(tmp_path, codecs, error, message):
    path = put_v3(tmp_path / "a", b"", shape=(8,), dtype="uint16", codecs=codecs)
    with pytest.raises(error, match=message):
        vf.open_array(path)


def test_an_index_with_another_checksum_is_read(tmp_path):
    elements = np.arange(8, dtype="<u2")
    index = np.array([[i * 4, 4] for i in range(4)], "<u8").tobytes()
    for name in ("adler32", "crc32", "fletcher32"):
        sharding = codec("sharding_indexed", chunk_shape=[2], codecs=[LITTLE],
                         index_codecs=[LITTLE, codec(f"numcodecs.{name}")])  # fmt: skip
        stored = elements.tobytes() + bytes(numcodecs.get_codec({"id": name}).encode(index))
        path = put_v3(tmp_path / name, stored, shape=(8,), dtype="uint16", codecs=[sharding])
        assert (vf.open_array(path)[:] == elements).all()
        (path / "0").write_bytes(stored[:-5] + bytes([stored[-5] ^ 1]) + stored[-4:])
        with pytest.raises(vf.ChecksumError, match=name):
            vf.open_array(path)[:]


def test_what_changes_elements_is_not_written(tmp_path):
    chunk = np.zeros(8, "<f4").tobytes()
    for filters in ([{"id": "bitround", "keepbits": 2}], [{"id": "shuffle", "elementsize": 4}]):
        path = put_v2(tmp_path / filters[0]["id"], chunk, shape=(8,), dtype="<f4", filters=filters)
        array = vf.open_array(path, mode="r+")
        with pytest.raises(vf.UnsupportedError, match=f"writing the {filters[0]['id']} codec"):
            array[:] = np.ones(8, "<f4")
        assert (path / "0").read_bytes() == chunk
    path = put_v2(tmp_path / "sum", chunk, shape=(8,), dtype="<f4", filters=[{"id": "adler32"}])
    vf.open_array(path, mode="r+")[:] = np.arange(8, dtype="<f4")
    assert (zarr.open_array(path)[:] == np.arange(8)).all()


def test_chunks_far_larger_when_stored_are_refused(tmp_path):
    filters = [{"id": "astype", "encode_dtype": "<f8", "decode_dtype": "|u1"}]
    path = put_v2(tmp_path / "a", b"", shape=(1 << 30,), dtype="|u1", filters=filters)
    with pytest.raises(vf.LimitExceededError, match="bytes of a chunk after `astype`"):
        vf.open_array(path)


def test_a_frame_of_blosc2_is_told_apart(tmp_path):
    import blosc2

    elements = np.arange(1000, dtype="<u2")
    frame = blosc2.SChunk(data=elements).to_cframe()
    for chunk in (frame, blosc2.compress(elements.tobytes(), typesize=2)):
        path = put_v2(tmp_path / f"{len(chunk)}", chunk, shape=(1000,), dtype="<u2", filters=None,
                      compressor={"id": "blosc"})  # fmt: skip
        with pytest.raises(vf.CodecError, match="Blosc 2"):
            vf.open_array(path)[:]
