"""The landing page in headless Chromium: colours at known places, and what was asked for."""

from __future__ import annotations

import json
import re
import time
from urllib.parse import parse_qs, unquote

import numpy as np
import pytest

from tests.browser import wait_for
from tests.viewing import HOSTILE, browser, grey, log, near, needs_browser, root, server, tab

__all__ = ["browser", "log", "root", "server", "tab"]

pytestmark = [needs_browser, pytest.mark.timeout(120)]


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


def test_the_page_gives_what_others_need(server, tab):
    """A link that brings the same view, Python to paste, and a picture of the middle."""
    page = tab(server.url)
    landing = Landing(page)
    page.evaluate("window.copied = []; navigator.clipboard.writeText = async (text) => { copied.push(text); }; 0")
    page.evaluate("document.querySelector('[data-copies=python]').click(); document.querySelector('#share').click()")
    page.wait("copied.length === 2")
    python, link = page.evaluate("copied")
    found = {}
    exec(python, found)
    assert found["em"].levels[0].shape == (16, 1024, 1024)
    np.testing.assert_array_equal(found["voxels"], found["em"].level(0)[:, 480:544, 480:544])
    assert landing.view() == Landing(tab(link)).view()
    page.evaluate("document.querySelector('#thumbnail').scrollIntoView()")
    page.wait("document.querySelector('#thumbnail img').naturalWidth > 0")
    assert page.evaluate("document.querySelector('#thumbnail img').naturalWidth") == 256
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
    assert landing.page.evaluate(
        "[...document.querySelectorAll('#controls output')].map((one) => one.textContent)"
    ) == [
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
    pictures = [one.page.shot()[50:600, 270:980].astype(int) for one in (first, second)]
    assert np.abs(pictures[0] - pictures[1]).max() <= 3, "the zoom in the address is rounded"


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


def test_time_is_a_slider(server, tab):
    page = tab(f"{server.url}#source=movie")
    landing = Landing(page)
    assert page.evaluate("document.querySelectorAll('.plane').length") == 1
    assert near(landing.color(0, 20, 20), (20, 20, 20))
    page.evaluate("document.querySelector('#at-t').focus()")
    page.key("ArrowRight")
    page.key("ArrowRight")
    landing.settle()
    assert near(landing.color(0, 20, 20), (100, 100, 100))
    assert page.messages == []


def test_very_many_channels_are_a_slider(server, tab):
    page = tab(f"{server.url}#source=spectrum")
    landing = Landing(page)
    assert page.evaluate("document.querySelectorAll('#controls fieldset').length") == 1
    page.evaluate("document.querySelector('#channel').focus()")
    page.key("End")
    landing.settle()
    assert slices(page)[-1]["at"][0].startswith("c=29,")
    assert page.evaluate("document.querySelector('#controls fieldset output').textContent") == str(29 * 8)


def test_a_narrow_window(server, tab):
    landing = Landing(tab(f"{server.url}#source=em", width=480, height=900))
    assert landing.page.evaluate("document.documentElement.scrollWidth") <= 480
    landing.page.shot("page-narrow")


def test_the_page_leads_to_neuroglancer(server, tab):
    page = tab(f"{server.url}#source=em")
    Landing(page)
    page.evaluate("document.querySelectorAll('.tree input')[1].click()")
    link = page.evaluate("document.querySelector('#neuroglancer').href")
    assert link.startswith(f"{server.url}api/state/neuroglancer?source=em%2C")
