"""Image, Level, Group and Collection, on the real volume and on what foreign writers leave."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr

import voxfetch as vf

DATA = Path(__file__).parent / "data"
FIB25 = DATA / "fib25" / "fib25.ome.zarr"
FIB25_V4 = DATA / "ome-zarr-0.4" / "fib25.zarr"
NEUROGLANCER = DATA / "neuroglancer" / "ome_zarr"


@pytest.fixture(scope="module")
def image():
    return vf.open_image(FIB25)


def write_image(folder, *, version="0.5", axes="zyx", scales=((1, 1, 1),), shape=(8, 8, 8), units="nanometer", **more):
    """An image of zarr-python's, level i filled with i + 1; `more` goes into the OME attributes. Returns the folder."""
    zarr_format = 2 if version in ("0.2", "0.3", "0.4") else 3
    group = zarr.create_group(folder, zarr_format=zarr_format)
    types = {"t": "time", "c": "channel"}
    document = {
        "axes": [{"name": n, "type": types.get(n, "space"), **({"unit": units} if n in "xyz" else {})} for n in axes],
        "datasets": [],
    }
    for i, scale in enumerate(scales):
        extents = tuple(max(1, round(n * first / s)) for n, s, first in zip(shape, scale, scales[0], strict=True))
        keys = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if zarr_format == 2 else {}
        group.create_array(str(i), shape=extents, chunks=(4,) * len(extents), dtype="u1", **keys)[...] = i + 1
        entry = {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": list(scale)}]}
        document["datasets"].append(entry)
    if zarr_format == 2:
        group.attrs.update({"multiscales": [{"version": version, **document}], **more})
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [document], **more}
    return folder


def consolidate(folder):
    """Consolidated metadata by zarr-python, which warns that other readers may not know it for v3."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(folder)


# --- the real volume


def test_the_volume(image):
    assert isinstance(image, vf.Image)
    assert image.axes == ("z", "y", "x")
    assert image.name == "fib25"
    assert image.format == "OME-Zarr 0.5"
    assert [level.shape for level in image.levels] == [(250,) * 3, (125,) * 3, (63,) * 3]
    assert image.level(1).scale == (20, 20, 20)
    assert image.level(1).translation == (5, 5, 5)
    assert image.level(1).unit == ("nanometer",) * 3
    assert image.channels[0].label == "EM"
    assert image.channels[0].window.start == 60
    assert image.attrs["ome"]["version"] == "0.5"
    assert image.level(0).axes == ("z", "y", "x")


@pytest.mark.parametrize("kind", ["image", "labels/groundtruth"])
def test_every_level_equals_the_oracle(image, kind):
    oracle = json.loads((DATA / "fib25" / "oracle.json").read_text())[kind]
    found = image if kind == "image" else image.labels["groundtruth"]
    assert len(found.levels) == len(oracle)
    for level, expected in zip(found.levels, oracle, strict=True):
        assert str(level.dtype) == expected["dtype"]
        assert hashlib.sha256(level[...].tobytes()).hexdigest() == expected["sha256"]
        for box in expected["boxes"]:
            data = level.read_box(box["start"], box["shape"])
            assert hashlib.sha256(data.tobytes()).hexdigest() == box["sha256"]


def test_labels(image):
    assert list(image.labels) == ["groundtruth"]
    assert len(image.labels) == 1
    assert "groundtruth" in image.labels
    assert "other" not in image.labels
    label = image.labels["groundtruth"]
    assert isinstance(label, vf.Image)
    assert label.level(0).dtype == np.uint64
    assert list(label.labels) == []
    with pytest.raises(vf.NotFoundError, match="there are: groundtruth"):
        image.labels["other"]


def test_the_same_cube_as_0_4():
    old = vf.open(FIB25_V4)
    assert old.format == "OME-Zarr 0.4"
    assert old.level(0).format == "zarr2"
    assert [level.scale[0] for level in old.levels] == [10, 20, 40]
    for level, reference in zip(old.levels, zarr.open_group(FIB25_V4, mode="r").arrays(), strict=True):
        np.testing.assert_array_equal(level[...], reference[1][...])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_neuroglancer_samples(version):
    image = vf.open(NEUROGLANCER / f"simple_{version}")
    assert [level.scale for level in image.levels] == [(4, 30), (8, 60), (16, 120)]
    assert [level.translation for level in image.levels] == [(0, 0), (2, 15), (6, 45)]
    for i, level in enumerate(image.levels):
        reference = zarr.open_array(NEUROGLANCER / f"simple_{version}" / f"scale{i}" / "image", mode="r")
        np.testing.assert_array_equal(level[...], reference[...])


def test_0_6_is_refused_by_name():
    with pytest.raises(vf.UnsupportedError, match=r"ome\.version: OME-Zarr '0\.6") as caught:
        vf.open(NEUROGLANCER / "all_0.6" / "basic" / "scale.zarr")
    assert caught.value.key.endswith("scale.zarr/zarr.json")


# --- choosing a level


def test_level_by_index(image):
    assert image.level(0) is image.levels[0]
    assert image.level(-1) is image.levels[2]
    with pytest.raises(vf.SelectionError, match="no level 3, there are 3"):
        image.level(3)
    for arguments in ({}, {"index": 0, "mag": "1"}, {"index": 0, "unit": "nm"}, {"mag": "1", "resolution": 3}):
        with pytest.raises(TypeError):
            image.level(**arguments)


@pytest.fixture(scope="module")
def anisotropic(tmp_path_factory):
    """Like a serial-section volume: z is downsampled later."""
    scales = ((1, 30, 4, 4), (1, 30, 8, 8), (1, 60, 16, 16), (1, 121, 32, 32))
    folder = tmp_path_factory.mktemp("anisotropic") / "a"
    return vf.open(write_image(folder, axes="czyx", scales=scales, shape=(1, 16, 64, 64)))


@pytest.mark.parametrize(
    ("mag", "index"),
    [("1", 0), ("1-1-1", 0), (1, 0), ("2-2-1", 1), ("4-4-2", 2), ("8-8-4", 3)],
)
def test_level_by_mag(anisotropic, mag, index):
    assert anisotropic.level(mag=mag) is anisotropic.levels[index]


@pytest.mark.parametrize("mag", ["2", "1-2-2", "16-16-8", "x", "2-2", "0", "-1", ""])
def test_no_such_mag(anisotropic, mag):
    with pytest.raises(vf.SelectionError):
        anisotropic.level(mag=mag)


def test_mag_names_are_listed(anisotropic):
    with pytest.raises(vf.SelectionError, match="no level with mag 3, there are 1-1-1, 2-2-1, 4-4-2, 8-8-4"):
        anisotropic.level(mag="3")


def test_mag_goes_by_axis_names_not_by_their_order(tmp_path):
    image = vf.open(write_image(tmp_path / "a", axes="xyz", scales=((4, 4, 30), (8, 8, 30))))
    assert image.level(mag="2-2-1") is image.levels[1]


@pytest.mark.parametrize(
    ("resolution", "unit", "index"),
    [
        ((30, 8, 8), "nm", 1),
        ((30, 8, 8), None, 1),
        ((30, 8, 8), "nanometer", 1),
        ((0.03, 0.008, 0.008), "um", 1),
        ((0.03, 0.008, 0.008), "\u00b5m", 1),
        ((3e-8, 8e-9, 8e-9), "meter", 1),
        ((300, 80, 80), "angstrom", 1),
        ((30, 8, 7.9), "nm", 0),
        ((59, 16, 16), "nm", 1),
        ((60, 16, 16), "nm", 2),
        ((1000, 1000, 1000), "nm", 3),
        ((1, 60, 16, 16), "nm", 2),
        (30, None, 1),
    ],
)
def test_level_by_resolution(anisotropic, resolution, unit, index):
    assert anisotropic.level(resolution=resolution, unit=unit) is anisotropic.levels[index]


def test_no_such_resolution(anisotropic, tmp_path):
    with pytest.raises(vf.SelectionError, match="no level is as fine as 1 x 1 x 1, the finest is 30 x 4 x 4"):
        anisotropic.level(resolution=(1, 1, 1), unit="nm")
    for resolution in ((1, 1), (0, 1, 1), (-4, 4, 4), (float("nan"), 1, 1)):
        with pytest.raises(vf.SelectionError):
            anisotropic.level(resolution=resolution)
    with pytest.raises(vf.SelectionError, match="is in nanometer, not known in parsec"):
        anisotropic.level(resolution=(30, 8, 8), unit="parsec")
    unitless = vf.open(write_image(tmp_path / "u", units=None))
    assert unitless.level(resolution=1) is unitless.levels[0]
    with pytest.raises(vf.SelectionError, match="no unit that the file names"):
        unitless.level(resolution=1, unit="nm")


# --- an image is not an array


def test_an_image_has_no_voxels_of_its_own(image):
    for key in (0, ..., slice(0, 1), "0"):
        with pytest.raises(vf.SelectionError, match=r"image\.level\(0\)"):
            image[key]
    with pytest.raises(TypeError):
        iter(image)
    with pytest.raises(TypeError):
        np.asarray(image)
    with pytest.raises(TypeError):
        len(image)


def test_reordered_view(image):
    view = image.with_axes("xyz")
    assert view.axes == ("x", "y", "z")
    assert view.level(mag="2") == view.levels[1]
    np.testing.assert_array_equal(view.level(2)[...], image.level(2)[...].transpose(2, 1, 0))
    assert view.labels["groundtruth"].axes == ("x", "y", "z")
    assert vf.open(FIB25, axes="xyz").axes == ("x", "y", "z")


def test_reordered_scales(anisotropic):
    level = anisotropic.with_axes(("x", "y", "z", "c")).level(1)
    assert level.scale == (8, 8, 30, 1)
    assert level.unit == ("nanometer", "nanometer", "nanometer", None)
    assert level.shape == anisotropic.level(1).shape[::-1]


@pytest.mark.parametrize(
    "open_it", [lambda: vf.open(FIB25), lambda: vf.open(FIB25, axes="xyz"), lambda: vf.open(FIB25 / "labels")]
)
def test_pickles_small(open_it):
    thing = open_it()
    data = pickle.dumps(thing)
    assert len(data) < 10_000
    again = pickle.loads(data)
    assert again == thing
    if isinstance(thing, vf.Image):
        np.testing.assert_array_equal(again.level(2)[...], thing.level(2)[...])
        assert list(again.labels) == ["groundtruth"]
    else:
        assert isinstance(again["groundtruth"], vf.Image)


def test_pickles_small_with_much_consolidated_metadata(tmp_path):
    group = zarr.create_group(tmp_path / "g")
    for i in range(200):
        group.create_array(f"a{i}", shape=(4,), dtype="u1")
    consolidate(tmp_path / "g")
    opened = vf.open(tmp_path / "g")
    assert len(opened) == 200
    assert len(pickle.dumps(opened)) < 2_000
    assert len(pickle.loads(pickle.dumps(opened))) == 200


def test_pickles_with_an_engine_of_its_own():
    with vf.Engine() as engine:
        image = vf.open(FIB25, engine=engine)
        assert image.level(0).engine is engine
        again = pickle.loads(pickle.dumps(image))
        assert again.level(0).engine is not engine
        group = vf.open(FIB25 / "labels", engine=engine)
        assert group["groundtruth"].level(0).engine is engine
        pickle.loads(pickle.dumps(group))


def test_representations(image):
    assert "fib25" in repr(image)
    assert "(250, 250, 250)" in repr(image)
    assert "OME-Zarr 0.5" in image._repr_html_()
    assert "Level" in repr(image.level(0))
    assert "groundtruth" in repr(image.labels)
    group = vf.open(FIB25 / "labels")
    assert "Group" in repr(group)
    assert "groundtruth" in group._repr_html_()


def test_html_is_escaped(tmp_path):
    folder = write_image(tmp_path / "<b>", axes=["<i>", "y", "x"], units="<u>")
    html = vf.open(folder)._repr_html_()
    assert "<b>" not in html
    assert "<i>" not in html
    assert "<u>" not in html


# --- documents that lie


def test_rank_that_does_not_fit(tmp_path):
    folder = write_image(tmp_path / "a")
    path = folder / "zarr.json"
    document = json.loads(path.read_text())
    multiscale = document["attributes"]["ome"]["multiscales"][0]
    multiscale["axes"].pop()
    multiscale["datasets"][0]["coordinateTransformations"][0]["scale"].pop()
    path.write_text(json.dumps(document))
    with pytest.raises(vf.MetadataError, match="the image has the axes z, y"):
        vf.open(folder)


def test_levels_that_are_missing_or_groups(tmp_path):
    folder = write_image(tmp_path / "a", scales=((1, 1, 1), (2, 2, 2)))
    shutil.rmtree(folder / "1")
    with pytest.raises(vf.NotFoundError, match="the other levels") as caught:
        vf.open(folder)
    assert "a/1" in caught.value.key
    zarr.create_group(folder / "1")
    with pytest.raises(vf.MetadataError, match="but a group and not an array"):
        vf.open(folder)
    assert vf.open(folder / "0").shape == (8, 8, 8)


def test_a_path_out_of_the_group_is_refused(tmp_path):
    write_image(tmp_path / "secret")
    folder = write_image(tmp_path / "a")
    path = folder / "zarr.json"
    path.write_text(path.read_text().replace('"path": "0"', '"path": "../secret/0"'))
    with pytest.raises(vf.MetadataError, match=r"datasets\[0\]\.path") as caught:
        vf.open(folder)
    assert caught.value.key.endswith("a/zarr.json")


def test_separator_that_the_writer_forgot(tmp_path):
    folder = write_image(tmp_path / "a", version="0.4", scales=((1, 1, 1), (2, 2, 2)))
    for i in range(2):
        path = folder / str(i) / ".zarray"
        document = json.loads(path.read_text())
        assert document.pop("dimension_separator") == "/"
        path.write_text(json.dumps(document))
    image = vf.open(folder)
    # Taken as ".", as Zarr v2 has it, all would be fill value.
    assert (image.level(0)[...] == 1).all()
    assert (image.level(1)[...] == 2).all()
    assert pickle.loads(pickle.dumps(image)).level(0)[0, 0, 0] == 1


# --- groups


@pytest.fixture(params=["v3", "v3 consolidated", "v2", "v2 consolidated"])
def hierarchy(tmp_path, request):
    zarr_format = 2 if "v2" in request.param else 3
    folder = tmp_path / "root.zarr"
    root = zarr.create_group(folder, zarr_format=zarr_format)
    root.attrs["answer"] = 42
    root.create_array("a", shape=(4, 6), chunks=(2, 3), dtype="<i2")[...] = np.arange(24).reshape(4, 6)
    inner = root.create_group("inner")
    inner.create_group("deep").create_array("b", shape=(3,), dtype="f4")[...] = 7
    if "consolidated" in request.param:
        consolidate(folder)
    return folder


def test_group(hierarchy):
    root = vf.open(hierarchy)
    assert isinstance(root, vf.Group)
    assert not isinstance(root, vf.Collection)
    assert root.attrs["answer"] == 42
    assert tuple(root.keys()) == ("a", "inner")
    assert list(root) == ["a", "inner"]
    assert len(root) == 2
    assert "a" in root
    assert isinstance(root["a"], vf.Array)
    np.testing.assert_array_equal(root["a"][...], np.arange(24).reshape(4, 6))
    assert (root["inner/deep/b"][...] == 7).all()
    assert (root["inner"]["deep"]["b"][...] == 7).all()
    with pytest.raises(vf.NotFoundError):
        root["nothing"]
    with pytest.raises(vf.SelectionError, match="indexed by names"):
        root[0]
    for name in ("../x", "/etc", "a/../../x"):
        with pytest.raises(vf.VoxfetchError):
            root[name]


def test_tree(hierarchy):
    root = vf.open(hierarchy)
    assert root.tree().splitlines() == [
        "root.zarr (group)",
        "|-- a (4, 6) int16",
        "`-- inner (group)",
        "    `-- deep (group)",
        "        `-- b (3,) float32",
    ]
    assert root.tree(depth=1).splitlines()[-1] == "`-- inner (group)"
    assert root.tree(depth=0) == "root.zarr (group)"


def test_tree_shows_images_labels_and_what_is_broken(tmp_path):
    root = zarr.create_group(tmp_path / "r")
    shutil.copytree(FIB25, tmp_path / "r" / "image")
    root.create_array("z\x1b[31m", shape=(2,), dtype="u1")
    (tmp_path / "r" / "broken").mkdir()
    (tmp_path / "r" / "broken" / "zarr.json").write_text("{")
    lines = vf.open(tmp_path / "r").tree().splitlines()
    assert any(line.startswith("|-- broken ! ") for line in lines)
    assert "|-- image (image, 3 levels) (250, 250, 250) uint8" in lines
    assert "|   `-- labels/groundtruth (image, 3 levels) (250, 250, 250) uint64" in lines
    assert "\x1b" not in "".join(lines)


def test_tree_of_a_folder_that_contains_itself(tmp_path):
    zarr.create_group(tmp_path / "r")
    (tmp_path / "r" / "loop").symlink_to(tmp_path / "r", target_is_directory=True)
    assert len(vf.open(tmp_path / "r").tree().splitlines()) < 100


# --- bioformats2raw


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("listed", [True, False])
def test_collection(tmp_path, version, listed):
    folder = tmp_path / "c"
    zarr_format = 2 if version == "0.4" else 3
    root = zarr.create_group(folder, zarr_format=zarr_format)
    layout = {"bioformats2raw.layout": 3}
    root.attrs.update(layout if zarr_format == 2 else {"ome": {"version": version, **layout}})
    for i in range(11):
        write_image(folder / str(i), version=version)
    if listed:
        series = {"series": ["1", "0"]}
        ome = root.create_group("OME")
        ome.attrs.update(series if zarr_format == 2 else {"ome": {"version": version, **series}})
    opened = vf.open(folder)
    assert isinstance(opened, vf.Collection)
    assert list(opened.keys()) == (["1", "0"] if listed else [str(i) for i in range(11)])
    assert isinstance(opened["1"], vf.Image)
    assert all(isinstance(opened[name], vf.Image) for name in opened)
    assert "(collection)" in opened.tree()
