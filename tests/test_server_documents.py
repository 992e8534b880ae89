"""Sources shown as Zarr v3 and v2: what documents say, and which keys there are."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import zarr

import voxfetch as vf
from tests.conftest import values
from tests.one_chunk import put_v2
from tests.planes import Planes, PlaneStore, by_zarr, same
from tests.volumes import write_volume

FIB25 = "tests/data/fib25/fib25.ome.zarr"


@pytest.fixture(scope="module")
def fib25(request):
    return request.config.rootpath / FIB25


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


def test_labels_that_cannot_be_opened_are_not_listed(tmp_path):
    write_volume(tmp_path / "a.zarr", lambda z, y, x: x, shape=(2, 8, 8))
    labels = zarr.open_group(str(tmp_path / "a.zarr"), mode="r+").create_group("labels")
    labels.attrs["ome"] = {"version": "0.5", "labels": ["gone", "cells", "deep/er"]}
    write_volume(tmp_path / "a.zarr" / "labels" / "cells", lambda z, y, x: x, shape=(2, 8, 8), **{"image-label": {}})
    planes = Planes(a=vf.open(tmp_path / "a.zarr"))
    assert planes.json("z3/a/labels/zarr.json")["attributes"]["ome"]["labels"] == ["cells"]
    assert planes.json("z2/a/labels/.zattrs")["labels"] == ["cells"]
    below = planes.json("z3/a/zarr.json")["consolidated_metadata"]["metadata"]
    assert below["labels"]["attributes"]["ome"]["labels"] == ["cells"]
