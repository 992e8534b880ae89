"""What the tests of pages share: volumes, a server of them with its log, a browser. The fixtures are to be imported.

Pictures go to build/screenshots, or to the folder that VOXFETCH_SCREENSHOTS names.
"""

from __future__ import annotations

import logging
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import zarr

from tests.browser import PROGRAM, Browser
from tests.volumes import write_labels, write_volume
from voxfetch.server import Server, ServerOptions

needs_browser = pytest.mark.skipif(PROGRAM is None, reason="no Chromium")

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
        method, path, status = re.match(r"(\S+) (.*) (\d+) \d+ \S+ ms", record.getMessage()).groups()
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
    flat = {"shape": (5, 64, 96), "scale": (1.0, 10.0, 10.0), "axes": "tyx", "omero": SHOWN_AS_IT_IS}
    write_volume(root / "movie.zarr", lambda t, y, x: 20 + 40 * t, **flat)
    spectrum = {"shape": (30, 2, 32, 32), "scale": (1.0,) * 4, "translation": (0.0,) * 4, "axes": "czyx"}
    write_volume(root / "spectrum.zarr", lambda c, z, y, x: c * 8, **spectrum)
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
    names = ("em", "group", "broken", "a", "b", "floats", "plain", "movie", "spectrum")
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


class Pages(BaseHTTPRequestHandler):
    """What serves a page of somebody else."""

    def say(self, kind, content):
        """Answers with this content."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def origin_of(pages):
    """The origin of a server of `Pages`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), pages)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def near(color, expected, tolerance=2):
    """Whether two colours are the same but for rounding."""
    return all(abs(a - b) <= tolerance for a, b in zip(color, expected, strict=True))
