"""Headless Chromium, driven by the DevTools protocol over aiohttp's WebSocket; what the tests of pages need, no more.

A `Browser` is a process with a profile of its own, a `Page` one tab. Calls are synchronous; a loop in a thread does
the work. Everything has a time-out.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image as Picture

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
SCREENSHOTS = Path(os.environ.get("VOXFETCH_SCREENSHOTS", Path(__file__).parents[1] / "build" / "screenshots"))
# Neuroglancer needs WebGL, here by software; what is random or asks the network is off.
_FLAGS = """
    --headless=new --no-sandbox --disable-gpu --use-angle=swiftshader --enable-unsafe-swiftshader
    --ignore-gpu-blocklist --disable-dev-shm-usage --disable-background-networking --no-first-run
    --disable-component-update --disable-extensions --hide-scrollbars --force-device-scale-factor=1
    --remote-debugging-port=0 about:blank
"""


class LoopThread:
    """An event loop in a thread, for what is asynchronous in tests that are not."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def call(self, coroutine, timeout=30):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


class Browser:
    """A Chromium; a context manager."""

    def __enter__(self):
        self.runner = LoopThread()
        self._folder = tempfile.TemporaryDirectory(prefix="voxfetch-browser-", ignore_cleanup_errors=True)
        command = [PROGRAM, *_FLAGS.split(), f"--user-data-dir={self._folder.name}"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = Path(self._folder.name, "DevToolsActivePort")
        wait_for(lambda: port.exists() and port.read_text().count("\n"), 30, "Chromium did not start")
        self._port = int(port.read_text().split()[0])
        self._session = self.runner.call(self._open_session())
        return self

    async def _open_session(self):
        import aiohttp

        return aiohttp.ClientSession()

    def page(self, url="about:blank", width=1280, height=860):
        """Opens a tab."""
        page = Page(self.runner)
        self.runner.call(page.connect(self._session, self._port))
        page.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        if url != "about:blank":
            page.go(url)
        return page

    def __exit__(self, *_):
        self.runner.call(self._session.close())
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self.runner.close()
        self._folder.cleanup()


class Page:
    """One tab. `requests` are the URLs asked for, `messages` what went to the console as warnings and errors."""

    def __init__(self, runner):
        self._runner = runner
        self._replies = {}
        self._number = 0
        self.requests, self.messages = [], []

    async def connect(self, session, port):
        async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as reply:
            target = await reply.json(content_type=None)
        self._socket = await session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0)
        self._reader = asyncio.ensure_future(self._read())
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self._send(f"{domain}.enable", {})

    async def _read(self):
        async for message in self._socket:
            event = json.loads(message.data)
            if "id" in event:
                future = self._replies.pop(event["id"], None)
                if future is not None and not future.done():
                    future.set_result(event)
                continue
            method, given = event["method"], event["params"]
            if method == "Network.requestWillBeSent":
                self.requests.append((given["request"]["method"], given["request"]["url"]))
            elif method == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
                self.messages.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")
            elif method == "Runtime.exceptionThrown":
                details = given["exceptionDetails"]
                self.messages.append(details.get("exception", {}).get("description") or details["text"])
            elif method == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning", "assert"):
                texts = (str(one.get("value", one.get("description"))) for one in given["args"])
                self.messages.append(" ".join(texts))

    async def _send(self, method, params):
        self._number += 1
        future = self._replies[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        reply = await asyncio.wait_for(future, 30)
        if "error" in reply:
            raise RuntimeError(f"{method}: {reply['error']}")
        return reply["result"]

    def send(self, method, **params):
        """One command of the protocol."""
        return self._runner.call(self._send(method, params), 40)

    def go(self, url):
        self.send("Page.navigate", url=url)

    def evaluate(self, expression):
        """The value of a JavaScript expression; a promise is waited for."""
        done = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise RuntimeError(done["exceptionDetails"].get("exception", {}).get("description", done))
        return done["result"].get("value")

    def wait(self, expression, seconds=30):
        """Waits until a JavaScript expression is true; returns its value."""

        def ask():
            try:
                return self.evaluate(expression)
            except RuntimeError:
                return None

        return wait_for(ask, seconds, lambda: f"never true: {expression}; {self.messages[-5:]}")

    def mouse(self, kind, x, y, **more):
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def drag(self, start, end, steps=4):
        """Presses the left button at `start` (x, y) and lets go at `end`."""
        self.mouse("mousePressed", *start, button="left", buttons=1, clickCount=1)
        for step in range(1, steps + 1):
            x, y = (a + (b - a) * step / steps for a, b in zip(start, end, strict=True))
            self.mouse("mouseMoved", x, y, button="left", buttons=1)
        self.mouse("mouseReleased", *end, button="left", buttons=0, clickCount=1)

    def wheel(self, x, y, delta, *, ctrl=False):
        self.mouse("mouseWheel", x, y, deltaX=0, deltaY=delta, modifiers=2 if ctrl else 0)

    def key(self, key, code=None):
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=code or key)

    def shot(self, name=None):
        """What is to be seen, as (rows, columns, RGB) uint8; kept as a file where `name` is given."""
        data = base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])
        if name:
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            (SCREENSHOTS / f"{name}.png").write_bytes(data)
        return np.asarray(Picture.open(BytesIO(data)).convert("RGB"))


def wait_for(ask, seconds, problem):
    """Asks until the answer is true; returns it."""
    end = time.monotonic() + seconds
    while not (found := ask()):
        if time.monotonic() > end:
            raise TimeoutError(problem() if callable(problem) else problem)
        time.sleep(0.03)
    return found
