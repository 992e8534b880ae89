"""Layers of napari without a window: planes as its viewer slices them are those that other libraries wrote."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorstore
import zarr

import voxfetch as vf
from tests import precomputed
from tests.servers.boss import BossServer, Channel
from tests.servers.faulty import FaultyServer
from tests.wkw_data import layer, write_mag, write_properties

with warnings.catch_warnings():
    # What napari imports warns of itself.
    warnings.simplefilter("ignore")
    pytest.importorskip("napari")
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer
    from npe2 import PluginManager, PluginManifest

from voxfetch.napari import View, get_reader, layers

ROOT = Path(__file__).parents[1]
DATA = Path(__file__).parent / "data"
FIB25 = DATA / "fib25" / "fib25.ome.zarr"
BDV = DATA / "hdf5/mobie-c199c3f/xyc-fluo-cells-bdv-hdf5.h5"
MANIFEST = Path(vf.__file__).parent / "napari.yaml"


def show(source, **options):
    """A viewer with the layers of a source."""
    viewer = ViewerModel()
    for one in layers(source, **options):
        viewer.add_layer(Layer.create(*one))
    return viewer


def go(viewer, **index):
    """Moves to a voxel of the finest level of the first layer, by names of its axes."""
    first = viewer.layers[0]
    for name, number in index.items():
        axis = first.axis_labels.index(name)
        viewer.dims.set_point(axis, number * first.scale[axis] + first.translate[axis])


def plane(shown, level=None):
    """What a layer shows, at a level of its pyramid."""
    if level is not None:
        shown.locked_data_level = level
    return shown._slice.image.raw


def write_ome(folder, voxels, axes, *, levels=1, units="micrometer", chunks=None, translate=True, **more):
    """An image of OME-Zarr 0.4 by zarr-python, each level every second voxel in y and x of the one before."""
    group = zarr.create_group(folder, zarr_format=2)
    types = {"t": "time", "c": "channel"}
    named = {"t": "second", **dict.fromkeys("zyx", units)}
    datasets, written = [], []
    for i in range(levels):
        steps = [2**i if name in "yx" else 1 for name in axes]
        written.append(voxels[tuple(slice(None, None, step) for step in steps)])
        keys = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
        chunk = chunks or tuple(min(16, n) for n in written[-1].shape)
        group.create_array(str(i), data=written[-1], chunks=chunk, **keys)
        transforms = [{"type": "scale", "scale": [0.5 * step for step in steps]}]
        if translate:
            transforms.append({"type": "translation", "translation": [(s - 1) / 4 for s in steps]})
        datasets.append({"path": str(i), "coordinateTransformations": transforms})
    described = [{"name": n, "type": types.get(n, "space"), **({"unit": named[n]} if n in named else {})} for n in axes]
    group.attrs.update({"multiscales": [{"version": "0.4", "name": "it", "axes": described, "datasets": datasets}]})
    group.attrs.update(more)
    return written


# --- one picture


def test_the_volume_and_its_labels():
    viewer = show(FIB25)
    image, labels = viewer.layers
    assert (type(image), type(labels)) == (Image, Labels)
    assert (image.name, labels.name) == ("fib25: EM", "groundtruth")
    assert tuple(image.scale) == (10, 10, 10)
    assert tuple(image.translate) == (0, 0, 0)
    assert [str(unit) for unit in image.units] == ["nanometer"] * 3
    assert image.axis_labels == ("z", "y", "x")
    assert image.contrast_limits == [60, 200]
    # The file has a colour for the background only: each label gets one of napari's own.
    seen = np.unique(labels.data[-1][30])[1:9]
    assert len({tuple(labels.get_color(label)) for label in seen}) > 4
    assert image.metadata["url"].endswith("fib25.ome.zarr")
    assert image.metadata["attrs"]["ome"]["version"] == "0.5"
    names = ("", "labels/groundtruth/")
    for shown, name in zip(viewer.layers, names, strict=True):
        truth = [zarr.open_array(FIB25 / f"{name}{i}", mode="r")[...] for i in range(3)]
        for z in (0, 77, 249):
            go(viewer, z=z)
            np.testing.assert_array_equal(plane(shown, 0), truth[0][z])
        # The coarser levels have the plane that napari takes for the nearest.
        go(viewer, z=100)
        np.testing.assert_array_equal(plane(shown, 1), truth[1][50])
        np.testing.assert_array_equal(plane(shown, 2), truth[2][round(100 * 63 / 250)])
        shown.locked_data_level = None
        assert shown.dtype == truth[0].dtype


def test_other_planes_and_three_dimensions():
    viewer = show(FIB25)
    truth = zarr.open_array(FIB25 / "0", mode="r")[...]
    image = viewer.layers[0]
    image.locked_data_level = 0
    viewer.dims.order = (1, 0, 2)
    go(viewer, y=33)
    np.testing.assert_array_equal(plane(image, 0), truth[:, 33])
    viewer.dims.order = (2, 1, 0)
    go(viewer, x=44)
    np.testing.assert_array_equal(plane(image, 0), truth[:, :, 44].T)
    image.locked_data_level = None
    viewer.dims.order = (0, 1, 2)
    viewer.dims.ndisplay = 3
    np.testing.assert_array_equal(plane(image), zarr.open_array(FIB25 / "2", mode="r")[...])


def test_the_level_follows_the_zoom():
    viewer = show(FIB25)
    image = viewer.layers[0]
    truth = [zarr.open_array(FIB25 / f"{i}", mode="r")[...] for i in range(3)]
    go(viewer, z=124)
    # Corners of the canvas in the world, and its size in pixels.
    seen = {0: ((500, 500), (1000, 1000)), 2: ((0, 0), (2490, 2490))}
    for level, corners in seen.items():
        image._update_draw(1, np.array(corners), (60, 60))
        assert image.data_level == level
        low, high = image.corner_pixels[:, 1:]
        part = truth[level][round(124 * truth[level].shape[0] / 250)][low[0] : high[0] + 1, low[1] : high[1] + 1]
        np.testing.assert_array_equal(plane(image), part)
        assert part.size < truth[level][0].size or level == 2


def test_five_axes(tmp_path, make_values):
    voxels = make_values((3, 2, 4, 50, 60), "u2")
    channels = [
        {"label": "dna", "color": "00FF00", "window": {"start": 10, "end": 900, "min": 0, "max": 65535}},
        {"color": "FF0000", "active": False},
    ]
    written = write_ome(tmp_path / "a.zarr", voxels, "tczyx", levels=2, omero={"channels": channels})
    viewer = show(tmp_path / "a.zarr")
    first, second = viewer.layers
    assert (first.name, second.name) == ("it: dna", "it: 1")
    assert (first.visible, second.visible) == (True, False)
    assert first.contrast_limits == [10, 900]
    # Of the other the coarsest level is small enough to be looked at.
    assert second.contrast_limits == [written[1][:, 1].min(), written[1][:, 1].max()]
    np.testing.assert_allclose(first.colormap.map(1.0)[0, :3], [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(second.colormap.map(1.0)[0, :3], [1, 0, 0], atol=1e-6)
    assert first.axis_labels == ("t", "z", "y", "x")
    assert tuple(first.scale) == (0.5, 0.5, 0.5, 0.5)
    assert [str(unit) for unit in first.units] == ["second", "micrometer", "micrometer", "micrometer"]
    second.visible = True
    for t, z in ((0, 0), (2, 3)):
        go(viewer, t=t, z=z)
        for c, shown in enumerate((first, second)):
            np.testing.assert_array_equal(plane(shown, 0), voxels[t, c, z])
            np.testing.assert_array_equal(plane(shown, 1), written[1][t, c, z])


def test_channels_without_colours_get_some(tmp_path, make_values):
    write_ome(tmp_path / "a", make_values((3, 20, 20), "u1"), "cyx")
    found = layers(tmp_path / "a")
    assert [keywords["colormap"] for _, keywords, _ in found] == ["cyan", "magenta", "yellow"]
    assert [keywords["rgb"] for _, keywords, _ in found] == [False] * 3
    assert [keywords["contrast_limits"] for _, keywords, _ in found] == [(0, 255)] * 3


def test_very_many_channels_are_a_slider(tmp_path, make_values):
    voxels = make_values((30, 20, 20), "u1")
    write_ome(tmp_path / "a", voxels, "cyx")
    (shown,) = show(tmp_path / "a").layers
    assert shown.axis_labels == ("c", "y", "x")
    np.testing.assert_array_equal(np.asarray(shown.data), voxels)


def test_colours_that_lie_together_are_one_layer(tmp_path, make_values):
    voxels = make_values((40, 50, 3), "u1")
    written = write_ome(tmp_path / "a", voxels, "yxc", levels=2)
    (shown,) = show(tmp_path / "a").layers
    assert shown.rgb
    assert shown.ndim == 2
    for level in range(2):
        np.testing.assert_array_equal(plane(shown, level), written[level])
    # Of other types they are channels.
    write_ome(tmp_path / "b", voxels.astype("u2"), "yxc")
    assert [keywords["axis_labels"] for _, keywords, _ in layers(tmp_path / "b")] == [("y", "x")] * 3


def test_units_that_pint_does_not_know(tmp_path, make_values):
    for number, unit in enumerate(("parsnip", "9**9**9", "m m", "")):
        write_ome(tmp_path / f"{number}", make_values((20, 20), "u1"), "yx", units=unit)
        assert "units" not in layers(tmp_path / f"{number}")[0][1]
    write_ome(tmp_path / "t", make_values((2, 20, 20), "u1"), "tyx", units="parsnip")
    assert [str(unit) for unit in show(tmp_path / "t").layers[0].units] == ["second", "pixel", "pixel"]


def test_levels_without_translations_are_shown_all_the_same(tmp_path, make_values):
    write_ome(tmp_path / "a", make_values((64, 64), "u1"), "yx", levels=3, translate=False)
    assert len(show(tmp_path / "a").layers[0].data) == 3


def test_levels_of_another_box_are_left_out(tmp_path, make_values):
    write_ome(tmp_path / "a", make_values((64, 64), "u1"), "yx", levels=3)
    path = tmp_path / "a" / ".zattrs"
    document = json.loads(path.read_text())
    # The middle one begins 4 of its voxels later.
    document["multiscales"][0]["datasets"][1]["coordinateTransformations"][1]["translation"][0] += 4
    path.write_text(json.dumps(document))
    with pytest.warns(UserWarning, match=r"left out, for it covers another box .* \(32, 32\)"):
        ((data, _, _),) = layers(tmp_path / "a")
    assert [view.shape for view in data] == [(64, 64), (16, 16)]


def test_voxels_that_cannot_be_shown(tmp_path):
    zarr.create_array(tmp_path / "c", shape=(4, 4), dtype="c8")
    zarr.create_array(tmp_path / "line", shape=(9,), dtype="u1")
    with pytest.raises(vf.UnsupportedError, match="complex64"):
        layers(tmp_path / "c")
    with pytest.raises(vf.UnsupportedError, match=r"\(9,\) voxels are no picture"):
        layers(tmp_path / "line")


def test_types_of_voxels(tmp_path, make_values):
    for dtype in ("bool", "i1", "u2", "i2", "f2", "f4", "f8"):
        voxels = make_values((5, 6, 7), dtype)
        write_ome(tmp_path / dtype, voxels, "zyx")
        viewer = show(tmp_path / dtype)
        (shown,) = viewer.layers
        go(viewer, z=3)
        np.testing.assert_array_equal(plane(shown), voxels[3])
        if dtype[0] == "f":
            assert shown.contrast_limits == [voxels.min(), voxels.max()]


def test_contrast_of_voxels_that_are_no_numbers(tmp_path):
    voxels = np.full((4, 5, 6), np.nan, "f4")
    write_ome(tmp_path / "none", voxels, "zyx")
    assert "contrast_limits" not in layers(tmp_path / "none")[0][1]
    voxels[0, 0, :3] = (np.inf, -2, 3)
    write_ome(tmp_path / "some", voxels, "zyx")
    assert layers(tmp_path / "some")[0][1]["contrast_limits"] == (-2, 3)


def test_labels_have_the_colours_of_the_file(tmp_path):
    values = np.repeat(np.arange(4, dtype="u4"), 16).reshape(4, 4, 4)
    group = zarr.create_group(str(tmp_path / "labels"))
    group.create_array("0", data=values)
    scale = [{"type": "scale", "scale": [1, 1, 1]}]
    multiscales = [
        {
            "axes": [{"name": name, "type": "space"} for name in "zyx"],
            "datasets": [{"path": "0", "coordinateTransformations": scale}],
        }
    ]
    colors = [{"label-value": 1, "rgba": [255, 0, 0, 255]}, {"label-value": 2, "rgba": [0, 0, 255, 51]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": multiscales, "image-label": {"colors": colors}}
    (layer,) = show(tmp_path / "labels").layers
    assert layer.get_color(1).tolist() == [1, 0, 0, 1]
    np.testing.assert_allclose(layer.get_color(2), [0, 0, 1, 0.2])
    assert layer.get_color(3).tolist() == [0.5, 0.5, 0.5, 1]
    assert layer.get_color(0) is None or layer.get_color(0)[3] == 0


def test_large_labels(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 2**64 - 1, (4, 30, 30), "u8", endpoint=True)
    zarr.create_array(tmp_path / "a", data=voxels)
    viewer = show(tmp_path / "a")
    (shown,) = viewer.layers
    assert type(shown) is Labels
    go(viewer, z=2) if "z" in shown.axis_labels else viewer.dims.set_point(0, 2)
    np.testing.assert_array_equal(plane(shown), voxels[2])
    assert shown.get_value((2, 5, 6)) == voxels[2, 5, 6]


# --- every format


def test_arrays_that_no_image_describes(tmp_path, make_values):
    for dtype, kind in (("u1", Image), ("u2", Image), ("f4", Image), ("i4", Labels), ("u8", Labels)):
        voxels = make_values((4, 20, 30), dtype)
        zarr.create_array(tmp_path / dtype, data=voxels, dimension_names=["x", "y", "z"])
        viewer = show(tmp_path / dtype)
        (shown,) = viewer.layers
        assert type(shown) is kind
        assert shown.axis_labels == ("z", "y", "x")
        assert shown.name == dtype
        go(viewer, z=7)
        np.testing.assert_array_equal(plane(shown), voxels[:, :, 7].T)


def test_webknossos(tmp_path):
    start, shape = (8, 16, 4), (40, 32, 20)
    random = np.random.default_rng(0)
    color = random.integers(0, 255, (1, *shape), "u1")
    segments = random.integers(1, 2**32 - 1, (1, *shape), "u4")
    rgb = random.integers(0, 255, (3, *shape), "u1")
    for name, voxels in (("color", color), ("segments", segments), ("rgb", rgb)):
        write_mag(tmp_path / name / "1", voxels, at=start)
        coarse = np.ascontiguousarray(voxels[:, ::2, ::2])
        write_mag(tmp_path / name / "2-2-1", coarse, at=(start[0] // 2, start[1] // 2, start[2]))
    mags = ["1", "2-2-1"]
    described = [
        layer("color", start, shape, mags),
        layer("segments", start, shape, mags, category="segmentation", dtype="uint32"),
        layer("rgb", start, shape, mags, dtype="uint24", channels=3),
    ]
    write_properties(tmp_path, described)
    viewer = show(tmp_path)
    found = {shown.name: shown for shown in viewer.layers}
    assert {name: type(shown) for name, shown in found.items()} == {"color": Image, "segments": Labels, "rgb": Image}
    assert [found[name].multiscale for name in ("color", "segments", "rgb")] == [True] * 3
    assert tuple(found["color"].scale) == (28, 11.24, 11.24)
    np.testing.assert_allclose(found["color"].translate, (4 * 28, 16 * 11.24, 8 * 11.24))
    assert found["rgb"].rgb
    go(viewer, z=13)
    for level, step in ((0, 1), (1, 2)):
        np.testing.assert_array_equal(plane(found["color"], level), color[0, ::step, ::step, 13].T)
        np.testing.assert_array_equal(plane(found["segments"], level), segments[0, ::step, ::step, 13].T)
        np.testing.assert_array_equal(plane(found["rgb"], level), rgb[:, ::step, ::step, 13].transpose(2, 1, 0))
    (alone,) = layers(tmp_path / "color")
    assert alone[1]["name"] == "color"


def test_precomputed(tmp_path, make_values):
    fine = make_values((40, 36, 10, 1), "u1")
    precomputed.write_scale(tmp_path / "em", fine, chunk_size=(16, 16, 8))
    coarse = np.ascontiguousarray(fine[::2, ::2])
    precomputed.write_scale(tmp_path / "em", coarse, chunk_size=(16, 16, 8), resolution=(8, 8, 40))
    viewer = show(f"precomputed://{tmp_path / 'em'}")
    (shown,) = viewer.layers
    assert type(shown) is Image
    assert shown.axis_labels == ("z", "y", "x")
    assert tuple(shown.scale) == (40, 4, 4)
    go(viewer, z=6)
    np.testing.assert_array_equal(plane(shown, 0), fine[:, :, 6, 0].T)
    np.testing.assert_array_equal(plane(shown, 1), coarse[:, :, 6, 0].T)

    objects = precomputed.labels((20, 21, 22, 1), "u8")
    scale = {"encoding": "compressed_segmentation", "compressed_segmentation_block_size": (8, 8, 8)}
    precomputed.write_scale(tmp_path / "seg", objects, chunk_size=(16, 16, 16), kind="segmentation", **scale)
    viewer = show(tmp_path / "seg")
    go(viewer, z=5)
    assert type(viewer.layers[0]) is Labels
    np.testing.assert_array_equal(plane(viewer.layers[0]), objects[:, :, 5, 0].T)
    (alone,) = layers(next(path for path in (tmp_path / "seg").iterdir() if path.is_dir()))
    assert alone[2] == "labels"

    picture = make_values((40, 30, 3, 3), "u1")
    precomputed.write_scale(tmp_path / "rgb", picture, chunk_size=(16, 16, 8))
    viewer = show(tmp_path / "rgb")
    assert viewer.layers[0].rgb
    go(viewer, z=1)
    np.testing.assert_array_equal(plane(viewer.layers[0]), picture[:, :, 1].transpose(1, 0, 2))


def write_n5(path, voxels):
    """By tensorstore, axes x first."""
    metadata = {"compression": {"type": "gzip"}, "dataType": str(voxels.dtype), "dimensions": voxels.shape}
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{path}/"}}
    spec["metadata"] = {**metadata, "blockSize": [16] * voxels.ndim}
    tensorstore.open(spec, create=True).result().write(voxels).result()


def test_n5(tmp_path, make_values):
    for dtype, kind in (("uint16", Image), ("uint64", Labels)):
        fine = make_values((40, 30, 20), dtype)
        for k in range(2):
            write_n5(tmp_path / dtype / f"s{k}", fine[:: 2**k, :: 2**k, :: 2**k])
        attributes = {"scales": [[1, 1, 1], [2, 2, 2]], "resolution": [4, 4, 40], "units": ["nm", "nm", "nm"]}
        (tmp_path / dtype / "attributes.json").write_text(json.dumps(attributes))
        viewer = show(tmp_path / dtype)
        (shown,) = viewer.layers
        assert type(shown) is kind
        assert tuple(shown.scale) == (40, 4, 4)
        go(viewer, z=8)
        np.testing.assert_array_equal(plane(shown, 0), fine[:, :, 8].T)
        np.testing.assert_array_equal(plane(shown, 1), fine[::2, ::2, 8].T)
        # Without names the axes of N5 are in the order of Fortran.
        (alone,) = layers(tmp_path / dtype / "s0")
        np.testing.assert_array_equal(np.asarray(alone[0]), fine.T)


def test_bigdataviewer():
    with h5py.File(BDV) as file:
        truth = [file[f"t00000/s{setup:02}/0/cells"][...] for setup in range(len(file["t00000"]))]
    viewer = show(BDV)
    images = [shown for shown in viewer.layers if type(shown) is Image]
    assert len(images) == len(truth)
    for shown, voxels in zip(images, truth, strict=True):
        stored = plane(shown, 0) if shown.multiscale else plane(shown)
        np.testing.assert_array_equal(stored, voxels[0].view(stored.dtype))


def test_bossdb(make_values):
    voxels, ids = make_values((20, 70, 80), "u1"), make_values((20, 70, 80), "u8")
    channels = {"a/b/em": Channel(voxels), "a/b/ids": Channel(ids)}
    with BossServer(channels) as server:
        viewer = show(f"bossdb://{server.url}/a/b/em")
        (shown,) = viewer.layers
        assert tuple(shown.scale) == (30, 4, 4)
        go(viewer, z=11)
        np.testing.assert_array_equal(plane(shown, 0), voxels[11])
        np.testing.assert_array_equal(plane(shown, 1), voxels[11, ::2, ::2])


# --- groups


def test_a_group_gives_its_images_or_else_its_arrays(tmp_path, make_values):
    group = zarr.create_group(tmp_path / "g")
    group.create_group("deep").create_array("a", data=make_values((9, 9), "u1"))
    group.create_array("b", data=make_values((9, 9), "u1"))
    group.create_array("line", data=make_values((9,), "u1"))
    assert [keywords["name"] for _, keywords, _ in layers(tmp_path / "g")] == ["b", "a"]
    write_ome(tmp_path / "g" / "deep" / "image", make_values((20, 20), "u1"), "yx")
    zarr.create_group(tmp_path / "none")
    with pytest.raises(vf.MetadataError, match="no image"):
        layers(tmp_path / "none")


def test_a_collection(tmp_path, make_values):
    group = zarr.create_group(tmp_path / "c", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    for name in "01":
        write_ome(tmp_path / "c" / name, make_values((20, 20), "u1", int(name)), "yx")
    found = layers(tmp_path / "c")
    for seed, (data, _, _) in enumerate(found):
        np.testing.assert_array_equal(np.asarray(data), make_values((20, 20), "u1", seed))
    assert len(found) == 2
    # One that cannot be opened does not hide the other.
    (tmp_path / "c" / "0" / "0" / ".zarray").write_text("{}")
    with pytest.warns(UserWarning, match="left out"):
        assert len(layers(tmp_path / "c")) == 1


def test_a_group_of_very_many_images(tmp_path):
    group = zarr.create_group(tmp_path / "g")
    for i in range(30):
        group.create_array(f"a{i:02}", shape=(4, 4), dtype="u1")
    with pytest.raises(vf.LimitExceededError, match="more than 24 images") as caught:
        layers(tmp_path / "g")
    assert "a00, a01" in caught.value.hint


# --- what is asked for


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(folder of a pyramid with one stored object a chunk, voxels of its levels)."""
    folder = tmp_path_factory.mktemp("served") / "a.zarr"
    voxels = np.random.default_rng(0).integers(0, 60000, (40, 256, 256), "u2")
    return folder, write_ome(folder, voxels, "zyx", levels=3, chunks=(10, 64, 64))


def chunks_asked(server):
    """(level, z, y, x) of the chunks that were fetched, each once per request."""
    found = [request.key.split("/")[-4:] for request in server.requests]
    asked = sorted(tuple(map(int, key)) for key in found if len(key) == 4 and all(part.isdecimal() for part in key))
    server.requests.clear()
    return asked


def test_adding_reads_the_coarsest_level_and_moving_reads_a_tile(served):
    folder, written = served
    with FaultyServer(folder) as server, vf.Engine(chunk_cache_bytes=64 << 20) as engine:
        found = layers(server.url, engine=engine)
        # The contrast limits took the coarsest level, 40 x 64 x 64.
        assert chunks_asked(server) == [(2, z, 0, 0) for z in range(4)]
        viewer = ViewerModel()
        viewer.add_layer(Layer.create(*found[0]))
        assert chunks_asked(server) == []
        shown = viewer.layers[0]
        go(viewer, z=25)
        np.testing.assert_array_equal(plane(shown), written[2][25])
        assert chunks_asked(server) == []
        # 0.5 micrometers a voxel: 40 x 40 of them, in one chunk of a plane.
        shown._update_draw(1, np.array([(35, 70), (55, 90)]), (60, 60))
        assert shown.data_level == 0
        np.testing.assert_array_equal(plane(shown), written[0][25, 64:128, 128:192])
        assert chunks_asked(server) == [(0, 2, 1, 2)]


def test_a_large_level_is_not_read_for_its_contrast(served, monkeypatch):
    folder, written = served
    monkeypatch.setattr("voxfetch.napari.layer._MAX_CONTRAST_NBYTES", 1000)
    with FaultyServer(folder) as server, vf.Engine(chunk_cache_bytes=64 << 20) as engine:
        ((data, keywords, kind),) = layers(server.url, engine=engine)
        assert chunks_asked(server) == []
        assert "contrast_limits" not in keywords
        viewer = ViewerModel()
        viewer.add_layer(Layer.create(data, keywords, kind))
        # napari asks for its first plane, takes the limits of that, and goes to the one in the middle.
        assert chunks_asked(server) == [(2, 0, 0, 0), (2, 1, 0, 0)]
        shown = viewer.layers[0]
        assert shown.contrast_limits == [written[2][0].min(), written[2][0].max()]
        np.testing.assert_array_equal(plane(shown), written[2][19])


def test_chunks_are_kept_between_planes(served):
    folder, _ = served
    with FaultyServer(folder) as server:
        viewer = show(server.url)
        server.requests.clear()
        shown = viewer.layers[0]
        shown.locked_data_level = 1
        go(viewer, z=20)
        server.requests.clear()
        for z in range(21, 30):
            go(viewer, z=z)
        assert chunks_asked(server) == []


def test_more_than_the_engine_may_hold_is_refused(tmp_path):
    zarr.create_array(tmp_path / "a", shape=(4, 20_000, 20_000), chunks=(1, 1000, 1000), dtype="u1")
    with vf.Engine(memory_limit_bytes=64 << 20) as engine:
        ((data, _, _),) = layers(tmp_path / "a", engine=engine)
        with pytest.raises(vf.LimitExceededError, match="400,000,000 bytes at once"):
            np.asarray(data[0])
        assert np.asarray(data[0, :100, :100]).shape == (100, 100)


# --- views


def test_views_are_as_numpy_has_them(make_values, tmp_path):
    voxels = make_values((11, 12, 13), "u2")
    zarr.create_array(tmp_path / "a", data=voxels, chunks=(4, 5, 6))
    view = View(vf.open_array(tmp_path / "a"))
    assert (view.shape, view.dtype, view.ndim, view.size, len(view)) == ((11, 12, 13), voxels.dtype, 3, 1716, 11)
    assert view.nbytes == voxels.nbytes
    assert view.chunks == (4, 5, 6)
    assert view[:, 3].chunks == (4, 6)
    assert view[2:].chunks is None
    for key in (3, -1, ..., (slice(2, 9, 3),), (..., 4), (1, ..., 2), (slice(None), slice(-4, None)), (slice(5, 2),)):
        part = view[key]
        assert isinstance(part, View)
        assert part.shape == voxels[key].shape
        np.testing.assert_array_equal(np.asarray(part), voxels[key])
        for again in (slice(1, None), slice(None, None, 2)):
            np.testing.assert_array_equal(np.asarray(part[again]), voxels[key][again])
    assert view[3, 4, 5] == voxels[3, 4, 5]
    assert view[1:][2][np.int64(4), 5] == voxels[3, 4, 5]
    assert np.asarray(view[0], "f4").dtype == np.float32
    for key in (11, -12, [1, 2], None, np.zeros(3, bool), "z", (0, 0, 0, 0), (..., ...), slice(None, None, -1)):
        with pytest.raises(vf.SelectionError):
            view[key]
    with pytest.raises(ValueError, match="new array"):
        np.asarray(view, copy=False)


# --- the plugin


@pytest.fixture(scope="module")
def plugin():
    manager = PluginManager.instance()
    manifest = PluginManifest.from_file(MANIFEST)
    if "voxfetch" not in manager:
        manager.register(manifest)
    return manager


def test_the_manifest(plugin):
    manifest = PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    assert manifest.name == "voxfetch"
    command = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "npe2", "validate", str(MANIFEST)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert command.returncode == 0, command.stdout + command.stderr
    assert "Manifest for 'voxfetch' valid" in command.stdout + command.stderr


@pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="no sources next to the tests")
def test_the_manifest_is_found_by_its_entry_point():
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert groups["napari.manifest"] == {"voxfetch": "voxfetch:napari.yaml"}


def test_the_viewer_opens_it(plugin, tmp_path):
    viewer = ViewerModel()
    viewer.open(str(FIB25), plugin="voxfetch")
    assert [type(shown) for shown in viewer.layers] == [Image, Labels]
    go(viewer, z=5)
    np.testing.assert_array_equal(plane(viewer.layers[0], 0), zarr.open_array(FIB25 / "0", mode="r")[5])
    viewer.open([str(FIB25), str(DATA / "ome-zarr-0.4" / "fib25.zarr")], plugin="voxfetch", stack=True)
    assert len(viewer.layers) > 4
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(ValueError, match="refused the file"):
        ViewerModel().open(str(tmp_path / "a.zarr"), plugin="voxfetch")


def test_a_document_stands_for_its_folder(plugin, tmp_path):
    shutil.copytree(FIB25, tmp_path / "a.zarr")
    viewer = ViewerModel()
    viewer.open(str(tmp_path / "a.zarr" / "zarr.json"), plugin="voxfetch")
    assert len(viewer.layers) == 2


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/volume",
        "gs://bucket/a.zarr/",
        "https://host/a/b.zarr",
        "https://host/a/b.ozx",
        "precomputed://https://host/volume",
        "https://host/volume|neuroglancer-precomputed:",
        "https://host/volume/info",
        "https://host/d/datasource-properties.json",
        "bossdb://collection/experiment/channel",
    ],
)
def test_urls(plugin, url):
    assert callable(get_reader(url))
    assert "voxfetch" in {reader.plugin_name for reader in plugin.iter_compatible_readers([url])}


@pytest.mark.parametrize(
    "path", ["https://host/a.tif", "https://host/page", "s3://bucket/a.png", "none.zarr", "a.tif", ""]
)
def test_what_is_not_read_is_left_to_others(path):
    assert get_reader(path) is None
    assert get_reader([str(FIB25), path]) is None


def test_folders_are_known_by_their_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "picture.tif").write_bytes(b"II")
    assert get_reader(str(tmp_path / "a")) is None
    assert get_reader(str(tmp_path / "a" / "picture.tif")) is None
    assert get_reader([]) is None
    (tmp_path / "d" / "color" / "1").mkdir(parents=True)
    (tmp_path / "d" / "datasource-properties.json").write_text("{}")
    for known in (FIB25, FIB25 / "0", BDV, tmp_path / "d", tmp_path / "d" / "color" / "1"):
        assert get_reader(str(known)) is not None


def test_the_example_runs_without_a_window():
    command = [sys.executable, "-W", "ignore", str(ROOT / "examples" / "napari_view.py"), "--headless", str(FIB25)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "image  fib25: EM" in done.stdout
    assert "labels groundtruth" in done.stdout


def test_many_channels_in_one_layer_have_the_looks_of_none(tmp_path):
    group = zarr.open_group(tmp_path / "im", mode="w", zarr_format=3)
    voxels = np.random.default_rng(0).integers(0, 60000, (30, 16, 16), "u2")
    group.create_array("0", shape=voxels.shape, chunks=(30, 16, 16), dtype="u2")[...] = voxels
    scale = {"type": "scale", "scale": [1, 1, 1]}
    axes = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    levels = [{"path": "0", "coordinateTransformations": [scale]}]
    window = {"start": 0, "end": 10, "min": 0, "max": 65535}
    channels = [{"label": f"ch{i}", "color": "FF0000", "active": i > 0, "window": window} for i in range(30)]
    image = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}], "omero": {"channels": channels}}
    group.attrs["ome"] = image
    ((data, keywords, kind),) = layers(tmp_path / "im")
    assert (kind, data.shape, keywords["name"]) == ("image", (30, 16, 16), "im")
    assert keywords["contrast_limits"] == (voxels.min(), voxels.max())
    assert not {"visible", "colormap"} & set(keywords)


@pytest.mark.parametrize("value", [-3.4028235e38, 1e30, 0, 7])
def test_an_image_of_one_value_can_be_shown(tmp_path, value):
    zarr.create_array(tmp_path / "a", shape=(8, 8), chunks=(8, 8), dtype="f4")[...] = value
    (one,) = layers(tmp_path / "a")
    low, high = one[1]["contrast_limits"]
    assert low == np.float32(value) < high
    Layer.create(*one)
