"""States of Neuroglancer, and the files of the pages: pure values; test_view_browser looks at them."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import urllib.request
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
import zarr

import voxfetch as vf
from tests.browser import wait_for
from tests.test_server_api import query_of
from tests.volumes import asked, write_labels, write_volume
from voxfetch.cli import main
from voxfetch.server import Server
from voxfetch.server.api import ApiPlane
from voxfetch.server.options import ServerOptions
from voxfetch.server.registry import Registry
from voxfetch.view import client
from voxfetch.view.client import ClientPlane, neuroglancer_folder
from voxfetch.view.neuroglancer import state_of, viewer_url

BASE = "http://127.0.0.1:1/t/TOKEN"


def state(sources, *chosen):
    """The state that shows the chosen sources (default: all)."""

    async def answer():
        registry = Registry(sources)
        try:
            request = query_of("state", "neuroglancer", source=",".join(chosen or sources))
            return await ApiPlane(registry, ServerOptions()).answer(request)
        finally:
            registry.close()

    return json.loads(asyncio.run(answer()).content)


def test_dimensions_are_x_y_z_in_metres_whatever_is_stored(tmp_path):
    sizes = {"x": 4.0, "y": 8.0, "z": 40.0}
    extents = {"x": 100, "y": 50, "z": 10}
    for axes in ("zyx", "xyz", "yxz"):
        write_volume(
            tmp_path / axes,
            lambda *indices: indices[0],
            shape=[extents[name] for name in axes],
            scale=[sizes[name] for name in axes],
            translation=[20.0 * sizes[name] for name in axes],
            axes=axes,
        )
        found = state({"em": tmp_path / axes})
        assert found["dimensions"] == {"x": [4e-9, "m"], "y": [8e-9, "m"], "z": [40e-9, "m"]}
        assert list(found["dimensions"]) == ["x", "y", "z"]
        # Centres of voxels are at 20, corners half a voxel before.
        assert found["position"] == [20 - 0.5 + 50, 20 - 0.5 + 25, 20 - 0.5 + 5]
        assert found["displayDimensions"] == ["x", "y", "z"]
        assert found["layout"] == "4panel"
        (layer,) = found["layers"]
        assert layer["source"] == f"{BASE}/z3/em/|zarr3:", "Neuroglancer places it itself, and probes for nothing"


@pytest.mark.parametrize(
    ("unit", "size", "expected"),
    [
        ("micrometer", 0.5, [5e-7, "m"]),
        ("um", 0.5, [5e-7, "m"]),
        ("angstrom", 10.0, [1e-9, "m"]),
        ("nanometer", 11.24, [1.124e-8, "m"]),
        (None, 3.0, [3.0, ""]),
        ("furlong", 3.0, [3.0, ""]),
    ],
)
def test_units(tmp_path, unit, size, expected):
    write_volume(tmp_path / "em", lambda z, y, x: x, shape=(4, 4, 4), scale=(size,) * 3, unit=unit)
    found = state({"em": tmp_path / "em"})
    assert found["dimensions"] == dict.fromkeys("xyz", expected)


def test_it_fits(tmp_path):
    write_volume(tmp_path / "em", lambda z, y, x: x, shape=(10, 20, 30), scale=(400.0, 10.0, 10.0))
    found = state({"em": tmp_path / "em"})
    # 4000 nm along z is the longest, of canonical voxels of 10 nm.
    assert found["crossSectionScale"] * 10 * 360 == pytest.approx(4000)
    assert found["projectionScale"] * 10 > 4000


def test_channels_are_layers(tmp_path):
    looks = [
        {
            "label": label,
            "color": color,
            "active": active,
            "window": {"min": 0, "max": 65535, "start": 100, "end": 1100},
        }
        for label, color, active in (("DAPI", "0000FF", True), ("GFP", "00ff00", False))
    ]
    write_volume(
        tmp_path / "cells",
        lambda c, z, y, x: x,
        shape=(2, 3, 4, 5),
        scale=(1, 2, 2, 2),
        translation=(0, 0, 0, 0),
        axes="czyx",
        dtype="u2",
        omero={"channels": looks},
    )
    found = state({"cells": tmp_path / "cells"})
    assert list(found["dimensions"]) == ["x", "y", "z"]
    first, second = found["layers"]
    assert (first["name"], second["name"]) == ("cells DAPI", "cells GFP")
    assert first["localDimensions"] == {"c'": [1, ""]}
    assert (first["localPosition"], second["localPosition"]) == ([0], [1])
    assert "visible" not in first
    assert second["visible"] is False
    assert 'color(default="#0000ff")' in first["shader"]
    assert 'color(default="#00ff00")' in second["shader"]
    assert "#uicontrol invlerp contrast" in first["shader"]
    assert first["shaderControls"]["contrast"]["range"] == [100, 1100]
    assert (first["blend"], first["opacity"]) == ("additive", 1)


def test_time_is_a_dimension_of_its_own(tmp_path):
    write_volume(
        tmp_path / "movie",
        lambda t, y, x: x,
        shape=(7, 8, 9),
        scale=(1, 2, 2),
        translation=(0, 0, 0),
        axes="tyx",
        unit="micrometer",
    )
    found = state({"movie": tmp_path / "movie"})
    assert list(found["dimensions"]) == ["x", "y", "t"]
    assert found["position"] == [4, 3.5, 0]
    assert found["layout"] == "xy"
    assert found["displayDimensions"] == ["x", "y"]


def test_labels_are_segmentations(tmp_path):
    write_volume(tmp_path / "em", lambda z, y, x: x)
    colors = {"image-label": {"colors": [{"label-value": 7, "rgba": [0, 255, 16, 255]}]}}
    write_labels(tmp_path / "em", "cells", lambda z, y, x: x, **colors)
    image, label = state({"em": tmp_path / "em"})["layers"]
    assert image["type"] == "image"
    assert label["type"] == "segmentation"
    assert label["source"] == f"{BASE}/z3/em/labels/cells/|zarr3:"
    assert label["segmentColors"] == {"7": "#00ff10"}
    assert "shader" not in label


@pytest.mark.parametrize(
    ("dtype", "preset"),
    [
        ("u1", ""), ("u2", ""), ("i2", ""), ("u4", ""), ("u8", ""), ("f4", ""),
        ("f8", "@viv/"), ("i8", "@viv/"), ("?", "@viv/"), ("f2", "@viv/"),
    ],
)  # fmt: skip
def test_types_that_neuroglancer_does_not_know_are_cast(tmp_path, dtype, preset):
    write_volume(tmp_path / "em", lambda z, y, x: x % 2, shape=(4, 4, 4), dtype=dtype)
    (layer,) = state({"em": tmp_path / "em"})["layers"]
    assert layer["source"] == f"{BASE}/z3/{preset}em/|zarr3:"


def test_images_are_overlaid_by_their_own_scales(tmp_path):
    write_volume(tmp_path / "a", lambda z, y, x: x, scale=(40.0, 10.0, 10.0))
    write_volume(tmp_path / "b", lambda z, y, x: x, scale=(20.0, 20.0, 20.0), translation=(0.0, 500.0, 700.0))
    found = state({"a": tmp_path / "a", "b": tmp_path / "b"})
    assert [layer["source"] for layer in found["layers"]] == [f"{BASE}/z3/a/|zarr3:", f"{BASE}/z3/b/|zarr3:"]
    assert found["dimensions"]["x"] == [1e-8, "m"], "of the first"


def test_an_image_without_units_beside_one_with(tmp_path):
    write_volume(tmp_path / "a", lambda z, y, x: x)
    write_volume(tmp_path / "b", lambda z, y, x: x, unit=None, scale=(20.0, 20.0, 5.0), translation=(0.0, 0.0, 50.0))
    source = state({"a": tmp_path / "a", "b": tmp_path / "b"})["layers"][1]["source"]
    assert source["url"] == f"{BASE}/z3/b/|zarr3:"
    assert source["transform"]["outputDimensions"] == {"z": [2e-8, "m"], "y": [2e-8, "m"], "x": [5e-9, "m"]}
    assert source["transform"]["matrix"] == [[1, 0, 0, -0.5], [0, 1, 0, -0.5], [0, 0, 1, 9.5]]


def test_arrays_that_stand_alone(tmp_path):
    zarr.create_array(str(tmp_path / "named"), shape=(4, 6, 8), chunks=(4, 4, 4), dtype="u1", dimension_names="zyx")
    found = state({"named": tmp_path / "named"})
    assert found["dimensions"] == {"x": [1, ""], "y": [1, ""], "z": [1, ""]}
    assert found["position"] == [4, 3, 2], "corners: nothing says where centres are"
    assert found["layers"][0]["source"] == f"{BASE}/z3/named/|zarr3:"
    zarr.create_array(str(tmp_path / "plain"), shape=(4, 6, 8), chunks=(4, 4, 4), dtype="u1")
    found = state({"plain": tmp_path / "plain"})
    assert found["position"] == [4, 3, 2]
    transform = found["layers"][0]["source"]["transform"]
    assert list(transform["outputDimensions"]) == ["z", "y", "x"], "in the order of the array"
    assert transform["matrix"] == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]


def test_a_group_is_its_images(tmp_path):
    zarr.create_group(str(tmp_path / "g"))
    for name in ("a", "b"):
        write_volume(tmp_path / "g" / name, lambda z, y, x: x, shape=(2, 2, 2))
    layers = state({"g": tmp_path / "g"})["layers"]
    assert [layer["source"] for layer in layers] == [f"{BASE}/z3/g/a/|zarr3:", f"{BASE}/z3/g/b/|zarr3:"]


def test_a_group_of_groups(tmp_path):
    zarr.create_group(str(tmp_path / "g")).create_array("table", shape=(2, 3), chunks=(2, 3), dtype="f4")
    zarr.create_group(str(tmp_path / "g" / "deep"))
    write_volume(tmp_path / "g" / "deep" / "a", lambda z, y, x: x, shape=(2, 2, 2))
    (tmp_path / "g" / "broken").mkdir()
    (tmp_path / "g" / "broken" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "array"}')
    layers = state({"g": tmp_path / "g"})["layers"]
    assert [layer["source"] for layer in layers] == [f"{BASE}/z3/g/deep/a/|zarr3:"], "images, where there are any"


def test_windows_of_integers_are_whole(tmp_path):
    values = np.random.default_rng(0).integers(0, 60000, (4, 20, 20))
    write_volume(tmp_path / "em", lambda z, y, x: values[z, y, x], shape=(4, 20, 20), dtype="u2")
    contrast = state({"em": tmp_path / "em"})["layers"][0]["shaderControls"]["contrast"]
    assert all(isinstance(value, int) for value in (*contrast["range"], *contrast["window"]))
    write_volume(tmp_path / "flat", lambda z, y, x: 0.25 + 0 * x, shape=(4, 4, 4), dtype="f4")
    low, high = state({"flat": tmp_path / "flat"})["layers"][0]["shaderControls"]["contrast"]["range"]
    assert low < high


def test_names_are_different(tmp_path):
    for name in ("a", "b"):
        write_volume(tmp_path / name / "em.zarr", lambda z, y, x: x, shape=(2, 2, 2))
    found = state({"a": tmp_path / "a" / "em.zarr", "b": tmp_path / "b" / "em.zarr"})
    assert [layer["name"] for layer in found["layers"]] == ["em", "em 2"]


def test_the_address_holds_the_state():
    value = {"layers": [{"name": "100 % <a href='x'>#é\"", "source": "http://h/|zarr3:"}]}
    url = urlparse(viewer_url(value, BASE))
    assert url.path == "/t/TOKEN/v/ng/"
    assert url.fragment.startswith("!")
    assert json.loads(unquote(url.fragment[1:])) == value
    assert re.fullmatch(r"[!-~]*", url.geturl()), "it can stand in a header"
    with pytest.raises(ValueError, match="nothing to show"):
        state_of([])


# --- the files


def get(*segments):
    """A file as the plane gives it."""
    return asyncio.run(ClientPlane(None, None).answer(asked(*segments)))


def test_the_page():
    page = get()
    assert page.content_type == "text/html; charset=utf-8"
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert get("page", "page.js").content_type == "text/javascript; charset=utf-8"
    assert get("page", "page.css").content_type == "text/css; charset=utf-8"
    names = re.findall(rb'(?:src|href)="(page/[^"]+)"', page.content)
    assert len(names) == 2
    assert all(get(*name.decode().split("/")) is not None for name in names)
    for content in (page.content, get("page", "page.js").content, get("page", "planes.js").content):
        assert not re.search(rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", content)
        assert not re.search(rb"(?:src|href|import|from)\s*=?\s*['\"]https?:", content), "nothing from elsewhere"


@pytest.mark.parametrize(
    "segments",
    [("page",), ("page", "index.html"), ("page", ".."), ("page", "..", "client.py"), ("x",), ("page", "page.js", "x")],
)
def test_no_other_files(segments):
    assert get(*segments) is None


needs_wheel = pytest.mark.skipif(neuroglancer_folder() is None, reason="the wheel neuroglancer is not installed")


@needs_wheel
def test_the_client_of_neuroglancer():
    index = get("v", "ng")
    assert index.content_type == "text/html; charset=utf-8"
    assert index.content == get("v", "ng", "index.html").content
    names = re.findall(rb'(?:src|href)="([^"]+)"', index.content)
    assert names
    for name in names:
        found = get("v", "ng", name.decode())
        assert "immutable" in found.headers["Cache-Control"], name
        assert found.etag
    assert index.headers["Cache-Control"] == "no-cache"
    wasm = next(one.name for one in neuroglancer_folder().iterdir() if one.name.endswith(".wasm"))
    assert get("v", "ng", wasm).content_type == "application/wasm"
    for segments in (("..", "index.html"), ("x.js",), ("__init__.py",), ("..",), (index.etag,)):
        assert get("v", "ng", *segments) is None


@needs_wheel
def test_nothing_of_the_wheel_is_imported():
    get("v", "ng")
    assert "neuroglancer" not in sys.modules


def test_without_the_wheel_the_page_says_so(monkeypatch):
    monkeypatch.setattr(client.importlib.util, "find_spec", lambda _: None)
    missing = get("v", "ng")
    assert missing.status == 404
    assert b"pip install 'voxfetch[view]'" in missing.content
    assert get().status == 200


def test_scenes_of_neuroglancer_are_what_the_plane_serves(tmp_path):
    """Names of dimensions in transforms are as many as the served array has axes."""
    voxels = np.zeros((3, 4), np.float64)
    vf.create(tmp_path / "flat.zarr", shape=voxels.shape, dtype="f8", chunks=(3, 4), shards=False)
    found = state({"flat": tmp_path / "flat.zarr"})
    assert found["layout"] == "xy"
    transform = found["layers"][0]["source"]["transform"]
    assert list(transform["outputDimensions"]) == ["y", "x"]


# --- the command


def test_the_command_serves_the_page(tmp_path):
    """`voxfetch view` prints an address that works, and ends when it is told to."""
    write_volume(tmp_path / "em.zarr", lambda z, y, x: x, shape=(2, 2, 2))
    command = [sys.executable, "-m", "voxfetch.cli", "view", f"brain={tmp_path / 'em.zarr'}", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/t/[\w-]{16,}/", address)
            with urllib.request.urlopen(address, timeout=10) as reply:
                assert b"<title>voxfetch</title>" in reply.read()
            with urllib.request.urlopen(f"{address}api/tree", timeout=10) as reply:
                assert [one["name"] for one in json.load(reply)["sources"]] == ["brain"]
        finally:
            process.terminate()
        _, remarks = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "Traceback" not in remarks


def called(monkeypatch, *arguments):
    """The address that `voxfetch view` opens, without serving anything, and the exit code."""
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda place: opened.append(place) or True)

    def serve(sources, options, ready):
        server = Server(sources, options)
        ready(server)
        wait_for(lambda: opened, 10, "no browser") if "--no-browser" not in arguments else None

    monkeypatch.setattr("voxfetch.server.serve", serve)
    return main(["view", *map(str, arguments)]), opened


def test_the_command_opens_the_browser(monkeypatch, tmp_path, capsys):
    code, opened = called(monkeypatch, tmp_path / "a.zarr", f"b={tmp_path}/x", "--port", "4711")
    assert code == 0
    (place,) = opened
    assert capsys.readouterr().out.strip() == place
    assert place.startswith("http://127.0.0.1:4711/t/")
    assert called(monkeypatch, tmp_path, "--no-browser") == (0, [])


@needs_wheel
def test_the_command_opens_neuroglancer(monkeypatch, tmp_path):
    code, (place,) = called(monkeypatch, f"a={tmp_path}", f"b={tmp_path}/x", "--viewer", "neuroglancer")
    assert code == 0
    assert place.endswith("/api/state/neuroglancer?source=a%2Cb&redirect=1")


@pytest.mark.parametrize("arguments", [("x", "--port", "70000"), ("a=x", "a=y"), ("x", "--viewer", "other"), ()])
def test_wrong_usage_of_the_command(monkeypatch, capsys, arguments):
    code, opened = called(monkeypatch, *arguments)
    assert (code, opened) == (2, [])
    assert capsys.readouterr().err


def test_what_is_not_installed_is_named(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "neuroglancer" else object())
    assert called(monkeypatch, "x", "--viewer", "neuroglancer") == (2, [])
    assert "pip install 'voxfetch[view]'" in capsys.readouterr().err
