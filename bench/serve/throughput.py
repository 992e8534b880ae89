"""Part 1: chunks a second of one core. Servers take turns; wrk asks for every chunk of a volume in random order."""

from __future__ import annotations

import http.client
import random
import tempfile
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.runner import say, turns
from bench.serve.chunks import StoredChunks
from bench.serve.load import LoadError, load, write_list
from bench.serve.process import ServerFailedError, ServerProcess
from bench.serve.servers import SERVERS, TRANSCODED, TRANSCODING, ServerMissingError
from bench.volumes import CACHE, build
from bench.worker import WrongAnswerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.serve.chunks import Shape
    from bench.serve.servers import Server
    from bench.volumes import Size

REPLY_TIMEOUT_S = 60


@dataclass
class Served:
    """What one server did with one volume. ``body_bytes``: mean of its bodies."""

    engine: str
    volume: str
    chunk_bytes: int
    body_bytes: float = 0.0
    checked: int = 0
    #: {"connections", "cpu_s" of the server, counts of wrk}, in the order they were taken.
    runs: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    configuration: str = ""
    problem: str | None = None
    failed: bool = False
    cut_short: bool = False

    def note(self, reason: Exception) -> None:
        """A server that is missing, or one that failed."""
        self.failed = not isinstance(reason, ServerMissingError)
        self.problem = str(reason)
        say(f"  {self.engine:20}{'FAILED' if self.failed else 'skipped'}: {reason}")


def throughput(
    volumes: Sequence[str], size: Size, engines: Sequence[str], *,
    connections: Sequence[int], seconds: float, repeat: int, seed: str, cores: tuple[int, int] | None,
) -> list[Served]:  # fmt: skip
    """Everything. Without ``connections`` answers are checked alone. ``cores``: the server's and that of the load."""
    server_core, load_core = cores or (None, None)
    results: list[Served] = []
    for name in volumes:
        stored = StoredChunks.of(build(name, size))
        say(f"{name}: {len(stored.parts)} chunks of {stored.chunk}")
        order = sorted(stored.parts)
        random.Random(seed).shuffle(order)
        found = [Served(engine, name, stored.chunk_bytes) for engine in engines]
        results += found
        with ExitStack() as stack:
            running: dict[str, ServerProcess] = {}
            lists: dict[str, Path] = {}
            for served in found:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serve-", dir=CACHE)))
                volume = build(TRANSCODED[name] if served.engine == TRANSCODING else name, size)
                try:
                    server = SERVERS[served.engine](folder, stored, volume)
                    served.versions, served.configuration = server.versions, server.configuration
                    first = server.request(order[0])
                    process = ServerProcess(
                        server.command, server.port, first.path, range_header=first.range,
                        core=server_core,
                    )  # fmt: skip
                    running[served.engine] = stack.enter_context(process)
                    served.checked, served.body_bytes = _check(server, stored, order)
                except (ServerMissingError, ServerFailedError, WrongAnswerError, OSError) as reason:
                    served.note(reason)
                    continue
                lists[served.engine] = folder / "requests"
                write_list(lists[served.engine], map(server.request, order))
                say(f"  {served.engine:20}{served.checked} bodies right")
            for number, served in turns(repeat if connections else 0, found):
                for count in connections:
                    process = running[served.engine]
                    before_s = process.cpu_s()
                    try:
                        done = load(
                            process.port, lists[served.engine], connections=count, seconds=seconds,
                            core=load_core,
                        )  # fmt: skip
                    except LoadError as reason:
                        served.note(reason)
                        break
                    run = {"number": number, "connections": count, "cpu_s": process.cpu_s() - before_s}
                    served.runs.append(run | asdict(done))
                    say(f"  {served.engine:20}{count:4} connections {done.rate:10.0f} chunks/s")
    return results


def _check(server: Server, stored: StoredChunks, order: Sequence[Shape]) -> tuple[int, float]:
    """Asks for every chunk once: how many there are, and the mean of their bodies in bytes.

    WrongAnswerError where one is not what is stored.
    """
    decode = server.decoder()
    total = 0
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=REPLY_TIMEOUT_S)) as connection:
        for position in order:
            wanted = server.request(position)
            connection.request("GET", wanted.path, headers={"Range": wanted.range} if wanted.range else {})
            reply = connection.getresponse()
            body = reply.read()
            if reply.status != (206 if wanted.range else 200):
                raise WrongAnswerError(f"{wanted.path}: {reply.status} {body[:200].decode(errors='replace')}")
            stored.check(position, body, decode)
            total += len(body)
    return len(order), total / len(order)
