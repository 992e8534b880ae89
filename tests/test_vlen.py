"""Elements of no fixed size: strings, bytes and other objects, as zarr-python and numcodecs write them."""

from __future__ import annotations

import asyncio
import json
import pickle
import struct
import threading
import tracemalloc
import warnings
from pathlib import Path

import msgpack
import numcodecs
import numpy as np
import pytest
import zarr
from zarr.core.dtype import VariableLengthBytes

import voxfetch as vf
from tests.servers.faulty import FaultyServer

DATA = Path(__file__).parent / "data"
WORDS = ["", "a", "voxel", "Würfel", "体素", "x" * 300]
UTF8, BYTES = {"id": "vlen-utf8"}, {"id": "vlen-bytes"}


def strings(shape, seed=0):
    """Words of which most are of different lengths, some empty."""
    generator = np.random.default_rng(seed)
    words = [f"{WORDS[kind]}{number % 7}" if number % 5 else WORDS[kind] for number, kind in enumerate(
        generator.integers(0, len(WORDS), np.prod(shape, dtype=int))
    )]  # fmt: skip
    result = np.empty(len(words), object)
    result[:] = words
    return result.reshape(shape)


def as_bytes(words):
    result = np.empty(words.shape, object)
    result.reshape(-1)[:] = [word.encode() for word in words.reshape(-1)]
    return result


def same(found, expected):
    """Equal in shape, values and the types of these."""
    assert isinstance(found, np.ndarray), type(found)
    assert (found.dtype, found.shape) == (np.dtype(object), expected.shape)
    assert [type(one) for one in found.reshape(-1)] == [type(one) for one in expected.reshape(-1)]
    assert found.tolist() == expected.tolist()


def written(path, expected, **layout):
    """By zarr-python."""
    kind = VariableLengthBytes() if isinstance(expected.reshape(-1)[0], bytes) else "string"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = zarr.create_array(str(path), shape=expected.shape, dtype=kind, **layout)
        array[...] = expected
    return path


def by_hand(path, chunks, *, shape, chunk_shape, filters, fill=None, compressor=None, order="C"):
    """A Zarr v2 array of objects whose chunks are encoded here."""
    path.mkdir()
    document = {
        "zarr_format": 2, "shape": shape, "chunks": chunk_shape, "dtype": "|O", "fill_value": fill, "order": order,
        "filters": filters, "compressor": compressor,
    }  # fmt: skip
    (path / ".zarray").write_text(json.dumps(document))
    for key, encoded in chunks.items():
        (path / key).write_bytes(encoded)
    return path


LAYOUTS = {
    "v2": {"zarr_format": 2, "chunks": (5, 7)},
    "v2 compressed": {"zarr_format": 2, "chunks": (5, 7), "compressors": numcodecs.Blosc(cname="zstd")},
    "v2 F": {"zarr_format": 2, "chunks": (5, 7), "order": "F"},
    "v3": {"zarr_format": 3, "chunks": (5, 7), "compressors": None},
    "v3 zstd": {"zarr_format": 3, "chunks": (5, 7), "compressors": zarr.codecs.ZstdCodec()},
    "v3 sharded": {"zarr_format": 3, "chunks": (5, 7), "shards": (10, 14)},
}


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return LAYOUTS[request.param]


@pytest.mark.parametrize("kind", ["strings", "bytes"])
def test_all_selections_are_those_of_numpy(layout, kind, tmp_path):
    expected = strings((23, 30))
    if kind == "bytes":
        expected = as_bytes(expected)
    array = vf.open_array(written(tmp_path / "a", expected, **layout))
    assert array.dtype == object
    assert array.nbytes == 8 * array.size
    same(array[...], expected)
    same(array[3:19:2, 5], expected[3:19:2, 5])
    assert array[4, 9] == expected[4, 9]
    assert type(array[4, 9]) is type(expected[4, 9])
    same(array[23:, :], expected[23:, :])
    same(array.oindex[[1, 22, 7], [29, 0]], expected[np.ix_([1, 22, 7], [29, 0])])
    same(array.vindex[[1, 22, 7], [29, 0, 3]], expected[[1, 22, 7], [29, 0, 3]])
    same(array.read_points([(0, 0), (22, 29)]), expected[[0, 22], [0, 29]])
    same(array.read_many([(0, 0), (18, 20)], (5, 7)), np.stack([expected[:5, :7], expected[18:23, 20:27]]))
    same(array.with_axes(("dim_1", "dim_0"))[2:9], expected.T[2:9])
    same(array.read(order="F"), expected)
    assert array.read(order="F").flags.f_contiguous


def test_transposed_chunks_are_read_as_they_lie(tmp_path):
    # Written by zarr-python they lie in another order than it reads them in: what it reads is what the codecs say.
    transpose = zarr.codecs.TransposeCodec(order=(1, 0))
    path = written(tmp_path / "a", strings((20, 28)), zarr_format=3, chunks=(5, 7), filters=transpose)
    same(vf.open_array(path)[...], zarr.open_array(str(path))[...].astype(object))


FOREIGN = [
    "neuroglancer/zarr_v2/from_zarr-python/data.zarr/3d.chunked.O/.zarray",
    "zarrita.js/v2/data.zarr/3d.chunked.O/.zarray",
    "zarrita.js/v3/data.zarr/1d.chunked.string.vlen/zarr.json",
    "zarrita.js/v3/data.zarr/1d.contiguous.string.compressed/zarr.json",
    "zarrita.js/v3/data.zarr/1d.contiguous.string.vlen/zarr.json",
    "zarrita.js/v3/data.zarr/1d.string.empty/zarr.json",
    "zarrita.js/v3/data.zarr/2d.chunked.string.vlen/zarr.json",
    "zarrs/issue_287.zarr/meta/collection/zarr.json",
    "zarrs/v3/cities.zarr/zarr.json",
    "zarrs/zarr_python_compat/str_v2_fv_null.zarr/.zarray",
    "zarrs/zarr_python_compat/v3_bytes.zarr/zarr.json",
]


@pytest.mark.parametrize("document", FOREIGN)
def test_arrays_of_other_projects_are_those_of_zarr_python(document):
    path, version = DATA / document, 2 if document.endswith(".zarray") else 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = zarr.open_array(str(path.parent), mode="r", zarr_format=version)[...]
    same(vf.open_array(path.parent, format=f"zarr{version}")[...], np.asarray(expected).astype(object))


def test_what_is_outside_or_missing_is_the_fill_value(layout, tmp_path):
    expected = strings((20, 28))
    path = written(tmp_path / "a", expected, fill_value="none", **layout)
    array = vf.open_array(path)
    assert array.fill_value == "none"
    same(array.read_box((-1, 0), (2, 2), bounds="fill"), np.array([["none"] * 2, list(expected[0, :2])], object))
    stored = array.shards or array.chunks
    for name in [path / "c" / "0" / "0", path / "0.0"]:
        name.unlink(missing_ok=True)
    expected[: stored[0], : stored[1]] = "none"
    same(array[...], expected)


def test_blocks_reports_and_several_arrays(layout, tmp_path):
    expected = strings((20, 28))
    array = vf.open_array(written(tmp_path / "a", expected, **layout))
    for prefetch in (0, 3):
        for box, block in array.blocks((6, 11), prefetch=prefetch):
            same(block, expected[box.slices])

    async def blocks():
        async for box, block in array.blocks((6, 11)):
            same(block, expected[box.slices])
        return await asyncio.gather(*(array.read_async() for _ in range(5)))

    for block in asyncio.run(blocks()):
        same(block, expected)
    one, two = vf.read_all([(array, slice(0, 3)), (array, slice(9, 20))])
    same(one, expected[:3])
    same(two, expected[9:20])
    assert array.verify().problem_count == 0
    report = array.explain()
    assert report.in_python == ("vlen-utf8",)
    assert "decoded through Python  vlen-utf8" in str(report)
    assert "vlen-utf8 (in Python)" in array.codecs


def test_out_is_an_array_of_objects(tmp_path):
    expected = strings((20, 28))
    array = vf.open_array(written(tmp_path / "a", expected, zarr_format=2, chunks=(5, 7)))
    around = np.full((22, 56), None, object)
    out = around[1:21, ::2]
    assert array.read(out=out) is out
    same(out, expected)
    assert set(around[:, 1::2].reshape(-1)) == {None}
    frozen = np.empty((20, 28), object)
    frozen.flags.writeable = False
    for wrong in (np.empty((20, 27), object), np.empty((20, 28), "U9"), np.empty((20, 28), np.uint64), [], frozen):
        with pytest.raises(vf.SelectionError, match="array of objects of the shape"):
            array.read(out=wrong)


def test_arrays_without_axes_and_without_elements(tmp_path):
    path = tmp_path / "scalar"
    array = zarr.create_array(str(path), shape=(), dtype="string")
    array[...] = "one"
    assert vf.open_array(path)[...] == "one"
    assert vf.open_array(path)[()] == "one"
    zarr.create_array(str(tmp_path / "empty"), shape=(0, 3), chunks=(2, 2), dtype="string")
    same(vf.open_array(tmp_path / "empty")[...], np.empty((0, 3), object))


@pytest.mark.parametrize("version", [2, 3])
def test_remote_arrays(version, tmp_path):
    expected = strings((40, 30))
    shards = {} if version == 2 else {"shards": (20, 30)}
    path = written(tmp_path / "a", expected, zarr_format=version, chunks=(5, 7) if version == 2 else (5, 6), **shards)
    with FaultyServer(path) as server, vf.Engine(decode_threads=2, chunk_cache_bytes=16 << 20) as engine:
        array = vf.open_array(server.url, engine=engine)
        same(array[...], expected)
        same(array[7:9, 3:20], expected[7:9, 3:20])
        assert array.verify().problem_count == 0
        assert array.explain().in_python == ("vlen-utf8",)

        async def read():
            return await asyncio.gather(*(array.read_async(np.s_[k::3]) for k in range(3)))

        for k, block in enumerate(asyncio.run(read())):
            same(block, expected[k::3])
        for box, block in array.blocks((11, 30)):
            same(block, expected[box.slices])


def test_objects_of_one_read_are_never_those_of_another(tmp_path):
    # A cache of decoded chunks would hold numbers that mean something else by then.
    one, two = strings((20, 28)), strings((20, 28), seed=1)
    paths = [written(tmp_path / name, words, zarr_format=2, chunks=(5, 7)) for name, words in (("a", one), ("b", two))]
    with vf.Engine(decode_threads=2, chunk_cache_bytes=64 << 20) as engine:
        first, second = (vf.open_array(path, engine=engine) for path in paths)
        for _ in range(3):
            same(first[...], one)
            same(second[3:], two[3:])
            same(first[5:7, 1:], one[5:7, 1:])
        assert engine.stats().chunk_cache_bytes == 0


def test_pickled_arrays_read(tmp_path):
    expected = strings((20, 28))
    array = vf.open_array(written(tmp_path / "a", expected, zarr_format=3, chunks=(5, 7), fill_value="-"))
    array[...]
    data = pickle.dumps(array)
    assert len(data) < 4096
    again = pickle.loads(data)
    same(again[...], expected)
    assert again.fill_value == "-"
    assert again == array


def test_many_threads_read_many_chunks(tmp_path):
    expected = strings((60, 60))
    path = written(tmp_path / "a", expected, zarr_format=2, chunks=(4, 4))
    with vf.Engine(decode_threads=8) as engine:
        array = vf.open_array(path, engine=engine)
        failures = []

        def read(seed):
            try:
                for k in range(4):
                    same(array[seed + k :, k:], expected[seed + k :, k:])
            except BaseException as error:  # noqa: BLE001 - looked at below
                failures.append(error)

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert not failures


OBJECTS = {
    "json2": numcodecs.JSON(),
    "msgpack2": numcodecs.MsgPack(),
    "categorize": numcodecs.Categorize(["a", "bb", "ccc"], dtype=object),
}


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("compressor", [None, {"id": "zlib", "level": 1}])
def test_objects_through_numcodecs(name, compressor, tmp_path):
    codec = OBJECTS[name]
    values = ["a", "bb", "ccc", "a", ""] if name == "categorize" else ["a", 3, [1, {"b": None}], None, 2.5]
    expected = np.empty(5, object)
    expected[:] = values
    chunks = {}
    for number in range(2):
        chunk = np.full(3, values[0], object)
        part = expected[number * 3 : number * 3 + 3]
        chunk[: len(part)] = part
        encoded = bytes(memoryview(codec.encode(chunk)))
        chunks[str(number)] = bytes(numcodecs.Zlib(1).encode(encoded)) if compressor else encoded
    path = by_hand(
        tmp_path / "a", chunks, shape=[5], chunk_shape=[3], filters=[codec.get_config()], compressor=compressor
    )
    array = vf.open_array(path)
    same(array[...], expected)
    assert array.codecs.startswith(f"bytes, {name} (through numcodecs {numcodecs.__version__})")
    (path / "1").unlink()
    assert array[4] is None


def test_objects_that_are_missing_can_be_changed(tmp_path):
    codec = numcodecs.JSON()
    path = by_hand(tmp_path / "a", {}, shape=[4], chunk_shape=[2], filters=[codec.get_config()], fill={"a": 1})
    array = vf.open_array(path)
    first = array[...]
    first[0]["a"] = 99
    assert [one["a"] for one in first] == [99, 1, 1, 1]
    assert [one["a"] for one in array[...]] == [1, 1, 1, 1]


@pytest.mark.parametrize("shape", [[200_000_000], [3, 1 << 40], [-3], [3.0], 3, None, [2], []])
@pytest.mark.parametrize("name", ["json2", "msgpack2"])
def test_chunks_that_claim_another_shape(tmp_path, name, shape):
    items = ["a", "|O", shape]
    encoded = json.dumps(items).encode() if name == "json2" else msgpack.packb(items)
    path = by_hand(tmp_path / "a", {"0": encoded}, shape=[3], chunk_shape=[3], filters=[OBJECTS[name].get_config()])
    tracemalloc.start()
    try:
        with pytest.raises(vf.CodecError, match="3 objects"):
            vf.open_array(path)[...]
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_arrays_of_arrays(tmp_path):
    codec = numcodecs.VLenArray("<i4")
    rows = np.empty(3, object)
    rows[:] = [np.array([1, 2], "<i4"), np.array([], "<i4"), np.array([7], "<i4")]
    path = by_hand(tmp_path / "a", {"0": codec.encode(rows)}, shape=[3], chunk_shape=[3], filters=[codec.get_config()])
    found = vf.open_array(path)[...]
    assert [row.tolist() for row in found] == [[1, 2], [], [7]]
    assert {row.dtype for row in found} == {np.dtype("<i4")}


# -------------------------------------------------------------------------------------------------------- what is wrong


def vlen(*elements, count=None):
    parts = [struct.pack("<I", len(elements) if count is None else count)]
    for element in elements:
        parts += [struct.pack("<I", len(element)), element]
    return b"".join(parts)


WRONG = {
    "empty": (b"", "0 elements in 0 bytes, expected 3"),
    "short count": (b"\3\0", "0 elements in 2 bytes, expected 3"),
    "fewer": (vlen(b"a", b"b"), "2 elements in 14 bytes, expected 3"),
    "more": (vlen(b"a", b"b", b"c", b"d"), "4 elements in 24 bytes, expected 3"),
    "count only": (struct.pack("<I", 3), "3 elements in 4 bytes, expected 3"),
    "no length": (vlen(b"a" * 9, b"", count=3), "element 2 of 0 bytes ends at byte 25 of 21"),
    "cut": (vlen(b"a", b"b", b"ccc")[:-1], "element 2 of 3 bytes ends at byte 21 of 20"),
    "huge length": (vlen(b"a", b"b") [:-5] + b"\xff\xff\xff\xff" + b"12345", "ends at byte"),
    "more bytes": (vlen(b"a", b"b", b"c") + b"?", "1 bytes after the last element"),
    "no text": (vlen(b"a", b"\xff", b"c"), "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_broken_chunks_are_errors(case, tmp_path):
    encoded, message = WRONG[case]
    if case == "huge length":
        encoded = struct.pack("<I", 3) + encoded[4:]
    path = by_hand(tmp_path / "a", {"0": encoded}, shape=[3], chunk_shape=[3], filters=[UTF8])
    array = vf.open_array(path)
    with pytest.raises(vf.CodecError) as caught:
        array[...]
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"vlen-utf8: {path}/0: ") or "vlen-utf8: " in str(caught.value)
    assert caught.value.chunk == (0,)
    assert array.verify().problem_count == 1


def v3(data_type, codecs, fill):
    return json.dumps({
        "zarr_format": 3, "node_type": "array", "shape": [3], "data_type": data_type, "fill_value": fill,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [3]}},
        "chunk_key_encoding": {"name": "default"}, "codecs": codecs,
    })  # fmt: skip


DOCUMENTS = {
    "fixed size": (v3("string", ["bytes"], ""), vf.UnsupportedError, "no fixed size"),
    "only compressed": (v3("string", ["bytes", "gzip"], ""), vf.UnsupportedError, "no fixed size"),
    "numbers": (v3("uint64", ["vlen-utf8"], 0), vf.MetadataError, "those of this array are not"),
    "late": (v3("string", ["bytes", "vlen-utf8"], ""), vf.MetadataError, "those of this array are not"),
    "twice": (v3("string", ["vlen-utf8", "vlen-utf8"], ""), vf.MetadataError, "those of this array are not"),
    "strings as bytes": (v3("string", ["vlen-bytes"], ""), vf.MetadataError, "`vlen-utf8`, not by `vlen-bytes`"),
    "bytes as strings": (v3("bytes", ["vlen-utf8"], ""), vf.MetadataError, "`vlen-bytes`, not by `vlen-utf8`"),
    "fill value": (v3("string", ["vlen-utf8"], None), None, None),
    "fill list": (v3("string", ["vlen-utf8"], [1]), vf.MetadataError, "fill_value: [1] is none"),
    "fill base64": (v3("bytes", ["vlen-bytes"], "?"), vf.MetadataError, "fill_value: '?' is none"),
    "fill bytes": (v3("bytes", ["vlen-bytes"], [1, 256]), vf.MetadataError, "fill_value: [1, 256] is none"),
    "fill object": (v3("bytes", ["vlen-bytes"], {}), vf.MetadataError, "fill_value: {} is none"),
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_wrong_documents_are_refused(case, tmp_path):
    document, error, message = DOCUMENTS[case]
    (tmp_path / "zarr.json").write_text(document)
    if error is None:
        assert vf.open_array(tmp_path)[0] == ""
        return
    with pytest.raises(error) as caught:
        vf.open_array(tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path / "zarr.json") in str(caught.value)


@pytest.mark.parametrize(
    ("data_type", "codec", "fill", "value"),
    [
        ("string", "vlen-utf8", "é", "é"),
        ("bytes", "vlen-bytes", [1, 255], b"\1\xff"),
        ("bytes", "vlen-bytes", "Af8=", b"\1\xff"),
        ("variable_length_bytes", "vlen-bytes", "", b""),
        ("binary", "vlen-bytes", 0, b""),
    ],
)
def test_fill_values(data_type, codec, fill, value, tmp_path):
    (tmp_path / "zarr.json").write_text(v3(data_type, [{"name": codec}], fill))
    array = vf.open_array(tmp_path)
    assert (array.fill_value, array[2]) == (value, value)


def test_the_command_line_shows_them_and_writes_no_file(tmp_path, capsys):
    from voxfetch.cli import main

    words = strings((20, 28))
    paths = [
        written(tmp_path / "a", words, zarr_format=2, chunks=(5, 7), fill_value="none"),
        written(tmp_path / "b", as_bytes(words), zarr_format=2, chunks=(5, 7), fill_value=b"\xff\0"),
    ]
    shown = [("none", "none"), ("b'\\xff\\x00'", "ff00")]
    for path, (fill, as_json) in zip(paths, shown, strict=True):
        assert main(["info", str(path)]) == 0
        assert f"object, fill value {fill}" in capsys.readouterr().out
        assert main(["info", "--json", str(path)]) == 0
        assert f'"fill_value": "{as_json}"' in capsys.readouterr().out
        assert main(["read", str(path), "-o", str(tmp_path / "c.npy")]) != 0
        assert "no fixed size" in capsys.readouterr().err
        assert not (tmp_path / "c.npy").exists()


def test_objects_are_not_written(tmp_path):
    path = written(tmp_path / "a", strings((20, 28)), zarr_format=2, chunks=(5, 7))
    array = vf.open_array(path, mode="r+")
    with pytest.raises(vf.UnsupportedError, match="not written"):
        array[...] = "a"


def test_pickled_objects_are_refused(tmp_path):
    path = by_hand(tmp_path / "a", {}, shape=[3], chunk_shape=[3], filters=[{"id": "pickle", "protocol": 5}])
    with pytest.raises(vf.UnsupportedError, match="`pickle` runs code"):
        vf.open_array(path)
    path = by_hand(tmp_path / "b", {}, shape=[3], chunk_shape=[3], filters=None, compressor={"id": "pickle"})
    with pytest.raises(vf.UnsupportedError, match="`pickle` runs code"):
        vf.open_array(path)


def test_objects_of_another_number_or_type(tmp_path):
    codec = numcodecs.JSON()
    two, numbers = np.array(["a", "b"], object), np.arange(3)
    chunks = {"0": codec.encode(two), "1": codec.encode(numbers), "2": b'["a", "|O", [1000000000000]]', "3": b"{"}
    path = by_hand(tmp_path / "a", chunks, shape=[12], chunk_shape=[3], filters=[codec.get_config()])
    array = vf.open_array(path)
    for place, message in [
        (0, "not 3 objects"),
        (3, "not 3 objects"),
        (6, "json2: "),
        (9, "JSONDecodeError"),
    ]:
        with pytest.raises(vf.CodecError, match=message):
            array[place]
