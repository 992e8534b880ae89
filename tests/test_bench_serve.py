"""The bench of servers: chunks are what they say, the model asks for what a view needs, wrong answers are found."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import zarr

pytest.importorskip("bench", reason="no benchmarks next to the tests")
pytest.importorskip("aiohttp")
pytest.importorskip("tensorstore", reason="it writes the volume")

from bench.serve import load as loads
from bench.serve import view
from bench.serve.chunks import ABSENT, Decoder, StoredChunks, parse_index
from bench.serve.command import PARTS
from bench.serve.image import build_image, halved
from bench.serve.neuroglancer import PLANES, Chunk, Level, View, chunks_of, levels_of
from bench.serve.process import ServerFailedError, ServerProcess, free_port, tree_cpu_s
from bench.serve.report import markdown
from bench.serve.servers import Request, Server
from bench.serve.throughput import _check
from bench.serve.view import DIRECT, Shards, Viewed, _sample, middle
from bench.volumes import build
from bench.worker import WrongAnswerError


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where volumes are built."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        for module in ("volumes", "serve.image"):
            patch.setattr(f"bench.{module}.CACHE", folder)
        for module in ("remote.volumes", "serve.view"):
            patch.setattr(f"bench.{module}.SERVED", folder / "v1")
        yield folder


@pytest.fixture(scope="module")
def stored(cache):
    return StoredChunks.of(build("webknossos", "small"))


# ------------------------------------------------------------------------------------------------------------- chunks


def test_chunks_without_shards_are_the_volume(stored, tmp_path):
    stored.write(tmp_path)
    array = zarr.open_array(tmp_path, mode="r")
    assert array.shards is None
    assert array.chunks == (1, 32, 32, 32)
    assert np.array_equal(array[...], zarr.open_array(stored.path, mode="r")[...])
    assert len(stored.parts) == math.prod(-(-n // c) for n, c in zip(stored.shape, stored.chunk, strict=True))


def test_a_body_is_checked_by_bytes_and_by_voxels(stored):
    first, second = sorted(stored.parts)[:2]
    stored.check(first, stored.body(first))
    with pytest.raises(WrongAnswerError):
        stored.check(first, stored.body(second))
    voxels = Decoder(stored.unsharded)(first, stored.body(first))
    stored.check(first, voxels.tobytes(), lambda _, body: np.frombuffer(body, "u1").reshape(voxels.shape))
    wrong = voxels.copy()
    wrong[0, 3, 4, 5] ^= 1
    with pytest.raises(WrongAnswerError):
        stored.check(first, wrong.tobytes(), lambda _, body: np.frombuffer(body, "u1").reshape(voxels.shape))


def test_an_edge_chunk_is_compared_inside_the_volume(stored):
    last = max(stored.parts)
    assert stored.box(last).shape < stored.chunk
    stored.check(last, stored.body(last))


def test_an_index_says_what_is_absent():
    entries = np.array([[0, 7], [ABSENT, ABSENT], [7, 5]], "<u8")
    assert parse_index(entries.tobytes() + b"crcc") == [(0, 7), (ABSENT, ABSENT), (7, 5)]


class _Swapped(BaseHTTPRequestHandler):
    """Gives the chunks of a volume, but for one, which has the bytes of another."""

    def do_GET(self):
        position = tuple(map(int, self.path.removeprefix("/c/").split("/")))
        body = self.server.stored.body((0, 0, 0, 0) if position == (0, 1, 1, 1) else position)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass


def test_a_server_with_one_wrong_chunk_is_found(stored):
    with ThreadingHTTPServer(("127.0.0.1", 0), _Swapped) as running:
        running.daemon_threads = True
        running.stored = stored
        threading.Thread(target=running.serve_forever, daemon=True).start()
        server = Server([], running.server_address[1], lambda at: Request(f"/{stored.key(at)}"), {}, "")
        order = sorted(stored.parts)
        right = [position for position in order if position != (0, 1, 1, 1)]
        assert _check(server, stored, right)[0] == len(order) - 1
        with pytest.raises(WrongAnswerError, match=r"chunk \(0, 1, 1, 1\)"):
            _check(server, stored, order)
        running.shutdown()


# -------------------------------------------------------------------------------------------------------------- model


def pyramid(extent, chunk, count):
    return [Level((extent >> k,) * 3, (chunk,) * 3, (2.0**k,) * 3) for k in range(count)]


def test_a_view_needs_what_its_planes_meet():
    levels = pyramid(1024, 32, 3)
    seen = View((500.5, 300.5, 700.5), (400, 300))
    naive = set()
    for number, level in enumerate(levels):
        at = [a / 2**number for a in seen.at]
        for position in itertools.product(*(range(n // c) for n, c in zip(level.shape, level.chunk, strict=True))):
            for across, (right, down) in PLANES.items():
                reach = {right: 200 / 2**number, down: 150 / 2**number, across: 0}
                if all(p * 32 <= at[a] + reach[a] and (p + 1) * 32 > at[a] - reach[a] for a, p in enumerate(position)):
                    naive.add(Chunk(number, position))
    assert set(chunks_of(seen, levels)) == naive


def test_coarse_levels_and_the_middle_come_first():
    levels = pyramid(1024, 32, 4)
    seen = View((512.5,) * 3, (1024, 1024))
    wanted = chunks_of(seen, levels)
    assert len(wanted) == len(set(wanted))
    assert [level for level, _ in itertools.groupby(chunk.level for chunk in wanted)] == [3, 2, 1, 0]
    finest = [chunk.position for chunk in wanted if chunk.level == 0]
    # Three planes of 32 x 32, which meet in three lines and one chunk.
    assert len(finest) == 3 * 32 * 32 - 3 * 32 + 1
    assert finest[0] == (16, 16, 16)
    far = [math.dist([32 * p for p in position], seen.at) for position in finest]
    assert far == sorted(far)


@pytest.mark.parametrize(("pixel", "shown"), [(0.5, [3, 2, 1, 0]), (1, [3, 2, 1, 0]), (2, [3, 2, 1]), (3, [3, 2])])
def test_the_finest_level_is_about_as_fine_as_pixels(pixel, shown):
    assert levels_of(View((0, 0, 0), (8, 8), pixel), pyramid(1024, 32, 4)) == shown


# -------------------------------------------------------------------------------------------------------------- views


def test_levels_are_means():
    voxels = np.random.default_rng(1).integers(0, 255, (6, 5, 4), np.uint8)
    even = voxels[:6, :4, :4].astype(float)
    assert np.array_equal(halved(voxels), np.floor(even.reshape(3, 2, 2, 2, 2, 2).mean((1, 3, 5))))


def test_a_viewer_of_shards_asks_for_size_index_and_ranges(cache):
    from bench.remote.server import Server as Store

    image = build_image("webknossos", "small")
    with Store(cache / "v1") as store:
        viewed = Viewed(DIRECT, "webknossos", 1, 96)
        _sample(viewed, image, store)
    [run] = viewed.runs
    wanted = chunks_of(middle(image, 96), image.geometry)
    shards = len(image.levels)
    assert (run["head"], run["get"]) == (shards, shards + len(wanted))
    assert run["max_in_flight"] <= 6
    indexes = sum(level.index_bytes for level in image.levels)
    parts = [image.levels[chunk.level].parts[0, *chunk.position] for chunk in wanted]
    assert run["bytes"] == indexes + sum(part.end - part.start for part in parts)


def test_a_store_that_lacks_a_shard_is_told(cache, monkeypatch):
    image = build_image("webknossos", "small")
    monkeypatch.setattr(view, "build_image", lambda *_: image)
    moved = image.path / "1" / "c"
    moved.rename(image.path / "moved")
    try:
        [viewed] = view.views(["webknossos"], "small", [DIRECT], latencies_ms=[0], pixels=96, repeat=2)
    finally:
        (image.path / "moved").rename(moved)
    assert (viewed.failed, viewed.runs) == (True, [])
    assert "404" in viewed.problem


def test_the_same_chunks_come_through_the_server(cache):
    from bench.remote.server import Server as Store

    image = build_image("webknossos", "small")
    with Store(cache / "v1") as store:
        viewed = Viewed("voxfetch", "webknossos", 1, 96)
        _sample(viewed, image, store)
    [run] = viewed.runs
    assert run["get"] > 0
    assert run["seconds"] >= run["half_s"] >= run["first_s"] > 0


def test_an_absent_chunk_is_not_asked_for(cache):
    image = build_image("webknossos", "small")

    async def fetched():
        way = Shards(None, image, "http://nowhere")
        index = asyncio.get_running_loop().create_future()
        index.set_result([(ABSENT, ABSENT)] * (32**3))
        way._indexes["http://nowhere/0/c/0/0/0/0"] = index
        return await way.fetch(Chunk(0, (1, 2, 3)))

    assert asyncio.run(fetched()) is None


# --------------------------------------------------------------------------------------------------------- load, CPU


def test_counts_of_wrk():
    counts = {
        "requests": 10, "bytes": 1000, "seconds": 2.0, "p50_s": 0.001, "p99_s": 0.002, "refused": 0, "broken": 0
    }  # fmt: skip
    assert loads.parse(f"Running 1s test\n\n{json.dumps(counts)}\n").rate == 5
    assert loads.parse("unable to connect") is None


def test_wrk_asks_for_the_list_in_its_order(tmp_path):
    try:
        loads.wrk()
    except loads.LoadError as reason:
        pytest.skip(str(reason))
    asked = []

    class Recorder(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            asked.append((self.path, self.headers["Range"], self.headers["Host"]))
            self.send_response(404 if self.path == "/gone" else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    wanted = [Request("/a"), Request("/b", "bytes=3-7"), Request("/c")]
    with ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        server.daemon_threads = True
        port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        loads.write_list(tmp_path / "list", wanted)
        done = loads.load(port, tmp_path / "list", connections=1, seconds=1, core=None)
        assert done.requests >= len(wanted)
        # wrk has tried its script once, so that the first path is the last of the first round.
        expected = [(one.path, one.range, f"127.0.0.1:{port}") for one in (*wanted[1:], *wanted)]
        assert asked[: len(expected)] == expected
        loads.write_list(tmp_path / "list", [Request("/gone")])
        with pytest.raises(loads.LoadError, match="refused"):
            loads.load(port, tmp_path / "list", connections=1, seconds=1, core=None)
        server.shutdown()


BURN = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"


ENDED = "subprocess.run([sys.executable, '-c', burn])"
AT_WORK = """
child = subprocess.Popen([sys.executable, "-c", burn + "\\nprint(flush=True); time.sleep(20)"], stdout=-1)
child.stdout.readline()
"""


@pytest.mark.parametrize("lives", [ENDED, AT_WORK], ids=["ended", "at work"])
def test_cpu_time_of_children_counts(lives):
    begin, end = (
        f"import subprocess, sys\nburn = {BURN!r}\nchild = None",
        "print(flush=True)\ninput()\nchild and child.kill()",
    )
    code = f"{begin}\n{lives}\n{end}"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert tree_cpu_s(process.pid) >= 0.25
        process.communicate(b"\n")


def test_a_server_that_ends_is_told():
    began = time.monotonic()
    command = [sys.executable, "-c", "raise SystemExit('no room')"]
    with pytest.raises(ServerFailedError, match="no room"), ServerProcess(command, free_port(), "/"):
        pass
    assert time.monotonic() - began < 20


# ------------------------------------------------------------------------------------------------------------- report


def load_of(rate, connections):
    counted = {
        "requests": rate,
        "seconds": 1.0,
        "p50_s": 0.001,
        "p99_s": 0.002,
        "cpu_s": 0.5,
        "connections": connections,
    }
    return counted | {"number": 1, "bytes": 1, "refused": 0, "broken": 0}


def test_the_report_compares_with_the_limit_the_best_peer_and_the_direct_way():
    rates = {"voxfetch": 6000, "nginx": 12000, "zarrhttp": 4000, "neuroglancer": 1000}
    common = {"volume": "webknossos", "problem": None, "failed": False, "cut_short": False}
    served = [
        common | {"engine": engine, "chunk_bytes": 32768, "body_bytes": 20000.0, "checked": 1, "versions": {"it": "1"},
                  "configuration": "plain", "runs": [load_of(rate, 64)]}
        for engine, rate in rates.items()
    ]  # fmt: skip
    run = {"first_s": 0.1, "half_s": 1.0, "cpu_s": 0.3, "get": 9, "head": 1, "bytes": 5e6, "max_in_flight": 6}
    seen = [
        common | {"engine": engine, "latency_ms": 20.0, "pixels": 64, "chunks": 9, "runs": [run | {"seconds": seconds}]}
        for engine, seconds in (("direct", 9.0), ("voxfetch", 3.0))
    ]
    seen.append(
        common | {"engine": "broken", "latency_ms": 20.0, "chunks": 0, "runs": [], "failed": True, "problem": "x"}
    )
    document = {
        "created": "2026-11-29T00:00:00", "command": ["python"], "commit": "abc",
        "load_average": {"before": [0], "after": [0]},
        "machine": {"cores": 2, "cpu": "cpu", "memory_bytes": 2**30, "kernel": "6", "python": "3"},
        "settings": {"size": "medium", "view_size": "full", "repeat": 1, "connections": [64], "pixels": 64},
        "throughput": served, "view": seen,
    }  # fmt: skip
    assert set(PARTS) <= set(document)
    text = markdown(document)
    # Half of nginx, one and a half times the best peer; 6000 chunks of 32 KiB are 197 MB.
    assert "| voxfetch | 6,000 | 0.50 | 1.50 | 0.083 | 197 | 120 | 1.00 | 2.00 |" in text
    assert "| **zarrhttp** | 4,000 | 0.33 | 1.00 |" in text
    assert "| webknossos | 20 | voxfetch | 9 | 0.10 | 1.00 | 3.00 | **3.00** | 10 | 5.0 | 6 | 0.30 |" in text
    assert "- broken, webknossos: x" in text
