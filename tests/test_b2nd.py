"""Arrays of Blosc2 NDim: what python-blosc2 writes is read the same, from disk and over HTTP; lies are typed errors."""

from __future__ import annotations

import json
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import blosc2
import numpy as np
import pytest

import voxfetch as vf
from tests.servers.faulty import FaultyServer
from voxfetch import _core
from voxfetch.formats.msgpack import Unpacker

FIXTURES = Path(__file__).parent / "data" / "b2nd" / "blosc2-4.14.1"
CODECS = (blosc2.Codec.BLOSCLZ, blosc2.Codec.LZ4, blosc2.Codec.LZ4HC, blosc2.Codec.ZLIB, blosc2.Codec.ZSTD)
FILTERS = {
    "none": ([], []),
    "shuffle": ([blosc2.Filter.SHUFFLE], [0]),
    "shuffle of pairs": ([blosc2.Filter.SHUFFLE], [2]),
    "bitshuffle": ([blosc2.Filter.BITSHUFFLE], [0]),
    "delta": ([blosc2.Filter.DELTA], [0]),
    "delta, shuffle": ([blosc2.Filter.DELTA, blosc2.Filter.SHUFFLE], [0, 0]),
    "delta, bitshuffle": ([blosc2.Filter.DELTA, blosc2.Filter.BITSHUFFLE], [0, 0]),
    "two shuffles": ([blosc2.Filter.SHUFFLE, blosc2.Filter.BITSHUFFLE], [0, 0]),
}
TYPES = ("u1", "i1", "?", "<u2", ">u2", "<i4", ">i4", "<f2", "<f4", ">f8", "<u8", "<c8", "S5", "<M8[ns]")
#: shape, chunks, blocks: multiples and not, whole axes in blocks, one block, blocks of one voxel.
LAYOUTS = [
    ((100,), (30,), (7,)),
    ((64,), (64,), (64,)),
    ((33, 45), (16, 20), (5, 6)),
    ((33, 45), (16, 45), (4, 45)),
    ((40, 20), (20, 10), (20, 5)),
    ((21, 18, 35), (10, 9, 20), (3, 9, 20)),
    ((21, 18, 35), (10, 9, 20), (4, 5, 6)),
    ((5, 6, 7), (2, 3, 4), (1, 1, 1)),
    ((5, 6, 7, 8), (3, 4, 5, 6), (2, 2, 3, 4)),
    ((2, 3, 40), (50, 3, 40), (2, 3, 17)),
]


def volume(shape, dtype="<u2", seed=0):
    values = np.random.default_rng(seed).integers(-3, 4, shape).cumsum().reshape(shape) % 97
    return values.astype(dtype)


@pytest.fixture
def written(tmp_path):
    """`written(values, chunks, blocks, **cparams)` -> path of a file."""

    def write(values, chunks=None, blocks=None, name="a.b2nd", attributes=None, **cparams):
        path = tmp_path / name
        options = {"cparams": {"nthreads": 1, **cparams}, "urlpath": str(path), "mode": "w"}
        array = blosc2.asarray(values, chunks=chunks, blocks=blocks, **options)
        for key, value in (attributes or {}).items():
            array.schunk.vlmeta[key] = value
        return path

    return write


def windows(shape, count=6):
    """Boxes of a shape: all of it, single voxels, and random ones."""
    random = np.random.default_rng(1)
    yield tuple(slice(None) for _ in shape)
    yield tuple(slice(n - 1, n) for n in shape)
    for _ in range(count):
        starts = [int(random.integers(n)) for n in shape]
        yield tuple(slice(s, int(random.integers(s, n)) + 1) for s, n in zip(starts, shape, strict=True))


@pytest.mark.parametrize(("shape", "chunks", "blocks"), LAYOUTS)
def test_any_window_of_any_layout_reads_as_it_was_written(written, shape, chunks, blocks):
    values = volume(shape)
    array = vf.open(written(values, chunks, blocks))
    assert isinstance(array, vf.Array)
    assert (array.shape, array.chunks, array.shards) == (shape, tuple(chunks), None)
    assert (array.format, array.dtype, array.axes) == (
        "b2nd",
        values.dtype,
        tuple(f"dim_{i}" for i in range(len(shape))),
    )
    for window in windows(shape):
        np.testing.assert_array_equal(array[window], values[window])
    steps = tuple(slice(None, None, 3) for _ in shape)
    np.testing.assert_array_equal(array[steps], values[steps])
    np.testing.assert_array_equal(array[tuple(n // 2 for n in shape)], values[tuple(n // 2 for n in shape)])
    starts = np.random.default_rng(2).integers(0, np.array(shape), (8, len(shape)))
    expected = np.array([values[tuple(start)] for start in starts])
    np.testing.assert_array_equal(array.read_points(starts), expected)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("codec", [blosc2.Codec.LZ4, blosc2.Codec.ZSTD])
def test_every_type(written, dtype, codec):
    values = volume((33, 45), dtype)
    array = vf.open_array(written(values, (16, 20), (5, 6), codec=codec))
    assert array.dtype == values.dtype.newbyteorder("=")
    np.testing.assert_array_equal(array[...], values)
    np.testing.assert_array_equal(array[7:20, 11:13], values[7:20, 11:13])


@pytest.mark.parametrize("split", [blosc2.SplitMode.ALWAYS_SPLIT, blosc2.SplitMode.NEVER_SPLIT])
@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_with_every_filter(written, codec, filters, split):
    names, settings = FILTERS[filters]
    for dtype in ("u1", "<u4", "<f8"):
        values = volume((61, 45), dtype)
        cparams = {"codec": codec, "filters": names, "filters_meta": settings, "splitmode": split}
        array = vf.open_array(written(values, (30, 44), (13, 11), **cparams))
        np.testing.assert_array_equal(array[...], values)
        np.testing.assert_array_equal(array[35:50, 20:23], values[35:50, 20:23])


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.b2nd")), ids=lambda path: path.stem)
def test_files_of_blosc2_4_14_1(path):
    z, y, x = np.indices((13, 14, 15))
    expected = (z * 7 + y // 3 + (x > 9) * 300) * (path.stem != "zeros")
    array = vf.open_array(path)
    np.testing.assert_array_equal(array[...], expected)
    assert array.attrs == ({} if path.stem == "zeros" else {"name": path.stem})


def test_truncated_precision_reads_as_blosc2_reads_it(written):
    filters = {"filters": [blosc2.Filter.TRUNC_PREC, blosc2.Filter.SHUFFLE], "filters_meta": [8, 0]}
    values = np.random.default_rng(0).random((40, 40))
    path = written(values, (20, 30), (9, 8), **filters)
    expected = blosc2.open(str(path))[...]
    assert not np.array_equal(expected, values)
    np.testing.assert_array_equal(vf.open_array(path)[...], expected)


def test_noise_is_stored_as_it_is(written):
    values = np.random.default_rng(0).integers(0, 256, (100, 100), "u1")
    for clevel in (0, 9):
        np.testing.assert_array_equal(vf.open_array(written(values, (64, 64), (16, 16), clevel=clevel))[...], values)


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">i4", "u1"])
def test_chunks_of_one_value(tmp_path, dtype):
    options = {"chunks": (16, 20), "blocks": (5, 6), "dtype": dtype}
    made = {"zeros": blosc2.zeros((50, 50), urlpath=str(tmp_path / "zeros.b2nd"), **options)}
    made["full"] = blosc2.full((50, 50), 7, urlpath=str(tmp_path / "full.b2nd"), **options)
    if "f" in dtype:
        made["nans"] = blosc2.nans((50, 50), urlpath=str(tmp_path / "nans.b2nd"), **options)
    for name, array in made.items():
        assert np.array_equal(array[...], vf.open_array(tmp_path / f"{name}.b2nd")[...], equal_nan="f" in dtype), name
        # Then one chunk and a part of another.
        array[16:40, 3:20] = 5
        read = vf.open_array(tmp_path / f"{name}.b2nd")
        assert np.array_equal(array[...], read[...], equal_nan="f" in dtype), name
    assert vf.open_array(tmp_path / "zeros.b2nd").explain(...).chunks_missing > 0
    blosc2.uninit((50, 50), urlpath=str(tmp_path / "uninit.b2nd"), **options)
    assert vf.open_array(tmp_path / "uninit.b2nd")[...].shape == (50, 50)


def test_zeros_beside_nan_are_refused(tmp_path):
    array = blosc2.nans((40,), dtype="<f8", chunks=(10,), blocks=(5,), urlpath=str(tmp_path / "a.b2nd"))
    array[10:20] = 1
    np.testing.assert_array_equal(vf.open_array(tmp_path / "a.b2nd")[...], array[...])
    array[10:20] = 0
    with pytest.raises(vf.UnsupportedError, match="zeros and others all NaN"):
        vf.open_array(tmp_path / "a.b2nd")


def test_empty_arrays_and_scalars(written):
    for shape in [(0,), (0, 5), (3, 0, 2)]:
        array = vf.open_array(written(np.zeros(shape, "u1")))
        assert (array.shape, array[...].shape) == (shape, shape)
    scalar = vf.open_array(written(np.array(5, "<i4")))
    assert (scalar.shape, scalar[()]) == ((), 5)


def test_chunks_that_were_written_again_lie_elsewhere(written):
    values = volume((60, 60))
    path = written(values, (20, 20), (7, 7))
    array = blosc2.open(str(path), mode="a")
    for start in (0, 25, 40):
        array[start : start + 9, 10:50] = values[start : start + 9, 10:50] = start
    array.resize((75, 60))
    array[60:, :] = 3
    expected = np.concatenate([values, np.full((15, 60), 3, values.dtype)])
    np.testing.assert_array_equal(vf.open_array(path)[...], expected)


def test_bytes_between_chunks_are_not_read(written):
    values = np.random.default_rng(0).integers(0, 256, (64, 64), "u1")
    path = written(values, (32, 32), (8, 8))
    data = path.read_bytes()
    end = struct.unpack_from(">i", data, 11)[0] + struct.unpack_from(">q", data, 39)[0]
    # As after chunks that were replaced by larger ones, which lie elsewhere.
    gap = bytes(100_000)
    data = patched(data, 39, ">q", struct.unpack_from(">q", data, 39)[0] + len(gap))
    data = patched(data, 16, ">Q", len(data) + len(gap))
    path.write_bytes(data[:end] + gap + data[end:])
    read = vf.open_array(path)
    np.testing.assert_array_equal(read[...], values)
    assert read.explain((63, 63)).bytes_needed <= 32 * 32 + 32


def test_attributes_are_the_metalayers_of_the_trailer(written):
    attributes = {
        "voxel": [1.5, 2, 3],
        "name": "ä",
        "nested": {"a": None, "b": [True, -5, 1 << 40]},
        "long": "x" * 9000,
    }
    array = vf.open_array(written(np.zeros((8, 8), "u1"), attributes={**attributes, "raw": b"12"}))
    assert array.attrs == attributes


@pytest.mark.parametrize("content", [[[]] * 500_000, "x" * (2 << 20)])
def test_attributes_without_end_are_left_out(written, content):
    path = written(np.zeros((8, 8), "u1"), attributes={"many": content, "name": "kept"})
    tracemalloc.start()
    try:
        assert "many" not in vf.open_array(path).attrs
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_ways_to_name_a_file(written, tmp_path):
    values = volume((33, 45))
    path = written(values, (16, 20), (5, 6), attributes={"a": 1})
    other = tmp_path / "no name"
    other.write_bytes(path.read_bytes())
    for source in (path, str(path), f"file://{path}", f"{path}|b2nd:", other, f"b2nd://{other}"):
        np.testing.assert_array_equal(vf.open(source)[...], values)
    np.testing.assert_array_equal(vf.open_array(other, format="b2nd")[3:9], values[3:9])
    again = pickle.loads(pickle.dumps(vf.open_array(path)))
    np.testing.assert_array_equal(again[...], values)
    assert again.attrs == {"a": 1}
    with pytest.raises(vf.NotFoundError, match="in an array"):
        vf.open_array(path, "inside")
    with pytest.raises(vf.NotFoundError):
        vf.open(tmp_path / "missing.b2nd")
    blosc2.asarray(values, urlpath=str(tmp_path / "sparse.b2nd"), contiguous=False)
    with pytest.raises(vf.UnsupportedError, match="folder"):
        vf.open(tmp_path / "sparse.b2nd")


def test_a_file_that_was_replaced_is_noticed(written):
    path = written(volume((60, 60)), (20, 20), (7, 7))
    array = vf.open_array(path)
    written(volume((60, 60), seed=3), (20, 20), (7, 7))
    with pytest.raises(vf.ObjectChangedError):
        array[...]


def test_over_http(written, tmp_path):
    values = np.random.default_rng(0).integers(0, 1 << 16, (200, 300), "u2")
    written(values, (50, 60), (10, 60), name="large.b2nd", attributes={"a": 1})
    written(values[:20, :30], (10, 10), (5, 5), name="small.b2nd")
    with FaultyServer(tmp_path) as server:
        small = vf.open(f"{server.url}/small.b2nd")
        assert len(server.requests) == 1
        np.testing.assert_array_equal(small[...], values[:20, :30])
        server.requests.clear()
        large = vf.open(f"{server.url}/large.b2nd")
        assert len(server.requests) == 2
        assert large.attrs == {"a": 1}
        server.requests.clear()
        np.testing.assert_array_equal(large[60:70, 70:75], values[60:70, 70:75])
        assert len(server.requests) == 1, "one chunk"
        np.testing.assert_array_equal(large[...], values)
        with pytest.raises(vf.NotFoundError):
            vf.open(f"{server.url}/missing.b2nd")


def patched(data, at, form, value):
    return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


def test_headers_that_lie_are_refused(written, tmp_path):
    data = written(volume((33, 45)), (16, 20), (5, 6), attributes={"a": 1}).read_bytes()
    header = struct.unpack_from(">i", data, 11)[0]
    layer = data.index(b"\x97\x00\x02\x92\xd3")
    kinds = (vf.MetadataError, vf.DataError, vf.UnsupportedError, vf.LimitExceededError)
    changes = {
        "magic": (1, ">B", 0),
        "header of no size": (11, ">i", 0),
        "header of a negative size": (11, ">i", -1),
        "large header": (11, ">i", 2**31 - 1),
        "long frame": (16, ">Q", 2**64 - 1),
        "short frame": (16, ">Q", 90),
        "frame version": (25, ">B", 0x1F),
        "offsets of 32 bits": (25, ">B", 0x02),
        "chunks of several sizes": (25, ">B", 0x52),
        "sparse": (26, ">B", 1),
        "codec of a plugin": (27, ">B", 0x56),
        "many chunk bytes": (39, ">q", 2**62),
        "negative chunk bytes": (39, ">q", -5),
        "another item": (48, ">i", 4),
        "another chunk": (58, ">i", 641),
        "filter of a plugin": (71, ">B", 35),
        "long extent": (layer + 5, ">q", 2**60),
        "negative extent": (layer + 5, ">q", -1),
        "no chunk": (layer + 24, ">i", 0),
        "large chunk": (layer + 24, ">i", 2**31 - 1),
        "negative block": (layer + 35, ">i", -1),
        "long trailer": (len(data) - 22, ">I", 2**32 - 1),
        "short trailer": (len(data) - 22, ">I", 5),
    }
    for name, change in changes.items():
        lie = tmp_path / "lie.b2nd"
        lie.write_bytes(patched(data, *change))
        with pytest.raises(kinds) as caught:
            vf.open_array(lie, format="b2nd")
        assert "lie.b2nd" in str(caught.value), name
    for size in (*range(0, header + 40, 7), len(data) // 2, len(data) - 1):
        lie.write_bytes(data[:size])
        with pytest.raises(kinds):
            vf.open_array(lie, format="b2nd")


def test_chunks_that_lie_are_refused(written, tmp_path):
    data = written(volume((64, 64)), (32, 32), (8, 8), codec=blosc2.Codec.ZSTD).read_bytes()
    at = struct.unpack_from(">i", data, 11)[0]
    kinds = (vf.CodecError, vf.UnsupportedError)
    changes = {
        "Blosc 1": (at, "<B", 2),
        "several sizes": (at, "<B", 6),
        "no long header": (at + 2, "<B", data[at + 2] & ~5),
        "codec of a plugin": (at + 2, "<B", data[at + 2] & 31 | 0xC0),
        "unknown codec": (at + 2, "<B", data[at + 2] & 31 | 0xE0),
        "typesize": (at + 3, "<B", 0),
        "nbytes": (at + 4, "<i", 2**31 - 1),
        "negative nbytes": (at + 4, "<i", -1),
        "blocksize": (at + 8, "<i", 1),
        "no blocksize": (at + 8, "<i", 0),
        "cbytes beyond the range": (at + 12, "<i", 1 << 20),
        "cbytes within the table": (at + 12, "<i", 50),
        "filter of a plugin": (at + 16, "<B", 35),
        "dictionary": (at + 31, "<B", 1),
        "lazy": (at + 31, "<B", 8),
        "unknown special value": (at + 31, "<B", 0x70),
        "value of no size": (at + 31, "<B", 0x30),
        "block outside": (at + 32, "<i", 1 << 20),
        "block in the header": (at + 32, "<i", 4),
    }
    for name, change in changes.items():
        lie = tmp_path / "lie.b2nd"
        lie.write_bytes(patched(data, *change))
        array = vf.open_array(lie)
        with pytest.raises(kinds) as caught:
            array[...]
        assert caught.value.chunk == (0, 0), name
        # What is wrong with one chunk is nothing to the others.
        assert array[40, 40] == volume((64, 64))[40, 40], name


def test_offsets_that_lie_are_refused(written, tmp_path):
    data = written(volume((8, 8)), (4, 4), (2, 2)).read_bytes()
    header = struct.unpack_from(">i", data, 11)[0]
    start = header + struct.unpack_from(">q", data, 39)[0]
    stored = _core.decode_blosc2(data[start:], 32)
    assert len(stored) == 32
    lie = tmp_path / "lie.b2nd"
    for value, kind in ((1 << 40, vf.DataError), (-1 << 63, vf.MetadataError)):
        chunk = bytes(blosc2.compress2(struct.pack("<q", value) + stored[8:], typesize=8, clevel=0))
        trailer = struct.unpack_from(">I", data, len(data) - 22)[0]
        whole = data[:start] + chunk + data[-trailer:]
        lie.write_bytes(patched(whole, 16, ">Q", len(whole)))
        with pytest.raises(kind):
            vf.open_array(lie)


@pytest.mark.parametrize("seed", range(4))
def test_random_changes_end_in_typed_errors(written, tmp_path, seed):
    data = written(volume((40, 40)), (20, 20), (7, 7), attributes={"a": [1, "b"]}).read_bytes()
    random = np.random.default_rng(seed)
    lie = tmp_path / "lie.b2nd"
    for _ in range(150):
        mutant = bytearray(data)
        for _ in range(int(random.integers(1, 4))):
            mutant[int(random.integers(len(data)))] = int(random.integers(256))
        lie.write_bytes(mutant)
        try:
            vf.open_array(lie, format="b2nd")[...]
        except vf.VoxfetchError as error:
            assert not isinstance(error, vf.InternalError), error


def test_plugins_and_dictionaries_are_refused_by_name(written):
    values = np.random.default_rng(0).integers(0, 9, (400, 400), "i4")
    with pytest.raises(vf.UnsupportedError, match="dictionary"):
        vf.open_array(written(values, codec=blosc2.Codec.ZSTD, use_dict=True, filters=[], filters_meta=[]))[...]
    with pytest.raises(vf.UnsupportedError, match="filter 35"):
        vf.open_array(written(values, filters=[blosc2.Filter.BYTEDELTA], filters_meta=[4]))
    with pytest.raises(vf.UnsupportedError, match="codec 35"):
        vf.open_array(written(values, codec=blosc2.Codec.ZFP_RATE, codec_meta=37, filters=[], filters_meta=[]))
    fields = np.zeros(10, [("a", "<i4"), ("b", "<f4")])
    with pytest.raises(vf.UnsupportedError, match="data type"):
        vf.open_array(written(fields))


def test_a_super_chunk_is_no_array(tmp_path):
    blosc2.SChunk(chunksize=100, data=bytes(300), urlpath=str(tmp_path / "a.b2frame"), contiguous=True, mode="w")
    with pytest.raises(vf.UnsupportedError, match="without a shape"):
        vf.open(tmp_path / "a.b2frame")


def test_a_chunk_of_blosc2_is_no_chunk_of_the_blosc_codec(written, tmp_path):
    folder = tmp_path / "zarr"
    folder.mkdir()
    compressor = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
    document = {"zarr_format": 2, "shape": [100], "chunks": [100], "dtype": "<i8", "order": "C", "fill_value": 0}
    (folder / ".zarray").write_text(json.dumps({**document, "filters": None, "compressor": compressor}))
    values = np.arange(100)
    for body in (bytes(blosc2.compress2(values)), written(values).read_bytes()):
        (folder / "0").write_bytes(body)
        with pytest.raises(vf.CodecError, match="Blosc 2"):
            vf.open_array(folder)[...]


def test_msgpack_within_limits():
    assert Unpacker(b"\x93\x01\xff\xa1a").value() == [1, -1, "a"]
    for broken in (
        b"",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 100,
        b"\xd4\x01\x00",
        b"\xa1\xff",
        b"\x81\x01\x01",
    ):
        with pytest.raises(ValueError):
            Unpacker(broken).value()


def test_one_chunk_by_itself():
    data = os.urandom(1000) + bytes(3000)
    chunk = bytes(blosc2.compress2(data, typesize=8))
    assert _core.decode_blosc2(chunk, 4000) == data
    with pytest.raises(vf.CodecError, match="at most 3999"):
        _core.decode_blosc2(chunk, 3999)
