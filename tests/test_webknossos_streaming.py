"""Datasets behind the Zarr streaming of WEBKNOSSOS: a token in the URL goes along with every key and is never shown."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import zarr

import voxfetch as vf
from tests.servers.webknossos import WebknossosServer

FIB25 = "tests/data/fib25/fib25.ome.zarr"
VERSIONS = ["zarr", "zarr3_experimental"]


@pytest.fixture(scope="module")
def layers(request):
    """EM with a hole, and labels; (c, x, y, z)."""
    em = zarr.open_array(request.config.rootpath / FIB25 / "0")[:40, :70, :100].T[None]
    em[:, 32:64, :32] = 0
    labels = zarr.open_array(request.config.rootpath / FIB25 / "labels/groundtruth/0")[:40, :70, :100].T[None]
    return {
        "color": {"1": em, "2-2-1": np.ascontiguousarray(em[:, ::2, ::2])},
        "segmentation": {"1": labels.astype("uint32")},
    }


@pytest.fixture
def server(layers):
    with WebknossosServer(layers) as server:
        yield server


@pytest.fixture(params=VERSIONS)
def root(request, server):
    """`root(path)` -> URL with the token, of both versions of Zarr."""
    return lambda path="", dataset="id", token="hunter2": (
        f"{server.url}/data/{request.param}/{dataset}" + (f"/{path}" if path else "") + f"?token={token}"
    )


@pytest.mark.parametrize("dataset", ["id", "org/dataset"])
def test_a_dataset(root, layers, dataset):
    found = vf.open(root(dataset=dataset))
    assert sorted(found.keys()) == ["color", "segmentation"]
    image = found["color"]
    assert (image.name, image.axes) == ("color", ("c", "x", "y", "z"))
    assert image.level(mag="2-2-1").scale == (1, 22.48, 22.48, 25)
    for level, expected in zip(image.levels, layers["color"].values(), strict=True):
        np.testing.assert_array_equal(level[...], expected)
    np.testing.assert_array_equal(found["segmentation"].levels[0][...], layers["segmentation"]["1"])


def test_a_layer_and_a_mag(root, layers):
    image = vf.open(root("color"))
    assert isinstance(image, vf.Image)
    assert image.levels[0].unit[1:] == ("nanometer",) * 3
    np.testing.assert_array_equal(image.levels[1][0, 3:40, 5], layers["color"]["2-2-1"][0, 3:40, 5])
    for array in (
        vf.open(root("segmentation/1")),
        vf.open_array(root("segmentation"), "1"),
        vf.open_array(root(), "segmentation/1"),
    ):
        assert (array.chunks, array.dtype) == ((1, 32, 32, 32), np.uint32)
        np.testing.assert_array_equal(array[:, 10:90, 7], layers["segmentation"]["1"][:, 10:90, 7])


@pytest.mark.parametrize("version", VERSIONS)
def test_an_annotation_by_its_link(server, layers, version):
    found = vf.open(f"{server.url}/data/annotations/{version}/secret")
    assert sorted(found.keys()) == ["color", "segmentation"]
    np.testing.assert_array_equal(found["segmentation"].levels[0][0, 50], layers["segmentation"]["1"][0, 50])


def test_every_request_has_the_token_behind_its_key(server, root):
    vf.open(root())["color"].levels[0][0, :40, :40, :40]
    chunks = [request for request in server.requests if request.path.endswith("/color/1/0.0.1.0")]
    assert len(chunks) == 1
    assert all(request.query == {"token": "hunter2"} for request in server.requests)
    assert "hunter2" not in "".join(request.path for request in server.requests)


def test_chunks_that_are_not_there_are_zero(server, root, layers):
    array = vf.open(root("color/1"))
    np.testing.assert_array_equal(array[0, 30:70, :40], layers["color"]["1"][0, 30:70, :40])
    strict = array.with_options(vf.ReadOptions(on_missing="raise"))
    with pytest.raises(vf.NotFoundError) as caught:
        strict[0, 40, 5, 5]
    assert_hidden(caught.value)


def assert_hidden(error):
    seen = error
    while seen is not None:
        texts = [str(seen), repr(seen), str(vars(seen)), pickle.dumps(seen).decode("latin-1")]
        assert not any("hunter2" in text for text in texts)
        seen = seen.__cause__ or seen.__context__


def test_the_token_is_never_shown(server, root, caplog):
    group = vf.open(root())
    image = group["color"]
    for one in (group, image, image.levels[0], pickle.loads(pickle.dumps(image)), copy.copy(image.levels[0])):
        assert "hunter2" not in f"{one!r}{one}{one.url}{dict(one.attrs)}{getattr(one, '_repr_html_', str)()}"
    assert "hunter2" not in caplog.text


def test_a_pickled_array_has_the_token_on_its_way(root, layers):
    array = pickle.loads(pickle.dumps(vf.open(root("segmentation/1"))))
    np.testing.assert_array_equal(array[0, 5], layers["segmentation"]["1"][0, 5])


def test_a_token_that_is_refused(server, root):
    for path in ("", "color", "color/1"):
        with pytest.raises(vf.PermissionDeniedError) as caught:
            vf.open(root(path, token="hunter22"))
        assert caught.value.status == 403
        assert_hidden(caught.value)
    array = vf.open(root("color/1"))
    server.token = "another"
    # Where the server has said of nothing that it is not there, a refusal is looked into.
    with pytest.raises((vf.PermissionDeniedError, vf.CredentialsError)) as caught:
        array[0, 0, 0]
    assert_hidden(caught.value)


def test_what_is_not_there(root):
    for path in ("colour", "color/4", "color/1/1"):
        with pytest.raises(vf.NotFoundError) as caught:
            vf.open(root(path))
        assert_hidden(caught.value)
    with pytest.raises(vf.NotFoundError):
        vf.open(root(dataset="other"))


def test_a_token_in_a_header(server, layers):
    options = vf.StoreOptions(headers={"X-Auth-Token": "hunter2"})
    array = vf.open(f"{server.url}/data/zarr/id/color/1", options=options)
    np.testing.assert_array_equal(array[0, 3], layers["color"]["1"][0, 3])


def test_the_command_line(root):
    command = [sys.executable, "-m", "voxfetch.cli", "info", root(), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["keys"] == ["color", "segmentation"]
    assert "hunter2" not in done.stdout + done.stderr


def test_groups_of_other_servers_still_have_no_listing(server, monkeypatch):
    answer = server.answer
    monkeypatch.setattr(
        server, "answer", lambda asked: (404, {}, b"") if asked.path.endswith(".json") else answer(asked)
    )
    with pytest.raises(vf.UnsupportedError, match="listings"):
        vf.open(f"{server.url}/data/zarr/id?token=hunter2").keys()
