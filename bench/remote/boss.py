"""A BossDB server of one volume, with the delay, the counters and the control of the range server (``server.py``).

    python -m bench.remote.boss VOLUME.npy --exit-with-stdin

serves the voxels (z, y, x) of a file of numpy's as the channel ``bench.writers.CHANNEL``, and prints its port as JSON.
It is the fake of the tests: replies are compressed when they are asked for, within the delay where that is long enough.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from tests.servers.boss import BossServer, Channel
from tests.servers.cloud import Request

from bench.writers import CHANNEL

_CONTROL = "/_control/"
#: Settings of the range server that are zero here.
_UNKNOWN = ("connect_ms", "bandwidth", "log")

Reply = tuple[int, dict[str, str], bytes]


class CountedBoss(BossServer):
    """Replies begin ``latency_s`` after their request; what was asked for since the last reset is counted."""

    def __init__(self, voxels: np.ndarray[Any, Any]) -> None:
        super().__init__({CHANNEL: Channel(voxels, resolutions=1)})
        self._lock = threading.Lock()
        self._ports: set[int] = set()
        self._latency_s = 0.0
        self._in_flight = 0
        self._counts: Counter[str] = Counter()
        self._status: Counter[int] = Counter()

    def answer(self, request: Request) -> Reply:
        """A reply of BossDB, or to a request for control."""
        began_s = time.monotonic()
        if request.path.startswith(_CONTROL):
            return self._control(request.path.removeprefix(_CONTROL), request.query)
        with self._lock:
            self._in_flight += 1
            self._counts["max_in_flight"] = max(self._counts["max_in_flight"], self._in_flight)
            self._counts["new_connections"] += request.port not in self._ports
            self._ports.add(request.port)
            end_s = began_s + self._latency_s
        try:
            status, headers, body = super().answer(request)
            time.sleep(max(0.0, end_s - time.monotonic()))
        finally:
            with self._lock:
                self._in_flight -= 1
        with self._lock:
            self._counts["get"] += 1
            self._counts["bytes"] += len(body)
            self._status[status] += 1
        return status, headers, body

    def _control(self, action: str, settings: dict[str, str]) -> Reply:
        with self._lock:
            if action == "stats":
                names = ("get", "head", "other", "bytes", "max_in_flight", "new_connections")
                stats = {name: self._counts[name] for name in names} | {"status": self._status}
                return 200, {"content-type": "application/json"}, json.dumps(stats).encode()
            if action != "reset" or any(float(settings.get(name, 0)) for name in _UNKNOWN):
                return 400, {}, f"{action} {settings}: not known to the server of BossDB".encode()
            self._latency_s = float(settings.get("latency_ms", 0)) / 1e3
            self._counts.clear()
            self._status.clear()
            self.requests.clear()
            return 200, {}, b""


def main() -> None:
    """Serves until the end of standard input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("voxels", type=Path)
    parser.add_argument("--exit-with-stdin", action="store_true", required=True)
    options = parser.parse_args()
    with CountedBoss(np.load(options.voxels, mmap_mode="r")) as server:
        print(json.dumps({"port": int(server.url.rpartition(":")[2])}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
