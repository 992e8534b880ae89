"""The load: wrk with one thread on one core, which asks for a list of paths in its order."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.serve.process import pinned

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.serve.servers import Request

SCRIPT = Path(__file__).with_name("load.lua")
REPLY_TIMEOUT_S = 10
GRACE_S = 30


class LoadError(Exception):
    """wrk is missing or failed, or a server refused a request."""


@dataclass(frozen=True)
class Load:
    """What wrk counted; ``refused``: replies above 399, ``broken``: connections and replies that failed."""

    requests: int
    bytes: int
    seconds: float
    p50_s: float
    p99_s: float
    refused: int
    broken: int

    @property
    def rate(self) -> float:
        """Replies a second."""
        return self.requests / self.seconds


def wrk() -> str:
    """The program. LoadError where it is missing."""
    found = shutil.which("wrk")
    if found is None:
        raise LoadError("wrk is not installed (Debian: apt-get install wrk); the load comes from it")
    return found


def write_list(path: Path, requests: Iterable[Request]) -> None:
    """The list that ``load`` reads."""
    path.write_text("".join(f"{one.path}\t{one.range or ''}\n" for one in requests))


def load(port: int, requests: Path, *, connections: int, seconds: float, core: int | None) -> Load:
    """Asks a server for the paths of a list (``write_list``) for a time. LoadError where any reply was not right."""
    command = [
        wrk(), "-t", "1", "-c", str(connections), "-d", f"{max(1, round(seconds))}s", "--timeout",
        f"{REPLY_TIMEOUT_S}s", "-s", str(SCRIPT), f"http://127.0.0.1:{port}", "--", str(requests),
    ]  # fmt: skip
    done = subprocess.run(pinned(command, core), capture_output=True, text=True, check=False, timeout=seconds + GRACE_S)
    counted = parse(done.stdout)
    if done.returncode != 0 or counted is None:
        raise LoadError(f"wrk failed: {done.stdout[-300:]} {done.stderr[-300:]}")
    if counted.refused or counted.broken:
        raise LoadError(f"{counted.refused} replies refused, {counted.broken} broken, of {counted.requests}")
    return counted


def parse(output: str) -> Load | None:
    """The counts in the output of wrk, None where there are none."""
    last = output.strip().rpartition("\n")[2]
    return Load(**json.loads(last)) if last.startswith("{") else None
