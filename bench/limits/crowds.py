"""Over HTTP from a server without delay: an epoch over very many shards, very many reads at once, requests a second."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import voxfetch as vf
from bench.limits.arrays import ENTRIES, FOLDER, INDEX_NBYTES, SIDE, document, make, morton, shard
from bench.limits.figures import Figure, count
from bench.limits.planning import MOST_BYTES_A_CHUNK
from bench.remote.server import Server
from bench.worker import reset_peak_rss, rss

MIB = 2**20
INDEX_CACHE_BYTES = 1 << 30
#: Reads that are asked for together in the epoch.
TOGETHER = 256
#: Times that each shard is read from in the epoch.
VISITS = 3
CHUNK = 4


def epoch(_: int, *, few: bool) -> list[Figure]:
    """Reads of chunks of very many shards in random order, a few of each shard, with an index cache of 1 GiB.

    Every shard is an object of its own to the client, a link to one file to the server.
    """
    side = SIDE * CHUNK
    shards = 100 if few else 10_000
    real = make("epoch-shard", document((side,) * 3, CHUNK, zstd=False), [((0, 0, 0), shard(CHUNK, morton()))])
    links = (((n, 0, 0), real / "c/0/0/0") for n in range(shards))
    make("epoch", document((side * shards, side, side), CHUNK, zstd=False), links)
    dice = np.random.default_rng(0)
    order = dice.permutation(np.repeat(np.arange(shards), VISITS))
    chunks = dice.integers(0, SIDE, (len(order), 3))
    truth = chunks @ (SIDE**2, SIDE, 1) % 251
    starts = chunks * CHUNK
    starts[:, 0] += order * side
    with Server(FOLDER) as server, vf.Engine(2 << 30, index_cache_bytes=INDEX_CACHE_BYTES) as engine:
        # Longer than the time for which an index is trusted: an array that never changes.
        options = vf.ReadOptions(immutable=True)
        array = vf.open_array(f"{server.control.url}/epoch", engine=engine, read_options=options)
        server.control.reset(log=True)
        reset_peak_rss()
        before, began = _resident(), time.perf_counter()
        for first in range(0, len(order), TOGETHER):
            got = array.read_many(starts[first : first + TOGETHER], CHUNK)
            if not (got == truth[first : first + TOGETHER, None, None, None]).all():
                raise AssertionError("wrong voxels")
        took, kept = time.perf_counter() - began, _resident() - before
        log = server.control.log()
        stats = engine.stats()
    asked = Counter(entry["path"] for entry in log if entry["end"] - entry["start"] >= INDEX_NBYTES)
    each = stats.index_cache_bytes / shards / ENTRIES
    data = len(log) - asked.total()
    return [
        count("shards whose index was asked for, in an epoch", len(asked), unit="shards"),
        count("most requests for one index, in an epoch", max(asked.values()), 1, "requests"),
        count("indexes decoded less shards, in an epoch", stats.index_misses - shards, 0, "indexes"),
        count("index cache", each, MOST_BYTES_A_CHUNK, "bytes a chunk"),
        count(f"index cache of {shards:,} indexes", stats.index_cache_bytes / MIB, INDEX_CACHE_BYTES / MIB, "MiB"),
        Figure("growth of resident memory in the epoch", "MiB", [kept / MIB]),
        Figure(f"epoch of {len(order):,} chunks, {data:,} requests for them", "s", [took]),
    ]


def crowd(_: int, *, few: bool) -> list[Figure]:
    """10,000 asynchronous reads at once while no reply comes for a while: what they hold."""
    reads = 1000 if few else 10_000
    limit = 64 * MIB
    figures = []
    body = shard(CHUNK, morton())
    make("crowd", document((SIDE * CHUNK,) * 3, CHUNK, zstd=False), [((0, 0, 0), body)])
    cells = np.random.default_rng(0).permutation(ENTRIES)[:reads]
    starts = np.stack(np.unravel_index(cells, (SIDE,) * 3), 1) * CHUNK
    with Server(FOLDER) as server:
        for medium, url in (("disk", str(FOLDER / "crowd")), ("HTTP", f"{server.control.url}/crowd")):
            threads = _threads()
            with vf.Engine(memory_limit_bytes=limit, decode_threads=2) as engine:
                # Each chunk is a request of its own.
                options = vf.ReadOptions(max_gap_bytes=0, max_request_bytes=1)
                array = vf.open_array(url, engine=engine, read_options=options)
                array.read_box(starts[0].tolist(), CHUNK)
                server.control.reset(latency_ms=100)
                held = asyncio.run(_crowd(array, starts, cells))
            files, most_threads, waiting, peak = held
            most = engine.options.max_requests
            of = f"{reads:,} reads, {medium}"
            figures += [
                # A connection whose reply is complete may not be free yet when the next request is sent.
                count(f"descriptors more than before, {of}", files, 2 * most + 16, "descriptors"),
                count(f"threads more than before, {of}", most_threads - threads, 8, "threads"),
                Figure(f"memory of a read that waits, {of}", "KiB", [waiting / reads / 1024]),
                Figure(f"resident memory above that, {of}", "MiB", [(peak - waiting) / MIB], limit / MIB),
            ]
            if medium == "HTTP":
                seen = server.control.stats()["max_in_flight"]
                figures.append(count(f"requests at once, {reads:,} reads", seen, most, "requests"))
    return figures


async def _crowd(array: vf.Array, starts: Any, cells: Any) -> tuple[int, int, int, int]:
    """Descriptors more than before and threads, both at the most; memory once all wait, and at the most."""
    files, memory = _descriptors(), _resident()
    most_files = most_threads = waiting = 0
    reset_peak_rss()
    tasks = [asyncio.ensure_future(array.read_box_async(start, CHUNK)) for start in starts.tolist()]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0.02)
        waiting = waiting or _resident() - memory
        most_files, most_threads = max(most_files, _descriptors()), max(most_threads, _threads())
    for task, cell in zip(tasks, cells.tolist(), strict=True):
        if not (task.result() == cell % 251).all():
            raise AssertionError("wrong voxels")
    return most_files - files, most_threads, waiting, (rss("VmHWM") or 0) - memory


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def _resident() -> int:
    return rss("VmRSS") or 0


def requests(repeat: int, *, few: bool) -> list[Figure]:
    """How many requests a second one process makes, and which threads take the time."""
    number = 500 if few else 10_000
    make("crowd", document((SIDE * CHUNK,) * 3, CHUNK, zstd=False), [((0, 0, 0), shard(CHUNK, morton()))])
    cells = np.random.default_rng(0).permutation(ENTRIES)[:number]
    starts = np.stack(np.unravel_index(cells, (SIDE,) * 3), 1) * CHUNK
    figures = []
    with Server(FOLDER) as server, vf.Engine() as engine:
        options = vf.ReadOptions(max_gap_bytes=0, max_request_bytes=1)
        array = vf.open_array(f"{server.control.url}/crowd", engine=engine, read_options=options)

        def many() -> Any:
            return array.read_many(starts, CHUNK)

        def asynchronous() -> Any:
            async def together() -> Any:
                reads = (array.read_box_async(start, CHUNK) for start in starts.tolist())
                return await asyncio.gather(*reads)

            return np.stack(asyncio.run(together()))

        array.read_box((0, 0, 0), CHUNK)  # from now on the index is known
        for what, read in (("one read_many", many), ("asynchronous reads", asynchronous)):
            rates, cpu = [], Counter[str]()
            for run in range(repeat + 1):
                server.control.reset()
                before, began = _cpu_s(), time.perf_counter()
                got = read()
                took, after = time.perf_counter() - began, _cpu_s()
                asked = server.control.stats()["get"]
                if not (got == (cells % 251)[:, None, None, None]).all() or asked != number:
                    raise AssertionError(f"wrong voxels, or {asked} requests instead of {number}")
                if run:
                    rates.append(number / took)
                    cpu.update({name: (after[name] - before.get(name, 0)) / repeat / number * 1e6 for name in after})
            threads = {name: round(us, 1) for name, us in cpu.most_common(6)}
            figures.append(
                Figure(f"{number:,} requests, {what}", "requests a second", rates, more={"us_cpu_a_request": threads})
            )
    return figures


def _cpu_s() -> dict[str, float]:
    """CPU time of the threads of this process, by name (the workers together)."""
    python = {thread.native_id: thread.name for thread in threading.enumerate()}
    seconds: Counter[str] = Counter()
    for task in Path("/proc/self/task").iterdir():
        try:
            name = python.get(int(task.name)) or (task / "comm").read_text().strip()
            spent = int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue  # it has just ended
        seconds[name.rstrip("0123456789")] += spent / 1e9
    return seconds
