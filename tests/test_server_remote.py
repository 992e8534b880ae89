"""Chunks of remote sources through the planes: what is requested, what fails, what is let go."""

from __future__ import annotations

import asyncio
import shutil

import numpy as np
import pytest

import voxfetch as vf
from tests.conftest import values, write
from tests.planes import Planes, by_zarr
from tests.servers.faulty import FaultyServer, status
from voxfetch.server.cache import ChunkCache

FAST = vf.RetryPolicy(max_attempts=2, base_s=0.01, cap_s=0.02, idle_timeout_s=5)


@pytest.fixture
def stored(tmp_path):
    """A sharded array of which chunks pass: 4 x 4 chunks of 32 KiB a shard."""
    return write(tmp_path / "a", values((1024, 1024), "u2"), chunks=(128, 128), shards=(512, 512))


@pytest.fixture
def server(stored):
    with FaultyServer(stored.path) as server:
        yield server


def opened(server, **options):
    return vf.open(server.url, engine=vf.Engine(retry=FAST), **options)


def test_a_cold_chunk_costs_an_index_and_a_range_and_the_next_one_a_range(server, stored):
    array = opened(server)
    planes = Planes(_cache=ChunkCache(1 << 20, ahead_bytes=0), a=array)
    planes.get("z3/a/zarr.json")
    server.requests.clear()
    planes.get("z3/a/c/0/0")
    assert server.count(method="GET") == 2
    planes.get("z3/a/c/0/1", "z3/a/c/0/1", "z3/a/c/0/1")
    assert server.count(method="GET") == 3
    assert array.engine.stats().chunks_decoded == 0
    assert array.engine.stats().index_misses == 1


def test_many_who_ask_for_a_remote_chunk_cost_one_request(server):
    planes = Planes(_cache=ChunkCache(1 << 20, ahead_bytes=0), a=opened(server))
    server.latency_s = 0.05

    async def main():
        return await asyncio.gather(*(planes.ask("z3/a/c/3/3") for _ in range(10)))

    planes.get("z3/a/zarr.json")
    server.requests.clear()
    bodies = asyncio.run(main())
    assert len({bytes(body.content) for body in bodies}) == 1
    assert server.count(method="GET") == 2


def test_remote_chunks_are_read_ahead_and_right(server, stored):
    cache = ChunkCache(1 << 20)
    planes = Planes(_cache=cache, a=opened(server))

    async def main():
        await planes.ask("z3/a/c/1/0")
        await planes.ask("z3/a/c/1/1")
        await asyncio.gather(*(flight.task for flight in list(cache._flights.values())))
        before = len(server.requests)
        near = [await planes.ask(f"z3/a/c/{key}") for key in keys]
        return near, len(server.requests) - before, cache.counts

    keys = ("1/2", "1/3")
    near, requests, counts = asyncio.run(main())
    assert requests <= 2, "they read ahead again, none is read for itself"
    assert counts.used == 2
    assert counts.fetched == 2
    plain = Planes(a=stored.open()).get(*(f"z3/a/c/{key}" for key in keys))
    assert [bytes(body.content) for body in near] == [bytes(body.content) for body in plain]
    np.testing.assert_array_equal(by_zarr(planes, "z3/a"), stored.expected)


@pytest.mark.parametrize(("answer", "error"), [(503, vf.StoreError), (500, vf.StoreError), (403, vf.StoreError)])
def test_trouble_is_an_error_and_never_a_chunk_that_is_not_there(server, answer, error):
    planes = Planes(a=opened(server))
    planes.get("z3/a/zarr.json")
    server.rule = lambda request: status(answer)
    for path in ("z3/a/c/0/0", "z2/a/0/0", "z3/@viv/a/c/0/0"):
        with pytest.raises(error):
            planes.get(path)
    server.rule = lambda request: None
    assert planes.get("z3/a/c/0/0")


def test_who_leaves_stops_the_request(server):
    planes = Planes(_cache=ChunkCache(1 << 20, ahead_bytes=0), a=opened(server))
    planes.get("z3/a/c/0/0")
    server.latency_s = 20

    async def main():
        waiting = asyncio.ensure_future(planes.ask("z3/a/c/0/1"))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        server.latency_s = 0
        return await asyncio.wait_for(planes.ask("z3/a/c/0/1"), 10)

    assert asyncio.run(main())


def test_a_broken_shard_is_an_error(stored):
    shard = stored.path / "c/0/0"
    content = bytearray(shard.read_bytes())
    content[-40:] = bytes(40)
    shard.write_bytes(content)
    planes = Planes(a=stored.open())
    with pytest.raises(vf.DataError):
        planes.get("z3/a/c/0/0")
    assert planes.get("z3/a/c/4/4")


def test_local_files_that_change_are_read_anew(stored, tmp_path):
    planes = Planes(a=stored.open())
    first = planes.get("z3/a/c/0/0")
    other = write(tmp_path / "b", stored.expected + 1, chunks=(128, 128), shards=(512, 512))
    shutil.copy(other.path / "c/0/0", stored.path / "c/0/0")
    second = planes.get("z3/a/c/0/0")
    assert first.content != second.content
    assert first.etag != second.etag
