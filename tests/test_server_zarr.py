"""Sources shown as Zarr v3 and v2: documents, and chunks that zarr-python reads as the voxels that were stored."""

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
from tests.one_chunk import put_v2
from tests.planes import Planes, PlaneStore, by_zarr

FIB25 = "tests/data/fib25/fib25.ome.zarr"
OLDER = "tests/data/ome-zarr-0.4/fib25.zarr"
WORDS = ("v2 words", "v2 bytes")


@pytest.fixture(scope="module")
def fib25(request):
    return request.config.rootpath / FIB25


def same(got, expected):
    np.testing.assert_array_equal(got, expected, strict=True)


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


# ------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    "key",
    [
        "c/8/0/0",
        "c/0/0",
        "c/0/0/0/0",
        "c/00/0/0",
        "c/+1/0/0",
        "c/1_0/0/0",
        "c/-1/0/0",
        "c/0/0/\u0663",
        "c/0/0/\u00b2",
        "c/0/0/99999999999999999999999999",
        "c",
        "c/0.0.0",
        "0/0/0",
        "d/0/0/0",
        ".zarray",
        ".zattrs",
        "zarr.json/0",
        "c/0/0/ 1",
    ],
)
def test_a_key_that_names_no_chunk_is_not_there_and_not_looked_for(fib25, key):
    planes = Planes(a=vf.open(fib25))
    planes.get("z3/a/0/zarr.json")
    before = vf.default_engine().stats()
    assert planes.get(f"z3/a/0/{key}") is None
    after = vf.default_engine().stats()
    assert (after.reads, after.requests, after.index_misses) == (before.reads, before.requests, before.index_misses)


@pytest.mark.parametrize("path", ["3/zarr.json", "00/zarr.json", "s0/zarr.json", "labels/none/zarr.json", "x", "0"])
def test_what_an_image_has_not_is_not_there(fib25, path):
    assert Planes(a=vf.open(fib25)).get(f"z3/a/{path}") is None


def test_versions_are_never_mixed_below_one_root(fib25):
    planes = Planes(a=vf.open(fib25))
    for node in ("a", "a/0", "a/labels", "a/labels/groundtruth", "a/labels/groundtruth/0"):
        assert [planes.get(f"z3/{node}/{name}") for name in (".zarray", ".zgroup", ".zattrs", ".zmetadata")] == [
            None
        ] * 4
        assert planes.get(f"z2/{node}/zarr.json") is None


def test_chunks_of_nothing_but_fill_value_are_not_there(tmp_path):
    voxels = np.full((8, 8), 7, "uint8")
    voxels[5, 5] = 1
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", data=voxels, chunks=(4, 4), fillvalue=7)
    planes = Planes(a=vf.open(tmp_path / "a.h5"))
    assert planes.json("z3/a/d/zarr.json")["fill_value"] == 7
    assert [body is None for body in planes.get(*(f"z3/a/d/c/{i}/{j}" for i in (0, 1) for j in (0, 1)))] == [
        True,
        True,
        True,
        False,
    ]


def test_other_sources_than_there_are_raise_not_found():
    with pytest.raises(vf.NotFoundError):
        Planes().get("z3/nothing/zarr.json")


# -------------------------------------------------------------------------------------------------------- documents


def test_an_image_is_ome_zarr_of_the_version_of_its_format(fib25):
    planes = Planes(a=vf.open(fib25), b=vf.open(fib25.parents[1] / "ome-zarr-0.4/fib25.zarr"))
    for source in "ab":
        five = planes.json(f"z3/{source}/zarr.json")["attributes"]
        assert set(five) == {"ome"}
        assert five["ome"]["version"] == "0.5"
        assert all("version" not in five["ome"][name] for name in ("omero",))
        assert "version" not in five["ome"]["multiscales"][0]
        four = planes.json(f"z2/{source}/.zattrs")
        assert set(four) == {"multiscales", "omero"}
        assert four["multiscales"][0].pop("version") == four["omero"].pop("version") == "0.4"
        assert four == {name: five["ome"][name] for name in four}
        (multiscale,) = four["multiscales"]
        assert multiscale["axes"] == [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
        for number, (dataset, scale, place) in enumerate(
            zip(multiscale["datasets"], (10, 20, 40), (0, 5, 15), strict=True)
        ):
            assert dataset == {
                "path": str(number),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [scale] * 3},
                    {"type": "translation", "translation": [place] * 3},
                ],
            }


def test_labels_are_listed_and_named_as_labels(fib25):
    planes = Planes(a=vf.open(fib25))
    assert planes.json("z3/a/labels/zarr.json")["attributes"] == {"ome": {"version": "0.5", "labels": ["groundtruth"]}}
    assert planes.json("z2/a/labels/.zattrs") == {"labels": ["groundtruth"]}
    assert planes.json("z2/a/labels/.zgroup") == {"zarr_format": 2}
    five = planes.json("z3/a/labels/groundtruth/zarr.json")["attributes"]["ome"]
    four = planes.json("z2/a/labels/groundtruth/.zattrs")
    assert "omero" not in five
    assert five["image-label"]["source"] == {"image": "../../"}
    assert four["image-label"] == {"version": "0.4", **five["image-label"]}
    stored = json.loads((fib25 / "labels/groundtruth/zarr.json").read_bytes())["attributes"]["ome"]["image-label"]
    assert five["image-label"]["colors"] == stored["colors"]
    assert len(five["multiscales"][0]["datasets"]) == len(
        planes.json("z3/a/zarr.json")["attributes"]["ome"]["multiscales"][0]["datasets"]
    )


@pytest.mark.parametrize("plane", ["z3", "z2"])
def test_a_client_opens_an_image_with_one_request_and_finds_all_of_it(fib25, plane):
    store = PlaneStore(Planes(a=vf.open(fib25)), f"{plane}/a")
    group = zarr.open_group(store, mode="r", zarr_format=int(plane[1]), use_consolidated=True)
    assert set(store.requests) == ({"zarr.json"} if plane == "z3" else {".zgroup", ".zattrs", ".zmetadata"})
    opened = len(store.requests)
    names = {name for name, _ in group.members(max_depth=None)}
    levels = {f"{where}{number}" for where in ("", "labels/groundtruth/") for number in range(3)}
    assert names == {*levels, "labels", "labels/groundtruth"}
    array = group["labels/groundtruth/2"]
    assert len(store.requests) == opened
    same(array[...], zarr.open_array(fib25 / "labels/groundtruth/2")[...])
    assert group["0"].attrs.asdict().get("_ARRAY_DIMENSIONS", ["z", "y", "x"]) == ["z", "y", "x"]


def test_groups_show_their_members_and_what_was_written_beside_them(tmp_path):
    group = zarr.open_group(tmp_path / "g", mode="w", attributes={"who": "me", "bad": float("nan")})
    group.create_array("deep/a", shape=(3,), dtype="u1")[...] = [1, 2, 3]
    planes = Planes(g=vf.open(tmp_path / "g"))
    assert planes.json("z3/g/zarr.json")["attributes"] == {"who": "me", "bad": "NaN"}
    assert planes.json("z2/g/.zattrs") == {"who": "me", "bad": "NaN"}
    same(by_zarr(planes, "z2/g/deep/a"), np.array([1, 2, 3], "u1"))
    assert planes.get("z3/g/none/zarr.json") is None


def test_plates_and_collections_are_passed_on(tmp_path):
    plate = {"name": "p", "rows": [{"name": "A"}], "columns": [{"name": "1"}], "wells": []}
    zarr.open_group(tmp_path / "p", mode="w", attributes={"ome": {"version": "0.5", "plate": plate}})
    zarr.open_group(tmp_path / "c", mode="w", zarr_format=2, attributes={"bioformats2raw.layout": 3})
    zarr.open_group(tmp_path / "c" / "OME", mode="w", zarr_format=2, attributes={"series": ["0"]})
    planes = Planes(p=vf.open(tmp_path / "p"), c=vf.open(tmp_path / "c"))
    assert planes.json("z3/p/zarr.json")["attributes"] == {"ome": {"version": "0.5", "plate": plate}}
    assert planes.json("z2/p/.zattrs") == {"plate": {"version": "0.4", **plate}}
    assert planes.json("z3/c/zarr.json")["attributes"] == {"ome": {"version": "0.5", "bioformats2raw.layout": 3}}
    assert planes.json("z2/c/.zattrs") == {"bioformats2raw.layout": 3}


@pytest.mark.parametrize(
    ("dtype", "fill", "shown"),
    [
        ("uint64", 2**64 - 3, 2**64 - 3),
        ("float32", float("nan"), "NaN"),
        ("float64", float("-inf"), "-Infinity"),
        ("bool", True, True),
        ("int8", -4, -4),
    ],
)
@pytest.mark.parametrize("version", [3, 2])
def test_fill_values_are_numbers_or_the_words_of_zarr(tmp_path, dtype, fill, shown, version):
    zarr.create_array(tmp_path / "a", shape=(4,), chunks=(2,), dtype=dtype, fill_value=fill, zarr_format=version)
    planes = Planes(a=vf.open(tmp_path / "a"))
    for path in ("z3/a/zarr.json", "z2/a/.zarray"):
        found = planes.json(path)["fill_value"]
        assert (found, type(found)) == (shown, type(shown))


def test_no_fill_value_of_v2_is_zero(tmp_path):
    put_v2(tmp_path / "a", b"", shape=(2,), dtype="<u2", filters=None, fill_value=None)
    (tmp_path / "a" / "0").unlink()
    planes = Planes(a=vf.open(tmp_path / "a"))
    assert planes.json("z2/a/.zarray")["fill_value"] == planes.json("z3/a/zarr.json")["fill_value"] == 0


def test_large_chunks_that_are_encoded_are_cut(tmp_path):
    voxels = np.zeros((3, 3000, 2500), "u1")
    voxels[2, 2999, 2499] = 9
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", data=voxels, chunks=voxels.shape, compression="gzip")
    planes = Planes(a=vf.open(tmp_path / "a.h5"))
    chunks = planes.json("z3/a/d/zarr.json")["chunk_grid"]["configuration"]["chunk_shape"]
    assert np.prod(chunks) <= 4 << 20
    assert all(extent % 64 == 0 or extent == whole for extent, whole in zip(chunks, voxels.shape, strict=True))
    same(by_zarr(planes, "z3/a/d"), voxels)


def test_names_of_axes_are_those_of_the_source_and_never_made_up(tmp_path):
    zarr.create_array(tmp_path / "a", shape=(4, 4), dtype="u1", dimension_names=["y", "x"])
    zarr.create_array(tmp_path / "b", shape=(4, 4), dtype="u1")
    planes = Planes(a=vf.open(tmp_path / "a"), b=vf.open(tmp_path / "b"))
    assert planes.json("z3/a/zarr.json")["dimension_names"] == ["y", "x"]
    assert planes.json("z3/b/zarr.json")["dimension_names"] == [None, None]
    assert planes.json("z2/a/.zattrs") == {"_ARRAY_DIMENSIONS": ["y", "x"]}
    assert planes.json("z2/b/.zattrs") == {}


@pytest.mark.parametrize("axes", [("x", "y", "z"), ("z", "x", "y")])
def test_views_with_other_axes_are_shown_as_they_are_seen(tmp_path, axes):
    voxels = values((6, 6, 6), "uint16")
    array = zarr.create_array(
        tmp_path / "a", shape=(6, 6, 6), chunks=(4, 4, 4), dtype="u2", dimension_names=list("zyx")
    )
    array[...] = voxels
    planes = Planes(a=vf.open(tmp_path / "a", axes=axes))
    for plane in ("z3", "z2"):
        same(by_zarr(planes, f"{plane}/a"), voxels.transpose(["zyx".index(name) for name in axes]))


# ------------------------------------------------------------------------------------------------------------- ETags


def test_etags_name_the_bytes_the_plane_and_the_preset(fib25):
    planes = Planes(a=vf.open(fib25))
    bodies = planes.get("z3/a/0/c/0/0/0", "z3/a/0/c/0/0/0", "z2/a/0/0/0/0", "z3/@wk/a/0/c/0/0/0", "z3/a/0/c/0/0/1")
    tags = [body.etag for body in bodies]
    assert bodies[0].content == bodies[2].content
    assert tags[0] == tags[1]
    assert len(set(tags)) == 4
    first, second = planes.get("z3/a/0/zarr.json", "z3/a/1/zarr.json")
    assert first.etag != second.etag
    assert first.etag == Planes(a=vf.open(fib25)).get("z3/a/0/zarr.json").etag
