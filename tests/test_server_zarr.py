"""Sources shown as Zarr v3 and v2: chunks that zarr-python reads as the voxels that were stored."""

from __future__ import annotations

import asyncio
import json

import h5py
import numcodecs
import numpy as np
import pytest
import zarr

import voxfetch as vf
from tests.conftest import LAYOUTS, values, write
from tests.planes import Planes, by_zarr, same

WORDS = ("v2 words", "v2 bytes")


def decoded():
    return vf.default_engine().stats().chunks_decoded


# ----------------------------------------------------------------------------------------------------------- voxels


@pytest.mark.parametrize("plane", ["z3", "z2"])
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in WORDS])
def test_arrays_of_any_layout_are_read_by_zarr_python(cases, layout, plane):
    case = cases(layout)
    same(by_zarr(Planes(a=case.open()), f"{plane}/a"), case.expected)


@pytest.mark.parametrize("plane", ["z3", "z2"])
@pytest.mark.parametrize("layout", WORDS)
def test_words_are_refused(cases, layout, plane):
    path = f"{plane}/a/{'zarr.json' if plane == 'z3' else '.zarray'}"
    with pytest.raises(vf.UnsupportedError, match=r"not numbers.*/raw/"):
        Planes(a=cases(layout).open()).get(path)


def test_structs_are_refused(request):
    array = vf.open(request.config.rootpath / "tests/data/zarr/zarr-python-3.4.2/struct_little.zarr")
    with pytest.raises(vf.UnsupportedError, match="not numbers"):
        Planes(a=array).get("z3/a/c/0/0")


@pytest.mark.parametrize("name", ["plane", "volume", "shards", "shrunk", "plane_raw"])
@pytest.mark.parametrize("plane", ["z3", "z2"])
def test_chunks_of_different_extents_are_cut_anew(request, name, plane):
    place = request.config.rootpath / f"tests/data/zarr/zarr-python-3.4.2/{name}"
    same(by_zarr(Planes(a=vf.open(f"{place}.zarr")), f"{plane}/a"), np.load(f"{place}.npy"))


@pytest.mark.parametrize(
    "place",
    [
        "tests/data/n5/tensorstore-bc4fbc1/gzip",
        "tests/data/n5/z5py-185c4f9/raw",
        "tests/data/b2nd/blosc2-4.14.1/zstd-delta-shuffle.b2nd",
        "tests/data/b2nd/blosc2-4.14.1/zeros.b2nd",
    ],
)
@pytest.mark.parametrize("plane", ["z3", "z2"])
def test_arrays_of_other_formats_are_encoded(request, place, plane):
    array = vf.open(request.config.rootpath / place)
    same(by_zarr(Planes(a=array), f"{plane}/a"), array[...])


@pytest.mark.parametrize("chunks", [None, (5, 7, 9)])
def test_datasets_of_hdf5_are_encoded(tmp_path, chunks):
    voxels = values((11, 13, 17), "float32")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", data=voxels, chunks=chunks, compression=chunks and "gzip", shuffle=bool(chunks))
    same(by_zarr(Planes(a=vf.open(tmp_path / "a.h5")), "z3/a/d"), voxels)


@pytest.mark.parametrize("plane", ["z3", "z2"])
def test_numbers_without_axes_are_encoded(tmp_path, plane):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["d"] = np.float32(2.5)
    planes = Planes(a=vf.open(tmp_path / "a.h5"))
    same(np.asarray(by_zarr(planes, f"{plane}/a/d")), np.array(2.5, "f4"))


@pytest.mark.parametrize("plane", ["z3", "z2"])
@pytest.mark.parametrize("corpus", ["zarrs", "zarrita.js", "neuroglancer/zarr_v2", "neuroglancer/zarr_v3"])
def test_arrays_of_the_corpora_are_read_by_zarr_python(request, corpus, plane):
    root = request.config.rootpath / "tests/data" / corpus
    places = sorted({path.parent for name in ("zarr.json", ".zarray") for path in root.rglob(name)})
    found = 0
    for place in places:
        try:
            array = vf.open_array(place)
            voxels = array[...]
        except vf.VoxfetchError:
            continue  # a group, or what tests/corpora.md says is not read
        if voxels.dtype.kind in "OSUV" or voxels.nbytes > 1 << 20:
            continue
        got = by_zarr(Planes(a=array), f"{plane}/a")
        np.testing.assert_array_equal(got, voxels, err_msg=str(place), strict=True)
        found += 1
    assert found > 10


# ------------------------------------------------------------------------------------------------ bytes as they are

LITTLE = zarr.codecs.BytesCodec()
BIG = zarr.codecs.BytesCodec(endian="big")
TURNED = zarr.codecs.TransposeCodec(order=(1, 2, 0))
PASSING = {
    "bytes": {"compressors": None},
    "zstd": {"compressors": zarr.codecs.ZstdCodec(level=3)},
    "zstd checksum": {"compressors": zarr.codecs.ZstdCodec(level=3, checksum=True)},
    "gzip": {"compressors": zarr.codecs.GzipCodec(level=1)},
    "blosc": {"compressors": zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle")},
    "crc32c": {"compressors": [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]},
    "transpose": {"filters": [TURNED], "compressors": zarr.codecs.ZstdCodec()},
    "big": {"serializer": BIG, "compressors": zarr.codecs.GzipCodec()},
}


def chunks_of(array):
    return list(np.ndindex(*(-(-extent // chunk) for extent, chunk in zip(array.shape, array.chunks, strict=True))))


@pytest.mark.parametrize("shards", [None, (8, 12, 10)])
@pytest.mark.parametrize("codecs", PASSING)
def test_stored_chunks_of_v3_pass_untouched(tmp_path, codecs, shards):
    case = write(
        tmp_path / "a", values((19, 17, 23), "uint16"), chunks=(4, 6, 5), shards=shards, holes=0.2, **PASSING[codecs]
    )
    array, planes = case.open(), Planes(a=case.open())
    before = decoded()
    same(by_zarr(planes, "z3/a"), case.expected)
    assert decoded() == before
    for position in chunks_of(array):
        body = planes.get("/".join(["z3/a/c", *map(str, position)]))
        stored = asyncio.run(array.read_encoded_async(position))
        assert (body and bytes(body.content)) == (stored and bytes(stored))
    document = planes.json("z3/a/zarr.json")
    inner = json.loads((tmp_path / "a/zarr.json").read_bytes())["codecs"]
    if shards is not None:
        inner = inner[0]["configuration"]["codecs"]
    for codec in inner:
        if codec["name"] == "zstd":
            codec["configuration"].setdefault("checksum", False)
    assert [codec["name"] for codec in document["codecs"]] == [codec["name"] for codec in inner]
    for shown, stored in zip(document["codecs"], inner, strict=True):
        assert shown.get("configuration", {}) == stored.get("configuration", {})
    assert document["chunk_grid"]["configuration"]["chunk_shape"] == [4, 6, 5]


def test_shards_in_shards_are_unpacked_to_the_last(tmp_path):
    inner = zarr.codecs.ShardingCodec(chunk_shape=(2, 3, 5), codecs=[LITTLE, zarr.codecs.ZstdCodec()])
    case = write(
        tmp_path / "a",
        values((9, 13, 11), "int32"),
        chunks=(8, 12, 10),
        serializer=zarr.codecs.ShardingCodec(chunk_shape=(4, 6, 10), codecs=[inner]),
        compressors=None,
    )
    planes = Planes(a=case.open())
    before = decoded()
    same(by_zarr(planes, "z3/a"), case.expected)
    assert decoded() == before
    assert planes.json("z3/a/zarr.json")["chunk_grid"]["configuration"]["chunk_shape"] == [2, 3, 5]


def test_shards_of_transposed_voxels_keep_their_axes(tmp_path):
    inner = zarr.codecs.ShardingCodec(
        chunk_shape=(3, 4, 2), codecs=[zarr.codecs.TransposeCodec(order=(2, 0, 1)), LITTLE]
    )
    case = write(
        tmp_path / "a",
        values((13, 13, 11), "int32"),
        chunks=(12, 12, 12),
        filters=[TURNED],
        serializer=inner,
        compressors=None,
    )
    assert case.open().chunks == (2, 3, 4)
    planes = Planes(a=case.open())
    before = decoded()
    same(by_zarr(planes, "z3/a"), case.expected)
    assert decoded() == before
    # (1, 2, 0) and then (2, 0, 1): the voxels lie in their own order again.
    assert [codec["name"] for codec in planes.json("z3/a/zarr.json")["codecs"]] == ["bytes"]


V2 = {
    "none": (None, True),
    "zstd": (numcodecs.Zstd(level=2), True),
    "gzip": (numcodecs.GZip(level=2), True),
    "blosc auto": (numcodecs.Blosc(cname="zstd", shuffle=-1), True),
    "blosc": (numcodecs.Blosc(cname="lz4", clevel=3, shuffle=0), True),
    "zlib": (numcodecs.Zlib(level=2), False),
    "bz2": (numcodecs.BZ2(level=1), None),
}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [">u2", "<f4", "|u1"])
@pytest.mark.parametrize("codec", V2)
def test_stored_chunks_of_v2_pass_where_the_codec_is_known(tmp_path, codec, dtype, order):
    compressor, passes = V2[codec]
    layout = {"zarr_format": 2, "chunks": (5, 4, 7), "order": order, "compressors": compressor, "holes": 0.2}
    case = write(tmp_path / "a", values((11, 13, 9), np.dtype(dtype)), dtype=dtype, **layout)
    stored = json.loads((tmp_path / "a/.zarray").read_bytes())
    for plane, is_stored in (("z3", passes), ("z2", passes is not None)):
        planes = Planes(a=case.open())
        before = decoded()
        same(by_zarr(planes, f"{plane}/a"), case.expected)
        assert (decoded() == before) is bool(is_stored)
        if plane == "z2" and is_stored:
            document = planes.json("z2/a/.zarray")
            assert document["dimension_separator"] == "/"
            assert {name: document[name] for name in ("order", "chunks", "filters")} == {
                name: stored[name] for name in ("order", "chunks", "filters")
            }
            assert np.dtype(document["dtype"]) == np.dtype(stored["dtype"])


def test_filters_of_v2_are_undone(tmp_path):
    case = write(
        tmp_path / "a", values((40,), "int32"), zarr_format=2, chunks=(7,), filters=[numcodecs.Delta(dtype="<i4")]
    )
    planes = Planes(a=case.open())
    for plane in ("z3", "z2"):
        same(by_zarr(planes, f"{plane}/a"), case.expected)
    assert planes.json("z2/a/.zarray")["filters"] is None


@pytest.mark.parametrize(
    ("codecs", "passes"),
    [
        ({"compressors": zarr.codecs.ZstdCodec(checksum=True)}, True),
        ({"compressors": zarr.codecs.BloscCodec(cname="zstd", shuffle="shuffle")}, True),
        ({"compressors": None, "filters": [zarr.codecs.TransposeCodec(order=(2, 1, 0))]}, True),
        ({"compressors": None, "filters": [TURNED]}, False),
        ({"compressors": [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]}, False),
        ({"compressors": zarr.codecs.Crc32cCodec()}, False),
    ],
)
def test_inner_chunks_of_v3_pass_into_v2_where_v2_has_such(tmp_path, codecs, passes):
    case = write(tmp_path / "a", values((19, 17, 23), "uint16"), chunks=(4, 6, 5), shards=(8, 12, 10), **codecs)
    before = decoded()
    same(by_zarr(Planes(a=case.open()), "z2/a"), case.expected)
    assert (decoded() == before) is passes
