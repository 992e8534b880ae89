"""OME-Zarr documents: what good ones mean, and which place in a bad one is named."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxfetch import LimitExceededError, MetadataError, UnsupportedError, VoxfetchError, ngff

DATA = Path(__file__).parent / "data"

ZYX = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]


def scale(*factors):
    return {"type": "scale", "scale": list(factors)}


def translation(*offsets):
    return {"type": "translation", "translation": list(offsets)}


def multiscale(**changes):
    """An image of two levels; a change to None takes the member out."""
    document = {
        "version": "0.4",
        "name": "em",
        "axes": copy.deepcopy(ZYX),
        "datasets": [
            {"path": "0", "coordinateTransformations": [scale(28, 4, 4)]},
            {"path": "1", "coordinateTransformations": [scale(28, 8, 8), translation(0, 2, 2)]},
        ],
    }
    document.update(changes)
    return {name: value for name, value in document.items() if value is not None}


def v4(**changes):
    return {"multiscales": [multiscale(**changes)]}


def v5(version="0.5", more=None, **changes):
    ome = {"version": version, "multiscales": [multiscale(version=None, **changes)], **(more or {})}
    return {"ome": {name: value for name, value in ome.items() if value is not None}}


@pytest.mark.parametrize("document", [v4(), v5()], ids=["0.4", "0.5"])
def test_image_of_both_layouts(document):
    image = ngff.parse_image(document)
    assert image.name == "em"
    assert image.version == ("0.5" if "ome" in document else "0.4")
    assert image.axes == tuple(ngff.Axis(name, "space", "nanometer") for name in "zyx")
    assert image.datasets == (
        ngff.Dataset("0", (28, 4, 4), (0, 0, 0)),
        ngff.Dataset("1", (28, 8, 8), (0, 2, 2)),
    )
    assert image.channels == ()
    assert not image.is_label


def test_multiscale_transformations_come_after_those_of_the_dataset():
    outer = [scale(2, 3, 5), translation(100, 200, 300)]
    image = ngff.parse_image(v4(coordinateTransformations=outer))
    assert image.datasets[0] == ngff.Dataset("0", (56, 12, 20), (100, 200, 300))
    assert image.datasets[1] == ngff.Dataset("1", (56, 24, 40), (100, 206, 310))


def test_transformations_in_the_illegal_order_mean_what_they_say():
    datasets = [
        {"path": "0", "coordinateTransformations": [translation(1, 1, 1), scale(10, 20, 30), {"type": "identity"}]}
    ]
    assert ngff.parse_image(v4(datasets=datasets)).datasets[0] == ngff.Dataset("0", (10, 20, 30), (10, 20, 30))


@pytest.mark.parametrize(
    ("document", "version", "axes"),
    [
        ({"multiscales": [{"datasets": [{"path": "0"}]}]}, "0.2", "tczyx"),
        ({"multiscales": [{"version": "0.1", "datasets": [{"path": "0"}]}]}, "0.1", "tczyx"),
        ({"multiscales": [{"version": "0.3", "axes": ["c", "y", "x"], "datasets": [{"path": "0"}]}]}, "0.3", "cyx"),
        ({"multiscales": [{"axes": ["y", "x"], "datasets": [{"path": "0"}]}]}, "0.3", "yx"),
        (v4(version=None), "0.4", "zyx"),
        (v4(version=0.4), "0.4", "zyx"),
        (v5(version=None), "0.5", "zyx"),
        (v5(version="0.5-dev1"), "0.5-dev1", "zyx"),
        (v5(version="0.5.2"), "0.5.2", "zyx"),
        (v4(axes=[{"name": "c"}, {"name": "x"}, {"name": "y"}]), "0.4", "cxy"),
    ],
)
def test_versions_and_axes(document, version, axes):
    image = ngff.parse_image(document)
    assert image.version == version
    assert "".join(axis.name for axis in image.axes) == axes
    assert all(len(dataset.scale) == len(axes) for dataset in image.datasets)
    if version[:3] in ("0.1", "0.2", "0.3"):
        kinds = {"t": "time", "c": "channel"}
        assert [axis.type for axis in image.axes] == [kinds.get(name, "space") for name in axes]


@pytest.mark.parametrize(
    ("path", "meant"),
    [("0", "0"), ("s0/", "s0"), ("volumes/raw/s0", "volumes/raw/s0"), ("with space", "with space"), ("a%20b", "a%20b")],
)
def test_paths(path, meant):
    assert ngff.checked_path(path, "here") == meant


def dataset(**changes):
    entry = {"path": "0", "coordinateTransformations": [scale(1, 1, 1)]}
    entry.update(changes)
    return v4(datasets=[entry])


def transformed(*transformations):
    return dataset(coordinateTransformations=list(transformations))


FIRST = "multiscales[0].datasets[0]"
BAD = [
    ({"multiscales": []}, MetadataError, "multiscales: is empty"),
    ({"multiscales": {}}, MetadataError, "multiscales: expected a list, found {}"),
    ({"multiscales": ["x"]}, MetadataError, "multiscales[0]: expected an object, found 'x'"),
    ({"ome": {"multiscales": None}}, MetadataError, "ome.multiscales: expected a list, found nothing"),
    ({"ome": {}}, MetadataError, "ome.multiscales: is missing"),
    (v4(datasets=None), MetadataError, "multiscales[0].datasets: is missing"),
    (v4(datasets=[]), MetadataError, "multiscales[0].datasets: is empty"),
    (v5(datasets=[7]), MetadataError, "ome.multiscales[0].datasets[0]: expected an object, found 7"),
    (v5(datasets=[{}]), MetadataError, "ome.multiscales[0].datasets[0].path: is missing"),
    (dataset(path=0), MetadataError, f"{FIRST}.path: expected a string, found 0"),
    (dataset(path=""), MetadataError, f"{FIRST}.path:"),
    (dataset(path="/"), MetadataError, f"{FIRST}.path:"),
    (dataset(path="."), MetadataError, f"{FIRST}.path:"),
    (dataset(path=".."), MetadataError, f"{FIRST}.path:"),
    (dataset(path="../other"), MetadataError, f"{FIRST}.path:"),
    (dataset(path="a/../../b"), MetadataError, f"{FIRST}.path:"),
    (dataset(path="a//b"), MetadataError, f"{FIRST}.path:"),
    (dataset(path="/etc"), MetadataError, f"{FIRST}.path:"),
    (dataset(path="C:/x"), MetadataError, f"{FIRST}.path:"),
    (dataset(path="a\\b"), MetadataError, f"{FIRST}.path:"),
    (dataset(path="a\0b"), MetadataError, f"{FIRST}.path:"),
    (dataset(path="https://host/x.zarr"), MetadataError, f"{FIRST}.path:"),
    (dataset(path="s3://bucket/x"), MetadataError, f"{FIRST}.path:"),
    (v4(axes=None), MetadataError, "multiscales[0].axes: is missing"),
    (v4(axes=[]), MetadataError, "multiscales[0].axes: is empty"),
    (v4(axes="zyx"), MetadataError, "multiscales[0].axes: expected a list, found 'zyx'"),
    (v4(axes=[1, 2, 3]), MetadataError, "multiscales[0].axes[0]: expected an object, found 1"),
    (v4(axes=[{"type": "space"}]), MetadataError, "multiscales[0].axes[0].name: is missing"),
    (v4(axes=[{"name": ""}]), MetadataError, "multiscales[0].axes[0].name: is empty"),
    (v4(axes=[{"name": "x", "unit": 3}]), MetadataError, "multiscales[0].axes[0].unit: expected a string"),
    (v4(axes=[*ZYX, ZYX[0]]), MetadataError, "multiscales[0].axes[3]: a second axis named 'z'"),
    (v4(axes=[{"name": str(i)} for i in range(33)]), LimitExceededError, "multiscales[0].axes: 33 entries"),
    (v4(datasets=[{"path": "0"}] * 10_001), LimitExceededError, "multiscales[0].datasets: 10001 entries"),
    (transformed(scale(1, 1)), MetadataError, f"{FIRST}.coordinateTransformations[0].scale: 2 numbers for 3 axes"),
    (
        transformed(scale(1, 0, 1)),
        MetadataError,
        f"{FIRST}.coordinateTransformations[0].scale: [1.0, 0.0, 1.0] has a zero",
    ),
    (transformed(scale(1, "2", 1)), MetadataError, f"{FIRST}.coordinateTransformations[0].scale[1]: expected a finite"),
    (
        transformed(scale(1, True, 1)),
        MetadataError,
        f"{FIRST}.coordinateTransformations[0].scale[1]: expected a finite",
    ),
    (transformed(scale(1, 1, float("nan"))), MetadataError, f"{FIRST}.coordinateTransformations[0].scale[2]: expected"),
    (transformed(scale(1, 1, 10**400)), MetadataError, f"{FIRST}.coordinateTransformations[0].scale[2]: expected"),
    (transformed({"type": "scale"}), MetadataError, f"{FIRST}.coordinateTransformations[0].scale: is missing"),
    (transformed({"scale": [1, 1, 1]}), MetadataError, f"{FIRST}.coordinateTransformations[0].type: is missing"),
    (
        transformed(scale(1e300, 1, 1), scale(1e300, 1, 1)),
        MetadataError,
        f"{FIRST}.coordinateTransformations: the product",
    ),
    (
        transformed(scale(1e-300, 1, 1), scale(1e-300, 1, 1)),
        MetadataError,
        f"{FIRST}.coordinateTransformations: the prod",
    ),
    (
        transformed({"type": "affine", "affine": []}),
        UnsupportedError,
        f"{FIRST}.coordinateTransformations[0].type: trans",
    ),
    (
        transformed({"type": "scale", "path": "s"}),
        UnsupportedError,
        f"{FIRST}.coordinateTransformations[0].path: a scale",
    ),
    (v4(coordinateTransformations=3), MetadataError, "multiscales[0].coordinateTransformations: expected a list"),
    (v4(version="0.6"), UnsupportedError, "multiscales[0].version: OME-Zarr '0.6' is not read"),
    (v4(version="0.10"), UnsupportedError, "multiscales[0].version: OME-Zarr '0.10' is not read"),
    (v4(version=[]), MetadataError, "multiscales[0].version: expected a string"),
    (v5(version="0.6"), UnsupportedError, "ome.version: OME-Zarr '0.6' is not read, only 0.1 to 0.5"),
    (v5(version="0.6rc1"), UnsupportedError, "ome.version: OME-Zarr '0.6rc1'"),
    (v5(version="0.9.dev3"), UnsupportedError, "ome.version: OME-Zarr '0.9.dev3'"),
    (v5(version="1.0"), UnsupportedError, "ome.version: OME-Zarr '1.0'"),
    (v5(version="9" * 1000), UnsupportedError, "ome.version: OME-Zarr '9999"),
    (
        v5(version=None, axes=None, coordinateSystems=[]),
        UnsupportedError,
        "ome.multiscales[0].coordinateSystems: coord",
    ),
]


@pytest.mark.parametrize(("document", "error", "message"), BAD, ids=range(len(BAD)))
def test_bad_documents(document, error, message):
    with pytest.raises(error) as caught:
        ngff.parse_image(document)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 300


def test_channels():
    channels = [
        {"label": "em", "color": "#ff00aa", "window": {"min": 0, "max": 255, "start": 20, "end": 230}},
        {"active": False, "color": "white", "window": {"start": 1.5, "end": 2}},
        {"window": {"min": 0, "max": 9}},
        {"label": 3, "window": {"min": "x"}},
        "nonsense",
    ]
    image = ngff.parse_image(v5(more={"omero": {"channels": channels}}))
    assert image.channels == (
        ngff.Channel("em", "FF00AA", ngff.Window(0, 255, 20, 230)),
        ngff.Channel(None, None, ngff.Window(1.5, 2, 1.5, 2), active=False),
        ngff.Channel(None, None, ngff.Window(0, 9, 0, 9)),
        ngff.Channel(),
        ngff.Channel(),
    )
    for malformed in ([], {"channels": 5}, None, "x"):
        assert ngff.parse_image(v5(more={"omero": malformed})).channels == ()


def test_labels_and_series():
    assert ngff.parse_label_names({"labels": ["cells", "nuclei/"]}) == ("cells", "nuclei")
    assert ngff.parse_label_names({"ome": {"labels": ["cells"]}}) == ("cells",)
    assert ngff.parse_label_names({}) == ()
    assert ngff.parse_image(v5(more={"image-label": {}})).is_label


def test_colours_of_labels_are_advice_of_which_what_is_malformed_is_left_out():
    entries = [
        {"label-value": 3, "rgba": [255, 0, 10, 128]},
        {"label-value": 1 << 60, "rgba": [0, 0, 0, 0]},
        {"label-value": 4, "rgba": [256, 0, 0, 255]},
        {"label-value": 5, "rgba": [1, 2, 3]},
        {"label-value": True, "rgba": [1, 2, 3, 4]},
        {"label-value": "6", "rgba": [1, 2, 3, 4]},
        {"rgba": [1, 2, 3, 4]},
        {"label-value": 7},
        "8",
        {"label-value": 3, "rgba": [9, 9, 9, 9]},
    ]
    found = ngff.parse_image(v5(more={"image-label": {"colors": entries}})).label_colors
    assert dict(found) == {3: (9, 9, 9, 9), 1 << 60: (0, 0, 0, 0)}
    for colors in ({}, None, "red", 7):
        assert ngff.parse_image(v5(more={"image-label": {"colors": colors}})).label_colors == ()
    with pytest.raises(MetadataError, match=r"^ome\.labels\[1\]: '\.\./x' is not"):
        ngff.parse_label_names({"ome": {"labels": ["a", "../x"]}})
    assert ngff.parse_series({"series": ["0", "1"]}) == ("0", "1")
    assert ngff.bioformats2raw_layout({"bioformats2raw.layout": 3})
    assert ngff.bioformats2raw_layout({"ome": {"bioformats2raw.layout": 3}})
    assert not ngff.bioformats2raw_layout({})
    with pytest.raises(UnsupportedError, match="layout 2 is not known"):
        ngff.bioformats2raw_layout({"bioformats2raw.layout": 2})


@pytest.mark.parametrize("attributes", [{}, {"ome": "yes"}, {"ome": {"labels": []}}, {"multiscale": []}])
def test_other_groups_are_no_images(attributes):
    assert not ngff.is_image(attributes)


FOREIGN = sorted(
    path
    for path in [
        *DATA.glob("**/*.ome.zarr/**/zarr.json"),
        *DATA.glob("**/ome_zarr/**/zarr.json"),
        *DATA.glob("**/.zattrs"),
    ]
    if '"multiscales"' in path.read_text()
)


@pytest.mark.parametrize("path", FOREIGN, ids=lambda path: str(path.relative_to(DATA)))
def test_foreign_documents(path):
    document = json.loads(path.read_text())
    attributes = document["attributes"] if path.name == "zarr.json" else document
    assert ngff.is_image(attributes)
    if "all_0.6" in path.parts:
        with pytest.raises(UnsupportedError, match=r"OME-Zarr '0\.6"):
            ngff.parse_image(attributes)
        return
    image = ngff.parse_image(attributes)
    assert len(image.datasets) >= 1
    assert all((path.parent / level.path).is_dir() for level in image.datasets)


def test_the_foreign_documents_are_there():
    assert len(FOREIGN) >= 5


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["..", "scale", "0.5"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


def places(value, path=()):
    """Paths to every value inside a document."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


WHOLE = v5(more={"omero": {"channels": [{"color": "FFFFFF", "window": {"start": 0, "end": 1}}]}, "labels": ["a"]})
PLACES = [path for path in places(WHOLE) if path]


@given(path=st.sampled_from(PLACES), value=JSON)
def test_one_value_replaced_by_anything_opens_or_raises_a_typed_error(path, value):
    document = copy.deepcopy(WHOLE)
    owner = document
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = value
    for parse in (ngff.parse_image, ngff.parse_label_names, ngff.parse_series, ngff.bioformats2raw_layout):
        try:
            parse(document)
        except VoxfetchError as error:
            assert len(str(error)) < 500
