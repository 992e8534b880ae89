"""A server as a process on a core of its own: started, ready, measured, ended."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bench.volumes import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

READY_TIMEOUT_S = 60.0
REPLY_TIMEOUT_S = 10.0
EXIT_TIMEOUT_S = 10.0
STDERR_TAIL_CHARS = 600
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class ServerFailedError(Exception):
    """A server did not start, or ended."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def pinned(command: Sequence[str], core: int | None) -> list[str]:
    """The command on one core; None is all of them."""
    return list(command) if core is None else ["taskset", "-c", str(core), *command]


class ServerProcess:
    """A server for the length of a ``with`` block, which begins when it answers for ``ready``, a path."""

    def __init__(
        self, command: Sequence[str], port: int, ready: str, *, range_header: str | None = None, core: int | None = None
    ) -> None:
        self.port = port
        self._command = command
        self._ready, self._headers = ready, {"Range": range_header} if range_header else {}
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  lives as long as the process
        self._process = subprocess.Popen(
            pinned(command, core), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=self._stderr, stderr=self._stderr
        )

    def __enter__(self) -> Self:
        try:
            self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _wait(self) -> None:
        end = time.monotonic() + READY_TIMEOUT_S
        while (status := self._ask()) is None or status >= http.HTTPStatus.BAD_REQUEST:
            if self._process.poll() is not None:
                raise ServerFailedError(f"{self._command[0]} ended with {self._process.returncode}: {self._tail()}")
            if time.monotonic() > end:
                raise ServerFailedError(f"{self._command[0]} answers {self._ready} with {status}: {self._tail()}")
            time.sleep(0.05)

    def _ask(self) -> int | None:
        """The status of a reply; None without one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REPLY_TIMEOUT_S)
        try:
            connection.request("GET", self._ready, headers=self._headers)
            reply = connection.getresponse()
            reply.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return reply.status

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()

    @property
    def pid(self) -> int:
        """Of the first process of the server."""
        return self._process.pid

    def cpu_s(self) -> float:
        """CPU seconds of the process and of all that it started, until now."""
        return tree_cpu_s(self._process.pid)

    def _tail(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read()[-STDERR_TAIL_CHARS:].strip()


def tree_cpu_s(pid: int) -> float:
    """User and system time of a process, its descendants, and those of them that ended and were waited for."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue  # it has ended
        fields = text.rpartition(")")[2].split()  # from the state on: proc(5) counts that as field 3
        number = int(stat.parent.name)
        children.setdefault(int(fields[1]), []).append(number)
        ticks[number] = sum(map(int, fields[11:15]))
    total, todo = 0, [pid]
    while todo:
        one = todo.pop()
        total += ticks.get(one, 0)
        todo += children.get(one, [])
    return total / TICKS_PER_S
