"""N5 documents: what lies at a path, which images the conventions describe, what wins, and what is asked for."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

import voxfetch as vf
from tests.servers import objects_in
from tests.servers.faulty import FaultyServer, status
from voxfetch.documents import RemoteDocuments
from voxfetch.formats import n5
from voxfetch.hierarchy import child
from voxfetch.ngff import Axis, Dataset
from voxfetch.node import Settings
from voxfetch.store.http import HttpStore
from voxfetch.store.local import LocalStore

DATA = Path(__file__).parent / "data" / "n5"
SETTINGS = Settings()


class Watched(LocalStore):
    """A folder that logs what is asked for, one list of keys a round trip; it may be one that nobody can list."""

    __slots__ = ("lists", "log")

    def __init__(self, root, *, lists=True):
        super().__init__(str(root))
        self.lists = lists
        self.log = []

    def get_many(self, keys):
        self.log.append([key.removesuffix("attributes.json").strip("/") for key in keys])
        return super().get_many(keys)

    def list(self, prefix=""):
        self.log.append(f"list {prefix}")
        if not self.lists:
            raise vf.UnsupportedError("no listings")
        return super().list(prefix)


def dataset(extent=(40, 30, 20), **more):
    return {
        "dimensions": list(extent),
        "blockSize": [8] * len(extent),
        "dataType": "uint8",
        "compression": {"type": "raw"},
        **more,
    }


def transform(scale, translate=(0, 0, 0), **more):
    """As COSEM writes it: z first."""
    return {"axes": ["z", "y", "x"], "units": ["nm"] * 3, "scale": list(scale), "translate": list(translate), **more}


def halves(factors):
    return {f"s{k}": dataset(downsamplingFactors=factor) for k, factor in enumerate(factors)}


@pytest.fixture
def hierarchy(tmp_path):
    """`hierarchy({path: attributes})` -> a store of a folder with these documents."""

    def make(documents, **options):
        for path, members in documents.items():
            folder = tmp_path / path
            folder.mkdir(parents=True, exist_ok=True)
            if members is not None:
                text = members if isinstance(members, bytes) else json.dumps(members).encode()
                (folder / "attributes.json").write_bytes(text)
        return Watched(tmp_path, **options)

    return make


def find(store, path=""):
    return n5.find(store, path, SETTINGS)


def image(store, path=""):
    node = find(store, path)
    assert node.kind == "group"
    assert node.multiscale is not None
    return node.multiscale


def datasets(multiscale):
    return {one.path: (one.scale, one.translation) for one in multiscale.datasets}


# ------------------------------------------------------------------------------------------------ arrays and groups


def test_an_array_has_the_attributes_of_its_user(hierarchy):
    document = b"/* by hand */\n// twice\n" + json.dumps(dataset(axes=["x", "y", "z"], answer=42)).encode()
    store = hierarchy({"a/b": document, "": {"n5": "2.0.0"}})
    node = find(store, "a/b")
    assert (node.format, node.kind, node.path, node.settings) == ("n5", "array", "a/b", SETTINGS)
    assert node.document == document
    assert node.attributes == {"axes": ["x", "y", "z"], "answer": 42}
    assert node.document_name == "attributes.json"
    assert node.multiscale is None
    assert store.log == [["a/b", "a/b/s0", "a", ""]]


def test_a_group_is_what_is_no_array(hierarchy):
    store = hierarchy({"": {"n5": "4.0.0", "answer": 42}, "a": dataset(), "b": None, "b/c": dataset()})
    node = find(store)
    assert (node.kind, node.multiscale, node.consolidated) == ("group", None, None)
    assert node.attributes == {"n5": "4.0.0", "answer": 42}
    assert store.log == [["", "s0"]]
    # Folders are groups without a document; folders of an array are not, and nothing is nothing.
    below = find(store, "b")
    assert (below.kind, below.attributes, below.document) == ("group", {}, b"{}")
    (Path(store.root) / "a/0/0").mkdir(parents=True)
    (Path(store.root) / "a/0/0/0").write_bytes(b"")
    assert find(store, "a/0") is None
    assert find(store, "nothing") is None


def test_no_document_at_all(hierarchy, tmp_path):
    (tmp_path / "zarr.json").write_text("{}")
    assert find(hierarchy({})) is None


def test_members_of_a_group(hierarchy, tmp_path):
    store = hierarchy({"": {}, "b": dataset(), "a": None, "a/x": {}, "empty": None, ".hidden": {}, "__pycache__": {}})
    (tmp_path / "readme.txt").write_text("hello")
    assert n5.child_names(store, "") == ["a", "b"]
    assert n5.child_names(store, "a") == ["x"]
    with pytest.raises(vf.UnsupportedError):
        n5.child_names(hierarchy({}, lists=False), "")


@pytest.mark.parametrize(
    ("document", "part"),
    [
        (b"/* no end", "not a JSON document"),
        (b"<html>", "not a JSON document"),
        (b"[1]", "a JSON object was expected"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "nested more than"),
    ],
)
def test_broken_documents_are_named(hierarchy, document, part):
    with pytest.raises((vf.MetadataError, vf.LimitExceededError)) as caught:
        find(hierarchy({"a": document}), "a")
    assert part in str(caught.value)
    assert str(caught.value.key).endswith("a/attributes.json")


def test_comments_cost_no_memory(hierarchy):
    store = hierarchy({"": b" //\n" * (1 << 18) + b"{}"})
    tracemalloc.start()
    try:
        assert find(store).attributes == {}
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------------------------------------------------ COSEM


def cosem(*transforms, **more):
    return {
        "multiscales": [{"datasets": [{"path": f"s{k}", "transform": t} for k, t in enumerate(transforms)], **more}]
    }


def test_cosem_lists_axes_in_the_order_of_numpy(hierarchy):
    first, second = transform([8, 4, 2], [80, 40, 20]), transform([16, 8, 4], [84, 42, 21])
    store = hierarchy({"": cosem(first, second, name="em"), "s0": dataset(), "s1": dataset()})
    multiscale = image(store)
    assert multiscale.name == "em"
    assert multiscale.axes == tuple(Axis(name, "space", "nm") for name in "xyz")
    assert multiscale.datasets == (Dataset("s0", (2, 4, 8), (20, 40, 80)), Dataset("s1", (4, 8, 16), (21, 42, 84)))
    assert store.log == [["", "s0"], ["s1"]]


@pytest.mark.parametrize(
    ("more", "scale", "axes"),
    [
        ({}, (3, 2, 1), "xyz"),
        ({"ordering": "C"}, (3, 2, 1), "xyz"),
        ({"ordering": None}, (3, 2, 1), "xyz"),
        ({"ordering": "F"}, (1, 2, 3), "zyx"),
        ({"order": "F"}, (1, 2, 3), "zyx"),
        ({"order": "C", "ordering": "C"}, (3, 2, 1), "xyz"),
    ],
)
def test_cosem_orders(hierarchy, more, scale, axes):
    multiscale = image(hierarchy({"": cosem(transform([1, 2, 3], [0, 0, 5], **more)), "s0": dataset()}))
    assert multiscale.datasets[0].scale == scale
    assert multiscale.datasets[0].translation == ((5, 0, 0) if axes == "xyz" else (0, 0, 5))
    assert "".join(axis.name for axis in multiscale.axes) == axes


def test_cosem_in_each_level(hierarchy):
    levels = {f"s{k}": dataset(transform=transform([2**k, 2**k, 3 * 2**k], [k, 0, 0])) for k in range(3)}
    store = hierarchy({"": {"n5": "2.0.0"}, **levels})
    multiscale = image(store)
    assert datasets(multiscale) == {
        "s0": ((3, 1, 1), (0, 0, 0)),
        "s1": ((6, 2, 2), (0, 0, 1)),
        "s2": ((12, 4, 4), (0, 0, 2)),
    }
    # A list of paths whose transforms stand in the levels, one of them deeper.
    paths = {"multiscales": [{"datasets": [{"path": "fine/s0"}, {"path": "s1"}]}]}
    multiscale = image(hierarchy({"": paths, "fine/s0": levels["s0"]}))
    assert datasets(multiscale) == {"fine/s0": ((3, 1, 1), (0, 0, 0)), "s1": ((6, 2, 2), (0, 0, 1))}


def test_cosem_without_units_and_translation(hierarchy):
    bare = {"axes": ["c", "y", "x"], "scale": [1, 4, 5]}
    multiscale = image(hierarchy({"": cosem(bare), "s0": dataset()}))
    assert multiscale.axes == (Axis("x", "space"), Axis("y", "space"), Axis("c", "channel"))
    assert multiscale.datasets[0] == Dataset("s0", (5, 4, 1), (0, 0, 0))


# -------------------------------------------------------------------------------------- N5-viewer, BigDataViewer, ...


@pytest.mark.parametrize("where", ["group", "levels"])
@pytest.mark.parametrize("name", ["scales", "downsamplingFactors"])
def test_factors_are_in_the_group_or_in_the_levels(hierarchy, where, name):
    factors = [[1, 1, 1], [2, 2, 1], [4, 4, 3]]
    group = {"pixelResolution": {"unit": "um", "dimensions": [0.5, 0.5, 2]}, "name": "some data"}
    levels = halves(factors) if where == "levels" else {f"s{k}": dataset() for k in range(3)}
    store = hierarchy({"": group | ({name: factors} if where == "group" else {}), **levels})
    multiscale = image(store)
    assert multiscale.name == "some data"
    assert multiscale.axes == tuple(Axis(axis, "space", "um") for axis in "xyz")
    # The centre of a mean of two voxels lies half a voxel after that of the first.
    assert datasets(multiscale) == {
        "s0": ((0.5, 0.5, 2), (0, 0, 0)),
        "s1": ((1, 1, 2), (0.25, 0.25, 0)),
        "s2": ((2, 2, 6), (0.75, 0.75, 2)),
    }
    assert store.log == [["", "s0"], *([] if where == "group" else ["list "]), ["s1", "s2"]]


def test_levels_are_asked_for_where_nobody_can_list(hierarchy):
    store = hierarchy(halves([[1, 1, 1], [2, 2, 2], [4, 4, 4]]), lists=False)
    assert list(datasets(image(store))) == ["s0", "s1", "s2"]
    assert store.log == [["", "s0"], "list ", [f"s{k}" for k in range(1, 16)]]


def test_levels_come_in_the_order_of_their_numbers(hierarchy):
    levels = {f"s{k}": dataset(downsamplingFactors=[2**k] * 3) for k in range(12)}
    store = hierarchy({**levels, "s": dataset(), "s01": dataset(), "s12": {"no": "dataset"}, "t3": dataset()})
    assert list(datasets(image(store))) == [f"s{k}" for k in range(12)]


def test_resolution_and_units(hierarchy):
    group = {"axes": ["x", "y", "t"], "units": ["nm", "nm", ""], "resolution": [10, 20, 1]}
    multiscale = image(hierarchy({"": group, **halves([[1, 1, 1], [2, 2, 1]])}))
    assert multiscale.axes == (Axis("x", "space", "nm"), Axis("y", "space", "nm"), Axis("t", "time", None))
    assert multiscale.datasets[1] == Dataset("s1", (20, 40, 1), (5, 10, 0))


def test_voxels_in_the_finest_level(hierarchy):
    first = dataset(pixelResolution=[4, 4, 40])
    multiscale = image(hierarchy({"s0": first, "s1": dataset(downsamplingFactors=[2, 2, 1], pixelResolution=[9] * 3)}))
    assert datasets(multiscale) == {"s0": ((4, 4, 40), (0, 0, 0)), "s1": ((8, 8, 40), (2, 2, 0))}
    assert [axis.unit for axis in multiscale.axes] == [None] * 3


def test_voxels_of_the_axes_in_space(hierarchy):
    first = dataset((9, 8, 7, 6), pixelResolution={"unit": "nm", "dimensions": [4, 4, 40]})
    multiscale = image(hierarchy({"s0": first}))
    assert multiscale.datasets == (Dataset("s0", (4, 4, 40, 1), (0, 0, 0, 0)),)
    assert [(axis.name, axis.type, axis.unit) for axis in multiscale.axes] == [
        *((name, "space", "nm") for name in "xyz"),
        ("t", "time", None),
    ]


def test_more_axes_than_have_names(hierarchy):
    multiscale = image(hierarchy({"s0": dataset([3] * 7, downsamplingFactors=[1] * 7)}))
    assert [axis.name for axis in multiscale.axes] == ["x", "y", "z", "t", "c", "d6", "d7"]


def test_channels_of_n5_viewer_take_what_the_root_says(hierarchy):
    root = {"n5": "2.0.0", "scales": [[1, 1, 1], [2, 2, 2]], "pixelResolution": {"unit": "nm", "dimensions": [4, 5, 6]}}
    levels = {f"c{c}/s{k}": dataset() for c in range(2) for k in range(2)}
    store = hierarchy({"": root, "c1": {"pixelResolution": {"unit": "um", "dimensions": [1, 1, 1]}}, **levels})
    assert find(store).multiscale is None
    assert datasets(image(store, "c0"))["s1"] == ((8, 10, 12), (2, 2.5, 3))
    assert datasets(image(store, "c1"))["s1"] == ((2, 2, 2), (0.5, 0.5, 0.5))
    assert image(store, "c1").axes[0].unit == "um"


def test_bigdataviewer(hierarchy):
    levels = {f"setup0/timepoint3/s{k}": dataset() for k in range(2)}
    store = hierarchy({"": {"n5": "2.0.0"}, "setup0": {"downsamplingFactors": [[1, 1, 1], [2, 2, 1]]}, **levels})
    assert find(store, "setup0").multiscale is None
    multiscale = image(store, "setup0/timepoint3")
    assert datasets(multiscale) == {"s0": ((1, 1, 1), (0, 0, 0)), "s1": ((2, 2, 1), (0.5, 0.5, 0))}
    assert multiscale.name is None


@pytest.mark.parametrize(("kind", "is_label"), [("raw", False), ("label", True)])
def test_paintera(hierarchy, kind, is_label):
    data = {"multiScale": True, "resolution": [4, 4, 40], "offset": [100, 200, 400]}
    levels = {f"vol/data/{name}": members for name, members in halves([[1, 1, 1], [2, 2, 1]]).items()}
    store = hierarchy(
        {"": {"n5": "2.1.0"}, "vol": {"painteraData": {"type": kind}, "maxId": 7}, "vol/data": data, **levels}
    )
    expected = {"s0": ((4, 4, 40), (100, 200, 400)), "s1": ((8, 8, 40), (102, 202, 400))}
    multiscale = image(store, "vol")
    assert datasets(multiscale) == {f"data/{name}": place for name, place in expected.items()}
    assert multiscale.is_label is is_label
    assert child(find(store, "vol"), "data/s1").path == "vol/data/s1"
    assert datasets(image(store, "vol/data")) == expected
    assert image(store, "vol/data").is_label is is_label
    assert find(hierarchy({"other": {"painteraData": {"type": kind}}}), "other").multiscale is None


def test_groups_that_nothing_calls_an_image(hierarchy):
    assert find(hierarchy({"a/s0": dataset(), "a/s1": dataset(), "a": {}}), "a").multiscale is None
    assert find(hierarchy({"b/s0": dataset(), "b": {}}), "b").multiscale is None
    assert find(hierarchy({"c/s0": {}, "c": {"scales": [[1]], "multiScale": True}}), "c").multiscale is None
    assert image(hierarchy({"d/s0": dataset(), "d": {"multiScale": True}}), "d")


# ---------------------------------------------------------------------------------------------------- contradictions


def nm(*sizes):
    return {"unit": "nm", "dimensions": list(sizes)}


WINNERS = {
    "multiscales over all": (
        {
            "": cosem(transform([1, 1, 1]), transform([3, 3, 3]))
            | {"scales": [[1] * 3, [2] * 3], "pixelResolution": nm(9, 9, 9)},
            "s0": dataset(transform=transform([5, 5, 5])),
            "s1": dataset(transform=transform([7, 7, 7]), downsamplingFactors=[8] * 3),
        },
        {"s0": 1, "s1": 3},
        "nm",
    ),
    "factors of the group over those of levels": (
        {"": {"scales": [[1] * 3, [2] * 3]}, "s0": dataset(), "s1": dataset(downsamplingFactors=[3] * 3)},
        {"s0": 1, "s1": 2},
        None,
    ),
    "factors of the group over transforms of levels": (
        {
            "": {"downsamplingFactors": [[1] * 3, [2] * 3], "pixelResolution": {"unit": "um", "dimensions": [9, 9, 9]}},
            "s0": dataset(transform=transform([5, 5, 5])),
            "s1": dataset(transform=transform([7, 7, 7])),
        },
        {"s0": 5, "s1": 10},
        "nm",
    ),
    "scales over downsamplingFactors": (
        {
            "": {"scales": [[1] * 3, [2] * 3], "downsamplingFactors": [[1] * 3, [3] * 3]},
            "s0": dataset(),
            "s1": dataset(),
        },
        {"s0": 1, "s1": 2},
        None,
    ),
    "the level's transform over its factors": (
        {
            "s0": dataset(transform=transform([2, 2, 2])),
            "s1": dataset(transform=transform([7, 7, 7]), downsamplingFactors=[2] * 3),
            "s2": dataset(downsamplingFactors=[4] * 3),
        },
        {"s0": 2, "s1": 7, "s2": 8},
        "nm",
    ),
    "pixelResolution over resolution": (
        {
            "": {"scales": [[1] * 3], "pixelResolution": nm(4, 4, 4), "resolution": [5] * 3, "units": ["um"] * 3},
            "s0": dataset(),
        },
        {"s0": 4},
        "nm",
    ),
    "pixelResolution without a unit takes units": (
        {"": {"scales": [[1] * 3], "pixelResolution": [4, 4, 4], "units": ["um"] * 3}, "s0": dataset()},
        {"s0": 4},
        "um",
    ),
    "the group over the finest level": (
        {"": {"resolution": [5] * 3}, "s0": dataset(pixelResolution=nm(4, 4, 4), downsamplingFactors=[1] * 3)},
        {"s0": 5},
        None,
    ),
}


@pytest.mark.parametrize("what", WINNERS)
def test_what_wins(hierarchy, what):
    documents, scales, unit = WINNERS[what]
    multiscale = image(hierarchy(documents))
    assert {one.path: one.scale for one in multiscale.datasets} == {
        path: (scale,) * 3 for path, scale in scales.items()
    }
    assert {axis.unit for axis in multiscale.axes} == {unit}


def test_the_nearest_group_wins(hierarchy):
    store = hierarchy(
        {
            "": {
                "n5": "2.0.0",
                "scales": [[1] * 3, [9] * 3],
                "resolution": [9] * 3,
                "units": ["m"] * 3,
                "axes": ["a", "b", "c"],
            },
            "one": {"downsamplingFactors": [[1] * 3, [2] * 3], "axes": ["d", "e", "f"]},
            "one/two": {"resolution": [4] * 3},
            **{f"one/two/s{k}": dataset(axes=["g", "h", "i"]) for k in range(2)},
        }
    )
    multiscale = image(store, "one/two")
    assert datasets(multiscale) == {"s0": ((4,) * 3, (0,) * 3), "s1": ((8,) * 3, (2,) * 3)}
    assert multiscale.axes == tuple(Axis(name, None, "m") for name in "def")


# ---------------------------------------------------------------------------------------------------------- refusals

M, U, L = vf.MetadataError, vf.UnsupportedError, vf.LimitExceededError


def listed(**group):
    return {"": {"scales": [[1] * 3, [2] * 3], **group}, "s0": dataset(), "s1": dataset()}


def transformed(**changes):
    members = {name: value for name, value in (transform([1, 1, 1]) | changes).items() if value is not ...}
    return {"": cosem(members), "s0": dataset()}


FIRST = "multiscales[0].datasets[0]"
BAD = {
    "label multisets": ({"": {"isLabelMultiset": True}, "s0": dataset()}, U, "attributes.json: isLabelMultiset"),
    "a level of label multisets": (
        {"": {"multiScale": True}, "s0": dataset(isLabelMultiset=True)},
        U,
        "s0/attributes.json: isLabelMultiset",
    ),
    "OME-Zarr": (
        {"": {"multiscales": [{"datasets": [{"path": "s0", "coordinateTransformations": []}]}]}},
        U,
        f"{FIRST}.coordinateTransformations: OME-Zarr",
    ),
    "no list": ({"": {"multiscales": {}}}, M, "attributes.json: multiscales: expected a list, found {}"),
    "empty": ({"": {"multiscales": []}}, M, "multiscales: is empty"),
    "no datasets": ({"": {"multiscales": [{}]}}, M, "multiscales[0].datasets: expected a list, found nothing"),
    "no dataset": ({"": {"multiscales": [{"datasets": []}]}}, M, "multiscales[0].datasets: is empty"),
    "no transform": ({"": {"multiscales": [{"datasets": [{"path": "s0"}]}]}}, M, f"{FIRST}.transform: is missing"),
    "out of the group": ({"": {"multiscales": [{"datasets": [{"path": "../a"}]}]}}, M, f"{FIRST}.path"),
    "twice": (
        {"": {"multiscales": [{"datasets": [{"path": "s0"}, {"path": "s0/"}]}]}},
        M,
        "datasets[1].path: a second level at 's0'",
    ),
    "too many": ({"": {"multiscales": [{"datasets": [{"path": "s0"}] * 257}]}}, L, "257 entries"),
    "scale of two": (transformed(scale=[1, 1]), M, f"{FIRST}.transform.scale: 2 numbers for 3 axes"),
    "scale of nothing": (transformed(scale=...), M, f"{FIRST}.transform.scale: expected a list"),
    "scale of zero": (transformed(scale=[1, 0, 1]), M, f"{FIRST}.transform.scale: [1.0, 0.0, 1.0] has a zero"),
    "translate as text": (transformed(translate=["a", 0, 0]), M, f"{FIRST}.transform.translate[0]: expected a finite"),
    "not a number": (transformed(translate=[0, float("nan"), 0]), M, f"{FIRST}.transform.translate[1]"),
    "beyond numbers": (transformed(translate=[0, 10**400, 0]), M, f"{FIRST}.transform.translate[1]"),
    "no axes": (transformed(axes=...), M, f"{FIRST}.transform.axes: expected a list"),
    "axes of one name": (transformed(axes=["x", "x", "y"]), M, f"{FIRST}.transform.axes: ['x', 'x', 'y']"),
    "33 axes": (transformed(axes=[str(i) for i in range(33)]), L, f"{FIRST}.transform.axes: 33 entries"),
    "units of two": (transformed(units=["nm"] * 2), M, f"{FIRST}.transform.units: 2 units for 3 axes"),
    "unit as a number": (transformed(units=[1, 1, 1]), M, f"{FIRST}.transform.units[0]: expected a string"),
    "no order": (transformed(ordering="Z"), M, f"{FIRST}.transform.ordering"),
    "two orders": (transformed(ordering="F", order="C"), M, f"{FIRST}.transform.ordering"),
    "levels of other axes": (
        {"": cosem(transform([1] * 3), transform([2] * 3, axes=["a", "b", "c"])), "s0": dataset()},
        M,
        "s1: its transform has other axes or units",
    ),
    "levels of other units": (
        {"": cosem(transform([1] * 3), transform([2] * 3, units=["um"] * 3)), "s0": dataset()},
        M,
        "s1: its transform has other axes or units",
    ),
    "a transform of other rank": (
        {"s0": dataset(), "s1": dataset(transform={"axes": ["y", "x"], "scale": [1, 1]})},
        M,
        "s1/attributes.json: transform: 2 axes, s0 has 3",
    ),
    "factors of two": (listed(scales=[[1] * 3, [2, 2]]), M, "attributes.json: scales[1]: 2 numbers for 3 axes"),
    "factors below zero": (listed(scales=[[1] * 3, [2, -2, 2]]), M, "scales[1]: [2.0, -2.0, 2.0] is not all positive"),
    "factors as text": (listed(scales=[[1] * 3, "2"]), M, "scales[1]: expected a list, found '2'"),
    "factors of nothing": (listed(scales=[[1] * 3, None]), M, "scales[1]: expected a list, found nothing"),
    "factors without end": (
        listed(scales=[[1] * 3, [1e200] * 3], resolution=[1e200] * 3),
        M,
        "scales[1]: times the size of a voxel",
    ),
    "300 levels": (listed(scales=[[1] * 3] * 300), L, "scales: 300 entries"),
    "a level without factors": (
        {"s0": dataset(), "s1": dataset(downsamplingFactors=[2] * 3), "s2": dataset()},
        M,
        "s2/attributes.json: downsamplingFactors: is missing",
    ),
    "multiScale without factors": (
        {"": {"multiScale": True}, "s0": dataset(), "s1": dataset()},
        M,
        "s1/attributes.json: downsamplingFactors: is missing",
    ),
    "voxels of four axes": (
        listed(pixelResolution=nm(1, 1, 1, 1)),
        M,
        "pixelResolution.dimensions: 4 numbers for 3 axes",
    ),
    "voxels of no axes": (listed(pixelResolution=[]), M, "pixelResolution: 0 numbers for 3 axes"),
    "voxels of no size": (listed(pixelResolution=nm(1, 0, 1)), M, "attributes.json: a voxel of [1.0, 0.0, 1.0]"),
    "unit of voxels": (listed(pixelResolution={"unit": 1, "dimensions": [1] * 3}), M, "pixelResolution.unit"),
    "resolution of two": (listed(resolution=[1, 1]), M, "resolution: 2 numbers for 3 axes"),
    "offset of two": (listed(resolution=[1] * 3, offset=[1, 1]), M, "offset: 2 numbers for 3 axes"),
    "names of two": (listed(axes=["x", "y"]), M, "axes: 2 names for 3 axes"),
    "names as objects": (listed(axes=[{"name": "x"}] * 3), M, "axes[0]: expected a string"),
    "painteraData as text": (listed(painteraData="x"), M, "painteraData: expected an object"),
}


@pytest.mark.parametrize("what", BAD)
def test_refused(hierarchy, what):
    documents, kind, part = BAD[what]
    store = hierarchy({f"g/{path}".rstrip("/"): members for path, members in documents.items()})
    with pytest.raises(vf.VoxfetchError) as caught:
        find(store, "g")
    error = caught.value
    assert type(error) is kind, error
    assert part in str(error)
    assert len(str(error)) < 500
    assert str(error.key).endswith("/g")


# -------------------------------------------------------------------------------------------------- children, stores


def test_levels_that_were_looked_at_are_not_asked_for_again(hierarchy):
    levels = halves([[1] * 3, [2] * 3])
    levels["s1"] |= {"name": "half", "big": float("nan")}
    store = hierarchy({"": {}, **levels})
    node = find(store)
    asked = len(store.log)
    first, second = child(node, "s0"), child(node, "s1")
    assert len(store.log) == asked
    assert (second.format, second.kind, second.path) == ("n5", "array", "s1")
    assert json.loads(second.document) == dataset()
    assert second.attributes.keys() == {"downsamplingFactors", "name", "big"}
    assert json.loads(first.document) == dataset()


def test_a_refused_document(hierarchy, monkeypatch):
    store = hierarchy({"": {}, "s0": dataset(downsamplingFactors=[1] * 3)})
    refusal = vf.PermissionDeniedError("no")
    real = LocalStore.get_many
    monkeypatch.setattr(
        LocalStore,
        "get_many",
        lambda self, keys: [refusal if key == "attributes.json" else real(self, [key])[0] for key in keys],
    )
    # What a store refuses to show may not exist.
    assert image(store).datasets == (Dataset("s0", (1,) * 3, (0,) * 3),)
    assert find(Watched(Path(store.root) / "nothing")) is None


def test_over_http(tmp_path, hierarchy):
    hierarchy(
        {
            "": {"n5": "2.0.0"},
            "em": {"resolution": [4] * 3},
            **{f"em/{k}": v for k, v in halves([[1] * 3, [2] * 3]).items()},
        }
    )
    with FaultyServer(objects_in(tmp_path)) as server, vf.Engine() as engine:
        store = RemoteDocuments(HttpStore(server.url), engine)
        multiscale = image(store, "em")
        assert datasets(multiscale) == {"s0": ((4,) * 3, (0,) * 3), "s1": ((8,) * 3, (2,) * 3)}
        assert find(store, "nothing") is None
        assert server.count(method="HEAD") == 0
        server.rule = lambda request: status(403)
        assert find(store, "em") is None


# ------------------------------------------------------------------------------------------------------ foreign files


@pytest.mark.parametrize("name", ["modern", "deprecated"])
def test_images_of_neuroglancer(name):
    store = LocalStore(str(DATA / "neuroglancer-c0f79b1" / f"n5_viewer_multiscale_{name}"))
    multiscale = image(store)
    assert multiscale.axes == (Axis("x", "space", "nm"), Axis("y", "space", "s"))
    assert datasets(multiscale) == {
        "s0": ((10, 20), (0, 0)),
        "s1": ((20, 40), (5, 10)),
        "s2": ((40, 80), (15, 30)),
    }


@pytest.mark.parametrize("name", ["image", "segmentation"])
def test_images_of_bigdataviewer(name):
    root = DATA / "mobie-c199c3f" / f"{name}.n5"
    store = LocalStore(str(root))
    assert find(store).attributes == {"n5": "2.0.0"}
    assert n5.child_names(store, "") == ["setup0"]
    assert n5.child_names(store, "setup0") == ["timepoint0"]
    assert find(store, "setup0").multiscale is None
    expected = {"s0": ((5, 5, 5), (0, 0, 0)), "s1": ((10, 10, 10), (2.5, 2.5, 2.5))}
    assert datasets(image(store, "setup0/timepoint0")) == expected
    assert datasets(image(LocalStore(str(root / "setup0" / "timepoint0")))) == expected
    assert find(store, "setup0/timepoint0/s1").kind == "array"


def test_arrays_of_z5py():
    store = LocalStore(str(DATA / "z5py-185c4f9"))
    assert n5.child_names(store, "") == ["gzip", "raw"]
    assert find(store, "raw").kind == "array"
