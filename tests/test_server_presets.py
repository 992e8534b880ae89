"""What viewers find under a preset: axes, levels, types, contrast, and the rules by which they read documents."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import zarr

import voxfetch as vf
from tests.conftest import values
from tests.images import make_image, paths, shown
from tests.planes import Planes, by_zarr, same
from tests.servers.boss import BossServer, Channel
from tests.wkw_data import layer, write_mag, write_properties
from voxfetch.server.casts import cast_voxels, shown_dtype
from voxfetch.server.shown import capped
from voxfetch.server.units import nanometres, unit_of

FIB25 = "tests/data/fib25/fib25.ome.zarr"


@pytest.fixture(scope="module")
def root(request):
    return request.config.rootpath


# ----------------------------------------------------------------------------------------------------- vizarr, viv


def vizarr_opens(planes, path):
    """What vizarr does with an image, by its io.ts and ome.ts: raises where it would."""
    ome = shown(planes, path)
    (multiscale,) = ome["multiscales"]
    names = [axis["name"] for axis in multiscale["axes"]]
    assert names[-2:] == ["y", "x"], "the last two axes are those of a tile"
    arrays = [planes.json(f"{path}/{dataset['path']}/zarr.json") for dataset in multiscale["datasets"]]
    for array in arrays:
        assert array["data_type"] in {"uint8", "int8", "uint16", "int16", "uint32", "int32", "float32"}
        for axis, (extent, first) in enumerate(zip(array["shape"], arrays[0]["shape"], strict=True)):
            assert axis >= len(names) - 2 or extent == first, "the index of a plane is one of all levels"
    if "image-label" not in ome:
        for channel in ome["omero"]["channels"]:
            assert re.fullmatch("[0-9A-F]{6}", channel["color"])
            assert isinstance(channel["active"], bool)
            assert channel["window"]["start"] < channel["window"]["end"]
            assert {"min", "max"} < set(channel["window"])
        assert sum(channel["active"] for channel in ome["omero"]["channels"]) <= 6
        assert isinstance(ome["omero"]["rdefs"]["defaultZ"], int)
    return arrays


@pytest.mark.parametrize("axes", ["cxyz", "xyz", "tczyx", "yx", "zyxc", "xy"])
def test_viv_has_its_axes_in_its_order(tmp_path, axes):
    voxels = values([dict(zip("tczyx", (2, 3, 5, 9, 11), strict=True))[name] for name in axes], "uint16")
    planes = Planes(a=make_image(tmp_path / "a", [voxels], axes))
    order = [name for name in "tczyx" if name in axes]
    vizarr_opens(planes, "z3/@viv/a")
    document = planes.json("z3/@viv/a/0/zarr.json")
    assert document["dimension_names"] == order
    same(by_zarr(planes, "z3/@viv/a/0"), voxels.transpose([axes.index(name) for name in order]))
    assert [axis["name"] for axis in shown(planes, "z3/a")["multiscales"][0]["axes"]] == list(axes)
    same(by_zarr(planes, "z3/a/0"), voxels)


def test_viv_has_the_levels_that_are_as_deep_as_the_finest(tmp_path):
    shapes = [(8, 16, 16), (8, 8, 8), (4, 4, 4)]
    scales = [(4, 1, 1), (4, 2, 2), (8, 4, 4)]
    planes = Planes(a=make_image(tmp_path / "a", [values(shape, "u1") for shape in shapes], scales=scales))
    assert paths(shown(planes, "z3/@viv/a")) == ["0", "1"]
    assert paths(shown(planes, "z3/a")) == ["0", "1", "2"]
    vizarr_opens(planes, "z3/@viv/a")
    assert planes.get("z3/@viv/a/2/zarr.json") is None


@pytest.mark.parametrize(
    ("stored", "image", "label"),
    [
        ("uint64", "uint32", "uint32"),
        ("int64", "int32", "uint32"),
        ("float64", "float32", None),
        ("bool", "uint8", None),
        ("uint16", "uint16", "uint16"),
    ],
)
def test_viv_has_no_types_of_64_bits(tmp_path, stored, image, label):
    voxels = values((4, 8, 8), stored)
    planes = Planes(a=make_image(tmp_path / "a", [voxels], labels={"cells": [voxels]} if label else None))
    assert vizarr_opens(planes, "z3/@viv/a")[0]["data_type"] == image
    if label:
        assert vizarr_opens(planes, "z3/@viv/a/labels/cells")[0]["data_type"] == label
        assert shown(planes, "z3/@viv/a/labels/cells")["image-label"] == {"source": {"image": "../../"}}


def test_numbers_are_clamped_and_labels_keep_their_low_bits():
    large = np.array([0, 7, 2**31, 2**32, 2**32 + 7, 2**63], "uint64")
    clamped = cast_voxels(large, shown_dtype(large.dtype, "viv", is_label=False), is_label=False)
    same(clamped, np.array([0, 7, 2**31, 2**32 - 1, 2**32 - 1, 2**32 - 1], "uint32"))
    # What is an object stays one: no other than 0 becomes 0.
    folded = cast_voxels(large, shown_dtype(large.dtype, "viv", is_label=True), is_label=True)
    same(folded, np.array([0, 7, 2**31, 2**32 - 1, 7, 2**32 - 1], "uint32"))
    signed = np.array([-(2**40), -1, 5, 2**40], "int64")
    same(cast_voxels(signed, np.dtype("int32"), is_label=False), np.array([-(2**31), -1, 5, 2**31 - 1], "int32"))
    same(cast_voxels(signed, np.dtype("uint64"), is_label=True), np.array([0, 0, 5, 2**40], "uint64"))
    far = np.array([1e300, 0.5, np.nan])
    same(cast_voxels(far, np.dtype("float32"), is_label=False), np.array([np.inf, 0.5, np.nan], "float32"))


def test_a_window_of_the_file_is_taken_and_a_missing_one_computed(tmp_path):
    voxels = np.stack([values((6, 20, 20), "uint16", 1) // 16, values((6, 20, 20), "uint16", 2) // 4])
    given = [{"label": "DAPI", "color": "0000FF", "window": {"min": 0, "max": 65535, "start": 5, "end": 99}}]
    coarse = voxels[:, :, ::2, ::2]
    image = make_image(tmp_path / "a", [voxels, coarse], "czyx", omero={"channels": given})
    planes = Planes(a=image)
    first, second = shown(planes, "z3/a")["omero"]["channels"]
    assert (first["label"], first["color"]) == ("DAPI", "0000FF")
    assert first["window"] == {"min": 0, "max": 65535, "start": 5, "end": 99}
    low, high = np.percentile(coarse[1], [1, 99.8])
    assert second["window"] == {"min": 0, "max": 65535, "start": pytest.approx(low), "end": pytest.approx(high)}
    assert (second["label"], second["color"]) == ("1", "00FF00")
    vizarr_opens(planes, "z3/@viv/a")


def test_the_sample_is_read_once_and_is_bounded(tmp_path):
    image = make_image(tmp_path / "a", [np.zeros((8, 8, 8), "u2")])
    zarr.create_array(tmp_path / "a", name="s0", shape=(900, 900, 900), chunks=(32,) * 3, dtype="u2", overwrite=True)
    planes = Planes(a=vf.open(tmp_path / "a"))
    del image
    before = vf.default_engine().stats()
    for path in ("z3/a/zarr.json", "z3/a/zarr.json", "z3/@viv/a/zarr.json"):
        planes.json(path)
    after = vf.default_engine().stats()
    assert after.reads - before.reads == 2, "one for each preset"
    planes.json("z2/a/.zattrs")
    planes.json("z2/a/.zmetadata")
    assert vf.default_engine().stats().reads - after.reads == 1
    # A million voxels are 32 chunks of 32^3; the box of them lies across its neighbours.
    assert 2 * 16 <= after.chunks_missing - before.chunks_missing <= 2 * 5**3


def test_damaged_voxels_take_nobody_the_image(tmp_path):
    image = make_image(tmp_path / "a", [values((8, 8, 8), "uint16")])
    for chunk in (tmp_path / "a/s0/c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"\xff" * 20)
    planes = Planes(a=image)
    window = shown(planes, "z3/a")["omero"]["channels"][0]["window"]
    assert window == {"min": 0, "max": 65535, "start": 0, "end": 65535}
    # The passing chunk is what is stored; one that is made of it is an error, not fill value.
    with pytest.raises(vf.DataError):
        planes.get("pc/a/0/0-8_0-8_0-8")


@pytest.mark.parametrize("value", [0.0, 1e9, -5.0])
def test_a_window_of_one_value_is_none_of_no_width(tmp_path, value):
    planes = Planes(a=make_image(tmp_path / "a", [np.full((4, 8, 8), value, "float32")]))
    window = shown(planes, "z3/a")["omero"]["channels"][0]["window"]
    assert window["min"] <= window["start"] < window["end"] <= window["max"]


def test_a_window_of_complex_numbers_is_one_of_finite_sizes(tmp_path):
    voxels = np.full((4, 4), 3 + 4j, "c8")
    voxels[0] = [0, np.nan, complex(0, np.inf), 1]
    window = shown(Planes(a=make_image(tmp_path / "a", [voxels], "yx")), "z3/a")["omero"]["channels"][0]["window"]
    assert (window["min"], window["max"]) == (0, 5)
    assert 0 <= window["start"] < window["end"] <= 5


def test_many_channels_have_each_its_window(tmp_path):
    voxels = np.arange(40, dtype="uint16")[:, None, None] + np.arange(64, dtype="uint16").reshape(1, 8, 8)
    channels = shown(Planes(a=make_image(tmp_path / "a", [voxels], "cyx")), "z3/@viv/a")["omero"]["channels"]
    assert [channel["window"]["start"] for channel in channels] == pytest.approx([k + 0.63 for k in range(40)])
    assert [channel["active"] for channel in channels] == [k < 6 for k in range(40)]


def test_the_channels_described_are_bounded(tmp_path):
    image = make_image(tmp_path / "a", [np.zeros((8, 8, 8), "u2")], "cyx")
    zarr.create_array(tmp_path / "a", name="s0", shape=(10**7, 8, 8), chunks=(64, 8, 8), dtype="u2", overwrite=True)
    del image
    channels = shown(Planes(a=vf.open(tmp_path / "a")), "z3/a")["omero"]["channels"]
    assert len(channels) == 1024


# ------------------------------------------------------------------------------------------------------ WEBKNOSSOS

LENGTHS = {
    *(f"{prefix}meter" for prefix in ("yocto", "zepto", "atto", "femto", "pico", "nano", "micro", "milli", "centi")),
    *(
        f"{prefix}meter"
        for prefix in ("deci", "hecto", "kilo", "mega", "giga", "tera", "peta", "exa", "zetta", "yotta")
    ),
    "meter",
    *("angstrom", "inch", "foot", "yard", "mile", "parsec"),
}
SETTINGS = {
    "bytes": {"endian"},
    "transpose": {"order"},
    "zstd": {"level", "checksum"},
    "gzip": {"level"},
    "blosc": {"cname", "clevel", "shuffle", "typesize", "blocksize"},
    "crc32c": set(),
}


def webknossos_opens(planes, path):
    """What WEBKNOSSOS' NgffV0_5Explorer and Zarr3ArrayHeader ask; raises where it would fail or be silent."""
    ome = shown(planes, path)
    assert ome["version"] == "0.5"
    (multiscale,) = ome["multiscales"]
    axes = {axis["name"]: axis for axis in multiscale["axes"]}
    space = [k for k, axis in enumerate(multiscale["axes"]) if axis.get("type") == "space"]
    assert {"x", "y"} <= {multiscale["axes"][k]["name"] for k in space} <= {"x", "y", "z"}
    assert all("unit" not in axes[name] or axes[name]["unit"] in LENGTHS for name in "xyz" if name in axes)
    assert "coordinateSystems" not in multiscale
    scales = []
    for dataset in multiscale["datasets"]:
        scale = next(one["scale"] for one in dataset["coordinateTransformations"] if one["type"] == "scale")
        scales.append([scale[k] for k in space])
    finest = min(scales, key=np.prod)
    assert finest == [min(column) for column in zip(*scales, strict=True)], "scales do not agree on smallest dimension"
    mags = [[round(a / b) for a, b in zip(scale, finest, strict=True)] for scale in scales]
    assert all(mag & (mag - 1) == 0 and mag > 0 for one in mags for mag in one)
    assert len({tuple(one) for one in mags}) == len(mags)
    for dataset in multiscale["datasets"]:
        header = planes.json(f"{path}/{dataset['path']}/zarr.json")
        assert isinstance(header["data_type"], str)
        assert isinstance(header["fill_value"], (int, float, str))
        assert not isinstance(header["fill_value"], bool)
        for codec in header["codecs"]:
            assert SETTINGS[codec["name"]] == set(codec.get("configuration", {})), codec
            if codec["name"] == "transpose":
                order = codec["configuration"]["order"]
                assert order in (sorted(order), sorted(order, reverse=True))
    return ome


def test_webknossos_has_powers_of_two_of_the_finest_scale(tmp_path):
    scales = [(28, 11.24, 11.24), (28, 22.48, 22.48), (56, 44.96, 44.96), (28, 33.72, 33.72), (56, 44.96, 44.96)]
    levels = [values((8, 16, 16), "u1", k) for k in range(5)]
    planes = Planes(a=make_image(tmp_path / "a", levels, scales=scales, units=["nanometer"] * 3))
    ome = webknossos_opens(planes, "z3/@wk/a")
    assert len(paths(ome)) == 3
    same(by_zarr(planes, "z3/@wk/a/2"), levels[2])
    assert len(paths(shown(planes, "z3/a"))) == 5


def test_webknossos_has_no_level_coarser_by_more_than_a_number_holds(tmp_path):
    levels = [values((8, 8, 8), "u1", k) for k in range(2)]
    image = make_image(tmp_path / "a", levels, scales=[(5e-324, 1, 1), (1, 2, 2)])
    assert paths(shown(Planes(a=image), "z3/@wk/a")) == ["0"]


def test_webknossos_has_the_level_that_is_finest_along_every_axis_first(tmp_path):
    scales = [(2, 2, 2), (1, 1, 1), (4, 0.5, 4)]
    levels = [values((8, 8, 8), "u1", k) for k in range(3)]
    planes = Planes(a=make_image(tmp_path / "a", levels, scales=scales))
    webknossos_opens(planes, "z3/@wk/a")
    scales = [(2, 2, 2), (1, 1, 1), (4, 4, 4)]
    planes = Planes(a=make_image(tmp_path / "b", levels, scales=scales))
    assert len(paths(webknossos_opens(planes, "z3/@wk/a"))) == 3
    same(by_zarr(planes, "z3/@wk/a/0"), levels[1])


@pytest.mark.parametrize("unit", ["fathom", "second", "um", "\u00b5m", "micrometre", "angstrom", None])
def test_units_are_known_ones_or_none(tmp_path, unit):
    planes = Planes(a=make_image(tmp_path / "a", [values((4, 8, 8), "u1")], units=[unit] * 3))
    axes = webknossos_opens(planes, "z3/@wk/a")["multiscales"][0]["axes"]
    expected = {"fathom": None, "second": None, "angstrom": "angstrom", None: None}.get(unit, "micrometer")
    assert [axis.get("unit") for axis in axes] == [expected] * 3
    shown_unit = shown(planes, "z3/a")["multiscales"][0]["axes"][0].get("unit")
    assert shown_unit == ("second" if unit == "second" else expected)


@pytest.mark.parametrize("dtype", ["bool", "float64", "int64", "uint64", "float16"])
@pytest.mark.parametrize("axes", ["zyx", "cxyz"])
def test_webknossos_reads_every_header(tmp_path, dtype, axes):
    voxels = values((1, 8, 8, 8)[4 - len(axes) :], dtype)
    planes = Planes(a=make_image(tmp_path / "a", [voxels], axes))
    webknossos_opens(planes, "z3/@wk/a")
    expected = {"bool": "uint8", "float64": "float32", "float16": "float32", "int64": "int32", "uint64": "uint32"}
    assert planes.json("z3/@wk/a/0/zarr.json")["data_type"] == expected[dtype]


@pytest.mark.parametrize("source", ["fib25/fib25.ome.zarr", "webknossos/fib25/color", "ome-zarr-0.4/fib25.zarr"])
def test_webknossos_reads_the_headers_of_what_others_wrote(root, source):
    planes = Planes(a=vf.open(root / "tests/data" / source))
    webknossos_opens(planes, "z3/@wk/a")
    webknossos_opens(planes, "z3/a")


def test_a_channel_of_bossdb_is_an_image_for_every_viewer(root):
    em = np.tile(zarr.open_array(root / FIB25 / "0")[:32], (1, 1, 3))
    with BossServer({"fib/one/em": Channel(em, start=(4, 100, 13), resolutions=2)}) as server:
        source = vf.open(f"bossdb://{server.url}/fib/one/em", engine=vf.Engine())
        planes = Planes(a=source)
        for preset in ("", "@wk/", "@viv/"):
            neuroglancer_opens(planes, f"z3/{preset}a")
            webknossos_opens(planes, f"z3/{preset}a")
            same(by_zarr(planes, f"z3/{preset}a/0"), source.level(0)[...])
        vizarr_opens(planes, "z3/@viv/a")
        place = shown(planes, "z3/a")["multiscales"][0]["datasets"][0]["coordinateTransformations"]
        assert place[1]["translation"] == list(np.multiply(source.level(0).origin, place[0]["scale"]))


def test_a_zstd_without_checksum_in_its_settings_says_so(tmp_path):
    image = make_image(tmp_path / "a", [values((4, 8, 8), "u1")])
    path = tmp_path / "a/s0/zarr.json"
    document = json.loads(path.read_bytes())
    document["codecs"][-1] = {"name": "zstd", "configuration": {"level": 3}}
    path.write_text(json.dumps(document))
    del image
    planes = Planes(a=vf.open(tmp_path / "a"))
    webknossos_opens(planes, "z3/@wk/a")
    codec = planes.json("z3/@wk/a/0/zarr.json")["codecs"][-1]
    assert codec == {"name": "zstd", "configuration": {"level": 3, "checksum": False}}


def test_layers_of_webknossos_begin_at_their_box_and_say_where(tmp_path):
    voxels = values((1, 24, 40, 32), "uint8")
    write_mag(tmp_path / "color/1", voxels, at=(16, 8, 32))
    write_mag(tmp_path / "color/2", voxels[:, ::2, ::2, ::2], at=(8, 4, 16))
    write_properties(tmp_path, [layer("color", (16, 8, 32), (24, 40, 32), ["1", "2"])])
    planes = Planes(a=vf.open(tmp_path)["color"])
    for preset in ("", "@wk/"):
        ome = shown(planes, f"z3/{preset}a")
        places = [one["coordinateTransformations"][1]["translation"] for one in ome["multiscales"][0]["datasets"]]
        scale = np.array([11.24, 11.24, 28.0])
        assert places[0] == pytest.approx([0, *(np.array([16, 8, 32]) * scale)])
        assert places[1] == pytest.approx([0, *((np.array([16, 8, 32]) + 0.5) * scale)])
        same(by_zarr(planes, f"z3/{preset}a/0"), voxels)
    webknossos_opens(planes, "z3/@wk/a")
    info = planes.json("pc/a/info")
    assert [one["voxel_offset"] for one in info["scales"]] == [[16, 8, 32], [8, 4, 16]]


# ----------------------------------------------------------------------------------------------------- Neuroglancer


def neuroglancer_opens(planes, path):
    """What Neuroglancer asks of an image of Zarr v3 (ome.ts, zarr/codecs): raises where it would."""
    ome = shown(planes, path)
    assert ome["version"] == "0.5"
    for axis in ome["multiscales"][0]["axes"]:
        assert axis.get("unit", "meter") in LENGTHS | {"second", "millisecond", "microsecond", "nanosecond", "minute"}
    for dataset in ome["multiscales"][0]["datasets"]:
        kinds = [one["type"] for one in dataset["coordinateTransformations"]]
        assert kinds == ["scale", "translation"]
        header = planes.json(f"{path}/{dataset['path']}/zarr.json")
        assert header["data_type"] in {"uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32"}
        assert all(codec["name"] in SETTINGS for codec in header["codecs"])
        assert header["data_type"] != "uint64" or type(header["fill_value"]) is int
    if "omero" in ome:
        assert isinstance(ome["omero"]["channels"], list)


@pytest.mark.parametrize("source", ["ome-zarr-0.4/fib25.zarr", "fib25/fib25.ome.zarr", "webknossos/fib25/color"])
def test_neuroglancer_reads_what_is_shown_as_v2(root, source):
    planes = Planes(a=vf.open(root / "tests/data" / source))
    ome = shown(planes, "z2/a")
    assert ome["multiscales"][0]["version"] == "0.4"
    for path in paths(ome):
        header = planes.json(f"z2/a/{path}/.zarray")
        assert header["filters"] is None, "filters are refused"
        assert (header["compressor"] or {"id": None})["id"] in {None, "blosc", "gzip", "zlib", "zstd"}
        assert header["dimension_separator"] == "/", "`.` is taken where nothing is said"
        assert np.dtype(header["dtype"]).name in {"uint8", "uint16", "uint32", "uint64", "float32"}


@pytest.mark.parametrize(
    "source",
    [
        "fib25/fib25.ome.zarr",
        "fib25/fib25.ome.zarr/labels/groundtruth",
        "webknossos/fib25/segmentation",
        "precomputed/tensorstore-0.1.86/murmur",
        "n5/neuroglancer-c0f79b1/n5_viewer_multiscale_modern",
        "neuroglancer/ome_zarr/simple_0.4",
    ],
)
def test_neuroglancer_reads_what_is_shown(root, source):
    neuroglancer_opens(Planes(a=vf.open(root / "tests/data" / source)), "z3/a")


# -------------------------------------------------------------------------------------------------------------- small


def test_arrays_of_other_formats_say_where_they_begin(root):
    level = vf.open(root / "tests/data/precomputed/tensorstore-0.1.86/unsharded").level(0)
    ome = shown(Planes(a=vf.open(root / "tests/data/precomputed/tensorstore-0.1.86/unsharded")), "z3/a")
    assert level.origin == (-4, 0, 1000, 0)
    (dataset,) = ome["multiscales"][0]["datasets"]
    assert dataset["coordinateTransformations"][1]["translation"] == [-16, 0, 40000, 0]


def test_an_array_under_a_preset_is_converted_too(tmp_path):
    voxels = values((5, 6, 7), "float64")
    array = zarr.create_array(tmp_path / "a", data=voxels, chunks=(4, 4, 4), dimension_names=["x", "y", "z"])
    del array
    planes = Planes(a=vf.open(tmp_path / "a"))
    same(by_zarr(planes, "z3/@viv/a"), voxels.astype("f4").transpose(2, 1, 0))
    same(by_zarr(planes, "z2/@viv/a"), voxels.astype("f4").transpose(2, 1, 0))
    with pytest.raises(vf.NotFoundError, match="no preset"):
        planes.get("z3/@other/a/zarr.json")


def test_large_chunks_are_halved_to_multiples_of_64():
    assert capped((32, 32, 32)) == (32, 32, 32)
    assert capped((1, 2048, 2048)) == (1, 2048, 2048)
    assert capped((1, 10_000, 10_000)) == (1, 1280, 2560)
    assert capped((3, 3, 3), 4) == (1, 2, 2)
    assert capped((0, 5)) == (1, 5)
    assert capped(()) == ()


def test_lengths_in_nanometres():
    assert [nanometres(11.24, unit) for unit in ("nanometer", "nm", None, "second", "furlong")] == [11.24] * 5
    assert nanometres(0.008, "micrometer") == pytest.approx(8)
    assert nanometres(2, "angstrom") == pytest.approx(0.2)
    assert unit_of("second", "channel", strict=False) is None
    assert unit_of("s", "time", strict=True) == "second"
