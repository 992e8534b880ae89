"""WEBKNOSSOS WKW: what webknossos-wrap's library writes is read the same, from disk and over HTTP; lies are errors."""

from __future__ import annotations

import asyncio
import json
import pickle
import shutil
import struct

import numpy as np
import pytest
import wkw
import zarr

import voxfetch as vf
from tests.servers import objects_in
from tests.servers.faulty import FaultyServer
from tests.servers.moto_s3 import moto_s3
from tests.stores import CREDENTIALS
from tests.wkw_data import layer, read_mag, write_mag, write_properties
from voxfetch.cli import main

TYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64")
KINDS = ("raw", "lz4", "lz4hc")
START, SHAPE = (13, 40, 5), (60, 33, 47)


def volume(dtype="uint16", channels=1, shape=SHAPE, seed=0):
    random = np.random.default_rng(seed)
    values = random.integers(1, 120, (channels, *shape)).astype(dtype)
    values[:, 5:15, :, 3:20] = 7
    return values


@pytest.fixture
def dataset(tmp_path):
    """`dataset(kind, dtype, channels)` -> (folder, voxels of layer `color`), whose box does not begin at a file."""

    def make(kind="lz4", dtype="uint16", channels=1, **geometry):
        values = volume(dtype, channels)
        write_mag(tmp_path / "d" / "color" / "1", values, block_type=kind, at=START, **geometry)
        mags = ["1", "2-2-1"]
        coarse = values[:, ::2, ::2]
        half = (START[0] // 2, START[1] // 2, START[2])
        write_mag(tmp_path / "d" / "color" / "2-2-1", coarse, block_type=kind, at=half, **geometry)
        write_properties(tmp_path / "d", [layer("color", START, SHAPE, mags, dtype=dtype, channels=channels)])
        return tmp_path / "d", values

    return make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_and_compression_reads_as_it_was_written(dataset, kind, dtype):
    folder, values = dataset(kind, dtype)
    array = vf.open_array(folder, "color/1")
    assert (array.dtype, array.shape, array.axes) == (np.dtype(dtype), values.shape, ("c", "x", "y", "z"))
    assert (array.chunks, array.shards, array.format) == ((1, 8, 8, 8), (1, 32, 32, 32), "wkw")
    assert array.origin == (0, *START)
    np.testing.assert_array_equal(array[...], values)
    np.testing.assert_array_equal(array[:, 3:50, 7, 11:40], values[:, 3:50, 7, 11:40])
    np.testing.assert_array_equal(array.with_axes("zyxc")[2:9, :, 5], values.transpose(3, 2, 1, 0)[2:9, :, 5])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("block_len", "file_len"), [(2, 2), (8, 1), (16, 16), (1, 4), (32, 2)])
def test_every_geometry(dataset, kind, block_len, file_len):
    folder, values = dataset(kind, block_len=block_len, file_len=file_len)
    array = vf.open_array(folder, "color/1")
    np.testing.assert_array_equal(array[...], values)


def test_channels_of_a_voxel(dataset):
    folder, values = dataset("lz4", "uint8", 3)
    image = vf.open(folder)["color"]
    np.testing.assert_array_equal(image.level(0)[...], values)
    np.testing.assert_array_equal(image.level(0)[1, 4:20], values[1, 4:20])


def test_the_box_begins_where_the_layer_does(dataset):
    folder, values = dataset()
    array = vf.open_array(folder, "color/1")
    np.testing.assert_array_equal(
        array.read_box((0, 20, 45, 9), (1, 5, 6, 7), absolute=True)[0], values[0, 7:12, 5:11, 4:11]
    )
    np.testing.assert_array_equal(
        array.read_box((0, 20, 45, 9), (1, 5, 6, 7), absolute=True),
        read_mag(folder / "color/1", (20, 45, 9), (5, 6, 7)),
    )
    edge = array.read_box((0, -3, 30, 0), (1, 8, 8, 4), bounds="fill")
    np.testing.assert_array_equal(edge[:, 3:, :3], values[:, :5, 30:33, :4])
    assert not edge[:, :3].any()
    assert not edge[:, :, 3:].any()
    starts = [(0, 0, 0, 0), (0, 52, 25, 40), (0, 17, 3, 9)]
    boxes = array.read_many(starts, (1, 8, 8, 7))
    for start, box in zip(starts, boxes, strict=True):
        inside = tuple(slice(first, first + n) for first, n in zip(start, (1, 8, 8, 7), strict=True))
        np.testing.assert_array_equal(box, values[inside])
    points = np.array([(0, 59, 32, 46), (0, 0, 0, 0), (0, 31, 2, 3)])
    np.testing.assert_array_equal(array.read_points(points), values[tuple(points.T)])
    np.testing.assert_array_equal(
        array.oindex[0, [1, 59, 40], 3, [0, 46]], values[0][np.ix_([1, 59, 40], [3], [0, 46])][:, 0]
    )
    with pytest.raises(vf.SelectionError):
        array.read_box((0, 56, 0, 0), (1, 8, 8, 7))


def test_a_dataset_is_a_group_of_images(dataset):
    folder, values = dataset()
    group = vf.open(folder)
    assert isinstance(group, vf.Group)
    assert group.keys() == ("color",)
    image = group["color"]
    assert isinstance(image, vf.Image)
    assert (image.axes, image.format, len(image.levels)) == (("c", "x", "y", "z"), "WEBKNOSSOS", 2)
    assert image.level(0).scale == (1.0, 11.24, 11.24, 28.0)
    assert image.level(1).scale == (1.0, 22.48, 22.48, 28.0)
    assert image.level(1).unit == (None, "nanometer", "nanometer", "nanometer")
    # Centres: the first voxel of mag 2 lies between voxels 12 and 13 of mag 1.
    np.testing.assert_allclose(image.level(0).translation, (0, 13 * 11.24, 40 * 11.24, 5 * 28.0))
    np.testing.assert_allclose(image.level(1).translation, (0, 12.5 * 11.24, 40.5 * 11.24, 5 * 28.0))
    coarse = image.level(mag="2-2-1")
    assert coarse.origin == (0, 6, 20, 5)
    assert coarse.shape == (1, 31, 17, 47)
    # By its box mag 2 begins with voxel 6, which holds voxels 12 and 13.
    np.testing.assert_array_equal(coarse[:, :30], values[:, ::2, ::2])
    assert isinstance(vf.open(folder / "color"), vf.Image)
    np.testing.assert_array_equal(vf.open_array(folder / "color" / "1")[0, 5], values[0, 5])
    assert vf.open(folder / "color" / "1").origin == (0, *START)
    assert "color" in group.tree()


def test_objects_are_sent_small_and_whole(dataset):
    folder, values = dataset()
    for found in (vf.open(folder)["color"], pickle.loads(pickle.dumps(vf.open(folder)))["color"]):
        again = pickle.loads(pickle.dumps(found)).level(0)
        np.testing.assert_array_equal(again[...], values)
    assert len(pickle.dumps(vf.open_array(folder, "color/1"))) < 1000


def test_a_mag_alone_has_the_extent_of_its_files(tmp_path):
    values = volume()
    write_mag(tmp_path / "1", values, at=(64, 64, 0), block_type="lz4")
    array = vf.open(tmp_path / "1")
    assert (array.origin, array.shape) == ((0, 64, 64, 0), (1, 64, 64, 64))
    np.testing.assert_array_equal(array[:, :60, :33, :47], values)


def test_files_that_are_not_there_are_zero(dataset):
    folder, values = dataset()
    (folder / "color" / "1" / "z0" / "y1" / "x1.wkw").unlink()
    values = values.copy()
    values[:, 32 - START[0] : 64 - START[0], : 64 - START[1], : 32 - START[2]] = 0
    array = vf.open_array(folder, "color/1")
    np.testing.assert_array_equal(array[...], values)
    with FaultyServer(folder) as server:
        np.testing.assert_array_equal(vf.open_array(server.url, "color/1")[...], values)
        strict = vf.open_array(server.url, "color/1", read_options=vf.ReadOptions(on_missing="raise"))
        with pytest.raises(vf.NotFoundError):
            strict[...]


@pytest.mark.parametrize("kind", KINDS)
def test_over_http_as_from_disk(dataset, kind):
    folder, values = dataset(kind, "uint32")
    with FaultyServer(folder) as server:
        image = vf.open(server.url)["color"]
        np.testing.assert_array_equal(image.level(0)[...], values)
        np.testing.assert_array_equal(asyncio.run(image.level(0).read_async((0, 5, slice(2, 30)))), values[0, 5, 2:30])


@pytest.mark.parametrize(("kind", "trips"), [("raw", 1), ("lz4", 2)])
def test_a_voxel_takes_a_slice_of_the_table_and_its_block(dataset, kind, trips):
    folder, values = dataset(kind, block_len=8, file_len=16)
    with FaultyServer(folder) as server, vf.Engine() as engine:
        array = vf.open_array(server.url, "color/1", engine=engine)
        server.requests.clear()
        report = array.explain((0, 3, 4, 5))
        assert array[0, 3, 4, 5] == values[0, 3, 4, 5]
        ranges = [request.range for request in server.requests if request.key.endswith(".wkw")]
        if kind == "lz4":
            # Nothing is asked twice: explaining has fetched the slice.
            first, last = map(int, ranges[0].removeprefix("bytes=").split("-"))
            assert last + 1 - first in (4096, 4104)
        assert len(ranges) == trips
        assert report.round_trips == trips
        server.requests.clear()
        assert array[0, 3, 4, 5] == values[0, 3, 4, 5]
        assert len(server.requests) == 1


def test_many_blocks_are_merged(dataset):
    folder, values = dataset("lz4", block_len=8, file_len=16)
    with FaultyServer(folder) as server, vf.Engine() as engine:
        array = vf.open_array(server.url, "color/1", engine=engine)
        server.requests.clear()
        np.testing.assert_array_equal(array[...], values)
        assert len([request for request in server.requests if request.key.endswith(".wkw")]) < 20


# ------------------------------------------------------------------------------------------------------------- lies


def files(folder):
    return sorted((folder / "color" / "1").glob("z*/y*/x*.wkw"))


def read_all(folder):
    """What reading everything raises, from disk and over HTTP."""
    errors = []
    with FaultyServer(folder) as server, vf.Engine(retry=vf.RetryPolicy(max_attempts=2, base_s=0.01)) as engine:
        for source in (folder, server.url):
            with pytest.raises(vf.VoxfetchError) as caught:
                vf.open_array(source, "color/1", engine=engine)[...]
            errors.append(caught.value)
    return errors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [0, 7, 16, 100, 600, -1])
def test_a_truncated_file_is_an_error(dataset, kind, cut):
    folder, _ = dataset(kind)
    path = files(folder)[0]
    path.write_bytes(path.read_bytes()[:cut])
    for error in read_all(folder):
        assert isinstance(error, (vf.DataError, vf.StoreError)), error
        assert path.name in str(error)


def test_a_table_that_goes_backwards_is_an_error(dataset):
    folder, _ = dataset("lz4")
    path = files(folder)[0]
    content = bytearray(path.read_bytes())
    struct.pack_into("<Q", content, 16 + 8 * 20, 3)
    path.write_bytes(content)
    for error in read_all(folder):
        assert isinstance(error, vf.ShardIndexError), error


def test_a_table_that_points_outside_is_an_error(dataset):
    folder, _ = dataset("lz4")
    path = files(folder)[0]
    content = bytearray(path.read_bytes())
    struct.pack_into("<Q", content, 16 + 8 * 63, len(content) + 1)
    path.write_bytes(content)
    for error in read_all(folder):
        assert isinstance(error, vf.ShardIndexError), error


def test_broken_blocks_are_errors(dataset):
    folder, _ = dataset("lz4")
    path = files(folder)[0]
    content = bytearray(path.read_bytes())
    content[16 + 8 * 64 :] = bytes(len(content) - 16 - 8 * 64)
    path.write_bytes(content)
    for error in read_all(folder):
        assert isinstance(error, vf.CodecError), error


def test_a_compressed_file_in_a_folder_of_raw_ones_is_an_error(dataset, tmp_path):
    folder, _ = dataset("raw")
    path = files(folder)[0]
    wkw.File.compress(str(path), str(tmp_path / "x.wkw"))
    path.write_bytes((tmp_path / "x.wkw").read_bytes())
    for error in read_all(folder):
        assert isinstance(error, vf.ShardIndexError), error
        assert "truncated" in str(error)


def change(folder, edit):
    path = folder / "datasource-properties.json"
    properties = json.loads(path.read_text())
    edit(properties)
    path.write_text(json.dumps(properties))


BAD_PROPERTIES = {
    "no layers": lambda p: p.pop("dataLayers"),
    "a layer that is a number": lambda p: p["dataLayers"].append(3),
    "a name with a slash": lambda p: p["dataLayers"][0].update(name="a/b"),
    "a name that leads out": lambda p: p["dataLayers"][0].update(name=".."),
    "no box": lambda p: p["dataLayers"][0].pop("boundingBox"),
    "a negative start": lambda p: p["dataLayers"][0]["boundingBox"].update(topLeft=[-1, 0, 0]),
    "a negative extent": lambda p: p["dataLayers"][0]["boundingBox"].update(width=-1),
    "an extent that is text": lambda p: p["dataLayers"][0]["boundingBox"].update(width="9"),
    "an endless extent": lambda p: p["dataLayers"][0]["boundingBox"].update(width=1 << 64),
    "a mag of 0": lambda p: p["dataLayers"][0]["mags"][0].update(mag=[0, 1, 1]),
    "a mag of two factors": lambda p: p["dataLayers"][0]["mags"][0].update(mag=[1, 1]),
    "a path with a backslash": lambda p: p["dataLayers"][0]["mags"][0].update(path="color\\1"),
    "two mags in one place": lambda p: p["dataLayers"][0]["mags"][0].update(path="color/2-2-1"),
    "a scale of zero": lambda p: p.update(scale=[0, 1, 1]),
    "a scale that is text": lambda p: p.update(scale="fine"),
}


@pytest.mark.parametrize("name", BAD_PROPERTIES)
def test_bad_properties_are_refused(dataset, name):
    folder, _ = dataset()
    change(folder, BAD_PROPERTIES[name])
    with pytest.raises((vf.MetadataError, vf.UnsupportedError)) as caught:
        vf.open(folder)["color"]
    assert "datasource-properties.json" in str(caught.value)


@pytest.mark.parametrize(
    ("at", "value", "what"),
    [(0, 0x58, "WKW"), (3, 2, "version"), (5, 9, "block type"), (6, 99, "voxel type"), (7, 3, "whole number")],
)
def test_a_bad_header_is_refused(dataset, at, value, what):
    folder, _ = dataset()
    path = folder / "color" / "1" / "header.wkw"
    content = bytearray(path.read_bytes())
    content[at] = value
    path.write_bytes(content)
    with pytest.raises((vf.MetadataError, vf.UnsupportedError), match=what):
        vf.open_array(folder, "color/1")


def test_older_properties(dataset):
    folder, values = dataset()

    def older(properties):
        properties["scale"] = [11.24, 11.24, 28.0]
        one = properties["dataLayers"][0]
        one["wkwResolutions"] = [{"resolution": 1, "cubeLength": 32}, {"resolution": [2, 2, 1], "cubeLength": 32}]
        del one["mags"]

    change(folder, older)
    image = vf.open(folder)["color"]
    assert image.level(1).scale == (1.0, 22.48, 22.48, 28.0)
    np.testing.assert_array_equal(image.level(0)[...], values)


def test_writing_is_refused(dataset):
    folder, values = dataset()
    with pytest.raises(vf.UnsupportedError):
        vf.open_array(folder, "color/1", mode="r+")[...] = values


@pytest.mark.parametrize("version", [2, 3])
def test_layers_in_zarr_are_what_they_are(dataset, version):
    folder, values = dataset()
    group = zarr.open_group(folder / "labels", mode="w", zarr_format=version)
    array = group.create_array("1", shape=(8, 9), chunks=(4, 4), dtype="u4")
    array[...] = 5
    labels = layer("labels", (0, 0, 0), (8, 9, 1), ["1"]) | {"dataFormat": "zarr3"}
    labels["mags"][0]["path"] = "https://host/elsewhere/1"
    change(folder, lambda properties: properties["dataLayers"].append(labels))
    found = vf.open(folder)
    assert found.keys() == ("color", "labels")
    np.testing.assert_array_equal(found["color"].level(0)[...], values)
    assert found["labels"].keys() == ("1",)
    assert found["labels"].format == f"zarr{version}"
    np.testing.assert_array_equal(found["labels"]["1"][...], np.full((8, 9), 5))
    np.testing.assert_array_equal(vf.open_array(folder, "labels/1")[...], np.full((8, 9), 5))
    with FaultyServer(folder) as server:
        np.testing.assert_array_equal(vf.open_array(server.url, "labels/1")[...], np.full((8, 9), 5))
    assert "labels" in pickle.loads(pickle.dumps(found)).tree()
    # One layer that is gone says nothing of the others.
    shutil.rmtree(folder / "labels")
    np.testing.assert_array_equal(vf.open(folder)["color"].level(0)[...], values)
    with pytest.raises(vf.NotFoundError):
        vf.open(folder)["labels"]


# ------------------------------------------------------------------------------------------------------ mags elsewhere


def place_at(folder, path, mag=0):
    change(folder, lambda properties: properties["dataLayers"][0]["mags"][mag].update(path=path))


@pytest.mark.parametrize("way", ["relative", "up and down", "absolute", "URL"])
@pytest.mark.parametrize("remote", [False, True])
def test_a_mag_in_another_folder_of_the_store_is_followed(dataset, way, remote):
    folder, values = dataset()
    (folder / "a mag").mkdir()
    (folder / "color" / "1").rename(folder / "a mag" / "fine")
    with FaultyServer(folder.parent) as server:
        root = server.url if remote else folder.parent.as_uri()
        paths = {
            "relative": "a mag/fine",
            "up and down": "../d/./color/../a mag/fine/",
            "absolute": str(folder / "a mag" / "fine"),
            "URL": f"{root}/d/a%20mag/fine",
        }
        place_at(folder, paths[way])
        if remote and way == "absolute":
            # Of a server nobody knows which folder of its machine it shows.
            assert [level.scale[1] for level in vf.open(server.url + "|wkw:d")["color"].levels] == [22.48]
            return
        found = vf.open(f"{server.url}|wkw:d" if remote else f"{folder.parent}|wkw:d")
        image = found["color"]
        np.testing.assert_array_equal(image.level(mag=1)[...], values)
        assert len(image.levels) == 2
        np.testing.assert_array_equal(found["color/1"][0, 5], values[0, 5])


ELSEWHERE = {
    "s3://user:secret@bucket/color/1?sig=secret": "s3://bucket/color/1",
    "https://host/color/1": "https://host/color/1",
    "../../other/1": "../../other/1",
    "color/../../x": "color/../../x",
    "/somewhere/else/1": "/somewhere/else/1",
}


@pytest.mark.parametrize("path", ELSEWHERE)
@pytest.mark.parametrize("remote", [False, True])
def test_a_mag_that_lies_elsewhere_is_named_and_left_out(dataset, path, remote, capsys):
    folder, values = dataset()
    place_at(folder, path)
    change(folder, lambda properties: properties["dataLayers"].append(layer("other", START, SHAPE, ["1"])))
    change(folder, lambda properties: properties["dataLayers"][1]["mags"][0].update(path=path))
    with FaultyServer(folder) as server:
        source = server.url if remote else folder
        found = vf.open(source)
        image = found["color"]
        assert [level.scale[1] for level in image.levels] == [22.48]
        assert image.attrs["elsewhere"] == {"1": ELSEWHERE[path]}
        np.testing.assert_array_equal(image.level(mag="2-2-1")[:, :30], values[:, ::2, ::2])
        refused = [
            lambda: image.level(mag=1),
            lambda: image.level(mag="1-1-1"),
            lambda: found["color/1"],
            lambda: vf.open_array(source, "color/1"),
            lambda: found["other"]["1"],
        ]
        for asked in refused:
            with pytest.raises(vf.UnsupportedError, match="elsewhere") as caught:
                asked()
            assert repr(ELSEWHERE[path]) in str(caught.value)
            assert "secret" not in str(caught.value)
        # A layer of which nothing is here is no image.
        assert type(found["other"]) is vf.Group
        assert "elsewhere" in found.tree()
        with pytest.raises(vf.SelectionError, match="there are 2-2-1"):
            image.level(mag=4)
        main(["info", f"{source}|wkw:color"])
        printed = capsys.readouterr().out
        assert f"1 at {ELSEWHERE[path]}" in printed


def test_a_mag_without_a_header_is_named(dataset):
    folder, _ = dataset()
    (folder / "color" / "1" / "header.wkw").unlink()
    assert vf.open(folder).keys() == ("color",)
    with pytest.raises(vf.NotFoundError, match=r"header\.wkw"):
        vf.open(folder)["color/1"]


# -------------------------------------------------------------------------------------------------------- a mag alone


def test_a_mag_alone_where_the_store_can_list(tmp_path):
    values = volume(shape=(60, 90, 20))
    write_mag(tmp_path / "1", values, at=(64, 32, 0), block_type="lz4")
    (tmp_path / "1" / "z0" / "y1" / "notes.txt").write_text("not a file of voxels")
    with moto_s3(objects_in(tmp_path, "d/color/")) as endpoint, vf.Engine() as engine:
        options = vf.StoreOptions(endpoint=endpoint, credentials=CREDENTIALS, region="us-east-1")
        array = vf.open("s3://bucket/d/color/1", options=options, engine=engine)
        assert (array.origin, array.shape) == ((0, 64, 32, 0), (1, 64, 96, 32))
        np.testing.assert_array_equal(array[:, :60, :90, :20], values)
        again = vf.open_array("s3://bucket/d/color", "1", options=options, engine=engine)
        np.testing.assert_array_equal(again[:, 3, :90, :20], values[:, 3])
    with FaultyServer(tmp_path) as server:
        for source in (f"{server.url}/1", f"{server.url}|zarr:1"):
            with pytest.raises(vf.MetadataError, match="extent") as caught:
                vf.open(source)
            assert "datasource-properties.json" in caught.value.hint
            assert "color/1" in caught.value.hint
