"""Neuroglancer in headless Chromium, with the states of the server: colours at known places, and requests."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from urllib.parse import urlencode

import numpy as np
import pytest

from tests.viewing import HOSTILE, browser, grey, log, near, needs_browser, root, server, tab
from voxfetch.view.client import neuroglancer_folder
from voxfetch.view.neuroglancer import viewer_url

__all__ = ["browser", "log", "root", "server", "tab"]

pytestmark = [
    needs_browser,
    pytest.mark.skipif(neuroglancer_folder() is None, reason="the wheel neuroglancer is not installed"),
    pytest.mark.timeout(120),
]


class Glancer:
    """Neuroglancer with the state that the server gives; places are in voxels of the state's dimensions."""

    def __init__(self, page, server, *sources, **changes):
        self.page = page
        place = f"{server.url}api/state/neuroglancer?{urlencode({'source': ','.join(sources)})}"
        if changes:
            with urllib.request.urlopen(place, timeout=10) as reply:
                page.go(viewer_url({**json.load(reply), **changes}, server.url.rstrip("/")))
        else:
            page.go(f"{place}&redirect=1")
        page.wait("window.viewer && viewer.isReady() && viewer.state.toJSON().layers", 60)
        self.settle()

    def settle(self):
        """Waits until all chunks that are to be seen are drawn."""
        time.sleep(0.2)
        self.page.wait("viewer.isReady()", 60)
        time.sleep(0.4)

    def state(self):
        return json.loads(self.page.evaluate("JSON.stringify(viewer.state.toJSON())"))

    def spot(self, x, y):
        """The pixel (x, y) of the screen of a place in the xy panel, which is the first."""
        box = self.page.evaluate(
            "(() => { const b = document.querySelector('.neuroglancer-rendered-data-panel').getBoundingClientRect(); "
            "return [b.left + b.width / 2, b.top + b.height / 2]; })()"
        )
        state = self.state()
        sizes = [scale for scale, _ in state["dimensions"].values()]
        least = min(sizes[:3])
        scale = state.get("crossSectionScale", 1)
        far = zip((x, y), state["position"], sizes, strict=False)
        dx, dy = ((to - at) * size / least / scale for to, at, size in far)
        return round(box[0] + dx), round(box[1] + dy)

    def color(self, x, y):
        column, row = self.spot(x, y)
        return tuple(int(part) for part in self.page.shot()[row, column])

    def problems(self):
        """What went to the console, without remarks of the graphics driver."""
        return [text for text in self.page.messages if "favicon" not in text and "GL Driver Message" not in text]


def chunks(log, source, since=0):
    """Levels of the chunks that were asked for."""
    found = (re.fullmatch(rf"/z3/(?:@\w+/)?{source}/(?:(\d+)/)?c/.*", path) for _, path, _ in log.lines[since:])
    return [int(match[1] or 0) for match in found if match]


def test_neuroglancer_shows_the_volume(server, log, tab):
    since = len(log.lines)
    glancer = Glancer(tab("about:blank"), server, "em", showAxisLines=False, showDefaultAnnotations=False)
    z = 7.5
    assert glancer.state()["position"] == pytest.approx([511.5, 511.5, z], abs=0.01)
    for x, y in ((32, 32), (100, 900), (950, 130), (700, 200)):
        assert near(glancer.color(x, y), [grey(int(z + 0.5), y, x)] * 3, 3), (x, y)
    glancer.page.shot("neuroglancer")
    assert 2 in chunks(log, "em", since)
    assert 0 not in chunks(log, "em", since), "a pixel is nearly three voxels"
    asked = log.lines[since:]
    assert {method for method, path, _ in asked if "/z3/" in path} == {"GET"}, "nothing is probed for"
    assert {status for _, path, status in asked if "/c/" in path} <= {200, 404}, "no ranges"
    documents = [path for _, path, _ in asked if "/z3/em" in path and "/c/" not in path]
    assert all(path.endswith("/zarr.json") for path in documents)
    assert glancer.problems() == []


def test_edges_are_where_the_file_has_them(server, log, tab):
    # Voxel 448 along x is the first of a block; centres are at whole places, so it begins at 447.5.
    since = len(log.lines)
    where = {"position": [447.5, 223.5, 8], "crossSectionScale": 0.05}
    glancer = Glancer(tab("about:blank"), server, "em", showAxisLines=False, showDefaultAnnotations=False, **where)
    column, row = glancer.spot(447.5, 223.5)
    line = glancer.page.shot()[row, column - 100 : column + 100, 0]
    left, right = grey(8, 223, 447), grey(8, 223, 448)
    assert abs(int(line[0]) - left) <= 2
    assert abs(int(line[-1]) - right) <= 2
    assert abs(int(np.argmax(line > (left + right) / 2)) - 100) <= 1
    assert 0 in chunks(log, "em", since)


def test_neuroglancer_pans_and_changes_level(server, log, tab):
    glancer = Glancer(tab("about:blank"), server, "em", showAxisLines=False, showDefaultAnnotations=False)
    x, y = glancer.spot(511, 511)
    glancer.page.drag((x + 50, y + 50), (x - 30, y + 20))
    glancer.settle()
    state = glancer.state()
    scale = state["crossSectionScale"]
    assert state["position"][:2] == pytest.approx([511.5 + 80 * scale, 511.5 + 30 * scale], abs=scale * 6)
    assert near(glancer.color(100, 300), [grey(8, 300, 100)] * 3, 3)
    since = len(log.lines)
    glancer.page.evaluate("viewer.navigationState.zoomBy(0.2)")
    glancer.settle()
    assert 0 in chunks(log, "em", since), "the finest level, when it is magnified"


def test_neuroglancer_shows_labels(server, tab):
    glancer = Glancer(tab("about:blank"), server, "em", showAxisLines=False, showDefaultAnnotations=False)
    value = grey(8, 900, 900)
    assert near(glancer.color(900, 900), (value / 2, value / 2 + 127.5, value / 2), 3), "in the colour of the file"
    assert near(glancer.color(500, 500), [grey(8, 500, 500)] * 3, 3), "no label there"
    assert near(glancer.color(600, 400), [grey(8, 400, 600)] * 3, 3), "no label there"


def test_neuroglancer_overlays_images_in_space(server, tab):
    # b covers x 300..500 and y 200..400 of a in voxels that are twice as large; its edge at 50 is that of a at 400.
    edges = []
    for shown in ("a", "b"):
        glancer = Glancer(tab("about:blank"), server, "a", "b", showAxisLines=False, showDefaultAnnotations=False)
        assert [layer["name"] for layer in glancer.state()["layers"]] == ["a", "b"]
        glancer.page.evaluate(
            "viewer.layerManager.managedLayers.forEach((layer) => { "
            f"layer.setVisible(layer.name === '{shown}'); layer.layer.opacity.value = 1; }})"
        )
        glancer.page.evaluate("viewer.navigationState.position.value = Float32Array.of(400, 300, 5.5)")
        glancer.page.evaluate("viewer.navigationState.zoomBy(0.25)")
        glancer.settle()
        picture = glancer.page.shot(f"neuroglancer-overlay-{shown}")
        column, row = glancer.spot(399.5, 300)  # corners are half a voxel before centres
        line = picture[row, column - 20 : column + 20, 0]
        assert line[0] < 5
        assert abs(int(line[-1]) - 100) < 5
        edges.append((int(np.argmax(line > 50)) - 20, glancer.spot(399.5, 300)))
    assert edges[0] == edges[1]
    assert abs(edges[0][0]) <= 1


@pytest.mark.parametrize("source", ["floats", "plain"])
def test_neuroglancer_shows_what_it_does_not_know(server, log, tab, source):
    since = len(log.lines)
    glancer = Glancer(tab("about:blank"), server, source, showAxisLines=False, showDefaultAnnotations=False)
    assert list(glancer.state()["dimensions"]) == ["x", "y", "z"]
    left, right = glancer.color(20, 30), glancer.color(70, 30)
    assert near(left, (0, 0, 0), 3)
    assert near(right, (255, 255, 255), 3)
    assert chunks(log, source, since)
    assert glancer.problems() == []


@pytest.mark.parametrize("plane", ["z3", "z2", "pc", "raw"])
def test_neuroglancer_finds_out_what_a_plain_address_is(server, log, tab, plane):
    # As people paste it: no suffix says the format, so all that there are are looked for.
    since = len(log.lines)
    with urllib.request.urlopen(f"{server.url}api/state/neuroglancer?source=em", timeout=10) as reply:
        layer = json.load(reply)["layers"][0]
    layers = [{**layer, "source": f"{server.url}{plane}/em/"}]
    plain = {"layers": layers, "showAxisLines": False, "showDefaultAnnotations": False}
    glancer = Glancer(tab("about:blank"), server, "em", **plain)
    for x, y in ((32, 32), (100, 900), (950, 130)):
        assert near(glancer.color(x, y), [grey(8, y, x)] * 3, 3), (x, y)
    asked = [(method, status) for method, path, status in log.lines[since:] if path.startswith(f"/{plane}/em/")]
    assert {method for method, _ in asked} == {"GET", "HEAD"}
    assert {status for _, status in asked} <= {200, 304, 404}


def test_neuroglancer_shows_channels(server, tab):
    glancer = Glancer(tab("about:blank"), server, f"group/{HOSTILE}", showAxisLines=False)
    assert near(glancer.color(50, 20), (100, 40, 0), 4)
    glancer.page.shot("neuroglancer-channels")
    assert glancer.page.evaluate("window.hacked") is None
