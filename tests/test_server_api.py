"""The API of the server: the tree, nodes, cutouts against numpy, what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.error
import urllib.request

import numpy as np
import pytest
import zarr

import voxfetch as vf
from tests.volumes import asked, write_labels, write_volume
from voxfetch.server import Server
from voxfetch.server.api import ApiPlane
from voxfetch.server.described import without_secrets
from voxfetch.server.options import ServerOptions
from voxfetch.server.registry import Registry


def answered(sources, request, options=None):
    """What the plane answers."""

    async def answer():
        registry = Registry(sources)
        try:
            return await ApiPlane(registry, options or ServerOptions()).answer(request)
        finally:
            registry.close()

    return asyncio.run(answer())


def ask(sources, *segments, **more):
    """A JSON answer, parsed."""
    body = answered(sources, asked(*segments, **more))
    if body is None:
        return None
    assert body.content_type == "application/json"
    return json.loads(body.content) if body.status == 200 else (body.status, json.loads(body.content)["message"])


def cut(sources, boxes, options=None):
    """The boxes of `cutouts`, as the header says where they lie; or the status and message of a refusal."""
    given = boxes if isinstance(boxes, bytes) else json.dumps(boxes).encode()
    body = answered(sources, asked("cutouts", method="POST", body=given), options)
    if body.status != 200:
        return body.status, json.loads(body.content)["message"]
    found, content = [], bytes(body.content)
    for run in json.loads(body.headers["X-Voxfetch-Boxes"]):
        dtype = np.dtype(run["dtype"])
        assert run["dtype"][0] in "<|"
        count = run["count"] * int(np.prod(run["shape"]))
        found += list(np.frombuffer(content, dtype, count, run["offset"]).reshape(run["count"], *run["shape"]))
    assert sum(one.nbytes for one in found) == len(content)
    return found


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """An image with labels, a group with arrays and an image in it, one that is broken, one alone."""
    root = tmp_path_factory.mktemp("api")
    write_volume(root / "em.zarr", lambda z, y, x: z * 7 + y + x, levels=2)
    write_labels(root / "em.zarr", "cells", lambda z, y, x: z * 100000 + y * 300 + x)
    group = zarr.create_group(str(root / "many.zarr"), attributes={"note": "<img src=x onerror=alert(1)>"})
    group.create_array("plain", shape=(4, 5), chunks=(2, 2), dtype=">i2")[...] = np.arange(20).reshape(4, 5)
    write_volume(root / "many.zarr" / "deep" / "image", lambda z, y, x: x, shape=(2, 3, 4))
    (root / "many.zarr" / "deep" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    (root / "many.zarr" / "broken").mkdir()
    (root / "many.zarr" / "broken" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "array"}')
    zarr.create_array(str(root / "line.zarr"), shape=(7,), chunks=(7,), dtype="f8")[...] = np.linspace(0, 1, 7)
    return {"em": root / "em.zarr", "many": root / "many.zarr", "line": root / "line.zarr", "gone": root / "gone"}


# --- tree and nodes


def test_the_tree(sources):
    em, many, line, gone = ask(sources, "tree", depth="3")["sources"]
    assert (em["name"], em["kind"], em["shape"], em["axes"], em["dtype"]) == (
        "em", "image", [32, 96, 128], ["z", "y", "x"], "uint8",
    )  # fmt: skip
    assert em["urls"]["z3"] == "http://127.0.0.1:1/t/TOKEN/z3/em"
    assert [(one["path"], one["is_label"]) for one in em["children"]] == [("labels/cells", True)]
    kinds = {one["name"]: one["kind"] for one in many["children"]}
    assert kinds == {"broken": "error", "deep": "group", "plain": "array"}
    (deep,) = (one for one in many["children"] if one["name"] == "deep")
    assert [one["path"] for one in deep["children"]] == ["deep/image"]
    assert line["kind"] == "array"
    assert gone == {"name": "gone", "source": "gone", "path": "", "kind": "error", "error": "NotFoundError"}


def test_the_tree_bit_by_bit(sources):
    em, many, line, _ = ask(sources, "tree", depth="0")["sources"]
    assert em["more"]
    assert many["more"]
    assert "children" not in many
    assert line["children"] == []
    (deep,) = ask_tree(sources, "many", "deep")
    assert [one["name"] for one in deep["children"]] == ["image"]
    assert ask(sources, "tree", depth="99") == (400, "depth: a number of 0..8 is needed, not '99'")


def ask_tree(sources, source, path, depth="1"):
    body = answered(sources, query_of("tree", source=source, path=path, depth=depth))
    return json.loads(body.content)["sources"] if body.status == 200 else json.loads(body.content)["message"]


def query_of(*segments, **query):
    """A request whose query has a `source`."""
    request = asked(*segments)
    return type(request)("GET", request.segments, "native", "", query, prefix=request.prefix, origin=request.origin)


def test_the_tree_of_what_is_not_registered(sources):
    assert ask_tree(sources, "other", "").startswith("source:")
    for path in ("..", "a/../b", "a//b", "\0"):
        assert ask_tree(sources, "many", path).startswith("path:"), path
    (entry,) = ask_tree(sources, "many", "deep/nothing")
    assert (entry["kind"], entry["error"]) == ("error", "NotFoundError")


def test_children_that_are_too_many(tmp_path, monkeypatch):
    group = zarr.create_group(str(tmp_path / "g"))
    for i in range(5):
        group.create_array(f"a{i}", shape=(2, 2), chunks=(2, 2), dtype="u1")
    monkeypatch.setattr("voxfetch.server.api._MAX_CHILDREN", 3)
    (entry,) = ask({"g": tmp_path / "g"}, "tree")["sources"]
    assert [one["name"] for one in entry["children"]] == ["a0", "a1", "a2"]
    assert entry["left_out"] == 2
    monkeypatch.setattr("voxfetch.server.api._MAX_NODES", 1)
    (entry,) = ask({"g": tmp_path / "g"}, "tree")["sources"]
    assert (len(entry["children"]), entry["left_out"]) == (1, 4)


def test_a_node(sources):
    node = ask(sources, "node", source="em")
    assert (node["kind"], node["format"], node["labels"]) == ("image", "OME-Zarr 0.5", ["cells"])
    assert [level["shape"] for level in node["levels"]] == [[32, 96, 128], [32, 48, 64]]
    assert node["levels"][1]["scale"] == [40.0, 20.0, 20.0]
    assert node["levels"][1]["translation"] == [0.0, 5.0, 5.0]
    assert node["levels"][0]["units"] == ["nanometer"] * 3
    picture = node["picture"]
    assert picture["space"] == {"x": 2, "y": 1, "z": 0}
    assert [(level["factor"], level["offset"]) for level in picture["levels"]] == [
        ([1, 1, 1], [0, 0, 0]),
        ([1, 2, 2], [0, 0, 0]),
    ]
    (channel,) = picture["channels"]
    assert channel["window"][0] < channel["window"][1] <= 255
    label = ask(sources, "node", "labels", "cells", source="em")
    assert label["picture"]["is_label"]
    assert label["picture"]["channels"] == []


def test_nodes_of_other_kinds(sources):
    group = ask(sources, "node", source="many")
    assert (group["kind"], group["keys"]) == ("group", ["broken", "deep", "plain"])
    assert group["attrs"] == {"note": "<img src=x onerror=alert(1)>"}
    array = ask(sources, "node", "plain", source="many")
    assert (array["kind"], array["shape"]) == ("array", [4, 5])
    line = ask(sources, "node", source="line")
    assert line["picture"] is None
    assert "no picture" in line["reason"]
    assert ask(sources, "node", "nothing", source="many") is None
    assert ask(sources, "node", "7", source="em") is None
    assert ask(sources, "node") is None
    with pytest.raises(vf.VoxfetchError):
        ask(sources, "node", "broken", source="many")


def test_the_snippet_runs(sources):
    for source, segments, shape in (("em", (), (32, 64, 64)), ("many", ("plain",), (1, 1)), ("line", (), (1,))):
        node = ask(sources, "node", *segments, source=source)
        names = {}
        exec(node["python"], names)
        assert names["voxels"].shape == shape


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pass@host/a.zarr?sig=abc#x", "https://host/a.zarr"),
        ("https://host?sig=abc", "https://host"),
        ("https://host/a.zip?sig=a/b@c|zip:|zarr3:", "https://host/a.zip|zip:|zarr3:"),
        ("s3://bucket/a b/c.zarr", "s3://bucket/a b/c.zarr"),
        ("file:///tmp/a?b#c@d", "file:///tmp/a?b#c@d"),
    ],
)
def test_snippets_have_no_secrets(url, shown):
    assert without_secrets(url) == shown


def test_attributes_are_bounded(tmp_path):
    group = zarr.create_group(str(tmp_path / "g"), attributes={"a": 1, "b": "x" * 100_000, "n": 2})
    assert group is not None
    node = ask({"g": tmp_path / "g"}, "node", source="g")
    assert node["attrs"]["a"] == 1
    assert len(json.dumps(node)) < 70_000


def test_levels_without_scales_lie_in_each_other(tmp_path):
    write_volume(tmp_path / "a.zarr", lambda z, y, x: x, levels=2, unit=None)
    document = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())
    for dataset in document["attributes"]["ome"]["multiscales"][0]["datasets"]:
        dataset["coordinateTransformations"] = [{"type": "scale", "scale": [1, 1, 1]}]
    (tmp_path / "a.zarr" / "zarr.json").write_text(json.dumps(document))
    picture = ask({"a": tmp_path / "a.zarr"}, "node", source="a")["picture"]
    assert picture["levels"][1] == {"shape": [32, 48, 64], "factor": [1, 2, 2], "offset": [0, 0, 0]}


# --- cutouts


def voxels_of(z, y, x):
    return np.asarray(z * 7 + y + x).astype(np.uint8)


def test_boxes_of_several_arrays_in_one_body(sources, monkeypatch):
    calls = []
    read = vf.read_all_async

    async def counted(pairs):
        pairs = list(pairs)
        calls.append(len(pairs))
        return await read(pairs)

    monkeypatch.setattr(vf, "read_all_async", counted)
    boxes = [
        {"source": "em", "level": 0, "start": [1, 2, 3], "shape": [4, 5, 6]},
        {"source": "em", "level": 0, "start": [9, 40, 70], "shape": [4, 5, 6]},
        {"source": "em", "level": 1, "start": [1, 2, 3], "shape": [4, 5, 6]},
        {"source": "em", "level": 1, "start": [0, 0, 0], "shape": [1, 1, 1]},  # the next one is not aligned
        {"source": "em", "path": "labels/cells", "start": [5, 6, 7], "shape": [1, 1, 3]},
        {"source": "many", "path": "plain", "start": [1, 1], "shape": [2, 3]},
        {"source": "line", "start": [5], "shape": [2]},
    ]
    got = cut(sources, boxes)
    assert calls == [6], "one plan, boxes of one shape together"
    z, y, x = np.ogrid[1:5, 2:7, 3:9]
    np.testing.assert_array_equal(got[0], voxels_of(z, y, x))
    z, y, x = np.ogrid[9:13, 40:45, 70:76]
    np.testing.assert_array_equal(got[1], voxels_of(z, y, x))
    z, y, x = np.ogrid[1:5, 4:14:2, 6:18:2]
    np.testing.assert_array_equal(got[2], voxels_of(z, y, x))
    assert got[4].dtype == np.dtype("<u4")
    np.testing.assert_array_equal(got[4], [[[5 * 100000 + 6 * 300 + x for x in (7, 8, 9)]]])
    np.testing.assert_array_equal(got[5], np.arange(20).reshape(4, 5)[1:3, 1:4])
    np.testing.assert_array_equal(got[6], np.linspace(0, 1, 7)[5:])


def test_boxes_that_reach_outside(sources):
    (got, far) = cut(
        sources,
        [
            {"source": "em", "start": [-1, 94, -2], "shape": [2, 4, 4]},
            {"source": "em", "start": [10**9, 0, 0], "shape": [2, 4, 4]},
        ],
    )
    expected = np.zeros((2, 4, 4), np.uint8)
    expected[1:, :2, 2:] = voxels_of(*np.ogrid[0:1, 94:96, 0:2])
    np.testing.assert_array_equal(got, expected)
    assert not far.any()


def test_many_random_boxes(sources):
    generator = np.random.default_rng(0)
    starts = generator.integers(-8, 90, (500, 3)).tolist()
    got = cut(sources, [{"source": "em", "start": start, "shape": [8, 8, 8]} for start in starts])
    whole = np.zeros((128, 128, 160), np.uint8)
    whole[8:40, 8:104, 8:136] = voxels_of(*np.ogrid[:32, :96, :128])
    for start, box in zip(starts, got, strict=True):
        z, y, x = (place + 8 for place in start)
        np.testing.assert_array_equal(box, whole[z : z + 8, y : y + 8, x : x + 8])


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ({"source": "other"}, "source and path"),
        ({"source": 5}, "source and path"),
        ({"path": ["x"]}, "source and path"),
        ({"path": "../em"}, "not a path"),
        ({"path": "nothing"}, "no such array"),
        ({"level": 2}, "level is one of 0..1"),
        ({"level": -1}, "level is one of 0..1"),
        ({"level": True}, "level is one of 0..1"),
        ({"level": "0"}, "level is one of 0..1"),
        ({"start": [0, 0]}, "start has 3 whole numbers"),
        ({"start": [0, 0, 0.5]}, "start has 3 whole numbers"),
        ({"start": [0, 0, 1 << 70]}, "start has 3 whole numbers"),
        ({"shape": [1, 1, 0]}, "shape has 3 whole numbers"),
        ({"shape": [1, 1, True]}, "shape has 3 whole numbers"),
        ({"shape": None}, "shape has 3 whole numbers"),
        ({"colour": 1}, "no such field"),
    ],
)
def test_boxes_that_make_no_sense(sources, box, message):
    good = {"source": "em", "start": [0, 0, 0], "shape": [1, 1, 1]}
    status, said = cut(sources, [good, {**good, **box}])
    assert status == 400
    assert said.startswith("box 1: ")
    assert message in said


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"nonsense", b"\xff", b"[" * 100_000, b'{"a": 1}'])
def test_bodies_that_make_no_sense(sources, body):
    status, said = cut(sources, body)
    assert status == 400
    assert said.startswith("body:")


def test_limits_of_cutouts(sources):
    box = {"source": "em", "start": [0, 0, 0], "shape": [10, 10, 10]}
    assert len(cut(sources, [box] * 3, ServerOptions(max_voxels=3000))) == 3
    for options in (ServerOptions(max_voxels=2999), ServerOptions(max_response_bytes=2999)):
        with pytest.raises(vf.LimitExceededError):
            cut(sources, [box] * 3, options)
    with pytest.raises(vf.LimitExceededError):
        cut(sources, [{**box, "shape": [1 << 59, 1 << 59, 1 << 59]}])
    with pytest.raises(vf.LimitExceededError, match="5,000 boxes"):
        cut(sources, [box] * 5000)
    with pytest.raises(vf.LimitExceededError, match="header"):
        cut(sources, [{**box, "shape": [1, 1, i + 1]} for i in range(1000)])


# --- what else


def test_states_of_neuroglancer(sources):
    body = answered(sources, query_of("state", "neuroglancer", source="em"))
    state = json.loads(body.content)
    assert [layer["type"] for layer in state["layers"]] == ["image", "segmentation"]
    body = answered(sources, query_of("state", "neuroglancer", source="em,many/deep/image", redirect="1"))
    assert body.status == 302
    assert body.headers["Location"].startswith("http://127.0.0.1:1/t/TOKEN/v/ng/#!%7B")
    body = answered(sources, query_of("state", "neuroglancer", source="many/deep%2Fimage"))
    assert body.status == 200
    for source in ("", "other", "em/../x", "em/nothing", ",".join(["em"] * 17)):
        body = answered(sources, query_of("state", "neuroglancer", source=source))
        assert body.status == 400
        assert json.loads(body.content)["message"].startswith("source:")


def test_what_is_not_there(sources):
    assert answered(sources, asked("other")) is None
    assert answered(sources, asked()) is None
    assert answered(sources, asked("cutouts")) is None
    assert answered(sources, asked("tree", method="POST")) is None


def test_on_the_wire(sources):
    """Statuses, and what pages of any origin may read."""
    options = ServerOptions(max_voxels=1000)
    with running(sources, options) as url:
        for path, status in (
            ("api/tree", 200),
            ("api/node/em", 200),
            ("api/node/em/nothing", 404),
            ("api/node/em/0", 200),
            ("api/node/em/00", 404),
            ("api/node/em/%D9%A0", 404),
            ("api/node/other", 404),
            ("api/tree?depth=x", 400),
            ("img/em/slice.png?box=0:10,0:10", 200),
            ("img/em/slice.png?box=0:90,0:90&level=0", 413),
            ("img/em/slice.png?axes=zz", 400),
            ("img/em/slice.jpg", 404),
        ):
            got, headers, content = fetched(url + path)
            assert got == status, path
            assert headers["Access-Control-Allow-Origin"] == "*"
            if status == 400:
                assert json.loads(content)["message"]
        box = {"source": "em", "start": [0, 0, 0], "shape": [2, 3, 4]}
        got, headers, content = fetched(f"{url}api/cutouts", json.dumps([box]).encode())
        assert (got, len(content)) == (200, 24)
        (run,) = json.loads(headers["X-Voxfetch-Boxes"])
        assert run == {"offset": 0, "dtype": "|u1", "shape": [2, 3, 4], "count": 1}
        got, _, _ = fetched(f"{url}api/cutouts", json.dumps([{**box, "shape": [11, 10, 10]}]).encode())
        assert got == 413


@contextlib.contextmanager
def running(sources, options):
    server = Server({"em": sources["em"]}, options).start_in_thread()
    try:
        yield server.url
    finally:
        server.stop()


def fetched(url, body=None):
    """(status, headers, content) of an answer, whatever it says."""
    try:
        with urllib.request.urlopen(url, body, timeout=10) as reply:
            return reply.status, reply.headers, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()
