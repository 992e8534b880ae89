"""Whether the range server answers as HTTP/1.1 wants it and keeps the delays it was given."""

from __future__ import annotations

import email.utils
import http.client
import itertools
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from bench.remote.server import Server

BODY = bytes(itertools.islice(itertools.cycle(range(251)), 300_000))
SIZE = len(BODY)
MODIFIED_S = 784_111_777  # Sun, 06 Nov 1994 08:49:37 GMT
LATENCY_MS = 30.0
BANDWIDTH_MB_S = 2.0
#: Request headers -> status, bytes of the body (half-open), Content-Range.
RANGES: tuple[tuple[str | None, int, tuple[int, int], str | None], ...] = (
    (None, 200, (0, SIZE), None),
    ("bytes=0-0", 206, (0, 1), f"bytes 0-0/{SIZE}"),
    ("bytes=10-19", 206, (10, 20), f"bytes 10-19/{SIZE}"),
    ("bytes=100-250000", 206, (100, 250_001), f"bytes 100-250000/{SIZE}"),
    ("bytes=299990-", 206, (299_990, SIZE), f"bytes 299990-299999/{SIZE}"),
    ("bytes=299990-400000", 206, (299_990, SIZE), f"bytes 299990-299999/{SIZE}"),
    ("bytes=-7", 206, (SIZE - 7, SIZE), f"bytes 299993-299999/{SIZE}"),
    ("bytes=-400000", 206, (0, SIZE), f"bytes 0-299999/{SIZE}"),
    ("bytes=300000-", 416, (0, 0), f"bytes */{SIZE}"),
    ("bytes=-0", 416, (0, 0), f"bytes */{SIZE}"),
    ("bytes=9-3", 200, (0, SIZE), None),
    ("bytes=0-1,5-6", 200, (0, SIZE), None),
    ("lines=0-1", 200, (0, SIZE), None),
)


class _Expect(Protocol):
    """Notes a problem where the two differ."""

    def __call__(self, what: str, found: Any, wanted: Any) -> None: ...


class _Client:
    """One connection; ``ask`` sends a request and reads the whole reply."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def ask(self, method: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (names in lower case), body. Underscores in the names of ``headers`` stand for hyphens."""
        self._connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        reply = self._connection.getresponse()
        return reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()


def check_server() -> list[str]:
    """What is wrong, a line each; empty where all is right."""
    problems: list[str] = []

    def expect(what: str, found: Any, wanted: Any) -> None:
        if found != wanted:
            problems.append(f"{what}: {found!r}, not {wanted!r}"[:300])

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "bucket" / "a b%.bin"
        file.parent.mkdir()
        file.write_bytes(BODY)
        os.utime(file, (MODIFIED_S, MODIFIED_S))
        (folder / "bucket" / "link").symlink_to(file.name)
        (folder / "empty").touch()
        with Server(folder) as server:
            _check_objects(server, folder, expect)
            _check_delays(server, expect)
    return problems


def _check_objects(server: Server, folder: Path, expect: _Expect) -> None:
    path = "/bucket/a%20b%25.bin"
    server.control.reset(log=True)
    client = _Client(server.port)
    for asked, status, (start, end), content_range in RANGES:
        found, headers, body = client.ask("GET", path, **({"Range": asked} if asked else {}))
        expect(f"Range {asked}: status", found, status)
        expect(f"Range {asked}: body", body, BODY[start:end])
        expect(f"Range {asked}: Content-Range", headers.get("content-range"), content_range)
        expect(f"Range {asked}: Content-Length", headers.get("content-length"), str(end - start))
    stats = server.control.stats()
    expect("counted", [stats[k] for k in ("get", "head", "new_connections", "max_in_flight")], [len(RANGES), 0, 1, 1])
    expect("bytes", stats["bytes"], sum(end - start for _, _, (start, end), _ in RANGES))
    logged = [(line["status"], (line["start"], line["end"])) for line in server.control.log()]
    expect("log", logged, [(status, part) for _, status, part, _ in RANGES])

    status, headers, body = client.ask("HEAD", path, Range="bytes=1-2")
    expect("HEAD", (status, body, headers["content-length"]), (200, b"", str(SIZE)))
    expect("Last-Modified", email.utils.parsedate_to_datetime(headers["last-modified"]).timestamp(), MODIFIED_S)
    expect("Accept-Ranges", headers["accept-ranges"], "bytes")
    etag = headers["etag"]
    expect("the ETag is strong", etag[:1] + etag[-1:], '""')
    expect("ETag through a link", client.ask("HEAD", "/bucket/link")[1]["etag"], etag)
    for tags, status in ((etag, 206), (f'"x", {etag}', 206), ("*", 206), ('"x"', 412), (f"W/{etag}", 412)):
        expect(f"If-Match {tags}", client.ask("GET", path, If_Match=tags, Range="bytes=0-3")[0], status)
    expect("If-None-Match", client.ask("GET", path, If_None_Match=etag)[::2], (304, b""))
    expect("If-None-Match, another", client.ask("GET", path, If_None_Match='"x"')[0], 200)
    expect("empty", client.ask("GET", "/empty")[::2], (200, b""))
    expect("empty, range", client.ask("GET", "/empty", Range="bytes=0-")[0], 416)
    for missing in ("/nothing", "/bucket", "/bucket/", "/", "/bucket/../empty", "/%2e%2e/x", "/%zz", "/_control"):
        expect(f"GET {missing}", client.ask("GET", missing)[::2], (404, b""))
    expect("HEAD of what is missing", client.ask("HEAD", "/nothing")[0], 404)
    expect("PUT", _Client(server.port).ask("PUT", "/empty")[0], 405)
    expect("control, unknown", client.ask("GET", "/_control/other")[0], 400)
    expect("control, no number", client.ask("GET", "/_control/reset?latency_ms=-1")[0], 400)

    replaced = folder / "replaced"
    replaced.write_bytes(BODY)
    replaced.replace(folder / "bucket" / "a b%.bin")
    expect("ETag of what was replaced", client.ask("GET", path, If_Match=etag)[0], 412)


def _check_delays(server: Server, expect: _Expect) -> None:
    """Lower bounds only: a busy machine may be late, never early."""

    def seconds(client: _Client, wanted: str) -> float:
        start = time.perf_counter()
        client.ask("GET", "/bucket/link", Range=wanted)
        return time.perf_counter() - start

    clients = [_Client(server.port) for _ in range(32)]
    server.control.reset(latency_ms=LATENCY_MS, connect_ms=LATENCY_MS)
    took = [seconds(clients[0], "bytes=0-9") for _ in range(2)]
    expect(f"latency, {took[0]:.4f} s at first", took[0] >= 2 * LATENCY_MS / 1e3, wanted=True)
    expect(f"latency, {took[1]:.4f} s", LATENCY_MS / 1e3 <= took[1] < took[0], wanted=True)
    server.control.reset(bandwidth_mb_s=BANDWIDTH_MB_S)
    took_s, least_s = seconds(clients[0], "bytes=0-199999"), 0.2 / BANDWIDTH_MB_S
    expect(f"bandwidth, {took_s:.4f} s", took_s >= least_s, wanted=True)
    server.control.reset(latency_ms=10 * LATENCY_MS)
    start = time.perf_counter()
    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(seconds, clients, itertools.repeat("bytes=0-9")))
    took_s = time.perf_counter() - start
    stats = server.control.stats()
    expect(f"all at once, {took_s:.3f} s", took_s < len(clients) * 10 * LATENCY_MS / 1e3 / 4, wanted=True)
    counted = [stats[k] for k in ("get", "max_in_flight", "new_connections", "in_flight")]
    expect("in flight", counted, [len(clients), len(clients), len(clients) - 1, 0])
    server.control.reset()
