"""The range server of bench/server: built with cargo on first use, started over a folder, controlled over HTTP. Another
program that is controlled in the same way may stand in for it (``boss.py``).
"""

from __future__ import annotations

import http.client
import json
import resource
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "bench" / "server"
TARGET = SOURCE / "target"
CONTROL_TIMEOUT_S = 10.0
EXIT_TIMEOUT_S = 5.0


class ServerError(Exception):
    """The server could not be built or started, or refused a control request."""


def build() -> Path:
    """The program, compiled where it is missing or older than its source."""
    command = ["cargo", "build", "--quiet", "--release", "--locked", "--target-dir", str(TARGET)]
    try:
        done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False)
    except OSError as reason:
        raise ServerError(f"cargo does not run, and the range server is built with it: {reason}") from reason
    if done.returncode != 0:
        raise ServerError(f"the range server does not build: {done.stderr.strip()}")
    return TARGET / "release" / "range-server"


def allow_many_connections() -> None:
    """As many files as this process and its children may open: some libraries open thousands of connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Control:
    """Sets the delays of a running server and reads its counters. One thread at a time."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CONTROL_TIMEOUT_S)

    @property
    def url(self) -> str:
        """Of the folder that is served, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def reset(
        self, *, latency_ms: float = 0, connect_ms: float = 0, bandwidth_mb_s: float = 0, log: bool = False
    ) -> None:
        """Counters to zero, the log empty, and these delays from now on; 0 MB/s is no limit.

        latency_ms: from request to first byte; connect_ms: added to that for the first request of a connection.
        """
        settings = {"latency_ms": latency_ms, "connect_ms": connect_ms, "bandwidth": bandwidth_mb_s, "log": int(log)}
        self._ask(f"reset?{urlencode(settings)}")

    def stats(self) -> dict[str, Any]:
        """Since the reset: get, head, other (requests), bytes (of bodies), max_in_flight, new_connections, status."""
        stats: dict[str, Any] = json.loads(self._ask("stats"))
        return stats

    def log(self) -> list[dict[str, Any]]:
        """Requests since a reset with ``log=True``, in the order of their ends; start and end are bytes, half-open."""
        return [json.loads(line) for line in self._ask("log").splitlines()]

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def _ask(self, action: str) -> bytes:
        for last_try in (False, True):
            try:
                self._connection.request("GET", f"/_control/{action}")
                reply = self._connection.getresponse()
                body = reply.read()
                break
            except (http.client.HTTPException, OSError):
                self._connection.close()  # it is opened again by the next request
                if last_try:
                    raise
        if reply.status != http.client.OK:
            raise ServerError(f"{action}: {reply.status} {body.decode(errors='replace')}")
        return body


class Server:
    """A server over a folder for the length of a ``with`` block; it ends with this process, however that ends.

    ``program``: another command than the range server, which takes the same arguments; then what it serves may be a
    file.
    """

    def __init__(self, served: Path, program: Sequence[str] = ()) -> None:
        allow_many_connections()
        command = [*(program or (str(build()),)), str(served), "--exit-with-stdin"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise ServerError(f"{command[0]}: the server ended with exit code {self._process.wait()}")
        self.control = Control(json.loads(line)["port"])

    @property
    def port(self) -> int:
        """On 127.0.0.1."""
        return self.control.port

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.control.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
