"""The landing page and Neuroglancer in headless Chromium: colours at known places, what was asked for, screenshots.

Pictures go to build/screenshots, or to the folder that VOXFETCH_SCREENSHOTS names.
"""

from __future__ import annotations

import json
import logging
import re
import time
import urllib.request
from urllib.parse import parse_qs, unquote, urlencode

import numpy as np
import pytest
import zarr

from tests.browser import PROGRAM, Browser, wait_for
from tests.volumes import write_labels, write_volume
from voxfetch.server import Server, ServerOptions
from voxfetch.view.client import neuroglancer_folder
from voxfetch.view.neuroglancer import viewer_url

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium"),
    pytest.mark.timeout(120),
]
needs_wheel = pytest.mark.skipif(neuroglancer_folder() is None, reason="the wheel neuroglancer is not installed")

SHOWN_AS_IT_IS = {"channels": [{"color": "FFFFFF", "window": {"min": 0, "max": 255, "start": 0, "end": 255}}]}
SHAPE = (16, 1024, 1024)
HOSTILE = "<img src=x onerror=window.hacked=1>"


def grey(z, y, x):
    """The voxels of the large volume: blocks of 64, so that all levels show the same."""
    return 10 * (x // 64 % 16) + 3 * (y // 64 % 16) + 2 * z


def cell(z, y, x):
    return ((x >= 512) & (y >= 512)) * 7


class Log(logging.Handler):
    """What a server was asked: (method, path, status)."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        method, path, status = re.match(r"(\S+) (\S+) (\d+)", record.getMessage()).groups()
        self.lines.append((method, path, int(status)))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("view")
    scale = (40.0, 10.0, 10.0)
    write_volume(root / "em.zarr", grey, shape=SHAPE, scale=scale, levels=3, chunks=128, omero=SHOWN_AS_IT_IS)
    colors = {"image-label": {"colors": [{"label-value": 7, "rgba": [0, 255, 0, 255]}]}}
    write_labels(root / "em.zarr", "cells", cell, shape=SHAPE, scale=scale, levels=3, chunks=128, **colors)
    group = zarr.create_group(str(root / "group.zarr"), attributes={HOSTILE: HOSTILE})
    write_volume(root / "group.zarr" / "one", grey, shape=(4, 64, 64), omero=SHOWN_AS_IT_IS)
    looks = [
        {"label": HOSTILE, "color": color, "window": {"min": 0, "max": 255, "start": 0, "end": 255}}
        for color in ("FF0000", "00FF00")
    ]
    write_volume(
        root / "group.zarr" / HOSTILE,
        lambda c, z, y, x: np.where(c == 0, x * 2, y * 2),
        shape=(2, 4, 64, 96),
        scale=(1, 30.0, 10.0, 10.0),
        translation=(0, 0, 0, 0),
        axes="czyx",
        omero={"channels": looks},
    )
    assert group is not None
    write_volume(root / "broken.zarr", grey, shape=(4, 64, 64), omero=SHOWN_AS_IT_IS, chunks=32)
    for chunk in (root / "broken.zarr" / "0" / "c" / "0" / "1").iterdir():
        chunk.write_bytes(b"damaged")
    # The same scene as seen by two images: b begins at (z 2, y 200, x 300) of a, with voxels twice as large in y and x.
    write_volume(root / "a.zarr", lambda z, y, x: 100 * (x >= 400), shape=(8, 512, 512), omero=SHOWN_AS_IT_IS)
    write_volume(
        root / "b.zarr",
        lambda z, y, x: 100 * (x >= 50),
        shape=(8, 100, 100),
        scale=(40.0, 20.0, 20.0),
        translation=(80.0, 2005.0, 3005.0),
        omero=SHOWN_AS_IT_IS,
    )
    values = np.where(np.arange(96)[None, None, :] < 48, 0.25, 0.75) * np.ones((4, 64, 1))
    write_volume(root / "floats.zarr", lambda z, y, x: values[z, y, x], shape=(4, 64, 96), dtype="f8")
    plain = zarr.create_array(str(root / "plain.zarr"), shape=(8, 64, 96), chunks=(8, 32, 32), dtype="u1")
    plain[...] = np.broadcast_to(np.where(np.arange(96) < 48, 50, 150).astype("u1"), plain.shape)
    return root


@pytest.fixture(scope="module")
def log():
    handler = Log()
    logger = logging.getLogger("voxfetch.server.access")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture(scope="module")
def server(root, log):
    names = ("em", "group", "broken", "a", "b", "floats", "plain")
    server = Server([(name, root / f"{name}.zarr") for name in names], ServerOptions())
    server.start_in_thread()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture
def tab(browser):
    """Opens tabs; closes them after the test."""
    pages = []

    def page(url, **size):
        pages.append(browser.page(url, **size))
        return pages[-1]

    yield page
    for one in pages:
        one.send("Page.close")


# --- the page


class Landing:
    """The page, as a user handles it: places are in voxels of the finest level."""

    def __init__(self, page):
        self.page = page
        self.settle()

    def settle(self):
        """Waits until all that is to be seen is drawn and the address says so."""
        self.page.wait("document.querySelector('#planes canvas')?.width > 0")
        time.sleep(0.25)  # the address follows after a moment
        self.page.wait("document.querySelector('#planes').getAttribute('aria-busy') === 'false'")

    def view(self):
        found = parse_qs(self.page.evaluate("location.hash").removeprefix("#"))
        position = dict(part.split("=") for part in found["at"][0].split(","))
        return {name: float(value) for name, value in position.items()}, float(found["zoom"][0])

    def centre(self, plane):
        """The pixel (x, y) of the screen in the middle of a plane."""
        box = self.page.evaluate(
            f"(() => {{ const b = document.querySelectorAll('.plane canvas')[{plane}].getBoundingClientRect(); "
            "return [b.left, b.top, b.width, b.height]; })()"
        )
        return box[0] + box[2] / 2, box[1] + box[3] / 2

    def spot(self, plane, across, down, scale=(1.0, 1.0)):
        """The pixel (x, y) of the screen of a place in plane 0 (xy), 1 (zy) or 2 (xz)."""
        position, zoom = self.view()
        names = ("xy", "zy", "xz")[plane]
        x, y = self.centre(plane)
        x += (across - position[names[0]]) * zoom * scale[0]
        y += (down - position[names[1]]) * zoom * scale[1]
        return round(x), round(y)

    def under(self, x, y):
        """The place (x, y) in plane xy under a pixel of the screen."""
        position, zoom = self.view()
        middle = self.centre(0)
        return position["x"] + (x - middle[0]) / zoom, position["y"] + (y - middle[1]) / zoom

    def color(self, plane, across, down, scale=(1.0, 1.0)):
        x, y = self.spot(plane, across, down, scale)
        return tuple(int(part) for part in self.page.shot()[y, x])

    def text(self, selector):
        return self.page.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")


def near(color, expected, tolerance=2):
    return all(abs(a - b) <= tolerance for a, b in zip(color, expected, strict=True))


def slices(page):
    """The parameters of the slices that were asked for."""
    return [parse_qs(url.partition("?")[2]) | {"path": url} for _, url in page.requests if "slice.png" in url]


def test_the_page_shows_three_planes(server, tab):
    page = tab(f"{server.url}#source=em&look=1_0_255_FFFFFF,0")
    landing = Landing(page)
    assert page.evaluate("document.querySelectorAll('.plane').length") == 3
    assert landing.view()[0] == {"z": 8, "y": 512, "x": 512}
    for x, y in ((32, 32), (100, 900), (950, 130), (700, 700)):
        assert near(landing.color(0, x, y), [grey(8, y, x)] * 3), (x, y)
    # A voxel is four times as deep as it is wide.
    assert near(landing.color(1, 3.5, 300, (4, 1)), [grey(3, 300, 512)] * 3)
    assert near(landing.color(2, 200, 12.5, (1, 4)), [grey(12, 512, 200)] * 3)
    assert landing.text("#title") == "em"
    assert "vf.open(" in landing.text("#python")
    assert f"{server.url}z3/em/" in landing.text("#urls")
    assert page.messages == []


def test_with_labels_for_people(server, tab):
    landing = Landing(tab(f"{server.url}#source=em"))
    before, beside = landing.color(0, 900, 900), landing.color(0, 100, 900)
    value = grey(8, 900, 900)
    assert near(before, (value / 2, value / 2 + 127.5, value / 2)), "half of it, in the colour of the file"
    assert near(beside, [grey(8, 900, 100)] * 3)
    landing.page.shot("page")
    landing.page.evaluate("document.querySelector('#layer-1').click()")
    landing.settle()
    assert near(landing.color(0, 900, 900), [value] * 3)
    assert landing.page.evaluate("[...document.querySelectorAll('#controls output')].map((one) => one.textContent)") == [
        str(grey(8, 512, 512)),
        "7",
    ]
    landing.page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    landing.page.shot("page-dark")


def test_going_through_by_slider_keys_and_wheel(server, tab):
    page = tab(f"{server.url}#source=em&look=1_0_255_FFFFFF,0")
    landing = Landing(page)
    assert near(landing.color(0, 100, 100), [grey(8, 100, 100)] * 3)
    page.evaluate("document.querySelector('#at-z').focus()")
    page.key("ArrowRight")
    landing.settle()
    assert landing.view()[0]["z"] == 9.5
    assert near(landing.color(0, 100, 100), [grey(9, 100, 100)] * 3)
    assert slices(page)[-1]["at"] == ["z=9"]
    page.wheel(*landing.spot(0, 100, 100), 100)
    landing.settle()
    assert landing.view()[0]["z"] == 10.5
    assert near(landing.color(0, 100, 100), [grey(10, 100, 100)] * 3)
    page.evaluate("document.querySelector('.plane canvas').focus()")
    page.key(",")
    page.key(",")
    landing.settle()
    assert near(landing.color(0, 100, 100), [grey(8, 100, 100)] * 3)
    assert landing.text(".plane .label") == "xy, z = 8"


def test_panning(server, tab):
    page = tab(f"{server.url}#source=em&look=1_0_255_FFFFFF,0&zoom=1")
    landing = Landing(page)
    x, y = landing.spot(0, 512, 512)
    page.drag((x - 60, y - 60), (x + 40, y - 30))
    landing.settle()
    assert landing.view()[0] == {"z": 8, "y": 482, "x": 412}
    assert near(landing.color(0, 400, 440), [grey(8, 440, 400)] * 3)
    # A click brings a place under the cross.
    x, y = landing.spot(0, 300, 500)
    page.drag((x, y), (x, y), steps=1)
    landing.settle()
    position = landing.view()[0]
    assert abs(position["x"] - 300) <= 1
    assert abs(position["y"] - 500) <= 1


def test_zooming_changes_the_level(server, tab):
    page = tab(f"{server.url}#source=em&look=1_0_255_FFFFFF,0")
    landing = Landing(page)
    zoom = landing.view()[1]
    assert 0.25 < zoom < 0.5
    assert {one["level"][0] for one in slices(page)} == {"1"}, "two voxels are less than a pixel"
    where = landing.spot(0, 300, 300)
    under = landing.under(*where)
    for _ in range(6):
        page.wheel(*where, -150, ctrl=True)
    landing.settle()
    assert landing.view()[1] > 4 * zoom
    assert slices(page)[-1]["level"] == ["0"]
    assert landing.under(*where) == pytest.approx(under, abs=0.01), "what is under the pointer stays there"
    assert near(landing.color(0, 310, 310), [grey(8, 310, 310)] * 3)
    page.evaluate("document.querySelector('.plane canvas').focus()")
    for _ in range(10):
        page.key("-")
    landing.settle()
    assert slices(page)[-1]["level"] == ["2"]
    sizes = [one["box"][0] for one in slices(page) if one["level"] == ["0"]]
    spans = [int(b) - int(a) for box in sizes for a, b in re.findall(r"(\d+):(\d+)", box)]
    assert max(spans) <= 512, "no request is for more than a tile"


def test_contrast_and_colour(server, tab):
    page = tab(f"{server.url}#source=em&look=1_0_255_FFFFFF,0")
    landing = Landing(page)
    page.evaluate(
        "(() => { const entry = document.querySelectorAll('#controls fieldset input[type=number]')[1]; "
        "entry.value = 100; entry.dispatchEvent(new Event('input')); })()"
    )
    landing.settle()
    assert near(landing.color(0, 400, 300), [grey(8, 300, 400) * 2.55] * 3)
    page.evaluate(
        "(() => { const entry = document.querySelector('#controls input[type=color]'); "
        "entry.value = '#ff0000'; entry.dispatchEvent(new Event('input')); })()"
    )
    landing.settle()
    assert near(landing.color(0, 400, 300), (grey(8, 300, 400) * 2.55, 0, 0))
    assert "look=1_0_100_ff0000" in unquote(page.evaluate("location.hash"))


def test_the_address_brings_the_view_back(server, tab):
    first = Landing(tab(f"{server.url}#source=em"))
    first.page.wheel(*first.spot(0, 512, 512), 100)
    first.page.evaluate("document.querySelector('#layer-1').click()")
    first.page.evaluate("document.querySelector('.plane canvas').focus()")
    first.page.key("+")
    first.settle()
    second = Landing(tab(first.page.evaluate("location.href")))
    assert second.view() == first.view()
    first.page.evaluate("document.activeElement.blur()")  # without the frame around what has the focus
    assert np.array_equal(first.page.shot()[50:600, 270:980], second.page.shot()[50:600, 270:980])


def test_hostile_names_are_text(server, tab):
    page = tab(server.url)
    Landing(page)
    page.evaluate("[...document.querySelectorAll('.tree .name')].find((one) => one.dataset.key === 'group').click()")
    page.wait("document.querySelectorAll('#gallery img').length === 2")
    page.wait("[...document.querySelectorAll('#gallery img')].every((one) => one.complete && one.naturalWidth)")
    page.shot("page-group")
    assert HOSTILE in page.evaluate("document.querySelector('#attrs').textContent")
    page.evaluate("document.querySelectorAll('.tree .open')[1].click()")
    page.wait("document.querySelectorAll('.tree ul .name').length === 2")
    assert HOSTILE in page.evaluate("document.querySelector('.tree').textContent")
    page.evaluate("document.querySelector('#gallery button').click()")
    landing = Landing(page)
    page.wait("document.title.startsWith('<img')")
    assert HOSTILE in landing.text("#controls")
    assert near(landing.color(0, 50.5, 20.5), (100, 40, 0)), "two channels on top of each other"
    page.shot("page-channels")
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.querySelectorAll('img[onerror]').length") == 0
    assert page.messages == []


def test_errors_are_shown(server, tab):
    page = tab(f"{server.url}#source=broken")
    page.wait("[...document.querySelectorAll('.plane .fault')].some((one) => !one.hidden)")
    assert "not complete" in page.evaluate("document.querySelector('.plane .fault').textContent")
    assert "503" in page.evaluate("document.querySelector('.plane .fault').textContent")
    page.shot("page-fault")
    count = len(slices(page))
    page.evaluate("document.querySelector('.plane .fault button').click()")
    wait_for(lambda: len(slices(page)) > count, 10, "it is not tried again")
    page.evaluate("location.hash = '#source=nothing'")
    page.wait("!document.querySelector('#problem').hidden")
    assert "404" in page.evaluate("document.querySelector('#problem').textContent")
    assert page.evaluate("document.querySelector('#view').hidden")


def test_what_is_no_longer_to_be_seen_is_not_waited_for(server, tab):
    page = tab(f"{server.url}#source=em&look=1_0_255_FFFFFF,0")
    landing = Landing(page)
    page.evaluate("document.querySelector('#at-z').focus()")
    for _ in range(7):
        page.key("ArrowRight")
    landing.settle()
    assert landing.view()[0]["z"] == 15.5
    assert near(landing.color(0, 100, 100), [grey(15, 100, 100)] * 3)


def test_a_narrow_window(server, tab):
    landing = Landing(tab(f"{server.url}#source=em", width=480, height=900))
    assert landing.page.evaluate("document.documentElement.scrollWidth") <= 480
    landing.page.shot("page-narrow")


# --- Neuroglancer


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
        dx, dy = ((to - at) * size / least / scale for to, at, size in zip((x, y), state["position"], sizes, strict=False))
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


@needs_wheel
def test_neuroglancer_shows_the_volume(server, log, tab):
    since = len(log.lines)
    glancer = Glancer(tab("about:blank"), server, "em", showAxisLines=False, showDefaultAnnotations=False)
    z = 7.5
    assert glancer.state()["position"] == pytest.approx([511.5, 511.5, z], abs=0.01)
    for x, y in ((32, 32), (100, 900), (950, 130), (700, 200)):
        assert near(glancer.color(x, y), [grey(int(z + 0.5), y, x)] * 3, 3), (x, y)
    glancer.page.shot("neuroglancer")
    assert set(chunks(log, "em", since)) == {1, 2}, "levels by what a pixel is"
    asked = log.lines[since:]
    assert {method for method, path, _ in asked if "/z3/" in path} == {"GET"}, "nothing is probed for"
    assert {status for _, path, status in asked if "/c/" in path} <= {200, 404}, "no ranges"
    documents = [path for _, path, _ in asked if "/z3/em" in path and "/c/" not in path]
    assert all(path.endswith("/zarr.json") for path in documents)
    assert glancer.problems() == []


@needs_wheel
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


@needs_wheel
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


@needs_wheel
def test_neuroglancer_shows_labels(server, tab):
    glancer = Glancer(tab("about:blank"), server, "em", showAxisLines=False, showDefaultAnnotations=False)
    value = grey(8, 900, 900)
    assert near(glancer.color(900, 900), (value / 2, value / 2 + 127.5, value / 2), 3), "in the colour of the file"
    assert near(glancer.color(500, 500), [grey(8, 500, 500)] * 3, 3), "no label there"
    assert near(glancer.color(600, 400), [grey(8, 400, 600)] * 3, 3), "no label there"


@needs_wheel
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


@needs_wheel
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


@needs_wheel
def test_neuroglancer_shows_channels(server, tab):
    glancer = Glancer(tab("about:blank"), server, f"group/{HOSTILE}", showAxisLines=False)
    assert near(glancer.color(50, 20), (100, 40, 0), 4)
    glancer.page.shot("neuroglancer-channels")
    assert glancer.page.evaluate("window.hacked") is None


def test_the_page_leads_to_neuroglancer(server, tab):
    page = tab(f"{server.url}#source=em")
    Landing(page)
    page.evaluate("document.querySelectorAll('.tree input')[1].click()")
    link = page.evaluate("document.querySelector('#neuroglancer').href")
    assert link.startswith(f"{server.url}api/state/neuroglancer?source=em%2C")
