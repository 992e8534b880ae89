"""The view of part 2 in Neuroglancer itself: its client of the PyPI wheel, in headless Chromium.

Told is whether it asks for the chunks of the model (``neuroglancer.chunks_of``), and when it has drawn all of them.
The client comes from a server of its own, so that both ways are another origin with six connections.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from aiohttp import web
from tests.browser import Browser, LoopThread

from bench.remote.server import Server
from bench.remote.volumes import SERVED
from bench.runner import interpreter, say
from bench.serve.image import VOXEL_NM, Image, build_image
from bench.serve.neuroglancer import Chunk, View, chunks_of
from bench.serve.process import ServerProcess, free_port
from bench.serve.servers import SOURCE, own_command
from bench.serve.view import DIRECT, WAYS, image_url, middle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.volumes import Size

READY_S = 240
#: Pixels that Neuroglancer has beside and above its panels.
EDGE, BARS = 8, 76
_SIZES = "[...viewer.display.panels].filter(p => p.sliceView).map(p => [p.element.clientWidth, p.element.clientHeight])"


def in_browser(volumes: Sequence[str], size: Size, latencies_ms: Sequence[float], pixels: int) -> list[dict[str, Any]]:
    """One view of each image, both ways, at each distance."""
    results: list[dict[str, Any]] = []
    with Server(SERVED) as store, _Client() as client, Browser() as browser:
        for name in volumes:
            image = build_image(name, size)
            for latency_ms in latencies_ms:
                for engine in WAYS:
                    seen = _seen(engine, image, store, client, browser, latency_ms=latency_ms, pixels=pixels)
                    results.append({"engine": engine, "volume": name, "latency_ms": latency_ms} | seen)
                    say(f"  {engine:12}{name:14}{latency_ms:4g} ms {seen}")
    return results


def _seen(
    engine: str, image: Image, store: Server, client: _Client, browser: Any, *, latency_ms: float, pixels: int
) -> dict[str, Any]:
    url = image_url(image, store.port)
    store.control.reset()
    view = middle(image, pixels)
    if engine == DIRECT:
        panels, ready_s = _page(view, store, client, browser, url, latency_ms=latency_ms, pixels=pixels)
        asked = _ranges(image, store)
    else:
        port = free_port()
        with (
            tempfile.NamedTemporaryFile("r") as log,
            ServerProcess(own_command(url, port, "", log.name), port, f"/z3/{SOURCE}/zarr.json"),
        ):
            served = f"http://127.0.0.1:{port}/z3/{SOURCE}"
            panels, ready_s = _page(view, store, client, browser, served, latency_ms=latency_ms, pixels=pixels)
            asked = chunks_asked(log.read())
    wanted: set[Chunk] = set()
    for panel in panels:
        wanted |= set(chunks_of(View(view.at, panel), image.geometry))
    return {
        "panels": ["x".join(map(str, panel)) for panel in panels],
        "model": len(wanted),
        "asked": len(asked),
        "missing": len(wanted - asked),
        "more": len(asked - wanted),
        "ready_s": ready_s,
    }


def _page(
    view: View, store: Server, client: _Client, browser: Any, url: str, *, latency_ms: float, pixels: int
) -> tuple[list[tuple[int, int]], float]:
    """Sizes of the panels, and seconds until all was drawn."""
    page = browser.page(width=2 * pixels + EDGE, height=2 * pixels + BARS)
    try:
        store.control.reset(latency_ms=latency_ms, log=True)
        began = time.perf_counter()
        page.go(f"{client.url}/v/bench/#!{quote(json.dumps(state(url, view)))}")
        page.wait("window.viewer !== undefined && viewer.isReady()", READY_S)
        ready_s = time.perf_counter() - began
        panels = [tuple(panel) for panel in page.evaluate(_SIZES)]
    finally:
        page.send("Page.close")
    return panels, ready_s


def state(url: str, view: View) -> dict[str, Any]:
    """Of Neuroglancer: three planes, nothing around them, a voxel a pixel."""
    metre = VOXEL_NM * 1e-9
    return {
        "dimensions": {axis: [metre, "m"] for axis in "xyz"},
        "position": list(view.at),
        "crossSectionScale": view.pixel,
        "layers": [{"type": "image", "name": "bench", "source": f"{url}/|zarr3:"}],
        "layout": "4panel",
        "showUIControls": False,
        "showPanelBorders": False,
        "showLayerPanel": False,
        "statusBar": False,
    }


def chunks_asked(log: str) -> set[Chunk]:
    """The chunks in the access log of voxfetch's server."""
    found = re.findall(r"GET /z3/\S+?/(\d+)/c/0/(\d+)/(\d+)/(\d+) 200 ", log)
    return {Chunk(int(level), tuple(map(int, position))) for level, *position in found}


def _ranges(image: Image, store: Server) -> set[Chunk]:
    """The chunks whose ranges the store was asked for."""
    places = {
        (level, part.key, part.start, part.end): Chunk(level, position[1:])
        for level, stored in enumerate(image.levels)
        for position, part in stored.parts.items()
    }
    found: set[Chunk] = set()
    for request in store.control.log():
        level, _, key = request["path"].partition(f"{image.path.name}/")[2].partition("/")
        chunk = places.get((int(level) if level.isdigit() else -1, key, request["start"], request["end"]))
        if chunk is not None:
            found.add(chunk)
    return found


class _Client:
    """Serves the client of the wheel; a context manager."""

    def __enter__(self) -> Self:
        code = "import neuroglancer, pathlib; print(pathlib.Path(neuroglancer.__file__).parent / 'static' / 'client')"
        done = subprocess.run([interpreter("neuroglancer"), "-c", code], capture_output=True, text=True, check=True)
        self._folder = Path(done.stdout.strip())
        self._thread = LoopThread()
        self.url = self._thread.call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.call(self._stop())
        self._thread.close()

    async def _start(self) -> str:
        self._over = asyncio.Event()
        app = web.Application()
        app.router.add_get("/v/bench/", self._index)
        app.router.add_static("/v/bench/", self._folder)
        app.router.add_get("/events/bench", self._events)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        port = free_port()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        return f"http://127.0.0.1:{port}"

    async def _stop(self) -> None:
        self._over.set()
        await self._runner.cleanup()

    async def _index(self, request: web.Request) -> web.FileResponse:
        del request
        return web.FileResponse(self._folder / "index.html")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """An event stream that says nothing: the client wants one."""
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await reply.prepare(request)
        await reply.write(b": \n\n")
        await self._over.wait()
        return reply
