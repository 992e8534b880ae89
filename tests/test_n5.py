"""N5 as users read it: the voxels of tensorstore, whatever the blocks look like; images; from disk and far away."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import tensorstore
from hypothesis import given, settings
from hypothesis import strategies as st

import voxfetch as vf
from tests.n5_files import (
    COMPRESSIONS,
    LZ4_SEED,
    encoded_block,
    put_array,
    put_block,
    put_document,
    xxhash32,
)
from tests.servers import objects_in
from tests.servers.faulty import FaultyServer
from tests.servers.moto_s3 import moto_s3
from tests.stores import CREDENTIALS

DATA = Path(__file__).parent / "data" / "n5"
TIMEPOINT = "setup0/timepoint0"

BY_TENSORSTORE = {
    "raw": {"type": "raw"},
    "gzip": {"type": "gzip", "level": 6},
    "zlib": {"type": "gzip", "level": 1, "useZlib": True},
    "bzip2": {"type": "bzip2", "blockSize": 2},
    "xz": {"type": "xz", "preset": 1},
    "zstd": {"type": "zstd", "level": 3},
    **{
        f"blosc {cname} {shuffle}": {"type": "blosc", "cname": cname, "clevel": 5, "shuffle": shuffle, "blocksize": 0}
        for cname in ("lz4", "blosclz", "zlib", "zstd")
        for shuffle in (0, 1, 2)
    },
}
DTYPES = [f"{kind}int{bits}" for kind in ("", "u") for bits in (8, 16, 32, 64)] + ["float32", "float64"]


def spec(path):
    return {"driver": "n5", "kvstore": {"driver": "file", "path": f"{path}/"}}


def by_tensorstore(path):
    """All voxels of an array as tensorstore reads it, axes in the order of `dimensions`."""
    return tensorstore.open(spec(path)).result().read().result()


def written(path, expected, block_shape, **members):
    """Writes with tensorstore, which pads blocks at the ends."""
    metadata = {
        "dimensions": list(expected.shape),
        "blockSize": list(block_shape),
        "dataType": expected.dtype.name,
        "compression": {"type": "raw"},
        **members,
    }
    store = tensorstore.open({**spec(path), "metadata": metadata, "create": True}).result()
    store.write(expected).result()
    return path


@pytest.fixture
def engine():
    with vf.Engine(decode_threads=2) as engine:
        yield engine


def assert_reads(source, expected, **keywords):
    """Everything, a box off the grid of blocks, and a reordered view."""
    array = vf.open_array(source, **keywords)
    assert (array.shape, array.dtype, array.format) == (expected.shape, expected.dtype.newbyteorder("="), "n5")
    np.testing.assert_array_equal(array[...], expected)
    np.testing.assert_array_equal(array.read(order="F"), expected)
    box = tuple(slice(n // 3, n // 3 + max(1, n // 2)) for n in expected.shape)
    np.testing.assert_array_equal(array[box], expected[box])
    view = array.with_axes(array.axes[::-1])
    np.testing.assert_array_equal(view[...], expected.transpose())
    return array


# ------------------------------------------------------------------------------------------- arrays by tensorstore


@pytest.mark.parametrize("compression", BY_TENSORSTORE)
def test_compressions_by_tensorstore(tmp_path, make_values, compression):
    expected = make_values((23, 17, 9), "uint16") % 50
    path = written(tmp_path / "a.n5", expected, (8, 5, 4), compression=BY_TENSORSTORE[compression])
    array = assert_reads(path, expected)
    assert (array.chunks, array.shards, array.fill_value) == ((8, 5, 4), None, 0)
    report = array.verify()
    assert (report.chunks, report.chunks_missing, report.problem_count) == (3 * 4 * 3, 0, 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_types_by_tensorstore(tmp_path, make_values, dtype):
    expected = make_values((13, 11), dtype)
    array = assert_reads(written(tmp_path / "a.n5", expected, (5, 4)), expected)
    assert array.dtype.isnative


@pytest.mark.parametrize("shape", [(7,), (7, 1), (3, 4, 5, 6), (2, 3, 2, 3, 2), (0, 4)])
def test_ranks_by_tensorstore(tmp_path, make_values, shape):
    expected = make_values(shape, "int32")
    assert_reads(written(tmp_path / "a.n5", expected, (3,) * len(shape)), expected)


def test_axes_have_the_names_and_the_order_of_the_document(tmp_path, make_values):
    expected = make_values((5, 6, 7), "uint8")
    array = assert_reads(written(tmp_path / "a.n5", expected, (4, 4, 4), axes=["x", "y", "z"], answer=42), expected)
    assert array.axes == ("x", "y", "z")
    assert array.attrs == {"axes": ["x", "y", "z"], "answer": 42}
    np.testing.assert_array_equal(vf.open_array(tmp_path / "a.n5", axes="zyx")[...], expected.transpose())
    transform = {"axes": ["z", "y", "x"], "units": ["nm"] * 3, "scale": [1] * 3, "translate": [0] * 3}
    assert vf.open_array(put_array(tmp_path / "b.n5", expected, (4, 4, 4), transform=transform)).axes == ("x", "y", "z")


# ------------------------------------------------------------------------------------------- blocks by other writers


#: tensorstore knows neither these names nor the setting `nthreads`, and reads the first member of gzip only.
NOT_BY_TENSORSTORE = {"lz4", "zstandard", "blosc", "gzip members"}


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_blocks_as_java_writes_them(tmp_path, make_values, compression, mode):
    expected = make_values((11, 9, 6), "uint16") % 50
    path = put_array(tmp_path / "a.n5", expected, (4, 5, 6), compression, mode=mode)
    assert_reads(path, expected)
    if mode == 0 and compression not in NOT_BY_TENSORSTORE:
        np.testing.assert_array_equal(by_tensorstore(path), expected)


def test_padded_and_truncated_blocks_in_one_array(tmp_path, make_values):
    expected = make_values((11, 9, 7), "int16")
    padded = ((2, 0, 0), (0, 1, 1), (2, 1, 1))
    path = put_array(tmp_path / "a.n5", expected, (4, 5, 6), "gzip", padded=padded)
    np.testing.assert_array_equal(by_tensorstore(path), expected)
    assert_reads(path, expected)


def test_blocks_that_are_not_stored_are_zero(tmp_path, make_values):
    expected = make_values((11, 9), "float32")
    path = put_array(tmp_path / "a.n5", expected, (4, 5), holes=((1, 0), (2, 1)))
    expected = expected.copy()
    expected[4:8, :5] = 0
    expected[8:, 5:] = 0
    array = assert_reads(path, expected)
    np.testing.assert_array_equal(by_tensorstore(path), expected)
    assert array.verify().chunks_missing == 2
    with pytest.raises(vf.NotFoundError):
        array.with_options(vf.ReadOptions(on_missing="raise"))[...]


def test_blocks_smaller_and_larger_than_the_document_says(tmp_path):
    """The header says what is there: the rest is zero, what lies beyond the block belongs to nobody."""
    expected = np.arange(1, 65, dtype="uint8").reshape(8, 8)
    path = put_document(tmp_path / "a.n5", expected, (4, 4))
    put_block(path, (0, 0), encoded_block(expected[:3, :2]))
    put_block(path, (0, 1), encoded_block(np.pad(expected[:4, 4:], ((0, 2), (0, 3)), constant_values=99)))
    put_block(path, (1, 0), encoded_block(np.pad(expected[4:, :2], ((0, 2), (0, 0)), constant_values=99)))
    expected = expected.copy()
    expected[3:4, :4] = expected[:4, 2:4] = expected[4:, 2:] = 0
    assert_reads(path, expected)


@given(data=st.data())
@settings(max_examples=40)
def test_any_box_of_any_blocks(data, tmp_path_factory):
    rank = data.draw(st.integers(1, 4))
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=rank, max_size=rank)))
    block_shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=rank, max_size=rank)))
    expected = np.arange(1, 1 + np.prod(shape), dtype="int32").reshape(shape)
    grid = list(np.ndindex(*(-(-n // b) for n, b in zip(shape, block_shape, strict=True))))
    padded = tuple(data.draw(st.lists(st.sampled_from(grid), unique=True, max_size=3)))
    path = put_array(tmp_path_factory.mktemp("n5") / "a", expected, block_shape, padded=padded)
    starts = [data.draw(st.integers(0, n - 1)) for n in shape]
    box = tuple(slice(start, data.draw(st.integers(start + 1, n))) for start, n in zip(starts, shape, strict=True))
    np.testing.assert_array_equal(vf.open_array(path)[box], expected[box])


# ---------------------------------------------------------------------------------------------------------- refusals

GOOD = encoded_block(np.arange(16, dtype="uint16").reshape(4, 4))
BAD_BLOCKS = {
    "no bytes": (b"", vf.DataError),
    "half a header": (GOOD[:9], vf.CodecError),
    "half the elements": (GOOD[:-16], vf.CodecError),
    "one byte more": (GOOD + b"\0", vf.CodecError),
    "mode 2": (struct.pack(">HI", 2, 16) + GOOD[12:], vf.UnsupportedError),
    "mode 3": (b"\0\3" + GOOD[2:], vf.CodecError),
    "three axes": (struct.pack(">HH3I", 0, 3, 4, 4, 1) + GOOD[12:], vf.CodecError),
    "no extent": (struct.pack(">HH2I", 0, 2, 0, 4), vf.CodecError),
    "2^64 voxels": (struct.pack(">HH2I", 0, 2, 2**32 - 1, 2**32 - 1) + GOOD[12:], vf.LimitExceededError),
    "a label multiset": (struct.pack(">HH3I", 1, 2, 4, 4, 1000) + GOOD[12:], vf.UnsupportedError),
}


@pytest.mark.parametrize("what", BAD_BLOCKS)
def test_bad_blocks_are_named(tmp_path, what):
    stored, kind = BAD_BLOCKS[what]
    path = put_document(tmp_path / "a.n5", np.zeros((8, 8), "uint16"), (4, 4))
    put_block(path, (1, 0), stored)
    array = vf.open_array(path)
    assert not array[:4].any()
    with pytest.raises(kind) as caught:
        array[...]
    assert caught.value.chunk == (1, 0)
    assert str(caught.value.key).endswith("a.n5/1/0")


@pytest.mark.parametrize(
    ("members", "kind", "part"),
    [
        ({"compression": {"type": "jpeg"}}, vf.UnsupportedError, "jpeg"),
        ({"compression": ...}, vf.MetadataError, "compression: missing"),
        ({"dataType": "string"}, vf.UnsupportedError, "string"),
        ({"isLabelMultiset": True}, vf.UnsupportedError, "label multisets"),
        ({"blockSize": [4]}, vf.MetadataError, "blockSize"),
    ],
)
def test_refused_documents(tmp_path, members, kind, part):
    path = put_document(tmp_path / "a.n5", np.zeros((8, 8), "uint8"), (4, 4), **members)
    with pytest.raises(kind) as caught:
        vf.open_array(path)
    assert part in str(caught.value)
    assert str(caught.value.key).endswith("a.n5/attributes.json")


def test_the_hash_of_these_tests_is_xxhash32():
    assert xxhash32(b"") == 0x02CC5D05
    assert xxhash32(b"abc") == 0x32D153FF
    assert xxhash32(b"Nobody inspects the spammish repetition") == 0xE2293B2F
    assert LZ4_SEED == 0x9747B28C


# ----------------------------------------------------------------------------------------------------- foreign files


@pytest.mark.parametrize("name", ["raw", "gzip", "bzip2", "xz", "blosc"])
def test_arrays_of_tensorstore(name):
    path = DATA / "tensorstore-bc4fbc1" / name
    expected = by_tensorstore(path)
    assert expected.any()
    assert_reads(path, expected)


@pytest.mark.parametrize("name", ["raw", "gzip"])
def test_arrays_of_z5py(name):
    path = DATA / "z5py-185c4f9" / name
    expected = by_tensorstore(path)
    assert expected[:, 400:, 400:].any()
    assert_reads(path, expected)


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory):
    """s1 of the segmentation of MoBIE, as tensorstore reads it without the comments that it does not allow."""
    copy = tmp_path_factory.mktemp("mobie") / "s1"
    shutil.copytree(DATA / "mobie-c199c3f" / "segmentation.n5" / TIMEPOINT / "s1", copy)
    document = copy / "attributes.json"
    document.write_text(re.sub(r"/\*.*\*/", "", document.read_text(), flags=re.DOTALL))
    return by_tensorstore(copy)


def assert_segmentation(image, expected):
    assert image.axes == ("x", "y", "z")
    assert [level.shape for level in image.levels] == [(256,) * 3, (128,) * 3]
    assert [level.scale for level in image.levels] == [(5.0,) * 3, (10.0,) * 3]
    assert image.level(1).translation == (2.5,) * 3
    np.testing.assert_array_equal(image.level(1)[...], expected)
    np.testing.assert_array_equal(image.level(mag=2)[30:70, 60:, 5], expected[30:70, 60:, 5])
    np.testing.assert_array_equal(image.with_axes("zyx").level(1)[...], expected.transpose())
    # Their blocks are not here.
    assert not image.level(0)[100:110, 100:110, 100:110].any()


def test_an_image_of_mobie(segmentation):
    assert segmentation.any()
    root = DATA / "mobie-c199c3f" / "segmentation.n5"
    image = vf.open(root / TIMEPOINT)
    assert isinstance(image, vf.Image)
    assert_segmentation(image, segmentation)
    assert_segmentation(vf.open_image(root / TIMEPOINT), segmentation)
    assert_segmentation(pickle.loads(pickle.dumps(image)), segmentation)
    np.testing.assert_array_equal(vf.open_array(root, f"{TIMEPOINT}/s1")[...], segmentation)


def test_a_group_of_mobie(segmentation):
    group = vf.open(DATA / "mobie-c199c3f" / "segmentation.n5")
    assert isinstance(group, vf.Group)
    assert (group.format, group.keys(), group["setup0"].keys()) == ("n5", ("setup0",), ("timepoint0",))
    assert_segmentation(group[TIMEPOINT], segmentation)
    assert "timepoint0 (image, 2 levels)" in group.tree()
    assert isinstance(group[f"{TIMEPOINT}/s0"], vf.Array)
    with pytest.raises(vf.NotFoundError):
        group["setup1"]


def test_images_of_neuroglancer():
    for name in ("modern", "deprecated"):
        image = vf.open(DATA / "neuroglancer-c0f79b1" / f"n5_viewer_multiscale_{name}")
        assert [level.shape for level in image.levels] == [(10, 20), (5, 10), (3, 5)]
        assert (image.axes, image.level(0).unit) == (("x", "y"), ("nm", "s"))
        assert not image.level(2)[...].any()


def test_an_image_whose_levels_are_deeper(tmp_path, make_values):
    expected = make_values((9, 8, 7), "uint64")
    put_array(tmp_path / "v/data/s0", expected, (4, 4, 4), "gzip")
    (tmp_path / "v/data/attributes.json").write_text(json.dumps({"multiScale": True, "resolution": [4, 4, 40]}))
    (tmp_path / "v/attributes.json").write_text(json.dumps({"painteraData": {"type": "label"}, "maxId": 5}))
    image = vf.open_image(tmp_path / "v")
    assert image.level(0).scale == (4, 4, 40)
    np.testing.assert_array_equal(image.level(0)[...], expected)


# ----------------------------------------------------------------------------------------------------- over networks


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_over_http(tmp_path, make_values, engine, compression):
    expected = make_values((11, 9, 6), "int32") % 50
    path = put_array(
        tmp_path / "a.n5",
        expected,
        (4, 5, 6),
        compression,
        padded=((2, 0, 0),),
        holes=((1, 1, 0),),
        axes=["x", "y", "z"],
    )
    expected = expected.copy()
    expected[4:8, 5:] = 0
    with FaultyServer(path) as server:
        array = assert_reads(server.url, expected, engine=engine)
        assert array.axes == ("x", "y", "z")
        assert server.count(method="HEAD") == 0
        requests = len(server.requests)
        np.testing.assert_array_equal(array[:4, :5], expected[:4, :5])
        assert [request.key for request in server.requests[requests:]] == ["0/0/0"]


@pytest.mark.parametrize("what", ["half a header", "mode 2", "2^64 voxels", "a label multiset"])
def test_bad_blocks_over_http(tmp_path, engine, what):
    stored, kind = BAD_BLOCKS[what]
    path = put_document(tmp_path / "a.n5", np.zeros((8, 8), "uint16"), (4, 4))
    put_block(path, (1, 0), stored)
    with FaultyServer(path) as server, pytest.raises(kind) as caught:
        vf.open_array(server.url, engine=engine)[...]
    assert str(caught.value.key).endswith("1/0")


def test_an_image_over_http(segmentation, engine):
    with FaultyServer(DATA / "mobie-c199c3f" / "segmentation.n5") as server:
        assert_segmentation(vf.open_image(f"{server.url}/{TIMEPOINT}", engine=engine), segmentation)
        assert_segmentation(vf.open(f"{server.url}|n5:{TIMEPOINT}", engine=engine), segmentation)
        assert server.count(method="HEAD") == 0


def test_an_image_on_s3(segmentation, engine):
    objects = objects_in(DATA / "mobie-c199c3f" / "segmentation.n5", "segmentation.n5/")
    with moto_s3(objects) as url:
        options = vf.StoreOptions(endpoint=url, credentials=CREDENTIALS, region="us-east-1")
        group = vf.open("s3://bucket/segmentation.n5", options=options, engine=engine)
        assert group.keys() == ("setup0",)
        assert_segmentation(group[TIMEPOINT], segmentation)
