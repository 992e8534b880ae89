"""vizarr in headless Chromium, on images as `@viv` shows them: its build for Galaxy, the one that a registry has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
import time
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, quote, unquote, urlsplit

import numpy as np
import pytest

from tests.browser import wait_for
from tests.viewing import HOSTILE, Pages, browser, grey, log, near, needs_browser, origin_of, root, server, tab

__all__ = ["browser", "log", "root", "server", "tab"]

pytestmark = [needs_browser, pytest.mark.timeout(120)]

#: vizarr, and the codecs that it loads when it meets them, which its package lacks.
PACKAGES = ("@galaxyproject/vizarr@0.1.8", "numcodecs@0.3.2")
CODEC = re.compile(r"/(zstd|blosc|lz4|chunk-INHXZS53)(?:-[\w-]{8})?\.js")
#: A decoder of JPEG 2000, which it would fetch from the internet; nothing here has that.
JPX = b"https://cdn.jsdelivr.net/gh/mozilla/pdf.js@30bd5f0/src/core/jpx.js"
#: Width of what lies over the picture.
PANEL = 220
PAGE = """<!doctype html><style>html, body, #app {{ margin: 0; height: 100%; background: black }}</style>
<div id="app" data-incoming="{}"></div><script type="module" src="/index.js"></script>"""


class Galaxy(Pages):
    """What vizarr asks of Galaxy: its page, itself, and where a dataset lies, whose name is its URL here."""

    files: ClassVar = {}

    def do_GET(self):
        parts = urlsplit(self.path)
        if parts.path == "/":
            url = parse_qs(parts.query)["source"][0]
            incoming = {"root": "/", "visualization_config": {"dataset_id": quote(url, safe="")}}
            self.say("text/html", PAGE.format(json.dumps(incoming).replace('"', "&quot;")).encode())
        elif parts.path.startswith("/api/datasets/"):
            sources = [{"source_uri": unquote(parts.path.rpartition("/")[2])}]
            self.say("application/json", json.dumps({"state": "deferred", "name": "x", "sources": sources}).encode())
        elif parts.path == "/index.js":
            self.say("text/javascript", self.files["index"].replace(JPX, b"/jpx.js"))
        elif parts.path == "/jpx.js":
            self.say("text/javascript", b"export class JpxImage {}")
        elif match := CODEC.fullmatch(parts.path):
            self.say("text/javascript", self.files[match[1]])
        else:
            self.send_error(404)


@pytest.fixture(scope="module")
def galaxy(request):
    """The URL of a page that shows its query's `source`."""
    place = request.config.rootpath / "build/vizarr"
    if len(list(place.glob("*.tgz"))) < len(PACKAGES):
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("no npm")
        place.mkdir(parents=True, exist_ok=True)
        done = subprocess.run([npm, "pack", *PACKAGES], cwd=place, capture_output=True, timeout=50, check=False)
        if done.returncode != 0:
            pytest.skip(f"npm: {done.stderr.decode()[-200:]}")
    for path in place.glob("*.tgz"):
        with tarfile.open(path) as packed:
            for member in packed:
                if member.name.endswith(".js"):
                    Galaxy.files[Path(member.name).stem] = packed.extractfile(member).read()
    with origin_of(Galaxy) as origin:
        yield f"{origin}/"


def opened(tab, galaxy, url):
    """A tab with the picture, once all of it is drawn."""
    page = tab(f"{galaxy}?source={quote(url, safe='')}")
    settled(page)
    return page


def settled(page):
    """The picture once it stands still, without the panel at its left; not black."""
    before = None

    def stands():
        nonlocal before
        time.sleep(0.5)
        after = page.shot()[:, PANEL:].astype(int)
        is_still, before = before is not None and after.any() and (after == before).all(), after
        return is_still

    wait_for(stands, 60, lambda: f"nothing is drawn: {page.messages[-5:]}")
    return before


def extent(picture):
    """(left, top, right, bottom) of what is not black, in pixels of the whole screen."""
    rows, columns = np.nonzero(picture.any(axis=(1, 2)))[0], np.nonzero(picture.any(axis=(0, 2)))[0]
    return columns[0] + PANEL, rows[0], columns[-1] + 1 + PANEL, rows[-1] + 1


def asked(log, source, since=0):
    """(path below the source, status) of what was asked for."""
    found = (re.fullmatch(rf"/z[23]/@viv/{source}/(.*)", path) for _, path, _ in log.lines[since:])
    return [(match[1], line[2]) for match, line in zip(found, log.lines[since:], strict=True) if match]


@pytest.mark.parametrize("plane", ["z3", "z2"])
def test_vizarr_shows_the_image(server, log, tab, galaxy, plane):
    since = len(log.lines)
    page = opened(tab, galaxy, server.url_of("em", plane, "viv"))
    picture = settled(page)
    page.shot(f"vizarr-{plane}")
    left, top, right, bottom = extent(picture)
    assert right - left == bottom - top
    scale = (right - left) / 1024
    for y in range(32, 1024, 64):
        for x in range(32, 1024, 64):
            color = picture[round(top + y * scale), round(left + x * scale) - PANEL]
            assert near(color, [grey(8, y, x)] * 3), (x, y)
    statuses = dict(asked(log, "em", since))
    assert {status for path, status in statuses.items() if "/" in path} == {200}
    # It looks for either version of Zarr, and takes 404 for an answer.
    assert set(statuses.values()) <= {200, 404}
    remarks = re.compile(r"Failed to load resource.* 404|GL Driver Message|luma.gl: Found instanced")
    assert not [text for text in page.messages if not remarks.search(text)]


def test_vizarr_pans_and_changes_level(server, log, tab, galaxy):
    page = opened(tab, galaxy, server.url_of("em", "z3", "viv"))
    left, top, right, _ = extent(settled(page))
    page.drag((640, 500), (700, 480))
    moved = extent(settled(page))
    # The first steps of a mouse are not taken for a drag.
    assert 20 <= moved[0] - left <= 61
    assert moved[1] - top == pytest.approx((left - moved[0]) / 3, abs=2)
    since = len(log.lines)
    for _ in range(10):
        page.wheel(640, 430, 200)
        time.sleep(0.1)
    smaller = extent(settled(page))
    assert smaller[2] - smaller[0] < (right - left) / 2
    levels = {path.partition("/")[0] for path, _ in asked(log, "em", since) if "/c/" in path}
    assert levels & {"1", "2"}, "no voxels of a coarse level"


def test_vizarr_shows_channels_in_their_colours(server, tab, galaxy):
    picture = settled(opened(tab, galaxy, f"{server.url_of('group', 'z3', 'viv')}/{quote(HOSTILE, safe='')}"))
    left, top, right, _ = extent(picture[:, :, :2])
    scale = (right - left) / 96
    for x, y in ((90, 60), (60, 60), (90, 20)):
        red, green, blue = picture[round(top + y * scale), round(left + x * scale) - PANEL]
        assert near((red, green, blue), (2 * x, 2 * y, 0), 6), (x, y)
